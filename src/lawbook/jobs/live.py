"""Answers for the forms of a page: small runs and solves in the warm processes of `Quick`, remembered by their arguments."""

import json
import math
import threading
from collections import OrderedDict
from concurrent.futures import CancelledError
from dataclasses import replace

from ..contract import LawbookError, catalogue
from .quick import Refused, TooLong
from .run import run, sweep_of
from .solve import solve

MOST_POINTS = 5_000
KEPT = 400  # answers
LARGEST = 4_000_000  # characters of an answer's JSON that a page may be made of
LONGEST_KEY = 10_000
LATE = object()  # stands for an answer that did not come in time
READERS = 1_000  # whose last question is known


class Superseded(LawbookError):
    """The reader has asked anew in the meantime."""


def evaluate(identifier, given):
    """`run` for a page: TooLong where there are more points than it draws."""
    result = catalogue.result(identifier)
    axes = [values for name, value in given.items() if name in result.arguments and (values := sweep_of(value, name, result.arguments[name])) is not None]
    _bounded(math.prod(map(len, axes)))
    return _shown(run(result, given))


def draw(identifier, name, values, by, others, given):
    """The Sweep of an argument over `values` ("1k:1M:log:60") and of another, `by`, over `others`, around a point inside the domain, `given`."""
    result = catalogue.result(identifier)
    axis = sweep_of(values, name, result.arguments[name]).tolist()
    start = given.get(name, result.defaults.get(name))  # where the sweep begins, as its own ends may lie outside the domain
    axes = {name: axis if start is None else [start, *axis]}
    lines = 1
    if by:
        axes[by] = sweep_of(others, by, result.arguments[by]).tolist()
        lines = len(axes[by])
    _bounded(len(axes[name]) * lines)
    sweep = run(result, {**given, **axes})
    if start is not None:
        sweep = replace(sweep, axes={**sweep.axes, name: sweep.axes[name][1:]}, rows={key: column[lines:] for key, column in sweep.rows.items()})
    return _shown(sweep)


def invert(identifier, unknown, target, field, given):
    """`solve` for a page."""
    return solve(identifier, unknown, target=target, field=field, arguments=given)


def _bounded(points):
    if points > MOST_POINTS:
        raise LawbookError(f"A page draws at most {MOST_POINTS:,} points; these are {points:,}.")


def _shown(answer):
    if len(json.dumps(answer.to_dict(), default=_length)) > LARGEST:
        raise LawbookError("The answer is too large for a page: ask for a smaller size, or use lawbook.run in Python.")
    return answer


def _length(value):
    """Something as long in JSON as an array is."""
    return "0" * 8 * math.prod(getattr(value, "shape", ())) if hasattr(value, "shape") else str(value)


class Live:
    """Answers by `quick`, each worked out once while it is remembered: results depend on their arguments alone."""

    def __init__(self, quick):
        self._quick = quick
        self._kept: OrderedDict = OrderedDict()
        self._asking: OrderedDict = OrderedDict()
        self._lock = threading.Lock()

    def warm(self):
        """Have the processes ready before anyone asks."""
        self._quick.do(len, (), seconds=60)

    def _keep(self, key, answer, seconds):
        if len(key) < LONGEST_KEY:
            with self._lock:
                self._kept[key] = answer, seconds
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)

    def ask(self, reader=None, seconds=None):
        """Questions of one page: `reader` is who asks and for what, whose earlier questions are given up; None gives up nothing."""
        asking = Asking(self, reader, seconds or self._quick.seconds)
        if reader is not None:
            with self._lock:
                before = self._asking.pop(reader, None)
                self._asking[reader] = asking
                while len(self._asking) > READERS:
                    self._asking.popitem(last=False)
            if before is not None:
                before.give_up()
        return asking


class Asking:
    """What one page asks. TooLong where an answer takes more than its seconds, Superseded where the reader has asked anew."""

    def __init__(self, live, reader, seconds):
        self.seconds = seconds
        self._live, self._reader = live, reader
        self._future = None
        self._given_up = False

    def run(self, identifier, given):
        return self._answer(evaluate, identifier, given)

    def draw(self, identifier, name, values, by, others, given):
        return self._answer(draw, identifier, name, values, by, others, given)

    def solve(self, identifier, unknown, target, field, given):
        return self._answer(invert, identifier, unknown, target, field, given)

    def give_up(self):
        self._given_up = True
        if self._future is not None:
            self._future.cancel()

    def _answer(self, function, *arguments):
        live = self._live
        key = function.__name__ + json.dumps(arguments, sort_keys=True)
        with live._lock:
            if key in live._kept:
                live._kept.move_to_end(key)
                answer, seconds = live._kept[key]
                if answer is not LATE:
                    return answer
                if seconds >= self.seconds:
                    raise TooLong(f"The answer takes longer than {self.seconds:g} s.")
        self._future = live._quick.submit(function, *arguments, seconds=self.seconds)
        if self._given_up:
            self._future.cancel()
        try:
            answer = live._quick.outcome(self._future)
        except (CancelledError, Refused):
            if self._given_up:
                raise Superseded("Another question came in the meantime.") from None
            raise
        except TooLong:
            live._keep(key, LATE, self.seconds)
            raise TooLong(f"The answer takes longer than {self.seconds:g} s.") from None
        live._keep(key, answer, self.seconds)
        return answer
