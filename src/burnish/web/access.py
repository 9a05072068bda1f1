"""Who may send requests, and the headers every answer carries.

The studio has no sign-in yet, so it is for this machine alone. Two things could still let a web
page from elsewhere in through the user's own browser, and both are turned away here: a foreign name
that resolves to 127.0.0.1 (DNS rebinding: the Host header shows it), and a form or script that
posts across origins (CSRF: Sec-Fetch-Site and Origin show it; see OWASP's CSRF prevention cheat
sheet, "Fetch Metadata").
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

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


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Gate:
    """Turns foreign requests away and adds the headers above where a page set none of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        fault = _fault(scope["method"], Headers(scope=scope))
        app = PlainTextResponse(f"{fault}\n", 403) if fault else self.app
        await app(scope, receive, send_with_headers)


def _fault(method: str, headers: Headers) -> str | None:
    host = headers.get("host", "")
    if not is_loopback(urlsplit(f"//{host}").hostname or ""):
        return f"The studio answers on this machine only, not to the name {host!r}."
    if method in _SAFE_METHODS:
        return None
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    # Neither header means no browser, and so nobody's cookies.
    foreign = (
        site not in ("same-origin", "none") if site else origin not in (None, f"http://{host}")
    )
    return "A page from elsewhere may not write to the studio." if foreign else None
