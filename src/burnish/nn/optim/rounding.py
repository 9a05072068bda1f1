"""Stochastic rounding from fp32 to bf16.

bf16 keeps 8 bits of mantissa, so an update below 1/512 of a weight rounds to nothing, and at usual
learning rates most are. Rounded up with the chance that stands in the bits cut off, a weight moves
by its update on average and needs no fp32 copy beside it (Zamirai et al., "Revisiting BFloat16
Training", arXiv 2010.06192).
"""

from __future__ import annotations

import torch


def round_to_bf16(values: torch.Tensor, target: torch.Tensor, generator: torch.Generator) -> None:
    """Write fp32 `values` to bf16 `target` of the same shape, rounded up or down by chance.

    Infinities stay what they are. `values` is used up: what it holds afterwards means nothing.
    """
    assert values.dtype == torch.float32
    assert target.dtype == torch.bfloat16
    # A bf16 is the upper half of an fp32: a random lower half is added, and a carry rounds up.
    bits = values.view(torch.int32)
    bits.add_(_random_16_bits(values, generator)).add_(1 << 15)  # int16 is centred on 0
    target.view(torch.int16).copy_(bits.bitwise_right_shift_(16))


def _random_16_bits(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Uniform int16 in the shape of `like`; four of them are cut from each 64-bit number drawn."""
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[: like.numel()].view(like.shape)
