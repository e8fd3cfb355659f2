"""Fits of the multi-power law to loss curves: derivatives, lumps, minima, the cross-validated prior, draws."""

import numpy as np
import pytest

import lawbook
from lawbook.chapters.scaling import multi_power_law as paper
from lawbook.contract import DomainError, LawbookError
from lawbook.numerics import loss_curves
from lawbook.numerics.robust import huber

TRUTH = np.array([3.04, np.log(0.52), 0.51, np.log(20.0), np.log(2.1), 0.58, 0.64])


@pytest.fixture(scope="module")
def curves():
    return paper.synthetic_curves(np.random.default_rng(1))


def uneven():
    """A schedule that rises, rests, falls to 0 and comes back."""
    rates = np.repeat([0.0, 1e-3, 3e-3, 3e-3, 1e-3, 0.0, 2e-3, 5e-4], 7)
    return {"learning_rates": rates, "steps": np.array([9, 20, 33, 37, 41, 55]), "losses": np.full(6, 3.3)}


def test_derivatives_are_those_of_the_prediction():
    curve = loss_curves.lumped(uneven())
    jacobian = loss_curves.predicted(curve, TRUTH)[1]
    for i, moved in enumerate(1e-6 * np.eye(7)):
        slope = (loss_curves.predicted(curve, TRUTH + moved)[0] - loss_curves.predicted(curve, TRUTH - moved)[0]) / 2e-6
        np.testing.assert_allclose(jacobian[:, i], slope, rtol=1e-6, atol=1e-8)


def test_without_lumps_the_prediction_is_the_law_and_lumps_come_near_it():
    cosine = {**uneven(), "learning_rates": paper.schedule("cosine", 3000, 3e-3, warmup_steps=200), "steps": np.arange(300, 3000, 450)}
    for curve in (uneven(), cosine):
        law = paper.loss_curve(curve["learning_rates"], curve["steps"], **paper.named(TRUTH))
        np.testing.assert_allclose(loss_curves.predicted(loss_curves.lumped(curve), TRUTH)[0], law, rtol=1e-12)
    off = [np.abs(loss_curves.predicted(loss_curves.lumped(cosine, fineness), TRUTH)[0] / law - 1).max() for fineness in (1, 2, 4)]
    assert off[0] > 3 * off[1] > 9 * off[2] and off[2] < 1e-5  # the square of the width
    assert len(loss_curves.lumped(cosine, 2).changed) < len(loss_curves.lumped(cosine).changed) / 10


@pytest.mark.parametrize("robust", [True, False])
def test_descend_reaches_the_minimum_of_the_penalised_objective(curves, robust):
    from scipy.optimize import minimize

    reduced, centre = [loss_curves.lumped(curve, 2) for curve in curves], loss_curves.start(curves)
    penalty = loss_curves.Penalty(centre, np.array([0, 0, 0, 0.02, 0.01, 0.05, 0.05]), robust)

    def objective(theta):
        found, beside = loss_curves.log_residuals(reduced, theta), penalty.weights * (theta - centre)
        return np.inf if found is None else huber(found[0], 1e-3).sum() + (huber(beside, 1e-3) if robust else beside**2 / 2).sum()

    theta, converged = loss_curves.descend(reduced, centre, 1e-3, penalty)
    near = minimize(objective, theta, method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-9, "fatol": 1e-15})
    assert converged and objective(theta) <= near.fun * (1 + 1e-6) < objective(centre)


def test_an_infinite_threshold_is_least_squares(curves):
    centre = loss_curves.start(curves)
    free = loss_curves.Penalty(centre, np.full(7, 1e-3))
    reduced = [loss_curves.lumped(curve, 2) for curve in curves]
    infinite, large = (loss_curves.descend(reduced, centre, delta, free)[0] for delta in (np.inf, 1e3))
    np.testing.assert_allclose(infinite, large)


def test_the_cross_validated_prior_forecasts_better_than_the_worst_candidates(curves):
    errors = loss_curves.forecast_errors(curves, 1e-3)
    assert set(errors) == set(loss_curves.LEADS) and min(errors.values()) < 0.9 * max(errors.values())
    steps = np.arange(30, 900, 10)
    rates = paper.schedule("wsd", 900, 1e-2, final_rate=3e-3, warmup_steps=30, decay_start=700)
    truth = paper.loss_curve(rates, steps, **{**paper.PUBLISHED["25M"], "B": 20.0})
    forecast = paper.loss_curve(rates, steps, **paper.fit_curves([{k: c[k] for k in ("learning_rates", "steps")} for c in curves], [c["losses"] for c in curves]))
    assert np.abs(forecast / truth - 1).max() < 3e-3  # three times as long, from curves with noise of .1 %


def test_one_curve_is_fitted_with_a_fixed_prior(curves):
    call, losses = {k: curves[2][k] for k in ("learning_rates", "steps")}, curves[2]["losses"]
    with np.errstate(all="raise", under="ignore"):
        found = paper.fit_curves([call], [losses], huber_delta=np.inf)
    assert list(found) == list(paper.LAW) and np.abs(paper.loss_curve(**call, **found) / losses - 1).max() < 5e-3


def test_draws_are_as_wide_as_the_intervals_and_inside_the_domain(curves):
    calls, losses = [{k: c[k] for k in ("learning_rates", "steps")} for c in curves], [c["losses"] for c in curves]
    found = paper.draws(calls, losses, 4000, seed=3)
    assert found.shape == (4000, 7) and (found[:, [1, 2, 3, 4, 5]] > 0).all()
    np.testing.assert_array_equal(found[:5], paper.draws(calls, losses, 4000, seed=3)[:5])
    low, high = paper.fit_multi_power_law(curves, prior_weight="cross-validated")["ci"]["L0"]
    assert np.mean((found[:, 0] > low) & (found[:, 0] < high)) == pytest.approx(0.95, abs=0.02)


def test_forecasts_hold_the_truth_and_are_wider_than_the_draws(curves):
    calls, losses = [{k: c[k] for k in ("learning_rates", "steps")} for c in curves], [c["losses"] for c in curves]
    planned = {"learning_rates": paper.schedule("cosine", 900, 1e-2, final_rate=1e-3, warmup_steps=30), "steps": np.array([300, 600, 899])}
    (found,) = paper.forecasts(calls, losses, [planned], 500, seed=1)
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    truth = paper.loss_curve(**planned, **{**paper.PUBLISHED["25M"], "B": 20.0})
    rows = [paper.loss_curve(**planned, **dict(zip(paper.LAW, row, strict=True))) for row in paper.draws(calls, losses, 500, seed=1)]
    assert ((low < truth) & (truth < high)).all() and (found.std(0) > np.std(rows, axis=0)).all()


def test_what_cannot_be_fitted_is_refused(curves):
    with pytest.raises(DomainError, match="at least 3"):
        lawbook.run("multi-power-law.fit_multi_power_law", curves=curves[:2], prior_weight="cross-validated")
    with pytest.raises(LawbookError, match="prior_weight"):
        lawbook.run("multi-power-law.fit_multi_power_law", curves=curves, prior_weight="by hand")
    with pytest.raises(LawbookError, match="prior_weight"):
        lawbook.run("multi-power-law.fit_multi_power_law", curves=curves, prior_weight=-1.0)


def test_the_best_falling_schedule_falls_to_where_the_loss_is_least():
    late = np.arange(50) >= 10
    rates = loss_curves.falling_schedule(lambda r: (((r - 0.2) ** 2)[late].sum(), 2 * late * (r - 0.2)), 50, 1.0, knots=20, least=1e-3)
    assert (np.diff(rates) <= 0).all() and rates[0] <= 1 and np.abs(rates[late] - 0.2).max() < 1e-3
