"""Log-probabilities of tokens: whether a model wrote the text, whether it bears a watermark, and which tokens drive the entropy down."""

import numpy as np

from ...chapters.alignment.entropy_mechanism import select_tokens, token_covariance
from ...chapters.trust.perplexity_entropy_test import perplexity_gap, same_model_test, same_model_test_logs
from ...chapters.trust.unigram_watermark import detect_watermark
from ...contract import DomainError
from ...numerics.statistics import holm
from .sheet import Picture, Series, percent

ORIGIN, MARK, ENTROPY = "perplexity-entropy-test", "unigram-watermark", "entropy-mechanism"
FEWEST = 30  # tokens of a text, for a normal approximation
ALPHA = 0.01


def measures(texts, sheet, *, green=None, alpha=ALPHA, seed=0, **_):
    """`texts` is a list of records with logprobs and any of tokens, entropies, variances, advantages, mask, step_probabilities; `green` is a mask over the vocabulary."""
    sheet.section = "Tokens"
    logged = [values[np.isfinite(values)] for text in texts if text.get("logprobs") is not None for values in [np.asarray(text["logprobs"], float)]]
    if any(len(values) for values in logged):
        sums, lengths = np.array([values.sum() for values in logged]), np.array([len(values) for values in logged])
        told = f"{lengths.sum():,} tokens in {len(logged):,} texts."
        sheet.clustered_mean("log-perplexity", f"{ORIGIN}.perplexity_gap", -sums, lengths, "texts", unit="nats per token", meaning=told)
    origin(texts, sheet, alpha)
    watermark(texts, sheet, green, alpha)
    advantages(texts, sheet, seed)


def origin(texts, sheet, alpha):
    """Whether the texts can come from the model whose probabilities were logged."""
    tried, values, lengths = [], [], []
    for text in texts:
        if text.get("step_probabilities") is not None:
            p, tokens = np.asarray(text["step_probabilities"], float), np.asarray(text["tokens"], int)
            _inside([text], p.shape[1])
            tried.append(perplexity_gap(p, tokens))
            values.append(same_model_test(p, tokens, alpha=alpha))
            lengths.append(len(tokens))
        elif all(text.get(name) is not None for name in ("logprobs", "entropies", "variances")):
            steps = np.array([text[name] for name in ("logprobs", "entropies", "variances")], float)
            steps = steps[:, np.isfinite(steps).all(0)]  # servers give none for the first token
            tried.append(same_model_test_logs(*steps))
            lengths.append(steps.shape[1])
    if not tried:
        why = (
            "It takes the variance of -log p at each step beside its entropy"
            if any(t.get("entropies") is not None for t in texts)
            else "It takes entropies and variances of the steps, or their whole laws"
        )
        sheet.distrust("the logged model wrote it", f"{ORIGIN}.same_model_test_logs", f"{why}; the log-probabilities of the tokens alone cannot tell.")
        return
    p_values = np.array([found["p_value"] for found in tried])
    corrected = holm(p_values)
    short = sum(length < FEWEST for length in lengths)
    sheet.test(
        "the logged model wrote every text",
        f"{ORIGIN}.same_model_test_logs",
        min(1.0, float(corrected.min())),
        meaning=f"Least p-value over {len(tried):,} texts, corrected for their number. Normal approximation"
        + (f"; {short} texts are shorter than {FEWEST} tokens." if short else "."),
    )
    foreign = int(np.sum(corrected < alpha))
    sheet.rate(
        "texts that the model did not write",
        f"{ORIGIN}.same_model_test_logs",
        foreign,
        len(tried),
        meaning=f"At level {alpha:g} over all texts together; a text beyond it has a gap that its own entropies do not explain.",
    )
    sheet.outputs["foreign_texts"] = np.flatnonzero(corrected < alpha).tolist()
    if values:
        rejected = sum(bool(found["reject"]) for found in values)
        sheet.rate(
            "texts rejected at any moment", f"{ORIGIN}.same_model_test", rejected, len(values), meaning=f"By e-values, valid whenever one looks, each text at level {alpha:g}."
        )
    sheet.headlines.append(f"{foreign:,} of {len(tried):,} texts cannot come from the model whose probabilities were logged (level {alpha:g} over all).")


def watermark(texts, sheet, green, alpha):
    """Exact tests of a watermark that prefers a fixed part of the vocabulary."""
    marked = [text for text in texts if text.get("tokens") is not None and len(text["tokens"]) and np.issubdtype(np.asarray(text["tokens"]).dtype, np.integer)]
    if green is None or not marked:
        if green is not None:
            sheet.distrust("watermark", f"{MARK}.detect_watermark", "It takes token ids, which the log does not hold.")
        return
    green = np.asarray(green, bool)
    if green.all() or not green.any():
        raise DomainError("green must be a mask over the vocabulary that is partly true.")
    _inside(marked, len(green))
    found = [detect_watermark(np.asarray(text["tokens"], int), green, alpha=alpha) for text in marked]
    corrected = holm([f["p_exact"] for f in found])
    sheet.rate(
        "texts with the watermark",
        f"{MARK}.detect_watermark",
        int(np.sum(corrected < alpha)),
        len(found),
        meaning=f"Exact p-values of distinct tokens, level {alpha:g} over all texts together.",
    )
    together = detect_watermark(np.concatenate([np.asarray(text["tokens"], int) for text in marked]), green, alpha=alpha)
    sheet.test(
        "no watermark in all texts together",
        f"{MARK}.detect_watermark",
        together["p_exact"],
        meaning=f"Exact; the plain z of {together['z']:.1f} counts repeated tokens as news, corrected it is {together['z_corrected']:.1f}.",
    )
    sheet.headlines.append(f"{int(np.sum(corrected < alpha))} of {len(found)} texts bear the watermark; over all of them p = {together['p_exact']:.2g}.")


def _inside(texts, vocab_size):
    """DomainError where a token is none of the vocabulary."""
    for i, text in enumerate(texts):
        ids = np.asarray(text["tokens"], int)
        if ids.min() < 0 or ids.max() >= vocab_size:
            raise DomainError(f"tokens must be ids from 0 to {vocab_size - 1}; text {i + 1} holds {ids.max() if ids.max() >= vocab_size else ids.min()}.")


def advantages(texts, sheet, seed):
    """Covariance of log-probability and advantage by token: what drives entropy down, and the few tokens to mute."""
    trained = [text for text in texts if text.get("advantages") is not None and text.get("logprobs") is not None]
    if not trained:
        return
    logprobs, values = (np.concatenate([np.broadcast_to(np.asarray(t[name], float), len(t["logprobs"])) for t in trained]) for name in ("logprobs", "advantages"))
    logged = np.isfinite(logprobs)  # servers give none for the first token
    mask = logged * np.concatenate([np.asarray(t["mask"], float) if t.get("mask") is not None else np.ones(len(t["logprobs"])) for t in trained])
    covariance = token_covariance(np.where(logged, logprobs, 0.0), values, mask=mask)
    known = np.flatnonzero(np.isfinite(covariance))
    if len(known) < FEWEST or not np.ptp(values[known]):
        sheet.distrust("covariance of the tokens", f"{ENTROPY}.token_covariance", "It takes tokens with advantages that differ.")
        return
    text = np.repeat(np.arange(len(trained)), [len(t["logprobs"]) for t in trained])[known]
    sums, counts = np.bincount(text, covariance[known]), np.bincount(text)
    told = "Positive: the next steps lower the entropy."
    sheet.clustered_mean("covariance of log-probability and advantage", f"{ENTROPY}.token_covariance", sums[counts > 0], counts[counts > 0], "texts", meaning=told)
    muted = {method: select_tokens(covariance, method=method, fraction=fraction, seed=seed) for method, fraction in (("kl", 2e-3), ("clip", 2e-4))}
    share = covariance[muted["kl"]].sum() / covariance[known].sum() if covariance[known].sum() else np.nan
    sheet.add(
        "share of the covariance in the top 0.2 % of the tokens",
        f"{ENTROPY}.select_tokens",
        float(share),
        meaning=f"{len(muted['kl']):,} of {len(known):,} tokens; their indices are in the outputs.",
    )
    sheet.outputs |= {f"mute_{method}": [int(i) for i in index] for method, index in muted.items()}
    sheet.headlines.append(f"The top 0.2 % of the tokens ({len(muted['kl']):,}) hold {percent(share)} of the covariance that drives entropy down: mute these.")
    ranked = np.sort(covariance[known])[::-1]
    at = np.unique(np.geomspace(1, len(ranked), 200).astype(int)) - 1
    sheet.pictures.append(Picture("Covariance by token", "rank of the token", "covariance", [Series("covariance", at + 1, ranked[at])], log_x=True))
