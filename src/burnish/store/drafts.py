"""Drafts: what models proposed as answers; and which examples want another answer.

The candidates of `rank` are an example's drafts in order of arrival, so a draft is never removed.
"""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
)

from burnish.hashing import content_hash
from burnish.project import utc_now
from burnish.store.insert import insert_new
from burnish.store.labelling import superseded
from burnish.store.log import append_log, rows_payload
from burnish.store.tables import (
    annotations,
    drafts,
    examples,
    exclusions,
    gold,
    priorities,
    resolutions,
)


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer that a model proposed to one task on one example."""

    id: str
    """Content hash of all but the time: drafted again alike, it is the same draft."""
    example_id: str
    task: str
    text: str
    model: str
    """A checkpoint's id, or the name by which an endpoint knows the model."""
    created_at: str | None = None
    """ISO 8601 in UTC."""

    @classmethod
    def of(
        cls, example_id: str, task: str, text: str, model: str, created_at: str | None = None
    ) -> "Draft":
        """A draft with its id."""
        id_ = content_hash([example_id, task, text, model])
        return cls(id_, example_id, task, text, model, created_at)


@dataclass(frozen=True, slots=True)
class Wanting:
    """An example that wants another answer, and its place in the queue's order."""

    example_id: str
    priority: float | None
    """None comes after every number."""
    seq: int


def add_drafts(connection: Connection, batch: Iterable[Draft], *, actor: str = "draft") -> int:
    """Add those of a batch that are not known yet and return how many they are."""
    now = utc_now()
    rows = {d.id: {**asdict(d), "created_at": d.created_at or now} for d in batch}
    added = insert_new(connection, drafts, list(rows.values()), drafts.c.id)
    if added:
        new = [row for id_, row in rows.items() if id_ in added]
        append_log(connection, actor, "draft", rows_payload(new))
    return len(added)


def read_drafts(
    connection: Connection, task: str, example_ids: Collection[str]
) -> dict[str, list[Draft]]:
    """The drafts of these examples, those of each in order of arrival."""
    found: dict[str, list[Draft]] = {}
    for row in connection.execute(_of_examples(), {"task": task, "ids": list(example_ids)}):
        found.setdefault(row.example_id, []).append(_to_draft(row))
    return found


@cache
def _of_examples() -> Select[Any]:
    of_examples = drafts.c.example_id.in_(bindparam("ids", expanding=True))
    return (
        select(drafts).where(of_examples, drafts.c.task == bindparam("task")).order_by(drafts.c.seq)
    )


def read_draft(connection: Connection, draft_id: str) -> Draft | None:
    """The draft of that id, or None."""
    row = connection.execute(select(drafts).where(drafts.c.id == draft_id)).one_or_none()
    return None if row is None else _to_draft(row)


def undrafted(
    connection: Connection,
    *,
    task: str,
    overlap: int,
    model: str,
    after: Wanting | None,
    limit: int,
) -> list[Wanting]:
    """The next examples that want another answer and lack a draft by the model.

    In the order people will get them: by priority, the highest first, then in order of arrival.
    """
    drafted = exists().where(
        drafts.c.example_id == examples.c.id, drafts.c.task == task, drafts.c.model == model
    )
    found: list[Wanting] = []
    if after is None or after.priority is not None:
        query = _prioritised(task, after).where(_wants_answer(task, overlap), ~drafted)
        found = [Wanting(*row) for row in connection.execute(query.limit(limit))]
    if len(found) < limit:
        last = after.seq if after is not None and after.priority is None else 0
        query = (
            select(examples.c.id, examples.c.seq)
            .where(
                examples.c.seq > last,
                ~exists().where(
                    priorities.c.task == task, priorities.c.example_id == examples.c.id
                ),
                _wants_answer(task, overlap),
                ~drafted,
            )
            .order_by(examples.c.seq)
            .limit(limit - len(found))
        )
        found += [Wanting(row.id, None, row.seq) for row in connection.execute(query)]
    return found


def wanting(
    connection: Connection, *, task: str, overlap: int, after: int, limit: int
) -> list[Wanting]:
    """The next examples behind seq `after` that want another answer, in order of arrival."""
    query = (
        select(examples.c.id, examples.c.seq)
        .where(examples.c.seq > after, _wants_answer(task, overlap))
        .order_by(examples.c.seq)
        .limit(limit)
    )
    return [Wanting(row.id, None, row.seq) for row in connection.execute(query)]


def _prioritised(task: str, after: Wanting | None) -> Select[Any]:
    """Examples with a priority, those behind `after`."""
    query = (
        select(examples.c.id, priorities.c.priority, examples.c.seq)
        .join(priorities, priorities.c.example_id == examples.c.id)
        .where(priorities.c.task == task)
        .order_by(priorities.c.priority.desc(), examples.c.seq)
    )
    if after is None:
        return query
    # The first of the two is what an index can begin at; it alone would give equal ones again.
    return query.where(
        priorities.c.priority <= after.priority,
        or_(priorities.c.priority < after.priority, examples.c.seq > after.seq),
    )


def _wants_answer(task: str, overlap: int) -> ColumnElement[bool]:
    """Whether an example is neither excluded nor resolved and has too few people's answers.

    Gold items want everybody's, and one without a draft among drafted ones would be known by it.
    """
    answers = (
        select(func.count())
        .select_from(annotations)
        .where(
            annotations.c.example_id == examples.c.id,
            # Not `task ==`: SQLite would walk the whole task through an index that covers the query
            # instead of looking up the example, 60 s for 100,000 examples.
            annotations.c.task.concat("") == task,
            annotations.c.status == "submitted",
            ~superseded(),
        )
        .scalar_subquery()
    )
    resolved = exists().where(resolutions.c.example_id == examples.c.id, resolutions.c.task == task)
    is_gold = exists().where(gold.c.example_id == examples.c.id, gold.c.task == task)
    return and_(
        ~exists().where(exclusions.c.example_id == examples.c.id),
        or_(is_gold, and_(~resolved, answers < overlap)),
    )


def _to_draft(row: Row[Any]) -> Draft:
    return Draft(row.id, row.example_id, row.task, row.text, row.model, row.created_at)
