"""Training on synthetic records beside real ones: how many pay, with which weight, and in which groups."""

import numpy as np

from lawbook.contract import Paper, count, distribution, nonnegative, positive, probability, real, record, vector
from lawbook.numerics import arrays
from lawbook.trials import Estimate, Guarantee, Identity

paper = Paper(
    __name__,
    title="Conditional Data Synthesis Augmentation",
    arxiv="2504.07426",
    tags=["synthetic data", "data augmentation", "bias-variance", "imbalanced data", "allocation", "generative models"],
    source="derived",
    says="""Synthetic records are generated where real ones are scarce, and a model is trained on both. More of them lower the variance and bring in the generator's bias, so that
    there is a best number and a best split over groups, beyond which more records hurt.""",
    notes="""The paper proves such bounds for general learners; the exact forms for means and group risks are derived here. A bound that pays for the bias by its size and not by
    its square, C N^-r + B (1 - n/N), has a best number only for rates above 1: at the usual rates it says all or nothing.""",
)

REAL = count("records", typical=(5, 200), doc="real records", example=100)
BIAS = real(typical=(-0.5, 0.5), doc="mean of synthetic records minus the true mean", example=0.1)
VARIANCE = positive(typical=(0.1, 3), doc="of one real record", example=1.0)
INDEPENDENT = ["The generator is fixed, or fitted on other records than those it is pooled with."]


@paper.law(
    r"\mathrm{MSE} = \Big(\frac{m b}{n+m}\Big)^2 + \frac{n \sigma^2 + m v^2}{(n+m)^2},\quad w^* = \frac{\sigma^2/n}{\sigma^2/n + v^2/m + b^2},\quad "
    r"\mathrm{MSE}^* = \frac{1}{n/\sigma^2 + 1/(v^2/m + b^2)}",
    closed_form=True,
    gives={"pooled": 0.0075, "best_weight": 0.333333},
    assumes=INDEPENDENT,
)
def augmented_error(
    real: REAL,
    synthetic: count("records", low=0, typical=(1, 500), doc="synthetic records", example=100),
    bias: BIAS,
    variance: VARIANCE,
    synthetic_variance: positive(typical=(0.1, 3), doc="of one synthetic record; that of a real one where not given") = None,
) -> record(
    pooled=nonnegative(doc="of the mean of all records"),
    weighted=nonnegative(doc="of the best mixture of both means, never above that of real records alone"),
    best_weight=probability(doc="of the synthetic mean in that mixture"),
):
    """Mean squared error of a mean estimated from real and synthetic records, pooled or weighted at best."""
    xp, n, m, b, s2, v2 = arrays(real, synthetic, bias, variance, variance if synthetic_variance is None else synthetic_variance)
    total, some = n + m, m > 0
    of_synthetic = b**2 + v2 / xp.where(some, m, 1.0)
    weight = xp.where(some, s2 / n / (s2 / n + of_synthetic), 0.0)
    return {"pooled": (m * b / total) ** 2 + (n * s2 + m * v2) / total**2, "weighted": (1 - weight) * s2 / n, "best_weight": weight}


@paper.law(r"m^* = \frac{n \sigma^2}{2 n b^2 - \sigma^2}\ \text{ if }\ b^2 > \frac{\sigma^2}{2n},\ \text{ else } \infty", closed_form=True, gives=100, assumes=INDEPENDENT)
def best_synthetic_count(real: REAL, bias: BIAS, variance: VARIANCE) -> nonnegative("records", infinite=True, doc="infinite where every further record helps"):
    """Number of synthetic records, as variable as the real ones, at which their pooled mean is best."""
    xp, n, b, s2 = arrays(real, bias, variance)
    excess = 2 * n * b**2 - s2
    finite = excess > 0
    return xp.where(finite, n * s2 / xp.where(finite, excess, 1.0), xp.inf)


def draw_groups(rng):
    g = int(rng.integers(1, 6))
    groups = {"real_counts": rng.integers(1, 100, g), "group_weights": rng.dirichlet(np.ones(g)), "group_constants": rng.uniform(0.1, 3, g)}
    return groups | {"budget": float(rng.uniform(1, 300))}


@paper.algorithm(
    r"\min_{m_g \ge 0,\, \sum m_g = M} \sum_g \frac{a_g c_g}{n_g + m_g}:\quad n_g + m_g = \max(n_g, \mu \sqrt{a_g c_g})", sample=draw_groups, assumes=["The generator is unbiased."]
)
def allocate_synthetic(
    real_counts: vector("g", of=nonnegative("records", typical=(1, 100)), doc="real records of each group", example=[200, 20, 5]),
    group_weights: distribution("g", doc="of the groups in the risk", example=[0.5, 0.3, 0.2]),
    group_constants: vector("g", of=positive(typical=(0.1, 3)), doc="risk of a group times its number of records", example=[1.0, 1.0, 2.0]),
    budget: positive("records", typical=(1, 300), doc="synthetic records in all", example=100),
) -> record(synthetic=vector("g", of=nonnegative("records")), risk=nonnegative(doc="weighted risk after it")):
    """Best split of a number of synthetic records over groups: the neediest ones are filled to a common level."""
    n, needs = np.asarray(real_counts, float), np.asarray(group_weights, float) * np.asarray(group_constants, float)
    root = np.sqrt(needs)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.where(root > 0, n / root, np.inf)
    order = np.argsort(level)
    levels = (budget + np.cumsum(n[order])) / np.maximum(np.cumsum(root[order]), 1e-300)
    filled = np.flatnonzero(levels > level[order])[-1]  # groups up to the last one that lies below its water level
    synthetic = np.where(level <= level[order][filled], np.maximum(levels[filled] * root - n, 0), 0.0)
    return {"synthetic": synthetic, "risk": float(np.sum(needs[needs > 0] / (n + synthetic)[needs > 0]))}


@paper.law(
    r"\arg\min_{m \ge 0} C N^{-r} + B (1 - n/N),\ N = n + m:\quad \Big(\frac{r C}{B n}\Big)^{1/(r-1)} - n \ \text{ if } r > 1,\ \text{ else } \infty \text{ or } 0",
    closed_form=True,
    gives=100,
)
def rate_optimal_count(
    real: REAL,
    bias: positive(typical=(0.01, 1), doc="B: what the risk becomes with synthetic records alone", example=0.1),
    scale: positive(typical=(0.1, 10), doc="C", example=1000.0),
    rate: positive(typical=(0.3, 3), doc="r", example=2.0),
) -> nonnegative("records", infinite=True, doc="infinite or 0 at rates of at most 1: all or nothing"):
    """Number of synthetic records at which a bound that falls as a power of all records and grows with the share of synthetic ones is least."""
    xp, n, b, c, r = arrays(real, bias, scale, rate)
    steep = r > 1
    best = xp.exp(xp.log(r * c / (b * n)) / xp.where(steep, r - 1, 1.0)) - n
    return xp.where(steep, xp.where(best > 0, best, 0.0), xp.where(b < c * n**-r, xp.inf, 0.0))


def bias_not_diluted(real, synthetic, bias, variance, synthetic_variance):
    found = augmented_error(real, synthetic, bias, variance, synthetic_variance)
    return found | {"pooled": found["pooled"] + bias**2 * (1 - (synthetic / (real + synthetic)) ** 2)}


def weights_by_numbers(real, synthetic, bias, variance, synthetic_variance):
    found = augmented_error(real, synthetic, bias, variance, synthetic_variance)
    return found | {"best_weight": synthetic / (real + synthetic)}


@paper.trial(
    Identity(),
    of=[augmented_error],
    controls={"bias not diluted": bias_not_diluted, "weights by numbers": weights_by_numbers},
    quick=8,
    full=100,
)
def means_of_records(draw, claim):
    """Skewed real and synthetic records are drawn many times: squared errors of the pooled mean and of the weighted one are as stated."""
    n, m, bias = draw.integer(1, 20), draw.integer(1, 40), draw.uniform(-1, 1)
    variance, other = draw.log_uniform(0.1, 3), draw.log_uniform(0.1, 3)
    found = claim(n, m, bias, variance, other)
    authentic = np.sqrt(variance) * (draw.rng.exponential(size=(40_000, n)) - 1).mean(1)
    generated = bias + np.sqrt(other) * (1 - draw.rng.exponential(size=(40_000, m))).mean(1)
    pooled, w = (n * authentic + m * generated) / (n + m), found["best_weight"]
    return Estimate.of(np.stack([pooled, w * generated + (1 - w) * authentic], 1) ** 2), [found["pooled"], found["weighted"]], {"real": n, "synthetic": m, "bias": bias}


def a_factor_two_missing(real, bias, variance):
    excess = real * bias**2 - variance
    return real * variance / excess if excess > 0 else np.inf


@paper.trial(Guarantee(), of=[best_synthetic_count, augmented_error], controls={"a factor 2 missing": a_factor_two_missing}, quick=300, full=5000)
def no_other_number_is_better(draw, claim):
    """The pooled error at the best number is at most that at any number of a grid from nothing to a thousand times the real records."""
    n, bias, variance = draw.integer(1, 500), draw.uniform(-0.6, 0.6), draw.log_uniform(0.05, 2)
    best = claim(n, bias, variance)
    reached = bias**2 if np.isinf(best) else augmented_error(n, best, bias, variance)["pooled"]
    grid = np.append(0, n * np.geomspace(1e-3, 1e3, 400))
    return reached, augmented_error(n, grid, bias, variance)["pooled"].min(), {"real": n, "bias": bias, "variance": variance}


def in_proportion(real_counts, group_weights, group_constants, budget):
    synthetic = budget * group_weights
    return {"synthetic": synthetic, "risk": np.sum(group_weights * group_constants / (real_counts + synthetic))}


def floors_cut_off(real_counts, group_weights, group_constants, budget):
    root = np.sqrt(group_weights * group_constants)
    synthetic = np.maximum((budget + real_counts.sum()) * root / root.sum() - real_counts, 0)
    synthetic *= budget / synthetic.sum()
    return {"synthetic": synthetic, "risk": np.sum(group_weights * group_constants / (real_counts + synthetic))}


@paper.trial(Identity(rtol=1e-6), of=[allocate_synthetic], controls={"in proportion to the weights": in_proportion, "rescaled after cutting": floors_cut_off}, quick=20, full=200)
def against_a_solver(draw, claim):
    """A convex solver finds the same least risk, and the synthetic records use up the budget."""
    import cvxpy as cp

    g = draw.integer(2, 6)
    n, weights = draw.rng.integers(1, 100, g).astype(float), draw.dirichlet(1.0, g)
    constants, budget = draw.uniform(0.1, 3, g), draw.log_uniform(1, 500)
    m = cp.Variable(g, nonneg=True)
    solved = cp.Problem(cp.Minimize(cp.sum(cp.multiply(weights * constants, cp.inv_pos(n + m)))), [cp.sum(m) == budget]).solve(
        solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11
    )
    found = claim(n, weights, constants, budget)
    return [found["risk"], found["synthetic"].sum()], [solved, budget], {"real": n, "weights": weights, "budget": budget}


def stationary_point(real, bias, scale, rate):
    return max((rate * scale / (bias * real)) ** (1 / (rate - 1)) - real, 0.0) if rate != 1 else 0.0


@paper.trial(Guarantee(), of=[rate_optimal_count], controls={"stationary point at every rate": stationary_point}, quick=300, full=5000)
def no_number_has_a_lower_bound(draw, claim):
    """No number of a grid has a lower bound than the best one, at rates on both sides of 1 and at 1."""
    n, bias, scale, rate = draw.integer(1, 300), draw.log_uniform(0.01, 1), draw.log_uniform(0.1, 100), draw.choice([0.5, 1.0, 1.5, 2.0])
    bound = lambda total: scale * total**-rate + bias * (1 - n / total)  # noqa: E731
    best = float(claim(n, bias, scale, rate))
    return bias if np.isinf(best) else bound(n + best), np.append(bound(n * (1 + np.append(0, np.geomspace(1e-3, 1e6, 500)))), bias).min(), {"rate": rate, "real": n}


@paper.finding(
    """A generator fitted on the very records it is pooled with adds nothing to a mean: its records scatter around the sample mean, and the error is above that of the real records
    alone, where the law for an independent unbiased generator promises half.""",
)
def generator_of_the_same_records():
    rng = np.random.default_rng(0)
    authentic = rng.normal(size=(20_000, 20))
    mean, deviation = authentic.mean(1), authentic.std(1, ddof=1)
    generated = mean + deviation * rng.normal(size=20_000) / np.sqrt(20)
    same, promised = float(np.mean(((mean + generated) / 2) ** 2)), float(augmented_error(20, 20, 0.0, 1.0)["pooled"])
    return {"holds": same > 1.1 / 20 and abs(promised - 0.025) < 1e-12, "same_records": same, "real_alone": 1 / 20, "independent_generator": promised}


@paper.finding(
    """Bounds that pay for bias by its size have no best number at the usual rates: at r = 1/2 the stationary point of C N^-r + B (1 - n/N) is its maximum, worse than none and
    than all.""",
)
def all_or_nothing():
    n, bias, scale, rate = 100, 0.09, 1.0, 0.5
    bound = lambda total: scale * total**-rate + bias * (1 - n / total)  # noqa: E731
    total = (rate * scale / (bias * n)) ** (1 / (rate - 1))
    values = {"none": bound(n), "stationary": bound(total), "all": bias}
    return {"holds": total > n and values["stationary"] > max(values["none"], values["all"]), "records_at_stationary_point": total - n, **values}


@paper.finding(
    """On an imbalanced task (1000 against 25) a Gaussian generator fitted to the rare class takes the balanced error of logistic regression from 0.49 to 0.28
    where it evens out the classes, and back up where it outnumbers them; class weights reach the same 0.28 without a synthetic record.""",
)
def no_more_than_class_weights():
    from sklearn.linear_model import LogisticRegression

    def draw(rng, frequent, rare):
        centres = np.where(rng.uniform(size=(rare, 1)) < 0.5, [1.5, 0, 0, 0], [0, 2.0, 0, 0])  # two clusters, which one Gaussian does not describe
        return np.concatenate([rng.normal(size=(frequent, 4)), centres + rng.normal(size=(rare, 4))]), np.arange(frequent + rare) >= frequent

    def balanced_error(rng, x, y, **options):
        test, label = draw(rng, 5000, 5000)
        wrong = LogisticRegression(**options).fit(x, y).predict(test) != label
        return (wrong[label].mean() + wrong[~label].mean()) / 2

    errors = []
    for rng in np.random.default_rng(0).spawn(8):
        x, y = draw(rng, 1000, 25)
        rare = x[y]
        generated = rng.multivariate_normal(rare.mean(0), np.cov(rare.T), 20_000)
        added = [balanced_error(rng, np.concatenate([x, generated[:m]]), np.append(y, np.ones(m, bool))) for m in (0, 975, 20_000)]
        errors.append([*added, balanced_error(rng, x, y, class_weight="balanced")])
    none, even, many, weights = np.mean(errors, 0).tolist()
    return {"holds": none > 0.45 and many > 1.3 * even and abs(even / weights - 1) < 0.05, "none": none, "classes_even": even, "twenty_thousand": many, "class_weights": weights}
