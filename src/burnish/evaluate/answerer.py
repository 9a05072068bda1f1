"""Who answers the items: a model, or anything that turns conversations into texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from burnish.chat import render_prompt
from burnish.hashing import content_hash
from burnish.nn.generate import Sampling, generate
from burnish.nn.models import LoadedModel
from burnish.types import Conversation


@dataclass(frozen=True)
class Answerer:
    """One side of a comparison."""

    name: str
    """As the user knows it; heads the report's columns."""
    identity: str
    """The artefact's id, or `base-` and a hash: the parent that the report lists."""
    answer: Callable[[Sequence[Conversation]], list[str]]
    """Answers to the conversations' prompts, in order; draws its own progress bar."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it answers (template, decoding, number format), printed in the report."""


def model_answerer(name: str, loaded: LoadedModel, max_tokens: int) -> Answerer:
    """A model that answers greedily, its prompts rendered by the bridge.

    The settings name the chat template by a hash of its text: a base that borrows a default and
    the checkpoint that stored it are asked in the same form.
    """

    def answer(conversations: Sequence[Conversation]) -> list[str]:
        prompts = [render_prompt(c, loaded.template) for c in conversations]
        completions = generate(loaded, prompts, Sampling(max_tokens=max_tokens))
        return [completion.text for completion in completions]

    settings = {
        "decoding": f"greedy, at most {max_tokens} tokens",
        "chat template": content_hash(loaded.template.source)[:12],
        "precision": str(loaded.causal_lm.dtype).removeprefix("torch."),
    }
    return Answerer(name, loaded.identity, answer, settings)
