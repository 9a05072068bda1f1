"""What is wrong with a body, a query or a form, in words for who sent it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError

from burnish.web.api.models import EXAMPLE_ID, KEY_VALUE, NO_NUL

_PATTERNS = {
    NO_NUL: "holds a NUL character: take it out",
    EXAMPLE_ID: "is no example's id: write its 32 hexadecimal digits",
    KEY_VALUE: "is no pair: write KEY=VALUE",
}


def is_no_json(error: RequestValidationError) -> bool:
    """Whether the body could not even be read as JSON."""
    return any(fault["type"] == "json_invalid" for fault in error.errors())


def faults_told(error: RequestValidationError) -> str:
    """Every fault on a line: where it is, what is wrong, what would be right."""
    faults: Iterable[Mapping[str, Any]] = error.errors()
    message = "\n".join(dict.fromkeys(map(_told, faults)))
    # A key may hold half a surrogate pair, which no UTF-8 can.
    return message.encode(errors="backslashreplace").decode()


def _told(fault: Mapping[str, Any]) -> str:
    path, context = fault["loc"][1:], fault.get("ctx", {})
    match fault["type"]:
        case "json_invalid":
            return f"the body is no JSON: {context['error']} at character {path[0]}"
        case "model_attributes_type" | "missing" if not path:
            return "the body: send a JSON object, with Content-Type: application/json"
        case "string_type" if {"answer", "answers"}.intersection(path):
            what = 'an answer is sent as text, JSON too: "4", "[\\"price\\"]"'
        case "string_pattern_mismatch":
            what = _PATTERNS.get(context["pattern"], fault["msg"])
        case _:
            what = fault["msg"][:1].lower() + fault["msg"][1:]
    return f"{'.'.join(map(str, path))}: {what}"
