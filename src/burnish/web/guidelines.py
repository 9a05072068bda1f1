"""/tasks/NAME/guidelines : what annotators go by, how that has changed, an editor for admins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from burnish.errors import ProjectError, UserError
from burnish.label.guidelines import current_guidelines, guideline_history, write_guidelines
from burnish.store.guidelines import GuidelineVersion
from burnish.tasks import Task
from burnish.web.identity import person_of, require
from burnish.web.site import Site

_Text = Annotated[str, Form()]


class Change(NamedTuple):
    """A piece of the text between two versions."""

    kind: Literal["same", "del", "ins"]
    text: str


def guideline_pages(site: Site) -> APIRouter:
    """The guidelines, one version against the one before, and the editor."""
    router = APIRouter()

    @router.get("/tasks/{name}/guidelines")
    def guidelines(request: Request, name: str) -> Response:
        task = site.task(name)
        data = {
            "task": task,
            "guidelines": site.guidelines(task),
            "history": guideline_history(site.store, task),
        }
        return site.page(request, "guidelines.html", data)

    @router.get("/tasks/{name}/guidelines/edit", dependencies=[Depends(require("admin"))])
    def edit(request: Request, name: str) -> Response:
        task = site.task(name)
        try:
            current = current_guidelines(site.store, site.project, task)
        except ProjectError as error:
            fault = f"{error.where}: {error.what}. What you save here takes its place."
            return form(request, task, "", "", fault)
        return form(request, task, current.text, current.version)

    @router.post("/tasks/{name}/guidelines/edit", dependencies=[Depends(require("admin"))])
    def change(request: Request, name: str, text: _Text, instead_of: _Text = "") -> Response:
        task = site.task(name)
        person = person_of(request).name
        try:
            write_guidelines(
                site.store, site.project, task, text, instead_of=instead_of, person=person
            )
        except UserError as error:
            # With what they wrote: a page of its own would lose it.
            return form(request, task, text, instead_of, str(error), status=422)
        return RedirectResponse(f"/tasks/{task.name}/guidelines", 303)

    @router.get("/tasks/{name}/guidelines/{place}")
    def version(request: Request, name: str, place: int) -> Response:
        """The version that was the `place`th, and what it changed; the first is 1."""
        task = site.task(name)
        oldest_first = guideline_history(site.store, task)[::-1]
        if not 1 <= place <= len(oldest_first):
            raise HTTPException(404, f"the guidelines have {len(oldest_first)} versions")
        shown = oldest_first[place - 1]
        before = oldest_first[place - 2].text if place > 1 else ""
        data = {"task": task, "version": shown, "place": place, "changes": _changes(before, shown)}
        return site.page(request, "guidelines_version.html", data)

    def form(
        request: Request,
        task: Task,
        text: str,
        instead_of: str,
        fault: str | None = None,
        status: int = 200,
    ) -> Response:
        data = {"task": task, "text": text, "instead_of": instead_of, "fault": fault}
        return site.page(request, "guidelines_edit.html", data, status)

    return router


def _changes(before: str, after: GuidelineVersion) -> list[Change]:
    """What changed: by lines, and within changed lines by words."""
    return list(_compare(before.splitlines(True), after.text.splitlines(True), within=True))


def _compare(a: list[str], b: list[str], *, within: bool) -> Iterator[Change]:
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        old, new = "".join(a[i1:i2]), "".join(b[j1:j2])
        if tag == "equal":
            yield Change("same", old)
        elif tag == "replace" and within:
            yield from _compare(_words(old), _words(new), within=False)
        else:
            if old:
                yield Change("del", old)
            if new:
                yield Change("ins", new)


def _words(text: str) -> list[str]:
    return re.findall(r"\s+|\w+|[^\w\s]", text)
