"""Guidelines and their history. Run: pytest tests/test_guidelines.py"""

import os
import threading
import time
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text

from burnish.config import read_toml
from burnish.errors import InputError, ProjectError, ResourceError
from burnish.hashing import content_hash
from burnish.label.guidelines import (
    _SETTLED_SECONDS,
    current_guidelines,
    guideline_history,
    write_guidelines,
)
from burnish.project import Project, init_project
from burnish.store import Store, open_store
from burnish.store.annotations import add_annotations
from burnish.store.engine import make_engine
from burnish.store.examples import add_examples
from burnish.store.log import read_log, verify_log
from burnish.store.upgrade import migrations
from burnish.tasks import Task, read_tasks
from burnish.types import Annotation, Conversation, Example, Message

TASKS = """
[tasks.intent]
[tasks.tone]
[tasks.other]
guidelines = "other.md"
"""


@pytest.fixture
def project(tmp_path):
    return init_project(tmp_path / "project")


def versions(store, task: Task) -> list[tuple[str, str, int]]:
    return [(v.text, v.by, v.annotations) for v in guideline_history(store, task)]


def test_every_text_the_file_had_is_a_version(project, store):
    task, path = Task(), project.root / "guidelines.md"
    assert guideline_history(store, task) == []
    path.write_text("# Old\n")
    old = current_guidelines(store, project, task)
    assert current_guidelines(store, project, task) == old
    assert (old.version, old.text) == (content_hash("# Old\n"), "# Old\n")
    path.write_text("# New\n")
    assert current_guidelines(store, project, task).text == "# New\n"
    path.write_text("# Old\n")
    assert current_guidelines(store, project, task) == old
    assert versions(store, task) == [("# Old\n", "", 0), ("# New\n", "", 0), ("# Old\n", "", 0)]
    with store.reading() as connection:
        assert [entry["action"] for entry in read_log(connection)] == ["guidelines"] * 3
        verify_log(connection)


def test_a_file_nobody_touched_is_read_once(project, store):
    task, path = Task(), project.root / "guidelines.md"
    path.write_text("# Old\n")
    time.sleep(_SETTLED_SECONDS + 0.1)
    old = current_guidelines(store, project, task)
    assert current_guidelines(store, project, task) is old
    touched = path.stat()
    # As long as before, and it says it is as old.
    path.write_text("# New\n")
    os.utime(path, ns=(touched.st_atime_ns, touched.st_mtime_ns))
    assert current_guidelines(store, project, task).text == "# New\n"
    path.unlink()
    with pytest.raises(ProjectError):
        current_guidelines(store, project, task)


def test_files_that_cannot_be_read_say_so(project, store):
    path = project.root / "guidelines.md"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ProjectError, match="no UTF-8 text"):
        current_guidelines(store, project, Task())
    path.unlink()
    with pytest.raises(ProjectError, match="guidelines cannot be read"):
        current_guidelines(store, project, Task())


def test_who_wrote_it_and_how_much_was_done_under_it(project, store):
    task = Task()
    first = current_guidelines(store, project, task)
    second = write_guidelines(
        store, project, task, "Be\r\nkind.\n", instead_of=first.version, person=" ann "
    )
    assert (project.root / "guidelines.md").read_bytes() == b"Be\nkind.\n"
    assert current_guidelines(store, project, task) == second
    one = Example(Conversation((Message("user", "q"),)), "s")
    with store.writing() as connection:
        add_examples(connection, [one], actor="test")
        made_under = [("answer", first), ("answer", second), ("answer", second), ("tone", second)]
        annotations = [
            Annotation(one.id, name, "x", "bob", str(n), guidelines.version)
            for n, (name, guidelines) in enumerate(made_under)
        ]
        add_annotations(connection, annotations, actor="bob")
    assert versions(store, task) == [(second.text, "ann", 2), (first.text, "", 1)]
    assert versions(store, Task("tone")) == []


def test_two_people_do_not_overwrite_each_other(project, store):
    task = Task()
    seen = current_guidelines(store, project, task).version
    write_guidelines(store, project, task, "ann's", instead_of=seen, person="ann")
    with pytest.raises(InputError, match="changed since you read them"):
        write_guidelines(store, project, task, "bob's", instead_of=seen, person="bob")
    assert (project.root / "guidelines.md").read_text() == "ann's"
    assert [v.by for v in guideline_history(store, task)] == ["ann", ""]


@pytest.mark.parametrize(
    ("written", "person", "message"),
    [(" \n", "ann", "without a text"), ("\ud800", "ann", "surrogate"), ("x", "", "no annotator")],
)
def test_what_cannot_be_written_is_refused(project, store, written, person, message):
    seen = current_guidelines(store, project, Task())
    with pytest.raises(InputError, match=message):
        write_guidelines(store, project, Task(), written, instead_of=seen.version, person=person)
    assert current_guidelines(store, project, Task()) == seen


def test_a_file_that_cannot_be_written_leaves_no_version(project, store):
    task = Task(guidelines=Path("rules/guidelines.md"))
    folder = project.root / "rules"
    folder.mkdir()
    (folder / "guidelines.md").write_text("old")
    seen = current_guidelines(store, project, task)
    # A folder stands where the temporary file would be put.
    (folder / f".guidelines.md.{os.getpid()}.tmp").mkdir()
    with pytest.raises(ResourceError):
        write_guidelines(store, project, task, "new", instead_of=seen.version, person="ann")
    assert current_guidelines(store, project, task) == seen
    assert versions(store, task) == [("old", "", 0)]


def test_tasks_that_share_a_file_share_its_versions(project, store):
    with (project.root / "burnish.toml").open("a") as file:
        file.write(TASKS)
    project = Project(project.root, read_toml(project.root / "burnish.toml"))
    (project.root / "other.md").write_text("other")
    intent, tone, other = read_tasks(project).values()
    seen = [current_guidelines(store, project, task).version for task in (intent, tone, other)]
    assert seen[0] == seen[1] != seen[2]
    write_guidelines(store, project, intent, "new", instead_of=seen[0], person="ann")
    for task, by in ((intent, ["ann", ""]), (tone, ["ann", ""]), (other, [""])):
        assert [v.by for v in guideline_history(store, task)] == by


def test_servers_that_see_a_change_at_once_note_it_once(project, store):
    barrier = threading.Barrier(4)

    def look() -> None:
        barrier.wait()
        for _ in range(5):
            current_guidelines(store, project, Task())

    for written in ("one", "two", "one"):
        (project.root / "guidelines.md").write_text(written)
        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [v.text for v in guideline_history(store, Task())] == ["one", "two", "one"]


def test_an_older_stores_versions_get_their_task(store_url):
    """Before, versions had no task; the annotations made under them tell it."""
    older = Store(make_engine(store_url))
    with older.writing() as connection:
        command.upgrade(migrations(connection), "0002")
        for statement in (
            "INSERT INTO examples (id, conversation, conversation_hash, prompt_hash, source, "
            "metadata, weight, received_at) "
            "VALUES ('e', '{\"messages\":[]}', '', '', '', '{}', 1, '0')",
            "INSERT INTO guidelines VALUES ('v1', 'old', '1'), ('v2', 'new', '2')",
            "INSERT INTO annotations (client_id, example_id, task, answer, annotator, "
            "guideline_version, status, created_at) VALUES "
            "('1', 'e', 'answer', '', 'bob', 'v2', 'skipped', '3'), "
            "('2', 'e', 'answer', '', 'ann', 'v1', 'skipped', '2'), "
            "('3', 'e', 'answer', '', 'cat', 'v1', 'skipped', '4'), "
            "('4', 'e', 'tone', '', 'cat', 'v1', 'skipped', '4')",
        ):
            connection.execute(text(statement))
    older.close()
    store = open_store(store_url)
    assert versions(store, Task()) == [("new", "", 1), ("old", "", 2)]
    assert versions(store, Task("tone")) == [("old", "", 1)]
    store.close()
