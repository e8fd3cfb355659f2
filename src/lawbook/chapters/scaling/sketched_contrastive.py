"""Linear contrastive learning on sketched views: exact excess of a bilinear score, and how pairs, steps and sketch trade off."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, count, matrix, nonnegative, positive, real, record, seed, vector
from lawbook.trials import Estimate, Identity, Inequality, Rate

paper = Paper(
    __name__,
    title="Sketched Linear Contrastive Learning: Approximation, Optimization, and Statistical Scaling",
    arxiv="2606.26617",
    tags=["contrastive learning", "scaling law", "sketching", "gradient descent", "canonical correlation", "clip", "early stopping"],
    source="derived",
    says="""A bilinear score between two Gaussian views, trained by gradient descent on a quadratic contrastive loss, is as far from the best one as its whitened weights are
    from the canonical correlations. What is learned are pairs of directions, at a speed given by products of eigenvalues: the optimisation exponent is half that of
    regression, and the noise grows with the number of pairs (i, j) whose product is above the resolution of the horizon, a divisor sum with its logarithm. Sketch size,
    steps and pairs of samples balance where the three terms meet.""",
    notes="""The setting is the abstract's, the formulas are derived here for views with common eigenvectors, lambda_i = i^-a and rho_i^2 = i^-s. Simulated, the variance is .85 to
    1.1 times D / N once ten directions are resolved. In the number of resolved directions x = horizon^(1/a) the order law reads M^(1-s) + x^(-(s-1)/2) + D(x) / N,
    so the best risk does not depend on a. For many samples and a small sketch D saturates at M^2 and the law falls for ever: the best horizon is then infinite.""",
)

DECAY = positive(high=20, typical=(1, 3), doc="a: eigenvalues of both views fall as i^-a", example=1.5)
CORRELATION = positive(low=1, typical=(1.2, 3), doc="s: squared correlations fall as i^-s", example=1.8)
SKETCH = count("dimensions", typical=(1, 1000), infinite=True, doc="M: dimensions that the sketch keeps; infinite: all of them", example=1000)
PAIRS = count("samples", high=10**12, typical=(10, 1e6), doc="N: pairs of views", example=100_000)
HORIZON = positive(typical=(1, 1e6), doc="step size times steps", example=10_000.0)
MOST = 1e14  # products i j that are counted: the sum takes its root


def positive_definite(covariance):
    symmetric = covariance.shape[0] == covariance.shape[1] and np.allclose(covariance, covariance.T, rtol=1e-9, atol=1e-12 * np.abs(covariance).max())
    return symmetric and np.linalg.eigvalsh(covariance)[0] > 1e-12 * np.linalg.eigvalsh(covariance)[-1]


def whitened(cov_x, cov_y, cross):
    """Cholesky factors of both covariances and the cross-covariance of the whitened views; its singular values are the canonical correlations."""
    lx, ly = np.linalg.cholesky(cov_x), np.linalg.cholesky(cov_y)
    return lx, ly, np.linalg.solve(ly, np.linalg.solve(lx, cross).T).T


def random_views(rng, p, q):
    joint = rng.normal(size=(p + q, p + q + 2))
    joint = joint @ joint.T / (p + q)
    return {"cov_x": joint[:p, :p], "cov_y": joint[p:, p:], "cross": joint[:p, p:]}


def random_case(rng):
    p, q = rng.integers(1, 6, 2)
    return {"weights": rng.normal(size=(p, q)), **random_views(rng, p, q)}


@paper.law(
    r"-2\,\mathrm{tr}(W^\top C) + \mathrm{tr}(\Sigma_x W \Sigma_y W^\top) = -\sum_i \rho_i^2 + \|\Sigma_x^{1/2} (W - \Sigma_x^{-1} C \Sigma_y^{-1}) \Sigma_y^{1/2}\|_F^2",
    requires={
        "cov_x must be symmetric and positive definite": lambda cov_x: bool(positive_definite(cov_x)),
        "cov_y must be symmetric and positive definite": lambda cov_y: bool(positive_definite(cov_y)),
        "cross must leave cov_x and cov_y a joint law: canonical correlations of at most 1": lambda cross, cov_x, cov_y: (
            np.linalg.norm(whitened(cov_x, cov_y, cross)[2], 2) <= 1 + 1e-9
        ),
    },
    assumes=["Views are centred and negatives independent of their anchors."],
    sample=random_case,
)
def contrastive_excess(
    weights: matrix("p", "q", doc="W of the score x^T W y", example=[[0.5, 0.0], [0.0, 0.5]]),
    cov_x: matrix("p", "p", example=[[1.0, 0.2], [0.2, 0.5]]),
    cov_y: matrix("q", "q", example=[[1.0, 0.0], [0.0, 1.0]]),
    cross: matrix("p", "q", doc="covariance of x with y", example=[[0.6, 0.0], [0.1, 0.3]]),
) -> record(loss=real(), optimum=real(doc="least loss: minus the sum of squared canonical correlations"), excess=nonnegative()):
    """Loss of a bilinear score, the least loss, and their difference as the whitened distance to the best weights."""
    lx, ly, correlations = whitened(cov_x, cov_y, cross)
    learned = lx.T @ weights @ ly
    loss = -2 * np.sum(weights * cross) + np.sum(learned**2)
    return {"loss": float(loss), "optimum": -float(np.sum(correlations**2)), "excess": float(np.sum((learned - correlations) ** 2))}


def resolved_pairs(product, sketch):
    """Pairs (i, j) up to `sketch` with i j <= product, a whole number."""
    if product >= sketch * sketch:
        return float(sketch) ** 2
    if product > MOST:
        raise DomainError(f"horizon must resolve products of at most {MOST:.0e} directions (horizon^(1/a)), or all of the sketch; it was {product:.6g}.")
    root = math.isqrt(int(product))
    return float(2 * np.sum(np.minimum(sketch, int(product) // np.arange(1, root + 1))) - root**2)


def pairs_between(low, high, sketch):
    """`resolved_pairs` at low, low + 1, ..., high, by a sieve."""
    new = np.zeros(high - low + 1)
    for i in range(1, min(math.isqrt(high), sketch) + 1):
        first, last = max(i + 1, low // i + 1), min(high // i, sketch)
        new[i * first - low : max(i * last - low + 1, 0) : i] += 2
        if i * i > low:
            new[i * i - low] += 1
    return resolved_pairs(low, sketch) + np.cumsum(new)


@paper.law(r"D(\tau) = \#\{i, j \le M : (ij)^{-a}\, \tau \ge 1\} \approx x (\ln x + 2\gamma_E - 1),\ x = \tau^{1/a}", gives={"count": 2927.0})
def product_effective_dimension(a: DECAY, horizon: HORIZON, *, sketch: SKETCH = math.inf) -> record(
    count=nonnegative("pairs"), approximation=real("pairs", doc="Dirichlet's divisor sum, good while 1 << x <= sketch; at most sketch^2")
):
    """Pairs of directions that gradient descent has resolved at a horizon, counted exactly and by Dirichlet's formula."""
    x = math.exp(math.log(horizon) / a) if math.log(horizon) / a < 700 else math.inf
    counted = resolved_pairs(math.floor(x * (1 + 1e-12)) if x < math.inf else x, sketch)  # a whole x may come out a rounding below itself
    return {"count": counted, "approximation": min(x * (math.log(x) + 2 * np.euler_gamma - 1), float(sketch) ** 2) if x < math.inf else float(sketch) ** 2}


@paper.law(r"M^{1-s} + (\eta t)^{-(s-1)/(2a)} + D(\eta t)/N", assumes=["Orders of magnitude with unit constants.", "Both views have the same eigenvectors."])
def risk_terms(sketch: SKETCH, samples: PAIRS, horizon: HORIZON, *, a: DECAY, s: CORRELATION) -> record(
    approximation=nonnegative(doc="of directions that the sketch drops"),
    bias=nonnegative(doc="of directions not learned yet"),
    variance=nonnegative(doc="of noise that was learned"),
    total=nonnegative(),
):
    """Excess risk of the sketched score after gradient descent to a horizon, term by term."""
    approximation, bias = float(sketch) ** (1 - s), horizon ** (-(s - 1) / (2 * a))
    variance = product_effective_dimension(a, horizon, sketch=sketch)["count"] / samples
    return {"approximation": approximation, "bias": bias, "variance": variance, "total": approximation + bias + variance}


@paper.algorithm(r"\arg\min_{\eta t} \left[M^{1-s} + (\eta t)^{-(s-1)/(2a)} + D(\eta t)/N\right],\quad \eta t \asymp N^{2a/(s+1)}")
def optimal_horizon(samples: PAIRS, sketch: SKETCH, *, a: DECAY, s: CORRELATION) -> record(
    horizon=positive(infinite=True, doc="infinite where the saturated sketch is best trained to the end"),
    risk=nonnegative(),
    predicted_horizon=positive(doc="N^(2a/(s+1)), where bias and variance balance but for logarithms"),
):
    """Horizon at which the total of the order law is least, and its order in the number of samples for a large sketch."""
    # D jumps where x = horizon^(1/a) is a whole number, so the best horizon lies just below one: look ever finer, then at all in the reach of D's irregularity
    low, high = 0, min(math.ceil(20 * samples ** (2 / (s + 1))) + 10, sketch * sketch)

    def risks(n, pairs):
        return (n + 1.0) ** (-(s - 1) / 2) + pairs / samples

    while high - low > 2:
        n = np.unique(np.round(np.geomspace(low + 1, high + 1, 100)).astype(np.int64)) - 1
        best = int(np.argmin(risks(n, np.array([resolved_pairs(int(k), sketch) for k in n]))))
        low, high = int(n[max(best - 1, 0)]), int(n[min(best + 1, len(n) - 1)])
    reach = min(50 + 3 * math.ceil(high ** (2 / 3)), 1_000_000)
    n = np.arange(max(low - reach, 0), min(high + reach, sketch * sketch) + 1)
    total = risks(n, pairs_between(int(n[0]), int(n[-1]), sketch))
    n, risk = int(n[np.argmin(total)]), float(total.min())
    endless = float(sketch) ** 2 / samples
    horizon, least = (math.inf, endless) if endless < risk else (math.exp(a * math.log((n + 1) * (1 - 1e-11))), risk)
    return {"horizon": horizon, "risk": float(sketch) ** (1 - s) + least, "predicted_horizon": float(samples) ** (2 * a / (s + 1))}


@paper.model(
    r"W \leftarrow W - 2\eta (\hat\Sigma_x W \hat\Sigma_y - \hat C)",
    requires={"sketch must be at most ambient": lambda sketch, ambient: sketch <= ambient},
)
def gd_contrastive(
    samples: count("samples", typical=(100, 1000), infinite=True, doc="pairs of views; infinite: the population's moments", example=2000),
    sketch: count("dimensions", typical=(1, 40), high=5000, example=40),
    steps: count("steps", typical=(1, 10_000), example=10_000),
    *,
    a: DECAY,
    s: CORRELATION,
    ambient: count("dimensions", typical=(40, 10_000), doc="dimensions of the views before the sketch", example=10_000),
    step_size: positive(high=1, below=True, typical=(0.05, 0.4), doc="below 1 over the product of the largest eigenvalues") = 0.25,
    seed: seed() = 0,
) -> record(steps=vector("points", of=count("steps")), excess=vector("points", of=nonnegative())):
    """Exact population excess along full-batch gradient descent from zero on drawn pairs, at steps half an octave or more apart."""
    from scipy.special import zeta

    index = np.arange(1.0, sketch + 1)
    scale, rho = index ** (-a / 2), index ** (-s / 2)
    if samples == math.inf:
        moments = np.diag(scale**2), np.diag(scale**2), np.diag(rho * scale**2)
    else:
        rng, moments = np.random.default_rng(seed), np.zeros((3, sketch, sketch))
        rows = max(1, 8192 // sketch)  # at once, so that a block stays in the cache
        for start in range(0, samples, rows):
            g, own = rng.normal(size=(2, min(rows, samples - start), sketch))
            x, y = scale * g, scale * (rho * g + np.sqrt(1 - rho**2) * own)
            moments += np.stack([x.T @ x, y.T @ y, x.T @ y]) / samples
    (speed_x, u), (speed_y, v) = np.linalg.eigh(moments[0]), np.linalg.eigh(moments[1])
    speed = np.maximum(np.outer(speed_x, speed_y), 0)
    if step_size * speed.max() >= 1:
        raise DomainError(f"step_size must be below {1 / speed.max():.6g} for this sample, or descent diverges; it was {step_size:.6g}.")
    cross, best = u.T @ moments[2] @ v, np.diag(rho / scale**2)
    times = np.unique(np.round(np.geomspace(1, steps, min(steps, 1 + math.ceil(2 * math.log2(steps))))).astype(int))
    dropped, excess = zeta(s, sketch + 1) - zeta(s, ambient + 1), []
    for t in times:
        base = 1 - 2 * step_size * speed
        done = np.where(base > 0, -np.expm1(t * np.log1p(np.maximum(base, 1e-300) - 1)), 1 - base ** float(t))
        weights = u @ (cross * np.where(speed > 1e-15, done / np.maximum(speed, 1e-15), 2 * step_size * t)) @ v.T
        excess.append(dropped + np.sum((scale[:, None] * (weights - best) * scale) ** 2))
    return {"steps": times, "excess": np.array(excess)}


def one_view_whitened(weights, cov_x, cov_y, cross):
    found = contrastive_excess(weights, cov_x, cov_y, cross)
    return {**found, "optimum": -float(np.sum(np.linalg.solve(np.linalg.cholesky(cov_x), cross) ** 2))}


def without_log(a, horizon, *, sketch):
    return {"count": float(min(np.floor(horizon ** (1 / a)), sketch**2))}


def plain_floor(a, horizon, *, sketch):
    return {"count": resolved_pairs(math.floor(horizon ** (1 / a)), sketch)}


EXACT = (contrastive_excess, product_effective_dimension)


@paper.trial(
    Identity(rtol=1e-9),
    of=EXACT,
    claim=EXACT,
    controls={
        "one view whitened": (one_view_whitened, EXACT[1]),
        "pairs without the logarithm": (EXACT[0], without_log),
        "floor of a rounded root": (EXACT[0], plain_floor),
    },
    quick=60,
    full=2000,
)
def by_definition(draw, claim):
    """The loss is the mean of the surrogate over drawn views, the optimum minus the sum of generalised eigenvalues, the excess their difference; pairs are counted one by one."""
    from scipy.linalg import eigh

    excess, dimension = claim
    p, q, size = draw.integer(1, 5), draw.integer(1, 5), 1000
    views, weights = random_views(draw.rng, p, q), draw.normal(size=(p, q))
    joint = np.block([[views["cov_x"], views["cross"]], [views["cross"].T, views["cov_y"]]])
    drawn = draw.rng.normal(size=(2 * size, p + q)) @ np.linalg.cholesky(joint).T
    x, y, negative = drawn[:size, :p], drawn[:size, p:], drawn[size:, p:]
    loss = Estimate.of(-2 * np.sum((x @ weights) * y, 1) + np.sum((x @ weights) * negative, 1) ** 2)
    squares = eigh(views["cross"] @ np.linalg.solve(views["cov_y"], views["cross"].T), views["cov_x"], eigvals_only=True)
    found = excess(weights, **views)
    a, resolved = draw.choice([1.0, 1.5, 2.0, 3.0]), draw.choice([float(draw.integer(1, 300)), draw.uniform(0.5, 300)])
    i = np.arange(1, draw.integer(1, 120) + 1)
    pairs = np.sum(np.outer(i, i) <= resolved * (1 + 1e-9))
    expected = Estimate([loss.value, -squares.sum(), found["loss"] - found["optimum"], pairs], [loss.error, 0, 0, 0])
    counted = dimension(a, resolved**a, sketch=len(i))["count"]
    return expected, [found["loss"], found["optimum"], found["excess"], counted], {"p": p, "q": q, "a": a, "x": resolved, "sketch": len(i)}


def predicted_as_best(samples, sketch, *, a, s):
    horizon = samples ** (2 * a / (s + 1))
    return {"horizon": horizon, "risk": risk_terms(sketch, samples, horizon, a=a, s=s)["total"], "predicted_horizon": horizon}


@paper.trial(Inequality(), of=[optimal_horizon, risk_terms, product_effective_dimension], controls={"predicted horizon as the best": predicted_as_best}, quick=40, full=1000)
def best_horizon(draw, claim):
    """No other horizon has a lower total than the risk, which its own horizon has, and Dirichlet's formula is within 2 sqrt(x) of the count."""
    samples, sketch = int(draw.log_uniform(10, 1e7)), draw.choice([3, 30, 1000, math.inf])
    a, s = draw.uniform(1, 3), draw.uniform(1.2, 3)
    found = claim(samples, sketch, a=a, s=s)
    middle = found["horizon"] if found["horizon"] < math.inf else float(sketch) ** (2 * a)
    others = [risk_terms(sketch, samples, middle * f**a, a=a, s=s)["total"] for f in draw.log_uniform(0.1, 10, 30)]
    dimension, x = product_effective_dimension(a, middle), middle ** (1 / a)
    there = risk_terms(sketch, samples, min(found["horizon"], 1e200), a=a, s=s)["total"]
    smaller = [*[found["risk"]] * 30, there, abs(dimension["count"] - dimension["approximation"])]
    return smaller, [*others, found["risk"] * (1 + 1e-6), 2 * math.sqrt(x)], {"samples": samples, "sketch": sketch, "a": a, "s": s}


def as_in_regression(sketch, samples, horizon, *, a, s):
    return {**risk_terms(sketch, samples, horizon, a=a, s=s), "bias": horizon ** (-(s - 1) / a)}


@paper.trial(Rate(within=0.02), of=[risk_terms, gd_contrastive], controls={"exponent of regression": as_in_regression}, quick=1, full=1)
def bias_exponent(draw, claim):
    """On the population the excess falls with the exponent of the bias term while the sketch resolves more than descent does."""
    a, s = 1.5, 1.8
    run = gd_contrastive(math.inf, 100, 1000, a=a, s=s, ambient=10**9)
    late = run["steps"] >= 20
    ends = [claim(100, 1000, 0.25 * t, a=a, s=s)["bias"] for t in (10, 1000)]
    return run["steps"][late], run["excess"][late], math.log(ends[1] / ends[0]) / math.log(100)


def variance_without_log(sketch, samples, horizon, *, a, s):
    return {"variance": horizon ** (1 / a) / samples}


@paper.trial(Rate(within=0.2), of=[risk_terms, gd_contrastive], controls={"D without its logarithm": variance_without_log}, quick=1, full=6)
def variance_follows_dimension(draw, claim):
    """What N drawn pairs add to the population's excess, times N, grows in proportion to D(horizon)."""
    a, s, sketch, claimed, measured = 1.5, 3.0, 24, [], []
    for samples in (200, 800):
        runs = [gd_contrastive(n, sketch, 470, a=a, s=s, ambient=sketch, seed=int(draw.rng.integers(2**60))) for n in [math.inf] + [samples] * 80]
        late = runs[0]["steps"] >= 50
        measured += list(samples * (np.mean([run["excess"] for run in runs[1:]], 0) - runs[0]["excess"])[late])
        claimed += [claim(sketch, 1, 0.25 * t, a=a, s=s)["variance"] for t in runs[0]["steps"][late]]
    return claimed, measured, 1.0


@paper.finding(
    """The order N^(2a/(s+1)) is no horizon to train to: its logarithms matter, and at a = 1.5, s = 1.8 and 100,000 pairs it is 20 times too long, with 3 times the risk."""
)
def order_overshoots():
    best = optimal_horizon(100_000, math.inf, a=1.5, s=1.8)
    there = risk_terms(math.inf, 100_000, best["predicted_horizon"], a=1.5, s=1.8)["total"]
    return {"holds": best["predicted_horizon"] > 10 * best["horizon"] and there > 2 * best["risk"], **best, "risk_at_predicted": there}
