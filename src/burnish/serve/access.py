"""Who is let in, and the form of every error."""

from __future__ import annotations

import hmac
import ipaddress
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

# Far above any context length in text; a body is read whole before it is checked.
_MAX_BODY_BYTES = 16 * 1024 * 1024


class ApiError(Exception):
    """An error for the client, in OpenAI's form."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body, self.status)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Gate:
    """Turns requests away before their body is read (ASGI middleware).

    With a key, requests must carry it (`Authorization: Bearer KEY`). Without one the server is for
    this machine alone, and a Host header with another name means that a web page has pointed its
    own name here (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, api_key: str | None) -> None:
        self.app, self.api_key = app, api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it with an error."""
        if scope["type"] == "http" and (error := self._fault(scope["path"], Headers(scope=scope))):
            await error.response()(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _fault(self, path: str, headers: Headers) -> ApiError | None:
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > _MAX_BODY_BYTES:
            return ApiError(f"the request is larger than {_MAX_BODY_BYTES:,} bytes", status=413)
        if self.api_key is None:
            host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
            if not is_loopback(host):
                return ApiError(f"this server does not answer to the name {host!r}", status=403)
        elif path != "/health":
            given = headers.get("authorization", "").encode("latin-1")  # the bytes as they came
            # compare_digest takes as long for a nearly right key as for a wrong one.
            if not hmac.compare_digest(given, f"Bearer {self.api_key}".encode()):
                return ApiError(
                    "the API key is missing or wrong", status=401, code="invalid_api_key"
                )
        return None
