"""The process that does one job of the queue: it says what it has done into the store as it goes, and ends with the server that began it."""

import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from ..contract import LawbookError
from ..contract.encoding import dumps
from .kinds import Setting, kind_of
from .queue import NO_MEMORY, events, finish, jobs
from .quick import GIBIBYTE, limit
from .store import Store

EVERY = 0.25  # seconds between two remarks on progress
MOST_FILE = 8 * GIBIBYTE  # bytes of one file that a job writes, such as the store's
GENTLE = 5  # pages go before jobs


def main(report=None):
    """Do the job that standard input orders, as one line of JSON. `report(kind, made, command)` draws the page about what was made, or none."""
    order = json.loads(_first_line())
    threading.Thread(target=_end_with_server, daemon=True).start()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # even where a long call keeps Python's threads from running
    os.nice(GENTLE)
    store = Store(order["database"])
    with store.read() as connection:
        row = connection.execute(jobs().select().where(jobs().c.id == order["job"])).one()
    limit(order["memory"], MOST_FILE)
    kind, options = kind_of(row.kind), json.loads(row.options)
    say = Say(store, row.id)
    try:
        made = kind.work(options, order["files"], Setting(say, tuple(order["folders"]), store.records()))
        say.flush()
        text = dumps(made.to_dict())
        if len(text) > order["result"]:
            raise LawbookError(f"The answer of this job has {len(text):,} characters; at most {order['result']:,} are kept: ask for less.")
        outcome = {"state": "done", "result": text, "report": _drawn(report, kind, made, options, row, say)}
    except LawbookError as error:
        outcome = {"state": "failed", "message": _without_places(str(error), order["files"])}
    except Exception as error:  # a defect of one job must not end the server's others
        if isinstance(error, MemoryError) or "failed to map" in str(error) or _at_limit(order["memory"]):  # libraries without room fail in many ways
            message = f"The job needs more memory than the {order['memory'] / GIBIBYTE:.3g} GiB that it may take."
        else:
            traceback.print_exc()
            message = f"The job itself failed: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
        outcome = {"state": "failed", "message": message}
    try:
        finish(store, row.id, row.attempt, **outcome)
    except Exception:  # a thread that ran out of memory in the middle of a transaction holds its lock until this process ends
        if _at_limit(order["memory"]):
            os._exit(NO_MEMORY)
        raise
    store.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of libraries are not waited for


def _drawn(report, kind, made, options, row, say):
    """The page about what was made, or None: a page that cannot be drawn must not take the answer with it."""
    if report is None:
        return None
    try:
        return report(kind.name, made, kind.command(options, [entry["name"] for entry in json.loads(row.files)]))
    except Exception as error:
        traceback.print_exc()
        say(text=f"the page about it could not be drawn: {type(error).__name__}: {error}", drawn=False)
        return None


def _first_line():
    """One line of standard input, read byte by byte: the rest is left to whoever waits for its end."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit(1)
        line += byte
    return line


def _end_with_server():
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def _at_limit(memory):
    """Whether this process has come within a tenth of the memory that it may take."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    return any(line.startswith("VmPeak") and int(line.split()[1]) * 1024 > 0.9 * memory for line in status.splitlines())


def _without_places(sentence, paths):
    """The sentence with uploaded tables called by their names alone."""
    for path in paths:
        sentence = sentence.replace(path, os.path.basename(path))
    return sentence


class Say:
    """Progress of a job into the store: at most four remarks a second, of which the last is told in any case, and those that carry more always.

    One that is `passing` is shown until the next, and is not among the events that are kept.
    """

    def __init__(self, store, job):
        self._store, self._job = store, job
        self._last, self._held = 0.0, None
        self._lock = threading.Lock()

    def __call__(self, done=None, total=None, text="", passing=False, **more):
        with self._lock:
            now = time.monotonic()
            if not more and now - self._last < EVERY:
                if self._held is None:
                    timer = threading.Timer(EVERY, self.flush)
                    timer.daemon = True
                    timer.start()
                self._held = (done, total, text, passing, more)
                return
            self._last, self._held = now, None
            self._write(done, total, text, passing, more)

    def flush(self):
        """Tell what is held back."""
        with self._lock:
            if self._held:
                self._write(*self._held)
                self._last, self._held = time.monotonic(), None

    def _write(self, done, total, text, passing, more):
        text = text.replace("\0", "")[:1000]
        with self._store.begin() as connection:
            if not passing:
                connection.execute(events().insert().values(job=self._job, at=time.time(), done=done, total=total, text=text, more=dumps(more) if more else None))
            connection.execute(jobs().update().where(jobs().c.id == self._job).values(done=done, total=total, text=text))


if __name__ == "__main__":
    main()
