"""The table of races that the chapters' benchmarks fill, its curves, and the picture of both."""

import importlib

import numpy as np
from _timing import median_seconds

ROWS, CURVES = [], []


def peer(name):
    """A package that may be missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def header():
    print(f"\n{'':52}{'ours, s':>10}  {'peer':28}{'peer, s':>10}{'ratio':>9}")


def row(problem, ours, other, theirs, difference=""):
    """A line of the table; `theirs` is None where there is no peer to run, and `difference` then says why."""
    ROWS.append((problem, ours, other, theirs, difference))
    own = f"{ours:10.3g}" if ours is not None else f"{'':10}"
    shown = f"{theirs:10.3g}{theirs / ours:9.3g}" if theirs is not None else f"{'not run':>19}"
    print(f"{problem:52}{own}  {other:28}{shown}  {difference}", flush=True)


def against(problem, ours, other, module, run, told, repeats=3, warm=False, why=None):
    """A row against a package: `run(package)` is timed, once before where it compiles (`warm`, that time is told apart), and `told(answer)` says what it reached."""
    package = peer(module)
    if package is None:
        return row(problem, ours, other, None, why or f"{module.split('.')[0]} is not installed")
    before = median_seconds(run, package, repeats=1)[0] if warm else None
    theirs, answer = median_seconds(run, package, repeats=repeats)
    return row(problem, ours, other, theirs, told(answer) + (f"; its first call {before:.2f} s" if warm else ""))


def curve(name, sizes, seconds, claimed, exponent):
    """Time against size with the fitted exponent; `claimed` in words, with its number for comparison."""
    fitted = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    CURVES.append((name, np.array(sizes), np.array(seconds), fitted, claimed))
    print(f"{name:52} exponent {fitted:.2f} over {sizes[0]:.3g} to {sizes[-1]:.3g}, claimed {claimed} ({exponent:.2f})", flush=True)


def picture(path):
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.fonttype"] = "none"  # text as text: the file stays small
    import matplotlib.pyplot as plt

    shown = [(f"{problem}: {other}", theirs / ours) for problem, ours, other, theirs, _ in ROWS if theirs is not None][::-1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, max(5, 0.14 * len(shown))), width_ratios=(1.1, 1), layout="constrained")
    left.barh(range(len(shown)), [ratio for _, ratio in shown], color=["#4477aa" if ratio >= 1 else "#cc6677" for _, ratio in shown])
    left.set(xscale="log", xlabel="time of the peer / ours", yticks=range(len(shown)), ylim=(-0.6, len(shown) - 0.4))
    left.set_yticklabels([name for name, _ in shown], fontsize=5.5)
    left.axvline(1, color="black", linewidth=0.8)
    for i, (name, sizes, seconds, fitted, claimed) in enumerate(CURVES):
        right.loglog(sizes, seconds, "o-" if i < 10 else "s--", markersize=3, label=f"{name}: {fitted:.2f} (claimed {claimed})")
    right.set(xlabel="size", ylabel="seconds of processor time")
    right.set_ylim(top=30 * max(seconds.max() for _, _, seconds, _, _ in CURVES))
    right.legend(fontsize=7, loc="upper left")
    figure.savefig(path)
