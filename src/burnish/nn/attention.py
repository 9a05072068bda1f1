"""Attention over a forest, one scaled-dot-product call per segment; masked blocks never computed.

Legend: B batch (always 1 here), H query heads, K key/value heads, T tokens of the flat batch,
L tokens of one segment, P tokens on the path from the root to the segment's end, D head size.

Registered under `ATTENTION` with the attention interface of `transformers`, so any decoder that
uses it runs on forests unchanged; the forest travels as a keyword argument of the forward.
FlexAttention would do the same but has no backward on CPU (torch 2.13), and a dense block-diagonal
mask over the packed row costs O(T^2).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from burnish.nn.forest import Forest

ATTENTION = "burnish_forest"


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
    """Attend within the forest: query (1, H, T, D), key and value (1, K, T, D) -> (1, T, H, D)."""
    assert attention_mask is None, "the forest is the mask"
    assert dropout == 0.0, "dropout draws one mask for a shared prefix: not exact"
    if sliding_window is None:
        sliding_window = getattr(module, "sliding_window", None)
    lengths = [segment.end - segment.start for segment in forest.segments]
    # split, not slicing: its backward is one concatenation, where every slice's would allocate and
    # add a zero-filled (1, H, T, D).
    queries, keys, values = (x.split(lengths, dim=2) for x in (query, key, value))
    attend = _plain if softcap is None else partial(_soft_capped, cap=softcap)
    outputs = []
    for index, segment in enumerate(forest.segments):
        path = forest.path(index)
        k = keys[index] if len(path) == 1 else torch.cat([keys[n] for n in path], dim=2)
        v = values[index] if len(path) == 1 else torch.cat([values[n] for n in path], dim=2)
        shape = (lengths[index], segment.depth, sliding_window)
        if shape not in forest.masks:
            forest.masks[shape] = _mask(*shape, query.device)
        mask = forest.masks[shape]
        outputs.append(attend(queries[index], k, v, mask, scaling))
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _plain(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor:
    grouped = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
    )


def _soft_capped(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    *,
    cap: float,
) -> torch.Tensor:
    """Gemma 2's scores, c * tanh(scores / c), which no fused CPU kernel offers."""
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * (scale if scale is not None else q.shape[-1] ** -0.5)
    scores = cap * torch.tanh(scores / cap)
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = scores.masked_fill(~mask, -torch.inf)
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v


def _mask(length: int, depth: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """Which path tokens (P = depth + length) each token sees, (L, P) bool; None for plain causal.

    A sliding window counts along the path: a token sees itself and the window - 1 before it.
    """
    windowed = window is not None and depth + length > window
    if depth == 0 and not windowed:
        return None
    own = torch.arange(depth, depth + length, device=device)[:, None]
    seen = torch.arange(depth + length, device=device)[None, :]
    mask = seen <= own
    if windowed:
        assert window is not None
        mask &= seen > own - window
    return mask


def _no_mask(*_: Any, **__: Any) -> None:
    """`transformers` asks for a mask before the layers run; the forest needs none."""


AttentionInterface.register(ATTENTION, forest_attention)
AttentionMaskInterface.register(ATTENTION, _no_mask)
