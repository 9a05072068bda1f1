"""The labels of the store into a file, streaming; the file appears whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import IO, Any

from burnish.files import replaced_file, replaced_folder
from burnish.label.interchange.argilla_settings import RECORDS, write_settings
from burnish.label.interchange.formats import LabelFormat, check_kind, tool_named
from burnish.label.interchange.kept import Tool
from burnish.label.interchange.rows import (
    COLUMNS,
    annotation_row,
    draft_row,
    gold_row,
    prompt_value,
)
from burnish.label.webhooks import announce
from burnish.progress import progress_bar
from burnish.store import Connection, Store
from burnish.store.annotations import count_annotations
from burnish.store.drafts import read_all_drafts
from burnish.store.labelled import examples_by_id, labelled_examples, read_gold
from burnish.store.labelling import annotations_with_conversations, pages
from burnish.tasks import Task
from burnish.types import Conversation

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
Write = Callable[[dict[str, Any]], object]
Rows = Iterator[tuple[dict[str, Any], int]]
"""What to write, and how many annotations are in it."""


def export_labels(store: Store, path: Path, task: Task, *, format: LabelFormat = "jsonl") -> int:
    """Write every annotation, draft and gold answer of the task; return how many annotations.

    In the plain formats drafts come first, then annotations, oldest first, then gold answers; in
    those of tools examples in order of arrival. Argilla's settings are written too where `path` has
    no ending and so is a folder. `import_labels` reads all of them back.

    Raises:
        InputError: the format has no place for answers of the task's kind.
    """
    check_kind(task, format)
    if format == "argilla" and not path.suffix:
        with replaced_folder(path) as folder:
            fields: dict[str, None] = {}
            written = _export(store, folder / RECORDS, path.name, task, format, fields)
            write_settings(folder, task, fields)
    else:
        with replaced_file(path) as temporary:
            written = _export(store, temporary, path.name, task, format, {})
    with store.writing() as connection:
        facts = {"task": task.name, "format": format, "annotations": written}
        announce(connection, "labels.exported", facts)
    return written


def _export(
    store: Store,
    path: Path,
    name: str,
    task: Task,
    format: LabelFormat,
    fields: dict[str, None],
) -> int:
    """Write the file, called `name` to the user; `fields` takes those of all records, in order."""
    tool = tool_named(format)
    written = 0
    with (
        path.open("w", encoding="utf-8", newline="") as file,
        store.reading() as connection,
        progress_bar(
            f"exporting {name}", unit=" labels", total=count_annotations(connection)
        ) as bar,
    ):
        rows = _rows(connection, task) if tool is None else _records(connection, task, tool)
        with _writer(file, format, tool) as write:
            for row, annotations in rows:
                write(row)
                fields.update(dict.fromkeys(row.get("fields", ())))
                written += annotations
                bar.update(annotations)
    return written


def _records(connection: Connection, task: Task, tool: Tool) -> Rows:
    for labelled in labelled_examples(connection, task.name):
        first, *others = tool.write(labelled, task)
        yield first, len(labelled.annotations)
        yield from ((record, 0) for record in others)


def _rows(connection: Connection, task: Task) -> Rows:
    yield from ((row, 0) for row in _draft_rows(connection, task))
    for annotation, conversation in annotations_with_conversations(connection, task.name):
        yield _with_prompt(annotation_row(annotation), conversation), 1
    yield from ((row, 0) for row in _gold_rows(connection, task))


def _draft_rows(connection: Connection, task: Task) -> Iterator[dict[str, Any]]:
    for page in pages(read_all_drafts(connection, task.name)):
        examples = examples_by_id(connection, {draft.example_id for draft in page})
        for draft in page:
            yield _with_prompt(draft_row(draft), examples[draft.example_id].conversation)


def _gold_rows(connection: Connection, task: Task) -> Iterator[dict[str, Any]]:
    for page in pages(read_gold(connection, task.name)):
        examples = examples_by_id(connection, {gold.example_id for gold in page})
        for gold in page:
            yield _with_prompt(gold_row(gold), examples[gold.example_id].conversation)


def _with_prompt(row: dict[str, Any], conversation: Conversation) -> dict[str, Any]:
    return {"example_id": row["example_id"], "prompt": prompt_value(conversation)} | row


@contextmanager
def _writer(file: IO[str], format: LabelFormat, tool: Tool | None) -> Iterator[Write]:
    """Writes CSV, one JSON list with a record a line, or JSON lines."""
    if format == "csv":
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
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
