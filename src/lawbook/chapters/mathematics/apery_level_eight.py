"""Series over inverse central binomial coefficients: their values to any number of digits, in closed form, and as integer relations."""

import math
import re

import numpy as np

from lawbook.contract import DomainError, Paper, choice, count, integer, listing, nonnegative, real, record, text, vector
from lawbook.numerics.digits import DIGITS, PRECISE, told
from lawbook.trials import Identity

paper = Paper(
    __name__,
    title="Alternating Apery-Type Series and Colored Multiple Zeta Values of Level Eight",
    arxiv="2205.01000",
    tags=["apery series", "central binomial", "polylogarithm", "integer relation", "pslq", "feynman integrals"],
    source="derived",
    says="""Sums of y^n / (n^w C(2n,n)) evaluate to multiple polylogarithms at roots of unity: at fourth roots where the terms keep their sign, at eighth roots where
    they alternate, because trigonometric one-forms turn into hyperbolic ones. What makes the eighth roots appear is the unit 1 + sqrt 2 with its logarithm L = arcsinh 1:
    at y = -4 weight two is -2 L^2, and weight three needs the di- and trilogarithm at q = exp(-2L).""",
    notes="""The closed forms are derived here from arcsin^2 x = 1/2 sum (2x)^(2n) / (n^2 C(2n,n)) and x -> ix. Closed forms at the other bases
    (golden ratio at -1, Catalan's constant at 2, psi'(1/3) at 1) are added. Weights 1 and 2 are elementary at every base, so the integral for weights from 3
    serves all bases where the plain sum is slow, not only -4 and 4.""",
)

WEIGHT = count(high=60, typical=(1, 6), doc="w: power of n in the denominator", example=3)
SLOW = 3.5  # beyond this |base| the plain sum takes more than about 17 terms a digit


@paper.algorithm(
    r"S_w(y) = \sum_{n\ge1} \frac{y^n}{n^w \binom{2n}{n}} = \frac{2^{w-1}}{(w-3)!} "
    r"\int_0^{\arcsin x} u^2 \cot u\, \Big(\ln\frac{x}{\sin u}\Big)^{w-3} du,\quad x = \tfrac{\sqrt y}{2}",
    requires={"weight must be at least 2 at base 4: the sum of weight 1 diverges there": lambda weight, base: weight > 1 or base < 4},
    gives="-1.74820637659445587468",
)
def apery_series(
    weight: WEIGHT, base: real(low=-4, high=4, typical=(-4, 3.9), doc="y", example=-4.0), *, digits: count("digits", high=400, typical=(10, 40), example=21) = 30
) -> PRECISE:
    """Value of the series to as many digits as wanted: the plain sum for small bases, an integral with arcsin (or arcsinh, where the terms alternate) for the others."""
    import mpmath as mp

    with mp.workdps(digits + 15):
        return told(series(weight, mp.mpf(base)), digits)


def series(weight, base):
    """The sum as an mpmath number, at the working precision."""
    import mpmath as mp

    if base == 0:
        return mp.mpf(0)
    if abs(base) <= SLOW:
        factor, total, n = base / 2, mp.mpf(0), 1  # factor = y^n / C(2n, n)
        while abs(factor) > mp.eps:
            total += factor / n**weight
            factor *= base * (n + 1) / (2 * (2 * n + 1))
            n += 1
        return total
    x, sign = mp.sqrt(abs(base)) / 2, 1 if base > 0 else -1
    sine, arcsine, cotangent = (mp.sin, mp.asin, mp.cot) if base > 0 else (mp.sinh, mp.asinh, mp.coth)
    end = arcsine(x)
    if weight == 1:  # x/2 times the derivative of weight 2
        return sign * 2 * x * end / mp.sqrt((1 - x) * (1 + x) if base > 0 else 1 + x * x)
    if weight == 2:
        return sign * 2 * end**2
    integral = mp.quad(lambda u: u * u * cotangent(u) * mp.log(x / sine(u)) ** (weight - 3), [0, end])
    return sign * mp.mpf(2) ** (weight - 1) / mp.factorial(weight - 3) * integral


@paper.law(
    r"S_2(-4) = -2L^2,\quad S_3(-4) = -4\left[\tfrac{L^3}{3} + \tfrac{\zeta(3)}{2} + L^2 \ln(1-q) - L\,\mathrm{Li}_2(q) - \tfrac12 \mathrm{Li}_3(q)\right]", gives=-1.74820637659446
)
def apery_closed_form(weight: choice(2, 3, example=3), base: choice(-4, 4, 1, -1, 2, example=-4), *, digits: DIGITS = 15) -> PRECISE:
    """Closed form of the series at the bases where one is known for both weights."""
    import mpmath as mp

    with mp.workdps(digits + 15):
        L, zeta3 = mp.asinh(1), mp.zeta(3)
        q = 3 - 2 * mp.sqrt(2)
        forms = {
            (2, -4): lambda: -2 * L**2,
            (2, 4): lambda: mp.pi**2 / 2,
            (2, 1): lambda: mp.pi**2 / 18,
            (2, -1): lambda: -2 * mp.log(mp.phi) ** 2,
            (2, 2): lambda: mp.pi**2 / 8,
            (3, -4): lambda: -4 * (L**3 / 3 + zeta3 / 2 + L**2 * mp.log(1 - q) - L * mp.polylog(2, q) - mp.polylog(3, q) / 2),
            (3, 4): lambda: mp.pi**2 * mp.ln2 - 7 * zeta3 / 2,
            (3, 1): lambda: mp.pi * mp.sqrt(3) / 9 * (mp.psi(1, mp.mpf(1) / 3) - 2 * mp.pi**2 / 3) - 4 * zeta3 / 3,
            (3, -1): lambda: -2 * zeta3 / 5,
            (3, 2): lambda: mp.pi * mp.catalan - 35 * zeta3 / 16 + mp.pi**2 * mp.ln2 / 8,
        }
        return told(forms[weight, base](), digits)


# name of a constant -> (its weight, its value); Li and zeta carry their weight in the name
FACTOR = re.compile(r"(?P<name>L|pi|ln2|G|zeta\((?P<zeta>\d+)\)|Li_?(?P<li>\d+)\((?P<at>q|1/2)\))(?:\^(?P<power>\d+))?")


def constant(product):
    """(weight, function that computes it) of a product such as "L^2*ln2" or "L*Li2(q)"."""
    import mpmath as mp

    matches = [FACTOR.fullmatch(part.strip()) for part in product.split("*")]
    if not all(matches) or any(m["zeta"] in ("0", "1") or m["li"] == "0" for m in matches):
        raise DomainError(f"basis must hold products of L, pi, ln2, G, zeta(k), Lik(q) and Lik(1/2) such as L^2*ln2; it had {product!r:.60}.")
    elementary = {"L": (1, lambda: mp.asinh(1)), "pi": (1, lambda: +mp.pi), "ln2": (1, lambda: +mp.ln2), "G": (2, lambda: +mp.catalan)}

    def factor(m):
        if m["zeta"]:
            return int(m["zeta"]), lambda: mp.zeta(int(m["zeta"]))
        if m["li"]:
            return int(m["li"]), lambda: mp.polylog(int(m["li"]), 3 - 2 * mp.sqrt(2) if m["at"] == "q" else mp.mpf(1) / 2)
        return elementary[m["name"]]

    parts = [(*factor(m), int(m["power"] or 1)) for m in matches]
    return sum(weight * power for weight, _, power in parts), lambda: mp.fprod(value() ** power for _, value, power in parts)


@paper.algorithm(
    r"c_0 S_w(y) + \sum_i c_i b_i = 0,\quad c \in \mathbb{Z}^{1+k}",
    requires={"weight must be at least 2 at base 4: the sum of weight 1 diverges there": lambda weight, base: weight > 1 or base < 4},
    sample=lambda rng: {"weight": 3, "base": float(rng.choice([-4, -1, 2, 4])), "basis": ["zeta(3)", "pi^2*ln2", "pi*G"][: rng.integers(1, 4)]},
)
def apery_relation(
    weight: WEIGHT,
    base: real(low=-4, high=4, example=-4.0),
    basis: listing(text(empty=False), least=1, doc="products of L, pi, ln2, G, zeta(k), Lik(q), Lik(1/2)", example=["L^3", "zeta(3)", "L^2*ln2", "L*Li2(q)", "Li3(q)"]),
    *,
    digits: count("digits", low=20, high=300, typical=(40, 80)) = 60,
    height: count(high=10**9, doc="largest coefficient that is looked for") = 10_000,
) -> record(
    coefficients=vector("k+1", of=integer(), doc="that of the series first, and not negative; zeros where no relation was found"),
    residual=nonnegative(nan=True, doc="what the relation leaves at 40 digits more; NaN where none was found"),
):
    """Integer relation between the series and products of constants of its weight, found by PSLQ and checked again at 40 digits more."""
    import mpmath as mp

    products = [constant(product) for product in basis]
    for product, (own, _) in zip(basis, products, strict=True):
        if own != weight:
            raise DomainError(f"basis must hold products of the weight {weight} of the series; {product!r:.60} has weight {own}.")

    def values():
        return [series(weight, mp.mpf(base)), *(value() for _, value in products)]

    with mp.workdps(digits):
        found = mp.pslq(values(), maxcoeff=height, maxsteps=100_000)
    if found is not None:
        with mp.workdps(digits + 40):
            left = abs(mp.fdot(found, values()))
            if left < mp.mpf(10) ** -(digits + 25):
                if found[0] == 0:
                    named = " ".join(f"{c:+d} {product}" for c, product in zip(found[1:], basis, strict=True) if c)
                    raise DomainError(f"basis must hold independent constants; {named:.200} = 0.")
                return {"coefficients": np.array(found) * (1 if found[0] > 0 else -1), "residual": float(left)}
    return {"coefficients": np.zeros(len(basis) + 1, int), "residual": math.nan}


def alternating_sign_lost(weight, base, *, digits):
    return apery_closed_form(weight, abs(base), digits=digits)


def logarithm_positive(weight, base, *, digits):
    """L^2 ln(1-q) with the sign of a positive logarithm."""
    import mpmath as mp

    with mp.workdps(digits + 15):
        right = mp.mpf(apery_closed_form(weight, base, digits=digits + 10))
        return told(right + 8 * mp.asinh(1) ** 2 * mp.log(2 * (mp.sqrt(2) - 1)) if (weight, base) == (3, -4) else right, digits)


@paper.trial(
    Identity(rtol=0, atol=1e-50),
    of=[apery_closed_form, apery_series],
    controls={"sign of the base lost": alternating_sign_lost, "ln(1-q) taken positive": logarithm_positive},
    quick=1,
    full=1,
)
def fifty_digits(draw, claim):
    """All closed forms agree with the series to 50 digits; weight 4 at base 1 is 17 pi^4 / 3240."""
    import mpmath as mp

    with mp.workdps(70):
        off = [mp.mpf(claim(w, y, digits=60)) - mp.mpf(apery_series(w, float(y), digits=60)) for w in (2, 3) for y in (-4, 4, 1, -1, 2)]
        off.append(mp.mpf(apery_series(4, 1.0, digits=60)) - 17 * mp.pi**4 / 3240)
        return [float(difference) for difference in off], np.zeros(len(off))


def next_weight(weight, base, *, digits):
    return apery_series(weight + 1, base, digits=digits)


@paper.trial(Identity(rtol=0, atol=1e-50), of=[apery_series], controls={"weight one too high": next_weight}, quick=12, full=300)
def against_hypergeometric(draw, claim):
    """At any base the value is y/2 times the hypergeometric series (1,...,1; 3/2, 2,...,2; y/4); at -4 it is the alternating sum, accelerated."""
    import mpmath as mp

    w, y = draw.integer(1, 6), draw.choice([-4.0, draw.uniform(-3.99, 3.9)])
    with mp.workdps(75):
        if y == -4:
            exact = mp.nsum(lambda n: mp.mpf(-4) ** n / (mp.binomial(2 * n, n) * n**w), [1, mp.inf], method="alternating")
        else:
            exact = mp.mpf(y) / 2 * mp.hyper([1] * (w + 1), [mp.mpf(3) / 2] + [2] * (w - 1), mp.mpf(y) / 4)
        return float(mp.mpf(claim(w, y, digits=60)) - exact), 0.0, {"weight": w, "base": y}


def without_trilogarithm(weight, base, basis, **options):
    return {"coefficients": np.append(apery_relation(weight, base, [b for b in basis if b != "Li3(q)"], **options)["coefficients"], 0)}


@paper.trial(Identity(), of=[apery_relation], controls={"no Li3(q) in the basis": without_trilogarithm}, quick=1, full=1)
def relation_recovered(draw, claim):
    """PSLQ finds the closed form at -4 among six constants of weight 3, and those at 4 and 2, from 60 digits."""
    at_minus_four = claim(3, -4.0, ["L^3", "zeta(3)", "L^2*ln2", "L*Li2(q)", "pi^2*L", "Li3(q)"], digits=60)["coefficients"]
    others = [apery_relation(3, y, ["zeta(3)", "pi^2*ln2", "pi*G"], digits=60)["coefficients"] for y in (4.0, 2.0)]
    return [3, -8, 6, 12, -12, 0, -6, 2, 7, -2, 0, 16, 35, -2, -16], np.concatenate([at_minus_four, *others])


@paper.finding(
    """At base 4 the terms are positive and fall off like n^(1/2-w): a general-purpose accelerator (mpmath.nsum) gets the first digits of weight 2 wrong without saying so."""
)
def accelerator_fails_at_four():
    import mpmath as mp

    with mp.workdps(20):
        library = mp.nsum(lambda n: mp.mpf(4) ** n / (mp.binomial(2 * n, n) * n**2), [1, mp.inf])
        ours = mp.mpf(apery_series(2, 4.0, digits=20))
        return {"holds": bool(abs(library - ours) > 1e-3 and abs(ours - mp.pi**2 / 2) < 1e-18), "nsum": float(library), "value": float(ours), "error": float(abs(library - ours))}
