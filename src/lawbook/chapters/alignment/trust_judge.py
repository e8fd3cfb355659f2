"""Contradictions of a model as judge: scores against duels, duels against each other, and what the judge's whole distributions mend."""

import itertools
import math

import numpy as np

from lawbook.contract import DomainError, Paper, caution, choice, count, flag, integer, matrix, nonnegative, positive, probability, real, record, vector
from lawbook.numerics import softmax
from lawbook.trials import Estimate, Guarantee, Identity

paper = Paper(
    __name__,
    title="TrustJudge: Inconsistencies of LLM-as-a-Judge and How to Alleviate Them",
    arxiv="2509.21117",
    tags=["llm as a judge", "evaluation", "pairwise comparison", "transitivity", "position bias", "consistency", "preference"],
    source="code",
    says="""A judge that gives one score and one verdict contradicts itself: the answer with the lower score wins the duel, and duels run in circles or break ties.
    Reading its whole distribution over scores and over verdicts, in both orders of presentation, removes much of that. Both inconsistency rates are counts
    over the judge's logs, so they can be had before and after the remedy without a new call to the model.""",
    notes="""Definitions follow the authors' code, which uses 100 points for its distribution-sensitive score and 5 for the baselines; an exact tie for the largest letter is a
    draw here (the code takes either), which makes outcomes exactly antisymmetric. Raw expectations are not renormalised there, so truncated logs lower them:
    `renormalise` is ours. The split into circles and broken ties follows the code, although it depends on the numbering of the answers (see the finding).""",
)

LARGEST = 2_000_000  # groups of answers that are looked at
LETTER = probability(typical=(0, 1 / 3))
OUTCOMES = matrix(
    "n",
    "n",
    of=integer(low=-1, high=1, nan=True),
    doc="1 where the row's answer beats the column's, -1 where it loses, 0: tie, NaN: not judged; the diagonal is ignored",
    example=[[0, 1, -1, 0], [-1, 0, 1, 0], [1, -1, 0, 1], [0, 0, -1, 0]],
)
ANTISYMMETRIC = {
    "outcomes must be antisymmetric: [i, j] is minus [j, i] wherever both are judged": lambda outcomes: np.all(
        np.isnan(outcomes + outcomes.T) | (outcomes == -outcomes.T) | np.eye(len(outcomes), dtype=bool)
    )
}


def random_outcomes(rng, n, ties=True):
    upper = np.triu(rng.integers(-1, 2, (n, n)) if ties else rng.choice([-1, 1], (n, n)), 1).astype(float)
    return upper - upper.T


def judged(outcomes):
    """The outcomes with a missing half filled from the other; the diagonal is nobody's."""
    o = np.asarray(outcomes, float)
    o = np.where(np.isnan(o), -o.T, o)
    np.fill_diagonal(o, np.nan)
    return o


@paper.measure(
    r"s = \sum_s s\, w_s,\quad w = \mathrm{softmax}\big(\tfrac{1}{T} \log \tfrac{p + \epsilon}{1 - p + \epsilon}\big)\ \text{(distribution)},\ w = p\ \text{(raw), or the mode}",
    requires={"score_probabilities must sum to at most 1": lambda score_probabilities: score_probabilities.sum() <= 1 + 1e-6},
)
def judge_score(
    score_probabilities: vector("m", of=LETTER, most=3, doc="of each score; what is missing to 1 went to other tokens", example=[0.05, 0.15, 0.5, 0.3]),
    scores: vector("m", of=real(typical=(1, 5)), doc="the scores", example=[2, 3, 4, 5]),
    *,
    method: choice("distribution", "raw", "mode") = "distribution",
    temperature: positive(typical=(0.1, 2), doc="of the distribution method; small: nearly the mode") = 0.2,
    eps: positive(high=0.1, typical=(1e-9, 1e-4)) = 1e-8,
    renormalise: flag(doc="divide the raw expectation by the sum of the probabilities, which the code does not") = False,
) -> real():
    """One score from a judge's probabilities of all scores."""
    p, s = np.asarray(score_probabilities, float), np.asarray(scores, float)
    if method == "mode":
        return float(s[np.argmax(p)])
    if method == "raw":
        if p.sum() < 0.99 and not renormalise:
            caution(f"The probabilities sum to {p.sum():.3g}: the raw expectation is too small by what is missing, unless renormalised.")
        return float(p @ s) / (p.sum() if renormalise and p.sum() > 0 else 1)
    valid = (p > 0) & (p < 1)
    if (p == 1).any() or not valid.any():
        caution("The distribution method leaves out a score of probability exactly 1 (and 0), and answers 0 where no other remains, whatever the judge preferred.")
    if not valid.any():
        return 0.0
    logits = np.log((p[valid] + eps) / (1 - p[valid] + eps)) / temperature
    weights = np.exp(logits - logits.max())
    return float(weights @ s[valid] / weights.sum())


def top(letters):
    """1, -1 or 0 as A, B or C is largest; 0 where the largest is not alone."""
    a, b, c = letters
    return 1 if a > max(b, c) else -1 if b > max(a, c) else 0


@paper.measure(
    r"o = \mathrm{top}(p^{(1)} + \sigma p^{(2)}),\ \sigma = (A\, B)\ \text{(likelihood); the common top (agreement); the top of the order with the smaller perplexity}",
    requires={
        "order1 must sum to at most 1": lambda order1: sum(order1) <= 1 + 1e-6,
        "order2 must sum to at most 1": lambda order2: sum(order2) <= 1 + 1e-6,
        "perplexities must be given for the method perplexity": lambda method, perplexities: method != "perplexity" or perplexities is not None,
    },
)
def duel_outcome(
    order1: vector(3, of=LETTER, doc="probabilities of A (first shown is better), B, C (tie) when the first answer is shown first", example=[0.6, 0.3, 0.1]),
    order2: vector(3, of=LETTER, doc="the same when the second answer is shown first, letters as the judge gave them", example=[0.45, 0.4, 0.15]),
    *,
    method: choice("likelihood", "agreement", "perplexity") = "likelihood",
    tolerance: nonnegative(typical=(0, 0.2), doc="a lead below this (likelihood) or a perplexity gap up to it is a tie") = 0.0,
    perplexities: vector(2, of=real(low=1, typical=(1, 3)), doc="of the judge's text in each order") = None,
) -> integer(low=-1, high=1):
    """Who wins a duel that was judged in both orders: 1 the first answer, -1 the second, 0 a tie."""
    first = tuple(map(float, order1))
    second = (float(order2[1]), float(order2[0]), float(order2[2]))  # shown the other way round, A is the second answer
    if method == "likelihood":
        total = [x + y for x, y in zip(first, second, strict=True)]
        low, high = sorted(total)[1:]
        return 0 if (high - low) / 2 < tolerance else top(total)
    if method == "agreement":
        return top(first) if top(first) == top(second) else 0
    if abs(perplexities[0] - perplexities[1]) <= tolerance:
        return 0
    return top(first if perplexities[0] < perplexities[1] else second)


@paper.measure(
    r"\frac{1}{|P|} \sum_{(i,j) \in P} 1[\,o_{ij} \ne \mathrm{sign}_\tau(s_i - s_j)\,]",
    requires={
        **ANTISYMMETRIC,
        "outcomes must hold at least one judged pair": lambda outcomes: not np.isnan(judged(outcomes)).all(),
    },
    sample=lambda rng: {"scores": rng.integers(1, 6, 5), "outcomes": random_outcomes(rng, 5), "tolerance": float(rng.uniform(0, 1))},
)
def score_comparison_inconsistency(
    scores: vector("n", of=real(typical=(1, 5)), doc="score of each answer", example=[4, 4, 3, 5]),
    outcomes: OUTCOMES,
    tolerance: nonnegative(typical=(0, 1), doc="score differences below this count as a tie") = 0.0,
) -> record(rate=probability(), pairs=count(), conflicts=count(low=0)):
    """Share of the judged pairs whose duel does not come out as their scores say."""
    s, o = np.asarray(scores, float), judged(outcomes)
    i, j = np.triu_indices(len(s), 1)
    i, j = i[~np.isnan(o[i, j])], j[~np.isnan(o[i, j])]
    gap = s[i] - s[j]
    conflicts = int(np.sum(o[i, j] != np.where(np.abs(gap) < tolerance, 0, np.sign(gap))))
    return {"rate": conflicts / len(i), "pairs": len(i), "conflicts": conflicts}


@paper.measure(
    r"\mathrm{NTR}_k = \Pr_{|S| = k}[\exists\, i<j<l \in S: (o_{ij}, o_{jl}, o_{il}) \text{ comes from no weak order}]",
    requires=ANTISYMMETRIC,
    sample=lambda rng: {"outcomes": random_outcomes(rng, int(rng.integers(4, 9))), "size": int(rng.integers(3, 5))},
)
def transitivity_inconsistency(
    outcomes: OUTCOMES,
    size: count("answers", low=3, typical=(3, 5), static=True) = 3,
) -> record(
    rate=probability(),
    groups=count(),
    circle_rate=probability(doc="share of groups with a triple that is not of the next kind"),
    equality_rate=probability(doc="share of groups with a bad triple i<j<l where i ties l, or j ties both"),
):
    """Share of the groups of `size` answers, all pairs judged, that hold a triple which no ranking with ties can produce.

    Answers to several questions go in one matrix, with NaN between questions."""
    from scipy.sparse.csgraph import connected_components

    o = judged(outcomes)
    labels = connected_components(~np.isnan(o), directed=False)[1]
    members = [np.flatnonzero(labels == label) for label in np.flatnonzero(np.bincount(labels) >= size)]
    if (asked := sum(math.comb(len(m), size) for m in members)) > LARGEST:
        raise DomainError(f"outcomes holds {asked} groups of {size} answers; at most {LARGEST} can be looked at: give fewer answers or a smaller size.")
    totals = np.zeros(4, int)
    for m in members:
        part = o[np.ix_(m, m)]
        groups = np.fromiter(itertools.chain.from_iterable(itertools.combinations(range(len(m)), size)), np.uint16).reshape(-1, size)
        missing, circle, equality = np.zeros((3, len(groups)), bool)
        for i, j, l in itertools.combinations(groups.T, 3):
            ij, jl, il = part[i, j], part[j, l], part[i, l]
            missing |= np.isnan(ij + jl + il)
            bad = (ij * jl >= 0) & (np.sign(ij + jl) != il)  # only opposite steps leave the third outcome open
            tied = (il == 0) | ((ij == 0) & (jl == 0))
            circle |= bad & ~tied
            equality |= bad & tied
        totals += np.sum([~missing, ~missing & (circle | equality), ~missing & circle, ~missing & equality], axis=1)
    if not totals[0]:
        raise DomainError(f"outcomes must hold at least one group of {size} answers with all pairs judged; it holds none.")
    rate, circle_rate, equality_rate = (totals[1:] / totals[0]).tolist()
    return {"rate": rate, "groups": int(totals[0]), "circle_rate": circle_rate, "equality_rate": equality_rate}


def without_odds(score_probabilities, scores, *, temperature, **_):
    weights = score_probabilities ** (1 / temperature)
    return float(weights @ scores / weights.sum())


@paper.trial(Identity(), of=[judge_score], controls={"probabilities in the place of odds": without_odds}, quick=200, full=10_000)
def scores_from_odds(draw, claim):
    """The distribution-sensitive score weighs by odds to the power 1/T; of two mirrored distributions with one mode, the mode score sees no difference, the others do."""
    p, s, t = draw.dirichlet(1.0, 5) * draw.uniform(0.8, 1), np.arange(1.0, 6), draw.uniform(0.1, 2)
    largest = int(np.argmax(p))
    p[[2, largest]] = p[[largest, 2]]
    weights = (p / (1 - p)) ** (1 / t)
    sharp, mirrored = (claim(x, s, temperature=t, eps=1e-18) for x in (p, p[::-1]))
    modes = [judge_score(x, s, method="mode") for x in (p, p[::-1])]
    raw = sum(judge_score(x, s, method="raw") for x in (p, p[::-1]))
    return [sharp, sharp + mirrored, *modes, raw], [weights @ s / weights.sum(), 6, 3, 3, 6 * p.sum()], {"p": p, "temperature": t}


def not_swapped(order1, order2, **options):
    return duel_outcome(order1, np.asarray(order2)[[1, 0, 2]], **options)


def by_letters(order1, order2, method, tolerance, perplexities):
    """The outcome from tables of letters, without a thought of ties between letters."""
    first, second = (dict(zip(letters, order, strict=True)) for letters, order in (("ABC", order1), ("BAC", order2)))
    sign = {"A": 1, "B": -1, "C": 0}
    tops = [max(table, key=table.get) for table in (first, second)]
    if method == "agreement":
        return sign[tops[0]] if len(set(tops)) == 1 else 0
    if method == "perplexity":
        return sign[tops[int(np.argmin(perplexities))]] if np.ptp(perplexities) > tolerance else 0
    total = sorted((first[letter] + second[letter], letter) for letter in "ABC")
    return sign[total[-1][1]] if total[-1][0] - total[-2][0] >= 2 * tolerance else 0


@paper.trial(Guarantee(), of=[duel_outcome], controls={"order 2 not swapped": not_swapped}, quick=1000, full=10_000)
def antisymmetric(draw, claim):
    """Exchanging the two answers changes the sign of the outcome exactly, for all three methods, and tables of letters give the same outcome."""
    letters = draw.rng.dirichlet(np.ones(3), 2) * draw.rng.uniform(0.8, 1)
    method = draw.choice(["agreement", "likelihood", "perplexity"])
    duel = {"order1": letters[0], "order2": letters[1], "method": method, "tolerance": draw.uniform(0, 0.2), "perplexities": draw.uniform(1, 3, 2)}
    turned = duel | {"order1": duel["order2"], "order2": duel["order1"], "perplexities": duel["perplexities"][::-1]}
    return claim(**duel) == -claim(**turned) == by_letters(**duel)


def without_tolerance(scores, outcomes, tolerance):
    return score_comparison_inconsistency(scores, outcomes)


@paper.trial(Identity(), of=[score_comparison_inconsistency], controls={"tolerance forgotten": without_tolerance}, quick=100, full=3000)
def pair_by_pair(draw, claim):
    """The score-comparison rate, counted pair by pair in plain loops; half of the pairs are judged."""
    n, tolerance = draw.integer(3, 8), draw.uniform(0, 2)
    scores, outcomes = draw.rng.integers(1, 6, n), random_outcomes(draw.rng, n)
    outcomes[draw.rng.uniform(size=(n, n)) < 0.3] = np.nan
    outcomes[0, 1], outcomes[1, 0] = 0, np.nan
    conflicts = []
    for i, j in itertools.combinations(range(n), 2):
        gap, outcome = scores[i] - scores[j], np.nan_to_num(outcomes[i, j], nan=-outcomes[j, i])
        if not np.isnan(outcome):
            conflicts.append(outcome != (0 if abs(gap) < tolerance else np.sign(gap)))
    found = claim(scores, outcomes, tolerance)
    return [found["rate"], found["pairs"], found["conflicts"]], [np.mean(conflicts), len(conflicts), sum(conflicts)], {"n": n}


def circles_only(outcomes, size=3):
    found = transitivity_inconsistency(outcomes, size)
    return found | {"rate": found["circle_rate"]}


def in_blocks(groups):
    """One matrix of outcomes with the groups on its diagonal, NaN between them."""
    groups = np.asarray(groups, float)
    k, n = groups.shape[:2]
    whole = np.full((k, n, k, n), np.nan)
    whole[np.arange(k), :, np.arange(k)] = groups
    return whole.reshape(k * n, k * n)


def triples(patterns):
    """3 x 3 outcomes with (o_12, o_23, o_13) as given."""
    o = np.zeros((len(patterns), 3, 3))
    o[:, [0, 1, 0], [1, 2, 2]] = patterns
    return o - o.transpose(0, 2, 1)


@paper.trial(Identity(), of=[transitivity_inconsistency], controls={"ties are never wrong": circles_only}, quick=20, full=500)
def against_weak_orders(draw, claim):
    """A group is consistent exactly if some ranking with ties of its answers produces its outcomes, found by trying all rankings."""
    n, size = draw.integer(5, 7), draw.choice([3, 4, 5])
    levels = np.array(list(itertools.product(range(size), repeat=size)))
    produced = {np.sign(row[:, None] - row[None]).tobytes() for row in levels}
    outcomes = np.sign(np.subtract.outer(*[draw.rng.integers(0, 3, n)] * 2)).astype(float)  # a ranking, and a few outcomes redrawn
    for _ in range(draw.integer(0, 3)):
        i, j = draw.rng.choice(n, 2, replace=False)
        outcomes[i, j] = draw.rng.integers(-1, 2)
        outcomes[j, i] = -outcomes[i, j]
    groups = list(itertools.combinations(range(n), size))
    bad = [outcomes[np.ix_(g, g)].astype(levels.dtype).tobytes() not in produced for g in groups]
    return claim(outcomes, size)["rate"], np.mean(bad), {"n": n, "size": size}


@paper.trial(Identity(), of=[transitivity_inconsistency], controls={"ties are never wrong": circles_only}, quick=5, full=50)
def by_chance(draw, claim):
    """13 of the 27 patterns of a triple are consistent and 6 of the 8 without ties; outcomes at random give 14/27 and 1/4."""
    every = [np.array(list(itertools.product(options, repeat=3))) for options in ((-1, 0, 1), (-1, 1))]
    rates = [claim(in_blocks(triples(patterns)))["rate"] for patterns in every]
    chance = [Estimate.of([claim(in_blocks([random_outcomes(draw.rng, 3, ties) for _ in range(50)]))["rate"] for _ in range(10)]) for ties in (True, False)]
    return Estimate([*rates, *(e.value for e in chance)], [0, 0, *(e.error for e in chance)]), [14 / 27, 1 / 4, 14 / 27, 1 / 4]


def simulated_judge(rng, bias, items=200, answers=6, noise=0.3):
    """Probabilities of scores 1 to 5 for each answer, and of A, B, C for each pair of answers to one item in both orders; `bias` favours the answer shown first."""
    quality = rng.normal(size=(items, answers))
    scores = softmax(-((np.arange(1, 6) - 3 - 1.2 * quality[..., None]) ** 2) / 2 + 0.5 * rng.normal(size=(items, answers, 5)))
    i, j = np.triu_indices(answers, 1)
    leads = np.stack([quality[:, i] - quality[:, j], quality[:, j] - quality[:, i]])
    return scores.reshape(-1, 5), softmax(np.stack([leads + bias, -leads, np.full_like(leads, -1)], -1) + noise * rng.normal(size=(*leads.shape, 3)))


def duels(orders, decide, method, answers=6):
    o = np.full((orders.shape[1], answers, answers), np.nan)
    i, j = np.triu_indices(answers, 1)
    o[:, i, j] = [[decide(first, second, method=method) for first, second in zip(*rows, strict=True)] for rows in zip(*orders, strict=True)]
    return in_blocks(o)


def contradictions(scores, outcomes, method, score=judge_score):
    return score_comparison_inconsistency([score(p, np.arange(1, 6), method=method) for p in scores], outcomes)["rate"]


def negative_temperature(p, s, *, method):
    return judge_score(p, s, method=method, temperature=-0.2)


@paper.trial(
    Guarantee(),
    of=[duel_outcome, judge_score, transitivity_inconsistency, score_comparison_inconsistency],
    claim=(duel_outcome, judge_score),
    controls={"order 2 not swapped": (not_swapped, judge_score), "temperature below zero": (duel_outcome, negative_temperature)},
    quick=2,
    full=30,
)
def remedies_on_a_simulated_judge(draw, claim):
    """For a judge with noise and a mild position bias, distribution-sensitive scores contradict the duels less than mode scores do, and likelihood-aware duels each
    other less than agreed ones."""
    decide, score = claim
    scores, orders = simulated_judge(draw.rng, draw.uniform(0, 0.3))
    agreed = duels(orders, duel_outcome, "agreement")
    remedied = [contradictions(scores, agreed, "distribution", score), transitivity_inconsistency(duels(orders, decide, "likelihood"))["rate"]]
    return remedied, [contradictions(scores, agreed, "mode"), transitivity_inconsistency(agreed)["rate"]]


def rates_by_score(bias):
    scores, orders = simulated_judge(np.random.default_rng(0), bias)
    agreed = duels(orders, duel_outcome, "agreement")
    return {method: contradictions(scores, agreed, method) for method in ("mode", "distribution", "raw")} | {
        "tied_duels": float(np.nanmean(np.where(np.isnan(agreed), agreed, agreed == 0)))
    }


@paper.finding(
    """The split of bad triples into circles and broken ties is not a property of the triple: in the authors' table, the chain x > y > z with x tied to z counts as a broken
    tie in 2 of the 6 numberings of the three answers and as a circle in the other 4. Only the sum of both rates means something.""",
    trial=against_weak_orders,
)
def split_depends_on_numbering():
    chain = np.array([[0, 1, 0], [-1, 0, 1], [0, -1, 0]])
    found = [transitivity_inconsistency(chain[np.ix_(order, order)]) for order in itertools.permutations(range(3))]
    circles = sum(f["circle_rate"] for f in found)
    return {"holds": circles == 4 and all(f["rate"] == 1 for f in found), "numberings": len(found), "called_circle": circles}


@paper.finding(
    """Transitivity does not see position bias: a judge that always prefers the answer shown first has no inconsistent triple, whether its orders are combined
    (all ties) or read unswapped (one perfect ranking)."""
)
def position_alone_is_transitive():
    always_first = np.tile([0.9, 0.05, 0.05], (2, 200, 15, 1))
    rates = {method: transitivity_inconsistency(duels(always_first, duel_outcome, method))["rate"] for method in ("agreement", "likelihood")}
    unswapped = transitivity_inconsistency(duels(always_first, not_swapped, "agreement"))["rate"]
    return {"holds": not any([*rates.values(), unswapped]), **rates, "unswapped": unswapped}


@paper.finding(
    """At its temperature of .2 the distribution-sensitive score is close to the mode: a 60:40 split between two scores is weighed 98:2. On one and the same five points the
    plain expectation contradicts the duels of a simulated judge less than it does; the published comparison uses 100 points for the one and 5 for the other.""",
    trial=remedies_on_a_simulated_judge,
)
def plain_expectation_does_better():
    rates, weight = rates_by_score(bias=0.2), judge_score([0.6, 0.4], [0, 1])
    return {"holds": rates["raw"] < rates["distribution"] < rates["mode"] and weight < 0.02, "weight_of_40_percent": weight, **rates}


@paper.finding(
    """Real-valued scores do not always contradict duels less: under a strong position bias the agreed duels are often tied, scores without a tolerance never are, and then the
    discrete mode score contradicts them less than either expectation.""",
    trial=remedies_on_a_simulated_judge,
)
def ties_favour_the_mode():
    rates = rates_by_score(bias=1.5)
    return {"holds": rates["mode"] < min(rates["distribution"], rates["raw"]), **rates}
