"""Ridge regression on random features of power-law data, at any ridge: test loss for many features and samples, its symmetry, and the ridge that removes the peak."""

import math

import numpy as np

from lawbook.contract import Paper, count, nonnegative, positive, record, seed, vector
from lawbook.numerics import arrays, bracketed_root
from lawbook.numerics.spectra import effective_ridge
from lawbook.trials import Estimate, Guarantee, Identity

paper = Paper(
    __name__,
    title="Neural Scaling Laws From Large-N Field Theory: Solvable Model Beyond the Ridgeless Limit",
    arxiv="2405.19398",
    tags=["scaling law", "random features", "ridge regression", "double descent", "duality", "kernel spectrum", "model size", "data size"],
    source="derived",
    says="""A linear teacher is learnt by ridge regression on random features of data with a given covariance spectrum. For many features, samples and latent dimensions the test
    loss has a closed expression at any ridge, in one effective ridge that solves a scalar equation. At a fixed total ridge it does not change when the numbers of features and
    samples are exchanged. Without ridge the loss diverges where the two are equal; the best ridge removes that peak.""",
    notes="""Derived by deterministic equivalents and checked by simulation; the source's own normalisation may differ by factors of 2 and of the latent dimension.
    Gaussian features of unit variance; the ridge acts on the kernel divided by the number of features, so that the total ridge of the duality is ridge times features.
    Label noise breaks the duality. Formulas are written in the two gaps features - z and samples - z, whose difference and product are known, so that no digits cancel
    near the peak.""",
)

SPECTRUM = vector("modes", of=positive(typical=(1e-3, 1.0)), example=np.arange(1.0, 201) ** -1.7, most=40, doc="eigenvalues of the covariance of the data")
SAMPLES = count("samples", typical=(2, 100), example=60)
FEATURES = count("features", typical=(2, 100), example=120)
RIDGE = nonnegative(typical=(0, 1), example=1e-3, doc="ridge on the kernel divided by the number of features")
NOISE = nonnegative(typical=(0, 1), doc="variance of the label noise")


@paper.law(
    r"\Delta (N-z)(T-z) = \delta N,\ z = \sum_I \frac{\lambda_I}{\lambda_I+\Delta};\quad "
    r"E = \frac{\sum_I v_I \left(\frac{\Delta}{\lambda_I+\Delta} - \frac{\kappa\lambda_I}{(\lambda_I+\Delta)^2} \frac{N}{N-q}\right) + \sigma^2}{1 - (q(N-2z)+z^2)/(T(N-q))}",
    assumes=["Gaussian data, features and noise, all many.", "The loss counts the noise of a fresh label, and the teacher's signs are random."],
)
def expected_loss(
    eigenvalues: SPECTRUM,
    samples: SAMPLES,
    features: FEATURES,
    ridge: RIDGE,
    *,
    weight_variance: positive(typical=(0.1, 10), doc="of the teacher's weights, where target_power is not given") = 1.0,
    noise: NOISE = 0.0,
    target_power: vector("modes", of=nonnegative(typical=(0, 1)), most=40, doc="eigenvalue times squared weight of the teacher") = None,
) -> record(
    loss=nonnegative(infinite=True, doc="infinite without ridge where features or latent dimensions and samples are equal"),
    delta=nonnegative(doc="effective ridge"),
    z=nonnegative(doc="effective number of learnt dimensions"),
    q=nonnegative(doc="sum of squared shares learnt"),
):
    """Expected test loss of ridge regression on random features, with its effective ridge."""
    power = weight_variance * eigenvalues if target_power is None else target_power
    total, least, gap = ridge * features, min(samples, features), abs(samples - features)

    def wider(delta):
        """The larger of features - z and samples - z: their difference is `gap`, their product total / delta."""
        return (gap + math.sqrt(gap**2 + 4 * total / delta)) / 2

    delta = effective_ridge(eigenvalues, least)
    if total > 0:
        bounds = max(delta, total / (2 * max(samples, features)) ** 2), 2 * eigenvalues.sum() / least + 4 * total / least**2

        def excess(u):
            d = math.exp(u)
            return (eigenvalues / (eigenvalues + d)).sum() + total / d / wider(d) - least

        delta = math.exp(bracketed_root(excess, math.log(bounds[0]) - 1e-9, math.log(bounds[1]), what="the effective ridge"))
    if delta == 0:  # every latent dimension is learnt, and only noise is left
        spare = samples - len(eigenvalues)
        return {"loss": 0.0 if noise == 0 else noise * samples / spare if spare else math.inf, "delta": 0.0, "z": float(len(eigenvalues)), "q": float(len(eigenvalues))}
    missed = delta / (eigenvalues + delta)
    learned = eigenvalues / (eigenvalues + delta)
    large = wider(delta)
    small = total / delta / large if total > 0 else 0.0
    free, bend = (large if features >= samples else small), missed @ learned  # features - z, z - q
    error = samples * (power @ (missed * (missed * free + bend)) + noise * (free + bend))
    damping = bend * (large + small) + large * small
    return {"loss": float(error / damping) if damping > 0 else math.inf, "delta": delta, "z": float(learned.sum()), "q": float(learned @ learned)}


@paper.law(r"\min_\delta E(\delta)", assumes=["A teacher with weights of unit variance."])
def optimal_ridge(eigenvalues: SPECTRUM, samples: SAMPLES, features: FEATURES, *, noise: NOISE = 0.0) -> record(ridge=nonnegative(), loss=nonnegative(infinite=True)):
    """The ridge with the smallest expected loss, and that loss."""
    from scipy.optimize import minimize_scalar

    def loss(log_ridge):
        return expected_loss(eigenvalues, samples, features, math.exp(log_ridge), noise=noise)["loss"]

    scale = math.log(eigenvalues.sum())
    grid = np.linspace(scale - 30, scale + math.log(samples * (1 + noise)) + 7, 60)
    values = [loss(x) for x in grid]
    best = int(np.argmin(values))
    found = minimize_scalar(loss, bounds=(grid[max(best - 1, 0)], grid[min(best + 1, 59)]), method="bounded", options={"xatol": 1e-8})
    ridgeless = expected_loss(eigenvalues, samples, features, 0.0, noise=noise)["loss"]
    return {"ridge": 0.0, "loss": ridgeless} if ridgeless <= found.fun else {"ridge": math.exp(found.x), "loss": float(found.fun)}


@paper.law(
    r"E = \sigma_w^2 \frac{\Delta m}{1 - m/m'},\quad \Delta = \left(\frac{\pi/(1+\alpha)}{m \sin(\pi/(1+\alpha))}\right)^{1+\alpha},\ m = \min(N, T),\ m' = \max(N, T)",
    assumes=["Eigenvalues I^-(1+alpha), infinitely many; no ridge, no noise; many samples and features."],
    closed_form=True,
    gives=0.0328987,
)
def ridgeless_loss(
    alpha: positive(typical=(0.2, 2), example=1.0, doc="excess of the spectrum's decay over 1"),
    samples: count("samples", typical=(10, 10_000), example=100),
    features: count("features", typical=(10, 10_000), example=400),
    *,
    scale: positive(typical=(0.1, 10), doc="largest eigenvalue times the variance of the teacher's weights") = 1.0,
) -> positive(infinite=True, doc="infinite where samples and features are equal"):
    """Test loss without ridge on an unbounded power-law spectrum: a power of the smaller of samples and features, with a peak where they meet."""
    xp, a, t, n, s = arrays(alpha, samples, features, scale)
    least, share = xp.minimum(t, n), xp.minimum(t, n) / xp.maximum(t, n)
    angle = math.pi / (1 + a)
    delta = (angle / xp.sin(angle) / least) ** (1 + a)
    peak = share == 1
    return xp.where(peak, math.inf, s * delta * least / xp.where(peak, 0.5, 1 - share))


@paper.model(r"\hat\theta = \arg\min_\theta \sum_t (y_t - \theta^\top F x_t)^2 + N\delta|\theta|^2", assumes=["Teacher weights are independent standard normal."])
def simulate(
    eigenvalues: SPECTRUM,
    samples: SAMPLES,
    features: FEATURES,
    ridge: RIDGE,
    *,
    noise: NOISE = 0.0,
    trials: count("trials", low=2, typical=(2, 50)) = 20,
    seed: seed() = 0,
) -> record(mean=nonnegative(), se=nonnegative(doc="standard error of the mean")):
    """Mean test loss of ridge regression over fresh data, features and teachers."""
    rng, deviation, losses = np.random.default_rng(seed), np.sqrt(eigenvalues), []
    for _ in range(trials):
        x, F, w = rng.normal(size=(samples, len(eigenvalues))) * deviation, rng.normal(size=(features, len(eigenvalues))), rng.normal(size=len(eigenvalues))
        left, singular, right = np.linalg.svd(x @ F.T, full_matrices=False)
        seen = singular > 1e-12 * singular[0]
        shrunk = np.where(seen, singular / np.where(seen, singular**2 + features * ridge, 1), 0)
        theta = right.T @ (shrunk * (left.T @ (x @ w + math.sqrt(noise) * rng.normal(size=samples))))
        losses.append(noise + eigenvalues @ (w - F.T @ theta) ** 2)
    return {"mean": float(np.mean(losses)), "se": float(np.std(losses, ddof=1) / math.sqrt(trials))}


def exchanged(eigenvalues, samples, features, ridge, **options):
    """Samples and features exchanged at the same ridge, not at the same total ridge."""
    return expected_loss(eigenvalues, features, samples, ridge, **options)


@paper.trial(Identity(rtol=0.02), of=[expected_loss, simulate], controls={"features and samples exchanged": exchanged}, quick=4, full=30)
def simulated(draw, claim):
    """Simulated regressions have the expected loss, with and without noise, below, above and near as many samples as features."""
    spectrum = np.arange(1.0, 401) ** -(1 + draw.uniform(0.5, 1))
    samples, features, ridge, noise = draw.integer(30, 120), draw.integer(30, 120), draw.log_uniform(1e-3, 0.3), draw.choice([0.0, 0.3])
    told = simulate(spectrum, samples, features, ridge, noise=noise, trials=100, seed=draw.integer(0, 10**6))
    return Estimate(told["mean"], told["se"]), claim(spectrum, samples, features, ridge, noise=noise)["loss"], {"samples": samples, "features": features, "noise": noise}


@paper.trial(Identity(rtol=1e-10), of=[expected_loss], controls={"exchanged at the same ridge": lambda e, t, n, ridge: expected_loss(e, t, n, ridge * n / t)}, quick=100, full=3000)
def dual(draw, claim):
    """At a fixed total ridge, exchanging samples and features changes nothing; the effective ridge solves its equation, and the noise-free loss has its symmetric form."""
    spectrum = np.arange(1.0, draw.integer(5, 300)) ** -(1 + draw.uniform(0.1, 2))
    t, n, total = draw.integer(2, 100), draw.integer(2, 100), draw.log_uniform(1e-6, 1e3)
    told, other = expected_loss(spectrum, t, n, total / n), claim(spectrum, n, t, total / t)
    delta, z, q = told["delta"], told["z"], told["q"]
    symmetric = delta * n * t * (z - q) / (n * t - z**2 - q * (n + t - 2 * z))
    # digits cancel in these two forms: they are compared after taking a root, the equation relative to its larger terms
    return [other["loss"], other["delta"], 1 + delta * (n - z) * (t - z) / (total + delta * n * t), symmetric**1e-3], [
        told["loss"],
        delta,
        1 + total / (total + delta * n * t),
        told["loss"] ** 1e-3,
    ]


def without_peak(alpha, samples, features):
    return ridgeless_loss(alpha, samples, max(features, samples + 1)) * (1 - min(samples, features) / max(samples, features))


@paper.trial(Identity(rtol=0.03), of=[ridgeless_loss, expected_loss], controls={"no peak": without_peak}, quick=3, full=30)
def power_law(draw, claim):
    """Without ridge the law of a spectrum with 100,000 eigenvalues comes to the closed form of an unbounded one, on both sides of the peak and close to it."""
    alpha, m = draw.uniform(0.9, 1.5), draw.integer(100, 800)
    spectrum = np.arange(1.0, 100_001) ** -(1 + alpha)
    sizes = [(m, 4 * m), (4 * m, m), (m, m + m // 10), (m, m)]
    return [expected_loss(spectrum, *pair, 0.0)["loss"] for pair in sizes], [claim(alpha, *pair) for pair in sizes], {"alpha": alpha, "least": m}


def hardly_any_ridge(eigenvalues, samples, features, *, noise=0.0):
    return {"ridge": 1e-8, "loss": expected_loss(eigenvalues, samples, features, 1e-8, noise=noise)["loss"]}


@paper.trial(Guarantee(rtol=1e-7), of=[optimal_ridge, expected_loss], controls={"a ridge of 1e-8": hardly_any_ridge}, quick=6, full=100)
def best_ridge(draw, claim):
    """No other ridge does better, and with the best ridge more samples never hurt, past as many samples as features either."""
    spectrum = np.arange(1.0, 301) ** -(1 + draw.uniform(0.3, 1.5))
    features, noise = draw.integer(10, 60), draw.choice([0.0, 0.1, 1.0])
    more = [claim(spectrum, max(2, int(features * factor)), features, noise=noise)["loss"] for factor in (0.5, 0.8, 0.9, 1, 1.1, 1.3, 2)]
    others = [expected_loss(spectrum, features, features, ridge, noise=noise)["loss"] for ridge in np.append(0.0, np.geomspace(1e-6, 1e2, 30))]
    return [*more[1:], more[3]], [*more[:-1], min(others)], {"features": features, "noise": noise}
