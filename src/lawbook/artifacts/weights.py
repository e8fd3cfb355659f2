"""Weights as people have them: Hugging Face folders, safetensors and GGUF files, read one panel at a time. What cannot be read is named, and the rest is read all the same."""

import errno
import json
import math
import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..contract import LawbookError
from . import gguf_file

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
OTHERS = {".h5": "a Keras file", ".msgpack": "a Flax file", ".onnx": "an ONNX graph", ".npz": "an archive of NumPy", ".npy": "an array of NumPy", ".tflite": "a TFLite model"}
MOST_HEADER = 100_000_000  # bytes, the limit of the format
MOST_CONFIG = 2**24
PANEL = 2**20  # values that are decoded at a time
SCALE_BLOCK = (128, 128)  # weights that share a scale where the config does not say
# dtype -> (bytes a value, how raw bytes [m, n * size] become floats [m, n])
PLAIN: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "F64": (8, lambda raw: raw.view("<f8")),
    "F32": (4, lambda raw: raw.view("<f4")),
    "F16": (2, lambda raw: raw.view("<f2").astype(np.float32)),
    "BF16": (2, lambda raw: (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)),
    "F8_E4M3": (1, lambda raw: _small_floats(raw, "float8_e4m3fn")),
    "F8_E5M2": (1, lambda raw: _small_floats(raw, "float8_e5m2")),
}
WHOLE = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # numbers of things, masks, or weights packed by GPTQ, AWQ and their like


def _small_floats(raw, name):
    import ml_dtypes

    return raw.view(getattr(ml_dtypes, name)).astype(np.float32)


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file: its raw bytes lie row by row from `offset`, and are mapped only while they are read."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # as the file names it
    nbytes: int
    file: Path
    offset: int
    fault: str = ""  # why it cannot be read, a sentence; empty where it can
    scale: "Tensor | None" = None  # weights are multiplied by these, one for each block of `scale_block`, row or tensor
    scale_block: tuple[int, int] = SCALE_BLOCK

    @property
    def size(self):
        return math.prod(self.shape)

    @property
    def integers(self):
        """Whether its values are whole numbers: positions, masks, or weights packed by a quantiser."""
        return self.dtype in WHOLE

    def part(self, index):
        """Entry `index` along the first axis, a tensor by itself."""
        nbytes = self.nbytes // self.shape[0]
        return replace(self, name=f"{self.name}[{index}]", shape=self.shape[1:], nbytes=nbytes, offset=self.offset + index * nbytes)

    def panels(self, across=False) -> Iterator[np.ndarray]:
        """The tensor as a matrix (first axis, all others) in panels of float32 (float64 where so stored): some rows each, or some columns each with `across`.

        LawbookError where it cannot be read. A vector is one row.
        """
        if self.fault:
            raise LawbookError(self.fault)
        if not self.size:
            return
        rows, columns = self._sides()
        step = max(PANEL // rows, 1024) if across else max(PANEL // columns, 1)
        for start in range(0, columns if across else rows, step):
            yield self.cut(columns=(start, start + step)) if across else self.cut(rows=(start, start + step))

    def cut(self, rows=None, columns=None):
        """Some rows and columns of the tensor as a matrix, each (first, one after the last)."""
        m, n = self._sides()
        values, unit, decode = self._coding()
        try:
            raw = np.memmap(self.file, np.uint8, "r", self.offset, (m, n // values * unit))
        except (OSError, ValueError) as error:  # ValueError: the file ends before
            why = getattr(error, "strerror", None) or "the file has become shorter"
            raise LawbookError(f"The tensor {self.name} cannot be read from {self.file}: {why}.") from None
        (top, bottom), (left, right) = ((first, min(last, length)) for (first, last), length in ((rows or (0, m), m), (columns or (0, n), n)))
        blocks = slice(left // values * unit, -(-right // values) * unit)  # whole blocks are decoded
        panel = decode(np.ascontiguousarray(raw[top:bottom, blocks]))[:, left % values :][:, : right - left]
        return panel if self.scale is None else panel * self._scales(np.arange(top, bottom), np.arange(left, right))

    def read(self):
        """The whole tensor, in its own shape."""
        panels = list(self.panels())
        return (np.concatenate(panels) if panels else np.zeros(0, np.float32)).reshape(self.shape)

    def _sides(self):
        return (1, self.size) if len(self.shape) < 2 else (self.shape[0], self.size // self.shape[0])

    def _coding(self):
        """(values a block, bytes a block, decoder of raw bytes [m, k])."""
        if self.dtype in PLAIN:
            return 1, *PLAIN[self.dtype]
        if self.dtype in WHOLE:
            kind = "?" if self.dtype == "BOOL" else f"<{self.dtype[0].lower()}{WHOLE[self.dtype]}"
            return 1, WHOLE[self.dtype], lambda raw: raw.view(kind).astype(np.float64)
        return gguf_file.coding(self.dtype)

    def _scales(self, rows, columns):
        """The scale of each value in some rows and columns, as far as it differs."""
        scale = self.scale
        assert scale is not None
        if scale.size == 1:
            return scale.read().reshape(1, 1)
        if scale.size == self.shape[0] and scale.shape[1:] in ((), (1,)):
            return scale.read().reshape(-1, 1)[rows]
        return scale.read()[np.ix_(rows // self.scale_block[0], columns // self.scale_block[1])]


@dataclass(frozen=True)
class Weights:
    """The tensors of a model in the order of its files, what is known about it, and what could not be read."""

    path: Path
    format: str  # "safetensors" or "gguf"
    files: list[Path]
    tensors: dict[str, Tensor]
    config: dict[str, Any] | None = None  # config.json of a folder
    metadata: dict[str, Any] = field(default_factory=dict)  # of the files' headers; long lists of a GGUF file by their length alone
    said: list[str] = field(default_factory=list)  # what is wrong with the files, a sentence each

    def __iter__(self):
        """(name, array) of every tensor that can be read, one at a time."""
        for tensor in self.tensors.values():
            if not tensor.fault:
                yield tensor.name, tensor.read()

    def __len__(self):
        return len(self.tensors)

    @property
    def faults(self):
        """Sentences on all that cannot be read: files first, then tensors."""
        return [*self.said, *(t.fault for t in self.tensors.values() if t.fault)]

    @property
    def nbytes(self):
        return sum(tensor.nbytes for tensor in self.tensors.values())


def open_weights(path):
    """The Weights of a model folder, or of a .safetensors or .gguf file; only headers are read. LawbookError says why there are none."""
    path = Path(path)
    if _kind(path) == "folder":
        return _folder(path)
    if path.name.endswith(".index.json"):
        return _indexed(path.parent, path)
    kind = _sniff(path)
    if kind == "gguf":
        return _gguf(path, _siblings(path))
    if kind == "safetensors":
        return _joined(path, [path], _config(path.parent))
    raise LawbookError(f"Weights must be a model folder, a .safetensors or a .gguf file; {path} is {kind}.")


def _kind(path):
    """Whether a path leads to a folder or a file; LawbookError where it leads nowhere."""
    try:
        return "folder" if stat.S_ISDIR(os.stat(path).st_mode) else "file"
    except FileNotFoundError:
        said = f"The symbolic link {path} leads to a file that is not there." if path.is_symlink() else f"There is no file or folder {path}."
    except OSError as error:
        said = f"The symbolic link {path} leads back to itself." if error.errno == errno.ELOOP else f"{path} cannot be read: {error.strerror}."
    raise LawbookError(said)


def _sniff(path):
    """What a file holds, by its name and first bytes: "safetensors", "gguf", or words for anything else. LawbookError for pickles, empty files and stand-ins."""
    _kind(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise LawbookError(f"The file {path} cannot be read: {error.strerror}.") from None
    if not head:
        raise LawbookError(f"The file {path} is empty (0 bytes).")
    if head.startswith(b"version https://git-lfs"):
        raise LawbookError(f"The file {path} is the stand-in that Git LFS leaves for weights, not the weights: fetch them with `git lfs pull`.")
    if head.startswith(b"GGUF"):
        return "gguf"
    if path.suffix == ".gguf":
        raise LawbookError(f"The file {path} does not begin with GGUF, as a GGUF file does.")
    if path.suffix == ".safetensors":
        return "safetensors"
    if path.suffix in PICKLES or head[:1] == b"\x80" or (head[:2] == b"PK" and zipfile.is_zipfile(path) and any(n.endswith(".pkl") for n in zipfile.ZipFile(path).namelist())):
        raise LawbookError(f"The checkpoint {path} is a pickle, which can run any code when it is opened: save the weights as safetensors (save_file of the safetensors library).")
    return OTHERS.get(path.suffix, f"a {path.suffix or 'nameless kind of'} file")


def _folder(path):
    """A model folder: by its index, as model.safetensors, as the one set of safetensors, or as the one GGUF model in it."""
    names = sorted(entry.name for entry in path.iterdir())
    if not names:
        raise LawbookError(f"The folder {path} is empty.")
    found = [name for name in names if name.endswith(".safetensors")]
    indices = [name for name in names if name.endswith(".safetensors.index.json")]
    if "model.safetensors.index.json" in indices or len(indices) == 1:
        return _indexed(path, path / ("model.safetensors.index.json" if "model.safetensors.index.json" in indices else indices[0]))
    if found:
        chosen = ["model.safetensors"] if "model.safetensors" in found else found
        return _joined(path, [path / name for name in chosen], _config(path))
    models = [name for name in names if name.endswith(".gguf")]
    sets = {_siblings(path / name)[0] for name in models}
    if len(sets) > 1:
        raise LawbookError(f"The folder {path} holds {len(sets)} GGUF models ({', '.join(models[:5])}): name one of them.")
    if sets:
        return _gguf(path, _siblings(path / models[0]))
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        _sniff(path / pickles[0])
    raise LawbookError(f"The folder {path} holds no .safetensors or .gguf file; it holds {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}.")


def _config(folder):
    """config.json of a folder; None where there is none that can be read."""
    try:
        with (folder / "config.json").open("rb") as file:
            found = json.loads(file.read(MOST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _indexed(folder, index):
    """Shards by their index; of a shard that is missing the tensors are faults."""
    try:
        with index.open("rb") as file:
            where = json.loads(file.read(MOST_HEADER))["weight_map"]
        where = {str(name): str(shard) for name, shard in where.items()}
    except OSError as error:
        raise LawbookError(f"The index {index} cannot be read: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise LawbookError(f"The index {index} must be a JSON object whose weight_map gives the file of each tensor.") from None
    if outside := next((shard for shard in where.values() if Path(shard).name != shard or shard in ("", "..")), None):
        raise LawbookError(f"The index {index} names the shard {outside!r}, which is not in its folder.")
    joined = _joined(folder, [folder / shard for shard in sorted(set(where.values()))], _config(folder), several=True)
    said = list(joined.said)
    for shard, number in Counter(where[name] for name in where if name not in joined.tensors).items():
        example = next(name for name in where if where[name] == shard and name not in joined.tensors)
        said.append(f"Of the tensors that the index says are in {folder / shard}, {number} are missing, such as {example}.")
    return replace(joined, said=said)


def _joined(path, files, config, several=False):
    """The tensors of some safetensors files; of several files, one that cannot be read is a sentence."""
    tensors: dict[str, Tensor] = {}
    metadata, said = {}, []
    for file in files:
        try:
            if _sniff(file) == "gguf":
                raise LawbookError(f"The file {file} is a GGUF file, whatever its name says.")
            found, more, problems = _safetensors(file)
        except LawbookError as error:
            if len(files) == 1 and not several:
                raise
            said.append(str(error))
            continue
        metadata |= more
        said += problems
        for name, tensor in found.items():
            if name in tensors:
                said.append(f"The tensor {name} is in {tensors[name].file.name} and again in {file.name}: the first is taken.")
            tensors.setdefault(name, tensor)
    if not tensors:
        raise LawbookError(said[0] if said else f"The model {path} holds no tensors.")
    return Weights(path, "safetensors", files, _with_scales(tensors, config), config, metadata, said)


def _safetensors(path):
    """(tensors, metadata, sentences) of one file, from its header. Ours and not the library's, which refuses a truncated file as a whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise LawbookError(f"The header of {path} claims {length:,} bytes, more than the file has ({size:,} in all): it is no safetensors file, or was cut off in its header.")
        if length > MOST_HEADER:
            raise LawbookError(f"The header of {path} claims {length:,} bytes; the format allows {MOST_HEADER:,}.")
        try:
            header = json.loads(file.read(length))
            metadata = header.pop("__metadata__", None) or {}
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise LawbookError(f"The header of {path} is not a JSON object, as that of a safetensors file is.") from None
    tensors = {name: _entry(path, name, entry, 8 + length, size) for name, entry in header.items()}
    ordered = sorted((t for t in tensors.values() if t.nbytes > 0), key=lambda t: t.offset)
    last = None
    for tensor in ordered:
        if last and tensor.offset < last.offset + last.nbytes:
            for one, other in ((last, tensor), (tensor, last)):
                if not tensors[one.name].fault:
                    tensors[one.name] = replace(one, fault=f"The tensor {one.name} in {path} shares bytes with {other.name}: neither can be right.")
        if not last or tensor.offset + tensor.nbytes > last.offset + last.nbytes:
            last = tensor
    end = max((t.offset + t.nbytes for t in tensors.values()), default=0)
    said = [f"The file {path} is truncated: its header speaks of {end:,} bytes, and it has {size:,}."] if end > size else []
    return tensors, metadata, said


def _entry(path, name, entry, start, size):
    """One tensor of a header, with its fault where there is one."""
    tensor = Tensor(name, (), "", 0, path, start)
    try:
        dtype, shape, (first, last) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
        if not all(type(n) is int and n >= 0 for n in (*shape, first, last)) or last < first:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        return replace(tensor, fault=f"The tensor {name} in {path} is described by {str(entry)[:100]}, not by a dtype, a shape and data_offsets.")
    tensor = replace(tensor, shape=shape, dtype=dtype, nbytes=last - first, offset=start + first)
    unit = PLAIN[dtype][0] if dtype in PLAIN else WHOLE.get(dtype)
    if unit is None:
        fault = f"The tensor {name} in {path} has the dtype {dtype}, which lawbook does not know."
    elif last - first != unit * math.prod(shape):
        fault = f"The tensor {name} in {path} has {last - first:,} bytes where its shape {list(shape)} of {dtype} needs {unit * math.prod(shape):,}."
    elif start + last > size:
        fault = f"The tensor {name} in {path} is cut off: {max(0, size - start - first):,} of its {last - first:,} bytes are there."
    else:
        fault = ""
    return replace(tensor, fault=fault)


def _with_scales(tensors, config):
    """Tensors of 8 bits joined with the scales that stand beside them (`weight_scale_inv` of blocks, `weight_scale` of rows or the whole)."""
    quantization = (config or {}).get("quantization_config")
    block = quantization.get("weight_block_size") if isinstance(quantization, dict) else None
    block = tuple(block) if isinstance(block, list) and len(block) == 2 and all(type(b) is int and b > 0 for b in block) else SCALE_BLOCK
    out = dict(tensors)
    for name, tensor in tensors.items():
        scale = tensors.get(f"{name}_scale_inv") or tensors.get(f"{name}_scale")
        if not tensor.dtype.startswith("F8_") or scale is None or tensor.fault:
            continue
        blocks = tuple(-(-length // b) for length, b in zip(tensor.shape, block, strict=False))
        if scale.fault or scale.shape not in ((), (1,), (1, 1), tensor.shape[:1], (*tensor.shape[:1], 1), blocks):
            fault = f"The tensor {name} in {tensor.file} has scales that cannot be used ({scale.fault or f'of shape {list(scale.shape)}'})."
            out[name] = replace(tensor, fault=fault)
        else:
            out[name] = replace(tensor, scale=scale, scale_block=block)
    return out


def _siblings(path):
    """The files of a GGUF model that is split: all of -00001-of-00003.gguf, in order; otherwise the file alone."""
    split = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})\.gguf", path.name)
    return [path.with_name(f"{split[1]}-{i:05}-of-{split[2]}.gguf") for i in range(1, int(split[2]) + 1)] if split else [path]


def _gguf(path, files):
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, Any] = {}
    said: list[str] = []
    for file in files:
        try:
            _sniff(file)
            more, found, problems = gguf_file.read_header(file)
        except LawbookError as error:
            if len(files) == 1:
                raise
            said.append(str(error))
            continue
        metadata = more | metadata
        said += problems
        for name, shape, dtype, offset, nbytes, fault in found:
            tensors.setdefault(name, Tensor(name, shape, dtype, nbytes, file, offset, fault))
    if not tensors:
        raise LawbookError(said[0] if said else f"The model {path} holds no tensors.")
    return Weights(path, "gguf", files, tensors, None, metadata, said)
