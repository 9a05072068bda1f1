"""What a page shows of an example to label or review it, and of an answer to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from burnish.hashing import canonical_json
from burnish.records.answers import candidates_of, is_answered, span_text
from burnish.store.drafts import Draft
from burnish.tasks import Kind, Task
from burnish.types import Annotation, Example

# The script that makes a kind's form work, under static/kinds.
_MODULES: dict[Kind, str] = {"edit": "write", "choose_many": "choose"}


@dataclass(frozen=True, slots=True)
class Sheet:
    """An example as a person answers it."""

    example: Example
    messages: tuple[dict[str, Any], ...]
    """The turns to read; what the form itself shows is left out."""
    candidates: tuple[str, ...]
    text: str
    """What spans are marked in."""
    draft: str
    """What `write` and `edit` begin with; empty where there is none."""
    own: str
    """The record's own answer, shown beside the empty box of `write`; empty where there is none.

    `edit` begins with it. Who is to write the ideal answer should not have to clear a box first, or
    send by mistake what was there."""
    draft_id: str
    """Empty for an answer that came with the record."""
    draft_model: str
    answer: str
    """What the form is filled in with; empty leaves it as it is."""
    taken_back: bool
    """Whether this person gave an answer before and has withdrawn it."""


def sheet_of(
    task: Task, example: Example, drafts: Sequence[Draft], previous: Annotation | None = None
) -> Sheet:
    """Lay out an example for its task; `previous` is the answer a person has withdrawn."""
    writes = task.kind in ("write", "edit")
    draft = drafts[-1] if writes and drafts else None
    own = example.conversation.answer.content if writes and example.conversation.answer else ""
    beside = own if task.kind == "write" and draft is None else ""
    return Sheet(
        example=example,
        messages=_messages(task, example),
        candidates=candidates_of(example, drafts) if task.kind == "rank" else (),
        text=span_text(example) if task.kind == "spans" else "",
        draft=draft.text if draft else "" if beside else own,
        own=beside,
        draft_id=draft.id if draft else "",
        draft_model=draft.model if draft else "",
        answer=previous.answer if previous else _filled_in(task, example, drafts),
        taken_back=previous is not None,
    )


def module_of(task: Task) -> str:
    """The name of the script behind the task's form."""
    return _MODULES.get(task.kind, task.kind)


def _messages(task: Task, example: Example) -> tuple[dict[str, Any], ...]:
    conversation = example.conversation
    if task.kind == "dialogue":
        return ()
    # A record's answer is the draft, or is judged by the new one.
    if task.kind in ("write", "edit", "rank") or is_answered(example, task):
        conversation = conversation.prompt
    messages = conversation.to_json()["messages"]
    if task.kind == "spans":
        users = [n for n, message in enumerate(messages) if message["role"] == "user"]
        messages = [m for n, m in enumerate(messages) if n not in users[-1:]]
    return tuple(messages)


def _filled_in(task: Task, example: Example, drafts: Sequence[Draft]) -> str:
    conversation = example.conversation
    if task.kind == "dialogue":
        turns = [{"role": m.role, "content": m.content} for m in conversation.messages]
        if conversation.answer is None:
            turns.append({"role": "assistant", "content": drafts[-1].text if drafts else ""})
        return canonical_json(turns)
    if task.kind in ("write", "edit") or conversation.answer is None:
        return ""
    return conversation.answer.content if is_answered(example, task) else ""


def answer_view(answer: str, task: Task, sheet: Sheet) -> dict[str, Any]:
    """An answer's parts, for the template; as plain text where it is of another kind.

    An imported answer, or one from before the task's kind was changed, may be.
    """
    try:
        return {"kind": task.kind, **_parts(answer, task, sheet)}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return {"kind": "write", "text": answer}


def _parts(answer: str, task: Task, sheet: Sheet) -> dict[str, Any]:
    match task.kind:
        case "choose_many":
            return {"choices": list(json.loads(answer))}
        case "rank":
            return {
                "places": [[sheet.candidates[n] for n in group] for group in json.loads(answer)]
            }
        case "spans":
            return {"pieces": _span_pieces(json.loads(answer), task, sheet.text)}
        case "dialogue":
            return {
                "turns": [{"role": t["role"], "content": t["content"]} for t in json.loads(answer)]
            }
        case "accept":
            return {"reason": json.loads(answer).get("reason")}
        case _:
            return {"text": answer}


def _span_pieces(spans: list[dict[str, Any]], task: Task, text: str) -> list[dict[str, Any]]:
    """The text cut at the spans' ends; where spans overlap, the later one's label is shown."""
    edges = sorted({0, len(text)} | {span[end] for span in spans for end in ("start", "end")})
    pieces = []
    for start, end in pairwise(edges):
        over = [span for span in spans if span["start"] <= start and end <= span["end"]]
        label = over[-1]["label"] if over else None
        hue = task.choices.index(label) % 8 if label in task.choices else 0
        pieces.append({"text": text[start:end], "label": label, "hue": hue})
    return pieces
