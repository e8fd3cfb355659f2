"""Continued fractions of complex numbers by nearest Gaussian integers, and the dimension of sets whose digits are restricted and grow."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, caution, count, either, integer, matrix, nonnegative, positive, real, record, text, vector
from lawbook.numerics import bracketed_root
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="A problem of Hirst for the Hurwitz continued fraction and the Hausdorff dimension of sets with restricted slowly growing digits",
    arxiv="2504.11144",
    tags=["continued fractions", "hausdorff dimension", "gaussian integers", "diophantine approximation", "iterated function systems"],
    source="derived",
    says="""Complex numbers whose Hurwitz digits all lie in an infinite set B and tend to infinity form a set of Hausdorff dimension tau/2, half the exponent of convergence of B,
    however slowly the digits are made to grow. The inverse branches w -> 1/(a + w) contract by |a|^-2, so digits of modulus R and more give the root s of
    sum |a|^(-2s) = 1, which falls to tau/2 as R grows; a growth restriction acts after any finite level and costs nothing.""",
    notes="""The theorem was seen as stated in a public review and re-derived heuristically. Digits are computed exactly for the floating-point number that is given (it is a
    Gaussian rational); once |q|^2 passes 2^52 they describe its rounding, and a caution says so. Restricted to |b| of at least 3 every digit sequence is admissible.""",
)

GAUSSIAN = integer(low=-(2**62), high=2**62, typical=(-9, 9))


@paper.algorithm(r"a_0 = [z],\quad w_0 = z - a_0,\quad a_{n+1} = [1/w_n],\quad w_{n+1} = 1/w_n - a_{n+1}")
def hurwitz_digits(
    real: real(low=-1e9, high=1e9, example=0.7320508075688772),
    imag: real(low=-1e9, high=1e9, example=0.4142135623730951),
    count: count("digits", high=2000, typical=(1, 12), example=8),
) -> matrix("n", 2, of=GAUSSIAN):
    """First digits of the continued fraction by nearest Gaussian integers, a_0 first; fewer where it ends, or where what is left is below 2^-62."""
    return expansion(real, imag, count, lambda numerator, n: (2 * numerator + n) // (2 * n))  # floor(x + 1/2)


def expansion(real, imag, count, nearest):
    (x, m), (y, n) = float(real).as_integer_ratio(), float(imag).as_integer_ratio()
    p, q = (x * n, y * m), (m * n, 0)
    digits, before, size = [], (0, 0), (1, 0)  # and the denominators of the convergents
    while len(digits) < count and q != (0, 0):
        norm = q[0] ** 2 + q[1] ** 2
        a = nearest(p[0] * q[0] + p[1] * q[1], norm), nearest(p[1] * q[0] - p[0] * q[1], norm)
        if max(map(abs, a)) > 2**62:
            break
        p, q = q, (p[0] - a[0] * q[0] + a[1] * q[1], p[1] - a[0] * q[1] - a[1] * q[0])
        if digits:
            before, size = size, (a[0] * size[0] - a[1] * size[1] + before[0], a[0] * size[1] + a[1] * size[0] + before[1])
        digits.append(a)
        if size[0] ** 2 + size[1] ** 2 > 2**52:
            caution(f"count: from digit {len(digits)} on the digits are those of the rounding of real and imag to double precision.")
            size = before = (0, 0)  # said once
    return np.array(digits)


@paper.algorithm(r"z = a_0 + \cfrac{1}{a_1 + \cfrac{1}{a_2 + \cdots}}", gives={"real": 0.5, "imag": -0.5})
def hurwitz_value(digits: matrix("n", 2, of=GAUSSIAN, doc="digits, a row (real, imaginary) each", example=[[0, 0], [1, 1]])) -> record(real=real(), imag=real()):
    """Value of a finite continued fraction, exact up to the last rounding."""
    p, q, p_before, q_before = (1, 0), (0, 0), (0, 0), (1, 0)
    for a, b in np.asarray(digits).tolist():
        p, p_before = (a * p[0] - b * p[1] + p_before[0], a * p[1] + b * p[0] + p_before[1]), p
        q, q_before = (a * q[0] - b * q[1] + q_before[0], a * q[1] + b * q[0] + q_before[1]), q
    norm = q[0] ** 2 + q[1] ** 2
    if norm == 0:
        raise DomainError("digits must not lead to a division by zero; these do.")
    return {"real": (p[0] * q[0] + p[1] * q[1]) / norm, "imag": (p[1] * q[0] - p[0] * q[1]) / norm}


@paper.law(
    r"\dim_H\{z : a_n \in B,\ |a_n| \to \infty\} = \tfrac{\tau(B)}{2},\quad \tau(B) = \limsup_{r\to\infty} \frac{\ln \#\{b \in B : |b| \le r\}}{\ln r}",
    requires={
        "family must be power, all, geometric or a list of moduli": lambda family: not isinstance(family, str) or family in ("power", "all", "geometric"),
        "family must hold at least two different moduli": lambda family: isinstance(family, str) or len(np.unique(family)) > 1,
    },
    sample=lambda rng: {"family": ["power", "all", "geometric", rng.uniform(1, 50, 9)][rng.integers(4)], "exponent": float(rng.uniform(0.5, 4))},
    gives=0.5,
)
def hirst_dimension(
    family: either(
        vector("n", of=positive(low=1, above=False, high=1e300, typical=(1, 1e4)), least=3),
        text(),
        doc="power (B = {k^p}), all (Gaussian integers), geometric ({2^k}), or the moduli of the elements of B, from which the exponent is estimated",
        example="power",
    ),
    *,
    exponent: positive(high=1e6, typical=(0.5, 4), doc="p of the family of powers") = 1.0,
) -> nonnegative():
    """Dimension of the set with digits from B that tend to infinity, half the exponent of convergence; of a list, half the slope of log counts on log moduli."""
    if isinstance(family, str):
        return {"power": 0.5 / exponent, "all": 1.0, "geometric": 0.0}[family]
    sizes, counts = np.unique(np.asarray(family, float), return_counts=True)
    return float(np.polyfit(np.log(sizes), np.log(np.cumsum(counts)), 1)[0] / 2)


@paper.limit(r"\sum_{k \ge R} k^{-2ps} = \zeta(2ps, R) = 1")
def tail_dimension(
    exponent: positive(high=100, typical=(0.5, 4), doc="p: digits k^p", example=1.0),
    minimum: positive(low=2, above=False, high=1e300, typical=(2, 1e16), doc="R: digits with k >= R", example=3.0),
) -> positive():
    """Dimension that digits k^p with k of at least R allow at most; it falls to tau/2 = 1/(2p) as R grows, like ln ln R / ln R."""
    from scipy.special import zeta

    excess = bracketed_root(lambda u: math.log(max(zeta(1 + math.exp(u), minimum), 1e-300)), math.log(1e-6), math.log(2.0), what="zeta(2ps, minimum) = 1")
    return (1 + math.exp(excess)) / (2 * exponent)


def denominators(digits, depth):
    """|q_w|^2 of all words w of the digits, of length depth - 1 and depth."""
    a = np.asarray(digits, float) @ [1, 1j]
    before, q = np.zeros(1, complex), np.ones(1, complex)
    for _ in range(depth):
        before, q = np.repeat(q, len(a)), (q[:, None] * a + before[:, None]).ravel()
    return np.abs(before[:: len(a)]) ** 2, np.abs(q) ** 2


@paper.limit(
    r"Z_m(s) = Z_{m-1}(s),\quad Z_m(s) = \sum_{w \in B^m} |q_w|^{-2s}",
    requires={
        "digits must have moduli of at least 3: not all words are admissible otherwise": lambda digits: (np.asarray(digits) ** 2).sum(1).min() >= 9,
        "digits must be at least two different ones": lambda digits: len(digits) > 1 and len(np.unique(digits, axis=0)) == len(digits),
        "depth must leave at most 10^5 words of the digits": lambda digits, depth: depth * math.log(len(digits)) <= math.log(1e5) + 1e-9,
    },
    sample=lambda rng: {
        "digits": rng.permutation([[a, b] for a in range(-5, 6) for b in range(-5, 6) if a * a + b * b >= 9])[: rng.integers(2, 6)],
        "depth": int(rng.integers(1, 6)),
    },
    gives=0.456454,
)
def finite_dimension(
    digits: matrix("k", 2, of=GAUSSIAN, doc="Gaussian integers of modulus 3 and more", example=[[3, 0], [4, 0], [0, 3]]), depth: count(high=40, typical=(2, 7), example=6)
) -> positive():
    """Dimension of the set with digits from a finite set, from words of two lengths; the error falls exponentially with the depth."""
    return crossing(*denominators(digits, depth), 1.0)


def crossing(shorter, longer, power):
    """s at which the sums of |q|^(-2 power s) over words of two lengths agree."""
    short, long = np.log(shorter), np.log(longer)

    def gap(s):
        return float(np.logaddexp.reduce(-power * s * long) - np.logaddexp.reduce(-power * s * short))

    return bracketed_root(gap, 0.0, 4.0 / power, what="Z_m(s) = Z_{m-1}(s)")


def rounded_down(real, imag, count):
    return expansion(real, imag, count, lambda numerator, n: numerator // n)


@paper.trial(Inequality(search=0), of=[hurwitz_digits, hurwitz_value], controls={"rounded down": rounded_down}, quick=200, full=5000)
def nearest_integers(draw, claim):
    """Twenty-four digits give the number back to nine places, digits after the first have a modulus of at least sqrt 2, and convergents satisfy |z - p/q| |q|^2 <= 1."""
    z = complex(draw.uniform(-3, 3), draw.uniform(-3, 3))
    digits = claim(z.real, z.imag, 24)
    values = [complex(*hurwitz_value(digits[: n + 1]).values()) for n in range(len(digits))]
    norms = [float(denominators_along(digits[1 : n + 1])) for n in range(6)]
    far = [abs(z - value) * norm for value, norm in zip(values, norms, strict=False)]
    return [abs(values[-1] - z), -min(abs(complex(*a)) for a in digits[1:]), max(far)], [1e-9, -math.sqrt(2) * (1 - 1e-15), 1.0], {"z": z}


def denominators_along(digits):
    """|q|^2 of one word."""
    q, before = 1 + 0j, 0j
    for a in digits:
        q, before = complex(*a) * q + before, q
    return abs(q) ** 2


def without_square(digits, depth):
    return crossing(*denominators(digits, depth), 0.5)


def by_transfer_operator(digits):
    """Dimension for positive integers as digits: s at which the operator f -> sum |a + x|^(-2s) f(1/(a + x)) on [0, 1] has the eigenvalue 1, at 16 Chebyshev points."""
    from numpy.polynomial import chebyshev
    from scipy.optimize import brentq

    x = (1 + np.cos(np.pi * (np.arange(16) + 0.5) / 16)) / 2
    basis = np.linalg.inv(chebyshev.chebvander(2 * x - 1, 15))
    shifted = x[:, None] + np.asarray(digits, float)
    maps = np.stack([chebyshev.chebvander(2 / column - 1, 15) @ basis for column in shifted.T])
    return brentq(lambda s: np.abs(np.linalg.eigvals(np.einsum("xd,dxy->xy", shifted ** (-2 * s), maps))).max() - 1, 0.01, 1.5)


@paper.trial(Identity(rtol=0, atol=1e-5), of=[finite_dimension], controls={"|a|^-s, the square forgotten": without_square}, quick=6, full=60)
def transfer_operator(draw, claim):
    """Dimensions agree with the leading eigenvalue of the transfer operator, at one depth and the next."""
    digits = np.sort(draw.rng.choice(np.arange(3, 15), size=draw.integer(2, 5), replace=False))
    depth = int(math.log(1e5) / math.log(len(digits))) - 1
    rows = np.column_stack([digits, 0 * digits])
    return [by_transfer_operator(digits)] * 2, [claim(rows, depth), claim(rows, depth + 1)], {"digits": digits}


def tail_without_square(exponent, minimum):
    return 2 * tail_dimension(exponent, minimum)


@paper.trial(
    Inequality(search=0),
    of=[tail_dimension, hirst_dimension, finite_dimension],
    controls={"|a|^-s, the square forgotten": tail_without_square, "half of it": lambda p, r: tail_dimension(p, r) / 2},
    quick=3,
    full=20,
)
def digits_tend_to_infinity(draw, claim):
    """Finite sets of digits from R on have dimensions that grow with the set and stay below that of the tail, which falls to tau/2, to within .004/p at R = 10^300."""
    p = draw.uniform(0.5, 3)
    half_tau = hirst_dimension("power", exponent=p)
    tails = [claim(p, 10.0**k) for k in (1, 2, 4, 8, 16, 32, 64, 128, 300)]
    R = draw.integer(3, 30)
    finite = [finite_dimension([[k, 0] for k in range(R, top)], 1 if top > 60 else 2) for top in (R + 4, R + 20, 300 * R)]
    smaller = [*tails[1:], half_tau, *finite[:-1], finite[-1], tails[-1]]
    larger = [*tails[:-1], tails[-1], *finite[1:], claim(1.0, float(R)), half_tau + 0.004 / p]
    return smaller, larger, {"exponent": p, "R": R}


@paper.finding(
    """That the dimension is exactly tau/2 shows at no digits one could write down: for B = {1, 2, ...} (tau/2 = .5) digits from 3 on still allow .79, from 100 on .64 and from
    10^16 on .536, while the finite sets {3..R} climb past .5 only at R = 7."""
)
def logarithmically_slow():
    tails = {f"tail_{R:g}": tail_dimension(1.0, R) for R in (3.0, 10.0, 100.0, 1e8, 1e16)}
    finite = {f"up_to_{R}": finite_dimension([[k, 0] for k in range(3, R + 1)], depth) for R, depth in ((4, 12), (5, 9), (6, 8), (7, 7), (10, 5), (20, 3))}
    published = [0.791, 0.702, 0.639, 0.558, 0.536, 0.264, 0.389, 0.512, 0.594, 0.683]
    found = [*tails.values(), *(finite[f"up_to_{R}"] for R in (4, 5, 7, 10, 20))]
    return {"holds": bool(np.allclose(found, published, atol=6e-4)) and finite["up_to_6"] < 0.5 < finite["up_to_7"], **tails, **finite}
