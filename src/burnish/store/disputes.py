"""Disputes: the examples a reviewer must look at, kept as they arise so that none is searched for.

The table `disputes` is derived: an example is in it while its answers differ or a flag is up and
nothing has settled it. Its row also says which reviewer is looking at it, until when, so that two
reviewers never have the same one.
"""

from collections.abc import Collection

from sqlalchemy import Connection, delete, exists, func, insert, literal, or_, select, update

from burnish.records.answers import compared
from burnish.store.answers import Given, read_given
from burnish.store.tables import disputes, examples, exclusions
from burnish.tasks import Task


def is_disputed(given: Given, task: Task) -> bool:
    """Whether answers differ or a flag is up, and nothing in force has settled it."""
    if given.is_settled:
        return False
    return given.is_flagged or len({compared(a.answer, task) for a in given.submitted}) > 1


def refresh_disputes(connection: Connection, task: Task, ids: Collection[str]) -> None:
    """Find out anew which of these examples are disputed; their rows of the queue are locked."""
    given = read_given(connection, task.name, ids)
    disputed = [id_ for id_ in ids if is_disputed(given[id_], task)]
    settled = set(ids).difference(disputed)
    rows = disputes.c.task == task.name, disputes.c.example_id.in_(settled)
    connection.execute(delete(disputes).where(*rows))
    if not disputed:
        return
    known = disputes.c.task == task.name, disputes.c.example_id == examples.c.id
    new = select(examples.c.id, literal(task.name), examples.c.seq).where(
        examples.c.id.in_(disputed),
        ~exists().where(*known),
        ~exists().where(exclusions.c.example_id == examples.c.id),
    )
    connection.execute(insert(disputes).from_select(["example_id", "task", "position"], new))


def lease_dispute(
    connection: Connection,
    task: str,
    reviewer: str,
    *,
    now: str,
    expires_at: str,
    after: str | None = None,
) -> str | None:
    """Lease the next dispute to a reviewer until `expires_at` and return its example's id.

    A reviewer holds one: asked again, they get the same, renewed; with `after`, the next one behind
    that example instead. None where none is left that nobody else is looking at. Times are ISO
    8601.
    """
    mine = disputes.c.task == task, disputes.c.reviewer == reviewer
    position = 0
    if after is None:
        example_id = connection.scalar(select(disputes.c.example_id).where(*mine).limit(1))
    else:
        example_id = None
        passed = select(examples.c.seq).where(examples.c.id == after)
        position = connection.scalar(passed) or 0
        connection.execute(update(disputes).where(*mine).values(reviewer=None, expires_at=None))
    if example_id is None:
        free = or_(disputes.c.reviewer.is_(None), disputes.c.expires_at <= now)
        example_id = connection.scalar(
            select(disputes.c.example_id)
            .where(disputes.c.task == task, disputes.c.position > position, free)
            .order_by(disputes.c.position)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
    if example_id is not None:
        connection.execute(
            update(disputes)
            .where(disputes.c.task == task, disputes.c.example_id == example_id)
            .values(reviewer=reviewer, expires_at=expires_at)
        )
    return example_id


def count_disputes(connection: Connection, task: str) -> int:
    """How many examples a reviewer must look at."""
    query = select(func.count()).select_from(disputes).where(disputes.c.task == task)
    return connection.scalar(query) or 0


def read_disputes(connection: Connection, task: str, *, limit: int | None = None) -> list[str]:
    """Ids of the examples a reviewer must look at, in order of arrival."""
    query = select(disputes.c.example_id).where(disputes.c.task == task)
    return list(connection.execute(query.order_by(disputes.c.position).limit(limit)).scalars())
