"""The report on disk: one page to read, one JSON object to compute with, every score as a line.

The page is one file that asks nothing of any network: style and plots are inline, there is no
script, and its content security policy forbids both. Texts of models and of people are escaped.
Nothing in it depends on the time or the machine, so the same results are the same artefact.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from burnish.evaluate.comparison import Comparison, Estimate, p_text
from burnish.evaluate.items import Item
from burnish.evaluate.plots import Kind, Mark, Row, interval_plot, share_bar
from burnish.evaluate.results import Results, level, percent, points
from burnish.hashing import canonical_json
from burnish.types import Message, Score

REPORT_JSON = "report.json"

# A longer text on the page helps nobody; scores.jsonl has it whole.
_SHOWN_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class Pair:
    """An item with both models' results on it."""

    item: Item
    base: Score
    candidate: Score

    @property
    def difference(self) -> float | None:
        """Candidate minus base; None unless both are scored."""
        if self.base.value is None or self.candidate.value is None:
            return None
        return self.candidate.value - self.base.value


def paired(items: Sequence[Item], base: Sequence[Score], candidate: Sequence[Score]) -> list[Pair]:
    """Both models' scores by item; they must be of the same items in the same order."""
    pairs = [Pair(*row) for row in zip(items, base, candidate, strict=True)]
    assert all(p.item.id == p.base.item_id == p.candidate.item_id for p in pairs)
    return pairs


def write_report(folder: Path, results: Results, pairs: Sequence[Pair], shown: int) -> None:
    """Write report.html, report.json and scores.jsonl into `folder`.

    `shown` wins and as many losses are printed on the page, largest difference first and then by
    id: ids are hashes, so nobody picked them.
    """
    # A lone surrogate may stand in text that came as JSON; as \udc00 it is valid JSON again.
    with (folder / "scores.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(_line(pair) for pair in pairs)
    text = json.dumps(results.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / REPORT_JSON).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    (folder / "report.html").write_text(
        _page(results, pairs, shown), encoding="utf-8", errors="replace"
    )


def _line(pair: Pair) -> str:
    record = {
        "item_id": pair.item.id,
        **pair.item.prompt.to_json(),
        "slices": list(pair.item.slices),
        "leaked": pair.item.leaked,
        "expected": pair.item.expected,
        "base_answer": pair.base.answer,
        "base_score": pair.base.value,
        "candidate_answer": pair.candidate.answer,
        "candidate_score": pair.candidate.value,
    }
    return canonical_json(record) + "\n"


def _page(results: Results, pairs: Sequence[Pair], shown: int) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("burnish", "evaluate"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "p_number": _p_number,
        "cut": _cut,
        "tied": _tied,
    }
    ranked = sorted(pairs, key=lambda p: (-abs(p.difference or 0.0), p.item.id))
    wins = [p for p in ranked if (p.difference or 0.0) > 0]
    losses = [p for p in ranked if (p.difference or 0.0) < 0]
    system = _shared_system(pairs)
    return environment.get_template("report.html.jinja").render(
        results=results,
        rows=(results.overall, *results.slices),
        level=level(results.alpha),
        css=Markup((Path(__file__).parent / "report.css").read_text(encoding="utf-8")),
        plots=_plots(results),
        system=system,
        groups=(("Losses", "base", losses[:shown], len(losses)),
                ("Wins", "candidate", wins[:shown], len(wins))),
        turns=lambda pair: _turns(pair, system),
        leaked=[p for p in pairs if p.item.leaked][:shown],
    )  # fmt: skip


def _plots(results: Results) -> dict[str, Markup]:
    """The plots by name; empty where no item is scored."""
    compared = [c for c in (results.overall, *results.slices) if c.difference is not None]
    if results.overall.difference is None:
        return {}
    differences = [c.difference for c in compared if c.difference is not None]
    low, high = min(d.low for d in differences), max(d.high for d in differences)
    # Both sides of 0 are always there to see, be it as a sliver.
    reach = max(abs(low), abs(high)) or 0.1
    low, high = min(low, -0.05 * reach), max(high, 0.05 * reach)
    overall = results.overall
    return {
        "rates": interval_plot(
            "Score of base and candidate", [_rates(c) for c in compared], (0.0, 1.0), percent_tick
        ),
        "differences": interval_plot(
            "Difference, candidate minus base",
            [_difference(c) for c in compared],
            (low, high),
            points_tick,
        ),
        "outcomes": share_bar(
            "Items by outcome",
            [
                ("win", "candidate better", overall.wins),
                ("tie", "no difference", overall.ties),
                ("loss", "base better", overall.losses),
            ],
        ),
    }


def _rates(comparison: Comparison) -> Row:
    base, candidate = comparison.base, comparison.candidate
    assert base is not None
    assert candidate is not None
    note = f"{percent(base.mean)} → {percent(candidate.mean)}"
    marks = (_mark("base", base), _mark("candidate", candidate))
    return Row(_row_label(comparison), note, marks)


def _difference(comparison: Comparison) -> Row:
    difference = comparison.difference
    assert difference is not None
    kind: Kind = "unshown" if comparison.verdict == "not shown" else comparison.verdict
    note = f"{points(difference.mean)} · {comparison.verdict}"
    return Row(_row_label(comparison), note, (_mark(kind, difference),))


def _row_label(comparison: Comparison) -> str:
    """Short enough for a phone; the table has the whole name."""
    name = comparison.name
    return f"{name if len(name) <= 26 else name[:25] + '…'} ({comparison.n})"


def _mark(kind: Kind, estimate: Estimate) -> Mark:
    return Mark(kind, estimate.mean, estimate.low, estimate.high)


def percent_tick(value: float) -> str:
    """A tick's text on an axis of rates."""
    return f"{100 * value:g}"


def points_tick(value: float) -> str:
    """A tick's text on an axis of differences."""
    return f"{100 * value:+g}".replace("-", "−") if value else "0"


def _shared_system(pairs: Sequence[Pair]) -> str | None:
    """The system turn that every item opens with, told once on the page instead of on each."""
    firsts = {pair.item.prompt.messages[:1] for pair in pairs}
    if len(firsts) == 1:
        first = firsts.pop()
        if first and first[0].role == "system":
            return first[0].content
    return None


def _turns(pair: Pair, system: str | None) -> tuple[Message, ...]:
    messages = pair.item.prompt.messages
    return messages if system is None else messages[1:]


def _p_number(p: float) -> str:
    return p_text(p).removeprefix("p ").removeprefix("= ")


def _tied(text: str) -> str:
    """With no line break between a figure and its sign."""
    return text.replace(" %", "\u00a0%").replace("p = ", "p\u00a0=\u00a0")


def _cut(text: str) -> str:
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    return f"{text[:_SHOWN_CHARACTERS]} […]"
