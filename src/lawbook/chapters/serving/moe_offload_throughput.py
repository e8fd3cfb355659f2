"""Serving a mixture of experts whose weights stream from CPU memory: the ceiling on throughput, and what raises it."""

import numpy as np

from lawbook.contract import Paper, choice, count, positive, record, vector
from lawbook.numerics import arrays
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="MoE-Lens: Towards the Hardware Limit of High-Throughput MoE LLM Serving Under Resource Constraints",
    arxiv="2504.09345",
    tags=["mixture of experts", "serving", "offloading", "throughput", "kv cache", "inference", "memory"],
    source="paper",
    says="""Where weights live in CPU memory and pass through the GPU once for each step, throughput is capped by the GPU's arithmetic or by how many tokens share a pass of the
    weights, which the room for KV caches in CPU memory limits. One ratio of prompt and generation length turns cache room into tokens a pass, so that it can be told
    whether memory, the GPU or the CPU's own bandwidth is worth buying.""",
    notes="""Throughput counts prompt tokens too. The bound is that of unlimited requests; the paper's second stage (finite batches, paged caches) and its accuracy are not covered.
    Layers that stay on the GPU are to be left out of model_bytes. That the bound is reached, and the CPU's ceiling, are derived here.""",
)

# Mixtral 8x7B in bf16 on an A40 with 70 GB for caches
PROMPT = count("tokens", typical=(16, 4000), doc="tokens of a prompt", example=98)
GENERATED = count("tokens", typical=(16, 1000), doc="tokens generated for a request", example=32)
MODEL = positive("bytes", typical=(2e10, 1e12), doc="weights that stream to the GPU in each pass", example=93.4e9)
LINK = positive("bytes/s", typical=(5e9, 1e11), doc="from CPU memory to the GPU", example=19.5e9)
TOKEN = positive("bytes", typical=(3e4, 1e6), doc="KV cache of a token", example=131072)
ACTIVE = positive("params", typical=(1e9, 1e11), doc="parameters that a token uses", example=12.9e9)
FLOPS = positive("FLOP/s", typical=(5e13, 2e15), doc="peak of the GPU", example=149.7e12)
MFU = positive(high=1, typical=(0.2, 1), scale="linear", doc="share of the peak that is reached")


@paper.law(r"\mathrm{PME} = \frac{2(p+g)}{(2p+g)\, g},\quad \frac{2(p+g)}{(2p+g)(g+1)}", closed_form=True, gives={"pme": 0.03564})
def parallelism_memory_efficiency(prompt_length: PROMPT, generation_length: GENERATED) -> record(
    pme=positive("1/step", doc="the closed form, an integral"), pme_exact=positive("1/step", doc="the sum as printed, over j = 0..g")
):
    """Tokens processed in a step for each token that the cache holds."""
    _, p, g = arrays(prompt_length, generation_length)
    return {"pme": 2 * (p + g) / ((2 * p + g) * g), "pme_exact": 2 * (p + g) / ((2 * p + g) * (g + 1))}


def gpu_rate(active_params, peak_flops, mfu):
    """Tokens per second of a saturated GPU: two FLOP per parameter, attention being left to the CPU."""
    return peak_flops * mfu / (2 * active_params)


@paper.bound(
    r"T \le \min\left(\frac{\mathrm{PME}\, M}{\delta},\ \frac{F u}{2 N},\ \frac{\mathrm{PME}\, \beta_{CPU}}{kv}\right),\ \delta = \frac{W}{\text{link}},\ M = \frac{C}{kv}",
    assumes=["Requests never run out and their stages overlap.", "Expert weights pass once through the GPU in each step; attention runs on the CPU and reads all resident caches."],
    gives={"weight_transfer_s": 4.79, "bound_by": "memory"},
)
def throughput_upper_bound(
    prompt_length: PROMPT,
    generation_length: GENERATED,
    model_bytes: MODEL,
    link_bandwidth: LINK,
    kv_cache_bytes: positive("bytes", typical=(1e10, 2e12), doc="CPU memory for caches", example=70e9),
    kv_bytes_per_token: TOKEN,
    active_params: ACTIVE,
    peak_flops: FLOPS,
    *,
    mfu: MFU = 1.0,
    cpu_bandwidth: positive("bytes/s", typical=(5e10, 1e12), doc="at which the CPU reads caches; without it that ceiling is left out") = None,
) -> record(
    total_tokens_per_s=positive("tokens/s", doc="prompt tokens included"),
    generated_tokens_per_s=positive("tokens/s"),
    weight_transfer_s=positive("seconds", doc="one pass of the weights"),
    gpu_tokens_per_s=positive("tokens/s"),
    bound_by=choice("memory", "gpu", "cpu"),
):
    """Most tokens per second that the hardware allows, and which part of it says so."""
    pme = float(parallelism_memory_efficiency(prompt_length, generation_length)["pme"])
    transfer = model_bytes / link_bandwidth
    ceilings = {"memory": pme * kv_cache_bytes / kv_bytes_per_token / transfer, "gpu": gpu_rate(active_params, peak_flops, mfu)}
    if cpu_bandwidth is not None:
        ceilings["cpu"] = pme * cpu_bandwidth / kv_bytes_per_token
    bound_by = min(ceilings, key=ceilings.__getitem__)
    return {
        "total_tokens_per_s": ceilings[bound_by],
        "generated_tokens_per_s": ceilings[bound_by] * generation_length / (prompt_length + generation_length),
        "weight_transfer_s": transfer,
        "gpu_tokens_per_s": ceilings["gpu"],
        "bound_by": bound_by,
    }


@paper.law(r"n_{sat} = \frac{F u\, W}{2 N \cdot \text{link}}", closed_form=True)
def saturation_tokens(model_bytes: MODEL, link_bandwidth: LINK, active_params: ACTIVE, peak_flops: FLOPS, *, mfu: MFU = 1.0) -> positive("tokens"):
    """Tokens that must share a pass of the weights for the GPU to compute as long as they take to arrive."""
    _, weights, link, active, flops, u = arrays(model_bytes, link_bandwidth, active_params, peak_flops, mfu)
    return gpu_rate(active, flops, u) * weights / link


@paper.law(r"\text{cache} = kv \cdot n_{sat} / \mathrm{PME}", closed_form=True)
def cache_needed(
    prompt_length: PROMPT, generation_length: GENERATED, model_bytes: MODEL, link_bandwidth: LINK, kv_bytes_per_token: TOKEN, active_params: ACTIVE, peak_flops: FLOPS
) -> positive("bytes"):
    """Memory for caches beyond which the GPU is the limit and more memory gains nothing."""
    _, kv = arrays(kv_bytes_per_token)
    tokens = saturation_tokens(model_bytes, link_bandwidth, active_params, peak_flops)
    return kv * tokens / parallelism_memory_efficiency(prompt_length, generation_length)["pme"]


@paper.model(
    r"\text{resident} = \sum_{j<g} \lambda\,(p + j) \le M,\quad \text{tokens a pass} = \lambda\,(p+g)",
    requires={
        "cache_tokens must hold at least one sequence, prompt_length + generation_length - 1": lambda cache_tokens, prompt_length, generation_length: (
            cache_tokens >= prompt_length + generation_length - 1
        )
    },
)
def simulate_pipeline(
    prompt_length: count("tokens", typical=(16, 500), example=98),
    generation_length: count("tokens", typical=(4, 100), example=32),
    cache_tokens: count("tokens", typical=(5000, 200_000), doc="tokens that the caches hold", example=20_000),
    *,
    passes: count("passes", typical=(10, 500), example=320) = 320,
    policy: choice("overlap", "two_phase", doc="sequences admitted as room comes, or all at once when the last ones have ended") = "overlap",
) -> record(tokens_per_pass=vector("passes", of=count("tokens", low=0)), peak_cache=count("tokens")):
    """Tokens that each pass of the weights serves, for sequences that live g passes and hold p + j tokens in pass j."""
    p, g = prompt_length, generation_length
    held = p + np.arange(g)
    resident, admitted, peak = np.zeros(g, int), np.zeros(passes, int), 0  # resident[j]: tokens held j passes ahead by the sequences admitted so far
    share = cache_tokens / held.sum()  # sequences a pass in the steady state
    credit = 0.0
    for now in range(passes):
        if policy == "overlap":
            credit = min(credit, 1.0) + share  # what could not be admitted is not saved up
            admitted[now] = min(int(credit), int(((cache_tokens - resident) // held).min()))
            credit -= admitted[now]
        elif now % g == 0:
            admitted[now] = cache_tokens // held[-1]
        resident += admitted[now] * held
        peak = max(peak, int(resident[0]))
        resident = np.append(resident[1:], 0)
    alive = np.cumsum(admitted)
    alive[g:] -= alive[:-g].copy()
    return {"tokens_per_pass": alive + p * admitted, "peak_cache": peak}


def steady_rate(p, g, cache_tokens, policy):
    """Mean tokens of a pass over whole lives of a sequence, once two have gone by; and the most tokens that were ever held."""
    run = simulate_pipeline(p, g, cache_tokens, passes=12 * g, policy=policy)
    return float(run["tokens_per_pass"][2 * g :].mean()), run["peak_cache"]


def cache_in_bytes(*sizes, **options):
    return throughput_upper_bound(*sizes[:5], 1.0, *sizes[6:], **options)


def generated_taken_for_all(*sizes, **options):
    bound = throughput_upper_bound(*sizes, **options)
    return bound | {"total_tokens_per_s": bound["generated_tokens_per_s"]}


@paper.trial(
    Identity(rtol=0.01),
    of=[throughput_upper_bound, simulate_pipeline, parallelism_memory_efficiency],
    controls={"cache counted in bytes": cache_in_bytes, "generated tokens taken for all": generated_taken_for_all},
    quick=20,
    full=500,
)
def reached(draw, bound):
    """A pipeline that staggers its sequences comes within one percent of the memory ceiling, and holds no more than the caches."""
    p, g = draw.integer(90, 600), draw.integer(16, 128)
    cache_tokens, kv, weights, link = draw.integer(300, 1000) * (p + g), draw.log_uniform(3e4, 1e6), draw.log_uniform(2e10, 1e12), draw.log_uniform(5e9, 1e11)
    found = bound(p, g, weights, link, cache_tokens * kv, kv, 1.0, 1e30, cpu_bandwidth=1e30)
    rate, peak = steady_rate(p, g, cache_tokens, "overlap")
    gpu = bound(p, g, weights, link, cache_tokens * kv, kv, 2e9, 4e9, mfu=0.5)  # of one FLOP a token and second
    integral = (p + g) / sum(p + j + 0.5 for j in range(g))
    computed = [rate / (weights / link), max(peak, cache_tokens), min(0.5, rate / (weights / link)), integral]
    efficiency = float(parallelism_memory_efficiency(p, g)["pme"])
    return computed, [found["total_tokens_per_s"], cache_tokens, gpu["total_tokens_per_s"], efficiency], {"prompt_length": p, "generation_length": g, "cache": cache_tokens}


def exchanged(p, g, cache_tokens, policy):
    return steady_rate(p, g, cache_tokens, "overlap" if policy == "two_phase" else "two_phase")


@paper.trial(Inequality(search=0), of=[simulate_pipeline], claim=steady_rate, controls={"policies exchanged": exchanged}, quick=30, full=500)
def overlap_pays(draw, rate):
    """Admitting sequences in one phase and decoding them in the next serves fewer tokens a pass than overlapping; neither holds more than the caches."""
    p, g = draw.integer(20, 600), draw.integer(8, 128)
    cache_tokens = draw.integer(50, 1000) * (p + g)
    (slow, slow_peak), (fast, fast_peak) = (rate(p, g, cache_tokens, policy) for policy in ("two_phase", "overlap"))
    return [slow, slow_peak, fast_peak], [fast, cache_tokens, cache_tokens], {"prompt_length": p, "generation_length": g, "cache": cache_tokens}


def without_active_share(p, g, weights, link, kv, active, flops):
    return cache_needed(p, g, weights, link, kv, weights / 2, flops)


@paper.trial(Identity(rtol=1e-9), of=[cache_needed, saturation_tokens, throughput_upper_bound], controls={"all parameters active": without_active_share}, quick=50, full=5000)
def turning_point(draw, needed):
    """With less cache throughput is in proportion to it, with more it is the GPU's; there the tokens of a pass take as long to compute as its weights to arrive."""
    p, g, weights, link = draw.integer(16, 4000), draw.integer(4, 1000), draw.log_uniform(2e10, 1e12), draw.log_uniform(5e9, 1e11)
    kv, active, flops = draw.log_uniform(3e4, 1e6), draw.log_uniform(1e9, 1e10), draw.log_uniform(5e13, 2e15)
    edge = float(needed(p, g, weights, link, kv, active, flops))
    rates = [throughput_upper_bound(p, g, weights, link, factor * edge, kv, active, flops)["total_tokens_per_s"] for factor in (0.5, 1.0, 2.0)]
    computing = 2 * active * float(saturation_tokens(weights, link, active, flops)) / flops
    return [2 * rates[0], rates[1], rates[2], computing], [rates[1], rates[2], flops / (2 * active), weights / link], {"prompt_length": p, "generation_length": g}


@paper.finding(
    """The closed form of the paper's efficiency is not its printed sum: that runs over j = 0..g, one step too many, and is smaller by g/(g+1), 3 percent at g = 32. A
    sequence lives for j = 0..g-1, whose sum makes the efficiency larger than the closed form by (2p+g)/(2p+g-1), half a percent, and a simulated pipeline reaches that.""",
    trial=reached,
)
def closed_form_is_an_integral():
    p, g, cache_tokens = 98, 32, 20_000
    both = {key: float(value) for key, value in parallelism_memory_efficiency(p, g).items()}
    lived = (p + g) / sum(p + j for j in range(g))
    simulated = steady_rate(p, g, cache_tokens, "overlap")[0] / cache_tokens
    holds = abs(both["pme_exact"] / both["pme"] - g / (g + 1)) < 1e-12 and both["pme_exact"] < both["pme"] < simulated < 1.001 * lived
    return {"holds": holds, **both, "lived": lived, "simulated": simulated}
