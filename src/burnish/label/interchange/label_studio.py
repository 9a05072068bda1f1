"""Label Studio's JSON: tasks with what people (`annotations`) and models (`predictions`) said.

Shapes: "Label Studio JSON format of annotated tasks"; the controls' values from their sources
(HumanSignal/label-studio, web/libs/editor/src/tags/control).

    kind            control                  value
    write, edit     TextArea                 {"text": ["..."]}
    choose          Choices                  {"choices": ["..."]}; choose_many any number
    rate            Rating, or Number where  {"rating": 4}, {"number": 0}
                    the scale begins below 1
    rank            Ranker over a List       {"ranker": {"answer": ["1", "0"]}}: ids of data.items
    spans           Labels over a Text       {"start", "end", "text", "labels": ["..."]}
    dialogue        Chat                     {"chatmessage": {"role", "content"}}, one a turn
    accept          Choices and TextArea     accept or reject, and the reason under `reason`

Read as well: Pairwise ({"selected": "left"}), Rankers with Buckets that are named by rank, and
people as objects with an email. Who answered is a number there, so people are called
`label-studio:3`. A file that is taken in must not name people the server does not know, so only
such names are written as `completed_by`. `meta` comes back from the server as it went in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from burnish.hashing import canonical_json, text_hash
from burnish.label.interchange.kept import Read, Tool, kept_rows
from burnish.label.interchange.offsets import found_in, span_ends
from burnish.label.interchange.rows import Values, prompt_value
from burnish.records.answers import candidates_of, span_text, spans_answer, verdict_answer
from burnish.records.exports import (
    FIELD,
    is_label_studio,
    label_studio_conversation,
    objects,
)
from burnish.records.messages import UnfitError, text_of
from burnish.store.answers import newest_of_each
from burnish.store.labelled import Labelled
from burnish.tasks import Kind, Task
from burnish.types import Annotation, Conversation, Example

_PERSON = "label-studio:"
Result = Mapping[str, Any]


def _write(labelled: Labelled, task: Task) -> Iterator[dict[str, Any]]:
    example = labelled.example
    annotations = [_annotation(a, task, example) for a in newest_of_each(labelled.annotations)]
    if labelled.gold is not None:
        result = _results(labelled.gold.answer, task, example)
        annotations.append({"result": result, "was_cancelled": False, "ground_truth": True})
    yield {
        "data": _data(labelled, task),
        "meta": {FIELD: kept_rows(labelled, task)},
        "annotations": annotations,
        "predictions": [
            {"model_version": draft.model, "result": _draft_results(draft.text, task, example)}
            for draft in labelled.drafts
            # Of rankings the drafts are what is ranked: data.items.
            if task.kind != "rank"
        ],
    }


def _data(labelled: Labelled, task: Task) -> dict[str, Any]:
    conversation = labelled.example.conversation
    prompt = prompt_value(conversation)
    data: dict[str, Any] = {"prompt" if isinstance(prompt, str) else "messages": prompt}
    if task.kind == "spans":
        data = {"prompt": span_text(labelled.example)}
    if conversation.answer is not None:
        data["response"] = conversation.answer.content
    if task.kind == "rank":
        candidates = candidates_of(labelled.example, labelled.drafts)
        data["items"] = [{"id": str(n), "body": text} for n, text in enumerate(candidates)]
    return data


def _annotation(annotation: Annotation, task: Task, example: Example) -> dict[str, Any]:
    submitted = annotation.status == "submitted"
    # Left out, a server takes `ground_truth` for true.
    row: dict[str, Any] = {
        "result": _results(annotation.answer, task, example) if submitted else [],
        "was_cancelled": not submitted,
        "ground_truth": False,
        "created_at": annotation.created_at,
    }
    if annotation.seconds is not None:
        row["lead_time"] = annotation.seconds
    number = annotation.annotator.removeprefix(_PERSON)
    if number != annotation.annotator and number.isdecimal():
        row["completed_by"] = int(number)
    return row


def _draft_results(text: str, task: Task, example: Example) -> list[dict[str, Any]]:
    """A draft as its kind's results; one that is no answer of the kind as a text."""
    try:
        return _results(text, task, example)
    except (ValueError, TypeError, KeyError):
        return [_result(text, 0, "textarea", {"text": [text]})]


def _results(answer: str, task: Task, example: Example) -> list[dict[str, Any]]:
    match task.kind:
        case "write" | "edit":
            return [_result(answer, 0, "textarea", {"text": [answer]})]
        case "choose":
            return [_result(answer, 0, "choices", {"choices": [answer]})]
        case "choose_many":
            chosen = json.loads(answer)
            return [_result(answer, 0, "choices", {"choices": chosen})] if chosen else []
        case "rate":
            control = "rating" if task.scale[0] >= 1 else "number"
            return [_result(answer, 0, control, {control: int(answer)})]
        case "rank":
            order = [str(n) for place in json.loads(answer) for n in place]
            return [_result(answer, 0, "ranker", {"ranker": {"answer": order}}, to="items")]
        case "spans":
            text = span_text(example)
            return [
                _result(answer, n, "labels", _span_value(text, **span))
                for n, span in enumerate(json.loads(answer))
            ]
        case "dialogue":
            return [
                _result(answer, n, "chatmessage", {"chatmessage": turn}, to="messages")
                for n, turn in enumerate(json.loads(answer))
            ]
        case "accept":
            given = json.loads(answer)
            results = [_result(answer, 0, "choices", {"choices": [given["verdict"]]})]
            if "reason" in given:
                value = {"text": [given["reason"]]}
                results.append(_result(answer, 1, "textarea", value, name="reason"))
            return results


def _span_value(text: str, start: int, end: int, label: str) -> dict[str, Any]:
    return {"start": start, "end": end, "text": text[start:end], "labels": [label]}


def _result(
    answer: str,
    number: int,
    type: str,
    value: dict[str, Any],
    *,
    name: str = "answer",
    to: str = "prompt",
) -> dict[str, Any]:
    id_ = text_hash(f"{number} {answer}")[:10]
    return {"id": id_, "from_name": name, "to_name": to, "type": type, "value": value}


def _read(record: Values, task: Task) -> Read:
    shown = _Shown.of(record)
    for text in shown.candidates if task.kind == "rank" else ():
        yield {"record": "draft", "answer": text, "annotator": "label-studio"} | shown.row
    for prediction in objects(record, "predictions"):
        try:
            text = _answer_or_text(prediction, task, shown)
        except UnfitError as error:
            yield error
            continue
        model = str(prediction.get("model_version") or "label-studio")
        yield {"record": "draft", "answer": text, "annotator": model} | shown.row
    for annotation in objects(record, "annotations"):
        try:
            row = _said(annotation, task, shown) | shown.row
        except UnfitError as error:
            yield error
            continue
        # A gold answer we wrote is nobody's annotation, and names nobody.
        if not annotation.get("ground_truth") or "completed_by" in annotation:
            yield row
        if annotation.get("ground_truth"):
            yield {**row, "record": "gold"}


@dataclass(frozen=True, slots=True)
class _Shown:
    """What of a task its answers refer to."""

    prompt: Conversation
    ids: list[str]
    """Of the items to be ranked."""
    candidates: list[str]
    """Their texts."""

    @classmethod
    def of(cls, record: Values) -> _Shown:
        items = objects(record["data"], "items")
        texts = [item.get("body") or item.get("title") or item.get("html") for item in items]
        return cls(
            label_studio_conversation(record),
            [str(item.get("id")) for item in items],
            [text_of(text, "body") for text in texts],
        )

    @property
    def row(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "candidates": self.candidates}


def _said(annotation: Values, task: Task, shown: _Shown) -> dict[str, Any]:
    cancelled = bool(annotation.get("was_cancelled"))
    return {
        "answer": "" if cancelled else _answer(objects(annotation, "result"), task, shown),
        "status": "skipped" if cancelled else "submitted",
        "annotator": _person(annotation.get("completed_by")),
        "seconds": annotation.get("lead_time"),
        "created_at": annotation.get("created_at"),
    }


def _person(completed_by: Any) -> str | None:
    if isinstance(completed_by, Mapping):
        completed_by = completed_by.get("email") or completed_by.get("id")
    if completed_by is None:
        return None
    name = str(completed_by)
    return f"{_PERSON}{name}" if name.isdecimal() else name


def _answer_or_text(prediction: Values, task: Task, shown: _Shown) -> str:
    """A draft may be a text where the task's answers are none."""
    results = objects(prediction, "result")
    if task.kind == "rank":
        raise UnfitError("a model's ranking: drafts of this kind are what is ranked")
    try:
        return _answer(results, task, shown)
    except UnfitError:
        if [result.get("type") for result in results] != ["textarea"]:
            raise
        return _text(results)


def _answer(results: list[Result], task: Task, shown: _Shown) -> str:
    """The answer that the results of one annotation give to a task of this kind."""
    match task.kind:
        case "write" | "edit":
            return _text(_of_control(results, task, "textarea"))
        case "choose":
            return _choice(_of_control(results, task, "choices"))
        case "choose_many":
            chosen = _of_control(results, task, "choices", needed=False)
            return canonical_json([text_of(c, "choices") for r in chosen for c in _items(r)])
        case "rate":
            return _rating(_of_control(results, task, "rating", "number"))
        case "rank":
            return _ranking(_of_control(results, task, "ranker", "pairwise"), shown.ids)
        case "spans":
            marked = _of_control(results, task, "labels", needed=False)
            return _spans(marked, span_text(Example(shown.prompt, "")))
        case "dialogue":
            return _dialogue(_of_control(results, task, "chatmessage"))
        case "accept":
            verdict = _choice(_of_control(results, task, "choices"))
            reason = _text([result for result in results if result.get("type") == "textarea"])
            return verdict_answer(verdict, reason)


def _of_control(
    results: list[Result], task: Task, *types: str, needed: bool = True
) -> list[Result]:
    """The results of the one control that answers: of these types, by name where several are."""
    fitting = [result for result in results if result.get("type") in types]
    named = [result for result in fitting if result.get("from_name") in (task.name, "answer")]
    fitting = named or fitting
    names = sorted({str(result.get("from_name")) for result in fitting})
    if len(names) > 1:
        raise UnfitError(f"several controls might be the answer: {', '.join(names)}")
    if needed and not fitting:
        held = ", ".join(sorted({str(result.get("type")) for result in results})) or "nothing"
        raise UnfitError(f"no {' or '.join(types)}: the annotation holds {held}")
    return fitting


def _text(results: list[Result]) -> str:
    return "\n".join(text_of(text, "text") for result in results for text in _items(result))


def _choice(results: list[Result]) -> str:
    chosen = [choice for result in results for choice in _items(result)]
    if len(chosen) != 1:
        raise UnfitError(f"{len(chosen)} choices where there should be one")
    return text_of(chosen[0], "choices")


def _rating(results: list[Result]) -> str:
    value = _value(results[0])
    whole = isinstance(value, float) and value.is_integer()
    return text_of(int(value) if whole else value, "rating")


def _ranking(results: list[Result], ids: list[str]) -> str:
    value = _value(results[0])
    if value in ("left", "right"):
        return "[[0],[1]]" if value == "left" else "[[1],[0]]"
    places: list[list[Any]] = []
    if isinstance(value, Mapping) and len(value) > 1:
        # Buckets: only names that are numbers say which is better.
        if not all(str(name).isdecimal() for name in value):
            raise UnfitError(f"buckets whose order is unknown: {', '.join(map(str, value))}")
        places = [value[name] for name in sorted(value, key=int) if value[name]]
    else:
        order = next(iter(value.values())) if isinstance(value, Mapping) and value else value
        places = [[item] for item in order] if isinstance(order, list) else []
    try:
        return canonical_json([[ids.index(str(item)) for item in place] for place in places])
    except ValueError as error:
        raise UnfitError(f"a ranking of what is no item: {error}") from None


def _spans(results: list[Result], text: str) -> str:
    spans = []
    for result in results:
        value = result.get("value")
        value = value if isinstance(value, Mapping) else {}
        start, end = span_ends(value.get("start"), value.get("end"))
        if isinstance(marked := value.get("text"), str):
            start, end = found_in(text, start, end, marked)
        spans += [(start, end, text_of(label, "labels")) for label in _items(result)]
    return spans_answer(spans)


def _dialogue(results: list[Result]) -> str:
    turns = [_value(result) for result in results]
    if not all(isinstance(turn, Mapping) for turn in turns):
        raise UnfitError("a chat message that is no object")
    return canonical_json([{k: turn.get(k) for k in ("role", "content")} for turn in turns])


def _items(result: Result) -> list[Any]:
    value = _value(result)
    return value if isinstance(value, list) else [value]


def _value(result: Result) -> Any:
    """What one control holds: `value` has it under the control's type, or under the key here."""
    kind, value = str(result.get("type")), result.get("value")
    key = {"textarea": "text", "pairwise": "selected"}.get(kind, kind)
    return value.get(key) if isinstance(value, Mapping) else None


def _kept(record: Values) -> Any:
    meta = record.get("meta")
    return meta.get(FIELD) if isinstance(meta, Mapping) else None


LABEL_STUDIO = Tool(
    kinds=get_args(Kind),
    is_record=is_label_studio,
    objects=("data",),
    said=("annotations", "predictions"),
    write=_write,
    read=_read,
    kept=_kept,
    prompt=label_studio_conversation,
    as_list=True,
)
