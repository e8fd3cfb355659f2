"""Log-probabilities of answers under skeletons of their prompt: answer or abstain, how far order matters, and whether the plan is right where the truth is known."""

import numpy as np

from ...chapters.trust.hallucination_planner import answer_or_abstain, permutation_dispersion
from .sheet import percent

BOOK = "hallucination-planner"
FEWEST = 20


def measures(rows, sheet, *, target_error=0.05, **_):
    """`rows` have log_target, log_skeletons, event_probabilities and perhaps correct."""
    sheet.section = "Answer or abstain"
    whole = [r for r in rows if r.get("log_skeletons") and len(r["log_skeletons"]) == len(r.get("event_probabilities") or ())]
    if len(whole) < len(rows):
        sheet.said.append(f"{len(rows) - len(whole):,} rows do not have a log-probability and an event's probability for each skeleton, and were left out.")
    rows = whole
    if not rows:
        sheet.distrust("answer or abstain", f"{BOOK}.answer_or_abstain", "No row has log_target, log_skeletons and event_probabilities together.")
        return
    plans = [answer_or_abstain(float(r["log_target"]), np.asarray(r["log_skeletons"], float), np.asarray(r["event_probabilities"], float), target_error=target_error) for r in rows]
    spread = [permutation_dispersion(np.asarray(r["event_probabilities"], float), log_likelihoods=np.asarray(r["log_skeletons"], float)) for r in rows]
    answered = np.array([bool(p["answer"]) for p in plans])
    share = sheet.rate(
        "questions to answer",
        f"{BOOK}.answer_or_abstain",
        int(answered.sum()),
        len(rows),
        meaning=f"Evidence enough for an error of {target_error:g}: necessary for it, not sufficient.",
    )
    sheet.mean("information budget", f"{BOOK}.answer_or_abstain", [p["budget"] for p in plans], "questions", unit="nats")
    sheet.mean("least possible error", f"{BOOK}.max_reliability", [p["error_floor"] for p in plans], "questions", meaning="No decoding can err less often with this evidence.")
    sheet.mean(
        "dispersion over orders",
        f"{BOOK}.permutation_dispersion",
        [s["mean_absolute"] for s in spread],
        "questions",
        meaning="Mean distance of the event's probability from its mean over skeletons.",
    )
    sheet.outputs["answer"] = answered.tolist()
    known = np.array([r.get("correct") is not None for r in rows])
    sheet.headlines.append(
        f"{percent(share.value)} of {len(rows):,} questions have the evidence that an error of {percent(target_error)} takes; the others should be abstained from."
    )
    if known.sum() < FEWEST:
        return
    wrong = np.array([not r["correct"] if r.get("correct") is not None else False for r in rows])
    for name, chosen in (("answered", answered & known), ("abstained", ~answered & known)):
        if chosen.sum() >= FEWEST:
            sheet.rate(f"error of what would be {name}", f"{BOOK}.answer_or_abstain", int(wrong[chosen].sum()), int(chosen.sum()))
        else:
            sheet.distrust(f"error of what would be {name}", f"{BOOK}.answer_or_abstain", f"Only {chosen.sum()} such questions have a known truth; it takes {FEWEST}.")
