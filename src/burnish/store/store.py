"""Open the store; one transaction to read, one short transaction to write.

SQLite in WAL mode: readers never wait, writers wait for one another up to `BUSY_SECONDS`. A write
transaction begins IMMEDIATE, or SQLite would let two of them start and fail the second half-way
("database is locked", HumanSignal/label-studio#5755, #7170).
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from burnish.errors import ProjectError, ResourceError
from burnish.files import full_disk_is_the_users

BUSY_SECONDS = 15
_MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Store:
    """An open store. Threads may share it; each takes its own connection."""

    engine: Engine

    @property
    def name(self) -> str:
        """The database's file or URL, for messages; never a password."""
        url = self.engine.url
        return url.database or "" if self._is_sqlite else url.render_as_string(hide_password=True)

    @property
    def _is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view of the store for as long as the block lasts."""
        with self._clear_errors(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """All of the block's writes, or none. Keep it short: other writers wait."""
        with self._clear_errors(), self.engine.connect() as connection:
            connection = connection.execution_options(burnish_writes=True)
            with connection.begin():
                yield connection

    def close(self) -> None:
        """Let go of every connection; the last one folds the WAL back into the file."""
        self.engine.dispose()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        # A server's disk is not ours to see; a file's is.
        with full_disk_is_the_users(Path(self.name) if self._is_sqlite else Path.cwd()):
            try:
                yield
            except OperationalError as error:
                if "disk is full" in str(error.orig):
                    raise OSError(errno.ENOSPC, str(error.orig)) from error
                if "locked" not in str(error.orig):
                    raise
                raise ProjectError(
                    f"another process has been writing for more than {BUSY_SECONDS} s",
                    where=self.name,
                    do="try again when it has finished; nothing was changed",
                ) from error


def open_store(url: str) -> Store:
    """Open the database at an SQLAlchemy URL, making or upgrading its tables.

    `sqlite:///PATH` makes the file; `postgresql+pg8000://user@host/database` needs the extra
    `burnish[postgres]` and a database that exists.

    Raises:
        ProjectError: no such folder or server, not a database, or made by a newer Burnish.
        ResourceError: the driver is not installed, or the disk is full.
    """
    store = Store(_engine(url))
    try:
        with store.reading() as connection:
            current = _is_current(connection, store.name)
        if not current:
            with store.writing() as connection:
                command.upgrade(_migrations(connection), "head")
    except DatabaseError as error:
        store.close()
        raise ProjectError(
            f"cannot be opened as a store ({error.orig})",
            where=store.name,
            do="check `store` under [project] in burnish.toml",
        ) from error
    except BaseException:
        store.close()
        raise
    return store


def _engine(url: str) -> Engine:
    where = "store"
    try:
        parsed = make_url(url)
        where = parsed.render_as_string(hide_password=True)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ArgumentError("neither SQLite nor PostgreSQL")
        # Records are people's; an error message must not quote them.
        engine = create_engine(parsed, hide_parameters=True)
    except (ArgumentError, NoSuchModuleError) as error:
        raise ProjectError(
            f"is no store's URL ({error})",
            where=where,
            do="write sqlite:///burnish.db or postgresql+pg8000://user@host/database",
        ) from error
    except ModuleNotFoundError as error:
        raise ResourceError(
            f"needs the module {error.name}", where=where, do="pip install 'burnish[postgres]'"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver's own transactions begin late and skip DDL; ours are begun by _begin_sqlite.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL")
    # Hashes land all over their indexes. With 64 MiB of pages cached and folded back every 64 MiB
    # instead of 2 and 4, a bulk insert took 15 µs a row and not 25.
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA wal_autocheckpoint = 16384")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("burnish_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _is_current(connection: Connection, name: str) -> bool:
    steps = ScriptDirectory.from_config(_migrations(connection))
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and revision not in {step.revision for step in steps.walk_revisions()}:
        raise ProjectError(
            f"was made by a newer Burnish (its tables are at step {revision})",
            where=name,
            do="upgrade Burnish",
        )
    return revision == steps.get_current_head()


def _migrations(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
