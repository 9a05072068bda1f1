"""Bring a store's tables to those of today.

Apart from `store`, since Alembic takes as long to import as all else a command needs of the store
(0.17 s), and a store is upgraded once.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select

from burnish.errors import ProjectError
from burnish.store.answers import annotated_after
from burnish.store.disputes import refresh_disputes
from burnish.store.queue_rows import enter_queue
from burnish.store.tables import annotations
from burnish.tasks import Task

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection, name: str, step: str | None) -> None:
    """Run the steps that follow `step`, or all of them on an empty database.

    Raises:
        ProjectError: there is no such step, since the store called `name` was made by a newer
            Burnish; or its tables are another program's.
    """
    if step is None and inspect(connection).get_table_names():
        raise ProjectError(
            "holds the tables of another program",
            where=name,
            do="give the project a database of its own: `store` under [project] in burnish.toml",
        )
    steps = ScriptDirectory.from_config(migrations(connection))
    if step is not None and step not in {known.revision for known in steps.walk_revisions()}:
        raise ProjectError(
            f"was made by a newer Burnish (its tables are at step {step})",
            where=name,
            do="upgrade Burnish",
        )
    command.upgrade(migrations(connection), "head")
    _rebuild_queue(connection)


def migrations(connection: Connection) -> Config:
    """What Alembic needs to know to work on a connection."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _rebuild_queue(connection: Connection) -> None:
    """Fill `queue` and `disputes` from what has been annotated in each task.

    Answers are compared as texts: stores of before the upgrade hold no others.
    """
    for name in connection.execute(select(annotations.c.task).distinct()).scalars().all():
        task, last = Task(name=name), 0
        while page := annotated_after(connection, name, last):
            enter_queue(connection, name, list(page))
            refresh_disputes(connection, task, list(page))
            last = max(page.values())
