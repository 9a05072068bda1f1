"""Sequences decoded together, one forward pass for the next token of each.

Legend: R rows (sequences), T tokens of the longest row, P tokens of a prefill, V vocabulary size.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import DynamicCache

from burnish.errors import InputError
from burnish.nn.cache import RowCache
from burnish.nn.forest import MIN_SHARED_TOKENS
from burnish.nn.models import LoadedModel
from burnish.nn.sampling import Sampling, TokenLogprobs, choose, logprobs_of
from burnish.nn.techniques.virtual import virtual_ids, virtual_keys_values, virtual_tokens
from burnish.nn.text_stream import TextStream

# Prompts are read this many tokens at a time: enough to keep a CPU's matrix units busy, few enough
# to waste little on padding.
_PREFILL_TOKENS = 2048

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer."""

    id: int
    text: str
    """Text certain since the token before; the pieces put together are the answer."""
    finish_reason: FinishReason | None
    """Set on the last token alone."""
    logprobs: TokenLogprobs | None


@dataclass(slots=True, eq=False)
class Row:
    """A sequence being decoded."""

    prompt: list[int]
    """Its ids, after those of the model's virtual tokens where it has such."""
    sampling: Sampling
    limit: int
    """Tokens it may get."""
    stop_ids: frozenset[int]
    random: random.Random
    text: TextStream | None
    """None leaves the pieces of text empty, for a row that is decoded at its end."""
    ids: list[int] = field(default_factory=list)
    """As generated: with the stop token, if it ended with one."""
    finish_reason: FinishReason | None = None

    @property
    def cached(self) -> int:
        """Tokens whose keys and values are known: all but the newest."""
        return len(self.prompt) + len(self.ids) - 1

    @property
    def newest(self) -> int:
        """The token that the next forward pass reads."""
        return self.ids[-1] if self.ids else self.prompt[-1]

    def take(self, token: int, logprobs: TokenLogprobs | None) -> Token:
        """Add the next token and see whether the answer ends with it."""
        self.ids.append(token)
        piece = ""
        if token in self.stop_ids:
            self.finish_reason = "stop"
        else:
            piece = self.text.push(token) if self.text else ""
            if len(self.ids) >= self.limit:
                self.finish_reason = "length"
        if self.text:
            if self.finish_reason and not self.text.stopped:
                piece += self.text.finish()
            if self.text.stopped:
                self.finish_reason = "stop"
        return Token(token, piece, self.finish_reason, logprobs)


def make_row(loaded: LoadedModel, prompt: list[int], sampling: Sampling, *, text: bool) -> Row:
    """A row at its start; `text` decodes as it goes, which streams and stop strings need.

    Raises:
        InputError: the prompt is empty or leaves no room for an answer.
    """
    assert sampling.max_tokens > 0, sampling
    room = answer_room(loaded, prompt)
    return Row(
        virtual_ids(virtual_tokens(loaded)) + prompt,
        sampling,
        sampling.max_tokens if room is None else min(room, sampling.max_tokens),
        frozenset(loaded.stop_ids),
        random.Random(sampling.seed),
        TextStream(loaded.tokenizer, sampling.stop) if text else None,
    )


def answer_room(loaded: LoadedModel, prompt: Sequence[int]) -> int | None:
    """Tokens that an answer to this prompt may have; None where the model sets no limit.

    Raises:
        InputError: the prompt is empty or leaves no room for an answer.
    """
    if not prompt:
        raise InputError("the prompt is empty", do="give at least one token")
    config = loaded.causal_lm.config.get_text_config()
    context: int | None = getattr(config, "max_position_embeddings", None)
    if context is None:
        return None
    context -= virtual_tokens(loaded)
    if len(prompt) >= context:
        raise InputError(
            f"the prompt has {len(prompt)} tokens, and the model reads {context} at most, "
            "prompt and answer together (max_position_embeddings)",
            where=loaded.origin,
            do="shorten the prompt, or use a base with a longer context",
        )
    return context - len(prompt)


class DecodingBatch:
    """Rows that are decoded together and join and leave between tokens."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.rows: list[Row] = []
        self._body: Any = loaded.body
        self._model: Any = loaded.causal_lm
        self._cache = RowCache()
        with torch.inference_mode():
            self._known = virtual_keys_values(loaded)
        """Keys and values per layer, (1, K, P, D), of a prefix that rows to come may begin with:
        trained ones (prefix tuning), then those of the last prefix computed by itself."""
        virtual = virtual_tokens(loaded)
        self._known_ids: list[int] = virtual_ids(virtual) if self._known else []
        """Its ids."""
        self._least_shared = 1 if virtual else MIN_SHARED_TOKENS
        """A shared prefix of fewer tokens is not computed by itself. Virtual tokens always are,
        since the keys and values of a trained prefix cannot be computed from ids."""

    @property
    def token_bytes(self) -> int:
        """Bytes that the keys and values of one token take; 0 while there are no rows."""
        return self._cache.token_bytes

    def join(self, rows: Sequence[Row]) -> None:
        """Read the rows' prompts and add them; a prefix that they share is computed once.

        Rows that stand side by side are padded to the longest of them, so sorted rows cost least.
        """
        with torch.inference_mode():
            for group in _groups(rows):
                prefilled = self._prefill([row.prompt for row in group])
                self._cache.admit(prefilled, [row.cached for row in group])
                self.rows += group

    def leave(self, row: Row) -> None:
        """Take a row out and free its place."""
        index = self.rows.index(row)
        last = self.rows.pop()
        if last is not row:
            self.rows[index] = last
        if not self.rows:
            self._cache = RowCache()
            return
        with torch.inference_mode():
            self._cache.evict(index, max(row.cached for row in self.rows))

    def step(self) -> list[tuple[Row, Token]]:
        """Give each row its next token; rows that end with it are for the caller to take out."""
        samplings = [row.sampling for row in self.rows]
        with torch.inference_mode():
            logits = self._next_logits()
            ids = choose(logits, samplings, [row.random.random() for row in self.rows])
            logprobs = logprobs_of(logits, samplings, ids)
        taken = zip(self.rows, ids, logprobs, strict=True)
        return [(row, row.take(token, logprob)) for row, token, logprob in taken]

    def _next_logits(self) -> torch.Tensor:
        """Logits (R, V) of what follows each row's newest token, which is read into the cache."""
        lengths = self._tensor([row.cached for row in self.rows])
        columns = torch.arange(self._cache.length + 1, device=lengths.device)
        output = self._model(
            input_ids=self._tensor([row.newest for row in self.rows])[:, None],
            # A row's tokens end in the last column; before them stands what is not its own.
            attention_mask=columns >= (self._cache.length - lengths)[:, None],
            position_ids=lengths[:, None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _prefill(self, prompts: Sequence[list[int]]) -> DynamicCache:
        """Keys and values of the prompts without their last tokens, aligned at the start.

        The last token is left to `step`, which so computes the LM head for no other. What follows a
        shorter prompt is padding that causality hides from it, so no mask is needed.
        """
        bodies = [prompt[:-1] or prompt for prompt in prompts]
        shared = _common_prefix(bodies)
        if len(bodies) > 1 and shared < self._least_shared:
            shared, cache = 0, DynamicCache()
        else:
            cache = self._prefix(bodies[0][:shared])
            cache.batch_repeat_interleave(len(bodies))
        longest = max(len(body) for body in bodies)
        if longest > shared:
            rest = [body[shared:] + [0] * (longest - len(body)) for body in bodies]
            self._read(rest, cache)
        return cache

    def _prefix(self, ids: list[int]) -> DynamicCache:
        """Keys and values of one prefix, taken over from the last one as far as they agree."""
        agreed = _common_prefix([ids, self._known_ids])
        cache = DynamicCache()
        for index, (keys, values) in enumerate(self._known):
            cache.update(keys[:, :, :agreed], values[:, :, :agreed], index)
        if agreed < len(ids):
            self._read([ids[agreed:]], cache)
        self._known_ids = ids
        self._known = [(layer.keys, layer.values) for layer in cache.layers]
        return cache

    def _read(self, ids: list[list[int]], cache: DynamicCache) -> None:
        """Run the body on ids (R, P) that follow what the cache holds, adding to it."""
        begin = cache.get_seq_length()
        positions = torch.arange(begin, begin + len(ids[0]), device=self._model.device)
        self._body(
            input_ids=self._tensor(ids),
            position_ids=positions[None, :].expand(len(ids), -1),
            past_key_values=cache,
            use_cache=True,
        )

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, device=self._model.device)


def _groups(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Cut rows into groups of at most `_PREFILL_TOKENS`, padding counted."""
    group: list[Row] = []
    longest = 0
    for row in rows:
        longest = max(longest, len(row.prompt))
        if group and (len(group) + 1) * longest > _PREFILL_TOKENS:
            yield group
            group, longest = [], len(row.prompt)
        group.append(row)
    if group:
        yield group


def _common_prefix(sequences: Sequence[list[int]]) -> int:
    """How many ids all sequences begin with alike."""
    # Every sequence lies between the smallest and the largest, so what these two share all share.
    first, last = min(sequences), max(sequences)
    pairs = zip(first, last, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))
