"""Work spread over processes: the same answers bit for bit, whoever works and whoever dies on the way."""

import contextlib
import json
import os
import pickle
import signal
import socket
import time
import warnings
from dataclasses import replace

import cloudpickle
import numpy as np
import pytest

import lawbook
from lawbook.contract import Caution, LawbookError, Verdict, catalogue, caution
from lawbook.jobs import workers as job
from lawbook.jobs.workers import workers
from lawbook.numerics import generator

LAW = "beyond-chinchilla.chinchilla_loss"


@pytest.fixture(scope="module")
def cluster():
    """Two worker processes of one thread, which start again when they die."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1", silence_logs=60) as local:
        yield local.scheduler_address


def bootstrap(task):
    """Means and a product of matrices over rows of a law's predictions drawn with replacement, a chunk of resamples at a time."""
    law, tokens, seed, number, pause = task
    time.sleep(pause)
    predicted = law.function(1e9, tokens)
    rows = generator(seed, "bootstrap", number).integers(len(tokens), size=(50, len(tokens)))
    drawn = predicted[rows]
    return drawn.mean(1), drawn @ drawn.T, os.getpid()


def chunks(pause=0.0):
    law, tokens = catalogue.result(LAW), np.geomspace(1e8, 1e12, 500)
    return [(law, tokens, 7, number, pause) for number in range(12)]


def numbers(answers):
    return [[part.tobytes() for part in answer[:2]] for answer in answers]


@pytest.fixture(scope="module")
def alone():
    with workers() as here:
        return numbers(here.map(bootstrap, chunks()))


def test_processes_give_the_same(alone):
    seen = []
    with workers(2) as pool:
        answers = pool.map(bootstrap, chunks(), progress=lambda done, total: seen.append((done, total)))
    assert numbers(answers) == alone
    assert os.getpid() not in {pid for *_, pid in answers} and seen == [(done, 12) for done in range(1, 13)]


def test_a_cluster_gives_the_same(alone, cluster):
    with workers(cluster=cluster) as pool:
        answers = pool.map(bootstrap, chunks(0.05))
    assert numbers(answers) == alone
    assert len({pid for *_, pid in answers}) == 2 and os.getpid() not in {pid for *_, pid in answers}


def test_a_cluster_gives_the_same_verdicts(shell, cluster):
    here = lawbook.verify("rope-base-region")
    status, out, err = shell("verify", "rope-base-region", "--cluster", cluster, "--format", "json")
    assert status == 0 and "3 upheld" in err
    assert [Verdict.from_dict(v).evidence() for v in json.loads(out)] == [v.evidence() for v in here]


def dies_once(task):
    """Takes its process down the first time that the fourth chunk is worked on."""
    flag, chunk = task
    if chunk[3] == 3:
        with contextlib.suppress(FileExistsError):
            flag.touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
    return bootstrap(chunk)


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_a_worker_that_is_killed_costs_time_only(alone, cluster, tmp_path, where):
    # in the middle of a task: a process that dies while it writes an answer takes the pipe of the others with it, which joblib does not notice
    with workers(2) if where == "processes" else workers(cluster=cluster) as pool:
        answers = pool.map(dies_once, [(tmp_path / "died", chunk) for chunk in chunks(0.1)])
    assert (tmp_path / "died").exists() and numbers(answers) == alone


def dies(task):
    os.kill(os.getpid(), signal.SIGKILL)


def test_work_that_kills_its_workers_is_given_up(monkeypatch):
    monkeypatch.setattr(job, "DEATHS", 1)
    with workers(2) as pool, pytest.raises(LawbookError, match="died 2 times over the same work"):
        pool.map(dies, [1, 2])


def refuses(task):
    return catalogue.paper("rope-base-regoin")


def warns(task):
    caution(f"Task {task} lies outside.")
    return task


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_what_workers_say_arrives(cluster, where):
    with workers(2) if where == "processes" else workers(cluster=cluster) as pool:
        with pytest.raises(LawbookError, match="did you mean rope-base-region"):
            pool.map(refuses, [1, 2])
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert pool.map(warns, [1, 2]) == [1, 2]
        assert {(str(w.message), w.category) for w in said if w.category is Caution} == {(f"Task {n} lies outside.", Caution) for n in (1, 2)}


def test_other_code_is_refused(cluster, monkeypatch):
    monkeypatch.setattr(job, "_build", lambda chapters, real=job._build: real(chapters) | {"numpy": "1.0"})
    with workers(cluster=cluster) as pool, pytest.raises(LawbookError, match=r"numpy .* \(here 1.0\), so its results would not be the same"):
        pool.map(bootstrap, chunks())


def test_clusters_that_are_none(shell, cluster, monkeypatch):
    monkeypatch.setattr(job, "REACHED", 0.5)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
    cases = {
        ("--cluster", nobody): "There is no Dask scheduler at",
        ("--cluster", "nonsense"): "cluster must be the address of a Dask scheduler such as tcp://",
        ("--cluster", cluster, "--workers", "2"): "Give workers or cluster, not both",
        ("--workers", "0"): "workers must be a whole number of at least 1; it was 0",
    }
    for options, sentence in cases.items():
        status, out, err = shell("verify", "rope-base-region", *options)
        assert status == 2 and out == "" and sentence in err and len(err.strip().splitlines()) == 1, err


def test_a_cluster_without_workers_and_one_that_goes_away(monkeypatch):
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1", silence_logs=60) as local:
        with monkeypatch.context() as impatient:
            impatient.setattr(job, "REACHED", 0.5)
            with pytest.raises(LawbookError, match="has no workers: start some"), workers(cluster=local.scheduler_address):
                pass
        local.scale(1)
        local.wait_for_workers(1)
        with workers(cluster=local.scheduler_address) as pool, pytest.raises(LawbookError, match="went away"):
            pool.map(bootstrap, chunks(0.1), progress=lambda done, total: local.close())


def test_the_book_is_pickled_by_name():
    paper = catalogue.paper("beyond-chinchilla")
    parts = [paper, *paper.results.values(), *paper.trials.values(), *paper.findings.values()]
    for part in parts:
        stored = pickle.dumps(part)
        assert pickle.loads(stored) is part and len(stored) < 200
    changed = replace(catalogue.result(LAW), closed_form=False)
    assert cloudpickle.loads(cloudpickle.dumps(changed)).closed_form is False, "a changed copy is not the book's"


OUTSIDE = '''
from lawbook.contract import Paper, positive

paper = Paper(__name__, title="Nowhere", arxiv="2611.00002", tags=["none"], source="none", says="Twice the size is twice the loss.")


@paper.law("L = 2 n", observes="loss")
def twice(n: positive(example=2.0)) -> positive():
    """Twice."""
    return 2 * n
'''


def call(task):
    law, n = task
    return law(n=n)


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_a_paper_outside_the_book_travels_whole(cluster, where):
    names = {"__name__": "nowhere.at_all"}
    exec(OUTSIDE, names)
    with workers(2) if where == "processes" else workers(cluster=cluster) as pool:
        assert pool.map(call, [(names["twice"].result, n) for n in (1.0, 2.0, 3.0)]) == [2.0, 4.0, 6.0]


def test_sweeps_and_fits_are_the_same_wherever_they_are_made(shell, cluster, tmp_path):
    """A grid, and the intervals of a fit in two chunks of resamples: the same text from one process, two, and a cluster."""
    sweep = ("run", "beyond-chinchilla.compute_optimal", "--compute", "1e20:1e24:log:70", "--format", "csv")
    fit = ("fit", "--law", LAW, "--bootstrap", "600", "--starts", "64", "--format", "json")
    for command in (sweep, fit):
        here = shell(*command)
        assert here[0] == 0 and here[1] == shell(*command, "--workers", "2")[1] == shell(*command, "--cluster", cluster)[1]


@pytest.fixture
def interruptible():
    """Ctrl-C raises, also where the tests run in the background, where shells have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def swallows(task):
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    return task


def test_an_interrupt_that_a_library_swallows_is_heeded(interruptible):
    done, before = [], signal.getsignal(signal.SIGINT)
    with workers() as here, pytest.raises(KeyboardInterrupt):
        for index, _ in here.each(swallows, [1, 2]):
            done.append(index)
    assert not done and signal.getsignal(signal.SIGINT) is before
