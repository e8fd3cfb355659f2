"""Many fits at once: derivatives of a law from JAX, Newton steps for all starts and all resamples together.

Every closed-form law whose inputs are columns is fitted here; the objective is a weighted sum of Huber losses of its residuals, in coordinates without bounds.
"""

import os
from functools import cached_property

import numpy as np

from ..contract import LawbookError
from ..numerics import generator
from ..numerics.robust import damped_newton

BATCHES = (8, 64, 512)  # sizes that are compiled for; smaller batches are padded
MEMORY = 4_000_000  # numbers in one Jacobian
CHUNK = 512  # resamples with a random stream of their own


def fits(problem):
    """Whether a Problem can be fitted here: a closed form of columns."""
    return problem.law.closed_form and len(problem.calls) == 1 and all(np.shape(v) == np.shape(problem.observed[0]) for v in problem.calls[0].values())


def resample(problem, theta, *, delta, resamples, seed=0, progress=None):
    """Parameters theta[resamples, p] refitted to rows drawn with replacement, from the optimum `theta` of all rows (pairs bootstrap)."""
    if not fits(problem):
        raise LawbookError(f"{problem.law.id} cannot be resampled: its inputs are whole curves or it is no closed form; its standard errors stand without.")
    engine, rows, found = Engine(problem, delta), len(problem.observed[0]), []
    start = engine.coordinates.z(np.asarray(theta, float))
    for chunk in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - chunk)
        weights = generator(seed, "pairs bootstrap", chunk).multinomial(rows, np.full(rows, 1 / rows), size=size).astype(float)
        found.append(engine.coordinates.theta(engine.minima(np.broadcast_to(start, (size, len(start))), weights)[0]))
        if progress:
            progress(min(chunk + CHUNK, resamples), resamples)
    return np.concatenate(found)


class Coordinates:
    """Parameters without bounds: logarithms of what is positive, logits of what lies between two ends."""

    def __init__(self, parameters):
        low = np.array([p.quantity.low for p in parameters], float)
        high = np.array([p.quantity.high for p in parameters], float)
        log = np.array([p.log for p in parameters], bool)
        self.low, self.high = np.where(np.isfinite(low), low, 0.0), np.where(np.isfinite(high), high, 1.0)
        self.two_sided = np.isfinite(low) & np.isfinite(high)
        self.from_below = ~self.two_sided & (np.isfinite(low) | log)

    def theta(self, z, xp=np):
        """Parameters of points z[..., p]."""
        width = xp.where(self.two_sided, self.high - self.low, 1.0)
        inside = self.low + width / (1 + xp.exp(-xp.clip(xp.where(self.two_sided, z, 0.0), -700, 700)))
        above = self.low + xp.exp(xp.clip(xp.where(self.from_below, z, 0.0), -700, 700))
        return xp.where(self.two_sided, inside, xp.where(self.from_below, above, z))

    def z(self, theta):
        """Points of parameters theta[..., p], ends of the domain moved inside."""
        share = np.clip((theta - self.low) / np.where(self.two_sided, self.high - self.low, 1.0), 1e-9, 1 - 1e-9)
        logit = np.log(share / (1 - share))
        log = np.log(np.maximum(theta - self.low, 1e-300))
        return np.where(self.two_sided, logit, np.where(self.from_below, log, theta))


class Engine:
    """The objective of a Problem with one call, its derivatives, and its minima from many points at once."""

    def __init__(self, problem, delta):
        self.problem, self.delta = problem, float(delta)
        self.coordinates = Coordinates(problem.parameters)
        (self.columns,), (observed,) = problem.calls, problem.observed
        self.target = np.log(observed) if problem.log else observed
        self.at_once = int(np.clip(MEMORY // (len(observed) * max(len(problem.parameters), 1)), 1, BATCHES[-1]))

    @cached_property
    def _jax(self):
        import jax

        _keep_compiled(jax)
        return jax

    def _residuals(self, z):
        import jax.numpy as jnp

        theta = self.coordinates.theta(z, jnp)
        given: dict = {}
        for value, parameter in zip(theta, self.problem.parameters, strict=True):
            name, _, key = parameter.name.partition(".")
            if key:
                given.setdefault(name, {})[key] = value
            else:
                given[name] = value
        predicted = self.problem.law.function(**self.columns, **given)
        return (jnp.log(predicted) if self.problem.log else predicted) - self.target

    @cached_property
    def _derivatives(self):
        import jax
        import jax.numpy as jnp

        def derivatives(z, weights):
            r, jacobian = self._residuals(z), jax.jacfwd(self._residuals)(z)
            size = jnp.abs(r)
            slope = weights * jnp.clip(r, -self.delta, self.delta)
            loss = jnp.where(size <= self.delta, 0.5 * r**2, self.delta * (size - 0.5 * self.delta)) if np.isfinite(self.delta) else 0.5 * r**2
            bend = jax.jacfwd(jax.grad(lambda x: jnp.sum(slope * self._residuals(x))))(z)  # sum of slope_i times the Hessian of r_i
            inner = jacobian * (weights * (size <= self.delta))[:, None]
            metric = jacobian * (weights / jnp.maximum(size / self.delta, 1.0))[:, None]
            return jnp.sum(weights * loss), slope @ jacobian, jacobian.T @ inner + bend, jacobian.T @ metric

        return self._jax.jit(self._jax.vmap(derivatives))

    def _batched(self, function, points, weights):
        """`function` over points in compiled sizes; values that are not finite become infinite, their derivatives zero."""
        size = next((b for b in BATCHES if b >= len(points)), BATCHES[-1])
        size = min(size, max(self.at_once, 1))
        parts = []
        with self._jax.enable_x64(True):
            for i in range(0, len(points), size):
                z, w = points[i : i + size], weights[i : i + size]
                short = size - len(z)
                z, w = np.pad(z, ((0, short), (0, 0)), mode="edge"), np.pad(w, ((0, short), (0, 0)), mode="edge")
                parts.append([np.asarray(part)[: size - short] for part in function(z, w)])
        joined = [np.concatenate(part) for part in zip(*parts, strict=True)]
        bad = ~np.all([np.isfinite(part.reshape(len(part), -1)).all(1) for part in joined], axis=0)
        joined[0] = np.where(bad, np.inf, joined[0])
        for part in joined[1:]:
            part[bad] = 0
        for part in joined[3:]:
            part[bad] = np.eye(part.shape[-1])
        return joined

    def minima(self, points, weights, rounds=400):
        """(points, objectives) reached from each row of `points`, each with its own row of `weights`."""
        return damped_newton(lambda z, rows: self._batched(self._derivatives, z, weights[rows]), points, rounds=rounds, at_once=4096)


def _keep_compiled(jax):
    """Compiled code is kept on disk between runs, where that can be written."""
    from pathlib import Path

    place = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(Path(os.environ.get("LAWBOOK_HOME") or Path.home() / ".lawbook") / "compiled")
    jax.config.update("jax_compilation_cache_dir", place)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
