"""Decoding: batches, streams, stop strings. Run: pytest tests/test_generate.py"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from burnish.chat import render_prompt
from burnish.errors import InputError, ModelError
from burnish.nn.attention import ATTENTION
from burnish.nn.decoding import DecodingBatch, make_row
from burnish.nn.generate import MAX_ROWS, Sampling, generate, stream
from burnish.nn.models import LoadedModel, load_model
from burnish.nn.sampling import choose
from burnish.nn.text_stream import TextStream
from burnish.types import Conversation, Message
from tiny import tiny_base

SYSTEM = "Answer with one label: balance, transfer, freeze_account, pay_bill, out_of_scope."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(tiny_base(tmp_path_factory.mktemp("base"))), precision="fp32")


def prompts_of(base: LoadedModel, count: int, system: str | None = None) -> list[list[int]]:
    """Prompts of mixed lengths, the shortest one token long."""
    dice = random.Random(count)
    prompts = [[5], [7, 9]]
    while len(prompts) < count:
        text = "".join(dice.choices("abcdefgh éñ日😀 ", k=dice.randint(1, 80)))
        turns = [Message("user", text)]
        if system:
            turns.insert(0, Message("system", system))
        prompts.append(render_prompt(Conversation(tuple(turns)), base.template))
    return prompts[:count]


def by_transformers(base: LoadedModel, prompt: list[int], tokens: int) -> list[int]:
    output = base.model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=list(base.stop_ids),
    )
    ids: list[int] = output[0][len(prompt) :].tolist()
    return ids


def test_a_batch_answers_like_one_by_one_and_like_transformers(base: LoadedModel) -> None:
    prompts = [*prompts_of(base, MAX_ROWS + 10), *prompts_of(base, 20, SYSTEM)]
    together = generate(base, prompts, Sampling(max_tokens=24))
    for prompt, completion in list(zip(prompts, together, strict=True))[::4]:
        assert completion.ids == generate(base, [prompt], Sampling(max_tokens=24))[0].ids
        assert completion.ids == by_transformers(base, prompt, 24)


@pytest.mark.parametrize("kind", ["mistral", "gemma3"])
def test_sliding_windows_count_along_each_row(kind: str, tmp_path: Path) -> None:
    base = load_model(str(windowed_base(tmp_path, kind)), precision="fp32")
    prompts = prompts_of(base, 8, SYSTEM)
    together = generate(base, prompts, Sampling(max_tokens=24))
    assert [c.ids for c in together] == [by_transformers(base, p, 24) for p in prompts]


def windowed_base(folder: Path, kind: str) -> Path:
    """Two layers whose window of 8 is far shorter than the prompts."""
    tiny_base(folder)
    shape: dict[str, Any] = {
        "vocab_size": 384,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 8,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    torch.manual_seed(1)
    model: Any
    if kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**shape))
    else:
        layers = ["sliding_attention", "full_attention"]
        model = Gemma3ForCausalLM(Gemma3TextConfig(**shape, layer_types=layers))
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    return folder


def test_a_stream_is_the_completion_in_pieces(base: LoadedModel) -> None:
    for prompt in prompts_of(base, 5):
        for sampling in (Sampling(max_tokens=40), Sampling(max_tokens=40, temperature=1.5, seed=3)):
            (whole,) = generate(base, [prompt], sampling)
            tokens = list(stream(base, prompt, sampling))
            assert [t.id for t in tokens] == whole.ids
            assert "".join(t.text for t in tokens) == whole.text
            assert [t.finish_reason for t in tokens[:-1]] == [None] * (len(tokens) - 1)
            assert tokens[-1].finish_reason == whole.finish_reason == "length"


def test_an_answer_ends_at_any_stop_id_and_without_its_text(base: LoadedModel) -> None:
    prompt = prompts_of(base, 3)[-1]
    (longer,) = generate(base, [prompt], Sampling(max_tokens=12))
    place = next(n for n in range(1, 12) if longer.ids[n] not in longer.ids[:n])
    config = base.causal_lm.generation_config
    before = config.eos_token_id
    config.eos_token_id = [0, longer.ids[place]]
    try:
        (ended,) = generate(base, [prompt], Sampling(max_tokens=12))
        streamed = list(stream(base, prompt, Sampling(max_tokens=12)))
    finally:
        config.eos_token_id = before
    assert ended.ids == longer.ids[: place + 1]
    assert ended.finish_reason == streamed[-1].finish_reason == "stop"
    assert ended.text == base.tokenizer.decode(ended.ids[:-1])
    assert "".join(t.text for t in streamed) == ended.text


def test_a_stop_string_ends_the_answer_wherever_tokens_border(base: LoadedModel) -> None:
    prompts = prompts_of(base, 10)
    free = generate(base, prompts, Sampling(max_tokens=30))
    checked = 0
    for prompt, whole in zip(prompts, free, strict=True):
        stop = whole.text[6:9]  # tokens are one to three characters long, so most stops straddle
        if "\ufffd" in stop or len(stop) < 3:
            continue
        checked += 1
        sampling = Sampling(max_tokens=30, stop=("never there", stop))
        (cut,) = generate(base, [prompt], sampling)
        assert cut.text == whole.text[: whole.text.find(stop)]
        assert cut.finish_reason == "stop"
        assert whole.ids[: len(cut.ids)] == cut.ids
        assert "".join(t.text for t in stream(base, prompt, sampling)) == cut.text
    assert checked >= 3


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_pieces_never_hold_half_a_character(base: LoadedModel, text: str) -> None:
    pieces = TextStream(base.tokenizer)
    parts = [pieces.push(i) for i in base.tokenizer.encode(text, add_special_tokens=False)]
    parts.append(pieces.finish())
    assert "".join(parts) == text
    assert "\ufffd" in text or not any("\ufffd" in part for part in parts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(3, 383), max_size=40))
def test_any_ids_stream_to_what_they_decode_to(base: LoadedModel, ids: list[int]) -> None:
    pieces = TextStream(base.tokenizer)
    text = "".join([*(pieces.push(i) for i in ids), pieces.finish()])
    assert text == base.tokenizer.decode(ids)


@settings(max_examples=200, deadline=None)
@given(
    st.text("aab é日", max_size=30),
    st.lists(st.text("aab é日", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_text_ends_before_the_stop_string_that_is_complete_first(
    base: LoadedModel, text: str, stops: list[str]
) -> None:
    pieces = TextStream(base.tokenizer, stops)
    shown = ""
    for i in base.tokenizer.encode(text, add_special_tokens=False):
        shown += pieces.push(i)
        if pieces.stopped:
            break
    else:
        shown += pieces.finish()
    places = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    assert pieces.stopped == bool(places)
    assert shown == (text[: min(places)[1]] if places else text)


def test_sampling_is_seeded_and_blind_to_the_batch(base: LoadedModel) -> None:
    prompts = prompts_of(base, 20)
    sampling = Sampling(max_tokens=12, temperature=1.0, top_p=0.9, seed=7)
    first = generate(base, prompts, sampling)
    assert [c.ids for c in first] == [c.ids for c in generate(base, prompts, sampling)]
    alone = generate(base, prompts[4:5], Sampling(12, 1.0, 0.9, seed=7 + 4))
    assert alone[0].ids == first[4].ids
    same = generate(base, [prompts[4]] * 6, sampling)
    assert len({tuple(c.ids) for c in same}) > 1, "equal prompts must not give equal draws"


def test_draws_follow_temperature_and_top_p() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -3.0]])
    places = [(n + 0.5) / 2000 for n in range(2000)]

    def shares(sampling: Sampling) -> torch.Tensor:
        drawn = [choose(logits, [sampling], [place])[0] for place in places]
        return torch.bincount(torch.tensor(drawn), minlength=5) / len(places)

    for temperature in (0.5, 1.0, 2.0):
        expected = torch.softmax(logits[0] / temperature, -1)
        torch.testing.assert_close(
            shares(Sampling(temperature=temperature)), expected, atol=1e-3, rtol=0
        )
    # 0.64 + 0.24 = 0.88 is the smallest set that reaches 0.8.
    nucleus = torch.softmax(logits[0], -1)[:2]
    kept = shares(Sampling(temperature=1.0, top_p=0.8))
    torch.testing.assert_close(kept[:2], nucleus / nucleus.sum(), atol=1e-3, rtol=0)
    assert kept[2:].sum() == 0
    assert shares(Sampling(temperature=1.0, top_p=0.0))[0] == 1


def test_logprobs_are_those_of_a_plain_forward(base: LoadedModel) -> None:
    prompts = prompts_of(base, 5)
    for prompt, completion in zip(
        prompts, generate(base, prompts, Sampling(max_tokens=6, logprobs=3)), strict=True
    ):
        assert completion.logprobs is not None
        with torch.inference_mode():
            logits = base.causal_lm(input_ids=torch.tensor([prompt + completion.ids])).logits[0]
        plain = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
        for place, token, known in zip(plain, completion.ids, completion.logprobs, strict=True):
            assert known.logprob == pytest.approx(float(place[token]), abs=1e-4)
            assert [i for i, _ in known.top] == place.topk(3).indices.tolist()


def test_the_head_runs_once_per_new_token_and_a_shared_prefix_once(base: LoadedModel) -> None:
    prompts = prompts_of(base, 22, SYSTEM)[2:]
    seen = {"head": 0, "body": 0}

    def count(name: str) -> Any:
        def hook(_: Any, inputs: tuple[torch.Tensor, ...], __: torch.Tensor) -> None:
            seen[name] += inputs[0].shape[0] * inputs[0].shape[1]

        return hook

    hooks = [
        base.head.register_forward_hook(count("head")),
        base.body.embed_tokens.register_forward_hook(count("body")),
    ]
    completions = generate(base, prompts, Sampling(max_tokens=4))
    for hook in hooks:
        hook.remove()
    written = sum(len(c.ids) for c in completions)
    assert seen["head"] == written
    shared = len(base.tokenizer.encode(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"))
    longest = max(map(len, prompts))
    assert seen["body"] <= shared + len(prompts) * (longest - shared) + written


def test_a_prefix_is_kept_for_requests_to_come(base: LoadedModel) -> None:
    first, second = prompts_of(base, 12, SYSTEM)[-2:]
    read = []
    hook = base.body.embed_tokens.register_forward_hook(lambda _, x, __: read.append(x[0].numel()))
    batch = DecodingBatch(base)
    shared = len(base.tokenizer.encode(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"))
    for prompt, known in ((first, 1), (second, shared + 1), (second, len(second))):
        read.clear()
        row = make_row(base, prompt, Sampling(max_tokens=6), text=True)
        batch.join([row])
        assert sum(read) <= len(prompt) - known  # the last token is left to the first step
        while row.finish_reason is None:
            batch.step()
        batch.leave(row)
        assert row.ids == generate(base, [prompt], Sampling(max_tokens=6))[0].ids
    hook.remove()


def test_a_prompt_longer_than_the_context_names_both_numbers(tmp_path: Path) -> None:
    base = load_model(str(tiny_base(tmp_path, max_position_embeddings=32)), precision="fp32")
    with pytest.raises(InputError, match=r"40 tokens.*32"):
        generate(base, [[5], [5] * 40], Sampling())
    with pytest.raises(InputError, match=r"32 tokens.*32"):
        next(stream(base, [5] * 32, Sampling()))
    with pytest.raises(InputError, match="empty"):
        generate(base, [[]], Sampling())
    (completion,) = generate(base, [[5] * 20], Sampling(max_tokens=100))
    assert len(completion.ids) == 12
    assert completion.finish_reason == "length"


def test_a_model_in_training_comes_back_as_it_was(base: LoadedModel) -> None:
    prompts = prompts_of(base, 4)
    expected = generate(base, prompts, Sampling(max_tokens=8))
    base.causal_lm.set_attn_implementation(ATTENTION)
    base.model.train()
    try:
        assert generate(base, prompts, Sampling(max_tokens=8)) == expected
        assert base.causal_lm.config._attn_implementation == ATTENTION
        assert base.model.training
    finally:
        base.causal_lm.set_attn_implementation("sdpa")
        base.model.eval()


def test_a_model_with_another_state_is_refused(tmp_path: Path) -> None:
    tiny_base(tmp_path)
    MambaForCausalLM(
        MambaConfig(vocab_size=384, hidden_size=16, num_hidden_layers=1, state_size=4)
    ).save_pretrained(tmp_path)
    base = load_model(str(tmp_path), precision="fp32")
    with pytest.raises(ModelError, match="mamba keeps a state other than keys and values"):
        generate(base, [[5]], Sampling())
