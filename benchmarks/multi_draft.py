"""The ceiling of multi-draft acceptance against the transport linear programme that defines it, one thread: ratios of medians, differences of the values.

Usage: python benchmarks/multi_draft.py [laws]
"""

import sys

import numpy as np
from _timing import median_seconds
from scipy.optimize import linprog  # loaded before threads are limited, so that its own library obeys too
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from lawbook.chapters.decoding.multi_draft_acceptance import optimal_acceptance

SAMPLINGS = ("with_replacement", "without_replacement", "greedy")
SMALL, LARGE = (4, 5, 6, 7, 8), (8_000, 32_000, 128_000)


def draft_law(q, k, sampling):
    """Draft tuples of mass above 0, as rows, and their masses."""
    tuples = np.stack(np.meshgrid(*[np.arange(len(q))] * k, indexing="ij"), -1).reshape(-1, k)
    each = q[tuples]
    if sampling == "with_replacement":
        return tuples, each.prod(1)
    if sampling == "greedy":
        top = np.argsort(-q, kind="stable")[: k - 1]
        tuples = np.array([[*top, last] for last in range(len(q)) if last not in top])
        return tuples, q[tuples[:, -1]] / q[tuples[:, -1]].sum()
    distinct = (np.diff(np.sort(tuples, axis=1), axis=1) > 0).all(1)
    before = np.cumsum(each, axis=1) - each
    return tuples[distinct], (each / (1 - before)).prod(1)[distinct]


def transport(p, tuples, masses):
    """What linprog is given: one variable for each tuple and position that is kept there; tuples are used up to their masses, tokens up to the target's."""
    variables = np.arange(tuples.size)
    rows = np.concatenate([variables // tuples.shape[1], len(tuples) + tuples.ravel()])
    limits = csr_array((np.ones(2 * tuples.size), (rows, np.tile(variables, 2))), shape=(len(tuples) + len(p), tuples.size))
    return {"c": -np.ones(tuples.size), "A_ub": limits, "b_ub": np.concatenate([masses, p]), "method": "highs"}


def against_the_programme(laws):
    print(f"medians over {laws} pairs of Dirichlet laws; the building of the programme is not timed")
    ratios = "".join(f"{f'V={size}':>7}" for size in SMALL[1:])
    print(f"{'':20}{'k':>2}{'variables':>11}{'HiGHS':>10}{'ours':>10}{f'HiGHS/ours: V={SMALL[0]}':>18}{ratios}{'difference':>12}")
    for sampling in SAMPLINGS:
        for k in (2, 3):
            theirs, mine, worst = {}, {}, 0.0
            for size in SMALL:
                rng = np.random.default_rng(size)
                spent = []
                for _ in range(laws):
                    p, q = rng.dirichlet(np.ones(size), 2)
                    problem = transport(p, *draft_law(q, k, sampling))
                    programme, found = median_seconds(linprog, **problem, repeats=3)
                    closed, value = median_seconds(optimal_acceptance, p, q, k, sampling=sampling, repeats=9)
                    spent.append((programme, closed))
                    worst = max(worst, abs(-found.fun - value))
                theirs[size], mine[size] = np.median(spent, axis=0)
            last, variables = SMALL[-1], len(problem["c"])
            ratios = "".join(f"{theirs[size] / mine[size]:7.1f}" for size in SMALL)
            print(f"{sampling:20}{k:2}{variables:11}{1e3 * theirs[last]:8.2f}ms{1e3 * mine[last]:8.3f}ms{'':11}{ratios}{worst:12.1e}")
    print(f"(variables and times at V = {last})")


def at_vocabularies():
    """Laws as of language models: target logits of standard deviation 3, and the draft's a noisy copy of them."""
    print("\nours alone, at vocabularies\n" + f"{'':20}{'k':>2}" + "".join(f"{f'V={size}':>12}" for size in LARGE) + f"{'exponent':>11}{'acceptance':>12}")
    for sampling in SAMPLINGS:
        for k in (2, 3):
            seconds = []
            for size in LARGE:
                logits = 3 * np.random.default_rng(0).normal(size=size)
                p, q = (np.exp(each) / np.exp(each).sum() for each in (logits, logits + np.random.default_rng(1).normal(size=size)))
                spent, value = median_seconds(optimal_acceptance, p, q, k, sampling=sampling, repeats=3)
                seconds.append(spent)
            exponent = np.polyfit(np.log(LARGE), np.log(seconds), 1)[0]
            print(f"{sampling:20}{k:2}" + "".join(f"{1e3 * spent:10.1f}ms" for spent in seconds) + f"{exponent:11.2f}{value:12.6f}")


if __name__ == "__main__":
    with threadpool_limits(1):
        against_the_programme(*map(int, sys.argv[1:] or ["7"]))
        at_vocabularies()
