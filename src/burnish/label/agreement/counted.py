"""Choices, verdicts and ratings: every answer counted, by patterns of equal examples."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from burnish.label.agreement.chance import Table, alpha_of, fleiss_of, gwet_of, percent_of, table_of
from burnish.label.agreement.coded import Coded
from burnish.label.agreement.distances import Weights
from burnish.label.agreement.estimate import Ints, Patterns
from burnish.label.agreement.measures import (
    Agreement,
    Headline,
    Measure,
    Pair,
    pair_resamples,
    percent_measure,
)
from burnish.label.agreement.pairs import kappa_of
from burnish.tasks import Task

# Ordinal α has a sum for each two ratings: 200 different ones are 320 kB a resample.
_MOST_RATINGS = 200


def counted_agreement(task: Task, answers: Coded, *, seed: int = 0) -> Agreement:
    """The statistics that fit choices, verdicts or ratings, and Cohen's κ of each two people."""
    measures = tuple(_measures(task, _table(answers), seed))
    is_rating = task.kind == "rate"
    name = "Cohen’s κ, quadratic weights" if is_rating else "Cohen’s κ"
    pairs = _pairs(answers, "quadratic" if is_rating else "nominal", seed)
    return Agreement(measures[0].estimate.examples, measures, name, pairs)


def counted_headline(task: Task, answers: Coded, *, seed: int = 0) -> Headline:
    """The first of these statistics, and percent."""
    table, annotators = _table(answers), len(np.unique(answers.annotator[answers.is_shared]))
    main, percent = next(_measures(task, table, seed)), percent_of(table, seed=seed)
    return Headline(percent.examples, annotators, main, percent)


def _table(answers: Coded) -> Table:
    return table_of(answers.example, answers.value, answers.values)


def _measures(task: Task, table: Table, seed: int) -> Iterator[Measure]:
    return _rating_measures(table, seed) if task.kind == "rate" else _choice_measures(table, seed)


def _choice_measures(table: Table, seed: int) -> Iterator[Measure]:
    yield Measure(
        "Krippendorff’s α",
        "corrected for chance; any number of answers per example",
        alpha_of(table, "nominal", seed=seed),
    )
    yield Measure(
        "Gwet’s AC1",
        "corrected for chance; fair where nearly all answers are the same",
        gwet_of(table, "nominal", seed=seed),
    )
    yield Measure(
        "Fleiss’ κ",
        "corrected for chance; the same number of answers for each example",
        fleiss_of(table, seed=seed),
    )
    yield percent_measure(table, "share of equal pairs of answers; by chance alone above 0", seed)


def _rating_measures(table: Table, seed: int) -> Iterator[Measure]:
    if len(table.values) <= _MOST_RATINGS:
        yield Measure(
            "Krippendorff’s α, ordinal",
            "corrected for chance; only the order of the ratings counts",
            alpha_of(table, "ordinal", seed=seed),
        )
    yield interval_alpha(table, seed)
    yield Measure(
        "Gwet’s AC2, quadratic weights",
        "corrected for chance; fair where nearly all ratings are the same",
        gwet_of(table, "quadratic", seed=seed),
    )
    yield percent_measure(table, "share of equal pairs of ratings; by chance alone above 0", seed)


def interval_alpha(table: Table, seed: int) -> Measure:
    """Krippendorff's α of numbers."""
    return Measure(
        "Krippendorff’s α, interval",
        "corrected for chance; twice as far apart is four times as bad",
        alpha_of(table, "interval", seed=seed),
    )


def _pairs(answers: Coded, weights: Weights, seed: int) -> tuple[Pair, ...]:
    first, second, *said, times = _count_pairs(answers)
    rows = np.stack(said, axis=1)
    starts = np.flatnonzero(np.diff(first, prepend=-1) | np.diff(second, prepend=-1))
    resamples = pair_resamples(len(starts))
    return tuple(
        Pair(
            answers.annotators[first[start]],
            answers.annotators[second[start]],
            kappa_of(
                Patterns(rows[start:end], times[start:end]),
                answers.values,
                weights,
                resamples=resamples,
                seed=seed,
            ),
        )
        for start, end in pairwise([*starts, len(first)])
    )


def _count_pairs(answers: Coded) -> Ints:
    """How often each two annotators gave each two values, (5, n): who, who, value, value, times.

    By the annotators' names, and by the first example that shows it.
    """
    shape = (len(answers.annotators),) * 2 + (len(answers.values),) * 2
    found = [np.zeros((3, 0), dtype=np.int64)]
    at, apart = np.arange(len(answers.example)), 0
    while len(at):
        # Answers that stand so far apart in the same example: these have all nearer ones too.
        apart += 1
        at = at[at + apart < len(answers.example)]
        at = at[answers.example[at] == answers.example[at + apart]]
        both = [x[y] for x in (answers.annotator, answers.value) for y in (at, at + apart)]
        cell = np.ravel_multi_index(both, shape)
        cell, first, times = np.unique(cell, return_index=True, return_counts=True)
        found.append(np.stack([cell, answers.example[at[first]], times]))
    cell, first, times = np.concatenate(found, axis=1)
    order = np.lexsort((first, cell))
    cell, first, times = cell[order], first[order], times[order]
    start = np.flatnonzero(np.diff(cell, prepend=-1))
    cell, first, times = cell[start], first[start], np.add.reduceat(times, start)
    counts = np.stack([*np.unravel_index(cell, shape), times])
    return counts[:, np.lexsort((first, counts[1], counts[0]))]
