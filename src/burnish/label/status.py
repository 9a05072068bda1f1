"""How far the labelling is: what is done, by whom, how well they agree, and the time left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from burnish.label.agreement import Agreement, Answers, agreement
from burnish.label.resolve import is_disputed, resolutions_in_force
from burnish.store import Store
from burnish.store.answers import Resolution
from burnish.store.examples import count_examples
from burnish.store.findings import count_exclusions, read_exclusions
from burnish.store.labelling import newest_annotations
from burnish.tasks import Task
from burnish.types import Annotation


@dataclass(frozen=True, slots=True)
class AnnotatorStatus:
    """One annotator's work; of several annotations of one example the newest counts."""

    annotator: str
    submitted: int
    skipped: int
    flagged: int
    agreement: float | None
    """Share of their answers equal to the resolved one (0 to 1), on examples that two or more
    people answered and that are resolved; None where there are none."""
    resolved: int
    """How many examples that rests on."""
    median_seconds: float | None
    """Per answer; None where no time was measured."""


@dataclass(frozen=True, slots=True)
class LabelStatus:
    """The state of one task."""

    task: str
    overlap: int
    examples: int
    """Excluded ones left out."""
    complete: int
    """Have all the answers they want, or are resolved."""
    begun: int
    """Have some of them."""
    disputed: int
    """Wait for a person: answers differ or a flag is up, and nothing has settled it."""
    resolved: int
    answers: int
    """Submitted, the newest of each annotator."""
    surplus: int
    """Answers beyond `overlap`: imported, or sent after the lease had gone to somebody else."""
    answers_left: int
    """Wanted by examples that are neither complete nor disputed."""
    seconds_left: float | None
    """A person's time for them: median seconds × answers left; None where none was measured."""
    annotators: Sequence[AnnotatorStatus]
    agreement: Agreement


def label_status(store: Store, task: Task) -> LabelStatus:
    """Count everything in one pass over the annotations, all of it from the same moment."""
    tally = _Tally(task.overlap)
    with store.reading() as connection:
        examples = count_examples(connection) - count_exclusions(connection)
        in_force = resolutions_in_force(connection, task.name)
        resolved = len(in_force)
        for example_id, given in newest_annotations(connection, task.name):
            tally.add(given, in_force.pop(example_id, None))
        # A person may decide what nobody has annotated.
        for example_id in in_force.keys() - read_exclusions(connection).keys():
            tally.add([], in_force[example_id])
    seconds = [s for person in tally.people.values() for s in person.seconds]
    answers_left = examples * task.overlap - tally.settled_answers
    return LabelStatus(
        task=task.name,
        overlap=task.overlap,
        examples=examples,
        complete=tally.complete,
        begun=tally.begun,
        disputed=tally.disputed,
        resolved=resolved,
        answers=sum(person.submitted for person in tally.people.values()),
        surplus=tally.surplus,
        answers_left=answers_left,
        seconds_left=median(seconds) * answers_left if seconds else None,
        annotators=[person.status(name) for name, person in sorted(tally.people.items())],
        agreement=agreement(tally.ratings),
    )


@dataclass(slots=True)
class _Person:
    submitted: int = 0
    skipped: int = 0
    flagged: int = 0
    resolved: int = 0
    agreeing: int = 0
    seconds: list[float] = field(default_factory=list)

    def status(self, annotator: str) -> AnnotatorStatus:
        return AnnotatorStatus(
            annotator,
            self.submitted,
            self.skipped,
            self.flagged,
            self.agreeing / self.resolved if self.resolved else None,
            self.resolved,
            median(self.seconds) if self.seconds else None,
        )


@dataclass(slots=True)
class _Tally:
    overlap: int
    complete: int = 0
    begun: int = 0
    disputed: int = 0
    surplus: int = 0
    settled_answers: int = 0
    """How many of the answers wanted need nobody any more."""
    people: dict[str, _Person] = field(default_factory=dict)
    ratings: list[Answers] = field(default_factory=list)

    def add(self, given: Sequence[Annotation], resolution: Resolution | None) -> None:
        answers = {a.annotator: a.answer.strip() for a in given if a.status == "submitted"}
        disputed = is_disputed(given, resolution)
        complete = resolution is not None or len(answers) >= self.overlap
        self.complete += complete
        self.begun += bool(answers) and not complete
        self.disputed += disputed
        self.surplus += max(0, len(answers) - self.overlap)
        self.settled_answers += self.overlap if complete or disputed else len(answers)
        if len(answers) > 1:
            self.ratings.append(answers)
        for annotation in given:
            person = self.people.setdefault(annotation.annotator, _Person())
            match annotation.status:
                case "submitted":
                    person.submitted += 1
                case "skipped":
                    person.skipped += 1
                case "flagged":
                    person.flagged += 1
            if annotation.status == "submitted" and annotation.seconds is not None:
                person.seconds.append(annotation.seconds)
            if annotation.status == "submitted" and resolution is not None and len(answers) > 1:
                person.resolved += 1
                person.agreeing += answers[annotation.annotator] == resolution.answer.strip()
