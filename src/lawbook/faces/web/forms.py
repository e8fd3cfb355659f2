"""Forms made from quantities: the fields of a result, the inputs that a request gives, and the links, code and commands that say the same again."""

import csv
import io
import json
import math
import re
import shlex
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import numpy as np

from ...contract import LawbookError
from ...contract.encoding import encode
from ...contract.numbers import parse_number
from ...contract.quantity import COMPLEX, FLOAT, INT, Array, CannotDraw, Choice, Either, Flag, Function, Listing, Number, Quantity, Record, Table, Text
from ...jobs.quick import Refused

SUFFIXES = (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3))
STEPS = 1000  # of a slider
POINTS = 60  # of a plot
MOST_POINTS = 400
LONGEST_LINK = 6000  # characters, beyond which inputs are sent but not linked to
CONTROLS = ("_x", "_low", "_high", "_points", "_by", "_values", "_field", "_solve", "_target")


@dataclass(frozen=True)
class Field:
    """One entry of a form. `kind` is number, choice, text, block (long text, may be uploaded) or python (cannot be given here)."""

    name: str
    label: str
    kind: str
    about: str
    unit: str
    value: str
    required: bool
    options: tuple[tuple[str, str], ...] = ()
    slider: dict | None = None


def fields(result, given=None):
    """The form of a result, filled with the texts that were given; with arguments that show the result where none were."""
    start = _start(result) if given is None else {}
    made = []
    for name, quantity in result.arguments.items():
        known = start[name] if name in start else result.defaults.get(name)
        made += list(_fields(name, quantity, known, given or {}, name not in result.defaults))
    return made


_STARTS: dict = {}


def _start(result):
    """Arguments to begin with: the examples where they fit together, else those of the required arguments, else some inside the domain."""
    if result.id not in _STARTS or _STARTS[result.id][0] is not result:
        _STARTS[result.id] = result, _found_start(result)
    return _STARTS[result.id][1]


def _found_start(result):
    examples = result.example()
    for given in (examples, {name: value for name, value in examples.items() if name not in result.defaults}):
        try:
            result.bind(given)
            return given
        except LawbookError:
            continue
    try:
        return result.draw(np.random.default_rng(0))
    except CannotDraw:
        return examples


def _fields(name, quantity, known, given, required):
    if _parts(quantity) and name not in given:
        record = known if isinstance(known, dict) else {}
        for key, part in quantity.fields.items():
            yield from _fields(f"{name}.{key}", part, record.get(key, part.example), given, required and not part.optional)
        return
    value = given[name] if name in given else shown(known, quantity)
    field = Field(name, name.replace("_", " ").replace(".", ", "), "text", _about(quantity), quantity.unit, value, required)
    if isinstance(quantity, Number):
        slider = _slider(quantity) if quantity.type is not COMPLEX else None
        yield replace(field, kind="number", slider=slider)
    elif isinstance(quantity, Choice | Flag):
        words = [str(o) for o in quantity.options] if isinstance(quantity, Choice) else ["true", "false"]
        chosen = value.lower() if isinstance(quantity, Flag) else value
        options = [(word, word.replace("_", " ")) for word in words]
        if not required and (quantity.optional or chosen not in words):
            options.insert(0, ("", "not given"))
        yield replace(field, kind="choice", options=tuple(options), value=chosen)
    elif isinstance(quantity, Text):
        yield field
    elif _only_python(quantity):
        yield replace(field, kind="python", value="")
    elif isinstance(quantity, Either) and not any(isinstance(o, Array | Listing | Table | Record) for o in quantity.options):
        yield field
    else:
        yield replace(field, kind="block")


def _parts(quantity):
    """Whether a record has a field for each of its parts."""
    return isinstance(quantity, Record) and all(isinstance(q, Number | Choice | Flag | Text) for q in quantity.fields.values())


def _only_python(quantity):
    return isinstance(quantity, Function) or (isinstance(quantity, Either) and all(map(_only_python, quantity.options)))


def _about(quantity):
    about = f"{quantity.doc + ': ' if quantity.doc else ''}{quantity.allowed()}"
    how = {Array: "1, 2, 3 or a column; rows of a matrix end with a semicolon", Listing: "separated by commas, or JSON", Table: "JSON, or CSV with names in its first line"}
    return about + next((f" – {text}" for kind, text in how.items() if isinstance(quantity, kind)), "")


def _slider(quantity):
    low, high = quantity.bounds()
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return None
    return {
        "low": low,
        "high": high,
        "log": quantity.scale == "log" and low > 0,
        "whole": quantity.type is INT,
        "steps": int(min(STEPS, high - low)) if quantity.type is INT and quantity.scale != "log" else STEPS,
    }


def shown(value, quantity):
    """A value as the field holds it: what `read` turns back into the same value."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | float | np.integer | np.floating) and isinstance(quantity, Number):
        return human(value, quantity.unit)
    value = encode(value)
    if isinstance(quantity, Array | Either) and isinstance(value, list) and value:
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
            return ", ".join(map(repr, value))
        if isinstance(quantity, Array) and all(isinstance(row, list) and row and all(isinstance(v, int | float) and not isinstance(v, bool) for v in row) for row in value):
            return "; ".join(", ".join(map(repr, row)) for row in value)
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def human(value, unit=""):
    """A number as people write it, 7B or 128k, where that says exactly the same."""
    value = int(value) if isinstance(value, int | np.integer) else float(value)
    if not math.isfinite(value):
        return repr(value)
    plain = repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)
    for suffix, size in SUFFIXES:
        if abs(value) >= size and abs(value) >= 1e4:
            text = f"{value / size:.10g}{suffix}"
            try:
                return text if len(text) < len(plain) and parse_number(text, "", unit) == value else plain
            except LawbookError:
                return plain
    return plain


def read(result, parameters):
    """(what is given for the arguments, as text or tables; the controls of plot and solver) out of the fields of a request. Empty fields are not given."""
    given: dict[str, Any] = {}
    for key, text in parameters.items():
        name, _, part = key.partition(".")
        quantity = result.arguments.get(name)
        if quantity is None or not isinstance(text, str):
            continue
        if part and isinstance(quantity, Record) and part in quantity.fields:
            if text.strip():
                given.setdefault(name, {})[part] = text.strip()
        elif not part and (text.strip() or (isinstance(quantity, Text) and name not in result.defaults)):
            given[name] = text if isinstance(quantity, Text) else _laid_out(text.strip(), quantity)
    return given, {key: parameters[key].strip() for key in CONTROLS if isinstance(parameters.get(key), str) and parameters[key].strip()}


def _laid_out(text, quantity):
    """Pasted columns and tables as their quantities read them."""
    kinds = quantity.options if isinstance(quantity, Either) else (quantity,)
    if any(isinstance(kind, Table) for kind in kinds) and not text.startswith(("{", "[")):
        rows = list(csv.reader(io.StringIO(text)))
        names = [name.strip() for name in rows[0]]
        lines = [row for row in rows[1:] if any(cell.strip() for cell in row)]
        if any(len(row) != len(names) for row in lines):
            raise LawbookError(f"The pasted table has {len(names)} names in its first line; every other line must have as many entries.")
        return {name: [row[i].strip() for row in lines] for i, name in enumerate(names)}
    array = next((kind for kind in kinds if isinstance(kind, Array)), None)
    if array is not None and not text.startswith("["):
        lines = [",".join(line.replace(";", ",").replace("\t", ",").split(",")) for line in text.splitlines() if line.strip()]
        if len(array.shape) == 2 and ";" not in text and len(lines) > 1:
            text = ";".join(line.strip().strip(",") for line in lines)
        elif len(array.shape) == 1:
            text = ",".join(line.strip().strip(",") for line in lines).replace(";", ",")
        return re.sub(r"\s*([,;\t])\s*", lambda match: match[1].replace("\t", ","), text)
    return text


def as_text(given, result):
    """What was given as the fields of a form: name -> text."""
    flat = {}
    for name, value in given.items():
        if isinstance(value, dict) and _parts(result.arguments[name]):
            flat |= {f"{name}.{key}": part for key, part in value.items()}
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def axes(result):
    """Arguments that a plot can go through."""
    return [name for name, q in result.arguments.items() if isinstance(q, Number) and q.type is not COMPLEX]


def numeric_fields(quantity: Quantity, path=()):
    """Names of the numbers in a record, as columns are named; [""] where the answer is one number."""
    if isinstance(quantity, Number):
        return [".".join(path)] if quantity.type is not COMPLEX else []
    if isinstance(quantity, Record):
        return [name for key, part in quantity.fields.items() for name in numeric_fields(part, (*path, key))]
    return []


def usual_axis(result):
    """The argument along which a result is drawn where nobody says: its first number that is not a seed; None where its answer cannot be drawn."""
    if not numeric_fields(result.returns):
        return None
    able = [name for name in axes(result) if not result.arguments[name].static and result.arguments[name].bounds()[0] < result.arguments[name].bounds()[1]]
    return next((name for name in able if name not in result.defaults), next(iter(able), None))


def points(controls):
    """How many points a plot has."""
    wanted = parse_number(controls.get("_points", str(POINTS)), "points")
    if not 2 <= wanted <= MOST_POINTS:
        raise Refused(f"points must be a whole number from 2 to {MOST_POINTS}; it was {controls['_points']!r}.")
    return int(wanted)


def swept(result, given, controls):
    """(argument, its range, the argument to compare over or "", its values) of a plot."""
    name = controls["_x"]
    if name not in axes(result):
        raise Refused(f"a plot goes over a numeric argument of {result.id}, one of {', '.join(axes(result))}; it was {name!r}.")
    quantity = result.arguments[name]
    low, high = (controls.get(key) or human(end, quantity.unit) for key, end in zip(("_low", "_high"), quantity.bounds(), strict=True))
    scale = "log" if quantity.scale == "log" and _positive(quantity, low, name) else "lin"
    by, others = controls.get("_by", ""), controls.get("_values", "")
    if by:
        if by not in axes(result) or by == name:
            raise Refused(f"the comparison is over another numeric argument of {result.id}; it was {by!r}.")
        if not others:
            raise Refused(f"say for which values of {by} the lines are drawn, such as 1, 2, 4.")
        others = others if "," in others or ":" in others else others + ","
    return name, f"{low}:{high}:{scale}:{points(controls)}", by, others


def _positive(quantity, low, name):
    try:
        return quantity.read(low, name) > 0
    except LawbookError as error:
        raise Refused(str(error)) from None


def link(result, given, controls):
    """The permanent address of these inputs; None where they are too long for one."""
    query = urlencode({**as_text(given, result), **controls})
    return f"/paper/{result.paper.slug}/{result.name}" + (f"?{query}" if query else "") if len(query) <= LONGEST_LINK else None


def typed(result, given):
    """The given arguments as values where they can be read, sweeps as they are."""
    out = {}
    for name, value in given.items():
        quantity = result.arguments[name]
        try:
            out[name] = encode(quantity.read(value, name))
        except LawbookError:
            out[name] = value  # a sweep
        if isinstance(out[name], float) and quantity.__class__ is Number and quantity.type is FLOAT and out[name] == int(out[name]) and abs(out[name]) >= 1e6:
            out[name] = _Scientific(out[name])
    return out


class _Scientific(float):
    """A large round number that is written 7e+09 instead of with all its zeros."""

    def __repr__(self):
        text = f"{float(self):.6e}".replace("e+", "e")
        mantissa, _, exponent = text.partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if float(text) == float(self) else float.__repr__(self)


def python_code(result, given, solving=None):
    """The same in Python."""
    arguments = "".join(f", {name}={value!r}" for name, value in typed(result, given).items())
    if solving:
        unknown, target, field = solving
        asked = f", target={target!r}" + (f", field={field!r}" if field else "")
        return f'import lawbook\n\nlawbook.solve("{result.id}", "{unknown}"{asked}{arguments})'
    return f'import lawbook\n\nlawbook.run("{result.id}"{arguments})'


def shell_command(result, given, solving=None, taken=()):
    """The same in the shell, whose own options are `taken`."""
    words = []
    for name, value in given.items():
        option = f"--{'argument-' if name in taken else ''}{name.replace('_', '-')}"
        words += [option, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
    if solving:
        unknown, target, field = solving
        return shlex.join(["lawbook", "solve", result.id, f"{unknown}=?", "--target", target, *(["--field", field] if field else []), *words])
    return shlex.join(["lawbook", "run", result.id, *words])
