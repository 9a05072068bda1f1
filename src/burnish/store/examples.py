"""Examples: added once, never changed, read as a stream in the order they arrived."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, select

from burnish.project import utc_now
from burnish.records.fingerprint import prompt_fingerprint
from burnish.store.insert import insert_many, listed
from burnish.store.locks import hold_name
from burnish.store.log import append_log, rows_payload
from burnish.store.search_index import add_words
from burnish.store.tables import example_subjects, examples
from burnish.store.words import index_text
from burnish.types import Conversation, Example

# Rows read at a time. More is no quicker, and a page of long conversations must fit in memory.
PAGE = 1000

ExampleRow = tuple[tuple[Any, ...], tuple[str, ...], str]
"""What the tables keep of an example: its columns from `id` on, its subjects, its words.

Plain tuples, as a million of them go from one process to another: pickled and read again in 1.3 µs,
a dict of the same in 3.5.
"""

_COLUMNS = [column.name for column in examples.c if column.name != "seq"]


def add_examples(
    connection: Connection, batch: Iterable[Example], *, actor: str, action: str = "collect"
) -> int:
    """Add those of a batch that are not known yet and return how many they are."""
    now = utc_now()
    rows = [example_row(example, now) for example in batch]
    return add_rows(connection, rows, actor=actor, action=action)


def example_row(example: Example, received_at: str) -> ExampleRow:
    """An example's row. Most of the work of adding one; needs no store."""
    conversation, metadata = example.conversation, dict(example.metadata)
    columns = (
        example.id,
        conversation.canonical,
        conversation.hash,
        prompt_fingerprint(conversation),
        example.source,
        example.canonical_metadata,
        example.weight,
        example.licence,
        example.consent,
        example.received_at or received_at,
        example.parent,
    )
    return columns, example.subject_ids, index_text(conversation, example.source, metadata)


def add_rows(
    connection: Connection, batch: Iterable[ExampleRow], *, actor: str, action: str = "collect"
) -> int:
    """`add_examples` of rows that `example_row` has made."""
    rows = {row[0][0]: row for row in batch}
    first = _next_seq(connection)
    same = select(examples.c.id).where(examples.c.id.in_(listed(connection, rows)))
    known = set(connection.execute(same).scalars())
    new = {id_: row for id_, row in rows.items() if id_ not in known}
    if not new:
        return 0
    numbered = list(enumerate(new.values(), first))
    columns = [(seq, *columns) for seq, (columns, _, _) in numbered]
    insert_many(connection, "examples", ("seq", *_COLUMNS), columns)
    add_words(connection, [(seq, words) for seq, (_, _, words) in numbered])
    subjects = [
        (id_, position, subject)
        for id_, (_, subject_ids, _) in new.items()
        for position, subject in enumerate(subject_ids)
    ]
    if subjects:
        insert_many(
            connection, "example_subjects", ("example_id", "position", "subject_id"), subjects
        )
    append_log(connection, actor, action, rows_payload(new))
    return len(new)


def _next_seq(connection: Connection) -> int:
    """The seq of the next example to arrive; nobody else adds any until the transaction ends.

    So the order of seq is the order of commits, and who has read up to one seq has missed nothing
    before it.
    """
    hold_name(connection, "examples")
    return (connection.scalar(select(func.max(examples.c.seq))) or 0) + 1


def read_example(connection: Connection, example_id: str) -> Example | None:
    """The example with this id."""
    rows = connection.execute(_with_subjects(), {"example_id": example_id}).all()
    subjects = [row.subject_id for row in rows if row.subject_id is not None]
    return _to_example(rows[0], {example_id: subjects}) if rows else None


@cache
def _with_subjects() -> Select[Any]:
    """An example's row once for each of its subjects, in their order, or once without any."""
    of_example = example_subjects.c.example_id == examples.c.id
    return (
        select(examples, example_subjects.c.subject_id)
        .outerjoin(example_subjects, of_example)
        .where(examples.c.id == bindparam("example_id"))
        .order_by(example_subjects.c.position)
    )


def read_examples(connection: Connection) -> Iterator[Example]:
    """Every example in order of arrival, a page at a time."""
    for page in example_pages(connection):
        yield from page


def example_pages(connection: Connection) -> Iterator[list[Example]]:
    """Every example in order of arrival, in lists of at most `PAGE`."""
    last = 0
    while True:
        query = select(examples).where(examples.c.seq > last).order_by(examples.c.seq).limit(PAGE)
        rows = connection.execute(query).all()
        if not rows:
            return
        subjects = _subjects(connection, rows)
        yield [_to_example(row, subjects) for row in rows]
        last = rows[-1].seq


def read_subject_prompts(connection: Connection) -> Iterator[tuple[str, str]]:
    """(subject id, prompt hash) of every example that holds somebody's data, streaming."""
    query = select(example_subjects.c.subject_id, examples.c.prompt_hash).join(
        examples, examples.c.id == example_subjects.c.example_id
    )
    for row in connection.execute(query, execution_options={"yield_per": 1000}):
        yield row.subject_id, row.prompt_hash


def count_examples(connection: Connection) -> int:
    """How many examples there are, the excluded ones included."""
    return connection.scalar(select(func.count()).select_from(examples)) or 0


def _to_example(row: Row[Any], subjects: dict[str, list[str]]) -> Example:
    return Example(
        conversation=Conversation.from_json(json.loads(row.conversation)),
        source=row.source,
        metadata=json.loads(row.metadata),
        weight=row.weight,
        licence=row.licence,
        consent=row.consent,
        subject_ids=tuple(subjects.get(row.id, ())),
        received_at=row.received_at,
        parent=row.parent,
    )


def _subjects(connection: Connection, rows: Sequence[Row[Any]]) -> dict[str, list[str]]:
    """Subject ids of a page's examples, by example, in the order they were given."""
    query = (
        select(example_subjects.c.example_id, example_subjects.c.subject_id)
        .join(examples, examples.c.id == example_subjects.c.example_id)
        .where(examples.c.seq.between(rows[0].seq, rows[-1].seq))
        .order_by(examples.c.seq, example_subjects.c.position)
    )
    found: dict[str, list[str]] = {}
    for example_id, subject_id in connection.execute(query):
        found.setdefault(example_id, []).append(subject_id)
    return found
