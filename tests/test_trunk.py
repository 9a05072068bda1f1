"""Frozen layers run once: from the cache comes what the whole model gives, and nothing runs twice.

Run: pytest tests/test_trunk.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from burnish.chat import Rendered
from burnish.errors import ResourceError
from burnish.nn.attention import ATTENTION
from burnish.nn.forest import plant
from burnish.nn.models import LoadedModel
from burnish.nn.rows import Rows, TokenRow
from burnish.nn.step import forest_loss
from burnish.nn.techniques import EmbeddingNoise, decoder_blocks
from burnish.nn.trunk import trunk_depth, why_no_trunk
from burnish.nn.trunk_cache import TrunkEstimate, estimate_trunk, trunk_cache
from burnish.nn.trunk_store import is_whole, remove_trunk, stored_trunks
from test_engine import ARCHITECTURES, SMALL, V, rows

LIMIT = 1e9


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BURNISH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trunk"


def frozen_below(top: int, name: str = "llama", seed: int = 0, dtype=torch.float32) -> LoadedModel:
    """A small model whose top blocks and final norm are trained."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[name]).to(dtype).eval()
    for parameter in model.parameters():
        # The default deviation leaves blocks near the identity; then a wrong state would not show.
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.2)
    model.requires_grad_(False)
    model.set_attn_implementation(ATTENTION)
    loaded = wrapped(model)
    for block in decoder_blocks(loaded)[-top:]:
        block.requires_grad_(True)
    norm = loaded.body.ln_f if name == "gpt2" else loaded.body.norm
    norm.requires_grad_(True)
    return loaded


def wrapped(model) -> LoadedModel:
    return LoadedModel(model, None, None, "", "a base", Path())


def step(model: LoadedModel, forest) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one forest."""
    loss = forest_loss(model, forest) / forest.weights.sum()
    loss.backward()
    found = {n: p.grad.clone() for n, p in model.model.named_parameters() if p.grad is not None}
    model.model.zero_grad()
    return loss.item(), found


def assert_same(found, expected, tolerance: float = 1e-5) -> None:
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    assert found[1].keys() == expected[1].keys() != set()
    norm = sum(g.norm() ** 2 for g in expected[1].values()) ** 0.5
    for key, gradient in expected[1].items():
        assert (found[1][key] - gradient).norm() < tolerance * norm, key


def epochs(examples: Rows, share_prefixes: bool = True) -> list:
    """Forests of two epochs in different orders and sizes of batch."""
    order = np.random.default_rng(0).permutation(len(examples)).tolist()
    return [
        plant([examples[n] for n in numbers[first : first + size]], share_prefixes=share_prefixes)
        for numbers, size in ((order, 5), (order[::-1], 3))
        for first in range(0, len(order), size)
    ]


def estimate(model: LoadedModel, examples: Rows, **changes) -> TrunkEstimate:
    return estimate_trunk(model, examples, **{"limit": LIMIT, "epochs": 3} | changes)


def fill(model: LoadedModel, examples: Rows) -> TrunkEstimate:
    found = estimate(model, examples)
    with trunk_cache(model, examples, found) as trunk:
        assert trunk is not None
    return found


class Entries:
    """Counts how often forward and backward enter a model's frozen blocks."""

    def __init__(self, model: LoadedModel, depth: int) -> None:
        self.forward = self.backward = 0
        for block in decoder_blocks(model)[:depth]:
            # On the inner modules: a stand-in for the block's forward still fires the block's own.
            for module in block.children():
                module.register_forward_hook(self.note_forward)
                module.register_full_backward_hook(self.note_backward)

    def note_forward(self, *_) -> None:
        self.forward += 1

    def note_backward(self, *_) -> None:
        self.backward += 1


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("share_prefixes", [True, False])
def test_cached_is_uncached_on_every_architecture(name, share_prefixes):
    model, examples = frozen_below(1, name), Rows.of(rows())
    depth = trunk_depth(model)
    assert depth == len(decoder_blocks(model)) - 1 > 0
    forests = epochs(examples, share_prefixes)
    expected = [step(model, forest) for forest in forests]
    entries = Entries(model, depth)
    found = estimate(model, examples)
    with trunk_cache(model, examples, found) as trunk:
        assert trunk is not None
        entries.forward = 0
        cached = [step(model, forest) for forest in forests]
        assert entries.forward == entries.backward == 0
    for one, other in zip(cached, expected, strict=True):
        assert_same(one, other)
    assert_same(step(model, forests[0]), expected[0])  # the blocks compute again
    assert entries.forward > entries.backward == 0


def test_adapters_in_the_top_blocks_alone_run_from_the_cache():
    model, examples = frozen_below(1), Rows.of(rows())
    plain = fill(model, examples)
    config = LoraConfig(
        r=4,
        target_modules=["q_proj", "down_proj"],
        layers_to_transform=[2],
        init_lora_weights=False,
    )
    adapted = wrapped(get_peft_model(model.model, config))
    assert trunk_depth(adapted) == 2
    expected = [step(adapted, forest) for forest in epochs(examples)]
    found = estimate(adapted, examples)
    assert found.folder == plain.folder  # another technique on the same trunk reuses it
    assert found.bytes == 0
    with trunk_cache(adapted, examples, found):
        for forest, other in zip(epochs(examples), expected, strict=True):
            assert_same(step(adapted, forest), other)


def test_a_head_or_norm_alone_runs_from_the_last_block():
    model, examples = frozen_below(1), Rows.of(rows())
    for block in decoder_blocks(model):
        block.requires_grad_(False)
    model.head.requires_grad_(True)
    assert trunk_depth(model) == 3
    expected = [step(model, forest) for forest in epochs(examples)]
    with trunk_cache(model, examples, estimate(model, examples)):
        for forest, other in zip(epochs(examples), expected, strict=True):
            assert_same(step(model, forest), other)


def test_what_is_kept_in_bf16_is_what_the_trunk_gave():
    model, examples = (
        frozen_below(1, "gemma3 with sliding and global layers", dtype=torch.bfloat16),
        Rows.of(rows()),
    )
    forests = epochs(examples)
    expected = [step(model, forest) for forest in forests]
    found = estimate(model, examples)
    assert found.slot_bytes == 2 * SMALL["hidden_size"]
    with trunk_cache(model, examples, found) as trunk:
        assert trunk.hidden(forests[0]).dtype == torch.bfloat16
        for forest, other in zip(forests, expected, strict=True):
            assert step(model, forest)[0] == pytest.approx(other[0], rel=0.02)


def test_shared_beginnings_and_duplicates_are_kept_once():
    shared = list(range(1, 41))
    texts = [[*shared, 41 + n, 50] for n in range(8)] + [[*shared, 41, 50]] * 4
    examples = Rows.of([Rendered(ids, [0.0] * 40 + [1.0, 1.0], []) for ids in texts])
    found = estimate(frozen_below(1), examples)
    # A common beginning may be kept again for the up to 15 tokens that are less than a whole block.
    assert 40 + 8 * 2 <= found.slots < 40 + 12 * 2
    assert found.bytes == found.slots * 4 * SMALL["hidden_size"] + 8 * len(examples.ids)
    model = frozen_below(1)
    with trunk_cache(model, examples, found):
        assert sum(p.stat().st_size for p in found.folder.glob("[hs]*")) == found.bytes


def test_rows_of_others_run_through_the_whole_model():
    """Validation inside a run: other tokens at the same places must not be taken for the run's."""
    model, examples = frozen_below(1), Rows.of(rows())
    whole = examples[0]
    inside = TokenRow(whole.ids[20:], whole.weights[20:], whole.start + 20)
    cut = TokenRow(whole.ids[:-1], whole.weights[:-1], whole.start)
    of_both = [examples[0], Rows.of(rows(seed=1))[1]]
    alike = Rows((examples.ids + 1) % V, examples.weights, examples.offsets)
    forests = [plant(part) for part in ([inside], [cut], of_both, [alike[0]], list(alike))]
    forests.append(plant(rows()))  # ours, but planted without their places
    expected = [step(model, forest) for forest in forests]
    with trunk_cache(model, examples, estimate(model, examples)) as trunk:
        assert trunk.hidden(plant([whole])) is not None
        for forest, other in zip(forests, expected, strict=True):
            assert trunk.hidden(forest) is None
            assert_same(step(model, forest), other)
        model.model.set_attn_implementation("eager")
        model.model(input_ids=forests[0].ids[None])  # as generation calls it, without a forest


def test_a_later_run_fills_nothing():
    model, examples = frozen_below(1), Rows.of(rows())
    fill(model, examples)
    [stored] = stored_trunks()
    before = {path.name: path.stat().st_mtime_ns for path in stored.folder.glob("[hs]*")}

    again = frozen_below(1)
    for parameter in decoder_blocks(again)[2].parameters():
        torch.nn.init.normal_(parameter)  # tuned meanwhile, above the trunk
    weighted = Rows(examples.ids, examples.weights * 2, examples.offsets)
    entries = Entries(again, 2)
    found = estimate(again, weighted, epochs=1)  # to read it one pass is reason enough
    assert (found.bytes, found.refusal) == (0, None)
    expected = [step(again, forest) for forest in epochs(weighted)]
    entries.forward = 0
    with (
        trunk_cache(model, examples, estimate(model, examples)),
        trunk_cache(again, weighted, found),
    ):
        for forest, other in zip(epochs(weighted), expected, strict=True):
            assert_same(step(again, forest), other)
    assert entries.forward == 0
    assert before == {path.name: path.stat().st_mtime_ns for path in stored.folder.glob("[hs]*")}


def test_another_trunk_or_other_rows_do_not_reuse_it():
    examples = Rows.of(rows())
    folders = {fill(frozen_below(1), examples).folder}
    changed = frozen_below(1)
    with torch.no_grad():
        changed.body.embed_tokens.weight[3, 3] += 1e-3
    nudged = frozen_below(1)
    with torch.no_grad():
        decoder_blocks(nudged)[1].input_layernorm.weight[0] += 1e-3
    scaled = frozen_below(1)
    scaled.body.config.rope_parameters["rope_theta"] *= 2
    ids = examples.ids.copy()
    ids[5] += 1
    other_ids = Rows(ids, examples.weights, examples.offsets)
    cut_elsewhere = Rows(examples.ids, examples.weights, examples.offsets.copy())
    cut_elsewhere.offsets[1] += 1
    for model, chosen in (
        (changed, examples),
        (nudged, examples),
        (scaled, examples),
        (frozen_below(2), examples),
        (frozen_below(1, dtype=torch.bfloat16), examples),
        (frozen_below(1), other_ids),
        (frozen_below(1), cut_elsewhere),
    ):
        found = estimate(model, chosen)
        assert found.bytes > 0
        folders.add(found.folder)
    assert len(folders) == 8


def long_rows() -> Rows:
    """Rows that take several forests to fill the cache, in families."""
    random = np.random.default_rng(0)
    starts = [random.integers(V, size=60).tolist() for _ in range(8)]
    texts = [starts[n % 8] + random.integers(V, size=150).tolist() for n in range(90)]
    return Rows.of([Rendered(ids, [0.0] * 200 + [1.0] * 10, []) for ids in texts])


def in_a_fork(work) -> int:
    """Do some work in a process of its own; returns how it ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def test_a_killed_filling_goes_on_where_it_was():
    model, examples = frozen_below(1), long_rows()
    found = estimate(model, examples)

    def killed_in_the_third_forest() -> None:
        forwards = []

        def note(*_) -> None:
            forwards.append(1)
            if len(forwards) == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        decoder_blocks(model)[0].register_forward_hook(note)
        with trunk_cache(model, examples, found):
            pass

    assert in_a_fork(killed_in_the_third_forest) == signal.SIGKILL
    assert not is_whole(found.folder)
    recorded = json.loads((found.folder / "manifest.json").read_text())
    assert 0 < recorded["slots_done"] < found.slots
    with (found.folder / "hidden").open("ab") as file:
        file.write(b"half a batch that was never recorded")

    entries = Entries(model, 1)
    fill(model, examples)
    resumed = entries.forward
    killed_then_resumed = (found.folder / "hidden").read_bytes()
    assert remove_trunk(found.folder)
    entries.forward = 0
    fill(model, examples)
    assert (found.folder / "hidden").read_bytes() == killed_then_resumed
    per_forest = len(list(decoder_blocks(model)[0].children()))
    assert entries.forward - resumed == 2 * per_forest  # two forests were not run again


def test_runs_at_once_fill_it_once(tmp_path):
    model, examples = frozen_below(1), long_rows()
    found = estimate(model, examples)

    def run(name: str) -> None:
        entries = Entries(model, 1)
        with trunk_cache(model, examples, found) as trunk:
            hidden = trunk.hidden(plant(list(examples)))
            (tmp_path / name).write_text(f"{entries.forward} {float(hidden.double().sum())!r}")

    children = []
    for name in "ab":
        children.append(os.fork())
        if children[-1] == 0:
            try:
                run(name)
                os._exit(0)
            finally:
                os._exit(1)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    (entered, first), (other, second) = ((tmp_path / n).read_text().split() for n in "ab")
    assert first == second
    assert min(int(entered), int(other)) == 0 < max(int(entered), int(other))


@pytest.mark.parametrize("name", ["hidden", "slot_of", "manifest.json"])
@pytest.mark.parametrize("fault", ["truncated", "altered", "gone"])
def test_a_spoilt_entry_is_filled_again(name, fault):
    model, examples = frozen_below(1), Rows.of(rows())
    expected = [step(model, forest) for forest in epochs(examples)]
    path = fill(model, examples).folder / name
    if fault == "gone":
        path.unlink()
    elif fault == "truncated":
        os.truncate(path, path.stat().st_size - 7)
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x55
        path.write_bytes(content)
    found = estimate(model, examples)
    with trunk_cache(model, examples, found):
        for forest, other in zip(epochs(examples), expected, strict=True):
            assert_same(step(model, forest), other)
    assert found.bytes > 0 or (name, fault) == ("manifest.json", "altered")


def test_over_the_bound_there_is_no_cache_and_one_sentence(cache):
    model, examples = frozen_below(1), Rows.of(rows())
    needed = estimate(model, examples).bytes
    refused = estimate(model, examples, limit=needed - 1)
    assert "more than trunk_cache_gb" in refused.refusal
    assert "\n" not in str(refused)
    with trunk_cache(model, examples, refused) as trunk:
        assert trunk is None
        step(model, epochs(examples)[0])
    assert estimate(model, examples, limit=needed).refusal is None
    assert "single pass" in estimate(model, examples, epochs=1).refusal
    assert not cache.exists()


def test_the_longest_unused_make_room_and_those_in_use_stay():
    model = frozen_below(1)
    all_rows = [Rows.of(rows(seed)) for seed in range(4)]
    sizes = [estimate(model, examples).bytes for examples in all_rows]
    limit = sizes[0] + sizes[2] + min(sizes) / 2  # room for two and for what their manifests take
    first, second = fill(model, all_rows[0]), fill(model, all_rows[1])
    for path in second.folder.iterdir():
        os.utime(path, (1, 1))
    with trunk_cache(model, all_rows[0], estimate(model, all_rows[0])):
        third = estimate(model, all_rows[2], limit=limit)
        with trunk_cache(model, all_rows[2], third):
            assert not second.folder.exists()
            held = {trunk.folder: trunk.in_use for trunk in stored_trunks()}
            assert held == {first.folder: True, third.folder: True}
            assert not remove_trunk(first.folder)
            fourth = estimate(model, all_rows[3], limit=limit)
            assert "other runs use" in fourth.refusal
    assert all(remove_trunk(trunk.folder) for trunk in stored_trunks())
    assert stored_trunks() == []


@pytest.fixture
def small_disk(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    monkeypatch.setenv("BURNISH_CACHE", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_and_nothing_is_left(small_disk):
    model, examples = frozen_below(1), long_rows()
    assert "more than half of the" in estimate(model, examples).refusal
    examples = Rows.of([examples[n] for n in range(24)])
    found = estimate(model, examples)
    assert found.refusal is None
    (small_disk / "another's").write_bytes(bytes(1_800_000))
    with (
        pytest.raises(ResourceError, match=r"disk is full.*\n.*cache_trunk=false"),
        trunk_cache(model, examples, found),
    ):
        pass
    assert not list(found.folder.glob("[hsm.]*"))
    (small_disk / "another's").unlink()
    fill(model, examples)


def test_what_changes_below_is_refused():
    model = frozen_below(1)
    model.body.embed_tokens.requires_grad_(True)
    assert "embeddings are trained" in why_no_trunk(model)
    model = frozen_below(3)
    assert "lowest block" in why_no_trunk(model)
    assert "lowest block" in estimate(model, Rows.of(rows())).refusal
    config = LoraConfig(r=4, target_modules="all-linear")
    assert "lowest block" in why_no_trunk(wrapped(get_peft_model(frozen_below(1).model, config)))
    frozen = get_peft_model(frozen_below(1).model, config).requires_grad_(False)
    assert "lowest block" in why_no_trunk(wrapped(frozen))
    virtual = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    assert "virtual tokens" in why_no_trunk(wrapped(get_peft_model(frozen_below(1).model, virtual)))
    model = frozen_below(1)
    noise = EmbeddingNoise(model, alpha=5.0, seed=0)
    assert "NEFTune" in why_no_trunk(model)
    noise.remove()
    assert why_no_trunk(model) is None
    assert trunk_depth(model) == 2
    for module in model.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.1
    assert trunk_depth(model) == 2
    model.model.train()
    assert "dropout" in why_no_trunk(model)
    assert trunk_depth(model) == 0
    model = frozen_below(1)
    model.model.set_attn_implementation("sdpa")
    assert "forest" in why_no_trunk(model)


def test_blocks_that_hand_on_more_than_states_are_found_out():
    """As where upper layers take keys and values from lower ones, in a dict of each forward."""
    model = frozen_below(1)

    def lend_dict(_, given, kwargs):
        return given, {**kwargs, "handed_on": {}}

    def take(_, given, kwargs):
        return (given[0] + kwargs["handed_on"][0], *given[1:]), kwargs

    model.body.register_forward_pre_hook(lend_dict, with_kwargs=True)
    lowest = decoder_blocks(model)[0]
    compute = lowest.forward

    def forward(hidden, **kwargs):
        kwargs["handed_on"][0] = hidden
        return compute(hidden, **kwargs)

    lowest.forward = forward
    decoder_blocks(model)[2].register_forward_pre_hook(take, with_kwargs=True)
    assert trunk_depth(model) == 2
    assert "more than a state" in estimate(model, Rows.of(rows())).refusal
