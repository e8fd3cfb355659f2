"""Soft mixtures of experts, the layer that lets value-based agents gain from parameters: operator, routing diagnostics and cost."""

import math

import numpy as np

from lawbook.contract import Paper, array, choice, count, flag, matrix, nonnegative, positive, probability, real, record, vector
from lawbook.numerics import arrays
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="Mixtures of Experts Unlock Parameter Scaling for Deep RL",
    arxiv="2402.08609",
    tags=["mixture of experts", "soft moe", "reinforcement learning", "parameter scaling", "routing", "flops"],
    source="known",
    says="""Agents such as DQN and Rainbow get worse when their dense layer is made larger, and better when it is replaced by a soft mixture of experts over the positions of the
    last feature map. Each slot of an expert takes a convex combination of all tokens and each token a convex combination of all slots, so no token is dropped, the layer is
    differentiable throughout, and its cost does not depend on the routing.""",
    notes="""The evidence is training on Atari games, which is not repeated here; what stands here is the operator of Puigcerver et al. with its exact properties. It runs on NumPy,
    JAX and torch arrays. Costs count a multiply-add as two FLOP and leave out softmaxes and activations.""",
)

TOKENS = matrix(
    "n", "d", of=real(typical=(-3, 3)), doc="a token in each row: in reinforcement learning, a position of the feature map", example=[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
)
SLOTS = matrix("d", "m", of=real(typical=(-3, 3)), doc="a slot in each column, those of one expert side by side", example=[[1.0, -1.0], [0.5, 2.0]])


def softmax(xp, z, axis):
    weights = xp.exp(z - xp.max(z, axis=axis, keepdims=True))
    return weights / xp.sum(weights, axis=axis, keepdims=True)


def unit(xp, x, axis):
    """Vectors along an axis at length one; zero stays zero."""
    square = xp.sum(x * x, axis=axis, keepdims=True)
    return xp.where(square > 0, x / xp.sqrt(xp.where(square > 0, square, 1.0)), x)


def sample_layer(rng):
    n, d, experts, p, k = (int(v) for v in rng.integers(1, 5, size=5))
    given = {"tokens": rng.normal(size=(n, d)), "slots": rng.normal(size=(d, experts * p)), "normalize": bool(rng.integers(2)), "scale": float(rng.uniform(0.1, 5))}
    return given | ({"expert_matrices": rng.normal(size=(experts, d, k))} if rng.integers(2) else {})


@paper.algorithm(
    r"Z = s X \Phi,\quad D = \mathrm{softmax}_\text{tokens} Z,\quad C = \mathrm{softmax}_\text{slots} Z,\quad Y = C\, f(D^\top X)",
    requires={"slots must be a multiple of the experts": lambda slots, expert_matrices: expert_matrices is None or np.shape(slots)[1] % len(expert_matrices) == 0},
    sample=sample_layer,
)
def soft_moe(
    tokens: TOKENS,
    slots: SLOTS,
    *,
    expert_matrices: array("E", "d", "k", of=real(typical=(-3, 3)), doc="linear experts, each for its share of the slots; the identity by default") = None,
    normalize: flag(doc="lengths of tokens and slots are taken out of the logits") = False,
    scale: positive(typical=(0.1, 10), doc="factor of the logits, learned where they are normalised") = 1.0,
) -> record(
    output=matrix("n", "k", of=real()),
    dispatch=matrix("n", "m", of=probability(), doc="D: share of each token in each slot; columns sum to 1"),
    combine=matrix("n", "m", of=probability(), doc="C: share of each slot in each token's output; rows sum to 1"),
):
    """Output and routing of a soft mixture of experts."""
    xp, x, phi, experts, s = arrays(tokens, slots, expert_matrices, scale)
    z = s * (unit(xp, x, 1) @ unit(xp, phi, 0) if normalize else x @ phi)
    dispatch, combine = softmax(xp, z, 0), softmax(xp, z, 1)
    inputs = dispatch.T @ x
    if experts is not None:
        inputs = xp.reshape(xp.reshape(inputs, (len(experts), -1, x.shape[1])) @ experts, (phi.shape[1], -1))
    return {"output": combine @ inputs, "dispatch": dispatch, "combine": combine}


@paper.measure(
    r"\text{load}_e = \frac1n \sum_i \sum_{s \in e} C_{is},\quad H_s = -\sum_i D_{is} \ln D_{is},\quad \text{coverage}_i = \sum_s D_{is},\quad e^{H(\text{load})}",
    requires={
        "dispatch must have columns that sum to 1": lambda dispatch: np.allclose(np.sum(dispatch, 0), 1, atol=1e-6),
        "combine must have rows that sum to 1": lambda combine: np.allclose(np.sum(combine, 1), 1, atol=1e-6),
        "experts must divide the number of slots": lambda experts, dispatch: np.shape(dispatch)[1] % experts == 0,
    },
    sample=lambda rng: {
        "dispatch": rng.dirichlet(np.ones(n := int(rng.integers(1, 5))), size=(m := int(rng.integers(1, 4)) * (e := int(rng.integers(1, 4))))).T,
        "combine": rng.dirichlet(np.ones(m), size=n),
        "experts": e,
    },
)
def routing_stats(
    dispatch: matrix("n", "m", of=probability(), doc="share of each token in each slot", example=[[0.5, 0.2], [0.5, 0.8]]),
    combine: matrix("n", "m", of=probability(), doc="share of each slot in each token's output", example=[[0.9, 0.1], [0.7, 0.3]]),
    *,
    experts: count("experts", typical=(1, 8), example=2),
) -> record(
    expert_load=vector("E", of=probability(), doc="share of the outputs that each expert makes up"),
    slot_entropy=vector("m", of=nonnegative("nats"), doc="how many tokens a slot mixes, as a logarithm"),
    token_coverage=vector("n", of=nonnegative(), doc="slots that a token fills; no token is dropped where none is 0"),
    effective_experts=positive(),
):
    """How evenly a soft mixture uses its experts and its tokens."""
    from scipy.special import entr

    load = np.mean(np.reshape(combine, (len(combine), experts, -1)).sum(2), axis=0)
    return {
        "expert_load": np.clip(load, 0, 1),
        "slot_entropy": entr(dispatch).sum(0),
        "token_coverage": np.sum(dispatch, 1),
        "effective_experts": float(np.exp(entr(load).sum())),
    }


@paper.law(
    r"P_\text{soft} = d m + 2 E d h,\ F_\text{soft} = 6 n m d + 4 m d h,\quad P_\text{top} = d E + 2 E d h,\ F_\text{top} = 2 n d E + 4 n k d h,\quad m = E p",
    requires={"k must be at most the experts": lambda k, experts, kind: kind == "soft" or k <= experts},
    gives={"params": 4160, "flops": 12032},
)
def moe_flops(
    tokens: count("tokens", typical=(1, 1e4), doc="n", example=10),
    width: count("dimensions", typical=(16, 4096), doc="d", example=16),
    hidden: count("dimensions", typical=(16, 16384), doc="h of the two-layer experts", example=32),
    experts: count("experts", typical=(1, 64), doc="E", example=4),
    slots: count("slots", typical=(1, 64), doc="p: slots of each expert", example=1),
    *,
    kind: choice("soft", "topk") = "soft",
    k: count("experts", typical=(1, 4), doc="experts that each token is sent to (topk)") = 1,
) -> record(params=count("params"), flops=count("FLOP", doc="of one forward pass")):
    """Parameters and forward cost of a mixture of two-layer experts without biases, with soft or top-k routing."""
    d, m = width, experts * slots
    if kind == "soft":
        return {"params": d * m + 2 * experts * d * hidden, "flops": 6 * tokens * m * d + 4 * m * d * hidden}
    return {"params": d * experts + 2 * experts * d * hidden, "flops": 2 * tokens * d * experts + 4 * tokens * k * d * hidden}


def axes_exchanged(tokens, slots, **options):
    found = soft_moe(tokens, slots, **options)
    dispatch, combine = found["combine"], found["dispatch"]
    return {"output": combine @ (dispatch.T @ tokens), "dispatch": dispatch, "combine": combine}


def reversed_experts(tokens, slots, **options):
    experts = options.get("expert_matrices")
    return soft_moe(tokens, slots, **options | {"expert_matrices": None if experts is None else experts[::-1]})


@paper.trial(
    Identity(rtol=1e-10, atol=1e-11), of=[soft_moe, routing_stats], controls={"softmax axes exchanged": axes_exchanged, "experts in reverse": reversed_experts}, quick=20, full=1000
)
def operator(draw, claim):
    """Sums of routing weights, outputs slot by slot, permuted tokens, one slot as attention pooling, and the diagnostics of it all, against SciPy's softmax and loops."""
    from scipy.special import softmax as reference
    from scipy.stats import entropy

    n, d, experts, p, k = (draw.integer(2, 5) for _ in range(5))
    x, phi, weights = draw.rng.normal(size=(n, d)), draw.rng.normal(size=(d, experts * p)), draw.rng.normal(size=(experts, d, k))
    found = claim(x, phi, expert_matrices=weights, scale=2.0)
    slot_outputs = [reference(2 * x @ phi[:, s]) @ x @ weights[s // p] for s in range(experts * p)]
    by_token = np.array([reference(2 * row @ phi) @ slot_outputs for row in x])
    order = draw.rng.permutation(n)
    permuted = claim(x[order], phi, expert_matrices=weights, scale=2.0)["output"]
    pooled = claim(x, phi[:, :1], normalize=True)["output"]
    directions = x / np.linalg.norm(x, axis=1, keepdims=True)
    attention = np.tile(reference(directions @ phi[:, 0] / np.linalg.norm(phi[:, 0])) @ x, (n, 1))
    stats = routing_stats(found["dispatch"], found["combine"], experts=experts)
    load = [found["combine"][:, e * p : (e + 1) * p].sum() / n for e in range(experts)]
    sides = [
        (found["dispatch"].sum(0), np.ones(experts * p)),
        (found["combine"].sum(1), np.ones(n)),
        (found["output"], by_token),
        (permuted, by_token[order]),
        (pooled, attention),
        (stats["expert_load"], np.array(load)),
        (stats["slot_entropy"], entropy(found["dispatch"])),
        ([stats["effective_experts"], stats["token_coverage"].sum()], [math.exp(entropy(load)), experts * p]),
    ]
    return np.concatenate([np.ravel(a) for a, _ in sides]), np.concatenate([np.ravel(b) for _, b in sides]), {"tokens": n, "experts": experts}


@paper.trial(Inequality(search=0), of=[soft_moe, routing_stats], controls={"softmax axes exchanged": axes_exchanged}, quick=50, full=2000)
def convex_combinations(draw, claim):
    """With identity experts every slot and every output lies within the range of the tokens, and every token reaches a slot and no more than all of them."""
    n, d, m = draw.integer(2, 8), draw.integer(1, 5), draw.integer(1, 6)
    x, phi = draw.rng.normal(size=(n, d)), draw.log_uniform(0.1, 10) * draw.rng.normal(size=(d, m))
    found = claim(x, phi)
    coverage = routing_stats(found["dispatch"], found["combine"], experts=1)["token_coverage"]
    inside = np.concatenate([found["output"], found["dispatch"].T @ x])
    low, high = np.broadcast_to(x.min(0), inside.shape), np.broadcast_to(x.max(0), inside.shape)
    slack = 1e-12
    left = [low.ravel() - slack, inside.ravel(), np.zeros(n), coverage]
    return np.concatenate(left), np.concatenate([inside.ravel(), high.ravel() + slack, coverage, np.full(n, m + slack)]), {"tokens": n, "slots": m}


def detached_routing(tokens, slots, *, expert_matrices):
    """Routing weights held constant in the derivative, as in hard top-k routing."""
    from jax import lax

    found = soft_moe(lax.stop_gradient(tokens), slots, expert_matrices=expert_matrices)
    inputs = lax.stop_gradient(found["dispatch"]).T @ tokens
    outputs = (inputs.reshape(len(expert_matrices), -1, tokens.shape[1]) @ expert_matrices).reshape(slots.shape[1], -1)
    return {"output": lax.stop_gradient(found["combine"]) @ outputs}


@paper.trial(Identity(rtol=2e-3, atol=2e-4), of=[soft_moe], controls={"routing held constant": detached_routing}, quick=1, full=10)
def gradient(draw, claim):
    """JAX's derivative of a projection of the output by the tokens, the routing included, is that of central differences, to single precision."""
    import jax

    n, d, experts, p = 4, 3, 2, 2
    x, phi = draw.rng.normal(size=(n, d)), draw.rng.normal(size=(d, experts * p))
    weights, onto = draw.rng.normal(size=(experts, d, d)), draw.rng.normal(size=(n, d))
    slope = jax.jit(jax.grad(lambda tokens: (claim(tokens, phi, expert_matrices=weights)["output"] * onto).sum()))(x)
    differences = np.empty((n, d))
    for at in np.ndindex(n, d):
        step = np.zeros((n, d))
        step[at] = 1e-5
        ends = [(soft_moe(x + sign * step, phi, expert_matrices=weights)["output"] * onto).sum() for sign in (1, -1)]
        differences[at] = (ends[0] - ends[1]) / 2e-5
    return differences, np.asarray(slope, float)


def without_combination(tokens, width, hidden, experts, slots, *, kind, k):
    found = moe_flops(tokens, width, hidden, experts, slots, kind=kind, k=k)
    return found | {"flops": found["flops"] - (2 * tokens * experts * slots * width if kind == "soft" else 2 * tokens * width * experts)}


@paper.trial(Identity(), of=[moe_flops], controls={"gathering of outputs or routing left out": without_combination}, quick=20, full=500)
def counted_products(draw, claim):
    """Parameters and cost are those of the matrices of a layer and of the products in which it uses them."""
    n, d, h, experts, p = (draw.integer(1, 40) for _ in range(5))
    k = draw.integer(1, experts)
    expert = (np.empty((d, h)), np.empty((h, d)))

    def cost(rows, *chain):
        return sum(2 * rows * w.size for w in chain)

    slots = np.empty((d, experts * p))
    soft = {"params": slots.size + experts * sum(w.size for w in expert)}
    # logits X Phi; every expert on its p slots; D^T X (m rows of an n x d matrix) and C Y (n rows of an m x d matrix)
    soft["flops"] = cost(n, slots) + experts * cost(p, *expert) + cost(experts * p, np.empty((n, d))) + cost(n, np.empty((experts * p, d)))
    router = np.empty((d, experts))
    top = {"params": router.size + experts * sum(w.size for w in expert), "flops": cost(n, router) + k * cost(n, *expert)}
    claimed = [claim(n, d, h, experts, p, kind=kind, k=k) for kind in ("soft", "topk")]
    return [soft["params"], soft["flops"], top["params"], top["flops"]], [c[name] for c in claimed for name in ("params", "flops")]
