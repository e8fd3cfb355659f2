"""Causal means under hidden confounding: how far the propensity alone lets them stray, as intervals."""

import math

import numpy as np

from lawbook.contract import Paper, choice, flag, nonnegative, probability, real, record, vector
from lawbook.numerics import arrays, bracketed_root, logsumexp
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="Information-Theoretic Causal Bounds under Unmeasured Confounding",
    arxiv="2601.17160",
    tags=["causal inference", "confounding", "partial identification", "f-divergence", "propensity", "treatment effect", "sensitivity"],
    source="paper",
    says="""With hidden confounding the law of an outcome among the treated differs from its law under treatment of everyone, but the latter always holds the former as a part
    whose share is the propensity. An f-divergence between the two is therefore capped by a function of the propensity, and the worst mean within that cap is a convex
    problem of two variables: an interval for the causal mean without instruments or sensitivity parameters.""",
    notes="""The optimality conditions of the dual are solved: for Kullback-Leibler, Hellinger and chi-square the worst density ratio is a power of one plus a multiple of the
    distance to the largest outcome, which leaves one equation of one unknown; Jensen-Shannon has two. The authors' package minimises the same dual by stochastic gradients
    on networks of covariates, cross-fitted: with its caps and conjugates the minimum is ours, and its estimates without covariates scatter around it by what training
    leaves open. The paper's further bounds on integral probability metrics, 2C min(1-e, sqrt(-log(e)/2)), always take 1-e for the minimum. No sampling error is part of any
    interval: they are those of the observed law.""",
)

LARGEST_SIZE = 1e6  # of the log of a multiplier, in brackets
KINDS = ("kl", "hellinger", "chi2", "tv", "js")
KIND = choice(*KINDS, doc="Kullback-Leibler, squared Hellinger, chi-square (both halved), total variation, Jensen-Shannon")
PROPENSITY = probability(above=True, typical=(0.02, 0.98), doc="share of the population that got this treatment", example=0.3)
OUTCOMES = vector("n", of=real(typical=(-2, 2)), most=30, doc="outcomes of those who got this treatment", example=[0.0, 0.4, 0.5, 1.0, 1.2, 1.9, 2.1])
INTERVAL = record(lower=real(), upper=real())
WEIGHTS = vector("n", of=nonnegative(typical=(0, 3)), doc="weight of each outcome; equal where not given")
WEIGHED = {"weights must be above 0 somewhere": lambda weights: weights is None or np.sum(weights) > 0}


@paper.bound(
    r"D_f(P \| Q) \le B_f(e) = e f(1/e) + (1-e) f(0)",
    closed_form=True,
    assumes=["Those treated are among the population, and what is observed of them is their outcome under treatment."],
)
def divergence_cap(propensity: PROPENSITY, kind: KIND = "kl") -> nonnegative("nats"):
    """Largest divergence between the observed law of treated outcomes and their law if everyone were treated."""
    xp, e = arrays(propensity)
    if kind == "kl":
        return -xp.log(e)
    if kind == "hellinger":
        return 1 - xp.sqrt(e)
    if kind == "chi2":
        return (1 - e) / (2 * e)
    return 1 - e if kind == "tv" else math.log(2) + (e * xp.log(e) - (1 + e) * xp.log1p(e)) / 2


def tilted(kind, gap, log_gap, weights, size):
    """(divergence minus cap at propensity 1, density ratio) of the worst law at a multiplier: x = 1 + exp(size) gap to the power of -1, -2, -1/2."""
    log_x = np.logaddexp(0, size + log_gap)

    def log_moment(order):
        return logsumexp(np, order * log_x + np.log(weights))

    if kind == "kl":
        return weights @ log_x + log_moment(-1), np.exp(-log_x - log_moment(-1))
    if kind == "hellinger":  # -2 log of the affinity
        return log_moment(-2) - 2 * log_moment(-1), np.exp(-2 * log_x - log_moment(-2))
    return log_moment(0.5) + log_moment(-0.5), np.exp(-0.5 * log_x - log_moment(-0.5))


def jensen_shannon(gap, weights, size):
    """The same for Jensen-Shannon: s = 1 / (exp(c + exp(size) gap) - 1), with the c > 0 that makes its mean 1."""
    tilt = np.exp(size) * gap
    least = math.log1p(weights[gap == 0].sum())  # c lies between this, where the mean is at least 1, and log 2
    c = least
    with np.errstate(over="ignore"):
        for _ in range(100):
            s = 1 / np.expm1(c + tilt)
            mean = weights @ s
            step = float(np.clip(c + (mean - 1) * mean / (weights @ (s + s * s)), least, math.log(2))) - c  # Newton on 1 / mean, which is all but linear
            if abs(step) <= 1e-12 * c:
                break
            c += step
    return math.log(2) - weights @ (np.log1p(s) + np.where(s > 0, s * (c + tilt), 0)) / 2, s


def upper_end(values, weights, e, kind):
    """Largest mean of a law within the divergence cap of the observed one, on its own support."""
    top, width = values.max(), np.ptp(values)
    if width == 0 or e == 1:
        return float(weights @ values)
    if kind == "tv":  # the smallest outcomes, 1-e of the mass, become the largest
        order = np.argsort(values)
        before = np.concatenate([[0], np.cumsum(weights[order])[:-1]])
        return float(np.clip(before + weights[order] - (1 - e), 0, weights[order]) @ values[order] + (1 - e) * top)
    gap = (top - values) / width
    if kind in ("hellinger", "js") and weights[gap == 0].sum() >= e:  # all mass may move to the largest outcome
        return float(top)
    with np.errstate(divide="ignore"):
        log_gap = np.log(gap)
    cap = -math.log(e) if kind != "js" else float(divergence_cap(e, "js"))

    def ratio_at(size):
        return jensen_shannon(gap, weights, size) if kind == "js" else tilted(kind, gap, log_gap, weights, size)

    low, high = -40.0, 5.0
    while ratio_at(high)[0] <= cap:
        low, high = high, 2 * high
        if high > LARGEST_SIZE:  # all but rounding is on the largest outcome
            return float(top)
    s = ratio_at(bracketed_root(lambda size: ratio_at(size)[0] - cap, low, high, rtol=1e-12))[1]
    return float(top - width * (weights @ (s * gap)) / (weights @ s))


@paper.bound(
    r"\bar\theta = \inf_{\lambda > 0, u} \lambda B_f(e) + u + \lambda\, \mathrm{E}_P\, g^*\!\big(\tfrac{\varphi - u}{\lambda}\big),\quad g(s) = s f(1/s),\quad "
    r"\underline\theta = -\bar\theta(-\varphi)",
    requires=WEIGHED,
    assumes=["Outcomes that would be seen under treatment of everyone are among those observed: the ball of laws is on their support."],
)
def causal_interval(outcomes: OUTCOMES, propensity: PROPENSITY, *, kind: KIND = "kl", weights: WEIGHTS = None) -> INTERVAL:
    """Interval for the mean outcome if everyone got the treatment, from the outcomes of those who did and how many they are."""
    values, mass = np.asarray(outcomes, float), np.ones(len(outcomes)) if weights is None else np.asarray(weights, float)
    values, mass = values[mass > 0], mass[mass > 0] / mass.sum()
    return {"lower": -upper_end(-values, mass, propensity, kind), "upper": upper_end(values, mass, propensity, kind)}


@paper.bound(
    r"e\, \mathrm{E}_P \varphi + (1-e) \inf\varphi \le \mathrm{E}_Q \varphi \le e\, \mathrm{E}_P \varphi + (1-e) \sup\varphi",
    requires={
        "low must be at most every outcome": lambda low, outcomes: low is None or low <= np.min(outcomes),
        "high must be at least every outcome": lambda high, outcomes: high is None or high >= np.max(outcomes),
    },
)
def manski_interval(
    outcomes: OUTCOMES,
    propensity: PROPENSITY,
    *,
    low: real(typical=(-6, -2), doc="smallest possible outcome; the smallest observed where not given") = None,
    high: real(typical=(2, 6), doc="largest possible outcome; the largest observed where not given") = None,
) -> INTERVAL:
    """Interval for the mean outcome if everyone got the treatment, from the range of outcomes: sharp, and within every other interval here."""
    mean, e = float(np.mean(outcomes)), propensity
    ends = (np.min(outcomes) if low is None else low), (np.max(outcomes) if high is None else high)
    return {"lower": float(e * mean + (1 - e) * ends[0]), "upper": float(e * mean + (1 - e) * ends[1])}


@paper.algorithm(
    r"[\underline\theta_1 - \bar\theta_0,\ \bar\theta_1 - \underline\theta_0],\quad e_a = n_a / n",
    requires={"treatment must hold both 0 and 1": lambda treatment: 0 < np.sum(treatment) < len(treatment)},
    sample=lambda rng: {"outcomes": (y := rng.normal(size=int(rng.integers(2, 40)))), "treatment": rng.permutation(np.arange(len(y)) < rng.integers(1, len(y)))},
    assumes=["Sampling error is not part of the interval."],
)
def effect_interval(
    outcomes: vector("n", least=2, doc="outcome of each unit", example=[1.0, 2.0, 2.5, 3.0, 0.5, 1.0, 1.5, 2.0]),
    treatment: vector("n", of=flag(), least=2, doc="true where treated", example=[1, 1, 1, 1, 0, 0, 0, 0]),
    *,
    kind: choice("best", *KINDS, doc="best: the k-th largest lower and k-th smallest upper end for the first k at which they do not cross") = "best",
) -> record(
    lower=real(),
    upper=real(),
    kind_lower=vector("kinds", doc="for kl, hellinger, chi2, tv, js"),
    kind_upper=vector("kinds"),
    manski_lower=real(doc="on each arm's observed range"),
    manski_upper=real(),
):
    """Interval for the average treatment effect under any confounding, from outcomes and treatments alone."""
    y, treated = np.asarray(outcomes, float), np.asarray(treatment, bool)
    share = float(treated.mean())
    arms = (y[treated], share), (y[~treated], 1 - share)
    ends = [[causal_interval(*arm, kind=kind_) for arm in arms] for kind_ in KINDS] + [[manski_interval(*arm) for arm in arms]]
    lower, upper = (np.array([one[a] - none[b] for one, none in ends]) for a, b in (("lower", "upper"), ("upper", "lower")))
    if kind == "best":
        pairs = zip(np.sort(lower[:-1])[::-1], np.sort(upper[:-1]), strict=True)
        chosen = next((pair for pair in pairs if pair[0] <= pair[1]), (lower[:-1].min(), upper[:-1].max()))
    else:
        chosen = lower[KINDS.index(kind)], upper[KINDS.index(kind)]
    return {
        "lower": float(chosen[0]),
        "upper": float(chosen[1]),
        "kind_lower": lower[:-1],
        "kind_upper": upper[:-1],
        "manski_lower": float(lower[-1]),
        "manski_upper": float(upper[-1]),
    }


def divergence(kind, p, q):
    """D_f(P || Q) by its definition."""
    r = p / q
    with np.errstate(divide="ignore", invalid="ignore"):
        r_log_r = np.where(r > 0, r * np.log(r), 0)
    f = {"kl": r_log_r, "hellinger": (np.sqrt(r) - 1) ** 2 / 2, "chi2": (r - 1) ** 2 / 2, "tv": np.abs(r - 1) / 2, "js": (r_log_r - (r + 1) * np.log((r + 1) / 2)) / 2}
    return float(q @ f[kind])


def confounded_model(draw, singular=False):
    """(e, P, Q) of 4 hidden states and 5 outcomes: propensity, law of treated outcomes, law under treatment of all; `singular`: each state has its own outcomes."""
    hidden = draw.dirichlet(1.0, 4)
    propensity = np.array([1.0, 1.0, 0.0, 0.0]) if singular else draw.uniform(0.01, 0.99, size=4)
    outcome = np.stack([draw.dirichlet(0.5, 5) for _ in range(4)])
    if singular:
        outcome = outcome * np.repeat([[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]], 2, axis=0)
    outcome = outcome + 1e-12 * (outcome > 0)
    outcome /= outcome.sum(1, keepdims=True)
    e = float(hidden @ propensity)
    return e, (hidden * propensity / e) @ outcome, hidden @ outcome


def other_arm(e, kind):
    return divergence_cap(max(1 - e, 1e-300), kind)


def exchanged(kind, p, q):
    return divergence(kind, q, np.maximum(p, 1e-12))


@paper.trial(
    Inequality(rtol=1e-9, reaches=1 - 1e-6),
    of=[divergence_cap],
    claim=(divergence_cap, divergence),
    controls={"propensity of the other arm": (other_arm, divergence), "P and Q exchanged": (divergence_cap, exchanged)},
    quick=300,
    full=2000,
)
def caps_hold(draw, claim):
    """In confounded models the five divergences stay below their caps, and meet them where the untreated would have other outcomes than the treated."""
    cap, measured = claim
    e, p, q = confounded_model(draw, singular=draw.choice([False, False, True]))
    return [measured(kind, p, q) for kind in KINDS], [float(cap(e, kind)) for kind in KINDS], {"propensity": e}


def half_the_cap(outcomes, propensity, *, kind, weights):
    return causal_interval(outcomes, math.sqrt(propensity), kind=kind, weights=weights)


@paper.trial(Inequality(rtol=0, atol=1e-6, search=0), of=[causal_interval, manski_interval], controls={"half the information": half_the_cap}, quick=10, full=200)
def truth_and_manski_inside(draw, claim):
    """The causal mean of a confounded model lies in Manski's interval, and that in the interval of each divergence."""
    e, p, q = confounded_model(draw)
    values = draw.normal(size=5)
    found = [claim(values, e, kind=kind, weights=p) for kind in KINDS]
    manski = {end: value + e * (p @ values - values.mean()) for end, value in manski_interval(values, e).items()}  # that of a sample whose mean is P's
    lowers, uppers = [each["lower"] for each in found], [each["upper"] for each in found]
    return [*lowers, manski["lower"], q @ values, *[manski["upper"]] * 5], [*[manski["lower"]] * 5, q @ values, manski["upper"], *uppers], {"propensity": e}


@paper.trial(Identity(rtol=0, atol=1e-5), of=[causal_interval], controls={"half the information": half_the_cap}, quick=2, full=40)
def dual_is_primal(draw, claim):
    """The worst density ratio itself, found by a conic solver among all ratios within the cap, gives the same ends for outcomes of unit range."""
    import cvxpy as cp

    n, e = draw.integer(3, 20), draw.uniform(0.05, 0.95)
    weights, values = draw.dirichlet(1.0, n) + 1e-3, draw.uniform(size=n)
    weights /= weights.sum()
    s = cp.Variable(n, nonneg=True)
    g = {
        "kl": -cp.log(s),
        "hellinger": (1 + s) / 2 - cp.sqrt(s),
        "chi2": (cp.inv_pos(s) + s) / 2 - 1,
        "tv": cp.abs(1 - s) / 2,
        "js": (cp.rel_entr(s, (1 + s) / 2) + cp.rel_entr(1, (1 + s) / 2)) / 2,
    }
    solved, claimed, tight = [], [], dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
    for kind in KINDS:
        limits = [weights @ s == 1, weights @ g[kind] <= float(divergence_cap(e, kind))]
        solved += [cp.Problem(cp.Minimize(weights @ cp.multiply(s, values)), limits).solve(solver="CLARABEL", **tight)]
        solved += [cp.Problem(cp.Maximize(weights @ cp.multiply(s, values)), limits).solve(solver="CLARABEL", **tight)]
        claimed += list(claim(values, e, kind=kind, weights=weights).values())
    return solved, claimed, {"propensity": e, "outcomes": values}


def difference_of_means(outcomes, treatment):
    gap = outcomes[treatment].mean() - outcomes[~treatment].mean()
    error = 4 * math.hypot(*(outcomes[arm].std() / math.sqrt(arm.sum()) for arm in (treatment, ~treatment)))
    return {"kind_lower": np.full(5, gap - error), "kind_upper": np.full(5, gap + error), "manski_lower": gap - error, "manski_upper": gap + error}


@paper.trial(Inequality(rtol=1e-9, search=0), of=[effect_interval], controls={"difference of means, four standard errors": difference_of_means}, quick=5, full=50, data="ihdp")
def effect_on_ihdp(draw, claim, data):
    """Infants of IHDP, both outcomes known, are treated according to those outcomes: the intervals, Manski's in the others, hold the true average effect all the same."""
    treated, y, other = data["treatment"] == 1, data["outcome"], data["counterfactual"]
    both = np.where(treated, y, other), np.where(treated, other, y)
    pull = sum(draw.normal(0, 1.5) * (side - side.mean()) / side.std() for side in both)
    chosen = draw.rng.uniform(size=len(y)) < 1 / (1 + np.exp(-pull - draw.normal()))
    effect, found = float(np.mean(both[0] - both[1])), claim(np.where(chosen, *both), chosen)
    lower, upper = [*found["kind_lower"], effect], [*[found["manski_lower"]] * 5, found["manski_upper"]]
    return [*lower, found["manski_lower"], *[found["manski_upper"]] * 5], [*upper, effect, *found["kind_upper"]], {"effect": effect, "treated": int(chosen.sum())}


@paper.finding(
    """Manski's interval on the observed range is contained in the interval of every f-divergence: each mixture with the observed law is within the cap, so no
    choice of divergence is ever tighter than the range of the outcomes alone.""",
    trial=truth_and_manski_inside,
)
def never_tighter_than_manski():
    rng, widest = np.random.default_rng(0), math.inf
    for _ in range(30):
        values, e = rng.normal(size=12), float(rng.uniform(0.05, 0.95))
        manski = manski_interval(values, e)
        widest = min(widest, *((found := causal_interval(values, e, kind=kind))["upper"] - found["lower"] - manski["upper"] + manski["lower"] for kind in KINDS))
    outcomes = np.array([0.0, 0.4, 0.5, 1.0, 1.2, 1.9, 2.1])
    example = {kind: causal_interval(outcomes, 0.3, kind=kind)["upper"] for kind in KINDS}
    return {
        "holds": widest > 0,
        "least_excess_of_width": widest,
        "upper_manski": manski_interval(outcomes, 0.3)["upper"],
        **{f"upper_{kind}": end for kind, end in example.items()},
    }


@paper.finding("""Bounded outcomes are needed after all: g* is infinite beyond a finite argument for every f with f(0) finite, so that the population's interval is infinite for
    unbounded outcomes. What is computed from a Gaussian sample only follows its largest value, and grows with the sample.""")
def unbounded_outcomes():
    sizes = (50, 500, 5000, 50_000)
    ends = [float(np.mean([causal_interval(np.random.default_rng(key).normal(size=n), 0.5)["upper"] for key in range(10)])) for n in sizes]
    return {"holds": bool(np.all(np.diff(ends) > 0.05)), "samples": list(sizes), "upper_kl": ends}
