"""The LM head and cross-entropy at supervised positions only, in tiles, gradient in the forward.

Legend: N loss terms, V vocabulary, C hidden size.

The logits of a tile live only while its loss and its gradient are formed, so memory for logits is
one tile and there is no second pass over the head in the backward. (The idea is that of Cut
Cross-Entropy, arXiv 2411.09009, and Liger, arXiv 2410.10989, here without a custom kernel.) For
Gemma 3 270M the head is 168 M of 268 M parameters, so scoring unsupervised positions would waste
more than half of a step.
"""

from __future__ import annotations

from typing import Any

import torch

# Logits of one tile: 64 x 262,144 x 4 bytes = 64 MiB for Gemma 3.
TILE_ROWS = 64


def head_loss(
    hidden: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    *,
    softcap: float | None = None,
) -> torch.Tensor:
    """Weighted sum of cross-entropies, as an fp32 scalar.

    Args:
        hidden: hidden states at the predicting positions, (N, C).
        head: the LM head's weight, (V, C).
        targets: ids to predict, (N,).
        weights: weight of each term, (N,) fp32; divide by the global sum before the call.
        softcap: Gemma 2's final logit soft-capping, c * tanh(logits / c).
    """
    return _HeadLoss.apply(hidden, head, targets, weights, softcap)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        softcap: float | None,
    ) -> torch.Tensor:
        needs_hidden, needs_head = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_head = torch.zeros_like(head, dtype=torch.float32) if needs_head else None
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, hidden.shape[0], TILE_ROWS):
            rows = slice(start, start + TILE_ROWS)
            logits = (hidden[rows] @ head.T).float()  # (TILE_ROWS, V)
            if softcap is not None:
                logits = softcap * torch.tanh(logits / softcap)
            target = targets[rows, None]
            log_z = torch.logsumexp(logits, dim=-1, keepdim=True)
            loss += ((log_z - logits.gather(1, target)).squeeze(1) * weights[rows]).sum()
            if not (needs_hidden or needs_head):
                continue
            slope = 1 - (logits / softcap) ** 2 if softcap is not None else None
            # softmax - one-hot, in the logits' own memory
            gradient = logits.sub_(log_z).exp_()
            gradient.scatter_add_(1, target, gradient.new_full((1, 1), -1.0).expand_as(target))
            gradient *= weights[rows, None]
            if slope is not None:
                gradient *= slope
            gradient = gradient.to(hidden.dtype)
            if d_hidden is not None:
                d_hidden[rows] = gradient @ head
            if d_head is not None:
                d_head += gradient.T @ hidden[rows]
        ctx.save_for_backward(d_hidden, d_head)
        ctx.head_dtype = head.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, d_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_hidden, d_head = ctx.saved_tensors
        if d_hidden is not None:
            d_hidden = d_hidden * d_loss.to(d_hidden.dtype)
        if d_head is not None:
            d_head = (d_head * d_loss).to(ctx.head_dtype)
        return d_hidden, d_head, None, None, None
