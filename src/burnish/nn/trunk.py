"""The trunk: the blocks at the bottom of a decoder that no training of a run ever changes.

What the trunk gives for a token follows from the token's path alone, so it can be computed once and
kept (`nn.trunk_cache`). Its hash says whose hidden states those are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import torch
import transformers
from peft.tuners.tuners_utils import BaseTunerLayer

from burnish.hashing import content_hash
from burnish.nn.models import LoadedModel
from burnish.nn.rows import Array
from burnish.nn.support import runs_on_forests
from burnish.nn.techniques import decoder_blocks
from burnish.progress import progress_bar

# Raised when what is kept changes its meaning, so that older entries are not taken for it.
_FORMAT = 1

# Settings of a config that say nothing about what a block computes.
_IRRELEVANT = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")


def trunk_depth(model: LoadedModel) -> int:
    """k: how many blocks from the bottom are frozen and carry no adapter; 0 means no trunk."""
    return 0 if why_no_trunk(model) else _frozen_blocks(model)


def why_no_trunk(model: LoadedModel) -> str | None:
    """What keeps the lowest block's output from staying the same, if anything does.

    Ask before training starts: gradual unfreezing trains its blocks later, but names them first.
    """
    configs = getattr(model.model, "peft_config", {}).values()
    if any(config.is_prompt_learning for config in configs):
        return "virtual tokens are trained before the first block"
    embeddings = model.body.get_input_embeddings()
    if embeddings._forward_hooks or embeddings._forward_pre_hooks:
        return (
            "the embeddings are changed on their way to the first block (NEFTune, virtual tokens)"
        )
    blocks = decoder_blocks(model)
    depth = _frozen_blocks(model)
    if depth == 0:
        return "the lowest block is trained or carries an adapter"
    trunk = dict(_trunk_tensors(model, depth))
    if any(tensor.requires_grad for tensor in trunk.values()):
        return "the embeddings are trained"
    if any(_draws(module) for block in blocks[:depth] for module in block.modules()):
        return "the frozen blocks have dropout in force"
    if not runs_on_forests(model):
        return f"{model.origin} does not take forest batches"
    return None


def _frozen_blocks(model: LoadedModel) -> int:
    def is_fixed(block: Any) -> bool:
        return not any(p.requires_grad for p in block.parameters()) and not any(
            isinstance(m, BaseTunerLayer) or hasattr(m, "prefix_key_value") for m in block.modules()
        )

    return sum(1 for _ in takewhile(is_fixed, decoder_blocks(model)))


def _draws(module: Any) -> bool:
    """Whether a module draws random numbers as it stands."""
    share = module.p if isinstance(module, torch.nn.Dropout) else 0.0
    return module.training and max(share, getattr(module, "attention_dropout", 0.0)) > 0


def _trunk_tensors(model: LoadedModel, depth: int) -> list[tuple[str, torch.Tensor]]:
    """Names and values of all that decides what block k is given.

    Of the body everything but the blocks from k on and vectors that come after the blocks, such as
    a final norm: modules register what they hold in the order of their work.
    """
    tensors = [*model.body.named_parameters(), *model.body.named_buffers()]
    block_of = {
        id(tensor): n
        for n, block in enumerate(decoder_blocks(model))
        for tensor in (*block.parameters(), *block.buffers())
    }
    found, past_blocks = [], False
    for name, tensor in tensors:
        block = block_of.get(id(tensor))
        past_blocks = past_blocks or block is not None
        if block < depth if block is not None else not past_blocks or tensor.dim() > 1:
            found.append((name, tensor))
    return found


def trunk_hash(model: LoadedModel, depth: int) -> str:
    """Content hash of the lowest `depth` blocks and of what comes before them."""
    config = json.loads(model.body.config.to_json_string(use_diff=False))
    kept = {k: v for k, v in config.items() if k not in _IRRELEVANT and not k.endswith("_token_id")}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    tensors = _trunk_tensors(model, depth)
    digest = hashlib.sha256(
        content_hash({"config": kept, "depth": depth, "format": _FORMAT, **versions}).encode()
    )
    total = sum(tensor.numel() for _, tensor in tensors)
    with progress_bar("hashing the frozen layers", unit="weight", total=total) as bar:
        for name, tensor in tensors:
            for part in _plain_tensors(tensor):
                digest.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
                digest.update(tensor_bytes(part.reshape(-1)).data)
            bar.update(tensor.numel())
    return digest.hexdigest()[:32]


def _plain_tensors(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensor itself, or what a quantised one is made of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _plain_tensors(getattr(tensor, name))


def tensor_bytes(tensor: torch.Tensor) -> Array:
    """A tensor's bytes as an array, (..., bytes of the last dimension) uint8; on CPU a view."""
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy()
