"""Bottleneck adapters (Houlsby et al., arXiv 1902.00751; Pfeiffer et al., arXiv 2005.00247).

A small MLP, hidden size -> bottleneck -> hidden size, added to a sub-layer's own output: after the
attention and after the MLP of each block (`houlsby`), or after the MLP alone (`pfeiffer`). It
starts as the identity. Where an architecture norms a sub-layer's output before the residual
(Gemma 2 and 3, OLMo 2), the adapter stands before that norm.

PEFT has no such method, so this module registers one with it, BOTTLENECK: its adapters are saved
and opened in PEFT's format, by plain `peft` too once this module is imported. The adapter is not
linear, so it cannot be merged into the base.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from peft import PeftConfig, get_peft_model, mapping
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer

from burnish.errors import ConfigError
from burnish.nn.models import LoadedModel
from burnish.nn.techniques.blocks import (
    carries_adapter,
    decoder_blocks,
    peft_settings,
    sublayer_names,
)

Placement = Literal["houlsby", "pfeiffer"]

BOTTLENECK = "BOTTLENECK"


def add_bottleneck(model: LoadedModel, *, size: int, placement: Placement) -> LoadedModel:
    """Add an adapter of `size` inner units to every block; the base is frozen.

    A model that carries bottleneck adapters already goes on training those.

    Raises:
        ConfigError: `size` is not below the hidden size, or the blocks are built otherwise.
    """
    if carries_adapter(model, BOTTLENECK, "bottleneck"):
        return model
    hidden = model.causal_lm.get_input_embeddings().weight.shape[1]
    if not 1 <= size < hidden:
        raise ConfigError(
            f"bottleneck_size = {size}, but the hidden size of {model.origin} is {hidden}",
            do=f"give a size from 1 to {hidden - 1}; a sixteenth is usual",
        )
    attention, mlp = sublayer_names(decoder_blocks(model)[0])
    config = BottleneckConfig(
        bottleneck_size=size,
        hidden_size=hidden,
        target_modules=[attention, mlp] if placement == "houlsby" else [mlp],
        **peft_settings(model),
    )
    return replace(model, model=get_peft_model(model.model, config, autocast_adapter_dtype=False))


@dataclass
class BottleneckConfig(PeftConfig):
    """What adapter_config.json says of bottleneck adapters."""

    bottleneck_size: int = 64
    """Inner units of each adapter."""
    hidden_size: int = 0
    """C, of the base."""
    target_modules: list[str] = field(default_factory=list)
    """The sub-layers that have an adapter after them, by their names within a block."""

    def __post_init__(self) -> None:
        """Name the method, as every PEFT configuration does."""
        super().__post_init__()
        self.peft_type = BOTTLENECK


class BottleneckLayer(torch.nn.Module, BaseTunerLayer):
    """A sub-layer with an adapter on its output, (B, T, C) -> (B, T, C)."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def __init__(self, base_layer: torch.nn.Module, name: str, config: BottleneckConfig) -> None:
        """Wrap a sub-layer; the adapter takes its device and number format."""
        super().__init__()
        self.base_layer = base_layer
        like = next(p for p in base_layer.parameters() if p.is_floating_point())
        make = {"device": like.device, "dtype": like.dtype}
        down = torch.nn.Linear(config.hidden_size, config.bottleneck_size, **make)
        up = torch.nn.Linear(config.bottleneck_size, config.hidden_size, **make)
        torch.nn.init.normal_(down.weight, std=0.01)  # as Houlsby et al. do
        for zeros in (down.bias, up.weight, up.bias):
            torch.nn.init.zeros_(zeros)
        self.bottleneck_down = torch.nn.ModuleDict({name: down})
        self.bottleneck_up = torch.nn.ModuleDict({name: up})
        self.set_adapter([name], inference_mode=config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The sub-layer's output with the adapter's added; an attention returns a tuple."""
        output = self.base_layer(*args, **kwargs)
        if self.disable_adapters:
            return output
        if isinstance(output, tuple):
            return (self._adapted(output[0]), *output[1:])
        return self._adapted(output)

    def _adapted(self, hidden: torch.Tensor) -> torch.Tensor:
        for name in self.active_adapters:
            inner = torch.nn.functional.gelu(self.bottleneck_down[name](hidden))
            hidden = hidden + self.bottleneck_up[name](inner)
        return hidden


class BottleneckModel(BaseTuner):
    """A base with bottleneck adapters injected, the way PEFT's own methods are."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: torch.nn.Module,
        target_name: str,
        parent: torch.nn.Module,
        **_: str,
    ) -> None:
        layer = BottleneckLayer(target, adapter_name, peft_config)
        self._replace_module(parent, target_name, layer, target)


# `peft.utils.register_peft_method` would do this, but takes only the names of PEFT's own enum.
mapping.PEFT_TYPE_TO_CONFIG_MAPPING[BOTTLENECK] = BottleneckConfig
mapping.PEFT_TYPE_TO_TUNER_MAPPING[BOTTLENECK] = BottleneckModel
mapping.PEFT_TYPE_TO_PREFIX_MAPPING[BOTTLENECK] = BottleneckModel.prefix
