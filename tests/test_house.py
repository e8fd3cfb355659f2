"""The house rules: imports go down only, style and types hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "lawbook"
BELOW = {
    "contract": set(),
    "numerics": {"contract"},
    "trials": {"contract", "numerics"},
    "chapters": {"contract", "numerics", "trials"},
    "artifacts": {"contract", "numerics"},
    "fitting": {"contract", "numerics", "trials"},
    "jobs": {"contract", "numerics", "trials", "chapters", "artifacts", "fitting"},
    "faces": {"contract", "numerics", "trials", "chapters", "artifacts", "fitting", "jobs"},
}
HEAVY = {"scipy", "jax", "numba", "matplotlib", "plotly", "polars", "pandas", "sqlalchemy", "sklearn", "mpmath"}
HEAVY |= {"cvxpy", "PEPit", "torch", "rich", "joblib", "dask", "distributed", "feedparser", "httpx2", "gguf", "pebble"}
FILES = sorted(PACKAGE.glob("*/**/*.py"))


def imported(tree, file):
    """(dotted name, whether at module level) of all imports of a file."""
    for node in ast.walk(tree):
        top = node in tree.body
        if isinstance(node, ast.Import):
            yield from ((alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ["lawbook", *file.relative_to(PACKAGE).parts[:-1]]
            prefix = base[: len(base) - node.level + 1] if node.level else []
            module = ".".join([*prefix, *([node.module] if node.module else [])])
            yield module, top
            if node.level and not node.module:
                yield from ((f"{module}.{alias.name}", top) for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_go_down_only(file):
    room = file.relative_to(PACKAGE).parts[0]
    for name, top in imported(ast.parse(file.read_text()), file):
        parts = name.split(".")
        if parts[0] == "lawbook" and len(parts) > 1 and parts[1] in BELOW and parts[1] != room:
            assert parts[1] in BELOW[room], f"{room} imports {name}"
        if room == "chapters" and parts[:2] == ["lawbook", "chapters"]:
            assert parts[2] == file.parent.name, f"a paper may use another only in its own chapter, not {name}"
        kernels = room == "numerics" and parts[0] == "numba"  # compiled kernels are imported where they are used
        if top and not kernels:
            assert parts[0] not in HEAVY, f"{name} is heavy: import it where it is used"


def test_style():
    for command in (("check",), ("format", "--check")):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, ROOT], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_types():
    done = subprocess.run([sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_lock_names_versions_and_hashes_only():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert all("==" in line for line in pinned) and not any("://" in line or line.startswith("--index") for line in lines)
    assert sum("--hash=sha256:" in line for line in lines) >= len(pinned)
    assert not any(line.startswith(("torch==", "jax-cuda")) for line in pinned)
