"""Agreement: published worked examples, reference implementations, definitions, laws.

Run: pytest tests/test_agreement.py
"""

import json
import random
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import CHRF
from scipy import stats

from burnish.label.agreement import (
    agreement,
    chrf,
    cohen_kappa,
    comparable,
    edit_distance,
    estimate,
    fleiss_kappa,
    gwet_ac,
    kendall_tau,
    kendall_w,
    krippendorff_alpha,
    percent_agreement,
    similarity,
)
from burnish.label.agreement.distances import distances, jaccard_distance, masi_distance
from burnish.label.agreement.estimate import mean_estimate
from burnish.label.agreement.sampled import SAMPLE
from burnish.label.agreement.spans import LabelledSpan, exact_overlap, partial_overlap
from burnish.tasks import Task


def by_example(*raters: str) -> list[dict[int, str]]:
    """One text per rater, one word per example; a dot is a missing answer."""
    columns = zip(*(rater.split() for rater in raters), strict=True)
    return [{n: word for n, word in enumerate(column) if word != "."} for column in columns]


def numbers(examples):
    return [{rater: int(value) for rater, value in e.items()} for e in examples]


def from_counts(table: str) -> list[dict[int, int]]:
    """One line per example: how many raters chose each category."""
    rows = [[int(n) for n in line.split()] for line in table.strip().splitlines()]
    spread = [[c for c, n in enumerate(row) for _ in range(n)] for row in rows]
    return [dict(enumerate(answers)) for answers in spread]


def pairs(counts: dict[str, int]) -> list[dict[str, str]]:
    """Two raters' answers "x y", each so many times."""
    return [dict(zip("ab", k.split(), strict=True)) for k, n in counts.items() for _ in range(n)]


# Published worked examples

# Fleiss 1971, table 1: 30 patients, 6 psychiatrists, 5 diagnoses.
FLEISS_1971 = """
0 0 0 6 0\n0 3 0 0 3\n0 1 4 0 1\n0 0 0 0 6\n0 3 0 3 0\n2 0 4 0 0\n0 0 4 0 2\n2 0 3 1 0
2 0 0 4 0\n0 0 0 0 6\n1 0 0 5 0\n1 1 0 4 0\n0 3 3 0 0\n1 0 0 5 0\n0 2 0 3 1\n0 0 5 0 1
3 0 0 1 2\n5 1 0 0 0\n0 2 0 4 0\n1 0 2 0 3\n0 0 0 0 6\n0 1 0 5 0\n0 2 0 1 3\n2 0 0 4 0
1 0 0 4 1\n0 5 0 1 0\n4 0 0 0 2\n0 2 0 4 0\n1 0 5 0 0\n0 0 0 0 6
"""
# Krippendorff 2011, sections A (binary), B (nominal, two observers) and C (missing answers).
BINARY = ("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0")
TWO_OBSERVERS = ("a a b b d c c c e d d a", "b a b b b c c c e d d d")
MISSING = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)


@pytest.mark.parametrize(
    ("alpha", "raters", "distance"),
    [
        (0.095, BINARY, "nominal"),
        (0.692, TWO_OBSERVERS, "nominal"),
        (0.743, MISSING, "nominal"),
        (0.815, MISSING, "ordinal"),
        (0.849, MISSING, "interval"),
    ],
)
def test_alpha_as_published(alpha, raters, distance):
    examples = by_example(*raters)
    if distance != "nominal":
        examples = numbers(examples)
    assert krippendorff_alpha(examples, distance=distance).value == pytest.approx(alpha, abs=5e-4)


def test_fleiss_kappa_as_published():
    assert fleiss_kappa(from_counts(FLEISS_1971)).value == pytest.approx(0.430, abs=5e-4)


def test_cohen_kappa_as_published():
    # Cohen 1968, table 1: 200 patients, three diagnoses, and how bad it is to take one for another.
    cells = {"1 1": 88, "1 2": 14, "1 3": 18, "2 1": 10, "2 2": 40, "2 3": 10}
    examples = pairs(cells | {"3 1": 2, "3 2": 6, "3 3": 12})
    assert cohen_kappa(examples, "a", "b").value == pytest.approx(0.492, abs=5e-4)
    weights = {"12": 1, "13": 3, "23": 6}
    weighted = cohen_kappa(examples, "a", "b", weights=lambda x, y: weights["".join(sorted(x + y))])
    assert weighted.value == pytest.approx(0.348, abs=5e-4)


def test_gwet_as_published():
    # Gwet 2014, the twelve subjects and four raters of chapter 2, which are Krippendorff's.
    assert gwet_ac(by_example(*MISSING)).value == pytest.approx(0.775, abs=5e-4)
    # The paradox: 118 of 125 are equal, and κ is below 0 (Gwet 2008).
    paradox = pairs({"+ +": 118, "+ -": 5, "- +": 2})
    assert cohen_kappa(paradox, "a", "b").value == pytest.approx(-0.023, abs=5e-4)
    assert gwet_ac(paradox).value == pytest.approx(0.941, abs=5e-4)


def test_concordance_as_published():
    # Kendall, Rank Correlation Methods, chapter 6: three observers, six entries.
    orders = [(1, 6, 3, 2, 5, 4), (1, 5, 6, 4, 2, 3), (6, 3, 2, 5, 4, 1)]
    assert kendall_w([ranking_of(ranks) for ranks in orders]) == pytest.approx(0.162, abs=5e-4)


# What reference implementations print, for answers drawn at random

RATINGS = (
    ". 5 . . 2 . . 2 5 2 2 1 1 4 5 2 1 2 . 1 4 3 . . 4 5 3 3 4 5 1 2 4 3 5 1 3 3 2 .",
    "5 5 . 3 1 . . 2 5 3 2 2 1 5 5 2 1 2 1 2 4 3 1 5 . . . 3 3 3 1 1 5 3 3 2 3 3 3 .",
    "5 4 . 3 2 . 2 2 4 3 3 2 1 4 5 . . 3 1 1 . . 1 5 . 5 3 . 4 5 1 2 3 2 3 2 3 3 3 .",
    "5 3 3 1 2 4 2 2 5 . . 1 1 4 5 3 1 2 1 1 1 3 1 5 3 5 4 1 3 5 1 2 4 4 3 2 3 3 3 3",
)
SETS = (
    "cd bc abc a d b de d bce ab ac bcd b abde be bd ae a b bc ce ab ce acd bd",
    "d bce ab ac a be bde ad abce be ac acd a be b bde e a b bc ce ab ce acd bde",
    "acd bce ab ab d be be d abce bc ac cd b bde be de ae e b bc ce ab ce acd bde",
)


@pytest.mark.parametrize(
    ("weights", "printed"),
    [  # irrCAC 0.4.4, CAC(ratings, weights).gwet(), 15 digits
        ("nominal", 0.51292697892186),
        ("linear", 0.692446525798217),
        ("quadratic", 0.81771800125286),
        ("ordinal", 0.782756434404526),
    ],
)
def test_gwet_equals_irrcac(weights, printed):
    examples = numbers(by_example(*RATINGS))
    found = gwet_ac(examples, weights=weights)
    assert found.value == pytest.approx(printed, abs=1e-9)
    # Three examples have one answer: they count among the frequencies, not among the agreements.
    assert found.examples == 37


@pytest.mark.parametrize(
    ("weights", "printed"),
    [  # scikit-learn 1.9.1, cohen_kappa_score
        ("nominal", 0.45718901453957994),
        ("linear", 0.6683587140439933),
        ("quadratic", 0.8225352112676056),
    ],
)
def test_cohen_equals_scikit_learn(weights, printed):
    examples = numbers(by_example(*RATINGS))
    assert cohen_kappa(examples, 0, 1, weights=weights).value == pytest.approx(printed, abs=1e-9)


@pytest.mark.parametrize(
    ("distance", "printed"),
    [  # nltk 3.10.4, AnnotationTask(distance).alpha()
        ("nominal", 0.5007539203860072),
        ("interval", 0.7998813093453273),
        (masi_distance, 0.5113768501188298),
        (jaccard_distance, 0.5773941483398379),
    ],
)
def test_alpha_equals_nltk(distance, printed):
    examples = numbers(by_example(*RATINGS))
    if callable(distance):
        examples = [{n: frozenset(s) for n, s in e.items()} for e in by_example(*SETS)]
    assert krippendorff_alpha(examples, distance=distance).value == pytest.approx(printed, abs=1e-9)


TEXTS = st.text(st.sampled_from("abcé 北\n"), max_size=30)


@given(TEXTS, TEXTS)
def test_chrf_equals_sacrebleu(hypothesis, reference):
    wanted = CHRF().sentence_score(hypothesis, [reference]).score / 100
    assert chrf(hypothesis, reference) == pytest.approx(wanted, abs=1e-9)


def ranking_of(ranks) -> list[list[int]]:
    """Groups of candidates, best first, from each candidate's rank."""
    return [[n for n, rank in enumerate(ranks) if rank == place] for place in sorted(set(ranks))]


RANKS = st.lists(st.lists(st.integers(1, 4), min_size=5, max_size=5), min_size=2, max_size=4)


@given(RANKS)
def test_kendall_equals_scipy(ranks):
    a, b = ranks[:2]
    tau = kendall_tau(ranking_of(a), ranking_of(b))
    if tau is None:
        assert 1 in (len(set(a)), len(set(b)))
    else:
        assert tau == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-9)
    w = kendall_w([ranking_of(r) for r in ranks])
    if w is None:
        assert all(len(set(r)) == 1 for r in ranks)
    else:
        # Friedman's statistic, corrected for ties, is m (n - 1) W.
        friedman = stats.friedmanchisquare(*np.array(ranks).T).statistic
        assert w == pytest.approx(friedman / (len(ranks) * 4), abs=1e-9)


# Definitions, by walking over every pair of answers


def plain_alpha(examples, distance=lambda a, b: a != b):
    values = [list(e.values()) for e in examples if len(e) > 1]
    everything = [v for unit in values for v in unit]
    n = len(everything)
    observed = sum(
        distance(a, b) * 2 / (len(unit) - 1) for unit in values for a, b in combinations(unit, 2)
    )
    expected = sum(distance(a, b) * 2 for a, b in combinations(everything, 2))
    return None if not expected else 1 - (n - 1) * observed / expected


def ordinal_distance(examples):
    """From the frequencies of all pairable values: Krippendorff 2011, section D."""
    everything = [v for e in examples if len(e) > 1 for v in e.values()]

    def distance(a, b):
        between = sum(everything.count(v) for v in range(min(a, b), max(a, b) + 1))
        return (between - (everything.count(a) + everything.count(b)) / 2) ** 2

    return distance


def plain_cohen(examples, distance=lambda a, b: a != b):
    both = [(e["a"], e["b"]) for e in examples if "a" in e and "b" in e]
    if not both:
        return None
    observed = np.mean([distance(a, b) for a, b in both])
    expected = np.mean([[distance(a, b) for _, b in both] for a, _ in both])
    return None if expected == 0 else 1 - observed / expected


def plain_fleiss(examples):
    examples = [list(e.values()) for e in examples if len(e) > 1]
    if len({len(e) for e in examples}) != 1:
        return None
    everything = [v for e in examples for v in e]
    observed = np.mean([np.mean([a == b for a, b in combinations(e, 2)]) for e in examples])
    expected = sum((everything.count(c) / len(everything)) ** 2 for c in set(everything))
    return None if expected == 1 else (observed - expected) / (1 - expected)


def plain_gwet(examples, weight=lambda a, b: a == b, categories=(1, 2, 3)):
    given = [list(e.values()) for e in examples if e]
    several = [e for e in given if len(e) > 1]
    if not several:
        return None
    observed = np.mean([np.mean([weight(a, b) for a, b in permutations(e, 2)]) for e in several])
    shares = [np.mean([e.count(k) / len(e) for e in given]) for k in categories]
    q, total = len(categories), sum(weight(a, b) for a in categories for b in categories)
    expected = total / (q * (q - 1)) * sum(p * (1 - p) for p in shares)
    return (observed - expected) / (1 - expected)


ratings = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([1, 2, 3]), max_size=3), max_size=8
)


@settings(deadline=None, max_examples=100)
@given(ratings)
def test_statistics_equal_their_definitions(examples):
    def same(ours, plain):
        assert (ours.value is None) == (plain is None)
        assert plain is None or ours.value == pytest.approx(plain, abs=1e-9)

    same(krippendorff_alpha(examples), plain_alpha(examples))
    ordinal = plain_alpha(examples, ordinal_distance(examples))
    same(krippendorff_alpha(examples, distance="ordinal"), ordinal)
    square = plain_alpha(examples, lambda a, b: (a - b) ** 2)
    same(krippendorff_alpha(examples, distance="interval"), square)
    same(fleiss_kappa(examples), plain_fleiss(examples))
    same(cohen_kappa(examples, "a", "b"), plain_cohen(examples))
    linear = cohen_kappa(examples, "a", "b", weights="linear")
    same(linear, plain_cohen(examples, lambda a, b: abs(a - b)))
    same(gwet_ac(examples, categories=(1, 2, 3)), plain_gwet(examples))
    quadratic = gwet_ac(examples, weights="quadratic", categories=(1, 2, 3))
    same(quadratic, plain_gwet(examples, lambda a, b: 1 - (a - b) ** 2 / 4))


@given(TEXTS, TEXTS)
def test_edit_distance_equals_its_definition(first, second):
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    longest = max(len(first), len(second))
    assert edit_distance(first, second) == pytest.approx(row[-1] / longest if longest else 0)


SPANS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 4), st.sampled_from("xy")).map(
        lambda s: LabelledSpan(s[0], s[0] + s[1], s[2])
    ),
    max_size=4,
    unique=True,
)


@given(SPANS, SPANS)
def test_span_f1_equals_its_definition(first, second):
    exact, partial = exact_overlap(first, second), partial_overlap(first, second)
    assert exact == exact_overlap(second, first)
    assert partial == partial_overlap(second, first)
    assert exact.f1 <= partial.f1 <= 1
    if first and second:
        hits = len(set(first) & set(second))
        precision, recall = hits / len(first), hits / len(second)
        harmonic = 2 * precision * recall / (precision + recall) if hits else 0
        assert exact.f1 == pytest.approx(harmonic)
        characters = [
            {(n, s.label) for s in spans for n in range(s.start, s.end)}
            for spans in (first, second)
        ]
        assert (partial.matched > 0) == bool(characters[0] & characters[1])


# Laws


@given(st.lists(st.frozensets(st.sampled_from("abcd")), min_size=2, max_size=6))
def test_distances_are_distances(sets):
    for distance in (jaccard_distance, masi_distance):
        matrix = distances(sets, distance)
        assert np.array_equal(matrix, matrix.T)
        assert ((matrix >= 0) & (matrix <= 1)).all()
        assert ((matrix == 0) == [[a == b for b in sets] for a in sets]).all()
    assert (distances(sets, masi_distance) >= distances(sets, jaccard_distance) - 1e-12).all()


@settings(deadline=None, max_examples=50)
@given(ratings, st.randoms(use_true_random=False))
def test_names_and_order_do_not_matter(examples, rng):
    """Who answered, in which order examples came, what the values are called."""
    names = dict(zip("abc", rng.sample("abc", 3), strict=True))
    renamed = [{names[who]: f"v{value}" for who, value in e.items()} for e in examples]
    rng.shuffle(renamed)
    for statistic in (percent_agreement, fleiss_kappa, krippendorff_alpha, gwet_ac):
        ours, theirs = statistic(examples), statistic(renamed)
        assert (ours.value is None) == (theirs.value is None)
        assert ours.value is None or ours.value == pytest.approx(theirs.value, abs=1e-12)


def test_what_is_undefined_is_none():
    for statistic in (percent_agreement, fleiss_kappa, krippendorff_alpha, gwet_ac):
        for nothing in ([], [{"a": "x"}, {}], [{"a": "x"}, {"b": "y"}]):
            assert statistic(nothing).value is None
            assert statistic(nothing).examples == 0
    one_answer = [{"a": "x", "b": "x"}] * 5
    assert percent_agreement(one_answer).value == 1
    assert cohen_kappa(one_answer, "a", "b").value is None
    assert cohen_kappa(one_answer, "a", "nobody").examples == 0
    assert fleiss_kappa(one_answer).value is None
    assert krippendorff_alpha(one_answer).value is None
    assert krippendorff_alpha([{"a": 1, "b": 1}] * 5, distance="ordinal").value is None
    # Where chance could have given another answer, agreeing on one throughout is perfect.
    assert gwet_ac(one_answer).value is None
    assert gwet_ac(one_answer, categories=("x", "y")).value == 1
    uneven = [{"a": "x", "b": "y"}, {"a": "x", "b": "x", "c": "x"}]
    assert fleiss_kappa(uneven).value is None
    assert krippendorff_alpha(uneven).value is not None
    assert kendall_tau([[0, 1]], [[0], [1]]) is None
    assert kendall_tau([[0]], [[0]]) is None
    assert kendall_w([[[0, 1]], [[0, 1]]]) is None


# Intervals


def drawn(rng: random.Random, count: int, values: int, right: float, raters: str = "ab"):
    for _ in range(count):
        truth = rng.randrange(values)
        yield {who: truth if rng.random() < right else rng.randrange(values) for who in raters}


def test_intervals_cover_and_repeat():
    """Over 100 samples of a known population, most intervals hold the value."""
    rng = random.Random(1)
    statistics = {
        "percent": (percent_agreement, 0.64 + 0.36 / 4),
        "alpha": (krippendorff_alpha, 0.64),
        "ordinal": (lambda e: krippendorff_alpha(e, distance="ordinal"), 0.64),
        "gwet": (lambda e: gwet_ac(e, categories=range(4)), 0.64),
        "cohen": (lambda e: cohen_kappa(e, "a", "b"), 0.64),
    }
    covered = dict.fromkeys(statistics, 0)
    for _ in range(100):
        sample = list(drawn(rng, 80, 4, 0.8))
        for name, (statistic, truth) in statistics.items():
            found = statistic(sample)
            assert found.low <= found.value <= found.high
            covered[name] += found.low <= truth <= found.high
    assert min(covered.values()) >= 86, covered
    assert percent_agreement(sample) == percent_agreement(sample)
    assert percent_agreement(sample, seed=1) != percent_agreement(sample)


def test_an_interval_of_many_patterns_is_as_wide_as_of_few():
    """Above 2000 patterns groups of examples are resampled: the width stays within a tenth."""
    rng = random.Random(2)
    examples = list(drawn(rng, 12_000, 60, 0.7, "abcd"))
    found = percent_agreement(examples)
    shares = [np.mean([a == b for a, b in combinations(e.values(), 2)]) for e in examples]
    width = 2 * 1.96 * np.std(shares) / np.sqrt(len(shares))
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    assert found.value == pytest.approx(np.mean(shares))
    # The same mean from 22 patterns, without groups.
    few = mean_estimate({share: shares.count(share) for share in set(shares)})
    assert few.value == pytest.approx(found.value)
    assert few.high - few.low == pytest.approx(width, rel=0.1)


@given(st.integers(0, 2**32), st.sampled_from([0.02, 0.2, 1.0]))
def test_a_product_without_its_zeros_is_the_product(seed, density):
    rng = np.random.default_rng(seed)
    sums = rng.random((rng.integers(1, 20), rng.integers(1, 40)))
    sums[rng.random(sums.shape) > density] = 0
    draws = rng.integers(0, 9, (5, len(sums)))
    assert estimate.product(draws, sums) == pytest.approx(draws @ sums, abs=1e-12)


def test_change_as_published():
    """Newcombe 1998, table II (a), method 10: 56 of 70 and 48 of 80, each with Wilson's interval.

    What Zou and Donner 2008 give in general is his for proportions.
    """

    def share(count, n):
        wilson = stats.binomtest(count, n).proportion_ci(method="wilson")
        return estimate.Estimate(count / n, wilson.low, wilson.high, n)

    rise = estimate.change(share(48, 80), share(56, 70))
    assert rise.value == pytest.approx(0.2)
    assert (rise.low, rise.high) == (
        pytest.approx(0.0524, abs=5e-5),
        pytest.approx(0.3339, abs=5e-5),
    )
    assert rise.examples == 150
    nothing = estimate.Estimate(None, None, None, 0)
    assert estimate.change(nothing, rise) is None
    assert estimate.change(rise, nothing) is None


# By kind of task

TASKS = {
    "write": Task(),
    "edit": Task(kind="edit"),
    "choose": Task(kind="choose", choices=("x", "y", "z")),
    "choose_many": Task(kind="choose_many", choices=("x", "y", "z")),
    "rate": Task(kind="rate"),
    "rank": Task(kind="rank"),
    "spans": Task(kind="spans", choices=("x", "y")),
    "dialogue": Task(kind="dialogue"),
    "accept": Task(kind="accept"),
}


def some_answer(kind: str, rng: random.Random) -> str:
    word = "".join(rng.choices("abcdefgh ", k=30))
    start = rng.randrange(20)
    span = {"start": start, "end": start + 1 + rng.randrange(5), "label": rng.choice("xy")}
    found = {
        "choose": rng.choice("xyz"),
        "choose_many": rng.sample("xyz", rng.randint(0, 3)),
        "rate": str(rng.randint(1, 5)),
        "rank": [[n] for n in rng.sample(range(4), 4)],
        "spans": [span],
        "dialogue": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": word}],
        "accept": rng.choice([{"verdict": "accept"}, {"verdict": "reject", "reason": word}]),
    }.get(kind, word)
    return found if isinstance(found, str) else json.dumps(found)


@pytest.mark.parametrize("kind", TASKS)
def test_agreement_of_each_kind(kind):
    """Those who agree have 1 everywhere; those who answer at random have about 0 after chance."""
    rng = random.Random(3)
    task = TASKS[kind]
    said = [some_answer(kind, rng) for _ in range(60)]
    same = agreement(task, [dict.fromkeys("ab", text) for text in said])
    assert same.examples == 60
    for measure in same.measures:
        assert measure.estimate.value == pytest.approx(1), measure.name
    assert [(p.first, p.second) for p in same.pairs] == [("a", "b")]
    assert same.pairs[0].estimate.value == pytest.approx(1)
    random_ = agreement(task, [{"a": a, "b": some_answer(kind, rng)} for a in said])
    for measure in random_.measures:
        assert measure.estimate.value < 0.6, measure.name
        if "corrected for chance" in measure.note:
            low, high = measure.estimate.low, measure.estimate.high
            assert low - 0.1 < 0 < high + 0.1, measure.name


@pytest.mark.parametrize("kind", ["choose", "rate", "accept"])
def test_pairs_are_those_of_each_two_people(kind):
    """However many answered which examples, and answers of another kind among theirs."""
    rng = random.Random(kind)
    task = TASKS[kind]
    examples = [
        {who: some_answer(kind, rng) for who in rng.sample("dcba", rng.randrange(5))}
        for _ in range(200)
    ]
    examples[7] = dict.fromkeys("abcd", '["another kind"]')
    values = [
        {who: comparable(answer, task) for who, answer in answers.items()} for answers in examples
    ]
    if kind != "choose":
        values.pop(7)
    weights = "quadratic" if kind == "rate" else "nominal"
    pairs = agreement(task, examples).pairs
    assert [(p.first, p.second) for p in pairs] == list(combinations("abcd", 2))
    for pair in pairs:
        alone = cohen_kappa(values, pair.first, pair.second, weights=weights)
        assert pair.estimate.examples == alone.examples
        for end in ("value", "low", "high"):
            assert getattr(pair.estimate, end) == pytest.approx(getattr(alone, end), abs=1e-12)


def test_what_is_compared():
    """A reason is a remark, white space around a text is nothing, another kind's answer is none."""
    reasons = [json.dumps({"verdict": "reject", "reason": reason}) for reason in ("rude", "wrong")]
    accept = agreement(TASKS["accept"], [dict(zip("ab", reasons, strict=True))] * 3)
    assert [m.estimate.value for m in accept.measures if m.name == "Percent"] == [1]
    spaced = agreement(TASKS["choose"], [{"a": "x", "b": " x\n"}])
    assert [m.estimate.value for m in spaced.measures if m.name == "Percent"] == [1]
    for kind, broken in (("rate", "good"), ("spans", '[{"at": 1}]'), ("rank", "7"), ("accept", "")):
        found = agreement(TASKS[kind], [{"a": broken, "b": broken}])
        assert found.examples == 0
        assert all(measure.estimate.value is None for measure in found.measures)


@pytest.mark.parametrize("scale", [(0, 150), (0, 400), (0, 1_000_000)])
def test_long_scales(scale):
    """Ordinal α up to 200 ratings; above 1000 a sample; never a table of all there could be."""
    rng = random.Random(5)
    task = Task(kind="rate", scale=scale)
    ratings = [rng.randint(*scale) for _ in range(400)]
    close = [{"a": str(r), "b": str(min(r + 1, scale[1]))} for r in ratings]
    found = {m.name: m.estimate.value for m in agreement(task, close).measures}
    assert found["Krippendorff’s α, interval"] > 0.99
    assert found["Percent"] < 0.05
    assert ("Krippendorff’s α, ordinal" in found) == (scale == (0, 150))


def test_similarity_of_values():
    assert similarity(1, 5, TASKS["rate"]) == 0
    assert similarity(2, 3, TASKS["rate"]) == 0.75
    assert similarity(((0,), (1,), (2,)), ((0,), (2,), (1,)), TASKS["rank"]) == pytest.approx(2 / 3)
    assert similarity(frozenset("xy"), frozenset("x"), TASKS["choose_many"]) == 0.5
    assert similarity("kitten", "sitting", TASKS["write"]) == pytest.approx(1 - 3 / 7)


def test_a_label_of_spans_on_its_own():
    def spans(*marks):
        return json.dumps([{"start": s, "end": e, "label": label} for s, e, label in marks])

    one = {"a": spans((0, 3, "x"), (5, 8, "y")), "b": spans((0, 3, "x"), (6, 9, "y"))}
    found = agreement(TASKS["spans"], [one])
    values = {measure.name: measure.estimate.value for measure in found.measures}
    assert values == {
        "F1, exact": 0.5,
        "F1, overlapping": 1,
        "F1, exact: x": 1,
        "F1, exact: y": 0,
    }
    nothing = agreement(TASKS["spans"], [{"a": "[]", "b": "[]"}])
    assert all(measure.estimate.value is None for measure in nothing.measures)


def test_long_streams_are_sampled():
    """A generator of more examples than are compared: the sample is told, and fair."""
    rng = random.Random(4)
    count = 3 * SAMPLE
    # The first third agrees, the others differ: a prefix would say 1.
    stream = (
        {"a": "same", "b": "same" if n < SAMPLE else f"other {rng.random()}"} for n in range(count)
    )
    found = agreement(TASKS["write"], stream)
    assert found.examples == count
    percent = {m.name: m.estimate for m in found.measures}["Percent"]
    assert percent.examples == SAMPLE
    assert percent.low < 1 / 3 < percent.high
