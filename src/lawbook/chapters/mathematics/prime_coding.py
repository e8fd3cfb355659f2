"""How much information the primes carry: the law of the number of prime factors, and codes for the prime indicator."""

import math

import numpy as np

from lawbook.contract import Paper, choice, count, integer, nonnegative, positive, probability, real, record, vector
from lawbook.numerics import arrays
from lawbook.numerics.sieves import distinct_primes, prime_flags
from lawbook.trials import Inequality

paper = Paper(
    __name__,
    title="On the impossibility of discovering a formula for primes using AI",
    arxiv="2308.10817",
    tags=["primes", "kolmogorov complexity", "erdos-kac", "entropy", "compression", "cramer model", "learnability"],
    source="derived",
    says="""Reads the primes through algorithmic probability and maximum entropy. An Erdos-Kac law for the number of prime factors comes out of the argument, and a prime coding
    theorem by which the indicator of the primes up to N has an expected complexity of pi(N) ln N, about N, so that no learning machine could find a formula.
    The law is a theorem; the coding claim does not hold for the primes, whose indicator a short program prints, nor in size for the random model that it is argued from.""",
    notes="""The variance of omega is ln ln N - 1.83568: that constant already contains Mertens' 0.26150, which other statements of the centring add once more (1.206 for a
    measured 1.103 at N = 1e7). The next terms, (gamma - 1)/ln N for the mean and 2.2424/ln N for the variance, come from the Selberg-Delange expansion of sum z^omega(n)
    and are included: they make the centring good at every N that can be sieved. The wording of the coding theorem is from memory.""",
)

WHEEL = count(high=30_030, typical=(1, 30), doc="only numbers without a common factor with it are coded")
MERTENS = 0.26149721284764278  # lim sum_{p <= N} 1/p - ln ln N
SPREAD = MERTENS - math.pi**2 / 6 - 0.45224742004106550  # less the sum of 1/p^2 over the primes
# second derivative at k = 0 of (z - 1)(gamma z - 1 + sum_p ln p z (z-1)/((p-1)(p-1+z))), z = e^k; 0.7553666... is the sum of ln p / (p (p-1))
NEXT = 3 * np.euler_gamma - 1 + 2 * 0.75536661083168

BITS = nonnegative("bits")


@paper.measure(r"\omega(n) = \#\{p \text{ prime} : p \mid n\},\quad n = 1, \dots, N")
def omega_table(limit: count(high=50_000_000, typical=(1, 30_000), doc="N", example=30)) -> vector("limit", of=integer(low=0)):
    """Number of distinct primes that divide each of the numbers from 1 to N, by a sieve."""
    return distinct_primes(limit)[1:]


@paper.law(
    r"\mathrm{E}\,\omega = \ln\ln N + 0.26150 - \frac{1-\gamma}{\ln N},\quad \mathrm{Var}\,\omega = \ln\ln N - 1.83568 + \frac{2.24240}{\ln N}",
    closed_form=True,
)
def erdos_kac_moments(limit: positive(low=100, typical=(100, 1e12), doc="N", example=1e6)) -> record(mean=real(), variance=positive()):
    """Mean and variance of the number of distinct prime factors of a number up to N, to errors of the order of 1/(ln N)^2."""
    xp, n = arrays(limit)
    log = xp.log(n)
    return {"mean": xp.log(log) + MERTENS - (1 - np.euler_gamma) / log, "variance": xp.log(log) + SPREAD + NEXT / log}


@paper.measure(r"\max_{k \le 12} \left|\frac{\#\{3 \le n \le N : \omega(n) \le k\}}{N-2} - \Phi\!\left(\frac{k + \frac12 - \mu_N}{\sigma_N}\right)\right|")
def erdos_kac_distance(limit: count(low=100, high=50_000_000, typical=(200, 30_000), doc="N", example=1_000_000)) -> probability():
    """Distance between the law of the number of prime factors and the normal law with its mean and variance."""
    moments = erdos_kac_moments(float(limit))
    return normal_distance(limit, moments["mean"], moments["variance"])


def normal_distance(limit, mean, variance, half=0.5):
    from scipy.special import ndtr

    below = np.cumsum(np.bincount(distinct_primes(limit)[3:], minlength=13))[:13] / (limit - 2)
    return float(np.abs(below - ndtr((np.arange(13) + half - mean) / np.sqrt(variance))).max())


def coprime(limit, wheel):
    """The numbers 3..N that have no factor in common with the wheel."""
    free = np.gcd(np.arange(wheel), wheel) == 1
    return np.flatnonzero(np.resize(free, limit + 1)[3:]) + 3


@paper.law(r"H = \sum_{3 \le n \le N,\ (n, w) = 1} h_2\!\left(\min\left(1, \frac{w}{\varphi(w) \ln n}\right)\right)")
def cramer_entropy(limit: count(low=3, high=50_000_000, typical=(200, 30_000), doc="N", example=1_000_000), *, wheel: WHEEL = 1) -> BITS:
    """Entropy of a random sequence with the density of the primes: each number prime with probability 1/ln n, times what the wheel leaves out."""
    from scipy.special import entr

    numbers = coprime(limit, wheel)
    share = (np.gcd(np.arange(wheel), wheel) == 1).mean()
    p = np.minimum(1, 1 / (share * np.log(numbers)))
    return float((entr(p) + entr(1 - p)).sum() / math.log(2))


def compressed_bits(indicator, method="lzma"):
    import bz2
    import lzma
    import zlib

    compress = {"lzma": lzma.compress, "zlib": lambda b: zlib.compress(b, 9), "bz2": bz2.compress}[method]
    return 8 * len(compress(np.packbits(indicator).tobytes()))


@paper.measure(r"8\,|\mathrm{compress}(X_N)|,\quad X_N = (1_{n\text{ prime}})_{3 \le n \le N,\ (n,w)=1}")
def compressed_prime_bits(
    limit: count(low=3, high=50_000_000, typical=(200, 30_000), doc="N", example=1_000_000), *, method: choice("lzma", "zlib", "bz2") = "lzma", wheel: WHEEL = 1
) -> BITS:
    """Size of the prime indicator, packed to bits and compressed by a general-purpose program; the container costs some 500 bits."""
    return compressed_bits(prime_flags(limit)[coprime(limit, wheel)], method)


def mertens_twice(limit):
    moments = erdos_kac_moments(limit)
    return {"mean": moments["mean"], "variance": moments["variance"] + MERTENS}


def mertens_forgotten(limit):
    return {"mean": erdos_kac_moments(limit)["mean"] - MERTENS, "variance": erdos_kac_moments(limit)["variance"]}


@paper.trial(
    Inequality(search=0),
    of=[erdos_kac_moments, omega_table],
    controls={"Mertens' constant twice in the variance": mertens_twice, "no Mertens constant": mertens_forgotten},
    quick=3,
    full=20,
)
def moments_converge(draw, claim, effort):
    """Mean and variance of a sieved table come to the law as the next term says, within 1/(ln N)^2 and 8/(ln N)^2; the table is checked by division."""
    limit = int(draw.log_uniform(5e5, 2e6 if effort == "quick" else 2e7))
    omega, law = omega_table(limit), claim(float(limit))
    n = draw.integer(2, limit)
    divided, left, p = 0, n, 2
    while left > 1:
        p = p if p * p <= left else left
        divided += left % p == 0
        while left % p == 0:
            left //= p
        p += 1
    gaps = [abs(omega.mean() - law["mean"]), abs(omega.astype(float).var() - law["variance"])]
    return [*gaps, abs(divided - omega[n - 1])], np.array([1, 8, 0]) / math.log(limit) ** 2, {"limit": limit, "n": n}


def without_half(limit):
    moments = erdos_kac_moments(float(limit))
    return normal_distance(limit, moments["mean"], moments["variance"], half=0)


@paper.trial(Inequality(search=0), of=[erdos_kac_distance], controls={"steps compared at their left ends": without_half}, quick=1, full=1)
def erdos_kac_converges(draw, claim, effort):
    """The distance to the normal law centred at ln ln N falls from each N to ten times as much, and with the finer centring it is below .02 from N = 10^4 on."""
    limits = [10**k for k in range(3, 7 if effort == "quick" else 8)]
    plain = [normal_distance(limit, math.log(math.log(limit)), math.log(math.log(limit))) for limit in limits[1:]]
    fine = [claim(limit) for limit in limits[1:]]
    return [*plain[1:], *fine], [*plain[:-1], *[0.02] * len(fine)], {"plain": plain, "fine": fine}


def shuffled(limit, *, wheel=1):
    """What a sequence without structure looks like: the same density, in random order."""
    return compressed_bits(np.random.default_rng(0).permutation(prime_flags(limit)[coprime(limit, wheel)]))


@paper.trial(Inequality(search=0), of=[compressed_prime_bits, cramer_entropy], controls={"indicator shuffled": shuffled}, quick=2, full=8)
def primes_are_not_random(draw, claim, effort):
    """The primes compress below the entropy of Cramer's model, and given the wheel mod 30 to within a tenth of the entropy that it leaves."""
    limit = int(draw.log_uniform(3e5, 1e6 if effort == "quick" else 1e7))
    found = [claim(limit, wheel=1), claim(limit, wheel=30), claim(limit, wheel=30)]
    return found, [cramer_entropy(limit), cramer_entropy(limit), 1.1 * cramer_entropy(limit, wheel=30)], {"limit": limit}


@paper.finding(
    """The indicator of the primes up to N does not have complexity N: a program of 73 characters prints it for every N, so its complexity is at most a constant and log2 N,
    and nothing about learnability follows from it."""
)
def a_short_program_prints_it():
    limit, program = 30_000, "[int(n>1 and all(n%d for d in range(2,int(n**.5)+1)))for n in range(N+1)]"
    printed = np.array(eval(program, {"N": limit}), bool)
    primes = prime_flags(limit)
    bits = 8 * len(program) + math.log2(limit)
    claimed = primes.sum() * math.log(limit)
    return {"holds": bool((printed == primes).all() and bits < claimed / 10), "program_bits": bits, "claimed_nats": float(claimed), "limit": limit}


@paper.finding(
    """Even for random primes of density 1/ln n the information is o(N), 0.397 N bits at N = 10^6, while pi(N) log2 N = 1.56 N exceeds the N bits that suffice without any code;
    the actual primes compress below either, and the wheel mod 30 brings them to 0.24 N."""
)
def information_is_far_below_n():
    limit = 10**6
    entropy, wheeled = cramer_entropy(limit), cramer_entropy(limit, wheel=30)
    naive = float(prime_flags(limit).sum() * math.log2(limit))
    packed, wheel_packed = compressed_prime_bits(limit), compressed_prime_bits(limit, wheel=30)
    ratios = [cramer_entropy(n) / n for n in (10**3, 10**4, 10**5, 10**6)]
    random = np.random.default_rng(0).random(limit - 2) < 1 / np.log(np.arange(3, limit + 1))
    holds = abs(entropy - 396_752) < 1 and abs(wheeled - 232_537) < 1 and naive > limit and packed < entropy < compressed_bits(random) and ratios == sorted(ratios, reverse=True)
    return {
        "holds": bool(holds),
        "cramer": entropy,
        "cramer_wheel_30": wheeled,
        "naive": naive,
        "primes_lzma": packed,
        "primes_wheel_30_lzma": wheel_packed,
        "bits_per_number": ratios,
    }
