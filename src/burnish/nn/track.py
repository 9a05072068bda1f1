"""Trackers: the rows of metrics.jsonl as they come, in TensorBoard, MLflow or Weights & Biases.

| tracker | where | set by the tracker's own variables |
|---|---|---|
| tensorboard | `runs/NAME` beside the checkpoint | |
| mlflow | its store, experiment `burnish` | MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME |
| wandb | its server, project `burnish` | WANDB_MODE=offline, WANDB_PROJECT, WANDB_DIR, ... |

A run that was killed goes on in the tracker's run it began, and each step is there once. A tracker
that fails is left out from then on, with one warning: no training is lost to a dashboard.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from burnish.errors import ConfigError
from burnish.files import replaced_file
from burnish.nn.run_state import Progress, metric_rows
from burnish.nn.workfolder import RUN_FILE

TrackerName = Literal["tensorboard", "mlflow", "wandb"]

_INSTALLED_BY: dict[str, str] = {
    "tensorboard": "tensorboard",
    "mlflow": "mlflow-skinny",
    "wandb": "wandb",
}
_RUNS_FILE = "trackers.json"

# MLflow's store takes some 10 ms a write, as long as a step of a small model.
_MLFLOW_SECONDS = 2.0

Row = Mapping[str, float]
"""A row of metrics.jsonl, or part of one; `step` is always there."""


class _Tracker(Protocol):
    def log(self, row: Row) -> None: ...

    def close(self) -> None: ...


def check_trackers(names: Sequence[str]) -> None:
    """Refuse what is unknown or not installed.

    Raises:
        ConfigError: lists every fault.
    """
    faults = []
    for name in names:
        if name not in get_args(TrackerName):
            known = ", ".join(get_args(TrackerName))
            faults.append(f"track = {name!r}: must be one of {known}")
        elif find_spec(name) is None:
            package = _INSTALLED_BY[name]
            faults.append(f"track = {name!r}: not installed; `pip install {package}`")
    if faults:
        raise ConfigError("\n    ".join(faults))


class Trackers:
    """The trackers of a run that still work."""

    def __init__(self) -> None:
        self._working: dict[TrackerName, _Tracker] = {}

    def open(self, name: TrackerName, make: Callable[[], _Tracker]) -> None:
        """Add a tracker."""
        with self._tolerated(name):
            self._working[name] = make()

    def log(self, row: Row) -> None:
        """Hand a row with its `step` to each."""
        for name, tracker in list(self._working.items()):
            with self._tolerated(name):
                tracker.log(row)

    def close(self) -> None:
        """Let each write what it still holds."""
        for name, tracker in list(self._working.items()):
            with self._tolerated(name):
                tracker.close()

    @contextmanager
    def _tolerated(self, name: TrackerName) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, the training is worth more
            self._working.pop(name, None)
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            print(
                f"{name} failed ({reason}): the run goes on without it; every step is in "
                "metrics.jsonl",
                file=sys.stderr,
            )


@contextmanager
def open_trackers(names: Sequence[TrackerName], folder: Path, done: Progress) -> Iterator[Trackers]:
    """Open trackers for the run that works in `folder`, and close them in the end.

    Raises:
        ConfigError: one is not installed.
    """
    check_trackers(names)
    makers: dict[TrackerName, Callable[[], _Tracker]] = {
        "tensorboard": lambda: _TensorBoard(folder, done),
        "mlflow": lambda: _MLflow(folder, done),
        "wandb": lambda: _WandB(folder, done),
    }
    trackers = Trackers()
    for name in names:
        trackers.open(name, makers[name])
    try:
        yield trackers
    finally:
        trackers.close()


class _TensorBoard:
    """Event files; what an earlier process wrote after the saved state is purged."""

    def __init__(self, folder: Path, done: Progress) -> None:
        from torch.utils.tensorboard import SummaryWriter

        where = folder.parent / "runs" / _run_name(folder)
        self._writer = SummaryWriter(str(where), purge_step=done.steps + 1)
        if not done.steps:
            self._writer.add_text("run", f"```\n{json.dumps(_run_of(folder), indent=2)}\n```")

    def log(self, row: Row) -> None:
        for name, value in _figures(row).items():
            self._writer.add_scalar(name, value, int(row["step"]))
        self._writer.flush()  # a kill would lose two minutes of them

    def close(self) -> None:
        self._writer.close()


class _MLflow:
    """A run in MLflow's store; the store knows which steps it has."""

    def __init__(self, folder: Path, done: Progress) -> None:
        import mlflow

        self._client = mlflow.MlflowClient()
        self._entities = mlflow.entities
        self._pending: list[Any] = []
        self._written = time.monotonic()
        self._run = _saved_run(folder, "mlflow", lambda: self._create(folder))
        names = self._client.get_run(self._run).data.metrics
        self._last = {
            name: max(m.step for m in self._client.get_metric_history(self._run, name))
            for name in names
        }
        self._client.update_run(self._run, status="RUNNING")
        for row in metric_rows(done):
            self.log(row)

    def log(self, row: Row) -> None:
        step, now = int(row["step"]), int(time.time() * 1000)
        self._pending += [
            self._entities.Metric(name, value, now, step)
            for name, value in _figures(row).items()
            if step > self._last.get(name, 0)
        ]
        if time.monotonic() - self._written > _MLFLOW_SECONDS:
            self._write()

    def close(self) -> None:
        self._write()
        self._client.set_terminated(self._run)

    def _write(self) -> None:
        for begin in range(0, len(self._pending), 1000):  # the most one call takes
            self._client.log_batch(self._run, metrics=self._pending[begin : begin + 1000])
        self._pending.clear()
        self._written = time.monotonic()

    def _create(self, folder: Path) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "burnish")
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = self._client.create_run(number, run_name=_run_name(folder))
        for key, value in _run_of(folder).items():
            self._client.log_param(run.info.run_id, key, str(value)[:500])
        return str(run.info.run_id)


class _WandB:
    """A run in Weights & Biases, gone on with under its id."""

    def __init__(self, folder: Path, done: Progress) -> None:
        import wandb

        self._run = wandb.init(
            id=_saved_run(folder, "wandb", lambda: secrets.token_hex(8)),
            resume="allow",
            project=os.environ.get("WANDB_PROJECT", "burnish"),
            name=_run_name(folder),
            config=_run_of(folder),
            settings=wandb.Settings(console="off", silent=True),
        )
        # Online the server says what it has. Offline nobody does, and a kill loses what was not yet
        # written: the part begun now gets every step, and is the one to sync.
        self._next = self._run.starting_step
        for row in metric_rows(done):
            self.log(row)

    def log(self, row: Row) -> None:
        if row["step"] >= self._next:
            self._run.log(_figures(row), step=int(row["step"]))

    def close(self) -> None:
        self._run.finish()


def _figures(row: Row) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "step"}


def _run_name(folder: Path) -> str:
    """The checkpoint's name: the run works in NAME.partial."""
    return folder.name.removesuffix(".partial")


def _run_of(folder: Path) -> dict[str, Any]:
    """The settings and hashes of the run, as `nn.workfolder` wrote them."""
    path = folder / RUN_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _saved_run(folder: Path, tracker: str, create: Callable[[], str]) -> str:
    """The id of this run in a tracker, made the first time."""
    path = folder / _RUNS_FILE
    runs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if tracker not in runs:
        runs[tracker] = create()
        with replaced_file(path) as temporary:
            temporary.write_text(json.dumps(runs), encoding="utf-8")
    return str(runs[tracker])
