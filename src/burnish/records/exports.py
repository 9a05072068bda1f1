"""What labelling tools write: the text as the user's turn and, where exactly one, the answer.

Shapes: Label Studio's "Label Studio JSON format of annotated tasks", Argilla v2's
`Record.to_dict`, Prodigy's `db-out`, doccano's JSONL export. Answers that are no text (spans,
boxes, rankings) and items several people answered differently come without an answer; the export's
own fields are kept in the metadata, so nothing is lost. `label.interchange` reads the same files
for who said what; it shares the parts below that have no underscore.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from burnish.records.messages import UnfitError, openai_conversation, text_of
from burnish.types import Conversation, Message

_TEXT_FIELDS = ("text", "prompt", "question", "instruction", "input", "messages")


def is_label_studio(row: Mapping[str, Any]) -> bool:
    """A task: `data`, and what was said about it."""
    return isinstance(row.get("data"), Mapping) and not {"annotations", "predictions"}.isdisjoint(
        row
    )


def is_argilla(row: Mapping[str, Any]) -> bool:
    """A record: `fields`, and responses by question."""
    return isinstance(row.get("fields"), Mapping) and isinstance(row.get("responses"), Mapping)


def is_prodigy(row: Mapping[str, Any]) -> bool:
    """A task: a text and the hash of it."""
    return isinstance(row.get("text"), str) and not {"_input_hash", "_task_hash"}.isdisjoint(row)


def is_doccano(row: Mapping[str, Any]) -> bool:
    """A document: a text and its labels, or its entities with relations or categories."""
    entities = isinstance(row.get("entities"), list) and {"relations", "cats"} & row.keys()
    labelled = isinstance(row.get("label"), list) or bool(entities)
    return labelled and isinstance(row.get("text"), str)


def label_studio_conversation(row: Mapping[str, Any]) -> Conversation:
    """The one text of `data`; cancelled annotations do not count, ground truth counts alone."""
    kept = [a for a in objects(row, "annotations") if not a.get("was_cancelled")]
    truth = [a for a in kept if a.get("ground_truth")]
    return _answered(prompt_in(row["data"], "data"), map(_label_studio_answer, truth or kept))


def label_studio_value(result: Mapping[str, Any]) -> Any:
    """What one control holds: `value` has it under the control's type, or under the key here."""
    kind, value = str(result.get("type")), result.get("value")
    key = {"textarea": "text", "pairwise": "selected"}.get(kind, kind)
    return value.get(key) if isinstance(value, Mapping) else None


def _label_studio_answer(annotation: Mapping[str, Any]) -> str | None:
    results = objects(annotation, "result")
    if len(results) != 1 or results[0].get("type") not in ("textarea", "choices", "rating"):
        return None
    given = label_studio_value(results[0])
    if given is None:
        return None
    parts = [text_of(part, "value") for part in (given if isinstance(given, list) else [given])]
    return ("\n" if results[0]["type"] == "textarea" else ", ").join(parts)


def argilla_conversation(row: Mapping[str, Any]) -> Conversation:
    """The one text of `fields`; drafts and discarded responses do not count."""
    final = [
        (question, response.get("value"))
        for question in row["responses"]
        for response in objects(row["responses"], question)
        if response.get("status") not in ("draft", "discarded")
    ]
    one_question = len({question for question, _ in final}) == 1
    return _answered(prompt_in(row["fields"], "fields"), (v for _, v in final if one_question))


def prodigy_conversation(row: Mapping[str, Any]) -> Conversation:
    """An accepted label or choice is the answer; a rejected or ignored one is none."""
    prompt = Conversation((Message("user", row["text"]),))
    return _answered(prompt, prodigy_chosen(row) if row.get("answer") == "accept" else ())


def prodigy_chosen(row: Mapping[str, Any]) -> list[Any]:
    """The texts of the options chosen, or the one label that was asked about."""
    options = {str(o.get("id")): o.get("text", o.get("id")) for o in objects(row, "options")}
    if "label" in row and not options:
        return [row["label"]]
    accepted = row.get("accept")
    return [options.get(str(i), i) for i in (accepted if isinstance(accepted, list) else ())]


def doccano_conversation(row: Mapping[str, Any]) -> Conversation:
    """The one label that is a text; spans are none."""
    return _answered(Conversation((Message("user", row["text"]),)), row.get("label", ()))


def objects(row: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The list of objects under `name`; none where it is missing."""
    value = row.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise UnfitError(f"{name!r} is not a list of objects")
    return value


def prompt_in(fields: Mapping[str, Any], name: str) -> Conversation:
    """The one text or list of turns among the fields, waiting for an answer."""
    usual = [key for key in _TEXT_FIELDS if key in fields]
    texts = usual or [key for key, value in fields.items() if isinstance(value, str)]
    if not texts or (len(texts) > 1 and not usual):
        raise UnfitError(f"cannot tell which of {name}'s fields is the text: {', '.join(fields)}")
    value = fields[texts[0]]
    if isinstance(value, list):
        return openai_conversation(value)
    return Conversation((Message("user", text_of(value, texts[0])),))


def _answered(prompt: Conversation, answers: Iterable[Any]) -> Conversation:
    """With the answer, if everybody gave the same one and it is a text or a number."""
    given = list(answers)
    scalar = all(isinstance(answer, (str, int, float)) for answer in given)
    if not given or not scalar or len(set(given)) > 1:
        return prompt
    return prompt.answered(text_of(given[0], "answer"))
