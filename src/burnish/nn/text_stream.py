"""Generated ids as text, piece by piece: never half a character, never past a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# What a decoder writes for bytes that are no whole character (yet).
_REPLACEMENT = "\ufffd"


class TextStream:
    """Decodes one answer as its ids come in.

    Text that later ids could still change is held back: an unfinished character, and the beginning
    of a stop string. Only the ids since the last settled piece are decoded again, so an answer of T
    tokens costs O(T).
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        """`stop` are texts that end the answer and are no part of it."""
        self.stopped = False
        """Whether a stop string has been met; nothing is to be pushed after it."""
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._ids: list[int] = []
        """The ids of the last settled piece and those after it. The settled ones are context:
        SentencePiece drops the space before the first token of what it decodes."""
        self._settled = 0
        """How many of `_ids` are settled."""
        self._held = ""
        """Whole characters that may be the beginning of a stop string."""

    def push(self, token: int) -> str:
        """Take an id and return the text that is certain now; often empty."""
        self._ids.append(token)
        text = self._unsettled()
        if text.endswith(_REPLACEMENT):
            return ""
        self._ids, self._settled = self._ids[self._settled :], len(self._ids) - self._settled
        return self._release(text)

    def finish(self) -> str:
        """The text still held back when no more ids come."""
        text = self._release(self._unsettled())
        if self.stopped:
            return text
        self._ids, self._settled = [], 0
        text, self._held = text + self._held, ""
        return text

    def _unsettled(self) -> str:
        whole = self._decode(self._ids)
        return whole[len(self._decode(self._ids[: self._settled])) :]

    def _decode(self, ids: list[int]) -> str:
        return str(
            self._tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def _release(self, text: str) -> str:
        """Let go of what cannot belong to a stop string, and look for one."""
        text = self._held + text
        found = [(at + len(s), at) for s in self._stop if (at := text.find(s)) >= 0]
        if found:
            # The one complete first, as if text came letter by letter: tokens must not matter.
            _, at = min(found)
            self.stopped, self._held = True, ""
            return text[:at]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
