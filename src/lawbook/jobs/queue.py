"""Work in the background: jobs in the store, each done by a process of its own within limits of time, memory and size, and none lost with its server."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..contract import LawbookError, UnknownName
from ..contract.encoding import dumps
from .kinds import kind_of, prepared
from .places import home
from .quick import GIBIBYTE, Busy
from .store import declared, keep

STATES = {
    "queued": "waits for its turn",
    "running": "is at work",
    "done": "is finished",
    "failed": "could not be done",
    "cancelled": "was stopped",
    "interrupted": "was broken off when the server ended",
}
ENDED = ("done", "failed", "cancelled", "interrupted")
ROUND = 0.1  # seconds between two looks at the children
IDLE = 1.0  # seconds between two looks at the store, where nothing is at work
BEAT = 2.0  # seconds between two signs of life of a server
LOST = 15.0  # seconds without one, after which its jobs are taken over
TRIES = 3  # of a job that its server did not survive
NO_MEMORY = 75  # status of a process that could not even say that it had too little
MERCY = 2.0  # seconds from asking a process to end to ending it
LIGHT = ("id", "kind", "title", "state", "made", "begun", "ended", "done", "total", "text", "message", "attempt")


@dataclass(frozen=True)
class Limits:
    """What a job may take, and how many there may be."""

    seconds: float = 3600.0
    memory: int = 6 * GIBIBYTE
    result: int = 20_000_000  # characters
    upload: int = 64 * 2**20  # bytes of all tables of a job
    at_once: int = 1
    waiting: int = 100


@declared
def jobs(sa, metadata):
    text, number = sa.Text, sa.Float
    columns = {"kind": sa.String, "title": text, "options": text, "files": text, "state": sa.String, "made": number, "begun": number, "ended": number}
    more = {"done": number, "total": number, "text": text, "message": text, "server": sa.String, "stop": sa.Boolean, "attempt": sa.Integer, "result": text, "report": text}
    listed = [sa.Column(name, of) for name, of in {**columns, **more}.items()]
    return sa.Table("jobs", metadata, sa.Column("id", sa.String, primary_key=True), *listed, sa.Index("jobs_by_state", "state", "made"))


@declared
def events(sa, metadata):
    columns = {"job": sa.String, "at": sa.Float, "done": sa.Float, "total": sa.Float, "text": sa.Text, "more": sa.Text}
    serial = sa.Column("number", sa.Integer, primary_key=True, autoincrement=True)
    return sa.Table("job_events", metadata, serial, *(sa.Column(name, of) for name, of in columns.items()), sa.Index("job_events_by_job", "job", "number"))


@declared
def servers(sa, metadata):
    return sa.Table("job_servers", metadata, sa.Column("id", sa.String, primary_key=True), sa.Column("beat", sa.Float))


def finish(store, job, attempt, state, message="", **more):
    """End a job in one stroke, unless it has ended or begun anew already; whether this did."""
    table = jobs()
    mine = (table.c.id == job) & (table.c.state == "running") & (table.c.attempt == attempt)
    with store.begin() as connection:
        ended = connection.execute(table.update().where(mine).values(state=state, message=message, ended=time.time(), **more)).rowcount == 1
        if ended:
            _remark(connection, job, message or STATES[state])
        return ended


def _remark(connection, job, text):
    connection.execute(events().insert().values(job=job, at=time.time(), text=text))


class NoJob(UnknownName):
    """A job that does not exist."""

    def __init__(self, job):
        LawbookError.__init__(self, f"There is no job {str(job)[:40]!r}.")


class WrongState(LawbookError):
    """What cannot be done to a job in the state that it is in."""


class Queue:
    """The jobs of a store. `start` works on them here, until `stop`; without it, jobs are only kept and looked at.

    `folders` are those that an audit may read. `child` is the module that does a job in a process of its own; another one may draw reports, too.
    """

    def __init__(self, store, folders=(), limits=None, *, child="lawbook.jobs.child", place=None):
        self.store = store
        self.folders = tuple(str(folder) for folder in folders)
        self.limits = limits if isinstance(limits, Limits) else Limits(**(limits or {}))
        self.child = child
        self.id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._place = Path(place) if place else None
        self._children: dict = {}
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._lock = None
        self._looked = self._beaten = 0.0

    @property
    def place(self):
        """The folder of uploaded tables and of the servers' locks."""
        return self._place or home() / "jobs"

    # what faces ask

    def submit(self, kind, options=None, files=(), title=None):
        """The id of a new job. `files` are (name, bytes or a file to read) of tables; LawbookError where an option, a table or their number is refused."""
        options = prepared(kind, options or {}, self.folders)
        if len(files) > kind_of(kind).uploads:
            most = kind_of(kind).uploads
            raise LawbookError(f"{kind} takes {f'at most {most}' if most else 'no'} tables; it was given {len(files)}.")
        table, job = jobs(), secrets.token_urlsafe(9).replace("-", "a").replace("_", "b")
        kept = self._keep(job, files)
        title = title or _title(kind, options, kept)
        try:
            with self.store.begin() as connection:
                import sqlalchemy as sa

                waiting = connection.execute(sa.select(sa.func.count()).where(table.c.state == "queued")).scalar_one()
                if waiting >= self.limits.waiting:
                    raise Busy(f"{waiting} jobs wait already, the most that may: try again when some are done.")
                row = {
                    "kind": kind,
                    "title": title.replace("\0", "")[:300],
                    "options": dumps(options),
                    "files": json.dumps(kept),
                    "state": "queued",
                    "made": time.time(),
                    "attempt": 0,
                }
                connection.execute(table.insert().values(id=job, stop=False, text="", message="", **row))
        except BaseException:
            shutil.rmtree(self.place / job, ignore_errors=True)
            raise
        self._wake.set()
        return job

    def get(self, job, *, whole=True):
        """A job as a dict: its light columns, and with `whole` its options, files and result too. NoJob without it."""
        table = jobs()
        names = (*LIGHT, *(("options", "files", "result") if whole else ()))
        with self.store.read() as connection:
            row = connection.execute(_select(*(table.c[name] for name in names)).where(table.c.id == _known(job))).first()
        if row is None:
            raise NoJob(job)
        found = dict(row._mapping)
        for name in ("options", "files", "result"):
            if found.get(name):
                found[name] = json.loads(found[name])
        return found

    def report(self, job):
        """The page about what a job has made; None without one."""
        with self.store.read() as connection:
            row = connection.execute(_select(jobs().c.report).where(jobs().c.id == _known(job))).first()
        if row is None:
            raise NoJob(job)
        return row[0]

    def list(self, *, kind=None, state=None, start=0, most=50):
        """(jobs, the newest first, and how many there are in all)."""
        import sqlalchemy as sa

        table = jobs()
        wanted = [table.c[name] == value for name, value in (("kind", kind), ("state", state)) if value]
        with self.store.read() as connection:
            total = connection.execute(sa.select(sa.func.count()).select_from(table).where(*wanted)).scalar_one()
            rows = connection.execute(_select(*(table.c[n] for n in LIGHT)).where(*wanted).order_by(table.c.made.desc(), table.c.id).offset(start).limit(most)).all()
        return [dict(row._mapping) for row in rows], total

    def events(self, job, after=0, most=500):
        """Remarks on a job with numbers above `after`: [{number, at, done, total, text, more}]."""
        table = events()
        asked = _select(table).where((table.c.job == _known(job)) & (table.c.number > after)).order_by(table.c.number).limit(most)
        return self._remarks(asked)

    def recent(self, job, most):
        """The last remarks on a job, in their order."""
        table = events()
        return self._remarks(_select(table).where(table.c.job == _known(job)).order_by(table.c.number.desc()).limit(most))[::-1]

    def _remarks(self, asked):
        with self.store.read() as connection:
            rows = connection.execute(asked).all()
        return [{**{k: v for k, v in row._mapping.items() if k != "job"}, "more": json.loads(row.more) if row.more else None} for row in rows]

    def cancel(self, job):
        """Stop a job: at once where it waits, within seconds where it is at work. LawbookError where it has ended."""
        table = jobs()
        with self.store.begin() as connection:
            waiting = (table.c.id == _known(job)) & (table.c.state == "queued")
            if connection.execute(table.update().where(waiting).values(state="cancelled", ended=time.time(), message="Stopped before it began.")).rowcount:
                _remark(connection, job, STATES["cancelled"])
                return
            if connection.execute(table.update().where((table.c.id == _known(job)) & (table.c.state == "running")).values(stop=True)).rowcount:
                self._wake.set()
                return
        raise WrongState(f"The job {job} has ended already: it {STATES[self.get(job, whole=False)['state']]}.")

    def again(self, job):
        """The id of a new job with the options and tables of this one."""
        old = self.get(job)
        files = [(entry["name"], (self.place / old["id"] / str(i) / entry["name"]).read_bytes()) for i, entry in enumerate(old["files"])]
        return self.submit(old["kind"], old["options"], files, title=old["title"])

    def forget(self, job):
        """Remove a job that has ended, with its tables and its report."""
        state = self.get(job, whole=False)["state"]
        if state not in ENDED:
            raise WrongState(f"The job {job} {STATES[state]}: stop it before it is removed.")
        with self.store.begin() as connection:
            connection.execute(events().delete().where(events().c.job == job))
            connection.execute(jobs().delete().where(jobs().c.id == job))
        shutil.rmtree(self.place / job, ignore_errors=True)

    def _keep(self, job, files):
        """Tables as files under harmless names: [{name, bytes}]. LawbookError where they are too large."""
        kept, left = [], self.limits.upload
        try:
            for i, (name, content) in enumerate(files):
                folder = self.place / job / str(i)
                folder.mkdir(parents=True)
                safe = harmless(name)
                with (folder / safe).open("wb") as out:
                    size = 0
                    for chunk in [content] if isinstance(content, bytes) else iter(lambda source=content: source.read(2**20), b""):
                        size += len(chunk)
                        left -= len(chunk)
                        if left < 0:
                            raise LawbookError(f"The tables of a job may have at most {self.limits.upload / 2**20:g} MiB together; these have more.")
                        out.write(chunk)
                kept.append({"name": safe, "bytes": size})
        except OSError as error:
            shutil.rmtree(self.place / job, ignore_errors=True)
            raise LawbookError(f"The table cannot be kept in {self.place}: {error.strerror}.") from None
        except LawbookError:
            shutil.rmtree(self.place / job, ignore_errors=True)
            raise
        return kept

    # the work

    def start(self):
        """Begin to work, in a thread that looks after the processes; what servers left behind that are no more is taken up first."""
        if self._thread is not None:
            return
        self.place.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.place / f"{self._name(self.id)}.lock")
        self._stopping.clear()
        self._look_after(first=True)
        self._thread = threading.Thread(target=self._work, name="queue", daemon=True)
        self._thread.start()

    def stop(self):
        """End the work: what is running is put back, or said to be interrupted."""
        if self._thread is None:
            return
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=30)
        self._thread = None
        for job, child in list(self._children.items()):
            _end(child.process, MERCY)
            self._give_up(job, child.attempt)
        self._children.clear()
        with self.store.begin() as connection:
            connection.execute(servers().delete().where(servers().c.id == self.id))
        if self._lock:
            self._lock.close()
            (self.place / f"{self._name(self.id)}.lock").unlink(missing_ok=True)

    def _work(self):
        while not self._stopping.is_set():
            try:
                self._look_after()
                pause = ROUND if self._children else IDLE
            except Exception as error:  # a database that is away comes back
                print(f"queue: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
                pause = 2 * IDLE
            if self._wake.wait(pause):
                self._wake.clear()

    def _look_after(self, first=False):
        now = time.time()
        if first or now - self._beaten > BEAT:
            self._beaten = now
            with self.store.begin() as connection:
                keep(connection, servers(), {"id": self.id}, beat=now)
            self._take_over(now)
        if first:
            return
        self._reap()
        while len(self._children) < self.limits.at_once and not self._stopping.is_set() and self._begin_next():
            pass

    def _reap(self):
        """End what is to be stopped or has taken too long, and note what has ended."""
        if not self._children:
            return
        table = jobs()
        with self.store.read() as connection:
            wanted = {row.id: row for row in connection.execute(_select(table.c.id, table.c.stop, table.c.state, table.c.attempt).where(table.c.id.in_(list(self._children))))}
        for job, child in list(self._children.items()):
            row, code = wanted.get(job), child.process.poll()
            late = time.monotonic() - child.begun > self.limits.seconds
            mine = row is not None and row.state == "running" and row.attempt == child.attempt
            if code is None and not (late or not mine or row.stop):
                continue
            if code is None and row is not None and row.state == "done":
                continue  # it is on its way out
            _end(child.process, MERCY)
            del self._children[job]
            if not mine:
                continue
            if row.stop:
                finish(self.store, job, child.attempt, "cancelled", "Stopped.")
            elif code is None:
                finish(self.store, job, child.attempt, "failed", f"The job was stopped after {self.limits.seconds:g} s, the most that it may take.")
            else:
                finish(self.store, job, child.attempt, "failed", _death(code, self.limits.memory))

    def _begin_next(self):
        """Claim the oldest waiting job and begin it; whether there was one."""
        table = jobs()
        with self.store.begin() as connection:
            oldest = _select(table.c.id, table.c.files, table.c.attempt).where(table.c.state == "queued").order_by(table.c.made).limit(1)
            row = connection.execute(oldest.with_for_update(skip_locked=True) if connection.dialect.name == "postgresql" else oldest).first()
            if row is None:
                return False
            attempt = row.attempt + 1
            begun = {"state": "running", "server": self.id, "begun": time.time(), "attempt": attempt, "stop": False, "done": None, "total": None, "text": ""}
            if not connection.execute(table.update().where((table.c.id == row.id) & (table.c.state == "queued")).values(**begun)).rowcount:
                return True
            _remark(connection, row.id, "begun" if attempt == 1 else f"begun again, where it was broken off (attempt {attempt})")
        files = [str(self.place / row.id / str(i) / entry["name"]) for i, entry in enumerate(json.loads(row.files))]
        order = {"job": row.id, "database": self.store.url, "files": files, "folders": self.folders, "memory": self.limits.memory, "result": self.limits.result}
        process = subprocess.Popen(
            [sys.executable, "-m", self.child],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
        )
        self._children[row.id] = _Child(process, attempt, time.monotonic())
        with suppress(BrokenPipeError):  # of one that died at once, the end is told by `_reap`
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()  # and stays open: its end tells the child of ours
        return True

    def _take_over(self, now):
        """Put back or give up what servers had at work that are no more."""
        table = jobs()
        with self.store.read() as connection:
            left = connection.execute(_select(table.c.id, table.c.server, table.c.attempt).where((table.c.state == "running") & (table.c.server != self.id))).all()
            beats = {row.id: row.beat for row in connection.execute(_select(servers().c.id, servers().c.beat))} if left else {}
        dead = {server for server in {row.server for row in left} if now - beats.get(server, 0) > LOST or self._gone(server)}
        for row in left:
            if row.server in dead:
                self._give_up(row.id, row.attempt)
        if dead:
            with self.store.begin() as connection:
                connection.execute(servers().delete().where(servers().c.id.in_(dead)))

    def _gone(self, server):
        """Whether a server of this machine is no more: the system lets go of its lock however it ends."""
        path = self.place / f"{self._name(server)}.lock"
        if server.partition(":")[0] != socket.gethostname() or not path.exists():
            return False
        lock = _locked(path)
        if lock is None:
            return False
        lock.close()
        path.unlink(missing_ok=True)
        return True

    def _give_up(self, job, attempt):
        """A job whose process is no more waits again where it resumes, and is interrupted where not."""
        table = jobs()
        with self.store.begin() as connection:
            mine = (table.c.id == job) & (table.c.state == "running") & (table.c.attempt == attempt)
            row = connection.execute(_select(table.c.kind, table.c.stop).where(mine)).first()
            if row is None:
                return
            if row.stop:
                state, message = "cancelled", "Stopped."
            elif kind_of(row.kind).resumes and attempt < TRIES:
                state, message = "queued", ""
            else:
                state, message = "interrupted", "The server ended while this job was at work: begin it again."
            ended = None if state == "queued" else time.time()
            connection.execute(table.update().where(mine).values(state=state, message=message, ended=ended, server=None))
            _remark(connection, job, "waits to go on: the server had ended" if state == "queued" else message)

    @staticmethod
    def _name(server):
        return re.sub(r"[^\w.-]", "_", server)


def _known(job):
    """What can be a job's id, or NoJob."""
    if not re.fullmatch(r"[A-Za-z0-9]{12}", str(job)):
        raise NoJob(job)
    return str(job)


@dataclass
class _Child:
    process: subprocess.Popen
    attempt: int
    begun: float


def _select(*columns):
    import sqlalchemy as sa

    return sa.select(*columns)


def _title(kind, options, files):
    """What a job is called in a list: its kind, what it is about, and the options that are not the usual ones."""
    subject = ("result", "path", "law", "constants", "names")
    what = ", ".join(entry["name"] for entry in files)
    if kind == "verify":
        what = ", ".join(options["names"]) or "the whole book"
    elif not what:
        what = next((options[name] for name in subject if options.get(name)), "lawbook's own training runs")
    usual = kind_of(kind).defaults
    others = [f"{name.replace('_', ' ')} {value}" for name, value in options.items() if name not in (*subject, "arguments") and name in usual and value != usual[name]]
    return ", ".join([f"{kind}: {what}", *others])


def harmless(name):
    """A file's name without its folders and without odd characters."""
    last = re.split(r"[/\\]", str(name or ""))[-1]
    return re.sub(r"[^\w.-]", "_", last).lstrip(".")[-100:] or "table"


def _locked(path):
    """The open file, locked for as long as it is open or this process lives; None where another has it."""
    import fcntl

    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _end(process, mercy):
    """End a process with all that it has begun."""
    if process.poll() is None:
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=mercy)
                break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # whoever of its group is left
    if process.stdin:
        with suppress(OSError):
            process.stdin.close()


def _death(code, memory):
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.Signals._value2member_map_ else str(-code)
        return f"The job's process was ended by {name}, perhaps for want of more memory than the {memory / GIBIBYTE:.3g} GiB that it may take."
    if code == NO_MEMORY:
        return f"The job needs more memory than the {memory / GIBIBYTE:.3g} GiB that it may take."
    return f"The job's process ended with status {code} before it had said what it found."
