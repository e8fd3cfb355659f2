"""Many fits at once: derivatives of a law from JAX, Newton steps for all starts and all resamples together.

Every closed-form law whose inputs are columns is fitted here. The objective is a weighted sum of Huber losses of its residuals, in coordinates without bounds.
"""

import os
from functools import cache, cached_property

import numpy as np

from ..contract import LawbookError
from ..numerics import generator
from ..numerics.robust import damped_newton
from .coordinates import Coordinates, theta_of
from .problem import by_argument

BATCH, BULK = 64, 256  # sizes that are compiled for; smaller batches are padded
MEMORY = 4_000_000  # numbers in one Jacobian
CHUNK = 512  # resamples with a random stream of their own
THIN = 512  # rows on which starts are compared
FINALISTS = 8
CLOSE = 1e-12  # of the objective, gained by the last step of a resample: 1e-5 of a standard error


def fits(problem):
    """Whether a Problem can be fitted here: a closed form of columns."""
    return problem.law.closed_form and len(problem.calls) == 1 and all(np.shape(v) == np.shape(problem.observed[0]) for v in problem.calls[0].values())


def solve(problem, loss, *, starts=1024, seed=0):
    """(theta, objective, whether converged, how many of the finalists agree): the best minimum from all starts.

    All starts are compared on at most 512 rows; the best 64 go down there, first by squares and then by the loss itself, and the best of these to the end on all rows.
    """
    thin = Engine(problem.thinned(THIN), loss)
    z = thin.coordinates.starts(starts, generator(seed, "starts"))
    examples = [p.quantity.example for p in problem.parameters]
    if None not in examples:
        z = np.concatenate([z, thin.coordinates.z(np.array(examples, float))[None]])
    wide = Engine(thin.problem, loss.squares())
    values = wide.values(z)
    z = z[np.argsort(values, kind="stable")[:BATCH]]
    z, values = wide.minima(z, rounds=60, rtol=1e-4)
    z, values = thin.minima(z[np.argsort(values, kind="stable")[: 2 * FINALISTS]], rtol=1e-9)
    order = np.argsort(values, kind="stable")
    agreed = int(np.sum(values[order[:FINALISTS]] <= 1.001 * values[order[0]] + 1e-300))
    whole = Engine(problem, loss)
    if len(whole.target) > len(thin.target):
        order = order[: 1 if len(whole.target) > 100 * THIN else FINALISTS]
    z, values = whole.minima(z[order[:FINALISTS]])
    best = int(np.argmin(values))
    if not np.isfinite(values[best]):
        raise LawbookError(f"{problem.law.id} could not be fitted: no start gives finite predictions on this table.")
    return whole.coordinates.theta(z[best]), float(values[best]), whole.stationary(z[best]), agreed


def resample(problem, theta, loss, *, resamples, kind="pairs", labels=None, seed=0, run=map):
    """Parameters theta[resamples, p] refitted to resampled rows, from the optimum `theta` of all of them.

    `kind` is pairs (rows drawn with replacement), residual (residuals drawn anew for the same rows) or group (all rows of a label of `labels` together).
    `run` maps a function over tasks, as map does: each chunk has a random stream of its own, so the answer does not depend on who runs it.
    """
    if not fits(problem):
        raise LawbookError(f"{problem.law.id} cannot be resampled: its inputs are whole curves or it is no closed form; its standard errors stand without.")
    sizes = [min(CHUNK, resamples - first) for first in range(0, resamples, CHUNK)]
    tasks = [(problem, np.asarray(theta, float), loss, kind, labels, size, seed, number) for number, size in enumerate(sizes)]
    return np.concatenate(list(run(resample_chunk, tasks)))


def resample_chunk(task):
    """One chunk of `resample`."""
    problem, theta, loss, kind, labels, size, seed, number = task
    engine, rng = Engine(problem, loss), generator(seed, kind, "bootstrap", number)
    rows, z = len(engine.target), engine.coordinates.z(theta)
    start = np.broadcast_to(z, (size, len(z)))
    if kind == "residual":
        freedom = np.sqrt(rows / max(rows - len(z), 1))
        drawn = rng.choice(engine.residuals(z) * freedom, (size, rows))
        return engine.coordinates.theta(engine.minima(start, shifts=engine.residuals(z) - drawn, frozen=z, rtol=CLOSE)[0])
    if kind == "group":
        names, member = np.unique(labels, return_inverse=True)
        counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size).astype(float)[:, member]
    else:
        counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=size).astype(float)
    return engine.coordinates.theta(engine.minima(start, counts=counts, frozen=z, rtol=CLOSE)[0])


def profile(problem, theta, loss, parameter, values):
    """The least objective at each of the `values` of one parameter (its index), all others free."""
    engine = Engine(problem, loss)
    z = np.repeat(engine.coordinates.z(np.asarray(theta, float))[None], len(values), 0)
    moved = np.repeat(np.asarray(theta, float)[None], len(values), 0)
    moved[:, parameter] = values
    z[:, parameter] = engine.coordinates.z(moved)[:, parameter]
    fixed = np.arange(z.shape[1]) == parameter
    order = np.argsort(np.abs(z[:, parameter] - engine.coordinates.z(np.asarray(theta, float))[parameter]), kind="stable")
    return engine.minima(z[order], fixed=fixed)[1][np.argsort(order, kind="stable")]


class Engine:
    """The objective of a Problem with one call, its derivatives, and its minima from many points at once."""

    def __init__(self, problem, loss):
        self.problem, self.loss = problem, loss
        self.coordinates = Coordinates(problem.parameters)
        (columns,), (observed,) = problem.calls, problem.observed
        self.target = np.log(observed) if problem.log else observed
        rows = len(observed)
        self.padded = max(32, 2 ** int(np.ceil(np.log2(rows))))  # rows in compiled code: few different numbers, so that it is used again
        pad = (0, self.padded - rows)
        self.columns = {name: np.pad(np.asarray(v, float), pad, mode="edge") for name, v in columns.items()}
        self.padded_target = np.pad(self.target, pad, mode="edge")
        self.weights = np.pad(problem.weights, pad)
        self.at_once = int(np.clip(MEMORY // (self.padded * max(len(problem.parameters), 1)), 1, BULK))

    @cached_property
    def code(self):
        return compiled(self.problem.law.function, tuple(p.name for p in self.problem.parameters), self.problem.log)

    def residuals(self, z):
        """Residuals at one point, prediction less observation."""
        return self.problem.residuals(self.coordinates.theta(z))

    def values(self, points):
        """Objectives of points[b, p]."""
        return self._batched("value", points)[0]

    def stationary(self, z):
        """Whether a free Newton step promises no decrease worth having."""
        value, gradient, hessian, metric = (part[0] for part in self._batched("derivatives", z[None]))
        scale = np.sqrt(np.maximum(np.diag(metric), 1e-300))
        curvature, axes = np.linalg.eigh(hessian / np.outer(scale, scale))
        along = axes.T @ (gradient / scale)
        return bool((along**2 / (np.abs(curvature) + 1e-8)).sum() <= 1e-9 * value + 1e-22 * len(self.target))  # residuals of 1e-11 are rounding

    def minima(self, points, *, counts=None, shifts=None, fixed=None, frozen=None, rounds=400, rtol=1e-15):
        """(points, objectives) reached from each row of `points`.

        `counts` and `shifts` (one row a point) multiply the weights and move the residuals; coordinates where `fixed` is true stay. With a `frozen` point the second derivatives of
        the residuals are those at that point: cheaper, and as good where all minima lie near it.
        """
        curvature = None if frozen is None else self._batched("curvature", np.asarray(frozen)[None])[0][0]

        def derivatives(z, rows):
            extra = {"counts": None if counts is None else counts[rows], "shifts": None if shifts is None else shifts[rows]}
            parts = self._batched("derivatives" if curvature is None else "frozen", z, curvature=curvature, **extra)
            if fixed is not None:
                free = ~fixed
                parts[1] = parts[1] * free
                parts[2:] = [part * np.outer(free, free) + np.diag(fixed.astype(float)) for part in parts[2:]]
            return parts

        return damped_newton(derivatives, points, rounds=rounds, rtol=rtol, at_once=4096)

    def _batched(self, what, points, *, counts=None, shifts=None, curvature=None):
        """The compiled functions `what` over points in compiled sizes; values that are not finite become infinite, their derivatives zero."""
        jax = _jax()
        points, pad_rows = np.asarray(points, float), (0, self.padded - len(self.target))
        size = min(BATCH if len(points) <= BATCH or curvature is None else BULK, self.at_once)
        function = self.code[what]
        shared = (self.columns, self.padded_target, self.coordinates.table, np.array(self.loss.numbers()))
        parts = []
        with jax.enable_x64(True):
            for i in range(0, len(points), size):
                z = points[i : i + size]
                short = size - len(z)
                w = self.weights[None] if counts is None else np.pad(counts[i : i + size], ((0, short), pad_rows), mode="constant") * self.weights
                s = np.zeros((1, 1)) if shifts is None else np.pad(shifts[i : i + size], ((0, short), pad_rows))
                found = function(np.pad(z, ((0, short), (0, 0)), mode="edge"), np.broadcast_to(w, (size, self.padded)), np.broadcast_to(s, (size, s.shape[1])), curvature, *shared)
                found = [np.asarray(part)[: size - short] for part in found]
                parts.append(found if len(found) < 3 else _with_squares(*found))
        joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
        if what == "curvature":
            return [np.nan_to_num(joined[0])]
        bad = ~np.all([np.isfinite(part.reshape(len(part), -1)).all(1) for part in joined], axis=0)
        joined[0] = np.where(bad, np.inf, joined[0])
        for part in joined[1:]:
            part[bad] = 0
        for part in joined[3:]:
            part[bad] = np.eye(part.shape[-1])
        return joined


def _with_squares(value, gradient, bend, rows, curving, touching):
    """Value, gradient, Hessian and majorising Hessian from Jacobians rows[b, p, n] and the weights of their squares: products of small matrices, where BLAS beats XLA."""
    with np.errstate(all="ignore"):
        inner, metric = ((rows * weights[:, None]) @ rows.swapaxes(1, 2) for weights in (curving, touching))
        return [value, gradient, inner + bend, metric]


@cache
def compiled(function, names, log):
    """The jitted functions of a law's objective, for all tables with the same parameters: value, derivatives, frozen (second derivatives given) and curvature."""
    jax = _jax()
    import jax.numpy as jnp

    def residuals(z, columns, target, table):
        predicted = function(**columns, **by_argument(names, theta_of(z, table, jnp)))
        return (jnp.log(predicted) if log else predicted) - target

    def losses(r, weights, loss):
        """Values, slopes, and the weights of the curving and of the touching squares of each residual."""
        delta, quantile = loss
        weights = weights * jnp.where(r < 0, 2 * quantile, 2 * (1 - quantile))
        size = jnp.abs(r)
        value = jnp.where(size <= delta, 0.5 * r**2, jnp.where(size <= delta, 1.0, delta) * (size - 0.5 * jnp.where(size <= delta, 1.0, delta)))
        return weights * value, weights * jnp.clip(r, -delta, delta), weights * (size <= delta), weights / jnp.maximum(size / delta, 1.0)

    def value(z, weights, shifts, curvature, columns, target, table, loss):
        return (jnp.sum(losses(residuals(z, columns, target, table) + shifts, weights, loss)[0]),)

    def parts(z, weights, shifts, columns, target, table, loss):
        r = residuals(z, columns, target, table) + shifts
        rows = jax.vmap(lambda along: jax.jvp(lambda x: residuals(x, columns, target, table), (z,), (along,))[1])(jnp.eye(len(names)))  # the Jacobian, a row a parameter
        values, slopes, curving, touching = losses(r, weights, loss)
        return slopes, (jnp.sum(values), rows @ slopes), (rows, curving, touching)

    def derivatives(z, weights, shifts, curvature, columns, target, table, loss):
        slopes, first, squares = parts(z, weights, shifts, columns, target, table, loss)
        bend = jax.jacfwd(jax.grad(lambda x: jnp.sum(slopes * residuals(x, columns, target, table))))(z)
        return *first, bend, *squares

    def frozen(z, weights, shifts, curvature, columns, target, table, loss):
        slopes, first, squares = parts(z, weights, shifts, columns, target, table, loss)
        return *first, (slopes @ curvature).reshape(len(z), len(z)), *squares

    def second(z, weights, shifts, curvature, columns, target, table, loss):
        return (jax.jacfwd(jax.jacfwd(residuals))(z, columns, target, table).reshape(len(target), -1),)

    functions = {"value": value, "derivatives": derivatives, "frozen": frozen, "curvature": second}
    return {name: jax.jit(jax.vmap(f, in_axes=(0, 0, 0, None, None, None, None, None))) for name, f in functions.items()}


@cache
def _jax():
    """JAX, with compiled code kept on disk between runs where that can be written."""
    from pathlib import Path

    import jax

    place = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path(os.environ.get("LAWBOOK_HOME") or Path.home() / ".lawbook") / "compiled")
    jax.config.update("jax_compilation_cache_dir", place)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    return jax
