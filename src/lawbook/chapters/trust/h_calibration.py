"""Calibration without bins: a sliding window over all class probabilities, its noise floor, and recalibration that keeps the ranking."""

import numpy as np

from lawbook.contract import DomainError, Paper, choice, count, flag, integer, matrix, nonnegative, probability, real, record, seed, vector
from lawbook.numerics import softmax
from lawbook.trials import Guarantee, Identity

paper = Paper(
    __name__,
    title="h-calibration: Rethinking Classifier Recalibration with Probabilistic Error-Bounded Objective",
    arxiv="2506.17968",
    tags=["calibration", "recalibration", "temperature scaling", "expected calibration error", "reliability", "classification"],
    source="code",
    says="""A calibrated classifier predicts, in every set of nearly equal probabilities, the frequency of the event on average. Instead of a few bins, a window slides over all
    class probabilities in order, and the mean of prediction minus outcome has to stay small in each. This error has a gradient, so that a monotone map of the logits can be
    trained on it directly, and the ranking of classes is kept.""",
    notes="""The authors' code averages p(1-o) and (1-p)o apart and subtracts; that is the average of p - o. It fits its 15 clusters to a random 3840 of the values, counts a
    value on the edge of a bin twice and an empty bin as 0; here clusters are fitted to as many as 100,000 values spread evenly by rank, bins are half-open and empty ones left
    out. It trains on the mean over classes of the error without the samples of that class, which is not zero for a calibrated model: `drop_class` here. `floor` is the normal
    approximation at each single p; `expected`, added here, is the exact mean absolute deviation of a binomial count in each window (de Moivre), weighted as the error is: the one
    to compare with where probabilities are small. The code's piecewise linear map jumps, as it interpolates from the mapped value of an edge instead of the edge; here the map is
    continuous and monotone.""",
)

GROUPS = 15
LABELS = vector("N", of=integer(low=0, typical=(0, 2)), doc="true classes, counted from 0", example=[0, 1, 2, 0, 1, 0])
IN_RANGE = "labels must be columns, counted from 0"
WINDOW = count("pairs", low=2, high=10**7, typical=(2, 10), example=4, doc="even; each window holds the pair itself and half of this on either side")


def draw_logits(rng, most=12):
    n, classes = int(rng.integers(5, most)), int(rng.integers(2, 5))
    return rng.normal(0, 2, (n, classes)), rng.integers(0, classes, n)


def draw_probabilities(rng):
    logits, labels = draw_logits(rng)
    return {"probabilities": softmax(logits), "labels": labels}


def draw_recalibration(rng):
    logits, labels = draw_logits(rng, most=30)
    kinds = {"kind": str(rng.choice(["temperature", "piecewise", "mixture"])), "objective": str(rng.choice(["window", "nll"])), "segments": int(rng.integers(1, 20))}
    return {"logits": logits, "labels": labels, "window": 2, "components": int(rng.integers(1, 6)), **kinds}


PROBABILITIES = matrix(
    "N",
    "C",
    of=probability(),
    doc="predicted probabilities of all classes",
    example=[[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2]],
)
DISTRIBUTIONS = {
    "probabilities must have rows that sum to 1 within 0.001": lambda probabilities: np.all(np.abs(np.sum(probabilities, 1) - 1) <= 1e-3),
    IN_RANGE: lambda labels, probabilities: np.max(labels) < np.shape(probabilities)[1],
}


def sorted_pairs(probabilities, labels):
    """(order, p, p - o) of all pairs by rising probability; the order indexes the flattened matrix."""
    p = np.asarray(probabilities, float).ravel()
    gap, classes = p.copy(), np.shape(probabilities)[1]
    gap[np.arange(len(labels)) * classes + np.asarray(labels)] -= 1
    order = np.argsort(p, kind="stable")
    return order, p[order], gap[order]


def window_sums(values, half):
    """Sum over each window of `half` values on either side, cut off at the ends, and how many values each holds."""
    total, here = np.concatenate([[0.0], np.cumsum(values)]), np.arange(len(values))
    first, last = np.maximum(here - half, 0), np.minimum(here + half + 1, len(values))
    return total[last] - total[first], last - first


def weighted(values, p, weighting):
    """Mean over pairs, over pairs in each of 15 equal bins and then over bins, or the same for clusters of p."""
    if weighting == "mean":
        return float(values.mean())
    if weighting == "bins":
        group = np.minimum((GROUPS * p).astype(int), GROUPS - 1)
    else:
        from sklearn.cluster import KMeans

        some = p[np.linspace(0, len(p) - 1, min(len(p), 100_000)).astype(int), None]
        clusters = KMeans(min(GROUPS, len(np.unique(some))), n_init=1, random_state=0).fit(some)
        centres = np.sort(clusters.cluster_centers_[:, 0])
        group = np.searchsorted((centres[1:] + centres[:-1]) / 2, p)
    sums, sizes = np.bincount(group, values), np.bincount(group)
    return float((sums[sizes > 0] / (sizes[sizes > 0] + (1e-5 if weighting == "clusters" else 0))).mean())


def binomial_deviation(n, p):
    """Mean absolute deviation of a binomial count, 2 k C(n,k) p^k (1-p)^(n-k+1) at k = floor(np) + 1."""
    from scipy.special import gammaln, xlog1py, xlogy

    k = np.floor(n * p).astype(int) + 1
    log_factorial = np.append(gammaln(np.arange(1, n.max() + 3)), np.inf)  # its last entry, at index -1, is that of -1
    return 2 * k * np.exp(log_factorial[n] - log_factorial[k] - log_factorial[n - k] + xlogy(k, p) + xlog1py(n - k + 1, -p))


@paper.measure(
    r"\bar e = \mathrm{mean}_i \max\Big(\Big|\frac{1}{M} \sum_{|j-i| \le (M-1)/2} (p_{(j)} - o_{(j)})\Big| - \epsilon,\, 0\Big),\quad M = \mathrm{window} + 1",
    requires={
        **DISTRIBUTIONS,
        "window must be even": lambda window: window % 2 == 0,
        "window must be less than the number of probabilities": lambda window, probabilities: window < np.size(probabilities),
    },
    sample=lambda rng: (
        draw_probabilities(rng) | {"window": int(2 * rng.integers(1, 4)), "epsilon": float(rng.uniform(0, 0.1)), "weighting": str(rng.choice(["mean", "bins", "clusters"]))}
    ),
    assumes=["For `floor` and `expected`: outcomes in a window are nearly independent; each sample has few of its classes in one window."],
)
def window_calibration(
    probabilities: PROBABILITIES,
    labels: LABELS,
    *,
    window: WINDOW = 200,
    epsilon: nonnegative(high=1, typical=(0, 0.1), doc="tolerance: only what exceeds it counts as an error") = 0.0,
    weighting: choice("mean", "bins", "clusters", doc="of pairs: equal, or equal for 15 equal-width bins, or for 15 clusters, of the probability") = "mean",
    drop_class: flag(doc="error as trained on in the source: mean over classes of the error without their samples; not zero for a calibrated model") = False,
) -> record(
    error=probability(),
    floor=probability(doc="mean over pairs of sqrt(2/pi) sqrt(p(1-p)/M): what chance alone makes of a calibrated model; too high where M p is below 1"),
    expected=probability(doc="mean error of a calibrated model at tolerance 0: exact binomial deviations, weighted as the error is over all samples"),
    max_error=probability(doc="largest gap of any window"),
    curve_p=vector("pairs", of=probability(), doc="all probabilities in order"),
    curve_gap=vector("pairs", of=real(low=-1, high=1), doc="prediction minus frequency in the window around each; positive where the model is too sure"),
):
    """Error of calibration in windows over all class probabilities, beside what chance alone would make it, and the signed reliability curve."""
    half, m = window // 2, window + 1
    order, p, gap = sorted_pairs(probabilities, labels)
    sums, held = window_sums(gap, half)
    curve = np.clip(sums / m, -1, 1)
    if drop_class:
        label_of_pair, errors = np.repeat(np.asarray(labels), np.shape(probabilities)[1])[order], []
        for dropped in range(np.shape(probabilities)[1]):
            kept = label_of_pair != dropped
            if kept.sum() <= window:
                raise DomainError(f"window must be less than the number of probabilities left without class {dropped}, {kept.sum()}; it was {window}.")
            errors.append(weighted(np.maximum(np.abs(window_sums(gap[kept], half)[0]) / m - epsilon, 0), p[kept], weighting))
        error = float(np.mean(errors))
    else:
        error = weighted(np.maximum(np.abs(curve) - epsilon, 0), p, weighting)
    chance = binomial_deviation(held, np.clip(window_sums(p, half)[0] / held, 0, 1)) / m
    return {
        "error": error,
        "floor": float(np.sqrt(2 / np.pi / m) * np.sqrt(p * (1 - p)).mean()),
        "expected": weighted(chance, p, weighting),
        "max_error": float(np.abs(curve).max()),
        "curve_p": p,
        "curve_gap": curve,
    }


def objective_and_gradient(probabilities, labels, objective, window):
    """The objective and its gradient in the probabilities; that of the windows with the order frozen, which is exact as long as no two values swap."""
    n, rows = len(labels), np.arange(len(labels))
    gradient = np.zeros(probabilities.shape)
    if objective == "nll":
        at = np.maximum(probabilities[rows, labels], 1e-300)
        gradient[rows, labels] = -1 / (n * at)
        return float(-np.log(at).mean()), gradient
    order, _, gap = sorted_pairs(probabilities, labels)
    sums = window_sums(gap, window // 2)[0]
    scale = 1 / ((window + 1) * gap.size)
    gradient.ravel()[order] = window_sums(np.sign(sums), window // 2)[0] * scale
    return float(np.abs(sums).sum() * scale), gradient


def mapped(log_p, kind, parameters):
    """Probabilities after a map, and how a gradient in them turns into one in the logarithms of its parameters. The temperature is a piecewise map of one segment."""
    if kind == "mixture":
        weights, factors = np.split(np.asarray(parameters), 2)
        weights = weights / weights.sum()
        parts = [softmax(a * log_p) for a in factors]

        def pulled_back(g):
            of_weights = np.array([np.vdot(g, s) for s in parts])
            of_factors = [np.vdot(s * (g - (g * s).sum(1, keepdims=True)), log_p) for s in parts]
            return np.concatenate([weights * (of_weights - weights @ of_weights), weights * factors * of_factors])

        return sum(w * s for w, s in zip(weights, parts, strict=True)), pulled_back
    slopes, length = np.asarray(parameters), 100 / len(parameters)
    k = np.minimum(-log_p / length, len(slopes) - 1).astype(int)
    inside = -log_p - k * length
    p = softmax(-(length * np.concatenate([[0], np.cumsum(slopes)])[k] + slopes[k] * inside))

    def pulled_back_slopes(g):
        g = p * (g - (g * p).sum(1, keepdims=True))
        here, through = (np.bincount(k.ravel(), (g * w).ravel(), len(slopes)) for w in (inside, length))
        return -slopes * (here + through.sum() - np.cumsum(through))

    return p, pulled_back_slopes


def fit_temperature(log_p, evaluate):
    """Factor of the logits between 0.05 and 5: a bounded search around the best of a few."""
    from scipy.optimize import minimize_scalar

    def loss(log_factor):
        return evaluate(softmax(np.exp(log_factor) * log_p))[0]

    grid = np.linspace(np.log(0.05), np.log(5), 13)
    values = [loss(t) for t in grid]
    best = int(np.argmin(values))
    found = minimize_scalar(loss, bounds=(grid[max(best - 1, 0)], grid[min(best + 1, 12)]), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x if found.fun <= values[best] else grid[best]))


def descend(log_p, kind, evaluate, start):
    """Parameters by L-BFGS on their logarithms."""
    from scipy.optimize import minimize

    def loss(theta):
        p, pulled_back = mapped(log_p, kind, np.exp(theta))
        value, gradient = evaluate(p)
        return value, pulled_back(gradient)

    return np.exp(minimize(loss, np.log(start), jac=True, method="L-BFGS-B", bounds=[(-10, 10)] * len(start)).x)


LOGITS = [[3.0, 0.0, -1.0], [2.5, 0.5, 0.0], [0.0, 1.0, 2.0], [0.5, 0.0, -2.0], [0.0, 3.0, 1.0], [2.0, 1.0, 1.5]]


@paper.algorithm(
    r"\min_\theta \mathcal{L}\big(g_\theta(\log \mathrm{softmax}\, z)\big),\quad g_\theta \text{ monotone}",
    requires={
        IN_RANGE: lambda labels, logits: np.max(labels) < np.shape(logits)[1],
        "window must be even": lambda window: window % 2 == 0,
        "window must be less than the number of logits": lambda window, logits, objective: objective == "nll" or window < np.size(logits),
    },
    sample=draw_recalibration,
)
def recalibrate(
    logits: matrix("N", "C", of=real(typical=(-4, 4)), doc="held-out logits", example=LOGITS),
    labels: LABELS,
    *,
    apply_to: matrix("K", "C", of=real(typical=(-4, 4)), doc="logits to be recalibrated; those of the fit where not given") = None,
    kind: choice("temperature", "piecewise", "mixture") = "temperature",
    segments: count(typical=(1, 20), high=10_000, doc="of the piecewise map") = 10,
    components: count(typical=(1, 6), high=1000, doc="of the mixture") = 8,
    objective: choice("window", "nll", doc="mean window error, or mean negative log-likelihood in nats") = "window",
    seed: seed() = 0,
    window: WINDOW = 200,
) -> record(
    parameters=vector("parameters", of=nonnegative(), doc="factor of the logits; or slopes from 0 down to -100; or weights, then factors"),
    probabilities=matrix("K", "C", of=probability()),
    before=nonnegative(doc="objective of the given logits"),
    after=nonnegative(doc="objective of the recalibrated ones"),
):
    """Monotone map of the log-probabilities that makes the objective small on held-out data; no sample's ranking of classes changes."""
    from scipy.special import log_softmax

    labels = np.asarray(labels)
    log_p = log_softmax(np.asarray(logits, float), axis=1)

    def evaluate(p):
        return objective_and_gradient(p, labels, objective, window)

    factor = fit_temperature(log_p, evaluate)
    parameters = np.array([factor])
    if kind == "piecewise":
        parameters = descend(log_p, kind, evaluate, np.full(segments, factor))
    if kind == "mixture":
        spread = np.random.default_rng(seed).normal(0, 0.5, components)
        parameters = descend(log_p, kind, evaluate, np.concatenate([np.ones(components), factor * np.exp(spread)]))
        parameters[:components] /= parameters[:components].sum()
    target = log_p if apply_to is None else log_softmax(np.asarray(apply_to, float), axis=1)
    return {
        "parameters": parameters,
        "probabilities": np.clip(mapped(target, kind, parameters)[0], 0, 1),
        "before": evaluate(np.exp(log_p))[0],
        "after": evaluate(mapped(log_p, kind, parameters)[0])[0],
    }


@paper.measure(r"\sum_b \frac{1}{N} \Big|\sum_{i \in b} (1\{\hat y_i = y_i\} - \hat p_i)\Big|", requires=DISTRIBUTIONS, sample=draw_probabilities)
def top_label_ece(
    probabilities: PROBABILITIES, labels: LABELS, *, bins: count("bins", typical=(2, 20), high=10**6) = 15, kind: choice("equal_width", "equal_mass") = "equal_width"
) -> probability():
    """Expected calibration error of the top class in bins of equal width or of equal numbers; above 0 by chance even for a calibrated model."""
    p = np.asarray(probabilities, float)
    gap = (p.argmax(1) == np.asarray(labels)) - p.max(1)
    if kind == "equal_width":
        group = np.maximum(np.searchsorted(np.linspace(0, 1, bins + 1), p.max(1), side="left") - 1, 0)
    else:
        group = np.empty(len(p), int)
        sizes = np.full(bins, len(p) // bins) + (np.arange(bins) < len(p) % bins)
        group[np.argsort(p.max(1), kind="stable")] = np.repeat(np.arange(bins), sizes)
    return float(min(np.abs(np.bincount(group, gap)).sum() / len(p), 1))


def without_padding(probabilities, labels, *, window, epsilon, weighting):
    found = window_calibration(probabilities, labels, window=window, weighting=weighting)
    curve = found["curve_gap"] * (window + 1) / window_sums(found["curve_p"], window // 2)[1]
    return found | {"error": weighted(np.maximum(np.abs(curve) - epsilon, 0), found["curve_p"], weighting)}


@paper.trial(
    Identity(atol=1e-12),
    of=[window_calibration, top_label_ece],
    controls={"windows cut at the ends": without_padding},
    quick=20,
    full=500,
)
def by_loops(draw, claim):
    """Windows and bins are formed one after another: the weighted error of the windows, and of the bins of the top class, are the same."""
    n, classes, half, epsilon = draw.integer(10, 50), draw.integer(2, 5), draw.integer(1, 4), draw.uniform(0, 0.1)
    p, labels, weighting = softmax(draw.normal(0, 2, (n, classes))), draw.rng.integers(0, classes, n), draw.choice(["mean", "bins"])
    pairs = sorted([(p[i, c], p[i, c] * (labels[i] != c) - (1 - p[i, c]) * (labels[i] == c)) for i in range(n) for c in range(classes)])
    errors = [max(abs(sum(gap for _, gap in pairs[max(i - half, 0) : i + half + 1])) / (2 * half + 1) - epsilon, 0) for i in range(len(pairs))]
    if weighting == "bins":
        binned = [[e for e, (value, _) in zip(errors, pairs, strict=True) if k <= 15 * value < k + 1] for k in range(15)]
        errors = [np.mean(b) for b in binned if b]
    top = [(row.max(), float(row.argmax() == label) - row.max()) for row, label in zip(p, labels, strict=True)]
    width = sum(abs(sum(gap for value, gap in top if b / 9 < value <= (b + 1) / 9)) for b in range(9)) / n
    mass = sum(abs(sum(gap for _, gap in part)) for part in np.array_split(sorted(top), 7)) / n
    ece = top_label_ece(p, labels, bins=9), top_label_ece(p, labels, bins=7, kind="equal_mass")
    return [claim(p, labels, window=2 * half, epsilon=epsilon, weighting=weighting)["error"], *ece], [np.mean(errors), width, mass]


def calibrated(rng, case="softmax", n=4000):
    """Predictions and labels drawn from them: softmax of wide logits over 5 or many classes, or two unbalanced classes."""
    p = np.stack([1 - (b := rng.beta(1, 4, n)), b], 1) if case == "skewed" else softmax(rng.normal(0, 2, (n, 2000)) if case == "many" else rng.normal(0, 4, (n, 5)))
    return p, np.minimum((rng.uniform(size=(n, 1)) > np.cumsum(p, 1)).sum(1), p.shape[1] - 1)


def a_class_dropped(probabilities, labels):
    return window_calibration(probabilities, labels, drop_class=probabilities.shape[1] == 2)


def normal_floor(probabilities, labels):
    found = window_calibration(probabilities, labels)
    return found | {"expected": found["floor"]}


@paper.trial(Guarantee(), of=[window_calibration], controls={"a class dropped": a_class_dropped, "normal floor for many classes": normal_floor}, quick=2, full=20)
def noise_floor(draw, claim):
    """The error of exact predictions is within 25% of the floor and of what is expected; over two thousand classes, of what is expected."""
    few, skewed, many = claim(*calibrated(draw.rng)), claim(*calibrated(draw.rng, "skewed", 40_000)), claim(*calibrated(draw.rng, "many", 100))
    ratios = [found["error"] / found[level] for found, level in ((few, "floor"), (few, "expected"), (skewed, "floor"), (skewed, "expected"), (many, "expected"))]
    return np.abs(np.array(ratios) - 1), 0.25


def left_alone(logits, labels, **options):
    p = softmax(logits)
    return {"parameters": np.ones(1), "probabilities": p, "before": 1.0, "after": 1.0}


def map_of_the_code(log_p, slopes):
    """Interpolates from the mapped value of the edge below; its slopes have one entry more, of which the first is an offset."""
    length = 100 / (len(slopes) - 1)
    k = np.minimum((-log_p / length).astype(int), len(slopes) - 2)
    base = (np.cumsum(slopes)[k] - 1) * length
    return -(base + np.asarray(slopes)[k + 1] * (-log_p - base))


def fitted_map_of_the_code(logits, labels, **options):
    found = recalibrate(logits, labels, **options)
    if options.get("kind") == "piecewise":
        found["probabilities"] = softmax(map_of_the_code(np.log(softmax(logits)), [1.0, *found["parameters"]]))
    return found


@paper.trial(Guarantee(), of=[recalibrate], controls={"left alone": left_alone, "the map of the source": fitted_map_of_the_code}, quick=1, full=5)
def repairs_confidence(draw, claim):
    """Exact logits that were multiplied by 2 get the factor 0.5 back; maps fitted to halved ones keep the order of every row and halve the window error."""
    p, labels = calibrated(draw.rng)
    factors = np.array([claim(2 * np.log(p), labels, objective=objective)["parameters"][0] for objective in ("nll", "window")])
    logits = np.log(p) / 2
    maps = [claim(logits, labels, kind=kind, segments=100, components=3) for kind in ("piecewise", "mixture")]
    swapped = max(np.mean(np.diff(np.take_along_axis(m["probabilities"], np.argsort(logits, 1), 1), axis=1) < 0) for m in maps)
    return [*np.abs(factors - 0.5), swapped, *[m["after"] / m["before"] for m in maps]], [0.03, 0.06, 0, 0.5, 0.5]


@paper.finding("""The loss that the source trains on drops the samples of each class in turn; for a calibrated model of two unbalanced classes it reports
an error of about 0.3 where the error of all samples is 0.02, all of it noise.""")
def dropping_a_class():
    p, labels = calibrated(np.random.default_rng(0), "skewed")
    whole, dropped = window_calibration(p, labels), window_calibration(p, labels, drop_class=True)
    return {"holds": dropped["error"] > 0.2 and whole["error"] < 0.03, "all_samples": whole["error"], "floor": whole["floor"], "class_dropped": dropped["error"]}


@paper.finding(
    """The piecewise linear map in the source's code is not monotone: a slope above 1 followed by any positive one makes it jump backwards, and the top class changes."""
)
def jumping_map():
    log_p = np.log([0.41, 0.33, 0.26])
    slopes = [1.0, 2.0, *[1.0] * 99]
    of_code, continuous = softmax(map_of_the_code(log_p, slopes)), mapped(log_p[None], "piecewise", slopes[1:])[0][0]
    return {"holds": bool(of_code.argmax() == 1 and continuous.argmax() == 0), "given": np.exp(log_p), "map_of_the_code": of_code, "continuous_map": continuous}
