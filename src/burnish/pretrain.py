"""Pretrain: text in, a base model out; or text and a base in, the base continued on the text."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from burnish.chat import choose_template
from burnish.config import write_toml
from burnish.errors import ConfigError, InputError, ModelError
from burnish.files import replaced_folder
from burnish.nn.attention import ATTENTION
from burnish.nn.batches import Batches
from burnish.nn.corpus import Corpus, Windows, text_identity, tokenise, train_tokenizer
from burnish.nn.forest import plant
from burnish.nn.loop import LoopSettings, run_steps
from burnish.nn.memory import peak_memory
from burnish.nn.models import (
    LoadedModel,
    compute_dtype,
    device,
    load_model,
    save_words_side,
)
from burnish.nn.optim import Optimizer, OptimizerSettings, ScheduleName, learning_rates
from burnish.nn.run_state import METRICS_FILE, Progress
from burnish.nn.step import forest_loss
from burnish.nn.workfolder import Workfolder, finished_folder, resume_or_start
from burnish.progress import progress
from burnish.project import read_manifest
from burnish.types import Checkpoint

# Usual for language models since GPT-3 (arXiv 2005.14165, appendix B): a shorter memory of squared
# gradients than the optimiser's default.
_ADAM_BETA2 = 0.95

_TOKENIZER_FOLDER = "tokenizer"


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining run. The defaults make a model the size of `starter`."""

    text: tuple[Path, ...]
    """Files of text: .txt (each line a document); .jsonl, .csv or .parquet with a `text` column."""
    out: Path
    """Where the model goes; `OUT.partial` beside it holds the run until it ends."""
    base: str | None = None
    """A base to continue on the text; it brings its own tokenizer and shape."""
    vocabulary_size: int = 8192
    """Tokens of the tokenizer that is trained on the text; 259 (all bytes, 3 special) at least."""
    layers: int = 4
    """Decoder blocks."""
    hidden: int = 256
    """Width of the hidden states."""
    heads: int = 4
    """Query heads; hidden is a multiple of twice their number."""
    kv_heads: int = 2
    """Key/value heads (grouped-query attention, arXiv 2305.13245); heads is a multiple of it."""
    intermediate: int = 688
    """Width inside the feed-forward blocks."""
    tie_embeddings: bool = True
    """Use one matrix for token embeddings and LM head."""
    max_positions: int = 2048
    """The longest input the finished model takes, in tokens; at least `context`."""
    context: int = 256
    """Tokens of a training window."""
    epochs: float = 1.0
    """Passes over the text."""
    max_steps: int | None = None
    """Stop after so many optimiser steps, whatever `epochs` says."""
    learning_rate: float = 2e-3
    """Peak learning rate; a base to be continued wants about 1e-4."""
    schedule: ScheduleName = "cosine"
    """`cosine`, `linear`, `constant` or `wsd` (decay over the last fifth) after the warm-up."""
    warmup_fraction: float = 0.05
    """Share of the steps in which the learning rate rises linearly."""
    weight_decay: float = 0.1
    """AdamW's decoupled weight decay, on matrices only."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm; 0 never clips."""
    batch_windows: int = 16
    """Windows per optimiser step."""
    batch_tokens: int = 4096
    """Tokens run through the model at once; bounds memory, never changes the loss."""
    held_out: float = 0.01
    """Share of the documents that are scored at the end and never trained on; 0 for none."""
    precision: str = "auto"
    """`bf16`, `fp32`, or `auto`: bf16 where the hardware multiplies it."""
    seed: int = 0
    """Seeds the initial weights and the order of the windows."""

    def __post_init__(self) -> None:
        """Check ranges and what goes with what; all faults at once."""
        faults = [*_range_faults(self), *_shape_faults(self)]
        if faults:
            raise ConfigError("\n    ".join(faults))


def _range_faults(config: PretrainConfig) -> list[str]:
    faults = [] if config.text else ["text is empty: name at least one file"]
    smallest = {"vocabulary_size": 259, "context": 2} | dict.fromkeys(
        ("layers", "hidden", "heads", "kv_heads", "intermediate", "batch_windows", "batch_tokens"),
        1,
    )
    for name, least in smallest.items():
        if getattr(config, name) < least:
            faults.append(f"{name} = {getattr(config, name)}: must be at least {least}")
    if config.max_steps is not None and config.max_steps < 1:
        faults.append(f"max_steps = {config.max_steps}: must be at least 1")
    for name in ("epochs", "learning_rate"):
        if getattr(config, name) <= 0:
            faults.append(f"{name} = {getattr(config, name)}: must be above 0")
    for name in ("weight_decay", "max_grad_norm"):
        if getattr(config, name) < 0:
            faults.append(f"{name} = {getattr(config, name)}: must not be negative")
    if not 0 <= config.warmup_fraction <= 1:
        faults.append(f"warmup_fraction = {config.warmup_fraction}: must be from 0 to 1")
    if not 0 <= config.held_out <= 0.5:
        faults.append(f"held_out = {config.held_out}: must be from 0 to 0.5")
    if config.precision not in ("auto", "bf16", "fp32"):
        faults.append(f"precision = {config.precision!r}: must be auto, bf16 or fp32")
    return faults


def _shape_faults(config: PretrainConfig) -> list[str]:
    if config.base is not None:
        defaults = {name: field.default for name, field in config.__dataclass_fields__.items()}
        return [
            f"{name} = {getattr(config, name)}: the base brings its own, so leave it out"
            for name in _SHAPE
            if getattr(config, name) != defaults[name]
        ]
    faults = []
    if config.heads > 0 and config.hidden % (2 * config.heads):
        faults.append(
            f"hidden = {config.hidden}: must be a multiple of 2 x heads = {2 * config.heads} "
            "(rotary positions turn pairs)"
        )
    if config.kv_heads > 0 and config.heads % config.kv_heads:
        faults.append(f"heads = {config.heads}: must be a multiple of kv_heads = {config.kv_heads}")
    if config.context > config.max_positions:
        faults.append(f"context = {config.context}: above max_positions = {config.max_positions}")
    return faults


_SHAPE = (
    "vocabulary_size",
    "layers",
    "hidden",
    "heads",
    "kv_heads",
    "intermediate",
    "tie_embeddings",
    "max_positions",
)


def pretrain(config: PretrainConfig) -> Checkpoint:
    """Train a language model on text, from random weights or from a base.

    A run that was killed goes on where its last saved state stands when the same call is made
    again, and gives the same losses as an unbroken one.

    Raises:
        UserError: text, base or settings that cannot be trained with, or another run in the way;
            nothing is written to `config.out`.
    """
    text = text_identity(config.text)
    base = None if config.base is None else _open_base(config)
    with resume_or_start(config.out, _identity(config, text, base)) as work:
        if work.finished is not None:
            return _checkpoint(config.out)
        model = base or _new_model(config, work)
        model.causal_lm.set_attn_implementation(ATTENTION)
        corpus = tokenise(config.text, model.tokenizer, work.folder, config.held_out)
        batches = _batches(config, corpus)
        steps = max(1, round(config.epochs * batches.steps_per_epoch))
        steps = min(steps, config.max_steps or steps)
        adamw = OptimizerSettings(weight_decay=config.weight_decay, adam_beta2=_ADAM_BETA2)
        optimizer = Optimizer(model.model, adamw, seed=config.seed)
        rates = learning_rates(config.schedule, config.learning_rate, steps, config.warmup_fraction)
        settings = LoopSettings(steps, rates, "pretrain", max_grad_norm=config.max_grad_norm)
        done = run_steps(model, optimizer, batches, settings, work.folder)
        parents = [text] if base is None else [base.identity, text]
        _write_checkpoint(config, model, corpus, done, work, parents)
    return _checkpoint(config.out)


def _identity(config: PretrainConfig, text: str, base: LoadedModel | None) -> dict[str, Any]:
    """What must be the same for a started run to be gone on with; files may move."""
    settings = {k: v for k, v in asdict(config).items() if k not in ("out", "text", "base")}
    return {
        **settings,
        "precision": str(compute_dtype(config.precision)).removeprefix("torch."),
        "text": text,
        "base": base and base.identity,
    }


def _open_base(config: PretrainConfig) -> LoadedModel:
    assert config.base is not None
    model = load_model(config.base, precision=config.precision)
    positions = getattr(model.causal_lm.config, "max_position_embeddings", config.context)
    if model.model is not model.causal_lm:
        raise ModelError(
            "is an adapter, which cannot be pretrained",
            where=config.base,
            do="merge it first with `burnish export --to merged`",
        )
    if model.tokenizer.eos_token_id is None:
        raise ModelError(
            "its tokenizer has no end-of-sequence token to put between documents",
            where=config.base,
            do="set eos_token in its tokenizer_config.json",
        )
    if config.context > positions:
        raise ConfigError(f"context = {config.context}: {config.base} takes at most {positions}")
    return model


def _new_model(config: PretrainConfig, work: Workfolder) -> LoadedModel:
    """A tokenizer trained on the text (or in the working folder already) and random weights."""
    folder = work.folder / _TOKENIZER_FOLDER
    if not folder.exists():
        with replaced_folder(folder) as temporary:
            train_tokenizer(config.text, config.vocabulary_size).save_pretrained(temporary)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        intermediate_size=config.intermediate,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=config.tie_embeddings,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = LlamaForCausalLM(shape)
    _round_weights(model, compute_dtype(config.precision))
    template = choose_template(tokenizer)
    return LoadedModel(
        model.to(device()), tokenizer, template, "none", str(config.out), work.folder
    )


def _round_weights(model: Any, dtype: torch.dtype) -> None:
    """Put the weights into `dtype`, and only them.

    `model.to(dtype)` would round the frequencies of the rotary positions too, which a model opened
    from disk keeps in fp32: 0.4 % off is half a radian at position 128.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def _batches(config: PretrainConfig, corpus: Corpus) -> Batches:
    """The windows of each step, shuffled anew each epoch."""
    if len(corpus.train) <= config.context:
        raise InputError(
            f"only {len(corpus.train):,} tokens to train on, less than a window of "
            f"{config.context:,}",
            where=", ".join(str(path) for path in config.text),
            do="give more text or a smaller context",
        )
    return Batches(
        Windows(corpus.train, config.context),
        batch_examples=config.batch_windows,
        batch_tokens=config.batch_tokens,
        order="shuffled",
        seed=config.seed,
        share_prefixes=False,
    )


def score_text(
    model: LoadedModel, corpus: Corpus, context: int, batch_tokens: int
) -> dict[str, Any]:
    """Score the held-out documents: mean loss, perplexity, bits per byte.

    With the cross-entropy of each token in nats, over N tokens that stand for B bytes of UTF-8:

        loss           = sum / N
        perplexity     = exp(loss)
        bits_per_byte  = sum / (B ln 2)

    Bits per byte compares models whose tokenizers differ (Gao et al., The Pile, arXiv 2101.00027).
    The end of each document is a token too, of no bytes.
    """
    windows = Windows(corpus.held_out, context)
    at_once = max(1, batch_tokens // context)
    nats, tokens = 0.0, 0
    with torch.inference_mode():
        for start in progress(range(0, len(windows), at_once), "score held-out text", unit="batch"):
            rows = [windows[n] for n in range(start, min(start + at_once, len(windows)))]
            forest = plant(rows, share_prefixes=False)
            nats += forest_loss(model, forest).item()
            tokens += len(forest.targets)
    return {
        "tokens": tokens,
        "bytes": corpus.held_out_bytes,
        "loss": nats / tokens,
        "perplexity": math.exp(nats / tokens),
        "bits_per_byte": nats / (corpus.held_out_bytes * math.log(2)),
    }


def _write_checkpoint(
    config: PretrainConfig,
    model: LoadedModel,
    corpus: Corpus,
    done: Progress,
    work: Workfolder,
    parents: list[str],
) -> None:
    # What is scored is what is saved: weights rounded to bf16.
    compute = next(model.model.parameters()).dtype
    _round_weights(model.model, torch.bfloat16)
    _round_weights(model.model, compute)
    held_out = (
        score_text(model, corpus, config.context, config.batch_tokens) if config.held_out else None
    )
    facts = {
        "text": [str(path) for path in config.text],
        "base": config.base,
        "metrics": _metrics(config, model, corpus, done, held_out),
    }
    with finished_folder(work, parents, facts) as folder:
        model.causal_lm.set_attn_implementation("sdpa")
        _round_weights(model.model, torch.bfloat16)
        model.model.config.dtype = torch.bfloat16
        model.model.save_pretrained(folder)
        save_words_side(model, folder)
        (folder / METRICS_FILE).write_bytes((work.folder / METRICS_FILE).read_bytes())
        comment = "Everything this run used. `burnish pretrain --config run.toml` repeats it."
        write_toml(folder / "run.toml", config, table="pretrain", comment=comment)


def _metrics(
    config: PretrainConfig,
    model: LoadedModel,
    corpus: Corpus,
    done: Progress,
    held_out: dict[str, Any] | None,
) -> dict[str, Any]:
    """The JSON object that `burnish pretrain --json` prints."""
    batches = _batches(config, corpus)
    return {
        "epochs": done.steps / batches.steps_per_epoch,
        "steps": done.steps,
        "documents": corpus.documents,
        "text_tokens": len(corpus.train),
        "tokens": done.tokens,
        "train_seconds": done.seconds,
        "tokens_per_second": done.tokens / done.seconds,
        "first_loss": done.losses[0],
        "last_loss": done.losses[-1],
        "losses": done.losses,
        "held_out": held_out,
        "peak_memory_bytes": peak_memory(),
        "trainable_parameters": sum(p.numel() for p in model.model.parameters()),
    }


def _checkpoint(out: Path) -> Checkpoint:
    manifest = read_manifest(out)
    metrics = {"checkpoint": str(out), **manifest["facts"]["metrics"]}
    return Checkpoint(manifest["id"], out, tuple(manifest["parents"]), metrics)
