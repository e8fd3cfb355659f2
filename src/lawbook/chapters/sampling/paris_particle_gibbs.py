"""Expectations over a hidden path by PaRIS within particle Gibbs: with a fixed number of particles the bias falls geometrically in the number of passes."""

import math
from dataclasses import replace

import numpy as np

from lawbook.contract import DomainError, Paper, choice, count, matrix, positive, real, record, seed, vector
from lawbook.trials import Distribution, Estimate, Guarantee, Identity, Sample

paper = Paper(
    __name__,
    title="State and parameter learning with PaRIS particle Gibbs",
    arxiv="2301.00900",
    tags=["particle filter", "smoothing", "hidden Markov model", "state-space model", "particle Gibbs", "conditional SMC", "stochastic volatility", "time series"],
    source="derived",
    says="""PaRIS estimates the expectation of a sum over a hidden path while a particle filter runs, with two backward draws a particle and no stored paths, but with a
    bias of order 1/N. Inside conditional SMC, with one particle pinned to the path of the pass before, the same estimate is part of a Markov chain whose law is the
    smoothing law: after a few passes of burn-in the bias is gone, and the mean of the later estimates keeps a variance of order 1/N.""",
    notes="""Both models are autoregressions with their stationary prior. `sum` and `sum_sq` count the first state too. The gain over PaRIS is at a fixed number of
    particles, that is of memory: PaRIS with as many particles as all passes together has hardly more bias. Where the model finds the observations unlikely, the bias falls
    slowly, and more particles or burn-in are needed. Backward draws look at all particles: a pass costs N^2 a time step. Learning moves atanh(a) and the logarithms of
    scales by the score of one observation, and returns the mean over the second half of its steps.""",
)

KINDS = {"linear_gaussian": 4, "stochastic_volatility": 3}
OBSERVATIONS = vector("T", of=real(typical=(-2, 2)), least=2, most=30, doc="one observation a time step", example=[0.3, -0.2, 0.5, 1.1, 0.9, 0.4])
LINEAR = {"kind": "linear_gaussian", "parameters": [0.97, 0.6, 0.54, 0.33]}
MODEL = replace(
    record(
        kind=choice(*KINDS, doc="x' = a x + sd u with y = gain x + obs_sd v, or x' = phi x + s u with y = b exp(x/2) v"),
        parameters=vector("parameters", of=real(typical=(0.1, 0.9)), doc="[a, sd, gain, obs_sd], or [phi, s, b]"),
    ),
    example=LINEAR,
)
PARTICLES = count("particles", low=2, high=3000, typical=(2, 50), doc="particles N of a pass", example=20)
FUNCTIONAL = choice("pair_product", "sum", "sum_sq", doc="sum of x_t x_{t+1}, of x_t, or of x_t^2 over the path")
BACKWARD = count("draws", typical=(1, 4), doc="backward draws a particle; with 1 the variance grows with time")


def check_model(model, parameters=None):
    """(kind, parameters); DomainError where they are not those of a stationary model."""
    kind, values = model["kind"], np.asarray(model["parameters"] if parameters is None else parameters, float)
    name = "model.parameters" if parameters is None else "start"
    if len(values) != KINDS[kind]:
        raise DomainError(f"{name} must have {KINDS[kind]} entries for the kind {kind}; it has {len(values)}.")
    scales = values[[1, 3]] if kind == "linear_gaussian" else values[1:]
    if abs(values[0]) >= 1 or scales.min() <= 0:
        raise DomainError(f"{name} must have a first entry between -1 and 1 and positive scales; it was {values.tolist()}.")
    return kind, values


def log_observation(kind, values, x, y):
    """log g(y | x) up to what no x changes, and that part."""
    if kind == "linear_gaussian":
        return -0.5 * ((y - values[2] * x) / values[3]) ** 2 - math.log(values[3]) - 0.5 * math.log(2 * math.pi)
    return -0.5 * (x + (y / values[2]) ** 2 * np.exp(-x)) - math.log(values[2]) - 0.5 * math.log(2 * math.pi)


def score_of_observation(kind, values, x, y):
    if kind == "linear_gaussian":
        off = y - values[2] * x
        return [off * x / values[3] ** 2, (off / values[3]) ** 2 / values[3] - 1 / values[3]]
    return [y**2 * np.exp(-x) / values[2] ** 3 - 1 / values[2]]


def first_term(functional, kind, values, x, y):
    """What the functional adds for the first state: [..., terms]."""
    if functional == "score":
        a, s = values[:2]
        return np.stack([a * x**2 / s**2 - a / (1 - a**2), x**2 * (1 - a**2) / s**3 - 1 / s, *score_of_observation(kind, values, x, y)], -1)
    return {"pair_product": 0 * x, "sum": x, "sum_sq": x**2}[functional][..., None]


def next_term(functional, kind, values, x, new, y):
    """What it adds for a step from x to new."""
    if functional == "score":
        off, s = new - values[0] * x, values[1]
        return np.stack(np.broadcast_arrays(off * x / s**2, off**2 / s**3 - 1 / s, *score_of_observation(kind, values, new, y)), -1)
    return np.broadcast_to({"pair_product": x * new, "sum": new, "sum_sq": new**2}[functional], np.broadcast_shapes(x.shape, new.shape))[..., None]


def pick(rng, logs, draws):
    """`draws` indices [..., draws] with probability proportional to exp(logs[..., l])."""
    cumulative = np.cumsum(np.exp(logs - logs.max(-1, keepdims=True)), -1)
    level = rng.uniform(size=(*logs.shape[:-1], draws)) * cumulative[..., -1:]
    return np.minimum(np.stack([(cumulative < level[..., j, None]).sum(-1) for j in range(draws)], -1), logs.shape[-1] - 1)


def one_pass(rng, y, kind, values, functional, particles, draws, pinned=None, repeats=1, *, backward_to_pinned=True, transition=True):
    """(estimates [repeats, terms], paths [repeats, T], log likelihoods) of independent passes, the last particle of each pinned to a path [repeats, T] where one is given."""
    a, s = values[:2]
    rows = np.arange(repeats)[:, None]
    free = particles - (pinned is not None)
    x = rng.normal(size=(repeats, particles)) * s / math.sqrt(1 - a**2)
    if pinned is not None:
        x[:, -1] = pinned[:, 0]
    states, parents = [x], []
    totals = first_term(functional, kind, values, x, y[0])
    logs, evidence = log_observation(kind, values, x, y[0]), np.zeros(repeats)
    for t in range(1, len(y)):
        evidence += np.logaddexp.reduce(logs, -1) - math.log(particles)
        new = np.empty(x.shape)
        new[:, :free] = a * x[rows, pick(rng, logs, free)] + s * rng.normal(size=(repeats, free))
        if pinned is not None:
            new[:, -1] = pinned[:, t]
        backward = logs[:, None] - (0.5 * ((new[:, :, None] - a * x[:, None]) / s) ** 2 if transition else np.zeros((1, particles, 1)))
        chosen = pick(rng, backward if backward_to_pinned or pinned is None else backward[..., :-1], draws)
        before = rows[..., None], chosen
        totals = (totals[before] + next_term(functional, kind, values, x[before], new[..., None], y[t])).mean(2)
        parents.append(chosen[..., 0])
        states.append(new)
        x, logs = new, log_observation(kind, values, new, y[t])
    weights = np.exp(logs - np.logaddexp.reduce(logs, -1)[:, None])
    at, path = pick(rng, logs, 1), np.empty((repeats, len(y)))
    for t in range(len(y) - 1, -1, -1):
        path[:, t] = states[t][rows, at][:, 0]
        at = parents[t - 1][rows, at] if t else at
    return np.einsum("ri,rip->rp", weights, totals), path, evidence + np.logaddexp.reduce(logs, -1) - math.log(particles)


def gibbs_passes(rng, y, kind, values, functional, particles, iterations, draws=2, repeats=1, run=one_pass):
    """(estimates [iterations, repeats], last paths): pinned passes after one that is not."""
    _, path, _ = one_pass(rng, y, kind, values, functional, particles, draws, None, repeats)
    estimates = []
    for _ in range(iterations):
        estimate, path, _ = run(rng, y, kind, values, functional, particles, draws, path, repeats)
        estimates.append(estimate[:, 0])
    return np.array(estimates), path


def draw_smoothing(rng):
    kind = str(rng.choice(list(KINDS)))
    model = {"kind": kind, "parameters": rng.uniform(0.2, 0.9, KINDS[kind])}
    return {"observations": rng.normal(size=int(rng.integers(2, 20))), "model": model, "particles": int(rng.integers(2, 30)), "seed": int(rng.integers(1000))}


def draw_gibbs(rng):
    iterations = int(rng.integers(1, 8))
    return draw_smoothing(rng) | {"iterations": iterations, "burn_in": int(rng.integers(0, iterations))}


@paper.algorithm(
    r"\hat h = \frac{1}{k - k_0} \sum_{j = k_0 + 1}^k \sum_i w_i^{(j)} \tau_T^{i, (j)}",
    requires={"burn_in must be below iterations": lambda burn_in, iterations: burn_in < iterations},
    sample=draw_gibbs,
)
def ppg_smooth(
    observations: OBSERVATIONS,
    model: MODEL,
    particles: PARTICLES,
    iterations: count("passes", typical=(1, 20), doc="pinned passes k", example=8),
    burn_in: count("passes", low=0, typical=(0, 10), doc="passes k_0 that are left out of the mean", example=4),
    *,
    functional: FUNCTIONAL = "pair_product",
    backward_draws: BACKWARD = 2,
    seed: seed() = 0,
) -> record(estimate=real(), per_iteration=vector("k", doc="estimate of each pass"), path=vector("T", doc="a draw of the path")):
    """Expectation of a sum over the hidden path given the observations, by PaRIS within particle Gibbs."""
    kind, values = check_model(model)
    estimates, path = gibbs_passes(np.random.default_rng(seed), observations, kind, values, functional, particles, iterations, backward_draws)
    return {"estimate": float(estimates[burn_in:].mean()), "per_iteration": estimates[:, 0], "path": path[0]}


@paper.algorithm(
    r"\tau_t^i = \frac{1}{M} \sum_{j=1}^M \tau_{t-1}^{J_j} + \tilde h(x_{t-1}^{J_j}, x_t^i),\quad P(J = l) \propto w_{t-1}^l m(x_{t-1}^l, x_t^i)", sample=draw_smoothing
)
def paris_smooth(
    observations: OBSERVATIONS,
    model: MODEL,
    particles: PARTICLES,
    *,
    functional: FUNCTIONAL = "pair_product",
    backward_draws: BACKWARD = 2,
    seed: seed() = 0,
) -> record(estimate=real(), log_likelihood=real("nats")):
    """The same expectation by one pass without a pinned particle, and the likelihood of the observations."""
    kind, values = check_model(model)
    estimate, _, evidence = one_pass(np.random.default_rng(seed), observations, kind, values, functional, particles, backward_draws)
    return {"estimate": float(estimate[0, 0]), "log_likelihood": float(evidence[0])}


@paper.model(
    r"X | Y \sim N(g K S^{-1} Y, K - g^2 K S^{-1} K),\quad K_{ij} = \tfrac{s^2}{1 - a^2} a^{|i - j|},\ S = g^2 K + r^2 I",
    requires={"observations must be at most 2000: the covariance is dense": lambda observations: len(observations) <= 2000},
)
def linear_gaussian_smoother(
    observations: OBSERVATIONS,
    a: real(low=-1, high=1, above=True, below=True, typical=(-0.9, 0.99), doc="memory of the hidden state", example=0.97),
    state_sd: positive(typical=(0.1, 2), doc="noise of the state", example=0.6),
    gain: real(typical=(0.1, 2), doc="factor from the state to the observation", example=0.54),
    obs_sd: positive(typical=(0.1, 2), doc="noise of the observation", example=0.33),
) -> record(mean=vector("T"), covariance=matrix("T", "T"), pair_product=real(doc="expected sum of x_t x_{t+1}"), log_likelihood=real("nats")):
    """The smoothing law of the linear-Gaussian model, exactly."""
    y, lags = np.asarray(observations), np.arange(len(observations))
    prior = state_sd**2 / (1 - a**2) * a ** np.abs(lags[:, None] - lags)
    of_y = gain**2 * prior + obs_sd**2 * np.eye(len(y))
    mean, covariance = gain * prior @ np.linalg.solve(of_y, y), prior - gain**2 * prior @ np.linalg.solve(of_y, prior)
    log_likelihood = -0.5 * (y @ np.linalg.solve(of_y, y) + np.linalg.slogdet(of_y)[1] + len(y) * math.log(2 * math.pi))
    pairs = np.trace(covariance, 1) + mean[:-1] @ mean[1:]
    return {"mean": mean, "covariance": (covariance + covariance.T) / 2, "pair_product": float(pairs), "log_likelihood": float(log_likelihood)}


def learn(observations, model, start, steps, learning_rate, particles, seed, keep=slice(None)):
    """Ascent along the estimated score, of which `keep` says what is used."""
    kind, values = check_model(model, start)
    rng, y, recent = np.random.default_rng(seed), observations, []
    scales = np.array([False, True, False, True] if kind == "linear_gaussian" else [False, True, True])
    _, path, _ = one_pass(rng, y, kind, values, "sum", particles, 2)
    for step in range(steps):
        score, path, _ = one_pass(rng, y, kind, values, "score", particles, 2, path)
        used = np.zeros(len(values))
        used[keep] = learning_rate / len(y) * score[0, keep]
        slope = np.where(scales, values, 1.0)
        slope[0] = 1 - values[0] ** 2
        move = np.clip(used * slope, -0.5, 0.5)  # in atanh(a), logarithms of scales, and the gain as it is
        moved = np.where(scales, values * np.exp(move), values + move)
        moved[0] = np.clip(np.tanh(np.arctanh(values[0]) + move[0]), -1 + 1e-9, 1 - 1e-9)
        values = moved
        if step >= steps // 2:
            recent.append(values)
    return {"parameters": np.mean(recent, 0)}


def draw_learning(rng):
    given = draw_smoothing(rng)
    return given | {"start": given["model"]["parameters"], "steps": int(rng.integers(1, 20)), "learning_rate": 0.1}


@paper.algorithm(r"\theta \leftarrow \theta + \eta\, \widehat{E}[\nabla_\theta \log p_\theta(X, Y) | Y]", sample=draw_learning)
def ppg_learn(
    observations: OBSERVATIONS,
    model: MODEL,
    start: vector("parameters", of=real(typical=(0.1, 0.9)), doc="parameters to start from, in the order of the model's, which are not used", example=[0.9, 0.5, 0.5, 0.5]),
    steps: count("steps", typical=(1, 500), doc="steps, one pass each", example=50),
    learning_rate: positive(typical=(0.01, 0.5), doc="step size on the score of one observation", example=0.1),
    particles: PARTICLES,
    seed: seed(example=0),
) -> record(parameters=vector("parameters")):
    """Parameters of a state-space model by stochastic ascent of the likelihood, with the score from pinned passes."""
    return learn(observations, model, start, steps, learning_rate, particles, seed)


def record_data(rng, length, kind, values):
    """Observations that a model makes."""
    a, s = values[:2]
    x = np.empty(length)
    x[0] = rng.normal() * s / math.sqrt(1 - a**2)
    for t in range(1, length):
        x[t] = a * x[t - 1] + s * rng.normal()
    noise = rng.normal(size=length)
    return values[2] * x + values[3] * noise if kind == "linear_gaussian" else values[2] * np.exp(x / 2) * noise


def prior_not_stationary(observations, a, state_sd, gain, obs_sd):
    return linear_gaussian_smoother(observations, a, state_sd * math.sqrt(1 - a**2), gain, obs_sd)


@paper.trial(Identity(rtol=1e-8, atol=1e-10), of=[linear_gaussian_smoother], controls={"stationary variance s^2": prior_not_stationary}, quick=30, full=500)
def by_precisions(draw, smoother):
    """The smoothing law is that of the tridiagonal precision of the states plus the information of the observations, and the likelihood that of one state sequence divided out."""
    length, a, s, gain, r = draw.integer(2, 40), draw.uniform(-0.95, 0.98), draw.uniform(0.2, 2), draw.uniform(-2, 2), draw.uniform(0.2, 2)
    y = draw.normal(size=length)
    states = (np.diag(np.r_[1, np.full(length - 2, 1 + a**2), 1]) - a * np.eye(length, k=1) - a * np.eye(length, k=-1)) / s**2
    total = states + gain**2 / r**2 * np.eye(length)
    covariance = np.linalg.inv(total)
    mean = covariance @ y * gain / r**2
    log_volume = np.linalg.slogdet(states)[1] - np.linalg.slogdet(total)[1] - 2 * length * math.log(r) - length * math.log(2 * math.pi)
    log_likelihood = 0.5 * (log_volume - y @ y / r**2 + mean @ total @ mean)
    found = smoother(y, a, s, gain, r)
    pairs = sum(covariance[t, t + 1] + mean[t] * mean[t + 1] for t in range(length - 1))
    return [*mean, *covariance.ravel(), pairs, log_likelihood], [*found["mean"], *found["covariance"].ravel(), found["pair_product"], found["log_likelihood"]]


def by_weights_alone(*arguments, **more):
    """Backward draws that forget the transition."""
    return one_pass(*arguments, transition=False, **more)


def pinned_left_out(*arguments, **more):
    """Backward draws that cannot meet the pinned particle."""
    return one_pass(*arguments, backward_to_pinned=False, **more)


PARAMETERS = np.array(LINEAR["parameters"])


@paper.trial(Guarantee(), of=[paris_smooth], claim=one_pass, controls={"backward draws by weights alone": by_weights_alone}, quick=1, full=2)
def bias_of_one_pass(draw, run, effort):
    """The bias of PaRIS falls as N^-1, within .4 of that exponent, for 50 observations of the linear-Gaussian model and N from 5 to 20 (40)."""
    y = record_data(np.random.default_rng(draw.integer(0, 2**32)), 50, "linear_gaussian", PARAMETERS)
    truth, sizes, repeats = (
        linear_gaussian_smoother(y, *PARAMETERS)["pair_product"],
        np.array([5, 10, 20] if effort == "quick" else [5, 10, 20, 40]),
        1000 if effort == "quick" else 4000,
    )
    biases = [Estimate.of(run(draw.rng, y, "linear_gaussian", PARAMETERS, "pair_product", int(n), 2, None, repeats)[0][:, 0] - truth) for n in sizes]
    centred = np.log(sizes) - np.log(sizes).mean()
    shares = centred / (centred @ centred)
    slope = shares @ np.log([abs(b.value) for b in biases])
    error = np.sqrt(np.sum([(share * b.error / b.value) ** 2 for share, b in zip(shares, biases, strict=True)]))
    return Estimate(abs(slope + 1), error), 0.4, {"slope": slope, "biases": [b.value for b in biases]}


@paper.trial(Guarantee(), of=[ppg_smooth, paris_smooth], claim=one_pass, controls={"pinned particle left out of the backward draws": pinned_left_out}, quick=1, full=3)
def less_than_half_the_bias(draw, run, effort):
    """Eight pinned passes of five particles, four of them burn-in, leave less than half of the bias of PaRIS with five."""
    y = record_data(np.random.default_rng(draw.integer(0, 2**32)), 50, "linear_gaussian", PARAMETERS)
    truth, repeats = linear_gaussian_smoother(y, *PARAMETERS)["pair_product"], 800 if effort == "quick" else 6000
    given = (draw.rng, y, "linear_gaussian", PARAMETERS, "pair_product", 5)
    alone = Estimate.of(one_pass(*given, 2, None, 2 * repeats)[0][:, 0] - truth)
    gibbs = Estimate.of(gibbs_passes(*given, 8, repeats=repeats, run=run)[0][4:].mean(0) - truth)
    return Estimate(abs(gibbs.value), gibbs.error), Estimate(abs(alone.value) / 2, alone.error / 2), {"ppg": gibbs, "paris": alone}


@paper.trial(Distribution(), of=[ppg_smooth], claim=one_pass, controls={"pinned particle left out of the backward draws": pinned_left_out}, quick=1000, full=20_000)
def smoothing_law_is_kept(draw, run):
    """Paths drawn from the exact smoothing law still follow it after three pinned passes with five particles, at the first, the middle and the last time."""
    from scipy.stats import norm

    y = record_data(draw.rng, 24, "linear_gaussian", PARAMETERS)
    exact = linear_gaussian_smoother(y, *PARAMETERS)
    path = draw.rng.multivariate_normal(exact["mean"], exact["covariance"], draw.size, method="cholesky")
    for _ in range(3):
        _, path, _ = run(draw.rng, y, "linear_gaussian", PARAMETERS, "sum", 5, 2, path, draw.size)
    return {f"x_{t}": Sample(path[:, t], cdf=norm(exact["mean"][t], exact["covariance"][t, t] ** 0.5).cdf) for t in (0, 12, 23)}


def grid_smoother(y, kind, values, size=300):
    """Expected pair product, sum and sum of squares by forward and backward sums over a grid."""
    a, s = values[:2]
    spread = s / math.sqrt(1 - a**2)
    x = np.linspace(-6, 6, size) * spread
    step = np.exp(-0.5 * ((x - a * x[:, None]) / s) ** 2)
    seen = [np.exp(log_observation(kind, values, x, value)) for value in y]
    ahead, behind = [np.exp(-0.5 * (x / spread) ** 2) * seen[0]], [np.ones(size)]
    for t in range(1, len(y)):
        ahead.append(ahead[-1] @ step * seen[t])
        ahead[-1] /= ahead[-1].sum()
        behind.insert(0, step @ (seen[-t] * behind[0]))
        behind[0] /= behind[0].sum()
    sums = [np.array([(p * q) @ x, (p * q) @ x**2]) / (p @ q) for p, q in zip(ahead, behind, strict=True)]
    joint = [(ahead[t] * x) @ step @ (seen[t + 1] * behind[t + 1] * x) / (ahead[t] @ step @ (seen[t + 1] * behind[t + 1])) for t in range(len(y) - 1)]
    return dict(zip(("sum", "sum_sq", "pair_product"), (*np.sum(sums, 0), sum(joint)), strict=True))


@paper.trial(Identity(rtol=0.002), of=[ppg_smooth], claim=one_pass, controls={"backward draws by weights alone": by_weights_alone}, quick=2, full=12)
def both_models_on_a_grid(draw, run):
    """For both models and all functionals, pinned passes agree with sums over a grid of states."""
    kind, functional = draw.choice(list(KINDS)), draw.choice(["pair_product", "sum", "sum_sq"])
    values = np.array([draw.uniform(0.5, 0.95), draw.uniform(0.3, 0.8), draw.uniform(0.5, 1), draw.uniform(0.3, 0.8)])[: KINDS[kind]]
    y = record_data(draw.rng, 10, kind, values)
    estimates, _ = gibbs_passes(draw.rng, y, kind, values, functional, 20, 10, repeats=300, run=run)
    return Estimate.of(estimates[5:].mean(0)), grid_smoother(y, kind, values)[functional], {"kind": kind, "functional": functional}


def learn_transition_only(*arguments):
    return learn(*arguments, keep=slice(0, 2))


@paper.trial(Guarantee(), of=[ppg_learn], controls={"the score of the observations left out": learn_transition_only}, quick=1, full=3)
def learns_the_likelihood(draw, learner):
    """From a start with three times the noise, learning comes within 2 nats of the largest likelihood of 50 observations, which an optimiser finds."""
    from scipy.optimize import minimize

    y = record_data(np.random.default_rng(draw.integer(0, 2**32)), 50, "linear_gaussian", [0.9, 0.6, 1.0, 0.4])

    def loss(u):
        return -linear_gaussian_smoother(y, math.tanh(u[0]), math.exp(u[1]), u[2], math.exp(u[3]))["log_likelihood"]

    best = minimize(loss, [1.2, -0.5, 1.0, -1.0], method="Nelder-Mead", options={"maxiter": 800}).fun
    a, s, gain, r = learner(y, LINEAR, np.array([0.5, 0.6, 1.0, 1.2]), 150, 0.3, 15, draw.integer(0, 2**32))["parameters"]
    return -linear_gaussian_smoother(y, a, s, gain, r)["log_likelihood"], best + 2, {"parameters": [a, s, gain, r], "best": best}
