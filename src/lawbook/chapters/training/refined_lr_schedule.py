"""Learning-rate schedules from guarantees for the last iterate: linear decay, refinement by gradient norms, and a score for any schedule."""

import numpy as np

from lawbook.contract import DomainError, Paper, choice, count, either, flag, listing, nonnegative, optional, positive, probability, record, vector
from lawbook.numerics import arrays
from lawbook.trials import Identity, Inequality, Rate

paper = Paper(
    __name__,
    title="When, Why and How Much? Adaptive Learning Rate Scheduling by Refinement",
    arxiv="2310.07831",
    tags=["learning rate", "schedule", "linear decay", "warmup", "sgd", "convex optimisation", "last iterate", "training"],
    source="code",
    says="""A guarantee for the last iterate of subgradient descent tells which schedule is best. Where only a bound on the gradients is known, it is linear decay to zero,
    and its guarantee D G / sqrt(T) is the minimax value. Where the gradient norms of an earlier run are known, a closed form gives a schedule for the next run, which often
    shows a warm-up and a steep end. Any other schedule can be scored by one formula before anybody trains with it.""",
    notes="""Schedules count T iterates: x_1 to x_T need T - 1 steps, so the T-th rate is never used (it is 0 in linear decay and in refinement, and any positive value will do
    in the score). All guarantees are for convex functions; for networks they are heuristics, and so is the kind l1 for Adam. The best base rate of a shape has a closed form,
    since the score is a / rate + b * rate; a numerical search agrees. The authors' code for the closed form divides by the last weight where the theorem divides by their sum:
    only the scale differs, which users tune. Norms much larger than the smallest one weigh nothing, so their rates may underflow to 0.""",
)

NAMES = ("constant", "linear", "cosine", "wsd", "refined")
DISTANCE = positive(typical=(0.01, 100), doc="D: distance from the first iterate to the comparator", example=1.0)
GRADIENT = positive(typical=(0.01, 100), doc="G: bound on the norms of gradients", example=1.0)
NORM = positive(typical=(0.01, 10))


def virtual_last(rates, value=1.0):
    """The rates with a last one of 0, which no step uses, replaced by the one before it (by `value` where there is none)."""
    if rates[-1] > 0:
        return rates
    return np.append(rates[:-1], rates[-2] if len(rates) > 1 else value)


def score_parts(rates, norms):
    """(S_1, noise): the score of a schedule is D^2 / (2 S_1) + noise; scaling the rates by c scales both by c."""
    tail_rate, tail_noise = np.cumsum(rates[::-1])[::-1], np.cumsum((rates * norms)[::-1] ** 2)[::-1]
    noise = tail_noise[0] / (2 * tail_rate[0]) + 0.5 * np.sum(rates[:-1] / tail_rate[1:] * tail_noise[:-1] / tail_rate[:-1])
    return float(tail_rate[0]), float(noise)


@paper.bound(
    r"f(x_T) - f(u) \le D G / \sqrt{T}",
    assumes=["f is convex, its (expected) subgradients are at most G, and steps follow linear decay.", "Equality is attained, and no method of T gradients does better."],
    closed_form=True,
    gives=0.5,
)
def linear_decay_gap(distance: DISTANCE, gradient_bound: GRADIENT, steps: count("iterates", typical=(1, 1_000_000), example=4)) -> positive():
    """Guaranteed gap of the last of T iterates under linear decay, the minimax value."""
    xp, d, g, t = arrays(distance, gradient_bound, steps)
    return d * g / xp.sqrt(t)


@paper.algorithm(r"\eta_t = \frac{D}{G \sqrt{T}} \left(1 - \frac{t}{T}\right),\quad t = 1..T")
def linear_decay(
    steps: count("iterates", typical=(1, 10_000), example=10), *, distance: positive(typical=(0.01, 100)) = 1.0, gradient_bound: positive(typical=(0.01, 100)) = 1.0
) -> vector("steps", of=nonnegative()):
    """The minimax schedule where only a bound on the gradients is known; the last rate is 0."""
    return distance / (gradient_bound * np.sqrt(steps)) * (1 - np.arange(1, steps + 1) / steps)


@paper.algorithm(
    r"w_t = \hat G_t^{-2},\quad \eta_t = \frac{D}{\sqrt{\sum_p w_p}}\, w_t\, \frac{\sum_{p > t} w_p}{\sum_p w_p},\quad f(x_T) - f(u) \le \frac{D}{\sqrt{\sum_t \hat G_t^{-2}}}",
    assumes=["f is convex and the norms of the new run do not exceed the given (smoothed) ones."],
)
def refined_schedule(
    gradient_norms: vector("T", of=NORM, most=40, doc="norms of an earlier run, one for each step, none of them 0", example=[3.0, 2.0, 1.5, 1.0, 1.0, 1.0, 1.0, 2.0]),
    *,
    kind: choice("l2", "l1", doc="l2 norms for SGD (weights G^-2), l1 norms for Adam (weights G^-1, a heuristic)") = "l2",
    smoothing: probability(typical=(0, 0.3), doc="width of the median filter as a share of the run") = 0.0,
    distance: positive(typical=(0.01, 100), doc="D: sets the scale of the schedule and its bound (kind l2)") = None,
    normalise: flag(doc="scale the largest rate to 1, for a base rate tuned elsewhere") = False,
) -> record(schedule=vector("T", of=nonnegative()), bound=optional(positive(doc="only with distance and kind l2, and for the schedule at its own scale"))):
    """The schedule that an earlier run's gradient norms call for, with the gap that it guarantees."""
    norms = np.asarray(gradient_norms, float)
    width = 2 * int(smoothing * len(norms) / 2) + 1
    if width > 1:
        from scipy.ndimage import median_filter

        norms = median_filter(np.pad(norms, (0, 2 * width), mode="reflect"), size=width, mode="nearest")[: len(norms)]
    least, power = norms.min(), 2 if kind == "l2" else 1
    weights = (least / norms) ** power  # relative to the smallest norm: nothing overflows
    total = weights.sum()
    tail = np.append(np.cumsum(weights[:0:-1])[::-1], 0.0)  # sum of the later weights
    schedule, bound = weights * tail / total, None
    if normalise:
        schedule = schedule / schedule.max() if schedule.max() > 0 else schedule
    elif distance is not None and kind == "l2":
        schedule, bound = schedule * (distance / least / np.sqrt(total)), float(distance * least / np.sqrt(total))
    else:
        schedule = schedule / least**power
    return {"schedule": schedule, "bound": bound}


@paper.bound(
    r"f(x_T) - f(u) \le \frac{D^2 + Q_1}{2 S_1} + \sum_{k < T} \frac{\eta_k Q_k}{2 S_k S_{k+1}},\quad S_k = \sum_{t \ge k} \eta_t,\ Q_k = \sum_{t \ge k} \eta_t^2 G_t^2",
    assumes=["f is convex; gradients may be stochastic with E|g_t|^2 <= G_t^2."],
    requires={"learning_rates must be above 0, except that the last may be 0 (no step uses it)": lambda learning_rates: bool(np.all(learning_rates[:-1] > 0))},
    gives=0.958333,
)
def last_iterate_gap(
    learning_rates: vector("T", of=nonnegative(typical=(0.001, 1)), most=40, doc="rates of all iterates, T - 1 of which are steps", example=[0.5, 0.5, 0.5, 0.5]),
    gradient_norms: either(positive(typical=(0.01, 10)), vector("T", of=nonnegative(typical=(0.01, 10)), most=40), doc="norms along the run, or one bound on them", example=1.0),
    distance: DISTANCE,
    *,
    curve: flag(doc="the gap at every horizon t, were the schedule cut there") = False,
) -> either(positive(), vector("T", of=positive())):
    """What the theory promises of the last iterate under any schedule; relative scores rank schedules before training."""
    norms = np.broadcast_to(np.asarray(gradient_norms, float), np.shape(learning_rates))
    rates = virtual_last(np.asarray(learning_rates, float), distance / norms[-1] if norms[-1] > 0 else 1.0)
    parts = (score_parts(rates[:t], norms[:t]) for t in (range(1, len(rates) + 1) if curve else [len(rates)]))
    gaps = np.array([distance**2 / (2 * total) + noise for total, noise in parts])
    return gaps if curve else float(gaps[0])


def shape(name, steps, norms):
    """A schedule of the given name with largest rate about 1."""
    t = np.arange(1, steps + 1)
    return {
        "constant": lambda: np.ones(steps),
        "linear": lambda: (steps + 1 - t) / steps,
        "cosine": lambda: 0.5 * (1 + np.cos(np.pi * (t - 1) / steps)),
        "wsd": lambda: np.minimum((steps + 1 - t) / (0.2 * steps), 1.0),
        "refined": lambda: virtual_last(refined_schedule(norms, normalise=True)["schedule"]),
    }[name]()


@paper.measure(r"\min_c\ \text{gap}(c\, \eta) = D \sqrt{2\, \text{noise} / S_1},\quad c^* = D / \sqrt{2\, S_1\, \text{noise}}")
def compare_schedules(
    steps: count("iterates", typical=(1, 300), example=1000),
    gradient_norms: either(positive(typical=(0.01, 10)), vector("steps", of=NORM), doc="norms along the run, or one bound on them", example=1.0),
    distance: DISTANCE,
    *,
    names: listing(choice(*NAMES), least=1, doc="shapes to compare; wsd is constant for 80% and then linear") = NAMES,
) -> record(**{name: optional(record(base_rate=positive(doc="best factor for the shape"), bound=positive(doc="gap promised with it"))) for name in NAMES}):
    """What common schedules promise with their best base rates."""
    norms = np.broadcast_to(np.asarray(gradient_norms, float), (steps,))
    compared = {}
    for name in names:
        rates = shape(name, steps, norms)
        if not (rates > 0).all():
            raise DomainError(f"gradient_norms must lie within 150 orders of magnitude of each other for the shape {name}; its rates vanish.")
        total, noise = score_parts(rates, norms)
        compared[name] = {"base_rate": float(distance / np.sqrt(2 * total * noise)), "bound": float(distance * np.sqrt(2 * noise / total))}
    return compared


def max_affine(draw, dimension, pieces):
    """A random convex function max(A x + b) as x -> (value, subgradient)."""
    slopes, offsets = draw.normal(size=(pieces, dimension)), draw.normal(size=pieces)

    def function(x):
        values = slopes @ x + offsets
        active = int(np.argmax(values))
        return values[active], slopes[active]

    return function


def average_iterate_gap(rates, norms, distance, *, curve):
    return (distance**2 + np.cumsum((rates * norms) ** 2)) / (2 * np.cumsum(rates))


def half_distance(rates, norms, distance, *, curve):
    return last_iterate_gap(rates, norms, distance / 2, curve=curve)


@paper.trial(Inequality(), of=[last_iterate_gap], controls={"the bound of the average iterate": average_iterate_gap, "half the distance": half_distance}, quick=200, full=5000)
def random_descent(draw, claim):
    """Subgradient descent on random convex functions with random rates: every iterate keeps the promise for its horizon, against the best of some comparators."""
    dimension, pieces, length = draw.integer(1, 3), draw.integer(2, 5), draw.integer(1, 15)
    function = max_affine(draw, dimension, pieces)
    comparator = min(draw.normal(size=(8, dimension)), key=lambda u: function(u)[0])
    rates = draw.log_uniform(0.03, 3.0) * draw.log_uniform(0.2, 5.0, size=length)
    x, norms, values = np.zeros(dimension), [], []
    for rate in rates:
        value, gradient = function(x)
        values.append(value)
        norms.append(np.linalg.norm(gradient))
        x = x - rate * gradient
    promised = claim(rates, np.array(norms), np.linalg.norm(comparator), curve=True)
    return np.array(values) - function(comparator)[0], promised, {"rates": rates, "norms": norms}


def later_share(weights):
    """w_{t+1:T} / w_{1:T} for t < T: what linear decay and refinement multiply their weights by."""
    return refined_schedule(weights**-0.5)["schedule"][:-1] / weights[:-1]


def own_weight_included(weights):
    return np.cumsum(weights[::-1])[::-1][:-1] / weights.sum()


@paper.trial(Inequality(atol=1e-12), of=[refined_schedule], claim=later_share, controls={"own weight counted": own_weight_included}, quick=300, full=5000)
def regret_conversion(draw, share):
    """The lemma behind all schedules: iterates that follow any z_t with the share of later weights end no higher than the weighted regret of z."""
    dimension, pieces, length = draw.integer(1, 3), draw.integer(2, 5), draw.integer(2, 8)
    function, comparator = max_affine(draw, dimension, pieces), draw.normal(size=dimension)
    z, weights = 2 * draw.normal(size=(length, dimension)), draw.log_uniform(0.2, 5.0, size=length)
    x, regret = z[0], 0.0
    for t, factor in enumerate([*share(weights), 0.0]):
        value, gradient = function(x)
        regret += weights[t] * gradient @ (z[t] - comparator)
        if factor:
            x = x + factor * (z[t + 1] - z[t])
    return value - function(comparator)[0], regret / weights.sum()


def worst_case(rates, norms, distance=1.0):
    """The exact worst gap over all convex functions with subgradients of these norms at most, by semidefinite programming (PEPit)."""
    from PEPit import PEP
    from PEPit.functions import ConvexFunction

    problem = PEP()
    function = problem.declare_function(ConvexFunction)
    optimum = function.stationary_point()
    x = problem.set_initial_point()
    problem.set_initial_condition((x - optimum) ** 2 <= distance**2)
    for rate, norm in zip(rates, norms, strict=True):
        iterate = x
        gradient, value = function.oracle(iterate)
        problem.add_constraint(gradient**2 <= norm**2)
        x = iterate - rate * gradient
    problem.set_performance_metric(value - function(optimum))
    return problem.solve(verbose=0)


def refined_with_own_weight(norms, *, distance):
    right, weights = refined_schedule(norms, distance=distance), np.asarray(norms) ** -2.0
    return right | {"schedule": right["schedule"] + distance * weights**2 / weights.sum() ** 1.5}


def constant_decay(steps, *, distance, gradient_bound):
    return np.full(steps, distance / (gradient_bound * np.sqrt(steps)))


@paper.trial(
    Identity(rtol=1e-4),
    of=[refined_schedule, linear_decay, linear_decay_gap],
    claim=(refined_schedule, linear_decay),
    controls={"own weight counted": (refined_with_own_weight, linear_decay), "constant rate": (refined_schedule, constant_decay)},
    quick=4,
    full=60,
)
def exact_worst_case(draw, claim, effort):
    """Refinement and linear decay have exactly the worst case that is claimed, found over all convex functions."""
    refine, decay = claim
    length, distance, bound = draw.integer(2, 3 if effort == "quick" else 6), draw.log_uniform(0.5, 2), draw.log_uniform(0.5, 2)
    norms = draw.log_uniform(0.5, 2, size=length)
    refined = refine(norms, distance=distance)
    linear = decay(length, distance=distance, gradient_bound=bound)
    computed = [worst_case(refined["schedule"], norms, distance), worst_case(linear, np.full(length, bound), distance)]
    return computed, [refined["bound"], linear_decay_gap(distance, bound, length)], {"norms": norms, "distance": distance, "bound": bound}


def rate_of_strong_convexity(distance, gradient_bound, steps):
    return distance * gradient_bound / steps


@paper.trial(Rate(within=0.01), of=[linear_decay_gap, linear_decay], controls={"1/T": rate_of_strong_convexity}, quick=3, full=20)
def resisting_function(draw, claim):
    """On max(x_1..x_T), whose oracle shows a new coordinate each time, the gap of linear decay falls as claimed."""
    distance, bound = draw.log_uniform(0.1, 10), draw.log_uniform(0.1, 10)
    lengths, gaps = np.array([10, 30, 100, 300]), []
    for length in lengths:
        x = np.zeros(length)
        for rate in linear_decay(int(length), distance=distance, gradient_bound=bound)[:-1]:
            x[np.argmax(x)] -= rate * bound
        gaps.append((bound * x.max() + bound * distance / np.sqrt(length)) / (distance * bound))  # the least value within the distance has equal coordinates
    slope = np.log(claim(distance, bound, 300) / claim(distance, bound, 10)) / np.log(30)
    return lengths, gaps, slope


def smooth_refinement(steps, norms, distance, *, names):
    """Refinement with w = 1/G in place of 1/G^2."""
    rates = virtual_last(refined_schedule(norms, kind="l1")["schedule"])
    total, noise = score_parts(rates, norms)
    return compare_schedules(steps, norms, distance, names=names) | {"refined": {"bound": distance * np.sqrt(2 * noise / total)}}


@paper.trial(Identity(rtol=1e-9), of=[compare_schedules, refined_schedule], controls={"w = 1/G": smooth_refinement}, quick=15, full=300)
def searched_base_rate(draw, claim):
    """Best scores found by a search over base rates, with every sum of the score and of refinement written out."""
    from scipy.optimize import minimize_scalar

    length, distance, name = draw.integer(2, 30), draw.log_uniform(0.1, 10), draw.choice(NAMES)
    norms = draw.log_uniform(0.1, 10, size=length)
    t, weights = np.arange(length), norms**-2

    def searched(rates):
        s, q = [sum(rates[k:]) for k in t], [sum(rates[k:] ** 2 * norms[k:] ** 2) for k in t]
        noise = q[0] / (2 * s[0]) + 0.5 * sum(rates[k] / s[k + 1] * q[k] / s[k] for k in t[:-1])
        return minimize_scalar(lambda log: distance**2 / (2 * s[0] * np.exp(log)) + noise * np.exp(log), bracket=(-3, 3), tol=1e-9).fun

    refined = np.array([weights[i] * sum(weights[i + 1 :]) for i in t])
    refined[-1] = refined[-2]
    compared = claim(length, norms, distance, names=[name, "refined"])
    computed = [searched(refined), *([] if name == "refined" else [searched(shape(name, length, norms))])]
    claimed = [compared[key]["bound"] for key in dict.fromkeys(["refined", name])]
    # the median filter by hand: the start repeats its first value, the end is mirrored
    smoothing = draw.uniform(0, 0.5)
    half = int(smoothing * length / 2)
    window = np.arange(-half, half + 1) + t[:, None]
    mirrored = norms[np.where(window > length - 1, 2 * (length - 1) - window, np.maximum(window, 0))]
    by_hand = refined_schedule(np.median(mirrored, axis=1))["schedule"]
    return [*computed, *by_hand], [*claimed, *refined_schedule(norms, smoothing=smoothing)["schedule"]], {"norms": norms, "name": name}


@paper.finding(
    """The score for any schedule is loose: on linear decay it promises twice the true worst case D G / sqrt(T). It still ranks the common schedules: at T = 1000 linear
    (0.0634) before cosine (0.0652), warmup-stable-decay (0.0687) and constant (0.0921)."""
)
def score_is_loose_but_ranks():
    bounds = {name: entry["bound"] for name, entry in compare_schedules(1000, 1.0, 1.0, names=NAMES[:4]).items()}
    factors = {f"factor_{t}": compare_schedules(t, 1.0, 1.0, names=["linear"])["linear"]["bound"] * t**0.5 for t in (1000, 100_000)}
    ranked = sorted(bounds, key=bounds.get) == ["linear", "cosine", "wsd", "constant"]
    return {"holds": ranked and all(abs(f - 2) < 0.01 for f in factors.values()), **bounds, **factors}


@paper.finding("""The guarantee of refinement is no mere upper bound: where the norms are given in advance, some convex function attains it exactly, for every sequence tried.""")
def refinement_is_exact():
    norms = np.array([3.0, 1.0, 0.5, 2.0])
    refined = refined_schedule(norms, distance=1.0)
    worst = worst_case(refined["schedule"], norms)
    constant = worst_case(np.full(4, 0.5), np.ones(4))
    return {
        "holds": bool(abs(worst / refined["bound"] - 1) < 1e-4),
        "worst_case": float(worst),
        "bound": refined["bound"],
        "constant_rate": float(constant),
        "linear_decay": float(linear_decay_gap(1, 1, 4)),
    }
