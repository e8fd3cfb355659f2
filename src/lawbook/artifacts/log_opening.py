"""What is found out of a log before its rows are read: its form, its first rows, and what these say on how the rest is read."""

import zlib

import numpy as np

from ..contract import LawbookError
from . import log_arrays, log_lines, log_rows, log_tables
from .files import WORKBOOKS
from .log_fields import PAIRS, is_number, matches
from .log_lines import Faults, in_words

HEAD = 2**16  # bytes that are looked at to tell what a file is
FIRST = 1000  # rows by which fields are recognised
DEEPEST = 3  # objects inside each other that are looked into


def head_of(path):
    """The first bytes of a file that can be read."""
    try:
        if path.is_dir():
            raise LawbookError(f"{path} is a folder: name one log in it.")
        with log_lines.opened(path) as file:
            head = file.read(HEAD)
    except FileNotFoundError:
        raise LawbookError(f"There is no file {path}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise LawbookError(f"The log {path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not head:
        raise LawbookError(f"The log {path} is empty.")
    return head


def form_of(path, head, encoding):
    """The form of a file by its first bytes, and where they leave it open by its name."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".zst")]
    if any(suffix in WORKBOOKS for suffix in suffixes):
        raise LawbookError(f"The log {path} is a workbook of a spreadsheet program: save the sheet as CSV.")
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:6] == b"\x93NUMPY" or (head[:4] == b"PK\x03\x04" and suffixes[-1:] == [".npz"]):
        return "numpy"
    if head[:2] == b"PK" or head[:1] == b"\x80" or (b"\0" in head and not encoding.startswith("utf-")) or (encoding == "utf-8" and b"\0" in head):
        raise LawbookError(f"The log {path} is a binary file of no kind that lawbook reads: it must be JSON lines, JSON, CSV, Parquet or arrays of NumPy (.npz, .npy).")
    text = head.decode(encoding, errors="replace").lstrip("\ufeff \t\r\n")
    if not text:
        raise LawbookError(f"The log {path} is empty.")
    if text[0] == "[" and suffixes[-1:] != [".csv"]:
        return "json"
    if text[0] == "{":
        line, _, more = text.partition("\n")
        whole = log_lines.parsed(line.encode(), 1)[0] or (len(line) == len(text) and len(head) == HEAD)
        lines = suffixes[-1:] in ([".jsonl"], [".ndjson"]) or (whole and (more.strip() or suffixes[-1:] != [".json"]))
        return "json lines" if lines else "json"
    return "json lines" if suffixes[-1:] in ([".jsonl"], [".ndjson"]) else "csv"


def first_rows(path, form, reading):
    """(names, first values of each, sentences, Faults) of a file; `reading` learns how it is read."""
    said, faults = [], Faults()
    if path.suffix.lower() in (".gz", ".zst"):
        said.append("unpacked while it is read")
    if form in ("json lines", "csv") and reading["encoding"] != "utf-8":
        said.append(f"its text is in {reading['encoding'].upper()}")
    if form == "csv":
        reading["names"], reading["separator"], reading["header"], first = log_tables.look_at_text(path, reading["encoding"])
        if not reading["header"]:
            said.append(f"it has no header: its {len(reading['names'])} columns are numbered from 1")
        return reading["names"], first, said, faults
    if form == "parquet":
        return *log_tables.look_at_parquet(path), said, faults
    if form == "numpy":
        names = [*log_arrays.shapes(path)]
        known = log_arrays.shapes(path)
        first = {name: [*next(log_arrays.array_chunks(path, [name], most_rows=100)).columns[name]] for name in names if known[name][0][:1] > (0,)}
        return names, first, [*said, ", ".join(f"{name} has the shape {list(shape)}" for name, (shape, _) in known.items())], faults
    if form == "json":
        records, about = log_tables.whole_json(path, reading["encoding"])
        reading["records"] = records
        said += about
    else:
        records = []
        for text, line, _, whole in log_lines.blocks(path, reading["encoding"], most_rows=FIRST):
            found, _, wrong = log_lines.parsed(text, line, whole)
            records += found
            faults.merge(wrong)
            if len(records) >= FIRST or line > 10 * FIRST:
                break
    records = [record for record in records[:FIRST] if isinstance(record, dict)]
    if not records:
        raise LawbookError(f"The log {path} holds no record: {in_words(faults) or 'no JSON objects'}.")
    names = [*dict.fromkeys(key for record in records for key in record)]
    first = {name: [value for record in records if (value := record.get(name)) is not None] for name in names}
    for name in (inner := [*names]):  # what is inside of objects is found by a.b
        if name.count(".") < DEEPEST and first[name] and all(isinstance(value, dict) for value in first[name]):
            for dotted in [*{f"{name}.{key}": None for value in first[name] for key in value}][:100]:
                first[dotted] = [value for value in log_lines.values_of(records, dotted) if value is not None]
                inner.append(dotted)
    return inner, first, said, faults


def settle(log, first):
    """What the first rows say on how the rest is read: heads, widths, filters, keys of rows that could come twice."""
    values = {role: first.get(name, ()) for role, name in log.fields.items()}
    if log.kind == "samples":
        if filters := [*dict.fromkeys(map(log_rows.text_of, values.get("filter", ())))]:
            log.reading["filter"] = filters[0]
            if len(filters) > 1:
                log.said.append(f"every sample is there once for each filter ({', '.join(map(str, filters))}): those of {filters[0]} are read")
        if "samples" not in log.fields and any(v not in (0, 1) for value in values["correct"] for v in (value if isinstance(value, list) else [value]) if is_number(v)):
            log.said.append(f"{log.fields['correct']} is a score: from {log.reading['threshold']:g} on a sample counts as correct (threshold=)")
        if "sample" in log.fields:
            log.reading["key"] = ("prompt", "model", "stage", "sample")
    elif "id" in log.fields:
        log.reading["key"] = ("id",)
    if log.kind == "rewards":
        heads = [*dict.fromkeys(str(head) for value in values["rewards"] if isinstance(value, dict) for head in value)]
        if not heads:
            pattern = log.fields["rewards"]
            heads = [name[len(pattern) - 1 :] for name in first if matches(pattern, name)]
        log.reading["heads"] = {head: f"reward_{head}" for head in heads}
        log.said.append(f"its heads are {', '.join(heads)}")
    if log.kind in ("logits", "embeddings") or "step_probabilities" in log.fields:
        _settle_width(log, values, first)


def _settle_width(log, values, first):
    pair = next((pair for pair in PAIRS if set(pair) <= log.fields.keys()), None)
    if log.kind == "embeddings" and "embeddings" not in log.fields and pair:
        if pair == ("x", "y") and all(np.ndim(v) == 0 for v in values["y"]):
            log.fields.update(embeddings=log.fields.pop("x"), target=log.fields.pop("y"))
            values["embeddings"] = values["x"]
        else:
            log.reading["pair"] = pair
            values["embeddings"] = [*values[pair[0]], *values[pair[1]]]
            log.said.append(f"{pair[0]} and {pair[1]} are two groups")
    name = next(role for role in ("embeddings", "logits", "probabilities", "step_probabilities") if role in log.fields or role in values)
    rows = [log_rows.list_of(value) for value in values[name]]
    lengths = [len(row) for row in rows if row]
    pattern = log.fields.get(name, "")
    width = max(set(lengths), key=lengths.count) if lengths else sum(matches(pattern, key) for key in first)
    if not width:
        raise LawbookError(f"The {name} of the log {log.path} must be a list of numbers for each row.")
    log.reading["width"] = width
