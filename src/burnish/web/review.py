"""/tasks/NAME/review : examples whose answers differ or that somebody flagged, one at a time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from burnish.errors import InputError
from burnish.label.bulk import exclude_all
from burnish.label.resolve import adjudicate, read_dispute
from burnish.label.review import count_disputes, next_dispute
from burnish.store.drafts import read_drafts
from burnish.web.identity import person_of
from burnish.web.sheets import answer_view, module_of, sheet_of
from burnish.web.site import Site

_Text = Annotated[str, Form()]


def review_pages(site: Site) -> APIRouter:
    """The review page and what its forms post to."""
    router = APIRouter()

    @router.get("/tasks/{name}/review")
    def review(
        request: Request,
        name: str,
        after: str | None = None,
        example: str | None = None,
        shown: bool = False,
    ) -> Response:
        """The next dispute, or the one that follows the example `after`; or any `example`.

        With blind review the annotators' answers are left out until the reviewer asks for them.
        """
        task = site.task(name)
        reviewer = person_of(request).name
        if example is None:
            dispute = next_dispute(site.store, task, reviewer, now=datetime.now(UTC), after=after)
        else:
            dispute = read_dispute(site.store, task, example)
            if dispute is None:
                raise HTTPException(404, "there is no such example")
        data = {"task": task, "open": count_disputes(site.store, task), "module": module_of(task)}
        if dispute is None:
            return site.page(request, "review.html", {**data, "sheet": None})
        with site.store.reading() as connection:
            drafts = read_drafts(connection, task.name, [dispute.example.id])
        sheet = sheet_of(task, dispute.example, drafts.get(dispute.example.id, ()))
        is_blind = task.blind_review and not shown
        data |= {
            "sheet": sheet,
            "guidelines": site.guidelines(task),
            "is_blind": is_blind,
            "is_asked_for": example is not None,
            "answers": ()
            if is_blind
            else [(a, answer_view(a.answer, task, sheet)) for a in dispute.annotations],
        }
        return site.page(request, "review.html", data)

    @router.post("/tasks/{name}/review")
    def decide(
        request: Request,
        name: str,
        example_id: _Text,
        action: Annotated[Literal["decide", "exclude"], Form()],
        pick: _Text = "other",
        answer: _Text = "",
        reason: _Text = "",
    ) -> Response:
        """Take the answer of the annotation `pick`, or `answer`; or exclude the example."""
        task = site.task(name)
        person = person_of(request).name
        if action == "exclude":
            exclude_all(site.store, [example_id], reason, actor=person)
            return RedirectResponse(f"/tasks/{task.name}/review", 303)
        if pick != "other":
            dispute = read_dispute(site.store, task, example_id)
            given = {a.client_id: a.answer for a in dispute.annotations} if dispute else {}
            answer = given.get(pick, "")
        if not answer:
            raise InputError("no answer was chosen", do="choose one, or write another")
        adjudicate(site.store, task, {example_id: answer}, person=person)
        return RedirectResponse(f"/tasks/{task.name}/review", 303)

    return router
