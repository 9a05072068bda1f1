"""Exports over HTTP: read while they are sent, the same bytes, nothing held, no half for a whole.

Run: pytest tests/test_export_stream.py
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import get_args

import httpx
import pytest
from sqlalchemy import event, text, update

from burnish.errors import InputError
from burnish.label.interchange import LabelFormat, export_labels, stream_labels
from burnish.label.interchange.formats import ENDINGS
from burnish.label.order import set_gold
from burnish.label.webhooks import make_webhook
from burnish.store import Store
from burnish.store.annotations import add_annotations
from burnish.store.drafts import Draft, add_drafts
from burnish.store.examples import PAGE, add_examples
from burnish.store.tables import examples
from burnish.store.webhooks import count_deliveries
from burnish.tasks import Task
from burnish.types import Annotation, Example
from studios import Studio, example

TASK = Task()
COUNT = PAGE * 2 + 5


def fill(store: Store, count: int = COUNT, *, answer: str = "yes") -> list[Example]:
    """Examples, each with an answer; the first with a draft and a gold answer too."""
    items = [example(n) for n in range(count)]
    said = [
        Annotation(one.id, TASK.name, f"{answer} {n}", f"person {n % 7}", f"id {n}")
        for n, one in enumerate(items)
    ]
    with store.writing() as connection:
        add_examples(connection, items, actor="test")
        add_annotations(connection, said, actor="test")
        add_drafts(connection, [Draft.of(items[0].id, TASK.name, "perhaps", "model")])
    set_gold(store, TASK, {items[0].id: "no"}, "ann")
    return items


@pytest.fixture
def studio(tmp_path) -> Iterator[Studio]:
    one = Studio(tmp_path / "project")
    yield one
    one.close()


def export_url(one: Studio, format: str = "jsonl") -> str:
    return f"{one.url}/api/v1/tasks/answer/export?format={format}"


def test_a_stream_is_the_file(store, tmp_path):
    fill(store)
    for format in get_args(LabelFormat):
        path = tmp_path / f"{format}{ENDINGS[format][0]}"
        assert export_labels(store, path, TASK, format=format) == COUNT
        pieces = list(stream_labels(store, TASK, format=format))
        assert "".join(pieces).encode() == path.read_bytes()
        assert len(pieces) > 2


def test_what_is_sent_is_the_file(studio, tmp_path):
    fill(studio.store)
    for format in get_args(LabelFormat):
        path = tmp_path / f"{format}{ENDINGS[format][0]}"
        export_labels(studio.store, path, TASK, format=format)
        answer = httpx.get(export_url(studio, format), timeout=60)
        assert answer.content == path.read_bytes()
        assert "content-length" not in answer.headers
        assert f"answer-{format}." in answer.headers["content-disposition"]


def test_nothing_is_held_between_the_pages(store):
    fill(store)
    for format in ("csv", "label_studio"):
        for _ in stream_labels(store, TASK, format=format):
            assert store.engine.pool.checkedout() == 0
            if store.engine.dialect.name == "sqlite":
                with store.engine.connect() as connection:
                    busy, _, _ = connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)")).one()
                assert not busy


def test_what_is_said_meanwhile_does_not_rest_on_drafts_that_are_missing(store):
    items = fill(store)
    pieces = stream_labels(store, TASK)
    first = next(pieces)
    late = Draft.of(items[1].id, TASK.name, "late", "model")
    said = Annotation(items[1].id, TASK.name, "late", "zoe", "late", draft_id=late.id)
    with store.writing() as connection:
        add_drafts(connection, [late])
        add_annotations(connection, [said], actor="test")
    rows = [json.loads(row) for row in (first + "".join(pieces)).splitlines()]
    told = [row for row in rows if row.get("record") is None]
    assert len(told) == COUNT
    drafts = {
        Draft.of(row["example_id"], TASK.name, row["answer"], row["annotator"]).id
        for row in rows
        if row.get("record") == "draft"
    }
    assert {row["draft_id"] for row in told if "draft_id" in row} <= drafts


def test_it_is_told_once_all_of_it_was_taken(store):
    fill(store)
    webhook = make_webhook(store, "https://example.org/", ["labels.exported"], actor="test")

    def told() -> int:
        with store.reading() as connection:
            return count_deliveries(connection)[webhook.id].waiting

    pieces = stream_labels(store, TASK)
    next(pieces)
    del pieces
    assert told() == 0
    for _ in stream_labels(store, TASK):
        assert told() == 0
    assert told() == 1


def test_a_kind_without_place_in_the_format_is_refused_before_anything_is_read(store):
    with pytest.raises(InputError, match="doccano"):
        stream_labels(store, Task(kind="rank"), format="doccano")


def test_a_client_that_goes_away_ends_the_reading(studio):
    # More than the sockets between the two hold.
    fill(studio.store, PAGE * 12, answer="x" * 10_000)
    begun: list[float] = []
    event.listen(studio.store.engine, "begin", lambda _: begun.append(time.monotonic()))
    with httpx.stream("GET", export_url(studio), timeout=60) as answer:
        next(answer.iter_raw())
    left = time.monotonic()
    time.sleep(2)
    assert studio.store.engine.pool.checkedout() == 0
    assert len(begun) < 12
    assert max(begun) < left + 1
    assert httpx.get(f"{studio.url}/api/v1/tasks", timeout=60).status_code == 200


@pytest.mark.parametrize("format", get_args(LabelFormat))
def test_a_fault_on_the_way_breaks_the_connection(studio, format):
    items = fill(studio.store)
    spoil(studio.store, items[PAGE + 5])
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        httpx.get(export_url(studio, format), timeout=60)
    assert studio.store.engine.pool.checkedout() == 0


def test_a_fault_at_once_is_answered_as_one(studio):
    items = fill(studio.store)
    spoil(studio.store, items[0])
    assert httpx.get(export_url(studio), timeout=60).status_code == 500


def spoil(store: Store, item: Example) -> None:
    """What a fault of the disk leaves in a database."""
    with store.writing() as connection:
        connection.execute(
            update(examples).where(examples.c.id == item.id).values(conversation='{"messages')
        )
