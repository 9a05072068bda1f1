"""/tasks/NAME/browse : find examples by text, metadata and status, and look at them."""

from __future__ import annotations

import shlex
from typing import Annotated, Any, cast
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi import Query as InQuery
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from burnish.errors import InputError
from burnish.store.search import COUNTED, STATUSES, Query, Status, search
from burnish.store.users import read_users
from burnish.web.site import Site


class Filters(BaseModel):
    """What the form of filters sends; an empty field filters nothing."""

    model_config = ConfigDict(extra="forbid")

    text: str = ""
    metadata: str = ""
    """`key=value` pairs, with quotes around those that hold spaces."""
    source: str = ""
    status: str = ""
    annotator: str = ""
    after: int = 0

    def query(self, task: str) -> Query:
        """What to look for.

        Raises:
            InputError: the metadata are no `key=value` pairs, or there is no such status.
        """
        return Query(
            text=self.text,
            where=_pairs(self.metadata),
            source=self.source.strip() or None,
            status=cast(Status, self.status) or None,
            annotator=self.annotator.strip() or None,
            task=task,
            after=self.after,
        )

    def address(self, **changed: Any) -> str:
        """These filters as the query of an address."""
        given = self.model_copy(update=changed).model_dump()
        return urlencode({name: value for name, value in given.items() if value})


def browse_pages(site: Site) -> APIRouter:
    """The filters and what they find."""
    router = APIRouter()

    @router.get("/tasks/{name}/browse")
    def browse(request: Request, name: str, filters: Annotated[Filters, InQuery()]) -> Response:
        task = site.task(name)
        data = {"task": task, "filters": filters, "statuses": STATUSES, "counted": COUNTED}
        with site.store.reading() as connection:
            users = [user.name for user in read_users(connection) if user.active]
            found = search(connection, filters.query(task.name))
        next_page = filters.address(after=found.rows[-1].seq) if found.more else None
        data |= {"found": found, "next_page": next_page, "users": users}
        return site.page(request, "browse.html", data)

    return router


def _pairs(text: str) -> dict[str, str]:
    try:
        words = shlex.split(text)
    except ValueError:
        words = [text]
    pairs = [word.partition("=") for word in words]
    if not all(key and sign for key, sign, _ in pairs):
        raise InputError(
            f"no metadata: {text!r}",
            do='write key=value, with quotes where needed: city="New York"',
        )
    return {key: value for key, _, value in pairs}
