"""Scaling laws judged on larger scales than they were fitted to: the laws of SLDBench, a fit that does them justice, and the same contest for one's own runs."""

import math
from collections import namedtuple
from itertools import combinations

import numpy as np

from lawbook.contract import DomainError, Paper, choice, count, either, listing, matrix, nonnegative, positive, real, record, seed, table, text, vector
from lawbook.numerics.separable import Separable, best_fits, columns, descend, sides
from lawbook.trials import Guarantee, Identity

paper = Paper(
    __name__,
    title="Can Language Models Discover Scaling Laws?",
    arxiv="2507.21184",
    tags=["scaling law", "benchmark", "extrapolation", "variable projection", "mixture of experts", "data mixture", "fine-tuning", "repeated data"],
    source="code",
    says="""Scaling-law tasks from more than 5,000 training runs: a law is fitted to small runs, with constants of its own for each group, and judged by its R2 on larger ones.
    Agents that invent formula and fitter together beat the published laws on average. Here are those laws, the metric, a fitter (linear constants projected out, exponents by
    damped Gauss-Newton steps from many starts, Huber's loss), and the same contest as a tool for any table of runs.""",
    notes="""Huber thresholds follow the source studies, on relative residuals: .001, but .02 for mixtures (there .05 on losses around 2.5) and none for experts in logarithms.
    Test R2 reached: parallel .99991, sft .991, domain_mix .986, data_constrained .466 (a split of our own), moe_bilinear .70321 as published, moe .851. Task moe has a floor e:
    six numbers mean e = 0, the bilinear law; its fit frees e and sets c = 0, six constants again. vocab is tried on synthetic runs only; lr_bsz and u_shape, where published laws
    forecast worse than the mean (R2 -.08 and -1), are left to rank_laws.""",
)


# a Separable law with Huber's threshold delta: write(c, exp(q)) gives the constants as they are written, spans are where each input lies in runs like the task's
Task = namedtuple("Task", "law delta write example spans")


def log(value):
    return np.log(np.maximum(value, 1e-300))


def formula(task, x, p):
    """A task's law for inputs x and constants p, which broadcast."""
    if task == "parallel":
        return p[0] + (p[1] * 1e9 / (x[0] * (p[3] * np.log(x[1]) + 1))) ** p[2]
    if task == "vocab":
        return -p[0] + p[1] * x[0] ** -p[2] + p[3] * x[1] ** -p[4] + p[5] * x[2] ** -p[6]
    if task == "sft":
        return p[0] / (p[1] + x[0] ** p[2]) + p[3]
    if task == "domain_mix":
        return np.exp(p[0]) + np.exp(p[1] + sum(t * share for t, share in zip(p[2:], x, strict=True)))
    if task in ("moe", "moe_bilinear"):
        n, e = np.log(x[1]), -np.log(1 / (x[0] - 1 + 1 / (1 / p[4] - 1 / p[5])) + 1 / p[5])
        return np.exp(p[0] * n + p[1] * e + p[2] * n * e + p[3]) + (p[6] if len(p) > 6 else 0.0)
    (log_a, log_b, log_e, alpha, beta, again, spare), (unique, params, tokens) = p, x
    unique = np.minimum(unique, tokens)
    balance = np.exp((np.log(alpha / beta) + log_a - log_b) / (alpha + beta))
    base = np.minimum(params, balance * (unique * balance) ** (beta / alpha))  # the compute-optimal size for the unique tokens
    size = base * (1 - spare * np.expm1(-(params / base - 1) / spare))
    data = unique * (1 - again * np.expm1(-(tokens / unique - 1) / again))
    return np.exp(log_e) + np.exp(log_a) * size**-alpha + np.exp(log_b) * data**-beta


def task_law(task, write, box, positive, example, spans, delta=1e-3, *, log=False):
    """A Task whose basis is the formula at unit values of its linear constants; c of moe and t_5 of domain_mix (shares sum to 1) stay 0."""
    units = np.eye(len(example) - len(box) - (task in ("moe", "domain_mix")))

    def basis(x, q):
        scales = np.moveaxis(np.exp(q), -1, 0)[..., None]
        found = columns(*(formula(task, np.moveaxis(x, -1, 0), write(unit, scales)) for unit in units))
        return np.log(found) if log else found

    return Task(Separable(basis, np.log(box), tuple(range(positive)), log), delta, write, example, spans)


def write_repetition(c, s):
    """A/B through the balance G of the compute-optimal split, so that E and B alone are linear."""
    return [log(c[1]) + np.log(s[1] / s[0]) + (s[0] + s[1]) * np.log(s[4]), log(c[1]), log(c[0]), *s[:4]]


POWER, EXPERTS, ROUTED = (0.05, 1.0), [(1, 30), (10, 1000)], ((1, 512), (1e7, 1e9))  # EXPERTS: E_start, and E_max above it
REPEATED = (6.255414, 7.3049974, 0.6254804, 0.3526596, 0.3526596, 15.387756, 5.309743)  # the published constants
LAWS = {
    name: task_law(name, *parts, log=name == "moe_bilinear")
    for name, *parts in (
        ("parallel", lambda c, s: [c[0], c[1] ** (1 / s[0]), *s], [POWER, (0.05, 2)], 2, (1.33, 0.16, 0.21, 0.34), ((3e8, 5e9), (1, 8))),
        ("vocab", lambda c, s: [c[0], c[1], s[0], c[2], s[1], c[3], s[2]], [POWER] * 3, 4, (5.5, 200, 0.35, 30, 0.5, 900, 0.3), ((3e7, 1e9), (4e3, 1e5), (1e9, 1e11))),
        ("sft", lambda c, s: [c[0], *s, c[1]], [(0.1, 1e6), (0.1, 2)], 2, (150, 60, 0.6, 1.2), ((200, 4e5),)),
        ("domain_mix", lambda c, s: [log(c[0]), log(c[1]), *np.log(s), 0 * s[0]], [(0.05, 20)] * 4, 2, (0.9, 0.3, -2, 0.2, 0.1, 0.5, 0), ((0.01, 1),) * 5, 0.02),
        ("moe", lambda c, s: [-s[2], -s[3], 0.0, log(c[1]), s[0], s[0] + s[1], c[0]], [*EXPERTS, POWER, POWER], 2, (-0.2, -0.1, 0, 3.9, 3, 400, 1.6), ROUTED),
        ("moe_bilinear", lambda c, s: [*c, s[0], s[0] + s[1]], EXPERTS, 0, (-0.088, -0.126, 0.005, 2.645, 2.4, 404), ROUTED, np.inf),
        ("data_constrained", write_repetition, [POWER, POWER, (2, 50), (2, 50), (0.01, 10)], 2, REPEATED, ((1e8, 1e11), (1e7, 1e10), (1e9, 1e12))),
    )
}
CANDIDATES = ("power", "power_floor", "chinchilla", "rectified", "mixing", "bilinear", "broken_power")


def candidate(name, inputs):
    """A law of the library for any number of inputs: of their centred logarithms, of the standardised inputs themselves for `mixing`."""

    def slope(x, q):
        return (x @ np.exp(q)[..., None])[..., 0]

    def broken(x, q):  # the slope turns into (1 + change) times itself
        turn, change, s = q[..., :1], q[..., 1:2], slope(x, q[..., 2:])
        return columns(1.0, np.exp(-s - change / 4 * np.logaddexp(0, 4 * (s - turn))))

    def split(x):
        return np.moveaxis(x, -1, 0)

    slopes, pairs = [np.log(POWER)] * inputs, list(combinations(range(inputs), 2))
    basis, box = {
        "power": (lambda x, q: columns(1.0, *split(x)), []),
        "bilinear": (lambda x, q: columns(1.0, *split(x), *(x[..., i] * x[..., j] for i, j in pairs)), []),
        "power_floor": (lambda x, q: columns(1.0, np.exp(-slope(x, q))), slopes),
        "chinchilla": (lambda x, q: columns(1.0, *(np.exp(-np.exp(q[..., i : i + 1]) * u) for i, u in enumerate(split(x)))), slopes),
        "rectified": (lambda x, q: columns(1.0, 1 / (np.exp(q[..., :1]) + np.exp(slope(x, q[..., 1:])))), [(-4, 4), *slopes]),
        "mixing": (lambda x, q: columns(1.0, np.exp((x @ q[..., None])[..., 0])), [(-2, 2)] * inputs),
        "broken_power": (broken, [(-2, 2), (-0.8, 2), *slopes]),
    }[name]
    return Separable(basis, np.reshape(box, (-1, 2)), log=name in ("power", "bilinear"))


def best_fit(law, x, y, restarts=16, seed=0, delta=1e-3):
    """(q, c) with the least Huber loss of one group of runs."""
    target, scale = sides(law, y)
    q, c, _, _ = best_fits(law, x[None], target[None], scale[None], starts=restarts, seed=seed, delta=delta)
    return q[0], c[0]


def runs_like(task, rng, rows, names=("inputs", "targets"), noise=0.002):
    """Inputs where runs of the task lie, constants near its example, and targets with relative noise."""
    x = np.exp(rng.uniform(*np.log(LAWS[task].spans).T, (rows, len(LAWS[task].spans))))
    x = x / x.sum(1, keepdims=True) if task == "domain_mix" else x
    params = np.array(LAWS[task].example) * (1 + 0.01 * rng.normal(size=len(LAWS[task].example)))
    runs = {"inputs": x, "params": params, "targets": sld_law(task, x, params) * np.exp(noise * rng.normal(size=rows))}
    return {"task": task} | {name: runs[name] for name in names}


def suits(task, inputs):
    return inputs.shape[1] == len(LAWS[task].spans) and bool((abs(inputs.sum(1) - 1) < 1e-3).all() if task == "domain_mix" else (inputs > 0).all())


INPUTS = {"inputs must have a column for each input of the task, above 0, in domain_mix shares that sum to 1": suits}
ORDER = """runs in rows, inputs in order: parallel params, streams; vocab params without vocabulary, vocabulary, characters; sft samples; domain_mix five shares;
    moe experts, dense params; data_constrained unique tokens, params, tokens"""


@paper.law(
    r"L = \textstyle\sum_j c_j\, \varphi_j(x; \theta)",
    requires={
        **INPUTS,
        "params must be as many as the task has constants (7 a domain in domain_mix, 6 or 7 in moe)": lambda task, params: (
            len(params) % 7 == 0 if task == "domain_mix" else len(params) in (len(LAWS[task].example), 6 * (task == "moe"))
        ),
    },
    sample=lambda rng: runs_like(rng.choice(list(LAWS)), rng, 4, ("inputs", "params")),
    gives=[2.2256440889984477, 2.2269634075087867],
)
def sld_law(
    task: choice(*LAWS, example="data_constrained"),
    inputs: matrix("n", "m", of=nonnegative(), doc=ORDER, example=[[25e9, 6.34e9, 242e9], [25e9, 8.67e9, 178e9]]),
    params: vector(
        "P",
        example=REPEATED,
        doc="""parallel E, A, alpha, k; vocab E, A1, alpha1, A2, alpha2, B, beta; sft B, D_l, beta, E; domain_mix ln c, ln k, t_1..t_5, domain after domain;
        moe a, b, c, d, E_start, E_max and the floor e; data_constrained ln A, ln B, ln E, alpha, beta, R_D*, R_N*""",
    ),
) -> either(vector("n"), matrix("n", "K")):
    """Loss that a task's law gives to runs; one column for each domain where constants of several are given.

    parallel E + (A 1e9/(N (k ln P + 1)))^alpha; vocab -E + A1/N^alpha1 + A2/V^alpha2 + B/H^beta; sft B/(D_l + D^beta) + E; domain_mix c + k exp(t.r);
    moe e + exp(a ln N + b ln E^ + c ln N ln E^ + d) with the effective number of experts 1/E^ = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max;
    data_constrained E + A/N'^alpha + B/D'^beta, where repeated tokens, and parameters beyond the compute-optimal ones for the unique tokens, saturate.
    """
    constants = np.reshape(np.asarray(params, float), (-1, 7 if task == "domain_mix" else len(params)))
    with np.errstate(all="ignore"):
        found = formula(task, np.asarray(inputs, float).T, constants.T[..., None])
    if not np.isfinite(found).all():
        raise DomainError("params must be constants that give these inputs finite losses: scales and exponents above 0, E_start below E_max.")
    return found.T if len(constants) > 1 else found[0]


@paper.algorithm(
    r"\min_\theta \min_c \sum_i \mathrm{Huber}_\delta\big(1 - \textstyle\sum_j c_j \varphi_j(x_i; \theta) / L_i\big)",
    requires={
        **INPUTS,
        "targets must be at least as many as the task has constants": lambda task, targets: len(targets) >= len(LAWS[task].example) - (task == "moe"),
        "targets must be one column, but for domain_mix": lambda task, targets: np.ndim(targets) == 1 or np.shape(targets)[1] == 1 or task == "domain_mix",
    },
    sample=lambda rng: runs_like(rng.choice(list(LAWS)), rng, 12) | {"restarts": 4},
)
def fit_sld(
    task: choice(*LAWS, example="sft"),
    inputs: matrix("n", "m", of=nonnegative(), doc=ORDER, example=[[200], [800], [3200], [12800], [51200], [204800]]),
    targets: either(
        vector("n", of=positive()), matrix("n", "K", of=positive()), doc="losses; in domain_mix a column for each domain", example=[2.97, 2.15, 1.65, 1.39, 1.28, 1.23]
    ),
    *,
    restarts: count("starts", typical=(1, 16)) = 16,
    seed: seed() = 0,
) -> vector("P"):
    """Constants of a task's law for one group of runs, in the order of sld_law.

    Linear constants are projected out, those that are scales not below 0; what is left, logarithms of exponents and scales, takes damped Gauss-Newton steps from random starts.
    """
    (law, delta, write, *_), x, y = LAWS[task], np.asarray(inputs, float), np.asarray(targets, float)
    fits = [best_fit(law, x, column, restarts, seed, delta) for column in y.reshape(len(y), -1).T]
    return np.concatenate([np.array(write(c, np.exp(q)), float) for q, c in fits])


@paper.measure(
    r"R^2 = 1 - \frac1K \sum_k \frac{\sum_i (\hat y_{ik} - y_{ik})^2}{\sum_i (y_{ik} - \bar y_k)^2}",
    requires={
        "predictions must have the shape of targets": lambda predictions, targets: np.shape(predictions) == np.shape(targets),
        "groups must name the group of each of the targets": lambda groups, targets: groups is None or len(groups) == len(targets),
        "targets must not be all the same in any column": lambda targets: bool((np.ptp(targets, axis=0) > 1e-12 * np.abs(targets).max(0)).all()),
    },
    sample=lambda rng: dict(zip(("targets", "predictions"), rng.normal(size=(2, 5, 2)), strict=True)) | {"groups": list("aabbc")},
    gives={"r2": 0.994, "nmse": 0.006},
)
def extrapolation_score(
    targets: either(vector("n", least=2), matrix("n", "K"), example=[1, 2, 3, 4, 5]),
    predictions: either(vector("n", least=2), matrix("n", "K"), example=[1.1, 1.9, 3.2, 4, 5]),
    *,
    groups: listing(text(), doc="group of each row; all are judged together, so that differences between groups count as explained") = None,
) -> record(
    r2=real(high=1), nmse=nonnegative(), nmae=nonnegative(), per_group=table(group=text(), rows=count(), r2=real(nan=True, infinite=True, doc="NaN or -inf without spread"))
):
    """The benchmark's score of held-out predictions: mean squared and absolute errors over their spread, averaged over output columns; R2 may fall below 0 without limit."""
    y, forecast = (np.asarray(v, float).reshape(len(v), -1) for v in (targets, predictions))

    def scores(rows):
        spread, off = y[rows] - y[rows].mean(0), forecast[rows] - y[rows]
        with np.errstate(all="ignore"):
            nmse, nmae = np.mean((off**2).mean(0) / (spread**2).mean(0)), np.mean(np.abs(off).mean(0) / np.abs(spread).mean(0))
        return {"r2": float(1 - nmse), "nmse": float(nmse), "nmae": float(nmae)}

    labels = np.array(["all"] * len(y) if groups is None else groups)
    names = list(dict.fromkeys(labels.tolist()))
    each = {"group": names, "rows": [int((labels == name).sum()) for name in names], "r2": np.array([scores(labels == name)["r2"] for name in names])}
    return scores(slice(None)) | {"per_group": each}


def two_decades(rng, law="power_floor"):
    """Thirty runs over two decades and eight over the next, .2 % noise, from a law of the library with typical constants."""
    inputs = 2 if law in ("chinchilla", "bilinear") else 1
    x = np.vstack([10 ** rng.uniform(0, 2, (30, inputs)), 10 ** rng.uniform(2, 3, (8, inputs))])
    (u, v), (a, b, c) = np.log(x.T[[0, -1]]), rng.uniform(0.2, 0.5, 3)
    y = {
        "power": 5 * np.exp(-a * u),
        "power_floor": 1.5 + 3 * np.exp(-a * u),
        "chinchilla": 1.5 + 2 * np.exp(-a * u) + 3 * np.exp(-b * v),
        "rectified": 1 + 30 / (10 + np.exp((a + 0.5) * u)),
        "mixing": 1 + 2 * np.exp(-1e-2 * (1 + a) * x[:, 0]),
        "bilinear": np.exp(1.5 - 0.3 * a * u - 0.3 * b * v + 0.02 * u * v),
        "broken_power": 0.5 + 4 * np.exp(-a * u - (b + c) / 4 * np.logaddexp(0, 4 * a * (u - 2.5))),
    }[law]
    return {"inputs": x, "targets": y * np.exp(0.002 * rng.normal(size=len(x))), "candidates": [*CANDIDATES]}


SYNTHETIC = two_decades(np.random.default_rng(0))


@paper.algorithm(
    r"\text{by } R^2 \text{ on larger runs than the } n \text{ fitted ones, then by } n \ln \overline{r^2} + 2k + \tfrac{2k(k+1)}{n-k-1}",
    requires={"inputs must each take at least two values": lambda inputs: bool((np.ptp(inputs, axis=0) > 0).all())},
    sample=lambda rng: two_decades(rng) | {"candidates": rng.choice(CANDIDATES, 2, replace=False).tolist(), "seed": int(rng.integers(100))},
)
def rank_laws(
    inputs: matrix("n", "m", of=positive(), example=SYNTHETIC["inputs"], doc="runs in rows"),
    targets: vector("n", of=positive(), least=12, example=SYNTHETIC["targets"], doc="what is to be foretold, such as losses"),
    candidates: listing(choice(*CANDIDATES), least=1, example=[*CANDIDATES]),
    *,
    holdout: choice("largest", "last", "random", doc="the fifth of the rows that is held out: the largest by the product of the inputs, the last as given, or any") = "largest",
    seed: seed() = 0,
) -> table(
    law=text(),
    r2=real(high=1, infinite=True, doc="of the held-out rows; minus infinity where a law has no finite forecast for them"),
    low=real(high=1, infinite=True, doc="2.5 % quantile of r2 over 40 refits to resampled rows"),
    high=real(high=1, infinite=True, doc="97.5 % quantile"),
    aicc=real(doc="corrected information criterion on the fitted rows"),
    constants=count(),
):
    """Which law extrapolates best: each is fitted to the smaller runs and judged on the larger ones, the best first.

    Laws whose r2 comes within .001 of the best are told apart by AICc.
    """
    x, y, rng = np.asarray(inputs, float), np.asarray(targets, float), np.random.default_rng(seed)
    order = np.argsort(np.log(x).sum(1), kind="stable") if holdout == "largest" else np.arange(len(x)) if holdout == "last" else rng.permutation(len(x))
    train, test = np.split(order, [-math.ceil(len(x) / 5)])
    if np.ptp(y[test]) <= 1e-12 * y[test].max():
        raise DomainError("targets must vary in the rows held out: r2 has no meaning otherwise.")
    counts, rows = rng.multinomial(len(train), np.full(len(train), 1 / len(train)), size=40), []
    for name in dict.fromkeys(candidates):
        law = candidate(name, x.shape[1])
        z = (x - x.mean(0)) / x.std(0) if name == "mixing" else np.log(x) - np.log(x).mean(0)
        q, c = best_fit(law, z[train], y[train], seed=seed)
        n, k = len(train), len(q) + len(c) + 1  # the noise counts as a constant
        if n - k - 1 < 1:
            raise DomainError(f"inputs must have more rows for {name}: {n} are fitted, it has {k - 1} constants.")
        with np.errstate(all="ignore"):
            again = descend(law, z[None, train], *(side[None] for side in sides(law, y[train])), np.tile(q, (len(counts), 1)), rounds=15, delta=1e-3, weights=counts)[:2]
            r2 = np.array([extrapolation_score(y[test], law.predict(z[test], *fit))["r2"] for fit in [(q, c), *zip(*again, strict=True)]])
            off = law.predict(z[train], q, c) / y[train] - 1
        r2 = np.where(np.isfinite(r2), r2, -np.inf)
        low, high = np.quantile(r2[1:], (0.025, 0.975), method="nearest")
        aicc = n * math.log(max(np.mean(off**2), 1e-300)) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
        rows.append({"law": name, "r2": float(r2[0]), "low": float(low), "high": float(high), "aicc": aicc, "constants": k - 1})
    best = max(row["r2"] for row in rows)
    rows.sort(key=lambda row: (0, row["aicc"]) if row["r2"] >= best - 1e-3 else (1, -row["r2"]))
    return {key: [row[key] for row in rows] for key in rows[0]}


@paper.trial(Identity(rtol=1e-7), of=[fit_sld, sld_law], controls={"constants not fitted": lambda task, x, y: LAWS[task].example}, quick=1, full=20)
def recovers(draw, claim):
    """Runs without noise, made by each law, are met by the law fitted to them; so are the first 10 where only the other 30 are fitted."""
    runs = [runs_like(task, draw.rng, 40, noise=0) for task in LAWS]
    met = [sld_law(r["task"], r["inputs"], claim(r["task"], r["inputs"][10:], r["targets"][10:])) for r in runs]
    return np.concatenate(met), np.concatenate([r["targets"] for r in runs])


@paper.trial(Guarantee(), of=[rank_laws], controls={"the plain power law for everything": lambda candidates, **_: {"law": candidates, "r2": [0.0] * 7}}, quick=1, full=1)
def names_the_law(draw, claim, effort):
    """From runs over two decades and the next held out, the law that made them comes first, or one that contains it and extrapolates as well, four times in five."""
    with_floor, named = {"power_floor", "chinchilla", "rectified", "broken_power"}, []
    contains = {"power": {*with_floor, "power", "bilinear"}, "power_floor": with_floor}
    for i in range(7 if effort == "quick" else 50):
        law = CANDIDATES[i % len(CANDIDATES)]
        ranked = claim(**two_decades(draw.rng, law))
        r2 = dict(zip(ranked["law"], ranked["r2"], strict=True))
        first = ranked["law"][0]
        named.append(first in contains.get(law, {law}) and r2[first] >= r2[law] - 1e-3)
    return 1 - np.mean(named), 0.2, {"named": float(np.mean(named))}


def fitted_law(task, x, y, new):
    return sld_law(task, new, fit_sld(task, x, y))


def test_score(task, data, forecast=fitted_law):
    """R2 of a task's test rows, each group forecast from its own train rows; -1 for a failure, as in the paper."""
    runs = data[task.removesuffix("_bilinear")]
    x, y = (np.column_stack([v for name, v in runs.items() if name not in ("group", "split") and name.startswith("loss") == loss]) for loss in (False, True))
    labels, test, predicted = runs.get("group", np.full(len(x), "all")), runs["split"] == "test", np.full(y.shape, np.nan)
    for rows in (labels == label for label in dict.fromkeys(labels.tolist())):
        predicted[rows & test] = np.reshape(forecast(task, x[rows & ~test], y[rows & ~test], x[rows & test]), (-1, y.shape[1]))
    return extrapolation_score(y[test], predicted[test])["r2"] if np.isfinite(predicted[test]).all() else -1.0


def initial_program(task, x, y, new):
    """What the benchmark's agents start from: sum_i c_i x_i^p_i + b by one BFGS from ones for each output, on the inputs as they are."""
    from scipy.optimize import minimize

    def predict(p, x):
        return x ** p[len(x.T) : -1] @ p[: len(x.T)] + p[-1]

    ones = np.ones(2 * x.shape[1] + 1)
    with np.errstate(all="ignore"):
        fits = [minimize(lambda p, target: np.mean((predict(p, x) - target) ** 2), ones, (column,), "BFGS") for column in y.T]
        return np.column_stack([predict(fit.x if fit.success else ones, new) for fit in fits])


# what published laws reach, in the benchmark or refitted to the original studies' runs; the 90 groups of sft in full trials only
BARS = {"parallel": 0.9999, "domain_mix": 0.979, "moe": 0.76, "moe_bilinear": 0.7002, "data_constrained": 0.37, "sft": 0.985}


@paper.trial(
    Guarantee(), of=[fit_sld, sld_law, extrapolation_score], claim=fitted_law, controls={"the benchmark's initial program": initial_program}, quick=1, full=1, data="scaling-tasks"
)
def extrapolates(draw, claim, data, effort):
    """Fitted to the train rows of each real task, its law leaves at most the share of the variance of the test rows unexplained that published fits leave."""
    r2 = {task: test_score(task, data, claim) for task in BARS if task != "sft" or effort == "full"}
    return [1 - value for value in r2.values()], [1 - BARS[task] for task in r2], r2


@paper.finding(
    """The low score of the human law for data mixtures in the benchmark (R2 .671) is a failure of its fit, not of the law: fitted from several starts it reaches more than .97
    on the same split.""",
    trial=extrapolates,
    data="scaling-tasks",
)
def mixture_law_was_fitted_badly(data):
    r2 = test_score("domain_mix", data)
    return {"holds": r2 > 0.97, "r2": r2, "published": 0.671}


@paper.finding(
    """For routed experts a floor in place of the interaction of size and experts extrapolates better at equally many constants: at 1.3B parameters the published bilinear law
    leaves .30 of the variance unexplained, the additive law .15.""",
    trial=extrapolates,
    data="scaling-tasks",
)
def floor_beats_interaction(data):
    bilinear, floor = (test_score(task, data) for task in ("moe_bilinear", "moe"))
    return {"holds": abs(bilinear - 0.70321) < 1e-3 and floor > 0.76, "bilinear": bilinear, "floor": floor}
