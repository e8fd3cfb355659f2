"""Self-contained pages: one file with its figures and formulas inside, no script and no request."""

import tempfile
from pathlib import Path

import jinja2
import numpy as np

import lawbook

from ..contract import LawbookError, catalogue
from ..contract.numbers import show_number
from . import notebook
from .plots import figure, svg


def page(template, path, **content):
    """Render a template into `path`, whole or not at all."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("lawbook.faces"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = show_number
    text = environment.get_template(template).render(version=lawbook.__version__, **content)
    path = Path(path)
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8") as out:
            out.write(text)
        Path(out.name).chmod(0o644)
        Path(out.name).replace(path)
    except OSError as error:
        raise LawbookError(f"The page {path} cannot be written: {error.strerror}.") from None


def write_demo(shown, path):
    """The demo's page."""
    best = shown.ranking.best
    page(
        "demo.html",
        path,
        best=best,
        ranking=shown.ranking,
        statement=notebook.mathml(best.law.statement),
        fit_plot=svg(ladder_figure(shown.ranking)),
        held_plot=svg(held_out_figure(shown.ranking)),
        plan=shown.plan,
        rope_statement=notebook.mathml(catalogue.result("rope-base-region.base_lower").statement),
        rope_plot=svg(rope_figure(shown.models, shown.tolerance)),
        models=[dict(zip(shown.models, row, strict=True)) for row in zip(*shown.models.values(), strict=True)],
        tolerance=shown.tolerance,
        verdicts=[(v, catalogue.paper(v.paper), notebook.html(v)) for v in shown.verdicts],
        colours=notebook.COLOURS,
    )


def ladder_figure(ranking):
    """Loss of every run against tokens, a line a size from the fitted law; held-out runs stand out."""
    import matplotlib as mpl

    table, best = ranking.table, ranking.best
    params, tokens, loss = (table.numbers(name) for name in ("params", "tokens", "loss"))
    held = np.zeros(len(loss), bool)
    held[ranking.test_rows] = True
    fig, axes = figure(5.6, 4.2)
    sizes = np.unique(params)
    colours = mpl.colormaps["viridis"](np.linspace(0.05, 0.85, len(sizes)))
    span = np.geomspace(tokens.min() * 0.8, tokens.max() * 1.5, 100)
    for size, colour in zip(sizes, colours, strict=True):
        rows = params == size
        axes.plot(span, best.predict(params=size, tokens=span), color=colour, linewidth=1.2)
        axes.plot(tokens[rows & ~held], loss[rows & ~held], "o", color=colour, markersize=5, label=f"{size / 1e3:.0f}k params")
        axes.plot(tokens[rows & held], loss[rows & held], "D", color="white", markeredgecolor=colour, markeredgewidth=1.8, markersize=6.5)
    axes.plot([], [], "D", color="white", markeredgecolor="#444", markeredgewidth=1.8, label="held out")
    axes.set(xscale="log", xlabel="tokens (bytes of text)", ylabel="loss (nats per token)", ylim=(0.95 * loss.min(), 1.05 * loss.max()))
    axes.legend(frameon=False, fontsize=8)
    return fig


def held_out_figure(ranking):
    """Predicted against observed loss."""
    table, best = ranking.table, ranking.best
    params, tokens, loss = (table.numbers(name) for name in ("params", "tokens", "loss"))
    predicted = best.predict(params=params, tokens=tokens)
    fig, axes = figure(4.4, 4.2)
    ends = [min(loss.min(), predicted.min()) * 0.97, max(loss.max(), predicted.max()) * 1.03]
    axes.plot(ends, ends, color="#999", linewidth=1, zorder=0)
    axes.plot(loss[ranking.train_rows], predicted[ranking.train_rows], "o", color="#9db8dc", label="fitted")
    axes.plot(loss[ranking.test_rows], predicted[ranking.test_rows], "D", color="#c8553d", label="held out, the dearest runs")
    axes.set(xlabel="observed loss (nats per token)", ylabel="predicted loss (nats per token)", xlim=ends, ylim=ends)
    axes.legend(frameon=False, fontsize=8)
    return fig


def rope_figure(models, tolerance):
    """The region of bases against context length for heads of 128 rotated dimensions, with released models in it."""
    rope = catalogue.paper("rope-base-region").results
    lengths = np.geomspace(1e3, 3e6, 200)
    fig, axes = figure(9.2, 4.8)
    lower = {kind: rope["base_lower"].function(lengths, 128, kind=kind, tolerance=tolerance, layers=32) for kind in ("wrap", "nyquist", "dc", "depth")}
    upper = float(rope["base_upper"].function(128))
    axes.fill_between(lengths, lower["depth"], upper, where=lower["depth"] <= upper, color="#2a9d6f", alpha=0.14, linewidth=0, label="feasible, 32 layers")
    names = {"wrap": "phase wraps", "nyquist": "cosine turns", "dc": f"drifts by {tolerance}", "depth": "drifts over 32 layers"}
    for (kind, bound), style in zip(lower.items(), (":", "-.", "--", "-"), strict=True):
        axes.plot(lengths, bound, style, color="#2457a6", linewidth=1.3, label=f"lower bound: {names[kind]}")
    axes.axhline(upper, color="#c8553d", linewidth=1.3, label="upper bound: fp32 precision")
    placed: list[tuple[float, float]] = []
    for model, base, length, good in zip(models["model"], models["base"], models["context_length"], models["feasible"], strict=True):
        style = {"color": "#1a7f37", "markersize": 5} if good else {"color": "none", "markeredgecolor": "#c8553d", "markeredgewidth": 1.6, "markersize": 8}
        axes.plot(length, base, "o", **style)
        at = (float(np.log10(length)), float(np.log10(base)))
        if all(abs(at[0] - x) > 0.33 or abs(at[1] - y) > 0.16 for x, y in placed):  # label what has room
            axes.annotate(model, (length, base), fontsize=6.5, xytext=(4, 3), textcoords="offset points")
            placed.append(at)
    axes.set(xscale="log", yscale="log", xlabel="context length (tokens)", ylabel="RoPE base", xlim=(1e3, 3e6), ylim=(1e3, 3e8))
    axes.legend(frameon=False, fontsize=7, loc="upper left", ncols=2)
    return fig
