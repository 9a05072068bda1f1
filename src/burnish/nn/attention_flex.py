"""Attention over a forest on CUDA: flex_attention with a block mask.

Legend: H query heads, K key/value heads, T tokens of the flat batch, D head size.

The flat batch is the trees walked depth first, so the subtree of a segment is one run of tokens
and the whole mask is one number a token: query q sees key k where k <= q < end of the subtree
of k's segment. (FlexAttention: arXiv 2412.05496.)
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from burnish.nn.forest import Forest


def flex_forest_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    forest: Forest,
    scaling: float,
    window: int | None,
    softcap: float | None,
) -> tuple[torch.Tensor, None]:
    """Attend within the forest: query (1, H, T, D), key and value (1, K, T, D) -> (1, T, H, D)."""
    if window not in forest.blocks:
        forest.blocks[window] = _block_mask(forest, window, query.device)

    def capped(score: torch.Tensor, *_: Any) -> torch.Tensor:
        return softcap * torch.tanh(score / softcap)

    output = _kernel(query.is_cuda)(
        query,
        key,
        value,
        score_mod=None if softcap is None else capped,
        block_mask=forest.blocks[window],
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.transpose(1, 2), None


@cache
def _kernel(compiled: bool) -> Any:
    """The fused kernel comes from the compiler; without it flex_attention is a plain product."""
    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention


def _block_mask(forest: Forest, window: int | None, device: torch.device) -> Any:
    ends = subtree_ends(forest).to(device)
    positions = forest.positions.to(device)

    def sees(_b: Any, _h: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        seen = (k <= q) & (q < ends[k])
        return seen if window is None else seen & (positions[q] - positions[k] < window)

    tokens = len(forest.ids)
    return create_block_mask(sees, None, None, tokens, tokens, device=device)


def subtree_ends(forest: Forest) -> torch.Tensor:
    """For each token where the subtree of its segment ends in the flat batch, (T,) int64."""
    last = [segment.end for segment in forest.segments]
    for n in reversed(range(len(last))):  # children come after their parents
        parent = forest.segments[n].parent
        if parent is not None:
            last[parent] = max(last[parent], last[n])
    lengths = torch.tensor([segment.end - segment.start for segment in forest.segments])
    return torch.repeat_interleave(torch.tensor(last), lengths)
