"""Before step 1: look at what is about to be trained, refuse what is wrong, say what it will cost.

Every refusal here is a fault that elsewhere trains on in silence with a healthy-looking loss: all
labels masked (huggingface/trl#6668), a stop token that is never learned (trl#1623), a template that
renders a prompt differently at serving (unslothai/unsloth#3899).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from burnish.chat import ChatTemplate
from burnish.errors import InputError, TemplateError
from burnish.nn.batches import Batches
from burnish.nn.flops import peak_flops, useful_flops
from burnish.nn.forest import Forest
from burnish.nn.memory import peak_memory, reset_peak_memory
from burnish.nn.models import LoadedModel
from burnish.nn.plan import Plan
from burnish.nn.rows import TokenRow
from burnish.nn.step import forest_loss
from burnish.nn.techniques import trainable_parameters
from burnish.nn.trunk_cache import TrunkEstimate


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the table shows."""

    examples: int
    refused: int
    truncated: int
    tokens: int
    supervised_tokens: int
    sharing_factor: float
    """Tokens with each example alone ÷ tokens computed; 1 means nothing is shared."""
    stops: Mapping[str, int]
    """Trained stop tokens, and how many turns each ends."""
    template: str
    """The chat template; `none` where every row is rendered raw."""
    parameters: int
    trainable_parameters: int
    steps: int
    worst_tokens: int
    """Computed tokens of the largest forest of the first epoch, which is run before step 1."""
    memory_bytes: int
    """Peak of the process while that forest ran, and what the optimiser will take."""
    seconds: float
    """Estimated from that forest; the progress bar corrects it as steps go by."""
    gemm_flops: float
    """Measured FLOP/s of a large matrix product in the compute type."""
    gradient_difference: float
    """Of a forest's gradient from that of its examples one by one, relative: see `nn.selfcheck`."""
    trunk: str | None
    """What is done about the frozen lower blocks, if there are any and it is asked for."""
    notes: tuple[str, ...]
    """What is done otherwise than asked, and why."""
    samples: tuple[tuple[tuple[str, float], ...], ...]
    """Three rendered examples to look at, each as runs of text of one loss weight."""

    def figures(self) -> dict[str, Any]:
        """The table as one JSON object, without the samples."""
        return {name: value for name, value in asdict(self).items() if name != "samples"}


def preflight(
    model: LoadedModel,
    plan: Plan,
    batches: Batches,
    *,
    steps: int,
    optimizer_bytes: int,
    trunk: TrunkEstimate | None,
    gradient_difference: float,
    notes: Sequence[str],
) -> Preflight:
    """Run the worst batch first and work out what the run will take."""
    worst = batches.worst()
    peak = peak_flops(model.head.weight.dtype, model.head.weight.device)
    reset_peak_memory()
    seconds = _run(model, worst)
    memory = peak_memory() + optimizer_bytes
    cached = trunk.depth if trunk is not None and trunk.refusal is None else 0
    supervised = plan.supervised_tokens / plan.tokens
    tokens = batches.epoch_tokens / batches.steps_per_epoch
    computed, terms = tokens / batches.sharing_factor, tokens * supervised
    step_cost = useful_flops(model, int(computed), int(terms), cached_blocks=cached)
    worst_cost = useful_flops(model, len(worst.ids), len(worst.targets), cached_blocks=cached)
    return Preflight(
        examples=plan.examples,
        refused=len(plan.refused),
        truncated=plan.truncated,
        tokens=plan.tokens,
        supervised_tokens=plan.supervised_tokens,
        sharing_factor=batches.sharing_factor,
        stops={model.tokenizer.convert_ids_to_tokens(i): n for i, n in plan.stops.items()},
        template="none" if plan.all_raw else model.template.name,
        parameters=sum(p.numel() for p in model.model.parameters()),
        trainable_parameters=sum(p.numel() for _, p in trainable_parameters(model)),
        steps=steps,
        worst_tokens=len(worst.ids),
        memory_bytes=memory,
        seconds=seconds * steps * step_cost / worst_cost,
        gemm_flops=peak,
        gradient_difference=gradient_difference,
        trunk=str(trunk) if trunk is not None else None,
        notes=tuple(notes),
        samples=tuple(_runs(model, plan.rows[n]) for n in range(min(3, len(plan.rows)))),
    )


def refuse_untrainable(plan: Plan, template: ChatTemplate) -> None:
    """Look for what would train on nothing, or never teach the model to stop.

    Raises:
        InputError: no example has a supervised token.
        TemplateError: no stop token is trained.
    """
    if not plan.examples:
        reasons = "; ".join(f"example {r.number}: {r.reason}" for r in plan.refused[:3])
        raise InputError(
            f"no example with a supervised token ({len(plan.refused)} refused: {reasons})",
            do="give rows that end with an answer, or raise max_length",
        )
    if not plan.stops:
        raise TemplateError(
            "no stop token is trained, so the tuned model would never stop",
            where=f"chat template {template.name}",
            do="raise max_length if every example was truncated "
            f"({plan.truncated} of {plan.examples} were), or choose another template",
        )


def _run(model: LoadedModel, forest: Forest) -> float:
    """Seconds of forward and backward of one forest, gradients thrown away.

    Run twice: the first time pays for allocations and kernel choices the run pays once.
    """
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        scaled = replace(forest, weights=forest.weights / forest.weights.sum())
        forest_loss(model, scaled).backward()
        seconds = time.perf_counter() - started
    for _, parameter in trainable_parameters(model):
        parameter.grad = None
    return seconds


def _runs(model: LoadedModel, row: TokenRow) -> tuple[tuple[str, float], ...]:
    """A rendered example as runs of text of one loss weight, special tokens shown."""
    pairs = zip(row.ids.tolist(), row.weights.tolist(), strict=True)
    return tuple(
        (model.tokenizer.decode([i for i, _ in run], skip_special_tokens=False), weight)
        for weight, run in groupby(pairs, key=lambda pair: pair[1])
    )
