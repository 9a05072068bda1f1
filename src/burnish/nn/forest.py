"""A batch is a forest: conversations that begin with the same tokens share those tokens.

Notation: T tokens in the flat batch, S segments, N loss terms.

A batch is one flat run of T tokens cut into segments. A segment knows its parent; its positions
continue the parent's; it attends to its ancestors and causally to itself (`nn.attention`). Packing
without contamination is the forest whose trees have one node each.

A token that several examples share is computed once and its loss weight is the sum over them, so
the gradient is exactly that of the examples one by one. For n answers of R tokens under a prompt of
P the work falls from n(P + R) to P + nR. (Tree Training, arXiv 2511.00413, trains agent
trajectories this way; PrefixGrouper, arXiv 2506.05433, does it for one shared prompt.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from burnish.chat import Rendered

# A shared prefix shorter than this costs more in extra attention calls than it saves. It also keeps
# a BOS that all rows share from tying a whole batch into one tree.
MIN_SHARED_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of consecutive tokens in the flat batch."""

    start: int
    end: int
    parent: int | None
    """Index of the parent segment, always smaller than the segment's own."""
    depth: int
    """Tokens on the path before `start`: the position id of the first token."""


@dataclass(frozen=True, slots=True)
class Forest:
    """A batch in the form the model runs on."""

    ids: torch.Tensor
    """Token ids, (T,) int64."""
    positions: torch.Tensor
    """Position ids along each path, (T,) int64."""
    segments: tuple[Segment, ...]
    sources: torch.Tensor
    """For each loss term the index of the token whose hidden state predicts it, (N,) int64."""
    targets: torch.Tensor
    """For each loss term the id to predict, (N,) int64."""
    weights: torch.Tensor
    """For each loss term its weight, summed over the examples that pass through it, (N,) fp32."""
    examples: int
    tokens: int
    """Tokens with each example counted alone; `len(ids)` is what is computed."""
    masks: dict[tuple[int, int, int | None], torch.Tensor | None] = field(
        default_factory=dict, compare=False
    )
    """Attention masks already built, for `nn.attention`: every layer needs the same ones."""

    def path(self, segment: int) -> list[int]:
        """Indices of a segment's ancestors, root first, then itself."""
        path = [segment]
        while (parent := self.segments[path[-1]].parent) is not None:
            path.append(parent)
        return path[::-1]


def plant(examples: Sequence[Rendered], *, share_prefixes: bool = True) -> Forest:
    """Build the forest of a batch.

    Finds every prefix of `MIN_SHARED_TOKENS` or more that two examples share, by sorting the
    sequences and walking the longest common prefixes of neighbours: O(total tokens + n log n).
    """
    assert all(examples), "an example without tokens cannot be trained on"
    order = sorted(range(len(examples)), key=lambda n: examples[n].ids) if share_prefixes else None
    rows = [examples[n] for n in order] if order else list(examples)
    common = [shared_tokens(a.ids, b.ids) if order else 0 for a, b in pairwise(rows)]
    builder = _Builder(rows, common)
    for first, end in _groups(common, 0, len(rows), MIN_SHARED_TOKENS):
        builder.grow(first, end, depth=0, parent=None)
    return builder.forest()


class _Builder:
    """Collects segments and loss terms while the trees are walked depth first."""

    def __init__(self, rows: Sequence[Rendered], common: Sequence[int]) -> None:
        self.rows, self.common = rows, common
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.segments: list[Segment] = []
        self.terms: dict[tuple[int, int], float] = {}

    def grow(self, first: int, end: int, depth: int, parent: int | None) -> None:
        """Add the tree of rows[first:end], which agree on at least their first `depth` tokens.

        Recursion is as deep as the tree, which MIN_SHARED_TOKENS bounds by length / 16.
        """
        shared = min(self.common[first : end - 1], default=len(self.rows[first].ids))
        shared = min(shared, min(len(self.rows[n].ids) for n in range(first, end)))
        node = self._add_segment(self.rows[first].ids, depth, shared, parent)
        for n in range(first, end):
            self._add_terms(self.rows[n], depth, shared, node)
        longer = first
        while longer < end and len(self.rows[longer].ids) == shared:
            longer += 1  # sorted order puts rows that end here before those that go on
        groups = _groups(self.common, longer, end, shared + MIN_SHARED_TOKENS)
        for group_first, group_end in groups:
            self.grow(group_first, group_end, shared, node)

    def _add_segment(self, ids: Sequence[int], depth: int, end: int, parent: int | None) -> int:
        start = len(self.ids)
        self.ids += ids[depth:end]
        self.positions += range(depth, end)
        self.segments.append(Segment(start, len(self.ids), parent, depth))
        return len(self.segments) - 1

    def _add_terms(self, row: Rendered, depth: int, end: int, node: int) -> None:
        segment = self.segments[node]
        for position in range(max(depth, 1), end):
            weight = row.weights[position]
            if weight:
                if position > depth:
                    source = segment.start + position - depth - 1
                else:  # the first token of a branch is predicted by the last of its parent
                    assert segment.parent is not None
                    source = self.segments[segment.parent].end - 1
                key = (source, row.ids[position])
                self.terms[key] = self.terms.get(key, 0.0) + weight

    def forest(self) -> Forest:
        keys = list(self.terms)
        return Forest(
            ids=torch.tensor(self.ids),
            positions=torch.tensor(self.positions),
            segments=tuple(self.segments),
            sources=torch.tensor([source for source, _ in keys], dtype=torch.int64),
            targets=torch.tensor([target for _, target in keys], dtype=torch.int64),
            weights=torch.tensor([self.terms[key] for key in keys], dtype=torch.float32),
            examples=len(self.rows),
            tokens=sum(len(row.ids) for row in self.rows),
        )


def _groups(common: Sequence[int], first: int, end: int, least: int) -> list[tuple[int, int]]:
    """Cut rows[first:end] where neighbours share fewer than `least` tokens."""
    cuts = [first, *(n + 1 for n in range(first, end - 1) if common[n] < least), end]
    return [(a, b) for a, b in pairwise(cuts) if a < b]


def shared_tokens(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix, or 0 where it is too short to be shared."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length if length >= MIN_SHARED_TOKENS else 0
