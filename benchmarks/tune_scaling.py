"""How Burnish's cost grows: with sequence length, batch size, sharing factor and snapshot size.

Run through `tune_speed.py --scaling`. The model is a Llama of 135M's width with 6 of its 30 layers,
tuned with LoRA; each point is a fresh process, one step of warm-up and two that count.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from speed_run import Measurement, run
from speed_table import machine

# What a step holds, whatever its rows' length.
STEP_TOKENS = 8192
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SHARING = (1, 2, 4, 8, 16, 32)
SIZES = (1_000, 10_000, 100_000, 1_000_000)

# Rows of the sharing series: tokens of the prompt, and of what each row has for itself.
PROMPT_TOKENS, OWN_TOKENS = 224, 32
# What the chat template adds to a row, about.
TEMPLATE_TOKENS = 12
STEPS = 3


@dataclasses.dataclass(frozen=True)
class Series:
    """One table."""

    title: str
    points: tuple[int, ...]
    header: str
    cells: Callable[[int, dict[str, Any]], str]


def _speed_cells(value: int, answer: dict[str, Any]) -> str:
    done = Measurement("burnish", "", **answer)
    facts = done.facts
    shared = facts["tokens"] / facts["computed_tokens"]
    tokens = facts["tokens"] / facts["steps"]
    cells = f"{tokens:,.0f} | {shared:.2f} | {done.tokens_per_second:,.0f}"
    computed = done.tokens_per_second / shared
    return f"{value:,} | {cells} | {computed:,.0f} | {done.peak_bytes / 1e9:.2f}"


def _snapshot_cells(value: int, answer: dict[str, Any]) -> str:
    megabytes = answer["bytes"] / 1e6
    return (
        f"{value:,} | {megabytes:,.1f} | {answer['read_seconds']:.2f} "
        f"| {answer['tokenise_seconds']:.2f} | {megabytes / answer['tokenise_seconds']:.1f} "
        f"| {answer['group_seconds']:.2f} | {answer['epoch_seconds']:.2f} "
        f"| {answer['sharing_factor']:.2f} | {answer['grown_bytes'] / 1e6:,.0f}"
    )


_SPEED = "tokens a step | sharing factor | tokens/s | computed tokens/s | peak GB"
SERIES = {
    "length": Series(
        f"Sequence length, {STEP_TOKENS:,} tokens a step",
        LENGTHS,
        f"tokens a row | {_SPEED}",
        _speed_cells,
    ),
    "batch": Series("Batch size, rows of 128 tokens", BATCHES, f"rows | {_SPEED}", _speed_cells),
    "sharing": Series(
        f"Sharing, 32 rows of {PROMPT_TOKENS} + {OWN_TOKENS} tokens",
        SHARING,
        f"rows under one prompt | {_SPEED}",
        _speed_cells,
    ),
    "snapshot": Series(
        "Snapshot size",
        SIZES,
        "rows | MB | read s | tokenise s | MB/s | find shared prefixes s | order of an epoch s "
        "| sharing factor | memory grown by MB",
        _snapshot_cells,
    ),
}


def scaling(options: argparse.Namespace) -> int:
    """Measure every series, writing `scaling.md` and `scaling.json` after each point."""
    answers: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in SERIES}
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        for name, series in SERIES.items():
            points = options.sizes if name == "snapshot" and options.sizes else series.points
            for value in points:
                task = {"do": "scale", "series": name, "value": value, "data": str(options.data)}
                task["setting"] = " ".join(options.set)
                task |= {"bases": str(options.out / "bases"), "llama": "llama-6-layers"}
                answer = run(task, timeout=options.timeout, threads=options.threads, cuda=False)
                answers[name][value] = answer
                print(f"{name} {value}: {_cells(series, value, answer)}", file=sys.stderr)
                _write(options.out, answers)
    except KeyboardInterrupt:
        print("interrupted: what was measured until then stands below", file=sys.stderr)
    _write(options.out, answers)
    print((options.out / "scaling.md").read_text(encoding="utf-8"))
    return int(any("failure" in answer for found in answers.values() for answer in found.values()))


def _cells(series: Series, value: int, answer: dict[str, Any]) -> str:
    if "failure" in answer:
        return f"{value:,} | {answer['failure']}"
    return series.cells(value, answer)


def _write(out: Path, answers: dict[str, dict[int, dict[str, Any]]]) -> None:
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    parts = [about]
    for name, series in SERIES.items():
        if answers[name]:
            columns = series.header.count("|") + 1
            rows = [f"| {_cells(series, v, a)} |" for v, a in answers[name].items()]
            table = [f"| {series.header} |", "|" + "---|" * columns, *rows]
            parts.append(f"### {series.title}\n\n" + "\n".join(table))
    (out / "scaling.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    text = json.dumps({"machine": machine(), "points": answers}, indent=1)
    (out / "scaling.json").write_text(text, encoding="utf-8")


def point(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Measure one point; runs in a process of its own."""
    from transformers import AutoTokenizer

    from burnish.chat import choose_template
    from speed_rows import write_llama

    data = Path(task["data"]) / "alpaca_en_demo.json"
    base = Path(task["bases"]) / task["llama"]
    if not (base / "config.json").exists():
        write_llama(base, data, task["llama"])
    template = choose_template(AutoTokenizer.from_pretrained(base))
    words = sorted(set(data.read_text(encoding="utf-8").split()))
    # JSON's own marks would be escaped, and the rows' sizes with them.
    words = [word for word in words if word.isalpha()]
    if task["series"] == "snapshot":
        return _prepare_snapshot(task["value"], words, template, folder)
    return _train(task, words, template, base, folder)


def _train(
    task: dict[str, Any], words: list[str], template: Any, base: Path, folder: Path
) -> dict[str, Any]:
    """Tune on rows made for the point."""
    from speed_rows import Work
    from speed_run import train_with_burnish

    series, value = task["series"], task["value"]
    draw = random.Random(0)
    rows_a_step, length, under_one = 32, OWN_TOKENS, 1
    if series == "length":
        rows_a_step, length = STEP_TOKENS // value, value
    elif series == "batch":
        rows_a_step, length = value, 128
    else:
        under_one = value
    system: list[dict[str, str]] = []
    examples = folder / "examples.jsonl"
    with examples.open("w", encoding="utf-8") as file:
        for n in range(rows_a_step * STEPS):
            if series == "sharing" and n % under_one == 0:
                prompt = _text(draw, words, template, PROMPT_TOKENS)
                system = [{"role": "system", "content": prompt}]
            asked = max(1, (length - TEMPLATE_TOKENS) // 4)
            answered = max(1, length - TEMPLATE_TOKENS - asked)
            turns = [("user", asked), ("assistant", answered)]
            messages = [
                {"role": role, "content": _text(draw, words, template, tokens)}
                for role, tokens in turns
            ]
            file.write(json.dumps({"messages": [*system, *messages]}) + "\n")
    work = Work(
        row=series,
        technique="lora",
        base=str(base),
        adapter=None,
        examples=str(examples),
        tokens="",
        batch_examples=rows_a_step,
        steps=STEPS,
        warmup_steps=1,
        epochs=1,
        learning_rate=2e-4,
        precision="auto",
        max_length=2 * max(LENGTHS),
    )
    return train_with_burnish(work, "burnish", task["setting"], folder)


def _prepare_snapshot(count: int, words: list[str], template: Any, folder: Path) -> dict[str, Any]:
    """Seconds and memory from a file of rows to the order of the first epoch."""
    from burnish.nn.batches import Batches
    from burnish.nn.memory import held_memory, peak_memory, reset_peak_memory
    from burnish.nn.plan import plan_examples
    from burnish.records.mixture import read_mixture

    path = folder / "rows.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in _rows(count, words):
            file.write(json.dumps(row) + "\n")
    reset_peak_memory()
    before = held_memory()
    clock = [time.perf_counter()]
    mixture = read_mixture(str(path))
    clock.append(time.perf_counter())
    plan = plan_examples(mixture, template, 2048, folder, as_chat=False)
    clock.append(time.perf_counter())
    batches = Batches(
        plan.rows,
        batch_examples=32,
        batch_tokens=4096,
        order="shuffled",
        seed=0,
        share_prefixes=True,
        sources=[source.rows for source in plan.sources],
    )
    clock.append(time.perf_counter())
    batches.rows(0)
    clock.append(time.perf_counter())
    names = ("read_seconds", "tokenise_seconds", "group_seconds", "epoch_seconds")
    seconds = [after - start for start, after in pairwise(clock)]
    return dict(zip(names, seconds, strict=True)) | {
        "bytes": path.stat().st_size,
        "tokens": plan.tokens,
        "grown_bytes": peak_memory() - before,
        "sharing_factor": batches.sharing_factor,
    }


def _rows(count: int, words: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of some 40 words, three in four of them under one of 100 system prompts."""
    draw = random.Random(0)
    prompts = [" ".join(draw.choices(words, k=25)) for _ in range(100)]
    for n in range(count):
        turns = [("user", 25), ("assistant", 15)]
        messages = [{"role": r, "content": " ".join(draw.choices(words, k=k))} for r, k in turns]
        if n % 4:
            messages.insert(0, {"role": "system", "content": draw.choice(prompts)})
        yield {"messages": messages}


def _text(draw: random.Random, words: list[str], template: Any, tokens: int) -> str:
    """Random words of about so many tokens."""
    text = " ".join(draw.choices(words, k=tokens))  # a word has at least one token
    return str(template.tokenizer.decode(template.encode(text)[:tokens]))
