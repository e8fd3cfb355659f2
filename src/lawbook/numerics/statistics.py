"""Intervals and tests that the trials stand on."""

import numpy as np

FLIPPED = 10_000  # differences whose signs are flipped one by one


def clopper_pearson(successes, trials, confidence):
    """Exact two-sided interval for a success probability."""
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - tail))
    return low, high


def clustered_interval(successes, trials, confidence):
    """(rate, low, high) of a share whose observations come in clusters: Clopper-Pearson at the effective number of observations (Korn and Graubard).

    `successes` (whole or not) and `trials` have one entry a cluster. One observation a cluster gives Clopper-Pearson; a rate of 0 or 1 counts clusters, since its
    scatter cannot be seen. NaN ends where there is one cluster of several observations.
    """
    from scipy.special import betaincinv
    from scipy.stats import t

    a, n = np.asarray(successes, float), np.asarray(trials, float)
    a, n = a[n > 0], n[n > 0]
    clusters, total = len(n), n.sum()
    rate = float(a.sum() / total)
    if np.all(n == 1) and np.all((a == 0) | (a == 1)):
        return rate, *clopper_pearson(round(a.sum()), clusters, confidence)
    if clusters < 2:
        return rate, np.nan, np.nan
    tail = (1 - confidence) / 2
    variance = clusters / (clusters - 1) * np.sum((a - rate * n) ** 2) / total**2
    effective = rate * (1 - rate) / variance if variance > 0 and 0 < rate < 1 else clusters
    effective *= (t.ppf(tail, total - 1) / t.ppf(tail, clusters - 1)) ** 2 if total > 1 else 1
    x = rate * effective
    low = float(betaincinv(x, effective - x + 1, tail)) if x > 0 else 0.0
    high = float(betaincinv(x + 1, effective - x, 1 - tail)) if x < effective else 1.0
    return rate, low, high


def clustered_mean(sums, counts, confidence):
    """(mean, low, high) of values that come in clusters, given each cluster's sum and number: the ratio's scatter over clusters, by Student's t; NaN ends for one cluster."""
    from scipy.stats import t

    a, n = np.asarray(sums, float), np.asarray(counts, float)
    mean = float(a.sum() / n.sum())
    if len(a) < 2:
        return mean, np.nan, np.nan
    error = np.sqrt(len(a) / (len(a) - 1) * np.sum((a - mean * n) ** 2)) / n.sum()
    half = float(t.ppf(0.5 + confidence / 2, len(a) - 1) * error)
    return mean, mean - half, mean + half


def mean_interval(values, confidence):
    """(mean, low, high) of independent values by Student's t; NaN ends for fewer than two."""
    from scipy.stats import t

    values = np.asarray(values, float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, np.nan, np.nan
    half = float(t.ppf(0.5 + confidence / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def holm(p_values):
    """p-values corrected for as many tests (Holm): below a level only where the family-wise error stays below it, however the tests depend on each other."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return corrected


def sign_flip(differences, draws=9999, seed=0):
    """Two-sided p-value that independent differences are symmetric about 0, by flipping their signs at random: exact in level for any number of draws.

    Of more than FLIPPED differences the flipped sum is normal to all purposes, and its tail is taken from there.
    """
    d = np.asarray(differences, float)
    d = d[d != 0]
    if not len(d):
        return 1.0
    if len(d) > FLIPPED:
        from scipy.special import ndtr

        return float(2 * ndtr(-abs(d.sum()) / np.sqrt(d @ d)))
    rng, seen = np.random.default_rng(seed), abs(d.sum()) * (1 - 1e-12)
    block = max(1, 2_000_000 // len(d))
    flipped = sum(int(np.sum(np.abs((2 * rng.integers(0, 2, (min(block, draws - at), len(d))) - 1) @ d) >= seen)) for at in range(0, draws, block))
    return (1 + flipped) / (1 + draws)


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


def pass_at_k(samples, correct, k):
    """1 - C(n-c, k) / C(n, k) for n samples with c correct: unbiased estimates of the chance that k attempts hold a success, one a problem."""
    n, c = np.broadcast_arrays(samples, correct)
    _, first, which = np.unique(n * (c.max() + 1) + c, return_index=True, return_inverse=True)  # many problems share their counts
    found = [1.0 if n_ - c_ < k else 0.0 - np.expm1(np.log1p(-max(c_, k) / (n_ - np.arange(min(c_, k)))).sum()) for n_, c_ in zip(n.ravel()[first], c.ravel()[first], strict=True)]
    return np.array(found)[which].reshape(n.shape)
