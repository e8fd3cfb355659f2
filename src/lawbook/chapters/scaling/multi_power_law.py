"""The whole pre-training loss curve under any learning-rate schedule, its fit to a few short runs, and the schedule it asks for."""

import math

import numpy as np

from lawbook.contract import DomainError, Paper, choice, count, listing, nonnegative, positive, real, record, vector
from lawbook.contract import seed as seed_number
from lawbook.numerics import arrays
from lawbook.trials import Forecast, Guarantee, Identity, Prediction

paper = Paper(
    __name__,
    title="A Multi-Power Law for Loss Curve Prediction Across Learning Rate Schedules",
    arxiv="2503.12811",
    tags=["scaling law", "loss curve", "learning rate schedule", "warmup stable decay", "cosine", "annealing", "pretraining"],
    source="code",
    says="""The loss at every step of a run is a power law in the learning rates summed so far, less a power-law gain for each decrease of the rate, which fills up with the
    sum of the rates that follow it. Fitted on three short runs (cosine, constant, one sudden drop) the seven parameters forecast runs under other schedules and three times as
    long, and minimising the forecast over all schedules gives one that stays high for most of the run and then decays to almost nothing, ahead of cosine and of
    hand-made warmup-stable-decay.""",
    notes="""Two conventions. A, of the authors' fits and of their table: the schedule includes its linear warmup, whose increments stay in the sum as negative drops, so L0 is
    offset by about B times the peak. B, of their text and of their optimiser: steps count from the end of warmup, whose summed rates enter S alone. The two differ by a near
    constant; losses are never to be compared across them. One step of their optimiser counts the warmup into S_k as well, for its first step; here it never does.""",
)

RATES = vector("T", of=nonnegative(typical=(1e-5, 1e-3)), doc="learning rate of every step, in convention A with its warmup")
LAW = {
    "L0": real("nats", typical=(1, 3.5), example=3.04045406, doc="loss without end; in convention A offset by about B times the peak"),
    "A": positive(typical=(0.1, 2), example=0.52468604),
    "alpha": positive(typical=(0.2, 0.8), example=0.50786857),
    "B": positive(typical=(50, 1000), example=363.78751622),
    "C": positive(typical=(0.5, 5), example=2.06560812),
    "beta": positive(typical=(0.3, 0.9), example=0.58279013),
    "gamma": real(typical=(0.3, 0.9), example=0.64142257),
}
PUBLISHED = {
    "25M": {name: q.example for name, q in LAW.items()},
    "100M": dict(zip(LAW, (2.6514477, 0.60115152, 0.45295811, 437.9464276, 2.13245612, 0.59785199, 0.65523644), strict=True)),
    "400M": dict(zip(LAW, (2.37474466, 0.65421216, 0.42878731, 523.42464371, 2.02462735, 0.59350493, 0.63472457), strict=True)),
}
PARAMS = record(**LAW)
DECAYS = ("wsd", "wsd_linear", "two_stage")


@paper.algorithm(
    r"\eta_s:\ \text{linear warmup, then constant, cosine, exponential or linear decay from } d, \text{ or a jump at } d",
    requires={
        "warmup_steps must be below total_steps": lambda warmup_steps, total_steps: warmup_steps < total_steps,
        "final_rate must be at most peak_rate": lambda final_rate, peak_rate: final_rate <= peak_rate,
        "decay_start must lie from warmup_steps to total_steps - 1 for wsd, wsd_linear and two_stage": lambda kind, decay_start, warmup_steps, total_steps: (
            kind not in DECAYS or (decay_start is not None and warmup_steps <= decay_start < total_steps)
        ),
        "second_rate must be given for two_stage": lambda kind, second_rate: kind != "two_stage" or second_rate is not None,
        "final_rate must be above 0 for wsd, whose decay is exponential": lambda kind, final_rate: kind != "wsd" or final_rate > 0,
    },
    sample=lambda rng: {
        "kind": str(rng.choice(["constant", "cosine", *DECAYS])),
        **{"total_steps": int(rng.integers(40, 400)), "peak_rate": 3e-4, "final_rate": 3e-5, "warmup_steps": int(rng.integers(0, 20)), "decay_start": 30, "second_rate": 1e-4},
    },
)
def schedule(
    kind: choice("constant", "cosine", *DECAYS, example="cosine"),
    total_steps: count("steps", typical=(10, 10_000), example=24000),
    peak_rate: positive(typical=(1e-5, 1e-2), example=3e-4),
    *,
    final_rate: nonnegative(typical=(1e-6, 1e-5)) = 0.0,
    warmup_steps: count("steps", low=0, typical=(0, 1000)) = 0,
    decay_start: count("steps", low=0, typical=(0, 10_000), doc="first step of the decay, counted from the start of warmup") = None,
    second_rate: nonnegative(typical=(1e-6, 1e-3), doc="rate after the jump of two_stage") = None,
) -> vector("total_steps", of=nonnegative()):
    """Learning rates of a common schedule, step by step; the rate of step T would be the final one."""
    step = np.arange(warmup_steps, total_steps)
    if kind == "constant":
        rates = np.full(len(step), peak_rate)
    elif kind == "cosine":
        rates = final_rate + 0.5 * (peak_rate - final_rate) * (1 + np.cos(np.pi * (step - warmup_steps) / (total_steps - warmup_steps)))
    elif kind == "two_stage":
        rates = np.where(step < decay_start, peak_rate, second_rate)
    else:
        x = np.clip((step - decay_start) / (total_steps - decay_start), 0, 1)
        rates = peak_rate * (1 - x) + final_rate * x if kind == "wsd_linear" else peak_rate ** (1 - x) * final_rate**x
    return np.concatenate([np.linspace(0, peak_rate, warmup_steps), rates])


def random_case(rng, initial=True):
    """A short schedule that falls, rises, rests and reaches zero, steps of it, and random parameters."""
    T = int(rng.integers(10, 60))
    rates = np.repeat(rng.uniform(1e-5, 1e-3, T), rng.integers(1, 4, T))[:T]
    rates[1:][rng.uniform(size=T - 1) < 0.05] = 0.0
    given = {name: rng.uniform(*q.typical) for name, q in LAW.items()}
    if initial and rng.uniform() < 0.5:
        given |= {"initial_rate": 1e-3, "warmup_sum": rng.uniform(0, 1)}
    return {"learning_rates": rates, "steps": np.sort(rng.integers(0, T, 5)), **given}


def started(learning_rates, steps, warmup_sum=0.0):
    return steps.max() < len(learning_rates) and bool(np.all(warmup_sum + np.cumsum(learning_rates)[steps] > 0))


@paper.law(
    r"L(t) = L_0 + A S(t)^{-\alpha} - B \sum_{k \le t} (\eta_{k-1} - \eta_k) \left[1 - (1 + C \eta_k^{-\gamma} S_k(t))^{-\beta}\right],\ S_k(t) = \sum_{\tau=k}^t \eta_\tau",
    requires={"steps must be below the length of learning_rates, and the rates up to each of them must not all be 0": started},
    closed_form=True,
    sample=random_case,
)
def loss_curve(
    learning_rates: vector("T", of=nonnegative(typical=(1e-5, 1e-3)), doc="learning rate of every step, in convention A with its warmup", example=schedule("cosine", 240, 3e-4, final_rate=3e-5, warmup_steps=20)),
    steps: vector("m", of=count("steps", low=0, typical=(0, 5)), doc="steps whose loss is asked for, counted from 0", example=np.array([20, 100, 239])),
    *,
    L0: LAW["L0"],
    A: LAW["A"],
    alpha: LAW["alpha"],
    B: LAW["B"],
    C: LAW["C"],
    beta: LAW["beta"],
    gamma: LAW["gamma"],
    warmup_sum: nonnegative(typical=(0, 1), doc="summed rates of a warmup that learning_rates leaves out; it enters S, never S_k") = 0.0,
    initial_rate: nonnegative(typical=(1e-4, 1e-3), doc="rate before the first step (convention B); none: the drops start at the second step (convention A)") = None,
) -> vector("m", of=real("nats")):
    """Loss at the given steps of a run under any schedule; a drop to the rate 0 has its gain at once."""
    xp, rates, summed, *parameters = arrays(learning_rates, warmup_sum, L0, A, alpha, B, C, beta, gamma)
    summed, offset, a, power, b, c, beta, gamma = (p[..., None] for p in (summed, *parameters))
    before_first = rates[:1] if initial_rate is None else xp.reshape(arrays(rates, initial_rate)[2], (1,))
    gaps = xp.concat([before_first, rates[:-1]]) - rates
    total = xp.cumulative_sum(rates)
    at = xp.astype(xp.asarray(steps), xp.int64 if xp is np else xp.asarray(0).dtype)
    changed = np.flatnonzero(gaps) if xp is np else xp.arange(len(rates))  # a traced schedule may change anywhere
    ahead, gaps, rates = (total - rates)[changed], gaps[changed], rates[changed]
    scale = c * xp.where(rates > 0, rates, 1.0) ** -gamma
    rows = max(1, (200_000 if xp is np else 8_000_000) // max(len(changed), 1))
    gains = []
    for block in (at[i : i + rows] for i in range(0, len(at), rows)):
        n = int(np.searchsorted(changed, block.max(), side="right")) if xp is np else len(changed)
        open_ = changed[None, :n] <= block[:, None]
        follows = xp.where(open_, total[block][:, None] - ahead[None, :n], 0.0)
        kept = (1 + scale[..., None, :n] * xp.where(follows > 0, follows, 0.0)) ** -beta[..., None]
        gains.append(xp.sum(xp.where(open_, gaps[:n] * xp.where(rates[:n] > 0, 1 - kept, 1.0), 0.0), axis=-1))
    return offset + a * (summed + total[at]) ** -power - b * xp.concat(gains, axis=-1)
