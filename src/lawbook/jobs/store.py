"""The workbench's one database: SQLite in the records' folder, or PostgreSQL by URL.

Modules declare their tables as functions, so that nothing heavy is imported before it is used:

    @declared
    def likes(sa, metadata):
        return sa.Table("likes", metadata, sa.Column("slug", sa.String, primary_key=True), sa.Column("at", sa.Float))

    with store.begin() as connection:
        keep(connection, likes(), {"slug": "one-epoch"}, at=time.time())
"""

import threading
import zlib
from contextlib import contextmanager
from functools import cache, wraps

from ..contract import LawbookError
from .places import home

FILE = "workbench.sqlite"
PATIENCE = 30  # seconds that a write waits for another
DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}

_DECLARED: list = []
_DECLARING = threading.RLock()


@cache
def metadata():
    """What all tables of the workbench belong to."""
    import sqlalchemy as sa

    return sa.MetaData()


def declared(function):
    """A table by the name of the function that declares it: called without arguments, it returns the one sqlalchemy.Table."""

    @cache
    def declare():
        import sqlalchemy as sa

        return function(sa, metadata())

    @wraps(function)
    def table():
        with _DECLARING:
            return declare()

    _DECLARED.append(table)
    return table


class Store:
    """The database at `url`; its tables are made when it is first used. LawbookError where it cannot be."""

    def __init__(self, url=None):
        self._own = not url or url == f"sqlite:///{home() / FILE}"
        self.url = url or f"sqlite:///{home() / FILE}"
        self._engine = None
        self._made = 0
        self._making = threading.RLock()

    @property
    def engine(self):
        import sqlalchemy as sa

        with self._making:
            if self._engine is None:
                self._engine = self._open()
            if self._made < len(_DECLARED):
                tables = [table() for table in list(_DECLARED)]
                try:
                    with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
                        alone(connection, "tables")  # two servers that start at once make them once
                        metadata().create_all(connection, tables=tables)
                except sa.exc.SQLAlchemyError as error:
                    raise self._refusal(error) from None
                self._made = len(tables)
            return self._engine

    def _open(self):
        import sqlalchemy as sa

        url = url_of(self.url)
        if url.get_backend_name() == "postgresql":
            return postgresql_engine(url, pool_size=10, max_overflow=20)
        if self._own:
            try:
                home().mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LawbookError(f"The workbench keeps its records in {home()}, which cannot be made: {error.strerror}.") from None
        return _sqlite(sa, url)

    def _refusal(self, error):
        import sqlalchemy as sa

        reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
        shown = sa.make_url(self.url).render_as_string(hide_password=True)
        return LawbookError(f"The database {shown} cannot be used: {reason.rstrip('.')}.")

    @contextmanager
    def begin(self):
        """A connection in a transaction that may write: all of it is kept, or nothing."""
        with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self):
        """A connection that reads: never waits for those who write."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    def records(self):
        """The verdicts' records: in this database where it was named, else in the file that the shell keeps them in."""
        from .records import Records

        return Records(None if self._own else self.engine.url.render_as_string(hide_password=False))

    def close(self):
        """Let go of all connections."""
        if self._engine is not None:
            self._engine.dispose()


def url_of(text):
    """The URL of a database as SQLAlchemy takes it. LawbookError unless it is one of SQLite or PostgreSQL."""
    import sqlalchemy as sa

    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        raise LawbookError(f"database must be a URL such as sqlite:///workbench.sqlite or postgresql://user@host/name; it was {text!r}.") from None
    url = url.set(drivername=DRIVERS.get(url.drivername, url.drivername))
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise LawbookError(f"database must be SQLite or PostgreSQL; it was {url.get_backend_name()}.")
    return url


def postgresql_engine(url, **pool):
    """An engine that notices connections which the server has ended."""
    import sqlalchemy as sa

    try:
        return sa.create_engine(url.update_query_dict({"client_encoding": "utf8"}), pool_pre_ping=True, **pool)  # whatever the database was made with
    except ImportError:
        raise LawbookError("PostgreSQL needs the package psycopg, which comes with lawbook[postgresql].") from None


def alone(connection, what):
    """Let no other transaction in that asks for the same before this one has ended. Those that write to SQLite are alone anyway."""
    import sqlalchemy as sa

    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(zlib.crc32(f"lawbook {what}".encode()))))


def keep(connection, table, key, **values):
    """Put `values` into the row with this key (a dict of columns), which is made where there is none."""
    from sqlalchemy.dialects import postgresql, sqlite

    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table).values(**key, **values)
    elements = [table.c[name] for name in key]
    connection.execute(insert.on_conflict_do_update(index_elements=elements, set_=values) if values else insert.on_conflict_do_nothing(index_elements=elements))


def _sqlite(sa, url):
    """An engine whose readers see a settled state while one writes, and whose writers wait for each other."""
    memory = not url.database or url.database == ":memory:"
    more = {"poolclass": sa.pool.StaticPool} if memory else {"pool_size": 10, "max_overflow": 30}
    engine = sa.create_engine(url, connect_args={"timeout": PATIENCE, "check_same_thread": False}, **more)

    @sa.event.listens_for(engine, "connect")
    def settle(raw, _):
        raw.isolation_level = None  # transactions begin below
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            raw.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def start(connection):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine
