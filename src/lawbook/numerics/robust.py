"""Robust fits: sums of Huber losses and their minima, reached and not only approached (such sums are so small that general solvers stop early on them), and errors of estimates."""

import numpy as np

from .arrays import logsumexp


def huber(residuals, delta):
    """Huber's loss of each residual: half its square up to delta and a straight line beyond, with the slope delta; an infinite delta leaves the squares."""
    size = np.abs(residuals)
    return np.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta) if np.isfinite(delta) else 0.0)


def huber_sum(residuals, jacobian, curved, delta, weights=1.0):
    """Value, gradient, Hessian and majorising Hessian of a weighted sum of Huber losses; leading axes are separate sums.

    Residuals within delta give the squares of their Jacobian, and each bends the sum by its slope times its own second derivatives: `curved(slopes)` is that sum of matrices.
    The majoriser is the quadratic that touches each loss where it is, with the same slope, and lies above it everywhere else: its curvature is delta / max(|r|, delta).
    """
    slopes = weights * np.clip(residuals, -delta, delta)
    inside, touching = weights * (np.abs(residuals) <= delta), weights / np.maximum(np.abs(residuals) / delta, 1.0)
    squares = [(jacobian * c[..., None]).swapaxes(-1, -2) @ jacobian for c in (inside, touching)]
    return (weights * huber(residuals, delta)).sum(-1), (jacobian * slopes[..., None]).sum(-2), squares[0] + curved(slopes), squares[1]


def log_sum_exp_objective(terms, target, delta, weights=None):
    """For damped_newton: sums of Huber losses of log sum_k exp(terms[k] theta) - target, the logarithm of a sum of power laws, with all derivatives.

    `terms` has shape [k, n, parameters]; `weights`, where given, one row of n for each row of starts. With p_k the share of a term in the sum and u_k its coefficients, the
    gradient of the logarithm is sum_k p_k u_k, and its Hessian sum_k p_k u_k u_k' less the square of that.
    """
    size = terms.shape[-1]
    squares = (terms[..., None] * terms[..., None, :]).reshape(*terms.shape[:2], size * size)

    def derivatives(theta, rows):
        exponents = theta @ terms.swapaxes(1, 2)
        predicted = logsumexp(np, exponents, axis=0)
        shares = np.exp(exponents - predicted)
        jacobian = np.einsum("krn,knj->rnj", shares, terms)

        def curved(slopes):
            return sum((slopes * shares) @ squares).reshape(-1, size, size) - (jacobian * slopes[..., None]).swapaxes(1, 2) @ jacobian

        return huber_sum(predicted - target, jacobian, curved, delta, 1.0 if weights is None else weights[rows])

    return derivatives


def huber_gauss_newton(residuals, theta, delta, *, rtol=1e-9, rounds=150):
    """(theta, residuals, Jacobian, whether converged) at a minimum of a sum of Huber losses, by damped Gauss-Newton steps.

    Only residuals within delta bend the sum, so the step solves (J'J over those + damping M) step = -slope, damped in the metric M of the touching squares over all residuals,
    whose own step always descends once it is short. `residuals(theta)` is (residuals, Jacobian), or None outside the domain. Converged: three steps in a row that gain less
    than rtol of the value, or none to be had.
    """
    r, jacobian = residuals(theta)
    value, damping, quiet = huber(r, delta).sum(), 1.0, 0
    for _ in range(rounds):
        _, gradient, inner, metric = huber_sum(r, jacobian, lambda _: 0.0, delta)
        metric = metric + 1e-14 * np.trace(metric) * np.eye(len(theta))
        step = -np.linalg.lstsq(inner + damping * metric, gradient, rcond=1e-15)[0]
        moved = residuals(theta + step)
        new = huber(moved[0], delta).sum() if moved is not None else np.inf
        if new < value:
            quiet = quiet + 1 if value - new < rtol * value else 0
            theta, value, (r, jacobian), damping = theta + step, new, moved, max(damping / 4, 1e-6)
        else:
            damping *= 4
        if quiet == 3 or damping > 1e8 or value == 0:
            return theta, r, jacobian, True
    return theta, r, jacobian, False


def damped_newton(derivatives, starts, *, rounds=400, rtol=1e-15, at_once=10_000):
    """(points, values): minima reached from each row of `starts`, all rows together, by Newton steps damped in the metric of a majoriser.

    In coordinates where the majorising Hessian is the unit matrix, each eigendirection of the true one takes the step slope / (|curvature| + damping): never towards a saddle,
    and for a large damping always down. `derivatives(points, rows)` gives value, gradient, Hessian and majorising Hessian of the objectives with these row numbers
    (an infinite value outside the domain); `at_once` rows are held in memory. A row is done where a free step promises less than `rtol` of its value.
    """
    points, values, unit = starts.astype(float), np.empty(len(starts)), np.eye(starts.shape[1])
    for rows in (np.arange(i, min(i + at_once, len(starts))) for i in range(0, len(starts), at_once)):
        state, damping, active = [np.array(part) for part in derivatives(points[rows], rows)], np.ones(len(rows)), np.arange(len(rows))
        for _ in range(rounds):
            value, gradient, hessian, metric = (part[active] for part in state)
            ridge = 1e-13 * np.trace(metric, axis1=1, axis2=2)[:, None, None] + 1e-300
            white = np.linalg.inv(np.linalg.cholesky(metric + ridge * unit))
            curvature, axes = np.linalg.eigh(white @ hessian @ white.swapaxes(1, 2))
            along = (gradient[:, None] @ white.swapaxes(1, 2) @ axes)[:, 0]
            step = -((along / (np.abs(curvature) + damping[active, None]))[:, None] @ axes.swapaxes(1, 2) @ white)[:, 0]
            with np.errstate(over="ignore", invalid="ignore"):
                moved = derivatives(points[rows[active]] + step, rows[active])
            better = moved[0] < value
            kept = active[better]
            points[rows[kept]] += step[better]
            for part, new in zip(state, moved, strict=True):
                part[kept] = new[better]
            damping[active] = np.clip(damping[active] * np.where(better, 0.2, 5), 1e-9, 1e12)
            left = (along**2 / (np.abs(curvature) + 1e-8)).sum(1)  # twice the decrease that a free Newton step promises
            active = active[(left > rtol * value + 1e-300) & (damping[active] < 1e10)]
            if not len(active):
                break
        values[rows] = state[0]
    return points, values


def huber_information(residuals, jacobian, delta, lengths):
    """Information matrix of a Huber estimate at equal noise, lowered where residuals go together: by what sums of about sqrt(n) neighbours vary beyond independent ones.

    `lengths` are those of the runs of residuals, one after the other, within which neighbours go together.
    """
    scores, inside = np.clip(residuals, -delta, delta), max(np.mean(np.abs(residuals) <= delta), 1 / len(residuals))
    runs = np.split(scores, np.cumsum(lengths)[:-1])
    stretches = [part.sum() for run in runs for part in np.array_split(run, max(1, round(len(run) ** 0.5)))]
    together = max(1.0, np.sum(np.square(stretches)) / max(np.sum(scores**2), 1e-300))
    return jacobian.T @ jacobian * inside**2 / max(together * np.mean(scores**2), 1e-30)


def standard_errors(information):
    """Standard errors from an information matrix, inverted at unit diagonal; finite, if vast, where it is singular."""
    scale = np.sqrt(np.diag(information)) + 1e-12
    return np.sqrt(np.diag(np.linalg.inv(information / np.outer(scale, scale) + 1e-14 * np.eye(len(scale))))) / scale


def separable_least_squares(columns, target, grid):
    """(point, weights): the point of a grid at which the best linear weights of columns(*point) leave the smallest sum of squares, solved exactly at every point."""
    fits = []
    for point in grid:
        matrix = columns(*point)
        weights = np.linalg.lstsq(matrix, target, rcond=None)[0]
        fits.append((np.sum((matrix @ weights - target) ** 2), point, weights))
    return min(fits, key=lambda fit: fit[0])[1:]
