"""Pages from templates. `render` is what every page of the workbench answers with."""

import hashlib
import re
import threading
import time
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path

import jinja2
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from ...contract.numbers import show_number
from .. import notebook

STATIC = Path(__file__).parent / "static"
THEMES = ("light", "dark")
THEME, LAYOUT = "lawbook_theme", "lawbook_layout"


@cache
def environment():
    """Templates of the workbench; everything that is put into them is escaped."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("lawbook.faces", "templates/web"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(number=show_number, mathml=mathml, cell=lambda v, unit="": Markup(notebook.cell(v, unit)), date=date, prose=prose)
    made.globals.update(version=metadata.version("lawbook"), static=static)
    return made


def render(request, template, status=200, headers=None, /, **content):
    """The page of a template. It may use csrf, theme, path, fresh (papers that are new to this visitor) besides `content`."""
    theme = request.cookies.get(THEME)
    text = (
        environment()
        .get_template(template)
        .render(csrf=request.state.csrf, theme=theme if theme in THEMES else "", path=request.url.path, fresh=_fresh(request), search=content.pop("search", ""), **content)
    )
    return HTMLResponse(text, status, headers)


def _fresh(request):
    shelf = getattr(request.app.state, "shelf", None)
    return len(shelf.fresh(request.state.visitor)) if shelf and request.state.known else 0


_CONVERTING = threading.Lock()


@lru_cache(4096)
def mathml(latex):
    """A formula, converted once, by one thread at a time: the converter is imported when it is first used."""
    with _CONVERTING:
        return Markup(notebook.mathml(latex))


def prose(text):
    """Words with `names` in them, these as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def date(at):
    """A time as the day it was."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at else ""


@cache
def static(name):
    """The address of a file under static/, which changes with what it holds."""
    return f"/static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"
