"""Comparisons as a network of resistances: how uncertain each reward difference still is, what wiring does to it, and which pair to label next."""

import numpy as np

from lawbook.contract import DomainError, Paper, array, choice, count, nonnegative, positive, record, seed, vector
from lawbook.trials import Estimate, Identity, Rate

paper = Paper(
    __name__,
    title="Reward Generalization in RLHF: A Topological Perspective",
    arxiv="2402.10184",
    tags=["rlhf", "reward model", "preference", "comparison graph", "effective resistance", "experimental design", "active learning"],
    source="derived",
    says="""How preference data are wired decides what they say about pairs that nobody compared. With each comparison a noisy measurement of a reward difference, the variance of
    the best estimate of any difference is the effective resistance between the two in the network of comparisons: wiring moves uncertainty between the pairs that were not
    compared, as its sum over the compared ones is fixed by counts. The paper argues for data collected on trees of shared prefixes.""",
    notes="""The paper works with a Bayesian network with its own conditionals and bounds over paths; the Gaussian version here is exact, standard theory of electrical networks.
    The paper's theorem on trees (uncertainty lower by up to log n / log log n than the usual topology) is quoted and not proved here; in it links stand for similarity of
    texts as well, while here every link is a comparison. Where the network is disconnected, best_next_comparison joins components first.""",
)

EDGES = array(
    "m", 2, of=count("", low=0, typical=(0, 7), scale="linear"), most=12, doc="numbers of the two responses of each comparison, from 0", example=[[0, 1], [1, 2], [2, 0], [2, 3]]
)
VARIANCES = vector("m", of=positive(typical=(0.1, 10)), most=12, doc="noise variance of each comparison as a measurement of the reward difference", example=[1.0, 1.0, 1.0, 2.0])
PAIRS = array("q", 2, of=count("", low=0, typical=(0, 7), scale="linear"), doc="pairs of responses", example=[[0, 3], [0, 2]])
NODES = count("responses", low=2, high=5000, typical=(8, 60), doc="number of responses", example=4)
DENSE = 2000
INSIDE = {"edges must number responses below nodes": lambda edges, nodes: edges.max() < nodes}


def laplacian(edges, variances, nodes):
    """Sparse Laplacian of the conductances 1/variance; comparisons of a response with itself drop out."""
    from scipy.sparse import coo_array, diags_array

    i, j = np.asarray(edges).T
    conductance = np.where(i == j, 0.0, 1 / np.asarray(variances, float))
    weights = coo_array((np.tile(conductance, 2), (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(nodes, nodes)).tocsr()
    return (diags_array(weights.sum(1)) - weights).tocsr()


def parts(network):
    from scipy.sparse.csgraph import connected_components

    return connected_components(network, directed=False)


def pseudoinverse(network):
    """L^+ of a network, connected or not: with the projection on the constants of each component, L can be inverted."""
    part = parts(network)[1]
    constants = (part[:, None] == part) / np.bincount(part)[part]
    scale = max(network.trace() / len(part), 1e-300)
    return np.linalg.inv(network.toarray() + scale * constants) - constants / scale


def energies(network, a, b, part):
    """Resistances in a large network: conjugate gradients, which are fast on expanders, or a sparse factorisation, fast on what resembles a tree, once they fail."""
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import cg, splu

    found, solver, degree = np.zeros(len(a)), None, network.diagonal()
    jacobi = diags_array(1 / np.where(degree > 0, degree, 1))
    kept = np.setdiff1d(np.arange(len(part)), np.unique(part, return_index=True)[1])  # one response of each component is grounded
    for row in np.flatnonzero((part[a] == part[b]) & (a != b)):
        current = np.zeros(len(part))
        current[[a[row], b[row]]] = 1, -1
        if solver is None:
            voltage, failed = cg(network, current, rtol=1e-10, maxiter=200, M=jacobi)
            solver = splu(network[kept][:, kept].tocsc()) if failed else None
        if solver is not None:
            voltage = np.zeros(len(part))
            voltage[kept] = solver.solve(current[kept])
        found[row] = current @ voltage
    return found


@paper.measure(
    r"R_{ij} = (e_i - e_j)^\top L^+ (e_i - e_j),\quad L = \sum_{(i,j)} \frac{1}{s_{ij}} (e_i - e_j)(e_i - e_j)^\top",
    assumes=["Comparisons measure reward differences with independent noise of the given variances."],
)
def inference_variance(edges: EDGES, variances: VARIANCES, pairs: PAIRS) -> vector("q", of=nonnegative(infinite=True, doc="infinite where no chain of comparisons joins the two")):
    """Variance of the best linear unbiased estimate of the reward difference of each pair: its effective resistance."""
    known, numbers = np.unique(np.concatenate([np.asarray(edges).ravel(), np.asarray(pairs).ravel()]), return_inverse=True)
    links, (a, b) = numbers[: np.size(edges)].reshape(-1, 2), numbers[np.size(edges) :].reshape(-1, 2).T
    network = laplacian(links, variances, len(known))
    _, part = parts(network)
    if len(known) <= DENSE:
        inverse = pseudoinverse(network)
        found = inverse[a, a] + inverse[b, b] - 2 * inverse[a, b]
    else:
        found = energies(network, a, b, part)
    return np.where(part[a] == part[b], np.maximum(found, 0), np.inf)


@paper.measure(r"\binom n2^{-1} \sum_{i<j} R_{ij} = \frac{2}{n-1} \mathrm{tr}\, L^+", requires=INSIDE)
def mean_uncertainty(edges: EDGES, variances: VARIANCES, nodes: NODES) -> nonnegative(infinite=True, doc="infinite where the comparisons do not connect all responses"):
    """Mean of the variance of the reward difference over all pairs of responses."""
    network = laplacian(edges, variances, nodes)
    if parts(network)[0] > 1:
        return np.inf
    return float(2 / (nodes - 1) * pseudoinverse(network).trace())


def regular(nodes, degree, rng):
    """A random regular graph: free ends are paired at random, and pairs that cannot be are torn up and paired again (Steger and Wormald)."""
    for _ in range(1000):
        ends, made = np.repeat(np.arange(nodes), degree), np.empty(0, int)
        for _ in range(200):
            low, high = np.sort(rng.permutation(ends).reshape(-1, 2), axis=1).T
            code, first = np.unique(low * nodes + high, return_index=True)
            fresh = first[(code // nodes != code % nodes) & ~np.isin(code, made)]
            made = np.concatenate([made, low[fresh] * nodes + high[fresh]])
            ends = np.delete(np.stack([low, high], 1), fresh, axis=0).ravel()
            if not len(ends):
                return np.stack([made // nodes, made % nodes], 1)
    raise DomainError(f"branching must be small enough for nodes: no graph of degree {degree} on {nodes} responses was found in 1000 tries.")


@paper.model(
    r"\text{parent of } i:\ i-1\ \text{(chain)},\ 0\ \text{(star)},\ \lfloor (i-1)/B \rfloor\ \text{(tree)},\ \text{uniform on } 0..i-1\ \text{(random tree)}",
    requires={
        "kind random_regular needs branching below nodes and an even product of the two": lambda kind, nodes, branching: (
            kind != "random_regular" or (branching < nodes and nodes * branching % 2 == 0)
        )
    },
)
def topology(
    kind: choice("chain", "star", "tree", "random_tree", "random_regular", example="tree"),
    nodes: count("responses", low=2, high=10_000_000, typical=(8, 60), doc="number of responses", example=7),
    *,
    branching: count("", typical=(1, 4), doc="children of a response in a tree, degree in a regular graph") = 2,
    seed: seed() = 0,
) -> array("m", 2, of=count("", low=0), doc="[parent, child] of each link, by child"):
    """Links of a network of responses: chain, star, tree, random recursive tree, or random regular graph."""
    rng, child = np.random.default_rng(seed), np.arange(1, nodes)
    if kind == "random_regular":
        links = regular(nodes, branching, rng)
        return links[np.lexsort(links.T)]
    parent = {"chain": lambda: child - 1, "star": lambda: 0 * child, "tree": lambda: (child - 1) // branching, "random_tree": lambda: rng.integers(0, child)}[kind]()
    return np.stack([parent, child], 1)


@paper.algorithm(
    r"\arg\max_{(a,b)} \frac{|L^+ (e_a - e_b)|^2}{s + R_{ab}}\ \text{(the fall of } \mathrm{tr}\, L^+ \text{)}",
    requires={**INSIDE, "candidates must number responses below nodes": lambda candidates, nodes: candidates.max() < nodes},
)
def best_next_comparison(
    edges: EDGES,
    variances: VARIANCES,
    nodes: NODES,
    candidates: array("q", 2, of=count("", low=0, typical=(0, 7), scale="linear"), doc="pairs that could be compared next", example=[[0, 1], [0, 3], [1, 3]]),
    variance: positive(typical=(0.1, 10), doc="noise variance of the next comparison", example=1.0),
) -> record(
    index=count("", low=0, doc="number of the best candidate, from 0"),
    reduction=nonnegative(infinite=True, doc="fall of the trace of L^+, times 2/(nodes - 1) that of the mean uncertainty; infinite where it joins two components"),
):
    """The comparison that lowers the mean uncertainty over all pairs most."""
    network = laplacian(edges, variances, nodes)
    (a, b), part, inverse = np.asarray(candidates).T, parts(network)[1], pseudoinverse(network)
    square = inverse @ inverse
    distance, resistance = (m[a, a] + m[b, b] - 2 * m[a, b] for m in (square, inverse))
    fall = np.where(part[a] == part[b], np.maximum(distance, 0) / (variance + np.maximum(resistance, 0)), np.inf)
    return {"index": int(np.argmax(fall)), "reduction": float(fall.max())}


def network(draw, nodes):
    """A connected network with cycles and repeated comparisons."""
    tree = topology("random_tree", nodes, seed=draw.integer(0, 10**6))
    more = np.array([draw.rng.choice(nodes, 2, replace=False) for _ in range(nodes)])
    edges = np.concatenate([tree, more, tree[:2]])
    return edges, draw.log_uniform(0.2, 5, size=len(edges))


def along_the_shortest_path(edges, variances, pairs):
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import dijkstra

    size = np.max(edges) + 1
    shortest = np.full((size, size), np.inf)
    np.minimum.at(shortest, tuple(edges.T), variances)
    i, j = np.nonzero(np.isfinite(shortest))
    return dijkstra(coo_array((shortest[i, j], (i, j)), shape=(size, size)).tocsr(), directed=False)[tuple(np.transpose(pairs))]


@paper.trial(Identity(), of=[inference_variance], controls={"variance along the shortest path": along_the_shortest_path}, quick=2, full=20)
def least_squares(draw, claim, effort):
    """Rewards are fitted to simulated comparisons by weighted least squares: the mean squared errors of all differences are the resistances."""
    nodes, runs = draw.integer(4, 8), 20_000 if effort == "quick" else 200_000
    edges, variances = network(draw, nodes)
    rewards, incidence = draw.normal(size=nodes), np.eye(nodes)[edges[:, 0]] - np.eye(nodes)[edges[:, 1]]
    measured = (incidence @ rewards)[:, None] + np.sqrt(variances)[:, None] * draw.rng.normal(size=(len(edges), runs))
    fitted = np.linalg.lstsq(incidence / np.sqrt(variances)[:, None], measured / np.sqrt(variances)[:, None], rcond=1e-10)[0]
    pairs = np.transpose(np.triu_indices(nodes, 1))
    errors = fitted - rewards[:, None]
    return Estimate.of((errors[pairs[:, 0]] - errors[pairs[:, 1]]).T ** 2), claim(edges, variances, pairs), {"nodes": nodes}


def mean_over_compared(edges, variances, nodes):
    return inference_variance(edges, variances, edges).mean()


def most_uncertain(edges, variances, nodes, candidates, variance):
    index = int(np.argmax(inference_variance(edges, variances, candidates)))
    return best_next_comparison(edges, variances, nodes, candidates[index : index + 1], variance) | {"index": index}


CLAIM = (inference_variance, mean_uncertainty, best_next_comparison)


@paper.trial(
    Identity(rtol=1e-9),
    of=[inference_variance, mean_uncertainty, best_next_comparison],
    claim=CLAIM,
    controls={
        "mean over the compared pairs": (CLAIM[0], mean_over_compared, CLAIM[2]),
        "most uncertain pair next": (*CLAIM[:2], most_uncertain),
        "variance along the shortest path": (along_the_shortest_path, *CLAIM[1:]),
    },
    quick=20,
    full=500,
)
def sums_and_updates(draw, claim):
    """Foster's sum over comparisons is the number of responses less one; the mean over all pairs and the best next comparison are those of recomputing; long chains add up."""
    resistance, mean, best = claim
    nodes, s = draw.integer(5, 25), draw.log_uniform(0.2, 5)
    edges, variances = network(draw, nodes)
    pairs = np.transpose(np.triu_indices(nodes, 1))
    candidates = pairs[draw.rng.choice(len(pairs), 10, replace=False)]
    before, *after = (
        (nodes - 1) / 2 * inference_variance(e, v, pairs).mean() for e, v in [(edges, variances)] + [(np.vstack([edges, [c]]), np.append(variances, s)) for c in candidates]
    )
    found, falls = best(edges, variances, nodes, candidates, s), before - np.array(after)
    chain, steps = topology("chain", DENSE + 500), draw.rng.uniform(0.5, 2, DENSE + 499)
    ends = draw.rng.integers(0, DENSE + 500, (20, 2))
    along = np.concatenate([[0], np.cumsum(steps)])[ends]
    return (
        [nodes - 1, before * 2 / (nodes - 1), int(np.argmax(falls)), falls.max(), *np.abs(along[:, 0] - along[:, 1])],
        [(resistance(edges, variances, edges) / variances).sum(), mean(edges, variances, nodes), found["index"], found["reduction"], *inference_variance(chain, steps, ends)],
        {"nodes": nodes},
    )


def mean_of(kind, wired, nodes):
    edges = wired(kind, nodes)
    return mean_uncertainty(edges, np.ones(len(edges)), nodes)


def always_a_tree(kind, nodes):
    return topology("tree", nodes)


def always_a_star(kind, nodes):
    return topology("star", nodes)


@paper.trial(Rate(within=0.05), of=[topology, mean_uncertainty], controls={"tree for the chain": always_a_tree}, quick=1, full=1)
def chains_grow_linearly(draw, claim):
    """The mean uncertainty of a chain of n responses grows like n."""
    sizes = [16, 32, 64, 128, 256, 512]
    return sizes, [mean_of("chain", claim, n) for n in sizes], 1.0


@paper.trial(Rate(within=0.1, relative=True, axes="linear"), of=[topology, mean_uncertainty], controls={"star for the tree": always_a_star}, quick=1, full=1)
def trees_grow_like_the_logarithm(draw, claim):
    """The mean uncertainty of a balanced binary tree grows like 2 log2 n."""
    sizes = np.geomspace(128, 1024, 12).astype(int)
    return np.log2(sizes), [mean_of("tree", claim, int(n)) for n in sizes], 2.0


@paper.finding(
    """In the Gaussian network a tree is not the best wiring of a given number of comparisons: between 511 responses a balanced binary tree leaves a mean variance of 12, a random
    recursive tree about 10, a star 2, and a random cubic graph, with half as many comparisons again, 1.3; the chain leaves 171. What shared prefixes win comes from similarity
    of texts, which no network of comparisons sees."""
)
def trees_are_not_the_best_wiring():
    means = {kind: mean_of(kind, topology, 511) for kind in ("chain", "tree", "random_tree", "star")}
    cubic = topology("random_regular", 512, branching=3)
    means["random_cubic"] = mean_uncertainty(cubic, np.ones(len(cubic)), 512)
    return {"holds": means["random_cubic"] < means["star"] < means["random_tree"] < means["tree"] < means["chain"], **means}
