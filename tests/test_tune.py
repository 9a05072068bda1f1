"""Tune end to end on a small real base: what goes in, what comes out, what is refused.

Run: pytest tests/test_tune.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from burnish.chat import render
from burnish.config import build_config
from burnish.errors import ConfigError, InputError, ModelError, ProjectError, TemplateError
from burnish.nn.models import load_model
from burnish.nn.preflight import Preflight
from burnish.nn.step import forest_loss
from burnish.nn.techniques import decoder_blocks, train_top_layers
from burnish.project import read_manifest
from burnish.tune.config import TuneConfig
from burnish.tune.tune import dry_run, tune
from burnish.types import Checkpoint, Conversation, Message
from tiny import tiny_base

SYSTEM = "Answer with one label: balance, transfer, freeze_account, pay_bill, out_of_scope."
ASKED = {
    "balance": "What is the balance of my account?",
    "transfer": "Please transfer 100 dollars to my savings.",
    "freeze_account": "My card was stolen, freeze it.",
    "pay_bill": "How do I pay a bill?",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> None:
    """Trunks of frozen layers are kept here, not in the cache of whoever runs the tests."""
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = [
        {
            "messages": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": f"{question} ({n})"},
                {"role": "assistant", "content": label},
            ]
        }
        for n in range(5)
        for label, question in ASKED.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(data: Path, base: Path, out: Path, **changes) -> Checkpoint:
    settings = {"max_steps": 6, "learning_rate": 5e-3, "precision": "fp32"} | changes
    return tune(TuneConfig(str(data), str(base), out, **settings), on_preflight=lambda _: None)


def logits_in_burnish(folder: Path, conversation: Conversation) -> torch.Tensor:
    model = load_model(str(folder), precision="fp32")
    ids = render(conversation, model.template).ids
    with torch.inference_mode():
        return model.model(input_ids=torch.tensor([ids])).logits


CONVERSATION = Conversation((Message("user", ASKED["balance"]), Message("assistant", "balance")))


@pytest.mark.parametrize("technique", ["full", "layers", "lora"])
def test_the_output_opens_in_plain_transformers_with_the_same_logits(
    base, data, tmp_path, technique
):
    checkpoint = run(data, base, tmp_path / "tuned", technique=technique, top_layers=1)
    losses = checkpoint.metrics["losses"]
    assert losses[-1] < losses[0]
    # `from_pretrained` on the folder itself: transformers opens an adapter's base by its config.
    plain = AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
    messages = [{"role": m.role, "content": m.content} for m in CONVERSATION.messages]
    ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=False)
    with torch.inference_mode():
        theirs = plain(input_ids=ids).logits
    torch.testing.assert_close(theirs, logits_in_burnish(checkpoint.path, CONVERSATION))
    before = logits_in_burnish(base, CONVERSATION)
    assert (theirs - before).abs().max() > 1e-3  # it learned something
    generation = GenerationConfig.from_pretrained(checkpoint.path)
    assert generation.eos_token_id == [2, 0]  # <|im_end|>, <|endoftext|>


def test_an_adapter_opens_in_plain_peft(base, data, tmp_path):
    checkpoint = run(data, base, tmp_path / "tuned")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(plain, str(checkpoint.path)).eval()
    template = load_model(str(checkpoint.path)).template
    with torch.inference_mode():
        ids = torch.tensor([render(CONVERSATION, template).ids])
        theirs = adapted(input_ids=ids).logits
    torch.testing.assert_close(theirs, logits_in_burnish(checkpoint.path, CONVERSATION))


def test_an_adapter_goes_on_being_trained(base, data, tmp_path):
    first = run(data, base, tmp_path / "first")
    second = run(data, first.path, tmp_path / "second")
    assert second.metrics["first_loss"] == pytest.approx(first.metrics["last_loss"], abs=0.7)
    assert second.metrics["first_loss"] < first.metrics["first_loss"]
    assert first.id in second.parents
    with pytest.raises(ConfigError, match="is an adapter"):
        run(data, first.path, tmp_path / "third", technique="full")


def test_metrics_are_those_of_the_interface(base, data, tmp_path):
    metrics = run(data, base, tmp_path / "tuned", batch_examples=20, epochs=2).metrics
    names = (
        "checkpoint technique epochs steps examples tokens computed_tokens supervised_tokens "
        "train_seconds tokens_per_second first_loss last_loss losses peak_memory_bytes "
        "trainable_parameters flops_utilisation"
    )
    assert set(metrics) >= set(names.split(" "))
    assert metrics["steps"] == len(metrics["losses"]) == 2
    assert metrics["epochs"] == 2
    # The system prompt of the twenty rows is computed once a step.
    assert metrics["computed_tokens"] < 0.6 * metrics["tokens"]
    assert metrics["peak_memory_bytes"] > 1e6
    assert 0 < metrics["flops_utilisation"] < 1


def test_sharing_prefixes_does_not_change_the_losses(base, data, tmp_path):
    same = {"order": "as_given"}  # shuffled, examples that share would be brought together
    shared = run(data, base, tmp_path / "shared", **same).metrics["losses"]
    alone = run(data, base, tmp_path / "alone", share_prefixes=False, **same).metrics["losses"]
    assert shared == pytest.approx(alone, rel=1e-4)


def test_two_runs_with_one_seed_are_equal_and_with_another_are_not(base, data, tmp_path):
    one = run(data, base, tmp_path / "one", seed=1)
    two = run(data, base, tmp_path / "two", seed=1)
    other = run(data, base, tmp_path / "other", seed=2)
    assert one.metrics["losses"] == two.metrics["losses"] != other.metrics["losses"]


def test_run_toml_repeats_the_run(base, data, tmp_path):
    first = run(data, base, tmp_path / "first", lora_targets=("q_proj", "v_proj"))
    values = tomllib.loads((first.path / "run.toml").read_text())["tune"]
    config = build_config(TuneConfig, values | {"out": str(tmp_path / "again")}, where="run.toml")
    again = tune(config, on_preflight=lambda _: None)
    assert again.metrics["losses"] == first.metrics["losses"]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # the lowest trained block
def test_layers_never_runs_the_backward_of_frozen_blocks(base, data):
    model = train_top_layers(load_model(str(base), precision="fp32"), 1)
    entered = []
    for n, block in enumerate(decoder_blocks(model)):
        block.register_full_backward_hook(lambda *_, n=n: entered.append(n))
    from burnish.nn.attention import ATTENTION
    from burnish.nn.forest import plant

    model.model.set_attn_implementation(ATTENTION)
    forest_loss(model, plant([render(CONVERSATION, model.template)])).backward()
    trained = {name for name, p in model.model.named_parameters() if p.grad is not None}
    assert all(name.startswith(("model.layers.1.", "model.norm")) for name in trained)
    assert 0 not in entered


CHILD = """
import sys
from pathlib import Path
from burnish.tune.config import TuneConfig
from burnish.tune.tune import tune
data, base, out = sys.argv[1:4]
config = TuneConfig(data, base, Path(out), technique="full", epochs=60, precision="fp32")
tune(config, on_preflight=lambda _: print("started", flush=True))
"""


def test_kill_9_and_the_same_command_give_the_losses_of_an_unbroken_run(
    base, data, tmp_path, monkeypatch
):
    # Save after every step, so that the kill falls between a save and the end.
    child = f"import burnish.nn.loop as loop; loop._SAVE_SECONDS = 0.0\n{CHILD}"
    child = child.replace("tune(config", "loop._SAVING_SHARE = 1e9\ntune(config")
    command = [sys.executable, "-c", child, str(data), str(base), str(tmp_path / "killed")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    partial = tmp_path / "killed.partial"
    kills = 0
    for _ in range(2):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        before = (partial / "metrics.jsonl").stat().st_mtime_ns if kills else 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            metrics = partial / "metrics.jsonl"
            if metrics.exists() and metrics.stat().st_mtime_ns > before:
                break
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert kills >= 1
    assert not (tmp_path / "killed").exists()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    command[-1] = str(tmp_path / "unbroken")
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    losses = [
        read_manifest(tmp_path / n)["facts"]["metrics"]["losses"] for n in ("killed", "unbroken")
    ]
    assert losses[0] == losses[1]
    assert not partial.exists()


def test_a_finished_run_is_not_done_again_and_another_is_refused(base, data, tmp_path):
    first = run(data, base, tmp_path / "tuned")
    written = (first.path / "manifest.json").stat().st_mtime_ns
    assert run(data, base, tmp_path / "tuned").id == first.id
    assert (first.path / "manifest.json").stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match="lora_rank: 16 then, 4 now"):
        run(data, base, tmp_path / "tuned", lora_rank=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(ProjectError, match="exists already"):
        run(data, base, tmp_path / "mine")


def write_rows(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def turns(answer: str, weight: float | None = None) -> dict:
    reply = {"role": "assistant", "content": answer}
    if weight is not None:
        reply["weight"] = weight
    return {"messages": [{"role": "user", "content": "balance?"}, reply]}


def test_rows_without_anything_to_learn_are_refused_with_the_reason(base, tmp_path):
    waiting = {"messages": [{"role": "user", "content": "and now?"}]}
    data = write_rows(
        tmp_path / "d.jsonl", turns("balance"), turns(""), turns("x", weight=0.0), waiting
    )
    checkpoint = run(data, base, tmp_path / "tuned", max_steps=1)
    assert checkpoint.metrics["examples"] == 1
    kept = (checkpoint.path / "rejects.jsonl").read_text().splitlines()
    reasons = {json.loads(line)["example"]: json.loads(line)["reason"] for line in kept}
    assert "empty" in reasons[2]
    assert "every loss weight is 0" in reasons[3]
    assert "no answer" in reasons[4]


def test_training_on_nothing_is_refused(base, tmp_path):
    """Elsewhere the loss is 0.0 and the run ends in success (huggingface/trl#6668)."""
    data = write_rows(tmp_path / "d.jsonl", turns("yes", weight=0.0), turns("no", weight=0.0))
    with pytest.raises(InputError, match="no example with a supervised token"):
        run(data, base, tmp_path / "tuned")
    long = write_rows(tmp_path / "long.jsonl", {"prompt": "why " * 100, "completion": "because"})
    with pytest.raises(InputError, match="within max_length = 50"):
        run(long, base, tmp_path / "tuned", max_length=50)
    assert not (tmp_path / "tuned").exists()


def test_an_untrained_stop_token_is_refused(base, tmp_path):
    """Every answer is cut before its end, so no row would teach the model to stop."""
    data = write_rows(tmp_path / "d.jsonl", turns("a long answer " * 40))
    with pytest.raises(TemplateError, match="no stop token is trained"):
        run(data, base, tmp_path / "tuned", max_length=40)


def test_a_template_that_breaks_a_law_is_refused(base, data, tmp_path):
    template = tmp_path / "bad.jinja"
    template.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    with pytest.raises(TemplateError, match="stop token"):
        run(data, base, tmp_path / "tuned", template=str(template))


def test_a_base_that_is_no_model_is_refused(data, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.gguf").write_text("<html>404</html>")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    for name, words in {
        "empty": "is no model",
        "page.gguf": "no GGUF",
        "broken": "cannot be opened",
        "nowhere": "there is no such base",
    }.items():
        with pytest.raises(ModelError, match=words):
            run(data, tmp_path / name, tmp_path / "tuned")


def test_all_faulty_settings_are_named_at_once():
    with pytest.raises(ConfigError) as error:
        TuneConfig("d", "b", Path("o"), lora_rank=0, epochs=-1, learning_rate=0.0)
    assert all(word in str(error.value) for word in ("lora_rank", "epochs", "learning_rate"))
    with pytest.raises(ConfigError) as error:
        build_config(
            TuneConfig, {"data": "d", "base": "b", "lora_rnk": 4, "seed": "x"}, where="--set"
        )
    assert "did you mean 'lora_rank'" in str(error.value)
    assert "seed = 'x': must be a whole number" in str(error.value)
    assert "out is missing" in str(error.value)


def test_lora_targets_and_layers_that_are_not_there_are_named(base, data, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'q_proj'"):
        run(data, base, tmp_path / "tuned", lora_targets=("q_prj",))
    with pytest.raises(ConfigError, match="has 2 layers"):
        run(data, base, tmp_path / "tuned", technique="layers", top_layers=3)


def test_the_preflight_says_what_will_be_trained_and_writes_nothing(base, data, tmp_path):
    table = dry_run(TuneConfig(str(data), str(base), tmp_path / "tuned", batch_examples=20))
    assert isinstance(table, Preflight)
    assert (table.examples, table.refused, table.truncated, table.steps) == (20, 0, 0, 3)
    assert dict(table.stops) == {"<|im_end|>": 20}
    assert table.sharing_factor > 1.6
    trained = "".join(text for text, weight in table.samples[0] if weight)
    assert trained == "balance<|im_end|>"
    assert SYSTEM in "".join(text for text, weight in table.samples[0] if not weight)
    assert table.seconds > 0
    assert table.memory_bytes > 1e6
    assert table.gradient_difference < 1e-4
    assert list(tmp_path.iterdir()) == []


def test_raw_pairs_are_rendered_without_a_template_unless_one_is_asked_for(base, tmp_path):
    data = write_rows(tmp_path / "d.jsonl", {"prompt": "balance", "completion": " 100"})
    raw = dry_run(TuneConfig(str(data), str(base), tmp_path / "t", max_steps=1))
    assert raw.template == "none"
    assert "".join(text for text, _ in raw.samples[0]) == "balance 100<|endoftext|>"
    chat = dry_run(TuneConfig(str(data), str(base), tmp_path / "t", max_steps=1, template="chatml"))
    assert "<|im_start|>user\nbalance<|im_end|>" in "".join(text for text, _ in chat.samples[0])
