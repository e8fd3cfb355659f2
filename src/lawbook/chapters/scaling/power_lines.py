"""Weight decay and batch size before a run: the timescale of AdamW's average, and optimal and critical batches as powers of the tokens."""

import numpy as np

from lawbook.contract import DomainError, Paper, caution, count, optional, positive, real, record, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Coverage, Identity

paper = Paper(
    __name__,
    title="Power Lines: Scaling Laws for Weight Decay and Batch Size in LLM Pre-training",
    arxiv="2505.13738",
    tags=["weight decay", "batch size", "critical batch size", "AdamW", "pretraining", "hyperparameters", "scaling law"],
    source="known",
    says="""The weights of AdamW are an exponential moving average of its updates. Its timescale, as a share of the run, has an optimum that is a power of the tokens per
    parameter, and this settles the weight decay before training, in proportion to the batch. The batch that is best, and the one beyond which more data are wasted, grow as
    powers of the tokens seen and not of the model's size; from runs at several batch sizes the critical one can be measured, with an interval.""",
    notes="""Published, unverified: the prefactors 1.084, .0306 and .0471 were recalled and not re-read, and all constants come from one setting (GPT-2-like models of 111M to
    3.3B parameters, SlimPajama, maximal update parametrisation, learning rate falling linearly to zero); refit them where it matters. At 20 tokens per parameter the law gives
    a timescale of .224, where .21 was observed for batches from 63 to 2016 sequences. Batches of the laws are sequences of 2048 tokens. Runs over repeated data are not
    covered. On the 1911 public runs of the Step Law study (17 pairs of size and tokens; the best batch of each by a parabola) the exponent of tokens is .61, but parameters
    are not without influence: with them, B ~ D^.65 N^-.31 has the lower BIC (-67 against -52) and little more than half the error.""",
)

SEQUENCE = 2048  # tokens, the unit of the published batches
TOKENS = positive("tokens", typical=(1e9, 1e13), doc="D: tokens of the run", example=1e11)
BATCH = positive("tokens", typical=(1e4, 1e7), doc="B: tokens of a step", example=2.0**19)
RATE = positive(high=1, typical=(1e-5, 1e-2), doc="peak rate that the weight matrices see, after any adjustment for width", example=1e-3)
DECAY = positive(high=1, typical=(1e-2, 0.5), example=0.1)
EXPONENT = real(low=0, high=2, typical=(0.2, 0.8))


@paper.law(
    r"\tau = \frac{B}{\eta \lambda D}",
    requires={
        "learning_rate times weight_decay must be below 1": lambda learning_rate, weight_decay: learning_rate * weight_decay < 1,
        "batch_tokens must be at most tokens": lambda batch_tokens, tokens: batch_tokens <= tokens,
    },
    closed_form=True,
)
def adamw_timescale(batch_tokens: BATCH, learning_rate: RATE, weight_decay: DECAY, tokens: TOKENS) -> positive(doc="share of the run"):
    """Timescale of the moving average that AdamW keeps of its updates, as a share of the run."""
    _, b, rate, decay, d = arrays(batch_tokens, learning_rate, weight_decay, tokens)
    return b / (rate * decay * d)


@paper.law(r"B_\text{opt} = c_o D^{m_o},\quad B_\text{crit} = c_c D^{m_c}\quad\text{in sequences of 2048 tokens}", closed_form=True)
def batch_sizes(
    tokens: TOKENS,
    *,
    optimal_coefficient: positive(typical=(0.01, 1)) = 0.0306,
    optimal_exponent: EXPONENT = 0.383,
    critical_coefficient: positive(typical=(0.01, 1)) = 0.0471,
    critical_exponent: EXPONENT = 0.462,
) -> record(optimal_sequences=positive(), critical_sequences=positive(), optimal_tokens=positive("tokens"), critical_tokens=positive("tokens")):
    """The batch of the lowest loss at a given number of tokens, and the batch at which a loss takes twice the fewest tokens (then `tokens` is that fewest number)."""
    _, d, *constants = arrays(tokens, optimal_coefficient, optimal_exponent, critical_coefficient, critical_exponent)
    best, critical = constants[0] * d ** constants[1], constants[2] * d ** constants[3]
    return {"optimal_sequences": best, "critical_sequences": critical, "optimal_tokens": SEQUENCE * best, "critical_tokens": SEQUENCE * critical}


@paper.algorithm(
    r"\tau_\text{opt} = c\,(D/N)^{-m},\quad \lambda = \frac{B}{\eta D \tau_\text{opt}}",
    requires={
        "batch_tokens must be below the optimal timescale of the tokens: learning_rate times weight_decay would reach 1": (
            lambda batch_tokens, tokens, params, coefficient, exponent: batch_tokens < tokens * coefficient * (tokens / params) ** exponent
        )
    },
)
def optimal_weight_decay(
    params: positive("params", typical=(1e8, 1e11), example=5e9),
    tokens: TOKENS,
    batch_tokens: BATCH,
    learning_rate: RATE,
    *,
    coefficient: positive(typical=(0.5, 2)) = 1.084,
    exponent: real(typical=(-0.7, -0.3)) = -0.527,
) -> record(weight_decay=positive(), timescale=positive(doc="share of the run"), tokens_per_param=positive("tokens/param")):
    """Weight decay for a run, from the optimal timescale at its tokens per parameter; in proportion to the batch up to the critical one."""
    timescale = coefficient * (tokens / params) ** exponent
    critical = float(batch_sizes(tokens)["critical_tokens"])
    if batch_tokens > critical:
        caution(
            f"batch_tokens = {batch_tokens:.4g} is above the critical batch of about {critical:.3g} tokens, where weight decay in proportion to the batch drifts off its optimum."
        )
    return {"weight_decay": batch_tokens / (learning_rate * tokens * timescale), "timescale": timescale, "tokens_per_param": tokens / params}


@paper.law(r"D = D_\min (1 + B/B_\text{crit}),\ S = S_\min (1 + B_\text{crit}/B),\ S_\min = D_\min / B_\text{crit}", closed_form=True)
def batch_tradeoff(
    min_tokens: positive("tokens", typical=(1e9, 1e13), doc="tokens that the loss takes with the smallest batches", example=1e11),
    batch_tokens: BATCH,
    critical_tokens: positive("tokens", typical=(1e5, 1e8), doc="critical batch", example=1e7),
) -> record(
    tokens=positive("tokens"),
    steps=positive("steps"),
    tokens_overhead=positive(doc="tokens beyond the fewest, as a share of these"),
    steps_overhead=positive(doc="steps beyond the fewest, as a share of these"),
):
    """Tokens and steps that a loss takes with a given batch; the product of the overheads is 1."""
    _, least, b, critical = arrays(min_tokens, batch_tokens, critical_tokens)
    return {"tokens": least * (1 + b / critical), "steps": least / critical * (1 + critical / b), "tokens_overhead": b / critical, "steps_overhead": critical / b}


def lowest(value, low, high, points=24):
    """For each row the place of the least value(x[rows, k]) -> [rows, k] on [low, high]: a grid, then finer ones around its best point."""
    places = np.linspace(low, high, points)[None]
    for _ in range(7):
        found = value(places)
        best, width = places[np.arange(len(found)) % len(places), found.argmin(1)][:, None], (places[:, -1:] - places[:, :1]) / (points - 1)
        places = np.clip(best + np.linspace(-1, 1, points) * 1.5 * width, low, high)
    return best[:, 0]


def batch_floors(log_tokens, losses, group, weights, decay):
    """Weighted squares of the relative residuals of L_B(D) = E + K_B D^-decay at their minimum over E >= 0 and all K_B, and the E and K of that minimum."""
    x = np.exp(-decay[..., None] * log_tokens)
    w = weights[:, None] / losses**2
    xx, x1, xy = ((w * part) @ group for part in (x * x, x, x * losses))
    xx = np.where(xx > 0, xx, 1.0)  # batches that a resample leaves out
    floor = np.clip(((w * losses).sum(-1) - (x1 * xy / xx).sum(-1)) / np.maximum(w.sum(-1) - (x1**2 / xx).sum(-1), 1e-300), 0, losses.min())
    scale = (xy - floor[..., None] * x1) / xx
    return (w * (losses - floor[..., None] - (scale @ group.T) * x) ** 2).sum(-1), floor, scale


def critical_batches(batches, group, log_tokens, losses, weights, target_loss):
    """Critical batch and fewest tokens for each row of weights; NaN where the target is not above the floor or the tokens do not depend on the batch as they should."""
    decay = lowest(lambda logs: batch_floors(log_tokens, losses, group, weights, np.exp(logs))[0], np.log(0.02), np.log(2.0))
    floor, scale = (part[:, 0] for part in batch_floors(log_tokens, losses, group, weights, np.exp(decay)[:, None])[1:])
    seen = weights @ group
    with np.errstate(invalid="ignore", divide="ignore"):
        needed = np.log(scale / (target_loss - floor)[:, None]) / np.exp(decay)[:, None]  # log of the tokens at which each batch reaches the target
    bad = ~np.isfinite(np.where(seen > 0, needed, 0)).all(1)
    needed = np.where(np.isfinite(needed) & (seen > 0), needed, 0.0)
    share = seen / seen.sum(1, keepdims=True)

    def fewest(log_critical):
        """Log of the fewest tokens for each row and critical batch, and the squares that are left."""
        off = needed[:, None] - np.log1p(batches / np.exp(log_critical)[..., None])
        mean = (share[:, None] * off).sum(-1)
        return mean, (share[:, None] * (off - mean[..., None]) ** 2).sum(-1)

    edges = np.log(batches.min()) - 7, np.log(batches.max()) + 7
    critical = lowest(lambda logs: fewest(logs)[1], *edges)
    bad |= (critical < edges[0] + 0.01) | (critical > edges[1] - 0.01)
    return np.where(bad, np.nan, np.exp(critical)), np.where(bad, np.nan, np.exp(fewest(critical[:, None])[0][:, 0]))


def runs_over_batches(rng, *, min_tokens=2e9, critical=1e6, batches=8, horizons=5, noise=0.005):
    """Synthetic runs whose losses depend on their tokens as a share of those that their batch needs, and the loss that takes `min_tokens` with the smallest."""
    b = np.repeat(critical * 2.0 ** np.linspace(-3.5, 3.5, batches), horizons)
    worth = min_tokens * np.tile(2.0 ** np.linspace(-1.5, 1.5, horizons), batches)  # tokens that the smallest batches would have taken
    losses = (1.7 + 400 * worth**-0.28) * np.exp(noise * rng.normal(size=len(b)))
    return {"batch_tokens": b, "tokens": worth * (1 + b / critical), "losses": losses, "target_loss": 1.7 + 400 * min_tokens**-0.28}


EXAMPLE = runs_over_batches(np.random.default_rng(0))
INTERVAL = vector(2, of=positive())


@paper.algorithm(
    r"L_B(D) = E + K_B D^{-\beta},\quad L_B(D_B) = \ell,\quad \ln D_B \approx \ln D_\min (1 + B/B_\text{crit})",
    requires={
        "batch_tokens must hold at least two sizes, and three runs more than sizes": lambda batch_tokens: 2 <= len(np.unique(batch_tokens)) <= len(batch_tokens) - 3,
    },
    sample=lambda rng: runs_over_batches(rng, noise=0.002) | {"bootstrap": int(rng.integers(0, 20))},
)
def fit_critical_batch(
    batch_tokens: vector("n", of=positive("tokens"), least=5, example=EXAMPLE["batch_tokens"]),
    tokens: vector("n", of=positive("tokens"), least=5, example=EXAMPLE["tokens"]),
    losses: vector("n", of=positive("nats"), least=5, example=EXAMPLE["losses"]),
    target_loss: positive("nats", typical=(1.5, 4), example=EXAMPLE["target_loss"]),
    *,
    bootstrap: count("resamples", low=0, typical=(0, 50), doc="resamples of the runs for the intervals; 0 for none") = 200,
    seed: seed() = 0,
) -> record(
    critical_tokens=positive("tokens"),
    min_tokens=positive("tokens"),
    min_steps=positive("steps"),
    ci=optional(record(critical_tokens=INTERVAL, min_tokens=INTERVAL, min_steps=INTERVAL), doc="central 90 % of the resamples"),
):
    """Critical batch and fewest tokens and steps at a target loss, from the final losses of runs with several batches and lengths.

    Each batch has its own scale K_B; the floor and the exponent are shared. With few runs a batch the intervals are somewhat narrow: 87 % instead of 90 % at 8 batches of 5 runs.
    """
    batches, index = np.unique(batch_tokens, return_inverse=True)
    group, log_tokens = np.eye(len(batches))[index], np.log(tokens)
    drawn = np.random.default_rng(seed).multinomial(len(losses), np.full(len(losses), 1 / len(losses)), size=bootstrap)
    # logarithms are centred, so that the powers of the search stay near 1
    critical, least = critical_batches(batches, group, log_tokens - log_tokens.mean(), losses, np.vstack([np.ones(len(losses)), drawn]), target_loss)
    least = least * np.exp(log_tokens.mean())
    if np.isnan(critical[0]):
        raise DomainError(
            f"target_loss and the runs do not determine a critical batch: target_loss ({target_loss:.6g}) must be above the floor of the fitted losses, "
            "and the tokens that reach it must grow with the batch and flatten out for small ones."
        )
    values = {"critical_tokens": critical, "min_tokens": least, "min_steps": least / critical}
    good = np.isfinite(critical[1:])
    if not good.all():
        caution(f"{np.sum(~good)} of {bootstrap} resamples do not determine a critical batch and are left out of the intervals.")
    intervals = {name: np.quantile(column[1:][good], (0.05, 0.95)) for name, column in values.items()} if good.any() else None
    return {**{name: float(column[0]) for name, column in values.items()}, "ci": intervals}


def timescale_in_steps(batch_tokens, learning_rate, weight_decay, tokens):
    return 1 / (learning_rate * weight_decay)


@paper.trial(Identity(rtol=1e-10), of=[adamw_timescale], controls={"in steps, not as a share of the run": timescale_in_steps}, quick=30, full=1000)
def moving_average(draw, claim):
    """Running the recursion of AdamW's weights gives each update the share that a moving average of this timescale gives it."""
    steps, rate, decay, b = draw.integer(2, 200), draw.log_uniform(1e-4, 0.9), draw.log_uniform(1e-2, 1), draw.log_uniform(1e4, 1e7)
    weights, updates = draw.rng.normal(size=3), draw.rng.normal(size=(steps, 3))
    keep = 1 / (claim(b, rate, decay, steps * b) * steps)
    shares = keep * (1 - keep) ** np.arange(steps - 1, -1, -1)
    average = (1 - keep) ** steps * weights + shares @ (-updates / decay)
    for update in updates:
        weights = weights - rate * update - rate * decay * weights
    return weights, average, {"steps": steps, "learning_rate": rate, "weight_decay": decay}


def same_decay_for_all_batches(params, tokens, batch_tokens, learning_rate):
    return optimal_weight_decay(params, tokens, 2.0**19, learning_rate)


def sequences_as_tokens(tokens):
    sizes = batch_sizes(tokens)
    return {**sizes, "optimal_tokens": sizes["optimal_sequences"], "critical_tokens": sizes["critical_sequences"]}


@paper.trial(
    Identity(rtol=1e-10),
    of=[optimal_weight_decay, batch_sizes, adamw_timescale],
    claim=(optimal_weight_decay, batch_sizes),
    controls={"one weight decay for all batches": (same_decay_for_all_batches, batch_sizes), "sequences for tokens": (optimal_weight_decay, sequences_as_tokens)},
    quick=50,
    full=2000,
)
def planned(draw, claim):
    """With the planned weight decay the timescale depends on tokens per parameter alone, whatever the batch; batches follow their powers of the tokens."""
    params, ratio, rate = draw.log_uniform(1e8, 1e11), draw.log_uniform(5, 500), draw.log_uniform(1e-4, 1e-2)
    tokens, b = params * ratio, 2048 * draw.log_uniform(32, 4096)
    found = [adamw_timescale(size, rate, claim[0](params, tokens, size, rate)["weight_decay"], tokens) for size in (b, 8 * b)]
    sizes, more = claim[1](tokens), claim[1](1000 * tokens)
    growth = [np.log(more[name] / sizes[name]) / np.log(1000) for name in ("optimal_sequences", "critical_tokens")]
    one = [sizes["optimal_tokens"] / 2048, sizes["critical_tokens"] / 2048]
    powers = [np.exp(np.log(c) + m * np.log(tokens)) for c, m in ((0.0306, 0.383), (0.0471, 0.462))]
    law = np.exp(np.log(1.084) - 0.527 * np.log(ratio))
    return [*found, *growth, *one], [law, law, 0.383, 0.462, *powers], {"params": params, "tokens": tokens, "batch_tokens": b}


def overheads_exchanged(min_tokens, batch_tokens, critical_tokens):
    return batch_tradeoff(min_tokens, critical_tokens, batch_tokens)


@paper.trial(Identity(rtol=1e-6), of=[batch_tradeoff], controls={"batch and critical batch exchanged": overheads_exchanged}, quick=30, full=1000)
def noisy_quadratic(draw, claim):
    """On a noisy quadratic the best step's gain, searched numerically, takes as many steps and tokens as the trade-off says; its critical batch is the noise scale."""
    from scipy.optimize import minimize_scalar

    dims, b, gap = draw.integer(2, 6), draw.log_uniform(1, 1e4), draw.log_uniform(10, 1e4)
    curvature, slope, noise = (draw.rng.uniform(0.1, 2, dims) for _ in range(3))

    def gain(batch):
        """Expected fall of the loss in one step along the mean of `batch` noisy gradients, with the best rate."""
        return -minimize_scalar(lambda rate: rate**2 / 2 * (curvature @ slope**2 + curvature @ noise / batch) - rate * (slope @ slope)).fun

    critical = (curvature @ noise) / (curvature @ slope**2)
    fewest, steps, small = gap / gain(np.inf), gap / gain(b), 1e-7 * critical
    least = small * gap / gain(small) / (1 + 1e-7)
    found = claim(least, b, critical)
    simulated = [steps, steps * b, steps / fewest, steps * b / least, 1.0]
    told = [found["steps"], found["tokens"], 1 + found["steps_overhead"], 1 + found["tokens_overhead"], found["steps_overhead"] * found["tokens_overhead"]]
    return simulated, told, {"batch": b, "critical": critical}


def steps_for_tokens(batch_tokens, tokens, losses, target_loss, **options):
    return fit_critical_batch(1 / batch_tokens, tokens / batch_tokens, losses, target_loss, **options)


@paper.trial(
    Coverage(at_most=0.25, detect=0.55),
    of=[fit_critical_batch, batch_tradeoff],
    claim=fit_critical_batch,
    controls={"steps taken for tokens": steps_for_tokens},
    quick=80,
    full=400,
)
def recovered(draw, claim):
    """From 40 runs with half a percent of noise the critical batch is found within 15 %, and intervals said to hold 90 % miss less than a quarter of the time."""
    critical, least = draw.log_uniform(1e5, 1e7), draw.log_uniform(1e9, 1e11)
    runs = runs_over_batches(draw.rng, min_tokens=least, critical=critical)
    found = claim(**runs, bootstrap=60, seed=draw.integer(0, 10**6))
    truth = {"critical_tokens": critical, "min_tokens": least, "min_steps": float(batch_tradeoff(least, critical, critical)["steps"]) / 2}
    off = max(abs(found[name] / value - 1) for name, value in truth.items())
    low, high = found["ci"]["critical_tokens"]
    return {"interval": not low <= critical <= high, "off by 15 %": off > 0.15}
