"""Private running counts from shuffled batches: the best hierarchy of batch sizes for so many concurrent shufflers, its error, and the counter itself."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, count, nonnegative, positive, probability, record, seed, vector
from lawbook.trials import Estimate, Guarantee, Identity, Rate

paper = Paper(
    __name__,
    title="Concurrent Shuffle Differential Privacy Under Continual Observation",
    arxiv="2301.12535",
    tags=["differential privacy", "shuffle model", "continual observation", "counting", "hierarchy", "streaming"],
    source="derived",
    says="""A shuffler hides who sent what within a batch, so that the sum of a batch is released with the same noise however large it is. For a running count one batch size must
    balance users who still wait against noise that adds up, which gives an error of n^(1/3). With k shufflers at work at once, of different batch sizes, a hierarchy
    brings it to n^(1/(2k+1)), and with about log n of them to a polylogarithm.""",
    notes="""The exponents are the abstract's; the hierarchy and its constants are derived here. The noise of a batch is an argument: nothing here certifies an epsilon or a delta.
    As every user takes part in k batches, the noise that a given total privacy asks for grows with k: like k by basic composition, like its root by advanced composition.
    Where the balance would ask for batches below one user, the ratio stops at n^(1/k), which is then the optimum: a larger one only adds noise. The ratio is never below
    2.""",
)

SAMPLES = count("users", typical=(100, 1e8), doc="n: length of the stream", example=1_000_000)
SHUFFLERS = count("shufflers", typical=(1, 20), high=1000, doc="k: shufflers that run at once, each with a batch size of its own", example=2)
NOISE = positive(typical=(0.1, 30), doc="s: standard deviation of the noise of one released batch sum", example=1.0)
SEARCHED = 60  # shufflers: beyond 2 ln(n) more of them only add noise


@paper.law(
    r"\min_r\ \frac{n}{r^k} + s\sqrt{k r},\quad r^{k+1/2} = \frac{2 \sqrt{k}\, n}{s},\quad \text{error} = \Theta(n^{1/(2k+1)})",
    assumes=["Batch sums are released with noise that does not depend on the size of the batch."],
)
def counter_error(samples: SAMPLES, shufflers: SHUFFLERS, noise: NOISE) -> record(
    error=positive("users", doc="users who wait, at most, and the root mean square of the noise, at most, together"),
    ratio=positive(low=2, above=False, doc="r: of each batch size to the next smaller one"),
    smallest_batch=positive("users", low=1, above=False),
    exponent=probability(doc="the error grows like n to this power"),
):
    """Worst error of the best hierarchy of batch sizes, with the hierarchy that has it."""
    n, k, s = float(samples), shufflers, noise
    balanced = (2 * math.sqrt(k) * n / s) ** (1 / (k + 0.5))
    ratio = max(2.0, min(balanced, n ** (1 / k)))
    smallest = max(1.0, math.exp(math.log(n) - k * math.log(ratio)))
    return {"error": smallest + s * math.sqrt(k * ratio), "ratio": ratio, "smallest_batch": smallest, "exponent": 1 / (2 * k + 1)}


@paper.law(r"\min\{k : \text{error}(n, k, s) \le \tau\}", sample=lambda rng: {"samples": int(10 ** rng.uniform(2, 8)), "target_error": 10 ** rng.uniform(1.5, 3), "noise": 2.0})
def shufflers_needed(samples: SAMPLES, target_error: positive("users", typical=(10, 1000), doc="error that is wanted", example=50.0), noise: NOISE) -> count(
    "shufflers", high=SEARCHED
):
    """Smallest number of concurrent shufflers whose best hierarchy counts within the error that is wanted."""
    errors = [counter_error(samples, k, noise)["error"] for k in range(1, SEARCHED + 1)]
    enough = [k for k, error in enumerate(errors, 1) if error <= target_error]
    if not enough:
        raise DomainError(f"target_error must be at least {min(errors):.6g}, which {int(np.argmin(errors)) + 1} shufflers reach; it was {target_error:.6g}.")
    return enough[0]


def sample_stream(rng):
    return {
        "values": rng.random(int(rng.integers(1, 60))),
        "shufflers": int(rng.integers(1, 5)),
        "noise": float(rng.uniform(0, 3)),
        "smallest_batch": int(rng.integers(1, 6)),
        "ratio": int(rng.integers(2, 5)),
    }


@paper.algorithm(
    r"\hat c_t = \sum_{B \in \mathcal B(\lfloor t/b \rfloor b)} \Big(\sum_{i \in B} x_i + \mathcal N(0, s^2)\Big),\quad |B| \in \{b, b r, \dots, b r^{k-1}\}", sample=sample_stream
)
def shuffle_counter(
    values: vector("n", of=probability(), most=40, doc="what each user reports", example=[1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0]),
    shufflers: SHUFFLERS,
    noise: nonnegative(typical=(0, 10), doc="standard deviation of the noise of one released batch sum", example=0.5),
    *,
    smallest_batch: count("users", typical=(1, 10), doc="b: batch size of the fastest shuffler", example=2),
    ratio: count(low=2, typical=(2, 10), doc="r: of each batch size to the next smaller one", example=2),
    seed: seed() = 0,
) -> record(estimates=vector("n"), reported=vector("n", of=count("users", low=0), doc="users whose batches are complete at that time")):
    """Running counts after each user: the complete batches, largest first, cover all users but those of the unfinished smallest batch."""
    rng, values = np.random.default_rng(seed), np.asarray(values, float)
    n = len(values)
    reported = np.arange(1, n + 1) // smallest_batch * smallest_batch
    estimates = np.concatenate([[0.0], np.cumsum(values)])[reported]
    size = smallest_batch
    for level in range(1, shufflers + 1):
        if size > n:
            break
        total = np.concatenate([[0.0], np.cumsum(noise * rng.standard_normal(n // size))])
        covered = 0 if level == shufflers else reported // (size * ratio) * ratio  # batches of this size that lie in larger complete ones
        estimates = estimates + total[reported // size] - total[covered]
        size *= ratio
    return {"estimates": estimates, "reported": reported}


def batches_used(reported, shufflers, smallest_batch, ratio):
    """How many released sums make up each estimate, counted greedily from the largest batch size down."""
    left, used = np.asarray(reported), 0
    for level in reversed(range(shufflers)):
        size = smallest_batch * ratio**level
        used, left = used + left // size, left % size
    return used


def squared_error(samples, shufflers, smallest_batch, ratio, variance):
    """Exact mean square over time of the error on fair bits: m waiting users are off by m/2 on average with variance m/4, every batch adds its noise."""
    t = np.arange(1, samples + 1)
    waiting = t % smallest_batch
    return float(np.mean(waiting**2 / 4 + waiting / 4 + variance * batches_used(t - waiting, shufflers, smallest_batch, ratio)))


def balanced(a, k):
    """(b, r, variance of a batch's noise) for a stream of a^(2k+1)."""
    return a, a**2, 1.0


def half_power(a, k):
    return round(a ** ((2 * k + 1) / 2)), a**2, 1.0


def noise_of_the_batch(a, k):
    return a, a**2, float(a)


def growth(draw, claim, k, a):
    samples = a ** (2 * k + 1)
    b, r, variance = claim(a, k)
    return [samples], [math.sqrt(squared_error(samples, k, b, r, variance))], counter_error(samples, k, 1.0)["exponent"]


@paper.trial(
    Rate(within=0.01),
    of=[counter_error],
    claim=balanced,
    controls={"batches of n^(1/2)": half_power, "noise with the variance of the batch size": noise_of_the_batch},
    quick=7,
    full=7,
)
def one_shuffler(draw, claim):
    """The exact root-mean-square error of one shuffler grows like n^(1/3)."""
    return growth(draw, claim, 1, round(20 * 4 ** draw.uniform()))


@paper.trial(Rate(within=0.01), of=[counter_error], claim=balanced, controls={"noise with the variance of the batch size": noise_of_the_batch}, quick=7, full=7)
def two_shufflers(draw, claim):
    """The exact root-mean-square error of two shufflers grows like n^(1/5)."""
    return growth(draw, claim, 2, draw.integer(7, 16))


def half_of_the_levels(values, shufflers, noise, **options):
    return shuffle_counter(values, max(shufflers // 2, 1), noise, **options)


def noise_that_grows(values, shufflers, noise, *, smallest_batch, **options):
    return shuffle_counter(values, shufflers, noise * math.sqrt(smallest_batch), smallest_batch=smallest_batch, **options)


@paper.trial(Identity(), of=[shuffle_counter], controls={"half of the shufflers": half_of_the_levels, "noise that grows with the batch": noise_that_grows}, quick=4, full=40)
def simulated_error(draw, claim):
    """The mean squared error of simulated counters is the exact one."""
    k, b, r = draw.integer(2, 4), draw.integer(3, 20), draw.integer(2, 12)
    n, s = min(b * r**k, 4000), draw.uniform(0.5, 5)
    errors = []
    for key in draw.rng.integers(2**60, size=400):
        bits = draw.rng.integers(0, 2, n)
        errors.append(np.mean((claim(bits, k, s, smallest_batch=b, ratio=r, seed=int(key))["estimates"] - np.cumsum(bits)) ** 2))
    return Estimate.of(errors), squared_error(n, k, b, r, s**2), {"shufflers": k, "batch": b, "ratio": r}


def one_batch_late(values, shufflers, noise, *, smallest_batch, **options):
    found = shuffle_counter(values, shufflers, noise, smallest_batch=smallest_batch, **options)
    late = np.maximum(found["reported"] - smallest_batch, 0)
    return {"estimates": np.concatenate([[0.0], np.cumsum(values)])[late], "reported": late}


def smallest_batches_only(values, shufflers, noise, **options):
    return shuffle_counter(values, 1, noise, **options)


@paper.trial(Guarantee(atol=1e-9), of=[shuffle_counter], controls={"a batch too late": one_batch_late, "smallest batches only": smallest_batches_only}, quick=40, full=1000)
def waiting_and_batches(draw, claim):
    """Without noise the count is off by the fewer than b users who wait; with it, by at most k r batches' noise at any time (counted with noises that add up as bits)."""
    k, b, r = draw.integer(2, 5), draw.integer(1, 6), draw.integer(2, 6)
    values = draw.rng.random(min(b * r**k, 600))
    clean = claim(values, k, 0.0, smallest_batch=b, ratio=r, seed=0)["estimates"]
    noises = [claim(values, k, 1.0, smallest_batch=b, ratio=r, seed=int(key))["estimates"] - clean for key in draw.rng.integers(2**60, size=50)]
    used = Estimate.of(np.square(noises))
    waiting = np.cumsum(values) - clean
    left = Estimate(np.concatenate([waiting, -waiting, used.value]), np.concatenate([0 * waiting, 0 * waiting, used.error]))
    return left, np.concatenate([np.full(len(values), b - 1), 0 * waiting, np.full(len(values), k * r)]), {"shufflers": k, "batch": b, "ratio": r}


def noise_forgotten(samples, shufflers, noise):
    r = max(2.0, (2 * math.sqrt(shufflers) * samples) ** (1 / (shufflers + 0.5)))
    return {"error": max(1.0, samples / r**shufflers) + noise * math.sqrt(shufflers * r)}


@paper.trial(
    Identity(rtol=1e-6),
    of=[counter_error, shufflers_needed],
    claim=(counter_error, shufflers_needed),
    controls={"ratio for noise 1": (noise_forgotten, shufflers_needed), "a shuffler fewer": (counter_error, lambda n, target, s: shufflers_needed(n, target, s) - 1)},
    quick=25,
    full=500,
)
def best_hierarchy(draw, claim):
    """The error is the least of b + s sqrt(k r) over all ratios r from 2 on with b = max(1, n/r^k), by numerical search; one shuffler fewer than needed misses the target."""
    from scipy.optimize import minimize_scalar

    n, s = draw.log_uniform(1e2, 1e9), draw.log_uniform(0.1, 30)

    def least(k):
        return min(
            minimize_scalar(lambda x: max(1.0, n / math.exp(k * x)) + s * math.sqrt(k * math.exp(x)), bounds=(math.log(2), high), method="bounded", options={"xatol": 1e-12}).fun
            for high in (max(math.log(n) / k, math.log(2) + 1e-12), 3 + math.log(n))
        )

    error, needed = claim
    errors = [least(k) for k in range(1, 13)]
    target = errors[0] - draw.uniform(0.01, 0.99) * (errors[0] - min(errors)) if min(errors) < errors[0] else 1.01 * errors[0]
    first = next(k for k, found in enumerate(errors, 1) if found <= target)
    return [*errors, first], [*(error(n, k, s)["error"] for k in range(1, 13)), needed(n, target, s)], {"samples": n, "noise": s}


@paper.finding(
    """More shufflers are not better without end. At fixed noise the error is least near ln n of them (14 at a million users) and grows beyond; at fixed total privacy, where
    basic composition makes the noise grow like k, four are best at a million users (error 42), and twenty (127) are worse than two (60).""",
)
def a_few_shufflers_are_best():
    fixed = [counter_error(10**6, k, 1.0)["error"] for k in range(1, 31)]
    composed = [counter_error(10**6, k, float(k))["error"] for k in range(1, 31)]
    best, best_composed = int(np.argmin(fixed)) + 1, int(np.argmin(composed)) + 1
    return {
        "holds": best == 14 and best_composed == 4 and composed[19] > 2 * composed[1],
        "best": best,
        "error": min(fixed),
        "best_composed": best_composed,
        "composed": composed[:5] + [composed[19]],
    }
