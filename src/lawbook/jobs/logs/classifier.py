"""Logits or probabilities with labels: accuracy, calibration beside its noise floor, and a map that repairs it, scored on rows that it has not seen."""

import numpy as np

from ...chapters.trust.h_calibration import recalibrate, top_label_ece, window_calibration
from ...numerics import softmax
from ...numerics.statistics import normal_quantile
from .sheet import Picture, Series, percent

BOOK = "h-calibration"
FEWEST = 200  # rows, for calibration to be measured
WINDOW = 200
SIMULATED = 200  # data sets drawn from the model's own probabilities
SIMULATED_ROWS = 20_000
CURVE = 400  # points of the picture


def measures(data, sheet, *, seed=0, **_):
    """`data` has logits [N, C] or probabilities [N, C], and labels [N]."""
    labels = np.asarray(data["labels"], int)
    logits = data.get("logits")
    p = softmax(np.asarray(logits, float)) if logits is not None else np.asarray(data["probabilities"], float)
    if logits is None:
        logits = np.log(np.maximum(p, 1e-300))
    sheet.section = "Classifier"
    rows, classes = p.shape
    right = p.argmax(1) == labels
    accuracy = sheet.rate("accuracy", f"{BOOK}.top_label_ece", int(right.sum()), rows, meaning=f"Top label right, of {rows:,} rows with {classes} classes.")
    likelihood = -np.log(np.maximum(p[np.arange(rows), labels], 1e-300))
    sheet.mean("negative log-likelihood", f"{BOOK}.recalibrate", likelihood, "rows", unit="nats")
    if len(np.unique(labels)) < 2 or rows < FEWEST:
        sheet.headlines.append(f"The classifier is right in {percent(accuracy.value)} of {rows:,} rows.")
    if len(np.unique(labels)) < 2:
        sheet.distrust("calibration", f"{BOOK}.window_calibration", f"All labels are of class {labels[0]}: frequencies of the other classes cannot be compared with anything.")
        return
    if rows < FEWEST:
        sheet.distrust("calibration", f"{BOOK}.window_calibration", f"It takes {FEWEST} rows; there are {rows}.")
        return
    window = min(WINDOW, (rows * classes // 20) // 2 * 2)
    found = window_calibration(p, labels, window=window)
    draws = simulated(p, window, seed)
    floor = float(np.mean(draws["error"]))
    p_value = (1 + np.sum(draws["error"] >= draws["observed"](p, labels))) / (1 + SIMULATED)
    sheet.add(
        "calibration error",
        f"{BOOK}.window_calibration",
        found["error"],
        meaning=f"Mean gap between probability and frequency in windows of {window + 1} neighbouring probabilities. A calibrated model of this size would show {floor:.4f}.",
    )
    low, high = np.quantile(draws["error"], [(1 - sheet.level) / 2, (1 + sheet.level) / 2])
    sheet.add(
        "its noise floor",
        f"{BOOK}.window_calibration",
        floor,
        low=float(low),
        high=float(high),
        interval="where the error of a calibrated model would lie",
        meaning=f"Mean over {SIMULATED} sets of labels drawn from the model's own probabilities; the formula says {found['expected']:.4f}.",
    )
    sheet.test(
        "the model is calibrated",
        f"{BOOK}.window_calibration",
        p_value,
        meaning="Share of label sets drawn from the model's own probabilities whose error is as large: exact at any size.",
    )
    ece = top_label_ece(p, labels)
    sheet.add(
        "top-label ECE", f"{BOOK}.top_label_ece", ece, meaning=f"15 bins of equal width; drawn from the model's own probabilities it would be {np.mean(draws['ece']):.4f}, not 0."
    )
    _curve("as given", found, sheet)
    gained = _repair(np.asarray(logits, float), labels, sheet, window, seed)
    sheet.headlines.insert(0, _in_words(accuracy.value, found["error"], floor, p_value, gained, sheet.outputs["temperature"]))


def simulated(p, window, seed):
    """Errors of label sets drawn from the probabilities themselves: what perfect calibration looks like at this size."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(p), SIMULATED_ROWS, replace=False)) if len(p) > SIMULATED_ROWS else np.arange(len(p))
    part = p[rows]
    edges = np.cumsum(part, 1)
    errors, eces = [], []
    for _ in range(SIMULATED):
        labels = np.minimum((rng.uniform(size=(len(part), 1)) > edges / edges[:, -1:]).sum(1), p.shape[1] - 1)
        errors.append(window_calibration(part, labels, window=window)["error"])
        eces.append(top_label_ece(part, labels))
    return {"error": np.array(errors), "ece": np.array(eces), "observed": lambda q, labels: window_calibration(q[rows], labels[rows], window=window)["error"]}


def _repair(logits, labels, sheet, window, seed):
    """A temperature fitted on one half of the rows and scored on the other."""
    order = np.random.default_rng(seed).permutation(len(labels))
    fitted, held = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    before = softmax(logits[held])
    made = recalibrate(logits[fitted], labels[fitted], apply_to=logits[held], kind="temperature", objective="nll", seed=seed)
    after = made["probabilities"]
    factor = float(made["parameters"][0])
    temperature, half = 1 / factor, normal_quantile((1 - sheet.level) / 2) * error_of(factor, logits[fitted], labels[fitted])
    sheet.add(
        "repairing temperature",
        f"{BOOK}.recalibrate",
        temperature,
        low=1 / (factor + half),
        high=1 / (factor - half) if factor > half else np.inf,
        interval="normal, by the scatter of the likelihood's slopes",
        meaning="Logits divided by it are as sure as they should be; fitted on one half of the rows by likelihood. Top labels stay as they are.",
    )
    rows = np.arange(len(held))
    gain = np.log(np.maximum(after[rows, labels[held]], 1e-300)) - np.log(np.maximum(before[rows, labels[held]], 1e-300))
    gained = sheet.mean("gain of the repair", f"{BOOK}.recalibrate", gain, "held-out rows", unit="nats per row", meaning="Less negative log-likelihood on the other half.")
    errors = [window_calibration(q, labels[held], window=window) for q in (before, after)]
    sheet.add("calibration error before, held out", f"{BOOK}.window_calibration", errors[0]["error"])
    sheet.add(
        "calibration error after, held out", f"{BOOK}.window_calibration", errors[1]["error"], meaning=f"A calibrated model would show {errors[1]['expected']:.4f} on this half."
    )
    _curve("repaired, held out", errors[1], sheet)
    sheet.outputs["temperature"] = temperature
    return gained


def error_of(factor, logits, labels):
    """Standard error of the factor of logits that the likelihood is largest at: scatter of its slopes over its curvature."""
    p = softmax(factor * logits)
    mean = (p * logits).sum(1)
    slopes = logits[np.arange(len(labels)), labels] - mean
    curvature = ((p * logits**2).sum(1) - mean**2).mean()
    return float(slopes.std() / (curvature * np.sqrt(len(labels)))) if curvature > 0 else np.inf


def _curve(name, found, sheet):
    p, gap = np.asarray(found["curve_p"]), np.asarray(found["curve_gap"])
    at = np.unique(np.linspace(0, len(p) - 1, CURVE).astype(int))
    series = [Series("probability minus frequency", p[at], gap[at])]
    sheet.pictures.append(Picture(f"Calibration, {name}", "probability", "probability minus frequency, moving average", series))


def _in_words(accuracy, error, floor, p_value, gained, temperature):
    right = f"The classifier is right in {percent(accuracy)} of the rows, and"
    if p_value >= 0.01:
        return f"{right} no miscalibration beyond noise can be seen ({error:.2g}, noise {floor:.2g})."
    sure = "over-confident" if temperature > 1 else "under-confident"
    mend = f"It is {sure}: divide the logits by {temperature:.3g}." if gained.low is not None and gained.low > 0 else "No single temperature mends it for certain."
    return f"{right} its probabilities are off by {error:.2g} on average where {floor:.2g} would be noise. {mend}"
