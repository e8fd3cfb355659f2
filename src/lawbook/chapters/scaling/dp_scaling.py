"""Private training: from privacy, data and compute budgets to the noise-batch ratio, and from it to loss and to the best model, batch and steps."""

import math
from functools import cache

import numpy as np

from lawbook.contract import DomainError, Paper, array, choice, count, either, nonnegative, optional, positive, real, record, vector
from lawbook.numerics import arrays, logsumexp
from lawbook.trials import Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="Scaling Laws for Differentially Private Language Models",
    arxiv="2501.18914",
    tags=["differential privacy", "DP-SGD", "privacy accounting", "scaling law", "compute optimal", "batch size"],
    source="paper",
    says="""What private training does to a language model is settled by one number, the noise-batch ratio: the standard deviation of the privacy noise in the mean gradient of
    a batch, in units of the clipping norm. Losses are measured, or fitted, over model size, steps and this ratio; only afterwards does accounting turn a privacy budget, a
    number of people and a compute budget into a ratio. The best private models come out much smaller, and their batches much larger, than without privacy.""",
    notes="""Only exponents are published; E, A, B and C have to be fitted to one's own runs, which the law does best above 1e5 steps, for ratios above 5e-7 and losses below
    8. The exponent 12.87 of the power form is no property of data: it switches their term off. Accounting is by Renyi divergences of the Poisson-subsampled Gaussian at orders
    2 to 256, which is safe: privacy loss distributions would allow up to a few percent less noise. A table is not extrapolated, except in steps. A plan spends the whole
    compute; past the point where privacy and data are exhausted a smaller budget can reach a lower loss.""",
)

LAW_EXAMPLE = {"E": 1.5, "A": 2000.0, "B": 12.0, "C": 1.5}
ORDERS = np.arange(2, 257)
PUBLISHED = {"power": (0.71, 12.87, 0.19, 0.0), "sigmoid": (0.47, 0.12, 0.95, -0.07)}  # alpha, beta, gamma, alpha2
EPSILON = positive(typical=(0.5, 20), doc="privacy budget", example=5.6543)
DELTA = positive(high=0.5, typical=(1e-10, 1e-4), doc="privacy budget", example=1e-5)
SAMPLES = count("examples", typical=(10**5, 10**9), doc="people, each with one example", example=10**6)
FORM = choice("sigmoid", "power", doc="how noise acts: through a sigmoid of its logarithm and the model's size, or as a plain power (poor at high noise)")


@cache
def log_sums():
    """Compiled: ln sum_k exp(weights[a, k] + lift[k]) for each order a, over k = 2..a."""
    from lawbook.numerics.kernels import compiled

    def rows(weights, lift):
        out = np.empty(len(weights))
        for i in range(len(weights)):
            terms = weights[i, : i + 1] + lift[: i + 1]
            top = terms.max()
            out[i] = top + math.log(np.exp(terms[terms > top - 40] - top).sum())
        return out

    return compiled(rows)


@paper.algorithm(
    r"\bar\sigma = \sigma / B,\ \min \sigma:\ \min_a \left[T \rho_a(\sigma) + \ln\frac{a-1}{a} - \frac{\ln\delta + \ln a}{a-1}\right] \le \epsilon",
    assumes=["Batches are Poisson samples of the examples, gradients are clipped to norm 1."],
    requires={"batch_size must be at most samples": lambda batch_size, samples: batch_size <= samples},
    gives={"noise_multiplier": 1.1},
)
def noise_batch_ratio(
    epsilon: EPSILON,
    delta: DELTA,
    samples: SAMPLES,
    batch_size: count("examples", typical=(64, 10**5), example=10_000),
    steps: count("steps", typical=(100, 10**5), example=10_000),
) -> record(noise_multiplier=positive(doc="on the sum of the clipped gradients"), ratio=positive(), epsilon_achieved=positive()):
    """The least noise that keeps a training run within its privacy budget, as multiplier and as noise-batch ratio; never above the budget."""
    from scipy.optimize import brentq
    from scipy.special import gammaln, xlog1py

    a, k, rate = ORDERS[:, None], ORDERS, batch_size / samples
    rest = np.maximum(a - k, 0)
    weights = gammaln(a + 1) - gammaln(k + 1) - gammaln(rest + 1) + xlog1py(rest, -rate) + k * math.log(rate)
    offset = np.log1p(-1 / ORDERS) - (math.log(delta) + np.log(ORDERS)) / (ORDERS - 1)

    @cache
    def spent(log_noise):
        lift = k * (k - 1) / 2 * math.exp(-2 * log_noise)
        # the binomial weights sum to 1, so what exceeds 1 can be summed by itself and keeps its digits
        divergence = np.logaddexp(0, log_sums()(weights, lift + np.log(-np.expm1(-lift)))) / (ORDERS - 1)
        return float(np.min(steps * divergence + offset))

    low, high = math.log(0.05), math.log(1e5)
    if spent(high) > epsilon:
        least = f"{spent(high):.4g}, which Renyi orders up to 256 certify at delta = {delta:.3g} and a noise multiplier of 1e5"
        raise DomainError(f"epsilon must be above {least}; it was {epsilon:.6g}.")
    found = low if spent(low) <= epsilon else brentq(lambda u: math.log(max(spent(u), 1e-300) / epsilon), low, high, xtol=1e-9)
    while spent(found) > epsilon:
        found += 1e-9
    noise = math.exp(found)
    return {"noise_multiplier": noise, "ratio": noise / batch_size, "epsilon_achieved": spent(found)}


@paper.law(
    r"L = E + A M^{-\alpha} + B n^{-\beta} + C\, s(\bar\sigma)^\gamma M^{-\alpha_2},\quad s(\bar\sigma) = \frac{1}{1 + e^{-(\ln\bar\sigma + 8)/1.6}}",
    requires={"alpha2 belongs to the sigmoid form": lambda alpha2, form: alpha2 is None or form == "sigmoid"},
    observes="loss",
    closed_form=True,
)
def dp_loss(
    params: positive("params", typical=(1e6, 1e10), example=1e8),
    samples_processed: positive("examples", typical=(1e6, 1e11), doc="n: batch times steps", example=1e9),
    ratio: nonnegative(typical=(1e-7, 1e-2), scale="log", doc="noise-batch ratio; 0 without privacy", example=1e-5),
    *,
    E: positive("nats", typical=(0.5, 4), fitted=True, doc="not published: fit to your runs", example=1.5),
    A: positive(typical=(10, 1e5), fitted=True, doc="not published: fit to your runs", example=2000.0),
    B: positive(typical=(1, 1e3), fitted=True, doc="not published: fit to your runs", example=12.0),
    C: positive(typical=(0.1, 100), fitted=True, doc="not published: fit to your runs", example=1.5),
    alpha: positive(typical=(0.2, 0.8), fitted=True, doc="none: the published exponent of the form") = None,
    beta: positive(typical=(0.05, 0.5), fitted=True, doc="none: the published exponent of the form") = None,
    gamma: positive(typical=(0.2, 1.5), fitted=True, doc="none: the published exponent of the form") = None,
    alpha2: real(typical=(-0.2, 0.2), fitted=True, doc="none: the published exponent of the form") = None,
    form: FORM = "sigmoid",
) -> positive("nats"):
    """Loss of a privately trained model; negative alpha2 says that noise hurts larger models more."""
    exponents = (own if own is not None else default for own, default in zip((alpha, beta, gamma, alpha2), PUBLISHED[form], strict=True))
    xp, m, n, r, e, a, b, c, alpha, beta, gamma, alpha2 = arrays(params, samples_processed, ratio, E, A, B, C, *exponents)
    noisy = r > 0
    log_ratio = xp.log(xp.where(noisy, r, xp.ones_like(r)))
    log_noise = log_ratio if form == "power" else -xp.log1p(xp.exp(-(log_ratio + 8) / 1.6))
    noise = xp.where(noisy, xp.exp(gamma * log_noise), xp.zeros_like(log_noise))
    return e + a * m**-alpha + b * n**-beta + c * noise * m**-alpha2


SURFACE = record(
    ln_params=vector("m", order="increasing"),
    ln_steps=vector("t", order="increasing"),
    ln_ratios=vector("r", of=real(infinite=True, doc="-inf: no noise"), order="increasing", least=2),
    losses=array("m", "t", "r", of=positive("nats")),
)


def grid_of_runs(rng, *, sizes=6, steps=60, ratios=12, noise=0.01):
    """Synthetic losses on a grid in the manner of the paper, from a law of the sigmoid form, with noise."""
    m, t, r = np.geomspace(4.5e6, 7.8e8, sizes), np.geomspace(500, 128_000, steps), np.append(0.0, np.geomspace(2.0**-23, 2.0**-6, ratios - 1))
    losses = dp_loss(m[:, None, None], 1024 * t[:, None], r, **LAW_EXAMPLE)
    return {"params": m, "steps": t, "ratios": r, "losses": losses * np.exp(noise * rng.normal(size=losses.shape))}


EXAMPLE = grid_of_runs(np.random.default_rng(0), sizes=3, steps=20, ratios=5)


@paper.algorithm(
    r"\text{rolling mean in } T,\ \text{isotonic in } T \downarrow \text{ and } \bar\sigma \uparrow,\ E + A T^{-\alpha} \text{ beyond}",
    sample=lambda rng: grid_of_runs(rng, sizes=2, steps=int(rng.integers(1, 12)), ratios=3),
)
def fit_dp_grid(
    params: vector("m", of=positive("params"), order="increasing", example=EXAMPLE["params"]),
    steps: vector("t", of=positive("steps"), order="increasing", example=EXAMPLE["steps"]),
    ratios: vector("r", of=nonnegative(), order="increasing", least=2, example=EXAMPLE["ratios"]),
    losses: array("m", "t", "r", of=positive("nats"), example=EXAMPLE["losses"]),
) -> SURFACE:
    """A smooth, monotone table of losses from a measured one, extended ten doublings of the steps beyond its end by a power law of the last three."""
    from scipy.ndimage import uniform_filter1d
    from scipy.optimize import isotonic_regression

    smooth = uniform_filter1d(losses, 10, axis=1, mode="nearest") if len(steps) > 1 else losses
    smooth = np.apply_along_axis(lambda column: isotonic_regression(column, increasing=False).x, 1, smooth)
    beyond = np.zeros((len(params), 0, len(ratios)))
    late = steps >= steps[-1] / 8.001
    if late.sum() >= 4:
        more = steps[-1] * 2.0 ** np.arange(1, 11)
        exponents = np.linspace(0.02, 1.5, 149)
        x = (steps[late] / steps[-1]) ** -exponents[:, None]
        part = smooth[:, late].swapaxes(1, 2)[..., None, :]  # [m, r, exponents, steps]
        centred, flat = x - x.mean(1, keepdims=True), part - part.mean(-1, keepdims=True)
        slope = np.clip((centred * flat).sum(-1) / (centred**2).sum(-1), 0, part[..., 0, -1, None])  # the floor stays above 0
        best = ((flat - slope[..., None] * centred) ** 2).sum(-1).argmin(-1)
        drop = np.take_along_axis(slope, best[..., None], -1) * (1 - (more / steps[-1]) ** -exponents[best][..., None])
        beyond = np.maximum(smooth[:, -1, :, None] - drop, 1e-3).swapaxes(1, 2)
        steps = np.append(steps, more)
    monotone = np.apply_along_axis(lambda row: isotonic_regression(row).x, 2, np.concatenate([smooth, beyond], 1))
    with np.errstate(divide="ignore"):
        return {"ln_params": np.log(params), "ln_steps": np.log(steps), "ln_ratios": np.log(ratios), "losses": monotone}


def reader(surface):
    """A fitted table as a function of a plan, linear in logarithms (in the ratio below its least one); infinite outside, but more steps or less noise count as its end."""
    from scipy.interpolate import RegularGridInterpolator

    axes = [np.array(surface[name]) for name in ("ln_params", "ln_steps", "ln_ratios")]
    least = axes[2][np.isfinite(axes[2])][0]
    axes[2] = np.maximum(axes[2], least - 1)
    table, low, high = RegularGridInterpolator(axes, surface["losses"]), *np.array([[axis[0], axis[-1]] for axis in axes]).T

    def loss(params, batch, steps, ratio):
        place = math.log(ratio) if ratio > math.exp(least) else least - 1 + ratio / math.exp(least)
        wanted = np.array([math.log(params), min(math.log(steps), high[1]), max(place, low[2])])
        inside = np.clip(wanted, low, high)
        return float(table(inside)[0]) if np.allclose(inside, wanted, rtol=0, atol=1e-9) else math.inf

    return loss


LAW = record(**dict.fromkeys("EABC", positive()), **dict.fromkeys(("alpha", "beta", "gamma"), optional(positive())), alpha2=optional(real()), form=optional(FORM))


@paper.algorithm(
    r"\min_{M, B} L(M, T, \bar\sigma),\quad T = \lfloor C / 6 M B S \rfloor",
    assumes=["Training costs 6 FLOP for each parameter and token."],
    requires={
        "exactly one of constants and surface must be given": lambda constants, surface: (constants is None) != (surface is None),
        "batch_grid must hold a batch of at most samples": lambda batch_grid, samples: batch_grid is None or np.min(batch_grid) <= samples,
    },
    sample=lambda rng: (
        {"compute": 10 ** rng.uniform(17, 21), "epsilon": rng.uniform(1, 10), "delta": 1e-8, "samples": int(10 ** rng.uniform(6, 8))}
        | ({"constants": LAW_EXAMPLE} if rng.uniform() < 0.5 else {"surface": fit_dp_grid(**EXAMPLE)})
        | {"params_grid": [5e6, 5e7, 5e8], "batch_grid": [1024, 16384, 262144]}
    ),
)
def optimal_dp_plan(
    compute: positive("FLOP", typical=(1e17, 1e23), example=1e19),
    epsilon: EPSILON,
    delta: DELTA,
    samples: SAMPLES,
    *,
    constants: either(LAW, example=LAW_EXAMPLE, doc="constants of dp_loss") = None,
    surface: either(SURFACE, doc="a table from fit_dp_grid, read at its own physical batch") = None,
    sequence_length: count("tokens", typical=(64, 4096)) = 512,
    params_grid: vector(of=positive("params"), example=[1e7, 3e7, 1e8, 3e8, 1e9], doc="none: 33 from 1e6 to 1e10") = None,
    batch_grid: vector("b", of=count("examples"), example=[2**12, 2**16, 2**19], doc="none: powers of two from 2^6 to 2^22") = None,
) -> record(params=positive("params"), batch_size=count("examples"), steps=count("steps"), ratio=positive(), loss=positive("nats")):
    """Model size, batch and steps with the lowest loss for a compute budget, a privacy budget and a number of people.

    More steps with the same batch need more noise, so plans that ratios already known rule out are not calibrated.
    """
    sizes = np.logspace(6, 10, 33) if params_grid is None else params_grid
    batches = 2 ** np.arange(6, 23) if batch_grid is None else batch_grid
    given = {name: value for name, value in (constants or {}).items() if value is not None}
    loss = reader(surface) if constants is None else lambda m, b, t, ratio: float(dp_loss(m, b * t, ratio, **given))
    plans = [(float(m), int(b), int(compute / (6 * m * b * sequence_length))) for m in sizes for b in batches if b <= samples]
    best, known, refused = {"loss": math.inf}, {b: [(0, 0.0)] for _, b, _ in plans}, "no size and batch leaves a step within compute"
    for plan in sorted((plan for plan in plans if plan[2] >= 1), key=lambda plan: loss(*plan, 0.0)):
        m, b, t = plan
        if loss(*plan, max(ratio for steps, ratio in known[b] if steps <= t)) >= best["loss"]:
            continue
        try:
            ratio = noise_batch_ratio(epsilon, delta, samples, b, t)["ratio"]
        except DomainError as error:
            refused = str(error)
            continue
        known[b].append((t, ratio))
        reached = loss(*plan, ratio)
        if reached < best["loss"]:
            best = {"params": m, "batch_size": b, "steps": t, "ratio": ratio, "loss": reached}
    if math.isinf(best["loss"]):
        raise DomainError(f"compute, epsilon and samples must allow a plan inside the grids and the surface; none does ({refused}).")
    return best


def random_budget(draw):
    """Epsilon, delta, samples, batch and steps for which order 256 can certify a budget."""
    samples = draw.integer(10**5, 10**8)
    return draw.log_uniform(0.5, 20), draw.log_uniform(1e-9, 1e-5), samples, int(samples * draw.log_uniform(1e-4, 0.3)) + 1, draw.integer(100, 100_000)


WITHOUT_SAMPLING = {"no amplification by sampling": lambda epsilon, delta, samples, batch, steps: noise_batch_ratio(epsilon, delta, batch, batch, steps)}
MULTIPLIER = {"noise multiplier for the ratio": lambda *budget: (found := noise_batch_ratio(*budget)) | {"ratio": found["noise_multiplier"]}}


@paper.trial(Identity(rtol=1e-5), of=[noise_batch_ratio], controls=WITHOUT_SAMPLING, quick=3, full=30)
def quadrature(draw, claim):
    """The calibrated noise spends the budget when the Renyi divergences are integrated numerically instead of summed."""
    epsilon, delta, samples, batch, steps = random_budget(draw)
    found = claim(epsilon, delta, samples, batch, steps)
    noise, q = found["noise_multiplier"], batch / samples
    x = np.arange(-12 * noise, 257 + 12 * noise, noise / 8)
    a = np.arange(2.0, 257.0)
    # E of (density ratio)^a over N(0, noise^2)
    log_ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * x - 1) / (2 * noise**2))
    log_density = -(x**2) / (2 * noise**2) - math.log(math.sqrt(2 * math.pi) * 8)
    spent = steps * logsumexp(np, a[:, None] * log_ratio + log_density) / (a - 1) + np.log1p(-1 / a) - (math.log(delta) + np.log(a)) / (a - 1)
    return [spent.min(), found["ratio"] * batch], [epsilon, noise], {"samples": samples, "batch_size": batch, "steps": steps}


@paper.trial(Inequality(search=30), of=[noise_batch_ratio], controls=MULTIPLIER, quick=8, full=200)
def cheaper_privacy(draw, claim):
    """The ratio falls with epsilon, people and batch; the budget is met to .001 and never exceeded; at a sampling rate of .001 full batches need 3 times the noise."""
    epsilon, delta, samples, batch, steps = random_budget(draw)
    found = claim(epsilon, delta, samples, batch, steps)
    changed = [claim(k[0] * epsilon, delta, k[1] * samples, k[2] * batch, steps)["ratio"] for k in ((1.1, 1, 1), (1, 2, 1), (1, 1, 2))]
    sampled, whole = (noise_batch_ratio(epsilon, delta, people, 1000, steps)["noise_multiplier"] for people in (10**6, 1000))
    smaller = [*changed, found["epsilon_achieved"], epsilon - 1e-3, 3 * sampled]
    return smaller, [found["ratio"]] * 3 + [epsilon, found["epsilon_achieved"], whole], {"samples": samples, "batch_size": batch, "steps": steps, "epsilon": epsilon}


def best_by_trying(loss, compute, epsilon, samples, sizes, batches):
    """(loss, size, batch) of the best plan, by calibrating every pair."""
    plans = [(m, b, int(compute / (6 * m * b * 512))) for m in sizes for b in batches]
    return min((loss(*plan, noise_batch_ratio(epsilon, 1e-8, samples, *plan[1:])["ratio"]), *plan[:2]) for plan in plans if plan[2] >= 1)


IN_LAW = {"noise multiplier in the law": (optimal_dp_plan, lambda m, n, ratio, **law: dp_loss(m, n, 1024 * ratio, **law))}


@paper.trial(Identity(), of=[optimal_dp_plan, dp_loss, noise_batch_ratio], claim=(optimal_dp_plan, dp_loss), controls=IN_LAW, quick=3, full=50)
def by_trying(draw, claim):
    """The plan is the best of all pairs of size and batch under the law written out."""
    e, a, b, c = draw.uniform(1, 2), draw.log_uniform(500, 5000), draw.log_uniform(5, 30), draw.log_uniform(0.3, 10)
    compute, epsilon, samples = draw.log_uniform(1e18, 1e21), draw.uniform(1, 10), draw.integer(10**6, 10**8)
    grids = {"params_grid": np.logspace(7, 9, 5), "batch_grid": [2**12, 2**16, 2**19]}

    def loss(m, batch, steps, ratio):
        return e + a / m**0.47 + b / (batch * steps) ** 0.12 + c * (1 / (1 + math.exp(-(math.log(ratio) + 8) / 1.6))) ** 0.95 * m**0.07

    plan, law = claim
    constants, ratio = {"E": e, "A": a, "B": b, "C": c}, draw.log_uniform(1e-7, 1e-3)
    found = plan(compute, epsilon, 1e-8, samples, constants=constants, **grids)
    laws = [law(1e8, 1e9, ratio, **constants), law(1e8, 1e9, 0.0, **constants), law(1e8, 1e9, ratio, form="power", **constants)]
    told = [loss(1e8, 1e5, 1e4, ratio), e + a / 1e8**0.47 + b / 1e9**0.12, e + a / 1e8**0.71 + b / 1e9**12.87 + c * ratio**0.19]
    return [found["loss"], found["params"], found["batch_size"], *laws], [*best_by_trying(loss, compute, epsilon, samples, *grids.values()), *told], {"compute": compute}


AS_MEASURED = {"neither smooth nor monotone": lambda **runs: fit_dp_grid(**runs) | {"ln_steps": np.log(runs["steps"]), "losses": runs["losses"]}}


@paper.trial(Guarantee(atol=1e-9), of=[fit_dp_grid, optimal_dp_plan], controls=AS_MEASURED, quick=2, full=30)
def from_a_table(draw, claim):
    """A table fitted to noisy losses is monotone, its rows are pooled as the min-max formula says, and it plans the size of the true law to within one step of the grid."""
    runs = grid_of_runs(draw.rng)
    table = claim(**runs)
    row = fit_dp_grid(runs["params"][:1], runs["steps"][:1], runs["ratios"], runs["losses"][:1, :1])["losses"][0, 0]
    y = runs["losses"][0, 0]
    pooled = [max(min(y[j : k + 1].mean() for k in range(i, len(y))) for j in range(i + 1)) for i in range(len(y))]
    compute, epsilon, samples, sizes = draw.log_uniform(1e18, 1e20), draw.uniform(2, 10), draw.integer(10**7, 10**8), np.geomspace(5e6, 7e8, 9)
    grids = {"params_grid": sizes, "batch_grid": [2**12, 2**15, 2**18]}
    found = optimal_dp_plan(compute, epsilon, 1e-8, samples, surface=table, **grids)
    true = best_by_trying(lambda m, b, t, ratio: float(dp_loss(m, 1024 * t, ratio, **LAW_EXAMPLE)), compute, epsilon, samples, *grids.values())
    achieved = [np.diff(table["losses"], axis=1).max(), -np.diff(table["losses"], axis=2).min(), np.abs(row - pooled).max(), abs(math.log(found["params"] / true[1]))]
    return achieved, [0.0, 0.0, 0.0, math.log(sizes[1] / sizes[0])], {"compute": compute, "planned": found["params"], "best": true[1]}
