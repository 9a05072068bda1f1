"""The batches of a run: which examples each step trains on, cut into forests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from burnish.chat import Rendered
from burnish.nn.epochs import SourceRows, choose_rows, shuffled_epoch
from burnish.nn.forest import MIN_SHARED_TOKENS, Forest, plant
from burnish.nn.grouping import PrefixOrder, cut_into_families, shared_blocks, sort_by_prefix
from burnish.nn.loop import Batch
from burnish.nn.parts import cut_into_parts
from burnish.nn.rows import Array, Rows, TokenRow

Order = Literal["shuffled", "as_given"]

# The worst batch is looked for among so many steps, those with the most tokens by estimate.
_CANDIDATES = 8


@dataclass(frozen=True, eq=False)
class Batches:
    """Which examples each step trains on: a function of the seed and the step alone.

    How examples that share a prefix come to stand in one step, and what keeps that fair, is told in
    `nn.grouping`.
    """

    examples: Sequence[Rendered | TokenRow]
    batch_examples: int
    batch_tokens: int
    """Computed tokens a forest may have; how a step is cut never changes its gradient."""
    order: Order
    seed: int
    share_prefixes: bool
    bundle_examples: int = 0
    """Of one family of shared prefixes at most so many examples in a row; 0 is half a batch, and
    two at least."""
    sources: Sequence[SourceRows] = ()
    """The share of each source in an epoch; without, every example comes once."""
    prefixes: PrefixOrder | None = None
    """Found in the examples unless given; None without `share_prefixes`."""

    def __post_init__(self) -> None:
        """Fill in what follows from the rest."""
        if not self.sources:
            count = len(self.examples)
            object.__setattr__(self, "sources", (SourceRows(0, count, count),))
        if not self.share_prefixes:
            object.__setattr__(self, "prefixes", None)
        elif self.prefixes is None:
            rows = self.examples if isinstance(self.examples, Rows) else Rows.of(self.examples)
            object.__setattr__(self, "prefixes", sort_by_prefix(rows))

    @property
    def epoch_examples(self) -> int:
        """Examples in an epoch, all sources together."""
        return sum(source.per_epoch for source in self.sources)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch; the last may be smaller."""
        return -(-self.epoch_examples // self.batch_examples)

    def with_budget(self, batch_tokens: int) -> Batches:
        """The same steps, cut to another budget of computed tokens."""
        return replace(self, batch_tokens=batch_tokens)

    def rows(self, step: int) -> list[Rendered | TokenRow]:
        """The examples of a step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        first = index * self.batch_examples
        numbers = self._epoch(epoch)[first : first + self.batch_examples]
        return [self.examples[n] for n in numbers.tolist()]

    def __call__(self, step: int) -> Batch:
        """The step's examples as forests within `batch_tokens`; a longer example stands alone."""
        rows = self.rows(step)
        parts = cut_into_parts(rows, self.batch_tokens, share_prefixes=self.share_prefixes)
        forests = [plant(part, share_prefixes=self.share_prefixes) for part in parts]
        supervised = sum(int(np.count_nonzero(row.weights)) for row in rows)
        if isinstance(self.examples, Rows):
            self.examples.release()  # or the pages of a large file would count as our memory
        return Batch(forests, supervised)

    @property
    def epoch_tokens(self) -> int:
        """Tokens of the first epoch, each example alone."""
        return int(self._lengths[self._epoch(0)].sum())

    @property
    def sharing_factor(self) -> float:
        """Tokens with each example alone ÷ tokens computed, over the first epoch, by estimate.

        Sharing is counted in whole blocks and a step as one forest, so the truth may lie a little
        to either side.
        """
        return float(self.epoch_tokens / self._computed_tokens.sum())

    def worst(self) -> Forest:
        """The forest with the most computed tokens in the first epoch.

        Candidates are chosen by the estimate of their tokens; only these are planted.
        """
        parts = np.ceil(self._computed_tokens / self.batch_tokens)
        longest = np.maximum.reduceat(self._lengths[self._epoch(0)], self._step_begins)
        estimate = np.maximum(self._computed_tokens / parts, longest)
        candidates = np.argsort(-estimate, kind="stable")[:_CANDIDATES].tolist()
        forests = [forest for step in candidates for forest in self(step).forests]
        return max(forests, key=lambda forest: len(forest.ids))

    @cached_property
    def _lengths(self) -> Array:
        """Tokens of each example, (n,) int64."""
        if isinstance(self.examples, Rows):
            return self.examples.lengths
        return np.array([len(row.ids) for row in self.examples], np.int64)

    @cached_property
    def _families(self) -> Array | None:
        """The families of prefixes to be kept near, (n,) int64; None for a plain shuffle."""
        if self.prefixes is None or self._bundle == 1:
            return None
        return cut_into_families(self.prefixes, self._bundle)

    @property
    def _bundle(self) -> int:
        return min(self.bundle_examples or max(2, self.batch_examples // 2), self.batch_examples)

    def _epoch(self, epoch: int) -> Array:
        """The examples of an epoch in training order; the last two are kept."""
        if epoch not in self._epochs:
            if self.order == "as_given":
                drawn, _ = choose_rows(self.sources, self.seed, epoch)
            else:
                drawn = shuffled_epoch(self.sources, self.seed, epoch, self._families, self._bundle)
            while len(self._epochs) > 1:
                del self._epochs[min(self._epochs)]
            self._epochs[epoch] = drawn
        return self._epochs[epoch]

    @cached_property
    def _epochs(self) -> dict[int, Array]:
        return {}

    @cached_property
    def _step_begins(self) -> Array:
        return np.arange(0, self.epoch_examples, self.batch_examples)

    @cached_property
    def _computed_tokens(self) -> Array:
        """Tokens each step of epoch 0 computes if it is one forest, by estimate: (steps,) int64."""
        examples = self._epoch(0)
        lengths = self._lengths[examples]
        if self.prefixes is not None:
            slots = np.empty(len(self.examples), np.int64)
            slots[self.prefixes.order] = np.arange(len(slots))
            slot = slots[examples]
            step = np.arange(len(slot)) // self.batch_examples
            near = np.lexsort((slot, step))  # moves examples within their step only
            slot, lengths = slot[near], lengths[near]
            pairs = 1 + np.flatnonzero(step[1:] == step[:-1])
            again = pairs[slot[pairs] == slot[pairs - 1]]  # the same example twice in a step
            apart = pairs[slot[pairs] != slot[pairs - 1]]
            blocks = shared_blocks(self.prefixes, slot[apart - 1], slot[apart])
            lengths[again] = 0
            lengths[apart] -= blocks * MIN_SHARED_TOKENS
        return np.add.reduceat(lengths, self._step_begins)
