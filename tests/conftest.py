import os
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
