"""A step's examples cut into parts that fit the budget of computed tokens."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from burnish.chat import Rendered
from burnish.nn.forest import MIN_SHARED_TOKENS, shared_tokens, sorted_by_ids
from burnish.nn.rows import TokenRow


@dataclass(frozen=True, slots=True)
class _Piece:
    """Examples that stay together."""

    tokens: int
    """Computed tokens, or a few more."""
    examples: list[int]


def cut_into_parts(
    examples: Sequence[Rendered | TokenRow], budget: int, *, share_prefixes: bool
) -> list[list[Rendered | TokenRow]]:
    """Cut into few parts of about equal size, each of at most `budget` computed tokens.

    Examples that share a prefix stay together where the budget allows. An example longer than the
    budget is a part by itself.
    """
    pieces = []
    if share_prefixes:
        for tree in _trees(examples):
            pieces += _cut_tree(tree, budget)
    else:
        pieces = [_Piece(len(row.ids), [n]) for n, row in enumerate(examples)]
    return [[examples[n] for n in sorted(part)] for part in _pack(pieces, budget)]


@dataclass(frozen=True, slots=True)
class _Leaf:
    """An example of a tree, in sorted order."""

    example: int
    tokens: int
    shared: int
    """Tokens that are certainly computed together with the example before it."""


def _trees(examples: Sequence[Rendered | TokenRow]) -> list[list[_Leaf]]:
    """The examples by tree: neighbours that share a prefix."""
    ids = [np.asarray(row.ids, np.int32) for row in examples]
    trees: list[list[_Leaf]] = []
    before = None
    for n in sorted_by_ids(ids):
        shared = 0 if before is None else shared_tokens(ids[before], ids[n])
        if not shared:
            trees.append([])
        # A branch may begin up to MIN_SHARED_TOKENS - 1 before the two part: see `plant`.
        certain = max(0, shared - (MIN_SHARED_TOKENS - 1))
        trees[-1].append(_Leaf(n, len(ids[n]), certain))
        before = n
    return trees


def _cut_tree(tree: list[_Leaf], budget: int) -> list[_Piece]:
    """A tree as the fewest runs of neighbours within the budget, the largest as small as can be."""
    pieces = _runs(tree, budget)
    low, high = max(piece.tokens for piece in pieces) // len(pieces), budget
    while len(pieces) > 1 and low + 1 < high:
        middle = (low + high) // 2
        smaller = _runs(tree, middle)
        if len(smaller) == len(pieces):
            pieces, high = smaller, middle
        else:
            low = middle
    return pieces


def _runs(tree: list[_Leaf], budget: int) -> list[_Piece]:
    """Fill runs one after another; each begins by computing its first example's prefix anew."""
    pieces: list[_Piece] = []
    for leaf in tree:
        grown = pieces[-1].tokens + leaf.tokens - leaf.shared if pieces else budget + 1
        if grown <= budget:
            pieces[-1] = _Piece(grown, [*pieces[-1].examples, leaf.example])
        else:
            pieces.append(_Piece(leaf.tokens, [leaf.example]))
    return pieces


def _pack(pieces: list[_Piece], budget: int) -> list[list[int]]:
    """Join pieces into parts, largest first into the emptiest part (Graham's LPT rule, 1969)."""
    pieces = sorted(pieces, key=lambda piece: -piece.tokens)
    full = [piece.examples for piece in pieces if piece.tokens >= budget]
    pieces = pieces[len(full) :]
    count = -(-sum(piece.tokens for piece in pieces) // budget)
    while True:
        parts = [(0, n, list[int]()) for n in range(count)]
        for piece in pieces:
            tokens, n, part = parts[0]
            heapq.heapreplace(parts, (tokens + piece.tokens, n, part + piece.examples))
        if all(tokens <= budget for tokens, _, _ in parts):
            return full + [part for _, _, part in sorted(parts, key=lambda part: part[1])]
        count += 1
