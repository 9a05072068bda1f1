"""The work of the queue does not grow with the project. Run: pytest tests/test_queue_size.py"""

import random

import pytest
from sqlalchemy import event

from burnish.label.order import (
    assign,
    remove_gold,
    set_gold,
    set_priorities,
    unassign,
)
from burnish.label.queue import next_item, submit
from burnish.store import open_store
from burnish.store.annotations import add_annotations
from burnish.store.labelling import pages
from burnish.store.queue_rows import fill_queue
from burnish.store.slots import settle_slots
from burnish.tasks import Task
from queues import (
    NOON,
    answer,
    fill,
)


def counted_steps(store) -> list[int]:
    """Goes on counting the steps of SQLite's machine from now on, in tens."""
    total = [0]

    def count_step() -> int:
        total[0] += 1
        return 0

    event.listen(
        store.engine,
        "checkout",
        lambda raw, *_: raw.set_progress_handler(count_step, 10),
    )
    return total


def test_the_work_of_one_page_does_not_grow_with_the_project(tmp_path):
    """Told of a thousand examples of a task, SQLite may walk through all of the task instead."""

    def steps(count: int) -> list[int]:
        store = open_store(f"sqlite:///{tmp_path / f'{count}.db'}")
        task = Task(overlap=2)
        examples = fill(store, count)
        found = []
        for part in (examples, examples[:500]):
            who, every = ("ann", "bob"), {e.id: float(n) for n, e in enumerate(part)}
            half = list(every)[::2]
            total = counted_steps(store)
            for page in pages([answer(e, who[part is examples], "x") for e in part]):
                with store.writing() as connection:
                    add_annotations(connection, page, actor="import")
                    settle_slots(connection, task, page)
            found.append(total[0])
            set_priorities(store, task, every, "lead")
            found.append(total[0])
            assign(store, task, half, ["cat", "dan"], "lead")
            found.append(total[0])
            unassign(store, task, half[:50], "lead")
            set_gold(store, task, dict.fromkeys(half, "x"), "lead")
            found.append(total[0])
            remove_gold(store, task, half, "lead")
            found.append(total[0])
        store.close()
        return found[5:]

    small, large = steps(2000), steps(6000)
    for few, many in zip(small, large, strict=True):
        assert many < 1.02 * few, (small, large)


@pytest.mark.parametrize("overlap", [1, 2])
def test_the_work_of_one_request_does_not_grow_with_the_project(tmp_path, overlap):
    """Counted in steps of SQLite's machine, which no other load on the computer disturbs."""

    def steps(count: int) -> int:
        store = open_store(f"sqlite:///{tmp_path / f'{count}.db'}")
        task = Task(overlap=overlap)
        half = [answer(e, "ann", "x") for e in fill(store, count)[: count // 2]]
        random.Random(0).shuffle(half)
        for page in pages(half):
            with store.writing() as connection:
                add_annotations(connection, page, actor="import")
                settle_slots(connection, task, page)
        with store.writing() as connection:
            fill_queue(connection, task.name, count)
        total = counted_steps(store)
        for person in ("ann", "bob", "cat"):
            for _ in range(5):
                got = next_item(store, task, person, now=NOON)
                submit(store, task, answer(got.example, person), now=NOON)
        store.close()
        return total[0]

    assert steps(6000) < 1.05 * steps(2000)


def test_no_more_statements_than_a_slow_driver_can_bear(store):
    """pg8000 takes a third of a millisecond for each."""
    fill(store, 20)
    task = Task(overlap=2)
    sent: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda *a: sent.append(a[2]))
    item = next_item(store, task, "ann", now=NOON)
    sent.clear()
    submit(store, task, answer(item.example, "ann"), now=NOON)
    submits = len(sent)
    sent.clear()
    next_item(store, task, "ann", now=NOON)
    assert submits <= 16, sent
    assert len(sent) <= 13, sent
