"""Logs that are tables: CSV and its like with or without a header, Parquet, and JSON documents that are read whole."""

import csv
import io
import json
import re
import zlib
from collections import Counter
from contextlib import contextmanager
from itertools import islice

from ..contract import LawbookError
from .files import MOST_WHOLE
from .headers import MISSING
from .log_fields import KINDS, matches, plain_name
from .log_lines import MARKS, Chunk, Faults, blocks, opened, values_of

SEPARATORS = ",\t;|"
LONGEST_CELL = 2**26  # characters
NEWLINE = re.compile(r"[\r\n]").search
PARQUET_ROWS = 2**18  # rows that are decoded at a time
INSIDE = ("log_history", "records", "rows", "data", "results", "samples", "judgments", "logs", "items", "examples")  # of JSON documents, where their records are


@contextmanager
def _reading(path, encoding="utf-8"):
    """What the readers of files raise, as one sentence."""
    import polars as pl

    csv.field_size_limit(LONGEST_CELL)
    try:
        yield
    except UnicodeError as error:
        for _ in blocks(path, encoding):  # raises what names the byte and its line
            pass
        raise LawbookError(f"The log {path} is not {encoding.upper()}: {error}.") from None
    except (OSError, EOFError, zlib.error, csv.Error, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise LawbookError(f"The log {path} cannot be read: {' '.join(str(error).split())[:200]}") from None


def look_at_text(path, encoding):
    """(names, separator, whether there is a header, first rows as columns) of a text table.

    The separator is the one by which most of the first lines have the same number of cells; a header has different names in all cells and no number.
    """
    with _reading(path, encoding), opened(path) as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
        lines = list(islice((line for line in _lines(text, path) if line.strip()), 1000))
    if not lines:
        raise LawbookError(f"The log {path} is empty.")
    separator, width = max(((s, *_usual_width(lines[:100], s)) for s in SEPARATORS), key=lambda found: found[2:] + found[1:2])[:2]
    rows = [row for row in _cells(lines, separator) if len(row) == width]
    if not rows:
        raise LawbookError(f"The log {path} is no table: its lines do not agree on a number of cells.")
    header = bool(rows[0]) and all(name and not _is_number(name) for name in rows[0]) and len(set(rows[0])) == len(rows[0]) and (len(rows) > 1 or width > 1)
    names = rows[0] if header else [f"column {i}" for i in range(1, width + 1)]
    first = rows[1:] if header else rows
    return names, separator, header, {name: [value for row in first if (value := typed_cell(row[i])) is not None] for i, name in enumerate(names)}


def _usual_width(lines, separator):
    """(cells of most lines, (whether more than one, how many lines))."""
    width, often = Counter(len(row) for row in _cells(lines, separator)).most_common(1)[0]
    return width, (width > 1, often)


def _cells(lines, separator):
    for row in csv.reader(lines, delimiter=separator, skipinitialspace=True):
        if any(cell.strip() for cell in row):
            yield [cell.strip() for cell in row]


def _lines(text, path):
    """The lines of a text, without the mark at its start."""
    for number, line in enumerate(iter(lambda: text.readline(LONGEST_CELL), "")):
        if len(line) >= LONGEST_CELL:
            raise LawbookError(f"Line {number + 1:,} of the log {path} is longer than {LONGEST_CELL >> 20} million letters: that is no table.")
        yield line if number else line.removeprefix("\ufeff")


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def text_chunks(path, names, separator, header, encoding, wanted, after=0, progress=None, most_rows=65536):
    """Chunks of the columns `wanted` of a text table behind its first `after` rows; rows of another length than the header are faults."""
    width, at = len(names), {name: names.index(name) for name in wanted if name in names}
    wild = {name: [(i, key[len(name) - 1 :]) for i, key in enumerate(names) if matches(name, key)] for name in wanted if name not in names}
    with _reading(path, encoding), opened(path) as file, io.TextIOWrapper(file, encoding=encoding, newline="") as text:
        reader = csv.reader(_lines(text, path), delimiter=separator, skipinitialspace=True)
        waiting = header
        row_number = 0
        while rows := list(islice(reader, most_rows)):
            first, row_number = row_number + 1, row_number + len(rows)
            if row_number <= after:
                waiting = waiting and all(len(row) != width for row in rows)
                continue
            if progress:
                progress(getattr(file, "fileobj", file).tell())
            faults, good, lines = Faults(), rows, range(first, row_number + 1)
            if waiting or first <= after or set(map(len, rows)) != {width}:
                good, lines = [], []
                for line, row in enumerate(rows, first):
                    if len(row) == width and any(row):
                        if not waiting and line > after:
                            good.append(row)
                            lines.append(line)
                        waiting = False
                    elif any(row) and line > after:
                        faults.add(f"not {width} cells{' but several lines: a quote is not closed' if any(map(NEWLINE, row)) else ''}", line)
            cells = list(zip(*good, strict=True)) or [()] * width
            columns = {name: [*map(str.strip, cells[i])] for name, i in at.items()}
            columns |= {name: [{key: row[i] for i, key in parts} for row in good] for name, parts in wild.items()}
            yield Chunk(columns, lines, row_number, faults)


def typed_cell(cell):
    """One cell of text as a number, a list or object, None or the text it is."""
    if cell[:1] in "0123456789+-.nNiI" and cell:
        for kind in (int, float):
            try:
                return kind(cell) if "_" not in cell else cell
            except ValueError:
                pass
    if cell[:1] in ("[", "{") and cell[-1:] in ("]", "}"):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return None if cell.lower() in MISSING else cell


def look_at_parquet(path):
    """(names, first rows as columns) of a Parquet file."""
    import polars as pl

    with _reading(path):
        first = pl.scan_parquet(path).head(1000).collect()
    return first.columns, {name: first[name].drop_nulls().to_list() for name in first.columns}


def parquet_chunks(path, wanted, after=0, progress=None, most_rows=65536):
    """Chunks of the columns `wanted` of a Parquet file behind its first `after` rows."""
    import polars as pl

    with _reading(path):
        lazy = pl.scan_parquet(path)
        names = lazy.collect_schema().names()
        total, size = lazy.select(pl.len()).collect().item(), path.stat().st_size
        columns = [name for name in names if any(name == want or matches(want, name) for want in wanted)]
        for start in range(after, total, PARQUET_ROWS):
            frame = lazy.select(columns).slice(start, PARQUET_ROWS).collect(engine="streaming")
            for at in range(0, len(frame), most_rows):
                part = frame.slice(at, most_rows)
                found = {want: part[want].to_list() if want in columns else values_of(part.to_dicts(), want) for want in wanted}
                end = start + at + len(part)
                if progress:
                    progress(size * end // total)
                yield Chunk(found, range(start + at + 1, end + 1), end)


def whole_json(path, encoding):
    """(records, sentences) of a JSON document: a list of records, an object that holds one, an object of columns, or one record."""
    with opened(path) as file:
        try:
            text = file.read(MOST_WHOLE + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise LawbookError(f"The log {path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if len(text) > MOST_WHOLE:
        raise LawbookError(f"The log {path} is one JSON document of more than {MOST_WHOLE >> 20} MiB: write it as JSON lines, one record a line.")
    try:
        found = json.loads(text[next((len(m) for m, _ in MARKS if text.startswith(m)), 0) :].decode(encoding))
    except UnicodeDecodeError as error:
        raise LawbookError(f"Byte {error.start + 1:,} of the log {path} is not {encoding.upper()}: name the encoding, as in encoding=latin-1, or write it as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise LawbookError(f"The log {path} is no JSON: {' '.join(str(error).split())[:120]}.") from None
    said = []
    if isinstance(found, dict):
        inner = next((key for key in INSIDE if isinstance(found.get(key), list) and all(isinstance(row, dict) for row in found[key]) and found[key]), None)
        if inner:
            said.append(f"its records are those of {inner!r}")
            found = found[inner]
        elif found and all(isinstance(column, list) for column in found.values()) and len({len(column) for column in found.values()}) == 1 and not _rowlike(found):
            found = [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]
            said.append("it is an object of columns")
        else:
            found = [found]
            said.append("it is one record")
    if not isinstance(found, list):
        raise LawbookError(f"The log {path} must be a list of records or JSON lines; it is a {type(found).__name__}.")
    if not found:
        raise LawbookError(f"The log {path} is empty: it has no records.")
    return found, said


def _rowlike(found):
    """Whether an object of lists is one record, whose fields are lists: the tokens of a text, the choices of a completion."""
    lists = {plain_name(word) for role in ("logprobs", "entropies", "completion") for word in KINDS["tokens"].spellings(role)}
    return any(plain_name(name) in lists for name in found)


def record_chunks(records, wanted, after=0, most_rows=65536):
    """Chunks of records in memory behind the first `after`; what is no object is a fault."""
    for start in range(after, len(records), most_rows):
        part = records[start : start + most_rows]
        faults, good, lines = Faults(), [], []
        for line, record in enumerate(part, start + 1):
            if isinstance(record, dict):
                good.append(record)
                lines.append(line)
            else:
                faults.add("no JSON object", line)
        yield Chunk({name: values_of(good, name) for name in wanted}, lines, start + len(part), faults)
