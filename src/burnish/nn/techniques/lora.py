"""LoRA and its family: rsLoRA, DoRA, PiSSA, LoRA+, on top blocks only, on the LM head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from burnish.config import did_you_mean
from burnish.errors import ConfigError
from burnish.nn.models import LoadedModel
from burnish.nn.techniques.blocks import (
    LINEAR,
    carries_adapter,
    decoder_blocks,
    linear_layers,
    peft_settings,
    peft_warnings_understood,
)
from burnish.nn.techniques.pissa import split_off_principal_part

LoraInit = Literal["default", "pissa"]

ALL_LINEAR = "all-linear"


def add_lora(
    model: LoadedModel,
    *,
    rank: int,
    alpha: float,
    targets: str | tuple[str, ...],
    use_rslora: bool = False,
    use_dora: bool = False,
    init: LoraInit = "default",
    layers: int = 0,
) -> LoadedModel:
    """LoRA (Hu et al., arXiv 2106.09685) through PEFT; the base is frozen.

    A model that carries a LoRA adapter already goes on training that one, as it was made.

    Args:
        model: the base, quantised or not.
        rank: of the matrices A (rank, in) and B (out, rank).
        alpha: the update is alpha / rank * B A.
        targets: `all-linear` (every linear layer but the LM head), module names such as `q_proj`,
            or both; the LM head by its name (`lm_head`).
        use_rslora: alpha / sqrt(rank) instead (arXiv 2312.03732).
        use_dora: learn each row's length apart from its direction (arXiv 2402.09353).
        init: `default` starts B at zero; `pissa` (arXiv 2404.02948) starts A B as the weight's
            largest singular directions, which are taken out of the frozen weight.
        layers: only the top so many blocks get adapters; 0 is all.

    Raises:
        ConfigError: targets that name no linear layer of the model, or settings that exclude each
            other.
    """
    if carries_adapter(model, "LORA", "lora"):
        return model  # opened with `trained=True`: its LoRA weights are trainable, the base is not
    from peft import LoraConfig, get_peft_model

    names = _target_names(model, (targets,) if isinstance(targets, str) else targets, layers)
    _check_settings(model, names, use_dora, init)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=names,
        use_rslora=use_rslora,
        use_dora=use_dora,
        **peft_settings(model),
    )
    with peft_warnings_understood():
        # Adapter weights in the compute type: their fp32 masters are the optimiser's.
        adapted = get_peft_model(model.model, config, autocast_adapter_dtype=False)
    adapted.peft_config["default"].base_model_name_or_path = config.base_model_name_or_path
    if init == "pissa":
        split_off_principal_part(adapted)
    return replace(model, model=adapted)


def learning_rate_multiplier(name: str, loraplus_lr_ratio: float) -> float:
    """By how much the parameter `name` learns faster: LoRA+ (arXiv 2402.12354) for B matrices."""
    return loraplus_lr_ratio if ".lora_B." in name else 1.0


def _target_names(model: LoadedModel, targets: tuple[str, ...], layers: int) -> list[str]:
    """Full names of the linear layers that get an adapter."""
    blocks = decoder_blocks(model)
    if not 0 <= layers <= len(blocks):
        raise ConfigError(
            f"lora_layers = {layers}, but {model.origin} has {len(blocks)} layers",
            do=f"give a number from 1 to {len(blocks)}, or 0 for all",
        )
    linear = linear_layers(model.causal_lm)
    [head] = [name for name, module in linear.items() if module is model.head]
    suffixes = {name.rpartition(".")[2] for name in linear}
    wrong = [t for t in targets if t != ALL_LINEAR and t not in suffixes]
    if wrong:
        hints = [f"{t!r} names no linear layer{did_you_mean(t, suffixes)}" for t in wrong]
        raise ConfigError("\n    ".join(hints), where="lora_targets", do=f"or use {ALL_LINEAR}")
    below = {
        id(module)
        for block in blocks[: len(blocks) - layers if layers else 0]
        for module in block.modules()
        if isinstance(module, LINEAR)
    }
    return [
        name
        for name, module in linear.items()
        if id(module) not in below
        and (name.rpartition(".")[2] in targets or (ALL_LINEAR in targets and name != head))
    ]


def _check_settings(model: LoadedModel, names: list[str], use_dora: bool, init: LoraInit) -> None:
    faults = []
    targeted: dict[str, Any] = linear_layers(model.causal_lm)
    on_head = any(targeted[name] is model.head for name in names)
    if on_head and use_dora:
        faults.append("use_dora rescales whole rows: it cannot be put on the LM head")
    if init == "pissa" and on_head:
        faults.append(
            "lora_init=pissa changes the weight it is put on, which for the LM head may "
            "be the embedding: it cannot be put on the LM head"
        )
    if init == "pissa" and model.quantisation != "none":
        faults.append("lora_init=pissa changes the base's weights, which quantisation has rounded")
    if faults:
        raise ConfigError("\n    ".join(faults), where="lora", do="drop one of the two settings")
