"""Few features of many time series: dilated kernels in two layers, four statistics each, and a choice that avoids repeating itself."""

import math
import warnings
from itertools import combinations

import numpy as np

from lawbook.contract import DomainError, Paper, array, count, flag, integer, matrix, nonnegative, probability, real, record, vector
from lawbook.trials import Forecast, Guarantee, Identity, Prediction

paper = Paper(
    __name__,
    title="Taking ROCKET on an Efficiency Mission: Multivariate Time Series Classification with LightWaveS",
    arxiv="2204.01379",
    tags=["time series", "classification", "features", "wavelet", "scattering", "feature selection", "edge", "efficiency"],
    source="code",
    says="""Series with many channels are classified from a small set of features: two layers of fixed, dilated, wavelet-like kernels, four statistics of each response, and a
    selection that divides how much a feature tells by how much it repeats the ones already chosen. A ridge classifier on them needs a few percent of ROCKET's features, and
    channels of which nothing was chosen need not be measured.""",
    notes="""Features and selection follow the authors' code, in double precision. Each feature costs 9 T multiply-adds a layer; ROCKET's 10,000 kernels as much each. In the code a
    series of odd length writes one value past the end of the buffer between the layers; here that value belongs to the second layer. Before the joint selection each channel
    keeps its features of largest F, three times as many as are wanted.""",
)


def kernels_of(length):
    """All ways to put length / 3 twos among minus ones."""
    return np.array([[2.0 if i in chosen else -1.0 for i in range(length)] for chosen in combinations(range(length), length // 3)])


KERNELS = kernels_of(9)
WAVE = [0.1, 0.9, 0.2, -0.8, -0.4, 0.7, 0.5, -0.6, -0.9, 0.3, 0.8, -0.1]
SERIES = vector("T", of=real(typical=(-2, 2)), least=9, most=40, example=WAVE)
KERNEL = vector(9, of=real(typical=(-1, 2)), doc="taps", example=[2.0, -1.0, -1.0, 2.0, -1.0, -1.0, 2.0, -1.0, -1.0])
DILATION = count("samples", typical=(1, 1), example=1, doc="distance of the taps")
OFFICIAL = flag(doc="as the released code counts: a run that lasts to the end of the series is left out")
FITS = {"dilation must be less than an eighth of the length of series": lambda dilation, series: 8 * dilation < len(series)}
LABELS = vector("n", of=integer(typical=(0, 1)), doc="class of each row", example=[0, 0, 0, 1, 1, 1])


def response_to(series, kernel, dilation):
    """Zero-padded convolution of series[..., T] with nine taps, scaled as wavelets are."""
    length = series.shape[-1]
    padded = np.pad(series, [(0, 0)] * (series.ndim - 1) + [(4 * dilation, 4 * dilation)])
    return sum(weight * padded[..., j * dilation : j * dilation + length] for j, weight in enumerate(kernel)) / dilation**1.5


def statistics(response, official_runs=False):
    """Share above 0, largest magnitude, longest run above 0 over the length, smallest magnitude: along the last axis."""
    positive, position = response > 0, np.arange(response.shape[-1])
    interrupted = np.maximum.accumulate(np.where(positive, -1, position), axis=-1)
    runs = position - interrupted
    if official_runs:
        runs = np.where(interrupted == interrupted[..., -1:], 0, runs)  # the last run has nothing that ends it
    magnitude = np.abs(response)
    return np.stack([positive.mean(-1), magnitude.max(-1), runs.max(-1) / response.shape[-1], magnitude.min(-1)], axis=-1)


def two_layers(series, kernel, dilation, official_runs=False):
    """Eight features of series[..., T]: [..., 8]."""
    first = response_to(series, kernel, dilation)
    second = response_to(np.abs(first[..., ::2]), kernel, dilation)
    return np.concatenate([statistics(first, official_runs), statistics(second, official_runs)], axis=-1)


@paper.law(
    r"w \in \{2, -1\}^n,\quad \sum_t w_t = 0,\quad \tbinom{9}{3} = 84",
    requires={"length must be a multiple of 3": lambda length: length % 3 == 0},
    sample=lambda rng: {"length": 3 * int(rng.integers(1, 5))},
    gives={"count": 84, "row_sum": 0},
)
def base_kernels(*, length: count("taps", low=3, high=15, typical=(3, 12), doc="9 in the paper") = 9) -> record(
    kernels=matrix("count", "length"), count=count("kernels"), row_sum=real(doc="largest sum of a kernel in magnitude")
):
    """The fixed kernels: they sum to 0, so that a constant is not seen."""
    kernels = kernels_of(length)
    return {"kernels": kernels, "count": len(kernels), "row_sum": float(np.abs(kernels.sum(1)).max())}


@paper.measure(r"c_i = d^{-3/2} \sum_{t=0}^{8} w_t\, x_{i + (t - 4) d}", requires=FITS)
def wavelet_features(series: SERIES, kernel: KERNEL, dilation: DILATION, *, official_runs: OFFICIAL = False) -> record(
    ppv=probability(doc="share of the response above 0"),
    max_abs=nonnegative(),
    longest_run=probability(doc="longest run above 0, over the length"),
    min_abs=nonnegative(),
    response=vector("T"),
):
    """Response of one channel to one dilated kernel, with zeros beyond its ends, and four statistics of it."""
    response = response_to(np.asarray(series, float), np.asarray(kernel, float), dilation)
    return dict(zip(("ppv", "max_abs", "longest_run", "min_abs"), statistics(response, official_runs).tolist(), strict=True)) | {"response": response}


@paper.measure(r"(\text{ppv}, \max|c|, \text{run}, \min|c|)(c^{(1)}, c^{(2)}),\quad c^{(2)} = |c^{(1)}_{2i}| * w", requires=FITS)
def scattering_features(series: SERIES, kernel: KERNEL, dilation: DILATION, *, official_runs: OFFICIAL = False) -> vector(8, of=nonnegative()):
    """The four statistics of the response, then those of the response of its halved magnitude to the same kernel."""
    return two_layers(np.asarray(series, float), np.asarray(kernel, float), dilation, official_runs)


def f_statistics(features, labels):
    """ANOVA F of each column; 0 where it is not finite, as the code has it."""
    from sklearn.feature_selection import f_classif

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of features that are constant in a class
        return np.nan_to_num(f_classif(features, labels)[0], nan=0.0, posinf=0.0, neginf=0.0)


def varying(features):
    return np.flatnonzero(np.ptp(features, axis=0) > 1e-12 * np.abs(features).max(0))


def refuse_classes(labels):
    classes = len(np.unique(labels))
    if not 2 <= classes < len(labels):
        raise DomainError(f"labels must hold at least two classes, and fewer than rows; they hold {classes} in {len(labels)} rows.")


def draw_features(rng):
    return {"features": rng.normal(size=(10, 4)), "labels": np.arange(10) % 2, "count": int(rng.integers(1, 7))}


@paper.algorithm(r"j_1 = \arg\max F_j,\quad j_{m+1} = \arg\max_j F_j \big/ \tfrac1m \textstyle\sum_{s} |\rho(j, s)|", sample=draw_features)
def mrmr_select(
    features: matrix("n", "f", example=[[0.0, 1.0, 5.0], [0.2, 0.9, 5.0], [0.1, 1.2, 5.0], [1.0, 0.2, 5.0], [0.8, 1.1, 5.0], [1.1, 0.1, 5.0]]),
    labels: LABELS,
    count: count("features", typical=(1, 6), example=2),
) -> record(order=vector("k", of=integer(low=0), least=0, doc="columns as they are chosen; those that do not vary never are"), scores=vector("k", of=nonnegative(), least=0)):
    """Features that tell the classes apart and repeat one another least: F over the mean correlation with those chosen; of equal ones the first."""
    x = np.asarray(features, float)
    refuse_classes(labels)
    columns = varying(x)
    if not len(columns):
        return {"order": np.empty(0, int), "scores": np.empty(0)}
    x = x[:, columns] - x[:, columns].mean(0)
    unit = x / np.linalg.norm(x, axis=0)
    criterion = relevance = f_statistics(x, labels)
    redundancy, order, scores = np.zeros(len(columns)), [], []
    for chosen in range(1, min(count, len(columns)) + 1):
        criterion = np.where(np.isin(np.arange(len(columns)), order), -np.inf, criterion)
        order.append(int(np.argmax(criterion)))
        scores.append(float(criterion[order[-1]]))
        redundancy += np.minimum(np.abs(unit[:, order[-1]] @ unit), 1)
        criterion = relevance / np.maximum(redundancy / chosen, 1e-12)
    return {"order": columns[order], "scores": np.array(scores)}


def draw_task(rng):
    return {
        "train": rng.normal(size=(8, 2, 20)),
        "labels": np.arange(8) % 2,
        "test": rng.normal(size=(3, 2, 20)),
        "count": int(rng.integers(1, 20)),
        "dilations": int(rng.integers(1, 3)),
    }


@paper.algorithm(
    r"\text{features} \to \text{F by channel} \to \text{mRMR} \to \text{ridge}",
    requires={"train must be at least 9 samples long": lambda train: train.shape[2] >= 9},
    sample=draw_task,
)
def lightwave_classifier(
    train: array("n", "channels", "T", example=[[WAVE], [WAVE[::-1]], [WAVE[1:] + WAVE[:1]], [[0.3] * 11 + [1.0]], [[0.2] * 12], [[0.1] * 11 + [0.9]]]),
    labels: LABELS,
    test: array("m", "channels", "T", example=[[WAVE[2:] + WAVE[:2]], [[0.25] * 12]]),
    *,
    count: count("features", typical=(1, 50)) = 500,
    dilations: count("dilations", high=16, typical=(1, 6), doc="1, 2, 4, ...: those of which the kernel fits in the series") = 6,
) -> record(
    predictions=vector("m", of=integer()), channels_used=vector("c", of=integer(low=0), least=0, doc="that must be measured, from 0"), features_used=integer("features", low=0)
):
    """Classes of the test series by a ridge classifier on the features chosen from the training series."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels, train, test = np.asarray(labels), np.asarray(train, float), np.asarray(test, float)
    refuse_classes(labels)
    centre, spread = train.mean((0, 2), keepdims=True), train.std((0, 2), keepdims=True)
    both = (np.concatenate([train, test]) - centre) / (spread + 1e-8)
    steps = [2**j for j in range(dilations) if 8 * 2**j < train.shape[2]]
    kept, channel_of = [], []
    for channel in range(train.shape[1]):
        features = np.concatenate([two_layers(both[:, channel], kernel, d) for kernel in KERNELS for d in steps], axis=1)
        features = features[:, varying(features[: len(train)])]
        if features.shape[1]:
            best = np.argsort(-f_statistics(features[: len(train)], labels), kind="stable")[: 3 * count]
            kept.append(features[:, best])
            channel_of += [channel] * len(best)
    if not kept:
        raise DomainError("train must vary between series; all features of it are constant.")
    features = np.concatenate(kept, axis=1)
    chosen = mrmr_select(features[: len(train)], labels, count)["order"]
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=np.logspace(-3, 3, 10))).fit(features[: len(train), chosen], labels)
    return {"predictions": model.predict(features[len(train) :, chosen]), "channels_used": np.unique(np.array(channel_of)[chosen]), "features_used": len(chosen)}


def without_scale(series, kernel, dilation, *, official_runs):
    return np.concatenate([statistics(dilation**1.5 * response_to(series, kernel, dilation)), scattering_features(series, kernel, dilation)[4:]])


def runs_as_released(series, kernel, dilation, *, official_runs):
    return scattering_features(series, kernel, dilation, official_runs=not official_runs)


@paper.trial(
    Identity(rtol=1e-9, atol=1e-12),
    of=[scattering_features, wavelet_features, base_kernels],
    controls={"no wavelet scale": without_scale, "other way of counting runs": runs_as_released},
    quick=20,
    full=500,
)
def plain_loops(draw, measure):
    """Features equal those of padded double loops, both ways of counting runs; a constant is not seen inside; scaling the series scales magnitudes alone."""
    dilation, official, kernel = draw.choice([1, 2, 4]), draw.choice([True, False]), base_kernels()["kernels"][draw.integer(0, 83)]
    x, scale = draw.normal(size=draw.integer(8 * dilation + 1, 60)) + 0.5 * draw.normal(), draw.log_uniform(0.1, 10)

    def looped(values):
        c, run, longest = [], 0, 0
        for i in range(len(values)):
            taps = [(kernel[t], i + (t - 4) * dilation) for t in range(9)]
            c.append(sum(w * values[at] for w, at in taps if 0 <= at < len(values)) / (dilation * math.sqrt(dilation)))
        for value in c:
            longest = longest if official and value > 0 else max(longest, run + (value > 0))
            run = run + 1 if value > 0 else 0
        return np.abs(c), [sum(v > 0 for v in c) / len(c), max(map(abs, c)), longest / len(c), min(map(abs, c))]

    magnitude, first = looped(x)
    second = looped(magnitude[::2])[1]
    found = measure(x, kernel, dilation, official_runs=official)
    scaled = measure(scale * x, kernel, dilation, official_runs=official) / np.tile([1, scale, 1, scale], 2)
    inside = wavelet_features(np.full(len(x), scale), kernel, dilation)["response"][4 * dilation : len(x) - 4 * dilation]
    first_layer = wavelet_features(x, kernel, dilation, official_runs=official)
    single = [first_layer[key] for key in ("ppv", "max_abs", "longest_run", "min_abs")]
    return [*first, *second, *first, *second, 0.0, *first], [*found, *scaled, np.abs(inside).max(), *single], {"dilation": dilation, "length": len(x)}


def by_relevance(features, labels, count):
    order = np.argsort(-f_statistics(features, labels), kind="stable")[:count]
    return {"order": order}


@paper.trial(Guarantee(), of=[mrmr_select], controls={"relevance alone": by_relevance}, quick=40, full=2000)
def no_duplicates(draw, select):
    """A copy of the first feature is not chosen second where another tells at least half as much and correlates with it by less than half."""
    labels, spread = np.repeat([0, 1], 40), draw.uniform(0.8, 1.2)
    first, other, noise = (labels * tells + draw.rng.normal(size=80) * spread for tells in (1, 1, 0))
    x = np.stack([first, first, other, noise], 1)
    f, order = f_statistics(x, labels), select(x, labels, 2)["order"]
    promised = order[0] in (0, 1) and f[2] >= f[0] / 2 and abs(np.corrcoef(first, other)[0, 1]) < 0.5
    return not (promised and order[1] in (0, 1))


def labels_shuffled(train, labels, test, **options):
    return lightwave_classifier(train, np.random.default_rng(0).permutation(labels), test, **options)


@paper.trial(Prediction("chance", at_most=0.05, metric="mae"), of=[lightwave_classifier], controls={"labels shuffled": labels_shuffled}, quick=1, full=5)
def one_channel_tells(draw, classify):
    """Of six noisy channels one changes its frequency with the class: at most one test series in twenty goes wrong with 50 features, and that channel is used."""
    labels, period = np.arange(100) % 2, np.where(np.arange(100) % 2, 8.0, 12.0)
    series = draw.rng.normal(size=(100, 6, 64))
    series[:, 2] += 2 * np.sin(2 * math.pi * (np.arange(64) / period[:, None] + draw.rng.uniform(size=(100, 1))))
    found = classify(series[:50], labels[:50], series[50:], count=50, dilations=2)
    wrong = float(np.mean(found["predictions"] != labels[50:]))
    used = 2 in found["channels_used"] and found["features_used"] <= 50
    return Forecast(np.zeros(1), np.array([wrong if used else 1.0]), np.array([0.5]))


@paper.finding(
    """The released loop records a run above 0 only when it is interrupted: of a falling series, whose response stays above 0 to the end, it reports a longest run of 0 where the
    true one is nearly all of the series."""
)
def last_run_is_lost():
    falling, kernel = np.arange(64.0)[::-1] ** 2, KERNELS[0]  # the 2s come first
    true, released = (wavelet_features(falling, kernel, 1, official_runs=official)["longest_run"] for official in (False, True))
    return {"holds": true > 0.9 and released < 0.05, "true": true, "released": released}


@paper.finding("""A feature that separates the classes perfectly, without any variance inside them, has an infinite F, which the selection sets to 0: it is chosen last.""")
def perfect_feature_is_dropped():
    rng, labels = np.random.default_rng(0), np.repeat([0, 1], 20)
    x = np.column_stack([labels, labels + rng.normal(size=40), rng.normal(size=(40, 3))]).astype(float)
    order = mrmr_select(x, labels, 5)["order"].tolist()
    return {"holds": order[-1] == 0, "order": order}
