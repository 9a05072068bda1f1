"""IA3 (Liu et al., arXiv 2205.05638): learned scales on keys, values and the MLP's inner units."""

from __future__ import annotations

from dataclasses import replace

import torch

from burnish.errors import ConfigError
from burnish.nn.models import LoadedModel
from burnish.nn.techniques.blocks import (
    carries_adapter,
    decoder_blocks,
    linear_layers,
    peft_settings,
    peft_warnings_understood,
    sublayer_names,
)


def add_ia3(model: LoadedModel) -> LoadedModel:
    """IA3 through PEFT, on every block; the base is frozen and the scales start at one.

    Keys and values are scaled after their projections (a fused projection as a whole, as PEFT does
    for GPT-2), the MLP's inner units before the projection back to the hidden size. A model that
    carries an IA3 adapter already goes on training that one.

    Raises:
        ConfigError: blocks without such projections.
    """
    if carries_adapter(model, "IA3", "ia3"):
        return model
    from peft import IA3Config, get_peft_model

    targets, feed_forward = _projections(model)
    config = IA3Config(
        target_modules=[*targets, *feed_forward],
        feedforward_modules=feed_forward,
        **peft_settings(model),
    )
    with peft_warnings_understood():
        adapted = get_peft_model(model.model, config, autocast_adapter_dtype=False)
    adapted.peft_config["default"].base_model_name_or_path = config.base_model_name_or_path
    return replace(model, model=adapted)


def _projections(model: LoadedModel) -> tuple[list[str], list[str]]:
    """Names within a block: of keys' and values' projections, and of the MLP's last one.

    PEFT's own table has neither Phi-3 nor OLMo 2 nor SmolLM3, and names the queries for Gemma and
    Qwen, where the paper scales keys.
    """
    block = decoder_blocks(model)[0]
    attention, mlp = sublayer_names(block)
    inner = linear_layers(getattr(block, attention))
    keys_and_values = [name for name in inner if name.startswith(("k_", "v_", "key", "value"))]
    fused = [name for name in inner if "qkv" in name or name == "c_attn"]
    hidden = model.causal_lm.get_input_embeddings().weight.shape[1]
    last = [
        name
        for name, module in linear_layers(getattr(block, mlp)).items()
        if _outputs(module) == hidden
    ]
    if not (keys_and_values or fused) or len(last) != 1:
        raise ConfigError(
            f"{type(block).__name__} has no projections that IA3 knows: "
            f"{', '.join(linear_layers(block))}",
            where="technique",
            do="choose another technique, such as lora",
        )
    return [f"{attention}.{n}" for n in keys_and_values or fused], [f"{mlp}.{last[0]}"]


def _outputs(module: torch.nn.Module) -> int:
    if isinstance(module, torch.nn.Linear):
        return module.out_features
    outputs = module.nf  # GPT-2's Conv1D
    assert isinstance(outputs, int)
    return outputs
