"""Who sends a request, and what they may do.

Nothing but the sign-in page, its style and the API's description is answered before `Gate`
(access.py) has asked `identify` who is there. From then on:

    person_of(request)      who it is: a name, a role, and the CSRF token of their session
    require("reviewer")     a dependency: 403 for lesser roles and for writes without that token

Every router is included with a `require` in app.py; a route may ask for more.

While nobody was ever added (`burnish users add`), whoever sits at this machine is its one user, an
admin under the name of their login, and needs no sign-in. Only a request that
came over loopback, to a loopback name and through no proxy counts as such: a web page from
elsewhere that has pointed its own name at 127.0.0.1 (DNS rebinding) shows in the Host header.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import Response
from starlette.requests import HTTPConnection

from burnish.hashing import content_hash
from burnish.label.people import login_name, session_user, token_user
from burnish.project import Project
from burnish.store import Connection, Store
from burnish.store.examples import read_example
from burnish.store.users import ROLES, Role, has_users, was_shown
from burnish.types import Example

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"

# The store ends sessions; the browser only has to keep the cookie as long as one may last.
_COOKIE_SECONDS = 30 * 24 * 3600

# A proxy that adds one of these has let somebody from elsewhere in.
_PROXIED = ("x-forwarded-for", "x-forwarded-host", "forwarded", "via", "x-real-ip")


@dataclass(frozen=True, slots=True)
class Person:
    """Who sent a request."""

    name: str
    """Kept with everything they do: annotator, reviewer, actor of the log."""
    role: Role
    csrf: str = ""
    """Must come back in every form (field `csrf`) or as a header (`X-CSRF-Token`) with what writes;
    empty for those no browser speaks for by itself: a token's bearer, and the local user."""
    is_local: bool = False
    """The single user of a project without users, who cannot sign out."""

    def may(self, role: Role) -> bool:
        """Whether they have that role or a greater one."""
        return ROLES.index(self.role) >= ROLES.index(role)


def person_of(request: HTTPConnection) -> Person:
    """Who sent this request; asked only behind `require`."""
    person = visitor_of(request)
    assert person is not None, "Gate lets nobody through whom it does not know"
    return person


def visitor_of(request: HTTPConnection) -> Person | None:
    """Who sent this request; None on the public pages."""
    return getattr(request.state, "person", None)


def require(role: Role) -> Callable[[Request], Awaitable[Person]]:
    """A dependency that lets through who has the role; it gives the `Person`."""

    async def checked(request: Request) -> Person:
        person = person_of(request)
        if not person.may(role):
            raise HTTPException(403, f"this is for the role {role}; you are {person.role}")
        if request.method not in SAFE_METHODS and person.csrf:
            given = await _csrf_given(request)
            if not hmac.compare_digest(given.encode(), person.csrf.encode()):
                raise HTTPException(
                    403, "the form has expired: go back, reload the page and send it again"
                )
        return person

    return checked


def shown_example(connection: Connection, person: Person, example_id: str) -> Example:
    """The example: for a reviewer any, for an annotator one that was shown to them.

    Raises:
        HTTPException: 404 alike where there is none and where they may not see it.
    """
    example = read_example(connection, example_id)
    seen = person.may("reviewer") or was_shown(connection, person.name, example_id)
    if example is None or not seen:
        raise HTTPException(404, "there is no such example, or it was not shown to you")
    return example


def identify(connection: HTTPConnection, project: Project, store: Store) -> Person | None:
    """Who is there by bearer token, session or place; None where nobody has shown who they are."""
    now = datetime.now(UTC)
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        bearer = token_user(store, token.strip(), now=now)
        return Person(bearer.name, bearer.role) if bearer else None
    session = session_of(connection, project)
    if session and (user := session_user(store, session, now=now)):
        return Person(user.name, user.role, csrf_token(session))
    return _local_person(store) if _is_local(connection) else None


def session_of(connection: HTTPConnection, project: Project) -> str | None:
    """The secret in the session's cookie."""
    return connection.cookies.get(_cookie(project))


def remember_session(
    response: Response, project: Project, session: str, *, request: Request
) -> None:
    """Keep a session in a cookie that scripts cannot read and other sites cannot make use of."""
    response.set_cookie(
        _cookie(project),
        session,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        max_age=_COOKIE_SECONDS,
    )


def forget_session(response: Response, project: Project) -> None:
    """Take the cookie away."""
    response.delete_cookie(_cookie(project), httponly=True, samesite="strict")


def csrf_token(session: str) -> str:
    """Bound to the session by HMAC, so nobody has to keep it (OWASP, CSRF prevention)."""
    return hmac.new(session.encode(), b"burnish csrf", hashlib.sha256).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _cookie(project: Project) -> str:
    # Browsers keep cookies by host, not by port: two studios must not sign each other out.
    return f"burnish_session_{content_hash(project.name)[:8]}"


def _is_local(connection: HTTPConnection) -> bool:
    client = connection.client.host if connection.client else ""
    host = _host_name(connection.headers.get("host", ""))
    proxied = any(name in connection.headers for name in _PROXIED)
    return is_loopback(client) and is_loopback(host) and not proxied


def _host_name(host: str) -> str:
    """The name in a Host header, without the port; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _local_person(store: Store) -> Person | None:
    with store.looking() as looking:
        if has_users(looking):
            return None
    return Person(login_name(), "admin", is_local=True)


async def _csrf_given(request: Request) -> str:
    given = request.headers.get(CSRF_HEADER)
    if given is not None:
        return given
    kind = request.headers.get("content-type", "")
    if not kind.startswith(("application/x-www-form-urlencoded", "multipart/form-data")):
        return ""
    value = (await request.form()).get(CSRF_FIELD, "")
    return value if isinstance(value, str) else ""
