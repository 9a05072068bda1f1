"""Who is signed in, and which attempts to sign in have failed.

Both come and go, so neither is in the log. Times are ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, insert, select, text, update

from burnish.store.tables import sessions, sign_in_failures, users
from burnish.store.users import User, to_user


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in."""

    user: User
    begun_at: str
    expires_at: str


def add_session(
    connection: Connection, token_hash: str, user: str, *, now: str, expires_at: str
) -> None:
    """Keep a session by the SHA-256 of its cookie (64 hex digits); expired ones go."""
    connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
    row = {
        "token_hash": token_hash,
        "user": user,
        "created_at": now,
        "expires_at": expires_at,
    }
    connection.execute(insert(sessions).values(row))


def find_session(connection: Connection, token_hash: str, *, now: str) -> Session | None:
    """The session of an active person, unless it has expired."""
    row = connection.execute(_signed_in(), {"hash": token_hash, "now": now}).one_or_none()
    return Session(to_user(row), row.begun_at, row.expires_at) if row else None


@cache
def _signed_in() -> Select[Any]:
    unexpired = sessions.c.expires_at > bindparam("now")
    return (
        select(users, sessions.c.created_at.label("begun_at"), sessions.c.expires_at)
        .join(sessions, sessions.c.user == users.c.name)
        .where(sessions.c.token_hash == bindparam("hash"), unexpired, users.c.active)
    )


def extend_session(connection: Connection, token_hash: str, expires_at: str) -> None:
    """Let a session last longer."""
    mine = sessions.c.token_hash == token_hash
    connection.execute(update(sessions).where(mine).values(expires_at=expires_at))


def end_session(connection: Connection, token_hash: str) -> None:
    """Sign out here."""
    connection.execute(delete(sessions).where(sessions.c.token_hash == token_hash))


def lock_failures(connection: Connection) -> None:
    """Let one transaction at a time count and add; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE sign_in_failures IN EXCLUSIVE MODE"))


def count_failures(
    connection: Connection, keys: Collection[str], *, since: str
) -> dict[str, tuple[int, str]]:
    """How many failures each key has after `since`, and when its oldest of them was."""
    query = (
        select(
            sign_in_failures.c.key,
            func.count().label("failures"),
            func.min(sign_in_failures.c.at).label("oldest"),
        )
        .where(sign_in_failures.c.key.in_(keys), sign_in_failures.c.at > since)
        .group_by(sign_in_failures.c.key)
    )
    return {row.key: (row.failures, row.oldest) for row in connection.execute(query)}


def add_failures(connection: Connection, keys: Collection[str], *, at: str, since: str) -> None:
    """Note one failure under each key; what is older than `since` goes."""
    connection.execute(delete(sign_in_failures).where(sign_in_failures.c.at <= since))
    connection.execute(insert(sign_in_failures), [{"key": key, "at": at} for key in keys])


def remove_failures(connection: Connection, key: str, *, at: str | None = None) -> None:
    """Forget a key's failures, or one of those noted at `at`."""
    mine = sign_in_failures.c.key == key
    if at is not None:
        one = select(func.min(sign_in_failures.c.seq)).where(mine, sign_in_failures.c.at == at)
        mine = sign_in_failures.c.seq == one.scalar_subquery()
    connection.execute(delete(sign_in_failures).where(mine))
