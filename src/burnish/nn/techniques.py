"""What is trained: everything, the top layers, or adapters on a frozen model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch

from burnish.config import did_you_mean
from burnish.errors import ConfigError
from burnish.nn.models import LoadedModel

Technique = Literal["full", "lora", "layers"]


def train_everything(model: LoadedModel) -> LoadedModel:
    """Full fine-tuning: every weight is trained."""
    _model_without_adapter(model, "full").requires_grad_(True)
    return model


def train_top_layers(model: LoadedModel, top_layers: int) -> LoadedModel:
    """Freeze all but the top `top_layers` blocks and the final norm.

    Embeddings and LM head stay frozen: trained ones would pull the backward through every frozen
    block again. Nothing below the first trained block needs a gradient, so autograd never enters it
    (and we never ask for input gradients, as several trainers do).

    Raises:
        ConfigError: more layers asked for than there are.
    """
    body = _model_without_adapter(model, "layers").requires_grad_(False)
    blocks = decoder_blocks(model)
    if not 1 <= top_layers <= len(blocks):
        raise ConfigError(
            f"top_layers = {top_layers}, but {model.origin} has {len(blocks)} layers",
            do=f"--set top_layers=K with K from 1 to {len(blocks)}",
        )
    for block in blocks[len(blocks) - top_layers :]:
        block.requires_grad_(True)
    norm = _final_norm(model)
    if norm is not None:
        norm.requires_grad_(True)
    assert body is not None
    return model


def add_lora(
    model: LoadedModel, *, rank: int, alpha: float, targets: str | tuple[str, ...]
) -> LoadedModel:
    """LoRA (Hu et al., arXiv 2106.09685) through PEFT; the base is frozen.

    `targets` is `all-linear` (every linear layer but the LM head) or module names such as `q_proj`.
    A model that carries an adapter already goes on training that one.

    Raises:
        ConfigError: targets that name no linear layer of the model.
    """
    if hasattr(model.model, "peft_config"):
        return model  # opened with `trained=True`: its LoRA weights are trainable, the base is not
    from peft import LoraConfig, get_peft_model

    if targets != "all-linear":
        _check_targets(model, targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
        # So that plain `peft` finds the base again; a .gguf's converted copy, not the .gguf.
        base_model_name_or_path=str(model.folder.absolute()),
    )
    # Adapter weights in the compute type: their fp32 masters are the optimiser's.
    adapted = get_peft_model(model.model, config, autocast_adapter_dtype=False)
    adapted.peft_config["default"].base_model_name_or_path = str(model.folder.absolute())
    return replace(model, model=adapted)


def decoder_blocks(model: LoadedModel) -> Any:
    """The decoder's blocks, bottom first: the longest module list of the body."""
    lists = [m for m in model.body.modules() if isinstance(m, torch.nn.ModuleList)]
    return max(lists, key=len)


def trainable_parameters(model: LoadedModel) -> list[tuple[str, torch.nn.Parameter]]:
    """Names and weights that the optimiser will touch."""
    return [(name, p) for name, p in model.model.named_parameters() if p.requires_grad]


def _model_without_adapter(model: LoadedModel, technique: str) -> Any:
    if hasattr(model.model, "peft_config"):
        raise ConfigError(
            f"{model.origin} is an adapter, but {technique} trains the base's own weights",
            do="go on with --technique lora, or merge first: "
            f"burnish export {model.origin} --to merged --out MERGED",
        )
    return model.model


def _final_norm(model: LoadedModel) -> Any:
    """The norm after the last block, whatever the architecture calls it."""
    for name in ("norm", "ln_f", "final_layer_norm", "final_layernorm"):
        if hasattr(model.body, name):
            return getattr(model.body, name)
    return None


def _check_targets(model: LoadedModel, targets: str | tuple[str, ...]) -> None:
    modules = model.model.named_modules()
    linear = {n.rpartition(".")[2] for n, m in modules if isinstance(m, torch.nn.Linear)}
    wrong = [t for t in ((targets,) if isinstance(targets, str) else targets) if t not in linear]
    if wrong:
        hints = [f"{t!r} names no linear layer{did_you_mean(t, linear)}" for t in wrong]
        raise ConfigError("\n    ".join(hints), where="lora_targets", do="or use all-linear")
