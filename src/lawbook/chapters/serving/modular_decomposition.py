"""Shrinking the inner dimension that two weight matrices share, without gradients: neurons, key and query columns, value and output ranks."""

import math
import warnings

import numpy as np

from lawbook.contract import Paper, caution, count, flag, integer, matrix, nonnegative, optional, positive, probability, real, record, vector
from lawbook.numerics.singular import singular_values as spectrum_of
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="MoDeGPT: Modular Decomposition for Large Language Model Compression",
    arxiv="2408.09632",
    tags=["compression", "low rank", "pruning", "svd", "nystrom", "transformer", "calibration", "weights", "serving"],
    source="known",
    says="""Two weight matrices of a transformer that meet in a hidden dimension are compressed together, so that what they compute on calibration data changes least. Neurons of
    an MLP are selected by ridge leverage and the second matrix is fitted anew; columns of a query-key pair are selected by their norms on the data; a value-output pair gets
    the best low rank. Each step has an exact error. Layers that change their input least are thinned most.""",
    notes="""The third bound for the MLP is derived here: with leverage sum eps on the dropped neurons the residual is at most eps lambda / (1 - eps). Of attention only factors of
    the inner dimension are decomposed, never of width by width: singular values below 1e-8 of the largest are rounding noise. Under rotary positions the error of a query-key
    pair is that of equal positions. Query heads that share a key head (grouped queries) stand side by side. The measure of a single matrix, which no data weights, is ours.""",
)

DIGITS = 1e-12  # directions of a correlation below this share of the largest count as absent
CORRELATION = matrix("d", "d", doc="second moment X'X/N of the inputs", example=[[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.5]])
HIDDEN = matrix("h", "h", doc="second moment of the hidden activations", example=CORRELATION.example)
INPUTS = optional(CORRELATION, doc="second moment X'X/N of the inputs; none for white inputs")
DOWN = matrix("h", "d", doc="W_D, a row for each neuron", example=[[1.0, 0.2], [-0.5, 1.0], [0.3, 0.4]])
KEPT = vector("k", of=integer(low=0, typical=(0, 1)), most=2, doc="neurons that are kept, from 0, each once", example=[0, 1])
RIDGE = positive(typical=(0.1, 10), doc="lambda of the leverage scores")
SYMMETRIC = "correlation must be symmetric and positive semidefinite on its diagonal"
VALUES = vector("r", of=nonnegative(scale="log", typical=(0.1, 3)), doc="its min(m, n) singular values, where they are known already")


def symmetric(correlation):
    return correlation is None or (np.allclose(correlation, correlation.T, rtol=1e-4, atol=1e-6 * np.abs(correlation).max()) and np.diag(correlation).min() >= 0)


def valid(indices, correlation):
    return indices is None or (len(set(indices.tolist())) == len(indices) and np.max(indices) < len(correlation))


def drawn(**parts):
    """Random arguments: a positive definite correlation, and matrices of the given shapes."""

    def draw(rng):
        x = rng.normal(size=(9, 4))
        return {"correlation": x.T @ x / 9, **{name: make(rng) if callable(make) else rng.normal(size=make) for name, make in parts.items()}}

    return draw


def symmetrised(correlation):
    c = np.asarray(correlation, float)
    return (c + c.T) / 2


def solved(c, right):
    """c^+ right for a positive semidefinite c: by Cholesky, and by eigenvectors where c is singular to working precision."""
    from scipy.linalg import cho_solve, cholesky

    try:
        factor = cholesky(c, lower=True)
        pivots = np.diag(factor)
        if pivots.min() ** 2 > DIGITS * pivots.max() ** 2:
            return cho_solve((factor, True), right)
    except np.linalg.LinAlgError:
        pass
    return np.linalg.pinv(c, rcond=DIGITS, hermitian=True) @ right


def leverage_scores(c, ridge):
    """Diagonal of C (C + lambda I)^-1."""
    return np.einsum("ij,ji->i", c, solved(c + ridge * np.eye(len(c)), np.eye(len(c))))


def largest(scores, keep):
    return np.sort(np.argsort(-scores, kind="stable")[:keep])


@paper.algorithm(
    r"W_D' = C_{SS}^+ C_{S:} W_D,\quad V = \mathrm{tr}\, W_D^\top (C - C_{:S} C_{SS}^+ C_{S:}) W_D,\quad S = \text{top-}k \text{ of } [C (C + \lambda I)^{-1}]_{ii}",
    requires={
        SYMMETRIC: symmetric,
        "keep must be at most the number of neurons": lambda keep, correlation: keep <= len(correlation),
        "indices must be numbers of neurons, from 0, each once": valid,
    },
    sample=drawn(down=(4, 2), keep=lambda rng: int(rng.integers(1, 5))),
)
def compress_mlp(correlation: HIDDEN, down: DOWN, keep: count("neurons", typical=(1, 4), example=2), *, ridge: RIDGE = 1.0, indices: KEPT = None) -> record(
    indices=vector("k", of=integer(low=0)), down=matrix("k", "d", doc="the fitted W_D'"), error=nonnegative(doc="mean squared error of the output per token")
):
    """Neurons to keep, by ridge leverage unless `indices` names them, and the second matrix fitted anew; the columns of W_U (and W_G) are just selected."""
    c, w = symmetrised(correlation), np.asarray(down, float)
    kept = largest(leverage_scores(c, ridge), keep) if indices is None else np.sort(np.asarray(indices, int))
    right = c @ w
    fitted = solved(c[np.ix_(kept, kept)], right[kept])
    return {"indices": kept, "down": fitted, "error": max(0.0, float(np.sum(w * (right - c[:, kept] @ fitted))))}


@paper.bound(
    r"V \le \|W_D\|_2^2 \mathrm{tr} E,\quad \|W_D\|_2^2 \|C^{-1}\|_2 \|E\|_F^2,\quad \|W_D\|_F^2 \epsilon \lambda / (1 - \epsilon);\ E = C - \hat C, \epsilon = \sum_{\bar S} l_i",
    requires={SYMMETRIC: symmetric, "indices must be numbers of neurons, from 0, each once": valid},
    sample=drawn(down=(4, 2), indices=lambda rng: rng.permutation(4)[: int(rng.integers(1, 4))]),
)
def mlp_error_bounds(correlation: HIDDEN, down: DOWN, indices: KEPT, *, ridge: RIDGE = 1.0) -> record(
    trace=nonnegative(),
    nystrom=nonnegative(infinite=True, doc="infinite where the correlation is singular"),
    leverage=nonnegative(infinite=True, doc="infinite where the dropped leverage is 1 or more"),
):
    """Three upper bounds on the error of an MLP with these neurons kept."""
    c, w = symmetrised(correlation), np.asarray(down, float)
    dropped = np.setdiff1d(np.arange(len(c)), indices)
    kept = np.asarray(indices, int)
    residual = c[np.ix_(dropped, dropped)] - c[np.ix_(dropped, kept)] @ solved(c[np.ix_(kept, kept)], c[np.ix_(kept, dropped)])  # E is 0 elsewhere
    norm, eigenvalues = spectrum_of(w)[0] ** 2, np.linalg.eigvalsh(c)
    share = float(leverage_scores(c, ridge)[dropped].sum())
    singular = eigenvalues[0] <= DIGITS * eigenvalues[-1]
    return {
        "trace": float(norm * max(0.0, np.trace(residual))),
        "nystrom": math.inf if singular else float(norm / eigenvalues[0] * np.sum(residual**2)),
        "leverage": float(np.sum(w**2)) * share * ridge / (1 - share) if share < 1 else math.inf,
    }


def grams(correlation, heads):
    """w' C w of a head or of several side by side: [heads, d_h, d_h]."""
    return np.einsum("dgi,dgj->gij", heads, heads if correlation is None else np.einsum("de,egj->dgj", correlation, heads, optimize=True), optimize=True)


@paper.algorithm(
    r"s_i = \|C^{1/2} q_i\| \|C^{1/2} k_i\|,\quad V = \Big\|\sum_{i \notin S} C^{1/2} q_i k_i^\top C^{1/2}\Big\|_F^2 \le \Big(\sum_{i \notin S} s_i\Big)^2",
    requires={
        SYMMETRIC: symmetric,
        "query must have a whole number of heads of the key's dimension": lambda query, key: query.shape[1] % key.shape[1] == 0,
        "keep must be at most the dimension of a head": lambda keep, key: keep <= key.shape[1],
        "keep must be even where rope_pairs is set, and so must the dimension of a head": lambda keep, key, rope_pairs: not rope_pairs or keep % 2 == key.shape[1] % 2 == 0,
    },
    sample=drawn(
        query=lambda rng: rng.normal(size=(4, 4 * int(rng.integers(1, 3)))), key=(4, 4), keep=lambda rng: 2 * int(rng.integers(1, 3)), rope_pairs=lambda rng: bool(rng.integers(2))
    ),
)
def compress_key_query(
    correlation: INPUTS,
    query: matrix("d", "q", doc="W_Q of a head, or of all heads that share the key head side by side", example=[[1.0, 0.1], [0.3, -0.4], [0.2, 0.1]]),
    key: matrix("d", "dh", doc="W_K of a head", example=[[0.5, 0.2], [-0.3, 0.1], [0.4, 0.6]]),
    keep: count("columns", typical=(1, 4), example=1),
    *,
    rope_pairs: flag(doc="keep or drop columns i and i + dh/2 together, which a rotary embedding turns as a pair") = False,
) -> record(indices=vector("k", of=integer(low=0)), scores=vector("dh", of=nonnegative()), error=nonnegative(), bound=nonnegative()):
    """Columns of a query-key pair to keep, and the mean squared change of the attention scores over pairs of independent tokens."""
    c, k = None if correlation is None else symmetrised(correlation), np.asarray(key, float)
    dim = k.shape[1]
    on_queries = grams(c, np.asarray(query, float).reshape(len(k), -1, dim))
    on_keys = grams(c, k[:, None, :])
    scores = np.sqrt(np.maximum(np.einsum("gii->gi", on_queries), 0) * np.maximum(np.diag(on_keys[0]), 0)).sum(0)
    if rope_pairs:
        pairs = largest(scores[: dim // 2] + scores[dim // 2 :], keep // 2)
        kept = np.concatenate([pairs, pairs + dim // 2])
    else:
        kept = largest(scores, keep)
    out = np.setdiff1d(np.arange(dim), kept)
    error = np.sum(on_queries[:, out[:, None], out] * on_keys[:, out[:, None], out])
    return {"indices": kept, "scores": scores, "error": max(0.0, float(error)), "bound": float(scores[out].sum()) ** 2}


@paper.algorithm(
    r"C^{1/2} W_V W_O = U \Sigma V^\top,\quad W_V' = C^{-1/2} U_k,\quad W_O' = \Sigma_k V_k^\top,\quad V = \textstyle\sum_{i > k} \sigma_i^2",
    requires={SYMMETRIC: symmetric, "keep must be at most the dimension of a head": lambda keep, value: keep <= value.shape[1]},
    sample=drawn(value=(4, 3), output=(3, 4), keep=lambda rng: int(rng.integers(1, 4))),
)
def compress_value_output(
    correlation: INPUTS,
    value: matrix("d", "dh", example=[[1.0, 0.1], [0.3, -0.4], [0.2, 0.1]]),
    output: matrix("dh", "e", example=[[0.5, 0.2, -0.3], [0.1, 0.4, 0.6]]),
    keep: count("ranks", typical=(1, 3), example=1),
) -> record(value=matrix("d", "k"), output=matrix("k", "e"), error=nonnegative(), singular_values=vector("dh", of=nonnegative())):
    """The best pair of rank `keep` for a value-output pair on the data, and its mean squared error of the output per token."""
    c, v, o = None if correlation is None else symmetrised(correlation), np.asarray(value, float), np.asarray(output, float)
    # C^1/2 W_V = Q R with the symmetric root R of W_V' C W_V: the singular vectors are those of R W_O, and C^-1/2 Q = W_V R^+
    squares, axes = np.linalg.eigh(grams(c, v[:, None, :])[0])
    roots = np.sqrt(np.where(squares > len(squares) * np.finfo(float).eps * squares[-1], squares, 0))
    inner = (axes * roots) @ axes.T @ o
    energy, left = (part[..., ::-1] for part in np.linalg.eigh(inner @ inner.T))
    energy, best = np.maximum(energy, 0), left[:, :keep]
    inverse = (axes * np.divide(1, roots, out=np.zeros_like(roots), where=roots > 0)) @ axes.T
    return {"value": v @ (inverse @ best), "output": best.T @ inner, "error": float(np.sum(energy[keep:])), "singular_values": np.sqrt(energy)}


@paper.measure(
    r"e(k) = \sum_{i > k} \sigma_i^2 / \sum_i \sigma_i^2,\quad \text{parameters } k (m + n)",
    requires={
        "singular_values must be as many as the smaller side of matrix": lambda matrix, singular_values: singular_values is None or len(singular_values) == min(matrix.shape)
    },
)
def low_rank_compressibility(
    matrix: matrix("m", "n", example=[[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.2, 0.1, 0.1]]),
    *,
    saving: probability(doc="share of the parameters that two factors are to save") = 0.25,
    tolerance: probability(doc="relative squared error of the output that is allowed") = 0.05,
    singular_values: VALUES = None,
) -> record(
    rank=count("ranks", low=0, doc="largest rank whose factors save that share; 0 where none does"),
    error=probability(doc="relative squared error of the output at this rank, for white inputs"),
    noise_error=probability(doc="the same for a matrix of equal singular values: none is worse"),
    rank_needed=count("ranks", low=0, doc="smallest rank within the tolerance"),
    saved=real(high=1, doc="share of the parameters that its factors save; negative where they are more than the matrix has"),
):
    """How far one matrix can be factored into two without data: the error at a saving, and the saving at an error."""
    shape = np.shape(matrix)
    values = spectrum_of(matrix) if singular_values is None else np.sort(np.asarray(singular_values, float))[::-1]
    energy = (values / (values[0] or 1.0)) ** 2
    tail = np.append(np.cumsum(energy[::-1])[::-1], 0.0) / (energy.sum() or 1.0)  # error at rank 0, 1, ...
    rank = min(int((1 - saving) * math.prod(shape) / sum(shape) + 1e-9), len(values))
    needed = int(np.argmax(tail <= tolerance * (1 + 1e-12)))
    return {"rank": rank, "error": float(min(tail[rank], 1.0)), "noise_error": 1 - rank / len(values), "rank_needed": needed, "saved": 1 - needed * sum(shape) / math.prod(shape)}


@paper.algorithm(
    r"\phi = \arg\max \sum_l s_l (1 - \phi_l) + \varepsilon H(\phi) = L \bar\phi\, \mathrm{softmax}(-s/\varepsilon),\quad \phi_l \le \text{cap}",
    requires={"average must be at most cap": lambda average, cap: cap is None or average <= cap},
)
def allocate_sparsity(
    scores: vector("L", of=real(typical=(0, 1)), doc="importance of each layer: 1 less the mean cosine of its input and output", example=[0.3, 0.1, 0.5, 0.2]),
    *,
    average: positive(high=1, typical=(0.1, 0.6), doc="mean sparsity over the layers") = 0.25,
    temperature: positive(typical=(0.05, 1), doc="epsilon: large for equal shares") = 0.1,
    cap: positive(high=1, typical=(0.6, 1), doc="largest sparsity of a layer; none leaves the closed form as it is") = None,
) -> vector("L", of=nonnegative()):
    """Sparsity of each layer: less for the important ones. Without a cap it can exceed 1, which no layer can have."""
    logits = -np.asarray(scores, float) / temperature
    total, share, free = len(logits) * average, np.zeros(len(logits)), np.ones(len(logits), bool)
    while free.any():
        weights = np.exp(logits[free] - logits[free].max())
        share[free] = max(total - (cap or 0.0) * np.sum(~free), 0.0) * weights / weights.sum()
        if cap is None or not (share > cap).any():
            break
        free &= share <= cap
        share[~free] = cap
    if share.max() > 1 + 1e-12:
        caution(f"A layer is asked for a sparsity of {share.max():.4g}, more than all of it: give a cap.")
    return share


def only_selected(correlation, down, keep, **options):
    found = compress_mlp(correlation, down, keep, **options)
    return found | {"down": down[found["indices"]]}


def without_data(correlation, value, output, keep):
    return compress_value_output(None, value, output, keep)


def one_column_alone(correlation, query, key, keep, *, rope_pairs):
    return compress_key_query(correlation, query, key, keep)


@paper.trial(
    Identity(rtol=1e-8, atol=1e-8),
    of=[compress_mlp, compress_key_query, compress_value_output, low_rank_compressibility],
    claim=(compress_mlp, compress_key_query, compress_value_output),
    controls={
        "second matrix not fitted": (only_selected, compress_key_query, compress_value_output),
        "rotary pairs broken": (compress_mlp, one_column_alone, compress_value_output),
        "SVD without the data": (compress_mlp, compress_key_query, without_data),
    },
    quick=30,
    full=2000,
)
def measured_on_data(draw, claim):
    """The errors told are those measured on the data and the least possible (least squares, truncated SVD), with rotary pairs kept whole, and singular correlations too."""
    mlp, key_query, value_output = claim
    d, tokens, keep = draw.integer(5, 12), draw.choice([4, 40]), draw.integer(1, 4)
    x = draw.rng.normal(size=(tokens, d)) * draw.log_uniform(0.1, 3, size=d)
    c, w = x.T @ x / tokens, draw.rng.normal(size=(d, 3))
    found = mlp(c, w, keep, ridge=draw.log_uniform(0.1, 10))
    inner = x[:, found["indices"]]
    refitted = np.sum((inner @ np.linalg.lstsq(inner, x @ w)[0] - x @ w) ** 2) / tokens
    measured = [np.sum((inner @ found["down"] - x @ w) ** 2) / tokens, found["error"]]

    query, key, pairs = draw.rng.normal(size=(d, 2, 6)), draw.rng.normal(size=(d, 6)), draw.integer(1, 2)
    chosen = key_query(c, query.reshape(d, 12), key, 2 * pairs, rope_pairs=True)
    kept = chosen["indices"]
    change = sum(np.sum((x @ query[:, g] @ key.T @ x.T - x @ query[:, g][:, kept] @ key[:, kept].T @ x.T) ** 2) for g in range(2)) / tokens**2
    alone = np.setdiff1d((kept + 3) % 6, kept)  # a rotation by position mixes columns i and i + 3: both stay, or none

    value, output = draw.rng.normal(size=(d, 4)), draw.rng.normal(size=(4, d))
    pair, s = value_output(c, value, output, keep), np.linalg.svd(x @ value @ output / np.sqrt(tokens), compute_uv=False)
    off = np.sum((x @ (pair["value"] @ pair["output"] - value @ output)) ** 2) / tokens
    single, svd = low_rank_compressibility(w, saving=0.5), np.linalg.svd(w)
    rank = int(0.5 * d * 3 / (d + 3))
    truncated = np.sum((w - (svd[0][:, :rank] * svd[1][:rank]) @ svd[2][:rank]) ** 2) / np.sum(w**2)
    computed = [*measured, change, len(alone), off, pair["error"], single["error"]]
    return computed, [refitted, refitted, chosen["error"], 0.0, np.sum(s[keep:] ** 2), np.sum(s[keep:] ** 2), truncated], {"d": d, "tokens": tokens, "keep": keep}


def undiluted(correlation, down, indices, *, ridge):
    found = mlp_error_bounds(correlation, down, indices, ridge=ridge)
    share = leverage_scores(correlation, ridge)[np.setdiff1d(np.arange(len(correlation)), indices)].sum()
    return found | {"leverage": found["leverage"] * (1 - share) if share < 1 else math.inf}


def squares_summed(*arguments):
    found = compress_key_query(*arguments)
    return found | {"bound": np.sum(np.delete(found["scores"], found["indices"]) ** 2)}


@paper.trial(
    Inequality(rtol=1e-8, atol=1e-9, search=150),
    of=[mlp_error_bounds, compress_key_query, compress_mlp],
    claim=(mlp_error_bounds, compress_key_query),
    controls={"leverage bound without 1 - eps": (undiluted, compress_key_query), "squared scores summed": (mlp_error_bounds, squares_summed)},
    quick=60,
    full=3000,
)
def errors_are_bounded(draw, claim):
    """All bounds on random correlations with condition numbers up to 1e4, for any set of neurons and the best columns, down to the bound that needs only norms."""
    bounds, key_query = claim
    h, keep, ridge = 10, draw.integer(2, 9), draw.log_uniform(0.01, 100)
    basis = np.linalg.qr(draw.rng.normal(size=(h, h)))[0] if draw.integer(0, 1) else np.eye(h)
    c = (basis * draw.log_uniform(1e-4, 1, size=h)) @ basis.T
    down, kept = draw.normal(size=(h, draw.integer(1, 3))), draw.rng.permutation(h)[:keep]
    down[kept] *= draw.choice([0, 1])  # without the rows of kept neurons, the bounds are met by a diagonal correlation and one dropped neuron
    error, told = compress_mlp(c, down, keep, indices=kept)["error"], bounds(c, down, kept, ridge=ridge)
    query, key = draw.normal(size=(h, 10)), draw.normal(size=(h, 10))
    pair = key_query(c, query, key, keep)
    loose = ((10 - keep) / 10) ** 2 * np.trace(query.T @ c @ query) * np.trace(key.T @ c @ key)
    return [error, error, error, pair["error"], pair["bound"]], [told["trace"], told["nystrom"], told["leverage"], pair["bound"], loose], {"keep": keep, "ridge": ridge}


def clipped(scores, *, cap, **options):
    return np.minimum(allocate_sparsity(scores, **options), cap)


@paper.trial(Identity(rtol=1e-6, atol=1e-9), of=[allocate_sparsity], controls={"excess lost": clipped}, quick=60, full=2000)
def entropy_optimum(draw, allocate):
    """The capped allocation is the optimum of scores plus entropy: min(cap, t exp(-s/eps)), with t bisected to the wanted mean."""
    n, average, eps = draw.integer(2, 12), draw.uniform(0.1, 0.6), draw.log_uniform(0.03, 1)
    scores, cap = draw.uniform(0, 1, size=n), draw.uniform(0.65, 1)
    low, high = -50.0, 50.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.mean(np.minimum(cap, np.exp(middle - scores / eps))) < average else (low, middle)
    return np.minimum(cap, np.exp(low - scores / eps)), allocate(scores, average=average, temperature=eps, cap=cap), {"layers": n, "average": average, "temperature": eps}


@paper.finding("""The allocation as published can ask a layer for more sparsity than it has: scores .3, .1, .5, .2 at temperature .1 and mean .4 ask the second layer for 105%.""")
def allocation_exceeds_one():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        share = allocate_sparsity(np.array([0.3, 0.1, 0.5, 0.2]), average=0.4, temperature=0.1)
    capped = allocate_sparsity(np.array([0.3, 0.1, 0.5, 0.2]), average=0.4, temperature=0.1, cap=0.9)
    return {"holds": bool(abs(share.max() - 1.05) < 0.005 and capped.max() <= 0.9), "largest": float(share.max()), "largest_capped": float(capped.max())}


@paper.finding(
    """Neurons chosen by ridge leverage are not in general better than neurons chosen by size: over synthetic layers of three kinds the mean error is from equal to a fifth smaller,
    and size wins on a quarter or more of the layers of each kind."""
)
def leverage_is_no_clear_winner():
    rng, h, found = np.random.default_rng(0), 24, {}
    for kind in ("wishart", "spectrum", "relu"):
        errors = np.empty((150, 2))
        for row in errors:
            z = rng.normal(size=(4 * h, h))
            if kind == "spectrum":
                z = z * np.exp(rng.uniform(-2, 2, h)) @ np.linalg.qr(rng.normal(size=(h, h)))[0]
            elif kind == "relu":
                z = np.maximum(z[:, : h // 2] @ rng.normal(size=(h // 2, h)) / math.sqrt(h / 2), 0)
            c, down = z.T @ z / len(z), rng.normal(size=(h, 4))
            row[:] = [compress_mlp(c, down, 16, ridge=np.trace(c) / h, indices=kept)["error"] for kept in (None, largest(np.diag(c), 16))]
        by_leverage, by_size = errors.T
        found |= {f"{kind}_ratio": float(by_leverage.mean() / by_size.mean()), f"{kind}_size_wins": float(np.mean(by_leverage > by_size * (1 + 1e-9)))}
    return {"holds": all(value > 0.2 for key, value in found.items() if key.endswith("wins")), **found}
