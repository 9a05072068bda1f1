"""/tasks/NAME/tokens : what training will see of an answer while it is being written."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from burnish.chat.preview import Preview, preview
from burnish.errors import InputError, ResourceError
from burnish.records.answers import applied, checked_answer
from burnish.store.answers import read_candidates
from burnish.tasks import Task
from burnish.types import Conversation, Example
from burnish.web.identity import Person, person_of, shown_example
from burnish.web.site import Site


class Written(BaseModel):
    """What the page has of an answer so far."""

    model_config = ConfigDict(extra="forbid")

    example_id: str
    answer: str


def token_pages(site: Site) -> APIRouter:
    """What the token panel asks; apart from the page, which must not wait for a tokenizer."""
    router = APIRouter()

    @router.post("/tasks/{name}/tokens")
    def tokens(request: Request, name: str, written: Written) -> Response:
        rows = previewed(site, person_of(request), name, written.example_id, written.answer)
        if rows is None:
            return JSONResponse({"summary": "Left out of training.", "cut": 0, "pieces": []})
        return JSONResponse(_shown(rows, site.task(name)))

    return router


def previewed(
    site: Site, person: Person, task_name: str, example_id: str, answer: str
) -> list[Preview] | None:
    """The rows of training an answer makes; None where it is left out of training."""
    task = site.task(task_name)
    with site.store.reading() as connection:
        example = shown_example(connection, person, example_id)
        candidates = read_candidates(connection, task, [example]).get(example.id, ())
    if task.base is None:
        raise HTTPException(404, "the task names no base whose tokens could be shown")
    conversation = _trained_on(example, answer, task, candidates)
    if conversation is None:
        return None
    return preview(conversation, _template(task.base), task.max_length)


def _trained_on(
    example: Example, answer: str, task: Task, candidates: tuple[str, ...]
) -> Conversation | None:
    """The conversation with this answer; the prompt alone while it is none yet."""
    try:
        answer = checked_answer(answer, task, example, candidates)
        return applied(example, answer, task, candidates)
    except InputError:
        return example.conversation.prompt


@cache
def _template(base: str) -> Any:
    try:
        from burnish.nn.models import load_template
    except ModuleNotFoundError as error:
        raise ResourceError(
            f"showing tokens needs the module {error.name}", do="pip install 'burnish[train]'"
        ) from error
    return load_template(base)


def _shown(rows: list[Preview], task: Task) -> dict[str, Any]:
    count = sum(row.count for row in rows)
    cut = sum(row.count - row.kept for row in rows)
    trained = sum(row.trained for row in rows)
    summary = f"{count:,} tokens, {trained:,} of them trained; room for {task.max_length:,}"
    if len(rows) > 1:
        summary += f" in each of {len(rows)} rows"
    if cut:
        summary += f". {cut:,} are cut off"
    pieces = [
        {"text": token.text, "trained": token.weight != 0 and n < row.kept, "cut": n >= row.kept}
        for row in rows
        for n, token in enumerate(row.tokens)
        if token.text
    ]
    return {"summary": f"{summary}.", "cut": cut, "pieces": pieces}
