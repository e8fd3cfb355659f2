"""Logs as a stream of lines: blocks of bytes in any encoding, and the records of JSON lines with the faults of what is none, counted."""

import codecs
import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from ..contract import LawbookError
from .log_fields import matches

BLOCK = 2**22  # bytes that are read at a time
LONGEST = 2**28  # bytes of one line
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


class Faults(dict):
    """What was wrong with rows: sentence -> (how many, the line or row of the first)."""

    def add(self, sentence, line, count=1):
        had, first = self.get(sentence, (0, line))
        self[sentence] = had + count, min(first, line)

    def merge(self, others):
        for sentence, (count, line) in others.items():
            self.add(sentence, line, count)


def in_words(faults):
    """Faults as one text: what, how often, where first."""
    return "; ".join(f"{sentence} ({count:,} row{'s' if count > 1 else ''}, first {line:,})" for sentence, (count, line) in faults.items())


@dataclass
class Chunk:
    """Some rows of a file: field -> values, the line or row of each (from 1), where the next one begins, and the faults of what lies between."""

    columns: dict[str, Any]
    lines: Sequence[int]
    position: int
    faults: Faults = field(default_factory=Faults)


def opened(path):
    """The plain bytes of a file that may be compressed, from its start."""
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == b"\x1f\x8b":
        return gzip.open(path, "rb")
    return _zstandard(path) if head == b"\x28\xb5\x2f\xfd" else path.open("rb")


def _zstandard(path):
    try:
        from compression import zstd  # of Python 3.14
    except ImportError:
        try:
            import zstandard as zstd
        except ImportError:
            raise LawbookError(f"The log {path} is compressed by zstd, which this Python cannot unpack: unpack it, or compress it by gzip.") from None
    return zstd.open(path, "rb")


def encoding_of(head, encoding=None):
    """The encoding of a file that begins with `head`: what the reader says, the mark at its start, or UTF-8."""
    if encoding is None:
        return next((name for mark, name in MARKS if head.startswith(mark)), "utf-8")
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise LawbookError(f"encoding must be one that Python knows, such as utf-8, utf-16 or latin-1; it was {encoding!r}.") from None
    if name in ("utf-16", "utf-32", "utf-8-sig"):  # the order of bytes is in the mark
        return next((known for mark, known in MARKS if head.startswith(mark)), "utf-8" if name == "utf-8-sig" else f"{name}-le")
    return name


def blocks(path, encoding="utf-8", after=0, progress=None, most_rows=65536, until=None):
    """(bytes in UTF-8 of at most `most_rows` lines, number of the first, position after them, whether the last has its end) of a file between two positions.

    Positions are bytes of the unpacked file; `progress` is called with the bytes of the file on disk that have been read.
    """
    try:
        with opened(path) as file:
            start, line = _skipped(file, after, encoding)
            rest, size = b"", BLOCK
            while block := file.read(size if until is None else min(size, until - start - len(rest))):
                if progress:
                    progress(getattr(file, "fileobj", file).tell())
                text, cut = rest + block, 0
                ends = line_ends(text, encoding)
                for i in range(0, len(ends), most_rows):
                    part = ends[i : i + most_rows]
                    yield _in_utf8(text[cut : part[-1]], encoding, path, line), line, start + int(part[-1]), True
                    line, cut = line + len(part), int(part[-1])
                start, rest = start + cut, text[cut:]
                size = BLOCK if cut else min(2 * size, 2**26)  # a long line is not looked through over and over
                if len(rest) > LONGEST:
                    raise LawbookError(f"Line {line:,} of the log {path} is longer than {LONGEST >> 20} MiB: that is no log of lines.")
            if rest:
                yield _in_utf8(rest, encoding, path, line), line, start + len(rest), False
    except (OSError, EOFError, zlib.error) as error:
        raise LawbookError(f"The log {path} cannot be read: {' '.join(str(error).split())[:200]}") from None


def line_ends(text, encoding):
    """The positions behind the line ends in some bytes."""
    width = _width(encoding)
    end = np.frombuffer("\n".encode(encoding) if width > 1 else b"\n", f"u{width}")[0]
    return (np.flatnonzero(np.frombuffer(text, f"u{width}", len(text) // width) == end) + 1) * width


def _width(encoding):
    return {"utf-16": 2, "utf-32": 4}.get(encoding[:6], 1)


def _skipped(file, after, encoding):
    """The file set to `after`, or behind its mark: (position, number of the line that begins there)."""
    if not after:
        head = file.read(4)
        after = next((len(mark) for mark, _ in MARKS if head.startswith(mark)), 0)
        file.seek(after)
        return after, 1
    line, left = 1, after
    while left > 0 and (block := file.read(min(BLOCK, left))):
        line, left = line + len(line_ends(block, encoding)), left - len(block)
    return after, line


def _in_utf8(text, encoding, path, line):
    """Bytes of whole lines in UTF-8; LawbookError names the byte that is not in the encoding, and its line."""
    try:
        plain = text.decode(encoding)
        return text if encoding == "utf-8" else plain.encode()
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        ends = line_ends(text[:at], encoding)
        column = at - (ends[-1] if len(ends) else 0) + 1
        why = "write the file as UTF-8, or name its encoding, as in encoding=latin-1"
        raise LawbookError(f"Byte {column:,} of line {line + len(ends):,} of the log {path} ({text[at : at + 1].hex()}) is not {encoding.upper()}: {why}.") from None


def line_chunks(path, wanted, encoding="utf-8", after=0, progress=None, most_rows=65536, until=None):
    """Chunks of the fields `wanted` of a file of JSON lines between two positions; a line that is no JSON object is a fault."""
    for text, line, position, whole in blocks(path, encoding, after, progress, most_rows, until):
        records, lines, faults = parsed(text, line, whole)
        yield Chunk({name: values_of(records, name) for name in wanted}, lines, position, faults)


def parsed(text, first, whole=True):
    """(records, their lines, Faults) of lines of JSON in UTF-8: all at once where every line is one object, and otherwise line by line."""
    faults = Faults()
    body = text.replace(b"\r\n", b"\n") if b"\r" in text else text
    body = body.removesuffix(b"\n")
    number = body.count(b"\n") + 1
    if body[:1] == b"{" and body[-1:] == b"}" and body.count(b"}\n{") == number - 1:
        try:
            records = json.loads(b"[" + body.replace(b"}\n{", b"},{") + b"]")
            if len(records) == number:
                return records, range(first, first + number), faults
        except (ValueError, RecursionError):
            pass
    records, lines = [], []
    last = first + number - 1
    for line, row in enumerate(body.split(b"\n"), first):
        if not (row := row.strip()):
            continue
        try:
            record = json.loads(row)
        except (ValueError, RecursionError):
            faults.add("the last line is cut off" if not whole and line == last else "no JSON", line)
            continue
        if isinstance(record, dict):
            records.append(record)
            lines.append(line)
        else:
            faults.add("no JSON object", line)
    return records, lines, faults


def values_of(records, name):
    """The values of a field in records, None where there is none: of `a.b` those inside of a, of `head_*` a dict of all that begin so."""
    if name.endswith("*") and not any(name in record for record in records[:1]):
        return [{key[len(name) - 1 :]: value for key, value in record.items() if matches(name, key)} for record in records]
    try:
        return [*map(itemgetter(name), records)]
    except KeyError:
        found = [record.get(name) for record in records]
    if "." in name and not any(name in record for record in records):
        outer, inner = name.split(".", 1)
        found = values_of([record[outer] if isinstance(record.get(outer), dict) else {} for record in records], inner)
    return found
