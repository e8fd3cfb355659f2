"""Learning curves that bend before they are power laws: how much data a target error needs, from a few-shot curve, and how far to trust the answer."""

import math

import numpy as np

from lawbook.contract import Paper, caution, count, flag, listing, nonnegative, optional, positive, real, record, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Forecast, Identity, Prediction

paper = Paper(
    __name__,
    title="A Meta-Learning Approach to Predicting Performance and Data Requirements",
    arxiv="2303.01598",
    tags=["learning curve", "data requirement", "power law", "few-shot", "extrapolation", "meta-learning"],
    source="derived",
    says="""Error against the number of training samples is curved in logarithmic axes while data are few and straight once they are many; a plain power law through few-shot
    points asks for far too much data. A quadratic that goes over smoothly into its tangent at a switch point extrapolates better. Where the switch lies cannot be seen in
    few points, but it can be foretold from other learning curves, and a bootstrap says up to how many samples the extrapolation holds.""",
    notes="""The form was rebuilt from the abstract; the paper's random forest is replaced by a ridge regression. In the fit the slope may not rise above 0, at the
    smallest sample or at the switch. The switch is the most probable one under its prior and the likelihood profiled over the curve and the noise; resamples draw Gaussian
    noise around the fit. The paper reports 37 % (16 classification sets) and 33 % (10 detection sets) lower errors than the power law; its curves are not public.""",
)

SAMPLES = positive("samples", typical=(100, 1e6))
THETA1 = real(typical=(-1, 3), fitted=True, doc="ln of the error at one sample", example=0.5)
THETA2 = real(typical=(-0.5, 0), fitted=True, doc="slope at one sample", example=-0.1)
THETA3 = real(typical=(-0.02, 0.02), fitted=True, doc="half the curvature before the switch", example=-0.01)
ERROR = positive(typical=(0.01, 1), doc="error or loss, with a known floor taken off")
CURVE = record(samples=vector("m", of=SAMPLES, least=4), errors=vector("m", of=ERROR, least=4), classes=count())
NAMES = ("theta1", "theta2", "theta3", "switch")
FAR = 100  # the switch and the band reach this many times beyond the data
NOISE = 1e-8  # mean square in ln error below which fits count as equally good


@paper.law(r"\ln \varepsilon = \theta_1 + \theta_2 x + \theta_3 x^2\ (x \le x_s),\ \text{then its tangent};\quad x = \ln n,\ x_s = \ln n_s", observes="loss", closed_form=True)
def error_curve(
    samples: vector("n", of=SAMPLES, example=[100.0, 1000.0, 10_000.0, 100_000.0]),
    *,
    theta1: THETA1,
    theta2: THETA2,
    theta3: THETA3,
    switch: positive("samples", typical=(300, 1e6), fitted=True, infinite=True, doc="n_s, where the curve goes over into its tangent; infinite: never", example=2000.0),
) -> vector("n", of=positive(infinite=True)):
    """Error at each number of samples."""
    xp, n, a, b, c, n_s = arrays(samples, theta1, theta2, theta3, switch)
    x = xp.log(n)
    bent = xp.minimum(x, xp.log(n_s))
    return xp.exp(a + b * bent + c * bent**2 + (b + 2 * c * bent) * (x - bent))


@paper.law(
    r"n = \exp\!\left(x_s + \frac{\ln\varepsilon - y_s}{\theta_2 + 2\theta_3 x_s}\right)\ \text{below}\ y_s,\ \text{else the falling root of the quadratic}", closed_form=True
)
def samples_for_target(
    target_error: positive(typical=(0.01, 1), example=0.2),
    *,
    theta1: THETA1,
    theta2: THETA2,
    theta3: THETA3,
    switch: positive("samples", typical=(300, 1e6), fitted=True, example=2000.0),
) -> nonnegative("samples", infinite=True, doc="infinite where the curve does not fall in the end, 0 where it lies below the target everywhere"):
    """Samples at which the curve comes down to a target error."""
    xp, target, a, b, c, n_s = arrays(target_error, theta1, theta2, theta3, switch)
    y, x_s = xp.log(target), xp.log(n_s)
    slope, y_s = b + 2 * c * x_s, a + b * x_s + c * x_s**2
    falls, rises_first, square = slope < 0, b > 0, b**2 - 4 * c * (a - y)
    tail = x_s + (y - y_s) / xp.where(falls, slope, -1.0)
    root = xp.sqrt(xp.where(square > 0, square, 1.0))  # below, each form of the quadratic's root where it subtracts nothing
    bent = xp.where(rises_first, (b + root) / xp.where(rises_first & (c < 0), -2 * c, 1.0), 2 * (a - y) / xp.where(rises_first, 1.0, root - b))
    x = xp.where(y < y_s, tail, xp.where(square > 0, bent, -800.0))
    reached = falls & (x < 700)
    return xp.where(reached, xp.exp(xp.where(reached, x, 0.0)), math.inf)


def slopes_basis(x, first, switch):
    """The curve's rise from `first` to x for a unit slope at `first`, and for one at the switch; slopes in between are interpolated."""
    width = switch - first
    bent = np.minimum(x - first, width)
    end = bent**2 / (2 * width)
    return np.stack([bent - end, end + (x - first - bent)], -1)


def fit_switches(x, y, switches, log_prior):
    """theta1, theta2, theta3 and ln n_s for each row of y: the most probable switch, with the falling least squares curve for it."""
    design = slopes_basis(x, x.min(), switches[:, None])
    mean = design.mean(1)
    design = design - mean[:, None]
    gram = design.swapaxes(1, 2) @ design
    centred = y - y.mean(1, keepdims=True)
    onto = np.einsum("snk,rn->rsk", design, centred)
    free = np.linalg.solve(gram, onto[..., None])[..., 0]
    edges = np.minimum(onto / np.einsum("skk->sk", gram), 0)
    options = np.stack([free, edges * [1, 0], edges * [0, 1]], 2)  # a slope above 0 moves to 0: the minimum then lies on one of two edges
    gain = 2 * np.einsum("rsok,rsk->rso", options, onto) - np.einsum("rsok,skl,rsol->rso", options, gram, options)
    gain[..., 0] = np.where((free <= 0).all(-1), gain[..., 0], -np.inf)
    chosen = gain.argmax(-1)
    residual = np.maximum((centred**2).sum(-1)[:, None] - gain.max(-1), 0)
    likely = log_prior - 0.5 * len(x) * np.log(residual / len(x) + NOISE) - 1e-7 * np.arange(len(switches))  # of equal ones the first: all beyond the data are
    rows, best = np.arange(len(y)), likely.argmax(1)
    slopes = options[rows, best, chosen[rows, best]]
    first, x_s = x.min(), switches[best]
    theta3 = (slopes[:, 1] - slopes[:, 0]) / (2 * (x_s - first))
    level = y.mean(1) - (mean[best] * slopes).sum(-1)
    return np.stack([level - slopes[:, 0] * first + theta3 * first**2, slopes[:, 0] - 2 * theta3 * first, theta3, x_s])


def switch_grid(x, prior=None):
    grid = np.linspace(x.min(), x.max() + math.log(FAR), 81)[1:]
    return grid, 0 * grid if prior is None else -0.5 * ((grid - math.log(prior["switch"])) / prior["sd"]) ** 2


def law_of(theta):
    return dict(zip(NAMES, [*theta[:3], np.exp(theta[3])], strict=True))


def curve_family(rng, curves):
    """Curves that bend down to a switch, which grows with the number of classes, and their switches."""
    n, classes = np.geomspace(20, 20_000, 10), rng.integers(2, 200, curves)
    switches = np.log(30 * classes**0.8) + 0.1 * rng.normal(size=curves)
    slopes = -np.stack([rng.uniform(0.02, 0.1, curves), rng.uniform(0.3, 0.6, curves)], 1)
    rise = np.array([slopes_basis(np.log(n), math.log(20), x_s) @ uv for x_s, uv in zip(switches, slopes, strict=True)])
    errors = 0.95 * (1 - 1 / classes[:, None]) * np.exp(rise + 0.01 * rng.normal(size=rise.shape))
    return [{"samples": n, "errors": e, "classes": int(k)} for e, k in zip(errors, classes, strict=True)], switches


def few_shot(rng):
    n = np.geomspace(10, 1000, int(rng.integers(4, 9)))
    return {"samples": n, "errors": rng.uniform(0.5, 1) * n ** -rng.uniform(0, 0.5) * np.exp(0.05 * rng.normal(size=len(n)))}


@paper.algorithm(
    r"\max_{x_s} \ln \pi(x_s) - \tfrac{n}{2} \ln \min_{\theta} \sum_i (y_i - y(x_i; \theta, x_s))^2",
    requires={
        "samples must hold at least 3 different values": lambda samples: len(np.unique(samples)) >= 3,
        "switch must be above the smallest of samples": lambda switch, samples: switch is None or switch > np.min(samples),
    },
    sample=lambda rng: few_shot(rng) | {"target_error": rng.uniform(0.01, 0.3), "bootstrap": int(rng.integers(0, 30))},
)
def fit_ppl(
    samples: vector("n", of=SAMPLES, least=4, example=[20.0, 40.0, 80.0, 160.0, 320.0, 640.0]),
    errors: vector("n", of=ERROR, least=4, example=[0.80, 0.74, 0.655, 0.55, 0.45, 0.36]),
    *,
    switch: positive("samples", typical=(100, 1e6), doc="n_s where it is known") = None,
    prior: record(switch=positive("samples"), sd=positive(doc="of ln n_s")) = None,
    target_error: positive(typical=(0.01, 0.3)) = None,
    confidence: positive(high=1, below=True, typical=(0.5, 0.99), doc="of the band") = 0.9,
    bootstrap: count("resamples", low=0, typical=(0, 200)) = 200,
    tolerance: positive(typical=(0.1, 1), doc="width of the band, in ln error, up to which the curve is trusted") = 0.5,
    seed: seed() = 0,
) -> record(
    **dict.fromkeys(NAMES[:3], real()),
    switch=positive("samples"),
    power_law=record(theta1=real(), theta2=real()),
    band=optional(record(samples=vector("m", of=positive()), low=vector("m", of=nonnegative()), high=vector("m", of=positive(infinite=True)), horizon=positive("samples"))),
    target=optional(record(samples=nonnegative(infinite=True), interval=optional(vector(2, of=nonnegative(infinite=True))), within_horizon=optional(flag()))),
):
    """The piecewise law through a learning curve, its bootstrap band up to a hundred times the data, and the samples that a target error needs."""
    x, y = np.log(samples), np.log(errors)
    grid = (np.array([math.log(switch)]), np.zeros(1)) if switch is not None else switch_grid(x, prior)
    theta = fit_switches(x, y[None], *grid)[:, 0]
    law = {name: float(value) for name, value in law_of(theta).items()}
    fitted, straight = np.log(error_curve(samples, **law)), np.polyfit(x, y, 1)
    if max(theta[1] + 2 * theta[2] * x.min(), theta[1] + 2 * theta[2] * theta[3]) > -1e-9:
        caution("errors do not fall with samples throughout: the curve is held level where they rise.")
    answer = law | {"power_law": {"theta1": float(straight[1]), "theta2": float(straight[0])}, "band": None, "target": None}
    if target_error is not None:
        answer["target"] = {"samples": float(samples_for_target(target_error, **law)), "interval": None, "within_horizon": None}
    if bootstrap:
        with np.errstate(over="ignore"):
            noise = math.sqrt(np.sum((y - fitted) ** 2) / max(len(x) - 3, 1))
            drawn = law_of(fit_switches(x, fitted + noise * np.random.default_rng(seed).normal(size=(bootstrap, len(x))), *grid))
            points, ends = np.geomspace(np.min(samples), FAR * np.max(samples), 60), [0.5 - confidence / 2, 0.5 + confidence / 2]
            low, high = np.quantile(error_curve(points[:, None], **drawn), ends, axis=1)
        wide = np.log(high / low) > tolerance
        horizon = float(points[max(np.argmax(wide) - 1, 0)] if wide.any() else points[-1])
        answer["band"] = {"samples": points, "low": low, "high": high, "horizon": horizon}
        if target_error is not None:
            needed = np.quantile(samples_for_target(target_error, **drawn), ends, method="closest_observation")
            answer["target"] |= {"interval": needed, "within_horizon": answer["target"]["samples"] <= horizon}
    return answer


@paper.algorithm(
    r"\ln \hat n_s = w \cdot (\text{curvature, slope}, y_1, \ln \text{classes}) + b",
    requires={
        "curves must each hold as many errors as samples": lambda curves: all(len(curve["errors"]) == len(curve["samples"]) for curve in curves),
        "samples must reach 3 different points of themselves and of each of curves": lambda samples, curves: all(
            np.sum(np.unique(n) <= np.max(samples)) >= 3 for n in [samples, *(curve["samples"] for curve in curves)]
        ),
    },
    sample=lambda rng: few_shot(rng) | {"curves": curve_family(rng, 12)[0], "classes": int(rng.integers(2, 200))},
)
def meta_switch(
    curves: listing(CURVE, least=5, example=curve_family(np.random.default_rng(0), 12)[0]),
    samples: vector("n", of=SAMPLES, least=3, example=[20.0, 40.0, 80.0, 160.0, 320.0]),
    errors: vector("n", of=ERROR, least=3, example=[0.80, 0.75, 0.68, 0.60, 0.52]),
    classes: count(typical=(2, 1000), example=50),
) -> record(switch=positive("samples"), sd=positive(doc="of ln n_s: error on each known curve when left out")):
    """The switch of a new curve foretold from whole curves of other data sets, as the prior that `fit_ppl` takes."""
    last = np.max(samples)

    def features(n, e, k):
        x, y = np.log(n[n <= last]), np.log(e[n <= last])
        return [*np.polyfit(x - math.log(last), y, 2)[:2], y[np.argmin(x)], math.log(k)]

    whole = [(curve["samples"], curve["errors"], curve["classes"]) for curve in curves]
    known = np.array([features(*curve) for curve in whole])
    switches = np.array([fit_switches(np.log(n), np.log(e)[None], *switch_grid(np.log(n)))[3, 0] for n, e, _ in whole])
    centre, scale = known.mean(0), known.std(0) + 1e-12
    design = np.column_stack([np.ones(len(known)), (known - centre) / scale])
    smoother = np.linalg.solve(design.T @ design + np.diag([0.0, 1, 1, 1, 1]), design.T)
    weights, leverage = smoother @ switches, np.einsum("nk,kn->n", design, smoother)
    left_out = (switches - design @ weights) / (1 - leverage)
    new = np.append(1, (np.array(features(np.asarray(samples), np.asarray(errors), classes)) - centre) / scale)
    guess = np.clip(new @ weights, switches.min(), switches.max())
    return {"switch": math.exp(guess), "sd": float(max(np.sqrt(np.mean(left_out**2)), 0.05))}


def kinked(samples, *, theta1, theta2, theta3, switch):
    x, x_s = np.log(samples), np.minimum(np.log(samples), math.log(switch))
    return np.exp(theta1 + theta2 * x + theta3 * x_s**2)


@paper.trial(Identity(rtol=1e-9, atol=1e-10), of=[error_curve, samples_for_target], controls={"kinked join": kinked}, quick=100, full=5000)
def smooth_join(draw, claim):
    """The curve and its slope are continuous at the switch, samples and target invert each other, and with no switch it is the quadratic."""
    x_s, start, slope = math.log(draw.log_uniform(40, 1e5)), -draw.uniform(0.01, 0.6), -draw.uniform(0.01, 0.6)
    theta3 = (slope - start) / (2 * (x_s - math.log(20)))
    law = {"theta1": draw.uniform(-1, 1), "theta2": start - 2 * theta3 * math.log(20), "theta3": theta3, "switch": math.exp(x_s)}
    h = 0.1 * np.array([-2, -1, 0, 1])
    left2, left, here, right = np.log(claim(law["switch"] * np.exp(h), **law))
    n = np.exp(draw.uniform(math.log(20), 16, 5))
    needed = samples_for_target(claim(n, **law), **law)
    x, bent = math.log(n[0]), np.log(claim(n[:1], **{**law, "switch": math.inf}))[0]
    exact = [slope, slope, *np.log(n), *np.polyval([law[name] for name in NAMES[2::-1]], [x_s, x])]
    return exact, [(3 * here - 4 * left + left2) / 0.2, (right - here) / 0.1, *np.log(needed), here, bent], law


def straight(samples, errors, **_):
    return fit_ppl(samples, errors, bootstrap=0)["power_law"] | {"theta3": 0.0, "switch": 1e9}


@paper.trial(Identity(rtol=1e-5), of=[fit_ppl], controls={"straight line": straight}, quick=30, full=500)
def least_squares(draw, claim):
    """For a given switch the fit has the least squares of a general constrained solver over the three coefficients, falling at both ends of the bend."""
    from scipy.optimize import minimize

    n, switch = np.geomspace(10, 1000, draw.integer(4, 9)), draw.log_uniform(20, 5000)
    errors = n ** -draw.uniform(0, 0.2) * np.exp(0.1 * draw.rng.normal(size=len(n)))
    x, y, x_s = np.log(n / 10), np.log(errors), math.log(switch / 10)
    bent = np.minimum(x, x_s)
    basis = np.column_stack([np.ones(len(x)), x, bent**2 + 2 * bent * (x - bent)])
    falling = [{"type": "ineq", "fun": lambda theta, at=at: -theta[1] - 2 * theta[2] * at} for at in (0, x_s)]
    exact = minimize(lambda theta: np.sum((basis @ theta - y) ** 2), [y.mean(), -0.1, 0], constraints=falling, method="SLSQP", options={"ftol": 1e-14, "maxiter": 500})
    fit = claim(n, errors, switch=switch, bootstrap=0)
    return exact.fun, np.sum((np.log(error_curve(n, **{name: fit[name] for name in NAMES})) - y) ** 2)


@paper.trial(Prediction("power law", metric="mae", relative=True), of=[fit_ppl], controls={"straight line": straight}, quick=90, full=900, data="scaling-tasks")
def fine_tuning_curves(draw, claim, data):
    """On curves of fine-tuning loss the law of the first six sizes foretells the last, 128 times as many examples, better than a power law does."""
    curve = data["sft"]["group"] == draw.choice(np.unique(data["sft"]["group"]))
    samples, loss = data["sft"]["samples"][curve], data["sft"]["loss"][curve]
    law, power_law = (fit(samples[:6], loss[:6], bootstrap=0) for fit in (claim, straight))
    return Forecast(loss[-1:], *(error_curve(samples[-1:], **{name: fit[name] for name in NAMES}) for fit in (law, power_law)))


def last_point_seen(curves, samples, errors, classes):
    return {"switch": samples[-1]}


@paper.trial(Prediction("mean switch of the known curves", metric="mae", at_most=0.5), of=[meta_switch], controls={"the last point seen": last_point_seen}, quick=20, full=300)
def foretold_switch(draw, claim):
    """Where switches grow with the number of classes, five points of a new curve tell its own, in ln n_s, better than the mean of 60 known ones does."""
    curves, switches = curve_family(draw.rng, 61)
    new = curves.pop()
    found = claim(curves, new["samples"][:5], new["errors"][:5], new["classes"])
    return Forecast(switches[-1:], [math.log(found["switch"])], [switches[:-1].mean()])


@paper.finding(
    """On 90 curves of fine-tuning loss the piecewise law beats the power law on two of three, but a plain quadratic does no worse: there the join gains nothing.""",
    data="scaling-tasks",
)
def quadratic_does_as_well(data):
    from lawbook.numerics.statistics import clopper_pearson

    table, rows = data["sft"], []
    for name in np.unique(table["group"]):
        samples, loss = (table[key][table["group"] == name] for key in ("samples", "loss"))
        foretold = [error_curve(samples[-1], **{key: fit[key] for key in NAMES}) for fit in (f(samples[:6], loss[:6], bootstrap=0) for f in (fit_ppl, straight))]
        foretold.append(np.exp(np.polyval(np.polyfit(np.log(samples[:6]), np.log(loss[:6]), 2), math.log(samples[-1]))))
        rows.append(np.abs(np.array(foretold) / loss[-1] - 1))
    rows, names = np.array(rows), ("piecewise", "power", "quadratic")
    wins = (rows[:, :1] < rows[:, 1:]).sum(0).tolist()
    low, high = clopper_pearson(wins[0], len(rows), 0.95)
    told = {f"{what}_{name}": float(v) for what, row in (("median", np.median(rows, 0)), ("mean", rows.mean(0))) for name, v in zip(names, row, strict=True)}
    holds = low > 0.5 and told["mean_quadratic"] < told["mean_piecewise"]
    return {"holds": holds, "wins_over_power": wins[0], "low": low, "high": high, "wins_over_quadratic": wins[1], **told}
