"""Sweeps, fits and verdicts as pictures: SVG and PNG by matplotlib, HTML by plotly with its script inside the page."""

from pathlib import Path

import numpy as np

from ..contract import LawbookError
from ..jobs.run import unit_of

FORMATS = ("svg", "png", "html")
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.8,
    "figure.dpi": 110,
    "svg.fonttype": "none",
    "svg.hashsalt": "lawbook",
    "axes.prop_cycle": "cycler('color', ['#2457a6', '#c8553d', '#2a9d6f', '#8e5ea2', '#b8860b', '#4a4e69'])",
}


def figure(width=6.4, height=4.0):
    """(figure, axes) in the book's style."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(STYLE)
    return plt.subplots(figsize=(width, height), layout="constrained")


def label(result, column):
    unit = unit_of(result, column)
    return column.replace("_", " ") + (f" ({unit})" if unit else "")


def check_format(path):
    """The format of a picture's path; LawbookError where lawbook does not draw it."""
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise LawbookError(f"A plot must be a {', '.join(FORMATS)} file; it was {str(path)!r}.")
    return kind


def series(sweep, field=None):
    """(x name, y name, [(label, x, y)]) of a sweep: the first swept argument along the axis, one line for each value of the others."""
    first, *others = sweep.axes
    answers = [name for name in sweep.rows if name not in sweep.axes and all(isinstance(v, int | float) for v in sweep.rows[name])]
    if not answers:
        raise LawbookError(f"{sweep.result.id} has no numeric field to plot.")
    if field is not None and field not in answers:
        raise LawbookError(f"There is no numeric field {field!r} to plot; there is {', '.join(answers)}.")
    y_name = field or answers[0]
    x, y = np.array(sweep.rows[first], float), np.array(sweep.rows[y_name], float)
    keys = list(zip(*(sweep.rows[name] for name in others), strict=True)) if others else [()] * len(x)
    lines = []
    for key in dict.fromkeys(keys):
        rows = np.array([k == key for k in keys])
        lines.append((", ".join(f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}" for name, value in zip(others, key, strict=True)), x[rows], y[rows]))
    return first, y_name, lines


def wants_log_axis(quantity_scale, values):
    """Whether an axis is logarithmic: the quantity says so, and its finite values are positive and more than a factor of 5 apart."""
    finite = values[np.isfinite(values)]
    return quantity_scale == "log" and len(finite) > 0 and (finite > 0).all() and finite.max() / finite.min() > 5


def sweep_figure(sweep, field=None):
    """A matplotlib figure of a sweep."""
    x_name, y_name, lines = series(sweep, field)
    fig, axes = figure()
    for name, x, y in lines:
        axes.plot(x, y, label=name or None, marker="o" if len(x) < 12 else None, markersize=4)
    everything = np.concatenate([y for *_, y in lines])
    if sweep.result.arguments[x_name].scale == "log":
        axes.set_xscale("log")
    if wants_log_axis(answer_scale(sweep.result, y_name), everything):
        axes.set_yscale("log")
    axes.set(xlabel=label(sweep.result, x_name), ylabel=label(sweep.result, y_name), title=sweep.result.id)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    return fig


def answer_scale(result, column):
    """The scale ("log" or "linear") of a column of a result's answers, written "field.field" where it lies deeper."""
    quantity = result.returns
    for key in column.split("."):
        quantity = getattr(quantity, "fields", {}).get(key, quantity)
    return getattr(quantity, "scale", "linear")


def save_sweep(sweep, path, field=None):
    """Draw a sweep into an svg, png or html file."""
    kind = check_format(path)
    if kind == "html":
        text = _interactive(sweep, field)
        _write(path, lambda p: p.write_text(text, encoding="utf-8"))
    else:
        fig = sweep_figure(sweep, field)
        save(fig, path)


def save(fig, path):
    import matplotlib.pyplot as plt

    kind = check_format(path)
    _write(path, lambda p: fig.savefig(p, format=kind, metadata={"Date": None} if kind == "svg" else None))
    plt.close(fig)


def svg(fig):
    """A figure as an <svg> element for a page."""
    import io

    import matplotlib.pyplot as plt

    out = io.StringIO()
    fig.savefig(out, format="svg", metadata={"Date": None})
    plt.close(fig)
    text = out.getvalue()
    return text[text.index("<svg") :]


def _write(path, write):
    """Write through a temporary file, so that nothing half-written stays."""
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise LawbookError(f"The file {path} cannot be written: {error.strerror}.") from None


def _interactive(sweep, field):
    import plotly.graph_objects as go

    x_name, y_name, lines = series(sweep, field)
    fig = go.Figure([go.Scatter(x=x, y=y, name=name, mode="lines" if len(x) > 12 else "lines+markers") for name, x, y in lines])
    everything = np.concatenate([y for *_, y in lines])
    fig.update_layout(title=sweep.result.id, template="simple_white", xaxis_title=label(sweep.result, x_name), yaxis_title=label(sweep.result, y_name), showlegend=len(lines) > 1)
    if sweep.result.arguments[x_name].scale == "log":
        fig.update_xaxes(type="log")
    if wants_log_axis(answer_scale(sweep.result, y_name), everything):
        fig.update_yaxes(type="log")
    return fig.to_html(include_plotlyjs=True, full_html=True)
