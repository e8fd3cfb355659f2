"""The fit of the Chinchilla law against the published replication's protocol in SciPy, with gradients written out, one thread: ratios of medians, objectives reached.

The replication starts L-BFGS-B from a grid of 4500, and BFGS on each resample from the constants of the Chinchilla paper. Where LAWBOOK_DATA names a folder with
chinchilla-figure4/runs.csv, 240 of its runs are fitted as well. Usage: python benchmarks/chinchilla_fit.py [resamples]
"""

import sys
from itertools import product

import numpy as np
from _timing import median_seconds
from scipy.optimize import minimize  # loaded before threads are limited, so that its own library obeys too
from threadpoolctl import threadpool_limits

from lawbook.artifacts.datasets import MissingData, load
from lawbook.chapters.scaling.beyond_chinchilla import CONSTANTS, chinchilla_loss, fit_chinchilla

OUR_GRID = list(product([0.0, 10.0, 20.0], [0.0, 10.0, 20.0], [-1.0, 0.5], [0.0, 0.5, 1.0], [0.0, 0.5, 1.0]))
PUBLISHED_GRID = list(product(np.arange(0, 30, 5.0), np.arange(0, 30, 5.0), np.arange(-1, 1.5, 0.5), np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5)))
SHARE = 20  # one start in 20 of the published grid, chosen at random, is run and its time multiplied


def synthetic(n=240, noise=0.01):
    """Runs of the sizes and budgets of the Chinchilla study; losses of the replication's law, with normal noise in their logarithm."""
    rng = np.random.default_rng(0)
    params, compute = 10 ** rng.uniform(7.7, 10.2, n), 10 ** rng.uniform(18.5, 21.5, n)
    tokens = compute / 6 / params
    return params, tokens, chinchilla_loss(params, tokens, constants="epoch") * np.exp(noise * rng.normal(size=n))


def figure():
    data = load("chinchilla-figure4")
    kept = np.sort(np.argsort(data["loss"], kind="stable")[:-5])  # as published, without the five highest losses
    return tuple(data[name][kept] for name in ("params", "tokens", "loss"))


def objective(params, tokens, losses, delta=1e-3):
    """Sum of Huber losses of ln L and its gradient in (a, b, e, alpha, beta)."""
    x, y, target = np.log(params), np.log(tokens), np.log(losses)

    def value_and_gradient(theta):
        a, b, e, alpha, beta = theta
        first, second = a - alpha * x, b - beta * y
        top = np.maximum(np.maximum(first, second), e)
        first, second, third = np.exp(first - top), np.exp(second - top), np.exp(e - top)
        total = first + second + third
        residual = top + np.log(total) - target
        clipped = np.clip(residual, -delta, delta)
        first, second = first / total * clipped, second / total * clipped
        return clipped @ (residual - clipped / 2), np.array([first.sum(), second.sum(), clipped @ (third / total), -(first @ x), -(second @ y)])

    return value_and_gradient


def scipy_fit(runs, starts, method):
    function = objective(*runs)
    return min((minimize(function, start, jac=True, method=method) for start in starts), key=lambda found: np.nan_to_num(found.fun, nan=np.inf))


def scipy_bootstrap(runs, start, resamples):
    """Standard errors of two of the constants over the same resamples as those of our fit."""
    n = len(runs[0])
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples)
    found = np.array([scipy_fit([np.repeat(column, counts) for column in runs], [start], "BFGS").x for counts in weights])
    return {"A": np.exp(found[:, 0]).std(ddof=1), "beta": found[:, 4].std(ddof=1)}


def compare(name, runs, resamples):
    own, fit = median_seconds(fit_chinchilla, *runs, repeats=3)
    paper, optimum = ([*np.log([law[name] for name in "ABE"]), law["alpha"], law["beta"]] for law in (CONSTANTS["hoffmann_tex"], fit))
    chosen = [PUBLISHED_GRID[i] for i in np.random.default_rng(0).permutation(len(PUBLISHED_GRID))[::SHARE]]
    print(f"\n{name}, {len(runs[0])} runs\n{'':51}{'starts':>7}{'seconds':>10}{'time/ours':>11}{'Huber sum':>14}{'excess over ours':>18}")
    print(f"{'ours':51}{len(OUR_GRID):7}{own:10.3f}{1.0:11.2f}{fit['huber_sum']:14.6e}")
    for label, starts, times, method in (
        (f"L-BFGS-B, published grid (1 start in {SHARE}, scaled)", chosen, SHARE, "L-BFGS-B"),
        ("L-BFGS-B, our grid", OUR_GRID, 1, "L-BFGS-B"),
        ("BFGS, our grid", OUR_GRID, 1, "BFGS"),
        ("BFGS, from the Chinchilla paper's constants", [paper], 1, "BFGS"),
    ):
        spent, found = median_seconds(scipy_fit, runs, starts, method, repeats=3)
        print(f"{label:51}{len(starts) * times:7}{spent * times:10.3f}{spent * times / own:11.2f}{found.fun:14.6e}{found.fun / fit['huber_sum'] - 1:18.1e}")
    whole, fit = median_seconds(fit_chinchilla, *runs, bootstrap=resamples, repeats=3)
    print(f"{f'{resamples} resamples':58}{'seconds':>10}{'time/ours':>11}{'se of A':>14}{'se of beta':>18}")
    print(f"{'ours, fit and resamples':58}{whole:10.3f}{1.0:11.2f}{fit['se']['A']:14.2f}{fit['se']['beta']:18.6f}")
    for label, start in (("the paper's constants", paper), ("our optimum", optimum)):
        spent, errors = median_seconds(scipy_bootstrap, runs, start, resamples, repeats=3)
        print(f"{'BFGS, resamples alone, from ' + label:58}{spent:10.3f}{spent / whole:11.2f}{errors['A']:14.2f}{errors['beta']:18.6f}")


def fits(resamples=200):
    compare("synthetic", synthetic(), resamples)
    try:
        compare("figure 4 of the Chinchilla paper", figure(), resamples)
    except MissingData as missing:
        print(f"\n{missing}")


if __name__ == "__main__":
    with threadpool_limits(1):
        fits(*map(int, sys.argv[1:]))
