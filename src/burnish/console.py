"""What commands print for people: tables, coloured tokens, figures with units. No rules here."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from burnish.units import duration, size

if TYPE_CHECKING:
    from burnish.label.agreement import Agreement, Estimate
    from burnish.nn.preflight import Preflight

# On a pipe rich would fold at 80 columns and cut identifiers; logs have no width.
_WIDTH = shutil.get_terminal_size((120, 40)).columns
out = Console(width=_WIDTH, soft_wrap=True, highlight=False)


def print_facts(title: str, facts: dict[str, Any]) -> None:
    """A two-column table of names and values."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value if isinstance(value, Text) else str(value))
    out.print(table)


def reasons(counts: Mapping[str, int]) -> str:
    """What was not taken, a reason a line: `12 × unknown status`."""
    return "\n".join(f"{count:,} × {reason}" for reason, count in counts.items())


def print_rows(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A table with a header; numbers are set to the right."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2), header_style="bold")
    for n, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[n], (int, float)) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row))
    out.print(table)


def print_preflight(table: Preflight, *, price_per_hour: float | None, watts: float | None) -> None:
    """The preflight of a run: counts, samples with trained tokens in colour, cost."""
    for number, runs in enumerate(table.samples, 1):
        out.print(Text(f"example {number}  ", style="bold"), _coloured(runs), sep="\n")
    share = table.supervised_tokens / table.tokens
    saved = 1 - 1 / table.sharing_factor
    trained = table.trainable_parameters / table.parameters
    print_facts(
        "preflight",
        {
            "examples": f"{table.examples:,} to train on, {table.refused:,} refused, "
            f"{table.truncated:,} truncated",
            "tokens": f"{table.tokens:,} an epoch, {table.supervised_tokens:,} supervised "
            f"({share:.0%})",
            "template": table.template,
            "stop": ", ".join(f"{t} trained in {n:,} turns" for t, n in table.stops.items()),
            "sharing": f"{table.sharing_factor:.2f} tokens per token computed ({saved:.0%} saved)",
            "trained": f"{table.trainable_parameters:,} of {table.parameters:,} parameters "
            f"({trained:.2%})",
            "memory": f"{size(table.memory_bytes)} at the worst batch "
            f"({table.worst_tokens:,} tokens), which was run",
            "time": f"{duration(table.seconds)} for {table.steps:,} steps, estimated from that "
            "batch",
            "gradient": f"a batch's differs from its examples' by {table.gradient_difference:.1e}",
            **({"trunk": table.trunk} if table.trunk is not None else {}),
            **({"note": "\n".join(table.notes)} if table.notes else {}),
            "energy": _energy(table.seconds, watts),
            "cost": _cost(table.seconds, price_per_hour),
        },
    )


def _coloured(runs: tuple[tuple[str, float], ...]) -> Text:
    """Supervised text in green, the rest dim. Without colour the supervised text has ⟦brackets⟧."""
    text = Text()
    for whole, weight in runs:
        piece = _shortened(whole)
        if not weight:
            text.append(piece, style="dim")
        elif out.color_system:
            text.append(piece, style="black on green")
        else:
            text.append(f"⟦{piece}⟧")
    return text


def _shortened(text: str, most: int = 400) -> str:
    """`text` with its middle left out when it is long; both ends show how a turn is bordered."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} …{len(text) - most:,} characters… {text[-half:]}"


def _energy(seconds: float, watts: float | None) -> str:
    if watts is None:
        return "unknown; give --watts W for an estimate"
    return f"{seconds / 3600 * watts / 1000:.4f} kWh at {watts:g} W"


def _cost(seconds: float, price_per_hour: float | None) -> str:
    if price_per_hour is None:
        return "unknown; give --price-per-hour P for an estimate"
    return f"{seconds / 3600 * price_per_hour:.2f} at {price_per_hour:g} an hour"


def agreement_facts(agreement: Agreement) -> dict[str, str]:
    """Each statistic with its interval, for `print_facts`."""
    facts = {measure.name: _estimate(measure.estimate) for measure in agreement.measures}
    for pair in agreement.pairs:
        name = f"{agreement.pair_measure}, {pair.first} and {pair.second}"
        facts[name] = _estimate(pair.estimate)
    return facts


def share(estimate: Estimate) -> str | None:
    """A mean of likeness and what it rests on; None where there is nothing to show."""
    if estimate.value is None:
        return None
    return f"{estimate.value:.1%} of {estimate.examples:,}"


def _estimate(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"undefined on {estimate.examples:,} examples"
    text = f"{estimate.value:.3f}"
    if estimate.low is not None and estimate.high is not None:
        text += f" (95 % interval {estimate.low:.3f} to {estimate.high:.3f})"
    return f"{text} on {estimate.examples:,} examples"
