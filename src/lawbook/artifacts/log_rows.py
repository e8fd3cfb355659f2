"""Canonical rows of logs: what people write under many names, brought to one form for each kind; what cannot be is a fault, counted under one sentence."""

import contextlib
import json
import math
import re

import numpy as np

from .log_fields import YES_NO, is_number
from .log_tables import typed_cell

SUM = 1e-2  # by how much probabilities may miss one: they are rounded when they are written
VERDICT = re.compile(r"\[\[\s*([ABC])\s*\]\]")


def text_of(value):
    """A value as text: messages and lists as JSON, None of nothing."""
    if value is None or isinstance(value, str):
        return value or None
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if isinstance(value, dict | list) else str(value)


def number_of(value):
    """A value as a float, None where it is none."""
    return float(value) if value is not None and is_number(value) else None


def unpacked(value):
    """A value as it is, and what is written as text of JSON as what it says."""
    return typed_cell(value) if isinstance(value, str) else value


def list_of(value):
    """A value that holds several, as a list, also where it is written as text; None where it holds none."""
    value = unpacked(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else None


def floats_of(value):
    """A list of floats, NaN where one is missing; None of what is no list of numbers."""
    found = list_of(value)
    if found is None or not all(v is None or is_number(v) for v in found):
        return None
    return [math.nan if v is None else float(v) for v in found]


class Rows:
    """Rows of one kind that are being gathered: a list for each column."""

    def __init__(self, *names):
        self.columns = {name: [] for name in names}

    def add(self, **values):
        for name, column in self.columns.items():
            column.append(values.get(name))


def column_of(roles, name, n):
    found = roles.get(name)
    return [None] * n if found is None else found


def samples(reading, roles, lines, faults):
    """prompt, samples, correct, model, stage."""
    n = len(lines)
    prompts, correct = roles["prompt"], roles["correct"]
    if set(map(type, prompts)) != {str} or "" in prompts:
        prompts = [text_of(prompt) for prompt in prompts]
    counts, right, wrong = (_counted if "samples" in roles else _flagged)(roles, correct, reading["threshold"], n)
    keep = counts > 0
    if None in prompts:
        lacking = np.array([prompt is None for prompt in prompts], bool)
        wrong |= {"no prompt": np.flatnonzero(lacking)}
        keep &= ~lacking
    if reading.get("filter") is not None:
        other = np.array([text_of(value) != reading["filter"] for value in roles["filter"]], bool)
        if other.any():
            wrong |= {f"another filter than {reading['filter']}": np.flatnonzero(other)}
        keep &= ~other
    for sentence, rows in wrong.items():
        if len(rows):
            faults.add(sentence, lines[int(rows[0])], len(rows))
    columns = {"prompt": prompts, "samples": counts, "correct": right, **{name: _texts(column_of(roles, name, n)) for name in ("model", "stage")}}
    return picked(columns, keep)


def _texts(values):
    return values if set(map(type, values)) <= {str, type(None)} else [text_of(value) for value in values]


def picked(columns, keep):
    """The rows of columns that are kept."""
    if keep.all():
        return columns
    rows = np.flatnonzero(keep).tolist()
    return {name: column[keep] if isinstance(column, np.ndarray) else [column[row] for row in rows] for name, column in columns.items()}


def _flagged(_, correct, threshold, n):
    """(samples, correct, faults) of rows with one flag or a list of them."""
    wrong = "correct is no flag or number from 0 to 1"
    if set(map(type, correct)) == {str} and len(words := set(correct)) < 1000 and not any(word[:1] == "[" for word in words):
        known = {word: flag(word) for word in words}
        correct = [math.nan if (value := known[word]) is None else value for word in correct]
    if set(map(type, correct)) <= {bool, int, float}:
        with contextlib.suppress(OverflowError):
            values = np.array(correct, float)
            fine = (values >= 0) & (values <= 1)
            return fine.astype(int), (values >= threshold).astype(int) * fine, {wrong: np.flatnonzero(~fine)}
    counts, right = np.zeros(n, int), np.zeros(n, int)
    for row, value in enumerate(correct):
        flags = [flag(v) for v in (list_of(value) if isinstance(value, list | np.ndarray) or str(value)[:1] == "[" else [value]) or [None]]
        if None not in flags:
            counts[row], right[row] = len(flags), sum(f >= threshold for f in flags)
    return counts, right, {wrong: np.flatnonzero(counts == 0)}


def flag(value):
    """A flag or share as a number from 0 to 1, None of anything else."""
    if isinstance(value, str):
        value = YES_NO.get(value.strip().lower(), value)
    found = number_of(value)
    return found if found is not None and 0 <= found <= 1 else None


def _counted(roles, correct, _, n):
    """(samples, correct, faults) of rows with counts."""
    counts, right = (np.array([math.nan if (v := number_of(value)) is None else v for value in column]) for column in (roles["samples"], correct))
    fine = (counts >= 1) & (counts < 2**53) & (right >= 0) & (right <= counts) & (counts == np.floor(counts)) & (right == np.floor(right))
    return np.where(fine, counts, 0).astype(int), np.where(fine, right, 0).astype(int), {"not whole numbers with 0 <= correct <= samples and samples >= 1": np.flatnonzero(~fine)}


def answers(reading, roles, lines, faults):
    """question, category, score, text: one row for each text."""
    out = Rows("question", "category", "score", "text")
    questions, categories = map(text_of, roles["question"]), map(text_of, column_of(roles, "category", len(lines)))
    for line, question, given, category in zip(lines, questions, map(unpacked, roles["answers"]), categories, strict=True):
        if question is None or not isinstance(given, list) or not given:
            faults.add("no question with a list of answers", line)
            continue
        for answer in given:
            score = number_of(answer.get("score")) if isinstance(answer, dict) else None
            found = said_texts(answer.get("text", answer.get("texts", answer.get("answer")))) if isinstance(answer, dict) else None
            if score is None or not found:
                faults.add("an answer without a score or a text", line)
                continue
            for text in found:
                out.add(question=question, category=category, score=score, text=text)
    return out.columns


def said_texts(value):
    """The texts of a text, a list of them, or messages of a conversation (the last one's); None of anything else."""
    value = typed_cell(value) if isinstance(value, str) and value[:2] in ('["', "['", "[{") else value
    if isinstance(value, str):
        return [value] if value else None
    if isinstance(value, list) and value and all(isinstance(v, dict) and isinstance(v.get("content"), str) for v in value):
        return [value[-1]["content"]]
    if isinstance(value, list) and all(isinstance(v, str) for v in value):
        return [v for v in value if v] or None
    return None


def texts(reading, roles, lines, faults):
    """prompt, accepted, refused: lists of text."""
    out = Rows("prompt", "accepted", "refused")
    for line, prompt, accepted, refused in zip(lines, column_of(roles, "prompt", len(lines)), roles["accepted"], roles["refused"], strict=True):
        good, bad = said_texts(accepted), said_texts(refused)
        if good is None and bad is None:
            faults.add("neither accepted nor refused texts", line)
        else:
            out.add(prompt=text_of(prompt), accepted=good or [], refused=bad or [])
    return out.columns


def rewards(reading, roles, lines, faults):
    """prompt, one column of floats for each head (reward_NAME), NaN where it has none, and weight."""
    heads, out = reading["heads"], Rows("prompt", "weight", *reading["heads"].values())
    weights = map(number_of, column_of(roles, "weight", len(lines)))
    for line, prompt, given, weight in zip(lines, map(text_of, roles["prompt"]), map(unpacked, roles["rewards"]), weights, strict=True):
        found = {str(head): value for head, cell in given.items() if (value := number_of(cell)) is not None} if isinstance(given, dict) else {}
        if prompt is None or not found:
            faults.add("no prompt with a reward", line)
            continue
        for head in found.keys() - heads.keys():
            faults.add(f"a head that the first rows do not have, {head}: left out", line)
        out.add(prompt=prompt, weight=weight, **{column: found.get(head, math.nan) for head, column in heads.items()})
    return {name: np.array(column, float) if name in heads.values() else column for name, column in out.columns.items()}


def comparisons(reading, roles, lines, faults):
    """winner, loser."""
    out = Rows("winner", "loser")
    for line, winner, loser in zip(lines, map(text_of, roles["winner"]), map(text_of, roles["loser"]), strict=True):
        if winner is None or loser is None or winner == loser:
            faults.add("no winner with another loser", line)
        else:
            out.add(winner=winner, loser=loser)
    return out.columns


def training(reading, roles, lines, faults):
    """step, reward, entropy, score, ... as floats, NaN where a row has none."""
    n = len(lines)
    columns = {name: np.array([math.nan if (v := number_of(value)) is None else v for value in column], float) for name, column in roles.items()}
    stepless = ~np.isfinite(columns["step"]) if n else np.zeros(0, bool)
    if stepless.any():
        faults.add("no step", lines[int(stepless.argmax())], int(stepless.sum()))
    silent = ~stepless & np.all([np.isnan(values) for name, values in columns.items() if name != "step"], axis=0)
    if silent.any():
        faults.add("a step with nothing that is used", lines[int(silent.argmax())], int(silent.sum()))
    return picked(columns, ~(stepless | silent))


def evidence(reading, roles, lines, faults):
    """log_target (float), log_skeletons and event_probabilities (lists), answer, correct (0 or 1)."""
    names = ("log_skeletons", "event_probabilities", "answer", "correct")
    out = Rows("log_target", *names)
    for line, target, skeletons, events, answer, correct in zip(lines, roles["log_target"], *(column_of(roles, name, len(lines)) for name in names), strict=True):
        log_target, log_skeletons, probabilities = number_of(target), floats_of(skeletons), floats_of(events)
        if log_target is None or not log_target <= 0:
            faults.add("log_target is no number of at most 0", line)
        elif any(not v <= 0 for v in log_skeletons or ()):
            faults.add("log_skeletons are no numbers of at most 0", line)
        elif any(not 0 <= v <= 1 for v in probabilities or ()):
            faults.add("event_probabilities are no numbers from 0 to 1", line)
        elif log_skeletons is None and probabilities is None:
            faults.add("neither log_skeletons nor event_probabilities", line)
        else:
            right = flag(correct)
            out.add(
                log_target=log_target,
                log_skeletons=log_skeletons,
                event_probabilities=probabilities,
                answer=answer,
                correct=None if right is None else int(right >= reading["threshold"]),
            )
    return out.columns


NUMBERS = ("score", "treatment", "outcome", "propensity", "weight")  # of records


def records(reading, roles, lines, faults):
    """A column for each role; score, treatment, outcome, propensity and weight as floats, text for any other that is not a number. A row that lacks one of them is a fault."""
    columns = {}
    keep = np.ones(len(lines), bool)
    for name, column in roles.items():
        if name == "id":
            continue
        found = [_cell(value) for value in column]
        if name in NUMBERS and name != "outcome":
            found = [number_of(v) for v in found]
        lacking = np.array([v is None or (isinstance(v, float) and math.isnan(v)) for v in found], bool)
        if lacking.any():
            faults.add(f"no {name}", lines[int(lacking.argmax())], int(lacking.sum()))
        keep &= ~lacking
        columns[name] = found
    columns = picked(columns, keep)
    return {name: np.array(column, float) if name in NUMBERS and not any(isinstance(v, str) or not is_number(v) for v in column) else column for name, column in columns.items()}


def _cell(value):
    value = typed_cell(value.strip()) if isinstance(value, str) else value
    return text_of(value) if isinstance(value, dict | list) else value
