"""The protocol of the published replication of the Chinchilla fit (4500 starts, then 4000 bootstraps) against SciPy and the `chinchilla` package: ratios in one run.

Ours is the engine that fits any law, not the paper's own fit, which has a row for information. The peers sum Huber losses over the same rows; random shares of their starts and
resamples are run and their times multiplied. The replication takes automatic gradients for its resamples and differences for its grid; the first peer takes automatic gradients
for both. A resample is one descent by BFGS from the constants of the Chinchilla paper, as published. Where LAWBOOK_DATA names a folder with chinchilla-figure4/runs.csv, 240 of
its runs are fitted, otherwise synthetic ones of that kind. The peers need `autograd` and `chinchilla`: compiled jax.grad, which is faster, stands in for the first, and without
the second its row is missing. The last row fits a table of 10^6 rows in a process of its own. Laws of whole loss curves are timed by loss_curves.py, the official code beside
them.

Usage: python benchmarks/fitting.py [rows of the large table]
"""

import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from itertools import product

import numpy as np
from scipy.optimize import minimize  # loaded before threads are limited, so that its own library obeys too
from threadpoolctl import threadpool_limits

from lawbook.artifacts import datasets
from lawbook.artifacts.tables import read_runs
from lawbook.chapters.scaling.beyond_chinchilla import CONSTANTS, chinchilla_loss, fit_chinchilla
from lawbook.contract import catalogue
from lawbook.fitting import engine
from lawbook.fitting.problem import Loss, pose

DELTA, RESAMPLES, OUTLIERS, REPEATS = 1e-3, 4000, 5, 5
GRID = list(product(np.arange(0, 30, 5.0), np.arange(0, 30, 5.0), np.arange(-1, 1.5, 0.5), np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5)))  # of a, b, e, alpha, beta
COARSE = {"e": [-1.0, 1.0], "a": [0.0, 10.0, 20.0], "b": [0.0, 10.0, 20.0], "alpha": [0.0, 1.0], "beta": [0.0, 1.0]}  # the package takes products only
AUTOMATIC, WRITTEN = 50, 10  # one start and one resample in so many is run
WIDTHS = (6, 10, 11, 10, 8, 10, 8, 15, 10, 10, 9)  # of the columns of the table
PAPER = np.array([*np.log([CONSTANTS["hoffmann_tex"][name] for name in "ABE"]), *(CONSTANTS["hoffmann_tex"][name] for name in ("alpha", "beta"))])


def synthetic(n, noise=0.01):
    """Runs of the sizes and budgets of the Chinchilla study; losses of the replication's law, with normal noise in their logarithm."""
    rng = np.random.default_rng(0)
    params, compute = 10 ** rng.uniform(7.7, 10.2, n), 10 ** rng.uniform(18.5, 21.5, n)
    tokens = compute / 6 / params
    return params, tokens, chinchilla_loss(params, tokens, constants="epoch") * np.exp(noise * rng.normal(size=n))


def runs():
    """(what they are, (params, tokens, losses)): those of the replication, which leaves out the highest losses."""
    try:
        data = datasets.load("chinchilla-figure4")
    except datasets.MissingData as missing:
        print(missing)
        return "synthetic", synthetic(240)
    kept = np.sort(np.argsort(data["loss"], kind="stable")[:-OUTLIERS])
    return "figure 4 of the Chinchilla paper", tuple(data[name][kept] for name in ("params", "tokens", "loss"))


def by_hand(params, tokens, losses):
    """Sum of Huber losses of ln L and its gradient in (a, b, e, alpha, beta), for SciPy's solvers."""
    x, y, target = np.log(params), np.log(tokens), np.log(losses)

    def value_and_gradient(theta):
        a, b, e, alpha, beta = theta
        first, second = a - alpha * x, b - beta * y
        top = np.maximum(np.maximum(first, second), e)
        first, second, third = np.exp(first - top), np.exp(second - top), np.exp(e - top)
        total = first + second + third
        residual = top + np.log(total) - target
        clipped = np.clip(residual, -DELTA, DELTA)
        first, second = first / total * clipped, second / total * clipped
        return clipped @ (residual - clipped / 2), np.array([first.sum(), second.sum(), clipped @ (third / total), -(first @ x), -(second @ y)])

    return value_and_gradient


def plain(xp):
    """The same sum as the replication writes it, in an array namespace that can be differentiated."""

    def value(theta, params, tokens, losses):
        a, b, e, alpha, beta = theta
        predicted = xp.log(xp.exp(a - alpha * xp.log(params)) + xp.exp(b - beta * xp.log(tokens)) + xp.exp(e))
        off = xp.abs(xp.log(losses) - predicted)
        return xp.sum(xp.where(off <= DELTA, 0.5 * off**2, DELTA * (off - 0.5 * DELTA)))

    return value


def automatic():
    """(name, value, gradient) of `plain` from autograd or, without it, from JAX, one point a call."""
    if importlib.util.find_spec("autograd"):
        import autograd
        import autograd.numpy as xp

        return "autograd", plain(xp), autograd.grad(plain(xp))
    import jax
    import jax.numpy as xp

    jax.config.update("jax_enable_x64", True)
    value, gradient = jax.jit(plain(xp)), jax.jit(jax.grad(plain(xp)))
    return "compiled jax.grad", lambda *a: float(value(*map(np.asarray, a))), lambda *a: np.asarray(gradient(*map(np.asarray, a)))


def spent(function, *arguments, repeats=1, **options):
    """(process seconds, wall seconds) as medians, and the last answer."""
    times = []
    for _ in range(repeats):
        began = time.process_time(), time.perf_counter()
        answer = function(*arguments, **options)
        times.append((time.process_time() - began[0], time.perf_counter() - began[1]))
    return np.median(times, axis=0), answer


def chosen(share):
    """A random share of the grid, and of the resamples their numbers."""
    rng = np.random.default_rng(1)
    return [GRID[i] for i in rng.permutation(len(GRID))[::share]], rng.permutation(RESAMPLES)[::share]


def descend(starts, solve):
    """The lowest point that `solve` reaches from any of the starts."""
    found = [solve(start) for start in starts]
    return min(found, key=lambda f: np.nan_to_num(f.fun, nan=np.inf)).x


def refit(data, numbers, solve):
    """Points reached by `solve(resampled data)` on the resamples of these numbers, as an array."""
    n = len(data[0])
    return np.array([solve([column[rows] for column in data]).x for rows in (np.random.default_rng(i).integers(n, size=n) for i in numbers)])


def scipy_peer(data, share, grid, resample):
    """The protocol in SciPy: (seconds of the grid, seconds of the resamples, best point, standard errors of alpha and beta), times scaled to all starts and resamples."""
    starts, numbers = chosen(share)
    first, best = spent(descend, starts, grid)
    second, points = spent(refit, data, numbers, lambda rows: resample(rows, best))
    return first * len(GRID) / len(starts), second * RESAMPLES / len(numbers), best, points[:, 3:].std(0, ddof=1)


def package():
    """The grid of the `chinchilla` package on the same sum of losses, as it comes: all cores, no gradients, extended precision; its plot is left out of the time."""
    from chinchilla import Chinchilla
    from chinchilla._metrics import log_huber

    with tempfile.TemporaryDirectory() as folder:
        fit = Chinchilla(folder, param_grid=COARSE, loss_fn=lambda true, predicted: len(true) * log_huber(true, predicted, DELTA), log_level=50)
        for params, tokens, loss in zip(*runs()[1], strict=True):
            fit.append(N=params, D=tokens, loss=loss)
        fit.visualizer.optim = lambda *_, **__: None
        times, _ = spent(fit.fit)
        workers = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = fit.params
    point = [*np.log([found[name] for name in "ABE"]), found["alpha"], found["beta"]]
    print(json.dumps([times[0] + workers.ru_utime + workers.ru_stime, times[1], *point]))


def ours(problem):
    """(seconds of the first run less a later one, seconds of the starts, seconds of the resamples, best point, standard errors of alpha and beta)."""

    def starts():
        return engine.solve(problem, Loss(DELTA), starts=len(GRID))[0]

    def resamples():
        return engine.resample(problem, theta, Loss(DELTA), resamples=RESAMPLES)

    cold, theta = spent(starts)
    cold = cold + spent(resamples)[0]
    first, theta = spent(starts, repeats=REPEATS)
    second, points = spent(resamples, repeats=REPEATS)
    values = dict(zip((p.name.rpartition(".")[2] for p in problem.parameters), theta, strict=True))
    places = [list(values).index(name) for name in ("alpha", "beta")]
    return cold - first - second, first, second, [*np.log([values[name] for name in "ABE"]), values["alpha"], values["beta"]], points[:, places].std(0, ddof=1)


def protocol():
    what, data = runs()
    value = by_hand(*data)
    problem = pose(catalogue.result("beyond-chinchilla.chinchilla_loss"), read_runs(dict(zip(("params", "tokens", "loss"), data, strict=True))))
    compiling, first, second, best, errors = ours(problem)
    lowest = value(best)[0]
    print(f"{what}, {len(data[0])} runs: {len(GRID)} starts and {RESAMPLES} resamples; one process, seconds of all its threads and of the clock")
    print(f"compiling, once for every law and table size: {compiling[0]:.1f} s of the process, {compiling[1]:.1f} s of the clock")
    heads = ("1 in", "starts", "resamples", "both", "ratio", "clock", "ratio", "Huber sum", "excess", "se alpha", "se beta")
    print(f"{'':64}" + "".join(f"{head:>{width}}" for head, width in zip(heads, WIDTHS, strict=True)))
    whole = first + second

    def row(label, share, first, second, point, errors, against=whole):
        both = first + (0 if second is None else second)
        reached = value(point)[0]
        cells = (
            share,
            f"{first[0]:.2f}",
            "" if second is None else f"{second[0]:.2f}",
            f"{both[0]:.2f}",
            f"{both[0] / against[0]:.1f}",
            f"{both[1]:.2f}",
            f"{both[1] / against[1]:.1f}",
        )
        cells += (f"{reached:.10f}", f"{reached / lowest - 1:.1e}", *(["", ""] if errors is None else [f"{error:.4f}" for error in errors]))
        print(f"{label:64}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)), flush=True)

    row("ours: the engine for every law", 1, first, second, best, errors)
    times, fit = spent(fit_chinchilla, *data, bootstrap=RESAMPLES, repeats=REPEATS)
    row("ours: the paper's own fit, from a grid of its own", 1, times, None, [*np.log([fit[k] for k in "ABE"]), fit["alpha"], fit["beta"]], [fit["se"]["alpha"], fit["se"]["beta"]])

    name, plainly, gradient = automatic()
    plainly(PAPER, *data), gradient(PAPER, *data)  # what there is to compile is compiled before the clock runs
    quasi = {"jac": gradient, "method": "BFGS"}
    for label, jac in (("automatic gradients", gradient), ("as published, differences for the grid", None)):
        found = scipy_peer(
            data,
            AUTOMATIC,
            lambda start, jac=jac: minimize(plainly, start, args=data, jac=jac, method="L-BFGS-B"),
            lambda rows, _: minimize(plainly, PAPER, args=tuple(rows), **quasi),
        )
        row(f"SciPy, {label} ({name})", AUTOMATIC, *found)

    def written(start):
        return minimize(value, start, jac=True, method="L-BFGS-B")

    for label, start in (("", lambda best: PAPER), (", resamples from its optimum", lambda best: best)):
        found = scipy_peer(data, WRITTEN, written, lambda rows, best, start=start: minimize(by_hand(*rows), start(best), jac=True, method="BFGS"))
        row(f"SciPy, gradients by hand{label}", WRITTEN, *found)
    if importlib.util.find_spec("chinchilla") is None:
        print("The `chinchilla` package is not installed: its row is missing.")
        return
    share = len(GRID) / np.prod([len(values) for values in COARSE.values()])
    *times, a, b, e, alpha, beta = json.loads(apart("package"))
    row("the chinchilla package, against our starts alone", share, np.array(times) * share, None, [a, b, e, alpha, beta], None, first)


def large(rows):
    """A table of so many rows, fitted and tested on its dearest fifth as by `lawbook fit`."""
    import lawbook

    table = dict(zip(("params", "tokens", "loss"), synthetic(rows), strict=True))
    times, ranking = spent(lawbook.fit, table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
    found = ", ".join(f"{name.rpartition('.')[2]} {constant:.5g}" for name, constant in ranking.best.parameters.items())
    print(f"{rows} rows, compiling included: {times[0]:.1f} s of the process, {times[1]:.1f} s of the clock, peak memory {peak:.2f} GiB; {found}")


def apart(*arguments):
    """What this file prints when it is run with these arguments, in a process that has neither our memory nor our threads."""
    return subprocess.run([sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True).stdout


def main(rows=1_000_000):
    with tempfile.TemporaryDirectory() as empty:  # nothing compiled by earlier runs
        os.environ["JAX_COMPILATION_CACHE_DIR"] = empty
        with threadpool_limits(1), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            protocol()
        print(apart("large", rows), end="")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["large", rows]:
            large(int(rows))
        case ["package"]:
            package()
        case sizes:
            main(*map(int, sizes))
