"""Spectra of the Hermite and Laguerre ensembles from tridiagonal matrices against dense Gaussian and Wishart ones, one thread: ratios of medians, exponents of cost.

Usage: python benchmarks/beta_ensembles.py [draws]
"""

import sys
import time

import numpy as np
from threadpoolctl import threadpool_limits

from lawbook.chapters.sampling.beta_ensembles import hermite_second_moment, laguerre_second_moment, sample_hermite, sample_laguerre

SIZES = (200, 500, 1000)


def gaussian(rng, rows, columns, beta):
    """Real entries of unit variance (beta 1), or complex ones with both parts so (beta 2)."""
    real = rng.normal(size=(rows, columns))
    return real if beta == 1 else real + 1j * rng.normal(size=(rows, columns))


def gaussian_ensemble(n, beta, seed):
    square = gaussian(np.random.default_rng(seed), n, n, beta)
    return (square + square.conj().T) / 2


def wishart(n, beta, seed):
    wide = gaussian(np.random.default_rng(seed), n, 2 * n, beta)
    return wide @ wide.conj().T


def seconds_of(function, *arguments):
    """The process's own time, so that other work on the machine counts as little as possible; and the answer."""
    began = time.process_time()
    answer = function(*arguments)
    return time.process_time() - began, answer


ENSEMBLES = {  # dense matrix, our sampler, exact mean of the sum of squares
    "GOE": (lambda n, seed: gaussian_ensemble(n, 1, seed), lambda n, seed: sample_hermite(n, 1.0, seed=seed), lambda n: hermite_second_moment(n, 1.0)),
    "GUE": (lambda n, seed: gaussian_ensemble(n, 2, seed), lambda n, seed: sample_hermite(n, 2.0, seed=seed), lambda n: hermite_second_moment(n, 2.0)),
    "Wishart": (lambda n, seed: wishart(n, 1, seed), lambda n, seed: sample_laguerre(n, 2.0 * n, 1.0, seed=seed), lambda n: laguerre_second_moment(n, 2 * n, 1.0)),
    "complex Wishart": (lambda n, seed: wishart(n, 2, seed), lambda n, seed: sample_laguerre(n, 2.0 * n, 2.0, seed=seed), lambda n: laguerre_second_moment(n, 2 * n, 2.0)),
}


def spectra(draws=9):
    """`matrix` is the time in which the dense matrix is drawn (Wishart: and multiplied), `eigvalsh` that of its spectrum, `dense` both; the moments show that the laws agree."""
    print(f"medians of {draws} draws; Wishart matrices have twice as many columns as rows")
    print(f"{'':16}{'n':>6}{'matrix':>11}{'eigvalsh':>11}{'ours':>11}{'dense/ours':>12}{'eigvalsh/ours':>15}{'sum x^2 / exact: dense':>24}{'ours':>8}")
    for name, (matrix, ours, exact) in ENSEMBLES.items():
        rows = []
        for n in SIZES:
            spent, moments = [], []
            for seed in range(draws):
                drawing, dense = seconds_of(matrix, n, seed)
                solving, points = seconds_of(np.linalg.eigvalsh, dense)
                own, sampled = seconds_of(ours, n, seed)
                spent.append((drawing, solving, own))
                moments.append((np.sum(points**2), np.sum(sampled**2)))
            rows.append(np.median(spent, axis=0))
            (drawing, solving, own), (dense, sampled) = rows[-1], np.mean(moments, axis=0) / exact(n)
            print(f"{name:16}{n:6}{1e3 * drawing:9.2f}ms{1e3 * solving:9.2f}ms{1e3 * own:9.2f}ms{(drawing + solving) / own:12.1f}{solving / own:15.1f}{dense:24.4f}{sampled:8.4f}")
        exponents = np.polyfit(np.log(SIZES), np.log(rows), 1)[0]
        print(f"{'  exponent in n':22}" + "".join(f"{exponent:11.2f}" for exponent in exponents) + "\n")


if __name__ == "__main__":
    sample_hermite(10, 1.0)  # loads SciPy's library before threads are limited, so that it obeys too
    with threadpool_limits(1):
        spectra(*map(int, sys.argv[1:]))
