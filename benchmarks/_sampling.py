"""The samplers of the book beside their peers, for the table of algorithms.py."""

import logging
import math
import warnings

import numpy as np
from _table import against, curve, row
from _timing import median_seconds

from lawbook.chapters.sampling.beta_ensembles import hermite_second_moment, sample_hermite
from lawbook.chapters.sampling.cold_start_logconcave import in_and_out
from lawbook.chapters.sampling.fb_gaussian_vi import fb_gvi_logistic, logistic_moments
from lawbook.chapters.sampling.feat_free_energy import bar, escorted_work, harmonic_path, jarzynski
from lawbook.chapters.sampling.generating_circuits import circuit_log_likelihood, circuit_sample, dpp_marginal, fit_det_pgc
from lawbook.chapters.sampling.langevin_sqrt_d import lmc_best_schedule
from lawbook.chapters.sampling.log_concave_chain import oat_walk_jump
from lawbook.chapters.sampling.paris_particle_gibbs import linear_gaussian_smoother, paris_smooth, ppg_smooth, record_data
from lawbook.contract import Caution


def ensembles():
    n, draws = 1000, 5
    ours, _ = median_seconds(sample_hermite, n, 2.0)
    exact, seeds = hermite_second_moment(n, 2.0), iter(range(100))

    def moment(points):
        return f"sum of squares / exact {np.sum(points**2) / exact:.4f} against {np.mean([np.sum(sample_hermite(n, 2.0, seed=s) ** 2) for s in range(draws)]) / exact:.4f}"

    def banded(dppy):
        return dppy.HermiteEnsemble(2).sample_banded_model(loc=0.0, scale=1.0, size_N=n, random_state=next(seeds))

    def dense():
        rng = np.random.default_rng(0)
        square = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
        return np.linalg.eigvalsh((square + square.conj().T) / 2)

    against("Hermite ensemble, 1000 points, beta 2", ours, "DPPy, tridiagonal", "dppy.beta_ensembles", banded, moment)
    theirs, points = median_seconds(dense, repeats=1)
    row("Hermite ensemble, 1000 points, beta 2", ours, "dense matrix and its spectrum", theirs, moment(points))
    sizes = [500, 1000, 2000, 4000]
    curve("Hermite ensemble, points", sizes, [median_seconds(sample_hermite, n, 2.0, repeats=3)[0] for n in sizes], "N^2", 2.0)


def effective(series):
    """Effective samples of a stationary series: its autocorrelations are summed while pairs of them are positive."""
    x = series - series.mean()
    padded = np.fft.rfft(x, 2 * len(x))
    correlation = np.fft.irfft(padded * padded.conj())[: len(x)]
    correlation /= correlation[0]
    pairs = correlation[: len(x) // 2 * 2].reshape(-1, 2).sum(1)
    last = np.argmax(pairs <= 0) if (pairs <= 0).any() else len(pairs)
    return len(x) / max(2 * pairs[:last].sum() - 1, 1e-9)


def hit_and_run(normals, offsets, start, steps, seed):
    """Uniform points on random chords, whose ends a membership oracle brackets to 1e-3 of their length; (samples, queries)."""
    rng, x, queries = np.random.default_rng(seed), start.copy(), 0
    samples = np.empty((steps, len(x)))

    def inside(point):
        nonlocal queries
        queries += 1
        return bool((normals @ point <= offsets).all())

    for k in range(steps):
        direction = rng.normal(size=len(x))
        direction /= np.linalg.norm(direction)
        ends = []
        for sign in (-1, 1):
            low, high = 0.0, 1.0
            while inside(x + sign * high * direction):
                low, high = high, 2 * high
            while high - low > 1e-3:
                middle = (low + high) / 2
                low, high = (middle, high) if inside(x + sign * middle * direction) else (low, middle)
            ends.append(sign * low)
        x = x + rng.uniform(*ends) * direction
        samples[k] = x
    return samples, queries


def bodies():
    d, steps = 10, 4000
    shapes = {
        "cube": (np.vstack([np.eye(d), -np.eye(d)]), np.ones(2 * d), np.zeros(d)),
        "simplex": (np.vstack([-np.eye(d), np.ones((1, d))]), np.append(np.zeros(d), 1.0), np.full(d, 1 / (d + 1))),
    }
    for name, (normals, offsets, start) in shapes.items():
        step = 0.3 * (1 - start @ np.ones(d) if name == "simplex" else 1) ** 2 / d
        ours, found = median_seconds(in_and_out, normals, offsets, start, step, steps, 0, repeats=1)
        theirs, (samples, queries) = median_seconds(hit_and_run, normals, offsets, start, steps, 0, repeats=1)
        of_both = effective(found["samples"][:, 0]), effective(samples[:, 0])
        told = f"effective samples per 1000 queries {1000 * of_both[0] / found['queries']:.2f} against {1000 * of_both[1] / queries:.2f}"
        row(f"{name} in 10 dimensions, an effective sample", ours / of_both[0], "hit and run", theirs / of_both[1], told)
    row("cube in 10 dimensions", None, "volesti, dingo", None, "volesti has no Python package; dingo-walk asks for networkx 3.1 and plotly below 6, ours from 6 on")


def variational():
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    gaussians("standardised", features, labels)
    gaussians("rows of norm 1 on average", features / features.shape[1] ** 0.5, labels)


def gaussians(name, features, labels, steps=200):
    """The Gaussian nearest to a logistic posterior by methods that take 200 steps of length 1/L, and by two that do not."""
    from scipy.optimize import minimize
    from scipy.special import expit, roots_hermitenorm

    d, (at, weights) = features.shape[1], roots_hermitenorm(64)
    rule, step = (at, weights / weights.sum()), 1 / (1 + np.linalg.norm(features, 2) ** 2 / 4)

    def objective(mean, covariance):
        return logistic_moments(features, labels, 1.0, mean, covariance, rule)[0] - np.linalg.slogdet(covariance)[1] / 2

    def laplace():
        def loss(w):
            z = features @ w
            return np.logaddexp(0, z).sum() - labels @ z + w @ w / 2, features.T @ (expit(z) - labels) + w

        mean = minimize(loss, np.zeros(d), jac=True, method="BFGS", options={"gtol": 1e-8}).x
        chance = expit(features @ mean)
        return mean, np.linalg.inv((features.T * (chance * (1 - chance))) @ features + np.eye(d))

    def natural(rounds=100):
        """Damped Newton steps on mean and precision from Laplace's Gaussian: what the best Gaussian reaches."""
        mean, covariance = laplace()
        for _ in range(rounds):
            _, grad, hessian = logistic_moments(features, labels, 1.0, mean, covariance, rule)
            covariance = np.linalg.inv((np.linalg.inv(covariance) + hessian) / 2)
            mean = mean - covariance @ grad
        return mean, covariance

    def gradient_descent():
        mean, covariance = np.zeros(d), np.eye(d)
        for _ in range(steps):
            _, grad, hessian = logistic_moments(features, labels, 1.0, mean, covariance, rule)
            move = np.eye(d) - step * (hessian - np.linalg.inv(covariance))
            mean, covariance = mean - step * grad, move @ covariance @ move.T
        return mean, covariance

    def advi(blackjax):
        """Full-rank, one gradient sample a step, with Adam: as many gradient calls as ours."""
        import jax
        import optax

        x, y = jax.numpy.asarray(features), jax.numpy.asarray(labels)

        def log_density(w):
            z = x @ w
            return y @ z - jax.numpy.logaddexp(0.0, z).sum() - w @ w / 2

        algorithm = blackjax.fullrank_vi(log_density, optax.adam(0.02), num_samples=1)
        state, one = algorithm.init(jax.numpy.zeros(d)), jax.jit(algorithm.step)
        for key in jax.random.split(jax.random.key(0), steps):
            state, _ = one(key, state)
        drawn = np.asarray(algorithm.sample(jax.random.key(1), state, 20_000), float)
        return drawn.mean(0), np.cov(drawn.T)

    least = objective(*natural())
    with warnings.catch_warnings(action="ignore", category=Caution):  # of a prior so wide that its own expectations need more nodes; those along the way do not
        ours, found = median_seconds(fb_gvi_logistic, features, labels, prior_precision=1.0, steps=steps, repeats=1)
    own = objective(found["mean"], found["covariance"]) - least

    def told(other):
        return f"{name}: divergence above the least {own:.2g} against {objective(*other) - least:.2g}"

    problem = f"Gaussian for a logistic posterior, {steps} steps"
    for other, method in (("Bures-Wasserstein gradient", gradient_descent), ("Laplace", laplace)):
        theirs, reached = median_seconds(method, repeats=1)
        row(problem, ours, other, theirs, told(reached))
    against(problem, ours, "blackjax full-rank ADVI", "blackjax", advi, told, repeats=1)


def free_energies():
    rng, n, deviation = np.random.default_rng(0), 5000, 1.5
    ahead, back = 1 + deviation**2 / 2 + deviation * rng.normal(size=n), -1 + deviation**2 / 2 + deviation * rng.normal(size=n)
    ours, found = median_seconds(bar, ahead, back)

    logging.getLogger("pymbar").setLevel(logging.ERROR)

    def told(answer):
        return f"difference {abs(answer['Delta_f'] - found):.1e}, error of both {abs(found - 1):.1e}"

    against("acceptance ratio, 2 x 5000 paths", ours, "pymbar", "pymbar", lambda pymbar: pymbar.bar(ahead, back, compute_uncertainty=False), told)
    potential, transport = harmonic_path(2.0, 4.0)
    start = rng.normal(size=(2000, 1))
    ours, escorted = median_seconds(escorted_work, potential, transport, start, 50, 1.0, 0)
    theirs, alone = median_seconds(escorted_work, potential, None, start, 50, 1.0, 0)
    errors = [abs(jarzynski(work)["delta_f"] - math.log(2)) for work in (escorted, alone)]
    told_of = f"deviation of the work {escorted.std():.2f} against {alone.std():.2f}, error {errors[0]:.1e} against {errors[1]:.1e}"
    row("escorted work, 2000 paths of 50 steps", ours, "annealed importance sampling", theirs, told_of)


def chow_liu(data):
    """Log likelihood of the tree that fits rows of 0 and 1 best, one pseudo-count a cell, on those rows."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    m, n = data.shape
    sides = np.stack([1 - data, data])
    joint = (np.einsum("amu,bmv->uvab", sides, sides) + 0.25) / (m + 1)
    single = np.stack([(m - data.sum(0) + 0.5) / (m + 1), (data.sum(0) + 0.5) / (m + 1)], -1)
    information = np.sum(joint * np.log(joint / (single[:, None, :, None] * single[None, :, None, :])), axis=(2, 3))
    np.fill_diagonal(information, 0)
    edges = np.argwhere(minimum_spanning_tree(-np.maximum(information, 1e-12)).toarray())
    total = np.log(single[np.arange(n), data]).sum()
    for u, v in edges:
        total += np.log(joint[u, v, data[:, u], data[:, v]] / (single[u, data[:, u]] * single[v, data[:, v]])).sum()
    return float(total)


def circuits():
    from sklearn.datasets import load_digits

    rng, n, count = np.random.default_rng(0), 12, 1000
    root = rng.normal(size=(n, n))
    kernel = root @ root.T / n
    circuit = ["det", kernel.tolist(), [["leaf", i] for i in range(n)]]
    marginal = kernel @ np.linalg.inv(np.eye(n) + kernel)
    ours, drawn = median_seconds(circuit_sample, circuit, n, count, 0)

    def exact(finite):
        process = finite.FiniteDPP("likelihood", L=kernel)
        return [process.sample_exact(random_state=s) for s in range(count)]

    def inclusion(samples):
        included = np.array([[i in set(s) for i in range(n)] for s in samples], float)
        off = [np.abs(x.mean(0) - np.diag(marginal)).max() for x in (drawn, included)]
        return f"largest error of an inclusion {off[0]:.3f} against {off[1]:.3f} (standard error up to {0.5 / count**0.5:.3f})"

    against(f"{count} determinantal samples of 12 items", ours, "DPPy, spectral", "dppy.finite_dpps", exact, inclusion)
    pair = median_seconds(dpp_marginal, kernel, [0, 3, 5], [])
    theirs, minor = median_seconds(lambda: np.linalg.det((kernel @ np.linalg.inv(np.eye(n) + kernel))[np.ix_([0, 3, 5], [0, 3, 5])]))
    row("a marginal of three of 12 items", pair[0], "minor of L (I + L)^-1", theirs, f"difference {abs(pair[1] - minor):.1e}")
    pixels = load_digits().data[:, [18, 20, 27, 28, 35, 36, 43, 45]]
    data = (pixels > 7).astype(int)
    theirs, tree = median_seconds(chow_liu, data)
    for name, groups, components in (("pairs", [[0, 1], [2, 3], [4, 5], [6, 7]], 3), ("halves", [[0, 1, 2, 3], [4, 5, 6, 7]], 3), ("one group", [list(range(8))], 8)):
        ours, fitted = median_seconds(fit_det_pgc, data, groups, components=components, iters=300, seed=0, repeats=1)
        own = circuit_log_likelihood(fitted["circuit"], data).mean()
        row(f"8 binary pixels of 1797 digits, {name}", ours, "Chow-Liu tree", theirs, f"nats a row {own:.4f} against {tree / len(data):.4f}")


def langevin():
    dims, eps = [4, 16, 64, 256, 1024], 0.1
    plans = [lmc_best_schedule(np.repeat([1.0, 4.0], d // 2), eps, np.ones(d))["steps"] for d in dims]
    older = [math.ceil(math.log(2 * math.sqrt(d) / eps) / (eps**2 / d)) for d in dims]
    slopes = [np.polyfit(np.log(dims), np.log(steps), 1)[0] for steps in (plans, older)]
    ours, _ = median_seconds(lmc_best_schedule, np.repeat([1.0, 4.0], 512), eps, np.ones(1024), repeats=1)
    row(
        "Langevin steps, d = 1024, within .1",
        ours,
        "the bound of order d / eps^2",
        None,
        f"a formula: steps {plans[-1]} against {older[-1]}, exponents in d {slopes[0]:.2f} against {slopes[1]:.2f}",
    )


def modes():
    """The same 1200 score calls a chain for all, from the lesser mode."""
    means, variances, weights = np.array([[-3.0], [3.0]]), np.array([0.25, 0.25]), np.array([0.3, 0.7])
    chains, measurements, inner = 2000, 20, 60
    calls = measurements * inner
    given = {"sigma": 3.0, "measurements": measurements, "inner_steps": inner, "step_size": 1.35, "chains": chains, "seed": 0, "first": [-3.0]}
    ours, found = median_seconds(oat_walk_jump, means, variances, weights, **given, repeats=1)

    def score(x, noise):
        """Of the mixture blurred by noise of this variance, and its log density up to a constant."""
        total = 0.25 + noise
        logs = np.log(weights) - (x - means.T) ** 2 / (2 * total)
        density = np.logaddexp(*logs.T)
        return ((means.T - x) / total * np.exp(logs - density[:, None])).sum(1, keepdims=True), density

    def plain():
        rng, x = np.random.default_rng(0), np.full((chains, 1), -3.0)
        for _ in range(calls):
            x = x + 0.05 * score(x, 0.0)[0] + 0.1**0.5 * rng.normal(size=x.shape)
        return x

    def annealed():
        rng, x = np.random.default_rng(0), np.full((chains, 1), -3.0)
        for noise in np.geomspace(9.0, 0.01, measurements):
            step = 0.15 * (0.25 + noise)
            for _ in range(inner):
                x = x + step * score(x, noise)[0] + (2 * step) ** 0.5 * rng.normal(size=x.shape)
        return x

    def tempered(levels=4):
        """Langevin at powers 1 to 1/20 of the density, neighbours exchanged after every step: each step of a level is a score call."""
        rng, powers = np.random.default_rng(0), np.geomspace(1, 0.05, levels)
        x = np.full((levels, chains, 1), -3.0)
        for k in range(calls // levels):
            for level, power in enumerate(powers):
                step = 0.05 / power
                x[level] = x[level] + step * power * score(x[level], 0.0)[0] + (2 * step) ** 0.5 * rng.normal(size=(chains, 1))
            heights = [score(points, 0.0)[1] for points in x]
            for level in range(k % 2, levels - 1, 2):
                gain = (powers[level] - powers[level + 1]) * (heights[level + 1] - heights[level])
                swap = np.log(rng.random(chains)) < gain
                x[level, swap], x[level + 1, swap] = x[level + 1, swap].copy(), x[level, swap].copy()
        return x[0]

    share = float(np.mean(found["samples"] > 0))
    for name, method in (("Langevin", plain), ("annealed Langevin", annealed), ("parallel tempering", tempered)):
        theirs, x = median_seconds(method, repeats=1)
        row("two modes, 2000 chains of 1200 score calls", ours, name, theirs, f"share of the far mode (.7) {share:.3f} against {np.mean(x > 0):.3f}")


def smoothing():
    values, length, particles = [0.97, 0.6, 0.54, 0.33], 30, 50
    y = record_data(np.random.default_rng(0), length, "linear_gaussian", values)
    model, exact = {"kind": "linear_gaussian", "parameters": values}, linear_gaussian_smoother(y, *values)["pair_product"]
    runs = range(10)

    def spread(estimates):
        return f"{np.mean(estimates) - exact:+.2f} +- {np.std(estimates):.2f}"

    def bootstrap():
        from particles import distributions, state_space_models

        class Autoregression(state_space_models.StateSpaceModel):
            def PX0(self):
                return distributions.Normal(scale=values[1] / math.sqrt(1 - values[0] ** 2))

            def PX(self, t, xp):
                return distributions.Normal(loc=values[0] * xp, scale=values[1])

            def PY(self, t, xp, x):
                return distributions.Normal(loc=values[2] * x, scale=values[3])

        class Pairs(state_space_models.Bootstrap):
            def add_func(self, t, xp, x):
                return 0 * x if xp is None else xp * x

        return Pairs(ssm=Autoregression(), data=y)

    def online(package):
        from particles import collectors

        filtered = package.SMC(fk=bootstrap(), N=particles, collect=[collectors.Online_smooth_ON2()])
        filtered.run()
        return float(filtered.summaries.online_smooth_ON2[-1])

    def backward(package):
        filtered = package.SMC(fk=bootstrap(), N=particles, store_history=True)
        filtered.run()
        paths = np.array(filtered.hist.backward_sampling(particles))
        return float((paths[:-1] * paths[1:]).sum(0).mean())

    def repeated(method):
        def run(package):
            np.random.seed(0)  # noqa: NPY002 (the package draws from NumPy's global generator)
            return [method(package) for _ in runs]

        return run

    ours, found = median_seconds(lambda: [paris_smooth(y, model, particles, seed=s)["estimate"] for s in runs], repeats=1)
    gibbs, pinned = median_seconds(lambda: [ppg_smooth(y, model, particles, 8, 4, seed=s)["estimate"] for s in runs], repeats=1)
    for name, method in (("particles, forward smoothing", online), ("particles, FFBS", backward)):
        against(
            "PaRIS, 10 runs of 50 particles, 30 steps",
            ours,
            name,
            "particles",
            repeated(method),
            lambda estimates: f"error of a sum of products {spread(found)} against {spread(estimates)}",
            repeats=1,
            warm=True,
        )
    row("PaRIS, 10 runs of 50 particles, 30 steps", ours, "particles, PaRIS", None, "its release 0.3 fails under NumPy 2, and 0.4 asks for NumPy below 2")
    theirs, _ = median_seconds(linear_gaussian_smoother, y, *values)
    row("PaRIS in Gibbs, 10 runs of 8 passes", gibbs, "exact Gaussian smoother", theirs, f"error of a sum of products {spread(pinned)} against none")
    sizes = [200, 400, 800, 1600]
    curve("a pass of PaRIS, particles", sizes, [median_seconds(paris_smooth, y, model, n, repeats=1)[0] for n in sizes], "N^2", 2.0)


PARTS = (ensembles, bodies, variational, free_energies, circuits, langevin, modes, smoothing)
