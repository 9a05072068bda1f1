"""Settle what annotators answered: by a rule where they agree enough, else by a person.

A resolution is added, never changed; the newest is in force. What a person has decided, a rule
does not touch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from burnish.errors import InputError
from burnish.label.guidelines import RULE_PREFIX, checked_annotator
from burnish.records.answers import checked_answer
from burnish.store import Connection, Store
from burnish.store.answers import Resolution, add_resolutions, read_resolutions
from burnish.store.examples import read_example
from burnish.store.findings import exclude
from burnish.store.labelling import known_ids, newest_annotations, pages
from burnish.store.queue import settle_resolved
from burnish.tasks import ResolutionRule, Task
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


def decide(answers: Sequence[str], rule: ResolutionRule) -> str | None:
    """The answer the rule gives, or None where it gives none.

    Answers are equal when they are but for surrounding white space. `majority` wants more than half
    of them, so a tie stays open.
    """
    if not answers:
        return None
    answer, count = Counter(a.strip() for a in answers).most_common(1)[0]
    needed = len(answers) if rule == "unanimous" else len(answers) // 2 + 1
    return answer if count >= needed else None


def resolve(store: Store, task: Task) -> Resolved:
    """Settle by `task.rule` every example with two answers or more and all it wants.

    Run again it adds only what has changed since. An example with one answer needs no settling.
    """
    by = RULE_PREFIX + task.rule
    new: list[Resolution] = []
    with store.reading() as connection:
        in_force = resolutions_in_force(connection, task.name)
        for example_id, given in newest_annotations(connection, task.name):
            submitted = _submitted(given)
            if _is_flagged(given) or _is_settled(given, in_force.get(example_id)):
                continue
            if len(submitted) < max(2, task.overlap):
                continue
            answer = decide([a.answer for a in submitted], task.rule)
            if answer is not None:
                new.append(Resolution(example_id, task.name, answer, _ids(submitted), by))
    for page in pages(new):
        with store.writing() as connection:
            add_resolutions(connection, page, actor=by)
            settle_resolved(connection, task.name, [r.example_id for r in page])
    return Resolved(len(new), len(open_disputes(store, task)))


def adjudicate(store: Store, task: Task, decisions: Mapping[str, str], *, person: str) -> None:
    """Keep a named person's decisions (example id -> answer); they outrank every rule.

    Raises:
        InputError: no such example, or an answer that is empty or not among the choices; nothing
            is kept then.
    """
    person = checked_annotator(person)
    answers = {id_: checked_answer(answer, task) for id_, answer in decisions.items()}
    with store.writing() as connection:
        for page in pages(answers):
            for unknown in set(page) - known_ids(connection, page):
                raise InputError("there is no such example", where=unknown)
            given = dict(newest_annotations(connection, task.name, page))
            decided = [
                Resolution(
                    id_, task.name, answers[id_], _ids(_submitted(given.get(id_, []))), person
                )
                for id_ in page
            ]
            add_resolutions(connection, decided, actor=person)
            settle_resolved(connection, task.name, page)


def exclude_example(store: Store, example_id: str, reason: str, *, person: str) -> None:
    """Keep an example out of every later snapshot and out of the queue.

    Raises:
        InputError: no such example, or no reason.
    """
    if not reason.strip():
        raise InputError("an exclusion needs a reason", do="say why it should not be there")
    with store.writing() as connection:
        if not known_ids(connection, [example_id]):
            raise InputError("there is no such example", where=example_id)
        exclude(connection, {example_id: reason.strip()}, actor=checked_annotator(person))


def open_disputes(store: Store, task: Task) -> list[str]:
    """Ids of the examples a person must look at, in order of arrival."""
    with store.reading() as connection:
        in_force = resolutions_in_force(connection, task.name)
        return [
            example_id
            for example_id, given in newest_annotations(connection, task.name)
            if is_disputed(given, in_force.get(example_id))
        ]


def read_dispute(store: Store, task: Task, example_id: str) -> Dispute | None:
    """The example with what everybody said of it; None where there is no such example."""
    with store.reading() as connection:
        example = read_example(connection, example_id)
        given = dict(newest_annotations(connection, task.name, [example_id]))
    if example is None:
        return None
    said = [a for a in given.get(example_id, []) if a.status != "skipped"]
    return Dispute(example, tuple(said))


def resolutions_in_force(connection: Connection, task: str) -> dict[str, Resolution]:
    """The newest resolution of each example."""
    return {r.example_id: r for r in read_resolutions(connection, task=task)}


def is_disputed(given: Sequence[Annotation], resolution: Resolution | None) -> bool:
    """Whether answers differ or a flag is up, and nothing in force has settled it."""
    if _is_settled(given, resolution):
        return False
    return _is_flagged(given) or len({a.answer.strip() for a in _submitted(given)}) > 1


def _is_settled(given: Sequence[Annotation], resolution: Resolution | None) -> bool:
    """A person's decision stands; a rule's only on the answers it was made from."""
    if resolution is None or not resolution.resolved_by.startswith(RULE_PREFIX):
        return resolution is not None
    return resolution.annotation_ids == _ids(_submitted(given)) and not _is_flagged(given)


def _is_flagged(given: Sequence[Annotation]) -> bool:
    return any(a.status == "flagged" for a in given)


def _submitted(given: Sequence[Annotation]) -> list[Annotation]:
    return [a for a in given if a.status == "submitted"]


def _ids(given: Sequence[Annotation]) -> tuple[str, ...]:
    return tuple(sorted(a.client_id for a in given))
