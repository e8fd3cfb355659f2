"""Retrieving only where it pays: what a gate saves on average, when to retrieve, and what experts hold and compute."""

import numpy as np

from lawbook.contract import Paper, choice, count, flag, nonnegative, positive, probability, real, record, vector
from lawbook.numerics import arrays
from lawbook.trials import Estimate, Guarantee, Identity

paper = Paper(
    __name__,
    title="ExpertRAG: Efficient RAG with Mixture of Experts -- Optimizing Context Retrieval for Adaptive LLM Responses",
    arxiv="2504.08744",
    tags=["retrieval", "rag", "mixture of experts", "cost", "gating", "inference", "flops", "serving"],
    source="derived",
    says="""A gate decides for each query whether to fetch documents, and sparse experts hold more than each token computes with. What can be computed of it: the mean cost with
    and without the gate, the share of queries at which the gate stops paying, the arithmetic that a retrieved context adds, and the gate that is best when the gain in accuracy
    is known. The proposal is conceptual: it reports no measurements at all.""",
    notes="""Only the abstract was seen; the cost model is ours. Attention counts the causal half of the scores. Where documents are put before a prompt whose cache is kept, that
    cache is of no use: the difference of the two generations counts no prefix twice, and the prefix not as kept. A gate that errs independently of the query with rates alpha
    (retrieves in vain) and beta (misses) loses beta E(gain)^+ + alpha E(-gain)^+, which a trial confirms.""",
)

COST = nonnegative(typical=(0, 10), doc="FLOP, seconds or money: the same unit for all costs", example=1.0)
ACTIVE = positive("params", typical=(1e8, 1e11), doc="parameters that a token uses", example=13e9)
PROMPT = count("tokens", typical=(16, 4000), doc="of the prompt without documents", example=200)
GENERATED = count("tokens", low=0, typical=(16, 1000), example=150)
LAYERS = count("layers", typical=(12, 128), example=40)
WIDTH = count("dimensions", typical=(512, 16384), doc="model width", example=5120)
ACCURACY = vector("n", of=probability(), doc="without documents, of each query", example=[0.9, 0.3, 0.5])


@paper.law(r"E[C] = C_{gate} + C_{base} + p\, C_{ret}", closed_form=True, gives={"expected": 1.35, "savings": 0.65})
def expected_cost(
    retrieval_probability: probability(doc="share of queries for which the gate retrieves", example=0.3),
    base_cost: COST,
    retrieval_cost: COST,
    gate_cost: nonnegative(typical=(0, 1), doc="of asking the gate", example=0.05),
) -> record(
    expected=nonnegative(),
    always=nonnegative(doc="without a gate, with retrieval for every query"),
    savings=real(doc="negative where the gate costs more than it saves"),
    relative_savings=real(doc="over the cost of always retrieving; 0 where that is free"),
):
    """Mean cost of a query behind a gate, beside that of always retrieving."""
    xp, p, base, retrieval, gate = arrays(retrieval_probability, base_cost, retrieval_cost, gate_cost)
    always, savings = base + retrieval, (1 - p) * retrieval - gate
    return {
        "expected": gate + base + p * retrieval,
        "always": always,
        "savings": savings,
        "relative_savings": xp.where(always > 0, savings / xp.where(always > 0, always, 1.0), 0.0),
    }


@paper.law(r"p^* = (1 - C_{gate}/C_{ret})^+", closed_form=True, gives=0.95)
def break_even_probability(retrieval_cost: COST, gate_cost: nonnegative(typical=(0, 1), example=0.05)) -> probability(doc="0 where the gate costs as much as retrieval"):
    """Share of retrieving queries below which the gate pays."""
    xp, retrieval, gate = arrays(retrieval_cost, gate_cost)
    pays = retrieval > gate
    return xp.where(pays, 1 - gate / xp.where(pays, retrieval, 1.0), 0.0)


@paper.law(r"\mathrm{gen}(P, G) = 2 N (P + G) + 2 L d (P + G)^2", closed_form=True, gives=9_150_176_000_000)
def generation_flops(active_params: ACTIVE, prompt_tokens: PROMPT, generated_tokens: GENERATED, layers: LAYERS, width: WIDTH) -> positive("FLOP"):
    """Arithmetic of reading a prompt and generating an answer with a KV cache."""
    _, n, p, g, layers_, d = arrays(active_params, prompt_tokens, generated_tokens, layers, width)
    return 2 * n * (p + g) + 2 * layers_ * d * (p + g) ** 2


@paper.law(r"2 N_{enc} q + C_{index} + \mathrm{gen}(P + k\ell, G) - \mathrm{gen}(P, G),\quad C_{index} = 2 n d_e \text{ or } 2 d_e\, ef \log_2 n", closed_form=True)
def retrieval_flops(
    query_tokens: count("tokens", low=0, typical=(4, 200), example=20),
    encoder_params: nonnegative("params", scale="log", typical=(1e7, 1e9), doc="of the encoder of queries", example=110e6),
    documents: count("passages", typical=(100, 1_000_000_000), doc="in the index", example=21_000_000),
    dim: count("dimensions", typical=(64, 4096), doc="of an embedding", example=768),
    *,
    passages: count("passages", low=0, typical=(1, 20), doc="put before the prompt") = 10,
    passage_tokens: count("tokens", typical=(50, 1000)) = 100,
    active_params: ACTIVE = 13e9,
    prompt_tokens: PROMPT = 200,
    generated_tokens: GENERATED = 150,
    layers: LAYERS = 40,
    width: WIDTH = 5120,
    index: choice("exact", "graph", doc="all inner products, or a search graph") = "exact",
    ef: positive(typical=(16, 512), doc="candidates that the search of a graph keeps") = 64,
) -> nonnegative("FLOP"):
    """Arithmetic that retrieval adds to a query: its encoding, the search, and the longer prompt."""
    xp, q, encoder, n, d, k, length, p, ef_ = arrays(query_tokens, encoder_params, documents, dim, passages, passage_tokens, prompt_tokens, ef)
    search = 2 * n * d if index == "exact" else 2 * d * ef_ * xp.log2(n)
    longer, plain = (generation_flops(active_params, tokens, generated_tokens, layers, width) for tokens in (p + k * length, p))
    return 2 * encoder * q + search + longer - plain


@paper.law(
    r"N_{total} = N_s + E N_e,\quad N_{active} = N_s + k N_e",
    requires={"active must be at most experts": lambda active, experts: np.all(np.asarray(active) <= np.asarray(experts))},
    sample=lambda rng: {"shared": rng.uniform(1e8, 1e10), "expert": rng.uniform(1e8, 1e10), "experts": int(rng.integers(4, 128)), "active": int(rng.integers(1, 5))},
    closed_form=True,
    gives={"total": 46_720_000_000, "active": 12_880_000_000},
)
def active_parameters(
    shared: nonnegative("params", typical=(1e8, 1e10), doc="used by every token", example=1.6e9),
    expert: positive("params", typical=(1e8, 1e10), doc="one expert of every layer together", example=5.64e9),
    experts: count("experts", typical=(4, 128), example=8),
    active: count("experts", typical=(1, 4), doc="experts that a token uses", example=2),
) -> record(total=positive("params", doc="sets the memory"), active=positive("params", doc="sets the arithmetic"), capacity_gain=positive(low=1, above=False)):
    """Parameters that a mixture of experts holds and those that a token computes with."""
    _, s, e, number, k = arrays(shared, expert, experts, active)
    total, used = s + number * e, s + k * e
    return {"total": total, "active": used, "capacity_gain": total / used}


@paper.algorithm(r"\text{retrieve} \iff v\,(a_1 - a_0) > C_{ret}", gives={"retrieve": [False, True, False]})
def optimal_gate(
    accuracy_without: ACCURACY,
    accuracy_with: vector("n", of=probability(), doc="with documents", example=[0.92, 0.8, 0.4]),
    *,
    value: positive(typical=(0.1, 10), doc="of a correct answer") = 1.0,
    retrieval_cost: nonnegative(typical=(0, 1), doc="in the unit of the value") = 0.1,
) -> record(retrieve=vector("n", of=flag()), utility=real(doc="mean over the queries"), retrieval_probability=probability()):
    """The gate of the largest mean utility when the accuracies are known; where both ways are equal it does not retrieve."""
    without, gain = value * np.asarray(accuracy_without, float), value * (np.asarray(accuracy_with, float) - accuracy_without) - retrieval_cost
    retrieve = gain > 0
    return {"retrieve": retrieve, "utility": float(np.mean(without + np.where(retrieve, gain, 0))), "retrieval_probability": float(retrieve.mean())}


def gate_for_free(retrieval_probability, base_cost, retrieval_cost, gate_cost):
    return expected_cost(retrieval_probability, base_cost, retrieval_cost, 0.0)


def gate_for_retrievals(retrieval_probability, base_cost, retrieval_cost, gate_cost):
    return expected_cost(retrieval_probability, base_cost, retrieval_cost, retrieval_probability * gate_cost)


@paper.trial(
    Identity(rtol=1e-12), of=[expected_cost, break_even_probability], controls={"gate for free": gate_for_free, "gate paid by retrievals": gate_for_retrievals}, quick=5, full=50
)
def simulated_queries(draw, cost):
    """Mean cost and saving over a hundred thousand simulated queries; at the break-even share the saving is 0."""
    p, base, retrieval, gate = draw.uniform(0.05, 0.95), draw.log_uniform(0.1, 10), draw.log_uniform(0.1, 10), draw.log_uniform(0.01, 1)
    spent = gate + base + np.where(draw.rng.random(100_000) < p, retrieval, 0.0)
    told, even = cost(p, base, retrieval, gate), float(break_even_probability(retrieval, gate))
    seen, at_even = Estimate.of(np.stack([spent, base + retrieval - spent, (base + retrieval - spent) / (base + retrieval)], 1)), cost(even, base, retrieval, gate)["savings"]
    exact = Estimate(np.append(seen.value, 1.0), np.append(seen.error, 1e-12))
    return exact, [told["expected"], told["savings"], told["relative_savings"], 1.0 + (at_even if even > 0 else 0.0)], {"p": p, "gate": gate}


def prefix_kept(*args, prompt_tokens, **options):
    return retrieval_flops(*args, prompt_tokens=1, **options)


@paper.trial(Identity(rtol=1e-9), of=[retrieval_flops, generation_flops, active_parameters], controls={"attention to the prompt forgotten": prefix_kept}, quick=30, full=1000)
def counted_by_token(draw, retrieval):
    """Arithmetic added up token by token, each attending to those before it, with the weights of each expert counted: a longer prompt less the same without documents."""
    prompt, generated, k, length = draw.integer(1, 400), draw.integer(0, 200), draw.integer(0, 8), draw.integer(10, 200)
    layers, width, q, n, dim = draw.integer(1, 60), 64 * draw.integer(1, 100), draw.integer(1, 50), draw.integer(10, 10**6), draw.integer(16, 1024)
    held = active_parameters(3e8, 1e8, 16, draw.integer(1, 4))
    index, encoder = draw.choice(["exact", "graph"]), draw.log_uniform(1e7, 1e9)

    def generated_flops(tokens):
        # token i multiplies with i - 1/2 keys and values on average over the block of the diagonal
        return float(np.sum(2 * held["active"] + 4 * layers * width * (np.arange(1, tokens + 1) - 0.5)))

    search = {"exact": 2 * n * dim, "graph": 2 * dim * 64 * np.log2(n)}[index]
    expected = 2 * encoder * q + search + generated_flops(prompt + k * length + generated) - generated_flops(prompt + generated)
    options = {"passages": k, "passage_tokens": length, "active_params": held["active"], "prompt_tokens": prompt, "generated_tokens": generated, "layers": layers, "width": width}
    plain = generation_flops(held["active"], prompt, generated, layers, width)
    experts = (held["total"] - held["active"]) / 1e8 + round((held["active"] - 3e8) / 1e8)
    return [expected, generated_flops(prompt + generated), 16], [retrieval(q, encoder, n, dim, index=index, ef=64, **options), plain, experts], {"passages": k, "index": index}


def by_confidence(accuracy_without, accuracy_with, *, value, retrieval_cost):
    unsure = accuracy_without < 0.5
    gain = value * (accuracy_with - accuracy_without) - retrieval_cost
    return {"retrieve": unsure, "utility": float(np.mean(value * accuracy_without + np.where(unsure, gain, 0)))}


def cost_ignored(accuracy_without, accuracy_with, *, value, retrieval_cost):
    return optimal_gate(accuracy_without, accuracy_with, value=value, retrieval_cost=0.0)


@paper.trial(Guarantee(rtol=1e-9), of=[optimal_gate], controls={"a gate by confidence": by_confidence, "cost ignored": cost_ignored}, quick=20, full=500)
def best_of_all_gates(draw, gate):
    """No other of the 2^n gates has a larger mean utility, the utility told is that of the gate, and a gate with independent errors loses what the formula says."""
    n, value, cost = draw.integer(2, 10), draw.log_uniform(0.5, 2), draw.uniform(0, 0.5)
    without, with_documents = draw.uniform(size=n), draw.uniform(size=n)
    found = gate(without, with_documents, value=value, retrieval_cost=cost)
    all_gates = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    utilities = np.mean(np.where(all_gates, value * with_documents - cost, value * without), 1)
    own = np.mean(np.where(found["retrieve"], value * with_documents - cost, value * without))
    alpha, beta = draw.uniform(0, 0.5), draw.uniform(0, 0.5)
    gain, wrong = value * (with_documents - without) - cost, draw.rng.random((4000, n))
    decided = np.where(gain > 0, wrong >= beta, wrong < alpha)
    lost = Estimate.of(utilities.max() - np.mean(np.where(decided, value * with_documents - cost, value * without), 1))
    formula = np.mean(beta * np.maximum(gain, 0) + alpha * np.maximum(-gain, 0))
    # both ways: lost <= formula and formula <= lost, up to sampling error
    left = Estimate([utilities.max(), abs(own - found["utility"]), lost.value, formula], [0, 0, lost.error, lost.error])
    return left, [own, 1e-12, formula, lost.value], {"queries": n, "alpha": alpha, "beta": beta}


@paper.finding(
    """A gate that retrieves where the model is unsure can do worse than never retrieving: it pays in vain where documents help least with what the model does not know."""
)
def unsure_is_not_helped():
    rng = np.random.default_rng(0)
    without = rng.uniform(size=10_000)
    with_documents = np.where(without < 0.5, without + 0.05, np.minimum(without + 0.3, 1))
    options = {"value": 1.0, "retrieval_cost": 0.1}
    best, unsure = (gate(without, with_documents, **options)["utility"] for gate in (optimal_gate, by_confidence))
    return {"holds": bool(unsure < without.mean() < best), "never": float(without.mean()), "by_confidence": unsure, "best": best}
