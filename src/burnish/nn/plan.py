"""From examples to the rows of a run: rendered, checked, cut, counted."""

from __future__ import annotations

import gc
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from burnish.chat import ChatTemplate, Rendered, render_many
from burnish.errors import InputError, TemplateError
from burnish.hashing import content_hash
from burnish.nn.epochs import SourceRows
from burnish.nn.rows import Rows, RowsWriter, open_or_write_rows
from burnish.progress import progress
from burnish.records.mixture import Mixture, Source
from burnish.types import Conversation

# Goes up when the same conversation is rendered to other rows than before.
_ROWS_VERSION = 1
# Objects made between two of Python's searches for cycles, instead of 700: texts and ids hold none,
# and the searches took a fifth of the rendering.
_COLLECT_AFTER = 100_000


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
            with _rare_collections():
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


@contextmanager
def _rare_collections() -> Iterator[None]:
    thresholds = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def _unanswered(conversation: Conversation) -> str | None:
    if conversation.answer is None:
        return "no answer: it does not end with an assistant turn"
    if not conversation.answer.content and not conversation.answer.tool_calls:
        return "the answer is empty"
    return None
