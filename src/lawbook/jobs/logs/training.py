"""Curves of a run trained on rewards: the ceiling that entropy foretells, the plateau of the reward, how stale its samples may be, how many prompts are silent."""

import math

import numpy as np

from ...chapters.alignment.entropy_mechanism import entropy_reward, fit_entropy_reward
from ...chapters.alignment.grpo_oscillator import reduced_oscillator, refresh_threshold, silent_prompts
from .sheet import Picture, Series

ENTROPY, OSCILLATOR = "entropy-mechanism", "grpo-oscillator"
FEWEST = 20  # points of a curve
SPAN = 0.1  # nats of entropy that the fit must cover
RESAMPLES = 300
MOST_INTERVAL = 4096  # refresh intervals that are tried


def measures(columns, sheet, *, momentum=0.0, lag=0, refresh_interval=1, seed=0, **_):
    """`columns` has step and reward, and any of entropy, score, success_rate, group_size; `momentum`, `lag` and `refresh_interval` are the trainer's."""
    data = {name: np.asarray(values, float) for name, values in columns.items()}
    order = np.argsort(data["step"], kind="stable")
    data = {name: values[order] for name, values in data.items()}
    sheet.section = "Training run"
    target = "score" if "score" in data and np.isfinite(data["score"]).sum() >= FEWEST else "reward"
    if "entropy" in data:
        _entropy(data, target, sheet, seed)
    if "reward" in data:
        _plateau(data, sheet, momentum, lag, refresh_interval, seed)
    if "success_rate" in data and "group_size" in data:
        seen = np.isfinite(data["success_rate"]) & np.isfinite(data["group_size"])
        p, g = data["success_rate"][seen], data["group_size"][seen].astype(int)
        if not len(p) or p.min() < 0 or p.max() > 1 or g.min() < 2:
            sheet.distrust("silent prompts, least share", f"{OSCILLATOR}.silent_prompts", "It takes success rates from 0 to 1 and groups of two or more.")
        else:
            sheet.add(
                "silent prompts, least share",
                f"{OSCILLATOR}.silent_prompts",
                float(silent_prompts(float(p[-1]), int(g[-1]))),
                meaning="At the run's last success rate, if every prompt had that rate; rates that differ between prompts make more of them silent.",
            )
    sheet.pictures += [Picture(f"{name} over the run", "step", name, [Series(name, data["step"], data[name], style="points")]) for name in ("reward", "entropy") if name in data]


def _entropy(data, target, sheet, seed):
    """The law reward = b - a exp(entropy), its ceiling, and how well its first half foretells the second."""
    seen = np.isfinite(data["entropy"]) & np.isfinite(data[target])
    h, r = data["entropy"][seen], data[target][seen]
    source = f"{ENTROPY}.fit_entropy_reward"
    if len(h) < FEWEST or len(np.unique(h)) < 3 or np.ptp(h) < SPAN:
        sheet.distrust("ceiling of the reward", source, f"It takes {FEWEST} points over {SPAN} nats of entropy; here are {len(h)} over {np.ptp(h) if len(h) else 0:.3g}.")
        return
    law = fit_entropy_reward(h, r)
    if law["a"] <= 0:
        sheet.distrust("ceiling of the reward", source, "The reward does not rise as entropy falls in this run, so entropy foretells no ceiling.")
        return
    half = len(h) // 2
    early = fit_entropy_reward(h[:half], r[:half]) if np.ptp(h[:half]) > 0 else law
    off = float(np.sqrt(np.mean((entropy_reward(h[half:], early["a"], early["b"]) - r[half:]) ** 2)))
    flat = float(np.sqrt(np.mean((r[:half][-max(half // 10, 1) :].mean() - r[half:]) ** 2)))
    draws = [fit_entropy_reward(h[i], r[i])["ceiling"] for i in blocks(len(h), RESAMPLES, seed)]
    low, high = np.quantile(draws, [(1 - sheet.level) / 2, (1 + sheet.level) / 2])
    sheet.add(
        "law of entropy, held-out error", source, off, meaning=f"Of the law fitted to the first half of the run on the second half; the last reward carried on has {flat:.3g}."
    )
    if off > flat:
        sheet.distrust("ceiling of the reward", source, f"The law of the first half foretells the second worse ({off:.3g}) than its last reward does ({flat:.3g}).")
        return
    ceiling = sheet.add(
        "ceiling of the reward",
        source,
        law["ceiling"],
        low=float(low),
        high=float(high),
        interval="block bootstrap over the run",
        meaning=f"At entropy 0 by {target} = b - a exp(entropy), a = {law['a']:.4g}, b = {law['b']:.4g}, R2 {law['r2']:.3f}; entropy is {h[-1]:.3g} nats now.",
    )
    sheet.headlines.append(
        f"Entropy foretells a ceiling of {ceiling.value:.3f} ({low:.3f} to {high:.3f}) for the {target}; it stands at {r[-max(len(r) // 20, 1) :].mean():.3f}"
        f" with {h[-1]:.2g} nats of entropy left."
    )
    grid = np.linspace(0, h.max(), 100)
    series = [Series("run", h, r, style="points"), Series("b - a exp(entropy)", grid, entropy_reward(grid, law["a"], law["b"]))]
    sheet.pictures.append(Picture(f"{target} against entropy", "entropy (nats)", target, series))


def blocks(length, draws, seed):
    """Indices of resamples of a series in blocks, which keeps what neighbours have in common."""
    rng, size = np.random.default_rng(seed), max(2, round(length ** (1 / 3)))
    starts = rng.integers(0, length - size + 1, (draws, -(-length // size)))
    return (starts[:, :, None] + np.arange(size)).reshape(draws, -1)[:, :length]


def plateau(steps, rewards):
    """(start, plateau, rate a step) of an exponential approach, by least squares."""
    from scipy.optimize import least_squares

    t, span = steps - steps[0], max(steps[-1] - steps[0], 1)
    scale = max(np.ptp(rewards), 1e-12)
    first, last = rewards[: max(len(t) // 20, 1)].mean(), rewards[-max(len(t) // 10, 1) :].mean()

    def residuals(theta):
        return (theta[1] - (theta[1] - theta[0]) * np.exp(-np.exp(theta[2]) * t) - rewards) / scale

    best = min((least_squares(residuals, [first, last, math.log(times / span)]) for times in (1, 4, 16)), key=lambda found: found.cost)
    return float(best.x[0]), float(best.x[1]), float(np.exp(best.x[2]))


def _plateau(data, sheet, momentum, lag, refresh_interval, seed):
    """Plateau and time constant of the reward, and from these how much later the samples may be than the weights."""
    seen = np.isfinite(data["reward"]) & np.isfinite(data["step"])
    t, r = data["step"][seen], data["reward"][seen]
    source = f"{OSCILLATOR}.reward_trajectory"
    if len(t) < FEWEST or np.ptp(t) <= 0 or np.ptp(r) <= 0:
        sheet.distrust("plateau of the reward", source, f"It takes {FEWEST} points at different steps and rewards that change; here are {len(t)} points.")
        return
    start, top, rate = plateau(t, r)
    fitted = top - (top - start) * np.exp(-rate * (t - t[0]))
    left = r - fitted
    draws = np.array([plateau(t, fitted + left[i])[1:] for i in blocks(len(t), RESAMPLES // 3, seed)])
    tail = (1 - sheet.level) / 2
    (low, slow), (high, fast) = np.quantile(draws, [tail, 1 - tail], axis=0)
    if rate * np.ptp(t) < 1 or (high - low) > 3 * abs(top - start) or slow <= 0 or fast / slow > 10:
        why = f"The curve has not bent enough: its time constant ({1 / rate:.3g} steps) is not known within a factor of ten, or longer than the run ({np.ptp(t):.3g} steps)."
        sheet.distrust("plateau of the reward", source, why)
        sheet.distrust("margin of stability", f"{OSCILLATOR}.refresh_threshold", "It follows from the time constant of the reward, which this curve does not tell.")
        return
    sheet.add(
        "plateau of the reward",
        source,
        top,
        low=float(low),
        high=float(high),
        interval="bootstrap of residuals in blocks",
        meaning="Of the exponential that the mean path follows.",
    )
    sheet.add("time constant", source, 1 / rate, low=1 / float(fast), high=1 / float(slow), unit="steps", interval="bootstrap of residuals in blocks")
    stiffness = rate * (1 - momentum) / (1 + rate * lag)  # k of exp(-k t / c) with damping c = 1 - momentum - k lag
    state = reduced_oscillator(1.0, stiffness, momentum, lag)
    limit = refresh_threshold(refresh_interval, momentum)
    sheet.add(
        "learning rate times curvature",
        f"{OSCILLATOR}.reduced_oscillator",
        stiffness,
        meaning=f"From the time constant, with momentum {momentum:g} and samples {lag} steps old: {state['regime']}.",
    )
    sheet.add(
        "margin of stability",
        f"{OSCILLATOR}.refresh_threshold",
        limit / stiffness,
        low=limit * (1 / float(fast) + lag) / (1 - momentum),
        high=limit * (1 / float(slow) + lag) / (1 - momentum),
        unit="times",
        interval="from that of the time constant",
        meaning=f"By so much the learning rate could grow before the run oscillates without end, with samples renewed every {refresh_interval} steps.",
    )
    stale = stalest(stiffness, momentum)
    most = f"{stale:,}" if stale < MOST_INTERVAL else f"at least {MOST_INTERVAL:,}"
    sheet.add(
        "stalest samples",
        f"{OSCILLATOR}.refresh_threshold",
        stale,
        unit="steps",
        meaning="Longest interval between renewals of the sampling policy up to which every interval is stable.",
    )
    sheet.headlines.append(
        f"The reward approaches {top:.3f} ({low:.3f} to {high:.3f}) with a time constant of {1 / rate:.3g} steps; samples may be renewed every {most} steps before"
        " the run turns unstable."
    )


def stalest(stiffness, momentum):
    """The longest refresh interval up to which all are stable."""
    for interval in range(1, MOST_INTERVAL + 1):
        if refresh_threshold(interval, momentum) <= stiffness:
            return interval - 1
    return MOST_INTERVAL
