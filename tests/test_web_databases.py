"""What the workbench keeps, on SQLite and on a real PostgreSQL: readers' marks, verdicts, digests and subscribers, and the whole server on top of it."""

import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from lawbook.contract import LawbookError, UnknownName, Verdict, catalogue
from lawbook.faces.web.app import Settings, create_app
from lawbook.jobs import digest, records, shelf
from lawbook.jobs.board import UNTRIED, Board
from lawbook.jobs.browse import Library
from lawbook.jobs.records import Records
from lawbook.jobs.shelf import Shelf
from lawbook.jobs.store import Store
from lawbook.jobs.verify import verify

HOST = "http://127.0.0.1"
SLUG, TRIAL = "rope-base-region", "bisection"


@pytest.fixture
def store(database):
    made = Store(database)
    yield made
    made.close()


@pytest.fixture(scope="module")
def library():
    return Library()


def at_once(work, times=8):
    """What `work` gives to several threads that call it, each with its number, at the same moment."""
    together = threading.Barrier(times)

    def begin(number):
        together.wait()
        return work(number)

    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(begin, range(times)))


# readers


def test_marks_are_given_and_taken_back(store, library):
    kept = Shelf(store, library)
    assert kept.toggle("ada", SLUG, "like") and kept.toggle("ada", SLUG, "favourite") and kept.toggle("bob", SLUG, "like")
    assert kept.likes() == {SLUG: 2} and kept.marked("ada") == {"favourite": {SLUG}, "like": {SLUG}}
    assert not kept.toggle("ada", SLUG, "like") and kept.likes() == {SLUG: 1}
    assert Shelf(store, library).marked("ada") == {"favourite": {SLUG}, "like": set()}
    for slug, mark in (("no-such", "like"), (SLUG, "hate")):
        with pytest.raises(UnknownName):
            kept.toggle("ada", slug, mark)


def test_what_is_done_at_the_same_moment_does_not_break(store, library):
    shelves = [Shelf(store, library) for _ in range(2)]  # of two servers
    assert len({len(arrived) for arrived in at_once(lambda i: shelves[i % 2].arrived())}) == 1
    at_once(lambda i: shelves[i % 2].toggle("ada", SLUG, "like"))
    assert shelves[0].likes().get(SLUG, 0) <= 1
    at_once(lambda i: shelves[i % 2].visit("ada"))


def test_feedback_is_kept_as_it_was_said(store, library):
    kept = Shelf(store, library)
    kept.send("ada", SLUG, "<b>bold</b>\0 Größe 😀 'quoted\" \\", "ada\0@example.org")
    kept.send("bob", SLUG, "later")
    assert [(said["words"], said["contact"]) for said in kept.said()] == [("later", ""), ("<b>bold</b> Größe 😀 'quoted\" \\", "ada@example.org")]
    for words, contact in (("", ""), ("\0", ""), ("x" * (shelf.LONGEST + 1), ""), ("x", "y" * 201)):
        with pytest.raises(LawbookError):
            kept.send("ada", SLUG, words, contact)


def test_what_is_new_since_the_last_visit(store, library, monkeypatch):
    kept = Shelf(store, library)
    assert kept.fresh("ada") == set()
    with store.begin() as connection:
        connection.execute(shelf.visitors().update().values(last=1.0, previous=1.0))
    assert Shelf(store, library).fresh("ada") == set(library.book().by_slug), "all have come since that visit"


# verdicts


def judged(status, effort="quick", seed=0):
    return Verdict(SLUG, TRIAL, "identity", ("lower_bound",), status, f"because it is {status} 😀", 10, None, {"least": 1e-300}, {}, [], seed, effort, {}, 0.1)


def test_verdicts_are_kept_found_and_shown_on_the_board(store, library, monkeypatch):
    trial, kept = catalogue.paper(SLUG).trials[TRIAL], store.records()
    board = Board(library, kept)

    def row():
        board._looked = 0.0  # as a quarter of a second later
        return next(row for row in board.rows() if row["id"] == trial.id)

    assert kept.find(trial, 0, "quick") is None and row()["status"] == UNTRIED
    kept.keep(trial, judged("violated"))
    kept.keep(trial, judged("upheld"))
    assert kept.find(trial, 0, "quick").to_dict() == judged("upheld").to_dict() and kept.find(trial, 1, "quick") is None
    assert row()["status"] == "upheld" and board.statuses()[SLUG].count("upheld") == 1
    kept.keep(trial, judged("inconclusive", seed=1))
    assert row()["status"] == "inconclusive", "the latest counts"
    Records(store.url).keep(trial, judged("upheld", "full"))  # by another process
    kept.keep(trial, judged("violated", seed=2))
    assert row()["status"] == "upheld" and row()["verdict"]["effort"] == "full", "full before quick"
    assert [(v.status, stale) for v, _, stale in board.history(trial.id)] == [("violated", False), ("upheld", False), ("inconclusive", False), ("upheld", False)]
    monkeypatch.setattr(records, "fingerprint", lambda trial: "of other code")
    kept.keep(trial, judged("vacuous", "full", seed=3))
    assert row()["status"] == "upheld", "what the code of today says counts first"


def test_a_round_is_resumed_and_processes_keep_verdicts_side_by_side(store):
    command = [sys.executable, "-m", "lawbook.faces.cli", "verify", SLUG, "--records", store.url, "--workers", "1"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]  # which make the table at once
    for process in both:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0 and "not kept" not in said and "3 upheld" in said
    kept = store.records()
    assert len(kept.kept()) == 3
    before, began = kept.stamp(), time.perf_counter()
    verify(SLUG, resume=True, records=kept)
    assert kept.stamp() == before and time.perf_counter() - began < 5, "nothing was tried again"
    verify(SLUG, resume=False, records=kept)
    assert kept.stamp() != before and len(kept.kept()) == 3


@pytest.mark.parametrize(("url", "shown"), [("postgresql://me:secret@127.0.0.1:1/none", "me:***@127.0.0.1:1"), ("mysql://host/name", "mysql"), ("nonsense", "nonsense")])
def test_records_that_cannot_be_used_cost_a_warning_without_the_password(url, shown):
    kept, trial = Records(url), catalogue.paper(SLUG).trials[TRIAL]
    with pytest.warns(UserWarning, match="shown but not kept") as said:
        kept.keep(trial, judged("upheld"))
    assert "secret" not in str(said[0].message) and shown in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kept.find(trial, 0, "quick") is None and kept.stamp() is None and kept.kept() == []


def test_records_come_back_with_their_database(store, monkeypatch):
    kept, trial = store.records(), catalogue.paper(SLUG).trials[TRIAL]
    kept.keep(trial, judged("upheld"))
    monkeypatch.setattr(records, "PAUSE", 0)
    with monkeypatch.context() as away:
        away.setattr(kept, "_connect", lambda: (_ for _ in ()).throw(OSError("away")))
        with pytest.warns(UserWarning, match="shown but not kept"):
            assert kept.find(trial, 0, "quick") is None
    assert kept.find(trial, 0, "quick").status == "upheld"


# the server


def test_the_whole_server(database):
    with TestClient(create_app(Settings(database=database, base_url=HOST)), base_url=HOST) as client:
        client.get("/")
        csrf = {"csrf": client.cookies["lawbook_csrf"]}
        assert client.post(f"/paper-mark/{SLUG}", data={"mark": "favourite", **csrf}).status_code == 200
        assert client.post(f"/feedback/{SLUG}", data={"words": "fine\0 words", **csrf}).status_code == 200
        assert "fine words" in client.get("/feedback").text
        assert f"p-{SLUG}" in client.get("/", params={"mine": "favourite"}).text
        assert client.get(f"/paper/{SLUG}").status_code == client.get("/verdicts").status_code == client.get("/jobs").status_code == client.get("/feed.xml").status_code == 200
        begun = client.post(f"/verdict/{SLUG}/{TRIAL}", data=csrf)
        assert begun.status_code == 200
        until = time.monotonic() + 60
        while client.get(str(begun.url).replace("/jobs/", "/api/jobs/")).json()["state"] in ("queued", "running"):
            assert time.monotonic() < until
            time.sleep(0.1)
        while "not yet tried" in client.get(f"/verdict/{SLUG}/{TRIAL}").text:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert "upheld" in client.get(f"/verdict/{SLUG}/{TRIAL}").text
        store = client.app.state.store
        digest.keep_digest(digest.gather([], store=store, records=store.records()), store)
        assert "The book holds" in client.get("/digest").text and client.get("/digest/1").status_code == client.get("/digest/feed.xml").status_code == 200
        for before in ("-99999999999999999999", "0", "99999999999999999999"):
            assert client.get("/digest/archive", params={"before": before}).status_code in (200, 422)
