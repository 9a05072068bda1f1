"""The server, over a real socket and with OpenAI's own client. Run: pytest tests/test_serve.py"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from burnish.chat import render
from burnish.errors import ConfigError, ResourceError
from burnish.nn.generate import Sampling, generate
from burnish.nn.models import LoadedModel, load_model
from burnish.serve.serve import ServeConfig, serve, serving
from burnish.types import Conversation, Message
from tiny import tiny_base

NAME = "tiny"
HALF_PAIR = rb'{"model": "tiny", "messages": [{"role": "user", "content": "a \ud800"}]}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("models") / NAME)


@pytest.fixture(scope="module")
def base(folder: Path) -> LoadedModel:
    return load_model(str(folder), precision="fp32")


def config_of(folder: Path, **changes: Any) -> ServeConfig:
    settings = {"precision": "fp32", "port": 0, "feedback": folder.parent / "feedback.jsonl"}
    return ServeConfig(str(folder), **settings | changes)


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(config_of(folder)) as (url, _):
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def chat(text: str = "hello", **changes: Any) -> dict[str, Any]:
    body = {"model": NAME, "messages": [{"role": "user", "content": text}], "max_tokens": 12}
    return body | changes


def eventually(what: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


def test_served_ids_are_trained_ids(base: LoadedModel, client: openai.OpenAI) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hé 日?"}]
    conversation = Conversation(
        (Message("system", "Be brief."), Message("user", "Hé 日?"), Message("assistant", "ok"))
    )
    trained = render(conversation, base.template)
    prompt = trained.ids[: trained.weights.index(1.0)]
    answered = client.chat.completions.create(model=NAME, messages=messages, max_tokens=12)
    assert answered.usage.prompt_tokens == len(prompt)
    by_ids = client.completions.create(model=NAME, prompt=prompt, max_tokens=12)
    (offline,) = generate(base, [prompt], Sampling(max_tokens=12))
    assert answered.choices[0].message.content == by_ids.choices[0].text == offline.text

    raw = Conversation((Message("user", "a b"), Message("assistant", "c")), raw=True)
    trained = render(raw, base.template)
    raw_prompt = trained.ids[: trained.weights.index(1.0)]
    by_text = client.completions.create(model=NAME, prompt="a b", max_tokens=12)
    by_ids = client.completions.create(model=NAME, prompt=raw_prompt, max_tokens=12)
    assert by_text.choices[0].text == by_ids.choices[0].text
    assert by_text.usage == by_ids.usage


def test_the_official_client_streams_what_it_gets_whole(client: openai.OpenAI) -> None:
    request = chat(temperature=1.0, top_p=0.9, seed=5, n=2, max_tokens=20)
    whole = client.chat.completions.create(**request)
    chunks = list(
        client.chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}
        )
    )
    texts, reasons = ["", ""], [None, None]
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        assert reasons[choice.index] is None
        texts[choice.index] += choice.delta.content or ""
        reasons[choice.index] = choice.finish_reason
        assert chunk.usage is None
    assert texts == [c.message.content for c in whole.choices]
    assert reasons == [c.finish_reason for c in whole.choices]
    assert texts[0] != texts[1]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({(c.id, c.created, c.model, c.system_fingerprint) for c in chunks}) == 1
    assert chunks[0].id.startswith("chatcmpl-")
    assert chunks[0].choices[0].delta.role == "assistant"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.usage.completion_tokens == 40


def test_text_completions_stream_too(client: openai.OpenAI) -> None:
    request = {"model": NAME, "prompt": ["hello", "a b"], "max_tokens": 8}
    whole = client.completions.create(**request)
    texts = ["", ""]
    for chunk in client.completions.create(**request, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [c.text for c in whole.choices]
    assert [c.index for c in whole.choices] == [0, 1]


def test_a_stream_is_server_sent_events_ended_by_done(url: str) -> None:
    response = httpx.post(f"{url}/v1/chat/completions", json=chat(stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert all("usage" not in chunk for chunk in chunks)
    with_usage = httpx.post(
        f"{url}/v1/chat/completions",
        json=chat(stream=True, stream_options={"include_usage": True}),
    ).text.split("\n\n")[:-2]
    chunks = [json.loads(event.removeprefix("data: ")) for event in with_usage]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 12


def test_stop_and_logprobs(base: LoadedModel, client: openai.OpenAI) -> None:
    free = client.chat.completions.create(**chat(max_tokens=30)).choices[0]
    text = free.message.content
    assert free.finish_reason == "length"
    stop = text[5:8]
    for form in (stop, ["never there", stop]):
        cut = client.chat.completions.create(**chat(max_tokens=30, stop=form)).choices[0]
        assert cut.message.content == text[: text.find(stop)]
        assert cut.finish_reason == "stop"

    known = client.chat.completions.create(**chat(logprobs=True, top_logprobs=2)).choices[0]
    assert len(known.logprobs.content) == 12
    assert all(len(place.top_logprobs) == 2 for place in known.logprobs.content)
    assert all(
        place.bytes is None or bytes(place.bytes).decode() == place.token
        for place in known.logprobs.content
    )
    old = client.completions.create(model=NAME, prompt="hello", max_tokens=6, logprobs=2)
    report = old.choices[0].logprobs
    assert len(report.tokens) == len(report.token_logprobs) == len(report.text_offset) == 6
    streamed = client.chat.completions.create(**chat(logprobs=True, top_logprobs=2, stream=True))
    places = [p for c in streamed if c.choices[0].logprobs for p in c.choices[0].logprobs.content]
    assert places == known.logprobs.content


def test_models_and_health(client: openai.OpenAI, url: str) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    assert httpx.get(f"{url}/health").json()["status"] == "ok"


@pytest.mark.parametrize(
    ("changes", "status", "param", "says"),
    [
        ({"model": "other"}, 404, "model", "there is no model 'other' here; this server has"),
        ({"model": None}, 400, "model", "valid string"),
        ({"messages": []}, 400, "messages", "at least 1"),
        ({"messages": "hello"}, 400, "messages", "valid list"),
        ({"messages": [{"role": "king", "content": "a"}]}, 400, "messages[0].role", "'system'"),
        ({"messages": [{"role": "user"}]}, 400, "messages", "missing"),
        ({"messages": [{"role": "user", "content": 5}]}, 400, "messages[0].content", "string"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "messages[0].content",
            "should be 'text'",
        ),
        (
            {"messages": [{"role": "assistant", "content": "a"}]},
            400,
            "messages",
            "the last message is the assistant's own",
        ),
        ({"temperature": "hot"}, 400, "temperature", "valid number"),
        ({"temperature": 3}, 400, "temperature", "less than or equal to 2"),
        ({"top_p": 1.1}, 400, "top_p", "less than or equal to 1"),
        ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 1.5}, 400, "max_tokens", "integer"),
        ({"n": 0}, 400, "n", "greater"),
        ({"stop": 5}, 400, "stop", "valid string"),
        ({"stop": ""}, 400, "stop", "at least 1 character"),
        ({"stream": "yes"}, 400, "stream", "boolean"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "stream = true"),
        ({"top_logprobs": 2}, 400, "top_logprobs", "needs logprobs"),
        ({"temprature": 1}, 400, "temprature", "did you mean 'temperature'?"),
        ({"tools": [], "tool_choice": "required"}, 400, "tool_choice", "not supported"),
        ({"response_format": {"type": "json_schema"}}, 400, "response_format", "not supported"),
        ({"frequency_penalty": 0.5}, 400, "frequency_penalty", "not supported"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias", "not supported"),
    ],
)
def test_every_bad_request_gets_an_error_object(
    url: str, changes: dict[str, Any], status: int, param: str, says: str
) -> None:
    response = httpx.post(f"{url}/v1/chat/completions", json=chat(**changes))
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert says in error["message"]
    assert error["type"] == "invalid_request_error"
    assert set(error) == {"message", "type", "param", "code"}


def test_bodies_and_paths_that_are_wrong(url: str) -> None:
    headers = {"content-type": "application/json"}
    for content in (b'{"model": ', b"\xff\xfe", b"", b"[1]", b'"text"', b"[" * 10_000, HALF_PAIR):
        response = httpx.post(f"{url}/v1/chat/completions", content=content, headers=headers)
        assert response.status_code == 400, content[:10]
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    for method, path, status in (
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/", 404),
    ):
        response = httpx.request(method, f"{url}{path}")
        assert response.status_code == status
        assert path in response.json()["error"]["message"]


def test_neutral_values_of_unsupported_parameters_pass(client: openai.OpenAI) -> None:
    client.chat.completions.create(
        **chat(max_tokens=1),
        presence_penalty=0,
        response_format={"type": "text"},
        user="me",
        metadata={"a": "b"},
        store=False,
    )
    client.completions.create(model=NAME, prompt="a", max_tokens=1, echo=False, best_of=1)


def test_a_prompt_too_long_names_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"tokens, and the model reads 2048") as error:
        client.chat.completions.create(**chat("é" * 2000))
    assert error.value.code == "context_length_exceeded"
    assert error.value.param == "messages"
    with pytest.raises(openai.BadRequestError, match="token ids go from 0 to 383"):
        client.completions.create(model=NAME, prompt=[5, 384])


def test_requests_at_the_same_time_do_not_touch_each_other(
    base: LoadedModel, client: openai.OpenAI
) -> None:
    texts = [f"question {n} " * (n % 5 + 1) for n in range(16)]

    def ask(n: int) -> str:
        stream = client.chat.completions.create(**chat(texts[n], max_tokens=5 + n), stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, range(16)))
    assert together == [ask(n) for n in range(16)]


def test_a_slow_reader_and_a_client_that_leaves_block_nobody(
    folder: Path, client: openai.OpenAI
) -> None:
    with serving(config_of(folder, max_active=2)) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        health = f"{url}/health"
        with socket.create_connection((host, int(port))) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            body = json.dumps(chat(stream=True, max_tokens=1500)).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            slow.sendall(head.encode() + body)
            assert eventually(lambda: httpx.get(health).json()["active"] == 1)
            response = httpx.post(f"{url}/v1/chat/completions", json=chat(), timeout=60)
            assert response.status_code == 200
            assert httpx.get(health).json()["active"] == 1, "the slow one was still at it"
        assert eventually(lambda: httpx.get(health).json()["active"] == 0, 5), "its place is free"

        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{url}/v1/chat/completions", json=chat(max_tokens=2000), timeout=httpx.Timeout(0.3)
            )
        assert eventually(lambda: httpx.get(health).json()["active"] == 0, 5)


def test_a_full_queue_says_so(folder: Path) -> None:
    with serving(config_of(folder, max_active=1, max_waiting=1)) as (url, _):
        statuses = []

        def ask() -> None:
            body = chat(max_tokens=300)
            response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
            statuses.append((response.status_code, response.json().get("error")))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [error for status, error in statuses if status == 503]
        assert [status for status, _ in statuses].count(200) >= 2
        assert refused
        assert refused[0]["code"] == "overloaded"
        assert refused[0]["type"] == "server_error"
        too_many = httpx.post(f"{url}/v1/chat/completions", json=chat(n=3)).json()
        assert too_many["error"]["code"] == "overloaded"


def test_a_model_that_fails_costs_its_answers_and_not_the_server(
    folder: Path,
) -> None:
    failing = threading.Event()

    def fail(module: Any, *_: Any) -> None:
        if failing.is_set():
            raise RuntimeError("out of memory")

    hook = torch.nn.modules.module.register_module_forward_pre_hook(fail)
    try:
        with serving(config_of(folder)) as (url, _):
            failing.set()
            response = httpx.post(f"{url}/v1/chat/completions", json=chat())
            assert response.status_code == 500
            assert response.json()["error"]["type"] == "server_error"
            events = httpx.post(f"{url}/v1/chat/completions", json=chat(stream=True)).text
            assert '"type": "server_error"' in events
            failing.clear()
            assert httpx.post(f"{url}/v1/chat/completions", json=chat()).status_code == 200
    finally:
        hook.remove()


def test_an_api_key_is_asked_for(folder: Path) -> None:
    with serving(config_of(folder, api_key="sécret")) as (url, _):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "sécret"}):
            encoded = {k: v.encode() for k, v in headers.items()}
            response = httpx.get(f"{url}/v1/models", headers=encoded)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"
        right = {"authorization": "Bearer sécret".encode()}
        assert httpx.get(f"{url}/v1/models", headers=right).status_code == 200
        assert httpx.get(f"{url}/health").status_code == 200


def test_without_a_key_only_this_machine_is_let_in(folder: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="needs an API key"):
        config_of(folder, host="0.0.0.0")
    rebound = httpx.get(f"{url}/v1/models", headers={"host": "evil.example"})
    assert rebound.status_code == 403
    plain = httpx.post(
        f"{url}/v1/chat/completions",
        content=json.dumps(chat()),
        headers={"content-type": "text/plain"},  # what a web page may send without asking first
    )
    assert plain.status_code == 400


def test_a_taken_port_is_one_clear_message(folder: Path, url: str) -> None:
    port = int(url.rpartition(":")[2])
    with (
        pytest.raises(ResourceError, match=f"cannot listen on port {port} of 127.0.0.1"),
        serving(config_of(folder, port=port)),
    ):
        pass


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_with_open_streams(folder: Path, sent: signal.Signals) -> None:
    seen: list[str] = []

    def interrupt(url: str) -> None:
        body = chat(stream=True, max_tokens=2000)
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            seen.append(next(lines))
            times.append(time.monotonic())
            os.kill(os.getpid(), sent)
            seen.extend(lines)

    times: list[float] = []
    readers: list[threading.Thread] = []

    def ready(url: str) -> None:
        readers.append(threading.Thread(target=interrupt, args=(url,)))
        readers[0].start()

    before = set(threading.enumerate())
    handler = signal.getsignal(signal.SIGTERM)
    serve(config_of(folder), ready=ready)
    signal.signal(signal.SIGTERM, handler)
    assert time.monotonic() - times[0] < 3
    readers[0].join(5)
    assert "the server is stopping" in "".join(seen)
    assert not {t for t in set(threading.enumerate()) - before if t.name.startswith("burnish")}
