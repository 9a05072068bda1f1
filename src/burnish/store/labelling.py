"""What labelling asks of the store beside the queue: newest annotations, and examples by prompt."""

import json
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby, islice
from typing import TypeVar

from sqlalchemy import ColumnElement, Connection, exists, func, select

from burnish.store.annotations import to_annotation
from burnish.store.examples import PAGE
from burnish.store.tables import annotations, examples, exclusions
from burnish.types import Annotation, Conversation

T = TypeVar("T")


def pages(items: Iterable[T]) -> Iterator[list[T]]:
    """Lists of at most `PAGE`: as many as one statement and one short transaction should take."""
    iterator = iter(items)
    while page := list(islice(iterator, PAGE)):
        yield page


def annotations_by_client_id(
    connection: Connection, client_ids: Collection[str]
) -> dict[str, Annotation]:
    """Those of the client-made ids that are known, with their annotations."""
    rows = connection.execute(select(annotations).where(annotations.c.client_id.in_(client_ids)))
    return {row.client_id: to_annotation(row) for row in rows}


def annotations_with_conversations(
    connection: Connection, task: str
) -> Iterator[tuple[Annotation, Conversation]]:
    """Every annotation of a task, oldest first, with its example's conversation. Streaming."""
    query = (
        select(annotations, examples.c.conversation)
        .join(examples, examples.c.id == annotations.c.example_id)
        .where(annotations.c.task == task)
        .order_by(annotations.c.seq)
    )
    for row in connection.execute(query, execution_options={"yield_per": 1000}):
        yield to_annotation(row), Conversation.from_json(json.loads(row.conversation))


def newest_annotations(
    connection: Connection, task: str, example_ids: Collection[str] | None = None
) -> Iterator[tuple[str, list[Annotation]]]:
    """Each annotated example's id with everybody's newest annotation, in order of arrival.

    Of all examples that are not excluded, or of these; what was withdrawn is left out. Streaming.
    """
    query = (
        select(annotations)
        .join(examples, examples.c.id == annotations.c.example_id)
        .where(
            annotations.c.task == task,
            ~exists().where(exclusions.c.example_id == annotations.c.example_id),
        )
        .order_by(examples.c.seq, annotations.c.seq)
    )
    if example_ids is not None:
        query = query.where(annotations.c.example_id.in_(example_ids))
    rows = connection.execute(query, execution_options={"yield_per": 1000})
    for example_id, group in groupby(map(to_annotation, rows), key=lambda a: a.example_id):
        newest = {a.annotator: a for a in group}.values()
        said = [a for a in newest if a.status != "withdrawn"]
        if said:
            yield example_id, said


def superseded(*status: str) -> ColumnElement[bool]:
    """Whether the same person has annotated the example again since, so if a status is given."""
    later = annotations.alias()
    again = exists().where(
        later.c.example_id == annotations.c.example_id,
        later.c.task == annotations.c.task,
        later.c.annotator == annotations.c.annotator,
        later.c.seq > annotations.c.seq,
    )
    return again.where(later.c.status.in_(status)) if status else again


def count_annotated(connection: Connection, task: str, annotator: str) -> int:
    """How many examples an annotator has answered, skipped or flagged, and not withdrawn."""
    theirs = annotations.c.task == task, annotations.c.annotator == annotator
    count = select(func.count(annotations.c.example_id.distinct())).where(*theirs)
    # Subtracted, since those withdrawn are few: asking it of each took four times as long.
    withdrawn = count.where(annotations.c.status == "withdrawn", ~superseded())
    return connection.scalar(select(count.scalar_subquery() - withdrawn.scalar_subquery())) or 0


def newest_standing(connection: Connection, task: str, annotator: str) -> Annotation | None:
    """The last thing an annotator said that they have not withdrawn."""
    query = select(annotations).where(
        annotations.c.task == task,
        annotations.c.annotator == annotator,
        annotations.c.status != "withdrawn",
        ~superseded(),
    )
    row = connection.execute(query.order_by(annotations.c.seq.desc()).limit(1)).one_or_none()
    return None if row is None else to_annotation(row)


def newest_by(
    connection: Connection, task: str, annotator: str, example_id: str
) -> Annotation | None:
    """The last answer, skip or flag an annotator gave on an example, withdrawn or not."""
    query = select(annotations).where(
        annotations.c.example_id == example_id,
        annotations.c.task == task,
        annotations.c.annotator == annotator,
        annotations.c.status != "withdrawn",
    )
    row = connection.execute(query.order_by(annotations.c.seq.desc()).limit(1)).one_or_none()
    return None if row is None else to_annotation(row)


def known_ids(connection: Connection, ids: Collection[str]) -> set[str]:
    """Those of the ids that are examples."""
    return set(connection.execute(select(examples.c.id).where(examples.c.id.in_(ids))).scalars())


def ids_by_prompt(connection: Connection, prompt_hashes: Collection[str]) -> dict[str, list[str]]:
    """The examples, excluded ones left out, with these `records.fingerprint` prompts."""
    query = select(examples.c.prompt_hash, examples.c.id).where(
        examples.c.prompt_hash.in_(prompt_hashes),
        ~exists().where(exclusions.c.example_id == examples.c.id),
    )
    found: dict[str, list[str]] = {}
    for prompt_hash, example_id in connection.execute(query.order_by(examples.c.seq)):
        found.setdefault(prompt_hash, []).append(example_id)
    return found
