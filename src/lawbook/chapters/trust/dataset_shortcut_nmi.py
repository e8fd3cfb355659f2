"""Unions of narrow data sets: how strongly an irrelevant factor such as the scene gives away a relevant one such as the task, and what breaks the tie."""

import numpy as np

from lawbook.contract import Paper, choice, distribution, integer, nonnegative, probability, real, record, vector
from lawbook.numerics import arrays, special
from lawbook.trials import Estimate, Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="Shortcut Learning in Generalist Robot Policies: The Role of Dataset Diversity and Fragmentation",
    arxiv="2508.06426",
    tags=["shortcut learning", "spurious correlation", "robotics", "data collection", "diversity", "mutual information", "data augmentation"],
    source="derived",
    says="""A large collection of robot data is a union of many narrow sets. Within each, task and scene vary independently; across them they are tied, so that the scene becomes a
    shortcut for the task. Little variety within the parts and large differences between them make the tie stronger; parts that overlap, and objects or views that are swapped,
    weaken it.""",
    notes="""The measure, normalised mutual information of the two factors in the mixture, follows the idea of the paper; closed forms are derived here and exact. Mutual
    information of records is the plug-in value. Its bias is (a-1)(b-1)/(2n) only where all combinations of a and b values can occur; where parts do not overlap most cannot,
    and the bias is smaller: the default counts the combinations that occur, the full table is an option.""",
)

FACTOR = integer(low=-(2**31), high=2**31, typical=(0, 3))
NATS = nonnegative("nats")


def entropy(p):
    """Entropy along the last axis, in nats."""
    return -special(np, "xlogy")(p, p).sum(-1)


def information(joint):
    """Mutual information of a joint table, as a divergence: no digits are lost where it is small."""
    product = joint.sum(1, keepdims=True) * joint.sum(0)
    return max(float(special(np, "rel_entr")(joint, product).sum()), 0.0)


@paper.measure(
    r"I = I(u; v),\ p(u, v) = \sum_i w_i\, p_i(u)\, p_i(v),\quad \mathrm{NMI} = \frac{2 I}{H(u) + H(v)},\quad I \le \min\{I(u; D), I(v; D)\} \le H(D)",
    assumes=["Within each part, the two factors are independent."],
    requires={"weights must not all be 0": lambda weights: weights is None or np.sum(weights) > 0},
)
def shortcut_strength(
    u_tables: distribution("m", "a", doc="law of the relevant factor in each part", example=[[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]),
    v_tables: distribution("m", "b", doc="law of the irrelevant factor in each part", example=[[0.9, 0.1], [0.2, 0.8]]),
    weights: vector("m", of=nonnegative(typical=(0.1, 1)), doc="sizes of the parts, to be scaled; equal where not given") = None,
) -> record(
    mutual_information=NATS,
    nmi=probability(doc="normalised by the mean of the two entropies; 0 where neither factor varies"),
    index_entropy=nonnegative("nats", doc="H(D): of the number of the part"),
    diversity_u=nonnegative("nats", doc="mean entropy of the relevant factor within the parts"),
    diversity_v=nonnegative("nats", doc="mean entropy of the irrelevant factor within the parts"),
    guess_accuracy=probability(doc="of the best guess of the relevant factor from the irrelevant one"),
    base_accuracy=probability(doc="of the best guess without it"),
):
    """How far an irrelevant factor gives a relevant one away in a union of parts, from the tables of each part."""
    u, v = np.asarray(u_tables, float), np.asarray(v_tables, float)
    w = np.full(len(u), 1 / len(u)) if weights is None else np.asarray(weights, float) / np.sum(weights)
    joint = (w[:, None] * u).T @ v
    mutual, total = information(joint), float(entropy(joint.sum(1)) + entropy(joint.sum(0)))
    return {
        "mutual_information": mutual,
        "nmi": min(2 * mutual / total, 1.0) if total > 0 else 0.0,
        "index_entropy": max(float(entropy(w)), 0.0),
        "diversity_u": max(float(w @ entropy(u)), 0.0),
        "diversity_v": max(float(w @ entropy(v)), 0.0),
        "guess_accuracy": min(float(joint.max(0).sum()), 1.0),
        "base_accuracy": min(float(joint.sum(1).max()), 1.0),
    }


@paper.law(
    r"\mathrm{NMI} = \frac{2 H(D)}{2 H(D) + \bar H_u + \bar H_v}",
    closed_form=True,
    gives=0.5,
    assumes=["No value of either factor occurs in two parts.", "Within each part the two are independent."],
)
def fragmented_nmi(
    index_entropy: nonnegative("nats", typical=(0, 5), doc="H(D): log of the number of equal parts", example=2.0),
    diversity_u: nonnegative("nats", typical=(0, 5), doc="mean entropy of the relevant factor within the parts", example=3.0),
    diversity_v: nonnegative("nats", typical=(0, 5), doc="mean entropy of the irrelevant factor within the parts", example=1.0),
) -> probability(doc="0 where all entropies are"):
    """Normalised mutual information of two factors in a union of parts that share no values."""
    xp, h, u, v = arrays(index_entropy, diversity_u, diversity_v)
    total = 2 * h + u + v
    return 2 * h / xp.where(total > 0, total, 1.0)


def cells(*columns):
    """(counts, numbers of the values in each column) of the combinations that occur."""
    code = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        code = np.unique(code, return_inverse=True)[1] * (column.max() + 1) + column
    _, first, counts = np.unique(code, return_index=True, return_counts=True)
    return counts, [column[first] for column in columns]


@paper.measure(
    r"\hat I = \sum_{u,v} \hat p(u,v) \log\frac{\hat p(u,v)}{\hat p(u)\, \hat p(v)},\quad \sum_i w_i \hat I_i,\quad "
    r"\mathrm{bias} \approx \frac{\#\{uv\} - a - b + 1}{2n}\ \text{or}\ \frac{(a-1)(b-1)}{2n}",
)
def shortcut_from_records(
    u: vector("n", of=FACTOR, most=60, doc="code of the relevant factor of each record", example=[0, 0, 1, 1, 2, 2, 3, 3]),
    v: vector("n", of=FACTOR, most=60, doc="code of the irrelevant factor", example=[0, 0, 0, 1, 1, 1, 0, 1]),
    dataset: vector("n", of=FACTOR, most=60, doc="code of the part", example=[0, 0, 0, 0, 1, 1, 1, 1]),
    *,
    support: choice("seen", "table", doc="bias from the combinations that occur, or from the full table") = "seen",
) -> record(
    mutual_information=nonnegative("nats", doc="plug-in value of the records: on average too large by the bias"),
    nmi=probability(doc="from the plug-in value; 0 where neither factor varies"),
    within_dependence=nonnegative("nats", doc="mean mutual information within the parts, plug-in: the assumption of independence there"),
    bias=real("nats", doc="of mutual_information, to first order in 1/n; negative where few combinations occur"),
    within_bias=real("nats", doc="of within_dependence: what it comes to without any dependence"),
    guess_accuracy=probability(doc="of the best guess of u from v, on these records"),
    base_accuracy=probability(doc="of the best guess of u without v"),
):
    """How far an irrelevant factor gives a relevant one away in records, and whether it does so within their parts too."""
    u, v, part = (np.unique(column, return_inverse=True)[1] for column in (u, v, dataset))
    n, sizes = len(u), np.bincount(part)

    def plug_in(counts, i, j, totals):
        """Sum over cells of counts log(counts total / (row sum column sum)), all in blocks of their own."""
        rows, columns = np.bincount(i, counts), np.bincount(j, counts)
        return max(float(counts @ np.log(counts * totals / (rows[i] * columns[j]))) / n, 0.0)

    counts, (i, j) = cells(u, v)
    mutual = plug_in(counts, i, j, n)
    inside, (k, i_in, j_in) = cells(part, u, v)
    _, (k_u, _) = cells(part, u)
    _, (k_v, _) = cells(part, v)
    row, column = (np.unique(k * (factor.max() + 1) + values, return_inverse=True)[1] for factor, values in ((u, i_in), (v, j_in)))
    a, b, a_in, b_in = len(np.bincount(i)), len(np.bincount(j)), np.bincount(k_u), np.bincount(k_v)
    if support == "table":
        bias, within_bias = (a - 1) * (b - 1) / (2 * n), float(((a_in - 1) * (b_in - 1)).sum() / (2 * n))
    else:
        bias, within_bias = (len(counts) - a - b + 1) / (2 * n), float((len(inside) - a_in.sum() - b_in.sum() + len(sizes)) / (2 * n))
    total, best = float(entropy(np.bincount(u) / n) + entropy(np.bincount(v) / n)), np.zeros(b)
    np.maximum.at(best, j, counts)
    return {
        "mutual_information": mutual,
        "nmi": min(2 * mutual / total, 1.0) if total > 0 else 0.0,
        "within_dependence": plug_in(inside, row, column, sizes[k]),
        "bias": bias,
        "within_bias": within_bias,
        "guess_accuracy": float(best.sum() / n),
        "base_accuracy": float(np.bincount(u).max() / n),
    }


@paper.bound(r"I(u; v') \le (1 - q)\, I(u; v),\quad p_i'(v) = (1 - q)\, p_i(v) + q\, p(v)", closed_form=True)
def after_swapping(
    mutual_information: nonnegative("nats", typical=(0, 3), doc="before", example=1.0),
    share: probability(doc="q: share of the irrelevant factor's values that are redrawn from the whole union", example=0.5),
) -> NATS:
    """Mutual information that can be left after a share of the irrelevant factor has been swapped between the parts."""
    _, mutual, share = arrays(mutual_information, share)
    return (1 - share) * mutual


def random_parts(draw, parts, values):
    return np.array([draw.dirichlet(draw.choice([0.2, 1.0, 5.0]), values) for _ in range(parts)])


def disjoint(tables):
    """Each part's law on values of its own."""
    parts, values = tables.shape
    return (np.eye(parts)[:, :, None] * tables[:, None, :]).reshape(parts, parts * values)


def geometric_mean(index_entropy, diversity_u, diversity_v):
    return index_entropy / np.sqrt((index_entropy + diversity_u) * (index_entropy + diversity_v))


@paper.trial(Identity(rtol=1e-11), of=[fragmented_nmi, shortcut_strength], controls={"geometric mean of the entropies": geometric_mean}, quick=200, full=5000)
def parts_without_overlap(draw, claim):
    """The joint table of a union of parts that share no values has the stated normalised mutual information, and H(D) nats of it."""
    parts = draw.integer(2, 6)
    u, v, w = random_parts(draw, parts, draw.integer(2, 5)), random_parts(draw, parts, draw.integer(2, 5)), draw.dirichlet(2.0, parts)
    found = shortcut_strength(disjoint(u), disjoint(v), w)
    direct = -np.sum(w * np.log(w)), -np.sum(w[:, None] * u * np.log(u)), -np.sum(w[:, None] * v * np.log(v))
    return [found["nmi"], found["mutual_information"], found["diversity_u"], found["diversity_v"]], [claim(*direct), *direct], {"parts": parts}


def square_of_the_share(mutual_information, share):
    return (1 - share) ** 2 * mutual_information


@paper.trial(Inequality(atol=1e-12, search=150), of=[after_swapping, shortcut_strength], controls={"square of the share kept": square_of_the_share}, quick=200, full=2000)
def processing_and_swapping(draw, claim):
    """The dependence is at most what either factor says about the part, and H(D); swapping leaves at most its share; more overlap of two parts leaves less."""
    parts = draw.integer(2, 5)
    u, v, w, q = random_parts(draw, parts, draw.integer(2, 6)), random_parts(draw, parts, draw.integer(2, 6)), draw.dirichlet(2.0, parts), draw.uniform()
    found = shortcut_strength(u, v, w)
    swapped = shortcut_strength(u, (1 - q) * v + q * (w @ v), w)["mutual_information"]
    about_part = [information(w[:, None] * tables) for tables in (u, v)]
    shared = [shortcut_strength(*[np.repeat([[1, 0], [1, 1], [0, 1]], [8 - c, c, 8 - c], axis=0).T / 8] * 2)["nmi"] for c in range(9)]
    mutual = found["mutual_information"]
    return [mutual, mutual, mutual, swapped, *shared[1:]], [*about_part, found["index_entropy"], claim(mutual, q), *shared[:-1]], {"share": q}


def parts_of_equal_weight(u_tables, v_tables, weights):
    return shortcut_strength(u_tables, v_tables)


CLAIM = (shortcut_strength, shortcut_from_records)
SHARED = ("mutual_information", "nmi", "guess_accuracy", "base_accuracy")


@paper.trial(
    Identity(rtol=1e-9, atol=1e-12),
    of=[shortcut_strength, shortcut_from_records],
    claim=CLAIM,
    controls={"parts of equal weight": (parts_of_equal_weight, CLAIM[1])},
    quick=20,
    full=300,
)
def records_and_scikit_learn(draw, claim):
    """Records that hold the products of the parts' tables exactly give what the tables give, no dependence within, and what scikit-learn's measures and trees say."""
    from sklearn.metrics import mutual_info_score, normalized_mutual_info_score
    from sklearn.tree import DecisionTreeClassifier

    parts, tables, columns = draw.integer(2, 4), [], []
    for part in range(parts):
        u, v = (draw.rng.integers(0, 4, 5) * draw.rng.integers(0, 2, 5) + np.eye(5, dtype=int)[part] for _ in range(2))
        joint = np.outer(u, v)
        tables.append((u / u.sum(), v / v.sum(), joint.sum()))
        columns.append(np.repeat([[i, j, part] for i in range(5) for j in range(5)], joint.ravel(), axis=0))
    order = draw.rng.permutation(sum(map(len, columns)))
    u, v, part = np.concatenate(columns)[order].T
    strength, of_records = claim
    stated, found = strength(*map(np.array, zip(*tables, strict=True))), of_records(7 * u, v - 3, part)
    tree = DecisionTreeClassifier().fit(v[:, None], u).score(v[:, None], u)
    peers = [mutual_info_score(u, v), normalized_mutual_info_score(u, v), tree, np.mean(u == np.bincount(u).argmax())]
    return [*peers, *peers, 0.0], [*(stated[key] for key in SHARED), *(found[key] for key in SHARED), found["within_dependence"]], {"parts": parts}


def full_table(u, v, dataset):
    return shortcut_from_records(u, v, dataset, support="table")


@paper.trial(Identity(rtol=0.1), of=[shortcut_from_records], controls={"bias of the full table": full_table}, quick=2, full=6)
def bias_of_records(draw, claim):
    """What the plug-in values exceed the truth by, on average over samples of parts without overlap, is the stated bias."""
    parts, values, n, excess, stated = draw.integer(2, 3), draw.integer(2, 4), 400, [], []
    for _ in range(500):
        part = draw.rng.integers(parts, size=n)
        found = claim(*(values * part + draw.rng.integers(values, size=n) for _ in range(2)), part)
        excess.append([found["mutual_information"] - np.log(parts), found["within_dependence"]])
        stated.append([found["bias"], found["within_bias"]])
    return Estimate.of(excess), np.mean(stated, axis=0), {"parts": parts, "values": values}


def diversity_for_dependence(u_tables, v_tables):
    found = shortcut_strength(u_tables, v_tables)
    return found | {"nmi": found["diversity_v"]}


@paper.trial(Guarantee(), of=[shortcut_strength], controls={"diversity for dependence": diversity_for_dependence}, quick=2, full=20)
def learners_fall_for_it(draw, claim):
    """Over 12 designs, the accuracy that a logistic classifier of the task loses when scenes are shuffled rises with the dependence: rank correlation above .9."""
    from scipy.stats import spearmanr
    from sklearn.linear_model import LogisticRegression

    strengths, drops, rng = [], [], draw.rng
    for c in np.linspace(0, 0.5, 12):
        table = (1 - c) * np.eye(4) + c / 4
        strengths.append(claim(table, table)["nmi"])
        part = rng.integers(4, size=4000)
        u, v = (np.where(rng.uniform(size=4000) < c, rng.integers(4, size=4000), part) for _ in range(2))
        seen, scene = np.eye(4)[u] + rng.normal(size=(4000, 4)), np.eye(4)[v]
        model = LogisticRegression().fit(np.hstack([seen, scene])[:2000], u[:2000])
        same, shuffled = (model.score(np.hstack([seen[2000:], s]), u[2000:]) for s in (scene[2000:], rng.permutation(scene[2000:])))
        drops.append(same - shuffled)
    return 0.9, float(spearmanr(strengths, drops).statistic), {"drops": drops, "nmi": strengths}


@paper.finding(
    """The usual correction of mutual information, (a-1)(b-1)/(2n), is far too large on fragmented collections, as most combinations cannot occur: with 20 parts of 5 tasks and 5
    scenes each and 20,000 records it takes off .24 nats where the plug-in value is too large by .0075, which the combinations that occur tell.""",
    trial=bias_of_records,
)
def full_table_over_corrects():
    rng, excess = np.random.default_rng(0), []
    for _ in range(30):
        part = rng.integers(20, size=20_000)
        records = [5 * part + rng.integers(5, size=20_000) for _ in range(2)]
        excess.append(shortcut_from_records(*records, part)["mutual_information"] - np.log(20))
    measured, seen, table = float(np.mean(excess)), shortcut_from_records(*records, part)["bias"], full_table(*records, part)["bias"]
    return {"holds": abs(seen - measured) < 0.3 * measured and table > 20 * measured, "measured": measured, "seen": seen, "table": table}
