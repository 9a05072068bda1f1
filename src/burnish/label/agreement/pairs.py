"""Cohen's κ: two annotators, each with their own habits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from burnish.label.agreement.coded import Answers
from burnish.label.agreement.distances import Distance, distances
from burnish.label.agreement.estimate import (
    RESAMPLES,
    Estimate,
    Floats,
    Patterns,
    Rows,
    estimate,
    ratio,
)


def cohen_kappa(
    examples: Iterable[Answers],
    first: str,
    second: str,
    *,
    weights: Distance = "nominal",
    seed: int = 0,
) -> Estimate:
    """Cohen's κ of two annotators, on the examples both answered.

    κ = 1 - observed / expected disagreement, expected if each kept their own frequencies and
    answered at random. J. Cohen, "A coefficient of agreement for nominal scales", Educational and
    Psychological Measurement 20(1), 1960; with weights for ratings: "Weighted kappa", Psychological
    Bulletin 70(4), 1968.

    Undefined (None) where both gave one and the same answer throughout.
    """
    both = [(e[first], e[second]) for e in examples if first in e and second in e]
    values = list(dict.fromkeys(value for pair in both for value in pair))
    if weights != "nominal":
        values.sort()
    place = {value: n for n, value in enumerate(values)}
    times = Counter((place[a], place[b]) for a, b in both)
    rows = np.array(list(times), dtype=np.int64).reshape(-1, 2)
    patterns = Patterns(rows, np.array(list(times.values()), dtype=np.int64))
    return kappa_of(patterns, values, weights, seed=seed)


def kappa_of(
    patterns: Patterns,
    values: Sequence[Any],
    weights: Distance = "nominal",
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """`cohen_kappa` from patterns of two answers, as their places in `values`."""
    used, rows = np.unique(patterns.rows, return_inverse=True)
    patterns = Patterns(rows.reshape(-1, 2), patterns.multiplicity)
    q = len(used)
    # One of nominal answers would be mostly ones: 1,225 pairs among 150 answers took twice as long.
    matrix = None if weights == "nominal" else distances([values[n] for n in used], weights)

    def terms(rows: Rows) -> Floats:
        first, second = rows.T
        apart = first != second if matrix is None else matrix[first, second]
        one_hot = np.eye(q)
        return np.column_stack([apart, one_hot[first], one_hot[second]])

    def value(sums: Floats) -> Floats:
        row, column = sums[:, 1 : q + 1], sums[:, q + 1 :]
        examples = row.sum(1)
        if matrix is None:
            expected = examples**2 - (row * column).sum(1)
        else:
            expected = ((row @ matrix) * column).sum(1)
        return 1 - ratio(sums[:, 0] * examples, expected)

    return estimate(value, patterns, terms, resamples=resamples, seed=seed)
