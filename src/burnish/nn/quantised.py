"""A frozen base held in 8 or 4 bits, for adapters to be trained on (QLoRA, arXiv 2305.14314).

On CUDA it is bitsandbytes' LLM.int8() and NF4. Elsewhere it is the module below, weights only: 8
bits with a scale per row, or 4 bits with a scale and a minimum per group of inputs. torchao 0.18
is not used: its 4-bit weights need CUDA, and PEFT's LoRA refuses them.

Legend: O outputs, I inputs, G inputs of a group.
"""

from __future__ import annotations

import ctypes
import math
import sys
from importlib import import_module
from typing import Any, Literal

import torch
import torch.nn.functional as F

from burnish.errors import ConfigError

Quantisation = Literal["none", "int8", "int4"]

# Inputs that share a scale in 4 bits: 4.5 bits a weight in all.
_GROUP = 64

# Of a group whose weights are all alike.
_LEAST_SCALE = 1e-12


class QuantisedLinear(torch.nn.Linear):
    """A linear layer whose frozen weight is kept in 8 or 4 bits and unpacked for each product.

    The unpacked weight lives for one product, forward and backward alike. Unpacking costs O * I
    operations against T * O * I of the product, so it shows where T is small: in generation.
    """

    def __init__(self, linear: torch.nn.Linear, bits: Literal[8, 4]) -> None:
        """Quantise `linear`; its weight is rounded to the nearest code."""
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bits = bits
        self.bias = linear.bias
        weight = linear.weight.detach()
        if bits == 8:
            self.codes, self.scale = map(_frozen, _in_8_bits(weight))
        else:
            self.codes, self.scale, self.minimum = map(_frozen, _in_4_bits(weight))

    @property
    def weight(self) -> torch.Tensor:
        """The weight unpacked, (O, I), in the compute type."""
        if self.bits == 8:
            return self.codes.to(self.scale.dtype).mul_(self.scale)
        # In place throughout: the same by torch.stack and torch.addcmul takes four times as long.
        rows, groups, half = self.codes.shape
        unpacked = self.scale.new_empty(rows, groups, 2 * half)
        unpacked[..., :half] = self.codes & 15
        unpacked[..., half:] = self.codes >> 4
        return unpacked.mul_(self.scale).add_(self.minimum).flatten(1)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(..., I) -> (..., O); the gradient goes to the input alone."""
        output: torch.Tensor = _Product.apply(input, self)
        return output if self.bias is None else output + self.bias

    def extra_repr(self) -> str:
        """Shape and bits, for `print(model)`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}"


class _Product(torch.autograd.Function):
    """x W^T that keeps no unpacked W from the forward for the backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: QuantisedLinear) -> torch.Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight)

    @staticmethod
    def backward(ctx: Any, d_output: torch.Tensor) -> tuple[torch.Tensor, None]:
        return d_output @ ctx.layer.weight, None


def quantise(causal_lm: Any, quantisation: Quantisation) -> None:
    """Quantise the linear layers of the decoder's blocks in place, and freeze the model.

    Never the embeddings, the LM head or norms: they are little and need their precision.

    Raises:
        ConfigError: there is nothing to quantise (GPT-2's matrices are of another class).
    """
    bits: Literal[8, 4] = 8 if quantisation == "int8" else 4
    head = causal_lm.get_output_embeddings()
    causal_lm.requires_grad_(False)
    found = [
        (parent, name, child)
        for parent in causal_lm.modules()
        for name, child in parent.named_children()
        if isinstance(child, torch.nn.Linear) and child is not head
    ]
    if not found:
        raise ConfigError(
            f"{causal_lm.config.model_type} has no linear layers that can be quantised",
            where="quantisation",
            do="--set quantisation=none",
        )
    while found:  # popped, so that each weight is freed as soon as its codes are there
        parent, name, child = found.pop()
        setattr(parent, name, QuantisedLinear(child, bits))
        del child
    _give_back_freed_memory()


def dequantise(causal_lm: Any) -> None:
    """Undo `quantise` in place: plain linear layers with the rounded weights, to merge into."""
    for parent in list(causal_lm.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, QuantisedLinear):
                plain = torch.nn.Linear(
                    child.in_features, child.out_features, bias=False, dtype=child.scale.dtype
                )
                plain.weight = _frozen(child.weight)
                plain.bias = child.bias
                setattr(parent, name, plain)


def bitsandbytes_config(quantisation: Quantisation, dtype: torch.dtype) -> Any:
    """How `transformers` opens a base quantised by bitsandbytes, on CUDA.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    try:
        import_module("bitsandbytes")
    except ImportError as error:
        raise ConfigError(
            f"quantisation = {quantisation!r} on CUDA needs bitsandbytes",
            do="pip install bitsandbytes, or --set quantisation=none",
        ) from error
    from transformers import BitsAndBytesConfig

    if quantisation == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _give_back_freed_memory() -> None:
    """Have glibc return what the weights took, which it keeps for allocations to come."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)


def _frozen(tensor: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensor, requires_grad=False)


def _in_8_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (O, I) int8 and a scale per row (O, 1): code * scale is the weight (O, I), rounded."""
    scale = (weight.abs().amax(1, keepdim=True) / 127).clamp(min=_LEAST_SCALE)
    codes = (weight.float() / scale).round().clamp(-127, 127)
    return codes.to(torch.int8), scale


def _in_4_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes, scale and minimum: minimum + code * scale is the weight (O, I), rounded.

    Codes are (O, I / G, G / 2) uint8, a byte holding one of a group's first half in its low bits
    and one of the second half in its high bits; scale and minimum are (O, I / G, 1).
    """
    group = math.gcd(weight.shape[1], _GROUP)
    assert group % 2 == 0, "two codes share a byte"
    groups = weight.unflatten(1, (-1, group))
    minimum, maximum = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = ((maximum - minimum) / 15).clamp(min=_LEAST_SCALE)
    codes = ((groups.float() - minimum) / scale).round().clamp(0, 15).to(torch.uint8)
    low, high = codes.chunk(2, dim=-1)
    return low | high << 4, scale, minimum
