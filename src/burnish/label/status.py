"""How far the labelling is: what is done and by whom, the time left, how well people agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import monotonic
from weakref import WeakKeyDictionary

from burnish.label.agreement import Agreement, Answers, Estimate, agreement
from burnish.label.agreement.estimate import mean_estimate
from burnish.label.agreement.similarity import comparable, similarity
from burnish.progress import progress
from burnish.store import Connection, Store
from burnish.store.disputes import count_disputes
from burnish.store.progress import (
    count_by_annotator,
    count_by_answers,
    count_changes,
    count_gold_by_annotator,
    count_labelled,
    count_resolved,
    newest_seconds,
    read_ratings,
)
from burnish.store.queue_order import count_gold
from burnish.tasks import Task

TIMED = 10_000
"""Times are taken from so many of the newest timed annotations: people get quicker."""

# A result that took longer than this is given again, until what it rests on has grown by the share.
_QUICK_SECONDS = 1.0
_GROWTH = 0.01


@dataclass(frozen=True, slots=True)
class AnnotatorStatus:
    """One annotator's work; of several annotations of one example the newest counts."""

    annotator: str
    submitted: int
    skipped: int
    flagged: int
    gold: int
    """Gold items they have answered; the other counts leave these out."""
    median_seconds: float | None
    """Per answer, of the newest; None where no time was measured."""


@dataclass(frozen=True, slots=True)
class LabelStatus:
    """The state of one task. Excluded examples and gold items are left out."""

    task: str
    overlap: int
    examples: int
    complete: int
    """Have all the answers they want and no flag up, or are resolved."""
    begun: int
    """Have some of them."""
    disputed: int
    """Wait for a person: answers differ or a flag is up, and nothing has settled it."""
    resolved: int
    answers: int
    """Submitted, the newest of each annotator."""
    surplus: int
    """Answers beyond `overlap`: imported, or sent after the lease had gone to somebody else."""
    answers_left: int
    """Wanted by examples that are neither complete nor flagged."""
    seconds_left: float | None
    """A person's time for them: median seconds × answers left; None where none was measured.
    `label.quote` has the cost, with an interval."""
    gold: int
    """Gold items, which the other counts leave out."""
    annotators: Sequence[AnnotatorStatus]


@dataclass(frozen=True, slots=True)
class AnnotatorAgreement:
    """How one annotator's answers stand to what is known or decided.

    Means of `agreement.similarity`: for choices the share that is equal.
    """

    annotator: str
    gold: Estimate
    """Against the gold answer."""
    resolved: Estimate
    """Against the resolved answer, on examples that two or more people answered. One a rule has
    resolved agrees with its answers by construction: the figure means most where a person has."""


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """How far a task's annotators agree; gold items count for `annotators` alone."""

    agreement: Agreement
    annotators: Sequence[AnnotatorAgreement]


def label_status(store: Store, task: Task) -> LabelStatus:
    """Count everything, all of it from the same moment; a second for a million annotations."""
    with store.reading() as connection:
        examples = count_labelled(connection, task.name)
        resolved = count_resolved(connection, task.name)
        by_answers = count_by_answers(connection, task.name)
        disputed = count_disputes(connection, task.name)
        gold = count_gold(connection, task.name)
        seconds: defaultdict[str, list[float]] = defaultdict(list)
        for annotator, status, measured in newest_seconds(connection, task.name, TIMED):
            if status == "submitted":
                seconds[annotator].append(measured)
        annotators = _annotators(connection, task, seconds)
    all_seconds = [measured for theirs in seconds.values() for measured in theirs]
    open_ = {answers: n for (closed, answers), n in by_answers.items() if not closed}
    closed = by_answers.total() - sum(open_.values())
    given = sum(min(answers, task.overlap) * n for answers, n in open_.items())
    answers_left = (examples - closed) * task.overlap - given
    return LabelStatus(
        task=task.name,
        overlap=task.overlap,
        examples=examples,
        complete=resolved + sum(n for answers, n in open_.items() if answers >= task.overlap),
        begun=sum(n for answers, n in open_.items() if 0 < answers < task.overlap),
        disputed=disputed,
        resolved=resolved,
        answers=sum(answers * n for (_, answers), n in by_answers.items()),
        surplus=sum(max(0, answers - task.overlap) * n for (_, answers), n in by_answers.items()),
        answers_left=answers_left,
        seconds_left=median(all_seconds) * answers_left if all_seconds else None,
        gold=gold,
        annotators=annotators,
    )


def _annotators(
    connection: Connection, task: Task, seconds: Mapping[str, Sequence[float]]
) -> list[AnnotatorStatus]:
    counts = count_by_annotator(connection, task.name)
    gold = count_gold_by_annotator(connection, task.name)
    return [
        AnnotatorStatus(
            annotator,
            submitted=counts[annotator, "submitted"],
            skipped=counts[annotator, "skipped"],
            flagged=counts[annotator, "flagged"],
            gold=gold[annotator],
            median_seconds=median(seconds[annotator]) if annotator in seconds else None,
        )
        for annotator in sorted({name for name, _ in counts} | gold.keys())
    ]


@dataclass(frozen=True, slots=True)
class _Kept:
    result: LabelAgreement
    changes: int
    """`count_changes` when it was measured."""
    seconds: float
    """How long that took."""

    def holds(self, changes: int) -> bool:
        """Whether it is given again now that there are so many changes."""
        grown = abs(changes - self.changes) > _GROWTH * self.changes
        return self.seconds > _QUICK_SECONDS and not grown


_kept: WeakKeyDictionary[object, dict[Task, _Kept]] = WeakKeyDictionary()


def label_agreement(store: Store, task: Task) -> LabelAgreement:
    """Measure agreement on everything said so far, by the statistics that fit the task's kind.

    A million annotations take about ten seconds; what took over a second is kept, and given again
    until annotations and resolutions have grown by 1 %.
    """
    of_store = _kept.setdefault(store.engine, {})
    kept = of_store.get(task)
    with store.reading() as connection:
        changes = count_changes(connection, task.name)
        if kept is not None and kept.holds(changes):
            return kept.result
        began = monotonic()
        result = _measure(connection, task)
    of_store[task] = _Kept(result, changes, monotonic() - began)
    return result


def _measure(connection: Connection, task: Task) -> LabelAgreement:
    gold: defaultdict[str, Counter[float]] = defaultdict(Counter)
    resolved: defaultdict[str, Counter[float]] = defaultdict(Counter)

    def ratings() -> Iterator[Answers]:
        rows = read_ratings(connection, task.name)
        for rated in progress(rows, "agreement", unit="examples"):
            if rated.gold is not None:
                _compare(rated.answers, rated.gold, task, gold)
                continue
            if rated.resolved is not None and len(rated.answers) > 1:
                _compare(rated.answers, rated.resolved, task, resolved)
            yield rated.answers

    found = agreement(task, ratings())
    annotators = [
        AnnotatorAgreement(name, mean_estimate(gold[name]), mean_estimate(resolved[name]))
        for name in sorted(gold.keys() | resolved.keys())
    ]
    return LabelAgreement(found, annotators)


def _compare(
    answers: Answers, right: str, task: Task, similar: defaultdict[str, Counter[float]]
) -> None:
    """Note how alike each annotator's answer is to the right one."""
    wanted = comparable(right, task)
    for annotator, answer in answers.items():
        given = comparable(answer, task)
        if given is not None and wanted is not None:
            similar[annotator][similarity(given, wanted, task)] += 1
