"""The verdicts on the whole book: for every trial the one that counts, without importing a paper."""

import threading
import time
from types import SimpleNamespace

from ..contract import Verdict
from ..contract.verdict import STATUSES
from .records import Records, fingerprint

EVERY = 0.25  # seconds between looks at the records
UNTRIED = "not yet tried"
MEANINGS = {**STATUSES, UNTRIED: "no verdict on this trial is kept here"}


class Board:
    """What is kept in `records` on the trials of `library`. A verdict counts by: made by the paper and the code as they are now, full before quick, the latest."""

    def __init__(self, library, records=None):
        self.library, self.records = library, records or Records()
        self._state = None
        self._rows: list[dict] = []
        self._statuses: dict[str, list[str]] = {}
        self._looked = 0.0
        self._codes: dict[str, str] = {}
        self._lock = threading.Lock()

    def rows(self):
        """One record a trial, in the book's order: {id, paper, trial, title, chapter, form, results, status, verdict (a dict or None), kept_at, stale}."""
        book = self.library.book()
        with self._lock:
            if self._state and self._state[0] == book.stamps and time.monotonic() - self._looked < EVERY:
                return self._rows
            state, self._looked = (book.stamps, self.records.stamp()), time.monotonic()
            if state != self._state:
                if self._state and self._state[0] != book.stamps:
                    self._codes.clear()
                self._rows, self._state = self._read(book), state
                self._statuses = {}
                for row in self._rows:
                    self._statuses.setdefault(row["paper"], []).append(row["status"])
            return self._rows

    def statuses(self):
        """slug -> the statuses of its trials."""
        self.rows()
        return self._statuses

    def history(self, trial):
        """Every verdict kept on a trial ("slug.trial"), the latest first: [(Verdict, kept_at, stale)]."""
        code = self._code(trial.partition(".")[0])
        return [(Verdict.from_dict(verdict), at, made_by != code) for _, made_by, verdict, at in self.records.kept(trial)]

    def _read(self, book):
        kept: dict[str, list] = {}
        for trial, made_by, verdict, at in self.records.kept():
            kept.setdefault(trial, []).append((verdict, at, made_by != self._code(trial.partition(".")[0])))
        rows = []
        for entry in book.entries:
            for trial in entry["trials"]:
                name = f"{entry['slug']}.{trial['name']}"
                found = max(kept.get(name, []), key=lambda one: (not one[2], one[0]["effort"] == "full", one[1]), default=(None, None, False))
                verdict, at, stale = found
                rows.append(
                    {
                        "id": name,
                        "paper": entry["slug"],
                        "trial": trial["name"],
                        "title": entry["title"],
                        "chapter": entry["chapter"],
                        "form": trial["form"],
                        "results": trial["results"],
                        "status": verdict["status"] if verdict else UNTRIED,
                        "verdict": verdict,
                        "kept_at": at,
                        "stale": stale,
                    }
                )
        return rows

    def _code(self, slug):
        """The fingerprint of the code as it is now; none of a paper that is no longer there."""
        if slug not in self._codes:
            there = slug in self.library.book().by_slug
            self._codes[slug] = fingerprint(SimpleNamespace(paper=SimpleNamespace(slug=slug))) if there else ""
        return self._codes[slug]
