"""Mini-batches in sketched linear regression: what batch size does to one pass over the data and to several."""

import math
from dataclasses import replace
from functools import lru_cache
from itertools import combinations, product

import numpy as np

from lawbook.contract import DomainError, Paper, count, flag, nonnegative, positive, probability, real, record
from lawbook.contract import seed as seed_number
from lawbook.numerics import arrays
from lawbook.trials import Estimate, Identity, Inequality, Rate

paper = Paper(
    __name__,
    title="From One-Pass SGD to Data Reuse: Mini-Batch Scaling Laws in Sketched Linear Regression",
    arxiv="2605.24316",
    tags=["scaling law", "batch size", "sgd", "data reuse", "multiple epochs", "sketching", "linear regression", "kernel"],
    source="paper",
    says="""In linear regression on a random sketch of power-law data the batch size leaves the approximation and optimisation exponents alone and changes only the noise.
    In one pass a batch of B divides the noise of a step by B but leaves B times fewer steps, so at a fixed number of samples the gain is smaller than 1/B. When the data
    are used several times, a noise of sampling comes on top of gradient descent on the sample: batches drawn without replacement make less of it than batches drawn with
    replacement, and none when full.""",
    notes="""The orders are those of the abstract, with unit constants. The exact recursion is for Gaussian features, targets with E[lambda_i w_i^2] = i^-b (signs drawn), and a
    rate that is halved every T / log2 T steps, which T / ln T stands for. At a = 2, b = 1.8 the bias of sketches to 400 and 500 dimensions falls with T_eff to the power
    .39 to .41 (claimed .4) between T = 32 and 1024, with T itself to the power .32 to .33; a sketch to 200 dimensions is too small (.45). At the same number of steps the
    noise falls as B^-1.04 over batches of 1 to 64, at the same number of samples as B^-.56. A simulated run of several passes is one draw: its fluctuation scatters
    around its mean, even below 0.""",
)

SAMPLES = count("samples", typical=(100, 3000), doc="N", example=2000)
SKETCH = count("dimensions", typical=(2, 60), doc="M: dimensions that the sketch keeps", example=50)
BATCH = count("samples", typical=(1, 30), doc="B: samples in a batch", example=8)
DECAY = positive(low=1, typical=(1.2, 3), doc="a: eigenvalues of the covariance fall as i^-a", example=2.0)
SOURCE = positive(low=1, typical=(1.1, 2.2), doc="b: power in direction i of the target falls as i^-b", example=1.8)
REGIME = {"b must be below a + 1: beyond, the bias has another exponent": lambda b, a: b < a + 1}
ONE_PASS = {**REGIME, "samples must be at least 3 batch_size: T / ln T means nothing for fewer steps": lambda samples, batch_size: samples >= 3 * batch_size}


@paper.law(
    r"M^{1-b} + (T_e\gamma)^{(1-b)/a} + \sigma^2\, \frac{\min\{M, (T_e\gamma)^{1/a}\}}{B\, T_e},\quad T_e = \frac{T}{\ln T},\ T = N/B",
    requires=ONE_PASS,
    assumes=["Orders of magnitude with unit constants.", "The step size decays geometrically.", "The bias holds while (T_eff gamma)^(1/a) is at most about M."],
)
def one_pass_risk(
    samples: SAMPLES,
    sketch: SKETCH,
    batch_size: BATCH,
    step_size: positive(typical=(0.05, 1), doc="first step size gamma", example=0.5),
    *,
    a: DECAY,
    b: SOURCE,
    noise: nonnegative(typical=(0.01, 2), doc="variance of the labels' noise") = 1.0,
) -> record(
    approximation=nonnegative(doc="of directions that the sketch loses"), bias=nonnegative(doc="of directions not learned yet"), variance=nonnegative(), total=nonnegative()
):
    """Excess risk after one pass of mini-batch SGD, term by term."""
    effective = samples / batch_size / np.log(samples / batch_size)
    resolved = (effective * step_size) ** (1 / a)
    terms = {"approximation": float(sketch) ** (1 - b), "bias": resolved ** (1 - b), "variance": noise * np.minimum(sketch, resolved) / (batch_size * effective)}
    return {**terms, "total": terms["approximation"] + terms["bias"] + terms["variance"]}


@paper.law(
    r"\rho = 1/B \text{ with replacement},\quad \rho_{N,B} = \frac{N-B}{B(N-1)} \text{ without}",
    requires={"batch_size must be at most samples without replacement": lambda batch_size, samples, replacement: replacement or batch_size <= samples},
    closed_form=True,
    gives=0.12281,  # 14/114
)
def fluctuation_factor(samples: count("samples", typical=(30, 3000), example=20), batch_size: replace(BATCH, example=6), *, replacement: flag() = False) -> probability():
    """Variance of the mean of a batch in units of the variance of the sample it is drawn from; the noise that data reuse adds is proportional to it."""
    xp, n, batch = arrays(samples, batch_size)
    return 1 / batch if replacement else (n - batch) / (batch * xp.where(n > 1, n - 1, 1.0))


def drawn_sketch(sketch, ambient, a, b, seed):
    """Eigenvalues of the covariance, target and sketch matrix."""
    rng, index = np.random.default_rng(seed), np.arange(1.0, ambient + 1)
    return index**-a, rng.choice([-1.0, 1.0], ambient) * index ** ((a - b) / 2), rng.normal(size=(sketch, ambient)) / math.sqrt(sketch)


@lru_cache(maxsize=8)
def sketched_problem(*drawn):
    """Eigenvalues of the sketched covariance, the best weights in its eigenbasis, and the risk that they leave."""
    eigenvalues, target, matrix = drawn_sketch(*drawn)
    mu, axes = np.linalg.eigh((matrix * eigenvalues) @ matrix.T)
    mu = np.maximum(mu, 1e-300)
    best = axes.T @ (matrix @ (eigenvalues * target)) / mu
    return mu, best, max(float(eigenvalues @ target**2 - mu @ best**2), 0.0)


def step_sizes(steps, first):
    return first * 0.5 ** (np.arange(steps) // math.ceil(steps / max(math.log2(steps), 1)))


def expected_excess(mu, best, floor, rates, noise, per_batch):
    """Mean excess after steps on fresh Gaussian features from zero; `per_batch` is 1/B, and 0 for gradient descent on the population."""
    error = best**2  # mean squares along the eigenbasis: they evolve by themselves
    for rate in rates:
        scatter = rate**2 * per_batch * (floor + noise + mu @ error)
        error = error * ((1 - rate * mu) ** 2 + per_batch * (rate * mu) ** 2) + scatter * mu
    return floor + mu @ error


def reused_excess(mu, best, floor, rates, noise, samples, batches, rng):
    """Excess after steps on batches of one drawn sample, and after the same steps of gradient descent on all of it."""
    x = rng.normal(size=(samples, len(mu))) * np.sqrt(mu)  # Gaussian features stay Gaussian in the eigenbasis, and the residual is independent of them
    y = x @ best + math.sqrt(floor + noise) * rng.normal(size=samples)
    by_batch, by_all, gram, moment = np.zeros_like(best), np.zeros_like(best), x.T @ x / samples, x.T @ y / samples
    for rate in rates:
        rows = batches(rng)
        by_batch -= rate * (x[rows].T @ (x[rows] @ by_batch - y[rows])) / len(rows)
        by_all -= rate * (gram @ by_all - moment)
    return tuple(floor + mu @ (weights - best) ** 2 for weights in (by_batch, by_all))


@paper.model(
    r"\rho_j \leftarrow \rho_j \left(1 - 2\gamma\mu_j + \gamma^2\mu_j^2 (1 + \tfrac{1}{B})\right) + \gamma^2 \mu_j \frac{P}{B},\quad P = P_\infty + \sigma^2 + \sum_j \mu_j \rho_j",
    requires={
        "batch_size must be at most samples": lambda batch_size, samples: batch_size <= samples,
        "sketch must be at most ambient": lambda sketch, ambient: sketch <= ambient,
    },
    assumes=["Features are Gaussian.", "Each step draws its batch anew; without replacement means within the batch."],
)
def minibatch_risk(
    samples: SAMPLES,
    sketch: SKETCH,
    batch_size: BATCH,
    *,
    a: DECAY,
    b: SOURCE,
    ambient: count("dimensions", typical=(60, 500), doc="dimensions of the data before the sketch") = 2000,
    passes: count(typical=(1, 4), doc="times that the data are used; one: expectation over fresh data, more: one simulated run") = 1,
    replacement: flag(doc="whether a batch of several passes may hold a sample twice") = False,
    step_fraction: positive(high=1, typical=(0.1, 0.5), doc="first step size in units of 1 over the trace of the sketched covariance") = 0.5,
    noise: nonnegative(typical=(0.01, 2), doc="variance of the labels' noise") = 0.1,
    seed: seed_number() = 0,
) -> record(
    excess=nonnegative(doc="risk above the noise"),
    gd_excess=nonnegative(doc="the same with the whole gradient: of the population in one pass, of the sample in several"),
    fluctuation=real(doc="what batches add; in a single run of several passes it may be negative"),
):
    """Excess risk of mini-batch SGD on a drawn sketch: exact over one pass, simulated over several."""
    mu, best, floor = sketched_problem(sketch, ambient, a, b, seed)
    rates = step_sizes(passes * samples // batch_size, step_fraction / mu.sum())
    with np.errstate(over="ignore", invalid="ignore"):
        if passes == 1:
            excess, full = (expected_excess(mu, best, floor, rates, noise, per_batch) for per_batch in (1 / batch_size, 0.0))
        else:

            def batches(rng):
                return rng.integers(samples, size=batch_size) if replacement else rng.choice(samples, batch_size, replace=False, shuffle=False)

            excess, full = reused_excess(mu, best, floor, rates, noise, samples, batches, np.random.default_rng((seed, 1)))
    if not excess < 1e100:
        raise DomainError(f"step_fraction must be small enough that SGD does not diverge; it was {step_fraction:.6g} with batch_size {batch_size}.")
    return {"excess": float(excess), "gd_excess": float(full), "fluctuation": float(excess - full)}


@paper.algorithm(r"\arg\min_{B \le N/3} \left[\text{one-pass risk} + c\, N/B\right]", requires=REGIME)
def best_batch(
    samples: count("samples", low=3, typical=(100, 1e7), doc="N", example=1_000_000),
    sketch: replace(SKETCH, example=1000),
    *,
    a: DECAY,
    b: SOURCE,
    noise: nonnegative(typical=(0.01, 2), doc="variance of the labels' noise", example=1.0),
    time_cost: nonnegative(typical=(0, 1e-5), doc="price of a sequential step, in units of risk", example=1e-6),
    step_size: positive(typical=(0.05, 1), doc="first step size gamma") = 0.5,
) -> record(batch_size=count("samples"), risk=nonnegative(doc="of the law, the price not included")):
    """Batch size at which the risk after one pass and the price of its sequential steps are least together."""

    def risk(batch):
        return one_pass_risk(samples, sketch, batch, step_size, a=a, b=b, noise=noise)["total"]

    low, high = 1, samples // 3
    while True:
        batches = np.unique(np.round(np.geomspace(low, high, 1000)).astype(np.int64))
        best = int(np.argmin(risk(batches) + time_cost * samples / batches))
        low, high = int(batches[max(best - 1, 0)]), int(batches[min(best + 1, len(batches) - 1)])
        if high - low <= 2:
            return {"batch_size": int(batches[best]), "risk": float(risk(batches[best]))}


def whole_gradient(samples, sketch, batch_size, **options):
    return {"excess": minibatch_risk(samples, sketch, batch_size, **options)["gd_excess"]}


def always_with_replacement(samples, batch_size, *, replacement):
    return fluctuation_factor(samples, batch_size, replacement=True)


EXACT = (fluctuation_factor, minibatch_risk)


@paper.trial(
    Identity(),
    of=EXACT,
    claim=EXACT,
    controls={"1/B without replacement too": (always_with_replacement, EXACT[1]), "no noise of batches": (EXACT[0], whole_gradient)},
    quick=12,
    full=300,
)
def enumerated_and_simulated(draw, claim):
    """Going through all batches of a small sample gives the factor, and SGD simulated on the unsketched data the mean excess of one pass."""
    factor, risk = claim
    x, size = draw.normal(size=draw.integer(3, 8)), draw.integer(1, 3)
    every = [np.var([np.mean(batch) for batch in batches]) / np.var(x) for batches in (combinations(x, size), product(x, repeat=size))]
    factors = [factor(len(x), size, replacement=replacement) for replacement in (False, True)]

    a, b, batch, noise, runs = draw.uniform(1.2, 2.5), draw.uniform(1.2, 2.0), draw.integer(1, 3), draw.uniform(0.2, 0.8), 1000
    drawn, steps = (4, 12, a, b, draw.integer(0, 2**40)), 16
    eigenvalues, target, matrix = drawn_sketch(*drawn)
    weights = np.zeros((runs, 4))
    for rate in step_sizes(steps, 0.4 / np.trace((matrix * eigenvalues) @ matrix.T)):
        data = draw.rng.normal(size=(runs, batch, 12)) * np.sqrt(eigenvalues)
        features = data @ matrix.T
        residual = np.einsum("rbm,rm->rb", features, weights) - data @ target - math.sqrt(noise) * draw.rng.normal(size=(runs, batch))
        weights -= rate * np.einsum("rbm,rb->rm", features, residual) / batch
    excess = Estimate.of((weights @ matrix - target) ** 2 @ eigenvalues)
    found = risk(steps * batch, 4, batch, a=a, b=b, ambient=12, step_fraction=0.4, noise=noise, seed=drawn[-1])["excess"]
    return Estimate([*every, excess.value], [0, 0, excess.error]), [*factors, found], {"samples": len(x), "batch_size": size, "a": a, "b": b, "noise": noise}


def steps_not_effective(samples, sketch, batch_size, step_size, *, a, b):
    return {"bias": (samples / batch_size * step_size) ** (-(b - 1) / a)}


@paper.trial(Rate(within=0.05), of=[one_pass_risk, minibatch_risk], controls={"steps instead of T / ln T": steps_not_effective}, quick=4, full=24)
def bias_exponent(draw, claim):
    """Without noise the exact excess above the sketch's floor falls with T / ln T to the power (b - 1) / a."""
    a, b, steps = 2.0, 1.8, 2 ** np.arange(5, 11)
    options = {"ambient": 1600, "a": a, "b": b, "seed": draw.integer(0, 2**40)}
    floor = sketched_problem(400, *options.values())[2]
    bias = np.array([minibatch_risk(int(t), 400, 1, noise=0.0, **options)["gd_excess"] - floor for t in steps])
    # slopes are compared along the axis on which the claim is a power (b - 1)/a
    axis = claim(steps, 400, 1, 1.0, a=a, b=b)["bias"] ** (-a / (b - 1))
    return axis, bias / np.exp(np.log(bias).mean()), -(b - 1) / a


def gain_of_a_step(samples, sketch, batch_size, step_size, *, a, b, noise):
    return {"variance": noise / batch_size}


@paper.trial(Rate(within=0.15), of=[one_pass_risk, minibatch_risk], controls={"1/B at a fixed number of samples": gain_of_a_step}, quick=4, full=8)
def variance_by_batch(draw, claim):
    """At a fixed number of samples the exact noise of one pass changes with the batch size as the law's variance does."""
    a, b, samples, sketch, batches, options = 2.0, 1.8, 4096, 200, 2 ** np.arange(7), {"ambient": 1000, "seed": draw.integer(0, 2**40)}
    step = 0.5 / sketched_problem(sketch, 1000, a, b, options["seed"])[0].sum()
    measured = np.array([minibatch_risk(samples, sketch, int(batch), a=a, b=b, noise=1.0, **options)["fluctuation"] for batch in batches])
    return claim(samples, sketch, batches, step, a=a, b=b, noise=1.0)["variance"], measured / np.exp(np.log(measured).mean()), 1.0


def replacement_swapped(samples, sketch, batch_size, *, replacement, **options):
    return minibatch_risk(samples, sketch, batch_size, replacement=not replacement, **options)


def largest_batch(samples, sketch, *, a, b, noise, time_cost):
    batch = samples // 3
    return {"batch_size": batch, "risk": one_pass_risk(samples, sketch, batch, 0.5, a=a, b=b, noise=noise)["total"]}


@paper.trial(
    Inequality(atol=1e-12, search=0),
    of=[minibatch_risk, best_batch, one_pass_risk],
    claim=(minibatch_risk, best_batch),
    controls={"replacement swapped": (replacement_swapped, best_batch), "as large as possible": (minibatch_risk, largest_batch)},
    quick=1,
    full=10,
)
def less_noise_without_replacement(draw, claim):
    """Batches without replacement fluctuate less on average, not at all when full; one pass gains at least 1/B at the same steps; no batch size beats the best."""
    risk, best = claim
    options = {"a": 2.0, "b": 1.8, "ambient": 100, "passes": 4, "noise": 1.0}
    seeds = [draw.integer(0, 2**40) for _ in range(600)]
    means = [np.mean([risk(60, 10, 30, replacement=r, seed=seed, **options)["fluctuation"] for seed in seeds]) for r in (False, True)]
    full = abs(risk(60, 10, 60, replacement=False, seed=seeds[0], **options)["fluctuation"])
    batch, options["passes"] = draw.integer(2, 64), 1
    noise = [size * risk(size * 256, 40, size, replacement=False, **options)["fluctuation"] for size in (batch, 1)]

    samples, sketch, cost = int(draw.log_uniform(1e3, 1e8)), draw.integer(10, 1000), draw.log_uniform(1e-8, 1e-4)
    law = {"a": draw.uniform(1.2, 3), "b": draw.uniform(1.1, 2), "noise": draw.log_uniform(0.01, 10)}
    found, others = best(samples, sketch, time_cost=cost, **law), np.unique(np.round(draw.log_uniform(1, samples / 3, 200)))
    price = found["risk"] + cost * samples / found["batch_size"]
    others = one_pass_risk(samples, sketch, others, 0.5, **law)["total"] + cost * samples / others
    return [means[0], full, noise[0], price], [means[1], 0.0, noise[1], others.min()], {"mean_without": means[0], "mean_with": means[1], "best_batch": found["batch_size"]}
