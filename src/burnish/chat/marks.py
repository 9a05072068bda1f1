"""Marks put into what people wrote before a template renders it, and found again in the rendering.

`CUT` goes inside the name of a special token that stands in a text, `<CUT|im_end|>`, and is a place
where the rendering is tokenised apart: the name becomes the letters it is made of, and only the
template writes special tokens. `EDGE` goes to both ends of a span of a message's content.

They are halves of Unicode surrogate pairs: a template treats them as any letter, and no text that
can be written in UTF-8 holds one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

CUT = "\udc00"
EDGE = "\udc01"
_SURROGATE = re.compile("[\ud800-\udfff]")


class SpecialNames:
    """The names of a tokenizer's special tokens, to be found in texts."""

    def __init__(self, names: Iterable[str], *, can_cut: bool) -> None:
        """`can_cut`: whether texts tokenised apart stand side by side without a space."""
        self._can_cut = can_cut
        # A name of one character cannot be cut; it is that character's own token anyway.
        self._names = frozenset(name for name in names if len(name) > 1)
        self._lengths = sorted({len(name) for name in self._names})
        # Gemma has over 6,000 names, too many for one pattern, but few ways to begin.
        first, second = (
            "".join(re.escape(c) for c in sorted({name[n] for name in self._names})) for n in (0, 1)
        )
        self._begin = re.compile(f"[{first}](?=[{second}])" if first else "(?!)")

    def mark(self, text: str, edges: Iterable[int] = ()) -> str:
        """`text` with a `CUT` in each special token's name and an `EDGE` at each of `edges`.

        Raises:
            ValueError: the text holds half a surrogate pair itself, or a name that cannot be cut.
        """
        if not text.isascii() and _SURROGATE.search(text):
            raise ValueError("half a Unicode surrogate pair")
        marks = [(edge, EDGE) for edge in edges]
        for found in self._begin.finditer(text):
            start = found.start()
            # Names may overlap, so every occurrence gets its cut, after its first character.
            if any(text[start : start + length] in self._names for length in self._lengths):
                if not self._can_cut:
                    raise ValueError(
                        f"the name of a special token in {text[start : start + 20]!r}, which this "
                        "tokenizer cannot write in letters"
                    )
                marks.append((start + 1, CUT))
        if not marks:
            return text
        parts, position = [], 0
        for place, mark in sorted(marks):
            parts += [text[position:place], mark]
            position = place
        return "".join(parts) + text[position:]

    def mark_all(self, value: Any) -> Any:
        """`mark` for every text in plain JSON, the keys of objects too."""
        if isinstance(value, str):
            return self.mark(value)
        if isinstance(value, list):
            return [self.mark_all(item) for item in value]
        if isinstance(value, dict):
            return {self.mark(key): self.mark_all(item) for key, item in value.items()}
        return value


def take_edges(marked: str) -> tuple[str, list[int]]:
    """A text without its edges, and where in it they stood."""
    parts = marked.split(EDGE)
    places, position = [], 0
    for part in parts[:-1]:
        position += len(part)
        places.append(position)
    return "".join(parts), places
