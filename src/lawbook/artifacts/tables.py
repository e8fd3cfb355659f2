"""Tables as people bring them: CSV, TSV, Parquet, JSON lines, data frames, columns in a dict."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..contract import LawbookError, UnknownName

# spellings of the columns that laws speak of, once lower-cased with everything but letters and digits left out
NAMES = {
    "params": ("params", "n", "nparams", "parameters", "modelsize", "numparams"),
    "tokens": ("tokens", "d", "ntokens", "trainingtokens", "numtokens", "datasize"),
    "compute": ("compute", "c", "flops", "flop", "trainingflop", "trainingflops", "trainflops"),
    "loss": ("loss", "valloss", "validationloss", "evalloss", "finalloss", "testloss"),
    "learning_rate": ("learningrate", "lr"),
    "batch_size": ("batchsize", "bs", "batch"),
    "step": ("step", "steps", "iteration", "iter"),
    "schedule": ("schedule", "lrschedule"),
}


@dataclass
class RunsTable:
    """Columns of training runs under the book's names; `said` tells what was renamed and derived, in words."""

    columns: dict[str, np.ndarray]
    said: list[str] = field(default_factory=list)

    def __len__(self):
        return len(next(iter(self.columns.values()), ()))

    def numbers(self, name):
        """A column as floats; UnknownName without it, LawbookError naming the first cell that is no number."""
        if name not in self.columns:
            raise UnknownName("column", name, self.columns)
        return _numeric(self.columns[name], name)


def read_runs(source):
    """The RunsTable of a path, a data frame, a dict of columns or a list of records."""
    columns = _columns(source)
    if not columns or not len(next(iter(columns.values()))):
        raise LawbookError(f"The table{_of(source)} is empty: it has {'no columns' if not columns else 'no rows'}.")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise LawbookError(f"The columns of the table differ in length: {', '.join(f'{k} {v}' for k, v in lengths.items())}.")
    table = RunsTable({})
    for name, column in columns.items():
        known = _known_name(name)
        if known and known not in columns and known not in table.columns:
            table.said.append(f"column {name!r} is read as {known}")
            table.columns[known] = column
        else:
            table.columns[name] = column
    have = table.columns.keys()
    if {"params", "tokens"} <= have and "compute" not in have:
        table.columns["compute"] = 6 * table.numbers("params") * table.numbers("tokens")
        table.said.append("compute is derived as 6 params tokens")
    elif {"params", "compute"} <= have and "tokens" not in have:
        table.columns["tokens"] = table.numbers("compute") / (6 * table.numbers("params"))
        table.said.append("tokens are derived as compute / (6 params)")
    return table


def read_curves(sources, *, warmup_steps=None):
    """Several loss curves as one RunsTable with a column `curve`: one row a step, NaN where no loss was logged.

    Logs that skip steps get their schedule back: straight lines between logged learning rates, a jump held until it is logged, and before the first logged
    step a linear warm-up from 0 (over `warmup_steps`, or up to that step). `said` tells so.
    """
    if warmup_steps is not None and warmup_steps < 0:
        raise LawbookError(f"warmup_steps must be a whole number of at least 0; it was {warmup_steps}.")
    parts, said = [], []
    for source in sources:
        table = read_runs(source)
        name = Path(source).stem if isinstance(source, str | Path) else f"curve {len(parts) + 1}"
        steps, rates, losses = (table.numbers(column) for column in ("step", "learning_rate", "loss"))
        if not (np.isfinite(steps).all() and np.isfinite(rates).all()):
            raise LawbookError(f"Every row of {name} must have a step and a learning_rate.")
        order = np.argsort(steps, kind="stable")
        steps, rates, losses = steps[order].astype(int), rates[order], losses[order]
        if len(np.unique(steps)) < len(steps) or steps[0] < 0:
            raise LawbookError(f"The steps of {name} must be different and at least 0.")
        schedule = whole_schedule(steps, rates, warmup_steps)
        observed = np.full(len(schedule), np.nan)
        observed[steps] = losses
        if len(schedule) > len(steps):
            said.append(f"the schedule of {name} is rebuilt between its {len(steps)} logged steps")
        parts.append({"curve": np.full(len(schedule), name), "step": np.arange(len(schedule)), "learning_rate": schedule, "loss": observed})
    return RunsTable({key: np.concatenate([part[key] for part in parts]) for key in parts[0]}, said)


def whole_schedule(steps, rates, warmup_steps=None):
    """The learning rate of every step up to the last logged one."""
    steps, rates = np.asarray(steps, int), np.asarray(rates, float)
    every = np.arange(steps[-1] + 1)
    schedule = np.interp(every, steps, rates)
    change = np.abs(np.diff(rates))
    for i in np.flatnonzero(change > 10 * np.maximum(np.median(change), 1e-3 * rates.max())):  # a jump, not a slope
        schedule[steps[i] + 1 : steps[i + 1]] = rates[i]
    first = steps[0] if warmup_steps is None else min(warmup_steps, steps[-1])
    schedule[:first] = np.linspace(0, rates[0], first) if first else schedule[:0]
    return schedule


def _known_name(name):
    plain = re.sub(r"[^a-z0-9]", "", str(name).lower())
    return next((known for known, spellings in NAMES.items() if plain in spellings), None)


def _of(source):
    return f" {source}" if isinstance(source, str | Path) else ""


def _columns(source):
    if isinstance(source, RunsTable):
        return source.columns
    if isinstance(source, str | Path):
        return _read_file(Path(source))
    if isinstance(source, dict):
        return {str(k): np.asarray(v) for k, v in source.items()}
    if isinstance(source, list | tuple) and all(isinstance(row, dict) for row in source):
        names = list(dict.fromkeys(key for row in source for key in row))
        return {str(name): np.array([row.get(name, np.nan) for row in source]) for name in names}
    import narwhals as nw

    try:
        frame = nw.from_native(source, eager_only=True)
    except TypeError:
        raise LawbookError(f"A table must be a path, a data frame, a dict of columns or a list of records; it was a {type(source).__name__}.") from None
    return {str(name): np.asarray(frame[name].to_numpy()) for name in frame.columns}


def _read_file(path):
    import polars as pl

    readers = {
        ".csv": pl.read_csv,
        ".tsv": lambda p: pl.read_csv(p, separator="\t"),
        ".parquet": pl.read_parquet,
        ".jsonl": pl.read_ndjson,
        ".ndjson": pl.read_ndjson,
    }
    if path.suffix.lower() not in readers:
        raise LawbookError(f"The table {path} must be a {', '.join(readers)} file.")
    if not path.is_file():
        raise LawbookError(f"There is no file {path}.")
    try:
        frame = readers[path.suffix.lower()](path)
    except pl.exceptions.NoDataError:
        raise LawbookError(f"The table {path} is empty.") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        raise LawbookError(f"The table {path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    return {name: frame[name].to_numpy() for name in frame.columns}


def _numeric(column, name):
    if column.dtype.kind in "iufb":
        return column.astype(float)
    out = np.empty(len(column))
    for row, cell in enumerate(column):
        try:
            out[row] = np.nan if cell is None or cell == "" else float(cell)
        except (TypeError, ValueError):
            raise LawbookError(f"Column {name} must hold numbers; row {row + 1} holds {cell!r}.") from None
    return out
