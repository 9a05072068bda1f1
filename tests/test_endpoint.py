"""Drafts from an OpenAI-compatible endpoint, over a socket. Run: pytest tests/test_endpoint.py"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from burnish.chat import render_prompt
from burnish.errors import ConfigError, InputError
from burnish.label.endpoint import ATTEMPTS, Endpoint, endpoint_writer
from burnish.nn.generate import Sampling, generate
from burnish.nn.models import load_model
from burnish.serve.serve import ServeConfig, serving
from burnish.types import Conversation, Message
from tiny import tiny_base

Reply = tuple[int, dict[str, str], bytes] | None
"""Status, headers, body; None hangs up without a word."""


def said(text: str) -> Reply:
    body = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    return 200, {}, json.dumps(body).encode()


def asking(text: str) -> Conversation:
    return Conversation((Message("system", "Be brief."), Message("user", text)))


@contextmanager
def server(answer: Callable[[dict[str, Any], dict[str, str]], Reply]) -> Iterator[str]:
    """A real HTTP server that replies what `answer` makes of a body and its headers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = answer(body, {name.lower(): value for name, value in self.headers.items()})
            if reply is None:
                self.close_connection = True
                return
            status, headers, content = reply
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/v1"
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


def endpoint(url: str, **changes: Any) -> Endpoint:
    return Endpoint(url, **{"model": "m", "first_pause": 0.01} | changes)


def test_burnish_serve_answers_as_the_checkpoint_does(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "tiny")
    loaded = load_model(str(folder), precision="fp32")
    some = [asking(text) for text in ("one", "two", "Hé 日?", "four")]
    some.append(some[0].answered("its own answer, which is left out"))
    prompts = [render_prompt(conversation, loaded.template) for conversation in some]
    expected = [c.text for c in generate(loaded, prompts, Sampling(max_tokens=12))]
    feedback = tmp_path / "feedback.jsonl"
    config = ServeConfig(str(folder), precision="fp32", port=0, api_key="k", feedback=feedback)
    with serving(config) as (url, _):
        settings = endpoint(f"{url}/v1/", model="tiny", api_key="k", max_tokens=12)
        assert endpoint_writer(settings)([c.prompt for c in some]) == expected
        unknown = endpoint(f"{url}/v1", model="tiny", api_key="wrong")
        with pytest.raises(InputError, match="answers 401") as refused:
            endpoint_writer(unknown)(some[:1])
        assert "--api-key-env" in str(refused.value)
        with pytest.raises(InputError, match="404"):
            endpoint_writer(endpoint(f"{url}/v1", model="other", api_key="k"))(some[:1])


def test_what_is_asked_is_the_conversation() -> None:
    asked: list[tuple[dict[str, Any], dict[str, str]]] = []

    def answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        asked.append((body, headers))
        return said("fine")

    tools = '[{"type": "function", "function": {"name": "look"}}]'
    conversation = Conversation((Message("user", "a"),), tools=tools)
    with server(answer) as url:
        settings = endpoint(url, api_key="secret", max_tokens=7, temperature=0.5, seed=3)
        assert endpoint_writer(settings)([conversation]) == ["fine"]
    [(body, headers)] = asked
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "a"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "seed": 3,
        "tools": json.loads(tools),
    }
    assert headers["authorization"] == "Bearer secret"
    assert "secret" not in repr(settings)


def test_passing_faults_are_tried_again_and_answers_keep_their_order() -> None:
    tries: Counter[str] = Counter()
    lock = threading.Lock()
    faults: list[Reply] = [
        (429, {"Retry-After": "0"}, b"slow down"),
        (503, {}, b"<html>starting</html>"),
        None,
        (500, {}, b""),
    ]

    def answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        text = body["messages"][-1]["content"]
        with lock:
            tries[text] += 1
            n = tries[text]
        return faults[n - 1] if int(text) % 3 == 0 and n <= len(faults) else said(f"<{text}>")

    texts = [str(n) for n in range(30)]
    with server(answer) as url:
        write = endpoint_writer(endpoint(url))
        assert write([asking(text) for text in texts]) == [f"<{text}>" for text in texts]
    assert {text: tries[text] for text in texts} == {
        text: len(faults) + 1 if int(text) % 3 == 0 else 1 for text in texts
    }


def test_a_server_that_asks_for_patience_gets_it() -> None:
    times: list[float] = []

    def answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        times.append(time.monotonic())
        return (429, {"Retry-After": "1"}, b"") if len(times) == 1 else said("now")

    with server(answer) as url:
        write = endpoint_writer(endpoint(url))
        assert write([asking("a")]) == ["now"]
    assert times[1] - times[0] > 0.7


def test_a_server_that_stays_broken_is_reported() -> None:
    tries: list[float] = []

    def answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        tries.append(time.monotonic())
        return 502, {}, b""

    with server(answer) as url:
        write = endpoint_writer(endpoint(url, first_pause=0.02))
        with pytest.raises(InputError, match=f"502 .*; tried {ATTEMPTS} times") as raised:
            write([asking("a")])
    assert len(tries) == ATTEMPTS
    # Pauses double: 31 times the first one, a quarter less at the shortest.
    assert tries[-1] - tries[0] > 0.02 * 31 * 0.7
    assert url in str(raised.value)
    # It has answered before, so it may be back: the server is waited for.
    with pytest.raises(InputError, match=f"tried {ATTEMPTS} times"):
        write([asking("the server is gone")])


def test_where_nothing_listens_nobody_waits() -> None:
    with server(lambda *_: said("a")) as url:
        pass
    waited: list[str] = []
    write = endpoint_writer(endpoint(url, first_pause=60), waited.append)
    started = time.monotonic()
    with pytest.raises(InputError, match="nothing answers there") as raised:
        write([asking(str(n)) for n in range(20)])
    assert url in str(raised.value)
    assert not waited
    assert time.monotonic() - started < 30


def test_what_is_waited_for_is_said_once() -> None:
    lock = threading.Lock()
    asked = 0

    def answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        nonlocal asked
        with lock:
            asked += 1
            return (503, {}, b"") if asked <= 10 else said("a")

    waited: list[str] = []
    with server(answer) as url:
        endpoint_writer(endpoint(url, parallel=5), waited.append)([asking("a")] * 5)
    assert waited == ["the server answers 503 Service Unavailable"]


def test_requests_under_way_are_bounded() -> None:
    lock = threading.Lock()
    under_way = most = 0

    def answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.03)
        with lock:
            under_way -= 1
        return said("a")

    with server(answer) as url:
        write = endpoint_writer(endpoint(url, parallel=3))
        write([asking("a")] * 20)
    assert most == 3


@pytest.mark.parametrize(
    ("reply", "said_of_it"),
    [
        ((400, {}, b'{"error": {"message": "too long: 9000 tokens"}}'), "too long: 9000 tokens"),
        ((422, {}, b'{"detail": "no"}'), "no"),
        (said(""), "without text"),
        ((200, {}, b'{"choices": [{"message": {"content": null}}]}'), "without text"),
    ],
)
def test_a_refusal_is_of_its_conversation_alone(reply: Reply, said_of_it: str) -> None:
    def answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        return reply if body["messages"][-1]["content"] == "bad" else said("good")

    with server(answer) as url:
        write = endpoint_writer(endpoint(url))
        first, second, third = write([asking("a"), asking("bad"), asking("b")])
    assert (first, third) == ("good", "good")
    assert isinstance(second, InputError)
    assert said_of_it in second.what


def test_a_conversation_without_a_prompt_is_not_sent() -> None:
    [refused] = endpoint_writer(endpoint("http://127.0.0.1:9/v1"))([Conversation(())])
    assert isinstance(refused, InputError)


@pytest.mark.parametrize(
    "reply", [(200, {}, b"<html>hello</html>"), (200, {}, b'{"text": "a"}'), (302, {}, b"")]
)
def test_what_is_no_endpoint_is_said_to_be_none(reply: Reply) -> None:
    with server(lambda *_: reply) as url, pytest.raises(InputError, match="/v1"):
        endpoint_writer(endpoint(url))([asking("a")])


@pytest.mark.parametrize("key", ["sécret", "secret\n", "a\x00b"])
def test_a_key_that_no_header_takes_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigError, match="key") as refused:
        endpoint("http://127.0.0.1:9/v1", api_key=key)
    assert key.strip() not in str(refused.value)


@pytest.mark.parametrize("temperature", [float("nan"), float("inf"), -0.1, 2.1])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature"):
        endpoint("http://127.0.0.1:9/v1", temperature=temperature)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a/v1", "", "http://", "http://a:b"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="endpoint"):
        endpoint(url)


INTERRUPTED = """
import sys
from burnish.label.endpoint import Endpoint, endpoint_writer
from burnish.types import Conversation, Message

write = endpoint_writer(Endpoint(sys.argv[1], "m"))
try:
    write([Conversation((Message("user", "a"),))] * 20)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_does_not_wait_for_answers_under_way() -> None:
    asked = threading.Event()

    def answer(body: dict[str, Any], headers: dict[str, str]) -> Reply:
        asked.set()
        time.sleep(20)
        return said("late")

    with server(answer) as url:
        command = [sys.executable, "-c", INTERRUPTED, url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert asked.wait(30)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=15)
    assert output == "interrupted\n"
    assert time.monotonic() - started < 5
