"""The labelling queue: which example a person is asked next.

The table `queue` (`queue_rows`) says how many slots of each example are taken, so that the next
open one is found through an index however many are done. Who holds which is told in `slots`.

What every request asks is built once (`cache`), with its values as parameters: building the
statements anew took two thirds of a request.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    literal,
    or_,
    select,
    union_all,
    update,
)

from burnish.hashing import text_hash
from burnish.store.insert import insert_missing
from burnish.store.labelling import count_annotated, superseded
from burnish.store.locks import hold_name
from burnish.store.queue_rows import is_persons, lane_of, lock_rows, refresh_rows
from burnish.store.slots import ANSWERED, Text, free_slot, is_lease_of, set_expiry, slots_of
from burnish.store.tables import annotations, expired_leases, gold, leases, queue

# An annotator who is far ahead of the others has answered most examples that still want a second
# answer. Only so many of them are looked through while other writers wait.
SCAN = 100
# Of the examples found so many are tried, since others may be leasing the first ones now.
_TRIED = 8

_IDS: ColumnElement[Any] = bindparam("ids", expanding=True)


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks for an example, of which task, and until when they may have it."""

    task: str
    annotator: str
    overlap: int
    gold_every: int
    now: str
    """ISO 8601, as is `expires_at`."""
    expires_at: str


def lease_next(
    connection: Connection, asking: Asking, found: Sequence[str] | None = None
) -> str | None:
    """Lease the next example to an annotator and return its id.

    They hold one at a time: asked again, they get the same example, renewed. `found` is what
    `find_open` found before; without it the first `SCAN` of those that wait are looked through.
    None where none of them is open any more.
    """
    hold_name(connection, f"next {asking.task} {asking.annotator}")
    live = _live_leases(connection, asking)
    _return_expired(connection, asking, live)
    mine = [lease.example_id for lease in live if lease.annotator == asking.annotator]
    held = _held(connection, asking, mine)
    if held is not None:
        set_expiry(connection, asking.task, held, asking.annotator, asking.expires_at)
        return held
    item = _next_gold(connection, asking)
    if item is not None:
        lock_rows(connection, asking.task, [item])
        _take_slot(
            connection, asking, item, slots_of(connection, asking.task, [item]).get(item, {})
        )
        return item
    if found is None:
        return _lease_one_of(connection, asking, find_open(connection, asking, scan=SCAN))
    return _lease_one_of(connection, asking, found, wait=True)


def find_open(connection: Connection, asking: Asking, *, scan: int | None) -> list[str]:
    """The first examples open to an annotator; of each kind only `scan` are looked through.

    What is assigned to them comes before what is anybody's; of each, begun ones come before
    untouched ones, so that overlaps complete.
    """
    values = {
        "task": asking.task,
        "annotator": asking.annotator,
        "own_lane": lane_of(asking.annotator),
    }
    found = connection.execute(_open_examples(asking.overlap, scan), values)
    return list(found.scalars())


def _lease_one_of(
    connection: Connection, asking: Asking, ids: Sequence[str], *, wait: bool = False
) -> str | None:
    """Lease the first of these examples that is still open; None where none is.

    Those that another transaction is leasing now are passed over, unless told to `wait`.
    """
    for example_id in ids:
        row = {"task": asking.task, "example_id": example_id, "overlap": asking.overlap}
        taken = connection.scalar(_still_open(wait), row)
        if taken is None:
            continue
        slots = slots_of(connection, asking.task, [example_id]) if taken else {}
        holders = slots.get(example_id, {})
        if len(holders) < asking.overlap and asking.annotator not in holders:
            _take_slot(connection, asking, example_id, holders)
            return example_id
    return None


@cache
def _still_open(wait: bool) -> Select[Any]:
    """How many slots of an example are taken, its row locked; nothing where it is not open."""
    open_ = (
        queue.c.task == bindparam("task"),
        queue.c.example_id == bindparam("example_id"),
        # Not told as `in`, which SQLite would look for in all of the queue.
        ~is_persons(),
        queue.c.lane.not_in(["gold", "excluded"]),
        ~queue.c.closed,
        queue.c.taken < bindparam("overlap"),
    )
    return select(queue.c.taken).where(*open_).with_for_update(skip_locked=not wait)


def lease_again(connection: Connection, asking: Asking, example_id: str) -> bool:
    """Lease an example to somebody who has taken their answer back; False where it is full."""
    lock_rows(connection, asking.task, [example_id])
    holders = slots_of(connection, asking.task, [example_id]).get(example_id, {})
    is_gold = exists().where(gold.c.task == asking.task, gold.c.example_id == example_id)
    if len(holders) >= asking.overlap and not connection.scalar(select(is_gold)):
        return False
    _take_slot(connection, asking, example_id, holders)
    return True


class _Live(NamedTuple):
    """A lease that is not answered, run out or not."""

    seq: int
    example_id: str
    annotator: str
    expires_at: str


def _live_leases(connection: Connection, asking: Asking) -> list[_Live]:
    """Everybody's, the newest first."""
    # Sorted here: told to, SQLite walks through all leases by seq to find the few that are live.
    rows = connection.execute(_live(), {"task": asking.task})
    return sorted((_Live(*row) for row in rows), reverse=True)


@cache
def _live() -> Select[Any]:
    query = select(leases.c.seq, leases.c.example_id, leases.c.annotator, leases.c.expires_at)
    return query.where(leases.c.task == bindparam("task"), leases.c.expires_at < ANSWERED)


def _return_expired(connection: Connection, asking: Asking, live: Iterable[_Live]) -> None:
    """Free the slots whose lease has run out; an annotator's own is renewed instead.

    A lease that ends later than one taken now was taken by a clock that has been set back since; it
    ends as one taken now, or its example would be lost to everybody for as long.
    """
    others = [lease for lease in live if lease.annotator != asking.annotator]
    if any(lease.expires_at > asking.expires_at for lease in others):
        connection.execute(
            update(leases)
            .where(
                leases.c.task == asking.task,
                leases.c.expires_at > asking.expires_at,
                leases.c.expires_at < ANSWERED,
            )
            .values(expires_at=asking.expires_at)
        )
    expired = {lease.example_id for lease in others if lease.expires_at <= asking.now}
    if not expired:
        return
    # What somebody is busy with now is returned next time.
    rows = select(queue.c.example_id).where(
        queue.c.task == asking.task, queue.c.example_id.in_(expired), ~is_persons()
    )
    locked = connection.execute(rows.with_for_update(skip_locked=True)).scalars().all()
    ended = connection.execute(
        delete(leases)
        .where(
            leases.c.task == asking.task,
            leases.c.example_id.in_(locked),
            leases.c.annotator != asking.annotator,
            leases.c.expires_at <= asking.now,
        )
        .returning(leases.c.example_id, leases.c.task, leases.c.annotator)
    )
    insert_missing(connection, expired_leases, [row._asdict() for row in ended])
    refresh_rows(connection, asking.task, locked)


def _held(connection: Connection, asking: Asking, mine: Sequence[str]) -> str | None:
    """The newest of an annotator's leases, unless it has been closed or given to others since."""
    if not mine:
        return None
    rows = connection.execute(_not_closed(), {"task": asking.task, "ids": mine})
    theirs = ("all", "gold", lane_of(asking.annotator))
    open_to_them = {row.example_id for row in rows if row.lane in theirs}
    return next((id_ for id_ in mine if id_ in open_to_them), None)


@cache
def _not_closed() -> Select[Any]:
    return select(queue.c.example_id, queue.c.lane).where(
        queue.c.task == bindparam("task"), queue.c.example_id.in_(_IDS), ~queue.c.closed
    )


def _next_gold(connection: Connection, asking: Asking) -> str | None:
    """A gold item where one is due: about every `gold_every`th time, when nobody can tell."""
    if not asking.gold_every:
        return None
    count = count_annotated(connection, asking.task, asking.annotator)
    chance = int(text_hash(f"{asking.task}\n{asking.annotator}\n{count}"), 16)
    if chance % asking.gold_every:
        return None
    had = _had(gold.c.example_id, asking.task, asking.annotator)
    rows = (
        select(gold.c.example_id)
        .join(queue, and_(queue.c.example_id == gold.c.example_id, queue.c.task == gold.c.task))
        .where(gold.c.task == asking.task, queue.c.lane == "gold", ~queue.c.closed, ~had)
    )
    items = connection.execute(rows).scalars()
    return min(items, key=lambda id_: text_hash(asking.annotator + id_), default=None)


@cache
def _open_examples(overlap: int, scan: int | None) -> CompoundSelect[Any]:
    kinds = [
        (lane, taken)
        for lane in (bindparam("own_lane", type_=queue.c.lane.type), "all")
        for taken in range(overlap - 1, -1, -1)
    ]
    found = union_all(*(_waiting(*kind, n, scan) for n, kind in enumerate(kinds)))
    return found.order_by("turn", "rank", "position").limit(_TRIED)


def _waiting(
    lane: str | ColumnElement[str], taken: int, turn: int, scan: int | None
) -> Select[Any]:
    """Examples of a lane with so many slots taken that the annotator has not had before."""
    rows = (
        select(queue.c.example_id, queue.c.rank, queue.c.position)
        .where(
            queue.c.task == bindparam("task"),
            queue.c.lane == lane,
            ~queue.c.closed,
            queue.c.taken == taken,
        )
        .order_by(queue.c.rank, queue.c.position)
        .limit(scan)
        .subquery()
    )
    new_to_them = (
        select(rows, literal(turn).label("turn"))
        .where(~_had(rows.c.example_id, bindparam("task"), bindparam("annotator")))
        .order_by(rows.c.rank, rows.c.position)
        .limit(_TRIED)
        .subquery()
    )
    return select(new_to_them)


def _had(example_id: ColumnElement[str], task: Text, annotator: Text) -> ColumnElement[bool]:
    """Whether somebody has an example, or has said something of it that stands."""
    said = exists().where(
        annotations.c.example_id == example_id,
        annotations.c.task == task,
        annotations.c.annotator == annotator,
        annotations.c.status != "withdrawn",
        ~superseded("withdrawn"),
    )
    return or_(exists().where(is_lease_of(example_id, task, annotator)), said)


def _take_slot(
    connection: Connection, asking: Asking, example_id: str, holders: dict[str, int]
) -> None:
    """Lease the first free slot of an example whose row is locked."""
    lease = {
        "example_id": example_id,
        "task": asking.task,
        "slot": free_slot(holders.values()),
        "annotator": asking.annotator,
        "expires_at": asking.expires_at,
    }
    connection.execute(insert(leases), lease)
    refresh_rows(connection, asking.task, [example_id])
