"""Tune: examples and a base in, a checkpoint out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from burnish.config import write_toml
from burnish.hashing import content_hash
from burnish.nn.flops import useful_flops
from burnish.nn.loop import LoopSettings, run_steps
from burnish.nn.memory import peak_memory, reset_peak_memory
from burnish.nn.models import LoadedModel, save_words_side
from burnish.nn.optim import learning_rates
from burnish.nn.preflight import Preflight, preflight
from burnish.nn.run_state import METRICS_FILE, Progress
from burnish.nn.support import runs_on_forests
from burnish.nn.techniques import save_weights, trainable_parameters
from burnish.nn.trunk_cache import trunk_cache
from burnish.nn.workfolder import Workfolder, finished_folder, resume_or_start
from burnish.project import read_manifest
from burnish.records.mixture import Mixture, read_mixture
from burnish.records.rejects import reject_line
from burnish.tune.config import TuneConfig
from burnish.tune.prepare import Prepared, open_model, prepare, read_validation
from burnish.types import Checkpoint

REJECTS_FILE = "rejects.jsonl"

# What may change between a killed run and the one that goes on with it.
_NOT_IDENTITY = ("out", "data", "base", "validation", "track", "price_per_hour", "watts")


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
    mixture = read_mixture(config.data, as_format=config.data_format)
    validation = read_validation(config)
    model = open_model(config, mixture)
    with resume_or_start(config.out, _identity(config, mixture, validation, model)) as work:
        if work.finished is not None:
            return _checkpoint(config.out)
        prepared = prepare(config, mixture, validation, model, work.folder)
        _write_rejects(work.folder, prepared)
        with _trunk(prepared):
            table = _preflight(prepared)
            on_preflight(table)
            reset_peak_memory()
            done = run_steps(
                model,
                prepared.optimizer,
                prepared.batches,
                _loop_settings(config, prepared),
                work.folder,
            )
            metrics = _metrics(config, prepared, done, table)
        _write_checkpoint(config, prepared, metrics, work)
    return _checkpoint(config.out)


def dry_run(config: TuneConfig) -> Preflight:
    """Everything `tune` does before step 1; writes nothing."""
    mixture = read_mixture(config.data, as_format=config.data_format)
    validation = read_validation(config)
    model = open_model(config, mixture)
    with tempfile.TemporaryDirectory() as folder:
        return _preflight(prepare(config, mixture, validation, model, Path(folder)))


def _identity(
    config: TuneConfig, mixture: Mixture, validation: Mixture | None, model: LoadedModel
) -> dict[str, Any]:
    """What must be the same for a started run to be gone on with."""
    settings = {n: value for n, value in asdict(config).items() if n not in _NOT_IDENTITY}
    return {
        **settings,
        "data_hash": mixture.hash,
        "validation_hash": validation.hash if validation is not None else None,
        "base_identity": model.identity,
        "template_hash": content_hash(model.template.source),
    }


def _trunk(prepared: Prepared) -> AbstractContextManager[Any]:
    if prepared.trunk is None:
        return nullcontext()
    return trunk_cache(prepared.model, prepared.plan.rows, prepared.trunk)


def _preflight(prepared: Prepared) -> Preflight:
    return preflight(
        prepared.model,
        prepared.plan,
        prepared.batches,
        steps=prepared.steps,
        optimizer_bytes=prepared.fit.footprint.optimizer,
        trunk=prepared.trunk,
        gradient_difference=prepared.gradient_difference,
        notes=prepared.notes,
    )


def _loop_settings(config: TuneConfig, prepared: Prepared) -> LoopSettings:
    return LoopSettings(
        steps=prepared.steps,
        learning_rate=learning_rates(
            config.schedule,
            config.peak_learning_rate,
            prepared.steps,
            config.warmup_fraction,
            config.decay_fraction,
        ),
        what=f"tune {config.technique}",
        max_grad_norm=config.max_grad_norm,
        before_step=prepared.before_step,
        validate=prepared.validate,
        validate_every=config.validate_every,
        early_stopping_patience=config.early_stopping_patience,
        keep_best=config.keep_best,
        track=config.track,
        price_per_hour=config.price_per_hour,
        watts=config.watts,
    )


def _write_rejects(folder: Path, prepared: Prepared) -> None:
    """Keep what was not trained on, with the reason; nothing is dropped in silence."""
    text = "".join(map(reject_line, prepared.mixture.rejects))
    for refused in prepared.plan.refused:
        line = {"example": refused.number, "reason": refused.reason}
        if len(prepared.plan.sources) > 1:
            line["source"] = prepared.plan.sources[refused.source].name
        text += json.dumps(line) + "\n"
    if text:
        (folder / REJECTS_FILE).write_text(text, encoding="utf-8")


def _write_checkpoint(
    config: TuneConfig, prepared: Prepared, metrics: dict[str, Any], work: Workfolder
) -> None:
    model = prepared.model
    parents = [model.identity, *prepared.mixture.parents]
    facts = {"data": config.data, "base": config.base, "metrics": metrics}
    with finished_folder(work, parents, facts) as folder:
        if runs_on_forests(model):
            model.causal_lm.set_attn_implementation("sdpa")
        save_weights(model, folder)
        save_words_side(model, folder)
        for name in (METRICS_FILE, REJECTS_FILE):
            if (work.folder / name).exists():
                (folder / name).write_bytes((work.folder / name).read_bytes())
        comment = "Everything this run used. `burnish tune --config run.toml` repeats it."
        write_toml(folder / "run.toml", config, table="tune", comment=comment)


def _metrics(
    config: TuneConfig, prepared: Prepared, done: Progress, table: Preflight
) -> dict[str, Any]:
    """The JSON object that `burnish tune --json` prints."""
    model, trunk = prepared.model, prepared.trunk
    cached = trunk.depth if trunk is not None and trunk.refusal is None else 0
    flops = useful_flops(model, done.computed_tokens, done.loss_terms, cached_blocks=cached)
    return {
        "technique": config.technique,
        "epochs": done.steps / prepared.batches.steps_per_epoch,
        "steps": done.steps,
        "examples": prepared.plan.examples,
        "tokens": done.tokens,
        "computed_tokens": done.computed_tokens,
        "supervised_tokens": done.supervised_tokens,
        "train_seconds": done.seconds,
        "tokens_per_second": done.tokens / done.seconds,
        "first_loss": done.losses[0],
        "last_loss": done.losses[-1],
        "losses": done.losses,
        "peak_memory_bytes": peak_memory(),
        "estimated_memory_bytes": table.memory_bytes,
        "trainable_parameters": sum(p.numel() for _, p in trainable_parameters(model)),
        "flops_utilisation": flops / done.seconds / table.gemm_flops,
        "optimizer": config.optimizer,
        "master_weights": prepared.optimizer.master_weights,
        "cached_blocks": cached,
        "gradient_difference": prepared.gradient_difference,
        **done.facts(config.price_per_hour),
    }


def _checkpoint(out: Path) -> Checkpoint:
    manifest = read_manifest(out)
    metrics = {"checkpoint": str(out), **manifest["facts"]["metrics"]}
    return Checkpoint(manifest["id"], out, tuple(manifest["parents"]), metrics)
