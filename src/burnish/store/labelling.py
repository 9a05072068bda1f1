"""What labelling asks of the store beside the queue: annotations and examples, found by what."""

from collections.abc import Collection, Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Select, bindparam, exists, func, select

from burnish.errors import InputError
from burnish.store.annotations import COLUMNS
from burnish.store.examples import PAGE
from burnish.store.tables import annotations, examples, exclusions
from burnish.types import Annotation

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
    rows = connection.execute(select(*COLUMNS).where(annotations.c.client_id.in_(client_ids)))
    return {row.client_id: Annotation(*row) for row in rows}


def annotations_by_example(
    connection: Connection, task: str, example_ids: Collection[str]
) -> dict[str, list[Annotation]]:
    """A task's annotations of these examples, those of each oldest first."""
    query = (
        select(*COLUMNS)
        .where(annotations.c.example_id.in_(example_ids), annotations.c.task == task)
        .order_by(annotations.c.seq)
    )
    found: dict[str, list[Annotation]] = {}
    for row in connection.execute(query):
        found.setdefault(row.example_id, []).append(Annotation(*row))
    return found


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
    return connection.scalar(_annotated(), {"of_task": task, "of_annotator": annotator}) or 0


@cache
def _annotated() -> Select[Any]:
    theirs = (
        annotations.c.task == bindparam("of_task"),
        annotations.c.annotator == bindparam("of_annotator"),
    )
    count = select(func.count(annotations.c.example_id.distinct())).where(*theirs)
    # Subtracted, since those withdrawn are few: asking it of each took four times as long.
    withdrawn = count.where(annotations.c.status == "withdrawn", ~superseded())
    return select(count.scalar_subquery() - withdrawn.scalar_subquery())


def newest_standing(connection: Connection, task: str, annotator: str) -> Annotation | None:
    """The last thing an annotator said that they have not withdrawn."""
    query = select(*COLUMNS).where(
        annotations.c.task == task,
        annotations.c.annotator == annotator,
        annotations.c.status != "withdrawn",
        ~superseded(),
    )
    row = connection.execute(query.order_by(annotations.c.seq.desc()).limit(1)).one_or_none()
    return None if row is None else Annotation(*row)


def newest_by(
    connection: Connection, task: str, annotator: str, example_id: str
) -> Annotation | None:
    """The last answer, skip or flag an annotator gave on an example, withdrawn or not."""
    who_and_what = {"of_task": task, "of_annotator": annotator, "of_example": example_id}
    row = connection.execute(_newest_by(), who_and_what).one_or_none()
    return None if row is None else Annotation(*row)


@cache
def _newest_by() -> Select[Any]:
    theirs = (
        annotations.c.example_id == bindparam("of_example"),
        annotations.c.task == bindparam("of_task"),
        annotations.c.annotator == bindparam("of_annotator"),
        annotations.c.status != "withdrawn",
    )
    return select(*COLUMNS).where(*theirs).order_by(annotations.c.seq.desc()).limit(1)


def known_ids(connection: Connection, ids: Collection[str]) -> set[str]:
    """Those of the ids that are examples."""
    return set(connection.execute(select(examples.c.id).where(examples.c.id.in_(ids))).scalars())


def check_known(connection: Connection, ids: Collection[str]) -> None:
    """Refuse ids that are no example's.

    Raises:
        InputError: names the first of them.
    """
    known = known_ids(connection, ids)
    for unknown in (id_ for id_ in ids if id_ not in known):
        raise InputError("there is no such example", where=unknown)


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
