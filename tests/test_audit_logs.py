"""The audit of logs: every number it gives is traced to an independent computation on the same log."""

import itertools
import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

import made_logs
from lawbook import audit
from lawbook.contract import LawbookError
from lawbook.faces.cli import lawbook as shell
from lawbook.faces.report import write_audit
from lawbook.jobs.audit_log import LogAudit
from lawbook.numerics.statistics import clustered_interval, holm, sign_flip


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("LAWBOOK_HOME", str(tmp_path / "home"))


def measure(found, name, section=None):
    """The one measure of that name."""
    (hit,) = [m for m in found.measures if m.name == name and (section is None or m.section == section)]
    return hit


def test_statistics_of_the_audit():
    """Clustered intervals cover, and agree with exact ones where clusters are single; Holm and sign flips as defined."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        rates = rng.beta(2, 6, 40)
        n = rng.integers(1, 12, 40)
        _, low, high = clustered_interval(rng.binomial(n, rates), n, 0.9)
        covered += low <= 0.25 <= high
    assert stats.binom.cdf(covered, 400, 0.9) > 1e-3, covered
    exact = stats.binomtest(3, 50).proportion_ci(0.95, "exact")
    assert clustered_interval([1] * 3 + [0] * 47, [1] * 50, 0.95)[1:] == pytest.approx(tuple(exact))
    assert holm([0.01, 0.04, 0.03, 0.2]).tolist() == pytest.approx([0.04, 0.09, 0.09, 0.2])
    d = rng.normal(0.4, 1, 12)
    every = [abs(np.dot(signs, d)) >= abs(d.sum()) - 1e-12 for signs in itertools.product((-1, 1), repeat=12)]
    assert sign_flip(d) == pytest.approx(np.mean(every), abs=0.02)
    many = rng.normal(0.02, 1, 10_001)
    assert sign_flip(many) == pytest.approx(sign_flip(many[:-1]), abs=0.02)


def test_judgments(tmp_path):
    path = tmp_path / "judgments.jsonl"
    lines = made_logs.judge(path)
    found = audit(path)
    scores = {(r["question_id"], r["model"]): r for r in lines if "model" in r}
    duels = {(r["question_id"], r["model_a"], r["model_b"]): r for r in lines if "model_a" in r}
    conflicts, groups, flips, first = {"before": [], "after": []}, {"before": [], "after": []}, 0, []
    orders = {p for ranks in itertools.product(range(3), repeat=3) for p in [tuple(np.sign(ranks[i] - ranks[j]) for i, j in ((0, 1), (1, 2), (0, 2)))]}
    for q in range(60):
        outcome = {"before": {}, "after": {}}
        for a, b in itertools.combinations(range(4), 2):
            one, two = duels[q, f"m{a}", f"m{b}"], duels[q, f"m{b}", f"m{a}"]
            swapped = {"A": "B", "B": "A", "C": "C"}[two["verdict"]]
            outcome["before"][a, b] = {"A": 1, "B": -1, "C": 0}[one["verdict"]] if one["verdict"] == swapped else 0
            flips += one["verdict"] != swapped
            first += [v == "A" for v in (one["verdict"], two["verdict"]) if v != "C"]
            p, r = one["verdict_probabilities"], two["verdict_probabilities"]
            total = [p["A"] + r["B"], p["B"] + r["A"], p["C"] + r["C"]]
            outcome["after"][a, b] = (1, -1, 0)[int(np.argmax(total))]
        for when, duels_here in outcome.items():
            value = []
            for a in range(4):
                p = np.array([scores[q, f"m{a}"]["score_probabilities"][str(s)] for s in range(1, 6)])
                if when == "before":
                    value.append(scores[q, f"m{a}"]["score"])
                else:
                    weight = ((p + 1e-8) / (1 - p + 1e-8)) ** 5 * ((p > 0) & (p < 1))
                    value.append(weight @ np.arange(1, 6) / weight.sum())
            conflicts[when].append(sum(o != np.sign(value[a] - value[b]) for (a, b), o in duels_here.items()))
            groups[when].append(sum((duels_here[i, j], duels_here[j, k], duels_here[i, k]) not in orders for i, j, k in itertools.combinations(range(4), 3)))
    for when in ("before", "after"):
        assert measure(found, f"score against duel, {when}").value == pytest.approx(np.sum(conflicts[when]) / 360)
        assert measure(found, f"duels in circles or broken ties, {when}").value == pytest.approx(np.sum(groups[when]) / 240)
    assert measure(found, "verdict changes with the order").value == pytest.approx(flips / 360)
    assert measure(found, "first shown wins").value == pytest.approx(np.mean(first))
    assert measure(found, "separate parts of the comparisons").value == 1
    laplacian = 60 * 2 * (4 * np.eye(4) - 1)  # four answerers, each pair compared 120 times
    assert measure(found, "mean variance of a difference").value == pytest.approx(2 / 3 * np.trace(np.linalg.pinv(laplacian)))
    assert any("favours the answer shown first" in sentence for sentence in found.summary)
    low, high = measure(found, "score against duel, before").low, measure(found, "score against duel, before").high
    drawn = np.random.default_rng(1).integers(0, 60, (4000, 60))
    boot = np.quantile(np.array(conflicts["before"])[drawn].sum(1) / 360, [0.025, 0.975])
    assert (low, high) == pytest.approx(boot, abs=0.02)


def test_judges_are_told_apart(tmp_path):
    lines = [line | {"judge": name} for seed, name in ((0, "x"), (1, "y")) for line in made_logs.judge(tmp_path / "one.jsonl", questions=20, seed=seed)]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = audit(tmp_path / "two.jsonl")
    assert found.sections == ["Judge x", "Judge y"]
    alone = audit(tmp_path / "one.jsonl")  # that of the second
    for name in ("score against duel, before", "first shown wins", "verdict changes with the order"):
        assert measure(found, name, "Judge y").value == measure(alone, name).value


def test_what_single_measures_refuse(tmp_path):
    z = np.random.default_rng(0).normal(size=(300, 3))
    z[7, 1] = np.inf
    np.savez(tmp_path / "z.npz", logits=z, labels=np.arange(300) % 3)
    with pytest.raises(LawbookError, match=r"infinite .1 row, first 8"):
        audit(tmp_path / "z.npz")
    (tmp_path / "t.jsonl").write_text(json.dumps({"tokens": [0, 1, 9], "logprobs": [-1.0, -1.0, -2.0]}) + "\n")
    np.save(tmp_path / "green.npy", np.arange(8) < 4)
    with pytest.raises(LawbookError, match="ids from 0 to 7"):
        audit(tmp_path / "t.jsonl", green=tmp_path / "green.npy")
    step, noise = np.arange(60), np.random.default_rng(1).normal(size=60)
    columns = np.stack([step, 50 + noise, 45 + noise, np.full(60, 8)], 1)
    np.savetxt(tmp_path / "r.csv", columns, delimiter=",", header="step,reward,success_rate,group_size", comments="")
    assert not measure(audit(tmp_path / "r.csv"), "silent prompts, least share").trusted, "rates in per cent are no rates"
    first = {"logprobs": [None, *np.linspace(-3, -0.1, 40)], "advantages": list(np.linspace(-1, 1, 41))}
    (tmp_path / "a.jsonl").write_text((json.dumps(first) + "\n") * 3)
    told = measure(audit(tmp_path / "a.jsonl"), "covariance of log-probability and advantage")
    assert told.value == pytest.approx(np.cov(np.linspace(-3, -0.1, 40), np.linspace(-1, 1, 41)[1:], bias=True)[0, 1])


def test_samples(tmp_path):
    path = tmp_path / "samples.jsonl"
    lines = made_logs.samples(path, stages=("base", "trained"))
    found = audit(path)
    right = {stage: np.array([r["correct"] for r in lines if r["stage"] == stage]).reshape(120, 32) for stage in ("base", "trained")}
    part = "Samples (base)"
    assert measure(found, "pass@1", part).value == pytest.approx(right["base"].mean())
    c = right["base"].sum(1)
    assert measure(found, "never solved", part).value == pytest.approx(np.mean(c == 0))
    assert measure(found, "always solved", part).value == pytest.approx(np.mean(c == 32))
    silent = np.mean([(math.comb(32 - x, 8) + math.comb(x, 8)) / math.comb(32, 8) for x in c])
    assert measure(found, "silent prompts in groups of 8", part).value == pytest.approx(silent)
    table = found.tables["Samples (base): coverage"]
    for k, value in zip(table["samples"], table["coverage"], strict=True):
        assert value == pytest.approx(np.mean([1 - math.comb(32 - x, k) / math.comb(32, k) for x in c]))
    alpha, beta = measure(found, "Beta law alpha", part).value, measure(found, "Beta law beta", part).value

    def likelihood(a, b):
        return stats.betabinom(32, a, b).logpmf(c).sum()

    assert all(likelihood(alpha, beta) >= likelihood(alpha * x, beta * y) for x, y in itertools.product((0.97, 1, 1.03), repeat=2))
    ahead = measure(found, "coverage with 64 samples", part)
    grid, weight = np.polynomial.legendre.leggauss(400)
    p, w = (grid + 1) / 2, weight / 2
    by_beta = w @ (stats.beta(alpha, beta).pdf(p) * (1 - (1 - p) ** 64))
    assert ahead.low <= by_beta + 0.01 and ahead.high >= by_beta - 0.01
    # the law itself, refitted by another route
    from scipy.optimize import curve_fit

    (a, b), _ = curve_fit(lambda k, a, b: np.exp(a * k**b), np.array(table["samples"], float), table["coverage"], [-1, -0.5])
    assert (measure(found, "coverage law a", part).value, measure(found, "coverage law b", part).value) == pytest.approx((a, b), rel=1e-4)
    assert ahead.value == pytest.approx(np.exp(a * 64.0**b), rel=1e-5)
    d = right["trained"].sum(1)
    both = "base against trained"
    assert measure(found, "change of pass@1", both).value == pytest.approx((d - c).mean() / 32)
    interval = stats.ttest_1samp((d - c) / 32, 0).confidence_interval(0.95)
    assert (measure(found, "change of pass@1", both).low, measure(found, "change of pass@1", both).high) == pytest.approx(tuple(interval))
    assert measure(found, "prompts shrunk", both).value == pytest.approx(np.mean((c > 0) & (d == 0)))
    assert measure(found, "prompts expanded", both).value == pytest.approx(np.mean((c == 0) & (d > 0)))
    chance = sum(math.comb(32, t) / math.comb(64, t) for t in c + d if t)
    assert measure(found, "prompts shrunk by chance alone", both).value == pytest.approx(chance)
    assert measure(found, "retention", both).value == pytest.approx(np.sum((c > 0) & (d > 0)) / np.sum(c > 0))


def test_a_classifier_on_digits(tmp_path):
    path = tmp_path / "logits.npz"
    logits, y = made_logs.digits(path)
    found = audit(path)
    p = made_logs.softmax(logits)
    right = p.argmax(1) == y
    accuracy = measure(found, "accuracy")
    assert accuracy.value == pytest.approx(right.mean())
    assert (accuracy.low, accuracy.high) == pytest.approx(tuple(stats.binomtest(int(right.sum()), len(y)).proportion_ci(0.95, "exact")))
    assert measure(found, "negative log-likelihood").value == pytest.approx(-np.log(p[np.arange(len(y)), y]).mean())
    top, edges = p.max(1), np.linspace(0, 1, 16)
    ece = sum(abs((right[inside] - top[inside]).sum()) for lo, hi in itertools.pairwise(edges) for inside in [(top > lo) & (top <= hi)]) / len(y)
    assert measure(found, "top-label ECE").value == pytest.approx(ece)
    flat, hit = p.ravel(), np.eye(10)[y].ravel()
    order = np.argsort(flat, kind="stable")
    gap = np.abs(np.convolve((flat - hit)[order], np.ones(201) / 201, "same"))
    assert measure(found, "calibration error").value == pytest.approx(gap.mean())
    temperature = measure(found, "repairing temperature").value
    from scipy.optimize import minimize_scalar

    whole = minimize_scalar(lambda t: -np.log(made_logs.softmax(logits / t)[np.arange(len(y)), y]).mean(), bounds=(0.2, 20), method="bounded").x
    assert temperature == pytest.approx(whole, rel=0.15)  # ours is that of one half
    ends = measure(found, "repairing temperature")
    assert ends.low < whole < ends.high, "the other half's is within the interval"
    assert measure(found, "gain of the repair").low > 0
    assert measure(found, "calibration error after, held out").value < measure(found, "calibration error before, held out").value
    assert measure(found, "the model is calibrated").value < 0.01 and "over-confident" in found.summary[0]


def test_labels_of_one_class_tell_the_accuracy_alone(tmp_path):
    p = np.random.default_rng(0).dirichlet(np.ones(3), 400)
    np.savez(tmp_path / "one.npz", probabilities=p, labels=np.zeros(400, int))
    found = audit(tmp_path / "one.npz")
    assert measure(found, "accuracy").value == pytest.approx(np.mean(p.argmax(1) == 0)) and "is right in" in found.summary[0]
    assert not measure(found, "calibration").trusted and "class 0" in measure(found, "calibration").meaning


def test_a_calibrated_classifier_is_not_blamed(tmp_path):
    rng = np.random.default_rng(3)
    rejected = 0
    for i in range(12):
        p = made_logs.softmax(2 * rng.normal(size=(1500, 4)))
        labels = (rng.uniform(size=(1500, 1)) > np.cumsum(p, 1)).sum(1)
        np.savez(tmp_path / f"{i}.npz", probabilities=p, labels=labels)
        rejected += measure(audit(tmp_path / f"{i}.npz"), "the model is calibrated").value < 0.05
    assert rejected <= 4  # 12 tests at 5 %: more than 4 has probability 2e-4


def test_a_tabular_run(tmp_path):
    path = tmp_path / "training.csv"
    rows = made_logs.group_relative_run(path)
    found = audit(path, momentum=0.0)
    step, reward, entropy = rows[:, 0], rows[:, 1], rows[:, 2]
    ceiling = measure(found, "ceiling of the reward")
    slope, intercept = np.polyfit(np.exp(entropy), reward, 1)
    assert ceiling.trusted and ceiling.value == pytest.approx(intercept + slope)
    assert ceiling.low < ceiling.value < ceiling.high
    from scipy.optimize import curve_fit

    (_, top, rate), _ = curve_fit(lambda t, s, u, r: u - (u - s) * np.exp(-r * t), step, reward, [reward[0], reward[-1], 0.02])
    assert measure(found, "plateau of the reward").value == pytest.approx(top, abs=1e-4)
    assert measure(found, "time constant").value == pytest.approx(1 / rate, rel=1e-3)
    assert measure(found, "learning rate times curvature").value == pytest.approx(rate, rel=1e-3)
    assert measure(found, "margin of stability").value == pytest.approx(2 / rate, rel=1e-3)  # without momentum, samples renewed at each step: k < 2
    assert measure(found, "stalest samples").value == math.ceil(2 / measure(found, "learning rate times curvature").value) - 1
    silent = rows[-1, 3] ** 8 + (1 - rows[-1, 3]) ** 8
    assert measure(found, "silent prompts, least share").value == pytest.approx(silent, rel=1e-6)


def test_a_run_that_has_not_bent_gives_no_plateau(tmp_path):
    step = np.arange(100)
    noise = np.random.default_rng(0).normal(size=100)
    np.savetxt(tmp_path / "run.csv", np.stack([step, 0.2 + 0.001 * step + 0.02 * noise], 1), delimiter=",", header="step,reward", comments="")
    found = audit(tmp_path / "run.csv")
    assert not measure(found, "plateau of the reward").trusted and not measure(found, "margin of stability").trusted
    assert "Not to be told" in found.summary[-1]


def test_tokens(tmp_path):
    path = tmp_path / "tokens.jsonl"
    lines = made_logs.texts_of_a_model(path)
    found = audit(path)
    flat = np.concatenate([r["logprobs"] for r in lines])
    assert measure(found, "log-perplexity").value == pytest.approx(-flat.mean())
    each = -np.array([np.mean(r["logprobs"]) for r in lines])  # texts of one length
    interval = stats.ttest_1samp(each, 0).confidence_interval(0.95)
    assert (measure(found, "log-perplexity").low, measure(found, "log-perplexity").high) == pytest.approx(tuple(interval))
    z = [(-np.array(r["logprobs"]) - r["entropies"]).sum() / math.sqrt(sum(r["variances"])) for r in lines]
    p = 2 * stats.norm.sf(np.abs(z))
    corrected = np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1))
    assert measure(found, "texts that the model did not write").value == pytest.approx(np.mean(corrected < 0.01))
    assert found.outputs["foreign_texts"] == list(range(32, 40))
    advantages = np.repeat([r["advantages"] for r in lines], 200)
    covariance = (advantages - advantages.mean()) * (flat - flat.mean())
    assert measure(found, "covariance of log-probability and advantage").value == pytest.approx(np.cov(advantages, flat, bias=True)[0, 1])
    by_text = covariance.reshape(40, 200).mean(1)
    interval = stats.ttest_1samp(by_text, 0).confidence_interval(0.95)
    assert measure(found, "covariance of log-probability and advantage").low == pytest.approx(interval.low)
    assert sorted(found.outputs["mute_kl"]) == sorted(np.argsort(-covariance)[:16].tolist())


def test_a_watermark(tmp_path):
    rng = np.random.default_rng(0)
    green = rng.permutation(np.arange(1000) < 500)
    words = rng.zipf(1.3, (30, 300)) % 1000
    marked = [np.where(rng.uniform(size=300) < 0.9, rng.choice(np.flatnonzero(green), 300), row) for row in words[:10]]
    texts = [*marked, *words[10:]]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"tokens": t.tolist(), "logprobs": [-1.0] * 300}) + "\n" for t in texts))
    np.save(tmp_path / "green.npy", green)
    found = audit(tmp_path / "t.jsonl", green=tmp_path / "green.npy")
    p = []
    for t in texts:
        distinct = np.unique(t)
        p.append(stats.hypergeom(1000, 500, len(distinct)).sf(green[distinct].sum() - 1))
    corrected = np.maximum.accumulate(np.sort(p) * np.arange(30, 0, -1))
    assert measure(found, "texts with the watermark").value == pytest.approx(np.mean(corrected < 0.01)) == pytest.approx(1 / 3)
    distinct = np.unique(np.concatenate(texts))
    assert measure(found, "no watermark in all texts together").value == pytest.approx(stats.hypergeom(1000, 500, len(distinct)).sf(green[distinct].sum() - 1))


def test_reward_heads(tmp_path):
    path = tmp_path / "heads.jsonl"
    lines = made_logs.reward_heads(path)
    found = audit(path)
    r = np.array([list(line["rewards"].values()) for line in lines]).reshape(200, 8, 3)
    mixed = r.mean(2)
    for i, name in enumerate(("helpful", "safe", "polite")):
        cov = ((r[:, :, i] - r[:, :, i].mean(1, keepdims=True)) * (mixed - mixed.mean(1, keepdims=True))).mean(1) / 3
        share = cov / mixed.var(1)
        assert measure(found, f"share of {name}").value == pytest.approx(share.mean())
        interval = stats.ttest_1samp(share, 0).confidence_interval(0.95)
        assert (measure(found, f"share of {name}").low, measure(found, f"share of {name}").high) == pytest.approx(tuple(interval))
    spread = np.sqrt(r.var(1).mean(0))
    balanced = (1 / spread) / (1 / spread).sum()
    assert list(found.outputs["balancing_weights"].values()) == pytest.approx(balanced.tolist())
    assert "helpful drives" in found.summary[0]
    with pytest.raises(LawbookError, match="reward head"):
        audit(path, weights={"helpfull": 1.0})


def test_evidence(tmp_path):
    path = tmp_path / "evidence.jsonl"
    lines = made_logs.evidence(path)
    found = audit(path, target_error=0.1)

    def kl(p, q):
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    answers, budgets, spreads = [], [], []
    for r in lines:
        budget = np.mean(np.clip(r["log_target"] - np.array(r["log_skeletons"]), 0, 12))
        low, q = min(r["event_probabilities"]), np.array(r["event_probabilities"])
        answers.append(budget >= (kl(0.9, low) if low < 0.9 else 0))
        budgets.append(budget)
        spreads.append(np.mean(np.abs(q - q.mean())))
    assert measure(found, "questions to answer").value == pytest.approx(np.mean(answers))
    assert found.outputs["answer"] == answers
    assert measure(found, "information budget").value == pytest.approx(np.mean(budgets))
    assert measure(found, "dispersion over orders").value == pytest.approx(np.mean(spreads))
    wrong = np.array([not r["correct"] for r in lines])
    told = [m for m in found.measures if m.name == "error of what would be abstained" and m.trusted]
    assert not told or told[0].value == pytest.approx(wrong[~np.array(answers)].mean())


def test_fairness_and_its_decomposition(tmp_path):
    rng = np.random.default_rng(0)
    n = 6000
    z = rng.integers(0, 2, n)
    s = (rng.uniform(size=n) < np.where(z == 1, 0.8, 0.2)).astype(int)
    y = (rng.uniform(size=n) < np.where(s == 1, 0.6, 0.3)).astype(int)  # clients differ, not groups
    rows = ["sensitive,client,prediction", *(f"{'fm'[a]},{'xy'[b]},{c}" for a, b, c in zip(z, s, y, strict=True))]
    (tmp_path / "people.csv").write_text("\n".join(rows) + "\n")
    found = audit(tmp_path / "people.csv")
    gap = y[z == 1].mean() - y[z == 0].mean()
    parity = measure(found, "parity gap")
    assert parity.value == pytest.approx(gap) and parity.low < gap < parity.high
    from sklearn.metrics import mutual_info_score

    assert measure(found, "global disparity").value == pytest.approx(mutual_info_score(z, y), abs=1e-6)
    local = sum(np.mean(s == i) * mutual_info_score(z[s == i], y[s == i]) for i in (0, 1))
    assert measure(found, "local disparity").value == pytest.approx(local, abs=1e-6)
    assert measure(found, "attribute client").value == pytest.approx(mutual_info_score(z, s), abs=1e-6)
    assert measure(found, "unique").value + measure(found, "redundant").value == pytest.approx(mutual_info_score(z, y), abs=1e-5)
    assert "redundant" in " ".join(found.summary)
    # without any disparity a method may use the outcome, yet must answer alike in both groups of each client, and then alike in both clients, since groups differ in their clients
    cells = [(s == i) & (z == a) for i in (0, 1) for a in (0, 1)]
    grid = np.linspace(0, 1, 2001)
    best = np.min(sum(cell.mean() * np.abs(grid - y[cell].mean()) for cell in cells))
    assert measure(found, "least error of a fair method").value == pytest.approx(best, abs=2e-3)


def test_an_effect_under_confounding(tmp_path):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2, 400)
    y = rng.uniform(size=400) * 0.5 + 0.3 * a
    np.savetxt(tmp_path / "e.csv", np.stack([a, y], 1), delimiter=",", header="treatment,outcome", comments="")
    found = audit(tmp_path / "e.csv", outcome_low=0.0, outcome_high=1.0)
    e = a.mean()
    up = (e * y[a == 1].mean() + (1 - e)) - (1 - e) * y[a == 0].mean()
    low = e * y[a == 1].mean() - ((1 - e) * y[a == 0].mean() + e)
    ends = measure(found, "effect, by Manski's bounds")
    assert ends.low <= low and ends.high >= up and f"bounds {low:.4g} to {up:.4g}" in ends.interval
    assert (ends.low, ends.high) == pytest.approx((low, up), abs=0.06)
    plain = measure(found, "difference of means")
    assert plain.value == pytest.approx(y[a == 1].mean() - y[a == 0].mean())
    with pytest.raises(LawbookError, match="outcome_low must be below outcome_high"):
        audit(tmp_path / "e.csv", outcome_low=1.0, outcome_high=0.0)


def test_embeddings_of_two_groups_and_leakage(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 5)), rng.normal(size=(150, 5)) + 0.8
    np.savez(tmp_path / "g.npz", embeddings=np.concatenate([x, y]), group=np.repeat(["safe", "harmful"], [200, 150]))
    found = audit(tmp_path / "g.npz")
    from scipy.spatial.distance import cdist

    energy = 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    assert measure(found, "energy distance").value == pytest.approx(energy)
    assert measure(found, "both groups have one law").value == pytest.approx(1 / 200)
    s = (np.cov(x.T) + np.cov(y.T)) / 2
    gap = x.mean(0) - y.mean(0)
    logs = [np.linalg.slogdet(m)[1] for m in (s, np.cov(x.T), np.cov(y.T))]
    assert measure(found, "Bhattacharyya distance").value == pytest.approx(gap @ np.linalg.solve(s, gap) / 8 + (logs[0] - (logs[1] + logs[2]) / 2) / 2, rel=1e-4)
    js = measure(found, "Jensen-Shannon divergence of the groups")
    true = 0.8 * math.sqrt(5)  # distance of the means
    t = np.linspace(-12, 14, 20001)
    p, q = stats.norm.pdf(t), stats.norm.pdf(t - true)
    m = (p + q) / 2
    exact = np.trapezoid((p * np.log(p / m) + q * np.log(q / m)) / 2, t)
    assert js.value == pytest.approx(exact, abs=0.15)
    np.savez(tmp_path / "t.npz", embeddings=x, target=x[:, 0] + 0.1 * rng.normal(size=200))
    leaks = audit(tmp_path / "t.npz")
    assert len(leaks.outputs["leakage"]) == 200
    assert measure(leaks, "leakage of the most exposed record").value == pytest.approx(max(leaks.outputs["leakage"]))
    # one record by refitting without it
    from scipy.spatial.distance import pdist
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    target = np.load(tmp_path / "t.npz")["target"]
    target = (target - target.mean()) / target.std()
    others = np.arange(200) != 7
    gp = GaussianProcessRegressor(RBF(np.median(pdist(x))), alpha=0.1, optimizer=None).fit(x[others], target[others])
    mean, sd = gp.predict(x[7:8], return_std=True)
    rho, e = sd[0] ** 2 / (sd[0] ** 2 + 0.1), target[7] - mean[0]
    assert leaks.outputs["leakage"][7] == pytest.approx(0.5 * (-rho - math.log1p(-rho) + rho * e**2 / (sd[0] ** 2 + 0.1)), rel=1e-5)


def test_comparisons_in_parts(tmp_path):
    (tmp_path / "c.csv").write_text("winner,loser\na,b\nb,c\nd,e\n")
    found = audit(tmp_path / "c.csv")
    assert measure(found, "separate parts of the comparisons").value == 2 and "2 parts" in found.summary[0]
    (tmp_path / "d.csv").write_text("winner,loser\n" + "".join(f"n{i},n{i + 1}\n" for i in range(7)))
    chain = audit(tmp_path / "d.csv")
    assert measure(chain, "mean variance of a difference").value == pytest.approx(9 / 3)  # a path of 8
    assert measure(chain, "next comparison").value in {f"n{i} against n{j}" for i, j in ((0, 6), (1, 7), (0, 7), (1, 6))}


def test_reports_and_the_shell(tmp_path):
    made_logs.samples(tmp_path / "s.jsonl", prompts=30, each=8)
    done = CliRunner().invoke(shell, ["audit", str(tmp_path / "s.jsonl"), "--report", str(tmp_path / "s.html")], obj=["audit", "s.jsonl"])
    assert done.exit_code == 0 and "pass@1" in done.output, done.output
    page = (tmp_path / "s.html").read_text()
    assert "pass@1 is" in page and "<script" not in page and not any(f'{attribute}="http' in page for attribute in ("src", "href"))
    found = audit(tmp_path / "s.jsonl")
    assert isinstance(found, LogAudit) and json.loads(json.dumps(found.to_dict(), default=str))["kind"] == "samples"
    (tmp_path / "evil.csv").write_text("winner,loser\n<script>alert(1)</script>,b\nb,c\nc,<script>alert(1)</script>x\n")
    write_audit(audit(tmp_path / "evil.csv"), tmp_path / "evil.html", "lawbook audit")
    assert "<script>alert" not in (tmp_path / "evil.html").read_text()
    for options, words in (
        (["--device", "h100"], "device"),
        (["--kind", "sample"], "sample"),
        (["--field", "prompt"], "ROLE=COLUMN"),
        (["--momentum", "0.9"], "training"),
        (["--level", "1.5"], "level"),
    ):
        bad = CliRunner().invoke(shell, ["audit", str(tmp_path / "s.jsonl"), *options], obj=["audit"])
        assert isinstance(bad.exception, LawbookError) and words in str(bad.exception), (options, bad.output, bad.exception)


def test_scores_from_a_threshold_on_are_correct(tmp_path):
    rng = np.random.default_rng(0)
    scores = rng.uniform(size=(30, 4))
    (tmp_path / "s.jsonl").write_text("".join(json.dumps({"prompt_id": q, "score": s}) + "\n" for q, row in enumerate(scores) for s in row))
    assert measure(audit(tmp_path / "s.jsonl"), "pass@1").value == pytest.approx(np.mean(scores >= 0.5))
    assert measure(audit(tmp_path / "s.jsonl", threshold=0.8), "pass@1").value == pytest.approx(np.mean(scores >= 0.8))


def test_staleness_and_momentum_of_a_run(tmp_path):
    """The margin with late gradients is that at which the run itself, put together step by step, stops settling."""
    made_logs.group_relative_run(tmp_path / "run.csv")
    found = audit(tmp_path / "run.csv", momentum=0.5, lag=3)
    k, rate = measure(found, "learning rate times curvature").value, 1 / measure(found, "time constant").value
    assert k == pytest.approx(rate * 0.5 / (1 + 3 * rate))
    path = np.zeros(400)  # e' = e + beta (e - e_before) - k e_late decays about as the reward does
    path[:4] = 1
    for t in range(3, 399):
        path[t + 1] = path[t] + 0.5 * (path[t] - path[t - 1]) - k * path[t - 3]
    assert -np.log(path[200] / path[150]) / 50 == pytest.approx(rate, rel=0.15)
    margin = measure(found, "margin of stability")
    assert margin.low < margin.value < margin.high


def test_an_interrupted_count_goes_on(tmp_path, monkeypatch):
    from lawbook.jobs import audit_log

    path = tmp_path / "s.jsonl"
    made_logs.samples(path, prompts=200, each=40)
    whole = audit(path, resume=False)
    monkeypatch.setattr(audit_log, "KEPT_EVERY", 0.0)
    read, seen = audit_log.rows, []

    def few(log, *, after=None, progress=None):
        for i, batch in enumerate(read(log, after=after, progress=progress, most_rows=1000)):
            if not seen and i == 4:
                seen.append(batch.position)
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(audit_log, "rows", few)
    with pytest.raises(KeyboardInterrupt):
        audit(path)
    starts = []

    def again(log, *, after=None, progress=None):
        starts.append(after)
        yield from read(log, after=after, progress=progress, most_rows=1000)

    monkeypatch.setattr(audit_log, "rows", again)
    gone_on = audit(path)
    assert starts[0] and starts[0] > 0
    assert [m.value for m in gone_on.measures] == [m.value for m in whole.measures]


def words_of(rng, bias, n=12):
    return " ".join(rng.choice([f"w{i}" for i in range(40)], n, p=bias))


def test_texts_of_two_groups(tmp_path):
    rng = np.random.default_rng(0)
    plain, tilted = np.full(40, 1 / 40), np.linspace(1, 6, 40) / np.linspace(1, 6, 40).sum()
    lines = [{"prompt": f"q{i}", "chosen": words_of(rng, plain), "rejected": words_of(rng, tilted)} for i in range(120)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = audit(tmp_path / "p.jsonl")
    sides = [[line[name] for line in lines] for name in ("chosen", "rejected")]

    def bigrams(texts):
        pairs = [pair for text in texts for pair in itertools.pairwise(text.split())]
        return len(set(pairs)) / len(pairs)

    for name, side in zip(("accepted", "refused"), sides, strict=True):
        assert measure(found, f"distinct bigrams, {name}").value == pytest.approx(bigrams(side))
    ratio = np.array([[len(set(text.split())) / len(text.split()) for text in side] for side in sides])
    assert measure(found, "divergence of the type-token ratio").value == pytest.approx(np.abs(ratio[0] - ratio[1]).mean())
    assert f"{abs(ratio[0].mean() - ratio[1].mean()):.3g}" in measure(found, "divergence of the type-token ratio").meaning
    # TF-IDF by its definition
    count = np.array([[text.split().count(f"w{i}") for i in range(40)] for side in sides for text in side], float)
    weight = count * (np.log((1 + len(count)) / (1 + (count > 0).sum(0))) + 1)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    from scipy.spatial.distance import cdist

    x, y = weight[:120], weight[120:]
    assert measure(found, "energy distance").value == pytest.approx(2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean())
    by_length = audit(tmp_path / "p.jsonl", embedder=lambda texts: np.array([[len(t), t.count("w1")] for t in texts], float))
    z = [np.array([[len(t), t.count("w1")] for t in side], float) for side in sides]
    assert measure(by_length, "energy distance").value == pytest.approx(2 * cdist(*z).mean() - cdist(z[0], z[0]).mean() - cdist(z[1], z[1]).mean())


def test_an_interrupted_embedding_goes_on(tmp_path, monkeypatch):
    """Texts that were embedded before the interruption are not embedded again, and nothing is left once the audit is done."""
    from lawbook.artifacts import embedder
    from lawbook.jobs import audit_log

    asked = []

    class Small:
        size = 2

        def __init__(self, folder):
            pass

        def embed(self, texts):
            if len(asked) == 3:
                asked.append(())
                raise KeyboardInterrupt
            asked.append(tuple(texts))
            return np.array([[len(t), t.count("w1")] for t in texts], float)

    monkeypatch.setattr(embedder, "Embedder", Small)
    monkeypatch.setattr(audit_log, "TEXTS", 25)
    rng = np.random.default_rng(0)
    even = np.full(40, 1 / 40)
    lines = [{"prompt": f"q{i}", "chosen": words_of(rng, even), "rejected": words_of(rng, even)} for i in range(60)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(KeyboardInterrupt):
        audit(tmp_path / "p.jsonl", embedder="model")
    found = audit(tmp_path / "p.jsonl", embedder="model")
    texts = [text for part in asked for text in part]
    assert sorted(texts) == sorted(line[name] for line in lines for name in ("chosen", "rejected")), "each text once"
    assert found.measures and not list((tmp_path / "home" / "logs").glob("*.npy"))


def test_answers_with_scores(tmp_path):
    rng = np.random.default_rng(0)
    lines = [
        {
            "question_id": q,
            "question": f"q{q}",
            "category": "c",
            "answers": [{"score": s, "text": [words_of(rng, np.full(40, 1 / 40), 5 * s + int(rng.integers(4)))]} for s in range(1, 6)],
        }
        for q in range(30)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = audit(tmp_path / "a.jsonl")
    pairs = [(a["score"], t) for line in lines for a in line["answers"] for t in a["text"]]
    table = found.tables["Answers by score"]
    for score, texts, words, ratio in zip(*table.values(), strict=True):
        here = [t.split() for s, t in pairs if s == score]
        assert texts == len(here) and words == pytest.approx(np.mean([len(t) for t in here])) and ratio == pytest.approx(np.mean([len(set(t)) / len(t) for t in here]))
    p = measure(found, "score does not depend on length")
    assert p.value == pytest.approx(stats.spearmanr([s for s, _ in pairs], [len(t.split()) for _, t in pairs]).pvalue, abs=1e-290)
    assert not measure(found, "score against duel").trusted


def test_a_gap_seen_through_an_estimate(tmp_path):
    rng = np.random.default_rng(1)
    n = 20_000
    z = rng.integers(0, 2, n)
    estimate = np.where(rng.uniform(size=n) < 0.2, 1 - z, z)
    y = (rng.uniform(size=n) < np.where(z == 1, 0.7, 0.4)).astype(int)
    (tmp_path / "p.csv").write_text("sensitive,estimated,prediction\n" + "".join(f"{a},{b},{c}\n" for a, b, c in zip(z, estimate, y, strict=True)))
    found = audit(tmp_path / "p.csv")
    factor = z[estimate == 1].mean() - z[estimate == 0].mean()
    assert measure(found, "factor of the proxy").value == pytest.approx(factor)
    gap = y[estimate == 1].mean() - y[estimate == 0].mean()
    assert measure(found, "true gap through the proxy").value == pytest.approx(gap / factor)
    assert measure(found, "parity gap").value == pytest.approx(gap / factor, abs=0.03)
    spread = [abs(y[(z == a) & (estimate == 1)].mean() - y[(z == a) & (estimate == 0)].mean()) for a in (0, 1)]
    assert measure(found, "dependence given the truth").value == pytest.approx(max(spread))
    odd = np.where(rng.uniform(size=n) < 0.35, y, z)  # an estimate that peeks at the answer
    (tmp_path / "o.csv").write_text("sensitive,estimated,prediction\n" + "".join(f"{a},{b},{c}\n" for a, b, c in zip(z, odd, y, strict=True)))
    assert not measure(audit(tmp_path / "o.csv"), "true gap through the proxy").trusted


def test_the_census(real_data):
    path = real_data / "adult" / "adult.data"
    found = audit(path, fields={"sensitive": 10, "client": 2, "label": 15})
    rows = [line.strip().split(", ") for line in path.read_text().splitlines() if line.count(",") == 14]
    kept = [row for row in rows if row[1] != "?"]
    rate = {sex: np.mean([row[14] == ">50K" for row in kept if row[9] == sex]) for sex in ("Male", "Female")}
    assert measure(found, "parity gap").value == pytest.approx(rate["Male"] - rate["Female"])
    from sklearn.metrics import mutual_info_score

    z, s, y = ([row[i] for row in kept] for i in (9, 1, 14))
    assert measure(found, "global disparity").value == pytest.approx(mutual_info_score(z, y), abs=1e-6)
    clients = set(s)
    local = sum(s.count(c) / len(s) * mutual_info_score([a for a, b in zip(z, s, strict=True) if b == c], [a for a, b in zip(y, s, strict=True) if b == c]) for c in clients)
    assert measure(found, "local disparity").value == pytest.approx(local, abs=1e-6)
    assert measure(found, "attribute client").value == pytest.approx(mutual_info_score(z, s), abs=1e-6)
    total = {"unique": measure(found, "unique").value, "redundant": measure(found, "redundant").value, "masked": measure(found, "masked").value}
    assert total["unique"] + total["redundant"] == pytest.approx(mutual_info_score(z, y), abs=1e-5)
    assert total["unique"] + total["masked"] == pytest.approx(local, abs=1e-5)


def test_the_infants(real_data):
    path = real_data / "ihdp" / "ihdp_npci_1.csv"
    found = audit(path, fields={"treatment": 1, "outcome": 2})
    a, y = np.loadtxt(path, delimiter=",")[:, :2].T
    assert measure(found, "difference of means").value == pytest.approx(y[a == 1].mean() - y[a == 0].mean())
    e, ends = a.mean(), {}
    for arm, share in ((1, e), (0, 1 - e)):
        mean = y[a == arm].mean()
        ends[arm] = share * mean + (1 - share) * y[a == arm].min(), share * mean + (1 - share) * y[a == arm].max()
    low, high = ends[1][0] - ends[0][1], ends[1][1] - ends[0][0]
    assert f"bounds {low:.4g} to {high:.4g}" in measure(found, "effect, by Manski's bounds").interval
    wide = measure(found, "effect, whatever the confounding")
    assert wide.low <= low + 1e-6 and wide.high >= high - 1e-6, "Manski's bounds are never wider"
    assert wide.low <= 4.0 <= wide.high  # the effect that these outcomes were made with


def test_answers_that_people_scored(real_data):
    path = real_data / "judged-answers" / "answers.jsonl"
    found = audit(path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    pairs = [(answer["score"], text) for row in rows for answer in row["answers"] for text in answer["text"]]
    assert sum(found.tables["Answers by score"]["texts"]) == len(pairs)
    assert measure(found, "score does not depend on length").value == pytest.approx(stats.spearmanr([s for s, _ in pairs], [len(t.split()) for _, t in pairs]).pvalue)
    assert not measure(found, "divergence of the groups").trusted, "twenty answers are too few"
