"""What readers keep: favourites, likes, feedback, and what has come since their last visit. A reader is a random key in a cookie, nothing more."""

import threading
import time

from ..contract import LawbookError, UnknownName
from .store import declared, keep

MARKS = ("favourite", "like")
AWAY = 1800  # seconds without a request after which a reader's next one is a new visit
LATEST = 60  # seconds by which the time of a visit may lag behind
LONGEST = 5000  # characters of feedback
EVERY = 0.25  # seconds between two counts of likes
REMEMBERED = 10_000  # readers kept in memory


@declared
def visitors(sa, metadata):
    return sa.Table(
        "visitors",
        metadata,
        sa.Column("visitor", sa.String(64), primary_key=True),
        sa.Column("last", sa.Float, nullable=False),
        sa.Column("previous", sa.Float, nullable=False),  # when the visit before this one ended
    )


@declared
def marks(sa, metadata):
    return sa.Table(
        "marks",
        metadata,
        sa.Column("visitor", sa.String(64), primary_key=True),
        sa.Column("slug", sa.String(200), primary_key=True),
        sa.Column("mark", sa.String(20), primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
    )


@declared
def feedback(sa, metadata):
    return sa.Table(
        "feedback",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("visitor", sa.String(64), nullable=False),
        sa.Column("slug", sa.String(200), nullable=False),
        sa.Column("words", sa.Text, nullable=False),
        sa.Column("contact", sa.String(200), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )


@declared
def arrivals(sa, metadata):
    return sa.Table("arrivals", metadata, sa.Column("slug", sa.String(200), primary_key=True), sa.Column("at", sa.Float, nullable=False))


class Shelf:
    """The readers' part of the store; papers are those of `library`."""

    def __init__(self, store, library):
        self.store, self.library = store, library
        self._arrived: dict[str, float] = {}
        self._visits: dict[str, tuple[float, float]] = {}
        self._likes: dict[str, int] = {}
        self._counted = 0.0
        self._lock = threading.Lock()

    def arrived(self):
        """slug -> when this workbench first saw the paper."""
        import sqlalchemy as sa

        slugs = self.library.book().by_slug.keys()
        if slugs - self._arrived.keys():
            with self._lock, self.store.begin() as connection:
                known = dict(connection.execute(sa.select(arrivals().c.slug, arrivals().c.at)).all())
                now = time.time()
                for slug in slugs - known.keys():
                    keep(connection, arrivals(), {"slug": slug}, at=now)
                self._arrived = {**known, **dict.fromkeys(slugs - known.keys(), now)}
        return self._arrived

    def visit(self, visitor):
        """Note that this reader is here, and say when the visit before this one ended."""
        import sqlalchemy as sa

        now = time.time()
        last, previous = self._visits.get(visitor, (0.0, 0.0))
        if now - last < LATEST:
            return previous
        with self._lock, self.store.begin() as connection:
            row = connection.execute(sa.select(visitors().c.last, visitors().c.previous).where(visitors().c.visitor == visitor)).first()
            last, previous = row or (now, now)
            previous = last if now - last > AWAY else previous
            keep(connection, visitors(), {"visitor": visitor}, last=now, previous=previous)
            if len(self._visits) >= REMEMBERED:
                self._visits.clear()
            self._visits[visitor] = now, previous
        return previous

    def fresh(self, visitor):
        """The papers that have come since this reader's last visit."""
        arrived = self.arrived()
        since = self.visit(visitor)
        slugs = self.library.book().by_slug
        return {slug for slug, at in arrived.items() if at > since and slug in slugs}

    def marked(self, visitor):
        """mark -> the papers that this reader gave it."""
        import sqlalchemy as sa

        with self.store.read() as connection:
            rows = connection.execute(sa.select(marks().c.mark, marks().c.slug).where(marks().c.visitor == visitor)).all()
        return {mark: {slug for m, slug in rows if m == mark} for mark in MARKS}

    def likes(self):
        """slug -> how many readers like it."""
        import sqlalchemy as sa

        if time.monotonic() - self._counted < EVERY:
            return self._likes
        with self.store.read() as connection:
            rows = connection.execute(sa.select(marks().c.slug, sa.func.count()).where(marks().c.mark == "like").group_by(marks().c.slug)).all()
        self._likes, self._counted = dict(map(tuple, rows)), time.monotonic()
        return self._likes

    def toggle(self, visitor, slug, mark):
        """Give a paper a mark, or take it away; whether it has it now."""
        import sqlalchemy as sa

        self._known(slug)
        if mark not in MARKS:
            raise UnknownName("mark", mark, MARKS)
        table = marks()
        key = {"visitor": visitor, "slug": slug, "mark": mark}
        with self.store.begin() as connection:
            gone = connection.execute(sa.delete(table).where(*(table.c[name] == value for name, value in key.items()))).rowcount
            if not gone:
                keep(connection, table, key, at=time.time())
        self._counted = 0.0
        return not gone

    def send(self, visitor, slug, words, contact=""):
        """Keep what a reader says of a paper."""
        import sqlalchemy as sa

        self._known(slug)
        words, contact = (text.replace("\0", "").strip() for text in (words, contact))  # which PostgreSQL does not keep
        if not 0 < len(words) <= LONGEST:
            raise LawbookError(f"Feedback must be a text of 1 to {LONGEST:,} characters; it had {len(words):,}.")
        if len(contact) > 200:
            raise LawbookError(f"contact must be a text of at most 200 characters; it had {len(contact):,}.")
        with self.store.begin() as connection:
            connection.execute(sa.insert(feedback()).values(visitor=visitor, slug=slug, words=words, contact=contact, at=time.time()))

    def said(self, most=500):
        """What readers said, the latest first: [{slug, words, contact, at}]."""
        import sqlalchemy as sa

        table = feedback()
        with self.store.read() as connection:
            rows = connection.execute(sa.select(table.c.slug, table.c.words, table.c.contact, table.c.at).order_by(table.c.at.desc()).limit(most)).mappings().all()
        return [dict(row) for row in rows]

    def _known(self, slug):
        if slug not in self.library.book().by_slug:
            raise UnknownName("paper", slug, self.library.book().by_slug)
