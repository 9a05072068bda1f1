"""A candidate beside its base on one set of items: figures, test and verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from burnish.evaluate.statistics import (
    Interval,
    Scores,
    bootstrap_interval,
    fewest_differing,
    holm,
    mcnemar,
    minimum_detectable_effect,
    newcombe_interval,
    sign_flip_test,
    wilson_interval,
)

Verdict = Literal["better", "worse", "not shown"]

ALL_ITEMS = "all items"

McNEMAR = "McNemar's exact test"
SIGN_FLIP = "paired sign-flip permutation test"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its confidence interval at level 1 - alpha."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rules:
    """How the runs of one report are compared; the same for every slice."""

    alpha: float
    resamples: int
    seed: int
    binary: bool
    """Every score is 0 or 1: McNemar and closed-form intervals in place of resampling."""

    @property
    def test(self) -> str:
        """The name of the test."""
        return McNEMAR if self.binary else SIGN_FLIP


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one set of items says. Rates and differences are between 0 and 1 (difference: -1)."""

    name: str
    """`all items`, or the slice: `scope = in_scope`."""
    n: int
    """Items scored for both models; nothing below counts any other."""
    unscored: int
    wins: int
    """Items on which the candidate scores higher."""
    ties: int
    losses: int
    base: Estimate | None
    """None where no item is scored, like every figure below."""
    candidate: Estimate | None
    difference: Estimate | None
    """Candidate minus base, paired."""
    p: float | None
    mid_p: float | None
    """McNemar's mid-p, for 0/1 scores; told beside p and decides nothing."""
    holm_p: float | None
    """P adjusted for the number of slices; equal to p for all items."""
    minimum_detectable_effect: float | None
    """The smallest true difference this set shows with a chance of 80 %; None: none at all."""
    verdict: Verdict
    reason: str


def compare_slices(
    base: Sequence[float | None],
    candidate: Sequence[float | None],
    slices: Mapping[str, Sequence[int]],
    rules: Rules,
) -> tuple[Comparison, list[Comparison]]:
    """All items, and each slice (name -> positions of its items).

    All items are one hypothesis, tested at alpha. The slices are a second question, "where?", and
    share an alpha of their own by Holm's method.
    """
    overall = compare(ALL_ITEMS, base, candidate, rules)
    parts = [
        compare(name, [base[i] for i in at], [candidate[i] for i in at], rules, len(slices))
        for name, at in slices.items()
    ]
    tested = [part for part in parts if part.p is not None]
    adjusted = holm([part.p for part in tested if part.p is not None])
    by_name = {part.name: p for part, p in zip(tested, adjusted, strict=True)}
    return overall, [_judged(part, by_name.get(part.name), rules) for part in parts]


def compare(
    name: str,
    base: Sequence[float | None],
    candidate: Sequence[float | None],
    rules: Rules,
    tests: int = 1,
) -> Comparison:
    """Compare two models' scores of the same items, in the same order.

    `tests` is how many comparisons share alpha; Holm's strictest step bounds what each can show.
    """
    differences, b, c = _paired(base, candidate)
    n = len(differences)
    wins, losses = int((differences > 0).sum()), int((differences < 0).sum())
    empty = Comparison(
        name, n, len(base) - n, wins, n - wins - losses, losses,
        None, None, None, None, None, None, None, "not shown", "no item of it is scored",
    )  # fmt: skip
    if n == 0:
        return empty
    if rules.binary:
        p, mid_p = mcnemar(wins, losses)
        both = int((b * c).sum())
        interval = newcombe_interval(both, wins, losses, n - both - wins - losses, rules.alpha)
    else:
        p, mid_p = sign_flip_test(differences, rules.resamples, rules.seed), None
        interval = bootstrap_interval(differences, rules.alpha, rules.resamples, rules.seed)
    measured = replace(
        empty,
        base=Estimate(float(b.mean()), *_interval(b, rules)),
        candidate=Estimate(float(c.mean()), *_interval(c, rules)),
        difference=Estimate(float(differences.mean()), *interval),
        p=p,
        mid_p=mid_p,
        minimum_detectable_effect=_detectable_effect(differences, rules, tests),
    )
    return _judged(measured, p, rules)


def _paired(
    base: Sequence[float | None], candidate: Sequence[float | None]
) -> tuple[Scores, Scores, Scores]:
    """Differences and both models' scores on the items that both have scored, each (n,)."""
    pairs = zip(base, candidate, strict=True)
    scored = [(b, c) for b, c in pairs if b is not None and c is not None]
    table = np.array(scored, dtype=np.float64).reshape(-1, 2)
    return table[:, 1] - table[:, 0], table[:, 0], table[:, 1]


def _interval(scores: Scores, rules: Rules) -> Interval:
    if rules.binary:
        return wilson_interval(int(scores.sum()), len(scores), rules.alpha)
    return bootstrap_interval(scores, rules.alpha, rules.resamples, rules.seed)


def _detectable_effect(differences: Scores, rules: Rules, tests: int) -> float | None:
    """The minimum detectable effect, or None where n items cannot show any.

    The formula takes the variance it sees: with hardly an item that differs it would promise more
    than the test can give, so for 0/1 scores at least the fewest that must differ are asked for.
    """
    n, alpha = len(differences), rules.alpha / tests
    fewest = fewest_differing(alpha)
    if n < fewest:
        return None
    effect = minimum_detectable_effect(differences, alpha)
    effect = max(effect, fewest / n) if rules.binary else effect
    return effect if 0 < effect <= 1 else None


def _judged(comparison: Comparison, holm_p: float | None, rules: Rules) -> Comparison:
    """The comparison with its adjusted p and the verdict that follows from it."""
    if comparison.difference is None or holm_p is None:
        return comparison
    difference = comparison.difference.mean
    verdict: Verdict = "not shown"
    if holm_p < rules.alpha:
        verdict = "better" if difference > 0 else "worse"
    judged = replace(comparison, holm_p=holm_p, verdict=verdict)
    return replace(judged, reason=_reason(judged, rules))


def _reason(comparison: Comparison, rules: Rules) -> str:
    """Why the verdict is what it is, in one clause."""
    p, holm_p = comparison.p, comparison.holm_p
    assert p is not None
    assert holm_p is not None
    differing, fewest = comparison.wins + comparison.losses, fewest_differing(rules.alpha)
    after_holm = "" if holm_p == p else " after Holm's correction"
    if comparison.verdict != "not shown":
        return f"{p_text(holm_p)}{after_holm}, below {rules.alpha:g}"
    if differing == 0:
        return "both models score the same on every item"
    if differing < fewest:
        return (
            f"the models differ on {differing} of {comparison.n} items, and fewer than {fewest} "
            f"cannot give p < {rules.alpha:g}"
        )
    if p < rules.alpha:
        return f"{p_text(p)} alone, but {p_text(holm_p)}{after_holm}, not below {rules.alpha:g}"
    return f"{p_text(holm_p)}{after_holm}, not below {rules.alpha:g}"


def p_text(p: float) -> str:
    """`p = 0.031`, or `p < 0.0001`."""
    if p < 1e-4:
        return "p < 0.0001"
    return f"p = {p:.4f}" if p < 0.01 else f"p = {p:.3f}"
