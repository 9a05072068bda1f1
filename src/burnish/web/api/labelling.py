"""What every annotator may do: see their tasks, be asked, answer, take back."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from burnish.label.guidelines import Guidelines, current_guidelines, guideline_history
from burnish.label.queue import Progress, next_item, progress_of, submit, undo_last
from burnish.store.guidelines import GuidelineVersion
from burnish.tasks import Task
from burnish.types import Annotation
from burnish.web.api.models import (
    Answer,
    ExampleInPath,
    ExampleRecord,
    InPath,
    ItemRecord,
    Me,
    Submission,
    TokenPreview,
    Written,
    written,
)
from burnish.web.identity import person_of, shown_example
from burnish.web.site import Site
from burnish.web.tokens import previewed


def labelling_routes(site: Site) -> APIRouter:
    """The routes of an annotator's day."""
    router = APIRouter(tags=["labelling"])

    @router.get("/me")
    def me(request: Request) -> Me:
        """Who this token or session stands for."""
        person = person_of(request)
        return Me(name=person.name, role=person.role)

    @router.get("/examples/{example_id}")
    def example(request: Request, example_id: ExampleInPath) -> ExampleRecord:
        """An example; for an annotator, one that is leased to them or that they have answered."""
        with site.store.reading() as connection:
            return ExampleRecord.of(shown_example(connection, person_of(request), example_id))

    @router.post("/tasks/{task}/tokens")
    def tokens(request: Request, task: InPath, sent: Written) -> TokenPreview:
        """The tokens training will see of an answer, by the base that the task names."""
        rows = previewed(site, person_of(request), task, sent.example_id, sent.answer)
        return TokenPreview(rows=rows or [], max_length=site.task(task).max_length)

    router.include_router(_task_routes(site))
    router.include_router(_queue_routes(site))
    return router


def _task_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.get("/tasks")
    def tasks() -> list[Task]:
        """The project's tasks, in the order of burnish.toml."""
        return list(site.tasks.values())

    @router.get("/tasks/{task}")
    def task(task: InPath) -> Task:
        """What is asked, of how many people."""
        return site.task(task)

    @router.get("/tasks/{task}/guidelines")
    def guidelines(task: InPath) -> Guidelines:
        """What annotators go by now."""
        return current_guidelines(site.store, site.project, site.task(task))

    @router.get("/tasks/{task}/guidelines/history")
    def history(task: InPath) -> list[GuidelineVersion]:
        """Every version, newest first."""
        return guideline_history(site.store, site.task(task))

    return router


def _queue_routes(site: Site) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/tasks/{task}/next",
        response_model=ItemRecord,
        responses={204: {"description": "Nothing is left for you."}},
    )
    def next_(request: Request, task: InPath) -> Response:
        """The next example for you, leased to you; the same one until you answer."""
        annotator, asked = person_of(request).name, site.task(task)
        item = next_item(site.store, asked, annotator, now=datetime.now(UTC))
        if item is None:
            return Response(status_code=204)
        return written(ItemRecord.of(item, _version_in_force(site, asked)))

    @router.post(
        "/tasks/{task}/annotations",
        status_code=201,
        response_model=Submission,
        responses={200: {"model": Submission, "description": "It had arrived before."}},
    )
    def answer(request: Request, task: InPath, sent: Answer) -> Response:
        """Answer, skip or flag an example; for an annotator, one that was given to them."""
        person, asked = person_of(request), site.task(task)
        came_of_it = submit(
            site.store,
            asked,
            Annotation(task=asked.name, annotator=person.name, **sent.model_dump()),
            now=datetime.now(UTC),
            guideline_version=_version_in_force(site, asked),
            only_shown=not person.may("reviewer"),
        )
        submission = Submission(annotation=came_of_it.annotation, is_new=came_of_it.is_new)
        return written(submission, 201 if came_of_it.is_new else 200)

    @router.post(
        "/tasks/{task}/undo",
        response_model=Annotation,
        responses={204: {"description": "There is no answer of yours to take back."}},
    )
    def undo(request: Request, task: InPath) -> Annotation | Response:
        """Take back your newest answer; its example is leased to you again."""
        annotator = person_of(request).name
        taken_back = undo_last(site.store, site.task(task), annotator, now=datetime.now(UTC))
        return taken_back or Response(status_code=204)

    @router.get("/tasks/{task}/progress")
    def progress(request: Request, task: InPath) -> Progress:
        """How far you and everybody are."""
        return progress_of(site.store, site.task(task), person_of(request).name)

    return router


def _version_in_force(site: Site, task: Task) -> str:
    guidelines = site.guidelines(task)
    return guidelines.version if guidelines else ""
