"""The book: every file under the chapters folders that declares a `paper`, found by walking them; nothing is registered by hand."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

from .errors import UnknownName

PACKAGE = "lawbook.chapters"
EXTRA = "LAWBOOK_CHAPTERS"  # more folders of chapters, separated as in PATH: a reader's own papers


def folders():
    """(package name, folder) of the book's own chapters and of the reader's."""
    own = Path(__file__).resolve().parent.parent / "chapters"
    extra = [Path(p) for p in os.environ.get(EXTRA, "").split(os.pathsep) if p]
    return [(PACKAGE, own)] + [(f"lawbook_chapters_{i}", folder) for i, folder in enumerate(extra)]


def files():
    """slug -> (module name, file), in the order of chapters and names; a paper is found without importing any."""
    found = {}
    for package, folder in folders():
        for file in sorted(folder.glob("*/*.py")):
            if not file.name.startswith("_"):
                found[file.stem.replace("_", "-")] = (f"{package}.{file.parent.name}.{file.stem}", file)
    return found


def paper(slug):
    known = files()
    if slug not in known:
        raise UnknownName("paper", slug, known)
    return _load(*known[slug])


def papers():
    return [_load(module, file) for module, file in files().values()]


def result(identifier):
    """The result `slug.name`; a slug alone will do where its paper has one result."""
    slug, _, name = identifier.partition(".")
    found = paper(slug)
    if not name and len(found.results) == 1:
        name = next(iter(found.results))
    if name not in found.results:
        raise UnknownName(f"result of {slug}", name, [f"{slug}.{known}" for known in found.results])
    return found.results[name]


def _load(module, file):
    if module.startswith(PACKAGE + "."):
        loaded = importlib.import_module(module)
    elif module in sys.modules:
        loaded = sys.modules[module]
    else:
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec and spec.loader
        loaded = sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    return loaded.paper
