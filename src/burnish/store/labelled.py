"""Examples with everything said of them on one task: what an export writes, an import checks by."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Row, exists, func, or_, select

from burnish.store.drafts import Draft, read_drafts
from burnish.store.examples import PAGE
from burnish.store.labelling import annotations_by_example
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


T = TypeVar("T", Annotation, Draft, Gold)


@dataclass(frozen=True, slots=True)
class Labelled:
    """An example and what was said of it, in order of arrival."""

    example_id: str
    example: Example
    """Its conversation, source and metadata; no more was read."""
    annotations: Sequence[Annotation] = ()
    drafts: Sequence[Draft] = ()
    gold: Gold | None = None


def labelled_after(connection: Connection, task: str, after: int) -> list[tuple[int, Labelled]]:
    """The next examples with an annotation, a draft or a gold answer, at most `PAGE`, by `seq`.

    Excluded ones too: what people said is not lost with the example.
    """
    said = or_(
        *(
            exists().where(table.c.example_id == examples.c.id, table.c.task == task)
            for table in (annotations, drafts, gold)
        )
    )
    query = select(*_SHOWN).where(examples.c.seq > after, said).order_by(examples.c.seq)
    return _with_all_said(connection, task, connection.execute(query.limit(PAGE)).all())


def annotations_after(
    connection: Connection, task: str, after: int, *, until: int
) -> list[tuple[int, Annotation, Conversation]]:
    """The next annotations of a task, at most `PAGE`, by `seq` up to `until`."""
    place = annotations.c.seq
    return _said_after(connection, task, Annotation, place, after, place <= until)


def drafts_after(
    connection: Connection, task: str, after: int
) -> list[tuple[int, Draft, Conversation]]:
    """The next drafts of a task, at most `PAGE`, by `seq`."""
    return _said_after(connection, task, Draft, drafts.c.seq, after)


def gold_after(
    connection: Connection, task: str, after: str
) -> list[tuple[str, Gold, Conversation]]:
    """The next gold answers of a task, at most `PAGE`, by `example_id`."""
    return _said_after(connection, task, Gold, gold.c.example_id, after)


def newest_annotation_seq(connection: Connection) -> int:
    """The `seq` of the annotation that came last; 0 before the first."""
    return connection.scalar(select(func.max(annotations.c.seq))) or 0


def read_gold(connection: Connection, task: str, example_ids: Collection[str]) -> list[Gold]:
    """The gold answers of these examples."""
    query = select(gold).where(gold.c.task == task, gold.c.example_id.in_(example_ids))
    rows = connection.execute(query)
    return [Gold(row.example_id, row.task, row.answer, row.by, row.created_at) for row in rows]


def examples_by_id(connection: Connection, ids: Collection[str]) -> dict[str, Example]:
    """Conversation, source and metadata of those of the ids that are examples."""
    rows = connection.execute(select(*_SHOWN).where(examples.c.id.in_(ids)))
    return {row.id: _to_example(row) for row in rows}


def _said_after(
    connection: Connection,
    task: str,
    kind: type[T],
    place: Column[Any],
    after: int | str,
    *also: ColumnElement[bool],
) -> list[tuple[Any, T, Conversation]]:
    """What the next rows of the table of `place` say, each with its example's conversation."""
    said = place.table.c
    query = (
        select(place, examples.c.conversation, *(said[field.name] for field in fields(kind)))
        .join(examples, examples.c.id == said.example_id)
        .where(said.task == task, place > after, *also)
        .order_by(place)
        .limit(PAGE)
    )
    return [
        (at, kind(*values), Conversation.from_json(json.loads(shown)))
        for at, shown, *values in connection.execute(query)
    ]


def _with_all_said(
    connection: Connection, task: str, rows: Sequence[Row[Any]]
) -> list[tuple[int, Labelled]]:
    ids = [row.id for row in rows]
    given = annotations_by_example(connection, task, ids)
    proposed = read_drafts(connection, task, ids)
    known = {one.example_id: one for one in read_gold(connection, task, ids)}
    return [
        (
            row.seq,
            Labelled(
                row.id,
                _to_example(row),
                given.get(row.id, ()),
                proposed.get(row.id, ()),
                known.get(row.id),
            ),
        )
        for row in rows
    ]


def _to_example(row: Row[Any]) -> Example:
    conversation = Conversation.from_json(json.loads(row.conversation))
    return Example(conversation, row.source, json.loads(row.metadata))
