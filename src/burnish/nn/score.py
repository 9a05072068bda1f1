"""How hard examples are for a model: the loss of their answers, and how unsure it is of them.

Orders the labelling queue: an answer the model finds unlikely, or an example it does not know how
to answer, teaches it more than one it already gets right. (Uncertainty sampling by entropy:
Settles, Active Learning Literature Survey, 2009, section 3.1; for sequences the mean over tokens:
Settles & Craven, 2008, "total token entropy" divided by the length.)

Legend: T tokens of the flat batch, N scored tokens, V vocabulary, C hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from burnish.chat import Rendered, render_many, render_prompt
from burnish.errors import InputError, TemplateError, UserError
from burnish.nn.attention import ATTENTION
from burnish.nn.decoding import answer_room
from burnish.nn.forest import Forest, plant, rounded
from burnish.nn.generate import Sampling, generate
from burnish.nn.head import Head, head_of
from burnish.nn.loss import BLOCK_BYTES, TILE_BYTES
from burnish.nn.models import LoadedModel
from burnish.nn.parts import cut_into_parts
from burnish.nn.rows import Array, Rows, TokenRow
from burnish.nn.step import hidden_states
from burnish.nn.support import use_forests
from burnish.nn.techniques import virtual_tokens, with_virtual_root
from burnish.types import Conversation

# Conversations scored together: enough to find shared prefixes and to fill a batch of drafts.
_PAGE = 256


@dataclass(frozen=True, slots=True)
class ExampleScore:
    """What one example looks like to the model."""

    loss: float | None
    """Mean cross-entropy of its supervised tokens, in nats; None without an answer."""
    uncertainty: float
    """Mean entropy of the model's next-token distribution at the answer's tokens, in nats; where
    there is no answer, at those of the model's own greedy draft."""


def score_examples(
    loaded: LoadedModel,
    conversations: Iterable[Conversation],
    *,
    max_length: int = 2048,
    draft_tokens: int = 64,
    batch_tokens: int = 4096,
) -> Iterator[ExampleScore | UserError]:
    """Score conversations in order, streaming; one that cannot be scored is an error, not raised.

    A final assistant turn is the answer. What is supervised is what training would supervise.

    Args:
        loaded: the model.
        conversations: any number of them.
        max_length: tokens a conversation may have; the end of a longer one is not scored.
        draft_tokens: the longest greedy draft.
        batch_tokens: computed tokens in one forward pass.

    Raises:
        ModelError: drafts are wanted of a model that cannot be batched (see `generate`).
    """
    context = getattr(loaded.causal_lm.config.get_text_config(), "max_position_embeddings", None)
    longest = min(max_length, context - virtual_tokens(loaded)) if context else max_length
    stream = iter(conversations)
    while page := list(islice(stream, _PAGE)):
        rows = _rows_of(loaded, page, longest, draft_tokens)
        yield from _score_page(loaded, page, rows, batch_tokens)


def _rows_of(
    loaded: LoadedModel, page: Sequence[Conversation], longest: int, draft_tokens: int
) -> list[list[Rendered] | UserError]:
    """Each conversation as what is scored: its training rows, or its prompt and a draft."""
    answered = [n for n, conversation in enumerate(page) if conversation.answer is not None]
    waiting = [n for n, conversation in enumerate(page) if conversation.answer is None]
    rendered = render_many((page[n] for n in answered), loaded.template)
    rows: dict[int, list[Rendered] | UserError] = {}
    for n, some in zip(answered, rendered, strict=True):
        rows[n] = some if isinstance(some, TemplateError) else _scored([*some], longest)
    prompts: dict[int, list[int]] = {}
    for n in waiting:
        try:
            prompts[n] = render_prompt(page[n], loaded.template)
            answer_room(loaded, prompts[n])
        except UserError as error:
            prompts.pop(n, None)
            rows[n] = error
    sampling = Sampling(max_tokens=draft_tokens)
    # Without a prompt nothing is asked of `generate`, which some models cannot do.
    drafts = generate(loaded, list(prompts.values()), sampling) if prompts else []
    for (n, prompt), draft in zip(prompts.items(), drafts, strict=True):
        weights = [0.0] * len(prompt) + [1.0] * len(draft.ids)
        rows[n] = _scored([Rendered(prompt + draft.ids, weights, [])], longest)
    return [rows[n] for n in range(len(page))]


def _scored(rows: list[Rendered], longest: int) -> list[Rendered] | UserError:
    """The rows with something to score, cut to `longest`."""
    cut = [Rendered(row.ids[:longest], row.weights[:longest], []) for row in rows]
    kept = [row for row in cut if any(row.weights)]
    return kept or InputError(
        f"no supervised token within {longest} tokens",
        do="shorten the conversation, or raise max_length",
    )


def _score_page(
    loaded: LoadedModel,
    page: Sequence[Conversation],
    rows: Sequence[list[Rendered] | UserError],
    batch_tokens: int,
) -> Iterator[ExampleScore | UserError]:
    scored = Rows.of(row for some in rows if not isinstance(some, UserError) for row in some)
    sums = iter(_sums(loaded, scored, batch_tokens))
    for conversation, some in zip(page, rows, strict=True):
        if isinstance(some, UserError):
            yield some
            continue
        loss, entropy, tokens = np.sum(list(islice(sums, len(some))), axis=0).tolist()
        answered = conversation.answer is not None
        yield ExampleScore(loss / tokens if answered else None, entropy / tokens)


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _sums(loaded: LoadedModel, rows: Rows, batch_tokens: int) -> Array:
    """For each row its losses, its entropies, and of how many tokens; (rows, 3) float64."""
    sums = np.zeros((len(rows), 3))
    numbers = {row.start: n for n, row in enumerate(rows)}
    head = head_of(loaded)
    with _forest_attention(loaded) as shared:
        budget = batch_tokens if shared else 1
        for part in cut_into_parts(list(rows), budget, share_prefixes=shared):
            forest = plant(part, share_prefixes=shared)
            forest = with_virtual_root(forest, virtual_tokens(loaded))
            terms = [_terms(forest, n, row) for n, row in enumerate(part)]
            if shared:
                forest = rounded(forest)
            hidden = hidden_states(loaded, forest)
            sources, targets = (
                torch.from_numpy(np.concatenate(some)).to(hidden.device)
                for some in zip(*terms, strict=True)
            )
            scores = _token_scores(head, hidden[sources], targets)
            start = 0
            for number, (_, own) in zip(forest.starts, terms, strict=True):
                end = start + len(own)
                sums[numbers[number]] = *scores[start:end].sum(0), len(own)
                start = end
    return sums


def _terms(forest: Forest, example: int, row: Rendered | TokenRow) -> tuple[Array, Array]:
    """Where in the flat batch an example's supervised tokens are predicted, and their ids.

    Not the forest's own loss terms: in these the terms of several examples are one.
    """
    segments = [forest.segments[n] for n in forest.path(forest.leaves[example])]
    places = np.concatenate([np.arange(s.start, s.end) for s in segments])[-len(row.ids) :]
    supervised = np.flatnonzero(row.weights)
    return places[supervised - 1], np.asarray(row.ids, np.int64)[supervised]


def _token_scores(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> Array:
    """Cross-entropy and entropy at each of (N, C) hidden states, in nats; (N, 2) float64.

    In tiles: the logits of all at once would be N times V.
    """
    low_rank = head.low_rank(hidden)
    vocabulary = head.weight.shape[0]
    scores = []
    for rows in torch.arange(len(targets)).split(max(16, TILE_BYTES // (4 * vocabulary))):
        logits = F.linear(hidden[rows], head.weight, head.bias)
        if low_rank is not None:
            low, up = low_rank
            logits += low[rows] @ up.T
        # As in `head_loss`: a GPU wants one large launch, a CPU wants the block to stay in cache.
        block = len(rows) if logits.is_cuda else max(1, BLOCK_BYTES // (4 * vocabulary))
        blocks = zip(logits.split(block), targets[rows].split(block), strict=True)
        scores += [_block_scores(head, *block) for block in blocks]
    return torch.cat(scores).double().cpu().numpy()


def _block_scores(head: Head, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and entropy from logits (n, V) before scale and cap, (n, 2) fp32."""
    values = logits.float() * head.scale
    if head.softcap is not None:
        values = head.softcap * torch.tanh(values / head.softcap)
    logs = torch.log_softmax(values, dim=-1)
    losses = -logs.gather(1, targets[:, None])[:, 0]
    # 0 times the logarithm of 0 is 0, and what lies below this adds less than rounding does.
    logs.clamp_(min=-80.0)
    return torch.stack([losses, -torch.linalg.vecdot(logs.exp(), logs)], dim=1)


@contextmanager
def _forest_attention(loaded: LoadedModel) -> Iterator[bool]:
    """The forest's attention where the model can have it; yields whether it can.

    Without, examples run one at a time through the model's own forward.
    """
    before = loaded.causal_lm.config._attn_implementation
    obstacle = use_forests(loaded)
    try:
        yield obstacle is None
    finally:
        if before != ATTENTION:
            loaded.causal_lm.set_attn_implementation(before)
