from dataclasses import dataclass

import numpy as np

from ..contract import Outcome
from ..numerics.statistics import normal_quantile, quantiles
from .form import Form, draws, pair, plain, split


@dataclass(frozen=True)
class Guarantee(Form):
    """What an algorithm promises, against brute force or a reference library: (achieved, promised) with achieved <= promised, or plain truth values.

    Where a side is an Estimate, a shortfall counts once it exceeds the standard errors that make a false alarm over the whole trial less likely than `alarm`.
    """

    rtol: float = 1e-12
    atol: float = 0.0
    alarm: float = 1e-4

    def judge(self, make, rng, n, *, stop_early=False, progress=None):
        allowed_errors = normal_quantile(self.alarm / n)
        kept, excesses, ratios = [], [], []
        for draw in draws(rng, n, progress):
            evidence = make(draw)
            left, right, case = (0.0 if evidence else 1.0, 0.0, {}) if isinstance(evidence, bool | np.bool_) else pair(evidence)
            (a, error_a), (b, error_b) = split(left), split(right)
            with np.errstate(invalid="ignore", divide="ignore"):
                slack = self.atol + self.rtol * np.maximum(np.abs(a), np.abs(b)) + allowed_errors * np.hypot(error_a, error_b)
                excess = np.where(a == b, 0.0, a - b - slack)
                ratio = np.where(b > 0, a / b, np.nan)
            excesses.append(float(np.max(np.where(np.isnan(excess), np.inf, excess))))
            ratios.append(float(np.nanmax(ratio)) if np.isfinite(ratio).any() else np.nan)
            kept.append({"achieved": plain(left), "promised": plain(right), **{k: plain(v) for k, v in case.items()}})
            if stop_early and excesses[-1] > 0:
                break
        worst = int(np.argmax(excesses))
        tightness = {f"achieved_over_promised_{k}": v for k, v in quantiles(ratios).items()}
        case = {"draw": worst, **kept[worst]}
        failed = int(np.sum(np.array(excesses) > 0))
        if failed:
            reason = f"{failed} of {len(excesses)} cases fall short; worst: achieved {kept[worst]['achieved']!r:.60}, promised {kept[worst]['promised']!r:.60}."
            return Outcome("violated", reason, len(excesses), None, tightness, case)
        largest = f"; achieved / promised is at most {tightness['achieved_over_promised_largest']:.4g}" if tightness else ""
        return Outcome("upheld", f"The promise was kept in all {len(excesses)} cases{largest}.", len(excesses), None, tightness, case)
