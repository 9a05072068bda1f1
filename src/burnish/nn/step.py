"""The training step: the only one there is, shared by pretrain and tune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from burnish.nn.forest import Forest
from burnish.nn.loss import head_loss
from burnish.nn.models import LoadedModel
from burnish.nn.optim import MasterAdamW


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step measured."""

    loss: float
    """Weighted mean cross-entropy over the step's loss terms, in nats."""
    grad_norm: float
    """Before clipping."""


def training_step(
    model: LoadedModel,
    forests: Sequence[Forest],
    optimizer: MasterAdamW,
    learning_rate: float,
    max_grad_norm: float,
) -> StepResult:
    """One optimiser step on the loss of all `forests` together.

    The loss is the sum over supervised tokens divided by their global weight, counted before any
    forward, so how a batch is cut into forests never changes it (huggingface/transformers#34191).
    """
    total = float(sum(forest.weights.sum() for forest in forests))
    loss = 0.0
    for forest in forests:
        part = forest_loss(model, forest) / total
        part.backward()
        loss += part.item()
    return StepResult(loss, optimizer.step(learning_rate, max_grad_norm))


def forest_loss(model: LoadedModel, forest: Forest) -> torch.Tensor:
    """Weighted sum of cross-entropies over a forest's loss terms, an fp32 scalar."""
    device = model.head.weight.device
    hidden = model.body(
        input_ids=forest.ids[None].to(device),
        position_ids=forest.positions[None].to(device),
        forest=forest,
        use_cache=False,
    ).last_hidden_state[0]  # (T, C)
    return head_loss(
        hidden[forest.sources.to(device)],
        model.head.weight,
        forest.targets.to(device),
        forest.weights.to(device),
        softcap=model.softcap,
    )
