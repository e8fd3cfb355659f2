"""Verdicts on disk, so that an interrupted round goes on where it stopped."""

import hashlib
import json
import time
import warnings
from functools import cache
from pathlib import Path

from ..contract import Verdict, catalogue
from ..trials.judge import versions
from .places import home


class Records:
    """The verdicts kept under `url` (SQLite in the records' folder by default). A store that cannot be used costs a warning, never a verdict."""

    def __init__(self, url=None):
        self._url = url
        self._engine = None
        self._broken = False

    def _table(self):
        import sqlalchemy as sa

        columns = [sa.Column(name, sa.String, primary_key=True) for name in ("trial", "effort", "fingerprint")]
        return sa.Table("verdicts", sa.MetaData(), *columns, sa.Column("seed", sa.String, primary_key=True), sa.Column("verdict", sa.Text), sa.Column("kept_at", sa.Float))

    def _connect(self):
        import sqlalchemy as sa

        if self._engine is None:
            if self._url is None:
                home().mkdir(parents=True, exist_ok=True)
            self._engine = sa.create_engine(self._url or f"sqlite:///{home() / 'records.sqlite'}")
            self._table().metadata.create_all(self._engine)
        return self._engine

    def keep(self, trial, verdict):
        import sqlalchemy as sa

        def write(connection):
            table = self._table()
            key = {"trial": trial.id, "effort": verdict.effort, "fingerprint": fingerprint(trial), "seed": str(verdict.seed)}
            connection.execute(sa.delete(table).where(*(table.c[name] == value for name, value in key.items())))
            connection.execute(sa.insert(table).values(**key, verdict=json.dumps(verdict.to_dict()), kept_at=time.time()))

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

    def _try(self, work):
        if self._broken:
            return None
        import sqlalchemy as sa

        try:
            with self._connect().begin() as connection:
                return work(connection)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            self._broken = True
            reason = str(getattr(error, "orig", None) or error).split("\n")[0]
            warnings.warn(f"Verdicts are shown but not kept: the records in {self._url or home()} cannot be used ({reason}).", stacklevel=3)
            return None


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
