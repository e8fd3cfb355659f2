"""Logs as people have them: what a file holds is recognised and said, and its rows are streamed in one form for each kind."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import LawbookError
from ..contract.shown import Shown
from . import log_arrays, log_judgments, log_lines, log_rows, log_tables, log_tokens, log_vectors
from .log_fields import is_number
from .log_lines import Faults, in_words
from .log_opening import first_rows, form_of, head_of, settle
from .log_recognition import recognise

CANONICAL = {name: getattr(log_rows, name) for name in ("answers", "texts", "rewards", "samples", "comparisons", "training", "evidence", "records")}
CANONICAL |= {"judgments": log_judgments.judgments, "tokens": log_tokens.tokens, "logits": log_vectors.logits, "embeddings": log_vectors.embeddings}


@dataclass(frozen=True)
class Log(Shown):
    """A log that has been recognised: `fields` are the names of the file for each role, `said` tells people what was found, and `reading` is how rows are read."""

    path: str
    kind: str
    form: str  # "json lines", "json", "csv", "parquet" or "numpy"
    fields: dict[str, str]
    said: list[str]
    size: int  # bytes
    reading: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass
class Batch:
    """Some canonical rows: role -> list or array, the position from which `rows` can go on, and what was wrong: sentence -> (how many, line or row of the first)."""

    columns: dict[str, Any]
    position: int
    faults: Faults = field(default_factory=Faults)

    def __len__(self):
        return len(next(iter(self.columns.values()), ()))


def open_log(path, *, kind=None, fields=None, encoding=None, threshold=0.5, renormalise=False, drop=False):
    """The Log of a file, recognised by its first rows; LawbookError says what was found where it cannot be.

    `kind` and `fields` (role -> column, by name or by number from 1) say what is not recognised, `encoding` in what a text is written. A score of at least
    `threshold` counts as correct. Logits with NaN or an impossible label are refused unless `drop` leaves these rows out, and probabilities that do not sum to one
    unless `renormalise` divides them by their sum.
    """
    path = Path(path)
    head = head_of(path)
    if not is_number(threshold) or not 0 < float(threshold) <= 1:
        raise LawbookError(f"threshold must be a number above 0 and at most 1; it was {threshold!r}.")
    reading: dict[str, Any] = {"threshold": float(threshold), "renormalise": bool(renormalise), "drop": bool(drop), "encoding": log_lines.encoding_of(head, encoding)}
    form = form_of(path, head, reading["encoding"])
    names, first, said, faults = first_rows(path, form, reading)
    if form == "numpy" and names == [log_arrays.ALONE] and kind in (None, "embeddings") and not fields:
        fields = {"embeddings": log_arrays.ALONE}
    try:
        chosen, found, recognised = recognise(names, first, kind, fields)
    except LawbookError as error:
        raise LawbookError(f"{path}: {str(error)[0].lower()}{str(error)[1:]}") from None
    log = Log(str(path), chosen.name, form, found, [*recognised, *said], path.stat().st_size, reading)
    settle(log, first)
    if faults:
        log.said.append(f"of its first rows some cannot be used: {in_words(faults)}")
    if log.kind == "logits":
        _look_over(log)
    return log


def rows(log, *, after=None, progress=None, most_rows=65536) -> Iterator[Batch]:
    """Batches of at most `most_rows` rows of the file in canonical form, from the position `after` of an earlier batch on; `progress` is called with the bytes read.

    One row of a file can give several canonical ones (the texts of a question, both orders of a duel), or none, which is a fault.
    """
    if most_rows < 1:
        raise LawbookError(f"most_rows must be at least 1; it was {most_rows}.")
    seen = _Seen() if log.reading.get("key") else None
    if seen and after:  # what the interrupted reader had seen
        for chunk in _chunks(log, 0, None, most_rows, after):
            _canonical(log, chunk, seen)
    for chunk in _chunks(log, after or 0, progress, most_rows):
        columns = _canonical(log, chunk, seen)
        yield Batch(columns, chunk.position, chunk.faults)


def _canonical(log, chunk, seen):
    """The canonical columns of a chunk, whose faults grow; of samples that came twice the first is kept."""
    roles = {role: _listed(chunk.columns[name]) for role, name in log.fields.items()}
    lines = chunk.lines
    if seen is not None:
        known = seen.known([roles[role] for role in log.reading["key"] if role in roles])
        if known.any():
            dropped = log.kind == "samples"
            sentence = "a sample that was there before, by its prompt and number: left out" if dropped else "an id that was there before: the row is kept"
            chunk.faults.add(sentence, lines[int(known.argmax())], int(known.sum()))
            if dropped:
                kept = np.flatnonzero(~known).tolist()
                roles, lines = {role: [column[row] for row in kept] for role, column in roles.items()}, [lines[row] for row in kept]
    if pair := log.reading.get("pair"):
        roles = {"embeddings": _joined([roles[role] for role in pair]), "group": [role for role in pair for _ in roles[role]]}
        lines = [*lines] * 2
    return CANONICAL[log.kind](log.reading, roles, lines, chunk.faults)


def _listed(values):
    """Values as a list, but for matrices of numbers."""
    return values.tolist() if isinstance(values, np.ndarray) and not (values.ndim == 2 and values.dtype.kind in "iuf") else values


def _joined(parts):
    return np.concatenate(parts) if all(isinstance(part, np.ndarray) for part in parts) else [value for part in parts for value in part]


class _Seen:
    """Which keys have been met, by 64 bits of each: eight bytes a key, and one chance in 10^5 that any of 10^7 is taken for another."""

    def __init__(self):
        self.parts: list[np.ndarray] = []

    def known(self, columns):
        """Of each row whether its key was there before; a key that lacks its last part never was."""
        try:
            hashes = np.fromiter(map(hash, zip(*columns, strict=True)), np.int64, len(columns[0]))
        except TypeError:
            hashes = np.array([_hash(key) for key in zip(*columns, strict=True)], np.int64)
        unique, first, which = np.unique(hashes, return_index=True, return_inverse=True)
        old = np.zeros(len(unique), bool)
        for part in self.parts:  # in order: a search for keys in order stays in the cache
            at = np.minimum(np.searchsorted(part, unique), len(part) - 1)
            old |= part[at] == unique
        known = old[which]
        known[np.setdiff1d(np.arange(len(hashes)), first, assume_unique=True)] = True
        if not old.all():
            self.parts.append(unique[~old])
        while len(self.parts) > 1 and 4 * len(self.parts[-1]) > len(self.parts[-2]):  # few parts, each much larger than the next
            joined = np.concatenate([self.parts.pop(), self.parts.pop()])
            joined.sort()
            self.parts.append(joined)
        if None in columns[-1] or "" in columns[-1]:
            known &= np.array([value is not None and value != "" for value in columns[-1]], bool)
        return known


def _hash(key):
    """The hash of a key, also of messages and the like."""
    try:
        return hash(key)
    except TypeError:
        return hash(tuple(map(log_rows.text_of, key)))


def _array_chunks(log, path, after, progress, most_rows):
    """Chunks of arrays; of two groups one after the other."""
    pair = log.reading.get("pair")
    if not pair:
        yield from log_arrays.array_chunks(path, [*dict.fromkeys(log.fields.values())], after, progress, most_rows)
        return
    known, start = log_arrays.shapes(path), 0
    for role in pair:
        name, number = log.fields[role], known[log.fields[role]][0][0]
        if after < start + number:
            for chunk in log_arrays.array_chunks(path, [name], max(after - start, 0), progress, most_rows):
                other = chunk.columns[name][:0]
                chunk.columns = {log.fields[r]: chunk.columns.get(name, other) if r == role else other for r in pair}
                chunk.position += start
                yield chunk
        start += number


def _chunks(log, after, progress=None, most_rows=65536, until=None):
    """The Chunks of a log between two positions."""
    path, how, wanted = Path(log.path), log.reading, [*dict.fromkeys(log.fields.values())]
    if log.form == "json lines":
        yield from log_lines.line_chunks(path, wanted, how["encoding"], after, progress, most_rows, until)
        return
    if log.form == "csv":
        chunks = log_tables.text_chunks(path, how["names"], how["separator"], how["header"], how["encoding"], wanted, after, progress, most_rows)
    elif log.form == "parquet":
        chunks = log_tables.parquet_chunks(path, wanted, after, progress, most_rows)
    elif log.form == "json":
        chunks = log_tables.record_chunks(how["records"], wanted, after, most_rows)
    else:
        chunks = _array_chunks(log, path, after, progress, most_rows)
    for chunk in chunks:
        if until is not None and chunk.position > until:
            kept = sum(line <= until for line in chunk.lines)
            chunk.columns, chunk.lines = {name: values[:kept] for name, values in chunk.columns.items()}, chunk.lines[:kept]
        yield chunk
        if until is not None and chunk.position >= until:
            return
    if progress:
        progress(log.size)


REFUSED = ("with NaN", "that are infinite", "a label that", "probabilities below 0")


def _look_over(log):
    """Refuses logits that say nothing, by how many rows and where first, unless they may be dropped or renormalised; says if there is one class only."""
    faults, labels, number = Faults(), set(), 0
    for batch in rows(log):
        number += len(batch)
        faults.merge(batch.faults)
        labels |= set(np.unique(batch.columns["labels"]).tolist())
    refused = {sentence: found for sentence, found in faults.items() if any(part in sentence for part in REFUSED)}
    off, most = faults.get("probabilities that do not sum to one"), log.reading.get("worst", 0.0)
    if off and not log.reading["drop"]:
        how = f"in {off[0]:,} row{'s' if off[0] > 1 else ''} (first {off[1]:,}; by up to {most:.3g})"
        raise LawbookError(f"In the log {log.path} probabilities do not sum to one {how}: renormalise=True divides them by their sum.")
    if refused and not log.reading["drop"]:
        raise LawbookError(f"The log {log.path} has {in_words(refused)}: drop=True leaves these rows out.")
    if not number:
        raise LawbookError(f"The log {log.path} has no row that can be used: {in_words(faults)}.")
    if most > log_rows.SUM and log.reading["renormalise"]:
        log.said.append(f"probabilities missed one by up to {most:.3g} and are divided by their sum")
    if len(labels) == 1:
        log.said.append(f"all {number:,} labels are of one class, {labels.pop()}: nothing can be said about telling classes apart")
