"""General forms on a table: what is fitted where no law of the book names the columns, or where laws leave columns unused."""

from dataclasses import replace

import numpy as np

from ..artifacts.headers import NAMES
from ..contract import LawbookError
from ..fitting.axes import inputs_and_targets
from ..fitting.forms import rank_forms, resample
from ..fitting.problem import column_of, inputs
from .fitted import FormsFit, GeneralForm
from .holdout import cost, dearest, named

SHOWN = 6  # forms that a ranking lists
IDLE = ("compute", "weight", "seed", "random_seed", "step", "curve", "schedule", "split")  # columns that say nothing of a run that others don't


def columns_of(table, laws=()):
    """(inputs, targets, group column or None) for general forms; what follows from other columns is left out, and beside laws what has no known name."""
    found, targets, group = inputs_and_targets(table.columns)
    given = [name for name in found if name not in IDLE and name not in table.derived and (not laws or name in NAMES)]
    return given or [name for name in found if name == "compute"], targets, group


def unused(table, laws, columns):
    """Whether general forms have something to say: an input that varies and that none of the laws speaks of."""
    spoken = {column_of(name, table.columns) for law in laws for name in inputs(law)}
    return [name for name in columns if name not in spoken]


def fit_forms(table, held, parts, how, holdout, order, laws, *, progress=None):
    """The best general forms, fitted to the train rows and judged on the test rows.

    Beside `laws`, they are chosen by their error on the same rows.
    """
    columns, targets, group = columns_of(table, laws)
    given = {"inputs": columns, "groups": None if group is None else table.columns[group], "seed": how.seed, "map": how.run, "progress": progress}
    ranked = rank_forms(table.columns, targets, rows=parts.train, **given)[:SHOWN]
    error = None
    if laws and parts.given and order:  # the whole way, choice and all, on the rows by which laws are chosen
        cheap, dear = dearest(table, parts.train, holdout or 0.2, order)
        error = (
            _errors(_fit(rank_forms(table.columns, targets, rows=cheap, **given)[0], table, cheap, group, how), table, dear, table, cheap, order)["relative_error"]
            if len(dear)
            else None
        )
    fits = []
    for place, form in enumerate(ranked):
        found = _fit(form, table, parts.train, group, how, bootstrap=how.bootstrap if place == 0 else 0)
        tested = _errors(found, held, parts.test, table, parts.train, order) if len(parts.test) else {}
        chosen = form.relative_error if not laws or parts.given or not tested else tested["relative_error"]
        if error is not None:
            chosen = error * (1 + 1e-6 * place)  # forms among themselves keep the order of their own choice
        fits.append(replace(found, test=tested, chosen_by=float(chosen)))
    return fits


def _fit(form, table, train, group, how, bootstrap=0):
    """The FormsFit of a FormFit, without a test."""
    columns = {name: table.numbers(name) for name in form.inputs}
    parameters = {f"{label}: {name}" if label is not None else name: float(v) for label, constants in form.constants.items() for name, v in constants.items()}
    found = FormsFit(
        law=GeneralForm(form.form, form.statement, form.inputs, form.targets),
        parameters=parameters,
        standard_errors={},
        rows=form.rows,
        objective=form.objective,
        rms=form.rms,
        aic=form.aicc,
        bic=form.bic,
        converged=None,
        agreed=f"foretells the train rows with the largest scales with R2 {form.r2:.4f} (error {100 * form.relative_error:.3g} %)",
        condition=float("nan"),
        test={},
        chosen_by=float(form.relative_error),
        notes=[*form.notes, *how.unheard()],
        resamples=resample(form, bootstrap, how.seed) if bootstrap else None,
        ranges={name: (float(np.nanmin(v)), float(np.nanmax(v))) for name, v in columns.items()},
        form=form,
        group=group if form.groups != [None] else None,
    )
    _, observed, predicted = found.on(table, train)
    log = bool((observed > 0).all() and (predicted > 0).all())
    return replace(found, residuals=np.log(predicted / observed) if log else predicted - observed, log=log)


def _errors(found, held, rows, table, train, order):
    """Errors on held-out rows beside a power law's; R2 is the mean over targets, all groups together."""
    kept, observed, predicted = found.on(held, rows)
    if not len(kept):
        raise LawbookError(f"There is no row with {found.law.observes} to hold {found.law.id} against.")
    off = np.abs(predicted - observed) / np.abs(observed)
    count = len(found.law.targets)
    pairs = [(o, p) for o, p in zip(np.split(observed, count), np.split(predicted, count), strict=True) if np.ptp(o) > 0]
    plain, said = _baseline(found, held, kept[: len(kept) // count], table, train, order)
    return {
        "rows": len(kept) // count,
        "curves": 1,
        "relative_error": float(off.mean()),
        "worst": float(off.max()),
        "r2": float(np.mean([1 - np.sum((o - p) ** 2) / np.sum((o - o.mean()) ** 2) for o, p in pairs])) if pairs else np.nan,
        "baseline": said,
        "baseline_error": float(np.mean(np.abs(plain - observed) / np.abs(observed))),
    }


def _baseline(found, held, rows, table, train, order):
    """A straight line in log-log on the cost of a run for each group and target; the group's mean where there is no cost or it does not vary."""
    labels, mine = (held.columns[found.group][rows], table.columns[found.group][train]) if found.group else (np.zeros(len(rows)), np.zeros(len(train)))
    parts, straight = [], False
    for name in found.law.targets:
        y, forecast = table.numbers(name)[train], np.full(len(rows), np.nan)
        for label in dict.fromkeys(labels.tolist()):
            ours, fresh = (mine == label) & np.isfinite(y), labels == label
            ours = ours if ours.any() else np.isfinite(y)
            forecast[fresh] = y[ours].mean()
            if order is not None:
                x, new = (cost(t, order) for t in (table, held))
                x, new = x[train][ours], new[rows][fresh]
                if (y[ours] > 0).all() and np.ptp(np.log(x)) > 0 and (new > 0).all():
                    slope, intercept = np.polyfit(np.log(x), np.log(y[ours]), 1)
                    forecast[fresh], straight = np.exp(intercept + slope * np.log(new)), True
        parts.append(forecast)
    return np.concatenate(parts), f"power law in {named(order)}" if straight else "mean of the fitted rows"
