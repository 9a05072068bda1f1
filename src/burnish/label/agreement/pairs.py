"""Cohen's κ: two annotators, each with their own habits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from burnish.label.agreement.chance import Answers
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
    both = Counter((e[first], e[second]) for e in examples if first in e and second in e)
    return kappa_of(both, weights, seed=seed)


def kappa_of(
    both: Mapping[tuple[Any, Any], int],
    weights: Distance = "nominal",
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """`cohen_kappa` from how often each two answers came together."""
    values = list({value: None for pair in both for value in pair})
    if weights != "nominal":
        values.sort()
    code = {value: n for n, value in enumerate(values)}
    rows = np.array([(code[a], code[b]) for a, b in both], dtype=np.int64).reshape(-1, 2)
    patterns = Patterns(rows, np.array(list(both.values()), dtype=np.int64))
    # One of nominal answers would be mostly ones: 1,225 pairs among 150 answers took twice as long.
    matrix = None if weights == "nominal" else distances(values, weights)
    q = len(values)

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
