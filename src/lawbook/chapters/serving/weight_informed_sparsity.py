"""Skipping inputs of a matrix-vector product: which ones cost least, by activation and weight column together."""

import math
from itertools import combinations, product

import numpy as np

from lawbook.contract import Paper, choice, count, flag, integer, matrix, nonnegative, record, table, vector
from lawbook.trials import Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="WINA: Weight Informed Neuron Activation for Accelerating Large Language Model Inference",
    arxiv="2505.19427",
    tags=["sparsity", "activation", "inference", "pruning", "teal", "matrix-vector product", "weights", "serving"],
    source="code",
    says="""A part of a matrix-vector product is skipped without training by keeping the inputs whose magnitude times the norm of their weight column is largest, not just those of
    the largest magnitude. Where the columns are orthogonal no other choice loses less, and a rotation of the input makes them so.""",
    notes="""With correlated columns the rule is best in the mean over independent signs of the inputs, not for every input: see the finding. In the released code the norms enter
    for the key and gate projections only; elsewhere its rule is that of TEAL. A norm gain before the layer must be folded into the weights before rotating, and a layer norm
    must lose its mean first.""",
)

WEIGHT = matrix("m", "d", doc="a column for each input (torch's weight[:, i])", example=[[1.0, 0.0, 3.0, 0.5], [0.0, 2.0, 1.0, 0.5], [1.0, 1.0, 0.0, 0.5]])
ACTIVATION = vector("d", doc="input of the layer", example=[1.0, -0.9, 0.5, 2.0])
KEEP = count("inputs", typical=(1, 6), doc="inputs to keep", example=2)
RULE = choice("wina", "teal", doc="by |x| times the norm of the column, or by |x| alone")


def column_norms(weight):
    return np.linalg.norm(np.asarray(weight, float), axis=0)


@paper.measure(r"s_i = |x_i|\, \|w_i\|_2")
def wina_scores(weight: WEIGHT, activation: ACTIVATION) -> vector("d", of=nonnegative()):
    """What each input contributes at most: its magnitude times the norm of its weight column."""
    return np.abs(activation) * column_norms(weight)


def top(scores, keep):
    """Which entries along the last axis are among the `keep` largest; of equal ones the first."""
    order = np.argsort(-scores, axis=-1, kind="stable")[..., :keep]
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, order, True, axis=-1)
    return kept


@paper.algorithm(r"S = \text{top-}K \text{ of } s_i")
def activation_mask(weight: WEIGHT, activation: ACTIVATION, keep: KEEP, *, rule: RULE = "wina") -> record(
    indices=vector("K", of=integer(low=0), doc="ascending, from 0"), mask=vector("d", of=flag())
):
    """Inputs to keep; all of them where there are no more than that."""
    mask = top(wina_scores(weight, activation) if rule == "wina" else np.abs(np.asarray(activation, float)), keep)
    return {"indices": np.flatnonzero(mask), "mask": mask}


@paper.measure(
    r"\|W_R x_R\|^2 \le \left(\textstyle\sum_{i \in R} s_i\right)^2,\quad E_{\pm}\|W_R x_R\|^2 = \textstyle\sum_{i \in R} s_i^2",
    requires={"indices must be numbers of inputs, from 0": lambda indices, activation: np.max(indices) < len(activation)},
)
def output_error(weight: WEIGHT, activation: ACTIVATION, indices: vector("K", of=integer(low=0, typical=(0, 1)), doc="inputs that are kept", example=[0, 3])) -> record(
    squared_error=nonnegative(),
    relative_error=nonnegative(nan=True, doc="over the squared norm of the full output; NaN where that is 0"),
    orthogonal_prediction=nonnegative(doc="exact for orthogonal columns, and the mean over independent signs of the inputs for any"),
    triangle_bound=nonnegative(),
):
    """Squared error of the output when only some inputs are kept, with its prediction and its bound from the scores."""
    w, x = np.asarray(weight, float), np.asarray(activation, float)
    dropped = np.ones(len(x), bool)
    dropped[np.asarray(indices, int)] = False
    error, whole = (float(np.sum((w @ part) ** 2)) for part in (np.where(dropped, x, 0), x))
    scores = wina_scores(w, x)[dropped]
    return {
        "squared_error": error,
        "relative_error": error / whole if whole > 0 else math.nan,
        "orthogonal_prediction": float(np.sum(scores**2)),
        "triangle_bound": float(np.sum(scores)) ** 2,
    }


@paper.algorithm(r"W = U \Sigma V^\top,\quad W x = (W V)(V^\top x)")
def orthogonalize(weight: WEIGHT) -> record(
    weight=matrix("m", "d", doc="with orthogonal columns, the longest first"),
    rotation=matrix("d", "d", doc="V: the input becomes V' x"),
    column_norms=vector("d", of=nonnegative()),
):
    """The same map after a rotation of its input that makes the columns orthogonal."""
    w = np.asarray(weight, float)
    m, d = w.shape
    u, s, vt = np.linalg.svd(w, full_matrices=d > m)
    norms = np.append(s, np.zeros(d - len(s)))
    rotated = np.zeros((m, d))
    rotated[:, : len(s)] = u[:, : len(s)] * s
    return {"weight": rotated, "rotation": vt.T, "column_norms": norms}


@paper.algorithm(
    r"K \mapsto \tfrac1n \sum_j \|W_{R_j} x_{j,R_j}\|^2",
    requires={"keeps must be at most the number of inputs": lambda keeps, activations: np.max(keeps) <= activations.shape[1]},
)
def sparsity_curve(
    weight: WEIGHT,
    activations: matrix("n", "d", doc="inputs of the layer, one a row", example=[[1.0, -0.9, 0.5, 2.0], [0.2, 1.5, -0.4, 0.3], [-1.0, 0.3, 0.8, -0.6]]),
    keeps: vector("k", of=count("inputs", typical=(1, 2)), doc="numbers of inputs to keep", example=[1, 2, 3]),
    *,
    rotate: flag(doc="whether to work out the rotated column, which takes the eigenvectors of the smaller Gram matrix") = True,
) -> table(
    keep=count("inputs"),
    wina=nonnegative(doc="mean squared error of the output over that of keeping nothing"),
    teal=nonnegative(),
    rotated=nonnegative(nan=True, doc="best choice once the columns are orthogonal, the rotation itself not counted; NaN where not worked out"),
    flops=count("FLOP", doc="a token"),
):
    """Mean output error at each number of kept inputs, by both rules and in the basis of orthogonal columns, relative to the mean squared output."""
    w, x = np.asarray(weight, float), np.atleast_2d(np.asarray(activations, float))
    norms, output = column_norms(w), x @ w.T
    whole = np.mean(np.sum(output**2, 1)) or 1.0
    energy = None
    if rotate:
        # coordinates along the left singular vectors hold all the output; along the right ones they do too, and the smaller side is cheaper
        if w.shape[0] <= w.shape[1]:
            energy = (output @ np.linalg.eigh(w @ w.T)[1]) ** 2
        else:
            values, vectors = np.linalg.eigh(w.T @ w)
            energy = (x @ vectors) ** 2 * np.maximum(values, 0)
        energy = np.cumsum(np.sort(energy, axis=1), axis=1)
    rows = []
    for keep in np.asarray(keeps, int):
        dropped = [np.where(top(scores, keep), 0, x) @ w.T for scores in (np.abs(x) * norms, np.abs(x))]
        left = None if energy is None else energy.shape[1] - keep
        best = math.nan if left is None else float(np.mean(energy[:, left - 1])) / whole if left > 0 else 0.0
        rows.append((int(keep), *(float(np.mean(np.sum(part**2, 1))) / whole for part in dropped), best, 2 * w.shape[0] * int(keep)))
    return {key: np.array(column) for key, column in zip(("keep", "wina", "teal", "rotated", "flops"), zip(*rows, strict=True), strict=True)}


def by_rows(weight, activation, keep):
    return {"indices": np.flatnonzero(top(np.abs(activation) * np.linalg.norm(weight, axis=1), keep))}


def smallest(weight, activation, keep):
    return {"indices": np.flatnonzero(top(-wina_scores(weight, activation), keep))}


def by_magnitude(weight, activation, keep):
    return activation_mask(weight, activation, keep, rule="teal")


CONTROLS = {"norms of rows": by_rows, "the smallest kept": smallest, "magnitude alone": by_magnitude}


@paper.trial(Guarantee(rtol=1e-9), of=[activation_mask, wina_scores, orthogonalize], controls=CONTROLS, quick=20, full=1000)
def best_of_all_sets(draw, mask):
    """With orthogonal columns the set loses least of all sets of its size, for every input."""
    n, keep = draw.integer(3, 8), draw.integer(1, 4)
    keep = min(keep, n - 1)
    w = orthogonalize(draw.rng.normal(size=(n, n)))["weight"][:, draw.rng.permutation(n)] * draw.log_uniform(0.1, 10, size=n)
    x = draw.normal(size=n)

    def error(kept):
        return np.sum((w @ np.where(np.isin(np.arange(n), kept), 0, x)) ** 2)

    return error(mask(w, x, keep)["indices"]), min(error(kept) for kept in combinations(range(n), keep)), {"inputs": n, "keep": keep}


@paper.trial(Guarantee(rtol=1e-9), of=[activation_mask, output_error, sparsity_curve], controls=CONTROLS, quick=10, full=200)
def best_over_signs(draw, mask):
    """With any columns the mean error over all signs of the inputs is the sum of the dropped squared scores, and no other set has a smaller mean; the curve averages it."""
    n, keep = 6, draw.integer(1, 5)
    w = draw.rng.normal(size=(n, n)) * draw.log_uniform(0.2, 5, size=n) + draw.rng.normal(size=(n, 1))
    x = draw.normal(size=n)
    signed = np.array(list(product((-1, 1), repeat=n))) * x

    def mean_error(kept):
        return np.mean(np.sum((np.where(np.isin(np.arange(n), kept), 0, signed) @ w.T) ** 2, 1))

    kept = mask(w, x, keep)["indices"]
    reached, told = mean_error(kept), output_error(w, x, kept)["orthogonal_prediction"]
    curve = sparsity_curve(w, signed, [keep])["wina"][0] * np.mean(np.sum((signed @ w.T) ** 2, 1))
    least = min(mean_error(other) for other in combinations(range(n), keep))
    return [reached, reached, told, curve], [least, told, reached, reached], {"keep": keep}


def without_cross_terms(weight, activation, indices):
    found = output_error(weight, activation, indices)
    return found | {"triangle_bound": found["orthogonal_prediction"]}


@paper.trial(Inequality(rtol=1e-9, reaches=0.999), of=[output_error], controls={"cross terms left out": without_cross_terms}, quick=60, full=3000)
def triangle(draw, measure):
    """The error is at most the squared sum of the dropped scores, reached by parallel columns, and at most the norm of the normalised dropped columns times their squares."""
    m, d = draw.integer(1, 6), draw.integer(2, 6)
    w, x = draw.normal(size=(m, d)), draw.normal(size=d)
    kept = np.arange(draw.integer(0, d - 1))
    found = measure(w, x, kept)
    unit = (w / column_norms(w))[:, len(kept) :]
    spectral = np.linalg.norm(unit, 2) ** 2 * found["orthogonal_prediction"]
    direct = np.sum((w[:, len(kept) :] @ x[len(kept) :]) ** 2)
    return [direct, found["squared_error"]], [found["triangle_bound"], spectral * (1 + 1e-12)], {"rows": m, "inputs": d}


def transposed(weight):
    found = orthogonalize(weight)
    return found | {"rotation": found["rotation"].T}


@paper.trial(Identity(rtol=1e-9, atol=1e-9), of=[orthogonalize, sparsity_curve], controls={"rotation transposed": transposed}, quick=20, full=500)
def rotated(draw, rotate):
    """The rotated layer gives the same output, its Gram matrix is diagonal, and the curve's rotated column is the error of the rule there; wide, tall and thin matrices."""
    m, d = draw.integer(1, 12), draw.integer(2, 12)
    w, x = draw.normal(size=(m, d)), draw.normal(size=(3, d))
    found, keep = rotate(w), draw.integer(1, d)
    turned, norms = found["weight"], found["column_norms"]
    inputs = x @ found["rotation"]
    error = np.mean([output_error(turned, row, activation_mask(turned, row, keep)["indices"])["squared_error"] for row in inputs]) / np.mean(np.sum((x @ w.T) ** 2, 1))
    computed = np.concatenate([(inputs @ turned.T).ravel(), (turned.T @ turned).ravel(), [error]])
    return computed, np.concatenate([(x @ w.T).ravel(), np.diag(norms**2).ravel(), sparsity_curve(w, x, [keep])["rotated"]]), {"rows": m, "inputs": d}


@paper.finding(
    """Without orthogonal columns weighting by column norms is no bound for a single input: on Gaussian layers it loses to plain magnitudes for about a tenth of the inputs (12 x 8,
    4 kept), and for about a fifth of them where columns outnumber rows (8 x 12)."""
)
def can_lose_for_one_input():
    rng, cases, found = np.random.default_rng(0), 20_000, {}
    for m, d in ((12, 8), (8, 12)):
        w, x = rng.normal(size=(cases, m, d)), rng.normal(size=(cases, d))
        masks = [top(scores, 4) for scores in (np.abs(x) * np.linalg.norm(w, axis=1), np.abs(x))]
        wina, teal = (np.sum(np.einsum("cmd,cd->cm", w, np.where(mask, 0, x)) ** 2, 1) for mask in masks)
        found |= {f"loses_{m}x{d}": float(np.mean(wina > teal * (1 + 1e-12))), f"differs_{m}x{d}": float(np.mean(np.any(masks[0] != masks[1], 1)))}
    return {"holds": abs(found["loses_12x8"] - 0.10) < 0.03 and abs(found["loses_8x12"] - 0.20) < 0.06, **found}
