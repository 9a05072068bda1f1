"""From an id to what made it and what it led to. Run: pytest tests/test_trace.py"""

import pytest

from burnish.errors import ProjectError
from burnish.project import init_project
from burnish.snapshot import SnapshotConfig, snapshot
from burnish.store.annotations import add_annotations
from burnish.store.answers import Resolution, add_resolutions
from burnish.store.examples import add_examples
from burnish.store.findings import exclude
from burnish.trace import trace
from burnish.types import Annotation, Conversation, Example, Message


@pytest.fixture
def project(tmp_path):
    return init_project(tmp_path / "project")


def add(store, *prompts: str) -> list[str]:
    examples = [
        Example(Conversation((Message("user", p), Message("assistant", "a"))), "s") for p in prompts
    ]
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")
    return [e.id for e in examples]


def test_an_examples_annotations_and_decisions_of_every_task(store, project):
    one, other = add(store, "one", "other")
    with store.writing() as connection:
        annotations = [
            Annotation(one, "answer", "x", "ann", "c1"),
            Annotation(one, "tone", "4", "bob", "c2"),
            Annotation(other, "tone", "4", "cat", "c3"),
        ]
        add_annotations(connection, annotations, actor="test")
        decided = [
            Resolution(one, "tone", "4", ("c2",), "eve"),
            Resolution(one, "tone", "5", ("c2",), "eve"),
            Resolution(one, "answer", "y", ("c1",), "eve"),
            Resolution(other, "answer", "z", (), "eve"),
        ]
        add_resolutions(connection, decided, actor="eve")
        exclude(connection, {other: "broken"}, actor="eve")
    by_example, by_annotation = trace(one, store, project), trace("c2", store, project)
    for found in (by_example, by_annotation):
        assert [a.client_id for a in found.annotations] == ["c1", "c2"]
        assert {(r.task, r.answer) for r in found.resolutions} == {("tone", "5"), ("answer", "y")}
        assert (found.example.id, found.exclusion) == (one, None)
    assert (by_example.kind, by_annotation.kind) == ("example", "annotation")
    assert trace(other, store, project).exclusion == "broken"


def test_the_snapshots_that_hold_it_and_whose_labels_they_hold(store, project):
    one, other = add(store, "one", "other")
    first = snapshot(SnapshotConfig(validation=0, test=0), store, project)
    with store.writing() as connection:
        annotations = [Annotation(one, "answer", "x", who, who) for who in ("ann", "bob")]
        annotations.append(Annotation(other, "answer", "x", "bob", "c"))
        add_annotations(connection, annotations, actor="test")
        exclude(connection, {other: "broken"}, actor="eve")
    second = snapshot(SnapshotConfig(validation=0, test=0), store, project)
    assert [r.id for r in trace(one, store, project).led_to] == [first.id, second.id]
    assert [r.id for r in trace(other, store, project).led_to] == [first.id]
    assert trace(first.id, store, project).annotators == ()
    assert trace(second.id, store, project).annotators == (("ann", 1), ("bob", 1))


def test_an_id_of_nothing_says_so(store, project):
    with pytest.raises(ProjectError, match="no example, annotation or artefact"):
        trace("nothing", store, project)
