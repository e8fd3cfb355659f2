"""Logs that are arrays of NumPy: .npy and .npz, read a block of rows at a time and never as pickles."""

import zipfile
from contextlib import ExitStack, contextmanager

import numpy as np

from ..contract import LawbookError
from .log_lines import Chunk

BLOCK = 2**24  # bytes of the widest array that are read at a time
ALONE = "array"  # the name of the array of an .npy file


@contextmanager
def _reading(path):
    """What the reader of arrays raises, as one sentence."""
    try:
        yield
    except LawbookError:
        raise
    except Exception as error:  # what a spoilt file makes NumPy and zipfile raise is of many kinds
        raise LawbookError(f"The log {path} cannot be read as arrays of NumPy: {' '.join(str(error).split())[:200]}.") from None


def _header(path, name, file):
    """(shape, whether columns come first, dtype) of the array whose bytes begin in `file`; objects are refused, as they can run any code."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise LawbookError(f"The array {name!r} of the log {path} holds Python objects, which can run any code when they are read: save numbers or text.")
    return shape, fortran, dtype


def shapes(path):
    """name -> (shape, dtype) of the arrays of a file, by their headers."""
    with _reading(path):
        if _is_single(path):
            with path.open("rb") as file:
                shape, _, dtype = _header(path, ALONE, file)
            return {ALONE: (shape, dtype)}
        with zipfile.ZipFile(path) as archive:
            found = {}
            for name in archive.namelist():
                if name.endswith(".npy"):
                    with archive.open(name) as file:
                        shape, _, dtype = _header(path, name[:-4], file)
                    found[name[:-4]] = shape, dtype
            return found


def _is_single(path):
    with path.open("rb") as file:
        return file.read(6) == b"\x93NUMPY"


class Rows:
    """The rows of one array in a file, in order; `take` gives the next ones."""

    def __init__(self, path, name, stack):
        self.path, self.name, self.at = path, name, 0
        if _is_single(path):
            self.whole = np.load(path, mmap_mode="r", allow_pickle=False)
            self.shape = self.whole.shape
            return
        archive = stack.enter_context(zipfile.ZipFile(path))
        self.file = stack.enter_context(archive.open(f"{name}.npy"))
        self.shape, fortran, self.dtype = _header(path, name, self.file)
        self.width = int(np.prod(self.shape[1:], dtype=int)) * self.dtype.itemsize
        self.whole = None
        if fortran or not self.shape:  # columns come first: rows are nowhere in one piece
            self.whole = np.frombuffer(self.file.read(), self.dtype).reshape(self.shape, order="F")

    def skip(self, rows):
        if self.whole is None:
            self.file.seek(rows * self.width, 1)
        self.at += rows

    def take(self, rows):
        rows = min(rows, self.shape[0] - self.at)
        self.at += rows
        if self.whole is not None:
            return np.asarray(self.whole[self.at - rows : self.at])
        raw = self.file.read(rows * self.width)
        if len(raw) < rows * self.width:
            raise LawbookError(f"The array {self.name!r} of the log {self.path} is cut off: it ends before row {self.at:,} of {self.shape[0]:,}.")
        return np.frombuffer(raw, self.dtype).reshape(rows, *self.shape[1:])


def array_chunks(path, names, after=0, progress=None, most_rows=65536):
    """Chunks of several arrays that have the same number of rows, behind the first `after` of them."""
    known = shapes(path)
    number = min(known[name][0][0] for name in names)
    size = path.stat().st_size
    widest = max(int(np.prod(known[name][0][1:], dtype=int)) * known[name][1].itemsize for name in names)
    most = max(1, min(most_rows, BLOCK // max(widest, 1)))
    with _reading(path), ExitStack() as stack:
        arrays = {name: Rows(path, name, stack) for name in names}
        for rows in arrays.values():
            rows.skip(after)
        for start in range(after, number, most):
            end = min(start + most, number)
            if progress:
                progress(size * end // number)
            yield Chunk({name: rows.take(end - start) for name, rows in arrays.items()}, range(start + 1, end + 1), end)
