"""The store on a real SQLite file. Run: pytest tests/test_store.py"""

import json
import re
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import CreateTable, create_engine, insert, inspect, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

import burnish
from burnish.errors import ProjectError, ResourceError
from burnish.hashing import content_hash
from burnish.records.fingerprint import prompt_fingerprint
from burnish.store import open_store, tables
from burnish.store.annotations import (
    add_annotations,
    count_annotations,
    read_annotations,
)
from burnish.store.disputes import read_disputes
from burnish.store.examples import (
    PAGE,
    add_examples,
    count_examples,
    read_example,
    read_examples,
    read_subject_prompts,
)
from burnish.store.findings import (
    count_exclusions,
    count_survivors,
    exclude,
    read_exclusions,
    replace_findings,
)
from burnish.store.log import append_log, read_log, verify_log
from burnish.store.migrations import NEWEST
from burnish.types import Annotation, Conversation, Example, Finding, Message, ToolCall


@pytest.fixture
def sqlite_store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/burnish.db")
    yield opened
    opened.close()


def example(number: int, answer: str | None = "yes", **fields) -> Example:
    messages = (Message("user", f"question {number}"),)
    if answer is not None:
        messages += (Message("assistant", answer),)
    return Example(Conversation(messages), fields.pop("source", "a.jsonl"), **fields)


def annotation(of: Example, answer: str, annotator: str = "ann", **fields) -> Annotation:
    client_id = fields.pop("client_id", f"{of.id}-{annotator}-{answer}-{fields.get('status', '')}")
    return Annotation(of.id, "answer", answer, annotator, client_id, **fields)


def add(store, *examples: Example) -> int:
    with store.writing() as connection:
        return add_examples(connection, examples, actor="test")


# Tables.


def test_migrations_lead_to_the_tables(store):
    # The index of words is made by its own module, in each database's own way.
    options = {"include_name": lambda name, *_: "example_words" not in (name or "")}
    with store.reading() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_heads() == (NEWEST,)


def test_the_columns_are_these(store):
    inspector = inspect(store.engine)
    columns = {
        name: " ".join(column["name"] for column in inspector.get_columns(name))
        for name in inspector.get_table_names()
    }
    # The index of words is made by its own module, in each database's own way.
    columns = {name: words for name, words in columns.items() if "example_words" not in name}
    assert columns == {
        "alembic_version": "version_num",
        "examples": "seq id conversation conversation_hash prompt_hash source metadata weight "
        "licence consent received_at parent",
        "example_subjects": "example_id position subject_id",
        "annotations": "seq client_id example_id task answer annotator guideline_version seconds "
        "status created_at draft_id edit_distance",
        "leases": "seq example_id task slot annotator expires_at",
        "expired_leases": "example_id task annotator",
        "guidelines": "version text created_at",
        "resolutions": "seq example_id task answer annotation_ids resolved_by created_at",
        "findings": "seq check example_ids message fix audited_at",
        "exclusions": "example_id reason by created_at",
        "guideline_history": "seq task version by created_at",
        "drafts": "seq id example_id task text model created_at",
        "priorities": "task example_id priority",
        "assignments": "task example_id annotator by created_at",
        "gold": "task example_id answer by created_at",
        "users": "name password_hash role active created_at",
        "sessions": "token_hash user created_at expires_at",
        "tokens": "token_hash name user created_at expires_at",
        "sign_in_failures": "seq key at",
        "webhooks": "id url secret events created_at",
        "deliveries": "seq id webhook_id body attempts next_at fault",
        "log": "seq at actor action payload hash",
        "queue": "example_id task lane position rank taken closed",
        "queue_marks": "task position",
        "disputes": "example_id task position reviewer expires_at",
    }


def test_the_tables_are_postgresql_too():
    for table in tables.metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=postgresql.dialect()))


def test_a_store_of_before_gets_its_queue_and_disputes(store_url):
    engine = create_engine(store_url)
    with engine.connect() as connection, connection.begin():
        steps = Path(burnish.__file__).parent / "store" / "migrations"
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(steps))
        command.upgrade(config, "0002")
        for n in range(3):
            connection.execute(
                text(
                    "INSERT INTO examples (id, conversation, conversation_hash, prompt_hash, "
                    "source, metadata, weight, received_at) VALUES (:id, :messages, 'h', 'h', "
                    "'a.jsonl', '{}', 1, 'now')"
                ),
                {"id": f"e{n}", "messages": '{"messages":[]}'},
            )
        for n, (example_id, answer) in enumerate([("e1", "x"), ("e1", "y"), ("e2", "x")]):
            connection.execute(
                text(
                    "INSERT INTO annotations (client_id, example_id, task, answer, annotator, "
                    "guideline_version, status, created_at) VALUES (:n, :example_id, 'answer', "
                    ":answer, :n, '', 'submitted', 'now')"
                ),
                {"n": str(n), "example_id": example_id, "answer": answer},
            )
    engine.dispose()
    store = open_store(store_url)
    with store.reading() as connection:
        assert read_disputes(connection, "answer") == ["e1"]
        queued = connection.execute(select(tables.queue.c.example_id)).scalars()
        assert {"e1", "e2"} <= set(queued)
    store.close()


def test_sqlite_is_set_up_for_many_users(sqlite_store):
    with sqlite_store.reading() as connection:
        pragma = {
            name: connection.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        }
    assert pragma == {
        "journal_mode": "wal",
        "busy_timeout": 15_000,
        "foreign_keys": 1,
        "synchronous": 2,  # FULL: a label that was acknowledged survives a power cut
    }


def test_a_store_opens_again_and_by_several_at_once(store_url):
    url = store_url
    program = f"from burnish.store import open_store; open_store({url!r}).close()"
    started = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    open_store(url).close()


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "text.db").write_text("this is no database\n" * 100)
    newer = open_store(f"sqlite:///{tmp_path}/newer.db")
    with newer.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    newer.close()
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE users (id INTEGER)")
    other.close()
    cases = {
        f"sqlite:///{tmp_path}/other.db": "another program",
        f"sqlite:///{tmp_path}/text.db": "not a database",
        f"sqlite:///{tmp_path}/newer.db": "newer Burnish",
        f"sqlite:///{tmp_path}/none/a.db": "unable to open",
        "burnish.db": "is no store's URL",
        "mysql://host/db": "neither SQLite nor PostgreSQL",
    }
    for url, message in cases.items():
        with pytest.raises(ProjectError, match=message):
            open_store(url)


def test_a_missing_driver_names_the_extra(monkeypatch):
    # None in sys.modules is how Python marks a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "pg8000", None)
    for scheme in ("postgresql", "postgresql+pg8000"):
        with pytest.raises(ResourceError, match=r"module pg8000.*\n.*burnish\[postgres\]"):
            open_store(f"{scheme}://user:secret@localhost/db")


def test_a_path_may_hold_what_a_url_may_not(tmp_path):
    path = tmp_path / "nä me 😀 #?%20&a=b" / "burnish.db"
    path.parent.mkdir()
    open_store(f"sqlite:///{path}").close()
    assert [file.name for file in tmp_path.iterdir()] == [path.parent.name]
    assert path.is_file()


# Examples.


def test_examples_come_back_as_they_went_in_order(store):
    call = ToolCall("add", '{"a": 1}', "c1")
    rich = Example(
        Conversation(
            (
                Message("system", "s", weight=0.25),
                Message("assistant", "", (call,)),
                Message("tool", "2", tool_call_id="c1"),
            ),
            tools='[{"type": "function"}]',
            raw=True,
        ),
        "ü.csv",
        {"n": 1, "list": [1, {"a": None}]},
        0.5,
        "MIT",
        "form 7",
        ("second", "first"),
        "2026-01-01T00:00:00.000+00:00",
        "0" * 32,
    )
    others = [example(n, subject_ids=("p",) * (n % 2)) for n in range(PAGE + 10)]
    assert add(store, *others, rich) == PAGE + 11
    with store.reading() as connection:
        read = list(read_examples(connection))
        assert [e.id for e in read] == [e.id for e in [*others, rich]]
        assert read[-1] == rich
        assert [e.subject_ids for e in read[:-1]] == [e.subject_ids for e in others]
        assert read_example(connection, rich.id) == rich
        assert read_example(connection, "none") is None
        assert count_examples(connection) == PAGE + 11
        assert count_survivors(connection) == {
            "a.jsonl": (PAGE + 10, PAGE + 10),
            "ü.csv": (1, 1),
        }


def test_adding_again_adds_and_logs_nothing(store):
    batch = [example(n) for n in range(5)]
    assert add(store, *batch[:3]) == 3
    assert add(store, *batch, batch[4]) == 2
    assert add(store, *batch) == 0
    with store.reading() as connection:
        logged = [entry["payload"] for entry in read_log(connection)]
    assert [entry["rows"] for entry in logged] == [2, 3]
    assert logged[1]["rows_hash"] == content_hash([e.id for e in batch[:3]])


def test_hash_columns_are_the_hashes(store):
    one = example(1)
    add(store, one)
    with store.reading() as connection:
        row = connection.execute(select(tables.examples)).one()
    assert row.conversation_hash == one.conversation.hash
    assert row.prompt_hash == prompt_fingerprint(one.conversation)


def test_subject_prompts(store):
    add(store, example(1, subject_ids=("p", "q")), example(2, subject_ids=("p",)), example(3))
    hashes = [prompt_fingerprint(example(n).conversation) for n in (1, 2)]
    with store.reading() as connection:
        assert set(read_subject_prompts(connection)) == {
            ("p", hashes[0]),
            ("q", hashes[0]),
            ("p", hashes[1]),
        }


# Annotations and answers.


def test_a_retried_annotation_is_one_row(store):
    one = example(1, None)
    add(store, one)
    given = annotation(one, "yes", guideline_version="g1", seconds=3.5)
    with store.writing() as connection:
        assert add_annotations(connection, [given, given], actor="ann") == 1
        assert add_annotations(connection, [given], actor="ann") == 0
    with store.reading() as connection:
        (read,) = read_annotations(connection, task="answer", example_id=one.id)
        assert read.created_at is not None
        assert (read.answer, read.seconds, read.guideline_version) == ("yes", 3.5, "g1")
        assert list(read_annotations(connection, task="other")) == []
        assert count_annotations(connection) == 1


def test_an_annotation_needs_its_example(store):
    with pytest.raises(DBAPIError), store.writing() as connection:
        add_annotations(connection, [annotation(example(1), "yes")], actor="ann")


# Findings.


def test_findings_are_replaced_and_exclusions_kept(store):
    one, two = example(1), example(2, source="b.jsonl")
    add(store, one, two)
    found = [Finding("check", (one.id, two.id), "message", "fix"), Finding("other", (), "m")]
    with store.writing() as connection:
        replace_findings(connection, found, actor="audit")
        replace_findings(connection, found, actor="audit")
        rows = connection.execute(select(tables.findings).order_by(tables.findings.c.seq)).all()
        assert [(row.check, row.message, row.fix) for row in rows] == [
            ("check", "message", "fix"),
            ("other", "m", None),
        ]
        assert json.loads(rows[0].example_ids) == [one.id, two.id]
        assert exclude(connection, {one.id: "why"}, actor="audit") == 1
        assert exclude(connection, {one.id: "again", two.id: "why"}, actor="audit") == 1
        assert read_exclusions(connection) == {one.id: "why", two.id: "why"}
        assert count_exclusions(connection) == 2
        assert count_survivors(connection) == {"a.jsonl": (1, 0), "b.jsonl": (1, 0)}


# The log and transactions.


def test_any_change_to_the_log_is_found(store):
    with store.writing() as connection:
        for number in range(5):
            append_log(connection, "ann", "act", {"number": number, "text": "ü"})
    with store.reading() as connection:
        head = verify_log(connection)
        entries = connection.execute(select(tables.log)).mappings().all()
    assert head.entries == 5
    changes = [
        update(tables.log).where(tables.log.c.seq == 2).values(**{column: value})
        for column, value in [
            ("payload", '{"number":9}'),
            ("actor", "eve"),
            ("action", "other"),
            ("at", "2020-01-01"),
            ("hash", "0" * 64),
        ]
    ]
    changes.append(tables.log.delete().where(tables.log.c.seq == 1))
    changes.append(tables.log.delete().where(tables.log.c.seq == 3))
    changes.append(insert(tables.log).values({**entries[4], "seq": 6}))
    for change in changes:
        with pytest.raises(ProjectError, match="was changed"), store.writing() as connection:
            connection.execute(change)
            verify_log(connection)
    with store.writing() as connection:
        connection.execute(tables.log.delete().where(tables.log.c.seq == 5))
        # Cut off at the end: only the head kept elsewhere shows it.
        assert verify_log(connection) != head


def test_a_failed_write_leaves_nothing(store):
    with pytest.raises(ZeroDivisionError), store.writing() as connection:
        add_examples(connection, [example(1)], actor="test")
        raise ZeroDivisionError
    with store.reading() as connection:
        assert count_examples(connection) == 0
        assert verify_log(connection).entries == 0


def test_writers_wait_for_one_another_and_readers_for_nobody(store):
    def write(start: int) -> None:
        for number in range(start, start + 20):
            add(store, example(number))

    with store.reading() as before:
        assert count_examples(before) == 0
        threads = [threading.Thread(target=write, args=(100 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # A reader sees the store as it was when it began.
        assert count_examples(before) == 0
    with store.reading() as connection:
        assert count_examples(connection) == 80
        assert verify_log(connection).entries == 80


def test_a_store_that_stays_busy_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("burnish.store.store.BUSY_SECONDS", 0.1)
    store = open_store(f"sqlite:///{tmp_path}/burnish.db")
    with (
        store.writing(),
        pytest.raises(ProjectError, match="others have been at work"),
        store.writing(),
    ):
        pass
    store.close()


def test_a_full_disk_is_named(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/burnish.db")
    with pytest.raises(ResourceError, match="disk is full"), store.writing() as connection:
        # SQLite's own ceiling stands in for the disk's.
        connection.execute(text("PRAGMA max_page_count = 60"))
        add_examples(connection, [example(n, "x" * 5000) for n in range(200)], actor="test")
    with store.reading() as connection:
        assert count_examples(connection) == 0
    store.close()


def test_no_sql_outside_the_store():
    package = Path(burnish.__file__).parent
    sql = re.compile(r"^\s*(from|import) (sqlalchemy|sqlite3|alembic)", re.MULTILINE)
    for path in package.rglob("*.py"):
        if "store" not in path.relative_to(package).parts:
            assert not sql.search(path.read_text(encoding="utf-8")), path
