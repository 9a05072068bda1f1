"""Preference pairs from edits and rankings. Run: pytest tests/test_preferences.py"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.chat import render
from burnish.label.bulk import exclude_all
from burnish.label.order import set_gold
from burnish.label.preferences import export_preferences, read_preferences
from burnish.label.queue import submit, undo_last
from burnish.label.resolve import adjudicate
from burnish.nn.models import load_template
from burnish.records.read import read_examples
from burnish.store import Store, open_store
from burnish.store.drafts import Draft, add_drafts
from burnish.store.examples import add_examples
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example, Message, ToolCall

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EDIT = Task(kind="edit", overlap=3)
RANK = Task(kind="rank", overlap=3)


def collect(store: Store, *examples: Example) -> list[str]:
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")
    return [example.id for example in examples]


def asked(text: str, **metadata: Any) -> Example:
    turns = (Message("system", "Be kind."), Message("user", text))
    return Example(Conversation(turns), "test", metadata)


def propose(store: Store, id_: str, *texts: str, task: Task = EDIT) -> list[str]:
    drafts = [Draft.of(id_, task.name, text, f"m{n}") for n, text in enumerate(texts)]
    with store.writing() as connection:
        add_drafts(connection, drafts)
    return [draft.id for draft in drafts]


def answer(store: Store, task: Task, id_: str, text: str, who: str = "ann", **fields: Any) -> str:
    annotation = Annotation(id_, task.name, text, who, f"{who}-{id_}-{text}")
    return submit(store, task, replace(annotation, **fields), now=NOW).annotation.client_id


def written(store: Store, task: Task, folder: Path) -> list[dict[str, Any]]:
    path = folder / "pairs.jsonl"
    count = export_preferences(store, task, path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == count
    return rows


def texts(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]


def test_an_edit_is_chosen_over_its_draft(store: Store, tmp_path: Path) -> None:
    ids = collect(store, *(asked(f"question {n}") for n in range(4)))
    drafts = [propose(store, id_, "a draft")[0] for id_ in ids]
    client_id = answer(store, EDIT, ids[0], "a better draft", draft_id=drafts[0])
    answer(store, EDIT, ids[1], " a  draft\n", draft_id=drafts[1])
    answer(store, EDIT, ids[2], "from nothing")
    answer(store, EDIT, ids[3], "", draft_id=drafts[3], status="skipped")
    assert written(store, EDIT, tmp_path) == [
        {
            "prompt": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "question 0"},
            ],
            "chosen": [{"role": "assistant", "content": "a better draft"}],
            "rejected": [{"role": "assistant", "content": "a draft"}],
            "example_id": ids[0],
            "annotation_ids": [client_id],
            "draft_ids": [drafts[0]],
        }
    ]


def test_the_answer_in_force_is_chosen(store: Store, tmp_path: Path) -> None:
    names = ("open", "decided", "gold", "flagged", "excluded", "undone")
    ids = dict(zip(names, collect(store, *map(asked, names)), strict=True))
    clients = {}
    for name, id_ in ids.items():
        first, second = propose(store, id_, "draft", "other draft")
        clients[name] = [
            answer(store, EDIT, id_, "ann's", "ann", draft_id=first),
            answer(store, EDIT, id_, "bo's", "bo", draft_id=first),
            answer(store, EDIT, id_, "cy's", "cy", draft_id=second),
        ]
    adjudicate(store, EDIT, {ids["decided"]: "settled"}, person="r")
    set_gold(store, EDIT, {ids["gold"]: "known"}, "r")
    answer(store, EDIT, ids["flagged"], "odd", "ann", status="flagged")
    exclude_all(store, [ids["excluded"]], "spam", actor="r")
    assert undo_last(store, EDIT, "cy", now=NOW) is not None
    rows = written(store, EDIT, tmp_path)
    by_name = {name: [r for r in rows if r["example_id"] == id_] for name, id_ in ids.items()}
    own = [("ann's", "draft"), ("bo's", "draft"), ("cy's", "other draft")]
    assert {name: texts(found) for name, found in by_name.items()} == {
        "open": own,
        "decided": [("settled", "draft"), ("settled", "other draft")],
        "gold": [("known", "draft"), ("known", "other draft")],
        "flagged": [],
        "excluded": [],
        "undone": own[:2],
    }
    assert [row["annotation_ids"] for row in by_name["decided"]] == [
        clients["decided"][:2],
        clients["decided"][2:],
    ]


def test_a_ranking_gives_every_ordered_pair(store: Store, tmp_path: Path) -> None:
    [id_] = collect(store, asked("question", candidates=["w", "x"]))
    drafts = propose(store, id_, "y", "z", task=RANK)
    client_id = answer(store, RANK, id_, "[[2], [0, 3], [1]]")
    rows = written(store, RANK, tmp_path)
    assert texts(rows) == [("y", "w"), ("y", "z"), ("y", "x"), ("w", "x"), ("z", "x")]
    assert [row["draft_ids"] for row in rows] == [
        [drafts[0]],
        [*drafts],
        [drafts[0]],
        [],
        [drafts[1]],
    ]
    assert all(row["annotation_ids"] == [client_id] for row in rows)


places = st.permutations(range(6)).flatmap(
    lambda order: st.lists(st.booleans(), min_size=5, max_size=5).map(
        lambda cuts: cut(list(order), cuts)
    )
)


def cut(order: list[int], cuts: list[bool]) -> list[list[int]]:
    found = [[order[0]]]
    for number, apart in zip(order[1:], cuts, strict=True):
        if apart:
            found.append([])
        found[-1].append(number)
    return found


@pytest.fixture(scope="module")
def one_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('rank')}/burnish.db")
    yield store
    store.close()


@given(ranking=places)
@settings(max_examples=50, deadline=None)
def test_pairs_are_the_ranking_and_nothing_more(ranking: list[list[int]], one_store: Store) -> None:
    [id_] = collect(one_store, asked(json.dumps(ranking), candidates=list("abcdef")))
    answer(one_store, RANK, id_, json.dumps(ranking))
    with one_store.reading() as connection:
        found = [p for p in read_preferences(connection, RANK) if p.example_id == id_]
    place = {"abcdef"[number]: n for n, tied in enumerate(ranking) for number in tied}
    expected = {(a, b) for a in place for b in place if place[a] < place[b]}
    assert {(p.chosen, p.rejected) for p in found} == expected
    assert len(found) == len(expected)


def test_tasks_of_other_kinds_give_what_they_can(store: Store, tmp_path: Path) -> None:
    choose = Task(name="c", kind="choose", choices=("yes", "no"))
    dialogue = Task(name="d", kind="dialogue")
    [id_] = collect(store, asked("question"))
    [draft] = propose(store, id_, "no", task=choose)
    answer(store, choose, id_, "yes", draft_id=draft)
    [turn] = propose(store, id_, "Hello", task=dialogue)
    said = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "Hi"}]
    answer(store, dialogue, id_, json.dumps(said), draft_id=turn)
    assert texts(written(store, choose, tmp_path)) == [("yes", "no")]
    assert written(store, dialogue, tmp_path) == []


def raw(text: str) -> Example:
    return Example(Conversation((Message("user", text), Message("assistant", "x")), raw=True), "t")


def test_all_rows_have_one_form(store: Store, tmp_path: Path) -> None:
    first, second = collect(store, raw("1 + 1 ="), raw("2 + 2 ="))
    for id_ in (first, second):
        [draft] = propose(store, id_, " 5")
        answer(store, EDIT, id_, " 4", draft_id=draft)
    rows = written(store, EDIT, tmp_path)
    assert [(r["prompt"], r["chosen"], r["rejected"]) for r in rows] == [
        ("1 + 1 =", " 4", " 5"),
        ("2 + 2 =", " 4", " 5"),
    ]
    [chat] = collect(store, asked("3 + 3?"))
    [draft] = propose(store, chat, "5")
    answer(store, EDIT, chat, "6", draft_id=draft)
    rows = written(store, EDIT, tmp_path)
    assert [row["prompt"][-1]["content"] for row in rows] == ["1 + 1 =", "2 + 2 =", "3 + 3?"]
    assert texts(rows) == [(" 4", " 5"), (" 4", " 5"), ("6", "5")]


def test_trl_reads_the_pairs(one_store: Store, tmp_path: Path) -> None:
    """What DPOTrainer does with its rows before it tokenises them (TRL 1.16)."""
    data_utils = pytest.importorskip("trl.data_utils")
    datasets = pytest.importorskip("datasets")
    template = load_template("starter")
    task = replace(EDIT, name="trl")
    tools = '[{"type": "function", "function": {"name": "look"}}]'
    call = Message("assistant", "", (ToolCall("look", "{}", "c1"),))
    turns = (Message("user", "q"), call, Message("tool", "found", tool_call_id="c1"))
    examples = [asked("question"), Example(Conversation(turns, tools), "test")]
    for id_ in collect(one_store, *examples):
        [draft] = propose(one_store, id_, "draft", task=task)
        answer(one_store, task, id_, "edit", draft_id=draft)
    export_preferences(one_store, task, tmp_path / "pairs.jsonl")
    rows = datasets.load_dataset(
        "json", data_files=str(tmp_path / "pairs.jsonl"), cache_dir=str(tmp_path), split="train"
    )
    for row, example in zip(rows, examples, strict=True):
        assert data_utils.is_conversational(row)
        assert (row["tools"] or None) == example.conversation.tools
        for turn, text in ((row["chosen"], "edit"), (row["rejected"], "draft")):
            conversation = example.conversation.answered(text)
            if conversation.tools is None:
                ids = template.tokenizer.apply_chat_template(row["prompt"] + turn)["input_ids"]
                assert ids == render(conversation, template).ids


def test_what_is_written_reads_back_as_prompts_and_answers(store: Store, tmp_path: Path) -> None:
    """A row without `rejected` is a prompt/completion row of our own formats."""
    [id_] = collect(store, asked("question"))
    [draft] = propose(store, id_, "draft")
    answer(store, EDIT, id_, "edit", draft_id=draft)
    [row] = written(store, EDIT, tmp_path)
    path = tmp_path / "sft.jsonl"
    path.write_text(json.dumps({"prompt": row["prompt"], "completion": row["chosen"]}) + "\n")
    [example] = read_examples(str(path)).examples
    assert example.conversation == asked("question").conversation.answered("edit")
