"""Work spread over processes: one after the other here, over the cores through joblib, or on a Dask cluster. The answers are the same, bit for bit.

A task depends on its own argument alone (random streams are named in it), so neither the number of workers, nor the order in which they answer, nor one that dies changes anything.
"""

import hashlib
import logging
import os
import re
import signal
import threading
import time
import warnings
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from ..artifacts import datasets
from ..contract import LawbookError, UnknownName, catalogue
from ..contract import count as count_quantity
from ..trials.judge import versions

DEATHS = 3  # of workers over the same tasks, before these are given up
REACHED = 5  # seconds in which a cluster must answer
PATIENCE = 60  # seconds that a cluster may be without any worker
ADDRESS = re.compile(r"(tcp|tls|ws|wss|ucx)://\S+:\d+")
PLACES = (catalogue.EXTRA, datasets.DATA)  # settings of the caller that hold for its workers; where it has none, a cluster's own hold there

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def workers(count=None, cluster=None):
    """Somewhere to work: `each(function, tasks)` and `map(function, tasks)`, where `function` takes one task and both can be pickled.

    `count` processes on this machine (1 without: no process but this one), or the Dask cluster whose scheduler listens at `cluster`, such as "tcp://127.0.0.1:8786".
    LawbookError where the cluster cannot be reached or would not give the same results.
    """
    if cluster is None:
        count = count_quantity().read(1 if count is None else count, "workers")
        yield Here() if count == 1 else Processes(count)
    elif count is not None:
        raise LawbookError(f"Give workers or cluster, not both: the cluster says how many workers it has; workers was {count}, cluster was {cluster!r}.")
    else:
        client, log = _connect(cluster), logging.getLogger("distributed.client")
        level = log.level
        log.setLevel(logging.CRITICAL)  # that workers or the scheduler are lost is said here, in a sentence, or made good
        try:
            yield Cluster(client, cluster)
        finally:
            client.close()
            log.setLevel(level)


class Here:
    """Works in this process, one task after the other."""

    def each(self, function, tasks):
        """(index, answer) of every task, as they are done."""
        for index, task in enumerate(tasks):
            with alone(), heeded():
                answer = function(task)
            yield index, answer

    def map(self, function, tasks, progress=None):
        """The answers in the order of the tasks; `progress(done, total)` is called as they come in."""
        tasks = list(tasks)
        answers = {}
        for index, answer in self.each(function, tasks):
            answers[index] = answer
            if progress:
                progress(len(answers), len(tasks))
        return [answers[index] for index in range(len(tasks))]


class Processes(Here):
    """Works in processes of this machine, through joblib."""

    def __init__(self, count):
        self._count = count

    def each(self, function, tasks):
        left = dict(enumerate(tasks))
        if len(left) < 2:
            yield from super().each(function, left.values())
            return
        from joblib import Parallel, delayed, parallel_config
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        places = {name: os.environ.get(name, "") for name in PLACES}
        for _ in range(DEATHS + 1):
            with parallel_config("loky", inner_max_num_threads=1):
                parallel = Parallel(self._count, return_as="generator_unordered", batch_size=1, mmap_mode="c")  # large arrays are shared, and each task may write to its own
            try:
                for index, answer, said in _without_advice(parallel([delayed(_work)(index, function, task, places) for index, task in left.items()])):
                    del left[index]
                    _say(said)
                    yield index, answer
                return
            except TerminatedWorkerError:
                continue
        raise LawbookError(f"Worker processes died {DEATHS + 1} times over the same work, perhaps for want of memory; workers was {self._count}: try fewer.")


class Cluster(Here):
    """Works on a Dask cluster; what a worker had when it died is done again by another."""

    def __init__(self, client, address):
        self._client, self._address = client, address

    def each(self, function, tasks):
        from concurrent.futures import CancelledError

        from distributed import KilledWorker, as_completed

        places = {name: os.environ[name] for name in PLACES if os.environ.get(name)}
        build = _build(os.environ.get(catalogue.EXTRA))
        futures = []
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sending large graph")  # what is large is sent once
                for index, task in enumerate(self._shared(list(tasks))):
                    futures.append(self._client.submit(_work, index, function, task, places, build, pure=False))
            arriving, staffed = as_completed(futures, self._client.loop), time.monotonic()
            while not arriving.is_empty():
                if arriving.has_ready():
                    for index, answer, said in self._client.gather(arriving.next_batch(block=False)):
                        _say(said)
                        yield index, answer
                elif self._client.scheduler_info()["workers"]:
                    staffed = time.monotonic()
                    time.sleep(0.01)
                elif time.monotonic() - staffed < PATIENCE:
                    time.sleep(0.2)
                else:
                    raise LawbookError(f"The cluster {self._address} has had no workers for {PATIENCE} s.")
        except CancelledError:
            raise LawbookError(f"The scheduler of the cluster {self._address} went away.") from None
        except KilledWorker as error:
            raise LawbookError(f"Workers of the cluster {self._address} died again and again over the same work, perhaps for want of memory: {error}") from None
        finally:
            if self._client.status == "running":
                self._client.cancel(futures, force=True)

    def _shared(self, tasks):
        """The tasks, what all of these tuples have in common at the same place being sent only once."""
        if len(tasks) < 2 or not all(isinstance(task, tuple) and len(task) == len(tasks[0]) for task in tasks):
            return tasks
        common = {
            place: self._client.submit(_itself, part, pure=False)
            for place, part in enumerate(tasks[0])
            if not isinstance(part, str | int | float | None) and all(task[place] is part for task in tasks)
        }
        return [tuple(common.get(place, part) for place, part in enumerate(task)) for task in tasks]


@contextmanager
def alone():
    """One task at a time in a process, with one thread of linear algebra: more of them slow small matrices down, and change the last digits with their number."""
    import scipy.linalg  # noqa: F401  its own library of threads must be loaded to be limited
    from threadpoolctl import threadpool_limits

    with _ONE_AT_A_TIME, threadpool_limits(1):
        yield


@contextmanager
def heeded():
    """Ctrl-C ends what is inside, at the latest when it is done: compilers and callbacks swallow the exception, and an answer made after that is not to be trusted."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    came = []

    def note(number, frame):
        came.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _work(index, function, task, places, build=None):
    """What a worker does: (index, answer, warnings). LawbookError where its code is not the `build` of the caller."""
    with alone(), _places(places), warnings.catch_warnings(record=True) as said:
        mine = _build(os.environ.get(catalogue.EXTRA)) if build else None
        if mine != build:
            other = " and ".join(f"{name} {mine[name]} (here {build[name]})" for name in build if mine[name] != build[name])
            raise LawbookError(f"A worker of the cluster has {other}, so its results would not be the same: give it the same lawbook and libraries, and start it again.")
        try:
            answer = function(task)
        except UnknownName as error:  # its message is made of parts that do not travel
            raise LawbookError(str(error)) from None
    return index, answer, [(str(warning.message), warning.category) for warning in said]


def _without_advice(arriving):
    """What joblib hands over, without its advice on tasks that ended with their worker."""
    while True:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* tasks which were still being processed")
            try:
                arrived = next(arriving)
            except StopIteration:
                return
        yield arrived


def _itself(part):
    return part


def _say(said):
    """The warnings of a worker, here."""
    for message, category in said:
        warnings.warn(message, category, stacklevel=3)


@contextmanager
def _places(given):
    before = {name: os.environ.get(name, "") for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        os.environ.update(before)


@cache
def _build(_chapters):
    """What answers depend on besides their tasks: the code of lawbook and of the reader's papers, and the versions of the libraries."""
    files = {*Path(catalogue.__file__).parents[1].rglob("*.py"), *(file for _, file in catalogue.files().values())}
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: (file.name, str(file))):
        digest.update(file.read_bytes())
    return {**versions(), "jax": metadata.version("jax"), "code": digest.hexdigest()[:8]}


def _connect(address):
    """A client of the Dask cluster, which has at least one worker."""
    if not ADDRESS.fullmatch(address):
        raise LawbookError(f"cluster must be the address of a Dask scheduler such as tcp://127.0.0.1:8786; it was {address!r}.")
    try:
        from distributed import Client
    except ImportError:
        raise LawbookError("Clusters need the package distributed, which comes with lawbook[cluster].") from None
    try:
        client = Client(address, timeout=REACHED, set_as_default=False)
    except OSError:
        raise LawbookError(f"There is no Dask scheduler at {address} that answers within {REACHED} s.") from None
    try:
        client.wait_for_workers(1, timeout=REACHED)
        places = {"scheduler": client.run_on_scheduler(find_spec, "lawbook"), **client.run(find_spec, "lawbook", on_error="ignore")}
        without = [place for place, found in places.items() if found is None]
        if without:
            raise LawbookError(f"The cluster {address} has no lawbook on {', '.join(without)}: install it there.")
    except BaseException as error:
        client.close()
        if isinstance(error, TimeoutError):
            raise LawbookError(f"The cluster {address} has no workers: start some with `dask worker {address}`.") from None
        raise
    return client
