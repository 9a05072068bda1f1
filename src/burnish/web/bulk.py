"""/tasks/NAME/bulk : one action on many examples, confirmed by a page that says how many."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import parse_qsl

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from burnish.errors import InputError
from burnish.label.bulk import (
    Chosen,
    assign_all,
    exclude_all,
    include_all,
    make_gold,
    prioritise_all,
)
from burnish.store.examples import count_examples
from burnish.store.search import COUNTED, search
from burnish.tasks import Task
from burnish.web.browse import Filters
from burnish.web.identity import person_of
from burnish.web.site import Site


class Order(BaseModel):
    """What the form under a search sends."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["exclude", "include", "assign", "prioritise", "gold"]
    all_found: bool = False
    """Everything the filters find, instead of the examples with these ids."""
    ids: list[str] = []
    filters: str = ""
    reason: str = ""
    annotators: str = ""
    """Names, with commas between them."""
    priority: float = 1.0
    answer: str = ""
    confirmed: bool = False
    csrf: str = ""

    def chosen(self, task: Task) -> Chosen:
        """The examples it is about."""
        if self.all_found:
            return self.found_by.query(task.name)
        return self.ids

    @property
    def found_by(self) -> Filters:
        """The filters that were on the page."""
        return Filters.model_validate(dict(parse_qsl(self.filters)))

    @property
    def names(self) -> list[str]:
        """Whom to assign them to."""
        return [name.strip() for name in self.annotators.split(",") if name.strip()]


def bulk_pages(site: Site) -> APIRouter:
    """The question, and once it is answered what was done."""
    router = APIRouter()

    @router.post("/tasks/{name}/bulk")
    def bulk(request: Request, name: str, order: Annotated[Order, Form()]) -> Response:
        task = site.task(name)
        data = {"task": task, "order": order, "back": order.found_by.address()}
        if order.confirmed:
            done = _carry_out(site, task, order, person_of(request).name)
            return site.page(request, "bulk.html", {**data, "done": done})
        how_many = _how_many(site, task, order)
        return site.page(request, "bulk.html", {**data, "done": None, "how_many": how_many})

    return router


def _how_many(site: Site, task: Task, order: Order) -> str:
    """How many examples it is about, in words."""
    count, form = len(order.ids), "{:,} example{}"
    if order.all_found:
        query = order.found_by.query(task.name)
        with site.store.reading() as connection:
            if query.finds_everything:
                count, form = count_examples(connection), "all {:,} example{}"
            else:
                count = search(connection, query).count
                form = "{:,} or more example{}" if count >= COUNTED else form
    if not count:
        raise InputError("no example was chosen", do="choose some, or all that were found")
    return form.format(count, "s" if count != 1 else "")


def _carry_out(site: Site, task: Task, order: Order, actor: str) -> str:
    """What was done, in a sentence."""
    store, chosen = site.store, order.chosen(task)
    match order.action:
        case "exclude":
            return f"{exclude_all(store, chosen, order.reason, actor=actor):,} excluded."
        case "include":
            included = include_all(store, site.tasks.values(), chosen, actor=actor)
            return f"{included:,} take part again."
        case "assign":
            assigned = assign_all(store, task, chosen, order.names, actor=actor)
            return f"{assigned:,} assigned to {', '.join(order.names)}."
        case "prioritise":
            ranked = prioritise_all(store, task, chosen, order.priority, actor=actor)
            return f"{ranked:,} have the priority {order.priority:g}."
        case "gold":
            made = make_gold(store, task, chosen, order.answer.strip() or None, actor=actor)
            left = f" {made.without_answer:,} have no one answer." if made.without_answer else ""
            return f"{made.made:,} are gold items.{left}"
