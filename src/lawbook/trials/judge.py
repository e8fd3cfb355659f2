"""Run a trial: the claim, then each negative control on the same stream, and the verdict from both."""

import inspect
import platform
import time
import warnings
from importlib import metadata

from ..contract import Caution, Verdict
from ..numerics import generator


def versions():
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in ("lawbook", "numpy", "scipy")}}


def run_trial(trial, *, seed=0, effort="quick", data=None, progress=None):
    """The Verdict on a Trial. Its function gets `data` (the data set the trial names) and `effort` where it has parameters of these names;
    `progress` is called once for every draw."""
    began = time.perf_counter()
    n = trial.quick if effort == "quick" else trial.full
    wanted = inspect.signature(trial.function).parameters
    passed = {name: value for name, value in (("data", data), ("effort", effort)) if name in wanted}

    def outcome(claim, *, stop_early, progress=None):
        rng = generator(seed, trial.paper.slug, trial.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Caution)  # trials go to the edge on purpose
            return trial.form.judge(lambda draw: trial.function(draw, claim, **passed), rng, n, stop_early=stop_early, progress=progress)

    found = outcome(trial.claim, stop_early=False, progress=progress)
    controls = []
    for name, wrong in trial.controls.items():
        told = outcome(wrong, stop_early=True)
        controls.append({"name": name, "rejected": told.status == "violated", "status": told.status, "reason": told.reason})
    status, reason = found.status, found.reason
    missed = [control["name"] for control in controls if not control["rejected"]]
    if missed and status == "upheld":
        status, reason = "inconclusive", f"The trial could not reject its negative control ({'; '.join(missed)}), so its passing says nothing. {reason}"
    return _verdict(trial, status, reason, found, controls, seed, effort, began)


def undecided(trial, reason, *, seed=0, effort="quick"):
    """The verdict on a trial that could not be held, with the reason."""
    return _verdict(trial, "inconclusive", reason, None, [], seed, effort, time.perf_counter())


def _verdict(trial, status, reason, found, controls, seed, effort, began):
    return Verdict(
        paper=trial.paper.slug,
        trial=trial.name,
        form=trial.form.name,
        results=trial.results,
        status=status,
        reason=reason,
        samples=found.samples if found else 0,
        confidence=found.confidence if found else None,
        tightness=found.tightness if found else {},
        worst=found.worst if found else {},
        controls=controls,
        seed=seed,
        effort=effort,
        versions=versions(),
        seconds=time.perf_counter() - began,
    )
