"""The labelling queue: leases, slots, undo. Run: pytest tests/test_queue.py"""

from dataclasses import replace
from datetime import timedelta

import pytest

from burnish.errors import InputError
from burnish.label.queue import next_item, progress_of, submit, undo_last
from burnish.label.resolve import adjudicate
from burnish.label.review import count_disputes
from burnish.store.findings import exclude
from burnish.tasks import Task
from queues import (
    HOUR,
    NOON,
    annotations_of,
    answer,
    fill,
    ids,
    import_answers,
    label_all,
    next_example,
)

# Leases and slots.


def test_next_is_leased_renewed_answered_once(store):
    examples = fill(store, 3)
    task = Task()
    first = next_item(store, task, "ann", now=NOON)
    assert first.example == replace(examples[0], received_at=first.example.received_at)
    assert (first.drafts, first.previous) == ((), None)
    assert first.lease_expires_at == "2026-01-05T12:30:00.000+00:00"
    assert next_example(store, task, "ann", now=NOON).id == first.example.id
    assert next_example(store, task, "bob", now=NOON).id == examples[1].id
    submit(store, task, answer(first.example, "ann"), now=NOON)
    assert next_example(store, task, "ann", now=NOON).id == examples[2].id
    assert next_example(store, task, "cat", now=NOON) is None


def test_an_expired_lease_returns_but_the_late_answer_is_kept(store):
    examples = fill(store, 1)
    task = Task(lease_seconds=60)
    assert next_example(store, task, "ann", now=NOON).id == examples[0].id
    assert next_example(store, task, "bob", now=NOON + timedelta(seconds=59)) is None
    later = NOON + timedelta(seconds=61)
    assert next_example(store, task, "bob", now=later).id == examples[0].id
    assert next_example(store, task, "cat", now=later) is None
    submit(store, task, answer(examples[0], "ann"), now=later)
    # The late answer is enough, so Bob's slot goes to nobody else when he leaves.
    assert next_example(store, task, "cat", now=later + timedelta(seconds=61)) is None
    submit(store, task, answer(examples[0], "bob"), now=later)
    assert len(annotations_of(store)) == 2


def test_a_clock_set_back_does_not_lock_examples_away(store):
    [one] = fill(store, 1)
    task = Task(lease_seconds=60)
    assert next_example(store, task, "ann", now=NOON + 24 * HOUR).id == one.id
    assert next_example(store, task, "bob", now=NOON) is None
    assert next_example(store, task, "bob", now=NOON + timedelta(seconds=61)).id == one.id


def test_a_skip_frees_the_slot_for_others_only(store):
    examples = fill(store, 2)
    task = Task()
    next_example(store, task, "ann", now=NOON)
    submit(store, task, answer(examples[0], "ann", "", status="skipped"), now=NOON)
    assert next_example(store, task, "ann", now=NOON).id == examples[1].id
    submit(store, task, answer(examples[1], "ann"), now=NOON)
    assert next_example(store, task, "ann", now=NOON + 24 * HOUR) is None
    assert next_example(store, task, "bob", now=NOON).id == examples[0].id


def test_a_flag_keeps_everybody_off_until_it_is_taken_back(store):
    examples = fill(store, 1)
    task = Task(overlap=2)
    next_example(store, task, "ann", now=NOON)
    flag = answer(examples[0], "ann", "not ours", status="flagged")
    submit(store, task, flag, now=NOON)
    assert next_example(store, task, "bob", now=NOON) is None
    assert count_disputes(store, task) == 1
    submit(store, task, answer(examples[0], "ann"), now=NOON)
    assert count_disputes(store, task) == 0
    assert next_example(store, task, "bob", now=NOON).id == examples[0].id


def test_a_retried_submit_is_one_row_and_an_amendment_two(store):
    examples = fill(store, 1)
    task = Task()
    sent = answer(examples[0], "ann", "first")
    assert submit(store, task, sent, now=NOON).is_new
    again = submit(store, task, sent, now=NOON + HOUR)
    assert not again.is_new
    assert again.annotation.created_at == "2026-01-05T12:00:00.000+00:00"
    assert len(annotations_of(store)) == 1
    with pytest.raises(InputError, match="another annotation"):
        submit(store, task, replace(sent, answer="other"), now=NOON)
    submit(store, task, answer(examples[0], "ann", "second"), now=NOON)
    assert [a.answer for a in annotations_of(store)] == ["first", "second"]
    assert progress_of(store, task, "ann").mine == 1


def test_excluded_and_resolved_examples_are_not_asked(store):
    examples = fill(store, 5)
    task = Task()
    next_example(store, task, "ann", now=NOON)
    reasons = {examples[0].id: "duplicate", examples[1].id: "empty"}
    with store.writing() as connection:
        exclude(connection, reasons, actor="audit")
    adjudicate(store, task, {examples[2].id: "yes"}, person="eve")
    assert label_all(store, task, "ann") == ids(examples[3:])
    progress = progress_of(store, task, "ann")
    assert (progress.mine, progress.taken, progress.examples) == (2, 3, 3)


def test_overlap_may_be_raised_and_lowered(store):
    examples = fill(store, 2)
    for one in examples:
        submit(store, Task(), answer(one, "ann"), now=NOON)
    assert next_example(store, Task(), "bob", now=NOON) is None
    assert next_example(store, Task(overlap=2), "bob", now=NOON).id == examples[0].id
    assert next_example(store, Task(), "cat", now=NOON) is None


def test_overlaps_complete_before_new_examples_begin(store):
    examples = fill(store, 5)
    task = Task(overlap=2)
    for _ in range(3):
        submit(store, task, answer(next_example(store, task, "ann", now=NOON), "ann"), now=NOON)
    assert label_all(store, task, "bob") == ids(examples)


def test_tasks_do_not_disturb_one_another(store):
    examples = fill(store, 2)
    assert label_all(store, Task(name="one"), "ann") == ids(examples)
    assert label_all(store, Task(name="two"), "bob") == ids(examples)


def test_who_is_far_ahead_still_gets_what_is_left(store):
    """More begun examples than are looked through while others wait, and none untouched."""
    examples = fill(store, 450)
    task = Task(overlap=2)
    ann = [answer(e, "ann") for e in examples[:-1]]
    import_answers(store, task, [*ann, answer(examples[-1], "bob")])
    assert next_example(store, task, "ann", now=NOON).id == examples[-1].id
    submit(store, task, answer(examples[-1], "ann"), now=NOON)
    assert next_example(store, task, "ann", now=NOON) is None
    assert next_example(store, task, "cat", now=NOON).id == examples[0].id


def test_imported_answers_fill_the_slots(store):
    examples = fill(store, 3)
    task = Task(overlap=2)
    assert next_example(store, task, "cat", now=NOON).id == examples[0].id
    first = [answer(examples[0], name) for name in ("ann", "bob")]
    import_answers(store, task, [*first, answer(examples[1], "ann")])
    assert next_example(store, task, "dan", now=NOON).id == examples[1].id
    assert next_example(store, task, "ann", now=NOON).id == examples[2].id
    # Cat had begun before the import: what she sends is kept, beyond the overlap.
    submit(store, task, answer(examples[0], "cat"), now=NOON)
    assert len(annotations_of(store)) == 4


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"text": " "}, "empty"),
        ({"text": "maybe"}, "choice"),
        ({"annotator": " "}, "annotator's name"),
        ({"annotator": "rule:majority"}, "annotator's name"),
        ({"annotator": "a\nb"}, "annotator's name"),
        ({"of": "0" * 32}, "no such example"),
        ({"text": "\ud800"}, "surrogate"),
        ({"client_id": "x" * 129}, "client id"),
        ({"status": "withdrawn"}, "undo"),
    ],
)
def test_what_cannot_be_kept_is_refused(store, fields, fault):
    examples = fill(store, 1)
    task = Task(kind="choose", choices=("yes", "no"))
    sent = answer(**{"of": examples[0], "annotator": "ann", **fields})
    with pytest.raises(InputError, match=fault):
        submit(store, task, sent, now=NOON)
    assert annotations_of(store) == []


# Undo.


def test_undo_takes_back_the_last_and_leases_it_again(store):
    examples = fill(store, 3)
    task = Task()
    for n in range(2):
        got = next_example(store, task, "ann", now=NOON)
        submit(store, task, answer(got, "ann", f"answer {n}", client_id=f"c{n}"), now=NOON)
    waiting = next_example(store, task, "ann", now=NOON)
    undone = undo_last(store, task, "ann", now=NOON, client_id="c1")
    assert (undone.example_id, undone.answer) == (examples[1].id, "answer 1")
    assert undo_last(store, task, "ann", now=NOON, client_id="c1") is None
    # Nobody gets it meanwhile, and Ann gets it before the one that was on her screen.
    assert next_example(store, task, "bob", now=NOON) is None
    again = next_item(store, task, "ann", now=NOON)
    assert (again.example.id, again.previous) == (examples[1].id, undone)
    assert progress_of(store, task, "ann").mine == 1
    submit(store, task, answer(examples[1], "ann", "better"), now=NOON)
    assert next_example(store, task, "ann", now=NOON).id == waiting.id
    assert undo_last(store, task, "ann", now=NOON).answer == "better"
    assert undo_last(store, task, "ann", now=NOON).answer == "answer 0"
    assert undo_last(store, task, "ann", now=NOON) is None
    assert undo_last(store, task, "bob", now=NOON) is None


def test_a_withdrawn_answer_may_go_to_others_when_the_lease_runs_out(store):
    [one] = fill(store, 1)
    task = Task()
    submit(store, task, answer(one, "ann"), now=NOON)
    undo_last(store, task, "ann", now=NOON)
    assert next_example(store, task, "bob", now=NOON) is None
    assert next_example(store, task, "bob", now=NOON + HOUR).id == one.id


def test_undoing_a_skip_does_not_over_serve(store):
    [one] = fill(store, 1)
    task = Task()
    submit(store, task, answer(one, "ann", status="skipped"), now=NOON)
    submit(store, task, answer(next_example(store, task, "bob", now=NOON), "bob"), now=NOON)
    assert undo_last(store, task, "ann", now=NOON).status == "skipped"
    assert next_example(store, task, "ann", now=NOON) is None


def test_undo_ends_a_dispute_and_a_flag(store):
    [one] = fill(store, 1)
    task = Task(overlap=2)
    submit(store, task, answer(one, "ann", "x"), now=NOON)
    submit(store, task, answer(one, "bob", "y"), now=NOON)
    assert count_disputes(store, task) == 1
    undo_last(store, task, "bob", now=NOON)
    assert count_disputes(store, task) == 0
    submit(store, task, answer(one, "bob", status="flagged"), now=NOON)
    assert count_disputes(store, task) == 1
    undo_last(store, task, "bob", now=NOON)
    assert count_disputes(store, task) == 0
    assert next_example(store, task, "bob", now=NOON).id == one.id
