"""Labels in and out of stores: plain rows, every format and kind, kills and what goes wrong.

Run: pytest tests/test_interchange.py
"""

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from burnish.errors import InputError
from burnish.label.interchange import export_labels, import_labels
from burnish.label.interchange.formats import TOOLS
from burnish.label.queue import next_item, submit
from burnish.label.status import label_status
from burnish.store import Store, open_store
from burnish.store.examples import add_examples
from burnish.store.log import verify_log
from burnish.tasks import Task
from burnish.types import Conversation, Example, Message
from labels import (
    FORMATS,
    NOON,
    SAID,
    SUFFIXES,
    TASKS,
    annotations_of,
    answer,
    everything_in,
    example,
    fill,
    label_all_kinds,
    refused,
    write_rows,
)


@pytest.fixture
def sqlite(tmp_path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'burnish.db'}")
    yield opened
    opened.close()


HARD_TEXTS = [
    "a,b",
    'say "no"',
    "two\nlines",
    "cr\r\nlf",
    "=1+1",
    " spaced ",
    "naïve 北京 🙂",
    "[{",
    "\t",
]


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_labels_survive_the_round_trip(tmp_path, store, format):
    there = open_store(f"sqlite:///{tmp_path / 'there.db'}")
    task = Task()
    turns = (Message("system", "Be\nbrief, please."), Message("user", "Hi"))
    examples = fill(store, [example(n) for n in range(len(HARD_TEXTS))])
    examples.append(Example(Conversation(turns), source="chat"))
    with store.writing() as connection, there.writing() as other:
        add_examples(connection, examples, actor="test")
        add_examples(other, examples, actor="test")
    for n, text in enumerate(HARD_TEXTS):
        status = "submitted" if text.strip() else "skipped"
        seconds = n / 3 if n % 2 else None
        sent = answer(examples[n], f"{text.strip()[:3].strip()}é", text, status=status)
        sent = replace(sent, guideline_version="v1", seconds=seconds)
        if "\n" not in sent.annotator:
            submit(store, task, sent, now=NOON)
    submit(store, task, answer(examples[-1], "ann", "", status="flagged"), now=NOON)
    path = tmp_path / f"labels.{format}"
    count = len(annotations_of(store))
    assert export_labels(store, path, task, format=format) == count >= len(HARD_TEXTS)
    result = import_labels(there, path, task, rejects=tmp_path)
    assert (result.added, result.known, result.rejects) == (count, 0, None)
    assert annotations_of(there) == annotations_of(store)
    assert label_status(there, task) == label_status(store, task)
    # Where the examples have other ids, the prompt finds them.
    by_prompt = path.read_bytes().replace(examples[-1].id.encode(), b"")
    path.write_bytes(by_prompt.replace(examples[0].id.encode(), b""))
    assert import_labels(there, path, task, rejects=tmp_path).known == count
    there.close()


def test_reimport_adds_nothing_with_or_without_client_ids(store, tmp_path):
    examples = fill(store, [example(n) for n in range(3)])
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "answer", "seconds"])
        writer.writerows([[e.conversation.messages[0].content, "x", 2] for e in examples])
        writer.writerow(["Question  0", "x", ""])
    task = Task()
    first = import_labels(store, path, task, annotator="ann", rejects=tmp_path)
    assert (first.added, first.known) == (3, 1)
    again = import_labels(store, path, task, annotator="ann", rejects=tmp_path)
    assert (again.added, again.known) == (0, 4)
    other = import_labels(store, path, task, annotator="bob", rejects=tmp_path)
    assert other.added == 3
    assert {a.seconds for a in annotations_of(store)} == {2.0}


def test_rows_that_do_not_fit_are_refused_with_line_and_reason(store, tmp_path):
    examples = fill(store, [example(n) for n in range(2)])
    twin = replace(example(0), source="elsewhere")
    with store.writing() as connection:
        add_examples(connection, [twin], actor="test")
    ok = {"example_id": examples[1].id, "answer": "yes", "annotator": "ann", "client_id": "1"}
    rows = [
        ok,
        {**ok, "answer": "no"},
        {**ok, "example_id": "nonsense", "client_id": "2"},
        {"prompt": "question 0", "answer": "yes", "annotator": "ann"},
        {"prompt": "never asked", "answer": "yes", "annotator": "ann"},
        {**ok, "client_id": "3", "answer": " "},
        {**ok, "client_id": "4", "annotator": None},
        {**ok, "client_id": "5", "seconds": "quick"},
        {**ok, "client_id": "6", "status": "done"},
        {**ok, "client_id": "7", "task": "other"},
        {**ok, "client_id": "8", "created_at": "yesterday"},
        {**ok, "client_id": "9", "answer": ["yes"]},
        {**ok, "client_id": "10", "answer": "\ud800"},
    ]
    path = write_rows(tmp_path / "labels.jsonl", rows)
    path.write_text(path.read_text() + "{broken\n")
    result = import_labels(store, path, Task(), rejects=tmp_path / "rejects")
    assert (result.added, result.known) == (1, 0)
    refused = [json.loads(line) for line in result.rejects.read_text().splitlines()]
    assert sorted(r["line"] for r in refused) == list(range(2, 15))
    reasons = {r["line"]: r["reason"] for r in refused}
    expected = {
        2: "came with another",
        3: "no such example: nonsense",
        4: "several examples",
        5: "no example has this prompt",
        6: "empty",
        7: "nobody is named",
        8: "seconds",
        9: "unknown status",
        10: "another task",
        11: "ISO 8601",
        12: "not a text",
        13: "surrogate",
        14: "broken JSON",
    }
    for line, reason in expected.items():
        assert reason in reasons[line]
    assert sum(result.rejected.values()) == 13
    # What a mended file no longer refuses is not left lying about.
    write_rows(path, rows[:1])
    assert import_labels(store, path, Task(), rejects=tmp_path / "rejects").rejects is None
    assert list((tmp_path / "rejects").iterdir()) == []


def test_a_file_without_the_columns_is_one_error(store, tmp_path):
    path = write_rows(tmp_path / "labels.jsonl", [{"promt": "question 0", "label": "x"}] * 3)
    with pytest.raises(InputError) as caught:
        import_labels(store, path, Task(), rejects=tmp_path)
    message = str(caught.value)
    assert "labels.jsonl:1" in message
    assert "no column example_id or prompt; did you mean 'promt'?" in message
    assert "no column answer" in message
    assert "--annotator" in message


def test_conversations_are_found_by_their_turns(store, tmp_path):
    turns = (Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "draft"))
    with store.writing() as connection:
        add_examples(connection, [Example(Conversation(turns), source="chat")], actor="test")
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rows = [
        {"prompt": prompt, "answer": "x", "annotator": "ann"},
        {"prompt": json.dumps(prompt), "answer": "y", "annotator": "bob"},
    ]
    path = write_rows(tmp_path / "labels.jsonl", rows)
    assert import_labels(store, path, Task(), rejects=tmp_path).added == 2


def test_imported_answers_fill_the_slots(store, tmp_path):
    examples = fill(store, [example(n) for n in range(3)])
    task = Task(overlap=2)
    assert next_item(store, task, "cat", now=NOON).example.id == examples[0].id
    rows = [{"example_id": examples[0].id, "answer": "x", "annotator": n} for n in ("ann", "bob")]
    rows.append({"example_id": examples[1].id, "answer": "x", "annotator": "ann"})
    import_labels(store, write_rows(tmp_path / "l.jsonl", rows), task, rejects=tmp_path)
    assert next_item(store, task, "dan", now=NOON).example.id == examples[1].id
    assert next_item(store, task, "ann", now=NOON).example.id == examples[2].id
    # Cat had begun before the import: what she sends is kept, beyond the overlap.
    submit(store, task, answer(examples[0], "cat"), now=NOON)
    assert label_status(store, task).surplus == 1


def test_structured_answers_are_read_as_text_or_as_what_they_are(tmp_path, sqlite):
    shown, task = example(0), TASKS["choose_many"]
    fill(sqlite, [shown])
    given = (["ό, 🙂", "billing"], json.dumps(["ό, 🙂", "billing"]), "[]")
    rows = [
        {"prompt": "question 0", "answer": a, "annotator": f"a{n}"} for n, a in enumerate(given)
    ]
    import_labels(sqlite, write_rows(tmp_path / "r.jsonl", rows), task, rejects=tmp_path)
    wanted = '["billing","ό, 🙂"]'
    assert [a.answer for a in annotations_of(sqlite)] == [wanted, wanted, "[]"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"client_id": "x" * 129}, "client_id is longer than 128"),
        ({"client_id": "\ud800"}, "surrogate"),
        ({"example_id": "\ud800"}, "surrogate"),
        ({"example_id": "a\0"}, "NUL"),
        ({"guideline_version": "v" * 33}, "guideline_version is longer than 32"),
        ({"draft_id": ["d"]}, "'draft_id' is a list"),
        ({"edit_distance": -1}, "edit_distance is no number from 0 up"),
        ({"record": "answer"}, "unknown record"),
        ({"annotator": "rule:majority"}, "annotator's name"),
    ],
)
def test_what_no_store_could_keep_is_refused(tmp_path, store, values, reason):
    row = {"example_id": fill(store, [example(0)])[0].id, "answer": "x", "annotator": "ann"}
    path = write_rows(tmp_path / "r.jsonl", [row | values])
    with pytest.raises(InputError, match="nothing in it fits") as caught:
        import_labels(store, path, Task(), rejects=tmp_path / "r")
    assert reason in str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
def test_every_kind_goes_out_and_comes_in(tmp_path, store, format):
    examples = label_all_kinds(store)
    there = open_store(f"sqlite:///{tmp_path / 'there.db'}")
    fill(there, examples)
    tool = TOOLS.get(format)
    for kind in SAID:
        task = replace(TASKS[kind], name=kind)
        path = tmp_path / f"{kind}.{SUFFIXES.get(format, 'jsonl')}"
        if tool is not None and kind not in tool.kinds:
            with pytest.raises(
                InputError, match=f"no place for answers of kind '{kind}'"
            ) as caught:
                export_labels(store, path, task, format=format)
            assert "jsonl" in str(caught.value)
            assert not path.exists()
            continue
        assert export_labels(store, path, task, format=format) == 7
        result = import_labels(there, path, task, rejects=tmp_path)
        assert refused(result) == {}
        assert (result.added, result.known, result.drafts, result.gold) == (7, 0, 5, 1)
        assert everything_in(there, task) == everything_in(store, task)
        assert label_status(there, task) == label_status(store, task)
        # Both ways again: nothing is added, and nothing is written into the log.
        for known_to in (there, store):
            with known_to.reading() as connection:
                before = verify_log(connection)
            result = import_labels(known_to, path, task, format=format, rejects=tmp_path)
            assert (result.added, result.known, result.drafts, result.gold) == (0, 7, 0, 0)
            with known_to.reading() as connection:
                assert verify_log(connection) == before
    there.close()


def test_argillas_folder_has_its_settings(tmp_path, store):
    examples = label_all_kinds(store)
    there = open_store(f"sqlite:///{tmp_path / 'there.db'}")
    fill(there, examples)
    for kind in TOOLS["argilla"].kinds:
        task = replace(TASKS[kind], name=kind)
        assert export_labels(store, tmp_path / kind, task, format="argilla") == 7
        settings = json.loads((tmp_path / kind / ".argilla" / "settings.json").read_text())
        dataset = json.loads((tmp_path / kind / ".argilla" / "dataset.json").read_text())
        records = json.loads((tmp_path / kind / "records.json").read_text())
        assert dataset["name"] == kind
        shown = {field["name"] for field in settings["fields"]}
        asked = {question["name"]: question["settings"] for question in settings["questions"]}
        assert not shown & set(asked)
        for record in records:
            assert set(record["fields"]) <= shown
            assert set(record["responses"]) | set(record["suggestions"]) <= set(asked)
            assert all(record["fields"].get(f["name"]) for f in settings["fields"] if f["required"])
        if kind == "rank":
            ranked = {option["value"] for option in asked["answer"]["options"]}
            assert ranked == {name for name in shown if name.startswith("candidate_")}
        assert import_labels(there, tmp_path / kind, task, rejects=tmp_path).added == 7
    there.close()


@pytest.mark.parametrize("format", FORMATS)
def test_examples_collected_elsewhere_are_found_by_their_prompts(tmp_path, sqlite, format):
    examples = label_all_kinds(sqlite)
    there = open_store(f"sqlite:///{tmp_path / 'there.db'}")
    fill(there, [replace(e, source="another file") for e in examples])
    path = tmp_path / f"labels.{SUFFIXES.get(format, 'jsonl')}"
    task = replace(TASKS["choose"], name="choose")
    export_labels(sqlite, path, task, format=format)
    result = import_labels(there, path, task, rejects=tmp_path)
    assert refused(result) == {}
    assert (result.added, result.gold) == (7, 1)
    assert import_labels(there, path, task, rejects=tmp_path).known == 7
    there.close()


IMPORT = """
import sys
from pathlib import Path
from burnish.label.interchange import import_labels, importing
from burnish.store import open_store
from burnish.tasks import Task
importing.BATCH_ROWS = 1000
import_labels(open_store(sys.argv[1]), Path(sys.argv[2]), Task(), rejects=Path(sys.argv[3]))
"""


@pytest.mark.parametrize("format", ["jsonl", "label_studio"])
def test_a_kill_leaves_the_rest_to_the_same_command(tmp_path, format):
    here, there = (f"sqlite:///{tmp_path / name}.db" for name in ("here", "there"))
    examples = [example(n) for n in range(6000)]
    stores = open_store(here), open_store(there)
    for one in stores:
        fill(one, examples)
    rows = ({"example_id": e.id, "answer": "x", "annotator": "ann"} for e in examples)
    import_labels(stores[0], write_rows(tmp_path / "r.jsonl", rows), Task(), rejects=tmp_path)
    path = tmp_path / f"labels.{SUFFIXES.get(format, 'jsonl')}"
    export_labels(stores[0], path, Task(), format=format)
    command = [sys.executable, "-c", IMPORT, there, str(path), str(tmp_path)]
    process = subprocess.Popen(command)
    while process.poll() is None and not annotations_of(stores[1]):
        time.sleep(0.01)
    process.kill()
    process.wait()
    came = len(annotations_of(stores[1]))
    assert 0 < came < len(examples)
    result = import_labels(stores[1], path, Task(), rejects=tmp_path)
    assert (result.added, result.known) == (len(examples) - came, came)
    assert everything_in(stores[1], Task()) == everything_in(stores[0], Task())
    for one in stores:
        with one.reading() as connection:
            verify_log(connection)
        one.close()


def test_an_export_that_fails_leaves_the_file_that_was(tmp_path, sqlite):
    path, other = tmp_path / "labels.jsonl", tmp_path / "labels.json"
    path.write_text("mine")
    with pytest.raises(InputError, match="prodigy has no place for answers of kind 'rank'"):
        export_labels(sqlite, path, TASKS["rank"], format="prodigy")
    with pytest.raises(InputError, match="rates from 0 to 10, not from 1 to 100"):
        export_labels(sqlite, other, Task(kind="rate", scale=(1, 100)), format="argilla")
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_said_is_an_empty_file_of_the_format(tmp_path, sqlite, format):
    path = tmp_path / f"empty.{SUFFIXES.get(format, 'jsonl')}"
    assert export_labels(sqlite, path, Task(), format=format) == 0
    if path.suffix == ".json":
        assert json.loads(path.read_text()) == []
