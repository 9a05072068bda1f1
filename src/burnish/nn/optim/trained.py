"""A trained parameter and what the optimiser keeps beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from burnish.nn.optim.rounding import round_to_bf16
from burnish.nn.optim.rules import Rule


@dataclass
class Trained:
    """A parameter, its fp32 side, and its average.

    `work` is what the update is computed on: the parameter itself if that is fp32; else its fp32
    master; or, for a parameter that is rounded stochastically, a stand-in of its shape but without
    memory, filled while it is updated.
    """

    name: str
    parameter: torch.Tensor
    rule: Rule
    multiplier: float
    """Its learning rate is the run's times this."""
    rounded: bool
    work: torch.Tensor
    average: torch.Tensor | None
    """Moving average of the weights, fp32."""

    @classmethod
    def of(
        cls,
        name: str,
        parameter: torch.Tensor,
        rule: Rule,
        multiplier: float,
        *,
        rounding: bool,
        averaged: bool,
    ) -> Trained:
        """Make what `parameter` needs; `rounding` applies if it is bf16."""
        rounded = rounding and parameter.dtype == torch.bfloat16
        weights = parameter.detach()
        if rounded:
            work = _stand_in(parameter)
        else:
            work = parameter if parameter.dtype == torch.float32 else weights.float()
        average = weights.to(torch.float32, copy=True) if averaged else None
        return cls(name, parameter, rule, multiplier, rounded, work, average)

    @property
    def weights(self) -> torch.Tensor:
        """The weights as exactly as they are known; a view."""
        return self.parameter.detach() if self.rounded else self.work.detach()

    def begin(self, scale: float) -> None:
        """Hand the gradient, times `scale`, over to `work`."""
        gradient = self.parameter.grad
        assert gradient is not None
        if self.rounded:
            self.work.data = self.parameter.detach().float()
        if self.work is not self.parameter:
            self.parameter.grad = None
            self.work.grad = gradient = gradient.float()
        if scale < 1:
            gradient.mul_(scale)

    def finish(self, generator: torch.Generator | None, ema_decay: float) -> None:
        """Write the updated weights to the parameter and into the average."""
        self.work.grad = None
        if self.rounded:
            assert generator is not None
            round_to_bf16(self.work.data, self.parameter.detach(), generator)
            self.work.data = _stand_in(self.parameter)
        self.publish()
        if self.average is not None:
            self.average.lerp_(self.weights.float(), 1 - ema_decay)

    def publish(self) -> None:
        """Make the parameter the rounding of its master."""
        if not self.rounded and self.work is not self.parameter:
            self.parameter.detach().copy_(self.work)


def _stand_in(parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros((), device=parameter.device).expand(parameter.shape)
