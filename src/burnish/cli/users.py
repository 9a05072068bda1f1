"""Commands around people: users add, list, role, remove, password, token, remove-token."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from burnish.cli.settings import opened_project
from burnish.console import print_rows
from burnish.label.people import (
    add_person,
    change_password,
    change_role,
    end_token,
    login_name,
    make_token,
    remove_person,
)
from burnish.store.users import ROLES, Role, read_tokens, read_users

_ROLE = click.Choice(ROLES)


@click.group()
def users() -> None:
    """Who may sign in to the studio and use its API; with the first user everybody signs in."""


@users.command()
@click.argument("name")
@click.option("--role", type=_ROLE, default="annotator", show_default=True, help="What they may.")
def add(name: str, role: Role) -> None:
    """Let NAME sign in; asks for a password, or reads one line of standard input."""
    with opened_project() as (_, store):
        add_person(store, name, _read_password(), role, actor=_actor())
    click.echo(f"{name} may sign in as {role}")


@users.command("list")
def list_() -> None:
    """Show everybody, with their roles and tokens."""
    with opened_project() as (_, store), store.reading() as connection:
        people = [(user, read_tokens(connection, user.name)) for user in read_users(connection)]
    rows = [(u.name, u.role if u.active else "removed", u.created_at) for u, _ in people]
    print_rows("users", ("name", "role", "added"), rows)
    tokens = [(t.user, t.name, t.created_at, t.expires_at) for _, theirs in people for t in theirs]
    if tokens:
        print_rows("tokens", ("user", "purpose", "made", "ends"), tokens)


@users.command()
@click.argument("name")
@click.argument("new", metavar="ROLE", type=_ROLE)
def role(name: str, new: Role) -> None:
    """Give NAME the role ROLE; they have to sign in again."""
    with opened_project() as (_, store):
        change_role(store, name, new, actor=_actor())
    click.echo(f"{name} is {new}")


@users.command()
@click.argument("name")
def remove(name: str) -> None:
    """Let NAME in no more; their annotations stay. `users add` lets them back."""
    with opened_project() as (_, store):
        remove_person(store, name, actor=_actor())
    click.echo(f"{name} is out: every session and token has ended")


@users.command()
@click.argument("name")
def password(name: str) -> None:
    """Give NAME a new password; asks for it, or reads one line of standard input."""
    with opened_project() as (_, store):
        change_password(store, name, _read_password(), actor=_actor())
    click.echo(f"{name} has a new password and is signed out everywhere")


@users.command()
@click.argument("name")
@click.argument("purpose")
@click.option("--days", type=click.IntRange(1, 3650), help="How long it lasts; else until removed.")
def token(name: str, purpose: str, days: int | None) -> None:
    """Print a token with which a program may do what NAME may; it is shown once.

    PURPOSE is what the token is called in lists.
    """
    with opened_project() as (_, store):
        made = make_token(store, name, purpose, actor=_actor(), now=datetime.now(UTC), days=days)
    click.echo(made)


@users.command("remove-token")
@click.argument("name")
@click.argument("purpose")
def remove_token(name: str, purpose: str) -> None:
    """End NAME's token called PURPOSE at once; `users list` shows what there are."""
    with opened_project() as (_, store):
        end_token(store, name, purpose, actor=_actor())
    click.echo(f"the token {purpose} of {name} has ended")


def _read_password() -> str:
    """Never an argument: those show in the list of processes and in the shell's history."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return typed


def _actor() -> str:
    return f"cli:{login_name()}"


COMMANDS: tuple[click.Command, ...] = (users,)
