"""What a run has done so far, on disk so that a killed run goes on as if nothing had happened.

    OUT.partial/
      state.pt         weights, optimiser and `Progress`
      best-40.pt       the weights of the best validation, here the one after step 40
      metrics.jsonl    one row for each step of state.pt

Each file is replaced whole, so a kill leaves the old or the new, and metrics.jsonl has each step of
the state once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from burnish.files import replaced_file
from burnish.nn.optim import Optimizer

STATE_FILE = "state.pt"
METRICS_FILE = "metrics.jsonl"


class StepRow(NamedTuple):
    """One step; the last five count from the beginning of the run."""

    loss: float
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    tokens: int
    """Tokens trained on, each example counted alone."""
    computed_tokens: int
    """Tokens run through the model, shared prefixes counted once."""
    supervised_tokens: int
    """Tokens with a loss weight, each example counted alone."""
    loss_terms: int
    """Positions the LM head was applied at."""
    seconds: float
    """Time in the steps themselves, without validating and saving."""


_NOTHING = StepRow(0.0, 0.0, 0.0, 0, 0, 0, 0, 0.0)


@dataclass
class Progress:
    """What a run has done so far; all of it is saved with the state."""

    rows: list[StepRow] = field(default_factory=list)
    validations: list[tuple[int, float]] = field(default_factory=list)
    """Steps done and validation loss, in order."""
    batch_tokens: int | None = None
    """The token budget after memory ran out; None while it has not."""
    elapsed: float = 0.0
    """Seconds of all processes that worked on the run, validating and saving included."""
    energy_joules: float | None = None
    """Of the machine while the run was at work; None where it is not known."""
    energy_source: str | None = None
    """How it is known: `rapl`, `nvml`, both, or `watts` (an estimate)."""

    @property
    def last(self) -> StepRow:
        """The last step; zeros before the first."""
        return self.rows[-1] if self.rows else _NOTHING

    @property
    def steps(self) -> int:
        """Steps done."""
        return len(self.rows)

    @property
    def losses(self) -> list[float]:
        """Training loss of each step."""
        return [row.loss for row in self.rows]

    @property
    def tokens(self) -> int:
        """Tokens trained on, each example counted alone."""
        return self.last.tokens

    @property
    def computed_tokens(self) -> int:
        """Tokens run through the model."""
        return self.last.computed_tokens

    @property
    def supervised_tokens(self) -> int:
        """Tokens with a loss weight."""
        return self.last.supervised_tokens

    @property
    def loss_terms(self) -> int:
        """Positions the LM head was applied at."""
        return self.last.loss_terms

    @property
    def seconds(self) -> float:
        """Time in the steps themselves."""
        return self.last.seconds

    @property
    def best_step(self) -> int | None:
        """The step of the lowest validation loss, the earliest of equals."""
        finite = [(loss, step) for step, loss in self.validations if math.isfinite(loss)]
        return min(finite)[1] if finite else None

    @property
    def validations_without_improvement(self) -> int:
        """How many validations came since the best one."""
        best = self.best_step or 0
        return sum(1 for step, _ in self.validations if step > best)

    def facts(self, price_per_hour: float | None = None) -> dict[str, Any]:
        """What a checkpoint's metrics say about validation, memory, energy and cost."""
        kilowatt_hours = None if self.energy_joules is None else self.energy_joules / 3.6e6
        return {
            "validation_losses": [list(validation) for validation in self.validations],
            "best_step": self.best_step,
            "batch_tokens_in_force": self.batch_tokens,
            "elapsed_seconds": self.elapsed,
            "energy_kwh": kilowatt_hours,
            "energy_source": self.energy_source,
            "cost": None if price_per_hour is None else self.elapsed / 3600 * price_per_hour,
        }


def load_run(folder: Path, optimizer: Optimizer) -> Progress:
    """Restore weights and optimiser from `folder`; a fresh `Progress` if nothing was saved."""
    path = folder / STATE_FILE
    if not path.exists():
        return Progress()
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    optimizer.load_state(state["optimizer"])
    plain = state["progress"]
    rows = [StepRow(*row) for row in plain["rows"]]
    validations = [(step, loss) for step, loss in plain["validations"]]
    return Progress(**{**plain, "rows": rows, "validations": validations})


def save_run(folder: Path, optimizer: Optimizer, done: Progress) -> None:
    """Write state and metrics, and remove best weights that neither of them names."""
    plain = {**asdict(done), "rows": [tuple(row) for row in done.rows]}
    with replaced_file(folder / STATE_FILE) as temporary:
        torch.save({"progress": plain, "optimizer": optimizer.state()}, temporary)
    with replaced_file(folder / METRICS_FILE) as temporary:
        lines = [json.dumps(row) for row in metric_rows(done)]
        temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    keep_best_weights(folder, {done.best_step})


def metric_rows(done: Progress) -> Iterator[dict[str, float]]:
    """The rows of metrics.jsonl."""
    validation_losses = dict(done.validations)
    for step, row in enumerate(done.rows, 1):
        yield metric_row(step, row, validation_losses.get(step))


def metric_row(step: int, row: StepRow, validation_loss: float | None) -> dict[str, float]:
    """One row of metrics.jsonl, and what trackers are told."""
    figures = {
        "step": step,
        "loss": row.loss,
        "grad_norm": row.grad_norm,
        "learning_rate": row.learning_rate,
        "tokens": row.tokens,
        "computed_tokens": row.computed_tokens,
        "seconds": row.seconds,
    }
    return figures if validation_loss is None else {**figures, "validation_loss": validation_loss}


def save_best_weights(folder: Path, optimizer: Optimizer, step: int) -> None:
    """Keep the trained weights as they stand in the model now."""
    weights = {trained.name: trained.parameter.detach() for trained in optimizer.trained}
    with replaced_file(_best_file(folder, step)) as temporary:
        torch.save(weights, temporary)


def load_best_weights(folder: Path, optimizer: Optimizer, step: int) -> None:
    """Put the weights of the validation after `step` into the model."""
    weights = torch.load(_best_file(folder, step), map_location="cpu", weights_only=True)
    for trained in optimizer.trained:
        trained.parameter.detach().copy_(weights[trained.name])


def keep_best_weights(folder: Path, steps: set[int | None]) -> None:
    """Remove the best weights of all other steps.

    Those that the saved state names stay until a later state is saved: a killed run goes on from
    there.
    """
    for path in folder.glob("best-*.pt"):
        found = re.fullmatch(r"best-(\d+)\.pt", path.name)
        if found and int(found[1]) not in steps:
            path.unlink()


def _best_file(folder: Path, step: int) -> Path:
    return folder / f"best-{step}.pt"
