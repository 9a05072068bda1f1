"""Statistics of paired scores: pytest tests/test_statistics.py

Equal to scipy or to published examples; where an interval or a test only holds on average, it is
simulated, seeded, and the tolerance is a few standard errors of the simulation.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from burnish.evaluate.statistics import (
    bootstrap_interval,
    fewest_differing,
    holm,
    mcnemar,
    minimum_detectable_effect,
    newcombe_interval,
    sign_flip_test,
    wilson_interval,
)

counts = st.integers(0, 60)


@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.01, 0.05, 0.1]))
def test_wilson_equals_scipy(n: int, share: float, alpha: float) -> None:
    k = round(share * n)
    theirs = scipy.stats.binomtest(k, n).proportion_ci(1 - alpha, method="wilson")
    assert wilson_interval(k, n, alpha) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(counts, counts)
def test_mcnemar_equals_scipys_binomial_test(wins: int, losses: int) -> None:
    exact, mid_p = mcnemar(wins, losses)
    if wins + losses == 0:
        assert (exact, mid_p) == (1, 1)
        return
    assert exact == pytest.approx(scipy.stats.binomtest(wins, wins + losses).pvalue, abs=1e-9)
    pmf = scipy.stats.binom.pmf(wins, wins + losses, 0.5)
    half = 0.5 if wins == losses else 1.0  # both tails hold the same table
    assert mid_p == pytest.approx(exact - half * pmf, abs=1e-9)


def test_mcnemar_worked_by_hand_and_published() -> None:
    # Bentur 2009 in Fagerland et al. 2013 (BMC Med. Res. Methodol. 13:91): 1 and 7 differ.
    # Two-sided: 2 · (C(8,0) + C(8,1)) / 2^8 = 18/256; mid-p: (18 - 8)/256.
    assert mcnemar(1, 7) == (18 / 256, 10 / 256)
    # Cavo 2012 in Fagerland's book, chapter 8: 6 and 16 differ, mid-p 0.034690.
    assert mcnemar(6, 16).mid_p == pytest.approx(0.034690, abs=5e-7)


def test_mcnemar_does_not_underflow() -> None:
    p = mcnemar(2300, 1700).p
    assert 0 < p == pytest.approx(scipy.stats.binomtest(2300, 4000).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Fagerland et al. 2014 (Stat. Med. 33:2850), published to three and four digits.
        ((1, 1, 7, 12), -0.507, -0.026),
        ((59, 6, 16, 80), -0.1186, -0.0046),
    ],
)
def test_newcombe_equals_published(
    table: tuple[int, int, int, int], low: float, high: float
) -> None:
    assert newcombe_interval(*table) == pytest.approx((low, high), abs=5e-4)


@given(counts, counts, counts, counts)
def test_newcombe_flips_holds_the_difference_and_has_a_width(
    both: int, wins: int, losses: int, neither: int
) -> None:
    n = both + wins + losses + neither
    if n == 0:
        return
    low, high = newcombe_interval(both, wins, losses, neither)
    assert newcombe_interval(both, losses, wins, neither) == pytest.approx((-high, -low), abs=1e-12)
    assert low - 1e-12 <= (wins - losses) / n <= high + 1e-12
    assert -1 - 1e-12 <= low < high <= 1 + 1e-12


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=12))
def test_sign_flips_equal_scipy_where_all_are_tried(values: list[int]) -> None:
    differences = np.array(values) / 4
    theirs = scipy.stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=10_000
    )
    assert sign_flip_test(differences) == pytest.approx(theirs.pvalue, abs=1e-9)


def test_sign_flips_of_0_and_1_are_mcnemar() -> None:
    differences = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 30)
    assert sign_flip_test(differences) == pytest.approx(mcnemar(9, 2).p, abs=1e-12)


def test_sign_flips_drawn_agree_with_scipy_within_their_error() -> None:
    differences = np.random.default_rng(1).normal(0.12, 0.5, 60)
    ours = sign_flip_test(differences, resamples=20_000)
    theirs = scipy.stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    ).pvalue
    assert ours == pytest.approx(theirs, abs=5 * math.sqrt(2 * theirs * (1 - theirs) / 20_000))
    assert sign_flip_test(np.ones(100), resamples=1000) == 1 / 1001  # never 0


def test_bootstrap_equals_scipy_within_its_error() -> None:
    values = np.random.default_rng(3).beta(2, 3, 80)
    ours = bootstrap_interval(values, resamples=40_000)
    theirs = scipy.stats.bootstrap(
        (values,),
        np.mean,
        method="percentile",
        n_resamples=40_000,
        rng=np.random.default_rng(4),
    ).confidence_interval
    # A 2.5 % quantile of R normal draws has a standard error of 2.7 standard deviations / √R.
    error = 2.7 * values.std() / math.sqrt(80 * 40_000)
    assert ours == pytest.approx(tuple(theirs), abs=6 * error)


def test_bootstrap_is_seeded_and_bounded_in_memory() -> None:
    values = np.random.default_rng(5).random(5000)  # 1000 × 5000 is more than one chunk
    assert bootstrap_interval(values, resamples=1000) == bootstrap_interval(values, resamples=1000)
    flipped = bootstrap_interval(-values, resamples=1000)
    low, high = bootstrap_interval(values, resamples=1000)
    assert flipped == pytest.approx((-high, -low), abs=1e-12)


def test_holm_equals_published() -> None:
    # R: p.adjust(c(.01, .02, .03, .04, .05), "holm"), and the four p-values of Holm's procedure
    # in Wikipedia's worked example.
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_only_raises_p_values_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert all(adjusted[i] <= adjusted[j] for i, j in pairwise(order))


def test_minimum_detectable_effect_solves_millers_sample_size() -> None:
    # n = (z_{α/2} + z_β)² · Var / δ²: with Var = 1/9 and δ = 0.03 it asks for 969 items.
    z = scipy.stats.norm.ppf(0.975) + scipy.stats.norm.ppf(0.8)
    assert round(z**2 / 9 / 0.03**2) == 969
    values = np.random.default_rng(6).normal(size=969)
    values = (values - values.mean()) / values.std(ddof=1) / 3
    assert minimum_detectable_effect(values) == pytest.approx(0.03, abs=1e-5)


def test_minimum_detectable_effect_is_shown_four_times_in_five() -> None:
    generator, n, runs = np.random.default_rng(7), 200, 500
    effect = minimum_detectable_effect(generator.choice([-1.0, 0, 1], 100_000, p=[0.1, 0.8, 0.1]))
    effect *= math.sqrt(100_000 / n)
    shown = 0
    for _ in range(runs):
        d = generator.choice([-1, 0, 1], n, p=[0.1 - effect / 2, 0.8, 0.1 + effect / 2])
        shown += mcnemar(int((d > 0).sum()), int((d < 0).sum())).p < 0.05
    # McNemar's exact test is a little conservative, so a little under 0.8.
    assert 0.7 < shown / runs < 0.85


@pytest.mark.parametrize("alpha", [0.05, 0.0625, 0.01])
def test_fewest_differing_is_the_border(alpha: float) -> None:
    fewest = fewest_differing(alpha)
    assert mcnemar(fewest, 0).p < alpha <= mcnemar(fewest - 1, 0).p


def test_planted_null_is_found_no_more_often_than_alpha() -> None:
    generator, runs = np.random.default_rng(8), 400
    binary = graded = 0
    for _ in range(runs):
        both = generator.random((2, 60)) < 0.6
        wins, losses = int((both[1] & ~both[0]).sum()), int((both[0] & ~both[1]).sum())
        binary += mcnemar(wins, losses).p < 0.05
        graded += sign_flip_test(generator.normal(size=40) / 3, resamples=1000) < 0.05
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert binary / runs <= limit
    assert graded / runs <= limit


@pytest.mark.parametrize(("n", "wins", "losses"), [(40, 0.15, 0.05), (100, 0.3, 0.1), (25, 0, 0.2)])
def test_newcombes_interval_covers_the_truth(n: int, wins: float, losses: float) -> None:
    generator, runs = np.random.default_rng(9), 3000
    tables = generator.multinomial(n, [0.4, wins, losses, 0.6 - wins - losses], runs)
    covered = 0
    for both, win, loss, neither in tables:
        low, high = newcombe_interval(int(both), int(win), int(loss), int(neither))
        covered += low <= wins - losses <= high
    assert 0.93 < covered / runs < 0.99


def test_the_bootstrap_interval_covers_the_truth() -> None:
    generator, runs = np.random.default_rng(10), 400
    covered = 0
    for run in range(runs):
        low, high = bootstrap_interval(generator.beta(2, 1, 60) - 0.5, resamples=1000, seed=run)
        covered += low <= 2 / 3 - 0.5 <= high
    # Percentile intervals of few items are a little short: 0.94 at n = 60.
    assert 0.91 < covered / runs < 0.98
