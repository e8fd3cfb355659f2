"""Which columns of a table are what, and how each becomes a coordinate of a general form."""

import re
from dataclasses import dataclass

import numpy as np

from ..contract import LawbookError

TARGETS = ("loss", "error", "perplexity", "ppl", "bpb", "accuracy", "acc", "score", "brier", "nll", "reward", "metric", "exact_match", "bits_per_byte", "cross_entropy")
GROUPS = ("group", "model", "dataset", "family", "task", "domain", "corpus", "optimizer", "architecture")
FEWEST = 4  # rows of each entry of a text column under another name, for it to name groups


def inputs_and_targets(table):
    """(inputs, targets, group column or None) of a table of columns: numbers that vary, columns named as what runs are judged by, and the text column that names groups."""
    names = [name for name in table if name != "split"]
    words = {name: set(re.findall(r"[a-z0-9]+", str(name).lower())) for name in names}
    numeric = {name: floats(table[name]) for name in names}
    targets = [
        name
        for name in names
        if numeric[name] is not None and (any(word in str(name).lower() for word in ("loss", "perplexity", "accuracy", "cross_entropy")) or words[name] & {*TARGETS})
    ]
    text = [name for name in names if name not in targets and (numeric[name] is None or str(name).lower() == "group")]
    entries = {name: np.unique(np.asarray(table[name]).astype(str), return_counts=True)[1] for name in text}
    spoken = [name for known in GROUPS for name in text if known in words[name] and len(entries[name]) < len(table[name])]
    group = next(iter([*(name for name in spoken if str(name).lower() in GROUPS), *spoken, *(name for name in text if entries[name].min() >= FEWEST)]), None)
    inputs = []
    for name in names:
        values = numeric[name]
        if values is None or name in targets or name == group:
            continue
        good = values[np.isfinite(values)]
        if len(good) and np.ptp(good) > 1e-12 * np.abs(good).max():
            inputs.append(name)
    return inputs, targets, group


def floats(column):
    """A column as floats, or None where it holds text."""
    column = np.asarray(column)
    if column.dtype.kind in "iufb":
        return column.astype(float)
    try:
        return np.array([np.nan if cell is None or cell == "" else float(cell) for cell in column])
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True)
class Axis:
    """How a column becomes a coordinate: sign * ln(x / at), or sign * (x - at) / unit where it is taken as it is; a share is its own coordinate."""

    name: str
    role: str  # scale, plain, share
    at: float = 0.0
    unit: float = 1.0
    sign: int = 1
    count: bool = False  # whole numbers from 1 or little more, such as parallel streams or experts

    def coordinate(self, values):
        values = np.asarray(values, float)
        if self.role == "scale":
            if not np.all(values[np.isfinite(values)] > 0):
                raise LawbookError(f"Column {self.name} must be above 0, as in the fitted rows; the least is {np.nanmin(values):g}.")
            return self.sign * np.log(values / self.at)
        return self.sign * (values - self.at) / self.unit

    def text(self):
        """The coordinate, as it is written."""
        if self.role == "share":
            return self.name
        if self.role == "scale":
            return f"ln({self.name}/{self.at:g})" if self.sign > 0 else f"ln({self.at:g}/{self.name})"
        shifted = f"({self.name} {'-' if self.at >= 0 else '+'} {abs(self.at):g})"
        return f"{'' if self.sign > 0 else '-'}{shifted}" + (f"/{self.unit:g}" if self.unit != 1 else "")

    def power(self, exponent):
        """exp(-exponent * coordinate), as it is written."""
        if self.role == "scale":
            return f"({self.name}/{self.at:g})^{'-' if self.sign > 0 else ''}{exponent}"
        return f"exp(-{exponent} {self.text()})"


def read_axes(table, inputs, rows):
    """(axes, notes): the coordinate of each input, shares first recognised; constant columns and those that others determine are dropped, and said."""
    notes, kept = [], []
    values = {name: np.asarray(table[name], float)[rows] for name in inputs}
    for name in inputs:
        if np.ptp(values[name]) <= 1e-9 * np.abs(values[name]).max():
            notes.append(f"{name} is the same in all fitted rows and left out")
        else:
            kept.append(name)
    if not kept:
        raise LawbookError(f"A form needs an input that varies in the fitted rows; of {', '.join(inputs) or 'no columns'} none does.")
    shares = _shares({name: values[name] for name in kept})
    axes, independent = [], np.ones((len(rows), 1))
    for name in sorted(kept, key=lambda name: name in ("compute", "flops")):  # what the others determine is left out, compute first
        if name in shares:
            axes.append(Axis(name, "share"))
            continue
        axis = _axis(name, values[name])
        column = axis.coordinate(values[name])[:, None]
        left = column - independent @ np.linalg.lstsq(independent, column, rcond=None)[0]
        if np.abs(left).max() <= 1e-6 * np.ptp(column):
            notes.append(f"{name} follows from the other columns and is left out")
            continue
        independent = np.hstack([independent, column])
        axes.append(axis)
    return sorted(axes, key=lambda axis: kept.index(axis.name)), notes


def _shares(values):
    """Names of columns within [0, 1] that sum to 1 in every row: all such, or those of one stem."""
    small = [name for name, v in values.items() if v.min() >= -1e-9 and v.max() <= 1 + 1e-9]
    stems: dict = {}
    for name in small:
        stems.setdefault(re.sub(r"[\W_]*[^\W_]*$", "", str(name)) or re.sub(r"\d+$", "", str(name)), []).append(name)
    for members in (small, *stems.values()):
        if len(members) > 1 and np.abs(sum(values[name] for name in members) - 1).max() < 0.02:
            return set(members)
    return set()


def _axis(name, v):
    low, high = v.min(), v.max()
    logs = re.match(r"(log|ln)(10|2|e)?($|[\W_])", str(name).lower())
    if low > 0 and high / low >= 1.5 and not logs:
        whole = bool(np.all(v == np.round(v)) and low <= 4 and high <= 1e5)
        return Axis(name, "scale", at=1.0 if whole and low == 1 else _rounded(np.exp(np.log(v).mean())), count=whole)
    unit = {"10": 1 / np.log(10), "2": 1 / np.log(2)}.get(logs[2], 1.0) if logs else _rounded(v.std())
    return Axis(name, "plain", at=float(f"{v.mean():.3g}"), unit=float(f"{unit:.6g}"))


def _rounded(value):
    return float(f"{value:.2g}")
