"""Numbers as people write them: 70B, 128Ki, 128k, 1e21, 50%, 80GiB, 312TFLOP/s, 20ms."""

import math
import re

from .errors import DomainError

DECIMAL = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "Z": 1e21}
BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
SMALL = {"m": 1e-3, "u": 1e-6, "µ": 1e-6, "n": 1e-9}  # only before a unit: a lone "m" is more often a million
# ways to write a unit, and what one of each is worth in it
SPELLINGS = {
    "bytes": {"B": 1, "byte": 1, "bytes": 1},
    "bytes/s": {"B/s": 1, "bytes/s": 1},
    "seconds": {"s": 1, "sec": 1, "seconds": 1, "min": 60, "h": 3600, "d": 86400},
    "FLOP": {"FLOP": 1, "FLOPs": 1, "flop": 1, "flops": 1},
    "FLOP/s": {"FLOP/s": 1, "FLOPS": 1, "flop/s": 1},
    "tokens": {"tokens": 1, "token": 1, "tok": 1},
    "params": {"params": 1, "parameters": 1},
    "bits": {"bit": 1, "bits": 1},
    "nats": {"nat": 1, "nats": 1},
    "rad": {"rad": 1, "deg": math.pi / 180},
}
NUMBER = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|infinity|nan))\s*(.*?)\s*$", re.IGNORECASE)


def parse_number(text, name, unit=""):
    """The number that `text` says, in `unit`; an int where it is whole and exactly representable.

    Decimal prefixes k M B (or G) T P E Z, binary ones Ki Mi Gi Ti Pi, %, and the unit itself, alone or after a prefix.
    """
    match = NUMBER.match(text)
    if match is None:
        raise DomainError(f"{name} must be a number such as 70B, 128Ki, 1e21 or 50%; it was {text!r}.")
    digits, suffix = match.groups()
    digits = digits.replace("_", "")
    factor = _factor(suffix, unit)
    if factor is None:
        spoken = f" {unit}" if unit else ""
        raise DomainError(
            f"{name} was {text!r}, but {suffix!r} is not a suffix it can have: allowed are k M B T P E Z, Ki Mi Gi Ti Pi, %{' and the unit' + spoken if unit else ''}."
        )
    try:
        whole = int(digits)
    except ValueError:
        value = float(digits) * factor
        return int(value) if math.isfinite(value) and value == int(value) and abs(value) < 2**63 else value
    value = whole * int(factor) if factor == int(factor) else whole * factor
    return value


def _factor(suffix, unit):
    if suffix in ("", unit):
        return 1
    if suffix == "%":
        return 0.01
    spellings = SPELLINGS.get(unit, {unit: 1} if unit else {})
    for spelling, worth in sorted(spellings.items(), key=lambda item: -len(item[0])):
        if suffix == spelling:
            return worth
        prefix = suffix.removesuffix(spelling).rstrip()
        if prefix != suffix and (found := {**DECIMAL, **BINARY, **SMALL}.get(prefix)) is not None:
            return found * worth
    return {**DECIMAL, **BINARY}.get(suffix)


def show_number(value, unit="", digits=6):
    """A number for people: up to `digits` significant digits, with its unit."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        text = "–"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, complex):
        text = f"{value.real:.{digits}g}{value.imag:+.{digits}g}i"
    elif isinstance(value, int):
        text = f"{value:,}" if abs(value) < 10**15 else f"{value:.{digits}g}"
    else:
        text = f"{value:.{digits}g}"
    return f"{text} {unit}" if unit and text != "–" else text
