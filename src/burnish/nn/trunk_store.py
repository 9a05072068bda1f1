"""The disk side of the trunk cache: hidden states, one slot for each token in its context.

    CACHE/trunk/KEY/
      hidden         the slots: (slots, C) in the compute type
      slot_of        the slot of each of the flat tokens of `Rows`, int64
      manifest.json  what it is, how far it is filled and, once it is whole, its files' sizes and
                     times of change
      lock           held shared by the runs that read, alone by the one that fills; its time is
                     when the entry was last used

A row's hidden states follow from its tokens alone, so rows that begin alike share slots. Rows are
laid out with their like side by side, each with slots of its own for what it does not share with
the row before it: the slots of consecutive rows are one run, and `hidden` is only ever appended to.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from burnish.errors import ResourceError
from burnish.files import full_disk_is_the_users, replaced_file
from burnish.nn.forest import MIN_SHARED_TOKENS
from burnish.nn.gguf import cache_folder
from burnish.nn.grouping import sort_by_prefix
from burnish.nn.rows import Array, Rows
from burnish.progress import progress

HIDDEN, SLOT_OF = "hidden", "slot_of"
_MANIFEST, _LOCK = "manifest.json", "lock"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the hidden states of a snapshot's rows go."""

    order: Array
    """Row numbers, those that begin alike side by side, (N,)."""
    lengths: Array
    """Tokens of each row in that order, (N,)."""
    shared: Array
    """How many of them it shares with the row before it, (N,)."""

    @property
    def slots(self) -> int:
        """Slots in all: tokens, those of a common beginning once (short ends of it excepted)."""
        return int((self.lengths - self.shared).sum())

    def batches(self, first: int, budget: int) -> Iterator[tuple[int, int]]:
        """Runs of rows, as places in `order` from `first` on, of about `budget` computed tokens."""
        # A branch may begin up to MIN_SHARED_TOKENS - 1 before the rows part: see `forest.plant`.
        costs = self.lengths - np.maximum(self.shared - (MIN_SHARED_TOKENS - 1), 0)
        size = 0
        for n in range(first, len(costs)):
            if n > first and size + int(costs[n]) > budget:
                yield first, n
                first, size = n, 0
            size += int(costs[n]) if size else int(self.lengths[n])
        if first < len(costs):
            yield first, len(costs)


def lay_out(rows: Rows, order: Array | None = None) -> Layout:
    """Put rows that begin alike side by side and count what neighbours share, token by token.

    `order` is `sort_by_prefix(rows).order`, where it is at hand.
    """
    if order is None:
        order = sort_by_prefix(rows).order
    shared, before = [], np.empty(0, np.int32)
    for n in progress(order.tolist(), "laying out the trunk cache", unit="row"):
        ids = rows[n].ids
        shared.append(_common(before, ids))
        before = ids
    rows.release()
    return Layout(order, rows.lengths[order], np.array(shared, np.int64))


def _common(a: Array, b: Array) -> int:
    """How many ids two rows begin with alike."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


@dataclass(frozen=True, slots=True)
class StoredTrunk:
    """One entry of the cache, whole or half filled."""

    folder: Path
    bytes: int
    last_used: float
    """Seconds since 1970."""
    facts: Mapping[str, Any]
    """Hashes of trunk and rows, and the base as the user named it."""
    in_use: bool


def trunk_folder() -> Path:
    """Where the entries are kept."""
    return cache_folder() / "trunk"


def stored_trunks() -> list[StoredTrunk]:
    """Every entry of the cache, the longest unused first."""
    found = []
    for folder in trunk_folder().glob("[!.]*/"):
        with suppress(FileNotFoundError):  # removed by another process meanwhile
            size = sum(path.stat().st_size for path in folder.iterdir())
            facts = _read_manifest(folder).get("facts", {})
            used = max((path.stat().st_mtime for path in folder.iterdir()), default=0.0)
            with _locked_now(folder, fcntl.LOCK_EX) as lock:
                found.append(StoredTrunk(folder, size, used, facts, in_use=lock is None))
    return sorted(found, key=lambda trunk: trunk.last_used)


def remove_trunk(folder: Path) -> bool:
    """Remove an entry unless a run uses it; says whether it is gone."""
    with _locked_now(folder, fcntl.LOCK_EX) as lock:
        if lock is None:
            return False
        doomed = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        folder.rename(doomed)  # so that nobody finds it half removed
    for left in folder.parent.glob(".*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    return True


def no_room(folder: Path, needed: int, limit: int) -> str | None:
    """Why an entry of `needed` bytes may not be made at `folder`, if so."""
    others = [trunk for trunk in stored_trunks() if trunk.folder != folder]
    used = sum(trunk.bytes for trunk in others if trunk.in_use)
    size = f"the hidden states take {needed / 1e9:,.2f} GB"
    if needed + used > limit:
        beside = f", and other runs use {used / 1e9:,.2f} GB" if used else ""
        return f"{size}{beside}: more than trunk_cache_gb = {limit / 1e9:g}"
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    held = sum(path.stat().st_size for path in folder.glob("*"))
    free = shutil.disk_usage(place).free + held
    if needed > free / 2:
        return f"{size}: more than half of the {free / 1e9:,.2f} GB free in {trunk_folder()}"
    return None


def make_room(folder: Path, needed: int, limit: int) -> None:
    """Remove the longest unused other entries until `needed` bytes more keep to `limit`."""
    others = [trunk for trunk in stored_trunks() if trunk.folder != folder]
    total = sum(trunk.bytes for trunk in others)
    for trunk in others:
        if total + needed <= limit:
            return
        if remove_trunk(trunk.folder):
            total -= trunk.bytes


def is_whole(folder: Path) -> bool:
    """Whether an entry was filled to the end and its files are as they were then."""
    files = _read_manifest(folder).get("files")
    return files is not None and files == _files(folder)


@contextmanager
def entry_lock(folder: Path) -> Iterator[IO[str]]:
    """Hold an entry's lock: shared where it is whole, alone where it has to be filled.

    Waits while another run fills it. The kernel lets go of a lock when its process ends.
    """
    told = False
    while True:
        with full_disk_is_the_users(folder):
            folder.mkdir(parents=True, exist_ok=True)
        whole = is_whole(folder)
        with _locked_now(folder, fcntl.LOCK_SH if whole else fcntl.LOCK_EX) as lock:
            if lock is not None and is_whole(folder) == whole:
                os.utime(folder / _LOCK)
                yield lock
                return
        if not told:
            print(f"another run fills the trunk cache {folder}: waiting for it", file=sys.stderr)
            told = True
        time.sleep(0.2)


def read_along(lock: IO[str]) -> None:
    """Let other runs read the entry too, now that it is whole."""
    fcntl.flock(lock, fcntl.LOCK_SH)


class Filling:
    """An entry while it is filled. Recorded after every batch, so that a kill loses one batch."""

    def __init__(self, folder: Path, facts: Mapping[str, Any], slot_bytes: int) -> None:
        """Go on where the manifest says, if what it says is there; else begin anew."""
        self.folder, self.facts, self.slot_bytes = folder, facts, slot_bytes
        manifest = _read_manifest(folder)
        self.rows_done = self.slots_done = 0
        file = folder / HIDDEN
        if manifest.get("facts") == facts and manifest.get("files") is None and file.exists():
            recorded = manifest["slots_done"]
            if file.stat().st_size >= recorded * slot_bytes:
                self.rows_done, self.slots_done = manifest["rows_done"], recorded
        self._file = file.open("ab")
        self._file.truncate(self.slots_done * slot_bytes)

    def append(self, slots: Array, rows_done: int) -> None:
        """Add the hidden states of the next slots, (n, bytes of a slot) uint8."""
        self._file.write(slots.tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows_done, self.slots_done = rows_done, self.slots_done + len(slots)
        self._record(None)

    def finish(self) -> None:
        """Declare the entry whole."""
        self._file.close()
        self._record(_files(self.folder))

    def close(self) -> None:
        """Leave the entry as it is, whole or not."""
        self._file.close()

    def _record(self, files: Mapping[str, Any] | None) -> None:
        done = {"rows_done": self.rows_done, "slots_done": self.slots_done}
        with replaced_file(self.folder / _MANIFEST) as temporary:
            temporary.write_text(json.dumps({"facts": self.facts, "files": files, **done}))


@contextmanager
def filling(
    folder: Path, rows: Rows, layout: Layout, facts: Mapping[str, Any], slot_bytes: int
) -> Iterator[Filling]:
    """Write `slot_of`, yield the entry to be filled, and declare it whole.

    Raises:
        ResourceError: the disk is full; the entry is emptied, since it may be what fills the disk.
    """
    try:
        with full_disk_is_the_users(folder):
            for left in folder.glob(".*.tmp"):
                left.unlink()  # of a killed run; we hold the lock
            with replaced_file(folder / SLOT_OF) as temporary:
                _write_slot_of(temporary, rows, layout)
            entry = Filling(folder, facts, slot_bytes)
            try:
                yield entry
                assert entry.slots_done == layout.slots
                entry.finish()
            finally:
                entry.close()
    except ResourceError as error:
        for name in (HIDDEN, SLOT_OF, _MANIFEST):
            (folder / name).unlink(missing_ok=True)
        raise ResourceError(
            f"{error.what} while filling the trunk cache",
            where=str(folder),
            do="free some space, set BURNISH_CACHE to a folder on another disk, or run without: "
            "--set cache_trunk=false",
        ) from error


def _write_slot_of(path: Path, rows: Rows, layout: Layout) -> None:
    """Write each token's slot at the token's place among the flat tokens of `rows`."""
    starts = rows.offsets[:-1][layout.order].tolist()
    runs = zip(starts, layout.lengths.tolist(), layout.shared.tolist(), strict=True)
    before, free = np.empty(0, np.int64), 0
    # Written, not mapped: on a full disk a mapped page kills the process with SIGBUS.
    with path.open("wb") as file:
        file.truncate(8 * len(rows.ids))
        for start, length, shared in progress(
            runs, "laying out the trunk cache", unit="row", total=len(rows)
        ):
            own = np.arange(free, free + length - shared)
            before, free = np.concatenate([before[:shared], own]), free + length - shared
            file.seek(8 * start)
            file.write(before.tobytes())


def _files(folder: Path) -> dict[str, list[int]]:
    """Size and time of change of the data files, as a manifest holds them."""
    found = {}
    for name in (HIDDEN, SLOT_OF):
        with suppress(FileNotFoundError):
            stat = (folder / name).stat()
            found[name] = [stat.st_size, stat.st_mtime_ns]
    return found


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, or nothing where there is none that can be read."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


@contextmanager
def _locked_now(folder: Path, kind: int) -> Iterator[IO[str] | None]:
    """Hold an entry's lock, or yield None at once if another process does."""
    path = folder / _LOCK
    try:
        file = path.open("a+", encoding="utf-8")
    except FileNotFoundError:  # the entry was removed meanwhile
        yield None
        return
    with file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except (BlockingIOError, FileNotFoundError):
            held = False
        yield file if held else None
