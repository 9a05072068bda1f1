"""The laws of a tool's record: what it brings back, what its own fields say, where spans are.

Run: pytest tests/test_interchange_records.py
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.errors import InputError
from burnish.label.interchange.formats import TOOLS, recognised_tool
from burnish.label.interchange.kept import read_record
from burnish.label.interchange.offsets import found_in, from_utf16, to_utf16
from burnish.records.answers import checked_answer
from burnish.records.messages import UnfitError
from burnish.store.answers import newest_of_each
from burnish.store.drafts import Draft
from burnish.store.labelled import Labelled
from burnish.types import Annotation
from labels import (
    CANDIDATES,
    PAIRS,
    TASKS,
    TEXTS,
    answer,
    example,
    labelled_examples,
    said_in,
    without_field,
    written,
)


@pytest.mark.parametrize(("tool", "kind"), PAIRS)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_a_record_brings_back_all_that_was_written(tool, kind, data):
    labelled = data.draw(labelled_examples(kind))
    records = written(tool, labelled, kind)
    assert recognised_tool(records) is TOOLS[tool]
    rows = [r for record in records for r in read_record(TOOLS[tool], record, TASKS[kind])]
    said = said_in(rows, kind)
    back = {
        record: [s.annotation for s in said if s.record == record]
        for record in ("annotation", "draft", "gold")
    }
    by_id = {a.client_id: a for a in labelled.annotations}
    assert {a.client_id: a for a in back["annotation"]} == by_id
    assert len(back["annotation"]) == len(by_id)
    assert [(d.answer, d.annotator) for d in back["draft"]] == [
        (d.text, d.model) for d in labelled.drafts
    ]
    gold = [labelled.gold] if labelled.gold else []
    assert [(g.answer, g.annotator) for g in back["gold"]] == [(g.answer, g.by) for g in gold]
    # An annotator's thoughts stay in order.
    for person in {a.annotator for a in labelled.annotations}:
        mine = [a.client_id for a in back["annotation"] if a.annotator == person]
        assert mine == [a.client_id for a in labelled.annotations if a.annotator == person]


def been_there(tool: str, record: dict) -> dict:
    """The record as the tool gives it back: its own bookkeeping added, its own user named."""
    back = json.loads(json.dumps(record))
    match tool:
        case "label_studio":
            for n, said in enumerate(back["annotations"]):
                said |= {"id": n, "completed_by": 1, "created_at": "2026-02-01T00:00:00Z"}
                said["result"] = [{"origin": "manual", **result} for result in said["result"]]
            for proposed in back["predictions"]:
                proposed["created_ago"] = "3 hours"
        case "argilla":
            for given in back["responses"].values():
                for said in given:
                    del said["status"]
        case "prodigy":
            back |= {"_task_hash": 7, "flagged": back.get("flagged", False)}
            back["_timestamp"] = 1770000000
        case _:
            back |= {"id": 7, "Comments": back.get("Comments", [])}
    return back


@pytest.mark.parametrize(("tool", "kind"), PAIRS)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_a_record_that_has_been_in_the_tool_says_nothing_more(tool, kind, data):
    labelled = data.draw(labelled_examples(kind))
    for record in written(tool, labelled, kind):
        rows = list(read_record(TOOLS[tool], record, TASKS[kind]))
        back = read_record(TOOLS[tool], been_there(tool, record), TASKS[kind])
        assert [row for row in back if not isinstance(row, UnfitError)] == rows


def sayable(tool: str, kind: str, annotation: Annotation) -> tuple[str, str] | None:
    """What a tool's own fields say of somebody's newest annotation; None where nothing."""
    if annotation.status != "submitted":
        says_flagged = tool == "prodigy" and annotation.status == "flagged"
        status = "flagged" if says_flagged else "skipped"
        return None if tool in ("argilla", "doccano") else (status, "")
    said = annotation.answer
    if kind == "rank":
        said = json.dumps([[n] for place in json.loads(said) for n in place], separators=(",", ":"))
    if said == "[]" and (tool, kind) != ("argilla", "spans") and tool in ("argilla", "doccano"):
        return None
    return "submitted", said


@pytest.mark.parametrize(("tool", "kind"), PAIRS)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_a_tools_own_fields_say_what_counts(tool, kind, data):
    """Spans in the tool's units included: they come back as they were."""
    labelled = replace(data.draw(labelled_examples(kind)), gold=None)
    found: list = []
    for record in map(without_field, written(tool, labelled, kind)):
        try:
            rows = [r for r in TOOLS[tool].read(record, TASKS[kind]) if isinstance(r, dict)]
        except UnfitError:
            continue
        found += [s for s in said_in(rows, kind) if s.record == "annotation"]
    counted = newest_of_each(labelled.annotations)
    if tool == "prodigy":
        last = {a.annotator: a for a in labelled.annotations}.values()
        counted = [replace(a, status="skipped") if a.status == "withdrawn" else a for a in last]
    expected = Counter(filter(None, (sayable(tool, kind, a) for a in counted)))
    canonical = Counter()
    for said in found:
        given = said.annotation.answer
        if said.annotation.status == "submitted":
            given = checked_answer(given, TASKS[kind], labelled.example, CANDIDATES)
        canonical[said.annotation.status, given] += 1
    assert canonical == expected


@pytest.mark.parametrize("tool", TOOLS)
def test_an_answer_changed_in_the_tool_is_one_more(tool):
    shown = example(1)
    given = [answer(shown, "ann", "billing"), answer(shown, "bob", "de livery")]
    task = TASKS["choose"]
    labelled = Labelled(shown.id, shown, given, [Draft.of(shown.id, "answer", "x", "m")])
    record = written(tool, labelled, "choose")[0]
    text = json.dumps(record, ensure_ascii=False)
    # The first place is the tool's own field, wherever ours stands.
    field = json.dumps(TOOLS[tool].kept(record), ensure_ascii=False)
    changed = {
        "label_studio": ('"choices": ["billing"]', '"choices": ["ό, 🙂"]'),
        "argilla": ('"value": "billing"', '"value": "ό, 🙂"'),
        "prodigy": ('"accept": ["billing"]', '"accept": ["ό, 🙂"]'),
        "doccano": ('"label": ["billing"]', '"label": ["ό, 🙂"]'),
    }[tool]
    assert text.count(changed[0]) == 1
    assert changed[0] not in field
    back = json.loads(text.replace(*changed))
    rows = list(read_record(TOOLS[tool], back, task))
    said = [s.annotation for s in said_in(rows, "choose") if s.record == "annotation"]
    kept = given if tool in ("label_studio", "argilla") else given[:1]
    assert [a.answer for a in said] == [*(a.answer for a in kept), "ό, 🙂"]
    assert said[-1].example_id == shown.id
    assert not said[-1].client_id


@settings(deadline=None)
@given(TEXTS.flatmap(lambda t: st.tuples(st.just(t), st.integers(0, len(t)))))
def test_utf16_offsets_and_back(drawn):
    text, offset = drawn
    units = len(text[:offset].encode("utf-16-le")) // 2
    assert to_utf16(text, offset) == units
    assert from_utf16(text, units) == offset


def test_offsets_that_are_no_place_are_refused():
    for text, units in (("🙂a", 1), ("🙂a", 4), ("a", -1), ("a", 2), ("", 1)):
        with pytest.raises(UnfitError, match="outside the text"):
            from_utf16(text, units)


@settings(deadline=None)
@given(TEXTS.flatmap(lambda t: st.tuples(st.just(t), st.integers(0, len(t)), st.integers(0, 9))))
def test_label_studios_spans_are_found_however_they_were_counted(drawn):
    text, start, length = drawn
    marked = text[start : start + length]
    units = [len(part.encode("utf-16-le")) // 2 for part in (text[:start], text[: start + length])]
    for counted in ([start, start + len(marked)], units):
        left, right = found_in(text, *counted, marked)
        assert text[left:right] == marked


def test_line_ends_that_a_browser_counted_as_one():
    text = "a\r\nb\r\n🙂 mark"
    seen = text.replace("\r\n", "\n")
    at = seen.index("mark")
    left, right = found_in(text, at, at + 4, "mark")
    assert text[left:right] == "mark"
    with pytest.raises(UnfitError, match="not where it says"):
        found_in(text, 0, 4, "mark")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats() | st.sampled_from(["", "a", "7"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)


def places(value, path=()) -> Iterator[tuple]:
    """The path of every value inside a record."""
    items = enumerate(value) if isinstance(value, list) else ()
    for key, inner in value.items() if isinstance(value, dict) else items:
        yield (*path, key)
        yield from places(inner, (*path, key))


@pytest.mark.parametrize(("tool", "kind"), PAIRS)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_no_record_is_too_broken_to_be_refused(tool, kind, data):
    labelled = data.draw(labelled_examples(kind))
    record = data.draw(st.sampled_from(written(tool, labelled, kind)))
    if data.draw(st.booleans()):
        record = without_field(record)
    *path, last = data.draw(st.sampled_from(list(places(record))))
    broken = record
    for key in path:
        broken = broken[key]
    broken[last] = data.draw(JSON)
    try:
        for row in read_record(TOOLS[tool], record, TASKS[kind]):
            if not isinstance(row, UnfitError):
                said_in(iter([row]), kind)
    except (UnfitError, InputError):
        pass
