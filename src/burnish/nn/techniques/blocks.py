"""The parts of a decoder that techniques act on, found by structure, not by architecture."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from burnish.errors import ConfigError
from burnish.nn.models import LoadedModel

# GPT-2 keeps its matrices transposed, in a class of its own.
LINEAR = (torch.nn.Linear, Conv1D)


def decoder_blocks(model: LoadedModel) -> Any:
    """The decoder's blocks, bottom first: the longest module list of the body."""
    return blocks_of(model.body)


def blocks_of(body: Any) -> Any:
    """The blocks of a decoder body, bottom first."""
    lists = [m for m in body.modules() if isinstance(m, torch.nn.ModuleList)]
    return max(lists, key=len)


def trainable_parameters(model: LoadedModel) -> list[tuple[str, torch.nn.Parameter]]:
    """Names and weights that the optimiser will touch."""
    return [(name, p) for name, p in model.model.named_parameters() if p.requires_grad]


def sublayer_names(block: Any) -> tuple[str, str]:
    """Names of a block's attention and MLP: the two children whose outputs join the residual.

    Raises:
        ConfigError: the block is built otherwise (several MLPs, experts beside the attention, ...).
    """
    holders = [name for name, child in block.named_children() if linear_layers(child)]
    attention = [n for n in holders if "attention" in type(getattr(block, n)).__name__.lower()]
    others = [n for n in holders if n not in attention]
    if len(attention) != 1 or len(others) != 1:
        raise ConfigError(
            f"{type(block).__name__} has no single attention and single MLP "
            f"(its parts with matrices: {', '.join(holders) or 'none'})",
            where="technique",
            do="choose another technique, such as lora",
        )
    return attention[0], others[0]


def linear_layers(module: Any) -> dict[str, Any]:
    """A module's linear layers by name, itself as ''."""
    return {name: m for name, m in module.named_modules() if isinstance(m, LINEAR)}


def peft_settings(model: LoadedModel) -> dict[str, Any]:
    """What every adapter's PEFT configuration says alike."""
    # So that plain `peft` finds the base again; a .gguf's converted copy, not the .gguf.
    return {"task_type": "CAUSAL_LM", "base_model_name_or_path": str(model.folder.absolute())}


@contextmanager
def peft_warnings_understood() -> Iterator[None]:
    """Silence what PEFT says of adapters on a tied LM head and on GPT-2's transposed matrices.

    An adapter on a tied head changes the head alone, in training as in serving, and export unties
    the two before it merges. Which matrices are transposed PEFT sees by itself.
    """
    with warnings.catch_warnings():
        for message in ("Model has `tie_word_embeddings=True`", "fan_in_fan_out is set to"):
            warnings.filterwarnings("ignore", message, UserWarning)
        yield


def peft_type_of(peft_model: Any) -> str:
    """The kind of adapter a PEFT model carries, as adapter_config.json has it, such as `LORA`."""
    kind = peft_model.peft_config["default"].peft_type
    return str(getattr(kind, "value", kind))


def carries_adapter(model: LoadedModel, peft_type: str, technique: str) -> bool:
    """Whether the model carries an adapter of this kind already, which then is trained on.

    Raises:
        ConfigError: it carries one of another kind.
    """
    if not hasattr(model.model, "peft_config"):
        return False
    carried = peft_type_of(model.model)
    if carried != peft_type:
        raise ConfigError(
            f"{model.origin} carries an adapter of kind {carried.lower()}, "
            f"and {technique} would add another",
            where="technique",
            do="go on with the technique it was tuned with, or start from its base",
        )
    return True
