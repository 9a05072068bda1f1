"""Writing to disk so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
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

    A pipe or a device, such as /dev/stdout, is written to as it is.

    Raises:
        ResourceError: the disk is full, or nothing can be written there; the temporary file is gone
            and `path` is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _bad_places_are_the_users(path, temporary):
        if path.is_dir():
            raise ResourceError("is a folder", where=str(path), do="name a file in it")
        is_device = path.exists() and not path.is_file()
    if is_device:
        yield path
        return
    try:
        with full_disk_is_the_users(path), _bad_places_are_the_users(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success it takes the place of `path`.

    A folder that stands at `path` is moved aside first and removed last, so a kill between the two
    renames leaves it as `.NAME.old` and nothing is lost.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with full_disk_is_the_users(path), _bad_places_are_the_users(path, temporary):
            temporary.mkdir(parents=True)
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

    Libraries in Rust and C++ report a full disk as errors of their own type, so any error without a
    number of the system's counts as one while the disk has less than 16 MiB left.
    """
    try:
        yield
    except BurnishError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        free = shutil.disk_usage(_existing_parent(path)).free
        if number not in (errno.ENOSPC, errno.EDQUOT) and (number or free > _NEARLY_FULL):
            raise
        raise ResourceError(
            f"the disk is full ({free / 1e6:.0f} MB free)",
            where=str(path),
            do="free some space, then do the same again; nothing half-written was left behind",
        ) from error


@contextmanager
def _bad_places_are_the_users(path: Path, temporary: Path) -> Iterator[None]:
    """Turn "permission denied", "not a directory" and the like into a message that says where."""
    try:
        yield
    except OSError as error:
        places = {path, temporary, *path.parents}
        if error.filename is None or Path(os.fsdecode(error.filename)) not in places:
            raise
        raise ResourceError(
            f"cannot be written ({error.strerror})", where=str(path), do="choose another place"
        ) from error


def _existing_parent(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
