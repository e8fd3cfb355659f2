"""What an audit of a log is written on: measures with their uncertainty, tests that are corrected for each other, tables, pictures and sentences."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

from ...contract import Shown
from ...numerics.statistics import clopper_pearson, clustered_interval, clustered_mean, holm, mean_interval

LEVEL = 0.95  # of intervals
LEAST = 1e-300  # a p-value below this is given as it


@dataclass(frozen=True)
class Measure(Shown):
    """One number with its uncertainty, or the reason why this log gives none (`trusted` is False and `value` None)."""

    name: str
    section: str
    source: str  # the result of the book that gives it
    value: Any = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    interval: str = ""  # how low and high were found
    meaning: str = ""
    trusted: bool = True
    p_value: float | None = None
    corrected: float | None = None  # the p-value once all tests of this audit are corrected for

    def __repr__(self):
        if not self.trusted:
            return f"<{self.name}: not to be trusted here. {self.meaning}>"
        ends = f" ({self.low:.4g} to {self.high:.4g})" if self.low is not None else ""
        return f"<{self.name}: {self.value}{ends}>"


@dataclass(frozen=True)
class Series:
    """Points of a picture; `low` and `high` are a band or error bars, `style` is line, points or bars."""

    name: str
    x: Any
    y: Any
    low: Any = None
    high: Any = None
    style: str = "line"


@dataclass(frozen=True)
class Picture:
    """A picture as data: faces draw it."""

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    log_x: bool = False
    log_y: bool = False


@dataclass
class Sheet:
    """Collects what is found, section by section; an interval that cannot be given stays None."""

    level: float = LEVEL
    measures: list[Measure] = field(default_factory=list)
    tables: dict[str, dict[str, list]] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)
    headlines: list[str] = field(default_factory=list)  # what matters, in words; the first comes first
    said: list[str] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)  # what can be used on: indices, a repaired map, an allocation
    section: str = ""

    def add(self, name, source, value, *, low=None, high=None, **more):
        """A number with its interval, whatever that was made by."""
        ends = {"low": low, "high": high} if _finite(low) and _finite(high) else {}
        self.measures.append(Measure(name, self.section, source, _plain(value), **ends, **(more if ends else {**more, "interval": ""})))
        return self.measures[-1]

    def rate(self, name, source, successes, trials, **more):
        """A share of independent observations, with its exact interval."""
        low, high = clopper_pearson(successes, trials, self.level)
        return self.add(name, source, successes / trials, low=low, high=high, interval=f"Clopper-Pearson, {trials} observations", **more)

    def clustered(self, name, source, successes, trials, of="prompts", **more):
        """A share of observations that come in clusters (one entry of `successes` and `trials` each)."""
        rate, low, high = clustered_interval(successes, trials, self.level)
        return self.add(name, source, rate, low=low, high=high, interval=f"Clopper-Pearson at the effective number of observations, clustered by {of}", **more)

    def mean(self, name, source, values, of="values", **more):
        """A mean of independent values, with Student's interval."""
        mean, low, high = mean_interval(values, self.level)
        return self.add(name, source, mean, low=low, high=high, interval=f"Student's t over {len(values)} {of}", **more)

    def clustered_mean(self, name, source, sums, counts, of, **more):
        """A mean of values that come in clusters."""
        mean, low, high = clustered_mean(sums, counts, self.level)
        return self.add(name, source, mean, low=low, high=high, interval=f"Student's t, clustered by {of}", **more)

    def test(self, name, source, p_value, **more):
        """A test; its p-value is corrected for all tests of the audit when the sheet is finished."""
        p_value = max(float(p_value), LEAST)
        return self.add(name, source, p_value, p_value=p_value, unit="p-value", **more)

    def distrust(self, name, source, why):
        """A measure that applies, but cannot be trusted on this log: a sentence stands in the place of a number."""
        self.measures.append(Measure(name, self.section, source, meaning=why, trusted=False))

    def finished(self):
        """The measures, with p-values corrected (Holm)."""
        at = [i for i, m in enumerate(self.measures) if m.p_value is not None]
        for i, p in zip(at, holm([self.measures[i].p_value for i in at]), strict=True):
            self.measures[i] = replace(self.measures[i], corrected=float(p))
        return self.measures


def _plain(value):
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def _finite(value):
    return value is not None and math.isfinite(value)


def percent(share, digits=1):
    """A share in words."""
    return f"{100 * share:.{digits}f} %"
