"""A source's rows as batches that are ready to be written: most of collecting, and no store.

A large source is read by a process of its own, so that reading and writing go on side by side.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from burnish.collect.normalise import normalise
from burnish.errors import InputError, ResourceError
from burnish.project import utc_now
from burnish.records import Records, Reject
from burnish.records.rejects import reject_line
from burnish.store.examples import ExampleRow, example_row
from burnish.types import Example

if TYPE_CHECKING:
    from burnish.collect.collect import CollectConfig

BATCH_ROWS = 25_000
"""Rows in one write transaction: 1 s or a little more, for which an annotator's submit waits. Each
writes to all of an index of hashes: 1,000,000 by 10,000 were 1.6 times as much to write as by
30,000."""

# A batch of long documents ends before that: two are held in memory, in either process.
_BATCH_BYTES = 16 * 1024 * 1024

# A process takes half a second to start; so long does it take to read so much.
_BESIDE_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class Batch:
    """Some of a source's rows."""

    rows: list[ExampleRow] = field(default_factory=list)
    without_subject: int = 0
    """How many of them name nobody."""
    refused: list[str] = field(default_factory=list)
    """The other rows, as `records.rejects.reject_line` writes them."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How many were refused, by reason."""
    size: int = 0
    """Bytes of the source that were read for it."""
    begun_at: str = field(default_factory=utc_now)

    @property
    def is_full(self) -> bool:
        """Whether it is to be written."""
        return len(self.rows) + len(self.refused) == BATCH_ROWS or self.size >= _BATCH_BYTES

    def add(self, row: Example | Reject, config: CollectConfig) -> None:
        """Put in the next row of the source."""
        if isinstance(row, Reject):
            self.refused.append(reject_line(row))
            self.reasons[row.reason.partition(":")[0]] += 1
            return
        example = prepare(row, config)
        self.without_subject += not example.subject_ids
        self.rows.append(example_row(example, self.begun_at))


def read_batches(records: Records, config: CollectConfig) -> Iterator[Batch]:
    """All rows of a source in order; the same batches whenever it is read.

    Raises:
        InputError: the source turns out to be broken; the batches before have been given.
        ResourceError: the process that reads it was ended.
    """
    if records.size < _BESIDE_BYTES:
        return batches_here(records, config)
    return _batches_beside(records, config)


def batches_here(records: Records, config: CollectConfig) -> Iterator[Batch]:
    """`read_batches`, in this process."""
    batch = Batch()

    def count_bytes(more: int) -> None:
        batch.size += more

    for row in records.read(count_bytes):
        batch.add(row, config)
        if batch.is_full:
            yield batch
            batch = Batch()
    if batch.rows or batch.refused or batch.size:
        yield batch


def prepare(example: Example, config: CollectConfig) -> Example:
    """The example with what the user said about the whole source."""
    if config.normalise:
        example = normalise(example)
    subjects = _subjects(example, config.subject)
    if not (config.licence or config.consent or subjects):
        return example
    return replace(
        example,
        licence=config.licence or example.licence,
        consent=config.consent or example.consent,
        subject_ids=subjects or example.subject_ids,
    )


def send_batches() -> None:
    """What the other process runs: records and config from standard input, batches to output."""
    # Ctrl-C is for the process that writes; without it, the pipe breaks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Rows hold no cycles. Looking for some after every 700 objects took an eighth of the time.
    gc.set_threshold(100_000)
    records, config = pickle.load(sys.stdin.buffer)
    output = sys.stdout.buffer
    last: InputError | None = None
    try:
        try:
            for batch in batches_here(records, config):
                pickle.dump(batch, output, pickle.HIGHEST_PROTOCOL)
        except InputError as error:
            last = error
        pickle.dump(last, output)
        output.flush()
    except BrokenPipeError:
        # Nobody listens any more; Python flushes once again as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())


def _batches_beside(records: Records, config: CollectConfig) -> Iterator[Batch]:
    # -P: the user's folder may hold a types.py. Not multiprocessing, which runs the caller's
    # program a second time up to its `if __name__ == "__main__"`, if it has one.
    command = [sys.executable, "-P", "-c"]
    command.append("from burnish.collect.batches import send_batches; send_batches()")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump((records, config), process.stdin)
        process.stdin.close()
        try:
            while isinstance(batch := pickle.load(process.stdout), Batch):
                yield batch
        except EOFError:
            raise ResourceError(
                f"the process that read it was ended (code {process.wait()})",
                where=records.name,
                do="see that there is memory left, then run the same command again; what was "
                "collected stays",
            ) from None
    if batch is not None:
        raise batch


def _subjects(example: Example, subject: str | None) -> tuple[str, ...]:
    value = example.metadata.get(subject) if subject is not None else None
    ids = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(str(id_) for id_ in ids if id_ not in (None, "")))
