"""Spectra of weight matrices, by the cheapest route that keeps their digits."""

import numpy as np


def singular_values(matrix):
    """All min(m, n) singular values, largest first: from the smaller Gram matrix where its eigenvalues keep six digits, else from an SVD.

    Squares lose what lies below sqrt(eps) of the largest: a matrix with a condition number above 3e4 goes the slower way.
    """
    a = np.asarray(matrix, float)
    largest = np.abs(a).max(initial=0.0)
    if largest == 0 or min(a.shape) == 1:
        return np.append(largest * np.linalg.norm(a / (largest or 1.0)), np.zeros(min(a.shape) - 1))
    if not 1e-100 < largest < 1e100:
        return largest * singular_values(a / largest)
    eigenvalues = np.linalg.eigvalsh(a @ a.T if a.shape[0] <= a.shape[1] else a.T @ a)
    if eigenvalues[0] > 1e-9 * eigenvalues[-1]:
        return np.sqrt(eigenvalues[::-1])
    return np.linalg.svd(a, compute_uv=False)


def spectral_norm(matrices):
    """Largest singular value of each matrix of a stack, by the eigenvalues of its smaller Gram matrix: the largest keeps its digits there, at a fraction of an SVD's time."""
    a = np.asarray(matrices, float)
    largest = np.abs(a).max(axis=(-2, -1), keepdims=True, initial=0.0)
    a = a / np.where(largest > 0, largest, 1.0)  # squares neither overflow nor vanish
    gram = a @ a.swapaxes(-2, -1) if a.shape[-2] <= a.shape[-1] else a.swapaxes(-2, -1) @ a
    return largest[..., 0, 0] * np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[..., -1], 0.0))


def count_above(matrix, level):
    """How many squared singular values exceed a level, in single precision: the signs of one factorisation tell (Sylvester), several times cheaper than the values."""
    from scipy.linalg import eigvalsh_tridiagonal, ldl

    unit = float(np.abs(matrix).max()) or 1.0
    a = np.divide(matrix, unit, dtype=np.float32)
    gram = a @ a.T if a.shape[0] <= a.shape[1] else a.T @ a
    gram[np.diag_indices_from(gram)] -= level / unit**2
    d = ldl(gram, overwrite_a=True, check_finite=False)[1]
    return int(np.sum(eigvalsh_tridiagonal(np.diag(d), np.diag(d, 1)) > 0)) if len(d) > 1 else int(d[0, 0] > 0)
