"""Audit a log: recognise what it holds, stream it, run every measure of the book that applies, and say in words what matters."""

import hashlib
import importlib
import json
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts.logs import Log, open_log, rows
from ..contract import Caution, DomainError, LawbookError, Shown, UnknownName
from .logs.sheet import LEVEL, Measure, Picture, Sheet
from .places import home

TEXTS = 256  # that are embedded between two savings
KEPT_EVERY = 10.0  # seconds between two savings of what was counted
MOST_VALUES = 200_000_000  # numbers of a log that is held in memory whole: 1.6 GB
HEAD = "reward_"  # before the name of a reward head in a column's
SETTINGS = {  # options of single measures: (kinds of log, lowest, highest)
    "group_size": (("samples",), 2, 10**6),
    "momentum": (("training",), 0, 0.9999),
    "lag": (("training",), 0, 10**4),
    "refresh_interval": (("training",), 1, 10**4),
    "target_error": (("evidence",), 1e-9, 0.5),
    "alpha": (("tokens",), 1e-12, 0.5),
    "outcome_low": (("records",), -1e300, 1e300),
    "outcome_high": (("records",), -1e300, 1e300),
    "weights": (("rewards",), None, None),
    "green": (("tokens",), None, None),
    "embedder": (("texts", "answers"), None, None),
    "seed": (None, 0, 2**32 - 1),
}


@dataclass(frozen=True)
class LogAudit(Shown):
    """What a log says: the first paragraph in words, every measure with its uncertainty, tables, pictures as data, and what was wrong with the file."""

    path: str
    kind: str
    log: Log
    summary: list[str]  # sentences, the most important first
    measures: list[Measure]
    tables: dict[str, dict[str, list]]
    pictures: list[Picture]
    said: list[str]
    faults: list[str]
    outputs: dict[str, Any] = field(default_factory=dict)
    level: float = LEVEL

    @property
    def sections(self):
        """The sections of the measures, in their order."""
        return list(dict.fromkeys(measure.section for measure in self.measures))

    def to_dict(self):
        return {
            "path": self.path,
            "kind": self.kind,
            "fields": dict(self.log.fields),
            "summary": self.summary,
            "level": self.level,
            "measures": [dict(measure.__dict__) for measure in self.measures],
            "tables": self.tables,
            "outputs": self.outputs,
            "said": self.said,
            "faults": self.faults,
        }

    def __repr__(self):
        return f"<audit of the {self.kind} in {self.path}: {sum(m.trusted for m in self.measures)} measures, {sum(not m.trusted for m in self.measures)} not to be trusted>"


def audit_log(path, /, *, kind=None, fields=None, encoding=None, threshold=0.5, renormalise=False, drop=False, level=LEVEL, resume=True, progress=None, **setting):
    """The LogAudit of a file of judgments, samples, log-probabilities, logits, rewards, embeddings, texts, records or a training curve.

    `kind` and `fields` (role -> column) override what is recognised. A score of at least `threshold` counts as correct; `renormalise` divides probabilities that do not sum to
    one by their sum, `drop` leaves out rows that hold NaN. `setting` are options of single measures (SETTINGS). A log of samples is counted while it streams, what was counted
    is kept, and an audit that was interrupted goes on there. `progress(done, total, name)` is called as bytes are read. LawbookError where the file is no log that could be
    understood.
    """
    if not 0.5 <= level < 1:
        raise DomainError(f"level must be from 0.5 to below 1; it was {level!r}.")
    log = open_log(path, kind=kind, fields=fields, encoding=encoding, threshold=threshold, renormalise=renormalise, drop=drop)
    given = _settings(log.kind, setting)
    sheet, faults = Sheet(level=level), {}
    cautions = _cautious(lambda: READERS[log.kind](log, sheet, faults, given, resume, progress))
    found = sheet.finished()
    summary = _in_words(log, sheet, found)
    said = [_sentence(text) for text in (*log.said, *sheet.said, *cautions)]
    if (tests := sum(m.p_value is not None for m in found)) > 1:
        said.append(f"{tests} tests were made; each p-value stands beside one that is corrected for all of them (Holm).")
    told = [f"{sentence} ({count:,} times, first in line {line:,})" if count > 1 else f"{sentence} (line {line:,})" for sentence, (count, line) in faults.items()]
    return LogAudit(str(path), log.kind, log, summary, found, sheet.tables, sheet.pictures, said, told, sheet.outputs, level)


def _sentence(text):
    return f"{text[0].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


def _cautious(work):
    """The reservations of the results that were called, once each, with how often."""
    told: Counter = Counter()
    shown = warnings.showwarning

    def tell(message, category, *where, **more):
        if issubclass(category, Caution):
            told[str(message)] += 1
        else:
            shown(message, category, *where, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", Caution)
        warnings.showwarning = tell
        work()
    return [f"Caution: {sentence}" + (f" ({count:,} times)" if count > 1 else "") for sentence, count in told.items()]


def _settings(kind, setting):
    given = {}
    for name, value in setting.items():
        if value is None:
            continue
        if name not in SETTINGS:
            raise UnknownName("option of an audit of logs", name, SETTINGS)
        kinds, low, high = SETTINGS[name]
        if kinds is not None and kind not in kinds:
            raise DomainError(f"{name} is an option for logs of {' or '.join(kinds)}; this log holds {kind}.")
        if low is not None and not low <= value <= high:
            raise DomainError(f"{name} must be from {low:g} to {high:g}; it was {value!r}.")
        given[name] = value
    if given.get("outcome_low") is not None and given.get("outcome_high") is not None and given["outcome_low"] >= given["outcome_high"]:
        raise DomainError(f"outcome_low must be below outcome_high; they were {given['outcome_low']!r} and {given['outcome_high']!r}.")
    return given


def _in_words(log, sheet, found):
    """The first paragraph: what matters most, what differs for certain, what cannot be told."""
    sentences = list(sheet.headlines) or [f"The log holds {log.kind}, but nothing in it could be measured with any certainty."]
    doubtful = [m for m in found if not m.trusted]
    if doubtful:
        names = list(dict.fromkeys(m.name for m in doubtful))
        sentences.append(f"Not to be told from this log: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}; the reasons stand below.")
    return sentences


def _bytes_of(log, progress):
    return None if progress is None else lambda done: progress(done, log.size, f"reading {log.kind}")


def _samples(log, sheet, faults, given, resume, progress):
    """Counted while they stream; what was counted so far is kept."""
    kept = _Kept(log) if resume else None
    state, position = kept.find() if kept else (None, None)
    tally, saved = part("samples").Tally(state), time.monotonic()
    if kept and position is not None:
        _merge(faults, kept.faults)
    at, told, whole = position, dict(faults), True  # `whole`: what was counted is what lies before `at`
    try:
        for batch in rows(log, after=position, progress=_bytes_of(log, progress)):
            whole = False
            tally.add(batch.columns)
            _merge(faults, batch.faults)
            at, told, whole = batch.position, dict(faults), True
            if kept and time.monotonic() - saved > KEPT_EVERY:
                kept.keep(tally.state(), at, told)
                saved = time.monotonic()
    except KeyboardInterrupt:
        if kept and at and whole:
            kept.keep(tally.state(), at, told)
        raise
    if kept:
        kept.drop()
    part("samples").measures(tally, sheet, **given)


class _Kept:
    """Counts of a log that was read in part, by the file's name, size, time and how it is read."""

    def __init__(self, log):
        file = Path(log.path).resolve()
        seen = file.stat()
        mark = json.dumps([str(file), seen.st_size, seen.st_mtime_ns, log.kind, dict(log.fields)], sort_keys=True, default=str)
        self.place = home() / "logs" / hashlib.blake2b(mark.encode(), digest_size=16).hexdigest()
        self.faults: dict = {}

    def find(self):
        import polars as pl

        counted, notes = self.place.with_suffix(".parquet"), self.place.with_suffix(".json")
        try:
            note = json.loads(notes.read_text())
            table = pl.read_parquet(counted)
        except (OSError, ValueError, pl.exceptions.PolarsError):
            return None, None
        if note["rows"] != len(table) or note["samples"] != int(table["samples"].sum()):  # a death between the two files
            return None, None
        self.faults = {sentence: tuple(value) for sentence, value in note["faults"].items()}
        return table, note["position"]

    def keep(self, table, position, faults):
        self.place.parent.mkdir(parents=True, exist_ok=True)
        counted, notes = (self.place.with_suffix(f"{suffix}.part") for suffix in (".parquet", ".json"))
        table.write_parquet(counted)
        notes.write_text(json.dumps({"position": position, "rows": len(table), "samples": int(table["samples"].sum()), "faults": faults}))
        counted.replace(self.place.with_suffix(".parquet"))
        notes.replace(self.place.with_suffix(".json"))

    def drop(self):
        for suffix in (".parquet", ".json"):
            self.place.with_suffix(suffix).unlink(missing_ok=True)


def _judgments(log, sheet, faults, given, resume, progress):
    found = part("judgments").Judgments()
    for batch in rows(log, progress=_bytes_of(log, progress)):
        found.add(batch.columns)
        _merge(faults, batch.faults)
    part("judgments").measures(found, sheet, **given)


def gathered(log, faults, tell):
    """All rows of a log in memory: column -> list or array, refused beyond MOST_VALUES numbers."""
    parts: dict[str, list] = {}
    values = 0
    for batch in rows(log, progress=tell):
        _merge(faults, batch.faults)
        for name, column in batch.columns.items():
            parts.setdefault(name, []).append(column)
            values += column.size if isinstance(column, np.ndarray) else len(column)
        if values > MOST_VALUES:
            raise LawbookError(f"The log {log.path} holds more than {MOST_VALUES:,} numbers, which its measures need at once: give a part of it.")
    return {name: np.concatenate(columns) if all(isinstance(c, np.ndarray) for c in columns) else [v for c in columns for v in c] for name, columns in parts.items()}


def _whole(measure):
    """A reader that gathers a log and hands its columns on."""

    def read(log, sheet, faults, given, resume, progress):
        tell = _bytes_of(log, progress)
        columns = {name: values for name, values in gathered(log, faults, tell).items() if not _empty(values)}
        if not columns:
            raise LawbookError(f"The log {log.path} holds no {log.kind} that could be read.")
        kept: list[Path] = []
        measure(columns, sheet, {**given, "embedder": _embedder(given, resume, progress, kept)} if "embedder" in given else given)
        for path in kept:  # the audit is done, and nothing of it needs to be gone on from
            path.unlink(missing_ok=True)

    return read


def _empty(values):
    return len(values) == 0 or (not isinstance(values, np.ndarray) and all(v is None for v in values))


def as_rows(columns):
    """Columns as a list of records."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _embedder(given, resume, tell, files):
    """A function from texts to their vectors, or None; vectors are kept in files as they are made, so that an interrupted audit goes on."""
    folder = given.get("embedder")
    if folder is None or not isinstance(folder, str | Path):
        return folder  # a function from texts to a matrix
    from ..artifacts.embedder import Embedder

    model = Embedder(folder)

    def embed(texts):
        mark = hashlib.blake2b(json.dumps([str(Path(folder).resolve()), model.size, texts]).encode(), digest_size=16).hexdigest()
        kept = home() / "logs" / f"{mark}.npy"
        files.append(kept)
        made = _vectors(kept) if resume else None
        parts = [] if made is None else [made]
        done = 0 if made is None else len(made)
        for start in range(done, len(texts), TEXTS):
            parts.append(model.embed(texts[start : start + TEXTS]))
            done = start + len(parts[-1])
            if resume:
                kept.parent.mkdir(parents=True, exist_ok=True)
                with kept.with_suffix(".part").open("wb") as out:
                    np.save(out, np.concatenate(parts))
                kept.with_suffix(".part").replace(kept)
            if tell:
                tell(done, len(texts), "embedding texts")
        return np.concatenate(parts) if parts else np.zeros((0, model.size))

    return embed


def _vectors(path):
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None


def _green(given):
    green = given.get("green")
    if not isinstance(green, str | Path):
        return green
    try:
        found = np.load(green, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise LawbookError(f"The green list {green} cannot be read as a .npy file of a mask: {error}.") from None
    if found.ndim != 1 or not 0 < found.astype(bool).sum() < len(found):
        raise LawbookError(f"The green list {green} must be a mask over the vocabulary, partly true; its shape was {list(found.shape)}.")
    return found.astype(bool)


def _read_embeddings(columns, sheet, given):
    seed = given.get("seed", 0)
    if "group" in columns:
        names, group = np.unique(np.asarray(columns["group"]).astype(str), return_inverse=True)
        order = np.argsort(-np.bincount(group), kind="stable")[:2]
        vectors = np.asarray(columns["embeddings"], float)
        if len(names) < 2:
            sheet.distrust("divergence of the groups", "kldo-divergence.fit_reward", f"All rows are of the group {names[0]}.")
        else:
            if len(names) > 2:
                sheet.said.append(f"{len(names)} groups; the two largest are compared.")
            part("embeddings").two_groups(*(vectors[group == i] for i in sorted(order)), [names[i] for i in sorted(order)], sheet, seed)
    if "target" in columns:
        part("embeddings").leakage(columns["embeddings"], columns["target"], sheet, seed)
    if not sheet.measures:
        sheet.distrust("divergence of the groups", "kldo-divergence.fit_reward", "The log has embeddings alone; it takes a group or a target beside them.")


def _read_rewards(columns, sheet, given):
    names = [name.removeprefix(HEAD) for name in columns if name.startswith(HEAD)]
    heads = np.stack([np.asarray(columns[f"{HEAD}{name}"], float) for name in names], 1)
    whole = np.isfinite(heads).all(1)
    if not whole.all():
        sheet.said.append(f"{int(np.sum(~whole)):,} rows lack a head and were left out.")
    weights = given.get("weights")
    if isinstance(weights, Mapping):
        for name in weights:
            if name not in names:
                raise UnknownName("reward head", name, names)
        weights = [float(weights.get(name, 0)) for name in names]
    if weights is not None and len(weights) != len(names):
        raise DomainError(f"weights must have one number for each of {', '.join(names)}; there were {len(weights)}.")
    prompts = [prompt for prompt, ok in zip(columns["prompt"], whole, strict=True) if ok]
    part("rewards").measures(prompts, heads[whole], names, sheet, **{**given, "weights": weights})


def _read_comparisons(columns, sheet, given):
    sheet.section = "Comparisons"
    part("judgments").wiring([(str(a), str(b)) for a, b in zip(columns["winner"], columns["loser"], strict=True)], sheet)


READERS = {
    "samples": _samples,
    "judgments": _judgments,
    "logits": _whole(lambda columns, sheet, given: part("classifier").measures(columns, sheet, **given)),
    "training": _whole(lambda columns, sheet, given: part("training").measures(columns, sheet, **given)),
    "records": _whole(lambda columns, sheet, given: part("records").measures(columns, sheet, **given)),
    "tokens": _whole(lambda columns, sheet, given: part("tokens").measures(as_rows(columns), sheet, **{**given, "green": _green(given)})),
    "embeddings": _whole(_read_embeddings),
    "texts": _whole(lambda columns, sheet, given: part("embeddings").texts(as_rows(columns), sheet, given.get("embedder"), given.get("seed", 0))),
    "answers": _whole(lambda columns, sheet, given: part("embeddings").answers(as_rows(columns), sheet, given.get("embedder"), given.get("seed", 0))),
    "rewards": _whole(_read_rewards),
    "evidence": _whole(lambda columns, sheet, given: part("evidence").measures(as_rows(columns), sheet, **given)),
    "comparisons": _whole(_read_comparisons),
}


def part(name):
    """The module that measures one kind of log: it loads the papers that it takes, and no others."""
    return importlib.import_module(f"{__package__}.logs.{name}")


def _merge(faults, others):
    for sentence, (count, line) in others.items():
        had, first = faults.get(sentence, (0, line))
        faults[sentence] = (had + count, min(first, line))
