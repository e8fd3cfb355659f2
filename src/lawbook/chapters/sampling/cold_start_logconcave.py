"""Uniform samples of a convex body from a membership oracle: the In-and-Out walk, and a Gaussian annealing that brings it a warm start."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, count, flag, function, matrix, nonnegative, positive, real, record, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Distribution, Guarantee, Identity, Inequality, Sample

paper = Paper(
    __name__,
    title="Faster logconcave sampling from a cold start in high dimension",
    arxiv="2505.01937",
    tags=["sampling", "convex body", "polytope", "log-concave", "membership oracle", "log-Sobolev inequality", "annealing", "warm start", "In-and-Out"],
    source="derived",
    says="""In-and-Out steps out of a convex body by a Gaussian and comes back by another one, retried until it lands inside: a Gibbs step that leaves the uniform law
    as it is. From a start of bounded Renyi divergence it needs few queries, and a ladder of restricted Gaussians, each wider by 1 + 1/sqrt(n), brings such a start. Its
    speed follows from a log-Sobolev constant of diameter times the root of the largest covariance eigenvalue, where diameter squared was known.""",
    notes="""The factor c of the log-Sobolev bound is not stated by the source: 4 is a working value, and no value below 2 can be right (truncated exponentials). The exponent of
    the total number of queries is left out, as we could not read it. The annealing takes steps of size 1/n^2, the scale at which a body around the unit ball lets most
    proposals in; its last phase is the uniform law. In the stationary law the expected number of proposals of a step is infinite: the densities of
    the way out and of the proposals needed cancel, and leave the volume of the whole space. A step that finds no way back in `max_tries` therefore stays where it is, which
    keeps the stationary law exactly, whatever the cap; `failed` tells that it happened.""",
)

FIRST_BATCH, LARGEST_BATCH = 16, 4096  # proposals of one step that are tried together
CUBE = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]
NORMALS = matrix("k", "d", of=real(typical=(-1, 1)), most=3, doc="rows a of the half-spaces a x <= b; with `membership`, only their length is used", example=CUBE)
OFFSETS = vector("k", of=real(typical=(1.8, 3)), doc="right sides b of the half-spaces", example=[1.0, 1.0, 1.0, 1.0])
STEP = positive(typical=(0.005, 0.1), doc="variance of a Gaussian step", example=0.1)
DIAMETER = positive(typical=(2, 100), doc="diameter of the body", example=2.83)
LONG = positive(low=2, above=False, typical=(2, 1000), doc="diameter of a body around the unit ball", example=6.4)
DIM = count("dimensions", typical=(1, 1000), example=10)
MEMBERSHIP = function("x[d] -> True inside", doc="membership in any convex body, in place of the half-spaces")


class Body:
    """Membership of many points at once, with every query counted."""

    def __init__(self, normals, offsets, membership):
        self.queries = 0
        self.inside = (lambda x: np.array([bool(membership(row)) for row in x])) if membership else (lambda x: (x @ normals.T <= offsets).all(1))
        self.batch = 1 if membership else FIRST_BATCH

    def restricted(self, rng, centre, deviation, tries):
        """A Gaussian restricted to the body, or None where none of the tries lies inside."""
        size = self.batch
        while tries > 0:
            points = centre + deviation * rng.standard_normal((min(size, tries), len(centre)))
            found = np.flatnonzero(self.inside(points))
            self.queries += len(points) if not len(found) else int(found[0]) + 1
            if len(found):
                return points[found[0]]
            tries -= len(points)
            size = size if self.batch == 1 else min(4 * size, LARGEST_BATCH)
        return None


def walk(body, rng, x, h, variance, steps, max_tries=100_000):
    """(states after each step, whether a step gave up)."""
    pull = 1 / (1 + h / variance)
    states, gave_up = np.empty((steps, len(x))), False
    for k in range(steps):
        back = body.restricted(rng, pull * (x + math.sqrt(h) * rng.standard_normal(len(x))), math.sqrt(h * pull), max_tries)
        gave_up |= back is None  # and stays: the step remains reversible
        states[k] = x = x if back is None else back
    return states, gave_up


@paper.algorithm(
    r"y \sim N(x, hI),\quad x^+ \sim N\left(\tfrac{y}{1 + h/s^2}, \tfrac{h}{1 + h/s^2} I\right) \text{ restricted to } K",
    requires={
        "start must lie inside the half-spaces": lambda normals, offsets, start, membership: (
            membership is not None or (normals.shape[1] == len(start) and bool(np.all(normals @ start <= offsets)))
        )
    },
)
def in_and_out(
    normals: NORMALS,
    offsets: OFFSETS,
    start: vector("d", of=real(typical=(-0.5, 0.5)), doc="where the walk starts, inside the body", example=[0.0, 0.0]),
    step_size: STEP,
    steps: count("steps", typical=(1, 2000), doc="steps of the walk", example=200),
    seed: seed(example=0),
    *,
    membership: MEMBERSHIP = None,
    variance: positive(infinite=True, typical=(0.1, 10), doc="variance s^2 of a Gaussian about 0 that the body restricts; infinite for the uniform law") = math.inf,
    max_tries: count("queries", typical=(1000, 100_000), doc="proposals of one step before it gives up") = 100_000,
) -> record(samples=matrix("steps", "d"), queries=count("queries", doc="membership queries of all steps"), failed=flag(doc="whether a step gave up, and stayed where it was")):
    """The In-and-Out walk, whose stationary law is uniform on a convex body or a Gaussian restricted to it."""
    if membership is not None and not membership(start):
        raise DomainError("start must lie inside the body; membership says that it does not.")
    body = Body(normals, offsets, membership)
    states, failed = walk(body, np.random.default_rng(seed), start, step_size, variance, steps, max_tries)
    return {"samples": states, "queries": body.queries, "failed": failed}


@paper.law(r"\left\lceil \frac{\ln(n D^2)}{\ln(1 + 1/\sqrt{n})} \right\rceil")
def annealing_phases(dim: DIM, diameter: LONG) -> count("phases"):
    """Phases in which the variance of the annealing grows from 1/n to the squared diameter."""
    return max(math.ceil(math.log(dim * diameter**2) / math.log1p(dim**-0.5) - 1e-9), 1)


def unit_ball_inside(normals, offsets, membership):
    return membership is not None or bool(np.all(np.linalg.norm(normals, axis=1) <= offsets * (1 + 1e-9)))


@paper.algorithm(
    r"\mu_i \propto 1_K e^{-\|x\|^2 / 2 s_i^2},\quad s_0^2 = 1/n,\ s_{i+1}^2 = s_i^2 (1 + 1/\sqrt{n}),\ \text{last phase uniform}",
    requires={"offsets must leave the unit ball inside: no less than the length of each row of normals": unit_ball_inside},
)
def gaussian_annealing(
    normals: NORMALS,
    offsets: OFFSETS,
    diameter: positive(low=2, above=False, typical=(2, 20), doc="diameter of the body, which must contain the unit ball", example=2.83),
    seed: seed(example=0),
    *,
    membership: MEMBERSHIP = None,
    steps_per_phase: count("steps", typical=(1, 50), doc="In-and-Out steps in each phase") = 20,
) -> record(sample=vector("d"), phases=count("phases"), queries=count("queries")):
    """One nearly uniform sample of a body around the unit ball, from a cold start."""
    rng, n, body = np.random.default_rng(seed), normals.shape[1], Body(normals, offsets, membership)
    x, phases = body.restricted(rng, np.zeros(n), n**-0.5, 100_000), annealing_phases(n, diameter)
    if x is None:
        raise DomainError("membership must hold in the unit ball about 0; it does not hold at 100000 points about there.")
    for i in range(1, phases + 1):
        x = walk(body, rng, x, n**-2.0, math.inf if i == phases else (1 + n**-0.5) ** i / n, steps_per_phase)[0][-1]
    return {"sample": x, "phases": phases, "queries": body.queries}


@paper.law(r"1 + \chi^2(N(0, s^2 I) \,\|\, N(0, r s^2 I)) = \left(\frac{r^2}{2r - 1}\right)^{n/2}", closed_form=True)
def gaussian_warmness(dim: DIM, ratio: positive(low=0.5, typical=(0.6, 3), doc="ratio r of the next variance to this one", example=1.316)) -> positive():
    """How warm one Gaussian of the ladder is for the next: mean squared density ratio."""
    xp, n, r = arrays(dim, ratio)
    return xp.exp(n / 2 * (2 * xp.log(r) - xp.log(2 * r - 1)))


@paper.bound(
    r"C_{LSI} \le c\, D\, \|\Sigma\|^{1/2}",
    assumes=["The factor c is not known: 4 is a working value that no test function here contradicts."],
    closed_form=True,
)
def lsi_bound(
    diameter: DIAMETER,
    covariance_norm: positive(typical=(0.01, 100), doc="largest eigenvalue of the covariance", example=0.33),
    *,
    c: positive(typical=(2, 10), supported=(2, math.inf), doc="absolute factor; below 2 the bound is false") = 4.0,
) -> positive():
    """Log-Sobolev constant C, with Ent(f^2) <= 2 C E|grad f|^2, of a log-concave law on a bounded support."""
    xp, diameter, norm, c = arrays(diameter, covariance_norm, c)
    return c * diameter * xp.sqrt(norm)


@paper.bound(r"KL(\mu_k \| \pi) \le \frac{KL(\mu_0 \| \pi)}{(1 + h / C_{LSI})^{2k}}", closed_form=True)
def in_and_out_kl(
    initial_kl: nonnegative("nats", typical=(0.01, 10), example=1.0),
    step_size: STEP,
    steps: count("steps", low=0, typical=(1, 1000), doc="In-and-Out steps", example=100),
    lsi: positive(typical=(0.1, 10), doc="log-Sobolev constant of the target", example=3.25),
) -> nonnegative("nats"):
    """Divergence from the stationary law that is left after some steps of In-and-Out."""
    xp, initial, h, k, lsi = arrays(initial_kl, step_size, steps, lsi)
    return initial * xp.exp(-2 * k * xp.log1p(h / lsi))


LADDER = {"warmness": gaussian_warmness, "phases": annealing_phases}


def exponent_n(dim, ratio):
    return gaussian_warmness(2 * dim, ratio)


def to_the_diameter(dim, diameter):
    return math.ceil(math.log(dim * diameter) / math.log1p(dim**-0.5))


WRONG_LADDERS = {"exponent n for n/2": {**LADDER, "warmness": exponent_n}, "D for D^2": {**LADDER, "phases": to_the_diameter}}


@paper.trial(Identity(rtol=1e-8), of=[gaussian_warmness, annealing_phases], claim=LADDER, controls=WRONG_LADDERS, quick=40, full=500)
def ladder(draw, laws):
    """The warmness is the n-th power of an integral of one squared density over the other, and the phases are those counted one by one."""
    from scipy.integrate import quad

    n, r, scale, diameter = draw.integer(1, 60), draw.uniform(0.6, 2.5), draw.uniform(0.5, 2), draw.log_uniform(2.1, 500)
    one = quad(lambda x: math.exp(-(x**2) / scale + x**2 / (2 * r * scale)) * math.sqrt(r / (2 * math.pi * scale)), -np.inf, np.inf, epsabs=0, epsrel=1e-11)[0]
    variance, phases = 1 / n, 0
    while variance < diameter**2:
        variance, phases = variance * (1 + n**-0.5), phases + 1
    return [one**n, phases], [laws["warmness"](n, r), laws["phases"](n, diameter)], {"dim": n, "ratio": r, "diameter": diameter}


def contracts_to_the_fourth(initial_kl, step_size, steps, lsi):
    return in_and_out_kl(initial_kl, step_size, 2 * steps, lsi)


@paper.trial(Inequality(reaches=0.999, rtol=1e-9), of=[in_and_out_kl], controls={"(1 + h/C)^(4k)": contracts_to_the_fourth}, quick=100, full=3000)
def gaussian_contraction(draw, bound):
    """For an unrestricted Gaussian target, where every law of the walk is Gaussian, the divergence stays below the bound, which a shifted start attains."""
    s2, h, k, mean, variance = draw.log_uniform(0.1, 10), draw.log_uniform(0.01, 3), draw.integer(1, 30), draw.normal(0, 2), draw.log_uniform(0.1, 10)
    variance = s2 if draw.choice([True, False]) else variance

    def divergence(mean, variance):
        return (variance / s2 - 1 - math.log(variance / s2) + mean**2 / s2) / 2

    initial, pull = divergence(mean, variance), 1 / (1 + h / s2)
    for _ in range(k):
        mean, variance = pull * mean, pull**2 * (variance + h) + h * pull
    return divergence(mean, variance) + 1e-15, bound(initial, h, k, s2) + 2e-15, {"h": h, "s2": s2, "steps": k}


def log_sobolev_quotient(log_density, diameter, log_test, slope):
    """(Ent(f^2) / (2 E f'^2), variance) on [0, D] for a density and a test function given by their logarithms."""
    x = diameter * np.linspace(0, 1, 5001) ** 2  # finer near 0
    with np.errstate(divide="ignore"):
        cells = np.log(np.gradient(x))
    logs = log_density(x) + cells

    def normalised(logs):
        top = logs.max()
        weights = np.exp(logs - top)
        return weights / weights.sum(), top + math.log(weights.sum())

    p, total = normalised(logs)
    q, tilted = normalised(logs + 2 * log_test(x))
    mean = p @ x
    return (q @ (2 * log_test(x)) - (tilted - total)) / (2 * (q @ slope(x) ** 2)), p @ (x - mean) ** 2


def factor_one(diameter, covariance_norm):
    return lsi_bound(diameter, covariance_norm, c=1.0)


@paper.trial(Inequality(search=60, starts=1), of=[lsi_bound], controls={"c = 1": factor_one}, quick=50, full=500)
def log_sobolev(draw, bound):
    """No test function breaks the inequality with c = 4 for truncated exponentials, truncated Gaussians and the uniform law on [0, D]."""
    diameter, law = draw.log_uniform(1, 1000), draw.choice(["exponential", "exponential", "gaussian", "uniform"])
    centre, width = draw.uniform() * diameter, draw.log_uniform(0.02, 1) * diameter
    log_density = {"exponential": lambda x: -x, "gaussian": lambda x: -((x - centre) ** 2) / (2 * width**2), "uniform": np.zeros_like}[law]
    tilt = 1 + draw.log_uniform(1e-3, 0.3) if law == "exponential" else draw.normal() * 4 / diameter
    wave, bend = draw.uniform(-0.2, 0.2) * draw.choice([0, 1]), draw.uniform(0.5, 4) * math.pi / diameter
    quotient, variance = log_sobolev_quotient(log_density, diameter, lambda x: tilt * x / 2 + wave * np.cos(bend * x), lambda x: tilt / 2 - wave * bend * np.sin(bend * x))
    return quotient, bound(diameter, variance), {"law": law, "diameter": diameter, "tilt": tilt}


def without_going_out(normals, offsets, start, step_size, steps, seed, *, variance, max_tries):
    """The way back alone, retried until inside: near the boundary it is drawn inwards."""
    rng, body, x = np.random.default_rng(seed), Body(normals, offsets, None), start
    for _ in range(steps):
        x = body.restricted(rng, x, math.sqrt(2 * step_size), 100_000)
    return {"samples": x[None]}


def box(d, half=1.0):
    return np.vstack([np.eye(d), -np.eye(d)]), np.full(2 * d, half)


@paper.trial(Distribution(), of=[in_and_out], controls={"no step out": without_going_out}, quick=1000, full=10_000)
def invariance(draw, sampler):
    """Walks that start in the stationary law stay in it: the solid simplex (Beta coordinates), the cube, also with steps that often give up, and a Gaussian in the cube."""
    from scipy.stats import beta, truncnorm, uniform

    rng, d, spread = draw.rng, 3, 0.5
    simplex = np.vstack([-np.eye(d), np.ones((1, d))]), np.append(np.zeros(d), 1.0)
    cut = truncnorm(-1 / spread, 1 / spread, scale=spread)
    within, cut_starts = rng.uniform(-1, 1, (draw.size, d)), cut.rvs((draw.size, d), random_state=rng)
    settings = {
        "simplex": (simplex, rng.dirichlet(np.ones(d + 1), draw.size)[:, :d], math.inf, 0.02, 100_000, beta(1, d).cdf),
        "cube": (box(d), within, math.inf, 0.1, 100_000, uniform(-1, 2).cdf),
        "cube in two tries": (box(d), within, math.inf, 0.5, 2, uniform(-1, 2).cdf),
        "Gaussian in the cube": (box(d), cut_starts, spread**2, 0.1, 100_000, cut.cdf),
    }
    ends = {
        name: np.array([sampler(*body, x, h, 4, int(s), variance=v, max_tries=m)["samples"][-1] for x, s in zip(starts, rng.integers(2**62, size=draw.size), strict=True)])
        for name, (body, starts, v, h, m, _) in settings.items()
    }
    return {name: Sample(ends[name][:, 0], cdf=settings[name][-1]) for name in settings}


def ball_walk(normals, offsets, start, step_size, steps, seed, *, membership=None):
    """A wide step that stays where it is if it would leave the body."""
    rng, x, states = np.random.default_rng(seed), start, np.empty((steps, len(start)))
    inside = membership or (lambda z: bool(np.all(normals @ z <= offsets)))
    for k in range(steps):
        tried = x + 2 * rng.standard_normal(len(x))
        states[k] = x = tried if inside(tried) else x
    return {"samples": states}


@paper.trial(Guarantee(), of=[in_and_out], controls={"ball walk with steps of variance 4": ball_walk}, quick=1, full=6)
def second_moments(draw, sampler):
    """From the centre, 8000 steps meet the coordinates' mean square 1/3 in the cube of ten dimensions, and 1 in a ball of radius sqrt(n + 2), within 3%."""
    cube = sampler(*box(10), np.zeros(10), 1 / 60, 8000, draw.integer(0, 2**62))["samples"]
    ball = sampler(*box(4), np.zeros(4), 0.15, 8000, draw.integer(0, 2**62), membership=lambda x: x @ x <= 6)["samples"]
    achieved = [abs(3 * np.mean(cube**2) - 1), abs(np.mean(ball**2) - 1)]
    return np.array(achieved), np.full(2, 0.03)


def first_phase_only(normals, offsets, diameter, seed):
    body = Body(normals, offsets, None)
    return {"sample": body.restricted(np.random.default_rng(seed), np.zeros(normals.shape[1]), normals.shape[1] ** -0.5, 100_000)}


@paper.trial(Distribution(), of=[gaussian_annealing], controls={"first phase only": first_phase_only}, quick=150, full=2000)
def from_a_cold_start(draw, sampler):
    """Annealed samples of a box fill its long and its short sides evenly."""
    half = np.array([1.0, 2.0])
    points = np.array([sampler(*box(2, np.tile(half, 2)), 2 * np.linalg.norm(half), int(s))["sample"] for s in draw.rng.integers(2**62, size=draw.size)]) / half
    return {name: Sample(points[:, i], cdf=lambda x: (1 + x) / 2) for i, name in enumerate(("short", "long"))}


@paper.finding("""The log-Sobolev bound needs a factor of at least 2: exponentials truncated at D, with the test function exp(s x / 2) and s slightly above 1, come to 1.23,
1.60 and 1.82 times D times the standard deviation at D = 50, 200 and 1000, and tend to 2.""")
def factor_at_least_two():
    found = []
    for diameter in (50.0, 200.0, 1000.0):
        quotients = [log_sobolev_quotient(lambda x: -x, diameter, lambda x, s=s: s * x / 2, lambda x, s=s: np.full(x.shape, s / 2)) for s in 1 + np.geomspace(1e-3, 0.5, 60)]
        found.append(float(max(q / (diameter * v**0.5) for q, v in quotients)))
    return {"holds": bool(np.allclose(found, [1.23, 1.60, 1.82], atol=0.02)), "factors": found}


@paper.finding(
    """The expected number of proposals of a step is infinite in the stationary law: the mean of what a cap lets through grows with the cap (in the ten-dimensional cube with steps
    of variance 1/60). Stopping a walk at its first step beyond the cap would stop about a third of walks of 8000 steps at a cap of 100000."""
)
def no_mean_number_of_queries():
    from scipy.special import ndtr

    rng, h = np.random.default_rng(0), 1 / 60
    y = rng.uniform(-1, 1, (200_000, 10)) + math.sqrt(h) * rng.standard_normal((200_000, 10))
    hit = (ndtr((1 - y) / math.sqrt(h)) - ndtr((-1 - y) / math.sqrt(h))).prod(1)
    means = {cap: float(np.mean(-np.expm1(cap * np.log1p(-hit)) / hit)) for cap in (1e2, 1e4, 1e6)}
    stopped = -math.expm1(-8000 * float(np.mean(np.exp(1e5 * np.log1p(-hit)))))
    holds = means[1e4] > 1.3 * means[1e2] and means[1e6] > 1.1 * means[1e4] and 0.1 < stopped < 0.6
    return {"holds": bool(holds), "mean_at_cap_100": means[1e2], "mean_at_cap_10000": means[1e4], "mean_at_cap_1000000": means[1e6], "chance_of_a_stop": stopped}
