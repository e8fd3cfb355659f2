"""Was this text written by this model: log-perplexity against the model's own entropies, with exact error bounds."""

import math
from itertools import product

import numpy as np

from lawbook.contract import Paper, count, distribution, flag, integer, nonnegative, positive, probability, real, record, vector
from lawbook.numerics import arrays
from lawbook.trials import Coverage, Distribution, Guarantee, Identity, Inequality, Sample

paper = Paper(
    __name__,
    title="Zero-Shot Statistical Tests for LLM-Generated Text Detection using Finite Sample Concentration Inequalities",
    arxiv="2501.02406",
    tags=["detection", "machine-generated text", "perplexity", "entropy", "hypothesis test", "e-value", "martingale", "language model"],
    source="derived",
    says="""Along a text that a model wrote, the mean negative log-probability stays close to the mean of the model's next-token entropies; along any other it settles at the
    cross-entropy. The difference is a sum of martingale increments, so that both errors of a test fall exponentially in the length. Likelihood ratios against the model at
    other temperatures need no bound on probabilities and stay valid however long one looks.""",
    notes="""The convergence is the paper's, bounds were derived again with explicit constants. Probabilities must be those that were sampled from: truncated and renormalised
    where top-k or top-p was used. The e-values have mean one at every length, but heavy tails: averages over simulated texts look smaller. The normal p-value holds for long
    texts; the e-values, and the bound where probabilities are bounded below, hold for all.""",
)

BLOCK = 4_000_000  # probabilities handled at a time
STEPS = distribution("n", "V", doc="the model's next-token law at each step", example=[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]])
TOKENS = vector("n", of=integer(low=0, typical=(0, 1)), doc="token of the text at each step", example=[0, 1, 2, 0])
LISTED = {"tokens must lie below the number of columns of step_probabilities": lambda tokens, step_probabilities: np.max(tokens) < step_probabilities.shape[1]}
FLOOR = probability(above=True, below=True, scale="log", typical=(1e-6, 0.1), doc="every probability that is used is at least this", example=4e-4)
GAP = {
    "gap": real("nats", infinite=True, doc="log-perplexity minus mean entropy; infinite where the model cannot write the text"),
    "z": real(infinite=True, doc="the gap's sum in standard deviations of the model's own texts"),
    "p_value": probability(doc="two-sided, normal"),
}


def draw_text(rng):
    steps = rng.dirichlet(np.ones(int(rng.integers(2, 8))), int(rng.integers(1, 30)))
    return {"step_probabilities": steps, "tokens": rng.integers(0, steps.shape[1], len(steps))}


def by_rows(function, step_probabilities):
    """A function of the rows, applied to as many at a time as memory should hold."""
    p = np.asarray(step_probabilities, float)
    return np.concatenate([function(some) for some in np.array_split(p, max(1, -(-p.size // BLOCK)))])


def moments(p):
    """Entropy, and variance of the negative log-probability, of each row."""
    with np.errstate(divide="ignore"):
        surprise = -np.where(p > 0, np.log(p), 0)
    entropies = np.sum(p * surprise, axis=1)
    off = surprise - entropies[:, None]
    off[np.abs(off) < 1e-13 * (1 + surprise)] = 0  # rounding of uniform laws
    return np.stack([entropies, np.sum(p * off**2, axis=1)], axis=1)


def log_probabilities(step_probabilities, tokens):
    with np.errstate(divide="ignore"):
        return np.log(np.take_along_axis(np.asarray(step_probabilities, float), np.asarray(tokens)[:, None], axis=1)[:, 0])


@paper.measure(r"z = \frac{\sum_i (-\log p_i(x_i) - h_i)}{\sqrt{\sum_i v_i}}", assumes=["Summaries are those of the law that was sampled from."])
def same_model_test_logs(
    token_logprobs: vector("n", of=real("nats", high=0, infinite=True, typical=(-5, 0)), most=40, doc="log-probability of each token", example=[-0.4, -0.2, -0.9, -0.5]),
    entropies: vector("n", of=nonnegative("nats", typical=(0, 3)), most=40, doc="entropy of the model's law at each step", example=[0.8, 0.64, 1.09, 0.9]),
    variances: vector("n", of=nonnegative(typical=(0, 3)), most=40, doc="variance of the negative log-probability at each step", example=[0.48, 0.69, 0.02, 0.38]),
) -> record(**GAP):
    """The gap between log-perplexity and entropy with its normal test, from logged summaries."""
    from scipy.special import ndtr

    total, spread = float(np.sum(-np.asarray(token_logprobs, float) - entropies)), math.sqrt(np.sum(variances))
    z = total / spread if spread else math.copysign(math.inf, total) if abs(total) > 1e-12 * len(entropies) * (1 + np.max(entropies)) else 0.0
    return {"gap": total / len(entropies), "z": z, "p_value": float(2 * ndtr(-abs(z)))}


@paper.measure(r"L - \bar H = \frac1n \sum_i \big(-\log p_i(x_i) - h_i\big) \to 0 \text{ under the model}", requires=LISTED, sample=draw_text)
def perplexity_gap(step_probabilities: STEPS, tokens: TOKENS) -> record(log_perplexity=nonnegative("nats", infinite=True), mean_entropy=nonnegative("nats"), **GAP):
    """Log-perplexity of a text beside the entropy that the model's own texts settle at, with the normal test of their difference."""
    logs, (entropies, variances) = log_probabilities(step_probabilities, tokens), by_rows(moments, step_probabilities).T
    return {"log_perplexity": abs(float(-logs.mean())), "mean_entropy": max(float(entropies.mean()), 0.0), **same_model_test_logs(logs, entropies, variances)}


@paper.bound(
    r"\Pr_A\big[|L - \bar H| \ge t\big] \le 2 \exp\!\big(-2 n t^2 / \log^2(1/p_{\min})\big)", closed_form=True, assumes=["No probability that is used is below min_probability."]
)
def gap_error(samples: count("tokens", typical=(10, 5000), example=200), threshold: positive("nats", typical=(0.01, 2), example=0.5), min_probability: FLOOR) -> probability():
    """Largest probability that a text of the model itself shows a gap of at least the threshold."""
    xp, n, t, floor = arrays(samples, threshold, min_probability)
    bound = 2 * xp.exp(-2 * n * (t / xp.log(floor)) ** 2)
    return xp.where(bound < 1, bound, xp.ones_like(bound))


@paper.bound(
    r"n = \left\lceil \frac{\log^2(1/p_{\min})}{2 D^2} \Big(\sqrt{\log\tfrac2\alpha} + \sqrt{\log\tfrac1\beta}\Big)^2 \right\rceil", assumes=["The threshold is set for alpha."]
)
def detection_length(
    separation: positive("nats", typical=(0.05, 2), doc="D: cross-entropy of the other author minus the model's entropy, at least, on average over the text", example=0.38),
    min_probability: FLOOR,
    alpha: probability(above=True, below=True, typical=(1e-3, 0.3), doc="probability of rejecting a text of the model", example=0.05),
    beta: probability(above=True, below=True, typical=(1e-3, 0.3), doc="probability of missing one of the other author", example=0.05),
) -> count("tokens"):
    """Text length at which both errors of the test are as small as asked."""
    scale = math.log(min_probability) / separation
    return math.ceil(scale**2 * (math.sqrt(math.log(2 / alpha)) + math.sqrt(-math.log(beta))) ** 2 / 2)


@paper.algorithm(
    r"E^{\pm}_n = \prod_i \frac{p_i(x_i)^{\mp\lambda}}{\sum_v p_i(v)^{1 \mp \lambda}},\quad \Pr_A\big[\sup_n \tfrac12 (E^+_n + E^-_n) \ge 1/\alpha\big] \le \alpha",
    requires=LISTED,
    sample=draw_text,
)
def same_model_test(
    step_probabilities: STEPS,
    tokens: TOKENS,
    *,
    alpha: probability(above=True, below=True, typical=(1e-3, 0.3), doc="level, at whatever length one stops") = 0.05,
    tilt: real(low=0, high=1, above=True, below=True, typical=(0.05, 0.9), doc="lambda: the alternatives are the model at the temperatures 1/(1-lambda) and 1/(1+lambda)") = 0.3,
) -> record(
    reject=flag(),
    first_rejection=integer(low=-1, doc="tokens read until then; -1 if never"),
    log_e_high=real("nats", infinite=True, doc="against hotter sampling, after the last token"),
    log_e_low=real("nats", infinite=True, doc="against colder sampling, after the last token"),
):
    """Whether a text is not from the model, by e-values that may be watched token by token."""
    logs = log_probabilities(step_probabilities, tokens)
    normalisers = by_rows(lambda p: np.log(np.stack([np.sum(p ** (1 - tilt), axis=1, where=p > 0), np.sum(p ** (1 + tilt), axis=1)], axis=1)), step_probabilities)
    high, low = np.cumsum(-tilt * logs - normalisers[:, 0]), np.cumsum(tilt * logs - normalisers[:, 1])
    over = np.logaddexp(high, low) - math.log(2) >= -math.log(alpha)
    return {"reject": bool(over.any()), "first_rejection": int(np.argmax(over)) + 1 if over.any() else -1, "log_e_high": float(high[-1]), "log_e_low": float(low[-1])}


def markov_model(rng, vocab=50):
    """Rows of next-token laws, given the last token, none of its entries below .0004."""
    return 0.98 * rng.dirichlet(np.full(vocab, 0.2), vocab) + 0.02 / vocab


def tempered(law, temperature):
    hot = law ** (1 / temperature)
    return hot / hot.sum(-1, keepdims=True)


def texts(rng, law, number, length):
    """(number, length + 1) tokens; the first is given, not sampled."""
    cumulative, found = np.cumsum(law, axis=1), np.zeros((number, length + 1), int)
    found[:, 0] = rng.integers(0, len(law), number)
    for i in range(length):
        found[:, i + 1] = np.minimum((rng.random((number, 1)) > cumulative[found[:, i]]).sum(1), len(law) - 1)
    return found


def wrong_normaliser(step_probabilities, tokens, *, alpha=0.05, tilt=0.3):
    """Exponent 1 + lambda in the denominator of the e-value against hotter sampling."""
    logs = log_probabilities(step_probabilities, tokens)
    high = np.cumsum(-tilt * logs - np.log(np.sum(step_probabilities ** (1 + tilt), axis=1)))
    return same_model_test(step_probabilities, tokens, tilt=tilt) | {"reject": bool(np.any(high >= math.log(2 / alpha))), "log_e_high": float(high[-1])}


@paper.trial(Coverage(at_most=0.05), of=[same_model_test, gap_error, perplexity_gap], controls={"exponent of the normaliser": wrong_normaliser}, quick=1000, full=5000)
def level_on_own_texts(draw, claim):
    """Texts of 200 tokens of a Markov model are rejected with probability at most alpha, by the e-values at any length and by the threshold of the bound."""
    law, n = markov_model(np.random.default_rng(7)), 200
    text = texts(draw.rng, law, 1, n)[0]
    steps = law[text[:-1]]
    threshold = -math.log(4e-4) * math.sqrt(math.log(2 / 0.05) / (2 * n))
    assert math.isclose(float(gap_error(n, threshold, 4e-4)), 0.05)
    return {"e-values": claim(steps, text[1:], alpha=0.05)["reject"], "bound": abs(perplexity_gap(steps, text[1:])["gap"]) >= threshold}


@paper.trial(Identity(), of=[same_model_test, perplexity_gap], controls={"exponent of the normaliser": wrong_normaliser}, quick=10, full=200)
def means_over_all_texts(draw, claim):
    """Over all 64 texts of three tokens both e-values have mean exactly 1; the gap has mean 0, and the sum of increments the variance that z divides by."""
    law = np.stack([draw.dirichlet(1.0, 4) for _ in range(4)])
    tilt, totals = draw.uniform(0.05, 0.95), np.zeros(4)
    for text in product(range(4), repeat=3):
        steps = law[[0, *text[:-1]]]
        found, gap = claim(steps, np.array(text), tilt=tilt), perplexity_gap(steps, text)
        chance = math.exp(sum(log_probabilities(steps, text)))
        totals += chance * np.array([math.exp(found["log_e_high"]), math.exp(found["log_e_low"]), 1 + gap["gap"], 1 + (3 * gap["gap"]) ** 2 - moments(steps)[:, 1].sum()])
    return totals, np.ones(4), {"tilt": tilt}


def entropies_of_hotter_sampling(token_logprobs, entropies, variances, *, steps):
    return same_model_test_logs(token_logprobs, moments(tempered(steps, 1.2))[:, 0], variances)


def from_logs(token_logprobs, entropies, variances, *, steps):
    return same_model_test_logs(token_logprobs, entropies, variances)


@paper.trial(
    Distribution(within=0.05), of=[same_model_test_logs], claim=from_logs, controls={"entropies at temperature 1.2": entropies_of_hotter_sampling}, quick=3000, full=20_000
)
def z_is_normal(draw, claim):
    """Over texts of 200 tokens the score follows the standard normal law within a Kolmogorov distance of .05."""
    from scipy.stats import norm

    law, z = markov_model(np.random.default_rng(7)), []
    for text in texts(draw.rng, law, draw.size, 200):
        steps = law[text[:-1]]
        z.append(claim(log_probabilities(steps, text[1:]), *moments(steps).T, steps=steps)["z"])
    return Sample(z, cdf=norm.cdf)


def half_the_range(samples, threshold, min_probability):
    return gap_error(samples, threshold, math.sqrt(min_probability))


def quarter_of_the_length(*arguments):
    return max(1, detection_length(*arguments) // 4)


@paper.trial(
    Inequality(),
    of=[gap_error, detection_length],
    claim=(gap_error, detection_length),
    controls={"half the range": (half_the_range, detection_length), "a quarter of the length": (gap_error, quarter_of_the_length)},
    quick=300,
    full=5000,
)
def errors_of_two_tokens(draw, claim):
    """For two tokens, independent from step to step, both errors are binomial tails: they stay below the bound, and at the stated length below what was asked."""
    from scipy.stats import binom

    error, length = claim
    a, b = draw.uniform(0.05, 0.45), draw.uniform(0.5, 0.95)
    span = math.log((1 - a) / a)  # each rare token adds this to the sum of surprises
    n, t = draw.integer(5, 300), draw.log_uniform(0.02, 1)
    alpha, beta = draw.log_uniform(0.01, 0.3), draw.log_uniform(0.01, 0.3)
    far, asked = n * t / span + 1e-9, length((b - a) * span, a, alpha, beta)
    at = -math.log(a) * math.sqrt(math.log(2 / alpha) / (2 * asked)) * asked / span

    def rejected(n, off):
        return binom.sf(math.ceil(n * a + off) - 1, n, a) + binom.cdf(math.floor(n * a - off), n, a)

    missed = binom.cdf(math.ceil(asked * a + at - 1e-9) - 1, asked, b)
    return [rejected(n, far), rejected(asked, at + 1e-9), missed], [float(error(n, t, a)), alpha, beta], {"samples": n, "threshold": t, "min_probability": a, "length": asked}


def own_entropies(steps, tokens):
    """Entropies of the author in the place of the model's."""
    return perplexity_gap(steps, tokens) | {"gap": perplexity_gap(steps, tokens)["log_perplexity"] - moments(tempered(steps, 1.5))[:, 0].mean() - 0.38}


@paper.trial(Guarantee(), of=[perplexity_gap, gap_error], controls={"entropies of the author": own_entropies}, quick=1, full=10)
def misses_fall_exponentially(draw, claim):
    """Texts of the model at temperature 1.5 are missed less and less: log error is linear in the length (R^2 above .95) and the error below its bound."""
    law = markov_model(np.random.default_rng(7))
    hot, t, lengths = tempered(law, 1.5), 0.2, (10, 20, 40, 80)
    least = float(np.min(-np.sum(hot * np.log(law), axis=1) - moments(law)[:, 0]))
    found = texts(draw.rng, hot, 1000, lengths[-1])
    missed = [np.mean([claim(law[text[:n]], text[1 : n + 1])["gap"] < t for text in found]) for n in lengths]
    bounds = [float(gap_error(n, least - t, 4e-4)) / 2 for n in lengths]
    straight = min(missed) > 0 and np.corrcoef(lengths, np.log(missed))[0, 1] < -math.sqrt(0.95)
    return bool(straight and np.all(np.array(missed) <= bounds))


@paper.finding(
    """Another author is not always found: where the cross-entropy happens to equal the model's entropy, the gap settles at zero although each token carries .15 nats of
    divergence: the test by the gap then rejects less often than its level.""",
    trial=level_on_own_texts,
)
def blind_spot():
    model = np.array([0.6, 0.3, 0.1])
    surprise = -np.log(model)
    move = np.cross(np.ones(3), surprise)  # keeps the total and the cross-entropy
    other = model - 0.9 * move / np.max(move / model)
    rng, steps = np.random.default_rng(0), np.tile(model, (2000, 1))
    rejected = np.mean([perplexity_gap(steps, rng.choice(3, 2000, p=other))["p_value"] < 0.05 for _ in range(300)])
    divergence = float(other @ np.log(other / model))
    return {
        "holds": bool(divergence > 0.15 and rejected < 0.05),
        "divergence": divergence,
        "cross_entropy": float(other @ surprise),
        "entropy": float(model @ surprise),
        "rejected": float(rejected),
    }
