"""Multiple zeta values and their odd variants to any number of digits, with the identities between them."""

import itertools
import math

import numpy as np

from lawbook.contract import Paper, count, flag, integer, listing, real, record, vector
from lawbook.numerics.digits import DIGITS, PRECISE, told
from lawbook.numerics.iterated_integrals import multiple_zeta as value
from lawbook.trials import Identity

paper = Paper(
    __name__,
    title="Iterated beta integrals",
    arxiv="2603.25717",
    tags=["multiple zeta values", "t-values", "iterated integrals", "duality", "ohno relation", "integer relation", "pslq"],
    source="known",
    says="""Iterated integrals whose one-forms carry real exponents interpolate between hyperlogarithms and beta integrals, and do not change when all exponents are shifted
    at once. From this one fact follow identities among multiple zeta values and their variants over odd numbers: Zagier's and Murakami's evaluations of 2...232...2, Ohno's
    relation with duality, and the two-one formula. Here they are callable, with values of any number of digits to test them, or a conjecture of one's own, against.""",
    notes="""Indices are in increasing order, zeta(k_1..k_d) = sum over 0 < n_1 < ... < n_d, with k_d at least 2; half of the literature writes them backwards. Only the two-one
    formula is stated for the decreasing order. Values come from iterated integrals cut in two where both halves converge geometrically: at 1/2 for zeta, at sqrt 2 - 1 for t (the
    fixed point of (1-x)/(1+x)), so t-values of any index cost as little as zeta values and need no extrapolation.""",
)

INDEX = vector("d", of=count(typical=(1, 4), scale="linear"), most=4, doc="k_1..k_d in increasing order of summation", example=[2, 3])
CONVERGES = {
    "index must end with at least 2: its sum diverges": lambda index: index[-1] > 1,
    "index must have a weight of at most 500": lambda index: sum(index) <= 500,
}
A, B = count(low=0, high=60, typical=(0, 6), scale="linear", example=1), count(low=0, high=60, typical=(0, 6), scale="linear", example=0)


def whole(index):
    return tuple(int(k) for k in index)


def merged(index):
    """All ways to put a comma or a plus between neighbouring entries."""
    for commas in itertools.product((True, False), repeat=len(index) - 1):
        entries = [index[0]]
        for comma, k in zip(commas, index[1:], strict=True):
            entries = [*entries, k] if comma else [*entries[:-1], entries[-1] + k]
        yield tuple(entries)


@paper.algorithm(r"\zeta(k_1,\dots,k_d) = \sum_{0<n_1<\dots<n_d} \prod_i n_i^{-k_i}", requires=CONVERGES)
def mzv(index: INDEX, *, digits: DIGITS = 30) -> PRECISE:
    """Multiple zeta value, in increasing order of summation."""
    return told(value(whole(index), digits + 5), digits)


@paper.algorithm(
    r"\zeta^*(k_1,\dots,k_d) = \sum_{0<n_1\le\dots\le n_d} \prod_i n_i^{-k_i}",
    requires={**CONVERGES, "index must be at most 14 long": lambda index: len(index) <= 14},
)
def mzv_star(index: INDEX, *, digits: DIGITS = 30) -> PRECISE:
    """Multiple zeta-star value, in increasing order with equality allowed: the sum of the zeta values of all merges of neighbours."""
    import mpmath as mp

    with mp.workdps(digits + 10):
        return told(mp.fsum(value(entries, digits + 10) for entries in merged(whole(index))), digits)


@paper.algorithm(r"t(k_1,\dots,k_d) = \sum_{0<n_1<\dots<n_d,\ n_i\ \text{odd}} \prod_i n_i^{-k_i}", requires=CONVERGES)
def t_value(index: INDEX, *, digits: DIGITS = 20) -> PRECISE:
    """Multiple t-value: the multiple zeta sum over odd numbers only."""
    return told(value(whole(index), digits + 5, odd=True), digits)


def guard(a, b):
    """Digits that the sums below lose: their terms grow like 4^K, their values fall like 1/(K+1)!^3."""
    return 20 + int((3 * math.lgamma(a + b + 3) + 1.4 * (a + b)) / math.log(10))


@paper.law(
    r"\zeta(\{2\}^a,3,\{2\}^b) = 2\sum_{r=1}^{K} (-1)^r \left[\binom{2r}{2a+2} - (1-2^{-2r})\binom{2r}{2b+1}\right] \frac{\pi^{2(K-r)}}{(2(K-r)+1)!}\zeta(2r+1),\quad K = a+b+1"
)
def zagier_232(a: A, b: B, *, digits: DIGITS = 15) -> PRECISE:
    """Zeta value of a twos, one three, b twos, as a combination of products of a zeta value and powers of pi."""
    import mpmath as mp

    with mp.workdps(digits + guard(a, b)):
        K, total = a + b + 1, mp.mpf(0)
        for r in range(1, K + 1):
            twos = mp.pi ** (2 * (K - r)) / mp.factorial(2 * (K - r) + 1)
            binomials = math.comb(2 * r, 2 * a + 2) - (1 - mp.mpf(4) ** -r) * math.comb(2 * r, 2 * b + 1)
            total += 2 * (-1) ** r * binomials * twos * mp.zeta(2 * r + 1)
        return told(total, digits)


def murakami_sum(a, b, top, digits):
    import mpmath as mp

    with mp.workdps(digits + guard(a, b) + a + b):
        K, total = a + b + 1, mp.mpf(0)
        for r in range(1, K + 1):
            twos = (mp.pi / 2) ** (2 * (K - r)) / mp.factorial(2 * (K - r))
            binomials = math.comb(2 * r, top) + (1 - mp.mpf(4) ** -r) * math.comb(2 * r, 2 * b + 1)
            total -= (-1) ** r * binomials * mp.mpf(4) ** -r * twos * mp.zeta(2 * r + 1)
        return told(total, digits)


@paper.law(
    r"t(\{2\}^a,3,\{2\}^b) = \sum_{r=1}^{K} (-1)^{r-1} \left[\binom{2r}{2a+1} + (1-2^{-2r})\binom{2r}{2b+1}\right] \frac{1}{4^r} \frac{\pi^{2(K-r)}}{4^{K-r}(2(K-r))!}\zeta(2r+1)"
)
def murakami_t(a: A, b: B, *, digits: DIGITS = 15) -> PRECISE:
    """The same for sums over odd numbers."""
    return murakami_sum(a, b, 2 * a + 1, digits)


@paper.law(
    r"\zeta^*(\{2\}^{a_1},1,\dots,\{2\}^{a_l},1) = \sum_{p\,=\,(2a_1+1)\circ\dots\circ(2a_l+1)} 2^{\mathrm{dep}(p)} \zeta(p),\quad \circ \in \{,\ +\}\quad (n_1 \ge n_2 \ge \dots)",
    requires={"a must begin with at least 1: the sum diverges": lambda a: a[0] > 0, "a must be at most 14 long": lambda a: len(a) <= 14},
    gives=2.404113806319188,  # 2 zeta(3)
)
def two_one(
    a: vector("l", of=count(low=0, high=50, typical=(0, 3), scale="linear"), most=4, doc="numbers of twos before each one", example=[1]), *, digits: DIGITS = 15
) -> PRECISE:
    """Star value of blocks of twos, each closed by a one, in DECREASING order of summation, as a sum of zeta values of odd entries and their merges."""
    import mpmath as mp

    with mp.workdps(digits + 10):
        return told(mp.fsum(2 ** len(p) * value(p[::-1], digits + 10) for p in merged(whole(2 * np.asarray(a) + 1))), digits)


@paper.measure(r"k \mapsto 10^{k_1-1}\cdots10^{k_d-1} \mapsto \text{reversed, } 0 \leftrightarrow 1 \mapsto k^\vee", requires=CONVERGES)
def dual_index(index: INDEX) -> vector("d'", of=count()):
    """The dual index: its zeta value is the same."""
    word = "".join("1" + "0" * (k - 1) for k in whole(index))
    blocks = "".join("1" if letter == "0" else "0" for letter in reversed(word)).split("1")[1:]
    return np.array([len(zeros) + 1 for zeros in blocks])


def raised(index, m):
    """All indices with m added to the entries, in all ways."""
    for bars in itertools.combinations(range(m + len(index) - 1), len(index) - 1):
        edges = (-1, *bars, m + len(index) - 1)
        yield tuple(k + edges[i + 1] - edges[i] - 1 for i, k in enumerate(index))


@paper.measure(
    r"\sum_{e_1+\dots+e_d=m} \zeta(k+e) - \sum_{e} \zeta(k^\vee+e) = 0",
    requires={
        **CONVERGES,
        "m must leave at most 3000 terms on either side": lambda index, m: max(math.comb(m + d - 1, m) for d in (len(index), sum(index) - len(index))) <= 3000,
    },
)
def ohno_gap(index: INDEX, m: count(low=0, high=100, typical=(0, 3), scale="linear", example=1), *, digits: DIGITS = 30) -> real():
    """Difference between the two sides of Ohno's relation, computed with `digits` digits; at m = 0 that is duality."""
    import mpmath as mp

    with mp.workdps(digits + 10):
        sides = [mp.fsum(value(k, digits + 5) for k in raised(whole(side), m)) for side in (index, dual_index(index))]
        return float(sides[0] - sides[1])


@paper.algorithm(
    r"\sum_i c_i \prod_{k \in \text{term}_i} \zeta(k) = 0,\quad c \in \mathbb{Z}",
    requires={"terms must hold indices that end with at least 2 and have a weight of at most 200": lambda terms: all(k[-1] > 1 and sum(k) <= 200 for term in terms for k in term)},
    sample=lambda rng: {"terms": [[[2, 3]], [[5]], [[2], [3]], [[1, 1, 3]]][: rng.integers(2, 5)]},
    gives={"coefficients": [2, 11, -6]},
)
def find_relation(
    terms: listing(listing(vector("d", of=count()), least=1), least=2, doc="each a product of zeta values, given by their indices", example=[[[2, 3]], [[5]], [[2], [3]]]),
    *,
    digits: count("digits", low=15, high=400, typical=(20, 60)) = 40,
) -> record(coefficients=vector("terms", of=integer(), doc="the first that is not zero is positive; zeros where none was found"), found=flag()):
    """Integer relation between products of zeta values, found by PSLQ and verified at twice the digits."""
    import mpmath as mp

    def values(digits):
        return [mp.fprod(value(whole(k), digits + 5) for k in term) for term in terms]

    height = 10 ** max(2, int(0.5 * digits / len(terms)))  # chance relations have coefficients of about 10^(digits / terms)
    with mp.workdps(digits):
        relation = mp.pslq(values(digits), maxcoeff=height, maxsteps=100_000)
    if relation is not None:
        with mp.workdps(2 * digits):
            if abs(mp.fdot(relation, values(2 * digits))) < mp.mpf(10) ** (10 - 2 * digits) * sum(map(abs, relation)):
                return {"coefficients": np.array(relation) * (1 if next(filter(None, relation)) > 0 else -1), "found": True}
    return {"coefficients": np.zeros(len(terms), int), "found": False}


def swapped(a, b, *, digits):
    return zagier_232(b, a, digits=digits)


def lower_binomial(a, b, *, digits):
    return murakami_sum(a, b, 2 * a, digits)


def without_powers_of_two(a, *, digits):
    import mpmath as mp

    with mp.workdps(digits + 10):
        return told(mp.fsum(value(p[::-1], digits + 10) for p in merged(whole(2 * np.asarray(a) + 1))), digits)


def reversed_without_exchange(index, m, *, digits):
    import mpmath as mp

    with mp.workdps(digits + 10):
        backwards = [*whole(index)[:-1][::-1], int(index[-1])]
        return float(mp.fsum(value(k, digits + 5) for k in raised(whole(index), m)) - mp.fsum(value(k, digits + 5) for k in raised(tuple(backwards), m)))


CLAIM = (zagier_232, murakami_t, two_one, ohno_gap)


def indices(weight):
    """All convergent indices of a weight."""
    return [entries for entries in merged((1,) * weight) if entries[-1] > 1]


@paper.trial(
    Identity(rtol=0, atol=1e-50),
    of=[zagier_232, murakami_t, two_one, ohno_gap, dual_index, mzv, mzv_star, t_value],
    claim=CLAIM,
    controls={
        "Zagier with a and b exchanged": (swapped, *CLAIM[1:]),
        "Murakami with C(2r, 2a)": (zagier_232, lower_binomial, *CLAIM[2:]),
        "two-one without powers of two": (*CLAIM[:2], without_powers_of_two, ohno_gap),
        "Ohno with a reversed index": (*CLAIM[:3], reversed_without_exchange),
    },
    quick=1,
    full=1,
)
def fifty_digits(draw, claim, effort):
    """The four identities hold to 50 digits for every index of weight up to 9 (11 in full)."""
    import mpmath as mp

    zagier, murakami, blocks, ohno = claim
    most = 9 if effort == "quick" else 11
    pairs = [(a, b) for a in range(most // 2) for b in range(most // 2) if 2 * (a + b) + 3 <= most]
    with mp.workdps(75):
        off = []
        for a, b in pairs:
            index = [2] * a + [3] + [2] * b
            off += [mp.mpf(mzv(index, digits=60)) - mp.mpf(zagier(a, b, digits=60)), mp.mpf(t_value(index, digits=60)) - mp.mpf(murakami(a, b, digits=60))]
        for odd in (c for w in range(3, most + 1) for c in merged((1,) * w) if c[0] > 1 and all(k % 2 for k in c)):
            twos = [k // 2 for k in odd]
            index = [entry for a in twos for entry in [2] * a + [1]]
            off.append(mp.mpf(mzv_star(index[::-1], digits=60)) - mp.mpf(blocks(twos, digits=60)))
        off += [ohno(k, m, digits=60) for w in range(2, most + 1) for k in indices(w) for m in range(most - w + 1)]
        return np.array([float(difference) for difference in off]), 0.0


def other_order(index, **options):
    return mzv([*list(index)[:-1][::-1], index[-1]], **options)


VALUES = (mzv, mzv_star, t_value)


@paper.trial(Identity(rtol=0, atol=2e-9), of=VALUES, claim=VALUES, controls={"entries in the other order": (other_order, mzv_star, t_value)}, quick=8, full=60)
def summed_directly(draw, claim):
    """The three kinds of value agree with their defining sums over numbers up to 200000, for indices that end with 3 or more."""
    index = [*[draw.integer(1, 3) for _ in range(draw.integer(1, 3))], draw.integer(3, 4)]
    n, sums = np.arange(1, 200_001.0), []
    for numbers, equal in ((n, False), (n, True), (2 * n - 1, False)):
        inner = np.ones(len(n))
        for k in index:
            terms = inner * numbers**-k
            total = np.cumsum(terms)
            inner = total if equal else total - terms
        sums.append(total[-1])
    return sums, [float(f(index, digits=15)) for f in claim], {"index": index}


def in_the_other_order(terms, **options):
    return find_relation([[k[::-1] if k[0] > 1 else k for k in term] for term in terms], **options)


@paper.trial(Identity(), of=[find_relation], controls={"indices read backwards": in_the_other_order}, quick=1, full=1)
def relations_recovered(draw, claim):
    """Known relations come back, and products of weight 8 that are held to be independent have none."""
    terms = [[[[2, 3]], [[5]], [[2], [3]]], [[[2], [2]], [[4]]], [[[3, 3]], [[3], [3]], [[6]]], [[[1, 2]], [[3]]], [[[3, 5]], [[8]], [[3], [5]], [[2], [3], [3]]]]
    found = [claim(products) for products in terms]
    known = [2, 11, -6, 2, -5, 2, -1, 1, 1, -1, 0, 0, 0, 0]
    return [*known, 1, 1, 1, 1, 0], np.concatenate([*(f["coefficients"] for f in found), [f["found"] for f in found]])
