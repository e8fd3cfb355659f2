"""The dynamics of GRPO as a damped oscillator: when a run settles, when it rings, how stale its rollouts may be, and what the group size does."""

import math

import numpy as np

from lawbook.contract import Paper, choice, count, flag, nonnegative, positive, probability, real, record, vector
from lawbook.numerics import arrays, bracketed_root
from lawbook.trials import Estimate, Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="Predictable GRPO: A Closed-Form Model of Training Dynamics",
    arxiv="2606.30789",
    tags=["grpo", "reinforcement learning", "dynamics", "momentum", "off-policy", "staleness", "group size", "stability"],
    source="derived",
    says="""Followed by its expected reward alone, a GRPO run near its plateau is a noisy damped oscillator: momentum is the inertia, staleness of the gradient eats the damping,
    the curvature is the stiffness, and the group size sets the noise. That gives the time to plateau, the onset of oscillation, how rarely rollouts may be refreshed and how large
    the final jitter is.""",
    notes="""Only the abstract was at hand: the formulas are derived here for gradient -h (x - x*), heavy-ball momentum and a gradient that is late or frozen, and the paper may
    write its constants otherwise. The oscillator expands that recursion to second order in time; `spectral_radius` and `stable` are those of the recursion itself. The fits to
    logged runs that the paper reports (R^2 of at least .91) are not re-measured.""",
)

RATE = positive(typical=(0.01, 1), doc="learning rate", example=0.1)
CURVATURE = positive(typical=(0.05, 1), doc="curvature h of the objective at the plateau", example=0.5)
MOMENTUM = real(low=0, high=0.9999, typical=(0, 0.95), doc="heavy-ball momentum beta", example=0.9)
SUCCESS = probability(typical=(0.02, 0.98), doc="probability p that a response earns the reward", example=0.1)
LAG = count("steps", low=0, high=300, scale="linear", typical=(0, 20), doc="steps tau by which the gradient is late")
NOISE = positive(typical=(0.01, 10), doc="variance of the gradient from one response", example=1.0)
GROUP = count("responses", low=2, typical=(2, 64), high=1_000_000, doc="group size G", example=8)


@paper.model(
    r"m e'' + c e' + k e = \eta \xi,\quad k = \eta h,\ m = \tfrac{1+\beta}{2} + \tfrac{k \tau^2}{2},\ c = 1 - \beta - k \tau",
    assumes=["The regime is that of the second-order expansion, the spectral radius that of the linear recursion itself."],
)
def reduced_oscillator(learning_rate: RATE, curvature: CURVATURE, momentum: MOMENTUM, lag: LAG = 0) -> record(
    mass=positive(),
    damping=real(),
    stiffness=positive(),
    damping_ratio=real(doc="damping / (2 sqrt(mass stiffness))"),
    regime=choice("overdamped", "critical", "oscillatory", "unstable"),
    time_constant=positive("steps", infinite=True, doc="damping / stiffness; infinite where there is no damping"),
    spectral_radius=nonnegative(doc="factor that a deviation keeps per step in the long run, without the expansion"),
    stable=flag(doc="spectral radius below 1"),
):
    """Oscillator that a run near its plateau behaves like, and the exact stability of the run."""
    k = learning_rate * curvature
    mass, damping = (1 + momentum) / 2 + k * lag**2 / 2, 1 - momentum - k * lag
    ratio = damping / (2 * math.sqrt(mass * k))
    polynomial = np.zeros(max(1, lag) + 2)  # z^(L+1) - (1 + beta) z^L + beta z^(L-1) + k z^(L-tau)
    polynomial[:3] = 1, -(1 + momentum), momentum
    polynomial[1 + lag] += k
    radius = float(np.abs(np.roots(polynomial)).max(initial=0.0))
    regime = "unstable" if ratio <= 0 else "critical" if abs(ratio - 1) < 1e-8 else "overdamped" if ratio > 1 else "oscillatory"
    told = {"mass": mass, "damping": damping, "stiffness": k, "damping_ratio": ratio, "regime": regime}
    return told | {"time_constant": damping / k if damping > 0 else math.inf, "spectral_radius": radius, "stable": radius < 1}


@paper.model(r"m \ddot R + c \dot R + k (R - R^*) = 0,\quad R(0) = R_0,\ \dot R(0) = 0")
def reward_trajectory(
    steps: count("steps", typical=(1, 500), high=10_000_000, example=200),
    start: real(typical=(0, 1), doc="reward at step 0", example=0.2),
    plateau: real(typical=(0, 1), doc="reward that it settles at", example=0.7),
    mass: positive(typical=(0.1, 10), example=0.95),
    damping: positive(typical=(0.01, 2), example=0.1),
    stiffness: positive(typical=(1e-4, 1), example=1e-3),
) -> vector("steps+1"):
    """Expected reward at steps 0, 1, ..., from rest at its start to its plateau."""
    t, half = np.arange(steps + 1.0), damping / (2 * mass)
    square = half**2 - stiffness / mass
    if square < 0:
        turn = math.sqrt(-square) * t
        rest = np.exp(-half * t) * (np.cos(turn) + half * t * np.sinc(turn / np.pi))
    else:
        # exp(-half t) [cosh(root t) + half sinh(root t) / root] around its slow exponential: nothing overflows, and root = 0 is the critical case
        root = math.sqrt(square)
        slow = stiffness / mass / (half + root)
        twice = 2 * root * t
        share = np.where(twice > 0, -np.expm1(-twice) / np.where(twice > 0, twice, 1.0), 1.0)
        rest = np.exp(-slow * t) * ((1 + np.exp(-twice)) / 2 + half * t * share)
    return plateau + (start - plateau) * rest


@paper.bound(
    r"\eta h < k_c = \min\left\{\frac{2 (1 + \beta^K)}{b (1 + \beta^K) - a S},\ \frac{1 - \beta^K}{(a S - b \beta^K)_+}\right\},"
    r"\quad S = \frac{1 - \beta^K}{1 - \beta},\ a = \beta S,\ b = \frac{K - a}{1 - \beta}",
    assumes=["The gradient is linear around the plateau, and frozen over the steps between two refreshes."],
    closed_form=True,
)
def refresh_threshold(refresh_interval: count("steps", typical=(1, 64), doc="optimiser steps K on the rollouts of one policy", example=4), momentum: MOMENTUM = 0.0) -> positive(
    doc="of learning rate times curvature"
):
    """Largest learning rate times curvature at which a run with stale rollouts is stable; 2/K without momentum."""
    xp, interval, beta = arrays(refresh_interval, momentum)
    kept = beta**interval
    total = (1 - kept) / (1 - beta)
    a = beta * total
    b = (interval - a) / (1 - beta)
    flips = 2 * (1 + kept) / (b * (1 + kept) - a * total)
    turns = a * total - b * kept  # the cycle's determinant grows with k where this is positive; below 1e-12 it is rounding
    rotates = turns > 1e-12 * b
    return xp.where(rotates, xp.minimum(flips, (1 - kept) / xp.where(rotates, turns, 1.0)), flips)


@paper.law(
    r"E[\Delta] = g_G(p)\, \nabla p,\quad g_G(p) = \frac{E \sqrt{f (1 - f)}}{p (1 - p)},\ G f \sim \mathrm{Bin}(G, p);\quad 1 - \tfrac{1}{G}\ \text{without normalisation}",
    assumes=["Rewards are 0 or 1; a group is centred by its own mean and divided by its population standard deviation, or left out where that is 0."],
)
def group_gain(
    success_probability: probability(low=1e-300, high=1, below=True, typical=(0.02, 0.98), doc="probability p that a response earns the reward", example=0.1),
    group_size: GROUP,
    normalise: flag(doc="divide by the group's standard deviation") = True,
) -> positive():
    """Factor by which the mean GRPO update of a prompt exceeds the gradient of its success probability."""
    from scipy.stats import binom

    if not normalise:
        return 1 - 1 / group_size
    p, successes = success_probability, np.arange(1, group_size)
    f = successes / group_size
    return float(binom.pmf(successes, group_size, p) @ np.sqrt(f * (1 - f)) / (p * (1 - p)))


@paper.law(
    r"\mathrm{Var}(e) = \frac{\eta^2 s^2}{G} \cdot \frac{1 + \beta}{(1 - \beta)\, k\, (2 (1 + \beta) - k)},\quad k = \eta h",
    assumes=["The gradient is on time; its noise is independent between steps."],
    requires={"learning_rate times curvature must be below 2 (1 + momentum)": lambda learning_rate, curvature, momentum: learning_rate * curvature < 2 * (1 + momentum)},
    closed_form=True,
)
def stationary_variance(learning_rate: RATE, curvature: CURVATURE, momentum: MOMENTUM, gradient_variance: NOISE, group_size: GROUP) -> positive():
    """Variance of the jitter around the plateau: inversely proportional to the group size."""
    _, rate, h, beta, noise, size = arrays(learning_rate, curvature, momentum, gradient_variance, group_size)
    k = rate * h
    return rate**2 * noise / size * (1 + beta) / ((1 - beta) * k * (2 * (1 + beta) - k))


@paper.measure(r"p^G + (1 - p)^G", closed_form=True)
def silent_prompts(success_probability: SUCCESS, group_size: GROUP) -> probability():
    """Probability that a prompt gives no gradient, since all rewards of its group are equal."""
    _, p, size = arrays(success_probability, group_size)
    return p**size + (1 - p) ** size


def radius_of(step, dimension):
    """Spectral radius of a linear step, put together column by column."""
    return float(np.abs(np.linalg.eigvals(np.stack([step(unit) for unit in np.eye(dimension)], axis=1))).max())


def threshold(stable):
    """The k up to which a run is stable, by bisection: 5 where it always is."""
    from scipy.optimize import bisect

    return bisect(lambda k: 0.5 - float(k < 5 and stable(k)), 1e-9, 5.0, xtol=1e-13)


def stable_while_damped(learning_rate, curvature, momentum, lag):
    told = reduced_oscillator(learning_rate, curvature, momentum, lag)
    return told | {"stable": told["damping_ratio"] > 0}


@paper.trial(Identity(rtol=1e-6), of=[reduced_oscillator], controls={"stable while the oscillator is damped": stable_while_damped}, quick=40, full=1000)
def recursion(draw, claim):
    """The spectral radius is that of the run, put together step by step; stability ends at k = 2 (1 + beta) without lag and at 2 cos(tau pi / (2 tau + 1)) without momentum."""
    k, beta, lag = draw.log_uniform(1e-3, 3), draw.uniform(0, 0.95), draw.integer(0, 12)

    def step(past):  # the newest deviation first
        return np.concatenate([[past[0] + beta * (past[0] - past[1]) - k * past[lag]], past[:-1]])

    on_time = threshold(lambda k: claim(k, 1.0, beta, 0)["stable"])
    plain = threshold(lambda k: claim(k, 1.0, 0.0, lag)["stable"])
    computed = [radius_of(step, max(1, lag) + 1), 2 * (1 + beta), 2 * math.cos(lag * math.pi / (2 * lag + 1))]
    return computed, [claim(k, 1.0, beta, lag)["spectral_radius"], on_time, plain], {"k": k, "momentum": beta, "lag": lag}


def without_momentum(learning_rate, curvature, momentum, lag):
    return reduced_oscillator(learning_rate, curvature, momentum, lag) | {"time_constant": 1 / (learning_rate * curvature)}


@paper.trial(Inequality(), of=[reduced_oscillator], controls={"1 / k": without_momentum}, quick=100, full=3000)
def slow_runs(draw, claim):
    """Where the damping ratio zeta is at least 2, a run decays with the time constant, up to a relative error of 1/zeta^2."""
    beta, lag, zeta = draw.uniform(0, 0.95), draw.integer(0, 8), draw.log_uniform(2, 30)
    k = bracketed_root(lambda k: claim(k, 1.0, beta, lag)["damping_ratio"] - zeta, 1e-12, (1 - beta) / max(lag, 1))
    told = claim(k, 1.0, beta, lag)
    return abs(-math.log(told["spectral_radius"]) * told["time_constant"] - 1), 1 / zeta**2, {"k": k, "momentum": beta, "lag": lag, "zeta": zeta}


def exponential(steps, start, plateau, mass, damping, stiffness):
    return plateau + (start - plateau) * np.exp(-stiffness / damping * np.arange(steps + 1))


@paper.trial(Identity(rtol=1e-7, atol=1e-8), of=[reward_trajectory], controls={"single exponential": exponential}, quick=40, full=1000)
def integrated(draw, claim):
    """The trajectory solves the oscillator's equation as SciPy integrates it: overdamped, critical, close to critical, and oscillatory."""
    from scipy.integrate import solve_ivp

    mass, stiffness, start, plateau = draw.log_uniform(0.3, 30), draw.log_uniform(1e-4, 0.1), draw.uniform(), draw.uniform()
    zeta = draw.choice([1.0, 1 + 1e-9, 1 - 1e-7, 1 + 1e-5, draw.log_uniform(0.05, 1), draw.log_uniform(1, 20)])
    damping, t = 2 * zeta * math.sqrt(mass * stiffness), np.arange(101)
    force = np.array([[0, 1], [-stiffness / mass, -damping / mass]])
    solved = solve_ivp(lambda _, y: force @ y, (0, 100), [start - plateau, 0], method="DOP853", t_eval=t, max_step=2, rtol=1e-11, atol=1e-12)
    return plateau + solved.y[0], claim(100, start, plateau, mass, damping, stiffness), {"zeta": zeta, "mass": mass, "stiffness": stiffness}


NAIVE = {"K eta h < 2 (1 - beta)": lambda interval, beta: 2 * (1 - beta) / interval}


def run_cycle(state, k, beta, interval):
    """Deviation and last step after `interval` optimiser steps along one frozen gradient."""
    deviation, last = state
    frozen = deviation
    for _ in range(interval):
        last = beta * last - k * frozen
        deviation = deviation + last
    return np.array([deviation, last])


@paper.trial(Identity(rtol=1e-6), of=[refresh_threshold], controls=NAIVE, quick=40, full=1000)
def cycles(draw, claim):
    """The map over a cycle, run step by step, has its largest eigenvalue cross 1 at the threshold."""
    beta, interval = draw.choice([0.0, draw.uniform(0, 0.99)]), draw.integer(1, 40)
    found = threshold(lambda k: radius_of(lambda state: run_cycle(state, k, beta, interval), 2) < 1)
    return found, claim(interval, beta), {"momentum": beta, "refresh_interval": interval}


@paper.trial(Guarantee(), of=[refresh_threshold], controls=NAIVE, quick=10, full=60)
def bandit(draw, claim):
    """A two-armed softmax bandit with a KL penalty settles at 0.97 times the threshold and keeps oscillating around its optimum at 1.03 times."""
    beta, interval = draw.choice([0.0, 0.5, 0.9]), draw.choice([1, 2, 5, 20])
    reference, best, curvature = -0.5, 0.5, 1 / (4 * math.cosh(0.25) ** 2)  # penalty 1: the optimum is 1 above the reference
    swings = []
    for share in (0.97, 1.03):
        rate, theta, last, path = share * float(claim(interval, beta)) / curvature, best + 1e-3, 0.0, []
        for _ in range(4000):
            gradient = (1 - (theta - reference)) / (4 * math.cosh(min(abs(theta), 700) / 2) ** 2)
            for _ in range(interval):
                last = beta * last + rate * gradient
                theta += last
            path.append(abs(theta - best))
        swings.append(max(path[-100:]))
    return [swings[0], 0.05], [1e-6, swings[1]], {"momentum": beta, "refresh_interval": interval, "below": swings[0], "above": swings[1]}


@paper.trial(
    Identity(),
    of=[group_gain, silent_prompts],
    claim=(group_gain, silent_prompts),
    controls={"infinite groups": (lambda p, size, normalise: (p - p * p) ** -0.5 if normalise else 1, silent_prompts), "all wrong": (group_gain, lambda p, size: (1 - p) ** size)},
    quick=8,
    full=60,
)
def simulated_groups(draw, claim, effort):
    """The mean update that GRPO makes to the success probability of a bandit, over simulated groups with their advantages and scores, and the share of groups without any."""
    p, size = draw.uniform(0.05, 0.95), draw.integer(2, 16)
    reward = (draw.rng.uniform(size=(20_000 if effort == "quick" else 200_000, size)) < p).astype(float)
    advantage, spread = reward - reward.mean(1, keepdims=True), reward.std(1, keepdims=True)
    scores = (reward - p) / (p * (1 - p))
    updates = [(a * scores).mean(1) for a in (advantage, advantage / np.where(spread > 0, spread, 1))]
    samples = np.stack([*updates, spread[:, 0] == 0], 1)
    gain, silent = claim
    return Estimate.of(samples), [gain(p, size, normalise=False), gain(p, size, normalise=True), silent(p, size)], {"success_probability": p, "group_size": size}


def small_steps(learning_rate, curvature, momentum, gradient_variance, group_size):
    return learning_rate * gradient_variance / (2 * group_size * curvature * (1 - momentum))


@paper.trial(Identity(), of=[stationary_variance], controls={"limit of small steps": small_steps}, quick=10, full=60)
def jitter(draw, claim, effort):
    """Mean squared deviations of 200 simulated runs, with groups of noisy gradients, agree with the variance."""
    from scipy.signal import lfilter

    beta, size, h, noise = draw.uniform(0, 0.9), draw.integer(2, 32), draw.log_uniform(0.1, 10), draw.log_uniform(0.1, 10)
    k = draw.uniform(0.05, 0.9) * 2 * (1 + beta)
    gradients = draw.rng.normal(0, math.sqrt(noise / size), size=(200, 2000 if effort == "quick" else 3500))
    run = lfilter([k / h], [1, -(1 + beta - k), beta], gradients)[:, 1500:]
    return Estimate.of((run**2).mean(1)), claim(k / h, h, beta, noise, size), {"momentum": beta, "k": k, "group_size": size}


@paper.finding(
    """The group size does more than set the noise: with normalised advantages the mean update itself depends on it, and at p = .02 a group of 8 moves little more than a third as
    fast as the limit of large groups; the first-order correction -1/(8 G p (1-p)) describes that only where both outcomes are common.""",
    trial=simulated_groups,
)
def group_size_moves_the_mean_path():
    rare, even = (group_gain(p, 8) * math.sqrt(p * (1 - p)) for p in (0.02, 0.5))
    return {"holds": rare < 0.45 and abs(even - (1 - 1 / 16)) < 0.01, "share_of_limit_rare": rare, "share_of_limit_even": even, "first_order_rare": 1 - 1 / (64 * 0.02 * 0.98)}


@paper.finding(
    """The oscillator does not decide stability. Without lag it is damped at every learning rate, while the run diverges from eta h = 2 (1 + beta) on; with a lag of 8 it loses
    its damping at eta h = .125, while the run is stable up to .185.""",
    trial=recursion,
)
def oscillator_does_not_decide_stability():
    divergent, stable = reduced_oscillator(2.1, 1.0, 0.0, 0), reduced_oscillator(0.15, 1.0, 0.0, 8)
    holds = divergent["damping_ratio"] > 0 and not divergent["stable"] and stable["regime"] == "unstable" and stable["stable"]
    return {"holds": holds, "ratio_of_divergent_run": divergent["damping_ratio"], "ratio_of_stable_run": stable["damping_ratio"], "radius": stable["spectral_radius"]}
