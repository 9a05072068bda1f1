"""One action on many examples: on these ids, or on everything that a search finds.

Each works through its examples in pages, and each page is one transaction with an entry in the log.
After a kill the same action does the rest; what was done already stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from burnish.errors import InputError
from burnish.label.guidelines import checked_annotator
from burnish.label.order import assign, known_pages, set_gold, set_priorities
from burnish.progress import progress_bar
from burnish.records.answers import checked_answer, compared
from burnish.store import Store
from burnish.store.answers import Given, read_given
from burnish.store.examples import PAGE
from burnish.store.findings import exclude, include_again
from burnish.store.labelled import examples_by_id
from burnish.store.search import Query, find
from burnish.tasks import Task
from burnish.types import Example

Chosen = Query | Collection[str]
"""Everything a query finds, or the examples with these ids."""


@dataclass(frozen=True, slots=True)
class MadeGold:
    """What `make_gold` did."""

    made: int
    """Examples that are gold items now."""
    without_answer: int
    """Examples it left alone, as they have no one answer of the task's kind."""


def exclude_all(store: Store, chosen: Chosen, reason: str, *, actor: str) -> int:
    """Keep examples out of every later snapshot and out of the queue; returns how many are new.

    Raises:
        InputError: no reason, no such example, or a name that cannot be used.
    """
    actor, reason = checked_annotator(actor), reason.strip()
    if not reason:
        raise InputError("an exclusion needs a reason", do="say why they should not be there")
    excluded = 0
    for page in _pages(store, chosen, "excluding"):
        reasons = dict.fromkeys(page, reason)
        excluded += store.write(partial(exclude, reasons=reasons, actor=actor))
    return excluded


def include_all(store: Store, tasks: Iterable[Task], chosen: Chosen, *, actor: str) -> int:
    """Let excluded examples take part again in all of the project's tasks; returns how many.

    Raises:
        InputError: no such example, or a name that cannot be used.
    """
    actor, tasks, included = checked_annotator(actor), list(tasks), 0
    for page in _pages(store, chosen, "including"):
        included += store.write(partial(include_again, ids=page, tasks=tasks, actor=actor))
    return included


def assign_all(
    store: Store, task: Task, chosen: Chosen, annotators: Collection[str], *, actor: str
) -> int:
    """Let these people get these examples, and nobody else; returns how many examples they are.

    Raises:
        InputError: no such example, nobody named, a name that cannot be used, or nobody's in a
            project that has users.
    """
    actor, assigned = checked_annotator(actor), 0
    for page in _pages(store, chosen, "assigning"):
        assign(store, task, page, annotators, actor)
        assigned += len(page)
    return assigned


def prioritise_all(store: Store, task: Task, chosen: Chosen, priority: float, *, actor: str) -> int:
    """Give examples this place in the queue, the highest first; returns how many they are.

    Raises:
        InputError: no such example, or a priority that is no number.
    """
    actor, ranked = checked_annotator(actor), 0
    for page in _pages(store, chosen, "ordering"):
        set_priorities(store, task, dict.fromkeys(page, priority), actor)
        ranked += len(page)
    return ranked


def make_gold(
    store: Store, task: Task, chosen: Chosen, answer: str | None = None, *, actor: str
) -> MadeGold:
    """Make examples gold items, with this answer or each with the one it has.

    That is what was decided on, else what everybody answered, else the example's own.

    Raises:
        InputError: no such example, or `answer` is none of the task's kind to one of them.
    """
    actor, made, without = checked_annotator(actor), 0, 0
    for page in _pages(store, chosen, "making gold"):
        answers = dict.fromkeys(page, answer) if answer else _answers(store, task, page)
        known = {id_: text for id_, text in answers.items() if text is not None}
        if known:
            set_gold(store, task, known, actor)
        made += len(known)
        without += len(page) - len(known)
    return MadeGold(made, without)


def _pages(store: Store, chosen: Chosen, what: str) -> Iterator[list[str]]:
    found = _found_pages(store, chosen) if isinstance(chosen, Query) else known_pages(store, chosen)
    with progress_bar(what, unit=" examples", total=None) as bar:
        for page in found:
            yield page
            bar.update(len(page))


def _found_pages(store: Store, query: Query) -> Iterator[list[str]]:
    query = replace(query, limit=PAGE)
    while True:
        with store.reading() as connection:
            found = find(connection, query)
        if found:
            yield [example.id for example in found]
        if len(found) < PAGE:
            return
        query = replace(query, after=found[-1].seq)


def _answers(store: Store, task: Task, page: Collection[str]) -> dict[str, str | None]:
    """The answer each example has, None where it has none or several."""
    with store.reading() as connection:
        given = read_given(connection, task.name, page)
        examples = examples_by_id(connection, page)
    return {id_: _answer(examples[id_], given[id_], task) for id_ in page}


def _answer(example: Example, given: Given, task: Task) -> str | None:
    if given.is_settled or given.is_flagged:
        return given.settled_answer
    said = {compared(annotation.answer, task): annotation.answer for annotation in given.submitted}
    if said:
        return next(iter(said.values())) if len(said) == 1 else None
    own = example.conversation.answer
    if own is None:
        return None
    try:
        return checked_answer(own.content, task, example)
    except InputError:
        return None
