"""A judge's scores and duels: how often it contradicts itself before and after its whole distributions are read, its bias for a position, what is left uncompared."""

import math
from collections import defaultdict
from contextlib import suppress

import numpy as np

from ...chapters.alignment.reward_topology import best_next_comparison, inference_variance, mean_uncertainty
from ...chapters.alignment.trust_judge import LARGEST as MOST_GROUPS
from ...chapters.alignment.trust_judge import duel_outcome, judge_score, score_comparison_inconsistency, transitivity_inconsistency
from ...contract import DomainError, LawbookError
from ...numerics.statistics import sign_flip
from .sheet import percent

BOOK, WIRING = "trust-judge", "reward-topology"
FEWEST = 30  # judged pairs or groups, for a rate to be read
METHODS = {"before": ("mode", "agreement"), "after": ("distribution", "likelihood")}
LARGEST_NETWORK = 2000  # answers whose every pair is looked at
CANDIDATES = 2000


class Judgments:
    """The judgments of each judge, gathered batch by batch."""

    def __init__(self):
        self.judges = defaultdict(OneJudge)

    def add(self, columns):
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            self.judges[row.get("judge")].add(row)


class OneJudge:
    """Scores by (question, answer) and duels by (question, pair of answers)."""

    def __init__(self):
        self.scores = defaultdict(list)  # (question, answer) -> [(number or None, {score: probability} or None)]
        self.duels = defaultdict(dict)  # (question, first, second as shown) -> {letters: [p of A, B, C], verdict}
        self.repeated = 0

    def add(self, row):
        if row["kind"] == "score":
            self.scores[row["question"], row["answer"]].append((row.get("score"), row.get("score_probabilities")))
            return
        key = (row["question"], row["first"], row["second"])
        letters = row.get("verdict_probabilities")
        self.repeated += key in self.duels
        self.duels.setdefault(key, {"letters": None if letters is None else [float(letters.get(letter, 0)) for letter in "ABC"], "verdict": row.get("verdict")})

    def questions(self):
        """question -> (its answers, in order; duels judged in both orders)."""
        found: dict = defaultdict(lambda: ({}, []))
        for question, answer in self.scores:
            found[question][0][answer] = None
        for question, first, second in self.duels:
            found[question][0].update(dict.fromkeys((first, second)))
            if (question, second, first) in self.duels and (second, first) not in found[question][1]:
                found[question][1].append((first, second))
        return {question: (list(answers), pairs) for question, (answers, pairs) in found.items()}

    def score(self, question, answer, method):
        """The mean score of an answer; None where the log does not hold what the method takes."""
        values = []
        for number, probabilities in self.scores.get((question, answer), ()):
            if probabilities and method == "distribution" and len(probabilities) > 1:
                values.append(judge_score(np.array([*probabilities.values()], float), np.array([*map(float, probabilities)]), method=method))
            elif method == "mode" and (number is not None or probabilities):
                values.append(float(number) if number is not None else float(max(probabilities, key=probabilities.get)))
        return float(np.mean(values)) if values else None

    def outcome(self, question, first, second, method):
        """1, -1 or 0 of a duel judged in both orders; None where the log does not hold what the method takes."""
        orders = [self.duels[question, first, second], self.duels[question, second, first]]
        if method == "likelihood":
            letters = [order["letters"] for order in orders]
            return None if None in letters else duel_outcome(*letters)
        letters = [[float(order["verdict"] == letter) for letter in "ABC"] if order["verdict"] else order["letters"] for order in orders]
        return None if None in letters else duel_outcome(*letters, method="agreement")


def measures(judgments, sheet, **_):
    """Of each judge: contradictions, before and after; bias for a position; the wiring of the comparisons."""
    if not judgments.judges:
        raise LawbookError("The log holds no judgment that could be read.")
    for name, found in judgments.judges.items():
        sheet.section = "Judge" if name is None or len(judgments.judges) == 1 else f"Judge {name}"
        if len(judgments.judges) > 1:
            sheet.headlines.append(f"{sheet.section}:")
        one_judge(found, sheet)


def one_judge(found, sheet):
    questions = found.questions()
    if large := sum(math.comb(len(answers), 3) > MOST_GROUPS for answers, _ in questions.values()):
        sheet.said.append(f"{large:,} questions have too many answers for all groups of three to be looked at, and are in no rate of circles.")
    both = sum(len(pairs) for _, pairs in questions.values())
    sheet.said.append(
        f"{len(questions):,} questions, {len(found.scores):,} scored answers, {len(found.duels):,} verdicts on duels, {both:,} duels judged in both orders."
        + (f" {found.repeated:,} verdicts repeat an earlier one on the same order and were left out." if found.repeated else "")
    )
    counts = {when: _counts(found, questions, *methods) for when, methods in METHODS.items()}
    _contradictions(counts, sheet)
    _position(found, questions, sheet)
    wiring([(f"{a}", f"{b}") for _, a, b in found.duels], sheet)


def _counts(found, questions, score_method, duel_method):
    """question -> [conflicts, pairs, bad groups, groups] under two methods; no entry where nothing can be counted."""
    counts = {}
    for question, (answers, pairs) in questions.items():
        at = {answer: i for i, answer in enumerate(answers)}
        outcomes = np.full((len(answers), len(answers)), math.nan)
        for first, second in pairs:
            outcome = found.outcome(question, first, second, duel_method)
            if outcome is not None:
                outcomes[at[first], at[second]], outcomes[at[second], at[first]] = outcome, -outcome
        if np.isnan(outcomes).all():
            continue
        row = np.zeros(4, int)
        scores = [found.score(question, answer, score_method) for answer in answers]
        known = np.array([score is not None for score in scores])
        if not np.isnan(outcomes[np.ix_(known, known)]).all():
            compared = score_comparison_inconsistency(np.array([s for s in scores if s is not None]), outcomes[np.ix_(known, known)])
            row[:2] = compared["conflicts"], compared["pairs"]
        if math.comb(len(answers), 3) <= MOST_GROUPS:
            with suppress(DomainError):  # no three answers whose pairs are all judged
                groups = transitivity_inconsistency(outcomes)
                row[2:] = round(groups["rate"] * groups["groups"]), groups["groups"]
        counts[question] = row
    return counts


def _contradictions(counts, sheet):
    """Both rates before and after the remedy, and whether the remedy helps on the same questions."""
    for name, source, at in (
        ("score against duel", f"{BOOK}.score_comparison_inconsistency", 0),
        ("duels in circles or broken ties", f"{BOOK}.transitivity_inconsistency", 2),
    ):
        made = {}
        for when, found in counts.items():
            rows = np.array([row[at : at + 2] for row in found.values() if row[at + 1]]).reshape(-1, 2)
            methods = " and ".join(METHODS[when] if at == 0 else METHODS[when][1:])
            if len(rows) == 0:
                sheet.distrust(f"{name}, {when}", source, f"The log holds nothing to count under {methods}: " + NEEDED[when])
            elif rows[:, 1].sum() < FEWEST or len(rows) < 2:
                sheet.distrust(f"{name}, {when}", source, f"{rows[:, 1].sum()} cases on {len(rows)} questions are too few; {FEWEST} cases on two questions are the least.")
            else:
                meaning = (
                    f"By {methods}: {rows[:, 0].sum():,} of {rows[:, 1].sum():,} {'pairs' if at == 0 else 'groups of three'} on {len(rows):,} questions contradict themselves."
                )
                made[when] = sheet.clustered(f"{name}, {when}", source, rows[:, 0], rows[:, 1], of="questions", meaning=meaning)
        if len(made) < 2:
            if "before" in made:
                sheet.headlines.append(f"{HEAD[at]}: {_rate(made['before'])}; what whole distributions would mend cannot be told, since the log has none.")
            continue
        shared = [q for q in counts["before"] if q in counts["after"] and counts["before"][q][at + 1] and counts["after"][q][at + 1]]
        gaps = np.array([counts["before"][q][at] / counts["before"][q][at + 1] - counts["after"][q][at] / counts["after"][q][at + 1] for q in shared])
        sheet.test(f"{name}: no difference", source, sign_flip(gaps), meaning=f"Differences by question, signs flipped at random over {len(shared):,} questions.")
        sheet.headlines.append(f"{HEAD[at]}: {_rate(made['before'])} as it is, {_rate(made['after'])} once the judge's whole distributions are read.")


NEEDED = {
    "before": "it takes duels judged in both orders (and scores, for the first rate).",
    "after": "it takes probabilities of the verdicts in both orders (and of the scores, for the first rate).",
}
HEAD = {0: "The lower-scored answer wins, or a tie is broken, in the judge's duels", 2: "Groups of three answers that no ranking explains"}


def _rate(measure):
    return percent(measure.value) + (f" ({percent(measure.low)} to {percent(measure.high)})" if measure.low is not None else "")


def _position(found, questions, sheet):
    """How often the verdict flips with the order, and how often the first shown wins where somebody does."""
    rows = []
    for question, (_, pairs) in questions.items():
        flips = decided = shown_first = either = 0
        for first, second in pairs:
            tops = [_top(found.duels[key]) for key in ((question, first, second), (question, second, first))]
            if None in tops:
                continue
            decided += 1
            flips += (tops[0] != tops[1]) if "C" in tops else tops[0] == tops[1]
            either += sum(top != "C" for top in tops)
            shown_first += tops.count("A")
        rows.append((flips, decided, shown_first, either))
    flips, decided, first, either = np.array(rows).reshape(-1, 4).T
    if decided.sum() < FEWEST:
        sheet.distrust("bias for a position", f"{BOOK}.duel_outcome", f"{decided.sum()} duels were judged in both orders; it takes {FEWEST}.")
        return
    sheet.clustered("verdict changes with the order", f"{BOOK}.duel_outcome", flips, decided, of="questions", meaning="Duels whose two orders do not name the same winner.")
    won = sheet.clustered(
        "first shown wins", f"{BOOK}.duel_outcome", first, either, of="questions", meaning="Of verdicts that name a winner; one half where the position does not matter."
    )
    p = sheet.test(
        "the position does not matter", f"{BOOK}.duel_outcome", sign_flip(2 * first - either), meaning="First wins minus second wins by question, signs flipped at random."
    )
    if p.p_value < 0.01:
        sheet.headlines.append(f"The judge favours the answer shown {'first' if won.value > 0.5 else 'second'}: the first wins {_rate(won)} of the decided verdicts.")


def _top(duel):
    if duel["verdict"]:
        return duel["verdict"]
    letters = duel["letters"]
    return None if letters is None else "ABC"[int(np.argmax(letters))]


def wiring(pairs, sheet):
    """How certain a difference of two answerers is from the network of comparisons alone, and which comparison would tell most next."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    at = {name: i for i, name in enumerate(names)}
    drawn, times = np.unique([sorted((at[a], at[b])) for a, b in pairs], axis=0, return_counts=True)
    n = len(names)
    parts, label = connected_components(coo_array((np.ones(len(drawn)), tuple(drawn.T)), shape=(n, n)), directed=False)
    sheet.add(
        "separate parts of the comparisons",
        f"{WIRING}.inference_variance",
        int(parts),
        meaning=f"{n:,} answerers in {len(pairs):,} comparisons; parts cannot be ranked against each other.",
    )
    if parts > 1:
        sizes = np.bincount(label)
        sheet.headlines.append(f"The comparisons fall into {parts} parts (the largest of {sizes.max()} answerers), between which no ranking is possible.")
        return
    if n > LARGEST_NETWORK or n < 3:
        return
    variances = 1 / times
    mean = mean_uncertainty(drawn, variances, n)
    missing = np.array([(i, j) for i in range(n) for j in range(i + 1, n)])
    if len(missing) > CANDIDATES:
        missing = missing[np.sort(np.random.default_rng(0).choice(len(missing), CANDIDATES, replace=False))]
    best = best_next_comparison(drawn, variances, n, missing, 1.0)
    pair = missing[best["index"]]
    worst = float(inference_variance(drawn, variances, pair[None])[0])
    sheet.add("mean variance of a difference", f"{WIRING}.mean_uncertainty", mean, meaning="In units of one comparison's variance: 1 is a pair compared once and nothing else.")
    sheet.add(
        "next comparison",
        f"{WIRING}.best_next_comparison",
        f"{names[pair[0]]} against {names[pair[1]]}",
        meaning=f"It lowers the mean uncertainty most; the pair's own variance is {worst:.3g} now.",
    )
