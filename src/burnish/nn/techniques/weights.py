"""Techniques that train the base's own weights: all of them, or some layers."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from burnish.errors import ConfigError
from burnish.nn.models import LoadedModel
from burnish.nn.techniques.blocks import decoder_blocks


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
    _model_without_adapter(model, "layers").requires_grad_(False)
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
    return model


def train_matching(model: LoadedModel, patterns: Sequence[str]) -> LoadedModel:
    """Freeze all but the parameters whose names match one of the glob `patterns`.

    Names are those of the model's parameters, such as `model.layers.17.mlp.up_proj.weight`; `*`
    matches dots too, so `model.layers.1[67].*` is two whole blocks and `*norm*` every norm.

    Raises:
        ConfigError: a pattern matches nothing; the nearest names are given.
    """
    assert patterns
    parameters = dict(_model_without_adapter(model, "layers").named_parameters())
    barren = [p for p in patterns if not any(fnmatchcase(name, p) for name in parameters)]
    if barren:
        nearest = {p: ", ".join(get_close_matches(p, parameters, 3, cutoff=0)) for p in barren}
        raise ConfigError(
            "\n    ".join(f"{p!r} matches no parameter; nearest: {nearest[p]}" for p in barren),
            where="trained_modules",
            do="give glob patterns over the names of the model's parameters"
            + (" (its LM head is its embedding)" if _is_tied(model) else ""),
        )
    for name, parameter in parameters.items():
        parameter.requires_grad_(any(fnmatchcase(name, p) for p in patterns))
    return model


class GradualUnfreezing:
    """Unfreeze from the top, one block more every so many steps (ULMFiT, arXiv 1801.06146, 3.3).

    A function of the step alone, so a resumed run trains what the unbroken one would.
    """

    def __init__(self, model: LoadedModel, top_layers: int, unfreeze_every: int) -> None:
        """Take the blocks that `train_top_layers` made trainable."""
        assert top_layers >= 1
        assert unfreeze_every >= 1
        self.blocks = list(decoder_blocks(model))[: -top_layers - 1 : -1]
        self.every = unfreeze_every

    def __call__(self, step: int) -> None:
        """Make trainable what step `step` (from 0) trains; call it before the step's forward.

        Parameters still frozen get no gradient at all, and the optimiser leaves them as they are.
        """
        for depth, block in enumerate(self.blocks):
            block.requires_grad_(depth <= step // self.every)


def _model_without_adapter(model: LoadedModel, technique: str) -> Any:
    if hasattr(model.model, "peft_config"):
        raise ConfigError(
            f"{model.origin} is an adapter, but {technique} trains the base's own weights",
            do="go on with the technique it was tuned with, or merge first: "
            f"burnish export {model.origin} --to merged --out MERGED",
        )
    if model.quantisation != "none":
        raise ConfigError(
            f"{technique} trains the base's own weights, which {model.quantisation} rounds away",
            where="quantisation",
            do="--set quantisation=none, or --technique lora",
        )
    return model.model


def _final_norm(model: LoadedModel) -> Any:
    """The norm after the last block, whatever the architecture calls it."""
    for name in ("norm", "ln_f", "final_layer_norm", "final_layernorm"):
        if hasattr(model.body, name):
            return getattr(model.body, name)
    return None


def _is_tied(model: LoadedModel) -> bool:
    return model.head.weight is model.causal_lm.get_input_embeddings().weight
