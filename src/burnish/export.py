"""Export: a checkpoint in a form that other software opens, with proof that it answers alike."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from burnish.chat import render_prompt
from burnish.errors import ConfigError, InputError, ModelError
from burnish.files import replaced_folder
from burnish.nn.bases import resolve_model
from burnish.nn.models import (
    QUANTISATION_FILE,
    LoadedModel,
    load_model,
    save_words_side,
)
from burnish.nn.quantised import dequantise
from burnish.nn.techniques.blocks import peft_warnings_understood
from burnish.progress import progress_bar
from burnish.project import MANIFEST, read_manifest, seal_artefact
from burnish.types import Conversation, Message

_ADAPTER_CONFIG = "adapter_config.json"

# Kinds of adapter that are a change of the base's weights; the others add parts of their own.
_MERGEABLE = ("LORA", "IA3")

# Largest difference of logits allowed, relative to the largest logit: a hundred times the rounding
# of fp32, and far below what a wrongly merged adapter gives (huggingface/peft#2321).
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class ExportConfig:
    """What to export and how."""

    model: str
    """A checkpoint; for `merged` any base will do."""
    to: Literal["merged", "peft"]
    """`merged`: full weights in fp32, adapter merged in. `peft`: the adapter by itself."""
    out: Path
    """Folder to write; an earlier export there is replaced."""
    template: str = "auto"
    """Chat template to save: auto, chatml, gemma, plain, or the path of a Jinja file."""


def export(config: ExportConfig) -> Path:
    """Write the checkpoint to `config.out` and return that folder.

    The export is opened again with plain `transformers` (and `peft`), and its logits on a probe are
    compared with the checkpoint's; the manifest holds the largest difference.

    Raises:
        ModelError: no such model, no adapter to export, or logits that differ.
        ConfigError: an adapter of a kind that cannot be merged.
        InputError: `out` holds something else.
        ResourceError: the disk is full; nothing half-written is left.
    """
    folder = resolve_model(config.model)
    _check_out(config.out, folder)
    if config.to == "peft" and not (folder / _ADAPTER_CONFIG).is_file():
        raise ModelError(
            "has no adapter: its weights are full ones",
            where=config.model,
            do="export it with --to merged",
        )
    if config.to == "merged":
        _check_mergeable(config.model, folder)
    with progress_bar("exporting", unit="step", total=3) as bar:
        loaded = load_model(
            config.model,
            precision="fp32",
            template=config.template,
            # Plain `peft` opens the base as it is, whatever it was held in while training.
            quantisation="none" if config.to == "peft" else None,
        )
        expected = _probe_logits(loaded.model, loaded)
        bar.update(1)
        with replaced_folder(config.out) as temporary:
            if config.to == "merged":
                _write_merged(loaded, temporary)
            else:
                _write_adapter(loaded, folder, temporary)
            bar.update(1)
            exported = _probe_logits(_open_plainly(temporary), loaded)
            difference = _largest_difference(expected, exported, config)
            facts = {"export": config.to, "largest_logit_difference": difference}
            seal_artefact(temporary, "checkpoint", [loaded.identity], facts)
            bar.update(1)
    return config.out


def _write_merged(loaded: LoadedModel, folder: Path) -> None:
    model = loaded.model
    if hasattr(model, "peft_config"):
        dequantise(loaded.causal_lm)
        if loaded.head_adapter is not None:
            _untie_head(loaded)
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    save_words_side(loaded, folder)


def _untie_head(loaded: LoadedModel) -> None:
    """Give the LM head a weight of its own: merging into a tied one would change the embedding."""
    head = loaded.head.get_base_layer()
    if head.weight is loaded.causal_lm.get_input_embeddings().weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        loaded.causal_lm.config.tie_word_embeddings = False


def _write_adapter(loaded: LoadedModel, source: Path, folder: Path) -> None:
    for file in source.iterdir():
        if file.name in (_ADAPTER_CONFIG, QUANTISATION_FILE) or file.name.startswith(
            "adapter_model."
        ):
            shutil.copyfile(file, folder / file.name)
    settings = json.loads((folder / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
    base = Path(settings["base_model_name_or_path"])
    if base.is_dir():  # a path that was relative to the folder the run was started in
        settings["base_model_name_or_path"] = str(base.absolute())
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    (folder / _ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")
    save_words_side(loaded, folder)


def _check_mergeable(name: str, folder: Path) -> None:
    if not (folder / _ADAPTER_CONFIG).is_file():
        return
    settings = json.loads((folder / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if settings["peft_type"] not in _MERGEABLE:
        raise ConfigError(
            f"an adapter of kind {settings['peft_type'].lower()} cannot be merged: "
            "it adds parts that the base has no place for",
            where=name,
            do="export it with --to peft",
        )


def _open_plainly(folder: Path) -> Any:
    """The export as its users will open it."""
    name = str(folder)
    adapter = (folder / _ADAPTER_CONFIG).is_file()
    if adapter:
        settings = json.loads((folder / _ADAPTER_CONFIG).read_text(encoding="utf-8"))
        name = settings["base_model_name_or_path"]
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    if adapter:
        with peft_warnings_understood():
            model = PeftModel.from_pretrained(model, str(folder))
    return model.eval()


def _probe_logits(model: Any, loaded: LoadedModel) -> torch.Tensor:
    """Logits (T, V) on a short conversation, rendered as it would be served."""
    probe = Conversation((Message("user", "What is 7 times 8? Answer in a full sentence."),))
    ids = torch.tensor([render_prompt(probe, loaded.template)], device=loaded.causal_lm.device)
    with torch.inference_mode():
        logits: torch.Tensor = model.to(ids.device)(input_ids=ids).logits[0].float()
    return logits


def _largest_difference(
    expected: torch.Tensor, exported: torch.Tensor, config: ExportConfig
) -> float:
    difference = float((exported - expected).abs().max())
    largest = float(expected.abs().max())
    # Written so that a NaN fails.
    if not difference <= _TOLERANCE * largest:
        raise ModelError(
            f"the export would answer differently: its logits differ by up to {difference:.3g}, "
            f"where the largest is {largest:.3g}",
            where=config.model,
            do="nothing was written; please report this with the adapter's adapter_config.json",
        )
    return difference


def _check_out(out: Path, source: Path) -> None:
    """Refuse to replace anything but an earlier export."""
    if not out.exists():
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    if not (out / MANIFEST).is_file() or "export" not in read_manifest(out)["facts"]:
        raise InputError(
            "holds something other than an export", where=str(out), do="choose another --out"
        )
    if out.resolve() == source.resolve():
        raise InputError(
            "is the model that is to be exported", where=str(out), do="choose another --out"
        )
