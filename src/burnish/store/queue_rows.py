"""The rows of the queue: how an example enters it, and what its row says.

The table `queue` is derived from the others. An example has one row in a *lane* that says to whom
it may be given, and, where it is assigned, one more for each of those people:

    all        anybody
    assigned   nobody by this row, the people it is assigned to by theirs
    to:NAME    NAME, because it is assigned to them
    gold       everybody, now and then, outside the order
    excluded   nobody

Examples enter a window at a time, in order of arrival; one that is prioritised, assigned or
annotated before its turn enters then. `queue_marks` says up to where all of them have entered. Who
locks a row locks the one that is not `to:NAME` first; who locks the mark does so before any row.
"""

from collections.abc import Collection
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Update,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from burnish.store.insert import insert_new, listed
from burnish.store.labelling import pages, superseded
from burnish.store.tables import (
    annotations,
    assignments,
    disputes,
    examples,
    exclusions,
    gold,
    leases,
    priorities,
    queue,
    queue_marks,
    resolutions,
)

UNRANKED = 1.7976931348623157e308
"""`rank` of an example without a priority: it comes after all that have one."""


def lane_of(annotator: str) -> str:
    """The lane of what is assigned to a person."""
    return f"to:{annotator}"


def is_persons() -> ColumnElement[bool]:
    """Whether a row of the queue is one person's; each example has just one that is not."""
    return queue.c.lane.like("to:%")


def fill_queue(connection: Connection, task: str, count: int) -> bool:
    """Let the next `count` examples enter; whether there were any."""
    mark = _lock_mark(connection, task)
    coming = select(examples.c.seq).where(examples.c.seq > mark).order_by(examples.c.seq)
    end = connection.scalar(select(func.max(coming.limit(count).subquery().c.seq)))
    if end is None:
        return False
    _insert_rows(connection, task, and_(examples.c.seq > mark, examples.c.seq <= end))
    moved = update(queue_marks).where(queue_marks.c.task == task).values(position=end)
    connection.execute(moved)
    return True


def enter_queue(connection: Connection, task: str, ids: Collection[str]) -> None:
    """Let these examples enter before their turn, where they have not yet, and lock their rows."""
    # One alone has nearly always entered, and is locked at once. Of several the mark comes first.
    alone = len(ids) == 1
    here = lock_rows(connection, task, ids) if alone else _queued(connection, task, ids)
    missing = set(ids) - here
    if missing:
        _lock_mark(connection, task)
        _insert_rows(connection, task, examples.c.id.in_(missing))
        # For each that enters early the mark moves on by two. However many labels are imported,
        # the first to ask for an example does not have to walk past them all.
        fill_queue(connection, task, 2 * len(missing))
    if missing or not alone:
        lock_rows(connection, task, ids)


def lock_rows(connection: Connection, task: str, ids: Collection[str]) -> set[str]:
    """Keep other transactions off these examples, and say which are in the queue.

    SQLite has one writer and locks nothing.
    """
    return set(connection.execute(_locked(), {"in_task": task, "ids": list(ids)}).scalars())


def refresh_rows(connection: Connection, task: str, ids: Collection[str]) -> None:
    """Compute anew how many slots of these examples are taken, and whether they are closed."""
    connection.execute(_refreshed(), {"in_task": task, "ids": list(ids)})


def refresh_lanes(connection: Connection, task: str, ids: Collection[str]) -> None:
    """Compute anew to whom these examples may be given, and in which order."""
    rows = queue.c.task == task, queue.c.example_id.in_(ids)
    connection.execute(delete(queue).where(*rows, is_persons()))
    connection.execute(
        update(queue)
        .where(*rows)
        .values(lane=_lane(queue.c.example_id, task), rank=_rank(queue.c.example_id, task))
    )
    theirs = (
        select(
            queue.c.example_id,
            queue.c.task,
            literal("to:") + assignments.c.annotator,
            queue.c.position,
            queue.c.rank,
            queue.c.taken,
            queue.c.closed,
        )
        .join(
            assignments,
            and_(
                assignments.c.task == queue.c.task,
                assignments.c.example_id == queue.c.example_id,
            ),
        )
        # That is `assigned`; told so, SQLite would look for it in all of the queue.
        .where(*rows, queue.c.lane.not_in(["all", "gold", "excluded"]))
    )
    connection.execute(insert(queue).from_select(list(queue.c), theirs))


def leave_queue(connection: Connection, ids: Collection[str]) -> None:
    """Take examples that have just been excluded out of every task's queue."""
    for page in pages(ids):
        rows = queue.c.example_id.in_(page)
        connection.execute(delete(queue).where(rows, is_persons()))
        connection.execute(update(queue).where(rows).values(lane="excluded"))
        connection.execute(delete(disputes).where(disputes.c.example_id.in_(page)))


def come_back(connection: Connection, ids: Collection[str]) -> None:
    """Let examples that are no longer excluded be given again, in every task's queue."""
    for task in connection.execute(select(queue_marks.c.task)).scalars().all():
        enter_queue(connection, task, ids)
        refresh_lanes(connection, task, ids)


def count_taken(connection: Connection, task: str, overlap: int) -> int:
    """How many examples have every slot taken, or are closed."""
    rows = queue.c.task == task, queue.c.lane.in_(["all", "assigned"])
    # Two counts, so that each walks over a range of the index and not over all of the queue.
    closed = select(func.count()).select_from(queue).where(*rows, queue.c.closed)
    full = select(func.count()).select_from(queue)
    full = full.where(*rows, ~queue.c.closed, queue.c.taken >= overlap)
    return connection.scalar(select(closed.scalar_subquery() + full.scalar_subquery())) or 0


# Asked in every request, so built once, with `in_task` and `ids` as parameters.
_ROWS = (
    queue.c.task == bindparam("in_task"),
    queue.c.example_id.in_(bindparam("ids", expanding=True)),
)


def _queued(connection: Connection, task: str, ids: Collection[str]) -> set[str]:
    here = select(queue.c.example_id).where(
        queue.c.task == task, queue.c.example_id.in_(listed(connection, ids))
    )
    return set(connection.execute(here).scalars())


@cache
def _locked() -> Select[Any]:
    rows = select(queue.c.example_id).where(*_ROWS)
    return rows.order_by(queue.c.example_id, queue.c.lane).with_for_update()


@cache
def _refreshed() -> Update:
    task: ColumnElement[str] = bindparam("in_task")
    row = queue.c.example_id
    return update(queue).where(*_ROWS).values(taken=_taken(row, task), closed=_closed(row, task))


def _lock_mark(connection: Connection, task: str) -> int:
    """Up to where every example has entered; others who want to let some enter wait."""
    mark = select(queue_marks.c.position).where(queue_marks.c.task == task).with_for_update()
    position = connection.scalar(mark)
    if position is None:
        row = {"task": task, "position": 0}
        insert_new(connection, queue_marks, [row], queue_marks.c.task)
        position = connection.scalar(mark)
    assert position is not None
    return position


def _insert_rows(connection: Connection, task: str, which: ColumnElement[bool]) -> None:
    queued = exists().where(queue.c.example_id == examples.c.id, queue.c.task == task)
    rows = select(
        examples.c.id,
        literal(task),
        _lane(examples.c.id, task),
        examples.c.seq,
        _rank(examples.c.id, task),
        _taken(examples.c.id, task),
        _closed(examples.c.id, task),
    ).where(which, ~queued)
    connection.execute(insert(queue).from_select(list(queue.c), rows))


def _lane(example_id: ColumnElement[str], task: str) -> ColumnElement[str]:
    def among(table: Any) -> ColumnElement[bool]:
        return exists().where(table.c.example_id == example_id, table.c.task == task)

    return case(
        (exists().where(exclusions.c.example_id == example_id), "excluded"),
        (among(gold), "gold"),
        (among(assignments), "assigned"),
        else_="all",
    )


def _rank(example_id: ColumnElement[str], task: str) -> ColumnElement[float]:
    priority = select(-priorities.c.priority).where(
        priorities.c.example_id == example_id, priorities.c.task == task
    )
    return func.coalesce(priority.scalar_subquery(), UNRANKED)


def _taken(example_id: ColumnElement[str], task: str | ColumnElement[str]) -> Any:
    rows = leases.c.example_id == example_id, leases.c.task == task
    return select(func.count()).select_from(leases).where(*rows).scalar_subquery()


def _closed(example_id: ColumnElement[str], task: str | ColumnElement[str]) -> ColumnElement[bool]:
    flagged = exists().where(
        annotations.c.example_id == example_id,
        annotations.c.task == task,
        annotations.c.status == "flagged",
        ~superseded(),
    )
    resolved = exists().where(resolutions.c.example_id == example_id, resolutions.c.task == task)
    return or_(flagged, resolved)
