"""Find examples by their words, their metadata and what people did with them.

    store.words          what a search may say, and the tokens it comes to
    store.search_index   the full-text index, in both databases

Results come in order of arrival, so that a page begins where the last one ended, however much has
been added since.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, Select, exists, func, select, true

from burnish.config import did_you_mean
from burnish.errors import InputError
from burnish.store.examples import PAGE
from burnish.store.search_index import matching
from burnish.store.tables import annotations, examples, exclusions, resolutions
from burnish.store.words import facts, metadata_fact, parse_terms, source_fact
from burnish.types import Conversation

Status = Literal["unlabelled", "submitted", "skipped", "flagged", "resolved", "excluded"]
STATUSES: tuple[Status, ...] = get_args(Status)

# Up to so many examples are looked up one by one: 0.1 s.
_FEW = 10_000

# To look one example up among those that have a word takes as long as to go through so many.
_LOOK_UP = 15

COUNTED = 1000
"""How far matches are counted; a search that has more is counted as having so many."""


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for; everything that is given must hold."""

    text: str = ""
    """Words, "phrases", prefix* and -exclusions; see `words.parse_terms`."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Metadata: key -> value as text; the key of a value inside an object is `outer.inner`."""
    source: str | None = None
    """Where the example came from, to the letter."""
    status: Status | None = None
    """`excluded`; `resolved`; what somebody's newest annotation says (`submitted`, `skipped`,
    `flagged`); or `unlabelled`: nobody's newest annotation is submitted."""
    annotator: str | None = None
    """Whose newest annotation `status` speaks of; without a status, who has annotated it."""
    task: str | None = None
    """The task whose annotations and resolutions count; any status but `excluded` needs it."""
    after: int = 0
    """The `seq` of the last example on the page before."""
    limit: int = 50
    """How many examples a page has at most."""

    @property
    def finds_everything(self) -> bool:
        """Whether there is no condition: nothing given, or a text without a letter or digit."""
        given = self.where or self.source is not None or self.status or self.annotator is not None
        return not given and not parse_terms(self.text)


@dataclass(frozen=True, slots=True)
class Found:
    """An example that a search has found."""

    seq: int
    """Its place in the order of arrival."""
    id: str
    conversation: Conversation
    metadata: Mapping[str, Any]
    source: str
    received_at: str
    """ISO 8601 in UTC."""
    excluded: str | None
    """Why it is kept out of snapshots; None where it is not."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of what a search has found."""

    rows: tuple[Found, ...]
    more: bool
    """Whether another page follows, after the `seq` of the last row."""
    count: int
    """How many examples match in all, counted up to `COUNTED`."""


@dataclass(frozen=True, slots=True)
class _People:
    """What must hold of an example's annotations, resolutions and exclusion."""

    condition: ColumnElement[bool]
    few: int | None = None
    """For about how many examples it holds, where they are few."""


_ANYBODY = true()


def search(connection: Connection, query: Query) -> Page:
    """One page of what matches, in order of arrival.

    Raises:
        InputError: there is no such status, or it needs a task.
    """
    matches = _matching(connection, query)
    found = _find(connection, matches, query, query.limit + 1)
    count = _count(connection, matches, COUNTED)
    return Page(tuple(found[: query.limit]), len(found) > query.limit, count)


def find(connection: Connection, query: Query) -> list[Found]:
    """The rows of a page alone: quicker than `search`, which counts.

    Raises:
        InputError: there is no such status, or it needs a task.
    """
    return _find(connection, _matching(connection, query), query, query.limit)


def _find(connection: Connection, matches: Select[int], query: Query, limit: int) -> list[Found]:
    """The first that match behind `query.after`."""
    [seq] = matches.selected_columns
    found: list[Found] = []
    after, size = query.after, min(limit, PAGE)
    while len(found) < limit:
        page = matches.where(seq > after).order_by(seq).limit(size)
        seqs = connection.execute(page).scalars().all()
        found += [one for one in _read(connection, seqs) if _holds(one, query)]
        if len(seqs) < size:
            break
        after = seqs[-1]
    return found[:limit]


def _matching(connection: Connection, query: Query) -> Select[int]:
    """The seq of every example that matches, whatever page it is on."""
    terms = parse_terms(query.text)
    tokens = [metadata_fact(key, value) for key, value in query.where.items()]
    if query.source is not None:
        tokens.append(source_fact(query.source))
    people = _people(connection, query)
    if not terms and not tokens:
        return select(examples.c.seq).where(people.condition)
    rows = matching(connection, terms, tokens)
    found = select(rows.seq).select_from(rows.index).where(rows.condition)
    if people.few is not None:
        enough = people.few * _LOOK_UP
        if _count(connection, found, enough + 1) > enough:
            return found.where(rows.seq.in_(select(examples.c.seq).where(people.condition)))
    if people.condition is _ANYBODY:
        return found
    both = rows.index.join(examples, examples.c.seq == rows.seq)
    return select(rows.seq).select_from(both).where(rows.condition, people.condition)


def _count(connection: Connection, matches: Select[Any], end: int) -> int:
    """How many match, counted so far."""
    some = matches.limit(end).subquery()
    return connection.scalar(select(func.count()).select_from(some)) or 0


def _people(connection: Connection, query: Query) -> _People:
    if query.status is not None and query.status not in STATUSES:
        raise InputError(
            f"there is no status {query.status!r}{did_you_mean(query.status, STATUSES)}",
            do=f"take one of {', '.join(STATUSES)}",
        )
    if query.status == "excluded":
        ids = select(exclusions.c.example_id)
        return _among(connection, ids, ids)
    if query.status is None and query.annotator is None:
        return _People(_ANYBODY)
    if query.task is None:
        raise InputError("people annotate a task", do="say which: a status or annotator needs it")
    if query.status == "unlabelled":
        return _People(~_of_each(_said(query, "submitted", by_example=True)))
    if query.status == "resolved":
        ids = select(resolutions.c.example_id).where(resolutions.c.task == query.task)
        return _among(connection, ids, ids)
    said = _said(query, query.status, by_example=False)
    return _among(connection, said, _said(query, query.status, by_example=True))


def _among(connection: Connection, ids: Select[str], by_example: Select[str]) -> _People:
    """That an example is one of these, asked in the way that is quick for so many of them.

    Few are looked up one by one. Are there many, then the next that matches is near in the order
    of arrival, and each example is asked whether it is one.
    """
    few = _count(connection, ids, _FEW)
    if few < _FEW:
        return _People(examples.c.id.in_(ids), few)
    return _People(_of_each(by_example))


def _of_each(ids: Select[str]) -> ColumnElement[bool]:
    [example_id] = ids.selected_columns
    return ids.where(example_id == examples.c.id).correlate(examples).exists()


def _said(query: Query, status: str | None, *, by_example: bool) -> Select[str]:
    """Ids of the examples on which somebody's newest annotation says so, or anything.

    Written for the index to go through: example by example, or person by person.
    """
    newest = _is_newest()
    says = annotations.c.status == status if status else annotations.c.status != "withdrawn"
    ids = select(annotations.c.example_id).where(says, newest)
    if query.annotator is not None:
        ids = ids.where(annotations.c.annotator == query.annotator)
    if by_example:
        # Joined to nothing, or SQLite takes another index and reads all of the task for each.
        return ids.where(annotations.c.task.concat("") == query.task)
    if query.annotator is None:
        ids = ids.where(annotations.c.annotator.in_(_annotators(query.task)))
    return ids.where(annotations.c.task == query.task)


def _is_newest() -> ColumnElement[bool]:
    """Whether an annotation is the newest of its annotator."""
    later = annotations.alias()
    return ~exists().where(
        later.c.example_id == annotations.c.example_id,
        later.c.task == annotations.c.task,
        later.c.annotator == annotations.c.annotator,
        later.c.seq > annotations.c.seq,
    )


def _annotators(task: str | None) -> Select[str]:
    """Everybody who has annotated a task, each found behind the one before in the index."""
    of_task = annotations.c.task == task
    people = (
        select(func.min(annotations.c.annotator).label("name"))
        .where(of_task)
        .cte("people", recursive=True)
    )
    behind = of_task, annotations.c.annotator > people.c.name
    following = select(func.min(annotations.c.annotator)).where(*behind).scalar_subquery()
    people = people.union_all(select(following).where(people.c.name.is_not(None)))
    return select(people.c.name).where(people.c.name.is_not(None))


def _read(connection: Connection, seqs: Sequence[int]) -> list[Found]:
    """The examples of these places, in order."""
    rows = connection.execute(
        select(examples, exclusions.c.reason)
        .outerjoin(exclusions, exclusions.c.example_id == examples.c.id)
        .where(examples.c.seq.in_(seqs))
        .order_by(examples.c.seq)
    )
    return [
        Found(
            row.seq,
            row.id,
            Conversation.from_json(json.loads(row.conversation)),
            json.loads(row.metadata),
            row.source,
            row.received_at,
            row.reason,
        )
        for row in rows
    ]


def _holds(found: Found, query: Query) -> bool:
    """Whether the facts themselves are equal, and not only their hashes."""
    if query.source not in (None, found.source):
        return False
    known = set(facts(found.metadata)) if query.where else set()
    return all(fact in known for fact in query.where.items())
