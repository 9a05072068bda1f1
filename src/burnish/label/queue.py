"""Ask and be answered: each example gets as many answers as it wants, from different people.

What holds, whoever crashes, retries, double-clicks or loses the network:
- An example is shown to at most `overlap` people at a time, and to nobody twice. A lease that runs
  out gives its slot back.
- A submit is one transaction, known by its client-made id: sent twice, it is one annotation.
- Nothing sent is thrown away. An answer that comes after its lease went to somebody else is kept
  and counts; only so can an example have more answers than `overlap`.
- A second answer from the same person is an amendment: both are kept, the newest counts. Who takes
  their answer back has said nothing, and gets the example again.
- Gold items stand outside all of this: everybody gets each of them once at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from time import monotonic

from burnish.errors import InputError
from burnish.hashing import text_hash
from burnish.label.drafts import with_edit_distance
from burnish.label.guidelines import checked_annotator
from burnish.label.webhooks import announce
from burnish.project import timestamp
from burnish.records.answers import checked_answer, checked_text
from burnish.store import Connection, Store
from burnish.store.annotations import add_annotations
from burnish.store.answers import read_candidates
from burnish.store.drafts import Draft, read_drafts
from burnish.store.examples import count_examples, read_example
from burnish.store.findings import count_exclusions
from burnish.store.labelling import (
    annotations_by_client_id,
    count_annotated,
    newest_by,
    newest_standing,
)
from burnish.store.queue import (
    Asking,
    find_open,
    lease_again,
    lease_next,
)
from burnish.store.queue_order import count_gold
from burnish.store.queue_rows import count_taken, fill_queue
from burnish.store.slots import settle_slots
from burnish.store.users import was_shown
from burnish.tasks import Task
from burnish.types import Annotation, Example

# How many examples enter the queue at a time: 10 ms of work, once in so many requests.
_WINDOW = 1000

# Counting a million rows takes 50 ms. From this many examples on a count is shown again for so many
# times as long as it took.
_MANY, _REST = 20_000, 100
_counts: dict[tuple[str, str, int], tuple[tuple[int, int, int], float]] = {}


@dataclass(frozen=True, slots=True)
class Item:
    """An example for an annotator to work on, theirs until the lease runs out."""

    example: Example
    drafts: tuple[Draft, ...]
    """What models proposed, in order of arrival."""
    lease_expires_at: str
    """ISO 8601 in UTC."""
    previous: Annotation | None
    """What the annotator had said of it and took back."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submit."""

    annotation: Annotation
    is_new: bool
    """False for a submit that had arrived before."""


def next_item(store: Store, task: Task, annotator: str, *, now: datetime) -> Item | None:
    """The next example for an annotator, leased to them for `task.lease_seconds`.

    Asked again before they answer, it is the same example, leased anew. What is assigned to them
    comes first; then examples that others have begun; then untouched ones, by priority and order of
    arrival. None where nothing is left for them; examples that others are working on may come back.

    Raises:
        InputError: the annotator's name cannot be used.
    """
    annotator = checked_annotator(annotator)
    asking = _asking(task, annotator, now)
    lease = partial(_lease_next, asking=asking)
    item = store.write(lease)
    while item is None and _fill(store, task):
        item = store.write(lease)
    while item is None:
        # Few are left that they have not had. The search may take seconds in a large project (2.4 s
        # through 310,000 examples on a busy machine); it does not keep others from writing.
        with store.reading() as connection:
            found = find_open(connection, asking, scan=None)
        if not found:
            return None
        item = store.write(partial(lease, found=found))
    return item


def _lease_next(
    connection: Connection, asking: Asking, found: Sequence[str] | None = None
) -> Item | None:
    # Read where it is leased: three statements are less than a transaction of their own.
    example_id = lease_next(connection, asking, found)
    if example_id is None:
        return None
    example = read_example(connection, example_id)
    assert example is not None, "a lease has its example"
    drafts = read_drafts(connection, asking.task, [example_id]).get(example_id, [])
    previous = newest_by(connection, asking.task, asking.annotator, example_id)
    return Item(example, tuple(drafts), asking.expires_at, previous)


def submit(
    store: Store,
    task: Task,
    annotation: Annotation,
    *,
    now: datetime,
    guideline_version: str = "",
    only_shown: bool = False,
) -> Submitted:
    """Keep an annotator's answer, skip or flag; of a submit sent twice, the first.

    `guideline_version` is kept with an annotation that names none. With `only_shown` the annotator
    must have been given the example by the queue, however long ago.

    Raises:
        InputError: no such example, no answer of the task's kind to it, a name that cannot be used,
            a client id that came with another annotation, or an example not shown to them.
    """
    if not 0 < len(annotation.client_id) <= 128:
        raise InputError("a client id has 1 to 128 characters", do="send a UUID")
    if annotation.status == "withdrawn":
        raise InputError("an answer is not withdrawn by a submit", do="undo it")
    annotation = replace(
        annotation,
        task=task.name,
        annotator=checked_annotator(annotation.annotator),
        created_at=timestamp(now),
    )
    with store.looking() as connection:
        if only_shown:
            _check_shown(connection, annotation)
        annotation = _checked(connection, task, annotation)
    named = annotation.guideline_version
    annotation = replace(annotation, guideline_version=named or guideline_version)

    def keep(connection: Connection) -> Submitted:
        if add_annotations(connection, [annotation], actor=annotation.annotator):
            settle_slots(connection, task, [annotation])
            announce(connection, "annotation.created", asdict(annotation))
            return Submitted(annotation, is_new=True)
        known = annotations_by_client_id(connection, [annotation.client_id])
        return Submitted(known[annotation.client_id], is_new=False)

    submitted = store.write(keep)
    # Sent again without a version, it may come under newer guidelines than the first time.
    kept = submitted.annotation
    sent = replace(annotation, guideline_version=named or kept.guideline_version)
    if replace(kept, created_at=sent.created_at) != sent:
        raise InputError(
            "this client id came with another annotation",
            where=annotation.client_id,
            do="make a new id (a UUID) for each annotation",
        )
    return submitted


def undo_last(
    store: Store, task: Task, annotator: str, *, now: datetime, client_id: str | None = None
) -> Annotation | None:
    """Take back the last thing an annotator said, and lease its example to them again.

    With the `client_id` of the annotation meant, an undo sent twice takes back one. Both stay in
    the store; an annotation of status `withdrawn` is added. An example that others have completed
    since (after a skip) is not leased again. None where there is nothing to take back.

    Raises:
        InputError: the annotator's name cannot be used.
    """
    asking = _asking(task, checked_annotator(annotator), now)

    def withdraw(connection: Connection) -> Annotation | None:
        last = newest_standing(connection, task.name, asking.annotator)
        if last is None or client_id not in (None, last.client_id):
            return None
        withdrawn = replace(
            last,
            answer="",
            client_id=f"undo-{text_hash(last.client_id)}",
            seconds=None,
            status="withdrawn",
            created_at=asking.now,
            draft_id=None,
            edit_distance=None,
        )
        # Two undos at once withdraw one annotation: the second finds it withdrawn.
        if add_annotations(connection, [withdrawn], actor=asking.annotator, action="withdraw"):
            settle_slots(connection, task, [withdrawn])
            lease_again(connection, asking, last.example_id)
            announce(connection, "annotation.withdrawn", asdict(last))
        return last

    return store.write(withdraw)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one annotator and everybody are; cheap enough to show beside each example."""

    mine: int
    """Examples the annotator has answered, skipped or flagged."""
    taken: int
    """Examples that want nobody more: answered, being answered, flagged or resolved."""
    examples: int
    """Excluded ones and gold items left out."""
    excluded: int


def progress_of(store: Store, task: Task, annotator: str) -> Progress:
    """Count for an annotator; what everybody did may be some seconds old in a large project."""
    with store.reading() as connection:
        mine = count_annotated(connection, task.name, annotator)
    return Progress(mine, *_count_all(store, task))


def _count_all(store: Store, task: Task) -> tuple[int, int, int]:
    key = (str(store.engine.url), task.name, task.overlap)
    counted, fresh_until = _counts.get(key, ((0, 0, 0), 0.0))
    began = monotonic()
    if began < fresh_until:
        return counted
    with store.reading() as connection:
        excluded = count_exclusions(connection)
        examples = count_examples(connection) - excluded - count_gold(connection, task.name)
        counted = (count_taken(connection, task.name, task.overlap), examples, excluded)
    if examples >= _MANY:
        now = monotonic()
        _counts[key] = (counted, now + _REST * (now - began))
    return counted


def _fill(store: Store, task: Task) -> bool:
    return store.write(partial(fill_queue, task=task.name, count=_WINDOW))


def _asking(task: Task, annotator: str, now: datetime) -> Asking:
    until = now + timedelta(seconds=task.lease_seconds)
    return Asking(
        task.name, annotator, task.overlap, task.gold_every, timestamp(now), timestamp(until)
    )


def _check_shown(connection: Connection, annotation: Annotation) -> None:
    annotator, example_id = annotation.annotator, annotation.example_id
    if not was_shown(connection, annotator, example_id, task=annotation.task):
        raise InputError(
            f"this example was never shown to {annotator}",
            where=example_id,
            do="answer what the queue gives you; who imports labels may answer any",
        )


def _checked(connection: Connection, task: Task, annotation: Annotation) -> Annotation:
    """The annotation as it is kept; a skip or a flag may carry a note, or nothing."""
    example = read_example(connection, annotation.example_id)
    if example is None:
        raise InputError("there is no such example", where=annotation.example_id)
    if annotation.status == "submitted":
        candidates = read_candidates(connection, task, [example]).get(example.id, ())
        answer = checked_answer(annotation.answer, task, example, candidates)
        annotation = replace(annotation, answer=answer)
    else:
        checked_text(annotation.answer)
    return with_edit_distance(connection, task, annotation)
