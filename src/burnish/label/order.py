"""Order the queue: by priority, by what is in dispute or unlike the rest; for whom; gold items.

Priorities may come from anywhere: a tuned model's loss or uncertainty (`nn.score`), or one of the
two orders here. The highest comes first; examples without one come after, in order of arrival.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from burnish.config import did_you_mean
from burnish.errors import InputError
from burnish.hashing import text_hash
from burnish.label.agreement.text import edit_distance
from burnish.label.guidelines import checked_annotator
from burnish.progress import progress
from burnish.records.answers import checked_answer, compared
from burnish.store import Connection, Store, queue_order
from burnish.store.answers import read_candidates, read_given
from burnish.store.drafts import read_drafts
from burnish.store.examples import PAGE, count_examples, example_pages
from burnish.store.labelled import examples_by_id
from burnish.store.labelling import check_known, pages
from burnish.store.queue_order import (
    add_assignments,
    add_gold,
    add_priorities,
    read_prioritised,
    remove_assignments,
    remove_priorities,
)
from burnish.store.users import read_users
from burnish.tasks import Task
from burnish.types import Example

# Prompts fall into 2 to this power groups. More would put every prompt of a small set on its own.
_SKETCH_BITS = 12
# Words are counted by their hash in so many places.
_COUNTED_WORDS = 1 << 18
_WORD = re.compile(r"\w+")


def set_priorities(store: Store, task: Task, priorities: Mapping[str, float], actor: str) -> None:
    """Give examples (id -> priority) their place in the queue; the highest comes first.

    Raises:
        InputError: no such example, or a priority that is no number.
    """
    for example_id, priority in priorities.items():
        if not math.isfinite(priority):
            raise InputError(f"no priority: {priority}", where=f"example {example_id}")
    for page in _known_pages(store, priorities, "ordering"):
        ranked = {id_: float(priorities[id_]) for id_ in page}
        store.write(partial(add_priorities, task=task.name, ranked=ranked, actor=actor))


def order_by_arrival(store: Store, task: Task, actor: str) -> None:
    """Take every priority away."""
    while True:
        with store.reading() as connection:
            page = read_prioritised(connection, task.name, limit=PAGE)
        if not page:
            return
        store.write(partial(remove_priorities, task=task.name, ids=page, actor=actor))


def order_by_disagreement(store: Store, task: Task, actor: str) -> int:
    """Put first what drafts and answers disagree about the most; returns how many are ordered.

    An example's priority is the mean distance of its opinions, two by two: of texts the normalised
    edit distance, of other kinds 0 where they are equal and 1 where not. Opinions are one draft of
    each model and everybody's newest answer; examples with fewer than two keep their place. A
    committee to query: Seung, Opper and Sompolinsky, COLT 1992.
    """
    ranked: dict[str, float] = {}
    with store.reading() as connection:
        for page in _example_pages(connection, "comparing opinions"):
            opinions = _opinions(connection, task, [example.id for example in page])
            ranked |= {id_: _disagreement(texts, task) for id_, texts in opinions.items()}
    set_priorities(store, task, ranked, actor)
    return len(ranked)


def order_by_diversity(store: Store, task: Task, actor: str) -> int:
    """Put first one prompt of each group of alike prompts, then a second of each, and so on.

    Prompts are grouped by a random-hyperplane sketch of their words (Charikar, STOC 2002), each
    word weighted by how rare it is, so that what all prompts share groups nothing; nor does what
    stands in one alone. Returns how many examples are ordered: all of them. Memory: 150 bytes an
    example.
    """
    found_in = np.zeros(_COUNTED_WORDS, np.int64)
    members: Counter[int] = Counter()
    ranked: dict[str, float] = {}
    with store.reading() as connection:
        for page in _example_pages(connection, "counting words"):
            for example in page:
                found_in[[_place(word) for word in _words(example)]] += 1
        total = count_examples(connection)
        rarity = np.where(found_in > 1, np.log((1 + total) / (1 + found_in)), 0)
        for page in _example_pages(connection, "grouping prompts"):
            for example in page:
                group = _sketch(_words(example), rarity)
                ranked[example.id] = -float(members[group])
                members[group] += 1
    set_priorities(store, task, ranked, actor)
    return len(ranked)


def assign(
    store: Store, task: Task, example_ids: Collection[str], annotators: Collection[str], actor: str
) -> None:
    """Let these people get these examples, before all others, and nobody else get them.

    Raises:
        InputError: no such example, nobody named, a name that cannot be used, or nobody's in a
            project that has users.
    """
    names = [checked_annotator(name) for name in annotators]
    if not names:
        raise InputError("nobody to assign to", do="name one annotator or more")
    with store.reading() as connection:
        users = [user.name for user in read_users(connection) if user.active]
    for name in names if users else ():
        if name not in users:
            raise InputError(
                f"there is no user {name!r}{did_you_mean(name, users)}",
                do="assign to somebody who may sign in: `burnish users list` shows them",
            )
    for page in _known_pages(store, example_ids, "assigning"):
        store.write(
            partial(add_assignments, task=task.name, ids=page, annotators=names, actor=actor)
        )


def unassign(
    store: Store,
    task: Task,
    example_ids: Collection[str],
    actor: str,
    annotators: Collection[str] | None = None,
) -> None:
    """Take examples from these people, or from all of them; with nobody left anybody gets them.

    Raises:
        InputError: no such example.
    """
    for page in _known_pages(store, example_ids, "unassigning"):
        store.write(
            partial(
                remove_assignments,
                task=task.name,
                ids=page,
                annotators=annotators,
                actor=actor,
            )
        )


def set_gold(store: Store, task: Task, answers: Mapping[str, str], actor: str) -> None:
    """Make examples gold items: their answer (id -> answer) is known, and annotators are tested.

    Raises:
        InputError: no such example, or no answer of the task's kind to it; nothing is kept then.
    """
    checked = {}
    with store.reading() as connection:
        for page in pages(answers):
            check_known(connection, page)
            examples = examples_by_id(connection, page)
            candidates = read_candidates(connection, task, examples.values())
            for id_ in page:
                ranked = candidates.get(id_, ())
                checked[id_] = checked_answer(answers[id_], task, examples[id_], ranked)
    for page in pages(checked):
        known = {id_: checked[id_] for id_ in page}
        store.write(partial(add_gold, task=task, answers=known, actor=actor))


def remove_gold(store: Store, task: Task, example_ids: Collection[str], actor: str) -> None:
    """Let gold items be ordinary examples again.

    Raises:
        InputError: no such example.
    """
    for page in _known_pages(store, example_ids, "removing gold"):
        store.write(partial(queue_order.remove_gold, task=task, ids=page, actor=actor))


def known_pages(store: Store, ids: Iterable[str]) -> Iterator[list[str]]:
    """Pages of the ids, each once; all are looked up before the first page is given.

    Raises:
        InputError: one of them is no example's.
    """
    unique = list(dict.fromkeys(ids))
    with store.reading() as connection:
        for page in pages(unique):
            check_known(connection, page)
    yield from pages(unique)


def _known_pages(store: Store, ids: Collection[str], what: str) -> Iterable[list[str]]:
    total = -(-len(ids) // PAGE)
    return progress(known_pages(store, ids), what, unit=" pages", total=total)


def _example_pages(connection: Connection, what: str) -> Iterable[list[Example]]:
    total = -(-count_examples(connection) // PAGE)
    return progress(example_pages(connection), what, unit=" pages", total=total)


def _opinions(connection: Connection, task: Task, ids: Collection[str]) -> dict[str, list[str]]:
    """What models and annotators would answer, for examples with two opinions or more."""
    drafted = read_drafts(connection, task.name, ids)
    given = read_given(connection, task.name, ids)
    opinions = {}
    for id_ in ids:
        newest = {draft.model: draft.text for draft in drafted.get(id_, ())}
        texts = [*newest.values(), *(a.answer for a in given[id_].submitted)]
        if len(texts) > 1:
            opinions[id_] = texts
    return opinions


def _disagreement(texts: Collection[str], task: Task) -> float:
    """The mean distance of two of the texts, 0 to 1."""
    distances = [_distance(a, b, task) for a, b in combinations(texts, 2)]
    return sum(distances) / len(distances)


def _distance(one: str, other: str, task: Task) -> float:
    if task.kind in ("write", "edit"):
        return edit_distance(one.strip(), other.strip())
    return float(compared(one, task) != compared(other, task))


def _words(example: Example) -> set[str]:
    """The different words of a prompt, lower case."""
    texts = (message.content for message in example.conversation.prompt.messages)
    return set(_WORD.findall(" ".join(texts).lower()))


def _sketch(words: Collection[str], rarity: NDArray[np.float64]) -> int:
    """On which side of each random plane the weighted sum of the words lies, as one number."""
    total = np.zeros(_SKETCH_BITS)
    for word in words:
        total += rarity[_place(word)] * _side(word)
    bits = total > 0
    return int(bits @ (1 << np.arange(_SKETCH_BITS)))


@lru_cache(maxsize=1 << 17)
def _place(word: str) -> int:
    return int(text_hash(word)[:8], 16) % _COUNTED_WORDS


@lru_cache(maxsize=1 << 17)
def _side(word: str) -> NDArray[np.float64]:
    """A word's sides of the random planes, each +1 or -1."""
    number = int(text_hash(word)[8:16], 16)
    return np.array([1.0 if number >> bit & 1 else -1.0 for bit in range(_SKETCH_BITS)])
