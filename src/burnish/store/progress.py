"""How far a task's labelling is: counts by the database, and the answers agreement is measured on.

Gold items and excluded examples are apart from progress: no count here holds them unless it says
so. Counts come from the queue and from indexes that hold all they need, so that a million
annotations are counted in about a second.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    union,
)

from burnish.store.answers import RULE_PREFIX
from burnish.store.queue_order import count_gold
from burnish.store.slots import ANSWERED
from burnish.store.tables import (
    annotations,
    examples,
    exclusions,
    gold,
    guideline_history,
    leases,
    queue,
    resolutions,
)
from burnish.types import AnnotationStatus

# Ten times as many rows at a time took a third longer.
_STREAMING = {"yield_per": 1000}


@dataclass(frozen=True, slots=True)
class Rated:
    """Everybody's newest answer to one example."""

    example_id: str
    answers: dict[str, str]
    """By annotator; skips, flags and withdrawn ones left out."""
    by_version: dict[str, dict[str, str]]
    """The same by guideline version: the newest each annotator gave under it."""
    resolved: str | None
    """The newest resolution's answer."""
    gold: str | None
    """The known answer."""


def count_labelled(connection: Connection, task: str) -> int:
    """How many examples want answers or have them: all but excluded and gold ones."""
    all_ = select(func.count()).select_from(examples).scalar_subquery()
    excluded = select(func.count()).select_from(exclusions).scalar_subquery()
    return (connection.scalar(select(all_ - excluded)) or 0) - count_gold(connection, task)


def count_resolved(connection: Connection, task: str) -> int:
    """How many examples have a resolution."""
    query = select(func.count(resolutions.c.example_id.distinct()))
    query = query.where(resolutions.c.task == task, ~_apart(resolutions, task))
    return connection.scalar(query) or 0


def count_by_answers(connection: Connection, task: str) -> Counter[tuple[bool, int]]:
    """How many examples there are by (closed, submitted answers); untouched ones may be missing.

    Closed ones, flagged or resolved, want no more answers.
    """
    in_progress = queue.c.task == task, queue.c.lane.in_(["all", "assigned"])
    taken = (
        select(queue.c.closed, queue.c.taken, func.count())
        .where(*in_progress)
        .group_by(queue.c.closed, queue.c.taken)
    )
    counts = Counter({(closed, slots): n for closed, slots, n in connection.execute(taken)})
    # A slot is also taken while somebody is at work; there are no more of these than people.
    at_work = (
        select(queue.c.closed, queue.c.taken, func.count())
        .join(
            leases, and_(leases.c.example_id == queue.c.example_id, leases.c.task == queue.c.task)
        )
        .where(*in_progress, leases.c.expires_at < ANSWERED)
        .group_by(queue.c.example_id, queue.c.closed, queue.c.taken)
    )
    for closed, slots, people in connection.execute(at_work):
        counts[closed, slots] -= 1
        counts[closed, slots - people] += 1
    # A person may have decided what has not entered the queue.
    here = queue.c.example_id == resolutions.c.example_id, queue.c.task == task
    decided = select(func.count(resolutions.c.example_id.distinct()))
    decided = decided.where(resolutions.c.task == task, ~_apart(resolutions, task))
    counts[True, 0] += connection.scalar(decided.where(~exists().where(*here))) or 0
    return +counts


def count_by_annotator(connection: Connection, task: str) -> Counter[tuple[str, AnnotationStatus]]:
    """How many examples there are by (annotator, status of their newest annotation)."""
    by = annotations.c.annotator, annotations.c.status
    rows = select(*by, func.count()).where(annotations.c.task == task).group_by(*by)
    counts = Counter({(who, status): n for who, status, n in connection.execute(rows)})
    # Those apart and those amended are few: counting all and taking them away spares looking at
    # every annotation.
    apart = union(
        select(exclusions.c.example_id), select(gold.c.example_id).where(gold.c.task == task)
    )
    rows = rows.where(annotations.c.example_id.in_(apart))
    counts.subtract({(who, status): n for who, status, n in connection.execute(rows)})
    for newest_first in _amended(connection, task):
        counts.subtract(newest_first[1:])
    return +counts


def count_gold_by_annotator(connection: Connection, task: str) -> Counter[str]:
    """How many gold items each annotator has answered."""
    query = (
        select(annotations.c.example_id, annotations.c.annotator, annotations.c.status)
        .join(gold, and_(gold.c.example_id == annotations.c.example_id, gold.c.task == task))
        .where(annotations.c.task == task, ~_excluded(gold))
        .order_by(annotations.c.seq)
    )
    newest = {(row.example_id, row.annotator): row.status for row in connection.execute(query)}
    return Counter(who for (_, who), status in newest.items() if status == "submitted")


def newest_seconds(
    connection: Connection, task: str, limit: int
) -> list[tuple[str, AnnotationStatus, float]]:
    """(annotator, status, seconds) of the newest annotations that were timed, newest first."""
    query = (
        select(annotations.c.annotator, annotations.c.status, annotations.c.seconds)
        .where(_by_walking(annotations.c.task) == task, annotations.c.seconds.is_not(None))
        .order_by(annotations.c.seq.desc())
        .limit(limit)
    )
    return [(who, status, seconds) for who, status, seconds in connection.execute(query)]


def count_decided(connection: Connection, task: str) -> int:
    """How many examples a person has decided."""
    query = select(func.count(resolutions.c.example_id.distinct()))
    query = query.where(*_by_person(task), ~_apart(resolutions, task))
    return connection.scalar(query) or 0


def newest_decision_times(connection: Connection, task: str, limit: int) -> list[tuple[str, str]]:
    """(who, when in ISO 8601) of people's newest resolutions, oldest first."""
    query = (
        select(resolutions.c.resolved_by, resolutions.c.created_at)
        .where(*_by_person(task))
        .order_by(resolutions.c.seq.desc())
        .limit(limit)
    )
    return [(who, when) for who, when in connection.execute(query)][::-1]


def count_changes(connection: Connection, task: str) -> int:
    """A number that grows with everything agreement rests on."""
    newest = (
        select(func.coalesce(func.max(table.c.seq), 0)).where(table.c.task == task)
        for table in (annotations, resolutions)
    )
    rows = (select(func.count()).select_from(table) for table in (gold, exclusions))
    parts = [query.scalar_subquery() for query in (*newest, *rows)]
    return connection.scalar(select(sum(parts[1:], parts[0]))) or 0


def first_in_force(connection: Connection, task: str) -> dict[str, str]:
    """When each version of the guidelines first became the task's, ISO 8601 in UTC."""
    history = guideline_history.c
    query = select(history.version, func.min(history.created_at).label("since"))
    query = query.where(history.task == task).group_by(history.version)
    return {row.version: row.since for row in connection.execute(query)}


def read_ratings(connection: Connection, task: str) -> Iterator[Rated]:
    """Every annotated example's answers, gold items among them, in no order; streaming."""
    # As the index has them, which spares sorting.
    order = annotations.c.example_id, annotations.c.annotator, annotations.c.seq
    rows = connection.execute(_said(task).order_by(*order), execution_options=_STREAMING)
    for example_id, group in groupby(rows, key=itemgetter(0)):
        newest: dict[str, str | None] = {}
        under: defaultdict[str, dict[str, str | None]] = defaultdict(dict)
        for row in group:
            _, annotator, version, answer, *right = row
            newest[annotator] = under[version][annotator] = answer
        by_version = {version: _given(said) for version, said in under.items()}
        yield Rated(example_id, _given(newest), by_version, *right)


def read_said(connection: Connection, task: str) -> Iterator[Sequence[Row[Any]]]:
    """Every annotation in order of arrival, in pages; streaming.

    (example id, annotator, guideline version, answer, resolved answer, gold answer): no answer for
    skips, flags and withdrawn ones. A third of the time that `read_ratings` takes.
    """
    rows = connection.execute(_said(task).order_by(annotations.c.seq), execution_options=_STREAMING)
    return rows.partitions()


def _given(newest: Mapping[str, str | None]) -> dict[str, str]:
    return {who: answer for who, answer in newest.items() if answer is not None}


def _said(task: str) -> Select[Any]:
    """All annotations of examples that are not excluded, with what is known of the example."""
    resolved = (
        select(resolutions.c.answer)
        .where(resolutions.c.example_id == annotations.c.example_id, resolutions.c.task == task)
        .order_by(resolutions.c.seq.desc())
        .limit(1)
        .scalar_subquery()
    )
    known = gold.c.example_id == annotations.c.example_id, gold.c.task == task
    return (
        select(
            annotations.c.example_id,
            annotations.c.annotator,
            annotations.c.guideline_version,
            case((annotations.c.status == "submitted", annotations.c.answer)),
            resolved,
            gold.c.answer,
        )
        .outerjoin(gold, and_(*known))
        .where(annotations.c.task == task, ~_excluded(annotations))
    )


def _amended(connection: Connection, task: str) -> Iterator[list[tuple[str, AnnotationStatus]]]:
    """(annotator, status) of each annotation, newest first, where one person made several."""
    several = (
        select(annotations.c.example_id, annotations.c.annotator)
        .where(_by_walking(annotations.c.task) == task)
        .group_by(annotations.c.example_id, annotations.c.task, annotations.c.annotator)
        .having(func.count() > 1)
        .subquery()
    )
    same = (
        annotations.c.example_id == several.c.example_id,
        annotations.c.annotator == several.c.annotator,
        annotations.c.task == task,
    )
    query = (
        select(annotations.c.example_id, annotations.c.annotator, annotations.c.status)
        .join(several, and_(*same))
        .where(~_apart(annotations, task))
        .order_by(annotations.c.example_id, annotations.c.annotator, annotations.c.seq.desc())
    )
    rows = connection.execute(query)
    for _, group in groupby(rows, key=lambda row: (row.example_id, row.annotator)):
        yield [(row.annotator, row.status) for row in group]


def _by_person(task: str) -> tuple[ColumnElement[bool], ...]:
    by_rule = resolutions.c.resolved_by.startswith(RULE_PREFIX)
    return resolutions.c.task == task, ~by_rule


def _apart(table: Table, task: str) -> ColumnElement[bool]:
    """Whether a row's example is excluded or a gold item."""
    known = gold.c.example_id == table.c.example_id, gold.c.task == task
    return or_(_excluded(table), exists().where(*known))


def _excluded(table: Table) -> ColumnElement[bool]:
    return exists().where(exclusions.c.example_id == table.c.example_id)


def _by_walking(column: Column[str]) -> ColumnElement[str]:
    """The column, in a form that keeps SQLite from choosing an index by it.

    For what is wanted in another index's order it would sort a million rows: 2.7 s, not 0.02.
    """
    return func.coalesce(column, "")
