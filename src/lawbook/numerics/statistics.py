"""Intervals and tests that the trials stand on."""

import numpy as np


def clopper_pearson(successes, trials, confidence):
    """Exact two-sided interval for a success probability."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - tail))
    return low, high


def binomial_power(trials, null, alternative, level):
    """Probability that a one-sided exact test of `rate <= null` at `level` rejects when the rate is `alternative`."""
    from scipy.stats import binom

    critical = binom.isf(level, trials, null) + 1
    return float(binom.sf(critical - 1, trials, alternative))


def slope(x, y, confidence):
    """Least-squares slope of y on x, its half-width by Student's t, and the intercept; x holds every replicate."""
    from scipy.stats import t

    x, y = np.asarray(x, float), np.asarray(y, float)
    centred = x - x.mean()
    estimate = float(centred @ y / (centred @ centred))
    intercept = float(y.mean() - estimate * x.mean())
    residual = y - intercept - estimate * x
    error = np.sqrt(residual @ residual / (len(x) - 2) / (centred @ centred)) if len(x) > 2 else np.inf
    return estimate, float(t.ppf(0.5 + confidence / 2, max(len(x) - 2, 1)) * error), intercept


def normal_quantile(upper_tail):
    from scipy.special import ndtri

    return float(-ndtri(upper_tail))


def quantiles(values):
    """The five numbers that describe a spread, by name; empty where there is nothing finite."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return {}
    return dict(zip(("least", "lower_quartile", "median", "upper_quartile", "largest"), np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist(), strict=True))
