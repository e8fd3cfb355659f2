"""Answers from sampled reasoning paths: the errors of voting, of a path's own probability, and of adding up the probabilities of distinct paths."""

import math
from itertools import product

import numpy as np

from lawbook.contract import Paper, count, flag, listing, nonnegative, positive, probability, real, record, text, vector
from lawbook.numerics import arrays
from lawbook.trials import Estimate, Guarantee, Identity, Rate

paper = Paper(
    __name__,
    title="A Theoretical Study on Bridging Internal Probability and Self-Consistency for LLM Reasoning",
    arxiv="2510.15444",
    tags=["self-consistency", "majority voting", "reasoning", "confidence", "perplexity", "test-time scaling", "pruning"],
    source="code",
    says="""Choosing among sampled answers is an estimate of confidence, whose squared error has a part from finite sampling and a part from the model. The votes of
    self-consistency shrink the first like 1/n only; a single path's probability shrinks it geometrically but has a large second part. Adding up the model's probabilities of
    the distinct sampled paths of each answer has the small second part and shrinks the first geometrically, unless paths are very unlikely: these are pruned.""",
    notes="""Votes need the probabilities of whole paths, the summed token log-probabilities; pruning needs mean token log-probabilities, which the official code reads for both.
    Mean and variance of the sum over distinct paths are exact; the error is split at (P - I)^2, and the rest may be negative for wrong answers. Published samples that reach
    self-consistency's best: MATH 32 instead of 64, MathOdyssey 32 of 112, OlympiadBench 64 of 128, AIME 48 of 128.""",
)

PATHS = vector("K", of=probability(typical=(0, 0.15)), doc="model probabilities of the paths that lead to the answer", example=[0.2, 0.15, 0.1])
SAMPLES = count("paths", typical=(1, 256), doc="n: paths sampled", example=8)
CORRECT = flag(doc="whether the answer is the right one", example=True)
AT_MOST_ONE = {"path_probabilities must sum to at most 1": lambda path_probabilities: np.sum(path_probabilities) <= 1 + 1e-9}
MEAN = probability(doc="expected confidence in the answer")
MODEL = nonnegative(doc="(P - I)^2: what is left with all paths known")
LOGS = real("nats", high=0, typical=(-6, 0))
ANSWERS = listing(text(), least=1, doc="answer of each sampled path", example=["12", "12", "7", "12"])
COMPLETIONS = listing(text(), least=1, doc="text of each sampled path; equal texts are one path", example=["path A", "path B", "path C", "path A"])
LOG_PROBABILITIES = vector("n", of=LOGS, doc="summed token log-probability of each path", example=[-3.0, -4.0, -2.5, -3.0])
ALIKE = {
    "answers, completions and log_probabilities must be equally many": lambda answers, completions, log_probabilities: len(answers) == len(completions) == len(log_probabilities)
}


@paper.law(r"\mathrm{E}(\hat p - I)^2 = \frac{P(1-P)}{n} + (P - I)^2", requires=AT_MOST_ONE, gives={"mean": 0.45, "estimation": 0.0309375, "model": 0.3025})
def self_consistency_error(path_probabilities: PATHS, samples: SAMPLES, correct: CORRECT) -> record(
    mean=MEAN, mse=nonnegative(), estimation=nonnegative(doc="what finite sampling adds"), model=MODEL
):
    """Squared error of voting: the share of sampled paths with this answer as confidence in it."""
    mass = min(float(np.sum(path_probabilities)), 1.0)
    estimation, model = mass * (1 - mass) / samples, (mass - correct) ** 2
    return {"mean": mass, "mse": estimation + model, "estimation": estimation, "model": model}


@paper.law(r"\mathrm{E}(\hat p - I)^2 = (p - I)^2 + (1-p)^n (2 I p - p^2)", closed_form=True)
def perplexity_error(path_probability: probability(doc="model probability of the path", example=0.2), samples: SAMPLES, correct: CORRECT) -> nonnegative():
    """Squared error of a single path's probability as confidence in it, 0 where the path was not sampled."""
    _, p, n = arrays(path_probability, samples)
    right = float(correct)
    return (p - right) ** 2 + (1 - p) ** n * (2 * right * p - p**2)


@paper.law(
    r"\mu = \sum_t p_t (1 - (1-p_t)^n),\quad \mathrm{E}(\hat p - I)^2 = (\mu - I)^2 + \sum_{t,s} p_t p_s \left[(1-p_t-p_s)^n - (1-p_t)^n (1-p_s)^n\right]",
    assumes=["The probabilities are those of whole paths: normalised by length they break the law."],
    requires=AT_MOST_ONE,
)
def perplexity_consistency_error(path_probabilities: PATHS, samples: SAMPLES, correct: CORRECT) -> record(
    mean=MEAN, mse=nonnegative(), estimation=real(doc="mse less model; may be negative for wrong answers"), model=MODEL, bias=real(high=0, doc="mean less P")
):
    """Squared error of the summed probabilities of the distinct sampled paths as confidence in their answer; exact for paths sampled independently."""
    p = np.asarray(path_probabilities, float)
    mass = min(float(p.sum()), 1.0)
    with np.errstate(divide="ignore"):
        missed = np.exp(samples * np.log1p(-p))
        both = np.exp(samples * np.log1p(-np.minimum(p[:, None] + p, 1)))
    np.fill_diagonal(both, missed)
    bias, variance = -float(p @ missed), float(p @ (both - np.outer(missed, missed)) @ p)
    estimation, model = bias * (bias + 2 * (mass - correct)) + variance, (mass - correct) ** 2
    return {"mean": max(mass + bias, 0.0), "mse": max(estimation + model, 0.0), "estimation": estimation, "model": model, "bias": bias}


@paper.algorithm(r"\hat p(y) \propto \sum_{t \in \mathrm{distinct}(t_1, \dots, t_n),\ g(t) = y} p_t", requires=ALIKE)
def perplexity_consistency_vote(answers: ANSWERS, completions: COMPLETIONS, log_probabilities: LOG_PROBABILITIES) -> record(
    answers=listing(text(), doc="in order of first appearance"), confidences=vector("distinct", of=probability(), doc="sum to 1")
):
    """Confidence in each answer: the probabilities of its distinct paths, relative to those of all."""
    first = {}
    for path, completion in enumerate(completions):
        first.setdefault(completion, path)
    distinct = list(dict.fromkeys(answers))
    place = {answer: i for i, answer in enumerate(distinct)}
    logs, paths = np.asarray(log_probabilities, float), list(first.values())
    weights = np.exp(logs[paths] - logs[paths].max())  # the vote is free of scale
    sums = np.bincount([place[answers[path]] for path in paths], weights, minlength=len(distinct))
    return {"answers": distinct, "confidences": sums / sums.sum()}


def weibull_mixture(logs):
    """Mixture of two Weibull laws that fits exp(logs) best from one start: shapes, scales and the log density of each component at each point; None where the fit fails."""
    from scipy.optimize import minimize

    def components(parameters):
        shares, shape, scale = np.array([parameters[0], 1 - parameters[0]])[:, None], parameters[1::2, None], parameters[2::2, None]
        z = logs - np.log(scale)
        power = np.exp(np.minimum(shape * z, 30))
        densities = np.log(shares * shape / scale) + (shape - 1) * z - power
        return densities, 1 / shape + z - z * power, (power - 1) * shape / scale  # and its derivatives in shape and scale

    def loss(parameters):
        densities, by_shape, by_scale = components(parameters)
        total = np.logaddexp(*densities)
        shares = np.exp(densities - total)
        (first, second), w = shares.sum(1), parameters[0]
        slopes = np.stack([np.sum(shares * by_shape, axis=1), np.sum(shares * by_scale, axis=1)], axis=1)
        return -total.sum(), -np.concatenate([[first / w - second / (1 - w)], slopes.ravel()])

    fit = minimize(loss, [0.5, 1.0, 1.0, 1.5, 2.0], jac=True, method="L-BFGS-B", bounds=[(0.2, 0.8)] + [(0.01, None)] * 4)
    return (fit.x[1::2], fit.x[2::2], components(fit.x)[0]) if np.isfinite(fit.x).all() and np.isfinite(fit.fun) else None


@paper.algorithm(
    r"\text{drop } i \iff \Pr(\text{likely} \mid x_i) < \Pr(\text{other} \mid x_i) \wedge x_i < \bar x,\quad x \sim w\, \mathrm{W}(k_1, l_1) + (1-w)\, \mathrm{W}(k_2, l_2)",
    assumes=["log_probabilities are means over tokens: on sums over tokens the unlikely cluster is taken for the likely one."],
)
def reasoning_prune(log_probabilities: vector("n", of=LOGS, most=12, doc="mean token log-probability of each path", example=[-0.12, -0.15, -0.5, -0.14, -0.18, -0.55])) -> record(
    kept=vector("n", of=flag()), threshold=probability(doc="mean of exp(log_probabilities): no path at or above it is dropped")
):
    """Which paths to keep: those that a mixture of two Weibull laws takes for likely, or that are no less likely than the mean; all of fewer than four."""
    from scipy.special import gammaln

    logs = np.asarray(log_probabilities, float)
    scaled, threshold = logs - logs.max(), float(np.mean(np.exp(logs)))
    fit = weibull_mixture(scaled) if len(logs) >= 4 and np.ptp(logs) > 0 else None
    if fit is None:
        return {"kept": np.ones(len(logs), bool), "threshold": threshold}
    shapes, scales, densities = fit
    likely, other = densities[np.argsort(-np.log(scales) - gammaln(1 + 1 / shapes), kind="stable")]  # the likely one has the larger mean
    return {"kept": (likely >= other) | (np.exp(scaled) >= np.mean(np.exp(scaled))), "threshold": threshold}


@paper.algorithm(
    r"\hat y = \arg\max_y \sum_{t \in \mathrm{kept},\ g(t) = y} p_t",
    requires={**ALIKE, "lengths must have one entry for each path": lambda lengths, log_probabilities: lengths is None or len(lengths) == len(log_probabilities)},
)
def rpc(
    answers: ANSWERS,
    completions: COMPLETIONS,
    log_probabilities: LOG_PROBABILITIES,
    *,
    lengths: vector("n", of=positive("tokens", typical=(1, 1000)), doc="tokens of each path; without, log_probabilities are pruned as they are") = None,
    prune: flag(doc="whether unlikely paths are dropped first") = True,
) -> record(answer=text(), answers=listing(text()), confidences=vector("distinct", of=probability()), kept=vector("n", of=flag())):
    """The answer with the largest sum of path probabilities after pruning: the paper's combined method."""
    logs = np.asarray(log_probabilities, float)
    kept = reasoning_prune(logs if lengths is None else logs / lengths)["kept"] if prune else np.ones(len(logs), bool)
    paths = np.flatnonzero(kept)
    vote = perplexity_consistency_vote([answers[i] for i in paths], [completions[i] for i in paths], logs[paths])
    return {"answer": vote["answers"][int(np.argmax(vote["confidences"]))], **vote, "kept": kept}


def repeats_counted(path_probabilities, samples, correct):
    """The mean where every sample of a path adds its probability again."""
    p = np.asarray(path_probabilities)
    return {**perplexity_consistency_error(p, samples, correct), "mean": samples * float(p @ p)}


ERRORS = (self_consistency_error, perplexity_error, perplexity_consistency_error)


@paper.trial(
    Identity(rtol=1e-9, atol=1e-12),
    of=[self_consistency_error, perplexity_error, perplexity_consistency_error],
    claim=ERRORS,
    controls={"repeated paths add up": (*ERRORS[:2], repeats_counted)},
    quick=12,
    full=200,
)
def enumerated(draw, claim):
    """Means and squared errors of the three confidences agree with listing every way to sample four of up to seven paths."""
    voting, single, summed = claim
    paths, n, right = draw.integer(2, 6), 4, draw.choice([False, True])
    law = draw.dirichlet(draw.log_uniform(0.3, 3), paths + 1)
    p = law[: draw.integer(1, paths)]
    drawn = np.array(list(product(range(len(law)), repeat=n)))
    weights, sampled = law[drawn].prod(1), (drawn[:, :, None] == np.arange(len(p))).any(1)
    votes, one, distinct = ((weights @ c, weights @ (c - right) ** 2) for c in ((drawn < len(p)).mean(1), sampled[:, 0] * p[0], sampled @ p))
    told, said = voting(p, n, right), summed(p, n, right)
    return [*votes, one[1], *distinct], [told["mean"], told["mse"], single(p[0], n, right), said["mean"], said["mse"]], {"paths": p, "correct": right}


@paper.trial(Rate(within=0.05, relative=True, axes="linear"), of=[perplexity_consistency_error], controls={"voting": self_consistency_error}, quick=4, full=40)
def geometric(draw, claim):
    """The sampling part of the error falls geometrically at the rate 1 - min p."""
    p = np.array([0.1, draw.uniform(0.18, 0.3), draw.uniform(0.18, 0.3)])
    sizes = np.arange(80, 161, 8)
    return sizes, np.log([abs(claim(p, int(n), True)["estimation"]) for n in sizes]), math.log(0.9)


def sampled_accuracies(rng, problems, sizes, vote):
    """Whether voting and `vote` are right on the first n samples, problem by problem: masses .45 (right), .3, .25 spread over six paths each."""
    right = np.empty((2, problems, len(sizes)))
    for problem in range(problems):
        law = np.concatenate([mass * rng.dirichlet(np.full(6, 0.15)) for mass in (0.45, 0.3, 0.25)])
        paths = rng.choice(18, p=law / law.sum(), size=max(sizes))
        logs = np.log(np.maximum(law[paths], 1e-300))
        for column, n in enumerate(sizes):
            votes = np.bincount(paths[:n] // 6, minlength=3)
            right[0, problem, column] = (votes[0] == votes.max()) / np.sum(votes == votes.max())
            said = vote([str(t // 6) for t in paths[:n]], [str(t) for t in paths[:n]], logs[:n])
            top = np.flatnonzero(said["confidences"] >= said["confidences"].max() * (1 - 1e-12))
            right[1, problem, column] = any(said["answers"][i] == "0" for i in top) / len(top)
    return right


def plain_voting(answers, completions, log_probabilities):
    return {"answers": (distinct := list(dict.fromkeys(answers))), "confidences": np.array([answers.count(a) for a in distinct]) / len(answers)}


@paper.trial(Guarantee(), of=[perplexity_consistency_vote], controls={"votes": plain_voting}, quick=2, full=20)
def half_the_samples(draw, claim):
    """With half the samples the summed probabilities of distinct paths are right at least as often as votes."""
    sizes = (2, 4, 8, 16, 32)
    voting, summed = sampled_accuracies(draw.rng, 400, sizes, claim)
    return Estimate.of(voting[:, 1:] - summed[:, :-1]), np.zeros(len(sizes) - 1), {"samples": sizes[1:]}


@paper.trial(
    Identity(),
    of=[perplexity_consistency_vote, rpc, reasoning_prune],
    claim=(perplexity_consistency_vote, rpc),
    controls={
        "repeats vote again": (lambda answers, completions, logs: perplexity_consistency_vote(answers, list(range(len(answers))), logs), rpc),
        "pruned on summed log-probabilities": (perplexity_consistency_vote, lambda *paths, lengths, prune=True: rpc(*paths, prune=prune)),
    },
    quick=12,
    full=300,
)
def by_hand(draw, claim):
    """Votes are sums over a dictionary of texts, at any scale of the probabilities; pruning sees them by length, the votes do not."""
    vote, combined = claim
    n = draw.integer(4, 14)
    texts = [draw.integer(0, 8) for _ in range(n)]
    answers, completions, lengths = [str(t % 3) for t in texts], [f"path {t}" for t in texts], np.array([20.0 + 60 * t for t in texts])
    logs = -lengths * draw.uniform(0.02, 0.8, size=9)[texts]
    kept = reasoning_prune(logs / lengths)["kept"]

    def by_dictionary(paths):
        chances = {texts[i]: math.exp(logs[i] - max(logs[j] for j in paths)) for i in paths}
        total = sum(chances.values())
        return [sum(c for t, c in chances.items() if t % 3 == a) / total for a in range(3)]

    found = vote(answers, completions, logs), combined(answers, completions, logs, lengths=lengths, prune=False), combined(answers, completions, logs, lengths=lengths)
    said = [[dict(zip(f["answers"], f["confidences"], strict=True)).get(str(a), 0.0) for a in range(3)] for f in found]
    everyone = by_dictionary(range(n))
    return [*everyone, *everyone, *by_dictionary(np.flatnonzero(kept)), *kept], [*said[0], *said[1], *said[2], *found[2]["kept"]], {"texts": texts}


def shares_kept(rng, prune, likely, unlikely, runs=25):
    """Mean shares kept of twenty likely and of twenty unlikely paths, with (mean, deviation) of their log-probabilities."""
    logs = np.minimum(np.stack([rng.normal(*cluster, size=(runs, 20)) for cluster in (likely, unlikely)], axis=1), 0).reshape(runs, 40)
    return np.mean([np.reshape(prune(run)["kept"], (2, 20)).mean(1) for run in logs], axis=0).tolist()


@paper.trial(
    Guarantee(),
    of=[reasoning_prune],
    controls={"keeps all": lambda logs: {"kept": np.ones(len(logs), bool)}, "keeps the best": lambda logs: {"kept": logs >= np.max(logs)}},
    quick=1,
    full=20,
)
def clusters_told_apart(draw, claim):
    """Of two clusters of mean token log-probabilities at least 95 % of the likely and at most 20 % of the unlikely paths are kept."""
    likely, unlikely = shares_kept(draw.rng, claim, (-0.15, 0.04), (-0.5, 0.1))
    return [1 - likely, unlikely], [0.05, 0.2], {"likely_kept": likely, "unlikely_kept": unlikely}


@paper.finding(
    """The pruning rule works on mean token log-probabilities and breaks on those of whole paths, which span tens of nats: the mixture fits the unlikely cluster with
    a shape far below 1, whose mean explodes, and takes it for the likely one.""",
    trial=clusters_told_apart,
)
def pruning_needs_means_over_tokens():
    rng = np.random.default_rng(0)
    by_token, whole = shares_kept(rng, reasoning_prune, (-0.15, 0.04), (-0.5, 0.1)), shares_kept(rng, reasoning_prune, (-5, 1), (-25, 3))
    return {
        "holds": by_token[0] > 0.95 and by_token[1] < 0.2 and whole[1] > whole[0],
        "likely_by_token": by_token[0],
        "unlikely_by_token": by_token[1],
        "likely_whole": whole[0],
        "unlikely_whole": whole[1],
    }


@paper.finding(
    """The squared error splits into an estimation part E(p - P)^2 and a model part (P - I)^2 only for unbiased confidences, as in voting; for sums over distinct paths the
    cross term 2 (E p - P)(P - I) is as large as the rest.""",
    trial=enumerated,
)
def decomposition_needs_no_bias():
    p, n = [0.1] * 4, 8
    wrong, right = (perplexity_consistency_error(p, n, correct) for correct in (False, True))
    spread = wrong["estimation"] - 2 * wrong["bias"] * sum(p)  # E(p - P)^2
    return {"holds": wrong["estimation"] < 0 < spread < right["estimation"], "quoted": spread, "estimation_wrong": wrong["estimation"], "estimation_right": right["estimation"]}
