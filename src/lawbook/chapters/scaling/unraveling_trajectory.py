"""The whole loss trajectory of a training run at any size and batch, from constants that small runs give."""

import math
from functools import partial

import numpy as np

from lawbook.chapters.scaling import multi_power_law
from lawbook.contract import DomainError, Paper, choice, count, either, optional, positive, record, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Forecast, Identity, Inequality, Prediction

paper = Paper(
    __name__,
    title="Unraveling the Mystery of Scaling Laws: Part I",
    arxiv="2403.06563",
    tags=["scaling law", "loss trajectory", "critical batch size", "training steps", "pretraining", "kaplan"],
    source="known",
    says="""The original formulas of how loss depends on model size, steps and batch still hold for models of 33B parameters; what changes with tokenizer, data, context and
    schedule are their six constants. Estimated from runs of 1M to 60M parameters, these give the loss that a large model converges to, the steps and tokens to any loss above
    it, the batch beyond which tokens are wasted, and the loss at every step for every batch.""",
    notes="""The formulas are those of Kaplan et al.; the constants su_c4 (C4, context of 1024) are recalled, kaplan are the published ones. The trajectory is an implicit
    equation: the batch's penalty depends on the loss itself, by a power near 5, so that it is very sensitive to the scale of the loss, that is to the tokenizer. The
    right-hand side falls in the loss, hence its root is the only one. Parameters exclude embeddings, batches are in tokens, data do not repeat, and the rate is taken to be
    constant: decay needs another law.""",
)

CONSTANTS = {
    "su_c4": {"alpha_N": 0.076, "alpha_S": 0.67, "alpha_B": 0.205, "N_c": 1.5e14, "S_c": 2.6e3, "B_star": 1.7e8},
    "kaplan": {"alpha_N": 0.077, "alpha_S": 0.76, "alpha_B": 0.21, "N_c": 6.5e13, "S_c": 2.1e3, "B_star": 2.1e8},
}
NAMES = ("alpha_N", "alpha_S", "alpha_B", "N_c", "S_c", "B_star")
SIX = record(
    alpha_N=positive(typical=(0.05, 0.12), fitted=True, doc="exponent of the parameters"),
    alpha_S=positive(typical=(0.4, 1), fitted=True, doc="exponent of the steps"),
    alpha_B=positive(typical=(0.15, 0.4), fitted=True, doc="exponent of the critical batch"),
    N_c=positive("params", typical=(1e12, 1e16), fitted=True),
    S_c=positive("steps", typical=(300, 3e4), fitted=True),
    B_star=positive("tokens", typical=(1e7, 1e10), fitted=True, doc="critical batch at a loss of 1"),
)
LAW = either(choice(*CONSTANTS), SIX, doc="constants by name, or a record of your own")
PARAMS = positive("params", typical=(1e6, 1e11), doc="parameters without embeddings", example=1e9)
BATCH = positive("tokens", typical=(1e4, 1e8), doc="tokens of a step", example=4e6)


def law_of(constants):
    return CONSTANTS[constants] if isinstance(constants, str) else constants


@paper.law(r"L(N, \infty) = (N_c / N)^{\alpha_N}", closed_form=True, gives=2.474)
def converged_loss(params: PARAMS, *, constants: LAW = "su_c4") -> positive("nats"):
    """Loss that a model of this size comes down to after unlimited steps."""
    law = law_of(constants)
    _, n, scale, exponent = arrays(params, law["N_c"], law["alpha_N"])
    return (scale / n) ** exponent


@paper.law(r"B_\text{crit}(L) = B_* L^{-1/\alpha_B}", closed_form=True)
def critical_batch(loss: positive("nats", typical=(1.5, 8), example=2.2), *, constants: LAW = "su_c4") -> positive("tokens"):
    """Batch at which a loss takes twice the fewest steps and twice the fewest tokens; it depends on the loss alone."""
    _, value, scale, exponent = arrays(loss, *(law_of(constants)[name] for name in ("B_star", "alpha_B")))
    return scale * value ** (-1 / exponent)


def excess(converged, log_steps, log_batch, law):
    """L - L(N, inf) = e^u at the root of u = alpha_S (ln S_c/S + ln(1 + B_crit(L)/B)), by Newton's method inside a bracket that shrinks; arrays of one shape."""
    flat = law["alpha_S"] * (math.log(law["S_c"]) - log_steps)  # as with endless batches
    log_penalty = math.log(law["B_star"]) - log_batch
    low, u, high = flat, flat, flat + law["alpha_S"] * np.logaddexp(0, log_penalty - np.log(converged) / law["alpha_B"])
    with np.errstate(over="ignore", invalid="ignore"):  # constants that a fit only passes through
        for _ in range(100):
            loss = converged + np.exp(u)
            z = log_penalty - np.log(loss) / law["alpha_B"]
            off = u - flat - law["alpha_S"] * np.logaddexp(0, z)
            low, high = np.where(off <= 0, u, low), np.where(off >= 0, u, high)
            step = u - off / (1 + law["alpha_S"] / law["alpha_B"] / (1 + np.exp(-z)) * np.exp(u) / loss)
            last, u = u, np.where((step >= low) & (step <= high), step, (low + high) / 2)
            if np.all(np.abs(u - last) <= 1e-14 * (1 + np.abs(u))):
                break
        return np.exp(u)


@paper.law(r"L = \left(\frac{N_c}{N}\right)^{\alpha_N} + \left(\frac{S_c}{S}\left(1 + \frac{B_*}{B L^{1/\alpha_B}}\right)\right)^{\alpha_S}", observes="loss")
def loss_at(
    params: PARAMS,
    steps: vector("n", of=positive("steps", typical=(100, 1e6)), example=np.array([1e4, 1e5, 2e5])),
    batch_tokens: BATCH,
    *,
    constants: LAW = "su_c4",
) -> vector("n", of=positive("nats")):
    """Loss after each number of steps at a given size and batch."""
    law = law_of(constants)
    converged, steps, batch = np.broadcast_arrays(converged_loss(params, constants=law), np.asarray(steps, float), np.asarray(batch_tokens, float))
    return converged + excess(converged, np.log(steps), np.log(batch), law)


@paper.algorithm(
    r"S_\min = S_c (L - L_\infty)^{-1/\alpha_S},\ S = S_\min (1 + B_\text{crit}/B)",
    requires={
        "target_loss must be above the loss that params converge to": lambda target_loss, params, constants: target_loss > float(converged_loss(params, constants=constants)),
    },
    sample=lambda rng: {"params": 10 ** rng.uniform(6, 11), "target_loss": rng.uniform(4.6, 8), "batch_tokens": 10 ** rng.uniform(4, 8)},
)
def steps_to_loss(params: PARAMS, target_loss: positive("nats", typical=(1.5, 8), example=2.7), batch_tokens: BATCH, *, constants: LAW = "su_c4") -> record(
    steps=positive("steps"),
    tokens=positive("tokens"),
    min_steps=positive("steps", doc="with endless batches"),
    min_tokens=positive("tokens", doc="with the smallest batches"),
    critical_batch_tokens=positive("tokens", doc="the recommended batch: twice the fewest steps, twice the fewest tokens"),
):
    """Steps and tokens that a loss takes at a given size and batch."""
    law = law_of(constants)
    gap = target_loss - float(converged_loss(params, constants=law))
    critical = float(critical_batch(target_loss, constants=law))
    log_fewest = math.log(law["S_c"]) - math.log(gap) / law["alpha_S"]
    if log_fewest > 600:
        raise DomainError(f"target_loss must be farther above the loss that params converge to: {target_loss:.17g} is only {gap:.3g} above, and the steps overflow.")
    fewest = math.exp(log_fewest)
    steps = fewest * (1 + critical / batch_tokens)
    return {"steps": steps, "tokens": steps * batch_tokens, "min_steps": fewest, "min_tokens": fewest * critical, "critical_batch_tokens": critical}


def small_runs(rng, *, constants="su_c4", noise=0.01, points=10, sizes=5, batches=6):
    """Synthetic losses along runs of 1M to 60M parameters at several batch sizes."""
    axes = np.geomspace(1e6, 6e7, sizes), np.geomspace(3e4, 3e6, batches), np.geomspace(500, 1e5, points)
    params, batch, steps = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    losses = loss_at(params, steps, batch, constants=constants) * np.exp(noise * rng.normal(size=len(params)))
    return {"params": params, "steps": steps, "batch_tokens": batch, "losses": losses}


EXAMPLE = small_runs(np.random.default_rng(0), points=6)


@paper.algorithm(
    r"\min \sum_i \mathrm{Huber}(\ln L(N_i, S_i, B_i) - \ln L_i)",
    requires={
        "params, steps and batch_tokens must each take at least two values": lambda params, steps, batch_tokens: min(len(np.unique(v)) for v in (params, steps, batch_tokens)) > 1
    },
    sample=lambda rng: small_runs(rng, constants=str(rng.choice([*CONSTANTS])), points=4, sizes=3, batches=4) | {"bootstrap": int(rng.integers(0, 4))},
)
def fit_trajectory(
    params: vector("n", of=positive("params"), least=7, example=EXAMPLE["params"]),
    steps: vector("n", of=positive("steps"), least=7, example=EXAMPLE["steps"]),
    batch_tokens: vector("n", of=positive("tokens"), least=7, example=EXAMPLE["batch_tokens"]),
    losses: vector("n", of=positive("nats"), least=7, example=EXAMPLE["losses"]),
    *,
    bootstrap: count("resamples", low=0, typical=(0, 5), doc="resamples of the points for the intervals; 0 for none") = 0,
    seed: seed() = 0,
) -> record(constants=SIX, ci=optional(record(**dict.fromkeys(NAMES, vector(2))), doc="central 95 % of the resamples")):
    """The six constants from losses along runs of several sizes and batches, all at once; residuals of ln L beyond 1.3 standard deviations count linearly."""
    from scipy.optimize import least_squares

    logs = np.log(np.stack([params, steps, batch_tokens, losses]))
    middle, (x, log_steps, log_batch, target) = logs.mean(1), logs

    def constants(theta):
        """theta: logs of the exponents, and each term's log at the middle of the data, so that scales and exponents do not move together."""
        a, s, b = np.exp(theta[:3])
        with np.errstate(over="ignore"):
            scales = np.exp([theta[3] / a + middle[0], theta[4] / s + middle[1], theta[5] + middle[2] + middle[3] / b])
        return dict(zip(NAMES, map(float, (a, s, b, *scales)), strict=True))

    def residuals(theta, rows):
        law = constants(theta)
        converged = np.exp(theta[3] - law["alpha_N"] * (x[rows] - middle[0]))
        return np.log(converged + excess(converged, log_steps[rows], log_batch[rows], law)) - target[rows]

    def solve(start, rows, scale=None):
        loss = {"loss": "huber", "f_scale": scale} if scale else {}
        return least_squares(residuals, start, args=(rows,), bounds=([-5, -5, -4, -20, -20, -30], [2, 3, 3, 20, 20, 30]), x_scale="jac", ftol=1e-12, xtol=1e-12, **loss)

    everything, rng = np.arange(len(target)), np.random.default_rng(seed)
    starts = [
        [math.log(0.076), math.log(s), math.log(0.21), math.log(losses.min()) + lift, -1.0, b]
        for s, lift, b in ((0.7, 0.0, 0.0), (0.7, -0.3, -2.0), (0.4, -0.3, 1.0), (1.0, 0.2, 0.0))
    ]
    plain = min((solve(start, everything) for start in starts), key=lambda found: found.cost)
    spread = 1.4826 * float(np.median(np.abs(plain.fun)))
    best = solve(plain.x, everything, 1.3 * spread) if spread > 1e-9 else plain  # exact data need no robustness
    found = constants(best.x)
    if not all(0 < value < math.inf for value in found.values()) or np.any(best.active_mask):
        raise DomainError("params, steps, batch_tokens and losses do not determine the six constants: one of them runs off; more sizes, steps or batches are needed.")
    resampled = [constants(solve(best.x, rng.integers(len(target), size=len(target)), 1.3 * max(spread, 1e-9)).x) for _ in range(bootstrap)]
    return {"constants": found, "ci": {name: np.quantile([law[name] for law in resampled], (0.025, 0.975)) for name in NAMES} if bootstrap else None}


def random_law(draw):
    exponents = draw.uniform(0.06, 0.1), draw.uniform(0.5, 0.9), draw.uniform(0.18, 0.3)
    return dict(zip(NAMES, (*exponents, draw.log_uniform(5e13, 5e14), draw.log_uniform(1e3, 5e3), draw.log_uniform(1e8, 5e8)), strict=True))


def critical_where_converged(params, steps, batch_tokens, *, constants):
    """One critical batch for the whole run, that of the converged loss."""
    converged = float(converged_loss(params, constants=constants))
    return converged + (constants["S_c"] * (1 + critical_batch(converged, constants=constants) / batch_tokens) / np.asarray(steps)) ** constants["alpha_S"]


WRONG = {"one critical batch for the run": critical_where_converged, "no penalty of the batch": lambda n, s, b, constants: loss_at(n, s, 1e30, constants=constants)}


@paper.trial(Identity(rtol=1e-8), of=[loss_at, steps_to_loss, converged_loss, critical_batch], controls=WRONG, quick=50, full=2000)
def round_trip(draw, claim):
    """Steps to the loss of a trajectory lead back to its steps; the loss solves its equation in 40 digits; overheads of steps and tokens multiply to 1, at B_crit both are 1."""
    import mpmath as mp

    law, n, b, s = random_law(draw), draw.log_uniform(1e6, 1e11), draw.log_uniform(1e4, 1e8), draw.log_uniform(50, 1e6)
    loss = float(claim(n, np.array([s]), b, constants=law)[0])
    back = steps_to_loss(n, loss, b, constants=law)
    at_critical = steps_to_loss(n, loss, float(critical_batch(loss, constants=law)), constants=law)
    with mp.workdps(40):
        c = {name: mp.mpf(value) for name, value in law.items()}
        converged = mp.exp(c["alpha_N"] * (mp.log(c["N_c"]) - mp.log(n)))

        def missing(value):
            return converged + (c["S_c"] * (1 + c["B_star"] / (b * value ** (1 / c["alpha_B"]))) / s) ** c["alpha_S"] - value

        exact = float(mp.findroot(missing, (converged, loss + 1), solver="anderson", tol=1e-25))
    overheads = (back["steps"] / back["min_steps"] - 1) * (back["tokens"] / back["min_tokens"] - 1)
    found = [loss, back["steps"], overheads, at_critical["steps"], at_critical["tokens"], converged_loss(n, constants=law)]
    return found, [exact, s, 1.0, 2 * back["min_steps"], 2 * back["min_tokens"], float(converged)], {"params": n, "batch_tokens": b, "steps": s, **law}


INVERSE = {"penalty of the inverse batch": lambda n, s, b, constants: loss_at(n, s, 1e12 / b, constants=constants)}


@paper.trial(Inequality(), of=[loss_at, converged_loss], controls=INVERSE, quick=60, full=3000)
def falls(draw, claim):
    """The loss falls with size, steps and batch, and stays above the loss the size converges to."""
    law, n, b, s = random_law(draw), draw.log_uniform(1e6, 1e11), draw.log_uniform(1e4, 1e8), draw.log_uniform(50, 1e6)
    loss = claim(n, np.array([s, 1.01 * s]), b, constants=law)
    larger, wider = claim(1.01 * n, np.array([s]), b, constants=law)[0], claim(n, np.array([s]), 1.01 * b, constants=law)[0]
    return [loss[1], larger, wider, converged_loss(n, constants=law)], [loss[0], loss[0], loss[0], loss[1]], {"params": n, "batch_tokens": b, "steps": s, **law}


def fitted(runs):
    return partial(loss_at, constants=fit_trajectory(**runs)["constants"])


def explicit(runs, penalised=True):
    """The law with one critical batch for all losses (or none), by least squares in logarithms."""
    from scipy.optimize import least_squares

    def law(theta, params, steps, batch):
        penalty = np.logaddexp(0, theta[4] - np.log(batch)) if penalised else 0.0
        return np.exp(theta[1] - np.exp(theta[0]) * np.log(params / 1e7)) + np.exp(np.exp(theta[2]) * (theta[3] - np.log(steps) + penalty))

    data = runs["params"], runs["steps"], runs["batch_tokens"]
    with np.errstate(over="ignore"):  # of steps that the solver takes back
        best = least_squares(lambda theta: np.log(law(theta, *data) / runs["losses"]), [-2.6, 1.2, -0.4, 8.0, 12.0], x_scale="jac")
    return lambda *where: law(best.x, *where)


without_batch = partial(explicit, penalised=False)


@paper.trial(
    Prediction("the additive law without batches, fitted on the same runs", at_most=0.02, metric="largest", relative=True),
    of=[fit_trajectory, loss_at],
    claim=fitted,
    controls={"one critical batch": explicit, "no penalty of the batch": without_batch},
    quick=6,
    full=50,
)
def from_small_to_large(draw, claim):
    """From runs of 1M to 60M parameters with one percent of noise, the trajectories of a 33B model at three batches come out within 2 % at every step."""
    law = random_law(draw)
    runs = small_runs(draw.rng, constants=law)
    batch, steps = (axis.ravel() for axis in np.meshgrid([3e5, 1e6, 4e6], np.geomspace(3e3, 3e5, 20)))
    observed = loss_at(3.3e10, steps, batch, constants=law)
    return Forecast(observed, *(forecast(3.3e10, steps, batch) for forecast in (claim(runs), without_batch(runs))))


@paper.finding(
    """On real constant-rate curves, fitted up to step 24,000 and read off to 72,000, the step part errs by .51 and .38 % (25M and 100M parameters; R^2 of .47 and .78), the
    multi-power law by .04 and .20 %. Most of the gap is the warm-up: with steps counted from its middle, as summed rates do, the same form errs by .16 and .14 % (.95 and .97).""",
    trial=from_small_to_large,
    data="loss-curves",
)
def constant_rate_extrapolation(data):
    from scipy.optimize import least_squares

    def curve(theta, steps):
        """One size and endless batches: the floor is the loss of a single parameter."""
        floor, scale, exponent = np.exp(theta)
        return loss_at(1.0, steps, 1e30, constants={"alpha_N": 1.0, "N_c": floor, "S_c": scale, "alpha_S": exponent, "alpha_B": 0.2, "B_star": 1.0})

    numbers = {}
    for (size, curves), told in zip(sorted(data.items(), reverse=True), ((0.47, 0.95), (0.78, 0.97)), strict=True):
        short, long = curves["constant_24000"], curves["constant_72000"]
        steps, observed = long["steps"][long["steps"] > 24000], long["losses"][long["steps"] > 24000]
        forecasts = {"multi_power": multi_power_law.loss_curve(multi_power_law.named_schedule("constant_72000"), steps, **multi_power_law.PUBLISHED[size])}
        for name, offset in (("steps", 0), ("steps_from_half_warmup", 1080)):
            robust = {"args": (short["steps"] - offset, short["losses"]), "x_scale": "jac", "loss": "huber", "f_scale": 1e-3}
            runs = [least_squares(lambda theta, at, seen: np.log(curve(theta, at) / seen), start, **robust) for start in ([1.0, 6.0, -0.7], [1.1, 7.0, -0.5], [1.1, 6.0, -0.2])]
            forecasts[name] = curve(min(runs, key=lambda run: run.cost).x, steps - offset)
        for name, predicted in forecasts.items():
            metrics = multi_power_law.curve_metrics(observed, predicted)
            numbers |= {f"{name}_r2_{size}": metrics["r2"], f"{name}_error_{size}": metrics["prede"]}
        numbers["off"] = max(numbers.get("off", 0.0), abs(numbers[f"steps_r2_{size}"] - told[0]), abs(numbers[f"steps_from_half_warmup_r2_{size}"] - told[1]))
    return {"holds": numbers["off"] < 0.02, **numbers}
