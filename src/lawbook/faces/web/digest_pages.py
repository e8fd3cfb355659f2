"""The digest in the browser: the latest, those before, an Atom feed, and the way in and out for subscribers."""

from fastapi import APIRouter, Form, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from ...contract import LawbookError
from ...jobs import digest as gathering
from ...jobs import mail, subscribers
from .. import digest_views
from .rendering import render

router = APIRouter(include_in_schema=False)
PER_PAGE = 50
SIGNED = ("/digest/confirm/", "/digest/unsubscribe/")  # their links are signed, so they need neither the server's token nor a cookie


@router.get("/digest")
def latest(request: Request, page: int = 1):
    found = gathering.latest(request.app.state.store, 1)
    return _page(request, found[0] if found else None, page)


@router.get("/digest/archive")
def archive(request: Request, before: int | None = None):
    found = gathering.listed(request.app.state.store, PER_PAGE + 1, before)
    return render(request, "digest_archive.html", digests=found[:PER_PAGE], more=found[PER_PAGE - 1][0] if len(found) > PER_PAGE else None)


@router.get("/digest/feed.xml")
def feed(request: Request):
    state = request.app.state
    text = digest_views.atom(gathering.latest(state.store), gathering.identity(state.store), state.settings.address)
    return Response(text, media_type="application/atom+xml")


@router.get("/digest/{number:int}")
def one(request: Request, number: int, page: int = 1):
    return _page(request, gathering.kept(request.app.state.store, number), page)


def _page(request, digest, page):
    relay, problem = _relay()
    return render(
        request,
        "digest.html",
        shown=digest_views.shown(digest, "", page=min(max(page, 1), 1000)) if digest else None,
        number=digest.id if digest else None,
        mail=relay is not None,
        problem=problem,
    )


def _relay():
    """(the Relay of this server or None, what is wrong with its settings)."""
    try:
        return mail.Relay.from_settings(), ""
    except LawbookError as error:
        return None, str(error)


@router.post("/digest/subscribe")
def subscribe(request: Request, email: str = Form("", max_length=1000)):
    state = request.app.state
    relay, problem = _relay()
    try:
        if relay is None:
            raise LawbookError(problem or "This server sends no mail: follow the Atom feed instead.")
        subscribers.ask(state.store, relay, email, state.settings.address, digest_views.request_mail)
    except LawbookError as error:
        status = 429 if isinstance(error, subscribers.TooMany) else 502 if isinstance(error, mail.MailError) else 400
        return _said(request, "Subscribe", str(error), status)
    return _said(
        request,
        "Look into your mail",
        "A mail with a link is on its way to this address. The subscription begins when the link is opened and confirmed; it is good for three days.",
    )


async def confirmation(request: Request):
    """Shows a button, as programs open the links of mails, too; pressing it confirms."""
    store, token = request.app.state.store, request.path_params["token"]
    if request.method != "POST":
        await run_in_threadpool(subscribers.read_token, store, token, subscribers.CONFIRM)
        return await run_in_threadpool(_said, request, "Confirm the subscription", "The digest of lawbook will come to your mail address.", button="Confirm")
    await run_in_threadpool(subscribers.confirm, store, token)
    return await run_in_threadpool(_said, request, "You are subscribed", "The next digest comes by mail. Every mail has a link that ends the subscription with one click.")


async def ending(request: Request):
    """A mail program ends the subscription by posting here (RFC 8058); a reader who opens the link presses a button."""
    store, token = request.app.state.store, request.path_params["token"]
    if request.method != "POST":
        await run_in_threadpool(subscribers.read_token, store, token, subscribers.UNSUBSCRIBE)
        return await run_in_threadpool(_said, request, "Unsubscribe", "No more digests will come to your mail address.", button="Unsubscribe")
    await run_in_threadpool(subscribers.unsubscribe, store, token)
    return await run_in_threadpool(_said, request, "You are unsubscribed", "Your mail address is forgotten. No more digests will come.")


# plain routes, so that the check of forms by cookie does not apply: a mail program has no cookies, and the signed link is the proof
router.add_route(SIGNED[0] + "{token}", confirmation, methods=["GET", "POST"])
router.add_route(SIGNED[1] + "{token}", ending, methods=["GET", "POST"])


def _said(request, title, sentence, status=200, button=""):
    return render(request, "digest_said.html", status, title=title, sentence=sentence, button=button)
