"""Which stored model to use next: rules over an error table of old models by period, their distance to the best stored model, and the most similar period."""

import numpy as np

from lawbook.contract import DomainError, Paper, choice, count, integer, matrix, nonnegative, probability, real, record, vector
from lawbook.numerics.robust import damped_newton
from lawbook.trials import Forecast, Guarantee, Identity, Inequality, Prediction

paper = Paper(
    __name__,
    title="Can We Recycle Our Old Models? An Empirical Evaluation of Model Selection Mechanisms for AIOps Solutions",
    arxiv="2505.02961",
    tags=["concept drift", "model selection", "AIOps", "retraining", "monitoring", "operations"],
    source="derived",
    says="""Where data drift, teams retrain every period and throw the old models away, though an old one may fit a situation that returns. Among ways of choosing from the stored
    models for the next period, rules that go by the periods just before do well and often beat plain retraining, but stay clearly below the oracle that always picks the
    best stored model.""",
    notes="""An empirical paper, of which the abstract was seen: the rules are restated here. Model i is the one trained on period i, usable from period i+1 on; its error in its
    own period is optimistic unless scored on a part held out. Window-best takes the mean over the periods after training, since a sum would favour young models. Equal
    errors go to the most recent model; a model without any error in the window is out, and where all are out the newest model is taken, as by retraining.""",
)

RULES = ("retrain", "stationary", "previous-best", "window-best", "oracle")
ERRORS = matrix(
    "K",
    "T",
    of=nonnegative(nan=True, typical=(0, 1)),
    most=8,
    doc="error of model i (trained on period i) in period t; NaN where it was not evaluated",
    example=[[0.1, 0.4, 0.1, 0.4, 0.1], [0.5, 0.2, 0.5, 0.2, 0.5], [np.nan, 0.4, 0.1, 0.5, 0.2], [np.nan, np.nan, np.nan, 0.2, 0.4]],
)
LONG = {"errors must have at least 3 periods": lambda errors: errors.shape[1] >= 3}


def sample_errors(rng):
    errors = rng.random((int(rng.integers(2, 9)), int(rng.integers(3, 9))))
    return {"errors": np.where(rng.random(errors.shape) < rng.choice([0, 0.2]), np.nan, errors)}


def latest_best(scores, newest):
    """Index of the smallest score, of equal ones the last; `newest` where none is known."""
    if np.isnan(scores).all():
        return newest
    return int(np.flatnonzero(scores == np.nanmin(scores))[-1])


@paper.algorithm(
    r"i_t = \arg\min_{i < t} E_{i, t-1},\quad \arg\min_{i<t} \operatorname{mean}_{\max(t-w, i+1) \le u < t} E_{i,u},\quad t - 1,\quad 0,\quad \arg\min_{i<t} E_{i,t}",
    requires=LONG,
    sample=lambda rng: sample_errors(rng) | {"rule": str(rng.choice(RULES)), "window": int(rng.integers(1, 6))},
)
def select_models(
    errors: ERRORS,
    *,
    rule: choice(
        *RULES,
        doc="newest model, first model, best in the period before, best on average over the window after its training, or best in the period itself",
        example="previous-best",
    ),
    window: count("periods", typical=(1, 6), doc="w of window-best") = 3,
) -> vector("T", of=integer(low=-1, doc="model, counted from 0; -1 where there is none yet")):
    """The model that a rule uses in each period: only models trained before it, and, but for the oracle, only errors of periods before it."""
    errors, chosen = np.asarray(errors, float), []
    for t in range(errors.shape[1]):
        usable = errors[:t]
        newest = len(usable) - 1
        if newest < 0 or rule == "retrain":
            chosen.append(newest)
        elif rule == "stationary":
            chosen.append(0)
        elif rule == "window-best":
            seen = usable[:, max(t - window, 0) : t]
            seen = np.where(np.arange(len(usable))[:, None] < np.arange(max(t - window, 0), t), seen, np.nan)  # after its training
            terms = (~np.isnan(seen)).sum(1)
            chosen.append(latest_best(np.where(terms > 0, np.nansum(seen, 1) / np.maximum(terms, 1), np.nan), newest))
        else:
            chosen.append(latest_best(usable[:, t if rule == "oracle" else t - 1], newest))
    return np.array(chosen)


@paper.measure(
    r"\text{regret} = \overline{E_{i_t, t} - \min_{i<t} E_{i,t}} \ge 0,\quad "
    r"\text{gap closed} = \frac{\overline{E}_{\text{retrain}} - \overline{E}}{\overline{E}_{\text{retrain}} - \overline{E}_{\text{oracle}}}",
    requires={
        **LONG,
        "chosen must name models of errors, trained before the period that they are used in": lambda chosen, errors: all(
            i < min(t, errors.shape[0]) for t, i in enumerate(chosen) if i >= 0
        ),
    },
    sample=lambda rng: (given := sample_errors(rng)) | {"chosen": select_models(given["errors"], rule=str(rng.choice(RULES)))},
)
def selection_report(
    errors: ERRORS, chosen: vector("T", of=integer(low=-1, typical=(-1, 3)), doc="model used in each period, counted from 0; -1 where none", example=[-1, 0, 0, 1, 2])
) -> record(
    mean_error=nonnegative(doc="of the models chosen"),
    oracle_error=nonnegative(doc="of the best stored model in each period"),
    retrain_error=nonnegative(doc="of the newest model in each period"),
    regret=nonnegative(doc="mean_error over oracle_error"),
    gap_closed=real(
        high=1 + 1e-9, nan=True, doc="share of the distance from retraining to the oracle; negative where retraining is better; NaN where the oracle is no better than retraining"
    ),
):
    """How a choice of models did, beside retraining and the best stored model, over the periods in which the chosen and the newest model have known errors."""
    errors, chosen = np.asarray(errors, float), np.asarray(chosen)
    periods = np.arange(errors.shape[1])
    newest, best = (select_models(errors, rule=rule) for rule in ("retrain", "oracle"))
    of_chosen, of_newest, of_best = (errors[i, periods] for i in (chosen, newest, best))
    counted = (chosen >= 0) & ~np.isnan(of_chosen) & ~np.isnan(of_newest)
    if not counted.any():
        raise DomainError("chosen must name, in one period at least, a model with a known error where the newest model has one too.")
    mean, oracle, retrain = (float(values[counted].mean()) for values in (of_chosen, of_best, of_newest))
    room = float((of_newest - of_best)[counted].mean())  # exactly 0 where the newest model is the best one throughout
    return {
        "mean_error": mean,
        "oracle_error": oracle,
        "retrain_error": retrain,
        "regret": float((of_chosen - of_best)[counted].mean()),
        "gap_closed": float((of_newest - of_chosen)[counted].mean()) / room if room > 0 else np.nan,
    }


@paper.algorithm(
    r"\arg\min_p \frac1d \sum_{j=1}^{d} \sup_x |F_{p,j}(x) - F_j(x)|",
    requires={
        "periods must number the periods 0, 1, ... with a row of reference in each": lambda periods: len(np.unique(periods)) == np.max(periods) + 1,
        "reference must have the columns of current": lambda reference, current: reference.shape[1] == current.shape[1],
    },
    sample=lambda rng: {"reference": rng.normal(size=(12, 2)), "periods": rng.permutation(np.arange(12) % 3), "current": rng.normal(size=(5, 2))},
)
def most_similar_period(
    reference: matrix("N", "d", of=real(typical=(-3, 3)), doc="features of all stored periods", example=[[0.0, 1.0], [0.1, 1.2], [3.0, 0.5], [3.2, 0.7], [2.9, 0.6]]),
    periods: vector("N", of=count(low=0, typical=(0, 3)), doc="period of each row, from 0", example=[0, 0, 1, 1, 1]),
    current: matrix("m", "d", of=real(typical=(-3, 3)), doc="features of now, without labels", example=[[3.1, 0.6], [2.8, 0.55]]),
) -> record(index=count(low=0, doc="of equal periods the last"), statistics=vector("P", of=probability(), doc="mean over the columns of the Kolmogorov-Smirnov statistic")):
    """The stored period whose features are distributed most like the current ones: its model is the one that similarity chooses."""
    from scipy.stats import ks_2samp

    order = np.argsort(periods, kind="stable")
    parts = np.split(np.asarray(reference, float)[order], np.cumsum(np.bincount(periods))[:-1])
    columns = range(np.shape(current)[1])
    with np.errstate(divide="ignore"):  # in the p-value of single rows, which is not used
        statistics = np.array([np.mean([ks_2samp(part[:, j], current[:, j], method="asymp").statistic for j in columns]) for part in parts])
    return {"index": latest_best(statistics, 0), "statistics": statistics}


def logistic_stream(rng, stay, periods=40, records=200, concepts=4, features=5):
    """Error table of ridge-logistic models trained on half of each period and scored on the other halves, while concepts, of another slope each, come and go."""
    weights, concept, at = 3 * rng.normal(size=(concepts, features)), 0, []
    for _ in range(periods):
        concept = concept if rng.random() < stay else int((concept + rng.integers(1, concepts)) % concepts)
        at.append(concept)
    x = np.pad(rng.normal(size=(periods, records, features)), ((0, 0), (0, 0), (0, 1)), constant_values=1.0)  # a column of ones for the intercept
    y = rng.random((periods, records)) < 1 / (1 + np.exp(-np.einsum("prf,pf->pr", x[..., :-1], weights[at])))
    trained, signs, ridge = x[:, : records // 2], 2 * y[:, : records // 2] - 1, np.append(np.ones(features), 0.0)

    def penalised(points, rows):
        z, m = trained[rows] * signs[rows, :, None], points[:, None]
        margin = (z * m).sum(2)
        wrong = 1 / (1 + np.exp(margin))
        hessian = np.einsum("irf,ir,irg->ifg", z, wrong * (1 - wrong), z) + np.diag(ridge)
        return np.logaddexp(0, -margin).sum(1) + points**2 @ ridge / 2, points * ridge - (z * wrong[:, :, None]).sum(1), hessian, hessian

    models, _ = damped_newton(penalised, np.zeros((periods, features + 1)), rtol=1e-8)
    return np.mean((np.einsum("prf,if->ipr", x[:, records // 2 :], models) > 0) != y[:, records // 2 :], 2)


def previous_worst(errors, *, rule):
    return select_models(1 - errors, rule=rule)


def first_model(errors, *, rule):
    return select_models(errors, rule="stationary")


@paper.trial(
    Prediction(baseline="retraining every period", metric="mae"),
    of=[select_models, selection_report],
    controls={"the model that was worst": previous_worst, "the first model": first_model},
    quick=40,
    full=400,
)
def recurring_concepts(draw, claim):
    """Where one of four concepts holds for 20 periods on average and then another returns, the model that was best in the period before errs less than the newest."""
    errors = logistic_stream(draw.rng, 0.95)
    report = selection_report(errors, claim(errors, rule="previous-best"))
    return Forecast(0.0, report["mean_error"], report["retrain_error"])


def earliest_of_equals(errors, *, rule, window):
    return select_models(errors + 1e-9 * np.arange(len(errors))[:, None], rule=rule, window=window)


def peeking(errors, *, rule, window):
    """Looks at the errors of the period that it chooses for."""
    return select_models(errors, rule="oracle", window=window) if rule == "previous-best" else select_models(errors, rule=rule, window=window)


def by_listing(errors, rule, window):
    """Each rule spelled out for each period, over lists of (score, recency)."""
    chosen, (models, periods) = [], errors.shape
    for t in range(periods):
        usable = range(min(t, models))
        seen = {
            "retrain": lambda i: [-i],
            "stationary": lambda i: [i],
            "previous-best": lambda i, t=t: [errors[i, t - 1]],
            "window-best": lambda i, t=t: [errors[i, u] for u in range(max(t - window, 0), t) if u > i],
            "oracle": lambda i, t=t: [errors[i, t]],
        }[rule]
        scored = [(np.mean(known), -i) for i in usable if (known := [e for e in seen(i) if not np.isnan(e)])]
        chosen.append(-min(scored)[1] if scored else len(usable) - 1)
    return chosen


@paper.trial(
    Identity(),
    of=[select_models],
    controls={"peeking": peeking, "the earliest of equals": earliest_of_equals},
    quick=100,
    full=5000,
)
def rules_by_listing(draw, claim):
    """Every rule chooses as listed period by period, equal and missing errors included; but for the
    oracle, what comes later changes no choice; where errors repeat, previous-best is the oracle."""
    models, periods, window = draw.integer(1, 8), draw.integer(3, 8), draw.integer(1, 6)
    errors = draw.rng.integers(0, 4, (models, periods)) / 4
    errors[draw.rng.random(errors.shape) < draw.choice([0.0, 0.3])] = np.nan
    chosen = [claim(errors, rule=rule, window=window) for rule in RULES]
    now = draw.integer(1, periods - 1)
    later = np.where(np.arange(periods) < now, errors, draw.rng.random(errors.shape))
    causal = [claim(later, rule=rule, window=window)[: now + 1] for rule in RULES[:-1]]
    repeated = errors.copy()
    repeated[:, now] = repeated[:, now - 1]
    same = [claim(repeated, rule=rule, window=window)[now] for rule in ("previous-best", "oracle")]
    expected = [by_listing(errors, rule, window) for rule in RULES]
    return np.concatenate([*chosen, *causal, same[:1]]), np.concatenate([*expected, *(c[: now + 1] for c in chosen[:-1]), same[1:]]), {"models": models, "periods": periods}


def against_the_first(errors, chosen):
    first = selection_report(errors, select_models(errors, rule="stationary"))["mean_error"]
    return {"regret": selection_report(errors, chosen)["mean_error"] - first, "gap_closed": 0.0}


@paper.trial(Inequality(search=0), of=[selection_report, select_models], controls={"regret against the first model": against_the_first}, quick=150, full=5000)
def oracle_is_the_ceiling(draw, claim):
    """No rule does better than the best stored model in any random table of errors, nor closes more than the whole gap."""
    errors = draw.rng.random((draw.integer(2, 10), draw.integer(3, 10)))
    found = [claim(errors, select_models(errors, rule=rule, window=draw.integer(1, 5))) for rule in RULES]
    gaps = [0.0 if np.isnan(report["gap_closed"]) else report["gap_closed"] for report in found]
    return [0.0] * len(found) + gaps, [report["regret"] for report in found] + [1.0] * len(found)


def largest_column(reference, periods, current):
    parts = [reference[periods == p] for p in range(periods.max() + 1)]
    return {"statistics": [max(most_similar_period(part[:, [j]], np.zeros(len(part), int), current[:, [j]])["statistics"][0] for j in range(current.shape[1])) for part in parts]}


@paper.trial(Guarantee(), of=[most_similar_period], controls={"largest over the columns": largest_column}, quick=60, full=2000)
def similarity_by_counting(draw, claim):
    """The statistics are the largest differences of counted shares over all values, averaged over columns, and the period chosen has the smallest."""
    groups, rows, columns = draw.integer(1, 5), draw.integer(5, 40), draw.integer(1, 4)
    periods = draw.rng.permutation(np.arange(rows) % groups)
    reference, current = draw.rng.integers(0, 6, (rows, columns)) / 2, draw.rng.integers(0, 6, (draw.integer(1, 20), columns)) / 2
    share = [[[np.mean(part[:, j] <= v) for v in np.arange(6) / 2] for j in range(columns)] for part in (*(reference[periods == p] for p in range(groups)), current)]
    expected = np.abs(np.array(share[:-1]) - np.array(share[-1])).max(2).mean(1)
    found = claim(reference, periods, current)
    return bool(np.allclose(found["statistics"], expected, atol=1e-12)) and abs(expected[found.get("index", 0)] - expected.min()) < 1e-12


@paper.finding(
    """What the period before says about old models helps only where situations stay for a while: with concepts that last 20 periods on average previous-best errs less than
    retraining, with concepts that change every period it does not, and in neither case is half of the gap to the best stored model closed. The mean over a window of
    three periods, which leaves a model's own period out and so the newest model altogether, errs more than retraining even where situations stay.""",
    trial=recurring_concepts,
)
def persistence_is_needed():
    found = {}
    for name, stay in (("staying", 0.95), ("changing", 0.0)):
        tables = [logistic_stream(np.random.default_rng(key), stay) for key in range(20)]
        for rule in ("previous-best", "window-best", "retrain", "oracle"):
            found[f"{name}_{rule.replace('-', '_')}"] = float(np.mean([selection_report(errors, select_models(errors, rule=rule))["mean_error"] for errors in tables]))
        found[f"{name}_gap_closed"] = (found[f"{name}_retrain"] - found[f"{name}_previous_best"]) / (found[f"{name}_retrain"] - found[f"{name}_oracle"])
    holds = 0 < found["staying_gap_closed"] < 0.5 and abs(found["changing_gap_closed"]) < 0.02 and found["staying_window_best"] > found["staying_retrain"]
    return {"holds": holds, **found}
