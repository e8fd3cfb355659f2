"""What the benchmarks share."""

import time

import numpy as np


def median_seconds(function, *arguments, repeats=5, **options):
    """Median of the process's own time, so that other work on the machine counts as little as possible; and the last answer."""
    spent = []
    for _ in range(repeats):
        began = time.process_time()
        answer = function(*arguments, **options)
        spent.append(time.process_time() - began)
    return float(np.median(spent)), answer
