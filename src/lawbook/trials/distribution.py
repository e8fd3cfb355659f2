from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract import Outcome
from ..numerics import Draw
from .form import Form


@dataclass(frozen=True)
class Sample:
    """Values with the law that they should follow: a distribution function `cdf`, or values `like` them drawn by another route."""

    values: Any
    cdf: Any = None
    like: Any = None


@dataclass(frozen=True)
class Counts:
    """How often each outcome came up, with the probabilities that are claimed."""

    observed: Any
    probabilities: Any


@dataclass(frozen=True)
class Distribution(Form):
    """A law of random values: Kolmogorov-Smirnov against a distribution function or another sample, chi-square for counts.

    One run returns a Sample or Counts, or a record of them (the level is shared); `draw.size` says how many values are wanted.
    Violated: a p-value below `level`. With `within`, the law is a limit that holds up to that Kolmogorov distance: violated where the distance exceeds it
    by more than the sampling error (Dvoretzky-Kiefer-Wolfowitz at `level`), inconclusive in between.
    """

    level: float = 1e-3
    within: float | None = None

    def judge(self, make, rng, n, *, stop_early=False, progress=None):
        made = make(Draw(rng, size=n))
        if progress:
            for _ in range(n):
                progress()
        parts = made if isinstance(made, dict) else {"": made}
        level = self.level / len(parts)
        tested = {name: self._test(part) for name, part in parts.items()}
        total = sum(size for _, _, size in tested.values())
        name, (distance, p, size) = min(tested.items(), key=lambda item: (item[1][1], -item[1][0]))
        kept = {"setting": name, "distance": distance, "p": p, "values": size}
        tightness = {"distance": distance, "p": p}
        where = f" ({name})" if name else ""
        if self.within is not None:
            name, (distance, p, size) = max(tested.items(), key=lambda item: item[1][0])
            error = float(np.sqrt(np.log(2 / level) / (2 * size)))
            tightness = {"distance": distance, "claimed_within": self.within, "sampling_error": error}
            kept = {"setting": name, **tightness}
            status = "upheld" if distance <= self.within else "violated" if distance - error > self.within else "inconclusive"
            return Outcome(status, f"The Kolmogorov distance is {distance:.4g} over {size} values, claimed within {self.within:.4g}.", total, 1 - self.level, tightness, kept)
        if p < level:
            return Outcome(
                "violated", f"The values do not follow the claimed law{where}: p = {p:.2g} over {size} values, distance {distance:.3g}.", total, 1 - self.level, tightness, kept
            )
        return Outcome("upheld", f"{total} values follow the claimed law: least p = {p:.3g}{where}.", total, 1 - self.level, tightness, kept)

    @staticmethod
    def _test(part):
        """(distance, p-value, number of values)."""
        from scipy import stats

        if isinstance(part, Counts):
            observed, claimed = np.asarray(part.observed, float), np.asarray(part.probabilities, float)
            if (observed[claimed == 0] > 0).any():
                return 1.0, 0.0, int(observed.sum())
            expected = claimed * observed.sum()
            rare = expected < 5  # chi-square needs five expected counts a cell: pool the rare ones
            if rare.any():
                observed = np.append(observed[~rare], observed[rare].sum())
                expected = np.append(expected[~rare], expected[rare].sum())
            keep = expected > 0
            test = stats.chisquare(observed[keep], expected[keep] * observed[keep].sum() / expected[keep].sum())
            distance = float(np.abs(observed - expected).sum() / 2 / observed.sum())
            return distance, float(test.pvalue) if keep.sum() > 1 else 1.0, int(observed.sum())
        values = np.asarray(part.values, float).ravel()
        test = stats.kstest(values, part.cdf) if part.cdf is not None else stats.ks_2samp(values, np.asarray(part.like, float).ravel())
        return float(test.statistic), float(test.pvalue), len(values)
