"""Tables as people bring them: CSV, TSV, Parquet, JSON lines, data frames, columns in a dict."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..contract import LawbookError
from .files import read_file
from .headers import NAMES, TEXT, NoNumber, looks_numeric, numbers, resolve, spellings, times

LONGEST = 10**8  # steps of a whole schedule
SURELY_FEW = 1e3  # params or tokens below this are more likely in millions or billions


@dataclass
class RunsTable:
    """Columns of training runs under the book's names; `said` tells what was renamed, scaled and derived, in words; `derived` names what was not in the table."""

    columns: dict[str, np.ndarray]
    said: list[str] = field(default_factory=list)
    derived: tuple[str, ...] = ()

    def __len__(self):
        return len(next(iter(self.columns.values()), ()))

    def numbers(self, name):
        """A column as floats, NaN where it has no value; LawbookError without it, or naming the first cell that is no number."""
        if name not in self.columns:
            raise LawbookError(f"T{self.lacks([name])[1:]}.")
        column = self.columns[name]
        return column.astype(float) if column.dtype.kind in "iufb" else numbers(column, name)[0]

    def lacks(self, names):
        """The sentence, without its full stop, that says which columns of `names` were looked for under which spellings, and what there is."""
        parts = [f"{name} (looked for {', '.join(spellings(name)[:8])}{', …' if len(spellings(name)) > 8 else ''})" for name in names if name not in self.columns]
        there = ", ".join([*self.columns][:12]) + (f" and {len(self.columns) - 12} more" if len(self.columns) > 12 else "")
        return f"the table has no column for {' or '.join(parts)}; it has {there}"

    def usable(self, names, positive=()):
        """The rows in which all of `names` and `positive` are finite numbers; what is dropped is counted in `said`.

        LawbookError names the rows in which one of `positive` is not above 0.
        """
        columns = {name: self.numbers(name) for name in dict.fromkeys([*names, *positive])}
        kept = np.ones(len(self), bool)
        for column in columns.values():
            kept &= np.isfinite(column)
        for name in positive:
            if (wrong := np.flatnonzero(kept & (columns[name] <= 0))).size:
                raise LawbookError(f"{name} ({listed(wrong)}) must be a number above 0; it was {columns[name][wrong[0]]:g}.")
        if not kept.all():
            reasons = [f"{name} {what} in {listed(rows)}" for name, column in columns.items() for what, bad in OUT.items() if (rows := np.flatnonzero(bad(column))).size]
            self.say(f"{(~kept).sum()} of {len(self)} rows are left out: {'; '.join(reasons)}")
        return np.flatnonzero(kept)

    @property
    def is_curve(self):
        """Whether this is one loss curve: steps and losses without sizes."""
        return "step" in self.columns and "params" not in self.columns and not {"curve", "schedule"} & self.columns.keys()

    def say(self, *sentences):
        """Each sentence once, whoever says it how often."""
        self.said += [sentence for sentence in dict.fromkeys(sentences) if sentence not in self.said]


OUT = {"has no value": np.isnan, "is infinite": np.isinf}


def listed(rows, most=5):
    """Rows counted from 1, in words."""
    more = f" and {len(rows) - most} more" if len(rows) > most else ""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(str(row + 1) for row in rows[:most])}{more}"


def read_runs(source):
    """The RunsTable of a path, a data frame, a dict of columns or a list of records; a RunsTable is returned as it is."""
    if isinstance(source, RunsTable):
        return source
    columns, said = _columns(source)
    if not columns or not len(next(iter(columns.values()))):
        raise LawbookError(f"The table{_of(source)} is empty: it has {'no columns' if not columns else 'no rows'}.")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise LawbookError(f"The columns of the table differ in length: {', '.join(f'{k} {v}' for k, v in lengths.items())}.")
    readings, conflicts = resolve(columns)
    table = RunsTable({}, said)
    for header, column in columns.items():
        reading = readings.get(header)
        if reading is None or (header != reading.name and reading.name not in TEXT and not looks_numeric(column)):
            table.columns[header] = column
            continue
        name, factor = reading.name, reading.factor
        if header != name:
            table.say(f"column {header!r} is read as {name}" + (f", {times(factor)}" if factor != 1 else ""))
        table.columns[name] = column
        if name not in TEXT:
            try:
                table.columns[name], about = numbers(column, name, header, factor)
                table.say(*about)
            except NoNumber:  # said by who needs the column
                if factor != 1:
                    raise
            if column.dtype.kind in "iub" and factor == 1:
                table.columns[name] = column
    table.say(*conflicts)
    _derive(table)
    _look_over(table)
    return table


def _derive(table):
    """What two of params, tokens and compute = 6 params tokens say of the third."""
    have = {name for name in ("params", "tokens", "compute") if name in table.columns}
    if len(have) < 2:
        return
    known = {name: table.numbers(name) for name in have}
    with np.errstate(all="ignore"):
        if "compute" not in have:
            missing, values, how = "compute", 6 * known["params"] * known["tokens"], "compute is derived as 6 params tokens"
        elif "tokens" not in have:
            missing, values, how = "tokens", known["compute"] / (6 * known["params"]), "tokens are derived as compute / (6 params)"
        elif "params" not in have:
            missing, values, how = "params", known["compute"] / (6 * known["tokens"]), "params are derived as compute / (6 tokens)"
        else:
            ratio = known["compute"] / (6 * known["params"] * known["tokens"])
            ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
            if len(ratio) and not 0.8 <= (middle := np.median(ratio)) <= 1.2:
                table.say(f"compute is {middle:.3g} times 6 params tokens in the median row: it is kept as given")
            return
    table.columns[missing] = np.where(np.isfinite(values), values, np.nan)
    table.derived = (missing,)
    table.say(how)


def _look_over(table):
    """Says what is legal but seldom meant: rows twice, columns that do not vary, sizes too small to be in units."""
    import polars as pl

    rows = pl.DataFrame({name: column if column.dtype.kind in "iufb" else [str(cell) for cell in column] for name, column in table.columns.items() if name not in table.derived})
    if twice := len(rows) - rows.n_unique():
        table.say(f"{twice} of {len(rows)} rows repeat another one; they are kept")
    constant = []
    for name in NAMES:
        column = table.columns.get(name)
        if column is None or column.dtype.kind not in "iuf":
            continue
        values = column[np.isfinite(column)]
        if len(values) > 1 and np.ptp(values) == 0:
            constant.append(f"{name} = {values[0]:.6g}")
        if name in ("params", "tokens") and len(values) and 0 < values.max() < SURELY_FEW and name not in table.derived:
            table.say(f"{name} are at most {values.max():g}: if that is a number of millions or billions, the header must say so, as in '{name} (B)'")
    if constant:
        table.say(f"the same in all rows: {', '.join(constant)}")


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
        logged = np.isfinite(rates) | np.isfinite(losses)  # loggers write other things in rows of their own
        if not logged.all():
            said.append(f"{(~logged).sum()} of {len(logged)} rows of {name} have neither learning_rate nor loss: they are left out")
            steps, rates, losses = steps[logged], rates[logged], losses[logged]
        if (lost := np.flatnonzero(~(np.isfinite(steps) & np.isfinite(rates)))).size or not len(steps):
            where = f"; {listed(np.flatnonzero(logged)[lost])} lack{'s' if len(lost) == 1 else ''} one" if len(lost) else ""
            raise LawbookError(f"Every row of {name} must have a step and a learning_rate{where}.")
        if (steps != np.floor(steps)).any() or steps.max() > LONGEST:
            raise LawbookError(f"The steps of {name} must be whole numbers of at most {LONGEST:,}; they reach {steps.max():g}.")
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
    for i in np.flatnonzero(change > 10 * np.maximum(np.median(change), 1e-3 * rates.max())) if len(change) else ():  # a jump, not a slope
        schedule[steps[i] + 1 : steps[i + 1]] = rates[i]
    first = steps[0] if warmup_steps is None else min(warmup_steps, steps[-1])
    schedule[:first] = np.linspace(0, rates[0], first) if first else schedule[:0]
    return schedule


def _of(source):
    return f" {source}" if isinstance(source, str | Path) else ""


def _columns(source):
    """(header -> column, sentences) of whatever holds a table; times become text, and what is neither number nor text is left out."""
    said = []
    if isinstance(source, str | Path):
        source, said = read_file(Path(source))
    if isinstance(source, dict):
        columns = {str(name): _array(column) if isinstance(column, list | tuple) else np.asarray(column) for name, column in source.items()}
    elif isinstance(source, list | tuple) and all(isinstance(row, dict) for row in source):
        names = list(dict.fromkeys(key for row in source for key in row))
        columns = {str(name): _array([row.get(name) for row in source]) for name in names}
    else:
        columns = _of_frame(source)
    found = {}
    for name, column in columns.items():
        if column.ndim != 1 or any(isinstance(cell, dict | list | np.ndarray) for cell in (column[:1000] if column.dtype.kind == "O" else ())):
            said.append(f"column {name!r} holds more than one value a row: it is left out")
        else:
            found[name] = column.astype(str) if column.dtype.kind in "mM" else column
    return found, said


def _array(cells):
    """Cells of any kind as a column: floats with NaN where all cells are numbers or missing, and the cells as they are otherwise."""
    if all(isinstance(cell, bool | np.bool_) for cell in cells) or not all(cell is None or isinstance(cell, int | float | np.number) for cell in cells):
        return np.array(cells, object)
    return np.array([np.nan if cell is None else cell for cell in cells])


def _of_frame(source):
    import narwhals as nw

    try:
        frame = nw.from_native(source)
    except TypeError:
        raise LawbookError(f"A table must be a path, a data frame, a dict of columns or a list of records; it was a {type(source).__name__}.") from None
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    return {str(name): np.asarray((frame[name].to_native() if frame[name].dtype == nw.String else frame[name]).to_numpy()) for name in frame.columns}
