"""Judgments in their canonical form: scores with the probabilities of scores, and duels in the order in which the answers were shown."""

import math

from .log_fields import LETTERS
from .log_rows import SUM, VERDICT, Rows, column_of, number_of, text_of, unpacked

NAMES = ("kind", "question", "answer", "score", "score_probabilities", "first", "second", "verdict", "verdict_probabilities", "perplexity", "judge")
WANTED: tuple[str, ...] = ("question", "answer", "score", "score_probabilities", "score_logprobs", "first", "second", "verdict", "verdict_swapped")
WANTED += ("verdict_probabilities", "perplexity", "cumulative_logprob", "tokens", "turn", "judge")
SWAPPED = {"A": "B", "B": "A", "C": "C"}


class Refused(Exception):
    """Why a row is none: a sentence that is counted."""


def judgments(reading, roles, lines, faults):
    """kind ("score", "duel"), question, answer, score, score_probabilities {score: p}, first, second, verdict ("A", "B", "C"), verdict_probabilities {letter: p},
    perplexity, judge: lists with None where a row has none; first was shown first, and A says that it is better."""
    out = Rows(*NAMES)
    n = len(lines)
    rows = zip(*(column_of(roles, name, n) for name in WANTED), strict=True)
    for line, values in zip(lines, rows, strict=True):
        row = dict(zip(WANTED, values, strict=True))
        duel = row["first"] is not None and row["second"] is not None
        try:
            question = text_of(row["question"])
            if question is None and not duel:
                raise Refused("no question")
            shared = {"question": question if row["turn"] is None else f"{question}, turn {text_of(row['turn'])}", "judge": _judge(row["judge"])}
            for found in _duels(row, reading) if duel else [_score(row, reading)]:
                out.add(**shared, **found)
        except Refused as why:
            faults.add(str(why), line)
    return out.columns


def _judge(value):
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else text_of(value)


def _score(row, reading):
    """One scored answer."""
    answer, score = text_of(row["answer"]), number_of(row["score"])
    if answer is None:
        raise Refused("neither an answer with its score nor two answers with a verdict")
    probabilities = _distribution(row["score_probabilities"], reading) if row["score_probabilities"] is not None else None
    if probabilities is None and row["score_logprobs"] is not None:
        probabilities = _of_logprobs(row["score_logprobs"], score)
    if score is None and probabilities:
        score = max(probabilities, key=lambda s: probabilities[s])
    if score is None or not math.isfinite(score):
        raise Refused("no score")
    if score == -1:
        raise Refused("a score of -1, by which judges say that they gave none")
    return {"kind": "score", "answer": answer, "score": score, "score_probabilities": probabilities, "perplexity": _perplexity(row)}


def _duels(row, reading):
    """The verdicts of one row: one, or two of which the second is on the other order."""
    first, second = text_of(row["first"]), text_of(row["second"])
    probabilities = _of_letters(row["verdict_probabilities"], first, second, reading) if row["verdict_probabilities"] is not None else None
    given = letter(row["verdict"], first, second)
    if given is None and probabilities:
        given = max(probabilities, key=lambda v: probabilities[v])
    other = letter(row["verdict_swapped"], first, second)
    if given is None and other is None:
        raise Refused("no verdict" if row["verdict"] is None else "a verdict that is neither of the two nor a tie")
    if given is not None:
        yield {"kind": "duel", "first": first, "second": second, "verdict": given, "verdict_probabilities": probabilities, "perplexity": _perplexity(row)}
    if other is not None:
        yield {"kind": "duel", "first": second, "second": first, "verdict": SWAPPED[other]}
    if row["verdict_swapped"] is not None and (given is None or other is None):
        raise Refused("one verdict of two is none")


def letter(value, first, second):
    """A verdict as A (the first shown is better), B or C (a tie); None of what is no verdict."""
    text = text_of(value)
    if text is None:
        return None
    if text in (first, second):
        return "A" if text == first else "B"
    if marks := VERDICT.findall(text):
        return marks[-1]
    return LETTERS.get(text.strip().strip("[]").lower().replace(" ", "_"))


def _perplexity(row):
    """The perplexity of the judgment, also from its log-probability and number of tokens."""
    given, total, tokens = (number_of(row[name]) for name in ("perplexity", "cumulative_logprob", "tokens"))
    if given is None and total is not None and tokens:
        try:
            return math.exp(-total / tokens)
        except OverflowError:
            return math.inf
    return given


def _one(probabilities, what, reading):
    """Probabilities that sum to one; Refused says what they sum to."""
    total = sum(probabilities.values())
    if not probabilities or any(not p >= 0 for p in probabilities.values()) or not 0 < total < math.inf:
        raise Refused(f"{what} are no probabilities")
    if abs(total - 1) > SUM and not reading["renormalise"]:
        raise Refused(f"{what} sum to {total:.2f}, not to 1" if total < 10 else f"{what} sum to more than 10, not to 1")
    return {key: p / total for key, p in probabilities.items()}


def _distribution(value, reading):
    """{score: probability} of an object of scores."""
    value = unpacked(value)
    if not isinstance(value, dict):
        raise Refused("score_probabilities are no object of scores with probabilities")
    found = {number_of(key): number_of(p) for key, p in value.items() if p is not None}
    if None in found or None in found.values():
        raise Refused("score_probabilities are no object of scores with probabilities")
    return _one(found, "score_probabilities", reading)


def _of_letters(value, first, second, reading):
    """{A, B, C: probability} of an object of verdicts."""
    value = unpacked(value)
    found: dict = {}
    for key, p in value.items() if isinstance(value, dict) else ():
        if (letters := letter(key, first, second)) is None or (p := number_of(p)) is None:
            raise Refused("verdict_probabilities are no object of verdicts with probabilities")
        found[letters] = found.get(letters, 0.0) + p
    return _one(found, "verdict_probabilities", reading)


def _of_logprobs(value, score):
    """{score: probability} among the tokens that are numbers, of the log-probabilities of the score's token.

    They are an object, a list of {token, logprob}, or the content of a chat's answer, in which the last token that is the score counts.
    """
    value = unpacked(value)
    if isinstance(value, dict) and isinstance(value.get("content"), list):
        value = value["content"]
    if isinstance(value, list) and any(isinstance(entry, dict) and entry.get("top_logprobs") for entry in value):
        spoken = [e for e in value if isinstance(e, dict) and number_of(str(e.get("token", "")).strip()) is not None and e.get("top_logprobs")]
        meant = [e for e in spoken if score is None or float(e["token"]) == score]
        value = (meant or spoken or [{}])[-1].get("top_logprobs")
    pairs = value.items() if isinstance(value, dict) else [(e.get("token"), e.get("logprob")) for e in value if isinstance(e, dict)] if isinstance(value, list) else []
    found: dict = {}
    for token, logprob in pairs:
        number, log_p = number_of(str(token).strip()), number_of(logprob)
        if number is not None and log_p is not None and math.isfinite(number):
            found[number] = found.get(number, 0.0) + math.exp(min(log_p, 0.0))  # " 4" and "4" are one score
    total = sum(found.values())
    if not total > 0:
        raise Refused("score_logprobs without a token that is a number")
    return {key: p / total for key, p in found.items()}
