"""Rankings with ties: candidates in groups, the best group first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TypeAlias

Ranking: TypeAlias = Sequence[Sequence[int]]
"""Groups of candidates' numbers, best first; those of one group are equally good."""


def kendall_tau(first: Ranking, second: Ranking) -> float | None:
    """Kendall's τ-b (-1 to 1) on the candidates both ranked.

    M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33(3), 1945.

    Undefined (None) where somebody found all of them equally good, or where they share fewer than
    two.
    """
    a, b = _ranks([first, second])
    concordant = untied_a = untied_b = 0
    for i, j in combinations(range(len(a)), 2):
        in_a, in_b = _sign(a[i] - a[j]), _sign(b[i] - b[j])
        concordant += in_a * in_b
        untied_a += in_a != 0
        untied_b += in_b != 0
    if not untied_a or not untied_b:
        return None
    return concordant / math.sqrt(untied_a * untied_b)


def kendall_w(rankings: Sequence[Ranking]) -> float | None:
    """Kendall's W (0 to 1), corrected for ties, on the candidates that all ranked.

    M. G. Kendall and B. Babington Smith, "The problem of m rankings", Annals of Mathematical
    Statistics 10(3), 1939; ties as in Kendall, "Rank Correlation Methods", 1948, chapter 6.

    Undefined (None) where all found all of them equally good, or where they share fewer than two.
    """
    ranks = _ranks(rankings)
    m, n = len(ranks), len(ranks[0])
    totals = [sum(column) for column in zip(*ranks, strict=True)]
    mean = sum(totals) / n if n else 0
    spread = sum((total - mean) ** 2 for total in totals)
    ties = sum(t**3 - t for row in ranks for t in (row.count(rank) for rank in set(row)))
    most = m**2 * (n**3 - n) - m * ties
    return 12 * spread / most if most else None


def _ranks(rankings: Sequence[Ranking]) -> list[list[float]]:
    """Each one's ranks of the candidates that all have; tied ones share their places' mean."""
    numbers = [{number for group in ranking for number in group} for ranking in rankings]
    common = sorted(set.intersection(*numbers))
    return [_places(ranking, common) for ranking in rankings]


def _places(ranking: Ranking, common: Sequence[int]) -> list[float]:
    rank: dict[int, float] = {}
    for group in ranking:
        kept = [number for number in group if number in common]
        rank |= dict.fromkeys(kept, len(rank) + (len(kept) + 1) / 2)
    return [rank[number] for number in common]


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
