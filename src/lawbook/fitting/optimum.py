"""The best fit of a law, by the solver that suits it."""

from dataclasses import dataclass

import numpy as np

from . import engine, least_squares
from .uncertainty import Spread, spread


@dataclass(frozen=True)
class Optimum:
    theta: np.ndarray
    objective: float  # weighted sum of losses
    converged: bool | None  # None where the law's own fitter does not tell; it warns where it stopped short
    agreed: str  # in words: of the best starts, how many came to the same objective
    spread: Spread


def optimum(problem, loss, *, starts=1024, seed=0):
    """The Optimum of a Problem: by the law's own fitter where it has one, batched where it is a closed form of columns, otherwise by SciPy."""
    if problem.law.fitter is not None:
        given = problem.law.fitter(problem.calls, problem.observed, huber_delta=loss.delta, seed=seed)
        theta = np.array([given[p.name] for p in problem.parameters], float)
        objective, converged, agreed = problem.objective(theta, loss), None, "fitted by the paper's own algorithm"
    elif engine.fits(problem):
        theta, objective, converged, count = engine.solve(problem, loss, starts=starts, seed=seed)
        agreed = f"{count} of the {engine.FINALISTS} best of {starts} starts agree"
    else:
        theta, objective, converged, count = least_squares.solve(problem, loss, seed=seed)
        agreed = f"{count} of the {least_squares.SOLVED} best of {least_squares.STARTS} starts agree"
    return Optimum(theta, objective, converged, agreed, spread(problem, theta, loss))
