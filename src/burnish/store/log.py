"""The log: who did what and when, each entry chained to the one before by its hash.

    hash = SHA-256(hash of the entry before + canonical JSON of {seq, at, actor, action, payload})

Changing, inserting or removing an entry breaks every hash after it. Cutting off the newest entries
does not, so keep the head `verify_log` returns somewhere else and compare.

Entries chain to the newest one committed, so transactions that log come one after another. They
are written last, when nothing but the commit is left to do: the others wait for no longer than
that, and nobody waits for a row while holding the log.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from burnish.errors import ProjectError
from burnish.hashing import canonical_json, content_hash
from burnish.project import utc_now
from burnish.store.locks import hold_name
from burnish.store.tables import log

_START = "0" * 64
_APPENDED = "burnish_log"


@dataclass(frozen=True, slots=True)
class LogHead:
    """How far the log goes; kept elsewhere it proves that nothing was cut off."""

    entries: int
    hash: str


def append_log(connection: Connection, actor: str, action: str, payload: Mapping[str, Any]) -> None:
    """Add one entry, in the transaction of the write it tells about."""
    entry = {
        "at": utc_now(),
        "actor": actor,
        "action": action,
        "payload": canonical_json(dict(payload)),
    }
    connection.info.setdefault(_APPENDED, []).append(entry)


@contextmanager
def appending_log(connection: Connection) -> Iterator[None]:
    """Write what the block appended; forget it if the block fails. Around every transaction."""
    info = connection.info  # asked now: a connection that was broken off has none any more
    try:
        yield
        _write(connection)
    finally:
        info.pop(_APPENDED, None)


def _write(connection: Connection) -> None:
    """Chain what was appended to the newest entry."""
    appended = connection.info.pop(_APPENDED, [])
    if not appended:
        return
    hold_name(connection, "log")
    last = connection.execute(_last()).one_or_none()
    seq, previous = (last.seq, last.hash) if last else (0, _START)
    rows = []
    for entry in appended:
        seq += 1
        previous = _chain(previous, {"seq": seq, **entry})
        rows.append({"seq": seq, **entry, "hash": previous})
    connection.execute(insert(log), rows)


@cache
def _last() -> Select[Any]:
    return select(log.c.seq, log.c.hash).order_by(log.c.seq.desc()).limit(1)


def rows_payload(rows: Iterable[Any], **facts: Any) -> dict[str, Any]:
    """What a batch leaves in the log: how many rows and the hash that pins every one of them."""
    rows = list(rows)
    return {"rows": len(rows), "rows_hash": content_hash(rows), **facts}


def read_log(connection: Connection, limit: int = 100) -> list[dict[str, Any]]:
    """The newest entries, newest first."""
    _write(connection)
    rows = connection.execute(select(log).order_by(log.c.seq.desc()).limit(limit)).mappings()
    return [{**row, "payload": json.loads(row["payload"])} for row in rows]


def verify_log(connection: Connection) -> LogHead:
    """Recompute every hash and return the head.

    Raises:
        ProjectError: an entry was changed, added or removed; says which is the first.
    """
    _write(connection)
    head = LogHead(0, _START)
    for row in connection.execute(select(log).order_by(log.c.seq)).mappings():
        entry = {key: row[key] for key in ("seq", "at", "actor", "action", "payload")}
        if row["seq"] != head.entries + 1 or row["hash"] != _chain(head.hash, entry):
            raise ProjectError(
                f"entry {head.entries + 1} was changed, or one before it added or removed",
                where="the store's log",
                do="compare with a backup; what the log says from there on is not proved",
            )
        head = LogHead(row["seq"], row["hash"])
    return head


def _chain(previous: str, entry: Mapping[str, Any]) -> str:
    return hashlib.sha256((previous + canonical_json(entry)).encode()).hexdigest()
