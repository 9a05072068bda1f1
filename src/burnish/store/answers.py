"""The answer in force for each example: what a person decided, else agreed on, else was given.

    resolution > annotations that agree > the example's own answer

Audit and snapshot ask the same question here, so what is checked is what is frozen.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Table, select

from burnish.hashing import canonical_json
from burnish.project import utc_now
from burnish.store.annotations import to_annotation
from burnish.store.examples import example_pages
from burnish.store.log import append_log, rows_payload
from burnish.store.tables import annotations, exclusions, resolutions
from burnish.types import Annotation, Conversation, Example

AnswerStatus = Literal["answered", "unlabelled", "disagreement", "flagged"]


@dataclass(frozen=True, slots=True)
class Resolution:
    """A disagreement settled: the answer somebody decided on, and what the decision rests on."""

    example_id: str
    task: str
    answer: str
    annotation_ids: tuple[str, ...]
    """Client ids of the annotations."""
    resolved_by: str
    created_at: str | None = None
    """ISO 8601 in UTC."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An example and the state of its answer."""

    example: Example
    status: AnswerStatus
    conversation: Conversation
    """With the answer in force where `status` is `answered`, else as received."""
    annotations: tuple[Annotation, ...] = ()
    """Those the answer rests on; empty where it is the example's own."""


def add_resolutions(connection: Connection, batch: Iterable[Resolution], *, actor: str) -> None:
    """Add decisions; the newest one of an example and task is in force."""
    now = utc_now()
    rows = [
        {
            "example_id": r.example_id,
            "task": r.task,
            "answer": r.answer,
            "annotation_ids": canonical_json(list(r.annotation_ids)),
            "resolved_by": r.resolved_by,
            "created_at": r.created_at or now,
        }
        for r in batch
    ]
    if rows:
        connection.execute(resolutions.insert(), rows)
        append_log(connection, actor, "resolve", rows_payload(rows))


def read_resolutions(connection: Connection, *, task: str) -> Iterator[Resolution]:
    """Every decision of a task in order, streaming; a later one of an example replaces it."""
    query = select(resolutions).where(resolutions.c.task == task).order_by(resolutions.c.seq)
    for row in connection.execute(query, execution_options={"yield_per": 1000}):
        yield _to_resolution(row)


def read_answered(connection: Connection, *, task: str = "answer") -> Iterator[Answered]:
    """Every example that is not excluded, in order of arrival, with the state of its answer."""
    for page in example_pages(connection):
        ids = [example.id for example in page]
        excluded = {row.example_id for row in _of_examples(connection, exclusions, ids)}
        decided: dict[str, Resolution] = {}
        for row in _of_examples(connection, resolutions, ids, task):
            decided[row.example_id] = _to_resolution(row)
        given: dict[str, list[Annotation]] = {}
        for row in _of_examples(connection, annotations, ids, task):
            given.setdefault(row.example_id, []).append(to_annotation(row))
        for example in page:
            if example.id not in excluded:
                yield answer_in_force(example, decided.get(example.id), given.get(example.id, []))


def answer_in_force(
    example: Example, resolution: Resolution | None, given: list[Annotation]
) -> Answered:
    """Apply the rule above to one example.

    An annotator's later annotation replaces the earlier one. A flag waits for a person; a skip says
    nothing. Answers agree when they are equal but for surrounding white space.
    """
    if resolution is not None:
        basis = tuple(a for a in given if a.client_id in resolution.annotation_ids)
        answered = example.conversation.answered(resolution.answer)
        return Answered(example, "answered", answered, basis)
    latest = {a.annotator: a for a in given}.values()
    if any(a.status == "flagged" for a in latest):
        return Answered(example, "flagged", example.conversation)
    submitted = tuple(a for a in latest if a.status == "submitted")
    if len({a.answer.strip() for a in submitted}) > 1:
        return Answered(example, "disagreement", example.conversation)
    if submitted:
        answered = example.conversation.answered(submitted[0].answer)
        return Answered(example, "answered", answered, submitted)
    status: AnswerStatus = "answered" if example.conversation.answer else "unlabelled"
    return Answered(example, status, example.conversation)


def _of_examples(
    connection: Connection, table: Table, ids: list[str], task: str | None = None
) -> Iterator[Any]:
    """A table's rows that belong to a page of examples, oldest first."""
    query = select(table).where(table.c.example_id.in_(ids))
    if task is not None:
        query = query.where(table.c.task == task).order_by(table.c.seq)
    yield from connection.execute(query)


def _to_resolution(row: Any) -> Resolution:
    return Resolution(
        row.example_id,
        row.task,
        row.answer,
        tuple(json.loads(row.annotation_ids)),
        row.resolved_by,
        row.created_at,
    )
