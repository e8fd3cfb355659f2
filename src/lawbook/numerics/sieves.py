"""Sieves: arithmetic functions of all numbers up to a limit at once."""

import math

import numpy as np


def prime_flags(limit):
    """Truth values for 0..limit: whether a number is prime."""
    flags = np.ones(limit + 1, bool)
    flags[:2] = False
    flags[4::2] = False
    for p in range(3, math.isqrt(limit) + 1, 2):
        if flags[p]:
            flags[p * p :: 2 * p] = False
    return flags


def primes_up_to(limit):
    return np.flatnonzero(prime_flags(limit))


def distinct_primes(limit):
    """omega(0..limit): how many primes divide each number (0 for 0 and 1)."""
    omega, primes = np.zeros(limit + 1, np.int8), primes_up_to(limit)
    root = math.isqrt(limit)
    for p in primes[primes <= root]:
        omega[p::p] += 1
    large = primes[primes > root]
    for k in range(1, limit // (root + 1) + 1):  # a prime above the root divides few numbers: go through its multiples k p, for all such primes at once
        omega[k * large[: np.searchsorted(large, limit // k, side="right")]] += 1
    omega[0] = 0
    return omega
