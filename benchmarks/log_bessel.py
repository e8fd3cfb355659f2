"""log I, log K and the ratio of neighbours against SciPy, one thread: failures, deviations and ratios of medians. Usage: python benchmarks/log_bessel.py [points]"""

import os
import subprocess
import sys
import tempfile
import time

import numpy as np

from lawbook.chapters.mathematics.log_bessel import bessel_ratio, log_bessel_i, log_bessel_k

FIRST_CALLS = """
import time
began = time.perf_counter()
from lawbook.chapters.mathematics.log_bessel import bessel_ratio, log_bessel_i, log_bessel_k
for function in (log_bessel_i, log_bessel_k, bessel_ratio):
    function(1.0, 1.0)
print(time.perf_counter() - began)
"""


def first_calls():
    """Seconds until all three have answered once in a new process: with nothing compiled yet, and from the cache that the first one left."""
    with tempfile.TemporaryDirectory() as cache:
        runs = [subprocess.run([sys.executable, "-c", FIRST_CALLS], env=os.environ | {"NUMBA_CACHE_DIR": cache}, capture_output=True, check=True) for _ in range(2)]
    return [float(run.stdout) for run in runs]


def median_seconds(function, *arguments, repeats=5):
    """Median of the thread's own time, so that other work on the machine counts as little as possible."""
    spent = []
    for _ in range(repeats):
        began = time.thread_time()
        function(*arguments)
        spent.append(time.thread_time() - began)
    return float(np.median(spent))


def log_bessel(points=10**6):
    from scipy.special import ive, kve

    scipy = {"log I": lambda v, x: np.log(ive(v, x)) + x, "log K": lambda v, x: np.log(kve(v, x)) - x, "ratio": lambda v, x: ive(v + 1, x) / ive(v, x)}
    ours = {"log I": log_bessel_i, "log K": log_bessel_k, "ratio": bessel_ratio}
    cold, cached = first_calls()
    print(f"import and first calls: {cold:.2f} s with compilation, {cached:.2f} s from the cache")
    print(f"\n{points} points, order and x log-uniform\n{'':7}{'range':>14}{'SciPy':>10}{'ours':>10}{'SciPy/ours':>12}{'SciPy fails':>13}{'ours fails':>12}{'deviation':>11}")
    for low, high in ((0.1, 3162), (0.1, 10), (10, 3162)):
        v, x = low * (high / low) ** np.random.default_rng(0).uniform(size=(2, points))
        with np.errstate(all="ignore"):
            for name, reference in scipy.items():
                theirs, mine = reference(v, x), ours[name](v, x)
                both = np.isfinite(theirs) & np.isfinite(mine) & (theirs != 0)
                deviation = np.max(np.abs(theirs - mine)[both] / (np.abs(mine) if name == "ratio" else np.maximum(1, np.abs(mine)))[both])
                seconds = median_seconds(reference, v, x), median_seconds(ours[name], v, x)
                failures = 1 - np.isfinite(theirs).mean(), 1 - np.isfinite(mine).mean()
                print(
                    f"{name:7}{f'{low:g}-{high:g}':>14}{seconds[0]:9.3f}s{seconds[1]:9.3f}s{seconds[0] / seconds[1]:12.2f}"
                    f"{100 * failures[0]:12.1f}%{100 * failures[1]:11.1f}%{deviation:11.1e}"
                )


if __name__ == "__main__":
    log_bessel(*map(int, sys.argv[1:]))
