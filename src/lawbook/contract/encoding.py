"""One rule for values in JSON: NaN is null, infinities are "inf" and "-inf", complex numbers {"re", "im"}."""

import json
import math

import numpy as np


def encode(value):
    """`value` as plain JSON types; arrays become lists, records keep their names."""
    if isinstance(value, dict):
        return {str(k): encode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, complex):
        return {"re": encode(value.real), "im": encode(value.imag)}
    if isinstance(value, np.generic):
        return encode(value.item())
    if callable(value):
        return getattr(value, "__name__", "function")
    return encode(np.asarray(value).tolist())  # NumPy, JAX and torch arrays


def decode_number(value):
    """A JSON value that stands for a number, as that number."""
    if value is None:
        return math.nan
    if isinstance(value, dict) and set(value) == {"re", "im"}:
        return complex(decode_number(value["re"]), decode_number(value["im"]))
    if value in ("inf", "+inf"):
        return math.inf
    return -math.inf if value == "-inf" else value


def dumps(value, **options):
    return json.dumps(encode(value), ensure_ascii=False, allow_nan=False, **options)
