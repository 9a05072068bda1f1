"""Free text: how much of one answer stands in the other."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from rapidfuzz.distance import Levenshtein

_ORDER = 6
_BETA = 2


def edit_distance(first: str, second: str) -> float:
    """Characters to insert, delete or replace, over the longer one's length (0 to 1).

    V. Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals",
    Soviet Physics Doklady 10(8), 1966.
    """
    return Levenshtein.normalized_distance(first, second)


def chrf(hypothesis: str, reference: str) -> float:
    """chrF2, 0 to 1: the F-score, recall twice as important, of character n-grams up to six.

    M. Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015, without
    white space and over the orders both texts are long enough for, as sacrebleu has it.
    """
    precisions, recalls = [], []
    for given, wanted in zip(_n_grams(hypothesis), _n_grams(reference), strict=False):
        alike = (given & wanted).total()
        precisions.append(alike / given.total())
        recalls.append(alike / wanted.total())
    if not any(precisions):
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return (1 + _BETA**2) * precision * recall / (_BETA**2 * precision + recall)


def chrf_similarity(first: str, second: str) -> float:
    """chrF2 of two texts neither of which is the reference: the mean of both ways round."""
    return (chrf(first, second) + chrf(second, first)) / 2


# Both ways round, and each annotator with each other, ask for the same texts again.
@lru_cache(maxsize=16)
def _n_grams(text: str) -> tuple[Counter[str], ...]:
    """Those of each order the text is long enough for."""
    packed = "".join(text.split())
    return tuple(
        Counter(packed[i : i + n] for i in range(len(packed) - n + 1))
        for n in range(1, min(_ORDER, len(packed)) + 1)
    )
