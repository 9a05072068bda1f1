"""Examples frozen. Run: pytest tests/test_snapshot.py"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from burnish.errors import ConfigError, InputError, ProjectError
from burnish.project import Project, init_project, open_project, read_manifest
from burnish.records import read_examples, read_records
from burnish.records.fingerprint import prompt_fingerprint
from burnish.records.splits import Splitter
from burnish.snapshot import SnapshotConfig, snapshot
from burnish.store import open_store
from burnish.store.annotations import add_annotations
from burnish.store.answers import Resolution, add_resolutions
from burnish.store.examples import add_examples
from burnish.store.findings import exclude
from burnish.store.log import read_log, verify_log
from burnish.types import SPLITS, Annotation, Conversation, Example, Message


@pytest.fixture
def project(tmp_path, store_url):
    made = init_project(tmp_path / "project")
    return with_tables(made, f'[project]\nstore = "{store_url}"\n')


@pytest.fixture
def store(project):
    opened = open_store(project.store_url)
    yield opened
    opened.close()


def with_tables(project: Project, text: str) -> Project:
    """The project, with this as its burnish.toml."""
    (project.root / "burnish.toml").write_text(text)
    return open_project(project.root)


def example(prompt: str, answer: str | None = "a", subjects: tuple = (), **metadata) -> Example:
    messages = (Message("user", prompt),)
    if answer is not None:
        messages += (Message("assistant", answer),)
    return Example(Conversation(messages), "s", metadata, subject_ids=subjects)


def add(store, *examples: Example) -> list[str]:
    with store.writing() as connection:
        add_examples(connection, examples, actor="test")
    return [e.id for e in examples]


def rows(made) -> dict[str, list[Example]]:
    return {split: read_examples(made.path, split=split).examples for split in made.examples}


def test_a_snapshot_reads_back_as_it_was_frozen(store, project):
    answer = Message("assistant", "ü", weight=0.5)
    examples = [
        Example(
            Conversation((Message("user", f"p{n}"), answer), '[{"name":"f"}]', raw=True),
            "source.csv",
            {"n": n, "list": [1, {"a": "b"}]},
            2.0,
            "MIT",
            "consent",
            ("u1", "u2"),
        )
        for n in range(30)
    ]
    add(store, *examples)
    made = snapshot(SnapshotConfig(validation=0, test=0), store, project)
    assert (made.examples, made.is_new, made.left_out) == ({"train": 30}, True, {})
    records = read_records(made.path, split="train")
    assert records.format == "burnish"
    assert [e.id for e in records] == [e.id for e in examples]


def test_twice_gives_the_same_snapshot_and_no_copy(store, project):
    add(store, *(example(f"p{n}") for n in range(100)))
    first = snapshot(SnapshotConfig(name="one"), store, project)
    manifest = (first.path / "manifest.json").read_bytes()
    second = snapshot(SnapshotConfig(), store, project)
    assert (second.id, second.path, second.is_new) == (first.id, first.path, False)
    assert (first.path / "manifest.json").read_bytes() == manifest
    assert [p.name for p in project.folder("snapshot").iterdir()] == [first.id]
    assert [a.id for a in project.artefacts()] == [first.id]
    assert project.find("one").path == first.path
    other = snapshot(SnapshotConfig(seed=1), store, project)
    assert other.id != first.id
    add(store, example("one more"))
    assert snapshot(SnapshotConfig(), store, project).id != first.id


def test_answers_in_force_and_who_gave_them(store, project):
    own, sole, agreed, settled, disputed, flagged, waiting, gone = add(
        store,
        example("own", "own answer"),
        example("sole", "draft"),
        example("agreed", None),
        example("settled", None),
        example("disputed", None),
        example("flagged"),
        example("waiting", None),
        example("gone"),
    )

    def given(id_: str, answer: str, who: str, status="submitted") -> Annotation:
        return Annotation(id_, "answer", answer, who, f"{id_[:4]}{who}", f"g-{who}", status=status)

    with store.writing() as connection:
        annotations = [
            given(sole, "edited", "ann"),
            given(agreed, "both", "ann"),
            given(agreed, "both", "bob"),
            given(settled, "x", "ann"),
            given(settled, "y", "bob"),
            given(disputed, "x", "ann"),
            given(disputed, "y", "bob"),
            given(flagged, "", "ann", "flagged"),
        ]
        add_annotations(connection, annotations, actor="test")
        basis = (f"{settled[:4]}bob",)
        decision = Resolution(settled, "answer", "z", basis, "lead")
        add_resolutions(connection, [decision], actor="lead")
        exclude(connection, {gone: "why"}, actor="audit")
    made = snapshot(SnapshotConfig(validation=0, test=0), store, project)
    assert made.left_out == {"disagreement": 1, "flagged": 1, "unlabelled": 1, "excluded": 1}
    assert made.left_out_ids == {
        "disagreement": (disputed,),
        "flagged": (flagged,),
        "unlabelled": (waiting,),
    }
    table = parquet.read_table(made.path / "train.parquet").to_pylist()
    frozen = {row["example_id"]: row for row in table}
    assert list(frozen) == [own, sole, agreed, settled]
    answers = [json.loads(row["conversation"])["messages"][-1]["content"] for row in table]
    assert answers == ["own answer", "edited", "both", "z"]
    assert [row["annotators"] for row in table] == [[], ["ann"], ["ann", "bob"], ["bob"]]
    assert frozen[agreed]["guideline_versions"] == ["g-ann", "g-bob"]
    assert frozen[settled]["annotation_ids"] == list(basis)
    assert read_manifest(made.path)["facts"]["left_out"] == made.left_out


TASKS = """
[tasks.release]
kind = "accept"

[tasks.talk]
kind = "dialogue"

[tasks.best]
kind = "rank"
"""


def test_a_snapshot_is_of_one_task(store, project):
    kept, rude, _ = add(
        store,
        example("kept", "own", candidates=["a", "b"]),
        example("rude", "own"),
        example("silent", "own"),
    )
    dialogue = [("user", "hi"), ("assistant", "ho"), ("user", "more?"), ("assistant", "no")]
    talk = json.dumps([{"role": role, "content": content} for role, content in dialogue])
    given_answers = [
        (kept, "release", '{"verdict":"accept"}'),
        (rude, "release", '{"reason":"rude","verdict":"reject"}'),
        (kept, "talk", talk),
        (kept, "best", "[[1],[0]]"),
    ]
    with store.writing() as connection:
        annotations = [
            Annotation(id_, task, answer, "ann", str(n))
            for n, (id_, task, answer) in enumerate(given_answers)
        ]
        add_annotations(connection, annotations, actor="test")
    project = with_tables(project, (project.root / "burnish.toml").read_text() + TASKS)
    with pytest.raises(ConfigError, match="several tasks: release, talk, best"):
        snapshot(SnapshotConfig(), store, project)

    def frozen(task: str) -> tuple[list[list[tuple[str, str]]], dict[str, int]]:
        made = snapshot(SnapshotConfig(validation=0, test=0, task=task), store, project)
        assert read_manifest(made.path)["facts"]["settings"]["task"] == task
        conversations = [e.conversation for e in read_examples(made.path).examples]
        said = [[(m.role, m.content) for m in c.messages] for c in conversations]
        return said, dict(made.left_out)

    own = [[("user", prompt), ("assistant", "own")] for prompt in ("kept", "rude", "silent")]
    assert frozen("release") == ([own[0]], {"rejected": 1, "unlabelled": 1})
    assert frozen("talk") == ([dialogue, own[1], own[2]], {})
    assert frozen("best") == ([[("user", "kept"), ("assistant", "b")]], {"unlabelled": 2})


def test_an_answer_of_another_kind_is_named(store, project):
    [one] = add(store, example("p"))
    with store.writing() as connection:
        add_annotations(connection, [Annotation(one, "best", "an essay", "ann", "c")], actor="t")
    project = with_tables(project, (project.root / "burnish.toml").read_text() + TASKS)
    with pytest.raises(InputError, match=f"{one}.*no answer of kind 'rank'"):
        snapshot(SnapshotConfig(task="best"), store, project)


def test_equal_prompts_and_one_persons_records_stay_together(store, project):
    examples = []
    for n in range(300):
        spellings = (f"Question {n}?", f"question  {n}?", f"QUESTION {n}？")
        examples += [example(text, n=n, k=k) for k, text in enumerate(spellings)]
    for person in range(100):
        # Each person links three prompts, and shares one of them with the next person.
        for k in range(3):
            examples.append(example(f"Person {person + k}", subjects=(f"u{person}",), k=k))
    add(store, *examples)
    made = snapshot(SnapshotConfig(validation=0.2, test=0.2), store, project)
    assert set(made.examples) == set(SPLITS)
    prompts, subjects = {}, {}
    for split, read in rows(made).items():
        for e in read:
            assert prompts.setdefault(prompt_fingerprint(e.conversation), split) == split
            for subject in e.subject_ids:
                assert subjects.setdefault(subject, split) == split
    assert len(set(subjects.values())) == 1
    # Of 300 groups of three, a fifth each; three standard deviations are 21 groups.
    asked = [e for e in rows(made)["test"] if "Person" not in e.conversation.messages[0].content]
    assert abs(len(asked) / 3 - 60) < 21


def test_a_prompts_split_does_not_depend_on_the_other_examples(store, project):
    add(store, *(example(f"p{n}") for n in range(200)))
    before = rows(snapshot(SnapshotConfig(), store, project))
    add(store, *(example(f"q{n}") for n in range(200)))
    after = rows(snapshot(SnapshotConfig(), store, project))
    for split in SPLITS:
        assert {e.id for e in before[split]} <= {e.id for e in after[split]}


def test_splits_that_were_given_are_honoured(store, project):
    given_splits = ["train", "val", "test", "Validation", "dev"]
    add(store, *(example(f"p{n}", part=s) for n, s in enumerate(given_splits)))
    config = SnapshotConfig(split_field="part")
    made = snapshot(config, store, project)
    assert (made.examples, made.straddling) == ({"train": 1, "validation": 3, "test": 1}, 0)
    add(store, example("P0 ", part="test"))
    assert snapshot(config, store, project).straddling == 1
    add(store, example("p9", part="holdout"))
    with pytest.raises(InputError, match="'part' is 'holdout', which names no split"):
        snapshot(config, store, project)
    assert not list(project.folder("snapshot").glob(".*"))


def test_nothing_to_train_on_is_refused(store, project):
    with pytest.raises(ProjectError, match="the store is empty"):
        snapshot(SnapshotConfig(), store, project)
    add(store, example("a", None), example("p1", part="test"))
    with pytest.raises(ProjectError, match=r"1 test, 1 left out \(unlabelled\)"):
        snapshot(SnapshotConfig(test=0.99, validation=0), store, project)
    assert list(project.folder("snapshot").iterdir()) == []
    assert project.artefacts() == []
    # A set to test on, asked for as such, needs nothing to train on.
    assert snapshot(SnapshotConfig(split_field="part"), store, project).examples == {"test": 1}


def test_settings_out_of_range_are_all_named():
    with pytest.raises(ConfigError) as caught:
        SnapshotConfig(validation=-1, test=1)
    assert "validation = -1" in str(caught.value)
    assert "test = 1" in str(caught.value)
    with pytest.raises(ConfigError, match="nothing is left to train"):
        SnapshotConfig(validation=0.5, test=0.5)


def test_the_log_knows_what_was_frozen(store, project):
    add(store, *(example(f"p{n}") for n in range(20)))
    made = snapshot(SnapshotConfig(), store, project)
    with store.reading() as connection:
        entry = read_log(connection)[0]
        verify_log(connection)
    assert (entry["action"], entry["payload"]["id"]) == ("snapshot", made.id)
    assert entry["payload"]["examples"] == made.examples


def test_a_part_that_is_not_there_is_named(store, project):
    add(store, example("p"))
    made = snapshot(SnapshotConfig(validation=0, test=0), store, project)
    with pytest.raises(InputError, match="no test part"):
        read_records(made.path, split="test")
    assert read_examples(made.path).id == made.id


_PROGRAM = """
import sys
from pathlib import Path
from burnish.project import open_project
from burnish.snapshot import SnapshotConfig, snapshot
from burnish.store import open_store
project = open_project(Path(sys.argv[1]))
snapshot(SnapshotConfig(), open_store(project.store_url), project)
"""


def test_killed_half_way_nothing_half_written_is_found(store, project):
    add(store, *(example(f"p{n}", "x" * 200) for n in range(6000)))
    folder = project.folder("snapshot")
    process = subprocess.Popen([sys.executable, "-c", _PROGRAM, str(project.root)])
    deadline = time.monotonic() + 30
    while not list(folder.glob(".*/train.parquet")) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert list(folder.glob(".*/train.parquet"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(folder.glob("snapshot-*"))
    made = snapshot(SnapshotConfig(), store, project)
    assert sum(made.examples.values()) == 6000
    assert [a.id for a in project.artefacts()] == [made.id]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 20)), max_size=25),
    st.randoms(use_true_random=False),
)
def test_linked_prompts_share_a_split_in_whatever_order_they_came(links, random):
    pairs = [(subject, f"{prompt:032x}") for subject, prompt in links]
    shuffled = random.sample(pairs, len(pairs))
    splitters = [Splitter(p, validation=0.3, test=0.3, seed=4) for p in (pairs, shuffled)]
    by_subject = {}
    for subject, prompt in pairs:
        assert splitters[0].split(prompt) == splitters[1].split(prompt)
        split = splitters[0].split(prompt)
        assert by_subject.setdefault(subject, split) == split


def test_fractions_are_kept():
    splitter = Splitter((), validation=0.1, test=0.2, seed=0)
    drawn = [splitter.split(f"{n:032x}") for n in range(10_000)]
    # Four standard deviations of a binomial share of 10,000.
    assert abs(drawn.count("validation") / 10_000 - 0.1) < 0.012
    assert abs(drawn.count("test") / 10_000 - 0.2) < 0.016
    assert [Splitter((), validation=0, test=0, seed=n).split("0") for n in range(9)] == [
        "train"
    ] * 9


def test_the_documented_columns_are_the_columns(store, project):
    add(store, example("p"))
    made = snapshot(SnapshotConfig(validation=0, test=0), store, project)
    text = (Path(__file__).parents[1] / "docs" / "snapshot.md").read_text(encoding="utf-8")
    table = text.partition("| column | what |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert documented == parquet.read_schema(made.path / "train.parquet").names
