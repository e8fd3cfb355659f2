"""What serving a long context costs: sessions that fit in memory, prefill, decoding, and swapping a session in."""

import numpy as np

from lawbook.contract import Paper, caution, choice, count, either, nonnegative, optional, positive, record, table, vector
from lawbook.numerics import arrays
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="Challenges in Deploying Long-Context Transformers: A Theoretical Peak Performance Analysis",
    arxiv="2405.08944",
    tags=["serving", "inference", "kv cache", "long context", "prefill", "decode", "gpu", "throughput", "capacity planning"],
    source="derived",
    says="""Four times and sizes decide what a long context costs to serve: how many sessions fit in GPU memory, how long the prompt takes (bound by compute), how long
    each decoded token takes (bound by memory bandwidth), and how long it takes to swap a session out and another in (bound by the host link). Everything that a long
    context costs beyond a short one comes from the size of its KV cache, and the quadratic part of prefill.""",
    notes="""Formulas are the standard counts, for peak hardware; the paper's running example is known from public digests. KV cache, weights and prefill FLOP agree to the
    last integer with outputs published by the tool llm-analysis for LLaMA 7B to 65B (attention factor 4 there). The throughput of sessions is our composition of the four
    numbers: prefills and switches in turn, decoding as one batch. Mixtures of experts decode as if every expert were read, which is right for large batches only.""",
)

GiB = 2**30
MODELS = {
    name: {"params": n, "layers": layers, "kv_heads": heads, "head_dim": 128, "width": width, "bytes_per_element": 2.0, "active_params": active}
    for name, n, layers, heads, width, active in (
        ("Llama-2-7B", 6.74e9, 32, 32, 4096, None),
        ("Llama-2-13B", 13.0e9, 40, 40, 5120, None),
        ("Llama-2-70B", 69.0e9, 80, 8, 8192, None),
        ("Llama-3-8B", 8.03e9, 32, 8, 4096, None),
        ("Llama-3-70B", 70.6e9, 80, 8, 8192, None),
        ("Yi-34B", 34e9, 60, 8, 7168, None),
        ("Mixtral-8x7B", 46.7e9, 32, 8, 4096, 12.9e9),
    )
}
HARDWARE = {
    name: {"hbm_bytes": memory * GiB, "bandwidth": bandwidth, "peak_flops": flops, "link_bandwidth": 20e9, "devices": 1}
    for name, memory, bandwidth, flops in (("A100-40", 40, 1.555e12, 312e12), ("A100-80", 80, 2.039e12, 312e12), ("H100-SXM", 80, 3.35e12, 989e12))
}

CONTEXT = count("tokens", typical=(512, 1_000_000), doc="tokens of the prompt or the session", example=50_000)
PARAMS = positive("params", typical=(1e9, 1e12), doc="parameters that a token passes through (the active ones of a mixture of experts)", example=34e9)
LAYERS = count("layers", typical=(12, 128), example=60)
KV_HEADS = count("heads", typical=(1, 64), doc="key-value heads: fewer than query heads under MQA and GQA", example=8)
HEAD_DIM = count("dimensions", typical=(64, 256), example=128)
WIDTH = count("dimensions", typical=(1024, 16384), doc="model width", example=7168)
ELEMENT = positive("bytes", typical=(0.5, 4), doc="size of one stored number: 2 in bf16, 0.5 in 4 bits")
WEIGHTS = positive("bytes", typical=(1e9, 2e11), example=68e9)
KV = nonnegative("bytes", scale="log", typical=(1e7, 1e11), doc="KV cache of one session", example=12.288e9)
HBM = positive("bytes", typical=(2e10, 2e11), doc="memory of one device; 80GiB is 85.9e9 bytes, 80GB is 80e9", example=80 * GiB)
BANDWIDTH = positive("bytes/s", typical=(5e11, 1e13), doc="memory bandwidth of one device", example=2e12)
FLOPS = positive("FLOP/s", typical=(5e13, 5e15), doc="peak of one device", example=312e12)
LINK = positive("bytes/s", typical=(5e9, 1e12), doc="link between device and host memory", example=20e9)
DEVICES = count("devices", typical=(1, 16), doc="devices under tensor parallelism, each with an equal share")
UTILIZATION = positive(high=1, typical=(0.2, 1), doc="share of the peak that is reached: mfu of prefill, mbu of decoding")
ATTENTION = nonnegative(typical=(0, 4), doc="FLOP for attention per layer, dimension and squared token: 4 for all scores, 2 for the causal half")


@paper.law(r"KV(S) = 2\, B L H_{kv} D\, S\, b", closed_form=True, gives=12.288e9)
def kv_cache_bytes(
    context_length: CONTEXT, layers: LAYERS, kv_heads: KV_HEADS, head_dim: HEAD_DIM, *, batch_size: count("sessions", typical=(1, 64)) = 1, bytes_per_element: ELEMENT = 2.0
) -> positive("bytes"):
    """Size of the keys and values that sessions of this length keep."""
    _, s, layers, heads, dim, batch, element = arrays(context_length, layers, kv_heads, head_dim, batch_size, bytes_per_element)
    return 2 * batch * layers * heads * dim * s * element


@paper.law(r"F(S) = S\,(2N + c\, L\, d\, S)", closed_form=True)
def prefill_flops(context_length: CONTEXT, params: PARAMS, layers: LAYERS, width: WIDTH, *, attention_factor: ATTENTION = 2.0) -> positive("FLOP"):
    """Arithmetic of reading a prompt: two FLOP per parameter and token, and the attention scores."""
    _, s, n, layers, d, c = arrays(context_length, params, layers, width, attention_factor)
    return s * (2 * n + c * layers * d * s)


@paper.law(r"t = F(S) / (G\, F_{peak}\, u)", assumes=["The prompt is longer than the ridge point, so that compute and not memory is the limit."], closed_form=True, gives=17.8)
def prefill_seconds(
    context_length: CONTEXT,
    params: PARAMS,
    layers: LAYERS,
    width: WIDTH,
    *,
    peak_flops: FLOPS,
    attention_factor: ATTENTION = 2.0,
    devices: DEVICES = 1,
    utilization: UTILIZATION = 1.0,
) -> positive("seconds"):
    """Time to read a prompt, before the first token comes."""
    _, flops, g, u = arrays(peak_flops, devices, utilization)
    return prefill_flops(context_length, params, layers, width, attention_factor=attention_factor) / (g * flops * u)


@paper.bound(r"n \le \lfloor (G\, M - W - \text{reserve}) / KV(S) \rfloor", gives=1)
def concurrency(
    hbm_bytes: HBM,
    weight_bytes: WEIGHTS,
    kv_bytes: positive("bytes", typical=(1e7, 1e11), doc="KV cache of one session", example=12.288e9),
    *,
    devices: DEVICES = 1,
    reserve_bytes: nonnegative("bytes", typical=(0, 1e10), doc="kept free for activations and the runtime") = 0.0,
) -> count("sessions", low=0):
    """Sessions whose caches fit beside the weights; 0, with a caution, where the weights alone do not fit."""
    room = devices * hbm_bytes - weight_bytes - reserve_bytes
    if room < 0:
        caution(f"The weights do not fit: they and the reserve exceed the memory by {-room:.4g} bytes.")
    return max(int(room // kv_bytes), 0)


@paper.law(
    r"t = T \max\!\left(\frac{W + B\, KV}{G\, \beta\, u},\ \frac{2 N B}{G\, F_{peak}}\right)",
    requires={"peak_flops and params go together: give both or neither": lambda peak_flops, params: (peak_flops is None) == (params is None)},
    closed_form=True,
    gives=10.0,
)
def decode_seconds(
    tokens: count("tokens", typical=(1, 10_000), doc="tokens decoded by each session", example=250),
    weight_bytes: WEIGHTS,
    kv_bytes: KV,
    *,
    bandwidth: BANDWIDTH,
    batch_size: count("sessions", typical=(1, 256), doc="sessions decoded as one batch") = 1,
    devices: DEVICES = 1,
    utilization: UTILIZATION = 1.0,
    peak_flops: positive("FLOP/s", typical=(5e13, 5e15), doc="peak of one device") = None,
    params: positive("params", typical=(1e9, 1e12), doc="active parameters") = None,
) -> positive("seconds"):
    """Time for a whole batch to decode `tokens` tokens each: weights and caches are read once a step, and compute counts where it is slower."""
    xp, t, w, kv, beta, b, g, u, flops, n = arrays(tokens, weight_bytes, kv_bytes, bandwidth, batch_size, devices, utilization, peak_flops, params)
    step = (w + b * kv) / (g * beta * u)
    return t * (step if flops is None or n is None else xp.maximum(step, 2 * n * b / (g * flops)))


@paper.law(r"t = 2\, KV(S) / \text{link}", closed_form=True, gives=1.23)
def context_switch_seconds(kv_bytes: KV, *, link_bandwidth: LINK) -> nonnegative("seconds"):
    """Time to move one session's cache out of the device and another one in."""
    _, kv, link = arrays(kv_bytes, link_bandwidth)
    return 2 * kv / link


@paper.law(r"S^* = F_{peak} / \beta", assumes=["Weights of two bytes each: 2 FLOP per parameter and token against 2 bytes read."], closed_form=True, gives=156)
def ridge_point(peak_flops: FLOPS, bandwidth: BANDWIDTH) -> positive("tokens"):
    """Prompt length (or batch) from which on a pass through the weights is bound by compute and no longer by memory."""
    _, flops, beta = arrays(peak_flops, bandwidth)
    return flops / beta


@paper.algorithm(
    r"\text{sessions/h/GPU} = \frac{3600\, B}{G\,[B\,(t_{prefill} + R\, t_{switch}) + R\, t_{decode}(B)]},\quad B = \text{concurrency}",
    requires={"model must have at most as many active_params as params": lambda model: isinstance(model, str) or (model["active_params"] or 0) <= model["params"]},
)
def serving_report(
    model: either(
        choice(*MODELS),
        record(
            params=positive("params", typical=(1e9, 1e11)),
            layers=LAYERS,
            kv_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            width=WIDTH,
            bytes_per_element=optional(ELEMENT),
            active_params=optional(positive("params", typical=(1e8, 1e9), doc="parameters a token uses in a mixture of experts")),
        ),
        doc="the name of a model, or its sizes (2 bytes an element where not given)",
        example="Yi-34B",
    ),
    hardware: either(
        choice(*HARDWARE),
        record(hbm_bytes=HBM, bandwidth=BANDWIDTH, peak_flops=FLOPS, link_bandwidth=LINK, devices=optional(DEVICES)),
        doc="the name of a device, or its numbers (one device where not given)",
        example="A100-80",
    ),
    contexts: vector("contexts", of=count("tokens", typical=(512, 1_000_000)), example=[4000, 50_000, 100_000]),
    *,
    output_tokens: count("tokens", typical=(1, 5000), doc="tokens decoded in a round") = 250,
    rounds: count("rounds", typical=(1, 20), doc="rounds of a conversation, each with one switch") = 1,
) -> table(
    context_length=count("tokens"),
    kv_bytes=positive("bytes", doc="of one session"),
    concurrency=count("sessions", low=0),
    prefill_seconds=positive("seconds"),
    decode_seconds=positive("seconds", doc="of one session alone, one round"),
    switch_seconds=positive("seconds"),
    sessions_per_hour=nonnegative("sessions", doc="per device, with all sessions that fit decoding as one batch"),
    binding=choice("memory", "compute", "bandwidth", doc="memory where no session fits, else the longer of prefill (compute) and decoding (bandwidth)"),
):
    """What a model on a device costs at each context length, at peak, and what binds it."""
    m = MODELS[model] if isinstance(model, str) else model
    h = HARDWARE[hardware] if isinstance(hardware, str) else hardware
    contexts, devices, element = np.asarray(contexts), h.get("devices") or 1, m.get("bytes_per_element") or 2.0
    active = m.get("active_params") or m["params"]
    weights, peak = m["params"] * element, {"peak_flops": h["peak_flops"], "devices": devices}
    kv = kv_cache_bytes(contexts, m["layers"], m["kv_heads"], m["head_dim"], bytes_per_element=element)
    fit = np.maximum((devices * h["hbm_bytes"] - weights) // kv, 0).astype(int)
    prefill = prefill_seconds(contexts, active, m["layers"], m["width"], **peak)
    decode, batch_decode = (decode_seconds(output_tokens, weights, kv, bandwidth=h["bandwidth"], params=active, batch_size=b, **peak) for b in (1, np.maximum(fit, 1)))
    switch = context_switch_seconds(kv, link_bandwidth=h["link_bandwidth"])
    return {
        "context_length": contexts,
        "kv_bytes": kv,
        "concurrency": fit,
        "prefill_seconds": prefill,
        "decode_seconds": decode,
        "switch_seconds": switch,
        "sessions_per_hour": 3600 * fit / (devices * (fit * (prefill + rounds * switch) + rounds * batch_decode)),
        "binding": np.where(fit == 0, "memory", np.where(prefill >= decode, "compute", "bandwidth")).tolist(),
    }


# llm-analysis, examples/llama/outputs_infer_ideal: (layers, width, KV bytes of 544 tokens, prefill FLOP of 512 tokens, weight bytes), summed over devices
PUBLISHED = (
    (32, 4096, 285212672, 6868726448128, 13147045888),
    (40, 5120, 445644800, 13267422412800, 25493504000),
    (60, 6656, 869007360, 33300089405440, 64221347840),
    (80, 8192, 1426063360, 66926327889920, 129373306880),
)


def keys_only(*sizes, **options):
    return kv_cache_bytes(*sizes, **options) / 2


def all_query_heads(context_length, layers, kv_heads, head_dim):
    return kv_cache_bytes(context_length, layers, 56, head_dim)


@paper.trial(
    Identity(rtol=0),
    of=[kv_cache_bytes, prefill_flops],
    claim=(kv_cache_bytes, prefill_flops),
    controls={"values forgotten": (keys_only, prefill_flops), "56 query heads for 8 key-value heads": (all_query_heads, prefill_flops)},
    quick=4,
    full=40,
)
def published_counts(draw, claim):
    """Integers that an independent tool publishes for LLaMA 7B to 65B, and the 24.576 GB of the paper's 34B model at 100K tokens."""
    cache, flops = claim
    layers, width, kv, prefill, weights = draw.choice(PUBLISHED)
    computed = [cache(512 + 32, layers, width // 128, 128), flops(512, weights / 2, layers, width, attention_factor=4), cache(100_000, 60, 8, 128)]
    return computed, [kv, prefill, 24_576_000_000], {"layers": layers, "width": width}


def all_scores(*sizes, **options):
    return prefill_flops(*sizes, **options | {"attention_factor": 4})


def weights_free(hbm_bytes, weight_bytes, kv_bytes, **options):
    return concurrency(hbm_bytes, 0, kv_bytes, **options)


@paper.trial(
    Identity(rtol=1e-12),
    of=[prefill_flops, concurrency, prefill_seconds, decode_seconds, ridge_point],
    claim=(prefill_flops, concurrency),
    controls={"scores of the future counted": (all_scores, concurrency), "weights take no memory": (prefill_flops, weights_free)},
    quick=30,
    full=2000,
)
def counted(draw, claim):
    """Causal prefill counted position by position, sessions admitted one by one, and the ridge where arithmetic and reading the weights take equal time."""
    flops, sessions = claim
    s, n, layers, d = draw.integer(1, 3000), draw.log_uniform(1e8, 1e11), draw.integer(1, 100), 128 * draw.integer(1, 100)
    # position i (from 1) multiplies its query with i keys and its weights with i values: the sum is S(S+1)/2, of which the law keeps S^2/2
    reached = np.arange(1, s + 1, dtype=float)
    counted_flops = float(np.sum(2 * n + layers * 2 * (2 * d * reached))) - 2 * layers * d * s
    memory, weights, kv, devices = 80 * GiB, draw.log_uniform(1e9, 8e10), draw.log_uniform(3e8, 5e10), draw.integer(1, 8)
    used, admitted = weights, 0
    while used + kv <= devices * memory:
        used, admitted = used + kv, admitted + 1
    peak, bandwidth = draw.log_uniform(1e13, 1e15), draw.log_uniform(1e11, 1e13)
    ridge = ridge_point(peak, bandwidth)
    compute = prefill_seconds(ridge, n, layers, d, peak_flops=peak, attention_factor=0)
    return [counted_flops, admitted, decode_seconds(1, 2 * n, 0, bandwidth=bandwidth)], [flops(s, n, layers, d), sessions(memory, weights, kv, devices=devices), compute]


def switches_one_way(*args, **options):
    report = serving_report(*args, **options)
    return report | {"switch_seconds": report["switch_seconds"] / 2}


def one_session_at_a_time(*args, **options):
    report = serving_report(*args, **options)
    return report | {"sessions_per_hour": 3600 / (report["prefill_seconds"] + options["rounds"] * (report["switch_seconds"] + report["decode_seconds"]))}


@paper.trial(
    Identity(rtol=1e-9),
    of=[serving_report, decode_seconds, context_switch_seconds, concurrency],
    controls={"caches move one way": switches_one_way, "no batching": one_session_at_a_time},
    quick=30,
    full=1000,
)
def simulated_sessions(draw, report):
    """A clock that prefills, swaps and decodes token by token gives the sessions per hour of the report, and the single results its columns."""
    name, rounds, tokens, context = draw.choice(["Llama-3-8B", "Llama-2-7B", "Yi-34B"]), draw.integer(1, 4), draw.integer(1, 60), draw.integer(1000, 40_000)
    m, h = MODELS[name], HARDWARE["H100-SXM"]
    weights, cache = 2 * m["params"], 2 * 2 * m["layers"] * m["kv_heads"] * 128 * context
    sessions = int((h["hbm_bytes"] - weights) / cache)
    clock = 0.0
    for _ in range(sessions):
        clock += (2 * m["params"] + 2 * m["layers"] * m["width"] * context) * context / h["peak_flops"]
    for _ in range(rounds):
        for _ in range(sessions):
            clock += cache / h["link_bandwidth"]  # out
            clock += cache / h["link_bandwidth"]  # in
        for _ in range(tokens):
            clock += max((weights + sessions * cache) / h["bandwidth"], sessions * 2 * m["params"] / h["peak_flops"])
    row = report(name, "H100-SXM", [context], output_tokens=tokens, rounds=rounds)
    computed = [sessions, 3600 * sessions / clock, 2 * cache / h["link_bandwidth"], tokens * (weights + cache) / h["bandwidth"], concurrency(h["hbm_bytes"], weights, cache)]
    return computed, [row[key][0] for key in ("concurrency", "sessions_per_hour", "switch_seconds", "decode_seconds", "concurrency")], {"model": name, "context": context}


def state_of_fixed_size(*args, **options):
    report = serving_report(*args, **options)
    return report | {"kv_bytes": np.full_like(report["kv_bytes"], report["kv_bytes"][0])}


@paper.trial(Inequality(search=100), of=[serving_report], controls={"a recurrent state instead of a cache": state_of_fixed_size}, quick=60, full=3000)
def grows_with_context(draw, report):
    """From S to 2S: cache and switch double, prefill more than doubles, decoding slows, sessions and throughput fall."""
    s, name, device = int(draw.log_uniform(500, 2e5)), draw.choice(list(MODELS)), draw.choice(list(HARDWARE))
    table = report(name, device, [s, 2 * s], output_tokens=draw.integer(1, 1000), rounds=draw.integer(1, 10))
    fast = [2 * table[key][0] for key in ("kv_bytes", "prefill_seconds", "switch_seconds")] + [table["decode_seconds"][0], table["concurrency"][1], table["sessions_per_hour"][1]]
    slow = [table[key][1] for key in ("kv_bytes", "prefill_seconds", "switch_seconds", "decode_seconds")] + [table["concurrency"][0], table["sessions_per_hour"][0]]
    return fast, slow, {"context": s, "model": name, "device": device}


@paper.finding(
    """The 14.1 s that the paper's running example quotes for a 50K prefill on one A100 count less than half of causal attention: they correspond to an attention factor of
    0.93 at width 7168, where exact causal attention needs 2 and takes 17.8 s even at peak."""
)
def published_prefill_is_optimistic():
    implied = (14.1 * 312e12 / 50_000 - 2 * 34e9) / (60 * 7168 * 50_000)
    times = {f"seconds_at_{c}": float(prefill_seconds(50_000, 34e9, 60, 7168, peak_flops=312e12, attention_factor=c)) for c in (1, 2, 4)}
    return {"holds": implied < 1 and abs(times["seconds_at_2"] / 14.1 - 1.26) < 0.01, "implied_factor": implied, **times}


@paper.finding("""The paper's one session of 50K tokens beside 34B weights exists only if an 80 GB card has 80 GiB: with 80e9 bytes none fits.""")
def unit_of_memory_decides():
    kv = float(kv_cache_bytes(50_000, 60, 8, 128))
    binary, decimal = concurrency(80 * GiB, 68e9, kv), concurrency(80e9, 68e9, kv)
    return {"holds": binary == 1 and decimal == 0, "sessions_80GiB": binary, "sessions_80GB": decimal, "kv_bytes": kv}
