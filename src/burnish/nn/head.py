"""The LM head as the loss reads it: weight, bias, LoRA on it, and what is done to the logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from burnish.nn.models import HeadAdapter, LoadedModel


@dataclass(frozen=True, slots=True)
class Head:
    """logits = softcap(scale * (hidden @ weight.T + LoRA + bias)); V vocabulary, C hidden size."""

    weight: torch.Tensor
    """(V, C); the embedding's own where they are tied."""
    bias: torch.Tensor | None
    """(V,)"""
    adapter: HeadAdapter | None
    """LoRA on the head."""
    softcap: float | None
    """Gemma 2's final logit soft-capping, c * tanh(logits / c)."""
    scale: float
    """Cohere's `logit_scale`, or 1 / Granite's `logits_scaling`."""

    def low_rank(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """LoRA's two factors for `head_loss`, from hidden states (N, C): (N, R) and (V, R)."""
        if self.adapter is None:
            return None
        down, up, scaling = self.adapter
        return F.linear(hidden, down) * scaling, up


def head_of(model: LoadedModel) -> Head:
    """The head of a model."""
    config: Any = model.causal_lm.config
    divisor = getattr(config, "logits_scaling", None)
    scale = 1.0 / divisor if divisor else getattr(config, "logit_scale", None) or 1.0
    return Head(model.head.weight, model.head.bias, model.head_adapter, model.softcap, float(scale))
