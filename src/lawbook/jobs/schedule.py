"""The learning-rate schedule of a planned run by the multi-power law, beside the usual ones."""

import numpy as np

from ..artifacts.tables import read_curves, read_runs
from ..chapters.scaling.multi_power_law import PUBLISHED, fit_curves, loss_curve, optimize_schedule
from ..chapters.scaling.multi_power_law import schedule as usual_schedule
from ..contract import LawbookError
from .fitted import Fit, Ranking

LAW = "multi-power-law.loss_curve"
SIZES = {"25M": 25e6, "100M": 1e8, "400M": 4e8}  # of the models behind the published constants
PEAK, LONGEST = 3e-4, 72_000  # their peak rate, and the steps of their longest runs
WARMUP = 0.02  # share of the run; an assumption
MOST_TREADS = 6_000  # longer runs hold the rate for several steps at a time; this moves losses by some 1e-5 nats
FEWEST_STEPS = 200
FEWEST_LOSSES = 8
SHARES = (0.99, 0.9, 0.75, 0.6, 0.45, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.003, 0.001)  # of the peak, at which the schedule is written down


def plan_schedule(steps, params, rate=None, curves=None):
    """The schedule with the least predicted final loss for a number of steps: knots, and the losses of it and of the usual schedules under the same law (convention B).

    Without `curves` the published constants nearest in size serve, at their own peak rate, and the spread over all their sizes is the interval. None for hardly any steps.
    """
    if curves is None:
        name = min(SIZES, key=lambda size: abs(np.log(params / SIZES[size])))
        law, peak, longest, source = PUBLISHED[name], PEAK, LONGEST, f"multi-power-law, published constants of {name}"
        notes = [f"The constants are of models of 25M to 400M params at a peak rate of {PEAK:g} and up to {LONGEST} steps: take the shape, in shares of your own peak."]
        others = [constants for size, constants in PUBLISHED.items() if size != name]
    else:
        law, peak, longest = _fitted(curves, rate)
        source, notes, others = f"multi-power-law, fitted to your curves at a peak rate of {peak:.4g}", [], []
    steps = int(round(steps))
    if steps < FEWEST_STEPS:
        return None
    if steps > longest:
        notes.append(f"The run is {steps / longest:.3g} times as long as the longest of the law's own runs ({longest} steps): the schedule is extrapolated.")
    group = max(steps / MOST_TREADS, 1.0)
    if group > 1:
        notes.append(f"The law is evaluated exactly for rates that are held for {group:.3g} steps at a time.")
    notes += [
        f"Losses are of convention B: they compare schedules and are no forecasts of the planned model's. A warmup over {100 * WARMUP:g} % of the steps is assumed.",
        "The law credits a drop at the rate after it, so a staircase would come out below even this smooth decay: that is the law's, not seen in runs.",
    ]
    warmup, rates, losses = _compare(law, steps, group, peak)
    spread = [_compare(other, steps, group, peak) for other in others]

    def entry(which, unit):
        values = [which(*made) for made in ((warmup, rates, losses), *spread)]
        ends = (float(min(values)), float(max(values))) if others else (None, None)
        return {"value": float(values[0]), "unit": unit, "low": ends[0], "high": ends[1], "source": source + (" (range over the sizes)" if others else "")}

    at = np.unique([0, *(int(np.argmax(rates <= share * rates[0])) for share in SHARES if rates[-1] <= share * rates[0]), len(rates) - 1])
    knots = np.concatenate([[0.0], (warmup + at) * group])
    return {
        "source": source,
        "steps": steps,
        "warmup_steps": int(round(warmup * group)),
        "peak_rate": peak,
        "final_loss": losses,
        "knots": {
            "step": np.rint(knots).astype(int).tolist(),
            "share_of_run": (knots / steps).tolist(),
            "share_of_peak": np.concatenate([[0.0], rates[at] / (peak * group)]).tolist(),
        },
        "notes": notes,
        "quantities": {
            "decay_start": entry(lambda warmup, rates, _: (warmup + np.argmax(rates < 0.9 * peak * group)) * group / steps, "share of the run"),
            "below_cosine": entry(lambda *made: made[2]["cosine to a tenth"] - made[2]["optimised"], "nats"),
        },
    }


def _compare(law, steps, group, peak):
    """(warmup in treads, optimised rates, final losses by schedule), in treads of `group` steps.

    A tread's rate is the sum over its steps, which keeps all summed rates; the law in treads is then the law in steps with B / group and C group^gamma.
    """
    law = {**law, "B": law["B"] / group, "C": law["C"] * group ** law["gamma"]}
    total, peak = int(round(steps / group)), peak * group
    warmup = max(int(round(WARMUP * total)), 1)
    best = optimize_schedule(law, total, warmup, peak, min_rate=peak / 3e6)
    kinds = {
        "cosine to a tenth": usual_schedule("cosine", total, peak, final_rate=peak / 10, warmup_steps=warmup),
        "warmup-stable-decay to a tenth, from 5/6": usual_schedule("wsd", total, peak, final_rate=peak / 10, warmup_steps=warmup, decay_start=total * 5 // 6),
        "linear to zero": usual_schedule("wsd_linear", total, peak, warmup_steps=warmup, decay_start=warmup),
    }
    last = np.array([total - warmup - 1])
    ends = {name: loss_curve(rates[warmup:], last, **law, warmup_sum=0.5 * peak * warmup, initial_rate=peak) for name, rates in kinds.items()}
    return warmup, np.asarray(best["learning_rates"]), {"optimised": float(best["predicted_loss"]), **{name: float(end[0]) for name, end in ends.items()}}


def _fitted(curves, rate):
    """(constants, peak rate, steps of the longest curve) of a Fit or Ranking of the law, or of curves to fit it to: files, or one table with a column of their names."""
    if isinstance(curves, Fit | Ranking):
        found = curves if isinstance(curves, Fit) else next((f for f in curves.fits if f.law.id == LAW), None)
        if found is None or found.law.id != LAW:
            raise LawbookError(f"curves must be a fit of {LAW}, or loss curves with step, learning_rate and loss.")
        if isinstance(curves, Fit):
            if rate is None:
                raise LawbookError("learning_rate must be given with a Fit as curves, which does not hold the peak rate of its runs; a Ranking does.")
            return found.arguments(), rate, np.inf
        return found.arguments(), rate or float(curves.table.numbers("learning_rate").max()), max(len(part["learning_rates"]) for part in _split(curves.table))
    parts = list(curves) if isinstance(curves, list | tuple) else [curves]
    table = read_runs(parts[0])
    whole = _split(table if len(parts) == 1 and _names(table) else read_curves(parts))
    found = fit_curves([{key: part[key] for key in ("learning_rates", "steps")} for part in whole], [part["losses"] for part in whole])
    return found, rate or max(float(np.max(part["learning_rates"])) for part in whole), max(len(part["learning_rates"]) for part in whole)


def _names(table):
    """The column that names the curves of a table, if there is one."""
    return next((name for name in ("curve", "schedule") if name in table.columns), None)


def _split(table):
    """Curves as the multi-power law takes them: the rate of every step, and the losses that were logged where rates have begun."""
    rates, losses = table.numbers("learning_rate"), table.numbers("loss")
    name = _names(table)
    labels = table.columns[name] if name else np.zeros(len(rates), int)
    out = []
    for label in dict.fromkeys(labels.tolist()):
        rows = labels == label
        rate, loss = rates[rows], losses[rows]
        steps = np.flatnonzero(np.isfinite(loss) & (loss > 0) & (np.cumsum(rate) > 0))
        out.append({"learning_rates": rate, "steps": steps, "losses": loss[steps]})
    if sum(len(part["steps"]) for part in out) < FEWEST_LOSSES:
        raise LawbookError(f"curves must hold at least {FEWEST_LOSSES} losses between them; they hold {sum(len(part['steps']) for part in out)}.")
    return out
