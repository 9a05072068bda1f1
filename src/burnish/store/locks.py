"""Who goes first: turns for threads that write, and names that transactions hold.

SQLite has one writer, and lets those that wait find out by trying again and again: whoever tries at
the right moment wins, and some lose for seconds. Threads of one process therefore queue here.
PostgreSQL has many writers; where they must come one after another, they hold a name.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, func, select


class Turns:
    """A lock that threads get in the order they asked for it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def turn(self, seconds: float) -> Iterator[None]:
        """Have the turn for as long as the block lasts.

        Raises:
            TimeoutError: it did not come within so many seconds.
        """
        self._wait(seconds)
        try:
            yield
        finally:
            with self._guard:
                if self._waiting:
                    self._waiting.popleft().set()
                else:
                    self._is_taken = False

    def _wait(self, seconds: float) -> None:
        mine = threading.Event()
        with self._guard:
            if not self._is_taken:
                self._is_taken = True
                return
            self._waiting.append(mine)
        if mine.wait(seconds):
            return
        with self._guard:
            # It may have come between the end of the wait and here.
            if mine in self._waiting:
                self._waiting.remove(mine)
                raise TimeoutError


def hold_name(connection: Connection, name: str) -> None:
    """Keep other transactions off `name` until this one ends; SQLite's one writer needs none.

    An advisory lock rather than a table's, which would wait for autovacuum too.
    """
    if connection.dialect.name == "postgresql":
        digest = hashlib.sha256(name.encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        connection.execute(select(func.pg_advisory_xact_lock(key)))
