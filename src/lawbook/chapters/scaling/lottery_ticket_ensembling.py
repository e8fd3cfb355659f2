"""Wide networks as averages of small ones: the 1/N law of ensembling, the pair of neurons that squares its input, and tests that tell ensembling from approximation."""

import math

import numpy as np

from lawbook.contract import Paper, choice, count, matrix, nonnegative, positive, probability, real, record, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Coverage, Estimate, Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="A Neural Scaling Law from Lottery Ticket Ensembling",
    arxiv="2310.02258",
    tags=["scaling law", "lottery ticket", "ensemble", "width", "central limit theorem", "approximation theory", "bias and variance"],
    source="derived",
    says="""For a smooth function of one variable approximation theory expects the squared error of a network to fall with the fourth power of its size; trained networks are
    seen to fall with the first power. Small groups of neurons each solve the task up to an error of their own, and a wide network averages many of them, so that its error falls
    as the variance of a mean does, down to a bias that all share.""",
    notes="""Approximation theory gives 4/d for intrinsic dimension d; together A N^(-4/d) + B/N + C, where the middle term wins for large N below dimension 4. Bias, variance and
    gain of the same runs are tied by an identity, so the gain of the mean of all seeds is predicted here from the first half of them. That errors fall as 1/N is an observation:
    in our runs on x^2 medians over 8 seeds fall with .5 to .8 for SiLU and 1.7 to 1.8 for ReLU at widths from 8 to 256, both far from 4.""",
)


@paper.law(
    r"\mathrm{MSE}(k) = b^2 + \sigma^2 (\rho + (1-\rho)/k)",
    assumes=["Tickets of equal bias and variance with one correlation between any two errors."],
    closed_form=True,
    gives=0.11,
)
def ensemble_error(
    tickets: count("tickets", typical=(1, 1000), example=10),
    *,
    bias2: nonnegative(typical=(0, 1), example=0.01, doc="mean square of the error that all tickets share"),
    variance: nonnegative(typical=(0, 10), example=1.0, doc="of one ticket's own error"),
    correlation: probability(doc="between the errors of two tickets") = 0.0,
) -> nonnegative():
    """Expected squared error of the mean of some tickets."""
    _, k, b2, v, rho = arrays(tickets, bias2, variance, correlation)
    return b2 + v * (rho + (1 - rho) / k)


@paper.law(
    r"g_b(x) = \frac{2}{b^2} (\mathrm{SiLU}(bx) + \mathrm{SiLU}(-bx)) = \frac{2x}{b} \tanh\frac{bx}{2},\quad 0 \le x^2 - g_b(x) \le \frac{b^2 x^4}{12}",
    closed_form=True,
)
def ticket(x: vector("points", of=real(typical=(-1, 1)), example=[-1.0, -0.5, 0.0, 0.5, 1.0]), scale: positive(typical=(0.1, 4), example=1.0)) -> vector(
    "points", of=nonnegative()
):
    """What a pair of SiLU neurons with opposite input weights makes of x: its square, up to an error of fourth order in scale and x."""
    xp, x, b = arrays(x, scale)
    return 2 * x / b * xp.tanh(b * x / 2)


def log_slope(widths, errors):
    """Slopes of log median on log width, over the last axis of errors[..., widths, seeds]."""
    x = np.log(widths) - np.log(widths).mean()
    return np.log(np.median(errors, axis=-1)) @ x / (x @ x)


@paper.algorithm(
    r"\mathrm{med}_s E_{N,s} \propto N^{-\alpha}:\ \alpha \approx 1 \text{ or } 4/d",
    sample=lambda rng: {
        "widths": 2.0 ** np.arange(3, 7),
        "errors": rng.lognormal(0, 0.3, (4, int(rng.integers(2, 9)))) / 2 ** np.arange(3, 7)[:, None],
        "dim": int(rng.integers(1, 9)),
    },
)
def exponent_source(
    widths: vector("widths", of=positive("neurons"), least=2, order="increasing", example=[8, 16, 32, 64]),
    errors: matrix("widths", "seeds", of=positive(), least=2, example=np.array([[0.12, 0.13, 0.11], [0.065, 0.06, 0.062], [0.033, 0.03, 0.031], [0.015, 0.016, 0.014]])),
    dim: count("dimensions", typical=(1, 8), example=1, doc="intrinsic dimension of the inputs"),
) -> record(alpha=real(), ci=vector(2), verdict=choice("ensembling", "approximation", "both", "neither", doc="which of 1 and 4/d the interval holds")):
    """Exponent of the median error in width, its central 95 % when seeds are resampled, and whether ensembling or approximation explains it."""
    alpha = -float(log_slope(widths, errors))
    draws = np.random.default_rng(0).integers(errors.shape[1], size=(1000, *errors.shape))
    ci = np.quantile(-log_slope(widths, errors[np.arange(len(widths))[:, None], draws]), [0.025, 0.975])
    held = tuple(bool(ci[0] <= exponent <= ci[1]) for exponent in (1, 4 / dim))
    return {"alpha": alpha, "ci": ci, "verdict": {(True, True): "both", (True, False): "ensembling", (False, True): "approximation", (False, False): "neither"}[held]}


def decomposition(outputs, target):
    """Unbiased squared bias and variance over the seeds, averaged over points."""
    variance = float(outputs.var(0, ddof=1).mean())
    return float(((outputs.mean(0) - target) ** 2).mean()) - variance / len(outputs), variance


@paper.measure(r"\mathrm{gain} = \frac{\overline{\mathrm{MSE}(f_s)}}{\mathrm{MSE}(\bar f)} \text{ vs } \frac{b^2 + \sigma^2}{b^2 + \sigma^2/S}")
def ensembling_test(
    outputs: matrix(
        "seeds", "points", of=real(), least=2, example=np.array([[0.1, 1.1, 3.9], [-0.1, 0.9, 4.2], [0.2, 1.0, 4.1], [0.0, 1.2, 3.8]]), doc="of runs that differ in their seed"
    ),
    target: vector("points", of=real(), least=2, example=[0.0, 1.0, 4.0]),
) -> record(
    bias2=real(doc="unbiased, so that it may fall below 0"),
    variance=nonnegative(),
    predicted_gain=nonnegative(doc="from the first half of the seeds, two at least, for the mean of all of them"),
    measured_gain=nonnegative(infinite=True),
):
    """Bias and variance over seeds, and how much the mean of all runs gains over one run, beside what half of the seeds foretell."""
    seeds = len(outputs)
    bias2, variance = decomposition(outputs, target)
    shared, own = decomposition(outputs[: max(seeds // 2, 2)], target)
    shared = max(shared, 0.0)
    single, mean = float(((outputs - target) ** 2).mean()), float(((outputs.mean(0) - target) ** 2).mean())
    predicted = (shared + own) / float(ensemble_error(seeds, bias2=shared, variance=own)) if shared + own > 0 else 1.0
    return {"bias2": bias2, "variance": variance, "predicted_gain": predicted, "measured_gain": single / mean if mean > 0 else math.inf if single > 0 else 1.0}


def silu(z):
    """SiLU and its derivative, safe from overflow."""
    sigmoid = 0.5 + 0.5 * np.tanh(0.5 * z)
    value = z * sigmoid
    return value, sigmoid + value * (1 - sigmoid)


def relu(z):
    return np.maximum(z, 0), (z > 0).astype(float)


@paper.model(r"f(x) = \sum_i a_i \phi(w_i x + b_i) + c \text{ fitted to } x^2 \text{ on } [-1, 1] \text{ by Adam}")
def train_width_sweep(
    widths: vector("widths", of=count("neurons", typical=(2, 16), high=4096), example=[8, 16], most=2),
    *,
    activation: choice("silu", "relu") = "silu",
    seeds: count("seeds", typical=(1, 4), high=1000, example=2) = 8,
    steps: count("steps", typical=(10, 100), example=300) = 3000,
    seed: seed() = 0,
) -> matrix("widths", "seeds", of=nonnegative()):
    """Test errors of one-hidden-layer networks of several widths and seeds, fitted to x^2 at 200 points by full-batch Adam with a learning rate from 1e-2 down to 1e-4."""
    x = np.linspace(-1, 1, 200)
    test, phi, rng = (x[1:] + x[:-1]) / 2, {"silu": silu, "relu": relu}[activation], np.random.default_rng(seed)
    errors = []
    for width in widths:
        scale = np.array([1, 0.5, 1 / math.sqrt(width)])
        # input weights, biases, output weights of every seed; last the output biases
        weights = np.concatenate([(rng.normal(size=(seeds, 3, width)) * scale[:, None]).reshape(seeds, -1), np.zeros((seeds, 1))], 1)
        first, second = np.zeros_like(weights), np.zeros_like(weights)

        def outputs(points, weights=weights, width=width):
            w, b, a = weights[:, :-1].reshape(seeds, 3, 1, width).swapaxes(0, 1)
            hidden, slope = phi(points[:, None] * w + b)
            return (hidden @ a.swapaxes(1, 2))[:, :, 0] + weights[:, -1:], hidden, slope, a

        for step in range(steps):
            f, hidden, slope, a = outputs(x)
            pull = 2 / len(x) * (f - x**2)
            back = pull[:, :, None] * slope
            gradient = np.concatenate([x @ back * a[:, 0], back.sum(1) * a[:, 0], (pull[:, None] @ hidden)[:, 0], pull.sum(1, keepdims=True)], 1)
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient**2 - second)
            rate = 1e-2 * 1e-2 ** (step / max(steps - 1, 1))
            weights -= rate * first / (1 - 0.9 ** (step + 1)) / (np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8)
        errors.append(((outputs(test)[0] - test**2) ** 2).mean(1))
    return np.array(errors)


def one_neuron_pair_unscaled(x, scale):
    return ticket(x, scale) / 2


@paper.trial(Identity(rtol=1e-12, atol=1e-15), of=[ticket], controls={"without the factor 2": one_neuron_pair_unscaled}, quick=100, full=10_000)
def two_neurons(draw, claim):
    """Two SiLU neurons, written out, give the ticket."""
    from scipy.special import expit

    x, b = draw.uniform(0.01, 5) * draw.choice([-1, 1]), draw.log_uniform(1e-2, 100)
    return 2 / b**2 * (b * x * expit(b * x) - b * x * expit(-b * x)), claim(x, b), {"x": x, "scale": b}


def relu_pair(x, scale):
    """A pair of ReLU neurons, the square root of what is wanted."""
    return np.abs(x) * 2 / scale


@paper.trial(Inequality(atol=1e-15, reaches=0.99), of=[ticket], controls={"a pair of ReLU neurons": relu_pair}, quick=100, full=2000)
def squares(draw, claim):
    """The ticket stays below x^2, by at most b^2 x^4 / 12, which it comes to for small b x."""
    x, b = draw.uniform(0.05, 1), draw.log_uniform(1e-2, 2)
    short = x**2 - claim(x, b)
    return np.array([short, -short]), np.array([b**2 * x**4 / 12 + 1e-14, 0.0]), {"x": x, "scale": b}


def independent(tickets, *, bias2, variance, correlation):
    return ensemble_error(tickets, bias2=bias2, variance=variance)


@paper.trial(Identity(rtol=0.1), of=[ensemble_error, ensembling_test], controls={"every ticket independent": independent}, quick=8, full=200)
def averaged(draw, claim):
    """Means of correlated tickets have the error that the law says; over seeds the decomposition finds shared and own errors, and half of them foretell the gain."""
    k, rho, variance, shared = draw.choice([2, 5, 20]), draw.uniform(0.1, 0.9), draw.log_uniform(0.1, 1), draw.uniform(0.5, 1.5)
    points = np.arange(200)
    target, offset = np.sin(points), shared * np.cos(points)
    common, own = draw.rng.normal(size=(200, 1, 200)), draw.rng.normal(size=(200, max(k, 4), 200))
    f = target + offset + math.sqrt(variance) * (math.sqrt(rho) * common + math.sqrt(1 - rho) * own)
    error = ((f[:, :k].mean(1) - target) ** 2).mean(1)
    found = [ensembling_test(outputs, target) for outputs in f]
    free = ensembling_test(f[:, 0], target)  # one ticket of each copy: nothing in common
    rows = np.column_stack([error, [t["bias2"] for t in found], [t["variance"] for t in found], np.full((200, 2), [free["predicted_gain"], free["measured_gain"]])])
    bias2 = float((offset**2).mean())
    gain = (bias2 + variance) / claim(200, bias2=bias2, variance=variance, correlation=0.0)
    said = [claim(k, bias2=bias2, variance=variance, correlation=rho), bias2 + variance * rho, variance * (1 - rho), gain, gain]
    return Estimate.of(rows), said, {"tickets": k, "correlation": rho}


def of_root_error(widths, errors, dim):
    return exponent_source(widths, np.sqrt(errors), dim)


@paper.trial(Coverage(at_most=0.15, detect=0.35), of=[exponent_source], controls={"exponent of the root error": of_root_error}, quick=150, full=1000)
def interval_covers(draw, claim):
    """The interval of the exponent misses that of made-up errors in at most 15 % of cases, and the verdict names the theory whose exponent it was."""
    theory, dim = draw.choice(["ensembling", "approximation"]), draw.choice([1, 2, 8])
    widths, exponent = 2.0 ** np.arange(3, 9), 1.0 if theory == "ensembling" else 4 / dim
    errors = draw.log_uniform(1e-3, 1) * widths[:, None] ** -exponent * draw.rng.lognormal(0, 0.3, (6, 12))
    found = claim(widths, errors, dim)
    return bool(not found["ci"][0] <= exponent <= found["ci"][1] or found["verdict"] not in (theory, "both"))


def as_approximation_theory_says(widths, *, activation, seeds, steps, seed):
    return np.asarray(widths)[:, None] ** -4.0 * np.ones(seeds)


@paper.trial(Guarantee(), of=[train_width_sweep, exponent_source], controls={"errors of approximation theory": as_approximation_theory_says}, quick=1, full=1)
def shallower_than_approximation(draw, claim, effort):
    """The median error of trained networks falls more slowly than width^-2, where approximation theory says width^-4; in the full trial that of ReLU networks too."""
    full = effort == "full"
    widths, options = (2 ** np.arange(3, 9), {"seeds": 8, "steps": 3000}) if full else (2 ** np.arange(3, 6), {"seeds": 4, "steps": 400})
    found = {name: exponent_source(widths, claim(widths, activation=name, seed=draw.integer(0, 1000), **options), 1) for name in (("silu", "relu") if full else ("silu",))}
    return [told["alpha"] for told in found.values()], [2.0 for _ in found], {f"{name}_{key}": told[key] for name, told in found.items() for key in ("ci", "verdict")}
