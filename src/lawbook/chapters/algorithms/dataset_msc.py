"""Compression of data sets of bags of vectors: the information that they hold, and greedy choices that keep what is rare."""

import numpy as np

from lawbook.contract import Paper, choice, count, listing, matrix, nonnegative, positive, probability, real, record, seed, table, vector
from lawbook.numerics import logsumexp
from lawbook.trials import Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="Maximizing Efficiency of Dataset Compression for Machine Learning Potentials With Information Theory",
    arxiv="2511.10561",
    tags=["data selection", "entropy", "set cover", "active learning", "coresets"],
    source="code",
    says="""A data set is a list of structures, each a bag of vectors that describe environments. The entropy of a kernel density tells how much information it holds without
    repetition, and the distance of a new environment to what is kept, measured by the same kernel, whether it is novel. A greedy rule that takes the structure with the most
    novel environment keeps rare environments under strong compression; it works for any data given as bags of vectors.""",
    notes="""The greedy rule is not that of set cover, so it carries no guarantee: both are here. What has been kept is summed up in logarithms, so that environments far
    from everything are told apart by their distance, where plain sums underflow. The mean pairwise distance of farthest-point sampling is that over all pairs of environments.""",
)

ROWS = 1024  # queries at a time
COVERED = 1e-5  # nats of novelty below which an environment counts as covered
DESCRIPTORS = matrix("N", "p", of=real(typical=(-2, 2)), doc="an environment in each row", example=[[0.0, 0.0], [0.1, 0.0], [2.0, 2.0]])
BANDWIDTH = positive(typical=(0.05, 2), doc="width of the Gaussian kernel", example=0.5)
GROUPS = listing(
    matrix("N", "p", of=real(typical=(-2, 2))),
    least=1,
    doc="structures, each with an environment in each row",
    example=[[[0.0, 0.0], [0.1, 0.0]], [[0.0, 0.1], [0.1, 0.1]], [[2.0, 2.0], [0.0, 0.0]]],
)


def alike(groups):
    return len({group.shape[1] for group in groups}) == 1


def sample_groups(rng):
    """Random structures for the results that take a list of them."""
    groups = [rng.normal(size=(int(rng.integers(1, 5)), 2)) for _ in range(int(rng.integers(2, 8)))]
    return groups, float(np.exp(rng.uniform(-2, 1)))


def log_kernel_sums(queries, reference, bandwidth):
    """ln sum_j K(y, x_j) for each row y of queries."""
    from scipy.spatial.distance import cdist

    parts = [queries[i : i + ROWS] for i in range(0, len(queries), ROWS)]
    return np.concatenate([logsumexp(np, -cdist(part, reference, "sqeuclidean") / (2 * bandwidth**2)) for part in parts])


@paper.measure(r"H = -\frac1N \sum_i \ln \frac{p_i}{N},\quad p_i = \sum_j e^{-\|x_i - x_j\|^2 / 2h^2}")
def kernel_entropy(descriptors: DESCRIPTORS, bandwidth: BANDWIDTH) -> nonnegative("nats"):
    """Information of a set of environments: 0 where all are alike, ln N where the kernel tells all apart."""
    return max(0.0, float(np.log(len(descriptors)) - log_kernel_sums(descriptors, descriptors, bandwidth).mean()))


@paper.measure(r"D = \ln \sum_i \frac{1}{p_i}")
def kernel_diversity(descriptors: DESCRIPTORS, bandwidth: BANDWIDTH) -> nonnegative("nats"):
    """Logarithm of the number of environments that the kernel tells apart."""
    return max(0.0, float(logsumexp(np, -log_kernel_sums(descriptors, descriptors, bandwidth))))


@paper.measure(r"\delta H(y \mid X) = -\ln \sum_j e^{-\|y - x_j\|^2 / 2h^2}")
def novelty(
    queries: matrix("M", "p", of=real(typical=(-2, 2)), doc="an environment in each row", example=[[0.0, 0.0], [1.0, 1.0]]),
    reference: DESCRIPTORS,
    bandwidth: BANDWIDTH,
) -> vector("M", of=real("nats")):
    """Novelty of each query: 0 or less where the reference covers it, above 0 where less than one environment of it is near."""
    return -log_kernel_sums(queries, reference, bandwidth)


def select(groups, size, bandwidth, reference=None, worst=np.minimum):
    """Structures in the order of the greedy choice; `worst` picks the environment that speaks for a structure."""
    sizes = np.array([len(group) for group in groups])
    stacked, starts = np.concatenate(groups), np.append(0, np.cumsum(sizes)[:-1])
    own = np.array([kernel_entropy(group, bandwidth) for group in groups])
    near = np.full(len(stacked), -np.inf) if reference is None else log_kernel_sums(stacked, reference, bandwidth)  # ln A, the kernel summed over what is kept
    kept, free = [], np.ones(len(groups), bool)
    while len(kept) < size:
        score = own if not kept and reference is None else own - worst.reduceat(near, starts)
        kept.append(int(np.argmax(np.where(free, score, -np.inf))))
        free[kept[-1]] = False
        near = np.logaddexp(near, log_kernel_sums(stacked, groups[kept[-1]], bandwidth))
    return np.array(kept)


def overlap(groups, kept, bandwidth):
    """Share of all environments that the kept structures cover."""
    return float(np.mean(novelty(np.concatenate(groups), np.concatenate([groups[i] for i in kept]), bandwidth) < COVERED))


def sample_msc(rng):
    groups, bandwidth = sample_groups(rng)
    return {"groups": groups, "size": int(rng.integers(1, len(groups) + 1)), "bandwidth": bandwidth}


@paper.algorithm(
    r"s_t = \arg\max_s \left[-\ln \min_{e \in s} A_t(e) + H(X_s)\right],\quad A_{t+1}(e) = A_t(e) + \sum_{x \in s_t} K(e, x)",
    requires={
        "groups must all describe environments by equally many numbers": alike,
        "size must be at most the number of groups": lambda size, groups: size <= len(groups),
        "reference must describe environments as groups do": lambda reference, groups: reference is None or reference.shape[1] == groups[0].shape[1],
    },
    sample=sample_msc,
)
def compress_msc(
    groups: GROUPS,
    size: count(typical=(1, 4), doc="structures to keep", example=2),
    bandwidth: BANDWIDTH,
    *,
    reference: matrix("R", "p", of=real(typical=(-2, 2)), doc="environments that are there already") = None,
) -> record(indices=vector("size", of=count(low=0)), entropy=nonnegative("nats"), overlap=probability()):
    """Structures in the order of their choice, each the one whose most novel environment is most novel; the entropy that they hold and the share of environments covered."""
    kept = select(groups, size, bandwidth, reference)
    return {"indices": kept, "entropy": kernel_entropy(np.concatenate([groups[i] for i in kept]), bandwidth), "overlap": overlap(groups, kept, bandwidth)}


def reach_of(groups, bandwidth, threshold):
    """For each structure which of all environments it covers."""
    from scipy.spatial.distance import cdist

    stacked = np.concatenate(groups)
    near = -2 * bandwidth**2 * np.log(threshold)
    return np.array([(cdist(group, stacked, "sqeuclidean") <= near).any(0) for group in groups])


@paper.algorithm(
    r"s_t = \arg\max_s |\{e \text{ uncovered}: \max_{x \in s} K(e, x) \ge \kappa\}|",
    requires={"groups must all describe environments by equally many numbers": alike},
    sample=lambda rng: dict(zip(("groups", "bandwidth"), sample_groups(rng), strict=True)),
)
def compress_set_cover(
    groups: GROUPS, bandwidth: BANDWIDTH, *, threshold: probability(above=True, typical=(0.1, 0.9), doc="kernel from which on an environment counts as covered") = 0.5
) -> record(indices=vector("kept", of=count(low=0)), covered=count(doc="environments covered, which is all of them")):
    """Structures by the greedy rule of set cover, until every environment is covered; at most 1 + ln N times as many as are needed."""
    reach = reach_of(groups, bandwidth, threshold)
    left, kept = np.ones(reach.shape[1], bool), []
    while left.any():
        kept.append(int(np.argmax((reach & left).sum(1))))
        left &= ~reach[kept[-1]]
    return {"indices": np.array(kept), "covered": reach.shape[1]}


def farthest(groups, size, bandwidth):
    """Start with the highest entropy, then take the structure farthest (by mean distance of environments) from the nearest one kept."""
    from scipy.spatial.distance import cdist

    kept, nearest = [int(np.argmax([kernel_entropy(group, bandwidth) for group in groups]))], np.full(len(groups), np.inf)
    stacked, starts = np.concatenate(groups), np.append(0, np.cumsum([len(group) for group in groups])[:-1])
    sizes = np.diff(np.append(starts, len(stacked)))
    while len(kept) < size:
        nearest = np.minimum(nearest, np.add.reduceat(cdist(groups[kept[-1]], stacked).mean(0), starts) / sizes)
        nearest[kept] = -1
        kept.append(int(np.argmax(nearest)))
    return np.array(kept)


def sample_curve(rng):
    groups, bandwidth = sample_groups(rng)
    return {"groups": groups, "bandwidth": bandwidth, "sizes": rng.integers(1, len(groups) + 1, size=3), "method": str(rng.choice(["msc", "fps", "random"]))}


@paper.measure(
    r"k \mapsto (H, D, \text{overlap})(s_1, \dots, s_k)",
    requires={
        "groups must all describe environments by equally many numbers": alike,
        "sizes must be at most the number of groups": lambda sizes, groups: sizes.max() <= len(groups),
    },
    sample=sample_curve,
)
def compression_curve(
    groups: GROUPS,
    bandwidth: BANDWIDTH,
    sizes: vector("k", of=count(typical=(1, 3)), doc="numbers of structures to keep", example=[1, 2, 3]),
    *,
    method: choice("msc", "fps", "random", doc="most novel environment, farthest point, or chance") = "msc",
    seed: seed() = 0,
) -> table(size=count(), entropy=nonnegative("nats"), diversity=nonnegative("nats"), overlap=probability()):
    """What is left of entropy, diversity and coverage at each size, for one way of choosing."""
    most = int(sizes.max())
    order = {"msc": select, "fps": farthest}[method](groups, most, bandwidth) if method != "random" else np.random.default_rng(seed).permutation(len(groups))
    kept = [np.concatenate([groups[i] for i in order[:size]]) for size in sizes]
    return {
        "size": sizes,
        "entropy": np.array([kernel_entropy(part, bandwidth) for part in kept]),
        "diversity": np.array([kernel_diversity(part, bandwidth) for part in kept]),
        "overlap": np.array([overlap(groups, order[:size], bandwidth) for size in sizes]),
    }


def diversity_not_normalised(descriptors, bandwidth):
    return kernel_entropy(descriptors, bandwidth) - 0.5 * np.log(len(descriptors))


@paper.trial(
    Inequality(atol=1e-12, search=0),
    of=[kernel_diversity, kernel_entropy, novelty],
    controls={"half of the logarithm of the size taken off": diversity_not_normalised},
    quick=60,
    full=1000,
)
def order_of_measures(draw, claim):
    """0 <= H <= D <= ln N; doubling the data changes neither; no environment is novel in its own set."""
    x, h = draw.rng.normal(size=(draw.integer(1, 40), 3)), draw.log_uniform(0.02, 20)
    H, D = kernel_entropy(x, h), claim(x, h)
    twice = np.concatenate([x, x])
    changes = abs(kernel_entropy(twice, h) - H), abs(claim(twice, h) - D)
    return [0, H, D, *changes, novelty(x, x, h).max()], [H, D, np.log(len(x)), 1e-9, 1e-9, 0], {"n": len(x), "bandwidth": h}


def smallest_first(groups, bandwidth):
    """Takes structures by size alone until all is covered."""
    order, reach = np.argsort([len(group) for group in groups], kind="stable"), reach_of(groups, bandwidth, 0.5)
    covered = np.logical_or.accumulate(reach[order])
    return {"indices": order[: int(np.argmax(covered.all(1))) + 1]}


@paper.trial(Guarantee(), of=[compress_set_cover], controls={"small structures first": smallest_first}, quick=40, full=300)
def set_cover_guarantee(draw, claim):
    """Set cover is complete and takes at most 1 + ln N times the fewest structures that cover everything, found by trying all subsets."""
    groups = [draw.rng.integers(0, 12, size=(int(draw.rng.integers(1, 4)), 1)).astype(float) for _ in range(draw.integer(2, 11))]
    groups.append(np.arange(12.0)[:, None] if draw.integer(0, 1) else groups[0])
    kept = claim(groups, 0.2)["indices"]
    reach = reach_of(groups, 0.2, 0.5)
    subsets = (np.arange(1, 1 << len(groups))[:, None] >> np.arange(len(groups))) & 1
    complete = (subsets @ reach > 0).all(1)
    least = subsets[complete].sum(1).min()
    return [len(kept), float(~reach[kept].any(0).all())], [(1 + np.log(reach.shape[1])) * least, 0.0], {"least": least}


def with_outliers(rng):
    """300 structures of 5 environments; in the first 6 one environment lies 8 standard deviations off, each in a direction of its own (outliers near each other are not rare)."""
    groups = rng.normal(size=(300, 5, 3))
    groups[:6, 0] += 8 * np.concatenate([np.eye(3), -np.eye(3)])
    return list(groups)


def least_novel(groups, size, bandwidth):
    """Judges a structure by the environment that is covered best."""
    return {"indices": select(groups, size, bandwidth, worst=np.maximum)}


@paper.trial(Guarantee(), of=[compress_msc, compression_curve], controls={"judged by the environment covered best": least_novel}, quick=3, full=40)
def rare_environments_survive(draw, claim):
    """A tenth of the structures keeps all six outliers, and more entropy and diversity than a random tenth."""
    groups = with_outliers(draw.rng)
    indices = claim(groups, 30, 0.5)["indices"]
    kept, chance = np.concatenate([groups[i] for i in indices]), compression_curve(groups, 0.5, np.array([30]), method="random", seed=int(draw.rng.integers(1000)))
    held = kernel_entropy(kept, 0.5), kernel_diversity(kept, 0.5)
    return [6 - np.sum(indices < 6), chance["entropy"][0], chance["diversity"][0]], [0, *held]


def without_own_entropy(groups, size, bandwidth, *, reference):
    """Scores structures of one environment each, so that none has an entropy of its own."""
    firsts = [group[:1] for group in groups]
    return {"indices": select(firsts, size, bandwidth, reference)}


@paper.trial(Identity(), of=[compress_msc], controls={"first environment of each structure only": without_own_entropy}, quick=20, full=300)
def choices_one_by_one(draw, claim):
    """The choices are those of plain loops over environments, with and without a reference."""
    groups, h = [draw.rng.normal(size=(int(draw.rng.integers(1, 5)), 2)) for _ in range(8)], 1.0
    reference = draw.rng.normal(size=(4, 2)) if draw.integer(0, 1) else None

    def K(x, y):
        return np.exp(-np.sum((x - y) ** 2) / (2 * h * h))

    seen, chosen = [] if reference is None else list(reference), []
    while len(chosen) < 5:
        scores = []
        for s, group in enumerate(groups):
            own = np.mean([np.log(len(group) / sum(K(x, y) for y in group)) for x in group])
            novel = max(-np.log(sum(K(e, x) for x in seen)) for e in group) if seen else 0.0
            scores.append(-np.inf if s in chosen else own + novel)
        chosen.append(int(np.argmax(scores)))
        seen += list(groups[chosen[-1]])
    return chosen, claim(groups, 5, h, reference=reference)["indices"]


@paper.finding(
    """The share of environments covered does not measure what the rule promises: judging structures by the environment that is covered best covers more of the data,
    and loses the outliers."""
)
def coverage_misses_outliers():
    found = []
    for start in range(4):
        groups = with_outliers(np.random.default_rng(start))
        kept = compress_msc(groups, 30, 0.5)["indices"], least_novel(groups, 30, 0.5)["indices"]
        found.append([[np.sum(indices < 6), overlap(groups, indices, 0.5)] for indices in kept])
    (rule, covered), (reversed_rule, reversed_covered) = np.mean(found, axis=0).tolist()
    told = {"outliers_of_6": rule, "outliers_reversed": reversed_rule, "overlap": covered, "overlap_reversed": reversed_covered}
    return {"holds": reversed_rule < rule / 2 and reversed_covered > covered, **told}
