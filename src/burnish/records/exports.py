"""Files of labels, read for the texts they are about: each the user's turn, waiting for an answer.

Shapes: Label Studio's "Label Studio JSON format of annotated tasks", Argilla v2's
`Record.to_dict`, Prodigy's `db-out`, doccano's JSONL export, and our own plain rows. What people
and models said there is in neither the conversation nor the metadata: annotators are shown both,
and must not see each other's answers. `label.interchange` reads the same files for who said what;
it shares the parts below that have no underscore.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from burnish.records.messages import UnfitError, openai_conversation, text_of
from burnish.types import Conversation, Message

FIELD = "burnish"
"""Where `label.interchange` keeps in a tool's record what the tool has no place for."""
LABEL_COLUMNS = (
    "record",
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
    "draft_id",
    "edit_distance",
)
"""The columns of our own plain rows."""

_DOCCANO_SAID = ("label", "entities", "relations", "cats", "Comments", "annotator", FIELD)
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
    """The one text of `data`."""
    return prompt_in(row["data"], "data")


def label_studio_own(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a task what it had before anybody saw it."""
    return _only(row, ("id", "data", "meta"))


def argilla_conversation(row: Mapping[str, Any]) -> Conversation:
    """The one text of `fields`."""
    return prompt_in(row["fields"], "fields")


def argilla_own(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a record what it had before anybody saw it."""
    return _only(row, ("id", "fields", "metadata"))


def prodigy_own(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """`meta` and `options` alone: what somebody typed stands under any name."""
    return _only(row, ("meta", "options"))


def doccano_own(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """All but the labels: doccano writes the metadata as columns beside them."""
    return {name: value for name, value in row.items() if name not in _DOCCANO_SAID}


def line_conversation(row: Mapping[str, Any]) -> Conversation:
    """What a line of Prodigy or doccano shows: its text, or the turns that we wrote beside it."""
    if "messages" in row:
        return openai_conversation(row["messages"])
    return Conversation((Message("user", text_of(row.get("text"), "text")),))


def label_row_conversation(row: Mapping[str, Any]) -> Conversation:
    """The prompt of a plain row: a text, or turns, which CSV holds as JSON."""
    prompt = row["prompt"]
    if isinstance(prompt, str) and prompt.startswith('[{"'):
        # A person's text may happen to begin like a list.
        with contextlib.suppress(ValueError):
            prompt = json.loads(prompt)
    if isinstance(prompt, list):
        return openai_conversation(prompt)
    return Conversation((Message("user", text_of(prompt, "prompt")),))


def label_row_own(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The columns that are none of ours."""
    return {name: value for name, value in row.items() if name not in LABEL_COLUMNS}


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


def _only(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """These, without what we kept in them."""
    own = {name: row[name] for name in names if name in row}
    return {
        name: {k: v for k, v in value.items() if k != FIELD}
        if isinstance(value, Mapping)
        else value
        for name, value in own.items()
    }
