"""Texts, sets, orders, spans and long scales: measured on a sample, answer against answer."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from burnish.label.agreement.chance import Table, alpha_of, percent_of, tabulate
from burnish.label.agreement.coded import Answers
from burnish.label.agreement.counted import interval_alpha
from burnish.label.agreement.distances import jaccard_distance, masi_distance
from burnish.label.agreement.estimate import Estimate, mean_estimate, ratio_estimate
from burnish.label.agreement.measures import (
    Agreement,
    Headline,
    Measure,
    Pair,
    pair_resamples,
    percent_measure,
)
from burnish.label.agreement.ranks import kendall_tau, kendall_w
from burnish.label.agreement.sample import Sample
from burnish.label.agreement.similarity import comparable, similarity
from burnish.label.agreement.spans import Overlap, Spans, exact_overlap, partial_overlap
from burnish.label.agreement.text import chrf_similarity, edit_distance
from burnish.progress import progress
from burnish.tasks import Kind, Task

SAMPLE = 5000
"""How many examples statistics without patterns rest on at most, drawn at random: a chrF takes
0.3 ms, and the mean over so many is known to within 0.01."""

# Distances between each two different answers: 500 of them are 125,000 distances, under a second.
_MOST_VALUES = 500


class SharedSample:
    """At most `SAMPLE` examples with two answers or more, of everything that is added."""

    def __init__(self, task: Task, seed: int = 0) -> None:
        self.annotators: set[str] = set()
        """Who answered them, drawn or not."""
        self._task = task
        self._sample: Sample[Answers] = Sample(SAMPLE, seed)

    @property
    def examples(self) -> int:
        """How many there were."""
        return self._sample.seen

    def add(self, answers: Answers) -> None:
        """Take in an example's answers; those of another kind are left out."""
        if len(answers) < 2:
            return
        values = {name: comparable(answer, self._task) for name, answer in answers.items()}
        readable = {name: value for name, value in values.items() if value is not None}
        if len(readable) > 1:
            self.annotators |= readable.keys()
            self._sample.add(readable)

    def drawn(self) -> list[Answers]:
        """The sample, in random order."""
        return self._sample.shuffled()


def sampled_agreement(task: Task, sample: SharedSample, *, seed: int = 0) -> Agreement:
    """The statistics that fit the task's kind, and how alike each two people's answers are."""
    drawn = sample.drawn()
    measures = tuple(_measures(task, drawn, seed))
    alike: defaultdict[tuple[str, str], Counter[float]] = defaultdict(Counter)
    for answers in drawn:
        for first, second in combinations(sorted(answers), 2):
            alike[first, second][similarity(answers[first], answers[second], task)] += 1
    resamples = pair_resamples(len(alike))
    pairs = tuple(
        Pair(*names, mean_estimate(counts, resamples=resamples, seed=seed))
        for names, counts in sorted(alike.items())
    )
    return Agreement(sample.examples, measures, f"mean similarity of {_SIMILAR[task.kind]}", pairs)


def sampled_headline(task: Task, sample: SharedSample, *, seed: int = 0) -> Headline:
    """The first of these statistics, and percent."""
    drawn = sample.drawn()
    main, percent = next(_measures(task, drawn, seed)), percent_of(tabulate(drawn), seed=seed)
    return Headline(sample.examples, len(sample.annotators), main, percent)


def _measures(task: Task, examples: Sequence[Answers], seed: int) -> Iterator[Measure]:
    match task.kind:
        case "choose_many":
            return _set_measures(examples, seed)
        case "rate":
            return _long_scale_measures(examples, seed)
        case "rank":
            return _rank_measures(examples, seed)
        case "spans":
            return _span_measures(task, examples, seed)
        case _:
            return _text_measures(examples, seed)


def _long_scale_measures(examples: Sequence[Answers], seed: int) -> Iterator[Measure]:
    yield interval_alpha(_with_few_values(examples), seed)
    yield percent_measure(tabulate(examples), "share of equal pairs of ratings", seed)


def _set_measures(examples: Sequence[Answers], seed: int) -> Iterator[Measure]:
    table = _with_few_values(examples)
    yield Measure(
        "Krippendorff’s α, MASI",
        "corrected for chance; a set that holds the other is nearer than one that overlaps",
        alpha_of(table, masi_distance, seed=seed),
    )
    yield Measure(
        "Krippendorff’s α, Jaccard",
        "corrected for chance; by the share of choices in common",
        alpha_of(table, jaccard_distance, seed=seed),
    )
    yield percent_measure(tabulate(examples), "share of pairs that chose the very same", seed)


def _text_measures(examples: Sequence[Answers], seed: int) -> Iterator[Measure]:
    yield Measure(
        "Similarity",
        "1 - edit distance over the longer text’s length, the mean of pairs",
        mean_estimate(_means(examples, lambda a, b: 1 - edit_distance(a, b)), seed=seed),
    )
    yield Measure(
        "chrF",
        "character n-grams in common, the mean of pairs, both ways round",
        mean_estimate(_means(examples, chrf_similarity, slow=True), seed=seed),
    )
    yield Measure(
        "Krippendorff’s α, edit distance",
        "corrected for how alike the answers to different examples are",
        alpha_of(_with_few_values(examples), edit_distance, seed=seed),
    )
    yield percent_measure(tabulate(examples), "share of pairs that wrote the very same", seed)


def _rank_measures(examples: Sequence[Answers], seed: int) -> Iterator[Measure]:
    concordances = Counter(
        w for w in (kendall_w(list(answers.values())) for answers in examples) if w is not None
    )
    yield Measure(
        "Kendall’s W",
        "all annotators of an example together; 1 is the same order, 0 none in common",
        mean_estimate(concordances, seed=seed),
    )
    yield Measure(
        "Kendall’s τ-b",
        "the mean of pairs; 1 is the same order, 0 chance, -1 the reverse",
        mean_estimate(_means(examples, kendall_tau), seed=seed),
    )


def _span_measures(task: Task, examples: Sequence[Answers], seed: int) -> Iterator[Measure]:
    yield Measure(
        "F1, exact",
        "share of spans the other annotator marked too, with the same ends and label",
        _f1(examples, exact_overlap, seed=seed),
    )
    yield Measure(
        "F1, overlapping",
        "the same label and a character in common is enough",
        _f1(examples, partial_overlap, seed=seed),
    )
    for label in task.choices:
        of_label = _f1(examples, exact_overlap, label)
        yield Measure(f"F1, exact: {label}", "of this label alone", of_label)


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


_SIMILAR: Mapping[Kind, str] = {
    "write": "the texts (1 - edit distance)",
    "edit": "the texts (1 - edit distance)",
    "dialogue": "the dialogues (1 - edit distance)",
    "choose_many": "the sets (Jaccard)",
    "rate": "the ratings (1 - difference over the scale)",
    "rank": "the orders ((1 + τ-b) / 2)",
    "spans": "the spans (F1, exact)",
}
