"""Floating-point operations a step needs, and what the machine could do."""

from __future__ import annotations

import time

import torch

from burnish.nn.models import LoadedModel
from burnish.nn.techniques import decoder_blocks


def useful_flops(model: LoadedModel, tokens: int, terms: int, *, cached_blocks: int = 0) -> float:
    """FLOPs that training on so many computed tokens and loss terms cannot do without.

    A weight costs 2 FLOPs a token forward, 2 for the gradient of its input where a trained weight
    lies in it or below, and 2 for its own gradient where it is trained (Kaplan et al., arXiv
    2001.08361, with what a frozen weight saves taken off). The head counts at loss terms only;
    attention scores and norms are left out, and so are the lower `cached_blocks` that do not run.
    """
    forward, backward = _body_costs(model, cached_blocks)
    head = model.head.weight
    head_cost = 2 * head.numel() * (3 if head.requires_grad else 2)
    return tokens * (forward + backward) + terms * head_cost


def _body_costs(model: LoadedModel, cached_blocks: int) -> tuple[float, float]:
    """Forward and backward FLOPs per token of the decoder's matrices, adapters' included."""
    forward = backward = 0.0
    reached = False  # whether a trained weight lies below: only then is an input gradient needed
    for block in decoder_blocks(model)[cached_blocks:]:
        matrices = [p for p in block.parameters() if p.dim() >= 2]
        trains = any(p.requires_grad for p in matrices)
        for p in matrices:
            forward += 2 * p.numel()
            backward += 2 * p.numel() * ((reached or trains) + p.requires_grad)
        reached = reached or trains
    return forward, backward


def peak_flops(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """Measured FLOP/s of a square matrix product, the best of five; takes about 0.3 s on two cores.

    The peak of this machine now, not of its data sheet: on a shared one it drifts.
    """
    a = torch.randn(size, size).to(device, dtype)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        product = a @ a
        float(product[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
