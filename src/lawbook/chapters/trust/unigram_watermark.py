"""A watermark by one fixed green list: detection with exact levels, the edits that erase it, and what it costs in quality."""

import hashlib
import math

import numpy as np

from lawbook.contract import Paper, count, distribution, flag, integer, nonnegative, positive, probability, real, record, seed, vector
from lawbook.numerics import arrays
from lawbook.numerics.statistics import normal_quantile
from lawbook.trials import Coverage, Estimate, Identity, Inequality

paper = Paper(
    __name__,
    title="Provable Robust Watermarking for AI-Generated Text",
    arxiv="2306.17439",
    tags=["watermark", "detection", "provenance", "robustness", "editing", "p-value", "text generation"],
    source="code",
    says="""One secret random share of the vocabulary is green, and generation adds a constant to the logits of its tokens. Counting green tokens then reveals the mark.
    As the list never depends on context, many tokens must be edited to hide it, and each next-token distribution moves by a bounded amount, so that quality is kept.""",
    notes="""Scores follow the authors' code with the true green share |G|/V (its int(share V) makes that a little smaller than asked). The exact test (hypergeometric over distinct
    tokens) and the variance under repetition are derived here; so is the edit bound, whose minimum over all edits was found by exhaustion, and which has the form of the
    paper's with exact constants.""",
)

TOKENS = vector("T", of=integer(low=0, high=2**31, typical=(0, 9)), most=40, doc="token ids", example=[0, 2, 2, 5, 7, 2, 9, 5, 0, 1, 8, 2])
GREEN = vector("V", of=flag(), least=2, doc="true where a token of the vocabulary is green", example=[1, 0, 1, 0, 0, 1, 0, 1, 0, 0])
MIXED = {"green must hold green tokens and others": lambda green: 0 < np.sum(green) < len(green)}
FRACTION = probability(above=True, below=True, typical=(0.1, 0.9), doc="green share of the vocabulary", example=0.5)
TOTAL = count("tokens", typical=(10, 2000), doc="length of the text", example=200)
GREEN_COUNT = count("tokens", low=0, typical=(5, 2000), doc="green tokens in the text", example=150)
AT_MOST = {"green_count must be at most total": lambda green_count, total: green_count <= total}


def draw_text(rng):
    size = int(rng.integers(4, 30))
    return {"tokens": rng.integers(0, size, int(rng.integers(1, 60))), "green": rng.permutation(np.arange(size) < rng.integers(1, size)), "alpha": float(rng.uniform(1e-3, 0.2))}


def draw_steps(rng):
    green = draw_text(rng)["green"]
    return {"probabilities": rng.dirichlet(np.ones(len(green)), 3), "green": green, "delta": float(rng.uniform(0.1, 5)), "length": int(rng.integers(10, 2000))}


def draw_counts(rng):
    total = int(rng.integers(10, 2000))
    return {"total": total, "green_count": int(rng.integers(0, total + 1)), "fraction": float(rng.uniform(0.1, 0.9))}


@paper.algorithm(
    r"G \subset [V] \text{ uniform among the sets of size } \lfloor \gamma V \rfloor",
    requires={"fraction must leave at least one token green and one not": lambda vocab_size, fraction: 1 <= int(fraction * vocab_size) < vocab_size},
)
def green_list(vocab_size: count("tokens", low=2, typical=(10, 5000), high=100_000_000, example=50257), fraction: FRACTION, *, seed: seed() = 0) -> vector("vocab_size", of=flag()):
    """The secret green list of a key, bit for bit that of the authors' code for the same key."""
    key = int.from_bytes(hashlib.sha256(int(seed).to_bytes(8, "little")).digest()[:4], "little")
    mask = np.arange(vocab_size) < int(fraction * vocab_size)
    np.random.default_rng(key).shuffle(mask)
    return mask


@paper.measure(
    r"z = \frac{G_n - \gamma T}{\sqrt{\gamma (1-\gamma) T}},\quad \mathrm{Var}\, G_n = \gamma (1-\gamma) \Big[S_2 - \frac{T^2 - S_2}{V-1}\Big],\quad "
    r"p = \Pr[X \ge g],\ X \sim \mathrm{Hyp}(V, |G|, m)",
    requires={**MIXED, "tokens must lie below the size of green": lambda tokens, green: np.max(tokens) < len(green)},
    sample=draw_text,
    assumes=["The text was written without knowledge of the list, which is uniformly random."],
)
def detect_watermark(tokens: TOKENS, green: GREEN, *, alpha: probability(above=True, below=True, typical=(1e-3, 0.2), doc="level of the test") = 0.01) -> record(
    z=real(doc="score of the authors' code over all tokens"),
    z_corrected=real(doc="with the exact variance for this text's repetitions; 0 where every list gives the same count"),
    z_unique=real(doc="score over distinct tokens"),
    threshold_unique=real(doc="what the code compares z_unique with"),
    p_exact=probability(doc="exact p-value over distinct tokens"),
    flagged=flag(),
):
    """Scores and an exact p-value of a text against a green list; flagged where the exact p-value is below alpha."""
    from scipy.stats import hypergeom

    listed, vocab = np.asarray(green, bool), len(green)
    distinct, counts = np.unique(np.asarray(tokens), return_counts=True)
    in_green, size = listed[distinct], int(listed.sum())
    total, m, hits, distinct_hits = int(counts.sum()), len(distinct), int(counts[in_green].sum()), int(in_green.sum())
    share = size / vocab
    variance = share * (1 - share)
    # over random lists the counts are drawn without replacement: S2 - (T^2 - S2)/(V - 1), in whole numbers
    spread = vocab * sum(int(c) ** 2 for c in counts) - total**2
    p = float(np.clip(hypergeom.sf(distinct_hits - 1, vocab, size, m), 0, 1))
    return {
        "z": (hits - share * total) / math.sqrt(variance * total),
        "z_corrected": (hits - share * total) / math.sqrt(variance * spread / (vocab - 1)) if spread else 0.0,
        "z_unique": (distinct_hits - share * m) / math.sqrt(variance * m),
        "threshold_unique": math.sqrt((vocab - m) / (vocab - 1)) * normal_quantile(alpha),
        "p_exact": p,
        "flagged": p < alpha,
    }


@paper.bound(
    r"z' \ge \frac{\max(G_n - \eta, 0) - \gamma T}{\sqrt{\gamma (1-\gamma) T}}",
    requires=AT_MOST,
    closed_form=True,
    sample=lambda rng: draw_counts(rng) | {"edits": int(rng.integers(0, 200))},
    assumes=["The answer is above 0: below, the mark is gone and deletions could bring the score lower still."],
)
def edit_robustness(
    green_count: GREEN_COUNT, total: TOTAL, fraction: FRACTION, edits: count("edits", low=0, typical=(1, 200), doc="insertions, deletions and substitutions", example=20)
) -> real():
    """Smallest score that any such number of edits can leave, reached by substituting green tokens; a minimum as long as it is above 0."""
    xp, hits, length, share, eta = arrays(green_count, total, fraction, edits)
    return (xp.where(hits > eta, hits - eta, 0.0) - share * length) / xp.sqrt(share * (1 - share) * length)


@paper.bound(r"\eta^* = \max\big(0, \lceil G_n - \gamma T - \tau \sqrt{\gamma (1-\gamma) T} \rceil\big)", requires=AT_MOST, sample=draw_counts)
def edits_to_erase(
    green_count: GREEN_COUNT, total: TOTAL, fraction: FRACTION, threshold: nonnegative(typical=(0, 8), doc="score at which a text is no longer flagged") = 6.0
) -> count("edits", low=0):
    """Smallest number of insertions, deletions and substitutions that can bring the score down to the threshold."""
    excess = green_count - fraction * total - threshold * math.sqrt(fraction * (1 - fraction) * total)
    return max(0, math.ceil(excess - 1e-9))


@paper.law(
    r"\hat g = \frac{s e^\delta}{1 - s + s e^\delta},\quad \mathrm{E} z = \sqrt{T}\, \frac{\overline{\hat g} - \gamma}{\sqrt{\gamma (1-\gamma)}},\quad "
    r"\mathrm{KL}(\hat p \| p) \le \min(\delta, \delta^2/8)",
    requires=MIXED,
    sample=draw_steps,
)
def watermark_strength(
    probabilities: distribution("n", "V", doc="next-token distributions before the mark", example=[[0.3, 0.1, 0.2, 0.4], [0.97, 0.01, 0.01, 0.01]]),
    green: vector("V", of=flag(), least=2, doc="true where a token is green", example=[1, 0, 0, 1]),
    delta: positive(typical=(0.1, 5), doc="added to the logits of green tokens", example=2.0),
    *,
    length: count("tokens", typical=(10, 2000), doc="of the generated text", example=200),
) -> record(
    green_probability=vector("n", of=probability()),
    expected_z=real(doc="of a text of this length whose steps look like the given ones"),
    kl_cost=vector("n", of=nonnegative("nats")),
    kl_bound=positive("nats", doc="holds for either direction of the divergence"),
):
    """What the mark does to given next-token distributions: green probability, expected score, and cost in nats beside its bound."""
    from scipy.special import expit, logit

    listed = np.asarray(green, bool)
    s = np.clip(np.asarray(probabilities, float)[:, listed].sum(-1), 0, 1)
    lifted = expit(logit(s) + delta)
    share = listed.mean()
    with np.errstate(divide="ignore"):
        cost = delta * lifted - np.logaddexp(np.log1p(-s), np.log(s) + delta)
    return {
        "green_probability": lifted,
        "expected_z": float(math.sqrt(length) * (lifted.mean() - share) / math.sqrt(share * (1 - share))),
        "kl_cost": np.maximum(cost, 0),
        "kl_bound": min(delta, delta**2 / 8),
    }


def zipf_text(rng, vocab, length, distinct=None):
    """A text of a Zipf law, or one of `length` distinct tokens where `distinct` is set."""
    if distinct:
        return rng.choice(vocab, length, replace=False)
    weights = 1 / np.arange(1, 41) ** 1.3
    return rng.permutation(vocab)[rng.choice(40, length, p=weights / weights.sum())]


def plain_score(tokens, green, *, alpha):
    return {"flagged": detect_watermark(tokens, green)["z"] > normal_quantile(alpha)}


def threshold_of_the_code(tokens, green, *, alpha):
    found = detect_watermark(tokens, green, alpha=alpha)
    return {"flagged": found["z_unique"] > found["threshold_unique"]}


TEXTS = {"repetitive": zipf_text(np.random.default_rng(0), 500, 200), "varied": zipf_text(np.random.default_rng(1), 500, 200, distinct=True), "short": np.array([3, 1, 4, 1])}


@paper.trial(
    Coverage(at_most=0.05),
    of=[detect_watermark, green_list],
    controls={"score of the code over all tokens": plain_score, "normal threshold over distinct tokens": threshold_of_the_code},
    quick=1000,
    full=6000,
)
def false_alarms(draw, claim):
    """Texts written without the list, repetitive, varied or short, are flagged with probability at most alpha over the lists."""
    green = green_list(500, 0.5, seed=draw.integer(0, 2**62))
    return {name: claim(tokens, green, alpha=0.05)["flagged"] for name, tokens in TEXTS.items()}


@paper.trial(
    Coverage(at_most=0.05),
    of=[detect_watermark, green_list],
    controls={"score of the code over all tokens": plain_score, "normal threshold over distinct tokens": threshold_of_the_code},
    data="watermark-example",
    quick=1000,
    full=6000,
)
def false_alarms_on_real_text(draw, claim, data):
    """Answers that people wrote, word by word, and their first two distinct words alone, are flagged with probability at most alpha over the lists; common words recur."""
    texts = [" ".join(row["continuations"]).lower().split() for row in data]
    words = {word: i for i, word in enumerate(dict.fromkeys(word for text in texts for word in text))}
    ids = [np.array([words[word] for word in text]) for text in texts]
    green = green_list(5000, 0.1, seed=draw.integer(0, 2**62))
    return {
        **{f"answers to {row['prompt'][:30]}": claim(text, green, alpha=0.05)["flagged"] for row, text in zip(data, ids, strict=True)},
        "two words": claim(ids[0][:2], green, alpha=0.05)["flagged"],
    }


def binomial_tail(tokens, green):
    from scipy.stats import binom

    distinct = np.unique(tokens)
    return detect_watermark(tokens, green) | {"p_exact": float(binom.sf(np.sum(green[distinct]) - 1, len(distinct), np.mean(green)))}


@paper.trial(Identity(), of=[detect_watermark], controls={"binomial in the place of hypergeometric": binomial_tail}, quick=100, full=3000)
def exact_p_value(draw, claim):
    """The p-value is the share of all lists of that size with as many green among the distinct tokens, counted in whole numbers."""
    vocab = draw.integer(5, 60)
    size, m = draw.integer(1, vocab - 1), draw.integer(2, vocab)
    green, tokens = draw.rng.permutation(vocab) < size, np.repeat(draw.rng.permutation(vocab)[:m], 2)
    hits = int(green[tokens].sum()) // 2
    ways = sum(math.comb(m, k) * math.comb(vocab - m, size - k) for k in range(hits, min(m, size) + 1))
    return claim(tokens, green)["p_exact"], ways / math.comb(vocab, size), {"vocab": vocab, "green": size, "distinct": m}


def not_corrected(tokens, green):
    found = detect_watermark(tokens, green)
    return found | {"z_corrected": found["z"]}


@paper.trial(Identity(), of=[detect_watermark, green_list], controls={"variance of distinct tokens": not_corrected}, quick=2, full=20)
def variance_under_repetition(draw, claim):
    """Over random lists the corrected score of a fixed repetitive text has mean 0 and variance 1."""
    vocab, fraction = draw.integer(50, 400), draw.uniform(0.1, 0.9)
    tokens = zipf_text(draw.rng, vocab, 100)
    z = np.array([claim(tokens, green_list(vocab, fraction, seed=int(key)))["z_corrected"] for key in draw.rng.integers(2**60, size=1000)])
    return Estimate.of(np.stack([z, z**2], -1)), [0, 1], {"vocab": vocab, "fraction": fraction}


def without_lift(probabilities, green, delta, *, length):
    return watermark_strength(probabilities, green, 1e-12, length=length)


@paper.trial(Identity(rtol=1e-8, atol=1e-12), of=[watermark_strength, detect_watermark], controls={"green mass before the mark": without_lift}, quick=5, full=60)
def generated_texts(draw, claim):
    """Next-token laws are shifted by adding delta to logits, texts drawn from them and scored: green probability, cost and mean score are as stated."""
    vocab, rows, delta = draw.integer(4, 40), draw.integer(1, 5), draw.uniform(0.1, 4)
    green, p = draw.rng.permutation(vocab) < draw.integer(1, vocab - 1), draw.rng.dirichlet(np.ones(vocab), rows)
    marked = p * np.exp(delta * green)
    marked /= marked.sum(1, keepdims=True)
    length = 20 * rows
    texts = np.stack([draw.rng.choice(vocab, (300, 20), p=row) for row in marked], -1).reshape(300, length)
    z = Estimate.of([detect_watermark(tokens, green)["z"] for tokens in texts])
    stated = claim(p, green, delta, length=length)
    direct = np.concatenate([marked[:, green].sum(1), np.sum(marked * np.log(marked / p), 1)])
    return Estimate([z.value, *direct], [z.error, *np.zeros(2 * rows)]), [stated["expected_z"], *stated["green_probability"], *stated["kl_cost"]], {"delta": delta}


def half_the_bound(probabilities, green, delta, *, length):
    found = watermark_strength(probabilities, green, delta, length=length)
    return found | {"kl_bound": found["kl_bound"] / 2}


@paper.trial(Inequality(reaches=0.999), of=[watermark_strength], controls={"delta^2/16": half_the_bound}, quick=300, full=20_000)
def quality_is_kept(draw, claim):
    """Both Kullback-Leibler divergences stay within min(delta, delta^2/8), and that of Renyi's order a within min(delta, a delta^2/8)."""
    vocab, delta, order = draw.integer(2, 12), draw.log_uniform(0.01, 20), draw.uniform(1.01, 10)
    p, green = draw.dirichlet(1.0, vocab), np.arange(vocab) < draw.integer(1, vocab - 1)
    shift = delta * green - np.log(np.sum(p * np.exp(delta * green)))  # log of the ratio of the two laws
    bound = claim(p[None], green, delta, length=1)["kl_bound"]
    renyi = np.log(np.sum(p * np.exp(order * shift))) / (order - 1)
    return [p @ (np.exp(shift) * shift), -p @ shift, renyi], [bound, bound, min(delta, order * bound)], {"delta": delta, "order": order}


def reachable(green_count, total, edits):
    """All (green, total) that one text can be brought to by each number of edits: lists of sets, of every substitution, deletion and insertion."""
    states = [{(green_count, total)}]
    for _ in range(edits):
        moves = {(g + a, t + b) for g, t in states[-1] for a, b in ((-1, 0), (1, 0), (-1, -1), (0, -1), (1, 1), (0, 1))}
        states.append(states[-1] | {(g, t) for g, t in moves if 0 <= g <= t and t >= 1})
    return states


def insertion_is_worst(green_count, total, fraction, edits):
    return edit_robustness(green_count, total + edits, fraction, 0)


def deletion_is_worst(green_count, total, fraction, edits):
    return edit_robustness(green_count - edits, total - edits, fraction, 0)


@paper.trial(
    Identity(),
    of=[edit_robustness, edits_to_erase],
    controls={"insertion is the worst edit": insertion_is_worst, "deletion is the worst edit": deletion_is_worst},
    quick=100,
    full=3000,
)
def every_edit(draw, claim):
    """Against all texts within reach of up to 7 edits: the smallest score while it is above 0, and the first number of edits that meets a threshold."""
    total, fraction, edits = draw.integer(10, 60), draw.uniform(0.1, 0.7), draw.integer(1, 7)
    hits = draw.integer(min(total, math.ceil(fraction * total) + 2), total)
    least = [min((g - fraction * t) / math.sqrt(fraction * (1 - fraction) * t) for g, t in states) for states in reachable(hits, total, edits)]
    threshold = max(least[-1], 0) + draw.uniform() * (least[0] - max(least[-1], 0))
    first = next(k for k, z in enumerate(least) if z <= threshold + 1e-9)
    above = [k for k, z in enumerate(least) if z > 0]
    return (
        [least[k] for k in above] + [first],
        [claim(hits, total, fraction, k) for k in above] + [edits_to_erase(hits, total, fraction, threshold)],
        {"total": total, "green": hits},
    )


@paper.finding(
    """The score over all tokens is no test on text that repeats itself: its variance over lists is larger by about S2/T. On an unmarked Zipf text of 200 tokens the one percent
    threshold raises an alarm for more than a third of the lists, and even z > 6 for one in seven; the exact test over distinct tokens keeps its level.""",
    trial=false_alarms,
)
def plain_score_over_rejects():
    repeated, varied = [], []
    for key in range(2000):
        green = green_list(500, 0.5, seed=key)
        for name, kept in (("repetitive", repeated), ("varied", varied)):
            found = detect_watermark(TEXTS[name], green)
            kept.append((found["z"] > normal_quantile(0.01), found["flagged"], found["z"] > 6))
    (plain, exact, six), (plain_varied, exact_varied, _) = np.mean(repeated, 0).tolist(), np.mean(varied, 0).tolist()
    return {"holds": plain > 1 / 3 and six > 0.1 and exact < 0.02, "plain": plain, "exact": exact, "plain_varied": plain_varied, "exact_varied": exact_varied, "above_6": six}


@paper.finding(
    """The threshold of the code over distinct tokens corrects the variance but keeps the normal quantile, which short texts and small green shares do not obey: with a tenth of
    the vocabulary green, two distinct green tokens are flagged at level 1e-4, which happens to 1 unmarked text in 100.""",
    trial=false_alarms,
)
def normal_threshold_fails_short_texts():
    green = np.arange(50_000) < 5000
    found = detect_watermark([0, 1], green, alpha=1e-4)
    return {"holds": found["z_unique"] > found["threshold_unique"] and found["p_exact"] > 0.009, **{key: found[key] for key in ("z_unique", "threshold_unique", "p_exact")}}
