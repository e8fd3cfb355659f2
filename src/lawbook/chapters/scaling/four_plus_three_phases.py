"""One-pass SGD on power-law random features: which parts of the loss meet at the best model size, and the exponents of compute that follow."""

import math
from itertools import pairwise

import numpy as np

from lawbook.contract import Paper, choice, count, nonnegative, optional, positive, probability, record, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Estimate, Identity

paper = Paper(
    __name__,
    title="4+3 Phases of Compute-Optimal Neural Scaling Laws",
    arxiv="2405.15074",
    tags=["scaling law", "compute optimal", "random features", "sgd", "one pass", "phase diagram", "kernel spectrum", "power law"],
    source="derived",
    says="""The loss of one-pass SGD on random features of power-law data has four parts: the floor of a finite model, gradient descent on the features that it has, the
    distortion of the rest by the embedding, and the noise of SGD. At the best model size for a budget two of them balance, and which two depends on the decay of data and target
    alone. Four phases and three subphases result, each with its own exponents for the best loss and the best size.""",
    notes="""Constants of the components are set to 1, so that exponents are meant and not values. On the lines between phases powers acquire logarithms. The simulation is
    exact in expectation for Gaussian data and given features: errors in the eigenbasis of the features follow a linear recursion, which is solved by one eigendecomposition
    for any number of steps.""",
)

NAMES = ("Ia", "Ib", "Ic", "II", "III", "IVa", "IVb", "boundary", "none")
FLAT = 1 - 1 / math.sqrt(2)  # alpha between IVb and IVa
ALPHA = positive(typical=(0.1, 1.5), example=1.0, doc="standard deviations of the data are j^-alpha")
BETA = positive(typical=(0.1, 1.5), example=0.7, doc="coefficients of the target are j^-beta")
LEARNABLE = {"alpha, beta must add up to more than 1/2: the loss is infinite otherwise": lambda alpha, beta: alpha + beta > 0.5}


@paper.law(
    r"P(f) \asymp f^{-\eta},\ d^* \asymp f^{\xi}:\ \eta, \xi \text{ by phase}",
    assumes=["Batches of one, a constant learning rate of order 1 (2 alpha > 1) or d^(2 alpha - 1), f = steps times size."],
    gives={"loss_exponent": 0.70588, "size_exponent": 0.41176},
)
def phase(alpha: ALPHA, beta: BETA) -> record(
    name=choice(*NAMES, doc="boundary: on a line between phases; none: the loss is infinite"),
    loss_exponent=optional(positive()),
    size_exponent=optional(probability()),
    balance=optional(choice("F_pp=F0", "F_pp=F_ac", "F_ac=K", "K=F0", "F_pp=K"), doc="the two parts of the loss that meet at the best size"),
):
    """The phase of data and target decay, its exponents of compute for the best loss and size, and what balances there."""
    a, b = alpha, beta
    lines = [2 * a - 1, 2 * b - 1] + ([a - b] if min(a, b) > 0.5 else []) + ([a - 0.25, a - FLAT] if b > 0.5 else [])
    if a + b <= 0.5 or min(map(abs, lines)) < 1e-12:
        return {"name": "none" if a + b <= 0.5 else "boundary", "loss_exponent": None, "size_exponent": None, "balance": None}
    s = 2 * a + 2 * b - 1
    q, p = 6 * a + 4 * b - 4 * a * b - 2, 2 * b - 2 * a * b - a
    if 2 * b < 1:
        name, eta, xi, balance = ("Ia", s / (2 * a + 1), 1 / (2 * a + 1), "F_pp=F0") if 2 * a > 1 else ("Ib", s / 2, 0.5, "F_pp=F0")
    elif 2 * a > 1:
        name, eta, xi, balance = ("II", s / (2 * (a + b)), b / (a + b), "F_pp=F_ac") if b < a else ("III", (4 * a - 1) / (4 * a), 0.5, "F_ac=K")
    elif a > FLAT:
        name, eta, xi, balance = "IVa", a, 0.5, "K=F0"
    elif a > 0.25:
        name, eta, xi, balance = "IVb", (1 - 2 * a) * s / (2 * p), (b - a) / p, "F_pp=K"
    else:
        name, eta, xi, balance = "Ic", 2 * a * s / q, s / q, "F_pp=F0"
    return {"name": name, "loss_exponent": eta, "size_exponent": xi, "balance": balance}


@paper.law(
    r"F_0 = d^{-2\alpha+(1-2\beta)_+},\ F_{pp} = (\gamma r)^{-(2\alpha+2\beta-1)/2\alpha},\ F_{ac} = d^{-1}(\gamma r)^{-1+1/2\alpha},\ K = \gamma(\gamma r)^{-2+1/2\alpha}",
    assumes=["Constants are 1: exponents are meant, not values."],
    requires=LEARNABLE,
    closed_form=True,
)
def loss_components(
    steps: vector("steps", of=positive("steps", typical=(1, 1e6)), example=[1.0, 100.0, 10000.0]),
    size: positive("features", low=1, above=False, typical=(1, 1e5), example=1000.0),
    alpha: ALPHA,
    beta: BETA,
    *,
    step_size: positive(typical=(0.01, 1)) = 1.0,
) -> record(
    F0=vector("steps", of=positive(doc="floor of the finite model")),
    F_pp=vector("steps", of=positive(doc="gradient descent on the features")),
    F_ac=vector("steps", of=nonnegative(doc="distortion by the embedding; 0 unless 2 alpha > 1 and 2 beta > 1")),
    K=vector("steps", of=nonnegative(doc="noise of SGD; 0 unless alpha > 1/4")),
    total=vector("steps", of=positive()),
):
    """The four parts of the loss after each number of steps, and their sum, up to constants."""
    xp, r, d, a, b, gamma = arrays(steps, size, alpha, beta, step_size)
    t = gamma * r
    floor = d ** (-2 * a + xp.maximum(1 - 2 * b, 0 * b)) + 0 * t
    descent = t ** (-(2 * a + 2 * b - 1) / (2 * a))
    distortion = xp.where((2 * a > 1) & (2 * b > 1), t ** (1 / (2 * a) - 1) / d, 0 * t)
    noise = xp.where(a > 0.25, gamma * t ** (1 / (2 * a) - 2), 0 * t)
    return {"F0": floor, "F_ac": distortion, "F_pp": descent, "K": noise, "total": floor + descent + distortion + noise}


@paper.algorithm(r"\min_d P(f/d, d),\quad \gamma = d^{-(1-2\alpha)_+}", requires=LEARNABLE)
def compute_optimal_size(flops: positive("FLOP", low=2, typical=(1e4, 1e30), example=1e12, doc="steps times size"), alpha: ALPHA, beta: BETA) -> record(
    size=positive("features"), steps=positive("steps"), loss=positive()
):
    """Size and steps that minimise the sum of the four parts for a budget, at the learning rate of the phase."""
    from scipy.optimize import minimize_scalar

    def loss(log_size):
        d = np.exp(log_size)
        with np.errstate(over="ignore"):  # few steps at a small rate
            return loss_components(flops / d, d, alpha, beta, step_size=d ** -max(1 - 2 * alpha, 0))["total"]

    grid = np.linspace(0, math.log(flops), 300)
    values = loss(grid)
    best = int(np.argmin(values))
    found = minimize_scalar(loss, bounds=(grid[max(best - 1, 0)], grid[min(best + 1, 299)]), method="bounded", options={"xatol": 1e-9})
    x, value = (found.x, found.fun) if found.fun < values[best] else (grid[best], values[best])
    return {"size": math.exp(x), "steps": flops / math.exp(x), "loss": float(value)}


def features(alpha, beta, size, ambient, seed):
    """(W, standard deviations of the data, coefficients of the target)."""
    j = np.arange(1.0, ambient + 1)
    # drawn by feature, so that a larger model of the same seed has those of a smaller one among its own
    return np.random.default_rng(seed).normal(size=(size, ambient)).T / math.sqrt(size), j**-alpha, j**-beta


@paper.model(
    r"\rho_j \leftarrow \rho_j (1 - 2\gamma\mu_j + (1 + 1/B)\gamma^2\mu_j^2) + \gamma^2 \mu_j P / B,\quad P = P_\infty + \sum_j \mu_j \rho_j",
    assumes=["Gaussian data; the mean over data and batches, for one draw of the features; a start at zero."],
    requires={"size, ambient must multiply to at most 2e8": lambda size, ambient: size * ambient <= 2e8},
)
def sgd_loss(
    alpha: ALPHA,
    beta: BETA,
    size: count("features", typical=(2, 60), high=5000, example=50),
    ambient: count("dimensions", typical=(20, 400), example=500, doc="dimensions of the data; many times the size where 2 alpha > 1"),
    steps: count("steps", typical=(10, 1_000_000), high=10**12, example=100_000),
    *,
    step_fraction: positive(high=2 / 3, below=True, typical=(0.1, 0.6), doc="learning rate in units of 1/tr K; below 2/3 every spectrum converges") = 0.5,
    batch_size: count("samples", typical=(1, 64)) = 1,
    seed: seed() = 0,
) -> record(steps=vector("points", of=count("steps", low=0)), loss=vector("points", of=nonnegative()), floor=nonnegative(doc="loss of the best predictor from these features")):
    """Expected loss of SGD at logarithmically spaced steps, exactly, and the floor of the features."""
    W, deviation, target = features(alpha, beta, size, ambient, seed)
    scaled = deviation[:, None] * W
    mu, axes = np.linalg.eigh(scaled.T @ scaled)
    seen = mu > 1e-14 * mu[-1]
    mu, covariance = mu[seen], axes[:, seen].T @ (scaled.T @ (deviation * target))
    best = covariance / mu
    floor = max(float(((deviation * target) ** 2).sum() - covariance @ best), 0.0)
    gamma = step_fraction / mu.sum()
    # the recursion for rho is rho - G rho + source, with a symmetric G of eigenvalues between 0 and 1
    decay, modes = np.linalg.eigh(np.diag(2 * gamma * mu - (1 + 1 / batch_size) * (gamma * mu) ** 2) - gamma**2 / batch_size * np.outer(mu, mu))
    decay = np.maximum(decay, 1e-300)
    start, source, seen_as = modes.T @ best**2, modes.T @ (gamma**2 * floor / batch_size * mu), modes.T @ mu
    times = np.unique(np.concatenate([[0], np.round(np.geomspace(1, steps, 80))])).astype(np.int64)
    gone = -np.expm1(times[:, None] * np.log1p(-decay))  # 1 - (1 - decay)^t
    return {"steps": times, "loss": floor + np.maximum(((1 - gone) * start + gone / decay * source) @ seen_as, 0.0), "floor": floor}


def chinchilla(alpha, beta):
    """Size and steps grow alike, whatever the phase."""
    return phase(alpha, beta) | {"size_exponent": 0.5}


def apart(draw):
    """alpha and beta at least .08 from every line between phases."""
    while True:
        a, b = draw.uniform(0.1, 1.5), draw.uniform(0.1, 1.5)
        lines = [a - 0.5, b - 0.5, (a + b - 0.5) / math.sqrt(2), (a - b) / math.sqrt(2) if min(a, b) > 0.5 else 1, *((a - 0.25, a - FLAT) if b > 0.5 else ())]
        if a + b > 0.5 and min(map(abs, lines)) > 0.08:
            return a, b


@paper.trial(Identity(rtol=0.03), of=[phase, compute_optimal_size, loss_components], controls={"size exponent 1/2 everywhere": chinchilla}, quick=12, full=200)
def exponents_by_minimisation(draw, claim):
    """The best loss and size at budgets from 1e25 to 1e40, found by minimisation, have the exponents of the table; the narrow phase IVb is visited too."""
    pairs = [apart(draw), (0.27, draw.choice([0.8, 1.5]))]
    budgets = np.geomspace(1e25, 1e40, 8)
    slopes, told = [], []
    for a, b in pairs:
        plans = [compute_optimal_size(f, a, b) for f in budgets]
        slopes += [np.polyfit(np.log(budgets), np.log([plan[name] for plan in plans]), 1)[0] for name in ("loss", "size")]
        told += [-claim(a, b)["loss_exponent"], claim(a, b)["size_exponent"]]
    return slopes, told, {"alpha": pairs[0][0], "beta": pairs[0][1], "phase": phase(*pairs[0])["name"]}


def second_beyond_diagonal(alpha, beta):
    """The formulas of phase II in phase III too."""
    s = alpha + beta
    return phase(alpha, beta) | ({"loss_exponent": (2 * s - 1) / (2 * s), "size_exponent": beta / s} if alpha > 0.5 and beta > alpha else {})


@paper.trial(Identity(rtol=1e-5), of=[phase], controls={"phase II beyond the diagonal": second_beyond_diagonal}, quick=20, full=1000)
def continuous(draw, claim):
    """Both exponents agree on the two sides of every line between phases, except that of the size between IVa and IVb."""
    x, small, large = draw.uniform(0.05, 1), draw.uniform(0.01, 0.24), draw.uniform(0.51, 2)
    lines = [(large, 0.5, 0, 1), (large, large, 0, 1), (0.5, large, 1, 0), (0.5, 0.5 * x, 1, 0), (0.25, large, 1, 0), (small, 0.5, 0, 1), (FLAT, large, 1, 0)]
    sides = [[claim(a + side * i, b + side * j) for a, b, i, j in lines] for side in (-1e-8, 1e-8)]
    left, right = ([told["loss_exponent"] for told in side] + [told["size_exponent"] for told in side[:-1]] for side in sides)
    return left, right, {"large": large, "small": small}


def without_noise(*arguments, batch_size, **options):
    return sgd_loss(*arguments, batch_size=10**6, **options)


@paper.trial(Identity(), of=[sgd_loss], controls={"full batches": without_noise}, quick=1, full=5)
def simulated(draw, claim, effort):
    """The mean loss of SGD runs on Gaussian data is the recursion's at every step."""
    a, b, batch, s = draw.uniform(0.7, 1.2), draw.uniform(0.4, 1), draw.choice([1, 2]), draw.integer(0, 10**6)
    told = claim(a, b, 20, 200, 60, batch_size=batch, seed=s)
    W, deviation, target = features(a, b, 20, 200, s)
    gamma, weights, seen = 0.5 / ((deviation[:, None] * W) ** 2).sum(), np.zeros((500 if effort == "quick" else 4000, 20)), []
    for step in range(61):
        if step in told["steps"]:
            seen.append((((weights @ W.T - target) * deviation) ** 2).sum(1))
        x = draw.rng.normal(size=(len(weights), batch, 200)) * deviation
        projected = x @ W
        residual = (projected @ weights[:, :, None])[:, :, 0] - x @ target
        weights = weights - gamma * (residual[:, :, None] * projected).mean(1)
    kept = np.unique(np.linspace(1, len(seen) - 1, 12).astype(int))  # neighbouring steps tell the same
    return Estimate.of(np.array(seen)[kept], axis=1), told["loss"][kept], {"alpha": a, "beta": b, "batch": batch}


def frontier(alpha, beta, sizes, seeds):
    """(exponent of loss, exponent of size) of simulated runs, along the budgets at which one size overtakes the next smaller."""
    budgets = np.geomspace(1e2, 1e9, 3000)
    curves = []
    for d in sizes:
        runs = [sgd_loss(alpha, beta, d, 10 * max(sizes), 10**7, seed=s) for s in seeds]
        curves.append(np.interp(np.log(budgets), np.log(d * runs[0]["steps"][1:]), np.log(np.mean([run["loss"] for run in runs], 0)[1:])))
    crossings = [np.flatnonzero(small < large)[-1] for small, large in pairwise(curves)]
    logs = np.log(budgets[crossings])
    losses, middles = [curve[i] for curve, i in zip(curves, crossings, strict=False)], np.log(sizes[:-1]) + np.log(np.divide(sizes[1:], sizes[:-1])) / 2
    return -np.polyfit(logs, losses, 1)[0], np.polyfit(logs, middles, 1)[0]


@paper.trial(Identity(atol=0.08), of=[phase, sgd_loss], controls={"size exponent 1/2 everywhere": chinchilla}, quick=1, full=5)
def simulated_frontier(draw, claim):
    """Simulated runs of 25 to 400 features in phases Ia and II overtake one another at budgets that give the exponents of the table."""
    a, b = draw.choice([(1.0, 0.3), (1.2, 0.6)])
    seeds = [draw.integer(0, 10**6) for _ in range(8)]
    told = claim(a, b)
    return frontier(a, b, (25, 50, 100, 200, 400), seeds), [told["loss_exponent"], told["size_exponent"]], {"alpha": a, "beta": b, "seeds": seeds}


@paper.finding(
    """Between phases IVa and IVb the best size jumps while the best loss does not: on the line alpha = 1 - 1/sqrt(2) a whole range of sizes is equally good, and a little to
    either side the size exponent is 1/2 or, for beta = 1.5, above .6.""",
    trial=continuous,
)
def best_size_jumps():
    budgets = np.geomspace(1e30, 1e60, 4)
    plans = {alpha: [compute_optimal_size(f, alpha, 1.5) for f in budgets] for alpha in (0.27, 0.32)}
    size, loss = ({alpha: abs(float(np.polyfit(np.log(budgets), np.log([p[name] for p in told]), 1)[0])) for alpha, told in plans.items()} for name in ("size", "loss"))
    holds = abs(size[0.32] - 0.5) < 0.02 and size[0.27] > 0.55 and all(abs(loss[alpha] - phase(alpha, 1.5)["loss_exponent"]) < 0.02 for alpha in loss)
    return {"holds": holds, **{f"size_at_{alpha}": value for alpha, value in size.items()}, **{f"loss_at_{alpha}": value for alpha, value in loss.items()}}
