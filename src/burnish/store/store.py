"""Open the store; one transaction to read, one short transaction to write.

SQLite in WAL mode: readers never wait, writers wait for one another up to `BUSY_SECONDS`, threads
of one process in turn. A write transaction begins IMMEDIATE, or SQLite would let two of them start
and fail the second half-way ("database is locked", HumanSignal/label-studio#5755, #7170).

PostgreSQL: a reader sees one moment (REPEATABLE READ); a writer sees what others have committed
(READ COMMITTED), locks the rows it decides about, and is done again by `Store.write` where the
server broke it off.
"""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from burnish.errors import ProjectError, ResourceError
from burnish.files import full_disk_is_the_users
from burnish.store.locks import Turns, hold_name
from burnish.store.log import appending_log
from burnish.store.queue_rebuild import rebuild_queue

BUSY_SECONDS = 15
_MIGRATIONS = Path(__file__).parent / "migrations"
# As many as a studio's threads ask for at most; PostgreSQL allows 100 in all, four studios' share.
_POOL = {"sqlite": (5, 45), "postgresql": (5, 15)}
# PostgreSQL's codes for a transaction that should be done again: serialisation failure, deadlock.
_BROKEN_OFF = {"40001", "40P01"}
_DISK_FULL = "53100"
_ATTEMPTS = 6

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Store:
    """An open store. Threads may share it; each takes its own connection."""

    engine: Engine
    _turns: Turns = field(default_factory=Turns, repr=False, compare=False)

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
        with self._clear_errors(), self._turn(), self.engine.connect() as connection:
            connection = connection.execution_options(burnish_writes=True)
            with connection.begin(), appending_log(connection):
                yield connection

    def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, done while `writing`; done again where the server broke it off.

        A server that went away may have committed: work done twice must add nothing the second
        time.
        """
        for attempt in range(_ATTEMPTS):
            try:
                with self.writing() as connection:
                    return work(connection)
            except DBAPIError as error:
                again = error.connection_invalidated or _sqlstate(error) in _BROKEN_OFF
                if not again or attempt == _ATTEMPTS - 1:
                    raise
            time.sleep(0.02 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Let go of every connection; the last one folds the WAL back into the file."""
        self.engine.dispose()

    def _turn(self) -> AbstractContextManager[None]:
        return self._turns.turn(BUSY_SECONDS) if self._is_sqlite else nullcontext()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        # A server's disk is not ours to see; a file's is.
        with full_disk_is_the_users(Path(self.name) if self._is_sqlite else Path.cwd()):
            try:
                yield
            except DatabaseError as error:
                if "disk is full" in str(error.orig) or _sqlstate(error) == _DISK_FULL:
                    raise OSError(errno.ENOSPC, str(error.orig)) from error
                if "database is locked" not in str(error.orig):
                    raise
                raise self._busy() from error
            except (TimeoutError, PoolTimeoutError) as error:
                raise self._busy() from error

    def _busy(self) -> ProjectError:
        return ProjectError(
            f"others have been at work on it for more than {BUSY_SECONDS} s",
            where=self.name,
            do="try again when they have finished; nothing was changed",
        )


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
                hold_name(connection, "migrations")
                command.upgrade(_migrations(connection), "head")
                rebuild_queue(connection)
    except (DatabaseError, InterfaceError) as error:
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
        backend = parsed.get_backend_name()
        if backend not in _POOL:
            raise ArgumentError("neither SQLite nor PostgreSQL")
        size, overflow = _POOL[backend]
        levels = {} if backend == "sqlite" else {"isolation_level": "READ COMMITTED"}
        engine = create_engine(
            parsed,
            **levels,
            # Records are people's; an error message must not quote them.
            hide_parameters=True,
            pool_size=size,
            max_overflow=overflow,
            pool_timeout=BUSY_SECONDS,
            # The one used last has the warmest cache, and the others are let go.
            pool_use_lifo=True,
            # A server may have been restarted since.
            pool_pre_ping=backend != "sqlite",
        )
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
    if backend == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        # pg8000 sends the rows of a batch one by one; this joins them into one statement.
        engine.dialect.use_insertmanyvalues_wo_returning = True
        event.listen(engine, "begin", _begin_postgresql)
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


def _begin_postgresql(connection: Connection) -> None:
    if not connection.get_execution_options().get("burnish_writes", False):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's five-character code of an error; empty for another database's."""
    details = error.orig.args[0] if error.orig and error.orig.args else None
    return str(details.get("C", "")) if isinstance(details, dict) else ""


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
