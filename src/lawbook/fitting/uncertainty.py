"""How sure a fit is: standard errors of an M-estimate, profile intervals, likelihood ratios, and in words what the data cannot tell apart."""

from dataclasses import dataclass

import numpy as np

from .coordinates import Coordinates
from .engine import profile

TIED, LOADED = 0.99, 0.3  # correlation from which two parameters are called tied; share in an undetermined direction from which one is named
UNDETERMINED = 1e14  # condition of the information matrix beyond which nothing tells some parameters apart


@dataclass(frozen=True)
class Spread:
    """Of a fit: standard errors and correlations of the parameters, the covariance in coordinates without bounds, and the condition of the scaled information matrix."""

    standard_errors: np.ndarray
    correlations: np.ndarray
    covariance: np.ndarray
    condition: float
    weakest: np.ndarray  # the direction of which the data say least, in scaled coordinates
    per_loss: float  # twice an increase of the objective times this is a likelihood-ratio statistic


def spread(problem, theta, loss):
    """The Spread of an optimum: sandwich errors of the M-estimator.

    A Huber loss curves only where residuals lie within delta. The share that does is estimated with the density at 0 where they are few: counting them
    would take chance for information.
    """
    from scipy.optimize._numdiff import approx_derivative
    from scipy.stats import gaussian_kde

    coordinates = Coordinates(problem.parameters)
    z = coordinates.z(theta)
    residuals = problem.residuals(theta)
    jacobian = approx_derivative(lambda x: problem.residuals(coordinates.theta(x)), z, method="3-point")
    rows, freedom = len(residuals), max(len(residuals) - len(z), 1)
    curved = 1.0
    if np.isfinite(loss.delta) and np.ptp(residuals) > 0:
        within = np.sum(np.abs(residuals) <= loss.delta) - len(z)  # as many residuals as parameters are near 0 by fitting, not by chance
        density = gaussian_kde(residuals if rows <= 20_000 else residuals[:: rows // 20_000])(0.0)[0]
        curved = min(1.0, max(1 / rows, float(within) / freedom, 2 * loss.delta * float(density)))
    score = problem.weights * loss.slope(residuals)
    bread = (jacobian * problem.weights[:, None]).T @ jacobian * curved
    scale = np.sqrt(np.maximum(np.diag(bread), 1e-300))
    scaled = bread / np.outer(scale, scale)
    inverse = np.linalg.pinv(scaled, rcond=1e-14) / np.outer(scale, scale)
    meat = (jacobian * score[:, None]).T @ (jacobian * score[:, None])
    covariance = inverse @ meat @ inverse * rows / freedom
    errors = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    per_loss = curved * rows / max(float(np.sum(score**2)) * rows / freedom, 1e-300)
    weakest = np.linalg.eigh(scaled)[1][:, 0] if len(z) else np.empty(0)
    return Spread(errors * np.abs(coordinates.slopes(z)), covariance / np.outer(errors, errors), covariance, float(np.linalg.cond(scaled)) if len(z) else 1.0, weakest, per_loss)


def draws(problem, theta, found, count, rng):
    """Parameters theta[count, p] drawn from the normal approximation in coordinates without bounds."""
    coordinates = Coordinates(problem.parameters)
    return coordinates.theta(rng.multivariate_normal(coordinates.z(theta), found.covariance, size=count, method="eigh"))


def likelihood_ratio(found, objective, other, freedom):
    """(statistic, probability): twice the increase of the objective from its minimum, on the scale at which it is chi-square with `freedom` degrees where the other is true."""
    from scipy.stats import chi2

    statistic = max(0.0, 2 * (other - objective) * found.per_loss)
    return statistic, float(chi2.sf(statistic, freedom))


def profile_intervals(problem, theta, loss, found, *, level=0.9, reach=8.0, points=24):
    """name -> [low, high] of every parameter: the values at which the objective, with all others free, stays within the level of its minimum; infinite where it never leaves it.

    The profile is followed to `reach` standard errors either side, in coordinates without bounds; between its points the root of the rise, nearly straight, is interpolated.
    """
    from scipy.stats import chi2

    coordinates = Coordinates(problem.parameters)
    z, errors = coordinates.z(theta), np.sqrt(np.diag(found.covariance))
    limit, minimum = np.sqrt(chi2.ppf(level, 1)), problem.objective(theta, loss)
    steps = reach * (np.arange(1, points + 1) / points) ** 1.5
    intervals = {}
    for index, parameter in enumerate(problem.parameters):
        ends = []
        for side in (-1, 1):
            moved = np.repeat(z[None], points, 0)
            moved[:, index] += side * steps * max(errors[index], 1e-12)
            values = profile(problem, theta, loss, index, coordinates.theta(moved)[:, index])
            rise = np.sqrt(np.maximum(2 * (values - minimum) * found.per_loss, 0))
            beyond = np.flatnonzero(rise > limit)
            if not len(beyond):
                quantity = parameter.quantity
                ends.append(quantity.low if side < 0 else quantity.high)
                continue
            i = beyond[0]
            before, at = (0.0, 0.0) if i == 0 else (rise[i - 1], steps[i - 1])
            step = at + (steps[i] - at) * (limit - before) / (rise[i] - before) if np.isfinite(rise[i]) else at
            point = z.copy()
            point[index] += side * step * max(errors[index], 1e-12)
            ends.append(float(coordinates.theta(point)[index]))
        intervals[parameter.name] = ends
    return intervals


def identifiability(names, found):
    """Sentences about what the data cannot tell apart; empty where every parameter stands on its own."""
    names = [name.rpartition(".")[2] for name in names]
    if found.condition > UNDETERMINED:
        involved = [name for name, share in zip(names, np.abs(found.weakest), strict=True) if share > LOADED]
        listed = ", ".join(involved) or "some parameters"
        return [f"these data do not determine the parameters: {listed} can move together without changing any prediction (a column that hardly varies, or too few different rows)"]
    said = []
    tied = [(i, j) for i in range(len(names)) for j in range(i) if abs(found.correlations[i, j]) > TIED]
    for i, j in sorted(tied, key=lambda pair: -abs(found.correlations[pair])):
        way = "together" if found.correlations[i, j] > 0 else "in opposite directions"
        said.append(f"{names[j]} and {names[i]} move {way} (correlation {found.correlations[i, j]:.3f}): the data fix their combination better than either")
    return said[:3]
