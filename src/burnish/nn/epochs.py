"""Which rows an epoch takes from each source, and in which order: functions of seed and epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from burnish.nn.grouping import shuffle_in_bundles
from burnish.nn.rows import Array


@dataclass(frozen=True, slots=True)
class SourceRows:
    """The rows of one source, which lie together, and its share of an epoch."""

    first: int
    count: int
    per_epoch: int
    """Rows of it an epoch takes; may be fewer or more than `count`."""


def choose_rows(sources: Sequence[SourceRows], seed: int, epoch: int) -> tuple[Array, Array]:
    """The rows of an epoch and the pass each belongs to, both int64, source by source in order.

    A source is an endless run of passes, each a permutation of its rows, and an epoch takes the
    next `per_epoch` of it. So over the epochs no row comes twice before every other came once. A
    row that comes twice in one epoch comes in two passes, counted from 0 within the epoch.
    """
    rows, passes = [], []
    for number, source in enumerate(sources, 1):
        begin, end = epoch * source.per_epoch, (epoch + 1) * source.per_epoch
        first_pass, last_pass = begin // max(1, source.count), -(-end // max(1, source.count))
        for pass_ in range(first_pass, last_pass):
            before = pass_ * source.count
            part = np.arange(source.count)
            if begin > before or end < before + source.count:
                shuffled = np.random.default_rng([seed, pass_, number]).permutation(source.count)
                part = np.sort(shuffled[max(0, begin - before) : end - before])
            rows.append(source.first + part)
            passes.append(np.full(len(part), pass_ - first_pass))
    return np.concatenate(rows), np.concatenate(passes)


def shuffled_epoch(
    sources: Sequence[SourceRows],
    seed: int,
    epoch: int,
    families: Array | None,
    bundle_examples: int,
) -> Array:
    """The rows of an epoch in training order, (rows,) int64.

    With `families` those of a family come in bundles (`nn.grouping`); a second pass over a source
    is another set of families, so that a row seldom meets itself.
    """
    rows, passes = choose_rows(sources, seed, epoch)
    rng = np.random.default_rng([seed, epoch])
    if families is None:
        return rows[rng.permutation(len(rows))]
    apart = families[rows] + passes * (families.max() + 1)
    return rows[shuffle_in_bundles(apart, bundle_examples, rng)]
