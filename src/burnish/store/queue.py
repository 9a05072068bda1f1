"""The labelling queue: which example a person is asked next, and what their answer does to it.

A *slot* is one of the answers an example wants. A row of `leases` holds a slot: while a person
works on it, until `expires_at`; once they have answered, for good (`ANSWERED`). Two unique
constraints make the overlap exact: a slot has one holder, and a person holds one slot of an
example.

The table `queue` says how many slots of each example are taken, so that the next open one is found
through an index however many are done. Examples enter it a window at a time, in order of arrival.
It is derived: `_refresh` computes a row from the annotations, leases and resolutions.
"""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from burnish.store.tables import annotations, examples, exclusions, leases, metadata, resolutions
from burnish.types import Annotation

ANSWERED = "9999-12-31T23:59:59.999+00:00"
"""`expires_at` of a slot whose holder has answered."""

WINDOW = 1000
"""How many unanswered examples enter the queue at a time."""

# An annotator who is far ahead of the others has answered most examples that still want a second
# answer. Only so many of them are looked through before an untouched example is given instead.
_SCAN = 200

queue = Table(
    "queue",
    metadata,
    Column("task", String(64), primary_key=True),
    Column("example_id", String(32), ForeignKey("examples.id"), primary_key=True),
    # The example's seq; the queue is served in this order.
    Column("position", Integer, nullable=False),
    # How many leases there are on it, live or answered.
    Column("taken", Integer, nullable=False),
    # Flagged or resolved: nobody is asked until a person has looked.
    Column("closed", Boolean, nullable=False),
    UniqueConstraint("task", "position"),
    Index(None, "task", "closed", "taken", "position"),
)


def lease_next(
    connection: Connection, *, task: str, annotator: str, overlap: int, now: str, expires_at: str
) -> str | None:
    """Lease the next example to an annotator until `expires_at` and return its id.

    An annotator holds one lease at a time: asked again, they get the same example, renewed. None
    where nothing is open to them. Times are ISO 8601.
    """
    _return_expired(connection, task, annotator, now)
    held = _held(connection, task, annotator)
    if held is not None:
        connection.execute(
            update(leases).where(_lease(held, task, annotator)).values(expires_at=expires_at)
        )
        return held
    while (example_id := _find_open(connection, task, annotator, overlap)) is not None:
        _lock(connection, task, [example_id])
        slot = _free_slot(_slots(connection, task, [example_id]).get(example_id, {}).values())
        if slot < overlap:
            connection.execute(
                insert(leases).values(
                    example_id=example_id,
                    task=task,
                    slot=slot,
                    annotator=annotator,
                    expires_at=expires_at,
                )
            )
            _refresh(connection, task, [example_id])
            return example_id
    return None


def settle_slots(connection: Connection, task: str, batch: Iterable[Annotation]) -> None:
    """Bring slots and queue up to date with annotations just added.

    Who has submitted holds a slot for good: their own, or, when their lease had gone to somebody
    else or they were never asked (imported labels), a further one. Who has skipped or flagged holds
    none.
    """
    people = {(a.example_id, a.annotator) for a in batch}
    if not people:
        return
    ids = sorted({example_id for example_id, _ in people})
    _lock(connection, task, ids)
    status = _newest_status(connection, task, ids)
    slots = _slots(connection, task, ids)
    new = []
    for example_id, annotator in sorted(people):
        holders = slots.setdefault(example_id, {})
        if status[example_id, annotator] != "submitted":
            holders.pop(annotator, None)
            connection.execute(delete(leases).where(_lease(example_id, task, annotator)))
        elif annotator in holders:
            mine = _lease(example_id, task, annotator)
            connection.execute(update(leases).where(mine).values(expires_at=ANSWERED))
        else:
            holders[annotator] = _free_slot(holders.values())
            new.append(
                {
                    "example_id": example_id,
                    "task": task,
                    "slot": holders[annotator],
                    "annotator": annotator,
                    "expires_at": ANSWERED,
                }
            )
    if new:
        connection.execute(insert(leases), new)
    _refresh(connection, task, ids)


def count_taken(connection: Connection, task: str, overlap: int) -> int:
    """How many examples have every slot taken, or are closed."""
    full = or_(queue.c.closed, queue.c.taken >= overlap)
    query = select(func.count()).select_from(queue).where(queue.c.task == task, full)
    return connection.scalar(query) or 0


def settle_resolved(connection: Connection, task: str, example_ids: Collection[str]) -> None:
    """Take examples that have just been resolved out of the queue."""
    _refresh(connection, task, example_ids)


def _return_expired(connection: Connection, task: str, annotator: str, now: str) -> None:
    """Free the slots whose lease has run out; an annotator's own is renewed instead."""
    expired = delete(leases).where(
        leases.c.task == task, leases.c.expires_at <= now, leases.c.annotator != annotator
    )
    ids = connection.execute(expired.returning(leases.c.example_id)).scalars().all()
    if ids:
        _refresh(connection, task, ids)


def _held(connection: Connection, task: str, annotator: str) -> str | None:
    """The example an annotator has leased and not answered, unless it has been closed since."""
    # Two steps: as a join SQLite walks the whole queue to find the one lease, 25 ms at 20,000.
    live = select(leases.c.example_id).where(
        leases.c.task == task,
        leases.c.annotator == annotator,
        leases.c.expires_at < ANSWERED,
    )
    ids = connection.execute(live).scalars().all()
    if not ids:
        return None
    asked = select(queue.c.example_id).where(
        queue.c.task == task,
        queue.c.example_id.in_(ids),
        ~queue.c.closed,
        ~_excluded(queue.c.example_id),
    )
    return connection.scalar(asked.order_by(queue.c.position).limit(1))


def _find_open(connection: Connection, task: str, annotator: str, overlap: int) -> str | None:
    """The first open example: begun ones first, so that overlaps complete, then untouched ones."""
    begun = range(overlap - 1, 0, -1)

    def first(levels: Iterable[int], scan: int | None) -> str | None:
        found = (_first_open(connection, task, annotator, taken, scan) for taken in levels)
        return next(filter(None, found), None)

    example_id = first(begun, _SCAN) or first([0], None)
    if example_id is None:
        _fill_queue(connection, task)
        example_id = first([0], None) or first(begun, None)
    return example_id


def _first_open(
    connection: Connection, task: str, annotator: str, taken: int, scan: int | None
) -> str | None:
    """The first example with so many slots taken that the annotator has not had before."""
    waiting = (
        select(queue.c.example_id, queue.c.position)
        .where(queue.c.task == task, ~queue.c.closed, queue.c.taken == taken)
        .order_by(queue.c.position)
        .limit(scan)
        .subquery()
    )
    new_to_them = (
        select(waiting.c.example_id)
        .where(
            ~exists().where(_lease(waiting.c.example_id, task, annotator)),
            ~exists().where(_annotation(waiting.c.example_id, task, annotator)),
            ~_excluded(waiting.c.example_id),
        )
        .order_by(waiting.c.position)
    )
    return connection.scalar(new_to_them.limit(1))


def _fill_queue(connection: Connection, task: str) -> None:
    """Let examples enter the queue up to the `WINDOW`th that nobody has answered."""
    last = select(func.coalesce(func.max(queue.c.position), 0)).where(queue.c.task == task)
    answered = exists().where(leases.c.example_id == examples.c.id, leases.c.task == task)
    coming = (
        select(examples.c.seq)
        .where(examples.c.seq > last.scalar_subquery())
        .order_by(examples.c.seq)
    )
    end = connection.scalar(coming.where(~answered).limit(1).offset(WINDOW - 1))
    rows = (
        select(
            literal(task),
            examples.c.id,
            examples.c.seq,
            _taken(examples.c.id, task),
            _closed(examples.c.id, task),
        )
        .where(examples.c.seq > last.scalar_subquery(), ~_excluded(examples.c.id))
        .order_by(examples.c.seq)
    )
    if end is not None:
        rows = rows.where(examples.c.seq <= end)
    columns = ["task", "example_id", "position", "taken", "closed"]
    connection.execute(insert(queue).from_select(columns, rows))


def _lock(connection: Connection, task: str, ids: Collection[str]) -> None:
    """Keep other transactions off these rows; SQLite has one writer and ignores it."""
    rows = select(queue.c.taken).where(queue.c.task == task, queue.c.example_id.in_(ids))
    connection.execute(rows.order_by(queue.c.position).with_for_update()).all()


def _refresh(connection: Connection, task: str, ids: Collection[str]) -> None:
    """Compute the queue's rows of these examples anew; those not in the queue yet stay out."""
    connection.execute(
        update(queue)
        .where(queue.c.task == task, queue.c.example_id.in_(ids))
        .values(
            taken=_taken(queue.c.example_id, task),
            closed=_closed(queue.c.example_id, task),
        )
    )


def _taken(example_id: ColumnElement[str], task: str) -> Any:
    rows = leases.c.example_id == example_id, leases.c.task == task
    return select(func.count()).select_from(leases).where(*rows).scalar_subquery()


def _closed(example_id: ColumnElement[str], task: str) -> ColumnElement[bool]:
    later = annotations.alias()
    superseded = exists().where(
        later.c.example_id == annotations.c.example_id,
        later.c.task == annotations.c.task,
        later.c.annotator == annotations.c.annotator,
        later.c.seq > annotations.c.seq,
    )
    flagged = exists().where(
        annotations.c.example_id == example_id,
        annotations.c.task == task,
        annotations.c.status == "flagged",
        ~superseded,
    )
    resolved = exists().where(resolutions.c.example_id == example_id, resolutions.c.task == task)
    return or_(flagged, resolved)


def _excluded(example_id: ColumnElement[str]) -> ColumnElement[bool]:
    return exists().where(exclusions.c.example_id == example_id)


def _lease(example_id: str | ColumnElement[str], task: str, annotator: str) -> ColumnElement[bool]:
    return and_(
        leases.c.example_id == example_id,
        leases.c.task == task,
        leases.c.annotator == annotator,
    )


def _annotation(
    example_id: str | ColumnElement[str], task: str, annotator: str
) -> ColumnElement[bool]:
    return and_(
        annotations.c.example_id == example_id,
        annotations.c.task == task,
        annotations.c.annotator == annotator,
    )


def _newest_status(
    connection: Connection, task: str, ids: Collection[str]
) -> dict[tuple[str, str], str]:
    """The status of each person's newest annotation, by example and annotator."""
    rows = connection.execute(
        select(annotations.c.example_id, annotations.c.annotator, annotations.c.status)
        .where(annotations.c.example_id.in_(ids), annotations.c.task == task)
        .order_by(annotations.c.seq)
    )
    return {(row.example_id, row.annotator): row.status for row in rows}


def _slots(connection: Connection, task: str, ids: Collection[str]) -> dict[str, dict[str, int]]:
    """Each example's slots that are held: annotator -> slot."""
    rows = connection.execute(
        select(leases.c.example_id, leases.c.annotator, leases.c.slot).where(
            leases.c.example_id.in_(ids), leases.c.task == task
        )
    )
    slots: dict[str, dict[str, int]] = {}
    for row in rows:
        slots.setdefault(row.example_id, {})[row.annotator] = row.slot
    return slots


def _free_slot(held: Iterable[int]) -> int:
    held = set(held)
    return next(slot for slot in range(len(held) + 1) if slot not in held)
