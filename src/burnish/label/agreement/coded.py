"""Answers that are one of a few values, as numbers in arrays: a million are counted in a second."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from burnish.label.agreement.similarity import comparable, possible_values
from burnish.tasks import Task

Answers: TypeAlias = Mapping[str, Any]
"""One example's answers, by annotator: texts, or whatever can be compared."""

Numbers: TypeAlias = NDArray[np.int32]
"""Of four bytes: a million annotations have six of them each."""

NOTHING, UNREADABLE = -1, -2
# Rejections have a reason each; of different texts so many are remembered.
_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class Coded:
    """One entry for each answer, in order of example and annotator."""

    example: Numbers
    annotator: Numbers
    """Places in `annotators`."""
    value: Numbers
    """Places in `values`."""
    annotators: Sequence[str]
    """In order of names."""
    values: Sequence[Any]
    """All that the task allows and all that was answered, in order."""

    def only(self, which: NDArray[Any]) -> Coded:
        """Some of the entries: a mask, or their places in order."""
        example, annotator, value = self.example[which], self.annotator[which], self.value[which]
        return replace(self, example=example, annotator=annotator, value=value)

    @property
    def readable(self) -> Coded:
        """Only answers of the task's kind."""
        return self.only(self.value >= 0)

    @property
    def is_shared(self) -> NDArray[np.bool_]:
        """Whether the entry's example has two or more."""
        shared = np.zeros(len(self.example), dtype=np.bool_)
        same = np.diff(self.example) == 0
        shared[1:] |= same
        shared[:-1] |= same
        return shared


class Codes(dict[str | None, int]):
    """A number for each text of an answer, one for all of equal value.

    `NOTHING` for None, `UNREADABLE` for what is no answer of the task's kind.
    """

    def __init__(self, task: Task) -> None:
        super().__init__({None: NOTHING})
        self._task = task
        self._values = numbered(possible_values(task))

    def __missing__(self, answer: str) -> int:
        """The number of a text that is not remembered."""
        value = comparable(answer, self._task)
        number = UNREADABLE if value is None else self._values[value]
        if len(self) < _REMEMBERED:
            self[answer] = number
        return number

    @property
    def numbers(self) -> Mapping[Any, int]:
        """The number of each value."""
        return self._values


def numbered(keys: Iterable[Any] = ()) -> defaultdict[Any, int]:
    """A number for each different key, from 0 in the order they are asked for."""
    numbers: defaultdict[Any, int] = defaultdict(count().__next__)
    for key in keys:
        numbers[key]
    return numbers


def ranked(numbers: Mapping[Any, int]) -> tuple[list[Any], Numbers]:
    """The keys in order, and each number's new one; -1 and -2 stay what they are."""
    keys = sorted(numbers)
    place = np.arange(len(keys) + 2, dtype=np.int32)
    place[[numbers[key] for key in keys]] = np.arange(len(keys))
    place[[NOTHING, UNREADABLE]] = NOTHING, UNREADABLE
    return keys, place


def coded(task: Task, examples: Iterable[Answers]) -> Coded:
    """The answers as numbers, those of another kind left out."""
    names, codes = numbered(), Codes(task)
    entries = [
        (n, names[annotator], codes[answer])
        for n, answers in enumerate(examples)
        for annotator, answer in answers.items()
    ]
    example, annotator, value = np.array(entries, dtype=np.int32).reshape(-1, 3).T
    annotators, place = ranked(names)
    values, place_of_value = ranked(codes.numbers)
    annotator, value = place[annotator], place_of_value[value]
    order = np.lexsort((annotator, example))
    return Coded(example, annotator, value, annotators, values).only(order).readable
