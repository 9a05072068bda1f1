"""Prompt tuning (arXiv 2104.08691) and prefix tuning (arXiv 2101.00190) through PEFT, on forests.

Legend: P virtual tokens, T tokens of the flat batch, K key/value heads, D head size, C hidden size.

Both put P virtual tokens before every example. On a forest they are the root under which every
tree hangs, so they are computed once a batch; in generation they are a prefix that all prompts
share. Their ids are negative, which no tokenizer makes: the embedding gives the trained rows for
them (prompt tuning), or rows of zeros that nobody sees, because attention has the trained keys and
values in their place in every layer (prefix tuning).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from transformers import DynamicCache

from burnish.nn.forest import Forest, Segment
from burnish.nn.models import LoadedModel
from burnish.nn.techniques.blocks import (
    blocks_of,
    carries_adapter,
    peft_settings,
    peft_type_of,
    sublayer_names,
)

_PROMPT, _PREFIX = "PROMPT_TUNING", "PREFIX_TUNING"


def with_virtual_root(forest: Forest, count: int) -> Forest:
    """The forest with every tree under one root of `count` virtual tokens; 0 changes nothing.

    Positions, depths, parents, leaves and loss sources are shifted; `tokens`, what the examples
    count alone, stays.
    """
    if count == 0:
        return forest
    segments = [
        Segment(
            start=segment.start + count,
            end=segment.end + count,
            parent=0 if segment.parent is None else segment.parent + 1,
            depth=segment.depth + count,
        )
        for segment in forest.segments
    ]
    return replace(
        forest,
        ids=torch.cat([torch.tensor(virtual_ids(count)), forest.ids]),
        positions=torch.cat([torch.arange(count), forest.positions + count]),
        segments=(Segment(0, count, None, 0), *segments),
        sources=forest.sources + count,
        leaves=tuple(leaf + 1 for leaf in forest.leaves),
        blocks={},
    )


def virtual_ids(count: int) -> list[int]:
    """The ids of `count` virtual tokens, -count to -1."""
    return list(range(-count, 0))


def virtual_tokens(model: LoadedModel) -> int:
    """P; 0 for a model without virtual tokens."""
    if not hasattr(model.model, "peft_config"):
        return 0
    return int(getattr(model.model.peft_config["default"], "num_virtual_tokens", None) or 0)


def virtual_keys_values(model: LoadedModel) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Per layer the trained keys and values, (1, K, P, D) each; empty without prefix tuning."""
    if virtual_tokens(model) == 0 or peft_type_of(model.model) != _PREFIX:
        return []
    trained = _prefix_keys_values(model.model).to(model.causal_lm.dtype)
    return [(keys[None], values[None]) for keys, values in trained]


def add_prompt(model: LoadedModel, *, virtual_tokens: int) -> LoadedModel:
    """Prompt tuning: train the embeddings of virtual tokens; the base is frozen.

    They start as the embeddings of random words (Lester et al., section 3.2). A model that carries
    a prompt already goes on training that one.
    """
    if carries_adapter(model, _PROMPT, "prompt"):
        return model
    from peft import PromptTuningConfig, get_peft_model

    config = PromptTuningConfig(
        num_virtual_tokens=virtual_tokens,
        prompt_tuning_init="SAMPLE_VOCAB",
        **peft_settings(model),
    )
    adapted = get_peft_model(model.model, config)
    install_virtual_tokens(adapted)
    return replace(model, model=adapted)


def add_prefix(model: LoadedModel, *, virtual_tokens: int) -> LoadedModel:
    """Prefix tuning: train keys and values of virtual tokens in every layer; the base is frozen.

    They start as the base's own keys and values of random words, which train far better than
    random numbers (Li & Liang, section 7.4). A model that carries a prefix already goes on training
    that one.
    """
    if carries_adapter(model, _PREFIX, "prefix"):
        return model
    from peft import PrefixTuningConfig, get_peft_model

    ids = torch.randint(model.vocabulary_size, (1, virtual_tokens), device=model.causal_lm.device)
    with torch.no_grad():
        # A plain cache: one made for the model would drop what a sliding window has passed.
        layers = model.body(input_ids=ids, past_key_values=DynamicCache()).past_key_values.layers
    start = torch.stack([torch.cat([layer.keys, layer.values]) for layer in layers])
    _, _, heads, _, head_size = start.shape  # (layers, 2, K, P, D)
    config = PrefixTuningConfig(
        num_virtual_tokens=virtual_tokens,
        num_layers=len(layers),
        num_attention_heads=heads,
        token_dim=heads * head_size,
        **peft_settings(model),
    )
    adapted = get_peft_model(model.model, config)
    encoder = adapted.prompt_encoder["default"]
    encoder.load_prompt_embeddings(start.flatten(0, 1).permute(2, 0, 1, 3).flatten(1).float())
    install_virtual_tokens(adapted)
    return replace(model, model=adapted)


def install_virtual_tokens(peft_model: Any) -> None:
    """Make the base inside a PEFT model understand its virtual tokens."""
    kind = peft_type_of(peft_model)
    assert kind in (_PROMPT, _PREFIX), kind
    base = peft_model.get_base_model()
    embedding = base.get_input_embeddings()
    rows = _VirtualRows(peft_model.prompt_encoder["default"] if kind == _PROMPT else None)
    embedding.register_forward_pre_hook(rows.before)
    embedding.register_forward_hook(rows.after)
    if kind == _PREFIX:
        body = getattr(base, base.base_model_prefix)
        attentions = [getattr(block, sublayer_names(block)[0]) for block in blocks_of(body)]

        def give_prefixes(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
            if "forest" in kwargs:
                for module, pair in zip(attentions, _prefix_keys_values(peft_model), strict=True):
                    module.prefix_key_value = pair

        body.register_forward_pre_hook(give_prefixes, with_kwargs=True)


class _VirtualRows:
    """Two hooks around the embedding: what it gives for negative ids."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder
        self.virtual: torch.Tensor | None = None
        """Ids and where they are negative, (B, T), between the two hooks."""
        self.ids = torch.empty(0)

    def before(self, _: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        """Put an id that the embedding knows in place of each negative one."""
        (ids,) = args
        self.ids, self.virtual = ids, ids < 0
        return (ids.clamp(min=0),)

    def after(self, _: Any, __: Any, embedded: torch.Tensor) -> torch.Tensor | None:
        """Replace the rows of negative ids."""
        assert self.virtual is not None
        if not bool(self.virtual.any()):
            return None
        embedded = embedded.clone()
        if self.encoder is None:  # forest attention knows what belongs here
            embedded[self.virtual] = 0.0
        else:
            trained = self.encoder.embedding.weight  # (P, C), fp32
            rows = trained[self.ids[self.virtual] + len(trained)]
            embedded[self.virtual] = rows.to(embedded.dtype)
        return embedded


def _prefix_keys_values(peft_model: Any) -> torch.Tensor:
    """The trained keys and values, (layers, 2, K, P, D), in PEFT's own order."""
    config = peft_model.peft_config["default"]
    weight = peft_model.prompt_encoder["default"].embedding.weight
    heads = config.num_attention_heads
    shape = (config.num_virtual_tokens, config.num_layers, 2, heads, config.token_dim // heads)
    keys_values: torch.Tensor = weight.view(shape).permute(1, 2, 3, 0, 4)
    return keys_values
