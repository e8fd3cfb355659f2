"""Robust nonlinear least squares from many starts: Huber loss on log residuals, parameters that are scales in log space, bounds from the quantities."""

from dataclasses import dataclass

import numpy as np

from ..contract import LawbookError
from ..numerics.robust import huber

STARTS, SOLVED, POLISHED = 256, 6, 2  # drawn, solved roughly on thinned rows, solved on all rows
THIN = 32


@dataclass(frozen=True)
class Optimum:
    theta: np.ndarray
    standard_errors: np.ndarray
    objective: float  # sum of Huber losses
    converged: bool
    agreed: int  # of the solved starts, how many came to the same objective within 1 %
    condition: float  # of the scaled Gauss-Newton matrix: above 1e8 the data hardly tell some parameters apart


def solve(problem, *, huber_delta=1e-3, seed=0, progress=None):
    """The best Optimum over all starts. The residuals' Huber threshold is `huber_delta`; infinite gives plain least squares."""
    if not huber_delta > 0:
        raise LawbookError(f"huber_delta must be a number above 0; it was {huber_delta}.")
    space = Space(problem.parameters)
    thin = problem.thinned(THIN)
    rng = np.random.default_rng(seed)
    starts = [space.random(rng) for _ in range(STARTS)]
    ranked = sorted(starts, key=lambda z: _objective(thin, space, z, np.inf))[:SOLVED]
    rough = []
    for z in ranked:
        wide = _descend(thin, space, z, np.inf, rough=True)[0]
        rough.append(_descend(thin, space, wide, huber_delta, rough=True))
        if progress:
            progress()
    rough.sort(key=lambda found: found[1])
    agreed = sum(found[1] <= 1.01 * rough[0][1] + 1e-300 for found in rough)
    different = [rough[0]]
    for found in rough[1:]:  # starts that came to the same place are solved once, those far behind not at all
        if len(different) < POLISHED and found[1] <= 1.2 * rough[0][1] and all(np.max(np.abs(found[0] - other[0])) > 1e-3 for other in different):
            different.append(found)
    final = min((_descend(problem, space, found[0], huber_delta) for found in different), key=lambda found: found[1])
    if progress:
        progress()
    z, objective, converged = final
    if not np.isfinite(objective) or np.all(np.abs(problem.residuals(space.theta(z))) >= 1e6):
        raise LawbookError(f"{problem.law.id} could not be fitted: no start gives finite predictions on this table.")
    errors, condition = _standard_errors(problem, space, z, huber_delta)
    return Optimum(space.theta(z), errors, objective, converged, agreed, condition)


class Space:
    """Parameters as the solver sees them: log where they are scales, their domain as bounds."""

    def __init__(self, parameters):
        self.log = np.array([p.log for p in parameters])
        lows = np.array([p.quantity.low for p in parameters], float)
        highs = np.array([p.quantity.high for p in parameters], float)
        with np.errstate(divide="ignore"):
            self.low = np.where(self.log, np.log(np.maximum(lows, 1e-300)), lows)
            self.high = np.where(self.log, np.log(highs), highs)
        self.low = np.where(self.log & (lows <= 0), -np.inf, self.low)
        ends = np.array([p.quantity.bounds() for p in parameters], float)
        self.ends = np.where(self.log[:, None], np.log(np.maximum(ends, 1e-300)), ends)

    def theta(self, z):
        return np.where(self.log, np.exp(np.clip(np.where(self.log, z, 0), -700, 700)), z)

    def random(self, rng):
        return self.ends[:, 0] + rng.uniform(size=len(self.log)) * (self.ends[:, 1] - self.ends[:, 0])


def _objective(problem, space, z, delta):
    return float(np.sum(huber(problem.residuals(space.theta(z)), delta)))


def _descend(problem, space, z, delta, *, rough=False):
    """(z, objective, converged) by a trust-region solver, restarted until it gains no more; a rough descent runs once, to six digits."""
    from scipy.optimize import least_squares

    eps = 1e-9
    low, high = np.where(np.isfinite(space.low), space.low, -np.inf), np.where(np.isfinite(space.high), space.high, np.inf)
    z = np.clip(z, np.where(np.isfinite(low), low + eps, -1e300), np.where(np.isfinite(high), high - eps, 1e300))
    robust = {"loss": "linear"} if not np.isfinite(delta) else {"loss": "huber", "f_scale": delta}
    best = _objective(problem, space, z, delta)
    converged = False
    accuracy = {"jac": "2-point", "ftol": 1e-6, "xtol": 1e-6, "max_nfev": 60} if rough else {"jac": "3-point", "ftol": 1e-13, "xtol": 1e-13, "gtol": 1e-13, "max_nfev": 200}
    for _ in range(1 if rough else 8):
        found = least_squares(lambda x: problem.residuals(space.theta(x)), z, bounds=(low, high), x_scale="jac", **accuracy, **robust)
        gain = best - found.cost
        if found.cost < best:
            z, best = found.x, float(found.cost)
        converged = found.status > 0
        if converged and gain <= 1e-9 * best:
            break
    return z, best, converged


def _standard_errors(problem, space, z, delta):
    """Sandwich errors of the M-estimator in the parameters' own units, and the condition of the scaled information matrix.

    A Huber loss curves only where residuals lie within delta. The share that does is estimated with the density at 0 where they are few: counting them
    would take chance for information.
    """
    from scipy.optimize._numdiff import approx_derivative
    from scipy.stats import gaussian_kde

    residuals = problem.residuals(space.theta(z))
    jacobian = approx_derivative(lambda x: problem.residuals(space.theta(x)), z, method="3-point")
    curved = 1.0
    if np.isfinite(delta) and np.ptp(residuals) > 0:
        within = np.sum(np.abs(residuals) <= delta) - len(z)  # as many residuals as parameters are near 0 by fitting, not by chance
        curved = min(1.0, max(1 / len(residuals), float(within) / max(len(residuals) - len(z), 1), 2 * delta * float(gaussian_kde(residuals)(0.0)[0])))
    score = np.clip(residuals, -delta, delta)
    bread = jacobian.T @ jacobian * curved
    scale = np.sqrt(np.maximum(np.diag(bread), 1e-300))
    scaled = bread / np.outer(scale, scale)
    inverse = np.linalg.pinv(scaled, rcond=1e-14) / np.outer(scale, scale)
    meat = (jacobian * score[:, None]).T @ (jacobian * score[:, None])
    freedom = len(residuals) / max(len(residuals) - len(z), 1)
    covariance = inverse @ meat @ inverse * freedom
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    return np.where(space.log, space.theta(z) * errors, errors), float(np.linalg.cond(scaled))
