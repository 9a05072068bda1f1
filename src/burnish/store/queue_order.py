"""What orders the queue: priorities, whom examples are assigned to, and which are gold items."""

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, Table, delete, exists, func, insert, select

from burnish.project import utc_now
from burnish.store.disputes import refresh_disputes
from burnish.store.insert import insert_missing
from burnish.store.log import append_log, rows_payload
from burnish.store.queue_rows import enter_queue, refresh_lanes
from burnish.store.tables import assignments, exclusions, gold, priorities
from burnish.tasks import Task


def add_priorities(
    connection: Connection, task: str, ranked: Mapping[str, float], *, actor: str
) -> None:
    """Let the examples (id -> priority, the highest first) come before those without one."""
    _remove(connection, priorities, task, ranked)
    rows = [{"task": task, "example_id": id_, "priority": p} for id_, p in ranked.items()]
    connection.execute(insert(priorities), rows)
    _reorder(connection, task, ranked)
    append_log(connection, actor, "prioritise", rows_payload(sorted(ranked.items()), task=task))


def remove_priorities(
    connection: Connection, task: str, ids: Collection[str], *, actor: str
) -> None:
    """Let these examples come in order of arrival again."""
    _remove(connection, priorities, task, ids)
    _reorder(connection, task, ids)
    append_log(connection, actor, "unprioritise", rows_payload(sorted(ids), task=task))


def read_prioritised(connection: Connection, task: str, *, limit: int) -> list[str]:
    """Ids of examples that have a priority, the first ones first."""
    query = select(priorities.c.example_id).where(priorities.c.task == task)
    ordered = query.order_by(priorities.c.priority.desc()).limit(limit)
    return list(connection.execute(ordered).scalars())


def add_assignments(
    connection: Connection,
    task: str,
    ids: Collection[str],
    annotators: Collection[str],
    *,
    actor: str,
) -> None:
    """Let these people get these examples, and nobody who is not assigned to them."""
    now = utc_now()
    rows = [
        {"task": task, "example_id": id_, "annotator": name, "by": actor, "created_at": now}
        for id_ in ids
        for name in annotators
    ]
    insert_missing(connection, assignments, rows)
    _reorder(connection, task, ids)
    facts = {"task": task, "annotators": sorted(annotators)}
    append_log(connection, actor, "assign", rows_payload(sorted(ids), **facts))


def remove_assignments(
    connection: Connection,
    task: str,
    ids: Collection[str],
    annotators: Collection[str] | None,
    *,
    actor: str,
) -> None:
    """Take examples from these people, or from all; with nobody left anybody gets them."""
    rows = delete(assignments).where(assignments.c.task == task, assignments.c.example_id.in_(ids))
    facts: dict[str, object] = {"task": task}
    if annotators is not None:
        rows = rows.where(assignments.c.annotator.in_(annotators))
        facts["annotators"] = sorted(annotators)
    connection.execute(rows)
    _reorder(connection, task, ids)
    append_log(connection, actor, "unassign", rows_payload(sorted(ids), **facts))


def add_gold(connection: Connection, task: Task, answers: Mapping[str, str], *, actor: str) -> None:
    """Make examples gold items (id -> known answer); a later answer replaces an earlier one."""
    now = utc_now()
    _remove(connection, gold, task.name, answers)
    rows = [
        {"task": task.name, "example_id": id_, "answer": answer, "by": actor, "created_at": now}
        for id_, answer in answers.items()
    ]
    connection.execute(insert(gold), rows)
    _reorder(connection, task.name, answers)
    refresh_disputes(connection, task, answers)
    append_log(connection, actor, "gold", rows_payload(sorted(answers.items()), task=task.name))


def remove_gold(connection: Connection, task: Task, ids: Collection[str], *, actor: str) -> None:
    """Let gold items be ordinary examples again."""
    _remove(connection, gold, task.name, ids)
    _reorder(connection, task.name, ids)
    refresh_disputes(connection, task, ids)
    append_log(connection, actor, "ungold", rows_payload(sorted(ids), task=task.name))


def count_gold(connection: Connection, task: str) -> int:
    """How many gold items there are, the excluded ones left out."""
    is_excluded = exists().where(exclusions.c.example_id == gold.c.example_id)
    query = select(func.count()).select_from(gold).where(gold.c.task == task, ~is_excluded)
    return connection.scalar(query) or 0


def _remove(connection: Connection, table: Table, task: str, ids: Collection[str]) -> None:
    rows = delete(table).where(table.c.task == task, table.c.example_id.in_(ids))
    connection.execute(rows)


def _reorder(connection: Connection, task: str, ids: Collection[str]) -> None:
    enter_queue(connection, task, ids)
    refresh_lanes(connection, task, ids)
