"""Read a file or a snapshot: its format recognised, its rows as examples or as rejects."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from burnish.errors import InputError
from burnish.hashing import content_hash
from burnish.progress import progress_bar
from burnish.project import MANIFEST, read_manifest
from burnish.records.formats import Format, example_of, format_named, recognise
from burnish.records.messages import UnfitError
from burnish.records.rows import OnBytes, Reject, Row, read_rows
from burnish.types import SPLITS, Example, Split

# A format is chosen on this many rows; a file that changes format later is refused row by row.
_FIRST_ROWS = 100


@dataclass(frozen=True, slots=True)
class Records:
    """A source's rows, read anew from disk each time it is iterated."""

    name: str
    """What examples name as their source: the file's name, or the snapshot's folder."""
    paths: tuple[Path, ...]
    format: str
    sample: Example
    """The first example, to be shown beside the format's name."""

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.paths)

    def __iter__(self) -> Iterator[Example | Reject]:
        return self.read()

    def read(self, on_bytes: OnBytes = lambda _: None) -> Iterator[Example | Reject]:
        """Stream examples and rejects; `on_bytes` is told how much of `size` was read."""
        format_ = format_named(self.format)
        for path in self.paths:
            for row in read_rows(path, on_bytes):
                yield _to_example(row, format_, self.name)


@dataclass(frozen=True, slots=True)
class ExamplesRead:
    """A source in memory."""

    examples: list[Example]
    rejects: list[Reject]
    format: str
    sample: Example
    hash: str
    """Content hash of the conversations and weights in order, wherever they were read from."""
    id: str
    """What an artefact made from it names as its parent: the snapshot's id, or `data-` and 16
    digits of `hash` for a file."""


def read_records(
    path: str | Path,
    *,
    as_format: str | None = None,
    split: Split | None = None,
    name: str | None = None,
) -> Records:
    """Open a file, or the folder of a snapshot.

    `as_format` names the format instead of having it recognised. `split` picks a part of a
    snapshot, None all of it; a file has one part only and is read whole. `name` is what examples
    name as their source, by default the file's name.

    Raises:
        InputError: the file cannot be read, is in no known format, or not one row fits.
    """
    path = Path(path)
    if path.is_dir() and (path / MANIFEST).is_file():
        paths, as_format = _snapshot_files(path, split), as_format or "burnish"
    else:
        paths = (path,)
    name = name or path.absolute().name
    rows = [row for p in paths for row in itertools.islice(read_rows(p), _FIRST_ROWS)]
    good = [row.values for row in rows if isinstance(row, Row)]
    if not good:
        raise _no_rows(path, rows)
    format_ = format_named(as_format) if as_format else recognise(good, str(path))
    first = [_to_example(row, format_, name) for row in rows]
    sample = next((e for e in first if isinstance(e, Example)), None)
    if sample is None:
        raise _no_rows(path, first)
    return Records(name, paths, format_.name, sample)


def read_examples(
    path: str | Path, *, as_format: str | None = None, split: Split | None = None
) -> ExamplesRead:
    """Read everything `read_records` gives, with a progress bar; errors as there."""
    records = read_records(path, as_format=as_format, split=split)
    examples: list[Example] = []
    rejects: list[Reject] = []
    with progress_bar(f"reading {records.name}", unit="B", total=records.size) as bar:
        for row in records.read(bar.update):
            if isinstance(row, Example):
                examples.append(row)
            else:
                rejects.append(row)
    identity = content_hash([[e.conversation.hash, e.weight] for e in examples])
    manifest = read_manifest(Path(path)) if Path(path).is_dir() else {"id": f"data-{identity[:16]}"}
    return ExamplesRead(examples, rejects, records.format, records.sample, identity, manifest["id"])


def _to_example(row: Row | Reject, format_: Format, source: str) -> Example | Reject:
    if isinstance(row, Reject):
        return row
    if not format_.has_columns(row.values):
        missing = " or ".join(" + ".join(columns) for columns in format_.columns)
        return Reject(row.line, f"no column {missing} (format {format_.name!r})", row.values)
    try:
        return example_of(format_, row.values, source)
    except UnfitError as error:
        return Reject(row.line, str(error), row.values)


def _snapshot_files(folder: Path, split: Split | None) -> tuple[Path, ...]:
    if read_manifest(folder)["kind"] != "snapshot":
        raise InputError("is an artefact, but no snapshot", where=str(folder))
    splits = SPLITS if split is None else (split,)
    paths = tuple(p for s in splits if (p := folder / f"{s}.parquet").is_file())
    if not paths:
        raise InputError(
            f"this snapshot has no {split or 'examples'} part",
            where=str(folder),
            do="take another part, or a snapshot of more examples",
        )
    return paths


def _no_rows(path: Path, refused: list[Row | Reject] | list[Example | Reject]) -> InputError:
    if not refused:
        return InputError("has no rows", where=str(path), do="check how it was made")
    first = refused[0]
    assert isinstance(first, Reject)
    return InputError(
        f"none of the first {len(refused)} rows fits; this one: {first.reason}",
        where=f"{path}:{first.line}",
        do="mend the rows, or name another format with --as",
    )
