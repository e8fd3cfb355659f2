"""Benchmark scores by family: fit Sloth to a table of models, and say how well the larger members of a family are foretold."""

import math
import re
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from ..artifacts.headers import NAMES
from ..artifacts.tables import read_runs
from ..chapters.scaling.sloth_skills import features, fit, forecast, forecast_alone, held_out, logistic
from ..contract import DomainError, LawbookError, Shown
from ..contract import seed as seed_quantity

LAW = "sloth-skills.predict_scores"
FAMILY, MODEL = ("family", "modelfamily", "series", "modelseries"), ("model", "modelname", "name")
# guessing rates: one over the number of choices, averaged over the tasks of BBH and MUSR; 0 where an answer is written out
GUESSING = {0.1: ("mmlupro",), 0.2: ("csqa", "commonsenseqa"), 0.309: ("bbh",), 0.33: ("siqa",), 0.34: ("musr",)}
GUESSING[0.25] = ("mmlu", "arc", "arcc", "arce", "arcchallenge", "arceasy", "hellaswag", "gpqa", "openbookqa", "obqa", "race")
GUESSING[0.5] = ("winogrande", "winograd", "xwinograd", "wsc", "piqa", "boolq", "copa")
GUESSING[0.0] = ("gsm8k", "humaneval", "ifeval", "math", "mathlvl5", "mbpp", "lambada", "triviaqa", "nq", "naturalquestions", "drop")
RATES = {name: rate for rate, names in GUESSING.items() for name in names}
SETTINGS = ("dropout", "weightdecay", "warmup", "warmupratio", "beta1", "beta2", "temperature", "utilization", "mfu")  # shares that are no scores
FEWEST = 10  # models with a score for a column to count as a benchmark
SIBLINGS = 3  # columns of one prefix are taken for the subtasks of a benchmark
SKILLS, RIDGES, GROUPS = (1, 2, 3), (1e-4, 3e-4, 1e-3), 3  # the choice by cross-validation
OUTLYING = 8  # robust standard deviations beyond which a score is flagged


@dataclass(frozen=True)
class Models:
    """The models of a table that can be fitted, and their scores between 0 and 1, NaN where missing."""

    names: list[str]
    params: np.ndarray
    tokens: np.ndarray
    families: np.ndarray
    benchmarks: list[str]
    scores: np.ndarray  # [n, J]
    test: np.ndarray | None  # the rows that a column `split` calls test
    said: list[str]

    def __len__(self):
        return len(self.params)


@dataclass(frozen=True)
class ScoresFit(Shown):
    """Sloth on a table of models, with its error on models held out of it beside those of a curve in compute and of plain means."""

    benchmarks: list[dict[str, Any]]  # best foretold first: name, models, floor, held_out, error, baseline_error, naive_error, half_width
    settings: dict[str, Any]  # skills, ridge, floors ("guessing" or "none"), and how they were chosen
    error: float  # mean absolute error of held-out scores; families weigh the same
    baseline_error: float
    naive_error: float
    coverage: float  # share of the held-out scores inside the intervals from the errors in the other families
    mae: float  # of the fitted scores
    split: str
    held: list[dict[str, Any]]  # held-out scores: model, family, benchmark, observed, predicted, low, high
    off: list[dict[str, Any]]  # scores far off the law
    said: list[str]
    level: float
    constants: dict[str, Any] = field(repr=False)  # slopes, intercepts by family, loadings, offsets, floors
    ranges: dict[str, tuple[float, float]]

    def predict(self, params, tokens, family):
        """Benchmark -> (score, low, high) of a model of a family in the table; DomainError for another family."""
        if family not in self.constants["intercepts"]:
            raise DomainError(f"family must be one of the table ({', '.join(self.constants['intercepts'])}); it was {family!r}.")
        if not (params > 0 and tokens > 0):
            raise DomainError(f"params and tokens must be positive; they were {params} and {tokens}.")
        skills = features(params, tokens) @ self.constants["slopes"] + self.constants["intercepts"][family]
        scores = logistic(skills, *(self.constants[name] for name in ("loadings", "offsets", "floors")))
        widths = {b["name"]: b["half_width"] for b in self.benchmarks}
        return {name: (float(y), *_interval(float(y), widths[name])) for name, y in zip(self.constants["benchmarks"], scores, strict=True)}

    def ranked(self):
        """Columns of the benchmarks, the best foretold first."""
        heads = {
            "name": "benchmark",
            "held_out": "held out",
            "error": "error",
            "baseline_error": "curve in compute",
            "naive_error": "family's mean",
            "half_width": "± 90 %",
            "floor": "floor",
        }
        return {head: [b[key] if isinstance(b[key], str | int) else f"{b[key]:.3f}" for b in self.benchmarks] for key, head in heads.items()}

    def remarks(self):
        """What else there is to say, a sentence each."""
        s, better = self.settings, self.error < min(self.baseline_error, self.naive_error)
        yield (
            f"{LAW}: held-out scores are foretold within {self.error:.4f} on average; a curve in compute with family intercepts: {self.baseline_error:.4f}; "
            f"the mean of the family's smaller members: {self.naive_error:.4f}{'' if better else '   NO BETTER THAN THE BASELINE'}"
        )
        yield f"{s['skills']} skill{'s' if s['skills'] > 1 else ''}, ridge {s['ridge']:g}, floors: {s['floors']} ({s['chosen']}); the fitted scores are met within {self.mae:.4f}"
        yield f"{100 * self.coverage:.0f} % of the held-out scores lie inside their {100 * self.level:g} % intervals, which are made from the errors in other families"
        for o in self.off[:10]:
            yield f"off the law: {o['model']} ({o['family']}) on {o['benchmark']}, {o['observed']:.3f} where the law gives {o['predicted']:.3f}"
        if len(self.off) > 10:
            yield f"and {len(self.off) - 10} more scores lie off the law"

    def to_dict(self):
        return {**self.__dict__, "law": LAW}


def is_score_table(table):
    """Whether a RunsTable holds models by family with their sizes, tokens and at least two benchmarks, and no losses."""
    columns = table.columns
    return {"params", "tokens"} <= columns.keys() and not {"loss", "step"} & columns.keys() and _named(columns, FAMILY) is not None and len(_benchmarks(table)[0]) >= 2


def read_models(source, benchmarks=None):
    """The Models of a table; `benchmarks` names the columns of scores, otherwise all that look like it."""
    table = read_runs(source)
    said, columns = list(table.said), table.columns
    for wanted in ("params", "tokens"):
        if wanted not in columns:
            raise LawbookError(f"A table of scores must have a column {wanted} (or one from which it follows); it has {', '.join(list(columns)[:20])}.")
    family = _named(columns, FAMILY)
    if family is None:
        raise LawbookError(f"A table of scores must have a column family (tried {', '.join(FAMILY)}); it has {', '.join(list(columns)[:20])}.")
    if benchmarks is None:
        benchmarks, remarks = _benchmarks(table)
        said += remarks
    if len(benchmarks) < 2:
        raise LawbookError(
            f"A table of scores must have at least two benchmarks, columns of shares or percents known for {FEWEST} models; it has {', '.join(benchmarks) or 'none'}."
        )
    params, tokens = table.numbers("params"), table.numbers("tokens")
    scores = np.column_stack([table.numbers(name) for name in benchmarks])
    scores[~np.isfinite(scores)] = np.nan
    scores, remarks = _as_shares(scores, benchmarks)
    said += remarks
    families = np.array(["" if _missing(f) else str(f) for f in columns[family]])
    kept = np.full(len(table), True)
    with np.errstate(invalid="ignore"):
        sized = np.isfinite(params) & np.isfinite(tokens) & (params > 0) & (tokens > 0)
    for good, lack in ((sized, "without a positive number of params and tokens"), (families != "", "without a family"), (np.isfinite(scores).any(1), "without a score")):
        if (kept & ~good).any():
            said.append(f"{np.sum(kept & ~good)} of {len(table)} rows {lack} are left out")
        kept &= good
    if kept.sum() < FEWEST:
        raise LawbookError(f"A table of scores must have at least {FEWEST} models with params, tokens, a family and a score; it has {kept.sum()}.")
    model = _named(columns, MODEL)
    names = [str(v) for v in columns[model][kept]] if model else [f"row {i + 1}" for i in np.flatnonzero(kept)]
    test = None
    if "split" in columns and set(np.unique(columns["split"].astype(str)).tolist()) == {"train", "test"}:
        test = columns["split"][kept].astype(str) == "test"
    return Models(names, params[kept], tokens[kept], families[kept], list(benchmarks), scores[kept], test, said)


def fit_scores(source, /, *, benchmarks=None, train_sizes=1, skills=None, ridge=None, floors=None, level=0.9, seed=0, progress=None):
    """Fit Sloth to a table of models by family, and score it on models that the fit had not seen.

    Held out are the models of one family at a time beyond its `train_sizes` smallest sizes, or the rows that a column `split` calls test. `skills`, `ridge` and `floors`
    ("guessing", "none", or benchmark -> floor) that are not given are chosen by cross-validation that never sees the held-out models it is judged by.
    Raises LawbookError where the table lacks params, tokens, families or benchmarks, or where nothing can be held out.
    """
    models = read_models(source, benchmarks)
    seed = seed_quantity().read(seed, "seed")
    options = _options(models, skills, ridge, floors)
    tests, split = _tests(models, train_sizes)
    rates, remarks = _floors(models, floors)
    chosen = "chosen by cross-validation" if max(map(len, options.values())) > 1 else "given"
    if models.test is not None:
        (test,) = tests.values()
        inside = {name: held & ~test for name, held in _siblings(models, train_sizes, ~test).items()}
        groups, settings = [list(tests)], [_choose(models, ~test, inside, options, rates)]
    else:
        order = np.random.default_rng(seed).permutation(sorted(tests)).tolist()
        groups = [order[i::GROUPS] for i in range(min(GROUPS, len(order)))]
        settings = []
        for group in groups:
            hidden = np.any([tests[name] for name in group], axis=0)
            settings.append(_choose(models, ~hidden, {name: test for name, test in tests.items() if name not in group}, options, rates))
            if progress:
                progress("settings chosen")
    own, alone, naive = (np.full(models.scores.shape, np.nan) for _ in range(3))
    for group, setting in zip(groups, settings, strict=True):
        for name in group:
            test = tests[name]
            own[test], alone[test], naive[test] = _foretold(models, test, setting, rates)
            if progress:
                progress(name)
    final = settings[0] if models.test is not None else _choose(models, np.full(len(models), True), tests, options, rates)
    return _result(models, tests, (own, alone, naive), final, rates, chosen, split, [*models.said, *remarks], level)


def _named(columns, spellings):
    return next((name for name in columns if _plain(name) in spellings), None)


def _plain(name):
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def _missing(cell):
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def _benchmarks(table):
    """The columns that look like scores, and what is said of those that don't."""
    found, scales, subtasks = [], [], {}
    for name, column in table.columns.items():
        plain = _plain(name)
        if not plain or name in NAMES or plain in (*FAMILY, *MODEL, *SETTINGS, "split", "date") or column.dtype.kind == "b":
            continue
        try:
            values = table.numbers(name)
        except LawbookError:
            continue  # text
        values = values[np.isfinite(values)]
        whole = (values == np.round(values)).all()  # flags, counts, years; scores where the name says so
        if len(values) < FEWEST or np.ptp(values) == 0 or values.min() < 0 or values.max() > 100 or (whole and plain not in RATES):
            continue
        if 1 < values.max() <= 10:
            scales.append(name)
            continue
        found.append(name)
    for name in found:
        subtasks.setdefault(re.split(r"[_-]", name)[0], []).append(name)
    parts = {prefix: names for prefix, names in subtasks.items() if len(names) >= SIBLINGS}
    rest = [name for name in found if not any(name in names for names in parts.values())]
    said = [f"columns {', '.join(scales)} are left out: their values are neither shares nor percents"] if scales else []
    if parts and len(rest) >= 2:
        listed = ", ".join(f"{len(names)} of {prefix}" for prefix, names in parts.items())
        said.append(f"{sum(map(len, parts.values()))} columns are taken for subtasks and left out ({listed}): name them in benchmarks to fit them")
        found = rest
    return found, [*said, f"fitted as benchmarks: {', '.join(found)}"]


def _as_shares(scores, names):
    """Scores between 0 and 1: a column with values above 1 holds percents."""
    high, low = np.nanmax(scores, axis=0, initial=-np.inf), np.nanmin(scores, axis=0, initial=np.inf)
    for name, top, bottom in zip(names, high, low, strict=True):
        if not np.isfinite(top) or bottom < 0 or top > 100:
            raise LawbookError(f"Column {name} must hold shares (0 to 1) or percents (0 to 100); it holds {f'{bottom:g} to {top:g}' if np.isfinite(top) else 'no numbers'}.")
    percent = high > 1
    said = [f"{', '.join(name for name, p in zip(names, percent, strict=True) if p)} are read as percents"] if percent.any() else []
    if percent.any() and not percent.all():
        said.append(f"{', '.join(name for name, p in zip(names, percent, strict=True) if not p)} are read as shares, since no value is above 1: check the units")
    return np.where(percent, scores / 100, scores), said


def _floors(models, floors):
    """(guessing rates[J], NaN where the lowest fitted score is taken; what is said of them)."""
    if isinstance(floors, dict):
        lacking = [name for name in models.benchmarks if name not in floors]
        if lacking or not all(0 <= floors[name] < 1 for name in models.benchmarks):
            without = f"; there is none for {', '.join(lacking)}" if lacking else ""
            raise LawbookError(f"floors must give each benchmark a number from 0 to below 1{without}.")
        return np.array([float(floors[name]) for name in models.benchmarks]), []
    rates = np.array([RATES.get(_plain(name), np.nan) for name in models.benchmarks])
    unknown = [name for name, rate in zip(models.benchmarks, rates, strict=True) if np.isnan(rate)]
    return rates, [f"no guessing rate is known for {', '.join(unknown)}: the lowest fitted score stands for it"] if unknown and floors != "none" else []


def _options(models, skills, ridge, floors):
    most = len(models.benchmarks)
    if skills is not None and not (skills == int(skills) and 1 <= skills <= most):
        raise LawbookError(f"skills must be a whole number from 1 to the {most} benchmarks; it was {skills}.")
    if ridge is not None and not ridge >= 0:
        raise LawbookError(f"ridge must be at least 0; it was {ridge}.")
    if floors is not None and not isinstance(floors, dict) and floors not in ("guessing", "none"):
        raise LawbookError(f"floors must be guessing, none or a number for each benchmark; it was {floors!r}.")
    kinds = ["guessing", "none"] if floors is None else ["given" if isinstance(floors, dict) else floors]
    return {
        "floors": kinds,
        "skills": [int(skills)] if skills is not None else [d for d in SKILLS if d <= most],
        "ridge": [float(ridge)] if ridge is not None else list(RIDGES),
    }


def _siblings(models, train_sizes, among):
    """Family -> its models beyond its smallest sizes, for the families that have any; all among the rows that may be used."""
    found = {}
    for name in np.unique(models.families[among]):
        try:
            test = held_out(np.where(among, models.params, np.nan), models.families, str(name), train_sizes)
        except DomainError:
            continue
        found[str(name)] = test & among
    return found


def _tests(models, train_sizes):
    """(name -> rows that are foretold together; the split in words)."""
    if train_sizes != int(train_sizes) or train_sizes < 1:
        raise LawbookError(f"train_sizes must be a whole number of at least 1; it was {train_sizes}.")
    if models.test is not None:
        test = models.test & np.isin(models.families, models.families[~models.test])
        lost = np.sum(models.test & ~test)
        if not test.any() or (~models.test).sum() < FEWEST:
            raise LawbookError(f"The column split must leave {FEWEST} train rows, and test rows of their families; it leaves {np.sum(~models.test)} and {test.sum()}.")
        without = f" ({lost} test rows of families without a train row are left out)" if lost else ""
        return {"test": test}, f"fitted on the {np.sum(~models.test)} rows that the column split calls train, tested on {test.sum()} of those it calls test{without}"
    tests = _siblings(models, train_sizes, np.full(len(models), True))
    if not tests:
        raise LawbookError(f"No family has models of more than {train_sizes} sizes, so none can be held out.")
    sizes = "smallest size" if train_sizes == 1 else f"{train_sizes} smallest sizes"
    total = np.sum([test.sum() for test in tests.values()])
    return tests, f"{len(models)} models; for each of {len(tests)} families in turn, its models beyond its {sizes} are foretold from those and all other families ({total} models)"


def _lowest(rates, scores, setting):
    """The floors of a fit to `scores`: never above the lowest score, which the law could not reach."""
    if setting["floors"] == "none":
        return np.zeros(len(rates))
    if setting["floors"] == "given":
        return rates
    lowest = np.minimum(np.nanmin(scores, axis=0, initial=1.0), 0.99)
    return np.fmin(rates, lowest)


def _choose(models, allowed, tests, options, rates):
    """The settings with the least held-out error where the larger members of a third of the families are held out at a time: floors and skills first, then the ridge.

    Only the `allowed` rows are used. With too few families for that: two skills, and the first of the other options.
    """
    names = sorted(tests)
    batches = [np.any([tests[name] for name in names[i::GROUPS]], axis=0) & allowed for i in range(GROUPS)] if len(names) >= GROUPS else []

    def error(setting):
        off = np.full(models.scores.shape, np.nan)
        for batch in batches:
            off[batch] = np.abs(_sloth(models, allowed, batch, setting, rates) - models.scores[batch])
        return np.nan_to_num(_mean_over_families(off, models.families), nan=np.inf)

    def best(settings):
        return min(settings, key=error) if batches and len(settings) > 1 else settings[0]

    numbers = options["skills"] if batches else sorted(options["skills"], key=lambda d: abs(d - 2))
    found = best([{"skills": d, "ridge": options["ridge"][0], "floors": kind} for kind, d in product(options["floors"], numbers)])
    return best([found | {"ridge": ridge} for ridge in options["ridge"]])


def _sloth(models, allowed, test, setting, rates):
    """Scores of the rows `test`, foretold from the other allowed rows."""
    kept = models.scores[allowed]
    floors = _lowest(rates, kept[~test[allowed]], setting)
    x = features(models.params, models.tokens)[allowed]
    return forecast(x, models.families[allowed], kept, test[allowed], floors, setting["skills"], setting["ridge"])


def _foretold(models, test, setting, rates):
    """Scores of the rows `test` three ways: Sloth, a curve in compute with family intercepts, and means of the family's other models (of all, where it has none)."""
    allowed = np.full(len(models), True) if models.test is None else test | ~models.test
    columns = [values[allowed] for values in (models.params, models.tokens, models.families, models.scores)]
    params, tokens, families, scores = columns
    hidden = test[allowed]
    alone = forecast_alone(params, tokens, families, scores, hidden, _lowest(rates, scores[~hidden], setting))
    known = {name: _column_means(scores[~hidden & (families == name)]) for name in np.unique(families[hidden])}
    naive = np.array([known[name] for name in families[hidden]])
    naive = np.where(np.isfinite(naive), naive, _column_means(scores[~hidden]))
    return _sloth(models, allowed, test, setting, rates), alone, naive


def _column_means(scores):
    count = np.isfinite(scores).sum(0)
    return np.where(count > 0, np.nansum(scores, axis=0) / np.maximum(count, 1), np.nan)


def _mean_over_families(errors, families):
    """Mean of errors[n, J], NaN where none; families weigh the same."""
    means = [np.nanmean(errors[families == name]) for name in np.unique(families) if np.isfinite(errors[families == name]).any()]
    return float(np.mean(means)) if means else math.nan


def _half_width(errors, level):
    """The error that a share `level` of new ones stays below, as far as these are exchangeable with them."""
    ordered = np.sort(errors[np.isfinite(errors)])
    return float(ordered[min(math.ceil((len(ordered) + 1) * level), len(ordered)) - 1]) if len(ordered) else math.nan


def _interval(score, width):
    return max(score - width, 0.0), min(score + width, 1.0)


def _result(models, tests, foretold, setting, rates, chosen, split, said, level):
    if not 0 < level < 1:
        raise LawbookError(f"level must be a number between 0 and 1; it was {level}.")
    own = foretold[0]
    errors = [np.abs(values - models.scores) for values in foretold]
    if not np.isfinite(errors[0]).any():
        raise LawbookError("No held-out model has a score, so nothing can be foretold.")
    pooled = [len(e[np.isfinite(e)]) < FEWEST for e in errors[0].T]
    widths = [_half_width(errors[0] if few else e, level) for few, e in zip(pooled, errors[0].T, strict=True)]
    inside = []
    for test in tests.values():
        others = errors[0].copy()
        if len(tests) > 1:
            others[test] = np.nan
        limits = np.array([_half_width(others if np.isfinite(e).sum() < FEWEST else e, level) for e in others.T])
        off = errors[0][test]
        inside += (off <= limits)[np.isfinite(off)].tolist()
    floors = _lowest(rates, models.scores, setting)
    x = features(models.params, models.tokens)
    slopes, intercepts, loadings, offsets = fit(x, models.families, models.scores, floors, setting["skills"], setting["ridge"], restarts=2)
    names, family = np.unique(models.families, return_inverse=True)
    fitted = logistic(x @ slopes + intercepts[family], loadings, offsets, floors)
    residuals = models.scores - fitted
    spread = 1.4826 * np.nanmedian(np.abs(residuals), axis=0)
    far = np.argwhere(np.abs(residuals) > OUTLYING * spread)
    far = sorted(far.tolist(), key=lambda at: -abs(residuals[at[0], at[1]]) / spread[at[1]])
    cells = np.argwhere(np.isfinite(errors[0])).tolist()

    def at(i, j):
        return {"model": models.names[i], "family": str(models.families[i]), "benchmark": models.benchmarks[j], "observed": float(models.scores[i, j])}

    def held(i, j):
        low, high = _interval(own[i, j], widths[j])
        return at(i, j) | {"predicted": float(own[i, j]), "low": float(low), "high": float(high)}

    ranked = [
        {
            "name": name,
            "models": int(np.isfinite(models.scores[:, j]).sum()),
            "held_out": int(np.isfinite(errors[0][:, j]).sum()),
            **{key: _mean_over_families(e[:, [j]], models.families) for key, e in zip(("error", "baseline_error", "naive_error"), errors, strict=True)},
            "half_width": widths[j],
            "floor": float(floors[j]),
        }
        for j, name in enumerate(models.benchmarks)
    ]
    return ScoresFit(
        benchmarks=sorted(ranked, key=lambda b: np.nan_to_num(b["error"], nan=np.inf)),
        settings=setting | {"chosen": chosen},
        error=_mean_over_families(errors[0], models.families),
        baseline_error=_mean_over_families(errors[1], models.families),
        naive_error=_mean_over_families(errors[2], models.families),
        coverage=float(np.mean(inside)),
        mae=float(np.nanmean(np.abs(residuals))),
        split=split,
        held=[held(i, j) for i, j in cells],
        off=[at(i, j) | {"predicted": float(fitted[i, j])} for i, j in far],
        said=said,
        level=level,
        constants={
            "benchmarks": models.benchmarks,
            "slopes": slopes,
            "intercepts": dict(zip(map(str, names), intercepts, strict=True)),
            "loadings": loadings,
            "offsets": offsets,
            "floors": floors,
        },
        ranges={"params": (float(models.params.min()), float(models.params.max())), "tokens": (float(models.tokens.min()), float(models.tokens.max()))},
    )
