"""Files of tables: whether they can be read at all is found out before anything large is, and they are read as columns under their own headers."""

import csv
import gzip
import io
import json
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..contract import LawbookError
from .headers import MISSING, resolve

MOST_ROWS = 5_000_000
MOST_CELLS = 50_000_000  # of a larger table only the columns are read that laws speak of
MOST_WHOLE = 256 * 2**20  # bytes of files that must be in memory as a whole
MOST_UNPACKED = 512 * 2**20  # bytes of a compressed table
SAMPLE = 2**18
KEPT = {"split", "group", "curve", "family"}  # columns that say which rows belong together
TEXTS = {".csv": None, ".txt": None, ".tsv": "\t"}  # separators; None is found out
OTHERS = (".parquet", ".jsonl", ".ndjson", ".json")
WORKBOOKS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")


def read_file(path):
    """(columns or records of a table file, sentences about how it was read); LawbookError says why a file cannot be read."""
    import polars as pl

    suffixes = [s.lower() for s in path.suffixes]
    kind = next(iter([s for s in suffixes[::-1] if s != ".gz"][:1]), "")
    if path.is_dir():
        raise LawbookError(f"{path} is a folder: name one table in it.")
    if kind in WORKBOOKS:
        raise LawbookError(f"The table {path} is a workbook of a spreadsheet program: save the sheet as CSV.")
    if kind not in (*TEXTS, *OTHERS):
        raise LawbookError(f"The table {path} must be a {', '.join((*TEXTS, *OTHERS))} file (text also as .gz).")
    if not path.is_file():
        raise LawbookError(f"There is no file {path}.")
    try:
        if not path.stat().st_size:
            raise LawbookError(f"The table {path} is empty.")
        if kind == ".parquet":
            return _parquet(path)
        packed = _look(path)
        if kind in TEXTS:
            return _text(path, TEXTS[kind], packed)
        return _json(path, packed) if kind == ".json" else _json_lines(path, packed)
    except LawbookError:
        raise
    except pl.exceptions.NoDataError:
        raise LawbookError(f"The table {path} is empty.") from None
    except (OSError, EOFError, zlib.error, csv.Error, ValueError, RecursionError, pl.exceptions.PolarsError) as error:
        raise LawbookError(f"The table {path} cannot be read: {' '.join(str(error).split())[:200]}") from None


def _look(path):
    """Whether a text file is compressed; refuses what is no text, and by samples from start to end what has far too many rows."""
    size = path.stat().st_size
    with path.open("rb") as raw:
        head = raw.read(4)
        packed = head[:2] == b"\x1f\x8b"
        raw.seek(0)
        with gzip.GzipFile(fileobj=raw) if packed else raw as plain:
            samples = [plain.read(SAMPLE)]
            if not packed and size > 64 * SAMPLE:
                for part in range(1, 9):
                    plain.seek(part * (size - SAMPLE) // 8)
                    samples.append(plain.read(SAMPLE))
    if samples[0][:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise LawbookError(f"The table {path} is text in UTF-16: save it as UTF-8.")
    if head == b"PK\x03\x04":
        raise LawbookError(f"The table {path} is a workbook or an archive, whatever its name says: save the sheet as CSV.")
    if any(b"\0" in sample for sample in samples):
        raise LawbookError(f"The table {path} holds zero bytes, as no text does: it is a binary file, or was not written to its end.")
    if not samples[0].strip(b"\xef\xbb\xbf \t\r\n,;"):
        raise LawbookError(f"The table {path} is empty.")
    if b"\r" in samples[0] and b"\n" not in samples[0]:
        raise LawbookError(f"The lines of the table {path} end in carriage returns alone: save it with line feeds.")
    if b"\n" not in samples[0] and len(samples[0]) == SAMPLE:
        raise LawbookError(f"The first line of the table {path} is longer than {SAMPLE >> 10} KiB: that is no table.")
    if not packed and len(samples) > 1:
        rows = size * sum(sample.count(b"\n") for sample in samples) / sum(map(len, samples))
        if rows > 1.5 * MOST_ROWS:  # nearer the limit they are counted
            raise _too_long(path, f"about {rows:.2g}")
    return packed


def _too_long(path, rows):
    return LawbookError(f"The table {path} has {rows} rows; lawbook reads at most {MOST_ROWS:,}: keep every k-th row, or the last one of each run.")


def _text(path, separator, packed):
    """CSV and its like: a survey for rows of the wrong length, then whole columns at once, as numbers where every cell is one."""
    import polars as pl

    encoding, said = "utf-8-sig", []
    try:
        names, separator, rows, blank, ragged = _survey(path, separator, packed, encoding)
    except UnicodeDecodeError:
        encoding = "latin-1"
        said.append(f"{path.name} is not UTF-8: it is read as Latin-1")
        names, separator, rows, blank, ragged = _survey(path, separator, packed, encoding)
    if separator not in (",", "\t"):
        said.append(f"the columns of {path.name} are separated by {separator!r}")
    if ragged:
        row, cells = ragged
        raise LawbookError(f"Row {row} of the table {path} has {cells} cells where the header has {len(names)}: check its separators and quotes.")
    source: Path | io.BytesIO = path
    if encoding == "latin-1":
        if path.stat().st_size > MOST_WHOLE:
            raise LawbookError(f"The table {path} is not in UTF-8, and too large to be converted here: convert it.")
        with _opened(path, packed) as raw:
            source = io.BytesIO(raw.read().decode(encoding).encode())
    labels = [name or f"column {i + 1}" for i, name in enumerate(names)]
    cells = pl.scan_csv(source, separator=separator, infer_schema=False, empty_string_is_null=False, with_column_names=lambda _: labels)
    wanted = _wanted(path, labels, rows, said)
    if blank:
        cells = cells.filter(~pl.all_horizontal(pl.all().str.strip_chars() == ""))
    first = cells.select(wanted).head(1000).collect(engine="streaming")
    likely = [name for name in wanted if not first[name].cast(pl.Float64, strict=False).null_count()]
    frame = cells.select(pl.col(name).cast(pl.Float64, strict=False) if name in likely else pl.col(name) for name in wanted).collect(engine="streaming")
    if failed := [name for name in likely if frame[name].null_count()]:
        frame = frame.with_columns(cells.select(failed).collect(engine="streaming"))
    columns = {}
    for i, name in enumerate(labels):
        if name in wanted:
            column = _typed(frame[name])
            if names[i] or not (i == 0 or (column.dtype.kind == "f" and np.isnan(column).all())):
                columns[name] = column
            elif i == 0:
                said.append("the first column, which has no name, is left out as an index")
    return columns, said


def _typed(cells):
    """A polars column of numbers or text as an array: whole numbers, floats with NaN for missing cells, or flags where all cells are of the kind, otherwise text."""
    import polars as pl

    if cells.dtype == pl.String:
        cells = cells.str.strip_chars()
        lower = cells.str.to_lowercase()
        floats = cells.cast(pl.Float64, strict=False)
        if (floats.is_not_null() | lower.is_in(MISSING)).all():
            return floats.fill_null(np.nan).to_numpy()
        return (lower == "true").to_numpy() if lower.is_in(("true", "false")).all() else cells.to_numpy()
    values = cells.to_numpy()
    whole = bool((np.abs(values) < 2**53).all() and (values == np.floor(values)).all())
    return values.astype(np.int64) if whole and len(values) else values


def _wanted(path, names, rows, said):
    """The columns to read: all of them, or of a large table those that laws speak of."""
    if rows * len(names) <= MOST_CELLS:
        return names
    understood = resolve(names)[0]
    wanted = [name for name in names if name in understood or name in KEPT]
    if not wanted:
        raise LawbookError(f"The table {path} has {rows:,} rows and {len(names)} columns, too many to read all, and laws speak of none of them: keep the columns you need.")
    said.append(f"the table is large: of its {len(names)} columns only {', '.join(wanted)} are read")
    return wanted


def _opened(path, packed):
    return gzip.open(path, "rb") if packed else path.open("rb")


def _survey(path, separator, packed, encoding):
    """(names, separator, number of rows, whether there are blank ones, (row, cells) of the first one whose length is not the header's) of a text table."""
    with _opened(path, packed) as raw, io.TextIOWrapper(raw, encoding=encoding, newline="") as text:
        lines = iter(text.readline, "")
        first = next((line for line in lines if line.strip()), None)
        if first is None:
            raise LawbookError(f"The table {path} is empty.")
        if separator is None:
            separator = max(",;\t|", key=lambda s: len(next(csv.reader([first], delimiter=s))))
        reader = csv.reader(_chained(first, text), delimiter=separator)
        names = [name.strip() for name in next(reader)]
        _check_header(path, names)
        width, rows, blank, ragged = len(names), 0, False, None
        for row in reader:
            if not any(row) or (len(row) == 1 and not row[0].strip()):
                blank = True
                continue
            rows += 1
            if len(row) != width and not ragged:
                ragged = rows, len(row)
            if rows > MOST_ROWS:
                raise _too_long(path, f"more than {MOST_ROWS:,}")
            if packed and not rows % 65536 and raw.tell() > MOST_UNPACKED:
                raise LawbookError(f"The table {path} unpacks to more than {MOST_UNPACKED >> 20} MiB: unpack it first.")
    return names, separator, rows, blank, ragged


def _chained(first, text):
    yield first
    yield from text


def _check_header(path, names):
    if all(_is_number(name) for name in names):
        raise LawbookError(f"The first row of the table {path} holds numbers only: it must hold the names of the columns.")
    for a, b in pairwise(sorted(filter(None, names))):
        if a == b:
            raise LawbookError(f"The table {path} has two columns called {a!r}: rename one of them.")


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parquet(path):
    import polars as pl

    lazy = pl.scan_parquet(path)
    rows = lazy.select(pl.len()).collect().item()
    if rows > MOST_ROWS:
        raise _too_long(path, f"{rows:,}")
    said: list = []
    return lazy.select(_wanted(path, lazy.collect_schema().names(), rows, said)).collect(engine="streaming"), said


def _json_lines(path, packed):
    import polars as pl

    rows = 0
    with _opened(path, packed) as raw:
        while chunk := raw.read(2**20):
            rows += chunk.count(b"\n")
            if rows > MOST_ROWS:
                raise _too_long(path, f"more than {MOST_ROWS:,}")
            if packed and raw.tell() > MOST_UNPACKED:
                raise LawbookError(f"The table {path} unpacks to more than {MOST_UNPACKED >> 20} MiB: unpack it first.")
    lazy, said = pl.scan_ndjson(path, infer_schema_length=None), []
    return lazy.select(_wanted(path, lazy.collect_schema().names(), rows, said)).collect(engine="streaming"), said


def _json(path, packed):
    """A list of records or an object of columns; of the state that a trainer saves, its log."""
    if path.stat().st_size > MOST_WHOLE:
        raise LawbookError(f"The table {path} is too large for one JSON document: write it as JSON lines or CSV.")
    with _opened(path, packed) as raw:
        found = json.loads(raw.read().decode("utf-8-sig"))
    if isinstance(found, dict) and isinstance(found.get("log_history"), list):
        return found["log_history"], [f"the runs are the log_history of {path.name}"]
    if isinstance(found, dict) and all(isinstance(column, list) for column in found.values()):
        return found, []
    if isinstance(found, list) and all(isinstance(row, dict) for row in found):
        return found, []
    raise LawbookError(f"The table {path} must be a JSON list of records or object of columns.")
