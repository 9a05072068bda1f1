"""Insert-or-ignore, in the two dialects we speak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_new(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], key: Column[str]
) -> set[str]:
    """Insert the rows whose `key` is not there yet and return the keys that were added."""
    if not rows:
        return set()
    dialect = {"sqlite": sqlite, "postgresql": postgresql}[connection.dialect.name]
    statement = dialect.insert(table).on_conflict_do_nothing().returning(key)
    return set(connection.execute(statement, list(rows)).scalars())
