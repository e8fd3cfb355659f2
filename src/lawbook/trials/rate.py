from dataclasses import dataclass

import numpy as np

from ..contract import Outcome
from ..numerics.statistics import slope
from .form import Form, draws, plain


@dataclass(frozen=True)
class Rate(Form):
    """A claimed exponent: a draw returns (sizes, values, claimed slope), and the slope of log value on log size is held against the claim.

    Upheld where the whole confidence interval lies within `within` of the claimed slope (a fraction of it if `relative`); violated where the interval misses
    that band altogether; inconclusive otherwise. `one_sided`: only a slope above the claim counts against it. `axes="linear"` regresses value on size.
    """

    within: float = 0.05
    relative: bool = False
    one_sided: bool = False
    axes: str = "log"
    confidence: float = 0.999

    def judge(self, make, rng, n, *, stop_early=False, progress=None):
        sizes, values, claimed = [], [], []
        for draw in draws(rng, n, progress):
            x, y, exponent = make(draw)
            sizes.append(np.asarray(x, float))
            values.append(np.asarray(y, float))
            claimed.append(float(exponent))
        x, y = np.concatenate(sizes), np.concatenate(values)
        if self.axes == "log":
            if not ((x > 0).all() and (y > 0).all()):
                return Outcome("violated", "A power law has positive values; some are not.", len(x), None, {}, {"least_value": float(y.min())})
            x, y = np.log(x), np.log(y)
        target = float(np.mean(claimed))
        estimate, half, intercept = slope(x, y, self.confidence)
        band = self.within * abs(target) if self.relative else self.within
        residual = y - intercept - estimate * x
        worst = int(np.argmax(np.abs(residual)))
        tightness = {"slope": estimate, "slope_low": estimate - half, "slope_high": estimate + half, "claimed": target, "band": band}
        kept = {"size": plain(np.concatenate(sizes)[worst]), "value": plain(np.concatenate(values)[worst]), "residual": float(residual[worst])}
        said = f"slope {estimate:.4g} (from {estimate - half:.4g} to {estimate + half:.4g}), claimed {target:.4g} within {band:.2g}"
        above, below = estimate - half > target + band, estimate + half < target - band
        if above or (below and not self.one_sided):
            return Outcome("violated", f"The {said}.", len(x), self.confidence, tightness, kept)
        if estimate + half > target + band or (estimate - half < target - band and not self.one_sided):
            return Outcome("inconclusive", f"The interval is too wide: {said}.", len(x), self.confidence, tightness, kept)
        return Outcome("upheld", f"The {said}.", len(x), self.confidence, tightness, kept)
