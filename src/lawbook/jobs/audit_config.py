"""What a model costs to serve on a device, from its configuration alone: what is stored, moved and computed, and the best that anyone could reach."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..artifacts.configs import Architecture, dtype_bits, read_config
from ..artifacts.devices import Device
from ..artifacts.devices import device as device_facts
from ..chapters.architecture.rope_base_region import feasibility
from ..chapters.decoding.speculative_speedup import speedup
from ..chapters.serving.long_context_serving import concurrency, context_switch_seconds, decode_seconds, kv_cache_bytes, prefill_flops
from ..chapters.serving.moe_offload_throughput import cache_needed, throughput_upper_bound
from ..contract import DomainError, Shown
from ..contract.numbers import parse_number, show_number

STATE_BYTES = 4  # recurrent states are kept in fp32
DEFAULT_CONTEXT = 4096  # of models that name none
MOST_DRAFTED = 16  # tokens a round of speculative decoding
GROUP = 8  # query heads that share a key-value head, where grouping is tried
COMPRESSION = 4  # of the cache, where compression is tried
TOLERANCE = 0.05  # share by which files may differ from what is counted


@dataclass(frozen=True)
class ConfigAudit(Shown):
    """What serving costs. `quantities` maps a name to {value, unit, source}. Seconds are those of the parts at the device's peaks, one after another; least seconds those of
    all bytes and all arithmetic at the same time, which no implementation beats.

    `tables()` gives the layers, the parts of a prompt and of a decoded token, and the savings, as columns.
    """

    architecture: Architecture
    device: Device
    setting: dict[str, Any]
    quantities: dict[str, dict[str, Any]]
    layers: dict[str, list[Any]]
    parts: dict[str, list[Any]]
    savings: dict[str, list[Any]]
    rope: dict[str, Any] | None = None
    offload: dict[str, Any] | None = None
    sentences: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, name):
        return self.quantities[name]["value"]

    def tables(self):
        """Title -> columns."""
        return {"layers": self.layers, "parts": self.parts, "savings": self.savings}

    def to_dict(self):
        kept = ("setting", "quantities", "layers", "parts", "savings", "rope", "offload", "sentences", "warnings", "notes")
        model = {name: getattr(self.architecture, name) for name in ("name", "family", "params", "active_params", "context", "quantization")}
        return {"model": model, "device": self.device.name} | {name: getattr(self, name) for name in kept}


@dataclass(frozen=True)
class Part:
    """Something that takes its time: bytes of memory, arithmetic, or bytes between devices."""

    name: str
    bytes: float
    flops: float
    linked: float = 0.0


@dataclass(frozen=True)
class Machine:
    """Devices that share all work evenly."""

    device: Device
    count: int
    peak: float  # FLOP/s of one device in the format that is computed in
    reserve: float = 0.0  # bytes of all devices together that are kept free

    @property
    def memory(self):
        return self.count * self.device.memory_bytes

    def sessions(self, weights, sequence):
        """Sequences that fit beside the weights."""
        if self.memory < weights + self.reserve or not sequence:
            return 0
        return concurrency(self.device.memory_bytes, weights, sequence, devices=self.count, reserve_bytes=self.reserve)

    def seconds(self, size, flops):
        """The paper's time of a step, all arithmetic counted as that of parameters: the slower of moving and computing."""
        return float(decode_seconds(1, size, 0, bandwidth=self.device.bandwidth, devices=self.count, peak_flops=self.peak, params=flops / 2))

    def spent(self, part):
        """(seconds of a part, what binds it)."""
        if part.linked:
            return part.linked / self.device.interconnect, "interconnect"
        moved, computed = self.seconds(part.bytes, 0), self.seconds(0, part.flops)
        return max(moved, computed), "memory bandwidth" if moved >= computed else "arithmetic"


@dataclass(frozen=True)
class Load:
    """A model as it is stored: bytes of a parameter by role, and of a cached value."""

    model: Architecture
    size: dict[str, float]
    element: float

    def mlp_bytes(self, layer, experts):
        """Bytes of a layer beside its mixing, of so many of its experts."""
        return layer.dense * self.size["dense"] + experts * layer.expert * self.size["expert"] + (layer.router + layer.other) * self.size["rest"]

    def mixer_bytes(self):
        return sum(layer.mixer for layer in self.model.layers) * self.size["mixer"]

    def weight_bytes(self):
        model = self.model
        outside = model.embedding + (0 if model.tied else model.head) + model.other
        return self.mixer_bytes() + sum(self.mlp_bytes(layer, layer.experts) for layer in model.layers) + outside * self.size["rest"]

    def expert_bytes(self):
        return sum(layer.experts * layer.expert for layer in self.model.layers) * self.size["expert"]

    def cache_bytes(self, tokens):
        """Keys and values (or latents) of a sequence of so many tokens."""
        kept: dict[int, int] = {}
        for layer in self.model.layers:
            near = min(tokens, layer.window or tokens)
            kept[near] = kept.get(near, 0) + layer.cached
        return float(sum(kv_cache_bytes(near, 1, 1, values / 2, bytes_per_element=self.element) for near, values in kept.items()))

    def state_bytes(self):
        return self.model.state * STATE_BYTES

    def sequence_bytes(self, tokens):
        return self.cache_bytes(tokens) + self.state_bytes()

    def read_prompt(self, tokens, batch, machine):
        """Parts of reading prompts of so many tokens each."""
        layers, model, all_tokens = self.model.layers, self.model, tokens * batch
        scores = sum(_scores(layer, tokens, model.causal) + tokens * layer.state_flops for layer in layers)
        read = sum(self.mlp_bytes(layer, distinct_experts(layer.experts, layer.active, all_tokens)) for layer in layers)
        return self._parts(batch, batch * tokens, batch * scores, batch * self.sequence_bytes(tokens), read, machine)

    def decode(self, context, batch, machine, fresh=1):
        """Parts of a step that gives each sequence a token, or that verifies `fresh` tokens of a draft."""
        scores = sum(4 * layer.decode_width * min(context, layer.window or context) + layer.state_flops for layer in self.model.layers)
        read = sum(self.mlp_bytes(layer, distinct_experts(layer.experts, layer.active, batch * fresh)) for layer in self.model.layers)
        moved = batch * (self.cache_bytes(context) + 2 * self.state_bytes())  # a state is read and written
        return self._parts(batch * fresh, batch * fresh, batch * fresh * scores, moved, read, machine)

    def _parts(self, answers, tokens, scores, moved, mlp_bytes, machine):
        model = self.model
        mixer = sum(layer.mixer for layer in model.layers)
        mlp = sum(layer.dense + layer.active * layer.expert + layer.router for layer in model.layers)
        made = [
            Part("attention matrices", self.mixer_bytes(), 2 * mixer * tokens),
            Part("attention over the context", moved, scores),
            Part("MLP", mlp_bytes, 2 * mlp * tokens),
            Part("logits", model.head * self.size["rest"], 2 * model.head * answers),
        ]
        if machine.count > 1 and machine.device.interconnect:
            # each of two sums a layer passes twice over all devices but one
            made.append(Part("all-reduce", 0, 0, 2 * len(model.layers) * 2 * (machine.count - 1) / machine.count * tokens * model.width * 2))
        return made


def distinct_experts(experts, active, tokens):
    """Expected number of experts that a batch of tokens reaches, where each token picks its own uniformly."""
    return experts * -math.expm1(tokens * math.log1p(-active / experts)) if 0 < active < experts else float(experts)


def _scores(layer, tokens, causal):
    """FLOP of a prompt's queries with the keys and values that they may see."""
    near = min(tokens, layer.window or tokens)
    start = float(prefill_flops(near, 0, 1, layer.read_width, attention_factor=2 if causal else 4))
    return start + 4 * layer.read_width * near * (tokens - near)  # beyond its length each query sees a whole window


def audit_config(
    architecture,
    /,
    *,
    device="H100-SXM",
    count=1,
    dtype=None,
    kv_dtype=None,
    compute_dtype=None,
    batch_size=1,
    context_length=None,
    prompt_length=None,
    output_tokens=256,
    acceptance_rate=None,
    draft_params=None,
    host_link=None,
    host_memory=None,
    reserve_bytes=0,
):
    """The ConfigAudit of an Architecture, or of what read_config reads, on a number of devices that share all work evenly.

    `dtype` and `kv_dtype` are what weights and cache are stored in (the config's own by default; of a format below 16 bits tables, norms and routers stay in 16), and
    `compute_dtype` what is computed in: fp8, int8 and fp4 weights by default in their own format, all others in bf16. `context_length` is that of the cache when a token is
    decoded, the model's own by default, and `prompt_length` that of the prompt. `acceptance_rate` is that of a drafted token, `draft_params` the size of the draft model,
    which without it is taken to cost nothing. `host_link` (bytes/s of each device) and `host_memory` (bytes) are for swapped sessions and offloaded experts.
    """
    model = architecture if isinstance(architecture, Architecture) else read_config(architecture)
    facts = device_facts(device)
    count, batch, output = _count("count", count), _count("batch_size", batch_size), _count("output_tokens", output_tokens)
    context = _count("context_length", model.context or DEFAULT_CONTEXT if context_length is None else context_length)
    prompt = context if prompt_length is None else _count("prompt_length", prompt_length)
    link = facts.host_link if host_link is None else _positive("host_link", host_link, "bytes/s")
    memory_there = None if host_memory is None else _positive("host_memory", host_memory, "bytes")
    reserve = _positive("reserve_bytes", reserve_bytes, "bytes", zero=True)
    acceptance = None if acceptance_rate is None else _positive("acceptance_rate", acceptance_rate, zero=True)
    if acceptance is not None and acceptance > 1:
        raise DomainError(f"acceptance_rate must be at least 0 and at most 1; it was {acceptance_rate}.")
    draft = None if draft_params is None else _positive("draft_params", draft_params, "params")
    if draft is not None and acceptance is None:
        raise DomainError("draft_params needs acceptance_rate: how often the target model keeps a drafted token.")
    size, stored = _sizes(model, dtype)
    kv_name, kv_bits = dtype_bits(kv_dtype or (model.dtype if model.dtype in ("fp32", "fp16") else "bf16"))
    computed = dtype_bits(compute_dtype or _native(stored))[0]
    machine = Machine(facts, count, facts.peak(computed), reserve)
    load = Load(model, size, kv_bits / 8)
    rope, spoken = _rope(model, context)
    links = None if link is None else count * link  # every device has its own
    quantities = _quantities(load, machine, batch, context, prompt, links)
    savings = _savings(load, machine, batch, context, acceptance, draft) if model.causal else {}
    offload = _offload(load, machine, prompt, output, context, links, memory_there)
    setting = {"device": facts.name, "count": count, "weights": stored, "cache": kv_name, "arithmetic": computed, "batch_size": batch, "context_length": context}
    setting |= {"prompt_length": prompt, "output_tokens": output, "host_link": link, "host_memory": memory_there, "reserve_bytes": reserve}
    setting |= {"acceptance_rate": acceptance, "draft_params": draft}
    return ConfigAudit(
        architecture=model,
        device=facts,
        setting=setting,
        quantities=quantities,
        layers=_layer_table(load, context),
        parts=_part_table(load, machine, batch, context, prompt),
        savings=savings,
        rope=rope,
        offload=offload,
        sentences=[*_sentences(quantities, load, machine, setting, savings, offload), *spoken],
        warnings=_warnings(quantities, load, machine, setting, dtype),
        notes=_notes(load, machine, setting),
    )


def _count(name, value):
    number = parse_number(value, name) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float | np.number) or not np.isfinite(number) or number != int(number) or number < 1:
        raise DomainError(f"{name} must be a whole number of at least 1; it was {value!r}.")
    return int(number)


def _positive(name, value, unit="", zero=False):
    number = parse_number(value, name, unit) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float | np.number) or not np.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise DomainError(f"{name} must be a number {'of at least' if zero else 'above'} 0; it was {value!r}.")
    return float(number)


def _sizes(model, dtype):
    """(bytes of a parameter by role, what the weights are said to be stored in)."""
    name, bits = dtype_bits(dtype or model.dtype)
    rest = max(bits, 16.0)
    own = {} if dtype else model.bits
    size = {role: own.get(role, bits if role != "rest" else rest) / 8 for role in ("mixer", "dense", "expert", "rest")}
    return size, name if dtype or not model.quantization else f"{name}, {model.quantization}"


def _native(stored):
    """What weights are computed in by default: weights of fewer bits are unpacked to bf16."""
    return next((name for name in ("fp8", "int8", "nvfp4", "fp4", "fp32") if name in stored.replace("mxfp4", "")), "bf16")


def _entry(value, unit, source):
    return {"value": value if value is None or isinstance(value, int | str) else float(value), "unit": unit, "source": source}


def _roofline(parts, machine):
    """(seconds of the parts one after another, the least that anyone could take, what binds that)."""
    least = machine.seconds(sum(part.bytes for part in parts), sum(part.flops for part in parts))
    binds = machine.spent(Part("all", sum(part.bytes for part in parts), sum(part.flops for part in parts)))[1]
    return sum(machine.spent(part)[0] for part in parts), least, binds


def _quantities(load, machine, batch, context, prompt, link):
    """The figures of a setting."""
    paper, model = "long-context-serving", load.model
    weights, cache, state = load.weight_bytes(), load.cache_bytes(context), load.state_bytes()
    reading = load.read_prompt(prompt, batch, machine)
    took, least, binds = _roofline(reading, machine)
    out = {
        "params": _entry(model.params, "params", "counted layer by layer"),
        "active_params": _entry(model.active_params, "params", "counted layer by layer"),
        "weight_bytes": _entry(weights, "bytes", "parameters at their stored sizes"),
        "memory_bytes": _entry(machine.memory, "bytes", machine.device.source),
    }
    if model.causal:
        sequence = cache + state
        fit = machine.sessions(weights, sequence)
        out |= {
            "cache_bytes_per_token": _entry(load.cache_bytes(1), "bytes", paper),
            "cache_bytes": _entry(cache, "bytes", paper),
            "state_bytes": _entry(state, "bytes", "states of fixed size in fp32"),
            "sequence_bytes": _entry(sequence, "bytes", f"{paper}; cache and states"),
            "memory_needed": _entry(weights + batch * sequence + machine.reserve, "bytes", "weights, caches and reserve"),
            "largest_batch": _entry(fit, "sequences", f"{paper}, concurrency"),
        }
    out |= {
        "prefill_flops": _entry(sum(part.flops for part in reading), "FLOP", paper),
        "prefill_seconds": _entry(took, "seconds", "parts at the roofline, one after another"),
        "prefill_least_seconds": _entry(least, "seconds", f"{paper}, all at the peak"),
        "prefill_bound_by": _entry(binds, "", "roofline"),
    }
    if not model.causal:
        return out | {"best_tokens_per_second": _entry(batch * prompt / least, "tokens/s", "batch and prompt over prefill_least_seconds")}
    step = load.decode(context, batch, machine)
    took, least, binds = _roofline(step, machine)
    out |= {
        "decode_flops": _entry(sum(part.flops for part in step), "FLOP", "one token of each sequence"),
        "decode_bytes": _entry(sum(part.bytes for part in step), "bytes", "one token of each sequence"),
        "decode_seconds": _entry(took, "seconds", "parts at the roofline, one after another"),
        "decode_least_seconds": _entry(least, "seconds", f"{paper}, all at the peak"),
        "decode_bound_by": _entry(binds, "", "roofline"),
        "tokens_per_second": _entry(batch / took, "tokens/s", "batch_size over decode_seconds"),
    }
    best = _best(load, machine, out["largest_batch"]["value"], context)
    out["best_tokens_per_second"] = _entry(best[0], "tokens/s", "largest_batch over its least time")
    out["best_bound_by"] = _entry(best[1], "", "roofline")
    if link:
        out["switch_seconds"] = _entry(context_switch_seconds(sequence, link_bandwidth=link), "seconds", f"{paper}; one session out, one in")
    return out


def _best(load, machine, largest, context):
    """(tokens per second that nobody exceeds at this context, what binds), None where no sequence fits."""
    if not largest:
        return None, "memory"
    _, least, binds = _roofline(load.decode(context, largest, machine), machine)
    return largest / least, binds


def _savings(load, machine, batch, context, acceptance, draft):
    """Each saving alone, before and after."""
    model, element = load.model, load.element

    def weights_of(bits):
        return replace(load, size={role: min(each, bits / 8) if role != "rest" else each for role, each in load.size.items()})

    cases = [("as it is", load)]
    cases += [(f"weights in {bits} bits", weights_of(bits)) for bits in (8, 4) if max(load.size[role] for role in ("mixer", "dense", "expert")) > bits / 8 * 1.1]
    if model.cached(1):
        cases += [(f"cache in {bits} bits", replace(load, element=bits / 8)) for bits in (8, 4) if element > bits / 8 * 1.1]
        cases.append((f"cache compressed {COMPRESSION} times", replace(load, element=element / COMPRESSION)))
    if any(layer.kv_heads == layer.heads >= 2 * GROUP for layer in model.layers):
        grouped = tuple(replace(layer, cached=layer.cached // GROUP) if layer.kv_heads == layer.heads else layer for layer in model.layers)
        cases.append((f"{GROUP} query heads to a key-value head", replace(load, model=replace(model, layers=grouped))))
    names = ("saving", "weight_bytes", "sequence_bytes", "largest_batch", "decode_seconds", "tokens_per_second", "best_tokens_per_second", "gain")
    table: dict[str, list[Any]] = {name: [] for name in names}

    def add(name, each, faster=1.0):
        sequence, weights = each.sequence_bytes(context), each.weight_bytes()
        largest = machine.sessions(weights, sequence)
        took = _roofline(each.decode(context, batch, machine), machine)[0] / faster
        best = _best(each, machine, largest, context)[0] if faster == 1 else None
        row = (name, weights, sequence, largest, took, batch / took, best, table["decode_seconds"][0] / took if table["saving"] else 1.0)
        for key, value in zip(names, row, strict=True):
            table[key].append(value)

    for name, each in cases:
        add(name, each)
    if acceptance is not None:
        drafted, faster = _speculation(load, machine, batch, context, acceptance, draft)
        add(f"{drafted} tokens drafted a round, {acceptance:.3g} of them kept" if drafted else "speculative decoding, which does not pay", load, faster or 1.0)
    return table


def _speculation(load, machine, batch, context, acceptance, draft):
    """(tokens to draft a round, speed-up) that are best at this batch; 0 and 1 where drafting does not pay."""
    one = _roofline(load.decode(context, batch, machine), machine)[0]
    ratio = 0.0 if draft is None else machine.seconds(draft * 2, 2 * draft * batch) / one
    gains = [1.0]
    for drafted in range(1, MOST_DRAFTED + 1):
        verifying = _roofline(load.decode(context, batch, machine, fresh=drafted + 1), machine)[0] / one
        gains.append(float(speedup(acceptance, drafted, ratio, verify_cost=verifying)))
    best = int(np.argmax(gains))
    return best, gains[best]


def _offload(load, machine, prompt, output, context, link, host_memory):
    """The ceiling where experts stay in host memory and stream in; None for other models."""
    per_token, streamed = load.cache_bytes(context) / context, load.expert_bytes()
    if not (streamed and link and per_token):
        return None
    active, peak = load.model.active_params, machine.count * machine.peak
    out = {"streamed_bytes": streamed, "transfer_seconds": streamed / link}
    out["cache_for_full_speed"] = float(cache_needed(prompt, output, streamed, link, per_token, active, peak))
    room = out["cache_for_full_speed"] * (1 + 1e-9) if host_memory is None else host_memory  # just beyond the point where memory binds
    found = throughput_upper_bound(prompt, output, streamed, link, room, per_token, active, peak)
    return out | {"host_cache_bytes": room} | {key: found[key] for key in ("total_tokens_per_s", "generated_tokens_per_s", "gpu_tokens_per_s", "bound_by")}


def _layer_table(load, context):
    """Layers that are alike, in order of their first."""
    groups: dict[Any, int] = {}
    for layer in load.model.layers:
        groups[layer] = groups.get(layer, 0) + 1
    names = ("kind", "layers", "params", "experts", "active_experts", "heads", "kv_heads", "cached_per_token", "window", "cache_bytes", "state_bytes")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for layer, number in groups.items():
        cache = layer.cached * min(context, layer.window or context) * load.element
        row = (layer.kind, number, layer.params, layer.experts, layer.active, layer.heads, layer.kv_heads, layer.cached, layer.window, cache, layer.state * STATE_BYTES)
        for name, value in zip(names, row, strict=True):
            columns[name].append(value)
    return columns


def _part_table(load, machine, batch, context, prompt):
    """Where the time goes."""
    names = ("phase", "part", "bytes", "flops", "seconds", "share", "bound_by")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    phases = [("prompt", load.read_prompt(prompt, batch, machine))] + ([("token", load.decode(context, batch, machine))] if load.model.causal else [])
    for phase, parts in phases:
        total = sum(machine.spent(part)[0] for part in parts)
        for part in parts:
            seconds, binds = machine.spent(part)
            if seconds:
                for name, value in zip(names, (phase, part.name, part.bytes + part.linked, part.flops, seconds, seconds / total, binds), strict=True):
                    columns[name].append(value)
    return columns


def _rope(model, context):
    """(what the region of RoPE bases says of this context, in words)."""
    rope = model.rope
    if rope is None:
        return None, [] if model.causal is False else ["No RoPE: the bounds on its base do not apply."]
    whole = [layer for layer in model.layers if layer.heads and not layer.window]
    layers = whole or [layer for layer in model.layers if layer.heads]
    reach = min(context, max(layer.window or context for layer in layers))
    if rope.dimensions < 4 or rope.dimensions % 2 or rope.base <= 1:
        return None, [f"RoPE: the bounds speak of an even number of at least 4 rotated dimensions and a base above 1, not of {rope.dimensions} and {rope.base:.3g}."]
    found = feasibility(rope.base, rope.dimensions, reach, len(layers), scale=rope.scale)
    lower = found["lower"]
    failed = {
        "wrap": f"its slowest pair turns all the way round within them, so that far tokens look like near ones; at least {lower['wrap']:.3g} is needed",
        "nyquist": f"the cosine of its slowest pair turns within them, so that the order of far tokens is ambiguous; at least {lower['nyquist']:.3g} is needed",
        "dc": f"its slowest pair drifts by more than a tenth within them; at least {lower['dc']:.3g} is needed",
        "depth": f"its slowest pair drifts by less than a tenth in one layer, but not over {len(layers)} layers together; that would need {lower['depth']:.3g}, "
        "which released models that work do not meet either",
        "precision": f"one step of its slowest pair is lost in fp32; at most {found['upper']:.3g} can be represented",
    }
    slowed = f" (slowed {rope.scale:.3g} times by {rope.kind})" if rope.scale > 1 else ""
    if found["feasible"]:
        said = f"its slowest pair stays true over all {len(layers)} layers; the bases from {lower['depth']:.3g} to {found['upper']:.3g} do"
    else:
        said = failed[found["binding"]]
    return found, [f"RoPE (rope-base-region): the base {rope.base:.6g}{slowed} over {reach:,} tokens: {said}."]


def _gb(value):
    return f"{value / 1e9:,.0f} GB" if value >= 1e12 else f"{value / 1e9:.4g} GB"


def _rate(value):
    return f"{value:,.0f} tokens/s" if value >= 1000 else f"{value:.4g} tokens/s"


def _many(number, what, verb=""):
    return f"{number:,} {what}{'' if number == 1 else 's'}{f' {verb}' + ('s' if number == 1 else '') if verb else ''}"


def _sentences(quantities, load, machine, setting, savings, offload):
    """The answer in words."""
    value = {name: entry["value"] for name, entry in quantities.items()}
    model, batch = load.model, setting["batch_size"]
    devices = f"{machine.count} x {machine.device.name}" if machine.count > 1 else f"one {machine.device.name}"
    active = f", {model.active_params / 1e9:.4g}B of them for a token" if model.mixture else ""
    said = [f"{model.name}: {model.params / 1e9:.4g}B parameters{active}; its weights take {_gb(value['weight_bytes'])} of the {_gb(value['memory_bytes'])} of {devices}."]
    reading = f"take{'s' if batch == 1 else ''} {show_number(value['prefill_seconds'], 's', 3)} at the roofline, bound by {value['prefill_bound_by']}"
    if not model.causal:
        return [
            *said,
            f"It is an encoder: it keeps no cache and decodes nothing. {_many(batch, 'text')} of {setting['prompt_length']:,} tokens {reading}; nobody passes "
            f"{_rate(value['best_tokens_per_second'])} there.",
        ]
    states = f" and {_gb(value['state_bytes'])} of states whatever its length" if value["state_bytes"] else ""
    fit = _many(value["largest_batch"], "such sequence", "fit")
    said.append(f"A sequence of {setting['context_length']:,} tokens keeps {_gb(value['cache_bytes'])} of cache{states}; {fit} beside the weights.")
    said.append(f"{_many(batch, 'prompt')} of {setting['prompt_length']:,} tokens {reading}.")
    slowest = max(load.decode(setting["context_length"], batch, machine), key=lambda part: machine.spent(part)[0])
    said.append(
        f"A token for {_many(batch, 'sequence')} takes {show_number(1e3 * value['decode_seconds'], 'ms', 3)}, bound by {value['decode_bound_by']}, most of it for the "
        f"{slowest.name}: {_rate(value['tokens_per_second'])}. Nobody does it in less than {show_number(1e3 * value['decode_least_seconds'], 'ms', 3)}."
    )
    if value["best_tokens_per_second"]:
        all_of_them = "with the one sequence that fits" if value["largest_batch"] == 1 else f"with all {value['largest_batch']:,} sequences"
        said.append(f"Nobody passes {_rate(value['best_tokens_per_second'])} at this context, {all_of_them}, bound by {value['best_bound_by']}.")
    if "switch_seconds" in value:
        said.append(f"To swap one session out and another in takes {show_number(value['switch_seconds'], 's', 3)} over the host link{'s' if machine.count > 1 else ''}.")
    if model.mixture:
        first = next(layer for layer in model.layers if layer.experts)
        reached = distinct_experts(first.experts, first.active, batch)
        said.append(f"A step of {_many(batch, 'token')} reads {reached:.4g} of the {first.experts} experts of a layer, if tokens pick them evenly.")
    if offload:
        room = _gb(offload["host_cache_bytes"])
        there = f"with {room} of host memory for caches" + ("" if setting["host_memory"] else ", beyond which more gains nothing")
        said.append(
            f"With the experts in host memory ({show_number(offload['transfer_seconds'], 's', 3)} to stream them once) nobody generates more than "
            f"{_rate(offload['generated_tokens_per_s'])} {there} (moe-offload-throughput), bound by the {offload['bound_by']}."
        )
    best = int(np.argmax(savings["gain"]))
    if savings["gain"][best] > 1.005:
        said.append(f"The saving that speeds decoding most at this batch: {savings['saving'][best]}, {savings['gain'][best]:.3g} times.")
    return said


def _warnings(quantities, load, machine, setting, dtype):
    value = {name: entry["value"] for name, entry in quantities.items()}
    model, context, said = load.model, setting["context_length"], []
    if model.missing:
        said.append(f"Not in the config, and left out of all figures: {', '.join(model.missing)}.")
    longest = max(context, setting["prompt_length"])
    if model.context and longest > model.context:
        said.append(f"{longest:,} tokens are beyond the {model.context:,} that the model was made for.")
    room = value["memory_bytes"] - setting["reserve_bytes"]
    if value["weight_bytes"] > room:
        fewest = math.ceil(value["weight_bytes"] / max(machine.device.memory_bytes - setting["reserve_bytes"] / machine.count, 1))
        said.append(f"The weights do not fit: {_gb(value['weight_bytes'])} need at least {fewest} x {machine.device.name}. All times are those of a machine with room for them.")
    elif model.causal and value["largest_batch"] < setting["batch_size"]:
        said.append(f"Not so many sequences fit: {value['largest_batch']:,} of this length do, not {setting['batch_size']:,}. Times are those of a machine with room for them.")
    if machine.count > 1:
        if machine.device.interconnect is None:
            said.append(f"No link between devices is known for {machine.device.name}: what they exchange is left out.")
        shared = {layer.kv_heads for layer in model.layers if layer.cached and layer.kv_heads % machine.count}
        if shared:
            said.append(
                f"{min(shared)} key-value head{'s' if min(shared) > 1 else ''} cannot be split evenly over {machine.count} devices: plain tensor parallelism keeps copies; "
                "the figures are those of caches split by sequence or token."
            )
    computed = setting["arithmetic"]
    if computed not in ("bf16", "fp16") and computed not in machine.device.peaks:
        said.append(f"{machine.device.name} does not compute in {computed}: the next wider format that it has is taken.")
    if model.stored_bytes and not dtype and abs(model.stored_bytes / value["weight_bytes"] - 1) > TOLERANCE:
        said.append(
            f"The files beside the config hold {_gb(model.stored_bytes)} of weights, where {_gb(value['weight_bytes'])} are counted: they hold something else, or another dtype."
        )
    if model.stored_params and abs(model.stored_params / model.params - 1) > TOLERANCE:
        said.append(f"The file holds {model.stored_params:,} parameters, where its metadata account for {model.params:,}.")
    return said


def _notes(load, machine, setting):
    """How the figures were come by."""
    model = load.model
    said = [
        *(sentence[0].upper() + sentence[1:] + "." for sentence in model.said),
        "Times are those of the datasheet's peaks, without activations, launches and waiting: measured ones are longer. Logits are computed for the last token of a prompt only.",
    ]
    if model.causal:
        said.append("What savings cost in quality is not counted here: quantization-bit-allocation and kv-compression-risk say how little it can be.")
    if model.causal and any(layer.window for layer in model.layers):
        context = setting["context_length"]
        unbounded = replace(load, model=replace(model, layers=tuple(replace(layer, window=None) for layer in model.layers)))
        if unbounded.cache_bytes(context) > load.cache_bytes(context):
            said.append(f"Layers with a sliding window keep the window only; an engine that keeps all tokens in them needs {_gb(unbounded.cache_bytes(context))} a sequence.")
    if any(layer.kind == "latent" for layer in model.layers):
        said.append("Latent attention keeps one latent and one rotated key a token, for keys and values together; decoding is counted on the latents (absorbed matrices).")
    if model.state:
        said.append("States of recurrent layers are counted in fp32, convolutions with one column less than their kernel; a draft that must be taken back needs copies of them.")
    if model.mixture:
        said.append("Experts are taken to be picked evenly and independently; skewed routing touches fewer of them and loads them unevenly.")
    if setting["acceptance_rate"] is not None:
        cost = "at no cost" if setting["draft_params"] is None else f"of {setting['draft_params'] / 1e9:.3g}B parameters in 16 bits"
        said.append(
            f"speculative-speedup: a draft {cost}, tokens accepted independently, at most {MOST_DRAFTED} a round; verifying reads the cache once and may touch more experts."
        )
    return said
