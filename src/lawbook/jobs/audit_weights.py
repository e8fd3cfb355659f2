"""What the weights of a model say about it: every matrix measured from one set of singular values, bits shared out over all of them, and the layers that stand out in words."""

import hashlib
import json
import math
import os
import re
import sqlite3
import time
import warnings
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts import gguf_file, weights
from ..artifacts.weights import open_weights
from ..chapters.generalization import condition_number_tuning, heavy_tail_layer_quality
from ..chapters.generalization.condition_number_tuning import kappa_select
from ..chapters.serving import modular_decomposition, quantization_bit_allocation, weight_informed_sparsity
from ..chapters.serving.quantization_bit_allocation import bit_allocation, discrete_allocation
from ..contract import Caution, DomainError, Shown, UnknownName
from ..numerics import singular, streamed
from . import matrix_measures, weight_pairs
from .matrix_measures import measure
from .places import home
from .weight_pairs import DROPPED, Block, blocks_of, measure_block

READERS, NUMERICS = (weights, gguf_file), (singular, streamed)
PAPERS = (condition_number_tuning, heavy_tail_layer_quality, modular_decomposition, quantization_bit_allocation, weight_informed_sparsity)
WIDTHS = (2, 3, 4, 5, 6, 8, 16)  # bits that quantised formats have
SMALL, THREADS = 1024, 6  # matrices with a smaller side up to this are measured several at a time: more threads for one of them only wait for each other
# what stands out; alpha as the paper reads it, by more than its standard error
WELL_TRAINED, FEWEST, READABLE = (2, 6), 10, 50  # alpha, the singular values that fitting it takes, and reading it
TIMES_RANDOM = 10  # condition number over that of random entries
SAVED = 0.5  # of the parameters, at 5 % of the squared output
BITS_OFF = 1  # from the average
GAINED = 0.75  # error with column norms over error without
MANY = 3  # layers of a kind that are told of together
TO_TUNE = 0.1  # of the matrices, those with the least condition numbers
EXPERTS = re.compile(r"exps\b|experts\b")
INPUTS_FIRST = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")  # of GPT-2 and its like, whose layers are stored (in, out)
FIRST_STORED = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")


@dataclass(frozen=True)
class WeightsAudit(Shown):
    """Every matrix of a model with what its weights say, and what could not be audited."""

    path: str
    format: str
    layers: list[dict[str, Any]]  # a row for each matrix: see `measure`; `bits`, `width` and `kappa_order` are shared out over all
    pairs: list[dict[str, Any]]  # a row for each layer: see `measure_block`
    totals: dict[str, Any]
    allocation: dict[str, Any]  # average_bits, gain_over_uniform (unrounded), gain_of_widths, choices
    tune: list[str]  # matrices to fine-tune first
    stands_out: list[str]  # a sentence for each layer that stands out
    faults: list[str]  # what could not be audited and why, a sentence each
    said: list[str]  # how the figures are to be read
    config: dict[str, Any] | None = field(default=None, repr=False)
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)

    def columns(self):
        """The layers as a table: name -> list of cells."""
        return {key: [row[key] for row in self.layers] for key in self.layers[0]} if self.layers else {}

    def remarks(self):
        """What there is to say, a sentence each."""
        yield from (*self.faults, *self.stands_out, *self.said)

    def to_dict(self):
        return dict(self.__dict__)

    def __repr__(self):
        return f"<audit of {len(self.layers)} matrices of {self.path}: {len(self.stands_out)} stand out, {len(self.faults)} faults>"


def audit_weights(path, *, bits=4.0, sensitivities=None, decompose=True, resume=True, records=None, progress=None, run=None):
    """The WeightsAudit of a model folder, a .safetensors or a .gguf file.

    `bits` is the budget, an average per weight; `sensitivities` (name -> curvature of the loss in a weight, relative to the layer's own scale) replaces equal ones.
    `decompose` thins pairs of matrices layer by layer as well, which takes longer than all the rest. What was measured of a tensor is kept, and an audit that was
    interrupted goes on there. `run(function, tasks)` yields answers in the order of the tasks, as map does; without it small matrices share the cores and large ones have
    all of them. `progress(done, total, name)` is called as answers arrive.
    """
    if not WIDTHS[0] <= bits <= WIDTHS[-1]:
        raise DomainError(f"bits must be from {WIDTHS[0]} to {WIDTHS[-1]} per weight on average; it was {bits!r}.")
    model = open_weights(path)
    reference = int(round(bits))
    tensors, faults, counts = _matrices(model)
    known = {tensor.name for tensor in tensors}
    for name, value in (sensitivities or {}).items():
        if name not in known:
            raise UnknownName("matrix", name, known)
        if not 0 <= value < math.inf:
            raise DomainError(f"sensitivities must be 0 or more and finite; that of {name} was {value!r}.")
    blocks, unknown = blocks_of(model) if decompose else ([], [])
    first = str((model.config or {}).get("model_type")) in FIRST_STORED
    tasks = [([tensor], (tensor, reference, first and bool(INPUTS_FIRST.search(tensor.name)))) for tensor in tensors]
    tasks += [([*block.parts.values()], block) for block in blocks]
    records = (records or Measured()) if resume else None
    rows, todo = {}, []
    for at, (parts, task) in enumerate(tasks):
        key = _key(parts, repr(task))
        kept = records.find(key) if records else None
        if kept is None:
            todo.append((at, key, task))
        else:
            rows[at] = kept
    if progress and rows:
        progress(len(rows), len(tasks), "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Caution)  # what is too small for a tail is said in words
        for (at, key, _), row in zip(todo, (run or spread)(_measured, [task for *_, task in todo]), strict=True):
            rows[at] = row
            if records and (row.get("nonfinite") or not row["fault"]):
                records.keep(key, row)
            if progress:
                progress(len(rows), len(tasks), row["name"])
    ordered = [rows[at] for at in range(len(tasks))]
    faults += [row["fault"] for row in ordered if row["fault"]]
    layers, pairs = (
        [{key: value for key, value in row.items() if key != "fault"} for row in part if not row["fault"]] for part in (ordered[: len(tensors)], ordered[len(tensors) :])
    )
    layers, allocation = _share_out(layers, bits, reference, sensitivities or {})
    tune = _to_tune(layers)
    totals = {"tensors": len(model), "bytes": model.nbytes, **counts, "matrices": len(layers), "matrix_params": sum(row["params"] for row in layers)}
    readable = [row["alpha"] for row in layers if row["alpha"] == row["alpha"] and min(row["rows"], row["columns"]) >= READABLE]
    totals |= {"median_alpha": float(np.median(readable)) if readable else math.nan, "mean_alpha": float(np.mean(readable)) if readable else math.nan}
    said = [*_how_to_read(layers, allocation, reference, sensitivities), *(_of_pairs(pairs)), *unknown]
    return WeightsAudit(str(model.path), model.format, layers, pairs, totals, allocation, tune, _outstanding(layers, bits), faults, said, model.config, model.metadata)


def _matrices(model):
    """(the tensors to measure, experts one by one, in the order of their numbers; sentences on what is left out; counts of the vectors)."""
    found, faults, counts, whole = [], model.faults, {"vectors": 0, "vector_params": 0}, []
    for tensor in sorted(model.tensors.values(), key=lambda tensor: [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", tensor.name))]):
        if tensor.fault:
            continue
        if not tensor.size:
            faults.append(f"The tensor {tensor.name} in {tensor.file} is empty: its shape is {list(tensor.shape)}.")
        elif tensor.integers:
            whole.append(tensor)
        elif len(tensor.shape) < 2 or tensor.name.endswith(("_scale_inv", "_scale")):
            counts["vectors"] += 1
            counts["vector_params"] += tensor.size
        elif len(tensor.shape) == 3 and EXPERTS.search(tensor.name):
            found += [tensor.part(i) for i in range(tensor.shape[0])]
        else:
            found.append(tensor)
    for dtype, number in Counter(t.dtype for t in whole).items():
        names = [t.name for t in whole if t.dtype == dtype]
        shown = ", ".join(names[:3]) + (f" and {number - 3} more" if number > 3 else "")
        faults.append(f"Not audited, since they hold whole numbers ({dtype}: positions, masks, or weights packed by GPTQ, AWQ or the like): {shown}.")
    return found, faults, counts


def spread(function, tasks):
    """Answers in the order of the tasks. Small matrices share the cores, pairs come one after the other, both with one thread of linear algebra each; large matrices have all."""
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import ThreadpoolController

    if any(isinstance(task, Block) for task in tasks):
        import scipy.linalg  # noqa: F401  its own library of threads must be loaded to be limited

    libraries = ThreadpoolController()
    for threads, group in groupby(tasks, key=_threads):
        if not threads:
            yield from map(function, group)
            continue
        with libraries.limit(limits=1), ThreadPoolExecutor(threads) as pool:
            waiting = [pool.submit(function, task) for task in group]
            try:
                for answer in waiting:
                    yield answer.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _threads(task):
    """How many tasks like this one are done at a time, each by one thread; 0 for one that takes what threads there are."""
    if isinstance(task, Block):
        return 1
    small = min(task[0].shape[0], task[0].size // task[0].shape[0]) <= SMALL
    return min(os.cpu_count() or 1, THREADS) if small else 0


def _measured(task):
    if isinstance(task, Block):
        return measure_block(task)
    tensor, reference, inputs_first = task
    return measure(tensor, bits=reference, inputs_first=inputs_first)


def _share_out(layers, bits, reference, given):
    """Layers with `sensitivity`, `bits` and `width`, and what the split gains."""
    if not layers:
        return layers, {}
    sizes, variances = (np.array([row[key] for row in layers], float) for key in ("params", "variance"))
    errors = np.nan_to_num([row["quantization_error"] for row in layers])
    # relative errors count: the scale of a layer is made up for by the norms around it
    relative = errors * 4.0**reference * np.array([given.get(row["name"], 1.0) for row in layers], float)
    sensitivities = np.divide(relative, variances, out=np.zeros(len(layers)), where=variances > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Caution)
        best = bit_allocation(sizes, variances, sensitivities, average_bits=bits)
        widths = discrete_allocation(sizes, variances, sensitivities, choices=np.array(WIDTHS, float), budget_bits=bits * sizes.sum())
    uniform = float(np.sum(sizes * relative) * 4.0**-bits)
    out = [row | {"sensitivity": float(s), "bits": float(b), "width": int(w)} for row, s, b, w in zip(layers, relative, best["bits"], widths["bits"], strict=True)]
    gain = {"gain_over_uniform": float(best["gain_over_uniform"]), "gain_of_widths": uniform / widths["distortion"] if widths["distortion"] > 0 else 1.0}
    return out, {"average_bits": float(bits), **gain, "choices": list(WIDTHS)}


def _to_tune(layers):
    """Names of the matrices with the least condition numbers; sets `kappa_order`, from 1, in the rows that can be chosen, 0 in the others."""
    chosen = [row for row in layers if row["kind"] in ("matrix", "convolution") and min(row["rows"], row["columns"]) > 1]
    for row in layers:
        row["kappa_order"] = 0
    if not chosen:
        return []
    order = kappa_select([row["name"] for row in chosen], np.array([row["kappa"] for row in chosen]), len(chosen))["selected"]
    place = {name: at for at, name in enumerate(order, 1)}
    for row in chosen:
        row["kappa_order"] = place[row["name"]]
    return order[: math.ceil(TO_TUNE * len(order))]


def _outstanding(layers, bits):
    """Sentences on the layers that stand out: one for each layer, or for all of a kind (the same name but for its numbers) where many do in the same way."""
    found = {row["name"]: _oddities(row, bits) for row in layers}
    kinds: dict[tuple, list] = {}
    for row in layers:
        for oddity in found[row["name"]]:
            kinds.setdefault((_role(row["name"]), oddity[0]), []).append((row["name"], *oddity))
    sizes = Counter(_role(row["name"]) for row in layers)
    out, done = [], set()
    for row in layers:
        alone = []
        for what, _, words in found[row["name"]]:
            key = (_role(row["name"]), what)
            if len(kinds[key]) < MANY:
                alone.append(words)
            elif key not in done:
                done.add(key)
                worst = max(kinds[key], key=lambda oddity: oddity[2])
                out.append(f"{key[0]}: {len(kinds[key])} of {sizes[key[0]]} {what}; the most is {worst[0]}: {worst[3]}")
        if alone:
            out.append(f"{row['name']}: {'; '.join(alone)}")
    return out


def _role(name):
    return re.sub(r"\d+", "*", name)


def _oddities(row, bits):
    """[(what, how much, words)] of one matrix."""
    side, shape, out = min(row["rows"], row["columns"]), f"{row['rows']} x {row['columns']}", []
    if row["norm"] == 0:
        return [("are all zeros", row["params"], f"all {row['params']:,} weights are 0")]
    if row["alpha"] != row["alpha"]:
        why = f"{side} singular value{'s' if side > 1 else ''} {'are' if side > 1 else 'is'} too few for a tail" if side < FEWEST else "its singular values have no tail"
        out.append(("have no tail to fit", side, f"{shape}, {why}"))
    elif side >= READABLE:
        if row["alpha"] - row["sigma"] > WELL_TRAINED[1]:
            out.append(("look under-trained or like noise", row["alpha"], f"alpha {row['alpha']:.1f} ± {row['sigma']:.1f}, under-trained or like noise"))
        elif row["alpha"] + row["sigma"] < WELL_TRAINED[0]:
            out.append(("are over-correlated", -row["alpha"], f"alpha {row['alpha']:.2f} ± {row['sigma']:.2f}, over-correlated"))
    if side >= READABLE and not row["spikes"]:
        out.append(("have no eigenvalue above noise", -row["soft_rank"], "no eigenvalue above what noise of the same size reaches"))
    if row["kappa"] == math.inf:
        out.append(("lack rank", side - row["rank"], f"rank {row['rank']} of {side}"))
    elif row["kappa"] > TIMES_RANDOM * row["random_kappa"]:
        times = row["kappa"] / row["random_kappa"]
        out.append(("are ill-conditioned for their shape", times, f"condition number {row['kappa']:.3g}, {times:.0f} times that of random entries"))
    if row["low_rank_saved"] > SAVED and side > 1:
        saved = f"rank {row['rank_needed']} of {side} keeps 95 % of the squared output and saves {100 * row['low_rank_saved']:.0f} % of the parameters"
        out.append(("are of low rank", row["low_rank_saved"], saved))
    if row["bits"] >= bits + BITS_OFF:
        out.append(("are sensitive to quantisation", row["bits"], f"sensitive to quantisation, wants {row['bits']:.1f} bits"))
    elif row["bits"] <= bits - BITS_OFF:
        out.append(("can do with fewer bits", -row["bits"], f"can do with {row['bits']:.1f} bits"))
    if row["sparsity_error"] < GAINED * row["sparsity_magnitude"]:
        gain = 1 - row["sparsity_error"] / row["sparsity_magnitude"]
        out.append(("have uneven columns", gain, f"dropping inputs by column norms as well costs {100 * gain:.0f} % less than by magnitude alone"))
    return out


def _how_to_read(layers, allocation, reference, given):
    if not layers:
        return ["No matrix could be audited."]
    weighed = " and weighed by the sensitivities given" if given else ", all weights counting the same: without data the curvature of the loss is unknown"
    return [
        f"Bits: errors of a symmetric grid of {reference} bits a row, relative to each matrix{weighed}; "
        f"the best split loses {allocation['gain_over_uniform']:.3g} times less than equal bits, that into whole widths {allocation['gain_of_widths']:.3g} times.",
        "Sparsity and low rank are for inputs without preferred directions; the activations of data have some, and compress further.",
        f"Alpha is read where there are at least {READABLE} singular values, and says nothing certain: noise can show the same.",
    ]


def _of_pairs(pairs):
    """Which inner dimension is the cheapest to thin, and in which layers."""
    for key, what in (("query_key", "query and key columns"), ("value_output", "value-output ranks"), ("mlp", "neurons")):
        errors = {row["name"]: row[key] for row in pairs if row[key] == row[key]}
        if errors:
            least, most = min(errors, key=errors.__getitem__), max(errors, key=errors.__getitem__)
            ends = f"least in {least} ({100 * errors[least]:.1f} %), most in {most} ({100 * errors[most]:.1f} %)"
            yield f"Dropping {100 * DROPPED:g} % of the {what} costs {100 * float(np.median(list(errors.values()))):.1f} % of the squared output in the median layer, {ends}."


class Measured:
    """Measurements on disk, by file, tensor and code. A store that cannot be used costs a warning, never an audit."""

    def __init__(self, path=None):
        self._path, self._broken = path, False

    def find(self, key):
        found = self._do("select row from measured where key = ?", (key,))
        return json.loads(found[0][0]) if found else None

    def keep(self, key, row):
        self._do("insert or replace into measured values (?, ?, ?)", (key, json.dumps(row), time.time()))

    def _do(self, command, values):
        if self._broken:
            return None
        try:
            path = Path(self._path or home() / "weights.sqlite")
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
                connection.execute("create table if not exists measured (key text primary key, row text, kept_at real)")
                return connection.execute(command, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            self._broken = True
            warnings.warn(f"Measurements are shown but not kept: the records in {self._path or home()} cannot be used ({error}).", stacklevel=4)
            return None


def _key(tensors, task):
    """What a measurement depends on: the files as they are now, what is asked of them, and the code."""
    parts = []
    for tensor in tensors:
        for part in (tensor, tensor.scale):
            if part is not None:
                state = part.file.stat()
                parts += [str(part.file.resolve()), state.st_size, state.st_mtime_ns]
    return hashlib.sha256(json.dumps([*parts, task, _code()]).encode()).hexdigest()


@cache
def _code():
    digest = hashlib.sha256(np.__version__.encode())
    for module in (matrix_measures, weight_pairs, *READERS, *NUMERICS, *PAPERS):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()
