"""From examples to the batches of a run: rendered, checked, cut, ordered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np

from burnish.chat import ChatTemplate, Rendered, render
from burnish.errors import TemplateError
from burnish.nn.forest import MIN_SHARED_TOKENS, plant, shared_tokens
from burnish.nn.loop import Batch
from burnish.progress import progress
from burnish.types import Example

Order = Literal["shuffled", "as_given"]


@dataclass(frozen=True, slots=True)
class Refused:
    """An example that cannot be trained on, and why."""

    number: int
    """Which example of the data, counted from 1."""
    reason: str


@dataclass
class Plan:
    """The rendered examples of a run and what was done to them."""

    examples: list[Rendered] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    truncated: int = 0
    """Examples cut to max_length; the cut takes the end, stop token included."""
    stops: Counter[int] = field(default_factory=Counter)
    """Ids of the trained stop tokens, and how many turns each ends."""

    all_raw: bool = True
    """Whether no example uses the chat template."""

    @property
    def tokens(self) -> int:
        """Tokens of all examples, each counted alone."""
        return sum(len(row.ids) for row in self.examples)

    @property
    def supervised_tokens(self) -> int:
        """Tokens with a loss weight."""
        return sum(_supervised(row) for row in self.examples)


def plan_examples(examples: Sequence[Example], template: ChatTemplate, max_length: int) -> Plan:
    """Render every example; refuse what has nothing to learn from, cut what is too long.

    A refusal is per example, with its reason: a row without supervised tokens would train on
    nothing while the loss looks healthy (huggingface/trl#6668).
    """
    plan = Plan()
    for number, example in enumerate(progress(examples, "render", unit="row"), 1):
        reason = _add(plan, example, template, max_length)
        if reason:
            plan.refused.append(Refused(number, reason))
    return plan


def _add(plan: Plan, example: Example, template: ChatTemplate, max_length: int) -> str | None:
    """Add one example to the plan, or say why not."""
    if example.conversation.answer is None:
        return "no answer: it does not end with an assistant turn"
    if not example.conversation.answer.content and not example.conversation.answer.tool_calls:
        return "the answer is empty"
    try:
        row = render(example.conversation, template)
    except TemplateError as error:
        return error.what
    if len(row.ids) > max_length:
        cut = Rendered(row.ids[:max_length], row.weights[:max_length], [])
        stops = [s for s in row.stops if s < max_length]
        row = Rendered(cut.ids, cut.weights, stops)
        if _supervised(row) == 0:
            return f"no supervised token within max_length = {max_length}"
        plan.truncated += 1
    if example.weight != 1.0:
        row = Rendered(row.ids, [w * example.weight for w in row.weights], row.stops)
    if _supervised(row) == 0:
        return "no supervised token: every loss weight is 0"
    plan.examples.append(row)
    plan.all_raw &= example.conversation.raw
    plan.stops.update(row.ids[stop] for stop in row.stops)
    return None


@dataclass(frozen=True)
class Batches:
    """Which examples each step trains on: a function of the seed and the step alone."""

    examples: Sequence[Rendered]
    batch_examples: int
    batch_tokens: int
    order: Order
    seed: int
    share_prefixes: bool

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the examples; the last may be smaller."""
        return -(-len(self.examples) // self.batch_examples)

    def rows(self, step: int) -> list[Rendered]:
        """The examples of a step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        first = index * self.batch_examples
        numbers = range(first, min(first + self.batch_examples, len(self.examples)))
        if self.order == "shuffled":
            shuffled = _permutation(len(self.examples), self.seed, epoch)
            return [self.examples[shuffled[n]] for n in numbers]
        return [self.examples[n] for n in numbers]

    def __call__(self, step: int) -> Batch:
        """The step's examples as forests within `batch_tokens`; a longer example stands alone."""
        rows = self.rows(step)
        forests = [
            plant(part, share_prefixes=self.share_prefixes)
            for part in _within_budget(rows, self.batch_tokens, self.share_prefixes)
        ]
        return Batch(forests, sum(_supervised(row) for row in rows))


@lru_cache(maxsize=2)
def _permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch; kept, since a large corpus takes longer to shuffle than to step."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def _within_budget(
    rows: Sequence[Rendered], budget: int, share_prefixes: bool
) -> list[list[Rendered]]:
    """Cut a step's rows into parts of at most `budget` computed tokens, like prefixes together."""
    ordered = sorted(rows, key=lambda row: row.ids) if share_prefixes else list(rows)
    parts: list[list[Rendered]] = []
    size = 0
    for n, row in enumerate(ordered):
        shared = 0
        if share_prefixes and n:
            # A branch may begin up to MIN_SHARED_TOKENS - 1 before the rows part: see `plant`.
            shared = shared_tokens(ordered[n - 1].ids, row.ids) - (MIN_SHARED_TOKENS - 1)
            shared = max(shared, 0)
        if not parts or size + len(row.ids) - shared > budget:
            parts.append([])
            size, shared = 0, 0
        parts[-1].append(row)
        size += len(row.ids) - shared
    return parts


def _supervised(row: Rendered) -> int:
    return sum(1 for weight in row.weights if weight)
