"""Fits of the multi-power law to loss curves: predictions with their derivatives from lumps of the schedule, a penalised robust fit, and a penalty chosen by forecasts.

Parameters are theta = (L0, ln A, alpha, ln B, ln C, beta, gamma) of L0 + A S^-alpha - B sum_k drop_k [1 - (1 + C rate_k^-gamma S_k)^-beta].
"""

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from ..contract import DomainError, caution
from .robust import huber_gauss_newton, huber_information, separable_least_squares, standard_errors

EXPONENTS = np.linspace(0.1, 1.2, 23)
KERNEL = np.array([0.0, 0.5, 0.5])  # where ln C, beta, gamma are held, and how far they may go for one unit of penalty
REACH = np.array([1.0, 0.2, 0.2])
REPEATED = 1e-3  # runs repeat to about a tenth of a percent: the size of a residual that weighs as much as a parameter one reach away
CROSS_VALIDATED = "cross-validated"
SQUARED = 1e9  # a Huber threshold beyond all residuals
LEADS = tuple(product((0.15, 0.3, 0.6, 1.2, math.inf), (0.4, 1.2, 4.0, 12.0, 40.0)))  # candidates of the cross-validation: reach of ln B, multiple of REACH


@dataclass(frozen=True)
class Curve:
    """A curve as a fit needs it: its schedule where the rate changes, with the summed rates before each change, and the logged losses."""

    changed: np.ndarray
    drops: np.ndarray
    log_rates: np.ndarray
    moving: np.ndarray  # whether the rate after the change is above 0
    ahead: np.ndarray
    steps: np.ndarray
    log_loss: np.ndarray
    total: np.ndarray  # summed rates up to each logged step


def thinned(curve, most):
    """Every n-th logged loss of a curve, the last one included, so that about `most` are left."""
    rows = np.arange(len(curve["steps"]))[:: -max(1, len(curve["steps"]) // most)][::-1]
    return {**curve, "steps": np.asarray(curve["steps"])[rows], "losses": np.asarray(curve["losses"])[rows]}


def lumped(curve, fineness=None):
    """The Curve of {learning_rates, steps, losses}; with a fineness, neighbouring changes of the rate count as one at their mean.

    A lump lies between two logged steps, and spans at most 1 / fineness in the logarithms of the rate and of the steps left to the next logged one: its error falls with the
    square of that. At 2, losses are off by 2e-5 at the end of a long warmup, and by 2e-6 soon after; without one nothing is lumped.
    """
    rates, steps = np.asarray(curve["learning_rates"], float), np.asarray(curve["steps"])
    total, drops = np.cumsum(rates), np.concatenate([[0.0], rates[:-1] - rates[1:]])
    changed = np.flatnonzero(drops)
    ahead, drops, moving = (total - rates)[changed], drops[changed], rates[changed] > 0
    log_rates = np.log(np.where(moving, rates[changed], 1.0))
    if fineness and len(changed):
        ends = np.append(np.unique(steps), len(rates))
        cell = np.searchsorted(ends, changed)
        parts = [cell, np.floor(fineness * np.log1p(ends[cell] - changed)), np.floor(fineness * log_rates), np.sign(drops), moving]
        first = np.append(True, np.any([part[1:] != part[:-1] for part in parts], axis=0))
        lump, size = np.cumsum(first) - 1, np.abs(drops)
        ahead, log_rates = (np.bincount(lump, size * values) / np.bincount(lump, size) for values in (ahead, log_rates))
        changed, drops, moving = changed[first], np.bincount(lump, drops), moving[first]
    return Curve(changed, drops, log_rates, moving, ahead, steps, np.log(curve["losses"]), total[steps])


def predicted(curve, theta):
    """Loss at the logged steps of a Curve, and its derivatives in theta."""
    offset, log_a, alpha, log_b, log_c, beta, gamma = theta
    steps, total = curve.steps, curve.total
    scale = np.where(curve.moving, np.exp(log_c - gamma * curve.log_rates), np.inf)
    gains = np.zeros((4, len(steps)))  # the sum over drops, and its derivatives in ln C, beta, gamma
    rows = max(1, 20_000 // max(len(scale), 1))
    for block in (slice(i, i + rows) for i in range(0, len(steps), rows)):
        n = int(np.searchsorted(curve.changed, steps[block].max(), side="right"))
        done, drops = curve.changed[:n] <= steps[block, None], curve.drops[:n]
        x = np.where(done, scale[:n] * np.maximum(np.where(done, total[block, None] - curve.ahead[:n], 0), 1e-300), 0.0)
        log_u = np.minimum(np.log1p(x), 700)
        kept = np.exp(-beta * log_u)
        slope = beta * kept * (1 - 1 / (1 + x))
        gains[:, block] = (1 - kept) @ drops, slope @ drops, (kept * log_u) @ drops, -slope @ (drops * curve.log_rates[:n])
    gains *= -math.exp(log_b)
    falling = math.exp(log_a) * total**-alpha
    return offset + falling + gains[0], np.stack([np.ones(len(steps)), falling, -falling * np.log(total), *gains], 1)


def log_residuals(curves, theta):
    """Logarithmic residuals of all curves and their Jacobian; None outside the law's domain."""
    if np.abs(theta[1:]).max() > 100 or theta[2] <= 0 or theta[5] <= 0:
        return None
    found = [predicted(curve, theta) for curve in curves]
    if not all(losses.min() > 0 for losses, _ in found):
        return None
    rows = [np.log(losses) - curve.log_loss for curve, (losses, _) in zip(curves, found, strict=True)]
    return np.concatenate(rows), np.concatenate([jacobian / losses[:, None] for losses, jacobian in found])


def linear_fit(features, grid, curves):
    """(point, weights) on a grid at which linear weights of features(rates, steps, *point) leave the least squares of relative errors."""
    losses = np.concatenate([curve["losses"] for curve in curves])

    def columns(*point):
        return np.vstack([features(curve["learning_rates"], curve["steps"], *point) for curve in curves]) / losses[:, None]

    return separable_least_squares(columns, np.ones(len(losses)), grid)


def proportional_features(rates, steps, alpha):
    """The law with a gain in proportion to the fall from the peak, where fits start."""
    return np.column_stack([np.ones(len(steps)), np.cumsum(rates)[steps] ** -alpha, np.asarray(rates)[steps] - np.max(rates)])


def start(curves):
    """theta of the least squares with a gain in proportion to the fall from the peak, and (ln C, beta, gamma) where they are held."""
    (alpha,), (offset, a, b) = linear_fit(proportional_features, [(alpha,) for alpha in EXPONENTS], curves)
    return np.array([offset, math.log(max(a, 1e-6)), alpha, math.log(max(b, 1.0)), *KERNEL])


@dataclass(frozen=True)
class Penalty:
    """Residuals weights * (theta - centre) beside those of the curves: squared, or under the same Huber loss."""

    centre: np.ndarray
    weights: np.ndarray
    robust: bool = False

    def at_least(self, weight):
        """The same with ln C, beta, gamma held at least this firmly."""
        return replace(self, weights=np.append(self.weights[:4], np.maximum(self.weights[4:], weight / REACH)))


def reaching(centre, n, lead):
    """The Penalty of one candidate of LEADS for n losses: it counts once a loss, as residuals of curves err together and more of them tell no more."""
    return Penalty(centre, REPEATED * math.sqrt(n) / np.array([math.inf, math.inf, math.inf, lead[0], *lead[1] * REACH]))


def descend(curves, theta, delta, penalty, *, rtol=1e-9, rounds=150):
    """(theta, whether converged) at a minimum of the Huber losses of all curves plus the penalty, by damped Gauss-Newton on the roots of twice the losses."""

    def roots(theta):
        found = log_residuals(curves, theta)
        if found is None:
            return None
        r, jacobian = np.append(found[0], penalty.weights * (theta - penalty.centre)), np.vstack([found[1], np.diag(penalty.weights)])
        limit = np.where(np.arange(len(r)) < len(found[0]) + len(r) * penalty.robust, min(delta, SQUARED), SQUARED)
        size = np.abs(r)
        root = np.where(size <= limit, size, np.sqrt(limit * np.maximum(2 * size - limit, 0)))
        return np.sign(r) * root, jacobian * (limit / np.maximum(root, limit))[:, None]

    theta, _, _, converged = huber_gauss_newton(roots, theta, np.inf, rtol=rtol, rounds=rounds)
    return theta, converged


def fit(curves, delta, penalty, theta):
    """(theta, residuals, Jacobian, whether converged): through a tight penalty and coarse lumps to the minimum for the schedules as they are."""
    coarse, fine, whole = ([lumped(curve, fineness) for curve in chosen] for chosen, fineness in (([thinned(c, 60) for c in curves], 2), (curves, 4), (curves, None)))
    theta, _ = descend(coarse, theta, delta, penalty.at_least(0.01), rtol=1e-5)
    theta, _ = descend(coarse, theta, delta, penalty, rtol=1e-5)
    theta, _ = descend(fine, theta, delta, penalty, rtol=1e-7, rounds=300)
    theta, converged = descend(whole, theta, delta, penalty, rtol=1e-7)
    return theta, *log_residuals(whole, theta), converged


def forecast_errors(curves, delta):
    """{lead: root of the mean over curves of the mean squared logarithmic error, when each is forecast from the others} for every candidate."""
    squares = {lead: [] for lead in LEADS}
    curves = [thinned(curve, 200) for curve in curves]
    lumps = [lumped(curve, 2) for curve in curves]
    for i, left_out in enumerate(lumps):
        others, n = lumps[:i] + lumps[i + 1 :], sum(len(curve.steps) for curve in lumps) - len(left_out.steps)
        centre = theta = start(curves[:i] + curves[i + 1 :])
        for lead in LEADS:  # the tightest of each row starts anew, the looser ones where it ended
            theta = centre if lead[1] == LEADS[0][1] else theta
            theta, _ = descend(others, theta, delta, reaching(centre, n, lead), rtol=1e-4, rounds=60)
            found = log_residuals([left_out], theta)
            squares[lead].append(np.inf if found is None else np.mean(found[0] ** 2))
    return {lead: math.sqrt(np.mean(values)) for lead, values in squares.items()}


def information(residuals, jacobian, delta, lengths, reach):
    """Information on theta from residuals that go together along a curve, and from a prior of these standard deviations, counted once."""
    return huber_information(residuals, jacobian, delta, lengths) + np.diag(1 / np.square(reach))


def penalty(curves, prior_weight, huber_delta, centre):
    """The Penalty that a prior weight stands for, the standard errors of the prior behind it, and the error of forecasts where it was cross-validated, else 0."""
    if prior_weight == CROSS_VALIDATED:
        errors = forecast_errors(curves, huber_delta)
        lead = min(errors, key=errors.get)
        return reaching(centre, sum(len(curve["steps"]) for curve in curves), lead), np.array([np.inf] * 3 + [lead[0], *lead[1] * REACH]), errors[lead]
    reach = REACH if prior_weight else np.full(3, np.inf)
    return Penalty(centre, np.append(np.zeros(4), prior_weight / REACH), robust=True), np.append(np.full(4, np.inf), reach), 0.0


def estimate(curves, huber_delta, prior_weight):
    """(theta, residuals of all logarithms of losses, information on theta, error of forecasts) under a prior of this weight, or a cross-validated one."""
    centre = start(curves)
    if log_residuals([lumped(curve, 2) for curve in curves], centre) is None:
        raise DomainError("curves do not start inside the law: no falling power law of the summed rates comes near their losses.")
    chosen, reach, error = penalty(curves, prior_weight, huber_delta, centre)
    theta, r, jacobian, reached = fit(curves, huber_delta, chosen, centre)
    if not reached:
        caution("The fit was still gaining when it was stopped: curves leave a flat valley, along which C, beta, gamma and B move together.")
    return theta, r, information(r, jacobian, huber_delta, [len(curve["steps"]) for curve in curves], reach), error


def normal_draws(theta, matrix, n, seed):
    """[n, 7] draws of theta around an estimate with this information matrix, inside the law's domain."""
    errors = standard_errors(matrix)
    scaled = np.linalg.cholesky(matrix * np.outer(errors, errors) + 1e-9 * np.eye(len(theta)))
    rng, kept = np.random.default_rng(seed), np.empty((0, len(theta)))
    for _ in range(100):
        found = theta + errors * np.linalg.solve(scaled.T, rng.normal(size=(len(theta), n))).T
        kept = np.vstack([kept, found[(found[:, 2] > 0) & (found[:, 5] > 0) & (np.abs(found[:, [1, 3, 4]]).max(1) < 100)]])
        if len(kept) >= n:
            return kept[:n]
    raise DomainError("curves tell too little of the parameters to draw them: next to no draw lies inside the law.")


def falling_schedule(objective, n, peak, *, knots, least):
    """The non-increasing rates of n steps, from `peak` on, with the lowest objective(rates) -> (value, gradient); ln rate is linear between knots, which crowd towards the end."""
    from scipy.optimize import minimize

    at = np.unique(np.round((n - 1) * (1 - np.linspace(1, 0, min(knots, n)) ** 2)).astype(int))
    segment, part = np.divmod(np.interp(np.arange(n), at, np.arange(len(at))), 1)  # the knot before each step, and how far on to the next
    segment, floor = segment.astype(int), math.log(least)

    def rates_after(falls):
        """From the falls of ln rate between knots: the rates, and whether they are above the least."""
        logs = math.log(peak) - np.interp(np.arange(n), at, np.append(0.0, np.cumsum(falls)))
        return np.exp(np.maximum(logs, floor)), logs > floor

    def by_falls(falls):
        rates, free = rates_after(falls)
        value, by_rate = objective(rates)
        by_log = by_rate * rates * free
        by_knot = np.bincount(segment, by_log * (1 - part), len(at) + 1) + np.bincount(segment + 1, by_log * part, len(at) + 1)
        return 1e3 * value, -1e3 * np.cumsum(by_knot[::-1])[::-1][1:-1]

    first = min(5.0, math.log(peak) - floor) * np.diff(np.clip(5 * at / (n - 1) - 4, 0, 1))
    options = {"maxiter": 1000, "maxfun": 2000, "maxcor": 30, "ftol": 1e-10, "gtol": 1e-8}
    found = minimize(by_falls, first, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(first), options=options)
    return np.minimum.accumulate(rates_after(found.x)[0])
