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
    adult               columns of the census records, training and test part together (`part`): age, workclass, ..., sex, ..., native_country, income (0 or 1)
    ihdp                columns treatment, outcome, counterfactual, mean_untreated, mean_treated, covariates[n, 25]
    accept-reject       records {prompt, accepted, refused: lists of text}; offensive in part, never to be shown
    judged-answers      questions {question_id, category, question, answers: [{score, text}]}
    watermark-example   records {prompt, continuations: lists of text}
    rna-motifs          columns motif, target, constraint, rivals of motifs that no sequence folds into; puzzles {number, name, structure}; natural structures
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
        "adult": _adult,
        "ihdp": _ihdp,
        "accept-reject": _accept_reject,
        "judged-answers": lambda: _json_lines(folder("judged-answers") / "answers.jsonl"),
        "watermark-example": _watermark_example,
        "rna-motifs": _rna_motifs,
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
    place = folder("limit-small")
    documents, queries = ([row["_id"] for row in _json_lines(place / f"{kind}.jsonl")] for kind in ("corpus", "queries"))
    relevance = np.zeros((len(queries), len(documents)), int)
    for row in _json_lines(place / "qrels.jsonl"):
        relevance[queries.index(row["query-id"]), documents.index(row["corpus-id"])] = row["score"] > 0
    return {"queries": queries, "documents": documents, "relevance": relevance}


def _json_lines(path):
    import json

    with Path(path).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


ADULT = "age workclass final_weight education education_years marital_status occupation relationship race sex capital_gain capital_loss hours_per_week native_country"
ADULT_COLUMNS = (*ADULT.split(), "income")


def _adult():
    rows = []
    for part, name in (("train", "adult.data"), ("test", "adult.test")):
        with (folder("adult") / name).open(newline="") as lines:
            rows += [[*row[:-1], str(int(row[-1].startswith(">"))), part] for row in csv.reader(lines, skipinitialspace=True) if len(row) == len(ADULT_COLUMNS)]
    return {key: _floats(values) for key, values in zip([*ADULT_COLUMNS, "part"], map(list, zip(*rows, strict=True)), strict=True)}


def _ihdp():
    values = np.loadtxt(folder("ihdp") / "ihdp_npci_1.csv", delimiter=",")
    names = ("treatment", "outcome", "counterfactual", "mean_untreated", "mean_treated")
    return dict(zip(names, values.T[: len(names)], strict=True)) | {"covariates": values[:, len(names) :]}


def _accept_reject():
    rows = _json_lines(folder("accept-reject") / "accept_reject.jsonl")
    return [{"prompt": row["prompt"], "accepted": row["acc_responses"], "refused": row["rej_responses"]} for row in rows]


def _watermark_example():
    rows = _json_lines(folder("watermark-example") / "example.jsonl")
    return [{"prompt": row["title"], "continuations": [text for texts in row["comments"].values() for text in texts]} for row in rows]


def _rna_motifs():
    import ast

    place = folder("rna-motifs")
    columns, puzzles = read_columns(place / "results.uniq.csv"), read_columns(place / "eterna100.csv")
    described = zip(puzzles["Puzzle #"].astype(int).tolist(), puzzles["Puzzle Name"].tolist(), puzzles["Secondary Structure"].tolist(), strict=True)
    return {
        "motif": columns["Motif"].tolist(),
        "target": columns["Target"].tolist(),
        "constraint": columns["Constr"].tolist(),
        "rivals": [ast.literal_eval(text) for text in columns["Rivals"].tolist()],
        "puzzles": [{"number": number, "name": name, "structure": structure} for number, name, structure in described],
        "natural": (place / "archiveii1144.txt").read_text().split(),
    }
