"""Argilla's records (v2): the list that `records.to_list()` gives and `to_disk()` writes.

Shapes: `Record.to_dict` and `from_dict`, `Settings.serialize` (argilla-io/argilla,
argilla/src/argilla/records and settings).

    kind            question "answer"        value
    write, edit     TextQuestion             "..."
    choose          LabelQuestion            "..."
    choose_many     MultiLabelQuestion       ["...", "..."], never empty
    rate            RatingQuestion           4; the scale within 0 to 10
    rank            RankingQuestion          ["candidate_1", "candidate_0"]: fields, best first
    spans           SpanQuestion             [{"start", "end", "label"}] in UTF-16 code units
    accept          LabelQuestion            accept or reject, and the reason under "reason"
    dialogue        none: nobody can write turns there

Who answered is a UUID there: people are called `argilla:<uuid>`, and others are written under a
UUID made from their name. A response needs a value and a question takes one from each person, so
what was skipped or flagged, and all but the newest, is only in our own field, which stands in the
metadata as a text. Argilla's own export does not say which responses were drafts or discarded;
where a status stands, it counts.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from burnish.hashing import canonical_json
from burnish.label.interchange.kept import Read, Tool, kept_rows
from burnish.label.interchange.offsets import from_utf16, span_ends, to_utf16
from burnish.label.interchange.rows import Values
from burnish.records.answers import candidates_of, span_text, spans_answer, verdict_answer
from burnish.records.exports import FIELD, argilla_conversation, is_argilla, objects
from burnish.records.messages import UnfitError, text_of
from burnish.store.answers import newest_of_each
from burnish.store.labelled import Labelled
from burnish.tasks import Task
from burnish.types import Example

_PERSON = "argilla:"
# Annotators' UUIDs are made under this one (RFC 9562, version 5).
_NAMESPACE = uuid.UUID("8c2f4b1e-6f0d-5f6a-9a53-2d7c9e1b4a60")


def _write(labelled: Labelled, task: Task) -> Iterator[dict[str, Any]]:
    text = span_text(labelled.example)
    responses: dict[str, list[dict[str, Any]]] = {}
    for annotation in newest_of_each(labelled.annotations):
        if annotation.status != "submitted":
            continue
        for question, value in _values(annotation.answer, task, text):
            person = {"user_id": _user_id(annotation.annotator), "status": "submitted"}
            responses.setdefault(question, []).append({"value": value, **person})
    suggestions = {}
    # Of rankings the drafts are what is ranked: the fields.
    for draft in labelled.drafts[-1:] if task.kind != "rank" else ():
        suggestions = _suggestions(draft.text, draft.model, task, text)
    yield {
        "id": labelled.example_id,
        "fields": _fields(labelled, task),
        "metadata": {FIELD: canonical_json(kept_rows(labelled, task))},
        "suggestions": suggestions,
        "responses": responses,
        "vectors": {},
    }


def _fields(labelled: Labelled, task: Task) -> dict[str, Any]:
    example = labelled.example
    fields: dict[str, Any] = {
        "messages": [
            {"role": turn.role, "content": turn.content}
            for turn in example.conversation.prompt.messages
        ]
    }
    if task.kind == "spans":
        fields = {"text": span_text(example)}
    if example.conversation.answer is not None:
        fields["response"] = example.conversation.answer.content
    if task.kind == "rank":
        candidates = enumerate(candidates_of(example, labelled.drafts))
        fields |= {candidate(n): text for n, text in candidates}
    return fields


def candidate(number: int) -> str:
    """The field, and the ranking's value, of a candidate."""
    return f"candidate_{number}"


def _values(answer: str, task: Task, text: str) -> Iterator[tuple[str, Any]]:
    """Questions and values; none where Argilla has no value for this answer."""
    match task.kind:
        case "choose_many":
            if chosen := json.loads(answer):
                yield "answer", chosen
        case "rate":
            yield "answer", int(answer)
        case "rank":
            yield "answer", [candidate(n) for place in json.loads(answer) for n in place]
        case "spans":
            yield (
                "answer",
                [
                    {
                        **span,
                        "start": to_utf16(text, span["start"]),
                        "end": to_utf16(text, span["end"]),
                    }
                    for span in json.loads(answer)
                ],
            )
        case "accept":
            given = json.loads(answer)
            yield "answer", given["verdict"]
            if "reason" in given:
                yield "reason", given["reason"]
        case _:
            yield "answer", answer


def _suggestions(draft: str, model: str, task: Task, text: str) -> dict[str, Any]:
    try:
        values = dict(_values(draft, task, text))
    except (ValueError, TypeError, KeyError):
        return {}
    return {name: {"value": v, "score": None, "agent": model} for name, v in values.items()}


def _user_id(annotator: str) -> str:
    known = annotator.removeprefix(_PERSON)
    if known != annotator:
        return known
    return str(uuid.uuid5(_NAMESPACE, annotator))


def _read(record: Values, task: Task) -> Read:
    prompt = argilla_conversation(record)
    shown: dict[str, Any] = {"prompt": prompt}
    question = _question(record, task)
    reasons = {}
    if task.kind == "accept":
        given = objects(record["responses"], "reason")
        reasons = {str(r.get("user_id")): r.get("value") for r in given}
    if task.kind == "rank":
        ranked = [r.get("value") for r in objects(record["responses"], question)]
        shown["candidates"] = [text for _, text in _candidates(record, ranked)]
        for text in shown["candidates"]:
            yield {"record": "draft", "answer": text, "annotator": "argilla"} | shown
    suggestions = record.get("suggestions")
    suggestion = suggestions.get(question) if isinstance(suggestions, Mapping) else None
    if isinstance(suggestion, Mapping) and suggestion.get("value") is not None:
        agent = str(suggestion.get("agent") or "argilla")
        try:
            if task.kind == "rank":
                raise UnfitError("a model's ranking: drafts of this kind are what is ranked")
            text = _answer(suggestion["value"], task, record, None)
            yield {"record": "draft", "answer": text, "annotator": agent} | shown
        except UnfitError as error:
            yield error
    for response in objects(record["responses"], question):
        try:
            yield _said(response, task, record, reasons.get(str(response.get("user_id")))) | shown
        except UnfitError as error:
            yield error


def _question(record: Values, task: Task) -> str:
    """The question that the task is: of its name, `answer`, or the only one."""
    suggestions = record.get("suggestions")
    asked = [*record["responses"], *(suggestions if isinstance(suggestions, Mapping) else ())]
    for name in (task.name, "answer"):
        if name in asked:
            return name
    if len(set(asked)) > 1:
        raise UnfitError(f"several questions might be the task: {', '.join(sorted(set(asked)))}")
    return str(asked[0]) if asked else "answer"


def _said(response: Values, task: Task, record: Values, reason: Any) -> dict[str, Any]:
    status = response.get("status") or "submitted"
    if status == "draft":
        raise UnfitError("a response that was not submitted")
    submitted = status == "submitted"
    person = response.get("user_id")
    return {
        "answer": _answer(response.get("value"), task, record, reason) if submitted else "",
        "status": "submitted" if submitted else "skipped",
        "annotator": None if person is None else f"{_PERSON}{person}",
    }


def _answer(value: Any, task: Task, record: Values, reason: Any) -> str:
    match task.kind:
        case "choose_many":
            return canonical_json([text_of(choice, "value") for choice in _list(value)])
        case "rank":
            return _ranking(_list(value), [name for name, _ in _candidates(record, [value])])
        case "spans":
            return _spans(_list(value), span_text(Example(argilla_conversation(record), "")))
        case "accept":
            return verdict_answer(text_of(value, "value"), reason and text_of(reason, "reason"))
        case _:
            return text_of(value, "value")


def _candidates(record: Values, rankings: list[Any]) -> list[tuple[str, str]]:
    """The fields that rankings name, and their texts."""
    named = {_ranked(item)[0] for value in rankings for item in _list(value)}
    return [(k, text_of(v, k)) for k, v in record["fields"].items() if k in named]


def _ranked(item: Any) -> tuple[str, Any]:
    """A value of a ranking and, in older exports, its rank."""
    value, rank = (
        (item.get("value"), item.get("rank")) if isinstance(item, Mapping) else (item, None)
    )
    return text_of(value, "value"), rank


def _ranking(value: list[Any], names: list[str]) -> str:
    """Best first; equal ranks are one place."""
    places: dict[int, list[int]] = {}
    for n, item in enumerate(value):
        name, rank = _ranked(item)
        if name not in names:
            raise UnfitError(f"a ranking of what no field holds: {name!r}")
        places.setdefault(n if type(rank) is not int else rank, []).append(names.index(name))
    return canonical_json([places[place] for place in sorted(places)])


def _spans(value: list[Any], text: str) -> str:
    spans = []
    for span in value:
        if not isinstance(span, Mapping):
            raise UnfitError(f"a span that is no object: {span!r}")
        start, end = span_ends(span.get("start"), span.get("end"))
        label = text_of(span.get("label"), "label")
        spans.append((from_utf16(text, start), from_utf16(text, end), label))
    return spans_answer(spans)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UnfitError(f"a value that is no list: {value!r}")
    return value


def _kept(record: Values) -> Any:
    metadata = record.get("metadata")
    field = metadata.get(FIELD) if isinstance(metadata, Mapping) else None
    if field is None:
        return None
    try:
        return json.loads(field)
    except (TypeError, ValueError):
        raise UnfitError(f"the field {FIELD!r} is not as Burnish wrote it") from None


ARGILLA = Tool(
    kinds=("write", "edit", "choose", "choose_many", "rate", "rank", "spans", "accept"),
    is_record=is_argilla,
    objects=("fields", "responses"),
    said=("responses", "suggestions"),
    write=_write,
    read=_read,
    kept=_kept,
    prompt=argilla_conversation,
    as_list=True,
)
