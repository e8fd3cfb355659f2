"""Gather what is new: papers from feeds, with the book's tags and its nearest results; what the book has gained and which verdicts changed since the last digest."""

import json
import math
import re
import time
import uuid
from collections import Counter
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..artifacts import feeds as reading
from ..contract import LawbookError, UnknownName
from ..contract.verdict import STATUSES
from .board import Board
from .browse import Library
from .find import index, terms
from .store import alone, declared, keep

NEAR = 0.13  # cosine below which nothing in the book is near: texts from other sciences reach 0.12
MOST_NEAR = 3
MOST_TAGS = 6
MOST_PAPERS = 200  # of one digest; the rest comes with the next
SPANS = {"h": 3600, "d": 86400, "w": 7 * 86400}


@declared
def digests(sa, metadata):
    columns = [sa.Column("made_at", sa.Float), sa.Column("headline", sa.String), sa.Column("content", sa.Text), sa.Column("book", sa.Text)]
    return sa.Table("digests", metadata, sa.Column("id", sa.Integer, primary_key=True), *columns)


@declared
def digest_seen(sa, metadata):
    return sa.Table("digest_seen", metadata, sa.Column("key", sa.String, primary_key=True), sa.Column("digest", sa.Integer))


@declared
def digest_names(sa, metadata):
    return sa.Table("digest_names", metadata, sa.Column("name", sa.String, primary_key=True), sa.Column("value", sa.String))


@declared
def feed_copies(sa, metadata):
    texts = [sa.Column(name, sa.String) for name in ("content_type", "etag", "last_modified")]
    return sa.Table("feed_copies", metadata, sa.Column("address", sa.String, primary_key=True), sa.Column("body", sa.LargeBinary), *texts, sa.Column("fetched_at", sa.Float))


class Copies(MutableMapping):
    """What was fetched from feeds, in the store: a mapping from address to Copy."""

    def __init__(self, store):
        self._store = store

    def __getitem__(self, address):
        import sqlalchemy as sa

        with self._store.read() as connection:
            row = connection.execute(sa.select(feed_copies()).where(feed_copies().c.address == address)).mappings().first()
        if row is None:
            raise KeyError(address)
        return reading.Copy(**{name: value for name, value in row.items() if name != "address"})

    def __setitem__(self, address, copy):
        with self._store.begin() as connection:
            keep(connection, feed_copies(), {"address": address}, body=copy.body, **{k: v for k, v in asdict(copy).items() if k != "body"})

    def __delitem__(self, address):
        import sqlalchemy as sa

        with self._store.begin() as connection:
            if not connection.execute(sa.delete(feed_copies()).where(feed_copies().c.address == address)).rowcount:
                raise KeyError(address)

    def __iter__(self):
        import sqlalchemy as sa

        with self._store.read() as connection:
            return iter([row[0] for row in connection.execute(sa.select(feed_copies().c.address))])

    def __len__(self):
        return sum(1 for _ in self)


@dataclass
class Digest:
    """What is new since `since` (seconds; None before the first digest).

    papers: [{title, link, summary, authors, published, arxiv, doi, categories, feeds, keys, tags, in_book, nearest: [{result, title, summary, statement, score, shared}]}]
    book: {papers, results, findings, counts}; verdicts: [{trial, title, before, now, reason, effort}]
    feeds: [{source, title, state, entries}]; failed: {source: sentence}; said: sentences about what was mended or left out.
    """

    made_at: float
    since: float | None = None
    papers: list[dict[str, Any]] = field(default_factory=list)
    book: dict[str, Any] = field(default_factory=dict)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    feeds: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    id: int | None = None  # None before it is kept
    state: dict[str, Any] = field(default_factory=dict, repr=False)  # the book as it is, for the next digest to compare with; empty once it is kept

    @property
    def empty(self):
        """Whether there is nothing new in it."""
        return not (self.papers or self.verdicts or any(self.book.get(name) for name in ("papers", "results", "findings")))

    @property
    def headline(self):
        """What is new in a few words."""
        counts = (
            (len(self.papers), "new paper", "new papers"),
            (len(self.book.get("papers", ())), "paper added to the book", "papers added to the book"),
            (len(self.book.get("results", ())), "new result", "new results"),
            (len(self.book.get("findings", ())), "new finding", "new findings"),
            (len(self.verdicts), "changed verdict", "changed verdicts"),
        )
        return ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in counts if n) or "Nothing new"

    def to_dict(self):
        return {name: value for name, value in asdict(self).items() if name != "state"}


def read_since(text, now=None):
    """Seconds since the epoch of a date (2026-11-01, or with a time) or of a span before now (12h, 7d, 2w)."""
    now = time.time() if now is None else now
    text = text.strip()
    try:
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hdw])", text):
            moment = datetime.fromtimestamp(now - float(match[1]) * SPANS[match[2]], UTC)
        else:
            moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise LawbookError(f"since must be a date such as 2026-11-01 or a span such as 12h, 7d or 2w; it was {text!r}.") from None


def gather(sources, *, store, since=None, fresh=False, limits=None, records=None, progress=None):
    """The Digest of what is new in the feeds `sources` (addresses or paths) and in the book since the last digest. It is not kept yet: `keep_digest` does.

    A paper is new where no digest before has had it and, with `since` (seconds), where it is not older. A feed that cannot be read is named in `failed`.
    """
    last, before = _last(store)
    entries = index()
    digest = Digest(made_at=time.time(), since=last)
    found, digest.failed = reading.read_feeds(sources, copies=Copies(store), fresh=fresh, limits=limits, progress=progress)
    digest.feeds = [{"source": reading.shown(f.source), "title": f.title, "state": f.state, "entries": len(f.entries)} for f in found]
    digest.said = [sentence for f in found for sentence in f.said]
    papers, said = reading.merged(found)
    digest.said += said
    papers = _unseen(papers, store, digest)
    if since is not None:
        young = [p for p in papers if not p.published or datetime.fromisoformat(p.published).timestamp() >= since]
        if len(young) < len(papers):
            old = len(papers) - len(young)
            digest.said.append(f"{old} {'paper' if old == 1 else 'papers'} from before {reading.when(since)} {'is' if old == 1 else 'are'} left out")
        papers = young
    if len(papers) > MOST_PAPERS:
        digest.said.append(f"{len(papers) - MOST_PAPERS} more new papers are left for the next digest")
        papers = papers[:MOST_PAPERS]
    digest.papers = placed(papers, entries)
    now = _book(entries, Board(Library(), records).rows())
    digest.book, digest.verdicts = _changes(before, now, entries)
    digest.state = now
    return digest


def _unseen(papers, store, digest):
    import sqlalchemy as sa

    keys = sorted({key for paper in papers for key in paper.keys})
    seen = set()
    with store.read() as connection:
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            seen |= {row[0] for row in connection.execute(sa.select(digest_seen().c.key).where(digest_seen().c.key.in_(part)))}
    new = [paper for paper in papers if not seen & set(paper.keys)]
    if len(new) < len(papers):
        digest.said.append(f"{len(papers) - len(new)} of {len(papers)} papers were in an earlier digest")
    return new


def placed(papers, entries):
    """Papers of feeds as records, each with its tags and its nearest results; those with something near first, within them the nearest first."""
    near = Neighbours(entries)
    in_book = {key: entry["slug"] for entry in entries for key in reading.Entry(entry["title"], arxiv=entry["arxiv"]).keys}
    known = {tag: words for tag in sorted({tag for entry in entries for tag in entry["tags"]}) if (words := tuple(terms(tag)))}
    records = []
    for paper in papers:
        nearest = near.of(f"{paper.title}. {paper.summary}")
        slug = next((in_book[key] for key in paper.keys if key in in_book), "")
        records.append({**asdict(paper), "keys": list(paper.keys), "tags": tags_of(paper, known), "in_book": slug, "nearest": nearest})
    return sorted(json.loads(json.dumps(records)), key=lambda record: -(record["nearest"][0]["score"] if record["nearest"] else 0.0))


def tags_of(paper, known):
    """The book's tags that a paper itself speaks of, most first: `known` maps a tag to its words."""
    title, summary = terms(paper.title), terms(paper.summary)
    weights = {tag: 3 * _times(words, title) + _times(words, summary) for tag, words in known.items()}
    ranked = sorted((tag for tag, weight in weights.items() if weight), key=lambda tag: -weights[tag] - len(known[tag]))
    return ranked[:MOST_TAGS]


def _times(words, text):
    return sum(tuple(text[i : i + len(words)]) == words for i in range(len(text) - len(words) + 1))


class Neighbours:
    """The book's results as tf-idf vectors. Words that the book does not have count against a match, so that a text about something else is near to nothing."""

    def __init__(self, entries):
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer

        self._common = ENGLISH_STOP_WORDS
        self._results = [(entry, result) for entry in entries for result in entry["results"]]
        self._vectors: Any = None
        if self._results:
            self._idf = TfidfVectorizer(analyzer=self._words, sublinear_tf=True)
            self._vectors = self._idf.fit_transform([_document(entry, result) for entry, result in self._results])

    def _words(self, text):
        return [word for word in terms(text) if len(word) > 1 and word not in self._common and not word.isdigit()]

    def of(self, text):
        """The nearest results of at most MOST_NEAR papers: [{result, title, summary, statement, score, shared}], `score` the cosine, `shared` the words that make it."""
        counts = Counter(self._words(text))
        if self._vectors is None or not counts:
            return []
        rare = math.log(1 + len(self._results)) + 1  # what a word weighs that no result has
        vocabulary, idf = self._idf.vocabulary_, self._idf.idf_
        weights = {word: (1 + math.log(n)) * (idf[vocabulary[word]] if word in vocabulary else rare) for word, n in counts.items()}
        length = math.hypot(*weights.values())
        query = self._idf.transform([text])
        scores = (query @ self._vectors.T).toarray()[0] * math.hypot(*(w for word, w in weights.items() if word in vocabulary)) / length
        names, nearest, taken = self._idf.get_feature_names_out(), [], set()
        for i in scores.argsort()[::-1]:
            entry, result = self._results[i]
            if scores[i] < NEAR or len(nearest) == MOST_NEAR:
                break
            if entry["slug"] not in taken:
                taken.add(entry["slug"])
                parts = query.multiply(self._vectors[i]).tocoo()
                shared = [str(names[j]) for _, j in sorted(zip(-parts.data, parts.col, strict=True))[:4]]
                nearest.append(
                    {
                        "result": f"{entry['slug']}.{result['name']}",
                        "title": entry["title"],
                        "summary": result["summary"],
                        "statement": result["statement"],
                        "score": round(float(scores[i]), 3),
                        "shared": shared,
                    }
                )
        return nearest


def _document(entry, result):
    twice = [entry["title"], *entry["tags"], result["name"], result["summary"]]
    return " ".join([*twice, *twice, entry["says"], *result["arguments"], result["statement"]])


def _book(entries, board):
    """What the book holds now, to be compared with at the next digest; `board` are the verdicts that count, as Board.rows gives them."""
    papers = {entry["slug"]: [result["name"] for result in entry["results"]] for entry in entries}
    return {
        "papers": papers,
        "findings": {entry["slug"]: entry["findings"] for entry in entries if entry.get("findings")},
        "verdicts": {row["id"]: {name: row["verdict"][name] for name in ("status", "reason", "effort")} for row in board if row["verdict"] and row["paper"] in papers},
    }


def _changes(before, now, entries):
    """(what the book has gained, the verdicts that changed) between two states; against no state before, only counts."""
    titles = {entry["slug"]: entry for entry in entries}
    counts = {"papers": len(now["papers"]), "results": sum(map(len, now["papers"].values())), "findings": sum(map(len, now["findings"].values()))}
    counts |= {"verdicts": {status: sum(v["status"] == status for v in now["verdicts"].values()) for status in STATUSES}}
    if before is None:
        return {"counts": counts, "papers": [], "results": [], "findings": []}, []
    added = [slug for slug in now["papers"] if slug not in before["papers"]]
    book = {
        "counts": counts,
        "papers": [{name: titles[slug][name] for name in ("slug", "title", "says", "tags", "arxiv")} for slug in added],
        "results": [
            {"result": f"{slug}.{name}", "title": titles[slug]["title"]}
            for slug, names in now["papers"].items()
            if slug not in added
            for name in names
            if name not in before["papers"][slug]
        ],
        "findings": [
            {"slug": slug, "title": titles[slug]["title"], "sentence": sentence}
            for slug, sentences in now["findings"].items()
            for sentence in sentences
            if sentence not in before["findings"].get(slug, ())
        ],
    }
    verdicts = []
    for trial, verdict in now["verdicts"].items():
        earlier = before["verdicts"].get(trial, {}).get("status")
        if earlier != verdict["status"]:
            verdicts.append(
                {
                    "trial": trial,
                    "title": titles[trial.partition(".")[0]]["title"],
                    "before": earlier,
                    "now": verdict["status"],
                    "reason": verdict["reason"],
                    "effort": verdict["effort"],
                }
            )
    return book, sorted(verdicts, key=lambda v: (v["before"] is None, v["now"] != "violated", v["trial"]))  # overturned ones first


def _last(store):
    """(when the last digest was made, the book as it was then), or (None, None)."""
    import sqlalchemy as sa

    with store.read() as connection:
        row = connection.execute(sa.select(digests().c.made_at, digests().c.book).order_by(digests().c.id.desc()).limit(1)).first()
    return (row[0], json.loads(row[1])) if row else (None, None)


def keep_digest(digest, store):
    """Keep a digest, whole or not at all, and return it with its number. LawbookError where another was made since it was gathered."""
    import sqlalchemy as sa

    table = digests()
    content = {name: value for name, value in digest.to_dict().items() if name != "id"}
    with store.begin() as connection:
        alone(connection, "digests")
        last = connection.execute(sa.select(table.c.made_at).order_by(table.c.id.desc()).limit(1)).scalar()
        if last != digest.since:
            raise LawbookError("Another digest was made meanwhile: gather once more.")
        row = connection.execute(sa.insert(table).values(made_at=digest.made_at, headline=digest.headline, content=json.dumps(content), book=json.dumps(digest.state)))
        digest.id = row.inserted_primary_key[0]
        for key in dict.fromkeys(key for paper in digest.papers for key in paper["keys"]):
            keep(connection, digest_seen(), {"key": key}, digest=digest.id)
    return digest


def latest(store, most=10):
    """The kept digests, the newest first, at most `most`."""
    import sqlalchemy as sa

    table = digests()
    with store.read() as connection:
        rows = connection.execute(sa.select(table.c.id, table.c.content).order_by(table.c.id.desc()).limit(most)).all()
    return [Digest(**json.loads(content), id=number) for number, content in rows]


def listed(store, most=50, before=None):
    """[(number, when it was made, headline)] of the kept digests, the newest first: at most `most`, below number `before` where it is given."""
    import sqlalchemy as sa

    table = digests()
    query = sa.select(table.c.id, table.c.made_at, table.c.headline).order_by(table.c.id.desc()).limit(most)
    if before is not None:
        query = query.where(table.c.id < min(max(before, 0), 2**31 - 1))
    with store.read() as connection:
        return [tuple(row) for row in connection.execute(query)]


def kept(store, number):
    """The digest with this number; UnknownName without it."""
    import sqlalchemy as sa

    table = digests()
    with store.read() as connection:
        content = connection.execute(sa.select(table.c.content).where(table.c.id == number)).scalar() if 0 < number < 2**31 else None
    if content is None:
        raise UnknownName("digest", number, [row[0] for row in listed(store, 3)])
    return Digest(**json.loads(content), id=number)


def named(store, name, make):
    """A value that the store keeps under a name, made when it is first asked for."""
    import sqlalchemy as sa

    query = sa.select(digest_names().c.value).where(digest_names().c.name == name)
    with store.read() as connection:
        value = connection.execute(query).scalar()
    if value is None:
        with store.begin() as connection:
            keep(connection, digest_names(), {"name": name})  # where two make it at once, one wins
            connection.execute(sa.update(digest_names()).where(digest_names().c.name == name, digest_names().c.value.is_(None)).values(value=make()))
            value = connection.execute(query).scalar()
    return value


def identity(store):
    """What names this store's feed of digests everywhere, for good."""
    return uuid.UUID(named(store, "feed", lambda: str(uuid.uuid4())))
