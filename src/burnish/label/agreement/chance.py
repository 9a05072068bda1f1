"""Agreement corrected for chance, for any number of annotators.

Input throughout: one mapping `annotator -> answer` for each example.

    percent            no correction; high by chance alone where one answer is common
    Fleiss' κ          the same number of answers for every example
    Krippendorff's α   any number of answers: the one to quote while work goes on
    Gwet's AC1, AC2    any number; stays high where nearly all answers are one and the same, where
                       κ and α fall to 0 (the paradox of Feinstein and Cicchetti 1990)

A statistic that is undefined is None, never 0 or NaN: 0 would say "no better than chance".
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from burnish.label.agreement.coded import Answers, Numbers, numbered, ranked
from burnish.label.agreement.distances import Distance, Weights, distances
from burnish.label.agreement.estimate import (
    Estimate,
    Floats,
    Patterns,
    Rows,
    estimate,
    ratio,
)

Level: TypeAlias = Literal["ordinal", "interval"]


@dataclass(frozen=True)
class Table:
    """Examples by pattern: those with the same answers, whoever gave which, are one pattern."""

    values: Sequence[Any]
    """The different answers; numbers in order."""
    patterns: Patterns
    """Rows are the answers' places in `values`, (P, most answers); -1 where there are fewer."""

    @cached_property
    def shared(self) -> Table:
        """Only the examples with two answers or more."""
        several = (self.patterns.rows >= 0).sum(1) > 1
        rows, multiplicity = self.patterns.rows[several], self.patterns.multiplicity[several]
        return Table(self.values, Patterns(rows, multiplicity))

    def counts(self, rows: Rows) -> Floats:
        """How many answers of each value some patterns have, (n, q)."""
        n, q = len(rows), len(self.values)
        example, place = np.nonzero(rows >= 0)
        cells = example * q + rows[example, place]
        return np.bincount(cells, minlength=n * q).reshape(n, q).astype(np.float64)


def tabulate(examples: Iterable[Answers], categories: Iterable[Hashable] = ()) -> Table:
    """Count the examples' patterns; `categories` are the answers there could have been."""
    numbers = numbered(categories)
    entries = [
        (n, numbers[value]) for n, answers in enumerate(examples) for value in answers.values()
    ]
    example, number = np.array(entries, dtype=np.int32).reshape(-1, 2).T
    if all(isinstance(value, (int, float)) for value in numbers):
        values, place = ranked(numbers)
        return table_of(example, place[number], values)
    return table_of(example, number, list(numbers))


def table_of(example: Numbers, value: Numbers, values: Sequence[Any]) -> Table:
    """Count the patterns of answers given one by one, as numbers; those of an example together.

    Patterns come in the order of their first examples.
    """
    order = np.lexsort((value, example))
    example, value = example[order], value[order]
    start = np.flatnonzero(np.diff(example, prepend=-1))
    size = np.diff(start, append=len(example))
    most = int(size.max(initial=0))
    # A number for each different beginning, one answer longer at a time.
    beginning = np.zeros(len(start), dtype=np.int64)
    for n in range(most):
        longer = np.flatnonzero(size > n)
        answers = beginning[longer] * len(values) + value[start[longer] + n]
        beginning[longer] = np.unique(answers, return_inverse=True)[1]
    pattern = beginning * (most + 1) + size
    _, first, multiplicity = np.unique(pattern, return_index=True, return_counts=True)
    order = np.argsort(first)
    first, multiplicity = first[order], multiplicity[order]
    places = start[first][:, None] + np.arange(most)
    inside = np.arange(most) < size[first][:, None]
    rows = np.full(places.shape, -1, dtype=np.int32)
    rows[inside] = value[places[inside]]
    return Table(values, Patterns(rows, multiplicity))


def percent_agreement(examples: Iterable[Answers], *, seed: int = 0) -> Estimate:
    """The share of equal pairs among an example's answers, averaged over examples (0 to 1)."""
    return percent_of(tabulate(examples), seed=seed)


def fleiss_kappa(examples: Iterable[Answers], *, seed: int = 0) -> Estimate:
    """Fleiss' κ: as Cohen's, with the answers' frequencies pooled over all annotators.

    J. L. Fleiss, "Measuring nominal scale agreement among many raters", Psychological Bulletin
    76(5), 1971.

    Undefined (None) where examples have different numbers of answers (use Krippendorff's α) or
    where only one answer was ever given.
    """
    return fleiss_of(tabulate(e for e in examples if len(e) > 1), seed=seed)


def krippendorff_alpha(
    examples: Iterable[Answers],
    *,
    distance: Distance | Level = "nominal",
    seed: int = 0,
) -> Estimate:
    """Krippendorff's α: 1 - observed / expected disagreement. Missing answers are allowed.

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, sections C and D. Beside
    `nominal` answers it takes numbers, `ordinal` or `interval`, and any distance of two answers.

    Undefined (None) where only one answer was ever given: no disagreement could be expected.
    """
    return alpha_of(tabulate(examples), distance, seed=seed)


def gwet_ac(
    examples: Iterable[Answers],
    *,
    weights: Weights = "nominal",
    categories: Iterable[Hashable] = (),
    seed: int = 0,
) -> Estimate:
    """Gwet's AC1 (`nominal`) or AC2 (weights for ratings). Missing answers are allowed.

    K. L. Gwet, "Computing inter-rater reliability and its variance in the presence of high
    agreement", British Journal of Mathematical and Statistical Psychology 61(1), 2008; "Handbook
    of Inter-Rater Reliability", 4th edition, 2014, for AC2 and missing answers, where an example
    with one answer counts among the frequencies.

    Undefined (None) where there are no two `categories`: give all there are, used or not.
    """
    return gwet_of(tabulate(examples, categories), weights, seed=seed)


def percent_of(table: Table, *, seed: int = 0) -> Estimate:
    """`percent_agreement` of a table."""

    # By comparing answers and not by counting values: of free text there are as many as answers.
    def terms(rows: Rows) -> Floats:
        answers = (rows >= 0).sum(1)
        equal = (rows[:, :, None] == rows[:, None, :]) & (rows >= 0)[:, :, None]
        share = (equal.sum((1, 2)) - answers) / (answers * (answers - 1))
        return np.column_stack([share, np.ones(len(rows))])

    def value(sums: Floats) -> Floats:
        return ratio(sums[:, 0], sums[:, 1])

    return estimate(value, table.shared.patterns, terms, seed=seed)


def fleiss_of(table: Table, *, seed: int = 0) -> Estimate:
    """`fleiss_kappa` of a table."""
    table = table.shared
    answers = (table.patterns.rows >= 0).sum(1)
    if len(np.unique(answers)) > 1:
        return Estimate(None, None, None, int(table.patterns.multiplicity.sum()))

    def terms(rows: Rows) -> Floats:
        counts = table.counts(rows)
        return np.column_stack([_apart(counts, None), _shares(counts)])

    def value(sums: Floats) -> Floats:
        examples = sums[:, 1:].sum(1)
        share = sums[:, 1:] / examples[:, None]
        return 1 - ratio(sums[:, 0] / examples, 1 - (share**2).sum(1))

    return estimate(value, table.patterns, terms, seed=seed)


def alpha_of(table: Table, distance: Distance | Level, *, seed: int = 0) -> Estimate:
    """`krippendorff_alpha` of a table."""
    table = table.shared
    if distance == "ordinal":
        return _ordinal_alpha(table, seed)
    matrix = _matrix(table, "quadratic" if distance == "interval" else distance)

    def terms(rows: Rows) -> Floats:
        counts = table.counts(rows)
        return np.column_stack([_apart(counts, matrix) * counts.sum(1), counts])

    def value(sums: Floats) -> Floats:
        totals = sums[:, 1:]
        return _alpha(sums[:, 0], _differences(totals, matrix), totals.sum(1))

    return estimate(value, table.patterns, terms, seed=seed)


def _ordinal_alpha(table: Table, seed: int) -> Estimate:
    """Ordinal distances rest on how often each value was given, so every resample has its own.

    The sums are therefore the coincidences of each two values (Krippendorff 2011, section C).
    """
    q = len(table.values)

    def terms(rows: Rows) -> Floats:
        counts = table.counts(rows)
        pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(q)
        return (pairs / (counts.sum(1) - 1)[:, None, None]).reshape(-1, q * q)

    def value(sums: Floats) -> Floats:
        coincidences = sums.reshape(-1, q, q)
        totals = coincidences.sum(1)
        # The sum of the frequencies from c to k, less half of both ends, as a difference of ranks.
        rank = totals.cumsum(1) - totals / 2
        matrix = (rank[:, :, None] - rank[:, None, :]) ** 2
        expected = totals[:, :, None] * totals[:, None, :] * matrix
        observed = (coincidences * matrix).sum((1, 2))
        return _alpha(observed, expected.sum((1, 2)), totals.sum(1))

    return estimate(value, table.patterns, terms, seed=seed)


def gwet_of(table: Table, weights: Weights, *, seed: int = 0) -> Estimate:
    """`gwet_ac` of a table."""
    examples = int(table.shared.patterns.multiplicity.sum())
    q = len(table.values)
    if q < 2:
        return Estimate(None, None, None, examples)
    matrix = _matrix(table, weights)
    chance = 1 / (q - 1)
    if matrix is not None:
        matrix /= matrix.max()
        chance = (1 - matrix).sum() / (q * (q - 1))

    def terms(rows: Rows) -> Floats:
        counts = table.counts(rows)
        shared = counts.sum(1) > 1
        return np.column_stack([shared, _apart(counts, matrix), _shares(counts)])

    def value(sums: Floats) -> Floats:
        share = sums[:, 2:] / sums[:, 2:].sum(1, keepdims=True)
        expected = chance * (share * (1 - share)).sum(1)
        return (1 - ratio(sums[:, 1], sums[:, 0]) - expected) / (1 - expected)

    return estimate(value, table.patterns, terms, examples=examples, seed=seed)


def _matrix(table: Table, distance: Distance) -> Floats | None:
    """The distances of the table's values; None for nominal ones, which need no table."""
    return None if distance == "nominal" else distances(table.values, distance)


def _differences(counts: Floats, matrix: Floats | None) -> Floats:
    """The sum of the distances of all ordered pairs among so many of each value, (n,)."""
    if matrix is None:
        return counts.sum(1) ** 2 - (counts**2).sum(1)
    return ((counts @ matrix) * counts).sum(1)


def _apart(counts: Floats, matrix: Floats | None) -> Floats:
    """The mean distance of an example's answers, each with each other, (n,); 0 for one answer."""
    apart, pairs = _differences(counts, matrix), counts.sum(1) * (counts.sum(1) - 1)
    return np.divide(apart, pairs, out=np.zeros_like(apart), where=pairs > 0)


def _shares(counts: Floats) -> Floats:
    """The share each value has of an example's answers, (n, q)."""
    return counts / counts.sum(1, keepdims=True)


def _alpha(observed: Floats, expected: Floats, answers: Floats) -> Floats:
    return 1 - ratio((answers - 1) * observed, expected)
