"""Annotations: every answer, skip and flag that people gave, and their second thoughts."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, func, select

from burnish.project import utc_now
from burnish.store.insert import insert_new
from burnish.store.log import append_log, rows_payload
from burnish.store.tables import annotations
from burnish.types import Annotation

# By name, not by place, a row takes four times as long to read.
COLUMNS = [annotations.c[field.name] for field in fields(Annotation)]
"""What makes an `Annotation`, in the order of its fields."""


def add_annotations(
    connection: Connection, batch: Iterable[Annotation], *, actor: str, action: str = "annotate"
) -> int:
    """Add those of a batch whose client id is not known yet and return how many they are."""
    now = utc_now()
    rows = {a.client_id: _to_row(a, now) for a in batch}
    added = insert_new(connection, annotations, list(rows.values()), annotations.c.client_id)
    if added:
        new = [row for client_id, row in rows.items() if client_id in added]
        append_log(connection, actor, action, rows_payload(new))
    return len(added)


def read_annotations(
    connection: Connection, *, task: str | None = None, example_id: str | None = None
) -> Iterator[Annotation]:
    """Annotations in order of arrival, streaming; of one task or one example if asked."""
    query = select(*COLUMNS).order_by(annotations.c.seq)
    if task is not None:
        query = query.where(annotations.c.task == task)
    if example_id is not None:
        query = query.where(annotations.c.example_id == example_id)
    for row in connection.execute(query, execution_options={"yield_per": 1000}):
        yield Annotation(*row)


def read_annotation(connection: Connection, client_id: str) -> Annotation | None:
    """The annotation of that client id, or None."""
    query = select(*COLUMNS).where(annotations.c.client_id == client_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else Annotation(*row)


def count_annotations(connection: Connection) -> int:
    """How many annotations there are, of any task and status."""
    return connection.scalar(select(func.count()).select_from(annotations)) or 0


def _to_row(annotation: Annotation, now: str) -> dict[str, Any]:
    # Not `asdict`, which copies every text: a fifth of the time an import takes.
    row = {field.name: getattr(annotation, field.name) for field in fields(annotation)}
    return {**row, "created_at": annotation.created_at or now}
