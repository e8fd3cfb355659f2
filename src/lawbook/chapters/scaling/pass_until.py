"""Pass rates too small for one-shot evaluation: sampling until success, the task scaling law, and a test for emergence."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, caution, choice, count, either, flag, matrix, nonnegative, optional, positive, probability, real, record, seed, vector
from lawbook.numerics import arrays, log1mexp
from lawbook.numerics.robust import damped_newton
from lawbook.trials import Coverage, Forecast, Identity, Inequality, Prediction

paper = Paper(
    __name__,
    title="Unlock Predictable Scaling from Emergent Abilities",
    arxiv="2310.03262",
    tags=["scaling law", "emergence", "pass rate", "negative binomial", "evaluation", "code generation"],
    source="known",
    says="""Small models solve hard tasks, only too rarely for one answer per question to show it. Sampling until a number of successes measures pass rates of one in a
    hundred thousand, and at that resolution the log of minus log of the pass rate falls on a line in log model size. Emergence then is a matter of curvature: a task of
    several steps can only bend the line up, while several ways to succeed can bend it down, which looks like an ability that speeds up.""",
    notes="""The paper calls the estimate r/K unbiased, which it is not (see the finding); the rate here is (r-1)/(K-1). The likelihood of the law, blind to the stopping
    rule, has the bias of r/K at few successes: stop at ten or more for a fit. In the common law instances weigh alike: mean rates, at m^2 / sum(1/k) trials. Curvature
    is judged by 1.96 standard errors only where the noise of F is known; estimated from a few residuals it calls for Student's t.""",
)

RATE = either(probability(), vector("n", of=probability()))
PARAMS = positive("params", typical=(1e7, 1e11), example=2.4e9)
FACTOR = positive(typical=(1, 1e5), fitted=True, doc="-ln of the pass rate at one parameter", example=1000.0)
EXPONENT = positive(typical=(0.05, 0.6), fitted=True, example=0.3)
SIZES = np.array([3e7, 7e7, 1.6e8, 4e8, 1e9])


def at_most(successes, trials):
    return np.shape(successes) == np.shape(trials) and bool(np.all(successes <= trials))


@paper.algorithm(
    r"\hat p = \frac{r-1}{K-1}",
    assumes=["Trials are independent with one pass rate, and end at the r-th success or at a number fixed before."],
    requires={
        "successes and trials must be of one length, and successes at most trials": at_most,
        "capped must be one truth value or as many as trials": lambda capped, trials: np.shape(capped) in ((), np.shape(trials)),
        "successes must be at least 1 where trials were not capped": lambda successes, capped: bool(np.all((successes > 0) | np.asarray(capped))),
    },
    sample=lambda rng: {"successes": int(r := rng.integers(1, 20)), "trials": int(r + rng.integers(0, 1000)), "capped": bool(rng.uniform() < 0.5)},
)
def pass_until(
    successes: either(count(low=0, example=5, doc="successes seen: the number at which sampling stopped, fewer where it was capped"), vector("n", of=count(low=0))),
    trials: either(count(example=2000, doc="samples drawn"), vector("n", of=count())),
    *,
    capped: either(flag(doc="the trials were limited before, and ended without the last success"), vector("n", of=flag())) = False,
) -> record(
    rate=RATE,
    naive_rate=RATE,
    variance=optional(either(nonnegative(), vector("n", of=nonnegative(nan=True))), doc="unbiased estimate; none (NaN in a vector) at r = 1 or two trials"),
    ci95=either(vector(2, of=probability()), matrix("n", 2, of=probability()), doc="exact at least 95 %"),
):
    """Pass rates from sampling until success: unbiased where sampling ended at a success, maximum likelihood where it was capped."""
    from scipy.special import betaincinv

    r, k, cap = np.broadcast_arrays(np.asarray(successes, float), np.asarray(trials, float), np.asarray(capped, bool))
    if np.any((r == 1) & ~cap):
        caution("At one success the unbiased rate is 0 (1 at a single trial) and says nothing; read the interval, or stop at two successes or more.")
    naive = r / k
    rate = np.where(cap, naive, np.where(k > 1, (r - 1) / np.maximum(k - 1, 1), 1.0))
    known = np.where(cap, k >= 2, (r >= 2) & (k >= 3))
    variance = np.where(known, rate * (1 - rate) / np.maximum(k - np.where(cap, 1, 2), 1), np.nan)
    low = np.where(r > 0, betaincinv(np.maximum(r, 1), k - r + 1, 0.025), 0.0)
    high = np.where(r < k, betaincinv(r + cap, np.maximum(k - r, 1), 0.975), 1.0)
    answer = {"rate": rate, "naive_rate": naive, "variance": variance if r.ndim or known else None, "ci95": np.stack([low, high], -1)}
    return answer if r.ndim else {name: value if name == "ci95" or value is None else float(value) for name, value in answer.items()}


@paper.law(r"P(N) = \exp(-c N^{-\alpha})", assumes=["The loss per token of the answer is a power law; its length is in c."], observes="pass_rate", closed_form=True)
def task_pass_rate(params: PARAMS, *, c: FACTOR, alpha: EXPONENT) -> probability():
    """Pass rate of a model with `params` parameters on one task instance."""
    xp, n, factor, exponent = arrays(params, c, alpha)
    return xp.exp(-factor * n**-exponent)


@paper.law(r"P = \exp\big(-\textstyle\sum_i c_i N^{-\alpha_i}\big) \ \text{or}\ 1 - \prod_i \big(1 - \exp(-c_i N^{-\alpha_i})\big)", closed_form=True)
def circuits_pass_rate(
    params: PARAMS,
    c: vector("circuits", of=positive(typical=(1, 1e4)), example=[500.0, 300.0]),
    alpha: vector("circuits", of=positive(typical=(0.05, 0.6)), example=[0.3, 0.25]),
    *,
    mode: choice("steps", "circuits", doc="all steps must succeed, or any of several circuits") = "steps",
) -> probability():
    """Pass rate of a task with several parts that each follow the task scaling law."""
    xp, n, factors, exponents = arrays(params, c, alpha)
    hardness = factors * n[..., None] ** -exponents
    if mode == "steps":
        return xp.exp(-xp.sum(hardness, axis=-1))
    return -xp.expm1(xp.sum(log1mexp(xp, hardness), axis=-1))


def exists(x, s, f):
    """Whether finite maximum-likelihood values exist for successes s and failures f at increasing x: neither kind lies on one side of the other."""
    (last_s, first_s), (last_f, first_f) = ((np.where(seen > 0, x, -np.inf).max(-1), np.where(seen > 0, x, np.inf).min(-1)) for seen in (s, f))
    return (last_s > first_f) & (last_f > first_s)


def likeliest(x, s, f):
    """(ln c, alpha) for each row of successes s and failures f where F = ln c - alpha x, and the information about them."""
    design = np.stack([np.ones_like(x), -x], -1)

    def derivatives(theta, rows):
        """Minus the log-likelihood, which is convex."""
        h = np.exp(np.clip(theta @ design.T, -300, 30))
        odds = h / np.expm1(np.minimum(h, 700))
        value = (s[rows] * h - np.where(f[rows] > 0, f[rows] * log1mexp(np, h), 0)).sum(-1)
        curvature = np.einsum("rj,ja,jb->rab", s[rows] * h + f[rows] * odds * (h + odds - 1), design, design)
        return value, (s[rows] * h - f[rows] * odds) @ design, curvature, curvature

    theta = damped_newton(derivatives, np.zeros((len(s), 2)))[0]
    return theta, derivatives(theta, np.arange(len(s)))[2]


def random_counts(rng, instances, wanted=20, budget=10_000):
    """Successes and trials of instances with random laws, sampled until `wanted` successes or the budget; the rates, also of a model of 2.4e9 parameters."""
    alpha, hardness = rng.uniform(0.15, 0.35, instances), rng.uniform(3, 7, instances)
    rates = np.exp(-hardness * (np.append(SIZES, 2.4e9)[:, None] / 1e9) ** -alpha)
    ends = np.minimum(rng.geometric(np.maximum(rates[:-1, :, None], 1e-9), (len(SIZES), instances, wanted)), budget + 1).cumsum(-1)
    return (ends <= budget).sum(-1), np.minimum(ends[..., -1], budget), rates


@paper.algorithm(
    r"\max_{c, \alpha} \sum_j s_j \ln P(N_j) + (k_j - s_j) \ln(1 - P(N_j))",
    requires={"successes and trials must be of one shape, and successes at most trials": at_most},
    sample=lambda rng: dict(zip(("params", "successes", "trials"), (SIZES, *random_counts(rng, 5)), strict=False)) | {"bootstrap": int(rng.integers(0, 9))},
)
def fit_task_law(
    params: vector("sizes", of=positive("params"), least=2, order="increasing", example=SIZES),
    successes: either(vector("sizes", of=count(low=0), example=[6, 13, 20, 20, 20]), matrix("sizes", "instances", of=count(low=0))),
    trials: either(vector("sizes", of=count(), example=[10_000, 10_000, 5100, 1230, 420]), matrix("sizes", "instances", of=count())),
    *,
    bootstrap: count("resamples", low=0, typical=(0, 50), doc="resamples of instances; of one, or at 0, the interval is that of the likelihood") = 0,
    seed: seed() = 0,
) -> record(
    c=positive(),
    alpha=real(),
    ci=record(c=vector(2, of=positive()), alpha=vector(2)),
    per_instance=optional(
        record(c=vector("instances", of=nonnegative(nan=True, infinite=True)), alpha=vector("instances", of=real(nan=True))),
        doc="c infinite and alpha 0 where no sample passed, c = 0 where all did, NaN where the counts leave the law open",
    ),
):
    """The task scaling law by maximum likelihood of counts, common to all and, from a matrix, of each instance: average the predictions of the latter."""
    x = np.log(params)
    at_zero = np.array([[1, x.mean()], [0, 1]])  # from centred sizes, where the likelihood is round, to those of the law
    s, k = (np.asarray(a, float).reshape(len(x), -1) for a in (successes, trials))

    def pooled(columns):
        rate, effective = (s / k)[:, columns].mean(1), s.shape[1] ** 2 / (1 / k)[:, columns].sum(1)
        return np.array([rate * effective, (1 - rate) * effective])

    everyone = np.arange(s.shape[1])
    if not exists(x, *pooled(everyone)):
        raise DomainError("successes must mix with failures at two sizes or more; these counts leave c or alpha unbounded.")
    theta, information = likeliest(x - x.mean(), *pooled(everyone)[:, None])
    law = at_zero @ theta[0]
    ends = law + 1.96 * np.outer([-1, 1], np.sqrt(np.diag(at_zero @ np.linalg.inv(information[0]) @ at_zero.T)))
    if bootstrap and len(everyone) > 1:
        rng = np.random.default_rng(seed)
        drawn = np.stack([pooled(rng.choice(everyone, len(everyone))) for _ in range(bootstrap)], 1)
        drawn = drawn[:, exists(x, *drawn)]
        if drawn.shape[1] < bootstrap:
            caution(f"{bootstrap - drawn.shape[1]} of {bootstrap} resamples leave the law open and are left out.")
        if drawn.shape[1]:
            ends = np.quantile(likeliest(x - x.mean(), *drawn)[0] @ at_zero.T, (0.025, 0.975), axis=0)
    ends = np.stack([np.exp(np.clip(ends[:, 0], -700, 700)), ends[:, 1]])
    answer = {"c": float(np.exp(np.clip(law[0], -700, 700))), "alpha": float(law[1]), "ci": {"c": ends[0], "alpha": ends[1]}, "per_instance": None}
    if np.ndim(successes) == 2:
        one_sided = ~(s.any(0) & (s < k).any(0))
        each = np.where(one_sided[:, None], np.stack([np.where(s.any(0), -np.inf, np.inf), 0 * s[0]], -1), np.nan)
        found = exists(x, s.T, (k - s).T)
        each[found] = likeliest(x - x.mean(), s.T[found], (k - s).T[found])[0] @ at_zero.T
        if np.isnan(each).any():
            caution(f"{np.isnan(each[:, 0]).sum()} of {len(each)} instances leave the law open (NaN): their successes and failures meet at one size at most.")
        answer["per_instance"] = {"c": np.exp(each[:, 0]), "alpha": each[:, 1]}
    return answer


@paper.measure(r"F = \ln(-\ln P) \approx a + b x + \tfrac{1}{2} q x^2,\quad x = \ln N - \overline{\ln N}")
def emergence(
    params: vector("n", of=positive("params", typical=(1e7, 1e11)), least=4, order="increasing", example=SIZES),
    pass_rates: vector("n", of=positive(high=1, below=True, typical=(0.01, 0.9)), least=4, example=[1e-4, 3e-4, 0.002, 0.03, 0.3]),
    *,
    weights: vector("n", of=positive(typical=(10, 1000)), doc="inverse variances of F; without them its variance is estimated from the residuals") = None,
) -> record(curvature=real(doc="q"), se=nonnegative(), verdict=choice("accelerated", "ordinary", "slowed", doc="F concave, straight, convex"), slope=real(doc="b")):
    """Whether a task speeds up with model size beyond the scaling law, by the curvature of F in ln N."""
    from scipy.special import stdtrit

    x, y = np.log(params), np.log(-np.log(pass_rates))
    (half, slope, level), covariance = np.polyfit(x - x.mean(), y, 2, w=None if weights is None else np.sqrt(weights), cov="unscaled")
    variance, limit, freedom = 1.0, 1.96, len(x) - 3
    if weights is None:
        variance, limit = np.sum((y - np.polyval((half, slope, level), x - x.mean())) ** 2) / freedom, stdtrit(freedom, 0.975)
    curvature, error = 2 * half, 2 * math.sqrt(variance * covariance[0, 0])
    if slope >= 0:
        caution("pass_rates do not grow with params: the scaling law has a negative slope, and the verdict presumes one.")
    verdict = "ordinary" if abs(curvature) <= limit * error else "accelerated" if curvature < 0 else "slowed"
    return {"curvature": float(curvature), "se": float(error), "verdict": verdict, "slope": float(slope)}


def normal_interval(successes, trials, *, capped):
    p = successes / trials
    return {"ci95": p[:, None] + 1.96 * np.sqrt(p * (1 - p) / trials)[:, None] * [-1, 1]}


@paper.trial(Coverage(at_most=0.05), of=[pass_until], controls={"normal interval around r/K": normal_interval}, quick=10, full=100)
def interval_covers(draw, claim):
    """The interval misses the rate in at most 5 % of experiments, for nine pairs of rate and successes and for a capped one."""
    missed = {}
    for p, r, cap in [(p, r, 10**9) for p in (0.3, 0.05, 0.002) for r in (1, 2, 5)] + [(0.002, 5, 2000)]:
        ends = draw.rng.geometric(p, (200, r)).cumsum(-1)
        over = ends[:, -1] > cap
        interval = claim((ends <= cap).sum(-1), np.minimum(ends[:, -1], cap), capped=over)["ci95"]
        missed[f"p = {p}, r = {r}" + (", capped" if cap < 10**9 else "")] = (interval[:, 0] > p) | (interval[:, 1] < p)
    return missed


def naive(successes, trials):
    return pass_until(successes, trials) | {"rate": successes / trials}


@paper.trial(Identity(rtol=1e-8), of=[pass_until], controls={"r/K as unbiased": naive}, quick=30, full=1000)
def unbiased(draw, claim):
    """Rate and variance average to the true rate and to the rate's true variance, summed over the negative binomial law."""
    from scipy.stats import nbinom

    r, p = draw.integer(2, 6), draw.uniform(0.02, 0.9)
    trials = np.arange(r, r + int(nbinom.isf(1e-15, r, p)) + 20)
    mass = nbinom.pmf(trials - r, r, p)
    found = claim(np.full(len(trials), r), trials)
    variance = np.nan_to_num(found["variance"])  # none at two successes in two trials, where 0 is the unbiased value
    return [p, mass @ (found["rate"] - p) ** 2], [mass @ found["rate"], mass @ variance], {"p": p, "r": r}


def modes_exchanged(params, c, alpha, *, mode):
    return circuits_pass_rate(params, c, alpha, mode="steps" if mode == "circuits" else "circuits")


@paper.trial(Inequality(atol=1e-11, rtol=0), of=[circuits_pass_rate], controls={"several circuits": modes_exchanged}, quick=300, full=3000)
def steps_bend_up(draw, claim):
    """For a task of several steps F is convex in ln N: its middle lies below its chord."""
    m, step = draw.integer(2, 4), draw.uniform(0.1, 2)
    sizes = draw.log_uniform(1e8, 1e10) * np.exp(step * np.array([-1, 0, 1]))
    values = np.log(-np.log(claim(sizes, draw.log_uniform(0.05, 20, m) * 1e9 ** (alpha := draw.uniform(0.05, 0.6, m)), alpha, mode="steps")))
    return values[1] + 30, values[[0, 2]].mean() + 30, {"F": values}


def capped_read_as_complete(params, successes, trials):
    return fit_task_law(params, np.full(successes.shape, 20), trials)


@paper.trial(
    Prediction("one sample an instance at the largest small model", metric="mae", relative=True, at_most=0.15),
    of=[fit_task_law, task_pass_rate],
    controls={"capped counts read as complete": capped_read_as_complete},
    quick=10,
    full=200,
)
def larger_model(draw, claim):
    """From up to 10,000 samples of 100 instances at five sizes to a billion parameters, the mean pass rate at 2.4 billion."""
    successes, trials, rates = random_counts(draw.rng, 100)
    each = claim(SIZES, successes, trials)["per_instance"]
    known = ~np.isnan(each["c"])
    predicted = task_pass_rate(2.4e9, c=each["c"][known], alpha=each["alpha"][known]).mean()
    return Forecast(rates[-1].mean(), predicted, (draw.rng.uniform(size=100) < rates[-2]).mean())


def always_two_errors(params, pass_rates, *, weights=None):
    found = emergence(params, pass_rates, weights=weights)
    return {"verdict": "ordinary" if abs(found["curvature"]) <= 1.96 * found["se"] else "other"}


@paper.trial(Coverage(at_most=0.05, detect=0.08), of=[emergence], controls={"1.96 errors estimated from two residuals": always_two_errors}, quick=2500, full=20_000)
def false_alarms(draw, claim):
    """A task on the scaling law is called anything but ordinary in at most 5 % of cases, with the noise of F known and unknown."""
    slope, noise = draw.uniform(-0.6, -0.1), draw.log_uniform(0.01, 0.2)
    rates = np.exp(-np.exp(slope * np.log(SIZES / 1e9) + noise * draw.rng.normal(size=5)))
    return {name: claim(SIZES, rates, weights=weights)["verdict"] != "ordinary" for name, weights in (("known", np.full(5, noise**-2)), ("unknown", None))}


@paper.finding("""The estimate r/K, which the paper calls unbiased, is too large on average: stopped at two successes, a rate of .05 has the mean estimate .0887.""")
def stopping_rule_biases():
    trials = np.arange(2, 2000)
    found, mass = pass_until(np.full(1998, 2), trials), (trials - 1) * 0.05**2 * 0.95 ** (trials - 2)
    naive, unbiased = (float(mass @ found[name]) for name in ("naive_rate", "rate"))
    return {"holds": abs(naive - 0.0887) < 5e-5 and abs(unbiased - 0.05) < 1e-9, "mean_naive_rate": naive, "mean_rate": unbiased}


@paper.finding("""Several steps can never speed a task up, but several circuits do: three equal ones bend F down, and five sizes suffice for the verdict "accelerated".""")
def circuits_speed_up():
    rates = {mode: circuits_pass_rate(SIZES, np.full(3, 5 * 1e9**0.3), np.full(3, 0.3), mode=mode) for mode in ("steps", "circuits")}
    one = task_pass_rate(SIZES, c=5 * 1e9**0.3, alpha=0.3)
    steps, circuits = (emergence(SIZES, p) for p in (one**3, 1 - (1 - one) ** 3))
    holds = np.allclose([rates["steps"], rates["circuits"]], [one**3, 1 - (1 - one) ** 3]) and circuits["verdict"] == "accelerated" and steps["curvature"] > -1e-9
    return {"holds": holds, "curvature_of_steps": steps["curvature"], "curvature_of_circuits": circuits["curvature"]}
