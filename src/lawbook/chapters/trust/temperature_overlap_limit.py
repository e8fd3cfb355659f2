"""What no temperature can repair: the calibration error that is left where a model is equally sure of clean points and of points where classes overlap."""

import numpy as np

from lawbook.contract import DomainError, Paper, caution, count, distribution, integer, matrix, nonnegative, positive, probability, record, seed, vector
from lawbook.numerics import arrays, bracketed_root, logsumexp, special
from lawbook.trials import Identity, Rate

paper = Paper(
    __name__,
    title="On the Limitations of Temperature Scaling for Distributions with Overlaps",
    arxiv="2306.00740",
    tags=["calibration", "temperature scaling", "label noise", "overlap", "interpolation", "expected calibration error", "mixup"],
    source="derived",
    says="""A model that fits noisy labels perfectly is as sure on points where classes overlap as on clean ones, so that one temperature cannot serve both. As the number of
    classes grows, the calibration error that is left grows like its logarithm, the same order as that of a uniform guess; methods that see mixed labels while training escape
    this.""",
    notes="""The paper treats general interpolating models and minimisers of Mixup; the model here is the simplest exact one with its message, derived here: every prediction has
    the same margin, on one of the possible classes. The divergence of a prediction from the true law of the label is meant, not the top-label error that is usually reported.""",
)

CLASSES = count("classes", low=2, typical=(2, 10_000), doc="k", example=100)
OVERLAP = probability(doc="rho: share of the points where several classes are equally likely", example=0.4)


@paper.law(
    r"\min_c F = h(a) + (1-a) \log(k-1) - \rho \log m \text{ at } c = a = 1 - \rho + \frac{\rho}{m},\quad F_{\mathrm{uniform}} = \log k - \rho \log m",
    requires={"tied_classes must be at most classes": lambda tied_classes, classes: tied_classes <= classes},
    sample=lambda rng: {"overlap": float(rng.uniform()), "tied_classes": int(rng.integers(2, 5)), "classes": int(rng.integers(5, 10_000))},
    closed_form=True,
    assumes=["Each point gets the same logit margin on one of its possible classes, all other logits being equal."],
)
def temperature_floor(
    overlap: OVERLAP, tied_classes: count("classes", low=2, typical=(2, 5), doc="m: classes that are equally likely there", example=2), classes: CLASSES
) -> record(
    kl=nonnegative("nats", doc="mean divergence of the best-tempered prediction from the true law of labels"),
    confidence=probability(doc="of the prediction then"),
    accuracy=probability(),
    uniform_kl=nonnegative("nats", doc="the same divergence of a uniform guess"),
):
    """Calibration error that every temperature leaves, and that of a uniform guess beside it."""
    xp, rho, m, k = arrays(overlap, tied_classes, classes)
    xlogy = special(xp, "xlogy")
    wrong = rho * (1 - 1 / m)
    right = 1 - wrong
    # from xlogy(x, 1): the entropy of a certain answer is 0, with a finite slope
    entropy = -right * xp.log(right) - xlogy(wrong, xp.where(wrong > 0, wrong, 1.0))
    floor = entropy + wrong * xp.log(k - 1) - rho * xp.log(m)
    return {"kl": xp.where(floor > 0, floor, 0.0), "confidence": right, "accuracy": right, "uniform_kl": xp.log(k) - rho * xp.log(m)}


@paper.law(r"T^* = \frac{D}{\log \frac{a (k-1)}{1-a}}", closed_form=True, assumes=["All predictions have the same margin between the chosen class and all others."])
def optimal_temperature(
    accuracy: probability(example=0.8, doc="a"), classes: CLASSES, margin: positive(typical=(0.1, 50), doc="D: logit of the chosen class less that of the others", example=10.0)
) -> nonnegative(infinite=True, doc="0 for perfect accuracy, infinite where accuracy is no better than chance"):
    """Temperature that makes the confidence of constant-margin predictions equal to their accuracy."""
    xp, a, k, margin = arrays(accuracy, classes, margin)
    inside = (a * k > 1) & (a < 1)
    safe = xp.where(inside, a, 1 - 0.5 / k)
    found = margin / (xp.log(safe) + xp.log(k - 1) - xp.log1p(-safe))
    return xp.where(inside, found, xp.where(a * k > 1, 0.0, xp.inf))


def by_rows(logits, labels, most=4_000_000):
    """Logits less the largest of their row, with labels, in blocks that fit into memory."""
    rows = max(1, most // logits.shape[1])
    for start in range(0, len(logits), rows):
        z = np.asarray(logits[start : start + rows], float)
        yield z - z.max(1, keepdims=True), labels[start : start + rows]


@paper.algorithm(
    r"\sum_i \Big[z_i(y_i) - \mathrm{E}_{\mathrm{softmax}(z_i/T)} z_i\Big] = 0",
    requires={
        "labels must lie below the number of columns of logits": lambda logits, labels: labels.max() < logits.shape[1],
        "logits must differ within a row": lambda logits: bool((logits != logits[:, :1]).any()),
    },
    sample=lambda rng: {"logits": rng.normal(0, 3, (n := int(rng.integers(5, 30)), k := int(rng.integers(2, 6)))), "labels": rng.integers(0, k, n)},
)
def fit_temperature(
    logits: matrix("n", "k", doc="of the classes, for each held-out point", example=[[5, 0, 0], [0, 4, 1], [6, 1, 0], [0, 0, 5], [3, 0, 2]]),
    labels: vector("n", of=integer(low=0), doc="true class of each point, from 0", example=[0, 1, 2, 2, 0]),
) -> record(temperature=positive(doc="from 1e-4 to 1e4"), nll_before=nonnegative("nats", doc="mean negative log-likelihood at temperature 1"), nll_after=nonnegative("nats")):
    """Temperature of least negative log-likelihood on held-out data."""
    z, y = np.asarray(logits, float), np.asarray(labels)

    def slope(log_beta):
        """Mean of z(y) - E z at the inverse temperature: falls, as the likelihood is concave in it."""
        total = 0.0
        for block, truth in by_rows(z, y):
            weights = np.exp(np.exp(log_beta) * block)
            total += float((block[np.arange(len(block)), truth] - (weights * block).sum(1) / weights.sum(1)).sum())
        return total / len(z)

    def nll(beta):
        return sum(float((logsumexp(np, beta * block) - beta * block[np.arange(len(block)), truth]).sum()) for block, truth in by_rows(z, y)) / len(z)

    low, high = np.log(1e-4), np.log(1e4)
    if slope(high) >= 0:
        caution("Every label has the largest logit: the likelihood rises for ever as the temperature falls, and the smallest one allowed is given.")
        beta = 1e4
    elif slope(low) <= 0:
        caution("The logits say no more than chance about the labels: the largest temperature allowed is given.")
        beta = 1e-4
    else:
        beta = float(np.exp(bracketed_root(slope, low, high, rtol=1e-13)))
    return {"temperature": 1 / beta, "nll_before": max(nll(1.0), 0.0), "nll_after": max(nll(beta), 0.0)}


@paper.model(
    r"y \sim U\{0..k-1\},\quad x = \mu_{\lfloor y/2 \rfloor}^{\mathrm{pair}}\ (\text{probability } \rho) \text{ or } \mu_y,\ + \tfrac{1}{10} N(0, I),\quad \mu \sim 10\, N(0, I)",
    requires={"classes must be even": lambda classes: classes % 2 == 0},
)
def overlap_data(
    samples: count("", typical=(10, 1000), example=200),
    dim: count("", typical=(1, 16), high=10_000, example=8),
    classes: count("classes", low=2, typical=(2, 20), high=100_000, example=10),
    overlap: OVERLAP,
    seed: seed() = 0,
) -> record(x=matrix("samples", "dim"), labels=vector("samples", of=integer(low=0)), true_probabilities=distribution("samples", "classes")):
    """Labelled points of a law whose classes overlap in pairs (m = 2), with the true law of each label."""
    if samples * classes > 1e9:
        raise DomainError(f"samples times classes must be at most 1e9 here, for the table of true probabilities; it was {samples * classes:.3g}.")
    rng = np.random.default_rng(seed)
    own, pair = 10 * rng.normal(size=(classes, dim)), 10 * rng.normal(size=(classes // 2, dim))
    labels, shared = rng.integers(0, classes, samples), rng.uniform(size=samples) < overlap
    x = np.where(shared[:, None], pair[labels // 2], own[labels]) + 0.1 * rng.normal(size=(samples, dim))
    truth, rows = np.zeros((samples, classes)), np.arange(samples)
    truth[rows, labels] = np.where(shared, 0.5, 1.0)
    truth[rows, labels ^ 1] += np.where(shared, 0.5, 0.0)
    return {"x": x, "labels": labels, "true_probabilities": truth}


def without_the_label_entropy(overlap, tied_classes, classes):
    found = temperature_floor(overlap, tied_classes, classes)
    return {key: value + overlap * np.log(tied_classes) * (key in ("kl", "uniform_kl")) for key, value in found.items()}


def softmax_of_two(accuracy, classes, margin):
    return margin / np.log(accuracy / (1 - accuracy))


@paper.trial(
    Identity(rtol=1e-7, atol=1e-9),
    of=[temperature_floor, optimal_temperature],
    claim=(temperature_floor, optimal_temperature),
    controls={
        "cross-entropy for divergence": (without_the_label_entropy, optimal_temperature),
        "temperature of two classes": (temperature_floor, softmax_of_two),
    },
    quick=40,
    full=1000,
)
def best_temperature_by_search(draw, claim):
    """The mean divergence, summed over explicit laws of clean and overlapping points, is minimised over the temperature by search."""
    from scipy.optimize import minimize_scalar

    rho, m, k, margin = draw.choice([0.2, 0.4, draw.uniform(0.01, 1)]), draw.choice([2, 3]), draw.choice([10, 100, 10_000]), draw.log_uniform(0.5, 50)
    truth = np.zeros((2, k))
    truth[0, 0], truth[1, :m] = 1, 1 / m

    def divergence(log_temperature):
        z = np.append(margin, np.zeros(k - 1)) / np.exp(log_temperature)
        log_p = z - logsumexp(np, z)
        return (1 - rho) * -log_p[0] + rho * (-np.log(m) - np.mean(log_p[:m]))

    found = minimize_scalar(divergence, bounds=(np.log(margin / 40), np.log(margin) + 3), method="bounded", options={"xatol": 1e-10})
    floor, temperature = claim
    stated = floor(rho, m, k)
    flat = np.full(k, 1 / k)
    uniform = sum(w * np.sum(t[t > 0] * np.log(t[t > 0] / flat[t > 0])) for w, t in ((1 - rho, truth[0]), (rho, truth[1])))
    searched = temperature(stated["accuracy"], k, margin)
    return [found.fun, divergence(np.log(searched)), uniform], [stated["kl"], stated["kl"], stated["uniform_kl"]], {"overlap": rho, "classes": k, "temperature": np.exp(found.x)}


@paper.trial(
    Rate(within=1e-3, axes="linear"),
    of=[temperature_floor],
    controls={"floor of the uniform guess": lambda *given: {"kl": temperature_floor(*given)["uniform_kl"]}},
    quick=20,
    full=200,
)
def grows_like_log_classes(draw, claim):
    """The floor grows by 1 - a for each unit of log k, a being the accuracy: a fixed share of what the uniform guess loses."""
    rho, m, sizes = draw.uniform(0.1, 1), draw.integer(2, 5), np.logspace(4, 9, 6)
    floors = np.array([float(claim(rho, m, k)["kl"]) for k in sizes])
    return np.log(sizes / sizes[0]), (floors - floors[0]) / (1 - temperature_floor(rho, m, 10)["accuracy"]), 1.0


def confidence_is_accuracy(logits, labels):
    """The temperature at which mean confidence is accuracy: no top-label calibration error on average."""
    accuracy = np.mean(logits.argmax(1) == labels)

    def excess(log_t):
        z = logits / np.exp(log_t)
        return np.mean(np.exp(z.max(1) - logsumexp(np, z))) - accuracy

    return {"temperature": float(np.exp(bracketed_root(excess, -8, 8)))}


@paper.trial(Identity(rtol=1e-6), of=[fit_temperature], controls={"confidence matched to accuracy": confidence_is_accuracy}, quick=15, full=300)
def likelihood_by_search(draw, claim):
    """SciPy's minimum of the negative log-likelihood over the temperature, from logits whose margins vary."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    n, k = draw.integer(200, 500), draw.integer(2, 8)
    z = draw.log_uniform(0.3, 5) * draw.rng.normal(size=(n, k)) * draw.rng.exponential(size=(n, 1))
    y = (draw.log_uniform(0.3, 3) * np.sign(z) * np.abs(z) ** 0.5 + draw.rng.gumbel(size=(n, k))).argmax(1)

    def nll(log_t):
        return -log_softmax(z / np.exp(log_t), axis=1)[np.arange(n), y].mean()

    best = minimize_scalar(nll, bounds=(-6, 6), method="bounded", options={"xatol": 1e-9})
    found = claim(z, y)
    return [nll(0), best.fun, nll(np.log(found["temperature"]))], [found.get("nll_before", nll(0)), found.get("nll_after", best.fun), best.fun], {"temperature": np.exp(best.x)}


def nearest(classes, neighbours, seed):
    """Shares of the classes among the nearest neighbours in the first half of the data of each point in the second, whose true law and labels follow."""
    from scipy.spatial import cKDTree

    data = overlap_data(6000, 8, classes, 0.4, seed)
    known, held = data["labels"][:3000], data["true_probabilities"][3000:]
    found = cKDTree(data["x"][:3000]).query(data["x"][3000:], neighbours)[1].reshape(3000, -1)
    shares = np.mean(np.eye(classes)[known[found]], axis=1)
    return shares, held, data["labels"][3000:]


def divergence_from(held, log_p):
    terms = np.where(held > 0, held, 1.0)
    return float(np.mean(np.sum(held * (np.log(terms) - log_p), axis=1)))


def what_calibration_says(overlap, tied_classes, classes):
    """The top-label calibration error, which vanishes at the best temperature, taken for the divergence."""
    return temperature_floor(overlap, tied_classes, classes) | {"kl": 0.0}


@paper.trial(
    Identity(rtol=0.1), of=[temperature_floor, overlap_data, fit_temperature], controls={"top-label calibration error for the divergence": what_calibration_says}, quick=1, full=5
)
def nearest_neighbours_meet_the_floor(draw, claim):
    """One-nearest-neighbour predictions with margin 10, tempered on held-out data, are as far from the true law of labels as the floor says, for 10 and 100 classes."""
    measured, stated = [], []
    for classes in (10, 100):
        shares, held, labels = nearest(classes, 1, draw.integer(0, 10**6))
        temperature = fit_temperature(10 * shares, labels)["temperature"]
        logits = 10 * shares / temperature
        measured.append(divergence_from(held, logits - logsumexp(np, logits)[:, None]))
        stated.append(float(claim(0.4, 2, classes)["kl"]))
    return measured, stated


@paper.finding(
    """Top-label calibration hides what overlap leaves: after the fit its error is nought on one-nearest-neighbour predictions of 10 classes, while they are .66 nats from the true
    law of labels. The frequencies among 20 neighbours, which see both labels where classes overlap, come to a fortieth of that.""",
    trial=nearest_neighbours_meet_the_floor,
)
def calibration_error_hides_the_floor():
    shares, held, labels = nearest(10, 1, 0)
    logits = 10 * shares / fit_temperature(10 * shares, labels)["temperature"]
    log_p = logits - logsumexp(np, logits)[:, None]
    top = float(abs(np.exp(log_p.max(1)).mean() - np.mean(log_p.argmax(1) == labels)))  # one confidence for all points: one bin
    counts = 20 * nearest(10, 20, 0)[0] + 0.01
    floor, left, seen = float(temperature_floor(0.4, 2, 10)["kl"]), divergence_from(held, log_p), divergence_from(held, np.log(counts / counts.sum(1, keepdims=True)))
    return {"holds": top < 1e-6 and left > 0.9 * floor and seen < left / 10, "calibration_error": top, "divergence": left, "floor": floor, "neighbours_20": seen}
