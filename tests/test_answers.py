"""Answers of every kind: what is one, its one form, what it does to an example, which is in force.

Run: pytest tests/test_answers.py
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.config import read_toml
from burnish.errors import ConfigError, InputError
from burnish.hashing import canonical_json
from burnish.project import Project
from burnish.records.answers import (
    applied,
    candidates_of,
    checked_answer,
    checked_text,
    compared,
    is_answered,
    span_text,
)
from burnish.store.annotations import add_annotations
from burnish.store.answers import (
    Given,
    Resolution,
    add_resolutions,
    annotated_after,
    answer_in_force,
    read_answered,
    read_given,
    read_resolutions,
)
from burnish.store.drafts import Draft, add_drafts
from burnish.store.examples import add_examples
from burnish.store.findings import exclude
from burnish.store.tables import gold
from burnish.tasks import Kind, Task, find_task, read_tasks
from burnish.types import Annotation, Conversation, Example, Message, ToolCall

CHOICES = ("red", "green", "blue")
TEXT = "Ада went to 東京 👩🏽‍🚀 by train"
TASKS = {
    kind: Task(kind=kind, choices=CHOICES if kind in ("choose", "choose_many", "spans") else ())
    for kind in get_args(Kind)
}
CANDIDATES = ("first", "second", "third")


def example(number: int = 1, answer: str | None = "yes", **metadata) -> Example:
    messages = (Message("user", f"question {number}"),)
    if answer is not None:
        messages += (Message("assistant", answer),)
    return Example(Conversation(messages), "a.jsonl", metadata)


def annotation(of: Example, answer: str, annotator: str = "ann", **fields) -> Annotation:
    client_id = fields.pop("client_id", f"{of.id}-{annotator}-{answer}-{fields.get('status', '')}")
    task = fields.pop("task", "answer")
    return Annotation(of.id, task, answer, annotator, client_id, **fields)


def add(store, *examples: Example) -> None:
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")


def annotate(store, *annotations: Annotation) -> None:
    with store.writing() as connection:
        add_annotations(connection, annotations, actor="test")


def in_force(store, task: Task) -> list[tuple[str, str | None]]:
    """Each example's status and answer."""
    with store.reading() as connection:
        found = [(a.status, a.conversation.answer) for a in read_answered(connection, task)]
    return [(status, answer.content if answer else None) for status, answer in found]


def turns(*said: str) -> str:
    """A dialogue from texts like `user: hello`."""
    pairs = (text.split(": ", 1) for text in said)
    return json.dumps([{"role": role, "content": content} for role, content in pairs])


def marked(*spans: tuple[int, int, str]) -> str:
    return json.dumps([{"label": label, "end": end, "start": start} for start, end, label in spans])


# One form.


@pytest.mark.parametrize(
    ("kind", "answer", "kept"),
    [
        ("write", " as it is \n", " as it is \n"),
        ("edit", "as it is", "as it is"),
        ("choose", " red\n", "red"),
        ("choose_many", '[ "blue", " red "]', '["red","blue"]'),
        ("choose_many", "[]", "[]"),
        ("rate", " +04 ", "4"),
        ("rank", "[[2], [1, 0]]", "[[2],[0,1]]"),
        ("spans", "[]", "[]"),
        (
            "spans",
            marked((12, 14, "red"), (0, 3, "green"), (0, 3, "blue"), (1, 5, "red")),
            canonical_json(
                [
                    {"start": 0, "end": 3, "label": "blue"},
                    {"start": 0, "end": 3, "label": "green"},
                    {"start": 1, "end": 5, "label": "red"},
                    {"start": 12, "end": 14, "label": "red"},
                ]
            ),
        ),
        (
            "dialogue",
            '[{"content": "hi", "role": "user"}, {"role": "assistant", "content": "ho "}]',
            '[{"content":"hi","role":"user"},{"content":"ho ","role":"assistant"}]',
        ),
        ("accept", '{"verdict": "accept", "reason": " "}', '{"verdict":"accept"}'),
        (
            "accept",
            ' {"verdict": "reject", "reason": " rude "}',
            '{"reason":"rude","verdict":"reject"}',
        ),
    ],
)
def test_an_answer_has_one_form(kind, answer, kept):
    of = Example(Conversation((Message("user", TEXT), Message("assistant", "a"))), "s")
    assert checked_answer(answer, TASKS[kind], of, CANDIDATES) == kept
    assert checked_answer(kept, TASKS[kind], of, CANDIDATES) == kept


WRONG = [
    ("write", "", "the answer is empty"),
    ("write", " \n", "the answer is empty"),
    ("write", "\ud800", "surrogate"),
    ("write", "a\0b", "NUL"),
    ("choose", "yellow", "not among the choices: 'yellow'"),
    ("choose_many", "red", "no JSON"),
    ("choose_many", '"red"', "no JSON list"),
    ("choose_many", '["yellow"]', "not among the choices"),
    ("choose_many", '["red", " red"]', "given twice: 'red'"),
    ("choose_many", "[1]", "a choice that is no text"),
    ("choose_many", "[" * 100_000, "no JSON"),
    ("rate", "0", "not on the scale: '0'"),
    ("rate", "6", "not on the scale"),
    ("rate", "3.5", "not on the scale"),
    ("rate", "1_0", "not on the scale"),
    ("rate", "٣", "not on the scale"),
    ("rate", "9" * 5000, "not on the scale"),
    ("rank", "[[0],[1]]", "candidate 2 has no place"),
    ("rank", "[[0],[1],[2],[3]]", "there is no candidate 3: they are 0 to 2"),
    ("rank", "[[0],[1],[2,0]]", "given twice: 0"),
    ("rank", "[0,1,2]", "no list of whole numbers"),
    ("rank", "[[0],[1],[2],[]]", "a place without candidates"),
    ("rank", "[[0],[true],[2]]", "no list of whole numbers"),
    ("rank", "[[-1,0,1,2]]", "below 0"),
    ("rank", "[]", "without places"),
    ("spans", marked((0, 0, "red")), "empty or outside the text: 0 to 0"),
    ("spans", marked((3, 2, "red")), "empty or outside the text"),
    ("spans", marked((-1, 2, "red")), "empty or outside the text"),
    ("spans", marked((0, len(TEXT) + 1, "red")), f"of {len(TEXT)} characters"),
    ("spans", marked((0, 2, "yellow")), "not among the choices"),
    ("spans", marked((0, 2, "red"), (0, 2, "red")), "given twice"),
    ("spans", '[{"start": 0, "end": 2}]', "has start, end and label"),
    ("spans", '[{"start": 0, "end": 2.0, "label": "red"}]', "whole numbers"),
    ("spans", '[{"start": true, "end": 2, "label": "red"}]', "whole numbers"),
    ("spans", "[[0, 2]]", "has start, end and label"),
    ("dialogue", "[]", "ends with the assistant's turn"),
    ("dialogue", turns("user: hi"), "ends with the assistant's turn"),
    ("dialogue", turns("user: hi", "assistant:  "), "turn 2 is empty"),
    ("dialogue", turns("user: a", "user: b", "assistant: c"), "turn 2 cannot be user: after user"),
    ("dialogue", turns("user: a", "assistant: b", "assistant: c"), "turn 3 cannot be assistant"),
    ("dialogue", turns("user: a", "system: b", "assistant: c"), "turn 2 cannot be system"),
    ("dialogue", turns("tool: a", "assistant: c"), "turn 1 cannot be tool: at the beginning"),
    ("dialogue", turns("user: a", "model: c"), "role is one of system, user"),
    ("dialogue", '[{"role": "assistant", "content": "a", "weight": 0}]', "role and content"),
    ("dialogue", '[{"role": ["user"], "content": "a"}]', "role is one of"),
    ("dialogue", '[{"role": "assistant", "content": "\\ud800"}]', "surrogate"),
    ("dialogue", '[{"role": "assistant", "content": "\\u0000a"}]', "NUL"),
    ("accept", "accept", "no JSON"),
    ("accept", '{"verdict": "maybe"}', "accept or reject"),
    ("accept", '{"verdict": ["accept"]}', "accept or reject"),
    ("accept", '{"verdict": "reject"}', "rejected without a reason"),
    ("accept", '{"verdict": "reject", "reason": " "}', "rejected without a reason"),
    ("accept", '{"verdict": "accept", "reason": "good"}', "a reason is for rejecting"),
    ("accept", '{"verdict": "accept", "by": "me"}', "nothing else"),
]


@pytest.mark.parametrize(("kind", "answer", "message"), WRONG)
def test_what_is_no_answer_is_refused_with_what_is_wrong(kind, answer, message):
    of = Example(Conversation((Message("user", TEXT), Message("assistant", "a"))), "s")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        checked_answer(answer, TASKS[kind], of, CANDIDATES)
    assert caught.value.do


def test_a_ranking_needs_candidates_and_an_acceptance_an_answer():
    with pytest.raises(InputError, match="has 1 candidates"):
        checked_answer("[[0]]", TASKS["rank"], example(), ("only",))
    with pytest.raises(InputError, match="no answer to accept"):
        checked_answer('{"verdict": "accept"}', TASKS["accept"], example(1, None))
    rejected = '{"verdict": "reject", "reason": "rude"}'
    assert checked_answer(rejected, TASKS["accept"], example(1, None))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.floats(0, 4) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["start", "end", "label", "role", "content", "verdict", "reason"]),
            inner | st.sampled_from(["user", "assistant", "tool", "accept", "reject", "red"]),
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.sampled_from(list(TASKS)), st.text(max_size=20) | _JSON.map(json.dumps))
def test_whatever_is_sent_is_kept_in_one_form_or_refused(kind, sent):
    of, task = example(1, "a"), TASKS[kind]
    try:
        kept = checked_answer(sent, task, of, CANDIDATES)
    except InputError:
        return
    assert checked_answer(kept, task, of, CANDIDATES) == kept
    checked_text(kept)
    compared(kept, task)
    conversation = applied(of, kept, task, CANDIDATES)
    assert conversation is None or conversation.answer is not None


_SPANS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 9), st.sampled_from(CHOICES)), unique=True
)


@settings(deadline=None)
@given(_SPANS, st.randoms(use_true_random=False))
def test_the_order_in_which_spans_were_marked_is_not_seen(spans, random):
    given_spans = [(start, start + length, label) for start, length, label in spans]
    shuffled = random.sample(given_spans, len(given_spans))
    of = Example(Conversation((Message("user", "x" * 20),)), "s")
    one, other = (checked_answer(marked(*s), TASKS["spans"], of) for s in (given_spans, shuffled))
    assert one == other
    read = [(span["start"], span["end"], span["label"]) for span in json.loads(one)]
    assert read == sorted(given_spans)


def test_offsets_count_code_points_of_the_last_user_turn():
    messages = (Message("user", "short"), Message("assistant", "a"), Message("user", TEXT))
    of = Example(Conversation((*messages, Message("assistant", "b"))), "s")
    assert span_text(of) == TEXT
    start = TEXT.index("👩")
    span = marked((start, start + len("👩🏽‍🚀"), "red"))
    kept = json.loads(checked_answer(span, TASKS["spans"], of))
    assert TEXT[kept[0]["start"] : kept[0]["end"]] == "👩🏽‍🚀"
    assert span_text(Example(Conversation((Message("assistant", "plain"),), raw=True), "s")) == ""


def test_candidates_are_the_metadatas_then_the_drafts_each_once():
    of = example(1, None, candidates=["a", "b", "a", 3])
    drafts = [Draft.of(of.id, "answer", text, "m") for text in ("b", "c")]
    assert candidates_of(of, drafts) == ("a", "b", "c")
    assert candidates_of(of, drafts[:1]) == ("a", "b")
    assert candidates_of(example(1, None, candidates="a, b"), drafts) == ("b", "c")


# What it does to an example.


@pytest.mark.parametrize(
    ("kind", "answer", "trained"),
    [
        ("write", "better", "better"),
        ("edit", "better", "better"),
        ("choose", "red", "red"),
        ("choose_many", '["red","blue"]', '["red","blue"]'),
        ("rate", "4", "4"),
        ("rank", "[[2],[0,1]]", "third"),
        ("rank", "[[1,2],[0]]", "second"),
        ("spans", "[]", "[]"),
        ("accept", '{"verdict":"accept"}', "yes"),
    ],
)
def test_what_is_trained_on(kind, answer, trained):
    of = example()
    conversation = applied(of, answer, TASKS[kind], CANDIDATES)
    assert conversation == of.conversation.answered(trained)


def test_a_rejected_example_is_left_out():
    assert applied(example(), '{"reason":"rude","verdict":"reject"}', TASKS["accept"]) is None


def test_turns_become_the_conversation_and_unchanged_ones_keep_what_they_had():
    call = ToolCall("weather", '{"city": "Oslo"}', "c1")
    received = Conversation(
        (
            Message("user", "How is it in Oslo?", weight=0.5),
            Message("assistant", "", (call,)),
            Message("tool", "rain", tool_call_id="c1"),
            Message("assistant", "Dunno."),
        ),
        tools='[{"type":"function"}]',
    )
    of = Example(received, "s")
    said = [{"role": m.role, "content": m.content} for m in received.messages]
    task = TASKS["dialogue"]
    assert applied(of, checked_answer(json.dumps(said), task, of), task) == received
    said[3:] = [
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "Any time."},
    ]
    changed = applied(of, checked_answer(json.dumps(said), task, of), task)
    assert changed is not None
    assert (changed.messages[:3], changed.tools) == (received.messages[:3], received.tools)
    assert [m.content for m in changed.messages[3:]] == ["It rains.", "Thanks", "Any time."]


def test_answers_of_another_kind_say_so():
    for kind, answer in (
        ("rank", "an essay"),
        ("rank", "[[5]]"),
        ("dialogue", "4"),
        ("accept", "[[0],[1]]"),
    ):
        with pytest.raises(InputError, match=f"no answer of kind '{kind}'"):
            applied(example(), answer, TASKS[kind], CANDIDATES)


@pytest.mark.parametrize(
    ("kind", "own", "counts"),
    [
        ("write", "anything", True),
        ("dialogue", "anything", True),
        ("write", None, False),
        ("choose", "red", True),
        ("choose", "yellow", False),
        ("rate", "4", True),
        ("rate", "forty", False),
        ("spans", "[]", True),
        ("rank", "[[0],[1]]", False),
        ("accept", "anything", False),
    ],
)
def test_an_examples_own_answer_counts_where_it_is_one(kind, own, counts):
    of = example(1, own)
    assert is_answered(of, TASKS[kind]) is counts
    expected = "answered" if counts else "unlabelled"
    assert answer_in_force(of, TASKS[kind], Given()).status == expected


# The answer in force.


# What the example came with, what was said of it in order, what was decided; status and answer.
IN_FORCE = [
    (None, [], None, "unlabelled", None),
    ("own", [], None, "answered", "own"),
    ("own", [("a", "x")], None, "answered", "x"),
    (None, [("a", "x"), ("b", " x\n")], None, "answered", "x"),
    (None, [("a", "x"), ("b", "y")], None, "disagreement", None),
    ("own", [("a", "x"), ("b", "y")], None, "disagreement", "own"),
    ("own", [("a", "x"), ("b", "y")], "z", "answered", "z"),
    (None, [("a", "x"), ("a", "y")], None, "answered", "y"),
    (None, [("a", "x"), ("b", "!skipped")], None, "answered", "x"),
    ("own", [("a", "!skipped")], None, "answered", "own"),
    ("own", [("a", "x"), ("b", "!flagged")], None, "flagged", "own"),
    ("own", [("b", "!flagged")], "z", "answered", "z"),
    ("own", [("b", "!flagged"), ("b", "x")], None, "answered", "x"),
    ("own", [("a", "x"), ("a", "!withdrawn")], None, "answered", "own"),
    (None, [("a", "x"), ("a", "!withdrawn")], None, "unlabelled", None),
    (None, [("a", "x"), ("b", "y"), ("b", "!withdrawn")], None, "answered", "x"),
    (None, [("a", "x"), ("a", "!withdrawn"), ("a", "y")], None, "answered", "y"),
    (None, [("a", "!flagged"), ("a", "!withdrawn")], None, "unlabelled", None),
]


def said_of(
    number: int, own: str | None, given: list[tuple[str, str]], resolution: str | None
) -> tuple[Example, Given]:
    """An example, and what was said of it; `!status` stands for an annotation of that status."""
    one = example(number, own)
    annotations = [
        annotation(one, "", who, status=what[1:], client_id=f"{number}-{n}")
        if what.startswith("!")
        else annotation(one, what, who, client_id=f"{number}-{n}")
        for n, (who, what) in enumerate(given)
    ]
    decided = Resolution(one.id, "answer", resolution, (f"{number}-0",), "lead")
    return one, Given(tuple(annotations), decided if resolution else None)


@pytest.mark.parametrize(("own", "given", "resolution", "status", "answer"), IN_FORCE)
def test_the_answer_in_force(own, given, resolution, status, answer):
    one, said = said_of(1, own, given, resolution)
    found = answer_in_force(one, Task(), said)
    assert found.status == status
    assert (found.conversation.answer.content if found.conversation.answer else None) == answer
    assert found.conversation.prompt == one.conversation.prompt
    if resolution is not None:
        assert [a.client_id for a in found.annotations] == ["1-0"]
    elif answer == own:
        assert found.annotations == ()
    else:
        assert {a.answer.strip() for a in found.annotations} == {answer}


def test_what_is_read_is_what_the_rule_says(store):
    cases = [said_of(n, *case[:3]) for n, case in enumerate(IN_FORCE)]
    add(store, *(one for one, _ in cases))
    annotate(store, *(a for _, said in cases for a in said.annotations))
    with store.writing() as connection:
        for answer in ("first thought", None):
            decided = [
                replace(s.resolution, answer=answer or s.resolution.answer)
                for _, s in cases
                if s.resolution
            ]
            add_resolutions(connection, decided, actor="lead")
    with store.reading() as connection:
        found = list(read_answered(connection, Task()))
    expected = [answer_in_force(one, Task(), said) for one, said in cases]
    assert [(a.example.id, a.status, a.conversation) for a in found] == [
        (a.example.id, a.status, a.conversation) for a in expected
    ]
    assert [[b.client_id for b in a.annotations] for a in found] == [
        [b.client_id for b in a.annotations] for a in expected
    ]


def test_other_tasks_and_excluded_examples_do_not_answer(store):
    one, two = example(1, None), example(2)
    add(store, one, two)
    with store.writing() as connection:
        other = Annotation(one.id, "intent", "x", "ann", "c1")
        add_annotations(connection, [other], actor="ann")
        exclude(connection, {two.id: "empty_answer"}, actor="audit")
    with store.reading() as connection:
        assert [a.status for a in read_answered(connection, Task())] == ["unlabelled"]
        assert [a.status for a in read_answered(connection, Task(name="intent"))] == ["answered"]
        assert list(read_resolutions(connection, task="answer")) == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y"])), max_size=5))
def test_one_voice_each_and_all_agree_or_nobody_is_heard(given_answers):
    one = example(1, None)
    annotations = [annotation(one, what, who) for who, what in given_answers]
    latest = dict(given_answers)
    answered = answer_in_force(one, Task(), Given(tuple(annotations)))
    if not latest:
        assert answered.status == "unlabelled"
    elif len(set(latest.values())) == 1:
        assert answered.conversation.answer.content in latest.values()
        assert len(answered.annotations) == len(latest)
    else:
        assert answered.status == "disagreement"


def make_gold(store, of: Example, answer: str, task: str = "answer") -> None:
    row = {"task": task, "example_id": of.id, "answer": answer, "by": "lead", "created_at": "now"}
    with store.writing() as connection:
        connection.execute(gold.insert().values(row))


def test_gold_outweighs_all_that_was_said(store):
    one, two = example(1, "own"), example(2, None)
    add(store, one, two)
    annotate(store, annotation(one, "x"), annotation(one, "", "bob", status="flagged"))
    with store.writing() as connection:
        add_resolutions(connection, [Resolution(one.id, "answer", "z", (), "eve")], actor="eve")
    make_gold(store, one, "known")
    make_gold(store, two, "of another task", task="other")
    assert in_force(store, Task()) == [("answered", "known"), ("unlabelled", None)]
    with store.reading() as connection:
        first, _ = read_answered(connection, Task())
        assert first.annotations == ()
        said = read_given(connection, "answer", [one.id, two.id])
    assert (said[one.id].is_settled, said[two.id]) == (True, Given())


def test_a_rules_decision_stands_on_the_answers_it_was_made_from(store):
    one = example(1, None)
    add(store, one)
    given_answers = [annotation(one, "x", who, client_id=who) for who in "abc"]
    annotate(store, *given_answers[:2])
    rule = Resolution(one.id, "answer", "by rule", ("a", "b"), "rule:unanimous")
    with store.writing() as connection:
        add_resolutions(connection, [rule], actor="rule:unanimous")
    assert in_force(store, Task()) == [("answered", "by rule")]
    annotate(store, annotation(one, "y", "b", client_id="b2"))
    assert in_force(store, Task()) == [("disagreement", None)]
    annotate(store, annotation(one, "x", "b", client_id="b3"))
    assert in_force(store, Task()) == [("answered", "x")]


@pytest.mark.parametrize(
    ("kind", "answers", "status", "trained"),
    [
        ("rank", ["[[1],[0],[2]]", "[[1],[0],[2]]"], "answered", "second"),
        ("rank", ["[[1],[0],[2]]", "[[1],[0,2]]"], "disagreement", None),
        ("choose_many", ['["red"]', '["red"]'], "answered", '["red"]'),
        ("spans", ["[]"], "answered", "[]"),
        ("rate", ["4", "5"], "disagreement", None),
        ("accept", ['{"reason":"a","verdict":"reject"}'], "rejected", "own"),
        # Two who reject agree, whatever their reasons.
        (
            "accept",
            ['{"reason":"a","verdict":"reject"}', '{"reason":"b","verdict":"reject"}'],
            "rejected",
            "own",
        ),
        (
            "accept",
            ['{"reason":"a","verdict":"reject"}', '{"verdict":"accept"}'],
            "disagreement",
            "own",
        ),
        ("accept", ['{"verdict":"accept"}'], "answered", "own"),
        ("dialogue", [turns("user: a", "assistant: b")], "answered", "b"),
    ],
)
def test_the_answer_in_force_of_each_kind(kind, answers, status, trained):
    one = example(1, "own" if kind == "accept" else None)
    said = Given(tuple(annotation(one, a, f"ann{n}") for n, a in enumerate(answers)))
    found = answer_in_force(one, TASKS[kind], said, CANDIDATES)
    answer = found.conversation.answer
    assert (found.status, answer.content if answer else None) == (status, trained)


def test_the_best_of_metadata_and_drafts_is_trained_on(store):
    one = example(1, None, candidates=list(CANDIDATES[:1]))
    add(store, one)
    with store.writing() as connection:
        drafts = [Draft.of(one.id, "answer", text, "m") for text in CANDIDATES[1:]]
        add_drafts(connection, drafts)
        add_drafts(connection, [Draft.of(one.id, "other", "of another task", "m")])
    annotate(store, annotation(one, "[[2],[0,1]]"))
    assert in_force(store, TASKS["rank"]) == [("answered", "third")]


def test_several_tasks_of_one_project_stay_apart(store):
    one = example(1, None)
    add(store, one)
    tasks = [Task("intent", kind="choose", choices=CHOICES), Task("tone", kind="rate"), Task()]
    annotate(store, annotation(one, "red", task="intent"), annotation(one, "4", task="tone"))
    with store.writing() as connection:
        add_resolutions(connection, [Resolution(one.id, "tone", "5", (), "eve")], actor="eve")
    found = [in_force(store, task) for task in tasks]
    assert found == [[("answered", "red")], [("answered", "5")], [("unlabelled", None)]]
    with store.reading() as connection:
        assert [r.task for r in read_resolutions(connection, example_id=one.id)] == ["tone"]
        assert list(annotated_after(connection, "answer", 0)) == []
        [(id_, seq)] = annotated_after(connection, "tone", 0).items()
        assert (id_, dict(annotated_after(connection, "tone", seq))) == (one.id, {})


# Tasks.

DOCS = Path(__file__).parents[1] / "docs" / "tasks.md"
BLOCKS = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)


def project_of(folder: Path, text: str) -> Project:
    (folder / "burnish.toml").write_text(text, encoding="utf-8")
    return Project(folder, read_toml(folder / "burnish.toml"))


def test_the_documented_tasks_can_be_built_and_are_of_every_kind(tmp_path):
    kinds = [t.kind for text in BLOCKS for t in read_tasks(project_of(tmp_path, text)).values()]
    assert set(kinds) == set(get_args(Kind))


def test_the_only_task_need_not_be_named(tmp_path):
    assert find_task(Project(tmp_path, {})) == Task()
    one = project_of(tmp_path, "[tasks.tone]\nkind = 'rate'\n")
    assert find_task(one).name == "tone"
    two = project_of(tmp_path, "[label]\noverlap = 3\n[tasks.tone]\nkind = 'rate'\n[tasks.other]\n")
    with pytest.raises(ConfigError, match="several tasks: tone, other"):
        find_task(two)
    assert (find_task(two, "other").kind, find_task(two, "tone").overlap) == ("write", 3)
    with pytest.raises(ConfigError, match="did you mean 'tone'"):
        find_task(two, "tne")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("kind = 'rate'\nscale = [1]", "scale = [1]"),
        ("kind = 'rate'\nscale = [5, 1]", "scale = [5, 1]"),
        ("choices = ['a', 'a']", "must be different"),
        ("choices = [' a']", "white space"),
        ("choices = ['']", "not empty"),
        ("kind = 'spans'", "needs choices"),
        ("kind = 'rate'\nchoices = ['a']", "not for kind = 'rate'"),
        ("name = 'other'", "no setting 'name'"),
    ],
)
def test_a_task_that_cannot_be_is_refused(tmp_path, text, fault):
    with pytest.raises(ConfigError, match=re.escape(fault)) as caught:
        read_tasks(project_of(tmp_path, f"[tasks.one]\n{text}\n"))
    assert "[tasks.one]" in str(caught.value)
