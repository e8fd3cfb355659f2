import json
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

import lawbook
from lawbook.contract import LawbookError, catalogue
from lawbook.jobs.records import Records
from lawbook.jobs.run import MOST_POINTS, Sweep


def test_find_ranks_by_relevance():
    assert lawbook.find("rope")[0]["slug"] == "rope-base-region"
    assert lawbook.find("bessel function")[0]["slug"] == "log-bessel"
    assert lawbook.find("learning rate schedule")[0]["slug"] in ("refined-lr-schedule", "multi-power-law")
    assert {e["slug"] for e in lawbook.find(argument="context_length")} >= {"rope-base-region", "long-context-serving"}
    assert all("law" in e["kinds"] for e in lawbook.find(kind="law"))
    assert all(e["chapter"] == "decoding" for e in lawbook.find(chapter="decoding"))
    assert len(lawbook.find()) == len(catalogue.files())
    assert lawbook.find("zzzzqq") == []
    with pytest.raises(LawbookError, match="did you mean"):
        lawbook.find(kind="laws")


def test_index_follows_the_files(tmp_path, monkeypatch):
    before = lawbook.find()
    index = tmp_path / "home" / "index.json"
    kept = json.loads(index.read_text())
    index.write_text("{ broken")
    assert lawbook.find() == before
    assert json.loads(index.read_text())["entries"].keys() == kept["entries"].keys()
    monkeypatch.setenv("LAWBOOK_HOME", "/proc/nowhere")
    assert lawbook.find() == before


def test_run_a_number_and_a_sweep():
    answer = lawbook.run("rope-base-region.slowest_phase", base="500k", head_dim=128, context_length="128Ki")
    assert answer.value == pytest.approx(0.3218, abs=5e-5) and float(answer) == answer.value
    sweep = lawbook.run("rope-base-region.slowest_phase", base="10k:1M:log:5", head_dim=[64, 128], context_length="128Ki")
    assert isinstance(sweep, Sweep) and list(sweep.rows) == ["base", "head_dim", "slowest_phase"]
    for base, head_dim, phase in zip(*sweep.rows.values(), strict=True):
        assert lawbook.run("rope-base-region.slowest_phase", base=base, head_dim=head_dim, context_length=2**17).value == pytest.approx(phase)
    partly = lawbook.run("rope-base-region.slowest_phase", base=1e4, head_dim=[64, 65], context_length=10)
    assert np.isnan(partly.rows["slowest_phase"][1]) and "head_dim must be even" in partly.cautions[0]


def test_run_refuses_what_is_too_large():
    for sweep in ("1k:2k:1000000000", "1k:2k:lin:1e9"):
        with pytest.raises(LawbookError, match=f"at most {MOST_POINTS:,} points"):
            lawbook.run("rope-base-region.slowest_phase", base=sweep, head_dim=128, context_length=10)
    with pytest.raises(LawbookError, match="at most"):
        lawbook.run("rope-base-region.context_wall", layers="1:2000:log:2000", tolerance="0.1:0.5:lin:2000", machine_epsilon="1e-7:1e-3:log:2000")


def test_solve_finds_every_root():
    one = lawbook.solve("rope-base-region.slowest_phase", "base", target=3.14, head_dim=128, context_length="128Ki")
    assert len(one.roots) == 1
    assert lawbook.run("rope-base-region.slowest_phase", base=one.roots[0], head_dim=128, context_length="128Ki").value == pytest.approx(3.14)
    whole = lawbook.solve("rope-base-region.context_wall", "layers", target="100k", tolerance=0.1)
    (n,) = whole.roots
    walls = [lawbook.run("rope-base-region.context_wall", layers=k, tolerance=0.1).value for k in (n - 1, n)]
    assert walls[1] <= 1e5 < walls[0]
    field = lawbook.solve("rope-base-region.feasibility", "base", target=0.9, field="cos_slowest", head_dim=128, context_length=4096, layers=4)
    assert len(field.roots) > 1, "the cosine comes back again and again"
    for root in field.roots:
        assert lawbook.run("rope-base-region.feasibility", base=root, head_dim=128, context_length=4096, layers=4).value["cos_slowest"] == pytest.approx(0.9)


def test_solve_takes_arguments_that_have_the_names_of_its_own():
    found = lawbook.solve("noisy-binary-search.flips_lower", "coins", target=300, arguments={"target": 0.5}, epsilon=0.1, delta=0.05)
    flips = [lawbook.run("noisy-binary-search.flips_lower", coins=n, target=0.5, epsilon=0.1, delta=0.05).value for n in (found.roots[0] - 1, found.roots[0])]
    assert flips[0] < 300 <= flips[1]


def test_solve_says_why_there_is_none():
    none = lawbook.solve("rope-base-region.context_wall", "layers", target=1e12, tolerance=0.1)
    assert not none.roots and "lies above" in none.reason
    with pytest.raises(LawbookError, match="say which field"):
        lawbook.solve("rope-base-region.feasibility", "base", target=1, head_dim=128, context_length=4096, layers=4)
    with pytest.raises(LawbookError, match="numeric argument"):
        lawbook.solve("rope-base-region.base_lower", "kind", target=1, head_dim=128, context_length=4096)


def runs(n=40, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    params, tokens = 10 ** rng.uniform(6, 9, n), 10 ** rng.uniform(8, 10.5, n)
    loss = 1.7 + 400 * params**-0.34 + 410 * tokens**-0.28
    return {"N": params, "D": tokens, "loss": loss * np.exp(noise * rng.normal(size=n))}


def test_fit_recovers_a_law_and_beats_the_baseline():
    ranking = lawbook.fit(runs())
    best = ranking.best
    assert best.law.id == "beyond-chinchilla.chinchilla_loss"
    for name, value in {"E": 1.7, "A": 400, "B": 410, "alpha": 0.34, "beta": 0.28}.items():
        assert best.parameters[f"constants.{name}"] == pytest.approx(value, rel=1e-3)
    assert best.test["relative_error"] < 1e-5 < best.test["baseline_error"]
    assert best.converged and any("'N' is read as params" in s for s in ranking.said) and any("compute is derived" in s for s in ranking.said)


def test_standard_errors_are_the_spread_of_refits():
    fits = [lawbook.fit(runs(60, 0.01, seed), law="beyond-chinchilla.chinchilla_loss", holdout=0, huber_delta=0.1, bootstrap=0).best for seed in range(12)]
    spread = np.std([f.parameters["constants.E"] for f in fits], ddof=1)
    claimed = np.median([f.standard_errors["constants.E"] for f in fits])
    assert 0.4 < spread / claimed < 2.5


@pytest.mark.parametrize("column", ["N", "D"])
def test_fit_says_when_the_data_do_not_determine_the_parameters(column):
    table = runs(30)
    table[column] = np.full(30, 1e8)
    best = lawbook.fit(table, law="beyond-chinchilla.chinchilla_loss", holdout=0).best
    assert any("do not determine" in note for note in best.notes)
    assert not best.intervals and all(np.isnan(e) for e in best.standard_errors.values())


def test_fit_says_when_no_law_beats_the_baseline():
    table = runs(60)
    table["loss"] = 5 * (6 * table["N"] * table["D"]) ** -0.05 * np.exp(0.05 * np.random.default_rng(1).normal(size=60))
    best = lawbook.fit(table).best
    assert best.test["baseline_error"] > 0 and best.test["relative_error"] > 0.5 * best.test["baseline_error"]


@pytest.mark.parametrize("kind", ["pandas", "polars", "csv", "tsv", "parquet", "jsonl", "records"])
def test_tables_as_people_have_them(kind, tmp_path):
    import pandas as pd
    import polars as pl

    from lawbook.artifacts.tables import read_runs

    frame = pl.DataFrame(runs(5))
    sources = {"pandas": lambda: pd.DataFrame(runs(5)), "polars": lambda: frame, "records": frame.to_dicts}
    writers = {"csv": frame.write_csv, "tsv": lambda p: frame.write_csv(p, separator="\t"), "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}
    if kind in writers:
        writers[kind](tmp_path / f"runs.{kind}")
    table = read_runs(sources[kind]() if kind in sources else tmp_path / f"runs.{kind}")
    np.testing.assert_allclose(table.numbers("params"), runs(5)["N"])
    np.testing.assert_allclose(table.numbers("compute"), 6 * runs(5)["N"] * runs(5)["D"])


def test_verify_gives_the_same_verdicts_with_any_number_of_workers():
    alone = lawbook.verify("rope-base-region", seed=3)
    together = lawbook.verify("rope-base-region", seed=3, workers=2)
    assert [v.evidence() for v in alone] == [v.evidence() for v in together]
    assert lawbook.verify("rope-base-region", seed=4)[0].evidence() != alone[0].evidence()
    assert [v.trial for v in lawbook.verify("rope-base-region.base_upper")] == ["register_erasure"]


def test_interrupted_rounds_resume(monkeypatch):
    from lawbook.jobs import verify as job

    held = []

    def judge(slug, name, seed, effort, real=job.judge):
        if len(held) == 2:
            raise KeyboardInterrupt
        held.append(name)
        return real(slug, name, seed, effort)

    monkeypatch.setattr(job, "judge", judge)
    monkeypatch.setattr(job, "trials_of", lambda names: list(catalogue.paper("rope-base-region").trials.values()))
    with pytest.raises(KeyboardInterrupt):
        job.verify()
    assert len(held) == 2
    held.append("room for one more")
    verdicts = job.verify()
    assert len(verdicts) == 3 and len(held) == 4, "only the trial that was missing is held again"


def test_code_that_changed_makes_kept_verdicts_void(monkeypatch):
    from lawbook.jobs import records

    trial = next(iter(catalogue.paper("rope-base-region").trials.values()))
    lawbook.verify("rope-base-region")
    assert Records().find(trial, 0, "quick") is not None
    assert Records().find(trial, 1, "quick") is None
    monkeypatch.setattr(records, "fingerprint", lambda trial: "other")
    assert Records().find(trial, 0, "quick") is None


@pytest.mark.parametrize("trouble", ["read-only", "not a database", "no such folder"])
def test_a_broken_store_costs_a_warning_not_a_verdict(trouble, tmp_path, monkeypatch):
    place = tmp_path / "store"
    place.mkdir()
    if trouble == "not a database":
        (place / "records.sqlite").write_text("this is not a database, whatever its name says " * 10)
    if trouble == "read-only":
        sqlite3.connect(place / "records.sqlite").close()
        url = f"sqlite:///file:{place / 'records.sqlite'}?mode=ro&uri=true"
    elif trouble == "no such folder":
        url = "sqlite:////proc/nowhere/records.sqlite"
    else:
        url = f"sqlite:///{place / 'records.sqlite'}"
    with pytest.warns(UserWarning, match="shown but not kept"):
        verdicts = lawbook.verify("rope-base-region", records=Records(url))
    assert [v.status for v in verdicts] == ["upheld"] * 3


def test_import_is_light():
    code = "import sys, lawbook; lawbook.find('rope'); print([m for m in ('jax', 'numba', 'matplotlib', 'plotly', 'fastapi', 'polars', 'sqlalchemy', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    code = "import sys, lawbook; print([m for m in ('numpy', 'scipy', 'jax') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_intervals_of_a_law_that_may_be_negative_use_the_scale_of_its_residuals():
    entropies = np.linspace(0.2, 1.2, 60)
    rewards = (0.9 - 0.2 * np.exp(entropies)) * np.exp(0.05 * np.random.default_rng(0).normal(size=60))
    best = lawbook.fit({"entropy": entropies, "reward": rewards}, law="entropy-mechanism.entropy_reward", holdout=0, huber_delta=1.0).best
    low, high = best.interval(entropies=entropies)
    assert best.log and 0.8 < np.mean((low <= rewards) & (rewards <= high)) <= 1
    np.testing.assert_allclose(np.log(high / low), 2 * 1.645 * 0.05, rtol=0.5)  # the same share of the value everywhere


def test_rows_are_named_as_the_table_numbers_them():
    table = runs(20)
    table["loss"][0], table["N"][7] = np.nan, -1.0
    with pytest.raises(LawbookError, match=r"params \(row 8\)"):
        lawbook.fit(table, law="beyond-chinchilla.chinchilla_loss", holdout=0)
    with pytest.raises(LawbookError, match="no row with a loss"):
        lawbook.fit(runs(20), law="beyond-chinchilla.chinchilla_loss", test={**runs(5), "loss": np.full(5, np.nan)})


def test_intervals_of_predictions_cover_new_runs():
    ranking = lawbook.fit(runs(60, 0.02, 5), law="beyond-chinchilla.chinchilla_loss", holdout=0, huber_delta=0.1)
    best = ranking.best
    assert all(low < best.parameters[name] < high for name, (low, high) in best.intervals.items())
    fresh = runs(400, 0.02, 6)
    low, high = best.interval(params=fresh["N"], tokens=fresh["D"])
    assert 0.82 < np.mean((low <= fresh["loss"]) & (fresh["loss"] <= high)) < 0.97
    again = lawbook.fit(runs(60, 0.02, 5), law="beyond-chinchilla.chinchilla_loss", holdout=0, huber_delta=0.1).best
    assert np.array_equal(again.resamples, best.resamples)
