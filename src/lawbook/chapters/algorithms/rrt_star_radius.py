"""The connection radius of RRT*: what a proof of asymptotic optimality needs, what the classic formula gives, and the planner itself."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, choice, count, matrix, nonnegative, optional, positive, probability, real, record, seed, vector
from lawbook.numerics import arrays, special
from lawbook.numerics.statistics import clopper_pearson
from lawbook.trials import Estimate, Guarantee, Identity, Inequality, Rate

paper = Paper(
    __name__,
    title="Revisiting the Asymptotic Optimality of RRT*",
    arxiv="1909.09688",
    tags=["motion planning", "robotics", "RRT*", "sampling-based planning", "asymptotic optimality"],
    source="derived",
    says="""RRT* is a tree that grows: samples near a good path help only if they arrive in the order of the path. The original proof overlooks this. A proof that respects the
    order asks each of M balls along the path to be hit in its own window of samples, and that needs a connection radius that shrinks like (log n / n)^(1/(d+1)) instead of
    (log n / n)^(1/d); the price is that neighbours per step grow like a power of n instead of log n.""",
    notes="""The constant was derived again: balls of radius r/(2+theta), their centres theta r/(2+theta) apart, one window each. At equality in the condition on the constant the
    chance of a miss still vanishes, like (log n)^(-1/(d+1)), so that the condition is not the sharpest that the argument allows. Balls must stay inside the free space, so that the
    trial's path keeps its distance from the walls. The radius is not clipped: the law does not know the diameter of the space, and one beyond it connects everything.""",
)

SAMPLES = count(low=2, typical=(10, 1e6), doc="n", example=30_000)
DIM = count(typical=(1, 7), doc="d, dimension of the configuration space", example=2)
VOLUME = positive(typical=(0.2, 10), doc="volume of the free space, or an upper bound", example=1.0)
COST = positive(typical=(0.2, 10), doc="c*, or any upper bound on the optimal cost", example=1.131371)
RADIUS = positive(typical=(0.01, 0.4), doc="connection radius", example=0.178)
SLACK = positive(low=1, typical=(1.001, 3), doc="factor above the smallest constant that the proof allows")
EPSILON = real(low=0, high=1, above=True, below=True, typical=(0.01, 0.9), doc="tolerated excess over the optimal cost")
THETA = real(low=0, high=0.25, above=True, below=True, typical=(0.01, 0.24), doc="spacing of the balls along the path, in their radii")
MU = real(low=0, high=1, above=True, below=True, typical=(0.01, 0.9), doc="share of the samples that is left aside before the first window")
GOAL_RADIUS = 0.05


def unit_ball(xp, d):
    """Volume of the unit ball in d dimensions."""
    return xp.exp(d / 2 * math.log(math.pi) - special(xp, "gammaln")(d / 2 + 1))


@paper.law(
    r"r(n) = \gamma' \left(\frac{\ln n}{n}\right)^{1/(d+1)},\quad"
    r" \gamma' > (2+\theta) \left(\frac{(1+\varepsilon/4)\, c^*}{(d+1)\,\theta (1-\mu)} \cdot \frac{|X_f|}{\zeta_d}\right)^{1/(d+1)}",
    assumes=["A path of cost c* has clearance: it is robustly feasible."],
    closed_form=True,
    gives=0.137,
)
def rrt_star_radius(
    samples: SAMPLES, dim: DIM, *, free_volume: VOLUME, optimal_cost: COST, epsilon: EPSILON = 0.1, theta: THETA = 0.2, mu: MU = 0.1, slack: SLACK = 1.01
) -> positive():
    """Connection radius with which the cost of RRT* provably comes within a factor 1 + epsilon of the optimum as samples grow."""
    xp, n, d, volume, cost, e, t, m, s = arrays(samples, dim, free_volume, optimal_cost, epsilon, theta, mu, slack)
    ratio = (1 + e / 4) * cost * volume / ((d + 1) * t * (1 - m) * unit_ball(xp, d))
    return s * (2 + t) * (ratio * xp.log(n) / n) ** (1 / (d + 1))


@paper.law(
    r"r(n) = \gamma \left(\frac{\ln n}{n}\right)^{1/d},\quad \gamma > \left(2\left(1+\tfrac1d\right) \frac{|X_f|}{\zeta_d}\right)^{1/d}",
    assumes=["Its proof of asymptotic optimality has a gap; it has not been shown to fail."],
    closed_form=True,
)
def rrt_star_radius_classic(samples: SAMPLES, dim: DIM, *, free_volume: VOLUME, slack: SLACK = 1.01) -> positive():
    """Connection radius of Karaman and Frazzoli, which libraries use."""
    xp, n, d, volume, s = arrays(samples, dim, free_volume, slack)
    return s * (2 * (1 + 1 / d) * volume / unit_ball(xp, d) * xp.log(n) / n) ** (1 / d)


@paper.law(r"n\, \zeta_d\, r^d / |X_f|", closed_form=True)
def rrt_star_neighbours(samples: SAMPLES, dim: DIM, radius: RADIUS, free_volume: VOLUME) -> nonnegative():
    """Expected number of tree nodes within the radius, away from the boundary: the collision checks that a step costs."""
    xp, n, d, r, volume = arrays(samples, dim, radius, free_volume)
    return n * unit_ball(xp, d) * r**d / volume


@paper.bound(
    r"\Pr \ge 1 - M \exp\left(-\left\lfloor \frac{(1-\mu) n}{M} \right\rfloor \frac{\zeta_d}{|X_f|} \left(\frac{r}{2+\theta}\right)^d\right),\quad"
    r" M = \left\lceil \frac{(2+\theta)(1+\varepsilon/4)\, c^*}{\theta r} \right\rceil",
    assumes=["All balls lie inside the free space: the path has a clearance of radius / (2 + theta)."],
    requires={
        "radius must be so small that a ball of radius / (2 + theta) fits into free_volume": lambda radius, theta, dim, free_volume: (
            rrt_star_neighbours(1, dim, radius / (2 + theta), free_volume) <= 1
        )
    },
    closed_form=True,
)
def rrt_star_success(
    samples: SAMPLES, dim: DIM, radius: RADIUS, *, free_volume: VOLUME, optimal_cost: COST, epsilon: EPSILON = 0.1, theta: THETA = 0.2, mu: MU = 0.1
) -> probability():
    """Chance, at least, that every ball along the path is hit in its window, so that the tree follows the path; 0 where the argument says nothing."""
    xp, n, r, cost, e, t, m = arrays(samples, radius, optimal_cost, epsilon, theta, mu)
    balls = xp.ceil((2 + t) * (1 + e / 4) * cost / (t * r))
    window = xp.floor((1 - m) * n / balls)
    return xp.maximum(1 - balls * xp.exp(-rrt_star_neighbours(window, dim, r / (2 + t), free_volume)), xp.zeros_like(n))


def blocked(origins, end, boxes):
    """Whether the straight line from each origin to `end` passes through the inside of a box: the intervals between its slabs overlap."""
    direction = end - origins
    direction = np.where(direction == 0, 1e-300, direction)[:, None]
    low, high = (boxes[:, 0] - origins[:, None]) / direction, (boxes[:, 1] - origins[:, None]) / direction
    enter, leave = np.minimum(low, high).max(2), np.maximum(low, high).min(2)
    return (np.maximum(enter, 0) < np.minimum(leave, 1)).any(1)


def are_boxes(obstacles, d):
    return obstacles is None or (obstacles.shape[1] == 2 * d and bool((obstacles[:, :d] <= obstacles[:, d:]).all()))


def sample_problem(rng):
    corner = rng.uniform(0.2, 0.5, (2, 2))
    problem = {"start": rng.uniform(0, 0.2, 2), "goal": rng.uniform(0.8, 1, 2), "obstacles": np.hstack([corner, corner + rng.uniform(0.05, 0.3, (2, 2))])}
    return {**problem, "samples": int(rng.integers(1, 300)), "radius": ("new", "classic")[int(rng.integers(2))], "optimal_cost": 2.0, "seed": int(rng.integers(1000))}


@paper.algorithm(
    r"\text{parent}(x) = \arg\min_{y \in B(x, r_i)} c(y) + \|x - y\|;\quad \text{rewire } y \in B(x, r_i) \text{ where } c(x) + \|x - y\| < c(y)",
    requires={
        "obstacles must have 2 columns for each coordinate, lower corner first and not above the upper": lambda obstacles, start: are_boxes(obstacles, len(start)),
        "optimal_cost must be given for the new radius": lambda radius, optimal_cost: radius != "new" or optimal_cost is not None,
        "fixed_radius must be given for a fixed radius": lambda radius, fixed_radius: radius != "fixed" or fixed_radius is not None,
    },
    sample=sample_problem,
)
def rrt_star(
    start: vector("d", of=real(low=0, high=1), doc="in the unit cube", example=[0.1, 0.5]),
    goal: vector("d", of=real(low=0, high=1), doc="centre of a goal ball of radius 0.05", example=[0.9, 0.5]),
    obstacles: optional(matrix("k", "sides", of=real(typical=(0, 1)), doc="a box in each row: lower corner, upper corner", example=[[0.4, 0.3, 0.6, 0.9]])),
    samples: count(typical=(1, 500), example=500),
    seed: seed() = 0,
    *,
    radius: choice("new", "classic", "fixed", doc="connection radius at the i-th sample") = "new",
    fixed_radius: positive(high=1e6, typical=(0.05, 0.5)) = None,
    optimal_cost: positive(typical=(0.5, 3), doc="upper bound on the optimal cost, for the new radius", example=1.0) = None,
    step: positive(infinite=True, typical=(0.05, 1), doc="longest edge; infinite where steering goes all the way") = math.inf,
) -> record(
    cost=nonnegative(infinite=True, doc="cost of the best path into the goal ball; infinite where none was found"),
    path=matrix("nodes", "d", doc="its nodes from the start; the start alone where none was found"),
    tree_size=count(),
):
    """A short path among boxes in the unit cube, found by growing and rewiring a tree; the volume of the cube stands for the free volume, which it bounds."""
    d, rng = len(start), np.random.default_rng(seed)
    boxes = np.zeros((0, 2, d)) if obstacles is None else np.asarray(obstacles, float).reshape(-1, 2, d)
    start, goal = np.asarray(start, float), np.asarray(goal, float)
    if ((boxes[:, 0] < start) & (start < boxes[:, 1])).all(1).any():
        raise DomainError(f"start must lie outside the obstacles; it was {start.tolist()}, inside one of them.")
    index = np.maximum(np.arange(1, samples + 1), 2)
    if radius == "fixed":
        reach = np.full(samples, float(fixed_radius))
    else:
        reach = rrt_star_radius(index, d, free_volume=1.0, optimal_cost=optimal_cost) if radius == "new" else rrt_star_radius_classic(index, d, free_volume=1.0)
    reach = np.minimum(reach, step)
    points, costs, parents, children, size = np.empty((samples + 1, d)), np.zeros(samples + 1), [-1], [[]], 1
    points[0] = start
    for target, r in zip(rng.random((samples, d)), reach, strict=True):
        offsets = points[:size] - target
        distances = np.sqrt(np.einsum("ij,ij->i", offsets, offsets))
        nearest = int(distances.argmin())
        new = target
        if distances[nearest] > step:
            new = points[nearest] - offsets[nearest] * step / distances[nearest]
            distances = np.sqrt(((points[:size] - new) ** 2).sum(1))
        near = np.flatnonzero(distances <= r)
        near = near if len(near) and distances[nearest] <= r else np.append(near, nearest)
        near = near[~blocked(points[near], new, boxes)]
        if not len(near):
            continue
        through = costs[near] + distances[near]
        best = int(through.argmin())
        points[size], costs[size] = new, through[best]
        parents.append(int(near[best]))
        children.append([])
        children[near[best]].append(size)
        for node in near[costs[size] + distances[near] < costs[near] - 1e-12].tolist():
            gain = costs[node] - costs[size] - distances[node]
            if gain <= 0:  # an earlier rewiring has already lowered it
                continue
            children[parents[node]].remove(node)
            parents[node] = size
            children[size].append(node)
            below = [node]
            for descendant in below:
                below.extend(children[descendant])
            costs[below] -= gain
        size += 1
    arrived = np.flatnonzero(((points[:size] - goal) ** 2).sum(1) <= GOAL_RADIUS**2)
    if not len(arrived):
        return {"cost": math.inf, "path": points[:1], "tree_size": size}
    nodes = [int(arrived[costs[arrived].argmin()])]
    while nodes[-1] != 0:
        nodes.append(parents[nodes[-1]])
    return {"cost": max(float(costs[nodes[0]]), 0.0), "path": points[nodes[::-1]], "tree_size": size}


def windows_hit(rng, samples, dim, radius, ends, runs, theta=0.2, mu=0.1):
    """In how many runs of uniform samples in the unit cube each ball along the diagonal between `ends` is hit in its window."""
    length = (ends[1] - ends[0]) * math.sqrt(dim)
    balls = math.ceil((2 + theta) * length / (theta * radius))
    window = int((1 - mu) * samples / balls)
    centres = np.minimum(ends[0] + np.arange(1, balls + 1) * theta * radius / (2 + theta) / math.sqrt(dim), ends[1])
    hits = 0
    for _ in range(runs):
        squares = sum((rng.random((balls, window)) - centres[:, None]) ** 2 for _ in range(dim))
        hits += bool((squares <= (radius / (2 + theta)) ** 2).any(1).all())
    return hits, balls


def classic(samples, dim, *, free_volume, optimal_cost, slack):
    return rrt_star_radius_classic(samples, dim, free_volume=free_volume, slack=slack)


def one_ball(samples, dim, radius, *, optimal_cost, epsilon, theta=0.2, mu=0.1, **volume):
    balls = np.ceil((2 + theta) * optimal_cost / (theta * radius))
    return 1 - np.exp(-rrt_star_neighbours(np.floor((1 - mu) * samples / balls), dim, radius / (2 + theta), **volume))


@paper.trial(
    Inequality(search=0),
    of=[rrt_star_success, rrt_star_radius],
    claim=(rrt_star_radius, rrt_star_success),
    controls={"classic radius under the new promise": (classic, rrt_star_success), "no union over the balls": (rrt_star_radius, one_ball)},
    quick=12,
    full=60,
)
def balls_in_order(draw, claim, effort):
    """Simulated sample sequences hit every ball in its window at least as often as the bound says (upper confidence limit of 1 - 1e-5)."""
    radius, success = claim
    n, d, slack, low = draw.choice([3000, 30_000]), draw.choice([2, 3]), draw.choice([1.01, 1.3, 1.6, 2.0]), draw.uniform(0.35, 0.45)
    setting = {"free_volume": 1.0, "optimal_cost": (1 - 2 * low) * math.sqrt(d)}
    promised = success(n, d, float(rrt_star_radius(n, d, slack=slack, **setting)), epsilon=0.0, **setting)
    runs = 300 if effort == "full" else 150
    hits, balls = windows_hit(draw.rng, n, d, float(radius(n, d, slack=slack, **setting)), (low, 1 - low), runs)
    return float(promised), clopper_pearson(hits, runs, 1 - 2e-5)[1], {"samples": n, "dim": d, "slack": slack, "balls": balls, "rate": hits / runs}


def counted_neighbours(rng, samples, dim, radius, queries):
    """Neighbours of random places among uniform points on the torus, where nothing is lost at a boundary."""
    from scipy.spatial import cKDTree

    return cKDTree(rng.random((samples, dim)), boxsize=1).query_ball_point(rng.random((queries, dim)), radius, return_length=True)


@paper.trial(Rate(within=0.05), of=[rrt_star_radius, rrt_star_neighbours], controls={"classic radius": classic}, quick=4, full=30)
def growth_of_neighbours(draw, claim):
    """Counted neighbours within the new radius, over (log n)^(d/(d+1)), grow like n^(1/(d+1)) in the plane."""
    n, d = np.geomspace(2000, 100_000, 6).astype(int), 2
    radii = claim(n, d, free_volume=1.0, optimal_cost=0.5, slack=1.01)
    counted = [counted_neighbours(draw.rng, m, d, r, 300).mean() for m, r in zip(n, radii, strict=True)]
    return n, np.array(counted) / np.log(n) ** (d / (d + 1)), 1 / (d + 1)


@paper.trial(Identity(rtol=1e-9), of=[rrt_star_radius_classic, rrt_star_neighbours], claim=classic, controls={"exponent 1/(d+1)": rrt_star_radius}, quick=10, full=200)
def classic_neighbours(draw, claim):
    """Within the classic radius a step meets slack^d 2(1 + 1/d) log n nodes: counted on the torus, and by the law."""
    n, d, slack = draw.integer(2000, 20_000), draw.integer(1, 3), draw.uniform(1.001, 1.2)
    radius = float(claim(n, d, free_volume=1.0, optimal_cost=1.0, slack=slack))
    # queries in one cloud share its points: a mean over each of 20 clouds makes them independent
    spread = Estimate.of([counted_neighbours(draw.rng, n, d, min(radius, 0.49), 50).mean() for _ in range(20)])
    expected, law = slack**d * 2 * (1 + 1 / d) * math.log(n), float(rrt_star_neighbours(n, d, radius, 1.0))
    return Estimate(np.array([spread.value, law]), np.array([spread.error, 0.0])), np.array([expected, expected]), {"dim": d, "samples": n}


def without_rewiring(start, goal, obstacles, samples, seed, **options):
    """Plain RRT: the nearest node is the parent, for good."""
    return rrt_star(start, goal, obstacles, samples, seed, radius="fixed", fixed_radius=1e-9)


@paper.trial(Guarantee(), of=[rrt_star], controls={"plain RRT": without_rewiring}, quick=1, full=12)
def short_paths(draw, claim):
    """At 4000 samples around one box, both radii come within 5 % of the shortest path (less the goal ball), more samples never cost, and paths are free and as long as said."""
    low, high = np.array([0.4, draw.uniform(0.2, 0.4)]), np.array([0.6, draw.uniform(0.75, 0.95)])
    start, goal = (np.array([x, draw.uniform(low[1] + 0.05, 0.7)]) for x in (0.1, 0.9))
    around = [math.dist(start, (0.4, y)) + 0.2 + math.dist((0.6, y), goal) for y in (low[1], high[1])]
    best, options = min(around), {"obstacles": np.r_[low, high][None], "seed": draw.integer(0, 10**6), "optimal_cost": 1.05 * min(around)}
    achieved, promised = [], []
    for radius in ("new", "classic"):
        early, late = (claim(start, goal, samples=n, radius=radius, **options) for n in (1000, 4000))
        legs = np.diff(late["path"], axis=0)
        between = (late["path"][:-1, None] + np.linspace(0, 1, 400)[:, None] * legs[:, None]).reshape(-1, 2)
        inside = ((low + 1e-9 < between) & (between < high - 1e-9)).all(1).mean()
        mismatch = abs(np.hypot(*legs.T).sum() - late["cost"])
        achieved += [late["cost"], best - GOAL_RADIUS, late["cost"], inside, mismatch]
        promised += [1.05 * best, late["cost"], early["cost"], 0.0, 1e-9]
    return np.array(achieved), np.array(promised), {"optimal": best, "costs": achieved[::5]}


@paper.finding(
    """The theorem is asymptotic: just above its threshold (slack 1.01, n = 30 000, d = 2, 91 balls) the event behind it happens in about one run in twelve and the bound is 0;
    with the classic radius (680 balls) the event never happens, which is where the old proof breaks, though the planner itself works.""",
    trial=balls_in_order,
)
def silent_at_practical_samples():
    setting = {"free_volume": 1.0, "optimal_cost": 0.8 * math.sqrt(2)}
    new, old = float(rrt_star_radius(30_000, 2, **setting)), float(rrt_star_radius_classic(30_000, 2, free_volume=1.0))
    rng, runs = np.random.default_rng(0), 300
    (hits, balls), (old_hits, old_balls) = (windows_hit(rng, 30_000, 2, radius, (0.1, 0.9), runs) for radius in (new, old))
    bound = float(rrt_star_success(30_000, 2, new, epsilon=0.0, **setting))
    return {
        "holds": bound == 0 and hits < runs / 4 and old_hits == 0,
        "radius": new,
        "balls": balls,
        "rate": hits / runs,
        "classic_balls": old_balls,
        "classic_rate": old_hits / runs,
    }
