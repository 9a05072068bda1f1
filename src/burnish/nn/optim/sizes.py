"""How much memory an optimiser takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeVar

import torch

from burnish.nn.optim.rules import moment_bytes, rules, working_bytes
from burnish.nn.optim.settings import OptimizerSettings

# Parameters are updated in parts of about 16 MB of fp32: fp32 gradients exist for one part at a
# time, while a call for each small LoRA matrix would cost more than its arithmetic.
_PART_ELEMENTS = 1 << 22

Item = TypeVar("Item")


def parts(items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Cut `items` into parts that are updated together; a large one stands alone."""
    part: list[Item] = []
    elements = 0
    for item in items:
        if part and elements + size(item) > _PART_ELEMENTS:
            yield part
            part, elements = [], 0
        part.append(item)
        elements += size(item)
    if part:
        yield part


def optimizer_bytes(
    module: torch.nn.Module,
    settings: OptimizerSettings,
    master_weights: Literal["fp32", "stochastic_rounding"],
) -> int:
    """Bytes the optimiser of `module` holds at the peak of a step.

    State is fp32 masters of the weights that are not fp32 (unless they are rounded stochastically),
    moments, and the average of the weights. To it comes the largest part that is updated at once:
    its gradient in fp32 and, with stochastic rounding, its weights in fp32 and random bits.
    """
    rule_of = rules(module, settings)
    named = [(name, p) for name, p in module.named_parameters() if name in rule_of]
    masters, rounding = master_weights == "fp32", master_weights == "stochastic_rounding"
    state = 0
    for name, parameter in named:
        low = parameter.dtype != torch.float32
        a_weight = 4 * (low and masters) + 4 * (settings.ema_decay > 0)
        state += moment_bytes(rule_of[name], parameter, settings) + a_weight * parameter.numel()
    largest = 0
    for part in parts(named, lambda item: item[1].numel()):
        passing = 0
        for name, parameter in part:
            count, working = parameter.numel(), working_bytes(rule_of[name], parameter)
            if parameter.dtype == torch.float32:
                passing += working
            elif rounding:
                passing += 8 * count + max(2 * count, working)  # random bits are drawn last
            else:
                passing += 4 * count + working
        largest = max(largest, passing)
    return state + largest
