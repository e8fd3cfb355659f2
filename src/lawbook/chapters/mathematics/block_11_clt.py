"""How the number of blocks 11 in binary changes when a constant is added: its law, exactly, and the Gaussian that it comes to."""

import math
from functools import lru_cache

import numpy as np

from lawbook.contract import Paper, choice, count, integer, positive, probability, record, vector
from lawbook.trials import Identity, Inequality, Rate

paper = Paper(
    __name__,
    title="Block occurrences in the binary expansion",
    arxiv="2309.00142",
    tags=["binary expansion", "digital functions", "carries", "cusick conjecture", "central limit theorem", "natural density"],
    source="derived",
    says="""Let r(n) count the places, overlaps included, where the binary expansion of n has two ones in a row. Adding a fixed t changes r by an amount whose law over all n
    exists as natural densities, has mean 0, and a variance of the order of the number of blocks of ones in t. As that number grows the densities come to the Gaussian of the
    same variance, uniformly in the value of the change.""",
    notes="""The law is computed by a recursion from t to 2t and 2t + 1, derived here: given the carry into a position and the bits of n and n + t below it, what is still to come
    depends on the higher digits of t alone. It is checked by counting. The published rate, of the type (ln N)^2 / N with constants left open, is quoted from memory.""",
)

T = count(typical=(1, 4096), doc="what is added; up to about 1000 binary digits", example=11)
BEYOND = 66  # digits above those of t that are followed: a carry survives each with probability 1/2
STATES = np.array([(c, n, m) for c in (0, 1) for n in (0, 1) for m in (0, 1)])  # carry, previous bit of n, previous bit of n + t


def two_ones(before_n, before_m, n, m):
    return (before_m & m) - (before_n & n)


def one(before_n, before_m, n, m):
    return m - n


@lru_cache(maxsize=16)
def moves(gain, digit):
    """For both values of the next bit of n: the state that follows each state, and what the difference gains."""
    carry, before_n, before_m = STATES.T
    found = []
    for n in (0, 1):
        total = n + digit + carry
        found.append((4 * (total // 2) + 2 * n + total % 2, gain(before_n, before_m, n, total % 2)))
    return found


def earlier(ahead, gain, digit):
    """Law, from each state, of what this position and those above bring, given that of those above."""
    columns = np.arange(1, ahead.shape[1] - 1)
    laws = np.zeros_like(ahead)
    for after, gained in moves(gain, digit):
        laws[:, 1:-1] += 0.5 * ahead[after[:, None], columns - gained[:, None]]
    return laws


@lru_cache(maxsize=16)
def above(gain, positions):
    """The same for positions above those of t."""
    laws = np.zeros((8, 2 * positions + 1))
    laws[:, positions] = 1
    for _ in range(positions):
        laws = earlier(laws, gain, 0)
    return laws


def law(t, gain=two_ones, beyond=BEYOND):
    """(k, densities) of the change of a digital function, which counts `gain` at each position, when t is added."""
    digits = bin(t)[2:]
    reach = beyond + len(digits) + 1
    laws = np.pad(above(gain, beyond), ((0, 0), (len(digits) + 1, len(digits) + 1)))
    for digit in digits:
        laws = earlier(laws, gain, int(digit))
    return np.arange(-reach, reach + 1), laws[0]


@paper.law(r"c_t(k) = \operatorname{dens}\{n : r(n+t) - r(n) = k\},\quad r(n) = \#\{i : n_i = n_{i+1} = 1\}")
def block_difference_distribution(t: T) -> record(k=vector("n", of=integer()), probability=vector("n", of=probability())):
    """Densities of the values of r(n+t) - r(n), to some 1e-19; they fall off geometrically below, and values under that are left out."""
    k, densities = law(t)
    inside = np.flatnonzero(densities)
    kept = slice(inside[0], inside[-1] + 1)
    return {"k": k[kept], "probability": densities[kept]}


@paper.measure(r"c_t(k) = \operatorname{dens}\{n : r(n+t) - r(n) = k\}")
def block_difference_density(t: T, k: integer(typical=(-8, 8), doc="the change of r", example=1)) -> probability():
    """Natural density of the numbers n for which adding t changes the number of blocks 11 by k."""
    values, densities = law(t)
    return float(densities[values == k].sum())


@paper.measure(r"v_t = \sum_k k^2 c_t(k)", gives=4.3125)
def block_variance(t: T) -> positive():
    """Variance of r(n+t) - r(n) over all n, whose mean is 0."""
    k, densities = law(t)
    return float(k**2 @ densities)


def gap(k, densities, variance):
    return float(np.abs(densities - np.exp(-(k**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)).max())


@paper.limit(r"\sup_k \left|c_t(k) - \frac{e^{-k^2/(2v_t)}}{\sqrt{2\pi v_t}}\right| \to 0 \quad\text{as the number of blocks of ones in } t \text{ grows}")
def block_gaussian_gap(t: T) -> probability():
    """Largest distance between the densities of r(n+t) - r(n) and the Gaussian density of the same variance."""
    k, densities = law(t)
    return gap(k, densities, k**2 @ densities)


@paper.measure(r"\operatorname{dens}\{n : r_w(n+t) \ge r_w(n)\} > \tfrac12 \quad\text{(conjectured)}")
def cusick_probability(t: T, *, block: choice("11", "1", doc="what is counted; 1 is the sum of digits, of Cusick's conjecture") = "11") -> probability():
    """Density of the numbers n in which adding t makes the block no rarer."""
    k, densities = law(t, one if block == "1" else two_ones)
    return float(min(densities[k >= 0].sum(), 1.0))


def previous_bit_forgotten(t):
    """The previous bit of n stands in for that of n + t."""
    k, densities = law(t, forgetful)
    return {"k": k, "probability": densities}


def forgetful(before_n, before_m, n, m):
    return (before_n & m) - (before_n & n)


def no_carry_beyond(t):
    k, densities = law(t, beyond=0)
    return {"k": k, "probability": densities}


@paper.trial(
    Identity(rtol=0, atol=1),
    of=[block_difference_distribution, block_difference_density, block_variance, cusick_probability],
    controls={"previous bit of n + t forgotten": previous_bit_forgotten, "no carry beyond t": no_carry_beyond},
    quick=20,
    full=100,
)
def counting_agrees(draw, claim, effort):
    """Over the n below 2^16 (2^20) the values come as often as the densities say, but for the 2t numbers n whose carry comes near the end; the mean is 0 to 1e-13."""
    size, t = 2 ** (16 if effort == "quick" else 20), draw.integer(1, 255)
    n = np.arange(size, dtype=np.int64)
    change = sum(sign * np.bitwise_count(m & m >> 1).astype(int) for sign, m in ((1, n + t), (-1, n)))
    ones = np.bitwise_count(n + t).astype(int) - np.bitwise_count(n)
    told = claim(t)
    values, densities = np.asarray(told["k"]), np.asarray(told["probability"])
    counted = [(change == k).sum() for k in values]
    some = draw.integer(-4, 4)
    off = size / (2 * t)  # one unit is what the edge can change
    left = [*np.multiply(counted, off / size), (change == some).mean() * off, (change >= 0).mean() * off, (ones >= 0).mean() * off, 0, 0]
    right = [
        *densities * off,
        block_difference_density(t, some) * off,
        cusick_probability(t) * off,
        cusick_probability(t, block="1") * off,
        values @ densities * 1e13,
        (values**2 @ densities - block_variance(t)) * 1e12,
    ]
    return np.array(left, float), np.array(right, float), {"t": t}


def repeated(pattern, times):
    return int(pattern * times, 2)


def variance_of_digit_sum(t):
    """The Gaussian of the variance that the sum of digits has."""
    k, densities = law(t)
    values, ones = law(t, one)
    return gap(k, densities, values**2 @ ones)


def previous_bit_forgotten_gap(t):
    k, densities = law(t, forgetful)
    return gap(k, densities, block_variance(t))


@paper.trial(
    Rate(within=0.1, one_sided=True),
    of=[block_gaussian_gap],
    controls={"variance of the sum of digits": variance_of_digit_sum, "previous bit of n + t forgotten": previous_bit_forgotten_gap},
    quick=24,
    full=200,
)
def gap_falls_with_blocks(draw, claim):
    """The distance to the Gaussian falls at least like 1/N with the number N of blocks of ones, for three periodic families and for random blocks of up to three digits."""
    family = draw.choice(["01", "0011", "00111", ""])
    sizes = np.array([8, 16, 32])
    gaps = []
    for blocks in sizes:
        lengths = draw.rng.integers(1, 4, (blocks, 2))
        t = repeated(family, blocks) if family else int("".join("0" * a + "1" * b for a, b in lengths), 2)
        gaps.append(claim(t))
    return sizes, np.array(gaps) / gaps[0], -1.0


def more_often_strictly(t, *, block="11"):
    k, densities = law(t, one if block == "1" else two_ones)
    return float(densities[k > 0].sum())


@paper.trial(Inequality(search=0), of=[cusick_probability], controls={"ties do not count": more_often_strictly}, quick=1, full=1)
def adding_rarely_loses(draw, claim, effort):
    """The block is no rarer in n + t than in n for more than half of all n, for both blocks: 200 random t up to 4096, or all of them."""
    numbers = draw.rng.integers(1, 4097, 200) if effort == "quick" else range(1, 4097)
    found = [claim(int(t), block=block) for t in numbers for block in ("11", "1")]
    return np.nextafter(0.5, 1), np.array(found), {"least": min(found)}


@paper.finding(
    """Up to its logarithms the published type of rate, (ln N)^2 / N, is sharp in general and not for the simplest t. For the digits 01 and 0011 the third cumulant stays bounded
    and the gap falls faster, like N^(-3/2) for 0011; for 00111 the third cumulant grows in proportion to N, and the gap times N stays near .022."""
)
def third_cumulant_sets_the_rate():
    sizes = [40, 80, 160]
    gaps, thirds = {}, {}
    for pattern in ("01", "0011", "00111"):
        laws = [law(repeated(pattern, n)) for n in sizes]
        thirds[pattern] = [float(k.astype(float) ** 3 @ densities) for k, densities in laws]
        gaps[pattern] = [block_gaussian_gap(repeated(pattern, n)) for n in sizes]
    scaled = np.array(gaps["00111"]) * sizes
    bounded = all(np.ptp(thirds[pattern]) < 1e-6 for pattern in ("01", "0011"))
    holds = bounded and np.ptp(scaled) < 0.1 * scaled[0] and thirds["00111"][2] > 3.8 * thirds["00111"][0] and all(gaps[p][0] > 7 * gaps[p][2] for p in ("01", "0011"))
    return {"holds": bool(holds), "blocks": sizes, **{f"gap_{p}": g for p, g in gaps.items()}, **{f"third_cumulant_{p}": c for p, c in thirds.items()}}
