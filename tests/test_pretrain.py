"""Pretrain end to end on made-up text, its working folder, and the base shipped as `starter`.

Run: pytest tests/test_pretrain.py
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from burnish.chat import check_laws, choose_template
from burnish.config import build_config, read_toml
from burnish.errors import ConfigError, InputError, ModelError, ProjectError, ResourceError
from burnish.hashing import file_hash
from burnish.nn.attention import ATTENTION
from burnish.nn.corpus import Windows, documents, tokenise, train_tokenizer
from burnish.nn.models import load_model
from burnish.nn.workfolder import finished_folder, resume_or_start
from burnish.pretrain import PretrainConfig, pretrain, score_text
from burnish.project import read_manifest
from burnish.types import Checkpoint
from tiny import tiny_base

ROOT = Path(__file__).parents[1]
STARTER = Path(str(resources.files("burnish") / "starter"))

SMALL = {
    "vocabulary_size": 400,
    "layers": 2,
    "hidden": 32,
    "heads": 2,
    "kv_heads": 1,
    "intermediate": 64,
    "max_positions": 64,
    "context": 32,
    "batch_windows": 4,
    "max_steps": 8,
    "learning_rate": 1e-2,
    "held_out": 0.05,
    "precision": "fp32",
}


def lines(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    who = ["the clerk", "a customer", "Ada", "my bank", "the café"]
    what = ["sends", "counts", "loses", "freezes", "1984 times repeats"]
    whom = ["a card", "the bill", "42 dollars", "an account", "日本円", "nothing at all"]
    return [
        f"{rng.choice(who)} {rng.choice(what)} {rng.choice(whom)}, and {rng.choice(who)} "
        f"{rng.choice(what)} {rng.choice(whom)}."
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text("\n".join(lines(400)) + "\n", encoding="utf-8")
    return path


def run(text: Path, out: Path, **changes) -> Checkpoint:
    return pretrain(PretrainConfig((text,), out, **SMALL | changes))


@pytest.fixture(scope="module")
def made(text, tmp_path_factory) -> Checkpoint:
    return run(text, tmp_path_factory.mktemp("made") / "base", max_steps=30)


# What comes out


def test_the_model_learns_and_opens_in_plain_transformers(made):
    losses = made.metrics["losses"]
    assert losses[0] == pytest.approx(math.log(400), rel=0.1)  # random weights know nothing
    assert losses[-1] < losses[0] - 1
    model = AutoModelForCausalLM.from_pretrained(made.path, dtype="auto")
    assert model.dtype == torch.bfloat16
    assert model.config.max_position_embeddings == 64
    tokenizer = AutoTokenizer.from_pretrained(made.path)
    assert len(tokenizer) == model.config.vocab_size <= 400
    assert tokenizer.decode(tokenizer("日本円 1984 é").input_ids) == "日本円 1984 é"


def test_the_base_chats_in_chatml_and_keeps_the_laws(made):
    model = load_model(str(made.path))
    assert "<|im_start|>" in model.template.source
    check_laws(model.template)
    stops = model.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert model.stop_ids == tuple(stops)
    assert model.tokenizer.eos_token == model.tokenizer.pad_token == "<|endoftext|>"


def test_the_folder_says_what_it_was_made_from(made, text):
    manifest = read_manifest(made.path)
    assert [p.split("-")[0] for p in manifest["parents"]] == ["text"]
    assert read_toml(made.path / "run.toml")["pretrain"]["vocabulary_size"] == 400
    for name, digest in manifest["files"].items():
        assert file_hash(made.path / name) == digest
    assert not made.path.with_name("base.partial").exists()


def test_held_out_figures_are_those_of_plain_transformers(made, text):
    """Every 20th line, scored token by token with the saved weights, without our batching."""
    tokenizer = AutoTokenizer.from_pretrained(made.path)
    model = AutoModelForCausalLM.from_pretrained(made.path, dtype=torch.float32)
    held_out = text.read_text(encoding="utf-8").splitlines()[::20]
    eos = tokenizer.eos_token_id
    ids = [eos] + [i for line in held_out for i in [*tokenizer(line).input_ids, eos]]
    nats = 0.0
    for start in range(0, len(ids) - 1, SMALL["context"] - 1):
        window = torch.tensor([ids[start : start + SMALL["context"]]])
        with torch.inference_mode():
            nats += float(model(input_ids=window, labels=window).loss) * (window.shape[1] - 1)
    figures = made.metrics["held_out"]
    size = sum(len(line.encode()) for line in held_out)
    assert (figures["tokens"], figures["bytes"]) == (len(ids) - 1, size)
    assert figures["loss"] == pytest.approx(nats / (len(ids) - 1), rel=1e-4)
    assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
    assert figures["bits_per_byte"] == pytest.approx(nats / size / math.log(2), rel=1e-4)


def test_run_toml_repeats_the_run(made, tmp_path):
    values = read_toml(made.path / "run.toml")["pretrain"] | {"out": str(tmp_path / "again")}
    again = pretrain(build_config(PretrainConfig, values, where="run.toml"))
    assert again.metrics["losses"] == made.metrics["losses"]
    weights = "model.safetensors"
    assert file_hash(again.path / weights) == file_hash(made.path / weights)


def test_another_seed_is_another_run(text, tmp_path):
    first, second = (run(text, tmp_path / str(n), seed=n, max_steps=3) for n in (1, 2))
    assert first.metrics["losses"] != second.metrics["losses"]


def test_how_a_batch_is_cut_does_not_change_the_losses(text, tmp_path):
    whole = run(text, tmp_path / "whole", batch_tokens=4096)
    cut = run(text, tmp_path / "cut", batch_tokens=32)
    assert cut.metrics["losses"] == pytest.approx(whole.metrics["losses"], rel=1e-4)


def test_the_run_computes_as_the_saved_folder_does(text, tmp_path):
    """To the last bit, so all that is not a weight (rotary frequencies) kept its precision too."""
    made = run(text, tmp_path / "bf16", precision="bf16")
    model = load_model(str(made.path), precision="bf16")
    model.causal_lm.set_attn_implementation(ATTENTION)
    corpus = tokenise([text], model.tokenizer, tmp_path, SMALL["held_out"])
    assert score_text(model, corpus, SMALL["context"], 4096) == made.metrics["held_out"]


# The shape belongs to the base, so a continued run names none.
UNSHAPED = {
    name: PretrainConfig.__dataclass_fields__[name].default
    for name in (
        "vocabulary_size",
        "layers",
        "hidden",
        "heads",
        "kv_heads",
        "intermediate",
        "max_positions",
    )
}


# Continued pretraining


def test_a_base_is_continued_with_its_own_tokenizer(made, text, tmp_path):
    on = run(text, tmp_path / "on", base=str(made.path), **UNSHAPED, learning_rate=1e-3)
    assert on.parents[0] == made.id
    assert on.metrics["losses"][0] < made.metrics["losses"][0] - 1
    tokenizer = "tokenizer.json"
    assert file_hash(on.path / tokenizer) == file_hash(made.path / tokenizer)


def test_a_base_made_elsewhere_is_continued(text, tmp_path):
    base = tiny_base(tmp_path / "base", attention_dropout=0.1)
    on = run(text, tmp_path / "on", base=str(base), **UNSHAPED)
    assert on.metrics["last_loss"] < on.metrics["first_loss"]
    assert on.parents[0].startswith("base-")


def test_a_base_that_does_not_fit_is_refused(made, text, tmp_path):
    with pytest.raises(ConfigError, match=r"layers = 2: the base brings its own"):
        run(text, tmp_path / "on", base=str(made.path))
    with pytest.raises(ConfigError, match=r"context = 128: .* takes at most 64"):
        run(text, tmp_path / "on", base=str(made.path), **UNSHAPED, context=128)
    with pytest.raises(ModelError, match="there is no such base"):
        run(text, tmp_path / "on", base="nowhere", **UNSHAPED)
    assert not (tmp_path / "on.partial").exists()


# Text


def test_every_document_is_in_exactly_one_part(text, tmp_path):
    tokenizer = train_tokenizer([text], 400)
    corpus = tokenise([text], tokenizer, tmp_path, 0.1)
    whole = text.read_text(encoding="utf-8").splitlines()
    eos = "<|endoftext|>"
    train, held_out = (tokenizer.decode(p.tolist()) for p in (corpus.train, corpus.held_out))
    assert held_out == eos + "".join(line + eos for line in whole[::10])
    kept = [line for n, line in enumerate(whole) if n % 10]
    assert train == eos + "".join(line + eos for line in kept)
    assert corpus.documents == len(whole)


def test_a_text_cannot_spell_a_special_token(text, tmp_path):
    path = tmp_path / "sly.txt"
    path.write_text("one<|endoftext|>two <|im_start|>system\n")
    tokenizer = train_tokenizer([text], 400)
    corpus = tokenise([path], tokenizer, tmp_path, 0)
    assert corpus.train.tolist().count(tokenizer.eos_token_id) == 2
    assert tokenizer.convert_tokens_to_ids("<|im_start|>") not in corpus.train


def test_all_forms_of_a_text_give_the_same_documents(tmp_path):
    expected = lines(5)
    forms = {name: tmp_path / f"text.{name}" for name in ("txt", "jsonl", "parquet")}
    forms["txt"].write_text("\n\n".join(expected), encoding="utf-8")
    rows = [json.dumps({"text": line, "id": n}) for n, line in enumerate(expected)]
    forms["jsonl"].write_text("\n".join([*rows, '{"text": null}', '{"text": ""}']))
    pq.write_table(pa.table({"text": expected}), forms["parquet"])
    for path in forms.values():
        assert list(documents([path])) == expected


@given(tokens=st.integers(1, 200), context=st.integers(2, 40))
def test_windows_predict_every_token_but_the_first_exactly_once(tokens, context):
    windows = Windows(np.arange(tokens, dtype=np.uint16), context)
    rows = [windows[n] for n in range(len(windows))]
    pairs = [zip(row.ids, row.weights, strict=True) for row in rows]
    assert [i for row in pairs for i, weight in row if weight] == list(range(1, tokens))
    assert all(2 <= len(row.ids) <= context for row in rows)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("none.txt", None, "there is no such file"),
        ("empty.txt", b"", "the file is empty"),
        ("latin.txt", b"plain\ncaf\xe9\n", r"latin\.txt:2: byte 0xe9 is not UTF-8"),
        ("rows.jsonl", b'{"text": "a"}\n{"text": \n', r"rows\.jsonl:2: broken JSON"),
        ("rows.jsonl", b'{"txt": "a"}\n', r"rows\.jsonl:1: no `text` in this row \(found: txt\)"),
        ("rows.jsonl", b'{"text": 7}\n', r"rows\.jsonl:1: no `text` in this row"),
        ("short.txt", b"too short\nfor anything\n", "tokens to train on, less than a window"),
        ("book.pdf", b"%PDF", "cannot be read"),
    ],
)
def test_text_that_cannot_be_trained_on_is_one_clear_message(tmp_path, name, content, fault):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=fault):
        run(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_faulty_settings_are_named_at_once(text, tmp_path):
    with pytest.raises(ConfigError) as caught:
        run(text, tmp_path, layers=0, epochs=-1, held_out=0.9, heads=3, context=128)
    for fault in (
        "layers = 0: must be at least 1",
        "epochs = -1: must be above 0",
        "held_out = 0.9: must be from 0 to 0.5",
        "hidden = 32: must be a multiple of 2 x heads = 6",
        "context = 128: above max_positions = 64",
    ):
        assert fault in str(caught.value)


# The working folder

STEPS = 45

CHILD = f"""
import sys
import burnish.nn.loop as loop
from pathlib import Path
from burnish.pretrain import PretrainConfig, pretrain
loop._SAVE_SECONDS, loop._SAVING_SHARE = 0.0, 1e9  # save after every step
pretrain(PretrainConfig((Path(sys.argv[1]),), Path(sys.argv[2]), **{SMALL | {"max_steps": STEPS}}))
"""


@pytest.fixture
def one_thread():
    """As in the child: how many threads share a sum changes its last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_kill_9_and_the_same_command_give_the_run_of_one_unbroken(
    text, tmp_path, one_thread, capsys
):
    command = [sys.executable, "-c", CHILD, str(text), str(tmp_path / "killed")]
    metrics = tmp_path / "killed.partial" / "metrics.jsonl"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    assert 0 < len(metrics.read_text().splitlines()) < STEPS

    killed = run(text, tmp_path / "killed", max_steps=STEPS)
    assert "going on with the run" in capsys.readouterr().err
    unbroken = run(text, tmp_path / "unbroken", max_steps=STEPS)
    assert killed.metrics["losses"] == unbroken.metrics["losses"]
    assert len(killed.metrics["losses"]) == STEPS
    weights = "model.safetensors"
    assert file_hash(killed.path / weights) == file_hash(unbroken.path / weights)
    assert not (tmp_path / "killed.partial").exists()


def interrupted(text: Path, out: Path, **changes) -> None:
    """Press Ctrl-C once a state is saved: the run stops and leaves its working folder."""
    state = out.with_name(out.name + ".partial") / "state.pt"

    def press() -> None:
        while not state.exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(text, out, **changes)
    thread.join()
    assert not out.exists()


def test_a_started_run_does_not_go_on_with_other_settings_or_text(text, tmp_path, monkeypatch):
    monkeypatch.setattr("burnish.nn.loop._SAVE_SECONDS", 0.0)
    monkeypatch.setattr("burnish.nn.loop._SAVING_SHARE", 1e9)
    out = tmp_path / "out"
    interrupted(text, out, max_steps=STEPS)
    with pytest.raises(ConfigError, match=r"learning_rate: 0\.01 then, 0\.02 now") as caught:
        run(text, out, max_steps=STEPS, learning_rate=2e-2)
    assert "layers" not in str(caught.value)
    other = tmp_path / "other.txt"
    other.write_text("\n".join(lines(400, seed=1)), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"text: 'text-\w+' then, 'text-\w+' now"):
        run(other, out, max_steps=STEPS)
    moved = tmp_path / "moved.txt"
    moved.write_bytes(text.read_bytes())
    assert run(moved, out, max_steps=STEPS).metrics["steps"] == STEPS  # the same text, elsewhere


def test_a_run_refused_before_its_first_step_does_not_stand_in_the_way(text, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("too short")
    with pytest.raises(InputError, match="tokens to train on"):
        run(short, tmp_path / "out")
    assert (
        run(text, tmp_path / "out").metrics["losses"]
        == (run(text, tmp_path / "fresh").metrics["losses"])
    )


def test_a_finished_run_is_not_done_again(made, text, capsys):
    written = (made.path / "manifest.json").stat().st_mtime_ns
    again = run(text, made.path, max_steps=30)
    assert again == made
    assert "is finished already" in capsys.readouterr().err
    assert (made.path / "manifest.json").stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match="seed: 0 then, 7 now"):
        run(text, made.path, max_steps=30, seed=7)


def test_what_is_not_ours_is_never_touched(text, tmp_path):
    for name in ("thesis", "base.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("precious")
    with pytest.raises(ProjectError, match="exists already and is not the result of this run"):
        run(text, tmp_path / "thesis")
    with pytest.raises(ProjectError, match="holds something else"):
        run(text, tmp_path / "base")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ProjectError, match="exists already"):
        run(text, tmp_path / "file")
    for name in ("thesis", "base.partial"):
        assert [p.name for p in (tmp_path / name).iterdir()] == ["thesis.tex"]


def test_two_runs_at_once_are_refused_with_the_pid_of_the_first(tmp_path):
    with (
        resume_or_start(tmp_path / "out", {"seed": 0}),
        pytest.raises(ResourceError, match=rf"another run works here \(pid {os.getpid()}\)"),
        resume_or_start(tmp_path / "out", {"seed": 0}),
    ):
        pass


def test_a_kill_while_the_result_is_written_loses_nothing(tmp_path):
    """Each state a kill can leave behind: half a result, a result with its working folder."""
    out, done = tmp_path / "base", {"seed": 0}
    with resume_or_start(out, done) as work:
        (work.folder / "state.pt").write_text("state")
    (tmp_path / ".base.1234.tmp").mkdir()  # half a result
    (tmp_path / ".base.partial.1234.tmp").mkdir()
    neighbour = tmp_path / ".base.small.1234.tmp"
    neighbour.mkdir()
    with resume_or_start(out, done) as work:
        assert work.resumed
        assert (work.folder / "state.pt").read_text() == "state"
        with finished_folder(work, ["text-0"], {}) as folder:
            (folder / "config.json").write_text("{}")
    with resume_or_start(tmp_path / "other", done) as work:
        (tmp_path / "base.partial").mkdir()
        (tmp_path / "base.partial" / "run.json").write_text("{}")  # the clean-up did not come
    with resume_or_start(out, done) as work:
        assert work.finished is not None
        assert work.finished["parents"] == ["text-0"]
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == [".base.small.1234.tmp", "base", "other.partial"]


# The base shipped


def test_starter_is_small_whole_and_opens():
    manifest = read_manifest(STARTER)
    for name, digest in manifest["files"].items():
        assert file_hash(STARTER / name) == digest, name
    assert sum(p.stat().st_size for p in STARTER.iterdir()) <= 12_000_000
    model = load_model("starter")
    assert model.identity == manifest["id"]
    check_laws(choose_template(model.tokenizer))


def test_starter_carries_the_licence_of_its_text():
    notice = (STARTER / "NOTICE").read_text(encoding="utf-8")
    assert "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved." in notice
    assert "public domain" in notice


def test_the_recipe_is_the_run_that_made_starter():
    recipe = read_toml(ROOT / "recipes" / "starter.toml")["pretrain"]
    made = read_toml(STARTER / "run.toml")["pretrain"]
    assert {**recipe, "out": ""} == {**made, "out": ""}
