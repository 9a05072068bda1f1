"""A statistic with its interval, by bootstrap over examples.

Every statistic of agreement is a function of sums over examples, such as how often each answer was
given and how much the answers to one example differ. So a thousand resamples are one matrix
product: how often each example was drawn, times what it adds to the sums.

Percentile intervals (B. Efron, "Bootstrap methods", Annals of Statistics 7(1), 1979; for κ and α:
Zapf, Castell, Morawietz and Karch, BMC Medical Research Methodology 16:93, 2016). Where nobody
disagrees an interval has no width, since a sample cannot show what it lacks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import hypot
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = NDArray[Any]
Statistic: TypeAlias = Callable[[Floats], Floats]
"""From sums, (B, k), to values, (B,); NaN where undefined."""

CONFIDENCE = 0.95
RESAMPLES = 1000
# More patterns than so many for each resample are dealt at random into as many groups, and groups
# are resampled: the standard error from G groups has a relative error of 1/√(2G), of 2000 1.6 %.
_GROUPS_PER_RESAMPLE = 2
_FEWEST_GROUPS = 100
# Numbers held at a time: 32 MiB of float64.
_NUMBERS = 2**22


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic and its 95 % interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None
    examples: int
    """How many examples it rests on."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """Examples by what they look like: equal ones are one pattern, counted.

    A bootstrap over examples is then a multinomial draw over patterns: exact, and for 1,000,000
    examples of a choice among ten, a hundred numbers instead of 1,000,000.
    """

    rows: Rows
    """One row for each pattern, (P, ...)."""
    multiplicity: Ints
    """How many examples show it, (P,)."""


def estimate(
    statistic: Statistic,
    patterns: Patterns,
    terms: Callable[[Rows], Floats],
    *,
    examples: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The statistic and its interval.

    Args:
        statistic: the value of some sums.
        patterns: the examples.
        terms: what each of some patterns (n, ...) adds to the sums, (n, k).
        examples: how many of them count, where not all do.
        resamples: how many draws the interval rests on.
        seed: of the resamples.
    """
    examples = int(patterns.multiplicity.sum()) if examples is None else examples
    if not examples:
        return Estimate(None, None, None, 0)
    rng = np.random.default_rng(seed)
    sums, multiplicity = _sums(patterns, terms, _GROUPS_PER_RESAMPLE * resamples, rng)
    [value] = statistic(multiplicity @ sums[None]).tolist()
    if np.isnan(value):
        return Estimate(None, None, None, examples)
    low, high = None, None
    if examples > 1:
        draws = _resampled(statistic, sums, multiplicity, resamples, rng)
        # A resample in which the statistic is undefined says nothing of its value.
        low, high = interval(draws[~np.isnan(draws)])
    return Estimate(value, low, high, examples)


def interval(draws: Floats) -> tuple[float | None, float | None]:
    """The ends of the middle `CONFIDENCE` of the draws; None where there are none."""
    if not len(draws):
        return None, None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def change(before: Estimate, after: Estimate) -> Estimate | None:
    """How much more the one is than the other; None where either is undefined or has no interval.

    The interval is made from both (G. Y. Zou and A. Donner, "Construction of confidence limits
    about effect measures", Statistics in Medicine 27(10), 2008), as for answers of different
    people to different examples; where they are the same ones, it is wider than need be.
    """
    if before.value is None or before.low is None or before.high is None:
        return None
    if after.value is None or after.low is None or after.high is None:
        return None
    value = after.value - before.value
    low = value - hypot(after.value - after.low, before.high - before.value)
    high = value + hypot(after.high - after.value, before.value - before.low)
    return Estimate(value, low, high, before.examples + after.examples)


def ratio_estimate(above: Iterable[float], below: Iterable[float], *, seed: int = 0) -> Estimate:
    """The sum of one number per example over the sum of another."""
    return _ratio_of(Counter(zip(above, below, strict=True)), RESAMPLES, seed)


def mean_estimate(
    counts: Mapping[float, int], *, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """The mean of one number per example, given as number -> how many examples have it."""
    return _ratio_of({(n, 1.0): count for n, count in counts.items()}, resamples, seed)


def _ratio_of(counts: Mapping[tuple[float, float], int], resamples: int, seed: int) -> Estimate:
    rows = np.array(list(counts), dtype=np.float64).reshape(-1, 2)
    return estimate(
        lambda sums: ratio(sums[:, 0], sums[:, 1]),
        Patterns(rows, np.array(list(counts.values()), dtype=np.int64)),
        lambda rows: rows.astype(np.float64),
        resamples=resamples,
        seed=seed,
    )


def ratio(above: Floats, below: Floats) -> Floats:
    """Their quotient, NaN where `below` is 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


def _sums(
    patterns: Patterns,
    terms: Callable[[Rows], Floats],
    most: int,
    rng: np.random.Generator,
) -> tuple[Floats, Ints]:
    """What is resampled: each pattern's terms and multiplicity, or those of `most` groups."""
    rows, multiplicity = patterns.rows, patterns.multiplicity
    width = terms(rows[:1]).shape[1]
    groups = min(max(_NUMBERS // width, _FEWEST_GROUPS), most)
    if len(rows) <= groups:
        return terms(rows), multiplicity
    dealt = rng.permutation(np.repeat(np.arange(len(rows)), multiplicity))
    sums = np.zeros((groups, width))
    for start in range(0, len(dealt), groups):
        hand = dealt[start : start + groups]
        sums[: len(hand)] += terms(rows[hand])
    return sums, np.ones(groups, dtype=np.int64)


def _resampled(
    statistic: Statistic,
    sums: Floats,
    multiplicity: Ints,
    resamples: int,
    rng: np.random.Generator,
) -> Floats:
    drawn = int(multiplicity.sum())
    share = multiplicity / drawn
    at_once = max(1, _NUMBERS // max(sums.shape))
    values = [
        statistic(product(rng.multinomial(drawn, share, min(at_once, resamples - start)), sums))
        for start in range(0, resamples, at_once)
    ]
    return np.concatenate(values)


def product(draws: Ints, sums: Floats) -> Floats:
    """`draws @ sums`, without the zeros where these are most.

    Of κ's 2 q sums an example adds to two. BLAS shares each of these small products among threads,
    which wait for one another: 1,225 pairs among 150 answers took twice the time of one thread.
    """
    if np.count_nonzero(sums) * 4 > sums.size:
        return draws @ sums
    column, row = np.nonzero(sums.T)
    first = np.flatnonzero(np.diff(column, prepend=-1))
    product = np.zeros((len(draws), sums.shape[1]))
    terms = draws[:, row] * sums[row, column]
    product[:, column[first]] = np.add.reduceat(terms, first, axis=1)
    return product
