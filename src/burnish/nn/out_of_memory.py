"""When memory runs out during a step: smaller forests, the same loss."""

from __future__ import annotations

import gc
import sys

import torch

from burnish.errors import ResourceError
from burnish.nn.forest import Forest

# The CPU has no exception type of its own; these are what its allocators say.
_CPU_MESSAGES = ("DefaultCPUAllocator", "can't allocate memory", "std::bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that an allocation failed, on the CPU or on CUDA."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_MESSAGES)


def smaller_budget(forests: list[Forest], budget: int) -> int:
    """Half of what these forests needed, so that the largest of them will be cut.

    Raises:
        ResourceError: none can be cut: each holds a single example.
    """
    longest = max(forests, key=lambda forest: len(forest.ids))
    if all(forest.examples == 1 for forest in forests):
        raise ResourceError(
            f"not enough memory for one example of {len(longest.ids):,} tokens",
            where="training",
            do="give a smaller max_length, precision=bf16, technique=lora or layers, a smaller "
            "base, or a machine with more memory",
        )
    return max(1, min(budget, len(longest.ids)) // 2)


def release_memory(old: int, new: int) -> None:
    """Give back what the failed step held, and say what happens now."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    print(
        f"memory ran out: batch_tokens goes from {old:,} to {new:,} for the rest of the run, and "
        "the step is done again; the loss does not change",
        file=sys.stderr,
    )
