"""Embeddings of two groups, or texts in two groups: how far the groups are apart, with a test by relabelling, and which records a learner would give away."""

import warnings

import numpy as np

from ...chapters.alignment.kldo_divergence import fit_reward, separation
from ...chapters.alignment.leather_text_shift import energy_distance, lexical_diversity, test_divergence
from ...chapters.trust.loo_distinguishability import influence_scores, leakage_ceiling
from ...contract import Caution
from .sheet import Picture, Series, percent

KLDO, SHIFT, LEAK = "kldo-divergence", "leather-text-shift", "loo-distinguishability"
FEWEST = 50  # rows of a group
MOST = 1500  # rows of a group that distances are taken between
MOST_TEXTS = 20_000  # rows whose texts are compared
RELABELLED = 199
SEEDS = 5
SHARE = 0.2  # of a distance that two halves of one group may show
MOST_LEAK = 3000  # records in one kernel matrix
NOISE = 0.1


def two_groups(x, y, names, sheet, seed=0):
    """Distances between the rows of x and of y; held-out estimates of their divergence."""
    sheet.section = f"{names[0]} against {names[1]}"
    x, y = np.asarray(x, float), np.asarray(y, float)
    if min(len(x), len(y)) < FEWEST:
        sheet.distrust("divergence of the groups", f"{KLDO}.fit_reward", f"It takes {FEWEST} rows of each group; here are {len(x)} and {len(y)}.")
        return
    rng = np.random.default_rng(seed)
    few = [values[np.sort(rng.choice(len(values), MOST, replace=False))] if len(values) > MOST else values for values in (x, y)]
    seen, p = relabelled(*few, seed)
    sheet.add("energy distance", f"{SHIFT}.energy_distance", seen, meaning=f"Between {len(few[0]):,} and {len(few[1]):,} rows; 0 only if the groups have one law.")
    test = sheet.test("both groups have one law", f"{SHIFT}.energy_distance", p, meaning=f"Exact: groups relabelled at random {RELABELLED} times.")
    for kind, name in (("kldo", "KL"), ("bco", "Jensen-Shannon")):
        _divergence(x, y, kind, f"{name} divergence of the groups", names[0], sheet, seed)
    _overlap(x, y, names[0], sheet, seed)
    sheet.headlines.append(
        f"{names[0]} and {names[1]} differ (energy distance {seen:.3g}, p = {test.value:.2g})."
        if test.value < 0.01
        else f"No difference between {names[0]} and {names[1]} can be seen (p = {test.value:.2g})."
    )


def _divergence(x, y, kind, name, first, sheet, seed):
    """A held-out estimate by a linear critic, from several splits; withheld where they disagree or a single row carries it."""
    source = f"{KLDO}.fit_reward"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", Caution)
        found = np.array([fit_reward(x, y, kind=kind, seed=seed + i)["estimate"] for i in range(SEEDS)])
    if told or found.std() > max(0.5 * abs(found.mean()), 0.1):
        reason = str(told[0].message) if told else "They scatter too much."
        sheet.distrust(name, source, f"Estimates from {SEEDS} splits run from {found.min():.2g} to {found.max():.2g} nats. {reason}")
        return
    null = np.mean([fit_reward(*halves(x, seed + i), kind=kind, seed=seed + i)["estimate"] for i in range(SEEDS)])
    sheet.add(
        name,
        source,
        float(found.mean()),
        low=float(found.min()),
        high=float(found.max()),
        unit="nats",
        interval=f"least and largest of {SEEDS} splits",
        meaning=f"By a linear critic on rows that it has not seen; between two halves of {first} it is {null:.2g}.",
    )


def _overlap(x, y, first, sheet, seed):
    """The distance of two Gaussians with the groups' moments; withheld where two halves of one group seem far apart, too."""
    name, source = "Bhattacharyya distance", f"{KLDO}.separation"
    if min(len(x), len(y)) <= 2 * x.shape[1]:
        sheet.distrust(name, source, f"Covariances of {x.shape[1]} dimensions take more than {2 * x.shape[1]} rows of each group; here are {len(x)} and {len(y)}.")
        return
    apart, half = separation(x, y)["distance"], separation(*halves(x, seed))["distance"]
    if half > SHARE * apart:
        sheet.distrust(name, source, f"It is {apart:.3g}, but {half:.3g} between two halves of {first}, which have one law: too few rows for {x.shape[1]} dimensions.")
        return
    sheet.add(name, source, apart, meaning=f"Of Gaussians with these moments; between two halves of {first}, which have one law, it is {half:.3g}.")


def relabelled(x, y, seed):
    """(energy distance, p-value of relabelling) from one matrix of distances."""
    from scipy.spatial.distance import cdist

    z = np.concatenate([x, y])
    apart, n = cdist(z, z), len(x)
    rng = np.random.default_rng(seed)
    labels = np.zeros((len(z), RELABELLED + 1))
    labels[:n, 0] = 1
    for i in range(1, RELABELLED + 1):
        labels[rng.permutation(len(z))[:n], i] = 1
    first, second = labels / n, (1 - labels) / (len(z) - n)
    to_first = apart @ first
    energy = 2 * (second * to_first).sum(0) - (first * to_first).sum(0) - (second * (apart @ second)).sum(0)
    return float(energy_distance(x, y)), float(np.mean(energy >= energy[0] * (1 - 1e-12)))


def halves(x, seed):
    order = np.random.default_rng(seed).permutation(len(x))
    return x[order[: len(x) // 2]], x[order[len(x) // 2 :]]


def leakage(x, target, sheet, seed=0):
    """What a Gaussian-process learner would give away of each record."""
    sheet.section = "Leakage"
    x, y = np.asarray(x, float), np.asarray(target, float)
    if len(x) < FEWEST:
        sheet.distrust("leakage", f"{LEAK}.influence_scores", f"It takes {FEWEST} records; here are {len(x)}.")
        return
    if len(x) > MOST_LEAK:
        rows = np.sort(np.random.default_rng(seed).choice(len(x), MOST_LEAK, replace=False))
        sheet.said.append(f"Leakage is that of {MOST_LEAK:,} records drawn at random.")
        x, y = x[rows], y[rows]
    from scipy.spatial.distance import pdist

    scale = float(np.median(pdist(x[:1000]))) or 1.0
    y = (y - y.mean()) / (y.std() or 1.0)
    scores = influence_scores(x, y, noise=NOISE, lengthscale=scale, kernel="rbf")
    advantage = np.array([min(np.sqrt(s / 2), np.sqrt(-np.expm1(-s))) for s in scores])
    order = np.argsort(-scores)
    sheet.add(
        "leakage of the most exposed record",
        f"{LEAK}.influence_scores",
        float(scores[order[0]]),
        unit="nats",
        meaning=f"Row {order[0] + 1}: an attack that sees predictions gains at most {percent(advantage[order[0]])} over guessing.",
    )
    sheet.add(
        "median leakage",
        f"{LEAK}.influence_scores",
        float(np.median(scores)),
        unit="nats",
        meaning=f"Of a Gaussian process with lengthscale {scale:.3g} (median distance) and noise variance {NOISE:g} on standardised targets.",
    )
    covered = leakage_ceiling(1.0, NOISE, 0.0)
    sheet.add(
        "ceiling without surprise", f"{LEAK}.leakage_ceiling", covered["kl_after_before"], unit="nats", meaning="Of a record far from all others whose target is as expected."
    )
    sheet.outputs["leakage"] = scores.tolist()
    sheet.headlines.append(
        f"An attacker who sees predictions gains at most {percent(float(np.median(advantage)))} over guessing on the median record and"
        f" {percent(float(advantage[order[0]]))} on the most exposed one (row {order[0] + 1})."
    )


def texts(rows, sheet, embed=None, seed=0, names=("accepted", "refused")):
    """Texts of two groups, embedded by `embed` or, without it, by their words."""
    if len(rows) > MOST_TEXTS:
        drawn = np.sort(np.random.default_rng(seed).choice(len(rows), MOST_TEXTS, replace=False))
        sheet.said.append(f"{MOST_TEXTS:,} of {len(rows):,} rows of texts were drawn at random.")
        rows = [rows[i] for i in drawn]
    sides = [[text for row in rows for text in row[name]] for name in names]
    firsts = [(row[names[0]][0], row[names[1]][0]) for row in rows if row[names[0]] and row[names[1]]]
    if embed is None:
        sheet.said.append("Texts are compared by their words (TF-IDF, 300 of them); name a sentence-embedding model to compare them by meaning.")
    vectors = by_words(sides) if embed is None else [embed(side) for side in sides]
    two_groups(*vectors, names, sheet, seed)
    sheet.section = "Words"
    for name, side in zip(names, sides, strict=True):
        if side:
            found = lexical_diversity(side)
            sheet.add(
                f"distinct bigrams, {name}",
                f"{SHIFT}.lexical_diversity",
                found["distinct_2"],
                meaning=f"Of {len(side):,} texts together; it falls with the amount of text, so compare equal amounts.",
            )
    if len(firsts) >= FEWEST:
        values = np.array([[lexical_diversity([text])["type_token"] if text.split() else 0.0 for text in pair] for pair in firsts])
        found = test_divergence(values[:, 0], values[:, 1])
        sheet.mean(
            "divergence of the type-token ratio",
            f"{SHIFT}.test_divergence",
            np.abs(values[:, 0] - values[:, 1]),
            "pairs of texts on one prompt",
            meaning=f"Difference of the means: {found['mean_gap']:.3g}.",
        )


def by_words(sides):
    """TF-IDF of the 300 most frequent words, a matrix for each side."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    matrix = TfidfVectorizer(max_features=300).fit_transform([text for side in sides for text in side]).toarray()
    return matrix[: len(sides[0])], matrix[len(sides[0]) :]


def answers(rows, sheet, embed=None, seed=0):
    """Answers with scores by people: how scores are spread, and how answers of low and high scores differ as texts."""
    sheet.section = "Answers"
    scores, words = np.array([float(row["score"]) for row in rows]), [row["text"] for row in rows]
    levels = np.unique(scores)
    sheet.tables["Answers by score"] = {
        "score": levels.tolist(),
        "texts": [int(np.sum(scores == level)) for level in levels],
        "mean words": [float(np.mean([len(t.split()) for t, s in zip(words, scores, strict=True) if s == level])) for level in levels],
        "type-token ratio": [float(np.mean([lexical_diversity([t])["type_token"] for t, s in zip(words, scores, strict=True) if s == level and t.split()])) for level in levels],
    }
    sheet.pictures.append(Picture("Length by score", "score", "words", [Series("texts", scores, [len(t.split()) for t in words], style="points")]))
    from scipy.stats import spearmanr

    longer = spearmanr(scores, [len(t.split()) for t in words])
    if len(levels) > 1 and len(scores) > 3:
        sheet.test(
            "score does not depend on length", f"{SHIFT}.lexical_diversity", longer.pvalue, meaning=f"Spearman's correlation {longer.statistic:.2f} over {len(scores)} texts."
        )
        sheet.headlines.append(f"{len(scores)} answers on {len({row['question'] for row in rows})} questions; the correlation of score and length is {longer.statistic:.2f}.")
    high = scores > np.median(scores)
    texts(
        [{"high-scored": [t for t, h in zip(words, high, strict=True) if h], "low-scored": [t for t, h in zip(words, high, strict=True) if not h]}],
        sheet,
        embed,
        seed,
        ("high-scored", "low-scored"),
    )
    sheet.section = "Judge"
    sheet.distrust(
        "score against duel",
        "trust-judge.score_comparison_inconsistency",
        "These are scores by people alone; contradictions of a judge take its scores and its verdicts on pairs in both orders.",
    )
