"""Make the derived tables of labelling anew, after an upgrade of the store."""

from sqlalchemy import Connection, select

from burnish.store.answers import annotated_after
from burnish.store.disputes import refresh_disputes
from burnish.store.queue_rows import enter_queue
from burnish.store.tables import annotations
from burnish.tasks import Task


def rebuild_queue(connection: Connection) -> None:
    """Fill `queue` and `disputes` from what has been annotated in each task.

    Answers are compared as texts: stores of before the upgrade hold no others.
    """
    for name in connection.execute(select(annotations.c.task).distinct()).scalars().all():
        task, last = Task(name=name), 0
        while page := annotated_after(connection, name, last):
            enter_queue(connection, name, list(page))
            refresh_disputes(connection, task, list(page))
            last = max(page.values())
