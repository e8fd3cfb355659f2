"""The condition number of a weight matrix: what it costs in entropy, and which tensors to fine-tune."""

import math

import numpy as np

from lawbook.contract import Paper, array, caution, count, either, listing, matrix, nonnegative, optional, positive, real, record, table, text, vector
from lawbook.numerics import arrays
from lawbook.numerics.singular import singular_values as spectrum_of
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="The Condition Number as a Scale-Invariant Proxy for Information Encoding in Neural Units",
    arxiv="2506.16289",
    tags=["fine-tuning", "condition number", "entropy", "forgetting", "weights", "singular values", "lora", "checkpoint"],
    source="code",
    says="""A weight matrix with unequal singular values passes on less differential entropy than a rounder one of the same size, so that a high condition number hints at a
    specialised unit. KappaTune therefore fine-tunes only the tensors with the smallest condition numbers, to learn new data and disturb specialised units least, without any
    of the data of pre-training.""",
    notes="""The sharp bound with its term log cosh(log kappa) is derived here; the paper states the link in words. The authors' code takes a batched SVD of tensors with more
    than two axes and divides two entries of the batch, which is no condition number: such tensors are flattened to (out, rest) here. Shape alone drives kappa, so the report
    gives beside it what random entries of the same shape have. That tuning small kappas forgets less is empirical: see the findings.""",
)

VALUES = vector("k", of=nonnegative(scale="log", typical=(0.1, 3)), doc="its min(m, n) singular values, where they are known already")
WEIGHT = either(
    matrix("m", "n"), array("o", "i", "l", most=3), array("o", "i", "h", "w", most=3), doc="beyond two axes it is flattened to (out, rest)", example=[[2.0, 1.0], [0.0, 1.0]]
)
KNOWN = {
    "singular_values must be as many as the smaller side of matrix": lambda matrix, singular_values: singular_values is None or len(singular_values) == min(flat(matrix).shape)
}


def flat(weight):
    weight = np.asarray(weight)
    return weight.reshape(len(weight), -1)


def spectrum(weight, known):
    """(singular values, largest first; how many of them are not rounding noise)."""
    a = flat(weight)
    values = spectrum_of(a) if known is None else np.sort(np.asarray(known, float))[::-1]
    return values, int(np.sum(values > max(a.shape) * np.finfo(float).eps * values[0]))


@paper.measure(r"\kappa = s_1 / s_r", requires=KNOWN, gives=2.618)
def condition_number(matrix: WEIGHT, *, singular_values: VALUES = None) -> real(low=1, infinite=True, doc="infinite where rank is missing"):
    """Ratio of the largest to the smallest singular value, whatever the scale."""
    values, rank = spectrum(matrix, singular_values)
    return float(values[0] / values[-1]) if rank == len(values) else math.inf


@paper.law(r"h(Wx) = \tfrac{r}{2} \ln(2\pi e) + \sum_{i \le r} \ln s_i,\quad x \sim N(0, I)", requires=KNOWN, gives=3.531)
def gaussian_output_entropy(matrix: WEIGHT, *, singular_values: VALUES = None) -> real("nats"):
    """Differential entropy of the output for standard Gaussian inputs; of a matrix that is not invertible, the entropy on its image, with as many dimensions as its rank."""
    values, rank = spectrum(matrix, singular_values)
    shape = flat(matrix).shape
    if not shape[0] == shape[1] == rank:
        caution(f"The matrix of shape {list(shape)} and rank {rank} is not invertible: this is the entropy on its image of {rank} dimensions.")
    return float(rank / 2 * math.log(2 * math.pi * math.e) + np.log(values[:rank]).sum())


@paper.bound(
    r"\sum_i \ln s_i \le \tfrac{n}{2} \ln \tfrac{F^2}{n} - \ln \cosh(\ln \kappa)",
    requires={"condition must be 1 where dim is 1": lambda dim, condition: dim > 1 or condition == 1},
    sample=lambda rng: {"dim": int(rng.integers(2, 50)), "squared_norm": float(rng.uniform(0.1, 10)), "condition": float(rng.uniform(1, 20))},
    closed_form=True,
)
def log_volume_upper(
    dim: count("dimensions", typical=(2, 1000), example=3),
    squared_norm: positive(typical=(0.01, 1e4), doc="sum of the squared singular values", example=3.0),
    condition: real(low=1, typical=(1, 1e3), scale="log", example=10.0),
) -> real("nats"):
    """Largest sum of log singular values, the entropy that the matrix can add, at a given size and condition number. Attained: the middle ones are the root mean square."""
    xp, n, square, kappa = arrays(dim, squared_norm, condition)
    u = xp.log(kappa)
    return n / 2 * xp.log(square / n) - (u + xp.log1p(xp.exp(-2 * u)) - math.log(2))


@paper.measure(r"\tfrac{n}{2} \ln \tfrac{F^2}{n} - \sum_i \ln s_i", requires=KNOWN)
def entropy_deficit(matrix: WEIGHT, *, singular_values: VALUES = None) -> nonnegative("nats", infinite=True, doc="infinite where rank is missing"):
    """Entropy that a matrix loses to one of the same size with equal singular values; at least ln cosh(ln kappa)."""
    values, rank = spectrum(matrix, singular_values)
    if rank < len(values):
        return math.inf
    ratios = values / values[0]
    return max(0.0, float(len(values) / 2 * math.log(np.mean(ratios**2)) - np.log(ratios).sum()))


def draw_conditions(rng):
    n = int(rng.integers(1, 8))
    return {"names": [f"layer {i}" for i in range(n)], "conditions": rng.uniform(1, 9, n), "count": int(rng.integers(1, n + 1))}


@paper.algorithm(
    r"\text{the } \texttt{count} \text{ smallest } \kappa",
    requires={
        "conditions must be as many as names": lambda names, conditions: len(names) == len(conditions),
        "count must be at most the number of names": lambda names, count: count <= len(names),
    },
    sample=draw_conditions,
    gives={"threshold": 30.0},
)
def kappa_select(
    names: listing(text(), least=1, example=["q_proj", "k_proj", "up_proj", "o_proj"]),
    conditions: vector("n", of=real(low=1, infinite=True), doc="condition number of each", example=[120.0, 30.0, 55.0, 12.0]),
    count: count("tensors", example=2),
) -> record(selected=listing(text()), threshold=real(low=1, infinite=True, doc="largest condition number selected")):
    """Tensors to fine-tune: those with the smallest condition numbers, those first; of equal ones the first given."""
    conditions = np.asarray(conditions, float)
    order = np.argsort(conditions, kind="stable")[:count]
    return {"selected": [names[i] for i in order], "threshold": float(conditions[order[-1]])}


@paper.algorithm(r"\kappa,\quad \tfrac{n}{2} \ln \tfrac{F^2}{n} - \sum_i \ln s_i,\quad F^2 / s_1^2")
def kappa_report(
    weights: listing(
        record(name=text(), matrix=WEIGHT, singular_values=optional(VALUES)),
        least=1,
        example=[{"name": "round", "matrix": [[1.0, 0.2], [0.0, 1.0]]}, {"name": "flat", "matrix": [[9.0, 1.0], [1.0, 1.0]]}],
    ),
) -> table(
    name=text(),
    rows=count("rows"),
    columns=count("columns"),
    kappa=real(low=1, infinite=True),
    random_kappa=real(low=1, doc="typical of random entries of this shape"),
    deficit=nonnegative("nats", infinite=True),
    stable_rank=real(low=1 - 1e-9, nan=True, doc="squared norm over its largest part; NaN for a matrix of zeros"),
):
    """Condition number, entropy deficit and stable rank of each tensor, beside the condition number of noise: one set of singular values a tensor."""
    rows = []
    for layer in weights:
        a = flat(layer["matrix"])
        values, _ = spectrum(a, layer.get("singular_values"))
        low, high = sorted(a.shape)
        root = math.sqrt(low / high)
        rows.append(
            {
                "name": layer["name"],
                "rows": a.shape[0],
                "columns": a.shape[1],
                "kappa": condition_number(a, singular_values=values),
                # the edges of the Marchenko-Pastur law, until these close and the geometric mean e^1.537 n of square matrices takes over (Edelman)
                "random_kappa": 1.0 if low == 1 else min((1 + root) / (1 - root) if low < high else math.inf, math.exp(1.537) * low),
                "deficit": entropy_deficit(a, singular_values=values),
                "stable_rank": float(np.sum((values / values[0]) ** 2)) if values[0] > 0 else math.nan,
            }
        )
    return {key: [row[key] for row in rows] for key in rows[0]}


def with_singular_values(rng, values, extra=0):
    left, right = (np.linalg.qr(rng.normal(size=(len(values) + more, len(values))))[0] for more in (0, extra))
    return left * values @ right.T


def without_half(dim, squared_norm, condition):
    return dim / 2 * math.log(squared_norm / dim) - math.log(condition + 1 / condition)


@paper.trial(
    Inequality(rtol=1e-9, reaches=1 - 1e-6), of=[log_volume_upper, condition_number, entropy_deficit], controls={"kappa + 1/kappa not halved": without_half}, quick=60, full=3000
)
def volume_below_its_bound(draw, bound):
    """The determinant of a matrix, over that of its round twin, is at most what size and condition number allow; the maximiser attains it."""
    n, scale = draw.integer(2, 8), draw.log_uniform(0.1, 10)
    ends = draw.log_uniform(1, 30)
    if draw.integer(0, 3) == 0:  # the maximiser: only its ends differ from the root mean square
        s = np.append(np.ones(n - 2), [math.sqrt(2 / (1 + ends**-2)), math.sqrt(2 / (1 + ends**2))])
    else:
        s = ends ** draw.uniform(-1, 1, size=n)
    w = scale * with_singular_values(np.random.default_rng(0), s)
    size = float((w**2).sum())
    round_twin = n / 2 * math.log(size / n)
    volume = math.exp(np.linalg.slogdet(w)[1] - round_twin)
    kappa = condition_number(w)
    allowed = math.exp(float(bound(n, size, kappa)) - round_twin)
    return np.array([volume, math.exp(-entropy_deficit(w))]), np.array([allowed, allowed]), {"dim": n, "condition": kappa}


def without_e(matrix):
    return gaussian_output_entropy(matrix) - len(matrix) / 2


def without_inputs(matrix):
    return np.linalg.slogdet(matrix)[1]


@paper.trial(Identity(rtol=0, atol=0.08), of=[gaussian_output_entropy], controls={"2 pi without e": without_e, "log-determinant alone": without_inputs}, quick=4, full=40)
def nearest_neighbours(draw, entropy):
    """The entropy that distances to the fourth neighbour of each of 20,000 outputs in three dimensions show (Kozachenko and Leonenko), which knows nothing of Gaussians."""
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    w = with_singular_values(draw.rng, draw.log_uniform(0.5, 2, size=3))
    points = draw.rng.normal(size=(20_000, 3)) @ w.T
    radii = cKDTree(points).query(points, 5)[0][:, 4]
    estimate = digamma(len(points)) - digamma(4) + math.log(4 * math.pi / 3) + 3 * np.log(radii).mean()
    return estimate, entropy(w), {"condition": np.linalg.cond(w)}


def batched(matrix):
    values = np.linalg.svd(np.asarray(matrix), compute_uv=False)
    return float(np.max(values[0] / values[-1]))


@paper.trial(Identity(rtol=1e-6), of=[condition_number, kappa_select, kappa_report], controls={"ratio of a batched SVD": batched}, quick=20, full=300)
def against_numpy(draw, kappa):
    """The condition number of NumPy for matrices and flattened convolutions, at any scale and transposed; report and selection agree with sorting it."""
    shapes = [(draw.integer(2, 40), draw.integer(2, 40)), (draw.integer(2, 8), draw.integer(1, 4), 3, 3), (draw.integer(2, 8), draw.integer(1, 4), 5)]
    weights = [draw.rng.normal(size=shape) * draw.log_uniform(1e-6, 1e6) for shape in shapes]
    right = [np.linalg.cond(w.reshape(len(w), -1)) for w in weights]
    report = kappa_report([{"name": str(i), "matrix": w} for i, w in enumerate(weights)])
    chosen = kappa_select(report["name"], report["kappa"], 2)
    stable = [np.linalg.norm(w) ** 2 / np.linalg.norm(w.reshape(len(w), -1), 2) ** 2 for w in weights]
    computed = [*right, *right, right[0], *stable, sorted(right)[1], int(np.argmax(right))]
    left_out = ({0, 1, 2} - set(map(int, chosen["selected"]))).pop()
    return computed, [*map(kappa, weights), *report["kappa"], kappa(3 * weights[0].T), *report["stable_rank"], chosen["threshold"], left_out], {"shapes": str(shapes)}


@paper.finding(
    """Kappa alone does not say how much entropy is lost: at kappa 2 a matrix of 100 dimensions loses ln 1.25 = 0.22 nats where only its ends differ, and fifty times as much
    where half of its singular values stand at either end."""
)
def kappa_does_not_fix_the_deficit():
    ends = np.append(np.ones(98), [math.sqrt(8 / 5), math.sqrt(2 / 5)])
    halves = np.repeat([2.0, 1.0], 50)
    few, many = (entropy_deficit(np.diag(s)) for s in (ends, halves))
    expected = abs(few - math.log(1.25)) < 1e-9 and abs(many - 50 * math.log(1.25)) < 1e-9
    return {"holds": expected, "deficit_ends": few, "deficit_halves": many, "kappa": [condition_number(np.diag(s)) for s in (ends, halves)]}


@paper.finding(
    """Tuning the tensor of smaller kappa need not forget less. In two linear layers W2 W1 fitted to a new task by the smallest change, tuning W1 disturbs old inputs as little
    as any fit can, whatever its kappa, and tuning W2 disturbs them more, the more so the larger the kappa of the frozen W1: the rule is right where the small one is first."""
)
def place_decides_what_is_forgotten():
    rng, d, found = np.random.default_rng(0), 24, {}
    for order, kappas in (("small_first", (2, 100)), ("large_first", (100, 2))):
        forgotten = []
        for _ in range(20):
            w1, w2 = (with_singular_values(rng, np.geomspace(1, kappa, d) / kappa**0.5) @ np.linalg.qr(rng.normal(size=(d, d)))[0] for kappa in kappas)
            inputs, missing = rng.normal(size=(d, 6)), rng.normal(size=(d, 6))  # of the new task, and what its targets lack
            tuned = [w2 @ np.linalg.pinv(w2) @ missing @ np.linalg.pinv(inputs), missing @ np.linalg.pinv(w1 @ inputs) @ w1]  # what either makes of W2 W1
            least = np.sum((missing @ np.linalg.pinv(inputs)) ** 2)
            forgotten.append([np.sum(change**2) / least for change in tuned])
        found |= {f"{order}_tuning_{which}": float(mean) for which, mean in zip(("w1", "w2"), np.mean(forgotten, 0), strict=True)}
    right, wrong = found["small_first_tuning_w1"] < found["small_first_tuning_w2"], found["large_first_tuning_w2"] > found["large_first_tuning_w1"]
    return {"holds": right and wrong and found["large_first_tuning_w2"] > found["small_first_tuning_w2"], **found}
