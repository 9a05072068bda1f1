"""The project folder and its artefacts: where they are, what they are made of, what came of them.

    PROJECT/
      burnish.toml       settings of the project and of each stage
      burnish.db         the store (or a PostgreSQL URL in burnish.toml)
      artefacts.jsonl    one line per artefact made or brought here; paths may lie outside
      snapshots/ checkpoints/ reports/

An artefact is a folder with a `manifest.json`: kind, id, parents, facts, and the SHA-256 of every
file. The id is the hash of kind, parents and file hashes, so the same content has the same id
wherever and whenever it was made; times and figures stand in `facts` and do not change it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from burnish import __version__
from burnish.config import did_you_mean, read_toml
from burnish.errors import ConfigError, ProjectError
from burnish.files import replaced_file
from burnish.hashing import canonical_json, content_hash, file_hash
from burnish.types import ArtefactKind

PROJECT_FILE = "burnish.toml"
MANIFEST = "manifest.json"
TABLES = (
    "project",
    "label",
    "tasks",
    "webhooks",
    "collect",
    "audit",
    "snapshot",
    "pretrain",
    "tune",
    "evaluate",
    "serve",
)
"""The tables of burnish.toml: the project's own, those of labelling, and one for each stage."""
_OF_PROJECT = ("name", "store")

_TEMPLATE = """\
# A Burnish project. Settings of a stage stand under its name; `burnish STAGE --help` lists them.

[project]
name = "{name}"
store = "sqlite:///burnish.db"   # or postgresql+pg8000://user@host/database

[label]
guidelines = "guidelines.md"     # every label keeps the version it was made under
overlap = 1                      # annotators per example
"""

_GUIDELINES = """\
# Guidelines

Write the answer a careful colleague would be glad to send: correct, complete, and no longer than
it needs to be. Skip an example you cannot judge; flag one that should not be here.
"""


@dataclass(frozen=True, slots=True)
class ArtefactRecord:
    """One line of `artefacts.jsonl`: an artefact and where its folder is."""

    id: str
    kind: ArtefactKind
    path: Path
    parents: tuple[str, ...]
    created_at: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """An open project."""

    root: Path
    settings: Mapping[str, Any]
    """The content of burnish.toml, by table."""

    @property
    def name(self) -> str:
        """The project's name, by default its folder's."""
        return str(self.table("project").get("name", self.root.name))

    @property
    def store_url(self) -> str:
        """The store's SQLAlchemy URL; a relative SQLite path is taken from the project folder."""
        url = str(self.table("project").get("store", "sqlite:///burnish.db"))
        prefix = "sqlite:///"
        if url.startswith(prefix) and not url.startswith(prefix + "/"):
            return f"{prefix}{self.root.absolute() / url.removeprefix(prefix)}"
        return url

    def table(self, name: str) -> Mapping[str, Any]:
        """The settings under `[name]`; empty when there are none."""
        value = self.settings.get(name, {})
        if not isinstance(value, Mapping):
            raise ProjectError(
                f"{name!r} must be a table",
                where=str(self.root / PROJECT_FILE),
                do=f"write [{name}]",
            )
        return value

    def folder(self, kind: ArtefactKind) -> Path:
        """Where artefacts of this kind are kept."""
        return self.root / f"{kind}s"

    def register(self, path: Path, name: str | None = None) -> ArtefactRecord:
        """Note the artefact at `path` in this project; noting it again adds nothing but a name."""
        manifest = read_manifest(path)
        for known in self.artefacts():
            same = known.id == manifest["id"] and known.path == path.absolute()
            if same and name in (None, known.name):
                return known
        record = ArtefactRecord(
            manifest["id"],
            manifest["kind"],
            path.absolute(),
            tuple(manifest["parents"]),
            manifest["created_at"],
            name,
        )
        line = {
            "id": record.id,
            "kind": record.kind,
            "path": os.path.relpath(record.path, self.root.absolute()),
            "parents": list(record.parents),
            "created_at": record.created_at,
            "name": name,
        }
        # One short O_APPEND write: two processes that register at once both keep their line.
        with (self.root / "artefacts.jsonl").open("a", encoding="utf-8") as file:
            file.write(canonical_json(line) + "\n")
        return record

    def artefacts(self) -> list[ArtefactRecord]:
        """Every artefact registered, oldest first."""
        path = self.root / "artefacts.jsonl"
        if not path.exists():
            return []
        records = []
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            records.append(
                ArtefactRecord(
                    row["id"],
                    row["kind"],
                    (self.root / row["path"]).resolve(),
                    tuple(row["parents"]),
                    row["created_at"],
                    row["name"],
                )
            )
        return records

    def find(self, reference: str) -> ArtefactRecord | None:
        """The artefact with this id, this beginning of an id, or this name (the newest wins).

        Raises:
            ProjectError: the beginning fits more than one artefact.
        """
        records = {r.id: r for r in self.artefacts()}
        by_name = [r for r in records.values() if r.name == reference]
        if by_name:
            return by_name[-1]
        fitting = [r for r in records.values() if r.id.startswith(reference)]
        if len(fitting) > 1 and reference not in records:
            ids = ", ".join(r.id for r in fitting)
            raise ProjectError(f"{reference!r} fits {ids}", do="give more of the id")
        return records.get(reference) or (fitting[0] if fitting else None)


def init_project(root: Path) -> Project:
    """Make a project folder; refuses one that already is a project."""
    if (root / PROJECT_FILE).exists():
        raise ProjectError(
            "is a project already", where=str(root), do="choose another folder, or just go on"
        )
    if not (root / "guidelines.md").exists():
        with replaced_file(root / "guidelines.md") as temporary:
            temporary.write_text(_GUIDELINES, encoding="utf-8")
    name = "".join(c for c in root.absolute().name if c.isprintable() and c not in '"\\')
    # burnish.toml makes the folder a project, so it comes last.
    with replaced_file(root / PROJECT_FILE) as temporary:
        temporary.write_text(_TEMPLATE.format(name=name), encoding="utf-8")
    return open_project(root)


def open_project(root: Path) -> Project:
    """Open the project in exactly this folder.

    Raises:
        ConfigError: burnish.toml holds a table, or `[project]` a setting, that nothing reads.
    """
    project = Project(root, read_toml(root / PROJECT_FILE))
    faults = [
        f"there is no table [{name}]{did_you_mean(name, TABLES)}"
        for name in project.settings
        if name not in TABLES
    ]
    faults += [
        f"[project] has no setting {name!r}{did_you_mean(name, _OF_PROJECT)}"
        for name in project.table("project")
        if name not in _OF_PROJECT
    ]
    if faults:
        raise ConfigError(
            "\n    ".join(faults), where=str(root / PROJECT_FILE), do="mend each line above"
        )
    return project


def find_project(start: Path | None = None) -> Project | None:
    """The project that holds `start` (default: the working folder), or None."""
    start = (start or Path.cwd()).absolute()
    for folder in (start, *start.parents):
        if (folder / PROJECT_FILE).is_file():
            return open_project(folder)
    return None


def require_project(start: Path | None = None) -> Project:
    """Like `find_project`, but none is an error."""
    project = find_project(start)
    if project is None:
        raise ProjectError(
            "no burnish.toml here or in a folder above",
            where=str(start or Path.cwd()),
            do="run `burnish init` here, or go to your project's folder",
        )
    return project


def seal_artefact(
    folder: Path, kind: ArtefactKind, parents: Iterable[str], facts: Mapping[str, Any]
) -> str:
    """Write the manifest of the files in `folder` and return the artefact's id.

    Called inside `replaced_folder`, before the folder gets its final name.
    """
    files = {
        str(path.relative_to(folder)): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    parents = list(dict.fromkeys(parents))
    identity = content_hash({"kind": kind, "parents": parents, "files": files})
    manifest = {
        "kind": kind,
        "id": f"{kind}-{identity[:16]}",
        "parents": parents,
        "created_at": utc_now(),
        "burnish_version": __version__,
        "facts": facts,
        "files": files,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return str(manifest["id"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the artefact in `folder`."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProjectError(
            "is no Burnish artefact (no manifest.json in it)", where=str(folder)
        ) from None
    except ValueError as error:
        raise ProjectError(f"cannot be read as JSON: {error}", where=str(path)) from error
    return manifest


def lineage(
    project: Project, artefact_id: str
) -> tuple[list[ArtefactRecord], list[ArtefactRecord]]:
    """What an artefact was made from and what was made of it, nearest first."""
    records = {r.id: r for r in project.artefacts()}
    children: dict[str, list[str]] = {}
    for record in records.values():
        for parent in record.parents:
            children.setdefault(parent, []).append(record.id)
    ancestors = _walk(artefact_id, {r.id: list(r.parents) for r in records.values()})
    descendants = _walk(artefact_id, children)
    return (
        [records[i] for i in ancestors if i in records],
        [records[i] for i in descendants if i in records],
    )


def _walk(start: str, edges: Mapping[str, list[str]]) -> list[str]:
    """Breadth first from `start`, which is left out."""
    seen = [start]
    for node in seen:
        seen.extend(n for n in edges.get(node, ()) if n not in seen)
    return seen[1:]


def utc_now() -> str:
    """The time, as `timestamp` writes it."""
    return timestamp(datetime.now(UTC))


def timestamp(time: datetime) -> str:
    """A time as ISO 8601 in UTC, to the millisecond: texts in this form sort by time."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds")
