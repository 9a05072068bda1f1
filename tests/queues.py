"""What the tests of the queue share: a full store, answers, people who work it off."""

import uuid
from datetime import UTC, datetime, timedelta

from burnish.label.queue import next_item, submit
from burnish.store.annotations import add_annotations, read_annotations
from burnish.store.examples import add_examples
from burnish.store.labelling import pages
from burnish.store.slots import settle_slots
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example, Message

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def example(number: int) -> Example:
    return Example(Conversation((Message("user", f"question {number}"),)), source="test")


def fill(store, count: int) -> list[Example]:
    examples = [example(n) for n in range(count)]
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")
    return examples


def answer(of: Example | str, annotator: str, text: str = "yes", **fields) -> Annotation:
    id_ = of if isinstance(of, str) else of.id
    client_id = fields.pop("client_id", None) or uuid.uuid4().hex
    return Annotation(id_, "answer", text, annotator, client_id, **fields)


def annotations_of(store) -> list[Annotation]:
    with store.reading() as connection:
        return list(read_annotations(connection))


def import_answers(store, task: Task, answers: list[Annotation]) -> None:
    """As an import does it: a page at a time."""
    for page in pages(answers):
        with store.writing() as connection:
            add_annotations(connection, page, actor="import")
            settle_slots(connection, task, page)


def next_example(store, task: Task, annotator: str, *, now: datetime) -> Example | None:
    item = next_item(store, task, annotator, now=now)
    return None if item is None else item.example


def label_all(store, task: Task, annotator: str, now: datetime = NOON) -> list[str]:
    """Answer until nothing is left; the ids in the order they came."""
    seen = []
    while (item := next_item(store, task, annotator, now=now)) is not None:
        submit(store, task, answer(item.example, annotator), now=now)
        seen.append(item.example.id)
    return seen


def ids(examples) -> list[str]:
    return [e.id for e in examples]
