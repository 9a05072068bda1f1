"""How far the labelling is: what is done and by whom, the time left, how well people agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from burnish.label.agreement import Agreement, Answers, Estimate, Measure
from burnish.label.agreement.coded import NOTHING
from burnish.label.agreement.counted import counted_agreement, counted_headline
from burnish.label.agreement.estimate import change, mean_estimate
from burnish.label.agreement.measures import Headline
from burnish.label.agreement.sampled import SharedSample, sampled_agreement, sampled_headline
from burnish.label.agreement.similarity import comparable, is_categorical, similarity
from burnish.label.said import everything_said, likeness
from burnish.progress import progress
from burnish.store import Connection, Store
from burnish.store.disputes import count_disputes
from burnish.store.findings import count_exclusions
from burnish.store.progress import (
    count_by_annotator,
    count_by_answers,
    count_changes,
    count_gold_by_annotator,
    count_labelled,
    count_resolved,
    first_in_force,
    newest_seconds,
    read_ratings,
)
from burnish.store.queue_order import count_gold
from burnish.tasks import Task
from burnish.types import AnnotationStatus

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
    """Wanted by examples that are neither complete nor flagged; `label.quote` has the time."""
    gold: int
    """Gold items, which the other counts leave out."""
    excluded: int
    """Examples nobody is asked about, which the other counts leave out."""
    annotators: Sequence[AnnotatorStatus]


class Counts(NamedTuple):
    """What both the state of a task and its quote rest on."""

    examples: int
    by_answers: Counter[tuple[bool, int]]
    """How many of them by (closed, submitted answers)."""
    disputed: int
    timed: Sequence[tuple[str, AnnotationStatus, float]]
    """(annotator, status, seconds) of the newest."""


def read_counts(connection: Connection, task: Task) -> Counts:
    """Half a second for a million annotations: read once where both are wanted."""
    return Counts(
        count_labelled(connection, task.name),
        count_by_answers(connection, task.name),
        count_disputes(connection, task.name),
        newest_seconds(connection, task.name, TIMED),
    )


def label_status(store: Store, task: Task) -> LabelStatus:
    """Count everything, all of it from the same moment; a second for a million annotations."""
    with store.reading() as connection:
        return status_of(connection, task, read_counts(connection, task))


def status_of(connection: Connection, task: Task, counts: Counts) -> LabelStatus:
    """The state of a task, given what was counted in this transaction."""
    examples, by_answers, disputed, timed = counts
    resolved = count_resolved(connection, task.name)
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
        gold=count_gold(connection, task.name),
        excluded=count_exclusions(connection),
        annotators=_annotators(connection, task, timed),
    )


def _annotators(
    connection: Connection, task: Task, timed: Iterable[tuple[str, AnnotationStatus, float]]
) -> list[AnnotatorStatus]:
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for annotator, status, measured in timed:
        if status == "submitted":
            seconds[annotator].append(measured)
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
class VersionAgreement:
    """How far people agree by one version of the guidelines.

    Answers given under it are compared with one another alone: of each annotator the newest.
    """

    version: str
    """As annotations keep it; empty for those that came without one."""
    since: str | None
    """When it first came into force, ISO 8601 in UTC; None where the task never had it."""
    examples: int
    """With two answers or more under it."""
    annotators: int
    """Who gave them."""
    measure: Measure
    """The statistic to quote first."""
    percent: Estimate
    """The share of equal pairs of answers."""
    change: Estimate | None
    """Of the measure since the version before; None where either is undefined."""


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """How far a task's annotators agree; gold items count for `annotators` alone."""

    agreement: Agreement
    by_version: Sequence[VersionAgreement]
    """Those that have examples to compare, the newest last."""
    annotators: Sequence[AnnotatorAgreement]


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

    A million annotations take four seconds, of free text nine; what took over a second is kept,
    and given again until annotations and resolutions have grown by 1 %.
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


class _Found(NamedTuple):
    agreement: Agreement
    by_version: Mapping[str, Headline]
    gold: Mapping[str, Counter[float]]
    """How often each annotator's answers are how like the gold ones."""
    resolved: Mapping[str, Counter[float]]
    """The same for the resolved ones."""


def _measure(connection: Connection, task: Task) -> LabelAgreement:
    measure = _measure_counted if is_categorical(task) else _measure_sampled
    found = measure(connection, task)
    nobody: Counter[float] = Counter()
    annotators = [
        AnnotatorAgreement(
            name,
            mean_estimate(found.gold.get(name, nobody)),
            mean_estimate(found.resolved.get(name, nobody)),
        )
        for name in sorted(found.gold.keys() | found.resolved.keys())
    ]
    by_version = _in_order_of_time(found.by_version, first_in_force(connection, task.name))
    return LabelAgreement(found.agreement, by_version, annotators)


def _measure_counted(connection: Connection, task: Task) -> _Found:
    said = everything_said(connection, task)
    newest = said.newest(np.arange(len(said.version)))
    is_gold = said.gold[newest] != NOTHING
    golden, others = newest[is_gold], newest[~is_gold]
    answers, resolved = said.answers.only(others), said.resolved[others]
    of_several = answers.is_shared
    by_version = {}
    for place, version in enumerate(said.versions):
        under = said.newest(np.flatnonzero((said.version == place) & (said.gold == NOTHING)))
        by_version[version] = counted_headline(task, said.answers.only(under).readable)
    return _Found(
        counted_agreement(task, answers.readable),
        by_version,
        likeness(task, said.answers.only(golden), said.gold[golden]),
        likeness(task, answers.only(of_several), resolved[of_several]),
    )


def _measure_sampled(connection: Connection, task: Task) -> _Found:
    sample = SharedSample(task)
    by_version: defaultdict[str, SharedSample] = defaultdict(lambda: SharedSample(task))
    gold: defaultdict[str, Counter[float]] = defaultdict(Counter)
    resolved: defaultdict[str, Counter[float]] = defaultdict(Counter)
    rows = read_ratings(connection, task.name)
    for rated in progress(rows, "agreement", unit="examples"):
        if rated.gold is not None:
            _compare(rated.answers, rated.gold, task, gold)
            continue
        if rated.resolved is not None and len(rated.answers) > 1:
            _compare(rated.answers, rated.resolved, task, resolved)
        sample.add(rated.answers)
        for version, answers in rated.by_version.items():
            by_version[version].add(answers)
    headlines = {version: sampled_headline(task, one) for version, one in by_version.items()}
    return _Found(sampled_agreement(task, sample), headlines, gold, resolved)


def _compare(
    answers: Answers, right: str, task: Task, similar: defaultdict[str, Counter[float]]
) -> None:
    """Note how alike each annotator's answer is to the right one."""
    wanted = comparable(right, task)
    for annotator, answer in answers.items():
        given = comparable(answer, task)
        if given is not None and wanted is not None:
            similar[annotator][similarity(given, wanted, task)] += 1


def _in_order_of_time(
    found: Mapping[str, Headline], since: Mapping[str, str]
) -> list[VersionAgreement]:
    """The versions with anything to compare, the newest last; those of no known time first."""
    rows: list[VersionAgreement] = []
    for version in sorted(found, key=lambda version: (since.get(version, ""), version)):
        one = found[version]
        if one.examples:
            before = rows[-1].measure.estimate if rows else Estimate(None, None, None, 0)
            changed = change(before, one.measure.estimate)
            rows.append(
                VersionAgreement(
                    version,
                    since.get(version),
                    one.examples,
                    one.annotators,
                    one.measure,
                    one.percent,
                    changed,
                )
            )
    return rows
