"""The speed benchmark: it runs on a small model, and two different recipes never pass as one.

Run: pytest tests/test_benchmarks.py
"""

from __future__ import annotations

import json
import random
import sys
import time
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

# ruff: noqa: E402  (benchmarks is no package; the line above is how its scripts find each other)
import tune_scaling
import tune_speed
from peers import LAYOUTS, train_with_peer
from speed_rows import RULES, prepare, shortened
from speed_run import Measurement, measure, run, train_with_burnish
from speed_table import disagreement, line_of

WORDS = ("library", "opens", "at", "nine", "closes", "readers", "have", "gone", "home", "for")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with rows in the form of the Alpaca demo."""
    draw = random.Random(0)
    rows = [
        {
            "instruction": " ".join(draw.choices(WORDS, k=draw.randint(4, 12))),
            "input": "",
            "output": " ".join(draw.choices(WORDS, k=draw.randint(4, 60))),
        }
        for _ in range(40)
    ]
    folder = tmp_path_factory.mktemp("data")
    (folder / "alpaca_en_demo.json").write_text(json.dumps(rows))
    return folder


def prepared(row, data, folder, steps=3):
    return prepare(row, folder / row, steps=steps, precision="fp32", gemma=None, data=data)


@pytest.fixture(scope="module")
def work(data, tmp_path_factory):
    return prepared("tiny-lora", data, tmp_path_factory.mktemp("work"))


def trained(work, folder):
    return Measurement("burnish", "", **train_with_burnish(work, "burnish", "", folder))


@pytest.fixture(scope="module")
def ours(work, tmp_path_factory):
    return trained(work, tmp_path_factory.mktemp("ours"))


def test_burnish_alone_from_the_command_line(data, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--rows", "tiny-full", "--sides", "burnish", "--precision", "fp32", "--rounds", "1"]
    words += ["--steps", "2", "--threads", "1", "--data", str(data), "--out", str(out)]
    assert tune_speed.main(words) == 0, (out / "speed.md").read_text()
    facts = json.loads((out / "speed.json").read_text())
    [measured] = [Measurement(**r["burnish"]) for r in facts["rounds"]["tiny-full"]]
    assert len(measured.losses) == len(measured.step_seconds) == len(measured.step_tokens) == 3
    assert measured.losses[-1] < measured.losses[0]
    assert sum(measured.step_tokens) == measured.facts["tokens"]
    assert measured.peak_bytes >= measured.loaded_bytes > 10**8
    assert "two-layer Llama, full | burnish |" in capsys.readouterr().out


def test_another_recipe_does_not_pass_for_the_same(work, ours, tmp_path):
    slower = replace(work, learning_rate=work.learning_rate * 0.7)
    other = replace(trained(slower, tmp_path), side="other")
    assert "at step" in disagreement(ours, other, "fp32")
    first = Path(work.tokens).read_text().splitlines()[0]
    assert json.loads(first)["labels"].count(-100) > 0, "prompts carry no loss"


@pytest.mark.parametrize(("side", "layout"), [("trl", "packed"), ("hf", "one-by-one")])
def test_peers_train_on_the_same_recipe(work, ours, side, layout, tmp_path):
    missing = [name for name in ("trl", "datasets", "accelerate") if find_spec(name) is None]
    if missing:
        pytest.skip(f"peers need pip install 'burnish[bench]': no {', '.join(missing)}")
    assert layout in LAYOUTS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, not ours
        answer = train_with_peer(work, side, f"fp32,{layout}", tmp_path / layout)
    theirs = Measurement(side, f"fp32,{layout}", **answer)
    assert disagreement(ours, theirs, "fp32") is None
    assert theirs.step_tokens == ours.step_tokens
    assert theirs.tokens_per_second > 0


def measurement(side, losses, seconds=1.0):
    count = len(losses)
    seconds_of_steps = [9.0, *[seconds] * (count - 1)]
    return Measurement(side, "", losses, seconds_of_steps, [100] * count, peak_bytes=10**9)


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ([2.0, 1.9, 1.8019], "at step 3"),
        ([2.003, 1.9, 1.8], "at step 1"),
        ([2.0, float("nan"), 1.8], "at step 2"),
        ([2.0, 1.9], "2 losses, but 3 steps"),
    ],
)
def test_a_wrong_curve_is_found(planted, said):
    ours = measurement("burnish", [2.0, 1.9, 1.8])
    assert disagreement(ours, measurement("trl", [2.0005, 1.8995, 1.8001]), "fp32") is None
    assert said in disagreement(ours, measurement("trl", planted), "fp32")


def test_a_row_whose_curves_differ_fails_the_run(work, tmp_path):
    results = tune_speed.Results(tmp_path)
    results.works["tiny-lora"] = work
    results.add("tiny-lora", 0, measurement("burnish", [2.0, 1.9]))
    results.add("tiny-lora", 0, measurement("trl", [2.0, 1.7]))
    assert len(results.faults()) == 1
    assert "at step 2" in (tmp_path / "speed.md").read_text()
    results.add("tiny-lora", 0, measurement("hf", [2.0, 1.9, 1.8]))
    assert "3 losses, but 2 steps" in (tmp_path / "speed.md").read_text()


def test_ratios_leave_the_warm_up_out_and_are_medians_over_rounds(work):
    rounds = [
        {"burnish": measurement("burnish", [2.0, 1.9]), "trl": measurement("trl", [2.0, 1.9], s)}
        for s in (3.0, 5.0, 100.0)
    ]
    line = line_of(work, "trl", rounds)
    assert line.ratio == pytest.approx(5.0)
    assert line.ratio_range == pytest.approx((3.0, 100.0))
    assert line.tokens_per_second == pytest.approx(20.0)
    unfinished = [*rounds, {"trl": measurement("trl", [2.0, 1.9], 1.0)}]
    assert line_of(work, "trl", unfinished).ratio == pytest.approx(5.0)
    assert line_of(work, "hf", rounds) is None


def test_a_measurement_that_takes_too_long_is_ended_and_said(work):
    started = time.monotonic()
    measured = measure("burnish", work, "", timeout=0.2, threads=1, cuda=False)
    assert "not done within" in measured.failure  # importing torch alone takes longer
    assert time.monotonic() - started < 5


def test_a_measurement_that_fails_says_why():
    answer = run({"do": "train", "work": {}}, timeout=60, threads=1, cuda=False)
    assert "TypeError" in answer["failure"]


def test_cuda_is_refused_where_there_is_none(tmp_path, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(SystemExit):
        tune_speed.parse(["--cuda", "--out", str(tmp_path)])
    assert "no CUDA device" in capsys.readouterr().err


def test_a_trial_takes_the_first_examples(work, tmp_path):
    small = shortened(work, tmp_path, steps=2)
    assert small.step_tokens() == work.step_tokens()[:2]
    assert (small.steps, small.warmup_steps) == (2, 1)


def test_the_rules_are_long_enough_to_be_cut():
    # Any tokenizer makes at least a token of a word, so 333 words would always do; Gemma's
    # makes 385 tokens of these.
    assert len("".join(RULES).split()) > 320


def test_scaling_points(data, tmp_path):
    task = {"data": str(data), "bases": str(tmp_path / "bases"), "llama": "tiny", "setting": ""}
    for folder in ("shared", "snapshot"):
        (tmp_path / folder).mkdir()
    answer = tune_scaling.point(task | {"series": "sharing", "value": 16}, tmp_path / "shared")
    row = tune_scaling.SERIES["sharing"].cells(16, answer)
    assert answer["facts"]["tokens"] > 3 * answer["facts"]["computed_tokens"]
    assert row.count("|") == tune_scaling.SERIES["sharing"].header.count("|")
    answer = tune_scaling.point(task | {"series": "snapshot", "value": 300}, tmp_path / "snapshot")
    row = tune_scaling.SERIES["snapshot"].cells(300, answer)
    assert answer["sharing_factor"] > 1
    assert row.count("|") == tune_scaling.SERIES["snapshot"].header.count("|")
