"""Gibbs-style refinement with masked language models: whether their conditionals fit together, how fast the chain mixes, and how long it stays trapped."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, array, caution, count, distribution, matrix, nonnegative, positive, probability, real, record, seed, vector
from lawbook.numerics import arrays, logsumexp, softmax, special
from lawbook.trials import Counts, Coverage, Distribution, Identity, Inequality

paper = Paper(
    __name__,
    title="Mixing Times of Glauber Dynamics on Masked Language Models",
    arxiv="2605.16378",
    tags=["masked language model", "gibbs sampling", "glauber dynamics", "mixing time", "metastability", "temperature"],
    source="derived",
    says="""A masked language model gives a law for each position, and these usually belong to no common joint law, which the log odds ratios of two positions can certify.
    Re-sampling random positions is a Markov chain all the same: where tokens influence each other weakly, as at high temperature, it forgets its start in about n log n
    steps; where every position prefers its token by a margin, it stays near that text for a time exponential in its length.""",
    notes="""The abstract names the three results; statements and constants are derived here, by path coupling and by domination by independent sites.
    Influence is the sum over the positions that one token influences, not over the tokens that influence one position.""",
)

TEMPERATURE = positive(typical=(0.5, 4), example=1.0)
LENGTH = count("tokens", typical=(2, 512), doc="n: positions of the text", example=20)
SITES = array(
    "n", "n", "V", "V", of=real(typical=(-1, 1)), most=3, doc="[i, j, a, b]: what token b at j adds to the logit of a at i; [i, i] is not used", example=np.zeros((2, 2, 2, 2))
)
BIASES = matrix("n", "V", of=real(typical=(-1, 1)), doc="logit of each token at each position before any influence")
INFLUENCE = nonnegative(high=1, below=True, typical=(0, 0.95), doc="alpha: largest sum over positions i of how far one token can move the law at i", example=0.5)
OSCILLATION = nonnegative(typical=(0, 10), doc="largest less smallest change of the logits at i when the token at j changes", example=2.0)
MARGIN = nonnegative(typical=(0, 30), doc="logit of the preferred token less that of any other, at least", example=14.0)
ERROR = probability(doc="eta: largest probability that a re-sampled position misses its preferred token", example=0.1)
RADIUS = count("tokens", typical=(1, 512), doc="r: positions that differ once the chain counts as escaped", example=10)
START = vector("n", of=count("", low=0, typical=(0, 1), scale="linear"), doc="tokens to start from", example=[0, 1])
STEPS = count("steps", typical=(1, 50), example=5)
PAIR = vector("two", of=count("", low=0), doc="the two tokens of the rectangle")
EPSILON = probability(above=True, below=True, typical=(0.01, 0.5), doc="total variation distance that counts as mixed")


@paper.measure(
    r"\Delta = \log\frac{p_i(a|b)\, p_i(a'|b')}{p_i(a'|b)\, p_i(a|b')} - \log\frac{p_j(b|a)\, p_j(b'|a')}{p_j(b'|a)\, p_j(b|a')}",
    requires={"first_given_second must have columns that sum to 1": lambda first_given_second: bool(np.all(np.abs(np.sum(first_given_second, axis=0) - 1) < 1e-6))},
    sample=lambda rng: {"first_given_second": rng.dirichlet([1] * (a := rng.integers(2, 6)), (b := rng.integers(2, 6))).T, "second_given_first": rng.dirichlet([1] * b, a)},
)
def rectangle_statistic(
    first_given_second: matrix("A", "B", of=probability(), least=2, doc="[a, b]: probability of a at the first position given b at the second", example=[[0.8, 0.3], [0.2, 0.7]]),
    second_given_first: distribution("A", "B", doc="[a, b]: probability of b at the second position given a at the first", example=[[0.6, 0.4], [0.1, 0.9]]),
) -> record(statistic=real(doc="Delta; 0 for conditionals of one joint law"), first_log_odds=real(), second_log_odds=real(), rows=PAIR, columns=PAIR):
    """Difference of the two log odds ratios in the rectangle of tokens where it is largest; other than 0, it proves that no joint law has these conditionals."""
    tables = np.stack([first_given_second, second_given_first]).astype(float)
    if (tables < 1e-12).any():
        caution("Some probabilities lie below 1e-12 and were raised to it: the statistic would be infinite.")
    first, second = logs = np.log(np.maximum(tables, 1e-12))
    difference, largest = first - second, -1.0
    for a in range(len(difference) - 1):  # for two rows, the best columns are where their difference is least and largest
        step = difference[a] - difference[a + 1 :]
        spread = np.ptp(step, axis=1)
        other = int(np.argmax(spread))
        if spread[other] > largest:
            largest, rows, columns = spread[other], (a, a + 1 + other), np.sort(np.argsort(step[other])[[0, -1]])
    odds = [float(log[rows[0], columns[0]] + log[rows[1], columns[1]] - log[rows[1], columns[0]] - log[rows[0], columns[1]]) for log in logs]
    return {"statistic": odds[0] - odds[1], "first_log_odds": odds[0], "second_log_odds": odds[1], "rows": list(rows), "columns": columns}


@paper.bound(
    r"t_{\mathrm{mix}}(\epsilon) \le \left\lceil \frac{n}{1-\alpha} \ln\frac{n}{\epsilon} \right\rceil",
    assumes=["Each step re-samples one position drawn evenly; no joint law is needed, and the stationary law is unique."],
)
def mixing_time_bound(length: LENGTH, influence: INFLUENCE, *, epsilon: EPSILON = 0.05) -> count("steps", low=0):
    """Steps after which the chain has forgotten its start, whatever that was."""
    return math.ceil(length / (1 - influence) * math.log(length / epsilon))


@paper.bound(r"C_{ij} \le \tanh\frac{\mathrm{osc}_{ij}}{4T}", closed_form=True, gives=0.462117)
def influence_from_logits(oscillation: OSCILLATION, temperature: TEMPERATURE) -> probability():
    """Largest change in total variation of a softmax whose logits change by this oscillation."""
    xp, oscillation, temperature = arrays(oscillation, temperature)
    return xp.tanh(oscillation / (4 * temperature))


@paper.law(r"\eta = \frac{(V-1)\, e^{-m/T}}{1 + (V-1)\, e^{-m/T}}", closed_form=True)
def margin_error(vocab_size: count("tokens", low=2, typical=(2, 200_000), example=30_000), margin: MARGIN, temperature: TEMPERATURE) -> probability():
    """Largest probability that re-sampling a position misses its preferred token."""
    xp, v, m, t = arrays(vocab_size, margin, temperature)
    return special(xp, "expit")(xp.log(v - 1) - m / t)


@paper.bound(
    r"\Pr(\text{distance reaches } r \text{ within } t \text{ steps}) \le (t+1)\,\Pr(\mathrm{Bin}(n, \eta) \ge r)",
    assumes=["The chain starts at the preferred text, and the margin holds at every text that differs from it in fewer than `radius` positions."],
    requires={"radius must be at most length": lambda radius, length: radius <= length},
)
def escape_time_bound(
    length: LENGTH, radius: RADIUS, margin_error: ERROR, *, delta: probability(above=True, doc="probability with which the chain may escape earlier") = 0.1
) -> record(
    steps=nonnegative(infinite=True, doc="infinite where it exceeds every float, or where nothing ever escapes"),
    log10_steps=real(infinite=True, doc="-inf where the bound is 0 steps"),
    tail=probability(doc="Pr(Bin(n, eta) >= r); 0 below the least float"),
):
    """Steps within which the chain leaves the neighbourhood of its preferred text with probability at most `delta`."""
    from scipy.stats import binom

    tail = float(binom.sf(radius - 1, length, margin_error))
    with np.errstate(divide="ignore"):
        log_tail = math.log(tail) if tail > 1e-280 else float(logsumexp(np, binom.logpmf(np.arange(radius, length + 1), length, margin_error)))
        log_ratio = math.log(delta) - log_tail
        steps = max(math.expm1(log_ratio), 0.0) if log_ratio < 700 else math.inf
        return {"steps": steps, "log10_steps": float(np.log10(steps)) if log_ratio < 30 else log_ratio / math.log(10), "tail": tail}


def fields(couplings, biases):
    """Couplings as floats without those of a position to itself, and biases."""
    couplings = np.array(couplings, float)
    couplings[np.arange(len(couplings)), np.arange(len(couplings))] = 0
    return couplings, np.zeros((len(couplings), couplings.shape[2])) if biases is None else np.asarray(biases, float)


def resample(states, couplings, biases, temperature, rng):
    """One step of every chain (a row of states) in place: a position drawn evenly gets a new token."""
    chains, n = states.shape
    i = rng.integers(n, size=chains)
    logits = biases[i] + couplings[i[:, None], np.arange(n), :, states].sum(1)
    steps = np.cumsum(softmax(logits / temperature), axis=1)[:, :-1]
    states[np.arange(chains), i] = np.sum(steps <= rng.uniform(size=(chains, 1)), axis=1)


@paper.model(
    r"x_i \sim \mathrm{softmax}_a\Big(\tfrac{1}{T}\big(h_i(a) + \sum_{j \ne i} W_{ij}(a, x_j)\big)\Big),\quad i \text{ drawn evenly}",
    requires={"start must be tokens of couplings, counted from 0": lambda start, couplings: bool(np.all(start < np.shape(couplings)[2]))},
)
def glauber_chain(couplings: SITES, start: START, steps: STEPS, seed: seed(example=0), *, temperature: TEMPERATURE = 1.0, biases: BIASES = None) -> matrix(
    "steps+1", "n", of=count("", low=0)
):
    """A run of the chain that re-samples positions drawn at random, from a pairwise model of the logits."""
    couplings, biases = fields(couplings, biases)
    rng, states = np.random.default_rng(seed), np.array(start, int)[None]
    trajectory = np.tile(states, (steps + 1, 1))
    for row in trajectory[1:]:
        resample(states, couplings, biases, temperature, rng)
        row[:] = states[0]
    return trajectory


def conditionals(couplings, biases, temperature):
    """[i, x, a]: probability that position i of text x is re-sampled to a; texts are numbered in the order of their tokens."""
    n, v = biases.shape
    texts = np.indices((v,) * n).reshape(n, -1)
    return softmax((biases[:, None] + sum(couplings[:, j][:, :, texts[j]].transpose(0, 2, 1) for j in range(n))) / temperature)


def transition_matrix(laws):
    n, size, v = laws.shape
    matrix, texts = np.zeros((size, size)), np.arange(size)[:, None]
    for i, law in enumerate(laws):
        place = v ** (n - 1 - i)
        matrix[texts, texts + (np.arange(v) - texts // place % v) * place] += law / n
    return matrix


def largest_influence(laws):
    """alpha: over tokens j, the largest sum over positions i of the change of i's law when j changes."""
    n, _, v = laws.shape
    influence = np.zeros((n, n))
    for i, law in enumerate(laws):
        for j in set(range(n)) - {i}:
            with_token = np.moveaxis(law.reshape((v,) * (n + 1)), j, 0)
            influence[i, j] = max(np.abs(with_token - other).sum(-1).max() / 2 for other in with_token)
    return float(influence.sum(0).max())


def mixing_steps(matrix, epsilon):
    """Smallest t at which every row of the t-th power is within epsilon of the stationary law, by squaring and bisection."""
    one = np.eye(len(matrix))
    stationary = np.linalg.solve(np.vstack([matrix.T[:-1] - one[:-1], np.ones(len(matrix))]), one[-1])

    def far(power):
        return np.abs(power - stationary).sum(1).max() / 2 > epsilon

    powers = [matrix]
    while far(powers[-1]):
        if len(powers) > 40:
            raise DomainError("temperature must be higher for these couplings: the chain has not mixed after 1e12 steps, and rounding hides what comes later.")
        powers.append(powers[-1] @ powers[-1])
    steps, reached = 1, one
    for k in range(len(powers) - 2, -1, -1):
        if far(further := reached @ powers[k]):
            reached, steps = further, steps + 2**k
    return steps if far(one) else 0


@paper.measure(
    r"\min\{t : \max_x \mathrm{TV}(P^t(x, \cdot), \pi) \le \epsilon\},\quad \alpha = \max_j \sum_{i \ne j} C_{ij}",
    requires={"couplings must have at most 4096 texts: V^n": lambda couplings: np.shape(couplings)[2] ** np.shape(couplings)[0] <= 4096},
)
def exact_mixing_time(couplings: SITES, *, temperature: TEMPERATURE = 1.0, biases: BIASES = None, epsilon: EPSILON = 0.05) -> record(
    steps=count("steps", low=0), influence=nonnegative(doc="alpha: below 1 it bounds the mixing time")
):
    """Mixing time from the transition matrix over all texts, and the exact influence of the tokens on each other."""
    laws = conditionals(*fields(couplings, biases), temperature)
    return {"steps": mixing_steps(transition_matrix(laws), epsilon), "influence": largest_influence(laws)}


@paper.trial(
    Identity(rtol=1e-9, atol=1e-12),
    of=[rectangle_statistic],
    controls={"one conditional only": lambda f, s: {**(odds := rectangle_statistic(f, s)), "statistic": odds["first_log_odds"]}},
    quick=40,
    full=1000,
)
def rectangles(draw, claim):
    """The statistic is 0 for the conditionals of any joint law, and for others the largest over all rectangles, one by one."""
    rows, columns = draw.integer(2, 5), draw.integer(2, 5)
    joint, other = (draw.log_uniform(0.01, 1, size=(rows, columns)) for _ in range(2))
    first, second, third = joint / joint.sum(0), joint / joint.sum(1, keepdims=True), other / other.sum(1, keepdims=True)
    found = claim(first, third)

    def at(a, c, b, d):
        return np.log(first[a, b] * first[c, d] / (first[c, b] * first[a, d])) - np.log(third[a, b] * third[c, d] / (third[a, d] * third[c, b]))

    listed = max(abs(at(a, c, b, d)) for a in range(rows) for c in range(a) for b in range(columns) for d in range(b))
    return [0.0, listed, at(*found["rows"], *found["columns"])], [claim(first, second)["statistic"], abs(found["statistic"]), found["statistic"]], {"joint": joint}


@paper.trial(
    Inequality(rtol=1e-9, atol=1e-12, search=100),
    of=[mixing_time_bound, exact_mixing_time, influence_from_logits, margin_error],
    claim=(mixing_time_bound, influence_from_logits, margin_error),
    controls={
        "n left out": (lambda length, influence: mixing_time_bound(length, influence) / length, influence_from_logits, margin_error),
        "tanh(osc / 8T)": (mixing_time_bound, lambda oscillation, temperature: influence_from_logits(oscillation, 2 * temperature), margin_error),
        "one other token": (mixing_time_bound, influence_from_logits, lambda vocab_size, margin, temperature: margin_error(2, margin, temperature)),
    },
    quick=60,
    full=3000,
)
def single_steps_and_mixing(draw, claim):
    """Mixing times from transition matrices lie below the bound, influences below that of their oscillations, and misses below that of their margin."""
    bound, influence, miss = claim
    n, v, temperature = 5, 2, draw.log_uniform(0.5, 4)
    couplings = draw.log_uniform(0.03, 0.5) * draw.normal(size=(n, n, v, v))
    exact = exact_mixing_time(couplings, temperature=temperature)
    matrix = transition_matrix(conditionals(*fields(couplings, None), temperature))
    stationary = np.linalg.matrix_power(matrix, 10**6)[0]
    mixed, before = (np.abs(np.linalg.matrix_power(matrix, exact["steps"] - back) - stationary).sum(1).max() / 2 for back in (0, 1))
    changes = np.abs(np.diff(np.diff(fields(couplings, None)[0], axis=2), axis=3))[:, :, 0, 0]  # oscillation of two logits when one token of two changes
    vocab, margin = draw.integer(3, 30), draw.uniform(0, 10)
    logits = -np.append(0, margin + 0.3 * draw.exponential(size=vocab - 1))
    smaller = [exact["steps"], exact["influence"], mixed, 0.05, 1 - softmax(logits / temperature)[0]]
    larger = [bound(n, min(exact["influence"], 1 - 1e-9)), influence(changes, temperature).sum(0).max(), 0.05, before, miss(vocab, margin, temperature)]
    return smaller, larger, {"influence": exact["influence"], "temperature": temperature, "margin": margin}


@paper.trial(
    Distribution(),
    of=[glauber_chain, exact_mixing_time],
    claim=glauber_chain,
    controls={"temperature forgotten": lambda *chain, temperature, biases: glauber_chain(*chain, biases=biases)},
    quick=3000,
    full=60_000,
)
def laws_of_chains(draw, claim):
    """Where runs of the chain are after four steps follows the fourth power of the transition matrix."""
    n, v, temperature = 3, 2, 0.5
    couplings, biases = draw.normal(0, 1.5, size=(n, n, v, v)), draw.normal(size=(n, v))
    law = np.linalg.matrix_power(transition_matrix(conditionals(*fields(couplings, biases), temperature)), 4)[0]
    ends = [claim(couplings, [0] * n, 4, seed, temperature=temperature, biases=biases)[-1] for seed in range(draw.size)]
    return Counts(np.bincount(np.array(ends) @ v ** np.arange(n)[::-1], minlength=v**n), law)


@paper.trial(
    Coverage(at_most=0.1),
    of=[escape_time_bound, margin_error],
    controls={"half the error": lambda length, radius, error: escape_time_bound(length, radius, error / 2)},
    quick=1,
    full=2,
)
def escapes(draw, claim, effort):
    """Chains leave the neighbourhood of their text before the bound with probability at most delta, with positions alone or holding each other."""
    v, eta, chains, escaped = 3, 0.1, 400, {}
    for n in (10, 20) if effort == "full" else (10,):
        radius, temperature = n // 2, draw.uniform(0.5, 2)
        margin = temperature * np.log((v - 1) * (1 - eta) / eta)
        alone, held = margin * np.eye(v)[[0] * n], np.zeros((n, n, v, v))
        held[~np.eye(n, dtype=bool), 0, 0] = margin / (n - radius)  # n - radius others at least agree
        steps = math.floor(min(claim(n, radius, float(margin_error(v, margin, temperature)))["steps"], 20_000))
        for name, couplings, biases in (("alone", 0 * held, alone), ("held", held, 0 * alone)):
            states, out = np.zeros((chains, n), int), np.zeros(chains, bool)
            for _ in range(steps):
                resample(states, couplings, biases, temperature, draw.rng)
                out |= np.count_nonzero(states, axis=1) >= radius
                if out.mean() > 0.3:
                    break
            escaped[f"{n} positions {name}"] = out
    return escaped
