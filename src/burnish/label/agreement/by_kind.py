"""The statistics that fit a task's kind, from one pass over the examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from burnish.label.agreement.chance import (
    Answers,
    Table,
    alpha_of,
    fleiss_of,
    gwet_of,
    percent_of,
    tabulate,
)
from burnish.label.agreement.distances import Weights, jaccard_distance, masi_distance
from burnish.label.agreement.estimate import RESAMPLES, Estimate, mean_estimate, ratio_estimate
from burnish.label.agreement.pairs import kappa_of
from burnish.label.agreement.ranks import kendall_tau, kendall_w
from burnish.label.agreement.sample import Sample
from burnish.label.agreement.similarity import comparable, is_categorical, similarity
from burnish.label.agreement.spans import Overlap, Spans, exact_overlap, partial_overlap
from burnish.label.agreement.text import chrf_similarity, edit_distance
from burnish.progress import progress
from burnish.tasks import Kind, Task

SAMPLE = 5000
"""How many examples statistics without patterns rest on at most, drawn at random: a chrF takes
0.3 ms, and the mean over so many is known to within 0.01."""

# Distances between each two different answers: 500 of them are 125,000 distances, under a second.
_MOST_VALUES = 500
# Ordinal α has a sum for each two ratings: 200 different ones are 320 kB a resample.
_MOST_RATINGS = 200
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


def agreement(task: Task, examples: Iterable[Answers], *, seed: int = 0) -> Agreement:
    """The statistics that fit the task's kind; docs/agreement.md says which and why.

    Answers are texts in their canonical form (`records.answers`). Choices, verdicts and ratings are
    counted, however many examples there are; of the others, at most `SAMPLE` examples are drawn.
    """
    readable = _readable(task, examples)
    if is_categorical(task):
        return _categorical(task, readable, seed)
    sample: Sample[Answers] = Sample(SAMPLE, seed)
    for answers in readable:
        if len(answers) > 1:
            sample.add(answers)
    drawn = sample.shuffled()
    match task.kind:
        case "choose_many":
            measures = _set_measures(drawn, seed)
        case "rate":
            measures = _long_scale_measures(drawn, seed)
        case "rank":
            measures = _rank_measures(drawn, seed)
        case "spans":
            measures = _span_measures(task, drawn, seed)
        case _:
            measures = _text_measures(drawn, seed)
    name, pairs = _similar_pairs(task, drawn, seed)
    return Agreement(sample.seen, measures, name, pairs)


def _readable(task: Task, examples: Iterable[Answers]) -> Iterator[Answers]:
    """The answers as values, those of another kind left out."""
    for answers in examples:
        values = {name: comparable(answer, task) for name, answer in answers.items()}
        yield {name: value for name, value in values.items() if value is not None}


def _categorical(task: Task, examples: Iterable[Answers], seed: int) -> Agreement:
    both: defaultdict[tuple[str, str], Counter[tuple[Any, Any]]] = defaultdict(Counter)

    def counting_pairs() -> Iterator[Answers]:
        for answers in examples:
            for first, second in combinations(sorted(answers), 2):
                both[first, second][answers[first], answers[second]] += 1
            yield answers

    if task.kind == "rate":
        low, high = task.scale
        table = tabulate(counting_pairs(), range(low, high + 1))
        measures = _rating_measures(table, seed)
    else:
        verdicts = ("accept", "reject")
        table = tabulate(counting_pairs(), task.choices if task.kind == "choose" else verdicts)
        measures = _choice_measures(table, seed)
    weights: Weights = "quadratic" if task.kind == "rate" else "nominal"
    resamples = _pair_resamples(len(both))
    pairs = (
        Pair(*names, kappa_of(counts, weights, resamples=resamples, seed=seed))
        for names, counts in sorted(both.items())
    )
    name = "Cohen’s κ, quadratic weights" if weights == "quadratic" else "Cohen’s κ"
    return Agreement(measures[0].estimate.examples, measures, name, tuple(pairs))


def _choice_measures(table: Table, seed: int) -> tuple[Measure, ...]:
    return (
        Measure(
            "Krippendorff’s α",
            "corrected for chance; any number of answers per example",
            alpha_of(table, "nominal", seed=seed),
        ),
        Measure(
            "Gwet’s AC1",
            "corrected for chance; fair where nearly all answers are the same",
            gwet_of(table, "nominal", seed=seed),
        ),
        Measure(
            "Fleiss’ κ",
            "corrected for chance; the same number of answers for each example",
            fleiss_of(table, seed=seed),
        ),
        _percent(table, "share of equal pairs of answers; by chance alone above 0", seed),
    )


def _rating_measures(table: Table, seed: int) -> tuple[Measure, ...]:
    measures = (
        _interval_alpha(table, seed),
        Measure(
            "Gwet’s AC2, quadratic weights",
            "corrected for chance; fair where nearly all ratings are the same",
            gwet_of(table, "quadratic", seed=seed),
        ),
        _percent(table, "share of equal pairs of ratings; by chance alone above 0", seed),
    )
    if len(table.values) > _MOST_RATINGS:
        return measures
    ordinal = Measure(
        "Krippendorff’s α, ordinal",
        "corrected for chance; only the order of the ratings counts",
        alpha_of(table, "ordinal", seed=seed),
    )
    return ordinal, *measures


def _long_scale_measures(examples: Sequence[Answers], seed: int) -> tuple[Measure, ...]:
    return (
        _interval_alpha(_with_few_values(examples), seed),
        _percent(tabulate(examples), "share of equal pairs of ratings", seed),
    )


def _interval_alpha(table: Table, seed: int) -> Measure:
    return Measure(
        "Krippendorff’s α, interval",
        "corrected for chance; twice as far apart is four times as bad",
        alpha_of(table, "interval", seed=seed),
    )


def _percent(table: Table, note: str, seed: int) -> Measure:
    return Measure("Percent", note, percent_of(table, seed=seed))


def _set_measures(examples: Sequence[Answers], seed: int) -> tuple[Measure, ...]:
    table = _with_few_values(examples)
    return (
        Measure(
            "Krippendorff’s α, MASI",
            "corrected for chance; a set that holds the other is nearer than one that overlaps",
            alpha_of(table, masi_distance, seed=seed),
        ),
        Measure(
            "Krippendorff’s α, Jaccard",
            "corrected for chance; by the share of choices in common",
            alpha_of(table, jaccard_distance, seed=seed),
        ),
        _percent(tabulate(examples), "share of pairs that chose the very same", seed),
    )


def _text_measures(examples: Sequence[Answers], seed: int) -> tuple[Measure, ...]:
    return (
        Measure(
            "Similarity",
            "1 - edit distance over the longer text’s length, the mean of pairs",
            mean_estimate(_means(examples, lambda a, b: 1 - edit_distance(a, b)), seed=seed),
        ),
        Measure(
            "chrF",
            "character n-grams in common, the mean of pairs, both ways round",
            mean_estimate(_means(examples, chrf_similarity, slow=True), seed=seed),
        ),
        Measure(
            "Krippendorff’s α, edit distance",
            "corrected for how alike the answers to different examples are",
            alpha_of(_with_few_values(examples), edit_distance, seed=seed),
        ),
        _percent(tabulate(examples), "share of pairs that wrote the very same", seed),
    )


def _rank_measures(examples: Sequence[Answers], seed: int) -> tuple[Measure, ...]:
    concordances = Counter(
        w for w in (kendall_w(list(answers.values())) for answers in examples) if w is not None
    )
    return (
        Measure(
            "Kendall’s W",
            "all annotators of an example together; 1 is the same order, 0 none in common",
            mean_estimate(concordances, seed=seed),
        ),
        Measure(
            "Kendall’s τ-b",
            "the mean of pairs; 1 is the same order, 0 chance, -1 the reverse",
            mean_estimate(_means(examples, kendall_tau), seed=seed),
        ),
    )


def _span_measures(task: Task, examples: Sequence[Answers], seed: int) -> tuple[Measure, ...]:
    return (
        Measure(
            "F1, exact",
            "share of spans the other annotator marked too, with the same ends and label",
            _f1(examples, exact_overlap, seed=seed),
        ),
        Measure(
            "F1, overlapping",
            "the same label and a character in common is enough",
            _f1(examples, partial_overlap, seed=seed),
        ),
        *(
            Measure(
                f"F1, exact: {label}", "of this label alone", _f1(examples, exact_overlap, label)
            )
            for label in task.choices
        ),
    )


def _f1(
    examples: Sequence[Answers],
    overlap: Callable[[Spans, Spans], Overlap],
    label: str | None = None,
    *,
    seed: int = 0,
) -> Estimate:
    """Spans counted over all examples; one with more than two annotators counts as much as others.

    Undefined (None) where nobody marked any.
    """
    matched, spans = [], []
    for answers in examples:
        marked = [
            [span for span in answer if label is None or span.label == label]
            for answer in answers.values()
        ]
        overlaps = [overlap(a, b) for a, b in combinations(marked, 2)]
        matched.append(sum(o.matched for o in overlaps) / len(overlaps))
        spans.append(sum(o.spans for o in overlaps) / len(overlaps))
    return ratio_estimate(matched, spans, seed=seed)


def _means(
    examples: Sequence[Answers],
    measure: Callable[[Any, Any], float | None],
    *,
    slow: bool = False,
) -> Counter[float]:
    """Each example's mean over its pairs of answers, those undefined left out, counted."""
    means: Counter[float] = Counter()
    for answers in progress(examples, "compare", unit="examples") if slow else examples:
        found = [measure(a, b) for a, b in combinations(answers.values(), 2)]
        defined = [value for value in found if value is not None]
        if defined:
            means[sum(defined) / len(defined)] += 1
    return means


def _with_few_values(examples: Sequence[Answers]) -> Table:
    """A table of as many of the examples as have `_MOST_VALUES` different answers."""
    values: set[Any] = set()
    for n, answers in enumerate(examples):
        values |= set(answers.values())
        if len(values) > _MOST_VALUES:
            return tabulate(examples[: max(n, 1)])
    return tabulate(examples)


def _similar_pairs(
    task: Task, examples: Sequence[Answers], seed: int
) -> tuple[str, tuple[Pair, ...]]:
    alike: defaultdict[tuple[str, str], Counter[float]] = defaultdict(Counter)
    for answers in examples:
        for first, second in combinations(sorted(answers), 2):
            alike[first, second][similarity(answers[first], answers[second], task)] += 1
    resamples = _pair_resamples(len(alike))
    pairs = (
        Pair(*names, mean_estimate(counts, resamples=resamples, seed=seed))
        for names, counts in sorted(alike.items())
    )
    return f"mean similarity of {_SIMILAR[task.kind]}", tuple(pairs)


_SIMILAR: Mapping[Kind, str] = {
    "write": "the texts (1 - edit distance)",
    "edit": "the texts (1 - edit distance)",
    "dialogue": "the dialogues (1 - edit distance)",
    "choose_many": "the sets (Jaccard)",
    "rate": "the ratings (1 - difference over the scale)",
    "rank": "the orders ((1 + τ-b) / 2)",
    "spans": "the spans (F1, exact)",
}


def _pair_resamples(pairs: int) -> int:
    return max(_FEWEST_RESAMPLES, min(RESAMPLES, _PAIRS_RESAMPLES // max(pairs, 1)))
