"""What `label import`, `label export` and `label pairs` refuse, and what an import lets people see.

Run: pytest tests/test_interchange_commands.py
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from burnish.cli import main
from burnish.collect import CollectConfig, collect
from burnish.label.interchange import export_labels, import_labels
from burnish.label.interchange.formats import ENDINGS
from burnish.project import find_project
from burnish.store import open_store
from burnish.store.log import verify_log
from burnish.tasks import Task
from burnish.web import create_app
from labels import annotations_of, write_list, write_rows
from studios import Studio, csrf_of

ROWS = [{"prompt": f"q{n}", "answer": f"answer {n}", "annotator": "ann"} for n in range(3)]


def burnish(capsys, *arguments: object) -> tuple[int, str, str]:
    """Run a command in this process: (exit code, standard output, standard error)."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


@pytest.fixture
def here(tmp_path, monkeypatch, capsys) -> Path:
    """A project of three questions, each with an answer."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", ROWS)
    for command in ("init", "collect rows.jsonl", "label import rows.jsonl"):
        assert burnish(capsys, *command.split())[0] == 0
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.suffix != ".db"}


OWN = ("burnish.db", "burnish.db-wal", "burnish.toml", "guidelines.md", "artefacts.jsonl", "mine")


@pytest.mark.parametrize("command", ["export", "export --format jsonl", "pairs"])
def test_no_export_takes_the_place_of_what_the_project_is_made_of(here, capsys, command):
    (here / "artefacts.jsonl").touch()
    (here / "mine").write_text("not an export")
    (here / "store.csv").symlink_to("burnish.db")
    os.link("burnish.toml", "settings.jsonl")
    before = contents(here)
    for name in (*OWN, "store.csv", "settings.jsonl", "./artefacts.jsonl", "x.json", "x"):
        code, _, error = burnish(capsys, "label", *command.split(), "--out", name)
        assert (code, "Traceback" in error) == (2, False), (name, error)
        assert contents(here) == before
    project = find_project()
    store = open_store(project.store_url)
    assert len(annotations_of(store)) == len(ROWS)
    with store.reading() as connection:
        verify_log(connection)
    store.close()


def test_no_folder_of_other_things_is_replaced(here, capsys):
    (here / "snapshots").mkdir()
    (here / "snapshots" / "first.parquet").write_text("kept")
    export = ("label", "export", "--format", "argilla", "--out")
    for name in ("snapshots", "."):
        code, _, error = burnish(capsys, *export, name)
        assert code == 2
        assert "other things in it" in error
    assert (here / "snapshots" / "first.parquet").read_text() == "kept"
    for _ in range(2):
        assert burnish(capsys, *export, "dataset")[0] == 0
    assert burnish(capsys, "label", "import", "dataset")[1].count("3 known already") == 1


@pytest.mark.parametrize("format", ENDINGS)
def test_the_ending_and_the_format_say_the_same(here, capsys, format):
    for ending in {e for endings in ENDINGS.values() for e in endings}:
        code, _, error = burnish(
            capsys, "label", "export", "--format", format, "--out", f"out{ending}"
        )
        assert code == (0 if ending in ENDINGS[format] else 2)
        assert (here / f"out{ending}").exists() == (ending in ENDINGS[format])
        assert code == 0 or ENDINGS[format][0] in error
    name = f"out{ENDINGS[format][0]}"
    assert "0 added, 3 known already" in burnish(capsys, "label", "import", name)[1]


def test_without_a_format_the_ending_tells_it(here, capsys):
    for name in ("out.jsonl", "out.CSV"):
        assert burnish(capsys, "label", "export", "--out", name)[0] == 0
        assert "0 added, 3 known already" in burnish(capsys, "label", "import", name)[1]
    assert (here / "out.CSV").read_text().startswith("record,example_id,prompt,task,answer")
    code, _, error = burnish(capsys, "label", "export", "--out", "out.json")
    assert code == 2
    assert "label_studio, argilla" in error


@pytest.mark.parametrize("format", ENDINGS)
def test_a_file_without_an_ending_is_read_by_its_format(here, capsys, format):
    name = f"out{ENDINGS[format][0]}"
    assert burnish(capsys, "label", "export", "--format", format, "--out", name)[0] == 0
    (here / name).rename("out")
    code, _, error = burnish(capsys, "label", "import", "out")
    assert code == 2
    assert "name its format" in error
    code, output, error = burnish(capsys, "label", "import", "out", "--format", format)
    assert "0 added, 3 known already" in output, error


def shell(command: str) -> subprocess.CompletedProcess[str]:
    line = command.replace("burnish", f"{sys.executable} -m burnish")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=80)


def test_what_goes_through_a_pipe(here):
    done = shell("burnish label export --out /dev/stdout --format csv")
    assert done.stdout.startswith("record,example_id,prompt,task,answer")
    assert "3 annotations in /dev/stdout" in done.stderr
    (here / "out.csv").write_text(done.stdout)
    done = shell("cat out.csv | burnish label import /dev/stdin --format csv")
    assert "0 added, 3 known already" in done.stdout, done.stderr
    done = shell("echo '{broken' | burnish label import /dev/stdin --format jsonl")
    assert "/dev/stdin: nothing in it fits:\n    1: broken JSON" in done.stderr
    assert "/tmp/burnish" not in done.stderr


def test_a_device_has_no_ending_to_go_by(here, capsys):
    code, _, error = burnish(capsys, "label", "export", "--out", "/dev/null")
    assert code == 2
    assert "name the format" in error
    export = ("label", "export", "--out", "/dev/null", "--format", "argilla")
    assert burnish(capsys, *export)[0] == 0
    assert burnish(capsys, "label", "pairs", "--out", "/dev/null")[0] == 0


def test_an_import_in_which_nothing_fits_is_the_users_fault(here, capsys):
    for name, changed, reason in (
        ("task", {"task": "other"}, "3: another task: import it into 'other', not 'answer'"),
        ("prompt", {"prompt": "never asked"}, "no example has this prompt: collect the texts"),
        ("id", {"example_id": "e", "prompt": None}, "no such example: e; collect it first"),
        ("nobody", {"annotator": None}, "3: nobody is named who answered: name them in a column"),
    ):
        path = write_rows(here / f"{name}.jsonl", [row | changed for row in ROWS])
        code, _, error = burnish(capsys, "label", "import", path, "--annotator", "")
        assert code == 2
        assert f"{name}.jsonl: nothing in it fits" in error
        assert reason in error
        [kept] = (here / "rejects").glob(f"{name}*")
        assert len(kept.read_text().splitlines()) == 3
    some = write_rows(here / "some.jsonl", [*ROWS, ROWS[0] | {"task": "other"}])
    code, output, _ = burnish(capsys, "label", "import", some)
    assert code == 0
    assert "× another task" in output


def test_each_reason_is_shown_where_as_many_rows_have_another(here, capsys):
    bad = [{"task": "other"}, {"status": "done"}, {"seconds": "quick"}]
    rows = [ROWS[0], *(ROWS[0] | fault for fault in bad)]
    path = write_rows(here / "mixed.jsonl", rows)
    code, output, _ = burnish(capsys, "label", "import", path)
    assert code == 0
    for reason in ("another task", "unknown status", "seconds is no number from 0 up"):
        assert f"1 × {reason}" in output
    lines = ['{"prompt": "a", "completion": "b"}', "{", "[]"]
    (here / "more.jsonl").write_text("\n".join(lines))
    code, output, _ = burnish(capsys, "collect", "more.jsonl")
    assert code == 0
    for reason in ("broken JSON", "a row must be a JSON object, not a list"):
        assert f"1 × {reason}" in output


# What an annotator sees

SECRET = "what bob wrote"
RESULT = {"from_name": "answer", "to_name": "prompt", "type": "textarea"}
LABEL_STUDIO = {
    "id": 1,
    "data": {"text": "question"},
    "annotations": [
        {
            "id": 5,
            "completed_by": {"id": 3, "email": "bob@example.org"},
            "result": [RESULT | {"value": {"text": [SECRET]}}],
            "was_cancelled": False,
            "ground_truth": False,
        }
    ],
    "updated_by": [{"user_id": "bob@example.org"}],
}
ARGILLA = {
    "id": "r1",
    "fields": {"text": "question"},
    "metadata": {"split": "a"},
    "suggestions": {},
    "responses": {"answer": [{"value": SECRET, "user_id": "bob-uuid", "status": "submitted"}]},
}
PRODIGY = {"text": "question", "_input_hash": 1, "_task_hash": 2, "user_input": SECRET}
PRODIGY |= {"answer": "accept", "_session_id": "set-bob", "_annotator_id": "set-bob"}
DOCCANO = {"id": 1, "text": "question", "label": [SECRET], "Comments": [], "annotator": "bob"}
PLAIN = {"prompt": "question", "answer": SECRET, "annotator": "bob"}
FILES = {
    "label_studio": LABEL_STUDIO,
    "argilla": ARGILLA,
    "prodigy": PRODIGY,
    "doccano": DOCCANO,
    "jsonl": PLAIN,
}


def file_of(folder: Path, format: str) -> Path:
    path = folder / f"{format}{ENDINGS[format][0]}"
    record = json.loads(json.dumps(FILES[format]).replace("question", f"question of {format}"))
    return (write_list if path.suffix == ".json" else write_rows)(path, [record])


def exported_by_us(folder: Path, format: str) -> Path:
    """As we write it, with the answers in our own field as well."""
    store = open_store(f"sqlite:///{folder / format}.db")
    path = file_of(folder, format)
    collect(CollectConfig((str(path),), rejects=folder), store)
    import_labels(store, path, Task(), rejects=folder)
    assert export_labels(store, path, Task(), format=format) == 1
    store.close()
    return path


@pytest.mark.parametrize("make", [file_of, exported_by_us])
def test_no_annotator_sees_what_was_said_in_a_file_that_was_collected(tmp_path, make):
    paths = [make(tmp_path, format) for format in FILES]
    one = Studio(tmp_path / "project", "[label]\noverlap = 3", people={"zoe": "annotator"})
    try:
        config = CollectConfig(tuple(map(str, paths)), rejects=tmp_path)
        for expected in (len(FILES), 0):
            assert collect(config, one.store).added == expected
            results = [import_labels(one.store, p, Task(), rejects=tmp_path) for p in paths]
            assert sum(result.added for result in results) == expected
        assert {a.answer for a in one.annotations()} == {SECRET}
        with one.client("zoe") as client:
            texts = [text for _ in FILES for text in seen_by(client, one)]
            assert client.post(NEXT, headers={"x-csrf-token": csrf_of(client)}).status_code == 204
    finally:
        one.close()
    assert sum("question of" in text for text in texts) >= 3 * len(FILES)
    for text in texts:
        assert SECRET not in text
        assert "bob" not in text


NEXT = "/api/v1/tasks/answer/next"


def seen_by(client: httpx.Client, one: Studio) -> Iterator[str]:
    """Whatever the studio answers while the next item is with this annotator, who then skips it."""
    headers = {"x-csrf-token": csrf_of(client)}
    item = client.post(NEXT, headers=headers)
    yield item.text
    example_id = item.json()["example"]["id"]
    places = {"name": "answer", "task": "answer", "example_id": example_id, "place": "1"}
    for route in iter_route_contexts(create_app(one.project, one.store).routes):
        if "GET" in (getattr(route, "methods", None) or ()):
            place = re.sub(r"\{(\w+)[^}]*\}", lambda m: places.get(m[1], "x"), route.path)
            yield client.get(place).text
    skip = {"client_id": example_id, "example_id": example_id, "status": "skipped"}
    yield client.post("/api/v1/tasks/answer/annotations", headers=headers, json=skip).text
