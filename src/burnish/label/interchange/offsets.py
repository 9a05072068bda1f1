"""Where a span begins and ends, in the units that different tools count.

Burnish, Label Studio (since 1.4, label-studio-frontend#308) and Prodigy count Unicode code points.
doccano (doccano#2290) and Argilla's page (argilla#5729) count as their browsers do: UTF-16 code
units, so that a character beyond U+FFFF, such as most emoji, counts two.
"""

from __future__ import annotations

from typing import Any

from burnish.records.messages import UnfitError


def span_ends(start: Any, end: Any) -> tuple[int, int]:
    """Where a span begins and ends, in whatever the tool counts.

    Raises:
        UnfitError: one of them is no whole number from 0 up.
    """
    if not all(type(edge) is int and edge >= 0 for edge in (start, end)):
        raise UnfitError("a span whose start or end is no whole number from 0 up")
    return start, end


def to_utf16(text: str, offset: int) -> int:
    """How many UTF-16 code units the first `offset` characters have."""
    return offset + sum(character > "\uffff" for character in text[:offset])


def from_utf16(text: str, units: int) -> int:
    """How many characters the first so many UTF-16 code units spell.

    Raises:
        UnfitError: the offset is behind the text, or between the halves of one character.
    """
    if text.isascii() and 0 <= units <= len(text):
        return units
    counted = 0
    for offset, character in enumerate(text):
        if counted == units:
            return offset
        counted += 2 if character > "\uffff" else 1
    if counted != units:
        raise UnfitError(f"a span outside the text: {units} of {counted} UTF-16 code units")
    return len(text)


def found_in(text: str, start: int, end: int, marked: str) -> tuple[int, int]:
    """Start and end in characters of what was marked, whichever way the tool had counted.

    Older Label Studio counted UTF-16 code units, and a browser may have counted a line's end of two
    characters as one; which it was shows where `marked` is found.

    Raises:
        UnfitError: it is found in none of these ways.
    """
    if text[start:end] == marked:
        return start, end
    if "\r\n" in text:
        at = _after_line_ends(text)
        if end < len(at) and text[at[start] : at[end]].replace("\r\n", "\n") == marked:
            return at[start], at[end]
    try:
        start, end = from_utf16(text, start), from_utf16(text, end)
    except UnfitError:
        start, end = 0, 0
    if text[start:end] != marked:
        raise UnfitError(f"a span's text is not where it says: {marked[:80]!r}")
    return start, end


def _after_line_ends(text: str) -> list[int]:
    """The place of each character once CR LF counts as one, and the text's end."""
    return [n for n in range(len(text) + 1) if text[n - 1 : n + 1] != "\r\n" or n == 0]
