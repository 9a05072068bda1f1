"""How answers settle an example without a person: the rules `unanimous` and `majority`, by kind.

`majority` always means more than half, of what can be counted in an answer of the kind:

    write, edit, choose, dialogue, accept   the whole answer (of `accept` the verdict)
    choose_many, spans                      each choice or span by itself
    rate                                    the rating that more than half give or exceed, and more
                                            than half give or stay below: the majority grade of
                                            Balinski and Laraki (PNAS 104:8720, 2007)
    rank                                    each pair of candidates (Condorcet 1785); where the
                                            pairs fit into one order, it is Kemeny's (1959), the
                                            one that contradicts the annotators the least

A tie stays open, as does a ranking whose pairs go round in a circle: a person decides.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from burnish.hashing import canonical_json
from burnish.records.answers import compared
from burnish.tasks import Task


def decide(answers: Sequence[str], task: Task) -> str | None:
    """The answer that `task.rule` gives to canonical answers, or None where it gives none."""
    if not answers:
        return None
    counts = Counter(compared(answer, task) for answer in answers)
    same, count = counts.most_common(1)[0]
    if count == len(answers) or (task.rule == "majority" and 2 * count > len(answers)):
        return _joined([answer for answer in answers if compared(answer, task) == same], task)
    if task.rule == "unanimous":
        return None
    match task.kind:
        case "choose_many" | "spans":
            return _majority_items(answers, task)
        case "rate":
            return _majority_grade(answers)
        case "rank":
            return _majority_ranking(answers)
        case _:
            return None


def _joined(agreeing: Sequence[str], task: Task) -> str:
    """One answer for those that agree; of a rejection with everybody's reasons."""
    if task.kind != "accept" or "reason" not in (first := json.loads(agreeing[0])):
        return agreeing[0].strip()
    reasons = dict.fromkeys(json.loads(answer)["reason"] for answer in agreeing)
    return canonical_json({**first, "reason": "; ".join(reasons)})


def _majority_items(answers: Sequence[str], task: Task) -> str | None:
    """What more than half chose or marked; nothing at all only where more than half said so."""
    lists: list[list[Any]] = [json.loads(answer) for answer in answers]
    counts = Counter(canonical_json(item) for items in lists for item in items)
    kept = [json.loads(item) for item, count in counts.items() if 2 * count > len(answers)]
    # More than half gave an empty list where that was the answer, and were equal.
    if not kept or any(2 * count == len(answers) for count in counts.values()):
        return None
    if task.kind == "spans":
        kept.sort(key=lambda span: (span["start"], span["end"], span["label"]))
        return canonical_json(kept)
    # A choice that has been taken out of burnish.toml since comes last.
    order = {choice: n for n, choice in enumerate(task.choices)}
    return canonical_json(sorted(kept, key=lambda choice: order.get(choice, len(order))))


def _majority_grade(answers: Sequence[str]) -> str | None:
    """The median; none where an even number of ratings has two different middle ones."""
    ratings = sorted(map(int, answers))
    low, high = ratings[(len(ratings) - 1) // 2], ratings[len(ratings) // 2]
    return str(low) if low == high else None


def _majority_ranking(answers: Sequence[str]) -> str | None:
    """The order in which each pair stands as more than half of those who ranked both have it."""
    rankings = [
        {number: place for place, tied in enumerate(json.loads(answer)) for number in tied}
        for answer in answers
    ]
    numbers = sorted(set().union(*rankings))
    stands: dict[tuple[int, int], int] = {}
    for a, b in combinations(numbers, 2):
        votes = Counter(_sign(r[a] - r[b]) for r in rankings if a in r and b in r)
        stands[a, b], count = votes.most_common(1)[0] if votes else (0, 0)
        if 2 * count <= votes.total():
            return None
    # In an order, who stands higher has more below them; a circle cannot be told so.
    below = Counter(a if sign < 0 else b for (a, b), sign in stands.items() if sign)
    if any(_sign(below[b] - below[a]) != sign for (a, b), sign in stands.items()):
        return None
    places: dict[int, list[int]] = {}
    for number in numbers:
        places.setdefault(-below[number], []).append(number)
    return canonical_json([places[place] for place in sorted(places)])


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
