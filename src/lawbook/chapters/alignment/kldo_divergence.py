"""Preference losses as estimates of a divergence between safe and unsafe answers, and the separation that follows from them."""

import math
import warnings

import numpy as np

from lawbook.contract import Paper, caution, choice, distribution, matrix, nonnegative, positive, probability, real, record, seed, vector
from lawbook.numerics import logsumexp
from lawbook.trials import Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="LLM Safety Alignment is Divergence Estimation in Disguise",
    arxiv="2502.00657",
    tags=["alignment", "safety", "kldo", "dpo", "kto", "bco", "kl divergence", "donsker-varadhan", "bhattacharyya", "implicit reward"],
    source="code",
    says="""Preference losses are variational estimators: the least of one over all implicit rewards is a divergence between aligned and unaligned answers, and the reward
    that attains it is a monotone function of their density ratio (KTO: of its sign), which is why safe and harmful prompts drift apart in hidden space. A new
    loss, KLDO, estimates the KL divergence in the Donsker-Varadhan form. Separation is measured by the Bhattacharyya distance of two Gaussians.""",
    notes="""Losses are those of the authors' code at batch level, where "biased" is the form dv and "f-div" nwj; its default "ma" changes the gradient alone, by a moving average
    of E_Q e^r. Two things there are not followed: `normalize` (on by default) rescales the unaligned term by its own value, and the moving averages of the reward
    that shift BCO blend the old average with itself, so that they stay at the first batch's mean. A held-out dv value is not a lower bound of the KL divergence
    even for a fixed reward: the logarithm of a mean over samples is too small on average (see the finding); nwj has no such bias. Probabilities are renormalised.
    The code's determinants leave the floating-point range in some hundred dimensions, their logarithms here do not.""",
)

REWARDS = real(typical=(-3, 3))
ALIGNED = vector("n", of=REWARDS, doc="implicit rewards, beta log(policy / reference), of aligned answers", example=[1.0, 0.5, 2.0, 1.5])
UNALIGNED = vector("m", of=REWARDS, doc="the same of unaligned answers", example=[-1.0, 0.0, -0.5])
DIRECT = 1_000_000  # pairs of rewards that are gone through one by one
DEGREE, WIDTH = 24, 4.0  # of the panels on which log(1 + e^x) is interpolated to rounding


@paper.measure(
    r"\mathbb{E}_P r - \log \mathbb{E}_Q e^r\ \text{(dv)},\quad \mathbb{E}_P r - \mathbb{E}_Q e^{r-1}\ \text{(nwj)}",
    assumes=["Expectations of dv and nwj are at most KL(P || Q), for any reward that was not fitted to these answers."],
)
def kl_from_rewards(
    aligned: ALIGNED,
    unaligned: UNALIGNED,
    *,
    form: choice("dv", "nwj", doc="Donsker-Varadhan, which a constant does not change; or the f-divergence form, unbiased and lower") = "dv",
) -> real("nats", infinite=True, doc="-inf where an exponential overflows"):
    """Estimate of KL(aligned || unaligned) that a reward gives on samples of both; it may be negative."""
    up, down = np.asarray(aligned, float), np.asarray(unaligned, float)
    if form == "nwj":
        with np.errstate(over="ignore"):
            return float(up.mean() - np.mean(np.exp(down - 1)))
    total = float(logsumexp(np, down))
    if len(down) >= 20 and down.max() - total > math.log(0.5):
        caution(f"One of the {len(down)} unaligned answers carries more than half of the mean of exp(reward): the estimate hangs on it.")
    return float(up.mean()) - total + math.log(len(down))


def panels(values):
    """Nodes and weights that turn means over the values of a function as smooth as log(1 + e^x) into sums: Chebyshev interpolation on panels."""
    panel, where = np.unique(np.floor(values / WIDTH), return_inverse=True)
    angles = np.arccos(np.clip(2 * (values / WIDTH - panel[where]) - 1, -1, 1))
    roots, orders = np.pi * (np.arange(DEGREE) + 0.5) / DEGREE, np.arange(DEGREE)
    moments = np.stack([np.bincount(where, np.cos(k * angles)) for k in orders], axis=1)
    weights = moments @ (np.cos(np.outer(orders, roots)) * np.where(orders == 0, 1, 2)[:, None])
    return (WIDTH * (panel[:, None] + (np.cos(roots) + 1) / 2)).ravel(), weights.ravel() / DEGREE / len(values)


def softplus_of_pairs(up, down):
    """Mean of log(1 + exp(down_j - up_i)) over all pairs."""
    (a, v), (b, w) = ((x, np.full(len(x), 1 / len(x))) if len(up) * len(down) <= DIRECT else panels(x) for x in (up, down))
    return float(sum(v[i : i + 64] @ np.logaddexp(0, b - a[i : i + 64, None]) @ w for i in range(0, len(a), 64)))


@paper.law(
    r"-\mathbb{E}_P r + \log \mathbb{E}_Q e^r,\quad \mathbb{E}_P \log(1 + e^{\delta - r}) + \mathbb{E}_Q \log(1 + e^{r - \delta}),\quad "
    r"\mathbb{E}_P\, \sigma(\delta - r) + \mathbb{E}_Q\, \sigma(r - \delta),\quad \mathbb{E}_{y \sim P,\, z \sim Q} \log(1 + e^{r(z) - r(y)})"
)
def alignment_loss(
    aligned: ALIGNED,
    unaligned: UNALIGNED,
    *,
    kind: choice("kldo", "bco", "kto", "dpo", doc="dpo: over all pairs of an aligned and an unaligned answer", example="kldo"),
    shift: real(typical=(-1, 1), doc="delta, the reference point of bco and kto; the others do not change with it") = 0.0,
) -> real():
    """Preference loss of implicit rewards on samples of aligned and unaligned answers."""
    from scipy.special import expit

    up, down = np.asarray(aligned, float) - shift, np.asarray(unaligned, float) - shift
    if kind == "kldo":
        return float(logsumexp(np, down)) - math.log(len(down)) - float(up.mean())
    if kind == "bco":
        return float(np.logaddexp(0, -up).mean() + np.logaddexp(0, down).mean())
    return float(expit(-up).mean() + expit(down).mean()) if kind == "kto" else softplus_of_pairs(up, down)


@paper.law(
    r"\inf_r:\ -\mathrm{KL}(P \| Q)\ \text{(kldo)},\quad \log 4 - 2\, \mathrm{JS}(P, Q)\ \text{(bco)},\quad 1 - \mathrm{TV}(P, Q)\ \text{(kto)}",
    gives={"value": -0.5108, "divergence": 0.5108},
)
def loss_floor(
    p: distribution("k", doc="aligned", example=[0.5, 0.5]), q: distribution("k", doc="unaligned", example=[0.9, 0.1]), *, kind: choice("kldo", "bco", "kto", example="kldo")
) -> record(
    value=real(infinite=True, doc="greatest lower bound of the loss; -inf where KL is infinite"),
    divergence=nonnegative(infinite=True, doc="KL(P || Q), the Jensen-Shannon divergence with equal weights, both in nats, or the total variation"),
    optimal_reward=vector("k", of=real(infinite=True, nan=True, doc="up to a constant for kldo; for kto the direction, the floor being reached as it grows; NaN: in neither")),
):
    """Least loss over all rewards, the divergence that it measures, and the reward that attains it."""
    from scipy.special import rel_entr

    p, q = (np.asarray(v, float) / np.sum(v) for v in (p, q))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(p) - np.log(q)
    if kind == "kldo":
        divergence = max(float(rel_entr(p, q).sum()), 0.0)
    elif kind == "bco":
        divergence = max(float(rel_entr(p, (p + q) / 2).sum() + rel_entr(q, (p + q) / 2).sum()) / 2, 0.0)
    else:
        divergence = float(np.abs(p - q).sum()) / 2
    value = {"kldo": -divergence, "bco": math.log(4) - 2 * divergence, "kto": 1 - divergence}[kind]
    return {"value": value, "divergence": divergence, "optimal_reward": np.sign(ratio) if kind == "kto" else ratio}


def slopes(up, down, kind):
    """Derivatives of the loss in the scores."""
    from scipy.special import expit, softmax

    if kind == "kldo":
        return np.full(len(up), -1 / len(up)), softmax(down)
    if kind == "bco":
        return -expit(-up) / len(up), expit(down) / len(down)
    return -expit(up) * expit(-up) / len(up), expit(down) * expit(-down) / len(down)


@paper.algorithm(
    r"\min_{w,b} L(w \cdot x + b) + \tfrac{\lambda}{2} |w|^2\ \text{on random halves; estimate on the other halves}",
    requires={"p_samples must have at least 2 rows": lambda p_samples: len(p_samples) > 1, "q_samples must have at least 2 rows": lambda q_samples: len(q_samples) > 1},
)
def fit_reward(
    p_samples: matrix("n", "d", of=REWARDS, doc="features of aligned answers", example=[[1.0, 0.2], [0.5, 1.0], [1.5, 0.0], [0.8, 0.6]]),
    q_samples: matrix("m", "d", of=REWARDS, doc="features of unaligned answers", example=[[-1.0, 0.1], [0.0, 0.5], [-0.5, -0.8], [0.4, -0.2]]),
    *,
    kind: choice("kldo", "bco", "kto") = "kldo",
    l2: positive(typical=(1e-3, 1), doc="lambda; on text kldo needs 1e-2: one large score on the unaligned side ruins the mean of its exponential") = 1e-2,
    seed: seed() = 0,
) -> record(
    weights=vector("d"), bias=real(doc="0 for kldo, which a constant does not change"), estimate=real(infinite=True, doc="of KL (nats), Jensen-Shannon (nats) or total variation")
):
    """Linear reward that minimises a loss on half of the answers, and the divergence that it shows on the other half."""
    from scipy.optimize import minimize

    rng, x, y = np.random.default_rng(seed), np.asarray(p_samples, float), np.asarray(q_samples, float)
    (x, x_held), (y, y_held) = (np.array_split(v[rng.permutation(len(v))], 2) for v in (x, y))

    def objective(theta):
        w, b = theta[:-1], theta[-1]
        up, down = x @ w + b, y @ w + b
        slope_up, slope_down = slopes(up, down, kind)
        gradient = np.append(slope_up @ x + slope_down @ y + l2 * w, slope_up.sum() + slope_down.sum())
        return alignment_loss(up, down, kind=kind) + l2 / 2 * (w @ w), gradient

    theta = minimize(objective, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 5000}).x
    w, b = theta[:-1], 0.0 if kind == "kldo" else float(theta[-1])
    up, down = x_held @ w + b, y_held @ w + b
    loss = alignment_loss(up, down, kind=kind)
    return {"weights": w, "bias": b, "estimate": kl_from_rewards(up, down) if kind == "kldo" else (math.log(4) - loss) / 2 if kind == "bco" else 1 - loss}


@paper.measure(
    r"D_B = \tfrac18 \Delta\mu^\top S^{-1} \Delta\mu + \tfrac12 \log \frac{\det S}{\sqrt{\det S_1 \det S_2}},\quad S = \tfrac12 (S_1 + S_2)",
    requires={"x must have at least 2 rows": lambda x: len(x) > 1, "y must have at least 2 rows": lambda y: len(y) > 1},
    assumes=["Both clouds are Gaussian: then half the coefficient bounds the error of the best classifier for equal priors."],
)
def separation(
    x: matrix("n", "d", of=REWARDS, doc="hidden states of one kind of prompt", example=[[0.0, 0.0], [1.0, 0.5], [0.5, 1.0], [0.2, 0.1]]),
    y: matrix("m", "d", of=REWARDS, doc="hidden states of the other", example=[[2.0, 2.0], [3.0, 2.5], [2.5, 3.5], [2.2, 2.0]]),
    *,
    ridge: positive(typical=(1e-6, 1e-1), doc="added to the diagonal of both covariances: without it fewer rows than dimensions have no distance") = 1e-6,
) -> record(distance=nonnegative(), coefficient=probability(doc="exp(-distance)")):
    """Bhattacharyya distance of two Gaussians with the means and covariances of two clouds."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if min(len(x), len(y)) <= x.shape[1]:
        caution(f"There are no more rows than the {x.shape[1]} dimensions in one of the clouds: the distance is the ridge's rather than the data's.")
    covariances = [np.atleast_2d(np.cov(v, rowvar=False)) + ridge * np.eye(x.shape[1]) for v in (x, y)]
    middle = (covariances[0] + covariances[1]) / 2
    gap = x.mean(0) - y.mean(0)
    logs = [np.linalg.slogdet(s)[1] for s in (middle, *covariances)]
    distance = max(float(gap @ np.linalg.solve(middle, gap) / 8 + (logs[0] - (logs[1] + logs[2]) / 2) / 2), 0.0)
    return {"distance": distance, "coefficient": math.exp(-distance)}


def divergence_reversed(p, q, *, kind):
    return loss_floor(q, p, kind=kind) | {"optimal_reward": loss_floor(p, q, kind=kind)["optimal_reward"]}


def without_log_four(p, q, *, kind):
    return loss_floor(p, q, kind=kind) | ({"value": -2 * loss_floor(p, q, kind=kind)["divergence"]} if kind == "bco" else {})


@paper.trial(Identity(rtol=0, atol=1e-6), of=[loss_floor, alignment_loss], controls={"KL(Q || P)": divergence_reversed, "2 JS without log 4": without_log_four}, quick=5, full=50)
def floors_by_minimisation(draw, claim):
    """Each loss, minimised numerically over the rewards of 6 answers, ends at its stated floor, which the stated reward attains; log(P/Q) attains the least of dpo."""
    from scipy.optimize import minimize

    times = draw.rng.multinomial(24, draw.rng.dirichlet(np.ones(6)), 2) + 1  # how often each answer is among the samples
    p, q = times / 30
    found, stated = [], []

    def loss(r, kind):
        return alignment_loss(np.repeat(r, times[0]), np.repeat(r, times[1]), kind=kind)

    for kind in ("kldo", "bco", "kto"):
        least, floor = minimize(loss, np.zeros(6), args=kind, method="BFGS", options={"gtol": 1e-8}), claim(p, q, kind=kind)
        lowest = min(least.fun, loss(1e3 * least.x, kind))  # kto falls for rewards without end: a huge step that way is tried too
        found += [lowest, loss(floor["optimal_reward"] * (50 if kind == "kto" else 1), kind)]
        stated += [floor["value"]] * 2
    least = minimize(loss, np.zeros(6), args="dpo", method="BFGS", options={"gtol": 1e-8}).fun
    return [*found, least], [*stated, loss(claim(p, q, kind="kldo")["optimal_reward"], "dpo")], {"p": p, "q": q}


def samples_exchanged(aligned, unaligned, *, form):
    return kl_from_rewards(unaligned, aligned, form=form)


def mean_of_the_logarithm(aligned, unaligned, *, form):
    return float(np.mean(aligned) - np.mean(unaligned - (form == "nwj")))


@paper.trial(
    Inequality(atol=1e-9), of=[kl_from_rewards, loss_floor], controls={"samples exchanged": samples_exchanged, "log inside the mean": mean_of_the_logarithm}, quick=200, full=5000
)
def every_reward_is_below(draw, claim):
    """With exact expectations over 6 answers, nwj is at most dv and dv at most KL(P || Q) whatever the reward; both reach it at theirs."""
    times = draw.rng.multinomial(24, draw.rng.dirichlet(np.ones(6)), 2) + 1
    floor = loss_floor(times[0] / 30, times[1] / 30, kind="kldo")
    rewards = floor["optimal_reward"] + draw.log_uniform(0.01, 3) * draw.normal(size=6)

    def value(r, form):
        return claim(np.repeat(r, times[0]), np.repeat(r, times[1]), form=form)

    dv, best = value(rewards, "dv"), [value(floor["optimal_reward"] + 1, form) for form in ("dv", "nwj")]
    return [value(rewards, "nwj"), dv, *[floor["divergence"]] * 2], [dv, floor["divergence"], *best], {"p": times[0] / 30, "q": times[1] / 30, "rewards": rewards}


def paired_in_order(aligned, unaligned, *, kind, shift):
    whole = alignment_loss(aligned, unaligned, kind=kind, shift=shift)
    return float(np.logaddexp(0, unaligned - aligned[: len(unaligned)]).mean()) if kind == "dpo" else whole


@paper.trial(Identity(rtol=1e-11, atol=1e-12), of=[alignment_loss], controls={"dpo paired in order": paired_in_order}, quick=3, full=40)
def losses_one_by_one(draw, claim):
    """All four losses, answer by answer and pair by pair from their formulas, for more pairs than are gone through directly."""
    from scipy.special import log_expit

    spread, shift = draw.log_uniform(0.1, 30), draw.uniform(-1, 1)
    up, down = spread * (draw.rng.normal(size=1200) + 0.5), spread * draw.rng.standard_t(3, size=900)
    dpo = -np.mean(log_expit(np.subtract.outer(up, down)))
    kldo = np.log(np.mean(np.exp(down - down.max()))) + down.max() - up.mean()
    bco = -np.mean(log_expit(up - shift)) - np.mean(log_expit(shift - down))
    kto = 1 - np.mean(np.tanh((up - shift) / 2)) / 2 + np.mean(np.tanh((down - shift) / 2)) / 2
    return [claim(up, down, kind=kind, shift=shift) for kind in ("dpo", "kldo", "bco", "kto")], [dpo, kldo, bco, kto], {"spread": spread, "shift": shift}


def pooled(x, y, *, ridge):
    both, gap = np.cov(np.vstack([x, y]).T), x.mean(0) - y.mean(0)
    logs = [np.linalg.slogdet(s)[1] for s in (both, np.cov(x.T), np.cov(y.T))]
    distance = gap @ np.linalg.solve(both, gap) / 8 + (logs[0] - (logs[1] + logs[2]) / 2) / 2
    return {"distance": distance, "coefficient": np.exp(-distance)}


@paper.trial(Identity(rtol=1e-6), of=[separation], controls={"covariance of both together": pooled}, quick=20, full=300)
def overlap_of_densities(draw, claim):
    """The coefficient is the integral of sqrt(f g): both covariances are made diagonal at once, and each axis is integrated numerically."""
    from scipy.linalg import eigh

    d = draw.integer(2, 4)
    x = draw.rng.normal(size=(30, d)) @ draw.rng.normal(size=(d, d))
    y = draw.rng.normal(size=(40, d)) @ draw.rng.normal(size=(d, d)) + draw.rng.normal(size=d)
    variances, axes = eigh(np.cov(y.T), np.cov(x.T))  # axes.T cov(x) axes = 1
    gaps = axes.T @ (y.mean(0) - x.mean(0))
    t = gaps / (1 + variances) + np.sqrt(2 * variances / (1 + variances)) * np.linspace(-12, 12, 2001)[:, None]  # around where both are
    roots = np.exp(-(t**2) / 4 - (t - gaps) ** 2 / (4 * variances)) / np.sqrt(2 * np.pi * np.sqrt(variances))
    overlap = np.prod([np.trapezoid(root, points) for root, points in zip(roots.T, t.T, strict=True)])
    found = claim(x, y, ridge=1e-12)
    return [found["coefficient"], found["distance"]], [overlap, -math.log(overlap)], {"d": d}


def sides_shuffled(p_samples, q_samples, *, kind, seed, **options):
    both = np.vstack([p_samples, q_samples])[np.random.default_rng(seed).permutation(len(p_samples) + len(q_samples))]
    return fit_reward(both[: len(p_samples)], both[len(p_samples) :], kind=kind, seed=seed, **options)


@paper.trial(Identity(rtol=0, atol=1.0), of=[fit_reward], controls={"sides shuffled": sides_shuffled}, quick=2, full=30)
def known_gaussians(draw, claim):
    """Between Gaussians with a known shift the held-out estimates come within .1 (KL), .03 (Jensen-Shannon) and .05 (total variation) of the truth; in these units."""
    from scipy.special import ndtr
    from scipy.stats import norm

    d, shift = 3, draw.uniform(0.8, 1.5)
    x, y = draw.rng.normal(size=(2, 40_000, d))
    x = x + shift * (w := draw.rng.normal(size=d)) / np.linalg.norm(w)
    z = np.linspace(-12, 12, 4001)  # the log-ratio is s z + s^2/2 under the one and, by symmetry, minus that under the other
    js = math.log(2) - np.trapezoid(norm.pdf(z) * np.logaddexp(0, -shift * z - shift**2 / 2), z)
    truth, units = np.array([shift**2 / 2, js, 2 * ndtr(shift / 2) - 1]), np.array([0.1, 0.03, 0.05])
    found = [claim(x, y, kind=kind, l2=1e-4, seed=draw.integer(0, 1000))["estimate"] for kind in ("kldo", "bco", "kto")]
    return found / units, truth / units, {"shift": shift}


def word_weights(data):
    """TF-IDF of 300 words: (accepted, refused), the first answer of each record."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    accepted, refused = ([record[side][0] for record in data] for side in ("accepted", "refused"))
    table = TfidfVectorizer(max_features=300).fit_transform(accepted + refused).toarray()
    return table[: len(accepted)], table[len(accepted) :]


@paper.trial(Guarantee(), of=[fit_reward], controls={"sides shuffled": sides_shuffled}, quick=1, full=3, data="accept-reject")
def compliance_and_refusal(draw, claim, data):
    """Between accepted and refused answers the held-out estimates exceed 2 nats (kldo) and .4 (bco); between halves of one side they lie within .3 of zero."""
    accepted, refused = word_weights(data)
    halves, chance = np.array_split(accepted[draw.rng.permutation(len(accepted))], 2), draw.integer(0, 1000)
    apart = [claim(accepted, refused, kind=kind, l2=1e-2, seed=chance)["estimate"] for kind in ("kldo", "bco")]
    same = [abs(claim(*halves, kind=kind, l2=1e-2, seed=chance)["estimate"]) for kind in ("kldo", "bco")]
    return [2, 0.4, *same], [*apart, 0.3, 0.3], {"kldo": apart[0], "bco": apart[1]}


@paper.finding(
    """A held-out dv value is no lower bound of the KL divergence, even on average and for a fixed reward: with the best reward between N(1, 1) and N(0, 1), where KL = .5,
    its mean over samples of 10 is .57, too large by nearly Var_Q(P/Q)/2m. The nwj form is unbiased.""",
    trial=every_reward_is_below,
)
def held_out_is_no_lower_bound():
    rng, means = np.random.default_rng(0), {}
    samples = [(rng.normal(1, 1, 10) - 0.5, rng.normal(0, 1, 10) - 0.5) for _ in range(10_000)]  # x - 1/2 is the log-ratio
    for form in ("dv", "nwj"):
        values = [kl_from_rewards(up + (form == "nwj"), down + (form == "nwj"), form=form) for up, down in samples]
        means[form], means[f"{form}_error"] = float(np.mean(values)), float(np.std(values) / 100)
    return {"holds": means["dv"] > 0.5 + 5 * means["dv_error"] and abs(means["nwj"] - 0.5) < 4 * means["nwj_error"], **means}


@paper.finding(
    """Between accepted and refused answers to the same prompts, a linear reward on 300 words with l2 = 1e-3 is not enough for kldo: over six random halves its held-out
    estimate runs from -13 to 18 nats, for each time one refused answer carries more than half of the mean of the exponential. The estimate by bco stays within .02.
    With 1e-2 kldo gives 3.4 to 7.1, and one answer still carries half in three of six.""",
    trial=compliance_and_refusal,
    data="accept-reject",
)
def weak_ridge_on_text(data):
    sides, told = word_weights(data), {}
    for kind, l2 in (("kldo", 1e-3), ("bco", 1e-3), ("kldo", 1e-2)):
        with warnings.catch_warnings(record=True) as carried_by_one:
            warnings.simplefilter("always")
            values = [fit_reward(*sides, kind=kind, l2=l2, seed=s)["estimate"] for s in range(6)]
        told[f"{kind}_{l2}"] = {"estimates": values, "range": float(np.ptp(values)), "carried_by_one": len(carried_by_one)}
    weak, bco, strong = told.values()
    holds = weak["range"] > 10 and min(weak["estimates"]) < 0 and weak["carried_by_one"] == 6 and bco["range"] < 0.05 and min(strong["estimates"]) > 2
    return {"holds": holds, **told}
