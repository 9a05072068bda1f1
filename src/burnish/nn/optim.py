"""AdamW over fp32 master weights, and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch

ScheduleName = Literal["cosine", "linear", "constant"]


class MasterAdamW:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101) that updates fp32 copies of the parameters.

    bf16 keeps 8 bits of mantissa: an update below 1/256 of a weight rounds to nothing, and at usual
    learning rates most are. So the optimiser's arithmetic is in fp32 and each bf16 parameter is the
    rounding of its master. A parameter that is fp32 already is its own master.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, torch.nn.Parameter]],
        *,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        """Take the trainable ones among `parameters`; weight decay touches matrices only."""
        self.named = [(name, p) for name, p in parameters if p.requires_grad]
        assert self.named, "nothing to train"
        self.masters = [
            p if p.dtype == torch.float32 else p.detach().float() for _, p in self.named
        ]
        matrices = [m for m in self.masters if m.dim() >= 2]
        vectors = [m for m in self.masters if m.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=0.0, betas=betas, fused=True
        )

    def step(self, learning_rate: float, max_grad_norm: float) -> float:
        """Clip the gradient to `max_grad_norm` (0: never), update, and return the norm before."""
        for (_, parameter), master in zip(self.named, self.masters, strict=True):
            if parameter is not master:
                assert parameter.grad is not None
                master.grad = parameter.grad.float()
                parameter.grad = None
        bound = max_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.masters, bound))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._publish()
        return norm

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs to go on to the last bit."""
        names = [name for name, _ in self.named]
        return {
            "masters": dict(zip(names, (m.detach() for m in self.masters), strict=True)),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        with torch.no_grad():
            for (name, _), master in zip(self.named, self.masters, strict=True):
                master.copy_(state["masters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self._publish()

    def _publish(self) -> None:
        with torch.no_grad():
            for (_, parameter), master in zip(self.named, self.masters, strict=True):
                if parameter is not master:
                    parameter.copy_(master)


def learning_rates(
    name: ScheduleName, peak: float, steps: int, warmup_fraction: float
) -> Callable[[int], float]:
    """The learning rate of each step, counted from 0.

    Linear warm-up to `peak` over the first `warmup_fraction` of the steps, then constant, or down
    on a line or a half cosine (arXiv 1608.03983) to zero, which comes one step after the last.
    """
    warmup = round(steps * warmup_fraction)

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, steps - warmup)
        if name == "constant":
            return peak
        if name == "linear":
            return peak * (1 - done)
        return peak * 0.5 * (1 + math.cos(math.pi * done))

    return rate
