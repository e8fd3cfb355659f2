"""General forms: columns are recognised, the form is chosen on train rows alone, and it foretells runs of other kinds than the library was made from."""

import numpy as np
import pytest

from lawbook.artifacts import datasets
from lawbook.artifacts.tables import read_runs
from lawbook.chapters.scaling.sld_bench import extrapolation_score
from lawbook.contract import LawbookError
from lawbook.fitting import forms
from lawbook.numerics.separable import Separable, best_fits, columns, project


def foretold(table):
    """(R2 of the test rows, the best FormFit, all of them), from the train rows of a table with a column `split`."""
    inputs, targets, group = forms.inputs_and_targets(table)
    train, test = (np.flatnonzero(table["split"] == part) for part in ("train", "test"))
    hidden = {name: np.where(table["split"] == "train", table[name], np.nan) for name in targets}
    labels = None if group is None else table[group]
    fits = forms.rank_forms(table | hidden, targets, inputs=inputs, groups=labels, rows=train)
    predicted = fits[0].predict({name: table[name][test] for name in fits[0].inputs}, None if group is None else labels[test])
    observed = np.column_stack([table[name] for name in targets])[test]
    return extrapolation_score(observed, np.reshape(predicted, observed.shape))["r2"], fits[0], fits


def grid(*levels):
    return [axis.ravel() for axis in np.meshgrid(*levels, indexing="ij")]


def split(table, test):
    return table | {"split": np.where(test, "test", "train")}


def vocabulary(rng):
    """Nine vocabulary sizes and a tenth to foretell, below 0 as losses less a unigram model's are."""
    n, v, h = grid([33e6, 151e6, 1.1e9], [4096, 6144, 8192, 10240, 16384, 24576, 32768, 48128, 64512, 96256.0], np.logspace(9, 11, 5))
    y = -5.5 + 200 * n**-0.35 + 30 * v**-0.5 + 900 * h**-0.3 + 0.01 * rng.normal(size=len(n))
    return split({"non_vocab_parameters": n, "vocab_size": v, "num_characters": h, "unigram_normalized_loss": y}, v == v.max())


def step_law(rng):
    """A bowl around the best learning rate of each size and number of tokens; the dearest runs to foretell."""
    n, d, rate = grid([6e7, 1.2e8, 2.4e8, 4.3e8, 1.07e9], [2e9, 4e9, 8e9, 2e10, 5e10], 2.0 ** np.arange(-12, -6))
    away = np.log(rate / (1.79 * n**-0.713 * d**0.307))
    y = (1.7 + 400 * n**-0.34 + 1100 * d**-0.3 + 0.02 * away**2) * np.exp(0.002 * rng.normal(size=len(n)))
    return split({"lr": rate, "data_size": d, "non_embedding_param_size": n, "lm_loss": y}, n * d > 2e19)


def u_shapes(rng):
    """Losses that fall and rise again with the logarithm of compute, a curve for each task."""
    parts = []
    for task in "abcd":
        x, least = np.sort(rng.uniform(17, 21, 25)), rng.uniform(18.5, 19.5)
        parts.append((np.full(25, task), x, 2.5 + 0.15 * (x - least) ** 2 + 0.01 * rng.normal(size=25)))
    task, x, y = map(np.concatenate, zip(*parts, strict=True))
    return split({"task": task, "log10_flops": x, "loss": y}, x > 20.2)


def mixtures(rng):
    shares = rng.dirichlet(np.ones(4), 36)
    prose, code = ((1.5 + np.exp(shares @ np.array(t))) * np.exp(0.004 * rng.normal(size=36)) for t in ([-2.0, 0.5, 0.2, 0.1], [0.3, -0.2, -3.0, 0.4]))
    return split({f"share_{i}": shares[:, i] for i in range(4)} | {"loss_prose": prose, "loss_code": code}, np.arange(36) >= 28)


def two_inputs(rng):
    n, d = 10 ** rng.uniform(7.5, 9.7, 90), 10 ** rng.uniform(9, 11.3, 90)
    y = (1.8 + 450 * n**-0.345 + 2000 * d**-0.365) * np.exp(0.003 * rng.normal(size=90))
    return split({"width": np.full(90, 64.0), "params": n, "tokens": d, "compute": 6 * n * d, "loss": y}, n * d > np.quantile(n * d, 0.8))


@pytest.mark.parametrize(("make", "bar"), [(vocabulary, 0.99), (step_law, 0.97), (u_shapes, 0.95), (mixtures, 0.99), (two_inputs, 0.97)])
def test_tables_that_no_law_names_are_foretold(make, bar):
    r2, best, fits = foretold(make(np.random.default_rng(1)))
    assert r2 > bar, best.statement
    assert len({fit.form for fit in fits}) == len(fits) and all(name in best.statement for name in best.inputs)


@pytest.mark.parametrize(("task", "bar"), [("parallel", 0.9999), ("domain_mix", 0.979), ("moe", 0.76), ("data_constrained", 0.45)])
def test_real_tasks(real_data, task, bar):
    r2, best, _ = foretold(read_runs(datasets.load("scaling-tasks")[task]).columns)
    assert r2 >= bar, best.statement


def test_ninety_groups_share_one_form(real_data):
    r2, best, _ = foretold(datasets.load("scaling-tasks")["sft"])
    assert r2 >= 0.985 and len(best.groups) == len(best.constants) == 90 and best.constants_per_group <= 4


def test_roles_of_columns():
    table = two_inputs(np.random.default_rng(0))
    assert forms.inputs_and_targets(table) == (["params", "tokens", "compute"], ["loss"], None)
    best = foretold(table)[1]
    assert best.inputs == ("params", "tokens") and any("compute follows from the other columns" in note for note in best.notes)
    again = forms.rank_forms(table, "loss", inputs=["width", "params", "tokens"], rows=np.arange(40))[0]
    assert any("width is the same in all fitted rows" in note for note in again.notes)
    assert forms.inputs_and_targets(mixtures(np.random.default_rng(0))) == ([f"share_{i}" for i in range(4)], ["loss_prose", "loss_code"], None)
    assert forms.inputs_and_targets(u_shapes(np.random.default_rng(0))) == (["log10_flops"], ["loss"], "task")


def test_statement_and_constants_are_the_prediction():
    rng = np.random.default_rng(3)
    x = 10 ** rng.uniform(2, 5, 40)
    best = next(fit for fit in forms.rank_forms({"samples": x, "loss": 1.2 + 9 * x**-0.4}, "loss") if fit.form == "power and floor")
    values = best.constants[None]
    at = best.fitted.axes[0].at
    assert values["E"] == pytest.approx(1.2, rel=1e-6) and values["alpha_samples"] == pytest.approx(0.4, rel=1e-6)
    assert best.statement == f"loss = E + A (samples/{at:g})^-alpha_samples"
    np.testing.assert_allclose(best.predict({"samples": x}), values["E"] + values["A"] * (x / at) ** -values["alpha_samples"])


def test_resamples_spread_as_estimates_do():
    """The spread of resampled forecasts is that of forecasts from fresh data, within a factor of 1.6; the same seed gives the same draws."""
    rng, x, far = np.random.default_rng(0), np.logspace(2, 5, 30), {"samples": np.array([1e6])}

    def fit():
        y = (1.2 + 9 * x**-0.4) * np.exp(0.01 * rng.normal(size=30))
        return next(f for f in forms.rank_forms({"samples": x, "loss": y}, "loss") if f.form == "power and floor")

    fits = [fit() for _ in range(8)]
    fresh = np.std([f.predict(far)[0] for f in fits])
    drawn = [forms.resample(f, 60, seed=1).predict(far).std() for f in fits[:4]]
    assert 1 / 1.6 < np.median(drawn) / fresh < 1.6
    np.testing.assert_array_equal(forms.resample(fits[0], 5, seed=1).predict(far), forms.resample(fits[0], 5, seed=1).predict(far))


def test_bad_tables_are_refused_in_one_sentence():
    x = np.linspace(1, 50, 20)
    with pytest.raises(LawbookError, match="at least 4 rows"):
        forms.rank_forms({"n": x[:3], "loss": x[:3]}, "loss", inputs=["n"])
    with pytest.raises(LawbookError, match="loss must vary"):
        forms.rank_forms({"n": x, "loss": np.ones(20)}, "loss", inputs=["n"])
    with pytest.raises(LawbookError, match="input that varies"):
        forms.rank_forms({"n": np.ones(20), "loss": 1 / x}, "loss", inputs=["n"])
    with pytest.raises(LawbookError, match="too few values"):
        forms.rank_forms({"n": np.repeat([1.0, 2.0], 10), "loss": 1 / x}, "loss", inputs=["n"])
    with pytest.raises(LawbookError, match="must hold numbers"):
        forms.rank_forms({"n": np.array(["a"] * 20), "loss": 1 / x}, "loss", inputs=["n"])
    loss = 1 + 1 / x
    loss[4] = np.nan
    fit = forms.rank_forms({"n": x, "loss": loss}, "loss", inputs=["n"])[0]
    assert fit.rows == 19 and any("1 rows without a number" in note for note in fit.notes)
    with pytest.raises(LawbookError, match="needs the column n"):
        fit.predict({"m": x})
    with pytest.raises(LawbookError, match="above 0"):
        fit.predict({"n": -x})


def test_small_groups_share_constants_and_unknown_ones_are_named():
    rng = np.random.default_rng(0)
    x, group = np.tile(np.logspace(2, 5, 12), 3), np.repeat(["a", "b", "c"], 12)
    y = (np.repeat([1.0, 1.5, 1.2], 12) + 9 * x**-0.4) * np.exp(0.002 * rng.normal(size=36))
    best = forms.rank_forms({"samples": x, "loss": y}, "loss", groups=group)[0]
    with pytest.raises(LawbookError, match="no fitted rows of the group d"):
        best.predict({"samples": x[:1]}, ["d"])
    few = np.r_[0:24, 24:26]
    best = forms.rank_forms({"samples": x, "loss": y}, "loss", groups=group, rows=few)[0]
    assert any("1 groups of fewer than 4 rows (c)" in note for note in best.notes)
    assert np.isfinite(best.predict({"samples": x}, group)).all()


def test_projection_is_least_squares_and_keeps_scales_positive():
    rng = np.random.default_rng(0)
    terms, target, weights = rng.normal(size=(5, 3, 20)), rng.normal(size=(5, 20)), rng.uniform(size=(5, 20))
    residuals, c = project(terms, target, weights)
    for t, y, w, r, found in zip(terms, target, weights, residuals, c, strict=True):
        exact = np.linalg.lstsq((t * np.sqrt(w)).T, y * np.sqrt(w), rcond=None)[0]
        np.testing.assert_allclose(found, exact, rtol=1e-9)
        np.testing.assert_allclose(r, y - exact @ t, rtol=1e-9, atol=1e-12)
    assert (project(terms, target, weights, (0, 2))[1][:, [0, 2]] >= 0).all()


def test_many_problems_at_once_are_fitted_like_each_alone():
    law = Separable(lambda x, q: columns(1.0, np.exp(-np.exp(q) * x[..., 0])), np.log([[0.05, 1.0]]), (0, 1))
    rng = np.random.default_rng(0)
    x, rates = rng.uniform(0, 5, (6, 15, 1)), rng.uniform(0.2, 0.9, 6)
    y = 1 + 2 * np.exp(-rates[:, None] * x[..., 0])
    q, c, _, _ = best_fits(law, x, y, 1 / y)
    np.testing.assert_allclose(np.exp(q[:, 0]), rates, rtol=1e-6)
    np.testing.assert_allclose(c, np.tile([1.0, 2.0], (6, 1)), rtol=1e-6)
    alone = best_fits(law, x[2:3], y[2:3], 1 / y[2:3])
    np.testing.assert_allclose(alone[0][0], q[2], rtol=1e-6)
