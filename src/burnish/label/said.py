"""Everything said on a task whose answers are few, as numbers in arrays."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from burnish.label.agreement.coded import NOTHING, Coded, Codes, Numbers, numbered, ranked
from burnish.label.agreement.estimate import Ints, Rows
from burnish.label.agreement.similarity import similarity
from burnish.progress import progress_bar
from burnish.store import Connection
from burnish.store.progress import read_said
from burnish.tasks import Task


@dataclass(frozen=True, slots=True)
class Said:
    """One entry for each annotation, in order of example, annotator and arrival."""

    answers: Coded
    """Of skips, flags and withdrawn answers the value is `NOTHING`."""
    version: Numbers
    """Places in `versions`."""
    resolved: Numbers
    """The value of the example's resolved answer; `NOTHING` where there is none."""
    gold: Numbers
    """Of its gold answer."""
    versions: Sequence[str]

    def newest(self, among: Ints) -> Ints:
        """Of these entries, each annotator's last on an example, where it is an answer."""
        example, annotator = self.answers.example[among], self.answers.annotator[among]
        is_last = np.ones(len(among), dtype=np.bool_)
        is_last[:-1] = (np.diff(example) != 0) | (np.diff(annotator) != 0)
        last = among[is_last]
        return last[self.answers.value[last] != NOTHING]


def everything_said(connection: Connection, task: Task) -> Said:
    """Read every annotation of examples that are not excluded; 3 s and 150 MB for a million."""
    names, versions, codes = numbered(), numbered(), Codes(task)
    numbers = (names, versions, codes, codes, codes)
    (high, low), (annotator, *columns) = _read(connection, task, numbers)
    annotators, place = ranked(names)
    annotator = place[annotator]
    order = np.lexsort((annotator, low, high))
    is_next = (np.diff(high[order], prepend=0) != 0) | (np.diff(low[order], prepend=0) != 0)
    values, place_of_value = ranked(codes.numbers)
    version, *of_values = (column[order] for column in columns)
    value, resolved, gold = (place_of_value[column] for column in of_values)
    answers = Coded(np.cumsum(is_next, dtype=np.int32), annotator[order], value, annotators, values)
    return Said(answers, version, resolved, gold, list(versions))


def _read(
    connection: Connection, task: Task, numbers: Sequence[Mapping[Any, int]]
) -> tuple[Rows, Rows]:
    """Every annotation's example id as two numbers, (2, n), and the other columns' numbers."""
    ids = [np.zeros((0, 2), dtype=">u8")]
    columns = [np.zeros((len(numbers), 0), dtype=np.int32)]
    with progress_bar("agreement", unit="annotations", total=None) as bar:
        for page in read_said(connection, task.name):
            examples, *others = zip(*page, strict=True)
            # An id is 32 hex digits: two numbers that sort as it does.
            ids.append(np.frombuffer(bytes.fromhex("".join(examples)), ids[0].dtype).reshape(-1, 2))
            coded = (
                np.fromiter(map(number.__getitem__, column), np.int32, len(page))
                for number, column in zip(numbers, others, strict=True)
            )
            columns.append(np.stack(list(coded)))
            bar.update(len(page))
    return np.concatenate(ids).T.astype(np.uint64), np.concatenate(columns, axis=1)


def likeness(task: Task, answers: Coded, right: Numbers) -> Mapping[str, Counter[float]]:
    """How often each annotator's answers are how like the right ones, where both can be read."""
    readable = (answers.value >= 0) & (right >= 0)
    answers, right = answers.only(readable), right[readable]
    shape = (len(answers.annotators),) + (len(answers.values),) * 2
    cell = np.ravel_multi_index((answers.annotator, answers.value, right), shape)
    _, first, times = np.unique(cell, return_index=True, return_counts=True)
    found: defaultdict[str, Counter[float]] = defaultdict(Counter)
    for n in np.argsort(first):
        at = first[n]
        given, wanted = answers.values[answers.value[at]], answers.values[right[at]]
        who = answers.annotators[answers.annotator[at]]
        found[who][similarity(given, wanted, task)] += int(times[n])
    return found
