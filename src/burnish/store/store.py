"""Open the store; one transaction to read, one short transaction to write.

SQLite's writers wait for one another up to `BUSY_SECONDS`, threads of one process in turn; what a
PostgreSQL server broke off is done again by `Store.write`. `engine` tells how they begin.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from burnish.errors import ProjectError
from burnish.files import full_disk_is_the_users
from burnish.store.engine import BUSY_SECONDS, Transaction, make_engine, sqlstate
from burnish.store.locks import Turns, hold_name
from burnish.store.log import appending_log
from burnish.store.migrations import NEWEST

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
        with self._clear_errors(), self._connect("read") as connection, connection.begin():
            yield connection

    @contextmanager
    def looking(self) -> Iterator[Connection]:
        """Statements that each see the newest commit: what they take, without a transaction's."""
        with self._clear_errors(), self._connect("none") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """All of the block's writes, or none. Keep it short: other writers wait."""
        with (
            self._clear_errors(),
            self._turn(),
            self._connect("write") as connection,
            connection.begin(),
            appending_log(connection),
        ):
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
                again = error.connection_invalidated or sqlstate(error) in _BROKEN_OFF
                if not again or attempt == _ATTEMPTS - 1:
                    raise
            time.sleep(0.02 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Let go of every connection; the last one folds the WAL back into the file."""
        self.engine.dispose()

    def _connect(self, transaction: Transaction) -> Connection:
        return self.engine.connect().execution_options(burnish_transaction=transaction)

    def _turn(self) -> AbstractContextManager[None]:
        return self._turns.turn(BUSY_SECONDS) if self._is_sqlite else nullcontext()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        # A server's disk is not ours to see; a file's is.
        with full_disk_is_the_users(Path(self.name) if self._is_sqlite else Path.cwd()):
            try:
                yield
            except DatabaseError as error:
                if "disk is full" in str(error.orig) or sqlstate(error) == _DISK_FULL:
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
    store = Store(make_engine(url))
    try:
        with store.reading() as connection:
            step = _step(connection)
        if step != NEWEST:
            from burnish.store.upgrade import upgrade

            with store.writing() as connection:
                hold_name(connection, "migrations")
                upgrade(connection, store.name, _step(connection))
    except (DatabaseError, InterfaceError) as error:
        store.close()
        is_locked_away = "readonly" in str(error.orig) or "unable to open" in str(error.orig)
        raise ProjectError(
            f"cannot be opened as a store ({error.orig})",
            where=store.name,
            do="see that the file and its folder can be written to"
            if is_locked_away
            else "check `store` under [project] in burnish.toml",
        ) from error
    except BaseException:
        store.close()
        raise
    return store


def _step(connection: Connection) -> str | None:
    """The last of the migrations that a store has been through."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.scalar(text("SELECT version_num FROM alembic_version"))
