"""Headers of GGUF files. The gguf library knows the formats and dequantises; its reader makes an array of every token of the vocabulary, which takes seconds and 150 MiB."""

import math
import struct
from functools import cache

import numpy as np

from ..contract import LawbookError

NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}  # types of values by their number
TEXT, LIST = 8, 9
VERSIONS = (2, 3)
MOST_KEPT = 64  # values of a list; longer ones (vocabularies) are skipped, and {"length": n} stands for them
DEEPEST = 4


class Cut(Exception):
    """The file ends where the header goes on."""


class Reader:
    """Values from a file, one after the other."""

    def __init__(self, file, size):
        self.file, self.size = file, size

    def take(self, count):
        if count > self.size - self.file.tell():
            raise Cut
        return self.file.read(count)

    def skip(self, count):
        if count > self.size - self.file.tell():
            raise Cut
        self.file.seek(count, 1)

    def number(self, code="<Q"):
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def text(self):
        return self.take(self.number()).decode("utf-8", "replace")

    def value(self, kind, depth=0):
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == TEXT:
            return self.text()
        if kind != LIST or depth > DEEPEST:
            raise ValueError(kind)
        inner, length = self.number("<I"), self.number()
        if length <= MOST_KEPT or inner == LIST:
            if length > self.size:
                raise Cut
            return [self.value(inner, depth + 1) for _ in range(length)]
        if inner in NUMBERS:
            # layers of a model may be as many as that: per-layer numbers are kept
            if length <= 4096:
                return [self.number(NUMBERS[inner]) for _ in range(length)]
            self.skip(length * struct.calcsize(NUMBERS[inner]))
        elif inner == TEXT:
            for _ in range(length):
                self.skip(self.number())
        else:
            raise ValueError(inner)
        return {"length": length}


def read_header(path):
    """(metadata, [(name, shape, dtype, offset, nbytes, fault)], sentences) of a GGUF file; shapes as in safetensors, (out, in) for a matrix."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    size = path.stat().st_size
    metadata: dict = {}
    infos = []
    try:
        with path.open("rb") as file:
            reader = Reader(file, size)
            reader.skip(4)
            version = reader.number("<I")
            if version not in VERSIONS:
                raise LawbookError(f"The GGUF file {path} is of version {version}; lawbook reads {' and '.join(map(str, VERSIONS))}, in little-endian byte order.")
            tensors, pairs = reader.number(), reader.number()
            for _ in range(pairs):
                key = reader.text()
                metadata[key] = reader.value(reader.number("<I"))
            for _ in range(tensors):
                name, axes = reader.text(), reader.number("<I")
                if axes > 8:
                    raise ValueError(axes)
                lengths = [reader.number() for _ in range(axes)]
                infos.append((name, tuple(lengths[::-1]), reader.number("<I"), reader.number()))
            start = file.tell()
    except Cut:
        raise LawbookError(f"The GGUF file {path} is cut off in its header ({size:,} bytes).") from None
    except ValueError as error:
        if isinstance(error, LawbookError):
            raise
        raise LawbookError(f"The header of the GGUF file {path} is damaged: after {len(metadata)} values and {len(infos)} tensors it makes no sense.") from None
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1:
        raise LawbookError(f"The GGUF file {path} has the alignment {alignment!r}, which must be a positive whole number.")
    start += -start % alignment
    known = {int(kind): kind for kind in GGMLQuantizationType}
    found, end = [], 0
    for name, shape, number, offset in infos:
        kind = known.get(number)
        dtype, nbytes, fault = kind.name if kind is not None else f"type {number}", 0, ""
        if kind is None:
            fault = f"The tensor {name} in {path} has the type {number}, which the gguf library does not know."
        else:
            block, unit = GGML_QUANT_SIZES[kind]
            nbytes = math.prod(shape) // block * unit
            end = max(end, start + offset + nbytes)
            if shape and shape[-1] % block:
                fault = f"The tensor {name} in {path} has rows of {shape[-1]} values, no multiple of the {block} in a block of {dtype}."
            elif start + offset + nbytes > size:
                fault = f"The tensor {name} in {path} is cut off: {max(0, size - start - offset):,} of its {nbytes:,} bytes are there."
            elif not _readable(dtype):
                fault = f"The tensor {name} in {path} has the type {dtype}, which the gguf library cannot dequantise."
        found.append((name, shape, dtype, start + offset, nbytes, fault))
    return metadata, found, [f"The file {path} is truncated: its header speaks of {end:,} bytes, and it has {size:,}."] if end > size else []


@cache
def _readable(dtype):
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType[dtype]
    if dtype in ("I8", "I16", "I32", "I64", "F64", "F32", "F16"):
        return True
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


def coding(dtype):
    """(values a block, bytes a block, decoder of raw bytes [m, k] to float32 [m, n]) of a quantised type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    kind = GGMLQuantizationType[dtype]
    return *GGML_QUANT_SIZES[kind], lambda raw: dequantize(raw, kind)
