"""Ask and be answered: each example gets as many answers as it wants, from different people.

What holds, whoever crashes, retries, double-clicks or loses the network:
- An example is shown to at most `overlap` people at a time, and to nobody twice. A lease that runs
  out gives its slot back.
- A submit is one transaction, known by its client-made id: sent twice, it is one annotation.
- Nothing sent is thrown away. An answer that comes after its lease went to somebody else is kept
  and counts; only so can an example have more answers than `overlap`.
- A second answer from the same person is an amendment: both are kept, the newest counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from burnish.errors import InputError
from burnish.label.guidelines import checked_annotator
from burnish.records.answers import checked_answer, checked_text
from burnish.store import Store
from burnish.store.annotations import add_annotations
from burnish.store.examples import count_examples, read_example
from burnish.store.findings import count_exclusions
from burnish.store.labelling import annotations_by_client_id, count_annotated
from burnish.store.queue import count_taken, lease_next, settle_slots
from burnish.tasks import Task
from burnish.types import Annotation, Example


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of a submit."""

    annotation: Annotation
    is_new: bool
    """False for a submit that had arrived before."""


def next_example(store: Store, task: Task, annotator: str, *, now: datetime) -> Example | None:
    """The next example for an annotator, leased to them for `task.lease_seconds`.

    Asked again before they answer, it is the same example, leased anew. Examples that others have
    begun come first, then untouched ones in order of arrival. None where nothing is left for them;
    examples that others are working on may come back.

    Raises:
        InputError: the annotator's name cannot be used.
    """
    annotator = checked_annotator(annotator)
    with store.writing() as connection:
        example_id = lease_next(
            connection,
            task=task.name,
            annotator=annotator,
            overlap=task.overlap,
            now=_timestamp(now),
            expires_at=_timestamp(now + timedelta(seconds=task.lease_seconds)),
        )
        return read_example(connection, example_id) if example_id is not None else None


def submit(store: Store, task: Task, annotation: Annotation, *, now: datetime) -> Submitted:
    """Keep an annotator's answer, skip or flag; of a submit sent twice, the first.

    Raises:
        InputError: no such example, an answer that is empty or not among the choices, a name that
            cannot be used, or a client id that came with another annotation.
    """
    annotation = replace(
        annotation,
        task=task.name,
        annotator=checked_annotator(annotation.annotator),
        answer=_checked(annotation, task),
        created_at=_timestamp(now),
    )
    with store.writing() as connection:
        if read_example(connection, annotation.example_id) is None:
            raise InputError("there is no such example", where=annotation.example_id)
        if add_annotations(connection, [annotation], actor=annotation.annotator):
            settle_slots(connection, task.name, [annotation])
            return Submitted(annotation, is_new=True)
        kept = annotations_by_client_id(connection, [annotation.client_id])[annotation.client_id]
    if replace(kept, created_at=annotation.created_at) != annotation:
        raise InputError(
            "this client id came with another annotation",
            where=annotation.client_id,
            do="make a new id (a UUID) for each annotation",
        )
    return Submitted(kept, is_new=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one annotator and everybody are; cheap enough to show beside each example."""

    mine: int
    """Examples the annotator has answered, skipped or flagged."""
    taken: int
    """Examples that want nobody more: answered, being answered, flagged or resolved."""
    examples: int
    """Excluded ones left out."""


def progress_of(store: Store, task: Task, annotator: str) -> Progress:
    """Count for an annotator."""
    with store.reading() as connection:
        return Progress(
            mine=count_annotated(connection, task.name, annotator),
            taken=count_taken(connection, task.name, task.overlap),
            examples=count_examples(connection) - count_exclusions(connection),
        )


def _checked(annotation: Annotation, task: Task) -> str:
    """The answer as it is kept; a skip or a flag may carry a note, or nothing."""
    if not 0 < len(annotation.client_id) <= 128:
        raise InputError("a client id has 1 to 128 characters", do="send a UUID")
    if annotation.status == "submitted":
        return checked_answer(annotation.answer, task)
    checked_text(annotation.answer)
    return annotation.answer


def _timestamp(time: datetime) -> str:
    """As `project.utc_now` writes it: texts in this form sort by time."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds")
