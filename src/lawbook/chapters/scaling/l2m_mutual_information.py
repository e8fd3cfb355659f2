"""Mutual information between the halves of a text as a power of its length, and the state that a model needs to carry it."""

import math

import numpy as np

from lawbook.chapters.scaling.heaps_tagged_texts import fit_heaps
from lawbook.contract import DomainError, Paper, choice, count, integer, matrix, nonnegative, positive, real, record, vector
from lawbook.trials import Estimate, Identity, Inequality

paper = Paper(
    __name__,
    title="L^2M: Mutual Information Scaling Law for Long-Context Language Modeling",
    arxiv="2503.04725",
    tags=["mutual information", "long context", "state size", "kv cache", "state space model", "scaling law", "entropy"],
    source="known",
    says="""The mutual information between two adjacent halves of a text grows as a power of its length; the correlation of two distant tokens is another quantity and does not
    determine it. What a model carries from one half to the other it must store, so its state has to grow at least as fast: the cache of attention does, the fixed state of a
    recurrent model does not, and past some context it must lose information.""",
    notes="""The bound is data processing: what passes through a state is at most the state's own entropy. Exponents fitted to text lie between about .5 and 1. Miller and
    Madow's correction is exact to first order for independent pairs only; pairs of a chain with eigenvalue r depend on each other, which multiplies the bias by about
    (1+r^2)/(1-r^2).""",
)

LENGTHS = vector("n", of=positive("tokens", typical=(16, 1e5)), least=2, doc="L", example=[64.0, 256.0, 1024.0, 4096.0])
NATS = nonnegative("nats")


def sample_covariance(rng):
    size = int(rng.integers(2, 12))
    root = rng.normal(size=(size, size + 2))
    return {"covariance": root @ root.T, "split": int(rng.integers(1, size))}


@paper.measure(
    r"I(X; Y) = \tfrac12 (\ln|\Sigma_X| + \ln|\Sigma_Y| - \ln|\Sigma|)",
    requires={
        "split must be below the size of covariance": lambda split, covariance: split < len(covariance),
        "covariance must be symmetric": lambda covariance: np.allclose(covariance, covariance.T, rtol=1e-9, atol=0),
    },
    sample=sample_covariance,
    gives=0.143841,
)
def bipartite_mi_gaussian(
    covariance: matrix("L", "L", doc="of the sequence", example=[[1.0, 0.5], [0.5, 1.0]]), split: count("tokens", doc="length of the first part", example=1)
) -> NATS:
    """Mutual information between the first `split` entries of a Gaussian sequence and the rest."""

    def log_determinant(block, name):
        try:
            return 2 * float(np.log(np.diag(np.linalg.cholesky(block))).sum())
        except np.linalg.LinAlgError:
            raise DomainError(f"covariance must be positive definite; {name} of it is singular or indefinite to working precision.") from None

    whole = np.asarray(covariance, float)
    parts = log_determinant(whole[:split, :split], "the first part") + log_determinant(whole[split:, split:], "the second part")
    return max(0.5 * (parts - log_determinant(whole, "the whole")), 0.0)


@paper.measure(
    r"\hat I = \overline{\ln q(y \mid x) - \ln q(y)},\qquad \hat I_\text{vCLUB} = \overline{\ln q(y \mid x)} - \overline{\ln q(y \mid x')}",
    assumes=["Both terms come from one model and one tokenisation.", "vCLUB is an upper bound where q is the true conditional law."],
    requires={"unconditional or shuffled must be given, and not both": lambda unconditional, shuffled: (unconditional is None) != (shuffled is None)},
    sample=lambda rng: {"conditional": -rng.exponential(size=(n := int(rng.integers(2, 9)))), str(rng.choice(["unconditional", "shuffled"])): -2 * rng.exponential(size=n)},
)
def bipartite_mi_from_logprobs(
    conditional: vector("n", of=real("nats", typical=(-500, -100)), least=2, doc="ln q(y|x) of each document", example=[-210.0, -190.0, -200.0]),
    unconditional: vector("n", of=real("nats", typical=(-500, -100)), least=2, doc="ln q(y) of each document", example=[-225.0, -200.0, -220.0]) = None,
    *,
    shuffled: vector("n", of=real("nats", typical=(-500, -100)), least=2, doc="ln q(y|x') of each y after the x' of another document") = None,
) -> record(nats=real("nats"), se=NATS):
    """Mutual information from a model's log-probabilities: the mean gain of context over none, or over the context of other documents (vCLUB)."""
    gain = np.asarray(conditional, float) - np.asarray(unconditional if shuffled is None else shuffled, float)
    return {"nats": float(gain.mean()), "se": float(gain.std(ddof=1) / math.sqrt(len(gain)))}


@paper.measure(
    r"\hat I(d) = \sum_{a,b} \hat p_{ab} \ln \frac{\hat p_{ab}}{\hat p_a \hat p_b} - \frac{K_{ab} - K_a - K_b + 1}{2 (n - d)}",
    requires={"distances must be below the number of tokens": lambda distances, tokens: distances.max() < len(tokens)},
)
def two_point_mi(
    tokens: vector("n", of=integer(typical=(0, 3)), least=2, most=60, doc="the text as numbers", example=[0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1]),
    distances: vector("d", of=count("tokens", typical=(1, 4)), example=[1, 2]),
    *,
    correction: choice("miller-madow", "none", doc="for the bias of counts") = "miller-madow",
) -> vector("d", of=real("nats", doc="negative by chance where there is none")):
    """Mutual information of two tokens at each distance, from counted pairs."""
    from scipy.special import entr

    ids = np.unique(tokens, return_inverse=True)[1]
    kinds, found = int(ids.max()) + 1, []
    for d in np.asarray(distances, int):
        first, second = ids[:-d], ids[d:]
        counts = [np.unique(values, return_counts=True)[1] for values in (first, second, first * kinds + second)]
        a, b, both = (float(entr(c / len(first)).sum()) for c in counts)
        bias = (len(counts[2]) - len(counts[0]) - len(counts[1]) + 1) / (2 * len(first)) if correction == "miller-madow" else 0.0
        found.append(a + b - both - bias)
    return np.array(found)


@paper.law(r"I_{L/2; L} = A L^\beta", requires={"lengths must hold at least two different lengths": lambda lengths: lengths.max() > lengths.min() * (1 + 1e-9)})
def fit_mi_exponent(
    lengths: LENGTHS,
    mi: vector("n", of=positive("nats", typical=(1, 1000)), least=2, doc="mutual information of the halves", example=[8.0, 16.0, 32.0, 64.0]),
    *,
    bootstrap: count("resamples", low=50, typical=(50, 300)) = 200,
) -> record(A=positive("nats", infinite=True), beta=real(), ci=vector(2, of=real(), doc="95 % interval of beta, from resampled lengths")):
    """Power law of mutual information in the length, by least squares on logarithms."""
    fit = fit_heaps(lengths, mi, bootstrap=bootstrap)
    return {"A": fit["K"], "beta": fit["beta"], "ci": fit["ci"]}


@paper.law(r"D = 2\, n_\text{layer}\, n_\text{kv}\, d_\text{head}\, \min(w, L) \;+\; n_\text{layer}\, d_\text{state}", gives=2**29)
def state_size(
    architecture: choice("transformer", "window", "ssm", "linear", "hybrid", doc="hybrid: both summands in every layer", example="transformer"),
    context_length: count("tokens", typical=(16, 1e6), example=8192),
    *,
    layers: count("layers", typical=(1, 128), example=32),
    kv_heads: count("heads", low=0, typical=(1, 64), example=8) = 0,
    head_dim: count("dimensions", low=0, typical=(16, 256), example=128) = 0,
    state_dim: count("values", low=0, typical=(16, 1e6), doc="values of recurrent state in a layer") = 0,
    window: count("tokens", typical=(128, 8192), doc="tokens that attention looks back on; all by default") = None,
) -> count("values", low=0):
    """Numbers that an architecture has stored about the context."""
    seen = context_length if window is None or architecture == "transformer" else min(window, context_length)
    cache = 2 * layers * kv_heads * head_dim * seen if architecture in ("transformer", "window", "hybrid") else 0
    return cache + (layers * state_dim if architecture in ("ssm", "linear", "hybrid") else 0)


@paper.bound(r"A L^\beta \le I(X; Y) \le H(z) \le C D:\quad L_{\max} = (C D / A)^{1/\beta},\ D \ge A L^\beta / C,\ C = b \ln 2")
def l2m_limit(
    state_values: count("values", low=0, typical=(1e3, 1e9), doc="D: numbers in the state", example=4_194_304),
    A: positive("nats", typical=(0.1, 10), doc="constant of the law of mutual information", example=1.0),
    beta: positive(typical=(0.4, 1), scale="linear", doc="exponent of the law of mutual information", example=0.8),
    *,
    context_length: count("tokens", typical=(16, 1e6)) = None,
    bits_per_value: positive("bits", typical=(1, 32), doc="bits that each number holds; the format's at most") = 16,
) -> record(
    max_context=nonnegative("tokens", infinite=True, doc="context at which a state of this size is full; infinite past the range of floats"),
    required_state=positive("values", optional=True, doc="numbers needed at context_length; none without it"),
):
    """Longest context whose mutual information fits into a state, and the state that a context needs at least."""
    capacity = bits_per_value * math.log(2)
    with np.errstate(over="ignore"):
        longest = float(np.power(capacity * state_values / A, 1 / beta))
    return {"max_context": longest, "required_state": None if context_length is None else A * context_length**beta / capacity}


def pairs_summed(covariance, split):
    """Pairs of tokens as though they were all there is."""
    d = np.sqrt(np.diag(covariance))
    r = (covariance / np.outer(d, d))[:split, split:]
    return float(-0.5 * np.log1p(-(r**2)).sum())


@paper.trial(Identity(rtol=1e-8, atol=1e-9), of=[bipartite_mi_gaussian, bipartite_mi_from_logprobs], controls={"sum over pairs of tokens": pairs_summed}, quick=10, full=200)
def gaussian_halves(draw, claim):
    """The determinants agree with canonical correlations and with log-probabilities of sampled documents; contexts of other documents add the divergence of independence."""
    from scipy.linalg import sqrtm
    from scipy.stats import multivariate_normal

    size, n = draw.integer(3, 10), 2000
    split, root = draw.integer(1, size - 1), draw.rng.normal(size=(size, size + 4))
    whole = root @ root.T
    xx, yy, xy = whole[:split, :split], whole[split:, split:], whole[:split, split:]
    canonical = np.linalg.svd(np.linalg.solve(sqrtm(xx).real, xy) @ np.linalg.inv(sqrtm(yy).real), compute_uv=False)
    apart = np.block([[xx, 0 * xy], [0 * xy.T, yy]])
    z = draw.rng.multivariate_normal(np.zeros(size), whole, size=n)
    x, y, weights = z[:, :split], z[:, split:], np.linalg.solve(xx, xy)
    noise, alone = multivariate_normal(cov=yy - xy.T @ weights), multivariate_normal(cov=yy)
    own, others = (noise.logpdf(y - context @ weights) for context in (x, np.roll(x, 1, axis=0)))
    direct, club = bipartite_mi_from_logprobs(own, alone.logpdf(y)), bipartite_mi_from_logprobs(own, shuffled=others)
    exact = claim(whole, split)
    found = Estimate([direct["nats"], club["nats"], -0.5 * np.log1p(-(canonical**2)).sum()], [direct["se"], club["se"], 0.0])
    return found, [exact, 0.5 * (np.trace(np.linalg.solve(whole, apart)) - size), exact], {"size": size, "split": split}


def sticky_chain(rng, kinds, stay, length):
    """A Markov chain that repeats its token with probability `stay` and else draws a fresh one: after d steps it has done neither with probability stay^d."""
    fresh = rng.random(length) >= stay
    fresh[0] = True
    return rng.integers(kinds, size=length)[np.maximum.accumulate(np.where(fresh, np.arange(length), 0))]


def uncorrected(tokens, distances):
    return two_point_mi(tokens, distances, correction="none")


@paper.trial(Identity(), of=[two_point_mi], controls={"counts without correction": uncorrected}, quick=3, full=40)
def markov_chain(draw, claim):
    """Counted pairs of a Markov chain give the exact information at each distance: of few tokens with long memory, and of many with hardly any."""
    sides = []
    for kinds, stay, length, distances in ((3, draw.uniform(0.3, 0.8), 20_000, np.array([1, 2, 5])), (12, draw.uniform(0.0, 0.03), 10_000, np.array([1, 2, 200]))):
        same = stay**distances + (1 - stay**distances) / kinds
        exact = same * np.log(kinds * same) + (1 - same) * np.log((1 - same) * kinds / (kinds - 1))
        sides.append((Estimate.of([claim(sticky_chain(draw.rng, kinds, stay, length), distances) for _ in range(20)]), exact))
    counted, exact = zip(*sides, strict=True)
    return Estimate(np.concatenate([c.value for c in counted]), np.concatenate([c.error for c in counted])), np.concatenate(exact)


def half_used(state_values, A, beta, *, context_length, bits_per_value):
    return l2m_limit(state_values, A, beta, context_length=context_length, bits_per_value=bits_per_value / 2)


@paper.trial(Inequality(reaches=0.9), of=[l2m_limit], controls={"half of each value used": half_used}, quick=200, full=5000)
def data_processing(draw, claim):
    """What passes from X through one of m states to Y never needs more than one value of log2 m bits."""
    kinds, states, spread = 5, draw.integer(2, 4), draw.log_uniform(0.02, 2)
    joint = np.stack([draw.dirichlet(spread, states) for _ in range(kinds)]) * draw.dirichlet(1.0, kinds)[:, None]
    joint = joint @ np.stack([draw.dirichlet(spread, kinds) for _ in range(states)])
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.nansum(joint * np.log(joint / joint.sum(1, keepdims=True) / joint.sum(0)))
    found = claim(1, max(information, 1e-12), 1.0, context_length=1, bits_per_value=math.log2(states))
    return [found["required_state"], 1.0], [1.0, found["max_context"]], {"states": states, "information": information}


def halves_correlated(length, information):
    """Covariance of a sequence in which some tokens of the first half are each correlated with the one L/2 later, so that the halves share so much information."""
    share = math.ceil(information / 0.6)
    covariance, t = np.eye(length), np.arange(share)
    covariance[t, t + length // 2] = covariance[t + length // 2, t] = math.sqrt(-math.expm1(-2 * information / share))
    return covariance


def per_token(lengths, mi):
    return fit_mi_exponent(lengths, mi / lengths)


@paper.trial(
    Identity(rtol=1e-7), of=[fit_mi_exponent, bipartite_mi_gaussian, state_size, l2m_limit], controls={"information of a token instead of the half": per_token}, quick=4, full=60
)
def context_of_a_fixed_state(draw, claim):
    """The exponent is found again in sequences whose halves share A L^beta, and the context at which a recurrent state is full is where it is as large as needed."""
    A, beta, lengths = draw.uniform(0.2, 0.6), draw.uniform(0.4, 0.75), np.array([32, 80, 200])
    fit = claim(lengths, np.array([bipartite_mi_gaussian(halves_correlated(length, A * length**beta), length // 2) for length in lengths]))
    layers, heads, width, state, window = (draw.integer(1, 6) for _ in range(5))
    values = state_size("ssm", 10**6, layers=layers, state_dim=state)
    limit = l2m_limit(values, A, beta)["max_context"]
    cache = [np.empty((layers, 2, heads, width, min(9, seen))).size for seen in (9, window)]
    sizes = [state_size(kind, 9, layers=layers, kv_heads=heads, head_dim=width, state_dim=state, window=window) for kind in ("transformer", "window", "linear", "hybrid")]
    needed = l2m_limit(0, A, beta, context_length=limit)["required_state"]
    return [A, beta, *fit["ci"], needed, *sizes], [fit["A"], fit["beta"], beta, beta, values, cache[0], cache[1], values, cache[1] + values]


@paper.finding(
    """The decay of two-point correlations does not give the exponent: a Gaussian sequence whose correlation falls as slowly as d^-.3 has mutual information between its halves that
    only grows with the logarithm of the length, while pairs at one distance, L/2, give any power."""
)
def two_points_do_not_tell():
    lengths = np.array([16, 64, 256, 1024])
    distance = np.abs(np.subtract.outer(np.arange(1024), np.arange(1024)))
    covariance = 0.5 * (1.0 + distance) ** -0.3 + 0.5 * np.eye(1024)
    slow = np.array([bipartite_mi_gaussian(covariance[:n, :n], n // 2) for n in lengths])
    steps = np.diff(slow)
    paired = [bipartite_mi_gaussian(halves_correlated(n, 0.5 * n**0.7), n // 2) for n in lengths[:3]]
    beta = fit_mi_exponent(lengths[:3], np.array(paired))["beta"]
    return {"holds": bool(np.ptp(steps) < 0.02 and abs(beta - 0.7) < 1e-6), **{f"slow_{n}": float(i) for n, i in zip(lengths, slow, strict=True)}, "beta_of_pairs": beta}


@paper.finding(
    """Corrected counts are still positive at a distance where there is nothing: Miller and Madow's correction takes pairs as independent, and in a chain that repeats its token
    with probability r the bias is (1+r^2)/(1-r^2) times as large, so a floor of corrected two-point information is no sign of long memory.""",
    trial=markov_chain,
)
def floor_of_corrected_counts():
    rng, kinds, stay, length = np.random.default_rng(0), 10, 0.7, 5000
    chains = [sticky_chain(rng, kinds, stay, length) for _ in range(60)]
    bias = Estimate.of([two_point_mi(chain, [300], correction="none")[0] for chain in chains])
    corrected = Estimate.of([two_point_mi(chain, [300])[0] for chain in chains])
    factor = float(bias.value / ((kinds - 1) ** 2 / (2 * (length - 300))))
    predicted = (1 + stay**2) / (1 - stay**2)
    return {"holds": bool(corrected.value > 5 * corrected.error and abs(factor / predicted - 1) < 0.1), "bias_factor": factor, "predicted": predicted}
