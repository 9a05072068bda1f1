"""/sign-in, /sign-out, /account : show who you are, leave, change your password."""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from burnish.errors import InputError
from burnish.label.people import SignIn, change_password, sign_in, sign_out
from burnish.store.users import has_users
from burnish.web.access import SIGN_IN
from burnish.web.identity import (
    forget_session,
    person_of,
    remember_session,
    require,
    session_of,
)
from burnish.web.site import Site

_Text = Annotated[str, Form()]


def sign_in_pages(site: Site) -> APIRouter:
    """The public page; only what is under it may be asked by strangers."""
    router = APIRouter()

    def page(request: Request, status: int = 200, **data: object) -> Response:
        with site.store.reading() as connection:
            data["has_users"] = has_users(connection)
        return site.page(request, "sign_in.html", {"name": "", "fault": None, **data}, status)

    @router.get(SIGN_IN)
    def form(request: Request, back: str = "/") -> Response:
        return page(request, back=_local_path(back))

    @router.post(SIGN_IN)
    def enter(request: Request, name: _Text, password: _Text, back: _Text = "/") -> Response:
        back = _local_path(back)
        entered = _sign_in(site, request, name, password)
        if entered.session is not None:
            response = RedirectResponse(back, 303)
            remember_session(response, site.project, entered.session, request=request)
            return response
        status = 429 if entered.wait_seconds else 401
        fault = _fault(entered, "Name or password is wrong.")
        refused = page(request, status, back=back, name=name, fault=fault)
        if entered.wait_seconds:
            refused.headers["Retry-After"] = f"{entered.wait_seconds:.0f}"
        return refused

    return router


def account_pages(site: Site) -> APIRouter:
    """What a person can do about their own account."""
    router = APIRouter(dependencies=[Depends(require("annotator"))])

    @router.post("/sign-out")
    def leave(request: Request) -> Response:
        session = session_of(request, site.project)
        if session:
            sign_out(site.store, session)
        response = RedirectResponse(SIGN_IN, 303)
        forget_session(response, site.project)
        return response

    @router.get("/account")
    def account(request: Request) -> Response:
        return page(request)

    @router.post("/account")
    def new_password(request: Request, old: _Text, new: _Text) -> Response:
        """Every session ends, this one too: whoever knew the old password is out."""
        name = person_of(request).name
        entered = _sign_in(site, request, name, old)
        if entered.session is None:
            return page(request, _fault(entered, "The old password is wrong."))
        try:
            change_password(site.store, name, new, actor=name)
        except InputError as error:
            return page(request, str(error))
        response = RedirectResponse(SIGN_IN, 303)
        forget_session(response, site.project)
        return response

    def page(request: Request, fault: str | None = None) -> Response:
        data = {"person": person_of(request), "fault": fault}
        return site.page(request, "account.html", data, 422 if fault else 200)

    return router


def _sign_in(site: Site, request: Request, name: str, password: str) -> SignIn:
    address = request.client.host if request.client else ""
    return sign_in(site.store, name, password, address=address, now=datetime.now(UTC))


def _fault(entered: SignIn, wrong: str) -> str:
    if not entered.wait_seconds:
        return wrong
    return f"Too many attempts failed. Try again in {ceil(entered.wait_seconds / 60)} min."


def _local_path(back: str) -> str:
    """Where to go on; never to another site, which `//host` and `/\\host` would be."""
    is_local = back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable()
    return back if is_local else "/"
