"""What annotators work by: the guidelines of a task and their versions; names that can be kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

from burnish.errors import InputError, ProjectError
from burnish.files import replaced_file
from burnish.hashing import content_hash
from burnish.project import Project
from burnish.records.answers import checked_text
from burnish.store import Store
from burnish.store.answers import RULE_PREFIX
from burnish.store.guidelines import (
    GuidelineVersion,
    add_guidelines,
    newest_guidelines,
    read_guideline_history,
)
from burnish.tasks import Task, read_tasks


@dataclass(frozen=True, slots=True)
class Guidelines:
    """One version of the guidelines."""

    version: str
    """Content hash of the text."""
    text: str
    """Markdown."""


class _Stamp(NamedTuple):
    changed_ns: int
    size: int
    inode: int


# What the file of each store's task held when it was like this: asked with every example.
_seen: WeakKeyDictionary[object, dict[tuple[str, Path], tuple[_Stamp, Guidelines]]] = (
    WeakKeyDictionary()
)

# A file written to twice within one tick of its clock may look the same: FAT's takes 2 s.
_SETTLED_SECONDS = 2.0


def current_guidelines(store: Store, project: Project, task: Task) -> Guidelines:
    """Read the guidelines file; a text other than the task's newest version becomes the newest.

    A file that has not been touched since costs a look at its time.

    Raises:
        ProjectError: the file is missing or no UTF-8 text.
    """
    path = project.root / task.guidelines
    of_store, key = _seen.setdefault(store.engine, {}), (task.name, path)
    stamp = _stamp(path)
    seen, guidelines = of_store.get(key, (None, None))
    if guidelines is not None and seen == stamp:
        return guidelines
    text = read_guidelines(project, task)
    guidelines = Guidelines(content_hash(text), text)
    with store.reading() as connection:
        known = newest_guidelines(connection, task.name) == guidelines.version
    if not known:
        with store.writing() as connection:
            add_guidelines(connection, task.name, text, by="")
    if stamp is not None and time.time() - stamp.changed_ns / 1e9 > _SETTLED_SECONDS:
        of_store[key] = stamp, guidelines
    return guidelines


def guideline_history(store: Store, task: Task) -> list[GuidelineVersion]:
    """The task's versions, newest first, with how many annotations were made under each."""
    with store.reading() as connection:
        return list(read_guideline_history(connection, task.name))


def write_guidelines(
    store: Store, project: Project, task: Task, text: str, *, instead_of: str, person: str
) -> Guidelines:
    """Write the guidelines file and keep the text as the newest version, under the person's name.

    Of every task that works by the same file. `instead_of` is the version the person changed;
    empty where there was no file, or none that can be read. The file is the old one or the new
    one, whatever happens in between.

    Raises:
        InputError: the text is empty or no Unicode text, the person's name cannot be used, or
            another version has come since the person read theirs.
        ResourceError: the disk is full; nothing was changed.
    """
    if not text.strip():
        raise InputError("guidelines without a text", do="write what annotators shall do")
    checked_text(text)
    person = checked_annotator(person)
    # As the file will be read: a browser's form ends lines with CR LF.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    path = project.root / task.guidelines
    sharing = {t.name for t in read_tasks(project).values() if t.guidelines == task.guidelines}
    with store.writing() as connection:
        if _version(project, task) != instead_of:
            raise InputError(
                "the guidelines have been changed since you read them",
                where=str(path),
                do="read them as they are now, and change those",
            )
        for name in sorted({task.name, *sharing}):
            add_guidelines(connection, name, text, by=person)
        with replaced_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return Guidelines(content_hash(text), text)


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


def _stamp(path: Path) -> _Stamp | None:
    """What changes with the file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    return _Stamp(changed_ns, status.st_size, status.st_ino)


def _version(project: Project, task: Task) -> str:
    try:
        return content_hash(read_guidelines(project, task))
    except ProjectError:
        return ""


def read_guidelines(project: Project, task: Task) -> str:
    """The text of the guidelines file.

    Raises:
        ProjectError: the file is missing or no UTF-8 text.
    """
    path = project.root / task.guidelines
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ProjectError(
            f"the guidelines cannot be read ({reason})",
            where=str(path),
            do="write them there, or set `guidelines` for the task in burnish.toml",
        ) from error
