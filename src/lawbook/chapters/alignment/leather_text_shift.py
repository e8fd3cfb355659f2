"""Generated text judged by tests of many goals: paired test divergence, energy distance as a shift statistic, and lexical diversity."""

import itertools
import math
import re

import numpy as np

from lawbook.contract import DomainError, Paper, listing, matrix, nonnegative, probability, real, record, text, vector
from lawbook.numerics import arrays
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="LEATHER: A Framework for Learning to Generate Human-like Text in Dialogue",
    arxiv="2210.07777",
    tags=["dialogue", "text generation", "evaluation", "distribution shift", "energy distance", "two-sample", "lexical diversity"],
    source="derived",
    says="""Dialogue has many goals at once, so its quality is a list of test functions (success at the task, diversity of words, kinds of questions), and a generator
    is judged by how far its test values are from the human ones on the same contexts. When the data shift, the new error is at most the old one plus a discrepancy;
    in practice an energy statistic between two sets of text features stands for that discrepancy.""",
    notes="""The paper's proofs were not seen: the parts here are elementary and exact, and their link to its own constants is uncertain. The change of test divergence under a
    shift is at most the total variation between the two, with factor 1 because tests lie in [0, 1]. SciPy's energy_distance is the square root of the one here.""",
)

LARGEST = 5_000_000_000  # distances that are computed in more than one dimension
TESTS = probability(typical=(0, 1))
SAMPLE = real(typical=(-2, 2))


@paper.measure(r"\mathrm{TD} = \frac1n \sum_i |h(D_i) - h(D'_i)| \ge |\bar h(D) - \bar h(D')|", gives={"divergence": 0.3, "mean_gap": 0.1})
def test_divergence(
    human: vector("n", of=TESTS, doc="test value of the human text for each context", example=[0.2, 0.9, 0.5, 0.4]),
    generated: vector("n", of=TESTS, doc="test value of the generated text for the same contexts, in the same order", example=[0.6, 0.5, 0.5, 0.8]),
) -> record(divergence=probability(), mean_gap=probability(doc="difference of the means, which hides differences that cancel")):
    """Mean distance of generated from human test values over paired contexts, and the distance of their means."""
    gap = np.asarray(human, float) - np.asarray(generated, float)
    return {"divergence": float(np.mean(np.abs(gap))), "mean_gap": float(abs(np.mean(gap)))}


def mean_distance(x, y):
    from scipy.spatial.distance import cdist

    rows = max(1, 4_000_000 // len(y))
    return sum(cdist(x[i : i + rows], y).sum() for i in range(0, len(x), rows)) / (len(x) * len(y))


@paper.measure(
    r"E = \frac{2}{nm}\sum_{ij} \|x_i - y_j\| - \frac{1}{n^2} \sum_{ij} \|x_i - x_j\| - \frac{1}{m^2} \sum_{ij} \|y_i - y_j\|",
    requires={"x must have at least 2 rows": lambda x: len(x) > 1, "y must have at least 2 rows": lambda y: len(y) > 1},
)
def energy_distance(
    x: matrix("n", "d", of=SAMPLE, doc="features of the texts of one population", example=[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
    y: matrix("m", "d", of=SAMPLE, doc="features of the texts of the other", example=[[1.0, 1.0], [2.0, 1.0]]),
) -> nonnegative():
    """Energy distance of two samples; zero only if they are equally distributed.

    It compares the samples as they are (zero diagonals included): between two samples of one population it is about E|X-X'| (1/n + 1/m)."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape[1] == 1:  # twice the integral of the squared difference of the distribution functions
        both = np.concatenate([x[:, 0], y[:, 0]])
        order = np.argsort(both, kind="stable")
        gap = np.cumsum(np.where(order < len(x), 1 / len(x), -1 / len(y)))[:-1]
        return float(2 * np.sum(gap**2 * np.diff(both[order])))
    if (asked := len(x) * len(y) + len(x) ** 2 + len(y) ** 2) > LARGEST:
        raise DomainError(f"x and y ask for {asked:.3g} distances; at most {LARGEST:.3g} can be computed in more than one dimension: give samples of the rows.")
    return max(float(2 * mean_distance(x, y) - mean_distance(x, x) - mean_distance(y, y)), 0.0)


@paper.bound(r"|\mathbb{E} X - \mathbb{E} Y| \le \int |F - G| \le \sqrt{E / 2}", assumes=["One test, with values in [0, 1]."], closed_form=True, gives=1.0)
def mean_gap_from_energy(energy: nonnegative(typical=(0, 2), doc="energy distance of the test values", example=2.0)) -> nonnegative():
    """Largest difference between the means of two populations of test values at this energy distance; attained by all zeros against all ones."""
    xp, energy = arrays(energy)
    return xp.sqrt(energy / 2)


@paper.measure(
    r"\frac{|\text{types}|}{|\text{tokens}|},\quad \frac{|\text{distinct bigrams}|}{|\text{bigrams}|}",
    requires={"texts must hold at least one word": lambda texts: any(map(str.split, texts))},
    gives={"type_token": 0.625, "distinct_2": 0.8333},
)
def lexical_diversity(
    texts: listing(text(), doc="pooled; lower-cased and split at white space, bigrams within texts", example=["Is it red ?", "is it blue ?"]),
) -> record(type_token=probability(), distinct_2=probability(nan=True, doc="NaN where no text has two words")):
    """Share of different words among all words, and of different bigrams among all bigrams; both fall with the amount of text."""
    words = [words for words in (entry.lower().split() for entry in texts) if words]
    bigrams = len(pooled := list(itertools.chain.from_iterable(map(itertools.pairwise, words))))
    return {
        "type_token": len(set(itertools.chain.from_iterable(words))) / sum(map(len, words)),
        "distinct_2": len(set(pooled)) / bigrams if bigrams else math.nan,
    }


def random_tests(draw):
    """Paired test values, between spread out and nearly all 0 or 1."""
    odds = draw.log_uniform(0.5, 50) * draw.normal(size=(2, draw.integer(2, 12)))
    return 1 / (1 + np.exp(-odds))


def squared_gaps(human, generated):
    return test_divergence(human, generated) | {"divergence": float(np.mean((human - generated) ** 2))}


@paper.trial(Inequality(atol=1e-12, search=0), of=[test_divergence], controls={"squared gaps": squared_gaps}, quick=200, full=2000)
def pairs_against_transport(draw, claim):
    """The gap of the means is at most the cheapest transport between the two sets of test values (SciPy's), and that at most the divergence of any pairing."""
    from scipy.stats import wasserstein_distance

    human, generated = random_tests(draw)
    found, cheapest = claim(human, generated), wasserstein_distance(human, generated)
    return [found["mean_gap"], abs(np.mean(human) - np.mean(generated)), cheapest], [cheapest, found["mean_gap"], found["divergence"]], {"human": human, "generated": generated}


def half_the_root(energy):
    return math.sqrt(energy) / 2


@paper.trial(Inequality(atol=1e-12, reaches=0.99), of=[mean_gap_from_energy, energy_distance], controls={"sqrt(E) / 2": half_the_root}, quick=200, full=2000)
def gap_of_means(draw, claim):
    """The integral of |F - G|, and so the gap of the means, is below the root of half the energy distance, for discrete laws listed exactly; nearly attained."""
    from scipy.stats import wasserstein_distance

    human, generated = random_tests(draw)
    return wasserstein_distance(human, generated), claim(energy_distance(human[:, None], generated[:, None])), {"human": human, "generated": generated}


def without_diagonal(x, y):
    """The unbiased estimate, which leaves the pairs of a point with itself out."""
    return 2 * mean_distance(x, y) - mean_distance(x, x) * len(x) / (len(x) - 1) - mean_distance(y, y) * len(y) / (len(y) - 1)


def rooted(x, y):
    return math.sqrt(energy_distance(x, y))


@paper.trial(Identity(atol=1e-10), of=[energy_distance], controls={"without the diagonal": without_diagonal, "square root": rooted}, quick=60, full=2000)
def by_distribution_functions(draw, claim):
    """In one dimension, twice the squared difference of the distribution functions integrated piece by piece, and SciPy's value squared; in more, plain loops."""
    from scipy import stats

    n, m, d = draw.integer(2, 12), draw.integer(2, 12), draw.integer(1, 3)
    x, y = np.round(draw.rng.normal(size=(n, d)), 1), np.round(draw.rng.normal(0.5, 1, size=(m, d)), 1)
    pairs = [[math.dist(a, b) for a in left for b in right] for left, right in ((x, y), (x, x), (y, y))]
    looped = 2 * np.mean(pairs[0]) - np.mean(pairs[1]) - np.mean(pairs[2])
    first, second = x[:, :1], y[:, :1]
    cuts = np.unique(np.concatenate([first, second]))
    steps = [(np.mean(first <= low) - np.mean(second <= low)) ** 2 * (high - low) for low, high in itertools.pairwise(cuts)]
    scipys = stats.energy_distance(first[:, 0], second[:, 0]) ** 2
    return [claim(x, y), claim(first, second), claim(first, second)], [looped, 2 * math.fsum(steps), scipys], {"n": n, "m": m, "d": d}


def across_texts(texts):
    return lexical_diversity([" ".join(texts)])


def case_kept(texts):
    words = " ".join(texts).split()
    return lexical_diversity(texts) | {"type_token": len(set(words)) / len(words)}


@paper.trial(Identity(), of=[lexical_diversity], controls={"bigrams across texts": across_texts, "upper and lower case apart": case_kept}, quick=100, full=2000)
def words_counted(draw, claim):
    """The shares, counted by a regular expression over one joined text with a mark between texts."""
    texts = [" \t".join(draw.rng.choice(["a", "A", "b", "C", "?", "don't"], draw.integer(1, 6))) + "\n" for _ in range(draw.integer(1, 5))]
    joined = " | ".join(texts).lower()
    words = re.findall(r"[^\s|]+", joined)
    bigrams = re.findall(r"(?=(?<!\S)([^\s|]+)\s+([^\s|]+))", joined)
    found = claim(texts)
    return [found["type_token"], found["distinct_2"]], [len(set(words)) / len(words), len(set(bigrams)) / len(bigrams) if bigrams else np.nan], {"texts": len(texts)}
