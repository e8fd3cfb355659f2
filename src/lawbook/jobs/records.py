"""Verdicts on disk, so that an interrupted round goes on where it stopped."""

import hashlib
import json
import time
import warnings
from functools import cache
from pathlib import Path

from ..contract import LawbookError, Verdict, catalogue
from ..trials.judge import versions
from .places import home
from .store import alone, keep, postgresql_engine, url_of

PAUSE = 30  # seconds after which a store that could not be used is tried again


class Records:
    """The verdicts kept under `url` (SQLite in the records' folder by default). A store that cannot be used costs a warning, never a verdict."""

    def __init__(self, url=None):
        self._url = url
        self._engine = None
        self._again = 0.0  # when a store that has failed is tried again

    def _table(self):
        import sqlalchemy as sa

        columns = [sa.Column(name, sa.String, primary_key=True) for name in ("trial", "effort", "fingerprint", "seed")]
        return sa.Table("verdicts", sa.MetaData(), *columns, sa.Column("verdict", sa.Text), sa.Column("kept_at", sa.Float))

    def _connect(self):
        import sqlalchemy as sa

        if self._engine is None:
            if self._url is None:
                home().mkdir(parents=True, exist_ok=True)
            url = url_of(self._url or f"sqlite:///{home() / 'records.sqlite'}")
            engine = postgresql_engine(url) if url.get_backend_name() == "postgresql" else sa.create_engine(url)
            with engine.begin() as connection:
                alone(connection, "verdicts")  # two that begin at once make the table once
                connection.execute(sa.schema.CreateTable(self._table(), if_not_exists=True))
            self._engine = engine
        return self._engine

    def keep(self, trial, verdict):
        """Keep a verdict, instead of an earlier one on the same trial with the same seed, effort and code."""

        def write(connection):
            key = {"trial": trial.id, "effort": verdict.effort, "fingerprint": fingerprint(trial), "seed": str(verdict.seed)}
            keep(connection, self._table(), key, verdict=json.dumps(verdict.to_dict()), kept_at=time.time())

        self._try(write)

    def find(self, trial, seed, effort):
        """The verdict kept for this trial, seed and effort, made by the code as it is now; None without one."""
        import sqlalchemy as sa

        def read(connection):
            table = self._table()
            key = {"trial": trial.id, "effort": effort, "fingerprint": fingerprint(trial), "seed": str(seed)}
            row = connection.execute(sa.select(table.c.verdict).where(*(table.c[name] == value for name, value in key.items()))).first()
            return Verdict.from_dict(json.loads(row[0])) if row else None

        return self._try(read)

    def kept(self, trial=None):
        """[(trial, fingerprint, verdict as a dict, when it was kept)], the latest first: of one trial ("slug.trial") or of all."""
        import sqlalchemy as sa

        table = self._table()
        asked = sa.select(table.c.trial, table.c.fingerprint, table.c.verdict, table.c.kept_at).order_by(table.c.kept_at.desc())
        asked = asked if trial is None else asked.where(table.c.trial == trial)
        rows = self._try(lambda connection: connection.execute(asked).all()) or []
        return [(name, code, json.loads(verdict), at) for name, code, verdict, at in rows]

    def stamp(self):
        """What is another once a verdict has been kept; None where none can be read."""
        import sqlalchemy as sa

        table = self._table()
        return self._try(lambda connection: tuple(connection.execute(sa.select(sa.func.count(), sa.func.max(table.c.kept_at)).select_from(table)).one()))

    def _try(self, work):
        if time.monotonic() < self._again:
            return None
        import sqlalchemy as sa

        try:
            with self._connect().begin() as connection:
                return work(connection)
        except (sa.exc.SQLAlchemyError, OSError, LawbookError) as error:
            self._again = time.monotonic() + PAUSE
            reason = str(getattr(error, "orig", None) or error).split("\n")[0].rstrip(".")
            warnings.warn(f"Verdicts are shown but not kept: the records in {self._shown()} cannot be used ({reason}).", stacklevel=3)
            return None

    def _shown(self):
        """Where the records are, without a password."""
        try:
            return url_of(self._url).render_as_string(hide_password=True) if self._url else home()
        except LawbookError:
            return self._url


@cache
def _code(paths):
    digest = hashlib.sha256()
    for path in paths:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:24]


def fingerprint(trial):
    """What a verdict depends on besides its seed: the paper's file, the code it stands on, and the versions of the libraries."""
    package = Path(catalogue.__file__).parents[1]
    shared = sorted(str(p) for folder in ("trials", "numerics", "contract") for p in (package / folder).glob("*.py"))
    file = str(catalogue.files()[trial.paper.slug][1])
    return _code((file, *shared)) + "-" + hashlib.sha256(json.dumps(versions()).encode()).hexdigest()[:8]
