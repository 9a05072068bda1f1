"""The stage: open every source, then add its rows to the store, batch by batch."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from burnish.collect.batches import prepare, read_batches
from burnish.collect.sources import find_sources
from burnish.config import did_you_mean
from burnish.errors import InputError
from burnish.files import full_disk_is_the_users
from burnish.progress import progress_bar
from burnish.records import Records, read_records
from burnish.records.rejects import keep_rejects
from burnish.store import Store
from burnish.store.examples import add_rows
from burnish.types import Example


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """What to collect, and what is known about it."""

    sources: tuple[str, ...]
    """Files, folders (every readable file in them), globs and http(s) URLs."""
    as_format: str | None = None
    """Name of the format; by default it is recognised, file by file."""
    licence: str | None = None
    """Licence of the records, such as `CC-BY-4.0`; goes with each into every snapshot."""
    consent: str | None = None
    """What the people behind the records agreed to, or where that is written down."""
    subject: str | None = None
    """Name of the field that says whose personal data a record is (one id or a list)."""
    normalise: bool = True
    """Unify Unicode and line ends and take out control characters; see `collect.normalise`."""
    rejects: Path = Path("rejects")
    """Folder for the rows that were refused: one file per source that has some."""


@dataclass(frozen=True, slots=True)
class SourceResult:
    """What came of one source."""

    name: str
    format: str
    sample: Example
    """The first example, as it is in the store."""
    added: int = 0
    known: int = 0
    """Examples that were in the store already, or twice in the source."""
    without_subject: int = 0
    """Examples that name nobody, where a subject field was asked for."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    """How many rows were refused, by reason."""
    rejects: Path | None = None
    """JSON lines of line, reason and row; None where nothing was refused."""


@dataclass(frozen=True, slots=True)
class CollectResult:
    """What came of all sources, in the order they were read."""

    sources: tuple[SourceResult, ...]

    @property
    def added(self) -> int:
        """Examples that are new in the store."""
        return sum(source.added for source in self.sources)

    @property
    def known(self) -> int:
        """Examples that were there already."""
        return sum(source.known for source in self.sources)

    @property
    def rejected(self) -> int:
        """Rows that were refused."""
        return sum(sum(source.rejected.values()) for source in self.sources)


def collect(config: CollectConfig, store: Store) -> CollectResult:
    """Add every example of every source to the store; those it has already are left alone.

    Every source is opened and recognised before the first row is added. Examples are added in
    batches, so after a kill the same command adds the rest and doubles nothing.

    Raises:
        InputError: a source is not there, is broken or in no known format. Where a file turns out
            to be broken half-way, the batches before have been added.
    """
    with tempfile.TemporaryDirectory(prefix="burnish-") as downloads:
        opened = _open(config, Path(downloads))
        return CollectResult(tuple(_collect_source(records, config, store) for records in opened))


def _open(config: CollectConfig, downloads: Path) -> list[Records]:
    """Find and recognise every source; all faults in one error."""
    sources, faults = find_sources(config.sources, downloads)
    opened = []
    for source in sources:
        try:
            records = read_records(source.path, as_format=config.as_format, name=source.name)
            _check_subject(records, config.subject)
        except InputError as error:
            faults.append(error)
        else:
            opened.append(records)
    if len(faults) > 1:
        raise InputError(f"{len(faults)} sources cannot be read:\n" + "\n".join(map(str, faults)))
    if faults:
        raise faults[0]
    return opened


def _check_subject(records: Records, subject: str | None) -> None:
    known = records.sample.metadata
    if subject is not None and subject not in known:
        raise InputError(
            f"the first example has no field {subject!r}{did_you_mean(subject, known)}",
            where=str(records.paths[0]),
            do="name the field that says whose data a record is",
        )


def _collect_source(records: Records, config: CollectConfig, store: Store) -> SourceResult:
    read = added = without_subject = 0
    rejected: Counter[str] = Counter()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as rejects,
        progress_bar(f"collecting {records.name}", unit="B", total=records.size) as bar,
    ):
        for batch in read_batches(records, config):
            with store.writing() as connection:
                added += add_rows(connection, batch.rows, actor="collect")
            read += len(batch.rows)
            without_subject += batch.without_subject
            rejected.update(batch.reasons)
            with full_disk_is_the_users(Path(tempfile.gettempdir())):
                rejects.writelines(batch.refused)
                rejects.flush()
            bar.set_postfix_str(f"{read + rejected.total()} rows", refresh=False)
            bar.update(batch.size)
        path = keep_rejects(rejects, records.name, _place(records), config.rejects)
    return SourceResult(
        records.name,
        records.format,
        prepare(records.sample, config),
        added,
        read - added,
        without_subject if config.subject else 0,
        dict(rejected.most_common()),
        path,
    )


def _place(records: Records) -> str:
    """Where a source is, the same on every run: a URL is downloaded to a new path each time."""
    return records.name if "://" in records.name else str(records.paths[0].absolute())
