"""The optimiser of a run: clipping, number formats, the average of the weights, exact resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch

from burnish.nn.optim.rules import Rule, is_matrix, rules, torch_optimizer
from burnish.nn.optim.settings import OptimizerSettings
from burnish.nn.optim.sizes import optimizer_bytes, parts
from burnish.nn.optim.trained import Trained


class Optimizer:
    """Moves the trainable parameters of a module, and resumes to the last bit.

    All arithmetic is in fp32, whatever the parameters are in. Weight decay touches matrices only. A
    parameter without a gradient (one frozen for now) is left alone: weights, moments and average.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        settings: OptimizerSettings,
        *,
        seed: int = 0,
        memory_bytes: int | None = None,
        learning_rate_multiplier: Callable[[str], float] = lambda _: 1.0,
    ) -> None:
        """Take the parameters of `module` that are trainable now.

        Args:
            module: the model; embeddings and LM head are told from hidden layers by its modules.
            settings: which optimiser, and how.
            seed: seeds stochastic rounding.
            memory_bytes: what the optimiser may take, for `master_weights="auto"`; None for no
                bound.
            learning_rate_multiplier: the factor on a parameter's learning rate, by its name.
        """
        self.settings = settings
        self._seed = seed
        self._steps = 0
        self._module = module
        self._rules = rules(module, settings)
        assert self._rules, "nothing to train"
        self._multipliers = {name: learning_rate_multiplier(name) for name in self._rules}
        self.updating = False
        """Whether an update has begun and not ended: only then are weights half moved."""
        self._build(_master_weights(module, settings, memory_bytes))

    def step(self, learning_rate: float, max_grad_norm: float) -> float:
        """Clip the gradient to `max_grad_norm` (0: never), update, and return the norm before.

        A gradient whose norm is no number moves nothing.
        """
        norm = self._grad_norm()
        if not math.isfinite(norm):
            return norm
        scale = min(1.0, max_grad_norm / (norm + 1e-6)) if max_grad_norm else 1.0
        self.updating = True
        for optimizer, part in self._parts:
            self._update(optimizer, part, learning_rate, scale)
        self.updating = False
        self._steps += 1
        return norm

    def drop_gradients(self) -> None:
        """Forget gradients that will not be used."""
        for trained in self.trained:
            trained.parameter.grad = trained.work.grad = None

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs to go on to the last bit; the tensors are not copied."""
        return {
            "master_weights": self.master_weights,
            "steps": self._steps,
            "weights": {trained.name: trained.weights for trained in self.trained},
            "averages": {
                trained.name: trained.average
                for trained in self.trained
                if trained.average is not None
            },
            "moments": {
                trained.name: optimizer.state[trained.work]
                for optimizer, part in self._parts
                for trained in part
                if trained.work in optimizer.state
            },
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`; a run goes on in the number format it began in."""
        if state["master_weights"] != self.master_weights:
            self._build(state["master_weights"])
        self._steps = state["steps"]
        for optimizer, part in self._parts:
            for trained in part:
                trained.weights.copy_(state["weights"][trained.name])
                trained.publish()
                if trained.average is not None:
                    trained.average.copy_(state["averages"][trained.name])
                if trained.name in state["moments"]:
                    moments = _on(trained.work.device, state["moments"][trained.name])
                    optimizer.state[trained.work] = moments

    @contextmanager
    def average_weights(self) -> Iterator[None]:
        """Put the average of the weights into the model while inside; nothing without one."""
        averaged = [trained for trained in self.trained if trained.average is not None]
        kept = [trained.parameter.detach().clone() for trained in averaged]
        self.take_averages()
        try:
            yield
        finally:
            for trained, weights in zip(averaged, kept, strict=True):
                trained.parameter.detach().copy_(weights)

    def take_averages(self) -> None:
        """Put the average of the weights into the model for good; nothing without one."""
        for trained in self.trained:
            if trained.average is not None:
                trained.parameter.detach().copy_(trained.average)

    def _build(self, master_weights: Literal["fp32", "stochastic_rounding"]) -> None:
        """Make everything kept beside the parameters."""
        self.master_weights = master_weights
        self.trained = [
            Trained.of(
                name,
                parameter,
                self._rules[name],
                self._multipliers[name],
                rounding=master_weights == "stochastic_rounding",
                averaged=self.settings.ema_decay > 0,
            )
            for name, parameter in self._module.named_parameters()
            if name in self._rules
        ]
        self._numbers = {trained.name: n for n, trained in enumerate(self.trained)}
        self._parts = []
        for part in parts(self.trained, lambda trained: trained.parameter.numel()):
            for rule, members in groupby(sorted(part, key=_rule), key=_rule):
                together = list(members)
                groups = _groups(together, self.settings.weight_decay)
                self._parts.append((torch_optimizer(rule, groups, self.settings), together))

    def _update(
        self,
        optimizer: torch.optim.Optimizer,
        part: list[Trained],
        learning_rate: float,
        scale: float,
    ) -> None:
        moved = [trained for trained in part if trained.parameter.grad is not None]
        for trained in moved:
            trained.begin(scale)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["multiplier"]
        optimizer.step()
        for trained in moved:
            generator = self._generator(trained) if trained.rounded else None
            trained.finish(generator, self.settings.ema_decay)

    def _grad_norm(self) -> float:
        """Norm of all gradients together, in fp32: bf16 would be off by 0.4 %."""
        norms = [
            torch.linalg.vector_norm(trained.parameter.grad, dtype=torch.float32)
            for trained in self.trained
            if trained.parameter.grad is not None
        ]
        assert norms, "no parameter has a gradient"
        return float(torch.linalg.vector_norm(torch.stack(norms)))

    def _generator(self, trained: Trained) -> torch.Generator:
        """Random numbers that depend on the seed, the step and the parameter alone."""
        number = self._numbers[trained.name]
        words = np.random.SeedSequence([self._seed, self._steps, number]).generate_state(1)
        return torch.Generator(trained.parameter.device).manual_seed(int(words[0]))


def _master_weights(
    module: torch.nn.Module, settings: OptimizerSettings, memory_bytes: int | None
) -> Literal["fp32", "stochastic_rounding"]:
    """What `auto` means here: fp32 masters, which lose nothing, if they fit."""
    if settings.master_weights != "auto":
        return settings.master_weights
    if memory_bytes is None or optimizer_bytes(module, settings, "fp32") <= memory_bytes:
        return "fp32"
    return "stochastic_rounding"


def _rule(trained: Trained) -> Rule:
    return trained.rule


def _groups(part: list[Trained], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: one for each pair of weight decay and learning-rate multiplier."""
    groups: dict[tuple[float, float], list[torch.Tensor]] = {}
    for trained in part:
        decay = weight_decay if is_matrix(trained.parameter) else 0.0
        groups.setdefault((decay, trained.multiplier), []).append(trained.work)
    return [
        {"params": params, "weight_decay": decay, "multiplier": multiplier}
        for (decay, multiplier), params in groups.items()
    ]


def _on(device: torch.device, moments: Any) -> Any:
    """Moments read from disk, on the device of their parameter."""
    if isinstance(moments, dict):
        return {name: _on(device, value) for name, value in moments.items()}
    return moments.to(device)
