"""How notebooks and reports show what lawbook speaks of: HTML fragments, formulas as MathML."""

from html import escape

import numpy as np

from ..contract import Paper, Result, Verdict
from ..contract.numbers import show_number
from ..contract.paper import SOURCES, described
from ..contract.verdict import STATUSES
from ..jobs.audit import Audit
from ..jobs.audit_log import LogAudit
from ..jobs.fitted import Ranking
from ..jobs.logs.sheet import LEAST
from ..jobs.plan import Plan
from ..jobs.run import Answer, Sweep, as_columns, unit_of
from ..jobs.scores import ScoresFit
from ..jobs.solve import Solution

COLOURS = {"upheld": "#1a7f37", "violated": "#cf222e", "vacuous": "#9a6700", "inconclusive": "#57606a"}
MOST_ROWS = 40
MOST_PARAMETERS = 12


def html(shown):
    """The HTML of a paper, a result, an answer, a sweep, a solution, a ranking of fits or a verdict."""
    drawers = {
        Paper: _paper,
        Result: _result,
        Answer: _answer,
        Sweep: _sweep,
        Solution: _solution,
        Ranking: _ranking,
        ScoresFit: _scores,
        Plan: _plan,
        Audit: _audit,
        LogAudit: _log,
        Verdict: _verdict,
    }
    return next(draw(shown) for kind, draw in drawers.items() if isinstance(shown, kind))


def mathml(latex):
    """A LaTeX statement as MathML; the LaTeX itself where it cannot be read."""
    from latex2mathml.converter import convert

    try:
        return convert(latex, display="block")
    except Exception:  # the converter raises many kinds; a formula shown as written is better than none
        return f"<code>{escape(latex)}</code>"


def cell(value, unit=""):
    """One value as text."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, list | tuple | np.ndarray) and (not isinstance(value, np.ndarray) or value.ndim):
        try:
            array = np.asarray(value)
        except ValueError:  # rows of unequal length
            array = np.array(list(map(str, value)))
        if array.dtype.kind in "OUS":
            return escape(str(value))
        flat = array.ravel()
        head = ", ".join(show_number(v.item()) for v in flat[:8])
        return escape(f"[{head}{', …' if len(flat) > 8 else ''}]" + (f" ({' × '.join(map(str, array.shape))})" if len(flat) > 8 else ""))
    if isinstance(value, np.generic):
        value = value.item()
    return escape(show_number(value, unit)) if isinstance(value, int | float | complex) or value is None else escape(str(value))


def table(columns, units=None, most=MOST_ROWS):
    """Columns (name -> cells) as a table; long ones are cut with a note."""
    units = units or {}
    heads = "".join(f"<th>{escape(name)}{f' <small>({escape(units[name])})</small>' if units.get(name) else ''}</th>" for name in columns)
    rows = list(zip(*columns.values(), strict=True))
    body = "".join("<tr>" + "".join(f"<td>{cell(v)}</td>" for v in row) + "</tr>" for row in rows[:most])
    cut = f"<p><small>{len(rows) - most} more rows</small></p>" if len(rows) > most else ""
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{cut}"


def _paper(paper):
    results = "".join(f"<li><code>{escape(r.id)}</code> ({r.kind}): {escape(r.summary)}</li>" for r in paper.results.values())
    return f"<h3>{escape(paper.title)}</h3><p>{escape(paper.says)}</p><ul>{results}</ul><p><small>arXiv {paper.arxiv}, formulas: {SOURCES[paper.source]}</small></p>"


def _result(result):
    arguments = {
        "argument": list(result.arguments),
        "domain": [described(q) for q in result.arguments.values()],
        "default": [repr(result.defaults[name]) if name in result.defaults else "" for name in result.arguments],
    }
    assumes = "".join(f"<li>{escape(sentence)}</li>" for sentence in result.assumptions)
    return (
        f"<h4><code>{escape(result.id)}</code> <small>{result.kind}</small></h4><p>{escape(result.summary)}</p>{mathml(result.statement)}"
        f"{table(arguments)}<p>Answers with {escape(described(result.returns))}.</p>{f'<ul>{assumes}</ul>' if assumes else ''}"
    )


def cautions(said):
    """Sentences of caution as paragraphs."""
    return "".join(f"<p>⚠ {escape(sentence)}</p>" for sentence in said)


def _answer(answer):
    result = answer.result
    if np.ndim(answer.value) == 0 and not isinstance(answer.value, dict):
        value = f"<p><b>{cell(answer.value, result.returns.unit)}</b></p>"
    else:
        columns = as_columns(answer.value, result)
        if all(len(c) == 1 for c in columns.values()):
            value = table({"": list(columns), "value": [c[0] for c in columns.values()], "unit": [unit_of(result, name) for name in columns]})
        else:
            value = table(columns, {name: unit_of(result, name) for name in columns})
    given = ", ".join(f"{name} = {cell(v)}" for name, v in answer.arguments.items())
    domain = f"<p><small>{given}; answers with {escape(described(result.returns))}</small></p>"
    return f"<h4><code>{escape(result.id)}</code></h4>{mathml(result.statement)}{value}{domain}{cautions(answer.cautions)}"


def _sweep(sweep):
    units = {name: unit_of(sweep.result, name) for name in sweep.rows}
    return f"<h4><code>{escape(sweep.result.id)}</code></h4>{mathml(sweep.result.statement)}{table(sweep.rows, units)}{cautions(sweep.cautions)}"


def _solution(solution):
    unit = solution.result.arguments[solution.unknown].unit
    roots = ", ".join(cell(root, unit) for root in solution.roots)
    said = f"<p><b>{escape(solution.unknown)} = {roots}</b></p>" if roots else f"<p>No solution: {escape(solution.reason)}</p>"
    return f"<h4><code>{escape(solution.result.id)}</code> = {cell(solution.target)}</h4>{mathml(solution.result.statement)}{said}{cautions(solution.cautions)}"


def _ranking(ranking):
    columns = {
        "law": [f.law.id for f in ranking.fits],
        "held-out error": [f"{100 * f.test['relative_error']:.3g} %" if f.test else "" for f in ranking.fits],
        "baseline": [f"{100 * f.test['baseline_error']:.3g} % ({f.test['baseline']})" if f.test else "" for f in ranking.fits],
        "rms residual": [f.rms for f in ranking.fits],
        "BIC": [f.bic for f in ranking.fits],
        "parameters": [_parameters(f) for f in ranking.fits],
        "notes": ["; ".join(f.notes) for f in ranking.fits],
    }
    return f"<p>{escape(ranking.split)}.</p>{table(columns)}{''.join(f'<p><small>{escape(s)}</small></p>' for s in ranking.said)}"


def _parameters(found):
    if len(found.parameters) > MOST_PARAMETERS:
        return f"{len(found.parameters)} constants"
    return ", ".join(f"{name} = {v:.4g}" + (f" ± {found.standard_errors[name]:.2g}" if name in found.standard_errors else "") for name, v in found.parameters.items())


def statement(law):
    """What a law says: its formula, or the words of a general form."""
    return f"<p><code>{escape(law.statement)}</code></p>" if law.kind == "form" else mathml(law.statement)


def _scores(found):
    said = "".join(f"<p><small>{escape(sentence)}</small></p>" for sentence in [*found.remarks(), *found.said])
    return f"<p>{escape(found.split)}.</p>{table(found.ranked())}{said}"


LAYER_COLUMNS = ("name", "rows", "columns", "alpha", "stable_rank", "kappa", "rank_90", "spikes", "low_rank_saved", "quantization_error", "bits", "kappa_order")


def config_tables(found):
    """(title, table) of what serving costs, the layers, the parts of the time, and the savings."""
    entries = found.quantities
    costs = {"": list(entries), "value": [q["value"] for q in entries.values()], "unit": [q["unit"] for q in entries.values()], "source": [q["source"] for q in entries.values()]}
    return [(title, table(columns)) for title, columns in {"what serving costs": costs, **found.tables()}.items() if columns]


def layer_table(found):
    columns = found.columns()
    return table({name: columns[name] for name in LAYER_COLUMNS}, most=len(found.layers))


def pair_table(found):
    return table({name: [row[name] for row in found.pairs] for name in found.pairs[0]}, most=len(found.pairs)) if found.pairs else ""


def _audit(found):
    parts = [f"<h3>{escape(title)}</h3>{shown}" for title, shown in config_tables(found.config)] if found.config else []
    said = [*(found.config.sentences if found.config else []), *(found.weights.remarks() if found.weights else []), *found.left_out]
    warned = cautions(found.config.warnings) if found.config else ""
    return f"<h4>{escape(found.path)}</h4>{''.join(parts)}{layer_table(found.weights) if found.weights and found.weights.layers else ''}{warned}" + "".join(
        f"<p>{escape(sentence)}</p>" for sentence in said
    )


def measure_table(found, section):
    """The trusted measures of one section of a log's audit, each with what it is and how its interval was made; empty where there is none."""
    known = [m for m in found.measures if m.section == section and m.trusted]
    rows = []
    for m in known:
        words = " ".join(filter(None, (m.meaning, f"Interval: {m.interval}." if m.interval else "")))
        unit = f" {escape(m.unit)}" if m.unit and m.p_value is None else ""
        value = "" if m.value is None else f"{m.value:.4g}" if isinstance(m.value, float) else cell(m.value)
        ends = f"{m.low:.4g} to {m.high:.4g}" if m.low is not None else f"corrected {m.corrected:.2g}" if m.corrected is not None else ""
        value = f"p {'=' if m.p_value > LEAST else '&lt;'} {value}" if m.p_value is not None else value
        rows.append(f"<tr><td>{escape(m.name)}<br><small>{escape(words)}</small></td><td>{value}{unit}</td><td>{ends}</td><td><small>{escape(m.source)}</small></td></tr>")
    head = f"<tr><th>measure</th><th>value</th><th>{100 * found.level:g} % interval</th><th>result of the book</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""


def _log(found):
    parts = [f"<h4>{escape(section)}</h4>{measure_table(found, section)}" for section in found.sections]
    doubts = "".join(f"<p>{escape(m.name)}: not to be trusted here. {escape(m.meaning)}</p>" for m in found.measures if not m.trusted)
    said = "".join(f"<p><small>{escape(sentence)}</small></p>" for sentence in found.said)
    return f"<p>{escape(' '.join(found.summary))}</p>{''.join(parts)}{doubts}{cautions(found.faults)}{said}"


def _plan(plan):
    entries = plan.quantities
    columns = {
        "": list(entries),
        "value": [q["value"] for q in entries.values()],
        "low (90 %)": [q["low"] for q in entries.values()],
        "high": [q["high"] for q in entries.values()],
        "unit": [q["unit"] for q in entries.values()],
        "source": [q["source"] for q in entries.values()],
    }
    return f"<h4>{escape(plan.budget)}</h4>{table(columns)}<p>The cost of deviating:</p>{table(plan.deviating)}{_schedule(plan)}{cautions(plan.warnings)}"


def _schedule(plan):
    knots = f"<p>The learning rate:</p>{table(plan.schedule['knots'])}" if plan.schedule else ""
    return knots + "".join(f"<p><small>{escape(sentence)}</small></p>" for sentence in plan.notes)


def _verdict(verdict):
    evidence = {
        **{k.replace("_", " "): v for k, v in verdict.tightness.items()},
        "samples": verdict.samples,
        "confidence": verdict.confidence if verdict.confidence is not None else "exact",
    }
    controls = "".join(f"<li>{escape(c['name'])}: {'rejected' if c['rejected'] else '<b>not rejected</b>'}. {escape(c['reason'])}</li>" for c in verdict.controls)
    worst = "".join(f"<li>{escape(str(k))}: {cell(v)}</li>" for k, v in verdict.worst.items())
    return (
        f"<h4><code>{escape(verdict.id)}</code> <span style='color:{COLOURS[verdict.status]}'>{verdict.status}</span></h4>"
        f"<p>{escape(verdict.reason)}</p><details><summary>Evidence</summary>{table({'': list(evidence), 'value': list(evidence.values())})}"
        f"<p>Worst case</p><ul>{worst}</ul><p>Negative controls</p><ul>{controls}</ul>"
        f"<p><small>{verdict.form}, {verdict.effort}, seed {verdict.seed}, {verdict.seconds:.1f} s. "
        f"{verdict.status.capitalize()}: {escape(STATUSES[verdict.status])}.</small></p></details>"
    )
