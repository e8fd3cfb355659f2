"""Kraft-Chaitin coding: prefix-free words of requested lengths, handed out one by one."""

from fractions import Fraction
from itertools import pairwise

import numpy as np

from lawbook.contract import Paper, count, listing, text, vector
from lawbook.trials import Guarantee

paper = Paper(
    __name__,
    title="Some Questions of Uniformity in Algorithmic Randomness",
    arxiv="2111.01472",
    tags=["algorithmic randomness", "kolmogorov complexity", "halting probability", "omega", "prefix codes", "kraft inequality"],
    source="none",
    says="""The halting probabilities of universal prefix-free machines are exactly the random reals that can be approximated from below, yet no algorithm turns such a real,
    given by its approximation, into a universal machine that has it as halting probability; nor can a partner be produced uniformly from which it differs by a real that
    is approximable from neither side. What is uniform is the step before: any increasing sequence of dyadic rationals up to 1 becomes the halting probability of some
    prefix-free machine.""",
    notes="""The theorems are about all machines, and no finite run can confirm or refute them. The companion here is the Kraft-Chaitin theorem, the uniform construction that the
    subject rests on: it gives a prefix-free machine with a prescribed halting probability, and what cannot be had uniformly is that the machine be universal.""",
)


def kraft_sum(lengths):
    """Sum of 2^-l, exactly."""
    longest = int(max(lengths))
    return Fraction(sum(1 << (longest - int(l)) for l in lengths), 1 << longest)


def requests(rng, size, most):
    """Random lengths whose Kraft sum is at most 1: those that would exceed it are left out."""
    kept, left = [], Fraction(1)
    for length in rng.integers(1, most + 1, size):
        if Fraction(1, 2 ** int(length)) <= left:
            kept.append(int(length))
            left -= Fraction(1, 2 ** int(length))
    return kept


@paper.algorithm(
    r"\sum_i 2^{-l_i} \le 1 \implies \exists\, w_1, w_2, \dots \text{ prefix-free},\ |w_i| = l_i,\ w_i \text{ chosen from } l_1, \dots, l_i \text{ alone}",
    requires={"lengths must have a Kraft sum, the sum of 2^-l, of at most 1": lambda lengths: kraft_sum(lengths) <= 1},
    sample=lambda rng: {"lengths": requests(rng, 8, 6)},
)
def kraft_chaitin(lengths: vector("n", of=count("bits", high=100_000, typical=(1, 8)), doc="lengths of words in the order of the requests", example=[2, 3, 1])) -> listing(text()):
    """Binary words of the requested lengths, none a prefix of another; each is chosen before later requests are seen."""
    free = {0: ""}  # what is still free: cylinders, of distinct lengths
    words = []
    for length in map(int, lengths):
        fit = max(k for k in free if k <= length)  # the smallest cylinder that is large enough; there is one as long as the Kraft sum allows
        start = free.pop(fit)
        words.append(start + "0" * (length - fit))
        for k in range(fit + 1, length + 1):
            free[k] = start + "0" * (k - fit - 1) + "1"
    return words


def worst_fit(lengths):
    """The same from the largest free cylinder, which breaks up what later requests need; an empty word where nothing fits."""
    free, words = [""], []
    for length in map(int, lengths):
        start = min(free, key=len, default=None)
        if start is None or len(start) > length:
            words.append("")
            continue
        free.remove(start)
        words.append(start + "0" * (length - len(start)))
        free += [start + "0" * (k - len(start) - 1) + "1" for k in range(len(start) + 1, length + 1)]
    return words


def counted_up(lengths):
    """Numbers in binary, each of its length: right lengths, but not prefix-free."""
    return [format(i % 2**l, f"0{l}b") for i, l in enumerate(map(int, lengths))]


def prefix_free(words):
    ordered = sorted(words)  # a prefix comes right before one of its extensions
    return all(not b.startswith(a) for a, b in pairwise(ordered))


@paper.trial(Guarantee(), of=[kraft_chaitin], controls={"from the largest free cylinder": worst_fit, "counted up": counted_up}, quick=500, full=5000)
def words_are_prefix_free(draw, claim):
    """Words have the requested lengths and none is a prefix of another, for random requests up to a Kraft sum of exactly 1; a word does not depend on later requests."""
    lengths = requests(draw.rng, draw.choice([5, 50, 300]), draw.integer(2, 12))
    if draw.choice([False, True]):  # use up what is left
        left = 1 - kraft_sum(lengths)
        lengths += [k for k in range(1, 13) if left * 2**k % 2 == 1]
    for wanted in (lengths, [2, 3, 1]):
        words, half = claim(wanted), len(wanted) // 2
        if [len(word) for word in words] != wanted or not prefix_free(words) or (half and claim(wanted[:half]) != words[:half]):
            return False
    return True


def increments_rounded(lengths):
    """Words one letter longer wherever the length is even: prefix-free, but of another measure."""
    return kraft_chaitin([length + (length % 2 == 0) for length in lengths])


@paper.trial(Guarantee(), of=[kraft_chaitin], controls={"lengths not kept": increments_rounded}, quick=100, full=1000)
def any_approximation_becomes_a_machine(draw, claim):
    """An increasing sequence of dyadic rationals that ends at 1 is, stage by stage, the measure of a growing prefix-free set: words for the binary digits of each increment."""
    stages = np.append(np.unique(draw.rng.integers(1, 2**20, draw.integer(1, 30))), 2**20)
    digits = [[20 - k for k in range(20, -1, -1) if step >> k & 1] for step in np.diff(stages, prepend=0).tolist()]
    words = claim([length for step in digits for length in step])
    measured = np.cumsum([2.0 ** -len(word) for word in words])
    ends = np.cumsum([len(step) for step in digits])
    return bool(prefix_free(words) and np.array_equal(measured[ends - 1], stages / 2**20))
