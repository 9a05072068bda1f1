"""Whether loss curves agree, and the table of ratios."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from speed_rows import ROWS, Work
from speed_run import Measurement

# Largest relative difference of two losses at any step. bf16 keeps 8 bits of mantissa, and each
# side rounds in other places.
TOLERANCES = {"fp32": 1e-3, "bf16": 3e-2}

PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "unsloth")


@dataclass(frozen=True)
class Line:
    """One side of one row, over all rounds in which it and the row's first side were measured."""

    row: str
    side: str
    setting: str
    tokens_per_second: float
    """Median over rounds."""
    ratio: float | None
    """Tokens/s of the row's first side ÷ this side's, each round for itself: their median."""
    ratio_range: tuple[float, float] | None
    loaded_bytes: int
    peak_bytes: int
    """The highest of all rounds."""
    memory_ratio: float | None
    """This side's peak ÷ that of the row's first side."""
    loss_difference: float | None
    """The largest relative difference from the first side's losses at any step of any round."""
    flops_utilisation: float | None


def loss_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest relative difference of two loss curves at any step; infinite if one is longer."""
    if len(ours) != len(theirs):
        return math.inf
    return max(abs(a - b) / abs(a) for a, b in zip(ours, theirs, strict=True))


def disagreement(ours: Measurement, theirs: Measurement, precision: str) -> str | None:
    """What is wrong when two loss curves are not the same run's, or None."""
    if len(ours.losses) != len(theirs.losses):
        return f"{theirs.side}: {len(theirs.losses)} losses, but {len(ours.losses)} steps"
    tolerance = TOLERANCES[precision]
    for step, (a, b) in enumerate(zip(ours.losses, theirs.losses, strict=True), 1):
        # Written so that a NaN is a disagreement too.
        if not abs(a - b) <= tolerance * abs(a):
            return (
                f"{theirs.side} ({theirs.setting}): loss {b:.4f} at step {step}, but {ours.side} "
                f"has {a:.4f}, more than {tolerance:.1%} apart"
            )
    return None


def line_of(work: Work, side: str, rounds: Sequence[Mapping[str, Measurement]]) -> Line | None:
    """Summarise one side of a row; None where it was never measured."""
    first = ROWS[work.row].sides[0]
    own = [r[side] for r in rounds if side in r and r[side].failure is None]
    if not own:
        return None
    pairs = [(r[first], r[side]) for r in rounds if {first, side} <= r.keys() and r[side] in own]
    pairs = [(a, b) for a, b in pairs if a.failure is None]
    ratios = [a.tokens_per_second / b.tokens_per_second for a, b in pairs]
    other = side != first and bool(pairs)
    peak = max(m.peak_bytes for m in own)
    utilisation = [m.facts["flops_utilisation"] for m in own if "flops_utilisation" in m.facts]
    return Line(
        row=work.row,
        side=side,
        setting=own[0].setting,
        tokens_per_second=median(m.tokens_per_second for m in own),
        ratio=median(ratios) if other else None,
        ratio_range=(min(ratios), max(ratios)) if other else None,
        loaded_bytes=max(m.loaded_bytes for m in own),
        peak_bytes=peak,
        memory_ratio=peak / max(a.peak_bytes for a, _ in pairs) if other else None,
        loss_difference=max(loss_difference(a.losses, b.losses) for a, b in pairs)
        if other
        else None,
        flops_utilisation=median(utilisation) if utilisation else None,
    )


def markdown(lines: Iterable[Line]) -> str:
    """The table. × is how many times this side's speed the row's first side reaches."""
    table = [
        "| work | side | setting | tokens/s | × (range) | loaded GB | peak GB | peak ÷ ours "
        "| losses differ | FLOPs used |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        cells = [
            f"{line.row}: {ROWS[line.row].title}" if line.ratio is None else "",
            line.side,
            line.setting,
            f"{line.tokens_per_second:,.1f}",
            _ratio(line),
            f"{line.loaded_bytes / 1e9:.2f}",
            f"{line.peak_bytes / 1e9:.2f}",
            "" if line.memory_ratio is None else f"{line.memory_ratio:.2f}",
            "" if line.loss_difference is None else f"{line.loss_difference:.1e}",
            "" if line.flops_utilisation is None else f"{line.flops_utilisation:.2f}",
        ]
        table.append(f"| {' | '.join(cells)} |")
    return "\n".join(table)


def _ratio(line: Line) -> str:
    if line.ratio is None or line.ratio_range is None:
        return ""
    low, high = line.ratio_range
    return f"{line.ratio:.2f} ({low:.2f} to {high:.2f})"


def machine() -> dict[str, str]:
    """Processor, memory and versions: what a figure is worth nothing without."""
    processor = platform.processor() or platform.machine()
    flags = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        facts = dict(
            [part.strip() for part in line.split(":", 1)]
            for line in cpuinfo.read_text(encoding="utf-8").splitlines()
            if ":" in line
        )
        processor = facts.get("model name", processor)
        known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
        flags = " ".join(flag for flag in known if flag in facts.get("flags", "").split())
    return {"processor": processor, "vector units": flags, "python": platform.python_version()} | {
        name: found for name in PACKAGES if (found := _version(name))
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
