"""The seven forms of trial."""

from .coverage import Coverage
from .distribution import Counts, Distribution, Sample
from .form import Estimate, Form
from .guarantee import Guarantee
from .identity import Identity
from .inequality import Inequality
from .judge import run_trial
from .prediction import Forecast, Prediction
from .rate import Rate

__all__ = ["Counts", "Coverage", "Distribution", "Estimate", "Forecast", "Form", "Guarantee", "Identity", "Inequality", "Prediction", "Rate", "Sample", "run_trial"]
