"""What is exported opens without Burnish and answers alike. Run: pytest tests/test_export.py"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTuner
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from burnish.chat import render_prompt
from burnish.errors import InputError, ModelError
from burnish.export import ExportConfig, export
from burnish.nn.models import load_model, save_words_side
from burnish.project import read_manifest
from burnish.types import Conversation, Message
from tiny import tiny_base

IDS = torch.tensor([[5, 99, 200, 17, 320, 44, 8]])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_base(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    """A LoRA adapter with weights that matter, saved the way `burnish tune` saves one."""
    loaded = load_model(str(base), precision="fp32")
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(base),
    )
    torch.manual_seed(3)
    model = peft.get_peft_model(loaded.model, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path / "tuned"
    model.save_pretrained(folder)
    save_words_side(replace(loaded, model=model), folder)
    return folder


def logits_of(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(input_ids=IDS).logits.float()
    return logits


def burnish_logits(folder: Path) -> torch.Tensor:
    return logits_of(load_model(str(folder), precision="fp32").model)


def test_merged_opens_in_plain_transformers_with_the_same_logits(
    tmp_path: Path, base: Path, adapter: Path
) -> None:
    expected = burnish_logits(adapter)
    assert (expected - burnish_logits(base)).abs().max() > 0.1, "the adapter changes something"
    out = export(ExportConfig(str(adapter), "merged", tmp_path / "merged"))
    shutil.rmtree(base)
    shutil.rmtree(adapter)
    plain = AutoModelForCausalLM.from_pretrained(out)
    assert plain.dtype == torch.float32
    torch.testing.assert_close(logits_of(plain), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(burnish_logits(out), expected, atol=1e-4, rtol=0)
    assert not list(out.glob("adapter*"))
    facts = read_manifest(out)["facts"]
    assert facts["export"] == "merged"
    assert 0 < facts["largest_logit_difference"] < 1e-3


def test_words_go_with_the_weights(tmp_path: Path, adapter: Path) -> None:
    loaded = load_model(str(adapter))
    conversation = Conversation((Message("user", "Hé 日"),))
    for to in ("merged", "peft"):
        out = export(ExportConfig(str(adapter), to, tmp_path / to))
        tokenizer = AutoTokenizer.from_pretrained(out)
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": "Hé 日"}], add_generation_prompt=True, return_dict=False
        )
        assert ids == render_prompt(conversation, loaded.template)
        assert GenerationConfig.from_pretrained(out).eos_token_id == list(loaded.stop_ids)


def test_peft_opens_in_plain_peft_with_the_same_logits(
    tmp_path: Path, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = burnish_logits(adapter)
    # A run started beside the base may have named it by a path that holds there only.
    path = adapter / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "base_model_name_or_path": "base"}))
    monkeypatch.chdir(tmp_path)
    out = export(ExportConfig("tuned", "peft", Path("adapter")))
    monkeypatch.chdir("/")
    out = tmp_path / out
    named = peft.PeftConfig.from_pretrained(str(out)).base_model_name_or_path
    plain = AutoModelForCausalLM.from_pretrained(named, dtype=torch.float32)
    opened = peft.PeftModel.from_pretrained(plain, str(out))
    torch.testing.assert_close(logits_of(opened), expected, atol=1e-5, rtol=0)
    assert read_manifest(out)["facts"]["largest_logit_difference"] == 0


def test_a_full_model_is_exported_as_it_is(tmp_path: Path, base: Path) -> None:
    out = export(ExportConfig(str(base), "merged", tmp_path / "merged"))
    torch.testing.assert_close(
        logits_of(AutoModelForCausalLM.from_pretrained(out)), burnish_logits(base)
    )
    assert read_manifest(out)["parents"] == [load_model(str(base)).identity]


def test_a_model_without_adapter_has_none_to_export(tmp_path: Path, base: Path) -> None:
    with pytest.raises(ModelError, match=r"has no adapter(.|\n)*--to merged"):
        export(ExportConfig(str(base), "peft", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_export_that_would_answer_differently_is_not_written(
    tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface/peft#2321: the merged model is saved, opens, and answers something else."""
    merge = BaseTuner.merge_and_unload

    def merge_wrongly(model: Any, *args: Any, **kwargs: Any) -> Any:
        merged = merge(model, *args, **kwargs)
        with torch.no_grad():
            merged.model.layers[1].mlp.down_proj.weight.mul_(1.001)
        return merged

    monkeypatch.setattr(BaseTuner, "merge_and_unload", merge_wrongly)
    with pytest.raises(ModelError, match="would answer differently: its logits differ by up to"):
        export(ExportConfig(str(adapter), "merged", tmp_path / "out"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "tuned"]


def test_weights_that_are_nan_are_not_written(tmp_path: Path, base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="would answer differently"):
        export(ExportConfig(str(base), "merged", tmp_path / "out"))


def test_only_an_earlier_export_is_replaced(tmp_path: Path, base: Path, adapter: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for out in (tmp_path / "mine", adapter, base):
        with pytest.raises(InputError, match="something other than an export"):
            export(ExportConfig(str(adapter), "merged", out))
    first = export(ExportConfig(str(adapter), "merged", tmp_path / "out"))
    before = read_manifest(first)["files"]
    assert read_manifest(export(ExportConfig(str(adapter), "merged", first)))["files"] == before
    with pytest.raises(InputError, match="is the model that is to be exported"):
        export(ExportConfig(str(first), "merged", first))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
