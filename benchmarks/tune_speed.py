"""How fast `burnish tune` is beside its peers: same rows, same recipe, one table of ratios.

    python benchmarks/tune_speed.py --gemma gemma-3-270m.gguf --out speed
    python benchmarks/tune_speed.py --rows tiny-lora tiny-full --precision fp32 --out try
    python benchmarks/tune_speed.py --scaling --out scaling

Burnish, TRL's SFTTrainer and Hugging Face's Trainer train in turn, each in a fresh process, so that
peak memory is each one's own. Every round begins with another side. Peers run in the fastest of
their settings, found by short trials. A row counts only if the loss curves agree at every step.
Tokens are counted with each example alone and without padding; steps of the warm-up are left out,
for every side. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import peers
import tune_scaling
from burnish.files import replaced_file
from speed_rows import ROWS, SIDES, TABLE, Work, shortened
from speed_run import Measurement, measure, run
from speed_table import disagreement, line_of, machine, markdown

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ON_CUDA = ("trl-liger", "hf-liger", "unsloth")


class Results:
    """Everything measured so far, written anew after each measurement, so that a kill loses one."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.works: dict[str, Work] = {}
        self.rounds: dict[str, list[dict[str, Measurement]]] = {}
        self.tried: list[dict[str, Any]] = []
        self.notes: list[str] = []
        """Rows that could not be prepared, an interruption."""
        out.mkdir(parents=True, exist_ok=True)

    def add(self, row: str, number: int, measurement: Measurement) -> None:
        """Keep one measurement of a row's round."""
        rounds = self.rounds.setdefault(row, [])
        while len(rounds) <= number:
            rounds.append({})
        rounds[number][measurement.side] = measurement
        figures = measurement.failure or (
            f"{measurement.tokens_per_second:,.1f} tokens/s, "
            f"peak {measurement.peak_bytes / 1e9:.2f} GB"
        )
        say(f"{row}, round {number + 1}: {measurement.side} {measurement.setting}: {figures}")
        self.write()

    def fault(self, row: str, number: int, side: str) -> str | None:
        """Why a measurement does not count, or None: it failed, or its losses are others."""
        found = self.rounds[row][number]
        ours, theirs = found.get(ROWS[row].sides[0]), found[side]
        if theirs.failure:
            return f"{side} {theirs.setting}: {theirs.failure}"
        if ours is None or ours.failure:
            return None
        return disagreement(ours, theirs, self.works[row].precision)

    def faults(self) -> list[str]:
        """Everything that keeps the table from being whole and sound."""
        found = [
            f"{row}, round {number + 1}: {fault}"
            for row, rounds in self.rounds.items()
            for number, sides in enumerate(rounds)
            for side in sides
            if (fault := self.fault(row, number, side))
        ]
        return self.notes + found

    def note_trial(self, row: str, side: str, setting: str, result: str) -> None:
        """Keep what came of trying a peer's setting."""
        self.tried.append({"row": row, "side": side, "setting": setting, "result": result})
        say(f"{row}, tried: {side} {setting}: {result}")

    def table(self) -> str:
        """The Markdown table of what there is."""
        lines = [
            line_of(work, side, self.rounds.get(row, []))
            for row, work in self.works.items()
            for side in dict.fromkeys(s for r in self.rounds.get(row, []) for s in r)
        ]
        return markdown(line for line in lines if line is not None)

    def write(self) -> None:
        """`speed.json` with every measurement, `speed.md` with the table."""
        facts = {
            "command": shlex.join(sys.argv),
            "machine": machine(),
            "works": {row: asdict(work) for row, work in self.works.items()},
            "tried": self.tried,
            "rounds": {
                row: [{side: asdict(m) for side, m in r.items()} for r in rounds]
                for row, rounds in self.rounds.items()
            },
            "faults": self.faults(),
        }
        with replaced_file(self.out / "speed.json") as temporary:
            temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        about = ", ".join(f"{name} {value}" for name, value in machine().items())
        faults = "".join(f"- {fault}\n" for fault in self.faults())
        text = f"{about}\n\n{self.table()}\n\n{tried_table(self.tried)}\n\n{faults}"
        with replaced_file(self.out / "speed.md") as temporary:
            temporary.write_text(text.rstrip() + "\n", encoding="utf-8")


def tried_table(tried: list[dict[str, Any]]) -> str:
    """The peers' settings that were tried, and what came of each."""
    if not tried:
        return ""
    rows = [f"| {t['row']} | {t['side']} | {t['setting']} | {t['result']} |" for t in tried]
    return "\n".join(["| work | side | setting tried | tokens/s |", "|---|---|---|---|", *rows])


def run_row(name: str, options: argparse.Namespace, results: Results) -> None:
    """Prepare a row, choose each peer's setting, and measure all sides in turn."""
    how = {"timeout": options.timeout, "threads": options.threads, "cuda": options.cuda}
    wanted = {
        "row": name,
        "into": str(results.out / name),
        "steps": options.steps,
        "precision": options.precision,
        "gemma": options.gemma,
        "data": str(options.data),
    }
    answer = run({"do": "prepare", "options": wanted}, **how)
    if "failure" in answer:
        results.notes.append(f"{name}: {answer['failure']}")
        say(f"{name}: {answer['failure']}")
        return
    work = results.works[name] = Work(**answer)
    sides = ROWS[name].sides if ROWS[name].sides != SIDES else tuple(options.sides)
    ranked = {
        side: settings_by_speed(work, side, options, results, how)
        for side in sides
        if not side.startswith("burnish")
    }
    for number in range(options.rounds):
        start = number % len(sides)
        for side in (*sides[start:], *sides[:start]):
            settings = ranked.get(side, [" ".join(options.set)])
            if number:
                results.add(name, number, measure(side, work, settings[0], **how))
            else:
                _first_round(work, side, settings, results, how)


def _first_round(
    work: Work, side: str, settings: list[str], results: Results, how: dict[str, Any]
) -> None:
    """Measure a side for the first time; a setting whose losses disagree gives way to the next."""
    results.add(work.row, 0, measure(side, work, settings[0], **how))
    while len(settings) > 1 and (fault := results.fault(work.row, 0, side)):
        results.note_trial(work.row, side, settings.pop(0), fault)
        results.add(work.row, 0, measure(side, work, settings[0], **how))


def settings_by_speed(
    work: Work, side: str, options: argparse.Namespace, results: Results, how: dict[str, Any]
) -> list[str]:
    """A peer's settings that run, fastest first: its number formats, then layouts with the best."""
    if side in options.setting:
        return [options.setting[side]]
    # A step on the CPU takes a minute, and what the first one pays for, a second or two. On CUDA
    # kernels are compiled in the first one.
    small = shortened(work, results.out / "trials", steps=2 if options.cuda else 1)
    speeds: dict[str, float] = {}

    def attempt(setting: str) -> None:
        trial = measure(side, small, setting, **how)
        result = trial.failure or f"{trial.tokens_per_second:,.1f}"
        results.note_trial(work.row, side, setting, result)
        if trial.failure is None:
            speeds[setting] = trial.tokens_per_second

    first, *others = peers.layouts(side)
    for number_format in peers.formats(work):
        attempt(f"{number_format},{first}")
    if not speeds:
        return [f"{peers.formats(work)[0]},{first}"]
    best_format = max(speeds, key=lambda s: speeds[s]).split(",")[0]
    for layout in others:
        attempt(f"{best_format},{layout}")
    return sorted(speeds, key=lambda s: -speeds[s])


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and JSON")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS], default=list(TABLE))
    parser.add_argument(
        "--sides",
        nargs="+",
        choices=[*SIDES, *peers.EXTRA_SIDES],
        help="by default burnish, trl and hf, on CUDA those with Liger and Unsloth too",
    )
    parser.add_argument("--steps", type=int, default=4, help="measured optimiser steps")
    parser.add_argument("--rounds", type=int, default=3, help="times every side is measured")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--gemma", help="a .gguf file or folder of Gemma 3 270M")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one measurement")
    parser.add_argument("--threads", type=int, help="OMP_NUM_THREADS of every side")
    parser.add_argument("--cuda", action="store_true", help="measure on the CUDA device")
    parser.add_argument(
        "--setting",
        nargs="*",
        default=[],
        metavar="SIDE=FORMAT,LAYOUT",
        help="a peer's setting, instead of trials: trl=bf16,one-by-one",
    )
    parser.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="settings of tune for Burnish that leave the recipe as it is: compile=on",
    )
    parser.add_argument("--scaling", action="store_true", help="how Burnish's cost grows, instead")
    parser.add_argument(
        "--sizes", nargs="+", type=int, help="with --scaling: examples of snapshots"
    )
    options = parser.parse_args(arguments)
    options.setting = dict(text.split("=", 1) for text in options.setting)
    if options.sides is None:
        options.sides = [*SIDES, *ON_CUDA] if options.cuda else [*SIDES]
    if options.steps < 1 or options.rounds < 1:
        parser.error("--steps and --rounds must be at least 1")
    if options.cuda and not _cuda_is_there():
        parser.error("--cuda, but this machine has no CUDA device that PyTorch can use")
    return options


def _cuda_is_there() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.scaling:
        return tune_scaling.scaling(options)
    results = Results(options.out)
    try:
        for name in options.rows:
            run_row(name, options, results)
    except KeyboardInterrupt:
        results.notes.append("interrupted: the table holds what was measured until then")
    results.write()
    print((options.out / "speed.md").read_text(encoding="utf-8"))
    return 1 if results.faults() else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    sys.exit(main(sys.argv[1:]))
