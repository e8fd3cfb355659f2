"""Closed forms written once for NumPy, JAX and torch: the namespace of the inputs, and the functions it lacks."""

import numpy as np


def arrays(*values):
    """(xp, *arrays): the array namespace that the inputs share and the inputs in it, numbers as floats; None stays None.

    Numbers and lists go with whatever array is there: NumPy's float64 where there is none.
    """
    foreign = [v for v in values if _is_foreign(v)]
    if not foreign:
        return np, *(v if v is None else np.asarray(v, dtype=_float_dtype(v)) for v in values)
    from array_api_compat import array_namespace

    xp = array_namespace(*foreign)
    floats = [v.dtype for v in foreign if xp.isdtype(v.dtype, ("real floating", "complex floating"))]
    dtype = floats[0] if floats else xp.asarray(1.0).dtype
    return xp, *(v if v is None else _converted(xp, v, dtype) for v in values)


def _is_foreign(value):
    return not isinstance(value, np.ndarray | np.generic | int | float | complex | list | tuple | type(None)) and hasattr(value, "dtype")


def _float_dtype(value):
    kind = np.asarray(value).dtype
    return kind if kind.kind in "fc" else np.float64


def _converted(xp, value, dtype):
    if _is_foreign(value) and xp.isdtype(value.dtype, ("real floating", "complex floating")):
        return value
    if _is_foreign(value):
        return xp.astype(value, dtype)
    return xp.asarray(value, dtype=dtype)


def special(xp, name):
    """The special function `name` (SciPy's spelling, such as "gammaln", "xlogy", "ndtr") for arrays of the namespace xp."""
    if "jax" in xp.__name__:
        import jax.scipy.special as library
    elif "torch" in xp.__name__:
        import torch.special as library
    else:
        import scipy.special as library
    return getattr(library, name)


def log1mexp(xp, x):
    """log(1 - exp(-x)) for x > 0 without loss of digits."""
    return xp.where(x > 0.6931471805599453, xp.log1p(-xp.exp(-x)), xp.log(-xp.expm1(-x)))


def logsumexp(xp, x, axis=-1):
    """log of the sum of exp(x) along an axis; -inf where every entry is."""
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    total = xp.sum(xp.exp(x - top), axis=axis)
    with np.errstate(divide="ignore"):
        return xp.log(total) + xp.squeeze(top, axis=axis)


def softmax(logits):
    """Probabilities of NumPy logits along the last axis; complex ones go through for derivatives by complex steps."""
    z = np.asarray(logits)
    e = np.exp(z - z.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
