"""The settings of an optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from burnish.errors import ConfigError

OptimizerName = Literal["adamw", "adamw_8bit", "muon", "adafactor", "sgd"]
MasterWeights = Literal["auto", "fp32", "stochastic_rounding"]

# Muon's is its author's (kellerjordan.github.io/posts/muon); SGD's is the usual one.
_MOMENTUM: dict[str, float] = {"muon": 0.95, "sgd": 0.9}


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """What a run says about its optimiser; `burnish.tune` has the same names."""

    optimizer: OptimizerName = "adamw"
    """`adamw`, `adamw_8bit`, `muon`, `adafactor` or `sgd`."""
    weight_decay: float = 0.0
    """Weight decay, on matrices only; decoupled but for `sgd`, where it is an L2 penalty."""
    adam_beta1: float = 0.9
    """Decay of AdamW's mean of gradients."""
    adam_beta2: float = 0.999
    """Decay of AdamW's mean of squared gradients."""
    momentum: float | None = None
    """Of `muon` (by default 0.95) and of `sgd` (0.9); the others have none."""
    master_weights: MasterWeights = "auto"
    """How bf16 weights keep small updates: in `fp32` copies, by `stochastic_rounding`, or `auto`:
    fp32 where memory allows."""
    ema_decay: float = 0.0
    """Decay of an average of the weights that is validated and saved in their place; 0 for none."""

    def __post_init__(self) -> None:
        """Check ranges; all faults at once."""
        faults = []
        for name, choices in (("optimizer", OptimizerName), ("master_weights", MasterWeights)):
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(get_args(choices))
                faults.append(f"{name} = {getattr(self, name)!r}: must be one of {known}")
        for name in ("adam_beta1", "adam_beta2", "momentum", "ema_decay"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                faults.append(f"{name} = {value}: must be from 0 to below 1")
        if self.weight_decay < 0:
            faults.append(f"weight_decay = {self.weight_decay}: must not be negative")
        if self.momentum is not None and self.optimizer not in _MOMENTUM:
            faults.append(
                f"momentum = {self.momentum}: {self.optimizer} has none; it goes with muon and sgd"
            )
        if faults:
            raise ConfigError("\n    ".join(faults))

    @property
    def momentum_in_force(self) -> float:
        """`momentum`, or the optimiser's usual one."""
        if self.momentum is not None:
            return self.momentum
        return _MOMENTUM.get(self.optimizer, 0.0)
