"""Tables of people or units: disparities and what they hide in each other, the accuracy that fairness leaves, gaps seen through a proxy, effects under hidden confounding."""

import math

import numpy as np

from ...chapters.trust.fair_gnn_noisy_attribute import group_fairness, proxy_quality, true_gap_from_proxy
from ...chapters.trust.federated_fairness_pid import disparities_from_records, disparity_decomposition, fairness_frontier
from ...chapters.trust.propensity_causal_bounds import effect_interval, manski_interval
from ...numerics.statistics import clopper_pearson
from .sheet import Picture, Series, percent

PID, PROXY, CAUSAL = "federated-fairness-pid", "fair-gnn-noisy-attribute", "propensity-causal-bounds"
FEWEST = 30  # records of a group
MOST_CLIENTS = 60  # for which the decomposition and the frontier are solved
RESAMPLES, TABLES = 400, 200  # of records for an effect, of tables for disparities
SOLVED = 1e-6  # error to which the frontier is solved
FRONTIER = (0.0, 0.25, 0.5, 1.0)  # limits of both disparities, as shares of what they are now


def measures(columns, sheet, *, outcome_low=None, outcome_high=None, seed=0, **_):
    """`columns` has sensitive, client, prediction or label, estimated; or treatment and outcome."""
    columns = {name: np.asarray(values) for name, values in columns.items()}
    if "treatment" in columns and "outcome" in columns:
        causal(columns, sheet, outcome_low, outcome_high, seed)
    decided = columns.get("prediction", columns.get("label"))
    if decided is not None and "sensitive" in columns:
        fairness(columns, decided, "prediction" if "prediction" in columns else "label", sheet, seed)


def fairness(columns, decided, name, sheet, seed):
    """Rates by group, the largest gap, and where a client column is given, how global and local disparity split."""
    sheet.section = "Fairness"
    groups, z = np.unique(columns["sensitive"].astype(str), return_inverse=True)
    answers, y = np.unique(decided, return_inverse=True)
    if len(answers) != 2:
        sheet.distrust("parity", f"{PROXY}.group_fairness", f"It takes a {name} of two values; here are {len(answers)}.")
        return
    table = np.zeros((len(groups), 2), int)
    np.add.at(table, (z, y), 1)
    few = [str(groups[i]) for i in np.flatnonzero(table.sum(1) < FEWEST)]
    kept = np.flatnonzero(table.sum(1) >= FEWEST)
    if few:
        sheet.said.append(f"Groups of fewer than {FEWEST} records are in no gap: {', '.join(few)}.")
    if len(kept) < 2:
        sheet.distrust("parity", f"{PROXY}.group_fairness", f"It takes two groups of {FEWEST} records.")
        return
    rates = table[:, 1] / table.sum(1)
    ends = np.array([clopper_pearson(int(a), int(n), sheet.level) for a, n in zip(table[:, 1], table.sum(1), strict=True)])
    sheet.tables["Rates by group"] = {
        "group": groups.tolist(),
        "records": table.sum(1).tolist(),
        f"rate of {answers[1]}": rates.tolist(),
        "low": ends[:, 0].tolist(),
        "high": ends[:, 1].tolist(),
    }
    low, high = kept[rates[kept].argmin()], kept[rates[kept].argmax()]
    pair = np.isin(z, (low, high))
    found = group_fairness(y[pair].astype(float), (z[pair] == high).astype(int))
    # Newcombe's interval of a difference of two shares
    down = math.hypot(rates[high] - ends[high, 0], ends[low, 1] - rates[low])
    up = math.hypot(ends[high, 1] - rates[high], rates[low] - ends[low, 0])
    parity = sheet.add(
        "parity gap",
        f"{PROXY}.group_fairness",
        found["parity"],
        low=max(found["parity"] - down, 0.0),
        high=found["parity"] + up,
        interval="Newcombe, from exact intervals of both rates",
        meaning=f"{groups[high]} ({percent(rates[high])} {answers[1]}) against {groups[low]} ({percent(rates[low])}): the largest gap of {len(kept)} groups.",
    )
    from scipy.stats import chi2_contingency

    sheet.test(
        f"{name} does not depend on the group", f"{PROXY}.group_fairness", chi2_contingency(table[kept], correction=False).pvalue, meaning="Chi-square of the table of groups."
    )
    sheet.headlines.append(
        f"{groups[high]} have the {name} {answers[1]} in {percent(rates[high])} of the records, {groups[low]} in {percent(rates[low])}: a gap of {percent(parity.value)}."
    )
    if "client" in columns:
        _decomposition(z, columns["client"].astype(str), y, sheet, seed)
    if "estimated" in columns:
        _proxy(columns, z, y, sheet)


def _decomposition(z, client, y, sheet, seed):
    """Unique, redundant and masked disparity, with intervals from resampled tables; the error that both limits leave."""
    clients, s = np.unique(client, return_inverse=True)
    if len(clients) > MOST_CLIENTS or len(clients) < 2:
        sheet.distrust("disparities", f"{PID}.disparity_decomposition", f"It takes 2 to {MOST_CLIENTS} clients; here are {len(clients)}.")
        return
    found = disparities_from_records(z, s, y)
    counts = np.zeros((len(clients), z.max() + 1, 2))
    np.add.at(counts, (s, z, y), 1)
    rng, total = np.random.default_rng(seed), counts.sum()
    drawn = [disparity_decomposition(table.reshape(counts.shape)) for table in rng.multinomial(int(total), counts.ravel() / total, TABLES)]
    for name, meaning in NAMES.items():
        low, high = np.quantile([d[name] for d in drawn], [(1 - sheet.level) / 2, (1 + sheet.level) / 2])
        # shares that scatter make every disparity look larger, and resampling adds as much again: the basic interval takes it off
        ends = {"low": max(2 * found[name] - float(high), 0.0), "high": max(2 * found[name] - float(low), 0.0)}
        sheet.add(
            name.replace("_", " "), f"{PID}.disparities_from_records", found[name], unit="nats", meaning=meaning, interval=f"basic bootstrap over records, {TABLES} tables", **ends
        )
    hidden = "masked" if found["masked"] > max(found["unique"], found["redundant"]) else "redundant" if found["redundant"] > found["unique"] else "unique"
    sheet.headlines.append(
        f"Over {len(clients)} clients the disparity is {found['global_disparity']:.2g} nats overall and {found['local_disparity']:.2g} inside clients; most of it is"
        f" {hidden}: {WORDS[hidden]}."
    )
    joint = counts / total
    errors = [fairness_frontier(joint, share * found["global_disparity"], share * found["local_disparity"])["error"] for share in FRONTIER]
    errors = [error if error > SOLVED else 0.0 for error in errors]
    sheet.tables["Least error under both limits"] = {"share of today's disparities": list(FRONTIER), "least error of any method": errors}
    sheet.add(
        "least error of a fair method",
        f"{PID}.fairness_frontier",
        errors[0],
        meaning="With both disparities at 0, for any method whatever it may use, the outcome itself included.",
    )
    sheet.pictures.append(Picture("What fairness leaves", "limit, as a share of today's disparities", "least error of any method", [Series("least error", FRONTIER, errors)]))


NAMES = {
    "global_disparity": "What the answer tells about the group, over everybody.",
    "local_disparity": "What it tells inside clients.",
    "unique": "Shows in both views: not explained by the client.",
    "redundant": "Shows over everybody and vanishes inside clients: clients differ.",
    "masked": "Shows inside clients and cancels over everybody.",
    "attribute_client": "What the client tells about the group: an upper limit of the redundant part.",
}
WORDS = {
    "unique": "it is there in both views",
    "redundant": "it comes from differences between clients",
    "masked": "it is hidden inside clients and cancels over all of them",
}


def _proxy(columns, z, y, sheet):
    """The gap over an estimated attribute, carried over to the true one by how good the estimate is where the truth is known."""
    values, estimated = np.unique(columns["estimated"].astype(str), return_inverse=True)
    if z.max() != 1 or len(values) != 2:
        sheet.distrust(
            "true gap through the proxy",
            f"{PROXY}.true_gap_from_proxy",
            f"It takes a sensitive attribute and an estimate of two values each; they have {z.max() + 1} and {len(values)}.",
        )
        return
    quality = proxy_quality(z, estimated, predictions=y.astype(float))
    gap = abs(y[estimated == 1].mean() - y[estimated == 0].mean())
    sheet.add(
        "factor of the proxy",
        f"{PROXY}.proxy_quality",
        quality["factor"],
        meaning="P(s = 1 | estimate 1) - P(s = 1 | estimate 0): a gap over the estimate shows this share of the true gap.",
    )
    sheet.add(
        "dependence given the truth",
        f"{PROXY}.proxy_quality",
        quality["conditional_dependence"],
        meaning="0 where the estimate errs independently of the answer, which carrying the gap over assumes.",
    )
    if quality["conditional_dependence"] > 0.1 or abs(quality["factor"]) < 0.1:
        sheet.distrust(
            "true gap through the proxy", f"{PROXY}.true_gap_from_proxy", "The estimate is too weak, or its errors depend on the answer: the gap over it cannot be carried over."
        )
        return
    sheet.add(
        "true gap through the proxy",
        f"{PROXY}.true_gap_from_proxy",
        true_gap_from_proxy(gap, quality["alpha_one"], quality["alpha_zero"]),
        meaning=f"The gap over the estimate is {gap:.3f}.",
    )


def causal(columns, sheet, low, high, seed):
    """The effect of a treatment: the difference of means, and what is left of it when confounding is not excluded."""
    sheet.section = "Effect of the treatment"
    y = columns["outcome"].astype(float)
    arms, a = np.unique(columns["treatment"], return_inverse=True)
    if len(arms) != 2 or min(np.bincount(a)) < FEWEST:
        sheet.distrust("effect", f"{CAUSAL}.effect_interval", f"It takes two arms of {FEWEST} records; here are {np.bincount(a).tolist()}.")
        return
    from scipy.stats import ttest_ind

    apart = ttest_ind(y[a == 1], y[a == 0], equal_var=False)
    ends = apart.confidence_interval(sheet.level)
    plain = sheet.add(
        "difference of means",
        f"{CAUSAL}.effect_interval",
        y[a == 1].mean() - y[a == 0].mean(),
        low=ends.low,
        high=ends.high,
        interval="Welch",
        meaning="The effect, if nothing that decides on the treatment also decides on the outcome.",
    )
    found = effect_interval(y, a)
    sheet.add(
        "effect, whatever the confounding",
        f"{CAUSAL}.effect_interval",
        None,
        low=found["lower"],
        high=found["upper"],
        interval="divergences capped by the propensity; no sampling error in it",
        meaning="The ends bound the effect relative to the outcomes seen; nothing between them is more likely.",
    )
    shares = np.bincount(a) / len(a)
    given = {"low": low, "high": high}
    ends = [manski_interval(y[a == arm], shares[arm], **given) for arm in (0, 1)]
    lower, upper = ends[1]["lower"] - ends[0]["upper"], ends[1]["upper"] - ends[0]["lower"]
    rng = np.random.default_rng(seed)
    draws = np.array([_manski(y[i], a[i], given) for i in (rng.integers(0, len(y), len(y)) for _ in range(RESAMPLES))])
    reach = np.quantile(draws[:, 0], (1 - sheet.level) / 2), np.quantile(draws[:, 1], (1 + sheet.level) / 2)
    sheet.add(
        "effect, by Manski's bounds",
        f"{CAUSAL}.manski_interval",
        None,
        low=float(min(reach[0], lower)),
        high=float(max(reach[1], upper)),
        interval=f"bounds {lower:.4g} to {upper:.4g}, widened for sampling by the bootstrap",
        meaning="Never wider than the former; they hold while outcomes stay within "
        + ("the range given." if low is not None and high is not None else "the range seen, which the log cannot promise: give outcome_low and outcome_high."),
    )
    crosses = lower <= 0 <= upper
    sheet.headlines.append(
        f"The arms differ by {plain.value:.3g} ({plain.low:.3g} to {plain.high:.3g}); with arbitrary hidden confounding the effect lies between {lower:.3g} and {upper:.3g}"
        f"{', so that even its sign is open' if crosses else ''}."
    )


def _manski(y, a, given):
    shares = np.bincount(a, minlength=2) / len(a)
    ends = [manski_interval(y[a == arm], shares[arm], **given) for arm in (0, 1)]
    return ends[1]["lower"] - ends[0]["upper"], ends[1]["upper"] - ends[0]["lower"]
