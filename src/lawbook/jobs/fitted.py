"""What fits are: one law or form on one table, and the ranking of several."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..artifacts.tables import RunsTable
from ..contract import LawbookError, Result, Shown
from ..fitting.forms import FormFit, Resamples
from ..fitting.problem import by_argument, pose

CURVES = ("curve", "schedule")  # columns that name whole curves


@dataclass(frozen=True)
class Fit:
    """One law on one table: its parameters, how well it fits, and its error on held-out rows beside the baseline's."""

    law: Result
    parameters: dict[str, float]
    standard_errors: dict[str, float]
    rows: int
    objective: float
    rms: float  # of the residuals: log ratios where every observation is positive
    aic: float  # of normal (log) residuals; comparable between laws of the same rows
    bic: float
    converged: bool | None  # None where the fitter does not tell
    agreed: str
    condition: float  # of the scaled information matrix
    test: dict[str, Any]  # rows, relative_error, worst, r2, baseline, baseline_error; empty without held-out rows
    chosen_by: float  # what the ranking goes by: the error on rows that the fit has not seen
    notes: list[str] = field(default_factory=list)
    intervals: dict[str, list[float]] = field(default_factory=dict)  # central 90 % of the resampled parameters; empty without a bootstrap
    profile: dict[str, list[float]] = field(default_factory=dict)  # 90 % profile-likelihood intervals; empty where they were not asked for
    derived: dict[str, list[float]] = field(default_factory=dict)  # what follows from the parameters: value, low, high (90 %)
    published: dict[str, dict[str, float]] = field(default_factory=dict)  # constants of others on these rows: objective, likelihood_ratio, probability, degrees of freedom
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
        return by_argument(self.parameters, values)

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

    def on(self, table, rows):
        """(rows, observed, predicted) on rows of a table; rows without an observation are left out."""
        question = pose(self.law, table, rows, curves_of(table), to_fit=False)
        return np.concatenate(question.rows), np.concatenate(question.observed), question.predict(np.array(list(self.parameters.values())))

    def band(self, table, rows, level=0.9):
        """(low, high) of the interval around each of the predictions of `on`; None without resamples."""
        if self.resamples is None:
            return None
        question = pose(self.law, table, rows, curves_of(table), to_fit=False)
        return self.interval(level, **question.calls[0])

    def to_dict(self):
        return {**{k: v for k, v in self.__dict__.items() if k not in ("law", "resamples", "residuals")}, "law": self.law.id}


@dataclass(frozen=True)
class GeneralForm:
    """What stands for a law where the book has none: a form that was chosen for the columns."""

    name: str
    statement: str
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    kind: str = "form"

    @property
    def id(self):
        return f"general form: {self.name}"

    @property
    def observes(self):
        return ", ".join(self.targets)


@dataclass(frozen=True)
class FormsFit(Fit):
    """A general form on one table, with constants of its own for each group and target; parameters are named "group: constant"."""

    form: FormFit = field(kw_only=True, repr=False)
    group: str | None = field(kw_only=True, default=None)  # the column that names the groups

    def predict(self, groups=None, **given):
        """Predictions[n], or [n, targets], for columns of inputs and, where the form was fitted by group, the group of each row."""
        return self.form.predict({name: np.atleast_1d(np.asarray(v, float)) for name, v in given.items()}, groups)

    def interval(self, level=0.9, groups=None, **given):
        """(low, high) of new observations: the spread of the resampled constants, and of the fitted rows around the form."""
        if not isinstance(self.resamples, Resamples):
            raise LawbookError("An interval of predictions needs a bootstrap: fit with bootstrap=1000.")
        center = self.resamples.predict({name: np.atleast_1d(np.asarray(v, float)) for name, v in given.items()}, groups)
        noise = np.random.default_rng(0).choice(self.residuals, center.shape)
        values = center * np.exp(-noise) if self.log else center - noise
        return tuple(np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0))

    def on(self, table, rows):
        """(rows, observed, predicted), one target after the other."""
        rows, observed, columns, groups = self._seen(table, rows)
        predicted = np.reshape(self.form.predict(columns, groups), observed.shape)
        return np.tile(rows, observed.shape[1]), observed.T.ravel(), predicted.T.ravel()

    def band(self, table, rows, level=0.9):
        if self.resamples is None:
            return None
        _, observed, columns, groups = self._seen(table, rows)
        return tuple(np.reshape(end, observed.shape).T.ravel() for end in self.interval(level, groups, **columns))

    def _seen(self, table, rows):
        """(rows that can be predicted and were observed, observed[rows, targets], their inputs, their groups)."""
        observed = np.column_stack([table.numbers(name) for name in self.form.targets])[rows]
        seen = np.isfinite(observed).all(1) & np.all([np.isfinite(table.numbers(name)[rows]) for name in self.form.inputs], axis=0)
        rows = np.asarray(rows)[seen]
        return rows, observed[seen], {name: table.numbers(name)[rows] for name in self.form.inputs}, None if self.group is None else table.columns[self.group][rows]

    def to_dict(self):
        hidden = ("law", "form", "resamples", "residuals", "parameters", "standard_errors")
        return {**{k: v for k, v in self.__dict__.items() if k not in hidden}, "law": self.law.id, "statement": self.form.statement, "constants": self.form.constants}


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


def curves_of(table):
    """The column that names whole curves, or None."""
    return next((name for name in CURVES if name in table.columns), None)
