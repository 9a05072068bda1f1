"""A JSON list read element by element: in memory is a block of the file, not the whole of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from burnish.errors import InputError

_BLANK = " \t\r\n"
_BLOCK = 1 << 16
_DECODER = json.JSONDecoder()


def json_list(lines: Iterator[tuple[int, str]], where: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number, element) of the list that `lines` (number, text) spell out.

    Raises:
        InputError: broken JSON, with the line of the fault.
    """
    text = _Text(lines, where)
    text.take("[")
    if text.next_character() == "]":
        text.take("]")
    else:
        while True:
            text.next_character()
            yield text.line, text.element()
            if text.next_character() == "]":
                text.take("]")
                break
            text.take(",")
    if text.next_character():
        raise text.fault("something follows the end of the list")


class _Text:
    """The part of the file that is in memory, and the place in it."""

    def __init__(self, lines: Iterator[tuple[int, str]], where: str) -> None:
        self._lines, self._where = lines, where
        self._buffer, self._at = "", 0
        self.line = 1

    def next_character(self) -> str:
        """Skip white space and return the character that follows; empty at the end."""
        while True:
            while self._at < len(self._buffer):
                character = self._buffer[self._at]
                if character not in _BLANK:
                    return character
                self._advance(self._at + 1)
            if not self._read(_BLOCK):
                return ""

    def take(self, expected: str) -> None:
        """Step over one character."""
        found = self.next_character()
        if found != expected:
            raise self.fault(f"{expected!r} expected" + ("" if found else ", but the file ends"))
        self._advance(self._at + 1)

    def element(self) -> Any:
        """Parse the value that starts here."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                # Not whole yet, or broken: only the rest of the file tells. Reading as much again
                # as there is keeps the work linear.
                if self._read(max(_BLOCK, len(self._buffer) - self._at)):
                    continue
                fault_line = self.line + self._buffer.count("\n", self._at, error.pos)
                raise self.fault(error.msg, fault_line) from None
            except (ValueError, RecursionError) as error:
                raise self.fault(str(error)) from None
            self._advance(end)
            return value

    def fault(self, what: str, line: int | None = None) -> InputError:
        """The error that names the place."""
        return InputError(
            f"broken JSON: {what}",
            where=f"{self._where}:{line or self.line}",
            do="mend that line, or make the file again if it was cut off",
        )

    def _advance(self, to: int) -> None:
        self.line += self._buffer.count("\n", self._at, to)
        self._at = to

    def _read(self, characters: int) -> bool:
        """Drop what is behind and read at least this many characters; False at the end."""
        parts, size = [self._buffer[self._at :]], 0
        for _, line in self._lines:
            parts.append(line)
            size += len(line)
            if size >= characters:
                break
        self._buffer, self._at = "".join(parts), 0
        return size > 0
