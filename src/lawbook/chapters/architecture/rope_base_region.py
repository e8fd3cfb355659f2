"""RoPE as a bank of oscillators: how large its base must be, and how large it may be, for a context length."""

import math

import numpy as np

from lawbook.contract import Paper, choice, count, flag, positive, probability, real, record, table, text
from lawbook.numerics import arrays
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="Rotary Positional Embeddings as Phase Modulation: Theoretical Bounds on the RoPE Base for Long-Context Transformers",
    arxiv="2602.10959",
    tags=["rope", "position", "long context", "context length", "transformer", "floating point"],
    source="derived",
    says="""RoPE turns pair i of the rotated dimensions by base^(-2i/d) a token; the slowest pair carries long-range position. The base must be large enough
    that the slowest phase does not wrap over the context (aliasing), stays near its start (stability) and does so through every layer (depth), and small enough
    that one step of the slowest phase is still representable (precision). The bounds enclose a region of bases, which closes near a million tokens in fp32.""",
    notes="""The abstract was seen, not the paper's own constants: tolerance, kind and compounding are therefore arguments. Formulas are the exact ones,
    with the exponent d/(d-2), which users of the paper shorten to base < 1/eps.""",
)

FP32 = 2.0**-23
LOWER = ("wrap", "nyquist", "dc", "depth")
# (name, rotated head_dim, layers, base, context length, scale of the slowest channel): public model configurations
MODELS = (
    ("LLaMA-1 7B", 128, 32, 1e4, 2048, 1),
    ("LLaMA-1 65B", 128, 80, 1e4, 2048, 1),
    ("Llama-2 7B", 128, 32, 1e4, 4096, 1),
    ("Llama-2 70B", 128, 80, 1e4, 4096, 1),
    ("Code Llama 7B", 128, 32, 1e6, 16384, 1),
    ("Llama-3 8B", 128, 32, 5e5, 8192, 1),
    ("Llama-3.1 8B", 128, 32, 5e5, 131072, 8),
    ("Llama-3.1 405B", 128, 126, 5e5, 131072, 8),
    ("Llama-3.2 1B", 64, 16, 5e5, 131072, 32),
    ("Mistral 7B v0.1", 128, 32, 1e4, 32768, 1),
    ("Mistral 7B v0.2", 128, 32, 1e6, 32768, 1),
    ("Mixtral 8x22B", 128, 56, 1e6, 65536, 1),
    ("Mistral Nemo 12B", 128, 40, 1e6, 131072, 1),
    ("DeepSeek LLM 67B", 128, 95, 1e4, 4096, 1),
    ("DeepSeek-Coder 6.7B", 128, 32, 1e5, 16384, 4),
    ("DeepSeek-V3", 64, 61, 1e4, 163840, 40),
    ("Qwen-7B", 128, 32, 1e4, 8192, 1),
    ("Qwen2.5-7B", 128, 28, 1e6, 32768, 1),
    ("Qwen2.5-7B-Instruct-1M", 128, 28, 1e7, 1010000, 1),
    ("Qwen3-8B", 128, 36, 1e6, 40960, 1),
    ("Gemma-7B", 256, 28, 1e4, 8192, 1),
    ("Phi-3-mini-4k", 96, 32, 1e4, 4096, 1),
    ("Yi-34B-200K", 128, 60, 5e6, 200000, 1),
    ("GPT-NeoX-20B", 24, 44, 1e4, 2048, 1),
    ("GPT-J-6B", 64, 28, 1e4, 2048, 1),
    ("Command R", 128, 40, 8e6, 131072, 1),
    ("Command R+", 128, 64, 7.5e7, 131072, 1),
)

BASE = positive(low=1, typical=(1e3, 1e8), doc="RoPE base (rope_theta)", example=5e5)
HEAD_DIM = count("dimensions", low=4, typical=(16, 256), doc="rotated dimensions of a head, even", example=128)
CONTEXT = count("tokens", typical=(512, 2_000_000), doc="longest distance that must be told apart", example=131072)
LAYERS = count("layers", typical=(1, 128), example=32)
SCALE = positive(low=1, above=False, typical=(1, 40), doc="factor by which interpolation (linear, YaRN, llama3) slows the slowest pair")
TOLERANCE = positive(high=2, typical=(0.01, 0.9), doc="loss of the slowest cosine that is tolerated", example=0.1)
EPSILON = positive(high=0.5, typical=(2**-24, 2**-7), doc="machine epsilon of the stored angle: 2^-23 in fp32, 2^-10 in fp16, 2^-7 in bf16")
COMPOUNDING = choice("product", "sum", doc="how layers compound: cos(Phi)^N (product) or N Phi in phase (sum)")
EVEN = {"head_dim must be even: dimensions are rotated in pairs": lambda head_dim: head_dim % 2 == 0}


def largest_phase(kind, tolerance=0.1, layers=1, compounding="product"):
    """phi_max: the largest slowest phase over the context that a lower bound allows, in rad."""
    xp, e, n = arrays(tolerance, layers)
    if kind in ("wrap", "nyquist"):
        return xp.asarray(2 * math.pi if kind == "wrap" else math.pi)
    # arccos(1 - y) = 2 arcsin(sqrt(y / 2)) keeps its digits for small y
    if kind == "depth" and compounding == "product":
        return 2 * xp.asin(xp.sqrt(-xp.expm1(xp.log1p(-e) / n) / 2))
    return 2 * xp.asin(xp.sqrt(e / 2)) / (n if kind == "depth" else 1)


@paper.law(r"\Phi = L\, b^{-(d-2)/d} / s", requires=EVEN, closed_form=True, gives=0.3218)
def slowest_phase(base: BASE, head_dim: HEAD_DIM, context_length: CONTEXT, *, scale: SCALE = 1.0) -> positive("rad"):
    """Phase that the slowest rotated pair runs through over the context."""
    _, b, d, length, s = arrays(base, head_dim, context_length, scale)
    return length * b ** (-(d - 2) / d) / s


@paper.bound(
    r"b \ge \left(\frac{L}{s\,\varphi_{\max}}\right)^{d/(d-2)},\quad \varphi_{\max} \in \{2\pi,\ \pi,\ \arccos(1-e),\ \arccos((1-e)^{1/N})\}",
    assumes=["Depth compounding is a model: RoPE rotates fresh queries and keys in each layer."],
    requires={
        **EVEN,
        "a product over layers needs a tolerance below 1": lambda kind, compounding, tolerance: kind != "depth" or compounding == "sum" or tolerance < 1,
    },
    closed_form=True,
)
def base_lower(
    context_length: CONTEXT,
    head_dim: HEAD_DIM,
    *,
    kind: choice(*LOWER, doc="what must not happen: the phase wraps, its cosine turns, drifts by the tolerance, or does so over all layers") = "depth",
    tolerance: TOLERANCE = 0.1,
    layers: LAYERS = 1,
    compounding: COMPOUNDING = "product",
    scale: SCALE = 1.0,
) -> positive():
    """Smallest base that keeps the slowest phase within what `kind` allows."""
    _, length, d, s, e, n = arrays(context_length, head_dim, scale, tolerance, layers)
    return (length / (s * largest_phase(kind, e, n, compounding))) ** (d / (d - 2))


@paper.bound(r"b \le \epsilon^{-d/(d-2)}", requires=EVEN, closed_form=True)
def base_upper(head_dim: HEAD_DIM, *, machine_epsilon: EPSILON = FP32) -> positive():
    """Largest base at which one step of the slowest phase is still at least the machine epsilon."""
    _, d, eps = arrays(head_dim, machine_epsilon)
    return eps ** (-d / (d - 2))


@paper.bound(
    r"L^* = \varphi_{\max}(N, e) / \epsilon",
    requires={"a product over layers needs a tolerance below 1": lambda compounding, tolerance: compounding == "sum" or tolerance < 1},
    closed_form=True,
)
def context_wall(layers: LAYERS, tolerance: TOLERANCE, *, machine_epsilon: EPSILON = FP32, compounding: COMPOUNDING = "product") -> positive("tokens"):
    """Context length beyond which no base satisfies depth and precision at once; head_dim cancels."""
    _, n, e, eps = arrays(layers, tolerance, machine_epsilon)
    return largest_phase("depth", e, n, compounding) / eps


@paper.measure(
    r"\max(\text{lower bounds}) \le b \le (s\epsilon)^{-d/(d-2)}",
    requires={**EVEN, "a product over layers needs a tolerance below 1": lambda compounding, tolerance: compounding == "sum" or tolerance < 1},
)
def feasibility(
    base: BASE,
    head_dim: HEAD_DIM,
    context_length: CONTEXT,
    layers: LAYERS,
    *,
    tolerance: TOLERANCE = 0.1,
    machine_epsilon: EPSILON = FP32,
    scale: SCALE = 1.0,
    compounding: COMPOUNDING = "product",
) -> record(
    slowest_phase=positive("rad"),
    cos_slowest=real(low=-1, high=1),
    depth_gain=probability(doc="cos(Phi)^N where the cosine is positive"),
    lower=record(wrap=positive(), nyquist=positive(), dc=positive(), depth=positive()),
    upper=positive(),
    wrap_ok=flag(),
    nyquist_ok=flag(),
    dc_ok=flag(),
    depth_ok=flag(),
    precision_ok=flag(),
    feasible=flag(),
    binding=choice(*LOWER, "precision", "none", doc="the weakest demand that fails"),
    max_context=positive("tokens", doc="context length at which the depth bound meets this base"),
):
    """Where a base stands between its bounds, and the first demand that it fails."""
    phase = float(slowest_phase(base, head_dim, context_length, scale=scale))
    options = {"tolerance": tolerance, "layers": layers, "compounding": compounding, "scale": scale}
    lower = {kind: float(base_lower(context_length, head_dim, kind=kind, **options)) for kind in LOWER}
    upper = float(base_upper(head_dim, machine_epsilon=scale * machine_epsilon))  # interpolation slows the step that must be representable
    ok = {kind: base >= lower[kind] for kind in LOWER} | {"precision": base <= upper}
    cosine = math.cos(phase)
    return {
        "slowest_phase": phase,
        "cos_slowest": cosine,
        "depth_gain": cosine**layers if cosine > 0 else 0.0,
        "lower": lower,
        "upper": upper,
        **{f"{kind}_ok": value for kind, value in ok.items()},
        "feasible": all(ok.values()),
        "binding": next((kind for kind, value in ok.items() if not value), "none"),
        "max_context": context_length * float(largest_phase("depth", tolerance, layers, compounding)) / phase,
    }


@paper.measure(r"\text{feasibility of released models}")
def released_models(*, tolerance: positive(high=1, below=True, typical=(0.01, 0.9)) = 0.1) -> table(
    model=text(), base=positive(), context_length=count("tokens"), slowest_phase=positive("rad"), lower=positive(), upper=positive(), feasible=flag(), binding=text()
):
    """The region of each released model in our table of public configurations, at its native context; `lower` is the depth bound."""
    rows = [(name, base, context, feasibility(base, d, context, n, tolerance=tolerance, scale=s)) for name, d, n, base, context, s in MODELS]
    return {
        "model": [name for name, *_ in rows],
        "base": np.array([base for _, base, *_ in rows]),
        "context_length": np.array([context for _, _, context, _ in rows]),
        "slowest_phase": np.array([r["slowest_phase"] for *_, r in rows]),
        "lower": np.array([r["lower"]["depth"] for *_, r in rows]),
        "upper": np.array([r["upper"] for *_, r in rows]),
        "feasible": np.array([r["feasible"] for *_, r in rows]),
        "binding": [r["binding"] for *_, r in rows],
    }


@paper.measure(r"\Pr_m[\text{stored } (\cos, \sin)(m\theta) = (\cos, \sin)((m+1)\theta)]", requires=EVEN)
def erased_fraction(
    base: BASE,
    head_dim: HEAD_DIM,
    context_length: count("tokens", typical=(64, 4096), high=10_000_000, example=20000),
    *,
    dtype: choice("float32", "float16") = "float32",
    mode: choice("register", "product", doc="the phase is added up in a register of order 1, or computed as m theta at each position") = "product",
) -> probability():
    """Share of neighbouring positions that the slowest pair cannot tell apart, simulated in the given floating-point type."""
    kind = np.dtype(dtype).type
    theta = kind(base ** (-(head_dim - 2) / head_dim))
    if mode == "product":
        phase = np.arange(context_length + 1).astype(dtype) * theta
    else:
        phase = np.cumsum(np.concatenate([[kind(1)], np.full(context_length, theta, dtype)]), dtype=dtype)
    stored = np.stack([np.cos(phase), np.sin(phase)])
    return float(np.mean((stored[:, 1:] == stored[:, :-1]).all(0)))


def without_exponent(context_length, head_dim, *, tolerance, layers, scale, **_):
    return context_length / (scale * largest_phase("depth", tolerance, layers))


def power_outside(context_length, head_dim, *, tolerance, layers, scale, **_):
    return (context_length / (scale * math.acos(1 - tolerance / layers) ** (1 / layers))) ** (head_dim / (head_dim - 2))


@paper.trial(Identity(rtol=1e-9), of=[base_lower, slowest_phase], controls={"no exponent d/(d-2)": without_exponent, "1/N outside arccos": power_outside}, quick=200, full=20_000)
def bisection(draw, claim):
    """The depth bound is where cos(Phi)^N crosses 1-e, found by bisecting the raw condition."""
    length, d, n = draw.log_uniform(64, 1e6), 2 * draw.integer(8, 128), draw.integer(1, 128)
    e, s = draw.uniform(0.01, 0.9), draw.choice([1.0, 4.0, 32.0])

    def log_gain(log_base):
        phase = length * math.exp(-log_base * (d - 2) / d) / s
        return n * math.log(math.cos(phase)) - math.log1p(-e) if phase < math.pi / 2 else -math.inf

    low, high = 0.0, 100.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if log_gain(middle) >= 0 else (middle, high)
    found = claim(length, d, kind="depth", tolerance=e, layers=n, scale=s, compounding="product")
    return math.exp(high), found, {"context_length": length, "head_dim": d, "layers": n, "tolerance": e, "scale": s}


def shuffled_kinds(context_length, head_dim, *, kind, **options):
    return base_lower(context_length, head_dim, kind={"wrap": "depth", "depth": "wrap"}.get(kind, kind), **options)


@paper.trial(Inequality(), of=[base_lower], controls={"wrap and depth exchanged": shuffled_kinds}, quick=200, full=20_000)
def ordered(draw, claim):
    """wrap <= nyquist <= dc <= depth, and the depth bound grows with layers and context."""
    length, d, n, e = draw.log_uniform(64, 1e6), 2 * draw.integer(8, 128), draw.integer(1, 127), draw.uniform(0.01, 0.99)
    bounds = [claim(length, d, kind=kind, tolerance=e, layers=n) for kind in LOWER]
    grown = [claim(length, d, tolerance=e, layers=n + 1, kind="depth"), claim(1.01 * length, d, tolerance=e, layers=n, kind="depth")]
    return np.array([*bounds[:3], bounds[3], bounds[3]]), np.array([*bounds[1:], *grown]), {"bounds": bounds}


def doubled_epsilon(head_dim, *, machine_epsilon):
    return base_upper(head_dim, machine_epsilon=2 * machine_epsilon)


@paper.trial(Identity(), of=[base_upper, erased_fraction, context_wall, feasibility, released_models], controls={"epsilon doubled": doubled_epsilon}, quick=20, full=200)
def register_erasure(draw, claim):
    """Added up in a register of order 1, steps vanish exactly when theta_min drops below eps/2; there a region of any head_dim closes at the context wall."""
    d = 2 * draw.integer(8, 128)
    edge = float(claim(d, machine_epsilon=FP32 / 2))  # base at which theta_min = eps/2
    kept, erased = (erased_fraction(edge * f ** (d / (d - 2)), d, 2000, mode="register") for f in (0.98, 1.02))
    n, e = draw.integer(1, 100), draw.uniform(0.05, 0.9)
    wall = int(context_wall(n, e))
    inside, outside = (feasibility(float(base_upper(d)) * (1 - 1e-12), d, length, n, tolerance=e)["feasible"] for length in (wall - 2, wall + 2))
    listed = released_models(tolerance=e)
    again = [feasibility(base, rows, length, layers, tolerance=e, scale=s)["feasible"] for _, rows, layers, base, length, s in MODELS]
    return [kept, erased, inside, outside, *again], [0.0, 1.0, True, False, *listed["feasible"]], {"head_dim": d, "base": edge}


@paper.finding(
    """The million-token wall depends on the implementation: phases added up in a register vanish beyond theta_min = eps/2, but phases computed as position
    times frequency, as libraries do, keep every position distinct far beyond it."""
)
def wall_depends_on_implementation():
    product, register = (erased_fraction(1e9, 128, 20_000, mode=mode) for mode in ("product", "register"))
    return {"holds": product == 0 and register == 1, "erased_product": product, "erased_register": register, "base": 1e9, "fp32_bound": float(base_upper(128))}


@paper.finding("""The depth bound is not a necessary condition: at tolerance 0.1, models that work at their native length violate it (Llama-2 70B keeps cos^N of 9e-5).""")
def depth_is_not_necessary():
    gains = {name: feasibility(base, d, length, n, scale=s) for name, d, n, base, length, s in MODELS if name in ("LLaMA-1 7B", "Llama-2 70B")}
    return {"holds": not any(r["depth_ok"] for r in gains.values()), **{name: r["depth_gain"] for name, r in gains.items()}}
