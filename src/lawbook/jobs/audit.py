"""Audit a model (from its configuration what serving it costs, from its weights which layers stand out) or a log."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..artifacts.configs import read_config
from ..contract import DomainError, LawbookError, Shown, UnknownName
from .audit_config import ConfigAudit, audit_config
from .audit_log import SETTINGS, audit_log
from .audit_weights import WeightsAudit, audit_weights

PARTS = ("config", "weights")
MODELS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".index.json")  # files that belong to models, read or refused as such
READ_AS = ("kind", "fields", "encoding", "threshold", "renormalise", "drop", "level")  # how a log is read
LOOKED_AT = 2**16  # bytes of a .json file that tell a configuration from a log


@dataclass(frozen=True)
class Audit(Shown):
    """What could be audited of a model; `left_out` says of each part that could not, why."""

    path: str
    config: ConfigAudit | None
    weights: WeightsAudit | None
    left_out: list[str] = field(default_factory=list)

    def to_dict(self):
        return {
            "path": self.path,
            "config": None if self.config is None else self.config.to_dict(),
            "weights": None if self.weights is None else self.weights.to_dict(),
            "left_out": self.left_out,
        }

    def __repr__(self):
        return f"<audit of {self.path}: {', '.join(name for name in PARTS if getattr(self, name) is not None)}>"


def audit(path, /, *, resume=True, progress=None, **setting):
    """The Audit of a config.json, a model folder, or a .safetensors or .gguf file; the LogAudit of a log (.jsonl, .csv, .parquet, .npz, ...).

    Options are those of audit_model (only, bits, device, batch_size, context_length, ...) and of audit_log (kind, fields, ...). Raises LawbookError where the path is neither.
    """
    if is_log(path, setting):
        return audit_log(path, resume=resume, progress=progress, **setting)
    for name in (*READ_AS, *SETTINGS):
        if setting.pop(name, None):
            raise DomainError(f"{name} is an option for logs, and {path} is a model.")
    return audit_model(path, resume=resume, progress=progress, **setting)


def is_log(path, setting=()):
    """Whether a path is a log: no folder and no file of a model. What is not there is one where an option for logs alone is given."""
    path = Path(path)
    if path.is_dir() or path.name.lower().endswith(MODELS):
        return False
    if not path.is_file():
        return any(dict(setting).get(name) for name in ("kind", "fields"))
    if path.suffix.lower() != ".json" or any(dict(setting).get(name) for name in ("kind", "fields")):
        return True
    with path.open("rb") as file:
        head = file.read(LOOKED_AT).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    if head[:1] == "[":
        return True
    try:
        found = json.JSONDecoder().raw_decode(head)
    except ValueError:  # cut off, or broken: the reader of configurations says how
        return False
    return head[found[1] :].lstrip()[:1] == "{"  # objects line by line


def audit_model(path, /, *, only=None, bits=4.0, sensitivities=None, decompose=True, resume=True, progress=None, **setting):
    """The Audit of a config.json, a model folder, or a .safetensors or .gguf file.

    `only` is "config" or "weights"; both by default, as far as the path holds them. `bits` is the budget of the bit allocation over the weights, `decompose` also thins pairs
    of matrices; `setting` are the options of audit_config (device, count, dtype, kv_dtype, batch_size, context_length, ...). Raises LawbookError where neither part can be read.
    """
    if only not in (None, *PARTS):
        raise LawbookError(f"only must be one of {', '.join(PARTS)}; it was {only!r}.")
    found: dict[str, Any] = {"config": None, "weights": None}
    left_out = []

    def attempt(part, make):
        try:
            found[part] = make()
        except LawbookError as error:
            if only == part or (part == "weights" and isinstance(error, DomainError | UnknownName)):  # a wrong setting is the caller's to mend, no part that is missing
                raise
            left_out.append(f"{part}: {error}")

    model = None
    if only != "weights":
        attempt("config", lambda: read_config(path))
        model, found["config"] = found["config"], None
        if model is not None:
            found["config"] = audit_config(model, **setting)
    if only != "config" and not str(path).endswith(".json"):
        attempt("weights", lambda: audit_weights(path, bits=bits, sensitivities=sensitivities, decompose=decompose, resume=resume, progress=progress))
    if found["config"] is None and found["weights"] is None:
        raise LawbookError(f"Nothing in {path} can be audited. " + " ".join(left_out))
    return Audit(str(path), found["config"], found["weights"], left_out)
