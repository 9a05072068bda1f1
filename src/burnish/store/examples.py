"""Examples: added once, never changed, read as a stream in the order they arrived."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, select

from burnish.hashing import canonical_json
from burnish.project import utc_now
from burnish.records.fingerprint import prompt_fingerprint
from burnish.store.insert import insert_new
from burnish.store.log import append_log, rows_payload
from burnish.store.tables import example_subjects, examples
from burnish.types import Conversation, Example

# Rows read at a time. More is no quicker, and a page of long conversations must fit in memory.
PAGE = 1000


def add_examples(
    connection: Connection, batch: Iterable[Example], *, actor: str, action: str = "collect"
) -> int:
    """Add those of a batch that are not known yet and return how many they are."""
    now = utc_now()
    new = {example.id: example for example in batch}
    added = insert_new(connection, examples, [_to_row(e, now) for e in new.values()], examples.c.id)
    if not added:
        return 0
    subjects = [
        {"example_id": id_, "position": position, "subject_id": subject}
        for id_ in added
        for position, subject in enumerate(new[id_].subject_ids)
    ]
    if subjects:
        connection.execute(example_subjects.insert(), subjects)
    append_log(connection, actor, action, rows_payload([id_ for id_ in new if id_ in added]))
    return len(added)


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


def _to_row(example: Example, now: str) -> dict[str, Any]:
    return {
        "id": example.id,
        "conversation": example.conversation.canonical,
        "conversation_hash": example.conversation.hash,
        "prompt_hash": prompt_fingerprint(example.conversation),
        "source": example.source,
        "metadata": canonical_json(dict(example.metadata)),
        "weight": example.weight,
        "licence": example.licence,
        "consent": example.consent,
        "received_at": example.received_at or now,
        "parent": example.parent,
    }


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
