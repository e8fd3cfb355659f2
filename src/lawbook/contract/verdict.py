"""What a trial says, with its evidence."""

from dataclasses import asdict, dataclass, field
from typing import Any

from .encoding import encode
from .shown import Shown

STATUSES = {
    "upheld": "every test passed, and the trial could have failed: it rejected its negative controls",
    "violated": "a counterexample, or data that the claim excludes at the stated confidence",
    "vacuous": "true here, but it says no more than what holds without it",
    "inconclusive": "the evidence decides neither way, or the trial could not reject its negative control",
}


@dataclass(frozen=True)
class Outcome:
    """What one form of trial concludes about one claim (or one negative control)."""

    status: str
    reason: str
    samples: int
    confidence: float | None = None  # of the statement in `reason`; None where it is exact
    tightness: dict[str, float] = field(default_factory=dict)  # form-specific numbers: quantiles of left/right, deviations, slopes, intervals
    worst: dict[str, Any] = field(default_factory=dict)  # the worst case found


@dataclass(frozen=True)
class Verdict(Shown):
    paper: str
    trial: str
    form: str
    results: tuple[str, ...]
    status: str
    reason: str
    samples: int
    confidence: float | None
    tightness: dict[str, Any]
    worst: dict[str, Any]
    controls: list[dict[str, Any]]  # name, rejected, status, reason
    seed: int
    effort: str  # "quick" or "full"
    versions: dict[str, str]
    seconds: float

    def to_dict(self):
        return encode(asdict(self))

    def evidence(self):
        """Everything that the seed determines: equal for equal seeds."""
        return {key: value for key, value in self.to_dict().items() if key not in ("seconds", "versions")}

    @classmethod
    def from_dict(cls, stored):
        return cls(**{**stored, "results": tuple(stored["results"])})

    @property
    def id(self):
        return f"{self.paper}.{self.trial}"

    def __str__(self):
        return f"{self.id}: {self.status}. {self.reason}"
