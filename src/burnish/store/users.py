"""People who may sign in, and the tokens programs use in their name.

A person is never deleted: annotations carry their name. Whoever is removed is made inactive, which
ends their sessions and tokens, and may be added again.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    update,
)

from burnish.project import utc_now
from burnish.store.insert import insert_new
from burnish.store.log import append_log
from burnish.store.tables import (
    annotations,
    expired_leases,
    leases,
    sessions,
    tokens,
    users,
)

Role = Literal["annotator", "reviewer", "admin"]
ROLES: tuple[Role, ...] = ("annotator", "reviewer", "admin")
"""Each may do what those before it may."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may sign in, or might until they were removed."""

    name: str
    role: Role
    active: bool
    created_at: str
    """ISO 8601 in UTC."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; the token itself is kept by nobody but its user."""

    name: str
    """What it is for; a user's tokens have different names."""
    user: str
    created_at: str
    expires_at: str | None
    """ISO 8601 in UTC; None for one that lasts until it is removed."""


def add_user(
    connection: Connection, name: str, *, password_hash: str, role: Role, actor: str
) -> bool:
    """Add a person, or let an inactive one back; False where the name is taken."""
    values = {"password_hash": password_hash, "role": role, "active": True}
    row = {"name": name, "created_at": utc_now(), **values}
    if not insert_new(connection, users, [row], users.c.name):
        inactive = and_(users.c.name == name, ~users.c.active)
        if not connection.execute(update(users).where(inactive).values(values)).rowcount:
            return False
    append_log(connection, actor, "add user", {"user": name, "role": role})
    return True


def read_users(connection: Connection) -> list[User]:
    """Everybody, by name, the inactive too."""
    return [to_user(row) for row in connection.execute(select(users).order_by(users.c.name))]


def find_user(connection: Connection, name: str) -> User | None:
    """The person of that name."""
    row = connection.execute(select(users).where(users.c.name == name)).one_or_none()
    return to_user(row) if row else None


def has_users(connection: Connection) -> bool:
    """Whether anybody was ever added; from then on everybody signs in."""
    return bool(connection.scalar(select(exists(select(users.c.name)))))


def read_password_hash(connection: Connection, name: str) -> str | None:
    """The hash of an active person's password; None where there is no such person."""
    query = select(users.c.password_hash).where(users.c.name == name, users.c.active)
    return connection.scalar(query)


def set_password_hash(connection: Connection, name: str, password_hash: str, *, actor: str) -> None:
    """Replace a password, which ends every session of its owner."""
    _set(connection, name, password_hash=password_hash)
    _end_sessions(connection, name)
    append_log(connection, actor, "set password", {"user": name})


def rehash_password(connection: Connection, name: str, old: str, new: str) -> None:
    """Replace the hash `old` of the same password by one made with newer parameters."""
    same = and_(users.c.name == name, users.c.password_hash == old)
    connection.execute(update(users).where(same).values(password_hash=new))
    append_log(connection, name, "rehash password", {"user": name})


def set_role(connection: Connection, name: str, role: Role, *, actor: str) -> None:
    """Give a person another role, which ends every session of theirs."""
    _set(connection, name, role=role)
    _end_sessions(connection, name)
    append_log(connection, actor, "set role", {"user": name, "role": role})


def deactivate(connection: Connection, name: str, *, actor: str) -> None:
    """Let a person in no more: sessions and tokens end, what they have answered stays."""
    _set(connection, name, active=False)
    _end_sessions(connection, name)
    connection.execute(delete(tokens).where(tokens.c.user == name))
    append_log(connection, actor, "remove user", {"user": name})


def add_token(connection: Connection, token: Token, *, token_hash: str, actor: str) -> None:
    """Keep a token's hash (SHA-256, 64 hex digits)."""
    row = {
        "token_hash": token_hash,
        "name": token.name,
        "user": token.user,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
    }
    connection.execute(insert(tokens).values(row))
    append_log(connection, actor, "add token", {"user": token.user, "token": token.name})


def read_tokens(connection: Connection, user: str) -> list[Token]:
    """A person's tokens, oldest first, the expired too."""
    rows = connection.execute(
        select(tokens).where(tokens.c.user == user).order_by(tokens.c.created_at, tokens.c.name)
    )
    return [Token(row.name, row.user, row.created_at, row.expires_at) for row in rows]


def remove_token(connection: Connection, user: str, name: str, *, actor: str) -> bool:
    """End a token; False where the person has none of that name."""
    mine = and_(tokens.c.user == user, tokens.c.name == name)
    if not connection.execute(delete(tokens).where(mine)).rowcount:
        return False
    append_log(connection, actor, "remove token", {"user": user, "token": name})
    return True


def find_token_user(connection: Connection, token_hash: str, *, now: str) -> User | None:
    """The active person a token stands for, unless it has expired."""
    row = connection.execute(_bearer(), {"hash": token_hash, "now": now}).one_or_none()
    return to_user(row) if row else None


@cache
def _bearer() -> Select[Any]:
    unexpired = or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > bindparam("now"))
    return (
        select(users)
        .join(tokens, tokens.c.user == users.c.name)
        .where(tokens.c.token_hash == bindparam("hash"), unexpired, users.c.active)
    )


def was_shown(
    connection: Connection, annotator: str, example_id: str, *, task: str | None = None
) -> bool:
    """Whether an annotator has or had the example leased, or has annotated it.

    Under any task, unless one is named.
    """
    values = {"of_annotator": annotator, "of_example": example_id, "of_task": task}
    return bool(connection.scalar(_was_shown(any_task=task is None), values))


@cache
def _was_shown(*, any_task: bool) -> Select[Any]:
    def among(table: Table) -> ColumnElement[bool]:
        theirs = exists().where(
            table.c.example_id == bindparam("of_example"),
            table.c.annotator == bindparam("of_annotator"),
        )
        return theirs if any_task else theirs.where(table.c.task == bindparam("of_task"))

    return select(or_(*map(among, (leases, annotations, expired_leases))))


def to_user(row: Row[Any]) -> User:
    """A person from a row of their table."""
    return User(row.name, cast(Role, row.role), row.active, row.created_at)


def _end_sessions(connection: Connection, name: str) -> None:
    connection.execute(delete(sessions).where(sessions.c.user == name))


def _set(connection: Connection, name: str, **values: Any) -> None:
    changed = connection.execute(update(users).where(users.c.name == name).values(**values))
    assert changed.rowcount == 1, "callers look the person up first"
