"""A multimodal law drawn through many noisy measurements of it, one at a time, each of which is log-concave given those before."""

import numpy as np

from lawbook.contract import Paper, caution, count, distribution, function, matrix, nonnegative, positive, real, record, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Distribution, Estimate, Guarantee, Identity, Inequality, Sample

paper = Paper(
    __name__,
    title="Chain of Log-Concave Markov Chains",
    arxiv="2305.19473",
    tags=["sampling", "Langevin", "log-concave", "multimodal", "empirical Bayes", "denoising", "walk-jump", "Gaussian mixture"],
    source="derived",
    says="""Draw noisy measurements y_t = x + sigma n_t of a hidden sample x one after the other. With enough noise each is log-concave given those before, so that plain
    Langevin steps draw it; only the running mean of the measurements matters, and it is an ever cleaner view of x. A last denoising step, E[x | y_1..y_m], lands near the
    target. For bounded plus Gaussian targets the noise that this needs is known exactly, and the first measurement is the hardest one.""",
    notes="""The Hessian, the least noise and the distance of the jump are derived here. That later measurements are no harder holds for X = bounded + Gaussian, not for every
    law. Langevin steps are overdamped, where the paper takes underdamped ones; `step_size` is their length in time, best a fraction of sigma^2.""",
)

MEANS = matrix("k", "d", of=real(typical=(-4, 4)), doc="centres of the components", example=[[-3.0], [3.0]])
VARIANCES = vector("k", of=nonnegative(typical=(0, 2)), doc="variance of each component along every axis; 0 is a point mass", example=[0.25, 0.25])
WEIGHTS = distribution("k", doc="weights of the components", example=[0.3, 0.7])
SIGMA = positive(typical=(0.5, 6), doc="standard deviation of the noise of one measurement", example=3.0)


def posterior(y, noise, means, variances, weights):
    """Responsibilities [n, k] of the components and the factor [k] by which each keeps y, given x + sqrt(noise) n = y[n, d]."""
    from scipy.spatial.distance import cdist

    total = variances + noise
    with np.errstate(divide="ignore"):
        logs = np.log(weights) - means.shape[1] / 2 * np.log(total) - cdist(y, means, "sqeuclidean") / (2 * total)
    logs -= logs.max(1, keepdims=True)
    shares = np.exp(logs)
    return shares / shares.sum(1, keepdims=True), variances / total


def mixture_denoiser(means, variances, weights):
    """(y, s) -> E[x | x + s n = y] of a Gaussian mixture."""

    def denoise(y, s):
        shares, kept = posterior(y, s**2, means, variances, weights)
        return (shares * (1 - kept)) @ means + (shares @ kept)[:, None] * y

    return denoise


@paper.bound(r"\sigma \ge \sqrt{(R^2 - \tau^2)_+}\ \Rightarrow\ \nabla^2_{y_t} \log p(y_t | y_{1:t-1}) \preceq 0", closed_form=True, gives=3)
def min_sigma(
    radius: positive(typical=(0.3, 10), doc="radius R of a ball that holds the bounded part", example=3.0),
    *,
    tau: nonnegative(typical=(0, 3), doc="standard deviation of the Gaussian part") = 0.0,
) -> nonnegative():
    """Noise from which on every measurement is log-concave given those before, for a target in a ball plus Gaussian noise."""
    xp, radius, tau = arrays(radius, tau)
    room = radius**2 - tau**2
    return xp.where(room > 0, xp.sqrt(xp.where(room > 0, room, 1.0)), 0.0)


@paper.bound(r"W_2(\hat x, p) \le \sigma \sqrt{d/m}", closed_form=True)
def jump_w2(
    sigma: SIGMA, dim: count("dimensions", typical=(1, 1000), example=2), measurements: count("measurements", typical=(1, 1000), doc="how many measurements", example=20)
) -> positive():
    """Wasserstein-2 distance that the denoised mean of exact measurements keeps from the target at most."""
    xp, sigma, dim, measurements = arrays(sigma, dim, measurements)
    return sigma * xp.sqrt(dim / measurements)


@paper.measure(r"\nabla^2_{y_t} \log p(y_t | y_{1:t-1}) = -\frac{I}{\sigma^2} + \frac{\mathrm{Cov}(X | y_{1:t})}{\sigma^4}")
def conditional_hessian(
    means: MEANS,
    variances: VARIANCES,
    weights: WEIGHTS,
    sigma: SIGMA,
    history_mean: vector("d", of=real(typical=(-4, 4)), doc="mean of the earlier measurements; not used at t = 1", example=[0.5]),
    t: count("measurements", typical=(1, 20), doc="which measurement", example=2),
    y: vector("d", of=real(typical=(-4, 4)), doc="its value", example=[-0.5]),
) -> matrix("d", "d", of=real()):
    """Hessian of the log density of a measurement given those before, exact for Gaussian mixtures."""
    centre = (((t - 1) * history_mean + y) / t)[None] if t > 1 else y[None]
    noise = sigma**2 / t
    shares, kept = posterior(centre, noise, means, variances, weights)
    inner = means + kept[:, None] * (centre - means)
    off = inner - shares[0] @ inner
    covariance = (off.T * shares[0]) @ off + shares[0] @ (kept * noise) * np.eye(len(y))
    return -np.eye(len(y)) / sigma**2 + covariance / sigma**4


def draw_run(rng):
    k, d, sigma = int(rng.integers(1, 4)), int(rng.integers(1, 4)), float(rng.uniform(0.5, 5))
    return {
        "means": rng.normal(size=(k, d)) * 3,
        "variances": rng.uniform(0, 1, k),
        "weights": rng.dirichlet(np.ones(k)),
        "sigma": sigma,
        "measurements": int(rng.integers(1, 8)),
        "inner_steps": int(rng.integers(1, 20)),
        "step_size": 0.2 * sigma**2,
        "chains": int(rng.integers(1, 50)),
        "seed": int(rng.integers(1000)),
    }


@paper.algorithm(
    r"y_t \leftarrow y_t + h \frac{E[X | y_{1:t}] - y_t}{\sigma^2} + \sqrt{2h}\, \xi,\quad \hat x = E[X | y_{1:m}]",
    requires={"step_size must be below 2 sigma^2: the steps diverge otherwise": lambda step_size, sigma: step_size < 2 * sigma**2},
    sample=draw_run,
)
def oat_walk_jump(
    means: MEANS,
    variances: VARIANCES,
    weights: WEIGHTS,
    sigma: SIGMA,
    measurements: count("measurements", typical=(1, 50), doc="how many measurements", example=20),
    inner_steps: count("steps", typical=(1, 200), doc="Langevin steps on each measurement", example=60),
    step_size: positive(typical=(0.01, 5), doc="length of a Langevin step, best .02 to .2 sigma^2", example=1.35),
    chains: count("chains", typical=(1, 5000), doc="independent samples", example=200),
    seed: seed(example=0),
    *,
    denoiser: function("(y[n, d], s) -> E[x | x + s n = y] as [n, d]", doc="in place of the mixture's, whose means then only say the dimension and the start") = None,
    first: vector("d", of=real(typical=(-4, 4)), doc="where the first measurement starts; the mean of the mixture unless given") = None,
) -> record(samples=matrix("chains", "d", doc="denoised"), running_means=matrix("chains", "d", doc="means of the measurements")):
    """Samples of a mixture, or of whatever law a denoiser knows, one log-concave measurement at a time, then denoised."""
    centre = weights @ means
    if denoiser is None and np.ptp(variances) == 0 and sigma < min_sigma(max(np.linalg.norm(means - centre, axis=1).max(), 1e-300), tau=variances[0] ** 0.5) / 2:
        caution("sigma is below half the spread of the modes: measurements have several modes themselves, and the chains may not pass between them.")
    denoise = mixture_denoiser(means, variances, weights) if denoiser is None else denoiser
    rng = np.random.default_rng(seed)
    y = np.tile(centre if first is None else np.asarray(first, float), (chains, 1))
    mean = np.zeros(y.shape)
    for t in range(1, measurements + 1):
        if t > 1:
            y = mean + sigma * rng.normal(size=y.shape)
        for _ in range(inner_steps):
            pull = denoise(mean + (y - mean) / t, sigma / t**0.5) - y
            y = y + step_size / sigma**2 * pull + (2 * step_size) ** 0.5 * rng.normal(size=y.shape)
        mean = mean + (y - mean) / t
    return {"samples": denoise(mean, sigma / measurements**0.5), "running_means": mean}


def covariance_of_one(means, variances, weights, sigma, history_mean, t, y):
    """As if the posterior saw the last measurement's noise alone."""
    return conditional_hessian(means, variances, weights, sigma, history_mean, 1, ((t - 1) * history_mean + y) / t)


@paper.trial(Identity(rtol=1e-5, atol=1e-6), of=[conditional_hessian], controls={"noise sigma^2 where it is sigma^2/t": covariance_of_one}, quick=40, full=1000)
def joint_density(draw, hessian):
    """The Hessian is that of the joint density of all measurements, a mixture of Gaussians with correlated coordinates, by fourth-order differences."""
    from scipy.special import logsumexp

    k, d, t, sigma = draw.integer(1, 4), draw.integer(1, 3), draw.integer(1, 5), draw.uniform(0.7, 3)
    means, variances, weights = draw.normal(0, 2, (k, d)), draw.uniform(0, 2, k), draw.dirichlet(1.0, k)
    past, y = draw.normal(0, 2, (t - 1, d)), draw.normal(0, 2, d)
    covariances = variances[:, None, None] + sigma**2 * np.eye(t)  # of the t values of one coordinate
    precisions, volumes = np.linalg.inv(covariances), np.linalg.slogdet(covariances)[1]

    def log_density(last):
        off = np.vstack([past, last])[None] - means[:, None]
        return logsumexp(np.log(weights) - d / 2 * volumes - np.einsum("kid,kij,kjd->k", off, precisions, off) / 2)

    h, shifts, first = 0.03 * sigma, np.array([-2, -1, 1, 2]), np.array([1, -8, 8, -1]) / 12
    second, at = np.zeros((d, d)), h * np.eye(d)
    for i in range(d):
        for j in range(d):
            if i == j:
                line = [log_density(y + s * at[i]) for s in (-2, -1, 0, 1, 2)]
                second[i, i] = np.dot([-1, 16, -30, 16, -1], line) / (12 * h**2)
            else:
                grid = [[log_density(y + a * at[i] + b * at[j]) for b in shifts] for a in shifts]
                second[i, j] = first @ np.array(grid) @ first / h**2
    history = past.mean(0) if t > 1 else np.zeros(d)
    return second, hessian(means, variances, weights, sigma, history, t, y), {"t": t, "sigma": sigma}


def half(radius, *, tau=0.0):
    return min_sigma(radius, tau=tau) / 2


def gaussian_part_twice(radius, *, tau=0.0):
    return min_sigma(radius, tau=2**0.5 * tau)


@paper.trial(Inequality(rtol=1e-9, reaches=0.98, search=200), of=[min_sigma], controls={"half of it": half, "tau^2 counted twice": gaussian_part_twice}, quick=400, full=10_000)
def always_log_concave(draw, least):
    """At the least noise and above, no measurement of a mixture in a ball has a positive curvature, and at the first one the bound is met."""
    k, d, t, radius = draw.choice([2, 2, 3, 5]), draw.integer(1, 3), draw.choice([1, 1, 2, 3, 8]), draw.uniform(0.5, 4)
    direction = draw.normal(size=(k, d))
    means = radius * direction / np.linalg.norm(direction, axis=1, keepdims=True) * draw.uniform(0.5, 1, k)[:, None]
    tau = draw.uniform(0, 0.95) * radius
    sigma = float(least(radius, tau=tau)) * (1 + draw.choice([0.0, 0.3]) * draw.uniform()) + 1e-6 * radius
    y, weights = draw.uniform(-1.5, 1.5, d) * radius, draw.dirichlet(3.0, k)
    curvature = conditional_hessian(means, np.full(k, tau**2), weights, sigma, draw.uniform(-1.5, 1.5, d) * radius, t, y)
    return 1 + sigma**2 * np.linalg.eigvalsh(curvature)[-1], 1.0, {"sigma": sigma, "radius": radius, "tau": tau, "t": t}


def root_forgotten(sigma, dim, measurements):
    return sigma * dim**0.5 / measurements


@paper.trial(Guarantee(), of=[jump_w2], controls={"1/m where it is 1/sqrt(m)": root_forgotten}, quick=30, full=300)
def exact_jumps(draw, bound):
    """The denoised means of exact measurements are no farther from the target than the bound, by optimal assignment to the samples they were measured from."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    k, d, m, sigma, n = draw.integer(1, 4), draw.integer(1, 4), draw.integer(1, 60), draw.log_uniform(0.3, 5), 300
    means, weights = draw.normal(0, 2, (k, d)), draw.dirichlet(1.0, k)
    variances = draw.log_uniform(0.1, 10, k) * sigma**2 / m
    which = draw.rng.choice(k, n, p=weights)
    x = means[which] + np.sqrt(variances[which])[:, None] * draw.rng.normal(size=(n, d))
    jumped = mixture_denoiser(means, variances, weights)(x + sigma / m**0.5 * draw.rng.normal(size=(n, d)), sigma / m**0.5)
    cost = cdist(x, jumped, "sqeuclidean")
    return np.sqrt(cost[linear_sum_assignment(cost)].mean()), float(bound(sigma, d, m)), {"sigma": sigma, "measurements": m, "dim": d}


MODES = {"means": np.array([[-3.0], [3.0]]), "variances": np.array([0.25, 0.25]), "weights": np.array([0.3, 0.7])}


def run_modes(sampler, rng, sigma, chains, measurements, inner_steps, relative_step):
    return sampler(
        **MODES, sigma=sigma, measurements=measurements, inner_steps=inner_steps, step_size=relative_step * sigma**2, chains=chains, seed=int(rng.integers(2**62)), first=[-3.0]
    )


def half_the_noise(*, sigma, step_size, **more):
    return oat_walk_jump(sigma=sigma / 2, step_size=step_size / 4, **more)


def mean_not_updated(*, measurements, inner_steps, **more):
    """One measurement of as many steps: the history is lost."""
    return oat_walk_jump(measurements=1, inner_steps=measurements * inner_steps, **more)


@paper.trial(Guarantee(), of=[oat_walk_jump], controls={"sigma = R/2": half_the_noise}, quick=1, full=4)
def finds_the_other_mode(draw, sampler, effort):
    """From a start in the lesser mode at -3, the chains at sigma = R = 3 come to share 0.7 in the mode at 3, within .03."""
    chains = 2000 if effort == "quick" else 8000
    share = float(np.mean(run_modes(sampler, draw.rng, 3.0, chains, 20, 60, 0.15)["samples"] > 0))
    return Estimate(abs(share - 0.7), (0.21 / chains) ** 0.5), 0.03, {"share": share}


@paper.trial(Distribution(), of=[oat_walk_jump], controls={"sigma = R/2": half_the_noise, "history forgotten": mean_not_updated}, quick=600, full=3000)
def stationary_laws(draw, sampler):
    """With small steps the running means follow the target with noise of variance sigma^2/m, and the samples are the denoised values of that law."""
    from scipy.stats import norm

    sigma, m = 4.0, 8
    run = run_modes(sampler, draw.rng, sigma, draw.size, m, 300, 0.03)
    scale, n = np.sqrt(0.25 + sigma**2 / m), 20_000
    x = np.where(draw.rng.uniform(size=n) < 0.7, 3.0, -3.0)[:, None] + 0.5 * draw.rng.normal(size=(n, 1))
    exact = mixture_denoiser(**MODES)(x + sigma / m**0.5 * draw.rng.normal(size=(n, 1)), sigma / m**0.5)
    return {
        "running means": Sample(run["running_means"][:, 0], cdf=lambda y: 0.3 * norm.cdf(y, -3, scale) + 0.7 * norm.cdf(y, 3, scale)),
        "samples": Sample(run["samples"][:, 0], like=exact[:, 0]),
    }


@paper.finding("""A third of the steps is too few: with 20 Langevin steps a measurement the share of the far mode stops short of .7 by more than .05; as many Langevin steps on the
target itself (20 x 60) bring no chain at all from -3 to 3.""")
def too_few_steps():
    rng = np.random.default_rng(0)
    short = float(np.mean(run_modes(oat_walk_jump, rng, 3.0, 2000, 20, 20, 0.15)["samples"] > 0))
    x, step = np.full(1000, -3.0), 0.15 * 0.25
    for _ in range(1200):
        right = 1 / (1 + 0.3 / 0.7 * np.exp(np.clip(-24 * x, -700, 700)))  # share of the mode at 3
        x = x + step * (6 * right - 3 - x) / 0.25 + np.sqrt(2 * step) * rng.normal(size=x.size)
    plain = float(np.mean(x > 0))
    return {"holds": short < 0.65 and plain == 0, "share_with_20_steps": short, "share_of_plain_langevin": plain}
