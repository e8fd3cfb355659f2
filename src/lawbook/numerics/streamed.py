"""Singular values of matrices that come in blocks, so that no copy of the whole in double precision is ever made."""

import numpy as np

KEEPS_DIGITS = 1e-12  # least over largest eigenvalue of a Gram matrix down to which the least singular value keeps three digits: condition numbers up to a million


def streamed_spectrum(blocks):
    """(all n singular values, largest first; squared norms of the rows; of the n columns) of the matrix whose rows come as `blocks()`: an iterator of arrays [k, n].

    `blocks` is called anew for each pass, and gives at least n rows in all. The values are those of the Gram matrix in double precision, and where that has lost the least
    of them, of a QR factorisation, block by block. They are NaN where an entry is not finite, and so are some of the norms then, or infinite.
    """
    gram, rows = None, []
    for block in blocks():
        a = np.asarray(block, float)
        rows.append(np.einsum("ij,ij->i", a, a))
        part = a.T @ a
        gram = part if gram is None else np.add(gram, part, out=gram)
        del a, part
    norms, columns = np.concatenate(rows), np.diag(gram).copy()
    if np.isnan(columns).any() or (np.isinf(columns).any() and not all(np.isfinite(block).all() for block in blocks())):
        return np.full(len(gram), np.nan), norms, columns
    if np.isfinite(columns).all():
        eigenvalues = np.linalg.eigvalsh(gram)
        if eigenvalues[0] > KEEPS_DIGITS * eigenvalues[-1]:
            return np.sqrt(eigenvalues[::-1]), norms, columns
    triangle = np.zeros((0, len(gram)))
    del gram
    for block in blocks():
        triangle = np.linalg.qr(np.concatenate([triangle, np.asarray(block, float)]), mode="r")
    return np.linalg.svd(triangle, compute_uv=False), norms, columns
