"""Speculative decoding: acceptance, tokens a round, wall-clock speed-up, the best draft length, the price in arithmetic, and the lossless loop."""

import numpy as np

from lawbook.contract import DomainError, Paper, caution, count, distribution, either, function, nonnegative, positive, probability, record, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Counts, Distribution, Estimate, Identity, Inequality

paper = Paper(
    __name__,
    title="Speculative Decoding and Beyond: An In-Depth Survey of Techniques",
    arxiv="2502.19732",
    tags=["speculative decoding", "inference", "latency", "throughput", "acceptance rate", "sampling", "batching"],
    source="known",
    says="""Methods that first draft several tokens cheaply and then verify them in one pass of the target model are surveyed. What is computed with them: a drafted token survives
    with probability one minus the total variation between the two models, the tokens of a round are a geometric sum, and the speed-up divides it by the time of drafting and
    verifying. Drafting pays exactly where acceptance exceeds the cost of a draft step, costs extra arithmetic always, and stops paying once batches are bound by compute.""",
    notes="""The survey is a taxonomy; the formulas are those of speculative decoding and sampling (2211.17192, 2302.01318), with acceptances taken as independent. The sampler
    makes one round unless it is given a length.""",
)

ACCEPTANCE = probability(typical=(0.3, 0.98), doc="probability that a drafted token is kept", example=0.8)
ACCEPTANCES = either(ACCEPTANCE, vector("contexts", of=ACCEPTANCE, doc="one for each context"))
GAMMA = count("tokens", typical=(1, 16), doc="tokens drafted a round", example=8)
COST = nonnegative(typical=(0, 1), doc="time of a draft step over that of a target step", example=0.05)


def tokens_a_round(xp, alpha, gamma):
    """1 + alpha + ... + alpha^gamma without loss of digits at either end."""
    n, lost = gamma + 1, 1 - alpha
    few, all_kept = alpha < 0.5, n * lost < 1e-7
    low, high = xp.where(few, alpha, 0.25), xp.where(few | all_kept, 0.5, alpha)
    middle = xp.where(few, (1 - low**n) / (1 - low), -xp.expm1(n * xp.log(high)) / (1 - high))
    return xp.where(all_kept, n * (1 - gamma * lost / 2), middle)


@paper.law(r"\alpha = \sum_x \min(p(x), q(x)) = 1 - \mathrm{TV}(p, q)", closed_form=True, gives=0.75)
def acceptance_rate(
    target: distribution("V", doc="next-token probabilities of the target model", example=[0.5, 0.3, 0.2]),
    draft: distribution("V", doc="next-token probabilities of the draft model", example=[0.25, 0.5, 0.25]),
) -> probability():
    """Probability that a token of the draft model is kept."""
    xp, p, q = arrays(target, draft)
    return xp.minimum(xp.sum(xp.minimum(p, q), axis=-1), xp.ones_like(xp.sum(p, axis=-1)))


@paper.law(r"E = \frac{1 - \alpha^{\gamma+1}}{1 - \alpha}", assumes=["Tokens are accepted independently of each other within a context."], gives=2.7731)
def expected_tokens(
    acceptance: either(probability(typical=(0.3, 0.98), doc="probability that a drafted token is kept", example=0.7), ACCEPTANCES.options[1]),
    gamma: count("tokens", typical=(1, 16), doc="tokens drafted a round", example=4),
) -> positive("tokens"):
    """Mean tokens of a round: those accepted and one that the target adds. Of several contexts, the mean of theirs, which is more than that of the mean acceptance."""
    return float(np.mean(tokens_a_round(np, np.asarray(acceptance, float), gamma)))


@paper.law(r"E = 1 + \sum_d \prod_{l \le d} \alpha_l", gives=2.28)
def tree_tokens(
    level_acceptance: vector("depth", of=ACCEPTANCE, doc="probability that a level of the tree (a position of the draft) is kept, given those above", example=[0.8, 0.6]),
) -> positive("tokens"):
    """Mean tokens of a round where acceptance differs between positions or levels of a draft tree."""
    return 1 + float(np.cumprod(level_acceptance).sum())


@paper.law(
    r"S = \frac{1 - \alpha^{\gamma+1}}{(1 - \alpha)(\gamma c + v)}",
    assumes=["Decoding is bound by memory, so that verifying a draft costs one target step, unless verify_cost says more."],
    closed_form=True,
    gives=3.09,
)
def speedup(
    acceptance: ACCEPTANCE, gamma: GAMMA, cost_ratio: COST, *, verify_cost: positive(typical=(1, 8), doc="time of verifying a draft over that of a target step") = 1.0
) -> positive():
    """Wall-clock speed-up over plain decoding."""
    xp, alpha, n, c, v = arrays(acceptance, gamma, cost_ratio, verify_cost)
    return tokens_a_round(xp, alpha, n) / (n * c + v)


@paper.law(r"\frac{(1 - \alpha)(\gamma \hat c + \gamma + 1)}{1 - \alpha^{\gamma+1}} \ge 1", closed_form=True)
def operations_ratio(
    acceptance: ACCEPTANCE, gamma: GAMMA, compute_ratio: nonnegative(typical=(0, 1), doc="arithmetic of a draft token over that of a target token", example=0.05)
) -> positive():
    """Arithmetic for each token that is produced, over that of plain decoding."""
    xp, alpha, n, c = arrays(acceptance, gamma, compute_ratio)
    return (n * c + n + 1) / tokens_a_round(xp, alpha, n)


@paper.algorithm(r"\gamma^* = \min \arg\max_\gamma S(\gamma)", gives={"gamma": 8, "speedup": 3.09})
def best_gamma(acceptance: ACCEPTANCES, cost_ratio: COST, *, max_gamma: count("tokens", typical=(1, 300)) = 200) -> record(
    gamma=count("tokens", low=0, doc="0 where drafting does not pay"), speedup=positive()
):
    """Draft length of the largest speed-up, and the speed-up; over several contexts the length is shared."""
    drafted, alpha = np.arange(max_gamma + 1), np.asarray(acceptance, float)
    tokens = np.cumsum([np.mean(alpha**j) for j in drafted])
    gains = tokens / (drafted * cost_ratio + 1)
    best = int(np.argmax(gains))
    if best == max_gamma:
        caution(f"The speed-up still rises at max_gamma = {max_gamma}.")
    return {"gamma": best, "speedup": float(gains[best])}


@paper.law(
    r"S = \frac{E}{\gamma c + t(\gamma+1)/t(1)},\quad t(k) = \max\left(\frac{W + B\, KV}{\beta},\ \frac{2 N B k}{F}\right)",
    assumes=["Caches are read once a step, however many tokens it verifies; attention's own arithmetic is left out."],
    closed_form=True,
)
def batched_speedup(
    acceptance: ACCEPTANCE,
    gamma: GAMMA,
    cost_ratio: COST,
    batch_size: count("sequences", typical=(1, 512), example=64),
    params: positive("params", typical=(1e9, 1e11), example=7e9),
    kv_bytes_per_seq: nonnegative("bytes", typical=(0, 1e9), example=5e8),
    *,
    peak_flops: positive("FLOP/s", typical=(1e14, 2e15), example=9.89e14) = 9.89e14,
    bandwidth: positive("bytes/s", typical=(1e12, 8e12), example=3.35e12) = 3.35e12,
    weight_bytes: positive("bytes", typical=(2e9, 2e11), example=1.4e10) = 1.4e10,
) -> positive():
    """Speed-up where a batch of sequences is decoded together: the draft must then pay for verification that compute makes slower."""
    xp, alpha, n, c, b, size, kv, flops, beta, w = arrays(acceptance, gamma, cost_ratio, batch_size, params, kv_bytes_per_seq, peak_flops, bandwidth, weight_bytes)
    memory, one = (w + b * kv) / beta, 2 * size * b / flops
    return tokens_a_round(xp, alpha, n) / (n * c + xp.maximum(memory, one * (n + 1)) / xp.maximum(memory, one))


def bigram(table):
    """A model that looks at the last token only."""
    return lambda tokens: table[tokens[-1]]


def pick(rng, weights):
    total = np.cumsum(weights)
    return int(np.searchsorted(total, rng.uniform() * total[-1], side="right"))


def speculative_round(rng, target, draft, tokens, gamma, accept, replacement):
    """`tokens` with up to gamma accepted drafts and one token of the target's."""
    drafted, proposals = list(tokens), []
    for _ in range(gamma):
        proposals.append(np.asarray(draft(drafted), float))
        drafted.append(pick(rng, proposals[-1]))
    for place, q in enumerate(proposals, start=len(tokens)):
        p = np.asarray(target(drafted[:place]), float)
        if p.shape != q.shape:
            raise DomainError(f"draft_fn must give as many probabilities as target_fn; it gave {q.size}, not {p.size}.")
        token = drafted[place]
        if rng.uniform() >= accept(p[token], q[token]):
            return [*drafted[:place], pick(rng, replacement(p, q))]
    return [*drafted, pick(rng, target(drafted))]


def ratio(p, q):
    return p / q


def residual(p, q):
    rest = np.maximum(p - q, 0)
    return rest if rest.any() else p


@paper.algorithm(
    r"x \sim q,\ \text{kept with probability } \min\left(1, \tfrac{p(x)}{q(x)}\right),\ \text{else } x \sim \frac{(p - q)_+}{\sum (p - q)_+}",
    assumes=["Both functions give normalised probabilities over one vocabulary."],
)
def speculative_sample(
    target_fn: function("list of tokens -> probabilities of the next one", example=bigram(np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]]))),
    draft_fn: function("list of tokens -> probabilities of the next one", example=bigram(np.array([[0.4, 0.4, 0.2], [0.2, 0.5, 0.3], [0.3, 0.4, 0.3]]))),
    prompt: vector("prompt", of=count("token", low=0), example=[0]),
    gamma: GAMMA,
    seed: seed(example=0),
    *,
    length: count("tokens", typical=(1, 50), doc="tokens wanted; without it, one round") = None,
) -> vector("tokens", of=count("token", low=0)):
    """Tokens after the prompt that follow the target's law exactly, from one round or as many as a length needs."""
    return speculative_loop(target_fn, draft_fn, prompt, gamma, seed, length=length)


def speculative_loop(target, draft, prompt, gamma, seed, *, length=None, accept=ratio, replacement=residual):
    rng, tokens, start = np.random.default_rng(seed), [int(t) for t in prompt], len(prompt)
    while True:
        tokens = speculative_round(rng, target, draft, tokens, gamma, accept, replacement)
        if length is None or len(tokens) - start >= length:
            return np.array(tokens[start:][:length])


def kept_with_its_probability(*args, **options):
    return speculative_loop(*args, **options, accept=lambda p, q: p)


def replaced_from_target(*args, **options):
    return speculative_loop(*args, **options, replacement=lambda p, q: p)


@paper.trial(
    Distribution(),
    of=[speculative_sample],
    controls={"kept with probability p(x)": kept_with_its_probability, "replaced from p, not the residual": replaced_from_target},
    quick=3000,
    full=1_000_000,
)
def lossless(draw, sample):
    """Three tokens in a row after a prompt, over several rounds, have the probabilities that the target alone gives them."""
    size = 4
    p, q = (draw.rng.dirichlet(np.full(size, 0.7), size=size) for _ in range(2))
    exact = p[0][:, None, None] * p[:, :, None] * p[None, :, :]
    runs = np.array([sample(bigram(p), bigram(q), [0], 2, int(draw.rng.integers(2**62)), length=3) for _ in range(draw.size)])
    return Counts(np.bincount(runs @ [size**2, size, 1], minlength=size**3), exact.ravel())


def without_the_added_token(acceptance, gamma):
    return expected_tokens(acceptance, gamma) - 1


def at_the_mean_acceptance(acceptance, gamma):
    return expected_tokens(float(np.mean(acceptance)), gamma)


@paper.trial(
    Identity(rtol=0),
    of=[expected_tokens, acceptance_rate, tree_tokens, speedup, operations_ratio],
    controls={"target's own token forgotten": without_the_added_token, "mean acceptance for the mean of tokens": at_the_mean_acceptance},
    quick=3,
    full=100,
)
def rounds(draw, claim):
    """Rounds of the sampler keep drafts, take time and cost arithmetic as often and as much as the formulas say, with one context and with two."""
    gamma, c, n = draw.integer(1, 5), draw.uniform(0.01, 0.5), 1500
    pairs = [draw.rng.dirichlet(np.full(6, concentration), size=2) for concentration in (0.5, 5.0)]
    alphas = np.array([acceptance_rate(p, q) for p, q in pairs])
    lengths = np.array([[len(speculative_sample(lambda _, p=p: p, lambda _, q=q: q, [0], gamma, int(draw.rng.integers(2**62)))) for _ in range(n)] for p, q in pairs], float)
    levels = draw.uniform(0.2, 0.9, size=3)
    tree = 1 + np.cumprod(draw.rng.uniform(size=(n, 3)) < levels, axis=1).sum(1)
    one = lengths[0]
    seen = np.stack([one, lengths.mean(0), one > 1, tree, one / (gamma * c + 2), one / (gamma * c + gamma + 1)], 1)
    said = [claim(alphas[0], gamma), claim(alphas, gamma), alphas[0], tree_tokens(levels), speedup(alphas[0], gamma, c, verify_cost=2.0), 1 / operations_ratio(alphas[0], gamma, c)]
    return Estimate.of(seen), said, {"acceptance": alphas, "gamma": gamma}


def longest_rounds(acceptance, cost_ratio):
    return {"gamma": 200, "speedup": float(speedup(acceptance, 200, cost_ratio))}


@paper.trial(Identity(rtol=1e-10), of=[best_gamma, speedup], controls={"as many tokens a round as possible": longest_rounds}, quick=100, full=5000)
def first_decrease(draw, best):
    """Adding one drafted token at a time and stopping at the first decrease finds the best length; drafting pays exactly where acceptance exceeds the cost of a draft."""
    alpha, c = draw.uniform(0.0, 0.97), draw.log_uniform(0.01, 1.0)
    tokens, gamma = 1.0, 0
    while (tokens + alpha ** (gamma + 1)) / ((gamma + 1) * c + 1) > tokens / (gamma * c + 1):
        tokens, gamma = tokens + alpha ** (gamma + 1), gamma + 1
    found = best(alpha, c)
    return [gamma, tokens / (gamma * c + 1), alpha > c], [found["gamma"], found["speedup"], found["speedup"] > 1], {"acceptance": alpha, "cost_ratio": c}


def free_verification(acceptance, gamma, cost_ratio, *_, **__):
    return speedup(acceptance, gamma, cost_ratio)


@paper.trial(Inequality(), of=[batched_speedup, speedup, operations_ratio], controls={"verification always costs one step": free_verification}, quick=100, full=10_000)
def ceilings(draw, batched):
    """No draft length speeds up by 1/(1-alpha); arithmetic never falls; batching never helps drafting, and beyond the ridge point of the hardware drafting is slower than not."""
    alpha, gamma, c, size = draw.uniform(0.05, 0.99), draw.integer(1, 12), draw.uniform(0.0, 0.6), draw.log_uniform(1e9, 1e11)
    hardware = {"peak_flops": draw.log_uniform(1e14, 2e15), "bandwidth": draw.log_uniform(1e12, 8e12), "weight_bytes": 2 * size}
    ridge = hardware["peak_flops"] / hardware["bandwidth"]  # at two bytes a parameter
    small, large = (batched(alpha, gamma, c, factor * ridge, size, 0.0, **hardware) for factor in (0.99 / (gamma + 1), 1.01))
    alone = float(speedup(alpha, gamma, c))
    return (
        [alone, 1.0, alone, small, large],
        [1 / (1 - alpha), operations_ratio(alpha, gamma, c), small * (1 + 1e-12), alone * (1 + 1e-12), 1.0],
        {"acceptance": alpha, "gamma": gamma},
    )
