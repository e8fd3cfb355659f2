import json

import numpy as np
import pytest

import lawbook
from lawbook.chapters.scaling.beyond_chinchilla import CONSTANTS, chinchilla_loss
from lawbook.contract import LawbookError

EPOCH = CONSTANTS["epoch"]


def runs(n=60, noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    params, tokens = 10 ** rng.uniform(7, 9.5, n), 10 ** rng.uniform(9, 11, n)
    return {"params": params, "tokens": tokens, "loss": chinchilla_loss(params, tokens, constants=EPOCH) * np.exp(noise * rng.normal(size=n))}


def brute(budget, served=0.0, most_params=np.inf, most_tokens=np.inf):
    """The least loss over a fine grid of sizes that spend the budget on training and serving."""
    n = np.geomspace(1e6, 1e14, 400_001)
    n = n[n <= most_params]
    d = np.minimum((budget - 2 * n * served) / (6 * n), most_tokens)
    loss = np.where(d > 0, chinchilla_loss(n, np.maximum(d, 1), constants=EPOCH), np.inf)
    return loss.min()


@pytest.mark.parametrize(
    "options",
    [
        {"compute": 1e23},
        {"compute": "1e24", "inference_tokens": "10T"},
        {"compute": 1e22, "inference_tokens": 1e11, "max_params": 3e9},
        {"compute": 1e24, "max_tokens": 5e11},
        {"compute": 1e24, "inference_tokens": 1e13, "max_tokens": 5e12},
    ],
)
def test_no_other_split_of_the_budget_is_better(options):
    made = lawbook.plan("epoch", **options)
    served = {"10T": 1e13}.get(options.get("inference_tokens"), options.get("inference_tokens", 0.0))
    budget = float(options["compute"])
    best = brute(budget, served, options.get("max_params", np.inf), options.get("max_tokens", np.inf))
    assert made["loss"] == pytest.approx(best, rel=1e-6) and made["total_flops"] <= budget * (1 + 1e-9)


def test_a_target_loss_at_the_least_total_cost():
    made = lawbook.plan("epoch", target_loss=2.1, inference_tokens=1e13)
    assert made["loss"] == pytest.approx(2.1)
    n = np.geomspace(made["params"] / 20, made["params"] * 20, 100_001)
    left = 2.1 - EPOCH["E"] - EPOCH["A"] * n ** -EPOCH["alpha"]
    d = np.where(left > 0, (EPOCH["B"] / np.maximum(left, 1e-9)) ** (1 / EPOCH["beta"]), np.inf)
    assert made["total_flops"] <= np.min(6 * n * d + 2 * n * 1e13) * (1 + 1e-9)


def test_budgets_say_the_same_in_their_own_units():
    flops = 1000 * 3600 * 989e12 * 0.4
    expected = lawbook.plan("epoch", compute=flops)["params"]
    assert lawbook.plan("epoch", gpu_hours=1000)["params"] == pytest.approx(expected)
    assert lawbook.plan("epoch", money=2000, price_per_gpu_hour=2)["params"] == pytest.approx(expected)
    assert lawbook.plan("epoch", days=1000 / 24 / 8, devices=8)["params"] == pytest.approx(expected)


def test_a_plan_from_a_table_has_intervals_that_hold_the_truth():
    made = lawbook.plan(runs(), compute=1e22)
    truth = lawbook.plan("epoch", compute=1e22)
    for name in ("params", "tokens", "loss"):
        entry = made.quantities[name]
        assert entry["low"] < entry["value"] < entry["high"]
        assert abs(np.log(truth[name] / entry["value"])) < 2 * np.log(entry["high"] / entry["low"]) / 2, "one sample of noise may lie outside 90 %, not far outside"
    assert any("extrapolated" in sentence for sentence in made.warnings)
    assert not lawbook.plan(runs(), compute=1e20).warnings


def test_deviating_costs():
    made = lawbook.plan("epoch", compute=1e23)
    factors, multiples = made.deviating["factor"], made.deviating["compute_for_the_same_loss"]
    assert multiples[factors.index(1.0)] == pytest.approx(1) and all(m >= 1 for m in multiples)
    assert np.argmin(made.deviating["loss"]) == factors.index(1.0)


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
    "bounds with a loss": ({"target_loss": 2.1, "max_params": 1e9}, "go with a budget"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_budgets(case):
    options, said = BAD[case]
    with pytest.raises(LawbookError, match=said):
        lawbook.plan("epoch", **options)


def test_plans_in_the_shell(shell):
    status, out, _ = shell("plan", "--compute", "5.88e23", "--format", "json")
    assert status == 0 and json.loads(out)["quantities"]["tokens_per_param"]["value"] == pytest.approx(18.4, abs=0.05)
    status, out, _ = shell("plan", "hoffmann", "--target-loss", "2.0", "--inference-tokens", "10T", "--learning-rate", "1e-3")
    assert status == 0 and "weight_decay" in out and "Deviating" in out
    status, _, err = shell("plan", "nowhere.csv", "--compute", "1e22")
    assert status == 2 and "no file" in err


def test_reports_are_whole_and_hold_everything_themselves(shell, tmp_path):
    import re

    table = tmp_path / "runs.csv"
    columns = runs()
    table.write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]))
    for verb, options in (("fit", ("--law", "beyond-chinchilla.chinchilla_loss")), ("plan", ("--compute", "1e21"))):
        page = tmp_path / f"{verb}.html"
        assert shell(verb, table, *options, "--report", page)[0] == 0
        text = page.read_text()
        assert text.count("<svg") == {"fit": 3, "plan": 2}[verb] and f"lawbook {verb}" in text
        assert not re.search(r"<script|<link|src=|url\((?!#)|@import", text) and "</html>" in text
        assert shell(verb, table, *options, "--report", "/no/such/place/out.html")[0] == 2
    assert sorted(p.name for p in tmp_path.glob("*.html*")) == ["fit.html", "plan.html"] and not list(tmp_path.glob("*.part"))
