"""Multiple zeta values from iterated integrals, to any number of digits.

An iterated integral is a power series; each letter of its word maps coefficients c[n] (fixed-point integers) to those of the integral of kernel times series.
"""

import math
from functools import lru_cache

import numpy as np


def before(c, step):
    """Sums of c[m] over m < n with n - m divisible by `step`."""
    padded = np.concatenate([c, np.zeros(-len(c) % step, object)])
    sums = np.cumsum(padded.reshape(-1, step), axis=0, dtype=object).ravel()
    return np.concatenate([np.zeros(step, object), sums])[: len(c)]


def shifted(c):
    return np.concatenate([np.zeros(1, object), c[:-1]])


def alternating(c):
    sign = np.where(np.arange(len(c)) % 2, -1, 1).astype(object)
    return -sign * before(sign * c, 1)


KERNELS = {
    "0": lambda c: c,  # dx/x
    "1": lambda c: before(c, 1),  # dx/(1-x)
    "first": lambda c: shifted(c) + before(shifted(c), 2),  # dx/(1-x^2): the innermost odd number
    "next": lambda c: before(c, 2),  # x dx/(1-x^2): a larger odd number
    # the same three under x -> (1-x)/(1+x)
    "0'": lambda c: 2 * (shifted(c) + before(shifted(c), 2)),
    "first'": lambda c: c // 2,
    "next'": lambda c: c // 2 - alternating(c),
}


def prefixes(word, powers, bits):
    """Integrals from 0 to a point over all prefixes of a word; powers[n] is the n-th power of the point."""
    n = np.arange(len(powers)).astype(object)
    n[0] = 1
    c = np.zeros(len(powers), object)
    c[0] = 1 << bits
    values = [c[0]]
    for letter in word:
        c = KERNELS[letter](c) // n
        c[0] = 0
        values.append(int(c @ powers) >> bits)
    return values


@lru_cache(maxsize=20_000)
def multiple_zeta(index, digits, odd=False):
    """The multiple zeta value of a tuple of exponents (increasing order of summation), or with `odd` its t-value, as an mpmath number with `digits` digits.

    The path from 0 to 1 is cut at a point, 1/2 or sqrt 2 - 1, where x -> 1-x, or (1-x)/(1+x), turns what is left of it into another power series of the same speed.
    """
    import mpmath as mp

    numbers = range(1, 2 * len(index), 2) if odd else range(1, len(index) + 1)
    small = sum(k * math.log2(n) for k, n in zip(index, numbers, strict=True))  # the first term bounds the sum from below
    bits = int(digits * 3.33 + small) + 64 + sum(index)
    with mp.workprec(bits + 20):
        point = mp.sqrt(2) - 1 if odd else mp.mpf(1) / 2
        powers = np.array([int(mp.ldexp(point**n, bits)) for n in range(int(bits / -mp.log(point, 2)) + 2)], object)
        if odd:
            word = [letter for i, k in enumerate(index) for letter in ["next" if i else "first"] + ["0"] * (k - 1)]
            mirrored = [f"{letter}'" for letter in reversed(word)]
        else:
            word = [letter for k in index for letter in "1" + "0" * (k - 1)]
            mirrored = ["1" if letter == "0" else "0" for letter in reversed(word)]
        return mp.fsum(mp.mpf(a * b) for a, b in zip(prefixes(word, powers, bits), reversed(prefixes(mirrored, powers, bits)), strict=True)) / mp.mpf(2) ** (2 * bits)
