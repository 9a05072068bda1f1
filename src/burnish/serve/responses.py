"""Answers in OpenAI's form, whole or as a stream of chunks."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from burnish.nn.decoding import Token
from burnish.nn.models import LoadedModel
from burnish.serve.access import ApiError
from burnish.serve.answers import Answers, Choice
from burnish.serve.engine import EngineError


@dataclass(frozen=True)
class Form:
    """How the answers to one request are written down."""

    loaded: LoadedModel
    model: str
    """The model's name in the API."""
    chat: bool
    """/v1/chat/completions, else /v1/completions."""
    logprobs: bool
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self, answers: Answers) -> dict[str, Any]:
        """The response object, once every answer is complete.

        Raises:
            EngineError: the server stops, or the model failed.
        """
        choices = []
        for choice in answers.choices:
            pieces = [piece async for piece in answers.pieces(choice)]
            tokens = [token for piece in pieces for token in piece.tokens]
            answer: dict[str, Any] = {"text": choice.text}
            if self.chat:
                message = {"role": "assistant", "content": choice.text, "refusal": None}
                answer = {"message": message}
            choices.append(
                {
                    "index": choice.index,
                    **answer,
                    "logprobs": self._logprobs(tokens, 0),
                    "finish_reason": pieces[-1].finish_reason,
                }
            )
        name = "chat.completion" if self.chat else "text_completion"
        return {**self._envelope(answers, name, choices), "usage": _usage(answers)}

    async def events(self, answers: Answers, include_usage: bool) -> AsyncIterator[str]:
        """Server-sent events, one per chunk, ended by [DONE].

        Choices come one after the other; all of them are being written from the start.
        """
        name = "chat.completion.chunk" if self.chat else "text_completion"
        # Until the last chunk the usage is null, and absent where it was not asked for.
        usage = {"usage": None} if include_usage else {}
        try:
            for choice in answers.choices:
                async for part in self._parts(answers, choice):
                    yield _event({**self._envelope(answers, name, [part]), **usage})
            if include_usage:
                yield _event({**self._envelope(answers, name, []), "usage": _usage(answers)})
        except EngineError as error:
            yield _event(ApiError(str(error), status=500).body)
        yield "data: [DONE]\n\n"

    async def _parts(self, answers: Answers, choice: Choice) -> AsyncIterator[dict[str, Any]]:
        """The choice objects of an answer's chunks."""
        if self.chat:
            yield _delta(choice, {"role": "assistant", "content": ""})
        async for piece in answers.pieces(choice):
            offset = len(choice.text) - len(piece.text)
            logprobs = self._logprobs(piece.tokens, offset)
            if not self.chat:
                yield {
                    "index": choice.index,
                    "text": piece.text,
                    "logprobs": logprobs,
                    "finish_reason": piece.finish_reason,
                }
                continue
            if piece.text or (logprobs and logprobs["content"]):
                yield _delta(choice, {"content": piece.text}, logprobs)
            if piece.finish_reason:
                yield _delta(choice, {}, finish_reason=piece.finish_reason)

    def _envelope(
        self, answers: Answers, name: str, choices: list[dict[str, Any]]
    ) -> dict[str, Any]:
        return {
            "id": answers.completion_id,
            "object": name,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.loaded.identity,
            "choices": choices,
        }

    def _logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any] | None:
        """Log-probabilities in the endpoint's form; stop tokens are no part of the text."""
        if not self.logprobs:
            return None
        stops = self.loaded.stop_ids
        shown = [t for t in tokens if t.logprobs is not None and t.id not in stops]
        return self._chat_logprobs(shown) if self.chat else self._text_logprobs(shown, offset)

    def _chat_logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        content = []
        for token in tokens:
            assert token.logprobs is not None
            top = [self._entry(i, logprob) for i, logprob in token.logprobs.top]
            content.append({**self._entry(token.id, token.logprobs.logprob), "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _text_logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any]:
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.text)
        known = [token.logprobs for token in tokens if token.logprobs is not None]
        return {
            "tokens": [self._text(token.id) for token in tokens],
            "token_logprobs": [logprobs.logprob for logprobs in known],
            "top_logprobs": [{self._text(i): p for i, p in logprobs.top} for logprobs in known],
            "text_offset": offsets,
        }

    def _entry(self, token_id: int, logprob: float) -> dict[str, Any]:
        text = self._text(token_id)
        # Half a character decodes to U+FFFD, whose bytes would be wrong.
        known = None if "\ufffd" in text else list(text.encode())
        return {"token": text, "logprob": logprob, "bytes": known}

    def _text(self, token_id: int) -> str:
        return str(self.loaded.tokenizer.decode([token_id]))


def _delta(
    choice: Choice,
    delta: Mapping[str, Any],
    logprobs: dict[str, Any] | None = None,
    finish_reason: str | None = None,
) -> dict[str, Any]:
    return {
        "index": choice.index,
        "delta": delta,
        "logprobs": logprobs,
        "finish_reason": finish_reason,
    }


def _usage(answers: Answers) -> dict[str, int]:
    written = sum(choice.tokens for choice in answers.choices)
    return {
        "prompt_tokens": answers.prompt_tokens,
        "completion_tokens": written,
        "total_tokens": answers.prompt_tokens + written,
    }


def _event(body: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
