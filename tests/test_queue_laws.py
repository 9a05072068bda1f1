"""Laws of the queue, whatever happens in whatever order. Run: pytest tests/test_queue_laws.py"""

import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from burnish.label.order import (
    assign,
    remove_gold,
    set_gold,
    set_priorities,
    unassign,
)
from burnish.label.queue import next_item, submit, undo_last
from burnish.label.resolve import adjudicate
from burnish.store.annotations import read_annotations
from burnish.store.answers import read_given
from burnish.store.disputes import is_disputed, read_disputes
from burnish.store.queue_rows import enter_queue, refresh_lanes
from burnish.store.tables import leases, queue
from burnish.tasks import Task
from burnish.types import Annotation
from queues import (
    HOUR,
    NOON,
    answer,
    fill,
    ids,
    label_all,
)

_names = count()
_HAPPENINGS = (
    "ask ask submit submit again skip flag undo other decide prioritise assign unassign gold ungold"
)
_events = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from(_HAPPENINGS.split()),
        st.integers(0, 5),
        # Seconds by which the clock moves; also back, and further than a lease lasts.
        st.sampled_from([0, 0, 1, 40, 70, -50, -4000]),
    ),
    max_size=40,
)


def test_laws_of_the_queue(store):
    """Random people ask, answer, leave and return, in tasks of their own over six examples."""
    examples = fill(store, 6)

    @settings(
        max_examples=25 if store.engine.dialect.name == "sqlite" else 8,
        deadline=None,
        derandomize=True,
    )
    @given(_events, st.integers(1, 3))
    def run(happenings, overlap):
        task = Task(name=f"t{next(_names)}", overlap=overlap, lease_seconds=60, gold_every=3)
        case = _Case(store, examples, task)
        for person, what, number, seconds in happenings:
            case.now += timedelta(seconds=seconds)
            getattr(case, what)(person, examples[number])
        case.check()

    run()


class _Case:
    """Does what happens, and knows what may be shown to whom and what must be kept."""

    def __init__(self, store, examples, task):
        self.store, self.examples, self.task = store, examples, task
        self.now = NOON
        self.shown: dict[str, str] = {}
        self.sent: list[Annotation] = []
        self.said: dict[tuple[str, str], str] = {}
        self.undone = 0

    def ask(self, person, _):
        got = next_item(self.store, self.task, person, now=self.now)
        if got is None:
            self.shown.pop(person, None)
            return
        id_ = got.example.id
        assert self.said.get((id_, person), "withdrawn") == "withdrawn", "served again"
        with self.store.reading() as connection:
            rows = select(leases).where(leases.c.task == self.task.name, leases.c.example_id == id_)
            holders = connection.execute(rows).all()
            lane = connection.scalar(
                select(queue.c.lane).where(
                    queue.c.task == self.task.name,
                    queue.c.example_id == id_,
                    queue.c.lane.in_(["all", "gold", f"to:{person}"]),
                )
            )
        assert lane is not None, "served to somebody it is not for"
        answered = sum(h.expires_at.startswith("9999") for h in holders)
        # Late and imported answers may go beyond it; then nobody more is served.
        if lane != "gold" and self.shown.get(person) != id_:
            assert len(holders) <= max(self.task.overlap, answered + 1), "over-served"
            assert answered < self.task.overlap, "served though complete"
        self.shown[person] = id_

    def _send(self, annotation):
        annotation = replace(annotation, task=self.task.name)
        submit(self.store, self.task, annotation, now=self.now)
        self.sent.append(annotation)
        self.said[annotation.example_id, annotation.annotator] = annotation.status

    def submit(self, person, _):
        if person in self.shown:
            self._send(answer(self.shown.pop(person), person, random.choice("xy")))

    def other(self, person, example):
        self._send(answer(example, person, "x"))

    def again(self, *_):
        if self.sent:
            sent = self.sent[-1]
            assert not submit(self.store, self.task, sent, now=self.now).is_new

    def skip(self, person, _):
        if person in self.shown:
            self._send(answer(self.shown.pop(person), person, "", status="skipped"))

    def flag(self, person, example):
        self._send(answer(example, person, "look", status="flagged"))

    def undo(self, person, _):
        undone = undo_last(self.store, self.task, person, now=self.now)
        stands = [k for k, v in self.said.items() if k[1] == person and v != "withdrawn"]
        assert (undone is None) == (not stands)
        if undone is not None:
            self.said[undone.example_id, person] = "withdrawn"
            self.undone += 1

    def decide(self, _, example):
        adjudicate(self.store, self.task, {example.id: "x"}, person="eve")

    def prioritise(self, person, example):
        set_priorities(self.store, self.task, {example.id: float(ord(person))}, "eve")

    def assign(self, person, example):
        assign(self.store, self.task, [example.id], [person], "eve")

    def unassign(self, person, example):
        unassign(self.store, self.task, [example.id], "eve", [person])

    def gold(self, _, example):
        set_gold(self.store, self.task, {example.id: "x"}, "eve")

    def ungold(self, _, example):
        remove_gold(self.store, self.task, [example.id], "eve")

    def check(self):
        name = self.task.name
        with self.store.reading() as connection:
            kept = [a for a in read_annotations(connection, task=name) if a.status != "withdrawn"]
            assert [a.client_id for a in kept] == [a.client_id for a in self.sent], "lost, doubled"
            given = read_given(connection, name, ids(self.examples))
            wanted = [e.id for e in self.examples if is_disputed(given[e.id], self.task)]
            assert read_disputes(connection, name) == wanted
            held = Counter(
                connection.execute(
                    select(leases.c.example_id).where(
                        leases.c.task == name, leases.c.expires_at.startswith("9999")
                    )
                ).scalars()
            )
            assert held == Counter(
                id_ for (id_, _), status in self.said.items() if status == "submitted"
            )
            rows = self._rows(connection)
        with self.store.writing() as connection:
            # The queue is derived: made anew it is the same.
            connection.execute(queue.delete().where(queue.c.task == name))
            entered = sorted({row.example_id for row in rows})
            enter_queue(connection, name, entered)
            refresh_lanes(connection, name, entered)
            assert [row for row in self._rows(connection) if row.example_id in entered] == rows
        # In the end everybody together finishes what may be finished.
        for person in "abcdefg":
            label_all(self.store, self.task, person, now=self.now + HOUR)
        with self.store.reading() as connection:
            open_ = connection.execute(
                select(queue.c.example_id).where(
                    queue.c.task == name,
                    queue.c.lane == "all",
                    ~queue.c.closed,
                    queue.c.taken < self.task.overlap,
                )
            ).all()
            assert open_ == [], "work remains that nobody was given"

    def _rows(self, connection):
        rows = select(queue).where(queue.c.task == self.task.name)
        return connection.execute(rows.order_by(queue.c.example_id, queue.c.lane)).all()
