"""Scores of several reward heads in groups of one prompt: which head drives the advantages, and the weights that would balance them."""

import numpy as np

from ...chapters.alignment.multi_objective_grpo import balancing_weights, objective_shares, reachable_by_weights
from .sheet import percent

BOOK = "multi-objective-grpo"
MOST_GROUPS = 2000  # whose reachable responses are found, a linear programme each


def measures(prompts, heads, names, sheet, *, weights=None, seed=0, **_):
    """`heads` is a matrix [n, heads] of rewards, `prompts` the group of each row; `weights` of the heads, equal ones without it."""
    sheet.section = "Reward heads"
    heads = np.asarray(heads, float)
    group = np.unique(np.asarray(prompts).astype(str), return_inverse=True)[1]
    w = np.ones(len(names)) / len(names) if weights is None else np.asarray(weights, float)
    order = np.argsort(group, kind="stable")
    groups = [heads[rows] for rows in np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(rows) > 1]
    if len(groups) < 2:
        sheet.distrust("shares of the heads", f"{BOOK}.objective_shares", "It takes two prompts with two responses each.")
        return
    live = [part for part in groups if np.ptp(part @ w) > 0]
    sheet.rate("prompts without a signal", f"{BOOK}.objective_shares", len(groups) - len(live), len(groups), meaning="All responses have the same mixed reward.")
    if len(live) < 2:
        return
    found = [objective_shares(part, w) for part in live]
    shares, effective = (np.array([f[name] for f in found]) for name in ("shares", "effective_weights"))
    for i, name in enumerate(names):
        sheet.mean(
            f"share of {name}",
            f"{BOOK}.objective_shares",
            shares[:, i],
            "prompts",
            meaning=f"Of the variance of the mixed reward inside a prompt; its weight is {w[i]:.3g}, its effective weight {effective[:, i].mean():.3g}.",
        )
        silent = int(sum(bool(f["silent"][i]) for f in found))
        sheet.rate(f"prompts where {name} is silent", f"{BOOK}.objective_shares", silent, len(live))
    spread = [np.sqrt(np.mean(np.concatenate([part[:, i] - part[:, i].mean() for part in groups]) ** 2)) for i in range(len(names))]
    if min(spread) > 0:
        balanced = balancing_weights(heads, w, groups=group)
        balanced = balanced / balanced.sum()
        sheet.tables["Weights"] = {"head": list(names), "weight": w.tolist(), "share": shares.mean(0).tolist(), "weight that balances": balanced.tolist()}
        sheet.outputs["balancing_weights"] = dict(zip(names, balanced.tolist(), strict=True))
    else:
        sheet.distrust("balancing weights", f"{BOOK}.balancing_weights", "A head does not vary inside any prompt, so that no weight lets it speak.")
    rng = np.random.default_rng(seed)
    drawn = groups if len(groups) <= MOST_GROUPS else [groups[i] for i in rng.choice(len(groups), MOST_GROUPS, replace=False)]
    if len(names) > 1:
        reached = np.array([np.sum(reachable_by_weights(part)) for part in drawn], float)
        sheet.clustered("responses that some weights would choose", f"{BOOK}.reachable_by_weights", reached, [len(part) for part in drawn])
    top = int(np.argmax(shares.mean(0)))
    sheet.headlines.append(f"{names[top]} drives {percent(float(shares[:, top].mean()), 0)} of the mixed reward at {percent(float(w[top] / w.sum()), 0)} of the weight.")
