"""Optimisers: each is its reference, loses nothing in bf16, and resumes to the last bit.

Run: pytest tests/test_optim.py
"""

from __future__ import annotations

import gc
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from burnish.errors import ConfigError
from burnish.nn.memory import peak_memory, reset_peak_memory
from burnish.nn.optim import Optimizer, OptimizerSettings, learning_rates, optimizer_bytes
from burnish.nn.optim.adamw_8bit import MIN_QUANTISED, new_moment, pack, unpack
from burnish.nn.optim.rounding import round_to_bf16

torch.set_num_threads(1)

OPTIMIZERS = ("adamw", "adamw_8bit", "muon", "adafactor", "sgd")


class Network(nn.Module):
    """Embedding, hidden matrices, norm and head: each kind of parameter there is."""

    def __init__(self, width: int = 72, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embed = nn.Embedding(20, width)
            self.up = nn.Linear(width, 2 * width)
            self.down = nn.Linear(2 * width, width, bias=False)
            self.norm = nn.LayerNorm(width)
            self.lm_head = nn.Linear(width, 20, bias=False)
        self.to(dtype)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def loss(self, step: int) -> torch.Tensor:
        ids = torch.randint(0, 20, (40,), generator=torch.Generator().manual_seed(step))
        hidden = self.embed(ids)
        hidden = self.norm(hidden + self.down(torch.tanh(self.up(hidden))))
        return nn.functional.cross_entropy(self.lm_head(hidden).float(), (ids * 7 + 3) % 20)


def train(
    network: Network,
    optimizer: Optimizer,
    steps: Iterable[int],
    rate: float = 1e-2,
    max_grad_norm: float = 1.0,
) -> None:
    for step in steps:
        network.loss(step).backward()
        optimizer.step(rate, max_grad_norm)


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def references(name: str, network: Network, decay: float) -> list[torch.optim.Optimizer]:
    """The same optimiser put together from torch's own, decay on matrices only."""
    matrices = [p for p in network.parameters() if p.dim() == 2]
    vectors = [p for p in network.parameters() if p.dim() == 1]
    if name == "muon":
        hidden = [network.up.weight, network.down.weight]
        matrices = [network.embed.weight, network.lm_head.weight]
        muon = torch.optim.Muon(
            hidden, lr=1e-2, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        )
        return [muon, *references_of(torch.optim.AdamW, matrices, vectors, decay, fused=True)]
    if name == "sgd":
        return references_of(torch.optim.SGD, matrices, vectors, decay, momentum=0.9)
    if name == "adafactor":
        return references_of(torch.optim.Adafactor, matrices, vectors, decay)
    return references_of(torch.optim.AdamW, matrices, vectors, decay)


def references_of(
    kind: Any, matrices: list[Any], vectors: list[Any], decay: float, **settings: Any
) -> list[torch.optim.Optimizer]:
    return [
        kind(matrices, lr=1e-2, weight_decay=decay, **settings),
        kind(vectors, lr=1e-2, weight_decay=0.0, **settings),
    ]


@pytest.mark.parametrize("name", ["adamw", "muon", "adafactor", "sgd"])
def test_each_optimiser_is_its_reference_in_torch(name):
    ours, theirs = Network(), Network()
    # Muon computes in bf16, where the last bits of a clipped gradient or another AdamW would show.
    max_grad_norm = 0.0 if name == "muon" else 1.0
    optimizer = Optimizer(ours, OptimizerSettings(name, weight_decay=0.1))
    train(ours, optimizer, range(20), max_grad_norm=max_grad_norm)
    optimizers = references(name, theirs, 0.1)
    for step in range(20):
        theirs.loss(step).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm or float("inf"))
        for reference in optimizers:
            reference.step()
            reference.zero_grad()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_eight_bit_adamw_learns_as_adamw_does():
    losses = []
    for name in ("adamw", "adamw_8bit"):
        network = Network()
        assert network.up.weight.numel() > MIN_QUANTISED
        train(network, Optimizer(network, OptimizerSettings(name)), range(60), rate=3e-3)
        losses.append(network.loss(1000).item())
    assert losses[0] < 1.0 < Network().loss(1000).item()
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.parametrize("signed", [True, False])
def test_eight_bit_moments_are_near_what_they_stand_for(signed):
    values = torch.randn(15_000, generator=torch.Generator().manual_seed(0)) ** 3
    values = values if signed else values.square()
    moment, everywhere = new_moment(values), slice(0, len(values))
    assert not unpack(moment, everywhere, signed=signed).any()
    assert sum(tensor.nbytes for tensor in moment.values()) == 15_000 + 4 * 59
    pack(values, moment, everywhere, signed=signed)
    back = unpack(moment, everywhere, signed=signed)
    blocks = nn.functional.pad(values, (0, -len(values) % 256)).view(-1, 256)
    largest = blocks.abs().amax(1).repeat_interleave(256)[: len(values)]
    # Half the distance of two fractions, 0.9 / 2^6 with a sign and 0.9 / 2^7 without, and the last
    # bit of the bf16 that the code is looked up by.
    bound = 0.9 / (2**7 if signed else 2**8) + 2**-9
    assert ((back - values).abs() / largest).max() < bound
    if not signed:
        assert (back[values > 0] > 0).all()
        pack(back, moment, everywhere, signed=False)
        assert torch.equal(unpack(moment, everywhere, signed=False), back)


def test_eight_bit_adamw_is_adamw_where_codes_lose_nothing():
    """The first step starts from moments of zero, so only the arithmetic could differ."""
    moved = []
    for name in ("adamw", "adamw_8bit"):
        module = nn.Linear(300, 300)  # more than one part, and no whole number of blocks
        for parameter in module.parameters():
            parameter.data = torch.linspace(-1, 1, parameter.numel()).view_as(parameter)
            parameter.grad = torch.linspace(-2, 3, parameter.numel()).view_as(parameter)
        Optimizer(module, OptimizerSettings(name, weight_decay=0.1)).step(1e-2, 1.0)
        moved.append(module)
    for a, b in zip(moved[0].parameters(), moved[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


FORMATS = [
    (torch.float32, "fp32"),
    (torch.bfloat16, "fp32"),
    (torch.bfloat16, "stochastic_rounding"),
]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "master_weights"), FORMATS)
def test_a_run_cut_and_resumed_is_the_unbroken_one_to_the_last_bit(name, dtype, master_weights):
    settings = OptimizerSettings(
        name, weight_decay=0.01, master_weights=master_weights, ema_decay=0.9
    )
    unbroken = Network(dtype=dtype)
    optimizer = Optimizer(unbroken, settings, seed=3)
    train(unbroken, optimizer, range(5))
    file = io.BytesIO()
    torch.save(optimizer.state(), file)
    train(unbroken, optimizer, range(5, 9))

    file.seek(0)
    resumed = Network(dtype=dtype)
    again = Optimizer(resumed, settings, seed=3)
    again.load_state(torch.load(file, weights_only=True))
    train(resumed, again, range(5, 9))
    for a, b in zip(unbroken.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(optimizer.trained, again.trained, strict=True):
        assert torch.equal(a.weights, b.weights)
        assert a.average is not None
        assert b.average is not None
        assert torch.equal(a.average, b.average)


def test_a_run_goes_on_in_the_format_it_began_in_whatever_memory_there_is():
    network = Network(dtype=torch.bfloat16)
    optimizer = Optimizer(network, OptimizerSettings(), memory_bytes=1000)
    assert optimizer.master_weights == "stochastic_rounding"
    train(network, optimizer, range(2))
    resumed = Optimizer(Network(dtype=torch.bfloat16), OptimizerSettings(), memory_bytes=None)
    assert resumed.master_weights == "fp32"
    resumed.load_state(optimizer.state())
    assert resumed.master_weights == "stochastic_rounding"


def test_stochastic_rounding_is_right_on_average():
    """Law of large numbers: 1 + 1/5 of a bf16 step comes out as the upper one every fifth time."""
    ulp = 2.0**-7
    for value in (1 + ulp / 5, -(1 + ulp / 5), 3e-30, 1.0, 0.0):
        values = torch.full((200_000,), value)
        rounded = torch.empty(200_000, dtype=torch.bfloat16)
        round_to_bf16(values.clone(), rounded, torch.Generator().manual_seed(0))
        step = abs(value) * ulp
        assert abs(rounded.double().mean() - values[0].double()) < 0.01 * step + 1e-45
        assert len(rounded.unique()) == (1 if value in (1.0, 0.0) else 2)
    infinite = torch.tensor([float("inf"), float("-inf")])
    rounded = torch.empty(2, dtype=torch.bfloat16)
    round_to_bf16(infinite.clone(), rounded, torch.Generator())
    assert torch.equal(rounded.float(), infinite)


@pytest.mark.parametrize("master_weights", ["fp32", "stochastic_rounding"])
def test_updates_far_below_half_a_bf16_step_add_up(master_weights):
    """Planted: 1,000 updates of 1e-4, each 1/78 of the distance between neighbours at 1."""
    module = nn.Linear(100, 100, bias=False, dtype=torch.bfloat16)
    module.weight.data.fill_(1.0)
    settings = OptimizerSettings("sgd", momentum=0.0, master_weights=master_weights)
    optimizer = Optimizer(module, settings)
    for _ in range(1000):
        module.weight.grad = torch.full_like(module.weight, 1.0)
        optimizer.step(1e-4, 0.0)
    assert module.weight.float().mean().item() == pytest.approx(0.9, abs=2e-3)
    naive = torch.ones((), dtype=torch.bfloat16)
    for _ in range(1000):
        naive -= 1e-4
    assert naive.item() == 1.0


def test_stochastic_rounding_follows_from_seed_and_step_alone():
    def run(seed: int) -> dict[str, torch.Tensor]:
        network = Network(dtype=torch.bfloat16)
        settings = OptimizerSettings(master_weights="stochastic_rounding")
        optimizer = Optimizer(network, settings, seed=seed)
        torch.rand(seed + 1)  # the global generator stands elsewhere each time
        train(network, optimizer, range(3), rate=1e-4)
        return weights(network)

    one, two, other = run(1), run(1), run(2)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def storage_bytes(tree: Any, seen: set[int]) -> int:
    if isinstance(tree, dict):
        return sum(storage_bytes(value, seen) for value in tree.values())
    if not isinstance(tree, torch.Tensor) or tree.dim() == 0:
        return 0
    if tree.untyped_storage().data_ptr() in seen:
        return 0
    seen.add(tree.untyped_storage().data_ptr())
    return tree.untyped_storage().nbytes()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("master_weights", ["fp32", "stochastic_rounding"])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_state_takes_the_bytes_it_is_said_to(name, master_weights, ema_decay):
    """Counted over storages, so a master that should not be there would show."""
    network = Network(dtype=torch.bfloat16)
    settings = OptimizerSettings(name, ema_decay=ema_decay)
    optimizer = Optimizer(
        network,
        settings,
        memory_bytes=optimizer_bytes(network, settings, "fp32") - (master_weights != "fp32"),
    )
    assert optimizer.master_weights == master_weights
    train(network, optimizer, range(1))
    elements = sum(p.numel() for p in network.parameters())
    held = storage_bytes(optimizer.state(), set())
    held += sum(
        storage_bytes(trained.work, set()) for trained in optimizer.trained if trained.rounded
    )
    held -= 2 * elements * (master_weights != "fp32")  # the weights themselves
    a_weight = {
        "adamw": 8,
        "adamw_8bit": 8,
        "muon": 8,
        "adafactor": 4,
        "sgd": 4,
    }[name] + 4 * (ema_decay > 0)
    a_weight += 4 * (master_weights == "fp32")
    assert held <= a_weight * elements + 4 * len(optimizer.trained)
    if master_weights != "fp32":
        assert all(t.work.untyped_storage().nbytes() <= 4 for t in optimizer.trained)
    passing = optimizer_bytes(network, settings, master_weights) - held
    assert 0 < passing <= 34 * elements


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are Linux's")
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("master_weights", ["fp32", "stochastic_rounding"])
def test_the_bytes_said_are_those_measured(name, master_weights):
    # Large enough that freed memory goes back to the system, narrow enough for Muon to be quick.
    module = nn.Linear(512, 32768, bias=False, dtype=torch.bfloat16)
    gradient = torch.ones_like(module.weight)  # held here: what it gives back is not counted
    module.weight.grad = gradient
    settings = OptimizerSettings(name, master_weights=master_weights)
    said = optimizer_bytes(module, settings, master_weights)
    gc.collect()
    reset_peak_memory()
    before = peak_memory()
    Optimizer(module, settings).step(1e-3, 1.0)
    assert peak_memory() - before == pytest.approx(said, rel=0.1, abs=4e6)


def test_state_sizes_of_the_optimisers():
    """AdamW 8 bytes a weight, 8-bit about 2, Adafactor next to none."""
    module = nn.Linear(1024, 1024, bias=False)
    held = {}
    for name in OPTIMIZERS:
        optimizer = Optimizer(module, OptimizerSettings(name))
        module.weight.grad = torch.ones_like(module.weight)
        optimizer.step(1e-3, 1.0)
        held[name] = storage_bytes(optimizer.state()["moments"], set()) / module.weight.numel()
    assert held["adamw"] == 8
    assert held["muon"] == held["sgd"] == 4
    assert 2 <= held["adamw_8bit"] < 2.04
    assert held["adafactor"] < 0.01


def test_the_average_of_the_weights_is_swapped_in_and_out():
    network = Network(dtype=torch.bfloat16)
    optimizer = Optimizer(network, OptimizerSettings(ema_decay=0.5))
    averages = {name: w.float() for name, w in weights(network).items()}
    for step in range(4):
        train(network, optimizer, [step])
        for trained in optimizer.trained:
            averages[trained.name].lerp_(trained.weights, 0.5)
    last = weights(network)
    with optimizer.average_weights():
        for name, inside in weights(network).items():
            assert torch.equal(inside, averages[name].to(torch.bfloat16))
        assert not torch.equal(network.up.weight, last["up.weight"])
    assert all(torch.equal(w, last[name]) for name, w in weights(network).items())
    optimizer.take_averages()
    assert torch.equal(network.up.weight, averages["up.weight"].to(torch.bfloat16))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("master_weights", ["fp32", "stochastic_rounding"])
def test_what_is_frozen_for_now_is_neither_decayed_nor_moved(name, master_weights):
    """Gradual unfreezing: a parameter joins later, as if the optimiser began with it then."""
    network = Network(dtype=torch.bfloat16)
    settings = OptimizerSettings(
        name, weight_decay=0.5, master_weights=master_weights, ema_decay=0.5
    )
    optimizer = Optimizer(network, settings)
    before = weights(network)
    network.down.weight.requires_grad_(False)
    train(network, optimizer, range(3))
    assert torch.equal(network.down.weight, before["down.weight"])
    assert not torch.equal(network.up.weight, before["up.weight"])
    assert "down.weight" not in optimizer.state()["moments"]
    with optimizer.average_weights():
        assert torch.equal(network.down.weight, before["down.weight"])
    network.down.weight.requires_grad_(True)
    train(network, optimizer, range(3, 6))
    assert not torch.equal(network.down.weight, before["down.weight"])


def test_learning_rate_multipliers_are_per_parameter():
    """A factor of 16 on one matrix moves it as a rate 16 times as high moves all."""
    moved = []
    for multiplier, rate in ((lambda n: 16.0 if n == "up.weight" else 1.0, 1e-4), (None, 16e-4)):
        network = Network()
        before = weights(network)
        extra = {} if multiplier is None else {"learning_rate_multiplier": multiplier}
        train(network, Optimizer(network, OptimizerSettings(), **extra), [0], rate)
        moved.append({n: (w - before[n]).abs().mean().item() for n, w in weights(network).items()})
    assert moved[0]["up.weight"] == pytest.approx(moved[1]["up.weight"])
    assert moved[0]["down.weight"] == pytest.approx(moved[1]["down.weight"] / 16, rel=1e-3)


def test_weight_decay_spares_vectors_whatever_shape_they_have():
    """IA3 keeps its scales as (N, 1): decayed they would drift from 1, where they do nothing."""
    module = nn.Module()
    module.matrix = nn.Parameter(torch.ones(4, 4))
    module.bias = nn.Parameter(torch.ones(4))
    module.ia3 = nn.Parameter(torch.ones(4, 1))
    optimizer = Optimizer(module, OptimizerSettings(weight_decay=0.1))
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.1, 1.0)
    assert torch.equal(module.matrix, torch.full((4, 4), 0.99))
    assert torch.equal(module.bias, torch.ones(4))
    assert torch.equal(module.ia3, torch.ones(4, 1))


def test_muon_leaves_embeddings_head_and_vectors_to_adamw():
    optimizer = Optimizer(Network(), OptimizerSettings("muon"))
    by_muon = {trained.name for trained in optimizer.trained if trained.rule == "muon"}
    assert by_muon == {"up.weight", "down.weight"}


def test_clipping_bounds_the_gradient_and_zero_never_clips():
    norms = []
    for bound in (0.5, 0.0):
        module = nn.Linear(3, 3, bias=False)
        module.weight.data.zero_()
        optimizer = Optimizer(module, OptimizerSettings("sgd", momentum=0.0))
        module.weight.grad = torch.full((3, 3), 4.0)
        assert optimizer.step(1.0, bound) == pytest.approx(12.0)
        norms.append(module.weight.norm().item())
    assert norms == [pytest.approx(0.5, rel=1e-5), pytest.approx(12.0)]


def test_a_gradient_that_is_no_number_moves_nothing():
    network = Network()
    before = weights(network)
    optimizer = Optimizer(network, OptimizerSettings(weight_decay=0.1))
    (network.loss(0) * float("nan")).backward()
    assert not torch.tensor(optimizer.step(1e-2, 1.0)).isfinite()
    assert all(torch.equal(w, before[name]) for name, w in weights(network).items())


def test_all_faulty_settings_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        OptimizerSettings("adam", weight_decay=-1.0, adam_beta1=1.0, momentum=0.5)
    for word in ("one of adamw, adamw_8bit", "weight_decay = -1.0", "adam_beta1", "has none"):
        assert word in str(caught.value)


def test_warm_up_stable_decay():
    rate = learning_rates("wsd", 2.0, 100, 0.1, 0.2)
    rates = [rate(n) for n in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:81] == [2.0] * 71
    assert rates[80:] == sorted(rates[80:], reverse=True)
    assert rates[85] == pytest.approx(2 * (1 - 0.25**0.5))
    assert rates[100] == 0.0
    assert 0 < learning_rates("wsd", 1.0, 1, 0.0, 0.0)(0) <= 1  # the shortest run still learns
