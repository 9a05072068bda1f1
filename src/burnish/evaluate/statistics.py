"""Statistics of paired scores: numpy and the standard library only.

Scores are between 0 and 1, one per item and model, and items are paired: the difference of an item
is the candidate's score minus the base's. Everything is two-sided, and swapping candidate and base
flips the sign of every difference and changes nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

POWER = 0.8
"""Chance of showing an effect as large as the minimum detectable one; the field's custom."""

# Numbers drawn at a time: 32 MiB of float64, whatever the number of items and resamples.
_CHUNK = 2**22


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class McNemar(NamedTuple):
    """Result of McNemar's test."""

    p: float
    """Exact: the two-sided binomial p-value of the items on which the models differ."""
    mid_p: float
    """Half the probability of the observed table left out: less conservative, not exact."""


def wilson_interval(successes: int, n: int, alpha: float = 0.05) -> Interval:
    """Score interval of one proportion at level 1 - alpha (Wilson 1927, JASA 22:209).

    Unlike p ± z·se it stays inside [0, 1] and has a width at 0 and at n successes.
    """
    z = _z(alpha)
    rate = successes / n
    shrink = 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # At the ends the bound is exactly 0 or 1, and the sums above miss it by a rounding error.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(low, high)


def newcombe_interval(
    both: int, wins: int, losses: int, neither: int, alpha: float = 0.05
) -> Interval:
    """Interval of the difference of two paired proportions, candidate minus base.

    Method 10 of Newcombe 1998, Statistics in Medicine 17:2635: Wilson intervals of the two rates,
    squared and added, with a corrected correlation of the pairs. Taken for 0/1 scores in place of
    the bootstrap, whose interval has no width where the models agree on every item.

    Args:
        both: items that both models have right.
        wins: items that only the candidate has right.
        losses: items that only the base has right.
        neither: items that no model has right.
        alpha: 1 minus the level.
    """
    n = both + wins + losses + neither
    candidate, base = both + wins, both + losses
    rate_c, rate_b = candidate / n, base / n
    low_c, high_c = wilson_interval(candidate, n, alpha)
    low_b, high_b = wilson_interval(base, n, alpha)
    product = float(both * neither - wins * losses)
    if product > 0:
        product = max(product - n / 2, 0.0)
    margins = candidate * (n - candidate) * base * (n - base)
    correlation = product / math.sqrt(margins) if margins else 0.0

    def distance(to_c: float, to_b: float) -> float:
        return math.sqrt(max(to_c**2 - 2 * correlation * to_c * to_b + to_b**2, 0.0))

    difference = rate_c - rate_b
    return Interval(
        difference - distance(rate_c - low_c, high_b - rate_b),
        difference + distance(high_c - rate_c, rate_b - low_b),
    )


def mcnemar(wins: int, losses: int) -> McNemar:
    """McNemar's test of 0/1 scores, exact and mid-p (Fagerland et al. 2013, BMC MRM 13:91).

    Items on which the models agree say nothing about which is better; under the null hypothesis
    each of the others is a fair coin.
    """
    n, fewer = wins + losses, min(wins, losses)
    # Whole numbers, divided once at the end: exact for any n, where floats underflow near n = 1000.
    term = total = 1
    for k in range(1, fewer + 1):
        term = term * (n - k + 1) // k
        total += term
    if n == 0:
        return McNemar(1.0, 1.0)
    if wins == losses:
        return McNemar(1.0, 1 - term / 2 ** (n + 1))
    return McNemar(2 * total / 2**n, (2 * total - term) / 2**n)


def sign_flip_test(differences: Scores, resamples: int = 10_000, seed: int = 0) -> float:
    """P-value of a paired permutation test of the mean difference, differences of shape (n,).

    Under the null hypothesis each difference could as well have the other sign. All 2^m sign
    patterns of the m differences that are not 0 are tried where there are at most `resamples`; else
    that many are drawn, and the observed one counts among them, so that p is never 0 (Phipson and
    Smyth 2010, SAGMB 9:39).
    """
    moving = np.abs(differences[differences != 0])
    exact = len(moving) < 63 and 2 ** len(moving) <= resamples
    # Sums that are equal on paper differ by rounding; they count as equal.
    observed = abs(float(differences.sum())) - 1e-12 * float(moving.sum())
    if exact:
        patterns = np.arange(2 ** len(moving))[:, None] >> np.arange(len(moving)) & 1
        return float(np.mean(np.abs((2 * patterns - 1) @ moving) >= observed))
    generator = np.random.default_rng(seed)
    extreme = 0
    for rows in _chunks(resamples, len(moving)):
        signs = 2 * generator.integers(0, 2, (rows, len(moving)), dtype=np.int8) - 1
        extreme += int((np.abs(signs @ moving) >= observed).sum())
    return (1 + extreme) / (1 + resamples)


def bootstrap_interval(
    values: Scores, alpha: float = 0.05, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean of `values`, shape (n,) (Efron 1979).

    Given the differences of paired scores it is the paired bootstrap: items are drawn with
    replacement, and both models' scores of an item stay together.
    """
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [
            values[generator.integers(0, len(values), (rows, len(values)))].mean(axis=1)
            for rows in _chunks(resamples, len(values))
        ]
    )
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    return Interval(float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number, step-down (Holm 1979, Scand. J. Statist. 6:65).

    Calling those below alpha true is wrong even once with a chance of at most alpha.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def minimum_detectable_effect(differences: Scores, alpha: float = 0.05) -> float:
    """The smallest true difference that n items would show with a chance of 80 %.

    δ = (z_{1-α/2} + z_{0.8}) · √(Var(d) / n): the sample size formula of Miller 2024
    (arXiv:2411.00640, section 5) solved for δ, with the variance of the paired differences in place
    of its ω² + σ²_A/K + σ²_B/K, which are its parts.
    """
    deviation = float(differences.std(ddof=1))
    return (_z(alpha) + NormalDist().inv_cdf(POWER)) * deviation / math.sqrt(len(differences))


def fewest_differing(alpha: float) -> int:
    """How many items must differ, all to one side, before any paired test gives p < alpha.

    With m differing items the smallest p there is, of McNemar's test and of sign flips alike, is
    2 · 2^-m: for alpha = 0.05 it takes 6.
    """
    return math.floor(1 - math.log2(alpha)) + 1


def _z(alpha: float) -> float:
    return NormalDist().inv_cdf(1 - alpha / 2)


def _chunks(rows: int, columns: int) -> Iterator[int]:
    """Cut `rows` so that a chunk of rows × columns stays in bounded memory."""
    step = max(1, _CHUNK // columns)
    for start in range(0, rows, step):
        yield min(step, rows - start)
