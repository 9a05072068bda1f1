"""Whether an architecture can run on forests, and how it is trained where it cannot.

A forest needs every layer to be attention that goes through the attention interface of
`transformers`: what a token sees is then ours to say. State-space and linear-attention layers
carry a state along the flat batch; attention in chunks, with sinks, or bidirectional over a prefix
follows rules a forest does not know. Such a model is trained one example at a time through its own
forward: exact too, only without sharing.
"""

from __future__ import annotations

from typing import Any

from burnish.nn.attention import ATTENTION
from burnish.nn.models import LoadedModel
from burnish.nn.techniques import decoder_blocks

_LAYERS = {"full_attention", "sliding_attention"}


def use_forests(model: LoadedModel) -> str | None:
    """Switch a model to forest attention; returns why it cannot be, and then nothing is changed."""
    reason = _obstacle(model)
    if reason is None:
        model.causal_lm.set_attn_implementation(ATTENTION)
    return reason


def runs_on_forests(model: LoadedModel) -> bool:
    """Whether the model's forward takes a forest."""
    return bool(model.causal_lm.config._attn_implementation == ATTENTION)


def _obstacle(model: LoadedModel) -> str | None:
    config = model.causal_lm.config
    name = type(model.causal_lm).__name__
    if not getattr(model.causal_lm, "_supports_attention_backend", False):
        return f"{name} does not use the attention interface of transformers"
    if getattr(model.causal_lm, "_is_stateful", False):
        return f"{name} carries a state from token to token"
    other = sorted(set(getattr(config, "layer_types", None) or ()) - _LAYERS)
    if other:
        return f"{name} has layers of kind {', '.join(other)}"
    if getattr(config, "use_bidirectional_attention", False):
        return f"{name} attends in both directions"
    if any(hasattr(module, "sinks") for module in model.body.modules()):
        return f"{name} has attention sinks"
    if not all(_has_attention(block) for block in decoder_blocks(model)):
        return f"{name} has layers without attention"
    return None


def _has_attention(block: Any) -> bool:
    return any("attention" in type(m).__name__.lower() for m in block.modules())
