"""Techniques of fine-tuning: what is trained, and how a trained part is saved.

`weights` trains weights of the base itself; `lora`, `bottleneck`, `ia3` and `virtual` (prefix and
prompt tuning) train adapters beside a frozen base, in PEFT's format; `neftune` adds noise to any of
them; `saving` writes what was trained.
"""

from typing import Literal

from burnish.nn.techniques.blocks import decoder_blocks, trainable_parameters
from burnish.nn.techniques.bottleneck import Placement, add_bottleneck
from burnish.nn.techniques.ia3 import add_ia3
from burnish.nn.techniques.lora import LoraInit, add_lora, learning_rate_multiplier
from burnish.nn.techniques.neftune import EmbeddingNoise
from burnish.nn.techniques.saving import save_weights
from burnish.nn.techniques.virtual import (
    add_prefix,
    add_prompt,
    virtual_tokens,
    with_virtual_root,
)
from burnish.nn.techniques.weights import (
    GradualUnfreezing,
    train_everything,
    train_matching,
    train_top_layers,
)

Technique = Literal["full", "layers", "lora", "bottleneck", "ia3", "prefix", "prompt"]

__all__ = [
    "EmbeddingNoise",
    "GradualUnfreezing",
    "LoraInit",
    "Placement",
    "Technique",
    "add_bottleneck",
    "add_ia3",
    "add_lora",
    "add_prefix",
    "add_prompt",
    "decoder_blocks",
    "learning_rate_multiplier",
    "save_weights",
    "train_everything",
    "train_matching",
    "train_top_layers",
    "trainable_parameters",
    "virtual_tokens",
    "with_virtual_root",
]
