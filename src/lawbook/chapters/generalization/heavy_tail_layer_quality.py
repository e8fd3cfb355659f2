"""The heavy tail of a layer's spectrum: its exponent, its determinant, and what noise of the same shape would show."""

import math

import numpy as np

from lawbook.contract import Paper, caution, count, integer, listing, matrix, nonnegative, optional, positive, real, record, seed, table, text, vector
from lawbook.numerics import arrays
from lawbook.numerics.singular import count_above, singular_values
from lawbook.trials import Coverage, Identity

paper = Paper(
    __name__,
    title="SETOL: A Semi-Empirical Theory of (Deep) Learning",
    arxiv="2507.17912",
    tags=["weights", "spectrum", "power law", "heavy tail", "random matrix", "layer quality", "checkpoint", "alpha"],
    source="code",
    says="""The eigenvalues of W'W of a trained layer end in a power law, and the exponent alpha of that tail says without any data how well the layer is trained: between 2 and
    6 it is, best near 2; below it is overcorrelated, above it looks like noise. A second criterion comes from a single renormalisation step: the eigenvalues of the tail
    multiply to 1 once their mean is 1. In an ideal layer both criteria name the same tail.""",
    notes="""Definitions are those of the tool WeightWatcher; the theory's quality integrals are not treated. The tool's fit, run beside ours, gave equal alphas. It differs on
    purpose: below 20 eigenvalues its version 0.7.7 corrects alpha for bias, it drops eigenvalues below 1e-5 and not relative to the largest, and of equal eigenvalues each is a
    candidate. Spikes are counted above what noise exceeds once in a thousand matrices (Tracy-Widom), since the bare Marchenko-Pastur edge flags one noise matrix in six.""",
)

TRACY_WIDOM = 3.27  # exceeded once in a thousand matrices
EXAMPLE = [0.11, 0.13, 0.2, 0.21, 0.3, 0.34, 0.41, 0.48, 0.5, 0.57, 0.63, 0.7, 0.76, 0.8, 0.91, 1.05, 1.2, 1.41, 1.66, 2.3, 2.9, 4.4, 7.8, 20.0]
EIGENVALUES = vector("N", of=nonnegative(scale="log", typical=(0.05, 20)), most=40, doc="of W'W, in any order and scale", example=EXAMPLE)
ROWS, COLUMNS = count("rows", typical=(10, 1000), example=400), count("columns", typical=(10, 1000), example=100)
FIT = {
    "alpha": real(low=1, above=True, nan=True, doc="exponent of the tail; NaN with fewer than 10 positive eigenvalues or all of them equal"),
    "sigma": nonnegative(nan=True, doc="standard error of alpha, the choice of xmin left aside; NaN where there is no fit"),
    "xmin": nonnegative(nan=True, doc="where the tail starts; NaN where there is no fit"),
    "ks": nonnegative(nan=True, high=1, doc="Kolmogorov-Smirnov distance of the tail to the power law; NaN where there is no fit"),
    "tail": count("eigenvalues", low=0, doc="eigenvalues of at least xmin"),
}


def significant(eigenvalues):
    """The eigenvalues that are not rounding noise, ascending."""
    values = np.sort(np.asarray(eigenvalues, float))
    return values[values > 1e-10 * values[-1]]


@paper.measure(
    r"\hat\alpha = 1 + n / \sum_{\lambda \ge x} \ln(\lambda / x),\quad x = \arg\min_x \max_j \left|1 - (\lambda_j/x)^{1-\hat\alpha} - \tfrac{j-1}{n}\right|",
    assumes=["The reading as quality (2 to 6 well trained) is empirical, and meant for layers with at least some 50 eigenvalues."],
)
def power_law_alpha(eigenvalues: EIGENVALUES) -> record(**FIT):
    """Exponent of the power-law tail of a spectrum, by maximum likelihood above the start that fits best."""
    values = significant(eigenvalues)
    size = len(values)
    if size < 10 or values[-1] < values[0] * (1 + 1e-9):
        caution(
            f"A tail needs 10 positive eigenvalues that are not all equal; these {size} are all equal."
            if size >= 10
            else f"A tail needs 10 positive eigenvalues; there are {size}."
        )
        return {"alpha": math.nan, "xmin": math.nan, "ks": math.nan, "sigma": math.nan, "tail": 0}
    logs = np.log(values)
    starts = np.flatnonzero(np.append(True, values[1:] > values[:-1]) & (values < values[-1]))
    n = size - starts
    # sums from the top down, of logarithms relative to the largest
    sums = np.cumsum((logs - logs[-1])[::-1])[::-1][starts] - n * (logs[starts] - logs[-1])
    exponents = n / sums

    def distances(rows, columns):
        """|model - observed| of the tails that start at `starts[rows]`, at positions `columns` of the spectrum."""
        first = starts[rows]
        return np.abs(-np.expm1(exponents[rows] * (logs[first] - logs[columns])) - (columns - first) / n[rows])

    # some points of each tail bound its distance from below: most starts are ruled out by them, the promising ones are tried first
    probes = starts[:, None] + np.linspace(0, 1, 48) * (n - 1)[:, None]
    bounds = distances(np.arange(len(starts))[:, None], probes.astype(int)).max(1)
    best, ks = 0, math.inf
    for candidate in np.argsort(bounds, kind="stable"):
        if bounds[candidate] > ks:
            break
        distance = distances(candidate, np.arange(starts[candidate], size)).max()
        if (distance, candidate) < (ks, best):
            best, ks = candidate, distance
    tail = int(n[best])
    return {"alpha": float(1 + exponents[best]), "xmin": float(values[starts[best]]), "ks": float(ks), "sigma": float(exponents[best] / math.sqrt(tail)), "tail": tail}


@paper.measure(r"n^* = \min\{n : \textstyle\sum_{k \le n} \ln \tilde\lambda_{(k)} < 0\},\quad \tilde\lambda = \lambda N / \sum \lambda")
def trace_log_tail(eigenvalues: EIGENVALUES) -> record(
    count=count("eigenvalues", low=0, doc="of the tail; all positive ones where the product never falls below 1"),
    start_index=integer(low=0, doc="position of the tail's start, from 0 in ascending order"),
    start_value=nonnegative(nan=True, doc="rescaled eigenvalue where the tail starts; NaN where all are 0"),
    log_det=real(doc="logarithm of the product of the tail"),
):
    """Largest eigenvalues, rescaled to mean 1, that multiply to about 1: the tail grows from the top until the product first falls below 1."""
    values = significant(eigenvalues)
    if not len(values):
        return {"count": 0, "start_index": len(eigenvalues), "start_value": math.nan, "log_det": 0.0}
    logs = np.log(values / values.mean())
    sums = np.cumsum(logs[::-1])
    below = sums < -1e-12  # by more than rounding
    number = int(np.argmax(below)) + 1 if below.any() else len(values)
    return {"count": number, "start_index": len(eigenvalues) - number, "start_value": float(values[-number] / values.mean()), "log_det": float(sums[number - 1])}


@paper.measure(r"\alpha \log_{10} \lambda_{\max},\quad \log_{10} \sum \lambda^\alpha,\quad \sum \lambda / \lambda_{\max}")
def spectral_metrics(eigenvalues: EIGENVALUES, *, alpha: real(low=1, above=True, typical=(1.5, 8), doc="exponent of the tail; fitted where not given") = None) -> record(
    alpha_weighted=real(nan=True, doc="alpha-hat; NaN where there is no alpha"),
    log_alpha_norm=real(nan=True, doc="NaN where there is no alpha"),
    stable_rank=real(low=1 - 1e-12, nan=True, doc="NaN where all eigenvalues are 0"),
    log_spectral_norm=real(nan=True, doc="log10 of the largest eigenvalue; NaN where it is 0"),
):
    """Metrics of a layer that weigh the exponent with the scale, in base-10 logarithms."""
    values = significant(eigenvalues)
    alpha = power_law_alpha(eigenvalues)["alpha"] if alpha is None else alpha
    if not len(values):
        return dict.fromkeys(("alpha_weighted", "log_alpha_norm", "stable_rank", "log_spectral_norm"), math.nan)
    ratios, top = values / values[-1], math.log10(values[-1])
    return {
        "alpha_weighted": alpha * top,
        "log_alpha_norm": alpha * top + float(np.log10(np.sum(ratios**alpha))),  # the largest term taken out: no overflow
        "stable_rank": float(ratios.sum()),
        "log_spectral_norm": top,
    }


@paper.law(r"\lambda_\pm = \sigma^2 (1 \pm \sqrt{c})^2,\quad c = \min(m, n) / \max(m, n)", closed_form=True, gives={"low": 0.25, "high": 2.25})
def mp_edges(rows: ROWS, columns: COLUMNS, *, sigma: nonnegative(typical=(0.1, 3), doc="standard deviation of an entry") = 1.0) -> record(low=nonnegative(), high=nonnegative()):
    """Edges of the Marchenko-Pastur law: between them lie the eigenvalues of W'W / max(rows, columns) of a large matrix with independent entries."""
    xp, m, n, s = arrays(rows, columns, sigma)
    root = xp.sqrt(xp.minimum(m, n) / xp.maximum(m, n))
    return {"low": (s * (1 - root)) ** 2, "high": (s * (1 + root)) ** 2}


def noise_ceiling(shape, sigma):
    """What the largest eigenvalue of W'W of pure noise exceeds once in a thousand matrices: the edge and Tracy-Widom's fluctuation of it."""
    m, n = (max(float(length), 1.0) for length in shape)
    return max(m, n) * mp_edges(m, n, sigma=sigma)["high"] + TRACY_WIDOM * sigma**2 * (math.sqrt(m) + math.sqrt(n)) * (m**-0.5 + n**-0.5) ** (1 / 3)


@paper.algorithm(r"\hat\alpha \pm \sigma,\ x,\ D,\ n^*,\ \Delta = \tilde x - \tilde\lambda_{n^*},\ \#\{\lambda > \lambda_+\},\ \#\{\lambda^{\mathrm{shuffled}} > \lambda_+\}")
def layer_report(
    weights: listing(
        record(
            name=text(),
            matrix=matrix("m", "n", of=real(low=-1e30, high=1e30, typical=(-3, 3))),
            eigenvalues=optional(vector("k", of=nonnegative(), doc="of W'W, where they are known already")),
        ),
        least=1,
        example=[{"name": "layer", "matrix": np.cos(np.outer(np.arange(1, 13), np.arange(1, 16))).tolist()}],
    ),
    seed: seed(example=0),
) -> table(
    name=text(),
    rows=count("rows"),
    columns=count("columns"),
    **FIT,
    erg_count=count("eigenvalues", low=0, doc="of the tail of unit determinant"),
    delta=real(nan=True, doc="start of the power-law tail less that of the tail of unit determinant, at mean eigenvalue 1; NaN where there is no fit"),
    spikes=count("eigenvalues", low=0, doc="above what noise of the same variance reaches"),
    soft_rank=nonnegative(nan=True, doc="Marchenko-Pastur edge over the largest eigenvalue: near 1 for noise; NaN for a matrix of zeros"),
    traps=count("eigenvalues", low=0, doc="spikes that survive shuffling the entries: a few huge entries, or a mean"),
):
    """Each layer's tail by both criteria, and beside it what the same entries show in random order. Costs one set of eigenvalues and one factorisation a layer."""
    rng, rows = np.random.default_rng(seed), []
    for layer in weights:
        a, known = np.asarray(layer["matrix"]), layer.get("eigenvalues")
        values = singular_values(a) ** 2 if known is None else np.asarray(known, float)
        fit, erg, sigma, top = power_law_alpha(values), trace_log_tail(values), float(a.std(dtype=float)), float(values.max())
        ceiling = max(noise_ceiling(a.shape, sigma), 1e-6 * top)  # what is smaller is rounding
        rows.append(
            {"name": layer["name"], "rows": a.shape[0], "columns": a.shape[1], "erg_count": erg["count"], "spikes": int(np.sum(values > ceiling))}
            | {key: fit[key] for key in ("alpha", "sigma", "xmin", "ks", "tail")}
            | {
                "delta": float(fit["xmin"] / significant(values).mean() - erg["start_value"]) if fit["tail"] else math.nan,
                "soft_rank": max(a.shape) * float(mp_edges(*a.shape, sigma=sigma)["high"]) / top if top > 0 else math.nan,
                "traps": count_above(rng.permutation(a.ravel()).reshape(a.shape), ceiling) if top > 0 else 0,
            }
        )
    return {key: [row[key] for row in rows] for key in rows[0]}


@paper.model(r"W = U \sqrt{\Lambda} V^\top,\quad \Pr[\Lambda > x] = x^{1-\alpha}")
def teacher_spectrum(seed: seed(example=0), *, rows: ROWS, columns: COLUMNS, tail_exponent: positive(low=1, typical=(1.5, 6), doc="alpha", example=2.5)) -> matrix(
    "rows", "columns"
):
    """A synthetic heavy-tailed layer of known exponent: random directions, eigenvalues of W'W from a power law above 1."""
    rng, rank = np.random.default_rng(seed), min(rows, columns)
    left, right = (np.linalg.qr(rng.normal(size=(length, rank)))[0] for length in (rows, columns))
    return left * rng.uniform(1e-300, 1, rank) ** (-0.5 / (tail_exponent - 1)) @ right.T


def from_the_least(eigenvalues):
    exponent = 1 / np.log(eigenvalues / np.min(eigenvalues)).mean()
    return {"alpha": 1 + exponent, "xmin": np.min(eigenvalues), "ks": 0.0, "sigma": exponent / math.sqrt(len(eigenvalues)), "tail": len(eigenvalues)}


def natural_logarithms(eigenvalues, *, alpha=None):
    return {key: value * math.log(10) for key, value in spectral_metrics(eigenvalues, alpha=alpha).items()}


CONTROLS = {"all eigenvalues in the tail": (from_the_least, spectral_metrics), "natural logarithm": (power_law_alpha, natural_logarithms)}


@paper.trial(Identity(rtol=1e-9), of=[power_law_alpha, spectral_metrics, trace_log_tail], claim=(power_law_alpha, spectral_metrics), controls=CONTROLS, quick=8, full=200)
def plain_search(draw, claim):
    """The definitions with nothing skipped, by scipy's Pareto law from every start and by plain products, on spectra of heavy-tailed layers and of noise."""
    from scipy.stats import pareto

    fit, metrics = claim
    rows, columns = draw.integer(15, 150), draw.integer(15, 150)
    w = draw.rng.normal(size=(rows, columns)) + draw.choice([0, 1]) * teacher_spectrum(draw.integer(0, 10**6), rows=rows, columns=columns, tail_exponent=draw.uniform(1.5, 5))
    x = np.sort(np.linalg.svd(w, compute_uv=False) ** 2)
    tried = []
    for i in range(len(x) - 1):
        tail = x[i:]
        b = 1 / np.log(tail / x[i]).mean()
        tried.append((np.abs(pareto.cdf(tail, b, scale=x[i]) - np.arange(len(tail)) / len(tail)).max(), 1 + b, x[i], len(tail)))
    distance, alpha, start, number = min(tried)
    rescaled = x * len(x) / x.sum()
    erg = next(k for k in range(1, len(x) + 1) if k == len(x) or np.prod(rescaled[-k:]) < 1)
    computed = [alpha, start, distance, number, alpha * math.log10(x[-1]), math.log10(np.sum(x**alpha)), x.sum() / x[-1], erg, rescaled[-erg]]
    found, scaled, product = fit(x), metrics(x, alpha=alpha), trace_log_tail(x)
    claimed = [found[key] for key in ("alpha", "xmin", "ks", "tail")] + [scaled[key] for key in ("alpha_weighted", "log_alpha_norm", "stable_rank")]
    return computed, claimed + [product["count"], product["start_value"]], {"rows": rows, "columns": columns}


@paper.trial(Coverage(at_most=0.05, detect=0.3), of=[power_law_alpha, teacher_spectrum], controls={"all eigenvalues in the tail": from_the_least}, quick=80, full=300)
def known_exponent(draw, fit):
    """Pure power laws give their exponent within three standard errors in 95 of 100 cases, and one above as many values of a bulk gives it within 5 percent."""
    n, alpha = 1500, draw.uniform(1.7, 4)
    tail = draw.rng.uniform(size=n) ** (-1 / (alpha - 1))
    pure, mixed = fit(tail), fit(np.append(tail, draw.rng.uniform(0.1, 1, n)))
    layer = singular_values(teacher_spectrum(draw.integer(0, 10**9), rows=120, columns=80, tail_exponent=alpha))
    off = (2 * np.log(layer).mean() * (alpha - 1) - 1) * math.sqrt(len(layer))
    return {"layer of known exponent": abs(off) > 3, "pure": abs(pure["alpha"] - alpha) > 3 * pure["sigma"], "above a bulk": abs(mixed["alpha"] - alpha) > 0.05 * alpha}


def without_root(rows, columns, *, sigma=1.0):
    c = min(rows, columns) / max(rows, columns)
    return {"low": sigma**2 * (1 - c) ** 2, "high": sigma**2 * (1 + c) ** 2}


@paper.trial(Identity(rtol=1e-6), of=[mp_edges], controls={"c without its root": without_root}, quick=30, full=500)
def marchenko_pastur_moments(draw, edges):
    """Between the edges the Marchenko-Pastur density integrates to 1, with the mean and mean square of W'W / max(rows, columns)."""
    rows, columns, sigma = draw.integer(10, 2000), draw.integer(10, 2000), draw.uniform(0.1, 3)
    c, found = min(rows, columns) / max(rows, columns), edges(rows, columns, sigma=sigma)
    low, high = float(found["low"]), float(found["high"])
    # in t, with x = middle + half cos(t), the density is smooth and the midpoint rule converges geometrically
    t = (np.arange(200_000) + 0.5) * math.pi / 200_000
    x = (low + high + (high - low) * np.cos(t)) / 2
    density = ((high - low) / 2 * np.sin(t)) ** 2 / (2 * c * sigma**2 * x) / len(t)
    return [density.sum(), (density * x).sum() / sigma**2, (density * x * x).sum() / sigma**4], [1, 1, 1 + c], {"rows": rows, "columns": columns}


def against_half_the_variance(weights, seed):
    return layer_report([{**layer, "matrix": layer["matrix"] / math.sqrt(2), "eigenvalues": singular_values(layer["matrix"]) ** 2} for layer in weights], seed)


@paper.trial(Identity(rtol=1e-7), of=[layer_report, power_law_alpha, trace_log_tail], controls={"noise of half the variance": against_half_the_variance}, quick=6, full=100)
def planted(draw, report):
    """Planted directions are counted as spikes that vanish with shuffling, one huge entry as a trap; noise has neither. Columns agree with single results on an SVD."""
    m, n, spikes = draw.integer(150, 250), draw.integer(60, 400), draw.integer(1, 4)
    noise = draw.rng.normal(size=(m, n))
    left, right = (np.linalg.qr(draw.rng.normal(size=(length, spikes)))[0] for length in (m, n))
    directions = noise + 2.5 * (math.sqrt(m) + math.sqrt(n)) * left @ right.T
    entry = noise.copy()
    entry[draw.integer(0, m - 1), draw.integer(0, n - 1)] = 4 * (math.sqrt(m) + math.sqrt(n))
    found = report([{"name": name, "matrix": w} for name, w in (("noise", noise), ("directions", directions), ("entry", entry))], draw.integer(0, 1000))
    computed, claimed = [0, spikes, 1, 0, 0, 1], [*found["spikes"], *found["traps"]]
    for row, w in enumerate((noise, directions, entry)):
        values = np.linalg.svd(w, compute_uv=False) ** 2
        fit, edge = power_law_alpha(values), (math.sqrt(m) + math.sqrt(n)) ** 2 * w.var()
        computed += [fit["alpha"], fit["sigma"], fit["xmin"] / values.mean() - trace_log_tail(values)["start_value"], edge / values.max()]
        claimed += [found[key][row] for key in ("alpha", "sigma", "delta", "soft_rank")]
    return computed, claimed, {"rows": m, "columns": n, "spikes": spikes}


@paper.finding(
    """Alpha alone cannot tell a trained layer from noise: a good part of Gaussian 400 x 100 matrices (at least a quarter of 40) falls into the band from 2 to 6 that reads as
    well trained, on tails of a few dozen eigenvalues and with standard errors of 0.5 and more. The count of spikes above the noise edge tells them apart."""
)
def noise_looks_trained():
    rng = np.random.default_rng(0)
    report = layer_report([{"name": str(i), "matrix": rng.normal(size=(400, 100))} for i in range(40)], 0)
    inside = [2 <= alpha <= 6 for alpha in report["alpha"]]
    ranges = {key: [min(report[key]), max(report[key])] for key in ("alpha", "tail", "sigma", "spikes")}
    return {"holds": sum(inside) >= 10 and not any(report["spikes"]), "inside_the_band": sum(inside), "of": len(inside), **ranges}


@paper.finding(
    """A determinant taken as a plain product, as in the tool, leaves the floating-point range for layers of a few thousand: it then names another tail than its logarithm."""
)
def plain_product_breaks():
    # eigenvalues of noise, 4096 x 4096: squares of semicircle quantiles
    t = np.linspace(0, math.pi / 2, 100_001)
    x = np.interp((np.arange(4096) + 0.5) / 4096, (2 * t + np.sin(2 * t)) / math.pi, 4 * np.sin(t) ** 2)
    with np.errstate(over="ignore", under="ignore"):
        plain = next(k for k in range(1, len(x) + 1) if k == len(x) or np.prod(x[-k:] / x.mean()) < 1)
    right = trace_log_tail(x)["count"]
    return {"holds": plain != right, "count_by_product": plain, "count_by_logarithms": right}
