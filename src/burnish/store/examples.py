"""Examples: added once, never changed, read as a stream in the order they arrived."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Text, cast, func, select
from sqlalchemy.dialects.postgresql import JSON

from burnish.hashing import canonical_json
from burnish.project import utc_now
from burnish.records.fingerprint import prompt_fingerprint
from burnish.store.insert import insert_many
from burnish.store.locks import hold_name
from burnish.store.log import append_log, rows_payload
from burnish.store.search_index import add_words
from burnish.store.tables import example_subjects, examples
from burnish.store.words import index_text
from burnish.types import Conversation, Example

# Rows read at a time. More is no quicker, and a page of long conversations must fit in memory.
PAGE = 1000

_COLUMNS = [column.name for column in examples.c if column.name != "seq"]


def add_examples(
    connection: Connection, batch: Iterable[Example], *, actor: str, action: str = "collect"
) -> int:
    """Add those of a batch that are not known yet and return how many they are."""
    now = utc_now()
    rows = [example_row(example, now) for example in batch]
    return add_rows(connection, rows, actor=actor, action=action)


def example_row(example: Example, received_at: str) -> dict[str, Any]:
    """What the tables keep of an example. Most of the work of adding one; needs no store."""
    conversation, metadata = example.conversation, dict(example.metadata)
    return {
        "id": example.id,
        "conversation": conversation.canonical,
        "conversation_hash": conversation.hash,
        "prompt_hash": prompt_fingerprint(conversation),
        "source": example.source,
        "metadata": canonical_json(metadata),
        "weight": example.weight,
        "licence": example.licence,
        "consent": example.consent,
        "received_at": example.received_at or received_at,
        "parent": example.parent,
        "subject_ids": example.subject_ids,
        "words": index_text(conversation, example.source, metadata),
    }


def add_rows(
    connection: Connection,
    batch: Iterable[Mapping[str, Any]],
    *,
    actor: str,
    action: str = "collect",
) -> int:
    """`add_examples` of rows that `example_row` has made."""
    rows = {row["id"]: row for row in batch}
    first = _next_seq(connection)
    known = _known(connection, rows)
    new = [row for id_, row in rows.items() if id_ not in known]
    if not new:
        return 0
    insert_many(
        connection,
        "examples",
        ("seq", *_COLUMNS),
        [(seq, *map(row.__getitem__, _COLUMNS)) for seq, row in enumerate(new, first)],
    )
    add_words(connection, [(seq, row["words"]) for seq, row in enumerate(new, first)])
    subjects = [
        (row["id"], position, subject)
        for row in new
        for position, subject in enumerate(row["subject_ids"])
    ]
    if subjects:
        columns = ("example_id", "position", "subject_id")
        insert_many(connection, "example_subjects", columns, subjects)
    append_log(connection, actor, action, rows_payload([row["id"] for row in new]))
    return len(new)


def _next_seq(connection: Connection) -> int:
    """The seq of the next example to arrive; nobody else adds any until the transaction ends.

    So the order of seq is the order of commits, and who has read up to one seq has missed nothing
    before it.
    """
    hold_name(connection, "examples")
    return (connection.scalar(select(func.max(examples.c.seq))) or 0) + 1


def _known(connection: Connection, ids: Collection[str]) -> set[str]:
    """Those of the ids that are examples; asked in one JSON text, as a batch has 10,000."""
    text = canonical_json(list(ids))
    if connection.dialect.name == "postgresql":
        listed = func.json_array_elements_text(cast(cast(text, Text), JSON)).table_valued("value")
    else:
        listed = func.json_each(text).table_valued("value")
    known = select(examples.c.id).where(examples.c.id.in_(select(listed.c.value)))
    return set(connection.execute(known).scalars())


def read_example(connection: Connection, example_id: str) -> Example | None:
    """The example with this id."""
    row = connection.execute(select(examples).where(examples.c.id == example_id)).one_or_none()
    return _to_example(row, _subjects(connection, [row])) if row else None


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
