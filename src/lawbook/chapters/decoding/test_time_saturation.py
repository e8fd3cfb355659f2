"""Saturation of test-time compute: how success rises with samples or rethinking rounds, and where one more adds less than is asked."""

import math

import numpy as np

from lawbook.contract import Paper, count, positive, probability, vector
from lawbook.numerics import arrays
from lawbook.trials import Estimate, Identity

paper = Paper(
    __name__,
    title="Scaling over Scaling: Exploring Test-Time Scaling Pareto in Large Reasoning Models",
    arxiv="2505.20522",
    tags=["test-time compute", "inference", "reasoning", "best-of-n", "majority vote", "saturation", "coverage"],
    source="derived",
    says="""Sampling more answers in parallel and asking a reasoning model to rethink in sequence follow one curve: a plateau is approached by a factor 1-p a step. So there is a
    budget after which one more sample or round adds less than a chosen amount, in closed form. If right answers can be lost again the plateau drops below 1, and
    rethinking can make things worse; over problems of different difficulty the gain falls more slowly than for any single one.""",
    notes="""Model and curve were seen in public reviews of the paper, not in its text; the plateau factor, the ceiling formula, relapse and mixtures are derived here. A majority
    of an even number, ties counted half, is exactly as good as one sample less.""",
)

SUCCESS = probability(typical=(0.001, 0.999), doc="chance that one sample is right", example=0.1)
SAMPLES = count("samples", low=0, typical=(1, 1000), example=22)
PLATEAU = probability(typical=(0.1, 1), doc="success with unlimited samples: what the selector finds among them")
EPSILON = positive(high=1, typical=(1e-5, 0.1), doc="gain of one more sample that is too little to pay for", example=0.01)


@paper.law(r"F(N) = F_{max} \left[1 - (1-p)^N\right]", assumes=["Samples are independent and a right one is recognised."], closed_form=True, gives=0.9015)
def parallel_success(success: SUCCESS, samples: SAMPLES, *, plateau: PLATEAU = 1.0) -> probability():
    """Probability that a selector returns a right answer from N independent samples; for rethinking, that it is right by round N."""
    xp, p, n, top = arrays(success, samples, plateau)
    hit = -xp.expm1(n * xp.log1p(-xp.where(p < 1, p, 0.5)))
    return top * xp.where(p < 1, hit, xp.where(n > 0, 1.0, 0.0))


@paper.bound(r"N^* = \max\left(0, \left\lceil \frac{\ln(\epsilon / (F_{max} p))}{\ln(1-p)} \right\rceil\right)", gives=22)
def saturation_point(success: SUCCESS, epsilon: EPSILON, *, plateau: PLATEAU = 1.0) -> count("samples", low=0):
    """Smallest number of samples (or rounds) after which one more adds at most epsilon to the success."""
    first = plateau * success
    if first <= epsilon:
        return 0
    if success == 1:
        return 1
    n = math.ceil(math.log(epsilon / first) / math.log1p(-success))
    # the quotient can be a rounding off a whole number: the gains decide
    if n > 0 and first * (1 - success) ** (n - 1) <= epsilon:
        return n - 1
    return n + 1 if first * (1 - success) ** n > epsilon else n


@paper.law(
    r"F(N) = F_\infty + (F_0 - F_\infty)(1-p-f)^N,\quad F_\infty = \frac{p}{p+f}",
    assumes=["Each round turns a wrong answer right with probability p and a right one wrong with probability f, whatever came before."],
    closed_form=True,
    gives=0.85,
)
def sequential_success(
    rethink: probability(typical=(0.001, 0.999), doc="chance p that a round turns a wrong answer right", example=0.4),
    relapse: probability(typical=(0.001, 0.999), doc="chance f that a round turns a right answer wrong", example=0.1),
    start: probability(doc="success before the first round", example=1.0),
    rounds: count("rounds", low=0, typical=(1, 200), static=True, example=2),
) -> probability():
    """Probability of a right answer after some rounds of rethinking; it rises or falls to p/(p+f), and swings around it where p + f is above 1."""
    xp, p, f, first = arrays(rethink, relapse, start)
    moves = p + f > 0
    plateau = p / xp.where(moves, p + f, 1.0)
    return xp.where(moves, plateau + (first - plateau) * (1 - p - f) ** rounds, first)


def mean_gain(rates, samples):
    """Mean of p (1-p)^N over the rates."""
    return float(np.mean(rates * (1 - rates) ** samples))


@paper.algorithm(r"\min\left\{N : \tfrac1m \sum_i p_i (1-p_i)^N \le \epsilon\right\}")
def mixture_saturation(success: vector("m", of=SUCCESS, doc="success rate of each problem", example=[0.9, 0.5, 0.2, 0.05, 0.01]), epsilon: EPSILON) -> count("samples", low=0):
    """Smallest number of samples a problem after which one more adds at most epsilon to the mean success over a benchmark."""
    rates = np.asarray(success, float)
    low, high = -1, math.ceil(1 / epsilon)  # the gain falls in N, and p (1-p)^N < 1 / (N+1) whatever p is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if mean_gain(rates, middle) <= epsilon else (middle, high)
    return high


@paper.law(
    r"P = \sum_{j > N/2} \binom Nj p^j (1-p)^{N-j} + \tfrac12 [N \text{ even}] \binom{N}{N/2} (p(1-p))^{N/2} = I_p(m, m),\quad m = \lfloor (N+1)/2 \rfloor",
    assumes=["Answers are right or wrong: all wrong answers agree, the worst case for the vote."],
    gives=0.648,
)
def majority_success(
    success: probability(typical=(0.001, 0.999), doc="chance that one sample is right", example=0.6), samples: count("samples", typical=(1, 1000), example=3)
) -> probability():
    """Probability that the majority of N samples is right, ties decided by a coin; it tends to 1 only if a sample is right more often than not."""
    from scipy.special import betainc

    m = (samples + 1) // 2
    return float(betainc(m, m, success))


def without_plateau(success, samples, *, plateau):
    return parallel_success(success, samples)


def a_majority_is_a_hit(success, samples):
    return parallel_success(success, samples)


@paper.trial(
    Identity(rtol=0),
    of=[parallel_success, majority_success, sequential_success],
    claim=(parallel_success, majority_success),
    controls={"plateau forgotten": (without_plateau, majority_success), "a majority taken for a hit": (parallel_success, a_majority_is_a_hit)},
    quick=10,
    full=500,
)
def simulated(draw, claim):
    """Runs of a model that samples, selects, votes and rethinks succeed as often as the laws say; rethinking without relapse is the parallel law again."""
    hit, majority = claim
    p, n, top, f, runs = draw.uniform(0.15, 0.6), draw.integer(1, 8), draw.uniform(0.2, 0.9), draw.uniform(0.01, 0.9), 20_000
    right = draw.rng.uniform(size=(n, runs)) < p
    found = right.any(0) & (draw.rng.uniform(size=runs) < top)
    votes = 2 * right.sum(0) - n
    state = draw.rng.uniform(size=runs) < 0.3
    for _ in range(n):
        state = np.where(state, draw.rng.uniform(size=runs) >= f, draw.rng.uniform(size=runs) < p)
    seen = np.stack([found, (votes > 0) + 0.5 * (votes == 0), state, right.any(0)], 1)
    laws = [hit(p, n, plateau=top), majority(p, n), sequential_success(p, f, 0.3, n), sequential_success(p, 0.0, 0.0, n)]
    return Estimate.of(seen), laws, {"success": p, "samples": n, "plateau": top, "relapse": f}


def no_relapse(rethink, relapse, start, rounds):
    return 1 - (1 - start) * (1 - rethink) ** rounds


@paper.trial(Identity(rtol=1e-10, atol=1e-12), of=[sequential_success, majority_success], controls={"right answers are never lost": no_relapse}, quick=100, full=10_000)
def exact(draw, claim):
    """Rethinking is a power of the two-state transition matrix, and a majority a sum of binomial probabilities."""
    from scipy.stats import binom

    p, f, first, n = draw.uniform(0, 1), draw.uniform(0, 1), draw.uniform(0, 1), draw.integer(1, 60)
    chain = np.linalg.matrix_power(np.array([[1 - p, p], [f, 1 - f]]), n)
    votes = binom.pmf(np.arange(n + 1), n, p)
    computed = [(1 - first) * chain[0, 1] + first * chain[1, 1], votes @ (np.sign(2 * np.arange(n + 1) - n) + 1) / 2]
    return computed, [claim(p, f, first, n), majority_success(p, n)], {"rethink": p, "relapse": f, "rounds": n}


def floor_for_ceiling(success, epsilon, *, plateau):
    return max(saturation_point(success, epsilon, plateau=plateau) - 1, 0)


def at_the_mean_rate(success, epsilon):
    return saturation_point(float(np.mean(success)), epsilon)


@paper.trial(
    Identity(rtol=0),
    of=[saturation_point, mixture_saturation],
    claim=(saturation_point, mixture_saturation),
    controls={"floor instead of ceiling": (floor_for_ceiling, mixture_saturation), "mean rate of the mixture": (saturation_point, at_the_mean_rate)},
    quick=40,
    full=2000,
)
def first_small_gain(draw, claim):
    """Counting up one sample at a time stops exactly where the formula and the bisection say."""
    single, mixture = claim
    p, top, epsilon = draw.choice([draw.log_uniform(3e-3, 1), 0.5, 0.25, 1.0]), draw.choice([1.0, draw.uniform(0.3, 1)]), draw.choice([draw.log_uniform(1e-4, 0.3), 2.0**-8])
    rates, n, m = np.array([0.9, 0.5, 0.2, 0.05, 0.01]) * draw.uniform(0.3, 1), 0, 0
    while top * p * (1 - p) ** n > epsilon:
        n += 1
    while np.mean(rates * (1 - rates) ** m) > epsilon:
        m += 1
    return [n, m], [single(p, epsilon, plateau=top), mixture(rates, epsilon)], {"success": p, "epsilon": epsilon, "plateau": top}


@paper.finding(
    """A benchmark does not saturate where its mean rate says: with rates .9, .5, .2, .05, .01 the mean rate .332 stops paying a thousandth after 15 samples, the benchmark after
    84; at a tenth of that the figures are 21 and 299."""
)
def mean_rate_stops_too_early():
    rates = np.array([0.9, 0.5, 0.2, 0.05, 0.01])
    points = {
        f"{name}_{epsilon:g}": value
        for epsilon in (1e-3, 1e-4)
        for name, value in (("mean_rate", at_the_mean_rate(rates, epsilon)), ("benchmark", mixture_saturation(rates, epsilon)))
    }
    return {"holds": list(points.values()) == [15, 84, 21, 299], **points}
