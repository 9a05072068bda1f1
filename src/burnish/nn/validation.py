"""The loss on examples that are not trained on."""

from __future__ import annotations

import numpy as np
import torch

from burnish.nn.forest import plant
from burnish.nn.models import LoadedModel
from burnish.nn.parts import cut_into_parts
from burnish.nn.rows import Rows
from burnish.nn.step import forest_loss
from burnish.nn.support import runs_on_forests


class ValidationLoss:
    """Weighted mean cross-entropy over a fixed choice of examples, in nats.

    The same examples every time, spread evenly over the data, so that two values compare; their
    prefixes are shared as in training.
    """

    def __init__(self, model: LoadedModel, rows: Rows, examples: int, batch_tokens: int) -> None:
        self.model = model
        chosen = np.linspace(0, len(rows) - 1, min(examples, len(rows))).round().astype(int)
        budget = batch_tokens if runs_on_forests(model) else 1
        parts = cut_into_parts([rows[n] for n in chosen.tolist()], budget, share_prefixes=True)
        self.forests = [plant(part) for part in parts]

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def __call__(self) -> float:
        """The loss with the weights of now."""
        losses = sum(float(forest_loss(self.model, forest)) for forest in self.forests)
        return losses / float(sum(forest.weights.sum() for forest in self.forests))
