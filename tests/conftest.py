import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
os.environ["LAWBOOK_HOME"] = tempfile.mkdtemp(prefix="lawbook-test-")  # tests never touch the user's records
os.environ.setdefault("LAWBOOK_DATA", str(REAL_DATA))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "lawbook-test-compiled"))  # homes of tests are fresh, compiled code need not be


@pytest.fixture(autouse=True)
def fresh_home(tmp_path, monkeypatch):
    monkeypatch.setenv("LAWBOOK_HOME", str(tmp_path / "home"))


@pytest.fixture
def real_data():
    """The folder of the real data; a test that needs it fails and says so where it is missing."""
    place = Path(os.environ["LAWBOOK_DATA"])
    assert place.is_dir(), f"the real data are not in {place}: set LAWBOOK_DATA"
    return place


@pytest.fixture
def shell(capsys):
    """The shell in this process: arguments -> (status, standard output, standard error)."""
    from lawbook.faces.cli import main

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return ended.value.code, out, err

    return call


@pytest.fixture(scope="session")
def postgres():
    """The URL of a PostgreSQL that runs for these tests, without a password on a socket of its own."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin")) + [Path(found).resolve().parent for found in [shutil.which("pg_ctl")] if found]
    if not places:
        pytest.skip("PostgreSQL is not installed here (Debian: postgresql), so the store is tried on SQLite alone")
    folder = Path("/tmp") / f"lawbook-pg-{os.getpid()}"  # sockets have short names
    folder.mkdir()
    user = {}
    if os.geteuid() == 0:  # which PostgreSQL refuses to run as
        shutil.chown(folder, "nobody")
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []}

    def run(program, *arguments):
        environment = {**os.environ, "HOME": str(folder), "LC_ALL": "C"}
        subprocess.run([places[-1] / program, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment, cwd=folder, **user)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    run("initdb", "-D", data, "-U", "lawbook", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c port={port} -c fsync=off"
    run("pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
    yield f"postgresql://lawbook@/postgres?host={folder}&port={port}"
    run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """The URL of an empty database, of SQLite and of PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'here.sqlite'}"
    import sqlalchemy as sa

    url = request.getfixturevalue("postgres")
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium for the tests of a module: two at once do not go together in one process."""
    from playwright.sync_api import sync_playwright

    from browsing import CHROMIUM

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()
