"""What a client may ask, checked: OpenAI's parameters as pydantic models.

A parameter is honoured, or has no bearing on the answer, or is refused; none is silently ignored.
"""

from __future__ import annotations

import json
import random
from typing import Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, model_validator

from burnish.config import did_you_mean
from burnish.nn.sampling import Sampling
from burnish.records.messages import UnfitError, openai_conversation
from burnish.serve.access import ApiError
from burnish.types import Conversation

StopText = Annotated[str, Field(min_length=1)]


class _Body(BaseModel):
    # Strict: "5" for a number is the client's mistake, and a mistake must not pass unseen.
    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def check_unicode(cls, values: Any) -> Any:
        """Refuse half a surrogate pair: JSON may spell it, but no tokenizer can read it."""
        try:
            json.dumps(values, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:
            raise ValueError("the body holds half a Unicode surrogate pair") from error
        return values


class StreamOptions(_Body):
    """Options of a stream."""

    include_usage: bool = False
    include_obfuscation: bool = False
    """OpenAI's padding of chunks against eavesdroppers; there is none here to switch off."""


class _Asked(_Body):
    """Parameters that both endpoints have."""

    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    n: int = Field(1, ge=1, le=16)
    stop: StopText | list[StopText] | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None

    def sampling(self, max_tokens: int, temperature: float, logprobs: int | None) -> Sampling:
        """How to draw the answers; the first two apply where the request says nothing."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=max_tokens,
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=tuple(stop),
            seed=random.getrandbits(32) if self.seed is None else self.seed,
            logprobs=logprobs,
        )

    def refuse_unsupported(self) -> None:
        """Refuse what would change the answer and is not built.

        Raises:
            ApiError: naming the parameter.
        """
        for name, harmless in _REFUSED.items():
            value = getattr(self, name, None)
            if value is not None and value not in harmless:
                raise ApiError(
                    f"{name} = {value!r} is not supported by this server; leave it out",
                    param=name,
                    code="unsupported_parameter",
                )


# Parameters that are accepted with these values alone, which change nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto", "none"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
    "functions": ([],),
    "function_call": ("auto", "none"),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
}


class TextPart(_Body):
    """A part of a content list; no other kind can be read."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A turn; `records.messages` reads the rest of it."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None


class ChatRequest(_Asked):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    web_search_options: Any = None
    functions: list[Any] | None = None
    function_call: Any = None
    # These concern OpenAI's own service.
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    def conversation(self) -> Conversation:
        """The messages as a conversation that waits for the assistant.

        Raises:
            ApiError: content other than text, or nothing left to answer.
        """
        if self.messages[-1].role == "assistant":
            raise ApiError("the last message is the assistant's own", param="messages")
        tools = self.tools if self.tool_choice != "none" else None
        try:
            return openai_conversation([m.model_dump() for m in self.messages], tools)
        except UnfitError as error:
            raise ApiError(str(error), param="messages") from error

    def wanted_logprobs(self) -> int | None:
        """How many alternatives to report, None for no log-probabilities.

        Raises:
            ApiError: top_logprobs without logprobs.
        """
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError("top_logprobs needs logprobs = true", param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(_Asked):
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int = Field(16, ge=1)
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    def prompts(self) -> list[str | list[int]]:
        """Each prompt, as text or as ids.

        Raises:
            ApiError: there is none.
        """
        if isinstance(self.prompt, str):
            return [self.prompt]
        if not self.prompt:
            raise ApiError("the prompt is an empty list", param="prompt")
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)


class FeedbackRequest(_Body):
    """POST /v1/feedback."""

    completion_id: str
    rating: Literal["up", "down"]
    index: int = Field(0, ge=0)
    """Which of the request's choices."""
    correction: StopText | None = None
    """The answer as it should have been."""
    comment: str | None = None


BODIES: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/feedback": FeedbackRequest,
}


def body_error(error: RequestValidationError, body: type[BaseModel]) -> ApiError:
    """Every fault of a body in one error; `param` names the first."""
    faults: dict[str, list[str]] = {}
    for fault in error.errors():
        if fault["type"] == "json_invalid":
            return ApiError(f"the body is no JSON: {fault['ctx']['error']}")
        if fault["type"] == "value_error":
            return ApiError(str(fault["ctx"]["error"]))
        name = _name(fault["loc"][1:])
        message = fault["msg"][:1].lower() + fault["msg"][1:]
        if fault["type"] == "extra_forbidden":
            known = did_you_mean(name, body.model_fields) if name in fault["loc"] else ""
            message = f"there is no such parameter{known}"
        faults.setdefault(name, []).append(message)
    if set(faults) == {""}:
        return ApiError("the body is no JSON object; send it with Content-Type: application/json")
    text = "; ".join(f"{name}: {' or '.join(messages)}" for name, messages in faults.items())
    return ApiError(text, param=next(iter(faults)))


def _name(location: tuple[int | str, ...]) -> str:
    """`messages[0].role`, without the names that pydantic gives the members of a union."""
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "TextPart"):
            name += f".{part}" if name else part
    return name
