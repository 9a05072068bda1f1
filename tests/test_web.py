"""The studio over a real socket, and in a real browser where Chromium is installed.

Run: pytest tests/test_web.py
"""

import contextlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import uvicorn
from sqlalchemy import event

from burnish.errors import ConfigError, ResourceError
from burnish.files import replaced_folder
from burnish.hashing import content_hash
from burnish.label.queue import submit
from burnish.project import init_project, open_project, seal_artefact
from burnish.store import open_store
from burnish.store.annotations import read_annotations, read_guidelines
from burnish.store.answers import read_resolutions
from burnish.store.examples import add_examples
from burnish.store.findings import read_exclusions
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example, Message
from burnish.web import create_app, studio

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


class Studio:
    """A studio in a thread that can be stopped and started again on the same port."""

    def __init__(self, root: Path, *, label: str = "", examples: int = 5) -> None:
        self.project = init_project(root)
        (root / "burnish.toml").write_text(f'[project]\nname = "Tickets"\n\n[label]\n{label}\n')
        self.project = open_project(root)
        self.store = open_store(self.project.store_url)
        self.examples = [example(n) for n in range(examples)]
        self.add(*self.examples)
        self.port = 0
        self.start()

    def add(self, *examples: Example) -> None:
        with self.store.writing() as connection:
            add_examples(connection, examples, actor="test")

    def start(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        app = create_app(self.project, self.store)
        config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()
        self.listener.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def client(self, annotator: str | None = "ann") -> Iterator[httpx.Client]:
        headers = {"accept": "text/html"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60) as client:
            if annotator is not None:
                assert client.post("/annotator", data={"name": annotator}).status_code == 303
            yield client

    def annotations(self) -> list[Annotation]:
        with self.store.reading() as connection:
            return list(read_annotations(connection))


def example(number: int, text: str | None = None) -> Example:
    return Example(Conversation((Message("user", text or f"question {number}"),)), source="test")


@pytest.fixture
def start(tmp_path):
    """Starts studios and stops them at the end."""
    with contextlib.ExitStack() as stack:

        def start_one(**settings) -> Studio:
            one = Studio(tmp_path / "project", **settings)
            stack.callback(one.store.close)
            stack.callback(one.stop)
            return one

        yield start_one


def answer_for(example_id: str, client_id: str, **fields) -> dict:
    return {
        "client_id": client_id,
        "example_id": example_id,
        "answer": "yes",
        "status": "submitted",
        **fields,
    }


# Pages


PAGES = ["/", "/label", "/review", "/artefacts"]


def test_pages_answer_in_html_and_json_with_strict_headers(start):
    one = start()
    with one.client() as client:
        for page in PAGES:
            html = client.get(page)
            assert html.status_code == 200
            assert html.headers["content-type"] == "text/html; charset=utf-8"
            policy = html.headers["content-security-policy"]
            assert policy.startswith("default-src 'self';")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert html.headers["x-content-type-options"] == "nosniff"
            as_json = client.get("/.json" if page == "/" else f"{page}.json")
            assert as_json.headers["content-type"] == "application/json"
            as_json.json()


def test_pages_have_nothing_inline_and_nothing_from_afar(start):
    one = start(label='choices = ["yes", "no"]\noverlap = 2')
    for person, text in (("ann", "yes"), ("bob", "no")):
        sent = Annotation(one.examples[0].id, "answer", text, person, f"by {person}", seconds=3)
        submit(one.store, Task(), sent, now=NOW)
    make_artefacts(one)
    with one.client() as client:
        pages = [*PAGES, "/annotator", "/nothing", f"/artefacts/{one.project.artefacts()[0].id}"]
        for page in pages:
            html = client.get(page).text
            assert "<main" in html
            assert not re.search(r"<script(?! type=\"module\" src=\"/static/)", html), page
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=", html), page
            assert not re.search(r"(src|href)=\"(https?:)?//", html), page
        for asset in re.findall(r"(?:src|href)=\"(/static/[^\"]+)", client.get("/label").text):
            assert client.get(asset).status_code == 200


def test_every_control_has_a_name(start):
    one = start(label='choices = ["yes", "no"]')
    submit_two_answers(one, Task(kind="choose", choices=("yes", "no")))
    with one.client() as client:
        for page in ("/label", "/review", "/annotator"):
            html = client.get(page).text
            labelled = set(re.findall(r"<label[^>]* for=\"([^\"]+)\"", html))
            for tag in re.findall(r"<(?:input|textarea|select)\b[^>]*>", html):
                named = re.search(r"type=\"(hidden|radio)\"|aria-label=", tag)
                id_ = re.search(r"\bid=\"([^\"]+)\"", tag)
                assert named or (id_ and id_[1] in labelled), tag
            assert '<html lang="en">' in html


def test_what_a_record_says_is_text(start, tmp_path):
    evil = "<script>alert(1)</script>"
    one = start(examples=0, label=f"choices = ['{evil}', '\" onclick=\"x']\noverlap = 2")
    (one.project.root / "guidelines.md").write_text(
        f"{evil}\n\n[a](javascript:alert(1)) <img src=x onerror=alert(1)> **bold**\n"
    )
    poisoned = Example(
        Conversation((Message("system", evil), Message("user", evil), Message("assistant", evil))),
        source=evil,
        metadata={evil: evil},
    )
    one.add(poisoned)
    for person, text in ((f"{evil[:8]}a", evil), ("bob", '" onclick="x')):
        submit(
            one.store,
            Task(overlap=2),
            Annotation(poisoned.id, "answer", text, person, person),
            now=NOW,
        )
    with one.client(annotator="<b>ann</b>") as client:
        for page in PAGES:
            html = client.get(page).text
            assert evil not in html
            assert "<b>ann</b>" not in html
            assert not re.search(r"<img src=x|href=\"javascript:|\" onclick=\"x", html)
        guidelines = client.get("/label").text
        assert "<strong>bold</strong>" in guidelines or "Nothing left" in guidelines


def test_guidelines_are_markdown_and_kept_by_version(start):
    one = start()
    (one.project.root / "guidelines.md").write_text("# Rules\n\nBe **kind**.\n")
    with one.client() as client:
        assert "<strong>kind</strong>" in client.get("/label").text
        data = client.get("/label.json").json()
        version = data["guidelines"]["version"]
        sent = answer_for(data["example"]["id"], "1", guideline_version=version)
        assert client.post("/label", json=sent).status_code == 201
    assert (
        one.annotations()[0].guideline_version
        == version
        == content_hash("# Rules\n\nBe **kind**.\n")
    )
    with one.store.reading() as connection:
        assert read_guidelines(connection, version).startswith("# Rules")


# Labelling


def test_an_answer_sent_twice_is_kept_once(start):
    one = start()
    with one.client("Zoë <3") as client:
        first = client.get("/label.json").json()["example"]
        sent = answer_for(first["id"], "my-id", seconds=4.5)
        assert client.post("/label", json=sent).status_code == 201
        again = client.post("/label", json=sent)
        assert (again.status_code, again.json()["is_new"]) == (200, False)
        assert client.get("/label.json").json()["example"]["id"] != first["id"]
    [kept] = one.annotations()
    assert (kept.annotator, kept.seconds, kept.client_id) == ("Zoë <3", 4.5, "my-id")


@pytest.mark.parametrize(
    "fields",
    [
        {"answer": " "},
        {"example_id": "0" * 32},
        {"status": "done"},
        {"seconds": -1},
        {"annotator": "somebody else"},
        {"client_id": ""},
        {"answer": None},
    ],
)
def test_a_wrong_answer_is_refused_with_a_reason(start, fields):
    one = start()
    with one.client() as client:
        sent = answer_for(one.examples[0].id, "1") | fields
        refused = client.post("/label", json=sent)
        assert refused.status_code == 422
        assert refused.json()["error"]
        assert client.post("/label", content="{broken").status_code == 422
    assert one.annotations() == []


def test_a_full_disk_asks_for_another_try(start):
    one = start()

    def limit(raw, *_):
        # SQLite's own ceiling stands in for the disk's.
        raw.execute("PRAGMA max_page_count = 1")

    with one.client() as client:
        sent = answer_for(one.examples[0].id, "1", answer="x" * 500_000)
        event.listen(one.store.engine, "checkout", limit)
        refused = client.post("/label", json=sent)
        assert refused.status_code == 503
        assert "disk is full" in refused.json()["error"]
        event.remove(one.store.engine, "checkout", limit)
        one.store.engine.dispose()
        assert client.post("/label", json=sent).status_code == 201


def test_nobody_labels_without_a_name(start):
    one = start()
    with one.client(annotator=None) as client:
        assert "Who is labelling?" in client.get("/label").text
        assert client.get("/label.json").status_code == 401
        assert client.post("/label", json=answer_for(one.examples[0].id, "1")).status_code == 401
        assert client.post("/annotator", data={"name": " "}).status_code == 422
        cookie = client.post("/annotator", data={"name": "ann"}).headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        # The way back leads to a page of ours, wherever a form says it should.
        away = client.post("/annotator", data={"name": "ann", "back": "//evil.example"})
        assert away.headers["location"] == "/label"


def test_many_people_at_once_over_http_keep_the_overlap(start):
    one = start(examples=25, label="overlap = 2")

    def work(name: str) -> None:
        with one.client(name) as client:
            while (item := client.get("/label.json").json()["example"]) is not None:
                sent = answer_for(item["id"], f"{name} {item['id']}")
                assert client.post("/label", json=sent).status_code == 201
                assert client.post("/label", json=sent).status_code == 200

    threads = [threading.Thread(target=work, args=(f"person {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(a.example_id for a in one.annotations()) == {e.id: 2 for e in one.examples}


# Review


def submit_two_answers(one: Studio, config: Task | None = None) -> Example:
    for person, text in (("ann", "yes"), ("bob", "no")):
        submit(
            one.store,
            config or Task(),
            Annotation(one.examples[0].id, "answer", text, person, f"by {person}"),
            now=NOW,
        )
    return one.examples[0]


@pytest.mark.parametrize(
    ("form", "decided"),
    [({"pick": "by bob"}, "no"), ({"pick": "other", "other": "perhaps"}, "perhaps")],
)
def test_a_reviewer_decides(start, form, decided):
    one = start()
    item = submit_two_answers(one)
    with one.client("eve") as client:
        data = client.get("/review.json").json()
        assert (data["open"], data["example"]["id"]) == (1, item.id)
        assert [a["answer"] for a in data["annotations"]] == ["yes", "no"]
        form = {"example_id": item.id, "action": "decide", **form}
        assert client.post("/review", data=form).headers["location"] == "/review"
        assert "Nothing to review" in client.get("/review").text
    with one.store.reading() as connection:
        [kept] = read_resolutions(connection, task="answer")
    assert (kept.answer, kept.resolved_by) == (decided, "eve")


def test_a_reviewer_excludes_with_a_reason_or_goes_on(start):
    one = start()
    item = submit_two_answers(one)
    flag = Annotation(one.examples[1].id, "answer", "a card number", "ann", "f", status="flagged")
    submit(one.store, Task(), flag, now=NOW)
    with one.client("eve") as client:
        assert "a card number" in client.get(f"/review?after={item.id}").text
        form = {"example_id": item.id, "action": "exclude"}
        assert client.post("/review", data=form).status_code == 422
        assert client.post("/review", data={**form, "reason": "private"}).status_code == 303
        assert client.post("/review", data={**form, "action": "decide"}).status_code == 422
        assert client.get("/review.json").json()["open"] == 1
    with one.store.reading() as connection:
        assert read_exclusions(connection) == {item.id: "private"}


# Who is let in


def test_other_names_for_this_machine_are_refused(start):
    one = start()
    for host, status in (
        (f"127.0.0.1:{one.port}", 200),
        (f"localhost:{one.port}", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        (f"localhost.evil.example:{one.port}", 403),
        ("192.168.0.7", 403),
        ("", 403),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", one.port)
        connection.putrequest("GET", "/", skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        assert connection.getresponse().status == status, host
        connection.close()


def test_pages_from_elsewhere_cannot_write(start):
    one = start()
    with one.client() as client:
        sent = answer_for(one.examples[0].id, "1")
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": f"http://127.0.0.1:{one.port + 1}"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site", "origin": one.url},
        ):
            assert client.post("/label", json=sent, headers=headers).status_code == 403
            form = {"name": "mallory"}
            assert client.post("/annotator", data=form, headers=headers).status_code == 403
        assert one.annotations() == []
        # A form that another page may post is never JSON.
        plain = {"content-type": "text/plain"}
        body = json.dumps(sent)
        assert client.post("/label", content=body, headers=plain).status_code == 422
        same = {"origin": one.url, "sec-fetch-site": "same-origin"}
        assert client.post("/label", json=sent, headers=same).status_code == 201


def test_the_studio_stays_on_this_machine(tmp_path):
    project = init_project(tmp_path)
    for host in ("0.0.0.0", "192.168.0.7", "example.org"):
        with pytest.raises(ConfigError, match="sign in"):
            studio(project, host=host)


def test_a_taken_port_is_one_message(tmp_path):
    project = init_project(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=f"port {port}"):
            studio(project, port=port)
        command = ["from burnish.cli import main; main()", "studio", "--port", str(port)]
        done = subprocess.run(
            [sys.executable, "-c", *command], cwd=tmp_path, capture_output=True, text=True
        )
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(ConfigError, match="port = 99999"):
        studio(project, port=99999)


def test_the_command_serves_and_stops(tmp_path):
    init_project(tmp_path)
    command = "from burnish.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", command, "studio", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        url = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())[0]
        assert "Overview" in httpx.get(url, timeout=60).text
        process.send_signal(2)
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert (tmp_path / "burnish.db").exists()


# Artefacts


REPORT = (
    "<!doctype html><title>report</title><h1>+41 points</h1><script>document.title='ran'</script>"
)


def make_artefacts(one: Studio) -> tuple[str, str]:
    """A snapshot and a report made from it."""
    ids: list[str] = []
    for kind, files in (
        ("snapshot", {"train.parquet": "rows", "notes/read me.txt": "hi"}),
        ("report", {"report.html": REPORT, "report.json": "{}"}),
    ):
        folder = one.project.folder(kind) / "first"
        with replaced_folder(folder) as temporary:
            for name, text in files.items():
                (temporary / name).parent.mkdir(exist_ok=True)
                (temporary / name).write_text(text)
            ids.append(seal_artefact(temporary, kind, ids, {"items": 3, "by": {"a": "<b>"}}))
        one.project.register(folder, f"first {kind}")
    return ids[0], ids[1]


def test_artefacts_are_listed_with_their_lineage(start):
    one = start()
    snapshot, report = make_artefacts(one)
    with one.client() as client:
        listed = client.get("/artefacts.json").json()["artefacts"]
        assert [a["id"] for a in listed] == [report, snapshot]
        assert listed[0]["parents"] == [snapshot]
        data = client.get(f"/artefacts/{snapshot}.json").json()
        assert [a["id"] for a in data["led_to"]] == [report]
        assert data["facts"]["items"] == 3
        assert set(data["files"]) == {"train.parquet", "notes/read me.txt"}
        page = client.get(f"/artefacts/{report}").text
        assert f"/artefacts/{snapshot}" in page
        assert "&lt;b&gt;" in page or "\\u003cb\\u003e" in page
        assert client.get("/artefacts/report-0000000000000000").status_code == 404
        shutil.rmtree(one.project.folder("report"))
        assert "no manifest.json" in client.get(f"/artefacts/{report}").text


def test_an_artefacts_files_have_no_rights(start, tmp_path):
    one = start()
    snapshot, report = make_artefacts(one)
    with one.client() as client:
        page = client.get(f"/artefacts/{report}/files/report.html")
        assert page.text == REPORT
        policy = page.headers["content-security-policy"]
        assert policy.startswith("sandbox; default-src 'none'")
        assert "script" not in policy
        text = client.get(f"/artefacts/{snapshot}/files/notes/read%20me.txt")
        assert text.headers["content-type"].startswith("text/plain")
        binary = client.get(f"/artefacts/{snapshot}/files/train.parquet")
        assert "attachment" in binary.headers["content-disposition"]


def test_no_path_leads_out_of_an_artefact(start, tmp_path):
    one = start()
    snapshot, _ = make_artefacts(one)
    (tmp_path / "secret.txt").write_text("secret")
    folder = one.project.folder("snapshot") / "first"
    (folder / "unlisted.txt").write_text("secret")
    (folder / "train.parquet").unlink()
    (folder / "train.parquet").symlink_to(tmp_path / "secret.txt")
    base = f"/artefacts/{snapshot}/files/"
    for path in (
        "../../../burnish.toml",
        "..%2f..%2f..%2fburnish.toml",
        "%2e%2e/%2e%2e/burnish.toml",
        "notes/../../first/unlisted.txt",
        f"/{tmp_path}/secret.txt",
        f"%2f{tmp_path}/secret.txt",
        "unlisted.txt",
        "manifest.json/../unlisted.txt",
        "train.parquet",
        "",
    ):
        # Straight to the socket: clients tidy such paths up.
        connection = http.client.HTTPConnection("127.0.0.1", one.port)
        connection.request("GET", base + path)
        response = connection.getresponse()
        assert response.status in (404, 307), path
        assert b"secret" not in response.read().replace(b"secret.txt", b"")
        connection.close()


# In a browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    context.close()
    assert faults == []


def sign_in(page, one: Studio, name: str = "Dana") -> None:
    page.goto(f"{one.url}/label")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer")
    page.wait_for_load_state()


def shown(page) -> str:
    return page.get_attribute("#work", "data-example")


def wait_for_next(page, before: str) -> None:
    page.wait_for_function(
        "before => (document.getElementById('work')?.dataset.example ?? '') !== before", arg=before
    )
    page.wait_for_load_state()


def test_a_days_work_by_keyboard_through_reload_and_restart(start, page):
    one = start(examples=4)
    sign_in(page, one)
    first = shown(page)
    page.keyboard.type("the first answer")
    page.keyboard.press("Control+Enter")
    wait_for_next(page, first)

    second = shown(page)
    page.keyboard.type("half an ans")
    page.reload()
    assert shown(page) == second
    assert page.input_value("#text") == "half an ans"
    page.wait_for_function("document.activeElement.id === 'text'")
    page.keyboard.type("wer, finished")

    one.stop()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#status:not([hidden])")
    assert "kept in this browser" in page.inner_text("#status")
    assert len(one.annotations()) == 1
    one.start()
    wait_for_next(page, second)

    third = shown(page)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    wait_for_next(page, third)

    fourth = shown(page)
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    page.keyboard.type("spam")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Nothing left for you")

    kept = {a.example_id: a for a in one.annotations()}
    assert len(one.annotations()) == 4
    assert kept[first].answer == "the first answer"
    assert kept[second].answer == "half an answer, finished"
    assert (kept[third].status, kept[fourth].status) == ("skipped", "flagged")
    assert kept[fourth].answer == "spam"
    assert all(a.annotator == "Dana" and a.guideline_version for a in kept.values())
    assert all(0 < a.seconds < 60 for a in kept.values())


def test_an_answer_whose_confirmation_was_lost_is_sent_again_and_kept_once(start, page):
    one = start(examples=2)
    sign_in(page, one)
    first = shown(page)
    lost = []

    def lose_the_answer(route):
        if route.request.method == "POST" and not lost:
            lost.append(route.fetch().status)
            route.abort()
        else:
            route.continue_()

    page.route("**/label", lose_the_answer)
    page.keyboard.type("once")
    page.keyboard.press("Control+Enter")
    wait_for_next(page, first)
    assert lost == [201]
    assert [a.answer for a in one.annotations()] == ["once"]


def test_unsent_work_survives_closing_the_page(start, page):
    one = start(examples=2)
    sign_in(page, one)
    first = shown(page)
    page.route("**/label", lambda r: r.abort() if r.request.method == "POST" else r.continue_())
    page.keyboard.type("written offline")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#status:not([hidden])")
    page.goto("about:blank")
    page.unroute("**/label")
    page.goto(f"{one.url}/label")
    wait_for_next(page, first)
    assert [a.answer for a in one.annotations()] == ["written offline"]


def test_choices_by_digit_and_by_filter(start, page):
    words = "one two three four five six seven eight nine ten"
    names = [f"intent_{word}" for word in re.split(" ", words)]
    one = start(examples=5, label=f"choices = {json.dumps([*names, 'refund'])}")
    sign_in(page, one)
    typed = ["r", "e", "f", "Enter", "Enter"]
    moved = ["ArrowDown", "ArrowDown", "Enter"]
    # After a choice letters still filter: an S is no skip until Esc has been pressed.
    changed_mind = ["3", "ArrowDown", "s", "e", "v", "Enter", "Control+Enter"]
    for keys in (["3", "Enter"], ["0", "Control+Enter"], typed, moved, changed_mind):
        before = shown(page)
        for key in keys:
            page.keyboard.press(key)
        wait_for_next(page, before)
    assert [a.answer for a in one.annotations()] == [
        "intent_three",
        "intent_ten",
        "refund",
        "intent_two",
        "intent_seven",
    ]


def test_a_choice_that_is_a_digit_is_meant_by_that_digit(start, page):
    one = start(examples=1, label='choices = ["0", "1", "2"]')
    sign_in(page, one)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Nothing left for you")
    assert one.annotations()[0].answer == "1"


def test_a_draft_is_edited_and_an_empty_answer_is_not_sent(start, page):
    one = start(examples=0)
    drafted = Conversation((Message("user", "Hi"), Message("assistant", "\nHello")))
    one.add(Example(drafted, source="test"))
    sign_in(page, one)
    assert page.input_value("#text") == "\nHello"
    page.fill("#text", " ")
    page.keyboard.press("Control+Enter")
    assert "empty" in page.inner_text("#status")
    page.fill("#text", "Good day")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=Nothing left for you")
    assert [a.answer for a in one.annotations()] == ["Good day"]


def test_a_record_runs_no_script_and_a_report_neither(start, page):
    one = start(examples=0)
    one.add(
        example(
            0, "<img src=x onerror=\"document.title='ran'\"><script>document.title='ran'</script>"
        )
    )
    make_artefacts(one)
    sign_in(page, one)
    assert "<img src=x" in page.inner_text(".turn .text")
    assert page.title() != "ran"
    page.goto(f"{one.url}/artefacts")
    page.click("text=Open the report")
    page.wait_for_selector("text=+41 points")
    assert page.title() == "report"


def test_review_by_keyboard(start, page):
    one = start()
    submit_two_answers(one)
    sign_in(page, one, "Eve")
    page.goto(f"{one.url}/review")
    page.keyboard.press("2")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=Nothing to review")
    with one.store.reading() as connection:
        [kept] = read_resolutions(connection, task="answer")
    assert (kept.answer, kept.resolved_by) == ("no", "Eve")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_no_page_is_wider_than_the_screen(start, page, width, height):
    one = start(label=f'choices = ["{"long_" * 12}", "no"]')
    submit_two_answers(one, Task())
    make_artefacts(one)
    page.set_viewport_size({"width": width, "height": height})
    sign_in(page, one, "A person with a long name of sixty characters or nearly so many")
    for path in (*PAGES, f"/artefacts/{one.project.artefacts()[0].id}"):
        page.goto(one.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
