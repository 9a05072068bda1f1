"""One prompt and one answer in columns of their own, and plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from burnish.records.messages import UnfitError, from_json_text, openai_conversation, text_of
from burnish.types import Conversation, Message

PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("text", "label"),
)
"""Columns taken as prompt and completion, the first pair whose columns are there."""


def pair_columns(row: Mapping[str, Any]) -> tuple[str, str | None]:
    """The columns that hold prompt and completion; a prompt alone waits for its answer."""
    for prompt, completion in PAIRS:
        if prompt in row and completion in row:
            return prompt, completion
    if "prompt" in row:
        return "prompt", None
    raise UnfitError("no columns for prompt and completion")


def pair_conversation(row: Mapping[str, Any]) -> Conversation:
    """Plain strings are rendered raw; lists of messages are a chat."""
    prompt_column, completion_column = pair_columns(row)
    prompt = row[prompt_column]
    completion = row[completion_column] if completion_column else None
    if _is_list(prompt) or _is_list(completion):
        return _chat(prompt, completion, completion_column or "completion")
    messages = [Message("user", text_of(prompt, prompt_column))]
    if completion is not None:
        messages.append(Message("assistant", text_of(completion, completion_column or "")))
    return Conversation(tuple(messages), raw=True)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _chat(prompt: Any, completion: Any, completion_column: str) -> Conversation:
    if not _is_list(prompt):
        raise UnfitError("the completion is a list of messages and the prompt is not")
    messages = openai_conversation(prompt).messages
    if _is_list(completion):
        messages += openai_conversation(completion).messages
    elif completion is not None:
        messages += (Message("assistant", text_of(completion, completion_column)),)
    return Conversation(messages)


def alpaca_conversation(row: Mapping[str, Any]) -> Conversation:
    """instruction, input and output, with Dolly's names for the last two; a chat.

    The user's turn is the instruction and, after an empty line, the input where there is one.
    Source: Stanford Alpaca's fields; `system` and `history` as LLaMA-Factory has them.
    """
    messages = []
    if row.get("system"):
        messages.append(Message("system", text_of(row["system"], "system")))
    history = from_json_text(row.get("history")) or []
    if not _is_list(history) or not all(_is_list(pair) and len(pair) == 2 for pair in history):
        raise UnfitError("'history' is not a list of [user, assistant] pairs")
    for exchange in history:
        messages.append(Message("user", text_of(exchange[0], "history")))
        messages.append(Message("assistant", text_of(exchange[1], "history")))
    parts = [text_of(row.get("instruction"), "instruction")]
    detail = row.get("input", row.get("context"))
    if detail:
        parts.append(text_of(detail, "input"))
    messages.append(Message("user", "\n\n".join(parts)))
    answer = row.get("output", row.get("response"))
    if answer is not None:
        messages.append(Message("assistant", text_of(answer, "output")))
    return Conversation(tuple(messages))


def text_conversation(row: Mapping[str, Any]) -> Conversation:
    """A plain text: one answer to no prompt, so that every token is supervised."""
    return Conversation((Message("assistant", text_of(row.get("text"), "text")),), raw=True)


def waiting_conversation(row: Mapping[str, Any]) -> Conversation:
    """A user's turn that waits for an answer, from `prompt` or `text`."""
    column = "prompt" if "prompt" in row else "text"
    if _is_list(row.get(column)):
        return openai_conversation(row[column])
    return Conversation((Message("user", text_of(row.get(column), column)),))
