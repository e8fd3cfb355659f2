"""Separable least squares: linear constants projected out, coordinates moved by damped Gauss-Newton steps, for many problems and many starts together."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MEMORY = 3_000_000  # numbers in one set of basis functions
ROUGH_ROWS = 200  # rows that starts are compared on
POLISHED = 2  # starts of each problem that are followed to the end


@dataclass(frozen=True)
class Separable:
    """sum_j c_j basis_j(x; q), or exp of it: linear constants c, those in `positive` not below 0, and coordinates q that start in `box` and stay within `limits`.

    `basis(x, q)` gives terms[..., j, n] for inputs x[..., n, m] and coordinates q[..., k], whose leading axes broadcast. Without limits, q goes five widths of the box beyond it.
    """

    basis: Callable
    box: np.ndarray
    positive: tuple[int, ...] = ()
    log: bool = False
    limits: np.ndarray | None = None

    def predict(self, x, q, c):
        """Predictions[..., n]."""
        value = (np.asarray(c)[..., None, :] @ self.basis(x, q))[..., 0, :]
        return np.exp(value) if self.log else value

    def bounds(self):
        return self.box + np.outer(np.ptp(self.box, axis=1), (-5, 5)) if self.limits is None else self.limits


def columns(*parts):
    """Basis functions as terms[..., j, n]."""
    return np.stack(np.broadcast_arrays(*parts), -2)


def project(terms, target, weights, positive=()):
    """Residuals[..., n] and coefficients[..., j] of weighted least squares of target[..., n] on terms[..., j, n]; of the coefficients in `positive` those below 0 are dropped."""
    root, wanted = np.sqrt(weights), list(positive)
    scaled = terms * root[..., None, :]
    size = np.sqrt((scaled**2).sum(-1)) + 1e-300
    free = np.ones(size.shape)
    c = _coefficients(scaled, target * root, free / size)
    for _ in wanted:
        below = c[..., wanted] < 0
        again = below.any(-1)
        if not again.any():
            break
        free[..., wanted] *= ~below
        c[again] = _coefficients(scaled[again], np.broadcast_to(target * root, (*again.shape, target.shape[-1]))[again], (free / size)[again])
    residuals = target - (c[..., None, :] @ terms)[..., 0, :]
    return np.where(np.isfinite(residuals), residuals, 1e3), c


def _coefficients(terms, target, scales):
    """Least-squares coefficients by modified Gram-Schmidt over all leading axes; terms that lie in the span of those before them get 0."""
    count, axes, triangle = terms.shape[-2], [], {}
    rest, along = np.broadcast_to(target, (*terms.shape[:-2], terms.shape[-1])), []
    for j in range(count):
        axis = terms[..., j, :] * scales[..., j, None]
        for i in (*range(j), *range(j)):  # twice is enough
            part = np.einsum("...n,...n->...", axes[i], axis)
            axis = axis - part[..., None] * axes[i]
            triangle[i, j] = triangle.get((i, j), 0.0) + part
        length = np.sqrt(np.einsum("...n,...n->...", axis, axis))
        spanned = length < 1e-11
        triangle[j, j] = np.where(spanned, 1.0, length)
        axes.append(np.where(spanned[..., None], 0.0, axis / triangle[j, j][..., None]))
        along.append(np.einsum("...n,...n->...", axes[j], rest))
        rest = rest - along[j][..., None] * axes[j]
    for j in reversed(range(count)):
        along[j] = (along[j] - sum(triangle[j, i] * along[i] for i in range(j + 1, count))) / triangle[j, j]
    return np.stack(along, -1) * scales


def descend(law, x, target, scale, q, *, rounds, delta, weights=1.0):
    """(q, c, value) after damped Gauss-Newton steps from each row of q[r, k] on the projected residuals, reweighted so that each descends in the sum of weighted Huber losses.

    x[r, n, m], target[r, n], scale[r, n] (of the residuals), delta[r] and weights[r, n] may have leading axes of length 1.
    """
    rows, size, step = len(q), q.shape[1], 1e-6
    x, target, scale, delta, counts = (
        np.broadcast_to(v, (rows, *np.shape(v)[1:])) for v in (x, target * scale, scale, np.minimum(np.atleast_1d(delta), 1e9), np.atleast_2d(weights))
    )
    counts = np.broadcast_to(counts, target.shape)
    unit, limits = np.eye(size), law.bounds().T if size else np.zeros((2, 0))
    around = step * np.vstack([np.zeros(size), unit])
    found_q, found_c, found = q.astype(float), None, np.full(rows, np.inf)
    active, damping, touching = np.arange(rows), np.full(rows, 1e-2), counts.astype(float)
    for _ in range(rounds):
        start, weight = found_q[active], touching[active]
        terms = law.basis(x[active][:, None], start[:, None] + around) * scale[active][:, None, None]
        near, c = project(terms, target[active][:, None], weight[:, None], law.positive)
        jacobian = (near[:, 1:] - near[:, :1]) / step
        sloped = jacobian * weight[:, None]
        normal = sloped @ jacobian.swapaxes(1, 2)
        ridge = damping[active, None, None] * unit * (np.einsum("sii->si", normal)[:, None] + 1e-12)
        move = np.linalg.solve(normal + ridge, sloped @ near[:, 0, :, None])[..., 0]
        tried = np.clip(start - np.clip(move, -2, 2), *limits)
        moved, c_moved = project(law.basis(x[active], tried) * scale[active][:, None], target[active], weight, law.positive)
        better = (weight * moved**2).sum(1) < (weight * near[:, 0] ** 2).sum(1)
        damping[active] = np.clip(damping[active] * np.where(better, 0.2, 4), 1e-10, 1e10)
        residuals = np.where(better[:, None], moved, near[:, 0])
        if found_c is None:
            found_c = np.zeros((rows, c.shape[-1]))
        found_q[active], found_c[active] = np.where(better[:, None], tried, start), np.where(better[:, None], c_moved, c[:, 0])
        size_of, bend = np.abs(residuals), delta[active, None]
        value = (counts[active] * np.where(size_of <= bend, 0.5 * residuals**2, bend * (size_of - 0.5 * bend))).sum(1)
        settled = (found[active] - value <= 1e-8 * value) & (better | (damping[active] > 1e6))
        found[active] = value
        touching[active] = counts[active] / np.maximum(size_of / bend, 1)  # of the parabola that touches Huber's loss from above
        active = active[~settled]
        if not len(active):
            break
    return found_q, found_c, found


def best_fits(law, x, target, scale, *, starts=16, seed=0, delta=None, weights=1.0, rounds=(12, 80)):
    """(q[p, k], c[p, j], value[p], delta[p]) with the least Huber loss in each problem: all starts a little way, the best of them to the end.

    x[p, n, m], target[p, n], scale[p, n], weights[p, n]; rows of weight 0 are none. Without delta, it is taken from the spread of the residuals that a fit by squares leaves,
    but not below .001.
    """
    target = np.asarray(target, float)
    problems, rows = target.shape
    weights = np.broadcast_to(weights, target.shape)
    box = law.box
    first = np.random.default_rng(seed).uniform(*box.T, (max(starts, 1), len(box))) if len(box) else np.zeros((1, 0))
    first[0] = box.mean(1) if len(box) else first[0]
    parts = []
    with np.errstate(all="ignore"):
        terms = law.basis(x[:1], first[:1]).shape[-2]
        thin = np.unique(np.linspace(0, rows - 1, min(rows, ROUGH_ROWS)).astype(int))
        at_once = max(1, MEMORY // (len(first) * max(len(thin), rows * POLISHED // len(first)) * terms * (len(box) + 1)))
        for block in (np.arange(i, min(i + at_once, problems)) for i in range(0, problems, at_once)):
            near = np.repeat(block, len(first))
            some = [v[block][:, thin][np.repeat(np.arange(len(block)), len(first))] for v in (x, target, scale, weights)]
            rough = descend(law, *some[:3], np.tile(first, (len(block), 1)), rounds=rounds[0], delta=np.inf if delta is None else delta, weights=some[3])
            order = np.argsort(np.nan_to_num(rough[2], nan=np.inf).reshape(len(block), -1), axis=1, kind="stable")[:, :POLISHED]
            picked = (order + len(first) * np.arange(len(block))[:, None]).ravel()
            near, q = near[picked], rough[0][picked]
            if delta is None:
                off = (target[block] - (rough[1][picked[:: order.shape[1]]][:, None, :] @ law.basis(x[block], q[:: order.shape[1]]))[:, 0]) * scale[block]
                size = np.where(weights[block] > 0, np.abs(off), np.nan)
                free = np.maximum((weights[block] > 0).sum(1) - terms - len(box), 1)
                level = 2.0 * np.nanmedian(size, axis=1) * np.sqrt((weights[block] > 0).sum(1) / free)  # 1.345 standard deviations of normal residuals
                level = np.maximum(np.nan_to_num(level, nan=1e-3), 1e-3)
            else:
                level = np.full(len(block), float(delta))
            q, c, value = descend(law, x[near], target[near], scale[near], q, rounds=rounds[1], delta=np.repeat(level, order.shape[1]), weights=weights[near])
            best = np.argmin(np.nan_to_num(value, nan=np.inf).reshape(len(block), -1), axis=1) + order.shape[1] * np.arange(len(block))
            parts.append((q[best], c[best], value[best], level))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def sides(law, y, relative=True):
    """(target, scale) of observations y: logarithms, relative residuals, or residuals as they are."""
    y = np.asarray(y, float)
    if law.log:
        return np.log(y), np.ones(y.shape)
    return y, 1 / y if relative else np.ones(y.shape)
