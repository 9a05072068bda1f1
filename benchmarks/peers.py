"""The same work on the peers: TRL's SFTTrainer and Hugging Face's Trainer, and on CUDA Unsloth.

What is made the same as in Burnish, because each would make the losses differ:

- Token ids and labels are given ready-made, so chat template, mask and truncation are Burnish's.
- Examples in file order (`train_sampling_strategy="sequential"`), the same ones in each step.
- The loss of a step is the sum over its supervised tokens divided by their number, also over
  accumulated micro-batches (both trainers do this since transformers 4.46).
- Learning rate constant without warm-up. Warm-ups differ: Hugging Face's first step has rate 0,
  ours 1/(w + 1) of the peak.
- AdamW with betas 0.9 and 0.999, eps 1e-8, no weight decay, gradient norm clipped to 1.
- No dropout; the same initial LoRA weights, read from one file.

Gradient checkpointing is off (TRL turns it on by default), torch.compile too, no loader workers.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from speed_rows import Work

# Number formats. `fp32`: everything. `autocast`: fp32 weights, `bf16=True`. `bf16-base`: the frozen
# base in bf16, LoRA in fp32, `bf16=True`. `bf16`: all weights bf16, the optimiser's too.
# Batch layouts. `padded`: the step's examples in one padded batch. `one-by-one`: accumulated, which
# pads nothing. `packed`: in one sequence without padding (TRL: padding_free, which its packing runs
# on; Trainer: DataCollatorWithFlattening). TRL's `packing=True` itself moves examples from step to
# step, so its losses could not be laid beside ours; what it computes per step is `packed`.
LAYOUTS = ("one-by-one", "packed", "padded")

# Not measured unless asked for. `hf-logits-to-keep` is Trainer with a `compute_loss` of the user's
# that applies the LM head at supervised positions only, as ms-swift's trainer does.
EXTRA_SIDES = ("hf-logits-to-keep", "trl-liger", "hf-liger", "unsloth")


def layouts(side: str) -> tuple[str, ...]:
    """The batch layouts to try on a side."""
    return LAYOUTS[:2] if side == "hf-logits-to-keep" else LAYOUTS


def formats(work: Work) -> tuple[str, ...]:
    """The number formats to try, for a side that computes in `work.precision`."""
    if work.precision == "fp32":
        return ("fp32",)
    return ("bf16", "autocast", "bf16-base") if work.adapter else ("bf16", "autocast")


def train_with_peer(work: Work, side: str, setting: str, folder: Path) -> dict[str, Any]:
    """Train, and return the fields of a `Measurement`."""
    _say_what_is_missing(side)
    if side == "unsloth":
        import unsloth  # noqa: F401  (patches transformers and trl, so it comes first)

    import torch

    from burnish.nn.memory import held_memory, peak_memory, reset_peak_memory

    number_format, layout = setting.split(",")
    model, tokenizer = _open(work, side, number_format)
    arguments = _arguments(work, number_format, layout, folder)
    if side.endswith("liger"):
        arguments["use_liger_kernel"] = True
    clock = _clock(torch.cuda.is_available())
    if side.startswith(("trl", "unsloth")):
        trainer = _sft_trainer(work, model, tokenizer, arguments, layout, clock)
    else:
        keep = side == "hf-logits-to-keep"
        trainer = _trainer(work, model, tokenizer, arguments, layout, clock, keep=keep)
    loaded = held_memory()
    reset_peak_memory()
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "losses": losses,
        "step_seconds": clock.seconds,
        "step_tokens": work.step_tokens(),
        "warmup_steps": work.warmup_steps,
        "loaded_bytes": loaded,
        "peak_bytes": peak_memory(),
    }


def _say_what_is_missing(side: str) -> None:
    from importlib.util import find_spec

    needed = ["datasets", "accelerate"] + ["trl"] * side.startswith("trl")
    needed += ["unsloth", "trl"] * (side == "unsloth")
    needed += ["liger_kernel"] * side.endswith("liger")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"{side} needs {', '.join(missing)}: pip install 'burnish[bench]' "
            "(for CUDA's own peers also unsloth and liger-kernel)"
        )


def _open(work: Work, side: str, number_format: str) -> tuple[Any, Any]:
    """The base in the format asked for, with the initial LoRA weights on it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    half = number_format in ("bf16", "bf16-base")
    dtype = torch.bfloat16 if half else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(work.base)
    tokenizer.padding_side = "right"
    if side == "unsloth":
        from unsloth import FastLanguageModel

        # Given an adapter it opens the base too, and puts its kernels under both.
        model, _ = FastLanguageModel.from_pretrained(
            work.adapter or work.base,
            dtype=dtype,
            max_seq_length=work.max_length,
            load_in_4bit=False,
            full_finetuning=work.adapter is None,
            use_gradient_checkpointing=False,
        )
        return model, tokenizer
    model = AutoModelForCausalLM.from_pretrained(work.base, dtype=dtype)
    model.config.use_cache = False
    if work.adapter:
        model = PeftModel.from_pretrained(
            model,
            work.adapter,
            is_trainable=True,
            autocast_adapter_dtype=number_format != "bf16",
        )
    return model, tokenizer


def _arguments(work: Work, number_format: str, layout: str, folder: Path) -> dict[str, Any]:
    """Settings that `TrainingArguments` and `SFTConfig` share."""
    import torch

    one_by_one = layout == "one-by-one"
    return {
        "output_dir": str(folder / "peer"),
        "per_device_train_batch_size": 1 if one_by_one else work.batch_examples,
        "gradient_accumulation_steps": work.batch_examples if one_by_one else 1,
        "max_steps": work.steps,
        "train_sampling_strategy": "sequential",
        "learning_rate": work.learning_rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": "adamw_torch_fused",
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": number_format in ("autocast", "bf16-base"),
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def _dataset(work: Work) -> Any:
    from datasets import Dataset

    lines = Path(work.tokens).read_text(encoding="utf-8").splitlines()
    return Dataset.from_list([json.loads(line) for line in lines])


def _sft_trainer(
    work: Work, model: Any, tokenizer: Any, arguments: dict[str, Any], layout: str, clock: Any
) -> Any:
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        **arguments,
        max_length=None,
        packing=False,
        padding_free=layout == "packed",
        # The labels are there already.
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    return SFTTrainer(
        model=model,
        args=config,
        train_dataset=_dataset(work),
        processing_class=tokenizer,
        callbacks=[clock],
    )


def _trainer(
    work: Work,
    model: Any,
    tokenizer: Any,
    arguments: dict[str, Any],
    layout: str,
    clock: Any,
    *,
    keep: bool,
) -> Any:
    from transformers import (
        DataCollatorForSeq2Seq,
        DataCollatorWithFlattening,
        Trainer,
        TrainingArguments,
    )

    packed = layout == "packed"
    collator = DataCollatorWithFlattening() if packed else DataCollatorForSeq2Seq(tokenizer)
    return (_trainer_with_logits_to_keep() if keep else Trainer)(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=_dataset(work),
        data_collator=collator,
        callbacks=[clock],
    )


def _trainer_with_logits_to_keep() -> Any:
    from torch.nn.functional import cross_entropy
    from transformers import Trainer

    class TrainerWithLogitsToKeep(Trainer):
        """The LM head at supervised positions only; for layouts of one row a batch."""

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            assert not return_outputs, "only training asks here"
            [labels] = inputs.pop("labels")
            sources = (labels[1:] != -100).nonzero()[:, 0]
            logits = model(**inputs, logits_to_keep=sources).logits[0].float()
            return cross_entropy(logits, labels[sources + 1], reduction="sum") / num_items_in_batch

    return TrainerWithLogitsToKeep


def _clock(cuda: bool) -> Any:
    """A callback that times each optimiser step, loading of its batch left out."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        seconds: list[float]

        def __init__(self) -> None:
            self.seconds = []
            self.started = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.started = _now()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(_now() - self.started)

    def _now() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    return Clock()
