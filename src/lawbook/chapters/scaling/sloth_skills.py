"""Sloth: benchmark scores of a whole model family from its smallest member, through a few latent skills that grow with size and tokens."""

import numpy as np

from lawbook.contract import DomainError, Paper, choice, count, listing, matrix, nonnegative, positive, probability, record, seed, text, vector
from lawbook.trials import Guarantee, Identity

paper = Paper(
    __name__,
    title="Sloth: scaling laws for LLM skills to predict multi-benchmark performance across families",
    arxiv="2412.06540",
    tags=["scaling law", "benchmark", "leaderboard", "latent skills", "factor analysis", "model family", "downstream"],
    source="code",
    says="""Scores of many models on many benchmarks come from a few latent skills. A skill is linear in log size, log tokens and their product, with slopes that all families
    share and an intercept for each family, its efficiency; a logistic above the guessing rate turns skills into scores. One small model of a family then foretells its larger
    siblings on every benchmark, better than a curve in compute for each benchmark alone.""",
    notes="""Held out on Open LLM Leaderboard v1 (152 models, 32 families, six benchmarks, 1st-percentile floors), one size of the family kept: mean absolute error .0475 with
    two skills, .0665 with one, .048 with three; .0593 for a curve in compute with family intercepts, .0525 for the official code with two skills. Loss: |r| - .005, rounded off
    below .01, plus ridge times the squares of all constants. Skills are given up to an invertible matrix: the profile whitens them and then rotates by varimax (the source:
    geomin), which fixes all but their order.""",
)

ROUND, SCORES = 0.01, ("MMLU", "ARC", "HellaSwag", "Winogrande", "TruthfulQA", "GSM8K")  # below ROUND the absolute error is rounded off
SLOPES, LOADINGS, OFFSETS = [[0.5, 0.1], [0.3, 0.5], [0.02, 0.05]], [[1.0, 0.7, 0.1], [0.3, 0.6, 1.2]], [-0.5, 0.2, -2.0]


def features(params, tokens):
    t, s = np.log(np.asarray(tokens, float) / 1e12), np.log(np.asarray(params, float) / 1e9)
    return np.stack([t, s, t * s], -1)


def logistic(skills, loadings, offsets, floors):
    return floors + (1 - np.asarray(floors)) * 0.5 * (1 + np.tanh(0.5 * (skills @ np.asarray(loadings) + offsets)))


@paper.law(r"y_j = C_j + (1 - C_j)\, \sigma\big((x W_X + a)\, W_{2,j} + b_j\big),\quad x = (\ln t, \ln s, \ln t \ln s)")
def predict_scores(
    params: positive("params", typical=(1e8, 1e12), example=7e9),
    tokens: positive("tokens", typical=(1e10, 3e13), example=2e12),
    family_intercept: vector("d", example=[0.4, -0.2], doc="efficiency of the family in each skill"),
    *,
    slopes: matrix(3, "d", example=SLOPES, doc="of ln(tokens / 1e12), ln(params / 1e9) and their product"),
    loadings: matrix("d", "J", example=LOADINGS),
    offsets: vector("J", example=OFFSETS),
    floors: vector("J", of=probability(high=1, below=True), example=[0.25, 0.25, 0.0], doc="guessing rates"),
) -> vector("J", of=probability()):
    """Scores of one model on every benchmark."""
    return logistic(features(params, tokens) @ np.asarray(slopes) + family_intercept, loadings, offsets, floors)


def population(rng, families=5, sizes=3, noise=0.01, missing=0.0):
    """Models of synthetic families with two skills on four benchmarks, and their scores with noise."""
    n, benchmarks = families * sizes, 4
    family, params = np.repeat(np.arange(families), sizes), 1e9 * 2 ** (rng.uniform(0, 2, n) + 1.5 * np.tile(np.arange(sizes), families))
    tokens, floors = np.repeat(10 ** rng.uniform(11.5, 13, families), sizes), np.array([0.25, 0.25, 0.0, 0.0])
    skills = features(params, tokens) @ rng.uniform(0.1, 0.6, (3, 2)) + rng.normal(0, 0.5, (families, 2))[family]
    truth = logistic(skills, [[1.0, 0.7, 0.1, 0.0], [0.0, 0.3, 0.8, 1.2]], rng.normal(-0.5, 0.5, benchmarks), floors)
    scores = np.clip(truth + noise * rng.normal(size=truth.shape), 0, 1)
    scores[rng.uniform(size=scores.shape) < missing] = np.nan
    return {"params": params, "tokens": tokens, "families": [f"family {i}" for i in family], "scores": scores, "floors": floors}, truth


EXAMPLE = population(np.random.default_rng(0))[0]
MODELS = {
    "params": vector("n", of=positive("params"), example=EXAMPLE["params"]),
    "tokens": vector("n", of=positive("tokens"), example=EXAMPLE["tokens"]),
    "families": listing(text(), example=EXAMPLE["families"]),
    "scores": matrix("n", "J", of=probability(nan=True, doc="NaN where missing"), example=EXAMPLE["scores"]),
    "floors": vector("J", of=probability(high=1, below=True), doc="guessing rates; without them 0"),
}
MATCHED = {
    "families must name the family of each model": lambda families, params: len(families) == len(params),
    "scores must not all be missing": lambda scores: bool(np.isfinite(scores).any()),
}


def fit(x, families, scores, floors, skills, ridge=1e-4, restarts=1, seed=0):
    """(slopes, intercepts, loadings, offsets) by L-BFGS on the rounded absolute error; the intercepts in the order of np.unique.

    Without a number of skills (None) each benchmark has one of its own and is fitted for itself, all at once.
    """
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    names, family = np.unique(families, return_inverse=True)
    z, known = np.hstack([x, np.eye(len(names))[family]]), np.isfinite(scores)
    y, benchmarks = np.where(known, scores, 0.0), scores.shape[1]
    shared, skills = skills is not None, skills or benchmarks
    weight, loaded = known / np.maximum(known.sum(None if shared else 0), 1), 1.0 if shared else np.eye(benchmarks)
    ends = np.cumsum([z.shape[1] * skills, skills * benchmarks])

    def parts(theta):
        return theta[: ends[0]].reshape(-1, skills), theta[ends[0] : ends[1]].reshape(skills, -1) * loaded, theta[ends[1] :]

    def objective(theta):
        w, loadings, offsets = parts(theta)
        theta_skills = z @ w
        p = logistic(theta_skills, loadings, offsets, floors)
        slope = np.clip(p - y, -ROUND, ROUND)
        value = (weight * slope * (p - y - slope / 2)).sum() / ROUND
        back = weight * slope / ROUND * (p - floors) * (1 - p) / (1 - floors)
        gradient = np.concatenate([(z.T @ (back @ loadings.T)).ravel(), (theta_skills.T @ back * loaded).ravel(), back.sum(0)])
        return value + ridge * theta @ theta, gradient + 2 * ridge * theta

    rng = np.random.default_rng(seed)
    starts = np.abs(rng.normal(0, 0.5, (restarts, ends[-1] + benchmarks)))
    starts[:, ends[0] : ends[1]] *= np.broadcast_to(loaded, (skills, benchmarks)).ravel()
    with threadpool_limits(1):  # threads cost more than such small products
        found = [minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 1500, "maxfun": 5000, "ftol": 1e-9}) for start in starts]
    w, loadings, offsets = parts(min(found, key=lambda f: f.fun).x)
    return w[: x.shape[1]], w[x.shape[1] :], loadings, offsets


@paper.algorithm(
    r"\min \tfrac1{nJ} \sum_{ij} \mathrm{Huber}_{.01}(\hat y_{ij} - y_{ij}) / .01 + \lambda \lVert (W_X, W_D, W_2, b) \rVert^2",
    requires=MATCHED,
    sample=lambda rng: population(rng, missing=0.1)[0] | {"skills": int(rng.integers(1, 4)), "restarts": 1},
)
def fit_sloth(
    params: MODELS["params"],
    tokens: MODELS["tokens"],
    families: MODELS["families"],
    scores: MODELS["scores"],
    *,
    skills: count("skills", typical=(1, 3)) = 2,
    floors: MODELS["floors"] = None,
    ridge: nonnegative(typical=(1e-6, 1e-2)) = 1e-4,
    restarts: count("starts", typical=(1, 3)) = 2,
    seed: seed() = 0,
) -> record(
    slopes=matrix(3, "d", doc="of ln(tokens / 1e12), ln(params / 1e9) and their product"),
    intercepts=matrix("families", "d", doc="families in alphabetical order"),
    loadings=matrix("d", "J"),
    offsets=vector("J"),
    skills=matrix("n", "d"),
    mae=probability(doc="mean absolute error of the scores that were fitted"),
):
    """Constants of the law and skills of the models, fitted to a table of scores with gaps."""
    floors = np.zeros(scores.shape[1]) if floors is None else np.asarray(floors, float)
    x, family = features(params, tokens), np.unique(families, return_inverse=True)[1]
    slopes, intercepts, loadings, offsets = fit(x, families, scores, floors, skills, ridge, restarts, seed)
    levels = x @ slopes + intercepts[family]
    mae = float(np.nanmean(np.abs(logistic(levels, loadings, offsets, floors) - scores)))
    return {"slopes": slopes, "intercepts": intercepts, "loadings": loadings, "offsets": offsets, "skills": levels, "mae": mae}


def held_out(params, families, test_family, train_sizes):
    """The models of the family beyond its smallest sizes."""
    member = np.asarray(families) == test_family
    sizes = np.unique(np.asarray(params)[member])
    if len(sizes) <= train_sizes:
        raise DomainError(f"test_family must have more than {train_sizes} sizes (train_sizes); {test_family} has {len(sizes)}.")
    return member & (params > sizes[train_sizes - 1])


def forecast(x, families, scores, test, floors, skills=2, ridge=1e-4):
    """Scores of the models in `test`, foretold from a fit to the others; each family must have one among the others."""
    families = np.asarray(families)
    slopes, intercepts, loadings, offsets = fit(x[~test], families[~test], scores[~test], floors, skills, ridge)
    family = np.searchsorted(np.unique(families[~test]), families[test])
    return logistic(x[test] @ slopes + intercepts[family], loadings, offsets, floors)


def forecast_alone(params, tokens, families, scores, test, floors, ridge=1e-4):
    """The same from a logistic in ln(6 params tokens) with family intercepts for each benchmark alone."""
    compute = np.log(6) + features(params, tokens)[:, :2].sum(1, keepdims=True)
    return forecast(compute, families, scores, test, floors, None, ridge)


@paper.algorithm(
    r"\tfrac1J \sum_j \tfrac1{|T|} \sum_{i \in T} |\hat y_{ij} - y_{ij}|,\quad T = \{\text{larger siblings}\}",
    requires=MATCHED | {"scores must not all be missing in any column": lambda scores: bool(np.isfinite(scores).any(0).all())},
    sample=lambda rng: population(rng)[0] | {"test_family": "family 1"},
)
def family_holdout(
    params: MODELS["params"],
    tokens: MODELS["tokens"],
    families: MODELS["families"],
    scores: MODELS["scores"],
    test_family: text(example="family 1", empty=False),
    *,
    train_sizes: count("sizes", typical=(1, 2), doc="smallest sizes of the family that are fitted") = 1,
    skills: count("skills", typical=(1, 3)) = 2,
    floors: MODELS["floors"] = None,
    ridge: nonnegative(typical=(1e-6, 1e-2)) = 1e-4,
) -> record(
    mae_per_benchmark=vector("J", of=probability(nan=True, doc="NaN where no held-out model has the score")),
    baseline_mae=probability(doc="of a logistic in ln(6 params tokens) with family intercepts for each benchmark alone, over all benchmarks"),
):
    """How well the larger models of a family are foretold from its smallest and from all other families."""
    scores, floors = np.asarray(scores, float), np.zeros(np.shape(scores)[1]) if floors is None else np.asarray(floors, float)
    test = held_out(params, families, test_family, train_sizes)
    if not np.isfinite(scores[test]).any():
        raise DomainError(f"scores must be known for a held-out model of {test_family}; all are missing.")
    off = np.abs(forecast(features(params, tokens), families, scores, test, floors, skills, ridge) - scores[test])
    alone = np.abs(forecast_alone(params, tokens, families, scores, test, floors) - scores[test])
    known = np.isfinite(off)
    with np.errstate(invalid="ignore"):
        return {"mae_per_benchmark": np.where(known, off, 0).sum(0) / known.sum(0), "baseline_mae": float(np.nanmean(alone))}


def varimax(loadings, rounds=500):
    """The rotation of the rows of d x J loadings that makes the variances of their squares largest."""
    rotation = np.eye(len(loadings))
    for _ in range(rounds):
        turned = rotation.T @ loadings
        u, _, v = np.linalg.svd(loadings @ (turned**3 - turned * (turned**2).mean(1, keepdims=True)).T)
        before, rotation = rotation, u @ v
        if np.abs(rotation - before).max() < 1e-13:
            break
    return rotation


@paper.measure(
    r"(\theta, W_2, W_X) \to (\theta R, R^{-1} W_2, W_X R)",
    requires={
        "skills must have more rows than columns, and no column be linear in others": lambda skills: np.linalg.matrix_rank(skills - skills.mean(0)) == skills.shape[1],
    },
)
def skill_profile(
    skills: matrix("n", "d", least=1, example=[[0.1, 0.5], [1.0, 0.9], [2.2, 1.4], [0.4, 2.0]]),
    loadings: matrix("d", "J", example=LOADINGS),
    slopes: matrix(3, "d", example=SLOPES),
    *,
    rotation: choice("varimax", "none", doc="none leaves the skills along the principal axes of their loadings") = "varimax",
) -> record(skills=matrix("n", "d"), loadings=matrix("d", "J"), level_slopes=matrix(3, "d", doc="of ln tokens, ln params and their product, for each skill")):
    """Skills in a form that can be read: uncorrelated over the models with mean 0 and variance 1, few large loadings, these positive, the strongest skill first."""
    skills, loadings, slopes = (np.asarray(v, float) for v in (skills, loadings, slopes))
    centred = skills - skills.mean(0)
    spread = np.linalg.cholesky(centred.T @ centred / len(skills)).T  # centred = white @ spread
    axes = np.linalg.svd(spread @ loadings)[0]
    turn = axes @ varimax(axes.T @ spread @ loadings) if rotation == "varimax" else axes
    found = turn.T @ spread @ loadings
    order = np.argsort(-(found**2).sum(1), kind="stable")
    sign = np.where(found[np.arange(len(found)), np.abs(found).argmax(1)] < 0, -1.0, 1.0)
    change = np.linalg.solve(spread, turn * sign)[:, order]
    return {"skills": centred @ change, "loadings": (found * sign[:, None])[order], "level_slopes": slopes @ change}


def each_standardised(skills, loadings, slopes):
    """Skills divided by their own deviations only: they stay correlated."""
    deviation = skills.std(0)
    return skill_profile(skills, loadings, slopes) | {"skills": (skills - skills.mean(0)) / deviation, "loadings": loadings * deviation[:, None]}


@paper.trial(Identity(rtol=1e-6, atol=1e-6), of=[skill_profile, predict_scores], controls={"each skill standardised alone": each_standardised}, quick=30, full=1000)
def skills_are_given_up_to_a_matrix(draw, claim):
    """Mixing the skills by any invertible matrix leaves the scores as they are, and the profile undoes it."""
    rng, d = draw.rng, draw.integer(1, 3)
    skills, loadings, slopes, intercept = rng.normal(size=(30, d)), rng.exponential(size=(d, 6)) ** 2, rng.normal(size=(3, d)), rng.normal(size=d)
    mix = rng.normal(size=(d, d)) + 2 * np.eye(d)
    back = np.linalg.inv(mix)
    options = {"offsets": rng.normal(size=6), "floors": rng.uniform(0, 0.5, 6)}
    plain = predict_scores(7e9, 2e12, intercept, slopes=slopes, loadings=loadings, **options)
    mixed = predict_scores(7e9, 2e12, intercept @ mix, slopes=slopes @ mix, loadings=back @ loadings, **options)
    left, right = (np.concatenate([v.ravel() for v in claim(*parts).values()]) for parts in ((skills, loadings, slopes), (skills @ mix, back @ loadings, slopes @ mix)))
    return [*left, *plain], [*right, *mixed], {"skills": d}


@paper.trial(Guarantee(), of=[fit_sloth, predict_scores], controls={"one skill": lambda *models, floors: fit_sloth(*models, skills=1, floors=floors)}, quick=4, full=40)
def recovers_scores(draw, claim):
    """From a synthetic population with two skills, noise and a tenth of the scores missing, the law meets the true scores closer than the noise."""
    models, truth = population(draw.rng, families=12, sizes=4, noise=0.02, missing=0.1)
    found = claim(*(models[name] for name in ("params", "tokens", "families", "scores")), floors=models["floors"])
    constants = {name: found[name] for name in ("slopes", "loadings", "offsets")} | {"floors": models["floors"]}
    intercepts = found["intercepts"][np.unique(models["families"], return_inverse=True)[1]]
    scores = [predict_scores(*model, **constants) for model in zip(models["params"], models["tokens"], intercepts, strict=True)]
    return np.abs(scores - truth).mean(), 0.02


def leaderboard(tables):
    """Models with all six scores, and the floors of the source: first percentiles."""
    table, floors = tables["data_v1"], np.array([tables["lower_bounds"][name][0] for name in SCORES])
    columns = np.column_stack([table["#Params (B)"] * 1e9, table["Pretraining Data Size (T)"] * 1e12, *(table[name] for name in SCORES)])
    whole = np.isfinite(columns).all(1)
    models = {"params": columns[whole, 0], "tokens": columns[whole, 1], "families": table["Family"][whole].tolist(), "scores": columns[whole, 2:]}
    return models, floors, [name for name in np.unique(models["families"]) if len(np.unique(models["params"][np.array(models["families"]) == name])) > 1]


def shuffled_families(params, tokens, families, scores, test_family, floors):
    """The same models held out, but the other models' families drawn from a hat."""
    test, labels = held_out(params, families, test_family, 1), np.array(families)
    labels[~test] = np.random.default_rng(0).permutation(labels[~test])
    return {"mae_per_benchmark": np.abs(forecast(features(params, tokens), labels, scores, test, floors) - scores[test]).mean(0), "baseline_mae": 1.0}


ONE_SKILL = {"one skill": lambda **models: family_holdout(**models, skills=1)}


@paper.trial(Guarantee(), of=[family_holdout], controls=ONE_SKILL | {"families shuffled": shuffled_families}, quick=1, full=1, data="leaderboard")
def foretells_siblings(draw, claim, data, effort):
    """Larger models of a family, foretold from its smallest: closer than by a curve in compute, and within .050, on average over 31 families (quick: every sixth of them)."""
    models, floors, families = leaderboard(data)
    found = [claim(**models, test_family=name, floors=floors) for name in families[:: 6 if effort == "quick" else 1]]
    own, baseline = (float(np.mean([np.mean(f[key]) for f in found])) for key in ("mae_per_benchmark", "baseline_mae"))
    return [own, own], [baseline, 0.050], {"own": own, "baseline": baseline}


@paper.finding(
    """Guessing floors do not help to foretell larger siblings: with all floors at 0 the two-skill law errs by .045 on average over 31 families of the leaderboard, with first
    percentiles as floors by .048.""",
    trial=foretells_siblings,
    data="leaderboard",
)
def floors_do_not_help(data):
    models, floors, families = leaderboard(data)
    x, tests = features(models["params"], models["tokens"]), [held_out(models["params"], models["families"], name, 1) for name in families]
    scores = models["scores"]
    with_floors, without = (np.mean([np.abs(forecast(x, models["families"], scores, test, c) - scores[test]).mean() for test in tests]) for c in (floors, 0 * floors))
    return {"holds": bool(without < with_floors < 0.05), "with_floors": float(with_floors), "without": float(without)}
