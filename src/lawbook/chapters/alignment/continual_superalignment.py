"""Values that change under a model that does not: how wrong frozen answers must be, from counts of answers then and now."""

import itertools

import numpy as np

from lawbook.contract import Paper, nonnegative, probability, record, vector
from lawbook.trials import Identity

paper = Paper(
    __name__,
    title="A Moral Imperative: The Need for Continual Superalignment of Large Language Models",
    arxiv="2403.14683",
    tags=["alignment", "value drift", "distribution shift", "continual learning", "survey", "total variation"],
    source="none",
    says="""A position paper: values and facts change, a model frozen after its training does not, so that alignment has to be maintained over the whole life of a
    system. It discusses one shift of values in words and one in numbers, and lists possible remedies; it has no theorem, no algorithm and no data.""",
    notes="""Nothing computable is claimed. The one measure is ours: what a model that answers exactly as people did then gets wrong now.""",
)


@paper.measure(
    r"\mathrm{TV} = \tfrac12 \sum_i |p_i - q_i|,\quad \mathrm{KL}(\text{now} \| \text{then}) = \sum_i q_i \log\frac{q_i}{p_i}",
    requires={
        "answers_then must hold at least one answer": lambda answers_then: np.sum(answers_then) > 0,
        "answers_now must hold at least one answer": lambda answers_now: np.sum(answers_now) > 0,
    },
    gives={"total_variation": 0.2},
)
def value_drift(
    answers_then: vector("k", of=nonnegative("answers", high=1e15, typical=(0, 500)), doc="how many gave each answer to a question then", example=[500, 300, 200]),
    answers_now: vector("k", of=nonnegative("answers", high=1e15, typical=(0, 500)), doc="how many gave each answer now", example=[300, 400, 300]),
) -> record(
    total_variation=probability(doc="largest difference in the probability of any set of answers"), kl=nonnegative("nats", infinite=True, doc="infinite where an answer is new")
):
    """Distance between the answers of two times: the error, now, of a model that still answers as people did then.

    Between two samples of one population it is not zero either: of the order of sqrt(k / people)."""
    p, q = (np.asarray(counts, float) / np.sum(counts) for counts in (answers_then, answers_now))
    given = q > 0
    with np.errstate(divide="ignore", over="ignore"):
        divergence = float(np.sum(q[given] * np.log(q[given] / p[given])))
    return {"total_variation": min(float(np.abs(p - q).sum()) / 2, 1.0), "kl": max(divergence, 0.0)}


def squares(answers_then, answers_now):
    p, q = (counts / counts.sum() for counts in (answers_then, answers_now))
    return value_drift(answers_then, answers_now) | {"total_variation": float(np.sum((p - q) ** 2))}


def then_from_now(answers_then, answers_now):
    return value_drift(answers_now, answers_then)


@paper.trial(Identity(atol=1e-12), of=[value_drift], controls={"squared differences": squares, "KL(then || now)": then_from_now}, quick=100, full=2000)
def over_all_events(draw, claim):
    """Total variation is the largest difference over all sets of answers, listed; the divergence is SciPy's, infinite for an answer that nobody gave then."""
    from scipy.special import rel_entr

    k = draw.integer(2, 8)
    then, now = draw.rng.integers(0, 30, (2, k)) + (np.arange(k) == 0)
    p, q = then / then.sum(), now / now.sum()
    events = np.array(list(itertools.product((0, 1), repeat=k)))
    found = claim(then, now)
    return [found["total_variation"], found["kl"]], [np.max(events @ (p - q)), rel_entr(q, p).sum()], {"then": then, "now": now}


@paper.finding(
    """Counts of a few people drift without any change of values: two surveys of 100 people with five answers, drawn evenly from one population, lie .11 apart on average,
    and still .035 apart with 1000.""",
    trial=over_all_events,
)
def drift_of_an_unchanged_population():
    rng = np.random.default_rng(0)
    apart = {n: float(np.mean([value_drift(*rng.multinomial(n, np.full(5, 0.2), 2))["total_variation"] for _ in range(2000)])) for n in (100, 1000)}
    # each of k differences of shares is nearly normal with variance 2 (1/k)(1 - 1/k)/n, of mean size sqrt(2/pi) times its deviation
    normal = {n: 5 / 2 * np.sqrt(2 / np.pi * 2 * 0.2 * 0.8 / n) for n in apart}
    return {"holds": all(abs(apart[n] / normal[n] - 1) < 0.05 for n in apart), "hundred": apart[100], "thousand": apart[1000], "normal_hundred": float(normal[100])}
