"""The loop: killed anywhere it goes on to the last bit; validation, memory, metrics, trackers.

Run: pytest tests/test_loop.py
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import burnish.nn.loop as loop
from burnish.chat import Rendered
from burnish.errors import ConfigError, ResourceError
from burnish.nn.attention import ATTENTION
from burnish.nn.batches import Batches
from burnish.nn.energy import EnergyMeter
from burnish.nn.loop import LoopSettings, run_steps
from burnish.nn.models import LoadedModel, load_model
from burnish.nn.optim import Optimizer, OptimizerSettings, learning_rates
from burnish.nn.run_state import Progress
from burnish.nn.step import forest_loss
from burnish.nn.track import check_trackers
from tiny import tiny_base

STEPS = 8

# A killed child is the only way to be killed for real; after a fork Python warns of other threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"), num_hidden_layers=1)


@pytest.fixture
def model(base) -> LoadedModel:
    return opened(base)


def opened(base: Path, precision: str = "fp32") -> LoadedModel:
    model = load_model(str(base), precision=precision)
    model.model.requires_grad_(True)
    model.causal_lm.set_attn_implementation(ATTENTION)
    return model


def examples(count: int, seed: int = 0) -> list[Rendered]:
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        ids = [rng.randrange(10, 60) for _ in range(rng.randrange(8, 30))]
        found.append(Rendered(ids, [0.0] * 4 + [1.0] * (len(ids) - 4), []))
    return found


def batches(**changes: Any) -> Batches:
    settings = {
        "batch_examples": 4,
        "batch_tokens": 4096,
        "order": "shuffled",
        "seed": 0,
        "share_prefixes": True,
    }
    return Batches(examples(14), **settings | changes)  # epochs of 4 steps, the last one smaller


def validation_loss(model: LoadedModel) -> float:
    forests = Batches(examples(4, seed=9), 4, 4096, "as_given", 0, True)(0).forests
    return sum(float(forest_loss(model, f)) / float(f.weights.sum()) for f in forests)


def train(
    model: LoadedModel,
    folder: Path,
    optimizer: OptimizerSettings | None = None,
    steps: int = STEPS,
    over: Batches | None = None,
    **changes: Any,
) -> Progress:
    rates = learning_rates("cosine", 5e-3, STEPS, 0.2)
    return run_steps(
        model,
        Optimizer(model.model, optimizer or OptimizerSettings(), seed=1),
        over or batches(),
        LoopSettings(steps, rates, "test", **changes),
        folder,
    )


def weights(model: LoadedModel) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.model.parameters()]


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def in_a_child(work: Callable[[], Any]) -> int:
    """Run `work` in a forked child: its exit code, or minus the signal it died of.

    Models are opened before: transformers reads weights in threads, which a fork does not survive.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed(run: Callable[..., Any], at: int, saved: int, **changes: Any) -> None:
    """`run` in a child that saves its state after step `saved` alone and is killed in step `at`."""

    def strike(step: int) -> None:
        if step == at:
            os.kill(os.getpid(), signal.SIGKILL)
        loop._SAVE_SECONDS = -1.0 if step == saved - 1 else float("inf")
        loop._SAVING_SHARE = float("inf")

    assert saved <= at
    assert in_a_child(lambda: run(before_step=(strike,), **changes)) == -signal.SIGKILL


OPTIMIZERS = [
    OptimizerSettings("adamw", weight_decay=0.1),
    OptimizerSettings("adamw", master_weights="stochastic_rounding", ema_decay=0.8),
    OptimizerSettings("adamw_8bit", master_weights="fp32"),
    OptimizerSettings("muon", master_weights="stochastic_rounding"),
    OptimizerSettings("adafactor", master_weights="stochastic_rounding"),
    OptimizerSettings("sgd", ema_decay=0.8),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.optimizer)
def test_kill_9_and_resume_give_the_unbroken_run_to_the_last_bit(base, tmp_path, optimizer):
    """Killed mid-epoch and in a later epoch; losses, validation and best weights are equal.

    Elsewhere the order begins anew (modelscope/ms-swift#10050) or the run does (axolotl#1134).
    """

    def run(folder: str, model: LoadedModel, **changes: Any) -> Progress:
        settings = {
            "validate": lambda: validation_loss(model),
            "validate_every": 3,
            "keep_best": True,
        }
        return train(model, tmp_path / folder, optimizer, **settings | changes)

    straight = opened(base, "bf16")
    unbroken = run("unbroken", straight)
    assert len(unbroken.losses) == STEPS
    assert [step for step, _ in unbroken.validations] == [3, 6, 8]
    model = opened(base, "bf16")
    killed(partial(run, "killed", model), at=4, saved=3)
    killed(partial(run, "killed", model), at=7, saved=5)
    begun = []
    done = run("killed", model, before_step=(begun.append,))
    assert begun == [5, 6, 7]
    assert done.losses == unbroken.losses
    assert done.validations == unbroken.validations
    assert equal(weights(model), weights(straight))
    rows = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, STEPS + 1))


def test_ctrl_c_ends_the_step_and_loses_nothing(base, tmp_path):
    """Not even the validation that was due after that step."""
    model = opened(base)
    fresh = weights(model)
    validation = {"validate": lambda: validation_loss(model), "validate_every": 5}
    unbroken = train(model, tmp_path / "unbroken", **validation)

    def press(step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    for parameter, weight in zip(model.model.parameters(), fresh, strict=True):
        parameter.data.copy_(weight)
    with pytest.raises(KeyboardInterrupt):
        train(model, tmp_path / "stopped", before_step=(press,), **validation)
    assert "validation_loss" not in (tmp_path / "stopped" / "metrics.jsonl").read_text()
    begun = []
    done = train(model, tmp_path / "stopped", before_step=(begun.append,), **validation)
    assert begun == [5, 6, 7]
    assert done.losses == unbroken.losses
    assert done.validations == unbroken.validations


def test_a_finished_run_trains_no_step_again(model, tmp_path):
    train(model, tmp_path)
    before = weights(model)
    begun = []
    assert train(model, tmp_path, before_step=(begun.append,)).steps == STEPS
    assert begun == []
    assert equal(before, weights(model))


class Planted:
    """Validation losses given step by step; remembers the weights they were said of."""

    def __init__(self, model: LoadedModel, losses: list[float]) -> None:
        self.model, self.losses, self.seen = model, losses, []

    def __call__(self) -> float:
        self.seen.append(weights(self.model))
        return self.losses[len(self.seen) - 1]


def test_early_stopping_and_the_best_weights(model, tmp_path):
    planted = Planted(model, [3.0, 2.0, float("nan"), 2.0, 1.0])
    done = train(
        model,
        tmp_path,
        validate=planted,
        validate_every=1,
        early_stopping_patience=2,
        keep_best=True,
    )
    assert done.steps == 4  # an equal loss and one that is no number are no improvement
    assert done.best_step == 2
    assert equal(weights(model), planted.seen[1])
    assert [path.name for path in tmp_path.glob("best-*")] == ["best-2.pt"]
    assert done.facts()["best_step"] == 2


def test_without_keep_best_the_last_weights_stay(model, tmp_path):
    planted = Planted(model, [1.0, 2.0])
    done = train(model, tmp_path, validate=planted, validate_every=4)
    assert [step for step, _ in done.validations] == [4, 8]
    assert equal(weights(model), planted.seen[1])
    assert not list(tmp_path.glob("best-*"))


def test_the_average_is_what_is_validated_kept_and_left(base, tmp_path):
    optimizer = OptimizerSettings(ema_decay=0.5)
    model = opened(base)
    planted = Planted(model, [1.0, 2.0])
    train(model, tmp_path / "best", optimizer, validate=planted, validate_every=4, keep_best=True)
    assert equal(weights(model), planted.seen[0])
    model = opened(base)
    planted = Planted(model, [1.0, 2.0])
    train(model, tmp_path / "last", optimizer, validate=planted, validate_every=4)
    assert equal(weights(model), planted.seen[1])
    plain = opened(base)
    train(plain, tmp_path / "plain")
    assert not equal(weights(plain), weights(model))


def test_best_weights_of_a_saved_state_outlive_later_ones(base, tmp_path):
    """Killed after a better validation that the saved state does not know: both files stand."""
    model = opened(base)

    def run(**changes: Any) -> Progress:
        settings = {"validate": lambda: validation_loss(model), "validate_every": 1}
        return train(model, tmp_path, keep_best=True, **settings | changes)

    killed(run, at=6, saved=2)
    names = {path.name for path in tmp_path.glob("best-*")}
    state = torch.load(tmp_path / "state.pt", weights_only=True)["progress"]
    best = min((loss, step) for step, loss in state["validations"])[1]
    assert f"best-{best}.pt" in names
    assert 1 <= len(names) <= 2
    done = run()
    assert [path.name for path in tmp_path.glob("best-*")] == [f"best-{done.best_step}.pt"]


def allocate(gigabytes_a_token: float) -> Callable[..., None]:
    """A forward hook that really asks the allocator for memory, in proportion to the tokens."""

    def hook(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            tokens = kwargs["input_ids"].shape[1]
            torch.empty(int(tokens * gigabytes_a_token * 2**30), dtype=torch.uint8)

    return hook


def limit_memory(more: int) -> None:
    """Let this process take `more` bytes than it has now (address space, as ulimit -v counts)."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")


@needs_proc
def test_out_of_memory_shrinks_the_forests_and_not_the_loss(base, tmp_path, capfd):
    """The batch stays what it is, cut smaller; a resumed run cuts alike (Lightning-AI/litgpt#159).

    The allocator really fails: address space is limited, and a forest of more than about 50 tokens
    asks for more.
    """
    plain = train(opened(base), tmp_path / "plain")

    model = opened(base)
    model.body.register_forward_pre_hook(allocate(0.02), with_kwargs=True)

    def run(before_step: tuple[Callable[[int], None], ...] = ()) -> None:
        limit_memory(2**30)
        begun: list[int] = []
        done = train(model, tmp_path / "run", before_step=(begun.append, *before_step))
        assert done.batch_tokens is not None
        assert 25 <= done.batch_tokens <= 50
        assert done.losses == pytest.approx(plain.losses, rel=1e-5)
        assert done.computed_tokens == plain.computed_tokens
        Path(tmp_path / "begun").write_text(json.dumps(begun))

    assert in_a_child(run) == 0
    assert json.loads((tmp_path / "begun").read_text())[:2] == [0, 0]  # tried again
    told = capfd.readouterr().err
    assert told.count("memory ran out") == len(json.loads((tmp_path / "begun").read_text())) - STEPS
    assert "the loss does not change" in told

    first = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["progress"]
    (tmp_path / "run").rename(tmp_path / "unbroken")
    killed(run, at=5, saved=3)
    assert in_a_child(run) == 0
    again = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["progress"]
    assert [row[0] for row in again["rows"]] == [row[0] for row in first["rows"]]
    assert json.loads((tmp_path / "begun").read_text()) == [3, 4, 5, 6, 7]  # not tried again


def test_an_example_too_large_for_memory_is_one_clear_message(model, tmp_path):
    model.body.register_forward_pre_hook(allocate(10_000.0), with_kwargs=True)
    before = weights(model)
    with pytest.raises(ResourceError, match=r"not enough memory for one example of \d+ tokens"):
        train(model, tmp_path)
    assert equal(before, weights(model))


@needs_proc
def test_out_of_memory_in_the_update_is_never_tried_again(base, tmp_path):
    """Some weights have moved by then; planted by moments that do not fit."""
    model = opened(base)
    ballast = torch.nn.Parameter(torch.zeros(40_000_000))
    model.model.register_parameter("ballast", ballast)

    def run() -> None:

        def give_gradient(_: int) -> None:
            ballast.grad = torch.zeros_like(ballast)
            limit_memory(200_000_000)

        with pytest.raises(ResourceError, match="while the weights were updated"):
            train(model, tmp_path, before_step=(give_gradient,))

    assert in_a_child(run) == 0


def test_other_errors_are_not_taken_for_memory(model, tmp_path):
    def fail(*_: Any) -> None:
        raise RuntimeError("shape mismatch")

    model.body.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train(model, tmp_path)


def test_a_gradient_that_is_no_number_stops_the_run_with_the_weights_whole(model, tmp_path):
    """The loss is a number all the while (planted in a hook on one weight's gradient)."""
    head = model.head.weight
    head.register_hook(lambda gradient: gradient * float("nan"))
    before = weights(model)
    with pytest.raises(ConfigError, match="gradient's norm is nan at step 1"):
        train(model, tmp_path)
    assert equal(before, weights(model))


def test_the_rows_of_the_metrics(model, tmp_path):
    done = train(
        model,
        tmp_path,
        validate=lambda: 0.5,
        validate_every=4,
        price_per_hour=3600.0,
        watts=1000.0,
    )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == done.losses
    assert [row["step"] for row in rows if "validation_loss" in row] == [4, 8]
    assert rows[-1]["tokens"] == done.tokens == sum(len(row.ids) for row in examples(14)) * 2
    assert rows[-1]["computed_tokens"] == done.computed_tokens
    assert rows[-1]["seconds"] == done.seconds > rows[0]["seconds"] > 0
    assert [row["learning_rate"] for row in rows] == [
        learning_rates("cosine", 5e-3, STEPS, 0.2)(n) for n in range(STEPS)
    ]
    facts = done.facts(price_per_hour=3600.0)
    assert facts["cost"] == pytest.approx(done.elapsed)
    assert done.elapsed >= done.seconds
    if facts["energy_source"] == "watts":
        assert facts["energy_kwh"] == pytest.approx(done.elapsed / 3600, rel=0.1)


def test_energy_is_read_from_the_packages_of_the_processor(tmp_path):
    def counter(zone: str, name: str, microjoules: int) -> Path:
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(name + "\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("9999999\n")
        (tmp_path / zone / "energy_uj").write_text(f"{microjoules}\n")
        return tmp_path / zone / "energy_uj"

    first = counter("intel-rapl:0", "package-0", 9_000_000)
    second = counter("intel-rapl:1", "package-1", 0)
    counter("intel-rapl:0:0", "core", 5)  # a part of package 0
    counter("intel-rapl:2", "psys", 5)  # the whole board, both packages included
    meter = EnergyMeter(watts=50.0, powercap=tmp_path)
    assert meter.source is not None
    assert "rapl" in meter.source
    first.write_text("1000000\n")  # wrapped around: 2 J
    second.write_text("3000000\n")
    assert meter.joules() == pytest.approx(5.0, abs=0.01)
    first.write_text("1500000\n")
    assert meter.joules() == pytest.approx(5.5, abs=0.01)


def test_energy_without_counters_is_estimated_or_not_known(tmp_path):
    estimated, unknown = EnergyMeter(50.0, tmp_path), EnergyMeter(None, tmp_path)
    if not torch.cuda.is_available():
        assert (estimated.source, unknown.source) == ("watts", None)
        assert unknown.joules() is None
        assert (estimated.joules() or 0) > 0


def tracked_twice(base: Path, tmp_path: Path, name: str) -> Progress:
    """A tracked run that is killed in step 6 and goes on from the state saved after step 3."""
    model = opened(base)

    def run(**changes: Any) -> Progress:
        settings = {"validate": lambda: 0.25, "validate_every": 4, "track": (name,)}
        return train(model, tmp_path / "tuned.partial", **settings | changes)

    killed(run, at=6, saved=3)
    time.sleep(1.0)  # TensorBoard reads its files in the order of their names, which have seconds
    return run()


def test_tensorboard_has_each_step_once_after_a_kill(base, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = tracked_twice(base, tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "runs" / "tuned"))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(n, pytest.approx(loss)) for n, loss in enumerate(done.losses, 1)]
    assert [event.step for event in events.Scalars("validation_loss")] == [4, 8]


def in_mlflow_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of files: setting up MLflow's SQLite store, the default, takes 8 s."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{folder}/mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def test_mlflow_has_each_step_once_after_a_kill(base, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    in_mlflow_folder(tmp_path, monkeypatch)
    done = tracked_twice(base, tmp_path, "mlflow")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("burnish")
    [run] = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == list(enumerate(done.losses, 1))
    history = client.get_metric_history(run.info.run_id, "validation_loss")
    assert [m.step for m in history] == [4, 8]
    assert run.info.status == "FINISHED"


def wandb_history(path: Path) -> dict[int, dict[str, float]]:
    """The rows of an offline run: a LevelDB log of protocol buffers, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), 7, b""
    history: dict[int, dict[str, float]] = {}
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece of one
            record = Record.FromString(whole)
            whole = b""
            if record.WhichOneof("record_type") == "history":
                items = {(i.key or i.nested_key[0]): i.value_json for i in record.history.item}
                row = {name: json.loads(value) for name, value in items.items()}
                assert row["_step"] not in history
                history[row["_step"]] = row
    return history


def test_wandb_goes_on_in_the_same_run_with_each_step_once(base, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    done = tracked_twice(base, tmp_path, "wandb")
    [run] = json.loads((tmp_path / "tuned.partial" / "trackers.json").read_text()).values()
    parts = sorted((tmp_path / "wandb").glob(f"offline-run-*-{run}"))
    assert len(parts) == 2
    history = wandb_history(parts[-1] / f"run-{run}.wandb")
    assert {step: row["loss"] for step, row in history.items()} == dict(enumerate(done.losses, 1))
    assert [step for step, row in history.items() if "validation_loss" in row] == [4, 8]


def test_a_tracker_that_cannot_begin_does_not_stop_the_training(base, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    (tmp_path / "runs").write_text("a file where the folder should go")
    done = train(opened(base), tmp_path / "one.partial", track=("tensorboard",))
    assert done.steps == STEPS
    told = capsys.readouterr().err
    assert told.count("tensorboard failed") == 1
    assert "the run goes on without it" in told


def test_a_tracker_that_fails_midway_does_not_stop_the_training(
    base, tmp_path, monkeypatch, capsys
):
    """Planted: its store is removed during the run."""
    pytest.importorskip("mlflow")
    in_mlflow_folder(tmp_path, monkeypatch)

    def remove(step: int) -> None:
        if step == 4:
            shutil.rmtree(tmp_path / "mlflow")

    done = train(opened(base), tmp_path / "one.partial", track=("mlflow",), before_step=(remove,))
    assert done.steps == STEPS
    assert capsys.readouterr().err.count("mlflow failed") == 1


def test_trackers_that_are_not_there_are_named_before_the_run(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(ConfigError) as caught:
        check_trackers(("wandb", "tensorbord"))
    assert "pip install wandb" in str(caught.value)
    assert "'tensorbord': must be one of tensorboard, mlflow, wandb" in str(caught.value)
    with pytest.raises(ConfigError, match="pip install wandb"):
        train(model, tmp_path, track=("wandb",))
