"""Files as Label Studio, Argilla, Prodigy and doccano write them themselves, and broken ones.

Run: pytest tests/test_interchange_tools.py
"""

import json
import tracemalloc
import uuid
from collections.abc import Iterator

import pytest

from burnish.errors import InputError
from burnish.label.interchange import import_labels
from burnish.records.rows import read_rows
from burnish.store import Store, open_store
from burnish.tasks import Task
from burnish.types import Example
from labels import (
    CANDIDATES,
    CHAT,
    CHOICES,
    TASKS,
    annotations_of,
    everything_in,
    fill,
    refused,
    turns_of,
    user,
    write_list,
    write_rows,
)


def ls_result(type_: str, value: dict, name: str = "ctl", **more) -> dict:
    ids = {"id": "Dx_aB91ISN", "from_name": name, "to_name": "txt", "origin": "manual"}
    return {**ids, "type": type_, "value": value, **more}


def ls_task(*annotations: dict, **fields) -> dict:
    """A task as Label Studio 1.x exports it."""
    return {
        "id": 7,
        "data": {"text": "🙂 Ada lives in Ulm.\r\nSince 1815."},
        "meta": {},
        "annotations": [
            {
                "id": 1000 + n,
                "completed_by": 3,
                "result": [],
                "was_cancelled": False,
                "ground_truth": False,
                "created_at": f"2026-01-05T12:00:0{n}.249513Z",
                "updated_at": "2026-01-06T12:00:00.249513Z",
                "lead_time": 4.5,
                "unique_id": str(uuid.UUID(int=n)),
                "result_count": 1,
                "task": 7,
                "project": 83,
            }
            | annotation
            for n, annotation in enumerate(annotations)
        ],
        "predictions": [],
        "created_at": "2026-01-05T11:00:00.513742Z",
        "project": 83,
        "total_annotations": len(annotations),
        **fields,
    }


LS_TEXT = ls_task()["data"]["text"]
LS_SPANS = [
    # Code points, as since 1.4; UTF-16 code units, as before; and a line's end counted as one.
    {"start": 2, "end": 5, "text": "Ada", "labels": ["billing"]},
    {"start": 3, "end": 6, "text": "Ada", "labels": ["de livery"]},
    {"start": 26, "end": 30, "text": "1815", "labels": ["billing", "de livery"]},
]
ITEMS = [
    {"id": "blog", "title": "first"},
    {"id": "mdn", "body": "second 🙂"},
    {"id": 3, "html": "third"},
]
LABEL_STUDIO_ANSWERS = [
    ("write", [ls_result("textarea", {"text": ["a", "b"]})], "a\nb"),
    ("edit", [ls_result("textarea", {"text": "a"})], "a"),
    ("choose", [ls_result("choices", {"choices": ["billing"]})], "billing"),
    (
        "choose_many",
        [ls_result("choices", {"choices": ["ό, 🙂", "billing"]})],
        '["billing","ό, 🙂"]',
    ),
    ("choose_many", [], "[]"),
    ("rate", [ls_result("rating", {"rating": 4})], "4"),
    ("rate", [ls_result("number", {"number": 4.0})], "4"),
    ("rank", [ls_result("ranker", {"ranker": {"rank": ["mdn", "3", "blog"]}})], "[[1],[2],[0]]"),
    ("rank", [ls_result("ranker", {"ranker": ["mdn", "3", "blog"]})], "[[1],[2],[0]]"),
    ("rank", [ls_result("ranker", {"ranker": {"2": ["blog", "mdn"], "1": ["3"]}})], "[[2],[0,1]]"),
    (
        "spans",
        [ls_result("labels", value) for value in LS_SPANS],
        json.dumps(
            [
                {"end": 5, "label": "billing", "start": 2},
                {"end": 5, "label": "de livery", "start": 2},
                {"end": 31, "label": "billing", "start": 27},
                {"end": 31, "label": "de livery", "start": 27},
            ],
            separators=(",", ":"),
        ),
    ),
    (
        "dialogue",
        [
            ls_result("chatmessage", {"chatmessage": {**turn, "createdAt": 1736078400000}})
            for turn in turns_of("Hi", "Hello")
        ],
        json.dumps(turns_of("Hi", "Hello"), separators=(",", ":"), sort_keys=True),
    ),
    (
        "accept",
        [
            ls_result("choices", {"choices": ["reject"]}, "verdict"),
            ls_result("textarea", {"text": ["too long"]}, "why"),
        ],
        '{"reason":"too long","verdict":"reject"}',
    ),
    # Of several controls of a type, the one with the task's name is meant.
    (
        "choose",
        [
            ls_result("choices", {"choices": ["bad"]}, "quality"),
            ls_result("choices", {"choices": ["billing"]}, "answer"),
        ],
        "billing",
    ),
]


@pytest.fixture
def sqlite(tmp_path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'burnish.db'}")
    yield opened
    opened.close()


@pytest.mark.parametrize(("kind", "results", "expected"), LABEL_STUDIO_ANSWERS)
def test_label_studio_as_it_writes_itself(tmp_path, sqlite, kind, results, expected):
    metadata = {"candidates": list(CANDIDATES)} if kind == "rank" else {}
    fill(sqlite, [Example(user(LS_TEXT), "test", metadata)])
    mail = {"id": 9, "email": "bob@example.org"}
    record = ls_task(
        {"result": results, "ground_truth": True},
        {"result": results, "completed_by": mail, "lead_time": None},
        {"result": [], "was_cancelled": True, "completed_by": 4},
        predictions=[
            {"model_version": "m1", "created_ago": "3 hours", "result": results, "score": 0.5}
        ],
    )
    if kind == "rank":
        record["data"]["items"] = ITEMS
        record["predictions"] = []
    path = write_list(tmp_path / "project-83.json", [record])
    result = import_labels(sqlite, path, TASKS[kind], rejects=tmp_path)
    assert refused(result) == {}
    said = annotations_of(sqlite)
    assert [(a.annotator, a.status, a.answer, a.seconds, a.created_at) for a in said] == [
        ("label-studio:3", "submitted", expected, 4.5, "2026-01-05T12:00:00.249+00:00"),
        ("bob@example.org", "submitted", expected, None, "2026-01-05T12:00:01.249+00:00"),
        ("label-studio:4", "skipped", "", 4.5, "2026-01-05T12:00:02.249+00:00"),
    ]
    _, drafts, gold = everything_in(sqlite, TASKS[kind])
    assert {g.answer for g in gold} == {expected}
    assert {g.by for g in gold} == {"label-studio:3"}
    assert {d.model for d in drafts} == {"label-studio" if kind == "rank" else "m1"}
    # Taken in again, also after a further export with other bookkeeping, it adds nothing.
    record["updated_at"] = record["annotations"][0]["updated_at"] = "2026-02-01T00:00:00Z"
    write_list(path, [record])
    again = import_labels(sqlite, path, TASKS[kind], rejects=tmp_path)
    assert (again.added, again.known, again.drafts, again.gold) == (0, 3, 0, 0)


def test_pairwise_is_a_ranking_of_two(tmp_path, sqlite):
    fill(sqlite, [Example(user(LS_TEXT), "test", {"candidates": ["a", "b"]})])
    results = [ls_result("pairwise", {"selected": side}) for side in ("left", "right")]
    record = ls_task(*({"result": [r], "completed_by": n} for n, r in enumerate(results)))
    path = write_list(tmp_path / "pairs.json", [record])
    assert import_labels(sqlite, path, TASKS["rank"], rejects=tmp_path).added == 2
    assert [a.answer for a in annotations_of(sqlite)] == ["[[0],[1]]", "[[1],[0]]"]


def test_rankings_bring_their_candidates_and_follow_their_texts(tmp_path, sqlite):
    """Where the example has the candidates in another order, the texts decide."""
    fill(sqlite, [Example(user(LS_TEXT), "a"), Example(user("b"), "b", {"candidates": ["z", "y"]})])
    ranker = ls_result("ranker", {"ranker": {"rank": ["mdn", "3", "blog"]}})
    other = ls_result("ranker", {"ranker": {"rank": ["1", "2"]}})
    items = [{"id": "1", "body": "y"}, {"id": "2", "body": "z"}]
    records = [ls_task({"result": [ranker]}), ls_task({"result": [other]})]
    records[0]["data"]["items"] = ITEMS
    records[1]["data"] = {"text": "b", "items": items}
    path = write_list(tmp_path / "r.json", records)
    result = import_labels(sqlite, path, TASKS["rank"], rejects=tmp_path)
    assert (result.added, refused(result)) == (2, {})
    assert [a.answer for a in annotations_of(sqlite)] == ["[[1],[2],[0]]", "[[1],[0]]"]


PEOPLE = [str(uuid.UUID(int=n)) for n in (1, 2)]


def argilla_record(question: str, *values, fields=None, **more) -> dict:
    """A record as `records.to_list()` of Argilla 2 gives it: responses without a status."""
    given = [{"value": v, "user_id": p} for v, p in zip(values, PEOPLE, strict=False)]
    return {
        "id": "r1",
        "fields": fields or {"text": "🙂 Ada lives in Ulm."},
        "metadata": {"split": "a"},
        "suggestions": {},
        "responses": {question: given},
        "vectors": {},
        "_server_id": str(uuid.UUID(int=9)),
        "status": "completed",
    } | more


ADA = {"start": 3, "end": 6, "label": "billing"}
ARGILLA_ANSWERS = [
    ("write", "a 🙂", "a 🙂"),
    ("choose", "billing", "billing"),
    ("choose_many", ["ό, 🙂", "billing"], '["billing","ό, 🙂"]'),
    ("rate", 4, "4"),
    ("rank", ["two", "one"], "[[1],[0]]"),
    ("rank", [{"value": "one", "rank": 1}, {"value": "two", "rank": 1}], "[[0,1]]"),
    # The page counts UTF-16 code units.
    ("spans", [ADA | {"score": None}], '[{"end":5,"label":"billing","start":2}]'),
    ("spans", [], "[]"),
]


@pytest.mark.parametrize(("kind", "value", "expected"), ARGILLA_ANSWERS)
def test_argilla_as_it_writes_itself(tmp_path, sqlite, kind, value, expected):
    fields = {"text": "🙂 Ada lives in Ulm."}
    fill(sqlite, [Example(user(fields["text"]), "test")])
    if kind == "rank":
        fields |= {"one": "first", "two": "second"}
    suggested = {"q": {"value": value, "score": 0.5, "agent": "m1"}}
    record = argilla_record("q", value, value, fields=fields, suggestions=suggested)
    if kind == "rank":
        record["suggestions"] = {}
    (tmp_path / "dataset").mkdir()
    write_list(tmp_path / "dataset" / "records.json", [record])
    result = import_labels(sqlite, tmp_path / "dataset", TASKS[kind], rejects=tmp_path)
    assert refused(result) == {}
    said = {(a.annotator, a.status, a.answer) for a in annotations_of(sqlite)}
    assert said == {(f"argilla:{person}", "submitted", expected) for person in PEOPLE}
    _, drafts, _ = everything_in(sqlite, TASKS[kind])
    assert {d.model for d in drafts} == {"argilla" if kind == "rank" else "m1"}
    again = import_labels(sqlite, tmp_path / "dataset", TASKS[kind], rejects=tmp_path)
    assert (again.added, again.known, again.drafts) == (0, 2, 0)


def test_argillas_chats_verdicts_statuses_and_questions(tmp_path, sqlite):
    fill(sqlite, [Example(CHAT.answered("Then."), "test")])
    chat = [{"role": m.role, "content": m.content} for m in CHAT.messages]
    responses = {
        "answer": [
            {"value": "reject", "user_id": PEOPLE[0], "status": "submitted"},
            {"value": "accept", "user_id": PEOPLE[1], "status": "submitted"},
            {"value": None, "user_id": str(uuid.UUID(int=3)), "status": "discarded"},
            {"value": "accept", "user_id": str(uuid.UUID(int=4)), "status": "draft"},
        ],
        "reason": [{"value": "too long", "user_id": PEOPLE[0], "status": "submitted"}],
    }
    good = argilla_record("q", fields={"chat": chat}, responses=responses)
    good["fields"] = {"messages": chat}
    unclear = argilla_record("q", fields=good["fields"], responses={"a": [], "b": []})
    path = write_list(tmp_path / "records.json", [good, unclear])
    result = import_labels(sqlite, path, TASKS["accept"], rejects=tmp_path)
    assert [(a.status, a.answer) for a in annotations_of(sqlite)] == [
        ("submitted", '{"reason":"too long","verdict":"reject"}'),
        ("submitted", '{"verdict":"accept"}'),
        ("skipped", ""),
    ]
    assert sorted(result.rejected) == [
        "a response that was not submitted",
        "several questions might be the task",
    ]


def prodigy_line(**fields) -> dict:
    hashes = {"_input_hash": -1080010644, "_task_hash": -1728445858}
    people = {"_session_id": "news-ann", "_annotator_id": "news-ann", "_timestamp": 1767614400}
    return {"text": "🙂 Ada lives in Ulm.", "meta": {"score": 0.6}} | hashes | people | fields


OPTIONS = [{"id": n, "text": choice} for n, choice in enumerate(CHOICES)]
PRODIGY_ANSWERS = [
    ("choose", {"label": "billing", "answer": "accept"}, "billing"),
    ("choose", {"options": OPTIONS, "accept": [2], "answer": "accept"}, "ό, 🙂"),
    (
        "choose_many",
        {
            "options": [{"id": c, "text": c} for c in CHOICES],
            "accept": list(CHOICES[1::-1]),
            "answer": "accept",
        },
        '["billing","de livery"]',
    ),
    ("choose_many", {"options": OPTIONS, "accept": [], "answer": "accept"}, "[]"),
    ("rate", {"options": [{"id": 4, "text": "good"}], "accept": [4], "answer": "accept"}, "4"),
    ("write", {"user_input": "a\r\nb", "_view_id": "text_input", "answer": "accept"}, "a\r\nb"),
    (
        "spans",
        {
            "tokens": [{"text": "🙂", "start": 0, "end": 1, "id": 0}],
            "spans": [{"start": 2, "end": 5, "token_start": 1, "token_end": 1, "label": "billing"}],
            "answer": "accept",
        },
        '[{"end":5,"label":"billing","start":2}]',
    ),
    ("accept", {"answer": "reject", "reason": "wrong"}, '{"reason":"wrong","verdict":"reject"}'),
    ("accept", {"answer": "accept"}, '{"verdict":"accept"}'),
]


@pytest.mark.parametrize(("kind", "fields", "expected"), PRODIGY_ANSWERS)
def test_prodigy_as_it_writes_itself(tmp_path, sqlite, kind, fields, expected):
    shown = Example(user("🙂 Ada lives in Ulm.", "Yes."), "test")
    fill(sqlite, [shown])
    lines = [
        prodigy_line(**fields),
        prodigy_line(answer="ignore", _annotator_id=None, _session_id="news-bob"),
        prodigy_line(answer="ignore", flagged=True, _annotator_id="news-cat", _timestamp=None),
    ]
    path = write_rows(tmp_path / "news.jsonl", lines)
    result = import_labels(sqlite, path, TASKS[kind], rejects=tmp_path)
    assert refused(result) == {}
    noon = "2026-01-05T12:00:00.000+00:00"
    said = annotations_of(sqlite)
    assert [(a.annotator, a.status, a.answer) for a in said] == [
        ("news-ann", "submitted", expected),
        ("news-bob", "skipped", ""),
        ("news-cat", "flagged", ""),
    ]
    assert [a.created_at for a in said[:2]] == [noon, noon]
    again = import_labels(sqlite, path, TASKS[kind], rejects=tmp_path)
    assert (again.added, again.known) == (0, 3)


DOCCANO_ANSWERS = [
    ("write", {"label": ["a 🙂"]}, "a 🙂"),
    ("choose", {"label": ["billing"]}, "billing"),
    ("choose_many", {"label": ["ό, 🙂", "billing"]}, '["billing","ό, 🙂"]'),
    ("choose", {"cats": ["billing"], "entities": [[3, 6, "x"]]}, "billing"),
    ("rate", {"label": ["4"]}, "4"),
    ("spans", {"label": [[3, 6, "billing"]]}, '[{"end":5,"label":"billing","start":2}]'),
    (
        "spans",
        {
            "entities": [{"id": 1, "start_offset": 3, "end_offset": 6, "label": "billing"}],
            "relations": [],
        },
        '[{"end":5,"label":"billing","start":2}]',
    ),
    (
        "accept",
        {"label": ["reject"], "Comments": ["wrong"]},
        '{"reason":"wrong","verdict":"reject"}',
    ),
]


@pytest.mark.parametrize(("kind", "fields", "expected"), DOCCANO_ANSWERS)
def test_doccano_as_it_writes_itself(tmp_path, sqlite, kind, fields, expected):
    fill(sqlite, [Example(user("🙂 Ada lives in Ulm.", "Yes."), "test")])
    line = {"id": 1, "text": "🙂 Ada lives in Ulm.", "Comments": []} | fields
    path = write_rows(tmp_path / "ann.jsonl", [line, {"id": 2, "text": "x", "label": []}])
    result = import_labels(sqlite, path, TASKS[kind], annotator="ann", rejects=tmp_path)
    assert [(a.annotator, a.answer) for a in annotations_of(sqlite)] == [("ann", expected)]
    assert list(refused(result)) == [2]
    again = import_labels(sqlite, path, TASKS[kind], annotator="ann", rejects=tmp_path)
    assert (again.added, again.known) == (0, 1)
    with pytest.raises(InputError, match="nobody is named"):
        import_labels(sqlite, path, TASKS[kind], rejects=tmp_path)


BROKEN = [
    ({"data": 7, "annotations": []}, "label_studio", "'data'"),
    ({"data": {"text": "q"}, "annotations": [7]}, "label_studio", "not a list of objects"),
    (ls_task({"result": [ls_result("labels", {"start": 0})]}), "label_studio", "no textarea"),
    (ls_task({"result": None}), "label_studio", "holds nothing"),
    (ls_task(meta={"burnish": {"rows": 7}}), "label_studio", "not as Burnish wrote it"),
    (ls_task(meta={"burnish": {"rows": [{"answer": 1}]}}), "label_studio", "not as Burnish wrote"),
    (argilla_record("q", metadata={"burnish": "{"}), "argilla", "not as Burnish wrote it"),
    (argilla_record("q", ["a"], metadata={}), "argilla", "not a text"),
    ({"fields": {"text": "q"}, "responses": {"q": "x"}}, "argilla", "not a list of objects"),
    (prodigy_line(answer="maybe"), "prodigy", "none of accept, reject, ignore"),
    (prodigy_line(answer="reject", label="x"), "prodigy", "what the answer is not"),
    (prodigy_line(answer="ignore", _timestamp="x"), "prodigy", "no time"),
    (prodigy_line(answer="accept", user_input="\ud800"), "prodigy", "surrogate"),
    ({"text": "q", "label": ["a", "b"]}, "doccano", "2 labels"),
    ({"text": 7, "label": ["a"]}, "doccano", "no example has this prompt"),
    ({"text": "q", "label": ["a"], "burnish": []}, "doccano", "not as Burnish wrote it"),
]


@pytest.mark.parametrize(("record", "format", "reason"), BROKEN)
def test_records_that_do_not_fit_are_refused_one_by_one(tmp_path, sqlite, record, format, reason):
    fill(sqlite, [Example(user(LS_TEXT), "test"), Example(user("🙂 Ada lives in Ulm."), "test")])
    path = write_rows(tmp_path / "r.jsonl", [record])
    with pytest.raises(InputError, match="nothing in it fits") as caught:
        import_labels(
            sqlite, path, Task(), annotator="ann", format=format, rejects=tmp_path / "rejects"
        )
    assert reason in str(caught.value)
    [kept] = (tmp_path / "rejects").iterdir()
    assert reason in kept.read_text()
    assert annotations_of(sqlite) == []


def test_a_list_on_one_line_is_never_in_memory_whole(tmp_path):
    """As Label Studio and Argilla write theirs."""
    records = [ls_task({"result": [], "task": n}) for n in range(12_000)]
    path = tmp_path / "one-line.json"
    path.write_text("\ufeff " + json.dumps(records, ensure_ascii=False), encoding="utf-8")
    assert path.stat().st_size > 6_000_000
    del records
    tracemalloc.start()
    count = sum(row.values["data"]["text"] == LS_TEXT for row in read_rows(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 12_000
    assert peak < 3_000_000
    assert next(read_rows(path)).line == 1
