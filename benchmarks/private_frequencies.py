"""Frequencies under local privacy: modular subset selection beside subset selection, optimised unary encoding (RAPPOR's bits) and Hadamard response at the same epsilon.

Error is the mean squared error of a frequency times the number of users, which does not depend on that number. Usage: python benchmarks/private_frequencies.py
"""

import math
import resource
import time

import numpy as np
from _timing import median_seconds
from scipy.linalg import hadamard
from threadpoolctl import threadpool_limits

from lawbook.chapters.trust.modular_subset_selection import decode, mss_cost, mss_report, residue_counts
from lawbook.numerics.sieves import primes_up_to

SETTINGS = ((100, 20_000, 20), (1000, 10_000, 5), (10_000, 5_000, 2))  # items, users, runs
DESIGNS = ((3, 2.7), (10, 6.5))  # moduli, and their sum over the number of items: about where condition numbers fall below 10


def zipf(domain):
    f = np.arange(1, domain + 1.0) ** -1.1
    return f / f.sum()


def window(domain, parts, excess):
    """The first consecutive primes below the domain whose sum is `excess` times the domain, or the last ones."""
    primes = primes_up_to(domain - 1)
    first = int(np.searchsorted(np.convolve(primes, np.ones(parts, int), "valid"), excess * domain))
    return primes[min(first, len(primes) - parts) :][:parts]


class Modular:
    """Modular subset selection; with the domain for its only modulus, subset selection."""

    def __init__(self, domain, epsilon, moduli):
        self.domain, self.epsilon, self.moduli = domain, epsilon, moduli
        cost = mss_cost(domain, moduli, epsilon)
        self.bits = cost["bits_subset"] if len(moduli) > 1 else cost["bits_plain"]
        self.name = f"modular, {len(moduli)} moduli near {round(np.mean(moduli))}" if len(moduli) > 1 else "subset selection"

    def report(self, values, rng):
        return mss_report(values, self.domain, self.moduli, self.epsilon, int(rng.integers(2**60)))

    def count(self, sent):
        return residue_counts(**sent, moduli=self.moduli, epsilon=self.epsilon)

    def solve(self, counted, users):
        return decode(*counted, self.domain, self.moduli, self.epsilon)


class Unary:
    name = "unary encoding, optimised"

    def __init__(self, domain, epsilon):
        self.bits, self.domain, self.q = domain, domain, 1 / (math.exp(epsilon) + 1)

    def report(self, values, rng):
        sent = rng.random((len(values), self.domain), np.float32) < self.q
        sent[np.arange(len(values)), values] = rng.random(len(values)) < 0.5
        return sent

    def count(self, sent):
        return sent.sum(0)

    def solve(self, counted, users):
        return (counted / users - self.q) / (0.5 - self.q)


class Hadamard:
    name = "Hadamard response"

    def __init__(self, domain, epsilon):
        self.bits, self.domain, self.epsilon = domain.bit_length(), domain, epsilon

    def report(self, values, rng):
        """A column where the value's row of the Hadamard matrix is positive, with probability e^eps / (e^eps + 1), and else one where it is negative."""
        row, column = values + 1, rng.integers(0, 2**self.bits, len(values))
        wanted = rng.random(len(values)) < 1 / (math.exp(self.epsilon) + 1)
        return np.where((np.bitwise_count(row & column) % 2 == 1) != wanted, column ^ (row & -row), column)

    def count(self, sent):
        return np.bincount(sent, minlength=2**self.bits)

    def solve(self, counted, users):
        half = self.bits // 2  # the matrix is the Kronecker product of two small ones
        spectrum = hadamard(2 ** (self.bits - half)) @ counted.reshape(-1, 2**half) @ hadamard(2**half)
        return spectrum.ravel()[1 : self.domain + 1] / (users * math.tanh(self.epsilon / 2))


def race(epsilon):
    print(f"\nepsilon {epsilon:g}\n{'items':>7} {'mechanism':34}{'bits':>7}{'report':>11}{'count':>11}{'solve':>11}{'error x users':>16}")
    for domain, users, runs in SETTINGS:
        f = zipf(domain)
        moduli = [np.array([domain]), *[window(domain, *design) for design in DESIGNS]]
        for mechanism in [*[Modular(domain, epsilon, m) for m in moduli], Unary(domain, epsilon), Hadamard(domain, epsilon)]:
            rng, times, errors = np.random.default_rng(0), [], []
            for _ in range(runs):
                values = rng.choice(domain, users, p=f)
                reporting, sent = median_seconds(mechanism.report, values, rng, repeats=1)
                counting, counted = median_seconds(mechanism.count, sent, repeats=1)
                solving, found = median_seconds(mechanism.solve, counted, users, repeats=1)
                times.append((1e6 * reporting / users, 1e6 * counting / users, 1e3 * solving))
                errors.append(users * np.mean((found - f) ** 2))
            report, count, solve = np.median(times, axis=0)
            print(f"{domain:7} {mechanism.name:34}{mechanism.bits:7}{report:9.1f}us{count:9.2f}us{solve:9.1f}ms{np.mean(errors):16.2f}", flush=True)
    print("times of reporting and counting are for each user; bits are those of a message that holds the subset itself")


def at_scale(domain=10_000, batch=10_000, batches=100):
    """The reports of a batch are counted a hundred times over, as a million would come in; only counts are kept."""
    f, moduli = zipf(domain), window(domain, *DESIGNS[1])
    for epsilon in (1.0, 3.0):
        mechanism, rng, total = Modular(domain, epsilon, moduli), np.random.default_rng(0), 0
        sent = mechanism.report(rng.choice(domain, batch, p=f), rng)
        mechanism.count(sent)  # compiles
        began = time.process_time()
        for _ in range(batches):
            total = total + np.concatenate(mechanism.count(sent))
        counting, (reports, counts) = time.process_time() - began, np.split(total, [len(moduli)])
        solving, found = median_seconds(mechanism.solve, (reports, counts), batch * batches, repeats=1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        words = f"{batch * batches} reports on {domain} items at epsilon {epsilon:g}, {len(moduli)} moduli near {np.mean(moduli):.0f}, subsets of {sent['residues'].shape[1]}"
        print(f"{words}: counted in {counting:.1f} s, solved in {solving:.2f} s, peak memory {peak:.0f} MB, error x users {batch * np.mean((found - f) ** 2):.2f}", flush=True)


if __name__ == "__main__":
    with threadpool_limits(1):
        at_scale()
        for each in (1.0, 3.0):
            race(each)
