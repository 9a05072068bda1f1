"""/review : examples whose answers differ or that somebody flagged, one at a time."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from burnish.errors import InputError
from burnish.label.resolve import adjudicate, exclude_example, open_disputes, read_dispute
from burnish.web.site import Site, annotator_of, example_data


def review_pages(site: Site) -> APIRouter:
    """The review page, also as /review.json, and what its form posts to."""
    router = APIRouter()

    @router.get("/review")
    @router.get("/review.json")
    def review(request: Request, after: str | None = None) -> Response:
        """The first dispute, or the one that follows the example `after`."""
        if annotator_of(request) is None and not request.url.path.endswith(".json"):
            return site.page(request, "name.html", {"back": "/review"})
        ids = open_disputes(site.store, site.task)
        place = (ids.index(after) + 1) % len(ids) if after in ids else 0
        dispute = read_dispute(site.store, site.task, ids[place]) if ids else None
        data = {
            "open": len(ids),
            "place": place + 1,
            "example": example_data(dispute.example) if dispute else None,
            "annotations": dispute.annotations if dispute else (),
            "choices": site.task.choices,
        }
        return site.page(request, "review.html", data)

    @router.post("/review")
    def decide(
        request: Request,
        example_id: Annotated[str, Form()],
        action: Annotated[Literal["decide", "exclude"], Form()],
        pick: Annotated[str, Form()] = "",
        other: Annotated[str, Form()] = "",
        reason: Annotated[str, Form()] = "",
    ) -> Response:
        """Take the answer of the annotation `pick`, or `other`; or exclude the example."""
        person = annotator_of(request)
        if person is None:
            return RedirectResponse("/review", 303)
        if action == "exclude":
            exclude_example(site.store, example_id, reason, person=person)
            return RedirectResponse("/review", 303)
        dispute = read_dispute(site.store, site.task, example_id)
        answers = {a.client_id: a.answer for a in dispute.annotations} if dispute else {}
        answer = answers.get(pick, "") if pick != "other" else other
        if not answer:
            raise InputError("no answer was chosen", do="choose one, or write another")
        adjudicate(site.store, site.task, {example_id: answer}, person=person)
        return RedirectResponse("/review", 303)

    return router
