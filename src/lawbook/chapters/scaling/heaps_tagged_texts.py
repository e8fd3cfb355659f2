"""Heaps functions: how vocabulary grows along a text, beside the exact law of its random shuffles."""

from itertools import combinations

import numpy as np

from lawbook.contract import Paper, count, either, integer, listing, nonnegative, positive, probability, real, record, seed, text, vector
from lawbook.trials import Coverage, Distribution, Identity, Sample

paper = Paper(
    __name__,
    title="Heaps' law and Heaps functions in tagged texts: Evidences of their linguistic relevance",
    arxiv="2001.02178",
    tags=["heaps law", "vocabulary", "text", "corpus", "word frequency", "shuffling", "diversity"],
    source="known",
    says="""Across books the vocabulary grows as a power of the length. Inside one book it grows nearly as in a random shuffle of the same words, which is no power law;
    the mean and the variance over all shuffles follow from the word counts alone. What deviation is left is systematic: new words come later than chance has it, and by
    an amount that depends on the word class.""",
    notes="""The mean and variance are the hypergeometric ones, as sums over distinct counts. The area between the curves needs no curve: the first of k tokens stands on average
    at (L+1)/(k+1) of a shuffle, so the area is a sum over types. With tags, a type is a word with its tag, and the other classes keep their places in the text. Case and
    punctuation are whatever the caller's tokens make of them. Lower-cased words of three public-domain works gave the areas .027 (Alice in Wonderland), .014 (As You Like It) and
    -.003 (Paradise Lost); all three are late by 5 to 9 standard deviations at their worst, but Paradise Lost is early in its second half.""",
)

TOKENS = either(
    listing(text(), least=1),
    vector("L", of=integer()),
    example=["the", "cat", "saw", "the", "dog", "and", "the", "dog", "saw", "the", "cat", "and", "then", "a", "bird", "saw", "them"],
    doc="words, or their numbers, in order",
)
VECTOR = vector("points", of=nonnegative())


def shuffled_moments(counts, prefix, length):
    """Mean and variance of the types of `counts` among the first n tokens of a shuffle of `length` tokens, for each n of `prefix`."""
    sizes, of_size = np.unique(np.asarray(counts, int), return_counts=True)
    pairs, most = sizes[:, None] + sizes, 2 * int(sizes[-1])
    moments = []
    for n in np.asarray(prefix, int):
        # log m_k = log C(L-k, n)/C(L, n), the chance that none of k tokens is among the first n: exact running sums instead of differences of log-gammas
        with np.errstate(divide="ignore", invalid="ignore"):
            left = np.maximum(length - np.arange(most), 1)
            log_missed = np.concatenate([[0.0], np.cumsum(np.log1p(-np.minimum(n / left, 1.0)))])
            single, twice = log_missed[sizes], log_missed[pairs]
            both = single[:, None] + single
            covariance = np.where(np.isfinite(twice), np.exp(both) * np.expm1(twice - both), -np.exp(both))
        seen = -np.expm1(single)
        variance = of_size @ (seen * (1 - seen) - np.diag(covariance)) + of_size @ covariance @ of_size
        mean = float(of_size @ seen)
        moments.append((mean, variance if n < length and variance > 1e-12 * mean else 0.0))  # below that: rounding of a variance of zero
    return np.array(moments).T


@paper.law(
    r"\bar V(n) = \sum_w (1 - m_w),\quad \sigma^2 = \sum_w m_w (1 - m_w) + \sum_{u \ne w} (m_{uw} - m_u m_w),\quad m_w = \binom{L - n_w}{n} \Big/ \binom{L}{n}",
    requires={
        "prefix must be at most the tokens of the text": lambda prefix, counts, length: prefix.max() <= (counts.sum() if length is None else length),
        "length must be at least the sum of counts": lambda length, counts: length is None or length >= counts.sum(),
    },
)
def shuffled_vocabulary(
    counts: vector("types", of=count("tokens", typical=(1, 20)), doc="occurrences of each type", example=[50, 20, 10, 5, 3, 2, 1, 1, 1, 1, 1]),
    prefix: vector("points", of=count("tokens", low=0, typical=(1, 6)), doc="n: tokens read", example=[20]),
    *,
    length: count("tokens", typical=(100, 1000), doc="L: tokens of the whole text, where the counts are those of one class; by default their sum") = None,
) -> record(mean=VECTOR, sd=VECTOR):
    """Mean and standard deviation of the number of types among the first n tokens of a random shuffle."""
    mean, variance = shuffled_moments(counts, prefix, int(np.sum(counts)) if length is None else length)
    return {"mean": mean, "sd": np.sqrt(variance)}


def numbered(tokens):
    """Each token's type as a number, the index of each type's first token, and the types' counts."""
    _, first, number, counts = np.unique(np.asarray(tokens), return_index=True, return_inverse=True, return_counts=True)
    return number, first, counts


@paper.measure(r"V(n) = |\{w_1, \dots, w_n\}|")
def heaps_function(tokens: TOKENS) -> vector("L", of=count("types")):
    """Number of different types among the first 1, 2, ..., L tokens."""
    new = np.zeros(len(tokens), int)
    new[numbered(tokens)[1]] = 1
    return np.cumsum(new)


CURVES = {
    "prefix": vector("points", of=count("tokens"), doc="n, from 1 to L, evenly on a log scale"),
    "observed": vector("points", of=count("types", low=0)),
    "expected": VECTOR,
    "sd": VECTOR,
    "z": vector("points", of=real(), doc="deviation in standard deviations, negative where new words are late; 0 where no shuffle deviates"),
    "area": real(low=-1, high=1, doc="mean gap between expected and observed curve as a share of the vocabulary; positive: late"),
}


def compared(first, counts, length, points):
    """Observed curve against the shuffles', for types with these counts and places of first occurrence."""
    prefix = np.unique(np.rint(np.geomspace(1, length, points)).astype(int))
    observed = np.searchsorted(np.sort(first), prefix)
    mean, variance = shuffled_moments(counts, prefix, length)
    sd = np.sqrt(variance)
    z = np.where(sd > 0, (observed - mean) / np.where(sd > 0, sd, 1), 0.0)
    area = float(np.mean(first + 1 - (length + 1) / (counts + 1)) / length)
    return {"prefix": prefix, "observed": observed, "expected": mean, "sd": sd, "z": z, "area": area}


@paper.measure(
    r"z(n) = \frac{V(n) - \bar V(n)}{\sigma(n)},\quad R = \frac{1}{L V(L)} \sum_{n=1}^{L} (\bar V(n) - V(n))",
    requires={"tags must be as many as the tokens": lambda tags, tokens: tags is None or len(tags) == len(tokens)},
    sample=lambda rng: {"tokens": (tokens := rng.integers(9, size=rng.integers(2, 60))), "tags": [["noun", "verb"][t % 2] for t in tokens], "points": int(rng.integers(2, 60))},
)
def retardation(
    tokens: TOKENS, *, tags: listing(text(), doc="class of each token") = None, points: count("lengths", low=2, typical=(2, 100), doc="lengths at which to compare") = 50
) -> record(**CURVES, by_tag=listing(record(tag=text(), **CURVES), doc="the same for the types of each class; empty without tags")):
    """Vocabulary growth of a text against that of its shuffles, overall and for each class of words."""
    _, first, counts = numbered(tokens)
    by_tag = []
    for tag in [] if tags is None else dict.fromkeys(tags):
        places = np.flatnonzero(np.asarray(tags) == tag)
        _, own, own_counts = numbered(np.asarray(tokens)[places])
        by_tag.append({"tag": tag, **compared(places[own], own_counts, len(tokens), points)})
    return {**compared(first, counts, len(tokens), points), "by_tag": by_tag}


@paper.law(
    r"V = K L^\beta:\quad \ln V = \ln K + \beta \ln L + \varepsilon",
    requires={"lengths must hold at least two different lengths": lambda lengths: lengths.max() > lengths.min() * (1 + 1e-9)},
)
def fit_heaps(
    lengths: vector("n", of=positive("tokens", typical=(1e3, 1e6)), least=2, doc="tokens of each text", example=[1e3, 1e4, 1e5, 1e6]),
    vocabularies: vector("n", of=positive("types", typical=(1e2, 1e4)), least=2, doc="types of each text", example=[300.0, 1150.0, 4600.0, 19000.0]),
    *,
    bootstrap: count("resamples", low=50, typical=(50, 300)) = 200,
    seed: seed() = 0,
) -> record(
    K=positive(infinite=True),
    beta=real(),
    ci=vector(2, of=real(), doc="95 % interval of beta, from resampled texts"),
    r2=probability(doc="explained share of the variance of ln V"),
):
    """Heaps' law across texts by least squares on logarithms, with a bootstrap over the texts."""
    x, y = np.log(lengths), np.log(vocabularies)
    rows = np.vstack([np.arange(len(x)), np.random.default_rng(seed).integers(len(x), size=(bootstrap, len(x)))])  # first the data as they are
    dx, dy = (v[rows] - v[rows].mean(1, keepdims=True) for v in (x, y))
    spread = (dx**2).sum(1)
    usable = spread > 1e-9 * spread[0]  # a resample of one length only has no slope
    slopes = (dx * dy).sum(1)[usable] / spread[usable]
    beta, varied = float(slopes[0]), float((dy[0] ** 2).sum())
    with np.errstate(over="ignore"):
        constant = float(np.exp(y.mean() - beta * x.mean()))
    return {"K": constant, "beta": beta, "ci": np.quantile(slopes[1:], (0.025, 0.975)), "r2": min(float(beta**2 * spread[0] / varied), 1.0) if varied > 0 else 1.0}


def with_replacement(counts, prefix, *, length=None):
    """The binomial approximation, types independent of each other."""
    total = sum(counts) if length is None else length
    missed = (1 - np.asarray(prefix)[:, None] / total) ** np.asarray(counts)
    return {"mean": (1 - missed).sum(1), "sd": np.sqrt((missed * (1 - missed)).sum(1))}


def independent_types(counts, prefix, *, length=None):
    alone = [shuffled_vocabulary([k], prefix, length=sum(counts) if length is None else length)["mean"] for k in counts]
    return {"mean": sum(alone), "sd": np.sqrt(sum(p * (1 - p) for p in alone))}


@paper.trial(
    Identity(rtol=1e-9, atol=1e-9), of=[shuffled_vocabulary], controls={"binomial approximation": with_replacement, "types independent": independent_types}, quick=20, full=400
)
def enumeration(draw, claim):
    """Mean and variance agree with listing every set of places that a prefix can hold, for all the types or one class."""
    tokens = np.array([draw.integer(0, 4) for _ in range(draw.integer(3, 11))])
    n = draw.integer(1, len(tokens) - 1)
    mine = tokens % 2 == 0 if draw.integer(0, 1) and (tokens % 2 == 0).any() else tokens >= 0
    seen = [len(set(tokens[list(places)][mine[list(places)]])) for places in combinations(range(len(tokens)), n)]
    found = claim(numbered(tokens[mine])[2], [n], length=len(tokens))
    return [np.mean(seen), np.var(seen)], [found["mean"][0], found["sd"][0] ** 2], {"tokens": tokens, "prefix": n}


def binomial_deviation(tokens, *, points):
    curves = retardation(tokens, points=points)
    law = with_replacement(numbered(tokens)[2], curves["prefix"])
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"z": (curves["observed"] - law["mean"]) / law["sd"]}


@paper.trial(Distribution(level=0.01), of=[retardation], controls={"binomial approximation": binomial_deviation}, quick=200, full=1000)
def deviation_of_shuffles(draw, claim):
    """In texts that are shuffled in truth, the deviation after a sixth and after two fifths of the text is standard normal."""
    from scipy.stats import norm

    tokens = np.repeat(np.arange(3320), [50, 30, 20, 10] * 30 + [3, 2] * 400 + [1] * 2400)
    z = np.array([claim(draw.rng.permutation(tokens), points=11)["z"][[-3, -2]] for _ in range(draw.size)])
    return {"after a sixth": Sample(z[:, 0], cdf=norm.cdf), "after two fifths": Sample(z[:, 1], cdf=norm.cdf)}


def without_expected_place(tokens, *, tags=None, points=50):
    curves = retardation(tokens, tags=tags, points=points)
    _, first, counts = numbered(tokens)
    return curves | {"area": float(np.mean(first + 1 - len(tokens) / (counts + 1)) / len(tokens))}


@paper.trial(
    Identity(rtol=1e-9, atol=1e-12), of=[retardation, heaps_function, shuffled_vocabulary], controls={"first place expected at L/(k+1)": without_expected_place}, quick=20, full=300
)
def area_between_curves(draw, claim):
    """The area is the sum of the gaps between the two curves, positive for a bursty text and negative for one that opens with all its words; classes add up to the whole."""
    words = [draw.integer(0, 12) for _ in range(draw.integer(20, 60))]
    found = claim(words, tags=[str(w % 3) for w in words], points=9)
    expected = shuffled_vocabulary(numbered(words)[2], np.arange(1, len(words) + 1))["mean"]
    observed = heaps_function(words)
    summed = [sum(tag[name] for tag in found["by_tag"]) for name in ("observed", "expected")]
    bursty, front = np.repeat(np.arange(20), 1 + np.arange(20) % 7), np.concatenate([np.arange(20), np.zeros(40, int)])
    signs = [np.sign(claim(text, points=9)["area"]) for text in (bursty, front)]
    left = [found["area"], *found["observed"], *found["expected"], *signs]
    return left, [(expected - observed).sum() / len(words) / observed[-1], *summed[0], *summed[1], 1, -1], {"area": found["area"]}


def unlogged(lengths, vocabularies, *, seed):
    """The exponent as read off a straight line through plain counts."""
    return {"ci": fit_heaps(np.exp(lengths / lengths.max()), np.exp(vocabularies / vocabularies.max()), seed=seed)["ci"]}


@paper.trial(Coverage(at_most=0.1), of=[fit_heaps], controls={"straight line through plain counts": unlogged}, quick=400, full=4000)
def interval_of_exponent(draw, claim):
    """Over 75 texts with scatter that grows with their length, the 95 % interval misses the true exponent in at most one of ten corpora."""
    beta, lengths = draw.uniform(0.4, 0.8), draw.log_uniform(1e3, 3e5, size=75)
    noise = draw.rng.normal(size=75) * 0.05 * np.log(lengths / 500)
    low, high = claim(lengths, 20 * lengths**beta * np.exp(noise), seed=int(draw.rng.integers(2**31)))["ci"]
    return not low <= beta <= high
