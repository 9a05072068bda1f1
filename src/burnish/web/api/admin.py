"""What an admin may do: guidelines, users, tokens, webhooks."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, HTTPException, Request, Response

from burnish.label.guidelines import Guidelines, write_guidelines
from burnish.label.people import (
    add_person,
    change_password,
    change_role,
    end_token,
    make_token,
    remove_person,
)
from burnish.store.users import Token, User, find_user, read_tokens, read_users
from burnish.web.api.models import (
    GuidelinesText,
    InPath,
    NewToken,
    NewUser,
    TokenSecret,
    UserChange,
)
from burnish.web.api.webhooks import webhook_routes
from burnish.web.identity import person_of
from burnish.web.site import Site


def admin_routes(site: Site) -> APIRouter:
    """The routes of an admin alone."""
    router = APIRouter(tags=["administration"])

    @router.put("/tasks/{task}/guidelines")
    def change_guidelines(request: Request, task: InPath, sent: GuidelinesText) -> Guidelines:
        """Give every task that works by the same file new guidelines."""
        return write_guidelines(
            site.store,
            site.project,
            site.task(task),
            sent.text,
            instead_of=sent.instead_of,
            person=person_of(request).name,
        )

    router.include_router(_user_routes(site))
    router.include_router(_token_routes(site))
    router.include_router(webhook_routes(site))
    return router


def _user_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/users")
    def users() -> list[User]:
        """Everybody, by name; who is not active was removed."""
        with site.store.reading() as connection:
            return read_users(connection)

    @router.post("/users", status_code=201)
    def add_user(request: Request, sent: NewUser) -> User:
        """Let somebody sign in, or back in."""
        actor = person_of(request).name
        return add_person(site.store, sent.name, sent.password, sent.role, actor=actor)

    @router.patch("/users/{user}")
    def change_user(request: Request, user: InPath, sent: UserChange) -> User:
        """Change a person's role, password or both."""
        _find(site, user)
        actor = person_of(request).name
        if sent.role is not None:
            change_role(site.store, user, sent.role, actor=actor)
        if sent.password is not None:
            change_password(site.store, user, sent.password, actor=actor)
        return _find(site, user)

    @router.delete("/users/{user}", status_code=204)
    def remove_user(request: Request, user: InPath) -> Response:
        """Let a person in no more; their annotations stay."""
        _find(site, user)
        remove_person(site.store, user, actor=person_of(request).name)
        return Response(status_code=204)

    return router


def _token_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/users/{user}/tokens")
    def tokens(user: InPath) -> list[Token]:
        """A person's tokens, the expired too; what they are is kept by nobody."""
        _find(site, user)
        with site.store.reading() as connection:
            return read_tokens(connection, user)

    @router.post("/users/{user}/tokens", status_code=201)
    def add_token(request: Request, user: InPath, sent: NewToken) -> TokenSecret:
        """Let a program do what a person may."""
        _find(site, user)
        token = make_token(
            site.store,
            user,
            sent.name,
            actor=person_of(request).name,
            now=datetime.now(UTC),
            days=sent.days,
        )
        return TokenSecret(token=token)

    @router.delete("/users/{user}/tokens/{token}", status_code=204)
    def remove_token(request: Request, user: InPath, token: InPath) -> Response:
        """End a token, by its name."""
        known = {t.name for t in tokens(user)}
        if token not in known:
            raise HTTPException(404, f"{user} has no token {token!r}")
        end_token(site.store, user, token, actor=person_of(request).name)
        return Response(status_code=204)

    return router


def _find(site: Site, name: str) -> User:
    with site.store.reading() as connection:
        user = find_user(connection, name)
    if user is None or not user.active:
        raise HTTPException(404, f"there is no user {name!r}")
    return user
