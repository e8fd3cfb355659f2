"""Spectra of covariances: the ridge that a finite number of random features or samples amounts to."""

import numpy as np

from .roots import bracketed_root


def effective_ridge(eigenvalues, degrees):
    """kappa with sum_k lambda_k / (lambda_k + kappa) = degrees; 0 where the spectrum has no more eigenvalues than that."""
    spectrum = np.asarray(eigenvalues, float)
    spectrum = spectrum[spectrum > 0]
    excess = len(spectrum) / degrees - 1
    if excess <= 0:
        return 0.0
    # at the bounds every term is at least, and at most, its share of the sum
    low, high = np.log(spectrum.min() * excess), np.log(spectrum.sum() / degrees)
    return float(np.exp(bracketed_root(lambda u: (spectrum / (spectrum + np.exp(u))).sum() - degrees, min(low, high) - 1e-9, high + 1e-9, what="the effective ridge")))
