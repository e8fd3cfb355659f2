"""Plots as small SVG elements that a page's style sheet colours: no style attributes (the policy forbids them), readable in light and dark."""

import threading

import numpy as np
from markupsafe import Markup

from ...contract import LawbookError
from ...contract.numbers import show_number
from ...jobs.run import Sweep
from ..plots import answer_scale, label, series, wants_log_axis
from .rendering import environment

WIDTH, HEIGHT = 640, 330
LEFT, RIGHT, TOP, BOTTOM = 68, 14, 14, 46
MOST_LINES = 8
DOTS = 60  # points of a line that are marked one by one


def sweep_plot(sweep, field=None):
    """The picture of a sweep: its first argument along the axis, a line for each value of the others."""
    x_name, y_name, lines = series(sweep, field)
    y_scale = answer_scale(sweep.result, y_name)
    return line_plot(
        [(name or label(sweep.result, y_name), x, y) for name, x, y in lines],
        label(sweep.result, x_name),
        label(sweep.result, y_name),
        title=f"{y_name.replace('_', ' ')} against {x_name.replace('_', ' ')}",
        log_x=sweep.result.arguments[x_name].scale == "log",
        log_y=y_scale == "log",
    )


def line_plot(lines, x_label, y_label, *, title, log_x=False, log_y=False):
    """Lines [(name, x, y)] over one pair of axes; values that are not finite leave gaps. "" where nothing is finite."""
    if len(lines) > MOST_LINES:
        raise LawbookError(f"A picture shows at most {MOST_LINES} lines; these are {len(lines)}.")
    lines = [(name, np.asarray(x, float), np.asarray(y, float)) for name, x, y in lines]
    all_x, all_y = (np.concatenate([line[i] for line in lines]) for i in (1, 2))
    shown = np.isfinite(all_x) & np.isfinite(all_y)
    if not shown.any():
        return ""
    log_x = log_x and bool((all_x[np.isfinite(all_x)] > 0).all())
    x = Axis(all_x[shown], LEFT, WIDTH - RIGHT, log_x, padded=False)
    y = Axis(all_y[shown], HEIGHT - BOTTOM, TOP, wants_log_axis("log" if log_y else "linear", all_y))
    drawn = []
    for name, xs, ys in lines:
        finite = np.isfinite(xs) & np.isfinite(ys)
        points = [(round(x.place(a), 1), round(y.place(b), 1)) if ok else None for a, b, ok in zip(xs, ys, finite, strict=True)]
        dots = [(p, f"{x_label} {short(a)}: {short(b)}") for p, a, b in zip(points, xs, ys, strict=True) if p] if len(points) <= DOTS else []
        drawn.append({"name": name, "path": _path(points), "dots": dots})
    return _svg("plot_lines.html", title=title, x=x, y=y, x_label=x_label, y_label=y_label, lines=drawn)


def range_plot(rows, x_label, *, title, log=False, mark=None):
    """Quantiles side by side: rows of (name, [least, lower quartile, median, upper quartile, largest]); `mark` is a value to hold them against, with its name."""
    values = np.array([v for _, quantiles in rows for v in quantiles if np.isfinite(v)] + ([mark[0]] if mark else []), float)
    if not len(values):
        return ""
    log = log and bool((values > 0).all()) and values.max() > 5 * values.min()
    height = TOP + BOTTOM + 54 * len(rows)
    x = Axis(values, LEFT + 80, WIDTH - RIGHT, log)
    boxes = [
        {"name": name, "at": TOP + 54 * i + 27, "places": [round(x.place(v), 1) for v in quantiles], "values": [short(v) for v in quantiles]}
        for i, (name, quantiles) in enumerate(rows)
    ]
    return _svg("plot_ranges.html", title=title, x=x, x_label=x_label, rows=boxes, height=height, mark=(round(x.place(mark[0]), 1), mark[1]) if mark else None)


class Axis:
    """Where values lie between two edges of a picture, with ticks at round numbers."""

    def __init__(self, values, start, end, log, padded=True):
        self.start, self.end, self.log = start, end, log
        self.whole = bool((values == np.round(values)).all())
        low, high = float(values.min()), float(values.max())
        if low == high:
            low, high = (low / 2, high * 2) if log else (low - (abs(low) / 2 or 1), high + (abs(high) / 2 or 1))
        self.low, self.high = self._scaled(low), self._scaled(high)
        room = 0.05 * (self.high - self.low) if padded else 0.0
        self.low, self.high = self.low - room, self.high + room
        self.ticks = [(round(self.place(value), 1), short(value)) for value in self._ticks()]

    def _scaled(self, value):
        return float(np.log10(value)) if self.log else value

    def place(self, value):
        return self.start + (self.end - self.start) * (self._scaled(float(value)) - self.low) / (self.high - self.low)

    def _ticks(self):
        log_locator, linear_locator = _locators()
        low, high = (10.0**self.low, 10.0**self.high) if self.log else (self.low, self.high)
        found = log_locator(numticks=7).tick_values(low, high) if self.log and self.high - self.low >= 1 else linear_locator(6, integer=self.whole).tick_values(low, high)
        return [float(t) for t in found if low * (1 - 1e-9 if low > 0 else 1) <= t <= high * (1 + 1e-9 if high > 0 else 1) and (t > 0 or not self.log)]


_IMPORTING = threading.Lock()


def _locators():
    """Those of ticks; imported by one thread while others wait."""
    with _IMPORTING:
        from matplotlib.ticker import LogLocator, MaxNLocator
    return LogLocator, MaxNLocator


def _path(points):
    """The commands of an SVG path, broken where a point is missing."""
    commands, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
        else:
            commands.append(f"{pen}{point[0]:g} {point[1]:g}")
            pen = "L"
    return "".join(commands)


def short(value):
    """A number with a few digits and the suffixes that lawbook reads."""
    value = float(value)
    for suffix, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if size <= abs(value) < 1000 * size and abs(value) >= 1e4:
            return f"{value / size:.4g}{suffix}"
    return show_number(0.0 if value == 0 else value, digits=4)


def _svg(template, **content):
    return Markup(environment().get_template(template).render(width=WIDTH, top=TOP, bottom=BOTTOM, left=LEFT, right=RIGHT, **{"height": HEIGHT, **content}))


def picture(answer, field=None):
    """What there is to draw of an answer: a sweep, or the entries of a vector of some length; "" without anything."""
    if isinstance(answer, Sweep):
        return sweep_plot(answer, field)
    value = answer.value
    if isinstance(value, dict) or np.ndim(value) != 1 or len(value) < 3 or np.asarray(value).dtype.kind not in "iuf":
        return ""
    name = label(answer.result, answer.result.name)
    return line_plot([(name, np.arange(len(value)), value)], "entry", name, title=f"{answer.result.name.replace('_', ' ')} by entry")
