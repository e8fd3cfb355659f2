"""Convolutional networks on a stream: which hops let a layer keep its old outputs, what a misaligned pooling costs, and how much is saved."""

import math
from itertools import pairwise

import numpy as np

from lawbook.contract import Paper, choice, count, flag, listing, nonnegative, positive, probability, record, vector
from lawbook.trials import Guarantee, Inequality, Rate

paper = Paper(
    __name__,
    title="Don't Think It Twice: Exploit Shift Invariance for Efficient Online Streaming Inference of CNNs",
    arxiv="2408.03223",
    tags=["streaming", "convolution", "pooling", "inference", "time series", "embedded", "shift invariance"],
    source="code",
    says="""A convolutional network that runs on overlapping windows computes nearly everything again. Kept outputs of each layer make a hop cost only its own share. This is exact
    where the hop is a multiple of all pooling strides together and no border is padded with zeros; else pooled values differ by at most what the signal changes within a pooling
    window, which falls with the sampling rate.""",
    notes="""Bounds and costs are derived here and simulated. The authors' script bounds a sum of N unit cosines by its highest frequency, which is coarser. Windows that a pooling
    does not fill drop their tail, in the stream as in the window. The 2 to 3.6 percent deviation that the paper measures on biomedical networks needs their data. Dense heads and
    global pooling are computed anew with each hop and not counted.""",
)

HOP = count("samples", typical=(1, 64), doc="from one window to the next", example=32)
WINDOW = count("samples", typical=(64, 512), example=256)
KERNELS = vector("m", of=count("taps", typical=(1, 12)), doc="length of the kernel in each layer", example=[10, 10, 10, 10, 10])
POOLS = vector("m", of=count("values", typical=(1, 4)), doc="values that a layer pools into one, 1 for none", example=[1, 1, 4, 1, 2])
POINTWISE = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "none": lambda x: x}


def layer_lengths(window, taps, pools):
    """Outputs of each convolution and of the last pooling; none where the window is too short for the stack."""
    lengths, n = [], window
    for k, p in zip(np.asarray(taps).tolist(), np.asarray(pools).tolist(), strict=True):
        lengths.append(n - k + 1)
        n = (n - k + 1) // p
        if n < 1:
            return None
    return [*lengths, n]


DEEP_ENOUGH = {"window must be long enough for the stack of layers": lambda window, kernels, pools: layer_lengths(window, kernels, pools) is not None}


def full_inference(window, kernels, pools, act):
    for kernel, p in zip(kernels, pools, strict=True):
        y = act(np.correlate(window, kernel, "valid"))
        window = y[: len(y) // p * p].reshape(-1, p).max(1)
    return window


def draw_network(rng):
    kernels = [rng.normal(size=int(rng.integers(1, 5))) for _ in range(2)]
    return {"signal": rng.normal(size=60), "kernels": kernels, "pools": rng.integers(1, 4, 2), "window": int(rng.integers(25, 50)), "hop": int(rng.integers(1, 8))}


@paper.algorithm(
    r"y^{(l)}_n = \max_{j < P_l} \sigma\Big(\sum_i w^{(l)}_i y^{(l-1)}_{n P_l + j + i}\Big)",
    requires={
        "pools must be as many as kernels": lambda pools, kernels: len(pools) == len(kernels),
        "window must be at most as long as signal": lambda window, signal: window <= len(signal),
        "window must be long enough for the stack of layers": lambda window, kernels, pools: (
            len(pools) != len(kernels) or layer_lengths(window, [len(k) for k in kernels], pools) is not None
        ),
    },
    sample=draw_network,
)
def streaming_cnn(
    signal: vector("T", example=[0.0, 1.0, 3.0, 2.0, -1.0, 0.5, 2.0, 4.0, 1.0, 0.0, -2.0, 1.0]),
    kernels: listing(vector("k"), least=1, doc="taps of each layer, slid without being flipped", example=[[1.0, -1.0], [0.5, 0.5]]),
    pools: vector("m", of=count("values", typical=(1, 4)), doc="values that a layer pools into one, 1 for none", example=[2, 1]),
    *,
    window: count("samples", typical=(64, 512)) = 8,
    hop: count("samples", typical=(1, 64), doc="from one window to the next") = 2,
    nonlinearity: choice(*POINTWISE) = "relu",
) -> record(
    outputs=listing(vector("L"), doc="of each window, from the stream: the last values after its samples have come"),
    full_outputs=listing(vector("L"), doc="the same from the whole window"),
    max_difference=nonnegative(),
    macs=count("multiply-adds", doc="of the stream, over all windows"),
):
    """A network with max pooling on overlapping windows, once with a buffer in each layer and once in full."""
    x, pools, act = np.asarray(signal, float), np.asarray(pools, int), POINTWISE[nonlinearity]
    kernels = [np.asarray(kernel, float) for kernel in kernels]
    size = layer_lengths(window, [len(kernel) for kernel in kernels], pools)[-1]
    inputs, cells = [np.empty(0)] * len(kernels), [np.empty(0)] * len(kernels)  # what each layer keeps: k - 1 inputs, and values of a pooling not yet full
    stream, macs, streamed, full = np.empty(0), 0, [], []
    for start in range(0, len(x) - window + 1, hop):
        new = x[start + window - hop : start + window] if start else x[:window]
        for layer, (kernel, p) in enumerate(zip(kernels, pools, strict=True)):
            held = np.concatenate([inputs[layer], new])
            fresh = act(np.correlate(held, kernel, "valid")) if len(held) >= len(kernel) else np.empty(0)
            macs += len(fresh) * len(kernel)
            inputs[layer] = held[len(held) - min(len(kernel) - 1, len(held)) :]
            cell = np.concatenate([cells[layer], fresh])
            whole = len(cell) // p * p
            new, cells[layer] = cell[:whole].reshape(-1, p).max(1), cell[whole:]
        stream = np.concatenate([stream, new])[-size:]
        streamed.append(stream)
        full.append(full_inference(x[start : start + window], kernels, pools, act))
    return {"outputs": streamed, "full_outputs": full, "max_difference": float(np.abs(np.array(streamed) - full).max()), "macs": macs}


@paper.bound(
    r"|\Delta| \le (P - 1) \sum_j 2 A_j \sin(\pi f_j / f_s) \le (P - 1)\, 2\pi \sum_j A_j f_j / f_s",
    requires={"frequencies must be at most half the sampling_rate": lambda frequencies, sampling_rate: 2 * np.max(frequencies) <= sampling_rate},
)
def pooling_error_bound(
    pool_size: count("values", typical=(1, 16), example=8),
    sampling_rate: positive("Hz", typical=(64, 1024), example=256.0),
    frequencies: vector("j", of=nonnegative("Hz", typical=(0.1, 20)), example=[1.0, 2.0]),
    amplitudes: vector("j", of=nonnegative(typical=(0, 2)), example=[1.0, 1.0]),
) -> record(slope_bound=nonnegative(doc="from the slope of the continuous signal"), exact_difference_bound=nonnegative(doc="from the largest step between samples")):
    """How far pooled values (maximum or mean) can be off when the pooling grid is misaligned, for a signal that is a sum of cosines."""
    f, a = np.asarray(frequencies, float) / sampling_rate, np.asarray(amplitudes, float)
    return {"slope_bound": float((pool_size - 1) * 2 * math.pi * (a @ f)), "exact_difference_bound": float((pool_size - 1) * 2 * (a @ np.sin(math.pi * f)))}


@paper.bound(
    r"\max_j |\max x_{jP \ldots jP+P-1} - \max x_{jP+r \ldots jP+r+P-1}| \le r \max_n |x_{n+1} - x_n|,\quad r = R \bmod P",
    requires={"signal must be at least as long as a pooling window and its shift": lambda signal, pool_size, hop: len(signal) >= pool_size + hop % pool_size},
    sample=lambda rng: {"signal": rng.normal(size=20), "pool_size": int(rng.integers(1, 8)), "hop": int(rng.integers(1, 30))},
)
def pooling_error_from_signal(
    signal: vector("T", least=2, example=[0.0, 1.0, 3.0, 2.0, -1.0, 0.5, 2.0, 4.0, 1.0]),
    pool_size: count("values", typical=(1, 8), example=4),
    hop: count("samples", typical=(1, 64), example=6),
) -> record(bound=nonnegative(), observed=nonnegative()):
    """The same for a signal at hand: what its largest step allows, and what its pooled values do."""
    x, r = np.asarray(signal, float), hop % pool_size
    cells = (len(x) - r) // pool_size
    pooled = [x[shift : shift + cells * pool_size].reshape(cells, pool_size).max(1) for shift in (0, r)]
    return {"bound": float(r * np.abs(np.diff(x)).max()), "observed": float(np.abs(pooled[0] - pooled[1]).max())}


@paper.law(
    r"\sum_l (n_l - k_l + 1) k_l,\quad \sum_l \min(R_l, n_l - k_l + 1) k_l,\quad n_{l+1} = \lfloor (n_l - k_l + 1)/P_l \rfloor,\ R_{l+1} = \lfloor R_l / P_l \rfloor",
    requires=DEEP_ENOUGH,
    sample=lambda rng: {"window": int(rng.integers(80, 400)), "hop": int(rng.integers(1, 64)), "kernels": rng.integers(1, 10, 4), "pools": rng.integers(1, 3, 4)},
    gives={"speedup": 7.15},
)
def streaming_cost(window: WINDOW, hop: HOP, kernels: KERNELS, pools: POOLS) -> record(
    full_macs=count("multiply-adds"), streaming_macs=count("multiply-adds", low=0), speedup=positive(infinite=True, doc="infinite where a hop reaches no layer")
):
    """Multiply-adds of a hop with one channel, in full and from the stream."""
    lengths, full, streamed = layer_lengths(window, kernels, pools), 0, 0
    for n, k, p in zip(lengths[:-1], np.asarray(kernels).tolist(), np.asarray(pools).tolist(), strict=True):
        full, streamed, hop = full + n * k, streamed + min(hop, n) * k, hop // p
    return {"full_macs": full, "streaming_macs": streamed, "speedup": full / streamed if streamed else math.inf}


@paper.measure(r"s = \prod_l P_l,\quad s \mid R", gives={"exact": True, "stride": 8, "nearest_hop": 32})
def aligned_hop(pools: POOLS, hop: HOP) -> record(exact=flag(), stride=count("samples"), nearest_hop=count("samples", doc="of equally near ones the longer")):
    """Whether a hop keeps all poolings aligned, and the nearest that does."""
    stride = math.prod(np.asarray(pools).tolist())
    return {"exact": hop % stride == 0, "stride": stride, "nearest_hop": max((2 * hop + stride) // (2 * stride), 1) * stride}


@paper.measure(r"\min(1, a_l / n_l),\quad a_l = \lceil a_{l-1} / P_{l-1} \rceil + k_l - 1")
def padding_reach(
    lengths: vector("m", of=count("values", typical=(10, 300)), doc="outputs of each convolution, before pooling", example=[256, 256, 256, 64, 64]),
    kernels: KERNELS,
    pools: POOLS,
) -> vector("m", of=probability()):
    """Share of each layer's outputs that see zeros padded at one side: it grows with depth."""
    reached, shares, before = 0, [], 1
    for n, k, p in zip(lengths, kernels, pools, strict=True):
        reached = -(-reached // before) + k - 1
        shares.append(min(1.0, reached / n))
        before = p
    return np.array(shares)


def stitched_after_zero_padding(signal, kernels, pools, *, window, hop):
    """Maps of zero-padded windows, each the shifted map before it with its own last values."""
    maps = []
    for start in range(0, len(signal) - window + 1, hop):
        x = signal[start : start + window]
        for kernel, p in zip(kernels, pools, strict=True):
            y = np.maximum(np.convolve(x, kernel[::-1], "full")[len(kernel) // 2 :][: len(x)], 0)
            x = y[: len(y) // p * p].reshape(-1, p).max(1)
        maps.append(x)
    j = max(hop // math.prod(pools), 1)
    streamed = [np.concatenate([a[j:], b[-j:]]) for a, b in pairwise(maps)]
    return {"outputs": streamed, "full_outputs": maps[1:], "max_difference": float(np.abs(np.array(streamed) - maps[1:]).max()), "macs": 0}


def hop_of_one(signal, kernels, pools, *, window, hop):
    return streaming_cnn(signal, kernels, [4, *pools[1:]], window=window, hop=1)


@paper.trial(
    Guarantee(),
    of=[streaming_cnn, streaming_cost, aligned_hop, padding_reach],
    controls={"zero padding": stitched_after_zero_padding, "hop of 1 with a pooling of 4": hop_of_one},
    quick=20,
    full=1000,
)
def aligned_hops_are_exact(draw, stream):
    """Random networks stream without error at the nearest aligned hop, in as many multiply-adds as the law says; zeros of a padded window reach as far as the law says."""
    layers = draw.integer(1, 4)
    kernels, pools = [draw.rng.normal(size=draw.integer(3, 10)) for _ in range(layers)], [draw.integer(1, 4) for _ in range(layers)]
    taps, stride = [len(kernel) for kernel in kernels], math.prod(pools)
    hop = aligned_hop(pools, draw.integer(1, 2 * stride))["nearest_hop"]
    window = 300 + draw.integer(stride * 9, stride * 12)
    signal = draw.rng.normal(size=window + 5 * hop)
    found = stream(signal, kernels, pools, window=window, hop=hop)
    cost = streaming_cost(window, hop, taps, pools)
    counted = abs(found["macs"] - cost["full_macs"] - 5 * cost["streaming_macs"]) if stream is streaming_cnn else 0
    # outputs that see zeros padded on the left are those that differ once the padding is not a number
    reach, x, lengths = [], np.append(np.zeros(1), np.ones(window - 1)) * 0.0, []
    for kernel, p in zip(kernels, pools, strict=True):
        x = np.correlate(np.concatenate([np.full(len(kernel) - 1, np.nan), x]), np.abs(kernel), "valid")
        reach.append(np.mean(np.isnan(x)))
        lengths.append(len(x))
        cells = np.concatenate([x, np.zeros(-len(x) % p)]).reshape(-1, p)
        x = cells.max(1)
    off = np.abs(padding_reach(lengths, taps, pools) - reach).max()
    return [found["max_difference"], counted, off], [1e-12, 0, 1e-12], {"taps": taps, "pools": pools, "hop": hop}


def shift_less_one(signal, pool_size, hop):
    found = pooling_error_from_signal(signal, pool_size, hop)
    return found | {"bound": found["bound"] * (1 - 1 / max(hop % pool_size, 2))}


def peak_to_rate(pool_size, sampling_rate, frequencies, amplitudes):
    return pooling_error_bound(pool_size, 2 * math.pi * sampling_rate, frequencies, amplitudes)


@paper.trial(
    Inequality(rtol=1e-9, atol=1e-12, search=200, reaches=0.99),
    of=[pooling_error_from_signal, pooling_error_bound],
    claim=(pooling_error_from_signal, pooling_error_bound),
    controls={"one sample less": (shift_less_one, pooling_error_bound), "2 pi forgotten": (pooling_error_from_signal, peak_to_rate)},
    quick=60,
    full=3000,
)
def misaligned_pooling(draw, claim):
    """Sums of cosines stay within all bounds, in this order, mean pooling too; a ramp reaches the first."""
    from_signal, from_spectrum = claim
    p, rate, terms = draw.integer(2, 16), draw.log_uniform(64, 1024), draw.integer(1, 5)
    f, a, phase, hop = draw.uniform(0, rate / 20, size=terms), draw.uniform(0.1, 1, size=terms), draw.uniform(0, 2 * math.pi, size=terms), draw.integer(1, 64)
    x = np.cos(2 * math.pi * np.arange(600)[:, None] * f / rate + phase) @ a
    told, spectral, r = from_signal(x, p, hop), from_spectrum(p, rate, f, a), hop % p
    cells = (600 - r) // p
    means = np.abs(np.diff([x[shift : shift + cells * p].reshape(cells, p).mean(1) for shift in (0, r)], axis=0)).max()
    ramp = from_signal(np.arange(50) * draw.uniform(0.1, 2) if draw.integer(0, 3) == 0 else x, p, hop)
    smaller = [told["observed"], means, ramp["observed"], told["observed"], r / (p - 1) * spectral["exact_difference_bound"], spectral["exact_difference_bound"]]
    larger = [told["bound"], told["bound"], ramp["bound"], spectral["exact_difference_bound"], spectral["exact_difference_bound"], spectral["slope_bound"]]
    return [*smaller, told["bound"]], [*larger, spectral["exact_difference_bound"]], {"pool": p, "hop": hop, "rate": rate}


def not_resampled(rate):
    return 1024.0


@paper.trial(Rate(within=0.05), of=[pooling_error_from_signal], claim=float, controls={"the signal sampled at one rate": not_resampled}, quick=16, full=60)
def falls_with_sampling_rate(draw, sampled_at):
    """The largest error of a misaligned pooling falls as 1 / f_s."""
    f, phase, rates = draw.uniform(1, 3, size=3), draw.uniform(0, 2 * math.pi, size=3), np.array([512, 1024, 2048, 4096])
    errors = [pooling_error_from_signal(np.cos(2 * math.pi * np.arange(int(4 * rate))[:, None] * f / sampled_at(rate) + phase).sum(1), 8, 4)["observed"] for rate in rates]
    scale = f.sum()  # so that signals of different speed lie on one line
    return rates, np.array(errors) / scale, -1.0


def all_of_norm_one(perturbation, kernels):
    return perturbation


def gain_of_layers(perturbation, kernels):
    return perturbation * math.prod(float(np.abs(kernel).sum()) for kernel in kernels)


@paper.trial(
    Inequality(rtol=1e-9, atol=1e-12, search=100), of=[streaming_cnn], claim=gain_of_layers, controls={"kernels taken to have norm 1": all_of_norm_one}, quick=40, full=1000
)
def perturbation_through_layers(draw, gain):
    """A perturbation of the signal leaves the network at most as much larger as the 1-norms of its kernels multiply to; pointwise functions and max pooling add nothing."""
    kernels, pools, e = [draw.normal(size=draw.integer(1, 6)) for _ in range(3)], [draw.integer(1, 3) for _ in range(3)], draw.log_uniform(1e-3, 1)
    signal, noise = draw.rng.normal(size=120), e * draw.uniform(-1, 1, size=120)
    options = {"window": 120, "hop": 1, "nonlinearity": draw.choice(["relu", "tanh", "none"])}
    plain, perturbed = (streaming_cnn(x, kernels, pools, **options)["outputs"][0] for x in (signal, signal + noise))
    return np.abs(plain - perturbed).max(), gain(np.abs(noise).max(), kernels), {"pools": pools}
