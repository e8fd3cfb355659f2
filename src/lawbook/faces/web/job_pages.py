"""The pages of jobs: what can be done in the background, how far it is, what came of it, and how two jobs differ."""

import math
import time
from contextlib import suppress

from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse

from ...artifacts.devices import DEVICES
from ...contract import LawbookError, UnknownName, catalogue
from ...contract.numbers import show_number
from ...jobs import queue as queued
from ...jobs.kinds import KINDS, kind_of
from ...jobs.run import unit_of
from .. import notebook
from . import forms
from .api import form_of, refusal, report_page
from .openapi import addresses
from .rendering import render
from .security import POLICY

CHILD = "lawbook.faces.web.job_child"  # the module that does jobs and draws their pages
FORMS = ("fit", "plan", "audit", "log", "verify")  # kinds that have a form of their own here; run and solve have those of results
LEADS = {
    "fit": "Which law of the book fits your training runs, how sure are its constants, and what does it predict for runs that it has not seen?",
    "plan": "What to train with a budget: parameters, tokens, batch size and schedule, with the cost of deviating.",
    "audit": "What the book says of a model on this machine: its weights, its configuration, what it costs to serve.",
    "log": "What judgments, samples, log-probabilities, logits, rewards, records or a training curve let anyone conclude, with what certainty, and what they do not tell.",
    "verify": "Put claims of the book on trial here.",
}
EXAMPLE = "rope-base-region.slowest_phase"
TABLES = ".csv,.tsv,.txt,.parquet,.jsonl,.ndjson,.json,.gz,.npz,.npy"
PER_PAGE = 30
MOST_REMARKS = 200
MOST_COMPARED = 400  # rows
FRAMED = POLICY + "; frame-src 'self'"

router = APIRouter(include_in_schema=False)


@router.get("/jobs")
def history(request: Request):
    """All jobs, the newest first."""
    kind, state = (request.query_params.get(name) or None for name in ("kind", "state"))
    if kind and kind not in KINDS:
        raise UnknownName("kind of job", kind, KINDS)
    if state and state not in queued.STATES:
        raise UnknownName("state", state, queued.STATES)
    given = request.query_params.get("page", "1")
    page = int(given) if given.isascii() and given.isdecimal() and 0 < len(given) < 7 else 1
    found, total = request.app.state.queue.list(kind=kind, state=state, start=(max(page, 1) - 1) * PER_PAGE, most=PER_PAGE)
    return render(
        request,
        "jobs.html",
        jobs=[_shown(job) for job in found],
        total=total,
        page=page,
        pages=max(math.ceil(total / PER_PAGE), 1),
        kind=kind or "",
        state=state or "",
        kinds=KINDS,
        states=queued.STATES,
        forms=FORMS,
        leads=LEADS,
    )


@router.get("/jobs/new/{kind}")
def new(request: Request, kind: str):
    """The form of a kind of job, filled with what the query gives."""
    return _form(request, kind, dict(request.query_params))


@router.post("/jobs/new/{kind}")
async def begin(request: Request, kind: str):
    """A new job; its form again, with a sentence, where something is wrong."""
    if kind not in FORMS:
        raise UnknownName("kind of job", kind, FORMS)
    given, files = await form_of(request)
    options = {name: value for name, value in given.items() if value != ""}
    try:
        job = await run_in_threadpool(request.app.state.queue.submit, kind, options, files)
    except LawbookError as error:
        status, sentence = refusal(error)
        return await run_in_threadpool(_form, request, kind, given, sentence, 422 if status == 404 else status)
    return RedirectResponse(f"/jobs/{job}", 303)


def _form(request, kind, given, wrong="", status=200):
    if kind not in FORMS:
        raise UnknownName("kind of job", kind, FORMS)
    of = kind_of(kind)
    queue = request.app.state.queue
    given = {name: value if isinstance(value, str) else ", ".join(map(str, value)) for name, value in given.items()}
    return render(
        request,
        "job_new.html",
        status,
        kind=of,
        lead=LEADS[kind],
        fields=forms.fields(of, given),
        several=of.uploads > 1,
        tables=TABLES,
        most=f"{queue.limits.upload / 2**20:g} MiB",
        folders=queue.folders,
        known={"device": list(DEVICES)},
        wrong=wrong,
    )


@router.get("/jobs/compare")
def compare(request: Request):
    """Two jobs beside each other: options and results that differ."""
    chosen = request.query_params.getlist("job")
    if len(chosen) != 2:
        raise LawbookError(f"Two jobs can be compared; {len(chosen)} {'was' if len(chosen) == 1 else 'were'} chosen.")
    queue = request.app.state.queue
    sides = sorted((queue.get(job) for job in chosen), key=lambda side: side["made"])
    parts = []
    for title, key in (("Options", "options"), ("Result", "result")):
        first, second = (flat(side.get(key) or {}) for side in sides)
        rows = [(name, first.get(name, ""), second.get(name, "")) for name in dict.fromkeys([*first, *second])]
        differing = [(name, _cell(a), _cell(b), _change(a, b)) for name, a, b in rows if not _same(a, b)]
        parts.append({"title": title, "rows": differing[:MOST_COMPARED], "more": max(len(differing) - MOST_COMPARED, 0), "same": len(rows) - len(differing)})
    return render(request, "job_compare.html", sides=[_shown(side) for side in sides], parts=parts)


@router.get("/jobs/{job}")
def job_page(request: Request, job: str):
    """How far a job is, or what came of it."""
    queue = request.app.state.queue
    found = queue.get(job)
    has_report = found["state"] == "done" and queue.report(job) is not None
    names = [entry["name"] for entry in found["files"]]
    remarks = queue.recent(job, MOST_REMARKS)
    page = render(
        request,
        "job.html",
        job=_shown(found),
        lasts=found["state"] not in queued.ENDED,
        meaning=queued.STATES[found["state"]],
        files=found["files"],
        options=[(name, _cell(value)) for name, value in found["options"].items() if value not in (None, "", {}, []) and name != "arguments"],
        arguments=[(name, _cell(value)) for name, value in (found["options"].get("arguments") or {}).items()],
        command=kind_of(found["kind"]).command(found["options"], names),
        remarks=[{**event, "at": time.strftime("%H:%M:%S", time.localtime(event["at"]))} for event in remarks],
        last=remarks[-1]["number"] if remarks else 0,
        has_report=has_report,
        result=_result(found) if found["state"] == "done" else "",
        verdicts=[_verdict(v) for v in (found["result"] or {}).get("verdicts", [])] if found["kind"] == "verify" else [],
        limits=queue.limits,
    )
    if has_report:
        page.headers["Content-Security-Policy"] = FRAMED
    return page


@router.post("/jobs/{job}/{deed}")
def change(request: Request, job: str, deed: str):
    """Stop a job, begin it again, or remove it."""
    queue = request.app.state.queue
    if deed == "stop":
        with suppress(queued.WrongState):  # it was done before the button was pressed, as its page will say
            queue.cancel(job)
    elif deed == "again":
        job = queue.again(job)
    elif deed == "remove":
        queue.forget(job)
        return RedirectResponse("/jobs", 303)
    else:
        raise UnknownName("thing to do with a job", deed, ("stop", "again", "remove"))
    return RedirectResponse(f"/jobs/{job}", 303)


@router.get("/jobs/{job}/report")
async def report(request: Request, job: str):
    """The page about what a job has made, in a box: no script, no form, no origin; it may be framed by the job's own page."""
    page = await report_page(request, job)
    page.headers["Content-Security-Policy"] = page.headers["Content-Security-Policy"].replace("frame-ancestors 'none'", "frame-ancestors 'self'")
    page.headers["X-Frame-Options"] = "SAMEORIGIN"
    return page


@router.get("/api")
def api_page(request: Request):
    """How the verbs are asked over HTTP."""
    server = request.app.state.settings.address
    json = "-H 'Content-Type: application/json' -d"
    examples = [
        ("Search", f"curl '{server}/api/find?words=context+length'"),
        ("What is known of a result", f"curl {server}/api/show/{EXAMPLE}"),
        ("Evaluate it", f"curl '{server}/api/run/{EXAMPLE}?base=500k&head_dim=128&context_length=128Ki'"),
        ("A sweep", f"""curl {server}/api/run/{EXAMPLE} {json} '{{"base": "1e4:1e7:log:50", "head_dim": 128, "context_length": "128Ki"}}'"""),
        ("Solve it", f"""curl {server}/api/solve/{EXAMPLE} {json} '{{"unknown": "base", "target": 3.14, "arguments": {{"head_dim": 128, "context_length": "128Ki"}}}}'"""),
        ("Fit laws to a table", f"curl {server}/api/fit -F table=@runs.csv -F holdout=0.2"),
        ("Plan a training run", f"""curl {server}/api/plan {json} '{{"compute": "1e24"}}'"""),
        ("Put a paper on trial", f"""curl {server}/api/verify {json} '{{"names": ["rope-base-region"]}}'"""),
    ]
    return render(request, "job_api.html", examples=examples, addresses=addresses(), token=request.app.state.settings.token is not None)


def _shown(job):
    """A job as the pages show it."""
    end = job["ended"] or time.time()
    lasted = f"{end - job['begun']:.1f} s" if job["begun"] else ""
    done = f"{job['done']:g} of {job['total']:g}" if job["done"] is not None and job["total"] else f"{job['done']:g}" if job["done"] else ""
    return {**job, "lasted": lasted, "so_far": done, "what": KINDS[job["kind"]].title}


def _cell(value):
    if isinstance(value, str | bool) or value is None:
        return str(value)
    if isinstance(value, int | float):
        return show_number(value)
    text = str(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _numeric(*values):
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _same(before, after):
    """Whether two entries are equal, numbers to twelve digits."""
    return before == after or (_numeric(before, after) and math.isclose(before, after, rel_tol=1e-12))


def _change(before, after):
    """By how much a number has changed."""
    return f"{100 * (after / before - 1):+.3g} %" if _numeric(before, after) and before else ""


def flat(value, path=""):
    """A nested answer as one dict, "a.b[2]" -> leaf."""
    if isinstance(value, dict):
        parts = ((f"{path}.{key}" if path else str(key), inner) for key, inner in value.items())
    elif isinstance(value, list) and value:
        parts = ((f"{path}[{_label(inner, i)}]", inner) for i, inner in enumerate(value))
    else:
        return {path: value}
    found = {}
    for name, inner in parts:
        found |= flat(inner, name)
    return found


def _label(entry, number):
    """What an entry of a list is called: the law, the trial or the name of a record, else its number."""
    if isinstance(entry, dict):
        return entry.get("law") or entry.get("trial") or entry.get("name") or number + 1
    return number + 1


def _verdict(verdict):
    return {**verdict, "id": f"{verdict['paper']}.{verdict['trial']}", "href": f"/verdict/{verdict['paper']}/{verdict['trial']}"}


def _result(job):
    """The HTML of what came of a job: its numbers as tables."""
    found = job["result"]
    if job["kind"] == "run":
        result = catalogue.result(found["result"])
        if "rows" in found:
            body = notebook.table(found["rows"], {name: unit_of(result, name) for name in found["rows"]})
        elif isinstance(found["value"], dict):
            body = notebook.table({"": list(flat(found["value"])), "value": list(flat(found["value"]).values())})
        else:
            body = f"<p><b>{notebook.cell(found['value'], found['unit'])}</b></p>"
        return Markup(body + notebook.cautions(found["cautions"]))
    if job["kind"] == "solve":
        roots = ", ".join(notebook.cell(root, found["unit"]) for root in found["roots"])
        return Markup(f"<p><b>{notebook.cell(found['unknown'])} = {roots}</b></p>" if roots else f"<p>No solution: {notebook.cell(found['reason'])}</p>")
    if job["kind"] == "fit" and "fits" in found:
        columns = {
            "law": [fit["law"] for fit in found["fits"]],
            "held-out error": [f"{100 * fit['test']['relative_error']:.3g} %" if fit.get("test") else "" for fit in found["fits"]],
            "rms residual": [fit["rms"] for fit in found["fits"]],
        }
        return Markup(notebook.table(columns) + "".join(f"<p>{notebook.cell(sentence)}</p>" for sentence in found["said"]))
    if job["kind"] == "plan":
        quantities = found["quantities"]
        columns = {"": list(quantities), **{key: [q[key] for q in quantities.values()] for key in ("value", "low", "high", "unit")}}
        return Markup(notebook.table(columns) + notebook.cautions(found["warnings"]))
    return ""
