"""Noisy binary search: find where sorted coins cross a target probability, with as few flips as information allows."""

import math

import numpy as np

from lawbook.contract import Paper, count, either, flag, function, integer, nonnegative, positive, probability, record, seed, vector
from lawbook.numerics import arrays, special
from lawbook.trials import Coverage, Estimate, Guarantee, Identity, Rate

paper = Paper(
    __name__,
    title="Sharp Noisy Binary Search with Monotonic Probabilities",
    arxiv="2311.00840",
    tags=["binary search", "noisy search", "flaky bisect", "threshold", "psychometrics", "dose finding", "channel capacity", "active learning"],
    source="derived",
    says="""Coins are sorted by an unknown probability of heads; the task is to find where it crosses a target within epsilon. The flips needed are log2 of the number
    of coins over the capacity of the channel that answers heads with target - epsilon or target + epsilon, plus terms of lower order. A search that flips the
    coin which tells most under a posterior over the crossing comes close to that.""",
    notes="""The abstract's rate is the paper's; the capacity is standard. The search for general monotone coins (posterior search as if coins had two levels, then a
    tested search among the medians that it passed through) is ours: its coverage is measured, not proved. It stops the posterior search at 1 - delta/2;
    a few runs in a hundred go on to the tests, whose Hoeffding numbers of flips raise the mean by a tenth to a third.""",
)

TARGET = probability(above=True, below=True, typical=(0.3, 0.7), doc="probability of heads to be crossed", example=0.5)
EPSILON = positive(high=0.5, below=True, typical=(0.05, 0.25), doc="tolerance around the target", example=0.1)
COINS = count("coins", typical=(1, 200), example=1000)
DELTA = probability(above=True, below=True, typical=(0.01, 0.5), doc="probability of failure", example=0.05)
INSIDE = {"target and epsilon must keep target - epsilon and target + epsilon between 0 and 1": lambda target, epsilon: target - epsilon > 0 and target + epsilon < 1}


def relative_entropy(xp, p, q):
    """Bits by which a coin of probability p exceeds the code for q."""
    return (p * xp.log(p / q) + (1 - p) * xp.log1p((q - p) / (1 - q))) / math.log(2)


def entropy(p):
    return -(p * math.log2(p) + (1 - p) * math.log2(1 - p))


def information(q, target, epsilon):
    """Bits that one flip tells about a coin that is high with probability q."""
    xp, q, low, high = arrays(q, target - epsilon, target + epsilon)
    heads = low + q * (high - low)
    return (1 - q) * relative_entropy(xp, low, heads) + q * relative_entropy(xp, high, heads)


@paper.law(r"C = \max_q H((1-q)a + qb) - (1-q)H(a) - qH(b),\quad a, b = \tau \mp \epsilon", requires=INSIDE, closed_form=True, gives={"bits": 0.0290494, "query_level": 0.5})
def search_capacity(target: TARGET, epsilon: EPSILON) -> record(bits=nonnegative("bits", high=1), query_level=probability()):
    """Capacity of one flip in bits, and the probability of being high that a coin should have to be flipped."""
    xp, target, epsilon = arrays(target, epsilon)
    low, high, entr = target - epsilon, target + epsilon, special(xp, "entr")
    slope = (entr(high) + entr(1 - high) - entr(low) - entr(1 - low)) / (2 * epsilon)
    # the informations of the two answers agree at this level; they are stationary there, so its rounding does not hurt the capacity
    level = (1 / (1 + xp.exp(slope)) - low) / (2 * epsilon)
    return {"bits": information(level, target, epsilon), "query_level": level}


@paper.bound(r"E[\text{flips}] \ge \frac{(1-\delta)\lg(n+1) - 1}{C}", assumes=["Fano's inequality on coins that are all at target -+ epsilon."], requires=INSIDE, closed_form=True)
def flips_lower(coins: COINS, target: TARGET, epsilon: EPSILON, delta: DELTA) -> nonnegative("flips"):
    """Expected flips that every search needs which fails with probability at most delta."""
    xp, coins, delta = arrays(coins, delta)
    bits = (1 - delta) * xp.log2(coins + 1) - 1
    return xp.where(bits > 0, bits, 0.0) / search_capacity(target, epsilon)["bits"]


@paper.law(r"\frac{\lg(n+1) + \lg(1/\delta)}{C}", requires=INSIDE, closed_form=True)
def flips_estimate(coins: COINS, target: TARGET, epsilon: EPSILON, delta: DELTA) -> nonnegative("flips"):
    """Flips that suffice to first order."""
    xp, coins, delta = arrays(coins, delta)
    return (xp.log2(coins + 1) - xp.log2(delta)) / search_capacity(target, epsilon)["bits"]


def most_informative(high, level, tells):
    """The coin whose flip tells most: information is concave in the probability of being high, so it is one of the two around the best level."""
    after = int(np.searchsorted(high, level))
    return max((max(after - 1, 0), min(after, len(high) - 1)), key=lambda coin: tells(float(high[coin])))


def nearest_level(high, level, tells):
    """The coin whose probability of being high is nearest to the best level."""
    return int(np.argmin(np.abs(high - level)))


def posterior_search(toss, coins, target, epsilon, delta, slack, choose):
    """Flip by the posterior over how many coins are low; the posterior at the end, the medians passed through, and whether it is sure."""
    capacity = search_capacity(target, epsilon)
    bits, level, low, high = float(capacity["bits"]), float(capacity["query_level"]), target - epsilon, target + epsilon
    rise = (entropy(high) - entropy(low)) / (high - low)
    weights, medians = np.full(coins + 1, 1 / (coins + 1)), []
    above = np.cumsum(weights)  # probability that coin j is high: that at most j coins are low
    for _ in range(math.ceil(((1 + slack) * math.log2(coins + 1) + 2 * math.log2(2 / delta)) / bits)):
        coin = choose(above[:-1], level, lambda q: entropy(low + q * (high - low)) - rise * q * (high - low))
        heads = toss(coin, 1)
        weights[: coin + 1] *= high if heads else 1 - high
        weights[coin + 1 :] *= low if heads else 1 - low
        weights /= weights.sum()
        above = np.cumsum(weights)
        medians.append(min(int(np.searchsorted(above, 0.5)), coins))
        if weights.max() > 1 - delta / 2:
            return weights, medians, True
    return weights, medians, False


def search(flip, coins, target, epsilon, delta, slack, seed, choose):
    rng, flips = np.random.default_rng(seed), 0

    def toss(coin, times):
        """Heads in some flips of one coin."""
        nonlocal flips
        flips += times
        return sum(bool(flip(coin)) for _ in range(times)) if callable(flip) else int(rng.binomial(times, flip[coin]))

    weights, medians, sure = posterior_search(toss, coins, target, epsilon, delta, slack, choose)
    if sure:
        return {"low_count": int(np.argmax(weights)), "flips": flips, "stage": 1}
    candidates = np.unique(np.quantile(medians, np.linspace(0, 1, 3 * math.ceil(1 / slack)), method="nearest"))
    repeats = math.ceil(math.log(4 * math.ceil(math.log2(len(candidates) + 1)) / delta) / (2 * epsilon**2))  # Hoeffding for each of the tests
    first, last = 0, len(candidates) - 1
    while first < last:
        middle = (first + last) // 2
        crossed = toss(int(candidates[middle]), repeats) >= target * repeats
        first, last = (first, middle) if crossed else (middle + 1, last)
    return {"low_count": int(candidates[first]), "flips": flips, "stage": 2}


@paper.algorithm(r"w_i \propto w_i\,P(\text{flip} \mid i \text{ coins low}),\quad \text{flip } \arg\max_j I(\pi_j)", requires=INSIDE)
def noisy_search(
    flip: either(
        function("index -> 0 or 1"),
        vector("coins", of=probability(), order="nondecreasing"),
        doc="flips the coin of a 0-based index, or the probabilities of heads, then flips are simulated",
        example=[0.1, 0.2, 0.3, 0.35, 0.6, 0.7, 0.8, 0.9],
    ),
    coins: count("coins", typical=(1, 200), example=8),
    target: TARGET,
    epsilon: EPSILON,
    delta: DELTA,
    *,
    slack: positive(typical=(0.1, 1), doc="extra share of flips allowed to the posterior search before candidates are tested") = 0.3,
    seed: seed() = 0,
) -> record(low_count=count("coins", low=0), flips=count("flips"), stage=integer(low=1, high=2, doc="1: the posterior became sure; 2: after the tests of candidates")):
    """How many of the sorted coins lie below the target, by a Bayesian search that needs few flips."""
    return search(flip, coins, target, epsilon, delta, slack, seed, most_informative)


@paper.measure(
    r"p_k < \tau + \epsilon \ \text{ and } \ p_{k+1} > \tau - \epsilon",
    requires={"low_count must be at most the number of coins": lambda low_count, probabilities: low_count <= len(probabilities)},
)
def search_valid(
    probabilities: vector("n", of=probability(), order="nondecreasing", example=[0.1, 0.2, 0.45, 0.6, 0.9]),
    low_count: count("coins", low=0, typical=(0, 4), example=3),
    target: TARGET,
    epsilon: EPSILON,
) -> flag():
    """Whether a count of low coins is a right answer within epsilon."""
    below, above = np.concatenate([[0.0], probabilities])[low_count], np.concatenate([probabilities, [1.0]])[low_count]
    return bool(below < target + epsilon and above > target - epsilon)


def symmetric_capacity(target, epsilon):
    return search_capacity(0.5, epsilon)


def even_level(target, epsilon):
    return {"bits": information(0.5, target, epsilon), "query_level": 0.5}


@paper.trial(Identity(rtol=1e-9), of=[search_capacity], controls={"capacity at target 1/2": symmetric_capacity, "query level 1/2": even_level}, quick=30, full=1000)
def numeric_capacity(draw, claim):
    """The closed form is the maximum of the mutual information written with entropies, and at its level both answers tell equally much (the optimality condition)."""
    from mpmath import findroot, log, mp, mpf

    target = draw.uniform(0.05, 0.95)
    epsilon = draw.log_uniform(1e-3, 0.99) * min(target, 1 - target)
    with mp.workdps(40):
        low, high = mpf(target) - mpf(epsilon), mpf(target) + mpf(epsilon)

        def entropy(p):
            return -(p * log(p) + (1 - p) * log(1 - p)) / log(2)

        def mutual(q):
            return entropy((1 - q) * low + q * high) - (1 - q) * entropy(low) - q * entropy(high)

        best = findroot(lambda q: mp.diff(mutual, q), (mpf("0.4"), mpf("0.6")), tol=1e-25)
        found = claim(target, epsilon)
        return [float(mutual(best)), float(best)], [found["bits"], found["query_level"]], {"target": target, "epsilon": epsilon}


def two_levels(rng, coins, target, epsilon):
    return np.where(np.arange(coins) < rng.integers(coins + 1), target - epsilon, target + epsilon)


def plateau(rng, coins, target, epsilon):
    first, last = np.sort(rng.integers(coins + 1, size=2))
    return np.select([np.arange(coins) < first, np.arange(coins) < last], [target - epsilon, target], target + epsilon)


FAMILIES = {
    "two levels": two_levels,
    "plateau at the target": plateau,
    "linear": lambda rng, coins, target, epsilon: np.linspace(0, 1, coins),
    "uniform random": lambda rng, coins, target, epsilon: np.sort(rng.uniform(size=coins)),
}


def sure_at_half(flip, coins, target, epsilon, delta, *, seed):
    return search(flip, coins, target, epsilon, 0.99, 0.3, seed, most_informative)


def crossing_off_by_one(flip, coins, target, epsilon, delta, *, seed):
    found = noisy_search(flip, coins, target, epsilon, delta, seed=seed)
    return {**found, "low_count": min(found["low_count"] + 1, coins)}


@paper.trial(
    Coverage(at_most=0.1, detect=0.3),
    of=[noisy_search, search_valid],
    controls={"stops at a posterior of one half": sure_at_half, "one coin too many": crossing_off_by_one},
    quick=130,
    full=1500,
)
def failures(draw, claim, effort):
    """On coins of two levels, with a plateau at the target, linear and random, the answer is wrong with probability at most delta = .1."""
    coins, epsilon = draw.choice([(10, 0.25), (40, 0.25)] if effort == "quick" else [(40, 0.25), (300, 0.1)])
    target, seed, failed = draw.choice([0.5, 0.3]), int(draw.rng.integers(2**62)), {}
    for name, family in FAMILIES.items():
        probabilities = family(draw.rng, coins, target, epsilon)
        failed[name] = not search_valid(probabilities, claim(probabilities, coins, target, epsilon, 0.1, seed=seed)["low_count"], target, epsilon)
    return failed


def flips_of(claim, rng, coins, target, epsilon, delta, runs):
    return [claim(two_levels(rng, coins, target, epsilon), coins, target, epsilon, delta, seed=int(rng.integers(2**62)))["flips"] for _ in range(runs)]


def repeated_majority(flip, coins, target, epsilon, delta, *, seed):
    """Binary search with enough flips of each coin for a test that is right."""
    rng, first, last, flips = np.random.default_rng(seed), 0, coins, 0
    repeats = math.ceil(math.log(2 * math.log2(coins + 1) / delta) / (2 * epsilon**2))
    while first < last:
        middle, flips = (first + last) // 2, flips + repeats
        first, last = (first, middle) if rng.binomial(repeats, flip[middle]) >= target * repeats else (middle + 1, last)
    return {"low_count": first, "flips": flips, "stage": 1}


def locking_rule(flip, coins, target, epsilon, delta, *, seed):
    return search(flip, coins, target, epsilon, delta, 3.0, seed, nearest_level)


@paper.trial(Guarantee(), of=[noisy_search], controls={"nearest to the best level": locking_rule, "majority of repeated flips": repeated_majority}, quick=1, full=10)
def thrift(draw, claim):
    """Coins of two levels take at most 1.6 lg(n + 1) / C flips in the mean, far below half of what repeated majorities take."""
    target, epsilon, coins = 0.05, 0.04, 300
    spent = Estimate.of(flips_of(claim, draw.rng, coins, target, epsilon, 0.1, 40))
    return spent, 1.6 * math.log2(coins + 1) / search_capacity(target, epsilon)["bits"]


@paper.trial(Rate(within=0.1, relative=True, axes="linear"), of=[noisy_search, search_capacity], controls={"majority of repeated flips": repeated_majority}, quick=2, full=20)
def slope_of_flips(draw, claim):
    """Mean flips times capacity grow by one for each doubling of the number of coins."""
    target, epsilon = draw.choice([(0.5, 0.45), (0.45, 0.4), (0.5, 0.4)])
    sizes = np.repeat(2.0 ** np.arange(2, 14, 2), 200)
    bits = search_capacity(target, epsilon)["bits"]
    return np.log2(sizes + 1), [bits * flips_of(claim, draw.rng, int(n), target, epsilon, 0.1, 1)[0] for n in sizes], 1.0


BOUNDS = {"lower": flips_lower, "estimate": flips_estimate}


def one_flip_a_bit(coins, target, epsilon, delta):
    return np.log2(coins + 1) - np.log2(delta)


@paper.trial(
    Guarantee(),
    of=[flips_lower, flips_estimate],
    claim=BOUNDS,
    controls={"lg(n+1) + lg(1/delta) as lower bound": {**BOUNDS, "lower": flips_estimate}, "no capacity": {**BOUNDS, "estimate": one_flip_a_bit}},
    quick=3,
    full=60,
)
def between_bounds(draw, bounds):
    """The search spends more than the information bound and less than the first-order estimate on coins of two levels."""
    coins, target, epsilon = draw.choice([50, 200, 800]), draw.uniform(0.3, 0.7), draw.uniform(0.12, 0.25)
    spent = Estimate.of(flips_of(noisy_search, draw.rng, coins, target, epsilon, 0.1, 80))
    lower, estimate = (float(bounds[name](coins, target, epsilon, 0.1)) for name in ("lower", "estimate"))
    sides = Estimate([lower, spent.value], [0.0, spent.error]), Estimate([spent.value, estimate], [spent.error, 0.0])
    return *sides, {"coins": coins, "target": target, "epsilon": epsilon}


@paper.finding(
    """Flipping the coin whose probability of being high is nearest to the best level, as the capacity's maximiser suggests, can lock below the posterior peak:
    at target .05 and epsilon .04 it takes several times the flips of choosing by information, while both rules agree at target 1/2."""
)
def nearest_level_locks():
    means = {}
    for name, target, epsilon in (("off_centre", 0.05, 0.04), ("centre", 0.5, 0.1)):
        for rule, claim in (("nearest", locking_rule), ("information", noisy_search)):
            means[f"{name}_{rule}"] = float(np.mean(flips_of(claim, np.random.default_rng(0), 1000, target, epsilon, 0.1, 8)))
    return {"holds": means["off_centre_nearest"] > 2 * means["off_centre_information"] and means["centre_nearest"] < 1.3 * means["centre_information"], **means}


@paper.finding(
    """The confidence term lg(1/delta) / C of the first-order estimate is generous: once the crossing is located, being sure costs lg(1/delta) over the relative
    entropy between the two levels, about four times less near target 1/2."""
)
def confidence_is_cheap():
    coins, target, epsilon, delta = 500, 0.5, 0.2, 1e-6
    spent = Estimate.of(flips_of(noisy_search, np.random.default_rng(0), coins, target, epsilon, delta, 60))
    bits, divergence = float(search_capacity(target, epsilon)["bits"]), float(relative_entropy(np, target + epsilon, target - epsilon))
    refined = math.log2(coins + 1) / bits + math.log2(2 / delta) / divergence
    estimate = float(flips_estimate(coins, target, epsilon, delta))
    return {
        "holds": bool(abs(spent.value - refined) < abs(spent.value - estimate) / 3),
        "flips": float(spent.value),
        "error": float(spent.error),
        "refined": refined,
        "estimate": estimate,
    }
