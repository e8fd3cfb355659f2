"""Larger models of a family foretold from its smallest by Sloth, on Open LLM Leaderboard v1: mean absolute errors and the ratio of times, ours beside the official code.

LAWBOOK_DATA names a folder with leaderboard/data_v1.csv and lower_bounds.csv. Where SLOTH names a checkout of the official code, and torch, tqdm and factor_analyzer are
installed, it runs with its own settings (Adam at three learning rates, up to 100,000 epochs each, early stop) on the same models, features and floors.
Usage: python benchmarks/leaderboard.py [every], to fit one family in `every`.
"""

import os
import sys
from pathlib import Path

import numpy as np
from _timing import median_seconds
from threadpoolctl import threadpool_limits

from lawbook.artifacts.datasets import MissingData, load
from lawbook.chapters.scaling.sloth_skills import SCORES, features, forecast, forecast_alone, held_out, leaderboard
from lawbook.contract import DomainError
from lawbook.jobs.scores import fit_scores


def official_code():
    """The class that fits, or None where it is not at hand."""
    folder = os.environ.get("SLOTH")
    if not folder:
        return None
    sys.path.insert(0, str(Path(folder) / "sloth"))
    import torch

    torch.set_num_threads(1)
    from sloth import Sloth

    return Sloth


def official(model, models, test, floors, skills=2):
    """Its scores of the models in `test`."""
    x, families = features(models["params"], models["tokens"]), np.array(models["families"])
    one_hot = np.eye(len(np.unique(families)))[np.unique(families, return_inverse=True)[1]]
    fitted = model(d=skills)
    fitted.fit(x[~test], one_hot[~test], models["scores"][~test], floors[None], verbose=False)
    return fitted.predict(x[test], one_hot[test])


def tests_of(models, families, sizes):
    """Family -> its models beyond its `sizes` smallest sizes."""
    found = {}
    for name in families:
        try:
            found[name] = held_out(models["params"], models["families"], name, sizes)
        except DomainError:
            continue  # too few sizes
    return found


def ways(models, floors, model):
    """Name -> scores of the models in `test`."""
    x = features(models["params"], models["tokens"])
    columns = models["params"], models["tokens"], models["families"], models["scores"]
    found = {
        "ours, 2 skills": lambda test: forecast(x, models["families"], models["scores"], test, floors),
        "ours, 2 skills, no floors": lambda test: forecast(x, models["families"], models["scores"], test, 0 * floors),
        "ours, curve in compute": lambda test: forecast_alone(*columns, test, floors),
    }
    return found | ({"official code, 2 skills": lambda test: official(model, models, test, floors)} if model else {})


def compare(every):
    try:
        models, floors, families = leaderboard(load("leaderboard"))
    except MissingData as missing:
        return print(missing)
    model = official_code()
    for sizes in (1, 2):
        tests = tests_of(models, families, sizes)
        tests = {name: tests[name] for name in list(tests)[::every]}
        print(
            f"\n{sizes} size{'s' if sizes > 1 else ''} of the family kept, {len(tests)} families\n{'':32}{'mean error':>12}{'worst family':>14}{'s a family':>12}{'time/ours':>11}"
        )
        first = None
        for label, foretell in ways(models, floors, model).items():
            spent, errors = [], []
            for test in tests.values():
                seconds, scores = median_seconds(foretell, test, repeats=1)
                spent.append(seconds)
                errors.append(np.abs(scores - models["scores"][test]).mean())
            first = first or np.mean(spent)
            print(f"{label:32}{np.mean(errors):12.4f}{np.max(errors):14.4f}{np.mean(spent):12.3f}{np.mean(spent) / first:11.1f}", flush=True)
    table = {name: models[name] for name in ("params", "tokens")} | {"family": models["families"]} | dict(zip(SCORES, models["scores"].T, strict=True))
    for sizes in (1, 2):
        spent, found = median_seconds(fit_scores, table, train_sizes=sizes, repeats=1)
        print(f"\nours, settings by cross-validation without the families' held-out models, {sizes} kept: {found.error:.4f} over all families ({spent:.0f} s in all)", flush=True)


if __name__ == "__main__":
    with threadpool_limits(1):
        compare(*map(int, sys.argv[1:]) if len(sys.argv) > 1 else [1])
