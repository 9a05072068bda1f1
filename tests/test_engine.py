"""The engine is exact: forests, tiles and accumulation never change the gradient.

Run: pytest tests/test_engine.py
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen3Config,
    SmolLM3Config,
)

from burnish.chat import Rendered
from burnish.errors import ConfigError
from burnish.nn.attention import ATTENTION
from burnish.nn.batches import Batches
from burnish.nn.forest import MIN_SHARED_TOKENS, ROUND_TO, plant, rounded
from burnish.nn.loop import Batch, LoopSettings, run_steps
from burnish.nn.loss import head_loss
from burnish.nn.models import load_model
from burnish.nn.optim import Optimizer, OptimizerSettings, learning_rates
from burnish.nn.step import forest_loss, hidden_states, training_step
from tiny import tiny_base

V = 60
SMALL = {
    "vocab_size": V,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
ARCHITECTURES = {
    "llama": LlamaConfig(**SMALL, num_key_value_heads=2),
    "qwen3": Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8),
    "mistral with a sliding window": MistralConfig(
        **SMALL, num_key_value_heads=2, sliding_window=20
    ),
    "gemma3 with sliding and global layers": Gemma3TextConfig(
        **SMALL, num_key_value_heads=1, head_dim=8, sliding_window=12, sliding_window_pattern=2
    ),
    "gemma2 with soft-capped scores": Gemma2Config(
        **SMALL, num_key_value_heads=2, head_dim=8, sliding_window=12, attn_logit_softcapping=2.0
    ),
    "phi3": Phi3Config(**SMALL, num_key_value_heads=2, pad_token_id=0),
    "olmo2": Olmo2Config(**SMALL, num_key_value_heads=2),
    "smollm3 with layers without positions": SmolLM3Config(
        **SMALL, num_key_value_heads=2, no_rope_layers=[1, 0, 1], pad_token_id=0
    ),
    "gpt2": GPT2Config(
        vocab_size=V, n_embd=32, n_layer=2, n_head=4, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0
    ),
}


def rows(seed: int = 0) -> list[Rendered]:
    """Examples that share prefixes of several lengths, with unequal weights, one twice."""
    rng = random.Random(seed)

    def some(n: int) -> list[int]:
        return [rng.randrange(V) for _ in range(n)]

    short, long = some(30), []
    long = short + some(25)
    examples = []
    for n in range(9):
        prefix = (short, long, [])[n % 3]
        answer = some(rng.randrange(3, 40))
        weights = [0.0] * len(prefix) + [rng.choice([0.0, 1.0, 0.25]) for _ in answer]
        weights[0] = 0.0
        examples.append(Rendered(prefix + answer, weights, []))
    # One ends inside another's prefix, one ends where a branch begins, one is there twice.
    examples.append(Rendered(long[:50], [0.0] * 40 + [1.0] * 10, []))
    examples.append(Rendered(list(short), [0.0] * 10 + [1.0] * 20, []))
    examples.append(examples[1])
    return examples


def gradients_one_by_one(model, examples) -> tuple[float, dict[str, torch.Tensor]]:
    """The law's other side: plain forward, plain cross-entropy, each example alone."""
    total = sum(sum(row.weights) for row in examples)
    loss = torch.zeros(())
    for row in examples:
        logits = model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0]
        losses = torch.nn.functional.cross_entropy(
            logits[:-1], torch.tensor(row.ids[1:]), reduction="none"
        )
        loss = loss + (losses * torch.tensor(row.weights[1:])).sum() / total
    loss.backward()
    return loss.item(), taken_gradients(model)


def taken_gradients(model) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("share_prefixes", [True, False])
def test_gradient_of_the_forest_is_the_sum_over_examples_alone(name, share_prefixes):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[name], attn_implementation="eager")
    examples = rows()
    expected_loss, expected = gradients_one_by_one(model, examples)

    model.set_attn_implementation(ATTENTION)
    forest = plant(examples, share_prefixes=share_prefixes)
    assert (len(forest.ids) < 0.7 * forest.tokens) == share_prefixes
    body = getattr(model, model.base_model_prefix)
    hidden = body(
        input_ids=forest.ids[None],
        position_ids=forest.positions[None],
        forest=forest,
        use_cache=False,
    ).last_hidden_state[0]
    head = model.get_output_embeddings().weight
    loss = head_loss(
        hidden[forest.sources],
        head,
        forest.targets,
        forest.weights / forest.weights.sum(),
        softcap=getattr(model.config, "final_logit_softcapping", None),
    )
    loss.backward()

    assert loss.item() == pytest.approx(expected_loss, rel=1e-5)
    found = taken_gradients(model)
    assert found.keys() == expected.keys()
    norm = sum(g.norm() ** 2 for g in expected.values()) ** 0.5
    for key, gradient in expected.items():
        assert (found[key] - gradient).norm() < 1e-5 * norm, key


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_example_of_a_forest_has_the_logits_that_transformers_gives_it_alone(name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES[name], attn_implementation="eager")
    model.eval()
    examples = rows()
    forest = plant(examples)
    with torch.no_grad():
        alone = [model(input_ids=torch.tensor([row.ids])).logits[0] for row in examples]
        model.set_attn_implementation(ATTENTION)
        together = model(
            input_ids=forest.ids[None],
            position_ids=forest.positions[None],
            forest=forest,
            use_cache=False,
        ).logits[0]
    for leaf, expected in zip(forest.leaves, alone, strict=True):
        path = [forest.segments[n] for n in forest.path(leaf)]
        found = torch.cat([together[segment.start : segment.end] for segment in path])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_packing_leaks_would_be_seen():
    """The law above has teeth: a forest that lets rows see each other breaks it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(ARCHITECTURES["llama"], attn_implementation="eager")
    examples = rows()
    expected_loss, _ = gradients_one_by_one(model, examples)
    flat = [i for row in examples for i in row.ids]
    weights = [w for row in examples for w in row.weights]
    leaking_loss, _ = gradients_one_by_one(model, [Rendered(flat, weights, [])])
    assert leaking_loss != pytest.approx(expected_loss, rel=1e-5)


def test_short_common_prefixes_are_not_shared():
    shared = [1] * (MIN_SHARED_TOKENS - 1)
    forest = plant([Rendered([*shared, n], [0.0] * len(shared) + [1.0], []) for n in (2, 3)])
    assert len(forest.ids) == forest.tokens
    assert all(segment.parent is None for segment in forest.segments)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


def trainable(base: Path, precision: str = "fp32"):
    model = load_model(str(base), precision=precision)
    model.model.requires_grad_(True)
    model.model.set_attn_implementation(ATTENTION)
    return model


def batches(examples, **changes) -> Batches:
    settings = {
        "batch_examples": 4,
        "batch_tokens": 10_000,
        "order": "shuffled",
        "seed": 0,
        "share_prefixes": True,
    }
    return Batches(examples, **settings | changes)


def test_accumulation_does_not_change_the_step(base):
    """One batch of 8 and eight of 1 give the same update (huggingface/transformers#34191)."""
    updated = []
    for budget in (10_000, 1):
        model = trainable(base)
        optimizer = Optimizer(model.model, OptimizerSettings(weight_decay=0.1))
        batch = batches(rows(), batch_examples=8, batch_tokens=budget)(0)
        assert len(batch.forests) == (1 if budget > 1 else 8)
        result = training_step(model, batch.forests, optimizer, 1e-3, 0.5)
        updated.append((result, [p.detach().clone() for p in model.model.parameters()]))
    (one, weights_one), (many, weights_many) = updated
    assert one.loss == pytest.approx(many.loss, rel=1e-6)
    assert one.grad_norm == pytest.approx(many.grad_norm, rel=1e-5)
    # 1 % of the rate: AdamW divides by the gradient's size, so where that is near its epsilon (here
    # 2e-7 in a matrix of norm 1.2) the rounding of the sum is magnified.
    for a, b in zip(weights_one, weights_many, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_small_updates_to_bf16_weights_are_not_lost(base):
    """At 1e-5 a step no bf16 weight near 0.1 would move; over 50 steps the masters do."""
    model = trainable(base, "bf16")
    before = [p.detach().clone() for p in model.model.parameters()]
    optimizer = Optimizer(model.model, OptimizerSettings())
    batch = batches(rows())
    for step in range(50):
        training_step(model, batch(step).forests, optimizer, 1e-5, 1.0)
    after = list(model.model.parameters())
    moved = sum(int((a != b).sum()) for a, b in zip(before, after, strict=True))
    assert moved > 0.05 * sum(p.numel() for p in after)
    for trained in optimizer.trained:
        assert torch.equal(trained.parameter, trained.weights.to(torch.bfloat16))


def test_weight_decay_spares_vectors(base):
    model = trainable(base)
    optimizer = Optimizer(model.model, OptimizerSettings(weight_decay=0.1))
    for parameter in model.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = [p.detach().clone() for p in model.model.parameters()]
    optimizer.step(1.0, 0.0)
    for old, new in zip(before, model.model.parameters(), strict=True):
        assert torch.equal(old, new) == (new.dim() < 2)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_cut_anywhere_gives_the_same_losses_to_the_last_bit(base, tmp_path, precision):
    """Cut mid-epoch, in the first and in a later epoch (modelscope/ms-swift#10050)."""

    def run(folder: Path, stop: int) -> list[float]:
        model = trainable(base, precision)
        progress = run_steps(
            model,
            Optimizer(model.model, OptimizerSettings(weight_decay=0.01)),
            batches(rows()),
            LoopSettings(stop, learning_rates("cosine", 1e-3, 8, 0.25), "test"),
            folder,
        )
        return progress.losses

    unbroken = run(tmp_path / "unbroken", 8)
    for cut in (2, 5):
        run(tmp_path / f"cut{cut}", cut)
    assert run(tmp_path / "cut2", 8) == unbroken
    assert run(tmp_path / "cut5", 8) == unbroken


def test_a_loss_that_is_no_number_stops_the_run(base, tmp_path):
    """Planted in the weights; elsewhere such a run ends in "success" (huggingface/trl#6668)."""
    model = trainable(base)
    with torch.no_grad():
        next(model.model.parameters())[:] = float("nan")
    with pytest.raises(ConfigError, match="loss is nan at step 1"):
        run_steps(
            model,
            Optimizer(model.model, OptimizerSettings()),
            batches(rows()),
            LoopSettings(2, lambda _: 1e-3, "test"),
            tmp_path,
        )
    assert not (tmp_path / "state.pt").exists()


def test_every_example_is_seen_once_an_epoch_in_a_new_order():
    examples = [Rendered([n], [0.0], []) for n in range(10)]
    plan = batches(examples, batch_examples=4)
    assert plan.steps_per_epoch == 3
    epochs = [
        [row.ids[0] for step in range(3 * e, 3 * e + 3) for row in plan.rows(step)]
        for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]
    as_given = batches(examples, batch_examples=4, order="as_given")
    assert [row.ids[0] for row in as_given.rows(3)] == [0, 1, 2, 3]


def test_batches_stay_within_the_budget_of_computed_tokens():
    plan = batches(rows(), batch_examples=12, batch_tokens=120)
    forests = plan(0).forests
    assert sum(forest.examples for forest in forests) == 12
    assert all(len(f.ids) <= 120 or f.examples == 1 for f in forests)


def test_learning_rates_rise_and_fall():
    for name in ("cosine", "linear", "constant"):
        rate = learning_rates(name, 1.0, 100, 0.1)
        rates = [rate(n) for n in range(100)]
        assert rates[:10] == sorted(rates[:10])
        assert max(rates) == pytest.approx(1.0)
        assert rates[-1] == (1.0 if name == "constant" else pytest.approx(0.0, abs=0.02))


def test_batch_counts_supervised_tokens_of_each_example_alone(base):
    model = trainable(base)
    batch = batches(rows(), batch_examples=12)(0)
    assert isinstance(batch, Batch)
    alone = sum(sum(1 for w in row.weights if w) for row in rows())
    assert batch.supervised_tokens == alone > sum(len(f.targets) for f in batch.forests)
    with torch.no_grad():
        assert sum(float(forest_loss(model, f)) for f in batch.forests) > 0


def test_rounded_forests_have_the_same_loss_and_gradients(base):
    """Tokens and terms that make sizes repeat count for nothing."""
    model = trainable(base)
    forest = plant(rows() + rows(1) + rows(2))
    filled = rounded(forest)
    assert len(forest.ids) % ROUND_TO
    assert len(filled.ids) % ROUND_TO == len(filled.targets) % ROUND_TO == 0
    found = []
    for batch in (filled, forest):
        hidden = hidden_states(model, batch)[batch.sources]
        weight = model.head.weight
        head_loss(hidden, weight, batch.targets, batch.weights).backward()
        found.append(taken_gradients(model.model))
    for key, gradient in found[1].items():
        torch.testing.assert_close(found[0][key], gradient, rtol=1e-4, atol=1e-5)
    small = plant(rows()[:1])
    assert rounded(small) is small
