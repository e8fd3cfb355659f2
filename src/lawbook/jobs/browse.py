"""The book as it lies on the table of a server: the index of papers kept in memory, searched by words, filtered, compared, and read again when its files change."""

import bisect
import math
import threading
import time
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from ..contract import catalogue
from .find import index, terms, weighted_terms

EVERY = 2.0  # seconds between looks at the papers' files


@dataclass(frozen=True)
class Book:
    """The entries of `find.index` at one moment."""

    entries: list[dict]
    stamps: tuple = ()
    _near: dict = field(default_factory=dict)

    @cached_property
    def by_slug(self):
        return {entry["slug"]: entry for entry in self.entries}

    @cached_property
    def _documents(self):
        return [weighted_terms(entry) for entry in self.entries]

    @cached_property
    def _postings(self):
        """term -> [(number of the entry, weight)], in the order of terms."""
        found = defaultdict(list)
        for number, document in enumerate(self._documents):
            for term, weight in document.items():
                found[term].append((number, weight))
        return dict(sorted(found.items()))

    @cached_property
    def _terms(self):
        return list(self._postings)

    def prepare(self):
        """Make what searches need before anyone waits for it."""
        _ = self._terms, self.by_slug, self._lengths
        return self

    def search(self, words):
        """Entries that contain at least one of the words, ranked as `find` ranks them."""
        wanted = terms(words)
        scores: Counter = Counter()
        matched: Counter = Counter()
        for word in wanted:
            best: dict[int, float] = {}
            common: dict[int, int] = {}
            for term in self._beginning_with(word):
                postings = self._postings[term]
                factor = 1.0 if term == word else 0.6
                for number, weight in postings:
                    best[number] = max(best.get(number, 0.0), factor * weight)
                    common[number] = max(common.get(number, 0), len(postings))
            for number, weight in best.items():
                matched[number] += 1
                scores[number] += math.log(1 + len(self.entries) / common[number]) * weight / (weight + 3)
        order = sorted(matched, key=lambda number: (-(matched[number] / len(wanted) + scores[number]), number))
        return [self.entries[number] for number in order]

    def _beginning_with(self, word):
        if len(word) <= 2:
            return [word] if word in self._postings else []
        start = bisect.bisect_left(self._terms, word)
        end = bisect.bisect_left(self._terms, word + "\uffff")
        return self._terms[start:end]

    @cached_property
    def _lengths(self):
        return [math.sqrt(sum((weight * self._rarity(term)) ** 2 for term, weight in document.items())) for document in self._documents]

    def _rarity(self, term):
        return math.log(len(self.entries) / len(self._postings[term]))

    def near(self, slug, count=5):
        """The papers whose words are most like those of this one: [(entry, cosine of rarity-weighted words)]."""
        if (slug, count) not in self._near:
            here = next(number for number, entry in enumerate(self.entries) if entry["slug"] == slug)
            products: Counter = Counter()
            for term, weight in self._documents[here].items():
                rarity = self._rarity(term) ** 2
                for number, other in self._postings[term]:
                    products[number] += weight * other * rarity
            cosines = {number: value / (self._lengths[here] * self._lengths[number]) for number, value in products.items() if number != here and value > 0}
            order = sorted(cosines, key=lambda number: (-cosines[number], number))[:count]
            self._near[slug, count] = [(self.entries[number], cosines[number]) for number in order]
        return self._near[slug, count]

    def select(self, *, tag=None, chapter=None, kind=None, source=None, argument=None, slugs=None):
        """Entries that satisfy all that is asked; `slugs` bounds them to a set."""
        return [
            e
            for e in self.entries
            if (not tag or tag in e["tags"])
            and (not chapter or e["chapter"] == chapter)
            and (not kind or kind in e["kinds"])
            and (not source or e["source"] == source)
            and (not argument or any(argument in r["arguments"] for r in e["results"]))
            and (slugs is None or e["slug"] in slugs)
        ]

    @cached_property
    def counts(self):
        """How many papers each tag, chapter, kind and source has: field -> {name: count}, the most frequent first."""
        counted = {
            "tag": Counter(t for e in self.entries for t in e["tags"]),
            "chapter": Counter(e["chapter"] for e in self.entries),
            "kind": Counter(k for e in self.entries for k in e["kinds"]),
            "source": Counter(e["source"] for e in self.entries),
        }
        return {name: dict(sorted(counter.items(), key=lambda item: (-item[1], item[0]))) for name, counter in counted.items()}


def newest_first(entries):
    """By the date in the arXiv number."""
    return sorted(entries, key=lambda e: (e["arxiv"], e["slug"]), reverse=True)


class Library:
    """The Book now. Its files are looked at every `EVERY` seconds at most; a paper that appears is read, one that cannot be read costs a warning and leaves the book as it was."""

    def __init__(self):
        self._book = None
        self._looked = 0.0
        self._lock = threading.Lock()

    def book(self):
        if self._book is not None and (time.monotonic() - self._looked < EVERY or not self._lock.acquire(blocking=False)):
            return self._book
        if self._book is None:
            self._lock.acquire()
        try:
            return self._look()
        finally:
            self._lock.release()

    def _look(self):
        if self._book is not None and time.monotonic() - self._looked < EVERY:
            return self._book
        stamps = tuple((slug, stat.st_mtime_ns, stat.st_size) for slug, (_, file) in catalogue.files().items() for stat in (file.stat(),))
        if self._book is None or stamps != self._book.stamps:
            try:
                self._book = Book(index(), stamps).prepare()
            except Exception as error:  # a paper is code: whatever it raises while it is read must not take the others away
                if self._book is None:
                    raise
                warnings.warn(f"The book is shown as it was: a paper that changed cannot be read ({type(error).__name__}: {error}).", stacklevel=2)
                self._book = Book(self._book.entries, stamps).prepare()
        self._looked = time.monotonic()
        return self._book
