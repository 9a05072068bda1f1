"""The settings of a tuning run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from burnish.errors import ConfigError
from burnish.nn.batches import Order
from burnish.nn.optim import MasterWeights, OptimizerName, OptimizerSettings, ScheduleName
from burnish.nn.quantised import Quantisation
from burnish.nn.techniques import LoraInit, Placement, Technique
from burnish.nn.track import TrackerName, check_trackers

Switch = Literal["auto", "on", "off"]

# Usual peaks for each technique; adapters take about ten times the rate of full fine-tuning
# (Schulman et al., "LoRA Without Regret", 2025), trained prompts far more (Lester et al., 2021).
_LEARNING_RATES: dict[Technique, float] = {
    "full": 2e-5,
    "layers": 5e-5,
    "lora": 2e-4,
    "bottleneck": 3e-4,
    "ia3": 3e-3,
    "prefix": 3e-3,
    "prompt": 3e-2,
}

_AT_LEAST_ONE = (
    "lora_rank",
    "top_layers",
    "bottleneck_size",
    "virtual_tokens",
    "batch_examples",
    "batch_tokens",
    "max_length",
    "validation_examples",
)
_AT_LEAST_ZERO = (
    "unfreeze_every",
    "lora_layers",
    "neftune_alpha",
    "max_grad_norm",
    "validate_every",
    "early_stopping_patience",
    "bundle_examples",
    "trunk_cache_gb",
    "memory_gb",
    "seed",
)


@dataclass(frozen=True)
class TuneConfig:
    """Everything a run depends on; written beside the checkpoint as run.toml."""

    data: str
    """A file (JSONL, JSON, CSV, Parquet, text), the folder of a snapshot, or a TOML file that names
    several of these with weights and caps."""
    base: str
    """A hub id, a local folder, a .gguf file, a checkpoint, or `starter`."""
    out: Path
    """Where the checkpoint goes; `OUT.partial` beside it holds the run until it ends."""
    technique: Technique = "lora"
    """`full`, `layers` (some of the base's own weights), or adapters on a frozen base: `lora`,
    `bottleneck`, `ia3`, `prefix`, `prompt`."""
    epochs: float = 3.0
    """Passes over the examples."""
    max_steps: int | None = None
    """Stop after so many optimiser steps, whatever `epochs` says."""

    top_layers: int = 2
    """For `layers`: how many blocks at the top are trained, with the final norm."""
    trained_modules: tuple[str, ...] = ()
    """For `layers`, instead of `top_layers`: glob patterns over parameter names."""
    unfreeze_every: int = 0
    """For `layers`: begin with the top block, one more every so many steps; 0 is all at once."""
    lora_rank: int = 16
    """Rank of the LoRA matrices."""
    lora_alpha: float = 32.0
    """LoRA's scale is lora_alpha / lora_rank."""
    lora_targets: str | tuple[str, ...] = "all-linear"
    """Which linear layers get LoRA: `all-linear` (without the LM head) or module names."""
    lora_layers: int = 0
    """LoRA in the top so many blocks only; 0 is in all."""
    lora_init: LoraInit = "default"
    """`default` (B is zero) or `pissa` (the weight's largest singular directions)."""
    use_rslora: bool = False
    """Rank-stabilised LoRA: the scale is lora_alpha / sqrt(lora_rank)."""
    use_dora: bool = False
    """DoRA: learn the length of each weight row apart from its direction."""
    loraplus_lr_ratio: float = 1.0
    """LoRA+: the B matrices learn so many times faster; 16 is usual, 1 is plain LoRA."""
    bottleneck_size: int = 64
    """For `bottleneck`: width of the adapter layers."""
    bottleneck_placement: Placement = "pfeiffer"
    """For `bottleneck`: `pfeiffer` (after the MLP) or `houlsby` (after attention too)."""
    virtual_tokens: int = 20
    """For `prefix` and `prompt`: how many trained tokens stand before every example."""
    quantisation: Quantisation = "none"
    """Hold the frozen base under adapters in `int8` or `int4`."""
    neftune_alpha: float = 0.0
    """NEFTune noise on the embeddings; 5 is usual, 0 is none. Prefixes are not shared then."""

    learning_rate: float | None = None
    """Peak learning rate; by default 2e-5 for full, 5e-5 for layers, 2e-4 for lora, 3e-4 for
    bottleneck, 3e-3 for ia3 and prefix, 3e-2 for prompt."""
    schedule: ScheduleName = "cosine"
    """After the warm-up: `cosine`, `linear`, `constant`, or `wsd` (constant, then down)."""
    warmup_fraction: float = 0.03
    """Share of the steps in which the learning rate rises linearly."""
    decay_fraction: float = 0.2
    """For `wsd`: share of the steps in which the learning rate falls."""
    optimizer: OptimizerName = "adamw"
    """`adamw`, `adamw_8bit`, `muon`, `adafactor` or `sgd`."""
    adam_beta1: float = 0.9
    """AdamW's decay of the mean gradient."""
    adam_beta2: float = 0.999
    """AdamW's decay of the mean squared gradient."""
    momentum: float | None = None
    """For `sgd` (0.9 by default) and `muon` (0.95)."""
    weight_decay: float = 0.0
    """Weight decay, on matrices only; decoupled, but for `sgd`."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm; 0 never clips."""
    master_weights: MasterWeights = "auto"
    """How bf16 weights take small updates: `fp32` copies, `stochastic_rounding`, or `auto`: the
    copies if they fit into memory."""
    ema_decay: float = 0.0
    """Average the weights over the steps with this decay and keep the average; 0 is off."""

    validation: str | None = None
    """Examples to validate on; by default the validation part of a snapshot."""
    validate_every: int = 0
    """Validate every so many steps; 0 only at the end, if there is something to validate on."""
    validation_examples: int = 500
    """Validate on at most so many examples."""
    early_stopping_patience: int = 0
    """Stop after so many validations without a new best; 0 never."""
    keep_best: bool = False
    """Keep the weights of the best validation instead of the last ones."""

    batch_examples: int = 8
    """Examples per optimiser step."""
    batch_tokens: int = 4096
    """Computed tokens run through the model at once; bounds memory, never changes the loss."""
    bundle_examples: int = 0
    """Of one family of shared prefixes at most so many examples in a row; 0 is half a batch."""
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
    share_prefixes: bool = True
    """Compute prefixes that examples of a step share only once; the gradient is the same."""
    cache_trunk: bool = True
    """Keep the output of frozen lower blocks on disk and start later epochs above them."""
    trunk_cache_gb: float = 20.0
    """The most disk, in 10^9 bytes, that all cached trunks may take."""
    memory_gb: float = 0.0
    """The most memory, in 10^9 bytes, that the run may take; 0 is what the machine has free."""
    activation_checkpointing: Switch = "auto"
    """Compute activations again in the backward: `on`, `off`, or `auto`: if memory needs it."""
    compile: Switch = "auto"
    """Compile elementwise parts: `on`, `off`, or `auto`: for long runs, where a compiler works."""
    seed: int = 0
    """Seeds the order of examples and the adapters' initial weights."""

    track: tuple[TrackerName, ...] = ()
    """Where metrics go beside metrics.jsonl: `tensorboard`, `mlflow`, `wandb`."""
    price_per_hour: float | None = None
    """Price of this machine, for the cost so far."""
    watts: float | None = None
    """Power this machine draws, for the energy so far where it cannot be measured."""

    def __post_init__(self) -> None:
        """Check ranges; all faults at once."""
        faults = [*self._out_of_range(), *self._at_odds()]
        for check in (self.optimizer_settings, lambda: check_trackers(self.track)):
            try:
                check()
            except ConfigError as error:
                faults.append(error.what)
        if faults:
            raise ConfigError("\n    ".join(faults))

    def _out_of_range(self) -> list[str]:
        faults = []
        for names, least in ((_AT_LEAST_ONE, 1), (_AT_LEAST_ZERO, 0)):
            faults += [
                f"{name} = {getattr(self, name)}: must be at least {least}"
                for name in names
                if getattr(self, name) < least
            ]
        if self.max_steps is not None and self.max_steps < 1:
            faults.append(f"max_steps = {self.max_steps}: must be at least 1")
        for name in ("epochs", "learning_rate", "loraplus_lr_ratio", "lora_alpha"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                faults.append(f"{name} = {value}: must be above 0")
        for name in ("warmup_fraction", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                faults.append(f"{name} = {getattr(self, name)}: must be from 0 to 1")
        if self.precision not in ("auto", "bf16", "fp32"):
            faults.append(f"precision = {self.precision!r}: must be auto, bf16 or fp32")
        return faults

    def _at_odds(self) -> list[str]:
        """Settings that belong to another technique, or exclude each other."""
        faults = []
        mine = {
            "lora": ("lora_layers", "lora_init", "use_rslora", "use_dora", "loraplus_lr_ratio"),
            "layers": ("trained_modules", "unfreeze_every"),
        }
        for technique, names in mine.items():
            for name in names:
                given = getattr(self, name) != type(self).__dataclass_fields__[name].default
                if given and self.technique != technique:
                    faults.append(f"{name} is for technique {technique}, not {self.technique}")
        if self.quantisation != "none" and self.technique in ("full", "layers"):
            faults.append(f"quantisation holds a frozen base; {self.technique} trains its weights")
        if self.optimizer in ("sgd", "adafactor") and self.learning_rate is None:
            faults.append(
                f"optimizer = {self.optimizer} needs a learning_rate of its own: adafactor about "
                "1e-3, sgd some hundred times that of adamw"
            )
        if self.trained_modules and self.unfreeze_every:
            faults.append("unfreeze_every counts top_layers; it does not go with trained_modules")
        return faults

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate in force."""
        return self.learning_rate or _LEARNING_RATES[self.technique]

    def optimizer_settings(self) -> OptimizerSettings:
        """What the optimiser is made with."""
        return OptimizerSettings(
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            adam_beta1=self.adam_beta1,
            adam_beta2=self.adam_beta2,
            momentum=self.momentum,
            master_weights=self.master_weights,
            ema_decay=self.ema_decay,
        )
