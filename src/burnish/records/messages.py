"""Turns written in OpenAI's way (role, content) or ShareGPT's (from, value), into messages."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from burnish.types import Conversation, Message, Role, Span, ToolCall

_OPENAI_ROLES: Mapping[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_SHAREGPT_ROLES: Mapping[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


class UnfitError(Exception):
    """A row does not fit its format; the text is the reason the row is refused with."""


def openai_conversation(turns: Any, tools: Any = None) -> Conversation:
    """A list of {role, content}, with tool calls and loss weights per turn and span where given."""
    messages = tuple(_openai_message(turn) for turn in _turns(turns, "messages"))
    return Conversation(messages, tools_text(tools))


def openai_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Messages as OpenAI's API takes them: the way back, without loss weights."""
    turns = []
    for message in messages:
        turn: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            turn["tool_calls"] = [
                {
                    "id": call.id or f"call_{n}",
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for n, call in enumerate(message.tool_calls)
            ]
        if message.tool_call_id is not None:
            turn["tool_call_id"] = message.tool_call_id
        turns.append(turn)
    return turns


def sharegpt_conversation(turns: Any, system: Any = None, tools: Any = None) -> Conversation:
    """A list of {from, value}; `system` goes first where it is given beside the list."""
    messages = [_sharegpt_message(turn) for turn in _turns(turns, "conversations")]
    if system:
        messages.insert(0, Message("system", text_of(system, "system")))
    return Conversation(tuple(messages), tools_text(tools))


def text_of(value: Any, name: str) -> str:
    """`value` where it is a text; a number or truth value as JSON writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if value is None:
        raise UnfitError(f"{name!r} is missing")
    raise UnfitError(f"{name!r} is a {type(value).__name__}, not a text")


def from_json_text(value: Any) -> Any:
    """The value itself, or what it spells: in CSV and Parquet, lists come as JSON in text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError as error:
            raise UnfitError(f"broken JSON inside a column: {error}") from None
    return value


def tools_text(tools: Any) -> str | None:
    """The tools on offer as chat templates take them: a JSON list of {type, function}."""
    tools = from_json_text(tools)
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise UnfitError("'tools' is not a list of objects")
    # ShareGPT lists the bare functions.
    wrapped = [t if "function" in t else {"type": "function", "function": t} for t in tools]
    return json.dumps(wrapped, ensure_ascii=False)


def _turns(value: Any, name: str) -> list[Mapping[str, Any]]:
    value = from_json_text(value)
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise UnfitError(f"{name!r} is not a list of turns")
    if not value:
        raise UnfitError(f"{name!r} is an empty list")
    return value


def _openai_message(turn: Mapping[str, Any]) -> Message:
    role = _role(turn.get("role"), _OPENAI_ROLES)
    tool_calls = turn.get("tool_calls") or []
    if not isinstance(tool_calls, list):
        raise UnfitError("'tool_calls' is not a list")
    calls = [_call(call) for call in tool_calls]
    if turn.get("function_call"):
        calls.append(_call(turn["function_call"]))
    content = turn.get("content")
    if content is None and calls:
        content = ""
    call_id = turn.get("tool_call_id")
    text = _content(content)
    return Message(
        role,
        text,
        tuple(calls),
        _weight(turn, role),
        str(call_id) if call_id is not None else None,
        _spans(turn.get("spans"), text),
    )


def _sharegpt_message(turn: Mapping[str, Any]) -> Message:
    name = turn.get("from")
    role = _role(name, _SHAREGPT_ROLES)
    value = text_of(turn.get("value"), "value")
    if name != "function_call":
        spans = _spans(turn.get("spans"), value)
        return Message(role, value, weight=_weight(turn, role), spans=spans)
    calls = from_json_text(value)
    calls = calls if isinstance(calls, list) else [calls]
    return Message(role, "", tuple(map(_call, calls)), _weight(turn, role))


def _role(name: Any, known: Mapping[str, Role]) -> Role:
    if isinstance(name, str) and name in known:
        return known[name]
    if name is None:
        raise UnfitError("a turn without a role")
    raise UnfitError(f"unknown role: {name!r} is none of {', '.join(known)}")


def _content(content: Any) -> str:
    """A text, or a list of text parts ({type, text} or {type, value}) put together."""
    if not isinstance(content, list):
        return text_of(content, "content")
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise UnfitError(f"only text can be trained on: a content part has type {kind!r}")
        text = part.get("text")
        texts.append(text_of(part.get("value") if text is None else text, "text"))
    return "".join(texts)


def _call(call: Any) -> ToolCall:
    """{id, function: {name, arguments}}, or the inner object alone."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UnfitError("a tool call without a name")
    arguments = function.get("arguments")
    if arguments is None:
        arguments = {}
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise UnfitError("a tool call whose arguments are no JSON object")
    elif isinstance(arguments, Mapping):
        arguments = json.dumps(arguments, ensure_ascii=False)
    else:
        raise UnfitError("a tool call whose arguments are no JSON object")
    call_id = call.get("id")
    return ToolCall(function["name"], arguments, str(call_id) if call_id is not None else None)


def _weight(turn: Mapping[str, Any], role: Role) -> float | None:
    """The turn's loss weight; None where it is what the role has anyway."""
    given = [turn[key] for key in ("weight", "loss_weight", "loss") if turn.get(key) is not None]
    if not given:
        return None
    weight = loss_weight(given[0])
    return None if weight == Message(role, "").loss_weight else weight


def _spans(value: Any, content: str) -> tuple[Span, ...]:
    """[{start, end, weight}] in characters of `content`, put in order."""
    if not value:
        return ()
    if not isinstance(value, list) or not all(isinstance(span, Mapping) for span in value):
        raise UnfitError("'spans' is not a list of {start, end, weight}")
    spans = sorted((_span(span, content) for span in value), key=lambda span: span.start)
    for left, right in pairwise(spans):
        if right.start < left.end:
            raise UnfitError(
                f"two spans overlap: {left.start} to {left.end} and {right.start} to {right.end}"
            )
    return tuple(spans)


def _span(span: Mapping[str, Any], content: str) -> Span:
    start, end = span.get("start"), span.get("end")
    if type(start) is not int or type(end) is not int:
        raise UnfitError(f"a span whose start or end is no whole number: {dict(span)!r}")
    if not 0 <= start < end <= len(content):
        raise UnfitError(
            f"a span outside its content: {start} to {end} of {len(content)} characters"
        )
    return Span(start, end, loss_weight(span.get("weight")))


def loss_weight(value: Any) -> float:
    """A weight as a number; true and false are 1 and 0."""
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value) or value < 0:
        raise UnfitError(f"a loss weight must be a number of 0 or more: {value!r}")
    return float(value)
