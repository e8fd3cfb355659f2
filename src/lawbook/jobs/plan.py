"""The optimum under a budget, from a fit of the Chinchilla law or from published constants, with what deviating from it costs."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..artifacts.devices import device as device_facts
from ..chapters.scaling.beyond_chinchilla import CONSTANTS, chinchilla_loss, compute_optimal, inference_optimal
from ..chapters.scaling.power_lines import batch_sizes, optimal_weight_decay
from ..contract import DomainError, LawbookError, Shown
from ..contract.numbers import parse_number
from ..numerics import bracketed_root
from .fit import Fit, Ranking, fit

LAW = "beyond-chinchilla.chinchilla_loss"
FACTORS = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)  # of the parameters, for the cost of deviating
MOST_RESAMPLES = 200


@dataclass(frozen=True)
class Plan(Shown):
    """What to train. `quantities` maps a name to {value, unit, low, high, source}; low and high are the central 90 % over the resampled law, None without a bootstrap."""

    budget: str
    law: dict[str, float]
    quantities: dict[str, dict[str, Any]]
    deviating: dict[str, list[float]]  # at other sizes: params, tokens and loss at the same training compute, and the compute for the same loss as a multiple
    warnings: list[str] = field(default_factory=list)
    fit: Fit | None = None

    def __getitem__(self, name):
        return self.quantities[name]["value"]

    def to_dict(self):
        return {"budget": self.budget, "law": self.law, "quantities": self.quantities, "deviating": self.deviating, "warnings": self.warnings}


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
    learning_rate=None,
    seed=0,
):
    """The Plan under one budget: training `compute` (FLOP), `gpu_hours`, `money` with `price_per_gpu_hour`, `days` on a number of `devices`, or a `target_loss`.

    `source` is a Fit or Ranking of the Chinchilla law, a table to fit it to, or the name of published constants. With `inference_tokens` the budget pays for serving
    them too (2 FLOP per parameter and token), and a target loss is reached at the least total cost. `max_params` and `max_tokens` bound the answer.
    `utilization` is the share of the device's bf16 peak that training reaches; .4 is an assumption, measure yours.
    """
    given = {
        name: _number(name, v, unit)
        for name, v, unit in (("compute", compute, "FLOP"), ("gpu_hours", gpu_hours, ""), ("money", money, ""), ("days", days, ""), ("target_loss", target_loss, "nats"))
        if v is not None
    }
    if len(given) != 1:
        raise LawbookError(f"A plan needs one budget of compute, gpu_hours, money, days or target_loss; it was given {', '.join(given) or 'none'}.")
    served = _number("inference_tokens", inference_tokens, "tokens", zero=True)
    bounds = {name: None if v is None else _number(name, v, unit) for name, v, unit in (("max_params", max_params, "params"), ("max_tokens", max_tokens, "tokens"))}
    if target_loss is not None and any(bounds.values()):
        raise LawbookError("max_params and max_tokens go with a budget, not with a target_loss.")
    (kind,) = given
    flops = None if kind == "target_loss" else _flops(kind, given[kind], price_per_gpu_hour, devices, device, utilization)
    law, found, resamples = _law(source, seed)

    def optimum(constants):
        if kind == "target_loss":
            if given[kind] <= constants["E"]:
                raise DomainError(f"target_loss must be above the floor of the law, {constants['E']:.5g} nats; it was {given[kind]:.5g}.")
            best = inference_optimal(given[kind], served, constants=constants)
            return best["params"], best["tokens"]
        return _within(flops, served, constants, bounds)

    try:
        n, d = optimum(law)
    except DomainError as error:
        raise LawbookError(f"No plan: {error}") from None
    if min(n, d) < 1:
        raise LawbookError(f"No plan: the budget buys {n:.3g} params and {d:.3g} tokens, less than one.")
    spread = [_quantities(*pair, served, constants, learning_rate) for constants in resamples if (pair := _or_none(optimum, constants))]
    quantities = _quantities(n, d, served, law, learning_rate)
    for name, entry in quantities.items():
        values = [q[name]["value"] for q in spread]
        entry["low"], entry["high"] = np.quantile(values, [0.05, 0.95]).tolist() if len(values) > 20 else (None, None)
    said = _warnings(n, d, flops, found, bounds, len(resamples) - len(spread))
    budget = f"{kind.replace('_', ' ')} {given[kind]:.6g}" + (f" = {flops:.3g} FLOP" if flops and kind != "compute" else "") + (f", {served:.3g} tokens served" if served else "")
    return Plan(budget, law, quantities, _deviating(n, d, law), said, found)


def _number(name, value, unit="", zero=False):
    value = parse_number(value, name, unit) if isinstance(value, str) else value
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise DomainError(f"{name} must be a number {'of at least' if zero else 'above'} 0; it was {value!r}.")
    return float(value)


def _flops(kind, amount, price, devices, device, utilization):
    if kind == "compute":
        return amount
    peak = device_facts(device).peak_flops
    if _number("utilization", utilization) > 1:
        raise DomainError(f"utilization must be a number above 0 and at most 1; it was {utilization}.")
    if kind == "money":
        if price is None:
            raise LawbookError("A budget of money needs price_per_gpu_hour.")
        amount = amount / _number("price_per_gpu_hour", price)
    if kind == "days":
        if devices is None:
            raise LawbookError("A budget of days needs the number of devices.")
        amount = 24 * amount * _number("devices", devices)
    return 3600 * amount * peak * utilization


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


def _within(flops, served, constants, bounds):
    """The lowest loss for a total budget, inside the bounds."""
    if served:
        floor = constants["E"]

        def spent(log_gap):
            return np.log(inference_optimal(floor + np.exp(log_gap), served, constants=constants)["total_flops"] / flops)

        cheap = np.log(compute_optimal(flops, constants=constants)["loss"] - floor)  # serving costs more: the loss is higher than this
        best = inference_optimal(floor + np.exp(bracketed_root(spent, cheap, cheap + 12, what="the budget")), served, constants=constants)
    else:
        best = compute_optimal(flops, constants=constants)
    n, d = best["params"], best["tokens"]
    if bounds["max_params"] and n > bounds["max_params"]:
        n = bounds["max_params"]
        d = (flops - 2 * n * served) / (6 * n)
    if bounds["max_tokens"] and d > bounds["max_tokens"]:
        d = bounds["max_tokens"]
        n = min(flops / (6 * d + 2 * served), bounds["max_params"] or np.inf)
    if d <= 0:
        raise DomainError("inference_tokens leave nothing of the budget for training at max_params.")
    return n, d


def _quantities(n, d, served, constants, learning_rate):
    def entry(value, unit, source):
        return {"value": float(value), "unit": unit, "low": None, "high": None, "source": source}

    batch = batch_sizes(d)
    out = {
        "params": entry(n, "params", "beyond-chinchilla"),
        "tokens": entry(d, "tokens", "beyond-chinchilla"),
        "tokens_per_param": entry(d / n, "tokens/param", "beyond-chinchilla"),
        "loss": entry(chinchilla_loss(n, d, constants=constants), "nats", "beyond-chinchilla"),
        "train_flops": entry(6 * n * d, "FLOP", "6 N D"),
        "total_flops": entry(6 * n * d + 2 * n * served, "FLOP", "6 N D + 2 N D_inf"),
        "batch_size": entry(batch["optimal_tokens"], "tokens", "power-lines"),
        "critical_batch_size": entry(batch["critical_tokens"], "tokens", "power-lines"),
    }
    if learning_rate is not None:
        decay = optimal_weight_decay(n, d, batch["optimal_tokens"], _number("learning_rate", learning_rate))
        out["weight_decay"] = entry(decay["weight_decay"], "", "power-lines")
        out["timescale"] = entry(decay["timescale"], "share of the run", "power-lines")
    return out


def _deviating(n, d, constants):
    """Other sizes at the same training compute; and the training compute at which they reach the plan's loss, infinite where none does."""
    sizes = n * np.array(FACTORS)
    tokens = d / np.array(FACTORS)
    target = float(chinchilla_loss(n, d, constants=constants))
    left = target - constants["E"] - constants["A"] * sizes ** -constants["alpha"]
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = np.where(left > 0, (constants["B"] / np.where(left > 0, left, 1)) ** (1 / constants["beta"]), np.inf)
    return {
        "factor": list(FACTORS),
        "params": sizes.tolist(),
        "tokens": tokens.tolist(),
        "loss": np.asarray(chinchilla_loss(sizes, tokens, constants=constants)).tolist(),
        "compute_for_the_same_loss": (sizes * needed / (n * d)).tolist(),
    }


def _warnings(n, d, flops, found, bounds, lost):
    said = []
    if found is not None and found.ranges:
        for name, value in (("params", n), ("tokens", d)):
            low, high = found.ranges[name]
            if not low <= value <= high:
                beyond = value / high if value > high else low / value
                said.append(
                    f"{name} of the plan lie {beyond:.3g} times {'above the largest' if value > high else 'below the smallest'} of the fitted runs: the law is extrapolated."
                )
    if lost:
        said.append(f"{lost} resampled laws allow no such plan and are left out of the intervals.")
    if bounds["max_tokens"] and d >= bounds["max_tokens"]:
        said.append("max_tokens binds: more data, or repeating them (one-epoch.epochs_value says what that is worth), would lower the loss.")
    if flops and n * d * 6 < 0.95 * flops and bounds["max_tokens"] and bounds["max_params"]:
        said.append("max_params and max_tokens leave part of the budget unused.")
    return said
