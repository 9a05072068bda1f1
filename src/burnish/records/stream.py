"""A source read more than once, a row at a time: first for its hash, then for what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from burnish.hashing import canonical_json
from burnish.progress import progress_bar
from burnish.project import read_manifest
from burnish.records.read import Records, read_records
from burnish.records.rows import Reject
from burnish.types import Example, Split


@dataclass(frozen=True, slots=True)
class ScannedExamples:
    """A source that was read once from end to end; iterating it reads its examples anew."""

    records: Records
    count: int
    """Examples in it, rejects aside."""
    rejects: list[Reject]
    all_raw: bool
    """Whether no conversation in it asks for a chat template."""
    hash: str
    """As in `ExamplesRead`: content hash of the conversations and weights in order."""
    id: str
    """As in `ExamplesRead`: what an artefact made from it names as its parent."""

    def __iter__(self) -> Iterator[Example]:
        return (row for row in self.records if isinstance(row, Example))


def scan_examples(
    path: str | Path, *, as_format: str | None = None, split: Split | None = None
) -> ScannedExamples:
    """`read_examples` without holding the examples in memory; errors as there."""
    records = read_records(path, as_format=as_format, split=split)
    digest = _ListHash()
    count, all_raw = 0, True
    rejects: list[Reject] = []
    with progress_bar(f"reading {records.name}", unit="B", total=records.size) as bar:
        for row in records.read(bar.update):
            if isinstance(row, Example):
                digest.add([row.conversation.hash, row.weight])
                count += 1
                all_raw &= row.conversation.raw
            else:
                rejects.append(row)
    identity = digest.hexdigest()
    manifest = read_manifest(Path(path)) if Path(path).is_dir() else {"id": f"data-{identity[:16]}"}
    return ScannedExamples(records, count, rejects, all_raw, identity, manifest["id"])


class _ListHash:
    """`hashing.content_hash` of a list that is given item by item."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"[")
        self._comma = b""

    def add(self, item: object) -> None:
        self._hash.update(self._comma + canonical_json(item).encode())
        self._comma = b","

    def hexdigest(self) -> str:
        closed = self._hash.copy()
        closed.update(b"]")
        return closed.hexdigest()[:32]
