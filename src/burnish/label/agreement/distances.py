"""How far two answers are apart: the distances that weighted statistics rest on.

nominal      0 where equal, else 1
linear       |a - b|                        weights of Cohen's κ and Gwet's AC2 for ratings
quadratic    (a - b)²                       the same; Krippendorff's interval
ordinal      pairs of steps between them    Gwet's ordinal weights
jaccard      1 - |A ∩ B| / |A ∪ B|          sets
masi         Jaccard's, closer where one set holds the other
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations
from typing import Any, Literal, TypeAlias

import numpy as np

from burnish.label.agreement.estimate import Floats

Weights = Literal["nominal", "linear", "quadratic", "ordinal"]
Distance: TypeAlias = Weights | Callable[[Any, Any], float]


def distances(values: Sequence[Any], distance: Distance) -> Floats:
    """Between each two of the values, (q, q).

    The values of `linear` and `quadratic` are numbers, those of `ordinal` are in order.
    """
    q = len(values)
    if distance == "nominal":
        return 1 - np.eye(q)
    if distance == "ordinal":
        steps = np.abs(np.subtract.outer(np.arange(q), np.arange(q)))
        return steps * (steps + 1) / 2
    if distance in ("linear", "quadratic"):
        apart = np.abs(np.subtract.outer(np.array(values, float), np.array(values, float)))
        return apart if distance == "linear" else apart**2
    assert callable(distance)
    matrix = np.zeros((q, q))
    for i, j in combinations(range(q), 2):
        matrix[i, j] = matrix[j, i] = distance(values[i], values[j])
    return matrix


def jaccard_distance(first: AbstractSet[Any], second: AbstractSet[Any]) -> float:
    """0 for equal sets, two empty ones among them; 1 for sets with nothing in common.

    P. Jaccard, "The distribution of the flora in the alpine zone", New Phytologist 11(2), 1912.
    """
    together = len(first | second)
    return 1 - len(first & second) / together if together else 0.0


def masi_distance(first: AbstractSet[Any], second: AbstractSet[Any]) -> float:
    """Jaccard's, with likeness weighted 2/3 where one set holds the other, 1/3 where they overlap.

    R. Passonneau, "Measuring agreement on set-valued items (MASI) for semantic and pragmatic
    annotation", LREC 2006.
    """
    if first == second:
        return 0.0
    weight = 2 / 3 if first < second or second < first else 1 / 3
    return 1 - weight * (1 - jaccard_distance(first, second))
