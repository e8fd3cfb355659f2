"""Fit the laws of the book to a table and rank them by what they predict for runs they have not seen."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..artifacts.tables import RunsTable, read_runs
from ..contract import LawbookError, Result, Shown, catalogue
from ..contract import seed as seed_quantity
from ..fitting.engine import fits as can_resample
from ..fitting.engine import resample
from ..fitting.least_squares import solve
from ..fitting.problem import applicable, column_of, inputs, parameters, pose

UNDETERMINED = 1e14  # condition of the information matrix beyond which nothing tells some parameters apart
OUTLYING = 8  # robust standard deviations beyond which a row is flagged
GROUPS = ("curve", "schedule")  # columns that name whole curves


@dataclass(frozen=True)
class Fit:
    """One law on one table: its parameters, how well it fits, and its error on held-out rows beside the baseline's."""

    law: Result
    parameters: dict[str, float]
    standard_errors: dict[str, float]
    rows: int
    objective: float
    rms: float  # of the residuals: log ratios where every observation is positive
    converged: bool
    agreed: str
    condition: float
    test: dict[str, Any]  # rows, relative_error, worst, r2, baseline, baseline_error; empty without held-out rows
    notes: list[str] = field(default_factory=list)
    intervals: dict[str, list[float]] = field(default_factory=dict)  # central 90 % of the resampled parameters; empty without a bootstrap
    resamples: Any = field(default=None, repr=False)  # theta[b, p]
    residuals: Any = field(default=None, repr=False)
    log: bool = False  # residuals are log ratios
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)  # of the inputs of the fitted rows

    def predict(self, **given):
        """The law at the fitted parameters."""
        return self.law.function(**given, **self.arguments())

    def arguments(self, theta=None):
        """The fitted parameters, or other values theta[p] or theta[b, p] of them, as arguments of the law."""
        values = list(self.parameters.values()) if theta is None else np.moveaxis(np.asarray(theta), -1, 0)
        arguments: dict = {}
        for name, value in zip(self.parameters, values, strict=True):
            argument, _, key = name.partition(".")
            if key:
                arguments.setdefault(argument, {})[key] = value
            else:
                arguments[argument] = value
        return arguments

    def interval(self, level=0.9, **given):
        """(low, high) of a new observation: the spread of the resampled parameters, and of the residuals around the law."""
        if self.resamples is None:
            raise LawbookError("An interval of predictions needs a bootstrap: fit with bootstrap=1000.")
        inputs_ = {name: np.asarray(value, float)[..., None] for name, value in given.items()}
        with np.errstate(all="ignore"):
            center = self.law.function(**inputs_, **self.arguments(self.resamples))
        scaled = self.residuals * np.sqrt(len(self.residuals) / max(len(self.residuals) - len(self.parameters), 1))
        noise = -np.random.default_rng(0).choice(scaled, len(self.resamples))  # residuals are prediction less observation
        values = center * np.exp(noise) if self.log else center + noise
        low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2], axis=-1)
        return low, high

    def to_dict(self):
        return {**{k: v for k, v in self.__dict__.items() if k not in ("law", "resamples", "residuals")}, "law": self.law.id}


@dataclass(frozen=True)
class Ranking(Shown):
    """Fits of every law that applies, the best predictor first; laws that could not be fitted with the reason."""

    fits: list[Fit]
    failed: dict[str, str]
    split: str
    said: list[str]
    table: RunsTable
    test: RunsTable
    train_rows: np.ndarray
    test_rows: np.ndarray

    @property
    def best(self):
        return self.fits[0]

    def to_dict(self):
        return {"fits": [f.to_dict() for f in self.fits], "failed": self.failed, "split": self.split, "said": self.said}


def fit(source, /, *, law=None, test=None, holdout=0.2, drop_highest=0, bootstrap=200, huber_delta=1e-3, seed=0, progress=None):
    """Fit `law` ("slug.result"), or every law whose inputs and prediction are columns, and rank by error on held-out rows.

    Held out are the rows of `test` where it is given, otherwise the dearest `holdout` of the rows: by compute, or by the only input where laws have just one.
    `drop_highest` leaves out the rows with the highest observations, as outliers of runs that had hardly begun.
    Closed forms of columns get their standard errors and intervals from `bootstrap` resamples of the rows; laws of whole curves, and all laws at bootstrap=0, get
    asymptotic standard errors, which are too small where residuals are skewed or far beyond huber_delta.
    Raises LawbookError where no law applies or the table cannot be read.
    """
    table = read_runs(source)
    if bootstrap < 0 or bootstrap != int(bootstrap):
        raise LawbookError(f"bootstrap must be a whole number of resamples of at least 0; it was {bootstrap}.")
    seed = seed_quantity().read(seed, "seed")
    if not 0 <= holdout < 1:
        raise LawbookError(f"holdout must be a number from 0 to below 1; it was {holdout}.")
    laws = [catalogue.result(law)] if law else [r for p in catalogue.papers() for r in p.results.values() if r.kind == "law" and applicable(r, table.columns)]
    if law and laws[0].kind != "law":
        raise LawbookError(f"{laws[0].id} is a {laws[0].kind}; only a law can be fitted.")
    if law and not (laws[0].observes and parameters(laws[0])):
        raise LawbookError(f"{laws[0].id} has nothing to fit: it names no column that it predicts, or no free parameters.")
    if not laws:
        wanted = sorted({f"{', '.join(inputs(r))} and {r.observes}" for p in catalogue.papers() for r in p.results.values() if r.kind == "law" and r.observes})
        raise LawbookError(
            f"No law of the book applies to a table with the columns {', '.join(table.columns)}; laws need, for example, {'; '.join(wanted[:4])}. "
            "sld-bench.rank_laws ranks general forms on any columns."
        )
    if drop_highest:
        table = _without_highest(table, laws, drop_highest)
    held = read_runs(test) if test is not None else table
    by = _cost(laws, table)
    train_rows, test_rows, split = _split(table, test, held, holdout, by)
    fits, failed = [], {}
    for candidate in laws:
        try:
            fits.append(_fit_one(candidate, table, held, train_rows, test_rows, huber_delta, seed, bootstrap))
        except LawbookError as error:
            if law:
                raise
            failed[candidate.id] = str(error)
        if progress:
            progress(candidate.id)
    if not fits:
        raise LawbookError("No law could be fitted: " + " ".join(failed.values()))
    fits.sort(key=lambda f: np.nan_to_num(f.test.get("relative_error", f.rms), nan=np.inf))
    return Ranking(fits, failed, split, table.said, table, held, train_rows, test_rows)


def _without_highest(table, laws, count):
    columns = {law.observes for law in laws}
    if len(columns) > 1 or count != int(count) or not 0 < count < len(table):
        raise LawbookError(f"drop_highest must be a whole number below the {len(table)} rows, for laws of one column ({', '.join(sorted(columns))}); it was {count}.")
    (column,) = columns
    kept = np.sort(np.argsort(table.numbers(column), kind="stable")[: len(table) - int(count)])
    said = f"the {count} rows with the highest {column} are left out"
    return RunsTable({name: values[kept] for name, values in table.columns.items()}, [*table.said, said])


def predictions(found, table, rows):
    """(rows, observed, predicted) of a Fit on rows of a table; rows without an observation are left out."""
    question = pose(found.law, table, rows, _group(table), to_fit=False)
    return np.concatenate(question.rows), np.concatenate(question.observed), question.predict(np.array(list(found.parameters.values())))


def _cost(laws, table):
    """The column by which runs are cheap or dear: compute, or the one input that all laws share; none for whole curves, which are not split."""
    if "compute" in table.columns:
        return "compute"
    columns = {column_of(name, table.columns) for law in laws for name in inputs(law)}
    return columns.pop() if len(columns) == 1 else None


def _split(table, test, held, holdout, by):
    everything = np.arange(len(table))
    if test is None and "split" in table.columns and set(np.unique(table.columns["split"]).tolist()) == {"train", "test"}:
        train = table.columns["split"] == "train"
        return everything[train], everything[~train], f"fitted on the {train.sum()} rows that the column split calls train, tested on the {(~train).sum()} it calls test"
    if test is not None:
        return everything, np.arange(len(held)), f"tested on {len(held)} rows of another table"
    if holdout == 0 or by is None:
        why = "nothing was held out" if holdout == 0 else "nothing was held out, since the table has no compute column to order its rows by"
        return everything, everything[:0], why
    compute = table.numbers(by)
    threshold = np.quantile(compute, 1 - holdout)
    dear = compute > threshold * (1 + 1e-12)
    if not dear.any() or dear.all():
        return everything, everything[:0], f"nothing was held out, since all rows have the same {by}"
    return everything[~dear], everything[dear], f"fitted on the {np.sum(~dear)} rows up to {by} = {compute[~dear].max():.3g}, tested on the {np.sum(dear)} above"


def _group(table):
    return next((name for name in GROUPS if name in table.columns), None)


def _fit_one(law, table, held, train_rows, test_rows, huber_delta, seed, bootstrap=0):
    problem = pose(law, table, train_rows, _group(table))
    optimum = solve(problem, huber_delta=huber_delta, seed=seed)
    names = [p.name for p in problem.parameters]
    notes = []
    if not optimum.converged:
        notes.append("the solver stopped before it converged")
    undetermined = optimum.condition > UNDETERMINED
    if undetermined:
        notes.append("these data do not determine the parameters: another set fits as well, so no errors are given (a column that hardly varies, or too few different rows)")
    elif optimum.condition > 1e8:
        notes.append(f"the data hardly tell some parameters apart (condition {optimum.condition:.1e}): trust predictions more than parameters")
    residuals = problem.residuals(optimum.theta)
    far = np.abs(residuals - np.median(residuals)) > OUTLYING * 1.4826 * np.median(np.abs(residuals - np.median(residuals)))
    if 0 < far.sum() <= 0.1 * len(far):
        listed = ", ".join(str(int(row) + 1) for row in np.concatenate(problem.rows)[far][:10])
        notes.append(f"{far.sum()} of {len(far)} rows lie more than {OUTLYING} robust standard deviations off the law (rows {listed}{', …' if far.sum() > 10 else ''})")
    tested = _test(law, held, test_rows, optimum.theta, table, train_rows) if len(test_rows) else {}
    resamples, intervals, errors = None, {}, optimum.standard_errors
    if undetermined:
        errors = np.full(len(names), np.nan)
    elif bootstrap and can_resample(problem):
        resamples = resample(problem, optimum.theta, delta=huber_delta, resamples=bootstrap, seed=seed)
        intervals = dict(zip(names, np.quantile(resamples, [0.05, 0.95], axis=0).T.tolist(), strict=True))
        errors = np.diff(np.quantile(resamples, [0.1587, 0.8413], axis=0), axis=0)[0] / 2  # half the central 68 %: tails don't weigh
    return Fit(
        law=law,
        parameters=dict(zip(names, optimum.theta.tolist(), strict=True)),
        standard_errors=dict(zip(names, errors.tolist(), strict=True)),
        rows=len(residuals),
        objective=optimum.objective,
        rms=float(np.sqrt(np.mean(residuals**2))),
        converged=optimum.converged,
        agreed=f"{optimum.agreed} of the best starts agree",
        condition=optimum.condition,
        test=tested,
        notes=notes,
        intervals=intervals,
        resamples=resamples,
        residuals=residuals,
        log=problem.log,
        ranges={name: (float(v.min()), float(v.max())) for call in problem.calls for name, v in call.items() if len(problem.calls) == 1},
    )


def _test(law, held, rows, theta, table, train_rows):
    """Errors on held-out rows, averaged over curves where there are several, beside the baseline."""
    question = pose(law, held, rows, _group(held), to_fit=False)
    predicted, observed = question.predict(theta), np.concatenate(question.observed)
    baseline, said = _baseline(law, table, train_rows, held, np.concatenate(question.rows))
    ends = np.cumsum([len(o) for o in question.observed])[:-1]
    parts = list(zip(np.split(observed, ends), np.split(predicted, ends), strict=True))
    off = [np.abs(p - o) / np.abs(o) for o, p in parts]
    return {
        "rows": len(observed),
        "curves": len(parts),
        "relative_error": float(np.mean([e.mean() for e in off])),
        "worst": float(np.mean([e.max() for e in off])),
        "r2": float(np.mean([1 - np.sum((o - p) ** 2) / max(np.sum((o - o.mean()) ** 2), 1e-300) for o, p in parts])) if all(len(o) > 1 for o, _ in parts) else np.nan,
        "baseline": said,
        "baseline_error": float(np.mean(np.abs(baseline - observed) / np.abs(observed))),
    }


def _baseline(law, table, train_rows, held, rows):
    """A straight line in log-log: of the observation on compute, on step for curves, or on an input; the mean where none of them allows one."""
    observed = table.numbers(law.observes)[train_rows]
    for name in ("compute", "step", *(column_of(argument, table.columns) for argument in inputs(law))):
        if name in table.columns and name in held.columns:
            x, fresh = table.numbers(name)[train_rows], held.numbers(name)[rows]
            good = np.isfinite(observed) & (observed > 0) & (x > 0)
            if good.sum() >= 2 and (fresh > 0).all() and np.ptp(np.log(x[good])) > 0:
                slope, intercept = np.polyfit(np.log(x[good]), np.log(observed[good]), 1)
                return np.exp(intercept + slope * np.log(fresh)), f"power law in {name}"
    return np.full(len(rows), np.nanmean(observed)), "mean of the fitted rows"
