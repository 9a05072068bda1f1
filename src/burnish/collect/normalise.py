"""The little that is changed in a text on its way in, so that equal texts are equal bytes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from burnish.types import Example

# Unicode category Cc without \n and \t. PostgreSQL cannot store NUL, and a tokenizer spends three
# tokens on a stray control character that nobody sees.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LINE_END = re.compile(r"\r\n?")


def normalise_text(text: str) -> str:
    """NFC; CRLF and CR as LF; control characters other than \\n and \\t taken out.

    NFC, not NFKC: the two spellings of "é" become one, but "x²" stays "x²". NFKC would write "x2",
    and an answer must stay as its author wrote it. Everything else, white space included, is kept.
    Source: Unicode Standard Annex #15.
    """
    if text.isascii() and text.isprintable():
        return text
    if _CONTROL.search(text):
        text = _CONTROL.sub("", _LINE_END.sub("\n", text))
    return unicodedata.normalize("NFC", text)


def normalise(example: Example) -> Example:
    """The example with its messages' contents and its metadata's texts normalised."""
    conversation = example.conversation
    messages = conversation.messages
    if any(normalise_text(m.content) != m.content for m in messages):
        messages = tuple(m.rewrite(normalise_text) for m in messages)
        conversation = replace(conversation, messages=messages)
    metadata = {key: _normalise_value(value) for key, value in example.metadata.items()}
    if conversation is example.conversation and metadata == example.metadata:
        return example
    return replace(example, conversation=conversation, metadata=metadata)


def _normalise_value(value: Any) -> Any:
    if isinstance(value, str):
        return normalise_text(value)
    if isinstance(value, Mapping):
        return {key: _normalise_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_normalise_value(item) for item in value]
    return value
