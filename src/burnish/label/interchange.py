"""Labels in and out as JSONL and CSV.

    column             import                                      export
    example_id         the example; else it is found by `prompt`   always
    prompt             the text of the one user turn, or the       always
                       turns as a list of {role, content}
    answer             needed unless skipped or flagged            always
    annotator          needed unless given for the whole file      always
    status             submitted (default), skipped or flagged     always
    seconds            optional                                    where measured
    guideline_version  optional                                    where known
    created_at         ISO 8601; default: now                      always
    client_id          default: made from the row's content        always
    task               optional; must be the task imported to      always

A file imported again adds nothing: a row's client id is the same every time. Other columns are left
alone.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, get_args

from burnish.config import did_you_mean
from burnish.errors import InputError
from burnish.files import replaced_file
from burnish.hashing import content_hash
from burnish.label.guidelines import checked_annotator
from burnish.progress import progress, progress_bar
from burnish.records.answers import checked_answer
from burnish.records.fingerprint import prompt_fingerprint
from burnish.records.messages import UnfitError, openai_conversation, text_of
from burnish.records.rejects import keep_rejects, reject_line
from burnish.records.rows import Reject, Row, read_rows
from burnish.store import Connection, Store
from burnish.store.annotations import add_annotations, count_annotations
from burnish.store.examples import PAGE
from burnish.store.labelling import (
    annotations_by_client_id,
    annotations_with_conversations,
    ids_by_prompt,
    known_ids,
)
from burnish.store.queue import settle_slots
from burnish.tasks import Task
from burnish.types import Annotation, AnnotationStatus, Conversation, Message

LabelFormat = Literal["jsonl", "csv"]

_COLUMNS = (
    "example_id",
    "prompt",
    "task",
    "answer",
    "annotator",
    "status",
    "seconds",
    "guideline_version",
    "created_at",
    "client_id",
)


@dataclass(frozen=True, slots=True)
class LabelImport:
    """What came of an import."""

    added: int
    known: int
    """Annotations that were there already, or twice in the file."""
    rejected: Mapping[str, int]
    """How many rows were refused, by reason."""
    rejects: Path | None
    """JSON lines of line, reason and row; None where nothing was refused."""


def import_labels(
    store: Store,
    path: Path,
    task: Task,
    *,
    annotator: str | None = None,
    rejects: Path = Path("rejects"),
) -> LabelImport:
    """Add the annotations of a JSONL, JSON, CSV, TSV or Parquet file, a page at a time.

    `annotator` is who answered where a row does not say; `rejects` is the folder for refused rows.
    After a kill the same command adds the rest and doubles nothing.

    Raises:
        InputError: the file cannot be read, or lacks the columns every row needs.
    """
    rows = read_rows(path)
    rejected: Counter[str] = Counter()
    added = accepted = 0
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as refused,
        progress_bar(f"importing {path.name}", unit=" rows", total=None) as bar,
    ):
        while page := list(islice(rows, PAGE)):
            if not bar.n:
                _check_columns(page, path, annotator)
            with store.writing() as connection:
                batch = _Batch(connection, task, annotator)
                annotations = batch.read(page)
                added += add_annotations(connection, annotations, actor="import", action="import")
                settle_slots(connection, task.name, annotations)
            accepted += batch.accepted
            for reject in batch.rejects:
                rejected[reject.reason.partition(":")[0]] += 1
                refused.write(reject_line(reject))
            bar.update(len(page))
        kept = keep_rejects(refused, path.name, str(path.absolute()), rejects)
    return LabelImport(added, accepted - added, dict(rejected.most_common()), kept)


def export_labels(store: Store, path: Path, task: Task, *, format: LabelFormat = "jsonl") -> int:
    """Write every annotation of the task, oldest first, and return how many there are.

    Streaming; the file appears whole or not at all. `import_labels` reads it back.
    """
    with (
        replaced_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
        store.reading() as connection,
    ):
        write = _csv_writer(file) if format == "csv" else _jsonl_writer(file)
        rows = annotations_with_conversations(connection, task.name)
        total = count_annotations(connection)
        written = 0
        for row in progress(rows, f"exporting {path.name}", unit=" rows", total=total):
            write(_to_values(*row))
            written += 1
    return written


def _jsonl_writer(file: IO[str]) -> Callable[[dict[str, Any]], object]:
    def write(row: dict[str, Any]) -> None:
        values = {key: value for key, value in row.items() if value is not None}
        file.write(json.dumps(values, ensure_ascii=False) + "\n")

    return write


def _csv_writer(file: IO[str]) -> Callable[[dict[str, Any]], object]:
    writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
    writer.writeheader()

    def write(row: dict[str, Any]) -> None:
        if not isinstance(row["prompt"], str):
            row["prompt"] = json.dumps(row["prompt"], ensure_ascii=False)
        writer.writerow(row)

    return write


def _to_values(annotation: Annotation, conversation: Conversation) -> dict[str, Any]:
    values = {name: getattr(annotation, name) for name in _COLUMNS if name != "prompt"}
    turns = conversation.prompt.messages
    lone = len(turns) == 1 and turns[0].role == "user"
    values["prompt"] = turns[0].content if lone else conversation.prompt.to_json()["messages"]
    values["guideline_version"] = annotation.guideline_version or None
    return {name: values[name] for name in _COLUMNS}


class _Batch:
    """A page of rows on its way to annotations."""

    def __init__(self, connection: Connection, task: Task, annotator: str | None) -> None:
        self.connection = connection
        self.task = task
        self.annotator = annotator
        self.rejects: list[Reject] = []
        self.accepted = 0

    def read(self, page: Iterable[Row | Reject]) -> list[Annotation]:
        """The page's annotations, each once; refused rows go to `rejects`."""
        drafts = list(self._drafts(page))
        ids = known_ids(self.connection, {a.example_id for _, a, _ in drafts})
        prompts = ids_by_prompt(
            self.connection,
            {prompt for _, a, prompt in drafts if prompt and a.example_id not in ids},
        )
        found = []
        for row, annotation, prompt in drafts:
            try:
                if annotation.example_id not in ids:
                    example_id = _found_by_prompt(annotation, prompt, prompts)
                    annotation = replace(annotation, example_id=example_id)
                found.append((row, _identified(annotation)))
            except UnfitError as error:
                self.rejects.append(Reject(row.line, str(error), row.values))
        return self._without_conflicts(found)

    def _drafts(self, page: Iterable[Row | Reject]) -> Iterator[tuple[Row, Annotation, str | None]]:
        """Rows as annotations, with the prompt's fingerprint; the example is not looked up yet."""
        for row in page:
            if isinstance(row, Reject):
                self.rejects.append(row)
                continue
            # CSV has no other way to leave a value out.
            values = {k: v for k, v in row.values.items() if v is not None and v != ""}
            try:
                yield row, self._annotation(values), _prompt_hash(values.get("prompt"))
            except UnfitError as error:
                self.rejects.append(Reject(row.line, str(error), row.values))
            except InputError as error:
                self.rejects.append(Reject(row.line, error.what, row.values))

    def _annotation(self, values: Mapping[str, Any]) -> Annotation:
        status = _status(values.get("status", "submitted"))
        answer = text_of(values.get("answer", ""), "answer")
        if status == "submitted":
            answer = checked_answer(answer, self.task)
        task = values.get("task", self.task.name)
        if task != self.task.name:
            raise UnfitError(f"another task: {task!r}, not {self.task.name!r}")
        return Annotation(
            example_id=str(values.get("example_id", "")),
            task=self.task.name,
            answer=answer,
            annotator=checked_annotator(str(values.get("annotator", self.annotator or ""))),
            client_id=text_of(values.get("client_id", ""), "client_id"),
            guideline_version=text_of(values.get("guideline_version", ""), "guideline_version"),
            seconds=_seconds(values.get("seconds")),
            status=status,
            created_at=_created_at(values.get("created_at")),
        )

    def _without_conflicts(self, found: list[tuple[Row, Annotation]]) -> list[Annotation]:
        """A client id names one annotation; a row that says otherwise is refused."""
        kept = annotations_by_client_id(self.connection, {a.client_id for _, a in found})
        annotations: dict[str, Annotation] = {}
        for row, annotation in found:
            same = kept.setdefault(annotation.client_id, annotation)
            if _identity(same) != _identity(annotation):
                reason = f"the client id came with another annotation: {annotation.client_id}"
                self.rejects.append(Reject(row.line, reason, row.values))
            else:
                self.accepted += 1
                annotations.setdefault(annotation.client_id, annotation)
        return list(annotations.values())


def _check_columns(page: list[Row | Reject], path: Path, annotator: str | None) -> None:
    """Refuse a file whose first row lacks what every row needs, instead of row after row."""
    first = next((row for row in page if isinstance(row, Row)), None)
    if first is None:
        return
    faults = [
        f"there is no column {' or '.join(needed)}{did_you_mean(needed[-1], first.values)}"
        for needed in (("example_id", "prompt"), ("answer", "status"))
        if first.values.keys().isdisjoint(needed)
    ]
    do = "name the columns example_id or prompt, answer and annotator"
    if annotator is None and "annotator" not in first.values:
        faults.append("nobody is named who gave these answers")
        do += "; --annotator NAME does for a whole file"
    if faults:
        raise InputError("\n    ".join(faults), where=f"{path}:{first.line}", do=do)


def _identity(annotation: Annotation) -> tuple[str, ...]:
    return (annotation.example_id, annotation.annotator, annotation.status, annotation.answer)


def _identified(annotation: Annotation) -> Annotation:
    """With a client id made from the content where the row brought none."""
    if annotation.client_id:
        return annotation
    content = [annotation.task, *_identity(annotation), annotation.created_at]
    return replace(annotation, client_id=f"import-{content_hash(content)}")


def _found_by_prompt(
    annotation: Annotation, prompt: str | None, examples: Mapping[str, list[str]]
) -> str:
    if prompt is None:
        raise UnfitError(f"no such example: {annotation.example_id or 'example_id is empty'}")
    fitting = examples.get(prompt, [])
    if len(fitting) > 1:
        raise UnfitError(f"several examples have this prompt: give one of {', '.join(fitting[:5])}")
    if not fitting:
        raise UnfitError("no example has this prompt")
    return fitting[0]


def _prompt_hash(prompt: Any) -> str | None:
    if prompt is None:
        return None
    if isinstance(prompt, str) and prompt.startswith('[{"'):
        # A person's text may happen to begin like a list.
        with contextlib.suppress(ValueError):
            prompt = json.loads(prompt)
    if isinstance(prompt, list):
        return prompt_fingerprint(openai_conversation(prompt))
    return prompt_fingerprint(Conversation((Message("user", text_of(prompt, "prompt")),)))


def _status(value: Any) -> AnnotationStatus:
    for status in get_args(AnnotationStatus):
        if value == status:
            return status
    known = ", ".join(get_args(AnnotationStatus))
    raise UnfitError(f"unknown status: {value!r}; known: {known}")


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UnfitError(f"seconds is no number from 0 up: {value!r}")
    return seconds


def _created_at(value: Any) -> str | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        raise UnfitError(f"created_at is no ISO 8601 time: {value!r}") from None
    # A time without a zone is taken as UTC, so that the same file is read the same everywhere.
    time = time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    return time.isoformat(timespec="milliseconds")
