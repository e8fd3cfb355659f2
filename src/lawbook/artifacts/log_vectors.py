"""Logits with labels and embeddings in their canonical form: matrices of as many columns as most of the first rows have."""

import math

import numpy as np

from .log_rows import SUM, floats_of, number_of, picked


def matrix(column, width, lines, faults, name):
    """(matrix[n, width] of floats, which rows are one) of lists or of an array; rows of other lengths are faults."""
    if isinstance(column, np.ndarray) and column.ndim == 2:
        return column.astype(float, copy=False), np.ones(len(column), bool)
    column = [[*value.values()] if isinstance(value, dict) else value for value in column]
    found = [floats_of(value) for value in column]
    fine = np.array([values is not None and len(values) == width for values in found], bool)
    for row in np.flatnonzero(~fine):
        faults.add(f"{name} is no list of {width} numbers", lines[int(row)])
    return np.array([values if ok else [math.nan] * width for values, ok in zip(found, fine, strict=True)], float).reshape(-1, width), fine


def logits(reading, roles, lines, faults):
    """logits or probabilities: matrix[n, C]; labels: whole numbers [n] from 0 on."""
    name = "logits" if "logits" in roles else "probabilities"
    values, keep = matrix(roles[name], reading["width"], lines, faults, name)
    labels, faulty = _classes(roles["labels"], reading["width"], "label")
    if name == "logits":
        faulty["logits with NaN"] = np.isnan(values).any(1)
        faulty["logits that are infinite"] = (values == np.inf).any(1) | (values == -np.inf).all(1)
    else:
        values, more = _distributions(values, keep, reading)
        faulty |= more
    return _without(faulty, {name: values, "labels": labels}, keep, lines, faults)


def steps(reading, roles, lines, faults):
    """step_probabilities: matrix[n, V]; tokens: whole numbers [n] from 0 on."""
    values, keep = matrix(roles["step_probabilities"], reading["width"], lines, faults, "step_probabilities")
    tokens, faulty = _classes(roles["tokens"], reading["width"], "token")
    values, more = _distributions(values, keep, reading)
    return _without(faulty | more, {"step_probabilities": values, "tokens": tokens}, keep, lines, faults)


def _classes(column, width, what):
    """(whole numbers from 0 to width - 1, which rows have none under the sentence that says so)."""
    numbers = [number_of(v) for v in column]
    classes = np.array([int(v) if v is not None and v in range(width) else -1 for v in numbers], int)
    return classes, {f"a {what} that is no whole number from 0 to {width - 1}": classes < 0}


def _distributions(values, keep, reading):
    """(probabilities divided by their sums, which rows are none under the sentences that say why); sums far from one are divided out only if the reader asks for it."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = values.sum(1)
        off = np.abs(total - 1)
        reading["worst"] = max(reading.get("worst", 0.0), float(np.nanmax(off[keep], initial=0.0)))
        faulty = {"probabilities with NaN": np.isnan(total), "probabilities below 0": (values < 0).any(1)}
        divided = (total > 0) & np.isfinite(total) & ((off <= SUM) | reading["renormalise"])
        faulty["probabilities that do not sum to one"] = ~divided
    return values / np.where(divided, total, 1)[:, None], faulty


def _without(faulty, columns, keep, lines, faults):
    """Columns without the rows that are faulty, each counted once."""
    for sentence, rows in faulty.items():
        wrong = rows & keep
        if wrong.any():
            faults.add(sentence, lines[int(wrong.argmax())], int(wrong.sum()))
            keep &= ~wrong
    return picked(columns, keep)


def embeddings(reading, roles, lines, faults):
    """embeddings: matrix[n, d]; group and target: lists, or None."""
    values, keep = matrix(roles["embeddings"], reading["width"], lines, faults, "embeddings")
    bad = keep & ~np.isfinite(values).all(1)
    if bad.any():
        faults.add("embeddings that are not finite", lines[int(bad.argmax())], int(bad.sum()))
    others = {name: list(roles[name]) if name in roles else [None] * len(lines) for name in ("group", "target")}
    return picked({"embeddings": values, **others}, keep & ~bad)
