"""lawbook: the executable handbook of machine-learning theory."""

__version__ = "0.1.0"
