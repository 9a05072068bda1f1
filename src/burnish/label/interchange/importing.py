"""A file of labels into the store, a page at a time; a file imported again adds nothing.

What a row says is its own (`rows`) or read from a tool's record (`kept.read_record`). Its client id
is the same every time: the one it brought, or the hash of what it says.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path

from burnish.config import did_you_mean
from burnish.errors import InputError
from burnish.files import full_disk_is_the_users
from burnish.label.destination import is_device
from burnish.label.interchange.argilla_settings import RECORDS
from burnish.label.interchange.fitting import Item, drafts_in, fitted, with_examples
from burnish.label.interchange.formats import ENDINGS, LabelFormat, recognised_tool, tool_named
from burnish.label.interchange.kept import Tool, read_record
from burnish.label.interchange.rows import NAME_ANNOTATOR, Values, read_row
from burnish.progress import progress_bar
from burnish.records.messages import UnfitError
from burnish.records.rejects import keep_rejects, reject_line
from burnish.records.rows import SUFFIXES, Reject, Row, read_rows
from burnish.store import Connection, Store
from burnish.store.annotations import add_annotations
from burnish.store.drafts import add_drafts
from burnish.store.labelling import pages
from burnish.store.queue_order import add_gold
from burnish.store.slots import settle_slots
from burnish.tasks import Task

BATCH_ROWS = 10_000
"""Rows in one write transaction: about 1 s, for which an annotator's submit waits. Each writes all
over the indexes of hashes: by 1,000, 40,000 rows were twice as much to write."""

# A format is told from this many rows.
_FIRST_ROWS = 100


@dataclass(frozen=True, slots=True)
class LabelImport:
    """What came of an import."""

    added: int
    known: int
    """Annotations that were there already, or twice in the file."""
    rejected: Mapping[str, int]
    """How many annotations were refused, by reason."""
    rejects: Path | None
    """JSON lines of line, reason and row; None where nothing was refused."""
    drafts: int = 0
    """Drafts added."""
    gold: int = 0
    """Gold answers set."""


def import_labels(
    store: Store,
    path: Path,
    task: Task,
    *,
    annotator: str | None = None,
    format: LabelFormat | None = None,
    rejects: Path = Path("rejects"),
    name: str | None = None,
) -> LabelImport:
    """Add what people and models said, from a file of any `LabelFormat`; Argilla's also a folder.

    `annotator` is who answered where a row does not say; the format is recognised where none is
    named; `rejects` is the folder for refused rows; `name` is what the user calls the file, where
    `path` is a copy of it. After a kill the same command adds the rest.

    Raises:
        InputError: the file cannot be read, lacks the columns every row needs, or nothing in it
            fits.
    """
    if path.is_dir() and (path / RECORDS).is_file():
        path = path / RECORDS
    name = name or str(path)
    with _whole_file(path) as file, _called(file, name):
        return _import_file(store, file, task, annotator, format, rejects, name)


def _import_file(
    store: Store,
    path: Path,
    task: Task,
    annotator: str | None,
    format: LabelFormat | None,
    rejects: Path,
    name: str,
) -> LabelImport:
    rows = _rows(path, format)
    first = list(islice(rows, _FIRST_ROWS))
    good = [row.values for row in first if isinstance(row, Row)]
    tool = tool_named(format) if format else recognised_tool(good) if good else None
    if tool is None:
        _check_columns(first, path, annotator)
    reasons: Counter[str] = Counter()
    spelt_out: dict[str, str] = {}
    read = added = accepted = drafts = gold = 0
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as refused,
        progress_bar(f"importing {Path(name).name}", unit=" labels", total=None) as bar,
    ):
        said = _said(chain(first, rows), task, tool, annotator)
        while batch := list(islice(said, BATCH_ROWS)):
            for kept in store.write(partial(_keep, task=task, batch=batch)):
                added, accepted = added + kept.added, accepted + kept.accepted
                drafts, gold = drafts + kept.drafts, gold + kept.gold
                for reject in kept.rejects:
                    reason = reject.reason.partition(":")[0]
                    reasons[reason] += 1
                    spelt_out.setdefault(reason, reject.reason)
                    refused.write(reject_line(reject))
            read += len(batch)
            bar.update(len(batch))
        rejected = keep_rejects(refused, Path(name).name, str(Path(name).absolute()), rejects)
    if rejected is not None and reasons.total() == read:
        counts = [f"{count:,}: {spelt_out[reason]}" for reason, count in reasons.most_common(5)]
        raise InputError(
            "\n    ".join(["nothing in it fits:", *counts]),
            where=name,
            do=f"mend that and import it again; each row is kept with its reason in {rejected}",
        )
    known = accepted - added
    return LabelImport(added, known, dict(reasons.most_common()), rejected, drafts, gold)


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """What comes through a pipe as a file: its form is told before its rows are read."""
    if not is_device(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="burnish-") as folder:
        copy = Path(folder) / path.name
        with full_disk_is_the_users(copy), path.open("rb") as pipe, copy.open("wb") as file:
            shutil.copyfileobj(pipe, file)
        yield copy


@contextmanager
def _called(path: Path, name: str) -> Iterator[None]:
    """Errors name the file as the user does."""
    try:
        yield
    except InputError as error:

        def renamed(text: str | None) -> str | None:
            return text and text.replace(str(path), name).replace(path.name, Path(name).name)

        if str(path) == name:
            raise
        raise InputError(error.what, where=renamed(error.where), do=renamed(error.do)) from error


def _rows(path: Path, format: LabelFormat | None) -> Iterator[Row | Reject]:
    """Read by its ending, or as files of the format are where its ending says nothing."""
    if format is None and path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"its ending {path.suffix!r} does not say how to read it",
            where=str(path),
            do=f"name its format: {', '.join(ENDINGS)}",
        )
    return read_rows(path, ending=ENDINGS[format][0] if format else None)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What came of one page."""

    added: int
    accepted: int
    drafts: int
    gold: int
    rejects: list[Reject]


def _keep(connection: Connection, task: Task, batch: list[Item | Reject]) -> list[_Kept]:
    """Add what fits of a batch, in one transaction, a page at a time."""
    return [_keep_page(connection, task, page) for page in pages(batch)]


def _keep_page(connection: Connection, task: Task, page: list[Item | Reject]) -> _Kept:
    """Add what fits: drafts first, which rankings are checked against."""
    rejects = [item for item in page if isinstance(item, Reject)]

    def refuse(row: Row, error: UnfitError | InputError) -> None:
        rejects.append(_rejected(row, error))

    items = [item for item in page if not isinstance(item, Reject)]
    found = with_examples(connection, items, refuse)
    drafts = add_drafts(connection, drafts_in(found), actor="import")
    new = fitted(connection, task, found, refuse)
    added = add_annotations(connection, new.annotations, actor="import", action="import")
    settle_slots(connection, task, new.annotations)
    by: dict[str, dict[str, str]] = {}
    for gold in new.gold:
        by.setdefault(gold.by, {})[gold.example_id] = gold.answer
    for person, answers in by.items():
        add_gold(connection, task, answers, actor=person)
    return _Kept(added, new.accepted, drafts, len(new.gold), rejects)


def _rejected(row: Row, error: UnfitError | InputError) -> Reject:
    reason = error.what if isinstance(error, InputError) else str(error)
    return Reject(row.line, reason, row.values)


def _said(
    rows: Iterable[Row | Reject], task: Task, tool: Tool | None, annotator: str | None
) -> Iterator[Item | Reject]:
    """What the rows say, one annotation, draft or gold answer at a time."""
    for row in rows:
        if isinstance(row, Reject):
            yield row
            continue
        said: Iterable[Values | UnfitError] = [row.values]
        if tool is not None:
            said = read_record(tool, row.values, task)
        try:
            for values in said:
                yield _item(row, values, task, annotator)
        except UnfitError as error:
            yield _rejected(row, error)


def _item(
    row: Row, values: Values | UnfitError, task: Task, annotator: str | None
) -> Item | Reject:
    try:
        if isinstance(values, UnfitError):
            raise values
        # CSV has no other way to leave a value out.
        given = {name: value for name, value in values.items() if value is not None and value != ""}
        return row, read_row(given, task, annotator)
    except (UnfitError, InputError) as error:
        return _rejected(row, error)


def _check_columns(first: list[Row | Reject], path: Path, annotator: str | None) -> None:
    """Refuse a file whose first row lacks what every row needs, instead of row after row."""
    row = next((row for row in first if isinstance(row, Row)), None)
    if row is None:
        return
    faults = [
        f"there is no column {' or '.join(needed)}{did_you_mean(needed[-1], row.values)}"
        for needed in (("example_id", "prompt"), ("answer", "status"))
        if row.values.keys().isdisjoint(needed)
    ]
    do = "name the columns example_id or prompt, and answer"
    if not annotator and "annotator" not in row.values:
        faults.append("nobody is named who gave these answers")
        do += f"; {NAME_ANNOTATOR}"
    if faults:
        raise InputError("\n    ".join(faults), where=f"{path}:{row.line}", do=do)
