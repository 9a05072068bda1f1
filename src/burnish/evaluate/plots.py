"""Plots as inline SVG that fit any width, follow light and dark, and are read out as text.

Horizontal places are percentages and nothing has a viewBox, so on a phone the plot gets narrower
and its letters do not get smaller. Colours and strokes are in report.css; no meaning hangs on
colour alone: marks differ in shape, and each row says its figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

Kind = Literal["base", "candidate", "better", "worse", "unshown"]

_ROW_TOP = 24  # pixels from the top of a row to its first mark: the row's label stands there
_MARK = 18  # pixels from mark to mark
_ROW_GAP = 12
_AXIS = 26
_EDGE = 3.0  # percent left free at either side, for half a mark and half a tick's label


@dataclass(frozen=True, slots=True)
class Mark:
    """A mean and its interval."""

    kind: Kind
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a plot: label, figures in words, and one mark per model."""

    label: str
    note: str
    marks: tuple[Mark, ...]


def interval_plot(
    title: str, rows: Sequence[Row], ends: tuple[float, float], tick_text: Callable[[float], str]
) -> Markup:
    """One row per set of items; a mark and whiskers per interval; an axis from ends[0] to ends[1].

    Where 0 lies inside the axis it is drawn as a strong line: no difference.
    """
    ticks = _ticks(*ends)
    left, right = min(ticks[0], ends[0]), max(ticks[-1], ends[1])

    def place(value: float) -> str:
        share = (value - left) / (right - left)
        return f"{_EDGE + share * (100 - 2 * _EDGE):.2f}%"

    height = sum(_height(row) for row in rows)
    parts = [_grid(ticks, place, height, tick_text, strong=0.0 if left < 0 < right else None)]
    top = 0
    for row in rows:
        parts.append(_label(row, top))
        for n, mark in enumerate(row.marks):
            parts.append(_mark(mark, place, top + _ROW_TOP + n * _MARK + _MARK // 2))
        top += _height(row)
    words = "; ".join(f"{row.label}: {row.note}" for row in rows)
    return _svg(title, words, height + _AXIS, parts)


def share_bar(title: str, shares: Sequence[tuple[str, str, int]]) -> Markup:
    """One bar cut into (class, label, count), in order; parts of count 0 are left out."""
    total = sum(count for _, _, count in shares)
    parts, start = [], 0.0
    for kind, _, count in shares:
        width = 100 * count / total
        if count:
            parts.append(
                Markup('<rect class="share {}" x="{}%" y="0" width="{}%" height="28"/>').format(
                    kind, f"{start:.3f}", f"{width:.3f}"
                )
            )
        if width >= 8:
            parts.append(
                Markup('<text class="share-text {}" x="{}%" y="19">{}</text>').format(
                    kind, f"{start + width / 2:.3f}", count
                )
            )
        start += width
    words = "; ".join(f"{label}: {count}" for _, label, count in shares)
    return _svg(title, words, 28, parts)


def _height(row: Row) -> int:
    return _ROW_TOP + _MARK * len(row.marks) + _ROW_GAP


def _svg(title: str, words: str, height: int, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="plot" width="100%" height="{}" role="img" aria-label="{}. {}">{}</svg>'
    ).format(height, title, words, Markup("\n").join(parts))


def _label(row: Row, top: int) -> Markup:
    return Markup(
        '<text class="row-label" x="0" y="{0}">{1}</text>'
        '<text class="row-note" x="100%" y="{0}">{2}</text>'
    ).format(top + 17, row.label, row.note)


def _mark(mark: Mark, place: Callable[[float], str], y: int) -> Markup:
    x = place(mark.mean)
    # A base is hollow, a worse candidate square: told apart in black and white too.
    if mark.kind == "worse":
        shape = Markup(
            '<svg x="{}" y="{}" overflow="visible">'
            '<rect x="-6" y="-6" width="12" height="12"/></svg>'
        ).format(x, y)
    else:
        shape = Markup('<circle cx="{}" cy="{}" r="6"/>').format(x, y)
    return Markup('<g class="mark {0}"><line x1="{1}" x2="{2}" y1="{3}" y2="{3}"/>{4}</g>').format(
        mark.kind, place(mark.low), place(mark.high), y, shape
    )


def _grid(
    ticks: Sequence[float],
    place: Callable[[float], str],
    height: int,
    tick_text: Callable[[float], str],
    strong: float | None,
) -> Markup:
    lines = []
    for tick in ticks:
        kind = "zero" if tick == strong else "tick"
        lines.append(
            Markup(
                '<line class="{0}" x1="{1}" x2="{1}" y1="0" y2="{2}"/>'
                '<text class="tick-text" x="{1}" y="{3}">{4}</text>'
            ).format(kind, place(tick), height, height + 18, tick_text(tick))
        )
    return Markup("\n").join(lines)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers over [low, high], about five, the ends covered."""
    step = _round_step((high - low) / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [n * step for n in range(first, last + 1)]


def _round_step(step: float) -> float:
    """The smallest of 1, 2, 2.5, 5, 10 times a power of ten that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step * (1 - 1e-9))
