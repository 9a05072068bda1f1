"""Where a file may be written: not over what the project is made of."""

from __future__ import annotations

from pathlib import Path

from burnish.errors import InputError
from burnish.project import PROJECT_FILE, Project
from burnish.store import Store
from burnish.tasks import read_tasks

# SQLite keeps in files beside the database what is not in it yet (sqlite.org/tempfiles.html).
_BESIDE_SQLITE = ("", "-wal", "-shm", "-journal")


def is_device(path: Path) -> bool:
    """Whether it is a pipe or a device such as /dev/stdout, which has no ending to go by."""
    return path.exists() and not path.is_file() and not path.is_dir()


def check_destination(project: Project, store: Store, path: Path) -> None:
    """Refuse to write over the project's settings, store, guidelines or list of artefacts.

    Raises:
        InputError: the path leads to one of them, by whatever name or link.
    """
    own = [project.root / PROJECT_FILE, project.root / "artefacts.jsonl"]
    own += [project.root / task.guidelines for task in read_tasks(project).values()]
    if store.engine.dialect.name == "sqlite":
        own += [Path(f"{store.name}{ending}") for ending in _BESIDE_SQLITE]
    if any(_is_same(path, file) for file in own):
        raise InputError(
            "is a file of the project itself", where=str(path), do="name another with --out"
        )


def _is_same(path: Path, file: Path) -> bool:
    if path.exists() and file.exists():
        return path.samefile(file)
    return path.resolve() == file.resolve()
