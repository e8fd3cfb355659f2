"""Proximities of the nodes of a graph, their logarithms, and which of them makes better distances for clustering."""

from functools import partial
from itertools import product

import numpy as np

from lawbook.contract import Paper, caution, choice, count, flag, integer, listing, matrix, nonnegative, positive, probability, real, record, seed, text, vector
from lawbook.trials import Forecast, Guarantee, Identity, Prediction

paper = Paper(
    __name__,
    title="Do logarithmic proximity measures outperform plain ones in graph clustering?",
    arxiv="1605.01046",
    tags=["graph kernels", "clustering", "community detection", "communicability", "resistance distance"],
    source="known",
    says="""Kernels on graphs multiply along paths where distances should add. Taking the logarithm of a kernel before it is turned into a distance mends this: for walks and
    forests the distance then adds up exactly where every path passes through the node between. Clusters of planted partitions are mostly found better from logarithms,
    best of all with communicability.""",
    notes="""Additivity at cut points holds for walk and forest kernels only; logarithms of communicability and of the heat kernel are not even metrics. That logarithms are better
    depends on the measure of quality too: by the chance that a distance inside a class is below one between classes, plain walks are ahead.""",
)

TRIANGLES = [[0, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 1], [0, 0, 1, 0, 1], [0, 0, 1, 1, 0]]
ADJACENCY = matrix("n", "n", of=nonnegative(typical=(0.1, 2)), least=2, doc="weights of the edges of a connected undirected graph", example=TRIANGLES)
KERNELS = ("walk", "comm", "forest", "heat")
KERNEL = choice(*KERNELS, doc="walks (I - tA/rho)^-1, communicability exp(tA), forests (I + tL)^-1, heat exp(-tL)", example="walk")
PARAMETER = positive(typical=(0.05, 0.95), doc="t; below 1 for walks", example=0.5)
LOGARITHMIC = flag(doc="take the logarithm of the kernel first")
LABELS = vector("n", of=integer(typical=(0, 1)), doc="class of each node", example=[0, 0, 0, 1, 1])
GRIDS = {"walk": np.append(np.arange(0.1, 0.95, 0.1), [0.93, 0.96, 0.98])} | {kernel: np.geomspace(0.01, 20, 12) for kernel in KERNELS[1:]}


def connected(adjacency):
    from scipy.sparse.csgraph import connected_components

    return connected_components(adjacency > 0, directed=False)[0] == 1


GRAPH = {
    "adjacency must be symmetric: an undirected graph": lambda adjacency: bool(np.allclose(adjacency, adjacency.T, rtol=1e-9)),
    "adjacency must be that of a connected graph; take its components one by one": connected,
}
BELOW_ONE = {"parameter must be below 1 for the kernel walk": lambda parameter, kernel: kernel != "walk" or parameter < 1}


def random_graph(rng, n=None):
    """A connected graph: a random tree with further edges."""
    n = int(rng.integers(3, 13)) if n is None else n
    A = np.triu((rng.random((n, n)) < rng.uniform(0, 0.5)) * rng.uniform(0.2, 2, size=(n, n)), 1)
    for i in range(1, n):
        A[rng.integers(i), i] = rng.uniform(0.2, 2)
    return A + A.T


def sample_distance(rng):
    return {"adjacency": random_graph(rng), "kernel": str(rng.choice(KERNELS)), "parameter": float(rng.uniform(0.05, 0.95)), "logarithmic": bool(rng.integers(2))}


def prepared(adjacency):
    """(A, rho, L, eigenvalues and eigenvectors of A and of L)."""
    laplacian = np.diag(adjacency.sum(1)) - adjacency
    of_a, of_l = np.linalg.eigh(adjacency), np.linalg.eigh(laplacian)
    return adjacency, of_a[0][-1], laplacian, of_a, of_l


def proximities(graph, kernel, t):
    """A kernel; communicability without the factor exp(t rho), which overflows and which logarithmic distances do not see."""
    A, rho, L, (a, U), (lam, V) = graph
    if kernel in ("walk", "forest"):  # inverses of M-matrices keep the digits of small entries
        return np.linalg.inv(np.eye(len(A)) + (t * L if kernel == "forest" else -t / rho * A))
    return (U * np.exp(t * (a - rho))) @ U.T if kernel == "comm" else (V * np.exp(-t * np.maximum(lam, 0))) @ V.T


def distances(graph, kernel, t, logarithmic, warn=lambda sentence: None):
    H = proximities(graph, kernel, t)
    if logarithmic:
        least = H.max() * (1e-15 if kernel in ("comm", "heat") else 1e-300)
        if H.min() < least:
            warn("Some proximities are below what rounding leaves of them and were raised to it; a larger parameter avoids that.")
        H = np.log(np.maximum(H, least))
    elif kernel == "comm":
        if t * graph[1] > 700:
            warn("The kernel overflows, so its distances are given up to a factor.")
        H = H * np.exp(min(t * graph[1], 700.0))
    D = np.maximum((np.diag(H)[:, None] + np.diag(H) - H - H.T) / 2, 0.0)
    np.fill_diagonal(D, 0.0)
    return D


@paper.measure(r"D_{ij} = \tfrac12 (h_{ii} + h_{jj} - h_{ij} - h_{ji}),\quad h = H \text{ or } \ln H", requires={**GRAPH, **BELOW_ONE}, sample=sample_distance)
def proximity_distance(adjacency: ADJACENCY, kernel: KERNEL, parameter: PARAMETER, *, logarithmic: LOGARITHMIC = True) -> matrix("n", "n", of=nonnegative()):
    """Distances between the nodes of a graph from a kernel or from its logarithm."""
    return distances(prepared(adjacency), kernel, parameter, logarithmic, caution)


def clustered(D, clusters, method, seed, restarts=10):
    """Labels from distances: coordinates whose squared distances are 2 D, as far as there are such, and clusters of them."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from sklearn.cluster import KMeans

    centred = D - D.mean(0) - D.mean(1)[:, None] + D.mean()
    w, U = np.linalg.eigh(-(centred + centred.T) / 2)
    points = U[:, w > 1e-12 * w[-1]] * np.sqrt(w[w > 1e-12 * w[-1]])
    if points.shape[1] == 0:
        return np.zeros(len(D), int)
    if method == "ward":
        return fcluster(linkage(points, "ward"), clusters, "maxclust") - 1
    return KMeans(clusters, n_init=restarts, random_state=seed % 2**32).fit(points).labels_


@paper.algorithm(
    r"K = -J D J = U \Lambda U^\top,\quad x_i = (U \Lambda_+^{1/2})_i,\quad J = I - \tfrac1n 1 1^\top",
    requires={**GRAPH, **BELOW_ONE, "clusters must be at most the nodes of adjacency": lambda clusters, adjacency: clusters <= len(adjacency)},
    sample=lambda rng: {**sample_distance(rng), "clusters": int(rng.integers(1, 4))},
)
def proximity_cluster(
    adjacency: ADJACENCY,
    clusters: count(typical=(1, 4), example=2),
    kernel: KERNEL,
    parameter: PARAMETER,
    *,
    logarithmic: LOGARITHMIC = True,
    seed: seed() = 0,
    method: choice("k-means", "ward", doc="k-means++ with ten restarts, or Ward's hierarchy") = "k-means",
) -> record(labels=vector("n", of=count(low=0))):
    """Clusters of the nodes of a graph, found among points that have the distances of a kernel."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # graphs are small, and threads cost more than they bring
        return {"labels": clustered(proximity_distance(adjacency, kernel, parameter, logarithmic=logarithmic), clusters, method, seed)}


TWO_CLASSES = {"labels must hold two classes, one of them with two nodes": lambda labels: 1 < len(np.unique(labels)) < len(labels)}


def sample_labels(rng):
    A = random_graph(rng)
    return {"adjacency": A, "labels": np.append([0, 0, 1], rng.integers(2, size=len(A) - 3))}


@paper.measure(
    r"\mathrm{AUC} = \Pr[D_{\mathrm{within}} < D_{\mathrm{between}}] + \tfrac12 \Pr[=]",
    requires=TWO_CLASSES,
    sample=lambda rng: {name.replace("adjacency", "distances"): v for name, v in sample_labels(rng).items()},
)
def reject_curve(
    distances: matrix("n", "n", of=nonnegative(typical=(0, 3)), doc="distances between nodes", example=[[0, 1, 2, 4], [1, 0, 2, 3], [2, 2, 0, 1], [4, 3, 1, 0]]),
    labels: vector("n", of=integer(typical=(0, 1)), doc="class of each node", example=[0, 0, 1, 1]),
) -> record(
    threshold=vector("k", of=nonnegative(), order="increasing"), recall_within=vector("k", of=probability()), rate_between=vector("k", of=probability()), auc=probability()
):
    """The curve of "same class if the distance is at most a threshold": share of pairs inside classes and between classes, and the area under it."""
    i, j = np.triu_indices(len(labels), 1)
    pairs, inside = distances[i, j], labels[i] == labels[j]
    threshold, place = np.unique(pairs, return_inverse=True)
    within, between = (np.bincount(place[sort], minlength=len(threshold)) / sort.sum() for sort in (inside, ~inside))
    recall, rate = np.minimum(np.cumsum(within), 1), np.minimum(np.cumsum(between), 1)
    return {"threshold": threshold, "recall_within": recall, "rate_between": rate, "auc": float(np.clip((between * (recall - within / 2)).sum(), 0, 1))}


@paper.algorithm(r"\arg\max_{\text{kernel},\, \ln,\, t} \mathrm{ARI}", requires={**GRAPH, **TWO_CLASSES}, sample=sample_labels)
def best_proximity(adjacency: ADJACENCY, labels: LABELS, *, seed: seed() = 0) -> record(
    kernel=listing(text()), logarithmic=listing(flag()), parameter=vector("k", of=positive()), ari=vector("k", of=real(), order="nonincreasing"), auc=vector("k", of=probability())
):
    """Every kernel, plain and logarithmic, at twelve parameters, by how well it finds known classes: adjusted Rand index of its clusters, best first, and area under its curve."""
    from sklearn.metrics import adjusted_rand_score
    from threadpoolctl import threadpool_limits

    graph, rows = prepared(adjacency), []
    with threadpool_limits(1):
        for kernel, logarithmic, i in product(GRIDS, (False, True), range(12)):
            t = GRIDS[kernel][i]
            D = distances(graph, kernel, t, logarithmic)
            found = clustered(D, len(np.unique(labels)), "k-means", seed, restarts=3)
            rows.append((kernel, logarithmic, float(t), float(adjusted_rand_score(labels, found)), reject_curve(D, labels)["auc"]))
    rows.sort(key=lambda row: -row[3])
    kernels, logs, *numbers = zip(*rows, strict=True)
    return {"kernel": list(kernels), "logarithmic": list(logs), **dict(zip(("parameter", "ari", "auc"), map(np.array, numbers), strict=True))}


def blocks(rng):
    """A tree of blocks: small connected graphs, each joined to the ones before by a node that they share."""
    A = random_graph(rng, 3)
    for _ in range(int(rng.integers(1, 4))):
        block, at, n = random_graph(rng, int(rng.integers(2, 5))), int(rng.integers(len(A))), len(A)
        A, nodes = np.pad(A, (0, len(block) - 1)), np.append(at, np.arange(n, n + len(block) - 1))
        A[np.ix_(nodes, nodes)] += block
    return A


def separated(A):
    """Whether node j lies on every path from i to k: [i, j, k], where all three differ."""
    from scipy.sparse.csgraph import connected_components

    n = len(A)
    out = np.zeros((n, n, n), bool)
    for j in range(n):
        rest = np.delete(np.arange(n), j)
        part = connected_components(A[np.ix_(rest, rest)] > 0, directed=False)[1]
        out[rest[:, None], j, rest] = part[:, None] != part
    return out


@paper.trial(
    Guarantee(atol=1e-12),
    of=[proximity_distance],
    controls={"no logarithm": partial(proximity_distance, logarithmic=False), "communicability": lambda adjacency, kernel, t: proximity_distance(adjacency, "comm", t)},
    quick=20,
    full=200,
)
def cut_points_add(draw, claim):
    """Logarithmic walk and forest distances are metrics, and add up over a middle node exactly where it separates the ends."""
    A, t = blocks(draw.rng), draw.uniform(0.3, 0.95)
    i, j, k = (index.ravel() for index in np.indices((len(A),) * 3))
    differ, apart, most, least = (i != j) & (j != k) & (i != k), separated(A).ravel(), [], []
    for kernel in ("walk", "forest"):
        D = claim(A, kernel, t)
        gap = D[i, j] + D[j, k] - D[i, k]
        most.append(np.abs(gap[differ & apart]).max(initial=0.0))
        least.append(-gap[differ & ~apart].min(initial=1.0))
    return [*most, *least], [1e-9, 1e-9, 0.0, 0.0], {"nodes": len(A)}


def ties_count_whole(distances, labels):
    curve = reject_curve(distances, labels)
    return {**curve, "auc": float((np.diff(curve["rate_between"], prepend=0) * curve["recall_within"]).sum())}


@paper.trial(
    Identity(rtol=1e-7, atol=1e-9),
    of=[proximity_distance, reject_curve],
    claim=(proximity_distance, reject_curve),
    controls={
        "plain for logarithmic": (lambda *given, logarithmic: proximity_distance(*given, logarithmic=False), reject_curve),
        "ties counted whole": (proximity_distance, ties_count_whole),
    },
    quick=15,
    full=200,
)
def by_other_routes(draw, claim):
    """Distances agree with matrix exponentials and series of walks, and the area under the curve with a count over all pairs of pairs."""
    from scipy.linalg import expm

    distance, curve = claim
    A, t = random_graph(draw.rng), draw.uniform(0.2, 0.8)
    L, step = np.diag(A.sum(1)) - A, t * A / np.abs(np.linalg.eigvals(A)).max()
    walks, wanted, found = sum(np.linalg.matrix_power(step, k) for k in range(200)), [], []
    for kernel, H in (("walk", walks), ("comm", expm(t * A)), ("heat", expm(-t * L)), ("forest", np.linalg.solve(np.eye(len(A)) + t * L, np.eye(len(A))))):
        for h, logarithmic in ((H, False), (np.log(H), True)):
            wanted.append((np.diag(h)[:, None] + np.diag(h) - 2 * h) / 2)
            found.append(distance(A, kernel, t, logarithmic=logarithmic))
    labels, coarse = np.append([0, 0, 1], draw.rng.integers(2, size=len(A) - 3)), np.round(found[-1], 1)
    pairs = [(coarse[i, j], labels[i] == labels[j]) for i in range(len(A)) for j in range(i)]
    scores = [(d < e) + (d == e) / 2 for d, same in pairs if same for e, other in pairs if not other]
    return np.append(np.ravel(wanted), np.mean(scores)), np.append(np.ravel(found), curve(coarse, labels)["auc"])


def planted(rng, size):
    """Two classes of `size` nodes, edges with probability .3 inside and .1 between."""
    labels = np.repeat([0, 1], size)
    A = np.triu(rng.random((2 * size, 2 * size)) < np.where(labels[:, None] == labels, 0.3, 0.1), 1).astype(float)
    return A + A.T, labels


def rows(found, kernel, logarithmic):
    return np.equal(found["kernel"], kernel) & np.equal(found["logarithmic"], logarithmic)


@paper.trial(
    Prediction(baseline="plain kernels", metric="mae", at_most=0.1),
    of=[proximity_cluster, best_proximity],
    controls={"no logarithm": lambda *given, logarithmic: proximity_cluster(*given, logarithmic=False)},
    quick=5,
    full=20,
)
def logarithms_cluster_better(draw, claim, effort):
    """On planted partitions clusters by the best logarithmic distance of walks, forests and heat are nearer to the classes than by the best plain one (1 - adjusted Rand index)."""
    from sklearn.metrics import adjusted_rand_score

    A, labels = planted(draw.rng, 50 if effort == "full" else 40)
    found, scores, plain = best_proximity(A, labels), [], []
    for kernel in ("walk", "forest", "heat"):
        clusters = claim(A, 2, kernel, found["parameter"][rows(found, kernel, True)][0], logarithmic=True)
        scores.append(adjusted_rand_score(labels, clusters["labels"]))
        plain.append(found["ari"][rows(found, kernel, False)].max())
    return Forecast(observed=np.ones(3), predicted=np.array(scores), baseline=np.array(plain))


@paper.finding(
    """Whether logarithms help depends on the measure of quality: on planted partitions they find the classes at least as well for every kernel (adjusted Rand index), yet for
    walks the chance that a distance inside a class is below one between classes is better without."""
)
def better_by_which_measure():
    tables = [best_proximity(*planted(np.random.default_rng(i), 40)) for i in range(3)]
    told = {
        f"{kernel}_{name}": [float(np.mean([table[name][rows(table, kernel, log)].max() for table in tables])) for log in (False, True)]
        for kernel, name in product(KERNELS, ("ari", "auc"))
    }
    return {"holds": all(told[f"{kernel}_ari"][1] >= told[f"{kernel}_ari"][0] for kernel in KERNELS) and told["walk_auc"][1] < told["walk_auc"][0], **told}
