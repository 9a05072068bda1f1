"""Loss and uncertainty per example, against plain transformers. Run: pytest tests/test_score.py"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, MambaConfig, MambaForCausalLM

from burnish.chat import Rendered, choose_template, render_many, render_prompt
from burnish.errors import InputError, ModelError, TemplateError, UserError
from burnish.nn.attention import ATTENTION
from burnish.nn.generate import Sampling, generate
from burnish.nn.models import LoadedModel, load_model
from burnish.nn.score import ExampleScore, score_examples
from burnish.nn.techniques import add_lora, add_prefix, add_prompt
from burnish.types import Conversation, Message, Span
from chat_templates import QWEN_3, chat_tokenizer
from tiny import tiny_base

SYSTEM = Message("system", "Answer with one label: balance, transfer, freeze_account, pay_bill.")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(tiny_base(tmp_path_factory.mktemp("base"))), precision="fp32")


def conversations(count: int, *, answered: bool = True) -> list[Conversation]:
    """Of mixed lengths and turns; half share a system prompt, some end with the same answer."""
    dice = random.Random(count)

    def text() -> str:
        return "".join(dice.choices("abcdefgh é日 ", k=dice.randint(1, 60))).strip() or "a"

    made = []
    for n in range(count):
        turns = [SYSTEM] if n % 2 else []
        for _ in range(n % 3):
            turns += [Message("user", text()), Message("assistant", text(), weight=n % 2)]
        turns.append(Message("user", "Which one?" if n % 4 == 1 else text()))
        if answered:
            turns.append(Message("assistant", "balance" if n % 4 == 1 else text()))
        made.append(Conversation(tuple(turns)))
    return made


def by_transformers(loaded: LoadedModel, rows: Sequence[Rendered]) -> tuple[float, float]:
    """Mean loss and entropy of the weighted tokens, from a forward pass of each row alone."""
    losses, entropies = [], []
    for row in rows:
        with torch.no_grad():
            # PEFT puts the virtual tokens of prompt tuning first.
            logits = loaded.model(torch.tensor([row.ids])).logits[0, -len(row.ids) :].double()
        logs = torch.log_softmax(logits, -1)
        for n, weight in enumerate(row.weights):
            if weight:
                losses.append(-logs[n - 1, row.ids[n]])
                entropies.append(-(logs[n - 1].exp() * logs[n - 1]).sum())
    return float(torch.stack(losses).mean()), float(torch.stack(entropies).mean())


def rendered(loaded: LoadedModel, conversation: Conversation) -> list[Rendered]:
    [rows] = render_many([conversation], loaded.template)
    assert not isinstance(rows, TemplateError), rows
    return rows


def scored(loaded: LoadedModel, some: Sequence[Conversation], **settings: Any) -> list[Any]:
    return list(score_examples(loaded, some, **settings))


def check_against_transformers(loaded: LoadedModel, some: Sequence[Conversation]) -> None:
    for conversation, score in zip(some, scored(loaded, some), strict=True):
        assert isinstance(score, ExampleScore)
        expected = by_transformers(loaded, rendered(loaded, conversation))
        assert (score.loss, score.uncertainty) == pytest.approx(expected, rel=1e-5)


def test_scores_are_those_of_a_plain_forward(base: LoadedModel) -> None:
    spanned = Message("assistant", "pay the bill", spans=(Span(0, 3, 0.0),))
    raw = Conversation((Message("user", "two and two"), Message("assistant", "is 4")), raw=True)
    some = conversations(40)
    some += [Conversation((Message("user", "What now?"), spanned)), raw, some[0]]
    check_against_transformers(base, some)


@pytest.mark.parametrize("technique", ["lora", "prompt", "prefix"])
def test_adapters_are_scored_with_what_they_add(technique: str, base: LoadedModel) -> None:
    loaded = load_model(base.origin, precision="fp32")
    match technique:
        case "lora":
            loaded = add_lora(loaded, rank=4, alpha=8, targets=("all-linear", "lm_head"))
            for name, weight in loaded.model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=0.1)
        case "prompt":
            loaded = add_prompt(loaded, virtual_tokens=5)
        case "prefix":
            loaded = add_prefix(loaded, virtual_tokens=5)
    loaded.model.eval()
    some = conversations(12)
    check_against_transformers(loaded, some)
    plain, adapted = ([s.loss for s in scored(model, some)] for model in (base, loaded))
    assert adapted != pytest.approx(plain, rel=1e-3)


def test_windows_and_capped_logits_are_scored_as_they_are(tmp_path: Path) -> None:
    tiny_base(tmp_path)
    torch.manual_seed(1)
    layers = ["sliding_attention", "full_attention"]
    shape = {"vocab_size": 384, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    special = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
    config = Gemma3TextConfig(
        **shape,
        **heads,
        **special,
        layer_types=layers,
        sliding_window=8,
        final_logit_softcapping=3.0,
    )
    Gemma3ForCausalLM(config).save_pretrained(tmp_path)
    check_against_transformers(load_model(str(tmp_path), precision="fp32"), conversations(12))


def test_a_model_without_forests_is_scored_one_by_one(tmp_path: Path) -> None:
    tiny_base(tmp_path)
    torch.manual_seed(1)
    config = MambaConfig(
        vocab_size=384, hidden_size=32, num_hidden_layers=2, state_size=4, eos_token_id=0
    )
    MambaForCausalLM(config).save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), precision="fp32")
    check_against_transformers(loaded, conversations(4))
    with pytest.raises(ModelError, match="cannot be batched"):
        scored(loaded, conversations(1, answered=False))


def test_without_an_answer_the_models_own_draft_tells(base: LoadedModel) -> None:
    some = conversations(12, answered=False)
    for conversation, score in zip(some, scored(base, some, draft_tokens=7), strict=True):
        prompt = render_prompt(conversation, base.template)
        [draft] = generate(base, [prompt], Sampling(max_tokens=7))
        weights = [0.0] * len(prompt) + [1.0] * len(draft.ids)
        _, entropy = by_transformers(base, [Rendered(prompt + draft.ids, weights, [])])
        assert score.loss is None
        assert score.uncertainty == pytest.approx(entropy, rel=1e-5)


def test_a_conversation_of_several_rows_is_one_example(base: LoadedModel, tmp_path: Path) -> None:
    tokenizer = chat_tokenizer(tmp_path)
    tokenizer.chat_template = QWEN_3
    loaded = load_model(base.origin, precision="fp32")
    loaded.causal_lm.resize_token_embeddings(len(tokenizer))
    loaded = replace(loaded, tokenizer=tokenizer, template=choose_template(tokenizer))
    thought = Message("assistant", "<think>\nhm\n</think>\n\none")
    turns = (Message("user", "1"), thought, Message("user", "2"), Message("assistant", "two"))
    conversation = Conversation(turns)
    assert len(rendered(loaded, conversation)) == 2
    check_against_transformers(loaded, [conversation, *conversations(4)])


def test_batches_never_change_a_score(base: LoadedModel) -> None:
    some = [*conversations(20), *conversations(9, answered=False)]
    together = scored(base, some)
    for batch_tokens in (1, 100):
        apart = scored(base, some, batch_tokens=batch_tokens)
        for one, other in zip(together, apart, strict=True):
            assert (one.loss is None) == (other.loss is None)
            for name in ("loss", "uncertainty"):
                values = getattr(one, name), getattr(other, name)
                assert values[0] is None or values[0] == pytest.approx(values[1], rel=1e-5)


def test_what_cannot_be_scored_is_an_error_in_its_place(base: LoadedModel) -> None:
    good = conversations(2)
    silent = Conversation((Message("user", "a"), Message("assistant", "b", weight=0.0)))
    broken = Conversation((Message("user", "\ud800"), Message("assistant", "b")))
    endless = Conversation((Message("user", "a " * 3000),))
    scores = scored(base, [good[0], silent, broken, endless, good[1]])
    kinds = [type(score) for score in scores]
    assert kinds == [ExampleScore, InputError, TemplateError, InputError, ExampleScore]
    assert [scores[0], scores[4]] == scored(base, good)


def test_what_training_cuts_off_is_not_scored(base: LoadedModel) -> None:
    conversation = Conversation((Message("user", "a"), Message("assistant", "good day " * 40)))
    [row] = rendered(base, conversation)
    [score] = scored(base, [conversation], max_length=50)
    cut = Rendered(row.ids[:50], row.weights[:50], [])
    assert score.loss == pytest.approx(by_transformers(base, [cut])[0], rel=1e-5)
    [whole] = scored(base, [conversation])
    assert whole.loss != pytest.approx(score.loss, rel=1e-3)
    [refused] = scored(base, [conversation], max_length=3)
    assert isinstance(refused, UserError)
    assert "max_length" in str(refused)


def test_scoring_streams_and_leaves_the_model_as_it_was(base: LoadedModel) -> None:
    attention = base.causal_lm.config._attn_implementation
    assert attention != ATTENTION
    asked = 0

    def endless() -> Any:
        nonlocal asked
        while True:
            asked += 1
            yield Conversation((Message("user", "a"), Message("assistant", "b")))

    assert isinstance(next(score_examples(base, endless())), ExampleScore)
    assert asked < 1000
    assert base.causal_lm.config._attn_implementation == attention
    assert not base.model.training
