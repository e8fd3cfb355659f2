from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from ..contract import Outcome
from ..numerics.statistics import binomial_power, clopper_pearson
from .form import Form, draws, plain


@dataclass(frozen=True)
class Coverage(Form):
    """A statement about probability: it fails with probability at most `at_most`.

    A draw returns whether it failed (a truth value, an array of independent ones, or a record of them by setting, each setting judged by itself).
    Violated: an exact binomial test at `level` (shared between the settings) says that the failure rate is above `at_most`.
    Upheld: not violated, and the trial was large enough that a failure rate of `detect` (default: twice `at_most`) would have been caught with probability .99.
    """

    at_most: float
    detect: float | None = None
    level: float = 1e-3

    def judge(self, make, rng, n, *, stop_early=False, progress=None):
        failures, trials = defaultdict(int), defaultdict(int)
        for draw in draws(rng, n, progress):
            failed = make(draw)
            for setting, outcome in (failed if isinstance(failed, dict) else {"": failed}).items():
                failures[setting] += int(np.sum(outcome))
                trials[setting] += int(np.size(outcome))
        level = self.level / len(trials)
        detect = min(2 * self.at_most, (1 + self.at_most) / 2) if self.detect is None else self.detect
        rates, worst, weakest = {}, None, 1.0
        for setting in trials:
            low, high = clopper_pearson(failures[setting], trials[setting], 1 - 2 * level)
            rates[setting or "failures"] = {"failed": failures[setting], "of": trials[setting], "rate": failures[setting] / trials[setting], "low": low, "high": high}
            if worst is None or low > worst[1]:
                worst = (setting, low, high)
            weakest = min(weakest, binomial_power(trials[setting], self.at_most, detect, level))
        setting, low, high = worst
        where = f" for {setting}" if setting else ""
        rate = failures[setting] / trials[setting]
        tightness = {"claimed": self.at_most, "largest_rate": max(r["rate"] for r in rates.values()), "power": weakest, "detectable": detect}
        kept = {"setting": setting, **{k: plain(v) for k, v in rates[setting or "failures"].items()}, "all": rates}
        total = sum(trials.values())
        if low > self.at_most:
            return Outcome(
                "violated",
                f"Failures{where}: {rate:.4g} of {trials[setting]} (at least {low:.4g} with confidence {1 - level:.5g}), claimed at most {self.at_most:.4g}.",
                total,
                1 - self.level,
                tightness,
                kept,
            )
        if weakest < 0.99:
            reason = f"No excess seen, but a rate of {detect:.4g} would have been caught only with probability {weakest:.3f}: more draws are needed."
            return Outcome("inconclusive", reason, total, 1 - self.level, tightness, kept)
        largest = max(rates.values(), key=lambda r: r["rate"])
        reason = (
            f"No excess over the {self.at_most:.4g} claimed: the largest failure rate is {largest['failed']} of {largest['of']} ({largest['rate']:.4g}); "
            f"a rate of {detect:.4g} would have been caught with probability {weakest:.4f}."
        )
        return Outcome("upheld", reason, total, 1 - self.level, tightness, kept)
