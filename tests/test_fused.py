"""Norms, gated MLPs and LoRA layers with fewer passes: same numbers, same names, less kept.

Run: pytest tests/test_fused.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from burnish.nn.footprint import measure_footprint
from burnish.nn.forest import plant
from burnish.nn.fused import fuse, unfused
from burnish.nn.selfcheck import check_gradients
from burnish.nn.step import forest_loss
from burnish.nn.support import use_forests
from burnish.nn.techniques import add_lora, train_everything, trainable_parameters
from test_engine import ARCHITECTURES, rows
from test_trunk import wrapped

# Norms, MLPs and LoRA layers of three blocks and the final norm; a block of Gemma 3 has six norms.
REPLACED = {"llama": 7 + 3 + 21, "gemma3 with sliding and global layers": 19 + 3 + 21, "gpt2": 0}


def model_of(name: str, technique: str, dtype=torch.float32):
    torch.manual_seed(0)
    model = wrapped(AutoModelForCausalLM.from_config(ARCHITECTURES[name]).to(dtype).eval())
    for parameter in model.model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    if technique == "lora":
        model.model.name_or_path = str(Path().absolute())  # as it is for an opened base
        model = add_lora(model, rank=4, alpha=8, targets="all-linear")
        for key, parameter in trainable_parameters(model):
            if "lora_B" in key:  # zero at the start, and then A has no gradient
                torch.nn.init.normal_(parameter, std=0.2)
    else:
        model = train_everything(model)
    assert use_forests(model) is None
    return model


def step(model) -> tuple[float, dict[str, torch.Tensor]]:
    loss = forest_loss(model, plant(rows()))
    loss.backward()
    found = {key: p.grad for key, p in trainable_parameters(model)}
    model.model.zero_grad()
    return loss.item(), found


def assert_same(found, expected, tolerance: float) -> None:
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    norm = sum(g.float().norm() ** 2 for g in expected[1].values()) ** 0.5
    for key, gradient in expected[1].items():
        assert (found[1][key] - gradient).float().norm() < tolerance * norm, key


@pytest.mark.parametrize("technique", ["lora", "full"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_fused_modules_give_the_same_loss_and_gradients(name, technique):
    model = model_of(name, technique)
    expected = step(model)
    replaced = fuse(model)
    if technique == "lora" and name in REPLACED:
        assert replaced == REPLACED[name]
    assert_same(step(model), expected, 1e-5)


def test_the_model_is_checked_against_its_own_forwards():
    model = model_of("llama", "lora")
    own = step(model)
    fuse(model)
    fused = {m for m in model.body.modules() if "forward" in m.__dict__}
    with unfused(model):
        assert not any("forward" in m.__dict__ for m in model.body.modules())
        assert step(model)[0] == own[0]
    assert {m for m in model.body.modules() if "forward" in m.__dict__} == fused
    assert check_gradients(model, rows()) < 1e-5


@pytest.mark.parametrize("name", ["llama", "gemma3 with sliding and global layers"])
def test_which_norm_it_is_shows_in_bf16_too(name):
    """With weights of 50, 1 + weight is 2 % more, which is near what bf16 rounds away."""
    model = model_of(name, "lora", torch.bfloat16)
    for key, parameter in model.model.named_parameters():
        if "norm" in key:
            torch.nn.init.constant_(parameter, 50.0)
    x = torch.randn(3, 32)
    expected = model.body.norm(x)
    fuse(model)
    torch.testing.assert_close(model.body.norm(x), expected)


def test_a_norm_that_does_something_else_is_left_alone():
    model = model_of("llama", "full")
    norm = model.body.norm
    own = norm.forward
    norm.forward = lambda x: own(x) + 1
    fuse(model)
    assert "partial" not in repr(norm.forward)


def test_fused_modules_keep_less_for_the_backward():
    model = model_of("llama", "lora", torch.bfloat16)
    before = measure_footprint(model).per_token
    fuse(model)
    assert measure_footprint(model).per_token < 0.8 * before


def test_in_bf16_they_agree_within_rounding():
    model = model_of("gemma3 with sliding and global layers", "lora", torch.bfloat16)
    expected = step(model)
    fuse(model)
    assert_same(step(model), expected, 0.05)


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # the compiler's own
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_they_give_the_same():
    model = model_of("llama", "lora")
    expected = step(model)
    assert fuse(model, compiled=True) == REPLACED["llama"]
    assert_same(step(model), expected, 1e-5)
