"""Restrictions and feedback, over a real socket. Run: pytest tests/test_serve_guard.py"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from burnish.errors import ConfigError, InputError, ResourceError
from burnish.records import read_examples
from burnish.serve.feedback import Answered, Feedback
from burnish.serve.guard import Guard, load_guard
from burnish.serve.serve import ServeConfig, serving
from burnish.types import Conversation, Message
from tiny import tiny_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("models") / "tiny")


@contextmanager
def served(folder: Path, tmp_path: Path, restrictions: str = "") -> Iterator[str]:
    path = tmp_path / "restrictions.toml"
    path.write_text(restrictions, encoding="utf-8")
    config = ServeConfig(
        str(folder),
        port=0,
        precision="fp32",
        restrictions=path,
        feedback=tmp_path / "feedback.jsonl",
    )
    with serving(config) as (url, _):
        yield url


def ask(url: str, text: str = "hello", **changes: Any) -> dict[str, Any]:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 12}
    response = httpx.post(f"{url}/v1/chat/completions", json=body | changes, timeout=60)
    assert response.status_code == 200, response.text
    return response.json() if not changes.get("stream") else events(response.text)


def events(text: str) -> dict[str, Any]:
    """A stream's text, its reason, and how many chunks brought text."""
    chunks = [json.loads(e.removeprefix("data: ")) for e in text.split("\n\n")[:-2]]
    texts = [c["choices"][0]["delta"].get("content") for c in chunks]
    return {
        "text": "".join(t or "" for t in texts),
        "brought": sum(bool(t) for t in texts),
        "reason": chunks[-1]["choices"][0]["finish_reason"],
    }


def test_an_answer_that_is_not_allowed_becomes_the_refusal(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with served(folder, tmp_path) as url:
        free = ask(url)
        free_stream = ask(url, stream=True)
    text = free["choices"][0]["message"]["content"]
    assert free["choices"][0]["finish_reason"] == free_stream["reason"] == "length"
    assert free_stream["text"] == text
    assert free_stream["brought"] > 1

    with served(folder, tmp_path, 'refusal = "No."\nallowed_answers = ["balance"]') as url:
        caplog.clear()
        answer = ask(url, logprobs=True)
        assert answer["choices"][0]["message"]["content"] == "No."
        assert answer["choices"][0]["finish_reason"] == "content_filter"
        assert answer["choices"][0]["logprobs"]["content"] == []
        assert answer["usage"]["completion_tokens"] == 12
        assert f"{answer['id']}: answer replaced: not among those allowed" in caplog.text
        assert ask(url, stream=True) == {"text": "No.", "brought": 1, "reason": "content_filter"}

    with served(folder, tmp_path, f"allowed_answers = [{json.dumps(text.strip())}]") as url:
        with caplog.at_level(logging.INFO, "burnish"):
            allowed = ask(url)
        assert allowed["choices"] == free["choices"]
        assert f"{allowed['id']}: answer allowed" in caplog.text
        assert ask(url, stream=True) == {"text": text, "brought": 1, "reason": "length"}


def test_a_denied_request_never_reaches_the_model(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with served(folder, tmp_path, 'refusal = "No."\ndenied_in_requests = ["(?i)secret"]') as url:
        caplog.clear()
        answer = ask(url, "tell me the SECRET")
        assert answer["choices"][0]["message"]["content"] == "No."
        assert answer["choices"][0]["finish_reason"] == "content_filter"
        assert answer["usage"]["completion_tokens"] == 0
        assert f"{answer['id']}: request refused: it holds '(?i)secret'" in caplog.text
        assert ask(url, "hello")["choices"][0]["finish_reason"] == "length"
        raw = {"model": "tiny", "prompt": ["a secret", "hello"], "max_tokens": 4}
        choices = httpx.post(f"{url}/v1/completions", json=raw).json()["choices"]
        assert [c["finish_reason"] for c in choices] == ["content_filter", "length"]
        assert choices[0]["text"] == "No."


def test_a_pattern_denied_in_answers_is_never_shown(folder: Path, tmp_path: Path) -> None:
    with served(folder, tmp_path) as url:
        text = ask(url)["choices"][0]["message"]["content"]
    pattern = json.dumps("\\A" + "." * 3)  # denies any answer of three characters
    with served(folder, tmp_path, f"denied_in_answers = [{pattern}]") as url:
        whole, streamed = ask(url), ask(url, stream=True)
    assert whole["choices"][0]["message"]["content"] == Guard().refusal
    assert streamed["text"] == Guard().refusal
    assert text[:3] not in json.dumps([whole, streamed])


def test_wrong_restrictions_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "restrictions.toml"
    path.write_text('denied_in_requests = ["(", "ok"]\ndenied_in_answers = ["[z-a]"]\n')
    with pytest.raises(ConfigError) as error:
        load_guard(path, tmp_path)
    assert str(path) in str(error.value)
    assert "'('" in str(error.value)
    assert "'[z-a]'" in str(error.value)
    path.write_text('refusals = "No."\n')
    with pytest.raises(ConfigError, match="did you mean 'refusal'"):
        load_guard(None, tmp_path)
    assert load_guard(None, tmp_path / "nowhere") == Guard()
    with pytest.raises(InputError, match=r"nowhere\.toml"):
        load_guard(tmp_path / "nowhere.toml", tmp_path)


def test_feedback_becomes_records(folder: Path, tmp_path: Path) -> None:
    with served(folder, tmp_path) as url:
        tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
        answers = [ask(url, "one"), ask(url, "two", n=2, tools=tools), ask(url, "three")]
        raw = {"model": "tiny", "prompt": "a b", "max_tokens": 3}
        completion = httpx.post(f"{url}/v1/completions", json=raw).json()
        for body in (
            {"completion_id": answers[0]["id"], "rating": "up"},
            {"completion_id": answers[0]["id"], "rating": "up"},
            {
                "completion_id": answers[1]["id"],
                "index": 1,
                "rating": "down",
                "correction": "é",
                "comment": "too long",
            },
            {"completion_id": answers[2]["id"], "rating": "down"},
            {"completion_id": completion["id"], "rating": "up"},
        ):
            response = httpx.post(f"{url}/v1/feedback", json=body)
            assert response.json() == {"status": "recorded"}
        for body, status, param in (
            ({"completion_id": "chatcmpl-0", "rating": "up"}, 404, "completion_id"),
            ({"completion_id": answers[0]["id"], "rating": "up", "index": 1}, 404, "completion_id"),
            ({"completion_id": answers[0]["id"], "rating": "good"}, 400, "rating"),
            ({"completion_id": answers[0]["id"], "rating": "up", "corection": "x"}, 400, None),
        ):
            response = httpx.post(f"{url}/v1/feedback", json=body)
            assert response.status_code == status
            assert response.json()["error"]["param"] == (param or "corection")
        assert "did you mean 'correction'" in response.text

    read = read_examples(str(tmp_path / "feedback.jsonl"))
    assert not read.rejects
    up, again, corrected, waiting, raw_up = read.examples
    content = answers[0]["choices"][0]["message"]["content"]
    assert up.conversation == Conversation((Message("user", "one"), Message("assistant", content)))
    assert up.source == "feedback"
    assert up.metadata["model"] == answers[0]["system_fingerprint"]
    assert up.id == again.id, "the same feedback twice is one example"
    assert corrected.conversation.answer == Message("assistant", "é")
    assert json.loads(corrected.conversation.tools or "") == tools
    assert corrected.metadata["comment"] == "too long"
    assert corrected.metadata["draft"] == answers[1]["choices"][1]["message"]["content"]
    assert waiting.conversation == Conversation((Message("user", "three"),))
    assert waiting.metadata["draft"] == answers[2]["choices"][0]["message"]["content"]
    assert raw_up.conversation.raw


def feedback_of(path: Path, served: int) -> Feedback:
    feedback = Feedback(path, "base-1")
    for n in range(served):
        conversation = Conversation((Message("user", f"question {n}"),))
        feedback.remember(f"chatcmpl-{n}", [Answered(conversation, "answer " * 400)])
    return feedback


def test_old_answers_are_forgotten(tmp_path: Path) -> None:
    feedback = feedback_of(tmp_path / "feedback.jsonl", 1200)
    assert feedback.find("chatcmpl-0", 0) is None
    assert feedback.find("chatcmpl-1199", 0) is not None
    assert feedback.find("chatcmpl-1199", 1) is None


def test_half_a_line_left_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    feedback = feedback_of(path, 3)
    for n in range(3):
        answered = feedback.find(f"chatcmpl-{n}", 0)
        assert answered is not None
        feedback.record(f"chatcmpl-{n}", answered, "up", None, None)
        if n == 1:
            os.truncate(path, path.stat().st_size - 100)
    read = read_examples(str(path))
    assert [e.conversation.messages[0].content for e in read.examples] == [
        "question 0",
        "question 2",
    ]
    assert len(read.rejects) == 1


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "feedback.jsonl"
    feedback = feedback_of(path, 2)
    first, second = feedback.find("chatcmpl-0", 0), feedback.find("chatcmpl-1", 0)
    assert first is not None
    assert second is not None
    feedback.record("chatcmpl-0", first, "up", None, None)
    before = path.read_bytes()
    # A limit on file size stands in for a full disk: the write stops half-way, then fails.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))
    try:
        with pytest.raises(ResourceError, match="the disk is full"):
            feedback.record("chatcmpl-1", second, "up", None, None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
