"""Who may work on a project: people, their passwords and sessions, tokens for programs.

A password is kept as argon2id with the second recommended option of RFC 9106, section 4 (3 passes
over 64 MiB in 4 lanes); a session or a token as its SHA-256, since 32 random bytes need no salt.

Guessing is slowed as NIST SP 800-63B asks (section 5.2.2: at most 100 failures on one account), and
so that a stranger cannot keep a named person out: after `_PAIR_FAILURES` one address is refused for
that name, while the person still gets in from theirs. Only failures from very many addresses close
a name to all of them, for `_WINDOW` at most after the last ones.
"""

from __future__ import annotations

import getpass
import hashlib
import ipaddress
import secrets
import threading
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from burnish.config import did_you_mean
from burnish.errors import InputError
from burnish.label.guidelines import checked_annotator
from burnish.project import timestamp
from burnish.store import Connection, Store
from burnish.store.log import append_log
from burnish.store.sessions import (
    add_failures,
    add_session,
    count_failures,
    end_session,
    extend_session,
    find_session,
    lock_failures,
    remove_failures,
)
from burnish.store.users import (
    Role,
    Token,
    User,
    add_token,
    add_user,
    deactivate,
    find_token_user,
    find_user,
    has_users,
    read_password_hash,
    read_tokens,
    read_users,
    rehash_password,
    remove_token,
    set_password_hash,
    set_role,
)

# NIST SP 800-63B, section 5.1.1.2: length and nothing else. The longest is there to bound the work.
_SHORTEST, _LONGEST = 10, 1024

_IDLE = timedelta(days=7)
"""A session nobody uses for so long has expired."""
_AT_MOST = timedelta(days=30)
"""How long a session may be renewed; NIST SP 800-63B, section 4.1.3."""
_RENEWED_EVERY = timedelta(hours=1)

_WINDOW = timedelta(minutes=15)
_PAIR_FAILURES = 5
"""Of one name from one address."""
_ADDRESS_FAILURES = 30
"""Of any names from one address: an office may share it."""
_NAME_FAILURES = 100
"""Of one name from any addresses."""

_hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
# Each takes 64 MiB and four threads; more at once would only wait for the same cores.
_hashing = threading.BoundedSemaphore(2)


@dataclass(frozen=True, slots=True)
class SignIn:
    """What came of an attempt to sign in."""

    session: str | None
    """What the browser keeps in its cookie; None where name or password were wrong."""
    wait_seconds: float = 0.0
    """Above 0: too many attempts failed, and this one was not looked at."""


def add_person(store: Store, name: str, password: str, role: Role, *, actor: str) -> User:
    """Let somebody sign in; somebody who was removed comes back with this password and role.

    Raises:
        InputError: the name cannot be used or is taken, the password is too short, or the first
            user would be no admin.
    """
    name = _checked_name(name)
    password_hash = _new_hash(password)
    with store.writing() as connection:
        if role != "admin" and not has_users(connection):
            raise InputError(
                "the first user must be an admin",
                do="add one first: burnish users add NAME --role admin",
            )
        if not add_user(connection, name, password_hash=password_hash, role=role, actor=actor):
            raise InputError(f"the name {name!r} is taken", do="choose another")
        return _found(connection, name)


def change_password(store: Store, name: str, password: str, *, actor: str) -> None:
    """Give a person a new password and sign them out everywhere.

    Raises:
        InputError: there is no such person, or the password is too short.
    """
    password_hash = _new_hash(password)
    with store.writing() as connection:
        _found(connection, name)
        set_password_hash(connection, name, password_hash, actor=actor)


def change_role(store: Store, name: str, role: Role, *, actor: str) -> None:
    """Give a person another role and sign them out everywhere.

    Raises:
        InputError: there is no such person, or they are the last admin.
    """
    with store.writing() as connection:
        user = _found(connection, name)
        if role != user.role:
            if user.role == "admin":
                _spare_last_admin(connection, name)
            set_role(connection, name, role, actor=actor)


def remove_person(store: Store, name: str, *, actor: str) -> None:
    """Let a person in no more; what they have answered stays theirs.

    Raises:
        InputError: there is no such person, or they are the last admin.
    """
    with store.writing() as connection:
        if _found(connection, name).role == "admin":
            _spare_last_admin(connection, name)
        deactivate(connection, name, actor=actor)


def sign_in(store: Store, name: str, password: str, *, address: str, now: datetime) -> SignIn:
    """Begin a session where the password is right.

    An attempt counts as failed until the password has proved right, so that processes that ask at
    the same moment do not look at more of them than the limits allow. An unknown name costs as much
    time as a known one.
    """
    name = unicodedata.normalize("NFC", name.strip())
    if not name.isprintable() or len(name) > 64:
        name = ""  # nobody's
    pair, from_here, to_name = _failure_keys(name, address)
    limits = {pair: _PAIR_FAILURES, from_here: _ADDRESS_FAILURES, to_name: _NAME_FAILURES}
    at, since = timestamp(now), timestamp(now - _WINDOW)
    with store.writing() as connection:
        lock_failures(connection)
        counted = count_failures(connection, limits, since=since)
        full = [oldest for key, (count, oldest) in counted.items() if count >= limits[key]]
        if full:
            free_at = datetime.fromisoformat(max(full)) + _WINDOW
            return SignIn(None, max(1.0, (free_at - now).total_seconds()))
        add_failures(connection, limits, at=at, since=since)
        password_hash = read_password_hash(connection, name)
    if not _verify(password_hash, password):
        return SignIn(None)
    assert password_hash is not None
    session = secrets.token_urlsafe(32)
    renewed = _hash(password) if _hasher.check_needs_rehash(password_hash) else None
    with store.writing() as connection:
        if read_password_hash(connection, name) != password_hash:
            return SignIn(None)  # changed, or removed, while we were verifying
        remove_failures(connection, pair)
        for key in (from_here, to_name):
            remove_failures(connection, key, at=at)
        if renewed is not None:
            rehash_password(connection, name, password_hash, renewed)
        expires_at = timestamp(now + _IDLE)
        add_session(connection, _sha256(session), name, now=at, expires_at=expires_at)
        append_log(connection, name, "sign in", {})
    return SignIn(session)


def session_user(store: Store, session: str, *, now: datetime) -> User | None:
    """Whose session it is; being used, it lasts longer. None where it has ended."""
    with store.looking() as connection:
        found = find_session(connection, _sha256(session), now=timestamp(now))
    if found is None:
        return None
    begun = datetime.fromisoformat(found.begun_at)
    expires_at = min(now + _IDLE, begun + _AT_MOST)
    if expires_at - datetime.fromisoformat(found.expires_at) > _RENEWED_EVERY:
        with store.writing() as connection:
            extend_session(connection, _sha256(session), timestamp(expires_at))
    return found.user


def sign_out(store: Store, session: str) -> None:
    """End a session; one that has ended already is no error."""
    with store.writing() as connection:
        end_session(connection, _sha256(session))


def make_token(
    store: Store, user: str, name: str, *, actor: str, now: datetime, days: int | None = None
) -> str:
    """A token that lets a program do what `user` may, for so many days or until it is removed.

    It is told once: the store keeps a hash of it.

    Raises:
        InputError: there is no such person, or the name is empty, too long or taken.
    """
    name = _checked_name(name)
    token = "burnish_" + secrets.token_urlsafe(32)
    expires_at = None if days is None else timestamp(now + timedelta(days=days))
    with store.writing() as connection:
        _found(connection, user)
        if name in {known.name for known in read_tokens(connection, user)}:
            raise InputError(
                f"{user} has a token {name!r} already", do="remove it, or choose another name"
            )
        row = Token(name, user, timestamp(now), expires_at)
        add_token(connection, row, token_hash=_sha256(token), actor=actor)
    return token


def end_token(store: Store, user: str, name: str, *, actor: str) -> None:
    """Let a token in no more.

    Raises:
        InputError: the person has no such token.
    """
    with store.writing() as connection:
        if not remove_token(connection, user, name, actor=actor):
            known = [token.name for token in read_tokens(connection, user)]
            near = did_you_mean(name, known) if known else ""
            raise InputError(
                f"{user} has no token {name!r}{near}", do="`burnish users list` shows them"
            )


def token_user(store: Store, token: str, *, now: datetime) -> User | None:
    """The person a token stands for; None where it has expired, was removed or never was."""
    with store.looking() as connection:
        return find_token_user(connection, _sha256(token), now=timestamp(now))


def login_name() -> str:
    """The name of who sits at this machine, for what they do without signing in."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "local"  # a container's user id without a name


def _found(connection: Connection, name: str) -> User:
    user = find_user(connection, name)
    if user is None or not user.active:
        raise InputError(f"there is no user {name!r}", do="`burnish users list` shows them")
    return user


def _spare_last_admin(connection: Connection, name: str) -> None:
    others = (u for u in read_users(connection) if u.active and u.role == "admin")
    if all(user.name == name for user in others):
        raise InputError(
            f"{name} is the last admin", do="make somebody else admin first, or nobody could"
        )


def _checked_name(name: str) -> str:
    name = unicodedata.normalize("NFC", checked_annotator(name))
    if "/" in name:
        raise InputError(f"a name has no slash: {name!r}", do="names stand in addresses of the API")
    return name


def _new_hash(password: str) -> str:
    if not _SHORTEST <= len(password) <= _LONGEST:
        raise InputError(
            f"a password has {_SHORTEST} to {_LONGEST} characters, not {len(password)}",
            do="several words are easier to remember than odd characters",
        )
    return _hash(password)


def _hash(password: str) -> str:
    with _hashing:
        return _hasher.hash(_normal(password))


def _verify(password_hash: str | None, password: str) -> bool:
    nobody = _hash_of_nobody()
    with _hashing:
        try:
            _hasher.verify(password_hash or nobody, _normal(password[:_LONGEST]))
        except (VerificationError, InvalidHashError):
            return False
    return password_hash is not None


def _normal(password: str) -> bytes:
    """One form for what keyboards send in several (NIST SP 800-63B, section 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")


@cache
def _hash_of_nobody() -> str:
    return _hash(secrets.token_urlsafe(32))


def _failure_keys(name: str, address: str) -> tuple[str, str, str]:
    """What failures are counted under. A network of 2^64 IPv6 addresses is one customer's."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        pass
    else:
        if isinstance(ip, ipaddress.IPv6Address):
            address = str(ipaddress.ip_network((ip, 64), strict=False))
    return f"user:{name} address:{address}", f"address:{address}", f"user:{name}"


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
