"""What every request passes: the name of the host, the token, the origin, the size of what is sent; and the headers of every answer."""

import hashlib
import hmac
import re
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"x-frame-options": b"DENY",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    b"cache-control": b"no-store",
}
SAFE = ("GET", "HEAD", "OPTIONS")
OPEN = ("/login", "/static/", "/digest/confirm/", "/digest/unsubscribe/")  # what needs no token: the last two carry signed ones of their own
VISITOR, CSRF, SESSION = "lawbook_visitor", "lawbook_csrf", "lawbook_session"
YEAR = 365 * 24 * 3600
KEY = re.compile(r"[A-Za-z0-9_-]{16,64}")


class TooLarge(HTTPException):
    """More was sent than may be."""


class Guard:
    """The outermost layer of the server. `request.state` gets `visitor`, `known` (the browser has been here) and `csrf`."""

    def __init__(self, app, settings):
        self.app, self.settings = app, settings
        self._most = f"At most {settings.upload_limit / 2**20:.3g} MiB can be sent at once."

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        cookies = read_cookies(headers.get("cookie", ""))
        state = scope.setdefault("state", {})
        state["known"] = KEY.fullmatch(cookies.get(VISITOR, "")) is not None
        state["visitor"] = cookies[VISITOR] if state["known"] else secrets.token_urlsafe(18)
        has_csrf = KEY.fullmatch(cookies.get(CSRF, "")) is not None
        state["csrf"] = cookies[CSRF] if has_csrf else secrets.token_urlsafe(24)
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        state["bearer"] = self.settings.token is not None and hmac.compare_digest(bearer.encode(), self.settings.token.encode())
        missing = {name: state[key] for name, key, there in ((VISITOR, "visitor", state["known"]), (CSRF, "csrf", has_csrf)) if not there}
        if _api(scope["path"]) or scope["path"].startswith("/static/"):
            missing = {}

        async def answer(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": self._headers(message["headers"], missing)}
            await send(message)

        refused = self._refuse(scope, headers, cookies, state)
        if refused is not None:
            await refused(scope, receive, answer)
            return
        sent = 0
        limit = self.settings.upload_limit

        async def measured():
            nonlocal sent
            message = await receive()
            sent += len(message.get("body", b""))
            if sent > limit:
                raise TooLarge(413, self._most)
            return message

        begun = False
        bare = scope["method"] == "HEAD"  # is asked as GET and answered without what the page holds

        async def watched(message):
            nonlocal begun
            begun = True
            await answer({**message, "body": b""} if bare and message["type"] == "http.response.body" else message)

        try:
            await self.app({**scope, "method": "GET"} if bare else scope, measured, watched)
        except TooLarge:
            if not begun:
                await self._too_large(scope)(scope, receive, answer)

    def _refuse(self, scope, headers, cookies, state):
        """The answer to a request that goes no further, or None."""
        path, method = scope["path"], scope["method"]
        if not self.settings.names_host(headers.get("host", "")):
            return _sentence(path, 400, "This server is not known by that name; give --base-url when it is started under another.")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.settings.upload_limit:
            return self._too_large(scope)
        origin = headers.get("origin")
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site") or (
            origin is not None and urlsplit(origin).netloc not in (headers.get("host"), urlsplit(self.settings.address).netloc)
        )
        if method not in SAFE and foreign:
            return _sentence(path, 403, "Another site may not send anything to this server.")
        if self.settings.token is None or state["bearer"] or hmac.compare_digest(cookies.get(SESSION, "").encode(), session_of(self.settings.token).encode()):
            return None
        if path == OPEN[0] or (path.startswith(OPEN[1:]) and ".." not in path):
            return None
        if _api(path) or method not in SAFE:
            return _sentence(path, 401, "This server asks for a token: send the header Authorization: Bearer TOKEN.", {"www-authenticate": "Bearer"})
        return RedirectResponse("/login", 303)

    def _too_large(self, scope):
        return _sentence(scope["path"], 413, self._most)

    def _headers(self, given, missing):
        present = {name.lower() for name, _ in given}
        added = [(name, value) for name, value in HEADERS.items() if name not in present]
        secure = "; Secure" if self.settings.address.startswith("https:") else ""
        return [*given, *added, *((b"set-cookie", f"{name}={value}; Path=/; Max-Age={YEAR}; HttpOnly; SameSite=Lax{secure}".encode()) for name, value in missing.items())]


def read_cookies(header):
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}


def session_of(token):
    """What the cookie of a logged-in browser holds: it proves the token without containing it."""
    return hmac.new(token.encode(), b"lawbook session", hashlib.sha256).hexdigest()


def _api(path):
    return path == "/api" or path.startswith("/api/")


def _sentence(path, status, sentence, headers=None):
    return JSONResponse({"error": sentence}, status, headers) if _api(path) else PlainTextResponse(sentence, status, headers)


async def check_csrf(request: Request):
    """Refuses an unsafe request of a browser that does not repeat its cookie in the form's field `csrf` or in the header X-CSRF-Token. A dependency of the whole app."""
    if request.method in SAFE or request.state.bearer:
        return
    if _api(request.url.path) and not request.headers.get("cookie"):
        return
    given = request.headers.get("x-csrf-token", "")
    if not given and request.headers.get("content-type", "").startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
        field = (await request.form()).get("csrf", "")
        given = field if isinstance(field, str) else ""
    if not hmac.compare_digest(given.encode(), request.state.csrf.encode()):
        raise HTTPException(403, "The form is too old or was not made by this server: load the page again and send it once more.")
