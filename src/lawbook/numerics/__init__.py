"""Mathematics that several papers share."""

from .arrays import arrays, log1mexp, logsumexp, softmax, special
from .roots import bracketed_root
from .streams import Draw, generator

__all__ = ["Draw", "arrays", "bracketed_root", "generator", "log1mexp", "logsumexp", "softmax", "special"]
