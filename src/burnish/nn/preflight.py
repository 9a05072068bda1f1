"""Before step 1: look at what is about to be trained, refuse what is wrong, say what it will cost.

Every refusal here is a fault that elsewhere trains on in silence with a healthy-looking loss: all
labels masked (huggingface/trl#6668), a stop token that is never learned (trl#1623), a template that
renders a prompt differently at serving (unslothai/unsloth#3899).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from burnish.chat import ChatTemplate, Rendered
from burnish.errors import InputError, TemplateError
from burnish.nn.flops import peak_flops, useful_flops
from burnish.nn.forest import Forest
from burnish.nn.memory import peak_memory, reset_peak_memory
from burnish.nn.models import LoadedModel
from burnish.nn.plan import Batches, Plan
from burnish.nn.step import forest_loss
from burnish.nn.techniques import trainable_parameters

# Steps looked at for the sharing factor and the worst batch; more would cost a large run minutes.
_SAMPLED_STEPS = 200


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
    """Computed tokens of the largest forest in the steps looked at."""
    worst_memory_bytes: int
    """Peak resident memory of the process while that forest ran forward and backward."""
    seconds: float
    """Estimated from that forest; the progress bar corrects it as steps go by."""
    gemm_flops: float
    """Measured FLOP/s of a large matrix product in the compute type."""
    samples: tuple[tuple[tuple[str, float], ...], ...]
    """Three rendered examples to look at, each as runs of text of one loss weight."""

    def figures(self) -> dict[str, Any]:
        """The table as one JSON object, without the samples."""
        return {name: value for name, value in asdict(self).items() if name != "samples"}


def preflight(model: LoadedModel, plan: Plan, batches: Batches, *, steps: int) -> Preflight:
    """Run the worst batch and estimate the rest; `refuse_untrainable` comes before."""
    sampled = [batches(n).forests for n in range(min(steps, _SAMPLED_STEPS))]
    forests = [forest for step in sampled for forest in step]
    computed = sum(len(forest.ids) for forest in forests)
    worst = max(forests, key=lambda forest: len(forest.ids))
    seconds, memory = _run_worst(model, worst)
    peak = peak_flops(model.model.dtype, model.model.device)
    terms = sum(len(forest.targets) for forest in forests)
    step_cost = useful_flops(model, computed, terms) / len(sampled)
    worst_cost = useful_flops(model, len(worst.ids), len(worst.targets))
    return Preflight(
        examples=len(plan.examples),
        refused=len(plan.refused),
        truncated=plan.truncated,
        tokens=plan.tokens,
        supervised_tokens=plan.supervised_tokens,
        sharing_factor=sum(forest.tokens for forest in forests) / computed,
        stops={model.tokenizer.convert_ids_to_tokens(i): n for i, n in plan.stops.items()},
        template="none" if plan.all_raw else model.template.name,
        parameters=sum(p.numel() for p in model.model.parameters()),
        trainable_parameters=sum(p.numel() for _, p in trainable_parameters(model)),
        steps=steps,
        worst_tokens=len(worst.ids),
        worst_memory_bytes=memory,
        seconds=seconds * steps * step_cost / worst_cost,
        gemm_flops=peak,
        samples=tuple(_runs(model, row) for row in plan.examples[:3]),
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
            f"({plan.truncated} of {len(plan.examples)} were), or choose another template",
        )


def _run_worst(model: LoadedModel, forest: Forest) -> tuple[float, int]:
    """Forward and backward of one forest, gradients thrown away: (seconds, peak bytes).

    Run twice: the first time pays for allocations and kernel choices the run pays once.
    """
    reset_peak_memory()
    seconds = 0.0
    model.model.train()
    for _ in range(2):
        started = time.perf_counter()
        scaled = replace(forest, weights=forest.weights / forest.weights.sum())
        forest_loss(model, scaled).backward()
        seconds = time.perf_counter() - started
    for _, parameter in trainable_parameters(model):
        parameter.grad = None
    return seconds, peak_memory()


def _runs(model: LoadedModel, row: Rendered) -> tuple[tuple[str, float], ...]:
    """A rendered example as runs of text of one loss weight, special tokens shown."""
    pairs = zip(row.ids, row.weights, strict=True)
    return tuple(
        (model.tokenizer.decode([i for i, _ in run], skip_special_tokens=False), weight)
        for weight, run in groupby(pairs, key=lambda pair: pair[1])
    )
