"""Marked spans: how many of them the other annotator marked too.

F1 and not κ: what nobody marked cannot be counted, and as it grows κ comes to F1 (G. Hripcsak and
A. Rothschild, "Agreement, the F-measure, and reliability in information retrieval", Journal of the
American Medical Informatics Association 12(3), 2005).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class LabelledSpan(NamedTuple):
    """Characters of a text and their label."""

    start: int
    end: int
    """The character after the last."""
    label: str


Spans = Collection[LabelledSpan]


class Overlap(NamedTuple):
    """Of two people's spans together, how many the other has too."""

    matched: int
    spans: int

    @property
    def f1(self) -> float:
        """2 · matched pairs / all spans; 1 where nobody marked any."""
        return self.matched / self.spans if self.spans else 1.0


def exact_overlap(first: Spans, second: Spans) -> Overlap:
    """Spans match that have the same ends and label."""
    return Overlap(2 * len(set(first) & set(second)), len(first) + len(second))


def partial_overlap(first: Spans, second: Spans) -> Overlap:
    """Spans match that have the same label and a character in common; one may match several."""
    matched = sum(_meets(span, second) for span in first) + sum(_meets(s, first) for s in second)
    return Overlap(matched, len(first) + len(second))


def _meets(span: LabelledSpan, others: Spans) -> bool:
    return any(
        span.label == other.label and span.start < other.end and other.start < span.end
        for other in others
    )
