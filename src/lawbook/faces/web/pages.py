"""The catalogue, the papers with their live forms, the board of verdicts, the feed, and what readers leave behind."""

import asyncio
import hmac
import math
import re
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Form, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from ...contract import LawbookError, UnknownName, catalogue
from ...contract.encoding import dumps
from ...contract.paper import KINDS, SOURCES, described
from ...jobs.board import MEANINGS, UNTRIED
from ...jobs.browse import newest_first
from ...jobs.live import Superseded
from ...jobs.quick import Refused, TooLong
from ...jobs.run import Sweep, unit_of
from ..cli import RUN_OPTIONS, SOLVE_OPTIONS
from . import forms
from .pictures import picture, range_plot
from .rendering import LAYOUT, THEME, THEMES, render
from .security import SESSION, YEAR, session_of

router = APIRouter(include_in_schema=False)
PER_PAGE = 24
SORTS = {"relevance": "Most relevant first", "newest": "Newest first", "title": "By title", "likes": "Most liked first", "chapter": "By chapter"}
LAYOUTS = ("cards", "list")
FILTERS = ("q", "tag", "chapter", "kind", "source", "verdict", "argument", "mine", "sort")
MINE = {"favourite": "My favourites", "like": "What I like", "new": "New since my last visit"}
MOST_ROWS = 40
UNASKED = 1.5  # seconds for an answer that a page shows on its own
LONGEST_JSON = 20_000  # characters, beyond which the value is left out of the JSON to copy
QUANTILES = ("least", "lower_quartile", "median", "upper_quartile", "largest")


# The catalogue


@router.get("/")
def catalogue_page(request: Request, part: str = ""):
    return _catalogue(request, dict(request.query_params), part)


@router.get("/tag/{tag}")
def tag_page(request: Request, tag: str, part: str = ""):
    _known("tag", tag, request)
    return _catalogue(request, {**request.query_params, "tag": tag}, part)


@router.get("/chapter/{chapter}")
def chapter_page(request: Request, chapter: str, part: str = ""):
    _known("chapter", chapter, request)
    return _catalogue(request, {**request.query_params, "chapter": chapter}, part)


def _known(what, name, request):
    known = request.app.state.library.book().counts[what]
    if name not in known:
        raise UnknownName(what, name, known)


def _catalogue(request, query, part):
    state, visitor = request.app.state, request.state.visitor
    book = state.library.book()
    chosen = {name: query.get(name, "").strip()[:200] for name in FILTERS}
    words = chosen["q"]
    marked = state.shelf.marked(visitor) if request.state.known else {"favourite": set(), "like": set()}
    fresh = state.shelf.fresh(visitor) if request.state.known else set()
    slugs = {"new": fresh, **marked}.get(chosen["mine"])
    statuses = state.board.statuses()
    likes = state.shelf.likes()
    kept = book.select(**{name: chosen[name] for name in ("tag", "chapter", "kind", "source", "argument")}, slugs=slugs)
    if chosen["verdict"]:
        kept = [e for e in kept if chosen["verdict"] in statuses.get(e["slug"], ())]
    sort = chosen["sort"] if chosen["sort"] in SORTS else "relevance" if words else "newest"
    if words:
        inside = {e["slug"] for e in kept}
        kept = [e for e in book.search(words) if e["slug"] in inside]
    if sort != "relevance" or not words:
        kept = _sorted(kept, sort, likes)
    pages = max(math.ceil(len(kept) / PER_PAGE), 1)
    number = min(max(int(query["page"]) if query.get("page", "").isdecimal() and len(query["page"]) < 7 else 1, 1), pages)
    shown = kept[(number - 1) * PER_PAGE : number * PER_PAGE]
    layout = request.cookies.get(LAYOUT)
    own = {name: value for name, value in chosen.items() if value and name in request.query_params}

    def address(**more):
        changed = {name: value for name, value in {**own, **more}.items() if value}
        return request.url.path + (f"?{urlencode(changed)}" if changed else "")

    return render(
        request,
        "papers.html" if part == "papers" else "catalogue.html",
        search=words,
        chosen=chosen,
        sort=sort,
        sorts=SORTS,
        entries=shown,
        total=len(kept),
        whole=len(book.entries),
        number=number,
        pages=pages,
        address=address,
        layout=layout if layout in LAYOUTS else "cards",
        marked=marked,
        fresh_slugs=fresh,
        likes=likes,
        statuses={e["slug"]: _tally(statuses.get(e["slug"], [])) for e in shown},
        counts=book.counts,
        kind_options=[(k, f"{k} ({book.counts['kind'][k]})") for k in KINDS if k in book.counts["kind"]],
        chapter_options=[(c, f"{c} ({n})") for c, n in sorted(book.counts["chapter"].items())],
        meanings_options=[(status, status) for status in MEANINGS],
        sources=SOURCES,
        mine=MINE,
        back=_here(request),
    )


def _sorted(entries, sort, likes):
    if sort == "title":
        return sorted(entries, key=lambda e: e["title"].lower())
    if sort == "chapter":
        return sorted(entries, key=lambda e: (e["chapter"], e["slug"]))
    newest = newest_first(entries)
    return sorted(newest, key=lambda e: -likes.get(e["slug"], 0)) if sort == "likes" else newest


def _tally(statuses):
    """[(status, how many)] in the order of their meanings."""
    return [(status, statuses.count(status)) for status in MEANINGS if status in statuses]


def _here(request):
    """Where a reader is sent back to after a form."""
    query = "&".join(pair for pair in request.url.query.split("&") if pair and not pair.startswith("part="))
    return request.url.path + (f"?{query}" if query else "")


# A paper


@router.get("/paper/{slug}")
def paper_page(request: Request, slug: str):
    return _paper(request, slug, None, {})


@router.get("/paper/{slug}/{name}")
def result_page(request: Request, slug: str, name: str):
    return _paper(request, slug, name, dict(request.query_params))


@router.post("/paper/{slug}/{name}")
async def result_page_posted(request: Request, slug: str, name: str):
    """Inputs too long for an address, and those that come as files."""
    parameters = await _posted(request)
    return await asyncio.to_thread(_paper, request, slug, name, parameters)


@router.get("/live/{slug}/{name}")
def live(request: Request, slug: str, name: str):
    return _live(request, slug, name, dict(request.query_params))


@router.post("/live/{slug}/{name}")
async def live_posted(request: Request, slug: str, name: str):
    parameters = await _posted(request)
    return await asyncio.to_thread(_live, request, slug, name, parameters)


async def _posted(request):
    """The fields of a form; a file `NAME.file` stands for the field NAME."""
    form = await request.form()
    parameters = {key: value for key, value in form.items() if isinstance(value, str) and key != "csrf"}
    for key, value in form.items():
        if not isinstance(value, str) and value.filename:
            try:
                parameters[key.removesuffix(".file")] = (await value.read()).decode("utf-8-sig")
            except UnicodeDecodeError:
                raise LawbookError(f"The file for {key.removesuffix('.file')} must be text: numbers, CSV or JSON in UTF-8.") from None
    return parameters


def _result(slug, name):
    return catalogue.result(f"{slug}.{name}")


def _paper(request, slug, focus, parameters):
    state, visitor = request.app.state, request.state.visitor
    paper = catalogue.paper(slug)
    if focus is not None:
        _result(slug, focus)
    book = state.library.book()
    results = []
    for result in paper.results.values():
        active = result.name == focus
        given, controls = forms.read(result, parameters) if active else ({}, {})
        texts = forms.as_text(given, result)
        results.append(
            {
                "result": result,
                "form": forms.fields(result, texts if active and parameters else None),
                "controls": {name: controls.get(name, "") for name in forms.CONTROLS},
                "axes": forms.axes(result),
                "usual": _axis(result, controls, active and parameters),
                "numeric": forms.numeric_fields(result.returns),
                "bounds": {n: [forms.human(end, result.arguments[n].unit) for end in result.arguments[n].bounds()] for n in forms.axes(result)},
                "returns": described(result.returns),
                "answer": _answered(request, result, given, controls) if active and parameters else None,
                "python_only": any(f.kind == "python" and f.required for f in forms.fields(result)),
            }
        )
    marked = state.shelf.marked(visitor) if request.state.known else {"favourite": set(), "like": set()}
    rows = {row["trial"]: row for row in state.board.rows() if row["paper"] == slug}
    return render(
        request,
        "paper.html",
        paper=paper,
        results=results,
        focus=focus,
        source=SOURCES[paper.source],
        trials=[(trial, rows.get(trial.name)) for trial in paper.trials.values()],
        near=book.near(slug) if slug in book.by_slug else [],
        marked=marked,
        likes=state.shelf.likes().get(slug, 0),
        points=forms.POINTS,
        back=_here(request) if request.method == "GET" else f"/paper/{slug}",
        said=request.query_params.get("said") == "1",
    )


def _axis(result, controls, given):
    """The argument that a plot goes through, "" for no plot: what was asked for, or the usual one where nothing was asked."""
    name = controls.get("_x", "") if given else forms.usual_axis(result)
    return name if name in forms.axes(result) else ""


def _live(request, slug, name, parameters):
    result = _result(slug, name)
    try:
        given, controls = forms.read(result, parameters)
    except LawbookError as error:
        return render(request, "answer.html", a=_nothing(result, str(error)))
    try:
        return render(request, "answer.html", a=_answered(request, result, given, controls))
    except Superseded:
        return Response(status_code=204)


def _nothing(result, problem):
    return {
        "result": result,
        "problem": problem,
        "heavy": False,
        "value": None,
        "cautions": [],
        "picture": "",
        "rows": None,
        "solution": None,
        "link": None,
        "given": {},
        "no_plot": "",
    }


def _answered(request, result, given, controls):
    """What a page says of these inputs: the value, the picture of a sweep, the solution, and how to say the same elsewhere."""
    said = _nothing(result, "")
    said |= {"given": given, "link": forms.link(result, given, controls), "ranges": forms.as_text(given, result)}
    field = controls.get("_field") if controls.get("_field") in forms.numeric_fields(result.returns) else None
    hurried = request.query_params.get("_auto") == "1"
    page = request.headers.get("x-page", "")[:60]  # of the script that asks while a reader types
    ask = request.app.state.live.ask((page, result.id) if page else None, UNASKED if hurried else None)
    solving, plotted = None, None
    try:
        if controls.get("_solve") and controls.get("_target"):
            solving = (controls["_solve"], controls["_target"], field or _first_field(result))
            rest = {name: value for name, value in given.items() if name != solving[0]}
            try:
                said["solution"] = ask.solve(result.id, *solving, rest)
                said["cautions"] += said["solution"].cautions
            except (Refused, TooLong) as error:
                said["unsolved"] = str(error)
        answer = ask.run(result.id, given)
        said["cautions"] += answer.cautions
        if isinstance(answer, Sweep):
            said["rows"], said["picture"] = _rows(answer.rows, result), _picture(answer, field)
        else:
            said["value"], said["picture"] = _value(answer), picture(answer)
            if controls.get("_x") and forms.numeric_fields(result.returns):
                plotted = _plot(ask, result, given, controls, field, said)
    except TooLong as error:
        said |= {"problem": f"{error} Compute waits for up to {request.app.state.quick.seconds:g} s." if hurried else str(error), "heavy": not hurried}
    except Superseded:
        raise
    except LawbookError as error:
        said["problem"] = str(error)
    said["cautions"] = list(dict.fromkeys(said["cautions"]))
    said["copies"] = _copies(result, given, plotted or given, solving, said)
    return said


def _plot(ask, result, given, controls, field, said):
    """Add the picture of a sweep to what is said, or why there is none; the arguments with the sweep in them."""
    try:
        name, values, by, others = forms.swept(result, given, controls)
        ranges = {**given, name: values, **({by: others} if by else {})}
        sweep = ask.draw(result.id, name, values, by, others, given)
    except TooLong as error:
        said |= {"no_plot": f"There is no plot: {error}", "ranges": forms.as_text(ranges, result)}
    except Refused as error:
        said["no_plot"] = f"There is no plot: {error}"
    else:
        said["picture"], said["rows"] = _picture(sweep, field), _rows(sweep.rows, result)
        said["cautions"] += [sentence for sentence in sweep.cautions if sentence not in said["cautions"]]
        return ranges
    return None


def _first_field(result):
    names = forms.numeric_fields(result.returns)
    return names[0] if names and names[0] else None


def _picture(sweep, field):
    try:
        return picture(sweep, field)
    except LawbookError as error:
        return str(error)
    except ValueError:  # an answer whose field has the name of the argument hides it
        return "There is nothing to draw: the answer's entries are no single numbers."


def _value(answer):
    """The value as a page shows it: {"one": (value, unit)}, {"record": [(name, value, unit)]} or {"rows": columns}."""
    result = answer.result
    columns = answer.columns()
    if not isinstance(answer.value, dict) and all(len(c) == 1 for c in columns.values()) and len(columns) == 1:
        return {"one": (next(iter(columns.values()))[0], result.returns.unit)}
    if all(len(c) == 1 for c in columns.values()):
        return {"record": [(name.replace("_", " "), c[0], unit_of(result, name)) for name, c in columns.items()]}
    return {"rows": _rows(columns, result)}


def _rows(columns, result):
    rows = list(zip(*columns.values(), strict=True))
    return {"names": [(name.replace("_", " "), unit_of(result, name)) for name in columns], "rows": rows[:MOST_ROWS], "more": max(len(rows) - MOST_ROWS, 0)}


def _copies(result, given, ranges, solving, said):
    """name -> text to copy."""
    rest = {name: value for name, value in given.items() if name != solving[0]} if solving else ranges
    shown = {"result": result.id, "arguments": forms.typed(result, rest)}
    if solving:
        shown |= {"unknown": solving[0], "target": solving[1]} | ({"field": solving[2]} if solving[2] else {})
        if said["solution"]:
            shown |= {"roots": said["solution"].roots}
    elif said["value"] and "one" in said["value"]:
        shown |= {"value": said["value"]["one"][0], "unit": said["value"]["one"][1]}
    elif said["value"] and "record" in said["value"]:
        shown |= {"value": {name.replace(" ", "_"): value for name, value, _ in said["value"]["record"]}}
    return {
        "Python": forms.python_code(result, rest, solving),
        "Shell": forms.shell_command(result, rest, solving, SOLVE_OPTIONS if solving else RUN_OPTIONS),
        "JSON": text if len(text := dumps(shown, indent=1)) <= LONGEST_JSON else dumps({key: value for key, value in shown.items() if key != "value"}, indent=1),
        "BibTeX": result.paper.bibtex(),
    }


# Verdicts


@router.get("/verdicts")
def verdicts_page(request: Request, status: str = "", chapter: str = "", form: str = "", q: str = "", page: str = "1"):
    rows = request.app.state.board.rows()
    words = q.lower().split()
    kept = [
        row
        for row in rows
        if (not chapter or row["chapter"] == chapter)
        and (not form or row["form"] == form)
        and all(word in f"{row['id']} {row['title']}".lower().replace("_", " ").replace("-", " ") or word in row["id"] for word in words)
    ]
    counts = {name: sum(row["status"] == name for row in kept) for name in MEANINGS}
    kept = [row for row in kept if not status or row["status"] == status]
    pages = max(math.ceil(len(kept) / 100), 1)
    number = min(max(int(page) if page.isdecimal() and len(page) < 7 else 1, 1), pages)
    chosen = {"status": status, "chapter": chapter, "form": form, "q": q}

    def address(**more):
        changed = {name: value for name, value in {**chosen, **more}.items() if value}
        return "/verdicts" + (f"?{urlencode(changed)}" if changed else "")

    return render(
        request,
        "verdicts.html",
        rows=kept[(number - 1) * 100 : number * 100],
        total=len(kept),
        whole=len(rows),
        counts=counts,
        meanings=MEANINGS,
        status_options=[(status, status) for status in MEANINGS],
        chapter_options=[(name, name) for name in sorted({row["chapter"] for row in rows})],
        form_options=[(name, name) for name in sorted({row["form"] for row in rows})],
        chosen=chosen,
        number=number,
        pages=pages,
        address=address,
    )


@router.get("/verdict/{slug}/{name}")
def verdict_page(request: Request, slug: str, name: str, made: str = ""):
    paper = catalogue.paper(slug)
    if name not in paper.trials:
        raise UnknownName(f"trial of {slug}", name, paper.trials)
    trial = paper.trials[name]
    history = request.app.state.board.history(trial.id)
    row = next((row for row in request.app.state.board.rows() if row["id"] == trial.id), None)
    counted = (row["verdict"], row["kept_at"]) if row and row["verdict"] else (None, None)
    chosen = next((entry for entry in history if made and f"{entry[1]:.6f}" == made), None) or next((entry for entry in history if (entry[0].to_dict(), entry[1]) == counted), None)
    verdict = chosen[0] if chosen else None
    return render(
        request,
        "verdict.html",
        paper=paper,
        trial=trial,
        results=[paper.results[n] for n in trial.results if n in paper.results],
        verdict=verdict,
        kept_at=chosen[1] if chosen else None,
        stale=chosen[2] if chosen else False,
        status=verdict.status if verdict else UNTRIED,
        meaning=MEANINGS[verdict.status if verdict else UNTRIED],
        ranges=_ranges(verdict) if verdict else [],
        worst=_worst(paper, trial, verdict) if verdict else {"rows": [], "sides": "", "opens": []},
        history=history,
    )


def _ranges(verdict):
    """Pictures of the numbers that a trial measured over its draws."""
    groups: dict[str, dict] = {}
    for key, value in verdict.tightness.items():
        for quantile in QUANTILES:
            if key.endswith(f"_{quantile}") and isinstance(value, int | float):
                groups.setdefault(key.removesuffix(f"_{quantile}"), {})[quantile] = float(value)
    drawn = []
    for name, found in groups.items():
        if len(found) == len(QUANTILES):
            bound = (1.0, "allowed at most") if name in ("tightness", "deviation", "achieved_over_promised") else None
            words = {"deviation": "deviation, in units of what is allowed", "tightness": "smaller side / larger side", "achieved_over_promised": "achieved / promised"}
            drawn.append(
                range_plot(
                    [(name.replace("_", " "), [found[q] for q in QUANTILES])],
                    words.get(name, name.replace("_", " ")),
                    title=f"{name.replace('_', ' ')} over the draws",
                    log=True,
                    mark=bound,
                )
            )
    return [svg for svg in drawn if svg]


SIDES = (("computed", "claimed"), ("smaller", "larger"), ("achieved", "promised"), ("error", "baseline_error"))


def _worst(paper, trial, verdict):
    """The worst case: its rows, a picture of its two sides, and the addresses of the forms of results that take its inputs."""
    from .pictures import line_plot

    worst = verdict.worst
    sides = next(((left, right) for left, right in SIDES if left in worst and right in worst), None)
    drawn = ""
    if sides:
        values = [_numbers(worst[side]) for side in sides]
        if all(values) and len(values[0]) == len(values[1]) and len(values[0]) > 1:
            drawn = line_plot(
                [(side, list(range(1, len(v) + 1)), v) for side, v in zip(sides, values, strict=True)],
                "comparison",
                "value",
                title=" against ".join(sides) + " in the worst case",
                log_y=True,
            )
        elif all(len(v) == 1 for v in values):
            drawn = range_plot([(side, v) for side, v in zip(sides, values, strict=True)], "value", title=" against ".join(sides) + " in the worst case")
    opens = []
    for name in trial.results:
        result = paper.results.get(name)
        inputs = {key: worst[key] for key in result.arguments if key in worst and isinstance(worst[key], int | float | str | list)} if result else {}
        if result and inputs:
            needed = [key for key in result.arguments if key not in result.defaults]
            address = forms.link(result, {key: forms.shown(value, result.arguments[key]) for key, value in inputs.items()}, {})
            if address and all(key in inputs for key in needed):
                opens.append((result, address))
    return {"rows": list(worst.items()), "sides": drawn, "opens": opens}


def _numbers(value):
    value = value.get("value") if isinstance(value, dict) else value
    value = value if isinstance(value, list) else [value]
    return [float(v) for v in value] if all(isinstance(v, int | float) for v in value) else []


@router.post("/verdict/{slug}/{name}")
def try_here(request: Request, slug: str, name: str, seed: str = Form("0"), effort: str = Form("quick")):
    """Put a claim on trial in the background."""
    paper = catalogue.paper(slug)
    if name not in paper.trials:
        raise UnknownName(f"trial of {slug}", name, paper.trials)
    job = request.app.state.queue.submit("verify", {"names": [f"{slug}.{name}"], "seed": seed, "effort": effort})
    return RedirectResponse(f"/jobs/{job}", 303)


@router.post("/background/{slug}/{name}")
async def run_in_background(request: Request, slug: str, name: str):
    """Leave a heavy answer to a job."""
    parameters = await _posted(request)
    result = _result(slug, name)
    given, _ = forms.read(result, parameters)
    job = await asyncio.to_thread(request.app.state.queue.submit, "run", {"result": result.id, "arguments": given})
    return RedirectResponse(f"/jobs/{job}", 303)


# What readers leave


@router.post("/paper-mark/{slug}")
def mark(request: Request, slug: str, mark: str = Form(), back: str = Form("/")):
    """Make a paper a favourite or like it, or take that back."""
    on = request.app.state.shelf.toggle(request.state.visitor, slug, mark)
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"on": on, "likes": request.app.state.shelf.likes().get(slug, 0)})
    return RedirectResponse(_local(back), 303)


@router.post("/feedback/{slug}")
def send_feedback(request: Request, slug: str, words: str = Form(""), contact: str = Form("")):
    request.app.state.shelf.send(request.state.visitor, slug, words, contact)
    return RedirectResponse(f"/paper/{slug}?said=1#feedback", 303)


@router.get("/feedback")
def feedback_page(request: Request):
    return render(request, "feedback.html", messages=request.app.state.shelf.said(), titles={e["slug"]: e["title"] for e in request.app.state.library.book().entries})


@router.post("/settings")
def keep_settings(request: Request, theme: str = Form(None), layout: str = Form(None), back: str = Form("/")):
    """Remember the colours and the layout that a reader chose."""
    response = RedirectResponse(_local(back), 303)
    if theme is not None:
        response.set_cookie(THEME, theme if theme in THEMES else "", max_age=YEAR, httponly=True, samesite="lax")
    if layout in LAYOUTS:
        response.set_cookie(LAYOUT, layout, max_age=YEAR, httponly=True, samesite="lax")
    return response


def _local(address):
    """An address of this server, whatever was sent."""
    parts = urlsplit(address)
    return address if address.startswith("/") and not address.startswith(("//", "/\\")) and not parts.netloc and "\n" not in address and "\r" not in address else "/"


@router.get("/login")
def login_page(request: Request):
    return render(request, "login.html", wrong=False) if request.app.state.settings.token else RedirectResponse("/", 303)


@router.post("/login")
async def login(request: Request, token: str = Form("")):
    wanted = request.app.state.settings.token
    if not wanted or not hmac.compare_digest(token.strip().encode(), wanted.encode()):
        await asyncio.sleep(0.5)  # guessing shall not be quick
        return render(request, "login.html", 403, wrong=True)
    response = RedirectResponse("/", 303)
    response.set_cookie(SESSION, session_of(wanted), max_age=YEAR, httponly=True, samesite="lax", secure=request.app.state.settings.address.startswith("https:"))
    return response


# The feed


@router.get("/feed.xml")
def feed(request: Request, tag: str = "", chapter: str = ""):
    """The newest papers as Atom, of a tag or a chapter where one is named."""
    state = request.app.state
    arrived = state.shelf.arrived()
    entries = state.library.book().select(tag=tag, chapter=chapter)
    newest = sorted(newest_first(entries), key=lambda e: -arrived.get(e["slug"], 0.0))[:50]
    query = urlencode({name: value for name, value in (("tag", tag), ("chapter", chapter)) if value})
    moments = {e["slug"]: datetime.fromtimestamp(arrived.get(e["slug"], 0.0), UTC).isoformat(timespec="seconds") for e in newest}
    page = render(
        request,
        "feed.xml",
        entries=newest,
        moments=moments,
        updated=max(moments.values(), default=datetime.fromtimestamp(0, UTC).isoformat()),
        address=state.settings.address,
        query=query,
        subject=" ".join(filter(None, [chapter, tag])),
        printable=lambda text: re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text),
    )
    return Response(page.body, media_type="application/atom+xml")
