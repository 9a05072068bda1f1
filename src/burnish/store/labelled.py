"""Examples with everything said of them on one task: what an export writes, an import checks by."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, exists, or_, select

from burnish.store.annotations import to_annotation
from burnish.store.drafts import Draft, read_drafts
from burnish.store.examples import PAGE
from burnish.store.tables import annotations, drafts, examples, gold
from burnish.types import Annotation, Conversation, Example

_SHOWN = [examples.c[name] for name in ("seq", "id", "conversation", "source", "metadata")]


@dataclass(frozen=True, slots=True)
class Gold:
    """The known answer of an example."""

    example_id: str
    task: str
    answer: str
    by: str
    created_at: str | None = None
    """ISO 8601 in UTC."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """An example and what was said of it, in order of arrival."""

    example_id: str
    example: Example
    """Its conversation, source and metadata; no more was read."""
    annotations: Sequence[Annotation] = ()
    drafts: Sequence[Draft] = ()
    gold: Gold | None = None


def labelled_examples(connection: Connection, task: str) -> Iterator[Labelled]:
    """Every example with an annotation, a draft or a gold answer, in order of arrival; streaming.

    Excluded ones too: what people said is not lost with the example.
    """
    said = or_(
        *(
            exists().where(table.c.example_id == examples.c.id, table.c.task == task)
            for table in (annotations, drafts, gold)
        )
    )
    last = 0
    while True:
        query = select(*_SHOWN).where(examples.c.seq > last, said).order_by(examples.c.seq)
        rows = connection.execute(query.limit(PAGE)).all()
        if not rows:
            return
        yield from _with_all_said(connection, task, rows)
        last = rows[-1].seq


def read_gold(
    connection: Connection, task: str, example_ids: Collection[str] | None = None
) -> Iterator[Gold]:
    """The gold answers of a task, or of these examples; streaming."""
    query = select(gold).where(gold.c.task == task).order_by(gold.c.example_id)
    if example_ids is not None:
        query = query.where(gold.c.example_id.in_(example_ids))
    for row in connection.execute(query, execution_options={"yield_per": PAGE}):
        yield Gold(row.example_id, row.task, row.answer, row.by, row.created_at)


def examples_by_id(connection: Connection, ids: Collection[str]) -> dict[str, Example]:
    """Conversation, source and metadata of those of the ids that are examples."""
    rows = connection.execute(select(*_SHOWN).where(examples.c.id.in_(ids)))
    return {row.id: _to_example(row) for row in rows}


def _with_all_said(
    connection: Connection, task: str, rows: Sequence[Row[Any]]
) -> Iterator[Labelled]:
    ids = [row.id for row in rows]
    query = (
        select(annotations)
        .where(annotations.c.example_id.in_(ids), annotations.c.task == task)
        .order_by(annotations.c.seq)
    )
    given: dict[str, list[Annotation]] = {}
    for row in connection.execute(query):
        given.setdefault(row.example_id, []).append(to_annotation(row))
    proposed = read_drafts(connection, task, ids)
    known = {one.example_id: one for one in read_gold(connection, task, ids)}
    for row in rows:
        yield Labelled(
            row.id,
            _to_example(row),
            given.get(row.id, ()),
            proposed.get(row.id, ()),
            known.get(row.id),
        )


def _to_example(row: Row[Any]) -> Example:
    conversation = Conversation.from_json(json.loads(row.conversation))
    return Example(conversation, row.source, json.loads(row.metadata))
