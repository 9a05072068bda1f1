"""The door of the studio: who is let in, and the headers every answer carries.

Turned away before the body is looked at: a form or script that writes across origins (CSRF:
Sec-Fetch-Site and Origin show it; see OWASP's CSRF prevention cheat sheet, "Fetch Metadata"), a
body too large, and whoever has not shown who they are (identity.py).
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from burnish.errors import UserError
from burnish.web.identity import SAFE_METHODS, Person

SIGN_IN = "/sign-in"
OPENAPI = "/api/openapi.json"

_PUBLIC = (SIGN_IN, OPENAPI)

# No answer comes near it. Files of labels are streamed to disk instead.
_MAX_BODY_BYTES = 16 * 1024 * 1024
_STREAMED = "/import"

_HEADERS = {
    # No inline script or style, nothing from another server, no frame around us.
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The back button must not bring an example that has been answered.
    "Cache-Control": "no-store",
}


class Gate:
    """Lets in whom it knows (ASGI middleware), as `request.state.person`."""

    def __init__(self, app: ASGIApp, identify: Callable[[HTTPConnection], Person | None]) -> None:
        self.app, self.identify = app, identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if scope["path"].startswith("/static/"):
                    headers["Cache-Control"] = "no-cache"  # kept, and asked about: 304
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = await self._refusal(scope) or self.app
        await answer(scope, _limited(scope, receive), send_with_headers)

    async def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if _is_foreign(scope["method"], headers):
            return _error(403, "a page from elsewhere may not write to the studio")
        if scope["path"] not in _PUBLIC and not scope["path"].startswith("/static/"):
            connection = HTTPConnection(scope)
            try:
                connection.state.person = await run_in_threadpool(self.identify, connection)
            except UserError as error:
                return _error(503, str(error))
            if connection.state.person is None:
                return _to_sign_in(connection)
        if _declared_bytes(headers) > _max_bytes(scope):
            return _error(413, f"the request is larger than {_MAX_BODY_BYTES:,} bytes")
        return None


def _to_sign_in(connection: HTTPConnection) -> Response:
    if "text/html" not in connection.headers.get("accept", ""):
        return _error(401, "sign in, or send a token: Authorization: Bearer TOKEN")
    url = connection.url
    back = f"{url.path}?{url.query}" if url.query else url.path
    if connection.scope["method"] != "GET":
        back = "/"
    return RedirectResponse(f"{SIGN_IN}?back={quote(back)}", 303)


def _error(status: int, message: str) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": message}, status, headers)


def _is_foreign(method: str, headers: Headers) -> bool:
    """Whether a page of another origin makes a browser write here."""
    if method in SAFE_METHODS:
        return False
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    # Neither header means no browser, and so nobody's cookies. The scheme is left out: behind a
    # proxy that ends TLS ours is http and the browser's https.
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")


def _declared_bytes(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() else 0


def _max_bytes(scope: Scope) -> float:
    person: Person | None = scope.get("state", {}).get("person")
    # A body is on the disk before a route can ask for a role.
    may_import = person is not None and person.may("admin")
    return float("inf") if scope["path"].endswith(_STREAMED) and may_import else _MAX_BODY_BYTES


def _limited(scope: Scope, receive: Receive) -> Receive:
    """`receive`, until a body that did not say how long it is has become too long."""
    taken = 0

    async def receive_limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > _max_bytes(scope):
            raise HTTPException(413, f"the request is larger than {_MAX_BODY_BYTES:,} bytes")
        return message

    return receive_limited
