"""The fit of the multi-power law to three loss curves against the authors' own code, in one run, one thread: ratios of times, objectives reached, forecasts of six other curves.

LAWBOOK_DATA names a folder with loss-curves. The authors' code runs where MULTI_POWER_LAW, or the argument, names a checkout of its repository and torch is installed: its search
for a start as it is, and of the 200 iterations of its optimiser one in ten, whose time is multiplied. The objective given for it is that of its published parameters.
Usage: python benchmarks/loss_curves.py [checkout]
"""

import contextlib
import importlib
import io
import os
import sys
import tempfile
from functools import partial

import numpy as np
from _timing import median_seconds
from threadpoolctl import threadpool_limits

from lawbook.artifacts.datasets import MissingData, load
from lawbook.chapters.scaling.multi_power_law import CROSS_VALIDATED, PUBLISHED, TEST, TRAIN, fit_multi_power_law, loss_curve, mean_metrics, whole
from lawbook.numerics.robust import huber

ITERATIONS, SHARE = 200, 10


def objective(curves, params):
    return sum(float(huber(np.log(loss_curve(c["learning_rates"], c["steps"], **params) / c["losses"]), 1e-3).sum()) for c in curves)


def official(checkout):
    """The authors' modules (fitting, data_loader, config), or a sentence why they cannot run."""
    if not checkout:
        return "The authors' code was not run: MULTI_POWER_LAW names no checkout of its repository."
    sys.path.insert(0, checkout)
    try:
        modules = [importlib.import_module(f"src.{name}") for name in ("fitting", "data_loader", "config")]
    except ImportError as missing:
        return f"The authors' code was not run: {missing}."
    importlib.import_module("torch").set_num_threads(1)
    return modules


def official_seconds(modules, checkout, size):
    """Process seconds of the authors' search for a start and of one iteration in SHARE of their optimiser."""
    fitting, loader, config = modules
    data = loader.load_data(os.path.join(checkout, config.FOLDER_PATHS[size.rstrip("M")]))
    with tempfile.TemporaryDirectory() as figures, contextlib.redirect_stderr(io.StringIO()):
        search, start = median_seconds(fitting.initialize_params, data, config.TRAIN_SET, repeats=1)
        starts = fitting.generate_init_params(start)
        descent, _ = median_seconds(fitting.mpl_adam_fit, data, config.TRAIN_SET, config.TEST_SET, starts, figures, max_steps=ITERATIONS // SHARE, repeats=1)
    return search, descent * SHARE


def row(label, seconds, ours, curves, tests, params):
    metrics = mean_metrics(partial(loss_curve, **params), tests)
    print(f"{label:44}{seconds:10.2f}{seconds / ours:12.1f}{objective(curves, params):13.4e}{metrics['r2']:10.5f}{metrics['mae']:9.5f}{metrics['worste']:9.5f}")


def fits(checkout):
    modules = official(checkout)
    try:
        sizes = load("loss-curves")
    except MissingData as missing:
        return print(missing)
    for size, data in sizes.items():
        curves, tests = whole(data, TRAIN), whole(data, TEST)
        print(f"\n{size}\n{'':44}{'seconds':>10}{'time/ours':>12}{'Huber sum':>13}{'mean R^2':>10}{'MAE':>9}{'worst':>9}")
        found = {weight: median_seconds(fit_multi_power_law, curves, prior_weight=weight, repeats=3) for weight in (CROSS_VALIDATED, 0.01, 0.0)}
        ours = found[CROSS_VALIDATED][0]
        for weight, (seconds, fit) in found.items():
            row({CROSS_VALIDATED: "ours, cross-validated prior", 0.01: "ours, prior of weight .01", 0.0: "ours, no prior"}[weight], seconds, ours, curves, tests, fit["params"])
        if isinstance(modules, list):
            search, descent = official_seconds(modules, checkout, size)
            row(f"the authors' code, {ITERATIONS // SHARE} iterations, scaled to {ITERATIONS}", search + descent, ours, curves, tests, PUBLISHED[size])
            print(f"  of which its search for a start took {search:.2f} s; with one prior for all, ours is {(search + descent) / found[0.01][0]:.0f} times as fast")
    if not isinstance(modules, list):
        print(f"\n{modules}")
    return None


if __name__ == "__main__":
    with threadpool_limits(1):
        fits(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MULTI_POWER_LAW"))
