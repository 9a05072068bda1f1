"""What orders the queue; gold items; reviewers. Run: pytest tests/test_queue_order.py"""

from functools import partial
from itertools import pairwise

import pytest
from sqlalchemy import func, select

from burnish.errors import InputError
from burnish.label.order import (
    assign,
    order_by_arrival,
    order_by_disagreement,
    order_by_diversity,
    remove_gold,
    set_gold,
    set_priorities,
    unassign,
)
from burnish.label.queue import progress_of, submit
from burnish.label.resolve import adjudicate
from burnish.label.review import count_disputes, next_dispute
from burnish.store.drafts import Draft, add_drafts
from burnish.store.examples import add_examples
from burnish.store.findings import exclude, include_again
from burnish.store.log import read_log, verify_log
from burnish.store.tables import disputes, leases, queue
from burnish.tasks import Task
from burnish.types import Conversation, Example, Message
from queues import HOUR, NOON, annotations_of, answer, fill, ids, label_all, next_example

# Order.


def test_priorities_come_first_then_arrival(store):
    examples = fill(store, 6)
    task = Task()
    # The one that is being served keeps its place on Ann's screen.
    held = next_example(store, task, "ann", now=NOON)
    set_priorities(store, task, {examples[4].id: 0.5, examples[2].id: -1.0}, "lead")
    set_priorities(store, task, {examples[4].id: 2.0, examples[5].id: 1.0}, "lead")
    assert next_example(store, task, "ann", now=NOON).id == held.id
    rest = [examples[n].id for n in (4, 5, 2, 1, 3)]
    assert next_example(store, task, "bob", now=NOON).id == rest[0]
    order_by_arrival(store, task, "lead")
    assert label_all(store, task, "cat") == [examples[n].id for n in (1, 2, 3, 5)]


def test_what_order_refuses(store):
    [one] = fill(store, 1)
    task = Task(kind="choose", choices=("x", "y"))
    for call in (
        lambda: set_priorities(store, task, {one.id: 1.0, "0" * 32: 1.0}, "lead"),
        lambda: set_priorities(store, task, {one.id: float("nan")}, "lead"),
        lambda: assign(store, task, [one.id, "0" * 32], ["ann"], "lead"),
        lambda: assign(store, task, [one.id], [], "lead"),
        lambda: assign(store, task, [one.id], ["rule:x"], "lead"),
        lambda: set_gold(store, task, {one.id: "z"}, "lead"),
        lambda: set_gold(store, task, {one.id: "x", "0" * 32: "x"}, "lead"),
    ):
        with pytest.raises(InputError):
            call()
    with store.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(queue)) == 0


def test_what_is_assigned_goes_to_those_people_first_and_only(store):
    examples = fill(store, 5)
    task = Task()
    assign(store, task, [examples[3].id, examples[4].id], ["ann", "bob"], "lead")
    set_priorities(store, task, {examples[4].id: 1.0}, "lead")
    assert next_example(store, task, "ann", now=NOON).id == examples[4].id
    assert next_example(store, task, "bob", now=NOON).id == examples[3].id
    assert label_all(store, task, "cat") == ids(examples[:3])
    assert label_all(store, task, "ann") == [examples[4].id]
    unassign(store, task, [examples[3].id], "lead", ["bob"])
    # It is no longer Bob's, though he had it before him; when his lease ends, Ann gets it.
    assert next_example(store, task, "bob", now=NOON) is None
    assert next_example(store, task, "ann", now=NOON + HOUR).id == examples[3].id
    unassign(store, task, [examples[3].id], "lead")
    assert next_example(store, task, "cat", now=NOON + 2 * HOUR).id == examples[3].id


def test_two_assigned_people_do_not_share_a_slot(store):
    [one] = fill(store, 1)
    task = Task()
    assign(store, task, [one.id], ["ann", "bob"], "lead")
    assert next_example(store, task, "ann", now=NOON).id == one.id
    assert next_example(store, task, "bob", now=NOON) is None


def test_disagreement_orders_by_how_far_opinions_differ(store):
    examples = fill(store, 4)
    task = Task(overlap=3)
    texts = {0: ("same", "same"), 1: ("abcd", "wxyz"), 2: ("abcd", "abcx")}
    drafts = [
        Draft.of(examples[n].id, "answer", text, model)
        for n, pair in texts.items()
        for model, text in zip(("one", "two"), pair, strict=True)
    ]
    with store.writing() as connection:
        add_drafts(connection, drafts)
    assert order_by_disagreement(store, task, "lead") == 3
    assert label_all(store, Task(), "ann") == [examples[n].id for n in (1, 2, 0, 3)]


def test_diversity_shows_one_of_each_kind_first(store):
    common = "Please answer as briefly as you can: "
    kinds = {"weather": 40, "invoice": 3, "football": 2}
    words = {
        "weather": "rain sun wind cloud storm forecast umbrella",
        "invoice": "payment refund account receipt billing amount",
        "football": "goal match striker referee penalty league",
    }
    examples = [
        Example(Conversation((Message("user", f"{common}{words[kind]} {kind}{n}"),)), source=kind)
        for kind, many in kinds.items()
        for n in range(many)
    ]
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")
    assert order_by_diversity(store, Task(), "lead") == 45
    source = {e.id: e.source for e in examples}
    first = [source[id_] for id_ in label_all(store, Task(), "ann")[:9]]
    assert len(set(first)) == 3
    assert first.count("football") == 2


# Gold items.


def test_gold_is_mixed_in_for_everybody_once(store):
    examples = fill(store, 60)
    task = Task(gold_every=4)
    known = {e.id: "yes" for e in examples[:10]}
    set_gold(store, task, known, "lead")
    seen = {name: label_all(store, task, name) for name in ("ann", "bob")}
    ordinary = [id_ for ids_ in seen.values() for id_ in ids_ if id_ not in known]
    assert sorted(ordinary) == sorted(e.id for e in examples[10:])
    for name, ids_ in seen.items():
        gold = [n for n, id_ in enumerate(ids_) if id_ in known]
        assert len(set(ids_)) == len(ids_)
        if name == "ann":
            # 50 ordinary examples with one in four gold: 17, were there as many.
            assert len(gold) == 10
            assert 1.5 < sum(b - a for a, b in pairwise(gold)) / 9 < 8
    # When only gold is left there is nothing to hide it among, and chance decides.
    progress = progress_of(store, task, "ann")
    assert (progress.examples, progress.taken) == (50, 50)
    assert len([a for a in annotations_of(store) if a.example_id in known]) >= 10


def test_gold_is_no_dispute_unless_it_is_flagged_and_may_be_taken_back(store):
    examples = fill(store, 2)
    task = Task(overlap=2)
    set_gold(store, task, {examples[0].id: "yes"}, "lead")
    for name, text in (("ann", "yes"), ("bob", "no")):
        submit(store, task, answer(examples[0], name, text), now=NOON)
    assert count_disputes(store, task) == 0
    assert next_example(store, task, "cat", now=NOON).id == examples[1].id
    remove_gold(store, task, [examples[0].id], "lead")
    assert count_disputes(store, task) == 1
    set_gold(store, task, {examples[0].id: "yes"}, "lead")
    assert count_disputes(store, task) == 0


# Reviewers.


def disputed(store, number: int, task: Task) -> list[Example]:
    examples = fill(store, number)
    for one in examples:
        for name in ("ann", "bob"):
            submit(store, task, answer(one, name, name), now=NOON)
    return examples


def test_two_reviewers_never_have_the_same_dispute(store):
    task = Task(overlap=2)
    examples = disputed(store, 3, task)
    eve = next_dispute(store, task, "eve", now=NOON)
    assert eve.example.id == examples[0].id
    assert [a.answer for a in eve.annotations] == ["ann", "bob"]
    assert next_dispute(store, task, "eve", now=NOON).example.id == examples[0].id
    assert next_dispute(store, task, "fay", now=NOON).example.id == examples[1].id
    # Who passes one on gets the next; the one passed is free for others.
    passed = next_dispute(store, task, "eve", now=NOON, after=examples[0].id)
    assert passed.example.id == examples[2].id
    assert next_dispute(store, task, "gus", now=NOON).example.id == examples[0].id
    assert next_dispute(store, task, "eve", now=NOON, after=examples[2].id) is None
    adjudicate(store, task, {examples[0].id: "ann"}, person="gus")
    assert next_dispute(store, task, "gus", now=NOON).example.id == examples[2].id
    assert count_disputes(store, task) == 2
    # A reviewer who left loses it when the lease runs out.
    assert next_dispute(store, task, "hal", now=NOON) is None
    assert next_dispute(store, task, "hal", now=NOON + HOUR).example.id == examples[1].id


def test_an_excluded_example_is_no_dispute(store):
    task = Task(overlap=2)
    [one] = disputed(store, 1, task)
    with store.writing() as connection:
        exclude(connection, {one.id: "not ours"}, actor="eve")
    assert count_disputes(store, task) == 0
    assert next_dispute(store, task, "eve", now=NOON) is None


# Exclusion and its end.


def rows_of(store, *columns) -> list[tuple]:
    with store.reading() as connection:
        return sorted(map(tuple, connection.execute(select(*columns))))


def test_what_is_included_again_is_as_if_it_never_was_excluded(store):
    """Whatever stands around an example: gold, an order, people, answers, a dispute, a lease."""
    task, verdicts = Task(overlap=2), Task("verdict", kind="accept", overlap=2)
    examples = disputed(store, 2, task)
    known, ordered, theirs, answered, flagged, resolved, held = fill(store, 9)[2:]
    set_gold(store, task, {known.id: "yes"}, "lead")
    set_priorities(store, task, {ordered.id: 2.0}, "lead")
    assign(store, task, [theirs.id], ["ann", "bob"], "lead")
    for one, name in ((answered, "ann"), (flagged, "bob"), (resolved, "ann")):
        status = "flagged" if one is flagged else "submitted"
        submit(store, task, answer(one, name, status=status), now=NOON)
    adjudicate(store, task, {resolved.id: "no"}, person="lead")
    while next_example(store, task, "cat", now=NOON).id != held.id:
        submit(store, task, answer(next_example(store, task, "cat", now=NOON), "cat"), now=NOON)
    for name, reason in (("ann", "dull"), ("bob", "odd")):  # agree: reasons are remarks
        verdict = f'{{"verdict": "reject", "reason": "{reason}"}}'
        submit(store, verdicts, answer(answered, name, verdict), now=NOON)

    def state() -> list[list[tuple]]:
        placed = disputes.c.example_id, disputes.c.task, disputes.c.position
        return [rows_of(store, queue), rows_of(store, leases), rows_of(store, *placed)]

    before = state()
    assert {row[2] for row in before[0]} == {"all", "assigned", "to:ann", "to:bob", "gold"}
    assert len(before[2]) == 3
    chosen = {e.id: "?" for e in (*examples, *fill(store, 12)[2:])}
    with store.writing() as connection:
        assert exclude(connection, chosen, actor="eve") == 12
    assert next_example(store, task, "dan", now=NOON) is None
    with store.writing() as connection:
        back = partial(include_again, connection, tasks=[task, verdicts], actor="eve")
        assert back(list(chosen)[:5]) == 5
        assert back(list(chosen)) == 7
        assert back(list(chosen)) == 0
    assert [set(old) - set(new) for old, new in zip(before, state(), strict=True)] == [set()] * 3
    # Three had not come into the queue yet.
    assert {row[2] for row in set(state()[0]) - set(before[0])} == {"all"}
    assert state()[1:] == before[1:]
    with store.reading() as connection:
        verify_log(connection)
        actions = [entry["action"] for entry in read_log(connection)]
    assert actions.count("include again") == 2
    assert next_example(store, task, "dan", now=NOON) is not None


# Who may answer.


def test_an_answer_counts_as_asked_for_however_late_it_comes(store):
    first, second = fill(store, 2)
    task = Task()
    never = partial(submit, store, task, now=NOON, only_shown=True)
    with pytest.raises(InputError, match="never shown to ann"):
        never(answer(first, "ann"))
    assert next_example(store, task, "ann", now=NOON).id == first.id
    # Her lease runs out, it goes to Bob, he answers; the lead gives it to Bob alone and drops it.
    later = NOON + HOUR
    assert next_example(store, task, "bob", now=later).id == first.id
    submit(store, task, answer(first, "bob"), now=later, only_shown=True)
    assign(store, task, [first.id], ["bob"], "lead")
    with store.writing() as connection:
        exclude(connection, {first.id: "?"}, actor="lead")
    late = submit(store, task, answer(first, "ann"), now=later, only_shown=True)
    assert late.is_new
    # What she was asked in one task she was not asked in another.
    with pytest.raises(InputError, match="never shown"):
        submit(store, Task("other"), answer(first, "ann"), now=later, only_shown=True)
    with pytest.raises(InputError, match="never shown"):
        never(answer(second, "ann", status="skipped"))
    assert submit(store, task, answer(second, "ann"), now=later).is_new
    # An amendment is of what was answered.
    assert submit(store, task, answer(second, "ann", "no"), now=later, only_shown=True).is_new
