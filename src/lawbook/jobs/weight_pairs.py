"""Pairs of matrices that meet in an inner dimension, block by block: what it costs to thin that dimension, by the three decompositions, for inputs without preferred directions."""

import math
import re
from dataclasses import dataclass

import numpy as np

from ..artifacts.weights import Tensor
from ..chapters.serving.modular_decomposition import compress_key_query, compress_mlp, compress_value_output
from ..contract import LawbookError

DROPPED = 0.25  # of each inner dimension
MOST_NEURONS = 2048  # of an MLP: the cost grows with the cube of their number
PER_NEURON, CHUNK = 4, 256  # standard normal inputs for each neuron, so many at a time
LAYER = re.compile(r"^(.*?(?:layers?|blk|h|blocks?)\.\d+)\.(.+)\.weight$")
ROLES = {
    "query": ("self_attn.q_proj", "attn_q", "attention.self.query", "attention.q_lin", "attention.wq"),
    "key": ("self_attn.k_proj", "attn_k", "attention.self.key", "attention.k_lin", "attention.wk"),
    "value": ("self_attn.v_proj", "attn_v", "attention.self.value", "attention.v_lin", "attention.wv"),
    "output": ("self_attn.o_proj", "attn_output", "attention.output.dense", "attention.out_lin", "attention.wo", "self_attn.dense"),
    "gate": ("mlp.gate_proj", "ffn_gate", "feed_forward.w1"),
    "up": ("mlp.up_proj", "ffn_up", "intermediate.dense", "ffn.lin1", "feed_forward.w3", "mlp.fc1"),
    "down": ("mlp.down_proj", "ffn_down", "output.dense", "ffn.lin2", "feed_forward.w2", "mlp.fc2"),
}
ROLE = {name: role for role, names in ROLES.items() for name in names}


ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
}


@dataclass(frozen=True)
class Block:
    """The matrices of one layer by their roles, and how they are to be read."""

    name: str
    parts: dict[str, Tensor]
    heads: int = 0  # 0 where unknown
    groups: int = 0  # heads of keys and values
    rotary: str = ""  # which coordinates are turned together: "halves" (i and i + d/2), "neighbours", or none
    activation: str = ""

    @property
    def neurons(self):
        return self.parts["down"].shape[1] if {"up", "down"} <= self.parts.keys() else 0


def blocks_of(model):
    """(the Blocks of a model, sentences on what of them cannot be decomposed)."""
    found: dict[str, dict[str, Tensor]] = {}
    for tensor in model.tensors.values():
        match = LAYER.match(tensor.name)
        if match and match[2] in ROLE and not tensor.fault and not tensor.integers and len(tensor.shape) == 2 and tensor.size:
            found.setdefault(match[1], {})[ROLE[match[2]]] = tensor
    config, known = model.config or {}, model.metadata
    config = config | (config.get("text_config") if isinstance(config.get("text_config"), dict) else {})
    family = str(known.get("general.architecture", ""))
    heads = config.get("num_attention_heads") or config.get("n_heads") or known.get(f"{family}.attention.head_count")
    groups = config.get("num_key_value_heads") or known.get(f"{family}.attention.head_count_kv") or heads
    activation = str(config.get("hidden_act") or config.get("hidden_activation") or config.get("activation") or ("gelu" if family.startswith("gemma") else "silu"))
    rotary = "neighbours" if family == "llama" else "halves" if f"{family}.rope.freq_base" in known or "rope_theta" in config or "rope_parameters" in config else ""
    blocks = []
    for at, (name, parts) in enumerate(sorted(found.items(), key=lambda item: [int(part) for part in re.findall(r"\d+", item[0])])):
        own = [number[at] if isinstance(number, list) and at < len(number) else number for number in (heads, groups)]
        numbers = own if all(type(number) is int and number > 0 for number in own) else (0, 0)
        blocks.append(Block(name, parts, *numbers, rotary, next((kind for kind in ACTIVATIONS if kind in activation.replace("swish", "silu")), "")))
    said = []
    if any("query" in block.parts and not block.heads for block in blocks):
        said.append("The number of attention heads, which config.json gives, is not known: pairs of attention matrices are not decomposed.")
    if any(block.neurons > MOST_NEURONS for block in blocks):
        said.append(f"MLPs with more than {MOST_NEURONS} neurons are not decomposed: the cost grows with the cube.")
    return blocks, said


def measure_block(block):
    """The error, over the whole, of dropping a quarter of each inner dimension of a Block: `query_key`, `value_output` and `mlp`, NaN where it has no such pair.

    Inputs are white, biases and norms left aside. `fault` is a sentence where a matrix cannot be read.
    """
    row = {"name": block.name, "query_key": math.nan, "value_output": math.nan, "mlp": math.nan, "fault": ""}
    try:
        if block.groups and block.heads % block.groups == 0:
            row |= {key: pair(block) for key, pair in (("query_key", _query_key), ("value_output", _value_output))}
        if 0 < block.neurons <= MOST_NEURONS and block.activation:
            row["mlp"] = _mlp(block)
    except LawbookError as error:
        row["fault"] = str(error)
    return row


def _query_key(block):
    if not {"query", "key"} <= block.parts.keys():
        return math.nan
    query, key, shared = block.parts["query"], block.parts["key"], block.heads // block.groups
    dim = key.shape[0] // block.groups
    if query.shape != (block.heads * dim, key.shape[1]) or dim < 2:
        return math.nan
    keep = int((1 - DROPPED) * dim) // 2 * 2 if block.rotary else int((1 - DROPPED) * dim)
    order = np.r_[0:dim:2, 1:dim:2] if block.rotary == "neighbours" else np.arange(dim)
    lost = whole = 0.0
    for group in range(block.groups):
        q = query.cut(rows=(group * shared * dim, (group + 1) * shared * dim)).reshape(shared, dim, -1)[:, order].astype(float)
        k = key.cut(rows=(group * dim, (group + 1) * dim))[order].astype(float)
        lost += compress_key_query(None, q.reshape(shared * dim, -1).T, k.T, keep, rope_pairs=bool(block.rotary))["error"]
        whole += float(np.sum((q @ q.swapaxes(1, 2)) * (k @ k.T)))
    return lost / whole if whole > 0 else math.nan


def _value_output(block):
    if not {"value", "output"} <= block.parts.keys():
        return math.nan
    value, output, shared = block.parts["value"], block.parts["output"], block.heads // block.groups
    dim = value.shape[0] // block.groups
    if output.shape[1] != block.heads * dim or dim < 2:
        return math.nan
    lost = whole = 0.0
    for group in range(block.groups):
        v = value.cut(rows=(group * dim, (group + 1) * dim)).T
        o = output.cut(columns=(group * shared * dim, (group + 1) * shared * dim))
        found = compress_value_output(None, v, np.concatenate(np.split(o, shared, axis=1)).T, int((1 - DROPPED) * dim))
        lost, whole = lost + found["error"], whole + float(np.sum(found["singular_values"] ** 2))
    return lost / whole if whole > 0 else math.nan


def _mlp(block):
    up, down = (block.parts[role].read() for role in ("up", "down"))
    gate = block.parts["gate"].read() if "gate" in block.parts else None
    if up.shape[0] != block.neurons or (gate is not None and gate.shape != up.shape):
        return math.nan
    rng, act, moment = np.random.default_rng(0), ACTIVATIONS[block.activation], np.zeros((block.neurons, block.neurons))
    for _ in range(-(-PER_NEURON * block.neurons // CHUNK)):
        x = rng.standard_normal((CHUNK, up.shape[1]), np.float32)
        with np.errstate(over="ignore"):  # of exponentials of what an activation makes 0
            hidden = act(x @ up.T) if gate is None else act(x @ gate.T) * (x @ up.T)
        moment += hidden.T @ hidden
    moment /= np.trace(moment) / block.neurons or 1.0
    whole = float(np.sum(down.T * (moment @ down.T)))
    return compress_mlp(moment, down.T, int((1 - DROPPED) * block.neurons))["error"] / whole if whole > 0 else math.nan
