"""Prodigy's JSON lines (`db-out`): one task and one person's answer to it a line.

Shapes: explosion/prodigy-recipes, example-datasets; prodi.gy/docs/api-interfaces.

    kind            interface        written as
    write, edit     text_input       {"user_input": "...", "answer": "accept"}
    choose          choice           {"options": [{"id", "text"}], "accept": ["..."], ...};
    choose_many                      choose_many any number; rate the numbers of the scale
    rate
    spans           spans_manual     {"spans": [{"start", "end", "label"}], ...} in code points
    accept          text             {"answer": "accept"}, or "reject" and a `reason`
    rank, dialogue  none: no interface ranks more than two texts, or writes turns

What was skipped, flagged (with `"flagged": true`) or withdrawn is `"answer": "ignore"`. People are
called as `_annotator_id`, else `_session_id`, says: often the dataset's name, a dash and theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from burnish.hashing import canonical_json, text_hash
from burnish.label.interchange.kept import Read, Tool, kept_rows, line_of, of_each_person
from burnish.label.interchange.offsets import span_ends
from burnish.label.interchange.rows import Values
from burnish.records.answers import spans_answer, verdict_answer
from burnish.records.exports import FIELD, is_prodigy, line_conversation, objects
from burnish.records.messages import UnfitError, text_of
from burnish.store.labelled import Labelled
from burnish.tasks import Task
from burnish.types import Annotation

_VIEWS = {"write": "text_input", "edit": "text_input", "spans": "spans_manual", "accept": "text"}


def _write(labelled: Labelled, task: Task) -> Iterator[dict[str, Any]]:
    line = line_of(labelled)
    line |= {
        "_input_hash": _signed_hash(line["text"]),
        "_task_hash": _signed_hash(f"{labelled.example_id} {task.name}"),
        "_view_id": _VIEWS.get(task.kind, "choice"),
    }
    if task.kind in ("choose", "choose_many"):
        line["options"] = [{"id": choice, "text": choice} for choice in task.choices]
    if task.kind == "rate":
        low, high = task.scale
        line["options"] = [{"id": n, "text": str(n)} for n in range(low, high + 1)]
    for person in of_each_person(labelled):
        said = _said(person.annotations[-1], task) if person.annotations else {}
        yield line | said | {FIELD: kept_rows(person, task)}


def _said(annotation: Annotation, task: Task) -> dict[str, Any]:
    line: dict[str, Any] = {
        "answer": "accept" if annotation.status == "submitted" else "ignore",
        "_session_id": annotation.annotator,
        "_annotator_id": annotation.annotator,
    }
    if annotation.created_at is not None:
        line["_timestamp"] = int(datetime.fromisoformat(annotation.created_at).timestamp())
    if annotation.status != "submitted":
        return line | ({"flagged": True} if annotation.status == "flagged" else {})
    answer = annotation.answer
    match task.kind:
        case "choose":
            return {**line, "accept": [answer]}
        case "choose_many":
            return {**line, "accept": json.loads(answer)}
        case "rate":
            return {**line, "accept": [int(answer)]}
        case "spans":
            return {**line, "spans": json.loads(answer)}
        case "accept":
            given = json.loads(answer)
            return {**line, "answer": given.pop("verdict"), **given}
        case _:
            return {**line, "user_input": answer}


def _signed_hash(text: str) -> int:
    """A hash as wide as Prodigy's; its own are MurmurHash, and it keeps those it is given."""
    return int(text_hash(text)[:8], 16) - 2**31


def _read(record: Values, task: Task) -> Read:
    verdict = record.get("answer")
    if verdict not in ("accept", "reject", "ignore"):
        raise UnfitError(f"an answer that is none of accept, reject, ignore: {verdict!r}")
    status = "submitted"
    if verdict == "ignore":
        status = "flagged" if record.get("flagged") else "skipped"
    time = record.get("_timestamp")
    yield {
        "answer": _answer(record, task) if status == "submitted" else "",
        "status": status,
        "annotator": record.get("_annotator_id") or record.get("_session_id"),
        "created_at": None if time is None else _time(time),
        "prompt": line_conversation(record),
    }


def _time(seconds: Any) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        raise UnfitError(f"_timestamp is no time: {seconds!r}") from None


def _answer(record: Values, task: Task) -> str:
    if task.kind == "accept":
        reason = record.get("reason") or record.get("user_input") or ""
        return verdict_answer(record["answer"], reason)
    if record["answer"] == "reject":
        raise UnfitError("a rejected task says only what the answer is not")
    match task.kind:
        case "choose" | "rate":
            chosen = _chosen(record, task)
            if len(chosen) != 1:
                raise UnfitError(f"{len(chosen)} choices where there should be one")
            return chosen[0]
        case "choose_many":
            return canonical_json(_chosen(record, task))
        case "spans":
            return _spans(record)
        case _:
            return text_of(record.get("user_input", record.get(task.name)), "user_input")


def _chosen(record: Values, task: Task) -> list[str]:
    """What was chosen, by the options' ids where these are the task's choices, else their texts."""
    accepted = record.get("accept")
    ids = [text_of(i, "accept") for i in accepted] if isinstance(accepted, list) else []
    if ids and (task.kind == "rate" or set(ids) <= set(task.choices)):
        return ids
    options = {str(o.get("id")): o.get("text", o.get("id")) for o in objects(record, "options")}
    if "label" in record and not options:
        return [text_of(record["label"], "label")]
    return [text_of(options.get(id_, id_), "accept") for id_ in ids]


def _spans(record: Values) -> str:
    spans = []
    for span in objects(record, "spans"):
        ends = span_ends(span.get("start"), span.get("end"))
        spans.append((*ends, text_of(span.get("label"), "label")))
    return spans_answer(spans)


PRODIGY = Tool(
    kinds=("write", "edit", "choose", "choose_many", "rate", "spans", "accept"),
    is_record=is_prodigy,
    objects=(),
    said=("answer", "accept", "spans", "user_input", "reason", "flagged"),
    write=_write,
    read=_read,
    kept=lambda record: record.get(FIELD),
    prompt=line_conversation,
    as_list=False,
)
