"""An annotation, draft or gold answer as a row: in the plain formats, and kept in the others.

column             in a file that is read                      in a file that is written
record             annotation (default), draft or gold         unless it is an annotation
example_id         the example; else it is found by `prompt`   always
prompt             the text of the one user turn, or the       always
                   turns as a list of {role, content}
task               optional; must be the task imported to      always
answer             needed unless skipped or flagged            always
annotator          needed unless given for the whole file;     always
                   of a draft the model
status             submitted (default), skipped, flagged       always
                   or withdrawn
seconds            optional                                    where measured
guideline_version  optional                                    where known
created_at         ISO 8601; default: now                      always
client_id          default: made from the row's content        always
draft_id           optional                                    where begun from a draft
edit_distance      optional                                    where begun from a draft
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, cast, get_args

from burnish.hashing import canonical_json, content_hash
from burnish.label.guidelines import checked_annotator
from burnish.records.answers import checked_text
from burnish.records.exports import label_row_conversation
from burnish.records.fingerprint import prompt_fingerprint
from burnish.records.messages import UnfitError, text_of
from burnish.store.drafts import Draft
from burnish.store.labelled import Gold
from burnish.tasks import Task
from burnish.types import Annotation, AnnotationStatus, Conversation

NAME_ANNOTATOR = (
    "name them in a column annotator, or all at once by --annotator NAME, in the studio by “Who "
    "answered”"
)
Record = Literal["annotation", "draft", "gold"]
Values = Mapping[str, Any]

_OF_ANNOTATIONS = tuple(field.name for field in fields(Annotation))
_RECORDS = get_args(Record)
_STATUSES = get_args(AnnotationStatus)
_STRUCTURED = ("choose_many", "rank", "spans", "dialogue", "accept")


@dataclass(frozen=True, slots=True)
class Said:
    """What one row says, before its example is looked up."""

    record: Record
    annotation: Annotation
    """Of a draft, `annotator` is the model; of a gold answer, who gave it."""
    prompt: Any
    """A text, a list of turns or a conversation: finds the example where the id does not."""
    candidates: tuple[str, ...] = ()
    """The texts that the numbers of a ranking stand for, where the file has them."""


def annotation_row(annotation: Annotation) -> dict[str, Any]:
    """Its columns, those without a value left out."""
    row = {name: getattr(annotation, name) for name in _OF_ANNOTATIONS}
    return {name: value for name, value in row.items() if value is not None and value != ""} | {
        "answer": annotation.answer
    }


def draft_row(draft: Draft) -> dict[str, Any]:
    """A draft's columns."""
    return _row("draft", draft, draft.text, draft.model)


def gold_row(gold: Gold) -> dict[str, Any]:
    """A gold answer's columns."""
    return _row("gold", gold, gold.answer, gold.by)


def _row(record: Record, given: Draft | Gold, answer: str, annotator: str) -> dict[str, Any]:
    return {
        "record": record,
        "example_id": given.example_id,
        "task": given.task,
        "answer": answer,
        "annotator": annotator,
        "created_at": given.created_at,
    }


def prompt_value(conversation: Conversation) -> str | list[dict[str, Any]]:
    """What comes before the answer: the text of a lone user turn, or the turns."""
    turns = conversation.prompt.messages
    if len(turns) == 1 and turns[0].role == "user":
        return turns[0].content
    return cast("list[dict[str, Any]]", conversation.prompt.to_json()["messages"])


def prompt_hash(prompt: Any) -> str:
    """The fingerprint that examples are found by.

    Raises:
        UnfitError: neither a text nor a list of turns.
    """
    if not isinstance(prompt, Conversation):
        prompt = label_row_conversation({"prompt": prompt})
    return prompt_fingerprint(prompt)


def read_row(values: Values, task: Task, annotator: str | None = None) -> Said:
    """What the row says; `annotator` is who answered where it does not say.

    Raises:
        UnfitError, InputError: a column does not hold what it should.
    """
    record = values.get("record", "annotation")
    if record not in _RECORDS:
        raise UnfitError(f"unknown record: {record!r}; known: {', '.join(_RECORDS)}")
    named = values.get("task", task.name)
    if named != task.name:
        raise UnfitError(f"another task: import it into {named!r}, not {task.name!r}")
    name = str(values.get("annotator", annotator or ""))
    if not name:
        raise UnfitError(f"nobody is named who answered: {NAME_ANNOTATOR}")
    annotation = Annotation(
        example_id=_id(values, "example_id", 128) or "",
        task=task.name,
        answer=_answer(values.get("answer", ""), task),
        # A model's name may be a path of any length.
        annotator=name if record == "draft" else checked_annotator(name),
        client_id=_id(values, "client_id", 128) or "",
        guideline_version=_id(values, "guideline_version", 32) or "",
        seconds=_number(values.get("seconds"), "seconds"),
        status=_status(values.get("status", "submitted")),
        created_at=_created_at(values.get("created_at")),
        draft_id=_id(values, "draft_id", 32),
        edit_distance=_number(values.get("edit_distance"), "edit_distance"),
    )
    checked_text(f"{annotation.answer} {annotation.annotator}")
    return Said(record, annotation, values.get("prompt"), tuple(values.get("candidates", ())))


def identified(annotation: Annotation) -> Annotation:
    """With a client id made from the content where the row brought none."""
    if annotation.client_id:
        return annotation
    content = [annotation.task, *identity(annotation), annotation.created_at]
    return replace(annotation, client_id=f"import-{content_hash(content)}")


def identity(annotation: Annotation) -> tuple[str, ...]:
    """What makes two annotations the same, whatever their client ids."""
    return (annotation.example_id, annotation.annotator, annotation.status, annotation.answer)


def _answer(value: Any, task: Task) -> str:
    """A text; of kinds whose answers are structured, also the structure itself."""
    if isinstance(value, (list, dict)) and task.kind in _STRUCTURED:
        return canonical_json(value)
    return text_of(value, "answer")


def _id(values: Values, name: str, longest: int) -> str | None:
    """A text that the store can be asked for, and has room for."""
    if (value := values.get(name)) is None:
        return None
    text = text_of(value, name)
    checked_text(text)
    if len(text) > longest:
        raise UnfitError(f"{name} is longer than {longest} characters: {text[:40]!r}")
    return text


def _status(value: Any) -> AnnotationStatus:
    if value not in _STATUSES:
        raise UnfitError(f"unknown status: {value!r}; known: {', '.join(_STATUSES)}")
    return cast(AnnotationStatus, value)


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise UnfitError(f"{name} is no number from 0 up: {value!r}")
    return number


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
