"""What annotators work by: the guidelines of a task and their versions; names that can be kept."""

from __future__ import annotations

from dataclasses import dataclass

from burnish.errors import InputError, ProjectError
from burnish.hashing import content_hash
from burnish.project import Project
from burnish.store import Store
from burnish.store.annotations import add_guidelines, read_guidelines
from burnish.tasks import Task

RULE_PREFIX = "rule:"
"""What `resolved_by` begins with where no person decided; no name may begin so."""


@dataclass(frozen=True, slots=True)
class Guidelines:
    """One version of the guidelines."""

    version: str
    """Content hash of the text."""
    text: str
    """Markdown."""


def current_guidelines(store: Store, project: Project, task: Task) -> Guidelines:
    """Read the guidelines file; a text not seen before is kept as a new version.

    Raises:
        ProjectError: the file is missing or no UTF-8 text.
    """
    path = project.root / task.guidelines
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ProjectError(
            f"the guidelines cannot be read ({reason})",
            where=str(path),
            do="write them there, or set `guidelines` under [label] in burnish.toml",
        ) from error
    version = content_hash(text)
    with store.reading() as connection:
        known = read_guidelines(connection, version) is not None
    if not known:
        with store.writing() as connection:
            add_guidelines(connection, text, actor="label")
    return Guidelines(version, text)


def checked_annotator(name: str) -> str:
    """The annotator's name without surrounding white space.

    Raises:
        InputError: the name is empty, over 64 characters, begins like a rule's, or holds control
            characters.
    """
    name = name.strip()
    if not 0 < len(name) <= 64 or not name.isprintable() or name.startswith(RULE_PREFIX):
        raise InputError(
            f"no annotator's name: {name[:80]!r}",
            do="write 1 to 64 printable characters, such as your first name",
        )
    return name
