import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import lawbook
from lawbook.chapters.scaling.beyond_chinchilla import CONSTANTS, chinchilla_loss
from lawbook.chapters.scaling.multi_power_law import PUBLISHED, loss_curve, schedule
from lawbook.chapters.scaling.sld_bench import REPEATED, sld_law
from lawbook.contract import DomainError, LawbookError, catalogue
from lawbook.jobs.schedule import plan_schedule
from lawbook.jobs.surface import Surface

EPOCH = CONSTANTS["epoch"]


def runs(n=60, noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    params, tokens = 10 ** rng.uniform(7, 9.5, n), 10 ** rng.uniform(9, 11, n)
    return {"params": params, "tokens": tokens, "loss": chinchilla_loss(params, tokens, constants=EPOCH) * np.exp(noise * rng.normal(size=n))}


@pytest.fixture(scope="module")
def fitted():
    return lawbook.fit(runs(), law="beyond-chinchilla.chinchilla_loss", holdout=0)


def brute(budget, served=0.0, most_params=np.inf, most_tokens=np.inf):
    """The least loss over a fine grid of sizes that spend the budget on training and serving."""
    n = np.append(np.geomspace(1e6, 1e14, 100_001), min(most_params, 1e14))
    n = n[n <= most_params]
    d = np.minimum((budget - 2 * n * served) / (6 * n), most_tokens)
    loss = np.where(d > 0, chinchilla_loss(n, np.maximum(d, 1), constants=EPOCH), np.inf)
    return loss.min()


def repeated(unique, n, d):
    """The published law of repeated data with the constants of EPOCH, row by row."""
    constants = [*np.log([EPOCH["A"], EPOCH["B"], EPOCH["E"]]), EPOCH["alpha"], EPOCH["beta"], *REPEATED[5:]]
    n, d = np.broadcast_arrays(n, d)
    return sld_law("data_constrained", np.column_stack([np.full(n.size, unique), n.ravel(), d.ravel()]), constants).reshape(n.shape)


@pytest.mark.parametrize(
    "options",
    [
        {"compute": 1e23},
        {"compute": "1e24", "inference_tokens": "10T"},
        {"compute": 1e22, "inference_tokens": 1e11, "max_params": 3e9},
        {"compute": 1e24, "max_tokens": 5e11},
        {"compute": 1e24, "inference_tokens": 1e13, "max_tokens": 5e12},
        {"compute": 1e24, "max_tokens": 5e11, "max_params": 2e11},
    ],
)
def test_no_other_split_of_the_budget_is_better(options):
    made = lawbook.plan("epoch", **options)
    served = {"10T": 1e13}.get(options.get("inference_tokens"), options.get("inference_tokens", 0.0))
    budget = float(options["compute"])
    best = brute(budget, served, options.get("max_params", np.inf), options.get("max_tokens", np.inf))
    assert made["loss"] == pytest.approx(best, rel=1e-6) and made["total_flops"] <= budget * (1 + 1e-9)


@pytest.mark.parametrize(
    ("unique", "epochs", "served", "most_params"), [(2e11, 40, 0.0, np.inf), (2e11, 4, 0.0, np.inf), (1e11, 30, 1e12, np.inf), (2e11, 60, 0.0, 3e10), (5e12, 4, 0.0, np.inf)]
)
def test_no_other_size_and_epochs_are_better(unique, epochs, served, most_params):
    """The plan over repeated data against a grid over sizes and tokens of the published law, some of the budget unspent."""
    made = lawbook.plan("epoch", compute=1e24, max_tokens=unique, max_epochs=epochs, inference_tokens=served, max_params=most_params if np.isfinite(most_params) else None)
    n = np.append(np.geomspace(1e9, min(1e13, most_params), 3000), 1e24 / (6 * unique * epochs + 2 * served))[:, None]
    spent = np.linspace(0.5, 1, 21)  # of the tokens that are within budget and bounds
    d = spent * np.minimum((1e24 / n - 2 * served) / 6, unique * epochs)
    loss = np.where(d > 0, repeated(unique, n, np.maximum(d, 1)), np.inf)
    assert made["loss"] <= loss.min() + 1e-12 and made["loss"] == pytest.approx(loss.min(), abs=2e-6)
    assert made["total_flops"] <= 1e24 * (1 + 1e-9) and made["epochs"] <= epochs * (1 + 1e-9)
    assert made["loss"] == pytest.approx(float(repeated(unique, np.array(made["params"]), np.array(made["tokens"]))), rel=1e-12)
    assert made["worth_of_repetition"] >= 0 and made["effective_tokens"] <= made["tokens"] * (1 + 1e-12)


def test_repetition_is_worth_less_than_fresh_text_and_never_harms():
    losses = [lawbook.plan("epoch", compute=1e24, max_tokens=2e11, max_epochs=e)["loss"] for e in (1.001, 2, 4, 16, 64, 1000)]
    assert all(np.diff(losses) <= 1e-12) and abs(losses[-1] - losses[-2]) < 1e-12  # beyond the best number of epochs nothing changes
    assert losses[-1] > lawbook.plan("epoch", compute=1e24)["loss"]
    plenty, plain = (lawbook.plan("epoch", compute=1e24, **more) for more in ({"max_tokens": 5e12, "max_epochs": 4}, {}))
    assert plenty["loss"] == plain["loss"] and plenty["epochs"] == 1 and plenty["worth_of_repetition"] == 0


def test_a_target_loss_at_the_least_total_cost():
    made = lawbook.plan("epoch", target_loss=2.1, inference_tokens=1e13)
    assert made["loss"] == pytest.approx(2.1)
    n = np.geomspace(made["params"] / 20, made["params"] * 20, 100_001)
    left = 2.1 - EPOCH["E"] - EPOCH["A"] * n ** -EPOCH["alpha"]
    d = np.where(left > 0, (EPOCH["B"] / np.maximum(left, 1e-9)) ** (1 / EPOCH["beta"]), np.inf)
    assert made["total_flops"] <= np.min(6 * n * d + 2 * n * 1e13) * (1 + 1e-9)
    assert 0 < made["saving"] < 1


@pytest.mark.parametrize(
    "options",
    [{"max_params": 1e10}, {"max_tokens": 1e11}, {"max_tokens": 1e11, "max_epochs": 5}, {"max_tokens": 4e11, "max_epochs": 50, "inference_tokens": 1e13}, {"max_params": 1e9}],
)
def test_a_target_loss_inside_bounds(options):
    """Against a grid over sizes and tokens: no point that reaches the loss is cheaper. A loss out of reach is said to be."""
    if options == {"max_params": 1e9}:
        with pytest.raises(LawbookError, match="cannot be reached within max_params"):
            lawbook.plan("epoch", target_loss=2.1, **options)
        return
    made = lawbook.plan("epoch", target_loss=2.1, **options)
    assert made["loss"] == pytest.approx(2.1, abs=1e-9)
    unique, epochs, served = options.get("max_tokens", np.inf), options.get("max_epochs", 1), options.get("inference_tokens", 0.0)
    n = np.geomspace(made["params"] / 8, min(made["params"] * 8, options.get("max_params", np.inf)), 700)[:, None]
    d = np.geomspace(made["tokens"] / 8, min(made["tokens"] * 8, unique * epochs), 700)
    loss = repeated(unique, n, d) if epochs > 1 else chinchilla_loss(n, d, constants=EPOCH)
    cost = np.where(loss <= 2.1, n * (6 * d + 2 * served), np.inf).min()
    assert made["total_flops"] <= cost * (1 + 1e-9) and made["total_flops"] == pytest.approx(cost, rel=0.02)


@pytest.mark.parametrize(
    "options",
    [{"max_tokens": 1e12}, {"max_params": 7e9}, {"max_params": 7e9, "inference_tokens": 1e13}, {"max_tokens": 1e12, "max_params": 1e10}, {"max_tokens": 1e11, "max_epochs": 6}],
)
def test_bounds_alone_give_the_largest_model_that_no_other_beats(options):
    made = lawbook.plan("epoch", **options)
    unique, epochs, served = options.get("max_tokens", np.inf), options.get("max_epochs", 1), options.get("inference_tokens", 0.0)
    assert made["params"] == options.get("max_params") or made["tokens"] == pytest.approx(unique * epochs)
    assert made["params"] <= options.get("max_params", np.inf) and made["tokens"] <= unique * epochs

    def loss(log_n):
        n = np.exp(log_n)
        d = (made["total_flops"] / n - 2 * served) / 6
        return float(repeated(unique, np.array(n), np.array(d)) if epochs > 1 else chinchilla_loss(n, d, constants=EPOCH))

    middle = np.log(made["params"])
    # beyond the bounds there may be better models of the same cost, at the best point there are none
    found = minimize_scalar(loss, bounds=(middle - 0.4, middle + 0.4), method="bounded", options={"xatol": 1e-9})
    assert found.x == pytest.approx(middle, abs=1e-4) and made["loss"] == pytest.approx(found.fun, abs=1e-9)


def test_budgets_say_the_same_in_their_own_units():
    flops = 1000 * 3600 * 989e12 * 0.4
    expected = lawbook.plan("epoch", compute=flops, devices=8, price_per_gpu_hour=2)
    assert (expected["gpu_hours"], expected["money"], expected["days"]) == pytest.approx((1000, 2000, 1000 / 24 / 8))
    assert expected["seconds_per_step"] * expected["steps"] == pytest.approx(86400 * expected["days"])
    for options in ({"gpu_hours": 1000}, {"money": 2000, "price_per_gpu_hour": 2}, {"days": 1000 / 24 / 8, "devices": 8}):
        assert lawbook.plan("epoch", **options)["params"] == pytest.approx(expected["params"])


def test_more_budget_never_harms():
    for bounds in ({}, {"served": 1e12}, {"unique": 3e11, "epochs": 8, "saturates": True}, {"most_params": 1e10}, {"unique": 1e11, "epochs": 8, "saturates": True, "served": 1e12}):
        surface = Surface(EPOCH, **bounds)
        made = np.array([surface.at_budget(c) for c in np.geomspace(1e22, 1e26, 9)])
        assert all(np.diff(surface.loss(*made.T)) <= 1e-12) and all(np.diff(made[:, 0]) >= -1e-6 * made[:-1, 0]), bounds
    costs = [surface.cost(*surface.at_loss(loss)) for loss in (2.8, 2.6, 2.4, 2.3)]
    assert all(np.diff(costs) > 0)


@pytest.mark.parametrize("options", [{"compute": 1e22}, {"compute": 1e22, "max_tokens": 4e10, "max_epochs": 8, "inference_tokens": 1e11}, {"target_loss": 2.3}])
def test_a_plan_from_a_fit_has_intervals_that_hold_the_truth(fitted, options):
    made = lawbook.plan(fitted, **options)
    truth = lawbook.plan("epoch", **options)
    for name in ("params", "tokens", "loss", "steps", "timescale", "fewest_steps", "cost_of_skill_shift"):
        entry = made.quantities[name]
        if name in ("tokens", "loss") and entry["high"] - entry["low"] < 1e-9 * entry["high"]:
            continue  # held by a bound or by the target
        assert entry["low"] < entry["value"] < entry["high"]
        assert abs(np.log(truth[name] / entry["value"])) < 2 * np.log(entry["high"] / entry["low"]) / 2, "one sample of noise may lie outside 90 %, not far outside"


def test_plans_outside_the_runs_are_said_to_be(fitted):
    assert any("extrapolated" in sentence for sentence in lawbook.plan(fitted, compute=1e22).warnings)
    assert not lawbook.plan(fitted, compute=1e20).warnings and not lawbook.plan("epoch", compute=1e22).warnings
    assert "runs behind the constants epoch" in lawbook.plan("epoch", compute=1e25).warnings[0]
    assert any("max_tokens binds" in sentence for sentence in lawbook.plan("epoch", compute=1e22, max_tokens=1e10).warnings)
    assert any("unused" in sentence for sentence in lawbook.plan("epoch", compute=1e22, max_tokens=1e10, max_params=1e9).warnings)
    plain = lawbook.plan("epoch", compute=1e22)
    assert all(plain.quantities[name]["low"] is None for name in ("params", "loss", "batch_size")) and "without their covariance" in plain.notes[0]


def test_deviating_costs():
    for options in ({"compute": 1e23}, {"compute": 1e23, "inference_tokens": 1e12}, {"compute": 1e23, "max_tokens": 1e11, "max_epochs": 20}):
        made = lawbook.plan("epoch", **options)
        factors, multiples = made.deviating["factor"], made.deviating["compute_for_the_same_loss"]
        assert multiples[factors.index(1.0)] == pytest.approx(1) and all(m >= 1 - 1e-9 for m in multiples)
        assert np.argmin(made.deviating["loss"]) == factors.index(1.0)
        n, d = (np.array(made.deviating[name]) for name in ("params", "tokens_for_the_same_loss"))
        reached = np.isfinite(d)
        assert made.surface.loss(n[reached], d[reached]) == pytest.approx(made["loss"], abs=1e-9)


def test_batch_steps_and_decay_belong_together():
    made = lawbook.plan("epoch", compute=1e23, learning_rate=2e-3)
    assert made["steps"] * made["batch_size"] == pytest.approx(made["tokens"])
    assert made["batch_size"] / (2e-3 * made["weight_decay"] * made["tokens"]) == pytest.approx(made["timescale"])
    assert made["timescale"] == pytest.approx(1.084 * made["tokens_per_param"] ** -0.527)
    assert made["fewest_steps"] * made["critical_batch_size"] == pytest.approx(made["tokens"])
    without = lawbook.plan("epoch", compute=1e23)
    assert without["timescale"] == made["timescale"] and without["rate_times_decay"] == pytest.approx(2e-3 * made["weight_decay"]) and "weight_decay" not in without.quantities


def losses_of(shown, size, peak=3e-4, warmup=None):
    """Convention-B losses, step by step without treads, of the written-down knots and of cosine and warmup-stable-decay."""
    steps, warmup = shown["steps"], shown["warmup_steps"]
    knots = shown["knots"]
    at, share = np.array(knots["step"][1:]), np.array(knots["share_of_peak"][1:])
    written = peak * np.exp(np.interp(np.arange(warmup, steps), at, np.log(share)))
    usual = [schedule(kind, steps, peak, final_rate=peak / 10, warmup_steps=warmup, decay_start=steps * 5 // 6)[warmup:] for kind in ("cosine", "wsd")]
    return [float(loss_curve(r, np.array([len(r) - 1]), **PUBLISHED[size], warmup_sum=0.5 * peak * warmup, initial_rate=peak)[0]) for r in (written, *usual)]


@pytest.mark.parametrize(("steps", "params", "size"), [(24_000, 1e8, "100M"), (60_000, 7e9, "400M")])
def test_the_schedule_written_down_is_the_one_that_was_optimised(steps, params, size):
    shown = plan_schedule(steps, params)
    best, cosine, stable, linear = shown["final_loss"].values()
    written, cosine_by_steps, stable_by_steps = losses_of(shown, size)
    assert best < stable < cosine and best < linear
    assert written == pytest.approx(best, abs=1e-3) and (cosine_by_steps, stable_by_steps) == pytest.approx((cosine, stable), abs=2e-4)
    share = np.array(shown["knots"]["share_of_peak"])
    assert share[0] == 0 and all(np.diff(share[1:]) <= 0) and 0.7 < shown["quantities"]["decay_start"]["value"] < 0.95
    gain = shown["quantities"]["below_cosine"]
    assert gain["value"] == pytest.approx(cosine - best) and gain["low"] <= gain["value"] <= gain["high"]


def test_treads_change_nothing_but_the_time():
    """A run of 24,000 steps in treads of three steps is promised the same losses as step by step."""
    from lawbook.jobs import schedule as module

    _, _, whole = module._compare(PUBLISHED["400M"], 24_000, 1.0, 3e-4)
    _, _, treads = module._compare(PUBLISHED["400M"], 24_000, 3.0, 3e-4)
    assert list(treads.values()) == pytest.approx(list(whole.values()), abs=2e-4)


def test_a_schedule_from_ones_own_curves(fitted):
    """Curves made from the published law give its schedule back."""
    truth, peak = {**PUBLISHED["25M"], "B": 20.0}, 1e-2
    options = {"final_rate": 1e-3, "warmup_steps": 20}
    parts = [
        ("a", schedule("cosine", 600, peak, **options)),
        ("b", schedule("constant", 600, peak, **options)),
        ("c", schedule("two_stage", 600, peak, decay_start=300, second_rate=2e-3, **options)),
    ]
    table = {
        "curve": np.concatenate([np.full(600, name) for name, _ in parts]),
        "step": np.tile(np.arange(600), 3),
        "learning_rate": np.concatenate([rates for _, rates in parts]),
        "loss": np.concatenate([np.concatenate([[np.nan] * 10, loss_curve(rates, np.arange(10, 600), **truth)]) for _, rates in parts]),
    }
    shown = plan_schedule(3000, 1e8, curves=table)
    assert shown["peak_rate"] == pytest.approx(peak) and any("5 times as long" in note for note in shown["notes"])
    assert shown["final_loss"]["optimised"] < shown["final_loss"]["cosine to a tenth"] and shown["quantities"]["below_cosine"]["low"] is None
    one = replace(fitted.best, law=catalogue.result("multi-power-law.loss_curve"), parameters=truth)
    own = plan_schedule(3000, 1e8, rate=peak, curves=one)
    assert shown["final_loss"]["optimised"] == pytest.approx(own["final_loss"]["optimised"], abs=0.02) and own["peak_rate"] == peak
    with pytest.raises(LawbookError, match="learning_rate must be given"):
        plan_schedule(3000, 1e8, curves=one)
    with pytest.raises(LawbookError, match="at least 8 losses"):
        plan_schedule(3000, 1e8, curves={"step": [0, 1], "learning_rate": [1e-3, 1e-3], "loss": [3.0, 2.9], "curve": ["a", "a"]})
    with pytest.raises(LawbookError, match=r"curves must be a fit of multi-power-law\.loss_curve"):
        lawbook.plan("epoch", compute=1e21, curves=fitted)


def test_hardly_any_steps_have_no_schedule():
    made = lawbook.plan("epoch", compute=1e12)
    assert made.schedule is None and made["steps"] < 200 and json.dumps(made.to_dict()["notes"])


def test_a_surface_is_the_plain_law_up_to_the_balance():
    surface = Surface(EPOCH, unique=1e11, epochs=4, saturates=True)
    n, d = np.array([1e8, 1e9, surface.balanced(1e11)]), 1e11
    assert surface.loss(n, d) == pytest.approx(chinchilla_loss(n, d, constants=EPOCH), rel=1e-12)
    assert surface.loss(1e12, d) > chinchilla_loss(1e12, d, constants=EPOCH)
    with pytest.raises(DomainError, match="floor"):
        surface.at_loss(1.5)


BAD = {
    "two budgets": ({"compute": 1e22, "gpu_hours": 3}, "one budget"),
    "no budget": ({}, "one budget"),
    "no price": ({"money": 5}, "price_per_gpu_hour"),
    "no devices": ({"days": 5}, "number of devices"),
    "unknown device": ({"gpu_hours": 5, "device": "H1000"}, "did you mean"),
    "wrong unit": ({"compute": "5GB"}, "'GB' is not a suffix"),
    "negative": ({"compute": -1}, "compute must be a number above 0"),
    "utilization": ({"gpu_hours": 5, "utilization": 1.5}, "utilization must be"),
    "below the floor": ({"target_loss": 1.5}, "No plan"),
    "out of reach": ({"target_loss": 2.1, "max_params": 1e9}, "No plan: target_loss 2.1 cannot be reached"),
    "less than an epoch": ({"compute": 1e22, "max_tokens": 1e10, "max_epochs": 0.5}, "max_epochs must be a number of at least 1"),
    "epochs of nothing": ({"compute": 1e22, "max_epochs": 4}, "max_epochs needs max_tokens"),
    "no epochs": ({"compute": 1e22, "max_tokens": 1e10, "max_epochs": "many"}, "max_epochs must be a number"),
    "learning rate": ({"compute": 1e22, "learning_rate": 2}, "learning_rate must be a number above 0 and at most 1"),
    "less than a model": ({"compute": 1.0}, "less than one"),
    "no such curves": ({"compute": 1e22, "curves": ["nowhere.csv"]}, "no file"),
    "no devices at all": ({"days": 5, "devices": 0}, "devices must be a number above 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_budgets(case):
    options, said = BAD[case]
    with pytest.raises(LawbookError, match=said):
        lawbook.plan("epoch", **options)


def test_plans_in_the_shell(shell):
    status, out, _ = shell("plan", "--compute", "5.88e23", "--format", "json")
    answer = json.loads(out)
    assert status == 0 and answer["quantities"]["tokens_per_param"]["value"] == pytest.approx(18.4, abs=0.05) and answer["schedule"]["knots"]["step"][0] == 0
    status, out, _ = shell("plan", "hoffmann", "--target-loss", "2.0", "--inference-tokens", "10T", "--learning-rate", "1e-3")
    assert status == 0 and "weight_decay" in out and "Deviating" in out and "Learning rate" in out
    status, out, _ = shell("plan", "--max-tokens", "200B", "--max-epochs", "4", "--compute", "1e24")
    assert status == 0 and "worth_of_repetition" in out
    status, out, _ = shell("plan", "--max-params", "7B", "--inference-tokens", "10T", "--format", "json")  # half of the deviating sizes allow nothing
    assert status == 0 and json.loads(out)["quantities"]["params"]["value"] == 7e9
    for bad in (("nowhere.csv", "--compute", "1e22"), ("--compute", "1e22", "--curves", "nowhere.csv")):
        status, _, err = shell("plan", *bad)
        assert status == 2 and "no file" in err and "Traceback" not in err


def test_reports_are_whole_and_hold_everything_themselves(shell, tmp_path):
    import re

    table = tmp_path / "runs.csv"
    columns = runs()
    table.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]))
    demanding = ("--target-loss", "2.3", "--max-tokens", "100B", "--max-epochs", "8", "--inference-tokens", "1T")
    for verb, name, count, arguments in (
        ("fit", "fit", 3, (table, "--law", "beyond-chinchilla.chinchilla_loss")),
        ("plan", "plan", 4, (table, "--compute", "1e21")),
        ("plan", "demanding", 4, demanding),
    ):
        page = tmp_path / f"{name}.html"
        assert shell(verb, *arguments, "--report", page)[0] == 0
        text = page.read_text()
        assert text.count("<svg") == count and f"lawbook {verb}" in text
        assert not re.search(r"<script|<link|src=|url\((?!#)|@import", text) and "</html>" in text
    assert shell("plan", "--compute", "1e24", "--report", "/no/such/place/out.html")[0] == 2
    assert len(list(tmp_path.glob("*.html*"))) == 3 and not list(tmp_path.glob("*.part"))
