"""The project folder, artefacts named by content, lineage. Run: pytest tests/test_project.py"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from burnish.errors import ProjectError, ResourceError
from burnish.files import full_disk_is_the_users, replaced_file, replaced_folder
from burnish.hashing import canonical_json, content_hash
from burnish.project import (
    find_project,
    init_project,
    lineage,
    read_manifest,
    require_project,
    seal_artefact,
)
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
