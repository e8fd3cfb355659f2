"""From a law and a table to a least-squares problem: which arguments are data, which are parameters, and on what scale."""

from dataclasses import dataclass, replace

import numpy as np

from ..contract import LawbookError, Result
from ..contract.quantity import Array, Either, Number, Record
from ..numerics.robust import huber

SYNONYMS = {"learning_rates": "learning_rate", "steps": "step", "entropies": "entropy", "samples": "samples", "dim": "dim"}


@dataclass(frozen=True)
class Parameter:
    name: str  # "alpha", or "constants.alpha" for a field of a record argument
    quantity: Number

    @property
    def log(self):
        return self.quantity.scale == "log" and self.quantity.low >= 0


def parameters(law: Result):
    """The fitted parameters of a law, those inside record arguments included."""
    found = []
    for name, quantity in law.arguments.items():
        options = quantity.options if isinstance(quantity, Either) else (quantity,)
        for option in options:
            if isinstance(option, Record):
                found += [Parameter(f"{name}.{key}", q) for key, q in option.fields.items() if isinstance(q, Number) and q.fitted]
            elif isinstance(option, Number) and option.fitted:
                found.append(Parameter(name, option))
    return found


def inputs(law: Result):
    """Arguments of a law that a table must give: those without default that are not fitted."""
    fitted = {p.name.partition(".")[0] for p in parameters(law)}
    return {name: q for name, q in law.arguments.items() if name not in law.defaults and name not in fitted}


def column_of(name, columns):
    """The column that holds an argument: its own name, or the singular of a vector's."""
    for candidate in (name, SYNONYMS.get(name, name), name.removesuffix("s")):
        if candidate in columns:
            return candidate
    return None


def applicable(law: Result, columns):
    """Whether the table has every input of the law and the column that it predicts."""
    return law.observes in columns and bool(parameters(law)) and all(column_of(name, columns) for name in inputs(law))


@dataclass(frozen=True)
class Loss:
    """Huber's loss of residuals, a parabola up to `delta` (infinite: squares) and a straight line beyond. A `quantile` other than a half weighs what lies above the law against
    what lies below it: at .1 the law runs along the lower edge of the observations."""

    delta: float = 1e-3
    quantile: float = 0.5

    def __post_init__(self):
        if not self.delta > 0:
            raise LawbookError(f"huber_delta must be a number above 0; it was {self.delta}.")
        if not 0 < self.quantile < 1:
            raise LawbookError(f"quantile must be a number between 0 and 1; it was {self.quantile}.")

    def squares(self):
        return replace(self, delta=np.inf)

    def numbers(self):
        return self.delta, self.quantile

    def sides(self, residuals):
        """The weight of each residual by the side on which it lies."""
        return np.where(residuals < 0, 2 * self.quantile, 2 * (1 - self.quantile))

    def of(self, residuals):
        return self.sides(residuals) * huber(residuals, self.delta)

    def slope(self, residuals):
        return self.sides(residuals) * np.clip(residuals, -self.delta, self.delta)


def by_argument(names, values):
    """Values of parameters as keyword arguments of their law: "constants.alpha" goes into the record `constants`."""
    given: dict = {}
    for name, value in zip(names, values, strict=True):
        argument, _, key = name.partition(".")
        if key:
            given.setdefault(argument, {})[key] = value
        else:
            given[argument] = value
    return given


@dataclass
class Problem:
    """Observed values and how to predict them: one call of the law for point-wise laws, one a curve for laws of whole curves."""

    law: Result
    parameters: list[Parameter]
    calls: list[dict]  # the inputs of each call
    rows: list[np.ndarray]  # rows of the table that each call predicts
    observed: list[np.ndarray]
    weights: np.ndarray  # of all observations, in the order of the calls
    log: bool  # residuals are log ratios, as fits a positive quantity over orders of magnitude

    def arguments(self, theta):
        """theta as keyword arguments of the law."""
        return by_argument([p.name for p in self.parameters], map(float, theta))

    def predict(self, theta):
        given = self.arguments(theta)
        with np.errstate(all="ignore"):
            return np.concatenate([np.asarray(self.law.function(**call, **given), float).ravel() for call in self.calls])

    def residuals(self, theta):
        predicted, observed = self.predict(theta), np.concatenate(self.observed)
        with np.errstate(all="ignore"):
            off = np.log(predicted) - np.log(observed) if self.log else predicted - observed
        return np.where(np.isfinite(off), np.clip(off, -1e6, 1e6), 1e6)

    def objective(self, theta, loss):
        return float(self.weights @ loss.of(self.residuals(theta)))

    def thinned(self, most):
        """The same problem on at most `most` rows a call, for a first look at many starts: any rows of a table, evenly spread ones of a curve."""
        if all(len(o) <= most for o in self.observed):
            return self
        inner = [_pointwise(self.law, name) for name in self.calls[0]]

        def chosen(rows):
            if all(inner) and len(self.calls) == 1:
                return np.sort(np.random.default_rng(0).choice(rows, min(most, rows), replace=False))
            return np.unique(np.linspace(0, rows - 1, most).astype(int))

        picks = [chosen(len(o)) for o in self.observed]
        calls = [{name: (np.asarray(v)[pick] if moves else v) for (name, v), moves in zip(call.items(), inner, strict=True)} for call, pick in zip(self.calls, picks, strict=True)]
        weights = np.split(self.weights, np.cumsum([len(o) for o in self.observed])[:-1])
        return replace(
            self,
            calls=calls,
            rows=[r[p] for r, p in zip(self.rows, picks, strict=True)],
            observed=[o[p] for o, p in zip(self.observed, picks, strict=True)],
            weights=np.concatenate([w[p] for w, p in zip(weights, picks, strict=True)]),
        )


def _pointwise(law, name):
    """Whether an input has one entry a predicted value: scalars given as columns, and vectors as long as the answer."""
    quantity = law.arguments[name]
    return isinstance(quantity, Number) or (isinstance(quantity, Array) and isinstance(law.returns, Array) and quantity.shape == law.returns.shape)


def pose(law: Result, table, rows=None, group=None, *, to_fit=True):
    """The Problem of fitting `law` to `rows` of a RunsTable; laws of whole curves take one call for each value of the column `group`."""
    columns = table.columns
    missing = [name for name in inputs(law) if not column_of(name, columns)] + ([] if law.observes in columns else [law.observes])
    if missing:
        raise LawbookError(f"{law.id} needs the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}: {table.lacks(missing)}.")
    observed = table.numbers(law.observes)
    data = {name: table.numbers(column_of(name, columns)) for name in inputs(law)}
    rows = np.arange(len(table)) if rows is None else np.asarray(rows)
    curves = not all(_pointwise(law, name) for name in data)  # their schedules go on where no loss was logged
    keep = rows[np.isfinite(observed[rows])] if curves else np.intersect1d(rows, table.usable([law.observes, *(column_of(name, columns) for name in data)]))
    answer = law.returns.of if isinstance(law.returns, Array) else law.returns
    if isinstance(answer, Number) and answer.above and answer.low == 0 and (wrong := keep[observed[keep] <= 0]).size:
        raise LawbookError(f"{law.observes} (row {wrong[0] + 1}) must be a number above 0, as {law.id} gives no other; it was {observed[wrong[0]]:g}.")
    groups = [keep]
    if group is not None and curves:
        labels = columns[group]
        groups = [keep[labels[keep] == label] for label in dict.fromkeys(labels[keep].tolist())]
    calls = []
    for members in groups:
        call = {}
        for name, column in data.items():
            if _pointwise(law, name):
                call[name] = law.arguments[name].read(column[members], name) if isinstance(law.arguments[name], Array) else _checked(law.arguments[name], column, members, name)
            else:  # the whole curve, rows without an observation included
                whole = members if group is None else np.flatnonzero(columns[group] == columns[group][members[0]])
                call[name] = law.arguments[name].read(column[whole], name)
        calls.append(call)
    values = [observed[members] for members in groups]
    found = parameters(law)
    if to_fit and sum(map(len, values)) <= len(found):
        raise LawbookError(f"{law.id} has {len(found)} parameters; {sum(map(len, values))} rows with {law.observes} are too few to fit them.")
    if not sum(map(len, values)):
        raise LawbookError(f"There is no row with a {law.observes} to hold {law.id} against.")
    weights = _weights(table, np.concatenate(groups))
    return Problem(law, found, calls, groups, values, weights, bool(np.all(np.concatenate(values) > 0)))


def _checked(quantity, column, rows, name):
    """The rows of a column; DomainError names the first row outside the quantity's domain."""
    values = column[rows]
    wrong = ~(np.isfinite(values) & quantity._inside(values))
    if quantity.type is int:
        wrong |= values != np.round(values)
    for row in rows[wrong]:
        quantity.read(float(column[row]), f"{name} (row {row + 1})")
    return values


def _weights(table, rows):
    """The column `weight`, scaled to a mean of 1; ones without it."""
    if "weight" not in table.columns:
        return np.ones(len(rows))
    weights = table.numbers("weight")[rows]
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise LawbookError("Column weight must hold numbers of at least 0, not all 0.")
    return weights / weights.mean()
