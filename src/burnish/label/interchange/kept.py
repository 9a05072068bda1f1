"""What a tool's format has no place for: kept in a field that the tool ignores, and read back.

    {"example_id": "...", "task": "...", "rows": [...]}        rows as in `rows`, without those two

The rows hold everything Burnish knew when it wrote the record. So a record that comes back says it
all again, and of the tool's own fields only what is not among the rows is new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from burnish.label.interchange.rows import (
    Values,
    annotation_row,
    draft_row,
    gold_row,
    prompt_value,
)
from burnish.records.answers import span_text
from burnish.records.exports import FIELD
from burnish.records.messages import UnfitError
from burnish.store.drafts import Draft
from burnish.store.labelled import Gold, Labelled
from burnish.tasks import Kind, Task
from burnish.types import Annotation, Conversation, Example

Read = Iterator[dict[str, Any] | UnfitError]
"""Rows, and the reasons for what fits none."""


@dataclass(frozen=True, slots=True)
class Tool:
    """How one labelling tool's records are written and read."""

    kinds: tuple[Kind, ...]
    """Those its format can express."""
    is_record: Callable[[Values], bool]
    objects: tuple[str, ...]
    """The record's keys that hold objects in every record."""
    said: tuple[str, ...]
    """The record's keys that hold what people and models said."""
    write: Callable[[Labelled, Task], Iterator[dict[str, Any]]]
    """An example as records; of what one person said twice the newest, and all of it in `FIELD`."""
    read: Callable[[Values, Task], Read]
    """What the tool's own fields say."""
    kept: Callable[[Values], Any]
    """What stands in `FIELD`; None in a record that is not ours."""
    prompt: Callable[[Values], Conversation]
    as_list: bool
    """Whether a file is one JSON list; else JSON lines."""


def kept_rows(labelled: Labelled, task: Task) -> dict[str, Any]:
    """The field of a record about all of these."""
    # Drafts first: a ranking is checked against them.
    rows = [
        *map(draft_row, labelled.drafts),
        *map(annotation_row, labelled.annotations),
        *([gold_row(labelled.gold)] if labelled.gold else []),
    ]
    for row in rows:
        del row["example_id"], row["task"]
    return {"example_id": labelled.example_id, "task": task.name, "rows": rows}


def of_each_person(labelled: Labelled) -> Iterator[Labelled]:
    """One for each person, for tools that write a line for each; the first has what models said."""
    people: dict[str, list[Annotation]] = {}
    for annotation in labelled.annotations:
        people.setdefault(annotation.annotator, []).append(annotation)
    first, *others = people.values() or [[]]
    yield replace(labelled, annotations=first)
    for given in others:
        yield replace(labelled, annotations=given, drafts=(), gold=None)


def line_of(labelled: Labelled) -> dict[str, Any]:
    """What such a line shows: the last user turn, and of a longer prompt all turns."""
    conversation = labelled.example.conversation
    line: dict[str, Any] = {"text": span_text(labelled.example)}
    prompt = prompt_value(conversation)
    if not isinstance(prompt, str):
        line["messages"] = prompt
    if conversation.answer is not None:
        line["response"] = conversation.answer.content
    return line


def read_record(tool: Tool, record: Values, task: Task) -> Read:
    """What a record says: the rows we kept in it, then what the tool added to them."""
    for key in tool.objects:
        if not isinstance(record.get(key), Mapping):
            raise UnfitError(f"{key!r} is not an object")
    field = tool.kept(record)
    if field is None:
        yield from tool.read(record, task)
        return
    about, rows = _opened(field)
    prompt = tool.prompt(record)
    labelled = _labelled(about, rows, prompt)
    yield from ({**about, "prompt": prompt, **row} for row in rows)
    try:
        [ours] = tool.write(labelled, task)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UnfitError(f"the field {FIELD!r} holds no answers of kind {task.kind!r}") from None
    if all(record.get(key) == ours.get(key) for key in tool.said):
        return
    ours = {**record, **{key: ours.get(key) for key in tool.said}}
    written = _all_said(tool.read(ours, task))
    known = Counter(map(_content, written))
    # A server that names somebody for a gold answer makes an annotation of it too.
    gold = (row for row in written if isinstance(row, dict) and row.get("record") == "gold")
    known.update(_content({**row, "record": None}) for row in gold)
    for row in _all_said(tool.read(record, task)):
        if known[_content(row)]:
            known[_content(row)] -= 1
        else:
            yield {**row, **about} if isinstance(row, dict) else row


def _all_said(read: Read) -> list[dict[str, Any] | UnfitError]:
    """What a record's own fields say, and why the rest of them fits nothing."""
    rows: list[dict[str, Any] | UnfitError] = []
    try:
        rows.extend(read)
    except UnfitError as error:
        rows.append(error)
    return rows


def _content(row: dict[str, Any] | UnfitError) -> tuple[Any, ...]:
    """Not by whom: a tool that takes a file in may name its own user."""
    if isinstance(row, UnfitError):
        return (str(row),)
    return (row.get("record"), row.get("status", "submitted"), row.get("answer"))


def _opened(field: Any) -> tuple[dict[str, Any], list[Values]]:
    rows = field.get("rows") if isinstance(field, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise UnfitError(f"the field {FIELD!r} is not as Burnish wrote it")
    return {key: field.get(key) for key in ("example_id", "task")}, rows


def _labelled(about: Values, rows: list[Values], prompt: Conversation) -> Labelled:
    """The example as it was written, as far as it decides what the tool's fields were."""
    try:
        annotations = [Annotation(**about, **row) for row in rows if row.get("record") is None]
        drafts = [
            Draft("", **about, text=row["answer"], model=row["annotator"])
            for row in rows
            if row.get("record") == "draft"
        ]
        gold = [
            Gold(**about, answer=row["answer"], by=row["annotator"])
            for row in rows
            if row.get("record") == "gold"
        ]
    except (KeyError, TypeError):
        raise UnfitError(f"the field {FIELD!r} is not as Burnish wrote it") from None
    example = Example(prompt, "", {})
    return Labelled(about["example_id"], example, annotations, drafts, *gold)
