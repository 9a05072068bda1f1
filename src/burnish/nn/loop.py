"""From the first step to the last: schedule, validation, live view, saving, resuming.

The loop keeps no state but the weights, the optimiser and `Progress`: which examples a step trains
on, and everything random, is a function of the seed and the step alone. So a run that is killed and
started again gives the same losses, to the last bit, as one that was not.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from burnish.errors import ConfigError, ResourceError
from burnish.nn.energy import EnergyMeter
from burnish.nn.forest import Forest
from burnish.nn.models import LoadedModel
from burnish.nn.optim import Optimizer
from burnish.nn.out_of_memory import is_out_of_memory, release_memory, smaller_budget
from burnish.nn.run_state import (
    Progress,
    StepRow,
    keep_best_weights,
    load_best_weights,
    load_run,
    metric_row,
    save_best_weights,
    save_run,
)
from burnish.nn.step import StepResult, training_step
from burnish.nn.track import TrackerName, Trackers, open_trackers
from burnish.progress import progress_bar

# Saving may take this share of the run: the state of a full fine-tune is 12 bytes a parameter.
_SAVING_SHARE = 0.05
_SAVE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Batch:
    """The forests of one optimiser step."""

    forests: Sequence[Forest]
    supervised_tokens: int


class StepBatches(Protocol):
    """The batches of a run: `nn.batches.Batches`."""

    @property
    def batch_tokens(self) -> int:
        """Computed tokens a forest may have."""

    def with_budget(self, batch_tokens: int) -> Self:
        """The same steps, cut to another budget."""

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """What a stage tells the loop."""

    steps: int
    """Optimiser steps of the whole run."""
    learning_rate: Callable[[int], float]
    """The learning rate of each step, counted from 0."""
    what: str
    """Stands before the progress bar."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm; 0 never clips."""
    before_step: Sequence[Callable[[int], None]] = ()
    """Told the step, counted from 0, before its forward; called again if the step is done again."""
    validate: Callable[[], float] | None = None
    """Mean loss on the validation part, of the weights in the model."""
    validate_every: int = 0
    """Steps between validations; the last step is validated too. 0 for the last alone."""
    early_stopping_patience: int = 0
    """Stop after so many validations in a row without a lower loss; 0 for never."""
    keep_best: bool = False
    """End with the weights of the lowest validation loss."""
    track: Sequence[TrackerName] = ()
    """Trackers that get each row of the metrics."""
    price_per_hour: float | None = None
    """For the cost beside the progress bar."""
    watts: float | None = None
    """Power of the machine, for the energy where it is not measured."""


def run_steps(
    model: LoadedModel,
    optimizer: Optimizer,
    batches: StepBatches,
    settings: LoopSettings,
    folder: Path,
) -> Progress:
    """Train to the last step, going on from the state in `folder` if there is one.

    At the end the model holds the weights to be saved: those of the best validation with
    `keep_best`, else their average where the optimiser keeps one, else the last.

    Ctrl-C lets the step end and saves the state before it goes up as KeyboardInterrupt; a second
    one goes up at once, and the run goes on from the state saved before.

    Raises:
        ConfigError: the loss or the gradient is no number, or a tracker is not installed.
        ResourceError: not enough memory for a single example.
    """
    model.model.eval()  # no dropout: a prefix that examples share would get one mask for all
    done = load_run(folder, optimizer)
    bar_of_steps = progress_bar(
        settings.what, unit="step", total=settings.steps, initial=done.steps
    )
    with (
        open_trackers(settings.track, folder, done) as trackers,
        bar_of_steps as bar,
        _interrupt_deferred() as interrupted,
    ):
        run = _Run(model, optimizer, batches, settings, folder, done, trackers)
        if run.validation_is_due:
            run.validate()  # Ctrl-C came before it could be done
        while not (run.is_finished or interrupted.is_set()):
            run.step()
            bar.set_postfix_str(run.figures(), refresh=False)  # else it draws every step
            bar.update()
            if run.validation_is_due and not interrupted.is_set():
                run.validate()
            if run.save_is_due:
                run.save()
    run.save()
    if interrupted.is_set():
        raise KeyboardInterrupt
    run.end()
    return done


class _Run:
    """A run at work in this process."""

    def __init__(
        self,
        model: LoadedModel,
        optimizer: Optimizer,
        batches: StepBatches,
        settings: LoopSettings,
        folder: Path,
        done: Progress,
        trackers: Trackers,
    ) -> None:
        self.model, self.optimizer, self.settings = model, optimizer, settings
        self.folder, self.done, self.trackers = folder, done, trackers
        self.batches = (
            batches if done.batch_tokens is None else batches.with_budget(done.batch_tokens)
        )
        self.best_saved = done.best_step
        self.saved_at, self.save_cost = time.monotonic(), 0.0
        self.begun, self.elapsed_before = time.monotonic(), done.elapsed
        self.meter = EnergyMeter(settings.watts)
        self.joules_before = done.energy_joules or 0.0
        done.energy_source = self.meter.source or done.energy_source

    @property
    def is_finished(self) -> bool:
        """Whether the last step is done, or validation says to stop."""
        patience = self.settings.early_stopping_patience
        out_of_patience = patience and self.done.validations_without_improvement >= patience
        return self.done.steps >= self.settings.steps or bool(out_of_patience)

    @property
    def validation_is_due(self) -> bool:
        """Whether the step just done is to be validated and has not been yet."""
        steps, every = self.done.steps, self.settings.validate_every
        if self.settings.validate is None or not steps:
            return False
        validated = self.done.validations and self.done.validations[-1][0] == steps
        due = steps == self.settings.steps or (every and steps % every == 0)
        return bool(due and not validated)

    @property
    def save_is_due(self) -> bool:
        """Whether enough time has gone by since the last save."""
        since = time.monotonic() - self.saved_at
        due = since > max(_SAVE_SECONDS, self.save_cost / _SAVING_SHARE)
        return due and self.done.steps < self.settings.steps

    def step(self) -> None:
        """One optimiser step, done again in smaller forests if memory runs out."""
        step = self.done.steps
        result = None
        while result is None:
            for told in self.settings.before_step:
                told(step)
            batch, started = self.batches(step), time.perf_counter()
            result = self._try_step(batch)
            if result is None:
                self._shrink(batch)
        if not (math.isfinite(result.loss) and math.isfinite(result.grad_norm)):
            name, value = ("loss", result.loss)
            if math.isfinite(result.loss):
                name, value = ("gradient's norm", result.grad_norm)
            raise ConfigError(
                f"the {name} is {value} at step {step + 1}, so there is nothing to go on with",
                where="training",
                do="give a lower learning_rate or precision=fp32, with another --out",
            )
        self._note(batch, result, time.perf_counter() - started)

    def _try_step(self, batch: Batch) -> StepResult | None:
        """The step, or None if memory ran out before the weights were touched."""
        rate = self.settings.learning_rate(self.done.steps)
        try:
            return training_step(
                self.model, batch.forests, self.optimizer, rate, self.settings.max_grad_norm
            )
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if self.optimizer.updating:
                raise ResourceError(
                    "memory ran out while the weights were updated",
                    where="training",
                    do="free some memory and give the same command again, which goes on from the "
                    "last saved state; or begin anew with optimizer=adamw_8bit, "
                    "master_weights=stochastic_rounding, or technique=lora",
                ) from error
        return None

    def _shrink(self, batch: Batch) -> None:
        """Go on with a smaller token budget; saved at once, so that a resumed run cuts alike."""
        self.optimizer.drop_gradients()
        old = self.batches.batch_tokens
        new = smaller_budget(list(batch.forests), old)
        release_memory(old, new)
        self.batches = self.batches.with_budget(new)
        self.done.batch_tokens = new
        self.save()

    def _note(self, batch: Batch, result: StepResult, seconds: float) -> None:
        last = self.done.last
        row = StepRow(
            loss=result.loss,
            grad_norm=result.grad_norm,
            learning_rate=self.settings.learning_rate(self.done.steps),
            tokens=last.tokens + sum(forest.tokens for forest in batch.forests),
            computed_tokens=last.computed_tokens + sum(len(f.ids) for f in batch.forests),
            supervised_tokens=last.supervised_tokens + batch.supervised_tokens,
            loss_terms=last.loss_terms + sum(len(f.targets) for f in batch.forests),
            seconds=last.seconds + seconds,
        )
        self.done.rows.append(row)
        self._count_elapsed()
        self.trackers.log(metric_row(self.done.steps, row, None))

    def validate(self) -> None:
        """Note the validation loss; keep the weights if it is the lowest so far."""
        assert self.settings.validate is not None
        with self.optimizer.average_weights():
            with torch.no_grad():
                loss = self.settings.validate()
            self.done.validations.append((self.done.steps, loss))
            if self.settings.keep_best and self.done.best_step == self.done.steps:
                keep_best_weights(self.folder, {self.best_saved})
                save_best_weights(self.folder, self.optimizer, self.done.steps)
        self._count_elapsed()
        self.trackers.log({"step": self.done.steps, "validation_loss": loss})

    def save(self) -> None:
        """Write all that a killed run needs to go on from here."""
        started = time.monotonic()
        save_run(self.folder, self.optimizer, self.done)
        self.best_saved = self.done.best_step
        self.saved_at = time.monotonic()
        self.save_cost = self.saved_at - started

    def end(self) -> None:
        """Leave the weights in the model that the run is for."""
        best = self.done.best_step
        if self.settings.keep_best and best is not None:
            load_best_weights(self.folder, self.optimizer, best)
        else:
            self.optimizer.take_averages()

    def figures(self) -> str:
        """What stands beside the progress bar."""
        done = self.done
        shown = [f"loss {done.last.loss:.3f}"]
        if done.validations:
            shown.append(f"validation {done.validations[-1][1]:.3f}")
        if done.seconds:
            logical, computed = done.tokens / done.seconds, done.computed_tokens / done.seconds
            shown.append(f"{logical:,.0f} tokens/s ({computed:,.0f} computed)")
        if done.energy_joules is not None:
            shown.append(f"{done.energy_joules / 3.6e6:.3g} kWh")
        if self.settings.price_per_hour:
            shown.append(f"cost {done.elapsed / 3600 * self.settings.price_per_hour:.2f}")
        return ", ".join(shown)

    def _count_elapsed(self) -> None:
        self.done.elapsed = self.elapsed_before + time.monotonic() - self.begun
        joules = self.meter.joules()
        if joules is not None:
            self.done.energy_joules = self.joules_before + joules


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
