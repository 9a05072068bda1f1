"""Everything a report says, as one value: the page and the JSON are two faces of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from burnish.evaluate.answerer import Answerer
from burnish.evaluate.comparison import Comparison, Rules, Verdict
from burnish.evaluate.items import UNSEEN, Item
from burnish.evaluate.scorers import ChosenScorer
from burnish.evaluate.statistics import POWER


@dataclass(frozen=True, slots=True)
class Setup:
    """How the comparison was made."""

    scorer: ChosenScorer
    rules: Rules
    sources: Mapping[str, int]
    """Where the items come from, and how many."""
    base: Answerer
    candidate: Answerer
    data_id: str | None
    """The snapshot the items come from."""

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of what the report is made from."""
        ids = (self.base.identity, self.candidate.identity, self.data_id)
        return tuple(dict.fromkeys(id for id in ids if id is not None))


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models, as the report names it."""

    name: str
    identity: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """A finished comparison."""

    headline: str
    """The verdict and its figures in one line."""
    verdict: Verdict
    figures: str
    """Both rates, the difference with its interval, the test, and why the verdict is what it is."""
    clean: bool | None
    """No item is in the training data; None where that was not checked."""
    caveats: tuple[str, ...]
    """What a careful reader must know before believing the headline."""
    score: str
    score_reason: str
    test: str
    alpha: float
    resamples: int | None
    """None where nothing was resampled."""
    seed: int
    power: float
    items: int
    leaked: tuple[str, ...]
    """Ids of the items whose prompt is in the training data."""
    sources: Mapping[str, int]
    """Where the items come from, and how many."""
    base: Side
    candidate: Side
    overall: Comparison
    slices: tuple[Comparison, ...]
    parents: tuple[str, ...]
    """Ids of both models and of the snapshot the items come from."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: what report.json reads back as."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), allow_nan=False))
        return plain


def summarise(
    setup: Setup,
    items: Sequence[Item],
    overall: Comparison,
    slices: Sequence[Comparison],
) -> Results:
    """Put the comparisons into words."""
    figures = _figures(setup.scorer.name, overall, setup.rules)
    leaked = tuple(item.id for item in items if item.leaked)
    checked = items[0].leaked is not None
    return Results(
        headline=f"{overall.verdict.capitalize()}{', but not clean' if leaked else ''}: {figures}",
        verdict=overall.verdict,
        figures=figures,
        clean=not leaked if checked else None,
        caveats=tuple(_caveats(setup, items, overall, slices)),
        score=setup.scorer.name,
        score_reason=setup.scorer.reason,
        test=setup.rules.test,
        alpha=setup.rules.alpha,
        resamples=None if setup.rules.binary else setup.rules.resamples,
        seed=setup.rules.seed,
        power=POWER,
        items=len(items),
        leaked=leaked,
        sources=dict(setup.sources),
        base=_side(setup.base),
        candidate=_side(setup.candidate),
        overall=overall,
        slices=tuple(slices),
        parents=setup.parents,
    )


def _figures(score: str, comparison: Comparison, rules: Rules) -> str:
    base, candidate, difference = comparison.base, comparison.candidate, comparison.difference
    if base is None or candidate is None or difference is None:
        return f"{comparison.reason}."
    text = (
        f"{score} {percent(base.mean)} → {percent(candidate.mean)} on {comparison.n} items, "
        f"{points(difference.mean)} points ({level(rules.alpha)} interval {points(difference.low)} "
        f"to {points(difference.high)}; {rules.test}: {comparison.reason})."
    )
    return f"{text} {_could_show(comparison)}" if comparison.verdict == "not shown" else text


def _could_show(comparison: Comparison) -> str:
    effect = comparison.minimum_detectable_effect
    if effect is None:
        return f"No difference could be shown with these {comparison.n} items."
    return f"The smallest difference these items could show is {100 * effect:.1f} points."


def _caveats(
    setup: Setup, items: Sequence[Item], overall: Comparison, slices: Sequence[Comparison]
) -> Iterator[str]:
    leaked = sum(item.leaked is True for item in items)
    if leaked:
        yield (
            f"Not clean: {leaked} of {len(items)} items have their prompt in the training data. "
            + _without_leaked(slices)
        )
    elif items[0].leaked is None:
        yield "Not checked: whether items are in the training data (it was not given)."
    if overall.unscored:
        yield (
            f"{overall.unscored} of {len(items)} items are unscored: their reference is missing or "
            f"holds nothing that {setup.scorer.name!r} can compare. They count nowhere."
        )
    repeats = sum(item.repeats for item in items)
    if repeats:
        yield (
            f"{repeats} of {len(items)} items repeat another item's prompt, so the items are not "
            "independent and the intervals are too narrow."
        )
    if setup.base.identity == setup.candidate.identity:
        yield "Candidate and base are the same model."
    yield from _asked_differently(setup)


def _without_leaked(slices: Sequence[Comparison]) -> str:
    rest = next((s for s in slices if s.name == UNSEEN), None)
    if rest is None or rest.difference is None:
        return "No scored item is left without them."
    return f"Without them: {rest.verdict}, {points(rest.difference.mean)} points on {rest.n} items."


def _asked_differently(setup: Setup) -> Iterator[str]:
    base, candidate = setup.base.settings, setup.candidate.settings
    differing = [
        f"{key} is {base.get(key, 'unknown')} for the base and {candidate.get(key, 'unknown')} for "
        "the candidate"
        for key in sorted(base.keys() | candidate.keys())
        if base.get(key) != candidate.get(key)
    ]
    if differing:
        yield f"The models do not answer under the same settings: {'; '.join(differing)}."


def _side(answerer: Answerer) -> Side:
    return Side(answerer.name, answerer.identity, dict(answerer.settings))


def percent(rate: float) -> str:
    """A rate as `91.3 %`."""
    return f"{100 * rate:.1f} %"


def points(difference: float) -> str:
    """A difference of rates in percentage points, always signed: `+6.2`, `−0.4`, `0.0`."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def level(alpha: float) -> str:
    """The level of an interval: `95 %`."""
    return f"{100 * (1 - alpha):g} %"
