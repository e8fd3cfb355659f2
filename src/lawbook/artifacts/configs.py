"""Model configurations: config.json of a Hugging Face model or the metadata of a GGUF file as one Architecture, layer by layer, no weights read."""

import json
import math
import os
import stat
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

from ..contract import DomainError, LawbookError, UnknownName
from .gguf_file import read_header

MOST_BYTES = 16 * 2**20  # of a config.json
MOST_LAYERS = 10_000
# bits of one stored number, scales of its block included
BITS = {
    "fp32": 32.0,
    "bf16": 16.0,
    "fp16": 16.0,
    "fp8": 8.0,
    "int8": 8.0,
    "int4": 4.0,
    "fp4": 4.0,
    "nvfp4": 4.5,
    "mxfp4": 4.25,
    "nf4": 4.5,
    "q8_0": 8.5,
    "q6_k": 6.5625,
    "q5_0": 5.5,
    "q5_1": 6.0,
    "q5_k": 5.5,
    "q4_0": 4.5,
    "q4_1": 5.0,
    "q4_k": 4.5,
    "q3_k": 3.4375,
    "q2_k": 2.625,
    "iq4_nl": 4.5,
    "iq4_xs": 4.25,
    "iq3_s": 3.4375,
    "iq3_xxs": 3.0625,
    "iq2_s": 2.5625,
    "iq2_xs": 2.3125,
    "iq2_xxs": 2.0625,
    "iq1_m": 1.75,
    "iq1_s": 1.5625,
    "tq2_0": 2.0625,
    "tq1_0": 1.6875,
}
SPELLINGS = {
    "float32": "fp32",
    "float": "fp32",
    "f32": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "f16": "fp16",
    "float8": "fp8",
    "float8_e4m3fn": "fp8",
    "float8_e5m2": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "e4m3": "fp8",
    "i8": "int8",
    "i4": "int4",
    "uint8": "int8",
    "8bit": "int8",
    "4bit": "int4",
    "iq3_xs": "iq3_s",
    "iq3_m": "iq3_s",
    "iq2_m": "iq2_s",
}
ALIASES = {  # the names of Hugging Face's llama: how other families call them
    "hidden_size": ("n_embd", "d_model", "dim", "model_dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv", "n_kv_heads", "multi_query_group_num"),
    "head_dim": ("attention_head_dim", "kv_channels"),
    "intermediate_size": ("n_inner", "ffn_dim", "d_ff", "hidden_dim", "ffn_hidden_size", "d_inner"),
    "vocab_size": ("padded_vocab_size", "n_vocab"),
    "max_position_embeddings": ("n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length"),
    "experts": ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts"),
    "active_experts": ("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "moe_k"),
    "rope_theta": ("rotary_emb_base", "rope_base"),
    "partial_rotary_factor": ("rotary_pct", "rope_pct"),
}
SIZES = ("head", "dim", "rank", "expert", "layers", "size", "window")  # words in keys that say how large a model is
IDLE = {"sliding_window", "max_window_layers", "full_attention_interval", "sliding_window_pattern", "mamba_chunk_size", "chunk_size", "time_step_rank"} | {
    *("decoder_sparse_step", "moe_intermediate_size", "shared_expert_intermediate_size", "image_size", "query_pre_attn_scalar", "mamba_dt_rank", "qk_head_dim", "ep_size"),
}  # keys of sizes that may stand there without a meaning
NO_DTYPE = "the config names no dtype: bf16 is taken"
NESTED = ("text_config", "llm_config", "language_config", "thinker_config")  # where the language part of a multimodal config stands


@dataclass(frozen=True)
class Family:
    """What the code of a family fixes and its config.json leaves out."""

    gated: bool = True  # three matrices of an MLP, or two
    biases: tuple[str, ...] = ()  # matrices with a bias: "qkv", "out", "mlp", "head"
    norms: int = 2  # a layer
    norm: int = 1  # vectors of a norm: 2 with a bias
    qk_norm: bool = False
    tied: bool = False
    window_pattern: int = 1  # every so manieth layer attends to everything, the others to the window; 1: all layers alike
    positions: bool = False  # learned, not rotated
    rotary: float | None = 1.0  # rotated share of a head; None: not rotated
    causal: bool = True
    gated_output: bool = False  # queries come with a gate of their own size
    defaults: dict[str, Any] = field(default_factory=dict)  # keys that released configs leave out


_GEMMA = {"head_dim": 256, "vocab_size": 256000, "rope_theta": 1e4, "max_position_embeddings": 8192}
_GEMMA3 = {
    "head_dim": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 262208,
    "rope_theta": 1e6,
    "max_position_embeddings": 131072,
    "sliding_window": 4096,
}
_GDN = {
    "linear_num_value_heads": 32,
    "linear_num_key_heads": 16,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
    "head_dim": 256,
    "partial_rotary_factor": 0.25,
}
_NEOX = Family(gated=False, norm=2, biases=("qkv", "out", "mlp"), rotary=0.25)
_GPT2 = replace(_NEOX, positions=True, rotary=None, tied=True)
_BERT = replace(_GPT2, causal=False, defaults={"type_vocab_size": 2})
_HYBRID = Family(qk_norm=True, gated_output=True, rotary=0.25, defaults=_GDN)
FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "mixtral": Family(),
    "qwen2": Family(biases=("qkv",)),
    "qwen2_moe": Family(biases=("qkv",)),
    "qwen3": Family(qk_norm=True),
    "qwen3_moe": Family(qk_norm=True),
    "qwen3_next": _HYBRID,
    "qwen3_5": _HYBRID,
    "qwen3_5_moe": _HYBRID,
    "gemma": Family(tied=True, defaults=_GEMMA),
    "gemma2": Family(tied=True, norms=4, window_pattern=2, defaults=_GEMMA | {"sliding_window": 4096}),
    "gemma3": Family(tied=True, norms=4, qk_norm=True, window_pattern=6, defaults=_GEMMA3),
    "phi": Family(gated=False, norm=2, norms=1, biases=("qkv", "out", "mlp", "head"), rotary=0.5),
    "phi3": Family(),
    "gpt_neox": _NEOX,
    "gpt2": _GPT2,
    "deepseek_v2": Family(),
    "deepseek_v3": Family(),
    "gpt_oss": Family(biases=("qkv", "out", "mlp"), window_pattern=2),
    "jamba": Family(rotary=None, defaults={"attn_layer_period": 8, "attn_layer_offset": 4, "expert_layer_period": 2, "expert_layer_offset": 1}),
    "mamba": Family(norms=1, rotary=None, tied=True),
    "mamba2": Family(norms=1, rotary=None, tied=True),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "mpnet"), _BERT),
}
KIN = {  # model types read as another family
    "gemma3_text": "gemma3",
    "qwen3_5_text": "qwen3_5",
    "qwen3_5_moe_text": "qwen3_5_moe",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "kimi_k2": "deepseek_v3",
    "deepseek_v32": "deepseek_v3",
    "falcon_mamba": "mamba",
}
GGUF_FAMILIES = {
    "gptneox": "gpt_neox",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "qwen3next": "qwen3_next",
    "qwen35": "qwen3_5",
    "qwen35moe": "qwen3_5_moe",
    "qwen2vl": "qwen2",
    "deepseek2": "deepseek_v3",
    "gpt-oss": "gpt_oss",
    "phi2": "phi",
}
GGUF_KEYS = {  # of the metadata, after the architecture's name: the key of a config.json
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "v_head_dim",
    "attention.sliding_window": "sliding_window",
    "attention.q_lora_rank": "q_lora_rank",
    "attention.kv_lora_rank": "kv_lora_rank",
    "rope.freq_base": "rope_theta",
    "expert_count": "experts",
    "expert_used_count": "active_experts",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "leading_dense_block_count": "first_k_dense_replace",
    "full_attention_interval": "full_attention_interval",
}


@dataclass(frozen=True)
class Layer:
    """What one layer holds, keeps for a token, and computes: numbers of parameters and of stored values, not bytes."""

    kind: str  # how it mixes tokens: "full", "window", "latent", "recurrent", or "none" where that is unknown
    mixer: int = 0  # parameters of the matrices around the mixing
    dense: int = 0  # of the MLP that every token passes: the dense one, or the shared experts
    expert: int = 0  # of one routed expert
    experts: int = 0
    active: int = 0  # routed experts of a token
    router: int = 0
    other: int = 0  # norms, biases, convolutions
    heads: int = 0
    kv_heads: int = 0
    cached: int = 0  # values kept for each token
    window: int | None = None  # tokens that are kept at most
    read_width: float = 0.0  # a query and a key cost 4 FLOP for each of these, when a prompt is read
    decode_width: float = 0.0  # and when a token is decoded, which differs where latents stand for keys and values
    state: int = 0  # values of a state of fixed size
    state_flops: int = 0  # to bring it up to date by one token

    @property
    def params(self):
        return self.mixer + self.dense + self.experts * self.expert + self.router + self.other

    @property
    def active_params(self):
        return self.params - (self.experts - self.active) * self.expert


@dataclass(frozen=True)
class Rope:
    """Rotary positions: base, rotated dimensions of a head, and the factor by which interpolation slows the slowest pair."""

    base: float
    dimensions: int
    scale: float = 1.0
    kind: str = "default"


@dataclass(frozen=True)
class Architecture:
    """A model as its configuration says it is."""

    name: str
    family: str
    layers: tuple[Layer, ...]
    width: int
    vocabulary: int
    embedding: int  # parameters of the table of tokens
    head: int  # parameters of the matrix of the logits; it is the table of tokens where tied
    tied: bool
    other: int = 0  # parameters outside the layers: final norm, learned positions, pooling
    causal: bool = True  # an encoder has no cache and decodes nothing
    context: int | None = None  # longest context that it was made for
    rope: Rope | None = None
    dtype: str = "bf16"
    bits: dict[str, float] = field(default_factory=dict)  # of a stored parameter by role (mixer, dense, expert, rest), where they differ from dtype's
    quantization: str | None = None
    stored_bytes: int | None = None  # of the weights beside the configuration
    stored_params: int | None = None
    said: tuple[str, ...] = ()  # how it was read
    missing: tuple[str, ...] = ()  # what could not be read; figures leave it out

    @property
    def params(self):
        return sum(layer.params for layer in self.layers) + self.embedding + (0 if self.tied else self.head) + self.other

    @property
    def active_params(self):
        """Parameters that a token passes through: of the experts its own, and not the table of tokens, of which it reads one row."""
        return sum(layer.active_params for layer in self.layers) + self.head + self.other

    @property
    def state(self):
        """Values of all states of fixed size."""
        return sum(layer.state for layer in self.layers)

    @property
    def mixture(self):
        return any(layer.experts for layer in self.layers)

    def cached(self, tokens):
        """Values that a sequence of so many tokens keeps, states left out."""
        return sum(layer.cached * min(tokens, layer.window or tokens) for layer in self.layers)


def dtype_bits(name):
    """(the book's name of a number format, its bits); LawbookError with the nearest ones, or all, otherwise."""
    spoken = str(name).lower().strip().removeprefix("torch.").replace("-", "_")
    spoken = SPELLINGS.get(spoken, spoken)
    if spoken not in BITS:
        refusal = UnknownName("dtype", name, BITS)
        raise refusal if "did you mean" in str(refusal) else LawbookError(f"There is no dtype {name!r:.80}; there is {', '.join(BITS)}.")
    return spoken, BITS[spoken]


def read_config(source):
    """The Architecture of a config.json, of a model folder or GGUF file, or of a dictionary of either's entries; LawbookError says in one sentence why there is none."""
    if isinstance(source, dict):
        return _architecture(source, str(source.get("_name_or_path") or source.get("general.name") or source.get("model_type") or "model"))
    path = Path(source)
    kind = _kind(path)
    if kind == "folder":
        return _folder(path)
    if path.suffix.lower() == ".gguf":
        return _gguf_file(path)
    return _architecture(_json(path), path.resolve().parent.name if path.name == "config.json" else path.stem)


def _kind(path):
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise LawbookError(f"There is no file or folder {path}.") from None
    except (OSError, ValueError) as error:
        raise LawbookError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode):
        raise LawbookError(f"{path} is neither a file nor a folder.")
    return "file"


def _json(path):
    """The object that a JSON file holds."""
    try:
        size = path.stat().st_size
        if not size:
            raise LawbookError(f"The configuration {path} is empty.")
        if size > MOST_BYTES:
            raise LawbookError(f"The configuration {path} has {size >> 20} MiB: that is no config.json.")
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise LawbookError(f"The configuration {path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise LawbookError(f"The configuration {path} is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise LawbookError(f"The configuration {path} must be a JSON object; it is a {type(found).__name__}.")
    return found


def _folder(path):
    """A model folder: its config.json, and the size of the safetensors beside it."""
    if not os.path.lexists(path / "config.json"):
        files = sorted(path.glob("*.gguf"))
        if len(files) == 1:
            return _gguf_file(files[0])
        raise LawbookError(f"The folder {path} holds no config.json" + (f" and {len(files)} GGUF files: name one of them." if files else "."))
    _kind(path / "config.json")
    found = _architecture(_json(path / "config.json"), path.resolve().name)
    stored = sum(part.stat().st_size for part in path.glob("*.safetensors") if part.is_file())
    if NO_DTYPE in found.said and abs(stored / (4 * found.params) - 1) < 0.05:
        found = replace(found, dtype="fp32", said=tuple(sentence for sentence in found.said if sentence != NO_DTYPE) + ("the config names no dtype: the files have fp32's size",))
    return replace(found, stored_bytes=stored or None)


def _gguf_file(path):
    """The Architecture that the metadata of a GGUF file describe, with the sizes of its tensors."""
    if not path.stat().st_size:
        raise LawbookError(f"The model {path} is empty.")
    try:
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise LawbookError(f"The model {path} is no GGUF file, whatever its name says.")
        entries, tensors, _ = read_header(path)
    except OSError as error:
        raise LawbookError(f"The model {path} cannot be read: {error.strerror}.") from None
    tied = all(name != "output.weight" for name, *_ in tensors)
    found = _architecture(entries | {"tie_word_embeddings": tied}, str(entries.get("general.name") or path.stem))
    params, stored = sum(math.prod(shape) for _, shape, *_ in tensors), sum(size for *_, size, _ in tensors)
    if not params:
        return found
    each = 8 * stored / params
    bits = dict.fromkeys(("mixer", "dense", "expert", "rest"), each)
    return replace(found, stored_bytes=stored, stored_params=params, bits=bits, quantization=f"GGUF, {each:.3g} bits on average")


class _Entries:
    """The entries of a config under the names of Hugging Face's llama; keeps what is missing."""

    def __init__(self, entries, defaults):
        self.entries, self.defaults, self.missing, self.assumed, self.used = entries, defaults, [], [], set(IDLE)

    def get(self, key, default=None):
        names = (key, *ALIASES.get(key, ()))
        self.used.update(names)
        for name in names:
            if self.entries.get(name) is not None:
                return self.entries[name]
        if default is None and key in self.defaults:
            self.assumed.append(key)
            return self.defaults[key]
        return default

    def count(self, key, default=None, low=1):
        """A whole number; a list of them keeps its first, see each."""
        value = self.get(key, default)
        return None if value is None else whole(key, value[0] if isinstance(value, list) and value else value, low)

    def each(self, key, layers, default=None, low=0):
        """The whole number of each layer."""
        value = self.get(key, default)
        if not isinstance(value, list):
            return [None if value is None else whole(key, value, low)] * layers
        if len(value) != layers:
            raise LawbookError(f"{key} of the config has {len(value)} entries for {layers} layers.")
        return [whole(key, entry, low) for entry in value]

    def number(self, key, default=None):
        value = self.get(key, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value <= 0:
            raise DomainError(f"{key} of the config must be a number above 0; it was {value!r:.80}.")
        return float(value)

    def needed(self, key):
        value = self.count(key)
        if value is None:
            raise LawbookError(f"The config says no {key}: without it nothing can be counted.")
        return value

    def unread(self):
        """Keys of sizes that nobody asked for: of a family that has more to it than lawbook knows."""
        return [k for k, v in self.entries.items() if k not in self.used and isinstance(v, int) and v > 1 and any(word in k for word in SIZES)]

    def or_missing(self, key):
        value = self.count(key)
        if value is None:
            self.missing.append(key)
        return value or 0


def whole(key, value, low=1):
    """A whole number of a config; DomainError names its key otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value < 2**53 or value != int(value):
        raise DomainError(f"{key} of the config must be a whole number of at least {low}; it was {value!r:.80}.")
    return int(value)


def _architecture(entries, name):
    said = []
    if "general.architecture" in entries:
        entries = _from_gguf(entries)
    dtype, quantized = entries.get("torch_dtype") or entries.get("dtype"), entries.get("quantization_config") or entries.get("quantization")
    inner = next((key for key in NESTED if isinstance(entries.get(key), dict)), None)
    while inner:
        said.append(f"only the language model in {inner} is audited, not what else the model consists of")
        outer, entries = entries, dict(entries[inner])
        entries.setdefault("model_type", outer.get("model_type"))
        entries.setdefault("tie_word_embeddings", outer.get("tie_word_embeddings"))
        dtype, quantized = dtype or entries.get("torch_dtype") or entries.get("dtype"), quantized or entries.get("quantization_config")
        inner = next((key for key in NESTED if isinstance(entries.get(key), dict)), None)
    spoken = str(entries.get("model_type") or "unknown")
    family = KIN.get(spoken, spoken)
    known = FAMILIES.get(family)
    if known is None:
        said.append(f"the family {spoken} is not one that lawbook knows: it is read as a gated decoder of the llama kind")
    traits = known or Family()
    read = _Entries(entries, traits.defaults)
    count, width = read.needed("num_hidden_layers"), read.needed("hidden_size")
    if count > MOST_LAYERS:
        raise DomainError(f"num_hidden_layers of the config must be at most {MOST_LAYERS:,}; it was {count:,}.")
    layers = _layers(read, family, traits, count, width, said)
    vocabulary = read.or_missing("vocab_size")
    tied = entries.get("tie_word_embeddings")
    tied = traits.tied if tied is None else bool(tied)
    context = read.count("max_position_embeddings")
    other = traits.norm * width  # a decoder ends with a norm, an encoder begins with one
    if not traits.causal and family != "distilbert":
        other += (read.count("type_vocab_size", low=0) or 0) * width + width * width + width  # kinds of text, and pooling
    if traits.positions:
        other += (context or 0) * width
    if "head" in traits.biases:
        other += vocabulary
    scaling, base = _rope_entries(read)
    rope, reach = _rope(read, traits, layers, width, scaling, base), context
    original = scaling.get("original_max_position_embeddings") or read.get("original_max_position_embeddings")
    if context and original and rope:
        reach = max(context, int(rope.scale * whole("original_max_position_embeddings", original)))
    bits, label = _quantization(quantized, read)
    file_type = entries.get("file_type")
    if file_type in BITS and BITS[file_type] < 16:
        dtype, bits, label = "bf16", dict.fromkeys(("mixer", "dense", "expert", "rest"), BITS[file_type]), f"GGUF, mostly {file_type}"
    elif file_type:
        dtype = file_type
    if dtype is None:
        said.append(NO_DTYPE)
    if unread := read.unread():
        said.append(f"not understood, and not counted: {', '.join(unread)}")
    if read.assumed:
        said.append(f"of the family, not of the config: {', '.join(dict.fromkeys(read.assumed))}")
    return Architecture(
        name=name,
        family=spoken,
        layers=tuple(layers),
        width=width,
        vocabulary=vocabulary,
        embedding=vocabulary * width,
        head=vocabulary * width if traits.causal else 0,
        tied=tied or not traits.causal,
        other=other,
        causal=traits.causal,
        context=reach,
        rope=rope,
        dtype=dtype_bits(dtype or "bf16")[0],
        bits=bits,
        quantization=label,
        said=tuple(said),
        missing=tuple(dict.fromkeys(read.missing)),
    )


def _layers(read, family, traits, count, width, said):
    """The layers, one by one."""
    kinds = _kinds(read, family, traits, count, said)
    attends = any(kind != "recurrent" for kind in kinds)
    heads, kv_heads = read.each("num_attention_heads", count), read.each("num_key_value_heads", count)
    if read.get("multi_query") and kv_heads[0] is None:
        kv_heads = [1] * count
    dim = read.count("head_dim")
    if attends and not any(heads):
        if not dim:
            raise LawbookError("The config says neither num_attention_heads nor head_dim: the heads cannot be counted.")
        heads = [width // dim] * count
        said.append(f"the config says no num_attention_heads: {width // dim} heads of {dim} dimensions are taken")
    if attends and dim is None and read.count("kv_lora_rank") is None:
        wide = max(h or 1 for h in heads)
        if width % wide:
            raise LawbookError(f"The config says no head_dim, and hidden_size {width} is no multiple of the {wide} heads.")
        dim = width // wide
    mlps = _mlps(read, family, traits, count, width)
    norms = traits.norms * traits.norm * width
    made = []
    for i, kind in enumerate(kinds):
        h, kv = heads[i] or 0, kv_heads[i] if kv_heads[i] is not None else heads[i] or 0
        if kind not in ("recurrent", "none") and not 1 <= kv <= h:
            raise DomainError(f"num_key_value_heads of the config must be at least 1 and at most the {h} heads; it was {kv}.")
        if kind == "recurrent":
            mixed = _recurrent(read, family, width)
        elif kind == "latent":
            mixed = _latent(read, width, h)
        elif kind == "none":
            mixed = {}
        else:
            mixed = _attention(read, traits, width, h, kv, dim, family)
            mixed["window"] = read.count("sliding_window") if kind == "window" else None
        other = mixed.pop("other", 0) + mlps[i].pop("other", 0) + norms
        made.append(Layer(kind, **mixed, **mlps[i], other=other))
    return made


def _kinds(read, family, traits, count, said):
    """How each layer mixes tokens."""
    if family in ("mamba", "mamba2"):
        return ["recurrent"] * count
    windowed = read.count("sliding_window", low=0) and read.get("use_sliding_window", True) is not False
    listed = read.get("layer_types") or read.get("layers_block_type")
    if listed is not None:
        if not isinstance(listed, list) or len(listed) != count:
            raise LawbookError(f"layer_types of the config must list {count} layers.")
        names = {"full_attention": "full", "attention": "full", "sliding_attention": "window", "linear_attention": "recurrent", "mamba": "recurrent"}
        if unknown := sorted({str(entry) for entry in listed} - set(names)):
            read.missing.append(f"layers of the kind {', '.join(unknown)}")
        kinds = [names.get(str(entry), "none") for entry in listed]
        if "window" in kinds and not windowed:
            raise LawbookError("layer_types of the config names sliding attention, but no sliding_window.")
        return kinds
    if isinstance(read.get("num_key_value_heads"), list):  # of hybrids in GGUF, 0 where a layer does not attend
        return ["full" if kv else "recurrent" for kv in read.each("num_key_value_heads", count)]
    if (period := read.count("attn_layer_period")) is not None:
        offset = read.count("attn_layer_offset", 0, low=0)
        return ["full" if i % period == offset else "recurrent" for i in range(count)]
    if (interval := read.count("full_attention_interval")) is not None:
        return ["recurrent" if (i + 1) % interval else "full" for i in range(count)]
    if read.count("kv_lora_rank") is not None:
        return ["latent"] * count
    if not windowed:
        return ["full"] * count
    if family in ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"):
        first = read.count("max_window_layers", count, low=0)
        return ["window" if i >= first and read.get("use_sliding_window") else "full" for i in range(count)]
    pattern = read.count("sliding_window_pattern") or read.count("_sliding_window_pattern") or traits.window_pattern
    return ["window" if pattern == 1 or (i + 1) % pattern else "full" for i in range(count)]


def _attention(read, traits, width, heads, kv_heads, dim, family):
    """Queries, keys, values and output of one layer."""
    value = read.count("v_head_dim") or dim
    queries = heads * dim * (2 if traits.gated_output and read.get("attn_output_gate", True) else 1)
    keys = kv_heads * (dim + value)
    biased = ("qkv", "out") if read.get("attention_bias") or (family != "qwen2" and read.get("qkv_bias") and read.get("bias")) else traits.biases
    other = (queries + keys if "qkv" in biased else 0) + (width if "out" in biased else 0) + (2 * dim if traits.qk_norm else 0) + (heads if family == "gpt_oss" else 0)
    pair = heads * (dim + value) / 2
    return {
        "mixer": width * (queries + keys) + heads * value * width,
        "other": other,
        "heads": heads,
        "kv_heads": kv_heads,
        "cached": keys if traits.causal else 0,
        "read_width": pair,
        "decode_width": pair,
    }


def _latent(read, width, heads):
    """Multi-head latent attention: one latent and one rotated key a token, from which keys and values of all heads are made."""
    rank, rotated = read.needed("kv_lora_rank"), read.needed("qk_rope_head_dim")
    plain, value = read.needed("qk_nope_head_dim"), read.needed("v_head_dim")
    low = read.count("q_lora_rank")
    queries = heads * (plain + rotated)
    mixer = (width * low + low * queries if low else width * queries) + width * (rank + rotated) + rank * heads * (plain + value) + heads * value * width
    return {
        "mixer": mixer,
        "other": (low or 0) + rank,
        "heads": heads,
        "kv_heads": 1,
        "cached": rank + rotated,
        "read_width": heads * (plain + rotated + value) / 2,
        "decode_width": heads * (2 * rank + rotated) / 2,  # keys and values are never written out: the latent is both
    }


def _recurrent(read, family, width):
    """A layer with a state of fixed size: gated delta rule, Mamba 2 or Mamba."""
    if read.count("linear_num_value_heads") is not None:
        values, keys = read.needed("linear_num_value_heads"), read.needed("linear_num_key_heads")
        key_dim, value_dim, kernel = read.needed("linear_key_head_dim"), read.needed("linear_value_head_dim"), read.needed("linear_conv_kernel_dim")
        convolved, out, square = 2 * keys * key_dim + values * value_dim, values * value_dim, values * key_dim * value_dim
        return {
            "mixer": width * (convolved + out) + width * 2 * values + out * width,
            "other": convolved * kernel + 2 * values + value_dim,
            "state": (kernel - 1) * convolved + square,
            "state_flops": 7 * square,  # decay, prediction, correction by an outer product, and the answer to the query
        }
    kernel = read.count("mamba_d_conv") or read.count("conv_kernel", 4)
    size = read.count("mamba_d_state") or read.count("state_size", 16)
    expand = read.number("mamba_expand") or read.number("expand", 2)
    inner = read.count("ssm_inner") or (read.count("intermediate_size") if family == "mamba" else None) or whole("expand times hidden_size", expand * width // 1)
    if family == "mamba2" or read.count("mamba_n_heads") is not None:
        heads = read.count("mamba_n_heads") or read.count("num_heads") or inner // 64
        groups = read.count("mamba_n_groups") or read.count("n_groups", 1)
        convolved = inner + 2 * groups * size
        return {
            "mixer": width * (inner + convolved + heads) + inner * width,
            "other": convolved * (kernel + 1) + 3 * heads + inner,
            "state": (kernel - 1) * convolved + inner * size,
            "state_flops": 5 * inner * size,
        }
    rank = read.get("mamba_dt_rank") or read.get("time_step_rank") or "auto"
    rank = math.ceil(width / 16) if rank == "auto" else whole("time_step_rank", rank)
    return {
        "mixer": 2 * width * inner + inner * (rank + 2 * size) + rank * inner + inner * width,
        "other": inner * (kernel + 1) + inner + inner * size + inner + (rank + 2 * size if family == "jamba" else 0),
        "state": (kernel - 1) * inner + inner * size,
        "state_flops": 5 * inner * size,
    }


def _mlps(read, family, traits, count, width):
    """Dense and routed parts of each layer's MLP."""
    if family in ("mamba", "mamba2"):
        return [{} for _ in range(count)]
    matrices = 3 if traits.gated else 2
    wide = read.each("intermediate_size", count)
    if wide[0] is None and family == "gpt2":
        wide = [4 * width] * count
    experts, active = read.count("experts", low=0) or 0, read.count("active_experts", low=0) or 0
    if wide[0] is None and not (experts and read.count("moe_intermediate_size")):
        read.missing.append("intermediate_size")
    if experts and not 1 <= active <= experts:
        raise DomainError(f"num_experts_per_tok of the config must be at least 1 and at most the {experts} experts; it was {active or 'not given'}.")
    listed = read.get("moe_layer_freq") if isinstance(read.get("moe_layer_freq"), list) else None  # a flag for each layer
    step = (None if listed else read.count("moe_layer_freq")) or read.count("expert_layer_period") or read.count("decoder_sparse_step", 1)
    first, routed = read.count("first_k_dense_replace", 0, low=0), read.each("moe_layer_freq", count) if listed else [1] * count
    offset = read.count("expert_layer_offset", 0, low=0) if read.count("expert_layer_period") else (step - 1 if read.count("decoder_sparse_step") else 0)
    skipped = read.get("mlp_only_layers") or []
    if not isinstance(skipped, list):
        raise LawbookError(f"mlp_only_layers of the config must be a list; it was {skipped!r:.80}.")
    narrow = read.count("moe_intermediate_size") or (wide[0] or 0)
    shared = read.count("shared_expert_intermediate_size", low=0) or (read.count("n_shared_experts", low=0) or 0) * narrow
    biased = "mlp" in traits.biases
    made: list[dict[str, int]] = []
    for i in range(count):
        if experts and routed[i] and i >= first and i % step == offset and i not in skipped:
            gate = width if shared and family.startswith("qwen") else 0  # the shared expert has a gate of its own
            correction = experts if family in ("deepseek_v3", "gpt_oss") else 0
            biases = experts * ((matrices - 1) * narrow + width) if biased else 0
            made.append(
                {
                    "expert": matrices * width * narrow,
                    "experts": experts,
                    "active": active,
                    "dense": matrices * width * shared,
                    "router": width * experts + gate,
                    "other": correction + biases,
                }
            )
        else:
            f = wide[i] or 0
            made.append({"dense": matrices * width * f, "other": (matrices - 1) * f + width if biased else 0})
    return made


def _rope_entries(read):
    """(scaling, base) wherever the config has them."""
    scaling = read.get("rope_scaling") or read.get("rope_parameters") or {}
    if not isinstance(scaling, dict):
        raise LawbookError(f"rope_scaling of the config must be an object; it was {scaling!r:.80}.")
    nested = scaling.get("full_attention")
    scaling = nested if isinstance(nested, dict) else scaling
    base = scaling.get("rope_theta")
    return scaling, read.number("rope_theta", 1e4) if base is None else _Entries({"rope_theta": base}, {}).number("rope_theta")


def _rope(read, traits, layers, width, scaling, base):
    """How positions are rotated, None where they are not."""
    attending = [layer for layer in layers if layer.heads]
    if traits.rotary is None or not attending:
        return None
    if (rotated := read.count("qk_rope_head_dim")) is None:
        dim = read.count("head_dim") or width // attending[0].heads
        spoken = scaling.get("partial_rotary_factor")
        share = read.number("partial_rotary_factor", traits.rotary) if spoken is None else _Entries({"partial_rotary_factor": spoken}, {}).number("partial_rotary_factor")
        rotated = read.count("rotary_dim") or int(dim * share)
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    factor = scaling.get("factor") if kind in ("linear", "dynamic", "yarn", "llama3") else None
    scale = 1.0 if factor is None else _Entries({"factor": factor}, {}).number("factor")
    return Rope(base, rotated, max(scale, 1.0), kind)


def _quantization(found, read):
    """(bits of a parameter by role, what the quantisation is called) of a quantization_config."""
    if not found:
        return {}, None
    if not isinstance(found, dict):
        raise LawbookError(f"quantization_config of the config must be an object; it was {found!r:.80}.")
    method = str(found.get("quant_method") or found.get("quant_algo") or ("mlx" if "mode" in found or "bits" in found else "unknown")).lower()
    bits, group = found.get("bits") or found.get("w_bit") or found.get("nbits"), found.get("group_size") or found.get("q_group_size") or 0
    if method in ("fp8", "fbgemm_fp8"):
        bits, group = 8, 0
    elif method == "mxfp4":
        return {"expert": BITS["mxfp4"]}, "mxfp4 experts"
    elif method == "bitsandbytes":
        if found.get("load_in_4bit"):
            bits, group = (4 + 8 / 64 + 32 / (64 * 256) if found.get("bnb_4bit_use_double_quant") else BITS["nf4"]), 0
        else:
            bits, group = 8, 0
    elif method == "compressed-tensors":
        groups = found.get("config_groups")
        entries = [entry.get("weights") for entry in groups.values() if isinstance(entry, dict)] if isinstance(groups, dict) else []
        first = next((entry for entry in entries if isinstance(entry, dict)), {})
        bits, group = first.get("num_bits"), first.get("group_size") or 0
    elif method == "modelopt":
        algorithm = str(found.get("quant_algo", "")).upper()
        bits, group = {"FP8": (8, 0), "NVFP4": (BITS["nvfp4"], 0)}.get(algorithm, (None, 0))
    if isinstance(bits, bool) or not isinstance(bits, int | float) or not 1 <= bits <= 32:
        read.missing.append(f"the bits of the quantisation {method}")
        return {}, None
    if isinstance(group, int) and group > 0 and bits < 16:
        bits += (32 if method == "mlx" else 16 + bits) / group  # a scale and a zero point for each group
    excluded = found.get("modules_to_not_convert") or found.get("ignore") or []
    kept = isinstance(excluded, list) and any("self_attn" in str(name) for name in excluded)
    roles = ("dense", "expert") if kept else ("mixer", "dense", "expert", "rest") if method == "mlx" else ("mixer", "dense", "expert")
    return dict.fromkeys(roles, float(bits)), f"{method}, {bits:.3g} bits" + (" without attention" if kept else "")


def _from_gguf(entries):
    """The entries of a config.json that the metadata of a GGUF file stand for."""
    kind = str(entries["general.architecture"])
    meta = {key.removeprefix(f"{kind}."): value for key, value in entries.items() if isinstance(key, str)}
    if meta.get("block_count") is None:
        raise LawbookError(f"The GGUF metadata of the architecture {kind:.80} say no block_count: they describe no language model.")
    out = {key: meta[name] for name, key in GGUF_KEYS.items() if meta.get(name) is not None}
    family = GGUF_FAMILIES.get(kind, kind)
    if kind == "llama" and meta.get("expert_count"):
        family = "mixtral"
    out |= {"model_type": family, "tie_word_embeddings": entries.get("tie_word_embeddings")}
    tokens = entries.get("tokenizer.ggml.tokens")
    if "vocab_size" not in out and isinstance(tokens, list | dict):  # of a file's vocabulary only the length is kept
        out["vocab_size"] = tokens.get("length") if isinstance(tokens, dict) else len(tokens)
    out["num_hidden_layers"] = whole("block_count", out["num_hidden_layers"]) - whole("nextn_predict_layers", meta.get("nextn_predict_layers") or 0, 0)
    if (rotated := meta.get("rope.dimension_count")) is not None:
        out["rotary_dim"] = rotated
    if "kv_lora_rank" in out:
        key, value = meta.get("attention.key_length_mla") or out.get("head_dim"), meta.get("attention.value_length_mla") or out.get("v_head_dim")
        out |= {"qk_rope_head_dim": rotated, "v_head_dim": value, "num_key_value_heads": None, "head_dim": None, "rotary_dim": None}
        out["qk_nope_head_dim"] = None if None in (key, rotated) else whole("key_length_mla", key) - whole("rope.dimension_count", rotated)
    if family in ("qwen3_next", "qwen3_5", "qwen3_5_moe") and meta.get("ssm.inner_size"):
        heads = whole("ssm.time_step_rank", meta.get("ssm.time_step_rank"))
        out |= {"linear_num_value_heads": heads, "linear_num_key_heads": meta.get("ssm.group_count"), "linear_key_head_dim": meta.get("ssm.state_size")}
        out |= {"linear_value_head_dim": whole("ssm.inner_size", meta["ssm.inner_size"]) // heads, "linear_conv_kernel_dim": meta.get("ssm.conv_kernel")}
    elif meta.get("ssm.inner_size"):
        out |= {"ssm_inner": meta["ssm.inner_size"], "state_size": meta.get("ssm.state_size"), "conv_kernel": meta.get("ssm.conv_kernel")}
        if kind == "mamba2" or kind.endswith("hybrid"):
            out |= {"mamba_n_heads": meta.get("ssm.time_step_rank"), "n_groups": meta.get("ssm.group_count")}
        else:
            out["time_step_rank"] = meta.get("ssm.time_step_rank")
    if meta.get("rope.scaling.type") not in (None, "none"):
        out["rope_scaling"] = {
            "rope_type": meta["rope.scaling.type"],
            "factor": meta.get("rope.scaling.factor"),
            "original_max_position_embeddings": meta.get("rope.scaling.original_context_length"),
        }
    out["file_type"] = _file_type(meta.get("general.file_type"))
    return out


def _file_type(number):
    """What most tensors of a GGUF file are stored in, None where the metadata do not say."""
    from gguf import LlamaFileType

    name = next((entry.name.lower() for entry in LlamaFileType if entry == number), "")
    name = name.removeprefix("mostly_").removeprefix("all_").removesuffix("_moe")
    return next((each for each in (SPELLINGS.get(name, name), name[:-2]) if each in BITS), None)
