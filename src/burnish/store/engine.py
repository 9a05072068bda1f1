"""Connections to the two databases, and how their transactions begin.

SQLite       readers never wait (WAL mode). A writer begins IMMEDIATE, or SQLite would let two
of them start and fail the second half-way ("database is locked",
HumanSignal/label-studio#5755, #7170).
PostgreSQL   a reader sees one moment (REPEATABLE READ); a writer sees what others have
committed (READ COMMITTED), and locks the rows it decides about.
"""

from __future__ import annotations

import sqlite3
from time import monotonic
from typing import Any, Literal

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError, NoSuchModuleError

from burnish.errors import ProjectError, ResourceError

BUSY_SECONDS = 15

Transaction = Literal["read", "write", "none"]
"""What a connection begins; told by `execution_options(burnish_transaction=...)`."""

# As many as a studio's threads ask for at most; PostgreSQL allows 100 in all, four studios' share.
_POOL = {"sqlite": (5, 45), "postgresql": (5, 15)}

_BEGIN = {
    "sqlite": {"read": "BEGIN", "write": "BEGIN IMMEDIATE"},
    "postgresql": {
        "read": "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        "write": "BEGIN ISOLATION LEVEL READ COMMITTED",
    },
}

# A server may have been restarted since a connection was used last. Asked each time, a request
# took a seventh longer; a connection in steady use finds out by its first statement.
_IDLE_SECONDS = 1.0


def make_engine(url: str) -> Engine:
    """The engine of a store's URL; nothing is connected yet.

    Raises:
        ProjectError: no URL of SQLite or PostgreSQL.
        ResourceError: the driver is not installed.
    """
    where = "store"
    try:
        parsed = _parsed(url)
        where = parsed.render_as_string(hide_password=True)
        backend = parsed.get_backend_name()
        if backend not in _POOL:
            raise ArgumentError("neither SQLite nor PostgreSQL")
        size, overflow = _POOL[backend]
        engine = create_engine(
            parsed,
            # Records are people's; an error message must not quote them.
            hide_parameters=True,
            pool_size=size,
            max_overflow=overflow,
            pool_timeout=BUSY_SECONDS,
            # The one used last has the warmest cache, and the others are let go.
            pool_use_lifo=True,
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
    event.listen(engine, "begin", _begin)
    if backend == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    else:
        _prepare_postgresql(engine)
    return engine


def _parsed(url: str) -> URL:
    prefix = "sqlite:///"
    if url.startswith(prefix):
        # A path may hold anything: in a URL, what follows a question mark would be options.
        return URL.create("sqlite", database=url.removeprefix(prefix))
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        return parsed.set(drivername="postgresql+pg8000")
    return parsed


def sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's five-character code of an error; empty for another database's."""
    details = error.orig.args[0] if error.orig and error.orig.args else None
    return str(details.get("C", "")) if isinstance(details, dict) else ""


def _begin(connection: Connection) -> None:
    transaction = connection.get_execution_options().get("burnish_transaction", "read")
    if transaction != "none":
        connection.exec_driver_sql(_BEGIN[connection.dialect.name][transaction])


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver's own transactions begin late and skip DDL; ours are begun by _begin.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL")
    # Hashes land all over their indexes. With 64 MiB of pages cached and folded back every 64 MiB
    # instead of 2 and 4, a bulk insert took 15 µs a row and not 25.
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA wal_autocheckpoint = 16384")


def _prepare_postgresql(engine: Engine) -> None:
    from burnish.store.postgresql import PromptConnection

    # pg8000 sends the rows of a batch one by one; this joins them into one statement.
    engine.dialect.use_insertmanyvalues_wo_returning = True

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, args: Any, options: Any) -> PromptConnection:
        return PromptConnection(*args, **options)

    @event.listens_for(engine, "checkin")
    def note_use(_connection: Any, record: Any) -> None:
        record.info["used"] = monotonic()

    @event.listens_for(engine, "checkout")
    def see_whether_alive(connection: Any, record: Any, _proxy: Any) -> None:
        if monotonic() - record.info.get("used", monotonic()) < _IDLE_SECONDS:
            return
        try:
            connection.execute_simple("")
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error
