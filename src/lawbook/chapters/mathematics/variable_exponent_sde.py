"""A diffusion whose exponents depend on where it is: its expectations from the parabolic equation, and from paths."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, caution, choice, count, either, function, nonnegative, positive, real, record, seed, vector
from lawbook.trials import Estimate, Identity, Inequality, Rate

paper = Paper(
    __name__,
    title="Stochastic representation of solutions for the parabolic Cauchy problem with variable exponent coefficients",
    arxiv="2511.00773",
    tags=["parabolic equation", "feynman-kac", "stochastic differential equation", "variable exponent", "crank-nicolson", "monte carlo", "local volatility"],
    source="paper",
    says="""The equation u_t = sigma^2 x^{2q(x)} u_xx / 2 + mu x^{p(x)} u_x - V u on x > 0 degenerates at 0 and has coefficients whose exponents vary with x. It still has one
    bounded viscosity solution, which is the expectation of the discounted initial value at the end of a diffusion with the same exponents. In the logarithm of x the equation is
    uniformly parabolic if both exponents come to 1 at 0 and at infinity, and finite differences and simulated paths then agree.""",
    notes="""The potential V is constant here, a factor exp(-V t), which both methods apply exactly. At the ends of the grid the solution keeps its initial value: that is harmless
    while the diffusion does not come near them. Where q(0) < 1 the diffusion may reach 0, where p > 1 at infinity with mu > 0 it may explode: both draw a caution.
    The kink of the put costs up to strike h^2 / 8 times the density of ln X there, h the step in ln x: .00005 on the standard grid for the shortest times.""",
)

EXPONENT = (real(typical=(0.5, 1.5)), function("x[n] -> exponents[n]"))
DRIFT = real(typical=(-0.3, 0.3), doc="mu", example=0.1)
DIFFUSION = positive(typical=(0.1, 0.5), doc="sigma", example=0.3)
P = either(vector(2, of=EXPONENT[0], doc="p(x) = c0 + c1 x/(1+x), or a function", example=[1.0, -0.3]), EXPONENT[1])
Q = either(vector(2, of=EXPONENT[0], doc="q(x) = c0 + c1 x/(1+x), or a function", example=[1.0, -0.2]), EXPONENT[1])
HORIZON = positive(typical=(0.1, 2), doc="time", example=1.0)
START = positive(typical=(0.3, 3), doc="where the solution is wanted, and where paths start", example=1.0)
PAYOFF = choice("exponential", "put", "one", doc="initial value: e^-x, max(strike - x, 0), or 1")
STRIKE = positive(typical=(0.5, 2))
POTENTIAL = nonnegative(typical=(0, 1), doc="V")
PATHS = count(low=2, high=10**7, typical=(100, 2000))
STEPS = count(high=10**6, typical=(20, 100))


POSITIVE = {
    "drift_exponent must be positive at 0 and at infinity": lambda drift_exponent: callable(drift_exponent) or np.cumsum(drift_exponent).min() > 0,
    "diffusion_exponent must be positive at 0 and at infinity": lambda diffusion_exponent: callable(diffusion_exponent) or np.cumsum(diffusion_exponent).min() > 0,
}


def problem(rng):
    return {
        "drift": rng.uniform(-0.2, 0.2),
        "diffusion": rng.uniform(0.1, 0.4),
        "drift_exponent": np.array([1.0, rng.uniform(-0.4, 0.4 if rng.uniform() < 0.3 else 0)]),
        "diffusion_exponent": np.array([1.0, rng.uniform(-0.4, 0.2)]),
        "horizon": rng.uniform(0.1, 1.5),
        "x0": rng.uniform(0.5, 2.0),
    }


def power(exponent, x):
    """Exponent at x."""
    return np.asarray(exponent(x), float) if callable(exponent) else exponent[0] + exponent[1] * x / (1 + x)


def initial(payoff, strike, x):
    return {"exponential": lambda: np.exp(-x), "put": lambda: np.maximum(strike - x, 0.0), "one": lambda: np.ones_like(x)}[payoff]()


def logarithmic(drift, diffusion, p, q, y, ito=1.0):
    """Drift and deviation of the logarithm of the diffusion, at y = ln x."""
    x = np.exp(y)
    spread = diffusion * np.exp((power(q, x) - 1) * y)
    return drift * np.exp((power(p, x) - 1) * y) - ito * spread**2 / 2, spread


def warn(drift, p, q):
    near, far = np.array([1e-12]), np.array([1e12])
    if power(q, near)[0] < 1 - 1e-9:
        caution("diffusion_exponent is below 1 at 0: the diffusion may reach 0, and what it does there is not part of the problem.")
    if drift > 0 and power(p, far)[0] > 1 + 1e-9:
        caution("drift_exponent is above 1 at infinity with an upward drift: the diffusion may explode.")


@paper.model(
    r"u_t = \tfrac12 \sigma^2 x^{2q(x)} u_{xx} + \mu x^{p(x)} u_x - V u,\quad u(x, 0) = f(x)",
    requires=POSITIVE,
    sample=lambda rng: {**problem(rng), "nodes": 200, "steps": 50, "payoff": str(rng.choice(["exponential", "put", "one"]))},
    gives=0.34881,
)
def cauchy_solve(
    drift: DRIFT,
    diffusion: DIFFUSION,
    drift_exponent: P,
    diffusion_exponent: Q,
    horizon: HORIZON,
    x0: START,
    *,
    payoff: PAYOFF = "exponential",
    strike: STRIKE = 1.0,
    potential: POTENTIAL = 0.0,
    nodes: count(low=4, high=10**6, typical=(100, 1200), doc="intervals of the grid in ln x, which reaches 6 (or 6 sigma sqrt t, if more) to both sides of ln x0") = 1200,
    steps: count(low=3, high=10**6, typical=(20, 400)) = 400,
) -> real():
    """Solution of the Cauchy problem at one point, by Crank-Nicolson steps in ln x after four half-steps of backward Euler that damp what kinks excite."""
    warn(drift, drift_exponent, diffusion_exponent)
    return differences(drift, diffusion, drift_exponent, diffusion_exponent, horizon, x0, payoff, strike, potential, nodes, steps)


def differences(drift, diffusion, p, q, horizon, x0, payoff, strike, potential, nodes, steps, ito=1.0):
    from scipy.sparse import diags_array
    from scipy.sparse.linalg import splu

    half = max(6.0, 6 * diffusion * math.sqrt(horizon))
    y = math.log(x0) + np.linspace(-half, half, nodes + 1)
    h, dt = y[1] - y[0], horizon / steps
    velocity, spread = logarithmic(drift, diffusion, p, q, y[1:-1], ito)
    if not (np.isfinite(velocity).all() and np.isfinite(spread).all()):
        raise DomainError("diffusion_exponent and drift_exponent must keep the coefficients finite on the grid; they overflow.")
    fixed = np.zeros(1)  # the ends keep their values
    below = np.append(spread**2 / (2 * h**2) - velocity / (2 * h), fixed)
    above = np.append(fixed, spread**2 / (2 * h**2) + velocity / (2 * h))
    middle = np.concatenate([fixed, -(spread**2) / h**2, fixed])
    half_step = dt / 2 * diags_array([below, middle, above], offsets=[-1, 0, 1], format="csc")
    unit = diags_array([np.ones(nodes + 1)], offsets=[0], format="csc")
    solve, forward = splu((unit - half_step).tocsc()).solve, (unit + half_step).tocsr()
    u = initial(payoff, strike, np.exp(y))
    for _ in range(4):
        u = solve(u)
    for _ in range(steps - 2):
        u = solve(forward @ u)
    return float(np.interp(math.log(x0), y, u)) * math.exp(-potential * horizon)


@paper.model(
    r"u(x, t) = \mathrm{E}_x\left[e^{-Vt} f(X_t)\right],\quad dX = \mu X^{p(X)} dt + \sigma X^{q(X)} dW",
    requires=POSITIVE,
    sample=lambda rng: {**problem(rng), "seed": 0, "paths": 500, "steps": 20, "payoff": str(rng.choice(["exponential", "put", "one"]))},
)
def cauchy_monte_carlo(
    drift: DRIFT,
    diffusion: DIFFUSION,
    drift_exponent: P,
    diffusion_exponent: Q,
    horizon: HORIZON,
    x0: START,
    seed: seed(example=0),
    *,
    payoff: PAYOFF = "exponential",
    strike: STRIKE = 1.0,
    potential: POTENTIAL = 0.0,
    paths: PATHS = 100_000,
    steps: STEPS = 200,
) -> record(value=real(), standard_error=nonnegative(doc="0 where the payoff does not vary")):
    """Solution of the Cauchy problem at one point, as the mean over Euler paths of the logarithm, which keeps them positive."""
    warn(drift, drift_exponent, diffusion_exponent)
    return simulate(drift, diffusion, drift_exponent, diffusion_exponent, horizon, x0, seed, payoff, strike, potential, paths, steps)


def simulate(drift, diffusion, p, q, horizon, x0, seed, payoff, strike, potential, paths, steps, ito=1.0):
    rng = np.random.default_rng(seed)
    y, dt = np.full(paths, math.log(x0)), horizon / steps
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(steps):
            velocity, spread = logarithmic(drift, diffusion, p, q, y, ito)
            y += velocity * dt + math.sqrt(dt) * spread * rng.normal(size=paths)
    if not np.isfinite(y).all():
        raise DomainError(f"horizon must be short enough that paths stay positive and finite; {np.sum(~np.isfinite(y))} of {paths} did not.")
    values = initial(payoff, strike, np.exp(np.minimum(y, 700))) * math.exp(-potential * horizon)
    return {"value": float(values.mean()), "standard_error": float(values.std(ddof=1) / math.sqrt(paths))}


@paper.measure(
    r"u_{\mathrm{CN}} - u_{\mathrm{MC}},\qquad z = (u_{\mathrm{CN}} - u_{\mathrm{MC}}) / \mathrm{s.e.}",
    requires=POSITIVE,
    sample=lambda rng: {**problem(rng), "seed": 0, "paths": 500, "steps": 20},
)
def representation_gap(
    drift: DRIFT,
    diffusion: DIFFUSION,
    drift_exponent: P,
    diffusion_exponent: Q,
    horizon: HORIZON,
    x0: START,
    seed: seed(example=0),
    *,
    payoff: PAYOFF = "exponential",
    strike: STRIKE = 1.0,
    potential: POTENTIAL = 0.0,
    paths: PATHS = 100_000,
    steps: STEPS = 200,
) -> record(gap=real(), z_score=real(doc="0 where the payoff does not vary")):
    """Difference between the solution by finite differences and the mean over paths, also in standard errors of the latter."""
    more = {"payoff": payoff, "strike": strike, "potential": potential}
    simulated = cauchy_monte_carlo(drift, diffusion, drift_exponent, diffusion_exponent, horizon, x0, seed, **more, paths=paths, steps=steps)
    gap = cauchy_solve(drift, diffusion, drift_exponent, diffusion_exponent, horizon, x0, **more) - simulated["value"]
    error = simulated["standard_error"]
    return {"gap": gap, "z_score": gap / error if error > 0 else 0.0}


def solve_without_ito(drift, diffusion, p, q, horizon, x0, *, payoff="exponential", strike=1.0, potential=0.0, nodes=1200, steps=400):
    return differences(drift, diffusion, p, q, horizon, x0, payoff, strike, potential, nodes, steps, ito=0.0)


@paper.trial(Identity(rtol=2e-4, atol=2e-5), of=[cauchy_solve], controls={"no Ito term": solve_without_ito}, quick=12, full=120)
def lognormal_where_exponents_are_one(draw, claim):
    """With both exponents 1 the solution is a lognormal expectation, by quadrature for e^-x and in closed form for the put, on a grid finer by 4 for its kink."""
    from scipy.integrate import quad
    from scipy.special import ndtr

    drift, diffusion, horizon, x0 = draw.uniform(-0.3, 0.3), draw.uniform(0.1, 0.5), draw.uniform(0.2, 2), draw.log_uniform(0.4, 2.5)
    strike, potential = draw.uniform(0.7, 1.5) * x0, draw.uniform(0, 1)
    centre, deviation = math.log(x0) + (drift - diffusion**2 / 2) * horizon, diffusion * math.sqrt(horizon)
    mean = quad(lambda z: math.exp(-math.exp(centre + deviation * z) - z * z / 2) / math.sqrt(2 * math.pi), -12, 12, epsabs=1e-12)[0]
    edge = (math.log(strike) - centre) / deviation
    put = strike * ndtr(edge) - x0 * math.exp(drift * horizon) * ndtr(edge - deviation)
    one = np.array([1.0, 0.0])
    more = {"strike": strike, "potential": potential}
    found = [claim(drift, diffusion, one, one, horizon, x0, payoff=payoff, nodes=nodes, **more) for payoff, nodes in (("exponential", 1200), ("put", 4800))]
    return np.array(found), np.array([mean, put]) * math.exp(-potential * horizon)


def paths_without_ito(drift, diffusion, p, q, horizon, x0, seed, *, payoff="exponential", strike=1.0, potential=0.0, paths=100_000, steps=200):
    return simulate(drift, diffusion, p, q, horizon, x0, seed, payoff, strike, potential, paths, steps, ito=0.0)


def exponents_swapped(drift, diffusion, p, q, horizon, x0, seed, **more):
    return cauchy_monte_carlo(drift, diffusion, q, p, horizon, x0, seed, **more)


PAIRS = [((1, -0.3), (1, -0.2)), ((1, 0), (1, -0.4)), ((1, -0.4), (1, 0)), ((1.2, -0.2), (1.1, -0.1)), ((1, -0.2), (1, 0.2)), ((1, 0), (1.3, -0.6))]


@paper.trial(
    Identity(rtol=0, atol=2e-4),
    of=[cauchy_monte_carlo, representation_gap],
    controls={"no Ito term": paths_without_ito, "exponents swapped": exponents_swapped},
    quick=6,
    full=18,
)
def paths_agree_with_equation(draw, claim, effort):
    """The mean over paths is the solution of the equation, within its error and 2e-4, for six pairs of exponents; the gap is their difference."""
    p, q = (np.array(c, float) for c in draw.choice(PAIRS))
    given = (draw.uniform(0.0, 0.2), draw.uniform(0.2, 0.5), p, q, draw.uniform(0.5, 1.5), draw.log_uniform(0.5, 3.0))
    more = {"payoff": draw.choice(["exponential", "put"]), "potential": draw.uniform(0, 0.5), "paths": 20_000 if effort == "quick" else 50_000, "steps": 100}
    seed = draw.integer(0, 10**6)
    found = claim(*given, seed, **more)
    solved = cauchy_solve(*given, payoff=more["payoff"], potential=more["potential"])
    told = representation_gap(*given, seed, **more)
    same = cauchy_monte_carlo(*given, seed, **more)
    left = [found["value"], told["gap"], told["z_score"]]
    right = Estimate(np.array([solved, solved - same["value"], told["gap"] / same["standard_error"]]), np.array([found["standard_error"], 0, 0]))
    return np.array(left), right, {"p": p, "q": q}


def grows(drift, diffusion, p, q, horizon, x0, *, payoff="exponential", strike=1.0, potential=0.0):
    """The potential with the wrong sign."""
    return cauchy_solve(drift, diffusion, p, q, horizon, x0, payoff=payoff, strike=strike) * math.exp(potential * horizon)


@paper.trial(Inequality(atol=1e-9, search=0), of=[cauchy_solve], controls={"potential with the wrong sign": grows}, quick=10, full=100)
def maximum_principle(draw, claim):
    """Solutions lie between 0 and the largest initial value times e^-Vt, and are e^-Vt for the initial value 1."""
    given, strike, potential = problem(draw.rng), draw.uniform(0.5, 2.0), draw.uniform(0, 1)
    decay = math.exp(-potential * given["horizon"])
    values = [claim(*given.values(), payoff=payoff, strike=strike, potential=potential) for payoff in ("exponential", "put", "one")]
    return np.array([0, 0, decay, *values]), np.array([*values, decay, strike * decay, decay])


def refined_slowly(drift, diffusion, p, q, horizon, x0, *, nodes, steps):
    """The grid in ln x refined only like the root of what is asked for."""
    return cauchy_solve(drift, diffusion, p, q, horizon, x0, nodes=2 * round(6 * nodes**0.5), steps=steps)


@paper.trial(Rate(within=0.2), of=[cauchy_solve], controls={"grid refined too slowly": refined_slowly}, quick=6, full=40)
def second_order(draw, claim):
    """The change when the steps in ln x and in time are halved falls by four with each halving."""
    given, sizes = problem(draw.rng), np.array([1, 2, 4, 8])
    values = [claim(*given.values(), nodes=150 * size, steps=20 * size) for size in (*sizes, 16)]
    change = np.abs(np.diff(values))
    return sizes, change / change[0], -2.0
