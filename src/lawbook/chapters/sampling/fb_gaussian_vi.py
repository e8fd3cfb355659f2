"""The best Gaussian for a density: gradient steps on its potential and exact proximal steps on the entropy, in the Bures-Wasserstein geometry."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, caution, count, function, integer, matrix, nonnegative, optional, positive, real, record, seed, vector
from lawbook.trials import Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="Forward-backward Gaussian variational inference via JKO in the Bures-Wasserstein Space",
    arxiv="2304.05398",
    tags=["variational inference", "Gaussian", "Bures-Wasserstein", "JKO", "proximal gradient", "posterior", "logistic regression", "optimal transport"],
    source="known",
    says="""The Gaussian closest to exp(-V) in Kullback-Leibler divergence minimises E[V] - log det(S)/2 over means and covariances. Alternating a gradient step on the first part
    with an exact proximal step on the second, both in the geometry of optimal transport between Gaussians, needs one square root of a covariance a step, and for smooth convex V
    converges at the rates of proximal gradient descent, with step size 1/L.""",
    notes="""The constant of the non-convex rate is not sure and is left out. Labels of the logistic model are 0 and 1 and no intercept is added; its expectations are Gauss-Hermite
    sums. With sampled gradients the error settles at a floor of the order of the step size.""",
)

SYMMETRIC = {"covariance must be symmetric with positive eigenvalues": lambda covariance: least_eigenvalue(covariance) > 0}
MEAN = vector("d", of=real(typical=(-2, 2)), doc="mean of the Gaussian", example=[1.0, -1.0])
COVARIANCE = matrix("d", "d", of=real(), doc="covariance of the Gaussian", example=[[1.0, 0.2], [0.2, 0.5]])
STEP = positive(typical=(0.01, 0.5), doc="step size eta; the rates hold up to 1/L", example=0.1)
STEPS = count("steps", typical=(1, 300), doc="forward-backward steps", example=100)
GAUSSIAN = {"mean": vector("d"), "covariance": matrix("d", "d")}


def least_eigenvalue(matrix):
    """Of a symmetric matrix; NaN for others."""
    return float(np.linalg.eigvalsh(matrix)[0]) if np.allclose(matrix, matrix.T, rtol=1e-9, atol=1e-12) else math.nan


def random_covariance(rng, d, condition=30.0):
    axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (axes * condition ** rng.uniform(-0.5, 0.5, d)) @ axes.T


def spectral(matrix, function):
    """A function of a symmetric matrix, through its eigenvalues (those below 0 by rounding raised to it)."""
    values, axes = np.linalg.eigh(matrix)
    return (axes * function(np.maximum(values, 0.0))) @ axes.T


def drawn(*names):
    """A sampler of arguments with these names, in one dimension common to all."""

    def sample(rng):
        d = int(rng.integers(1, 5))
        values = {"step_size": float(rng.uniform(0.01, 0.1)), "steps": int(rng.integers(1, 60))}
        matrices = {"covariance": 30.0, "covariance_a": 30.0, "covariance_b": 30.0, "hessian": 9.0, "precision": 9.0}
        return {name: values[name] if name in values else random_covariance(rng, d, matrices[name]) if name in matrices else rng.normal(size=d) for name in names}

    return sample


@paper.algorithm(
    r"\operatorname{argmin}_S \frac{BW^2(\Sigma, S)}{2\eta} - \tfrac12 \ln\det S = \tfrac12 \left(\Sigma + 2\eta I + (\Sigma(\Sigma + 4\eta I))^{1/2}\right)",
    requires=SYMMETRIC,
    sample=drawn("covariance", "step_size"),
    gives=[[1.2266281]],
)
def jko_entropy_step(
    covariance: matrix("d", "d", of=real(), doc="covariance after the forward step", example=[[0.7]]), step_size: positive(typical=(0.01, 0.5), doc="step size eta", example=0.3)
) -> matrix("d", "d"):
    """The covariance to which an exact proximal step on the entropy leads."""
    return spectral(covariance, lambda s: (s + 2 * step_size + np.sqrt(s * (s + 4 * step_size))) / 2)


def forward_backward(mean, covariance, grad, hessian, step_size, entropy_step=jko_entropy_step):
    forward = np.eye(len(mean)) - step_size * hessian
    with np.errstate(over="ignore", invalid="ignore"):
        moved, half = mean - step_size * grad, forward @ covariance @ forward.T
    if not (np.isfinite(moved).all() and np.abs(half).max() < 1e13 * step_size):
        raise DomainError(f"step_size must be small enough, 1/L at most, for the steps to stay finite; it was {step_size:.3g}.")
    return {"mean": moved, "covariance": entropy_step((half + half.T) / 2, step_size)}


@paper.algorithm(r"m^+ = m - \eta b,\quad S^+ = JKO((I - \eta H) S (I - \eta H))", requires=SYMMETRIC, sample=drawn("mean", "covariance", "grad", "hessian", "step_size"))
def fb_gvi_step(
    mean: MEAN,
    covariance: COVARIANCE,
    grad: vector("d", of=real(), doc="expected gradient of the potential", example=[0.5, 0.0]),
    hessian: matrix("d", "d", of=real(), doc="expected Hessian of the potential", example=[[2.0, 0.0], [0.0, 1.0]]),
    step_size: STEP,
) -> record(**GAUSSIAN):
    """One forward-backward step of a Gaussian."""
    return forward_backward(mean, covariance, grad, hessian, step_size)


@paper.measure(r"BW^2 = \|m_a - m_b\|^2 + \operatorname{tr}(A + B - 2 (A^{1/2} B A^{1/2})^{1/2})", sample=drawn("mean_a", "covariance_a", "mean_b", "covariance_b"))
def bures_wasserstein(
    mean_a: MEAN,
    covariance_a: matrix("d", "d", of=real(), doc="positive semi-definite", example=[[1.0, 0.2], [0.2, 0.5]]),
    mean_b: vector("d", of=real(), example=[0.0, 0.0]),
    covariance_b: matrix("d", "d", of=real(), doc="positive semi-definite", example=[[1.0, 0.0], [0.0, 1.0]]),
) -> nonnegative():
    """Wasserstein-2 distance of two Gaussians."""
    overlap = np.linalg.svd(spectral(covariance_a, np.sqrt) @ spectral(covariance_b, np.sqrt), compute_uv=False).sum()
    return math.sqrt(max(float(np.sum((mean_a - mean_b) ** 2) + np.trace(covariance_a) + np.trace(covariance_b) - 2 * overlap), 0.0))


@paper.measure(
    r"\tfrac12 \left(\operatorname{tr}(B^{-1} A) + \|m_a - m_b\|_{B^{-1}}^2 - d + \ln\frac{\det B}{\det A}\right)",
    requires={
        "covariance_a and covariance_b must be symmetric with positive eigenvalues": lambda covariance_a, covariance_b: (
            least_eigenvalue(covariance_a) > 0 and least_eigenvalue(covariance_b) > 0
        )
    },
    sample=drawn("mean_a", "covariance_a", "mean_b", "covariance_b"),
)
def gaussian_kl(
    mean_a: MEAN,
    covariance_a: COVARIANCE,
    mean_b: vector("d", of=real(), doc="mean of the Gaussian that it is measured from", example=[0.0, 0.0]),
    covariance_b: matrix("d", "d", of=real(), doc="its covariance", example=[[1.0, 0.0], [0.0, 1.0]]),
) -> nonnegative("nats"):
    """Kullback-Leibler divergence of a Gaussian a from a Gaussian b."""
    root = np.linalg.cholesky(covariance_b)
    ratios = np.linalg.svd(np.linalg.solve(root, np.linalg.cholesky(covariance_a)), compute_uv=False) ** 2  # eigenvalues of B^-1 A
    return 0.5 * float(np.sum(ratios - 1 - np.log(ratios)).clip(0) + np.sum(np.linalg.solve(root, mean_a - mean_b) ** 2))


@paper.algorithm(
    r"b = P(m - m^*),\ H = P",
    requires=SYMMETRIC | {"precision must be symmetric with positive eigenvalues": lambda precision: least_eigenvalue(precision) > 0},
    sample=drawn("precision", "target_mean", "mean", "covariance", "step_size", "steps"),
)
def fb_gvi_quadratic(
    precision: matrix("d", "d", of=real(), doc="precision of the target", example=[[2.0, 0.5], [0.5, 1.0]]),
    target_mean: vector("d", of=real(), doc="mean of the target", example=[0.0, 2.0]),
    mean: MEAN,
    covariance: COVARIANCE,
    step_size: STEP,
    steps: STEPS,
) -> record(**GAUSSIAN, kl=vector("steps+1", of=nonnegative("nats"), doc="divergence from the target after each step")):
    """Forward-backward steps towards a Gaussian target."""
    if step_size * np.linalg.eigvalsh(precision)[-1] > 1 + 1e-9:
        caution("step_size is above 1/L, the inverse of the largest precision: neither descent nor convergence is promised.")
    return descend_quadratic(precision, target_mean, mean, covariance, step_size, steps)


def descend_quadratic(precision, target_mean, mean, covariance, step_size, steps, entropy_step=jko_entropy_step):
    target = np.linalg.inv(precision)
    kl = [gaussian_kl(mean, covariance, target_mean, target)]
    for _ in range(steps):
        mean, covariance = forward_backward(mean, covariance, precision @ (mean - target_mean), precision, step_size, entropy_step).values()
        kl.append(gaussian_kl(mean, covariance, target_mean, target))
    return {"mean": mean, "covariance": covariance, "kl": np.array(kl)}


def logistic_moments(features, labels, prior, mean, covariance, rule):
    """(E V, E grad V, E Hess V) of the logistic posterior; each z = x.w is Gaussian."""
    from scipy.special import expit

    centre, deviation = features @ mean, np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", features, covariance, features), 0))
    loss, first, second = (np.zeros(len(labels)) for _ in range(3))
    for node, weight in zip(*rule, strict=True):
        z = centre + node * deviation
        chance = expit(z)
        loss += weight * np.logaddexp(0, z)
        first += weight * chance
        second += weight * chance * (1 - chance)
    value = float(np.sum(loss - labels * centre) + prior / 2 * (mean @ mean + np.trace(covariance)))
    return value, features.T @ (first - labels) + prior * mean, (features.T * second) @ features + prior * np.eye(len(mean))


@paper.algorithm(r"V(w) = \sum_i \ln(1 + e^{x_i \cdot w}) - y_i\, x_i \cdot w + \tfrac{\lambda}{2} \|w\|^2")
def fb_gvi_logistic(
    features: matrix("n", "d", of=real(typical=(-2, 2)), doc="a case in each row", example=[[1.0, 0.5], [1.0, -0.3], [1.0, 1.2], [1.0, -1.0], [1.0, 0.1]]),
    labels: vector("n", of=integer(low=0, high=1), doc="0 or 1", example=[1, 0, 1, 0, 0]),
    *,
    prior_precision: positive(typical=(0.1, 10), doc="precision of the Gaussian prior of every weight") = 1.0,
    step_size: positive(typical=(0.01, 0.1), doc="1/L unless given") = None,
    steps: STEPS = 100,
    nodes: count("nodes", typical=(8, 64), high=300, doc="of the Gauss-Hermite rule") = 64,
) -> record(**GAUSSIAN, objective=vector("k", doc="E V - log det(S) / 2 before and after each step")):
    """Gaussian approximation of the posterior of Bayesian logistic regression."""
    from scipy.special import roots_hermitenorm

    at, weights = roots_hermitenorm(nodes)
    rule, d = (at, weights / weights.sum()), features.shape[1]
    if np.linalg.norm(features, axis=1).max() / prior_precision**0.5 > 0.7 * nodes**0.5:
        caution("nodes are few for a prior this wide: expectations may be off by more than 1e-4; take more nodes, or a narrower prior.")
    step = 1 / (prior_precision + np.linalg.norm(features, 2) ** 2 / 4) if step_size is None else step_size
    mean, covariance, objective = np.zeros(d), np.eye(d) / prior_precision, []
    for k in range(steps + 1):
        value, grad, hessian = logistic_moments(features, labels, prior_precision, mean, covariance, rule)
        objective.append(value - np.linalg.slogdet(covariance)[1] / 2)
        if k < steps:
            mean, covariance = forward_backward(mean, covariance, grad, hessian, step).values()
    return {"mean": mean, "covariance": covariance, "objective": np.array(objective)}


@paper.algorithm(r"b = \tfrac1N \sum \nabla V(X_i),\quad H = \tfrac1N \sum \nabla^2 V(X_i) \text{ or } \tfrac1N \sum \nabla V(X_i) (X_i - m)^\top S^{-1}", requires=SYMMETRIC)
def fb_gvi(
    grad: function("x[d] -> gradient[d] of the potential", example=lambda x: x - 2),
    hessian: optional(function("x[d] -> Hessian[d, d] of the potential", doc="None: from gradients by Stein's identity", example=lambda x: np.eye(len(x)))),
    mean: MEAN,
    covariance: COVARIANCE,
    step_size: STEP,
    steps: STEPS,
    *,
    potential: function("x[d] -> value of the potential", doc="for the objective") = None,
    samples: count("samples", typical=(1, 100), doc="sampled points a step") = 1,
    seed: seed() = 0,
) -> record(**GAUSSIAN, objective=optional(vector("k", doc="sampled objective before and after each step; only with a potential"))):
    """Forward-backward steps towards any smooth target, with expectations over sampled points."""
    if hessian is None and samples < len(mean):
        caution("Stein's estimate of the Hessian is noisy: take at least as many samples as dimensions.")
    rng, objective = np.random.default_rng(seed), []
    for k in range(steps + 1):
        off = rng.normal(size=(samples, len(mean))) @ np.linalg.cholesky(covariance).T
        points = mean + off
        if potential is not None:
            objective.append(np.mean([potential(x) for x in points]) - np.linalg.slogdet(covariance)[1] / 2)
        if k == steps:
            break
        slopes = np.array([grad(x) for x in points], float)
        curvature = np.mean([hessian(x) for x in points], 0) if hessian is not None else np.linalg.solve(covariance, off.T @ slopes / samples)
        mean, covariance = forward_backward(mean, covariance, slopes.mean(0), (curvature + curvature.T) / 2, step_size).values()
    return {"mean": mean, "covariance": covariance, "objective": np.array(objective) if objective else None}


@paper.bound(
    r"F_k - F^* \le \frac{W_2^2(\mu_0, \mu^*)}{2 k \eta},\quad W_2^2(\mu_k, \mu^*) \le e^{-\alpha k \eta} W_2^2(\mu_0, \mu^*)",
    assumes=["The potential is convex and L-smooth, eta at most 1/L, and expectations are exact."],
)
def fb_gvi_rate(
    initial_w2: positive(typical=(0.1, 10), doc="Wasserstein-2 distance of the start from the best Gaussian", example=3.0),
    step_size: STEP,
    steps: STEPS,
    *,
    strong_convexity: nonnegative(typical=(0, 2), doc="alpha of the potential") = 0.0,
) -> record(objective_gap=positive("nats"), w2_squared=nonnegative()):
    """How far from the best Gaussian forward-backward steps are at most."""
    return {"objective_gap": initial_w2**2 / (2 * steps * step_size), "w2_squared": math.exp(-strong_convexity * steps * step_size) * initial_w2**2}


def gaussian_problem(draw):
    """(precision, its least and largest eigenvalue, target mean, mean, covariance)."""
    d, condition = draw.integer(1, 8), draw.log_uniform(1, 100)
    eigenvalues = draw.log_uniform(0.3, 3) * condition ** draw.uniform(size=d)
    axes = np.linalg.qr(draw.rng.normal(size=(d, d)))[0]
    return (axes * eigenvalues) @ axes.T, eigenvalues.min(), eigenvalues.max(), draw.normal(0, 2, d), draw.normal(0, 2, d), random_covariance(draw.rng, d)


def contracts_twice(initial_w2, step_size, steps, *, strong_convexity):
    return fb_gvi_rate(initial_w2, step_size, steps, strong_convexity=2.2 * strong_convexity)


def falls_as_k_squared(initial_w2, step_size, steps, *, strong_convexity):
    found = fb_gvi_rate(initial_w2, step_size, steps, strong_convexity=strong_convexity)
    return found | {"objective_gap": found["objective_gap"] / steps**2}


@paper.trial(
    Inequality(search=0, atol=1e-9),
    of=[fb_gvi_rate, fb_gvi_step, bures_wasserstein, gaussian_kl, fb_gvi_logistic],
    controls={"e^(-2.2 alpha k eta)": contracts_twice, "1/k^3": falls_as_k_squared},
    quick=12,
    full=100,
)
def promised_rates(draw, rate):
    """Divergence and distance from random Gaussian targets, and the objective of a logistic posterior, stay below their bounds after every step."""
    precision, alpha, smooth, goal, mean, covariance = gaussian_problem(draw)
    target, eta = np.linalg.inv(precision), draw.uniform(0.2, 1) / smooth
    initial, achieved, promised = bures_wasserstein(mean, covariance, goal, target), [], []
    for k in range(1, 101):
        mean, covariance = fb_gvi_step(mean, covariance, precision @ (mean - goal), precision, eta).values()
        achieved += [gaussian_kl(mean, covariance, goal, target), bures_wasserstein(mean, covariance, goal, target) ** 2]
        promised += rate(initial, eta, k, strong_convexity=alpha).values()
    features = draw.rng.normal(size=(60, 3))
    labels = (draw.rng.uniform(size=60) < 1 / (1 + np.exp(-features @ [1.0, -2.0, 0.5]))).astype(int)
    best, step = fb_gvi_logistic(features, labels, steps=300, nodes=24), 1 / (1 + np.linalg.norm(features, 2) ** 2 / 4)
    logistic = best["objective"][1:41] - best["objective"][-1]
    from_prior = bures_wasserstein(np.zeros(3), np.eye(3), best["mean"], best["covariance"])
    promised_logistic = [rate(from_prior, step, k, strong_convexity=1.0)["objective_gap"] for k in range(1, 41)]
    return np.concatenate([achieved, logistic]), np.concatenate([promised, promised_logistic]), {"step_size": eta, "alpha": alpha}


def plain_heat_step(covariance, step_size):
    return covariance + 2 * step_size * np.eye(len(covariance))


@paper.trial(Identity(rtol=1e-4, atol=1e-5), of=[jko_entropy_step, bures_wasserstein], controls={"S + 2 eta I": plain_heat_step}, quick=8, full=60)
def proximal_step_by_minimising(draw, entropy_step):
    """The entropy step is the covariance at which a general minimiser of the proximal objective ends."""
    from scipy.optimize import minimize

    d, eta = draw.integer(1, 3), draw.log_uniform(0.05, 2)
    given, lower = random_covariance(draw.rng, d), np.tril_indices(d)

    def unpack(values):
        root = np.zeros((d, d))
        root[lower] = values
        return root @ root.T + 1e-12 * np.eye(d)

    def objective(values):
        covariance = unpack(values)
        return bures_wasserstein(np.zeros(d), given, np.zeros(d), covariance) ** 2 / (2 * eta) - np.linalg.slogdet(covariance)[1] / 2

    found = minimize(objective, np.linalg.cholesky(given + eta * np.eye(d))[lower], method="BFGS", options={"gtol": 1e-7})
    return unpack(found.x), entropy_step(given, eta), {"eta": eta, "d": d}


def too_long_steps(precision, target_mean, mean, covariance, step_size, steps):
    return descend_quadratic(precision, target_mean, mean, covariance, 2.5 * step_size, min(steps, 10))


def heat_for_jko(precision, target_mean, mean, covariance, step_size, steps):
    return descend_quadratic(precision, target_mean, mean, covariance, step_size, steps, plain_heat_step)


@paper.trial(Guarantee(atol=1e-11), of=[fb_gvi_quadratic], controls={"eta = 2.5/L": too_long_steps, "S + 2 eta I for the proximal step": heat_for_jko}, quick=20, full=300)
def descent_to_the_target(draw, descend):
    """With eta = 1/L the divergence from a Gaussian target falls in every step, and to nothing in the end."""
    precision, alpha, smooth, goal, mean, covariance = gaussian_problem(draw)
    steps = min(math.ceil(20 * smooth / alpha), 400)
    kl = descend(precision, goal, mean, covariance, 1 / smooth, steps)["kl"]
    promised = 1e-9 if steps < 400 else kl[0]  # where 400 steps are too few, the descent alone counts
    return np.array([np.max(np.diff(kl)), kl[-1]]), np.array([1e-12 * (1 + kl[0]), promised]), {"kl": kl[-1]}


def half_hessian(grad, hessian, *arguments, **more):
    return fb_gvi(grad, lambda x: 0.5 * hessian(x), *arguments, **more) if hessian else fb_gvi(lambda x: 0.5 * grad(x), None, *arguments, **more)


@paper.trial(Guarantee(), of=[fb_gvi, fb_gvi_logistic], claim=fb_gvi, controls={"half of the Hessian, or of the gradient": half_hessian}, quick=2, full=12)
def sampled_gradients(draw, fit):
    """With sampled gradients, and Hessians or Stein's identity, the Gaussian for a logistic posterior comes near that of Gauss-Hermite sums."""
    features = draw.normal(size=(25, 2))
    labels = (features @ [1.5, -1.0] + draw.normal(size=25) > 0).astype(int)
    exact = fb_gvi_logistic(features, labels, steps=300, nodes=32)

    def chances(w):
        return 1 / (1 + np.exp(-features @ w))

    def hessian(w):
        return (features.T * chances(w) * (1 - chances(w))) @ features + np.eye(2)

    given = hessian if draw.choice([True, False]) else None
    eta = 0.5 / (1 + np.linalg.norm(features, 2) ** 2 / 4)
    found = fit(lambda w: features.T @ (chances(w) - labels) + w, given, np.zeros(2), np.eye(2), eta, 80, samples=150, seed=draw.integer(0, 1000))
    off = bures_wasserstein(found["mean"], found["covariance"], exact["mean"], exact["covariance"])
    return off, 0.2 * math.sqrt(np.trace(exact["covariance"])), {"by_stein": given is None}


@paper.finding(
    """Sixty-four Gauss-Hermite nodes are enough only while linear predictors vary little: at the start of a logistic fit they leave less than 1e-5 nats in the objective under
    a prior of precision 1, and more than .1 nat under one of precision .01, where predictors vary by twenty."""
)
def nodes_under_wide_priors():
    features = np.random.default_rng(3).normal(size=(40, 4))
    labels, error = (features[:, 0] > 0).astype(int), {}
    for prior in (1.0, 0.01):
        few, many = (fb_gvi_logistic(features, labels, prior_precision=prior, steps=1, nodes=nodes)["objective"][0] for nodes in (64, 256))
        error[prior] = float(abs(few - many))
    return {"holds": error[1.0] < 1e-5 and error[0.01] > 0.1, "error_at_precision_1": error[1.0], "error_at_precision_0.01": error[0.01]}
