"""Training from host memory: bytes in RAM and on the GPU when layers stream through it, and the tokens a step needs to hide the link."""

import numpy as np

from lawbook.contract import Paper, choice, count, flag, nonnegative, positive, record
from lawbook.numerics import arrays
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="Horizon-LM: A RAM-Centric Architecture for LLM Training",
    arxiv="2602.04816",
    tags=["training", "offloading", "memory", "gpu", "host memory", "adam", "pcie", "capacity planning"],
    source="code",
    says="""Parameters, gradients and optimiser states live in host memory; the GPU holds the layers in work, twice, and checkpoints of activations. Host memory then decides
    how large a model one machine trains, and both footprints are sums known beforehand. Weights cross the link twice a step, so that a step needs enough tokens to be worth it.""",
    notes="""Memory follows the authors' calculator, step times are derived here for a full-duplex link. The calculator's comment counts 4 bytes of fp32 weights, 8 of moments and
    none for gradients, the paper 2 + 2 + 8: both are 12. The activation constant is calibrated by the authors on one model and card. The bound on the step adds both passes up;
    with two buffers the passes balance separately: see the finding. Downloads are half of uploads, so they bind nowhere. CPU Adam, which moves some 22 bytes a parameter in
    RAM, is taken to overlap.""",
)

PARAMS = positive("params", typical=(1e8, 1e12), example=32e9)
LAYERS = count("layers", typical=(12, 128), example=64)
LAYER_PARAMS = positive("params", typical=(1e7, 1e10), doc="of the largest layer, where layers differ (experts, embeddings of small models); else params over layers")
SLABS = count("slabs", low=0, typical=(1, 24), doc="fp32 slabs of a layer's size for gradients under way")
TOKENS = count("tokens", typical=(100, 1_000_000), doc="tokens of a step", example=6240)
FLOPS = positive("FLOP/s", typical=(5e13, 5e15), doc="peak of the device", example=312e12)
LINK = positive("bytes/s", typical=(5e9, 1e12), doc="between host and device, each way", example=25e9)
EACH = nonnegative("bytes", typical=(0, 8), doc="per parameter")


@paper.law(r"(b_w + b_g + b_o) P + b_w P_{stage}", closed_form=True, gives=384e9)
def host_memory_bytes(
    params: PARAMS,
    *,
    weight_bytes: EACH = 2.0,
    gradient_bytes: EACH = 2.0,
    optimizer_bytes: EACH = 8.0,
    staging_params: nonnegative("params", typical=(0, 1e9), doc="parameters held twice on their way") = 0.0,
) -> nonnegative("bytes"):
    """Host memory that training takes; 2 + 2 + 8 bytes a parameter are bf16 weights and gradients and Adam's two moments."""
    _, p, w, g, o, staged = arrays(params, weight_bytes, gradient_bytes, optimizer_bytes, staging_params)
    return (w + g + o) * p + w * staged


@paper.bound(r"P \le M / b", closed_form=True, gives=125e9)
def max_params(
    host_bytes: positive("bytes", typical=(1e10, 1e13), example=1.5e12),
    *,
    bytes_per_param: positive("bytes", typical=(6, 20), doc="12 here, 16 for usual mixed-precision Adam") = 12.0,
) -> positive("params"):
    """Largest model whose states fit in this memory."""
    _, memory, each = arrays(host_bytes, bytes_per_param)
    return memory / each


@paper.law(r"M = M_0 + 2 \cdot 2 \tfrac PL + n \cdot 4 \tfrac PL + 2 \cdot 4 \tfrac PL", closed_form=True)
def gpu_memory_bytes(
    params: PARAMS,
    layers: LAYERS,
    *,
    gradient_slabs: SLABS = 12,
    context_bytes: nonnegative("bytes", typical=(0, 4e9), doc="taken by the runtime") = 2e9,
    layer_params: LAYER_PARAMS = None,
) -> record(
    layer_params=positive("params"),
    double_buffer=positive("bytes", doc="the layer in work and the next, in bf16"),
    slabs=nonnegative("bytes"),
    head_embed=positive("bytes", doc="gradients of head and embedding, in fp32"),
    total=positive("bytes"),
):
    """Memory of the GPU before any activation: it depends on a layer's size, not on the number of layers."""
    _, p, n, slabs, context, layer = arrays(params, layers, gradient_slabs, context_bytes, layer_params)
    layer = p / n if layer is None else layer
    return {"layer_params": layer, "double_buffer": 4 * layer, "slabs": 4 * slabs * layer, "head_embed": 8 * layer, "total": context + (12 + 4 * slabs) * layer}


@paper.law(r"\max(1, \lfloor (M_{GPU} - M) / (a\, d\, T K) \rfloor),\quad 0 \text{ if } M \ge M_{GPU}")
def max_batch_size(
    gpu_bytes: positive("bytes", typical=(1e10, 2e11), example=80e9),
    params: PARAMS,
    width: count("dimensions", typical=(512, 16384), example=5120),
    layers: LAYERS,
    context_length: count("tokens", typical=(512, 131072), example=1024),
    *,
    checkpoint_interval: count("layers", typical=(1, 8), doc="layers between checkpoints") = 4,
    activation_factor: positive("bytes", typical=(10, 60), doc="activations per dimension, token and layer") = 29.0,
    hybrid: flag(doc="linear and full attention mixed, whose activations take 2.5 times the memory") = False,
    gradient_slabs: SLABS = 12,
    layer_params: LAYER_PARAMS = None,
) -> count("samples", low=0):
    """Samples that fit on the GPU at once; 0 where the fixed cost does not fit, and 1 (as the authors count) where that fits but a sample does not."""
    left = gpu_bytes - float(gpu_memory_bytes(params, layers, gradient_slabs=gradient_slabs, layer_params=layer_params)["total"])
    sample = activation_factor * width * context_length * checkpoint_interval * (2.5 if hybrid else 1.0)
    return max(int(left / sample), 1) if left > 0 else 0


@paper.bound(
    r"t \ge \max\left(\frac{8 P T}{F u},\ \frac{4 P}{\beta},\ \frac{2 P}{\beta}\right)",
    assumes=["Activations are recomputed (8 FLOP a parameter and token in all), bf16 weights cross for forward and again for backward, gradients come back once, all overlap."],
    gives={"compute": 5.12, "upload": 5.12},
)
def stream_step_seconds(
    params: PARAMS,
    tokens: TOKENS,
    *,
    peak_flops: FLOPS,
    link_bandwidth: LINK,
    mfu: positive(high=1, typical=(0.2, 1), scale="linear", doc="share of the peak that is reached") = 1.0,
) -> record(
    compute=positive("seconds"),
    upload=positive("seconds"),
    download=positive("seconds"),
    step=positive("seconds", doc="at least"),
    bound_by=choice("compute", "upload", "download"),
):
    """Least time of a training step when weights stream through the GPU, and what sets it."""
    times = {"compute": 8 * params * tokens / (peak_flops * mfu), "upload": 4 * params / link_bandwidth, "download": 2 * params / link_bandwidth}
    slowest = max(times, key=times.get)
    return times | {"step": times[slowest], "bound_by": slowest}


@paper.law(r"T^* = F / (2 \beta)", closed_form=True, gives=6240)
def tokens_to_saturate(peak_flops: FLOPS, link_bandwidth: LINK) -> positive("tokens"):
    """Tokens a step from which on arithmetic takes longer than the link, whatever the model."""
    _, flops, link = arrays(peak_flops, link_bandwidth)
    return flops / (2 * link)


def gradients_forgotten(params):
    return host_memory_bytes(params, gradient_bytes=0)


def one_buffer(*args, **options):
    found = gpu_memory_bytes(*args, **options)
    return found | {"total": found["total"] - found["double_buffer"] / 2}


# parameters (billions), width, layers, hybrid attention: rows of the authors' table of models
MODELS = (
    (0.5, 896, 24, False), (1.5, 1536, 28, False), (3, 2048, 36, False), (7, 3584, 28, False), (14, 5120, 48, False), (32, 5120, 64, False), (72, 8192, 80, False),
    (0.6, 1024, 28, False), (8, 4096, 36, False), (0.8, 1024, 28, True), (9, 4096, 36, True), (27, 5120, 64, True), (70, 8192, 80, False), (47, 4096, 32, False),
    (141, 6144, 56, False), (67, 8192, 95, False), (3.8, 3072, 32, False), (9, 3584, 42, False), (34, 7168, 60, False), (120, 10240, 96, False),
)  # fmt: skip


@paper.trial(
    Identity(rtol=1e-12),
    of=[host_memory_bytes, max_params, gpu_memory_bytes, max_batch_size],
    claim=(host_memory_bytes, gpu_memory_bytes),
    controls={"gradients forgotten": (gradients_forgotten, gpu_memory_bytes), "a single buffer": (host_memory_bytes, one_buffer)},
    quick=20,
    full=400,
)
def buffers_added_up(draw, claim):
    """Arrays of the sizes and types that are held, added up, for models of the authors' table; the batch is the largest whose activations still fit."""
    host, gpu = claim
    billions, width, layers, hybrid = draw.choice(MODELS)
    card, tokens = draw.choice([40e9, 80e9, 141e9, 192e9]), draw.choice([512, 1024, 4096])
    params, layer = billions * 1e9, billions * 1e9 / layers
    bf16, fp32 = np.dtype(np.float16).itemsize, np.dtype(np.float32).itemsize
    in_host = params * (bf16 + bf16 + 2 * fp32)
    held = 2e9 + sum([bf16 * layer] * 2 + [fp32 * layer] * 12 + [fp32 * layer] * 2)
    batch, used = 0, held + width * tokens * 4 * 29 * (2.5 if hybrid else 1)
    while used <= card:
        batch, used = batch + 1, used + width * tokens * 4 * 29 * (2.5 if hybrid else 1)
    batch = max(batch, 1) if held < card else 0
    told = [host(params), gpu(params, layers)["total"], max_batch_size(card, params, width, layers, tokens, hybrid=hybrid), max_params(in_host)]
    return [in_host, held, batch, params], told, {"params": params, "layers": layers}


def pipeline(layers, params, tokens, flops, link, buffers=2):
    """Clock of one step: weights of layer i are uploaded once buffer i - `buffers` is free, layers are computed in turn, gradients leave by the other lane."""
    work = [2 * params / layers * tokens / flops] * layers + [6 * params / layers * tokens / flops] * layers
    arrived, done, sent = [], [], 0.0
    for i, seconds in enumerate(work):
        free = done[i - buffers] if i >= buffers else 0.0
        arrived.append(max(arrived[-1] if arrived else 0.0, free) + 2 * params / layers / link)
        done.append(max(done[-1] if done else 0.0, arrived[-1]) + seconds)
        if i >= layers:
            sent = max(sent, done[-1]) + 2 * params / layers / link
    return max(done[-1], sent)


def no_overlap(params, tokens, **options):
    found = stream_step_seconds(params, tokens, **options)
    return found | {"step": found["compute"] + found["upload"]}


def forward_only(params, tokens, **options):
    found = stream_step_seconds(params, tokens, **options)
    return found | {"upload": found["upload"] / 2}


@paper.trial(
    Inequality(rtol=1e-9, search=150),
    of=[stream_step_seconds, tokens_to_saturate],
    controls={"nothing overlaps": no_overlap, "weights cross once": forward_only},
    quick=100,
    full=4000,
)
def simulated_pipeline(draw, bound):
    """A clock with two buffers takes at least the bound, at most what the two passes take each by its slower side and one layer's way through; with one buffer it takes the sum."""
    layers, params, flops, link = draw.integer(4, 80), draw.log_uniform(1e8, 1e12), draw.log_uniform(5e13, 5e15), draw.log_uniform(5e9, 1e12)
    tokens = tokens_to_saturate(flops, link) * draw.log_uniform(0.1, 10)  # around the balance
    told = bound(params, tokens, peak_flops=flops, link_bandwidth=link)
    double, single = (pipeline(layers, params, tokens, flops, link, buffers) for buffers in (2, 1))
    passes = max(told["compute"] / 4, told["upload"] / 2) + max(3 * told["compute"] / 4, told["upload"] / 2)
    layer = (told["compute"] + told["upload"] + told["download"]) / layers
    total = told["compute"] + told["upload"] + told["download"] / layers
    return [told["step"], double, single, total], [double, passes + layer, total, single], {"layers": layers, "tokens": tokens}


@paper.finding(
    """The balance of a whole step hides that its passes differ: forward has a quarter of the arithmetic and half of the uploads. At 6240 tokens on an A100 with 25 GB/s a
    pipeline with two buffers takes 25% longer than the bound, and it is bound by compute only from twice as many tokens on."""
)
def passes_balance_separately():
    flops, link, params = 312e12, 25e9, 32e9
    balance = float(tokens_to_saturate(flops, link))
    ratios = [
        pipeline(64, params, factor * balance, flops, link) / stream_step_seconds(params, factor * balance, peak_flops=flops, link_bandwidth=link)["step"] for factor in (1, 2)
    ]
    return {"holds": bool(abs(ratios[0] - 1.25) < 0.03 and ratios[1] < 1.03), "tokens": balance, "over_bound": ratios[0], "over_bound_at_twice": ratios[1]}
