"""Records in, once each. Run: pytest tests/test_collect.py"""

import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.collect import CollectConfig, batches, collect
from burnish.collect.batches import BATCH_ROWS
from burnish.collect.normalise import normalise, normalise_text
from burnish.errors import InputError, ResourceError
from burnish.project import init_project
from burnish.records import Records, read_examples, read_records
from burnish.records.formats import FORMATS
from burnish.records.pairs import PAIRS
from burnish.records.rows import SUFFIXES
from burnish.snapshot import SnapshotConfig, snapshot
from burnish.store import examples as stored
from burnish.store import open_store
from burnish.store.log import verify_log
from burnish.store.search import Query, search
from burnish.types import Conversation, Example, Message

DATA = Path(__file__).parents[1].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def write(path: Path, count: int, start: int = 0, **fields) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (
        {"prompt": f"p{n}", "completion": f"c{n}", **fields} for n in range(start, start + count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(store, tmp_path, *sources, **options):
    config = CollectConfig(tuple(map(str, sources)), rejects=tmp_path / "rejects", **options)
    return collect(config, store)


def read_all(store) -> list[Example]:
    with store.reading() as connection:
        return list(stored.read_examples(connection))


def test_the_same_file_twice_adds_nothing_and_says_so(store, tmp_path):
    path = write(tmp_path / "a.jsonl", 5000)
    first = run(store, tmp_path, path)
    assert (first.added, first.known, first.rejected) == (5000, 0, 0)
    again = run(store, tmp_path, path)
    assert (again.added, again.known) == (0, 5000)
    write(path, 5010)
    grown = run(store, tmp_path, path)
    assert (grown.added, grown.known) == (10, 5000)
    assert len(read_all(store)) == 5010
    (source,) = grown.sources
    assert (source.name, source.format) == ("a.jsonl", "prompt_completion")
    assert source.sample.conversation.prompt.messages[0].content == "p0"


@pytest.mark.data
@needs_data
def test_real_files_go_in_whole(store, tmp_path):
    names = ["alpaca_en_demo.json", "glaive_toolcall_en_demo.json", "v1_sft_demo.jsonl"]
    result = run(store, tmp_path, *(DATA / name for name in names))
    assert [s.rejected for s in result.sources] == [{}, {}, {}]
    assert [s.added + s.known for s in result.sources] == [999, 300, 500]
    read = [e for name in names for e in read_examples(DATA / name).examples]
    # Rows that are there twice, to the byte, are one example.
    assert {e.id for e in read_all(store)} == {normalise(e).id for e in read}
    assert result.added == len(read_all(store)) < len(read)


def test_what_is_known_about_the_source_goes_with_each_example(store, tmp_path):
    path = write(tmp_path / "a.jsonl", 3, user_id="u1", team=["u2", "u3", "u2"])
    known = {"licence": "MIT", "consent": "form 7"}
    assert run(store, tmp_path, path, subject="user_id", **known).sources[0].without_subject == 0
    for example in read_all(store):
        assert (example.licence, example.consent) == ("MIT", "form 7")
        assert example.subject_ids == ("u1",)
        assert example.source == "a.jsonl"
    run(store, tmp_path, path, subject="team")
    assert read_all(store)[-1].subject_ids == ("u2", "u3")


def test_a_subject_field_that_is_not_there(store, tmp_path):
    path = write(tmp_path / "a.jsonl", 3, user_id="u1")
    with pytest.raises(InputError, match=r"no field 'user'; did you mean 'user_id'\?"):
        run(store, tmp_path, path, subject="user")
    path.write_text(path.read_text() + '{"prompt": "p", "completion": "c"}\n')
    assert run(store, tmp_path, path, subject="user_id").sources[0].without_subject == 1


def test_rejects_are_counted_by_reason_and_kept(store, tmp_path):
    path = write(tmp_path / "a.jsonl", 10)
    bad = ['{"prompt": ', '{"prompt": "a", }', '{"text": "b"}', '{"prompt": "\\ud800"}', "7"]
    path.write_text(path.read_text() + "\n".join(bad))
    (source,) = run(store, tmp_path, path).sources
    assert source.added == 10
    assert sum(source.rejected.values()) == 5
    assert source.rejected["broken JSON"] == 2
    kept = [json.loads(line) for line in source.rejects.read_text().splitlines()]
    assert [row["line"] for row in kept] == [11, 12, 13, 14, 15]
    assert [row["row"] for row in kept] == [*bad[:2], {"text": "b"}, {"prompt": "\ud800"}, 7]
    assert all(row["reason"] for row in kept)
    # Mended, the file of its rejects goes.
    write(path, 10)
    assert run(store, tmp_path, path).sources[0].rejects is None
    assert list((tmp_path / "rejects").iterdir()) == []


def test_sources_of_the_same_name_keep_their_rejects_apart(store, tmp_path):
    for folder in ("a", "b"):
        path = write(tmp_path / folder / "x.jsonl", 3)
        path.write_text(path.read_text() + "{\n")
    result = run(store, tmp_path, tmp_path / "a" / "x.jsonl", tmp_path / "b" / "x.jsonl")
    assert len({source.rejects for source in result.sources}) == 2


def test_folders_and_globs(store, tmp_path):
    data = tmp_path / "data"
    write(data / "a.jsonl", 2)
    write(data / "deep" / "b.jsonl", 2, 10)
    write(data / ".hidden" / "c.jsonl", 2, 20)
    (data / "README.md").write_text("not data")
    result = run(store, tmp_path, data)
    assert [s.name for s in result.sources] == ["data/a.jsonl", "data/deep/b.jsonl"]
    assert [s.sample.source for s in result.sources] == ["data/a.jsonl", "data/deep/b.jsonl"]
    result = run(store, tmp_path, f"{data}/**/*.jsonl", data / "a.jsonl")
    assert [s.name for s in result.sources] == ["a.jsonl", "b.jsonl"]
    odd = write(data / "odd[1].jsonl", 1)
    assert run(store, tmp_path, odd).added == 1


def test_every_fault_is_named_before_anything_is_added(store, tmp_path):
    good = write(tmp_path / "good.jsonl", 2)
    (tmp_path / "odd.jsonl").write_text('{"foo": 1}\n')
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError) as caught:
        run(
            store,
            tmp_path,
            good,
            tmp_path / "odd.jsonl",
            tmp_path / "empty.csv",
            tmp_path / "no.txt",
        )
    for part in ("3 sources", "odd.jsonl: unknown format", "the file is empty", "no such file"):
        assert part in str(caught.value)
    for name, message in [("nothing", "no file here ends in"), ("*.xml", "no file matches")]:
        with pytest.raises(InputError, match=message):
            run(store, tmp_path, good, tmp_path / name)
    with pytest.raises(InputError, match="did you mean 'alpaca'"):
        run(store, tmp_path, good, as_format="alpacca")
    assert read_all(store) == []


@pytest.mark.parametrize("beside", [False, True])
def test_a_file_that_breaks_half_way_names_the_line(store, tmp_path, monkeypatch, beside):
    path = write(tmp_path / "a.jsonl", BATCH_ROWS + 1000)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0\0\0\0")
    monkeypatch.setattr(batches, "_BESIDE_BYTES", 0 if beside else 2**40)
    with pytest.raises(InputError, match=rf"a\.jsonl:{BATCH_ROWS + 1001}: a NUL byte") as caught:
        run(store, tmp_path, path)
    assert caught.value.do == "make the file again, or remove that line"
    path.write_bytes(whole)
    result = run(store, tmp_path, path)
    assert (result.added, result.known) == (1000, BATCH_ROWS)


def test_a_snapshot_is_a_source_like_any_other(tmp_path):
    project = init_project(tmp_path / "one")
    first = open_store(project.store_url)
    path = write(tmp_path / "a.jsonl", 50, user_id="u1")
    run(first, tmp_path, path, licence="MIT", subject="user_id")
    made = snapshot(SnapshotConfig(), first, project)
    second = open_store(f"sqlite:///{tmp_path}/second.db")
    assert run(second, tmp_path, made.path).added == 50
    ids = [{e.id for e in read_all(store)} for store in (first, second)]
    assert ids[0] == ids[1]
    first.close()
    second.close()


# In batches, and in a process beside.


def open_source(path: Path, **options) -> tuple[Records, CollectConfig]:
    return read_records(path), CollectConfig((str(path),), **options)


def timeless(batch: batches.Batch) -> batches.Batch:
    """The batch without the time at which it was read, which every row has."""
    rows = []
    for columns, subjects, words in batch.rows:
        at = columns.index(batch.begun_at)
        rows.append((columns[:at] + columns[at + 1 :], subjects, words))
    return replace(batch, rows=rows, begun_at="")


def test_a_process_beside_gives_the_same_batches(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", BATCH_ROWS + 10, user="\u00e9\r\n")
    path.write_text(path.read_text() + '{"prompt": \n7\n')
    # Nothing that lies about where the user works is taken for a module of ours.
    (tmp_path / "json.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    source = open_source(path, subject="user", licence="MIT")
    here = list(batches.batches_here(*source))
    monkeypatch.setattr(batches, "_BESIDE_BYTES", 0)
    beside = list(batches.read_batches(*source))
    assert [len(batch.rows) for batch in beside] == [BATCH_ROWS, 10]
    assert sum(batch.size for batch in beside) == path.stat().st_size
    for one, other in zip(here, beside, strict=True):
        assert timeless(one) == timeless(other)
    assert beside[1].reasons == {"broken JSON": 1, "a row must be a JSON object, not a int": 1}


def test_long_documents_come_in_smaller_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_BATCH_BYTES", 1_000_000)
    path = write(tmp_path / "a.jsonl", 50, text="x" * 100_000)
    sizes = [len(batch.rows) for batch in batches.read_batches(*open_source(path))]
    assert sizes == [10] * 5


def children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_a_process_beside_that_is_ended_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", 3 * BATCH_ROWS)
    monkeypatch.setattr(batches, "_BESIDE_BYTES", 0)
    before = children()
    reading = batches.read_batches(*open_source(path))
    assert len(next(reading).rows) == BATCH_ROWS
    [beside] = children() - before
    os.kill(beside, signal.SIGKILL)
    with pytest.raises(ResourceError, match="was ended"):
        list(reading)
    # Nobody listens: it ends by itself.
    reading = batches.read_batches(*open_source(path))
    next(reading)
    reading.close()
    assert children() == before


# Killed.

_PROGRAM = """
import sys
from dataclasses import replace
from pathlib import Path
from burnish.collect import CollectConfig, batches, collect
from burnish.store import open_store
source, url, rejects, beside = sys.argv[1:]
if beside == "beside":
    batches._BESIDE_BYTES = 0
else:
    batches.BATCH_ROWS = 2000
collect(CollectConfig((source,), rejects=Path(rejects)), open_store(url))
"""


def count(store) -> int:
    with store.reading() as connection:
        return stored.count_examples(connection)


def ended(group: int) -> bool:
    """Whether no process of the group is left, in ten seconds at most."""
    for _ in range(1000):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("beside", "batch", "kills"), [("here", 2000, (1, 4001)), ("beside", BATCH_ROWS, (1,))]
)
def test_killed_half_way_nothing_is_lost_or_doubled(
    store, tmp_path, monkeypatch, beside, batch, kills
):
    total = (len(kills) + 2) * batch
    path = write(tmp_path / "big.jsonl", total)
    path.write_text(path.read_text() + "{broken\n")
    url = store.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", _PROGRAM, str(path), url, str(tmp_path / "no"), beside]
    for at_least in kills:
        process = subprocess.Popen(command, start_new_session=True)
        deadline = time.monotonic() + 60
        while count(store) < at_least and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert ended(process.pid)
        assert at_least <= count(store) < total
        assert count(store) % batch == 0
    before = count(store)
    monkeypatch.setattr(batches, "BATCH_ROWS", batch)
    result = run(store, tmp_path, path)
    assert (result.added, result.known) == (total - before, before)
    assert len(list((tmp_path / "rejects").iterdir())) == 1
    prompts = [e.conversation.messages[0].content for e in read_all(store)]
    assert prompts == [f"p{n}" for n in range(total)]
    with store.reading() as connection:
        # One entry a batch, each in the transaction of its batch: none without the other.
        assert verify_log(connection).entries == total // batch
        page = search(connection, Query("-nothing", source="big.jsonl", limit=total))
    assert [found.seq for found in page.rows] == list(range(1, total + 1))


# Over HTTP.


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "/a.jsonl")
            self.end_headers()
        elif self.path.startswith("/api"):
            body = b"prompt,completion\na,b\n"
            self.send_response(200)
            self.send_header("Content-Type", "text/csv; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif self.path.startswith("/cut"):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b'{"prompt": "a"}\n')
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "www"
    write(folder / "a.jsonl", 300)
    serve = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *a: _Handler(*a, directory=str(folder))
    )
    thread = threading.Thread(target=serve.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serve.server_port}"
    serve.shutdown()
    thread.join()
    serve.server_close()


def test_urls_are_downloaded(store, tmp_path, server):
    private = server.replace("//", "//user:secret@")
    result = run(store, tmp_path, f"{private}/a.jsonl?token=secret", f"{server}/api/rows")
    assert [(s.name, s.added) for s in result.sources] == [
        (f"{server}/a.jsonl", 300),
        (f"{server}/api/rows", 1),
    ]
    assert {e.source for e in read_all(store)} == {f"{server}/a.jsonl", f"{server}/api/rows"}
    assert run(store, tmp_path, f"{server}/a.jsonl").added == 0
    assert run(store, tmp_path, f"{server}/moved.jsonl").added == 300


def test_a_url_that_gives_nothing_is_named(store, tmp_path, server):
    cases = {
        f"{server}/missing.jsonl": "the server answers 404",
        f"{server}/cut.jsonl": "cannot be downloaded",
        "http://127.0.0.1:9/a.jsonl": "cannot be downloaded",
        "http://[bad/a.jsonl": "cannot be downloaded",
    }
    for url, message in cases.items():
        with pytest.raises(InputError, match=message):
            run(store, tmp_path, url)
    assert read_all(store) == []


# Normalisation.


def test_normalisation_keeps_the_text_but_for_its_spelling():
    assert normalise_text("cafe\u0301 \r\n\tx² ½ ﬁ\x00\x07\x85\rend  ") == "café \n\tx² ½ ﬁ\nend  "
    assert normalise_text("👩\u200d🔬 \u202eabc") == "👩\u200d🔬 \u202eabc"


@settings(deadline=None)
@given(st.text())
def test_normalising_twice_changes_nothing_more(text):
    once = normalise_text(text)
    assert normalise_text(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not {c for c in once if unicodedata.category(c) == "Cc"} - {"\n", "\t"}


def test_normalisation_can_be_left_out(store, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        json.dumps({"prompt": "e\u0301", "completion": "a\r\nb", "note": "\x01"}) + "\n"
    )
    run(store, tmp_path, path)
    run(store, tmp_path, path, normalise=False)
    contents = [[m.content for m in e.conversation.messages] for e in read_all(store)]
    assert contents == [["é", "a\nb"], ["e\u0301", "a\r\nb"]]
    assert [e.metadata for e in read_all(store)] == [{"note": ""}, {"note": "\x01"}]


def test_a_clean_example_is_not_copied():
    example = Example(Conversation((Message("user", "é\n"),)), "a", {"n": 1, "t": ["x"]})
    assert normalise(example) is example


# The documentation.

DOCS = Path(__file__).parents[1] / "docs"


def documented_formats() -> dict[str, dict]:
    row = re.compile(r"^\| `(\w+)` \| `(\{.*\})` \|", re.MULTILINE)
    text = (DOCS / "collect.md").read_text(encoding="utf-8")
    return {name: json.loads(example) for name, example in row.findall(text)}


def test_the_documented_formats_are_the_formats():
    assert list(documented_formats()) == [f.name for f in FORMATS]


@pytest.mark.parametrize(("name", "row"), documented_formats().items())
def test_each_documented_example_is_recognised(tmp_path, name, row):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    read = read_examples(path, as_format="prompt" if name == "prompt" else None)
    assert read.format == name
    conversation = read.sample.conversation
    if name == "text":
        assert conversation.raw
        assert conversation.answer.content == row["text"]
        return
    asked = "Add the numbers.\n\n2, 2" if name == "alpaca" else "2+2?"
    assert conversation.prompt.messages[-1] == Message("user", asked)
    waits = name in ("label_studio", "argilla", "prodigy", "doccano", "labels", "prompt")
    assert (conversation.answer.content if conversation.answer else None) == (
        None if waits else "4"
    )
    assert conversation.raw == (name in ("burnish", "prompt_completion"))


def test_documented_columns_and_endings_are_the_ones():
    text = (DOCS / "collect.md").read_text(encoding="utf-8")
    for suffix in SUFFIXES:
        assert f"`{suffix}`" in text
    for prompt, completion in PAIRS:
        assert f"`{prompt}`/`{completion}`" in text
