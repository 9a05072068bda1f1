"""What audits found, and what is kept out of snapshots because of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import Connection, delete, func, insert, select

from burnish.hashing import canonical_json
from burnish.project import utc_now
from burnish.store.disputes import refresh_disputes
from burnish.store.insert import insert_new
from burnish.store.log import append_log, rows_payload
from burnish.store.queue_rows import come_back, leave_queue
from burnish.store.tables import examples, exclusions, findings
from burnish.tasks import Task
from burnish.types import Finding


def replace_findings(connection: Connection, found: Iterable[Finding], *, actor: str) -> None:
    """Keep what the newest audit found; the log remembers that there were others."""
    now = utc_now()
    rows = [
        {
            "check": f.check,
            "example_ids": canonical_json(list(f.example_ids)),
            "message": f.message,
            "fix": f.fix,
            "audited_at": now,
        }
        for f in found
    ]
    connection.execute(delete(findings))
    if rows:
        connection.execute(insert(findings), rows)
    append_log(connection, actor, "audit", rows_payload(rows))


def exclude(connection: Connection, reasons: Mapping[str, str], *, actor: str) -> int:
    """Keep examples (id -> reason) out of every later snapshot; returns how many are new."""
    now = utc_now()
    rows = [
        {"example_id": id_, "reason": reason, "by": actor, "created_at": now}
        for id_, reason in reasons.items()
    ]
    added = insert_new(connection, exclusions, rows, exclusions.c.example_id)
    if added:
        new = [[id_, reason] for id_, reason in reasons.items() if id_ in added]
        append_log(connection, actor, "exclude", rows_payload(new))
        leave_queue(connection, added)
    return len(added)


def include_again(
    connection: Connection, ids: Collection[str], tasks: Iterable[Task], *, actor: str
) -> int:
    """Let excluded examples take part again; returns how many of these were excluded.

    Their annotations count as before, in the disputes of these tasks too.
    """
    ended = delete(exclusions).where(exclusions.c.example_id.in_(ids))
    back = connection.execute(ended.returning(exclusions.c.example_id)).scalars().all()
    if back:
        append_log(connection, actor, "include again", rows_payload(sorted(back)))
        come_back(connection, back)
        for task in tasks:
            refresh_disputes(connection, task, back)
    return len(back)


def read_exclusions(connection: Connection) -> dict[str, str]:
    """Every excluded example's id and the reason."""
    query = select(exclusions.c.example_id, exclusions.c.reason)
    return {row.example_id: row.reason for row in connection.execute(query)}


def count_exclusions(connection: Connection) -> int:
    """How many examples are excluded."""
    return connection.scalar(select(func.count()).select_from(exclusions)) or 0


def count_survivors(connection: Connection) -> dict[str, tuple[int, int]]:
    """For each source: how many examples it gave, and how many of them are not excluded."""
    query = (
        select(examples.c.source, func.count(), func.count(exclusions.c.example_id))
        .outerjoin(exclusions, exclusions.c.example_id == examples.c.id)
        .group_by(examples.c.source)
        .order_by(examples.c.source)
    )
    return {source: (all_, all_ - gone) for source, all_, gone in connection.execute(query)}
