"""Before step 1: wrong gradients stop a run, odd architectures run without sharing, memory fits.

Run: pytest tests/test_selfcheck.py
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    GptOssConfig,
    GraniteConfig,
    Lfm2Config,
    MambaConfig,
)

from burnish.errors import ModelError, ResourceError
from burnish.nn import attention, footprint, selfcheck
from burnish.nn.attention import ATTENTION
from burnish.nn.footprint import checkpoint_blocks, fit_into_memory, measure_footprint
from burnish.nn.forest import plant
from burnish.nn.models import load_model
from burnish.nn.selfcheck import check_gradients
from burnish.nn.step import forest_loss
from burnish.nn.support import runs_on_forests, use_forests
from burnish.nn.techniques import decoder_blocks
from burnish.tune.config import TuneConfig
from burnish.tune.tune import dry_run, tune
from test_engine import ARCHITECTURES, SMALL, V, gradients_one_by_one, rows, taken_gradients
from test_trunk import wrapped
from tiny import tiny_base

SCALED_LOGITS = {
    "granite, logits divided": GraniteConfig(**SMALL, logits_scaling=8.0, pad_token_id=0),
    "cohere, logits multiplied": CohereConfig(
        **SMALL, logit_scale=0.25, pad_token_id=0, bos_token_id=1, eos_token_id=2
    ),
}
STATEFUL = MambaConfig(
    vocab_size=V,
    hidden_size=32,
    num_hidden_layers=2,
    state_size=4,
    time_step_rank=4,
    pad_token_id=0,
)


def from_config(config):
    torch.manual_seed(0)
    return wrapped(AutoModelForCausalLM.from_config(config).eval())


@pytest.mark.parametrize("name", [*ARCHITECTURES, *SCALED_LOGITS])
def test_every_architecture_passes_its_check(name):
    model = from_config((ARCHITECTURES | SCALED_LOGITS)[name])
    assert use_forests(model) is None
    assert check_gradients(model, rows()) < 1e-5
    assert all(p.grad is None for p in model.model.parameters()), "nothing is left behind"
    assert runs_on_forests(model)


def leak(monkeypatch):
    """Let every example see the batch from its first token on."""
    cut = attention._cut

    def leaking(forest, window):
        for block in cut(forest, window):
            everything = (slice(0, block.rows.stop),)
            length = block.rows.stop - block.rows.start
            mask = torch.ones(length, length, dtype=torch.bool).triu(1)
            yield attention._Block(block.rows, everything, mask, length)

    monkeypatch.setattr(attention, "_cut", leaking)


def wrong_positions(monkeypatch):
    """Number the flat batch through, as if it were one example."""
    plant = selfcheck.plant
    monkeypatch.setattr(
        selfcheck,
        "plant",
        lambda rows: replace(plant(rows), positions=torch.arange(len(plant(rows).ids))),
    )


def lost_weights(monkeypatch):
    """Count a shared token for one of its examples only."""
    plant = selfcheck.plant
    monkeypatch.setattr(
        selfcheck,
        "plant",
        lambda rows: replace(plant(rows), weights=plant(rows).weights.clamp(max=0.5)),
    )


FAULTS = {"leak": leak, "wrong positions": wrong_positions, "lost weights": lost_weights}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault, dtype):
    """huggingface/trl#3067 and many more: packed examples that see each other."""
    model = from_config(ARCHITECTURES["llama"])
    model.model.to(dtype)
    for parameter in model.model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    assert use_forests(model) is None
    check_gradients(model, rows())
    FAULTS[fault](monkeypatch)
    with pytest.raises(ModelError, match=r"the gradient of a batch differs .* one by one"):
        check_gradients(model, rows())


def test_logits_formed_in_a_way_we_do_not_know_are_found(monkeypatch):
    model = from_config(ARCHITECTURES["llama"])
    assert use_forests(model) is None
    model.causal_lm.lm_head.register_forward_hook(lambda _module, _given, logits: logits * 0.5)
    with pytest.raises(ModelError, match="this architecture is not supported"):
        check_gradients(model, rows())


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    lines = [
        {"prompt": f"What is the balance of account {n}? " * (1 + n % 3), "completion": "100 " * n}
        for n in range(1, 9)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_run_with_wrong_gradients_stops_before_its_first_step(base, data, tmp_path, monkeypatch):
    leak(monkeypatch)
    config = TuneConfig(str(data), str(base), tmp_path / "out", precision="fp32")
    with pytest.raises(ModelError, match="training would go wrong"):
        tune(config, on_preflight=lambda _: None)
    assert not (tmp_path / "out").exists()


def test_architectures_without_forests_are_told_and_trained_alone(base, data, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    stateful = tmp_path / "mamba"
    config = MambaConfig(**STATEFUL.to_diff_dict() | {"vocab_size": len(tokenizer)})
    AutoModelForCausalLM.from_config(config).save_pretrained(stateful)
    tokenizer.save_pretrained(stateful)
    tables = []
    settings = {"technique": "full", "max_steps": 2, "precision": "fp32", "learning_rate": 1e-3}
    checkpoint = tune(
        TuneConfig(str(data), str(stateful), tmp_path / "out", **settings),
        on_preflight=tables.append,
    )
    assert "one at a time" in tables[0].notes[0]
    assert "Mamba" in tables[0].notes[0]
    assert checkpoint.metrics["computed_tokens"] == checkpoint.metrics["tokens"]
    assert load_model(str(tmp_path / "out")).vocabulary_size == len(tokenizer)


def test_a_model_with_a_state_has_the_gradient_of_its_examples():
    model = from_config(STATEFUL)
    assert "does not use the attention interface" in (use_forests(model) or "")
    examples = rows()[:3]
    _, expected = gradients_one_by_one(model.model, examples)
    total = sum(sum(row.weights) for row in examples)
    for row in examples:
        (forest_loss(model, plant([row])) / total).backward()
    for name, gradient in taken_gradients(model.model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Lfm2Config(**SMALL, num_key_value_heads=2, full_attn_idxs=[1]), "conv"),
        (GptOssConfig(**SMALL, num_key_value_heads=2, num_local_experts=2), "sinks"),
    ],
    ids=["convolutions", "attention sinks"],
)
def test_the_reason_against_forests_is_named(config, reason):
    model = from_config(config)
    before = model.causal_lm.config._attn_implementation
    assert reason in (use_forests(model) or "")
    assert model.causal_lm.config._attn_implementation == before != ATTENTION


def test_checkpointed_blocks_give_the_same_gradient_and_keep_less():
    model = from_config(ARCHITECTURES["llama"])
    assert use_forests(model) is None
    forest = plant(rows())
    forest_loss(model, forest).backward()
    expected = taken_gradients(model.model)
    plain = measure_footprint(model)
    checkpoint_blocks(model)
    assert not any(m.training for block in decoder_blocks(model) for m in block.children())
    forest_loss(model, forest).backward()
    for name, gradient in taken_gradients(model.model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6)
    kept = measure_footprint(model)
    assert kept.per_token < 0.4 * plain.per_token
    assert kept.per_token + kept.per_block < plain.per_token


def test_memory_is_fitted_by_what_costs_least(monkeypatch):
    monkeypatch.setattr(footprint, "held_memory", lambda: 10**9)
    model = from_config(ARCHITECTURES["llama"])
    model.model.bfloat16()
    assert use_forests(model) is None
    optimizer_bytes = {"fp32": 400_000_000, "stochastic_rounding": 1_000_000}
    longest = 20_000
    free = measure_footprint(model)
    an_example = free.peak(longest, longest) - free.peak(0, 0)

    def fit(room: float, **changes):
        """With `room` for so many of the longest example, beside what is needed anyway."""
        limit = (free.peak(0, 0) + room) / 1e9
        settings = {"batch_tokens": 10**6, "longest": longest, "memory_gb": limit} | changes
        return fit_into_memory(model, optimizer_bytes.__getitem__, **settings)

    roomy = fit(100 * an_example + 400e6)
    assert (roomy.batch_tokens, roomy.master_weights, roomy.notes) == (10**6, "fp32", ())
    tight = fit(1.5 * an_example + 400e6)
    assert longest <= tight.batch_tokens < 2 * longest
    assert tight.master_weights == "fp32"
    assert "the loss is the same" in tight.notes[0]
    tighter = fit(1.5 * an_example + 1e6)
    assert tighter.master_weights == "stochastic_rounding"
    with pytest.raises(ResourceError, match="an example of 20,000 tokens needs"):
        fit(0.9 * an_example, checkpointing=False)
    tightest = fit(0.9 * an_example + 1e6)
    assert any("checkpointing is on" in note for note in tightest.notes)
    assert decoder_blocks(model)[0].gradient_checkpointing


def test_a_smaller_budget_changes_no_loss(base, data, tmp_path):
    """Limits of memory are worked out before the run, so that it never dies half-way."""
    settings = {"technique": "full", "max_steps": 3, "precision": "fp32", "order": "as_given"}
    whole = TuneConfig(str(data), str(base), tmp_path / "a", batch_tokens=4096, **settings)
    cut = TuneConfig(str(data), str(base), tmp_path / "b", batch_tokens=60, **settings)
    one, other = (tune(c, on_preflight=lambda _: None).metrics["losses"] for c in (whole, cut))
    assert one == pytest.approx(other, rel=1e-5)
    needed = dry_run(whole).memory_bytes
    assert needed > 1e8


MEASURED = """
import json, sys
from pathlib import Path
from burnish.tune.config import TuneConfig
from burnish.tune.tune import tune

data, base, out, precision = sys.argv[1:]
config = TuneConfig(data, base, Path(out), technique="full", max_steps=4, precision=precision,
                    batch_examples=20, batch_tokens=8_192, learning_rate=1e-3)
metrics = tune(config, on_preflight=lambda _: None).metrics
print(json.dumps({key: metrics[f"{key}_memory_bytes"] for key in ("estimated", "peak")}))
"""


# In bf16 the peak has been 3 to 18 % above what was said: the heap's waste differs from run to run.
@pytest.mark.parametrize(("precision", "within"), [("fp32", 0.15), ("bf16", 0.25)])
def test_the_estimate_of_memory_is_near_the_peak(tmp_path, precision, within):
    """In a process of its own, with activations that outweigh what is held anyway."""
    base = tiny_base(
        tmp_path / "base", num_hidden_layers=4, hidden_size=512, intermediate_size=1024
    )
    words = [
        "balance",
        "transfer",
        "freeze",
        "account",
        "pay",
        "bill",
        "dollars",
        "savings",
        "card",
        "stolen",
    ]
    lines = [
        {"prompt": " ".join(words[n % 7 :]), "completion": f"{n} " * (60 + 40 * (n % 6))}
        for n in range(96)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-c", MEASURED, data, base, tmp_path / "out", precision]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak"] == pytest.approx(found["estimated"], rel=within)
    assert found["peak"] > 7e8, "too small to say anything about activations"
