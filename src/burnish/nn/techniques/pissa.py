"""PiSSA (Meng et al., arXiv 2404.02948): LoRA that starts as the weight's principal part.

The frozen weight W becomes the residual W - s B0 A0, and the adapter starts at A0, B0. A residual
base would have to be kept with every adapter, so what is saved is the same change to the *original*
base as a LoRA of twice the rank: s (B A - B0 A0) = s [B, -B0] [A; A0].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

_NAME = "default"

# Rounds of the randomised SVD; the paper finds 16 as good as the exact one, which takes minutes.
_ROUNDS = 16


@dataclass(frozen=True, slots=True)
class PrincipalPart:
    """What was split off one layer's weight."""

    down: torch.Tensor
    """A0, (rank, in)."""
    up: torch.Tensor
    """B0, (out, rank)."""


def split_off_principal_part(peft_model: Any) -> None:
    """Move each adapted weight's largest singular directions from the base into its adapter.

    Not PEFT's own initialisation, which leaves the adapter in fp32 whatever the compute type; what
    is taken out here is what the adapter holds after rounding, so that saving gives it back.
    """
    with torch.no_grad():
        parts = {name: _split(layer) for name, layer in _lora_layers(peft_model)}
    peft_model.principal_parts = parts


def convert_saved(peft_model: Any, folder: Path) -> None:
    """Rewrite the adapter saved in `folder` as a LoRA on the original base."""
    parts: dict[str, PrincipalPart] | None = getattr(peft_model, "principal_parts", None)
    if parts is None:
        return
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for name, part in parts.items():
        down, up = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        tensors[down] = torch.cat([tensors[down], part.down.to(tensors[down].device)], dim=0)
        tensors[up] = torch.cat([tensors[up], -part.up.to(tensors[up].device)], dim=1)
    save_file(tensors, path, {"format": "pt"})
    config = type(peft_model.peft_config[_NAME]).from_pretrained(str(folder))
    config.r *= 2
    # The scale stays: alpha / r, or alpha / sqrt(r) for rsLoRA.
    config.lora_alpha *= math.sqrt(2) if config.use_rslora else 2
    config.save_pretrained(str(folder))


def _lora_layers(peft_model: Any) -> Iterator[tuple[str, Any]]:
    for name, module in peft_model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _split(layer: Any) -> PrincipalPart:
    base, scale = layer.get_base_layer(), layer.scaling[_NAME]
    weight = base.weight.float()
    if layer.fan_in_fan_out:
        weight = weight.T
    down, up = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
    rank = min(down.shape[0], *weight.shape)
    sought = min(2 * rank, *weight.shape)  # more than is kept, or the last ones are found badly
    left, values, right = torch.svd_lowrank(weight, q=sought, niter=_ROUNDS)
    root = (values[:rank] / scale).sqrt()
    down[:rank] = root[:, None] * right.T[:rank]
    up[:, :rank] = left[:, :rank] * root
    residual = weight - scale * up.float() @ down.float()
    base.weight.copy_(residual.T if layer.fan_in_fan_out else residual)
    return PrincipalPart(down.clone(), up.clone())
