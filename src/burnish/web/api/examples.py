"""What a reviewer may do about examples: find them, and say who gets them and when."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from burnish.label.bulk import (
    MadeGold,
    assign_all,
    exclude_all,
    include_all,
    make_gold,
    prioritise_all,
)
from burnish.label.drafts import propose_drafts
from burnish.label.order import (
    order_by_arrival,
    order_by_disagreement,
    order_by_diversity,
    remove_gold,
    set_gold,
    set_priorities,
    unassign,
)
from burnish.store import search as find
from burnish.store.drafts import Draft, read_drafts
from burnish.web.api.models import (
    Added,
    Assignment,
    Count,
    ExampleInPath,
    ExampleList,
    ExamplePage,
    Exclusion,
    Gold,
    GoldItems,
    InPath,
    NewDrafts,
    Ordering,
    Priorities,
    Priority,
    SearchQuery,
    Selection,
)
from burnish.web.identity import person_of
from burnish.web.site import Site


def example_routes(site: Site) -> APIRouter:
    """The routes of whoever runs the project day by day."""
    router = APIRouter(tags=["examples"])

    @router.get("/examples")
    def search(asked: Annotated[SearchQuery, Query()]) -> ExamplePage:
        """Examples in order of arrival that have these words, metadata and annotations."""
        with site.store.reading() as connection:
            return ExamplePage.of(find.search(connection, asked.query()))

    @router.post("/examples/exclude")
    def exclude(request: Request, sent: Exclusion) -> Count:
        """Keep examples out of every later snapshot and out of the queues."""
        actor = person_of(request).name
        return Count(count=exclude_all(site.store, sent.chosen, sent.reason, actor=actor))

    @router.post("/examples/include")
    def include(request: Request, sent: Selection) -> Count:
        """Let excluded examples take part again; with their annotations, in every task."""
        actor, tasks = person_of(request).name, site.tasks.values()
        return Count(count=include_all(site.store, tasks, sent.chosen, actor=actor))

    router.include_router(_order_routes(site))
    router.include_router(_draft_routes(site))
    return router


def _order_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.post("/tasks/{task}/order", status_code=204)
    def order(request: Request, task: InPath, sent: Ordering) -> Response:
        """Order the whole queue anew."""
        by = {
            "arrival": order_by_arrival,
            "disagreement": order_by_disagreement,
            "diversity": order_by_diversity,
        }[sent.by]
        by(site.store, site.task(task), person_of(request).name)
        return Response(status_code=204)

    @router.post("/tasks/{task}/priorities")
    def prioritise(request: Request, task: InPath, sent: Priority) -> Count:
        """Give all of these examples one priority."""
        actor, asked = person_of(request).name, site.task(task)
        count = prioritise_all(site.store, asked, sent.chosen, sent.priority, actor=actor)
        return Count(count=count)

    @router.put("/tasks/{task}/priorities", status_code=204)
    def prioritise_each(request: Request, task: InPath, sent: Priorities) -> Response:
        """Give each of these examples its priority, such as a model's loss."""
        set_priorities(site.store, site.task(task), sent.priorities, person_of(request).name)
        return Response(status_code=204)

    @router.post("/tasks/{task}/assignments")
    def assign(request: Request, task: InPath, sent: Assignment) -> Count:
        """Let these people get these examples first, and nobody else get them."""
        actor, asked = person_of(request).name, site.task(task)
        return Count(count=assign_all(site.store, asked, sent.chosen, sent.annotators, actor=actor))

    @router.post("/tasks/{task}/assignments/remove", status_code=204)
    def assign_to_nobody(request: Request, task: InPath, sent: ExampleList) -> Response:
        """Let anybody get these examples again."""
        unassign(site.store, site.task(task), sent.example_ids, person_of(request).name)
        return Response(status_code=204)

    router.include_router(_gold_routes(site))
    return router


def _gold_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.post("/tasks/{task}/gold")
    def add_gold(request: Request, task: InPath, sent: GoldItems) -> MadeGold:
        """Mix examples whose answer is known into everybody's work."""
        actor, asked = person_of(request).name, site.task(task)
        return make_gold(site.store, asked, sent.chosen, sent.answer or None, actor=actor)

    @router.put("/tasks/{task}/gold", status_code=204)
    def put_gold(request: Request, task: InPath, sent: Gold) -> Response:
        """The same, with an answer for each."""
        set_gold(site.store, site.task(task), sent.answers, person_of(request).name)
        return Response(status_code=204)

    @router.post("/tasks/{task}/gold/remove", status_code=204)
    def forget_gold(request: Request, task: InPath, sent: ExampleList) -> Response:
        """Let gold items be ordinary examples again."""
        remove_gold(site.store, site.task(task), sent.example_ids, person_of(request).name)
        return Response(status_code=204)

    return router


def _draft_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/tasks/{task}/examples/{example_id}/drafts")
    def drafts(task: InPath, example_id: ExampleInPath) -> list[Draft]:
        """What models proposed as the example's answer, oldest first."""
        name = site.task(task).name
        with site.store.reading() as connection:
            return read_drafts(connection, name, [example_id]).get(example_id, [])

    @router.post("/tasks/{task}/drafts")
    def propose(request: Request, task: InPath, sent: NewDrafts) -> Added:
        """Add a model's drafts; the same one again adds nothing."""
        asked, actor = site.task(task), person_of(request).name
        drafts = [Draft.of(d.example_id, asked.name, d.text, sent.model) for d in sent.drafts]
        return Added(added=propose_drafts(site.store, drafts, actor=actor))

    return router
