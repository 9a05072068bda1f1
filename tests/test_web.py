"""The studio's pages over a real socket: who may see what, what is kept, what is refused.

Run: pytest tests/test_web.py
"""

import contextlib
import http.client
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter

import httpx
import pytest
from sqlalchemy import event

from burnish.files import replaced_folder
from burnish.hashing import content_hash
from burnish.label.guidelines import guideline_history
from burnish.project import init_project, seal_artefact
from burnish.store.answers import read_resolutions
from burnish.store.findings import read_exclusions
from burnish.types import Conversation, Example, Message
from studios import PASSWORD, Studio, csrf_of, example, starting

PEOPLE = {"ada": "admin", "eve": "reviewer", "ann": "annotator", "bob": "annotator"}

# Each page and the least role that may open it.
PAGES = {
    "/": "annotator",
    "/account": "annotator",
    "/tasks/answer/label": "annotator",
    "/tasks/answer/guidelines": "annotator",
    "/tasks/answer/guidelines/1": "annotator",
    "/tasks/answer/review": "reviewer",
    "/tasks/answer/overview": "reviewer",
    "/tasks/answer/agreement": "reviewer",
    "/tasks/answer/browse": "reviewer",
    "/tasks/answer/exchange": "reviewer",
    "/artefacts": "reviewer",
    "/tasks/answer/guidelines/edit": "admin",
    "/people": "admin",
    "/people/ann": "admin",
    "/webhooks": "admin",
}
ROLES = ("annotator", "reviewer", "admin")


@pytest.fixture
def start(tmp_path):
    with starting(tmp_path / "project", examples=5) as start:
        yield start


def answer_for(example_id: str, client_id: str, annotator: str, **fields) -> dict:
    return {
        "client_id": client_id,
        "example_id": example_id,
        "annotator": annotator,
        "answer": "yes",
        "status": "submitted",
        **fields,
    }


def example_on(html: str) -> str | None:
    found = re.search(r'data-example="([^"]+)"', html)
    return found[1] if found else None


def me(client: httpx.Client) -> str:
    return re.search(r'data-annotator="([^"]+)"', client.get("/tasks/answer/label").text)[1]


# Who may see what


def test_each_page_for_each_role(start):
    one = start(people=PEOPLE)
    with contextlib.ExitStack() as stack:
        clients = {
            role: stack.enter_context(one.client(name))
            for role, name in (("admin", "ada"), ("reviewer", "eve"), ("annotator", "ann"))
        }
        stranger = stack.enter_context(one.client())
        clients["annotator"].get("/tasks/answer/label")
        for page, least in PAGES.items():
            for role, client in clients.items():
                answer = client.get(page)
                allowed = ROLES.index(role) >= ROLES.index(least)
                assert answer.status_code == (200 if allowed else 403), (page, role)
                assert allowed or "question" not in answer.text
                # Nobody is led to where they may not go.
                for href in re.findall(r'href="(/[^"?#]*)"', answer.text):
                    needed = PAGES.get(href, "annotator")
                    assert ROLES.index(role) >= ROLES.index(needed), (page, role, href)
            away = stranger.get(page)
            assert (away.status_code, away.headers["location"]) == (303, f"/sign-in?back={page}")


def test_an_annotator_sees_nothing_of_anothers_answers(start):
    one = start("[label]\noverlap = 2", people=PEOPLE)
    one.answer("bob", one.examples[0], "the secret of bob", seconds=3)
    with one.client("ann") as client:
        for page in PAGES:
            assert "the secret of bob" not in client.get(page).text
            assert "bob" not in client.get(page).text
        html = client.get("/tasks/answer/label").text
        assert example_on(html) == one.examples[0].id
        # Nor of an example that was not given to them.
        other = {"example_id": one.examples[3].id, "answer": "x"}
        token = {"X-CSRF-Token": csrf_of(client)}
        assert client.post("/tasks/answer/tokens", json=other, headers=token).status_code == 404


def test_another_project_is_another_sign_in(start, tmp_path):
    one = start(people=PEOPLE)
    other = Studio(tmp_path / "other", people={"zoe": "admin"})
    try:
        with one.client("ann") as client:
            assert client.get(other.url + "/").headers["location"] == "/sign-in?back=/"
    finally:
        other.close()


FORMS = {
    "/tasks/answer/undo": {},
    "/tasks/answer/review": {"example_id": "x", "action": "decide", "answer": "a"},
    "/tasks/answer/guidelines/edit": {"text": "new", "instead_of": "x"},
    "/people": {"name": "mallory", "password": PASSWORD, "role": "admin"},
    "/people/ann/role": {"role": "admin"},
    "/people/ann/password": {"password": PASSWORD},
    "/people/ann/remove": {},
    "/people/ann/tokens": {"token_name": "t"},
    "/people/ann/tokens/remove": {"token_name": "t"},
    "/webhooks": {"url": "https://example.org/", "events": "annotation.created"},
    "/webhooks/nothing/test": {},
    "/webhooks/nothing/retry": {},
    "/webhooks/nothing/remove": {},
    "/tasks/answer/bulk": {"action": "exclude", "ids": "x", "reason": "r", "confirmed": "1"},
    "/tasks/answer/import": {},
    "/sign-out": {},
}


def test_each_form_refuses_without_its_token(start):
    one = start(people=PEOPLE)
    with one.client("ada") as client:
        before = one.project.root.joinpath("guidelines.md").read_text()
        for path, form in FORMS.items():
            for wrong in ({}, {"csrf": "0" * 64}):
                refused = client.post(path, data={**form, **wrong})
                assert (refused.status_code, "form has expired" in refused.text) == (403, True), (
                    path
                )
        sent = answer_for(one.examples[0].id, "1", "ada")
        assert client.post("/tasks/answer/label", json=sent).status_code == 403
        assert client.get("/people").text.count("/people/") == len(PEOPLE)
        assert one.project.root.joinpath("guidelines.md").read_text() == before
    assert one.annotations() == []


def test_what_a_role_may_not_do_is_refused_with_the_token_too(start):
    one = start(people=PEOPLE)
    admin = {"/tasks/answer/guidelines/edit", "/tasks/answer/import"}
    for name in ("ann", "eve"):
        with one.client(name) as client:
            token = csrf_of(client)
            for path, form in FORMS.items():
                barred = path.startswith(("/people", "/webhooks")) or path in admin
                barred = barred or (name == "ann" and re.search("review|bulk", path))
                if barred:
                    assert client.post(path, data={**form, "csrf": token}).status_code == 403, path


# Every page


def test_pages_have_nothing_inline_nothing_from_afar_and_strict_headers(start):
    one = start('[label]\nchoices = ["yes", "no"]\noverlap = 2', people=PEOPLE)
    one.answer("ann", one.examples[0], "yes", seconds=3)
    one.answer("bob", one.examples[0], "no", seconds=3)
    artefact, _ = make_artefacts(one)
    with one.client("ada") as client:
        for page in [*PAGES, "/nothing", f"/artefacts/{artefact}", "/sign-in"]:
            answer = client.get(page)
            html = answer.text
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'self';")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "<main" in html
            assert '<html lang="en">' in html
            assert not re.search(r"<script(?! type=\"module\" src=\"/static/)", html), page
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=", html), page
            assert not re.search(r"(src|href)=\"(https?:)?//", html), page
            for asset in re.findall(r"(?:src|href)=\"(/static/[^\"]+)", html):
                assert client.get(asset).status_code == 200


def test_what_a_record_says_is_text(start):
    evil = "<script>alert(1)</script>"
    poisoned = Example(
        Conversation((Message("system", evil), Message("user", evil), Message("assistant", evil))),
        source=evil,
        metadata={evil: evil},
    )
    choices = f"choices = ['{evil}', '\" onclick=\"x']"
    one = start(f"[label]\n{choices}\noverlap = 3", examples=[poisoned])
    (one.project.root / "guidelines.md").write_text(
        f"{evil}\n\n[a](javascript:alert(1)) <img src=x onerror=alert(1)> **bold**\n"
    )
    one.answer(f"{evil[:8]}a", poisoned, evil)
    one.answer("bob", poisoned, '" onclick="x')
    with one.client() as client:
        for page in PAGES:
            html = client.get(page).text
            assert evil not in html, page
            assert not re.search(r"<img src=x|href=\"javascript:|\" onclick=\"x", html)
        assert "<strong>bold</strong>" in client.get("/tasks/answer/label").text


# Tasks


TWO = """
[tasks.reply]
[tasks.intent]
choices = ["billing", "other"]
overlap = 2
"""


def test_tasks_are_chosen_and_keep_apart(start):
    one = start(TWO)
    with one.client() as client:
        home = client.get("/").text
        assert home.index("/tasks/reply/label") < home.index("/tasks/intent/label")
        html = client.get("/tasks/intent/label").text
        assert "billing" in html
        person = re.search(r'data-annotator="([^"]+)"', html)[1]
        sent = answer_for(example_on(html), "1", person, answer="billing")
        assert client.post("/tasks/intent/label", json=sent).status_code == 201
        assert client.get("/tasks/nothing/label").status_code == 404
    [kept] = one.annotations()
    assert (kept.task, kept.answer) == ("intent", "billing")


# Labelling


def test_an_answer_sent_twice_is_kept_once(start):
    one = start(people=PEOPLE)
    with one.client("ann") as client:
        client.headers["X-CSRF-Token"] = csrf_of(client)
        first = example_on(client.get("/tasks/answer/label").text)
        sent = answer_for(first, "my-id", "ann", seconds=4.5)
        assert client.post("/tasks/answer/label", json=sent).status_code == 201
        again = client.post("/tasks/answer/label", json=sent)
        assert (again.status_code, again.json()["is_new"]) == (200, False)
        assert example_on(client.get("/tasks/answer/label").text) != first
    [kept] = one.annotations()
    assert (kept.annotator, kept.seconds, kept.client_id) == ("ann", 4.5, "my-id")


def test_an_answer_is_kept_under_nobody_elses_name(start):
    one = start(people=PEOPLE)
    with one.client("bob") as client:
        client.headers["X-CSRF-Token"] = csrf_of(client)
        refused = client.post(
            "/tasks/answer/label", json=answer_for(one.examples[0].id, "1", "ann")
        )
        assert refused.status_code == 403
        assert "ann wrote this answer, and bob is signed in" in refused.json()["error"]
    assert one.annotations() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"answer": " "},
        {"example_id": "0" * 32},
        {"status": "done"},
        {"status": "withdrawn"},
        {"seconds": -1},
        {"client_id": ""},
        {"answer": None},
        {"more": 1},
    ],
)
def test_a_wrong_answer_is_refused_with_a_reason(start, fields):
    one = start()
    with one.client() as client:
        sent = answer_for(one.examples[0].id, "1", me(client)) | fields
        refused = client.post("/tasks/answer/label", json=sent)
        assert refused.status_code == 422
        assert refused.json()["error"]
        assert client.post("/tasks/answer/label", content="{broken").status_code == 422
    assert one.annotations() == []


def test_a_full_disk_asks_for_another_try(start):
    one = start()

    def limit(raw, *_):
        # SQLite's own ceiling stands in for the disk's.
        raw.execute("PRAGMA max_page_count = 1")

    with one.client() as client:
        sent = answer_for(one.examples[0].id, "1", me(client), answer="x" * 500_000)
        event.listen(one.store.engine, "checkout", limit)
        refused = client.post("/tasks/answer/label", json=sent)
        assert refused.status_code == 503
        assert "disk is full" in refused.json()["error"]
        event.remove(one.store.engine, "checkout", limit)
        one.store.engine.dispose()
        assert client.post("/tasks/answer/label", json=sent).status_code == 201


def test_undo_brings_ones_own_last_answer_back(start):
    one = start(people=PEOPLE)
    with one.client("ann") as client, one.client("bob") as other:
        for browser in (client, other):
            browser.headers.update({"X-CSRF-Token": csrf_of(browser), "accept": "*/*"})
        nothing = client.post("/tasks/answer/undo")
        assert (nothing.status_code, "no answer of yours" in nothing.json()["error"]) == (409, True)
        first = example_on(client.get("/tasks/answer/label").text)
        sent = answer_for(first, "1", "ann", answer="too quick")
        client.post("/tasks/answer/label", json=sent)
        assert other.post("/tasks/answer/undo").status_code == 409
        assert client.post("/tasks/answer/undo").json() == {"example_id": first}
        html = client.get("/tasks/answer/label").text
        assert example_on(html) == first
        assert 'data-answer="too quick"' in html
        assert "You took this answer back" in html


def test_many_people_at_once_over_http_keep_the_overlap(start):
    names = [f"person {n}" for n in range(6)]
    people = {"ada": "admin"} | dict.fromkeys(names, "annotator")
    one = start("[label]\noverlap = 2", examples=20, people=people)

    def work(name: str) -> None:
        with one.client(name) as client:
            client.headers["X-CSRF-Token"] = csrf_of(client)
            while item := example_on(client.get("/tasks/answer/label").text):
                sent = answer_for(item, f"{name} {item}", name)
                assert client.post("/tasks/answer/label", json=sent).status_code == 201
                assert client.post("/tasks/answer/label", json=sent).status_code == 200

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(a.example_id for a in one.annotations()) == {e.id: 2 for e in one.examples}


# Guidelines


def test_guidelines_are_markdown_and_kept_by_version(start):
    one = start()
    (one.project.root / "guidelines.md").write_text("# Rules\n\nBe **kind**.\n")
    with one.client() as client:
        html = client.get("/tasks/answer/label").text
        assert "<strong>kind</strong>" in html
        version = re.search(r'data-guidelines="([^"]+)"', html)[1]
        sent = answer_for(example_on(html), "1", me(client), guideline_version=version)
        assert client.post("/tasks/answer/label", json=sent).status_code == 201
    assert one.annotations()[0].guideline_version == version
    assert version == content_hash("# Rules\n\nBe **kind**.\n")
    [kept] = guideline_history(one.store, one.tasks["answer"])
    assert (kept.version, kept.annotations) == (version, 1)
    assert kept.text.startswith("# Rules")


def test_an_admin_edits_the_guidelines_and_everybody_sees_what_changed(start):
    one = start(people=PEOPLE)
    file = one.project.root / "guidelines.md"
    file.write_text("# Rules\n\nBe kind.\n")
    with one.client("ada") as client:
        html = client.get("/tasks/answer/guidelines/edit").text
        form = {
            "text": "# Rules\r\n\r\nBe brief & kind.\r\n",
            "instead_of": re.search(r'name="instead_of" value="([^"]+)"', html)[1],
            "csrf": csrf_of(client),
        }
        assert client.post("/tasks/answer/guidelines/edit", data=form).status_code == 303
        assert file.read_text() == "# Rules\n\nBe brief & kind.\n"
        # From the same beginning again: somebody has changed them meanwhile.
        late = client.post("/tasks/answer/guidelines/edit", data={**form, "text": "mine <b>"})
        assert late.status_code == 422
        assert "changed since you read them" in late.text
        assert "mine &lt;b&gt;" in late.text
    with one.client("ann") as client:
        history = client.get("/tasks/answer/guidelines").text
        assert history.index("by ada") < history.index("changed in the file")
        shown = client.get("/tasks/answer/guidelines/2").text
        assert "".join(re.findall(r"<ins>(.*?)</ins>", shown)).strip() == "brief &amp;"
        assert client.get("/tasks/answer/guidelines/3").status_code == 404


@pytest.mark.parametrize("broken", [None, b"\xff\xfe no UTF-8"])
def test_without_readable_guidelines_people_label_and_an_admin_writes_them(start, broken):
    one = start(people=PEOPLE)
    file = one.project.root / "guidelines.md"
    file.unlink() if broken is None else file.write_bytes(broken)
    with one.client("ann") as client:
        for page in ("label", "guidelines"):
            answer = client.get(f"/tasks/answer/{page}")
            assert answer.status_code == 200
            assert "no guidelines that can be read" in answer.text
            assert "guidelines/edit" not in answer.text
        html = client.get("/tasks/answer/label").text
        sent = answer_for(example_on(html), "1", "ann")
        token = {"X-CSRF-Token": csrf_of(client)}
        assert client.post("/tasks/answer/label", json=sent, headers=token).status_code == 201
    with one.client("ada") as client:
        html = client.get("/tasks/answer/guidelines/edit").text
        assert "the guidelines cannot be read" in html
        before = re.search(r'name="instead_of" value="([^"]*)"', html)[1]
        form = {"text": "Be kind.", "instead_of": before, "csrf": csrf_of(client)}
        assert client.post("/tasks/answer/guidelines/edit", data=form).status_code == 303
        assert "Be kind." in client.get("/tasks/answer/label").text
        # A second admin began with none as well: what the first wrote stays.
        assert client.post("/tasks/answer/guidelines/edit", data=form).status_code == 422
    assert file.read_text() == "Be kind."


# Review


def dispute(one: Studio) -> Example:
    one.answer("ann", one.examples[0], "yes")
    one.answer("bob", one.examples[0], "no")
    return one.examples[0]


@pytest.mark.parametrize(
    ("form", "decided"), [({"pick": 1}, "no"), ({"pick": "other", "answer": "perhaps"}, "perhaps")]
)
def test_a_reviewer_decides(start, form, decided):
    one = start("[label]\noverlap = 2", people=PEOPLE)
    item = dispute(one)
    with one.client("eve") as client:
        html = client.get("/tasks/answer/review").text
        picks = re.findall(r'name="pick" value="([^"]+)" data-answer="([^"]+)"', html)
        assert [answer for _, answer in picks] == ["yes", "no"]
        if isinstance(form["pick"], int):
            form = {"pick": picks[form["pick"]][0]}
        sent = {"example_id": item.id, "action": "decide", "csrf": csrf_of(client), **form}
        answered = client.post("/tasks/answer/review", data=sent)
        assert answered.headers["location"] == "/tasks/answer/review"
        assert "Nothing to review" in client.get("/tasks/answer/review").text
    with one.store.reading() as connection:
        [kept] = read_resolutions(connection, task="answer")
    assert (kept.answer, kept.resolved_by) == (decided, "eve")


def test_any_example_is_looked_at_and_decided_by_its_id(start):
    one = start(people=PEOPLE)
    item = one.examples[2]
    one.answer("ann", item, "yes")
    with one.client("eve") as client:
        assert "Nothing to review" in client.get("/tasks/answer/review").text
        page = client.get(f"/tasks/answer/review?example={item.id}").text
        assert item.conversation.messages[0].content in page
        assert 'data-answer="yes"' in page
        assert client.get("/tasks/answer/review?example=none").status_code == 404
        form = {"example_id": item.id, "action": "decide", "answer": "no", "csrf": csrf_of(client)}
        assert client.post("/tasks/answer/review", data=form).status_code == 303
    with one.store.reading() as connection:
        [kept] = read_resolutions(connection, task="answer")
    assert (kept.example_id, kept.answer) == (item.id, "no")


def test_a_reviewer_excludes_with_a_reason_or_goes_on(start):
    one = start("[label]\noverlap = 2", people=PEOPLE)
    item = dispute(one)
    one.answer("ann", one.examples[1], "a card number", status="flagged")
    with one.client("eve") as client:
        page = f"/tasks/answer/review?after={item.id}"
        assert "a card number" in client.get(page).text
        form = {"example_id": item.id, "action": "exclude", "csrf": csrf_of(client)}
        assert client.post("/tasks/answer/review", data=form).status_code == 422
        excluded = client.post("/tasks/answer/review", data={**form, "reason": "private"})
        assert excluded.status_code == 303
        undecided = client.post("/tasks/answer/review", data={**form, "action": "decide"})
        assert undecided.status_code == 422
    with one.store.reading() as connection:
        assert read_exclusions(connection) == {item.id: "private"}


def test_a_blind_review_shows_no_answer_before_it_is_asked_for(start):
    one = start("[label]\noverlap = 2\nblind_review = true", people=PEOPLE)
    one.answer("ann", one.examples[0], "first opinion")
    one.answer("bob", one.examples[0], "second opinion")
    with one.client("eve") as client:
        blind = client.get("/tasks/answer/review").text
        assert "opinion" not in blind
        assert "ann" not in re.findall(r">\s*(\w+)\s*<", blind)
        asked = client.get("/tasks/answer/review?shown=true").text
        assert "first opinion" in asked
        assert "second opinion" in asked


# Browse and bulk actions, import and export


def test_examples_are_found_by_text_metadata_and_status(start):
    items = [
        example(1, "a lost parcel", metadata={"city": "New York"}),
        example(2, "a broken <b>lamp</b>"),
        example(3, "parcel and lamp"),
    ]
    one = start(examples=items)
    one.answer("ann", items[2], "sorry")
    with one.client() as client:
        for query, found in (
            ({}, [0, 1, 2]),
            ({"text": "parcel"}, [0, 2]),
            ({"text": "parcel -lamp"}, [0]),
            ({"metadata": 'city="New York"'}, [0]),
            ({"status": "submitted", "annotator": "ann"}, [2]),
            ({"status": "unlabelled"}, [0, 1]),
            ({"source": "elsewhere"}, []),
        ):
            html = client.get("/tasks/answer/browse", params=query).text
            ids = re.findall(r'name="ids" value="(\w+)"', html)
            assert ids == [items[n].id for n in found], query
        assert "<b>lamp" not in client.get("/tasks/answer/browse").text
        for wrong in ({"metadata": "city"}, {"status": "lost"}, {"more": "1"}):
            assert client.get("/tasks/answer/browse", params=wrong).status_code == 422


def test_a_bulk_action_says_how_many_and_asks_first(start):
    one = start(examples=30)
    with one.client() as client:
        form = {"action": "exclude", "reason": "a test", "filters": "text=question"}
        chosen = {**form, "ids": [one.examples[0].id, one.examples[1].id]}
        question = client.post("/tasks/answer/bulk", data=chosen).text
        assert "Exclude 2 examples?" in question
        everything = {**form, "all_found": "true"}
        assert "Exclude 30 examples?" in client.post("/tasks/answer/bulk", data=everything).text
        with one.store.reading() as connection:
            assert read_exclusions(connection) == {}
        done = client.post("/tasks/answer/bulk", data={**chosen, "confirmed": "true"}).text
        assert "2 excluded." in done
        nothing = client.post("/tasks/answer/bulk", data=form)
        assert (nothing.status_code, "no example was chosen" in nothing.text) == (422, True)
        for action, fields, said in (
            ("assign", {"annotators": "ann, bob"}, "30 assigned to ann, bob."),
            ("prioritise", {"priority": "2.5"}, "30 have the priority 2.5."),
            ("gold", {"answer": "yes"}, "30 are gold items."),
        ):
            sent = {**everything, "action": action, "confirmed": "true", **fields}
            assert said in client.post("/tasks/answer/bulk", data=sent).text
    with one.store.reading() as connection:
        assert set(read_exclusions(connection)) == {e.id for e in one.examples[:2]}


def test_a_slip_of_two_keys_excludes_nothing_and_what_is_excluded_comes_back(start):
    one = start(examples=30)
    slip = {"action": "exclude", "all_found": "true", "reason": " "}
    with one.client() as client:
        question = client.post("/tasks/answer/bulk", data=slip).text
        assert "Exclude all 30 examples?" in question
        assert re.search(r'name="reason" required', question)
        assert client.post("/tasks/answer/bulk", data={**slip, "confirmed": "1"}).is_client_error
        sure = {**slip, "reason": "old", "confirmed": "1"}
        assert "30 excluded." in client.post("/tasks/answer/bulk", data=sure).text
        for page in ("label", "overview"):
            assert "Every example is excluded" in client.get(f"/tasks/answer/{page}").text
        found = client.get("/tasks/answer/browse?status=excluded").text
        assert re.search(r'value="include"[^>]* checked', found)
        back = {"action": "include", "all_found": "true", "filters": "status=excluded"}
        assert "Include 30 examples again?" in client.post("/tasks/answer/bulk", data=back).text
        done = client.post("/tasks/answer/bulk", data={**back, "confirmed": "1"}).text
        assert "30 take part again." in done
        assert "question 0" in client.get("/tasks/answer/label").text
        assert "excluded" not in client.get("/tasks/answer/overview").text


def test_labels_go_out_and_come_back(start, tmp_path):
    one = start()
    for item in one.examples[:3]:
        one.answer("ann", item, f"answer to {item.conversation.messages[0].content}", seconds=2)
    with one.client() as client:
        page = client.get("/tasks/answer/exchange").text
        for address in re.findall(r'href="(/tasks/answer/export[^"]+)"', page):
            exported = client.get(address)
            assert exported.status_code == 200, address
            assert "attachment" in exported.headers["content-disposition"]
            file = re.search(r'filename="([^"]+)"', exported.headers["content-disposition"])[1]
            sent = {"file": (file, exported.content)}
            back = client.post("/tasks/answer/import", files=sent)
            assert "0 added, 3 known already" in back.text, address
        wrong = client.post("/tasks/answer/import", files={"file": ("a.jsonl", b"{broken")})
        assert wrong.status_code == 422
        assert "a.jsonl: nothing in it fits" in wrong.text
        assert "broken JSON" in wrong.text
        unknown = client.post("/tasks/answer/import", files={"file": ("../../x.exe", b"MZ")})
        assert unknown.status_code == 422


# People


def test_an_admin_adds_somebody_changes_and_removes_them(start):
    one = start(people=PEOPLE)
    with one.client("ada") as client:
        token = {"csrf": csrf_of(client)}
        form = {"name": "zoe", "password": PASSWORD, "role": "annotator", **token}
        assert client.post("/people", data=form).status_code == 303
        refused = client.post("/people", data={**form, "role": "reviewer"})
        assert refused.status_code == 422
        # The form stays, with what was filled in and what is wrong; the password does not.
        assert 'role="alert"' in refused.text
        assert 'name="name" value="zoe"' in refused.text
        assert "<option selected>reviewer" in refused.text
        assert PASSWORD not in refused.text
        hook = {"url": "https://", "events": "example.resolved", **token}
        refused = client.post("/webhooks", data=hook)
        assert refused.status_code == 422
        assert 'value="https://"' in refused.text
        assert 'value="example.resolved" checked' in refused.text
        for path, sent in (
            ("/people/zoe/password", {"password": "short"}),
            ("/people/zoe/tokens", {"token_name": " "}),
            ("/account", {"old": "wrong", "new": PASSWORD}),
        ):
            refused = client.post(path, data={**sent, **token})
            assert (refused.status_code, 'role="alert"' in refused.text) == (422, True), path
            assert f'action="{path}"' in refused.text
        with one.client("zoe") as zoe:
            assert zoe.get("/people").status_code == 403
            client.post("/people/zoe/role", data={"role": "admin", **token})
            assert zoe.get("/").status_code == 303  # signed out by it
        made = client.post("/people/zoe/tokens", data={"token_name": "script", **token})
        bearer = re.search(r"burnish_[\w-]+", made.text)[0]
        assert bearer not in client.get("/people/zoe").text
        asked = httpx.get(f"{one.url}/people", headers={"authorization": f"Bearer {bearer}"})
        assert asked.status_code == 200
        ended = {"token_name": "script", **token}
        assert client.post("/people/zoe/tokens/remove", data=ended).status_code == 303
        client.post("/people/zoe/remove", data=token)
        assert "removed" in client.get("/people/zoe").text
        last = client.post("/people/ada/remove", data=token)
        assert (last.status_code, "last admin" in last.text) == (422, True)
        assert client.get("/people/nobody").status_code == 404


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
        listed = client.get("/artefacts").text
        assert listed.index(f"/artefacts/{report}") < listed.index(f"/artefacts/{snapshot}")
        page = client.get(f"/artefacts/{snapshot}").text
        assert f"/artefacts/{report}" in page
        assert "notes/read me.txt" in page
        page = client.get(f"/artefacts/{report}").text
        assert f"/artefacts/{snapshot}" in page
        assert "&lt;b&gt;" in page or "\\u003cb\\u003e" in page
        assert client.get("/artefacts/report-0000000000000000").status_code == 404
        shutil.rmtree(one.project.folder("report"))
        assert "no manifest.json" in client.get(f"/artefacts/{report}").text


def test_an_artefacts_files_have_no_rights(start):
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


# The command


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
        assert "Tasks" in httpx.get(url, timeout=60).text
        process.send_signal(2)
        told, errors = process.communicate(timeout=60)
    assert (process.returncode, told) == (0, "Studio stopped.\n")
    assert errors == ""
    assert (tmp_path / "burnish.db").exists()
