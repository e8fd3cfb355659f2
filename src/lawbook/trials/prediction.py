from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract import Outcome
from ..numerics.statistics import quantiles
from .form import Form, draws, plain


@dataclass(frozen=True)
class Forecast:
    """Held-out values, what the claim predicted for them before seeing them, and what the stated baseline predicted."""

    observed: Any
    predicted: Any
    baseline: Any


@dataclass(frozen=True)
class Prediction(Form):
    """A law on held-out data: its error beside a baseline's, and below `at_most` where the claim says so.

    The error is root-mean-square (`metric="rms"`), mean absolute ("mae") or the largest absolute one ("largest"), relative to the observed values if `relative`.
    With five draws or more the difference to the baseline is judged by its t interval at `confidence`, with fewer every draw must beat it.
    """

    baseline: str  # what the baseline is, in words
    at_most: float | None = None
    metric: str = "rms"
    relative: bool = False
    confidence: float = 0.99

    def judge(self, make, rng, n, *, stop_early=False, progress=None):
        errors, base = [], []
        for draw in draws(rng, n, progress):
            forecast = make(draw)
            errors.append(self._error(forecast.observed, forecast.predicted))
            base.append(self._error(forecast.observed, forecast.baseline))
        errors, base = np.array(errors), np.array(base)
        mean, mean_base = float(errors.mean()), float(base.mean())
        unit = "%" if self.relative else ""
        factor = 100 if self.relative else 1
        said = f"held-out error {factor * mean:.4g}{unit}, {self.baseline} {factor * mean_base:.4g}{unit} ({len(errors)} {'draw' if len(errors) == 1 else 'draws'})"
        tightness = {"error": mean, "baseline_error": mean_base, "ratio": mean / mean_base if mean_base else np.inf} | {f"error_{k}": v for k, v in quantiles(errors).items()}
        worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
        kept = {"draw": worst, "error": plain(errors[worst]), "baseline_error": plain(base[worst])}

        def outcome(status, reason):
            return Outcome(status, reason, len(errors), self.confidence if len(errors) >= 5 else None, tightness, kept)

        if not np.isfinite(mean):
            return outcome("violated", f"The prediction is not finite: {said}.")
        if self.at_most is not None and mean > self.at_most:
            return outcome("violated", f"The error is above the {factor * self.at_most:.4g}{unit} claimed: {said}.")
        gain = base - errors
        if len(errors) >= 5 and gain.std() > 0:
            from scipy.stats import t

            half = float(t.ppf(0.5 + self.confidence / 2, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain)))
            low, high = gain.mean() - half, gain.mean() + half
        else:
            low, high = gain.min(), gain.max()
        if low > 0:
            return outcome("upheld", f"Better than its baseline: {said}.")
        if high <= 0:
            return outcome("violated", f"No better than its baseline: {said}.")
        return outcome("inconclusive", f"Not told apart from its baseline: {said}.")

    def _error(self, observed, predicted):
        observed, predicted = np.asarray(observed, float), np.asarray(predicted, float)
        off = np.abs(predicted - observed) / (np.abs(observed) if self.relative else 1)
        return float({"rms": lambda: np.sqrt(np.mean(off**2)), "mae": off.mean, "largest": off.max}[self.metric]())
