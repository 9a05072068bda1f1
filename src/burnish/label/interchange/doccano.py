"""doccano's JSON lines: a text and its labels.

Shapes: doccano/doccano, backend/data_export/pipeline.

    kind                 project                  written as
    write, edit          Seq2seq                  {"text", "label": ["..."]}
    choose, choose_many  TextClassification       {"text", "label": ["...", "..."]}
    rate                 TextClassification       {"text", "label": ["4"]}
    spans                SequenceLabeling         {"text", "label": [[start, end, "..."]]} in UTF-16
                                                  code units
    accept               TextClassification       accept or reject, and the reason in "Comments"
    rank, dialogue       none: no project ranks texts, or writes turns

Read as well: `entities` with `relations` or `cats`. Who answered, and whether a text without labels
was looked at, stands nowhere in doccano: files are named by person, so give that name, and a text
without labels is refused. Other columns come back from doccano as they went in: so do `annotator`
and our own field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from burnish.hashing import canonical_json
from burnish.label.interchange.kept import Read, Tool, kept_rows, line_of, of_each_person
from burnish.label.interchange.offsets import from_utf16, to_utf16
from burnish.label.interchange.rows import Values
from burnish.records.answers import spans_answer, verdict_answer
from burnish.records.exports import FIELD, is_doccano, line_conversation
from burnish.records.messages import UnfitError, text_of
from burnish.store.labelled import Labelled
from burnish.tasks import Task


def _write(labelled: Labelled, task: Task) -> Iterator[dict[str, Any]]:
    line = line_of(labelled)
    for person in of_each_person(labelled):
        said: dict[str, Any] = {"label": []}
        for annotation in person.annotations[-1:]:
            said["annotator"] = annotation.annotator
            if annotation.status == "submitted":
                said |= _labels(annotation.answer, task, line["text"])
        yield {**line, **said, FIELD: kept_rows(person, task)}


def _labels(answer: str, task: Task, text: str) -> dict[str, Any]:
    match task.kind:
        case "choose_many":
            return {"label": json.loads(answer)}
        case "spans":
            spans = json.loads(answer)
            edges = [(to_utf16(text, s["start"]), to_utf16(text, s["end"])) for s in spans]
            return {"label": [[*e, s["label"]] for e, s in zip(edges, spans, strict=True)]}
        case "accept":
            given = json.loads(answer)
            reason = {"Comments": [given["reason"]]} if "reason" in given else {}
            return {"label": [given["verdict"]], **reason}
        case _:
            return {"label": [answer]}


def _read(record: Values, task: Task) -> Read:
    names = ("entities", "label") if task.kind == "spans" else ("cats", "label")
    given = (record[name] for name in names if isinstance(record.get(name), list))
    labels: list[Any] = next(given, [])
    if not labels:
        raise UnfitError("no label: doccano does not say whether anybody has looked")
    yield {
        "answer": _answer(labels, record, task),
        "status": "submitted",
        "annotator": record.get("annotator"),
        "prompt": line_conversation(record),
    }


def _answer(labels: list[Any], record: Values, task: Task) -> str:
    if task.kind == "spans":
        text = text_of(record.get("text"), "text")
        return spans_answer(_span(label, text) for label in labels)
    texts = [text_of(label, "label") for label in labels]
    if task.kind == "choose_many":
        return canonical_json(texts)
    if len(texts) != 1:
        raise UnfitError(f"{len(texts)} labels where there should be one")
    if task.kind != "accept":
        return texts[0]
    comments = record.get("Comments")
    reason = "\n".join(map(str, comments)) if isinstance(comments, list) else ""
    return verdict_answer(texts[0], reason)


def _span(label: Any, text: str) -> tuple[int, int, str]:
    """[start, end, label], or {start_offset, end_offset, label} where the project has relations."""
    if isinstance(label, Mapping):
        label = [label.get(key) for key in ("start_offset", "end_offset", "label")]
    if not isinstance(label, list) or len(label) != 3 or not all(type(n) is int for n in label[:2]):
        raise UnfitError(f"a span that is not [start, end, label]: {label!r}")
    start, end, name = label
    return from_utf16(text, start), from_utf16(text, end), text_of(name, "label")


DOCCANO = Tool(
    kinds=("write", "edit", "choose", "choose_many", "rate", "spans", "accept"),
    is_record=is_doccano,
    objects=(),
    said=("label", "Comments"),
    write=_write,
    read=_read,
    kept=lambda record: record.get(FIELD),
    prompt=line_conversation,
    as_list=False,
)
