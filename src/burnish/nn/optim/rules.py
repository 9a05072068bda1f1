"""Which rule moves which parameter, and what each rule keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from burnish.nn.optim.adamw_8bit import BLOCK, MIN_QUANTISED, AdamW8bit
from burnish.nn.optim.settings import OptimizerSettings

Rule = Literal["adamw", "adamw_8bit", "muon", "adafactor", "sgd"]


def rules(module: torch.nn.Module, settings: OptimizerSettings) -> dict[str, Rule]:
    """The rule of each trainable parameter, by name.

    It is the optimiser asked for, but for `muon`: it is made for the matrices of the hidden layers
    (Jordan et al., kellerjordan.github.io/posts/muon), so embeddings, the LM head and vectors get
    AdamW. The matrices of a LoRA adapter count as hidden ones.
    """
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if settings.optimizer != "muon":
        return dict.fromkeys(named, settings.optimizer)
    apart = _embeddings_and_head(module)
    return {
        name: "muon" if p.dim() == 2 and is_matrix(p) and id(p) not in apart else "adamw"
        for name, p in named.items()
    }


def is_matrix(parameter: torch.Tensor) -> bool:
    """Whether weight decay applies: IA3's scales, of shape (N, 1), are vectors like a norm's."""
    return parameter.dim() >= 2 and min(parameter.shape) > 1


def torch_optimizer(
    rule: Rule, groups: Sequence[dict[str, Any]], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """The optimiser of `rule` over parameter groups that bring their weight decay."""
    betas = (settings.adam_beta1, settings.adam_beta2)
    if rule == "adamw":  # Loshchilov & Hutter, arXiv 1711.05101
        return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)
    if rule == "adamw_8bit":
        return AdamW8bit(groups, lr=0.0, betas=betas)
    if rule == "muon":
        # Moonshot's scale gives updates the size of AdamW's, so one learning rate serves both
        # (arXiv 2502.16982).
        momentum = settings.momentum_in_force
        return torch.optim.Muon(groups, lr=0.0, momentum=momentum, adjust_lr_fn="match_rms_adamw")
    if rule == "adafactor":  # Shazeer & Stern, arXiv 1804.04235
        return torch.optim.Adafactor(groups, lr=0.0)
    return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum_in_force)


def moment_bytes(rule: Rule, parameter: torch.Tensor, settings: OptimizerSettings) -> int:
    """Bytes `rule` keeps for one parameter besides the weights."""
    count = parameter.numel()
    if rule == "adamw_8bit" and count >= MIN_QUANTISED:
        return 2 * (count + 4 * -(-count // BLOCK))
    if rule == "adafactor" and parameter.dim() > 1:
        return 4 * (count // parameter.shape[-1] + count // parameter.shape[-2])
    if rule in ("adamw", "adamw_8bit"):
        return 8 * count
    if rule == "sgd" and not settings.momentum_in_force:
        return 0
    return 4 * count


def working_bytes(rule: Rule, parameter: torch.Tensor) -> int:
    """Bytes the update of one parameter takes while it runs, its fp32 gradient apart."""
    if rule == "muon":  # the update in fp32, two copies in bf16, two Gram matrices in bf16
        return 8 * parameter.numel() + 4 * min(parameter.shape) ** 2
    return 4 * parameter.numel() if rule == "adafactor" else 0


def _embeddings_and_head(module: torch.nn.Module) -> set[int]:
    """`id`s of the parameters that turn tokens into vectors and back."""
    found = [m for m in module.modules() if isinstance(m, torch.nn.Embedding)]
    head = getattr(module, "get_output_embeddings", lambda: None)()
    if head is not None:
        found.append(head)
    return {id(p) for m in found for p in m.parameters(recurse=False)}
