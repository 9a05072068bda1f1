"""Files into examples. Run: pytest tests/test_records.py"""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from burnish.errors import InputError
from burnish.hashing import text_hash
from burnish.project import init_project
from burnish.records import read_examples, read_records
from burnish.records.fingerprint import conversation_fingerprint, prompt_fingerprint
from burnish.records.formats import FORMATS, example_of, format_named
from burnish.records.messages import UnfitError
from burnish.snapshot import SnapshotConfig, snapshot
from burnish.store import open_store
from burnish.store.examples import add_examples
from burnish.types import Conversation, Example, Message, Span, ToolCall

DATA = Path(__file__).parents[1].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_one(tmp_path: Path, row: dict, as_format: str | None = None):
    read = read_examples(write(tmp_path / "rows.jsonl", [row]), as_format=as_format)
    assert not read.rejects
    return read.format, read.examples[0]


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, **fields) -> Message:
    return Message("assistant", text, **fields)


# The real files.


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("name", "format_", "rows", "raw"),
    [
        ("alpaca_en_demo.json", "alpaca", 999, False),
        ("glaive_toolcall_en_demo.json", "sharegpt", 300, False),
        ("v1_sft_demo.jsonl", "messages", 500, False),
        ("gsm8k_train.jsonl", "prompt_completion", 7473, True),
        ("c4_demo.jsonl", "text", 300, True),
        ("xstest_prompts.csv", "prompt_completion", 450, True),
        ("ifeval_input_data.jsonl", "prompt_completion", 541, True),
        ("wiki_demo.txt", "text", 30, True),
    ],
)
def test_real_files_are_recognised_and_read_whole(name, format_, rows, raw):
    read = read_examples(DATA / name)
    assert (read.format, len(read.examples), read.rejects) == (format_, rows, [])
    assert all(e.conversation.raw == raw and e.source == name for e in read.examples)
    assert read.sample == read.examples[0]


@pytest.mark.data
@needs_data
def test_real_rows_keep_their_content():
    glaive = read_examples(DATA / "glaive_toolcall_en_demo.json").examples
    calls = [c for e in glaive for m in e.conversation.messages for c in m.tool_calls]
    assert len(calls) == 211
    assert all(isinstance(json.loads(call.arguments), dict) for call in calls)
    tools = json.loads(glaive[0].conversation.tools)
    assert tools[0]["type"] == "function"
    assert tools[0]["function"]["name"] == "search_recipes"
    xstest = read_examples(DATA / "xstest_prompts.csv").examples
    assert xstest[0].conversation.answer is None
    assert xstest[0].metadata["label"] == "safe"
    alpaca = json.loads((DATA / "alpaca_en_demo.json").read_text())
    read = read_examples(DATA / "alpaca_en_demo.json").examples
    for row, example in zip(alpaca, read, strict=True):
        prompt = row["instruction"] + ("\n\n" + row["input"] if row["input"] else "")
        assert example.conversation.messages == (user(prompt), assistant(row["output"]))


# Formats, one by one.


def test_messages_with_parts_tools_and_weights(tmp_path):
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    row = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "1"}, {"type": "text", "value": "+1"}],
            },
            {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0},
            {"role": "tool", "content": "2", "tool_call_id": "c1"},
            {"role": "assistant", "content": "2", "loss_weight": 0.5},
            {"role": "user", "content": "and?", "loss": True},
            {"role": "assistant", "content": "no more", "weight": 1},
        ],
        "tools": [{"type": "function", "function": {"name": "add"}}],
        "id": 7,
    }
    format_, example = read_one(tmp_path, row)
    assert format_ == "messages"
    assert example.conversation.messages == (
        Message("system", "Be brief."),
        user("1+1"),
        assistant("", tool_calls=(ToolCall("add", '{"a": 1}', "c1"),), weight=0.0),
        Message("tool", "2", tool_call_id="c1"),
        assistant("2", weight=0.5),
        Message("user", "and?", weight=1.0),
        assistant("no more"),
    )
    assert json.loads(example.conversation.tools) == row["tools"]
    assert example.metadata == {"id": 7}


# Spans with loss weights of their own.

SPANS = (Span(0, 2, 0.0), Span(4, 7, 0.5))


def spanned_row(*spans: dict) -> dict:
    turn = {"role": "assistant", "content": "no, yes", "spans": list(spans)}
    return {"messages": [{"role": "user", "content": "Go"}, turn]}


def test_spans_are_read_and_put_in_order(tmp_path):
    row = spanned_row(*({"start": s.start, "end": s.end, "weight": s.weight} for s in SPANS[::-1]))
    _, example = read_one(tmp_path, row)
    assert example.conversation.messages[1] == assistant("no, yes", spans=SPANS)
    answer = row["messages"][1]
    turns = [
        {"from": "human", "value": "Go"},
        {"from": "gpt", "value": answer["content"], "spans": answer["spans"]},
    ]
    assert read_one(tmp_path, {"conversations": turns})[1].conversation == example.conversation


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ([{"start": 5, "end": 8, "weight": 1}], "outside its content: 5 to 8 of 7"),
        ([{"start": -1, "end": 3, "weight": 1}], "outside its content"),
        ([{"start": 3, "end": 3, "weight": 1}], "outside its content"),
        ([{"start": 0.0, "end": 3, "weight": 1}], "no whole number"),
        ([{"start": True, "end": 3, "weight": 1}], "no whole number"),
        ([{"start": 0, "weight": 1}], "no whole number"),
        ([{"start": 0, "end": 3}], "a loss weight must be a number"),
        ([{"start": 0, "end": 3, "weight": -1}], "0 or more: -1"),
        (
            [{"start": 2, "end": 5, "weight": 1}, {"start": 0, "end": 3, "weight": 0}],
            "two spans overlap: 0 to 3 and 2 to 5",
        ),
        (["0-3"], "not a list of {start, end, weight}"),
    ],
)
def test_spans_that_do_not_fit_are_refused(spans, reason):
    with pytest.raises(UnfitError, match=re.escape(reason)):
        example_of(format_named("messages"), spanned_row(*spans), "s")


def test_spans_change_the_hash_only_where_there_are_any():
    plain = Conversation((user("Go"), assistant("no, yes")))
    spanned = Conversation((user("Go"), assistant("no, yes", spans=SPANS)))
    assert "spans" not in plain.canonical
    assert spanned.hash != plain.hash
    assert Conversation.from_json(json.loads(spanned.canonical)) == spanned
    # Known from before there were spans: the ids of what was collected must not change.
    assert plain.hash == text_hash(
        '{"messages":[{"content":"Go","role":"user"},{"content":"no, yes","role":"assistant"}]}'
    )


def test_spans_survive_store_and_snapshot(tmp_path):
    example = Example(Conversation((user("Go"), assistant("no, yes", spans=SPANS))), "s")
    project = init_project(tmp_path / "project")
    store = open_store(project.store_url)
    with store.writing() as connection:
        add_examples(connection, [example], actor="test")
    made = snapshot(SnapshotConfig(validation=0, test=0), store, project)
    store.close()
    [read] = read_examples(made.path, split="train").examples
    assert read.conversation == example.conversation


TEXTS = st.text("ae\u0301\r\n é", max_size=12)


@given(TEXTS, st.sets(st.integers(0, 12), max_size=6))
def test_a_rewritten_message_keeps_its_spans_on_their_words(text, edges):
    inside = sorted(edge for edge in edges if edge <= len(text))
    spans = tuple(Span(a, b, 0.5) for a, b in zip(inside[::2], inside[1::2], strict=False))
    message = assistant(text, spans=spans)
    doubled = message.rewrite(lambda part: part * 2)
    assert doubled.spans == tuple(Span(2 * s.start, 2 * s.end, 0.5) for s in spans) or not spans
    unchanged = message.rewrite(lambda part: part)
    assert unchanged == message
    without = message.rewrite(lambda part: part.replace("a", ""))
    assert without.content == text.replace("a", "")
    kept = [text[s.start : s.end].replace("a", "") for s in spans]
    assert [without.content[s.start : s.end] for s in without.spans] == list(filter(None, kept))


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [("prompt", "completion"), ("question", "answer"), ("prompt", "response"), ("input", "output")],
)
def test_pairs_of_strings_are_raw(tmp_path, prompt, completion):
    format_, example = read_one(tmp_path, {prompt: "a", completion: "b", "loss_weight": 2})
    assert format_ == "prompt_completion"
    assert example.conversation == Conversation((user("a"), assistant("b")), raw=True)
    assert example.weight == 2.0


def test_numbers_as_labels_become_text(tmp_path):
    _, example = read_one(tmp_path, {"text": "a", "label": 3})
    assert example.conversation.answer == assistant("3")


def test_pairs_of_message_lists_are_a_chat(tmp_path):
    row = {
        "prompt": [{"role": "user", "content": "a"}],
        "completion": [{"role": "assistant", "content": "b"}],
    }
    assert read_one(tmp_path, row)[1].conversation == Conversation((user("a"), assistant("b")))
    row["completion"] = "b"
    assert read_one(tmp_path, row)[1].conversation == Conversation((user("a"), assistant("b")))


def test_a_prompt_alone_waits_for_its_answer(tmp_path):
    assert read_one(tmp_path, {"prompt": "a"})[1].conversation == Conversation(
        (user("a"),), raw=True
    )
    text = {"text": "a", "intent": "x"}
    _, example = read_one(tmp_path, text, as_format="prompt")
    assert example.conversation == Conversation((user("a"),))
    assert example.metadata == {"intent": "x"}
    assert read_one(tmp_path, text)[0] == "text"


def test_alpaca_with_history_and_system(tmp_path):
    row = {
        "instruction": "Translate",
        "input": "chat",
        "output": "cat",
        "system": "s",
        "history": [["a", "b"]],
        "category": "x",
    }
    format_, example = read_one(tmp_path, row)
    assert format_ == "alpaca"
    assert example.conversation.messages == (
        Message("system", "s"),
        user("a"),
        assistant("b"),
        user("Translate\n\nchat"),
        assistant("cat"),
    )
    assert example.metadata == {"category": "x"}
    dolly = {"instruction": "Translate", "context": "chat", "response": "cat", "category": "x"}
    assert read_one(tmp_path, dolly)[1].conversation.messages == example.conversation.messages[3:]


def test_sharegpt_with_tools(tmp_path):
    row = {
        "conversations": [
            {"from": "human", "value": "hi"},
            {"from": "function_call", "value": '[{"name": "f", "arguments": {}}, {"name": "g"}]'},
            {"from": "observation", "value": "1"},
            {"from": "gpt", "value": "bye"},
        ],
        "system": "s",
        "tools": '[{"name": "f"}]',
    }
    format_, example = read_one(tmp_path, row)
    assert format_ == "sharegpt"
    assert example.conversation.messages == (
        Message("system", "s"),
        user("hi"),
        assistant("", tool_calls=(ToolCall("f", "{}"), ToolCall("g", "{}"))),
        Message("tool", "1"),
        assistant("bye"),
    )


SECRET = "what somebody said"
KEPT = {"rows": [{"answer": SECRET, "annotator": "ann"}]}
TEXTAREA = {"from_name": "a", "to_name": "t", "type": "textarea", "value": {"text": [SECRET]}}
SAID = {"id": 5, "completed_by": {"email": SECRET}, "result": [TEXTAREA], "ground_truth": True}
PRODIGY = {"text": "q", "_input_hash": -1, "_task_hash": 2, "meta": {"n": 1}, "answer": "accept"}
LABELS = {"example_id": "e", "prompt": "q", "task": "answer", "annotator": SECRET, "n": 1}
EXPORTS = [
    (
        "label_studio",
        {"id": 1, "data": {"text": "q", "n": 1}, "annotations": [SAID], "drafts": [SAID]}
        | {"predictions": [SAID], "meta": {"n": 1, "burnish": KEPT}, "updated_by": [SECRET]},
        {"id": 1, "data": {"text": "q", "n": 1}, "meta": {"n": 1}},
    ),
    ("label_studio", {"data": {"q": "q"}, "predictions": []}, {"data": {"q": "q"}}),
    (
        "argilla",
        {"id": "r", "fields": {"text": "q"}, "metadata": {"n": 1, "burnish": json.dumps(KEPT)}}
        | {"responses": {"l": [{"value": SECRET, "user_id": SECRET}]}, "status": "completed"}
        | {"suggestions": {"l": {"value": SECRET, "agent": SECRET}}},
        {"id": "r", "fields": {"text": "q"}, "metadata": {"n": 1}},
    ),
    ("prodigy", PRODIGY | {"label": SECRET, "_annotator_id": SECRET}, {"meta": {"n": 1}}),
    ("prodigy", PRODIGY | {"my_field": SECRET, "burnish": KEPT}, {"meta": {"n": 1}}),
    (
        "prodigy",
        PRODIGY | {"options": [{"id": 1, "text": "a"}], "accept": [1], "user_input": SECRET},
        {"meta": {"n": 1}, "options": [{"id": 1, "text": "a"}]},
    ),
    ("doccano", {"id": 1, "text": "q", "label": [SECRET], "n": 1}, {"id": 1, "n": 1}),
    (
        "doccano",
        {"text": "q", "label": [[0, 1, SECRET]], "Comments": [SECRET], "burnish": KEPT}
        | {"annotator": SECRET, "entities": [SECRET], "cats": [SECRET]},
        {},
    ),
    ("labels", LABELS | {"answer": SECRET, "client_id": SECRET}, {"n": 1}),
]


@pytest.mark.parametrize(("format_", "row", "metadata"), EXPORTS)
def test_of_files_of_labels_only_the_texts_are_examples(tmp_path, format_, row, metadata):
    recognised, example = read_one(tmp_path, row)
    assert recognised == format_
    assert example.conversation.messages == (user("q"),)
    assert example.metadata == metadata
    assert SECRET not in str(example)


@pytest.mark.parametrize("turns", [TURNS := [{"role": "user", "content": "q"}], json.dumps(TURNS)])
def test_prompts_of_several_turns_stay_as_they_were(tmp_path, turns):
    """As label import finds them again."""
    first = {"role": "system", "content": "s"}
    turns = json.dumps([first, *TURNS]) if isinstance(turns, str) else [first, *TURNS]
    expected = (Message("system", "s"), user("q"))
    row = {"prompt": turns, "answer": "a", "annotator": "ann"}
    assert read_one(tmp_path, row)[1].conversation.messages == expected
    if isinstance(turns, list):
        _, example = read_one(tmp_path, PRODIGY | {"messages": turns})
        assert example.conversation.messages == expected


def test_our_own_export_reads_back(tmp_path):
    conversation = Conversation((user("a"), assistant("b", weight=0.5)), raw=True)
    row = {
        "conversation": json.dumps(conversation.to_json()),
        "weight": 2.0,
        "source": "first.csv",
        "metadata": '{"k": 1}',
        "subject_ids": ["p1"],
        "licence": "MIT",
    }
    format_, example = read_one(tmp_path, row)
    assert format_ == "burnish"
    assert (example.conversation, example.weight, example.source) == (
        conversation,
        2.0,
        "first.csv",
    )
    assert (example.metadata, example.subject_ids, example.licence) == ({"k": 1}, ("p1",), "MIT")


# The same rows in every container.

ROWS = [
    {"prompt": f'{"x" * n} "quoted", and\na second line; ünï', "completion": str(n), "id": f"r{n}"}
    for n in range(1, 250)
]


def containers(folder: Path) -> list[Path]:
    def text(name: str, content: str, encoding: str = "utf-8") -> Path:
        path = folder / name
        path.write_text(content, encoding=encoding)
        return path

    def table(delimiter: str) -> str:
        def cell(value: str) -> str:
            return '"' + value.replace('"', '""') + '"'

        lines = [delimiter.join(ROWS[0])]
        lines += [delimiter.join(map(cell, row.values())) for row in ROWS]
        return "\n".join(lines) + "\n"

    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    parquet.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
    return [
        folder / "a.parquet",
        text("a.jsonl", lines),
        text("bom.jsonl", lines, "utf-8-sig"),
        text("crlf.jsonl", lines.replace("\n", "\r\n")),
        text("lines.json", lines),
        text("a.json", json.dumps(ROWS)),
        text("pretty.json", json.dumps(ROWS, indent=2)),
        text("list.jsonl", json.dumps(ROWS, indent=1)),
        text("object.json", json.dumps({"version": 1, "data": ROWS}, indent=2)),
        text("flat_object.json", json.dumps({"version": 1, "data": ROWS})),
        text("a.csv", table(",")),
        text("bom.csv", table(","), "utf-8-sig"),
        text("semicolons.csv", table(";")),
        text("a.tsv", table("\t")),
    ]


def test_every_container_gives_the_same_examples(tmp_path):
    hashes = set()
    for path in containers(tmp_path):
        read = read_examples(path)
        assert not read.rejects, path
        assert [e.metadata["id"] for e in read.examples] == [row["id"] for row in ROWS], path
        hashes.add(read.hash)
    assert len(hashes) == 1


def test_reading_twice_gives_the_same_and_counts_every_byte(tmp_path):
    for path in containers(tmp_path):
        records = read_records(path)
        seen = []
        assert list(records.read(seen.append)) == list(records)
        assert abs(sum(seen) - records.size) <= len(ROWS), path


def test_a_single_conversation_in_a_json_file(tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}]}, indent=1))
    assert read_examples(path).examples[0].conversation == Conversation((user("a"),))
    path.write_text('{"prompt": "a", "tags": ["x"]}')
    assert read_examples(path).examples[0].metadata == {"tags": ["x"]}


def test_a_text_file_is_a_text_per_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\n  \ntwo \n")
    contents = [e.conversation.messages for e in read_examples(path).examples]
    assert contents == [(assistant("one"),), (assistant("two "),)]


def test_lists_inside_csv_cells(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('messages\n"[{""role"": ""user"", ""content"": ""a""}]"\n')
    assert read_examples(path).examples[0].conversation == Conversation((user("a"),))


def test_a_json_list_longer_than_a_block_names_lines(tmp_path):
    rows = [{"prompt": "x" * 3000, "completion": str(n)} for n in range(100)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps([*rows[:70], "stray", *rows[70:]], indent=1))
    read = read_examples(path)
    assert [e.conversation.answer.content for e in read.examples] == [str(n) for n in range(100)]
    assert [(r.line, r.row) for r in read.rejects] == [(2 + 70 * 4, "stray")]


# What is broken.


def refusal(path: Path, **options) -> str:
    with pytest.raises(InputError) as caught:
        read_examples(path, **options)
    return str(caught.value)


def test_broken_files_are_refused_with_their_place(tmp_path):
    good = b'{"prompt": "a", "completion": "b"}\n'
    broken = {
        "empty.jsonl": (b"", "the file is empty"),
        "blank.jsonl": (b" \n\n", "the file is empty"),
        "latin1.jsonl": (good + '{"prompt": "é"}\n'.encode("latin-1"), "latin1.jsonl:2: byte 0xe9"),
        "utf16.jsonl": (good.decode().encode("utf-16"), "UTF-16"),
        "nul.jsonl": (good * 2 + b"\0\0\0", "nul.jsonl:3: a NUL byte"),
        "cut.json": (b'[\n{"prompt": "a"},\n{"pro', "cut.json:3: broken JSON"),
        "comma.json": (b'[\n{"prompt": "a"}\n{"prompt": "b"}]', "comma.json:3: broken JSON: ','"),
        "open.json": (b'[{"prompt": "a"}\n', "the file ends"),
        "after.json": (b'[{"prompt": "a"}] x', "something follows"),
        "deep.json": (b"[" * 100_000, "deep.json:1: broken JSON"),
        "object.json": (b'{\n"prompt": \n}', "object.json:3: broken JSON"),
        "number.json": (b"17", "no rows to be found"),
        "two_lists.json": (b'{"a": [{}],\n "b": [{}]}', "2 lists: a, b"),
        "none.json": (b"[]", "has no rows"),
        "header.csv": (b"prompt,completion\n", "has no rows"),
        "twice.csv": (b"a,a\n1,2\n", "two columns have the same name"),
        "quote.csv": (b'prompt,completion\na,b\n"c,d\ne,f\n', "quote.csv:3: broken CSV"),
        "broken.parquet": (b"PAR1 is not enough", "cannot be read as Parquet"),
        "a.docx": (b"PK", "'.docx' cannot be read"),
        "all.jsonl": (b"{\n" * 3, "all.jsonl:1: none of the first 3 rows fits; this one: broken"),
    }
    for name, (content, message) in broken.items():
        (tmp_path / name).write_bytes(content)
        assert message in refusal(tmp_path / name), name
    assert "no such file" in refusal(tmp_path / "missing.jsonl")
    assert "is a folder" in refusal(tmp_path)


def test_broken_rows_are_rejects_with_line_and_reason(tmp_path):
    rows = [
        '{"messages": [{"role": "user", "content": "a"}]}',
        '{"messages": [{"role": "user", "content": "a"}',
        "[1, 2]",
        '{"messages": [{"role": "usr", "content": "a"}]}',
        '{"messages": []}',
        '{"text": "another format"}',
        '{"messages": [{"role": "user", "content": "\\ud83d"}]}',
        '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}',
        '{"messages": [{"role": "user", "content": null}]}',
        '{"messages": [{"role": "user", "content": "a", "weight": -1}]}',
        '{"messages": [{"role": "user", "content": "a"}], "loss_weight": NaN}',
        '{"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "x"}]}]}',
    ]
    reasons = [
        "broken JSON",
        "must be a JSON object, not a list",
        "unknown role: 'usr'",
        "empty list",
        "no column messages",
        "surrogate",
        "'image_url'",
        "'content' is missing",
        "0 or more: -1",
        "0 or more: nan",
        "arguments are no JSON object",
    ]
    path = tmp_path / "a.jsonl"
    # The first rows decide the format, and more than half of them must fit.
    path.write_text("\n".join([rows[0]] * 20 + rows[1:]))
    read = read_examples(path)
    assert len(read.examples) == 20
    assert [r.line for r in read.rejects] == list(range(21, 32))
    for reject, reason in zip(read.rejects, reasons, strict=True):
        assert reason in reject.reason
    assert read.rejects[0].row == rows[1]


def test_csv_rows_with_too_few_cells_are_rejects(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('prompt,completion\na,b\n"c\nd"\n\ne,\n')
    read = read_examples(path)
    assert [(r.line, r.row) for r in read.rejects] == [(3, ["c\nd"])]
    assert [e.conversation.answer for e in read.examples] == [assistant("b"), None]


def test_unknown_columns_name_the_nearest_format(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"instructions": "a", "output": "b"}])
    message = refusal(path)
    assert "the columns are 'instructions', 'output'" in message
    assert (
        "nearest format is 'alpaca', but it lacks 'instruction' (there is 'instructions')"
        in message
    )
    assert "the columns are 'foo'; none of them is a format's" in refusal(write(path, [{"foo": 1}]))
    assert "'messages' is not a list of turns" in refusal(write(path, [{"messages": 3}]))
    assert "did you mean 'sharegpt'" in refusal(path, as_format="shargpt")
    assert "no column instruction" in refusal(path, as_format="alpaca")


@pytest.mark.data
@needs_data
def test_real_files_of_no_known_form_are_refused():
    assert "'full_text', 'masked'" in refusal(DATA / "pii_generated_large.json")
    assert "unknown format: the columns are 'oos_val', 'val'" in refusal(
        DATA / "clinc150_full.json"
    )


COLUMNS = sorted({column for f in FORMATS for columns in f.columns for column in columns})
KEYS = st.sampled_from(["role", "content", "from", "value", "result", "type", "text", "name", "id"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*COLUMNS, "history", "tools", "options"]), VALUES))
def test_any_row_is_an_example_or_refused_with_a_reason(row):
    for format_ in FORMATS:
        if format_.has_columns(row) and format_.is_shape(row):
            try:
                conversation = example_of(format_, row, "fuzz").conversation
            except UnfitError:
                continue
            assert Conversation.from_json(conversation.to_json()) == conversation


def test_every_format_has_a_name_of_its_own():
    assert [format_named(f.name) for f in FORMATS] == list(FORMATS)


# Fingerprints.


def test_fingerprints_are_blind_to_case_space_and_width_only():
    def prompt(text: str, **fields) -> str:
        return prompt_fingerprint(Conversation((user(text), assistant("x")), **fields))

    assert prompt("What is  ２?\n") == prompt("what IS 2?") == prompt("what is 2?", raw=True)
    assert prompt("ﬁne") == prompt("FINE")
    assert prompt("a b") != prompt("ab")
    assert prompt("a") != prompt("a", tools="[]")
    split = Conversation((user("a"), user("b"), assistant("x")))
    assert prompt_fingerprint(split) != prompt("a b")
    answers = [Conversation((user("a"), assistant(text))) for text in ("Yes", "yes ", "no")]
    whole = [conversation_fingerprint(c) for c in answers]
    assert whole[0] == whole[1] != whole[2]
    assert len({prompt_fingerprint(c) for c in answers}) == 1


def test_plain_texts_are_not_one_prompt():
    texts = [Conversation((assistant(text),), raw=True) for text in ("one", "two")]
    assert prompt_fingerprint(texts[0]) != prompt_fingerprint(texts[1])
