"""People and servers that are killed, and all at once. Run: pytest tests/test_queue_faults.py"""

import multiprocessing
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import datetime
from functools import partial

import pytest
from sqlalchemy import text

from burnish.label.queue import next_item, submit, undo_last
from burnish.label.review import next_dispute
from burnish.store import open_store
from burnish.store.annotations import read_annotations
from burnish.store.locks import Turns
from burnish.store.log import append_log, verify_log
from burnish.tasks import Task
from queues import (
    HOUR,
    NOON,
    answer,
    fill,
    label_all,
)


def work(url: str, name: str, now: datetime, journal: str) -> None:
    """An annotator who answers until nothing is left, noting what was confirmed."""
    store, task, rng = open_store(url), Task(overlap=3), random.Random(name)
    with open(journal, "a") as confirmed:  # noqa: PTH123
        while (item := next_item(store, task, name, now=now)) is not None:
            sent = answer(item.example, name)
            for _ in range(rng.choice([1, 1, 2])):
                submit(store, task, sent, now=now)
            confirmed.write(sent.client_id + "\n")
            confirmed.flush()


def test_killed_annotators_lose_and_double_nothing(store_url, tmp_path):
    """Many processes on one store, killed at random and started again; then the rest is done."""
    store = open_store(store_url)
    people_at_once = 10 if store.engine.dialect.name == "sqlite" else 5
    examples = fill(store, 20)
    rng = random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def start(person: int, now: datetime):
        arguments = (store_url, f"person {person}", now, str(tmp_path / f"{person}.txt"))
        process = context.Process(target=work, args=arguments)
        process.start()
        return process

    people = {n: start(n, NOON) for n in range(people_at_once)}
    killed = 0
    for _ in range(people_at_once):
        time.sleep(rng.random() * 0.05)
        person = rng.choice(list(people))
        people[person].kill()
        people[person].join()
        killed += people[person].exitcode == -signal.SIGKILL
        if rng.random() < 0.8:
            people[person] = start(person, NOON)
        else:
            del people[person]
    for process in people.values():
        process.join()
        assert process.exitcode == 0
    assert killed > people_at_once / 4, "nobody was killed at work"
    # The killed have left leases; when these have run out, others take over.
    for process in [start(n, NOON + HOUR) for n in range(20, 24)]:
        process.join()
        assert process.exitcode == 0
    with store.reading() as connection:
        kept = list(read_annotations(connection))
        assert verify_log(connection).entries > len(kept)
    confirmed = [id_ for path in tmp_path.glob("*.txt") for id_ in path.read_text().split()]
    assert set(confirmed) <= {a.client_id for a in kept}, "lost"
    assert len({(a.example_id, a.annotator) for a in kept}) == len(kept), "doubled"
    assert Counter(a.example_id for a in kept) == {e.id: 3 for e in examples}, "not exactly three"
    store.close()


def together(*jobs) -> None:
    """Run the jobs in threads that start at one moment; an error of theirs is ours."""
    ready, errors = threading.Barrier(len(jobs)), []

    def run(job):
        ready.wait()
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_many_at_once_get_different_examples_and_finish(store):
    examples = fill(store, 30)
    task = Task(overlap=2)
    got: list[str] = []

    def annotator(name):
        def run():
            for _ in range(3):
                item = next_item(store, task, name, now=NOON)
                got.append(item.example.id)
                sent = answer(item.example, name)
                together(*[partial(submit, store, task, sent, now=NOON)] * 2)

        return run

    together(*[annotator(f"person {n}") for n in range(10)])
    assert len(got) == 30
    assert max(Counter(got).values()) == 2
    for name in ("x", "y"):
        label_all(store, task, name)
    with store.reading() as connection:
        kept = Counter(a.example_id for a in read_annotations(connection))
        verify_log(connection)
    assert kept == {e.id: 2 for e in examples}


def test_one_person_who_asks_twice_at_once_holds_one_lease(store):
    fill(store, 10)
    got: list[str] = []
    ask = lambda: got.append(next_item(store, Task(), "ann", now=NOON).example.id)  # noqa: E731
    together(*[ask] * 6)
    assert len(set(got)) == 1


def test_reviewers_at_once_get_different_disputes(store):
    task = Task(overlap=2)
    for one in fill(store, 6):
        for name in ("ann", "bob"):
            submit(store, task, answer(one, name, name), now=NOON)
    got: list[str] = []

    def reviewer(name):
        return lambda: got.append(next_dispute(store, task, name, now=NOON).example.id)

    together(*[reviewer(f"reviewer {n}") for n in range(6)])
    assert len(set(got)) == 6


def test_what_the_server_breaks_off_is_done_again(postgres_url):
    """Two transactions lock two rows, each in the other's order: one is a deadlock's victim."""
    store = open_store(postgres_url)
    fill(store, 2)
    with store.writing() as connection:
        connection.execute(text("SET deadlock_timeout = '50ms'"))
    tries = Counter()
    met = threading.Barrier(2)

    def lock(name, first, second):
        def work(connection):
            tries[name] += 1
            connection.execute(text("SET LOCAL deadlock_timeout = '50ms'"))
            row = "SELECT seq FROM examples WHERE seq = :seq FOR UPDATE"
            connection.execute(text(row), {"seq": first})
            if tries[name] == 1:
                met.wait()
            connection.execute(text(row), {"seq": second})
            append_log(connection, name, "test", {})

        return lambda: store.write(work)

    together(lock("a", 1, 2), lock("b", 2, 1))
    assert sorted(tries.values()) == [1, 2]
    with store.reading() as connection:
        # What the victim had appended the first time is not in the log.
        assert verify_log(connection).entries == 3
    store.close()


# A process of its own: pg8000 leaves the socket of a connection that the server has closed to the
# garbage collector, and here warnings are errors.
ASKS_TWICE = """
import sys
from datetime import UTC, datetime
from sqlalchemy import text
from burnish.label.queue import next_item
from burnish.store import open_store
from burnish.tasks import Task

store, other = open_store(sys.argv[1]), open_store(sys.argv[1])
print(next_item(store, Task(), "ann", now=datetime.now(UTC)).example.id)
cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
with other.writing() as connection:
    connection.execute(text(cut + " AND datname = current_database()"))
print(next_item(store, Task(), "ann", now=datetime.now(UTC)).example.id)
"""


def test_a_restarted_server_is_not_noticed(postgres_url):
    store = open_store(postgres_url)
    [one, _] = fill(store, 2)
    store.close()
    command = [sys.executable, "-c", ASKS_TWICE, postgres_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [one.id, one.id], done.stderr


def test_undo_sent_twice_at_once_takes_back_one(store):
    fill(store, 2)
    label_all(store, Task(), "ann")
    together(*[partial(undo_last, store, Task(), "ann", now=NOON, client_id=last_of(store))] * 4)
    with store.reading() as connection:
        withdrawn = [a for a in read_annotations(connection) if a.status == "withdrawn"]
    assert len(withdrawn) == 1


def last_of(store) -> str:
    with store.reading() as connection:
        return list(read_annotations(connection))[-1].client_id


def test_turns_come_in_the_order_they_were_asked_for():
    turns, order = Turns(), []
    with turns.turn(1):
        threads = []
        for n in range(5):
            threads.append(threading.Thread(target=_note_turn, args=(turns, order, n)))
            threads[-1].start()
            while len(turns._waiting) < n + 1:
                time.sleep(0.001)
        with pytest.raises(TimeoutError), turns.turn(0.01):
            pass
    for thread in threads:
        thread.join()
    assert order == list(range(5))
    with turns.turn(0):
        pass


def _note_turn(turns, order, n):
    with turns.turn(5):
        order.append(n)
