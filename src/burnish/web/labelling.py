"""/tasks/NAME/label : the guidelines, an example, its answer; one page for a day's work."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response

from burnish.label.queue import next_item, progress_of, submit, undo_last
from burnish.types import Annotation
from burnish.web.api.models import Answer
from burnish.web.identity import person_of
from burnish.web.sheets import module_of, sheet_of
from burnish.web.site import Site


class SignedAnswer(Answer):
    """What the page sends."""

    annotator: str
    """Who wrote it: whoever is signed in now may be somebody else."""


def label_pages(site: Site) -> APIRouter:
    """The labelling page and what it posts to."""
    router = APIRouter()

    @router.get("/tasks/{name}/label")
    def label(request: Request, name: str) -> Response:
        task = site.task(name)
        annotator = person_of(request).name
        item = next_item(site.store, task, annotator, now=datetime.now(UTC))
        data = {
            "task": task,
            "sheet": sheet_of(task, item.example, item.drafts, item.previous) if item else None,
            "module": module_of(task),
            "guidelines": site.guidelines(task),
            "progress": progress_of(site.store, task, annotator),
            "sign_in": f"/sign-in?back={quote(request.url.path)}",
        }
        return site.page(request, "label.html", data)

    @router.post("/tasks/{name}/label")
    def answer(request: Request, name: str, sent: SignedAnswer) -> Response:
        task = site.task(name)
        person = person_of(request)
        if sent.annotator != person.name:
            raise HTTPException(
                403, f"{sent.annotator} wrote this answer, and {person.name} is signed in."
            )
        annotation = Annotation(task=task.name, **sent.model_dump())
        only_shown = not person.may("reviewer")
        result = submit(site.store, task, annotation, now=datetime.now(UTC), only_shown=only_shown)
        return JSONResponse(asdict(result), 201 if result.is_new else 200)

    @router.post("/tasks/{name}/undo")
    def undo(request: Request, name: str) -> Response:
        annotator = person_of(request).name
        taken_back = undo_last(site.store, site.task(name), annotator, now=datetime.now(UTC))
        if taken_back is None:
            raise HTTPException(409, "there is no answer of yours to take back")
        return JSONResponse({"example_id": taken_back.example_id})

    return router
