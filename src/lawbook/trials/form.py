"""What the seven forms share: evidence in pairs, estimates with their errors, and the loop that gathers them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contract import Outcome
from ..numerics import Draw


@dataclass(frozen=True)
class Estimate:
    """A Monte-Carlo mean with its standard error; compared within as many errors as the number of comparisons warrants."""

    value: Any
    error: Any

    @classmethod
    def of(cls, samples, axis=0):
        samples = np.asarray(samples, float)
        return cls(samples.mean(axis), samples.std(axis, ddof=1) / np.sqrt(samples.shape[axis]))


@dataclass(frozen=True)
class Form:
    """A way of judging evidence. `judge` gets `make` (Draw -> evidence), a generator, the number of draws, and whether a first violation ends it."""

    @property
    def name(self):
        return type(self).__name__.lower()

    def judge(self, make, rng, n, *, stop_early=False, progress=None) -> Outcome:
        raise NotImplementedError


def draws(rng, n, progress, size=1):
    """n independent Draws, one child stream each, so that one draw's appetite does not shift the next."""
    for child in rng.spawn(n):
        yield Draw(child, size=size)
        if progress:
            progress()


def pair(evidence):
    """(left, right, case) of evidence given as a pair or a triple."""
    left, right, *case = evidence
    return left, right, dict(case[0]) if case else {}


def split(side):
    """(value, standard error) of one side as float arrays."""
    if isinstance(side, Estimate):
        return np.asarray(side.value, float), np.asarray(side.error, float)
    value = np.asarray(side)
    value = value if value.dtype.kind == "c" else value.astype(float)
    return value, np.zeros(value.shape)


def plain(value):
    """Evidence small enough to keep: arrays shortened, NumPy scalars as Python numbers."""
    if isinstance(value, Estimate):
        return {"value": plain(value.value), "standard_error": plain(value.error)}
    array = np.asarray(value)
    if array.dtype == object or array.dtype.kind in "US":
        return value if isinstance(value, str | int | float) else str(value)
    return array.item() if array.ndim == 0 else array.ravel()[:16].tolist()
