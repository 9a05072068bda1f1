"""The working folder of a run: a killed run goes on from it, and never goes on as another run.

A run that will write OUT works in `OUT.partial/` beside it:

    OUT.partial/
      run.json    what the run is: its settings and the hashes of its input
      lock        held while a process works here; holds its pid
      ...         what the stage keeps: the state (`nn.run_state`), tokens, metrics

    with resume_or_start(out, run) as work:
        if work.finished:
            ...                                   # the same command was done before
        ...                                       # work in work.folder; a kill loses nothing
        with finished_folder(work, parents, facts) as folder:
            ...                                   # write the checkpoint's files
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.errors import ConfigError, ProjectError, ResourceError
from burnish.files import full_disk_is_the_users, replaced_file, replaced_folder
from burnish.hashing import canonical_json
from burnish.nn.run_state import STATE_FILE
from burnish.project import MANIFEST, read_manifest, seal_artefact

RUN_FILE = "run.json"
_LOCK_FILE = "lock"


@dataclass(frozen=True, slots=True)
class Workfolder:
    """A working folder this process holds the lock of."""

    out: Path
    """Where the finished checkpoint goes."""
    folder: Path
    """`OUT.partial`."""
    run: Mapping[str, Any]
    resumed: bool
    """The folder holds a saved state of this run."""
    finished: dict[str, Any] | None
    """The manifest of OUT if this very run is done already; there is nothing left to do."""


@contextmanager
def resume_or_start(out: Path, run: Mapping[str, Any]) -> Iterator[Workfolder]:
    """Open the working folder of the run that writes `out`, and hold its lock.

    `run` is what makes two runs the same, as plain JSON: settings and hashes of the input, without
    `out` itself.

    What stopped before its first saved state has nothing to lose: another run takes its folder.

    Raises:
        ConfigError: an unfinished or finished run with another `run` stands there; lists what
            differs.
        ProjectError: `out` or its working folder holds something else.
        ResourceError: another process works there.
    """
    out = out.resolve()
    folder = out.with_name(out.name + ".partial")
    run = json.loads(canonical_json(run))
    _refuse_foreign(folder)
    with _locked(folder):
        _sweep(out, folder)
        finished = _finished(out, run)
        resumed = finished is None and (folder / STATE_FILE).exists()
        if finished is not None:
            _discard(folder)  # a kill between the last rename and the clean-up may have left it
            print(f"{out} is finished already: nothing to do", file=sys.stderr)
        elif resumed:
            _refuse_changed(folder, _run_of(folder), run)
            print(f"going on with the run in {folder}", file=sys.stderr)
        elif _run_of(folder) != run:
            _begin(folder, run)
        yield Workfolder(out, folder, run, resumed, finished)


@contextmanager
def finished_folder(
    work: Workfolder, parents: Iterable[str], facts: Mapping[str, Any]
) -> Iterator[Path]:
    """Yield a folder for the checkpoint's files; on success it is sealed and becomes OUT.

    The working folder goes last, so a kill at any point leaves either it or the finished OUT.
    """
    with replaced_folder(work.out) as temporary:
        yield temporary
        seal_artefact(temporary, "checkpoint", parents, {**facts, "run": work.run})
    _discard(work.folder)


def _run_of(folder: Path) -> Any:
    path = folder / RUN_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _begin(folder: Path, run: Mapping[str, Any]) -> None:
    """Empty the folder of what another run prepared, and write what this run is."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK_FILE:
            path.unlink()
    with replaced_file(folder / RUN_FILE) as temporary:
        temporary.write_text(canonical_json(run) + "\n", encoding="utf-8")


def _discard(folder: Path) -> None:
    """Remove a folder; renamed first, so that nobody finds it half removed."""
    doomed = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    folder.rename(doomed)
    shutil.rmtree(doomed)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel lets go of it when the process ends, however it ends."""
    path = folder / _LOCK_FILE
    while True:
        with full_disk_is_the_users(folder):
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise ResourceError(
                    f"another run works here (pid {file.read().strip() or 'unknown'})",
                    where=str(folder),
                    do="wait for it to end, or choose another place with --out",
                ) from None
            if not _is_at(file.fileno(), path):
                continue  # the run that held it finished and removed its folder meanwhile
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield
            return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _refuse_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    names = {p.name for p in folder.iterdir()} if folder.is_dir() else {folder.name}
    ours = RUN_FILE in names or all(n == _LOCK_FILE or n.endswith(".tmp") for n in names)
    if not ours:
        raise ProjectError(
            "is needed as the working folder of this run, but holds something else",
            where=str(folder),
            do="move it away, or choose another place with --out",
        )


def _finished(out: Path, run: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of OUT if it is this run's checkpoint, None if OUT is free."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / MANIFEST).is_file():
        raise ProjectError(
            "exists already and is not the result of this run",
            where=str(out),
            do="choose another place with --out; nothing is ever overwritten",
        )
    manifest = read_manifest(out)
    _refuse_changed(out, manifest["facts"].get("run", {}), run)
    return manifest


def _refuse_changed(place: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    lines = [
        f"{key}: {then.get(key)!r} then, {now.get(key)!r} now"
        for key in sorted({*then, *now})
        if then.get(key) != now.get(key)
    ]
    if lines:
        raise ConfigError(
            "holds another run:\n    " + "\n    ".join(lines),
            where=str(place),
            do="give the settings it was made with to go on with it, choose another place with "
            "--out, or delete that folder to start afresh",
        )


def _sweep(out: Path, folder: Path) -> None:
    """Remove what a killed process was still writing; nobody else writes here under the lock."""
    beside = re.compile(rf"\.{re.escape(out.name)}(\.partial)?\.\d+\.tmp")
    left = [path for path in out.parent.iterdir() if beside.fullmatch(path.name)]
    for path in (*left, *folder.glob(".*.tmp")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
