"""What goes wrong on purpose while annotators work, and the counts that must stay exact."""

from __future__ import annotations

import errno
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from burnish.project import open_project
from burnish.store import open_store
from burnish.store.annotations import read_annotations
from burnish.store.log import verify_log
from labelling_crowd import read_journal
from labelling_project import Project, Studio

PAUSE_SECONDS = 4.0
_FULL_SECONDS = 3.0
# Less than a lease: a clock that jumps past the end of leases ends them, and then an example may
# rightly go to somebody else.
_CLOCK_JUMP = 300
_DISK_MB = 1500
_FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a disk that can be filled at `folder`; False where this user may not mount."""
    folder.mkdir()
    size = f"size={_DISK_MB}m"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fake_clock(folder: Path) -> dict[str, str]:
    """Environment of a process whose clock `folder/clock` moves; empty without faketime."""
    if not _FAKETIME.exists():
        return {}
    (folder / "clock").write_text("+0")
    return {
        "LD_PRELOAD": str(_FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def events(studio: Studio, clock: Path | None, disk: Path | None, deadline: float) -> Iterator[str]:
    """Until the deadline, one fault after the other; its name once it has been done.

    `clients killed` is left to the caller. The studio and the disk are whole again at the end.
    """
    faults = ["clients killed", "studio killed"]
    faults += ["clock forward", "clock back"] if clock else []
    faults += ["disk filled"] if disk else []
    n = 0
    while time.monotonic() + PAUSE_SECONDS + _FULL_SECONDS < deadline:
        time.sleep(PAUSE_SECONDS)
        fault = faults[n % len(faults)]
        n += 1
        if fault == "studio killed":
            studio.kill()
            studio.start()
        elif fault == "clock forward":
            assert clock is not None
            clock.write_text(f"+{_CLOCK_JUMP}")
        elif fault == "clock back":
            assert clock is not None
            clock.write_text("+0")
        elif fault == "disk filled":
            assert disk is not None
            _fill(disk)
        yield fault


def _fill(disk: Path) -> None:
    """Leave no byte free for some seconds."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    time.sleep(_FULL_SECONDS)
    filler.unlink()


def counts(project: Project, journals: Path) -> dict[str, int]:
    """What must be zero, beside what there was: from the annotators' journals and the store."""
    begun: dict[str, dict[str, object]] = {}
    confirmed: set[str] = set()
    names = set()
    for path in journals.glob("*.jsonl"):
        names.add(path.stem)
        sent, arrived = read_journal(path)
        begun |= sent
        confirmed |= arrived
    store = open_store(open_project(project.root).store_url)
    with store.reading() as connection:
        kept = [a for a in read_annotations(connection) if a.annotator in names]
        entries = verify_log(connection).entries
    store.close()
    ids = Counter(a.client_id for a in kept)
    people = Counter((a.example_id, a.annotator) for a in kept)
    answers = Counter(example_id for example_id, _ in people)
    mine = {id_: n for id_, n in ids.items() if id_ in begun}
    changed = sum(begun[a.client_id]["answer"] != a.answer for a in kept if a.client_id in begun)
    return {
        "confirmed": len(confirmed),
        "lost": len(confirmed - ids.keys()),
        "changed": changed,
        "doubled": sum(n > 1 for n in mine.values()),
        "asked twice": sum(n > 1 for n in people.values()),
        "over-served": sum(n > project.overlap for n in answers.values()),
        "log entries verified": entries,
    }
