from dataclasses import dataclass

import numpy as np

from ..contract import Outcome
from ..numerics.statistics import normal_quantile, quantiles
from .form import Form, draws, pair, plain, split


@dataclass(frozen=True)
class Identity(Form):
    """Two routes to one value: (computed, claimed) must agree.

    Exact values agree within atol + rtol * max(|computed|, |claimed|), where the tolerances say what the slower of the two routes loses.
    Where a side is an Estimate, it may be off by as many standard errors as make a false alarm over all comparisons of the trial less likely than `alarm`.
    """

    rtol: float = 1e-9
    atol: float = 0.0
    alarm: float = 1e-4

    def judge(self, make, rng, n, *, stop_early=False, progress=None):
        evidence = []
        for draw in draws(rng, n, progress):
            evidence.append(pair(make(draw)))
            if stop_early and self._deviation(*evidence[-1][:2], errors=normal_quantile(self.alarm / 2 / 1e6)) > 1:
                break
        comparisons = sum(max(np.size(split(left)[0]), np.size(split(right)[0])) for left, right, _ in evidence)
        errors = normal_quantile(self.alarm / 2 / max(comparisons, 1))
        deviations = np.array([self._deviation(left, right, errors) for left, right, _ in evidence])
        worst = int(np.argmax(deviations))
        left, right, case = evidence[worst]
        random = any(split(side)[1].any() for left_, right_, _ in evidence[:3] for side in (left_, right_))
        kept = {"draw": worst, "computed": plain(left), "claimed": plain(right), **{k: plain(v) for k, v in case.items()}}
        tightness = {f"deviation_{k}": v for k, v in quantiles(deviations).items()} | {"tolerances": self.rtol}
        if deviations[worst] <= 1:
            margin = f"{errors:.2f} standard errors" if random else f"the tolerance (relative {self.rtol:.0e}, absolute {self.atol:.0e})"
            reason = f"{comparisons} comparisons agree; the largest deviation is {deviations[worst]:.2g} times {margin}."
            return Outcome("upheld", reason, comparisons, 1 - self.alarm if random else None, tightness, kept)
        reason = f"The two routes differ by {deviations[worst]:.3g} times what is allowed: computed {plain(left)!r:.60}, claimed {plain(right)!r:.60}."
        return Outcome("violated", reason, comparisons, 1 - self.alarm if random else None, tightness, kept)

    def _deviation(self, left, right, errors):
        """Largest difference in units of what is allowed; infinite where one side is finite and the other is not."""
        (a, error_a), (b, error_b) = split(left), split(right)
        a, b = np.broadcast_arrays(a, b)
        with np.errstate(invalid="ignore", divide="ignore"):
            allowed = self.atol + self.rtol * np.maximum(np.abs(a), np.abs(b)) + errors * np.hypot(error_a, error_b)
            off = np.abs(a - b) / allowed
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        off = np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))
        return float(off.max(initial=0.0))
