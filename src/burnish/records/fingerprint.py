"""Fingerprints: hashes that do not see case, white space or Unicode's look-alike forms.

`Conversation.hash` tells whether two conversations are the same bytes; a fingerprint tells whether
a reader would call them the same. Duplicates, splits and leakage all ask the second question, so
they share this module.
"""

from __future__ import annotations

import hashlib
import unicodedata

from burnish.types import Conversation, Message


def normalised(text: str) -> str:
    """`text` in NFKC, case-folded, with every run of white space as one blank."""
    # Most text is ASCII, where NFKC does nothing and lower() is the same as casefold().
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split())


def prompt_fingerprint(conversation: Conversation) -> str:
    """32 hex digits for what comes before the answer.

    A conversation without a prompt, such as a plain text, is its own: its whole content is taken,
    or all plain texts would count as one prompt.
    """
    prompt = conversation.prompt
    if has_prompt(conversation):
        return _fingerprint(prompt.messages, prompt.tools)
    return conversation_fingerprint(conversation)


def conversation_fingerprint(conversation: Conversation) -> str:
    """32 hex digits for the whole conversation, the answer included."""
    return _fingerprint(conversation.messages, conversation.tools)


def answer_fingerprint(answer: Message) -> str:
    """32 hex digits for one turn."""
    return _fingerprint((answer,), None)


def has_prompt(conversation: Conversation) -> bool:
    """Whether anything at all is said before the answer."""
    return any(m.content.strip() or m.tool_calls for m in conversation.prompt.messages)


def _fingerprint(messages: tuple[Message, ...], tools: str | None) -> str:
    # Unit and record separators cannot occur in normalised text: str.split() eats them.
    parts = [normalised(tools or "")]
    for message in messages:
        calls = (f"{call.name} {call.arguments}" for call in message.tool_calls)
        content = "\x1f".join(map(normalised, (message.content, *calls)))
        parts.append(f"{message.role}\x1f{content}")
    data = "\x1e".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()[:32]
