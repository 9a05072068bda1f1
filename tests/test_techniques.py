"""Each technique trains what it says, exactly, and what it saves opens again. All on tiny models.

Run: pytest tests/test_techniques.py
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from burnish.errors import ConfigError
from burnish.export import ExportConfig, export
from burnish.nn.attention import ATTENTION
from burnish.nn.batches import Batches
from burnish.nn.forest import Forest, plant
from burnish.nn.generate import Sampling, generate
from burnish.nn.loop import LoopSettings, run_steps
from burnish.nn.models import LoadedModel, load_model, save_words_side
from burnish.nn.optim import Optimizer, OptimizerSettings
from burnish.nn.quantised import QuantisedLinear, bitsandbytes_config
from burnish.nn.step import forest_loss
from burnish.nn.techniques import (
    EmbeddingNoise,
    GradualUnfreezing,
    add_bottleneck,
    add_ia3,
    add_lora,
    add_prefix,
    add_prompt,
    decoder_blocks,
    learning_rate_multiplier,
    save_weights,
    train_everything,
    train_matching,
    train_top_layers,
    trainable_parameters,
    with_virtual_root,
)
from burnish.nn.techniques.blocks import peft_warnings_understood
from test_engine import ARCHITECTURES, rows
from tiny import tiny_base

LLAMA, GEMMA, GPT2 = "llama", "gemma3 with sliding and global layers", "gpt2"
Technique = Callable[[LoadedModel], LoadedModel]


def lora(**changes: Any) -> Technique:
    settings: dict[str, Any] = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}
    return lambda model: add_lora(model, **settings | changes)


def lora_on_head(model: LoadedModel) -> LoadedModel:
    return lora(targets=("all-linear", "lm_head"))(model)


# What each trains, as a fragment of the names of its parameters.
ADAPTERS: dict[str, tuple[Technique, str]] = {
    "lora": (lora(), ".lora_"),
    "rslora": (lora(use_rslora=True), ".lora_"),
    "dora": (lora(use_dora=True), ".lora_"),
    "pissa": (lora(init="pissa"), ".lora_"),
    "pissa and rslora": (lora(init="pissa", use_rslora=True), ".lora_"),
    "pissa and dora": (lora(init="pissa", use_dora=True), ".lora_"),
    "lora on the head": (lora_on_head, ".lora_"),
    "lora on the top block": (lora(layers=1), ".lora_"),
    "houlsby": (lambda m: add_bottleneck(m, size=4, placement="houlsby"), ".bottleneck_"),
    "pfeiffer": (lambda m: add_bottleneck(m, size=4, placement="pfeiffer"), ".bottleneck_"),
    "ia3": (add_ia3, ".ia3_l"),
    "prompt": (lambda m: add_prompt(m, virtual_tokens=5), "prompt_encoder."),
    "prefix": (lambda m: add_prefix(m, virtual_tokens=5), "prompt_encoder."),
}
TECHNIQUES: dict[str, tuple[Technique, str]] = ADAPTERS | {
    "layers": (lambda m: train_top_layers(m, 1), ""),
    "matching": (lambda m: train_matching(m, ["*.1.mlp.*"]), ".1.mlp."),
}
UNMERGEABLE = ("houlsby", "pfeiffer", "prompt", "prefix")
# Small changes of another technique, tried on one architecture.
VARIANTS = (
    "rslora",
    "pissa and rslora",
    "pissa and dora",
    "lora on the top block",
    "pfeiffer",
    "matching",
)
EVERYWHERE = ("lora", "houlsby", "ia3", "prefix")


def cases(names: Iterable[str]) -> list[tuple[str, str]]:
    return [(n, base) for n in names for base in ARCHITECTURES if tried(n, base)]


def tried(technique: str, architecture: str) -> bool:
    if technique in EVERYWHERE:
        return True
    return architecture == LLAMA or (architecture in (GEMMA, GPT2) and technique not in VARIANTS)


def few_cases(names: Iterable[str]) -> list[tuple[str, str]]:
    return [case for case in cases(names) if case[1] in (LLAMA, GEMMA, GPT2)]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small base of an architecture, made at its first use."""
    root = tmp_path_factory.mktemp("bases")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base(root / "tiny"))

    def base(architecture: str) -> Path:
        folder = root / architecture.partition(" ")[0]
        if not folder.exists():
            config = copy.deepcopy(ARCHITECTURES[architecture])
            config.vocab_size = len(tokenizer)
            config.bos_token_id = config.pad_token_id = None
            config.eos_token_id = tokenizer.eos_token_id
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    torch.nn.init.normal_(parameter, std=0.1)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folder

    return base


def opened(folder: Path, technique: str, **settings: Any) -> LoadedModel:
    """A base with a technique whose trained weights are not where they began."""
    model = load_model(str(folder), precision="fp32", trained=True, **settings)
    torch.manual_seed(0)
    model = TECHNIQUES[technique][0](model)
    with torch.no_grad():
        for _, parameter in trainable_parameters(model):
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def mean_loss(model: LoadedModel, forest: Forest) -> torch.Tensor:
    return forest_loss(model, replace(forest, weights=forest.weights / forest.weights.sum()))


def alone_loss(model: LoadedModel) -> torch.Tensor:
    """The law's other side: the model's own forward, PEFT's where there is one, row by row."""
    examples = rows()
    loss = torch.zeros(())
    for row in examples:
        logits = model.model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0][
            -len(row.ids) :
        ]
        losses = torch.nn.functional.cross_entropy(
            logits[:-1], torch.tensor(row.ids[1:]), reduction="none"
        )
        loss = loss + (losses * torch.tensor(row.weights[1:])).sum()
    return loss / sum(sum(row.weights) for row in examples)


def gradients(model: LoadedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()
    found = {n: p.grad for n, p in model.model.named_parameters() if p.grad is not None}
    for parameter in model.model.parameters():
        parameter.grad = None
    return found


def check_law(model: LoadedModel) -> dict[str, torch.Tensor]:
    """Loss and gradients of the forest are those of the examples one by one."""
    model.causal_lm.set_attn_implementation("eager")
    expected_loss = alone_loss(model)
    expected = gradients(model, expected_loss)
    model.causal_lm.set_attn_implementation(ATTENTION)
    forest = plant(rows())
    assert len(forest.ids) < 0.7 * forest.tokens
    loss = mean_loss(model, forest)
    found = gradients(model, loss)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert found.keys() == expected.keys() == {n for n, _ in trainable_parameters(model)}
    norm = sum(g.norm() ** 2 for g in expected.values()) ** 0.5
    for key, gradient in expected.items():
        assert (found[key] - gradient).norm() < 1e-5 * norm, key
    return found


@pytest.mark.parametrize(("technique", "architecture"), cases(TECHNIQUES))
def test_gradient_of_the_forest_is_the_sum_over_examples_alone(bases, technique, architecture):
    model = opened(bases(architecture), technique)
    found = check_law(model)
    assert found, "something trains"
    assert all(TECHNIQUES[technique][1] in name for name in found)
    assert all(float(gradient.norm()) > 0 for gradient in found.values())


@pytest.mark.parametrize("quantisation", ["int8", "int4"])
@pytest.mark.parametrize("technique", ["lora", "dora", "houlsby", "ia3", "prefix"])
def test_adapters_train_exactly_on_a_quantised_base(bases, technique, quantisation):
    model = opened(bases(LLAMA), technique, quantisation=quantisation)
    assert any(isinstance(m, QuantisedLinear) for m in model.model.modules())
    check_law(model)


def logits_of(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(input_ids=torch.tensor([ids])).logits[0]
    return logits[-len(ids) :].float()


IDS = [5, 99, 200, 17, 320, 44, 8]


def saved(model: LoadedModel, folder: Path) -> torch.Tensor:
    """Save as `burnish tune` does; the logits that were saved."""
    model.causal_lm.set_attn_implementation("sdpa")
    save_weights(model, folder)
    save_words_side(model, folder)
    return logits_of(model.model, IDS)


@pytest.mark.parametrize(("technique", "architecture"), few_cases(ADAPTERS))
def test_a_saved_adapter_opens_again_here_and_in_plain_peft(
    bases, tmp_path, technique, architecture
):
    base = bases(architecture)
    expected = saved(opened(base, technique), tmp_path / "tuned")
    names = {path.name for path in (tmp_path / "tuned").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    assert (
        expected - logits_of(load_model(str(base), precision="fp32").model, IDS)
    ).abs().max() > 0.01
    reopened = load_model(str(tmp_path / "tuned"), precision="fp32")
    torch.testing.assert_close(logits_of(reopened.model, IDS), expected, atol=2e-5, rtol=1e-5)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with peft_warnings_understood():
        plain = peft.PeftModel.from_pretrained(plain, str(tmp_path / "tuned"))
    torch.testing.assert_close(logits_of(plain, IDS), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("technique", ADAPTERS)
def test_a_saved_adapter_is_trained_on(bases, tmp_path, technique):
    model = opened(bases(LLAMA), technique)
    names = {name for name, _ in trainable_parameters(model)}
    saved(model, tmp_path / "tuned")
    again = load_model(str(tmp_path / "tuned"), precision="fp32", trained=True)
    again = TECHNIQUES[technique][0](again)
    assert {name for name, _ in trainable_parameters(again)} == names
    check_law(again)
    with pytest.raises(ConfigError, match="carries an adapter of kind"):
        (add_ia3 if technique != "ia3" else add_prefix_of_five)(again)


def add_prefix_of_five(model: LoadedModel) -> LoadedModel:
    return add_prefix(model, virtual_tokens=5)


@pytest.mark.parametrize("architecture", [LLAMA, GEMMA])
@pytest.mark.parametrize("technique", ["lora on the head", "houlsby", "ia3", "prompt", "prefix"])
def test_generation_answers_as_the_trained_model_does(bases, tmp_path, technique, architecture):
    """Several prompts at once, one short and two with one beginning, against PEFT's own forward."""
    model = opened(bases(architecture), technique)
    saved(model, tmp_path / "tuned")
    shared = [(7 * n) % 380 for n in range(20)]
    prompts = [[9], [*shared, 4], [*shared, 8, 11, 300]]
    answers = generate(
        load_model(str(tmp_path / "tuned"), precision="fp32"), prompts, Sampling(max_tokens=6)
    )
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = list(prompt)
        for given in answer.ids:
            assert given == int(logits_of(model.model, ids)[-1].argmax())
            ids.append(given)


@pytest.mark.parametrize(
    ("technique", "architecture"), few_cases(n for n in ADAPTERS if n not in UNMERGEABLE)
)
def test_merged_is_unmerged(bases, tmp_path, technique, architecture):
    expected = saved(opened(bases(architecture), technique), tmp_path / "tuned")
    out = export(ExportConfig(str(tmp_path / "tuned"), "merged", tmp_path / "merged"))
    plain = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    torch.testing.assert_close(logits_of(plain, IDS), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("technique", UNMERGEABLE)
def test_what_cannot_be_merged_goes_out_as_peft(bases, tmp_path, technique):
    expected = saved(opened(bases(LLAMA), technique), tmp_path / "tuned")
    with pytest.raises(ConfigError, match=r"cannot be merged(.|\n)*--to peft"):
        export(ExportConfig(str(tmp_path / "tuned"), "merged", tmp_path / "merged"))
    out = export(ExportConfig(str(tmp_path / "tuned"), "peft", tmp_path / "out"))
    torch.testing.assert_close(
        logits_of(load_model(str(out), precision="fp32").model, IDS), expected, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("technique", ["houlsby", "pfeiffer"])
def test_bottlenecks_behave_as_pefts_own_methods_do(bases, technique):
    """They start as the identity, can be switched off, and say that they cannot be merged."""
    base = load_model(str(bases(GEMMA)), precision="fp32")
    expected = logits_of(base.model, IDS)
    model = TECHNIQUES[technique][0](base)
    torch.testing.assert_close(logits_of(model.model, IDS), expected, atol=0, rtol=0)
    with torch.no_grad():
        for _, parameter in trainable_parameters(model):
            parameter.add_(0.1)
    assert (logits_of(model.model, IDS) - expected).abs().max() > 0.1
    with model.model.disable_adapter():
        torch.testing.assert_close(logits_of(model.model, IDS), expected, atol=0, rtol=0)
    assert model.model.get_nb_trainable_parameters()[0] > 0
    with pytest.raises(NotImplementedError):
        model.model.merge_and_unload()


def test_pissa_starts_where_the_base_is(bases):
    base = load_model(str(bases(LLAMA)), precision="fp32")
    expected = logits_of(base.model, IDS)
    weight = base.body.layers[0].mlp.up_proj.weight.detach().clone()
    model = lora(init="pissa")(base)
    torch.testing.assert_close(logits_of(model.model, IDS), expected, atol=1e-5, rtol=1e-5)
    residual = model.body.layers[0].mlp.up_proj.weight
    values, rest = torch.linalg.svdvals(weight), torch.linalg.svdvals(residual)
    torch.testing.assert_close(rest[:4], values[4:8], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("technique", ["lora", "pissa", "houlsby", "prompt", "prefix"])
def test_adapters_work_in_bf16(bases, tmp_path, technique):
    """Adapters are in the compute type, but for virtual tokens; what is saved is what was there."""
    model = load_model(str(bases(LLAMA)), precision="bf16")
    torch.manual_seed(0)
    model = TECHNIQUES[technique][0](model)
    virtual = technique in ("prompt", "prefix")
    types = {p.dtype for _, p in trainable_parameters(model)}
    assert types == {torch.float32 if virtual else torch.bfloat16}
    model.causal_lm.set_attn_implementation(ATTENTION)
    found = gradients(model, mean_loss(model, plant(rows())))
    assert found.keys() == {name for name, _ in trainable_parameters(model)}
    expected = saved(model, tmp_path / "tuned")
    reopened = logits_of(load_model(str(tmp_path / "tuned"), precision="bf16").model, IDS)
    assert (reopened - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.parametrize("quantisation", ["int8", "int4"])
def test_a_quantised_base_is_small_close_and_kept_with_its_adapter(bases, tmp_path, quantisation):
    base = load_model(str(bases(LLAMA)), precision="bf16")
    model = opened(bases(LLAMA), "lora", quantisation=quantisation)
    layers = [m for m in model.model.modules() if isinstance(m, QuantisedLinear)]
    assert len(layers) == 7 * len(decoder_blocks(model))
    assert not isinstance(model.head, QuantisedLinear)
    plain = dict(base.model.named_modules())
    for name, module in model.causal_lm.named_modules():
        if isinstance(module, QuantisedLinear):
            weight = plain[name.removesuffix(".base_layer")].weight.float()
            error = (module.weight - weight).norm() / weight.norm()
            assert 0 < error < (0.02 if quantisation == "int8" else 0.2)
            assert module.codes.nbytes == weight.numel() * (8 if quantisation == "int8" else 4) / 8
    expected = saved(model, tmp_path / "tuned")
    reopened = load_model(str(tmp_path / "tuned"), precision="fp32")
    assert reopened.quantisation == quantisation
    torch.testing.assert_close(logits_of(reopened.model, IDS), expected)
    merged = export(ExportConfig(str(tmp_path / "tuned"), "merged", tmp_path / "merged"))
    found = logits_of(AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32), IDS)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    adapter = export(ExportConfig(str(tmp_path / "tuned"), "peft", tmp_path / "adapter"))
    found = logits_of(load_model(str(adapter), precision="fp32").model, IDS)
    torch.testing.assert_close(found, expected)


def test_bitsandbytes_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"needs bitsandbytes(.|\n)*pip install bitsandbytes"):
        bitsandbytes_config("int4", torch.bfloat16)


@pytest.mark.skipif(
    not torch.cuda.is_available() or find_spec("bitsandbytes") is None,
    reason="needs CUDA and bitsandbytes",
)
@pytest.mark.parametrize("quantisation", ["int8", "int4"])
def test_bitsandbytes_holds_the_base_on_cuda(bases, quantisation):
    base = load_model(str(bases(LLAMA)), precision="bf16", quantisation=quantisation)
    model = lora()(base)
    logits = model.model(input_ids=torch.tensor([IDS], device="cuda")).logits
    assert logits.shape == (1, len(IDS), model.vocabulary_size)
    found = gradients(model, logits.float().logsumexp(-1).sum())
    assert found.keys() == {name for name, _ in trainable_parameters(model)}


def test_only_the_named_parts_train(bases):
    def trained(technique: Technique) -> set[str]:
        model = technique(load_model(str(bases(LLAMA)), precision="fp32"))
        return {name for name, _ in trainable_parameters(model)}

    assert len(trained(train_everything)) == 30
    top = trained(lambda m: train_top_layers(m, 2))
    assert top == {
        n for n in trained(train_everything) if ".1." in n or ".2." in n or n[6:10] == "norm"
    }
    norms = trained(lambda m: train_matching(m, ["model.layers.[02].*norm*", "lm_head.*"]))
    assert norms == {
        "lm_head.weight",
        *(
            f"model.layers.{n}.{w}_layernorm.weight"
            for n in (0, 2)
            for w in ("input", "post_attention")
        ),
    }
    adapted = trained(lora(targets=("q_proj", "lm_head"), layers=2))
    assert {name.partition(".lora_")[0] for name in adapted} == {
        "base_model.model.lm_head",
        *(f"base_model.model.model.layers.{n}.self_attn.q_proj" for n in (1, 2)),
    }


def test_unfreezing_goes_down_a_block_every_so_many_steps(bases):
    model = train_top_layers(load_model(str(bases(LLAMA)), precision="fp32"), 2)
    unfreeze = GradualUnfreezing(model, 2, unfreeze_every=3)
    model.causal_lm.set_attn_implementation(ATTENTION)
    for step, blocks in ((0, {2}), (2, {2}), (3, {1, 2}), (50, {1, 2}), (1, {2})):
        unfreeze(step)
        found = gradients(model, mean_loss(model, plant(rows())))
        assert {int(name.split(".")[2]) for name in found if ".layers." in name} == blocks
        assert "model.norm.weight" in found


def test_loraplus_speeds_up_b_matrices_alone(bases):
    model = lora_on_head(load_model(str(bases(LLAMA)), precision="fp32"))
    names = [name for name, _ in trainable_parameters(model)]
    fast = {name for name in names if learning_rate_multiplier(name, 16.0) == 16.0}
    assert fast == {name for name in names if "lora_B" in name}
    assert {learning_rate_multiplier(name, 16.0) for name in set(names) - fast} == {1.0}


def test_virtual_root_shifts_everything_but_the_count_of_tokens():
    forest = plant(rows())
    rooted = with_virtual_root(forest, 5)
    assert with_virtual_root(forest, 0) is forest
    assert rooted.ids.tolist() == [-5, -4, -3, -2, -1, *forest.ids.tolist()]
    assert rooted.positions.tolist() == [*range(5), *(forest.positions + 5).tolist()]
    assert (rooted.tokens, rooted.examples) == (forest.tokens, forest.examples)
    for n, leaf in enumerate(forest.leaves):
        path = rooted.path(rooted.leaves[n])
        assert path == [0, *(m + 1 for m in forest.path(leaf))]
        assert rooted.segments[path[-1]].depth == forest.segments[leaf].depth + 5
    assert torch.equal(rooted.ids[rooted.sources], forest.ids[forest.sources])


class Noise:
    """What NEFTune adds, seen from outside: embeddings with it minus embeddings without."""

    def __init__(self, model: LoadedModel, forest: Forest) -> None:
        self.model, self.forest = model, forest
        self.seen: list[torch.Tensor] = []
        model.body.layers[0].register_forward_pre_hook(lambda _, args: self.seen.append(args[0]))

    def __call__(self, forest: Forest | None = None) -> torch.Tensor:
        forest = forest or self.forest
        mean_loss(self.model, forest)
        clean = self.model.causal_lm.get_input_embeddings().weight[forest.ids]
        return (self.seen[-1][0] - clean).detach()


def test_neftune_is_a_function_of_seed_step_and_example(bases):
    model = load_model(str(bases(LLAMA)), precision="fp32")
    model.causal_lm.set_attn_implementation(ATTENTION)
    examples = rows()[:4]
    forest = plant(examples, share_prefixes=False)
    noise_of = Noise(model, forest)
    noise = EmbeddingNoise(model, alpha=5.0, seed=3)
    assert not noise_of().any(), "none before the first step"
    noise(7)
    first = noise_of()
    for segment in forest.segments:
        own = first[segment.start : segment.end]
        bound = 5.0 / own.numel() ** 0.5
        assert 0.95 * bound < own.abs().max() <= bound * 1.01
        assert own.mean().abs() < bound / 10
    noise(7)
    torch.testing.assert_close(noise_of(), first)
    noise(7)
    parts = [noise_of(plant([row], share_prefixes=False)) for row in examples]
    torch.testing.assert_close(torch.cat(parts), first)
    noise(8)
    assert not torch.allclose(noise_of(), first)
    with torch.no_grad():
        assert not noise_of().any(), "none without gradients"
    noise.remove()
    assert not noise_of().any()
    with pytest.raises(AssertionError, match="its own noise"):
        again = EmbeddingNoise(model, alpha=5.0, seed=3)
        again(0)
        mean_loss(model, plant(rows()))


@pytest.mark.parametrize("technique", ["pissa", "prefix", "prompt", "unfreezing", "noise"])
def test_a_run_cut_anywhere_gives_the_same_losses_to_the_last_bit(bases, tmp_path, technique):
    """Of the techniques whose weights, data or trained part depend on more than the base."""

    def run(folder: Path, steps: int) -> list[float]:
        model = load_model(str(bases(LLAMA)), precision="fp32", trained=True)
        torch.manual_seed(0)
        told: list[Callable[[int], None]] = []
        if technique in TECHNIQUES:
            model = TECHNIQUES[technique][0](model)
        else:
            model = train_top_layers(model, 2)
        if technique == "unfreezing":
            told.append(GradualUnfreezing(model, 2, unfreeze_every=3))
        model.causal_lm.set_attn_implementation(ATTENTION)
        optimizer = Optimizer(model.model, OptimizerSettings(), seed=0)
        if technique == "noise":
            told.append(EmbeddingNoise(model, alpha=5.0, seed=0))
        batches = Batches(rows(), 4, 4096, "shuffled", 0, share_prefixes=technique != "noise")
        settings = LoopSettings(steps, lambda _: 1e-2, "test", before_step=told)
        folder.mkdir(exist_ok=True)
        return run_steps(model, optimizer, batches, settings, folder).losses

    unbroken = run(tmp_path / "unbroken", 6)
    run(tmp_path / "cut", 2)
    assert run(tmp_path / "cut", 6) == unbroken
    assert len(set(unbroken)) == 6


WRONG: dict[str, tuple[Technique, str]] = {
    "a target": (lora(targets=("q_prj",)), "q_prj.*did you mean 'q_proj'"),
    "too many adapted layers": (lora(layers=4), "lora_layers = 4, but .* has 3"),
    "DoRA on the head": (lora(targets=("lm_head",), use_dora=True), "use_dora rescales"),
    "PiSSA on the head": (lora(targets=("lm_head",), init="pissa"), "lora_init=pissa changes"),
    "a bottleneck that is none": (
        lambda m: add_bottleneck(m, size=32, placement="pfeiffer"),
        "bottleneck_size = 32, but the hidden size of .* is 32",
    ),
    "too many layers": (lambda m: train_top_layers(m, 9), "top_layers = 9, but .* has 3"),
    "a pattern": (
        lambda m: train_matching(m, ["model.layer.1.*", "*norm*"]),
        r"'model.layer.1.\*' matches no parameter; nearest: model\.\w+\..*, ",
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_settings_get_one_clear_message(bases, fault):
    technique, message = WRONG[fault]
    model = load_model(str(bases(LLAMA)), precision="fp32")
    with pytest.raises(ConfigError, match=message):
        technique(model)
    assert not hasattr(model.model, "peft_config"), "refused before anything was changed"


@pytest.mark.parametrize(
    ("technique", "message"),
    [
        (lora(init="pissa"), "quantisation has rounded"),
        (train_everything, "full trains the base's own weights, which int8 rounds away"),
    ],
)
def test_a_quantised_base_is_not_trained_itself(bases, technique, message):
    model = load_model(str(bases(LLAMA)), precision="fp32", quantisation="int8")
    with pytest.raises(ConfigError, match=message):
        technique(model)


def test_transposed_matrices_are_not_quantised(bases):
    with pytest.raises(ConfigError, match="gpt2 has no linear layers that can be quantised"):
        load_model(str(bases(GPT2)), precision="fp32", quantisation="int4")
