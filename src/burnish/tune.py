"""Tune: examples and a base in, a checkpoint out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from burnish.chat import check_laws
from burnish.config import write_toml
from burnish.errors import ConfigError
from burnish.hashing import content_hash
from burnish.nn.attention import ATTENTION
from burnish.nn.flops import useful_flops
from burnish.nn.loop import METRICS_FILE, Progress, run_steps
from burnish.nn.memory import peak_memory
from burnish.nn.models import LoadedModel, load_model, save_words_side
from burnish.nn.optim import MasterAdamW, ScheduleName, learning_rates
from burnish.nn.plan import Batches, Order, Plan, plan_examples
from burnish.nn.preflight import Preflight, preflight, refuse_untrainable
from burnish.nn.techniques import (
    Technique,
    add_lora,
    train_everything,
    train_top_layers,
    trainable_parameters,
)
from burnish.nn.workfolder import Workfolder, finished_folder, resume_or_start
from burnish.project import read_manifest
from burnish.records import ExamplesRead, read_examples
from burnish.records.rejects import reject_line
from burnish.types import Checkpoint

REJECTS_FILE = "rejects.jsonl"

# Usual peaks for each technique; adapters take about ten times the rate of full fine-tuning
# (Schulman et al., "LoRA Without Regret", 2025).
_LEARNING_RATES: dict[Technique, float] = {"full": 2e-5, "layers": 5e-5, "lora": 2e-4}


@dataclass(frozen=True)
class TuneConfig:
    """Everything a run depends on; written beside the checkpoint as run.toml."""

    data: str
    """A file (JSONL, JSON, CSV, Parquet, text) or the folder of a snapshot."""
    base: str
    """A hub id, a local folder, a .gguf file, a checkpoint, or `starter`."""
    out: Path
    """Where the checkpoint goes; `OUT.partial` beside it holds the run until it ends."""
    technique: Technique = "lora"
    """`full`, `lora`, or `layers` (freeze all but the top `top_layers`)."""
    epochs: float = 3.0
    """Passes over the examples."""
    max_steps: int | None = None
    """Stop after so many optimiser steps, whatever `epochs` says."""
    lora_rank: int = 16
    """Rank of the LoRA matrices."""
    lora_alpha: float = 32.0
    """LoRA's scale is lora_alpha / lora_rank."""
    lora_targets: str | tuple[str, ...] = "all-linear"
    """Which linear layers get LoRA: `all-linear` (without the LM head) or module names."""
    top_layers: int = 2
    """For `layers`: how many blocks at the top are trained, with the final norm."""
    learning_rate: float | None = None
    """Peak learning rate; by default 2e-5 for full, 5e-5 for layers, 2e-4 for lora."""
    schedule: ScheduleName = "cosine"
    """`cosine`, `linear` or `constant` after the warm-up."""
    warmup_fraction: float = 0.03
    """Share of the steps in which the learning rate rises linearly."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, on matrices only."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm; 0 never clips."""
    batch_examples: int = 8
    """Examples per optimiser step."""
    batch_tokens: int = 4096
    """Computed tokens run through the model at once; bounds memory, never changes the loss."""
    max_length: int = 2048
    """Examples longer than this many tokens are cut at the end, counted and reported."""
    order: Order = "shuffled"
    """`shuffled` anew each epoch, or `as_given`: batches hold the rows in file order."""
    data_format: str | None = None
    """The form of the data when it should not be recognised: messages, alpaca, ..."""
    template: str = "auto"
    """Chat template: auto, chatml, gemma, plain, or the path of a Jinja file. Prompt/completion
    rows of plain strings are rendered raw unless one is named here."""
    precision: str = "auto"
    """`bf16`, `fp32`, or `auto`: bf16 where the hardware multiplies it."""
    seed: int = 0
    """Seeds the order of examples and the adapters' initial weights."""
    share_prefixes: bool = True
    """Compute prefixes that examples of a step share only once; the gradient is the same."""

    def __post_init__(self) -> None:
        """Check ranges; all faults at once."""
        faults = []
        for name in ("lora_rank", "top_layers", "batch_examples", "batch_tokens", "max_length"):
            if getattr(self, name) < 1:
                faults.append(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.max_steps is not None and self.max_steps < 1:
            faults.append(f"max_steps = {self.max_steps}: must be at least 1")
        if self.epochs <= 0:
            faults.append(f"epochs = {self.epochs}: must be above 0")
        if self.learning_rate is not None and self.learning_rate <= 0:
            faults.append(f"learning_rate = {self.learning_rate}: must be above 0")
        if not 0 <= self.warmup_fraction <= 1:
            faults.append(f"warmup_fraction = {self.warmup_fraction}: must be from 0 to 1")
        if self.precision not in ("auto", "bf16", "fp32"):
            faults.append(f"precision = {self.precision!r}: must be auto, bf16 or fp32")
        if faults:
            raise ConfigError("\n    ".join(faults))

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate in force."""
        return self.learning_rate or _LEARNING_RATES[self.technique]


@dataclass(frozen=True)
class _Prepared:
    """A run ready for step 1."""

    read: ExamplesRead
    model: LoadedModel
    plan: Plan
    batches: Batches
    steps: int


def tune(config: TuneConfig, *, on_preflight: Callable[[Preflight], None]) -> Checkpoint:
    """Fine-tune a base on examples.

    A run that was killed goes on where its last saved state stands when the same call is made
    again, and gives the same losses as an unbroken one.

    Args:
        config: the run.
        on_preflight: shown what is about to be trained, before the first step.

    Raises:
        UserError: data, base, template or settings that cannot be trained with; nothing is
            written to `config.out`.
    """
    prepared = _prepare(config)
    identity = _identity(config, prepared)
    with resume_or_start(config.out, identity) as work:
        if work.finished is not None:
            return _checkpoint(config.out)
        table = preflight(prepared.model, prepared.plan, prepared.batches, steps=prepared.steps)
        on_preflight(table)
        _write_rejects(work.folder, prepared)
        optimizer = MasterAdamW(
            prepared.model.model.named_parameters(), weight_decay=config.weight_decay
        )
        done = run_steps(
            prepared.model,
            optimizer,
            prepared.batches,
            steps=prepared.steps,
            learning_rate=learning_rates(
                config.schedule,
                config.peak_learning_rate,
                prepared.steps,
                config.warmup_fraction,
            ),
            max_grad_norm=config.max_grad_norm,
            folder=work.folder,
            what=f"tune {config.technique}",
        )
        _write_checkpoint(config, prepared, done, table, work)
    return _checkpoint(config.out)


def dry_run(config: TuneConfig) -> Preflight:
    """Everything `tune` does before step 1; writes nothing."""
    prepared = _prepare(config)
    return preflight(prepared.model, prepared.plan, prepared.batches, steps=prepared.steps)


def _prepare(config: TuneConfig) -> _Prepared:
    """Read, load, render, choose what is trained. Cheap faults come first."""
    read = read_examples(config.data, as_format=config.data_format, split="train")
    model = load_model(
        config.base,
        precision=config.precision,
        template=config.template,
        trained=config.technique == "lora",
    )
    torch.manual_seed(config.seed)
    model = _apply_technique(config, model)
    model.causal_lm.set_attn_implementation(ATTENTION)
    examples = read.examples
    if config.template != "auto":
        examples = [replace(e, conversation=e.conversation.as_chat()) for e in examples]
    if not all(example.conversation.raw for example in examples):
        check_laws(model.template)
    plan = plan_examples(examples, model.template, config.max_length)
    refuse_untrainable(plan, model.template)
    batches = Batches(
        plan.examples,
        config.batch_examples,
        config.batch_tokens,
        config.order,
        config.seed,
        config.share_prefixes,
    )
    steps = max(1, round(config.epochs * batches.steps_per_epoch))
    return _Prepared(read, model, plan, batches, min(steps, config.max_steps or steps))


def _apply_technique(config: TuneConfig, model: LoadedModel) -> LoadedModel:
    if config.technique == "full":
        return train_everything(model)
    if config.technique == "layers":
        return train_top_layers(model, config.top_layers)
    return add_lora(
        model, rank=config.lora_rank, alpha=config.lora_alpha, targets=config.lora_targets
    )


def _identity(config: TuneConfig, prepared: _Prepared) -> dict[str, Any]:
    """What must be the same for a started run to be gone on with."""
    settings = {name: value for name, value in asdict(config).items() if name != "out"}
    return {
        **settings,
        "data_hash": prepared.read.hash,
        "base_identity": prepared.model.identity,
        "template_hash": content_hash(prepared.model.template.source),
    }


def _write_rejects(folder: Path, prepared: _Prepared) -> None:
    """Keep what was not trained on, with the reason; nothing is dropped in silence."""
    text = "".join(map(reject_line, prepared.read.rejects))
    for refused in prepared.plan.refused:
        text += json.dumps({"example": refused.number, "reason": refused.reason}) + "\n"
    if text:
        (folder / REJECTS_FILE).write_text(text, encoding="utf-8")


def _write_checkpoint(
    config: TuneConfig, prepared: _Prepared, done: Progress, table: Preflight, work: Workfolder
) -> None:
    model = prepared.model
    parents = [model.identity, prepared.read.id]
    metrics = _metrics(config, prepared, done, table)
    facts = {"data": config.data, "base": config.base, "metrics": metrics}
    with finished_folder(work, parents, facts) as folder:
        model.causal_lm.set_attn_implementation("sdpa")
        model.model.save_pretrained(folder)
        save_words_side(model, folder)
        for name in (METRICS_FILE, REJECTS_FILE):
            if (work.folder / name).exists():
                (folder / name).write_bytes((work.folder / name).read_bytes())
        comment = "Everything this run used. `burnish tune --config run.toml` repeats it."
        write_toml(folder / "run.toml", config, table="tune", comment=comment)


def _metrics(
    config: TuneConfig, prepared: _Prepared, done: Progress, table: Preflight
) -> dict[str, Any]:
    """The JSON object that `burnish tune --json` prints."""
    model = prepared.model
    flops = useful_flops(model, done.computed_tokens, done.loss_terms)
    return {
        "technique": config.technique,
        "epochs": done.steps / prepared.batches.steps_per_epoch,
        "steps": done.steps,
        "examples": len(prepared.plan.examples),
        "tokens": done.tokens,
        "computed_tokens": done.computed_tokens,
        "supervised_tokens": done.supervised_tokens,
        "train_seconds": done.seconds,
        "tokens_per_second": done.tokens / done.seconds,
        "first_loss": done.losses[0],
        "last_loss": done.losses[-1],
        "losses": done.losses,
        "peak_memory_bytes": peak_memory(),
        "trainable_parameters": sum(p.numel() for _, p in trainable_parameters(model)),
        "flops_utilisation": flops / done.seconds / table.gemm_flops,
    }


def _checkpoint(out: Path) -> Checkpoint:
    manifest = read_manifest(out)
    metrics = {"checkpoint": str(out), **manifest["facts"]["metrics"]}
    return Checkpoint(manifest["id"], out, tuple(manifest["parents"]), metrics)
