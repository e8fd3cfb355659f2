"""Which rows a law is fitted on, which it is judged on, and what the plainest forecast of those would be."""

from dataclasses import dataclass

import numpy as np

from ..fitting.problem import column_of, inputs


@dataclass(frozen=True)
class Split:
    train: np.ndarray  # rows of the table
    test: np.ndarray  # rows of the held-out table
    said: str
    given: bool = False  # by the user, so that the choice of a law may not see the test rows


def split(table, test, held, holdout, by, group=None):
    """The Split of a table: as its column `split` says, or by another table `test`, or the dearest share `holdout` by the column or cost `by`."""
    everything = np.arange(len(table))
    if test is not None:
        return Split(everything, np.arange(len(held)), f"tested on {len(held)} rows of another table", True)
    if "split" in table.columns and set(np.unique(table.columns["split"]).tolist()) == {"train", "test"}:
        train = table.columns["split"] == "train"
        said = f"fitted on the {train.sum()} rows that the column split calls train, tested on the {(~train).sum()} it calls test"
        return Split(everything[train], everything[~train], said, True)
    if holdout == 0 or by is None:
        why = "nothing was held out" if holdout == 0 else "nothing was held out, since the table has no column to order its rows by"
        return Split(everything, everything[:0], why)
    train, dear = dearest(table, everything, holdout, by, group)
    if not len(dear):
        return Split(everything, everything[:0], f"nothing was held out, since all rows have the same {named(by)}")
    if group is not None:
        return Split(train, dear, f"fitted on the {len(train)} rows with the smaller {named(by)} of each {group}, tested on the {len(dear)} with the larger")
    top = np.nanmax(cost(table, by)[train])
    return Split(train, dear, f"fitted on the {len(train)} rows up to {named(by)} = {top:.3g}, tested on the {len(dear)} above")


def dearest(table, rows, share, by, group=None):
    """(cheaper rows, dearer rows): the dearest `share` of the rows, of those with each entry in the column `group`; no dearer ones where all cost the same."""
    costs, dear = cost(table, by)[rows], np.zeros(len(rows), bool)
    labels = np.zeros(len(rows)) if group is None else table.columns[group][rows]
    for label in dict.fromkeys(labels.tolist()):
        mine = labels == label
        above = costs > np.nanquantile(costs[mine], 1 - share) * (1 + 1e-12)
        if (mine & ~above).any():
            dear |= mine & above
    return (rows[~dear], rows[dear]) if dear.any() else (rows, rows[:0])


def order_of(laws, table, columns=()):
    """What makes runs cheap or dear: the column compute, or the one input that all laws share, or the product of those `columns` that are above 0 in all rows.

    None for whole curves, which are not split, and where nothing is above 0.
    """
    if "compute" in table.columns:
        return "compute"
    shared = {column_of(name, table.columns) for law in laws for name in inputs(law)}
    if laws:
        return shared.pop() if len(shared) == 1 else None
    scales = tuple(name for name in columns if np.all(table.numbers(name) > 0))
    return scales[0] if len(scales) == 1 else scales or None


def cost(table, by):
    """What each row costs, by a column or a product of columns."""
    return table.numbers(by) if isinstance(by, str) else np.prod([table.numbers(name) for name in by], axis=0)


def named(by):
    return by if isinstance(by, str) else " x ".join(by)


def baseline(law, table, train, held, rows):
    """(forecast, name): a straight line in log-log, of the observation on compute, on step for curves, or on an input; the mean where none of them allows one."""
    observed = table.numbers(law.observes)[train]
    for name in ("compute", "step", *(column_of(argument, table.columns) for argument in inputs(law))):
        if name in table.columns and name in held.columns:
            x, fresh = table.numbers(name)[train], held.numbers(name)[rows]
            good = np.isfinite(observed) & (observed > 0) & (x > 0)
            if good.sum() >= 2 and (fresh > 0).all() and np.ptp(np.log(x[good])) > 0:
                slope, intercept = np.polyfit(np.log(x[good]), np.log(observed[good]), 1)
                return np.exp(intercept + slope * np.log(fresh)), f"power law in {name}"
    return np.full(len(rows), np.nanmean(observed)), "mean of the fitted rows"
