"""Top-k decoding as the projection on sparse distributions: how many tokens to keep for a price, and how to re-weight those kept."""

from functools import cache, partial

import numpy as np

from lawbook.contract import DomainError, Paper, choice, count, distribution, nonnegative, positive, real, record, seed, vector
from lawbook.numerics import bracketed_root
from lawbook.trials import Counts, Distribution, Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="Foundations of Top-$k$ Decoding For Language Models",
    arxiv="2505.19371",
    tags=["top-k", "decoding", "sampling", "bregman divergence", "sparsity", "adaptive truncation"],
    source="derived",
    says="""Cutting the tail of a next-token law is read as recovering a sparse law from a noisy one: minimise a separable Bregman divergence plus a price for each token
    kept. The best support of a size is the most probable tokens, the cost is discretely convex in the size, so that the size is found by bisection, and for the
    Kullback-Leibler divergence the answer is ordinary top-k. Other powers share the missing mass differently and keep another number of tokens.""",
    notes="""Re-weightings are derived from stationarity and held against brute force over all supports. The one unknown is found by Newton steps from the right of its
    root, where the total is convex: in the multiplier for alpha below 2, in its root of order alpha-1 above. Everything is computed from the gain of each token, so that little
    missing mass loses no digits. Probabilities below the least normal number count as zero.""",
)

LIMIT = 1e-6  # nearer to alpha = 1, the primal is Kullback-Leibler
TINY = np.finfo(float).tiny
ALPHA = positive(typical=(0.3, 6), example=1.5, doc="power of the divergence: 1 is Kullback-Leibler, 2 squared distance, infinity water-filling")
MODE = choice("primal", "dual", doc="which argument of the divergence the sparse law is: D(sparse, full) or D(full, sparse)")
PENALTY = nonnegative(typical=(0, 0.3), example=0.2, doc="price of a kept token, nats at alpha = 1")
LAW = distribution("V", doc="next-token probabilities", example=[0.3, 0.5, 0.05, 0.15])
FINITE = {"mode dual needs alpha above 1, or each dropped token costs infinitely much": lambda mode, alpha: mode == "primal" or alpha > 1}


def primal_gain(x, b, t):
    """Gains of x and their slopes in t: for b >= 1, nu = t^b, so that the result is the b-norm of (x, t); for b < 1, nu = b t."""
    if b >= 1:
        high, low = np.maximum(x, t), np.minimum(x, t)
        gain = high * np.expm1(np.log1p((low / high) ** b) / b) + (high - x)
        return gain, (t / (x + gain)) ** (b - 1)
    gain = x * np.expm1(np.log1p(b * t * x**-b) / b)
    return gain, (x + gain) ** (1 - b)


def dual_gain(x, b, t):
    """The same for y^(b-1) (y - x) = nu, with nu = t^b for b >= 1 and nu = t below: Newton steps in the log of the gain, whose slope lies between 1 and b."""
    log_nu = np.log(t) * (b if b >= 1 else 1)
    v = np.full(len(x), log_nu / b)
    for _ in range(100):
        gain = np.exp(v)
        step = (v + (b - 1) * np.log(x + gain) - log_nu) / (1 + (b - 1) * gain / (x + gain))
        v -= step
        if np.max(np.abs(step)) < 1e-14 * np.max(np.abs(v)):
            break
    gain = np.exp(v)
    y = x + gain
    return gain, b * (t / y) ** (b - 1) * y / (x + b * gain) if b >= 1 else y ** (2 - b) / (x + b * gain)


def gains(x, missing, alpha, mode):
    """What each of the kept probabilities x > 0 gains where together they take over the missing mass."""
    k, b = len(x), alpha - 1
    if missing <= 0:
        return np.zeros(k)
    if mode == "primal" and abs(b) < LIMIT:
        return x * (missing / x.sum())
    t = 1 / k if b >= 1 else missing / np.sum(x ** (1 - b))  # right of the root: every result is at least t; the tangent at 0
    if 0 < b < 1:
        t = min(t, (missing / k) ** b / (b if mode == "primal" else 1))  # every gain is at least nu^(1/b)
    if b < 1 and mode == "primal":
        t = min(t, -np.expm1(b * np.log(x.max())) / b)  # the largest result is at most 1
    for _ in range(500):
        gain, slope = (primal_gain if mode == "primal" else dual_gain)(x, b, t)
        excess = gain.sum() - missing
        if not excess > 1e-14 * missing:
            break
        t -= excess / slope.sum()
    return gain * (missing / gain.sum())


def divergence(u, v, gap, alpha):
    """Sum of phi(u) - phi(v) - phi'(v) gap with gap = u - v, by its series where the gap is small."""
    if abs(alpha - 1) < LIMIT:
        return float(np.sum(u * np.log1p(gap / v) - gap))
    a, e = alpha, gap / v
    near = v**a * e**2 / 2 * (1 + (a - 2) * e / 3 * (1 + (a - 3) * e / 4 * (1 + (a - 4) * e / 5)))
    exact = (u**a - v**a - a * v ** (a - 1) * gap) / (a * (a - 1))
    return float(np.sum(np.where(np.abs(e) < 1e-3, near, exact)))


def ledger(p, alpha, mode):
    """(head, dropped) for sorted positive p: head(k) is what re-weighting the first k tokens costs, dropped(tokens) what dropping them costs."""
    missing = np.append(np.cumsum(p[:0:-1])[::-1], 0.0)
    factor = 1 / alpha if mode == "primal" else 1 / (alpha * (alpha - 1))

    @cache
    def head(k):
        m = float(missing[k - 1])
        if alpha == 2:
            return m * m / (2 * k)
        if mode == "primal" and abs(alpha - 1) < LIMIT:
            return float(-np.log1p(-m)) - m
        x = p[:k]
        gain = gains(x, m, alpha, mode)
        with np.errstate(over="ignore", invalid="ignore"):
            return divergence(x + gain, x, gain, alpha) if mode == "primal" else divergence(x, x + gain, -gain, alpha)

    return head, lambda tokens: factor * float(np.sum(tokens**alpha))


def ranked(probabilities):
    """(positions of the positive probabilities from the largest down, these probabilities with sum 1); equal ones in the order of their positions."""
    p = np.asarray(probabilities, float)
    order = np.argsort(-p, kind="stable")
    order = order[: np.count_nonzero(p >= TINY)]
    return order, p[order] / p[order].sum()


@paper.law(
    r"\hat p_i = (x_i^{\alpha-1} + \nu)^{1/(\alpha-1)}\ \text{(primal)},\quad \hat p_i^{\alpha-2}(\hat p_i - x_i) = \nu\ \text{(dual)},\quad \sum_i \hat p_i = 1",
    requires={**FINITE, "probabilities must sum to at most 1": lambda probabilities: np.sum(probabilities) <= 1 + 1e-9},
    sample=lambda rng: {"probabilities": rng.dirichlet(np.ones(8))[: rng.integers(1, 8)] + 1e-12, "alpha": rng.uniform(1.01, 6), "mode": rng.choice(["primal", "dual"])},
    gives=[0.6, 0.4],
)
def bregman_renormalize(
    probabilities: vector("k", of=positive(high=1, typical=(0.01, 0.1)), doc="probabilities of the kept tokens, in any order", example=[0.5, 0.3]),
    *,
    alpha: positive(typical=(0.3, 6), example=2.0, doc="power of the divergence") = 2.0,
    mode: MODE = "primal",
) -> distribution("k"):
    """The best distribution on a set of kept tokens, given their probabilities before."""
    x = np.maximum(np.asarray(probabilities, float), TINY)
    total = x.sum()
    x = x / max(total, 1.0)
    return np.minimum(x + gains(x, 1 - total, alpha, mode), 1.0)


@paper.law(
    r"\text{cost}(k) = \sum_{i \le k} d_\phi(\hat p_i, p_i) + \tfrac1\alpha \sum_{i > k} p_i^\alpha + \lambda k",
    requires={**FINITE, "k must be at most the number of positive probabilities": lambda k, probabilities: k <= np.count_nonzero(np.asarray(probabilities) >= TINY)},
)
def bregman_cost(
    probabilities: LAW, k: count("tokens", typical=(1, 6), doc="tokens kept", example=2), *, alpha: ALPHA = 1.0, penalty: PENALTY = 0.0, mode: MODE = "primal"
) -> real():
    """Divergence and price at the best distribution on the k most probable tokens; in dual mode the tail costs sum p^alpha / (alpha (alpha-1))."""
    _, p = ranked(probabilities)
    head, dropped = ledger(p, alpha, mode)
    return head(k) + dropped(p[k:]) + penalty * k


@paper.algorithm(r"k^* = \min\{k : \text{cost}(k+1) \ge \text{cost}(k)\}", requires=FINITE, gives={"k": 2, "cost": 0.6231, "probabilities": [0.375, 0.625, 0.0, 0.0]})
def bregman_decode(probabilities: LAW, *, alpha: positive(typical=(0.3, 6), example=1.0, doc="power of the divergence") = 1.0, penalty: PENALTY, mode: MODE = "primal") -> record(
    k=count("tokens"), cost=real(), probabilities=distribution("V", doc="in the order of the input")
):
    """The sparse law of least divergence plus price: how many tokens to keep, and their new probabilities."""
    order, p = ranked(probabilities)
    head, dropped = ledger(p, alpha, mode)
    low, high = (0, 1) if penalty > 0 else (len(p) - 1, len(p))  # a free token is always kept; rounding could hide it

    def falls(k):
        return head(k + 1) - head(k) - dropped(p[k]) + penalty < 0

    while high < len(p) and falls(high):
        low, high = high, min(2 * high, len(p))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if falls(middle) else (low, middle)
    kept = np.zeros(np.size(probabilities))
    kept[order[:high]] = bregman_renormalize(p[:high], alpha=alpha, mode=mode)
    return {"k": high, "cost": head(high) + dropped(p[high:]) + penalty * high, "probabilities": kept}


@paper.algorithm(
    r"t \sim \hat p(\mathrm{softmax}(z / T))",
    requires={
        **FINITE,
        "give either penalty or k": lambda penalty, k: (penalty is None) != (k is None),
        "k must be at most the number of logits": lambda k, logits: k is None or k <= len(logits),
    },
)
def sample_token(
    logits: vector("V", of=real(high=1e300, infinite=True, typical=(-5, 5)), doc="-inf masks a token", example=[2.0, 1.0, 0.0, -1.0]),
    seed: seed(example=0),
    *,
    temperature: positive(typical=(0.3, 2)) = 1.0,
    alpha: ALPHA = 1.0,
    penalty: nonnegative(typical=(0, 0.3), example=0.2, doc="price of a kept token: the number kept adapts") = None,
    k: count("tokens", typical=(1, 6), doc="tokens kept, whatever the law") = None,
    mode: MODE = "primal",
) -> count("token", low=0):
    """Index of a token drawn from the truncated and re-weighted softmax of the logits."""
    z = np.asarray(logits, float) / temperature
    if not np.isfinite(z.max()):
        raise DomainError("logits must have an entry that is finite, also over the temperature; all were masked.")
    p = np.exp(z - z.max())
    if k is None:
        tokens, kept = slice(None), bregman_decode(p / p.sum(), alpha=alpha, penalty=penalty, mode=mode)["probabilities"]
    else:
        order, sorted_p = ranked(p)
        tokens, kept = order[:k], bregman_renormalize(sorted_p[:k], alpha=alpha, mode=mode)
    total = np.cumsum(kept)
    drawn = np.searchsorted(total, np.random.default_rng(seed).uniform() * total[-1], side="right")
    return int(np.arange(len(p))[tokens][drawn])


def objective(kept, p, alpha, penalty, mode):
    """Divergence and price straight from the definition, for p > 0."""
    u, v = (kept, p) if mode == "primal" else (p, kept)
    if alpha == 1:
        total = np.sum(u * np.log(np.maximum(u, TINY) / v) - u + v)
    else:
        total = np.sum((u**alpha - v**alpha) / (alpha * (alpha - 1)) - v ** (alpha - 1) / (alpha - 1) * (u - v))
    return float(total + penalty * np.count_nonzero(kept))


def spread(weights, support, size):
    """The distribution with these weights on a support."""
    weights, law = np.maximum(weights, 1e-12), np.zeros(size)
    law[support] = weights / weights.sum()
    return law


def least_over_supports(p, **options):
    """Least objective over all supports, with a general minimiser on each."""
    from scipy.optimize import minimize

    best = np.inf
    for subset in range(1, 2 ** len(p)):
        support = np.flatnonzero(subset >> np.arange(len(p)) & 1)
        start, bounds = p[support] / p[support].sum(), [(1e-9, 1)] * len(support)
        found = minimize(lambda y, on=support: objective(spread(y, on, len(p)), p, **options), start, method="SLSQP", bounds=bounds, options={"ftol": 1e-14, "maxiter": 200})
        best = min(best, found.fun)
    return best


def with_support(choose, reweigh, p, **options):
    support = choose(p)[: bregman_decode(p, **options)["k"]]
    law = spread(reweigh(p[support], alpha=options["alpha"], mode=options["mode"]), support, len(p))
    return {"cost": objective(law, p, **options), "probabilities": law}


def proportional(probabilities, **_):
    return probabilities / probabilities.sum()


@paper.trial(
    Guarantee(rtol=1e-9, atol=1e-11),
    of=[bregman_decode],
    controls={
        "the least probable tokens kept": partial(with_support, np.argsort, bregman_renormalize),
        "missing mass shared in proportion": partial(with_support, lambda p: np.argsort(-p), proportional),
    },
    quick=4,
    full=30,
)
def all_supports(draw, decode, effort):
    """No support and no distribution on it, found by a general minimiser, is better than what the bisection returns; its cost is that of the definition."""
    p, achieved, promised = draw.dirichlet(1.0, draw.integer(3, 4 if effort == "quick" else 7)) + 1e-6, [], []
    p /= p.sum()
    for mode, alphas in (("primal", [0.5, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0]), ("dual", [1.2, 1.5, 2.0, 3.0, 5.0])):
        alpha = draw.choice(alphas)
        options = {"alpha": alpha, "penalty": draw.log_uniform(1e-3, 0.3) / alpha**2, "mode": mode}
        found = decode(p, **options)
        value = objective(found["probabilities"], p, **options)
        achieved += [value, abs(found["cost"] - value)]
        promised += [least_over_supports(p, **options), 0.0]
    return achieved, promised, {"probabilities": p}


def stationary(x, alpha, mode):
    """The re-weighting from a bracketed root in nu, with bracketed roots inside it in dual mode."""
    b = alpha - 1
    if b == 0:
        return x / x.sum()

    def weights(nu):
        if mode == "primal":
            return (x**b + nu) ** (1 / b)
        return np.array([bracketed_root(lambda y, xi=xi: y ** (b - 1) * (y - xi) - nu, xi, 10.0) for xi in x])

    low, high = (1e-60, 1.0) if b > 0 else (1 - x.max() ** b, 0.0)  # at the far end the largest weight is at least 1
    return weights(bracketed_root(lambda nu: weights(nu).sum() - 1, low, high))


@paper.trial(Identity(rtol=1e-8, atol=1e-12), of=[bregman_renormalize, bregman_cost], controls={"in proportion at every alpha": proportional}, quick=20, full=1000)
def stationarity(draw, claim):
    """Re-weightings solve their stationary equations (ordinary top-k at alpha = 1, water-filling at alpha = 10^9), and costs are those of the definition."""
    p, k = np.sort(draw.dirichlet(draw.log_uniform(0.5, 5), 8) + 1e-9)[::-1], draw.integer(2, 7)
    p = p / p.sum()
    x, computed, found = p[:k], [], []
    for mode, alphas in (("primal", (1.0, 2.0, draw.uniform(0.2, 0.95), draw.uniform(1.1, 6))), ("dual", (2.0, draw.uniform(1.1, 6)))):
        for alpha in alphas:
            kept = np.append(stationary(x, alpha, mode), np.zeros(8 - k))
            computed += [*kept[:k], objective(kept, p, alpha, 0.1, mode)]
            found += [*claim(x, alpha=alpha, mode=mode), bregman_cost(p, k, alpha=alpha, penalty=0.1, mode=mode)]
    flat = claim(x, alpha=1e9, mode="primal")
    return [*computed, *np.maximum(x, flat.min())], [*found, *flat], {"probabilities": x}


def kept_in_any_order(p, k, *, alpha, penalty, mode):
    first = np.arange(k)  # p is drawn unsorted
    return objective(spread(bregman_renormalize(p[first], alpha=alpha, mode=mode), first, len(p)), p, alpha, penalty, mode)


@paper.trial(Inequality(search=0), of=[bregman_cost], controls={"tokens kept in any order": kept_in_any_order}, quick=4, full=60)
def convex_in_k(draw, cost):
    """Second differences of the cost in k are not negative, up to 1e-10 of the largest."""
    mode, alphas, size = draw.choice([("primal", [0.5, 1.0, 1.5, 3.0, 5.0], 300), ("dual", [1.2, 1.5, 3.0, 5.0], 60)])
    alpha, p = draw.choice(alphas), np.maximum(draw.rng.dirichlet(np.full(size, 0.3)), 1e-12)
    p /= p.sum()
    bend = np.diff([cost(p, k, alpha=alpha, penalty=0.0, mode=mode) for k in range(1, size + 1)], 2)
    return -bend / np.abs(bend).max(), np.full(len(bend), 1e-10), {"alpha": alpha, "mode": mode}


def reweighted_in_proportion(logits, seed, *, alpha, **options):
    return sample_token(logits, seed, alpha=1.0, **options)


@paper.trial(Distribution(), of=[sample_token], controls={"re-weighted in proportion": reweighted_in_proportion}, quick=3000, full=1_000_000)
def sampled(draw, sample):
    """Tokens follow the truncated and re-weighted softmax: at alpha = 2, where missing mass is shared equally, with a fixed number kept and with a price."""
    z, temperature, counts = np.array([2.0, -1.0, 0.5, 1.5, 0.0, -2.0]), 1.5, {}
    p = np.exp(z / temperature) / np.exp(z / temperature).sum()
    rank, top = np.argsort(np.argsort(-p)), np.cumsum(np.sort(p)[::-1])
    costs = [((1 - top[k - 1]) ** 2 / k + np.sum(np.sort(p)[: 6 - k] ** 2)) / 2 + 0.01 * k for k in range(1, 7)]
    for name, k, options in (("fixed", 4, {"k": 4}), ("priced", 1 + int(np.argmin(costs)), {"penalty": 0.01})):
        tokens = [sample(z, int(draw.rng.integers(2**62)), temperature=temperature, alpha=2.0, **options) for _ in range(draw.size // 2)]
        counts[name] = Counts(np.bincount(tokens, minlength=6), np.where(rank < k, p + (1 - top[k - 1]) / k, 0))
    return counts
