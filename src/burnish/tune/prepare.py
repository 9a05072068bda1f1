"""Everything before step 1: the model with its technique, the rows, the batches, the checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch

from burnish.chat import check_laws
from burnish.errors import ConfigError
from burnish.files import replaced_file
from burnish.nn import techniques
from burnish.nn.batches import Batches
from burnish.nn.flops import useful_flops
from burnish.nn.footprint import Fit, Masters, fit_into_memory
from burnish.nn.fused import can_compile, fuse
from burnish.nn.models import LoadedModel, load_model
from burnish.nn.optim import Optimizer, optimizer_bytes
from burnish.nn.plan import Plan, plan_examples
from burnish.nn.preflight import refuse_untrainable
from burnish.nn.selfcheck import check_gradients
from burnish.nn.support import runs_on_forests, use_forests
from burnish.nn.trunk_cache import TrunkEstimate, estimate_trunk
from burnish.nn.validation import ValidationLoss
from burnish.records.mixture import Mixture, read_mixture
from burnish.tune.config import TuneConfig

_CHOICE_FILE = "choice.json"

# FLOPs of a run from which on compiling pays: some minutes on two cores, for 10 s of compiling.
_WORTH_COMPILING = 2e14

_SWITCHES = {"auto": None, "on": True, "off": False}


@dataclass(frozen=True)
class Prepared:
    """A run ready for step 1."""

    mixture: Mixture
    model: LoadedModel
    plan: Plan
    batches: Batches
    steps: int
    optimizer: Optimizer
    before_step: tuple[Callable[[int], None], ...]
    validate: Callable[[], float] | None
    fit: Fit
    trunk: TrunkEstimate | None
    """None where `cache_trunk` is off."""
    gradient_difference: float
    """Of the forest from the examples one by one, relative: see `nn.selfcheck`."""
    notes: tuple[str, ...]
    """What was done otherwise than asked, and why."""


def read_validation(config: TuneConfig) -> Mixture | None:
    """What to validate on, where there is something.

    Raises:
        ConfigError: a setting needs it and there is nothing.
    """
    data = config.validation
    if data is None and (Path(config.data) / "validation.parquet").is_file():
        data = config.data
    if data is not None:
        return read_mixture(data, as_format=config.data_format, split="validation")
    for name in ("validate_every", "early_stopping_patience", "keep_best"):
        if getattr(config, name):
            raise ConfigError(
                f"{name} needs examples to validate on, and there are none",
                do="--set validation=FILE, or tune on a snapshot with a validation part",
            )
    return None


def open_model(config: TuneConfig, mixture: Mixture) -> LoadedModel:
    """The base with the technique applied; faults of the settings come before any long work."""
    model = load_model(
        config.base,
        precision=config.precision,
        template=config.template,
        trained=config.technique not in ("full", "layers"),
        quantisation=None if config.quantisation == "none" else config.quantisation,
    )
    torch.manual_seed(config.seed)
    model = apply_technique(config, model)
    if config.template != "auto" or not mixture.all_raw:
        check_laws(model.template)
    return model


def apply_technique(config: TuneConfig, model: LoadedModel) -> LoadedModel:
    """Make trainable what `technique` trains, and freeze the rest."""
    match config.technique:
        case "full":
            return techniques.train_everything(model)
        case "layers" if config.trained_modules:
            return techniques.train_matching(model, config.trained_modules)
        case "layers":
            return techniques.train_top_layers(model, config.top_layers)
        case "lora":
            return techniques.add_lora(
                model,
                rank=config.lora_rank,
                alpha=config.lora_alpha,
                targets=config.lora_targets,
                use_rslora=config.use_rslora,
                use_dora=config.use_dora,
                init=config.lora_init,
                layers=config.lora_layers,
            )
        case "bottleneck":
            return techniques.add_bottleneck(
                model, size=config.bottleneck_size, placement=config.bottleneck_placement
            )
        case "ia3":
            return techniques.add_ia3(model)
        case "prefix":
            return techniques.add_prefix(model, virtual_tokens=config.virtual_tokens)
        case "prompt":
            return techniques.add_prompt(model, virtual_tokens=config.virtual_tokens)


def prepare(
    config: TuneConfig,
    mixture: Mixture,
    validation: Mixture | None,
    model: LoadedModel,
    folder: Path,
) -> Prepared:
    """Render, check, order, and fit into memory; `folder` keeps the rendered rows.

    Raises:
        UserError: what cannot be trained, with the reason.
    """
    as_chat = config.template != "auto"
    plan = plan_examples(mixture, model.template, config.max_length, folder, as_chat=as_chat)
    refuse_untrainable(plan, model.template)
    batches, notes = _batches(config, model, plan)
    validate = _validation_loss(config, validation, model, folder)
    steps = max(1, round(config.epochs * batches.steps_per_epoch))
    steps = min(steps, config.max_steps or steps)
    choice = _kept_choice(folder)
    compiled = choice.compile if choice else _is_compiled(config, model, plan, batches, steps)
    fuse(model, compiled=compiled)
    difference = check_gradients(model, batches.rows(0))
    fit = fit_into_memory(
        model,
        partial(optimizer_bytes, model.model, config.optimizer_settings()),
        batch_tokens=choice.batch_tokens if choice else batches.batch_tokens,
        longest=int(plan.rows.lengths.max()),
        memory_gb=config.memory_gb,
        checkpointing=choice.checkpointing
        if choice
        else _SWITCHES[config.activation_checkpointing],
        master_weights=choice.master_weights if choice else config.master_weights,
    )
    _keep_choice(folder, fit, compiled)
    if runs_on_forests(model):
        batches = batches.with_budget(fit.batch_tokens)
    trunk = _trunk(config, model, plan, batches, steps)
    optimizer = _optimizer(config, model, fit)
    return Prepared(
        mixture=mixture,
        model=model,
        plan=plan,
        batches=batches,
        steps=steps,
        optimizer=optimizer,
        before_step=_before_step(config, model),
        validate=validate,
        fit=fit,
        trunk=trunk,
        gradient_difference=difference,
        notes=(*notes, *fit.notes),
    )


def _batches(config: TuneConfig, model: LoadedModel, plan: Plan) -> tuple[Batches, list[str]]:
    """The batches of the run, and what about sharing is not as asked."""
    notes = []
    share_prefixes, batch_tokens = config.share_prefixes, config.batch_tokens
    if share_prefixes and config.neftune_alpha:
        share_prefixes = False
        notes.append("prefixes are not shared: with NEFTune each example has its own noise")
    obstacle = use_forests(model)
    if obstacle is not None and config.technique == "prefix":
        raise ConfigError(f"prefix tuning needs forests: {obstacle}", do="--technique lora")
    if obstacle is not None:
        # One example alone is what such a model's own attention is exact for.
        share_prefixes, batch_tokens = False, 1
        notes.append(f"examples run one at a time, prefixes are not shared: {obstacle}")
    batches = Batches(
        plan.rows,
        batch_examples=config.batch_examples,
        batch_tokens=batch_tokens,
        order=config.order,
        seed=config.seed,
        share_prefixes=share_prefixes,
        bundle_examples=config.bundle_examples,
        sources=[source.rows for source in plan.sources],
    )
    return batches, notes


@dataclass(frozen=True, slots=True)
class _Choice:
    """What a run was fitted to the machine by; a run that goes on keeps it, to the last bit."""

    batch_tokens: int
    master_weights: Masters
    checkpointing: bool
    compile: bool


def _kept_choice(folder: Path) -> _Choice | None:
    path = folder / _CHOICE_FILE
    return _Choice(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _keep_choice(folder: Path, fit: Fit, compiled: bool) -> None:
    choice = _Choice(fit.batch_tokens, fit.master_weights, fit.checkpointing, compiled)
    with replaced_file(folder / _CHOICE_FILE) as temporary:
        temporary.write_text(json.dumps(asdict(choice)) + "\n", encoding="utf-8")


def _is_compiled(
    config: TuneConfig, model: LoadedModel, plan: Plan, batches: Batches, steps: int
) -> bool:
    """Whether to compile the elementwise parts: for long runs, where a compiler works."""
    if config.compile != "auto":
        return config.compile == "on"
    tokens = batches.epoch_tokens * steps / batches.steps_per_epoch
    terms = tokens * plan.supervised_tokens / plan.tokens
    flops = useful_flops(model, int(tokens / batches.sharing_factor), int(terms))
    return flops > _WORTH_COMPILING and can_compile()


def _optimizer(config: TuneConfig, model: LoadedModel, fit: Fit) -> Optimizer:
    return Optimizer(
        model.model,
        replace(config.optimizer_settings(), master_weights=fit.master_weights),
        seed=config.seed,
        learning_rate_multiplier=partial(
            techniques.learning_rate_multiplier, loraplus_lr_ratio=config.loraplus_lr_ratio
        ),
    )


def _trunk(
    config: TuneConfig, model: LoadedModel, plan: Plan, batches: Batches, steps: int
) -> TrunkEstimate | None:
    if not config.cache_trunk:
        return None
    return estimate_trunk(
        model,
        plan.rows,
        limit=config.trunk_cache_gb * 1e9,
        epochs=steps / batches.steps_per_epoch,
        order=batches.prefixes.order if batches.prefixes is not None else None,
    )


def _before_step(config: TuneConfig, model: LoadedModel) -> tuple[Callable[[int], None], ...]:
    hooks: list[Callable[[int], None]] = []
    if config.unfreeze_every:
        hooks.append(techniques.GradualUnfreezing(model, config.top_layers, config.unfreeze_every))
    if config.neftune_alpha:
        hooks.append(techniques.EmbeddingNoise(model, config.neftune_alpha, config.seed))
    return tuple(hooks)


def _validation_loss(
    config: TuneConfig, mixture: Mixture | None, model: LoadedModel, folder: Path
) -> Callable[[], float] | None:
    if mixture is None:
        return None
    plan = plan_examples(
        mixture,
        model.template,
        config.max_length,
        folder / "validation",
        as_chat=config.template != "auto",
    )
    if not plan.examples:
        raise ConfigError(
            "no example with a supervised token to validate on",
            where=", ".join(source.examples.records.name for source in mixture.sources),
            do="give rows that end with an answer, or raise max_length",
        )
    return ValidationLoss(model, plan.rows, config.validation_examples, config.batch_tokens)
