"""A model behind an OpenAI-compatible endpoint as a writer of drafts.

Spoken by `burnish serve`, vLLM, llama.cpp, Ollama and most providers: POST URL/chat/completions
with {model, messages, max_tokens, temperature, seed}.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from burnish.errors import ConfigError, InputError, UserError
from burnish.label.drafts import Writer
from burnish.records.messages import openai_messages
from burnish.types import Conversation

ATTEMPTS = 6
"""How often one request is tried."""

# Seconds before the second try; doubled each time, so that six tries span half a minute.
_FIRST_PAUSE = 1.0
# A server may ask for more patience than that, but not for an hour of it.
_LONGEST_PAUSE = 60.0
# Answers of a large model on a busy server take minutes.
_TIMEOUT = httpx.Timeout(300.0, connect=10.0)

# Refused for what the conversation holds, such as its length.
_REFUSED = {400, 413, 422}
_REMEDIES = {
    401: "set the environment variable that --api-key-env names to a key it takes",
    403: "set the environment variable that --api-key-env names to a key that may use the model",
    404: "check --model NAME, and that the URL ends with the version, /v1",
}
# Worth another try: timeout, conflict, too early, too many requests, and faults of the server.
_PASSING = {408, 409, 425, 429}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model answers, and how it is asked."""

    url: str
    """Up to and with the version, such as http://127.0.0.1:8000/v1."""
    model: str
    api_key: str | None = field(default=None, repr=False)
    max_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0
    """Sent where the temperature is above 0."""
    parallel: int = 8
    """Requests under way at a time."""
    first_pause: float = _FIRST_PAUSE
    """Seconds before the second try."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        try:
            url = httpx.URL(self.url)
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError(
                f"no endpoint: {self.url!r}", do="give a URL such as http://127.0.0.1:8000/v1"
            )
        key = self.api_key or ""
        if not (key.isascii() and key.isprintable()):
            # Not shown: it is a secret.
            raise ConfigError(
                "the endpoint's key holds characters that no HTTP header takes",
                do="look for line breaks and quotes around it in the environment variable",
            )
        if not 0 <= self.temperature <= 2:
            raise ConfigError(f"temperature = {self.temperature}: must be from 0 to 2")


def endpoint_writer(endpoint: Endpoint, on_wait: Callable[[str], None] = lambda _: None) -> Writer:
    """A writer of drafts that asks the endpoint, up to `parallel` requests at a time.

    429, 408 and faults of the server (5xx), timeouts and lost connections are tried again up to
    `ATTEMPTS` times, after pauses that double, or as long as `Retry-After` says (RFC 9110,
    section 10.2.3); `on_wait` is told what for. Where nothing listens from the start, that is an
    error at once. A request that is refused for what it holds (400, 413, 422) is an error of that
    example alone.

    Raises:
        InputError: when it writes: the endpoint cannot be reached, refuses the key or the model,
            or does not speak OpenAI's language.
    """
    patience = _Patience(on_wait)

    def write(conversations: Sequence[Conversation]) -> list[str | UserError]:
        # Not threads: Ctrl-C would wait for the answers under way, which take minutes.
        return asyncio.run(_ask_all(endpoint, conversations, patience))

    return write


@dataclass(slots=True)
class _Patience:
    """With a server that has answered once: it may be back soon. And what is waited for."""

    on_wait: Callable[[str], None]
    has_answered: bool = False
    waits_for: str | None = None

    def wait(self, fault: str) -> None:
        """Say what is waited for; of the requests that fail together the first does."""
        if fault != self.waits_for:
            self.waits_for = fault
            self.on_wait(fault)


async def _ask_all(
    endpoint: Endpoint, conversations: Sequence[Conversation], patience: _Patience
) -> list[str | UserError]:
    headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
    free = asyncio.Semaphore(endpoint.parallel)
    async with httpx.AsyncClient(headers=headers, timeout=_TIMEOUT) as client:

        async def ask(conversation: Conversation) -> str | UserError:
            async with free:
                return await _ask(client, endpoint, conversation, patience)

        return await asyncio.gather(*map(ask, conversations))


async def _ask(
    client: httpx.AsyncClient,
    endpoint: Endpoint,
    conversation: Conversation,
    patience: _Patience,
) -> str | UserError:
    """One answer; a refusal of this very conversation is returned."""
    if not conversation.messages:
        return InputError("nothing to answer: the example has no turn before its answer")
    url = f"{endpoint.url.rstrip('/')}/chat/completions"
    pause = endpoint.first_pause
    for attempt in range(ATTEMPTS):
        asked_pause = 0.0
        try:
            response = await client.post(url, json=_body(endpoint, conversation))
            patience.has_answered = True
            if not _is_passing(response.status_code):
                patience.waits_for = None
                return _answer(response, endpoint)
            fault = f"the server answers {response.status_code} {response.reason_phrase}"
            asked_pause = _asked_pause(response)
        except httpx.ConnectError as error:
            fault = str(error) or type(error).__name__
            if not patience.has_answered:
                raise InputError(
                    f"nothing answers there ({fault})",
                    where=endpoint.url,
                    do="start the server, or check the URL",
                ) from error
        except httpx.RequestError as error:
            fault = str(error) or type(error).__name__
        if attempt + 1 < ATTEMPTS:
            patience.wait(fault)
            # Spread, or all the requests that failed together would come back together.
            await asyncio.sleep(max(pause * random.uniform(0.75, 1.25), asked_pause))
            pause *= 2
    raise InputError(
        f"cannot be asked ({fault}; tried {ATTEMPTS} times)",
        where=endpoint.url,
        do="check the URL and that the server runs; the same command then adds what is missing",
    )


def _body(endpoint: Endpoint, conversation: Conversation) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": openai_messages(conversation.messages),
        "max_tokens": endpoint.max_tokens,
        "temperature": endpoint.temperature,
    }
    if endpoint.temperature:
        body["seed"] = endpoint.seed
    if conversation.tools is not None:
        body["tools"] = json.loads(conversation.tools)
    return body


def _is_passing(status: int) -> bool:
    return status in _PASSING or status >= 500


def _asked_pause(response: httpx.Response) -> float:
    """Seconds that `Retry-After` asks for; 0 where it says nothing, or gives a date."""
    asked = response.headers.get("retry-after", "")
    return min(float(asked), _LONGEST_PAUSE) if asked.isdecimal() else 0.0


def _answer(response: httpx.Response, endpoint: Endpoint) -> str | UserError:
    """The text of the answer, or why this very conversation was refused."""
    if response.status_code in _REFUSED:
        return InputError(f"the endpoint refuses the conversation: {_message(response)}")
    if response.status_code != 200:
        raise InputError(
            f"the endpoint answers {response.status_code}: {_message(response)}",
            where=endpoint.url,
            do=_REMEDIES.get(response.status_code, "check the URL; it ends with the version, /v1"),
        )
    try:
        content = response.json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise InputError(
            f"answers something else than OpenAI's chat completions: {_message(response)}",
            where=endpoint.url,
            do="check the URL; it ends with the version, /v1",
        ) from None
    if not isinstance(content, str) or not content.strip():
        return InputError("the endpoint answers without text")
    return content


def _message(response: httpx.Response) -> str:
    """What a server says of its refusal, in OpenAI's error object or any other words."""
    try:
        body = response.json()
        error = body.get("error", body) if isinstance(body, Mapping) else body
        said = error.get("message", error) if isinstance(error, Mapping) else error
    except ValueError:
        said = response.text
    return " ".join(str(said).split())[:300] or "nothing more"
