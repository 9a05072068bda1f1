"""AdamW with both moments kept in 8 bits (Dettmers et al., arXiv 2110.02861).

Each block of 256 values is divided by its largest magnitude, and each quotient becomes the nearest
of 256 values of "dynamic tree quantisation", which spends its bits on small numbers: seven decades
below 1. Two bytes a weight instead of eight; the arithmetic is in fp32.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch

# The paper has 2048; 256 is what bitsandbytes came to use: an outlier spoils fewer neighbours.
BLOCK = 256

# Smaller tensors stay in fp32, as in bitsandbytes: they save nothing and are the sensitive ones.
MIN_QUANTISED = 4096


# Values worked on at once, a whole number of blocks: their fp32 copies stay in the cache.
_AT_ONCE = 1 << 16

Moment = dict[str, torch.Tensor]
"""`codes` (N,) uint8 and `scales` (N / 256 rounded up,) fp32, or for a small tensor `values` (N,).
"""


class AdamW8bit(torch.optim.Optimizer):
    """`torch.optim.AdamW` with quantised moments; the same update otherwise."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    def step(self, closure: None = None) -> None:
        """Update the parameters that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    if not state:
                        state["step"] = torch.zeros(())
                        state["mean"] = new_moment(parameter)
                        state["square"] = new_moment(parameter)
                    _update(parameter, state, group)


def _update(parameter: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    state["step"] += 1
    step = float(state["step"])
    beta1, beta2 = group["betas"]
    weights, gradients = parameter.detach().view(-1), parameter.grad.reshape(-1)
    for begin in range(0, len(weights), _AT_ONCE):
        here = slice(begin, min(begin + _AT_ONCE, len(weights)))
        gradient = gradients[here]
        mean = unpack(state["mean"], here, signed=True).lerp_(gradient, 1 - beta1)
        square = unpack(state["square"], here, signed=False).mul_(beta2)
        square.addcmul_(gradient, gradient, value=1 - beta2)
        pack(mean, state["mean"], here, signed=True)
        pack(square, state["square"], here, signed=False)
        root = square.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
        weights[here].mul_(1 - group["lr"] * group["weight_decay"])
        weights[here].addcdiv_(mean, root, value=-group["lr"] / (1 - beta1**step))


def new_moment(parameter: torch.Tensor) -> Moment:
    """A moment that is zero everywhere."""
    count, device = parameter.numel(), parameter.device
    if count < MIN_QUANTISED:
        return {"values": torch.zeros(count, device=device)}
    return {
        "codes": torch.zeros(count, dtype=torch.uint8, device=device),
        "scales": torch.zeros(-(-count // BLOCK), device=device),  # zero whatever the codes
    }


def pack(values: torch.Tensor, moment: Moment, here: slice, *, signed: bool) -> None:
    """Write fp32 `values` to `here`, a slice that begins at the beginning of a block."""
    if "values" in moment:
        moment["values"][here] = values
        return
    blocks = torch.nn.functional.pad(values, (0, -len(values) % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    quotients = blocks / scales.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    # Nearest by table: a binary search for each value took seven times as long.
    keys = quotients.view(-1).to(torch.bfloat16).view(torch.int16).int().bitwise_and_(0xFFFF)
    codes = _code_of_bf16(signed, values.device).index_select(0, keys)
    moment["codes"][here] = codes[: len(values)]
    moment["scales"][here.start // BLOCK : -(-here.stop // BLOCK)] = scales


def unpack(moment: Moment, here: slice, *, signed: bool) -> torch.Tensor:
    """Inverse of `pack`, to rounding; a new fp32 tensor."""
    if "values" in moment:
        return moment["values"][here].clone()
    codes = moment["codes"][here]
    scales = moment["scales"][here.start // BLOCK : -(-here.stop // BLOCK)]
    values = _code_values(signed, codes.device).index_select(0, codes.int())
    blocks = torch.nn.functional.pad(values, (0, -len(values) % BLOCK)).view(-1, BLOCK)
    return blocks.mul_(scales[:, None]).view(-1)[: len(values)]


@cache
def _code_values(signed: bool, device: torch.device) -> torch.Tensor:
    """The 256 values a code stands for, ascending: the paper's dynamic tree quantisation.

    Besides 0 and 1 they are ± 10^-e · f: the fewer bits the exponent e leaves, the fewer fractions
    f there are, evenly spaced from 0.1 to 1. Without a sign there is one more bit for the fraction.
    """
    values = [0.0, 1.0]
    for exponent in range(7):
        count = 2 ** (6 - exponent) if signed else 2 ** (7 - exponent)
        edges = torch.linspace(0.1, 1.0, count + 1, dtype=torch.float64)
        fractions = ((edges[:-1] + edges[1:]) / 2 * 10.0**-exponent).tolist()
        values += fractions
        if signed:
            values += [-fraction for fraction in fractions]
    return torch.tensor(sorted(values), device=device)


@cache
def _code_of_bf16(signed: bool, device: torch.device) -> torch.Tensor:
    """The code of each of the 65,536 bf16 numbers: that of the nearest value.

    A square above zero never becomes zero: the mean beside it reaches further down than the square
    does, and would be divided by eps alone.
    """
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    values = _code_values(signed, torch.device("cpu"))
    borders = (values[1:] + values[:-1]) / 2
    if not signed:
        borders[0] = 0.0
    return torch.bucketize(every.float().nan_to_num(0.0), borders).to(device, torch.uint8)
