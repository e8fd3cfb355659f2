"""Work in the background: the store, the queue and its processes, kept on SQLite and on a real PostgreSQL, whatever happens to the server."""

import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from lawbook.contract import LawbookError, UnknownName, catalogue
from lawbook.jobs import kinds
from lawbook.jobs.queue import ENDED, Limits, NoJob, Queue, WrongState, events, finish, harmless, jobs, servers
from lawbook.jobs.quick import Busy, Quick, Refused, TooLong
from lawbook.jobs.records import Records
from lawbook.jobs.store import Store, declared, keep
from lawbook.jobs.verify import verify

RUN = {"result": "rope-base-region.slowest_phase", "arguments": {"head_dim": 128, "context_length": "128Ki", "base": "1e4:1e7:log:40"}}


@declared
def shelf(sa, metadata):
    return sa.Table("test_shelf", metadata, sa.Column("slug", sa.String, primary_key=True), sa.Column("times", sa.Integer))


@pytest.fixture
def store(database):
    made = Store(database)
    yield made
    made.close()


on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # where the database makes no difference


@pytest.fixture
def queue(store, tmp_path):
    made = Queue(store, [tmp_path / "models"], Limits(at_once=2), place=tmp_path / "jobs")
    made.start()
    yield made
    made.stop()


def ended(queue, job, seconds=60):
    """The job, once it has ended."""
    until = time.monotonic() + seconds
    while (found := queue.get(job))["state"] not in ENDED:
        assert time.monotonic() < until, f"{found['state']} after {seconds} s: {found['text']}"
        time.sleep(0.05)
    return found


@contextmanager
def working(queue):
    queue.start()
    try:
        yield queue
    finally:
        queue.stop()


def running(queue, job, seconds=30):
    until = time.monotonic() + seconds
    while queue.get(job, whole=False)["state"] != "running":
        assert time.monotonic() < until
        time.sleep(0.02)


# the store


def test_the_store_keeps_rows_and_replaces_them(store):
    with store.begin() as connection:
        keep(connection, shelf(), {"slug": "a"}, times=1)
        keep(connection, shelf(), {"slug": "a"}, times=2)
        keep(connection, shelf(), {"slug": "a"})
    with store.read() as connection:
        assert connection.execute(shelf().select()).all() == [("a", 2)]
    with pytest.raises(RuntimeError), store.begin() as connection:
        keep(connection, shelf(), {"slug": "b"}, times=1)
        raise RuntimeError("half done")
    with store.read() as connection:
        assert len(connection.execute(shelf().select()).all()) == 1, "all of a transaction or nothing"


def test_writers_wait_for_each_other_and_none_is_lost(store):
    with store.begin() as connection:
        keep(connection, shelf(), {"slug": "counter"}, times=0)

    def add():
        for _ in range(20):
            with store.begin() as connection:
                row = connection.execute(sa.select(shelf().c.times).where(shelf().c.slug == "counter").with_for_update()).one()
                keep(connection, shelf(), {"slug": "counter"}, times=row.times + 1)

    threads = [threading.Thread(target=add) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        assert connection.execute(sa.select(shelf().c.times)).scalar_one() == 120


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "must be a URL"),
        ("mysql://host/name", "SQLite or PostgreSQL"),
        ("sqlite:////no/such/folder/here.sqlite", "cannot be used"),
        ("postgresql://me:secret@127.0.0.1:1/none", "cannot be used"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_sentence(url, said):
    with pytest.raises(LawbookError, match=said) as refused, Store(url).begin():
        pass
    assert "secret" not in str(refused.value) and "\n" not in str(refused.value)


def test_nothing_heavy_is_imported_with_the_store():
    code = "import sys, lawbook.jobs.store, lawbook.jobs.queue; assert not {'sqlalchemy', 'scipy', 'jax', 'pebble'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# the queue


def test_a_job_is_done_and_told_of(queue):
    job = queue.submit("run", RUN)
    found = ended(queue, job)
    assert found["state"] == "done" and len(found["result"]["rows"]["base"]) == 40 and found["attempt"] == 1
    said = [event["text"] for event in queue.events(job)]
    assert said[0] == "begun" and said[-1] == "is finished"
    assert [e["number"] for e in queue.events(job, after=queue.events(job)[0]["number"])] == [e["number"] for e in queue.events(job)][1:]
    assert queue.list(kind="run")[1] == 1 and queue.list(state="failed")[1] == 0


@on_sqlite
def test_a_table_is_read_by_the_child_and_refused_in_a_sentence(queue):
    job = queue.submit("fit", {}, [("../../<b>odd.csv", b"\0\1\2")])
    found = ended(queue, job)
    assert found["state"] == "failed" and found["message"].startswith("The table _b_odd.csv holds zero bytes")
    assert found["files"] == [{"name": "_b_odd.csv", "bytes": 3}]


def test_verdicts_arrive_one_by_one_and_are_kept(queue, store):
    job = queue.submit("verify", {"names": ["rope-base-region"]})
    found = ended(queue, job)
    assert found["state"] == "done" and len(found["result"]["verdicts"]) == found["total"] == 3
    assert [e["more"]["verdict"]["status"] for e in queue.events(job) if e["more"]] == ["upheld"] * 3
    trial = next(iter(catalogue.paper("rope-base-region").trials.values()))
    assert store.records().find(trial, 0, "quick").status == "upheld", "the board shows what was tried here"


def test_a_job_is_stopped_within_seconds_with_all_its_processes(queue):
    job = queue.submit("verify", {"effort": "full"})
    waiting = [queue.submit("verify", {"effort": "full"}) for _ in range(2)]
    running(queue, job)
    pids = [child.process.pid for child in queue._children.values()]
    begun = time.monotonic()
    for each in (waiting[1], job, waiting[0]):
        queue.cancel(each)
    assert {ended(queue, each, 10)["state"] for each in (job, *waiting)} == {"cancelled"} and time.monotonic() - begun < 8
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(WrongState, match="ended already"):
        queue.cancel(job)


def test_a_trial_tells_how_many_draws_it_has_made(queue):
    job = queue.submit("verify", {"names": ["rope-base-region.bisection"], "effort": "full"})
    planned, seen, until = catalogue.paper("rope-base-region").trials["bisection"].full, set(), time.monotonic() + 60
    while len(seen) < 3:
        found = queue.get(job, whole=False)
        assert found["state"] in ("queued", "running") and time.monotonic() < until
        if found["total"] == planned:
            seen.add(found["done"])
            assert found["text"] == f"rope-base-region.bisection: {found['done']:,.0f} of {planned:,} draws" and found["done"] <= planned
        time.sleep(0.05)
    queue.cancel(job)
    assert not any("draws" in (event["text"] or "") for event in queue.events(job)), "they are shown, not remembered"
    ended(queue, job)


def test_counting_draws_changes_nothing():
    told, kept = [], Records()
    (watched,) = verify("rope-base-region.bisection", records=kept, drawn=lambda trial, done, total: told.append((trial.id, done, total)))
    (alone,) = verify("rope-base-region.bisection", records=kept)
    planned = catalogue.paper("rope-base-region").trials["bisection"].quick
    assert told[-1] == ("rope-base-region.bisection", planned, planned) and told == sorted(set(told))
    assert {**watched.to_dict(), "seconds": 0} == {**alone.to_dict(), "seconds": 0}


@on_sqlite
def test_limits_of_time_and_of_size(store, tmp_path):
    queue = Queue(store, limits={"result": 500, "upload": 1000, "waiting": 1}, place=tmp_path / "jobs")
    with pytest.raises(LawbookError, match="The tables of a job may have at most"):
        queue.submit("fit", {}, [("a.csv", b"x" * 600), ("b.csv", b"x" * 600)])
    with pytest.raises(LawbookError, match="takes no tables"):
        queue.submit("verify", {}, [("a.csv", b"x")])
    assert not list((tmp_path / "jobs").glob("*/*")), "nothing is left of what was refused"
    large = queue.submit("run", RUN)
    with pytest.raises(Busy, match="1 jobs wait already"):
        queue.submit("run", RUN)
    with working(queue):
        assert "at most 500 are kept" in ended(queue, large)["message"]
    queue = Queue(store, limits={"seconds": 1.0}, place=tmp_path / "jobs")
    long = queue.submit("verify", {"effort": "full"})
    with working(queue):
        assert "stopped after 1 s" in ended(queue, long)["message"]


def test_limit_of_memory(tmp_path):
    queue = Queue(Store(), limits={"memory": 700 * 2**20}, place=tmp_path / "jobs")  # less than the libraries of a fit take
    with working(queue):
        found = ended(queue, queue.submit("fit", {}))
        assert found["state"] == "failed" and "memory" in found["message"]
        assert ended(queue, queue.submit("run", RUN))["state"] == "done", "others go on"


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("nonsense", {}, "There is no kind of job 'nonsense'"),
        ("run", {}, "run needs result"),
        ("run", {"result": "no-such.paper"}, "There is no paper 'no-such'"),
        ("run", {**RUN, "arguments": {"heads": 1}}, "There is no argument of"),
        ("verify", {"names": ["no-such"]}, "There is no paper 'no-such'"),
        ("verify", {"effort": "enormous"}, "effort must be one of quick, full"),
        ("fit", {"holdout": 1}, "holdout must be a number"),
        ("fit", {"loss": 1}, "There is no option of fit 'loss'"),
        ("plan", {"constants": "/etc/passwd"}, "constants must be one of"),
        ("audit", {}, "audit needs path"),
        ("log", {"fields": "sensitive"}, "fields must be written role=column"),
        ("log", {"path": "/etc/passwd"}, "inside one of the folders"),
    ],
)
def test_what_is_wrong_is_said_before_a_job_begins(kind, options, said):
    with pytest.raises(LawbookError, match=said):
        kinds.prepared(kind, options)


def test_jobs_that_do_not_exist(queue):
    for job in ("", "x", "../../etc", "a" * 12, "a\0b", "' OR 1=1"):
        for ask in (queue.get, queue.report, queue.cancel, queue.forget, queue.again):
            with pytest.raises((NoJob, WrongState)):
                ask(job)


@on_sqlite
def test_a_job_can_be_begun_again_and_removed(queue):
    table = b"params,tokens,loss\n1,2,3\n"
    job = queue.submit("fit", {"seed": 3}, [("runs.csv", table)])
    ended(queue, job)
    again = queue.get(queue.again(job))
    assert again["options"]["seed"] == 3 and again["files"] == [{"name": "runs.csv", "bytes": len(table)}]
    queue.forget(job)
    assert not (queue.place / job).exists()
    with pytest.raises(NoJob):
        queue.get(job)
    queue.cancel(again["id"])


# no path outside


@pytest.fixture
def models(tmp_path):
    """A folder with a model, and secrets beside it."""
    folder = tmp_path / "models"
    (folder / "small").mkdir(parents=True)
    (folder / "small" / "config.json").write_text("{}")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "config.json").write_text('{"key": "secret"}')
    (tmp_path / "models-of-others").mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "file-link.gguf").symlink_to(tmp_path / "secret" / "config.json")
    (folder / "loop").symlink_to(folder / "loop")
    return folder


def test_paths_inside_are_found_and_no_other(models, tmp_path):
    for path in (models / "small", "small", "./small/../small", str(models) + "/small/config.json"):
        assert kinds.allowed_path(str(path), [models]).is_relative_to(models)
    said = set()
    outside = ["/etc/passwd", "..", "../secret", "small/../../secret", str(tmp_path / "secret"), "link", "link/config.json", "file-link.gguf", "loop", "missing", "/etc/missing"]
    for path in [*outside, str(tmp_path / "models-of-others"), "~/.ssh", "a\0b", "x" * 5000, "/proc/self/environ", "file:///etc/passwd", f"{models}/../secret"]:
        with pytest.raises(LawbookError) as refused:
            kinds.allowed_path(path, [models])
        said.add(str(refused.value).rpartition("; it was")[0])
    assert len(said) == 1, "that something exists outside is not told"
    with pytest.raises(LawbookError, match="started without any"):
        kinds.allowed_path(str(models / "small"), [])


def test_links_out_of_a_model_are_refused_when_it_is_read(models, tmp_path):
    kinds.everything_inside(models / "small", [models])
    (models / "small" / "model.safetensors").symlink_to(models / "small" / "config.json")
    kinds.everything_inside(models / "small", [models])
    (models / "small" / "deep").mkdir()
    (models / "small" / "deep" / "x.safetensors").symlink_to(tmp_path / "secret" / "config.json")
    with pytest.raises(LawbookError, match="out of them"):
        kinds.everything_inside(models / "small", [models])


@on_sqlite
def test_a_log_is_uploaded_or_lies_below_the_folders(queue, models):
    lines = b"".join(b'{"problem_id": "p%d", "correct": %s}\n' % (i % 7, b"true" if i % 3 else b"false") for i in range(70))
    found = ended(queue, queue.submit("log", {}, [("samples.jsonl", lines)]))
    assert found["state"] == "done" and found["result"]["kind"] == "samples", found["message"]
    rate = next(m for m in found["result"]["measures"] if m["name"] == "pass@1")
    assert rate["value"] == pytest.approx(46 / 70) and "pass@1 is" in found["result"]["summary"][0]
    (models / "small" / "log.csv").write_text("winner,loser\na,b\nc,d\n")
    assert ended(queue, queue.submit("log", {"path": "small/log.csv"}))["result"]["kind"] == "comparisons"
    assert "uploaded" in ended(queue, queue.submit("log", {}))["message"]
    (models / "small" / "out.csv").symlink_to("/etc/passwd")
    with pytest.raises(LawbookError, match="one of the folders"):
        queue.submit("log", {"path": "small/out.csv"})


@on_sqlite
def test_an_audit_reads_below_the_folders_only(queue, models):
    with pytest.raises(LawbookError, match="one of the folders"):
        queue.submit("audit", {"path": "/etc"})
    values = np.random.default_rng(0).standard_normal((24, 16)).astype("<f4").tobytes()
    header = json.dumps({"layer.weight": {"dtype": "F32", "shape": [24, 16], "data_offsets": [0, len(values)]}}).encode()
    (models / "small" / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + values)
    found = ended(queue, queue.submit("audit", {"path": "small", "only": "weights"}))
    assert found["state"] == "done" and [row["name"] for row in found["result"]["weights"]["layers"]] == ["layer.weight"], found["message"]
    (models / "small" / "more.safetensors").symlink_to(models.parent / "secret" / "config.json")
    assert "leads" not in (message := ended(queue, queue.submit("audit", {"path": "small"}))["message"]) and "link" in message


def test_names_of_tables_are_harmless():
    for name in ("../../etc/passwd", "..\\..\\x", "/", "", ".", "..", ".htaccess", "a\0b.csv", "<script>.csv", None, "x" * 500):
        safe = harmless(name)
        assert safe and "/" not in safe and "\\" not in safe and not safe.startswith(".") and "<" not in safe and "\0" not in safe and len(safe) <= 100


# servers that are killed

SERVER = """
import json, sys, time
from lawbook.jobs.queue import Queue
from lawbook.jobs.store import Store
if __name__ == "__main__":
    url, place = sys.argv[1:3]
    queue = Queue(Store(url), limits={"at_once": 2}, place=place)
    queue.start()
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def server(store, tmp_path):
    """Starts servers of the store's queue, in processes that can be killed."""
    file = tmp_path / "server.py"
    file.write_text(textwrap.dedent(SERVER))
    begun = []

    def start():
        process = subprocess.Popen([sys.executable, file, store.url, tmp_path / "jobs"], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()
        process.stdout.close()


def test_kill_9_loses_no_finished_work(store, server, tmp_path):
    queue = Queue(store, limits={"at_once": 2}, place=tmp_path / "jobs")  # looks on
    finished = queue.submit("run", RUN)
    first = server()
    assert ended(queue, finished)["state"] == "done"
    resumes = queue.submit("verify", {"names": ["rope-base-region"]})
    breaks = queue.submit("fit", {"bootstrap": 2000, "starts": 100_000})
    waits = queue.submit("run", RUN)
    until = time.monotonic() + 40
    while not any(event["more"] for event in queue.events(resumes)) or queue.get(breaks)["state"] != "running":
        assert time.monotonic() < until
        time.sleep(0.02)
    children = _children(first.pid)
    assert len(children) == 2
    first.send_signal(signal.SIGKILL)
    first.wait()
    until = time.monotonic() + 5
    while any(_lives(pid) for pid in children):
        assert time.monotonic() < until, "processes of a killed server end with it"
        time.sleep(0.05)
    assert queue.get(finished)["state"] == "done" and queue.get(resumes)["state"] in ("running", "done")
    tried = {event["more"]["verdict"]["id"] for event in queue.events(resumes) if event["more"]}

    server()
    broken = ended(queue, breaks)
    assert broken["state"] == "interrupted" and "begin it again" in broken["message"]
    assert ended(queue, waits)["state"] == "done"
    again = ended(queue, resumes)
    assert again["state"] == "done" and len(again["result"]["verdicts"]) == again["total"]
    assert tried, "some were tried before"
    if again["attempt"] == 2:
        assert any("where it was broken off" in (event["text"] or "") for event in queue.events(resumes))
    with store.read() as connection:
        assert len(connection.execute(servers().select()).all()) == 1, "the dead server is forgotten"


def test_a_job_that_kills_its_server_is_not_begun_for_ever(store, tmp_path):
    queue = Queue(store, place=tmp_path / "jobs")
    job = queue.submit("verify", {})
    for attempt in (1, 2, 3):
        with store.begin() as connection:
            connection.execute(jobs().update().values(state="running", server="elsewhere:1:dead", attempt=attempt))
        queue._take_over(time.time())
        assert queue.get(job)["state"] == ("queued" if attempt < 3 else "interrupted")


def test_a_late_answer_of_an_earlier_attempt_is_not_taken(store, tmp_path):
    queue = Queue(store, place=tmp_path / "jobs")
    job = queue.submit("run", RUN)
    with store.begin() as connection:
        connection.execute(jobs().update().values(state="running", server=queue.id, attempt=2))
    assert not finish(store, job, 1, "done", result="{}")
    assert finish(store, job, 2, "done", result=json.dumps({"value": 1}))
    assert not finish(store, job, 2, "failed", "too late")
    assert queue.get(job)["result"] == {"value": 1}


def test_servers_that_share_a_store_never_do_a_job_twice(store, tmp_path):
    queues = [Queue(store, limits={"at_once": 2}, place=tmp_path / "jobs") for _ in range(2)]
    made = [queues[0].submit("run", RUN) for _ in range(6)]
    for queue in queues:
        queue.start()
    try:
        assert {ended(queues[0], job)["state"] for job in made} == {"done"}
    finally:
        for queue in queues:
            queue.stop()
    with store.read() as connection:
        begun = connection.execute(sa.select(sa.func.count()).select_from(events()).where(events().c.text == "begun")).scalar_one()
    assert begun == len(made)


def test_a_server_that_stops_gives_back_what_it_had_begun(store, tmp_path):
    queue = Queue(store, place=tmp_path / "jobs")
    job = queue.submit("verify", {"effort": "full"})
    queue.start()
    running(queue, job)
    queue.stop()
    assert queue.get(job)["state"] == "queued" and not list((tmp_path / "jobs").glob("*.lock"))
    assert queue.submit("run", RUN), "a queue that does not work still takes jobs"


def _children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/").glob("*/children") for child in child.read_text().split()]


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# short answers


def test_short_answers_have_limits_and_do_not_break_the_server():
    quick = Quick(workers=1, seconds=1, memory=2 * 2**30)
    try:
        assert quick.do(len, [1, 2]) == 2
        with pytest.raises(TooLong, match="longer than 1 s"):
            quick.do(time.sleep, 30)
        with pytest.raises(Refused, match="memory"):
            quick.do(bytearray, 4 * 2**30)
        with pytest.raises(Refused, match="broke its process"):
            quick.do(os.abort)
        with pytest.raises(Refused, match="ZeroDivisionError"):
            quick.do(divmod, 1, 0)
        assert quick.do(len, [1]) == 1, "and go on"
    finally:
        quick.stop()


def test_kinds_describe_their_options():
    for name in ("verify", "fit", "plan", "audit", "log"):
        kind = kinds.kind_of(name)
        assert set(kind.defaults) <= set(kind.options) == set(kind.schema()["properties"])
    assert kinds.kind_of("fit").bind({"holdout": "10%", "huber_delta": "inf", "law": ""})["holdout"] == 0.1
    options = kinds.kind_of("fit").bind({"holdout": 0.1, "profile": True})
    assert kinds.kind_of("fit").command(options, ["my runs.csv"]) == "lawbook fit 'my runs.csv' --holdout 0.1 --profile"
    options = kinds.kind_of("log").bind({"fields": "sensitive=sex, label=15", "drop": True})
    assert kinds.kind_of("log").command(options, ["people.csv"]) == "lawbook audit people.csv --field sensitive=sex --field label=15 --drop"
    with pytest.raises(UnknownName):
        kinds.kind_of("verfy")
