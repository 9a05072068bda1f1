"""The project folder, artefacts named by content, lineage. Run: pytest tests/test_project.py"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from burnish.errors import ConfigError, ProjectError, ResourceError
from burnish.files import full_disk_is_the_users, replaced_file, replaced_folder
from burnish.hashing import canonical_json, content_hash
from burnish.project import (
    TABLES,
    Project,
    find_project,
    init_project,
    lineage,
    open_project,
    read_manifest,
    require_project,
    seal_artefact,
)
from burnish.tasks import read_tasks
from burnish.types import Conversation, Example, Message, ToolCall


def artefact(folder: Path, kind: str, parents: list[str], content: str = "x") -> str:
    with replaced_folder(folder) as temporary:
        (temporary / "data.txt").write_text(content)
        return seal_artefact(temporary, kind, parents, {"made": "in a test"})


def test_a_project_is_found_from_below_and_made_once(tmp_path, monkeypatch):
    project = init_project(tmp_path / "bank")
    below = tmp_path / "bank" / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    found = find_project()
    assert found is not None
    assert found.root == project.root.absolute()
    assert project.name == "bank"
    assert project.store_url == f"sqlite:///{tmp_path / 'bank' / 'burnish.db'}"
    with pytest.raises(ProjectError, match="is a project already"):
        init_project(tmp_path / "bank")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectError, match="burnish init"):
        require_project()


def with_settings(project: Project, text: str) -> Project:
    (project.root / "burnish.toml").write_text(text)
    return open_project(project.root)


def test_tables_that_nothing_reads_are_refused(tmp_path):
    project = init_project(tmp_path)
    tables = [name for name in TABLES if name != "tasks"]
    text = "".join(f"[{name}]\n" for name in tables) + "[tasks.any]\nkind = 'write'\n"
    assert with_settings(project, text).settings.keys() == set(TABLES)
    with pytest.raises(ConfigError) as error:
        with_settings(project, "overlap = 2\n[labell]\n[Tune]\n[project]\nnmae = 'x'\n")
    for word in ("[overlap]", "'label'", "[Tune]", "did you mean 'name'", "burnish.toml"):
        assert word in str(error.value)


@pytest.mark.parametrize("path", ["", ".", "..", "../up.md", "a/../../up.md", "/etc/passwd"])
def test_guidelines_lie_in_the_project(tmp_path, path):
    project = init_project(tmp_path)
    for table in ("label", "tasks.tone"):
        changed = with_settings(project, f"[{table}]\nguidelines = '{path}'\n")
        with pytest.raises(ConfigError, match="must be a file in the project folder"):
            read_tasks(changed)
    inside = with_settings(project, "[label]\nguidelines = 'rules/tone.md'\n")
    assert read_tasks(inside)["answer"].guidelines == Path("rules/tone.md")


def test_an_artefact_is_named_by_its_content_wherever_it_is_made(tmp_path):
    one = artefact(tmp_path / "one", "snapshot", ["p"])
    two = artefact(tmp_path / "two", "snapshot", ["p"])
    assert one == two
    assert one.startswith("snapshot-")
    others = {
        artefact(tmp_path / "three", "snapshot", ["q"]),
        artefact(tmp_path / "four", "snapshot", ["p"], content="y"),
        artefact(tmp_path / "five", "report", ["p"]),
    }
    assert one not in others
    assert len(others) == 3
    manifest = read_manifest(tmp_path / "one")
    assert manifest["files"].keys() == {"data.txt"}


def test_lineage_walks_either_way(tmp_path):
    project = init_project(tmp_path)
    frozen = artefact(tmp_path / "s", "snapshot", [])
    tuned = artefact(tmp_path / "c", "checkpoint", ["base-1", frozen])
    report = artefact(tmp_path / "r", "report", [tuned, "base-1"])
    for name in "scr":
        project.register(tmp_path / name, name)
        project.register(tmp_path / name, name)
    assert len(project.artefacts()) == 3
    made_from, led_to = lineage(project, tuned)
    assert [r.id for r in made_from] == [frozen]
    assert [r.id for r in led_to] == [report]
    made_from, _ = lineage(project, report)
    assert [r.id for r in made_from] == [tuned, frozen]
    for reference in ("c", tuned, tuned[:15]):
        found = project.find(reference)
        assert found is not None
        assert found.id == tuned
    assert project.find("nothing") is None


def test_a_beginning_that_fits_two_is_refused(tmp_path):
    project = init_project(tmp_path)
    for n in range(2):
        artefact(tmp_path / str(n), "snapshot", [], content=str(n))
        project.register(tmp_path / str(n))
    with pytest.raises(ProjectError, match="give more of the id"):
        project.find("snapshot-")


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replaced_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "old").write_text("old")
    with pytest.raises(RuntimeError), replaced_folder(folder) as temporary:
        (temporary / "half").write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert {p.name for p in folder.iterdir()} == {"old"}
    assert {p.name for p in tmp_path.iterdir()} == {"a.txt", "b"}


def test_kill_9_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    child = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from burnish.files import replaced_file\n"
        "with replaced_file(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", child, str(path)]).returncode == -9
    assert path.read_text() == "old"


def test_a_full_disk_is_told_apart_from_our_mistakes(tmp_path):
    with pytest.raises(ResourceError, match="disk is full"), full_disk_is_the_users(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(PermissionError), full_disk_is_the_users(tmp_path):
        raise PermissionError(errno.EACCES, "no")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "is a folder"),
        ("file/x", "cannot be written"),
        ("x" * 300, "cannot be written"),
        ("/proc/x", "cannot be written"),
    ],
)
def test_a_place_where_nothing_can_be_written_is_said(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    path = tmp_path / name
    with pytest.raises(ResourceError, match=message), replaced_file(path) as temporary:
        temporary.write_text("new")
    if name != "folder":
        with pytest.raises(ResourceError, match=message), replaced_folder(path):
            pass
    with pytest.raises(FileNotFoundError), replaced_file(tmp_path / "new") as temporary:
        (tmp_path / "elsewhere" / "x").read_text()  # not about the place: ours to mend
    assert {p.name for p in tmp_path.iterdir()} == {"folder", "file"}


def test_a_device_is_written_to_and_never_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    with replaced_file(pipe) as temporary:
        temporary.write_text("said")
    assert reader.communicate(timeout=10)[0] == b"said"
    assert pipe.is_fifo()


def test_canonical_json_and_hashes_do_not_depend_on_order():
    assert canonical_json({"b": 1, "a": [1.0, "é"]}) == '{"a":[1.0,"é"],"b":1}'
    assert content_hash({"b": 1, "a": 2}) == content_hash({"a": 2, "b": 1})
    assert content_hash({"text": "\ud800"})  # legal in JSON, not in UTF-8


CONVERSATION = Conversation(
    (
        Message("system", "Be brief."),
        Message("user", "Cook?"),
        Message("assistant", "", tool_calls=(ToolCall("find", '{"a": 1}', "1"),), weight=0.5),
        Message("tool", "[]", tool_call_id="1"),
    ),
    tools='[{"type": "function"}]',
)


def test_a_conversation_reads_back_from_json():
    plain = json.loads(json.dumps(CONVERSATION.to_json()))
    assert Conversation.from_json(plain) == CONVERSATION
    raw = Conversation((Message("user", "a"), Message("assistant", "b")), raw=True)
    assert Conversation.from_json(raw.to_json()) == raw
    assert raw.hash != raw.as_chat().hash


def test_an_examples_id_is_its_content_not_its_circumstances():
    example = Example(CONVERSATION, "a.jsonl")
    later = Example(CONVERSATION, "a.jsonl", received_at="2026", licence="MIT", consent="form 7")
    assert example.id == later.id
    different = {
        Example(CONVERSATION, "b.jsonl").id,
        Example(CONVERSATION, "a.jsonl", metadata={"k": 1}).id,
        Example(CONVERSATION, "a.jsonl", weight=2.0).id,
        Example(CONVERSATION, "a.jsonl", subject_ids=("ada",)).id,
    }
    assert len(different) == 4
    assert example.id not in different
