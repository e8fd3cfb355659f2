"""How large the zeta function gets in a short window of the critical line, and its random-matrix twin."""

import math
from functools import lru_cache

import numpy as np
from numpy.polynomial import Chebyshev

from lawbook.contract import Paper, count, positive, probability, real, seed, vector
from lawbook.numerics import arrays
from lawbook.numerics.statistics import clopper_pearson
from lawbook.trials import Distribution, Inequality, Rate, Sample

paper = Paper(
    __name__,
    title="The Fyodorov-Hiary-Keating Conjecture. I",
    arxiv="2007.00988",
    tags=["zeta function", "extreme values", "log-correlated fields", "random matrices", "riemann-siegel", "branching random walk"],
    source="known",
    says="""In a window of length 2 at a random height between T and 2T the maximum of |zeta(1/2 + it)| is typically about ln T / (ln ln T)^(3/4), and the probability that it is
    e^y times as large is at most of the order of y exp(-2y). The power 3/4 and the factor y are the marks of a logarithmically correlated field: independent values would have
    the power 1/4 and no factor. The characteristic polynomial of a random unitary matrix of dimension ln T behaves alike.""",
    notes="""The constant of the bound is not specified in the paper; it is an argument here, and 1 is large enough at all heights that were tried. The asymptotics are slow:
    ln ln ln T is below 1.2 at every height within reach of double precision. The random unitary matrices are drawn through their Verblunsky coefficients (Killip and Nenciu),
    which need no matrix; the trial holds them against eigenvalues of Haar matrices. The maximum over a grid is a little below the true one.""",
)


def fresnel_ratio(p):
    return np.cos(2 * np.pi * (p * p - p - 1 / 16)) / np.cos(2 * np.pi * p)


# entire, but 0/0 at p = 1/4 and 3/4: interpolated at points that avoid both
REMAINDER = Chebyshev.interpolate(fresnel_ratio, 40, domain=[-0.02, 1.02])
HEIGHT = positive(low=100, high=1e9, above=False, typical=(1e3, 1e6), doc="T", example=1e6)


def theta(t):
    """Phase of zeta on the critical line."""
    return t / 2 * np.log(t / (2 * np.pi)) - t / 2 - np.pi / 8 + 1 / (48 * t) + 7 / (5760 * t**3)


def correction(t, terms):
    """First term of the Riemann-Siegel remainder after `terms` terms."""
    a = np.sqrt(t / (2 * np.pi))
    return (-1.0) ** (terms - 1) / np.sqrt(a) * REMAINDER(a - terms)


@paper.measure(
    r"Z(t) = 2\sum_{n \le a} \frac{\cos(\theta(t) - t \ln n)}{\sqrt n} + \frac{(-1)^{\lfloor a \rfloor - 1}}{\sqrt a} \frac{\cos 2\pi(p^2 - p - \frac1{16})}{\cos 2\pi p},\quad"
    r" a = \sqrt{\tfrac{t}{2\pi}},\ p = a - \lfloor a \rfloor"
)
def riemann_siegel_z(t: vector("n", of=positive(low=50, high=1e9, above=False, typical=(100, 1e6)), doc="heights", example=[1000.0, 1e6])) -> vector("n"):
    """Hardy's function, real with |Z(t)| = |zeta(1/2 + it)|, for many heights at once; the error is at most 0.127 t^(-3/4)."""
    t = np.asarray(t, float)
    z = np.empty(len(t))
    order = np.argsort(t)
    terms = np.floor(np.sqrt(t / (2 * np.pi)))
    block = max(1, int(2e6 / terms.max()))
    for part in (order[i : i + block] for i in range(0, len(t), block)):
        n = np.arange(1, terms[part[-1]] + 1)
        waves = np.cos(theta(t[part])[:, None] - np.outer(t[part], np.log(n))) / np.sqrt(n)
        z[part] = 2 * np.where(n <= terms[part, None], waves, 0).sum(1) + correction(t[part], terms[part])
    return z


@paper.model(r"y_j = \ln \max_{|h| \le 1} |\zeta(\tfrac12 + i(t_j + h))| - \ln\ln T + \tfrac34 \ln\ln\ln T,\quad t_j \sim U[T, 2T]")
def zeta_local_maximum(
    height: HEIGHT, windows: count(high=10**6, typical=(1, 50), example=100), seed: seed(example=0), *, grid: count("points", low=3, high=2000, typical=(21, 101)) = 81
) -> vector("windows"):
    """Logarithm of the largest |zeta| in random windows of length 2 at height T, over what is typical."""
    start = height * (1 + np.random.default_rng(seed).random(windows))
    h = np.linspace(-1, 1, grid)
    terms = np.floor(np.sqrt(start / (2 * np.pi)))
    n = np.arange(1, terms.max() + 1)
    shared = np.exp(-1j * np.outer(np.log(n), h)) / np.sqrt(n)[:, None]  # n^(-1/2 - ih): the same in all windows, so one matrix product serves them
    largest = np.empty(windows)
    block = max(1, int(2e6 / len(n)))
    for i in range(0, windows, block):
        t, own = start[i : i + block, None], terms[i : i + block, None]
        z = 2 * (np.exp(1j * theta(t + h)) * (np.where(n <= own, np.exp(-1j * t * np.log(n)), 0) @ shared)).real + correction(t + h, own)
        largest[i : i + block] = np.abs(z).max(1)
    return np.log(largest) - float(fhk_centre(height))


@paper.model(r"\ln \max_{|z|=1} |\det(z - U)|,\quad U \sim \text{Haar on } U(N)")
def cue_maximum(dim: count(low=2, high=1000, typical=(2, 64), doc="N", example=32), draws: count(high=10**5, typical=(1, 50), example=100), seed: seed(example=0)) -> vector(
    "draws"
):
    """Logarithm of the largest modulus on the unit circle of the characteristic polynomial of random unitary matrices, on 8N points."""
    rng = np.random.default_rng(seed)
    largest = np.empty(draws)
    block = max(1, int(1e6 / (8 * dim)))
    for i in range(0, draws, block):
        size = min(block, draws - i)
        squared = np.ones((size, dim))
        squared[:, :-1] = rng.beta(1, np.arange(dim - 1, 0, -1), (size, dim - 1))
        alpha = np.sqrt(squared) * np.exp(2j * np.pi * rng.random((size, dim)))
        phi = np.zeros((size, dim + 1), complex)
        phi[:, 0] = 1
        for k in range(dim):  # Szego's recursion for the coefficients: Phi -> z Phi - conj(alpha) Phi*
            star = phi[:, k::-1].conj() * alpha[:, k, None].conj()
            phi[:, 1 : k + 2] = phi[:, : k + 1].copy()
            phi[:, 0] = 0
            phi[:, : k + 1] -= star
        largest[i : i + size] = np.log(np.abs(np.fft.fft(phi, n=8 * dim)).max(1))
    return largest


@paper.bound(r"P(y(t) > y) \le C\, y\, e^{-2y},\quad y \ge 1", closed_form=True, assumes=["The constant C is absolute, but the paper does not say how large it is."])
def fhk_tail(y: real(low=1, high=50, typical=(1, 10), example=1.5), *, constant: positive(typical=(0.1, 10), doc="C") = 1.0) -> probability():
    """Bound on the probability that the maximum exceeds exp(y) times ln T / (ln ln T)^(3/4)."""
    xp, y, c = arrays(y, constant)
    return xp.minimum(c * y * xp.exp(-2 * y), xp.ones_like(c * y))


@paper.law(r"\ln\ln T - \tfrac34 \ln\ln\ln T", closed_form=True, gives=1.9018)
def fhk_centre(height: positive(low=16, above=False, typical=(1e3, 1e9), doc="T", example=1e6)) -> real():
    """Logarithm of the typical maximum of |zeta| in a window at height T."""
    xp, t = arrays(height)
    twice = xp.log(xp.log(t))
    return twice - 0.75 * xp.log(twice)


@lru_cache(1000)
def precise_z(t):
    import mpmath

    return float(mpmath.siegelz(t))


sampled = lru_cache(100)(zeta_local_maximum)  # the controls of a trial look at the same windows
circle = lru_cache(10_000)(lambda dim, draws, seed: float(cue_maximum(dim, draws, seed).mean()))


def without_remainder(t):
    return riemann_siegel_z(t) - correction(t, np.floor(np.sqrt(t / (2 * np.pi))))


def remainder_flipped(t):
    return riemann_siegel_z(t) - 2 * correction(t, np.floor(np.sqrt(t / (2 * np.pi))))


@paper.trial(
    Inequality(search=0),
    of=[riemann_siegel_z, zeta_local_maximum],
    controls={"no remainder": without_remainder, "remainder with the other sign": remainder_flipped},
    quick=2,
    full=20,
)
def remainder_is_bounded(draw, claim):
    """Against mpmath the error is at most 0.127 t^(-3/4) (Gabcke's bound), and the maxima of windows are those of the function itself, within twice that."""
    t = 10 ** draw.rng.uniform(2.4, 6, 6)
    error = np.abs(claim(t) - [precise_z(x) for x in t])
    height, key = draw.log_uniform(1e4, 1e6), draw.integer(0, 1000)
    start = height * (1 + np.random.default_rng(key).random(3))
    direct = np.abs(claim((start[:, None] + np.linspace(-1, 1, 81)).ravel())).reshape(3, 81).max(1)
    maxima = np.exp(zeta_local_maximum(height, 3, key) + float(fhk_centre(height)))
    return [*error, *np.abs(maxima - direct)], [*0.127 * t**-0.75, *[0.254 * height**-0.75] * 3], {"t": t}


def plus_three_quarters(height):
    return fhk_centre(height) + 1.5 * math.log(math.log(math.log(height)))


HEIGHTS = (1e5, 1e6, 1e7)


@paper.trial(
    Inequality(search=0),
    of=[fhk_tail, fhk_centre, zeta_local_maximum],
    claim=(fhk_tail, fhk_centre),
    controls={"a tenth of the bound": (lambda y: fhk_tail(y, constant=0.1), fhk_centre), "+3/4 in the centre": (fhk_tail, plus_three_quarters)},
    quick=1,
    full=1,
)
def tail_of_the_maximum(draw, claim, effort):
    """At heights 10^5 to 10^7 the frequencies of y > 1, 1.5 and 2 are not above y exp(-2y) (99.9 % lower limits); the mean of y is within 1 of zero and moves by less than .3."""
    tail, centre = claim
    windows = 1000 if effort == "quick" else 20_000
    samples = {T: sampled(T, windows, draw.integer(0, 10**6)) + float(fhk_centre(T)) - float(centre(T)) for T in HEIGHTS}
    frequencies = [clopper_pearson(int((y > level).sum()), windows, 0.998)[0] for y in samples.values() for level in (1, 1.5, 2)]
    means = [float(y.mean()) for y in samples.values()]
    bounds = [float(tail(level)) for _ in HEIGHTS for level in (1, 1.5, 2)]
    return [*frequencies, max(means) - min(means), *np.abs(means)], [*bounds, 0.3, *[1.0] * 3], {"means": means}


def one_quarter(height):
    return fhk_centre(height) + 0.5 * math.log(math.log(math.log(height)))


@paper.trial(
    Rate(axes="linear", within=0.25),
    of=[cue_maximum, fhk_centre],
    claim=fhk_centre,
    controls={"1/4, of independent values": one_quarter, "+3/4": plus_three_quarters},
    quick=10,
    full=100,
)
def random_matrices_have_three_quarters(draw, claim):
    """The mean of the maximum for N = 8 to 128 less ln N - (3/4) ln ln N has no trend in ln ln N: its slope is 0 within .25."""
    dims = [8, 16, 32, 64, 128]
    means = [circle(N, 40, draw.integer(0, 10**6)) - float(claim(math.exp(N))) for N in dims]
    return np.log(np.log(dims)), means, 0.0


def orthogonal(dim, draws, seed):
    """Of random orthogonal matrices."""
    from scipy.stats import ortho_group

    return haar_maximum(ortho_group.rvs(dim, size=draws, random_state=seed))


def haar_maximum(matrices):
    dim = matrices.shape[-1]
    z = np.exp(2j * np.pi * np.arange(8 * dim) / (8 * dim))
    return np.log(np.abs(z[None, :, None] - np.linalg.eigvals(matrices)[:, None, :]).prod(2).max(1))


@paper.trial(
    Distribution(),
    of=[cue_maximum],
    controls={"dimension larger by 3": lambda dim, draws, seed: cue_maximum(dim + 3, draws, seed), "orthogonal matrices": orthogonal},
    quick=1000,
    full=10_000,
)
def haar_matrices(draw, claim):
    """Maxima from the recursion follow the law of those from the eigenvalues of Haar unitary matrices of dimension 6."""
    from scipy.stats import unitary_group

    return Sample(claim(6, draw.size, draw.integer(0, 10**6)), like=haar_maximum(unitary_group.rvs(6, size=draw.size, random_state=draw.integer(0, 10**6))))


@paper.finding(
    """At heights within reach the tail is far below C y exp(-2y) with C = 1, and falls faster: at T = 10^6 the frequency of y > 1 is a quarter of y exp(-2y), that of y > 1.5
    a twentieth. Finite heights show neither the constant nor the factor y."""
)
def tail_falls_faster():
    y = zeta_local_maximum(1e6, 6000, 0)
    shares = [float((y > level).mean() / (level * math.exp(-2 * level))) for level in (1, 1.5)]
    holds = 0.15 < shares[0] < 0.35 and shares[1] < 0.6 * shares[0] and abs(y.mean() + 0.30) < 0.05 and abs(y.std() - 0.71) < 0.05
    return {"holds": bool(holds), "share_at_1": shares[0], "share_at_1.5": shares[1], "mean": float(y.mean()), "deviation": float(y.std())}
