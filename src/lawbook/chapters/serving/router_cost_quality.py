"""Routing between models: the frontier of cost and quality, its area, and routers that try models in turn or trade predicted quality for cost."""

import numpy as np

from lawbook.contract import DomainError, Paper, choice, count, either, matrix, nonnegative, probability, real, record, seed, vector
from lawbook.trials import Estimate, Identity, Inequality

paper = Paper(
    __name__,
    title="RouterBench: A Benchmark for Multi-LLM Routing System",
    arxiv="2403.12031",
    tags=["routing", "serving", "inference cost", "cascade", "pareto frontier", "convex hull", "model selection"],
    source="code",
    says="""A model or a router is a point of expected cost and quality. Tossing a coin between two of them reaches all points between, so what can be had is the non-decreasing
    concave hull of the points. A router is worth its name only above the hull of the single models, and its overall value is the area under its own. Cascades, routers by
    predicted score, and the oracle that knows all scores make such points from a table of prompts and models.""",
    notes="""The released code divides the area by the largest cost and not by the range of costs that it integrates over; both are offered. Areas compare routers on one range of
    costs only, which router_value sees to. Equal costs keep the best quality.""",
)

COSTS = vector("m", of=nonnegative(typical=(0.1, 10)), doc="mean cost of each point", example=[1.0, 2.0, 3.0, 5.0])
QUALITIES = vector("m", of=probability(), doc="mean quality of each point", example=[0.5, 0.7, 0.6, 0.8])
TABLE_COSTS = either(
    vector("models", of=nonnegative(typical=(0.1, 10)), doc="cost of a prompt for each model", example=[1.0, 4.0]),
    matrix("prompts", "models", of=nonnegative(typical=(0.1, 10)), doc="cost of each prompt for each model"),
)
SCORES = matrix("prompts", "models", of=probability(), doc="score of each model's answer", example=[[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
POINT = record(cost=nonnegative(), quality=probability())


@paper.measure(r"\tilde R(c) = \max\left\{\sum_i w_i q_i : \sum_i w_i c_i \le c,\ w \in \Delta\right\}")
def cost_quality_hull(costs: COSTS, qualities: QUALITIES) -> record(
    costs=vector("h", of=nonnegative()), qualities=vector("h", of=probability()), indices=vector("h", of=count(low=0), doc="of these points in the input")
):
    """Corner points of the best quality at each cost, from the cheapest point to the best one; points on a line between others are left out."""
    c, q = np.asarray(costs, float), np.asarray(qualities, float)
    order = np.lexsort((-q, c))
    best = np.maximum.accumulate(q[order])
    order = order[np.append(True, best[1:] > best[:-1])]  # only points better than all cheaper ones can be corners
    hull = []
    for i in order.tolist():
        while len(hull) > 1:
            a, b = hull[-2:]
            left, right = (q[b] - q[a]) * (c[i] - c[a]), (q[i] - q[a]) * (c[b] - c[a])
            if left > right * (1 + 1e-12):
                break
            hull.pop()
        hull.append(i)
    return {"costs": c[hull], "qualities": q[hull], "indices": np.array(hull)}


def frontier(hull, budgets):
    """Quality of a hull at budgets; the last corner's beyond it."""
    return np.interp(budgets, hull["costs"], hull["qualities"])


@paper.measure(r"\tilde R(c) = t\, q_a + (1-t)\, q_b,\quad t\, c_a + (1-t)\, c_b = c")
def quality_at_budget(costs: COSTS, qualities: QUALITIES, budget: nonnegative(typical=(0.1, 12), doc="expected cost that may be spent", example=3.5)) -> record(
    quality=probability(), indices=vector("mixed", of=count(low=0), doc="of one or two points in the input"), weights=vector("mixed", of=probability())
):
    """Best quality for an expected cost, and the points to choose from at random, with their probabilities."""
    hull = cost_quality_hull(costs, qualities)
    corners, cheapest = hull["costs"], float(hull["costs"][0])
    if budget < cheapest * (1 - 1e-12):
        raise DomainError(f"budget must be at least the cost of the cheapest point, {cheapest:.6g}; it was {budget:.6g}.")
    i = int(np.searchsorted(corners, budget, side="right"))
    if i == 0 or i == len(corners) or budget == corners[i - 1]:
        at = max(i - 1, 0)
        return {"quality": float(hull["qualities"][at]), "indices": hull["indices"][[at]], "weights": np.ones(1)}
    weight = float((budget - corners[i - 1]) / (corners[i] - corners[i - 1]))
    return {"quality": float(frontier(hull, budget)), "indices": hull["indices"][i - 1 : i + 1], "weights": np.array([1 - weight, weight])}


def mean_height(hull, low, high):
    """Mean of a hull over a range of costs; its value where the range is a point."""
    if high <= low:
        return float(frontier(hull, low))
    knots = np.concatenate([[low], hull["costs"][(hull["costs"] > low) & (hull["costs"] < high)], [high]])
    return float(np.trapezoid(frontier(hull, knots), knots) / (high - low))


@paper.measure(r"\mathrm{AIQ} = \frac{1}{c_{max} - c_{min}} \int_{c_{min}}^{c_{max}} \tilde R(c)\, dc")
def average_improvement_in_quality(
    costs: COSTS,
    qualities: QUALITIES,
    *,
    low: nonnegative(typical=(1, 5), doc="start of the range of costs; the cheapest point where not given") = None,
    high: nonnegative(typical=(5, 20), doc="end of the range; the last corner where not given") = None,
    normalize: choice("range", "max", doc="divide by high - low, or by high as the released code does") = "range",
) -> probability():
    """Mean quality of the frontier over a range of costs; give the same range to compare routers."""
    hull = cost_quality_hull(costs, qualities)
    cheapest, last = float(hull["costs"][0]), float(hull["costs"][-1])
    low, high = cheapest if low is None else low, last if high is None else high
    if low < cheapest * (1 - 1e-12) or high < low:
        raise DomainError(f"low must be at least the cost of the cheapest point, {cheapest:.6g}, and at most high; low was {low:.6g} and high {high:.6g}.")
    if normalize == "max":
        if high == 0:
            raise DomainError("high must be above 0 to divide by it; it was 0.")
        return min(mean_height(hull, low, high) * (high - low) / high, 1.0)
    return min(mean_height(hull, low, high), 1.0)


def filled(costs, scores):
    """Costs as a matrix of the shape of the scores."""
    return np.broadcast_to(np.asarray(costs, float), np.shape(scores))


@paper.algorithm(r"\text{by rising cost, until } s_m(x) \ge \tau \text{ or the next model would exceed the cap}")
def cascade(
    costs: TABLE_COSTS,
    scores: SCORES,
    *,
    threshold: probability(doc="score from which on an answer is kept", example=0.5) = 0.5,
    judge_error: probability(doc="probability that the judge's verdict is the wrong one") = 0.0,
    seed: seed() = 0,
    cap: nonnegative(typical=(0.1, 20), doc="most that may be spent on a prompt") = None,
) -> POINT:
    """Mean cost and quality of trying models from the cheapest on until an answer passes; the last answer counts, and none where the cap allows no model."""
    costs, scores = filled(costs, scores), np.asarray(scores, float)
    order = np.argsort(costs.mean(0), kind="stable")
    spent, scores = np.cumsum(costs[:, order], axis=1), scores[:, order]
    passes = (scores >= threshold) ^ (np.random.default_rng(seed).uniform(size=scores.shape) < judge_error)
    allowed = (spent <= (np.inf if cap is None else cap)).sum(1)  # models that fit under the cap: the first ones
    stop = np.where(passes.any(1), passes.argmax(1), scores.shape[1] - 1)
    last = np.minimum(stop, allowed - 1)
    rows, tried = np.arange(len(scores)), allowed > 0
    return {"cost": float(np.mean(np.where(tried, spent[rows, last], 0))), "quality": float(np.mean(np.where(tried, scores[rows, last], 0)))}


@paper.measure(r"\frac1n \sum_x \max_m s_m(x),\quad \text{at the cheapest } m \text{ that attains it}", gives={"cost": 2.0})
def oracle_router(costs: TABLE_COSTS, scores: SCORES) -> POINT:
    """Mean cost and quality of the cheapest best answer to each prompt: no router has more quality, and none as much at less cost."""
    scores = np.asarray(scores, float)
    best = scores.max(1)
    return {"cost": float(np.mean(np.where(scores == best[:, None], filled(costs, scores), np.inf).min(1))), "quality": float(best.mean())}


def route(costs, predicted, scores, willingness):
    """(cost, quality) of choosing the model of the largest willingness * prediction - cost; of equal ones the cheapest, then the first."""
    value = willingness * predicted - costs
    chosen = np.where(value == value.max(1, keepdims=True), costs, np.inf).argmin(1)[:, None]
    return np.take_along_axis(costs, chosen, 1).mean(), np.take_along_axis(scores, chosen, 1).mean()


@paper.algorithm(r"m(x) = \arg\max_m \left[w\, \hat s_m(x) - c_m(x)\right]")
def score_router(
    costs: TABLE_COSTS,
    predicted: matrix("prompts", "models", of=real(typical=(0, 1)), doc="predicted score of each model", example=[[0.9, 0.9], [0.2, 0.8], [0.3, 0.4]]),
    scores: SCORES,
    willingness: vector("weights", of=nonnegative(typical=(0, 20)), doc="w: cost that one unit of quality is worth", example=[0.0, 6.0, 40.0]),
) -> record(costs=vector("weights", of=nonnegative()), qualities=vector("weights", of=probability()), aiq=probability()):
    """Cost and quality of routing by predicted score for each willingness to pay, and the area under their frontier."""
    table, guess, truth = filled(costs, scores), np.asarray(predicted, float), np.asarray(scores, float)
    points = np.array([route(table, guess, truth, w) for w in np.asarray(willingness, float)])
    return {"costs": points[:, 0], "qualities": points[:, 1], "aiq": average_improvement_in_quality(points[:, 0], points[:, 1])}


def predicted_by_neighbours(embeddings, scores, queries, neighbours=10):
    """Scores of each model for queries (rows of embeddings), as the mean over the nearest prompts whose scores are known."""
    from scipy.spatial import KDTree

    _, nearest = KDTree(embeddings).query(queries, np.arange(1, min(neighbours, len(embeddings)) + 1))
    return scores[nearest].mean(1)


@paper.measure(r"\mathrm{AIQ}_{router} - \mathrm{AIQ}_{models},\quad \max_c\, [\tilde R_{router}(c) - \tilde R_{models}(c)]")
def router_value(
    router_costs: vector("points", of=nonnegative(typical=(0.1, 10)), example=[1.0, 2.5]),
    router_qualities: vector("points", of=probability(), example=[0.6, 0.85]),
    model_costs: vector("models", of=nonnegative(typical=(0.1, 10)), example=[1.0, 4.0]),
    model_qualities: vector("models", of=probability(), example=[0.5, 0.8]),
) -> record(aiq_router=probability(), aiq_zero=probability(), gain=real(low=-1, high=1), best_gap=real(low=-1, high=1)):
    """What a router adds to mixing its models blindly: areas over the range of costs that both reach, and the largest difference on it."""
    router, models = cost_quality_hull(router_costs, router_qualities), cost_quality_hull(model_costs, model_qualities)
    low, high = (max(router["costs"][end], models["costs"][end]) for end in (0, -1))
    mine, zero = (min(mean_height(hull, low, high), 1.0) for hull in (router, models))
    knots = np.concatenate([[low, high], *(hull["costs"][(hull["costs"] >= low) & (hull["costs"] <= high)] for hull in (router, models))])
    return {"aiq_router": mine, "aiq_zero": zero, "gain": mine - zero, "best_gap": float(np.max(frontier(router, knots) - frontier(models, knots)))}


def joined_in_order_of_cost(costs, qualities, budget):
    order = np.argsort(costs)
    return {"quality": float(np.interp(budget, costs[order], np.maximum.accumulate(qualities[order])))}


def over_its_own_range(costs, qualities, *, low, high):
    return average_improvement_in_quality(costs, qualities)


CLAIM = (quality_at_budget, average_improvement_in_quality)


@paper.trial(
    Identity(rtol=1e-9, atol=1e-12),
    of=[cost_quality_hull, quality_at_budget, average_improvement_in_quality, router_value],
    claim=CLAIM,
    controls={
        "points joined in order of cost": (joined_in_order_of_cost, CLAIM[1]),
        "each router over its own range": (CLAIM[0], over_its_own_range),
    },
    quick=15,
    full=300,
)
def all_pairs(draw, claim):
    """The frontier is the best mixture of two points at each budget, over all pairs; its areas, and what a router adds, are sums over such budgets."""
    at_budget, area = claim
    sets = [(np.round(draw.rng.uniform(0.5, 10, size=n), 1), np.round(draw.rng.uniform(size=n), 2)) for n in (draw.integer(1, 8), draw.integer(2, 8))]
    low, high = max(c.min() for c, _ in sets), max(c.max() for c, _ in sets) + 1
    grid = np.append(np.arange(low, high, 0.1), high)  # costs are tenths, so that all corners are on it

    def best_of_pairs(costs, qualities, budget):
        near, far = np.meshgrid(np.arange(len(costs)), np.arange(len(costs)))
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = np.where(costs[near] <= budget + 1e-9, np.where(costs[far] <= budget + 1e-9, 0.0, (costs[far] - budget) / (costs[far] - costs[near])), np.nan)
        return np.nanmax(weight * qualities[near] + (1 - weight) * qualities[far])

    heights = np.array([[best_of_pairs(*points, budget) for budget in grid] for points in sets])
    areas = np.trapezoid(heights, grid) / (high - low)
    common = grid <= max(cost_quality_hull(*points)["costs"][-1] for points in sets) + 1e-9
    value, budget = router_value(*sets[0], *sets[1]), draw.integer(0, len(grid) - 1)
    computed = [*areas, heights[1, budget], np.max((heights[0] - heights[1])[common])]
    found = [*(area(*points, low=low, high=high) for points in sets), at_budget(*sets[1], max(grid[budget], low))["quality"], value["best_gap"]]
    return computed, found, {"budget": grid[budget]}


def population(rng, prompts, models=4):
    """Prompts of a difficulty between 0 and 1 and models of growing skill and cost, right with probability sigmoid(8 (skill - difficulty))."""
    skill, difficulty = np.sort(rng.uniform(0.1, 1, size=models)), rng.uniform(size=prompts)
    costs = np.exp(3 * skill) * rng.uniform(0.8, 1.2, size=(prompts, models))
    chance = 1 / (1 + np.exp(-8 * (skill - difficulty[:, None])))
    return costs, (rng.uniform(size=chance.shape) < chance).astype(float), difficulty[:, None]


def seeks_the_worst(costs, predicted, scores, willingness):
    return score_router(costs, -predicted, scores, willingness)


@paper.trial(
    Inequality(search=0, atol=1e-12),
    of=[score_router, oracle_router, cascade, quality_at_budget],
    claim=score_router,
    controls={"router that seeks the worst": seeks_the_worst},
    quick=20,
    full=500,
)
def between_models_and_oracle(draw, router):
    """Knowing the scores, a score router lies above every blind mixture of its models; nothing passes the oracle; mixtures of many points stay below the frontier."""
    costs, scores, difficulty = population(draw.rng, 300)
    guess = predicted_by_neighbours(difficulty[200:], scores[200:], difficulty[:200])
    costs, scores = costs[:200], scores[:200]
    oracle, blind, willing = oracle_router(costs, scores), (costs.mean(0), scores.mean(0)), np.geomspace(0.1, 1e4, 25)
    told, guessed = router(costs, scores, scores, willing), score_router(costs, guess, scores, willing)
    tried = cascade(costs, scores, threshold=0.5)
    best = [quality_at_budget(*blind, cost)["quality"] if cost >= blind[0].min() else 0.0 for cost in told["costs"]]
    weights = draw.rng.dirichlet(np.full(4, 0.5))
    mixed = quality_at_budget(*blind, float(weights @ blind[0]))["quality"]
    smaller = [*best, *told["qualities"], *guessed["qualities"], tried["quality"], weights @ blind[1], oracle["cost"]]
    larger = [*told["qualities"], *np.full(51, oracle["quality"]), mixed, told["costs"][-1]]
    return smaller, larger, {"oracle": oracle["quality"], "models": blind[1]}


def cap_ignored(costs, scores, *, cap, **options):
    return cascade(costs, scores, **options)


@paper.trial(Identity(rtol=0, atol=1e-12), of=[cascade, oracle_router, quality_at_budget], controls={"cap ignored": cap_ignored}, quick=20, full=300)
def prompt_by_prompt(draw, cascade_):
    """Cascades and the oracle, walked through prompt by prompt, and a coin tossed at each prompt, cost and score what is said."""
    costs, scores, _ = population(draw.rng, 300)
    cap, error, order = draw.log_uniform(1, 40), draw.choice([0.0, 1.0]), np.argsort(costs.mean(0))
    walked, best = np.zeros((len(scores), 2)), np.zeros((len(scores), 2))
    for x, (price, score) in enumerate(zip(costs, scores, strict=True)):
        for m in order:
            if walked[x, 0] + price[m] > cap:
                break
            walked[x] = walked[x, 0] + price[m], score[m]
            if (score[m] >= 0.5) != bool(error):
                break
        best[x] = min((-s, c) for s, c in zip(score, price, strict=True))[::-1]
    means = costs.mean(0), scores.mean(0)
    mix = quality_at_budget(*means, draw.uniform(means[0].min(), means[0].max()))
    tossed = Estimate.of(scores[np.arange(len(scores)), draw.rng.choice(mix["indices"], p=mix["weights"], size=len(scores))])
    told, oracle = cascade_(costs, scores, threshold=0.5, judge_error=error, cap=cap), oracle_router(costs, scores)
    computed = Estimate([*walked.mean(0), best[:, 0].mean(), -best[:, 1].mean(), tossed.value], [0, 0, 0, 0, tossed.error])
    return computed, [told["cost"], told["quality"], oracle["cost"], oracle["quality"], mix["quality"]], {"cap": cap}


@paper.finding(
    """Areas over each router's own range of costs rank routers wrongly: by them (1, .5), (2, .9) is worth .700 and (1, .75), (10, .8) .775; on their common range of 1 to 10 the
    first wins by .878 to .775. The released code takes the common end, but divides by it and not by the range, which shows the same routers as .790 and .698."""
)
def range_decides():
    first, second = ([1.0, 2.0], [0.5, 0.9]), ([1.0, 10.0], [0.75, 0.8])
    own = [average_improvement_in_quality(*points) for points in (first, second)]
    common = [average_improvement_in_quality(*points, low=1.0, high=10.0) for points in (first, second)]
    released = [average_improvement_in_quality(*points, low=1.0, high=10.0, normalize="max") for points in (first, second)]
    holds = np.allclose([own, common, released], [[0.7, 0.775], [0.878, 0.775], [0.79, 0.698]], atol=6e-4)
    return {"holds": bool(holds), "own_range": own, "common_range": common, "released_code": released}
