"""Before step 1: the gradient of a forest against that of the examples one by one.

The law the engine rests on, checked on the model, the technique and the data at hand, since an
architecture may do with attention or with logits what no test of ours has seen. The other side is
the plain one: the model's own forward and attention, the whole (T, V) logits, cross-entropy.
(Unsloth checks its shared prefixes likewise before it trusts them, within 0.7 nats of loss; the
bounds here are those of rounding.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from burnish.chat import Rendered
from burnish.errors import ModelError
from burnish.nn.attention import ATTENTION
from burnish.nn.forest import plant
from burnish.nn.fused import unfused
from burnish.nn.memory import free_memory
from burnish.nn.models import LoadedModel
from burnish.nn.rows import TokenRow
from burnish.nn.step import forest_loss
from burnish.nn.support import runs_on_forests
from burnish.nn.techniques import trainable_parameters

# Norm of the difference of all gradients together, relative to their norm. In bf16 two right ways
# to compute differ by 0.009 for Gemma 3 270M and by 0.09 for a model of wild weights, by rounding
# alone, and the mildest fault tried by 0.17: so bf16 is checked in fp32 wherever that fits.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.3}

# Tokens of a checked example: enough to branch and to leave a sliding window of a small model.
_TOKENS = 96


def check_gradients(model: LoadedModel, examples: Sequence[Rendered | TokenRow]) -> float:
    """Compare both ways on two examples made from `examples`; the relative difference.

    The two share the first half of the first, so that sharing is checked whatever the data.

    Raises:
        ModelError: they differ by more than rounding; training would learn something else.
    """
    rows = _two_rows(examples)
    with _in_fp32(model):
        relative = _difference(model, rows)
        bound = TOLERANCE[model.head.weight.dtype]
    if not relative <= bound:
        raise ModelError(
            f"the gradient of a batch differs from that of its examples one by one by "
            f"{relative:.1e} (rounding explains {bound:.0e}), so training would go wrong",
            where=type(model.causal_lm).__name__,
            do="set share_prefixes=false; if the message comes again, this architecture is not "
            "supported: please report it",
        )
    return relative


def _difference(model: LoadedModel, rows: Sequence[Rendered]) -> float:
    if runs_on_forests(model):
        forest_loss(model, plant(rows)).backward()
    else:
        for row in rows:
            forest_loss(model, plant([row])).backward()
    found = _take_gradients(model)
    with _own_forward(model):
        for row in rows:
            _plain_loss(model, row).backward()
    expected = _take_gradients(model)
    difference = _norm([a - b for a, b in zip(found, expected, strict=True)])
    return difference / max(_norm(expected), 1e-30)


@contextmanager
def _in_fp32(model: LoadedModel) -> Iterator[None]:
    """The model's weights in fp32 for a while, if memory is there for it; bf16 fits into fp32."""
    parameters = [p for p in model.model.parameters() if p.dtype == torch.bfloat16]
    needed = sum(4 * p.numel() for p in parameters)
    if model.quantisation != "none" or needed > free_memory() // 2:
        parameters = []
    for parameter in parameters:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.data = parameter.data.to(torch.bfloat16)


def _two_rows(examples: Sequence[Rendered | TokenRow]) -> list[Rendered]:
    """Two short rows that share the first half of the first one, every token after it trained."""
    ordered = sorted(examples, key=lambda row: len(row.ids))
    chosen = next((row for row in ordered if len(row.ids) >= _TOKENS // 3), ordered[-1])
    first, second = ([int(i) for i in row.ids[:_TOKENS]] for row in (chosen, ordered[-1]))
    half = len(first) // 2
    rows = [first, first[:half] + second[half:][::-1]]
    return [
        Rendered(ids, [0.0] + [1.0 / (n % 3 + 1) for n in range(len(ids) - 1)], []) for ids in rows
    ]


def _plain_loss(model: LoadedModel, row: Rendered) -> torch.Tensor:
    """The sum the forest computes, by the model's own forward: no code of ours but this."""
    ids = torch.tensor([row.ids], device=model.head.weight.device)
    logits = model.model(input_ids=ids, use_cache=False).logits[0, -len(row.ids) :].float()
    # Not F.cross_entropy: its fp32 softmax over 262,144 words is off by 3e-4 on a CPU.
    losses = logits[:-1].logsumexp(-1) - logits[:-1].gather(1, ids.T[1:]).squeeze(1)
    weights = torch.tensor(row.weights[1:], device=ids.device)
    loss: torch.Tensor = (losses * weights).sum()
    return loss


@contextmanager
def _own_forward(model: LoadedModel) -> Iterator[None]:
    """The model's own eager attention, norms and MLPs for a while."""
    forests = runs_on_forests(model)
    if forests:
        model.causal_lm.set_attn_implementation("eager")
    try:
        with unfused(model):
            yield
    finally:
        if forests:
            model.causal_lm.set_attn_implementation(ATTENTION)


def _take_gradients(model: LoadedModel) -> list[torch.Tensor]:
    gradients = []
    for _, parameter in trainable_parameters(model):
        if parameter.grad is not None:
            gradients.append(parameter.grad)
            parameter.grad = None
    return gradients


def _norm(tensors: Sequence[torch.Tensor]) -> float:
    return float(sum(t.float().norm() ** 2 for t in tensors)) ** 0.5
