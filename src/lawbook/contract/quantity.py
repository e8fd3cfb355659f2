"""What an argument or an answer is: one declaration for validation, human input, options, forms, schemas, documentation, sweeps and random draws.

Papers write these as annotations, in the notation of mathematics:

    def base_lower(context_length: count("tokens", example=131072), *, kind: choice("wrap", "depth") = "depth") -> positive(): ...

`read` takes whatever a face hands over (a Python value, a word from the shell, JSON) and returns the validated value or raises DomainError.
"""

import json
import math
import re
import sys
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .encoding import decode_number
from .errors import DomainError
from .numbers import parse_number, show_number

INF = math.inf
COMPLEX, FLOAT, INT, BOOL = complex, float, int, bool


class CannotDraw(Exception):
    """A quantity that has no random values of its own: functions."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    unit: str = ""
    doc: str = ""
    example: Any = None
    optional: bool = False  # may be None
    fitted: bool = False  # a parameter of a law, to be estimated from data

    def read(self, value, name):
        """The validated value; DomainError names the argument, what it was and what is allowed."""
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            if self.optional:
                return None
            if value is None:
                raise self.refuse(value, name)
        return self._read(value, name)

    def _read(self, value, name):
        raise NotImplementedError

    def allowed(self):
        """The domain in words, as it follows "must be"."""
        raise NotImplementedError

    def refuse(self, value, name):
        shown = np.array2string(value, threshold=8) if isinstance(value, np.ndarray) else repr(value)
        return DomainError(f"{name} must be {self.allowed()}; it was {shown if len(shown) <= 80 else shown[:77] + '...'}.")

    def draw(self, rng, sizes):
        """A random value inside the domain; `sizes` holds the lengths already chosen by name."""
        raise NotImplementedError

    def outside(self):
        """Values that `read` must refuse."""
        return [object()]

    def schema(self):
        """JSON schema."""
        raise NotImplementedError

    def _described(self, schema):
        about = ", ".join(filter(None, [self.doc, f"in {self.unit}" if self.unit else ""]))
        return {**schema, **({"description": about} if about else {}), **({"examples": [self.example]} if self.example is not None else {})}


@dataclass(frozen=True, kw_only=True)
class Number(Quantity):
    low: float = -INF
    high: float = INF
    above: bool = False  # low itself is excluded
    below: bool = False  # high itself is excluded
    scale: str = "linear"  # or "log": of sliders, sweeps, random draws and starts of fits
    type: type = FLOAT
    typical: tuple[float, float] | None = None  # where users are; random draws and plots stay inside
    supported: tuple[float, float] = (-INF, INF)  # where the paper supports its claim; answers outside carry a caution
    nan: bool = False  # NaN has a meaning, said in `doc`
    infinite: bool = False  # infinities have a meaning
    static: bool = False  # a closed form needs its value, not a traced array

    def _read(self, value, name):
        if isinstance(value, str):
            value = parse_number(value, name, self.unit)
        if isinstance(value, dict):
            value = decode_number(value)
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | complex | np.number):
            if getattr(value, "ndim", None) != 0 or getattr(value, "dtype", None) is np.dtype(object):
                raise self.refuse(value, name)
            value = np.asarray(value).item()
            return self._read(value, name)
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise DomainError(f"{name} must be {self.allowed()}; it was a whole number of {value.bit_length()} bits.")
        if self.type is COMPLEX:
            return complex(value)
        if isinstance(value, complex | np.complexfloating):
            raise self.refuse(value, name)
        if math.isnan(value):
            if self.nan:
                return math.nan
            raise self.refuse(value, name)
        if math.isinf(value):
            if not self.infinite:
                raise self.refuse(value, name)
        elif self.type is INT:
            if value != int(value):
                raise self.refuse(value, name)
            value = int(value)
        if not self._inside(value):
            raise self.refuse(value, name)
        return value if self.type is INT else float(value)

    def _inside(self, value):
        return (value > self.low if self.above else value >= self.low) & (value < self.high if self.below else value <= self.high)

    def allowed(self):
        noun = {INT: "a whole number", COMPLEX: "a complex number"}.get(self.type, "a number")
        low = f"{'above' if self.above else 'of at least'} {show_number(self.low)}" if self.low > -INF else ""
        high = f"{'below' if self.below else 'at most'} {show_number(self.high)}" if self.high < INF else ""
        if low and high and not (self.above or self.below):
            bounds = f"from {show_number(self.low)} to {show_number(self.high)}"
        else:
            bounds = " and ".join(filter(None, [low, high]))
        text = f"{noun} {bounds}".strip() + (f" ({self.unit})" if self.unit else "")
        return text + (", or NaN" if self.nan else "") + (", or infinite" if self.infinite else "")

    def bounds(self):
        """(low, high) of typical values, inside the domain; what sweeps, solves and draws use where nothing else is said."""
        if self.typical:
            return self.typical
        if self.scale == "log":
            low = self.low if self.low > 0 else (1e-2 if self.high > 1 else self.high * 1e-3)
            return low, min(self.high, max(100.0 if self.type is not INT else 20, low * 10))
        low, high = max(self.low, -3.0), min(self.high, 3.0)
        return (low, high) if low < high else (self.low, self.low + 6.0) if self.low > -INF else (self.high - 6.0, self.high)

    def draw(self, rng, sizes):
        low, high = self.bounds()
        u = rng.uniform()
        value = math.exp(math.log(low) + u * math.log(high / low)) if self.scale == "log" and low > 0 else low + u * (high - low)
        if self.type is INT:
            return int(min(max(round(value), math.ceil(low)), math.floor(high)))
        if self.type is COMPLEX:
            return complex(value, rng.uniform(low, high))
        value = min(max(value, low), high)
        if (self.above and value <= self.low) or (self.below and value >= self.high):
            value = self.low + 0.5 * (min(self.high, self.low + 1) - self.low)
        return value

    def outside(self):
        wrong = ["seven", True]
        if self.type is COMPLEX:
            return wrong
        wrong += [[1.0, 2.0]] if self.type is COMPLEX else []
        wrong += [] if self.nan else [math.nan]
        wrong += [] if self.infinite else [INF]
        if self.low > -INF:
            wrong += [self.low - max(1, abs(self.low) * 1e-6)] + ([self.low] if self.above else [])
        if self.high < INF:
            wrong += [self.high + max(1, abs(self.high) * 1e-6)] + ([self.high] if self.below else [])
        return wrong + ([1.5] if self.type is INT else [])

    def schema(self):
        if self.type is COMPLEX:
            return self._described({"type": "object", "properties": {"re": {"type": "number"}, "im": {"type": "number"}}, "required": ["re", "im"]})
        bounds = {}
        if self.low > -INF:
            bounds["exclusiveMinimum" if self.above else "minimum"] = self.low
        if self.high < INF:
            bounds["exclusiveMaximum" if self.below else "maximum"] = self.high
        kind: Any = "integer" if self.type is INT else "number"
        if self.nan:
            kind = [kind, "null"]
        plain = {"type": kind, **bounds}
        return self._described({"anyOf": [plain, {"enum": ["inf", "-inf"]}]} if self.infinite else plain)


@dataclass(frozen=True, kw_only=True)
class Array(Quantity):
    shape: tuple  # lengths: numbers, names, or a name with an offset such as "T+1"; equal names mean equal lengths
    of: Quantity = field(default_factory=Number)
    least: int = 1  # entries along each axis
    most: int = 6  # entries along an axis in random draws
    simplex: bool = False  # non-negative and summing to 1 along the last axis
    order: str = ""  # "increasing", "nondecreasing", "nonincreasing": of a vector

    def _read(self, value, name):
        array = self._array(value, name)
        if array.ndim != len(self.shape) or any(n < self.least for n in array.shape):
            raise DomainError(f"{name} must be {self.allowed()}; it has the shape {list(array.shape)}.")
        array = self._cast(array, name)
        if self.simplex:
            off = np.abs(array.sum(-1) - 1)
            if np.any(off > 1e-6):
                raise DomainError(f"{name} must be {self.allowed()}; a sum was {1 + off.max():.8g} or as far below 1.")
        if self.order:
            step = np.diff(array)
            good = {"increasing": step > 0, "nondecreasing": step >= 0, "nonincreasing": step <= 0}[self.order]
            if not good.all():
                i = int(np.argmin(good))
                raise DomainError(f"{name} must be {self.allowed()}; entry {i + 1} is {array[i + 1]:.6g} after {array[i]:.6g}.")
        return array

    def _array(self, value, name):
        if isinstance(value, str):
            value = _listed(value, name, self)
        if isinstance(value, list | tuple):
            value = _numbers(value, name, self.of)
        try:
            array = np.asarray(value)
        except (ValueError, TypeError):
            raise DomainError(f"{name} must be {self.allowed()}; its rows differ in length.") from None
        if array.dtype.kind in "OUSmM":
            raise self.refuse(value, name)
        return array

    def _cast(self, array, name):
        of = self.of
        if isinstance(of, Flag):
            if array.dtype != bool and not np.isin(array, (0, 1)).all():
                raise self._entry(array, ~np.isin(array, (0, 1)), name)
            return array.astype(bool)
        assert isinstance(of, Number)
        if array.dtype == bool and of.type is not INT:
            array = array.astype(float)
        if of.type is COMPLEX:
            return array.astype(complex)
        if array.dtype.kind == "c":
            raise self.refuse(array, name)
        numbers = array.astype(float)
        missing, infinite = np.isnan(numbers), np.isinf(numbers)
        with np.errstate(invalid="ignore"):
            wrong = ~of._inside(numbers) & ~missing
            if of.type is INT:
                wrong |= ((numbers != np.round(numbers)) | (np.abs(numbers) >= 2.0**63)) & ~missing & ~infinite  # beyond 64 bits
        wrong |= missing & (not of.nan)
        wrong |= infinite & (not of.infinite)
        if wrong.any():
            raise self._entry(array, wrong, name)
        return array.astype(np.int64) if of.type is INT and not (missing | infinite).any() else numbers

    def _entry(self, array, wrong, name):
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        return DomainError(f"{name}[{', '.join(map(str, where))}] must be {self.of.allowed()}; it was {array[where]}.")

    def allowed(self):
        noun = {1: "a vector", 2: "a matrix"}.get(len(self.shape), f"an array with {len(self.shape)} axes")
        size = f" of shape [{', '.join(map(str, self.shape))}]"
        rows = " with rows" if self.simplex and len(self.shape) > 1 else ""
        extra = rows + " of probabilities that sum to 1" if self.simplex else f", each entry {self.of.allowed()}"
        return noun + size + extra + (f", {self.order}" if self.order else "") + (f", at least {self.least} long" if self.least > 1 else "")

    def lengths(self, sizes):
        """The length of each axis where `sizes` says it, else None."""
        return [length_of(entry, sizes) for entry in self.shape]

    def draw(self, rng, sizes):
        for entry in self.shape:
            if isinstance(entry, str) and length_of(entry, sizes) is None:
                symbol, offset = _symbol(entry)
                sizes[symbol] = int(rng.integers(max(self.least, 2), max(self.most, self.least, 2) + 1)) - offset
        shape = self.lengths(sizes)
        if self.simplex:
            return rng.dirichlet(np.full(shape[-1], rng.choice([0.3, 1.0, 5.0])), size=tuple(shape[:-1]))
        values = [self.of.draw(rng, sizes) for _ in range(math.prod(shape))]
        array = np.array(values).reshape(shape)
        if self.order:
            array = np.sort(array)
            if self.order == "increasing" and (np.diff(array) <= 0).any():
                array = array + np.arange(len(array)) * (1 if array.dtype.kind == "i" else 1e-3)
        return array[::-1].copy() if self.order == "nonincreasing" else array

    def outside(self):
        shape = tuple(n if isinstance(n, int) else max(self.least, 2) for n in self.shape)
        inner = [v for v in self.of.outside() if isinstance(v, int | float) and not isinstance(v, bool)]
        wrong = [0.5, [], "a,b", np.zeros((*shape, 2))] + [np.full(shape, v) for v in inner[:3]]
        return wrong + ([np.full(shape, 0.9)] if self.simplex and shape[-1] > 1 else [])

    def schema(self):
        schema = self.of.schema()
        for length in reversed(self.shape):
            schema = {"type": "array", "items": schema, "minItems": length if isinstance(length, int) else self.least}
        return self._described(schema)


@dataclass(frozen=True, kw_only=True)
class Text(Quantity):
    empty: bool = True

    def _read(self, value, name):
        if not isinstance(value, str) or (not value and not self.empty):
            raise self.refuse(value, name)
        return value

    def read(self, value, name):
        return None if value is None and self.optional else self._read(value, name)

    def allowed(self):
        return "text" if self.empty else "text that is not empty"

    def draw(self, rng, sizes):
        return "".join(rng.choice(list("ab "), size=int(rng.integers(0 if self.empty else 1, 12))))

    def outside(self):
        return [3] + ([] if self.empty else [""])

    def schema(self):
        return self._described({"type": "string", **({} if self.empty else {"minLength": 1})})


@dataclass(frozen=True, kw_only=True)
class Choice(Quantity):
    options: tuple

    def _read(self, value, name):
        if isinstance(value, np.ndarray) and value.ndim:
            raise self.refuse(value, name)
        for option in self.options:
            if value == option or (isinstance(value, str) and not isinstance(option, str) and value == str(option)):
                return option
        raise self.refuse(value, name)

    def allowed(self):
        return "one of " + ", ".join(map(str, self.options)) if len(self.options) > 1 else str(self.options[0])

    def draw(self, rng, sizes):
        return self.options[int(rng.integers(len(self.options)))]

    def outside(self):
        return ["none of these", 12345]

    def schema(self):
        return self._described({"enum": list(self.options)})


@dataclass(frozen=True, kw_only=True)
class Flag(Quantity):
    def _read(self, value, name):
        words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        if isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)):
            return bool(value)
        raise self.refuse(value, name)

    def allowed(self):
        return "true or false"

    def draw(self, rng, sizes):
        return bool(rng.integers(2))

    def outside(self):
        return ["perhaps", 2]

    def schema(self):
        return self._described({"type": "boolean"})


@dataclass(frozen=True, kw_only=True)
class Record(Quantity):
    fields: dict

    def _read(self, value, name):
        if isinstance(value, str):
            value = _pairs(value, name, self)
        if not isinstance(value, dict):
            raise self.refuse(value, name)
        unknown = [key for key in value if key not in self.fields]
        missing = [key for key, q in self.fields.items() if key not in value and not q.optional]
        if unknown or missing:
            raise DomainError(f"{name} must be {self.allowed()}; {'unknown: ' + ', '.join(map(str, unknown)) if unknown else 'missing: ' + ', '.join(missing)}.")
        sizes: dict = {}
        return {key: fit_sizes(q.read(value.get(key), f"{name}.{key}"), q, f"{name}.{key}", sizes) for key, q in self.fields.items()}

    def allowed(self):
        return "a record with " + ", ".join(key + (" (optional)" if q.optional else "") for key, q in self.fields.items())

    def draw(self, rng, sizes):
        return {key: q.draw(rng, sizes) for key, q in self.fields.items()}

    def outside(self):
        return [3, {"no such field": 1}, {}] if any(not q.optional for q in self.fields.values()) else [3, {"no such field": 1}]

    def schema(self):
        required = [key for key, q in self.fields.items() if not q.optional]
        return self._described({"type": "object", "properties": {k: q.schema() for k, q in self.fields.items()}, "required": required, "additionalProperties": False})


@dataclass(frozen=True, kw_only=True)
class Listing(Quantity):
    of: Quantity
    least: int = 0

    def _read(self, value, name):
        if isinstance(value, str):
            value = _json(value, name, self) if value.lstrip().startswith("[") else [part.strip() for part in value.split(",")]
        if isinstance(value, np.ndarray) or hasattr(value, "to_list"):
            value = value.tolist() if isinstance(value, np.ndarray) else value.to_list()
        if not isinstance(value, list | tuple) or len(value) < self.least:
            raise self.refuse(value, name)
        return [self.of.read(entry, f"{name}[{i}]") for i, entry in enumerate(value)]

    def allowed(self):
        return f"a list, each entry {self.of.allowed()}" + (f", at least {self.least} long" if self.least else "")

    def draw(self, rng, sizes):
        return [self.of.draw(rng, dict(sizes)) for _ in range(int(rng.integers(max(self.least, 1), 5)))]

    def outside(self):
        return [3] + ([[]] if self.least else []) + [[v] for v in self.of.outside()[:1]]

    def schema(self):
        return self._described({"type": "array", "items": self.of.schema(), "minItems": self.least})


@dataclass(frozen=True, kw_only=True)
class Table(Quantity):
    """Columns of equal length: a dict of vectors; rows as a list of dicts and data frames are read too."""

    columns: dict

    def _read(self, value, name):
        if isinstance(value, str):
            value = _json(value, name, self)
        if isinstance(value, list) and all(isinstance(row, dict) for row in value):
            value = {key: [row.get(key) for row in value] for key in self.columns}
        elif hasattr(value, "columns") and not isinstance(value, dict):
            value = {str(key): np.asarray(value[key]) for key in value.columns}
        if not isinstance(value, dict):
            raise self.refuse(value, name)
        missing = [key for key, q in self.columns.items() if key not in value and not q.optional]
        if missing:
            raise DomainError(f"{name} must be {self.allowed()}; missing: {', '.join(missing)}.")
        out = {
            key: (Array(shape=("rows",), of=q) if isinstance(q, Number | Flag) else Listing(of=q)).read(value[key], f"{name}.{key}")
            for key, q in self.columns.items()
            if key in value
        }
        if len({len(column) for column in out.values()}) > 1:
            raise DomainError(f"{name} must have columns of one length; they have {', '.join(f'{k} {len(v)}' for k, v in out.items())}.")
        return out

    def allowed(self):
        return "a table with the columns " + ", ".join(self.columns)

    def draw(self, rng, sizes):
        rows = int(rng.integers(2, 6))
        return {key: [q.draw(rng, sizes) for _ in range(rows)] for key, q in self.columns.items()}

    def outside(self):
        return [3, {}]

    def schema(self):
        return self._described({"type": "object", "properties": {k: {"type": "array", "items": q.schema()} for k, q in self.columns.items()}})


@dataclass(frozen=True, kw_only=True)
class Function(Quantity):
    """A Python callable: only Python can hand one over, the other faces say so."""

    signature: str = ""

    def _read(self, value, name):
        if isinstance(value, str):
            raise DomainError(f"{name} takes a function ({self.signature}), which only Python can give: call lawbook.run there.")
        if not callable(value):
            raise self.refuse(value, name)
        return value

    def allowed(self):
        return f"a Python function ({self.signature})"

    def draw(self, rng, sizes):
        raise CannotDraw

    def outside(self):
        return [3]

    def schema(self):
        return self._described({"not": {}, "description": f"a function {self.signature}: Python only"})


@dataclass(frozen=True, kw_only=True)
class Either(Quantity):
    options: tuple

    def _read(self, value, name):
        errors = []
        for option in self.options:
            try:
                return option.read(value, name)
            except DomainError as error:
                errors.append(error)
        # the reader that came closest speaks: the one whose kind of value it was
        listlike = isinstance(value, list | tuple | np.ndarray)
        for option, refusal in zip(self.options, errors, strict=True):
            if (isinstance(option, Array | Listing) and listlike) or (isinstance(option, Record) and isinstance(value, dict)):
                raise refusal
        raise self.refuse(value, name)

    def allowed(self):
        return " or ".join(option.allowed() for option in self.options)

    def draw(self, rng, sizes):
        drawable = [option for option in self.options if not isinstance(option, Function)]
        return drawable[int(rng.integers(len(drawable)))].draw(rng, sizes)

    def outside(self):
        """What every option refuses."""

        def accepted(value):
            for option in self.options:
                try:
                    option.read(value, "value")
                    return True
                except DomainError:
                    continue
            return False

        return [value for option in self.options for value in option.outside() if not accepted(value)]

    def schema(self):
        return self._described({"anyOf": [option.schema() for option in self.options]})


def _symbol(entry):
    match = re.fullmatch(r"(\w+)\s*([+-]\s*\d+)?", entry)
    assert match, f"a length is a name with an offset, not {entry!r}"
    return match[1], int((match[2] or "0").replace(" ", ""))


def length_of(entry, sizes):
    if isinstance(entry, int):
        return entry
    symbol, offset = _symbol(entry)
    return None if symbol not in sizes else sizes[symbol] + offset


def fit_sizes(value, quantity, name, sizes):
    """`value`, once its lengths agree with those in `sizes`; lengths seen for the first time are kept there."""
    if isinstance(quantity, Either):
        quantity = next((o for o in quantity.options if isinstance(o, Array) and np.ndim(value) == len(o.shape)), quantity)
    if isinstance(quantity, Array) and value is not None:
        for axis, (entry, actual) in enumerate(zip(quantity.shape, np.shape(value), strict=True)):
            wanted = length_of(entry, sizes)
            if wanted is None:
                symbol, offset = _symbol(entry)
                sizes[symbol] = actual - offset
            elif wanted != actual:
                axes = f" along axis {axis}" if len(quantity.shape) > 1 else ""
                raise DomainError(f"{name} must have {wanted} entries{axes} ({entry}); it has {actual}.")
    return value


def _json(text, name, quantity):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DomainError(f"{name} must be {quantity.allowed()}; its JSON breaks off or is wrong at character {error.pos}.") from None


def _listed(text, name, quantity):
    """A vector "1,2,3", a matrix "1,2;3,4", or JSON."""
    if text.lstrip().startswith("["):
        return _json(text, name, quantity)
    rows = [[part for part in row.replace("\n", ",").split(",") if part.strip()] for row in text.split(";")]
    return rows if len(quantity.shape) == 2 else rows[0] if len(rows) == 1 else rows


def _numbers(value, name, of):
    """Nested lists with human numbers, null and "inf" turned into numbers."""
    if isinstance(value, list | tuple):
        return [_numbers(v, name, of) for v in value]
    if isinstance(value, str):
        if isinstance(of, Flag):
            return of.read(value, name)
        return parse_number(value, name, of.unit)
    return decode_number(value)


def _pairs(text, name, quantity):
    """A record as JSON or as key=value,key=value."""
    if text.lstrip().startswith("{"):
        return _json(text, name, quantity)
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(sign for _, sign, _ in pairs):
        raise DomainError(f"{name} must be {quantity.allowed()}, written key=value,key=value or as JSON; it was {text!r}.")
    return {key.strip(): value.strip() for key, _, value in pairs}


# The words that papers use.


def real(unit="", **more):
    return Number(unit=unit, **more)


def positive(unit="", **more):
    return Number(unit=unit, **{"low": 0.0, "above": True, "scale": "log", **more})


def nonnegative(unit="", **more):
    return Number(unit=unit, **{"low": 0.0, **more})


def probability(unit="", **more):
    return Number(unit=unit, **{"low": 0.0, "high": 1.0, **more})


def count(unit="", **more):
    """A whole number of at least 1; `low=0` where nothing is allowed too."""
    return Number(unit=unit, **{"low": 1, "type": INT, "scale": "log", **more})


def integer(unit="", **more):
    return Number(unit=unit, **{"type": INT, **more})


def complex_number(unit="", **more):
    return Number(unit=unit, **{"type": COMPLEX, **more})


def seed(**more):
    return Number(**{"low": 0, "high": 2**63 - 1, "type": INT, "typical": (0, 1000), "static": True, "doc": "seed of the random numbers", **more})


def array(*shape, of=None, **more):
    of = of or Number()
    return Array(shape=shape, of=of, **{"unit": of.unit, **more})


def vector(length="n", of=None, **more):
    return array(length, of=of, **more)


def matrix(rows="m", columns="n", of=None, **more):
    return array(rows, columns, of=of, **more)


def distribution(*shape, **more):
    """Probabilities that sum to 1 along the last axis."""
    return array(*(shape or ("n",)), of=probability(), simplex=True, **more)


def text(**more):
    return Text(**more)


def choice(*options, **more):
    return Choice(options=options, **more)


def flag(**more):
    return Flag(**more)


def record(**fields):
    return Record(fields=fields)


def listing(of, **more):
    return Listing(of=of, **more)


def table(**columns):
    return Table(columns=columns)


def function(signature="", **more):
    return Function(signature=signature, **more)


def either(*options, **more):
    first = options[0]
    return Either(options=options, **{"unit": first.unit, "doc": first.doc, "example": first.example, **more})


def optional(quantity, **more):
    return replace(quantity, optional=True, **more)
