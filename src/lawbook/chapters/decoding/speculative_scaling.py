"""Log-linear laws of speculative decoding: accepted length against a draft model's data or size, and the draft size that pays most."""

import math

import numpy as np

from lawbook.chapters.decoding.speculative_speedup import expected_tokens
from lawbook.contract import Paper, caution, count, nonnegative, positive, probability, real, record, vector
from lawbook.numerics import arrays, bracketed_root
from lawbook.trials import Forecast, Identity, Prediction

paper = Paper(
    __name__,
    title="Scaling Laws for Speculative Decoding",
    arxiv="2505.07858",
    tags=["speculative decoding", "scaling law", "draft model", "acceptance length", "inference", "throughput"],
    source="derived",
    says="""For dense draft models the mean number of tokens a verification yields, or the decoding speed, is said to grow in proportion to the logarithm of the draft's
    pre-training tokens and of its size. With the time a draft step takes, such a law picks the size of the draft. It can hold on a range only: no round yields
    less than one token or more than are drafted and one.""",
    notes="""Only the abstract was seen: the laws are log-linear there, their fitted constants are not known, and the numbers used here are not the paper's. Slopes are for
    the logarithm to base 10. The best size has a closed form by the Wright omega function, which replaces a search. Do not trust the line beyond ten times the range of
    its fit.""",
)

RESOURCE = vector("T", of=positive(typical=(1e6, 1e12)), doc="draft pre-training tokens, or draft parameters", example=[1e9, 1e10, 1e11])
GAMMA = count("tokens", typical=(1, 12), doc="tokens drafted a round", example=4)


@paper.law(
    r"L(x) = a + b \log_{10} x", assumes=["Holds where 1 <= L <= gamma + 1, near the range of the fit."], observes="accepted_length", closed_form=True, gives=[2.5, 3.0, 3.5]
)
def log_linear(
    x: RESOURCE,
    *,
    intercept: real("tokens", typical=(-5, 3), fitted=True, example=-2.0) = -2.0,
    slope: real("tokens", typical=(0, 1), fitted=True, doc="for each factor of 10", example=0.5) = 0.5,
) -> vector("T", of=real("tokens")):
    """Mean tokens of a verification (or tokens per second) by the log-linear law, base 10."""
    xp, x, a, b = arrays(x, intercept, slope)
    return a + b * xp.log10(x)


@paper.law(
    r"\min_{a, b} \sum_t (y_t - a - b \log_{10} x_t)^2",
    requires={"x must hold at least two different values": lambda x: len(np.unique(x)) > 1},
    gives={"intercept": -2.0, "slope": 0.5},
)
def fit_log_linear(x: RESOURCE, y: vector("T", of=real(), doc="accepted length or speed", example=[2.5, 3.0, 3.5])) -> record(
    intercept=real(), slope=real(doc="for each factor of 10"), rmse=nonnegative(), slope_stderr=nonnegative(nan=True, doc="NaN for two points, which leave no error")
):
    """Least-squares line of y on log10 x."""
    from scipy.stats import linregress

    z, y = np.log10(x), np.asarray(y, float)
    line = linregress(z, y)
    error = float(line.stderr) if len(z) > 2 else math.nan
    return {
        "intercept": float(line.intercept),
        "slope": float(line.slope),
        "rmse": float(np.sqrt(np.mean((y - line.intercept - line.slope * z) ** 2))),
        "slope_stderr": error,
    }


@paper.law(
    r"\alpha:\ \frac{1 - \alpha^{\gamma+1}}{1 - \alpha} = L",
    requires={"accepted_length must be from 1 to gamma + 1": lambda accepted_length, gamma: 1 <= accepted_length <= gamma + 1},
    sample=lambda rng: {"gamma": (gamma := int(rng.integers(1, 13))), "accepted_length": float(rng.uniform(1, gamma + 1))},
    assumes=["Tokens are accepted independently of each other."],
    gives=0.7,
)
def acceptance_from_length(accepted_length: positive("tokens", low=1, above=False, doc="mean tokens of a round", example=2.7731), gamma: GAMMA) -> probability():
    """Probability that a drafted token is kept, from the mean tokens of a round."""
    return bracketed_root(lambda alpha: expected_tokens(alpha, gamma) - accepted_length, 0.0, 1.0)


@paper.algorithm(
    r"\max_N \frac{L(N)\, t_{target}}{\gamma (t_0 + N w / \beta) + t_{target}},\quad N^* = \frac{T}{W(T 10^{a / b} / e)},\ T = \frac{t_0 + t_{target} / \gamma}{w / \beta}",
    assumes=["A draft step takes a fixed time and one reading of the draft's weights; verifying a round takes one target step."],
)
def best_draft_size(
    intercept: real("tokens", typical=(-8, 1), example=-2.0),
    slope: positive("tokens", typical=(0.1, 1.5), scale="linear", doc="for each factor of 10 in parameters", example=0.5),
    gamma: GAMMA,
    *,
    target_seconds: positive("seconds", typical=(0.005, 0.1), doc="time of a target step", example=0.042) = 0.042,
    launch_seconds: nonnegative("seconds", typical=(0, 0.002), doc="fixed time of a draft step", example=0.0005) = 0.0005,
    bytes_per_param: positive("bytes", typical=(0.5, 4)) = 2.0,
    bandwidth: positive("bytes/s", typical=(5e11, 8e12), example=3.35e12) = 3.35e12,
    max_params: positive("params", low=1, above=False, typical=(1e8, 1e11)) = 1e10,
) -> record(params=nonnegative("params", doc="0 where no draft pays"), accepted_length=positive("tokens"), speedup=positive()):
    """Draft size of the largest speed-up over plain decoding, on the range of sizes for which the law gives from 1 to gamma + 1 tokens."""
    from scipy.special import wrightomega

    b = slope / math.log(10)
    with np.errstate(over="ignore"):
        low, full = (float(np.exp((length - intercept) / b)) for length in (1, gamma + 1))
    low, high = max(1.0, low), min(max_params, full)
    if not low < high:
        return {"params": 0.0, "accepted_length": 1.0, "speedup": 1.0}
    per_param = bytes_per_param / bandwidth
    fixed = (launch_seconds + target_seconds / gamma) / per_param  # in parameters
    best = fixed / float(wrightomega(math.log(fixed) + intercept / b - 1).real)
    params = min(max(best, low), high)
    if params == full:
        caution("The best size lies where the law says that every drafted token is kept: it has left the range in which it can hold.")
    length = min(max(intercept + b * math.log(params), 1.0), gamma + 1.0)
    speedup = length * target_seconds / (gamma * (launch_seconds + params * per_param) + target_seconds)
    return {"params": params, "accepted_length": length, "speedup": speedup} if speedup > 1 else {"params": 0.0, "accepted_length": 1.0, "speedup": 1.0}


def natural_logarithm(x, *, intercept, slope):
    return intercept + slope * np.log(x)


@paper.trial(
    Identity(rtol=1e-9, atol=1e-9), of=[log_linear, fit_log_linear, acceptance_from_length], controls={"slope for the natural logarithm": natural_logarithm}, quick=50, full=2000
)
def recovered(draw, law):
    """Data made from the law give its constants back, with the standard error of the textbook once there is noise, and a summed geometric series its acceptance."""
    x, a, b = draw.log_uniform(1e6, 1e12, size=6), draw.uniform(-5, 3), draw.uniform(0.1, 1)
    clean, noisy = fit_log_linear(x, law(x, intercept=a, slope=b)), a + b * np.log10(x) + draw.normal(0, 0.1, size=6)
    found, design = fit_log_linear(x, noisy), np.stack([np.ones(6), np.log10(x)], 1)
    weights, (squares,), *_ = np.linalg.lstsq(design, noisy, rcond=None)
    error = np.sqrt(np.linalg.inv(design.T @ design)[1, 1] * squares / 4)
    alpha, gamma = draw.uniform(0, 1), draw.integer(1, 12)
    computed = [a, b, 0.0, *weights, error, np.sqrt(squares / 6), alpha]
    told = [*(clean[key] for key in ("intercept", "slope", "rmse")), *(found[key] for key in ("intercept", "slope", "slope_stderr", "rmse"))]
    return computed, [*told, acceptance_from_length(float(np.sum(alpha ** np.arange(gamma + 1))), gamma)], {"x": x}


def largest_draft(intercept, slope, gamma, *, max_params, **options):
    params = min(max_params, 10 ** ((gamma + 1 - intercept) / slope))
    return {"params": params, "speedup": draft_speedup(params, intercept, slope, gamma, **options)}


def draft_speedup(params, intercept, slope, gamma, *, target_seconds, launch_seconds, bandwidth):
    length = np.clip(intercept + slope * np.log10(params), 1, gamma + 1)
    return length * target_seconds / (gamma * (launch_seconds + 2 * params / bandwidth) + target_seconds)


@paper.trial(Identity(rtol=1e-5), of=[best_draft_size], controls={"the largest draft": largest_draft}, quick=50, full=3000)
def grid_of_sizes(draw, best):
    """No draft on a fine grid of sizes is faster than the closed form's, and its speed-up is the grid's; where none beats plain decoding it says so."""
    slope, gamma = draw.uniform(0.2, 1.2), draw.integer(1, 8)
    intercept = 1 - slope * draw.uniform(4, 9)  # one token a round at 10^4 to 10^9 parameters
    options = {"target_seconds": draw.log_uniform(0.01, 0.1), "launch_seconds": draw.log_uniform(1e-5, 3e-3), "bandwidth": draw.log_uniform(1e12, 5e12)}
    grid = np.append(np.geomspace(1, 1e10, 20_001), min(10 ** ((gamma + 1 - intercept) / slope), 1e10))  # with the kink where the law saturates
    reached = max(float(np.max(draft_speedup(grid, intercept, slope, gamma, **options))), 1.0)
    found = best(intercept, slope, gamma, max_params=1e10, **options)
    again = draft_speedup(found["params"], intercept, slope, gamma, **options) if found["params"] else 1.0
    return [reached, found["speedup"]], [found["speedup"], again], {"slope": slope, "gamma": gamma, **options}


def measured_lengths(rng, sizes, *, tokens=16, order=3, gamma=4):
    """Mean tokens of a round for table models with add-one smoothing, trained on so many tokens of a Markov target, each size including those before."""
    contexts, chains, runs = tokens**order, 4000, 10_000
    target = rng.dirichlet(np.full(tokens, 0.3), size=contexts)
    counts, found, seen = np.ones((contexts, tokens)), [], 0

    def step(at, laws):
        token = (rng.uniform(size=(len(at), 1)) > np.cumsum(laws[at], axis=1)).sum(1).clip(max=tokens - 1)
        return token, at * tokens % contexts + token

    here = rng.integers(contexts, size=runs)
    for _ in range(20):  # to where the target goes
        here = step(here, target)[1]
    training = here[:chains].copy()
    for size in sizes:
        while seen < size:
            used = min(chains, size - seen)
            token, after = step(training[:used], target)
            np.add.at(counts, (training[:used], token), 1)
            training[:used], seen = after, seen + used
        draft = counts / counts.sum(1, keepdims=True)
        at, alive, yielded = here, np.ones(runs, bool), 1.0
        for _ in range(gamma):
            token, after = step(at, draft)
            alive &= rng.uniform(size=runs) * draft[at, token] < target[at, token]
            at, yielded = after, yielded + alive.mean()
        found.append(yielded)
    return np.array(found)


def extrapolated(x, y, further):
    line = fit_log_linear(x, y)
    return log_linear(further, intercept=line["intercept"], slope=line["slope"])


def straight_line(x, y, further):
    return np.polyval(np.polyfit(x, y, 1), further)


@paper.trial(
    Prediction("line in x, not log x"),
    of=[fit_log_linear, log_linear],
    claim=extrapolated,
    controls={"line in x": straight_line},
    quick=2,
    full=20,
)
def ngram_drafts(draw, predict):
    """Accepted lengths of n-gram drafts that were trained on most data are forecast from those trained on least."""
    sizes = np.array([1000, 3000, 10_000, 100_000, 300_000, 1_000_000])
    lengths = measured_lengths(draw.rng, sizes)
    few, many = slice(0, 3), slice(3, 6)
    return Forecast(lengths[many], predict(sizes[few], lengths[few], sizes[many]), straight_line(sizes[few], lengths[few], sizes[many]))


@paper.finding(
    """Accepted length is at most log-linear in the middle of an S: n-gram drafts of order 2 over 8 tokens gain .6, 1.4, .8 and .2 tokens with each tenfold of data from 30 to
    300,000, towards gamma + 1 = 5. A line through the first two sizes, read at the fourth, falls 1.0 tokens short; through the second and third, at the last, it is 1.8 above."""
)
def growth_is_an_s():
    sizes = np.array([30, 300, 3000, 30_000, 300_000])
    lengths = measured_lengths(np.random.default_rng(0), sizes, tokens=8, order=2)
    growth = np.diff(lengths)
    early, middle = extrapolated(sizes[:2], lengths[:2], sizes[3]) - lengths[3], extrapolated(sizes[1:3], lengths[1:3], sizes[4]) - lengths[4]
    holds = growth[0] < 0.5 * growth.max() and growth[-1] < 0.25 * growth.max() and early < -0.5 and middle > 1
    return {"holds": bool(holds), "tokens": sizes, "accepted_length": lengths, "growth_per_tenfold": growth, "error_early": float(early), "error_middle": float(middle)}
