"""Bits that training moves from data into parameters, and the least energy that Landauer's principle asks for them."""

import math

import numpy as np

from lawbook.contract import Paper, count, flag, nonnegative, positive, real, record, vector
from lawbook.numerics import arrays
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="Physics in Next-token Prediction",
    arxiv="2411.00660",
    tags=["information capacity", "compression", "code length", "bits per parameter", "energy", "landauer", "next-token prediction"],
    source="known",
    says="""What a model stores is what its data lost in code length: tokens times the fall of the loss, so many bits per parameter. Landauer's principle turns stored bits into
    a least energy of training. Both are identities of bookkeeping under stated assumptions, not discoveries of physics: capacity is a definition, since nothing forces the saved
    code length to sit in the parameters.""",
    notes="""The first law is quoted with the entropy H of the source, but no model's loss is below H, and the capacity would be negative: H must be the code length before
    learning, such as log2 of the vocabulary or the unigram loss, and the choice of that baseline dominates the result. Tokens are unique ones; epochs that repeat them store
    nothing new. Losses are in bits: divide nats by ln 2. Studies of memorisation measure 2 to 3.6 bits per parameter.""",
)

BOLTZMANN = 1.380649e-23  # J/K, exact in the SI
PARAMS = positive("params", typical=(1e6, 1e12), example=7e9)
TOKENS = positive("tokens", typical=(1e8, 1e14), doc="unique training tokens", example=2e12)
LOSS = nonnegative("bits", typical=(1, 4), doc="cross-entropy per token after training", example=2.5)
BASELINE = positive("bits", typical=(4, 17), scale="linear", doc="code length per token before learning", example=15.0)
KELVIN = positive("K", typical=(1, 400), scale="linear")
FALLS = {"baseline_bits must be at least loss_bits": lambda baseline_bits, loss_bits: np.all(baseline_bits >= loss_bits)}
FALLS_STRICTLY = {"baseline_bits must be above loss_bits": lambda baseline_bits, loss_bits: np.all(baseline_bits > loss_bits)}


@paper.law(r"\eta = D (H_0 - L) / N", assumes=["All code length that training saves is stored in the parameters."], requires=FALLS, closed_form=True, gives=3571.43)
def information_capacity(params: PARAMS, tokens: TOKENS, loss_bits: LOSS, *, baseline_bits: BASELINE) -> nonnegative("bits/param"):
    """Bits per parameter that a model has taken out of its training data."""
    _, n, d, loss, baseline = arrays(params, tokens, loss_bits, baseline_bits)
    return d * (baseline - loss) / n


@paper.bound(r"E \ge I\, k_B T \ln 2", assumes=["Every stored bit is written over an unknown one, at the temperature of the surroundings."], closed_form=True, gives=2.8710e-21)
def landauer_energy(bits: nonnegative("bits", typical=(1, 1e13), scale="log", example=1.0), *, temperature: KELVIN = 300.0) -> nonnegative("J"):
    """Least energy for storing so many bits."""
    _, b, t = arrays(bits, temperature)
    return b * BOLTZMANN * t * math.log(2)


@paper.measure(r"E / (D (H_0 - L)\, k_B T \ln 2)", requires=FALLS_STRICTLY, closed_form=True)
def energy_efficiency(
    energy_joules: positive("J", typical=(1e6, 1e14), doc="energy spent on training", example=3e11),
    params: PARAMS,
    tokens: TOKENS,
    loss_bits: LOSS,
    *,
    baseline_bits: BASELINE,
    temperature: KELVIN = 300.0,
) -> positive():
    """Energy of a training run in multiples of the least energy for what it stored; from 1e9 upwards today. The number of parameters cancels."""
    _, energy, n, t = arrays(energy_joules, params, temperature)
    return energy / landauer_energy(n * information_capacity(n, tokens, loss_bits, baseline_bits=baseline_bits), temperature=t)


@paper.law(r"N = D (H_0 - L) / \eta", requires=FALLS_STRICTLY)
def params_for_capacity(
    tokens: TOKENS, loss_bits: LOSS, *, baseline_bits: BASELINE, capacity: positive("bits/param", typical=(0.5, 5), doc="2 to 3.6 where models memorise", example=2.0)
) -> count("params"):
    """Parameters needed to store what a loss implies, at so many bits per parameter."""
    return max(math.ceil(tokens * (baseline_bits - loss_bits) / capacity), 1)


@paper.model(r"p(x_{t+1} = x) = \frac{n_x + \frac12}{t + 1},\quad \ell \le n\, h(k/n) + \tfrac12 \log_2 n + 1")
def kt_code_length(bits: vector("n", of=flag(), most=30, doc="a sequence of zeros and ones", example=[1, 1, 0, 1])) -> record(
    code_length=positive("bits"), saved=real("bits", doc="against one bit a symbol"), regret_bound=positive("bits", doc="most that the code exceeds the empirical entropy by")
):
    """Code length of a sequence under the learner of Krichevsky and Trofimov, which predicts from the counts so far."""
    x = np.asarray(bits, float)
    before = np.arange(len(x))
    ones = np.cumsum(x) - x
    same = np.where(x == 1, ones, before - ones)
    length = float(-np.log2((same + 0.5) / (before + 1)).sum())
    return {"code_length": length, "saved": len(x) - length, "regret_bound": 0.5 * math.log2(len(x)) + 1}


def entropy(p):
    """Binary entropy in bits."""
    from scipy.special import entr

    return float(entr(p) + entr(1 - p)) / math.log(2)


def laplace_learner(bits):
    x = np.asarray(bits, float)
    ones, before = np.cumsum(x) - x, np.arange(len(x))
    length = -np.log2((np.where(x == 1, ones, before - ones) + 1) / (before + 2)).sum()
    return kt_code_length(bits) | {"code_length": length, "saved": len(x) - length}


def in_nats(bits, *, temperature=300.0):
    return landauer_energy(bits, temperature=temperature) / math.log(2)


CLAIM = (kt_code_length, landauer_energy)


@paper.trial(
    Identity(rtol=1e-9),
    of=[kt_code_length, information_capacity, params_for_capacity, landauer_energy, energy_efficiency],
    claim=CLAIM,
    controls={"learner of Laplace": (laplace_learner, landauer_energy), "a bit taken for a nat": (kt_code_length, in_nats)},
    quick=20,
    full=200,
)
def bookkeeping(draw, claim):
    """The learner's code has the length of its mixture, by gamma functions; as training run of one parameter it stores what it saved, and its energy is that of a gas halved."""
    from scipy.integrate import quad
    from scipy.special import betaln

    learner, energy_of = claim
    n, temperature = draw.integer(5, 3000), draw.uniform(1, 400)
    bits = draw.rng.random(n) < draw.choice([0.0, 0.02, 0.1, 1.0])
    found = learner(bits)
    saved = n + (betaln(bits.sum() + 0.5, n - bits.sum() + 0.5) - math.log(math.pi)) / math.log(2)
    if saved <= 0:
        return [saved], [found["saved"]]
    loss = found["code_length"] / n
    stored = float(information_capacity(1, n, loss, baseline_bits=1))
    size = params_for_capacity(n, loss, baseline_bits=1, capacity=stored / 1000 * (1 + 1e-12))
    # one bit is erased by compressing a gas of one particle to half its volume: work = integral of k T / V
    molar, avogadro = 8.31446261815324, 6.02214076e23
    work = molar / avogadro * temperature * quad(lambda volume: 1 / volume, 0.5, 1)[0]
    energy = float(energy_of(found["saved"], temperature=temperature))
    ratio = float(energy_efficiency(7 * energy, 1, n, loss, baseline_bits=1, temperature=temperature))
    return [saved, saved, 1000, saved * work, 7], [found["saved"], stored, size, energy, ratio], {"symbols": n, "ones": bits.sum()}


def at_source_entropy(bits, p):
    return entropy(p)


def at_empirical_entropy(bits, p):
    return entropy(np.mean(bits))


@paper.trial(Inequality(search=0), of=[kt_code_length], claim=at_empirical_entropy, controls={"entropy of the source": at_source_entropy}, quick=60, full=1000)
def saved_bits(draw, claim):
    """A learner of n bits saves n (1 - h) less half a logarithm of n, within one bit, with h the entropy at the share of ones that came up."""
    n, p = round(draw.log_uniform(10, 5000)), draw.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    bits = draw.rng.random(n) < p
    found = kt_code_length(bits)
    rest = found["saved"] - (n * (1 - claim(bits, p)) - 0.5 * math.log2(n))
    return [abs(rest), found["code_length"] - n * claim(bits, p)], [1.0, found["regret_bound"]], {"symbols": n, "p": p}


@paper.finding(
    """Read with the entropy of the source, the first law gives a negative capacity for every learner, however much it has learned; it needs the code length before learning.""",
    trial=saved_bits,
)
def source_entropy_is_no_baseline():
    rng, p, n = np.random.default_rng(0), 0.9, 5000
    losses = np.array([kt_code_length(rng.random(n) < p)["code_length"] / n for _ in range(200)])
    against_source, against_bits = (float(np.mean(information_capacity(1, n, losses, baseline_bits=h))) for h in (entropy(p), 1.0))
    return {"holds": against_source < 0 < against_bits, "bits_against_source": against_source, "bits_against_one_a_symbol": against_bits}
