"""Token ids back into words: the assistant's message in what a model wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence

from burnish.chat.template import ChatTemplate
from burnish.types import Message, ToolCall

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_decoder = json.JSONDecoder()


def parse(ids: Sequence[int], template: ChatTemplate) -> Message:
    """The assistant's message in generated ids, read up to the first stop token.

    Tool calls are read in the Hermes form, which Qwen2.5, Qwen3 and the templates shipped write:
    `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, one or more blocks that end the
    answer and begin it or a line; the line breaks before the first belong to nothing. Arguments are
    JSON text as `json.dumps` spaces it, calls have no id. All else stays text: other forms (Llama
    3.1's bare JSON, a `<|python_tag|>`), a block whose JSON is broken or is no such object, a block
    with text behind it. An empty thought is left out where the template writes one before each
    answer.
    """
    text = answer_text(ids, template)
    start = text.find(_OPEN)
    while start >= 0:
        if start == 0 or text[start - 1] == "\n":
            calls = _read_calls(text[start:])
            if calls:
                return Message("assistant", text[:start].rstrip("\n"), calls)
        start = text.find(_OPEN, start + 1)
    return Message("assistant", text)


def answer_text(ids: Sequence[int], template: ChatTemplate) -> str:
    """The text of the answer that `parse` reads, its tool calls as written."""
    end = next((n for n, i in enumerate(ids) if i in template.stop_ids), len(ids))
    text = template.decode(ids[:end])
    empty_thought = template.empty_thought
    return empty_thought.sub("", text, count=1) if empty_thought else text


def _read_calls(text: str) -> tuple[ToolCall, ...]:
    """The calls in a text that is nothing but blocks; none where it is not."""
    calls = []
    while text:
        body = text.removeprefix(_OPEN).lstrip()
        try:
            value, end = _decoder.raw_decode(body)
        except (ValueError, RecursionError):
            return ()
        rest = body[end:].lstrip()
        if not (text.startswith(_OPEN) and rest.startswith(_CLOSE) and _is_call(value)):
            return ()
        arguments = json.dumps(value["arguments"], ensure_ascii=False)
        calls.append(ToolCall(value["name"], arguments))
        text = rest.removeprefix(_CLOSE).lstrip()
    return tuple(calls)


def _is_call(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"name", "arguments"}
        and isinstance(value["name"], str)
        and isinstance(value["arguments"], dict)
    )
