"""/label : the guidelines, an example, its answer; one page for a day's work."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from burnish.label.guidelines import current_guidelines
from burnish.label.queue import next_example, progress_of, submit
from burnish.types import Annotation, AnnotationStatus
from burnish.web.site import Site, annotator_of, example_data, remember_annotator


class Answer(BaseModel):
    """What the page sends; the annotator is the cookie's."""

    model_config = ConfigDict(extra="forbid")

    client_id: str
    example_id: str
    answer: str
    status: AnnotationStatus
    seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    guideline_version: str = ""


def label_pages(site: Site) -> APIRouter:
    """The labelling page, also as /label.json, and what it posts to."""
    router = APIRouter()

    @router.get("/label")
    @router.get("/label.json")
    def label(request: Request) -> Response:
        annotator = annotator_of(request)
        if annotator is None and request.url.path.endswith(".json"):
            return _nameless()
        if annotator is None:
            return site.page(request, "name.html", {"back": "/label"})
        now = datetime.now(UTC)
        example = next_example(site.store, site.task, annotator, now=now)
        data = {
            "example": example_data(example) if example else None,
            "guidelines": current_guidelines(site.store, site.project, site.task),
            "choices": site.task.choices,
            "progress": progress_of(site.store, site.task, annotator),
        }
        return site.page(request, "label.html", data)

    @router.post("/label")
    def answer(request: Request, sent: Answer) -> Response:
        annotator = annotator_of(request)
        if annotator is None:
            return _nameless()
        annotation = Annotation(annotator=annotator, task=site.task.name, **sent.model_dump())
        result = submit(site.store, site.task, annotation, now=datetime.now(UTC))
        return JSONResponse(asdict(result), 201 if result.is_new else 200)

    @router.post("/annotator")
    def name(name: Annotated[str, Form()], back: Annotated[str, Form()] = "/label") -> Response:
        response = RedirectResponse(back if back == "/review" else "/label", 303)
        remember_annotator(response, name)
        return response

    @router.get("/annotator")
    def change_name(request: Request) -> Response:
        return site.page(request, "name.html", {"back": "/label"})

    return router


def _nameless() -> JSONResponse:
    return JSONResponse({"error": "nobody is named: send your name to /annotator first"}, 401)
