"""Bregman top-k decoding against a full search over k, one thread: ratios of times, differences of the cost, and the time of a token at vocabularies.

Usage: python benchmarks/bregman_top_k.py
"""

import numpy as np
from _timing import median_seconds
from threadpoolctl import threadpool_limits

from lawbook.chapters.decoding.bregman_top_k import bregman_decode, ledger, ranked

CASES = (("primal", 0.5), ("primal", 1.0), ("primal", 1.5), ("primal", 2.0), ("primal", 3.0), ("dual", 1.5), ("dual", 3.0))
VOCABULARIES = (1_000, 8_000, 32_000, 128_000)
EVERY_K = 4_000  # up to this size, and where a re-weighting is a formula, all k are searched; elsewhere 1000 from the first on, 200 next to the k found, 100 spread
PRICE = 1e-3


def next_token_law(size):
    """As of a language model: logits of standard deviation 3."""
    logits = 3 * np.random.default_rng(0).normal(size=size)
    return np.exp(logits) / np.exp(logits).sum()


def full_search(p, alpha, mode, found):
    """(seconds, least cost, whether all k were searched): each k is re-weighted by itself, on probabilities that are sorted once."""
    everything = len(p) <= EVERY_K or alpha in (1, 2)
    near = {*range(1, 1001), *range(max(found - 100, 1), min(found + 100, len(p)))}
    far = np.linspace(1001, len(p), 100).astype(int).tolist()

    def prepared():
        _, q = ranked(p)
        factor = 1 / alpha if mode == "primal" else 1 / (alpha * (alpha - 1))
        return ledger(q, alpha, mode)[0], factor * np.append(np.cumsum((q**alpha)[::-1])[::-1], 0.0)

    def least(head, tail, sizes):
        return min(head(k) + tail[k] + PRICE * k for k in sizes)

    before, (head, tail) = median_seconds(prepared, repeats=1)
    if everything:
        spent, cost = median_seconds(least, head, tail, range(1, len(p) + 1), repeats=1)
        return before + spent, cost, True
    spent, cost = median_seconds(least, head, tail, near, repeats=1)
    spread, other = median_seconds(least, head, tail, far, repeats=1)
    return before + spent + spread * (len(p) - len(near)) / len(far), min(cost, other), False


def main():
    print(f"price {PRICE:g} a token; times of one decoding, sorting included\n")
    print(f"{'mode':8}{'alpha':>6}{'V':>9}{'k':>7}{'sort':>9}{'decode':>10}{'full search':>13}{'ratio':>10}{'difference':>12}")
    for mode, alpha in CASES:
        for size in VOCABULARIES:
            p = next_token_law(size)
            sort, _ = median_seconds(ranked, p, repeats=3)
            mine, found = median_seconds(bregman_decode, p, alpha=alpha, penalty=PRICE, mode=mode, repeats=5)
            theirs, least, everything = full_search(p, alpha, mode, found["k"])
            times = f"{1e3 * sort:7.2f}ms{1e3 * mine:8.2f}ms{theirs:11.3g} s{' ' if everything else '*'}{theirs / mine:9.3g}"
            print(f"{mode:8}{alpha:6.1f}{size:9}{found['k']:7}{times}{found['cost'] - least:12.1e}", flush=True)
    print("\n* timed on the first 1000 k, 200 next to the one found and 100 spread over the others, which are multiplied out; the difference is to the least cost among those")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
