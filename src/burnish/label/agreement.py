"""How far annotators agree, corrected for chance, with intervals.

Input throughout: one mapping `annotator -> answer` per example. Examples with fewer than two
answers say nothing about agreement and are left out. Answers are nominal: equal or not.

    percent        no correction; high by chance alone where one answer is common
    Cohen's κ      two annotators, each with their own habits
    Fleiss' κ      any annotators, the same number of answers for every example
    Krippendorff's α   any annotators, any number of answers: the one to quote while work goes on

A statistic that is undefined is None, never 0 or NaN: 0 would say "no better than chance".

Intervals: percentile bootstrap over examples (Efron 1979; for κ and α: Zapf, Castell, Morawietz and
Karch, BMC Medical Research Methodology 16:93, 2016). Where nobody disagrees it has no width, since
a sample cannot show what it lacks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Answers = Mapping[str, str]
"""One example's answers, by annotator."""

_Weights = NDArray[np.int64]
_CONFIDENCE = 0.95
_RESAMPLES = 1000
# Free text has a pattern per example. 1000 resamples of 50,000 patterns take 3 s per statistic, so
# above 5,000 patterns there are fewer: never under 100, where an interval's ends still stand
# within a fifth of its width.
_DRAWN_PATTERNS = 5_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic and its 95 % interval; None where undefined."""

    value: float | None
    low: float | None
    high: float | None
    examples: int
    """How many examples it rests on."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Every statistic on the same examples."""

    percent: Estimate
    fleiss_kappa: Estimate
    krippendorff_alpha: Estimate
    cohen_kappa: Mapping[tuple[str, str], Estimate]
    """By pair of annotators, for the pairs that share an example."""


def agreement(examples: Iterable[Answers], *, seed: int = 0) -> Agreement:
    """All of the statistics below, with Cohen's κ for each pair of annotators."""
    examples = [e for e in examples if len(e) > 1]
    pairs = sorted({pair for e in examples for pair in combinations(sorted(e), 2)})
    return Agreement(
        percent_agreement(examples, seed=seed),
        fleiss_kappa(examples, seed=seed),
        krippendorff_alpha(examples, seed=seed),
        {pair: cohen_kappa(examples, *pair, seed=seed) for pair in pairs},
    )


def percent_agreement(examples: Iterable[Answers], *, seed: int = 0) -> Estimate:
    """The share of equal pairs among an example's answers, averaged over examples (0 to 1)."""
    table = _tabulate(examples)
    return _estimate(table.percent, table.multiplicity, seed)


def cohen_kappa(examples: Iterable[Answers], first: str, second: str, *, seed: int = 0) -> Estimate:
    """Cohen's κ of two annotators, on the examples both answered.

    κ = (p_o - p_e) / (1 - p_e): p_o the share of equal answers, p_e the share expected if each kept
    their own frequencies and answered at random. J. Cohen, "A coefficient of agreement for nominal
    scales", Educational and Psychological Measurement 20(1), 1960.

    Undefined (None) where both gave one and the same answer throughout: p_e is 1.
    """
    counts = Counter((e[first], e[second]) for e in examples if first in e and second in e)
    codes = {answer: code for code, answer in enumerate({a for pair in counts for a in pair})}
    row = np.array([codes[a] for a, _ in counts], dtype=np.int64)
    column = np.array([codes[b] for _, b in counts], dtype=np.int64)

    def kappa(weights: _Weights) -> float | None:
        total = weights.sum()
        observed = weights[row == column].sum() / total
        row_share = np.bincount(row, weights, len(codes)) / total
        column_share = np.bincount(column, weights, len(codes)) / total
        return _corrected(float(observed), float(row_share @ column_share))

    return _estimate(kappa, np.array(list(counts.values()), dtype=np.int64), seed)


def fleiss_kappa(examples: Iterable[Answers], *, seed: int = 0) -> Estimate:
    """Fleiss' κ: as Cohen's, with the answers' frequencies pooled over all annotators.

    J. L. Fleiss, "Measuring nominal scale agreement among many raters", Psychological Bulletin
    76(5), 1971.

    Undefined (None) where examples have different numbers of answers (use Krippendorff's α) or
    where only one answer was ever given.
    """
    table = _tabulate(examples)
    return _estimate(table.fleiss_kappa, table.multiplicity, seed)


def krippendorff_alpha(examples: Iterable[Answers], *, seed: int = 0) -> Estimate:
    """Krippendorff's α for nominal answers: 1 - observed / expected disagreement.

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, section C; missing answers
    are allowed.

    Undefined (None) where only one answer was ever given: no disagreement could be expected.
    """
    table = _tabulate(examples)
    return _estimate(table.krippendorff_alpha, table.multiplicity, seed)


@dataclass(frozen=True, slots=True)
class _Table:
    """Examples by pattern: those with the same answers, whoever gave which, are one pattern.

    A bootstrap over examples is then a multinomial draw over patterns: exact, and for 100,000
    examples of a choice among ten, a hundred numbers instead of 100,000.
    """

    multiplicity: _Weights
    """How many examples show each pattern, (P,)."""
    answers: _Weights
    """How many answers an example of each pattern has, (P,)."""
    equal_pairs: _Weights
    """How many ordered pairs of them are equal, (P,)."""
    pattern: _Weights
    """With `category` and `count`: `count` answers of a pattern are of that category, (K,) each."""
    category: _Weights
    count: _Weights

    def percent(self, weights: _Weights) -> float | None:
        pairs = self.answers * (self.answers - 1)
        return float(weights @ (self.equal_pairs / pairs) / weights.sum())

    def fleiss_kappa(self, weights: _Weights) -> float | None:
        if len(set(self.answers.tolist())) > 1:
            return None
        observed = self.percent(weights)
        assert observed is not None
        share = self._category_totals(weights) / (weights @ self.answers)
        return _corrected(observed, float(share @ share))

    def krippendorff_alpha(self, weights: _Weights) -> float | None:
        totals = self._category_totals(weights)
        n = totals.sum()
        expected = n * n - totals @ totals
        if expected == 0:
            return None
        observed = weights @ (self.answers - self.equal_pairs / (self.answers - 1))
        return float(1 - (n - 1) * observed / expected)

    def _category_totals(self, weights: _Weights) -> NDArray[np.float64]:
        # numpy's stubs call a weighted bincount one of integers.
        totals = np.bincount(self.category, weights[self.pattern] * self.count)
        return totals.astype(np.float64)


def _tabulate(examples: Iterable[Answers]) -> _Table:
    patterns = Counter(tuple(sorted(e.values())) for e in examples if len(e) > 1)
    codes: dict[str, int] = {}
    rows = [
        (p, codes.setdefault(answer, len(codes)), count)
        for p, answers in enumerate(patterns)
        for answer, count in Counter(answers).items()
    ]
    pattern, category, count = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    equal_pairs = np.zeros(len(patterns), dtype=np.int64)
    np.add.at(equal_pairs, pattern, count * (count - 1))
    return _Table(
        multiplicity=np.array(list(patterns.values()), dtype=np.int64),
        answers=np.array([len(answers) for answers in patterns], dtype=np.int64),
        equal_pairs=equal_pairs,
        pattern=pattern,
        category=category,
        count=count,
    )


def _corrected(observed: float, expected: float) -> float | None:
    """(observed - expected) / (1 - expected), or None where chance alone explains everything."""
    return None if expected == 1 else (observed - expected) / (1 - expected)


def _estimate(
    statistic: Callable[[_Weights], float | None],
    multiplicity: _Weights,
    seed: int,
) -> Estimate:
    """The statistic and its percentile bootstrap; a resample in which it is undefined is left out.

    `statistic` takes how often each pattern counts, (P,).
    """
    examples = int(multiplicity.sum())
    value = statistic(multiplicity) if examples else None
    if value is None or examples < 2:
        return Estimate(value, None, None, examples)
    rng = np.random.default_rng(seed)
    share = multiplicity / examples
    resamples = min(_RESAMPLES, max(100, _DRAWN_PATTERNS // len(multiplicity)))
    draws = (statistic(rng.multinomial(examples, share)) for _ in range(resamples))
    defined = [draw for draw in draws if draw is not None]
    if not defined:
        return Estimate(value, None, None, examples)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), examples)
