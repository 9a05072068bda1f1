"""One measurement in a fresh process, so that its peak memory is its own.

`run` starts the process and waits for it; run as a script this file is that process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from speed_rows import LORA_ALPHA, LORA_RANK, Work


@dataclass(frozen=True)
class Measurement:
    """What one side did with one piece of work."""

    side: str
    setting: str
    """The peer's number format and batch layout; what differs from the recipe, for Burnish."""
    losses: list[float] = field(default_factory=list)
    """Mean loss per supervised token of each step, before its update, in nats."""
    step_seconds: list[float] = field(default_factory=list)
    step_tokens: list[int] = field(default_factory=list)
    """Tokens of each step, every example counted alone, without padding."""
    warmup_steps: int = 1
    loaded_bytes: int = 0
    """Resident just before the first step (on CUDA: allocated)."""
    peak_bytes: int = 0
    """Peak while training."""
    facts: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    """Why there is no measurement."""

    @property
    def tokens_per_second(self) -> float:
        """Over the steps after the warm-up."""
        tokens = sum(self.step_tokens[self.warmup_steps :])
        return tokens / sum(self.step_seconds[self.warmup_steps :])


def run(task: dict[str, Any], *, timeout: float, threads: int | None, cuda: bool) -> dict[str, Any]:
    """Do `task` in a fresh process and return its answer, or `{"failure": why}`."""
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    if not cuda:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    with tempfile.TemporaryDirectory(prefix="tune_speed") as folder:
        paths = [Path(folder) / name for name in ("task.json", "answer.json", "log")]
        paths[0].write_text(json.dumps(task | {"folder": folder}), encoding="utf-8")
        with paths[2].open("w") as log:
            process = subprocess.Popen(
                [sys.executable, __file__, str(paths[0]), str(paths[1])],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                status = process.wait(timeout)
            except subprocess.TimeoutExpired:
                return {"failure": f"not done within {timeout:.0f} s"}
            finally:
                _end(process)
        if status or not paths[1].exists():
            lines = paths[2].read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return {"failure": f"exit {status}: " + " | ".join(lines[-3:])[-500:]}
        answer: dict[str, Any] = json.loads(paths[1].read_text(encoding="utf-8"))
        return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all it started, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def measure(
    side: str,
    work: Work,
    setting: str = "",
    *,
    timeout: float,
    threads: int | None,
    cuda: bool,
) -> Measurement:
    """Train `work` on `side` in a fresh process."""
    task = {"do": "train", "side": side, "setting": setting, "work": asdict(work)}
    answer = run(task, timeout=timeout, threads=threads, cuda=cuda)
    return Measurement(side, setting, **answer)


def train_with_burnish(work: Work, side: str, setting: str, folder: Path) -> dict[str, Any]:
    """The public interface, `tune`, as any user calls it; `setting` is NAME=VALUE pairs."""
    from burnish.config import build_config, parse_overrides
    from burnish.nn.memory import held_memory, peak_memory
    from burnish.tune.config import TuneConfig
    from burnish.tune.tune import tune

    values: dict[str, Any] = {
        "data": work.examples,
        "base": work.adapter or work.base,
        "out": folder / "checkpoint",
        "technique": work.technique,
        "epochs": work.epochs,
        "lora_rank": LORA_RANK,
        "lora_alpha": LORA_ALPHA,
        "learning_rate": work.learning_rate,
        "schedule": "constant",
        "warmup_fraction": 0.0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "batch_examples": work.batch_examples,
        "max_length": work.max_length,
        "order": "as_given",
        "precision": work.precision,
    }
    if work.technique == "layers":
        values |= {"top_layers": work.top_layers, "cache_trunk": side == "burnish"}
    values |= parse_overrides(setting.split())
    config = build_config(TuneConfig, values, where="the benchmark")
    loaded: list[int] = []
    checkpoint = tune(config, on_preflight=lambda _: loaded.append(held_memory()))
    metrics = dict(checkpoint.metrics)
    if values.get("cache_trunk") and not metrics["cached_blocks"]:
        raise SystemExit("the trunk was not cached, so there is nothing to compare")
    lines = (config.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [json.loads(line) for line in lines]
    return {
        "losses": metrics.pop("losses"),
        "step_seconds": _differences(steps, "seconds"),
        "step_tokens": _differences(steps, "tokens"),
        "warmup_steps": work.warmup_steps,
        "loaded_bytes": loaded[0],
        "peak_bytes": max(peak_memory(), metrics["peak_memory_bytes"]),
        "facts": metrics,
    }


def _differences(steps: list[dict[str, Any]], name: str) -> list[Any]:
    """A figure of each step alone; the metrics count it from the beginning of the run."""
    counts = [0, *(step[name] for step in steps)]
    return [after - before for before, after in pairwise(counts)]


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(task["folder"])
    answer: dict[str, Any]
    if task["do"] == "prepare":
        from speed_rows import prepare

        options = task["options"]
        work = prepare(
            options.pop("row"), Path(options.pop("into")), data=Path(options.pop("data")), **options
        )
        answer = asdict(work)
    elif task["do"] == "scale":
        from tune_scaling import point

        answer = point(task, folder)
    else:
        work, side = Work(**task["work"]), task["side"]
        if side.startswith("burnish"):
            answer = train_with_burnish(work, side, task["setting"], folder)
        else:
            from peers import train_with_peer

            answer = train_with_peer(work, side, task["setting"], folder)
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
