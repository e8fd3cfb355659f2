"""Random features trained by gradient flow on finite data: what steps, width and samples each limit, and how to split compute between steps and width."""

import math

import numpy as np

from lawbook.contract import Paper, count, nonnegative, positive, probability, record, seed, vector
from lawbook.numerics import arrays
from lawbook.numerics.spectra import effective_ridge
from lawbook.trials import Estimate, Identity

paper = Paper(
    __name__,
    title="A Dynamical Model of Neural Scaling Laws",
    arxiv="2402.01092",
    tags=["scaling law", "random features", "gradient flow", "kernel spectrum", "compute optimal", "training time", "width", "power law"],
    source="derived",
    says="""A linear student sees a power-law spectrum through random features and is trained by gradient flow on a finite sample. Its loss falls with a power of time,
    another of the features and a third of the samples, whichever is the bottleneck; balancing time against features at a fixed budget makes training steps grow faster
    than parameters. Early in training finite width costs a correction of order 1/width; later the power depends on the task.""",
    notes="""The three limits are deterministic equivalents derived here. The source is recalled to give the exponent min(a - 1, 2b) for features as for samples; an
    unlimited sample projects the target on the features, whose residual is linear in kappa / (lambda + kappa) and not quadratic, so the exponent for features is
    min(a - 1, b). The two agree in the usual regime a - 1 < b. A spectrum that is cut off bends the tails, the more the closer b is to 1: exponents need far more eigenvalues
    than features or samples (20 times as many, at least).""",
)

TARGET = nonnegative(typical=(1e-4, 1.0), doc="eigenvalue times squared coefficient of the target")
SPECTRUM = vector("modes", of=positive(typical=(1e-3, 1.0)), example=np.arange(1.0, 201) ** -1.5, most=40, doc="eigenvalues of the feature covariance")
POWER = vector("modes", of=TARGET, example=np.arange(1.0, 201) ** -1.8, most=40, doc="target power in each eigendirection")


@paper.law(
    r"L(t) = \sum_k v_k e^{-2\lambda_k t},\quad L(N) = \sum_k v_k \frac{\kappa}{\lambda_k+\kappa},\quad L(P) = \frac{\sum_k v_k (\kappa/(\lambda_k+\kappa))^2}{1 - q/P}",
    assumes=[
        "sum_k lambda_k/(lambda_k + kappa) is N or P, and q the sum of its squared terms.",
        "Gaussian features and samples, both many; the two other resources are unlimited.",
    ],
    requires={"time, features, samples: exactly one of them must be given": lambda time, features, samples: sum(x is not None for x in (time, features, samples)) == 1},
)
def bottleneck_loss(
    eigenvalues: SPECTRUM,
    target_power: POWER,
    *,
    time: nonnegative("steps", typical=(0, 100), doc="steps times learning rate") = None,
    features: positive("features", typical=(1, 100), example=20.0) = None,
    samples: positive("samples", typical=(1, 100)) = None,
) -> nonnegative():
    """Test loss where one of training time, features and samples is finite and the two others are not; 0 where features or samples outnumber the eigenvalues."""
    if time is not None:
        return float(target_power @ np.exp(-2 * eigenvalues * time))
    kappa = effective_ridge(eigenvalues, features if samples is None else samples)
    missed = kappa / (eigenvalues + kappa)
    if samples is None:
        return float(target_power @ missed)
    return float(target_power @ missed**2 / (((1 - missed) * missed).sum() / samples)) if kappa > 0 else 0.0  # 1 - q/P without cancellation


@paper.law(
    r"L \sim t^{-(a-1)/b},\ P^{-\min(a-1, 2b)},\ N^{-m},\ m = \min(a-1, b);\quad N^* \sim C^{1/(1+mb/(a-1))}",
    assumes=["Eigenvalues k^-b and target power k^-a.", "Compute is features times time, and the losses that either leaves add up."],
    closed_form=True,
    gives={"time": 0.53333, "optimal_size": 0.4, "optimal_time": 0.6, "loss": 0.32},
)
def exponents(
    a: positive(low=1, typical=(1.3, 4), example=1.8, doc="decay of the target power"), b: positive(low=1, typical=(1.1, 2.5), example=1.5, doc="decay of the spectrum")
) -> record(
    time=positive(),
    data=positive(),
    size=positive(),
    size_published=positive(doc="the source's exponent for features, as recalled"),
    optimal_size=probability(doc="power of compute with which the best number of features grows"),
    optimal_time=probability(doc="the same for training time"),
    loss=positive(doc="power of compute with which the best loss falls"),
):
    """Exponents of the loss in time, samples and features, and those of the compute-optimal features, time and loss."""
    xp, a, b = arrays(a, b)
    time, size = (a - 1) / b, xp.minimum(a - 1, b)
    width = time / (time + size)  # the share of ln C at which t^-time equals N^-size
    return {
        "data": xp.minimum(a - 1, 2 * b),
        "loss": size * width,
        "optimal_size": width,
        "optimal_time": 1 - width,
        "size": size,
        "size_published": xp.minimum(a - 1, 2 * b),
        "time": time,
    }


def problem(eigenvalues, target_power, features, samples, seed):
    """(Psi / sqrt(P), A / sqrt(N), w); where samples or features are unlimited, the diagonal of the matrix that takes their place."""
    rng, modes = np.random.default_rng(seed), len(eigenvalues)
    w = np.sqrt(target_power / eigenvalues) * rng.choice([-1.0, 1.0], modes)
    data = np.sqrt(eigenvalues) if math.isinf(samples) else rng.normal(size=(samples, modes)) * np.sqrt(eigenvalues / samples)
    return data, np.ones(modes) if math.isinf(features) else rng.normal(size=(features, modes)) / math.sqrt(features), w


def times_matrix(x, matrix):
    return x @ matrix if matrix.ndim == 2 else x * matrix


@paper.model(r"\dot v = -\frac{A^\top A}{N} \frac{\Psi^\top \Psi}{P} v,\ v(0) = w,\quad L = v^\top \Lambda v")
def gradient_flow(
    eigenvalues: SPECTRUM,
    target_power: POWER,
    features: count("features", typical=(1, 100), infinite=True, example=20, doc="infinite: the kernel itself"),
    samples: count("samples", typical=(1, 100), infinite=True, example=50, doc="infinite: the population loss"),
    times: vector("times", of=nonnegative("steps", typical=(0, 1000), infinite=True, doc="infinite: where training ends"), example=[0.0, 1.0, 10.0, 100.0, 1000.0]),
    *,
    seed: seed() = 0,
) -> record(test=vector("times", of=nonnegative()), train=vector("times", of=nonnegative())):
    """Test and train loss over time of one random student, exactly, from one singular value decomposition."""
    data, sketch, w = problem(eigenvalues, target_power, features, samples, seed)
    phi = times_matrix(data, sketch.T) if data.ndim == 2 else times_matrix(sketch if sketch.ndim == 2 else np.diag(sketch), data).T
    left, singular, right = np.linalg.svd(phi, full_matrices=False)
    seen = singular > 1e-14 * singular[0]
    left, singular, right = left[:, seen], singular[seen], right[seen]
    learned = -np.expm1(-(singular**2) * np.asarray(times, float)[:, None]) / singular * (left.T @ times_matrix(w, data.T))
    v = w - times_matrix(learned @ right, sketch)
    return {"test": v**2 @ eigenvalues, "train": (times_matrix(v, data.T) ** 2).sum(1)}


@paper.algorithm(
    r"\min_{N t = C} L(t) + L(N)",
    assumes=["The losses that finite time and finite features leave add up."],
    requires={"eigenvalues must be at least two": lambda eigenvalues: len(eigenvalues) > 1},
)
def optimal_split(compute: positive("features*steps", typical=(1e2, 1e8), example=1e3), eigenvalues: SPECTRUM, target_power: POWER) -> record(
    features=positive("features"), time=positive("steps"), loss=nonnegative()
):
    """Features and training time whose product is `compute` that leave the smallest loss, as the sum of what either alone would leave."""
    from scipy.optimize import minimize_scalar

    def loss(log_features):
        features = math.exp(log_features)
        return bottleneck_loss(eigenvalues, target_power, time=compute / features) + bottleneck_loss(eigenvalues, target_power, features=features)

    grid = np.linspace(0, math.log(len(eigenvalues)), 40)
    values = [loss(x) for x in grid]
    best = int(np.argmin(values))
    found = minimize_scalar(loss, bounds=(grid[max(best - 1, 0)], grid[min(best + 1, 39)]), method="bounded", options={"xatol": 1e-7})
    x, value = (found.x, found.fun) if found.fun < values[best] else (grid[best], values[best])
    return {"features": math.exp(x), "time": compute / math.exp(x), "loss": float(value)}


def power_law(a, b, modes):
    k = np.arange(1.0, modes + 1)
    return k**-b, k**-a


def limits_exchanged(eigenvalues, target_power, *, features=None, samples=None):
    return bottleneck_loss(eigenvalues, target_power, features=samples, samples=features)


@paper.trial(Identity(rtol=0.03), of=[bottleneck_loss, gradient_flow], controls={"formulas of features and samples exchanged": limits_exchanged}, quick=2, full=8)
def fully_trained(draw, claim):
    """Students trained to the end with 30, 60 or 120 features or samples, the other unlimited, have the mean loss that the limits say."""
    spectrum, power = power_law(draw.uniform(1.6, 2.2), draw.uniform(1.3, 1.7), 1500)
    n = draw.choice([30, 60, 120])
    seeds = [int(draw.rng.integers(2**40)) for _ in range(20)]
    losses = [[gradient_flow(spectrum, power, *sizes, [math.inf], seed=s)["test"][0] for sizes in ((n, math.inf), (math.inf, n))] for s in seeds]
    return Estimate.of(losses), [claim(spectrum, power, features=n), claim(spectrum, power, samples=n)], {"size": n}


def covariance_in_place_of_samples(eigenvalues, target_power, features, samples, times, *, seed):
    return gradient_flow(eigenvalues, target_power, features, math.inf, times, seed=seed)


@paper.trial(Identity(rtol=1e-7, atol=1e-10), of=[gradient_flow, bottleneck_loss], controls={"unlimited samples": covariance_in_place_of_samples}, quick=20, full=500)
def integrated(draw, claim):
    """The flow agrees with the matrix exponential of its generator on small problems, and without finite features and samples with the loss in time."""
    from scipy.linalg import expm

    spectrum, power = power_law(draw.uniform(1.2, 3), draw.uniform(1.1, 2), 12)
    features, samples, s, t = draw.integer(2, 20), draw.integer(2, 20), draw.integer(0, 1000), draw.log_uniform(0.1, 30)
    data, sketch, w = problem(spectrum, power, features, samples, s)
    v = expm(-t * sketch.T @ sketch @ data.T @ data) @ w
    flow = claim(spectrum, power, features, samples, [t], seed=s)
    free = gradient_flow(spectrum, power, math.inf, math.inf, [t])["test"][0]
    return (
        [spectrum @ v**2, ((data @ v) ** 2).sum(), free],
        [flow["test"][0], flow["train"][0], bottleneck_loss(spectrum, power, time=t)],
        {"features": features, "samples": samples},
    )


def published_size(a, b):
    return exponents(a, b) | {"size": exponents(a, b)["size_published"]}


@paper.trial(Identity(atol=0.1), of=[exponents, bottleneck_loss, optimal_split], controls={"the published exponent of size": published_size}, quick=1, full=5)
def exponents_over_a_decade(draw, claim):
    """Over a decade of time, samples, features or compute the losses and the best split have the slopes that the exponents say, for hard targets (a - 1 < b) and easy ones."""
    found, claimed, cases = [], [], {}
    for easy in (False, True):
        b = draw.uniform(1.8, 2.2)  # smaller b would need far more eigenvalues
        a = 1 + (draw.uniform(3, 3.5) * b if easy else draw.uniform(0.7, 0.55 * b))
        spectrum, power = power_law(a, b, 20_000)
        losses = [[bottleneck_loss(spectrum, power, **{name: x}) for x in (low, 10 * low)] for name, low in (("time", 300.0), ("samples", 50.0), ("features", 50.0))]
        split = [optimal_split(compute, spectrum, power) for compute in ((1e4, 1e5) if easy else (1e6, 1e7))]
        found += [math.log10(first / then) for first, then in (*losses, *([s[name] for s in split] for name in ("features", "time", "loss")))]
        said = claim(a, b)
        claimed += [said["time"], said["data"], said["size"], -said["optimal_size"], -said["optimal_time"], said["loss"]]
        cases["easy" if easy else "hard"] = [a, b]
    return found, claimed, cases


def square_root_of_width(eigenvalues, target_power, features, samples, times, *, seed):
    """Students whose corrections fall with the root of the width only."""
    return gradient_flow(eigenvalues, target_power, round(math.sqrt(40 * features)), samples, times, seed=seed)


@paper.trial(Identity(rtol=0.1), of=[gradient_flow, bottleneck_loss], controls={"correction of order width^-1/2": square_root_of_width}, quick=1, full=3)
def early_correction(draw, claim, effort):
    """At a fixed early time, width times the mean excess over the loss of unlimited width is the same at 40 and 160 features."""
    spectrum, power = power_law(draw.uniform(1.6, 2.2), draw.uniform(1.3, 1.7), 40)
    t, seeds = draw.uniform(3, 6), [int(draw.rng.integers(2**40)) for _ in range(700 if effort == "quick" else 3000)]
    free = bottleneck_loss(spectrum, power, time=t)
    narrow, wide = ([n * (claim(spectrum, power, n, math.inf, [t], seed=s)["test"][0] - free) for s in seeds] for n in (40, 160))
    return Estimate.of(narrow), Estimate.of(wide), {"time": t}


@paper.finding(
    """The exponent of the loss in features is min(a - 1, b), not the min(a - 1, 2b) that holds for samples: for a = 4, b = 1.2 formula and simulated students fall with
    about 1.2 where 2.4 was expected.""",
    trial=exponents_over_a_decade,
)
def size_exponent():
    spectrum, power = power_law(4.0, 1.2, 3000)
    trained = [np.mean([gradient_flow(spectrum, power, n, math.inf, [math.inf], seed=s)["test"][0] for s in range(10)]) for n in (20, 80)]
    formula = [bottleneck_loss(spectrum, power, features=n) for n in (20, 80)]
    slopes = {name: math.log(pair[0] / pair[1]) / math.log(4) for name, pair in (("formula", formula), ("simulated", trained))}
    data = [bottleneck_loss(spectrum, power, samples=n) for n in (20, 80)]
    return {"holds": all(abs(slope - 1.2) < 0.15 for slope in slopes.values()), **slopes, "samples": math.log(data[0] / data[1]) / math.log(4)}
