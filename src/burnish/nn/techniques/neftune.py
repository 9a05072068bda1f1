"""NEFTune: noise on the embeddings while training (Jain et al., arXiv 2310.05914)."""

from __future__ import annotations

import math
from typing import Any

import torch

from burnish.nn.forest import Forest
from burnish.nn.models import LoadedModel


class EmbeddingNoise:
    """Uniform noise in +-alpha / sqrt(L * C) on the embedding of every token.

    L is the tokens of the token's own example and C the hidden size. Each example draws its own
    noise, so examples cannot share prefixes (batches must be planted with `share_prefixes=False`)
    and no trunk can be cached. What an example draws depends on the seed, the step and its place in
    the step alone: a resumed run draws the same, and so does a step that is cut into more forests.

    There is noise only where a gradient is wanted and after the first `__call__`: validation,
    generation and the checks before step 1 see none.
    """

    def __init__(self, model: LoadedModel, alpha: float, seed: int) -> None:
        """Hook the model's embedding; `remove` takes the hooks off."""
        assert alpha > 0
        self.alpha, self.seed = alpha, seed
        self.step: int | None = None
        self.examples = 0
        """Examples of this step that have drawn their noise."""
        self.spans: list[tuple[int, int]] = []
        """Where the examples of the forward in progress begin and end."""
        self._handles = (
            model.body.register_forward_pre_hook(self._note_examples, with_kwargs=True),
            model.causal_lm.get_input_embeddings().register_forward_hook(self._add_noise),
        )

    def __call__(self, step: int) -> None:
        """Begin step `step`; call it before the step's first forward."""
        self.step, self.examples = step, 0

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def _note_examples(self, _: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if "input_ids" not in kwargs:  # not a training step
            self.spans = []
            return
        ids: torch.Tensor = kwargs["input_ids"][0]
        virtual = int((ids < 0).sum())  # a trained prompt stands before the examples
        forest: Forest | None = kwargs.get("forest")
        if forest is None:  # an architecture that is trained one example at a time
            self.spans = [(virtual, len(ids))]
            return
        examples = [s for s in forest.segments if s.start >= virtual]
        shared = {s.parent for s in examples} - {None, 0 if virtual else None}
        assert not shared or self.step is None, "each example draws its own noise"
        self.spans = [(s.start, s.end) for s in examples]

    def _add_noise(self, _: Any, __: Any, embedded: torch.Tensor) -> torch.Tensor | None:
        if self.step is None or not torch.is_grad_enabled():
            return None
        noise = torch.zeros(embedded.shape[1:])
        for start, end in self.spans:
            own = noise[start:end]
            bound = self.alpha / math.sqrt(own.numel())
            seed = hash((self.seed, self.step, self.examples)) & (2**63 - 1)
            own.uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))
            self.examples += 1
        return embedded + noise.to(embedded.device, embedded.dtype)
