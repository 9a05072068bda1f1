"""The training step: the only one there is, shared by pretrain and tune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from burnish.nn.forest import Forest, rounded
from burnish.nn.head import head_of
from burnish.nn.loss import head_loss
from burnish.nn.models import LoadedModel
from burnish.nn.optim import Optimizer
from burnish.nn.support import runs_on_forests
from burnish.nn.techniques import virtual_tokens, with_virtual_root


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
    optimizer: Optimizer,
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
    forest = with_virtual_root(forest, virtual_tokens(model))
    if runs_on_forests(model):
        forest = rounded(forest)
    head = head_of(model)
    device = head.weight.device
    hidden = hidden_states(model, forest)[forest.sources.to(device)]  # (N, C)
    return head_loss(
        hidden,
        head.weight,
        forest.targets.to(device),
        forest.weights.to(device),
        bias=head.bias,
        low_rank=head.low_rank(hidden),
        softcap=head.softcap,
        scale=head.scale,
    )


def hidden_states(model: LoadedModel, forest: Forest) -> torch.Tensor:
    """What the LM head reads, for every token of a forest: (T, C)."""
    device = model.head.weight.device
    own: dict[str, object] = {"forest": forest} if runs_on_forests(model) else {}
    hidden: torch.Tensor = model.body(
        input_ids=forest.ids[None].to(device),
        position_ids=forest.positions[None].to(device),
        use_cache=False,
        **own,
    ).last_hidden_state[0]
    return hidden
