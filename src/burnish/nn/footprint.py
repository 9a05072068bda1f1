"""How much memory a step will need, worked out before it is taken.

    peak = held now + gradients + optimiser + activations + head + what the allocator wastes

Activations are counted, not guessed: a small forest runs forward and every tensor that autograd
keeps for the backward is weighed once. They grow with the computed tokens (attention here keeps
queries, keys and values, never scores), so a line through two sizes gives any other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import checkpoint

from burnish.chat import Rendered
from burnish.errors import ResourceError
from burnish.nn.forest import plant
from burnish.nn.loss import BLOCK_BYTES, TILE_BYTES
from burnish.nn.memory import free_memory, held_memory
from burnish.nn.models import LoadedModel
from burnish.nn.optim import MasterWeights
from burnish.nn.step import forest_loss
from burnish.nn.techniques import decoder_blocks, trainable_parameters

# What the heap takes beyond live tensors, and what a block's backward holds for a moment, as a
# share of the activations: with glibc 1.25 to 1.4 where tensors are large, up to 2 where they are
# small (docs/LOG.md). The preflight then measures the worst batch itself.
# PyTorch's CUDA allocator rounds and caches less.
Masters = Literal["fp32", "stochastic_rounding"]

_WASTE = {"cpu": 1.3, "cuda": 1.1}

# No forest is larger.
_MOST_TOKENS = 1 << 24

# Sizes of the two probes: small, and even on architectures with sliding windows all alike.
_PROBE_TOKENS = (64, 192)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a training process, as a function of a batch's size."""

    held: int
    """Before the first step: model, libraries, data."""
    gradients: int
    optimizer: int
    per_token: float
    """Activations kept per computed token."""
    per_batch: float
    """Activations kept whatever the size."""
    per_block: float
    """With activation checkpointing: what one block keeps per token while it is recomputed."""
    head_row: int
    """Bytes of logits per loss term."""
    head_fixed: int
    """What the head needs whatever the number of terms."""
    waste: float

    def peak(self, tokens: int, terms: int) -> int:
        """Estimated peak of a step whose largest forest has so many computed tokens and terms."""
        activations = self.per_batch + (self.per_token + self.per_block) * tokens
        head = self.head_fixed + min(TILE_BYTES, terms * self.head_row)
        return int(self.held + self.gradients + self.optimizer + self.waste * activations + head)

    def tokens_within(self, limit: int) -> int:
        """The most computed tokens, all of them loss terms, whose peak is within `limit` bytes."""
        sizes = range(_MOST_TOKENS)
        return max(0, bisect_right(sizes, limit, key=lambda tokens: self.peak(tokens, tokens)) - 1)


def measure_footprint(model: LoadedModel) -> Footprint:
    """Weigh a model before its first step, without its optimiser."""
    small, large = (_kept_bytes(model, tokens) for tokens in _PROBE_TOKENS)
    per_token = (large - small) / (_PROBE_TOKENS[1] - _PROBE_TOKENS[0])
    trained = [p for _, p in trainable_parameters(model)]
    head = model.head.weight
    # A trained head's gradient is summed in fp32 and each tile's share is formed beside it.
    head_gradient = head.numel() * (4 + head.element_size()) if head.requires_grad else 0
    per_block = 0.0
    if _checkpointed(model):
        with _without_checkpoints(model):
            plain = [_kept_bytes(model, tokens) for tokens in _PROBE_TOKENS]
        whole = (plain[1] - plain[0]) / (_PROBE_TOKENS[1] - _PROBE_TOKENS[0])
        per_block = whole / len(decoder_blocks(model))
    return Footprint(
        held=held_memory(),
        gradients=sum(p.numel() * p.element_size() for p in trained),
        optimizer=0,
        per_token=per_token,
        per_batch=max(0.0, small - per_token * _PROBE_TOKENS[0]),
        per_block=per_block,
        head_row=model.vocabulary_size * head.element_size(),
        head_fixed=4 * BLOCK_BYTES + head_gradient,
        waste=_WASTE[head.device.type],
    )


@dataclass(frozen=True, slots=True)
class Fit:
    """How a run is fitted into memory."""

    footprint: Footprint
    batch_tokens: int
    master_weights: Masters
    checkpointing: bool
    notes: tuple[str, ...]
    """What was changed and why, for the user."""


def fit_into_memory(
    model: LoadedModel,
    optimizer_bytes: Callable[[Masters], int],
    *,
    batch_tokens: int,
    longest: int,
    memory_gb: float = 0.0,
    checkpointing: bool | None = None,
    master_weights: MasterWeights = "auto",
) -> Fit:
    """Choose the token budget, the form of the masters, and activation checkpointing.

    What costs least comes first: a smaller budget, then stochastic rounding instead of fp32
    masters, then checkpointing, which is a second forward. Only rounding changes a bit of the
    result.

    Args:
        model: ready to train.
        optimizer_bytes: what the optimiser holds with each form of the masters.
        batch_tokens: the budget asked for.
        longest: tokens of the longest example, which cannot be cut.
        memory_gb: the most the process may take, in 10^9 bytes; 0 is what the machine has free.
        checkpointing: None to choose; else on or off.
        master_weights: `auto` to choose.

    Raises:
        ResourceError: the longest example does not fit, whatever is done.
    """
    forms: list[Masters] = (
        ["fp32", "stochastic_rounding"] if master_weights == "auto" else [master_weights]
    )
    limit = int(memory_gb * 1e9) or held_memory() + int(0.9 * free_memory())
    for checkpoints in [False, True] if checkpointing is None else [checkpointing]:
        if checkpoints:
            checkpoint_blocks(model)
        measured = measure_footprint(model)
        for masters in forms:
            footprint = replace(measured, optimizer=optimizer_bytes(masters))
            within = footprint.tokens_within(limit)
            if within >= longest:
                budget = min(batch_tokens, within)
                notes = []
                if checkpoints and checkpointing is None:
                    notes.append("activation checkpointing is on: without it memory is too small")
                if masters != forms[0]:
                    notes.append("weights are rounded stochastically: masters would not fit")
                if budget < batch_tokens:
                    notes.append(
                        f"batch_tokens is {budget:,} instead of {batch_tokens:,}, to fit into "
                        "memory; the loss is the same"
                    )
                return Fit(footprint, budget, masters, checkpoints, tuple(notes))
    raise ResourceError(
        f"an example of {longest:,} tokens needs {footprint.peak(longest, longest) / 1e9:.1f} GB "
        f"of memory, and the run may take {limit / 1e9:.1f} GB",
        do="lower max_length or lora_rank, train fewer layers, choose quantisation=int8 or "
        "optimizer=adamw_8bit, or use a larger machine",
    )


def checkpoint_blocks(model: LoadedModel) -> None:
    """Keep only each block's input for the backward and run the block again there.

    (Chen et al., arXiv 1604.06174.) Blocks alone are set to training mode, which is what their
    checkpointing asks for; what is inside stays in evaluation mode, without dropout.
    """
    for block in decoder_blocks(model):
        block.gradient_checkpointing = True
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        block.training = True


def _checkpointed(model: LoadedModel) -> bool:
    return any(
        getattr(b, "gradient_checkpointing", False) and b.training for b in decoder_blocks(model)
    )


@contextmanager
def _without_checkpoints(model: LoadedModel) -> Iterator[None]:
    blocks = list(decoder_blocks(model))
    for block in blocks:
        block.training = False
    try:
        yield
    finally:
        for block in blocks:
            block.training = True


def _kept_bytes(model: LoadedModel, tokens: int) -> int:
    """Bytes autograd keeps for the backward of a forest of `tokens` with one loss term."""
    held: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.model.parameters()}

    def weigh(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    def same(tensor: Any) -> Any:
        return tensor

    row = Rendered([1] * tokens, [0.0] * (tokens - 1) + [1.0], [])
    with torch.autograd.graph.saved_tensors_hooks(weigh, same):
        forest_loss(model, plant([row]))
    return sum(held.values())
