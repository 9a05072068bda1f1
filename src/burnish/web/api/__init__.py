"""/api/v1 : everything the studio does, for programs.

    labelling.py   every annotator: tasks, guidelines, next, answer, undo, progress
    review.py      reviewers: disputes, decisions, status, agreement, quote
    examples.py    reviewers: search, bulk actions, drafts, gold, priorities, assignments
    exchange.py    reviewers export; admins import
    admin.py       admins: guidelines, users, tokens
    webhooks.py    admins: who is told of what
    models.py      bodies and answers that are no dataclass of Burnish's own

The least role for each group is said in `_GROUPS`; a route may ask for more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from burnish.store.users import Role
from burnish.web.api.admin import admin_routes
from burnish.web.api.examples import example_routes
from burnish.web.api.exchange import exchange_routes
from burnish.web.api.labelling import labelling_routes
from burnish.web.api.models import Problem
from burnish.web.api.review import review_routes
from burnish.web.identity import CSRF_HEADER, require
from burnish.web.site import Site

_GROUPS: tuple[tuple[Role, Callable[[Site], APIRouter]], ...] = (
    ("annotator", labelling_routes),
    ("reviewer", review_routes),
    ("reviewer", example_routes),
    ("reviewer", exchange_routes),
    ("admin", admin_routes),
)

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is no JSON."},
    401: {"model": Problem, "description": "Nobody has signed in, or the token is no longer good."},
    403: {"model": Problem, "description": "The role is too small, or the CSRF token is missing."},
    404: {"model": Problem, "description": "There is none of that name, or not for you."},
    413: {"model": Problem, "description": "The body is too large."},
    422: {"model": Problem, "description": "What was sent is wrong; sent again it will be too."},
    503: {"model": Problem, "description": "The store is busy or full: worth another try."},
}

# For the description alone: `Gate` and `require` do the asking.
_bearer = HTTPBearer(auto_error=False, description="A token: `burnish users token NAME PURPOSE`.")
_csrf = APIKeyHeader(
    name=CSRF_HEADER,
    auto_error=False,
    scheme_name="CSRF token",
    description="Beside the session's cookie, for scripts of the studio's own pages.",
)


def api_routes(site: Site) -> APIRouter:
    """Every route of the API; each asks for a role."""
    router = APIRouter(prefix="/api/v1", responses=_PROBLEMS)
    for role, routes in _GROUPS:
        asked = [Depends(require(role)), Security(_bearer), Security(_csrf)]
        router.include_router(routes(site), dependencies=asked)
    return router
