"""How alike the benchmark curves of a small and a large training run are, and by how many tokens they are shifted against each other."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, count, nonnegative, positive, real, record, vector
from lawbook.trials import Estimate, Guarantee, Identity

paper = Paper(
    __name__,
    title="The Fine Line: Navigating Large Language Model Pretraining with Down-streaming Capability Analysis",
    arxiv="2404.01204",
    tags=["checkpoints", "benchmark", "training dynamics", "pretraining", "trajectory", "scaling"],
    source="none",
    says="""A comparison of intermediate checkpoints of models up to 67B parameters on many benchmarks: some downstream scores follow similar trajectories at every
    model size, and the training loss alone does not tell where a run stands. The paper states no formula. What runs here is a diagnostic of our own: how well the curve
    of one run, moved along the axis of log tokens, lies on that of another, which says whether a benchmark of a small run foretells the large one.""",
    notes="""Only the abstract was seen. Curves are compared in shape: each is scaled to its own range, so levels do not count. A shift is tried only where the moved
    curves share at least half of the shorter one, because a short overlap matches by chance.""",
)

STEP, FARTHEST = 0.01, math.log(30)
TOKENS = positive("tokens", typical=(1e9, 1e13))
SCORE = real(typical=(0, 1))


def saturating(tokens, half=1e11):
    """A smooth benchmark curve from chance to mastery."""
    return 0.25 + 0.5 / (1 + (half / np.asarray(tokens)) ** 1.5)


def random_curves(rng):
    """Two saturating curves with scatter over overlapping ranges of tokens."""
    tokens = [np.sort(10 ** rng.uniform(9.5, 12.5, rng.integers(6, 30))) for _ in range(2)]
    scores = [saturating(t, 10 ** rng.uniform(10.5, 11.5)) + 0.01 * rng.normal(size=len(t)) for t in tokens]
    return {"tokens_a": tokens[0], "scores_a": scores[0], "tokens_b": tokens[1], "scores_b": scores[1], "points": int(rng.integers(10, 100))}


def increments(points, x, y, low, high):
    """Steps of the curve between equally spaced points, without the last digits, so that equal steps tie."""
    return np.round(np.diff(np.interp(np.linspace(low, high, points), x, y)), 9)


@paper.measure(
    r"\min_s \operatorname{rms}_x\, |\bar a(x) - \bar b(x + s)|,\quad x = \ln \text{tokens}",
    requires={
        "scores_a must not all be equal": lambda scores_a: np.ptp(scores_a) > 0,
        "scores_b must not all be equal": lambda scores_b: np.ptp(scores_b) > 0,
    },
    sample=random_curves,
)
def trajectory_similarity(
    tokens_a: vector("m", of=TOKENS, least=5, order="increasing", example=np.geomspace(1e10, 1e12, 12)),
    scores_a: vector("m", of=SCORE, least=5, doc="scores of the checkpoints", example=saturating(np.geomspace(1e10, 1e12, 12)).round(3)),
    tokens_b: vector("n", of=TOKENS, least=5, order="increasing", example=np.geomspace(1e10, 2e12, 15)),
    scores_b: vector("n", of=SCORE, least=5, doc="scores of the checkpoints", example=saturating(np.geomspace(1e10, 2e12, 15), 5e10).round(3)),
    *,
    points: count(low=5, high=10_000, typical=(20, 200), doc="compared on the overlap") = 50,
) -> record(
    spearman=real(low=-1, high=1, nan=True, doc="rank correlation of the two runs' gains at equal tokens; NaN where their ranges do not overlap or one gains evenly"),
    shape_distance=nonnegative(high=1, doc="root mean square distance of the scaled curves at the best shift"),
    horizontal_scale=positive(doc="tokens that b needs for each token of a to stand at the same level"),
):
    """How alike two benchmark curves are in shape, and the factor in tokens between them, up to 30 either way."""
    (x, a), (z, b) = ((np.log(t), (s - np.min(s)) / np.ptp(s)) for t, s in ((tokens_a, np.asarray(scores_a, float)), (tokens_b, np.asarray(scores_b, float))))
    steps = int(FARTHEST / STEP)
    shift = STEP * np.arange(-steps, steps + 1)
    low, high = np.maximum(x[0], z[0] - shift), np.minimum(x[-1], z[-1] - shift)
    shift = shift[(high - low) >= 0.5 * min(x[-1] - x[0], z[-1] - z[0])]
    if not len(shift):
        raise DomainError("tokens_a and tokens_b must share half of the shorter range once one is multiplied by at most 30; they are farther apart.")
    low, high = np.maximum(x[0], z[0] - shift), np.minimum(x[-1], z[-1] - shift)
    grid = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, points)
    distance = np.sqrt(np.mean((np.interp(grid, x, a) - np.interp(grid + shift[:, None], z, b)) ** 2, axis=1))
    best = np.lexsort((np.abs(shift), distance))[0]  # of equal distances the least shift
    first, last = max(x[0], z[0]), min(x[-1], z[-1])
    correlation = math.nan
    if first < last:
        from scipy.stats import rankdata

        ranks = [rankdata(increments(points, *curve, first, last)) for curve in ((x, a), (z, b))]
        if min(map(np.ptp, ranks)) > 0:
            correlation = float(np.clip(np.corrcoef(ranks)[0, 1], -1, 1))
    return {"spearman": correlation, "shape_distance": float(distance[best]), "horizontal_scale": math.exp(shift[best])}


def random_curve(draw):
    """Tokens and scores of a curve that rises unevenly; no part of it repeats another."""
    n = draw.integer(8, 30)
    tokens = np.exp(np.cumsum(draw.uniform(0.1, 0.4, n)) + math.log(draw.log_uniform(1e9, 1e11)))
    return tokens, np.cumsum(draw.exponential(n) ** 2)


def permuted(tokens_a, scores_a, tokens_b, scores_b):
    return trajectory_similarity(tokens_a, scores_a, tokens_b, np.random.default_rng(0).permutation(scores_b))


def scale_inverted(tokens_a, scores_a, tokens_b, scores_b):
    return trajectory_similarity(tokens_b, scores_b, tokens_a, scores_a)


@paper.trial(
    Identity(rtol=1e-9, atol=1e-9), of=[trajectory_similarity], controls={"one curve permuted": permuted, "tokens of a for each of b": scale_inverted}, quick=60, full=2000
)
def moved_copies(draw, claim):
    """A copy moved along the tokens, with other units of score, lies at distance 0 and its factor comes back; gains correlate as SciPy says, and fully with themselves."""
    from scipy.stats import spearmanr

    tokens, scores = random_curve(draw)
    shift = STEP * (1 + draw.integer(0, 49))
    level, unit = draw.normal(), draw.log_uniform(0.01, 100)
    found = claim(tokens, scores, tokens * math.exp(shift), level + unit * scores)
    x, grid = np.log(tokens), np.linspace(math.log(tokens[0]) + shift, math.log(tokens[-1]), 50)
    gains = [np.round(np.diff(np.interp(grid, x + s, scores / np.ptp(scores))), 9) for s in (0, shift)]
    whole, turned = claim(tokens, scores, tokens, unit * scores)["spearman"], claim(tokens, scores, tokens, -scores)["spearman"]
    return [0.0, math.exp(shift), spearmanr(*gains).statistic, 1.0, -1.0], [found["shape_distance"], found["horizontal_scale"], found["spearman"], whole, turned]


def in_units_of_roughness(tokens_a, scores_a, tokens_b, scores_b):
    found = trajectory_similarity(tokens_a, scores_a, tokens_b, scores_b)
    return found | {"shape_distance": found["shape_distance"] / np.diff(scores_b).std() ** 2}


@paper.trial(Guarantee(), of=[trajectory_similarity], controls={"distance in units of the curve's own roughness": in_units_of_roughness}, quick=3, full=40)
def noise_moves_apart(draw, claim):
    """The more noise a moved copy carries, the larger its distance on average."""
    tokens, scores = random_curve(draw)
    scores, noise = scores / np.ptp(scores), draw.rng.normal(size=(30, len(tokens)))
    distances = np.array([[claim(tokens, scores, 1.5 * tokens, scores + level * row)["shape_distance"] for level in (0.02, 0.05, 0.12, 0.3)] for row in noise])
    return Estimate.of(distances[:, :-1] - distances[:, 1:]), np.zeros(3)
