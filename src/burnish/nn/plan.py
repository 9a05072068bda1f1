"""From examples to the batches of a run: rendered, checked, cut, ordered."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from burnish.chat import ChatTemplate, Rendered, render_many
from burnish.errors import InputError, TemplateError
from burnish.hashing import content_hash
from burnish.nn.epochs import SourceRows, choose_rows, shuffled_epoch
from burnish.nn.forest import MIN_SHARED_TOKENS, Forest, plant
from burnish.nn.grouping import PrefixOrder, cut_into_families, shared_blocks, sort_by_prefix
from burnish.nn.loop import Batch
from burnish.nn.parts import cut_into_parts
from burnish.nn.rows import Array, Rows, RowsWriter, TokenRow, open_or_write_rows
from burnish.progress import progress
from burnish.records.mixture import Mixture, Source
from burnish.types import Conversation

Order = Literal["shuffled", "as_given"]

# Goes up when the same conversation is rendered to other rows than before.
_ROWS_VERSION = 1
# The worst batch is looked for among so many steps, those with the most tokens by estimate.
_CANDIDATES = 8


@dataclass(frozen=True, slots=True)
class Refused:
    """An example that cannot be trained on, and why."""

    source: int
    """Which source of the mixture, counted from 0."""
    number: int
    """Which example of the source, counted from 1."""
    reason: str


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """What became of one source."""

    name: str
    examples: int
    """Examples trained on."""
    rows: SourceRows
    """Their rows; an example that must be rendered in several ways has several."""


@dataclass
class Plan:
    """The rendered examples of a run and what was done to them."""

    rows: Rows
    sources: list[PlannedSource]
    refused: list[Refused]
    truncated: int
    """Examples cut to max_length; the cut takes the end, stop token included."""
    supervised_tokens: int
    """Tokens with a loss weight."""
    stops: Counter[int]
    """Ids of the trained stop tokens, and how many turns each ends."""
    all_raw: bool
    """Whether no example uses the chat template."""

    @property
    def examples(self) -> int:
        """Examples trained on."""
        return sum(source.examples for source in self.sources)

    @property
    def tokens(self) -> int:
        """Tokens of all examples, each counted alone."""
        return len(self.rows.ids)


def plan_examples(
    mixture: Mixture, template: ChatTemplate, max_length: int, folder: Path, *, as_chat: bool
) -> Plan:
    """Render every example; refuse what has nothing to learn from, cut what is too long.

    A refusal is per example, with its reason: a row without supervised tokens would train on
    nothing while the loss looks healthy (huggingface/trl#6668).

    Args:
        mixture: the examples, streamed.
        template: the chat template in force.
        max_length: tokens an example may have.
        folder: the run's working folder; the rows are kept there, and found there the next time.
        as_chat: render raw pairs with the template, too.
    """
    key = content_hash(
        [
            _ROWS_VERSION,
            mixture.hash,
            template.source,
            _tokenizer_hash(template.tokenizer),
            max_length,
            as_chat,
        ]
    )
    rendering = _Rendering(mixture, template, max_length, as_chat)
    rows, made = open_or_write_rows(folder / "rows", key, rendering.write)
    return Plan(
        rows,
        _planned_sources(mixture, made["sources"]),
        [Refused(*refused) for refused in made["refused"]],
        made["truncated"],
        made["supervised_tokens"],
        Counter({int(stop): count for stop, count in made["stops"].items()}),
        made["all_raw"],
    )


def _tokenizer_hash(tokenizer: Any) -> str:
    if tokenizer.is_fast:
        return content_hash(tokenizer.backend_tokenizer.to_str())
    return content_hash([tokenizer.get_vocab(), tokenizer.special_tokens_map])


def _planned_sources(mixture: Mixture, made: list[dict[str, int]]) -> list[PlannedSource]:
    planned, first = [], 0
    for source, counts in zip(mixture.sources, made, strict=True):
        per_epoch = source.config.rows_per_epoch(counts["rows"])
        rows = SourceRows(first, counts["rows"], per_epoch)
        planned.append(PlannedSource(source.examples.records.name, counts["examples"], rows))
        first += counts["rows"]
    return planned


@dataclass
class _Rendering:
    """Renders a mixture into rows and counts what happens; the counts are kept beside the rows."""

    mixture: Mixture
    template: ChatTemplate
    max_length: int
    as_chat: bool
    refused: list[tuple[int, int, str]] = field(default_factory=list)
    truncated: int = 0
    supervised_tokens: int = 0
    stops: Counter[int] = field(default_factory=Counter)
    all_raw: bool = True

    def write(self, writer: RowsWriter) -> dict[str, Any]:
        """Write every row; returns the counts."""
        sources = []
        for n, source in enumerate(self.mixture.sources):
            rows_before = len(writer.offsets)
            examples = self._write_source(n, source, writer)
            sources.append({"examples": examples, "rows": len(writer.offsets) - rows_before})
        return {
            "sources": sources,
            "refused": sorted(self.refused),
            "truncated": self.truncated,
            "supervised_tokens": self.supervised_tokens,
            "stops": self.stops,
            "all_raw": self.all_raw,
        }

    def _write_source(self, number: int, source: Source, writer: RowsWriter) -> int:
        """Write the rows of one source; returns how many of its examples have any."""
        waiting: deque[tuple[int, float, bool]] = deque()  # read, not yet rendered
        read = 0

        def conversations() -> Iterator[Conversation]:
            examples = progress(
                source.examples, "rendering", unit="row", total=source.examples.count
            )
            nonlocal read
            for example in examples:
                read += 1
                conversation = example.conversation
                if self.as_chat:
                    conversation = conversation.as_chat()
                reason = _unanswered(conversation)
                if reason:
                    self.refused.append((number, read, reason))
                    continue
                weight = example.weight * source.config.loss_weight
                waiting.append((read, weight, conversation.raw))
                yield conversation

        examples = 0
        for rendered in render_many(conversations(), self.template):
            n, weight, raw = waiting.popleft()
            if isinstance(rendered, TemplateError):
                self.refused.append((number, n, rendered.what))
                continue
            reason = self._add(rendered, weight, writer)
            if reason:
                self.refused.append((number, n, reason))
            else:
                examples += 1
                self.all_raw &= raw
        if read != source.examples.count:
            raise InputError(
                f"was changed while it was read: {source.examples.count} examples, then {read}",
                where=source.config.data,
                do="run the same command again",
            )
        return examples

    def _add(self, rendered: list[Rendered], weight: float, writer: RowsWriter) -> str | None:
        """Write the rows of an example that have something to learn, or say why none has."""
        truncated = any(len(row.ids) > self.max_length for row in rendered)
        written = 0
        for row in rendered:
            ids = np.array(row.ids[: self.max_length], np.int32)
            weights = np.array(row.weights[: self.max_length], np.float32) * np.float32(weight)
            supervised = int(np.count_nonzero(weights))
            if supervised:
                writer.add(ids, weights)
                written += 1
                self.supervised_tokens += supervised
                self.stops.update(row.ids[stop] for stop in row.stops if stop < len(ids))
        if written:
            self.truncated += truncated
            return None
        if truncated:
            return f"no supervised token within max_length = {self.max_length}"
        return "no supervised token: every loss weight is 0"


def _unanswered(conversation: Conversation) -> str | None:
    if conversation.answer is None:
        return "no answer: it does not end with an assistant turn"
    if not conversation.answer.content and not conversation.answer.tool_calls:
        return "the answer is empty"
    return None


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
