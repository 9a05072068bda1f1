"""Each fault planted, and found. Run: pytest tests/test_audit.py"""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import burnish.audit
from burnish.audit import AuditConfig, audit
from burnish.audit.clusters import Clusters
from burnish.errors import ConfigError
from burnish.hashing import content_hash
from burnish.project import Project
from burnish.store import open_store
from burnish.store.annotations import add_annotations
from burnish.store.answers import Resolution, add_resolutions, read_answered
from burnish.store.examples import add_examples
from burnish.store.findings import read_exclusions
from burnish.store.log import read_log, verify_log
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example, Message, ToolCall

# Without settings: the one task `answer`.
PROJECT = Project(Path(), {})


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/burnish.db")
    yield opened
    opened.close()


def example(prompt: str, answer: str | None = None, **fields) -> Example:
    messages = (Message("user", prompt),)
    if answer is not None:
        messages += (Message("assistant", answer),)
    return Example(Conversation(messages), fields.pop("source", "a"), fields)


def add(store, *examples: Example) -> list[str]:
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")
    return [e.id for e in examples]


def annotate(store, example_id: str, *answers: str, status: str = "submitted") -> None:
    annotations = [
        Annotation(example_id, "answer", a, f"ann{n}", f"{example_id}{n}", status=status)
        for n, a in enumerate(answers)
    ]
    with store.writing() as connection:
        add_annotations(connection, annotations, actor="test")


def resolve(store, example_id: str, answer: str) -> None:
    with store.writing() as connection:
        add_resolutions(connection, [Resolution(example_id, "answer", answer, (), "b")], actor="b")


def found(store, check: str, **config) -> list[tuple[str, ...]]:
    findings = audit(AuditConfig(**config), store, PROJECT).findings
    return [f.example_ids for f in findings if f.check == check]


def test_duplicates_differ_in_case_space_and_width_at_most(store):
    ids = add(
        store,
        example("What is 2?", "Two."),
        example("another", "Two."),
        example("what  is\n２?", "two. "),
        example("What is 2?", "Three."),
        example("What is 2?", "Two.", source="b"),
    )
    assert found(store, "exact_duplicate") == [(ids[0], ids[2], ids[4])]


def test_the_first_duplicate_stays_and_the_others_keep_their_reason(store):
    ids = add(store, *(example("p", "a", source="ab"[n % 2], n=n) for n in range(4)))
    assert audit(AuditConfig(), store, PROJECT).excluded == 0
    result = audit(AuditConfig(fix=True), store, PROJECT)
    assert result.excluded == 3
    assert result.survival == {"a": (2, 1), "b": (2, 0)}
    with store.reading() as connection:
        assert [a.example.id for a in read_answered(connection, Task())] == ids[:1]
        assert set(read_exclusions(connection).values()) == {f"exact_duplicate of {ids[0]}"}
        assert [entry["action"] for entry in read_log(connection)][:2] == ["exclude", "audit"]
        verify_log(connection)
    again = audit(AuditConfig(fix=True), store, PROJECT)
    assert (again.excluded, again.findings) == (0, ())
    assert again.survival == result.survival


def test_duplicates_of_what_people_answered(store):
    one, two, three = add(store, *(example("p", n=n) for n in range(3)))
    assert found(store, "exact_duplicate") == [(one, two, three)]
    annotate(store, one, "x")
    annotate(store, two, "X ", "x")
    annotate(store, three, "y")
    # "X " and "x" disagree until somebody decides.
    assert found(store, "exact_duplicate") == []
    resolve(store, two, "X")
    assert found(store, "exact_duplicate") == [(one, two)]
    assert found(store, "conflicting_answers") == [(one, two, three)]


def test_empty_answers(store):
    empty, blank, full, waiting = add(
        store,
        example("p1", ""),
        example("p2", " \n\u3000"),
        example("p3", "a"),
        example("p4"),
    )
    calls = Conversation((Message("user", "p"), Message("assistant", "", (ToolCall("f", "{}"),))))
    add(store, Example(calls, "a"))
    assert found(store, "empty_answer") == [(empty,), (blank,)]
    annotate(store, empty, "an answer")
    resolve(store, full, " ")
    assert found(store, "empty_answer", fix=True) == [(blank,), (full,)]
    with store.reading() as connection:
        assert read_exclusions(connection) == {blank: "empty_answer", full: "empty_answer"}
        statuses = {a.example.id: a.status for a in read_answered(connection, Task())}
    assert (statuses[empty], statuses[waiting]) == ("answered", "unlabelled")


def test_conflicting_answers_are_left_to_a_person(store):
    ids = add(
        store,
        example("Is it red?", "yes"),
        example("is it  RED?", "no"),
        example("Is it red?", "Yes ", n=1),
        example("Is it blue?", "no"),
        example("Is it red?"),
    )
    findings = audit(AuditConfig(fix=True), store, PROJECT).findings
    [conflict] = [f for f in findings if f.check == "conflicting_answers"]
    assert (conflict.example_ids, conflict.fix) == (tuple(ids[:3]), None)
    with store.reading() as connection:
        assert set(read_exclusions(connection)) == {ids[2]}
    resolve(store, ids[1], "yes")
    assert found(store, "conflicting_answers") == []


def test_plain_texts_do_not_conflict(store):
    texts = [Conversation((Message("assistant", t),), raw=True) for t in ("one", "two", "two")]
    add(store, *(Example(c, "a", {"n": n}) for n, c in enumerate(texts)))
    assert found(store, "conflicting_answers") == []
    assert len(found(store, "exact_duplicate")) == 1


def test_answers_that_repeat_the_prompt(store):
    ids = add(store, example("Say hello", "say  HELLO"), example("a", "b"), example(" ", " "))
    assert found(store, "answer_equals_prompt") == [(ids[0],)]


@pytest.mark.parametrize("mark", ["<|im_start|>", "<end_of_turn>", "[/INST]", "<</SYS>>", "</s>"])
def test_marks_of_chat_templates(store, mark):
    ids = add(store, example("p", f"a{mark}user"), example(f"q {mark}"), example("<b>[x]</b>", "a"))
    assert found(store, "template_token_leak") == [(ids[0],), (ids[1],)]
    assert mark in audit(AuditConfig(), store, PROJECT).findings[0].message


def test_flagged_and_disputed_examples_are_nobodys_duplicate(store):
    first, second, third = add(store, *(example("p", "a", n=n) for n in range(3)))
    annotate(store, first, "", status="flagged")
    annotate(store, second, "x", "y")
    assert found(store, "exact_duplicate", fix=True) == []
    resolve(store, first, "a")
    assert found(store, "exact_duplicate") == [(first, third)]


def test_the_answers_of_the_task_are_audited(store, tmp_path):
    one, two = add(store, example("p"), example("p", n=1))
    with store.writing() as connection:
        annotations = [
            Annotation(id_, "tone", answer, "ann", id_) for id_, answer in ((one, "1"), (two, "5"))
        ]
        add_annotations(connection, annotations, actor="test")
    tasks = {"tone": {"kind": "rate"}, "other": {}}
    project = Project(tmp_path, {"tasks": tasks})
    with pytest.raises(ConfigError, match="several tasks: tone, other"):
        audit(AuditConfig(), store, project)
    [finding] = audit(AuditConfig(task="tone"), store, project).findings
    assert (finding.check, finding.example_ids) == ("conflicting_answers", (one, two))
    [finding] = audit(AuditConfig(task="other"), store, project).findings
    assert (finding.check, finding.example_ids) == ("exact_duplicate", (one, two))


def test_an_empty_store_has_no_findings(store):
    result = audit(AuditConfig(fix=True), store, PROJECT)
    assert (result.findings, result.excluded, result.survival) == ((), 0, {})


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers()), unique=True, max_size=40))
def test_clusters_are_the_groups_of_equal_keys(pairs):
    clusters, expected = Clusters(), {}
    for key, value in pairs:
        id_ = content_hash([key, value])
        # Keys that end in zero bytes must not be taken for shorter ones.
        clusters.add(f"{key:032x}"[::-1], id_)
        expected.setdefault(key, []).append(id_)
    groups = set(clusters.groups())
    assert groups == {tuple(ids) for ids in expected.values() if len(ids) > 1}


# Each example opens a store of its own, which takes 50 ms.
@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["a", "A ", "b", "", None]), max_size=12))
def test_a_fix_never_removes_the_last_member_of_a_cluster(tmp_path_factory, answers):
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('audit')}/a.db")
    ids = add(store, *(example("p", answer, n=n) for n, answer in enumerate(answers)))
    audit(AuditConfig(fix=True), store, PROJECT)
    with store.reading() as connection:
        gone = set(read_exclusions(connection))
    store.close()
    kept = [a for id_, a in zip(ids, answers, strict=True) if id_ not in gone]
    kept = [a.strip().lower() if a else a for a in kept]
    expected = {a.strip().lower() if a else a for a in answers} - {""}
    assert len(kept) == len(expected)
    assert set(kept) == expected


def test_every_check_is_documented():
    text = (Path(__file__).parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")
    checks = text.partition("## Settings")[0]
    documented = re.findall(r"^\| `(\w+)` \|", checks, re.MULTILINE)
    package = Path(burnish.audit.__file__).parent
    assert set(documented) == {p.stem for p in package.glob("*.py")} - {
        "__init__",
        "audit",
        "clusters",
    }
