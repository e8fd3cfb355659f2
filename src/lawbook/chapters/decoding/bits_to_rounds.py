"""Parallel decoding with diffusion language models: how many rounds the information in a sample forces, and what exploring saves."""

import math
from functools import partial

import numpy as np

from lawbook.contract import DomainError, Paper, array, caution, count, either, flag, integer, listing, nonnegative, positive, probability, real, record, vector
from lawbook.numerics import arrays
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="From Bits to Rounds: Parallel Decoding with Exploration for Diffusion Language Models",
    arxiv="2511.21103",
    tags=["diffusion language model", "parallel decoding", "masked diffusion", "information", "exploration", "inference"],
    source="paper",
    says="""A masked diffusion model that commits only tokens it is sure of gains almost no information in a round, so the rounds it needs are at least the information in the
    sample over what one round can carry. Committing one uncertain token on purpose can make many others certain, which the bound does not forbid and which saves rounds.""",
    notes="""Both terms of the theorem are derived anew by a union bound over the tokens of a round; the second gets a sharper form, which is attained. The first term needs
    conditionals of one consistent joint law, the marginal terms only the probabilities with which tokens were committed. The source's exact schedule of exploring was not
    available: here a round that would commit fewer than two tokens commits the position of highest entropy instead. Positions pass the rule as a prefix of the
    sorted confidences: none passes after one that fails.""",
)

THRESHOLD = probability(above=True, typical=(0.02, 1), doc="f: every token of a round has (1 + tokens of the round) (1 - its probability) at most f", example=0.25)
MOST_AXES = 10
JOINT = either(
    *(array(*(f"V{i}" for i in range(1, axes + 1)), of=probability()) for axes in range(1, MOST_AXES + 1)),
    doc="joint probabilities of the tokens, one axis a position, at most 10",
    example=[[0.45, 0.05], [0.05, 0.45]],
)
NATS = nonnegative("nats")


@paper.bound(
    r"-\log p(x_A \mid x_C) \le \log\frac{m+1}{(1-f)m+1},\quad \sum_{i \in A} -\log p(x_i \mid x_C) \le m \log\frac{m+1}{m+1-f}",
    assumes=["A round of m tokens obeys the threshold rule."],
    closed_form=True,
)
def round_budget(tokens: count("tokens", typical=(1, 4096), doc="m: tokens committed in the round", example=4), threshold: THRESHOLD) -> record(
    joint=positive("nats", doc="information of the tokens together"), marginal=positive("nats", doc="sum of the information of each token")
):
    """Most information that one round of the threshold rule can carry, of its tokens together and added up one by one."""
    xp, m, f = arrays(tokens, threshold)
    return {"joint": -xp.log1p(-f * m / (m + 1)), "marginal": -m * xp.log1p(-f / (m + 1))}


@paper.bound(
    r"R \ge \max\left\{\frac{-\log p(x)}{\log\frac{n+1}{(1-f)n+1}},\ \frac{-\log p(x) - \varepsilon}{f},\ \frac{-\log p(x) - \varepsilon}{n \log\frac{n+1}{n+1-f}}\right\}",
    assumes=["Every round obeys the threshold rule.", "For the joint term: the probabilities of all rounds are conditionals of one joint law, as a neural denoiser's need not be."],
    requires={"error must be at most nll: their difference is the information of the tokens as committed": lambda error, nll: error <= nll},
    sample=lambda rng: {"nll": (nll := rng.uniform(0, 50)), "length": int(rng.integers(1, 300)), "threshold": rng.uniform(0.02, 1), "error": nll * rng.uniform(-1, 1)},
)
def rounds_lower_bound(
    nll: nonnegative("nats", typical=(0, 50), doc="-log p(x): information of the sample", example=2.302585),
    length: count("tokens", typical=(1, 300), example=10),
    threshold: THRESHOLD,
    *,
    error: real("nats", typical=(-1, 1), doc="nll less the summed -log probabilities with which the tokens were committed") = 0.0,
) -> record(joint=nonnegative(), marginal=nonnegative(), marginal_tight=nonnegative(doc="our sharper form of the marginal term"), rounds=count("rounds", low=0)):
    """Least number of rounds in which the threshold rule can commit a sample with this much information."""
    budget = round_budget(length, threshold)
    bounds = {"joint": float(nll / budget["joint"]), "marginal": (nll - error) / threshold, "marginal_tight": float((nll - error) / budget["marginal"])}
    rounds = math.ceil(max(bounds.values()) * (1 - 1e-12))  # a quotient that rounding lifted above a whole number must not add a round
    if rounds > length:
        caution(f"The bound of {rounds} rounds exceeds the {length} tokens: no schedule that obeys the rule commits this sample.")
    return {**bounds, "rounds": rounds}


@paper.algorithm(r"\max\{j : (1+j)(1-p_{(j)}) \le f\},\quad p_{(1)} \ge p_{(2)} \ge \dots")
def select_parallel(probabilities: vector("m", of=probability(), doc="confidence at each masked position", example=[0.99, 0.6, 0.95, 0.97]), threshold: THRESHOLD) -> record(
    count=count("positions", low=0), indices=vector("chosen", of=count("", low=0), least=0, doc="positions, most confident first")
):
    """The largest set of positions that the threshold rule lets through in one round."""
    p = np.asarray(probabilities, float)
    order = np.argsort(-p, kind="stable")
    chosen = int(np.sum((np.arange(len(p)) + 2) * (1 - p[order]) <= threshold))  # the left side rises with j: the first failure is the last
    return {"count": chosen, "indices": order[:chosen]}


def marginals(table):
    """The law of each axis."""
    return [table.sum(tuple(j for j in range(table.ndim) if j != i)) / table.sum() for i in range(table.ndim)]


def decode(joint, x, threshold, explore=False, select=select_parallel):
    table, masked, trace, spent, legal = np.asarray(joint, float), list(range(len(x))), [], 0.0, True
    while masked:
        laws = marginals(table)
        p = np.minimum([law[x[i]] for law, i in zip(laws, masked, strict=True)], 1)
        chosen = list(select(p, threshold)["indices"])
        if explore and len(chosen) < 2:
            entropies = [-np.sum(law[law > 0] * np.log(law[law > 0])) for law in laws]
            chosen = [int(np.argmax(np.round(entropies, 12)))]
            legal &= bool(2 * (1 - p[chosen[0]]) <= threshold)
        elif not chosen:
            chosen, legal = [int(np.argmax(p))], False
        spent -= np.sum(np.log(p[chosen]))
        trace.append(sorted(int(masked[c]) for c in chosen))
        table = table[tuple(x[i] if c in chosen else slice(None) for c, i in enumerate(masked))]
        masked = [i for c, i in enumerate(masked) if c not in chosen]
    nll = -np.log(joint[tuple(x)])
    return {"rounds": len(trace), "nll": max(float(nll), 0.0), "error": float(nll - spent), "legal": legal, "trace": trace}


def random_joint(rng):
    shape = tuple(int(v) for v in rng.integers(2, 4, size=rng.integers(1, 5)))
    return {"joint": rng.dirichlet(np.full(math.prod(shape), 0.3)).reshape(shape), "x": [int(rng.integers(v)) for v in shape], "threshold": rng.uniform(0.02, 1)}


@paper.model(
    r"R = \#\text{rounds},\quad \varepsilon = -\log p(x) - \sum_r \sum_{i \in A_r} -\log p(x_i \mid x_{C_r})",
    requires={
        "joint must sum to 1": lambda joint: abs(np.sum(joint) - 1) < 1e-6,
        "x must have one entry for each axis of joint": lambda x, joint: len(x) == np.ndim(joint),
        "x must be tokens of joint, counted from 0": lambda x, joint: bool(np.all(np.asarray(x) < np.shape(joint))),
    },
    sample=random_joint,
)
def simulate_decoding(
    joint: JOINT, x: vector("n", of=count("", low=0), doc="the sample that is committed", example=[0, 0]), threshold: THRESHOLD, *, explore: flag() = False
) -> record(
    rounds=count("rounds"),
    nll=NATS,
    error=real("nats", doc="factorisation error; may be negative"),
    legal=flag(doc="whether every round obeyed the threshold rule"),
    trace=listing(listing(count("", low=0)), doc="positions committed in each round"),
):
    """Decoding with exact conditionals of a joint law: each round commits what the rule lets through, else the one most confident position.

    With `explore`, a round in which fewer than two positions pass commits the one of highest entropy instead.
    """
    joint, x = np.asarray(joint, float), [int(token) for token in x]
    if joint[tuple(x)] == 0:
        raise DomainError("x must have a probability above 0 under joint; it was 0, an infinite amount of information.")
    return decode(joint, x, threshold, explore)


@paper.measure(
    r"R \ge \frac{\sum_i -\log p_i}{n \log\frac{n+1}{n+1-f}},\quad f = \max_i\, (1 + |A_{r(i)}|)(1 - p_i)",
    assumes=["The probabilities are the model's own at the time of commitment; no joint law is needed."],
)
def decode_log_information(
    token_probabilities: vector("n", of=probability(above=True, typical=(0.5, 1)), doc="probability with which each token was committed", example=[0.99, 0.95, 0.97, 0.9]),
    rounds: vector("n", of=integer("", typical=(0, 3)), doc="identifier of the round that committed each token", example=[0, 0, 1, 2]),
) -> record(
    nats_per_round=vector("R", of=NATS, doc="in order of the identifiers"),
    rounds=count("rounds"),
    threshold=nonnegative(doc="f: the smallest threshold that the log obeys"),
    bound=nonnegative(nan=True, doc="rounds that the information forces; NaN where f exceeds 1"),
):
    """Information committed in each round of a decoding log, and how many rounds that information forces at the log's own threshold."""
    p = np.asarray(token_probabilities, float)
    _, member, sizes = np.unique(rounds, return_inverse=True, return_counts=True)
    nats = np.abs(np.log(p))
    total, threshold = float(nats.sum()), float(np.max((1 + sizes[member]) * (1 - p)))
    bound = 0.0 if total == 0 else math.nan if threshold > 1 else total / float(round_budget(len(p), threshold)["marginal"])
    return {"nats_per_round": np.bincount(member, nats), "rounds": len(sizes), "threshold": threshold, "bound": bound}


def confident_alone(probabilities, threshold):
    """A rule that forgets how many tokens it commits together."""
    order = np.argsort(-np.asarray(probabilities), kind="stable")
    chosen = order[1 - np.asarray(probabilities)[order] <= threshold]
    return {"count": len(chosen), "indices": chosen}


def half_the_threshold(nll, length, threshold, *, error=0.0):
    return rounds_lower_bound(nll, length, threshold / 2, error=error)


@paper.trial(
    Inequality(rtol=1e-9, atol=1e-9),
    of=[rounds_lower_bound, simulate_decoding, decode_log_information],
    claim=(rounds_lower_bound, simulate_decoding),
    controls={"half the threshold": (half_the_threshold, simulate_decoding), "rule without the size of the round": (rounds_lower_bound, partial(decode, select=confident_alone))},
    quick=250,
    full=10_000,
)
def rounds_of_random_joints(draw, claim):
    """Every legal run takes at least as many rounds as each of the bounds says, from the joint law and from the log of its token probabilities."""
    bound, run = claim
    n = draw.integer(2, 5)
    joint = draw.dirichlet(draw.log_uniform(0.002, 0.1), 3**n) + 1e-300
    joint = (joint / joint.sum()).reshape((3,) * n)
    f, start = draw.uniform(0.01, 1), draw.uniform()
    x = [int(i) for i in np.unravel_index(min(np.searchsorted(np.cumsum(joint), start), joint.size - 1), joint.shape)]
    told = run(joint, x, f)
    if not told["legal"]:
        return [0.0], [1.0]
    said = bound(told["nll"], n, f, error=min(told["error"], told["nll"]))
    p, of_round, known = np.empty(n), np.empty(n, int), {}
    for r, positions in enumerate(told["trace"]):
        rest = [i for i in range(n) if i not in known]
        laws = marginals(joint[tuple(known.get(i, slice(None)) for i in range(n))])
        p[positions], of_round[positions] = [min(laws[rest.index(i)][x[i]], 1.0) for i in positions], r
        known |= {i: x[i] for i in positions}
    log = decode_log_information(p, of_round)
    logged = log["bound"] if log["threshold"] <= f else 0.0  # a wrong rule may leave a log without a bound
    return [said["joint"], said["marginal"], said["marginal_tight"], said["rounds"], logged], [told["rounds"]] * 5, {"threshold": f, "nll": told["nll"], "error": told["error"]}


def disjoint_errors(m, f):
    """The joint law of m binary tokens that spends a round's whole budget: one token at most is wrong, each with probability f / (m+1)."""
    joint = np.zeros((2,) * m)
    joint[(0,) * m] = 1 - f * m / (m + 1)
    for i in range(m):
        joint[tuple(int(i == j) for j in range(m))] = f / (m + 1)
    return joint


def switch(k):
    """The joint law of a switch with k even values and, for each but the first, a token that says whether it holds."""
    joint = np.zeros((k,) + (2,) * (k - 1))
    for s in range(k):
        joint[(s, *(int(i == s) for i in range(1, k)))] = 1 / k
    return joint


def without_exploring(joint, x, threshold, *, explore=False):
    return simulate_decoding(joint, x, threshold)


@paper.trial(
    Identity(rtol=1e-9),
    of=[round_budget, select_parallel, simulate_decoding, rounds_lower_bound],
    claim=(round_budget, select_parallel, simulate_decoding),
    controls={
        "marginal budget f": (lambda m, f: {**round_budget(m, f), "marginal": f}, select_parallel, simulate_decoding),
        "each position by itself": (round_budget, confident_alone, simulate_decoding),
        "exploring left out": (round_budget, select_parallel, without_exploring),
    },
    quick=40,
    full=1000,
)
def attained(draw, claim):
    """A round of tokens with disjoint errors spends exactly its budgets; the set let through is the largest of all subsets; a switch takes two rounds with exploring."""
    budget, select, run = claim
    m, f = draw.integer(2, 7), draw.uniform(0.05, 0.999)
    told, said = run(disjoint_errors(m, f), [0] * m, f * (1 + 1e-12)), budget(m, f)
    bound = rounds_lower_bound(told["nll"], m, f, error=told["error"])["rounds"]
    p = 1 - np.array([draw.log_uniform(0.01, 0.3) for _ in range(draw.integer(2, 7))])
    subsets = (np.arange(2 ** len(p))[:, None] >> np.arange(len(p))) & 1
    size = subsets.sum(1)
    largest = size[(1 + size) * np.max(subsets * (1 - p), axis=1) <= f].max()
    switched = [run(switch(10), [0] * 10, 0.25, explore=explore)["rounds"] for explore in (False, True)]
    found = [told["rounds"], bound, told["nll"], told["nll"] - told["error"], largest, *switched]
    return found, [1, 1, said["joint"], said["marginal"], select(p, f)["count"], 10, 2], {"tokens": m, "threshold": f, "probabilities": p}
