"""Attention over a forest: masked blocks are never computed, on CPU nor on CUDA.

Legend: B batch (always 1 here), H query heads, K key/value heads, G = H / K, T tokens of the flat
batch, n query tokens of a block, m keys that some of them see, D head size.

Registered under `ATTENTION` with the attention interface of `transformers`, so any decoder that
uses it runs on forests unchanged; the forest travels as a keyword argument of the forward.

CPU: blocks of at most `BLOCK_ROWS` query tokens of one segment against the keys of their path, as
two matrix products around a softmax, recomputed in the backward so that no (T, T) matrix is kept.
FlexAttention has no backward on CPU (torch 2.13), a dense block-diagonal mask costs O(T^2), and
scaled_dot_product_attention is slow on rows this short: at 218 tokens, 4 heads of 256, bf16, two
cores it takes 4.2 ms forward and backward, this 1.2 ms; at 2,048 tokens 142 ms against 119 ms.

CUDA: flex_attention with a block mask (`nn.attention_flex`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from burnish.nn.attention_flex import flex_forest_attention
from burnish.nn.forest import Forest

ATTENTION = "burnish_forest"

# Query tokens of one block. Half of a diagonal block is masked, so smaller ones compute less and
# larger ones multiply faster; 256 was best from 512 to 2,048 tokens.
BLOCK_ROWS = 256


def forest_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    forest: Forest,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within the forest: query (1, H, T, D), key and value (1, K, T, D) -> (1, T, H, D).

    A sliding window counts along the path: a token sees itself and the window - 1 before it. A
    module with `prefix_key_value` (2, K, P, D) has those in place of the first P tokens' (prefix
    tuning, arXiv 2101.00190).
    """
    assert attention_mask is None, "the forest is the mask"
    assert dropout == 0.0, "dropout draws one mask for a shared prefix: not exact"
    if sliding_window is None:
        sliding_window = getattr(module, "sliding_window", None)
    if (prefix := getattr(module, "prefix_key_value", None)) is not None:
        key, value = (
            torch.cat([trained[None].to(x.dtype), x[:, :, trained.shape[1] :]], dim=2)
            for trained, x in zip(prefix, (key, value), strict=True)
        )
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    if query.is_cuda:
        return flex_forest_attention(query, key, value, forest, scaling, sliding_window, softcap)
    output = _BlockAttention.apply(query, key, value, forest, scaling, sliding_window, softcap)
    return output, None


@dataclass(frozen=True, slots=True)
class _Block:
    """Some query tokens of one segment, and the tokens of their path that they see."""

    rows: slice
    """The query tokens in the flat batch."""
    spans: tuple[slice, ...]
    """The keys in the flat batch: runs of consecutive tokens, root first."""
    mask: torch.Tensor
    """True where a query must not see a key, (n, m')."""
    masked: int
    """m': the mask is about so many of the last keys; those before are seen by every query."""


def _blocks(forest: Forest, window: int | None) -> tuple[_Block, ...]:
    """The forest's blocks; every layer of one window needs the same ones, so they are kept."""
    if window not in forest.blocks:
        forest.blocks[window] = tuple(_cut(forest, window))
    return forest.blocks[window]


def _cut(forest: Forest, window: int | None) -> Iterator[_Block]:
    for index, segment in enumerate(forest.segments):
        path = [(forest.segments[n].start, forest.segments[n].end) for n in forest.path(index)]
        for first in range(segment.start, segment.end, BLOCK_ROWS):
            end = min(first + BLOCK_ROWS, segment.end)
            # Depths along the path: queries at [low, high), keys at [seen, high).
            low = segment.depth + first - segment.start
            high = low + end - first
            seen = 0 if window is None else max(0, low - window + 1)
            spans, depth = [], 0
            for start, stop in path:
                a = max(start, start + seen - depth)
                b = min(stop, start + high - depth)
                if a < b:
                    spans.append(slice(a, b))
                depth += stop - start
            masked = high - low if window is None or high <= window else high - seen
            yield _Block(slice(first, end), tuple(spans), _mask(low, high, masked, window), masked)


def _mask(low: int, high: int, masked: int, window: int | None) -> torch.Tensor:
    queries = torch.arange(low, high)[:, None]
    keys = torch.arange(high - masked, high)[None, :]
    hidden = keys > queries
    return hidden if window is None else hidden | (keys <= queries - window)


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        forest: Forest,
        scaling: float,
        window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.settings = (forest, scaling, window, softcap)
        output = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])  # (1, T, H, D)
        for block in _blocks(forest, window):
            q, k, v = _grouped(query, key, block), _path(key, block), _path(value, block)
            p, _ = _probabilities(q * scaling, k, block, softcap)
            n = block.rows.stop - block.rows.start
            output[0, block.rows] = torch.bmm(p, v).view(-1, n, v.shape[-1]).transpose(0, 1)
        return output

    @staticmethod
    def backward(ctx: Any, d_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        forest, scaling, window, softcap = ctx.settings
        d_query = torch.empty_like(query)
        # Many segments add to a shared prefix's keys: in fp32, as bf16 would lose the small ones.
        d_key, d_value = (torch.zeros_like(x[0], dtype=torch.float32) for x in (key, value))
        d_heads = d_output.transpose(1, 2)  # (1, H, T, D)
        for block in _blocks(forest, window):
            q, k, v = _grouped(query, key, block) * scaling, _path(key, block), _path(value, block)
            d_o = _grouped(d_heads, key, block)  # (K, G n, D)
            p, slope = _probabilities(q, k, block, softcap)
            d_p = torch.bmm(d_o, v.transpose(1, 2))
            d_scores = torch.ops.aten._softmax_backward_data(d_p, p, -1, p.dtype)
            if slope is not None:
                d_scores *= slope
            n = block.rows.stop - block.rows.start
            d_q = torch.bmm(d_scores, k) * scaling
            d_query[0, :, block.rows] = d_q.view(-1, n, d_q.shape[-1])
            _add(d_key, torch.bmm(d_scores.transpose(1, 2), q), block)
            _add(d_value, torch.bmm(p.transpose(1, 2), d_o), block)
        return d_query, d_key[None].to(key.dtype), d_value[None].to(value.dtype), *[None] * 4


def _probabilities(
    q: torch.Tensor, k: torch.Tensor, block: _Block, softcap: float | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Softmax over the keys, (K, G n, m), and the slope of Gemma 2's cap c * tanh(scores / c).

    Scores are rounded to the compute type before the softmax, which itself works in fp32, as in
    `transformers`' own eager attention.
    """
    scores = torch.bmm(q, k.transpose(1, 2))
    slope = None
    if softcap is not None:
        scores.div_(softcap).tanh_()
        slope = 1 - scores**2
        scores *= softcap
    n, m = block.rows.stop - block.rows.start, k.shape[1]
    last = scores.view(-1, n, m)[:, :, m - block.masked :]  # each head of a group by itself
    last.masked_fill_(block.mask, -torch.inf)
    return torch.softmax(scores, dim=-1), slope


def _grouped(x: torch.Tensor, key: torch.Tensor, block: _Block) -> torch.Tensor:
    """A block's rows of (1, H, T, D), the heads that share a key one below another: (K, G n, D)."""
    return x[0, :, block.rows].reshape(key.shape[1], -1, x.shape[-1])


def _path(x: torch.Tensor, block: _Block) -> torch.Tensor:
    """The block's keys or values out of (1, K, T, D): (K, m, D)."""
    parts = [x[0, :, span] for span in block.spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _add(total: torch.Tensor, part: torch.Tensor, block: _Block) -> None:
    """Add (K, m, D) to the places of (K, T, D) that `_path` took it from."""
    start = 0
    for span in block.spans:
        end = start + span.stop - span.start
        total[:, span] += part[:, start:end]
        start = end


def _no_mask(*_: Any, **__: Any) -> None:
    """`transformers` asks for a mask before the layers run; the forest needs none."""


AttentionInterface.register(ATTENTION, forest_attention)
AttentionMaskInterface.register(ATTENTION, _no_mask)
