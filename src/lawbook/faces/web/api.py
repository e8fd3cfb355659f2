"""REST: the verbs under /api. Small answers come at once, larger ones as jobs (202 with their address); errors are one sentence, as in the shell."""

import asyncio
import json
import math

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import HTMLResponse, Response

from ...contract import LawbookError, UnknownName, catalogue
from ...contract.encoding import dumps
from ...jobs import queue as queued
from ...jobs.kinds import KINDS
from ...jobs.quick import Busy, Refused, TooLong, encoded
from ...jobs.run import run as evaluate
from ...jobs.run import sweep_of
from ...jobs.solve import solve as invert
from .openapi import BACKGROUND, described, document

MOST_POINTS = 20_000  # of a sweep that is answered at once
MOST_CHARACTERS = 5_000_000  # of an answer that is given at once
PATIENCE = 120.0  # seconds that the description of the whole book may take
SANDBOX = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"

router = APIRouter(prefix="/api", include_in_schema=False)


class Unreadable(LawbookError):
    """A request that is not what this address takes."""

    def __init__(self, sentence, status=422):
        super().__init__(sentence)
        self.status = status


def answer(value, status=200, headers=None):
    """`value`, or text that is JSON already, as the response."""
    return Response(value if isinstance(value, str) else dumps(value), status, headers, "application/json")


def refusal(error):
    """An error as (status, sentence)."""
    if isinstance(error, Unreadable):
        return error.status, str(error)
    if isinstance(error, UnknownName) or (isinstance(error, Refused) and error.unknown):
        return 404, str(error)
    if isinstance(error, queued.WrongState):
        return 409, str(error)
    return 503 if isinstance(error, Busy) else 422, str(error)


def address(path, methods=("GET",)):
    """Route an endpoint whose LawbookErrors become responses."""

    def declare(endpoint):
        async def answered(request: Request):
            try:
                return await endpoint(request, **request.path_params)
            except LawbookError as error:
                status, sentence = refusal(error)
                return answer({"error": sentence}, status, {"Retry-After": "5"} if status == 503 else None)

        router.add_api_route(path, answered, methods=list(methods), name=endpoint.__name__)
        return endpoint

    return declare


async def body_of(request):
    """The JSON object that was sent; Unreadable says why there is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    raw = await request.body()
    if not raw and not kind:
        return {}
    if kind != "application/json":
        raise Unreadable(f"The body must be JSON, sent as application/json; it was sent as {kind or 'nothing in particular'}.", 415)
    return read_json(raw)


def read_json(raw):
    try:
        given = json.loads(raw, parse_constant=_no_number)
        dumps(given).encode()  # halves of surrogate pairs cannot be written again
    except json.JSONDecodeError as error:
        raise Unreadable(f"The body must be a JSON object; the JSON breaks off or is wrong at line {error.lineno}, column {error.colno}.") from None
    except (ValueError, RecursionError):
        raise Unreadable("The body must be a JSON object in UTF-8, not nested too deeply and without numbers that JSON does not have.") from None
    if not isinstance(given, dict):
        raise Unreadable(f"The body must be a JSON object from names to values; it was a {type(given).__name__}.")
    return given


def _no_number(word):
    raise ValueError(word)


def whole(request, name, default, least, most=2**31 - 1):
    """A whole number in the query."""
    given = request.query_params.get(name, str(default))
    if not (given.isascii() and given.isdecimal() and len(given) < 12 and least <= int(given) <= most):
        raise Unreadable(f"{name} must be a whole number from {least} to {most}; it was {given[:40]!r}.")
    return int(given)


def chosen(request, name, known):
    given = request.query_params.get(name) or None
    if given is not None and given not in known:
        raise Unreadable(str(UnknownName(name, given[:80], known)))
    return given


# the book


@address("/openapi.json")
async def openapi(request):
    """Of the whole book, or of one `paper`."""
    slug = request.query_params.get("paper") or None
    stamps = tuple(file.stat().st_mtime_ns for _, file in (await run_in_threadpool(catalogue.files)).values())
    kept = request.app.state.__dict__.setdefault("described", {})
    if kept.get("stamps") != stamps:
        kept.clear()
        kept["stamps"] = stamps
    if slug not in kept:
        text = await outcome(request, document, slug, seconds=PATIENCE)
        if slug is not None:
            return answer(text)
        kept[slug] = text
    return answer(kept[slug])


@address("/find")
async def find(request):
    start, most = whole(request, "start", 0, 0), whole(request, "most", 50, 1, 1000)

    def search():
        book = request.app.state.library.book()
        known = {**book.counts, "argument": {a for e in book.entries for r in e["results"] for a in r["arguments"]}}
        asked = {name: chosen(request, name, known[name]) for name in ("tag", "kind", "chapter", "argument")}
        words = request.query_params.get("words", "")[:1000]
        kept = {entry["slug"] for entry in book.select(**asked)}
        found = [entry for entry in (book.search(words) if words.strip() else book.entries) if entry["slug"] in kept]
        return answer({"total": len(found), "papers": found[start : start + most]})

    return await run_in_threadpool(search)


@address("/show/{name}")
async def show(request, name):
    return answer(await run_in_threadpool(described, name))


@address("/run/{name}", ("GET", "POST"))
async def run(request, name):
    result = await run_in_threadpool(catalogue.result, name)
    given = await body_of(request) if request.method == "POST" else dict(request.query_params)
    return await at_once_or_later(request, "run", {"result": result.id, "arguments": given}, small_run, result.id, given)


@address("/solve/{name}", ("POST",))
async def solve(request, name):
    result = await run_in_threadpool(catalogue.result, name)
    given = await body_of(request)
    if unknown := set(given) - {"unknown", "target", "field", "arguments"}:
        raise Unreadable(f"solve takes unknown, target, field and arguments; it was given {', '.join(sorted(unknown))}.")
    options = {"field": None, "arguments": {}, **given}
    if not isinstance(options.get("unknown"), str) or isinstance(options.get("target"), bool) or not isinstance(options.get("target"), int | float | str):
        raise Unreadable("solve needs unknown, the name of a numeric argument, and target, a number.")
    if not isinstance(options["arguments"], dict) or not isinstance(options["field"], str | None):
        raise Unreadable("arguments must be an object from names to values, and field the name of a field.")
    return await at_once_or_later(request, "solve", {"result": result.id, **options}, small_solve, result.id, options)


def small_run(identifier, given):
    """`run` as JSON text; TooLong where it belongs into the queue. In a process of its own."""
    result = catalogue.result(identifier)
    points = math.prod(len(axis) for name, value in given.items() if name in result.arguments and (axis := sweep_of(value, name, result.arguments[name])) is not None)
    if points > MOST_POINTS:
        raise TooLong(f"Sweeps of more than {MOST_POINTS:,} points wait for their turn; this one has {points:,}.")
    return encoded(evaluate, MOST_CHARACTERS, result, given)


def small_solve(identifier, options):
    """`solve` as JSON text."""
    return encoded(invert, MOST_CHARACTERS, identifier, options["unknown"], target=options["target"], field=options["field"], arguments=options["arguments"])


async def at_once_or_later(request, kind, options, function, *arguments):
    """The answer, or the job that will give it."""
    try:
        return answer(await outcome(request, function, *arguments))
    except TooLong as error:
        if request.method != "POST":
            raise Unreadable(f"{error} Send it with POST to have it done in the background.") from None
        return await begun(request, kind, options, reason=str(error))
    except Refused as error:
        raise Unreadable(str(error)) from None  # whatever it was, this address exists


async def outcome(request, function, *arguments, seconds=None):
    """What a process of its own answers; pages go on meanwhile."""
    quick = request.app.state.quick
    future = quick.submit(function, *arguments, seconds=seconds)
    waited = asyncio.wrap_future(future)
    await asyncio.wait([waited])
    if not waited.cancelled():
        waited.exception()  # is seen here, and told by `outcome`
    return quick.outcome(future)


# jobs


async def begun(request, kind, options, files=(), **more):
    """A new job, as the response."""
    queue = request.app.state.queue
    job = await run_in_threadpool(queue.submit, kind, options, files)
    found = linked(await run_in_threadpool(queue.get, job, whole=False))
    return answer({**found, **more}, 202, {"Location": found["href"]})


def linked(job):
    return {**job, "href": f"/api/jobs/{job['id']}", "page": f"/jobs/{job['id']}"}


def _begin(kind):
    async def begin(request):
        if request.headers.get("content-type", "").startswith("multipart/form-data") and KINDS[kind].uploads:
            options, files = await form_of(request)
            return await begun(request, kind, options, files)
        options = await body_of(request)
        table = options.pop("table", None) if KINDS[kind].uploads else None
        if table is not None and not isinstance(table, dict | list):
            raise Unreadable("table must be an object of columns or a list of records.")
        return await begun(request, kind, options, [] if table is None else [("table.json", dumps(table).encode())])

    begin.__name__ = kind
    address(f"/{kind}", ("POST",))(begin)


for _kind in BACKGROUND:
    _begin(_kind)


async def form_of(request):
    """(options, tables) of a form; a list where an option was given several times."""
    form = await request.form()
    options: dict = {}
    files = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name != "table":
                raise Unreadable(f"Tables are sent as `table`; one was sent as {name[:80]!r}.")
            if value.filename:
                files.append((value.filename, value.file))
        elif name not in ("csrf", "table"):
            options[name] = [*(options[name] if isinstance(options[name], list) else [options[name]]), value] if name in options else value
    return options, files


@address("/jobs")
async def jobs(request):
    asked = {
        "kind": chosen(request, "kind", KINDS),
        "state": chosen(request, "state", queued.STATES),
        "start": whole(request, "start", 0, 0),
        "most": whole(request, "most", 50, 1, 1000),
    }
    found, total = await run_in_threadpool(lambda: request.app.state.queue.list(**asked))
    return answer({"total": total, "jobs": [linked(job) for job in found]})


@address("/jobs/{job}")
async def job(request, job):
    return answer(linked(await run_in_threadpool(request.app.state.queue.get, job)))


@address("/jobs/{job}", ("DELETE",))
async def forget(request, job):
    await run_in_threadpool(request.app.state.queue.forget, job)
    return Response(None, 204)


@address("/jobs/{job}/events")
async def job_events(request, job):
    after = whole(request, "after", 0, 0)

    def read():
        state = request.app.state.queue.get(job, whole=False)
        return answer({"job": linked(state), "events": request.app.state.queue.events(job, after)})

    return await run_in_threadpool(read)


@address("/jobs/{job}/cancel", ("POST",))
async def cancel(request, job):
    def stop():
        request.app.state.queue.cancel(job)
        return answer(linked(request.app.state.queue.get(job, whole=False)), 202)

    return await run_in_threadpool(stop)


@address("/jobs/{job}/report")
async def job_report(request, job):
    return await report_page(request, job)


async def report_page(request, job):
    """The page about what a job has made, as a document without scripts, forms or an origin."""
    page = await run_in_threadpool(request.app.state.queue.report, job)
    if page is None:
        raise Unreadable(f"The job {job} has made no page.", 404)
    return HTMLResponse(page, headers={"Content-Security-Policy": SANDBOX})
