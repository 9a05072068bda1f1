"""The tokens shown while labelling are those trained. Run: pytest tests/test_preview.py"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from burnish.chat import ChatTemplate, choose_template, render, render_many
from burnish.chat.preview import preview, token_texts
from burnish.errors import TemplateError
from burnish.nn.models import load_template
from burnish.types import Conversation, Message, Span
from chat_templates import QWEN_3, TEMPLATES_IN_USE, chat_tokenizer, dialogue
from tiny import tiny_base

NAMES = [*TEMPLATES_IN_USE, "chatml", "gemma", "plain"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return chat_tokenizer(tmp_path_factory.mktemp("base"))


def template_of(tokenizer: Any, name: str) -> ChatTemplate:
    if name in TEMPLATES_IN_USE:
        return ChatTemplate(tokenizer, name, TEMPLATES_IN_USE[name])
    return choose_template(tokenizer, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_preview_is_the_rendering_with_its_text(name: str, tokenizer: Any) -> None:
    template = template_of(tokenizer, name)
    conversation = Conversation(
        (
            Message("user", "Grüße, 日本語 😀 <|im_end|> and ✨"),
            Message("assistant", "an 😀 answer", spans=(Span(0, 2, 0.0),)),
            Message("user", "more"),
            Message("assistant", "fin\n\n"),
        )
    )
    [rows] = render_many([conversation], template)
    shown = preview(conversation, template, 2048)
    assert [[(t.id, t.weight) for t in row.tokens] for row in shown] == [
        list(zip(row.ids, row.weights, strict=True)) for row in rows
    ]
    for row in shown:
        text = "".join(token.text for token in row.tokens)
        assert text == template.decode([token.id for token in row.tokens])
        assert "an 😀 answer" in text
        assert not row.is_truncated


@given(text=st.text(max_size=80))
@settings(max_examples=150, deadline=None)
def test_pieces_put_together_are_the_text(text: str, tokenizer: Any) -> None:
    template = choose_template(tokenizer, "chatml")
    pieces = token_texts(template.encode(text), template)
    assert "".join(pieces) == text


def test_a_character_of_several_tokens_stands_with_the_last(tokenizer: Any) -> None:
    template = choose_template(tokenizer, "chatml")
    assert [piece for piece in token_texts(template.encode("a日b"), template) if piece] == [
        "a",
        "日",
        "b",
    ]


def test_sentencepiece_keeps_its_spaces() -> None:
    """Its decoder drops the space before the first token of whatever it is given."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<s>"], show_progress=False)
    tokenizer.train_from_iterator(["the cat sat on the mat and the cat sat"] * 9, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>")
    template = choose_template(fast, "plain")
    ids = tokenizer.encode("the cat sat on the mat").ids
    pieces = token_texts(ids, template)
    assert "".join(pieces) == "the cat sat on the mat"
    assert len(pieces) == len(ids)


def test_broken_text_costs_no_more_than_other(tokenizer: Any) -> None:
    template = choose_template(tokenizer, "chatml")
    ids = template.encode("\ufffd" * 3000)
    started = time.perf_counter()
    token_texts(ids, template)
    assert time.perf_counter() - started < 2.0


def test_the_cut_is_where_training_cuts(tokenizer: Any) -> None:
    template = choose_template(tokenizer, "chatml")
    conversation = dialogue(("user", "How are you?"), ("assistant", "well enough, and you?"))
    whole = render(conversation, template)
    for max_length in (1, len(whole.ids) - 1, len(whole.ids), 5000):
        [row] = preview(conversation, template, max_length)
        assert row.count == len(whole.ids)
        assert row.kept == len(whole.ids[:max_length])
        assert row.trained == sum(weight > 0 for weight in whole.weights[:max_length])
        assert row.is_truncated == (max_length < len(whole.ids))


def test_a_template_that_rewrites_turns_shows_every_row(tokenizer: Any) -> None:
    template = ChatTemplate(tokenizer, "qwen 3", QWEN_3)
    thought = "<think>\nhm\n</think>\n\none"
    turns = (("user", "1"), ("assistant", thought), ("user", "2"), ("assistant", "two"))
    first, second = preview(dialogue(*turns), template, 2048)
    assert "hm" in "".join(t.text for t in first.tokens if t.weight)
    assert "hm" not in "".join(t.text for t in second.tokens)


def test_what_training_refuses_is_refused_here(tokenizer: Any) -> None:
    with pytest.raises(TemplateError, match="surrogate"):
        preview(dialogue(("user", "\ud800"), ("assistant", "b")), choose_template(tokenizer), 100)


def test_it_is_quick_enough_to_follow_typing(tokenizer: Any) -> None:
    template = choose_template(tokenizer, "chatml")
    conversation = dialogue(("user", "your balance 日 " * 40), ("assistant", "my card " * 120))
    [row] = preview(conversation, template, 2048)
    assert row.count > 500
    times = []
    for _ in range(9):
        started = time.perf_counter()
        preview(conversation, template, 2048)
        times.append(time.perf_counter() - started)
    # 3 ms for 500 tokens on an idle core; the bar leaves room for a busy one.
    assert min(times) * 500 / row.count < 0.020


def test_it_is_there_without_torch() -> None:
    check = "import sys, burnish.chat.preview; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_base_gives_its_template_without_its_weights(tmp_path: Path) -> None:
    tiny_base(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    template = load_template(str(tmp_path))
    assert template.name == "chatml"
    [row] = preview(dialogue(("user", "a"), ("assistant", "b")), template, 100)
    assert row.trained == 2  # the letter and the stop token
