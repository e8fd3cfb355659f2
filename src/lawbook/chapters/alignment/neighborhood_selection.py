"""Asking for neighbouring preferences and keeping the best answer for the wanted one: the procedure, what it gains over as many plain samples, and when it must."""

import math

import numpy as np

from lawbook.contract import Paper, count, flag, matrix, positive, real, record, seed, vector
from lawbook.trials import Distribution, Estimate, Guarantee, Identity, Inequality, Sample

paper = Paper(
    __name__,
    title="Robust Preference Alignment via Directional Neighborhood Consensus",
    arxiv="2510.20498",
    tags=["preference", "alignment", "multi-objective", "steering", "best-of-n", "inference", "test-time compute"],
    source="derived",
    says="""A preference is a direction in the space of rewards. Where the wanted one was rare in training, a model may serve it better when asked for directions close by: one
    answer for each of k neighbours, of which the best for the wanted direction is kept. Against k samples from the wanted direction this gains exactly where the neighbours'
    scores multiply to a smaller distribution function, and it loses where the neighbours are worse.""",
    notes="""The procedure follows public summaries; the condition for a gain is derived here. As log F is concave, neighbours of equal spread whose means are on average at least
    the target's satisfy it; a larger spread pays even at equal means. Samples are taken as independent. The official code was not at hand.""",
)

SPREADS = vector("k", of=positive(typical=(0.3, 2)), doc="standard deviation of the target score of an answer from each direction", example=[1.0, 1.0, 1.0])


def unit(v):
    v = np.asarray(v, float)
    v = v / np.abs(v).max()
    return v / np.linalg.norm(v)


NOT_ZERO = {"target must not be zero: it has no direction": lambda target: np.any(np.asarray(target) != 0)}


@paper.algorithm(r"v_i = v \cos a_i + w_i \sin a_i,\quad w_i \perp v,\ |a_i| \le a_{\max}", requires=NOT_ZERO)
def neighbor_directions(
    target: vector("d", least=2, doc="wanted weights of the rewards; only the direction counts", example=[0.8, 0.6]),
    count: count("directions", typical=(1, 32), example=5),
    max_angle: positive("rad", high=math.pi, typical=(0.05, 0.8), doc="largest angle to the target", example=0.35),
    seed: seed() = 0,
) -> matrix("count", "d", of=real(low=-1 - 1e-12, high=1 + 1e-12)):
    """Unit directions around a target: evenly spread angles in the plane, random ones with uniform angle in more dimensions."""
    v = unit(target)
    if len(v) == 2:
        angles = np.linspace(-max_angle, max_angle, count) if count > 1 else np.zeros(1)
        return np.outer(np.cos(angles), v) + np.outer(np.sin(angles), [-v[1], v[0]])
    rng = np.random.default_rng(seed)
    tangents = rng.normal(size=(count, len(v)))
    tangents -= np.outer(tangents @ v, v)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    angles = rng.uniform(0, max_angle, size=(count, 1))
    return np.cos(angles) * v + np.sin(angles) * tangents


@paper.algorithm(r"i^* = \arg\max_i\ v \cdot r_i", requires=NOT_ZERO)
def select_response(
    reward_vectors: matrix("k", "d", doc="rewards of each answer", example=[[0.9, 0.1], [0.6, 0.7], [0.2, 0.9]]), target: vector("d", doc="wanted direction", example=[0.8, 0.6])
) -> record(index=count("responses", low=0, doc="from 0; the first of equals"), score=real(doc="along the unit target")):
    """The answer that is best for the wanted direction, whatever direction it was asked for."""
    scores = np.asarray(reward_vectors, float) @ unit(target)
    best = int(np.argmax(scores))
    return {"index": best, "score": float(scores[best])}


@paper.law(
    r"E \max_i X_i = \int_0^\infty \Bigl(1 - \prod_i F_i(t)\Bigr) dt - \int_{-\infty}^0 \prod_i F_i(t)\, dt",
    assumes=["Scores are independent and normal."],
    gives=0.8463,
)
def expected_best(means: vector("k", of=real(typical=(-1, 1)), doc="mean target score of an answer from each direction", example=[0.0, 0.0, 0.0]), spreads: SPREADS) -> real():
    """Expected largest of independent normal scores."""
    from scipy.special import log_ndtr

    m, s = np.asarray(means, float), np.asarray(spreads, float)
    centre, scale = m.max(), s.max()
    laws, times = np.unique(np.stack([(m - centre) / scale, s / scale], axis=1), axis=0, return_counts=True)
    m, s = laws.T
    # between these edges every factor is 0, 1 or a smooth step, so that Gauss's rule is exact to rounding; beyond them the product is 0 or 1
    edges = np.unique(np.clip(np.append(m + np.outer(np.arange(-12, 13, 4), s), 0.0), np.max(m - 12 * s), None))
    nodes, weights = np.polynomial.legendre.leggauss(32)
    half = np.diff(edges)[:, None] / 2
    t = edges[:-1, None] + half * (1 + nodes)
    log_product = sum(k * log_ndtr((t - a) / b) for a, b, k in zip(m, s, times, strict=True))
    return float(centre + scale * np.sum(half * np.where(t > 0, -np.expm1(log_product), -np.exp(log_product)) * weights))


@paper.bound(
    r"E \max_i Y_i - E \max_i Y^0_i = \int \Bigl(F_0^k - \prod_i F_i\Bigr) dt \ \ge 0 \quad \text{if } \tfrac{1}{k} \sum_i \log F_i \le \log F_0",
    assumes=["Scores are independent and normal; the same number k of answers is drawn either way."],
)
def neighborhood_gain(
    target_mean: real(typical=(-1, 1), doc="mean score of an answer from the wanted direction itself", example=0.0),
    target_spread: positive(typical=(0.3, 2), doc="its standard deviation", example=1.0),
    means: vector("k", of=real(typical=(-1, 1)), doc="mean target score of an answer from each neighbour", example=[0.1, 0.2, 0.1]),
    spreads: SPREADS,
) -> record(gain=real(doc="expected score gained over k plain samples"), dominates=flag(doc="the condition under which there must be a gain holds, at 2001 points")):
    """What neighbours gain over as many samples from the wanted direction, and whether that follows from their distribution functions at every level."""
    from scipy.special import log_ndtr

    m, s = np.asarray(means, float), np.asarray(spreads, float)
    k = len(m)
    gain = expected_best(m, s) - expected_best(np.full(k, target_mean), np.full(k, target_spread))
    all_m, all_s = np.append(m, target_mean), np.append(s, target_spread)
    t = np.linspace(np.min(all_m - 12 * all_s), np.max(all_m + 12 * all_s), 2001)
    own = log_ndtr((t - target_mean) / target_spread)
    others = sum(log_ndtr((t - a) / b) for a, b in zip(m, s, strict=True)) / k
    return {"gain": gain, "dominates": bool(np.all(others <= own + 1e-12 * (1 + np.abs(own))))}


def half_angle(target, count, max_angle, seed=0):
    return neighbor_directions(target, count, 2 * max_angle, seed)


def longest_response(reward_vectors, target):
    best = int(np.argmax(np.linalg.norm(reward_vectors, axis=1)))
    return {"index": best, "score": float(reward_vectors[best] @ target)}


@paper.trial(
    Guarantee(rtol=1e-9, atol=1e-12),
    of=[neighbor_directions, select_response],
    claim=(neighbor_directions, select_response),
    controls={"twice the angle": (half_angle, select_response), "the longest reward vector": (neighbor_directions, longest_response)},
    quick=200,
    full=10_000,
)
def near_and_best(draw, claim):
    """Directions are of unit length and within the angle, so that scores differ by at most 2 L sin(angle / 2); no answer beats the selected one."""
    d, k, angle = draw.integer(2, 6), draw.integer(1, 12), draw.uniform(0.01, 1.5)
    v = draw.normal(size=d)
    directions, select = claim
    found, unit_v = directions(v, k, angle, seed=draw.integer(0, 10**6)), v / np.linalg.norm(v)
    rewards = draw.rng.normal(size=(k, d))
    told, scores = select(rewards, v), rewards @ unit_v
    lengths, far = np.linalg.norm(found, axis=1), np.arccos(np.clip(found @ unit_v, -1, 1))
    slack = np.abs(rewards @ unit_v - np.sum(rewards * found, axis=1)) / np.linalg.norm(rewards, axis=1)
    worse = [scores.max(), told["score"]]
    return [*lengths, *-lengths, *far, *slack, *worse], [*[1.0] * k, *[-1.0] * k, *[angle + 1e-7] * k, *[2 * math.sin(angle / 2)] * k, told["score"], scores[told["index"]]]


def even_on_the_cap(target, count, max_angle, seed=0):
    """Directions with even density on the cap instead of even angles, in three dimensions."""
    rng = np.random.default_rng(seed)
    cosines, turns = rng.uniform(math.cos(max_angle), 1, count), rng.uniform(0, 2 * math.pi, count)
    around = np.linalg.svd(np.atleast_2d(target))[2][1:]
    return np.outer(cosines, target) + np.sqrt(1 - cosines[:, None] ** 2) * (np.stack([np.cos(turns), np.sin(turns)], 1) @ around)


@paper.trial(Distribution(), of=[neighbor_directions], controls={"even on the cap": even_on_the_cap}, quick=2000, full=200_000)
def angles_are_uniform(draw, claim):
    """In three dimensions the angles to the target are uniform up to the largest, and so are the turns around it."""
    v = unit(draw.normal(size=3))
    found = claim(v, draw.size, 0.6, seed=draw.integer(0, 10**6))
    around = np.linalg.svd(v[None])[2][1:] @ found.T
    return {"angle": Sample(np.arccos(found @ v) / 0.6, cdf="uniform"), "turn": Sample(np.arctan2(*around) / (2 * math.pi) + 0.5, cdf="uniform")}


def best_mean(means, spreads):
    return max(means)


def common_spread(means, spreads):
    return expected_best(means, np.full(len(spreads), np.mean(spreads)))


@paper.trial(Identity(rtol=1e-9, atol=1e-10), of=[expected_best], controls={"the best mean": best_mean, "one spread for all": common_spread}, quick=8, full=25)
def largest_of_normals(draw, claim, effort):
    """The quadrature agrees with simulation, with the closed form for two normals, and with those for 3, 4 and 5 standard ones."""
    from scipy.stats import norm

    k = draw.integer(2, 8)
    m, s = draw.normal(0, 2, size=k), draw.log_uniform(0.01, 5, k)
    simulated = Estimate.of(np.concatenate([(m + s * draw.rng.normal(size=(100_000, k))).max(1) for _ in range(1 if effort == "quick" else 20)]))
    theta = math.hypot(s[0], s[1])
    delta = (m[0] - m[1]) / theta
    two = m[0] * norm.cdf(delta) + m[1] * norm.cdf(-delta) + theta * norm.pdf(delta)
    root = math.sqrt(math.pi)
    standard = [1.5 / root, 6 * math.atan(math.sqrt(2)) / root**3, 1.25 / root + 7.5 * math.asin(1 / 3) / root**3]
    claimed = [claim(m, s), claim(m[:2], s[:2]), *(claim(np.zeros(j), np.ones(j)) for j in (3, 4, 5))]
    return Estimate([simulated.value, two, *standard], [simulated.error, *[0.0] * 4]), claimed, {"means": m, "spreads": s}


def difference_of_means(target_mean, target_spread, means, spreads):
    return {"gain": float(np.mean(means) - target_mean)}


@paper.trial(Identity(rtol=1e-6, atol=1e-7), of=[neighborhood_gain], controls={"difference of the means": difference_of_means}, quick=25, full=1000)
def integrated(draw, claim):
    """The gain is the integral of F_0^k minus the product of the F_i, the shift of all means where spreads are equal, and (s - s_0) c_k where means are."""
    from scipy.stats import norm

    k, mean, spread, shift = draw.integer(2, 6), draw.normal(), draw.log_uniform(0.3, 2), draw.normal(0, 0.5)
    m, s = mean + draw.normal(0, 0.5, size=k), draw.log_uniform(0.3, 2, k)
    t, step = np.linspace(-30, 30, 12_001, retstep=True)
    integral = step * np.sum(norm.cdf(t, mean, spread) ** k - np.prod([norm.cdf(t, a, b) for a, b in zip(m, s, strict=True)], axis=0))
    scaled = (s[0] - spread) * (math.sqrt(1 / math.pi), 1.5 / math.sqrt(math.pi))[k > 2]
    few = min(k, 3)
    pairs = [(m, s), (np.full(k, mean + shift), np.full(k, spread)), (np.full(few, mean), np.full(few, s[0]))]
    return [integral, shift, scaled], [claim(mean, spread, a, b)["gain"] for a, b in pairs], {"mean": mean, "spread": spread, "means": m, "spreads": s}


def always_superior(target_mean, target_spread, means, spreads):
    return neighborhood_gain(target_mean, target_spread, means, spreads) | {"dominates": True}


@paper.trial(Inequality(), of=[neighborhood_gain], controls={"superior whatever the neighbours": always_superior}, quick=120, full=1000)
def domination_pays(draw, claim):
    """Where the condition on the distribution functions holds there is no loss; equal spreads and means on average no worse are enough for it."""
    k, equal = draw.integer(1, 6), draw.choice([False, True])
    m, s = draw.normal(0.1, 0.3, size=k), np.ones(k) if equal else draw.log_uniform(0.5, 2, k)
    told = claim(0.0, 1.0, m, s)
    enough = bool(equal and m.mean() >= 0)
    return [-told["gain"] if told["dominates"] else 0.0, float(enough)], [1e-9, float(told["dominates"] or not enough)], {"means": m, "spreads": s, **told}


@paper.finding(
    """Neighbours are not superior without an assumption on them: with scores .1 lower on average and as spread as the target's, any number of them loses exactly .1 to as many
    samples from the wanted direction itself.""",
    trial=domination_pays,
)
def worse_neighbours_lose():
    told = [neighborhood_gain(0.0, 1.0, np.full(k, -0.1), np.ones(k)) for k in (1, 4, 16)]
    return {"holds": all(abs(t["gain"] + 0.1) < 1e-9 and not t["dominates"] for t in told), **{f"gain_{k}": t["gain"] for k, t in zip((1, 4, 16), told, strict=True)}}
