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
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from burnish.chat import Rendered
from burnish.nn.rows import Array, TokenRow

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
    leaves: tuple[int, ...]
    """For each example, in the order given to `plant`, the segment it ends in: its tokens are those
    of `path(leaf)`."""
    starts: tuple[int, ...]
    """For each example where its tokens begin in the flat arrays of `Rows`; -1 if unknown."""
    tokens: int
    """Tokens with each example counted alone; `len(ids)` is what is computed."""
    blocks: dict[int | None, Any] = field(default_factory=dict, compare=False)
    """What `nn.attention` has worked out for each sliding window: every layer needs the same."""

    @property
    def examples(self) -> int:
        """How many examples the batch holds."""
        return len(self.leaves)

    def path(self, segment: int) -> list[int]:
        """Indices of a segment's ancestors, root first, then itself."""
        path = [segment]
        while (parent := self.segments[path[-1]].parent) is not None:
            path.append(parent)
        return path[::-1]


# For each new size of a batch oneDNN makes the code of some hundred products anew: 0.3 to 0.5 s of
# a step of 3 s. Rounded up to multiples of this, sizes repeat, for 2 % more tokens: 5 % faster.
ROUND_TO = 64


def rounded(forest: Forest) -> Forest:
    """The forest with its tokens and loss terms filled up to multiples of `ROUND_TO`.

    The tokens added are a tree of their own that nobody sees; the terms added have weight 0. A
    small forest, where they would be many, stays as it is.
    """
    tokens, terms = len(forest.ids), len(forest.targets)
    if tokens <= 4 * ROUND_TO:
        return forest
    more_tokens, more_terms = -tokens % ROUND_TO, -terms % ROUND_TO
    segments = forest.segments
    if more_tokens:
        segments = (*segments, Segment(tokens, tokens + more_tokens, None, 0))
    return replace(
        forest,
        ids=torch.cat([forest.ids, forest.ids.new_zeros(more_tokens)]),
        positions=torch.cat([forest.positions, torch.arange(more_tokens)]),
        segments=segments,
        sources=torch.cat([forest.sources, forest.sources.new_zeros(more_terms)]),
        targets=torch.cat([forest.targets, forest.targets.new_zeros(more_terms)]),
        weights=torch.cat([forest.weights, forest.weights.new_zeros(more_terms)]),
        blocks={},
    )


def plant(examples: Sequence[Rendered | TokenRow], *, share_prefixes: bool = True) -> Forest:
    """Build the forest of a batch.

    Finds every prefix of `MIN_SHARED_TOKENS` or more that two examples share, by sorting the
    sequences and walking the longest common prefixes of neighbours: O(total tokens + n log n).
    """
    assert all(len(row.ids) for row in examples), "an example without tokens cannot be trained on"
    ids = [np.asarray(row.ids, np.int32) for row in examples]
    order = sorted_by_ids(ids) if share_prefixes else list(range(len(ids)))
    common = [shared_tokens(ids[a], ids[b]) if share_prefixes else 0 for a, b in pairwise(order)]
    builder = _Builder(
        [ids[n] for n in order],
        [np.asarray(examples[n].weights, np.float64) for n in order],
        np.array(common, np.int64),
    )
    builder.grow()
    leaves = dict(zip(order, builder.leaves, strict=True))
    return builder.forest(
        leaves=tuple(leaves[n] for n in range(len(examples))),
        starts=tuple(row.start if isinstance(row, TokenRow) else -1 for row in examples),
    )


class _Builder:
    """Collects segments and loss terms while the trees are walked depth first."""

    def __init__(self, ids: list[Array], weights: list[Array], common: Array) -> None:
        self.ids, self.weights, self.common = ids, weights, common
        self.lengths = np.array([len(row) for row in ids], np.int64)
        self.segments: list[Segment] = []
        self.segment_ids: list[Array] = []
        self.leaves = [-1] * len(ids)
        self.sources: list[Array] = []
        self.targets: list[Array] = []
        self.sums: list[Array] = []
        # The first tokens of sibling branches may be equal; then they are one term.
        self.branches: dict[tuple[int, int], float] = {}

    def grow(self) -> None:
        """Add every tree; a stack instead of recursion, for a tree can be as deep as it is long."""
        waiting: list[tuple[int, int, int | None]] = [
            (first, end, None) for first, end in self._groups(0, len(self.ids), MIN_SHARED_TOKENS)
        ]
        waiting.reverse()
        while waiting:
            first, end, parent = waiting.pop()
            shared = int(self.common[first : end - 1].min(initial=self.lengths[first:end].min()))
            self._add_segment(first, end, shared, parent)
            node = len(self.segments) - 1
            longer = first
            while longer < end and self.lengths[longer] == shared:
                self.leaves[longer] = node
                longer += 1  # sorted order puts rows that end here before those that go on
            groups = self._groups(longer, end, shared + MIN_SHARED_TOKENS)
            waiting += [(a, b, node) for a, b in reversed(groups)]

    def _groups(self, first: int, end: int, least: int) -> list[tuple[int, int]]:
        """Cut rows[first:end] where neighbours share fewer than `least` tokens."""
        parted = first + 1 + np.flatnonzero(self.common[first : end - 1] < least)
        cuts = [first, *parted.tolist(), end]
        return [(a, b) for a, b in pairwise(cuts) if a < b]

    def _add_segment(self, first: int, end: int, stop: int, parent: int | None) -> None:
        """Add the tokens before `stop` that rows[first:end] share below `parent`."""
        above = None if parent is None else self.segments[parent]
        depth = 0 if above is None else above.depth + above.end - above.start
        start = self.segments[-1].end if self.segments else 0
        self.segments.append(Segment(start, start + stop - depth, parent, depth))
        ids = self.ids[first][depth:stop]
        self.segment_ids.append(ids)
        weights = self.weights[first][depth:stop]
        for n in range(first + 1, end):
            weights = weights + self.weights[n][depth:stop]
        if above is not None and weights[0]:
            # The first token of a branch is predicted by the last of its parent.
            key = (above.end - 1, int(ids[0]))
            self.branches[key] = self.branches.get(key, 0.0) + float(weights[0])
        supervised = 1 + np.flatnonzero(weights[1:])
        self.sources.append(start + supervised - 1)
        self.targets.append(ids[supervised])
        self.sums.append(weights[supervised])

    def forest(self, leaves: tuple[int, ...], starts: tuple[int, ...]) -> Forest:
        branches = np.array(list(self.branches), np.int64).reshape(-1, 2)
        positions = [np.arange(s.depth, s.depth + s.end - s.start) for s in self.segments]
        return Forest(
            ids=_flat(self.segment_ids, np.int64),
            positions=_flat(positions, np.int64),
            segments=tuple(self.segments),
            sources=_flat([*self.sources, branches[:, 0]], np.int64),
            targets=_flat([*self.targets, branches[:, 1]], np.int64),
            weights=_flat([*self.sums, np.array(list(self.branches.values()))], np.float32),
            leaves=leaves,
            starts=starts,
            tokens=int(self.lengths.sum()),
        )


def _flat(parts: Sequence[Array], dtype: type[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(dtype))


def sorted_by_ids(ids: Sequence[Array]) -> list[int]:
    """Indices of the examples, so that those that share a prefix are neighbours."""
    # Compared as big-endian bytes: the order of the ids at the speed of memcmp.
    keys = [row.astype(">i4").tobytes() for row in ids]
    return sorted(range(len(ids)), key=keys.__getitem__)


def shared_tokens(a: Array, b: Array) -> int:
    """Length of the common prefix, or 0 where it is too short to be shared."""
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    length = int(differ[0]) if len(differ) else length
    return length if length >= MIN_SHARED_TOKENS else 0
