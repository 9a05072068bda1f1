"""The LM head and cross-entropy at supervised positions only, in tiles, gradient in the forward.

Legend: N loss terms, V vocabulary, C hidden size, R rank of LoRA on the head.

The logits of a tile live only while its loss and its gradient are formed, so memory for logits is
one tile and there is no second pass over the head in the backward. (The idea is that of Cut
Cross-Entropy, arXiv 2411.09009, and Liger, arXiv 2410.10989, here without a custom kernel.) For
Gemma 3 270M the head is 168 M of 268 M parameters, so scoring unsupervised positions would waste
more than half of a step.

Two sizes matter. The matrix products want many rows, else they wait for the head's weights to come
from memory; the softmax wants few, so that its fp32 values stay in cache between the six passes
over them. 1,568 terms of Gemma 3 on two cores: 6.9 s with tiles of 64 rows and plain operations,
1.7 s with tiles of 256 rows and softmax blocks of 4, of which the two matrix products are 1.4 s.
"""

from __future__ import annotations

from typing import Any

import torch

# One tile of logits in the compute type: 256 rows of Gemma 3's 262,144.
TILE_BYTES = 128 * 2**20
# One block of logits in fp32: 4 rows of Gemma 3's; larger ones leave the cache to the other core.
BLOCK_BYTES = 4 * 2**20


def head_loss(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    low_rank: tuple[torch.Tensor, torch.Tensor] | None = None,
    softcap: float | None = None,
    scale: float = 1.0,
) -> torch.Tensor:
    """Weighted sum of cross-entropies, as an fp32 scalar.

    The logits are `softcap(scale * (hidden @ head.T + low @ up.T + bias))`.

    Args:
        hidden: hidden states at the predicting positions, (N, C).
        head: the LM head's weight, (V, C).
        targets: ids to predict, (N,).
        weights: weight of each term, (N,) fp32; divide by the global sum before the call.
        bias: the head's bias, (V,).
        low_rank: LoRA on the head: `hidden @ A.T * scaling`, (N, R), and B, (V, R).
        softcap: Gemma 2's final logit soft-capping, c * tanh(logits / c).
        scale: Cohere's `logit_scale`, or 1 / Granite's `logits_scaling`.
    """
    low, up = low_rank if low_rank is not None else (None, None)
    loss: torch.Tensor = _HeadLoss.apply(
        hidden, head, bias, low, up, targets, weights, softcap, scale
    )
    return loss


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        bias: torch.Tensor | None,
        low: torch.Tensor | None,
        up: torch.Tensor | None,
        targets: torch.Tensor,
        weights: torch.Tensor,
        softcap: float | None,
        scale: float,
    ) -> torch.Tensor:
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        d_low = torch.empty_like(low) if low is not None and ctx.needs_input_grad[3] else None
        # Every tile adds to these: in fp32, since bf16 loses what is below 1/256 of the sum.
        d_head, d_bias, d_up = (
            torch.zeros_like(x, dtype=torch.float32)
            if x is not None and ctx.needs_input_grad[n]
            else None
            for n, x in ((1, head), (2, bias), (4, up))
        )
        backward = any(ctx.needs_input_grad[:5])
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        rows_of_tile = max(16, TILE_BYTES // (head.shape[0] * head.element_size()))
        # One for all tiles: pages of a fresh one cost a quarter of the product that fills it.
        tile = hidden.new_empty(min(rows_of_tile, hidden.shape[0]), head.shape[0])
        for start in range(0, hidden.shape[0], rows_of_tile):
            rows = slice(start, min(start + rows_of_tile, hidden.shape[0]))
            logits = torch.mm(hidden[rows], head.T, out=tile[: rows.stop - start])
            if low is not None and up is not None:
                logits.addmm_(low[rows], up.T)
            if bias is not None:
                logits += bias
            loss += _softmax_losses(logits, targets[rows], weights[rows], softcap, scale, backward)
            gradient = logits  # overwritten where `backward`
            if d_hidden is not None:
                d_hidden[rows] = gradient @ head
            if d_low is not None:
                d_low[rows] = gradient @ up
            if d_head is not None:
                d_head += gradient.T @ hidden[rows]
            if d_up is not None:
                assert low is not None
                d_up += gradient.T @ low[rows]
            if d_bias is not None:
                d_bias += gradient.sum(0, dtype=torch.float32)
        ctx.save_for_backward(d_hidden, d_head, d_bias, d_low, d_up)
        ctx.dtype = head.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, d_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients = (
            None if g is None else (g * d_loss.to(g.dtype)).to(ctx.dtype) for g in ctx.saved_tensors
        )
        return (*gradients, None, None, None, None)


def _softmax_losses(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    softcap: float | None,
    scale: float,
    backward: bool,
) -> torch.Tensor:
    """Weighted loss of a tile; with `backward`, `logits` (n, V) become their own gradient."""
    loss = torch.zeros((), dtype=torch.float32, device=logits.device)
    count, vocabulary = logits.shape
    # A GPU wants one large launch; a CPU wants the block to stay in cache.
    block = count if logits.is_cuda else max(1, BLOCK_BYTES // (4 * vocabulary))
    for start in range(0, count, block):
        rows = slice(start, start + block)
        target, weight = targets[rows, None], weights[rows, None]
        values = logits[rows].float()  # a view where logits are fp32 already
        slope = None
        if scale != 1.0:
            values *= scale
        if softcap is not None:
            values.div_(softcap).tanh_()
            slope = 1 - values**2
            values *= softcap
        correct = values.gather(1, target)
        highest = values.amax(1, keepdim=True)
        total = values.sub_(highest).exp_().sum(1, keepdim=True)
        loss += ((highest + total.log() - correct) * weight).sum()
        if backward:  # (softmax - one-hot) * weight
            values.mul_(weight / total).scatter_add_(1, target, -weight)
            if slope is not None:
                values *= slope
            if scale != 1.0:
                values *= scale
            if values.dtype != logits.dtype:
                logits[rows] = values
    return loss
