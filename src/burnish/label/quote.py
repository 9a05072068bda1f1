"""What the rest of a task will take: hours and money, from what was measured, with an interval.

    answers left × seconds per answer  +  disputes left × seconds per dispute

A skip or a flag costs time and gives no answer, so seconds per answer are all seconds measured over
all answers given. The interval is a bootstrap: people are drawn with replacement, since others may
do the rest; of each their measured seconds are; and what single answers add by chance comes on top.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from burnish.errors import InputError
from burnish.label.agreement.estimate import RESAMPLES, Floats, interval, ratio
from burnish.label.status import TIMED, Counts, LabelStatus, read_counts, status_of
from burnish.store import Connection, Store
from burnish.store.progress import count_decided, newest_decision_times
from burnish.tasks import Task
from burnish.types import AnnotationStatus

FEWEST_ANSWERS = 20
"""With fewer timed answers there is no quote: an interval from them would mean nothing."""

_FEWEST_PEOPLE = 3
_FEWEST_DECISIONS = 10
# Who goes to lunch over an example has not worked on it: longer times count as this many medians.
_PAUSE = 10


@dataclass(frozen=True, slots=True)
class Amount:
    """An expected value and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Speed:
    """How quick one annotator is."""

    annotator: str
    answers: int
    """Timed ones among the newest."""
    seconds_per_answer: float
    """With the time their skips and flags took."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What the rest of a task will take."""

    task: str
    answers_left: int
    disputes_left: float
    """Those that wait, and those expected among the examples still to be answered."""
    timed_answers: int
    """What `seconds_per_answer` rests on."""
    skip_share: float | None
    """Of the timed annotations, the share that gave no answer: skips and flags (0 to 1)."""
    seconds_per_answer: Amount | None
    seconds_per_dispute: Amount | None
    hours: Amount | None
    """Of people's time, annotators and reviewers together; None where too little was measured."""
    cost: Amount | None
    """`hours` at the price; None without a price."""
    annotators: Sequence[Speed]
    notes: Sequence[str]
    """What to know before relying on it, one sentence each."""


@dataclass(frozen=True, slots=True)
class _Left:
    """What is left to do, in numbers."""

    examples: int
    """That still want answers."""
    answers: int
    """They want."""
    full: int
    """Examples that want none any more."""
    waiting: int
    """Disputes that wait for a reviewer."""
    disputed: float
    """Of the full ones, how many were disputed, and half a one more (Jeffreys' prior). Where one
    person answers only a flag makes a dispute, and none is foretold before the first."""
    calm: float
    """Of the full ones, how many were not, and half a one more."""

    @property
    def disputes(self) -> float:
        """Those that wait, and those to be expected."""
        return self.waiting + self.examples * self.disputed / (self.disputed + self.calm)


class _Work(NamedTuple):
    """One annotator's timed annotations."""

    seconds: Floats
    """Of each, (n,)."""
    answered: Floats
    """1 where it gave an answer, else 0, (n,)."""


def quote(store: Store, task: Task, price_per_hour: float | None = None) -> Quote:
    """Hours, and at a price per hour money, that the rest of the task will take.

    Raises:
        InputError: the price is below 0 or no number.
    """
    with store.reading() as connection:
        return _quote(connection, task, read_counts(connection, task), price_per_hour)


def status_and_quote(
    store: Store, task: Task, price_per_hour: float | None = None
) -> tuple[LabelStatus, Quote]:
    """Both from one reading of the store.

    Raises:
        InputError: the price is below 0 or no number.
    """
    with store.reading() as connection:
        counts = read_counts(connection, task)
        found = _quote(connection, task, counts, price_per_hour)
        return status_of(connection, task, counts), found


def _quote(
    connection: Connection, task: Task, counts: Counts, price_per_hour: float | None
) -> Quote:
    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise InputError(f"a price per hour is 0 or more, not {price_per_hour}")
    left = _left(counts, count_decided(connection, task.name), task)
    work = _work(counts.timed)
    reviews = _review_seconds(newest_decision_times(connection, task.name, TIMED), task)
    answers = sum(int(theirs.answered.sum()) for theirs in work.values())
    timed = sum(len(theirs.answered) for theirs in work.values())
    found = Quote(
        task=task.name,
        answers_left=left.answers,
        disputes_left=left.disputes,
        timed_answers=answers,
        skip_share=1 - answers / timed if timed else None,
        seconds_per_answer=None,
        seconds_per_dispute=None,
        hours=None,
        cost=None,
        annotators=_speeds(work),
        notes=_notes(left, answers, len(work), len(reviews)),
    )
    if answers < FEWEST_ANSWERS:
        return found
    return _with_amounts(found, left, work, reviews, price_per_hour)


def _left(counts: Counts, decided: int, task: Task) -> _Left:
    by_answers = counts.by_answers
    full = sum(n for (closed, k), n in by_answers.items() if closed or k >= task.overlap)
    begun = {k: n for (closed, k), n in by_answers.items() if not closed and k < task.overlap}
    examples = counts.examples - full
    disputed = min(full, counts.disputed + decided)
    return _Left(
        examples=examples,
        answers=examples * task.overlap - sum(k * n for k, n in begun.items()),
        full=full,
        waiting=counts.disputed,
        disputed=disputed + (0.5 if task.overlap > 1 else 0),
        calm=full - disputed + 0.5,
    )


def _work(timed: Iterable[tuple[str, AnnotationStatus, float]]) -> dict[str, _Work]:
    """Each annotator's times."""
    by_person: defaultdict[str, list[tuple[float, bool]]] = defaultdict(list)
    for annotator, status, seconds in timed:
        if status != "withdrawn":
            by_person[annotator].append((seconds, status == "submitted"))
    work = {}
    for annotator, rows in sorted(by_person.items()):
        seconds, answered = np.array(rows, dtype=np.float64).T
        work[annotator] = _Work(_without_pauses(seconds), answered)
    return work


def _without_pauses(seconds: Floats) -> Floats:
    return np.minimum(seconds, _PAUSE * np.median(seconds))


def _review_seconds(decisions: Iterable[tuple[str, str]], task: Task) -> Floats:
    """Seconds between one reviewer's decisions, (n,): nobody measures them while they decide.

    What was decided at one moment was decided in bulk, and what took longer than a lease was not
    one sitting.
    """
    by_person: defaultdict[str, list[datetime]] = defaultdict(list)
    for reviewer, at in decisions:
        by_person[reviewer].append(datetime.fromisoformat(at))
    gaps = [
        (after - before).total_seconds()
        for times in by_person.values()
        for before, after in pairwise(times)
    ]
    sitting = np.array([gap for gap in gaps if 0.5 < gap <= task.lease_seconds])
    return _without_pauses(sitting) if len(sitting) else sitting


def _speeds(work: Mapping[str, _Work]) -> list[Speed]:
    return [
        Speed(name, int(w.answered.sum()), float(w.seconds.sum() / w.answered.sum()))
        for name, w in work.items()
        if w.answered.any()
    ]


def _notes(left: _Left, answers: int, people: int, reviews: int) -> list[str]:
    notes = []
    if answers < FEWEST_ANSWERS:
        timed = _number(answers, "answer was", "answers were")
        notes.append(f"{timed} timed, and a quote needs {FEWEST_ANSWERS}: label some")
        return notes
    if people < _FEWEST_PEOPLE:
        timed = _number(people, "person was", "people were")
        notes.append(f"only {timed} timed: how much others differ is not in the interval")
    if left.examples and left.full < FEWEST_ANSWERS:
        full = _number(left.full, "example has all its", "examples have all their")
        notes.append(f"{full} answers: how many will be disputed is a guess")
    if left.disputes and reviews < _FEWEST_DECISIONS:
        notes.append("too few disputes were decided to time one: it is taken for one answer's time")
    return notes


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _with_amounts(
    found: Quote,
    left: _Left,
    work: Mapping[str, _Work],
    reviews: Floats,
    price_per_hour: float | None,
) -> Quote:
    rng = np.random.default_rng(0)
    seconds = sum(float(w.seconds.sum()) for w in work.values()) / found.timed_answers
    drawn = _drawn_seconds(list(work.values()), rng)
    if len(reviews) >= _FEWEST_DECISIONS:
        review = float(reviews.mean())
        drawn_review = rng.choice(reviews, (RESAMPLES, len(reviews))).mean(1)
    else:
        review, drawn_review = seconds, drawn
    drawn_disputes = left.waiting + left.examples * _drawn_share(left, rng)
    chance = np.sqrt(left.answers) * _deviation(work.values()) * rng.standard_normal(RESAMPLES)
    total = left.answers * drawn + chance + drawn_disputes * drawn_review
    expected = left.answers * seconds + left.disputes * review
    hours = _amount(expected / 3600, total.clip(0) / 3600)
    cost = None
    if price_per_hour is not None:
        cost = Amount(*(hour * price_per_hour for hour in (hours.value, hours.low, hours.high)))
    return replace(
        found,
        seconds_per_answer=_amount(seconds, drawn),
        seconds_per_dispute=_amount(review, drawn_review) if left.disputes else None,
        hours=hours,
        cost=cost,
    )


def _drawn_seconds(work: Sequence[_Work], rng: np.random.Generator) -> Floats:
    """Seconds per answer of people drawn with replacement, of each their annotations, (B,).

    NaN where only people who have given no answer were drawn.
    """
    people = rng.multinomial(len(work), np.full(len(work), 1 / len(work)), RESAMPLES)
    seconds, answers = np.zeros((2, RESAMPLES))
    for n, theirs in enumerate(work):
        rows = Counter(zip(theirs.seconds.tolist(), theirs.answered.tolist(), strict=True))
        counts = np.array(list(rows.values()))
        drawn = rng.multinomial(counts.sum(), counts / counts.sum(), RESAMPLES) @ np.array(
            list(rows)
        )
        seconds += people[:, n] * drawn[:, 0]
        answers += people[:, n] * drawn[:, 1]
    return ratio(seconds, answers)


def _drawn_share(left: _Left, rng: np.random.Generator) -> Floats:
    """The share of examples that will be disputed, (B,): Jeffreys' interval of a proportion."""
    if not left.disputed:
        return np.zeros(RESAMPLES)
    return rng.beta(left.disputed, left.calm, RESAMPLES)


def _deviation(work: Collection[_Work]) -> float:
    """By how much the seconds of single answers differ, people apart."""
    within = [((w.seconds - w.seconds.mean()) ** 2).sum() for w in work]
    return float(np.sqrt(sum(within) / sum(w.answered.sum() for w in work)))


def _amount(value: float, draws: Floats) -> Amount:
    low, high = interval(draws[~np.isnan(draws)])
    assert low is not None
    assert high is not None
    return Amount(value, low, high)
