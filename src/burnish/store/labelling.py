"""What labelling asks of the store beside the queue: newest annotations, and examples by prompt."""

import json
from collections.abc import Collection, Iterable, Iterator
from itertools import groupby, islice
from typing import TypeVar

from sqlalchemy import Connection, exists, func, select

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

    Of all examples that are not excluded, or of these. Streaming.
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
        yield example_id, list({a.annotator: a for a in group}.values())


def count_annotated(connection: Connection, task: str, annotator: str) -> int:
    """How many examples an annotator has answered, skipped or flagged."""
    query = select(func.count(annotations.c.example_id.distinct())).where(
        annotations.c.task == task, annotations.c.annotator == annotator
    )
    return connection.scalar(query) or 0


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
