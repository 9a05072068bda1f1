"""Settle what annotators answered: by a rule where they agree enough, else by a person.

A resolution is added, never changed; the newest is in force. What a person has decided, a rule
does not touch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from burnish.errors import InputError
from burnish.label.guidelines import checked_annotator
from burnish.label.rules import decide
from burnish.label.webhooks import announce
from burnish.progress import progress_bar
from burnish.records.answers import checked_answer
from burnish.store import Connection, Store
from burnish.store.answers import (
    RULE_PREFIX,
    Given,
    Resolution,
    add_resolutions,
    annotated_after,
    read_candidates,
    read_given,
)
from burnish.store.disputes import count_disputes, read_disputes
from burnish.store.examples import read_example
from burnish.store.labelled import examples_by_id
from burnish.store.labelling import check_known, pages
from burnish.store.queue_rows import lock_rows
from burnish.store.slots import settle_resolved
from burnish.tasks import Task
from burnish.types import Annotation, Example


@dataclass(frozen=True, slots=True)
class Resolved:
    """What `resolve` did."""

    added: int
    """Examples the rule settled now."""
    open: int
    """Examples a person must look at: answers differ, or somebody raised a flag."""


@dataclass(frozen=True, slots=True)
class Dispute:
    """An example a person must look at."""

    example: Example
    annotations: tuple[Annotation, ...]
    """Everybody's newest, skips left out."""


def resolve(store: Store, task: Task) -> Resolved:
    """Settle by `task.rule` every example with two answers or more and all it wants.

    What the rule means for the task's kind is told in `label.rules`. Run again it adds only what
    has changed since. An example with one answer needs no settling. Memory: a page of examples.
    """
    added = 0
    with progress_bar("resolving", unit=" examples", total=None) as bar:
        for ids in _annotated_pages(store, task):
            with store.reading() as connection:
                given = read_given(connection, task.name, ids)
            by_rule = _by_rule(given, task)
            if by_rule:
                with store.writing() as connection:
                    # An answer or a person's decision may have come since they were read.
                    lock_rows(connection, task.name, list(by_rule))
                    by_rule = _by_rule(read_given(connection, task.name, list(by_rule)), task)
                    _keep(connection, task, by_rule.values(), actor=RULE_PREFIX + task.rule)
            added += len(by_rule)
            bar.update(len(ids))
    with store.reading() as connection:
        return Resolved(added, count_disputes(connection, task.name))


def adjudicate(store: Store, task: Task, decisions: Mapping[str, str], *, person: str) -> None:
    """Keep a named person's decisions (example id -> answer); they outrank every rule.

    Raises:
        InputError: no such example, or no answer of the task's kind to it; nothing is kept then.
    """
    person = checked_annotator(person)
    with store.writing() as connection:
        # In one order, or two who decide on the same examples could wait for each other.
        for page in pages(sorted(decisions)):
            lock_rows(connection, task.name, page)
            check_known(connection, page)
            examples = examples_by_id(connection, page)
            candidates = read_candidates(connection, task, examples.values())
            given = read_given(connection, task.name, page)
            decided = []
            for id_ in page:
                ranked = candidates.get(id_, ())
                answer = _checked(decisions[id_], task, examples[id_], ranked)
                basis = _ids(given[id_].submitted)
                decided.append(Resolution(id_, task.name, answer, basis, person))
            _keep(connection, task, decided, actor=person)


def open_disputes(store: Store, task: Task) -> list[str]:
    """Ids of the examples a person must look at, in order of arrival."""
    with store.reading() as connection:
        return read_disputes(connection, task.name)


def read_dispute(store: Store, task: Task, example_id: str) -> Dispute | None:
    """The example with what everybody said of it; None where there is no such example."""
    with store.reading() as connection:
        example = read_example(connection, example_id)
        given = read_given(connection, task.name, [example_id])[example_id]
    if example is None:
        return None
    return Dispute(example, tuple(a for a in given.newest if a.status != "skipped"))


def _annotated_pages(store: Store, task: Task) -> Iterator[list[str]]:
    """Ids of the annotated examples, in order of arrival; each page of its own moment."""
    last = 0
    while True:
        with store.reading() as connection:
            page = annotated_after(connection, task.name, last)
        if not page:
            return
        yield list(page)
        last = max(page.values())


def _by_rule(given: Mapping[str, Given], task: Task) -> dict[str, Resolution]:
    """The examples that the rule settles now."""
    settled = {}
    for id_, said in given.items():
        submitted = said.submitted
        if said.is_settled or said.is_flagged or len(submitted) < max(2, task.overlap):
            continue
        answer = decide([a.answer for a in submitted], task)
        if answer is not None:
            by = RULE_PREFIX + task.rule
            settled[id_] = Resolution(id_, task.name, answer, _ids(submitted), by)
    return settled


def _keep(
    connection: Connection, task: Task, settled: Collection[Resolution], *, actor: str
) -> None:
    add_resolutions(connection, settled, actor=actor)
    settle_resolved(connection, task, [r.example_id for r in settled])
    announce(connection, "example.resolved", *map(asdict, settled))


def _checked(answer: str, task: Task, example: Example, candidates: Sequence[str]) -> str:
    try:
        return checked_answer(answer, task, example, candidates)
    except InputError as error:
        raise InputError(error.what, where=f"example {example.id}", do=error.do) from None


def _ids(given: Sequence[Annotation]) -> tuple[str, ...]:
    return tuple(sorted(a.client_id for a in given))
