"""Tables that ship with lawbook (its own ladder of training runs), and named data sets in a folder of the reader's."""

import csv
import os
from pathlib import Path

import numpy as np

from ..contract import LawbookError, UnknownName

SHIPPED = Path(__file__).resolve().parent / "ladder"
DATA = "LAWBOOK_DATA"  # the folder in which the named data sets lie


class MissingData(LawbookError):
    """A data set that is not on this machine."""


def load(name):
    """The data set `name`; MissingData says where it was looked for.

    ladder              columns of our training runs: params, tokens, compute, learning_rate, batch_size, schedule, loss, seed
    ladder-curves       schedule -> {learning_rates[T], steps[m], losses[m]} of our loss curves at one size
    loss-curves         size -> curve name -> {learning_rates[T], steps[m], losses[m]} (25M, 100M)
    chinchilla-figure4  columns params, compute, tokens, loss of the 245 runs read off the Chinchilla paper
    llm-runs            columns compute, params, tokens, loss of 234 training runs
    scaling-tasks       task -> columns with `split` ("train", "test"): parallel, sft, moe, data_constrained, domain_mix
    leaderboard         table -> columns: data_v1, base_llm_benchmark_eval, base_llm_emergent_capability_eval, tokens, lower_bounds
    limit-small         {queries, documents: ids; relevance: matrix[queries, documents]}
    """
    loaders = {
        "ladder": lambda: read_columns(SHIPPED / "runs.csv"),
        "ladder-curves": _ladder_curves,
        "loss-curves": _loss_curves,
        "chinchilla-figure4": _chinchilla_figure,
        "llm-runs": _llm_runs,
        "scaling-tasks": lambda: _tables("scaling-tasks"),
        "leaderboard": lambda: _tables("leaderboard"),
        "limit-small": _limit_small,
    }
    if name not in loaders:
        raise UnknownName("data set", name, loaders)
    return loaders[name]()


def folder(name):
    root = os.environ.get(DATA)
    place = Path(root or ".") / name
    if not root or not place.is_dir():
        raise MissingData(f"The data set {name} is not here{f' ({place})' if root else ''}: set {DATA} to the folder that holds it.")
    return place


def read_columns(path):
    """A CSV file as name -> array, of floats where every cell is a number and of text otherwise."""
    with Path(path).open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    return {key: _floats(values) for key, values in columns.items()}


def _floats(values):
    try:
        return np.array([float(v) if v else np.nan for v in values])
    except ValueError:
        return np.array(values)


def _curve(columns):
    seen = ~np.isnan(columns["loss"])
    rates = columns["learning_rate"] if "learning_rate" in columns else columns["lr"]
    return {"learning_rates": rates, "steps": columns["step"][seen].astype(int), "losses": columns["loss"][seen]}


def _ladder_curves():
    columns = read_columns(SHIPPED / "curves.csv")
    names = list(dict.fromkeys(columns["schedule"].tolist()))
    return {name: _curve({key: values[columns["schedule"] == name] for key, values in columns.items()}) for name in names}


def _loss_curves():
    """The rows' `lr` is that of each logged step only: the whole schedule is rebuilt by who fits."""
    place = folder("loss-curves")
    return {size: {path.stem: _curve(read_columns(path)) for path in sorted((place / size).glob("*.csv"))} for size in ("25M", "100M")}


def _chinchilla_figure():
    columns = read_columns(folder("chinchilla-figure4") / "runs.csv")
    params, compute = columns["Model Size"], columns["Training FLOP"]
    return {"params": params, "compute": compute, "tokens": compute / (6 * params), "loss": columns["loss"]}


def _llm_runs():
    columns = read_columns(folder("llm-runs") / "runs.csv")
    return {"compute": columns["C"], "params": columns["N"], "tokens": columns["D"], "loss": columns["loss"]}


def _tables(name):
    return {path.stem: read_columns(path) for path in sorted(folder(name).glob("*.csv"))}


def _limit_small():
    import json

    place = folder("limit-small")
    documents, queries = ([json.loads(line)["_id"] for line in (place / f"{kind}.jsonl").read_text().splitlines()] for kind in ("corpus", "queries"))
    relevance = np.zeros((len(queries), len(documents)), int)
    for line in (place / "qrels.jsonl").read_text().splitlines():
        row = json.loads(line)
        relevance[queries.index(row["query-id"]), documents.index(row["corpus-id"])] = row["score"] > 0
    return {"queries": queries, "documents": documents, "relevance": relevance}
