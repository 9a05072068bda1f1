"""Webhooks: written with what they tell of, signed, sent at least once, never where they may not.

Run: pytest tests/test_webhooks.py
"""

import base64
import hashlib
import hmac
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import httpx
import pytest
from sqlalchemy import select

from burnish.errors import ConfigError, InputError
from burnish.label.interchange import export_labels
from burnish.label.queue import submit, undo_last
from burnish.label.resolve import adjudicate, resolve
from burnish.label.webhooks import (
    WebhookConfig,
    announce,
    make_webhook,
    send_due,
    send_test,
    sending_webhooks,
    signature,
)
from burnish.store import Store, open_store
from burnish.store.examples import add_examples
from burnish.store.log import read_log, verify_log
from burnish.store.tables import deliveries
from burnish.store.webhooks import (
    Undelivered,
    claim_deliveries,
    count_deliveries,
    keep_delivery,
    read_deliveries,
    read_webhooks,
    remove_webhook,
    retry_deliveries,
)
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example, Message
from studios import Studio, browser_page, chromium, press, sign_in

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _now(monkeypatch):
    """What happens is due at the real time, which goes on between collection and the test."""
    monkeypatch.setattr(sys.modules[__name__], "NOW", datetime.now(UTC))


TASK = Task(overlap=2)
HERE = WebhookConfig()


class Received(NamedTuple):
    headers: dict[str, str]
    body: str


class Receiver:
    """A server that keeps what it gets and answers as it is told."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.status = 204
        self.refused = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.received.append(Received(headers, body))
                refused = outer.refused and outer.refused in body
                self.send_response(422 if refused else outer.status)
                self.send_header("location", "http://127.0.0.1:9/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server.server_port}/hook?x=1"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def quick(tmp_path) -> Iterator[Store]:
    """A store on SQLite, for what is the same on every database."""
    with closing(open_store(f"sqlite:///{tmp_path}/burnish.db")) as opened:
        yield opened


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()


def ask(store, number: int) -> Example:
    example = Example(Conversation((Message("user", f"question {number}"),)), source="test")
    with store.writing() as connection:
        add_examples(connection, [example], actor="test")
    return example


def say(store, example: Example, annotator: str, answer: str) -> None:
    sent = Annotation(example.id, TASK.name, answer, annotator, f"{annotator} {example.id}")
    submit(store, TASK, sent, now=NOW)


def tell(store, text: str = "x") -> None:
    with store.writing() as connection:
        announce(connection, "annotation.created", {"text": text})


def waiting(store) -> int:
    with store.reading() as connection:
        return len(connection.execute(select(deliveries)).all())


def test_the_signature_is_the_specifications():
    # From the reference implementations' tests (standard-webhooks/standard-webhooks).
    made = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        '{"test": 2432232314}',
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_happens_is_told_signed_and_once(store, receiver):
    events = ["annotation.created", "annotation.withdrawn", "example.resolved"]
    webhook = make_webhook(store, receiver.url, events, actor="test")
    examples = [ask(store, n) for n in range(3)]
    for n, example in enumerate(examples):
        say(store, example, "ann", "yes")
        say(store, example, "bob", "no" if n else "yes")
    resolve(store, TASK)
    adjudicate(store, TASK, {examples[1].id: "maybe"}, person="rey")
    undo_last(store, TASK, "bob", now=NOW)
    assert receiver.received == []
    assert send_due(store, HERE, now=NOW + timedelta(seconds=60)) == 9
    assert send_due(store, HERE, now=NOW + timedelta(days=9)) == 0
    told = [json.loads(one.body) for one in receiver.received]
    assert [event["type"] for event in told] == [
        *["annotation.created"] * 6,
        *["example.resolved"] * 2,
        "annotation.withdrawn",
    ]
    assert told[0]["data"]["answer"] == "yes"
    assert told[6]["data"]["resolved_by"] == "rule:unanimous"
    assert told[7]["data"]["answer"] == "maybe"
    assert told[8]["data"]["annotator"] == "bob"
    ids = {one.headers["webhook-id"] for one in receiver.received}
    assert len(ids) == 9
    key = base64.b64decode(webhook.secret.removeprefix("whsec_"))
    for one in receiver.received:
        at = one.headers["webhook-timestamp"]
        signed = f"{one.headers['webhook-id']}.{at}.{one.body}".encode()
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert one.headers["webhook-signature"] == f"v1,{expected}"
        assert abs(int(at) - NOW.timestamp()) < 90
        assert one.headers["content-type"] == "application/json"
        assert one.headers["host"].startswith("localhost:")
    with store.reading() as connection:
        verify_log(connection)


def test_an_export_is_told(store, receiver, tmp_path):
    make_webhook(store, receiver.url, ["labels.exported"], actor="test")
    say(store, ask(store, 0), "ann", "yes")
    export_labels(store, tmp_path / "labels.csv", TASK, format="csv")
    assert send_due(store, HERE, now=NOW + timedelta(seconds=90)) == 1
    facts = json.loads(receiver.received[0].body)["data"]
    assert facts == {"task": "answer", "format": "csv", "annotations": 1}


def test_an_answer_sent_twice_is_told_once(store, receiver):
    make_webhook(store, receiver.url, ["annotation.created"], actor="test")
    example = ask(store, 0)
    say(store, example, "ann", "yes")
    say(store, example, "ann", "yes")
    assert waiting(store) == 1


def test_what_did_not_happen_is_not_told(store, receiver):
    make_webhook(store, receiver.url, ["annotation.created"], actor="test")
    with pytest.raises(ZeroDivisionError), store.writing() as connection:
        announce(connection, "annotation.created", {})
        raise ZeroDivisionError
    make_webhook(store, receiver.url, ["example.resolved"], actor="test")
    tell(store)
    assert waiting(store) == 1


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_receiver_that_fails_is_tried_again_with_the_same_id_ever_later(quick, receiver, status):
    webhook = make_webhook(quick, receiver.url, ["annotation.created"], actor="test")
    tell(quick)
    receiver.status = status
    now = datetime.now(UTC) + timedelta(seconds=1)
    tries = 0
    for seconds in (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400):
        if seconds:
            early = now + timedelta(seconds=seconds - 1)
            assert send_due(quick, HERE, now=early) == 0
        now += timedelta(seconds=seconds)
        assert send_due(quick, HERE, now=now) == 1
        tries += 1
        assert len(receiver.received) == tries  # a redirection is not followed
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 1
    assert len({one.headers["webhook-signature"] for one in receiver.received}) == tries
    assert send_due(quick, HERE, now=now + timedelta(days=30)) == 0
    with quick.reading() as connection:
        newest = read_log(connection, 1)[0]
        [kept] = read_deliveries(connection, webhook.id, limit=9)
        assert count_deliveries(connection) == {webhook.id: Undelivered(given_up=1)}
    assert newest["action"] == "give up delivery"
    assert json.loads(newest["payload"]["body"])["type"] == "annotation.created"
    assert (kept.attempts, kept.next_at, kept.fault) == (tries, None, f"answered {status}")


def test_what_was_given_up_is_sent_again_when_somebody_says_so(store, receiver):
    webhook = make_webhook(store, receiver.url, ["annotation.created"], actor="test")
    other = make_webhook(store, receiver.url, ["annotation.created"], actor="test")
    tell(store)
    receiver.status = 500
    now = NOW + timedelta(seconds=60)
    while send_due(store, HERE, now=now):
        now += timedelta(days=2)
    with store.reading() as connection:
        gone = {webhook.id: Undelivered(given_up=1), other.id: Undelivered(given_up=1)}
        assert count_deliveries(connection) == gone
    receiver.status = 204
    receiver.received.clear()
    with store.writing() as connection:
        again = now.isoformat(timespec="milliseconds")
        assert retry_deliveries(connection, webhook.id, now=again) == 1
    assert send_due(store, HERE, now=now) == 1
    assert len(receiver.received) == 1
    with store.reading() as connection:
        assert count_deliveries(connection) == {other.id: Undelivered(given_up=1)}


def test_a_test_event_goes_to_one_webhook_whatever_it_asked_for(store, receiver):
    webhook = make_webhook(store, receiver.url, ["labels.exported"], actor="test")
    make_webhook(store, receiver.url, ["annotation.created"], actor="test")
    assert send_test(store, webhook.id)
    assert not send_test(store, "nothing")
    assert send_due(store, HERE, now=NOW + timedelta(seconds=60)) == 1
    [one] = receiver.received
    told = json.loads(one.body)
    assert (told["type"], told["data"]) == ("webhook.test", {})
    at = int(one.headers["webhook-timestamp"])
    signed = signature(webhook.secret, one.headers["webhook-id"], at, one.body)
    assert one.headers["webhook-signature"] == signed


def test_what_a_killed_process_had_taken_is_sent_by_another(store, receiver):
    make_webhook(store, receiver.url, ["annotation.created"], actor="test")
    tell(store)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    until = (NOW + timedelta(minutes=5)).isoformat(timespec="milliseconds")
    with store.writing() as connection:
        assert len(claim_deliveries(connection, now=now, until=until, limit=9)) == 1
    assert send_due(store, HERE, now=NOW + timedelta(minutes=4)) == 0
    assert send_due(store, HERE, now=NOW + timedelta(minutes=6)) == 1
    assert len(receiver.received) == 1


def test_one_event_a_receiver_refuses_does_not_hold_up_the_next(store, receiver):
    make_webhook(store, receiver.url, ["annotation.created"], actor="test")
    receiver.refused = "poison"
    for text in ("poison", "good"):
        tell(store, text)
    assert send_due(store, HERE, now=NOW + timedelta(seconds=60)) == 2
    assert waiting(store) == 1
    assert send_due(store, HERE, now=NOW + timedelta(seconds=70)) == 1
    assert [json.loads(one.body)["data"]["text"] for one in receiver.received] == [
        "poison",
        "good",
        "poison",
    ]


def test_a_dead_receiver_does_not_hold_up_the_others(store, receiver):
    unknown = f"https://{'a' * 64}.example/"
    make_webhook(store, unknown, ["annotation.created"], actor="test")
    dead = make_webhook(store, "http://127.0.0.1:9/", ["annotation.created"], actor="test")
    make_webhook(store, receiver.url, ["annotation.created"], actor="test")
    for n in range(5):
        tell(store, str(n))
    assert send_due(store, HERE, now=NOW + timedelta(seconds=60)) == 15
    assert [json.loads(one.body)["data"]["text"] for one in receiver.received] == list("01234")
    with store.reading() as connection:
        assert count_deliveries(connection)[dead.id] == Undelivered(waiting=5)
        assert len({d.fault for d in read_deliveries(connection, dead.id, limit=9)}) == 1
    with store.writing() as connection:
        assert remove_webhook(connection, dead.id, actor="test")
        assert not remove_webhook(connection, dead.id, actor="test")
    assert waiting(store) == 5


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("169.254.169.254", "169.254.169.254/32"),
        ("[::ffff:169.254.169.254]", "::ffff:169.254.169.254/128"),
        ("[fe80::1]", "fe80::/10"),
        ("[fd00:ec2::254]", "fd00:ec2::/64"),
        ("100.100.100.200", "100.100.100.200/32"),
        ("168.63.129.16", "168.63.129.16/32"),
        ("0.0.0.0", "0.0.0.0/32"),
        ("2852039166", "169.254.169.254/32"),  # 169.254.169.254 as one number
    ],
)
def test_nothing_is_sent_where_a_clouds_credentials_are(quick, host, network, caplog):
    make = partial(make_webhook, quick, f"http://{host}:9/latest", ["annotation.created"])
    with pytest.raises(InputError, match="may give away this machine's credentials"):
        make(actor="test")
    # Kept while it was allowed.
    make(actor="test", config=WebhookConfig(allow=(network,)))
    tell(quick)
    assert send_due(quick, HERE, now=NOW + timedelta(seconds=60)) == 1
    assert "may give away this machine's credentials" in caplog.text
    assert waiting(quick) == 1
    with pytest.raises(ConfigError, match="allow"):
        WebhookConfig(allow=("169.254.1.1/8",))


def test_a_network_that_was_allowed_is_tried(quick, caplog):
    allowed = WebhookConfig(allow=("0.0.0.0/32",))
    url = "http://0.0.0.0:9/"
    make_webhook(quick, url, ["annotation.created"], actor="test", config=allowed)
    tell(quick)
    send_due(quick, allowed, now=NOW + timedelta(seconds=60))
    assert "credentials" not in caplog.text
    assert "Connection refused" in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/",
        "https://",
        "file:///etc/passwd",
        "x",
        "http://a\nb/",
        "http://[::1",
        "http://h:99999/",
    ],
)
def test_odd_addresses_are_refused_when_they_are_given(quick, url):
    with pytest.raises(InputError, match="URL"):
        make_webhook(quick, url, ["annotation.created"], actor="test")
    with pytest.raises(InputError, match="event"):
        make_webhook(quick, "https://example.org/", [], actor="test")


def test_a_name_is_looked_up_when_something_is_sent(quick, caplog):
    make_webhook(quick, "http://no-such-host.invalid/", ["annotation.created"], actor="test")
    tell(quick)
    send_due(quick, HERE, now=NOW + timedelta(seconds=60))
    assert "is not known" in caplog.text


def test_a_thread_sends_while_the_studio_runs(store, receiver):
    make_webhook(store, receiver.url, ["annotation.created"], actor="test")
    arrived = threading.Event()
    with sending_webhooks(store, HERE):
        for n in range(25):
            tell(store, str(n))
        for _ in range(100):
            if len(receiver.received) >= 25:
                break
            arrived.wait(0.1)
    assert waiting(store) == 0
    assert sorted(int(json.loads(r.body)["data"]["text"]) for r in receiver.received) == [
        *range(25)
    ]


# Over the API and in the studio


def test_webhooks_over_the_api(tmp_path, receiver):
    one = Studio(tmp_path / "project")
    receiver.status = 500
    try:
        with httpx.Client(base_url=f"{one.url}/api/v1", timeout=60) as client:
            new = {"url": receiver.url, "events": ["labels.exported"]}
            made = client.post("/webhooks", json=new).json()
            mine = f"/webhooks/{made['id']}"
            guarded = client.post("/webhooks", json=new | {"url": "http://169.254.169.254/"})
            assert (guarded.status_code, "credentials" in guarded.text) == (422, True)
            assert client.post(f"{mine}/test").status_code == 204
            send_due(one.store, HERE, now=datetime.now(UTC) + timedelta(seconds=1))
            [listed] = client.get("/webhooks").json()
            assert (listed["waiting"], listed["given_up"]) == (1, 0)
            assert "secret" not in listed
            [kept] = client.get(f"{mine}/deliveries").json()
            assert kept["event"]["type"] == "webhook.test"
            assert (kept["attempts"], kept["fault"]) == (1, "answered 500")
            assert made["secret"] not in str(kept)
            receiver.status = 204
            assert client.post(f"{mine}/retry").json() == {"count": 1}
            send_due(one.store, HERE, now=datetime.now(UTC) + timedelta(seconds=1))
            assert client.get(f"{mine}/deliveries").json() == []
            assert client.delete(mine).status_code == 204
            for gone in ("test", "retry"):
                assert client.post(f"{mine}/{gone}").status_code == 404
            assert client.get(f"{mine}/deliveries").status_code == 404
    finally:
        one.close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


def test_an_admin_sees_to_webhooks_by_keyboard(tmp_path, browser, receiver):
    one = Studio(tmp_path / "project", people={"ada": "admin"})
    receiver.status = 500

    def send() -> None:
        assert send_due(one.store, HERE, now=datetime.now(UTC) + timedelta(seconds=1)) == 1
        press(page, "l")

    try:
        with browser_page(browser) as page:
            sign_in(page, one, "ada")
            press(page, "Shift+W")
            page.wait_for_url("**/webhooks")
            press(page, "a")
            page.keyboard.type(receiver.url)
            press(page, "Tab", "Space", "Tab", "Tab", "Space", "Enter")
            page.wait_for_selector("[role=status] .token")
            secret = page.inner_text(".token")
            with one.store.reading() as connection:
                [webhook] = read_webhooks(connection)
            assert (webhook.url, webhook.secret) == (receiver.url, secret)
            assert webhook.events == ("annotation.created", "example.resolved")
            press(page, "b")
            page.wait_for_selector("h2:has-text('Add an address')")
            press(page, "1")
            page.wait_for_url(f"**/webhooks/{webhook.id}")
            assert secret not in page.content()
            press(page, "t")
            page.wait_for_selector("text=webhook.test")
            send()
            page.wait_for_selector("text=answered 500")
            with one.store.writing() as connection:
                [kept] = read_deliveries(connection, webhook.id, limit=9)
                keep_delivery(connection, kept, fault="no such host", next_at=None)
            press(page, "l")
            page.wait_for_selector("td:has-text('given up')")
            receiver.status = 204
            press(page, "r")
            page.wait_for_selector("text=1 waiting to be tried again")
            send()
            page.wait_for_selector("text=Everything has arrived.")
            press(page, "x", "Enter")
            page.wait_for_url("**/webhooks")
            assert page.locator("table").count() == 0
    finally:
        one.close()
