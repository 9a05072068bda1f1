"""The labels of the store into a file, which appears whole or not at all, or into a stream."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import IO, Any, TypeVar

from burnish.files import replaced_file, replaced_folder
from burnish.label.destination import is_device
from burnish.label.interchange.argilla_settings import RECORDS, check_folder, write_settings
from burnish.label.interchange.formats import (
    LabelFormat,
    check_kind,
    format_to_write,
    tool_named,
)
from burnish.label.interchange.kept import Tool
from burnish.label.interchange.rows import annotation_row, draft_row, gold_row, prompt_value
from burnish.label.webhooks import announce
from burnish.progress import progress_bar
from burnish.records.exports import LABEL_COLUMNS
from burnish.store import Connection, Store
from burnish.store.annotations import count_annotations
from burnish.store.labelled import (
    annotations_after,
    drafts_after,
    gold_after,
    labelled_after,
    newest_annotation_seq,
)
from burnish.tasks import Task
from burnish.types import Conversation

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
T = TypeVar("T")
Write = Callable[[dict[str, Any]], object]
Rows = Iterator[tuple[list[dict[str, Any]], int]]
"""What to write, a page at a time, and how many annotations are in it."""


def export_labels(
    store: Store, path: Path, task: Task, *, format: LabelFormat | None = None
) -> int:
    """Write every annotation, draft and gold answer of the task; return how many annotations.

    Where no format is named, the ending of `path` tells JSON lines from CSV.

    In the plain formats drafts come first, then annotations, oldest first, then gold answers; in
    those of tools examples in order of arrival. Argilla's settings are written too where `path` has
    no ending and so is a folder. `import_labels` reads all of them back.

    Of what people say while it is written, some may be missing.

    Raises:
        InputError: the format has no place for answers of the task's kind, its files end otherwise,
            or other things are in the folder that Argilla's would replace.
    """
    format = format_to_write(path, format)
    check_kind(task, format)
    if format == "argilla" and not path.suffix and not is_device(path):
        check_folder(path)
        with replaced_folder(path) as folder:
            fields: dict[str, None] = {}
            written = _write_file(store, folder / RECORDS, path.name, task, format, fields)
            write_settings(folder, task, fields)
    else:
        with replaced_file(path) as temporary:
            written = _write_file(store, temporary, path.name, task, format, {})
    _announce(store, task, format, written)
    return written


def stream_labels(store: Store, task: Task, *, format: LabelFormat = "jsonl") -> Iterator[str]:
    """The file that `export_labels` writes, a page at a time; the store is not held between them.

    Raises:
        InputError: the format has no place for answers of the task's kind.
    """
    check_kind(task, format)
    return _announced_pieces(store, task, format)


def _announced_pieces(store: Store, task: Task, format: LabelFormat) -> Iterator[str]:
    written = 0
    for text, count in _pieces(store, task, format, {}):
        yield text
        written += count
    _announce(store, task, format, written)


def _announce(store: Store, task: Task, format: LabelFormat, written: int) -> None:
    with store.writing() as connection:
        facts = {"task": task.name, "format": format, "annotations": written}
        announce(connection, "labels.exported", facts)


def _write_file(
    store: Store,
    path: Path,
    name: str,
    task: Task,
    format: LabelFormat,
    fields: dict[str, None],
) -> int:
    """Write the file, called `name` to the user; `fields` takes those of all records, in order."""
    written = 0
    with store.reading() as connection:
        total = count_annotations(connection)
    with (
        path.open("w", encoding="utf-8", newline="") as file,
        progress_bar(f"exporting {name}", unit=" labels", total=total) as bar,
    ):
        for text, count in _pieces(store, task, format, fields):
            file.write(text)
            written += count
            bar.update(count)
    return written


def _pieces(
    store: Store, task: Task, format: LabelFormat, fields: dict[str, None]
) -> Iterator[tuple[str, int]]:
    """The file's text, a page at a time, and how many annotations are in it."""
    tool = tool_named(format)
    buffer = io.StringIO(newline="")
    with _writer(buffer, format, tool) as write:
        for rows, annotations in (
            _rows(store, task) if tool is None else _records(store, task, tool)
        ):
            for row in rows:
                write(row)
                fields.update(dict.fromkeys(row.get("fields", ())))
            yield _taken(buffer), annotations
    yield _taken(buffer), 0


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


def _records(store: Store, task: Task, tool: Tool) -> Rows:
    for page in _pages(store, task, labelled_after, 0):
        records = [record for _, labelled in page for record in tool.write(labelled, task)]
        yield records, sum(len(labelled.annotations) for _, labelled in page)


def _rows(store: Store, task: Task) -> Rows:
    with store.reading() as connection:
        # Those that come later may rest on drafts that the file does not have.
        until = newest_annotation_seq(connection)
    for page in _pages(store, task, drafts_after, 0):
        yield _shown_rows(page, draft_row), 0
    for page in _pages(store, task, partial(annotations_after, until=until), 0):
        yield _shown_rows(page, annotation_row), len(page)
    for page in _pages(store, task, gold_after, ""):
        yield _shown_rows(page, gold_row), 0


def _pages(
    store: Store, task: Task, read: Callable[[Connection, str, Any], list[Any]], first: int | str
) -> Iterator[list[Any]]:
    """What `read` finds after each place, every page in a transaction of its own.

    Who takes the pages may be slow, or go away. A transaction held open meanwhile would keep
    SQLite's WAL from being folded back, and PostgreSQL from cleaning up.
    """
    place = first
    while True:
        with store.reading() as connection:
            page = read(connection, task.name, place)
        if not page:
            return
        yield page
        place = page[-1][0]


def _shown_rows(
    page: list[tuple[Any, T, Conversation]], to_row: Callable[[T], dict[str, Any]]
) -> list[dict[str, Any]]:
    return [_with_prompt(to_row(said), conversation) for _, said, conversation in page]


def _with_prompt(row: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
    return {"example_id": row["example_id"], "prompt": prompt_value(conversation)} | row


@contextmanager
def _writer(file: IO[str], format: LabelFormat, tool: Tool | None) -> Iterator[Write]:
    """Writes CSV, one JSON list with a record a line, or JSON lines."""
    if format == "csv":
        table = csv.DictWriter(file, LABEL_COLUMNS, lineterminator="\n")
        table.writeheader()
        yield lambda row: table.writerow(row | {"prompt": _cell(row["prompt"])})
    elif tool is not None and tool.as_list:
        separators = chain(["[\n"], repeat(",\n"))
        yield lambda row: file.write(next(separators) + _to_json(row))
        file.write("[]\n" if next(separators) == "[\n" else "\n]\n")
    else:
        yield lambda row: file.write(_to_json(row) + "\n")


def _cell(prompt: str | list[dict[str, Any]]) -> str:
    return prompt if isinstance(prompt, str) else _to_json(prompt)
