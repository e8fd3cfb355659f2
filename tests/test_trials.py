"""The seven forms on claims whose truth is known: they uphold what is true, reject what is false, and say when they cannot tell."""

import numpy as np
import pytest
from scipy import stats

from lawbook.contract.paper import Trial
from lawbook.numerics import Draw, generator
from lawbook.numerics.statistics import binomial_power, clopper_pearson, slope
from lawbook.trials import Counts, Coverage, Distribution, Estimate, Forecast, Guarantee, Identity, Inequality, Prediction, Rate, Sample, run_trial


def judge(form, function, n, seed=0):
    return form.judge(function, generator(seed, "test"), n)


def test_identity():
    assert judge(Identity(rtol=1e-12), lambda d: (np.sin(x := d.uniform(0, 3)) ** 2, 1 - np.cos(x) ** 2), 50).status == "upheld"
    wrong = judge(Identity(rtol=1e-3), lambda d: ((x := d.uniform(1, 3)), x + (0.1 if x > 2.9 else 0), {"x": x}), 200)
    assert wrong.status == "violated" and wrong.worst["x"] > 2.9
    assert judge(Identity(), lambda d: (np.inf, np.inf), 3).status == "upheld"
    assert judge(Identity(), lambda d: (np.nan, 1.0), 3).status == "violated"


def test_identity_with_estimates_has_the_stated_false_alarm():
    form = Identity(rtol=0, alarm=0.05)
    alarms = sum(judge(form, lambda d: (Estimate.of(d.rng.normal(size=400)), 0.0), 10, seed).status == "violated" for seed in range(400))
    low, high = clopper_pearson(alarms, 400, 0.999)
    assert low <= 0.05 <= high * 1.3
    assert judge(form, lambda d: (Estimate.of(d.rng.normal(0.5, size=400)), 0.0), 10).status == "violated"


def test_inequality_search_finds_what_random_draws_miss():
    def narrow(draw):  # violated only in a ball of volume 1e-5 around (.3, .7, .2)
        x = draw.uniform(size=3)
        return float(1.001 - 2 * np.sum((x - [0.3, 0.7, 0.2]) ** 2)), 1.0, {"x": x}

    blind = judge(Inequality(search=0), narrow, 50)
    seeing = judge(Inequality(search=1500), narrow, 50)
    assert blind.status == "upheld" and seeing.status == "violated"
    np.testing.assert_allclose(seeing.worst["x"], [0.3, 0.7, 0.2], atol=0.05)


def test_inequality_verdicts():
    assert judge(Inequality(reaches=0.99), lambda d: (d.uniform(0, 0.5), 1.0), 50).status == "inconclusive"
    assert judge(Inequality(trivial=1.0), lambda d: (d.uniform(), 1.0), 50).status == "vacuous"
    assert judge(Inequality(), lambda d: (np.nan, 1.0), 5).status == "violated"
    assert judge(Inequality(rtol=1e-9), lambda d: (np.inf, 1.0), 5).status == "violated"
    assert judge(Inequality(rtol=1e-9), lambda d: (np.inf, np.inf), 5).status == "upheld"


def test_coverage():
    exact = Coverage(at_most=0.1)
    assert judge(exact, lambda d: d.rng.uniform() < 0.1, 2000).status == "upheld"
    assert judge(exact, lambda d: d.rng.uniform() < 0.2, 2000).status == "violated"
    assert judge(exact, lambda d: d.rng.uniform() < 0.1, 30).status == "inconclusive"
    hidden = judge(exact, lambda d: {"good": d.rng.uniform(size=3) < 0.01, "bad": d.rng.uniform() < 0.3}, 1000)
    assert hidden.status == "violated" and hidden.worst["setting"] == "bad"


def test_statistics_against_scipy():
    for k, n in ((0, 20), (3, 17), (20, 20)):
        reference = stats.binomtest(k, n).proportion_ci(0.99, method="exact")
        np.testing.assert_allclose(clopper_pearson(k, n, 0.99), (reference.low, reference.high), atol=1e-12)
    rng = np.random.default_rng(1)
    rejected = np.mean([stats.binomtest(int(k), 200, 0.1, alternative="greater").pvalue <= 0.01 for k in rng.binomial(200, 0.2, 2000)])
    assert abs(binomial_power(200, 0.1, 0.2, 0.01) - rejected) < 0.03
    x = rng.normal(size=30)
    y = 2 * x + rng.normal(size=30)
    fit = stats.linregress(x, y)
    estimate, half, intercept = slope(x, y, 0.95)
    np.testing.assert_allclose([estimate, half, intercept], [fit.slope, stats.t.ppf(0.975, 28) * fit.stderr, fit.intercept])


def test_rate():
    def power(exponent, noise=0.01):
        def values(draw):
            sizes = np.geomspace(10, 1e4, 8)
            return sizes, sizes**exponent * np.exp(draw.rng.normal(0, noise, 8)), -0.5

        return values

    assert judge(Rate(within=0.05), power(-0.5), 5).status == "upheld"
    assert judge(Rate(within=0.05), power(-0.4), 5).status == "violated"
    assert judge(Rate(within=0.05), power(-0.5, noise=3), 1).status == "inconclusive"
    assert judge(Rate(within=0.05, one_sided=True), power(-0.9), 5).status == "upheld"


def test_distribution():
    assert judge(Distribution(), lambda d: Sample(d.rng.normal(size=d.size), cdf=stats.norm.cdf), 3000).status == "upheld"
    assert judge(Distribution(), lambda d: Sample(d.rng.standard_t(4, size=d.size), cdf=stats.norm.cdf), 3000).status == "violated"
    assert judge(Distribution(), lambda d: Sample(d.rng.normal(size=d.size), like=d.rng.normal(size=d.size)), 3000).status == "upheld"
    assert judge(Distribution(), lambda d: Counts(np.bincount(d.rng.integers(6, size=d.size), minlength=6), np.full(6, 1 / 6)), 3000).status == "upheld"
    assert judge(Distribution(), lambda d: Counts([d.size - 1, 1], [1.0, 0.0]), 3000).status == "violated"
    near = Distribution(within=0.05)
    assert judge(near, lambda d: Sample(d.rng.normal(0.02, size=d.size), cdf=stats.norm.cdf), 20_000).status == "upheld"
    assert judge(near, lambda d: Sample(d.rng.normal(0.5, size=d.size), cdf=stats.norm.cdf), 20_000).status == "violated"


def test_distribution_has_the_stated_level():
    p = [judge(Distribution(level=0.05), lambda d: Sample(d.rng.uniform(size=d.size), cdf=lambda x: np.clip(x, 0, 1)), 100, seed).status for seed in range(300)]
    low, high = clopper_pearson(p.count("violated"), 300, 0.999)
    assert low <= 0.05 <= high


def test_guarantee():
    assert judge(Guarantee(), lambda d: (d.uniform(), 1.0), 20).status == "upheld"
    assert judge(Guarantee(), lambda d: d.uniform() < 0.9, 200).status == "violated"
    assert judge(Guarantee(), lambda d: (Estimate.of(d.rng.normal(1, size=50)), 1.0), 20).status == "upheld"


def test_prediction():
    def forecast(error):
        def made(draw):
            truth = draw.rng.normal(size=20)
            return Forecast(truth, truth + error * draw.rng.normal(size=20), truth + draw.rng.normal(size=20))

        return made

    assert judge(Prediction("noise"), forecast(0.1), 10).status == "upheld"
    assert judge(Prediction("noise"), forecast(5.0), 10).status == "violated"
    assert judge(Prediction("noise"), forecast(1.0), 10).status == "inconclusive"
    assert judge(Prediction("noise", at_most=0.01), forecast(0.1), 10).status == "violated"


def test_draws_replay_from_their_tape():
    def values(draw):
        return [draw.uniform(), draw.integer(1, 9), *draw.dirichlet(0.5, 3), draw.normal(), draw.choice("abc"), draw.log_uniform(1, 10), *draw.exponential(2)]

    first = Draw(np.random.default_rng(5))
    written = values(first)
    assert values(Draw(np.random.default_rng(99), tape=first.tape, choices=first.choices)) == written


def test_a_trial_that_cannot_reject_its_control_says_nothing():
    class Stub:
        slug = "stub"

    trial = Trial(Stub, "blind", Identity(), lambda draw, claim: (1.0, 1.0), None, {"same": None}, (), 3, 3)
    verdict = run_trial(trial)
    assert verdict.status == "inconclusive" and "negative control" in verdict.reason
    with pytest.raises(AssertionError, match="cannot fail"):
        from lawbook.contract import Paper

        Paper("a.b", title="t", arxiv="2401.00001", tags=[], source="none", says="").trial(Identity(), of=[], controls={}, quick=1, full=1)
