"""The optimum under a budget, from a fit of the Chinchilla law or from published constants, with how to train it and what deviating from it costs."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..artifacts.devices import device as device_facts
from ..chapters.scaling.beyond_chinchilla import CONSTANTS, inference_optimal
from ..chapters.scaling.power_lines import batch_sizes, batch_tradeoff, optimal_weight_decay
from ..contract import DomainError, LawbookError, Shown
from ..contract.numbers import parse_number
from .fit import fit
from .fitted import Fit, Ranking
from .schedule import plan_schedule
from .surface import Surface

LAW = "beyond-chinchilla.chinchilla_loss"
FACTORS = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)  # of the parameters, for the cost of deviating
MOST_RESAMPLES = 200
SKILL_SHIFT = 1.5  # how far the wrong mix of skills in a validation loss may move the best size, as the paper reports
CHINCHILLA_RUNS = {"params": (7e7, 1.6e10), "tokens": (5e9, 5e11)}
RANGES = {  # of the runs behind published constants, as their papers state them
    **dict.fromkeys(("hoffmann", "hoffmann_tex", "epoch"), CHINCHILLA_RUNS),
    "c4_muennighoff": {"params": (0.0, 9e9), "tokens": (0.0, 9e11)},
}


@dataclass(frozen=True)
class Plan(Shown):
    """What to train. `quantities` maps a name to {value, unit, low, high, source}; low and high are the central 90 % over the resampled law, None without a bootstrap.

    They are about the law, not the noise of one run, and those of other papers' laws leave out the errors of their own constants, which are not published.
    """

    budget: str
    law: dict[str, float]
    quantities: dict[str, dict[str, Any]]
    deviating: dict[str, list[float]]  # other sizes: tokens and loss at the same cost, tokens and cost (a multiple of the plan's) at the same loss, infinite where none will do
    warnings: list[str] = field(default_factory=list)
    fit: Fit | None = None
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)  # of the runs behind the law
    schedule: dict[str, Any] | None = None  # source, notes, knots {step, share_of_run, share_of_peak} and final_loss by schedule; None for runs of hardly any steps
    notes: list[str] = field(default_factory=list)
    surface: Surface | None = field(default=None, repr=False)

    def __getitem__(self, name):
        return self.quantities[name]["value"]

    def to_dict(self):
        kept = ("budget", "law", "quantities", "deviating", "schedule", "warnings", "notes")
        return {name: getattr(self, name) for name in kept}


def plan(
    source="epoch",
    /,
    *,
    compute=None,
    gpu_hours=None,
    money=None,
    price_per_gpu_hour=None,
    days=None,
    devices=None,
    device="H100-SXM",
    utilization=0.4,
    target_loss=None,
    inference_tokens=0,
    max_params=None,
    max_tokens=None,
    max_epochs=1,
    learning_rate=None,
    curves=None,
    seed=0,
):
    """The Plan under one budget: training `compute` (FLOP), `gpu_hours`, `money` with `price_per_gpu_hour`, `days` on a number of `devices`, or a `target_loss`.

    `source` is a Fit or Ranking of the Chinchilla law, a table to fit it to, or the name of published constants. With `inference_tokens` the budget pays for serving
    them too (2 FLOP per parameter and token), and a target loss is reached at the least total cost. `max_params` and `max_tokens` bound the answer; without a budget
    they are one, and the answer is the largest model within them that no other beats at its cost. With `max_epochs` above 1 the `max_tokens` may be passed over
    that many times, at the worth that the law of repeated data gives them. `utilization` is the share of the device's bf16 peak that training reaches;
    .4 is an assumption, measure yours. `learning_rate` is the peak rate; with it the plan gives the weight decay. `curves`, for the learning-rate schedule, are a Fit or
    Ranking of the multi-power law or loss curves to fit it to; without them its published constants serve.
    """
    budgets = (("compute", compute, "FLOP"), ("gpu_hours", gpu_hours, ""), ("money", money, ""), ("days", days, ""), ("target_loss", target_loss, "nats"))
    given = {name: _number(name, v, unit) for name, v, unit in budgets if v is not None}
    bounds = {name: _number(name, v, unit) for name, v, unit in (("max_params", max_params, "params"), ("max_tokens", max_tokens, "tokens")) if v is not None}
    if len(given) > 1 or not (given or bounds):
        raise LawbookError(
            f"A plan needs one budget of compute, gpu_hours, money, days or target_loss, or else max_params or max_tokens alone; it was given {', '.join(given) or 'none'}."
        )
    served = _number("inference_tokens", inference_tokens, "tokens", zero=True)
    epochs = _number("max_epochs", max_epochs)
    if epochs < 1:
        raise DomainError(f"max_epochs must be a number of at least 1; it was {max_epochs}.")
    if epochs > 1 and "max_tokens" not in bounds:
        raise LawbookError("max_epochs needs max_tokens, the tokens that may be repeated.")
    rate = None if learning_rate is None else _number("learning_rate", learning_rate)
    if rate is not None and rate > 1:
        raise DomainError(f"learning_rate must be a number above 0 and at most 1; it was {learning_rate}.")
    kind = next(iter(given), None)
    machine = _machine(device, utilization, devices, price_per_gpu_hour)
    flops = None if kind in (None, "target_loss") else _flops(kind, given[kind], machine)
    law, found, resamples = _law(source, seed)

    def optimum(constants):
        """The surface of a law, and the optimum on it."""
        surface = Surface(constants, served, bounds.get("max_params", np.inf), bounds.get("max_tokens", np.inf), epochs, epochs > 1)
        if kind is None:
            return surface, *surface.largest()
        return surface, *(surface.at_loss(given[kind]) if kind == "target_loss" else surface.at_budget(flops))

    try:
        surface, n, d = optimum(law)
    except DomainError as error:
        raise LawbookError(f"No plan: {error}") from None
    if min(n, d) < 1:
        raise LawbookError(f"No plan: the budget buys {n:.3g} params and {d:.3g} tokens, less than one.")
    spread = [_quantities(*made, rate, machine) for constants in resamples if (made := _or_none(optimum, constants))]
    quantities = _quantities(surface, n, d, rate, machine)
    for name, entry in quantities.items():
        values = [q[name]["value"] for q in spread if name in q]
        entry["low"], entry["high"] = np.quantile(values, [0.05, 0.95]).tolist() if len(values) > 20 else (None, None)
    ranges = RANGES[source] if found is None else {name: found.ranges[name] for name in ("params", "tokens") if name in found.ranges}
    said = _warnings(surface, quantities, ranges, f"runs behind the constants {source}" if found is None else "fitted runs", bool(given), flops, len(resamples) - len(spread))
    schedule = plan_schedule(quantities["steps"]["value"], n, rate, curves)
    if schedule:
        quantities |= schedule.pop("quantities")
    return Plan(
        budget=_said_budget(given, bounds, flops, surface),
        law=law,
        quantities=quantities,
        deviating=_deviating(surface, n, d),
        warnings=said,
        fit=found,
        ranges=ranges,
        schedule=schedule,
        notes=_notes(surface, quantities, found),
        surface=surface,
    )


def _number(name, value, unit="", zero=False):
    value = parse_number(value, name, unit) if isinstance(value, str) else value
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise DomainError(f"{name} must be a number {'of at least' if zero else 'above'} 0; it was {value!r}.")
    return float(value)


def _machine(device, utilization, devices, price):
    """What turns FLOP into hours, days and money."""
    facts, share = device_facts(device), _number("utilization", utilization)
    if share > 1:
        raise DomainError(f"utilization must be a number above 0 and at most 1; it was {utilization}.")
    devices, price = (None if value is None else _number(name, value) for name, value in (("devices", devices), ("price_per_gpu_hour", price)))
    return {"name": facts.name, "flops_per_hour": 3600 * facts.peak_flops * share, "utilization": share, "devices": devices, "price": price}


def _flops(kind, amount, machine):
    if kind == "compute":
        return amount
    if kind == "money":
        if machine["price"] is None:
            raise LawbookError("A budget of money needs price_per_gpu_hour.")
        amount = amount / machine["price"]
    if kind == "days":
        if machine["devices"] is None:
            raise LawbookError("A budget of days needs the number of devices.")
        amount = 24 * amount * machine["devices"]
    return amount * machine["flops_per_hour"]


def _said_budget(given, bounds, flops, surface):
    parts = [f"{name.replace('_', ' ')} {value:.6g}" for name, value in given.items()]
    if flops and "compute" not in given:
        parts[0] += f" = {flops:.3g} FLOP"
    parts += [f"at most {value:.3g} {name.removeprefix('max_')}" for name, value in bounds.items()]
    parts += [f"up to {surface.epochs:.3g} epochs"] if surface.epochs > 1 else []
    parts += [f"{surface.served:.3g} tokens served"] if surface.served else []
    return ", ".join(parts)


def _law(source, seed):
    """(constants, fit or None, constants of the resamples)."""
    if isinstance(source, str) and source in CONSTANTS:
        return dict(CONSTANTS[source]), None, []
    if not isinstance(source, Fit | Ranking):
        source = fit(source, law=LAW, holdout=0, seed=seed)
    found = source if isinstance(source, Fit) else next((f for f in source.fits if f.law.id == LAW), None)
    if found is None or found.law.id != LAW:
        raise LawbookError(f"A plan needs a fit of {LAW}, a table of runs, or the name of published constants: {', '.join(CONSTANTS)}.")
    draws = [] if found.resamples is None else found.resamples[:MOST_RESAMPLES]
    return found.arguments()["constants"], found, [{k: float(v) for k, v in found.arguments(theta)["constants"].items()} for theta in draws]


def _or_none(optimum, constants):
    try:
        return optimum(constants)
    except DomainError:
        return None


def _quantities(surface, n, d, rate, machine):
    """What the plan says of n params and d tokens."""

    def entry(value, unit, source):
        return {"value": float(value), "unit": unit, "low": None, "high": None, "source": source}

    again = "sld-bench, data_constrained"  # the law of repeated data
    law = f"beyond-chinchilla; {again}" if d > surface.unique * (1 + 1e-9) else "beyond-chinchilla"
    loss, total, batch = float(surface.loss(n, d)), surface.cost(n, d), batch_sizes(d)
    b = min(float(batch["optimal_tokens"]), d)
    out = {
        "params": entry(n, "params", law),
        "tokens": entry(d, "tokens", law),
        "tokens_per_param": entry(d / n, "tokens/param", law),
        "loss": entry(loss, "nats", law),
    }
    if surface.epochs > 1:
        size, data = surface.worth(n, d)
        once = replace(surface, epochs=1.0)
        out["epochs"] = entry(max(d / surface.unique, 1.0), "epochs", again)
        out["unique_tokens"] = entry(min(d, surface.unique), "tokens", "given" if d >= surface.unique else law)
        out["effective_tokens"] = entry(data, "tokens", "one-epoch")
        out["effective_params"] = entry(size, "params", again)
        n_once, d_once = once.at_budget(total)
        out["loss_of_one_epoch"] = entry(surface.loss(n_once, d_once), "nats", again)
        out["worth_of_repetition"] = entry(max(out["loss_of_one_epoch"]["value"] - loss, 0.0), "nats", again)
    out["train_flops"] = entry(6 * n * d, "FLOP", "6 N D")
    out["total_flops"] = entry(total, "FLOP", "6 N D + 2 N D_inf")
    if surface.served:
        plain = inference_optimal(loss, surface.served, constants=surface.constants) if loss > surface.constants["E"] else None
        if plain and abs(plain["total_flops"] / total - 1) < 1e-6:  # where no bound binds
            out["saving"] = entry(plain["saving_vs_train_optimal"], "share of the cost", "beyond-chinchilla.inference_optimal")
    hours = total / machine["flops_per_hour"]
    out["gpu_hours"] = entry(hours, "h", f"total_flops on {machine['name']} at {machine['utilization']:.3g} of its peak")
    if machine["devices"]:
        out["days"] = entry(hours / 24 / machine["devices"], "d", f"on {machine['devices']:.6g} devices")
    if machine["price"]:
        out["money"] = entry(hours * machine["price"], "", "at price_per_gpu_hour")
    decay = optimal_weight_decay(n, d, b, rate or 1.0)
    least = batch_tradeoff(d, b, batch["critical_tokens"])
    out["batch_size"] = entry(b, "tokens", "power-lines")
    out["critical_batch_size"] = entry(batch["critical_tokens"], "tokens", "power-lines")
    out["steps"] = entry(d / b, "steps", "tokens / batch_size")
    out["fewest_steps"] = entry(least["steps"] / (1 + least["steps_overhead"]), "steps", "power-lines")
    if machine["devices"]:
        out["seconds_per_step"] = entry(6 * n * b / (machine["flops_per_hour"] / 3600 * machine["devices"]), "s", "6 N batch_size on the devices")
    out["timescale"] = entry(decay["timescale"], "share of the run", "power-lines")
    if rate is None:
        out["rate_times_decay"] = entry(decay["weight_decay"], "per step", "power-lines")
    else:
        out["weight_decay"] = entry(decay["weight_decay"], "", "power-lines")
    out["cost_of_skill_shift"] = entry(_shift_cost(surface, n, total) - loss, "nats", "skill-compute-optima")
    return out


def _shift_cost(surface, n, total):
    """The greater loss of the two sizes that the wrong mix of skills may call best, at the same cost."""
    sizes = n * np.array([1 / SKILL_SHIFT, SKILL_SHIFT])
    return float(np.max(surface.loss(sizes, surface.affordable(sizes, total))))


def _deviating(surface, n, d):
    """Other sizes at the same cost; and the tokens and the cost at which they reach the plan's loss, infinite where none do."""
    sizes = n * np.array(FACTORS)
    total = surface.cost(n, d)
    tokens = surface.affordable(sizes, total)
    needed = surface.tokens_for(sizes, float(surface.loss(n, d)))
    return {
        "factor": list(FACTORS),
        "params": sizes.tolist(),
        "tokens": tokens.tolist(),
        "loss": surface.loss(sizes, tokens).tolist(),
        "tokens_for_the_same_loss": needed.tolist(),
        "compute_for_the_same_loss": (surface.cost(sizes, needed) / total).tolist(),
    }


def _warnings(surface, quantities, ranges, runs, budgeted, flops, lost):
    n, d = (quantities[name]["value"] for name in ("params", "tokens"))
    said = []
    for name, (low, high) in ranges.items():
        value = quantities[name]["value"]
        if not low <= value <= high:
            beyond = value / high if value > high else low / value
            said.append(f"{name} of the plan lie {beyond:.3g} times {'above the largest' if value > high else 'below the smallest'} of the {runs}: the law is extrapolated.")
    if lost:
        said.append(f"{lost} resampled laws allow no such plan and are left out of the intervals.")
    if quantities["timescale"]["value"] > 1:
        said.append("The optimal timescale of power-lines is longer than the run: it is extrapolated to so few tokens per parameter, and so is the weight decay.")
    if budgeted and d >= surface.most_tokens * (1 - 1e-9):
        if surface.saturates:
            said.append("max_epochs binds: more data, or more epochs, would lower the loss.")
        else:
            faded = float(replace(surface, saturates=True).loss(n, d))
            said.append(
                "max_tokens binds: more data would lower the loss, and so may repeating them (max_epochs). The plain law counts all parameters in full; "
                f"the law of repeated data, where those beyond the balance with the tokens fade, gives {faded:.4g} nats."
            )
    if flops and surface.cost(n, d) < 0.95 * flops:
        said.append("max_params and max_tokens leave part of the budget unused.")
    return said


def _notes(surface, quantities, found):
    """What the intervals are, and what the papers say of this plan."""
    value = {name: entry["value"] for name, entry in quantities.items()}
    if found is None:
        intervals = (
            "No intervals: published constants come with standard errors at most and without their covariance, and since A goes with alpha and B with beta, these say "
            "nothing of a plan. Fit a table for intervals."
        )
    elif found.resamples is None:
        intervals = "No intervals: the fit has no bootstrap."
    else:
        intervals = (
            "Intervals are the central 90 % over resampled runs. Those of batch, steps, timescale and weight decay leave out the errors of power-lines' own constants, "
            "whose covariance is not published."
        )
    said = [
        intervals,
        f"power-lines: no batch reaches the loss in fewer than {value['fewest_steps']:.3g} steps; the critical one takes twice these and twice the tokens. "
        "The constants come from models of 111M to 3.3B params with rates falling linearly to zero, the prefactors are unverified.",
        "skill-compute-optima: at the same compute recalling facts wants more parameters, code more tokens, and a validation loss with the wrong mix of skills moves the best "
        f"size by up to about 50 % (the paper's figure, not re-measured here). Such a size, {value['params'] / SKILL_SHIFT:.3g} or {value['params'] * SKILL_SHIFT:.3g} params, "
        f"costs up to {value['cost_of_skill_shift']:.2g} nats of this law's loss.",
    ]
    if surface.served:
        cheaper = f", {100 * value['saving']:.3g} % less in all than the training-optimal model of the same loss" if "saving" in value else ""
        said.append(f"beyond-chinchilla: {surface.served:.3g} served tokens make the best model smaller and its training longer{cheaper}.")
    if value.get("epochs", 1) > 1:
        said.append(
            f"sld-bench and one-epoch: {value['epochs']:.3g} epochs are worth {value['effective_tokens'] / surface.unique:.3g} of fresh text, or "
            f"{value['worth_of_repetition']:.2g} nats against the best single epoch at the same cost; parameters beyond the balance with the unique tokens fade as well. "
            "R_D* = 15.39 and R_N* = 5.31 come from one study, on C4. The weight decay of power-lines does not cover repeated data."
        )
    return said
