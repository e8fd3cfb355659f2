"""What predictions give away about one training record: closed forms for Gaussian processes, the most revealing query, and the best attack."""

import numpy as np

from lawbook.contract import Paper, caution, choice, count, matrix, nonnegative, positive, probability, real, record, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="Leave-one-out Distinguishability in Machine Learning",
    arxiv="2309.17310",
    tags=["memorisation", "privacy", "membership inference", "influence", "gaussian process", "leave-one-out", "leakage"],
    source="derived",
    says="""How far does the law of a learner's predictions move when one record is added? With the learner modelled as a Gaussian process the divergence has a closed form, so that
    memorisation, leakage and influence are known before any training. One number carries it all: the share of a query's uncertainty that the record takes away.""",
    notes="""The definition is the paper's; the closed forms are derived here. Over any set of queries both divergences depend on R = u' C^-1 u / t alone (u the covariances with
    the record, C those of the queries), so that the set acts as one query; R is largest for the record itself, for every kernel and data set, and more queries add nothing.
    Joint values treat queries as seen with a variance of 1e-10 of the largest prior one, so that equal queries are allowed.""",
)

JITTER = 1e-10
INPUTS = matrix("n", "d", of=real(typical=(-2, 2)), doc="training inputs", example=[[0.0, 1.0], [1.0, 0.5], [2.5, -1.0]])
TARGETS = vector("n", of=real(typical=(-2, 2)), doc="training targets", example=[0.2, 0.8, -0.5])
EXTRA = vector("d", of=real(typical=(-2, 2)), doc="input of the record that is added", example=[0.5, 0.0])
EXTRA_TARGET = real(typical=(-2, 2), example=1.5)
QUERIES = matrix("q", "d", of=real(typical=(-2, 2)), doc="inputs whose latent predictions are seen", example=[[0.4, 0.1], [2.0, 2.0]])
NOISE = positive(typical=(0.05, 1), doc="variance of the noise of targets", example=0.1)
LENGTHSCALE = positive(typical=(0.3, 3), doc="of the rbf kernel")
KERNEL = choice("rbf", "linear", "relu", doc="exp(-|a-b|^2 / 2 l^2), a.b, or the arc-cosine of a wide ReLU layer")
AFTER, BEFORE = nonnegative("nats", doc="of the law with the record from the law without"), nonnegative("nats", doc="of the law without the record from the law with it")


def divergences(xp, odds, surprise):
    """Both divergences from R/(1-R) and the squared standardised residual e^2/t; series where differences would lose digits."""
    near = odds < 1e-3
    x, y = xp.where(near, odds, 0.0), xp.where(near, 1.0, odds)
    after = xp.where(near, x**2 * (1 / 2 - x * (2 / 3 - x * (3 / 4 - x * 4 / 5))), xp.log1p(y) - y / (1 + y))
    before = xp.where(near, x**2 * (1 / 2 - x * (1 / 3 - x * (1 / 4 - x / 5))), y - xp.log1p(y))
    return 0.5 * (after + odds / (1 + odds) * surprise), 0.5 * (before + odds * surprise)


def gram(a, b, kernel, lengthscale):
    """Kernel between rows."""
    from scipy.spatial.distance import cdist

    if kernel == "rbf":
        return np.exp(-cdist(a, b, "sqeuclidean") / (2 * lengthscale**2))
    if kernel == "linear":
        return a @ b.T
    lengths = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    cosine = np.clip(a @ b.T / np.where(lengths > 0, lengths, 1), -1, 1)
    cosine = np.where(cosine > 1 - 1e-15, 1.0, cosine)
    angle = np.arccos(cosine)
    return (np.sin(angle) + (np.pi - angle) * cosine) / np.pi


class Posterior:
    """Zero-mean Gaussian process after training data."""

    def __init__(self, inputs, targets, noise, lengthscale, kernel):
        from scipy.linalg import cholesky, solve_triangular

        self.inputs, self.kernel = np.asarray(inputs, float), (kernel, lengthscale)
        self.solve = solve_triangular
        self.root = cholesky(gram(self.inputs, self.inputs, *self.kernel) + noise * np.eye(len(inputs)), lower=True)
        self.targets = solve_triangular(self.root, np.asarray(targets, float), lower=True)

    def whitened(self, points):
        return self.solve(self.root, gram(self.inputs, points, *self.kernel), lower=True)

    def record(self, x, y, noise):
        """(whitened covariances, posterior variance, residual) of a record."""
        w = self.whitened(x[None])[:, 0]
        variance = float(gram(x[None], x[None], *self.kernel)[0, 0] - w @ w)
        return w, max(variance, 0.0), float(y - w @ self.targets)

    def share(self, points, x, w, total):
        """(covariance with the record, variance, rho) of each point."""
        of_points = self.whitened(points)
        covariance = gram(points, x[None], *self.kernel)[:, 0] - of_points.T @ w
        prior = np.sum(points**2, 1) if self.kernel[0] == "linear" else np.ones(len(points))
        variance = prior - np.sum(of_points**2, 0)
        least = np.maximum(variance, JITTER * prior + 1e-300)
        return covariance, np.maximum(variance, 0), covariance**2 / (least * total)


def odds_of(share, variance, noise):
    """R/(1-R), with R at most that of the record itself."""
    share = np.minimum(share, variance / (variance + noise))
    return share / (1 - share)


@paper.measure(r"\mathrm{KL}\big(N(m'_Q, C'_{QQ}) \,\|\, N(m_Q, C_{QQ})\big) = \tfrac12 \Big[-R - \log(1-R) + R \frac{e^2}{t}\Big],\quad R = \frac{u^T C_{QQ}^{-1} u}{t}")
def leave_one_out(
    train_inputs: INPUTS,
    train_targets: TARGETS,
    extra_input: EXTRA,
    extra_target: EXTRA_TARGET,
    queries: QUERIES,
    *,
    noise: NOISE,
    lengthscale: LENGTHSCALE = 1.0,
    kernel: KERNEL = "rbf",
) -> record(
    kl_after_before=AFTER,
    kl_before_after=BEFORE,
    mean_shift=vector("q", of=real(), doc="what the record adds to the mean of each query"),
    variance_drop=vector("q", of=nonnegative(), doc="what it takes from the variance"),
    single=vector("q", of=nonnegative("nats"), doc="divergence of the law with the record from that without, each query alone"),
):
    """How far one added record moves the latent predictions at some queries, together and one by one."""
    from scipy.linalg import cholesky, solve_triangular

    x, points = np.asarray(extra_input, float), np.asarray(queries, float)
    posterior = Posterior(train_inputs, train_targets, noise, lengthscale, kernel)
    w, variance, residual = posterior.record(x, extra_target, noise)
    total = variance + noise
    u, _, rho = posterior.share(points, x, w, total)
    of_points, prior = posterior.whitened(points), gram(points, points, kernel, lengthscale)
    size = max(float(np.diag(prior).max()), 1e-300)
    root = cholesky(prior - of_points.T @ of_points + JITTER * size * np.eye(len(points)), lower=True)
    if np.diag(root).min() ** 2 < 3 * JITTER * size:
        caution("Some queries are known from the training data or from other queries to within rounding; together they are seen with a variance of 1e-10.")
    after, before = divergences(np, odds_of(np.sum(solve_triangular(root, u, lower=True) ** 2) / total, variance, noise), residual**2 / total)
    single = divergences(np, odds_of(rho, variance, noise), residual**2 / total)[0]
    return {"kl_after_before": float(after), "kl_before_after": float(before), "mean_shift": u * residual / total, "variance_drop": u**2 / total, "single": single}


@paper.bound(
    r"\mathrm{KL}(D' \| D) \le \tfrac12 \Big[\log(1 + \tfrac{c}{s^2}) - \tfrac{c}{t} + \tfrac{c e^2}{t^2}\Big],\; \mathrm{adv} \le \sqrt{1 - e^{-\mathrm{KL}}},\; t = c + s^2",
    closed_form=True,
)
def leakage_ceiling(
    posterior_variance: positive(typical=(1e-3, 1), doc="of the latent function at the record, without it", example=0.5),
    noise: NOISE,
    residual: real(typical=(-3, 3), doc="target minus the mean prediction without the record", example=1.0),
) -> record(kl_after_before=AFTER, kl_before_after=BEFORE, attack_advantage=probability(doc="limit on true minus false positive rate of any membership test")):
    """What any set of queries can give away about a record; reached by asking for the record itself."""
    xp, c, s2, e = arrays(posterior_variance, noise, residual)
    after, before = divergences(xp, c / s2, e**2 / (c + s2))
    return {"kl_after_before": after, "kl_before_after": before, "attack_advantage": xp.sqrt(-xp.expm1(-xp.where(after < before, after, before)))}


@paper.measure(r"t_i = \frac{1}{(K^{-1})_{ii}},\quad e_i = \frac{(K^{-1} y)_i}{(K^{-1})_{ii}},\quad c_i = t_i - s^2")
def influence_scores(train_inputs: INPUTS, train_targets: TARGETS, *, noise: NOISE, lengthscale: LENGTHSCALE = 1.0, kernel: KERNEL = "rbf") -> vector("n", of=nonnegative("nats")):
    """Leakage ceiling of each training record left out of the rest, from one factorisation."""
    from scipy.linalg import cho_factor, cho_solve

    x = np.asarray(train_inputs, float)
    inverse = cho_solve(cho_factor(gram(x, x, kernel, lengthscale) + noise * np.eye(len(x))), np.eye(len(x)))
    total = 1 / np.diag(inverse)
    return divergences(np, np.maximum(total / noise - 1, 0), (inverse @ np.asarray(train_targets, float)) ** 2 * total)[0]


@paper.algorithm(r"\arg\max_q \mathrm{KL}\big(N(m'(q), c'(q,q)) \,\|\, N(m(q), c(q,q))\big) = x")
def most_revealing_query(
    train_inputs: INPUTS,
    train_targets: TARGETS,
    extra_input: EXTRA,
    extra_target: EXTRA_TARGET,
    *,
    noise: NOISE,
    lengthscale: LENGTHSCALE = 1.0,
    kernel: KERNEL = "rbf",
    starts: count(typical=(1, 5), high=10_000, doc="of the search that tries to do better") = 20,
    seed: seed() = 0,
) -> record(
    query=vector("d", doc="the added point itself"),
    value=nonnegative("nats", doc="what it reveals"),
    searched_value=nonnegative("nats", doc="best that a search over queries found"),
):
    """The query that reveals most about an added record, held against a search from many starts."""
    from scipy.optimize import minimize

    x = np.asarray(extra_input, float)
    posterior = Posterior(train_inputs, train_targets, noise, lengthscale, kernel)
    w, variance, residual = posterior.record(x, extra_target, noise)
    total = variance + noise

    def revealed(q):
        share = posterior.share(q[None], x, w, total)[2]
        return float(divergences(np, share / np.maximum(1 - share, 1e-300), residual**2 / total)[0][0])  # not held below the ceiling

    around = np.concatenate([posterior.inputs, x[None]])
    begin = around[np.random.default_rng(seed).integers(0, len(around), starts)] + np.random.default_rng(seed + 1).normal(0, lengthscale, (starts, len(x)))
    found = max(-minimize(lambda q: -revealed(q), start, method="L-BFGS-B", options={"maxiter": 50}).fun for start in begin)
    return {"query": x, "value": float(divergences(np, variance / noise, residual**2 / total)[0]), "searched_value": max(found, 0.0)}


def direct_posterior(inputs, targets, points, noise, kernel, lengthscale):
    """Mean and covariance by the textbook's formula."""
    across, inverse = gram(points, inputs, kernel, lengthscale), np.linalg.inv(gram(inputs, inputs, kernel, lengthscale) + noise * np.eye(len(inputs)))
    return across @ inverse @ targets, gram(points, points, kernel, lengthscale) - across @ inverse @ across.T


def gaussian_divergence(mean, covariance, other_mean, other_covariance):
    inverse, shift = np.linalg.inv(other_covariance), other_mean - mean
    logs = np.linalg.slogdet(other_covariance)[1] - np.linalg.slogdet(covariance)[1]
    return 0.5 * (np.trace(inverse @ covariance) - len(mean) + logs + shift @ inverse @ shift)


def problem(draw, kernel=None):
    n, d = draw.integer(2, 8), draw.integer(2, 3)
    options = {"noise": draw.log_uniform(0.05, 1), "lengthscale": draw.uniform(0.7, 2), "kernel": kernel or draw.choice(["rbf", "linear", "relu"])}
    return draw.normal(0, 1, (n, d)), draw.normal(0, 1, n), draw.normal(0, 1, d), draw.normal(0, 2), options


def exchanged(inputs, targets, x, y, queries, **options):
    found = leave_one_out(inputs, targets, x, y, queries, **options)
    return found | {"kl_after_before": found["kl_before_after"], "kl_before_after": found["kl_after_before"]}


def queries_apart(inputs, targets, x, y, queries, **options):
    found = leave_one_out(inputs, targets, x, y, queries, **options)
    return found | {"kl_after_before": found["single"].sum()}


@paper.trial(
    Identity(rtol=1e-7, atol=1e-9),
    of=[leave_one_out, influence_scores],
    controls={"before and after exchanged": exchanged, "queries counted one by one": queries_apart},
    quick=40,
    full=1000,
)
def by_refitting(draw, claim):
    """The process is fitted with the record and without, and the divergences of the two Gaussian laws taken; scores of all records by as many refits."""
    inputs, targets, x, y, options = problem(draw)
    queries = draw.normal(0, 1, (2, len(x)))  # as many as a linear kernel in two dimensions tells apart
    fits = [direct_posterior(np.concatenate([inputs, rows]), np.append(targets, value), queries, **options) for rows, value in ((x[None], [y]), (np.empty((0, len(x))), []))]
    jitter = JITTER * np.diag(gram(queries, queries, options["kernel"], options["lengthscale"])).max() * np.eye(2)
    after, before = ((mean, covariance + jitter) for mean, covariance in fits)
    found = claim(inputs, targets, x, y, queries, **options)
    rest = [np.arange(len(inputs)) != i for i in range(len(inputs))]
    alone = [leave_one_out(inputs[r], targets[r], inputs[i], targets[i], inputs[i : i + 1], **options)["kl_after_before"] for i, r in enumerate(rest)]
    direct = [gaussian_divergence(*after, *before), gaussian_divergence(*before, *after), *(after[0] - before[0]), *np.diag(before[1] - after[1]), *alone]
    parts = [found["kl_after_before"], found["kl_before_after"], *found["mean_shift"], *found["variance_drop"], *influence_scores(inputs, targets, **options)]
    return parts, direct, options


def total_variation(mean, deviation, other_mean, other_deviation):
    """Largest advantage of any test between two normal laws, from the points where their densities cross."""
    from scipy.stats import norm

    a, b = deviation**-2, other_deviation**-2
    roots = np.roots([a - b, 2 * (b * other_mean - a * mean), a * mean**2 - b * other_mean**2 + 2 * np.log(deviation / other_deviation)])
    crossings = np.sort(np.real(roots[np.abs(np.imag(roots)) < 1e-9 * (1 + np.abs(roots))]))
    differences = np.concatenate([[0], norm.cdf(crossings, mean, deviation) - norm.cdf(crossings, other_mean, other_deviation), [0]])
    return float(np.abs(np.diff(differences)).sum() / 2)


def ceiling_of_noisy_outputs(variance, noise, residual):
    """What the record's own output shows where it is seen with the noise of targets."""
    share = variance / (variance + noise)
    after, before = divergences(np, share**2 / (1 - share**2), residual**2 / (variance + noise))
    return {"kl_after_before": after, "kl_before_after": before, "attack_advantage": np.sqrt(-np.expm1(-min(after, before)))}


def half_the_advantage(variance, noise, residual):
    found = leakage_ceiling(variance, noise, residual)
    return found | {"attack_advantage": found["attack_advantage"] / 2}


@paper.trial(
    Inequality(rtol=1e-9, reaches=0.999),
    of=[leakage_ceiling, leave_one_out],
    controls={"ceiling of noisy outputs": ceiling_of_noisy_outputs, "half the advantage": half_the_advantage},
    quick=40,
    full=500,
)
def no_queries_reveal_more(draw, claim):
    """No set of queries, with the record among them or not, exceeds the ceiling, nor does the best test between the two laws of the record's own prediction."""
    inputs, targets, x, y, options = problem(draw)
    queries = draw.normal(0, 1, (draw.integer(1, 3), len(x))) + x
    queries[0] = x if draw.choice([True, False]) else queries[0]
    mean, variance = (float(part.squeeze()) for part in direct_posterior(inputs, targets, x[None], **options))
    found = leave_one_out(inputs, targets, x, y, queries, **options)
    limit, share = claim(variance, options["noise"], y - mean), variance / (variance + options["noise"])
    attack = total_variation((y - mean) * share, np.sqrt(variance * (1 - share)), 0.0, np.sqrt(variance))
    return [found["kl_after_before"], found["kl_before_after"], attack], [limit["kl_after_before"], limit["kl_before_after"], limit["attack_advantage"]], options


def the_largest_shift(inputs, targets, x, y, **options):
    grid = np.linspace(-3, 3, 601)[:, None]
    shift = np.abs(leave_one_out(inputs, targets, x, y, grid, **options)["mean_shift"])
    return most_revealing_query(inputs, targets, x, y, **options) | {"query": grid[shift.argmax()]}


@paper.trial(Guarantee(rtol=1e-6), of=[most_revealing_query], controls={"query that is shifted most": the_largest_shift}, quick=4, full=60)
def the_record_is_the_query(draw, claim):
    """In one dimension a grid of step 0.01 peaks at the added point, and a search from many starts finds its value and no more."""
    n = draw.integer(2, 8)
    options = {"noise": draw.log_uniform(0.05, 1), "lengthscale": draw.uniform(0.3, 1)}
    inputs, targets, x, y = draw.uniform(-2, 2, (n, 1)), draw.normal(0, 1, n), draw.uniform(-2, 2, 1), draw.normal(0, 2)
    grid = np.linspace(-3, 3, 601)[:, None]
    single = leave_one_out(inputs, targets, x, y, grid, **options)["single"]
    found = claim(inputs, targets, x, y, **options)
    return [abs(grid[single.argmax(), 0] - found["query"][0]), single.max(), found["searched_value"], 0.999 * found["value"]], [
        0.01,
        found["value"],
        found["value"],
        found["searched_value"],
    ]


@paper.finding(
    """That the added point is the most revealing query holds for latent predictions alone: seen with the noise of targets, a linear model gives away more at twice the point.""",
    trial=no_queries_reveal_more,
)
def noisy_outputs():
    inputs, targets, x, y, noise = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.5, -0.5]), np.array([1.0, 1.0]), 2.0, 0.5
    posterior = Posterior(inputs, targets, noise, 1.0, "linear")
    w, variance, residual = posterior.record(x, y, noise)
    covariance, of_query, _ = posterior.share(np.stack([x, 2 * x]), x, w, variance + noise)
    noisy = covariance**2 / ((of_query + noise) * (variance + noise))
    at_point, at_double = divergences(np, noisy / (1 - noisy), residual**2 / (variance + noise))[0]
    latent = leave_one_out(inputs, targets, x, y, np.stack([x, 2 * x]), noise=noise, kernel="linear")["single"]
    return {"holds": bool(at_double > 1.05 * at_point and abs(latent[1] / latent[0] - 1) < 1e-6), "at_the_point": float(at_point), "at_twice_the_point": float(at_double)}
