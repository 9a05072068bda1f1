"""What is said of how far people agree: statistics with their intervals, pairs of people."""

from __future__ import annotations

from dataclasses import dataclass

from burnish.label.agreement.chance import Table, percent_of
from burnish.label.agreement.estimate import RESAMPLES, Estimate

# Fifty annotators are 1,225 pairs; together their intervals should take seconds.
_PAIRS_RESAMPLES = 100_000
# Where an interval's ends still stand within a fifth of its width.
_FEWEST_RESAMPLES = 100


@dataclass(frozen=True, slots=True)
class Measure:
    """One statistic on the examples."""

    name: str
    note: str
    """What it says, in a line."""
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Pair:
    """Two annotators, on the examples both answered."""

    first: str
    second: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the annotators of a task agree."""

    examples: int
    """With two answers or more."""
    measures: tuple[Measure, ...]
    """The one to quote first."""
    pair_measure: str
    """What `pairs` are measured by."""
    pairs: tuple[Pair, ...]
    """Those that share an example, in order of names."""


@dataclass(frozen=True, slots=True)
class Headline:
    """Agreement in short."""

    examples: int
    """With two answers or more."""
    annotators: int
    """Who gave them."""
    measure: Measure
    """The one to quote first."""
    percent: Estimate
    """The share of equal pairs of answers."""


def percent_measure(table: Table, note: str, seed: int) -> Measure:
    """The share of equal pairs of answers."""
    return Measure("Percent", note, percent_of(table, seed=seed))


def pair_resamples(pairs: int) -> int:
    """How many resamples the interval of each of so many pairs rests on."""
    return max(_FEWEST_RESAMPLES, min(RESAMPLES, _PAIRS_RESAMPLES // max(pairs, 1)))
