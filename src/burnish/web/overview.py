"""/tasks/NAME/overview and /agreement : how far the labelling is, and how far people agree."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BeforeValidator

from burnish.label.quote import status_and_quote
from burnish.label.status import label_agreement
from burnish.web.site import Site

# An empty field of a form is no price.
_Price = Annotated[float | None, BeforeValidator(lambda value: value or None)]


def overview_pages(site: Site) -> APIRouter:
    """Progress, what the rest will take, and agreement of a task."""
    router = APIRouter()

    @router.get("/tasks/{name}/overview")
    def overview(request: Request, name: str, price: Annotated[_Price, Query()] = None) -> Response:
        """`price` is what an hour of people's work costs, in any currency."""
        task = site.task(name)
        status, rest = status_and_quote(site.store, task, price)
        data = {
            "task": task,
            "status": status,
            "quote": rest,
            "price": price,
            "speeds": {speed.annotator: speed.seconds_per_answer for speed in rest.annotators},
        }
        return site.page(request, "overview.html", data)

    @router.get("/tasks/{name}/agreement")
    def agreement(request: Request, name: str) -> Response:
        task = site.task(name)
        measured = label_agreement(site.store, task)
        return site.page(request, "agreement.html", {"task": task, "measured": measured})

    return router
