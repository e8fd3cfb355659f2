"""Evaluate a result for given arguments; any numeric argument may be a sweep."""

import math
import re
import warnings
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from ..contract import Caution, DomainError, LawbookError, Result, Shown, catalogue
from ..contract.numbers import parse_number
from ..contract.quantity import INT, Array, Number, Record, Table

MOST_POINTS = 1_000_000
PART = 32  # points of a grid that one task evaluates
POINTS = 50  # of a sweep that does not say
SCALES = {"log": "log", "lin": "linear", "linear": "linear"}


@dataclass(frozen=True)
class Answer(Shown):
    """The value of a result for its arguments, with the cautions that belong to it."""

    result: Result
    arguments: dict[str, Any]
    value: Any
    cautions: list[str] = field(default_factory=list)

    def to_dict(self):
        return {"result": self.result.id, "arguments": self.arguments, "value": self.value, "unit": self.result.returns.unit, "cautions": self.cautions}

    def columns(self):
        """The value as a table: name -> list of cells."""
        return as_columns(self.value, self.result)

    def __float__(self):
        return float(self.value)

    def __repr__(self):
        return f"{self.result.id} = {self.value!r}" + (f" {self.result.returns.unit}" if self.result.returns.unit else "")


@dataclass(frozen=True)
class Sweep(Shown):
    """A result over a grid of arguments: one row a point, first the swept arguments, then the answer."""

    result: Result
    axes: dict[str, np.ndarray]
    arguments: dict[str, Any]
    rows: dict[str, list]
    cautions: list[str] = field(default_factory=list)

    def to_dict(self):
        return {"result": self.result.id, "arguments": self.arguments, "sweeps": list(self.axes), "rows": self.rows, "cautions": self.cautions}

    def columns(self):
        return self.rows

    def __repr__(self):
        return f"<sweep of {self.result.id} over {', '.join(self.axes)}: {len(next(iter(self.rows.values())))} points>"


def run(identifier, arguments=None, /, *, progress=None, spread=map, **given):
    """The Answer of result `slug.name`, or a Sweep where a numeric argument is one: "4k:1M:log:50", "1,2,4", a list or an array.

    Several sweeps make a grid. Raises DomainError outside the domain; points of a sweep outside it become NaN with a caution. `arguments` is a dict of more arguments, for
    those that have the name of an option here. `spread` maps a function over parts of the grid, as `map` or the `map` of workers do.
    """
    result = catalogue.result(identifier) if isinstance(identifier, str) else identifier
    given = {**(arguments or {}), **given}
    axes = {name: axis for name, value in given.items() if name in result.arguments and (axis := sweep_of(value, name, result.arguments[name])) is not None}
    if axes:
        return _sweep(result, axes, {k: v for k, v in given.items() if k not in axes}, progress, spread)
    bound = result.bind(given)
    value, said = call(result, bound)
    return Answer(result, bound, value, said)


def call(result, bound):
    """(value, cautions) of one call with validated arguments."""
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        value = result.function(**bound)
    value = value.item() if isinstance(value, np.generic) else value
    return value, list(dict.fromkeys(result.cautions(bound) + [str(w.message) for w in caught if issubclass(w.category, Caution)]))


def sweep_of(value, name, quantity):
    """The values that a sweep goes through, or None where `value` is no sweep."""
    if not isinstance(quantity, Number):
        return None
    if isinstance(value, str) and ":" in value:
        values = _ruler(value, name, quantity)
    elif isinstance(value, str) and "," in value:
        values = [part.strip() for part in value.split(",") if part.strip()]
    elif isinstance(value, list | tuple | range) or getattr(value, "ndim", 0) == 1:
        values = list(value)
    else:
        return None
    if not values:
        raise DomainError(f"{name} is a sweep without values.")
    if len(values) > MOST_POINTS:
        raise _too_many(len(values))
    return np.array([quantity.read(v, name) for v in values])


def _ruler(text, name, quantity):
    """low:high with log or lin and a number of points in any order, such as 4k:1M:log:50."""
    low, high, *rest = text.split(":")
    low, high = (quantity.read(end, name) for end in (low, high))
    scale, points = quantity.scale, POINTS
    for word in rest:
        if word in SCALES:
            scale = SCALES[word]
        elif re.fullmatch(r"[\d_]+([kKMBGT]|e\d+)?", word):
            points = int(parse_number(word, f"the number of points of {name}"))
        else:
            raise DomainError(f"{name} was {text!r}: a sweep is low:high, then log or lin and a number of points, such as 4k:1M:log:50.")
    if points > MOST_POINTS:
        raise _too_many(points)
    if points < 1 or (scale == "log" and not (low > 0 and high > 0)):
        raise DomainError(f"{name} was {text!r}: {'a sweep needs at least 1 point' if points < 1 else 'a log sweep needs ends above 0'}.")
    values = np.geomspace(low, high, points) if scale == "log" else np.linspace(low, high, points)
    return list(dict.fromkeys(int(round(v)) for v in values)) if quantity.type is INT else values.tolist()


def _too_many(points):
    return LawbookError(f"A sweep may have at most {MOST_POINTS:,} points; this one has {points:,}.")


def _sweep(result, axes, fixed, progress, spread):
    total = math.prod(len(values) for values in axes.values())
    if total > MOST_POINTS:
        raise _too_many(total)
    names = list(axes)
    first = {**fixed, **{name: values[0].item() for name, values in axes.items()}}
    bound = result.bind(first)  # what is wrong at every point is said once
    grid = dict(zip(names, (g.ravel() for g in np.meshgrid(*axes.values(), indexing="ij")), strict=True))
    said: dict[str, None] = {}
    if result.closed_form and not result.requires and isinstance(result.returns, Number):
        values, cautions = call(result, {**bound, **grid})
        rows = {**{name: g.tolist() for name, g in grid.items()}, _column(result): np.broadcast_to(values, (total,)).tolist()}
        for name, swept in axes.items():
            for end in (swept.min(), swept.max()):
                said.update(dict.fromkeys(result.cautions({**bound, name: end.item()})))
        return Sweep(result, axes, bound, rows, list(dict.fromkeys([*cautions, *said])))
    answers: list = []
    outside, reason = 0, ""
    points = list(product(*(values.tolist() for values in axes.values())))
    tasks = [(result, fixed, names, points[i : i + PART]) for i in range(0, total, PART)]
    for part in spread(_points, tasks):
        for value, cautions, refused in part:
            said.update(dict.fromkeys(cautions))
            outside, reason = outside + (refused is not None), reason or refused or ""
            answers.append(value)
        if progress:
            progress(len(answers), total)
    if outside == total:
        raise DomainError(f"Every point of the sweep lies outside the domain: {reason}")
    if outside:
        said[f"{outside} of {total} points lie outside the domain: {reason}"] = None
    rows = {name: g.tolist() for name, g in grid.items()}
    shape = next(value for value in answers if value is not None)
    for name, pick in _cells(shape, result):
        column = f"answer.{name}" if name in axes else name  # a field with the name of a swept argument
        rows[column] = [math.nan if value is None else pick(value) for value in answers]
    return Sweep(result, axes, bound, rows, list(said))


def _points(task):
    """(value, cautions, why it was refused) of each point of a part of a grid."""
    result, fixed, names, points = task
    found: list = []
    for point in points:
        try:
            found.append((*call(result, result.bind({**fixed, **dict(zip(names, point, strict=True))})), None))
        except DomainError as error:
            found.append((None, [], str(error)))
    return found


def _column(result):
    return result.observes or result.name


def _cells(value, result):
    """(column name, how to pick it) for each field of an answer."""
    if not isinstance(value, dict):
        return [(_column(result), lambda v: v if not hasattr(v, "item") or np.ndim(v) else v.item())]

    def picks(record, path):
        for key, inner in record.items():
            if isinstance(inner, dict):
                yield from picks(inner, (*path, key))
            else:
                yield ".".join((*path, key)), (*path, key)

    def picker(path):
        def pick(v):
            for key in path:
                v = v[key]
            return v.item() if hasattr(v, "item") and np.ndim(v) == 0 else v

        return pick

    return [(name, picker(path)) for name, path in picks(value, ())]


def as_columns(value, result):
    """Any answer as columns of cells: a record has one row, a vector one row an entry, a matrix a column a column."""
    if isinstance(result.returns, Table):
        return {key: list(np.asarray(column, dtype=object)) for key, column in value.items()}
    if isinstance(result.returns, Record) or isinstance(value, dict):
        return {name: [pick(value)] for name, pick in _cells(value, result)}
    if isinstance(result.returns, Array) or np.ndim(value) > 0:
        array = np.asarray(value)
        if array.ndim == 1:
            return {_column(result): array.tolist()}
        flat = array.reshape(array.shape[0], -1)
        return {f"{_column(result)}[{j}]": flat[:, j].tolist() for j in range(flat.shape[1])}
    return {_column(result): [value.item() if hasattr(value, "item") else value]}


def unit_of(result, column):
    """The unit of a column of an answer or of a swept argument."""
    if column in result.arguments:
        return result.arguments[column].unit
    quantity = result.returns
    for key in column.removeprefix("answer.").split("."):
        if isinstance(quantity, Record | Table):
            quantity = (quantity.fields if isinstance(quantity, Record) else quantity.columns).get(key, quantity)
    return quantity.unit
