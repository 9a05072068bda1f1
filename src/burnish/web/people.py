"""/people : who may sign in, with which role, and the tokens of programs; for admins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from burnish.errors import InputError
from burnish.label.people import (
    add_person,
    change_password,
    change_role,
    end_token,
    make_token,
    remove_person,
)
from burnish.store.users import ROLES, Role, find_user, read_tokens, read_users
from burnish.web.identity import person_of
from burnish.web.site import Site

_Text = Annotated[str, Form()]


def people_pages(site: Site) -> APIRouter:
    """Everybody, one person, and what an admin can do about them."""
    router = APIRouter()

    @router.get("/people")
    def people(request: Request) -> Response:
        return _everybody(site, request)

    @router.post("/people")
    def add(
        request: Request, name: _Text, password: _Text, role: Annotated[Role, Form()]
    ) -> Response:
        try:
            add_person(site.store, name, password, role, actor=person_of(request).name)
        except InputError as error:
            return _everybody(site, request, fault=str(error), name=name, role=role)
        return RedirectResponse("/people", 303)

    @router.get("/people/{name}")
    def person(request: Request, name: str) -> Response:
        return _one_person(site, request, name)

    @router.post("/people/{name}/role")
    def role(request: Request, name: str, role: Annotated[Role, Form()]) -> Response:
        actor = person_of(request).name
        return changed(
            request, name, "role", lambda: change_role(site.store, name, role, actor=actor)
        )

    @router.post("/people/{name}/password")
    def password(request: Request, name: str, password: _Text) -> Response:
        actor = person_of(request).name
        return changed(
            request,
            name,
            "password",
            lambda: change_password(site.store, name, password, actor=actor),
        )

    @router.post("/people/{name}/remove")
    def remove(request: Request, name: str) -> Response:
        actor = person_of(request).name
        return changed(
            request, name, "remove", lambda: remove_person(site.store, name, actor=actor)
        )

    def changed(request: Request, name: str, form: str, change: Callable[[], None]) -> Response:
        """What is wrong stands by the form it was sent with."""
        try:
            change()
        except InputError as error:
            return _one_person(site, request, name, faults={form: str(error)})
        return RedirectResponse("/people", 303)

    router.include_router(_token_pages(site))
    return router


def _token_pages(site: Site) -> APIRouter:
    router = APIRouter()

    @router.post("/people/{name}/tokens")
    def add_token(
        request: Request, name: str, token_name: _Text, days: Annotated[int, Form(ge=1)] = 90
    ) -> Response:
        """The page that answers is the only place where the token is ever shown."""
        actor, now = person_of(request).name, datetime.now(UTC)
        try:
            token = make_token(site.store, name, token_name, actor=actor, now=now, days=days)
        except InputError as error:
            faults = {"token": str(error)}
            return _one_person(site, request, name, faults=faults, token_name=token_name)
        return _one_person(site, request, name, new_token=token)

    @router.post("/people/{name}/tokens/remove")
    def remove_token(request: Request, name: str, token_name: _Text) -> Response:
        end_token(site.store, name, token_name, actor=person_of(request).name)
        return RedirectResponse(f"/people/{name}", 303)

    return router


def _everybody(
    site: Site,
    request: Request,
    *,
    fault: str | None = None,
    name: str = "",
    role: Role | None = None,
) -> Response:
    """With a `fault`, what was filled in stays, all but the password."""
    with site.store.reading() as connection:
        users = read_users(connection)
    role = role or ("annotator" if users else "admin")
    data = {"users": users, "roles": ROLES, "fault": fault, "name": name, "role": role}
    return site.page(request, "people.html", data, 422 if fault else 200)


def _one_person(
    site: Site,
    request: Request,
    name: str,
    *,
    new_token: str | None = None,
    faults: Mapping[str, str] = MappingProxyType({}),
    token_name: str = "",
) -> Response:
    """With `faults`, by the form that each belongs to."""
    with site.store.reading() as connection:
        user = find_user(connection, name)
        tokens = read_tokens(connection, name)
    if user is None:
        raise HTTPException(404, f"there is no user {name!r}")
    data = {
        "user": user,
        "tokens": tokens,
        "new_token": new_token,
        "roles": ROLES,
        "faults": faults,
        "token_name": token_name,
    }
    return site.page(request, "person.html", data, 422 if faults else 200)
