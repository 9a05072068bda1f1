"""Many rows at once, in the two dialects we speak."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Select, Table, Text, cast, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.exc import DatabaseError

from burnish.hashing import canonical_json


def insert_new(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], key: Column[str]
) -> set[str]:
    """Insert the rows whose `key`, which is unique, is not there yet; return those keys."""
    if not rows:
        return set()
    if connection.dialect.name == "postgresql" or len(rows) == 1:
        added = _insert_missing(connection, table).returning(key)
        return set(connection.execute(added, list(rows)).scalars())
    # SQLite journals every page again where one statement inserts many rows and returns some: three
    # times as much to write. It has one writer, so what is known now is all that will be.
    keys = {row[key.name] for row in rows}
    known = connection.execute(select(key).where(key.in_(listed(connection, keys)))).scalars().all()
    insert_missing(connection, table, rows)
    return keys.difference(known)


def insert_missing(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows that break no unique constraint, and leave the others."""
    if rows:
        connection.execute(_insert_missing(connection, table), list(rows))


def _insert_missing(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    dialect = {"sqlite": sqlite, "postgresql": postgresql}[connection.dialect.name]
    statement: sqlite.Insert | postgresql.Insert = dialect.insert(table).on_conflict_do_nothing()
    return statement


def listed(connection: Connection, texts: Collection[str]) -> Select[Any]:
    """A batch's ids or keys for a statement to select from: one JSON text, however many they are.

    As a parameter each, a statement has to be written anew for every number of them.
    """
    text = canonical_json(list(texts))
    if connection.dialect.name == "postgresql":
        return select(func.json_array_elements_text(cast(cast(text, Text), JSON)).column_valued())
    return select(func.json_each(text).table_valued("value").c.value)


def insert_many(
    connection: Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert rows that are not there yet, the quickest way the driver has.

    By `executemany`, or COPY. `insert_new` takes twice as long for a row of an example.
    """
    names = ", ".join(columns)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(columns))
        statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"
        connection.exec_driver_sql(statement, rows)
        return
    statement = f"COPY {table} ({names}) FROM STDIN"
    lines = "".join(["\t".join(map(_copy_text, row)) + "\n" for row in rows])
    # SQLAlchemy hands no stream on; the cursor is in the connection's transaction all the same.
    cursor: Any = connection.connection.cursor()
    try:
        cursor.execute(statement, stream=io.BytesIO(lines.encode()))
    except connection.dialect.loaded_dbapi.Error as error:
        raise DatabaseError(statement, None, error) from error
    finally:
        cursor.close()


def _copy_text(value: str | float | None) -> str:
    """A value as COPY reads it: https://www.postgresql.org/docs/current/sql-copy.html."""
    if value is None:
        return "\\N"
    if not isinstance(value, str):
        return str(value)
    value = value.replace("\\", "\\\\")
    return value if value.isprintable() else value.translate(_ESCAPES)


_ESCAPES = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})
