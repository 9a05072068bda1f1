"""Answers to prompts: many at once, or one as a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from burnish.chat import answer_text
from burnish.errors import ModelError
from burnish.nn.attention import ATTENTION
from burnish.nn.decoding import DecodingBatch, FinishReason, Row, Token, make_row
from burnish.nn.models import LoadedModel
from burnish.nn.sampling import Sampling, TokenLogprobs
from burnish.progress import progress_bar

__all__ = ["Completion", "Sampling", "Token", "TokenLogprobs", "generate", "generating", "stream"]

# A step reads every weight once, whatever the number of rows; past this many a CPU is bound by
# arithmetic and gains no more.
MAX_ROWS = 64

# Prompts are read a quarter of a batch at a time: reading one costs a whole forward pass.
_LEAST_JOINING = MAX_ROWS // 4

# Room for keys and values, in bytes; where rows are long, fewer are decoded together.
_CACHE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    ids: list[int]
    """As generated: with the stop token, if it ended with one."""
    text: str
    """Without the stop token, and cut before a stop string."""
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprobs, ...] | None
    """One per id, if asked for."""


def generate(
    loaded: LoadedModel, prompts: Sequence[list[int]], sampling: Sampling
) -> list[Completion]:
    """Answer every prompt; answers come in the order of the prompts.

    The longest prompts go first, rows that end give their places to prompts that wait, and what
    prompts share at their beginning is computed once. In fp32 a greedy answer is the same whatever
    the prompt is batched with, but for ties within rounding.

    Raises:
        InputError: a prompt is empty or too long for the model.
        ModelError: the model keeps a state other than keys and values.
    """
    rows = [
        make_row(loaded, ids, replace(sampling, seed=sampling.seed + n), text=bool(sampling.stop))
        for n, ids in enumerate(prompts)
    ]
    answers: dict[Row, list[Token]] = {row: [] for row in rows}
    waiting = deque(sorted(rows, key=lambda row: len(row.prompt), reverse=True))
    with generating(loaded), progress_bar("generating", unit="answer", total=len(rows)) as bar:
        batch = DecodingBatch(loaded)
        while waiting or batch.rows:
            batch.join(_next_rows(batch, waiting))
            for row, token in batch.step():
                answers[row].append(token)
                if token.finish_reason:
                    batch.leave(row)
                    bar.update(1)
    return [_completion(loaded, row, tokens) for row, tokens in answers.items()]


def stream(loaded: LoadedModel, prompt_ids: list[int], sampling: Sampling) -> Iterator[Token]:
    """Answer one prompt token by token.

    Raises:
        InputError: the prompt is empty or too long for the model.
        ModelError: the model keeps a state other than keys and values.
    """
    row = make_row(loaded, prompt_ids, sampling, text=True)
    with generating(loaded):
        batch = DecodingBatch(loaded)
        batch.join([row])
        while row.finish_reason is None:
            ((_, token),) = batch.step()
            yield token


@contextmanager
def generating(loaded: LoadedModel) -> Iterator[None]:
    """Evaluation mode and the attention that decoding needs; the model's own ones come back after.

    Raises:
        ModelError: the model keeps a state other than keys and values.
    """
    require_plain_cache(loaded)
    model = loaded.causal_lm
    attention, training = model.config._attn_implementation, model.training
    model.eval()
    if attention == ATTENTION:
        model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        if attention == ATTENTION:
            model.set_attn_implementation(attention)
        model.train(training)


def require_plain_cache(loaded: LoadedModel) -> None:
    """Check that the model's only state is the keys and values of its tokens.

    Raises:
        ModelError: it keeps another, such as a state-space model's.
    """
    config = loaded.causal_lm.config
    layers = DynamicCache(config=config).layers
    if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        raise ModelError(
            f"{config.model_type} keeps a state other than keys and values: it cannot be batched",
            where=loaded.origin,
            do="choose a base with attention in every layer, such as Llama, Qwen3 or Gemma 3",
        )


def _next_rows(batch: DecodingBatch, waiting: deque[Row]) -> list[Row]:
    """Take the rows that join now: none while the batch is nearly full, else as many as fit."""
    active = len(batch.rows)
    if not active:
        # How large a token's keys and values are is known once one row is there.
        return [waiting.popleft()]
    if MAX_ROWS - active < _LEAST_JOINING:
        return []
    rows: list[Row] = []
    longest = max(len(row.prompt) + row.limit for row in batch.rows)
    while waiting and active + len(rows) < MAX_ROWS:
        longest = max(longest, len(waiting[0].prompt) + waiting[0].limit)
        if (active + len(rows) + 1) * longest * batch.token_bytes > _CACHE_BYTES:
            break
        rows.append(waiting.popleft())
    return rows


def _completion(loaded: LoadedModel, row: Row, tokens: Sequence[Token]) -> Completion:
    assert row.finish_reason is not None
    if row.text is not None:
        text = "".join(token.text for token in tokens)
    else:
        ids = row.ids[:-1] if row.ids[-1] in row.stop_ids else row.ids
        text = answer_text(ids, loaded.template)
    logprobs = tuple(token.logprobs for token in tokens if token.logprobs is not None)
    wanted = row.sampling.logprobs is not None
    return Completion(row.ids, text, row.finish_reason, logprobs if wanted else None)
