"""The slots of examples: who holds which, and what an annotation does to them.

A *slot* is one of the answers an example wants. A row of `leases` holds a slot: while a person
works on it, until `expires_at`; once they have answered, for good (`ANSWERED`). Two unique
constraints make the overlap exact: a slot has one holder, and a person holds one slot of an
example. A gold item has as many slots as there are people.
"""

from collections.abc import Collection, Iterable
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Update,
    and_,
    bindparam,
    delete,
    select,
    update,
)

from burnish.store.disputes import refresh_disputes
from burnish.store.insert import insert_many
from burnish.store.queue_rows import enter_queue, lock_rows, refresh_rows
from burnish.store.tables import annotations, leases
from burnish.tasks import Task
from burnish.types import Annotation

Text = str | ColumnElement[str]

ANSWERED = "9999-12-31T23:59:59.999+00:00"
"""`expires_at` of a slot whose holder has answered."""

_IDS: ColumnElement[Any] = bindparam("ids", expanding=True)


def settle_slots(connection: Connection, task: Task, batch: Iterable[Annotation]) -> None:
    """Bring slots, queue and disputes up to date with annotations just added.

    Who has submitted holds a slot for good: their own, or, when their lease had gone to somebody
    else or they were never asked (imported labels), a further one. Who has skipped, flagged or
    withdrawn holds none.
    """
    people = {(a.example_id, a.annotator) for a in batch}
    if not people:
        return
    ids = sorted({example_id for example_id, _ in people})
    enter_queue(connection, task.name, ids)
    said = _said(connection, task.name, ids)
    slots = slots_of(connection, task.name, ids)
    gone: list[tuple[str, str]] = []
    new: list[tuple[str, str, int, str, str]] = []
    for example_id, annotator in sorted(people):
        holders = slots.setdefault(example_id, {})
        status, _ = said[example_id][annotator][-1]
        if status != "submitted":
            if holders.pop(annotator, None) is not None:
                gone.append((example_id, annotator))
        elif annotator in holders:
            set_expiry(connection, task.name, example_id, annotator, ANSWERED)
        else:
            holders[annotator] = free_slot(holders.values())
            new.append((example_id, task.name, holders[annotator], annotator, ANSWERED))
    for example_id, annotator in gone:
        connection.execute(delete(leases).where(is_lease_of(example_id, task.name, annotator)))
    if new:
        columns = ("example_id", "task", "slot", "annotator", "expires_at")
        insert_many(connection, "leases", columns, new)
    refresh_rows(connection, task.name, ids)
    disputable = [id_ for id_ in ids if _was_ever_disputable(said[id_])]
    if disputable:
        refresh_disputes(connection, task, disputable)


def settle_resolved(connection: Connection, task: Task, ids: Collection[str]) -> None:
    """Take examples that have just been resolved out of the queue and the disputes."""
    lock_rows(connection, task.name, ids)
    refresh_rows(connection, task.name, ids)
    refresh_disputes(connection, task, ids)


def set_expiry(
    connection: Connection, task: str, example_id: str, annotator: str, expires_at: str
) -> None:
    """Let somebody hold their slot until then (ISO 8601), or for good (`ANSWERED`)."""
    lease = {"of_task": task, "of_example": example_id, "of_annotator": annotator}
    connection.execute(_expiry(), {**lease, "expires_at": expires_at})


@cache
def _expiry() -> Update:
    lease = is_lease_of(bindparam("of_example"), bindparam("of_task"), bindparam("of_annotator"))
    return update(leases).where(lease)


def is_lease_of(example_id: Text, task: Text, annotator: Text) -> ColumnElement[bool]:
    """Whether a row of `leases` is this person's slot of this example."""
    return and_(
        leases.c.example_id == example_id,
        leases.c.task == task,
        leases.c.annotator == annotator,
    )


_Said = dict[str, list[tuple[str, str]]]
"""Each person's annotations of an example, oldest first: status and answer."""


def _said(connection: Connection, task: str, ids: Collection[str]) -> dict[str, _Said]:
    rows = connection.execute(_statuses(), {"task": task, "ids": list(ids)})
    said: dict[str, _Said] = {id_: {} for id_ in ids}
    for example_id, annotator, status, answer in rows:
        said[example_id].setdefault(annotator, []).append((status, answer))
    return said


@cache
def _statuses() -> Select[Any]:
    said = annotations.c.annotator, annotations.c.status, annotations.c.answer
    return (
        select(annotations.c.example_id, *said)
        .where(annotations.c.example_id.in_(_IDS), annotations.c.task == bindparam("task"))
        .order_by(annotations.c.seq)
    )


def _was_ever_disputable(said: _Said) -> bool:
    """Whether there ever was a flag, or more than one answer by more than one person."""
    every = [one for theirs in said.values() for one in theirs]
    answers = {answer for _, answer in every}
    return (len(said) > 1 and len(answers) > 1) or any(status == "flagged" for status, _ in every)


def slots_of(connection: Connection, task: str, ids: Collection[str]) -> dict[str, dict[str, int]]:
    """Each example's slots that are held: example id -> annotator -> slot."""
    rows = connection.execute(_holders(), {"task": task, "ids": list(ids)})
    slots: dict[str, dict[str, int]] = {}
    for row in rows:
        slots.setdefault(row.example_id, {})[row.annotator] = row.slot
    return slots


@cache
def _holders() -> Select[Any]:
    return select(leases.c.example_id, leases.c.annotator, leases.c.slot).where(
        leases.c.example_id.in_(_IDS), leases.c.task == bindparam("task")
    )


def free_slot(held: Iterable[int]) -> int:
    """The first slot that nobody holds."""
    held = set(held)
    return next(slot for slot in range(len(held) + 1) if slot not in held)
