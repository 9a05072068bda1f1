"""From what is asked to pieces of its answers: queued, decoded, guarded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from burnish.nn.decoding import Row, Token, make_row
from burnish.nn.sampling import Sampling
from burnish.serve.access import ApiError
from burnish.serve.engine import Engine, EngineBusyError, EngineError, Generation
from burnish.serve.guard import Guard
from burnish.types import Conversation

FinishReason = Literal["stop", "length", "content_filter"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing asked, known to leave room for an answer."""

    conversation: Conversation
    ids: list[int]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer that is ready to be shown."""

    text: str
    tokens: tuple[Token, ...]
    """The tokens it stands for; none where the refusal took their place."""
    finish_reason: FinishReason | None


@dataclass(slots=True)
class Choice:
    """One answer asked for."""

    index: int
    conversation: Conversation
    generation: Generation | None
    """None when the guard refused the request: the model is not asked."""
    text: str = ""
    """What has been shown of it."""
    tokens: int = 0
    """Tokens the model has written for it."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to one request."""

    completion_id: str
    prompt_tokens: int
    choices: list[Choice]
    guard: Guard
    engine: Engine

    async def pieces(self, choice: Choice) -> AsyncIterator[Piece]:
        """The answer as it comes, or in one piece at its end if it must be checked whole.

        Raises:
            EngineError: the server stops, or the model failed.
        """
        if choice.generation is None:
            choice.text = self.guard.refusal
            yield Piece(choice.text, (), "content_filter")
            return
        held: list[Token] = []
        async for token in choice.generation.tokens():
            choice.tokens += 1
            held.append(token)
            if self.guard.checks_answers and token.finish_reason is None:
                continue
            piece = Piece("".join(t.text for t in held), tuple(held), token.finish_reason)
            if self.guard.refuses_answer(piece.text, self.completion_id):
                piece = Piece(self.guard.refusal, (), "content_filter")
            choice.text += piece.text
            held = []
            yield piece

    def cancel(self) -> None:
        """Give up what is not finished; called when the client has its answers or has left."""
        for choice in self.choices:
            if choice.generation is not None:
                self.engine.cancel(choice.generation)


def ask(
    engine: Engine,
    guard: Guard,
    completion_id: str,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    n: int,
) -> Answers:
    """Queue `n` answers to each prompt; choice k draws with seed + k.

    Raises:
        ApiError: too many requests wait, or the server stops.
    """
    choices: list[Choice] = []
    rows: list[tuple[Choice, Row]] = []
    for prompt in prompts:
        refused = guard.refuses_request(prompt.conversation, completion_id)
        for _ in range(n):
            choices.append(Choice(len(choices), prompt.conversation, None))
            if refused:
                continue
            own = replace(sampling, seed=sampling.seed + len(choices) - 1)
            rows.append((choices[-1], make_row(engine.loaded, prompt.ids, own, text=True)))
    try:
        generations = engine.submit([row for _, row in rows])
    except EngineBusyError as error:
        raise ApiError(f"{error}; try again shortly", status=503, code="overloaded") from error
    except EngineError as error:
        raise ApiError(str(error), status=503) from error
    for (choice, _), generation in zip(rows, generations, strict=True):
        choice.generation = generation
    return Answers(completion_id, sum(len(p.ids) for p in prompts), choices, guard, engine)
