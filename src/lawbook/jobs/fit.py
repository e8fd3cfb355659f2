"""Fit the laws of the book to a table and rank them by what they predict for runs they have not seen."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..artifacts.tables import RunsTable, read_runs
from ..contract import LawbookError, catalogue
from ..contract import seed as seed_quantity
from ..fitting import engine, uncertainty
from ..fitting.optimum import optimum
from ..fitting.problem import Loss, applicable, by_argument, inputs, parameters, pose
from ..numerics import generator
from . import general, scores
from .fitted import Fit, Ranking, curves_of
from .holdout import baseline, dearest, order_of, split

OUTLYING = 8  # robust standard deviations beyond which a row is flagged
MANY = 20_000  # rows from which the normal approximation stands in for resamples
STARTS = 1024
RESAMPLING = ("pairs", "residual", "group")


@dataclass(frozen=True)
class How:
    """How fits are made: the loss, the starts, and where their uncertainty comes from."""

    loss: Loss
    starts: int
    bootstrap: int
    resampling: str
    by: str | None
    profile: bool
    seed: int
    run: Callable

    def unheard(self):
        """What was asked for and does not reach general forms, which have a loss, starts and resamples of their own."""
        asked = {"huber_delta, quantile": self.loss != Loss(), "starts": self.starts != STARTS, "resampling": self.resampling != "pairs", "profile": self.profile}
        names = [name for name, given in asked.items() if given]
        return [f"general forms have a loss, starts and resamples of their own: {', '.join(names)} had no effect on them"] if names else []


def fit(
    source,
    /,
    *,
    law=None,
    test=None,
    holdout=0.2,
    drop_highest=0,
    bootstrap=200,
    resampling="pairs",
    by=None,
    profile=False,
    huber_delta=1e-3,
    quantile=0.5,
    starts=STARTS,
    seed=0,
    run=map,
    progress=None,
):
    """Fit `law` ("slug.result"), or every law whose inputs and prediction are columns, and rank by error on rows that were not fitted.

    Held out are the rows of `test` or those that the column `split` calls test; then the laws are chosen by the dearest `holdout` of the other rows, never by these.
    Otherwise held out and chosen by are the dearest `holdout` of the rows: by compute, or by the only input where laws have just one.
    `drop_highest` leaves out the rows with the highest observations, as outliers of runs that had hardly begun. A column `weight` weighs the rows.
    The loss of (log) residuals is Huber's with threshold `huber_delta` (infinite: squares), and lopsided where `quantile` is not a half.
    Closed forms of columns get their errors and intervals from `bootstrap` resamples: of rows (pairs), of residuals, or of all rows with the same entry in the column `by`
    (group); from 20,000 rows on, laws of whole curves, and all laws at bootstrap=0, get asymptotic ones. `profile` adds profile-likelihood intervals.
    `run` maps a function over tasks (those of workers, on this machine or others). A table of benchmark scores by family gives a ScoresFit instead.
    Raises LawbookError where no law applies or the table cannot be read.
    """
    table = read_runs(source)
    if law in (None, scores.LAW) and scores.is_score_table(table):
        if test is not None or drop_highest:
            raise LawbookError("Tables of benchmark scores hold out larger siblings, or the rows that a column split calls test; test and drop_highest are for tables of losses.")
        return scores.fit_scores(table, seed=seed, progress=progress)
    how = _how(table, huber_delta, quantile, starts, bootstrap, resampling, by, profile, seed, run)
    if not 0 <= holdout < 1:
        raise LawbookError(f"holdout must be a number from 0 to below 1; it was {holdout}.")
    laws = _laws(law, table)
    columns, targets, group = general.columns_of(table, laws) if law is None and curves_of(table) is None else ([], [], None)
    if not laws and not (columns and targets):
        raise LawbookError(_nothing(table))
    if drop_highest:
        table = _without_highest(table, {law.observes for law in laws} or set(targets), drop_highest)
    held = read_runs(test) if test is not None else table
    order = order_of(laws, table, columns)
    parts = split(table, test, held, holdout, order, None if laws else group)
    fits, failed = [], {}
    for candidate in laws:
        try:
            fits.append(_fit_one(candidate, table, held, parts, how, holdout, order if law is None else None, group))
        except LawbookError as error:
            if law:
                raise
            failed[candidate.id] = str(error)
        if progress:
            progress(candidate.id)
    if group is not None or general.unused(table, laws, columns):
        try:
            fits += general.fit_forms(table, held, parts, how, holdout, order, laws, progress=progress)
        except LawbookError as error:
            failed["general forms"] = str(error)
    if not fits:
        raise LawbookError("No law could be fitted: " + " ".join(failed.values()))
    if laws:
        fits.sort(key=lambda f: np.nan_to_num(f.chosen_by, nan=np.inf))
    return Ranking(fits, failed, parts.said, table.said, table, held, parts.train, parts.test)


def _how(table, huber_delta, quantile, starts, bootstrap, resampling, by, profile, seed, run):
    for name, value, least in (("bootstrap", bootstrap, 0), ("starts", starts, 1)):
        if value < least or value != int(value):
            raise LawbookError(f"{name} must be a whole number of at least {least}; it was {value}.")
    if resampling not in RESAMPLING:
        raise LawbookError(f"resampling must be one of {', '.join(RESAMPLING)}; it was {resampling!r}.")
    if resampling == "group" and (by is None or by not in table.columns):
        raise LawbookError(f"resampling by group needs `by`, a column of the table; it was {by!r}, the table has {', '.join(table.columns)}.")
    return How(Loss(huber_delta, quantile), int(starts), int(bootstrap), resampling, by, profile, seed_quantity().read(seed, "seed"), run)


def _laws(law, table):
    """The law asked for, or all that apply to the table's columns."""
    if law:
        found = catalogue.result(law)
        if found.kind != "law":
            raise LawbookError(f"{found.id} is a {found.kind}; only a law can be fitted.")
        if not (found.observes and parameters(found)):
            raise LawbookError(f"{found.id} has nothing to fit: it names no column that it predicts, or no free parameters.")
        return [found]
    return [r for r in _every_law() if applicable(r, table.columns)]


def _every_law():
    return [r for p in catalogue.papers() for r in p.results.values() if r.kind == "law" and r.observes]


def _nothing(table):
    wanted = sorted({f"{', '.join(inputs(r))} and {r.observes}" for r in _every_law()})
    return (
        f"No law of the book applies to a table with the columns {', '.join(table.columns)}; laws need, for example, {'; '.join(wanted[:4])}. "
        "General forms need a column of what runs are judged by, such as loss, and another that varies."
    )


def _without_highest(table, targets, count):
    if len(targets) > 1 or count != int(count) or not 0 < count < len(table):
        raise LawbookError(f"drop_highest must be a whole number below the {len(table)} rows, for laws of one column ({', '.join(sorted(targets))}); it was {count}.")
    (column,) = targets
    kept = np.sort(np.argsort(table.numbers(column), kind="stable")[: len(table) - int(count)])
    said = f"the {count} rows with the highest {column} are left out"
    return RunsTable({name: values[kept] for name, values in table.columns.items()}, [*table.said, said], table.derived)


def _fit_one(law, table, held, parts, how, holdout, order, group):
    problem = pose(law, table, parts.train, curves_of(table))
    found = optimum(problem, how.loss, starts=how.starts, seed=how.seed)
    theta, spread, names = found.theta, found.spread, [p.name for p in problem.parameters]
    residuals, rows = problem.residuals(theta), np.concatenate(problem.rows)
    notes = (["the solver stopped before it converged"] if found.converged is False else []) + uncertainty.identifiability(names, spread) + _outlying(residuals, rows)
    if group is not None:
        notes.append(f"one set of constants for every {group}")
    resamples = _resamples(problem, found, how, table, notes)
    errors, intervals = spread.standard_errors, {}
    if spread.condition > uncertainty.UNDETERMINED:
        errors = np.full(len(names), np.nan)
    elif resamples is not None:
        intervals = dict(zip(names, np.quantile(resamples, [0.05, 0.95], axis=0).T.tolist(), strict=True))
        errors = np.diff(np.quantile(resamples, [0.1587, 0.8413], axis=0), axis=0)[0] / 2  # half the central 68 %: tails don't weigh
    tested = _test(law, held, parts.test, theta, table, parts.train) if len(parts.test) else {}
    rms, count = float(np.sqrt(np.mean(residuals**2))), len(names) + 1  # the noise counts as a parameter
    likelihood = len(residuals) * np.log(max(rms**2, 1e-300))
    return Fit(
        law=law,
        parameters=dict(zip(names, theta.tolist(), strict=True)),
        standard_errors=dict(zip(names, errors.tolist(), strict=True)),
        rows=len(residuals),
        objective=found.objective,
        rms=rms,
        aic=float(likelihood + 2 * count),
        bic=float(likelihood + count * np.log(len(residuals))),
        converged=found.converged,
        agreed=found.agreed,
        condition=spread.condition,
        test=tested,
        chosen_by=_inner_error(law, table, parts, how, holdout, order) if parts.given and order else tested.get("relative_error", rms),
        notes=notes,
        intervals=intervals,
        profile=uncertainty.profile_intervals(problem, theta, how.loss, spread) if how.profile and engine.fits(problem) and intervals else {},
        derived=_derived(law, names, theta, resamples),
        published=_published(law, problem, found, how.loss),
        resamples=resamples,
        residuals=residuals,
        log=problem.log,
        ranges={name: (float(v.min()), float(v.max())) for call in problem.calls for name, v in call.items() if len(problem.calls) == 1},
    )


def _outlying(residuals, rows):
    off = np.abs(residuals - np.median(residuals))
    far = off > OUTLYING * 1.4826 * np.median(off)
    if not 0 < far.sum() <= 0.1 * len(far):
        return []
    listed = ", ".join(str(int(row) + 1) for row in rows[far][:10])
    return [f"{far.sum()} of {len(far)} rows lie more than {OUTLYING} robust standard deviations off the law (rows {listed}{', …' if far.sum() > 10 else ''})"]


def _resamples(problem, found, how, table, notes):
    """theta[b, p], or None where the law or the data allow none; what stands in for a bootstrap is noted."""
    if not how.bootstrap or found.spread.condition > uncertainty.UNDETERMINED or not engine.fits(problem):
        return None
    if len(problem.observed[0]) > MANY:
        notes.append(f"errors and intervals come from the normal approximation, which {len(problem.observed[0]):,} rows allow")
        return uncertainty.draws(problem, found.theta, found.spread, how.bootstrap, generator(how.seed, "draws"))
    labels = table.columns[how.by][problem.rows[0]] if how.resampling == "group" else None
    return engine.resample(problem, found.theta, how.loss, resamples=how.bootstrap, kind=how.resampling, labels=labels, seed=how.seed, run=how.run)


def _derived(law, names, theta, resamples):
    found = {}
    for name, function in law.derived.items():
        ends = [None, None] if resamples is None else np.quantile(function(**by_argument(names, resamples.T)), [0.05, 0.95]).tolist()
        found[name] = [float(function(**by_argument(names, theta))), *ends]
    return found


def _published(law, problem, found, loss):
    """Constants of others on the same rows: twice the rise of the objective above its minimum, as a likelihood ratio."""
    compared = {}
    for name, arguments in law.published.items():
        theta = [arguments[p.name.partition(".")[0]][p.name.partition(".")[2]] if "." in p.name else arguments[p.name] for p in problem.parameters]
        value = problem.objective(np.array(theta, float), loss)
        statistic, probability = uncertainty.likelihood_ratio(found.spread, found.objective, value, len(theta))
        compared[name] = {"objective": value, "likelihood_ratio": statistic, "probability": probability, "degrees_of_freedom": len(theta)}
    return compared


def _inner_error(law, table, parts, how, holdout, order):
    """Error on the dearest of the training rows, after a fit to the cheaper ones: what a law is chosen by where the test rows are given and may not be seen."""
    cheap, dear = dearest(table, parts.train, holdout or 0.2, order)
    if not len(dear):
        return np.nan
    theta = optimum(pose(law, table, cheap, curves_of(table)), how.loss, starts=how.starts, seed=how.seed).theta
    return _test(law, table, dear, theta, table, cheap)["relative_error"]


def _test(law, held, rows, theta, table, train):
    """Errors on held-out rows, averaged over curves where there are several, beside the baseline."""
    question = pose(law, held, rows, curves_of(held), to_fit=False)
    predicted, observed = question.predict(theta), np.concatenate(question.observed)
    plain, said = baseline(law, table, train, held, np.concatenate(question.rows))
    ends = np.cumsum([len(o) for o in question.observed])[:-1]
    pairs = list(zip(np.split(observed, ends), np.split(predicted, ends), strict=True))
    off = [np.abs(p - o) / np.abs(o) for o, p in pairs]
    return {
        "rows": len(observed),
        "curves": len(pairs),
        "relative_error": float(np.mean([e.mean() for e in off])),
        "worst": float(np.mean([e.max() for e in off])),
        "r2": float(np.mean([1 - np.sum((o - p) ** 2) / max(np.sum((o - o.mean()) ** 2), 1e-300) for o, p in pairs])) if all(len(o) > 1 for o, _ in pairs) else np.nan,
        "baseline": said,
        "baseline_error": float(np.mean(np.abs(plain - observed) / np.abs(observed))),
    }
