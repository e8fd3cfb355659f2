"""Which classical arithmetic functions a space with a square-summability part and a logarithmic-average part can hold."""

import math
from functools import lru_cache

import numpy as np

from lawbook.contract import Paper, caution, flag, real, record, vector
from lawbook.numerics.sieves import primes_up_to
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="A Universal Space of Arithmetic Functions: The Banach--Hilbert Hybrid Space U",
    arxiv="2510.00008",
    tags=["arithmetic functions", "dirichlet series", "dirichlet convolution", "number theory", "banach space", "square summability"],
    source="derived",
    says="""Proposes one normed space for all classical arithmetic functions: a Hilbert part asks that sum |f(n)|^2 n^(-2s) converge for every s above 1, a Banach part that the
    logarithmic averages of the partial sums of f(n)/n stay bounded. Completeness and closure under Dirichlet convolution are claimed. Measured here are the abscissa of
    square summability and the logarithmic mean of any sequence, and with them which functions pass either part: not all that the space is to contain do.""",
    notes="""The exact norm was not readable; this is its natural reading (a public summary quotes sup |f(n)| / log(2+n) instead, which excludes Euler's phi and the number of
    divisors as well). Membership is judged from finitely many values: an abscissa up to 1.1 passes, since that of the number of divisors comes down to 1/2 only like
    ln ln N / ln N, and a logarithmic mean counts as bounded if it grows by at most a quarter, and .25, from sqrt N to N.""",
)

VALUES = vector("N", of=real(typical=(-2, 2)), least=9, most=40, doc="f(1), ..., f(N)", example=[1, 2, 2, 3, 2, 4, 2, 4, 3, 4, 2, 6, 2, 4, 4, 5])


def enough(values):
    if len(values) < 1000:
        caution(f"values has only {len(values)} entries; slopes and averages settle from about 1000 on.")


@paper.measure(
    r"\sigma_2(f) = \limsup_N \frac{\ln \sum_{n \le N} |f(n)|^2}{2 \ln N} = \inf\Big\{s : \sum_n |f(n)|^2 n^{-2s} < \infty\Big\}",
    assumes=["The sum of squares grows without bound; where it converges the abscissa is 0 or below."],
    requires={"values must not all vanish up to sqrt N": lambda values: np.any(values[: math.ceil(math.sqrt(len(values)))])},
)
def l2_abscissa(values: VALUES) -> real():
    """Abscissa of square summability, estimated as half the least-squares slope of ln sum |f|^2 on ln x over x from sqrt N to N."""
    enough(values)
    return half_slope(values, 2)


def half_slope(values, halves):
    first = math.ceil(math.sqrt(len(values)))
    x = np.log(np.arange(first, len(values) + 1))
    y = np.log(np.cumsum(np.square(values, dtype=float))[first - 1 :])
    x -= x.mean()
    return float(x @ y / (x @ x) / halves)


@paper.measure(r"\frac{1}{\ln N} \sum_{n \le N} \frac{f(n)}{n}")
def logarithmic_mean(values: VALUES) -> real():
    """Logarithmic average of a sequence."""
    return float(np.asarray(values, float) @ (1 / np.arange(1, len(values) + 1)) / math.log(len(values)))


@paper.measure(
    r"\sigma_2(f) \le 1.1,\quad |M_N(f)| \le 1.25\,|M_{\sqrt N}(f)| + 0.25",
    requires={"values must not all vanish up to sqrt N": lambda values: np.any(values[: math.ceil(math.sqrt(len(values)))])},
)
def hybrid_membership(values: VALUES) -> record(hilbert=flag(doc="square summable with n^(-2s) for every s > 1"), banach=flag(doc="logarithmic averages bounded")):
    """Whether a sequence passes either part of the norm, judged from its first N values."""
    now, before = (abs(logarithmic_mean(values[:n])) for n in (len(values), math.isqrt(len(values))))
    return {"hilbert": l2_abscissa(values) <= 1.1, "banach": now <= 1.25 * before + 0.25}


@paper.algorithm(r"(f * g)(n) = \sum_{ab = n} f(a)\,g(b),\quad n = 1, \dots, N")
def dirichlet_convolve(first: VALUES, second: vector("N", of=real(typical=(-2, 2)), least=9, most=40, doc="g(1), ..., g(N)", example=[1] * 16)) -> vector("N"):
    """Dirichlet convolution of two sequences in N ln N steps, sqrt N of them vectorised."""
    f, g = (np.concatenate([[0.0], np.asarray(v, float)]) for v in (first, second))
    n = len(f) - 1
    out = np.zeros(n + 1)
    for a in range(1, math.isqrt(n) + 1):  # the smaller factor; each pair of factors once, the square apart
        out[a * a :: a] += f[a] * g[a : n // a + 1]
        out[a * (a + 1) :: a] += g[a] * f[a + 1 : n // a + 1]
    return out[1:]


@lru_cache(3)
def classical(limit):
    """mu, phi, Lambda, d, sigma, the character mod 4, 1 and n, up to a limit, by sieves."""
    n = np.arange(limit + 1)
    mu, phi, mangoldt = np.ones(limit + 1), n.astype(float), np.zeros(limit + 1)
    for p in primes_up_to(limit).tolist():
        mu[p::p] *= -1
        mu[p * p :: p * p] = 0
        phi[p::p] *= 1 - 1 / p
        power = p
        while power <= limit:
            mangoldt[power] = math.log(p)
            power *= p
    d, sigma = np.zeros(limit + 1), np.zeros(limit + 1)
    for k in range(1, math.isqrt(limit) + 1):
        d[k * k] += 1
        sigma[k * k] += k
        d[k * (k + 1) :: k] += 2
        sigma[k * (k + 1) :: k] += k + n[k + 1 : limit // k + 1]
    character = np.array([0.0, 1.0, 0.0, -1.0])[n % 4]
    names = {"mu": mu, "phi": np.round(phi), "Lambda": mangoldt, "d": d, "sigma": sigma, "character": character, "one": np.ones(limit + 1), "n": n.astype(float)}
    return {name: values[1:] for name, values in names.items()}


def additive_convolve(first, second):
    from scipy.signal import fftconvolve

    return fftconvolve(first, second)[: len(first)]


def squares_twice(first, second):
    """Both orders of the square's factor pair counted."""
    out = dirichlet_convolve(first, second)
    roots = np.arange(1, math.isqrt(len(out)) + 1)
    out[roots**2 - 1] += first[roots - 1] * second[roots - 1]
    return out


@paper.trial(Identity(rtol=1e-12, atol=1e-9), of=[dirichlet_convolve], controls={"sum of indices": additive_convolve, "squares counted twice": squares_twice}, quick=2, full=20)
def classical_identities(draw, claim, effort):
    """1 * mu = delta, phi * 1 = n, 1 * 1 = d, n * 1 = sigma, Lambda * 1 = ln, phi * d = sigma, with every function from its own sieve."""
    limit = int(draw.log_uniform(2000, 1e5 if effort == "quick" else 1e6))
    f = classical(limit)
    delta, log = np.zeros(limit), np.log(f["n"])
    delta[0] = 1
    products = [("one", "mu", delta), ("phi", "one", f["n"]), ("one", "one", f["d"]), ("n", "one", f["sigma"]), ("Lambda", "one", log), ("phi", "d", f["sigma"])]
    return np.stack([known for *_, known in products]), np.stack([claim(f[a], f[b]) for a, b, _ in products]), {"limit": limit}


def weight_without_square(values):
    return {"hilbert": half_slope(values, 1) <= 1.1, "banach": hybrid_membership(values)["banach"]}


TABLE = {"mu": (1, 1), "one": (1, 1), "character": (1, 1), "Lambda": (1, 1), "d": (1, 0), "phi": (0, 0), "sigma": (0, 0), "n": (0, 0)}


@paper.trial(
    Identity(),
    of=[hybrid_membership],
    controls={"weight n^-s in place of n^-2s": weight_without_square},
    quick=1,
    full=1,
)
def members(draw, claim):
    """At N = 10^5 mu, 1, Lambda and a character pass both parts; the number of divisors fails the Banach part; phi, sigma and n fail both."""
    f = classical(100_000)
    return [v for pair in TABLE.values() for v in pair], [float(v) for name in TABLE for v in claim(f[name]).values()]


@paper.trial(
    Inequality(search=0),
    of=[logarithmic_mean, l2_abscissa],
    claim=(logarithmic_mean, l2_abscissa),
    controls={"sum not divided by ln N": (lambda v: logarithmic_mean(v) * math.log(len(v)), l2_abscissa), "slope not halved": (logarithmic_mean, lambda v: 2 * l2_abscissa(v))},
    quick=1,
    full=1,
)
def limits_are_approached(draw, claim, effort):
    """Logarithmic means come to 0 for mu, pi/4 / ln N for the character, 1 for 1 and Lambda within .6 / ln N; abscissas to 1/2 and 3/2, that of d slowly and from above."""
    mean, abscissa = claim
    gaps, allowed, slopes = [], [], []
    for limit in (10**3, 10**4, 10**5, 10**6)[: 3 if effort == "quick" else 4]:
        f = classical(limit)
        gaps += [abs(mean(f["mu"])), abs(mean(f["character"]) - math.pi / 4 / math.log(limit)), abs(mean(f["one"]) - 1), abs(mean(f["Lambda"]) - 1)]
        allowed += [0.6 / math.log(limit)] * 4
        slopes.append(abscissa(f["d"]))
    off = [abs(abscissa(f[name]) - exact) for name, exact in (("mu", 0.5), ("one", 0.5), ("phi", 1.5), ("sigma", 1.5))]
    return [*gaps, *off, *slopes[1:], 0.5], [*allowed, *[0.01] * 4, *slopes[:-1], slopes[-1]], {"abscissas_of_d": slopes}


@paper.finding(
    """The space does not contain Euler's phi, which is named among its members: sum phi(n)^2 n^(-2s) diverges for every s up to 3/2, like N^0.6 at s = 1.2 (179, 714, 2841 at
    N = 10^4, 10^5, 10^6); only above 3/2 does it converge. The same holds for sigma and n.""",
    trial=members,
)
def phi_is_not_square_summable():
    phi = classical(10**6)["phi"]
    sums = {s: np.cumsum(phi**2 * np.arange(1, 10**6 + 1.0) ** (-2 * s))[[10**4 - 1, 10**5 - 1, 10**6 - 1]] for s in (1.2, 1.6)}
    exponent = float(np.log10(sums[1.2][2] / sums[1.2][1]))
    holds = np.allclose(sums[1.2], [179, 714, 2841], atol=1) and np.allclose(sums[1.6], [2.53, 2.65, 2.73], atol=0.01) and abs(exponent - 0.6) < 0.02
    return {"holds": bool(holds), "sums_at_1.2": sums[1.2].tolist(), "sums_at_1.6": sums[1.6].tolist(), "growth_exponent": exponent}


@paper.finding(
    """The Banach part is not closed under Dirichlet convolution: the function 1 has the logarithmic mean 1, and 1 * 1, the number of divisors, one that grows like (ln N)/2.""",
    trial=members,
)
def convolution_leaves_the_space():
    limits = [10**3, 10**4, 10**5, 10**6]
    ones = [logarithmic_mean(np.ones(n)) for n in limits]
    divisors = [logarithmic_mean(dirichlet_convolve(np.ones(n), np.ones(n))) for n in limits]
    growth = float(np.polyfit(np.log(limits), divisors, 1)[0])
    return {"holds": abs(growth - 0.5) < 0.03 and max(ones) < 1.1, "means_of_1": ones, "means_of_d": divisors, "growth_per_ln_n": growth}
