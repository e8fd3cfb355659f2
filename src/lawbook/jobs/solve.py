"""Solve a result for one of its numeric arguments."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract import DomainError, LawbookError, Result, Shown, UnknownName, catalogue
from ..contract.numbers import parse_number, show_number
from ..contract.quantity import INT, Number, Record
from .run import call

GRID = 601
REACH = 1e6  # how far beyond typical values the search goes, as a factor on log scales


@dataclass(frozen=True)
class Solution(Shown):
    """Every root found in the range that was searched; where there is none, `reason` says why."""

    result: Result
    unknown: str
    target: float
    field: str | None
    arguments: dict[str, Any]
    roots: list[float]
    answers: list[float]  # the result at each root: the target, or the nearest a whole number can come
    searched: tuple[float, float]
    reason: str = ""
    cautions: list[str] = dataclasses.field(default_factory=list)

    def to_dict(self):
        return {
            "result": self.result.id,
            "unknown": self.unknown,
            "unit": self.result.arguments[self.unknown].unit,
            "target": self.target,
            "roots": self.roots,
            "answers": self.answers,
            "searched": list(self.searched),
            "arguments": self.arguments,
            "reason": self.reason,
            "cautions": self.cautions,
        }


def solve(identifier, unknown, /, *, target, field=None, arguments=None, **given):
    """The values of `unknown` at which the result (or `field` of its record) equals `target`, all roots in the searched part of the domain.

    Arguments that are themselves called target, field or arguments go into the dict `arguments`.
    The domain of the unknown is searched to a factor of a million beyond its typical values. For a whole-number argument, the numbers at which the result
    first passes the target are reported.
    """
    result = catalogue.result(identifier) if isinstance(identifier, str) else identifier
    given |= arguments or {}
    if unknown not in result.arguments:
        raise UnknownName(f"argument of {result.id}", unknown, result.arguments)
    quantity = result.arguments[unknown]
    if not isinstance(quantity, Number):
        raise LawbookError(f"{unknown} must be a numeric argument to be solved for; it is {quantity.allowed()}.")
    if unknown in given:
        raise LawbookError(f"{unknown} cannot be both given and solved for.")
    returns = result.returns
    if isinstance(returns, Record):
        numeric = [key for key, q in returns.fields.items() if isinstance(q, Number)]
        if field is None:
            raise LawbookError(f"{result.id} answers with a record: say which field equals the target, one of {', '.join(numeric)}.")
        if field not in numeric:
            raise UnknownName(f"numeric field of {result.id}", field, numeric)
        returns = returns.fields[field]
    elif field is not None:
        raise LawbookError(f"{result.id} answers with one value, it has no field {field!r}.")
    if not isinstance(returns, Number):
        raise LawbookError(f"{result.id} must answer with a number to be solved; it answers with {returns.allowed()}.")
    target = parse_number(target, "target", returns.unit) if isinstance(target, str) else float(target)
    if not np.isfinite(target):
        raise DomainError(f"target must be a finite number; it was {target}.")

    last_error: list[str] = []

    def value(x):
        try:
            answer, _ = call(result, result.bind({**given, unknown: x}))
        except DomainError as error:
            last_error[:] = [str(error)]
            return np.nan
        return float(answer[field] if field else answer)

    points = _grid(quantity)
    bound = _bind_once(result, given, unknown, points)
    values = np.array([value(x) for x in points])
    finite = np.isfinite(values)
    searched = (float(points[0]), float(points[-1]))
    if not finite.any():
        return Solution(
            result,
            unknown,
            target,
            field,
            bound,
            [],
            [],
            searched,
            f"No value of {unknown} that was tried lies inside the domain: {last_error[0] if last_error else 'the result is not finite.'}",
        )
    roots = _whole_roots(value, points, values, target) if quantity.type is INT else _roots(value, points, values, target, quantity.scale)
    answers = [value(x) for x in roots]
    reason = "" if roots else _why_none(result, unknown, quantity, points[finite], values[finite], target, returns)
    cautions = list(dict.fromkeys(sentence for x in roots for sentence in result.cautions({**bound, unknown: x})))
    return Solution(result, unknown, target, field, bound, roots, answers, searched, reason, cautions)


def _grid(quantity):
    """Points inside the domain, from far below to far above the typical values, ends of the domain included where they belong to it."""
    low, high = quantity.bounds()
    if quantity.scale == "log" and low > 0:
        start = max(low / REACH, quantity.low) if quantity.low > 0 else low / REACH
        points = np.geomspace(start, min(high * REACH, quantity.high), GRID)
    else:
        width = high - low
        points = np.linspace(max(low - 10 * width, quantity.low), min(high + 10 * width, quantity.high), GRID)
    if quantity.type is INT:
        return np.unique(np.round(points).astype(int))
    inset = [quantity.low] if quantity.above else []
    outset = [quantity.high] if quantity.below else []
    return points[~np.isin(points, inset + outset)]


def _bind_once(result, given, unknown, points):
    """Everything but the unknown, validated; an error about another argument is raised, one about the unknown is left to the search."""
    error = None
    for x in (points[len(points) // 2], points[0], points[-1], *points[:: max(len(points) // 20, 1)]):
        try:
            bound = result.bind({**given, unknown: x})
            return {name: v for name, v in bound.items() if name != unknown}
        except DomainError as raised:
            error = raised
    raise error if error else AssertionError


def _roots(value, points, values, target, scale):
    from scipy.optimize import brentq, minimize_scalar

    gap = values - target
    roots = [float(x) for x, g in zip(points, gap, strict=True) if g == 0]
    for i in range(len(points) - 1):
        a, b, at_a, at_b = points[i], points[i + 1], gap[i], gap[i + 1]
        if not (np.isfinite(at_a) and np.isfinite(at_b)) or at_a == 0 or at_b == 0:
            continue
        if at_a * at_b < 0:
            root = brentq(lambda x: value(x) - target, a, b, xtol=1e-300 if a > 0 else 1e-14, rtol=1e-14, maxiter=300)
            off = abs(value(root) - target)
            if off <= 1e-6 * max(abs(at_a), abs(at_b), abs(target)):  # a pole changes sign too, but is no root
                roots.append(float(root))
    for i in range(1, len(points) - 1):  # the curve may touch the target without crossing it
        g = np.abs(gap[i - 1 : i + 2])
        if np.isfinite(g).all() and g[1] <= g[0] and g[1] <= g[2] and gap[i - 1] * gap[i + 1] > 0 and gap[i] * gap[i - 1] > 0:
            found = minimize_scalar(lambda x: abs(value(x) - target), bounds=(points[i - 1], points[i + 1]), method="bounded", options={"xatol": 1e-12 * abs(points[i])})
            if found.fun <= 1e-9 * max(abs(target), 1e-300):
                roots.append(float(found.x))
    merged: list[float] = []
    for root in sorted(roots):
        if not merged or abs(root - merged[-1]) > 1e-9 * max(abs(root), 1e-300):
            merged.append(root)
    return merged


def _whole_roots(value, points, values, target):
    """Whole numbers at which the result equals the target or first lies beyond it."""
    roots = []
    gap = values - target
    for i in range(len(points)):
        if gap[i] == 0 and (i == 0 or gap[i - 1] != 0):
            roots.append(int(points[i]))
        elif i and np.isfinite(gap[i]) and np.isfinite(gap[i - 1]) and gap[i] * gap[i - 1] < 0:
            low, high = int(points[i - 1]), int(points[i])
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if (value(middle) - target) * gap[i] >= 0 else (middle, high)
            roots.append(high)
    return roots


def _why_none(result, unknown, quantity, points, values, target, returns):
    least, largest = values.min(), values.max()
    at_least, at_largest = points[values.argmin()], points[values.argmax()]
    shown = [show_number(float(v), returns.unit) for v in (least, largest, target)]
    where = [show_number(float(v) if quantity.type is not INT else int(v), quantity.unit) for v in (at_least, at_largest, points[0], points[-1])]
    side = "above" if target > largest else "below" if target < least else "between, but jumped over by,"
    return (
        f"{result.name} stays between {shown[0]} (at {unknown} = {where[0]}) and {shown[1]} (at {where[1]}) while {unknown} goes from {where[2]} to {where[3]}; "
        f"the target {shown[2]} lies {side} these."
    )
