"""What a noisy sample is worth beside a clean one, moment by moment, and how many clean ones to buy."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, count, distribution, nonnegative, positive, real, record, vector
from lawbook.numerics import arrays
from lawbook.trials import Estimate, Identity, Inequality, Rate

paper = Paper(
    __name__,
    title="How much is a noisy image worth? Data Scaling Laws for Ambient Diffusion",
    arxiv="2411.02780",
    tags=["diffusion", "noisy data", "data scaling", "deconvolution", "gaussian mixture", "data quality", "method of moments"],
    source="derived",
    says="""Diffusion models that see only noisy images fall short of those that see clean ones, but a tenth of clean images beside many noisy ones nearly closes the gap. In a
    Gaussian mixture the reason is visible: coarse structure sits in low moments, which noisy samples determine at a small surcharge, and fine structure in high ones,
    where the price of a clean sample in noisy ones grows exponentially with the order. Weighting each sample by the inverse variance of its moment estimate says how
    many samples a heterogeneous set is worth, and how many clean ones are still to be bought.""",
    notes="""The abstract was seen, not the theorem's constants; these are the exact variances of Hermite moment estimates behind it. Noise is a standard deviation throughout.
    In the fit of two atoms no clipping is needed: the discriminant is (c_1 - 2 M_1)^2 + 4 d and the product of the atoms' distances to M_1 is -d, so for d > 0 the roots are
    real and their weights lie inside (0, 1). With two atoms -.6 and .4 (weights .4, .6) and 2000 samples, a tenth of them clean, the paper's near-parity is not reached.""",
)

MOMENT = count(typical=(1, 6), high=60, supported=(1, 8), static=True, doc="order m of the moment; beyond 8 variances explode", example=2)
NOISE = nonnegative(typical=(0.05, 2), doc="standard deviation of the Gaussian noise on a sample")
NOISES = vector("samples", of=NOISE, most=30, doc="known noise of each sample", example=[0.1, 0.1, 1.0, 1.0, 1.0, 1.0])
SAMPLES = vector("samples", of=real(typical=(-2, 2)), most=30, doc="clean value plus its noise", example=[-0.6, 0.4, 0.5, 1.2, -0.3, -1.1])
ATOMS, WEIGHTS = np.array([-0.6, 0.4]), np.array([0.4, 0.6])
VALUE_MOMENTS = vector("orders", of=real(), doc="E U^k of the clean law for k = 1, 2, ..., 2m at least; odd orders too", example=[float(WEIGHTS @ ATOMS**k) for k in range(1, 9)])


def moments_of(atoms, weights, orders):
    return [float(weights @ atoms**k) for k in range(1, orders + 1)]


def of_some_law(value_moments, moment):
    size = np.arange(1, moment + 1)
    return len(value_moments) >= 2 * moment and bool(np.all(value_moments[2 * size - 1] >= value_moments[size - 1] ** 2 * (1 - 1e-12)))


REQUIRES = {"value_moments must hold the orders 1 to 2 moment of some law, E U^2k being at least (E U^k)^2": of_some_law}


def random_case(rng, *names):
    """Moments of a random law of three atoms, an order, and the arguments with these names."""
    m = int(rng.integers(1, 6))
    case = {name: float(rng.uniform(0.05, 2)) for name in ("noisy_sigma", "clean_sigma", "reference_sigma")}
    case |= {"noises": rng.uniform(0.05, 2, int(rng.integers(1, 20))), "noisy": int(rng.integers(0, 10**6)), "tolerance": float(10 ** rng.uniform(-4, 0))}
    return {"moment": m, "value_moments": moments_of(rng.uniform(-1, 1, 3), rng.dirichlet(np.ones(3)), 2 * m)} | {name: case[name] for name in names}


def polynomial_variance(moment, even_power, noise):
    """sum_j C(m,j)^2 j! noise^(2j) even_power(m-j), where even_power(k) stands for u^(2k)."""
    return sum(math.comb(moment, j) ** 2 * math.factorial(j) * noise ** (2 * j) * even_power(moment - j) for j in range(1, moment + 1))


def moment_variance(moment, noise, value_moments):
    """V_m: variance of one sample's Hermite estimate of E U^m, over noise and clean law."""
    u = np.concatenate([[1.0], value_moments])
    return polynomial_variance(moment, lambda k: u[2 * k], np.asarray(noise, float)) + max(float(u[2 * moment] - u[moment] ** 2), 0.0)


def one_variance(name, moment, noise, value_moments):
    variance = float(moment_variance(moment, noise, value_moments))
    if not variance > 0:
        raise DomainError(f"{name} must be above 0 where the clean law is a single atom: one sample without noise already gives the moment exactly; it was {noise:.6g}.")
    return variance


@paper.law(r"v_m(u, \sigma) = \sum_{j=1}^m \binom{m}{j}^2 j!\, \sigma^{2j} u^{2(m-j)}", closed_form=True, gives=9.0246)
def hermite_variance(moment: MOMENT, value: real(typical=(-2, 2), example=0.7), noise: nonnegative(typical=(0.05, 2), example=1.3)) -> nonnegative():
    """Variance of the unbiased estimate noise^m He_m(x/noise) of u^m from one sample x of the clean value u."""
    _, u, sigma = arrays(value, noise)
    return polynomial_variance(moment, lambda k: u ** (2 * k), sigma)


@paper.measure(
    r"\hat M_m = \frac{\sum_i w_i\, \sigma_i^m \mathrm{He}_m(x_i/\sigma_i)}{\sum_i w_i},\quad w_i = 1/\hat V_m(\sigma_i)",
    assumes=["The noise of every sample is Gaussian, independent and known.", "Weights are close to the best only as far as one variance describes the clean law."],
)
def hermite_moments(samples: SAMPLES, noises: NOISES, orders: count(typical=(1, 6), high=60, supported=(1, 8), doc="moments 1 to this order", example=3)) -> record(
    estimates=vector("orders"), se=vector("orders", of=nonnegative(), doc="standard errors from the scatter of the samples")
):
    """Deconvolved moments of the clean law from samples of different noise, each sample weighted by its inverse variance."""
    x, squared = np.asarray(samples, float), np.square(np.asarray(noises, float))
    w = 1 / (1 + squared) ** 2
    spread = max(float(w @ (x**2 - squared) / w.sum()), 0.0)
    estimates, se = np.empty(orders), np.empty(orders)
    before, h = np.zeros_like(x), np.ones_like(x)
    for m in range(1, orders + 1):
        before, h = h, x * h - (m - 1) * squared * before
        variance = polynomial_variance(m, lambda k: spread**k, np.sqrt(squared)) + spread**m
        floor = max(1e-12 * variance.max(), 1e-300)  # samples without noise of a law without spread would take an infinite weight
        w = floor / np.maximum(variance, floor)
        estimates[m - 1] = w @ h / w.sum()
        se[m - 1] = math.sqrt(w**2 @ (h - estimates[m - 1]) ** 2) / w.sum()
    return {"estimates": estimates, "se": se}


@paper.law(
    r"\pi_m = \frac{V_m(\sigma_{noisy})}{V_m(\sigma_{clean})},\quad V_m(\sigma) = E\,v_m(U,\sigma) + \mathrm{Var}\,U^m",
    requires=REQUIRES,
    sample=lambda rng: random_case(rng, "noisy_sigma", "clean_sigma"),
    gives=153.0722,
)
def noisy_sample_price(
    moment: MOMENT,
    noisy_sigma: nonnegative(typical=(0.05, 2), example=1.0),
    clean_sigma: nonnegative(typical=(0.05, 2), example=0.1),
    *,
    value_moments: VALUE_MOMENTS,
) -> nonnegative("samples"):
    """Noisy samples that say as much about the m-th moment as one clean sample; grows like (noisy/clean)^2m once noise dominates."""
    return float(moment_variance(moment, noisy_sigma, value_moments)) / one_variance("clean_sigma", moment, clean_sigma, value_moments)


@paper.bound(r"n_{\mathrm{eff},m} = \sum_i V_m(\sigma_{ref}) / V_m(\sigma_i)", requires=REQUIRES, sample=lambda rng: random_case(rng, "reference_sigma", "noises"))
def effective_samples(noises: NOISES, moment: MOMENT, *, reference_sigma: nonnegative(typical=(0.05, 2), example=0.1), value_moments: VALUE_MOMENTS) -> nonnegative("samples"):
    """Samples of the reference noise that the best unbiased combination of these samples equals; no unbiased weighting does better."""
    one_variance("noises", moment, float(np.min(noises)), value_moments)
    return float(moment_variance(moment, reference_sigma, value_moments) * np.sum(1 / moment_variance(moment, noises, value_moments)))


@paper.algorithm(r"t^2 - c_1 t - c_0 = 0,\quad c_1 = \frac{M_3 - M_1 M_2}{M_2 - M_1^2},\ c_0 = M_2 - c_1 M_1", assumes=["The clean law has at most two atoms."])
def two_atom_fit(samples: SAMPLES, noises: NOISES) -> record(atoms=vector("atoms"), weights=distribution("atoms")):
    """The two-atom law with the first three deconvolved moments, atoms in ascending order; one atom where these leave no spread (1e-6)."""
    m1, m2, m3 = hermite_moments(samples, noises, 3)["estimates"]
    d = m2 - m1**2
    if d <= 1e-6:
        return {"atoms": np.array([m1]), "weights": np.array([1.0])}
    middle = 0.5 * (m3 - m1 * m2) / d
    half = math.sqrt((middle - m1) ** 2 + d)
    low, high = middle - half, middle + half
    upper = min(max((m1 - low) / (high - low), 0.0), 1.0)  # inside already, but for rounding
    return {"atoms": np.array([low, high]), "weights": np.array([1 - upper, upper])}


@paper.algorithm(
    r"c = \max\left(0, \left\lceil V_m(\sigma_{clean})\left(\varepsilon^{-2} - n/V_m(\sigma_{noisy})\right)\right\rceil\right)",
    requires=REQUIRES,
    sample=lambda rng: random_case(rng, "noisy_sigma", "clean_sigma", "noisy", "tolerance"),
)
def clean_budget(
    noisy: count("samples", low=0, typical=(0, 1e6), doc="noisy samples at hand", example=100_000),
    noisy_sigma: nonnegative(typical=(0.05, 2), example=1.0),
    clean_sigma: nonnegative(typical=(0.05, 2), example=0.1),
    moment: MOMENT,
    tolerance: positive(low=1e-12, typical=(1e-3, 1), doc="standard error wanted of the moment", example=0.003),
    *,
    value_moments: VALUE_MOMENTS,
) -> count("samples", low=0):
    """Clean samples to buy beside the noisy ones so that the m-th moment is known to the tolerance."""
    there = noisy / one_variance("noisy_sigma", moment, noisy_sigma, value_moments)
    return max(0, math.ceil(float(moment_variance(moment, clean_sigma, value_moments)) * (tolerance**-2 - there)))


def drawn_law(draw, atoms=3):
    return draw.uniform(-1, 1, atoms), draw.dirichlet(1.0, atoms)


def noise_only(moment, value, noise):
    return math.factorial(moment) * noise ** (2 * moment) + 0 * value


def price_without_spread(moment, noisy_sigma, clean_sigma, *, value_moments):
    means = [moment_variance(moment, s, value_moments) - (value_moments[2 * moment - 1] - value_moments[moment - 1] ** 2) for s in (noisy_sigma, clean_sigma)]
    return means[0] / means[1]


def noisy_as_clean(noises, moment, *, reference_sigma, value_moments):
    return float(len(noises))


EXACT = (hermite_variance, noisy_sample_price, effective_samples, clean_budget)


@paper.trial(
    Identity(rtol=1e-8, atol=1e-10),
    of=EXACT,
    claim=EXACT,
    controls={
        "variance m! s^2m": (noise_only, *EXACT[1:]),
        "price without Var U^m": (EXACT[0], price_without_spread, *EXACT[2:]),
        "noisy counted as clean": (*EXACT[:2], noisy_as_clean, EXACT[3]),
    },
    quick=100,
    full=5000,
)
def quadrature(draw, claim):
    """Variances of Hermite estimates under Gauss-Hermite quadrature over the noise give the conditional variance, prices, effective sizes and the least budget."""
    from numpy.polynomial.hermite_e import hermegauss, hermeval

    m, (atoms, weights) = draw.integer(1, 6), drawn_law(draw)
    noisy, clean = draw.uniform(0.2, 2), draw.uniform(0.05, 0.2)
    nodes, mass = hermegauss(20)
    mass = mass / mass.sum()

    def estimates(sigma):
        h = sigma**m * hermeval((atoms[:, None] + sigma * nodes) / sigma, np.eye(m + 1)[m])
        mean = h @ mass
        return mean, (h - mean[:, None]) ** 2 @ mass

    def variance(sigma):
        mean, scatter = estimates(sigma)
        return weights @ (scatter + (mean - weights @ mean) ** 2)

    mean, scatter = estimates(noisy)
    n, c = draw.integer(0, 40), draw.integer(1, 5)
    tolerance = draw.uniform(0.05, 1.0) * math.sqrt(variance(clean))
    conditional, price, effective, budget = claim
    law = {"value_moments": moments_of(atoms, weights, 2 * m)}
    bought = budget(n, noisy, clean, m, tolerance, **law)
    enough = [k / variance(clean) + n / variance(noisy) >= tolerance**-2 for k in (bought, bought - 1)]
    expected = [*mean, *scatter, variance(noisy) / variance(clean), c + n * variance(clean) / variance(noisy), True, False]
    found = [
        *atoms**m,
        *conditional(m, atoms, noisy),
        price(m, noisy, clean, **law),
        effective(np.repeat([clean, noisy], [c, n]), m, reference_sigma=clean, **law),
        enough[0],
        enough[1] and bought > 0,
    ]
    return expected, found, {"moment": m, "atoms": atoms, "weights": weights, "noisy": noisy, "clean": clean}


def equal_weights(noises, moment, *, reference_sigma, value_moments):
    return len(noises) * moment_variance(moment, reference_sigma, value_moments) / np.mean(moment_variance(moment, noises, value_moments))


@paper.trial(Inequality(rtol=1e-10), of=[effective_samples], controls={"equal weights": equal_weights}, quick=200, full=10_000)
def best_weights(draw, claim):
    """The variance of the best combination is at most that of equal weights, of the clean samples alone and of random weights."""
    m, (atoms, weights), clean, reference = draw.integer(1, 6), drawn_law(draw), draw.uniform(0.05, 0.3), draw.uniform(0.1, 1)
    noises = np.concatenate([np.full(3, clean), draw.uniform(0.3, 2, 8)])
    law = {"value_moments": moments_of(atoms, weights, 2 * m)}
    variances, random = moment_variance(m, noises, **law), draw.exponential(len(noises))
    best = moment_variance(m, reference, **law) / claim(noises, m, reference_sigma=reference, **law)
    others = [variances.mean() / len(noises), variances[0] / 3, random**2 @ variances / random.sum() ** 2]
    return [best] * 3, others, {"moment": m, "noises": noises}


def raw_moments(samples, noises, orders):
    return hermite_moments(samples, np.zeros_like(noises), orders)


@paper.trial(Identity(), of=[hermite_moments], controls={"noise ignored": raw_moments}, quick=3, full=40)
def unbiased(draw, claim):
    """Over repeated data sets of two noises the estimates average to the clean moments, and their squared errors to the squared standard errors."""
    atoms, weights = drawn_law(draw, 2)
    noises = np.repeat([draw.uniform(0.05, 0.3), draw.uniform(0.3, 1.0)], [300, 2700])
    clean = draw.rng.choice(atoms, p=weights, size=(300, len(noises)))
    found = [claim(row, noises, 3) for row in clean + noises * draw.rng.normal(size=clean.shape)]
    estimates, se = (np.array([f[key] for f in found]) for key in ("estimates", "se"))
    truth = np.array(moments_of(atoms, weights, 3))
    means = Estimate.of(np.hstack([estimates, (estimates - truth) ** 2 - se**2]))
    return means, [*truth, 0, 0, 0], {"atoms": atoms, "weights": weights, "noises": [noises[0], noises[-1]]}


def transport_error(fit, rng, noises):
    """Wasserstein distance of a fit to ATOMS, WEIGHTS on a fresh data set."""
    from scipy.stats import wasserstein_distance

    found = fit(rng.choice(ATOMS, p=WEIGHTS, size=len(noises)) + noises * rng.normal(size=len(noises)), noises)
    return wasserstein_distance(found["atoms"], ATOMS, found["weights"], WEIGHTS)


def fit_without_deconvolution(samples, noises):
    return two_atom_fit(samples, np.zeros_like(noises))


@paper.trial(Rate(within=0.1), of=[two_atom_fit], controls={"noise ignored": fit_without_deconvolution}, quick=12, full=80)
def separated_atoms(draw, claim):
    """The Wasserstein error of two separated atoms falls as n^(-1/2)."""
    sizes = np.array([400, 1200, 4000])
    errors = [np.mean([transport_error(claim, draw.rng, np.repeat([0.1, 0.3], [n // 10, n - n // 10])) for _ in range(25)]) for n in sizes]
    return sizes, errors, -0.5


@paper.finding(
    """Near-parity of a tenth of clean samples with all clean is not reached in the two-atom model: at noise .3 against .1 the mixed set errs by half more than the clean one
    and beats the noisy-only one by little; at noise 1 the noisy nine tenths add nothing to the clean tenth."""
)
def parity_is_not_reached():
    rng, settings = np.random.default_rng(0), {}
    for name, high in (("moderate", 0.3), ("high", 1.0)):
        for label, clean, noisy in (("clean", 2000, 0), ("mixed", 200, 1800), ("noisy", 0, 2000), ("few_clean", 200, 0)):
            noises = np.repeat([0.1, high], [clean, noisy])
            settings[f"{name}_{label}"] = float(np.mean([transport_error(two_atom_fit, rng, noises) for _ in range(400)]))
    s = settings
    holds = 1.3 < s["moderate_mixed"] / s["moderate_clean"] < 2 and 1 < s["moderate_noisy"] / s["moderate_mixed"] < 1.4 and abs(s["high_mixed"] / s["high_few_clean"] - 1) < 0.1
    return {"holds": bool(holds), **settings}
