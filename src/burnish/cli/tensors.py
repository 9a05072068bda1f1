"""Commands of the world of tensors: pretrain, tune, generate, evaluate, serve, export, cache."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click

from burnish.cli.settings import (
    Number,
    print_json,
    register,
    resolve_reference,
    stage_config,
    with_settings,
)
from burnish.console import print_facts, print_preflight, print_rows
from burnish.errors import ConfigError
from burnish.project import find_project
from burnish.types import Example
from burnish.units import duration, size

_FOLDER = click.Path(path_type=Path)
_AS_CHAT = click.option(
    "--chat",
    "as_chat",
    is_flag=True,
    help="Render prompt/completion rows with the chat template, like `tune --set template=NAME`.",
)


@with_settings("burnish.pretrain", "PretrainConfig")
@click.command()
@click.argument("text", nargs=-1, type=_FOLDER)
@click.option("--out", "out_", type=_FOLDER, help="Where the model goes.")
@click.option("--base", help="A base to continue instead of starting from scratch.")
@click.option("--max-steps", type=int, help="Stop after so many steps.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def pretrain(
    text: tuple[Path, ...],
    out_: Path | None,
    base: str | None,
    max_steps: int | None,
    as_json: bool,
    config_file: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Make a base from TEXT files: tokenizer and model; with --base, continue one.

    A run that was killed goes on where it was when the same command is given again.
    """
    from burnish.pretrain import PretrainConfig
    from burnish.pretrain import pretrain as run

    flags = {
        "text": [str(path) for path in text] or None,
        "out": out_,
        "base": base and resolve_reference(base),
        "max_steps": max_steps,
    }
    config = stage_config(
        PretrainConfig, "pretrain", config_file=config_file, overrides=overrides, flags=flags
    )
    checkpoint = run(config)
    register(find_project(), checkpoint.path)
    _print_run(checkpoint.metrics)
    click.echo(f"→ burnish tune DATA --base {checkpoint.path} --out DIR")
    if as_json:
        print_json(checkpoint.metrics)


@with_settings("burnish.tune.config", "TuneConfig")
@click.command()
@click.argument("data", required=False)
@click.option("--base", help="Hub id, folder, .gguf, checkpoint, or `starter`.")
@click.option("--out", "out_", type=_FOLDER, help="Where the checkpoint goes.")
@click.option("--technique", help="full, layers, lora, bottleneck, ia3, prefix or prompt.")
@click.option("--epochs", type=float, help="Passes over the examples.")
@click.option("--max-steps", type=int, help="Stop after so many steps.")
@click.option("--price-per-hour", type=Number(0), help="Price of this machine, for the estimate.")
@click.option("--watts", type=Number(0), help="Power this machine draws, for the estimate.")
@click.option("--dry-run", is_flag=True, help="Stop before step 1; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def tune(
    data: str | None,
    base: str | None,
    out_: Path | None,
    technique: str | None,
    epochs: float | None,
    max_steps: int | None,
    price_per_hour: float | None,
    watts: float | None,
    dry_run: bool,
    as_json: bool,
    config_file: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Fine-tune a base on DATA: a file (JSONL, JSON, CSV, Parquet, text) or a snapshot.

    Needs no project. The format of the data is recognised. What is about to be trained is shown
    and checked before the first step. A run that was killed goes on where it was when the same
    command is given again.
    """
    from burnish.nn.preflight import Preflight
    from burnish.tune.config import TuneConfig
    from burnish.tune.tune import dry_run as check
    from burnish.tune.tune import tune as run

    flags = {
        "data": data and resolve_reference(data),
        "base": base and resolve_reference(base),
        "out": out_,
        "technique": technique,
        "epochs": epochs,
        "max_steps": max_steps,
        "price_per_hour": price_per_hour,
        "watts": watts,
    }
    config = stage_config(
        TuneConfig, "tune", config_file=config_file, overrides=overrides, flags=flags
    )

    def show(table: Preflight) -> None:
        print_preflight(table, price_per_hour=config.price_per_hour, watts=config.watts)

    if dry_run:
        table = check(config)
        show(table)
        if as_json:
            print_json(table.figures())
        return
    checkpoint = run(config, on_preflight=show)
    register(find_project(), checkpoint.path)
    _print_run(checkpoint.metrics)
    click.echo(f"→ burnish evaluate {checkpoint.path} --against {config.base} --data HELD_OUT")
    click.echo(f"→ burnish serve {checkpoint.path}")
    if as_json:
        print_json(checkpoint.metrics)


@click.command()
@click.argument("model")
@click.option("--data", required=True, type=_FOLDER, help="Rows to answer.")
@click.option("--out", "out_", required=True, type=_FOLDER, help="JSONL file of the answers.")
@click.option("--max-tokens", type=int, default=256, show_default=True, help="Longest answer.")
@click.option("--temperature", type=Number(0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--seed", type=int, default=0, show_default=True, help="For temperatures above 0.")
@_AS_CHAT
def generate(
    model: str,
    data: Path,
    out_: Path,
    max_tokens: int,
    temperature: float,
    seed: int,
    as_chat: bool,
) -> None:
    """Answer every row of a file with MODEL; a final assistant turn in it is left out."""
    from burnish.chat import render_prompt
    from burnish.files import replaced_file
    from burnish.nn.generate import Sampling
    from burnish.nn.generate import generate as run
    from burnish.nn.models import load_model
    from burnish.records import read_examples

    read = read_examples(resolve_reference(str(data)))
    loaded = load_model(resolve_reference(model))
    examples = _in_form(read.examples, as_chat=as_chat)
    prompts = [render_prompt(e.conversation, loaded.template) for e in examples]
    sampling = Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed)
    completions = run(loaded, prompts, sampling)
    with replaced_file(out_) as temporary, temporary.open("w", encoding="utf-8") as file:
        for example, completion in zip(examples, completions, strict=True):
            row: dict[str, Any] = example.conversation.answered(completion.text).to_json()
            row["example_id"] = example.id
            row["model"] = loaded.identity
            row["finish_reason"] = completion.finish_reason
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    _print_rejects(len(read.rejects), str(data))
    click.echo(f"{len(completions):,} answers in {out_}")


@with_settings("burnish.evaluate.evaluate", "EvaluateConfig")
@click.command()
@click.argument("model")
@click.option("--against", required=True, help="The base to compare with.")
@click.option("--data", required=True, help="Held-out rows with answers, or a snapshot.")
@click.option("--score", help="exact, includes, f1, numeric, refusal or auto.")
@click.option("--out", "out_", type=_FOLDER, help="Folder of the report.")
@click.option("--limit", type=int, help="Take the first so many items only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@_AS_CHAT
def evaluate(
    model: str,
    against: str,
    data: str,
    score: str | None,
    out_: Path | None,
    limit: int | None,
    as_json: bool,
    as_chat: bool,
    config_file: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Put the same held-out items to MODEL and a base; say what is shown and what is not.

    Of a snapshot the test part is taken. The report is one HTML file, with JSON beside it.
    """
    from burnish.evaluate.answerer import model_answerer
    from burnish.evaluate.evaluate import EvaluateConfig
    from burnish.evaluate.evaluate import evaluate as run
    from burnish.nn.models import load_model
    from burnish.records import read_examples, training_prompts

    config = stage_config(
        EvaluateConfig,
        "evaluate",
        config_file=config_file,
        overrides=overrides,
        flags={"score": score, "out": out_},
    )
    read = read_examples(resolve_reference(data), split="test")
    candidate_path = resolve_reference(model)
    report = run(
        config,
        _in_form(read.examples[:limit], as_chat=as_chat),
        model_answerer(model, load_model(candidate_path), config.max_tokens),
        model_answerer(against, load_model(resolve_reference(against)), config.max_tokens),
        training_prompts=training_prompts(Path(candidate_path)),
        data_id=read.id if read.id.startswith("snapshot-") else None,
    )
    register(find_project(), report.path)
    _print_rejects(len(read.rejects), data)
    click.echo(report.results["headline"])
    click.echo(f"→ open {report.path / 'report.html'}")
    if as_json:
        print_json({"report": str(report.path), **report.results})


def _in_form(examples: Sequence[Example], *, as_chat: bool) -> list[Example]:
    if not as_chat:
        return list(examples)
    return [replace(e, conversation=e.conversation.as_chat()) for e in examples]


def _print_run(metrics: Any) -> None:
    """What a training run came to, for people."""
    print_facts(
        "run",
        {
            "loss": f"{metrics['first_loss']:.3f} → {metrics['last_loss']:.3f} "
            f"in {metrics['steps']:,} steps",
            "speed": f"{metrics['tokens_per_second']:,.0f} tokens/s over "
            f"{duration(metrics['train_seconds'])}",
            "memory": f"{size(metrics['peak_memory_bytes'])} at its peak",
            "checkpoint": metrics["checkpoint"],
        },
    )


def _print_rejects(count: int, data: str) -> None:
    if count:
        click.echo(f"{count:,} rows of {data} did not fit and were left out", err=True)


@with_settings("burnish.serve.serve", "ServeConfig")
@click.command()
@click.argument("model")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@click.option("--host", help="Address to listen on; default: this machine only.")
@click.option(
    "--api-key-env", metavar="NAME", help="Environment variable with the key clients must send."
)
def serve(
    model: str,
    port: int | None,
    host: str | None,
    api_key_env: str | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Answer over HTTP the way OpenAI's API does, until Ctrl-C."""
    from burnish.serve.serve import ServeConfig
    from burnish.serve.serve import serve as run

    if api_key_env is not None and not os.environ.get(api_key_env):
        raise ConfigError(f"{api_key_env} is not set", where="--api-key-env")
    flags = {
        "model": resolve_reference(model),
        "port": port,
        "host": host,
        "api_key": api_key_env and os.environ[api_key_env],
    }
    config = stage_config(
        ServeConfig, "serve", config_file=config_file, overrides=overrides, flags=flags
    )

    def ready(url: str) -> None:
        click.echo(f"serving {config.model} at {url}/v1 (Ctrl-C ends it)")

    run(config, ready=ready)


@click.command()
@click.argument("model")
@click.option(
    "--to",
    type=click.Choice(("merged", "peft")),
    required=True,
    help="merged: full weights, adapter merged in; peft: the adapter by itself.",
)
@click.option("--out", "out_", type=_FOLDER, required=True, help="Folder to write.")
def export(model: str, to: Literal["merged", "peft"], out_: Path) -> None:
    """Write a checkpoint for other tools; its logits are compared before it is called done."""
    from burnish.export import ExportConfig
    from burnish.export import export as run

    folder = run(ExportConfig(model=resolve_reference(model), to=to, out=out_))
    register(find_project(), folder)
    click.echo(f"{folder}: the same logits as {model}, checked")


@click.command()
@click.option(
    "--out",
    "out_",
    type=_FOLDER,
    default="demo",
    show_default=True,
    help="Folder of the demo, which becomes a project.",
)
def demo(out_: Path) -> None:
    """Take the whole road on bundled data: a few minutes on two cores."""
    from burnish.demo.road import demo as run

    run(out_)


@click.command()
@click.option("--clear", is_flag=True, help="Remove every entry that no run is using.")
def cache(clear: bool) -> None:
    """List what is kept of frozen layers for later runs, or remove it.

    The entries hold what was computed from training texts; `tune --set cache_trunk=false` makes
    none.
    """
    from burnish.nn.trunk_store import remove_trunk, stored_trunks

    rows = []
    for trunk in stored_trunks():
        done = ""
        if clear:
            done = "removed" if remove_trunk(trunk.folder) else "in use, kept"
        used = f"{datetime.fromtimestamp(trunk.last_used, UTC):%Y-%m-%d %H:%M}"
        rows.append((trunk.folder.name, trunk.facts.get("base"), size(trunk.bytes), used, done))
    print_rows("cached trunks", ("entry", "base", "size", "last used (UTC)", ""), rows)


COMMANDS: tuple[click.Command, ...] = (
    pretrain,
    tune,
    generate,
    evaluate,
    serve,
    export,
    demo,
    cache,
)
