"""The routes: OpenAI's three, /health, and /v1/feedback."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from burnish.chat import render_prompt
from burnish.errors import InputError, UserError
from burnish.nn.decoding import answer_room
from burnish.nn.sampling import Sampling
from burnish.serve.access import ApiError, Gate
from burnish.serve.answers import Answers, Prompt, ask
from burnish.serve.engine import Engine, EngineError
from burnish.serve.feedback import Answered, Feedback
from burnish.serve.guard import Guard
from burnish.serve.requests import (
    BODIES,
    ChatRequest,
    CompletionRequest,
    FeedbackRequest,
    body_error,
)
from burnish.serve.responses import Form
from burnish.types import Conversation, Message

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """What the routes work with."""

    engine: Engine
    name: str
    """The model's name in the API."""
    guard: Guard
    feedback: Feedback
    max_tokens: int = 1024
    """Length of a chat answer where a request sets none."""
    temperature: float = 0.0
    """Temperature where a request sets none."""


def create_app(service: Service, *, api_key: str | None = None) -> FastAPI:
    """The HTTP interface to a started engine."""
    app = FastAPI(title="Burnish", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Gate, api_key=api_key)
    _add_error_forms(app)
    created = int(time.time())
    model = {"id": service.name, "object": "model", "created": created, "owned_by": "burnish"}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        active, waiting = service.engine.load
        return {"status": "ok", "model": service.name, "active": active, "waiting": waiting}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        _check_model(service, name)
        return model

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        _check_model(service, body.model)
        body.refuse_unsupported()
        conversation = body.conversation()
        limit = body.max_completion_tokens or body.max_tokens or service.max_tokens
        sampling = body.sampling(limit, service.temperature, body.wanted_logprobs())
        prompts = [_prompt(service, conversation, "messages")]
        return await _respond(service, request, body, prompts, sampling)

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        _check_model(service, body.model)
        body.refuse_unsupported()
        sampling = body.sampling(body.max_tokens, service.temperature, body.logprobs)
        prompts = [_raw_prompt(service, prompt) for prompt in body.prompts()]
        return await _respond(service, request, body, prompts, sampling)

    @app.post("/v1/feedback")
    def feedback(body: FeedbackRequest) -> dict[str, str]:
        answered = service.feedback.find(body.completion_id, body.index)
        if answered is None:
            raise ApiError(
                f"no answer {body.index} of {body.completion_id!r} is remembered",
                status=404,
                param="completion_id",
            )
        service.feedback.record(
            body.completion_id, answered, body.rating, body.correction, body.comment
        )
        return {"status": "recorded"}

    return app


def _add_error_forms(app: FastAPI) -> None:
    """Give every error OpenAI's form."""

    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
        return body_error(error, BODIES[request.url.path]).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        what = f"{request.method} {request.url.path}: {error.detail}"
        return ApiError(what, status=error.status_code).response()

    @app.exception_handler(EngineError)
    async def engine_error(_: Request, error: EngineError) -> JSONResponse:
        return ApiError(str(error), status=500).response()

    @app.exception_handler(UserError)
    async def user_error(_: Request, error: UserError) -> JSONResponse:
        # What reaches this is the fault of whoever runs the server, such as a full disk.
        _log.error("%s", error)
        return ApiError(error.what, status=500).response()

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> JSONResponse:
        _log.error("a request failed", exc_info=error)
        return ApiError("the request failed; the server's log says how", status=500).response()


def _check_model(service: Service, name: str) -> None:
    if name != service.name:
        raise ApiError(
            f"there is no model {name!r} here; this server has {service.name!r}",
            status=404,
            param="model",
            code="model_not_found",
        )


def _prompt(service: Service, conversation: Conversation, param: str) -> Prompt:
    """The one way from words to ids: what `burnish tune` trained through."""
    try:
        ids = render_prompt(conversation, service.engine.loaded.template)
    except UserError as error:
        raise ApiError(error.what, param=param) from error
    return _checked(service, Prompt(conversation, ids), param)


def _raw_prompt(service: Service, prompt: str | list[int]) -> Prompt:
    """A prompt without chat template: a text rendered like a raw row, or ids as they are."""
    loaded = service.engine.loaded
    if isinstance(prompt, str):
        return _prompt(service, Conversation((Message("user", prompt),), raw=True), "prompt")
    if not all(0 <= i < loaded.vocabulary_size for i in prompt):
        raise ApiError(f"token ids go from 0 to {loaded.vocabulary_size - 1}", param="prompt")
    text = loaded.tokenizer.decode(prompt, skip_special_tokens=False)
    conversation = Conversation((Message("user", text),), raw=True)
    return _checked(service, Prompt(conversation, prompt), "prompt")


def _checked(service: Service, prompt: Prompt, param: str) -> Prompt:
    try:
        answer_room(service.engine.loaded, prompt.ids)
    except InputError as error:
        code = "context_length_exceeded" if prompt.ids else None
        raise ApiError(error.what, param=param, code=code) from error
    return prompt


async def _respond(
    service: Service,
    request: Request,
    body: ChatRequest | CompletionRequest,
    prompts: Sequence[Prompt],
    sampling: Sampling,
) -> Response:
    """Queue the answers and send them, whole or as a stream."""
    options = body.stream_options
    if options is not None and not body.stream:
        raise ApiError("stream_options needs stream = true", param="stream_options")
    chat = isinstance(body, ChatRequest)
    completion_id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
    form = Form(service.engine.loaded, service.name, chat, sampling.logprobs is not None)
    answers = ask(service.engine, service.guard, completion_id, prompts, sampling, body.n)
    if body.stream:
        include_usage = options is not None and options.include_usage
        return StreamingResponse(
            _events(service, form, answers, include_usage),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
    try:
        whole = await _unless_disconnected(request, form.whole(answers))
    finally:
        answers.cancel()
    _remember(service, answers)
    return JSONResponse(whole)


async def _events(
    service: Service, form: Form, answers: Answers, include_usage: bool
) -> AsyncIterator[str]:
    try:
        async for event in form.events(answers, include_usage):
            yield event
        _remember(service, answers)
    finally:
        answers.cancel()


async def _unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """Do the work, but give up as soon as nobody is there to receive it."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError("the client has left", status=499)
        return task.result()
    finally:
        watcher.cancel()
        task.cancel()


def _remember(service: Service, answers: Answers) -> None:
    shown = [Answered(choice.conversation, choice.text) for choice in answers.choices]
    service.feedback.remember(answers.completion_id, shown)
