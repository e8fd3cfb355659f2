"""The audit of a model's weights against WeightWatcher on the same weights: agreement of alpha, time and peak memory, each in a process of its own.

Usage: python benchmarks/weight_spectra.py MODEL ...   (model folders, .safetensors or .gguf files, or "large" for random matrices of the width of a language model)
A GGUF model is given to WeightWatcher dequantised. WeightWatcher and torch must be importable, for example from a folder in PYTHONPATH; without them only our side is
measured. CPU time is that of a process with one thread of linear algebra, wall time that with the threads that each takes by itself, the whole process with its imports.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

OURS = """
import json, resource, sys, time
import numpy
from lawbook.jobs.audit_weights import audit_weights
began, wall = time.process_time(), time.perf_counter()
found = audit_weights(sys.argv[1], decompose=False, resume=False)
spent = time.process_time() - began, time.perf_counter() - wall
alphas = {row["name"].removesuffix(".weight"): row["alpha"] for row in found.layers}
print(json.dumps([alphas, *spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
THEIRS = """
import json, logging, resource, sys, time
import weightwatcher
watcher = weightwatcher.WeightWatcher(model=sys.argv[1], log_level=logging.CRITICAL)
began, wall = time.process_time(), time.perf_counter()
found = watcher.analyze(**json.loads(sys.argv[2]))
spent = time.process_time() - began, time.perf_counter() - wall
alphas = dict(zip(found["longname"], found["alpha"]))
print(json.dumps([alphas, *spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
RUNS = 3
WAYS = (("WeightWatcher", {}), ("  with ERG", {"detX": True}), ("  with ERG and shuffled weights", {"detX": True, "randomize": True}))


def measured(code, *arguments):
    """(alphas by layer, {CPU seconds, wall seconds, seconds of the process, peak MiB}), the least of some runs each."""
    figures = []
    for settings in (ONE_THREAD, {}) * RUNS:
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True, env=os.environ | settings)
        alphas, cpu, wall, peak = json.loads(done.stdout.splitlines()[-1])
        figures.append((cpu if settings else np.inf, np.inf if settings else wall, np.inf if settings else time.perf_counter() - began, peak))
    return alphas, np.min(figures, axis=0)


def as_folder(path, folder):
    """A model as a folder of safetensors with its layers in single precision, as WeightWatcher reads it; a folder stays what it is."""
    if Path(path).is_dir():
        return path
    from safetensors.numpy import save_file

    from lawbook.artifacts.weights import open_weights

    if path == "large":
        rng = np.random.default_rng(0)
        layers = {f"layers.{i}.{name}.weight": rng.standard_t(4, shape) for i in range(2) for name, shape in (("down", (2048, 5504)), ("query", (2048, 2048)))}
    else:
        layers = {name: array for name, array in open_weights(path) if array.ndim > 1}
    save_file({name: array.astype(np.float32) for name, array in layers.items()}, Path(folder) / "model.safetensors")
    (Path(folder) / "config.json").write_text("{}")
    return folder


def main(models):
    there = all(importlib.util.find_spec(name) for name in ("weightwatcher", "torch"))
    if not there:
        print("WeightWatcher and torch are not importable here: only our side is measured.")
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            place = as_folder(model, folder) if there or model == "large" else model
            mine, figures = measured(OURS, place if model == "large" else model)
            print(f"\n{model}: {len(mine)} matrices\n{'':32}{'CPU s':>9}{'wall s':>9}{'process s':>11}{'peak MiB':>10}", flush=True)
            print(f"{'audit, all measures':32}{figures[0]:9.2f}{figures[1]:9.2f}{figures[2]:11.2f}{figures[3]:10.0f}", flush=True)
            for name, options in WAYS if there else ():
                theirs, spent = measured(THEIRS, place, json.dumps(options))
                ratios = ", ".join(f"{part / own:.1f}" for part, own in zip(spent, figures, strict=True))
                print(f"{name:32}{spent[0]:9.2f}{spent[1]:9.2f}{spent[2]:11.2f}{spent[3]:10.0f}   over ours: {ratios}", flush=True)
                if not options:
                    both = [layer for layer in theirs if layer in mine and np.isfinite(theirs[layer]) and np.isfinite(mine[layer])]
                    off = np.array([abs(theirs[layer] - mine[layer]) for layer in both])
        if there:
            print(f"alpha of {len(both)} layers: median difference {np.median(off):.2g}, largest {off.max():.2g}; {np.mean(off > 0.05):.1%} differ by more than 0.05")


if __name__ == "__main__":
    main(sys.argv[1:])
