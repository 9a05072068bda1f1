"""The answer in force for each example: what is known, else decided, else agreed on, else given.

    gold > resolution > annotations that agree > the example's own answer

Audit and snapshot ask the same question here, so what is checked is what is frozen.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Table, exists, select

from burnish.errors import InputError
from burnish.hashing import canonical_json
from burnish.project import utc_now
from burnish.records.answers import applied, candidates_of, compared, is_answered
from burnish.store.drafts import read_drafts
from burnish.store.examples import PAGE, example_pages
from burnish.store.labelling import annotations_by_example
from burnish.store.log import append_log, rows_payload
from burnish.store.tables import annotations, examples, exclusions, gold, resolutions
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example

AnswerStatus = Literal["answered", "unlabelled", "disagreement", "flagged", "rejected"]

RULE_PREFIX = "rule:"
"""What `resolved_by` begins with where no person decided; no name may begin so."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """A disagreement settled: the answer somebody decided on, and what the decision rests on."""

    example_id: str
    task: str
    answer: str
    annotation_ids: tuple[str, ...]
    """Client ids of the annotations."""
    resolved_by: str
    created_at: str | None = None
    """ISO 8601 in UTC."""


@dataclass(frozen=True, slots=True)
class Given:
    """All that people have said of one example in one task."""

    annotations: tuple[Annotation, ...] = ()
    """Every one, oldest first."""
    resolution: Resolution | None = None
    """The newest."""
    gold: str | None = None
    """The known answer."""

    @property
    def newest(self) -> tuple[Annotation, ...]:
        """What each person said last."""
        return newest_of_each(self.annotations)

    @property
    def submitted(self) -> tuple[Annotation, ...]:
        """The answers among them."""
        return tuple(a for a in self.newest if a.status == "submitted")

    @property
    def is_flagged(self) -> bool:
        """Whether somebody wants a person to look."""
        return any(a.status == "flagged" for a in self.newest)

    @property
    def is_settled(self) -> bool:
        """Whether gold or a decision stands; a rule's only on the answers it was made from."""
        if self.gold is not None or self.resolution is None:
            return self.gold is not None
        if not self.resolution.resolved_by.startswith(RULE_PREFIX):
            return True
        basis = {a.client_id for a in self.submitted}
        return basis == set(self.resolution.annotation_ids) and not self.is_flagged

    @property
    def settled_answer(self) -> str | None:
        """What gold, or else a decision that stands, says; None where nothing is settled."""
        if self.gold is not None or self.resolution is None:
            return self.gold
        return self.resolution.answer if self.is_settled else None


@dataclass(frozen=True, slots=True)
class Answered:
    """An example and the state of its answer."""

    example: Example
    status: AnswerStatus
    conversation: Conversation
    """With the answer in force where `status` is `answered`, else as received."""
    annotations: tuple[Annotation, ...] = ()
    """Those the answer rests on; empty where it is gold or the example's own."""


def newest_of_each(annotations: Iterable[Annotation]) -> tuple[Annotation, ...]:
    """Everybody's newest annotation; who has withdrawn it has said nothing."""
    newest = {a.annotator: a for a in annotations}.values()
    return tuple(a for a in newest if a.status != "withdrawn")


def add_resolutions(connection: Connection, batch: Iterable[Resolution], *, actor: str) -> None:
    """Add decisions; the newest one of an example and task is in force."""
    now = utc_now()
    rows = [
        {
            "example_id": r.example_id,
            "task": r.task,
            "answer": r.answer,
            "annotation_ids": canonical_json(list(r.annotation_ids)),
            "resolved_by": r.resolved_by,
            "created_at": r.created_at or now,
        }
        for r in batch
    ]
    if rows:
        connection.execute(resolutions.insert(), rows)
        append_log(connection, actor, "resolve", rows_payload(rows))


def read_resolutions(
    connection: Connection, *, task: str | None = None, example_id: str | None = None
) -> Iterator[Resolution]:
    """Decisions in order, streaming; of one task or one example if asked.

    A later one of the same example and task replaces the earlier.
    """
    query = select(resolutions).order_by(resolutions.c.seq)
    if task is not None:
        query = query.where(resolutions.c.task == task)
    if example_id is not None:
        query = query.where(resolutions.c.example_id == example_id)
    for row in connection.execute(query, execution_options={"yield_per": 1000}):
        yield _to_resolution(row)


def read_answered(connection: Connection, task: Task) -> Iterator[Answered]:
    """Every example that is not excluded, in order of arrival, with the state of its answer.

    Raises:
        InputError: an answer kept is of another kind than the task now is.
    """
    for page in example_pages(connection):
        ids = [example.id for example in page]
        excluded = {row.example_id for row in _of_examples(connection, exclusions, ids)}
        given = read_given(connection, task.name, ids)
        candidates = read_candidates(connection, task, page)
        for example in page:
            if example.id not in excluded:
                ranked = candidates.get(example.id, ())
                yield answer_in_force(example, task, given[example.id], ranked)


def read_given(connection: Connection, task: str, ids: Collection[str]) -> dict[str, Given]:
    """What has been said of each of these examples in a task."""
    said = annotations_by_example(connection, task, ids)
    decided = {
        row.example_id: _to_resolution(row)
        for row in _of_examples(connection, resolutions, ids, task)
    }
    known = {row.example_id: row.answer for row in _of_examples(connection, gold, ids, task)}
    return {id_: Given(tuple(said.get(id_, ())), decided.get(id_), known.get(id_)) for id_ in ids}


def read_candidates(
    connection: Connection, task: Task, page: Collection[Example]
) -> dict[str, tuple[str, ...]]:
    """The answers to be ranked of each example; nothing for tasks of other kinds."""
    if task.kind != "rank":
        return {}
    drafts = read_drafts(connection, task.name, [example.id for example in page])
    return {example.id: candidates_of(example, drafts.get(example.id, ())) for example in page}


def annotated_after(connection: Connection, task: str, seq: int) -> Mapping[str, int]:
    """The next page of examples, by id with their seq, that somebody has annotated.

    In order of arrival behind `seq`; excluded ones are left out.
    """
    annotated = annotations.c.example_id == examples.c.id, annotations.c.task == task
    query = (
        select(examples.c.id, examples.c.seq)
        .where(
            examples.c.seq > seq,
            exists().where(*annotated),
            ~exists().where(exclusions.c.example_id == examples.c.id),
        )
        .order_by(examples.c.seq)
        .limit(PAGE)
    )
    return {row.id: row.seq for row in connection.execute(query)}


def answer_in_force(
    example: Example, task: Task, given: Given, candidates: tuple[str, ...] = ()
) -> Answered:
    """Apply the rule above to one example.

    An annotator's later annotation replaces the earlier one. A flag waits for a person; a skip says
    nothing. Answers agree when what is `compared` of them is equal.
    """
    if given.gold is not None:
        return _answered(example, task, given.gold, candidates, ())
    if given.resolution is not None and given.is_settled:
        ids = given.resolution.annotation_ids
        basis = tuple(a for a in given.annotations if a.client_id in ids)
        return _answered(example, task, given.resolution.answer, candidates, basis)
    if given.is_flagged:
        return Answered(example, "flagged", example.conversation)
    submitted = given.submitted
    if len({compared(a.answer, task) for a in submitted}) > 1:
        return Answered(example, "disagreement", example.conversation)
    if submitted:
        return _answered(example, task, submitted[0].answer, candidates, submitted)
    status: AnswerStatus = "answered" if is_answered(example, task) else "unlabelled"
    return Answered(example, status, example.conversation)


def _answered(
    example: Example,
    task: Task,
    answer: str,
    candidates: tuple[str, ...],
    basis: tuple[Annotation, ...],
) -> Answered:
    try:
        conversation = applied(example, answer, task, candidates)
    except InputError as error:
        raise InputError(
            error.what,
            where=f"example {example.id}, task {task.name}",
            do="answers keep their kind: give the task the kind it had, or another name",
        ) from error
    if conversation is None:
        return Answered(example, "rejected", example.conversation, basis)
    return Answered(example, "answered", conversation, basis)


def _of_examples(
    connection: Connection, table: Table, ids: Collection[str], task: str | None = None
) -> Sequence[Any]:
    """A table's rows that belong to a page of examples, oldest first where that is known."""
    query = select(table).where(table.c.example_id.in_(ids))
    if task is not None:
        query = query.where(table.c.task == task)
    if "seq" in table.c:
        query = query.order_by(table.c.seq)
    return connection.execute(query).all()


def _to_resolution(row: Any) -> Resolution:
    return Resolution(
        row.example_id,
        row.task,
        row.answer,
        tuple(json.loads(row.annotation_ids)),
        row.resolved_by,
        row.created_at,
    )
