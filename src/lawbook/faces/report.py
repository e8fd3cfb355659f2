"""Self-contained pages: one file with its figures and formulas inside, no script and no request."""

import tempfile
from importlib import metadata
from pathlib import Path

import jinja2
import numpy as np

from ..contract import DomainError, LawbookError, catalogue
from ..contract.numbers import show_number
from ..jobs import scores
from ..jobs.audit_log import LogAudit
from . import notebook
from .plots import figure, svg

MOST_ROLES = 12  # kinds of matrices that a picture tells apart


def page(template, path, **content):
    """Render a template into `path`, whole or not at all."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("lawbook.faces"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = show_number
    text = environment.get_template(template).render(version=metadata.version("lawbook"), **content)
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


def write_fit(ranking, path, command):
    """A ranking of fits as one page: held-out predictions, residuals, parameters with intervals, every law that was tried."""
    best = ranking.best
    chinchilla = next((f for f in ranking.fits if f.law.id == "beyond-chinchilla.chinchilla_loss"), None)
    page(
        "fit.html",
        path,
        best=best,
        ranking=ranking,
        command=command,
        statement=notebook.statement(best.law),
        figures=[
            (svg(prediction_figure(ranking, best)), "Predicted against observed; what was held out stands out, with its 90 % intervals."),
            (svg(residual_figure(ranking, best)), "Residuals of the best law, in per cent of the observation."),
            *([(svg(isoloss_figure(chinchilla)), "Lines of equal loss and of equal training compute, and the best size at each compute.")] if chinchilla else []),
        ],
        derived=[(name, *values) for name, values in best.derived.items()],
        published=notebook.table(
            {"constants": list(best.published), **{key: [o[key] for o in best.published.values()] for key in ("objective", "likelihood_ratio", "probability")}}
        )
        if best.published
        else "",
        shown=notebook.html(ranking),
    )


def write_audit(found, path, command):
    """An audit as one page: what serving costs and what each saving buys; the spectra of the weights and the layers that stand out; or what a log says."""
    if isinstance(found, LogAudit):
        _write_log(found, path, command)
        return
    config, weights = found.config, found.weights
    figures = []
    if weights and weights.layers:
        figures = [
            (svg(layer_figure(weights, "alpha", "alpha of the heavy tail", (2, 6))), "Tail of the spectrum: below 2 over-trained, above 6 under-trained by the paper's reading."),
            (svg(layer_figure(weights, "stable_rank", "stable rank", log=True)), "Squared Frobenius norm over the squared largest singular value."),
            (svg(layer_figure(weights, "kappa", "condition number", log=True)), "Largest singular value over the smallest."),
            (svg(bits_figure(weights)), "Bits of the best allocation at the budget, against what a layer loses when it is quantised."),
        ]
    page(
        "audit.html",
        path,
        found=found,
        command=command,
        figures=figures,
        config=notebook.config_tables(config) if config else None,
        layers=notebook.layer_table(weights) if weights and weights.layers else "",
        pairs=notebook.pair_table(weights) if weights else "",
    )


def _write_log(found, path, command):
    """The audit of a log as one page: in words what matters, every measure with its uncertainty, pictures, and what was wrong with the file."""
    page(
        "audit_log.html",
        path,
        found=found,
        command=command,
        sections=[(section, notebook.measure_table(found, section), [m for m in found.measures if m.section == section and not m.trusted]) for section in found.sections],
        tables=[(title, notebook.table(columns)) for title, columns in found.tables.items()],
        figures=[(svg(picture_figure(picture)), picture.title) for picture in found.pictures],
    )


def picture_figure(picture):
    """A picture that a job gives as data."""
    fig, axes = figure(6.2, 3.6)
    for series in picture.series:
        x, y = np.asarray(series.x, float), np.asarray(series.y, float)
        if series.style == "bars":
            axes.bar(x, y, label=series.name)
            continue
        axes.plot(x, y, "o" if series.style == "points" else "-", markersize=3.5, label=series.name)
        if series.low is not None:
            axes.fill_between(x, np.asarray(series.low, float), np.asarray(series.high, float), alpha=0.15, linewidth=0, color=axes.lines[-1].get_color())
    axes.set(xlabel=picture.x_label, ylabel=picture.y_label, xscale="log" if picture.log_x else "linear", yscale="log" if picture.log_y else "linear")
    if len(picture.series) > 1:
        axes.legend(frameon=False, fontsize=8)
    return fig


def layer_figure(weights, key, name, band=None, log=False):
    """One measure over the layers, in the order of the model, by what the matrices are for."""
    fig, axes = figure(6.2, 3.4)
    roles = [row["name"].removesuffix(".weight").rpartition(".")[2] for row in weights.layers]
    for role in sorted(set(roles), key=roles.index)[:MOST_ROLES]:
        at = [i for i, other in enumerate(roles) if other == role]
        axes.plot(at, [weights.layers[i][key] for i in at], "o-", markersize=3, linewidth=0.7, label=role)
    if band:
        axes.axhspan(*band, color="#2a9d6f", alpha=0.08, zorder=0)
    axes.set(xlabel="matrix, in the order of the model", ylabel=name, yscale="log" if log else "linear")
    axes.legend(frameon=False, fontsize=7, ncols=2)
    return fig


def bits_figure(weights):
    fig, axes = figure(6.2, 3.4)
    rows = [row for row in weights.layers if row["quantization_error"] == row["quantization_error"]]
    axes.plot([row["quantization_error"] for row in rows], [row["bits"] for row in rows], "o", markersize=4, alpha=0.7)
    axes.set(xlabel="share of the squared weights lost at the budget's width", ylabel="bits per weight", xscale="log")
    return fig


def write_scores(found, path, command):
    """A fit of benchmark scores as one page: held-out scores, errors by benchmark beside the baselines', what lies off."""
    page(
        "scores.html",
        path,
        found=found,
        command=command,
        statement=notebook.mathml(catalogue.result(scores.LAW).statement),
        figures=[
            (svg(score_figure(found)), f"Held-out scores against what their family's smaller members foretell; bars: {100 * found.level:g} % intervals."),
            (svg(score_errors_figure(found)), "Mean absolute error on held-out models, by benchmark."),
        ],
        shown=notebook.html(found),
    )


def score_figure(found):
    """Observed against foretold scores of held-out models."""
    fig, axes = figure(4.8, 4.4)
    axes.plot([0, 1], [0, 1], color="#999", linewidth=1, zorder=0)
    for name in [b["name"] for b in found.benchmarks]:
        held = [h for h in found.held if h["benchmark"] == name]
        predicted, low, high = (np.array([h[key] for h in held]) for key in ("predicted", "low", "high"))
        axes.errorbar(predicted, [h["observed"] for h in held], xerr=[predicted - low, high - predicted], fmt="o", markersize=3, linewidth=0.4, alpha=0.8, label=name)
    axes.set(xlabel="foretold score", ylabel="observed score", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(frameon=False, fontsize=7, ncols=2)
    return fig


def score_errors_figure(found):
    """Errors by benchmark, beside those of the two baselines."""
    fig, axes = figure(5.2, 0.34 * len(found.benchmarks) + 1.2)
    at = np.arange(len(found.benchmarks))
    for shift, (key, name) in zip((-0.27, 0.0, 0.27), (("error", "Sloth"), ("baseline_error", "curve in compute"), ("naive_error", "family's mean")), strict=True):
        axes.barh(at + shift, [b[key] for b in found.benchmarks], height=0.25, label=name)
    axes.set(yticks=at, yticklabels=[b["name"] for b in found.benchmarks], xlabel="mean absolute error")
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8)
    return fig


def write_plan(plan, path, command):
    """A plan as one page: the numbers with their intervals, the map of losses around it, what deviating costs, the schedule."""
    figures = [
        (svg(plan_map_figure(plan)), "Where the plan lies: lines of equal loss and of equal compute, and the range of the runs behind the law."),
        (svg(isoflop_figure(plan)), "Loss against size for budgets around the plan's; the dots are the best sizes."),
        (svg(deviation_figure(plan)), "What a model smaller or larger than planned costs for the same loss."),
    ]
    page(
        "plan.html",
        path,
        plan=plan,
        short=_short,
        varies=_varies,
        command=command,
        figures=figures,
        main=[name for name in ("params", "tokens", "loss", "batch_size", "steps", "gpu_hours") if name in plan.quantities],
        schedule_plot=svg(schedule_figure(plan.schedule)) if plan.schedule else None,
    )


def _short(value):
    """A number with three or four digits and the suffixes that lawbook reads."""
    if value is None or not np.isfinite(value):
        return "none" if value is not None else ""
    for suffix, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if size <= abs(value) < 1000 * size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.4g}" if abs(value) >= 0.1 else f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def _varies(entry):
    """Whether a planned quantity has an interval, and not one that a bound or the budget holds at a point."""
    return entry["low"] is not None and entry["high"] - entry["low"] > 1e-9 * abs(entry["high"])


def _parts(ranking, found):
    """[(label, rows, observed, predicted, style)] of the fitted and the held-out rows."""
    parts = [("fitted", *found.on(ranking.table, ranking.train_rows), {"color": "#9db8dc", "marker": "o"})]
    if len(ranking.test_rows):
        parts.append(("held out", *found.on(ranking.test, ranking.test_rows), {"color": "#c8553d", "marker": "D"}))
    return parts


def prediction_figure(ranking, found):
    """Predicted against observed values."""
    fig, axes = figure(4.6, 4.2)
    parts = _parts(ranking, found)
    values = np.concatenate([v for _, _, observed, predicted, _ in parts for v in (observed, predicted)])
    ends = [np.nanmin(values), np.nanmax(values)]
    axes.plot(ends, ends, color="#999", linewidth=1, zorder=0)
    for name, _, observed, predicted, style in parts:
        axes.plot(observed, predicted, linestyle="none", markersize=4, label=name, **style)
    band = found.band(ranking.test, ranking.test_rows) if len(ranking.test_rows) else None
    if band is not None:
        axes.vlines(parts[1][2], *band, color=parts[1][4]["color"], linewidth=0.8, alpha=0.6)
    axes.set(xlabel=f"observed {found.law.observes}", ylabel=f"predicted {found.law.observes}", title=found.law.id)
    axes.legend(frameon=False)
    return fig


def residual_figure(ranking, found):
    """Relative residuals against compute, step or row."""
    fig, axes = figure(5.4, 4.2)
    for name, rows, observed, predicted, style in _parts(ranking, found):
        table = ranking.table if name == "fitted" else ranking.test
        by = next((column for column in ("compute", "step") if column in table.columns), None)
        axes.plot(table.numbers(by)[rows] if by else rows, 100 * (predicted / observed - 1), linestyle="none", markersize=4, label=name, **style)
    axes.axhline(0, color="#999", linewidth=1, zorder=0)
    axes.set(xlabel=f"{by} (FLOP)" if by == "compute" else by or "row", ylabel="residual (%)", xscale="log" if by == "compute" else "linear")
    axes.legend(frameon=False)
    return fig


def isoloss_figure(found, point=None):
    """Contours of the fitted Chinchilla law over parameters and tokens, lines of equal compute, and the optimum along them."""
    fig, axes = figure(5.8, 4.4)
    (low_n, high_n), (low_d, high_d) = found.ranges["params"], found.ranges["tokens"]
    if point:
        low_n, high_n, low_d, high_d = min(low_n, point[0]), max(high_n, point[0]), min(low_d, point[1]), max(high_d, point[1])
    n, d = np.geomspace(low_n / 2, high_n * 2, 120), np.geomspace(low_d / 2, high_d * 2, 120)
    loss = np.asarray(found.predict(params=n[:, None], tokens=d[None, :]))
    lines = axes.contour(n, d, loss.T, levels=12, cmap="viridis", linewidths=1.1)
    axes.clabel(lines, fontsize=7, fmt="%.2f")
    best = catalogue.result("beyond-chinchilla.compute_optimal").function
    budgets = np.geomspace(6 * n[0] * d[0], 6 * n[-1] * d[-1], 60)
    optimum = [best(c, constants=found.arguments()["constants"]) for c in budgets]
    for c in budgets[5::10]:
        axes.plot(n, c / (6 * n), color="#999", linewidth=0.7, linestyle=":")
    axes.plot([o["params"] for o in optimum], [o["tokens"] for o in optimum], color="#c8553d", linewidth=1.6, label="best size for the compute")
    if point:
        axes.plot(*point, "*", color="#c8553d", markersize=14, label="the plan")
    axes.set(xscale="log", yscale="log", xlabel="params", ylabel="tokens", xlim=(n[0], n[-1]), ylim=(d[0], d[-1]))
    axes.legend(frameon=False, fontsize=8)
    return fig


def plan_map_figure(plan):
    """Contours of a plan's loss over parameters and tokens, lines of equal compute, the best size along them, bounds, and the range of the runs behind the law."""
    fig, axes = figure(4.9, 4.3)
    surface, point = plan.surface, (plan["params"], plan["tokens"])
    low, high = np.array([point, point]) * [[0.1], [10.0]]
    for i, name in enumerate(("params", "tokens")):
        for end in plan.ranges.get(name, ()):
            if 1e-4 < end / point[i] < 1e4:
                low[i], high[i] = min(low[i], end / 2), max(high[i], 2 * end)
    n, d = np.geomspace(low[0], high[0], 100), np.geomspace(low[1], high[1], 100)
    loss = surface.loss(n[:, None], d[None, :])
    floor = plan.law["E"]
    lines = axes.contour(n, d, loss.T, levels=floor + np.geomspace(loss.min() - floor, loss.max() - floor, 14)[1:-1], cmap="viridis", linewidths=1.1)
    axes.clabel(lines, fontsize=8, fmt="%.2f")
    for budget in plan["total_flops"] * 10.0 ** np.arange(-12, 13):
        axes.plot(n, surface.affordable(n, budget), color="#999", linewidth=0.7, linestyle=":", zorder=0)
    best = []
    for budget in np.geomspace(surface.cost(n[0], d[0]), surface.cost(n[-1], d[-1]), 41):
        try:
            best.append(surface.at_budget(budget))
        except DomainError:  # too little for the tokens that are served
            continue
    axes.plot(*np.array(best).T, color="#c8553d", linewidth=1.6, label="best size for the cost")
    if len(plan.ranges) == 2:
        (left, right), (bottom, top) = (np.clip(plan.ranges[name], low[i], high[i]) for i, name in enumerate(("params", "tokens")))
        axes.fill_between([left, right], bottom, top, color="#2457a6", alpha=0.08, linewidth=0, label="range of the runs")
    for draw, bound, name in ((axes.axvline, surface.most_params, "most params"), (axes.axhline, surface.unique, "tokens at hand")):
        if np.isfinite(bound):
            draw(bound, color="#555", linewidth=1, linestyle="--", label=name)
    axes.plot(*point, "*", color="#c8553d", markersize=14, markeredgecolor="white", label="the plan")
    axes.set(xscale="log", yscale="log", xlabel="params", ylabel="tokens", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    fig.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return fig


def isoflop_figure(plan):
    """Loss against size at several budgets, with the best size of each."""
    import matplotlib as mpl

    fig, axes = figure(4.9, 4.3)
    surface = plan.surface
    multiples = (0.1, 0.3, 1.0, 3.0, 10.0)
    sizes, lowest = plan["params"] * np.geomspace(1 / 16, 16, 200), [plan["loss"]]
    for multiple, colour in zip(multiples, mpl.colormaps["viridis"](np.linspace(0.85, 0.05, len(multiples))), strict=True):
        budget = multiple * plan["total_flops"]
        tokens = surface.affordable(sizes, budget)
        good = tokens > 0
        axes.plot(sizes[good], surface.loss(sizes[good], tokens[good]), color=colour, label=f"{budget:.2g} FLOP")
        try:
            n, d = surface.at_budget(budget)
        except DomainError:  # too little for the tokens that are served
            continue
        lowest.append(float(surface.loss(n, d)))
        axes.plot(n, lowest[-1], "o", color=colour, markersize=5)
    axes.plot(plan["params"], plan["loss"], "*", color="#c8553d", markersize=14, markeredgecolor="white", label="the plan", zorder=5)
    axes.set(xscale="log", xlabel="params", ylabel="loss (nats)", xlim=(sizes[0], sizes[-1]), ylim=(None, max(lowest) + np.ptp(lowest)))
    axes.legend(frameon=False, fontsize=8)
    return fig


def deviation_figure(plan):
    """Cost for the same loss against the size of the model."""
    fig, axes = figure(4.9, 4.0)
    surface, factors = plan.surface, np.array(plan.deviating["factor"])
    fine = np.geomspace(factors[0], factors[-1], 161)
    sizes = plan["params"] * fine
    multiples = surface.cost(sizes, surface.tokens_for(sizes, plan["loss"])) / plan["total_flops"]
    axes.plot(fine[np.isfinite(multiples)], multiples[np.isfinite(multiples)], color="#2457a6")
    at = np.array(plan.deviating["compute_for_the_same_loss"])
    axes.plot(factors[np.isfinite(at)], at[np.isfinite(at)], "o", color="#2457a6", markersize=5)
    axes.axhline(1, color="#999", linewidth=1, zorder=0)
    top = max(1.1, min(3.0, 1.05 * float(at[np.isfinite(at)].max())))
    axes.set(xscale="log", xlabel="params, as a multiple of the plan's", ylabel="cost for the same loss (multiple)", ylim=(min(0.95, 0.98 * float(np.nanmin(multiples))), top))
    axes.set_xticks(factors, [f"{f:g}" for f in factors])
    axes.minorticks_off()
    return fig


def schedule_figure(schedule):
    """The optimised learning rate over the run, beside the usual schedules."""
    fig, axes = figure(5.4, 3.5)
    usual = catalogue.result("multi-power-law.schedule").function
    warmup, total = round(1000 * schedule["warmup_steps"] / schedule["steps"]), 1000
    span = np.arange(total) / total
    for kind, options, name, colour in (
        ("cosine", {"final_rate": 0.1}, "cosine to a tenth", "#8e5ea2"),
        ("wsd", {"final_rate": 0.1, "decay_start": total * 5 // 6}, "warmup-stable-decay to a tenth", "#2a9d6f"),
        ("wsd_linear", {"decay_start": warmup}, "linear to zero", "#b8860b"),
    ):
        axes.plot(span, usual(kind, total, 1.0, warmup_steps=warmup, **options), color=colour, linewidth=1.1, label=name)
    knots = schedule["knots"]
    axes.plot(knots["share_of_run"], knots["share_of_peak"], "o-", color="#c8553d", markersize=3.5, label="optimised")
    axes.set(xlabel="share of the run", ylabel="learning rate (share of the peak)", ylim=(0, 1.05), xlim=(0, 1.01))
    axes.legend(frameon=False, fontsize=8, loc="lower left")
    return fig


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
