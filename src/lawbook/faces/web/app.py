"""The server: its parts, put together."""

import threading
from contextlib import asynccontextmanager, suppress

from fastapi import Depends, FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as PlainHTTPException
from starlette.responses import JSONResponse
from starlette.staticfiles import StaticFiles

from ...contract import LawbookError, UnknownName, catalogue
from ...jobs.board import Board
from ...jobs.browse import Library
from ...jobs.live import Live
from ...jobs.queue import Queue
from ...jobs.quick import Quick
from ...jobs.shelf import Shelf
from ...jobs.store import Store
from . import api, digest_pages, job_pages, pages
from .rendering import STATIC, render
from .security import Guard, check_csrf
from .settings import Settings

__all__ = ["Settings", "create_app"]
FOREVER = "public, max-age=31536000, immutable"


class Static(StaticFiles):
    """Files whose addresses change with what they hold, so that a browser may keep them."""

    async def get_response(self, path, scope):
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = FOREVER
        return response


def create_app(settings=None):
    """The workbench as an ASGI app. `app.state` has settings, store, queue, quick, live, library, shelf and board."""
    settings = settings or Settings()
    store = Store(settings.database)
    queue = Queue(store, folders=settings.folders, limits=settings.limits, child=job_pages.CHILD)
    quick = Quick(settings.live_workers, settings.live_seconds, settings.live_memory)
    library, live = Library(), Live(quick)

    @asynccontextmanager
    async def lifespan(app):
        queue.start()
        threading.Thread(target=_warm, args=(live, library), daemon=True).start()
        yield
        queue.stop()
        quick.stop()
        store.close()

    app = FastAPI(title="lawbook", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(check_csrf)])
    app.state.settings, app.state.store, app.state.queue = settings, store, queue
    app.state.quick, app.state.live = quick, live
    app.state.library, app.state.shelf, app.state.board = library, Shelf(store, library), Board(library, store.records())
    for part in (pages, job_pages, api, digest_pages):
        app.include_router(part.router)
    app.mount("/static", Static(directory=STATIC))
    app.add_middleware(Guard, settings=settings)
    app.add_exception_handler(LawbookError, _refused)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(PlainHTTPException, _failed)
    return app


def _warm(live, library):
    """What the first readers would wait for: processes, the index, the papers themselves."""
    with suppress(Exception):  # who closes the book at once wants no report of it; who reads it is told by the first answer
        live.warm()
    for slug in library.book().by_slug:
        with suppress(Exception):  # a paper that breaks says so on its own page
            catalogue.paper(slug)


async def _refused(request, error):
    return _answer(request, 404 if isinstance(error, UnknownName) else 400, str(error))


async def _unreadable(request, error):
    said = "; ".join(f"{'.'.join(str(part) for part in entry['loc'][1:]) or 'the request'}: {entry['msg']}" for entry in error.errors()[:3])
    return _answer(request, 422, f"The request cannot be read: {said}.")


async def _failed(request, error: HTTPException):
    sentence = (
        {404: "There is no such page.", 405: "This page cannot be asked in that way."}.get(error.status_code) if error.detail in ("Not Found", "Method Not Allowed") else None
    )
    return _answer(request, error.status_code, sentence or str(error.detail), getattr(error, "headers", None))


def _answer(request, status, sentence, headers=None):
    if request.url.path.startswith("/api"):
        return JSONResponse({"error": sentence}, status, headers)
    return render(request, "error.html", status, headers, status=status, sentence=sentence)
