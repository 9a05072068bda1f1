"""What a reviewer may do about answers: see how far people are and agree, settle disputes."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, HTTPException, Request, Response

from burnish.label.quote import Quote, quote
from burnish.label.resolve import Resolved, adjudicate, resolve
from burnish.label.review import count_disputes, next_dispute
from burnish.label.status import LabelAgreement, LabelStatus, label_agreement, label_status
from burnish.store.annotations import read_annotations
from burnish.store.examples import read_example
from burnish.types import Annotation
from burnish.web.api.models import (
    Count,
    Decision,
    DisputeRecord,
    ExampleInPath,
    ExampleRecord,
    InPath,
    Price,
    Skipped,
)
from burnish.web.identity import person_of
from burnish.web.site import Site


def review_routes(site: Site) -> APIRouter:
    """The routes of a reviewer."""
    router = APIRouter(tags=["review"])

    @router.get("/tasks/{task}/status")
    def status(task: InPath) -> LabelStatus:
        """How far the task and each annotator is."""
        return label_status(site.store, site.task(task))

    @router.get("/tasks/{task}/agreement")
    def agreement(task: InPath) -> LabelAgreement:
        """How far people agree, with each other and with what is known, with intervals."""
        return label_agreement(site.store, site.task(task))

    @router.get("/tasks/{task}/quote")
    def hours_left(task: InPath, price_per_hour: Price = None) -> Quote:
        """How many hours, and at a price how much money, the rest will take."""
        return quote(site.store, site.task(task), price_per_hour)

    @router.get("/tasks/{task}/examples/{example_id}/annotations")
    def annotations(task: InPath, example_id: ExampleInPath) -> list[Annotation]:
        """Everything people said of an example, oldest first."""
        name = site.task(task).name
        with site.store.reading() as connection:
            if read_example(connection, example_id) is None:
                raise HTTPException(404, "there is no such example")
            return list(read_annotations(connection, task=name, example_id=example_id))

    router.include_router(_dispute_routes(site))
    return router


def _dispute_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/tasks/{task}/disputes")
    def disputes(task: InPath) -> Count:
        """How many examples wait for a reviewer."""
        return Count(count=count_disputes(site.store, site.task(task)))

    @router.post(
        "/tasks/{task}/disputes/next",
        response_model=DisputeRecord,
        responses={204: {"description": "Nothing waits that nobody else is looking at."}},
    )
    def next_(request: Request, task: InPath, sent: Skipped) -> DisputeRecord | Response:
        """The next example for you to settle; no other reviewer gets it meanwhile."""
        asked, reviewer = site.task(task), person_of(request).name
        now = datetime.now(UTC)
        dispute = next_dispute(site.store, asked, reviewer, now=now, after=sent.after)
        if dispute is None:
            return Response(status_code=204)
        shown = () if asked.blind_review else dispute.annotations
        return DisputeRecord(example=ExampleRecord.of(dispute.example), annotations=shown)

    @router.post("/tasks/{task}/decisions", status_code=204)
    def decide(request: Request, task: InPath, sent: Decision) -> Response:
        """Settle an example; a person's decision outranks every rule."""
        decided = {sent.example_id: sent.answer}
        adjudicate(site.store, site.task(task), decided, person=person_of(request).name)
        return Response(status_code=204)

    @router.post("/tasks/{task}/resolve")
    def settle(task: InPath) -> Resolved:
        """Settle by the task's rule what people agree on."""
        return resolve(site.store, site.task(task))

    return router
