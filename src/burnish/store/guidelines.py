"""Guidelines: every text annotators worked by, and when it became a task's."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from burnish.hashing import content_hash
from burnish.project import utc_now
from burnish.store.insert import insert_new
from burnish.store.log import append_log
from burnish.store.tables import annotations, guideline_history, guidelines


@dataclass(frozen=True, slots=True)
class GuidelineVersion:
    """One entry of a task's history."""

    version: str
    """Content hash of the text; a text that came back has the version it had."""
    text: str
    """Markdown."""
    by: str
    """Who wrote it in the studio; empty where the file itself was changed."""
    created_at: str
    """When it became the task's; ISO 8601 in UTC."""
    annotations: int
    """How many of the task's annotations were made under this version, of any status."""


def add_guidelines(connection: Connection, task: str, text: str, *, by: str) -> str:
    """Make this text the task's newest version, unless it is already, and return the version."""
    version = content_hash(text)
    row = {"version": version, "text": text, "created_at": utc_now()}
    insert_new(connection, guidelines, [row], guidelines.c.version)
    # Two servers that see an edited file at the same moment note it once. SQLite has one writer.
    known = select(guidelines.c.version).where(guidelines.c.version == version)
    connection.execute(known.with_for_update()).all()
    if newest_guidelines(connection, task) != version:
        entry = {"task": task, "version": version, "by": by, "created_at": row["created_at"]}
        connection.execute(insert(guideline_history).values(entry))
        append_log(connection, by or "label", "guidelines", {"task": task, "version": version})
    return version


def newest_guidelines(connection: Connection, task: str) -> str | None:
    """The version a task has now; None before the first."""
    query = select(guideline_history.c.version).where(guideline_history.c.task == task)
    return connection.scalar(query.order_by(guideline_history.c.seq.desc()).limit(1))


def read_guideline_history(connection: Connection, task: str) -> Iterator[GuidelineVersion]:
    """A task's versions, newest first."""
    made_under = (
        select(annotations.c.guideline_version, func.count().label("made"))
        .where(annotations.c.task == task)
        .group_by(annotations.c.guideline_version)
    )
    counts = {row.guideline_version: row.made for row in connection.execute(made_under)}
    history = (
        select(guideline_history, guidelines.c.text)
        .join(guidelines, guidelines.c.version == guideline_history.c.version)
        .where(guideline_history.c.task == task)
        .order_by(guideline_history.c.seq.desc())
    )
    for row in connection.execute(history):
        count = counts.get(row.version, 0)
        yield GuidelineVersion(row.version, row.text, row.by, row.created_at, count)
