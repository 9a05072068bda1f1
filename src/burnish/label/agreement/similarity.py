"""What is compared of an answer of each kind, and how alike two of them are, 0 to 1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from burnish.label.agreement.distances import jaccard_distance
from burnish.label.agreement.ranks import kendall_tau
from burnish.label.agreement.spans import LabelledSpan, exact_overlap
from burnish.label.agreement.text import edit_distance
from burnish.records.answers import compared
from burnish.tasks import Task

_LONGEST_SCALE = 1000


def is_categorical(task: Task) -> bool:
    """Whether every answer is one of a few: choices, verdicts, ratings on a scale of up to 1000."""
    low, high = task.scale
    is_short = task.kind == "rate" and high - low < _LONGEST_SCALE
    return task.kind in ("choose", "accept") or is_short


def possible_values(task: Task) -> Sequence[Any]:
    """All that an answer of a categorical task can be."""
    match task.kind:
        case "choose":
            return task.choices
        case "accept":
            return ("accept", "reject")
        case _:
            low, high = task.scale
            return range(low, high + 1)


def comparable(answer: str, task: Task) -> Any:
    """The answer as a value that can be compared and hashed.

    None where it is no answer of the task's kind, as when the kind was changed while work went on.
    """
    try:
        match task.kind:
            case "choose_many":
                return frozenset(json.loads(answer))
            case "rate":
                return int(answer)
            case "rank":
                return tuple(tuple(sorted(place)) for place in json.loads(answer))
            case "spans":
                return tuple(LabelledSpan(**span) for span in json.loads(answer))
            case "dialogue":
                return "\n".join(
                    f"{turn['role']}: {turn['content']}" for turn in json.loads(answer)
                )
            case _:
                return compared(answer, task)
    except (ValueError, TypeError, KeyError):
        return None


def similarity(first: Any, second: Any, task: Task) -> float:
    """How alike two comparable answers are: 1 where equal.

    choose, accept            1 or 0
    choose_many               |A ∩ B| / |A ∪ B|
    rate                      1 - the difference over the scale's length
    rank                      (1 + τ-b) / 2: without ties, the share of pairs in the same order
    spans                     F1 of the exact spans
    write, edit, dialogue     1 - the normalised edit distance
    """
    if first == second:
        return 1.0
    match task.kind:
        case "choose" | "accept":
            return 0.0
        case "choose_many":
            return 1 - jaccard_distance(first, second)
        case "rate":
            low, high = task.scale
            return max(0.0, 1 - abs(first - second) / (high - low))
        case "rank":
            tau = kendall_tau(first, second)
            return 0.5 if tau is None else (1 + tau) / 2
        case "spans":
            return exact_overlap(first, second).f1
        case _:
            return 1 - edit_distance(first, second)
