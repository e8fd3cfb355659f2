"""Short answers for pages: worked out in warm processes of their own, so that no page waits for another's arithmetic, and stopped when they take too long."""

import os
import signal
import threading
from concurrent.futures import TimeoutError as Late

from ..contract import LawbookError, UnknownName

GIBIBYTE = 2**30
PRELOADED = ["lawbook.jobs.run", "lawbook.jobs.solve"]  # what every worker has read before it is asked
MOST_WAITING = 1000


class TooLong(LawbookError):
    """An answer that takes longer than a page may wait: it belongs into the queue."""


class Busy(LawbookError):
    """More is asked at once than can be answered soon."""


class Refused(LawbookError):
    """What a worker refused: `unknown` where a name does not exist."""

    def __init__(self, sentence, unknown=False):
        super().__init__(sentence)
        self.unknown = unknown


class Quick:
    """`workers` processes with limits of `seconds` an answer and `memory` bytes each."""

    def __init__(self, workers=2, seconds=5.0, memory=4 * GIBIBYTE):
        self.seconds, self.memory = seconds, memory
        self._workers = workers
        self._pool = None
        self._waiting = 0
        self._lock = threading.Lock()

    def submit(self, function, /, *arguments, seconds=None, **more):
        """A concurrent.futures.Future of function(*arguments, **more), all of which can be pickled: its `result()` raises what `outcome` raises."""
        seconds = seconds or self.seconds
        with self._lock:
            if self._waiting >= MOST_WAITING:
                raise Busy(f"{MOST_WAITING:,} answers are waited for already; ask again in a moment.")
            self._waiting += 1
        try:
            # the alarm ends a worker that nobody waits for any more because the server has gone
            future = self._started().schedule(_work, args=(function, arguments, more, int(seconds) + 5), timeout=seconds)
        except BaseException:
            self._done(None)
            raise
        future.add_done_callback(self._done)
        return future

    def outcome(self, future):
        """The answer of a future that is done, or will be. Refused says what a user can mend, TooLong that it was stopped."""
        from pebble import ProcessExpired

        try:
            kind, answer = future.result()
        except Late:
            raise TooLong(f"The answer takes longer than {self.seconds:g} s.") from None
        except ProcessExpired:
            raise Refused(f"The answer was given up: it broke its process, perhaps for want of more memory than the {self.memory / GIBIBYTE:.3g} GiB allowed.") from None
        except Exception as error:  # of what cannot be handed from one process to another
            raise Refused(f"The answer cannot be handed over: {type(error).__name__}: {' '.join(str(error).split())[:300]}.") from None
        if kind == "answer":
            return answer
        if kind == "long":
            raise TooLong(answer)
        raise Refused(answer, unknown=kind == "unknown")

    def do(self, function, /, *arguments, seconds=None, **more):
        """The answer, waited for."""
        return self.outcome(self.submit(function, *arguments, seconds=seconds, **more))

    def _done(self, _):
        with self._lock:
            self._waiting -= 1

    def _started(self):
        import multiprocessing

        from pebble import ProcessPool

        with self._lock:
            if self._pool is None:
                for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
                    os.environ.setdefault(name, "1")  # for the processes: there is one for each core already
                context = multiprocessing.get_context("forkserver")
                context.set_forkserver_preload(PRELOADED)
                self._pool = ProcessPool(self._workers, initializer=limit, initargs=(self.memory,), context=context)
            return self._pool

    def stop(self):
        """End the workers."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join(timeout=5)


def limit(memory, file_bytes=None):
    """Bound what this process may take: bytes of address space and of a file that it writes; no core dumps, Ctrl-C is the parent's business."""
    import resource

    bounds = {resource.RLIMIT_AS: memory, resource.RLIMIT_CORE: 0, **({resource.RLIMIT_FSIZE: file_bytes} if file_bytes else {})}
    for what, wanted in bounds.items():
        _, hard = resource.getrlimit(what)
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(what, (most, most))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(function, arguments, more, seconds):
    """("answer", value), or ("unknown", "long" or "refused", sentence)."""
    signal.alarm(seconds)
    try:
        return "answer", function(*arguments, **more)
    except TooLong as error:
        return "long", str(error)
    except UnknownName as error:
        return "unknown", str(error)
    except LawbookError as error:
        return "refused", str(error)
    except MemoryError:
        return "refused", "These arguments need more memory than is allowed here."
    except Exception as error:  # a result that breaks for one reader's arguments must not break the server
        return "refused", f"The answer could not be worked out for these arguments: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    finally:
        signal.alarm(0)


def encoded(function, most, /, *arguments, **more):
    """function(...).to_dict() as JSON text; LawbookError where it is longer than `most` characters."""
    from ..contract.encoding import dumps

    text = dumps(function(*arguments, **more).to_dict())
    if len(text) > most:
        raise LawbookError(f"The answer has {len(text):,} characters; at most {most:,} are given at once: ask for fewer points or a smaller size.")
    return text
