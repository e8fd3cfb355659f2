"""Power laws fitted to small models as a tool of development: prediction intervals, broken runs, the choice between designs, and the cheapest ladder of sizes."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, choice, count, either, flag, matrix, nonnegative, optional, positive, probability, real, record, vector
from lawbook.trials import Estimate, Guarantee, Identity

paper = Paper(
    __name__,
    title="Scaling Laws Under the Microscope: Predicting Transformer Performance from Small Scale Experiments",
    arxiv="2202.06387",
    tags=["scaling law", "extrapolation", "prediction interval", "model selection", "fine-tuning", "experiment design"],
    source="known",
    says="""Power laws in the number of parameters, fitted to models from ten thousand parameters up, can guide development. After fine-tuning they show on some tasks and not
    on others; a large run that misses the extrapolation has probably diverged; and of two designs the better one can be told before either is trained at full size.
    What this asks for is an honest interval: the law is a straight line in logarithms, so that Student's t gives it exactly, extrapolation included.""",
    notes="""The rules are ours, made precise from the paper's practice: intervals and p-values are those of least squares on logarithms, exact under Gaussian noise of equal
    size. Of several seeds a size the mean is fitted, and the interval is for the mean of as many seeds. With a floor the noise is that of the logarithm of the whole
    value and the interval that of the law linearised at its fit. The probability of a design assumes a flat prior: where designs hardly differ it is too bold.""",
)

SIZE = positive("params", typical=(1e4, 1e9))
VALUE = positive(typical=(0.5, 5))
EXAMPLE, VALUES = np.array([1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7]), np.array([6.05, 5.41, 4.72, 4.19, 3.74, 3.28, 2.95, 2.60])
DIFFERENT = {"sizes must hold at least 3 different values": lambda sizes: len(np.unique(sizes)) >= 3}
SIZES = vector("n", of=SIZE, least=4, example=EXAMPLE)
OBSERVED = either(vector("n", of=VALUE, least=4, doc="metric, lower is better", example=VALUES), matrix("n", "seeds", of=VALUE, doc="one column a seed"))
PREDICTION = optional(positive(infinite=True), doc="at the target size")
INTERVAL = optional(vector(2, of=nonnegative(infinite=True)), doc="of a new run at the target size")


def random_law(rng):
    return {"sizes": EXAMPLE, "values": rng.uniform(5, 50) * EXAMPLE ** -rng.uniform(0.05, 0.3) * np.exp(0.02 * rng.normal(size=8))}


class Line:
    """Least squares of ln y on ln x; rows of `values` that hold seeds count by their mean."""

    def __init__(self, sizes, values):
        self.x, self.y = np.log(sizes), np.log(values)
        self.y = self.y.mean(1) if self.y.ndim == 2 else self.y
        self.n, self.centre, self.level = len(self.x), self.x.mean(), self.y.mean()
        self.spread = np.sum((self.x - self.centre) ** 2)
        self.slope = (self.x - self.centre) @ self.y / self.spread
        self.rss = np.sum((self.y - self.at(self.x)) ** 2)

    def at(self, x):
        return self.level + self.slope * (x - self.centre)

    def leverage(self, x):
        """Variance of the fitted line at x in units of that of the noise."""
        return 1 / self.n + (x - self.centre) ** 2 / self.spread


def curve(theta, x):
    """ln y at centred ln x of the law (ln coefficient, exponent) or (..., floor), and its gradient."""
    log_power = theta[0] - theta[1] * x
    if len(theta) == 2:
        return log_power, np.stack([np.ones_like(x), -x], -1)
    power = np.exp(np.clip(log_power, -300, 300))
    return np.log(power + theta[2]), np.stack([power, -power * x, np.ones_like(x)], -1) / (power + theta[2])[..., None]


def with_floor(x, y):
    """Parameters of the law with a floor by least squares on ln y, the best of several starts."""
    from scipy.optimize import least_squares

    found, options = [], {"bounds": ([-np.inf, -np.inf, 0], [np.inf, np.inf, math.exp(y.max())]), "x_scale": "jac", "xtol": 1e-12, "ftol": 1e-14, "gtol": 1e-12}
    for floor in np.array([0.0, 0.3, 0.6, 0.9, 0.99]) * math.exp(y.min()):
        slope, level = np.polyfit(x, np.log(np.exp(y) - 0.999 * floor), 1)
        found.append(least_squares(lambda theta: curve(theta, x)[0] - y, [level, -slope, floor], jac=lambda theta: curve(theta, x)[1], **options))
    return min(found, key=lambda fit: fit.cost).x


@paper.algorithm(
    r"\ln y = c - \alpha \ln x,\quad \hat y(x_0)\, e^{\pm t_{n-2}\, s \sqrt{1 + 1/n + (\ln x_0 - \overline{\ln x})^2 / S_{xx}}}",
    requires=DIFFERENT,
    sample=lambda rng: random_law(rng) | {"floor": bool(rng.uniform() < 0.3), "target_size": 1e8},
)
def fit_power_law(
    sizes: SIZES,
    values: OBSERVED,
    *,
    floor: flag(doc="fit a value that no size goes below") = False,
    confidence: positive(high=1, below=True, typical=(0.8, 0.99)) = 0.95,
    target_size: positive("params", typical=(1e7, 1e10)) = None,
) -> record(coefficient=positive(infinite=True), exponent=real(), floor=nonnegative(), r2=real(high=1), ci=vector(2), prediction=PREDICTION, interval=INTERVAL):
    """A power law through runs of several sizes, with the interval of a new run; r2 (of logarithms) from .95 on and `ci` (of the exponent) without 0 speak for a law."""
    from scipy.special import stdtrit

    x = (line := Line(sizes, values)).x - line.centre
    theta = with_floor(x, line.y) if floor else np.array([line.level, -line.slope])
    fitted, jacobian = curve(theta, x)
    freedom, rss, total = line.n - len(theta), np.sum((line.y - fitted) ** 2), np.sum((line.y - line.level) ** 2)
    covariance, width = np.linalg.pinv(jacobian.T @ jacobian), stdtrit(freedom, 0.5 + confidence / 2) * math.sqrt(rss / freedom)
    answer = {"exponent": float(theta[1]), "floor": float(theta[2]) if floor else 0.0, "r2": float(1 - rss / total) if total > 0 else 0.0, "prediction": None, "interval": None}
    with np.errstate(over="ignore"):
        if target_size is not None:
            predicted, gradient = curve(theta, np.array(math.log(target_size) - line.centre))
            half = width * math.sqrt(1 + gradient @ covariance @ gradient)
            answer |= {"prediction": float(np.exp(predicted)), "interval": np.exp([predicted - half, predicted + half])}
        return answer | {"coefficient": float(np.exp(theta[0] + theta[1] * line.centre)), "ci": theta[1] + width * math.sqrt(covariance[1, 1]) * np.array([-1, 1])}


@paper.measure(r"\mathrm{MRE} = \operatorname{mean} |\hat y - y| / y", requires=DIFFERENT, sample=random_law)
def holdout_error(
    sizes: SIZES,
    values: OBSERVED,
    *,
    train_max: positive("params", typical=(1e5, 1e7), doc="largest size to fit on; without it the smallest sizes are") = None,
    train_fraction: positive(high=1, below=True, typical=(0.4, 0.9)) = 0.5,
) -> record(mre=nonnegative(), interval_hit=probability(doc="share of the held-out values in their 95 % intervals"), extrapolation_factor=positive(low=1, above=False)):
    """How well the law of the smaller sizes foretells the larger ones."""
    sizes = np.asarray(sizes, float)
    limit = np.sort(sizes)[math.ceil(train_fraction * len(sizes)) - 1] if train_max is None else train_max
    train = sizes <= limit
    if train.all() or len(np.unique(sizes[train])) < 3:
        raise DomainError(f"sizes must leave 3 or more up to the largest trained one and some above; of {len(sizes)}, {train.sum()} are at most {limit:.6g}.")
    fits = [fit_power_law(sizes[train], np.asarray(values)[train], target_size=size) for size in sizes[~train]]
    observed, predicted = np.exp(Line(sizes, values).y[~train]), np.array([fit["prediction"] for fit in fits])
    inside = [fit["interval"][0] <= y <= fit["interval"][1] for fit, y in zip(fits, observed, strict=True)]
    mre, factor = np.mean(np.abs(predicted / observed - 1)), sizes.max() / sizes[train].max()
    return {"mre": float(mre), "interval_hit": float(np.mean(inside)), "extrapolation_factor": float(factor)}


@paper.measure(r"p = 2 T_{n-2}\!\left(-|\ln y - \ln \hat y| / (s \sqrt{1 + h(x)})\right) < \delta / k", requires=DIFFERENT)
def flag_runs(
    sizes: SIZES,
    values: OBSERVED,
    new_sizes: vector("k", of=SIZE, example=[1e8, 3e8]),
    new_values: vector("k", of=VALUE, example=[2.27, 2.60]),
    *,
    delta: positive(high=1, below=True, typical=(0.001, 0.1), doc="probability that any sound run is flagged") = 0.01,
) -> record(flagged=vector("k", of=flag()), p_values=vector("k", of=probability())):
    """Which new runs are too far from the law of the earlier ones, above or below, to be sound."""
    from scipy.special import stdtr

    line, x = Line(sizes, values), np.log(new_sizes)
    gap, noise = np.abs(np.log(new_values) - line.at(x)), np.sqrt(line.rss / (line.n - 2) * (1 + line.leverage(x)))
    p = 2 * stdtr(line.n - 2, -gap / np.maximum(noise, 1e-300))
    return {"flagged": p < delta / len(x), "p_values": p}


@paper.algorithm(r"\Pr[\text{a better}] = T_{2(n-2)}(-d / \mathrm{se}),\quad d = \ln \hat y_a - \ln \hat y_b,\ \mathrm{se}^2 = 2 s^2 h(x_0)", requires=DIFFERENT)
def choose_design(
    sizes: SIZES,
    values_a: vector("n", of=VALUE, least=4, doc="metric of design a, lower is better", example=VALUES),
    values_b: vector("n", of=VALUE, least=4, example=np.array([6.40, 5.62, 4.85, 4.19, 3.68, 3.21, 2.81, 2.46])),
    target_size: positive("params", typical=(1e7, 1e10), example=1e9),
) -> record(winner=choice("a", "b"), probability=real(low=0.5, high=1), difference=real(doc="ln of a over b"), crossover_size=nonnegative("params", infinite=True)):
    """The design whose law is lower at the target size, the probability that it truly is, and the size where the laws cross."""
    from scipy.special import stdtr

    a, b = Line(sizes, values_a), Line(sizes, values_b)
    x0, freedom = math.log(target_size), 2 * (a.n - 2)
    difference, error = a.at(x0) - b.at(x0), math.sqrt(2 * (a.rss + b.rss) / freedom * a.leverage(x0))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        crossover = float(np.exp(a.centre + (b.level - a.level) / np.float64(a.slope - b.slope))) if a.slope != b.slope else math.inf
    sure = float(stdtr(freedom, abs(difference) / max(error, 1e-300)))
    return {"winner": "a" if difference < 0 else "b", "probability": sure, "difference": float(difference), "crossover_size": crossover}


@paper.algorithm(
    r"\min m \textstyle\sum_i x_i \ \text{s.t.}\ t_{n-2}\, s \sqrt{1 + h(x_0)/m} \le \varepsilon",
    requires={"max_size (a tenth of target_size where not given) must be above min_size": lambda max_size, target_size, min_size: (max_size or target_size / 10) > min_size},
)
def smallest_ladder(
    residual_sd: positive(typical=(0.002, 0.02), doc="noise of one run in ln y", example=0.01),
    target_size: positive("params", typical=(1e8, 1e10), example=1e9),
    tolerance: positive(typical=(0.1, 0.3), doc="half-width in ln y that is wanted", example=0.03),
    *,
    min_size: positive("params", typical=(1e4, 1e6)) = 1e4,
    max_size: positive("params", typical=(1e7, 1e9), doc="largest size that may be trained; a tenth of the target where not given") = None,
    confidence: positive(high=1, below=True, typical=(0.8, 0.99)) = 0.95,
) -> record(sizes=vector("n", of=positive("params")), seeds=count(), total_cost=positive("params", doc="parameters of all runs")):
    """The cheapest ladder of 4 to 12 evenly spaced sizes, with up to 8 seeds each, whose prediction at the target is as narrow as wanted."""
    from scipy.special import stdtrit

    seeds, ladders, reached = np.arange(1, 9), [], math.inf
    for top in np.geomspace(min_size, max_size or target_size / 10, 41)[1:]:
        for n in range(4, 13):
            sizes = np.geomspace(min_size, top, n)
            widths = stdtrit(n - 2, 0.5 + confidence / 2) * residual_sd * np.sqrt(1 + Line(sizes, sizes).leverage(math.log(target_size)) / seeds)
            reached = min(reached, widths.min())
            ladders += [{"sizes": sizes, "seeds": int(m), "total_cost": float(m * sizes.sum())} for m in seeds[widths <= tolerance][:1]]
    if not ladders:
        raise DomainError(f"tolerance must be at least {reached:.6g}, which the largest ladder reaches; it was {tolerance:.6g}.")
    return min(ladders, key=lambda ladder: ladder["total_cost"])


def without_extrapolation(sizes, values, *, target_size):
    fit, line = fit_power_law(sizes, values, target_size=target_size), Line(sizes, values)
    half = math.log(fit["interval"][1] / fit["prediction"]) * math.sqrt((1 + 1 / line.n) / (1 + line.leverage(math.log(target_size))))
    return fit | {"interval": fit["prediction"] * np.exp([-half, half])}


def residual_bootstrap(sizes, values, *, target_size):
    rng, line, x = np.random.default_rng(0), Line(sizes, values), math.log(target_size)
    residuals, weights = line.y - line.at(line.x), 1 / line.n + (x - line.centre) * (line.x - line.centre) / line.spread
    drawn = line.at(x) + residuals[rng.integers(line.n, size=(200, line.n))] @ weights + rng.choice(residuals, 200)
    return fit_power_law(sizes, values) | {"interval": np.exp(np.quantile(drawn, (0.025, 0.975)))}


def without_leverage(sizes, values_a, values_b, target_size):
    from scipy.special import stdtr, stdtrit

    told, df = choose_design(sizes, values_a, values_b, target_size), 2 * len(sizes) - 4
    return told | {"probability": stdtr(df, stdtrit(df, told["probability"]) * math.sqrt(len(sizes) * Line(sizes, values_a).leverage(math.log(target_size))))}


CONTROLS = {"no extrapolation term": without_extrapolation, "bootstrap of six residuals": residual_bootstrap}


@paper.trial(Identity(), of=[fit_power_law, choose_design, flag_runs], controls=CONTROLS, quick=2, full=20)
def calibrated(draw, claim):
    """At a tenfold extrapolation intervals hold 95 % of new runs, of exponents and of differences of designs; a run 20 % too high is flagged as often as noncentral t says."""
    from scipy.stats import nct, t

    sizes, target, noise = np.geomspace(1e4, 1e7, 6), 1e8, draw.uniform(0.02, 0.08)
    alpha, beta, level = draw.uniform(0.05, 0.3), draw.uniform(0.05, 0.3), draw.log_uniform(5, 50)
    seen, (limit, limit_design) = [], t.ppf(0.975, [4, 8])
    for noises in noise * draw.rng.normal(size=(1500, 2, 7)):
        a, b = level * np.append(sizes, target) ** -np.array([[alpha], [beta]]) * np.exp(noises)
        told, design = claim(sizes, a[:-1], target_size=target), choose_design(sizes, a[:-1], b[:-1], target)
        error = abs(design["difference"]) / max(t.ppf(design["probability"], 8), 1e-9)
        near = abs(design["difference"] - (beta - alpha) * math.log(target)) <= limit_design * error
        flagged = flag_runs(sizes, a[:-1], np.array([target]), 1.2 * a[-1:], delta=0.05)["flagged"][0]
        seen.append([told["interval"][0] <= a[-1] <= told["interval"][1], told["ci"][0] <= alpha <= told["ci"][1], near, flagged])
    shift = math.log(1.2) / (noise * math.sqrt(1 + Line(sizes, sizes).leverage(math.log(target))))
    return Estimate.of(seen), [0.95, 0.95, 0.95, nct.sf(limit, 4, shift) + nct.cdf(-limit, 4, shift)], {"noise": noise}


@paper.trial(Guarantee(), of=[choose_design], controls={"no extrapolation term": without_leverage}, quick=1, full=20)
def probability_of_a_design(draw, claim):
    """Where designs differ widely, those chosen with a stated probability from .8 to .995 are right as often, within .05."""
    sizes, noise, target, rows = np.geomspace(1e4, 1e7, 6), 0.02, 1e8, []
    error = noise * math.sqrt(2 * Line(sizes, sizes).leverage(math.log(target)))
    for difference in error * draw.rng.uniform(-6, 6, 3000):
        a, b = 30 * sizes**-0.1 * np.exp([[difference], [0]] + noise * draw.rng.normal(size=(2, 6)))
        told = claim(sizes, a, b, target)
        rows.append([told["probability"], (told["winner"] == "a") == (difference < 0)])
    stated, right = np.array(rows).T
    gap = Estimate.of((stated - right)[(stated >= 0.8) & (stated < 0.995)])
    return Estimate(abs(gap.value), gap.error), 0.05


def seeds_average_the_new_run(residual_sd, target_size, tolerance, *, min_size):
    return smallest_ladder(residual_sd / 2, target_size, tolerance, min_size=min_size)


@paper.trial(Identity(rtol=1e-9), of=[smallest_ladder], controls={"noise of the new run averaged over seeds": seeds_average_the_new_run}, quick=1, full=30)
def cheapest_ladder(draw, claim):
    """The cheapest ladder found by trying all of them, with the variance of the prediction by matrix algebra over every run."""
    from scipy.stats import t

    target, least, best = draw.log_uniform(1e8, 1e10), draw.log_uniform(1e4, 1e5), math.inf
    tolerance = (noise := draw.uniform(0.005, 0.02)) * draw.uniform(2.8, 5)
    for n in range(4, 13):
        for top in np.geomspace(least, target / 10, 41)[1:]:
            sizes = np.geomspace(least, top, n)
            for m in range(1, 9):
                if m * sizes.sum() < best:
                    design = np.stack([np.ones(n * m), np.log(np.tile(sizes, m) / target)], 1)
                    variance = np.linalg.inv(design.T @ design)[0, 0]
                    best = m * sizes.sum() if t.ppf(0.975, n - 2) * noise * math.sqrt(1 + variance) <= tolerance else best
    return best, claim(noise, target, tolerance, min_size=least)["total_cost"]


def floor_left_out(sizes, values, *, floor, target_size):
    return fit_power_law(sizes, values, target_size=target_size)


@paper.trial(Identity(rtol=1e-4), of=[fit_power_law, holdout_error], controls={"floor left out": floor_left_out}, quick=20, full=300)
def recovered(draw, claim):
    """Laws without noise come back with their floor, and the held-out error of noisy ones is that of NumPy's polynomial fit."""
    sizes, alpha, floor = np.geomspace(1e4, 1e8, 10), draw.uniform(0.1, 0.5), draw.uniform(0.5, 3)
    c = draw.log_uniform(0.5, 5) * 1e5**alpha
    fit = claim(sizes, floor + c * sizes**-alpha, floor=True, target_size=1e10)
    values = c * sizes**-alpha * np.exp(0.05 * draw.rng.normal(size=10))
    line, told = np.polyfit(np.log(sizes[:6]), np.log(values[:6]), 1), holdout_error(sizes, values, train_fraction=0.6)
    mre = np.mean(np.abs(np.exp(np.polyval(line, np.log(sizes[6:]))) / values[6:] - 1))
    found = [fit[name] for name in ("coefficient", "exponent", "floor", "prediction")] + [told["mre"], told["extrapolation_factor"]]
    return [c, alpha, floor, floor + c * 1e10**-alpha, mre, sizes[9] / sizes[5]], found


@paper.finding(
    """Of 90 curves of loss against fine-tuning examples 86 % have a law by the rule on six sizes, but its 95 % intervals hold less than half of the values beyond.""",
    data="scaling-tasks",
)
def laws_in_fine_tuning(data):
    table, rows = data["sft"], []
    for name in np.unique(table["group"]):
        samples, loss = (table[key][table["group"] == name] for key in ("samples", "loss"))
        fit, told = fit_power_law(samples[:6], loss[:6]), holdout_error(samples, loss, train_max=samples[5])
        rows.append([fit["r2"] >= 0.95 and fit["ci"][0] > 0, told["mre"], told["interval_hit"]])
    law, mre, hit = np.array(rows, float).T
    share, error, held = (float(a.mean()) for a in (law, mre[law > 0], hit[law > 0]))
    return {"holds": share > 0.8 and held < 0.6, "share_with_law": share, "mre_with_law": error, "interval_hit_with_law": held}
