"""/people : who may sign in, with which role, and the tokens of programs; for admins."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

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
        with site.store.reading() as connection:
            users = read_users(connection)
        return site.page(request, "people.html", {"users": users, "roles": ROLES})

    @router.post("/people")
    def add(
        request: Request, name: _Text, password: _Text, role: Annotated[Role, Form()]
    ) -> Response:
        add_person(site.store, name, password, role, actor=person_of(request).name)
        return RedirectResponse("/people", 303)

    @router.get("/people/{name}")
    def person(request: Request, name: str) -> Response:
        return one_person(request, name)

    @router.post("/people/{name}/role")
    def role(request: Request, name: str, role: Annotated[Role, Form()]) -> Response:
        change_role(site.store, name, role, actor=person_of(request).name)
        return RedirectResponse("/people", 303)

    @router.post("/people/{name}/password")
    def password(request: Request, name: str, password: _Text) -> Response:
        change_password(site.store, name, password, actor=person_of(request).name)
        return RedirectResponse("/people", 303)

    @router.post("/people/{name}/remove")
    def remove(request: Request, name: str) -> Response:
        remove_person(site.store, name, actor=person_of(request).name)
        return RedirectResponse("/people", 303)

    @router.post("/people/{name}/tokens")
    def add_token(
        request: Request, name: str, token_name: _Text, days: Annotated[int, Form(ge=1)] = 90
    ) -> Response:
        """The page that answers is the only place where the token is ever shown."""
        token = make_token(
            site.store,
            name,
            token_name,
            actor=person_of(request).name,
            now=datetime.now(UTC),
            days=days,
        )
        return one_person(request, name, new_token=token)

    @router.post("/people/{name}/tokens/remove")
    def remove_token(request: Request, name: str, token_name: _Text) -> Response:
        end_token(site.store, name, token_name, actor=person_of(request).name)
        return RedirectResponse(f"/people/{name}", 303)

    def one_person(request: Request, name: str, new_token: str | None = None) -> Response:
        with site.store.reading() as connection:
            user = find_user(connection, name)
            tokens = read_tokens(connection, name)
        if user is None:
            raise HTTPException(404, f"there is no user {name!r}")
        data = {"user": user, "tokens": tokens, "new_token": new_token, "roles": ROLES}
        return site.page(request, "person.html", data)

    return router
