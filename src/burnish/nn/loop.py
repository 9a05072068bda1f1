"""From the first step to the last: schedule, progress, metrics, saving, resuming.

The loop keeps no state but the step number, the weights, the optimiser and the losses so far: which
examples a step trains on is a function of the seed and the step alone. So a run that is killed and
started again gives the same losses, to the last bit, as one that was not.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from burnish.errors import ConfigError
from burnish.files import replaced_file
from burnish.nn.forest import Forest
from burnish.nn.models import LoadedModel
from burnish.nn.optim import MasterAdamW
from burnish.nn.step import training_step
from burnish.progress import progress_bar

# Saving may take this share of the run: the state of a full fine-tune is 12 bytes a parameter.
_SAVING_SHARE = 0.05
_SAVE_SECONDS = 15.0

STATE_FILE = "state.pt"
METRICS_FILE = "metrics.jsonl"


@dataclass
class Progress:
    """What a run has done so far; all of it is saved with the state."""

    losses: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    tokens: int = 0
    """Tokens trained on, each example counted alone."""
    computed_tokens: int = 0
    """Tokens run through the model, shared prefixes counted once."""
    supervised_tokens: int = 0
    """Tokens with a loss weight, each example counted alone."""
    loss_terms: int = 0
    """Positions the LM head was applied at."""
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.losses)


@dataclass(frozen=True, slots=True)
class Batch:
    """The forests of one optimiser step."""

    forests: Sequence[Forest]
    supervised_tokens: int


def run_steps(
    model: LoadedModel,
    optimizer: MasterAdamW,
    batch: Callable[[int], Batch],
    *,
    steps: int,
    learning_rate: Callable[[int], float],
    max_grad_norm: float,
    folder: Path,
    what: str,
) -> Progress:
    """Train up to step `steps`, going on from the state in `folder` if there is one.

    Ctrl-C lets the step end and saves the state before it goes up as KeyboardInterrupt; a second
    one goes up at once, and the run goes on from the state saved before.
    """
    done = load_progress(folder, optimizer)
    saved_at, save_cost = time.monotonic(), 0.0
    model.model.eval()  # no dropout: a prefix that examples share would get one mask for all
    bar_of_steps = progress_bar(what, unit="step", total=steps, initial=done.steps)
    with bar_of_steps as bar, _interrupt_deferred() as interrupted:
        while done.steps < steps and not interrupted.is_set():
            _one_step(model, optimizer, batch(done.steps), done, learning_rate, max_grad_norm)
            bar.set_postfix_str(_figures(done), refresh=False)  # else it draws every step
            bar.update()
            since = time.monotonic() - saved_at
            if since > max(_SAVE_SECONDS, save_cost / _SAVING_SHARE) and done.steps < steps:
                started = time.monotonic()
                _save(folder, optimizer, done)
                saved_at = time.monotonic()
                save_cost = saved_at - started
    _save(folder, optimizer, done)
    if interrupted.is_set():
        raise KeyboardInterrupt
    return done


@contextmanager
def _interrupt_deferred() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into an event: an update cut off half-way could not be saved."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals go to the main thread alone
        return
    previous = signal.getsignal(signal.SIGINT)

    def note(*_: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)


def load_progress(folder: Path, optimizer: MasterAdamW) -> Progress:
    """Restore weights and optimiser from `folder`; a fresh `Progress` if nothing was saved."""
    path = folder / STATE_FILE
    if not path.exists():
        return Progress()
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    optimizer.load_state(state)
    return Progress(**state["progress"])


def _one_step(
    model: LoadedModel,
    optimizer: MasterAdamW,
    batch: Batch,
    done: Progress,
    learning_rate: Callable[[int], float],
    max_grad_norm: float,
) -> None:
    started = time.perf_counter()
    rate = learning_rate(done.steps)
    result = training_step(model, batch.forests, optimizer, rate, max_grad_norm)
    if not math.isfinite(result.loss):
        raise ConfigError(
            f"the loss is {result.loss} at step {done.steps + 1}, so the weights are spoilt",
            where="training",
            do="give a lower learning_rate or precision=fp32, with another --out",
        )
    done.seconds += time.perf_counter() - started
    done.tokens += sum(forest.tokens for forest in batch.forests)
    done.computed_tokens += sum(len(forest.ids) for forest in batch.forests)
    done.loss_terms += sum(len(forest.targets) for forest in batch.forests)
    done.supervised_tokens += batch.supervised_tokens
    done.grad_norms.append(result.grad_norm)
    done.losses.append(result.loss)


def _save(folder: Path, optimizer: MasterAdamW, done: Progress) -> None:
    with replaced_file(folder / STATE_FILE) as temporary:
        torch.save({"progress": asdict(done), **optimizer.state()}, temporary)
    with replaced_file(folder / METRICS_FILE) as temporary:
        rows = zip(done.losses, done.grad_norms, strict=True)
        lines = [
            json.dumps({"step": n, "loss": loss, "grad_norm": norm})
            for n, (loss, norm) in enumerate(rows, 1)
        ]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _figures(done: Progress) -> str:
    rate = done.tokens / done.seconds if done.seconds else 0.0
    return f"loss {done.losses[-1]:.3f}, {rate:,.0f} tokens/s"
