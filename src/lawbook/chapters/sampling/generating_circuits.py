"""Distributions over subsets as circuits for their generating polynomial: marginals and samples of determinantal processes, mixtures and both combined."""

import json
import math
from dataclasses import dataclass

import numpy as np

from lawbook.contract import DomainError, Paper, count, integer, listing, matrix, probability, real, record, seed, vector
from lawbook.contract.quantity import Quantity
from lawbook.trials import Counts, Distribution, Guarantee, Identity

paper = Paper(
    __name__,
    title="Probabilistic Generating Circuits",
    arxiv="2102.09768",
    tags=["generating function", "probabilistic circuit", "determinantal point process", "subset", "marginal", "negative dependence", "diversity", "tractable model"],
    source="known",
    says="""A distribution over subsets is the polynomial with its probabilities as coefficients, and a circuit of sums, products and determinants computes that polynomial. Any
    marginal is one coefficient of it once included variables are set to t, excluded ones to 0 and the rest to 1. Mixtures of products are such circuits and determinantal
    processes are too, so one class holds models of positive and of negative dependence, and their compositions.""",
    notes="""The coefficient wanted is always the highest that the circuit's structure allows, so that one real pass finds it, node by node, without the cancellation that an
    interpolation at roots of unity has for many variables; the trials compare both. Factors of a product and parts of a determinant must have variables of their own. With more
    than two values a variable, or with shared variables, inference is intractable in general. Up to 12 variables every coefficient is checked, beyond that random ones.""",
)

DEPTH, ENUMERATED, MEMORY = 150, 12, 2_000_000  # nesting, variables whose coefficients are all checked, numbers in a batch of determinants
KERNEL = matrix("n", "n", of=real(), doc="symmetric, no negative eigenvalue", example=[[1.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.5]])
SYMMETRIC = {
    "kernel must be symmetric without negative eigenvalues": lambda kernel: np.allclose(kernel, kernel.T) and np.linalg.eigvalsh(kernel)[0] > -1e-9 * (1 + abs(kernel).max())
}
VARIABLES = count("variables", typical=(1, 6), doc="how many variables; those that the circuit does not name are never in", example=3)
ONES = listing(count("variable", low=0), doc="variables that are in, counted from 0", example=[0])
ZEROS = listing(count("variable", low=0), doc="variables that are out", example=[2])


def scope_of(node, depth=0):
    """The variables that a circuit names; ValueError or TypeError where it is none."""
    if not isinstance(node, list | tuple) or depth > DEPTH:
        raise ValueError
    kind, content = node[0], node[-1]
    if kind not in ("leaf", "const", "sum", "prod", "det") or len(node) != (3 if kind == "det" else 2):
        raise ValueError
    if kind == "leaf":
        if not isinstance(content, int | np.integer) or not 0 <= content < 10_000:
            raise ValueError
        return frozenset([int(content)])
    numbers = np.asarray(content if kind == "const" else [w for w, _ in content] if kind == "sum" else node[1] if kind == "det" else 0.0, float)
    if not np.isfinite(numbers).all() or numbers.ndim != {"sum": 1, "det": 2}.get(kind, 0) or (kind != "const" and not content):
        raise ValueError
    if kind == "const":
        return frozenset()
    scopes = [scope_of(part[1] if kind == "sum" else part, depth + 1) for part in content]
    together = frozenset().union(*scopes)
    if kind != "sum" and len(together) < sum(map(len, scopes)):
        raise ValueError
    if kind == "det" and (numbers.shape != (len(content),) * 2 or np.linalg.slogdet(np.eye(len(content)) + numbers)[0] <= 0):
        raise ValueError
    return together


@dataclass(frozen=True, kw_only=True)
class Circuit(Quantity):
    """Nested lists, or the same as JSON."""

    def _read(self, value, name):
        try:
            value = json.loads(value) if isinstance(value, str) else value
            scope_of(value)
        except (ValueError, TypeError, IndexError, RecursionError):
            raise self.refuse(value, name) from None
        return value

    def allowed(self):
        grammar = '["leaf", i], ["const", c], ["sum", [[w, c], ...]], ["prod", [c, ...]] or ["det", L, [c, ...]]'
        return f"a circuit in nested lists, {grammar}, where parts of prod and det have variables of their own"

    def draw(self, rng, sizes):
        return random_circuit(rng, list(range(sizes.get("variables", 3))))

    def outside(self):
        return [3, [], ["leaf", -1], ["prod", [["leaf", 0], ["leaf", 0]]], ["sum", []]]

    def schema(self):
        return self._described({"type": "array"})


def bernoulli(i, p):
    return ["sum", [[1 - p, ["const", 1.0]], [p, ["leaf", i]]]]


PAIR = ["det", [[1.0, 0.6], [0.6, 1.0]], [["leaf", 0], ["leaf", 1]]]
CIRCUIT = Circuit(doc="of a generating polynomial", example=["prod", [PAIR, bernoulli(2, 0.25)]])


def random_circuit(rng, scope, depth=0):
    """A circuit over all of a scope that is a distribution by construction."""
    if len(scope) == 1:
        return bernoulli(scope[0], float(rng.uniform(0.1, 0.9)))
    kind = rng.choice(["sum", "prod", "det"]) if depth < 3 else "prod"
    if kind == "sum":
        w = float(rng.uniform(0.2, 0.8))
        return ["sum", [[w, random_circuit(rng, scope, depth + 1)], [1 - w, random_circuit(rng, scope, depth + 1)]]]
    shuffled = rng.permutation(scope).tolist()
    cuts = sorted(rng.choice(np.arange(1, len(scope)), size=min(len(scope) - 1, int(rng.integers(1, 3))), replace=False).tolist())
    parts = [random_circuit(rng, shuffled[a:b], depth + 1) for a, b in zip([0, *cuts], [*cuts, len(scope)], strict=True)]
    root = rng.normal(size=(len(parts), len(parts)))
    return ["prod", parts] if kind == "prod" else ["det", (root @ root.T).tolist(), parts]


def evaluate(node, z):
    """Values of the polynomial at z[batch, n], real or complex."""
    kind, content = node[0], node[-1]
    if kind == "leaf":
        return z[:, content]
    if kind == "const":
        return np.full(len(z), content, z.dtype)
    if kind == "sum":
        return sum(w * evaluate(part, z) for w, part in content)
    values = np.stack([evaluate(part, z) for part in content], -1)
    if kind == "prod":
        return values.prod(-1)
    kernel, unit = np.array(node[1]), np.eye(len(content))
    return np.linalg.det(unit + kernel * values[:, None]) / np.linalg.det(unit + kernel)


def top(node, inside, outside):
    """(sign, log, degree) of the highest coefficient in t with the variables inside[batch, n] at t, those outside at 0 and the rest at 1.

    The degree is what the structure allows, whether or not the coefficient there is 0.
    """
    kind, content = node[0], node[-1]
    if kind == "leaf":
        there = ~outside[:, content]
        return there.astype(float), np.where(there, 0.0, -np.inf), inside[:, content].astype(int)
    if kind == "const":
        return np.full(len(inside), np.sign(content)), np.full(len(inside), math.log(abs(content)) if content else -np.inf), np.zeros(len(inside), int)
    signs, logs, degrees = (np.stack(part, -1) for part in zip(*(top(part[1] if kind == "sum" else part, inside, outside) for part in content), strict=True))
    if kind == "sum":  # parts of a lower degree cannot reach the number of variables inside any more
        degree = degrees.max(-1)
        terms = np.where(degrees == degree[:, None], signs, 0.0) * [w for w, _ in content]
        scaled = np.where(terms != 0, logs, -np.inf)
        highest = np.where(terms.any(-1), scaled.max(-1), 0.0)
        total = np.sum(terms * np.exp(scaled - highest[:, None]), -1)
        with np.errstate(divide="ignore"):
            return np.sign(total), np.log(np.abs(total)) + highest, degree
    sign, log = signs.prod(-1), logs.sum(-1)
    if kind == "det":  # only subsets with every part that has a variable inside reach the degree; the values of those parts come out of their columns
        held = degrees > 0
        kernel, unit = np.array(node[1]), np.eye(len(content))
        values = np.where(held, 1.0, signs * np.exp(np.where(held, 0.0, logs)))
        of_minors, volumes = np.linalg.slogdet(unit * ~held[:, None] + kernel * values[:, None])
        sign = of_minors * np.where(held, signs, 1.0).prod(-1)
        log = volumes + np.where(held, logs, 0.0).sum(-1) - np.linalg.slogdet(unit + kernel)[1]
    return sign, np.where(sign == 0, -np.inf, log), degrees.sum(-1)


def masks(rows, variables):
    """[len(rows), variables] with the indices in each row set."""
    mask = np.zeros((len(rows), variables), bool)
    for row, indices in zip(mask, rows, strict=True):
        row[list(indices)] = True
    return mask


def log_coefficients(circuit, inside, outside):
    """Log probabilities; those below 0 by rounding are 0."""
    at_once, logs = max(1, MEMORY // inside.shape[1] ** 2), []
    for first in range(0, len(inside), at_once):
        some = inside[first : first + at_once]
        sign, log, degree = top(circuit, some, outside[first : first + at_once])
        logs.append(np.where((sign > 0) & (degree == some.sum(-1)), np.minimum(log, 0.0), -np.inf))
    return np.concatenate(logs)


def check_sets(ones, zeros, size):
    if len(set(ones) | set(zeros)) < len(ones) + len(zeros) or max([*ones, *zeros, -1]) >= size:
        raise DomainError(f"ones and zeros must be variables from 0 to {size - 1}, each named once; they were {ones} and {zeros}.")


def check_distribution(circuit, variables):
    """DomainError where the circuit is no distribution over the variables."""
    scope = sorted(scope_of(circuit))
    if scope and scope[-1] >= variables:
        raise DomainError(f"circuit must have its leaves among the {variables} variables; it has a leaf {scope[-1]}.")
    total = float(evaluate(circuit, np.ones((1, variables)))[0])
    if abs(total - 1) > 1e-6:
        raise DomainError(f"circuit must have coefficients that sum to 1; their sum is {total:.6g}.")
    if len(scope) <= ENUMERATED:
        inside = np.zeros((2 ** len(scope), variables), bool)
        inside[:, scope] = np.arange(len(inside))[:, None] >> np.arange(len(scope)) & 1
        outside = ~inside
    else:
        drawn = np.random.default_rng(0).choice([0, 1, 2], p=[0.8, 0.1, 0.1], size=(200, variables))
        inside, outside = drawn == 1, drawn == 2
    sign, log, degree = top(circuit, inside, outside)
    least = float(np.min(np.where(degree == inside.sum(-1), sign * np.exp(log), 0.0)))
    if least < -1e-9:
        raise DomainError(f"circuit must have no negative coefficient; one is {least:.3g}.")


def drawn(*names):
    """A sampler of arguments with these names, over variables common to all."""

    def sample(rng):
        n = int(rng.integers(2, 6))
        root, roles = rng.normal(size=(n, n)), rng.integers(3, size=n)
        values = {"kernel": root @ root.T, "ones": np.flatnonzero(roles == 1).tolist(), "zeros": np.flatnonzero(roles == 2).tolist(), "z": rng.normal(size=n)}
        values |= {"circuit": random_circuit(rng, list(range(n))), "variables": n, "data": rng.integers(2, size=(4, n)), "count": 10, "seed": int(rng.integers(1000))}
        values |= {"groups": [list(range(n // 2)), list(range(n // 2, n))], "components": int(rng.integers(1, 3)), "iters": int(rng.integers(1, 20))}
        return {name: values[name] for name in names}

    return sample


@paper.model(r"g(z) = \frac{\det(I + L \operatorname{diag}(z))}{\det(I + L)}", requires=SYMMETRIC, sample=drawn("kernel", "z"))
def dpp_generating_function(kernel: KERNEL, z: vector("n", of=real(typical=(-1, 1)), doc="where", example=[0.5, 1.0, 0.2])) -> real():
    """Generating polynomial of a determinantal point process at a point."""
    return float(evaluate(["det", kernel, [["leaf", i] for i in range(len(z))]], np.asarray(z)[None])[0])


@paper.measure(
    r"P(A \subseteq X,\ B \cap X = \emptyset) = [t^{|A|}]\, g(z),\quad z_A = t,\ z_B = 0,\ \text{else } 1",
    requires=SYMMETRIC,
    sample=drawn("kernel", "ones", "zeros"),
)
def dpp_marginal(kernel: KERNEL, ones: ONES, zeros: ZEROS) -> probability():
    """Probability that a determinantal point process has some items and lacks others."""
    check_sets(ones, zeros, len(kernel))
    circuit = ["det", kernel.tolist(), [["leaf", i] for i in range(len(kernel))]]
    return float(np.exp(log_coefficients(circuit, masks([ones], len(kernel)), masks([zeros], len(kernel))))[0])


@paper.model(r"g(z) = \sum_S P(S) \prod_{i \in S} z_i", sample=drawn("circuit", "z"))
def circuit_evaluate(circuit: CIRCUIT, z: vector("n", of=real(typical=(-1, 1)), doc="where", example=[0.5, 1.0, 0.2])) -> real():
    """Value of a circuit's polynomial at a point."""
    if (last := max(scope_of(circuit), default=-1)) >= len(z):
        raise DomainError(f"z must have an entry for each leaf, {last + 1} at least; it has {len(z)}.")
    return float(evaluate(circuit, np.asarray(z, float)[None])[0])


def marginal(circuit, ones, zeros, variables):
    """Without the check of the circuit."""
    return float(np.exp(log_coefficients(circuit, masks([ones], variables), masks([zeros], variables)))[0])


@paper.measure(r"P(X_A = 1, X_B = 0) = [t^{|A|}]\, g(z),\quad z_A = t,\ z_B = 0,\ \text{else } 1", sample=drawn("circuit", "ones", "zeros", "variables"))
def circuit_marginal(circuit: CIRCUIT, ones: ONES, zeros: ZEROS, variables: VARIABLES) -> probability():
    """Probability that some variables are in and others are out."""
    check_sets(ones, zeros, variables)
    check_distribution(circuit, variables)
    return marginal(circuit, ones, zeros, variables)


@paper.measure(r"\ln P(X = x)", sample=drawn("circuit", "data"))
def circuit_log_likelihood(circuit: CIRCUIT, data: matrix("m", "n", of=integer(low=0, high=1), doc="a subset in each row, as 0 and 1", example=[[1, 0, 0], [0, 1, 1]])) -> vector(
    "m", of=real("nats", high=0, infinite=True, doc="-inf for what cannot happen")
):
    """Log probability of each row."""
    check_distribution(circuit, data.shape[1])
    return log_coefficients(circuit, data == 1, data == 0)


@paper.model(r"x_i \sim P(X_i = 1 | x_1, \ldots, x_{i-1})", sample=drawn("circuit", "variables", "count", "seed"))
def circuit_sample(circuit: CIRCUIT, variables: VARIABLES, count: count("samples", typical=(1, 1000), example=5), seed: seed(example=0)) -> matrix(
    "count", "variables", of=integer(low=0, high=1)
):
    """Samples, one variable after the other from its exact conditional law."""
    check_distribution(circuit, variables)
    rng, inside, outside = np.random.default_rng(seed), np.zeros((count, variables), bool), np.zeros((count, variables), bool)
    so_far = np.zeros(count)
    for i in range(variables):
        inside[:, i] = True
        joint = log_coefficients(circuit, inside, outside)
        inside[:, i] = rng.uniform(size=count) < np.exp(joint - so_far)
        outside[:, i] = ~inside[:, i]
        with np.errstate(divide="ignore"):
            so_far = np.where(inside[:, i], joint, so_far + np.log1p(-np.minimum(np.exp(joint - so_far), 1.0)))
    return inside.astype(int)


@paper.measure(r"\max_{i < j} P(i, j) - P(i) P(j)", sample=drawn("circuit", "variables"))
def negative_dependence(circuit: CIRCUIT, variables: count("variables", low=2, typical=(2, 6), doc="how many variables", example=3)) -> record(
    max_excess=real(doc="not above 0 for determinantal processes"), covariance=matrix("n", "n", doc="0 on the diagonal")
):
    """Covariances of all pairs, and the largest of them."""
    check_distribution(circuit, variables)
    rows, columns = np.triu_indices(variables, 1)
    sets = [[i] for i in range(variables)] + list(zip(rows, columns, strict=True))
    chances = np.exp(log_coefficients(circuit, masks(sets, variables), np.zeros((len(sets), variables), bool)))
    single, covariance = chances[:variables], np.zeros((variables, variables))
    covariance[rows, columns] = chances[variables:] - single[rows] * single[columns]
    return {"max_excess": float(covariance[rows, columns].max()), "covariance": covariance + covariance.T}


def mixture_logs(rows, shares, chances):
    """(log mixture densities [u], responsibilities [u, c]) of products of Bernoullis at rows[u, n]."""
    logs = np.log(shares) + rows @ np.log(chances).T + (1 - rows) @ np.log1p(-chances).T
    total = np.logaddexp.reduce(logs, -1)
    return total, np.exp(logs - total[:, None])


def softmax(x):
    return np.exp(x - np.logaddexp.reduce(x))


@paper.algorithm(
    r"\max_{L, \theta} \sum_x \ln [z^x] \frac{\det(I + L \operatorname{diag}(g_{\theta_1}(z), \ldots, g_{\theta_k}(z)))}{\det(I + L)}",
    sample=drawn("data", "groups", "components", "iters", "seed"),
)
def fit_det_pgc(
    data: matrix("m", "n", of=integer(low=0, high=1), doc="a subset in each row, as 0 and 1", example=[[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]]),
    groups: listing(listing(count("variable", low=0), least=1), least=1, doc="variables of each part of the determinant; each variable in one group", example=[[0], [1, 2]]),
    *,
    components: count("components", typical=(1, 4), doc="products in the mixture of each group") = 2,
    iters: count("iterations", typical=(5, 500), doc="of the optimiser at most") = 300,
    seed: seed(example=0),
) -> record(circuit=Circuit(), log_likelihood=real("nats", doc="of all rows together")):
    """Maximum-likelihood determinant over groups, each a mixture of products, by gradients."""
    from scipy.optimize import minimize
    from scipy.special import expit

    k, n = len(groups), data.shape[1]
    if sorted(i for group in groups for i in group) != list(range(n)):
        raise DomainError(f"groups must name each variable from 0 to {n - 1} once; they were {groups}.")
    patterns, times = np.unique(data, axis=0, return_counts=True)
    rows = [patterns[:, group].astype(float) for group in groups]
    held = np.stack([part.any(1) for part in rows], -1)  # which parts have a variable in: [u, k]
    sizes = [k * k] + [components * (1 + len(group)) for group in groups]
    unit = np.eye(k)

    def unpack(theta):
        root, *parts = np.split(theta, np.cumsum(sizes)[:-1])
        return root.reshape(k, k), [(softmax(part[:components]), np.clip(expit(part[components:].reshape(components, -1)), 1e-9, 1 - 1e-9)) for part in parts]

    def loss(theta):
        root, mixtures = unpack(theta)
        kernel = root @ root.T + 1e-9 * unit
        logs, shares = (np.stack(part, -1) for part in zip(*(mixture_logs(x, *mix) for x, mix in zip(rows, mixtures, strict=True)), strict=True))
        values = np.where(held, 1.0, np.exp(logs))  # columns of the minors: parts that are held bring their own factor
        minors = unit * ~held[:, None] + kernel * values[:, None]
        inverse = np.linalg.inv(minors)
        total = times @ (np.linalg.slogdet(minors)[1] + np.where(held, logs, 0.0).sum(-1)) - times.sum() * np.linalg.slogdet(unit + kernel)[1]
        by_kernel = np.einsum("u,uj,uji->ij", times, values, inverse) - times.sum() * np.linalg.inv(unit + kernel)
        weight = times[:, None] * np.where(held, 1.0, values * np.einsum("uji,ij->uj", inverse, kernel))
        gradient = [((by_kernel + by_kernel.T) @ root).ravel()]
        for j, (x, (share, chance)) in enumerate(zip(rows, mixtures, strict=True)):
            pull = weight[:, j, None] * shares[:, :, j]
            gradient += [pull.sum(0) - weight[:, j].sum() * share, (pull.T @ x - pull.sum(0)[:, None] * chance).ravel()]
        return -total, -np.concatenate(gradient)

    start = np.random.default_rng(seed).normal(size=sum(sizes)) * 0.5
    start[: k * k] += unit.ravel()
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": iters}, bounds=[(-15, 15)] * len(start))
    root, mixtures = unpack(found.x)
    parts = [
        ["sum", [[float(w), ["prod", [bernoulli(i, float(p)) for i, p in zip(group, row, strict=True)]]] for w, row in zip(share, chance, strict=True)]]
        for group, (share, chance) in zip(groups, mixtures, strict=True)
    ]
    return {"circuit": ["det", (root @ root.T + 1e-9 * unit).tolist(), parts], "log_likelihood": -float(found.fun)}


def of_a_mixture(circuit, variables):
    """With probability 1/2 nothing at all is in."""
    return negative_dependence(["sum", [[0.5, circuit], [0.5, ["const", 1.0]]]], variables)


@paper.trial(Guarantee(atol=1e-12), of=[negative_dependence], controls={"a mixture with the empty set": of_a_mixture}, quick=30, full=500)
def pairs_repel(draw, dependence):
    """No pair of a determinantal process is positively correlated, and its covariances are minus the squares of the marginal kernel L (I + L)^-1."""
    n, scale = draw.integer(2, 6), draw.log_uniform(0.1, 3)
    root = scale * draw.rng.normal(size=(n, n))
    kernel = root @ root.T
    found = dependence(["det", kernel.tolist(), [["leaf", i] for i in range(n)]], n)
    off = -((kernel @ np.linalg.inv(np.eye(n) + kernel)) ** 2) * (1 - np.eye(n)) - found["covariance"]
    return np.array([found["max_excess"], np.abs(off).max()]), np.zeros(2)


def expand(node):
    """Coefficients {subset: coefficient}, by multiplying out; determinants by their principal minors."""
    kind, content = node[0], node[-1]
    if kind in ("leaf", "const"):
        return {frozenset([content]): 1.0} if kind == "leaf" else {frozenset(): content}
    if kind == "sum":
        terms = [{s: w * c for s, c in expand(part).items()} for w, part in content]
    else:
        kernel, parts, terms = np.array(node[1] if kind == "det" else 0.0), [expand(part) for part in content], []
        for chosen in [range(len(parts))] if kind == "prod" else [[j for j in range(len(parts)) if bits >> j & 1] for bits in range(2 ** len(parts))]:
            product = {frozenset(): 1.0 if kind == "prod" else np.linalg.det(kernel[np.ix_(chosen, chosen)]) / np.linalg.det(np.eye(len(parts)) + kernel)}
            for j in chosen:
                product = {s | other: c * d for s, c in product.items() for other, d in parts[j].items()}
            terms.append(product)
    return {s: sum(term.get(s, 0.0) for term in terms) for s in frozenset().union(*terms)}


def zeros_left_at_one(circuit, ones, zeros, variables):
    return circuit_marginal(circuit, ones, [], variables)


@paper.trial(
    Identity(rtol=1e-9, atol=1e-12),
    of=[circuit_marginal, circuit_evaluate, circuit_log_likelihood, dpp_marginal, dpp_generating_function],
    controls={"1 for 0 on the excluded variables": zeros_left_at_one},
    quick=25,
    full=300,
)
def enumeration(draw, marginal):
    """Marginals, likelihoods (of sum 1) and values of random circuits are those of the expanded polynomial, marginals also of an interpolation at roots of unity; likewise for a
    determinantal process."""
    n = draw.integer(2, 7)
    circuit, root = random_circuit(draw.rng, list(range(n))), draw.rng.normal(size=(n, n))
    kernel = root @ root.T
    z, roles = draw.normal(size=n), draw.rng.integers(3, size=n)
    ones, zeros = np.flatnonzero(roles == 1).tolist(), np.flatnonzero(roles == 2).tolist()
    computed, claimed = [], []
    data = np.arange(2**n)[:, None] >> np.arange(n) & 1
    for node in (circuit, ["det", kernel.tolist(), [["leaf", i] for i in range(n)]]):
        table = expand(node)
        turns = np.exp(2j * np.pi * np.arange(len(ones) + 1) / (len(ones) + 1))
        at = np.where(roles == 1, turns[:, None], np.where(roles == 2, 0.0, 1.0))
        computed += [sum(c for s, c in table.items() if s >= set(ones) and not s & set(zeros)), np.mean(evaluate(node, at) * turns ** -len(ones)).real]
        computed += [sum(c * np.prod(z[list(s)]) for s, c in table.items())]
        claimed += [marginal(node, ones, zeros, n)] * 2 + [circuit_evaluate(node, z)]
    computed += [*(expand(circuit).get(frozenset(np.flatnonzero(row).tolist()), 0.0) for row in data), 1.0, *computed[3:6:2]]
    likelihoods = np.exp(circuit_log_likelihood(circuit, data))
    return computed, [*claimed, *likelihoods, likelihoods.sum(), dpp_marginal(kernel, ones, zeros), dpp_generating_function(kernel, z)]


def independent(circuit, variables, count, seed):
    """Each variable by its own marginal."""
    chances = [circuit_marginal(circuit, [i], [], variables) for i in range(variables)]
    return (np.random.default_rng(seed).uniform(size=(count, variables)) < chances).astype(int)


@paper.trial(Distribution(), of=[circuit_sample], controls={"variables drawn independently": independent}, quick=3000, full=100_000)
def sampled_subsets(draw, sampler):
    """Samples of three random circuits over four variables come up as often as their coefficients say."""
    tested = {}
    for index in range(3):
        circuit = random_circuit(draw.rng, list(range(4)))
        codes = sampler(circuit, 4, draw.size, int(draw.rng.integers(2**62))) @ [1, 2, 4, 8]
        table = expand(circuit)
        chances = np.array([table.get(frozenset(i for i in range(4) if code >> i & 1), 0.0) for code in range(16)])
        tested[f"circuit {index}"] = Counts(np.bincount(codes, minlength=16), chances)
    return tested


@paper.trial(Guarantee(), of=[circuit_marginal], controls={"no check": marginal}, quick=30, full=300)
def negative_coefficients_refused(draw, probability_of):
    """A circuit with a negative coefficient, made from a distribution by moving more than all of one coefficient to another, is refused."""
    n = draw.integer(2, 6)
    circuit, subset = random_circuit(draw.rng, list(range(n))), draw.rng.choice(n, size=draw.integer(1, n), replace=False).tolist()
    excess = expand(circuit)[frozenset(subset)] + draw.uniform(0.01, 0.3)
    wrong = ["sum", [[1.0, circuit], [-excess, ["prod", [["leaf", i] for i in subset]]], [excess, ["const", 1.0]]]]
    try:
        probability_of(wrong, [], [], n)
    except DomainError:
        return True
    return False


def not_fitted(data, groups, *, seed):
    return fit_det_pgc(data, groups, iters=1, seed=seed)


@paper.trial(Guarantee(), of=[fit_det_pgc, circuit_log_likelihood], controls={"one iteration": not_fitted}, quick=2, full=12)
def fit_reaches_the_truth(draw, fit):
    """A fit to samples of a determinant over groups is as likely as the circuit that they came from, and its likelihood is that of the circuit it returns."""
    groups, root = [[0, 3], [1], [2, 4]], draw.rng.normal(size=(3, 3))
    truth = ["det", (root @ root.T).tolist(), [random_circuit(draw.rng, group, depth=3) for group in groups]]
    data = circuit_sample(truth, 5, 400, draw.integer(0, 2**60))
    found = max((fit(data, groups, seed=s) for s in range(3)), key=lambda f: f["log_likelihood"])
    again = circuit_log_likelihood(found["circuit"], data).sum()
    return np.array([circuit_log_likelihood(truth, data).sum(), abs(again - found["log_likelihood"])]), np.array([found["log_likelihood"] + 0.5, 1e-6 * abs(again)])
