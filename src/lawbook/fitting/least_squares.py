"""The best minimum for laws that the batched engine cannot take: laws of whole curves, and laws that are no closed form."""

import numpy as np

from ..contract import LawbookError
from ..numerics import generator
from .coordinates import Coordinates

STARTS, SOLVED, POLISHED = 256, 6, 2  # drawn, solved roughly on thinned rows, solved on all rows
THIN = 32


def solve(problem, loss, *, starts=STARTS, seed=0):
    """(theta, objective, whether converged, how many of the solved starts agree), by SciPy's trust-region solver."""
    coordinates, thin = Coordinates(problem.parameters), problem.thinned(THIN)
    ranked = sorted(coordinates.starts(starts, generator(seed, "starts")), key=lambda z: thin.objective(coordinates.theta(z), loss.squares()))[:SOLVED]
    rough = [_descend(thin, coordinates, _descend(thin, coordinates, z, loss.squares(), rough=True)[0], loss, rough=True) for z in ranked]
    rough.sort(key=lambda found: found[1])
    agreed = sum(found[1] <= 1.01 * rough[0][1] + 1e-300 for found in rough)
    different = [rough[0]]
    for found in rough[1:]:  # starts that came to the same place are solved once, those far behind not at all
        if len(different) < POLISHED and found[1] <= 1.2 * rough[0][1] and all(np.max(np.abs(found[0] - other[0])) > 1e-3 for other in different):
            different.append(found)
    z, objective, converged = min((_descend(problem, coordinates, found[0], loss) for found in different), key=lambda found: found[1])
    if not np.isfinite(objective) or np.all(np.abs(problem.residuals(coordinates.theta(z))) >= 1e6):
        raise LawbookError(f"{problem.law.id} could not be fitted: no start gives finite predictions on this table.")
    return coordinates.theta(z), objective, converged, agreed


def _descend(problem, coordinates, z, loss, *, rough=False):
    """(z, objective, converged), restarted until it gains no more; a rough descent runs once, to six digits.

    The solver's own Huber loss knows no weights: each residual goes in as the signed root of twice its loss, whose squares add up to the objective.
    """
    from scipy.optimize import least_squares

    def roots(x):
        r = problem.residuals(coordinates.theta(x))
        return np.sign(r) * np.sqrt(2 * problem.weights * loss.of(r))

    best, converged = problem.objective(coordinates.theta(z), loss), False
    accuracy = {"jac": "2-point", "ftol": 1e-6, "xtol": 1e-6, "max_nfev": 60} if rough else {"jac": "3-point", "ftol": 1e-13, "xtol": 1e-13, "gtol": 1e-13, "max_nfev": 200}
    for _ in range(1 if rough else 8):
        found = least_squares(roots, z, x_scale="jac", **accuracy)
        gain = best - found.cost
        if found.cost < best:
            z, best = found.x, float(found.cost)
        converged = found.status > 0
        if converged and gain <= 1e-9 * best:
            break
    return z, best, converged
