"""Training at three or four bits with a helper branch: what gradient norms say about regret, and how the helper is faded out rank by rank."""

import numpy as np

from lawbook.contract import Paper, count, flag, matrix, nonnegative, positive, probability, record, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="QVGen: Pushing the Limit of Quantized Video Generative Models",
    arxiv="2505.11497",
    tags=["quantization", "quantization-aware training", "diffusion", "video", "low rank", "svd", "regret", "training"],
    source="paper",
    says="""Training video diffusion models at three or four bits converges badly while gradients stay large. A full-precision branch that starts as the quantisation error of the
    weights lowers them; it is then removed without a jump by fading its weakest singular directions to nothing, again and again, until none is left.""",
    notes="""The bound is the textbook one of online gradient descent for convex losses: it says nothing about a network, for which smaller gradients are only an indication. The
    cosine of the fading and the rounding of ranks are ours. The little model trains a linear layer through rounding (straight-through gradients) from the full-precision
    optimum, with the helper at full rank; quantisers are symmetric, with one scale for each matrix.""",
)

LENGTHS = vector("T", of=positive(typical=(0.01, 1)), order="nonincreasing", doc="step sizes, non-increasing; of per-coordinate ones the largest, and the smallest at the end")


@paper.bound(
    r"\frac{R(T)}{T} \le \frac{d D^2}{2 T \eta_T} + \frac1T \sum_t \frac{\eta_t}{2} \|g_t\|_2^2",
    assumes=["Losses are convex, steps are projected on a set that is D wide along each coordinate."],
    gives=1.125,
)
def regret_bound(
    dim: count("dimensions", typical=(1, 1000), example=2),
    diameter: positive(typical=(0.1, 10), doc="largest extent of the feasible set along a coordinate", example=1.0),
    learning_rates: vector("T", of=LENGTHS.of, order="nonincreasing", doc=LENGTHS.doc, example=[1.0, 0.5]),
    gradient_norms: vector("T", of=nonnegative(typical=(0, 5)), doc="Euclidean norms", example=[0.5, 0.5 * 2**0.5]),
) -> nonnegative():
    """Mean regret against the best fixed point that projected gradient descent cannot exceed."""
    eta, g = np.asarray(learning_rates, float), np.asarray(gradient_norms, float)
    return float((dim * diameter**2 / (2 * eta[-1]) + np.sum(eta * g**2) / 2) / len(eta))


@paper.law(r"r_{j+1} = \max(1, \lfloor (1 - \lambda) r_j \rfloor)", gives=[32, 16, 8, 4])
def rank_schedule(
    rank: count("ranks", typical=(1, 512), example=32),
    *,
    shrink: probability(above=True, below=True, typical=(0.1, 0.9), doc="share of the ranks that a phase fades out") = 0.5,
    phases: count("phases", high=100_000, typical=(1, 12)) = 3,
) -> vector("phases+1", of=count("ranks")):
    """Rank of the helper before the first phase and after each; a last fade of what is left to 0 follows."""
    ranks = [rank]
    for _ in range(phases):
        ranks.append(max(1, int((1 - shrink) * ranks[-1] + 1e-9)))  # (1 - .9) * 10 is to be 1
    return np.array(ranks)


@paper.law(r"u(\tau) = \tfrac12 (1 + \cos \pi\tau)", closed_form=True, gives=0.5)
def decay_factor(progress: probability(doc="share of the phase that is over", example=0.5)) -> probability():
    """Factor on the fading directions: 1 at the start of a phase, 0 at its end, and level at both."""
    xp, tau = arrays(progress)
    return (1 + xp.cos(np.pi * tau)) / 2


@paper.algorithm(r"U\, \mathrm{diag}(\sigma_1, \ldots, \sigma_k, u \sigma_{k+1}, \ldots)\, V^\top")
def decay_low_rank(
    matrix: matrix("m", "n", example=[[3.0, 0.0], [4.0, 5.0]]),
    keep: count("ranks", low=0, typical=(0, 6), doc="leading directions left as they are; at or above the rank nothing changes", example=1),
    factor: probability(doc="on the other directions", example=0.5),
) -> matrix("m", "n"):
    """The matrix with its weakest singular directions faded by a factor; at 0 it is the best approximation of its rank."""
    a = np.asarray(matrix, float)
    if keep >= min(a.shape):
        return a.copy()
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    return factor * a + (1 - factor) * ((u[:, :keep] * s[:keep]) @ vt[:keep])


def quantised(values, bits):
    """Symmetric rounding to 2^bits - 1 levels, the outermost at the largest magnitude."""
    levels = 2 ** (bits - 1) - 1
    step = np.abs(values).max() / levels or 1.0
    return step * np.round(values / step)


@paper.model(r"Y = Q_b(W) Q_b(X) + W_\Phi Q_b(X),\quad W_\Phi^{(0)} = W - Q_b(W)")
def qat_regression(
    seed: seed(example=0),
    *,
    bits: count("bits", low=2, typical=(2, 8), high=16) = 3,
    helper: flag(doc="whether the branch W_Phi is there") = True,
    steps: count("steps", typical=(1, 200), high=100_000) = 100,
) -> record(loss=vector("steps+1", of=nonnegative()), gradient_norm=vector("steps+1", of=nonnegative(), doc="with respect to W")):
    """Quantisation-aware training of a linear layer of 32 inputs and 16 outputs on Gaussian data, from its full-precision optimum, through a straight-through gradient."""
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(256, 32)), rng.normal(size=(32, 16)) / np.sqrt(32)
    y, inputs = x @ w + 0.1 * rng.normal(size=(256, 16)), quantised(x, bits)
    extra, loss, norm = helper * (w - quantised(w, bits)), np.empty(steps + 1), np.empty(steps + 1)
    rate = 0.2 / np.linalg.norm(inputs, 2) ** 2 * len(x)
    for step in range(steps + 1):
        gap = inputs @ (quantised(w, bits) + extra) - y
        gradient = inputs.T @ gap / len(x)
        loss[step], norm[step] = np.mean(np.sum(gap**2, 1)) / 2, np.linalg.norm(gradient)
        w, extra = w - rate * gradient, extra - helper * rate * gradient
    return {"loss": loss, "gradient_norm": norm}


def gradients_not_squared(dim, diameter, learning_rates, gradient_norms):
    return regret_bound(dim, diameter, learning_rates, np.sqrt(gradient_norms))


def dimension_forgotten(dim, diameter, learning_rates, gradient_norms):
    return regret_bound(1, diameter, learning_rates, gradient_norms)


@paper.trial(
    Inequality(rtol=1e-9, search=150, reaches=0.9),
    of=[regret_bound],
    controls={"gradients not squared": gradients_not_squared, "dimension forgotten": dimension_forgotten},
    quick=80,
    full=4000,
)
def projected_descent(draw, bound):
    """Projected gradient descent on a box against drifting quadratic and linear losses keeps its regret below the bound, also where it comes close: one long way at even speed."""
    dim, rounds, width = draw.integer(1, 20), draw.integer(1, 40), draw.log_uniform(0.5, 5)
    rates = draw.log_uniform(0.02, 2) / np.arange(1, rounds + 1) ** draw.choice([0.0, 0.5, 1.0])
    kind = draw.choice(["quadratic", "linear", "straight"])
    curvature = draw.log_uniform(0.1, 10) if kind == "quadratic" else 0.0
    centres, slopes = draw.rng.normal(size=(rounds, dim)), draw.normal() * draw.rng.normal(size=(rounds, dim))
    if kind == "straight":  # from one corner to the other against a constant slope, arriving in the last round
        rates, slopes = np.full(rounds, rates[0]), np.full((rounds, dim), -width / (rounds * rates[0]))
    x, spent, norms = np.full(dim, -width / 2), 0.0, []
    for t in range(rounds):
        gradient = curvature * (x - centres[t]) + slopes[t]
        spent += curvature / 2 * np.sum((x - centres[t]) ** 2) + slopes[t] @ x
        norms.append(np.linalg.norm(gradient))
        x = np.clip(x - rates[t] * gradient, -width / 2, width / 2)
    pull = slopes.sum(0) - curvature * centres.sum(0)
    best = np.clip(-pull / (curvature * rounds), -width / 2, width / 2) if curvature else -width / 2 * np.sign(pull)
    least = curvature / 2 * np.sum((best - centres) ** 2) + np.sum(slopes @ best)
    return (spent - least) / rounds, bound(dim, width, rates, np.array(norms)), {"dim": dim, "rounds": rounds, "kind": kind}


def strongest_faded(matrix, keep, factor):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    fading = np.arange(len(s)) < len(s) - keep
    return (u * np.where(fading, factor * s, s)) @ vt


def entries_faded(matrix, keep, factor):
    return factor * np.asarray(matrix)


@paper.trial(
    Identity(rtol=1e-9, atol=1e-10),
    of=[decay_low_rank, rank_schedule, decay_factor],
    controls={"the strongest faded": strongest_faded, "everything faded": entries_faded},
    quick=40,
    full=2000,
)
def faded_out(draw, fade):
    """The error is (1-u)^2 times the tail of squared singular values (from the eigenvalues of A'A), the Eckart-Young least at u = 0; a phase is continuous, ranks halve to 1."""
    from scipy.integrate import quad

    m, n, keep, tau = draw.integer(1, 9), draw.integer(1, 9), draw.integer(0, 9), draw.uniform()
    a, u = draw.normal(size=(m, n)), float(decay_factor(tau))
    squares = np.sort(np.linalg.eigvalsh(a.T @ a))[::-1]
    tail = squares[keep:].sum()
    errors = [np.sum((fade(a, keep, factor) - a) ** 2) for factor in (0.0, u, 1.0)]
    rank = draw.integer(1, 300)
    ranks = rank_schedule(rank, shrink=0.5, phases=10)
    fallen = quad(lambda t: np.pi / 2 * np.sin(np.pi * t), 0, tau)[0]  # the slope of u
    halved = [max(rank >> j, 1) for j in range(11)]
    return [*errors, 1 - fallen, *ranks], [tail, (1 - u) ** 2 * tail, 0.0, u, *halved], {"keep": keep, "factor": u}


def helper_left_out(seed, *, bits, helper, steps):
    return qat_regression(seed, bits=bits, helper=False, steps=steps)


def bits_not_used(seed, *, bits, helper, steps):
    return qat_regression(seed, bits=16, helper=helper, steps=steps)


@paper.trial(Guarantee(), of=[qat_regression], controls={"helper left out": helper_left_out, "hardly quantised": bits_not_used}, quick=5, full=200)
def helper_calms_gradients(draw, model):
    """At two and three bits mean gradient norm and mean loss are smaller with the helper than without it, and both larger than at eight bits with it."""
    start, bits = draw.integer(0, 10**6), draw.choice([2, 3])
    with_helper, without, fine = (model(start, bits=b, helper=h, steps=60) for b, h in ((bits, True), (bits, False), (8, True)))
    means = [[run[key].mean() for key in ("gradient_norm", "loss")] for run in (fine, with_helper, without)]
    # by at least a tenth
    return np.ravel([means[0], means[1]]), 0.9 * np.ravel([means[1], means[2]]), {"bits": bits, "with_helper": means[1], "without": means[2]}
