"""pg8000's connection, asking the server once where pg8000 asks three times.

Our statements are many, small and the same ones again and again, so what is done around each is
what they cost. Of 14 ms of CPU for a `next` and its `submit`, pg8000 spent 5 on reading statements
letter by letter to number their parameters, and 2 on its round trips; the server spent 4 of its 7
on planning them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, BinaryIO

from pg8000 import Connection, Cursor, DatabaseError
from pg8000.converters import make_params
from pg8000.core import (
    DESCRIBE,
    NULL_BYTE,
    PORTAL,
    SYNC_MSG,
    Context,
    _flush,
    _write,
)
from pg8000.dbapi import convert_paramstyle

# A statement is prepared the fifth time it is sent. Those with longer lists of values are left out:
# they are others with every length of the list, and would pile up.
_PREPARED_AT, _MOST_VALUES = 5, 100


class PromptCursor(Cursor):
    """A cursor that knows the statements it has read before."""

    def execute(
        self, operation: str, args: Sequence[Any] = (), stream: BinaryIO | None = None
    ) -> PromptCursor:
        """Send one statement; `stream` is what a COPY reads."""
        if not args or stream is not None:
            super().execute(operation, args, stream=stream)
        else:
            self._context = self._c.execute_unnamed(_numbered(operation), args)
            self._row_iter = iter(self._context.rows or ())
        return self


class PromptConnection(Connection):
    """A connection without transactions of its own: BEGIN is a statement like others."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.autocommit = True
        self._sent: Counter[str] = Counter()
        self._prepared: dict[str, bytes] = {}
        self._names = itertools.count()

    def cursor(self) -> PromptCursor:
        """A cursor on this connection."""
        return PromptCursor(self)

    def commit(self) -> None:
        """End the transaction, if there is one."""
        if self._in_transaction:
            self.execute_simple("COMMIT")

    def execute_unnamed(
        self,
        statement: str,
        vals: Sequence[Any] = (),
        oids: Sequence[int] = (),
        stream: BinaryIO | None = None,
    ) -> Context:
        """Parse what is not prepared, bind and execute, in one round trip.

        https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY
        """
        if stream is not None:
            return super().execute_unnamed(statement, vals, oids, stream)
        context = Context(statement)
        name = self._prepared.get(statement)
        if name is None:
            name = self._new_name(statement, vals)
            self.send_PARSE(name, statement, oids)
        self.send_BIND(name, make_params(self.py_types, vals))
        self._send_message(DESCRIBE, PORTAL + NULL_BYTE)
        self.send_EXECUTE()
        _write(self._sock, SYNC_MSG)
        _flush(self._sock)
        try:
            self.handle_messages(context)
        except DatabaseError:
            # It may be that the tables have changed since it was prepared.
            self._prepared.pop(statement, None)
            raise
        if name != NULL_BYTE:
            self._prepared[statement] = name
        return context

    def _new_name(self, statement: str, vals: Sequence[Any]) -> bytes:
        """The name to prepare a statement by; none where it is not worth it."""
        if len(vals) > _MOST_VALUES:
            return NULL_BYTE
        self._sent[statement] += 1
        if self._sent[statement] < _PREPARED_AT:
            return NULL_BYTE
        return f"burnish_{next(self._names)}".encode() + NULL_BYTE


@lru_cache(1000)
def _numbered(statement: str) -> str:
    """A statement with `$1` for the first `%s`, and so on."""
    numbered: str = convert_paramstyle("format", statement, ())[0]
    return numbered
