"""Repeated sampling: how the share of solved problems grows with the number of attempts, how to measure it and how to extrapolate it."""

import math

import numpy as np

from lawbook.contract import Paper, caution, count, either, nonnegative, optional, positive, probability, real, record, vector
from lawbook.numerics import arrays, special, statistics
from lawbook.trials import Estimate, Forecast, Guarantee, Identity, Prediction

paper = Paper(
    __name__,
    title="Large Language Monkeys: Scaling Inference Compute with Repeated Sampling",
    arxiv="2407.21787",
    tags=["pass@k", "coverage", "test-time compute", "repeated sampling", "scaling law", "inference"],
    source="known",
    says="""If any of k attempts may succeed, the share of solved problems (coverage, pass@k) keeps growing over four orders of magnitude in k and follows an
    exponentiated power law exp(a k^b). Success rates with a Beta law give such growth exactly in the tail, with the density of nearly unsolvable problems as the
    exponent. At a fixed budget a cheap model with many attempts can cover more than a strong one with few, if a verifier can pick the winner.""",
    notes="""The default a and b are those of the curve through the two coverages in the abstract (15.9 % at one attempt, 56 % at 250: DeepSeek-Coder-V2 on SWE-bench
    Lite). Coverages of 0 and 1 have no log(-log C); they are left out of the line that starts the fit and of the curvature, with a caution, but not out of the least
    squares, where dropping them would bias the fit.""",
)

ATTEMPTS = vector("T", of=count("samples", typical=(1, 10_000)), doc="attempts a problem: k", example=[1, 10, 100, 250])
SCALE_A = real(high=0, below=True, typical=(-5, -0.1), doc="log of the coverage at one attempt", fitted=True)
SLOPE_B = real(high=0, below=True, typical=(-1, -0.05), doc="exponent of -log coverage", fitted=True)
COVERAGE = vector("T", of=probability())


@paper.measure(
    r"\text{pass@}k = 1 - \binom{n-c}{k} \Big/ \binom{n}{k}",
    requires={
        "correct must be at most samples": lambda correct, samples: bool(np.all(np.asarray(correct) <= samples)),
        "k must be at most samples": lambda k, samples: bool(np.all(np.asarray(samples) >= k)),
    },
    sample=lambda rng: {"samples": 50, "correct": int(rng.integers(51)) if rng.uniform() < 0.5 else rng.integers(0, 51, size=4), "k": int(rng.integers(1, 51))},
    gives=0.8485,
)
def pass_at_k(
    samples: either(count("samples", doc="n: attempts made at a problem", example=12), vector("problems", of=count("samples"))),
    correct: either(count("samples", low=0, doc="c: attempts that succeeded", example=2), vector("problems", of=count("samples", low=0))),
    k: count("samples", doc="attempts that the estimate is for", example=7),
) -> probability():
    """Unbiased estimate of the probability that k attempts hold a success; of several problems, the mean of their estimates."""
    return float(statistics.pass_at_k(samples, correct, k).mean())


@paper.law(
    r"C(k) = \exp(a\, k^b),\quad a, b < 0",
    assumes=["A description, exact only in the tail of Beta success rates; it has no ceiling below 1."],
    observes="coverage",
    closed_form=True,
)
def coverage_law(samples: ATTEMPTS, *, a: SCALE_A = -1.839, b: SLOPE_B = -0.209) -> COVERAGE:
    """Share of problems solved within k attempts, by the exponentiated power law."""
    xp, k, a, b = arrays(samples, a, b)
    return xp.exp(a * k**b)


def log_minus_log(samples, coverage):
    """(log k, log(-log C)) where it exists."""
    inside = (coverage > 0) & (coverage < 1)
    return np.log(samples[inside]), np.log(-np.log(coverage[inside]))


def two_attempts(samples, coverage, fit_until):
    used = (samples <= (np.inf if fit_until is None else fit_until)) & (coverage > 0) & (coverage < 1)
    return len(np.unique(samples[used])) >= 2


@paper.algorithm(
    r"\min_{a, b} \sum_k \left(C_k - e^{a k^b}\right)^2",
    requires={"samples must hold two different values up to fit_until with a coverage between 0 and 1": two_attempts},
)
def fit_coverage(
    samples: ATTEMPTS,
    coverage: vector("T", of=probability(), doc="share of problems solved within as many attempts", example=[0.159, 0.321, 0.496, 0.56]),
    *,
    fit_until: positive("samples", typical=(2, 10_000), doc="attempts beyond which points are held out") = None,
) -> record(
    a=real(high=0, doc="log of the coverage at one attempt"),
    b=real(doc="exponent; negative where coverage grows"),
    rmse=nonnegative(doc="error on the fitted points"),
    holdout_rmse=optional(nonnegative(doc="error on the points beyond fit_until")),
    curvature=optional(real(doc="coefficient of (log k)^2 in log(-log C): above .01, coverage is likely to saturate below 1; needs three points")),
):
    """Exponentiated power law fitted to a coverage curve, its error on held-out attempts, and a sign of saturation."""
    from scipy.optimize import least_squares

    k, c = np.asarray(samples, float), np.asarray(coverage, float)
    held = np.zeros(len(k), bool) if fit_until is None else k > fit_until
    x, y = log_minus_log(k[~held], c[~held])
    if len(x) < (~held).sum():
        caution(f"{(~held).sum() - len(x)} points at coverage 0 or 1 have no log(-log C): they count in the fit, not in its starting line and not in the curvature.")
    line = np.clip(np.polyfit(x, y, 1), [-19, -49], [19, 49])

    def predicted(slope, intercept, k):
        return np.exp(-np.exp(np.minimum(intercept + slope * np.log(k), 700)))

    fit = least_squares(lambda theta: predicted(*theta, k[~held]) - c[~held], line, bounds=([-20, -50], [20, 50]), xtol=1e-12, ftol=1e-12, gtol=1e-12)
    error = predicted(*fit.x, k) - c
    return {
        "a": -math.exp(fit.x[1]),
        "b": float(fit.x[0]),
        "rmse": float(np.sqrt(np.mean(error[~held] ** 2))),
        "holdout_rmse": float(np.sqrt(np.mean(error[held] ** 2))) if held.any() else None,
        "curvature": float(np.polyfit(x, y, 2)[0]) if len(np.unique(x)) > 2 else None,
    }


def log_gamma_ratio(xp, x, step):
    """log Gamma(x + step) - log Gamma(x), by Stirling's series where the difference of two log-gammas would lose digits."""
    gammaln = special(xp, "gammaln")
    large = x > 30
    far = xp.where(large, x, 30 + 0 * x)

    def series(z):
        return (1 / 12 - (1 / 360 - 1 / (1260 * z**2)) / z**2) / z

    stirling = (far + step - 0.5) * xp.log1p(step / far) + step * (xp.log(far) - 1) + series(far + step) - series(far)
    near = xp.where(large, 30 + 0 * x, x)
    return xp.where(large, stirling, gammaln(near + step) - gammaln(near))


@paper.law(
    r"C(k) = 1 - \frac{B(\alpha, \beta+k)}{B(\alpha, \beta)},\quad -\log C(k) \sim \frac{\Gamma(\alpha+\beta)}{\Gamma(\beta)}\, k^{-\alpha}",
    assumes=["Success rates of problems have a Beta(alpha, beta) law; attempts at a problem are independent."],
    observes="coverage",
    closed_form=True,
)
def beta_coverage(
    samples: ATTEMPTS,
    *,
    alpha: positive(typical=(0.05, 5), doc="weight of nearly unsolvable problems: the density at success rate 0 goes like p^(alpha-1)", fitted=True, example=0.3),
    beta: positive(typical=(0.2, 50), doc="weight of nearly certain problems", fitted=True, example=2.5),
) -> COVERAGE:
    """Share of problems solved within k attempts where success rates follow a Beta law."""
    xp, k, alpha, beta = arrays(samples, alpha, beta)
    return -xp.expm1(log_gamma_ratio(xp, beta, alpha) - log_gamma_ratio(xp, beta + k, alpha))


@paper.algorithm(
    r"\arg\max_i \exp\left(a_i \lfloor \text{budget}/\text{cost}_i \rfloor^{b_i}\right)",
    requires={"budget must pay for one sample of the cheapest model": lambda budget, costs: budget >= np.min(costs)},
    sample=lambda rng: {"budget": 10 ** rng.uniform(15, 18), "costs": 10 ** rng.uniform(13, 15, size=3), "a": -rng.uniform(0.1, 3, size=3), "b": -rng.uniform(0.05, 1, size=3)},
)
def best_budget_split(
    budget: positive("FLOP", typical=(1e14, 1e18), doc="compute for one problem", example=1e16),
    costs: vector(
        "models", of=positive("FLOP", typical=(1e13, 1e15)), doc="compute of one sample of each model: about 2 params (prompt + decoded tokens)", example=[2e13, 2e14, 4e15]
    ),
    a: vector("models", of=SCALE_A, doc="a of each model's coverage law", example=[-1.8, -1.1, -0.5]),
    b: vector("models", of=SLOPE_B, doc="b of each model's coverage law", example=[-0.3, -0.25, -0.2]),
) -> record(model=count(low=0, doc="its index, from 0"), samples=count("samples", doc="samples that the budget pays for"), coverage=probability()):
    """Model whose samples cover the most problems when the whole budget goes to it."""
    k = np.asarray(budget, float) // np.asarray(costs, float)
    coverage = np.where(k >= 1, coverage_law(np.maximum(k, 1), a=np.asarray(a), b=np.asarray(b)), -1.0)
    model = int(np.argmax(coverage))
    return {"model": model, "samples": int(k[model]), "coverage": float(coverage[model])}


def plug_in(samples, correct, k):
    return 1 - (1 - correct / samples) ** k


@paper.trial(Identity(rtol=1e-9, atol=1e-12), of=[pass_at_k], controls={"plug-in 1-(1-c/n)^k": plug_in}, quick=40, full=2000)
def unbiased(draw, claim):
    """The mean over c ~ Bin(n, p) is exactly 1-(1-p)^k for every k up to n, and each value is a ratio of two exact binomial coefficients."""
    from scipy.stats import binom

    n, p = draw.integer(2, 60), draw.uniform(0.001, 0.999)
    k = draw.integer(2, n)
    estimates = [claim(n, c, k) for c in range(n + 1)]
    exact = [1 - math.comb(n - c, k) / math.comb(n, k) for c in range(n + 1)]
    return [binom.pmf(np.arange(n + 1), n, p) @ estimates, *estimates], [-np.expm1(k * np.log1p(-p)), *exact], {"samples": n, "k": k, "success_rate": p}


def swapped(samples, *, alpha, beta):
    return beta_coverage(samples, alpha=beta, beta=alpha)


def mean_rate_only(samples, *, alpha, beta):
    return 1 - (beta / (alpha + beta)) ** samples


@paper.trial(Identity(), of=[beta_coverage], controls={"alpha and beta exchanged": swapped, "every problem at the mean success rate": mean_rate_only}, quick=6, full=60)
def beta_problems(draw, claim):
    """The closed form is the coverage of 100,000 simulated problems with Beta success rates."""
    alpha, beta, k = draw.log_uniform(0.1, 3), draw.log_uniform(0.3, 20), np.array([1.0, 5.0, 40.0, 300.0])
    solved = 1 - (1 - draw.rng.beta(alpha, beta, size=(100_000, 1))) ** k
    return Estimate.of(solved), claim(k, alpha=alpha, beta=beta), {"alpha": alpha, "beta": beta}


@paper.trial(Identity(rtol=1e-10), of=[beta_coverage], controls={"alpha and beta exchanged": swapped}, quick=40, full=2000)
def posterior_product(draw, claim):
    """The closed form is one minus the product of the chances that each next attempt fails after failures only."""
    alpha, beta, most = draw.log_uniform(0.03, 5), draw.log_uniform(0.1, 100), draw.choice([3, 100, 10_000])
    j = np.arange(most)
    failed = np.cumsum(np.log1p(-alpha / (alpha + beta + j)))
    at = np.unique(np.geomspace(1, most, 12).astype(int))
    return -np.expm1(failed[at - 1]), claim(at, alpha=alpha, beta=beta), {"alpha": alpha, "beta": beta}


def tail_of_beta(alpha, beta):
    return {"a": -math.exp(math.lgamma(alpha + beta) - math.lgamma(beta)), "b": -alpha}


@paper.trial(
    Identity(rtol=1e-3),
    of=[coverage_law, beta_coverage],
    claim=tail_of_beta,
    controls={
        "exponent -beta": lambda alpha, beta: {**tail_of_beta(alpha, beta), "b": -beta},
        "without Gamma(beta)": lambda alpha, beta: {"a": -math.gamma(alpha + beta), "b": -alpha},
    },
    quick=100,
    full=5000,
)
def tail(draw, claim):
    """Far out, where 1 - C is below 1e-4, the Beta model is the exponentiated power law with b = -alpha and a = -Gamma(alpha+beta)/Gamma(beta)."""
    alpha, beta = draw.uniform(0.2, 2), draw.uniform(0.2, 20)
    law = claim(alpha, beta)
    reach = max((1e4 * math.exp(math.lgamma(alpha + beta) - math.lgamma(beta))) ** (1 / alpha), 3000 * alpha * (2 * beta + alpha))
    k = np.array([reach, 3 * reach])
    return -np.log(beta_coverage(k, alpha=alpha, beta=beta)), -np.log(coverage_law(k, **law)), {"alpha": alpha, "beta": beta, "samples": k}


def law_through(samples, coverage, new):
    fit = fit_coverage(samples, coverage)
    return coverage_law(new, a=fit["a"], b=fit["b"])


def power_law_of_coverage(samples, coverage, new):
    return np.exp(np.polyval(np.polyfit(np.log(samples), np.log(coverage), 1), np.log(new)))


def beta_curve(draw, k, impossible=0.0):
    """Coverage of 200 problems with success rates from Beta(.3, 2.5), some of them impossible."""
    rates = draw.rng.beta(0.3, 2.5, size=200) * (draw.rng.uniform(size=200) >= impossible)
    return -np.expm1(np.log1p(-rates[:, None]) * k).mean(0)


def forecast(draw, claim):
    seen, new = np.unique(np.geomspace(1, 100, 15).round()), np.array([1000.0, 10_000.0])
    c = beta_curve(draw, np.append(seen, new))
    return c[-2:], claim(seen, c[:-2], new), power_law_of_coverage(seen, c[:-2], new)


@paper.trial(
    Prediction(baseline="a power law of the coverage itself", at_most=0.05, metric="mae"),
    of=[fit_coverage, coverage_law],
    claim=law_through,
    controls={"a power law of the coverage itself": power_law_of_coverage},
    quick=30,
    full=200,
)
def extrapolation(draw, claim):
    """Fitted on up to 100 attempts at 200 problems, the law tells the coverage at 1,000 and 10,000 attempts within 5 points on average."""
    return Forecast(*forecast(draw, claim))


@paper.trial(Guarantee(), of=[fit_coverage, coverage_law], claim=law_through, controls={"a power law of the coverage itself": power_law_of_coverage}, quick=30, full=200)
def largest_error(draw, claim):
    """No forecast from 100 attempts at 200 problems is off by more than 10 points at 1,000 and 10,000 attempts."""
    observed, predicted, _ = forecast(draw, claim)
    return np.abs(predicted - observed).max(), 0.10


def log_log_curvature(samples, coverage):
    return fit_coverage(samples, coverage)["curvature"]


def curvature_of_log_coverage(samples, coverage):
    return float(np.polyfit(np.log(samples), np.log(coverage), 2)[0])


SEEN = np.geomspace(1, 1000, 15)


@paper.trial(Guarantee(), of=[fit_coverage, beta_coverage], claim=log_log_curvature, controls={"curvature of log C": curvature_of_log_coverage}, quick=50, full=1000)
def saturation(draw, claim):
    """With 10 % or more of impossible problems the curvature up to 1,000 attempts exceeds .01; without them, and for the law itself, it stays below."""
    impossible, solvable = draw.uniform(0.1, 0.8), beta_coverage(SEEN, alpha=0.3, beta=2.5)
    law = coverage_law(SEEN, a=-draw.uniform(0.5, 4), b=-draw.uniform(0.05, 0.5))
    return [0.01, claim(SEEN, solvable), abs(claim(SEEN, law))], [claim(SEEN, (1 - impossible) * solvable), 0.01, 1e-9], {"impossible": impossible}


def cheapest(budget, costs, a, b):
    model = int(np.argmin(costs))
    return {"model": model, "samples": int(budget // costs[model]), "coverage": 1.0}


def best_single_sample(budget, costs, a, b):
    model = int(np.argmax(np.where(costs <= budget, a, -np.inf)))
    return {"model": model, "samples": int(budget // costs[model]), "coverage": 1.0}


@paper.trial(
    Guarantee(), of=[best_budget_split, coverage_law], controls={"always the cheapest": cheapest, "always the best at one sample": best_single_sample}, quick=60, full=2000
)
def no_better_split(draw, claim):
    """No affordable model and number of samples covers more, and the budget is kept."""
    m = draw.integer(2, 5)
    costs, a, b = draw.log_uniform(1, 1000, m), -draw.uniform(0.2, 4, m), -draw.uniform(0.05, 0.8, m)
    budget = draw.log_uniform(1, 30) * costs.min()
    best = max(math.exp(a[i] * k ** b[i]) for i in range(m) for k in range(1, int(budget / costs[i]) + 1))
    split = claim(budget, costs, a, b)
    i, k = split["model"], split["samples"]
    return [best, k * costs[i]], [math.exp(a[i] * k ** b[i]), budget], {"budget": budget, "costs": costs}


@paper.finding(
    """Two common shortcuts are biased: the plug-in 1-(1-c/n)^k is too low for every k above 1, and pooling the counts of different problems first is too high.""", trial=unbiased
)
def biased_shortcuts():
    rng, n, k = np.random.default_rng(0), 100, 50
    rates = rng.beta(0.3, 2.5, size=20_000)
    correct, true = rng.binomial(n, rates), float(np.mean(1 - (1 - rates) ** k))
    found = {"true": true, "unbiased": pass_at_k(n, correct, k), "plug_in": float(plug_in(n, correct, k).mean()), "pooled": float(plug_in(n, correct.mean(), k))}
    return {"holds": bool(found["plug_in"] < true - 0.002 and found["pooled"] > true + 0.1 and abs(found["unbiased"] - true) < 0.003), **found}


@paper.finding(
    """The exponentiated power law is an approximation even with unlimited problems: fitted up to 100 attempts on exact Beta(.3, 2.5) coverage,
    it promises 2 points too much at 1,000 and at 10,000 attempts.""",
    trial=extrapolation,
)
def law_is_approximate():
    seen, new = np.unique(np.geomspace(1, 100, 15).round()), np.array([1000.0, 10_000.0])
    off = law_through(seen, beta_coverage(seen, alpha=0.3, beta=2.5), new) - beta_coverage(new, alpha=0.3, beta=2.5)
    return {"holds": bool((off > 0.01).all() and (off < 0.03).all()), "error_1000": float(off[0]), "error_10000": float(off[1])}


@paper.finding(
    """Impossible problems break the law, which has no ceiling below 1: with 40 % of them, forecasts for 10,000 attempts overshoot; the curvature tells.""", trial=saturation
)
def impossible_problems():
    curves = {z: (1 - z) * beta_coverage(SEEN, alpha=0.3, beta=2.5) for z in (0.0, 0.1, 0.4)}
    bends = {f"curvature_{int(100 * z)}_percent": log_log_curvature(SEEN, c) for z, c in curves.items()}
    new = np.array([1e4, 1e6])
    over = law_through(SEEN, curves[0.4], new) - 0.6 * beta_coverage(new, alpha=0.3, beta=2.5)
    return {"holds": bool(over[1] > 0.05), **bends, "overshoot_1e4": float(over[0]), "overshoot_1e6": float(over[1])}
