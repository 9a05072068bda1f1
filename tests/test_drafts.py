"""Drafts: made once, resumed after a kill, measured. Run: pytest tests/test_drafts.py"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.errors import ConfigError, InputError, UserError
from burnish.label.agreement import edit_distance
from burnish.label.bulk import exclude_all
from burnish.label.drafts import PAGE, Writer, make_drafts
from burnish.label.model_order import order_by_model
from burnish.label.order import set_gold, set_priorities
from burnish.label.queue import next_item, submit, undo_last
from burnish.label.resolve import adjudicate
from burnish.store import Store, open_store
from burnish.store.annotations import add_annotations
from burnish.store.drafts import Draft, add_drafts, read_draft, read_drafts
from burnish.store.examples import add_examples
from burnish.store.labelled import drafts_after
from burnish.store.log import verify_log
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example, Message

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
WRITE = Task()


def example(n: int, answer: str | None = None) -> Example:
    turns = [Message("user", f"question {n}")]
    if answer is not None:
        turns.append(Message("assistant", answer))
    return Example(Conversation(tuple(turns)), "test")


def collected(store: Store, count: int) -> list[str]:
    examples = [example(n) for n in range(count)]
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")
    return [e.id for e in examples]


class Model:
    """Writes an answer to each prompt and remembers what it was asked."""

    def __init__(self, *, refuses: str = "nothing") -> None:
        self.asked: list[str] = []
        self.refuses = refuses

    def __call__(self, conversations: Sequence[Conversation]) -> list[str | UserError]:
        texts = [c.messages[-1].content for c in conversations]
        self.asked += texts
        return [InputError(f"too long: {t}") if self.refuses in t else f"re: {t}" for t in texts]


def answer(store: Store, task: Task, id_: str, text: str, **fields: object) -> Annotation:
    annotation = Annotation(id_, task.name, text, "ann", f"client-{id_}-{text}")
    return submit(store, task, replace(annotation, **fields), now=NOW).annotation


def test_every_example_gets_one_draft_of_each_model(store: Store) -> None:
    ids = collected(store, PAGE + 5)
    first, again, other = Model(), Model(), Model()
    assert make_drafts(store, WRITE, first, "m", now=NOW).added == len(ids)
    assert make_drafts(store, WRITE, again, "m", now=NOW).added == 0
    assert make_drafts(store, WRITE, other, "m2", now=NOW).added == len(ids)
    assert first.asked == other.asked == [f"question {n}" for n in range(len(ids))]
    assert again.asked == []
    with store.reading() as connection:
        found = read_drafts(connection, WRITE.name, ids[:3])
        assert [d.text for _, d, _ in drafts_after(connection, WRITE.name, 0)][:1] == [
            "re: question 0"
        ]
        verify_log(connection)
    assert {id_: [d.model for d in drafts] for id_, drafts in found.items()} == {
        id_: ["m", "m2"] for id_ in ids[:3]
    }
    [one, _] = found[ids[0]]
    assert one == Draft.of(ids[0], "answer", "re: question 0", "m", "2026-01-02T03:04:05.000+00:00")
    item = next_item(store, WRITE, "ann", now=NOW)
    assert item is not None
    assert [d.text for d in item.drafts] == ["re: question 0"] * 2


def test_only_what_wants_an_answer_is_drafted_and_in_the_order_people_get_it(store: Store) -> None:
    ids = collected(store, 9)
    answer(store, WRITE, ids[0], "done")
    exclude_all(store, [ids[1]], "spam", actor="r")
    adjudicate(store, WRITE, {ids[2]: "decided"}, person="r")
    answer(store, WRITE, ids[3], "", status="skipped")
    set_gold(store, WRITE, {ids[4]: "known"}, "r")
    set_priorities(store, WRITE, {ids[6]: 1.0, ids[7]: 5.0, ids[0]: 9.0}, "r")
    model = Model()
    make_drafts(store, WRITE, model, "m", now=NOW, limit=4)
    assert model.asked == [f"question {n}" for n in (7, 6, 3, 4)]
    make_drafts(store, WRITE, model, "m", now=NOW)
    assert model.asked[4:] == [f"question {n}" for n in (5, 8)]
    model.asked.clear()
    make_drafts(store, replace(WRITE, overlap=2), model, "m", now=NOW)
    assert model.asked == ["question 0"]
    make_drafts(store, replace(WRITE, name="another"), model, "m", now=NOW)
    assert len(model.asked) == 1 + 8


def test_second_thoughts_count_once_and_gold_wants_everybody(store: Store) -> None:
    ids = collected(store, 4)
    twice = replace(WRITE, overlap=2)
    answer(store, twice, ids[0], "first thought")
    answer(store, twice, ids[0], "second thought")
    answer(store, twice, ids[1], "taken back")
    undo_last(store, twice, "ann", now=NOW)
    for n in (2, 3):
        answer(store, twice, ids[n], "one")
        answer(store, twice, ids[n], "two", annotator="bo")
    set_gold(store, WRITE, {ids[3]: "known"}, "r")
    model = Model()
    make_drafts(store, twice, model, "m", now=NOW)
    assert model.asked == [f"question {n}" for n in (0, 1, 3)]


def test_examples_of_one_priority_come_page_by_page(store: Store) -> None:
    ids = collected(store, PAGE + 9)
    set_priorities(store, WRITE, dict.fromkeys(ids[2:], 1.0), "r")
    model = Model()
    make_drafts(store, WRITE, model, "m", now=NOW)
    assert model.asked == [f"question {n}" for n in (*range(2, len(ids)), 0, 1)]


def test_what_wants_an_answer_is_found_among_many_that_do_not(tmp_path: Path) -> None:
    """SQLite takes a wrong index for it where it can: a minute for these few."""
    store = open_store(f"sqlite:///{tmp_path}/burnish.db")
    ids = collected(store, 20_000)
    given = [Annotation(id_, "answer", "a", "ann", id_) for id_ in ids[:-1]]
    with store.writing() as connection:
        add_annotations(connection, given, actor="test")
    model = Model()
    started = time.monotonic()
    make_drafts(store, WRITE, model, "m", now=NOW)
    assert time.monotonic() - started < 5
    assert model.asked == ["question 19999"]
    store.close()


def test_what_the_model_refuses_is_counted_and_asked_again(store: Store) -> None:
    collected(store, 12)
    picky, able = Model(refuses="question 1"), Model()
    result = make_drafts(store, WRITE, picky, "m", now=NOW)
    assert (result.added, result.refused) == (9, {"too long": 3})
    assert make_drafts(store, WRITE, able, "m", now=NOW).added == 3
    assert able.asked == ["question 1", "question 10", "question 11"]


def test_a_model_that_refuses_a_whole_page_is_not_asked_on(store: Store) -> None:
    collected(store, PAGE + 1)
    model = Model(refuses="question")
    with pytest.raises(InputError, match="too long"):
        make_drafts(store, WRITE, model, "m", now=NOW)
    assert len(model.asked) == PAGE


def test_drafts_are_answers_of_the_tasks_kind(store: Store) -> None:
    collected(store, 4)
    choose = Task(name="c", kind="choose", choices=("yes", "no"))
    wrote = iter([" yes\n", "perhaps", "", "no"])

    def write(conversations: Sequence[Conversation]) -> list[str]:
        return [next(wrote) for _ in conversations]

    result = make_drafts(store, choose, write, "m", now=NOW)
    assert result.refused == {"not among the choices": 1, "the model wrote nothing": 1}
    with store.reading() as connection:
        assert [d.text for _, d, _ in drafts_after(connection, "c", 0)] == ["yes", "no"]
    with pytest.raises(ConfigError, match="accept"):
        make_drafts(store, Task(kind="accept"), write, "m", now=NOW)


def test_what_no_store_takes_is_taken_out_of_a_draft(store: Store) -> None:
    [id_] = collected(store, 1)
    make_drafts(store, WRITE, lambda _: ["a\0b \ud800 日"], "m", now=NOW)
    with store.reading() as connection:
        assert read_drafts(connection, WRITE.name, [id_])[id_][0].text == "ab ? 日"


def test_a_models_own_turn_is_left_out_of_what_it_is_asked(store: Store) -> None:
    with store.writing() as connection:
        add_examples(connection, [example(0, "its answer")], actor="test")
    model = Model()
    make_drafts(store, WRITE, model, "m", now=NOW)
    assert model.asked == ["question 0"]


KILLED = """
import sys, time
from datetime import UTC, datetime
from burnish.label.drafts import make_drafts
from burnish.store import open_store
from burnish.tasks import Task

def write(conversations):
    time.sleep(0.02)
    with open(sys.argv[2], "a") as file:
        file.writelines(c.messages[-1].content + "\\n" for c in conversations)
    return ["re: " + c.messages[-1].content for c in conversations]

make_drafts(open_store(sys.argv[1]), Task(), write, "m", now=datetime.now(UTC))
"""


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_loses_one_page_at_most_and_doubles_nothing(
    blow: signal.Signals, store_url: str, tmp_path: Path
) -> None:
    store = open_store(store_url)
    count = 40 * PAGE
    ids = collected(store, count)
    asked = tmp_path / "asked"
    kills = 0
    for seconds in (0.1, 0.2, 0.15):
        command = [sys.executable, "-c", KILLED, store_url, str(asked)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        before = asked.stat().st_size if asked.exists() else 0
        while process.poll() is None and not (asked.exists() and asked.stat().st_size > before):
            time.sleep(0.01)
        time.sleep(seconds)
        os.kill(process.pid, blow)
        kills += process.wait(30) != 0
    assert kills
    make_drafts(store, WRITE, Model(), "m", now=NOW)
    with store.reading() as connection:
        drafts = read_drafts(connection, WRITE.name, ids)
        texts = [draft.text for of_one in drafts.values() for draft in of_one]
        verify_log(connection)
    store.close()
    assert sorted(texts) == sorted(f"re: question {n}" for n in range(count))
    lost = len(asked.read_text().splitlines()) - len(set(asked.read_text().splitlines()))
    assert lost <= kills * PAGE


def distance_by_the_book(a: str, b: str) -> int:
    """Wagner and Fischer (1974)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@given(a=st.text("ab日 ", max_size=12), b=st.text("ab日 ", max_size=12))
def test_edit_distance_is_levenshteins(a: str, b: str) -> None:
    longest = max(len(a), len(b))
    expected = distance_by_the_book(a, b) / longest if longest else 0.0
    assert edit_distance(a, b) == edit_distance(b, a) == pytest.approx(expected, abs=1e-12)
    assert (edit_distance(a, b) == 0) == (a == b)


def test_a_submit_keeps_how_far_the_answer_is_from_its_draft(store: Store) -> None:
    ids = collected(store, 4)
    make_drafts(store, WRITE, Model(), "m", now=NOW)
    with store.reading() as connection:
        drafts = {d.example_id: d for _, d, _ in drafts_after(connection, WRITE.name, 0)}
        assert read_draft(connection, "nothing") is None
    kept = answer(store, WRITE, ids[0], "re: question 0", draft_id=drafts[ids[0]].id)
    assert kept.edit_distance == 0.0
    kept = answer(store, WRITE, ids[1], "re: question 9!", draft_id=drafts[ids[1]].id)
    assert kept.edit_distance == pytest.approx(2 / 15)
    kept = answer(store, WRITE, ids[2], "", draft_id=drafts[ids[2]].id, status="skipped")
    assert kept.edit_distance is None
    # What a client says of the distance is not believed.
    kept = answer(store, WRITE, ids[3], "mine", edit_distance=0.5)
    assert kept.edit_distance is None
    for wrong in ("nothing", drafts[ids[0]].id):
        with pytest.raises(InputError, match="no such draft"):
            answer(store, WRITE, ids[3], "mine too", draft_id=wrong)


def test_the_same_draft_is_one(store: Store) -> None:
    [id_] = collected(store, 1)
    one = Draft.of(id_, "answer", "text", "m")
    other = Draft.of(id_, "answer", "text", "m2")
    with store.writing() as connection:
        assert add_drafts(connection, [one, one, other]) == 2
        assert add_drafts(connection, [replace(one, created_at="2030-01-01")]) == 0


def test_examples_are_ordered_by_what_a_model_makes_of_them(store: Store) -> None:
    ids = collected(store, 6)
    set_priorities(store, WRITE, {ids[0]: 99.0}, "r")
    answer(store, WRITE, ids[5], "done")

    def score(conversations: Sequence[Conversation]) -> list[float | UserError | None]:
        numbers = [int(c.messages[-1].content.split()[-1]) for c in conversations]
        scores: dict[int, float | UserError | None] = {0: None, 1: InputError("too long: 1")}
        return [scores.get(n, float(n)) for n in numbers]

    result = order_by_model(store, WRITE, score, "order")
    assert result.ordered == 3
    assert result.unscored == {"too long": 1, "there is no answer yet": 1}
    served = []
    while (item := next_item(store, WRITE, "ann2", now=NOW)) is not None and len(served) < 5:
        served.append(ids.index(item.example.id))
        submit(store, WRITE, Annotation(item.example.id, "", "a", "ann2", str(served)), now=NOW)
    assert served == [4, 3, 2, 0, 1]


def test_a_writer_may_give_plain_texts(store: Store) -> None:
    collected(store, 1)
    write: Writer = lambda conversations: ["fine"] * len(conversations)  # noqa: E731
    assert make_drafts(store, WRITE, write, "m", now=NOW).added == 1
