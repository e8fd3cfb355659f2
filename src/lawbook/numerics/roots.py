"""Roots of functions of one variable."""

import numpy as np

from ..contract import DomainError


def bracketed_root(function, low, high, *, what="the equation", rtol=1e-14):
    """The root of a function that changes sign on [low, high] (Brent); DomainError where it does not."""
    from scipy.optimize import brentq

    at_low, at_high = function(low), function(high)
    if at_low == 0:
        return low
    if at_high == 0:
        return high
    if not at_low * at_high < 0:
        raise DomainError(f"{what} has no root between {low:.6g} and {high:.6g}.")
    return float(brentq(function, low, high, xtol=1e-300 if low > 0 else 1e-14, rtol=max(rtol, 4 * np.finfo(float).eps), maxiter=500))
