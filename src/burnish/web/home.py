"""/ : the project's tasks and how far each is."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import Response

from burnish.label.queue import Progress, progress_of
from burnish.label.review import count_disputes
from burnish.tasks import Task
from burnish.web.identity import person_of
from burnish.web.site import Site


@dataclass(frozen=True, slots=True)
class _Row:
    task: Task
    progress: Progress
    disputes: int | None
    """How many wait for a reviewer; None for those who are none."""


def home_pages(site: Site) -> APIRouter:
    """The task chooser."""
    router = APIRouter()

    @router.get("/")
    def home(request: Request) -> Response:
        person = person_of(request)
        rows = [
            _Row(
                task,
                progress_of(site.store, task, person.name),
                count_disputes(site.store, task) if person.may("reviewer") else None,
            )
            for task in site.tasks.values()
        ]
        return site.page(request, "home.html", {"rows": rows})

    return router
