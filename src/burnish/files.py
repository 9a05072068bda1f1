"""Writing to disk so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from burnish.errors import BurnishError, ResourceError

# Above this many bytes free a write that fails for another reason is not blamed on the disk.
_NEARLY_FULL = 16 * 1024 * 1024


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it is synced and takes the place of `path`.

    Raises:
        ResourceError: the disk is full; the temporary file is gone and `path` is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with full_disk_is_the_users(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success it takes the place of `path`.

    A folder that stands at `path` is moved aside first and removed last, so a kill between the two
    renames leaves it as `.NAME.old` and nothing is lost.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with full_disk_is_the_users(path):
            yield temporary
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def full_disk_is_the_users(path: Path) -> Iterator[None]:
    """Turn "no space left" into a message that says where and how much is free.

    Libraries in Rust and C++ report a full disk as errors of their own type, so any error while the
    disk has less than 16 MiB left counts as one.
    """
    try:
        yield
    except BurnishError:
        raise
    except Exception as error:
        no_space = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        free = shutil.disk_usage(_existing_parent(path)).free
        if not no_space and free > _NEARLY_FULL:
            raise
        raise ResourceError(
            f"the disk is full ({free / 1e6:.0f} MB free)",
            where=str(path),
            do="free some space or choose another place with --out, then run the same command "
            "again; nothing half-written was left behind",
        ) from error


def _existing_parent(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
