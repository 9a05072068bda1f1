"""Learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

ScheduleName = Literal["cosine", "linear", "constant", "wsd"]


def learning_rates(
    name: ScheduleName,
    peak: float,
    steps: int,
    warmup_fraction: float,
    decay_fraction: float = 0.2,
) -> Callable[[int], float]:
    """The learning rate of each step, counted from 0.

    Linear warm-up to `peak` over the first `warmup_fraction` of the steps, then one of:

        constant   peak
        linear     down on a line
        cosine     down on a half cosine (Loshchilov & Hutter, arXiv 1608.03983)
        wsd        peak until the last `decay_fraction` of the steps, then peak · (1 - √x) with x
                   from 0 to 1: warm-up, stable, decay (MiniCPM, arXiv 2404.06395)

    All but `constant` reach zero one step after the last. The decay of `wsd` is 1 - √x because it
    ends at a lower loss than a line does (Hägele et al., arXiv 2405.18392, section 3).
    """
    warmup = round(steps * warmup_fraction)
    decay = max(1, min(round(steps * decay_fraction), steps - warmup))

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, steps - warmup)
        if name == "constant":
            return peak
        if name == "linear":
            return peak * (1 - done)
        if name == "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * done))
        decayed = max(0.0, (step - (steps - decay)) / decay)
        return peak * (1 - math.sqrt(decayed))

    return rate
