"""Label errors: the examples whose answer in force is probably wrong, the likeliest first.

    choose, rate, accept   the probability that another value is right, from how reliable each
                           annotator is (`label.reliability`), and from a model's probabilities if
                           there are any
    the other kinds        how far the answer is from what annotators said, the reliable ones
                           counting more; reliable is who is near the others elsewhere

Only answers in force are ranked: resolved, or what everybody said. Where annotators differ and
nothing is resolved a reviewer looks anyway; gold answers are known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import combinations, islice
from typing import Any

import numpy as np

from burnish.label.agreement.sample import Sample
from burnish.label.agreement.similarity import (
    comparable,
    is_categorical,
    possible_values,
    similarity,
)
from burnish.label.reliability import Floats, Ratings, Reliability, dawid_skene
from burnish.progress import progress
from burnish.records.answers import span_text
from burnish.store import Store
from burnish.store.labelled import examples_by_id
from burnish.store.labelling import pages
from burnish.store.progress import Rated, read_ratings
from burnish.tasks import Task
from burnish.types import Example

# Reliability is estimated on a sample, and every example scored with it. Of the sample so many
# probabilities, one for each example and value, are held several times over.
_SAMPLE = 10_000
_PROBABILITIES = 2_000_000
_PAGE = 2000
# Of single answers nobody can say how reliable they are.
_UNKNOWN_RELIABILITY = 0.9
_FEWEST_ANNOTATORS = 3


@dataclass(frozen=True, slots=True)
class LabelError:
    """An answer in force that is probably wrong."""

    example_id: str
    answer: str
    score: float
    """0 to 1: of choices, ratings and verdicts the probability that it is wrong; of other kinds the
    mean distance from the annotators' answers."""
    suggestion: str | None
    """What is likelier; None where nothing is."""
    text: str = ""
    """What was answered: the last user turn."""


Probabilities = Mapping[str, Mapping[str, float]]
"""A model's, by example id and answer; those it says nothing of may be missing."""


def label_errors(
    store: Store, task: Task, *, probabilities: Probabilities | None = None, limit: int = 100
) -> list[LabelError]:
    """The `limit` answers in force that are likeliest to be wrong, the likeliest first.

    Time: two passes over the annotations, 25 s for a million.
    """
    size = _SAMPLE
    if is_categorical(task):
        size = min(size, _PROBABILITIES // len(possible_values(task)))
    with store.reading() as connection:
        sample: Sample[Rated] = Sample(size)
        rows = read_ratings(connection, task.name)
        for one in progress(rows, "reliability", unit="examples"):
            if len(one.answers) > 1 or one.gold is not None:
                sample.add(one)
        rows = read_ratings(connection, task.name)
        rated = progress((r for r in rows if r.gold is None), "label errors", unit="examples")
        if is_categorical(task):
            judge = _Judge(task, sample.shuffled(), probabilities or {})
            found = judge.scored(rated)
        else:
            found = _by_distance(task, sample.shuffled(), rated)
        likeliest = nlargest(limit, found, key=lambda error: error.score)
        ids = [error.example_id for error in likeliest]
        examples: dict[str, Example] = {}
        for page in pages(ids):
            examples |= examples_by_id(connection, page)
    return [replace(error, text=span_text(examples[error.example_id])) for error in likeliest]


def _in_force(rated: Rated, task: Task) -> str | None:
    """The resolved answer, or the one that everybody gave."""
    if rated.resolved is not None:
        return rated.resolved
    different = {comparable(answer, task): answer for answer in rated.answers.values()}
    return next(iter(different.values())) if len(different) == 1 else None


class _Judge:
    """Says how probable each value is, from what annotators and a model say."""

    def __init__(self, task: Task, sample: Sequence[Rated], probabilities: Probabilities) -> None:
        self._task = task
        self._probabilities = probabilities
        self._values = possible_values(task)
        self._places = {value: n for n, value in enumerate(self._values)}
        self._annotators = _with_tables(sample, len(self._values))
        if sample:
            self._reliability = dawid_skene(self._ratings(sample))
        else:
            self._reliability = _unknown_reliability(len(self._values))

    def scored(self, rated: Iterable[Rated]) -> Iterator[LabelError]:
        """Every example with an answer in force."""
        rated = iter(rated)
        while page := list(islice(rated, _PAGE)):
            right = self._reliability.probabilities(self._ratings(page), self._prior(page))
            for one, probability in zip(page, right, strict=True):
                answer = _in_force(one, self._task)
                place = self._place(answer)
                if answer is None or place is None:
                    continue
                best = int(probability.argmax())
                suggestion = None if best == place else str(self._values[best])
                score = float(1 - probability[place])
                yield LabelError(one.example_id, answer, score, suggestion)

    def _ratings(self, page: Sequence[Rated]) -> Ratings:
        known = [self._place(one.gold) for one in page]
        said = [
            (n, self._annotators.get(annotator, 0), place)
            for n, one in enumerate(page)
            for annotator, answer in one.answers.items()
            if (place := self._place(answer)) is not None
        ]
        example, annotator, value = np.array(said, dtype=np.int64).reshape(-1, 3).T
        return Ratings(
            example,
            annotator,
            value,
            known=np.array([-1 if place is None else place for place in known]),
            annotators=max(self._annotators.values(), default=0) + 1,
            values=len(self._values),
        )

    def _place(self, answer: str | None) -> int | None:
        """The answer's number among the task's values; None where it is none of them."""
        value = None if answer is None else comparable(answer, self._task)
        return self._places.get(value)

    def _prior(self, page: Sequence[Rated]) -> Floats | None:
        """What the model says; how common a value is where it says nothing."""
        if not self._probabilities:
            return None
        prior = np.tile(self._reliability.prior, (len(page), 1))
        for row, one in zip(prior, page, strict=True):
            said = self._probabilities.get(one.example_id)
            if said is not None:
                # No model is certain enough to outweigh any number of people.
                row[:] = [max(said.get(str(value), 0.0), 1e-6) for value in self._values]
        return np.asarray(prior / prior.sum(1, keepdims=True))


def _with_tables(sample: Sequence[Rated], values: int) -> dict[str, int]:
    """Annotators who get an error table of their own, numbered from 1; 0 is all others'.

    Who has answered less often than there are values has too few answers for a table; and of two
    people who disagree nobody can tell who is right, unless some right values are known.
    """
    answers: defaultdict[str, int] = defaultdict(int)
    for one in sample:
        for annotator in one.answers:
            answers[annotator] += 1
    if len(answers) < _FEWEST_ANNOTATORS and all(one.gold is None for one in sample):
        return {}
    often = sorted(name for name, count in answers.items() if count >= values)
    return {name: n for n, name in enumerate(often, 1)}


def _unknown_reliability(values: int) -> Reliability:
    others = (1 - _UNKNOWN_RELIABILITY) / max(values - 1, 1)
    table = np.where(np.eye(values, dtype=bool), _UNKNOWN_RELIABILITY, others)
    return Reliability(np.full(values, 1 / values), table[None])


def _by_distance(
    task: Task, sample: Sequence[Rated], rated: Iterable[Rated]
) -> Iterator[LabelError]:
    reliability = _nearness(task, sample)
    for one in rated:
        answer = _in_force(one, task)
        wanted = None if answer is None else comparable(answer, task)
        if answer is None or wanted is None:
            continue
        said = {
            name: (value, reliability.get(name, 0.5))
            for name, text in one.answers.items()
            if (value := comparable(text, task)) is not None
        }

        apart = {name: _apart(value, said.values(), task) for name, (value, _) in said.items()}
        central = min(apart, key=lambda name: apart[name], default=None)
        score = _apart(wanted, said.values(), task)
        nearer = central is not None and apart[central] < score
        suggestion = one.answers[central] if central is not None and nearer else None
        yield LabelError(one.example_id, answer, score, suggestion)


def _apart(value: Any, said: Collection[tuple[Any, float]], task: Task) -> float:
    """The mean distance of a value from what was said, given as (value, reliability)."""
    total = sum(weight for _, weight in said)
    apart = sum(weight * (1 - similarity(value, other, task)) for other, weight in said)
    return apart / total if total else 0.0


def _nearness(task: Task, sample: Sequence[Rated]) -> dict[str, float]:
    """How alike each annotator's answers are to the others', 0 to 1; two answers at ½ are added."""
    near: defaultdict[str, list[float]] = defaultdict(lambda: [0.5, 0.5])
    for one in sample:
        values = {name: comparable(text, task) for name, text in one.answers.items()}
        readable = [(name, value) for name, value in values.items() if value is not None]
        for (first, a), (second, b) in combinations(readable, 2):
            alike = similarity(a, b, task)
            near[first].append(alike)
            near[second].append(alike)
    return {name: float(np.mean(found)) for name, found in near.items()}
