"""What a conversation becomes: rows, tool calls, spans, names of special tokens.

Run: pytest tests/test_chat_turns.py
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from burnish.chat import (
    TEMPLATES,
    ChatTemplate,
    answer_text,
    choose_template,
    parse,
    render,
    render_many,
    render_prompt,
)
from burnish.errors import TemplateError
from burnish.records import read_examples
from burnish.types import Conversation, Message, Span, ToolCall
from chat_templates import (
    TEMPLATES_IN_USE,
    chat_tokenizer,
    dialogue,
    trained_ids,
)
from tiny import TEXT

DATA = Path(__file__).parents[1].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
HERMES = ("chatml", "gemma", "plain", "qwen 2.5", "qwen 3")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return chat_tokenizer(tmp_path_factory.mktemp("base"))


def template_named(tokenizer, name: str) -> ChatTemplate:
    if name in TEMPLATES:
        return choose_template(tokenizer, name)
    return ChatTemplate(tokenizer, name, TEMPLATES_IN_USE[name])


@pytest.fixture(params=[*TEMPLATES, *TEMPLATES_IN_USE])
def template(request, tokenizer) -> ChatTemplate:
    return template_named(tokenizer, request.param)


def conversations(name: str) -> list[Conversation]:
    return [example.conversation for example in read_examples(DATA / name).examples]


# Many at once.


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("data", ["alpaca_en_demo.json", "glaive_toolcall_en_demo.json"])
def test_many_at_once_are_rendered_as_one_by_one(tokenizer, name, data):
    template = template_named(tokenizer, name)
    some = conversations(data)[:80]
    assert list(render_many(some, template)) == [[render(c, template)] for c in some]


@pytest.mark.data
@needs_data
@pytest.mark.parametrize("name", TEMPLATES)
def test_law_1_on_real_rows(tokenizer, name):
    template = template_named(tokenizer, name)
    some = conversations("alpaca_en_demo.json")[:150]
    for conversation, rows in zip(some, render_many(some, template), strict=True):
        own = tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in conversation.messages],
            chat_template=template.source,
            tokenize=True,
            return_dict=False,
        )
        assert rows[0].ids == own


def test_order_is_kept_across_chunks_and_a_refusal_stands_in_its_place(tokenizer):
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template = ChatTemplate(tokenizer, "strict", source)
    many = [dialogue(("user", "Which?"), ("assistant", str(n))) for n in range(1100)]
    many[500] = dialogue(("system", "Be brief."), ("user", "Which?"), ("assistant", "500"))
    many[1050] = Conversation(many[1050].messages, raw=True)
    for n, rows in enumerate(render_many(many, template)):
        if n == 500:
            assert isinstance(rows, TemplateError)
            assert "no system" in rows.what
        else:
            assert rows == [render(many[n], template)]


def test_rendering_is_lazy(tokenizer):
    endless = itertools.cycle([dialogue(("user", "a"), ("assistant", "b"))])
    rows = next(render_many(endless, choose_template(tokenizer)))
    assert len(rows) == 1


def test_a_slow_tokenizer_gives_what_it_encodes():
    tokenizer = ByT5Tokenizer()
    template = choose_template(tokenizer, "plain")
    row = render(dialogue(("user", "Go </s>"), ("assistant", "é")), template)
    assert row.ids.count(tokenizer.eos_token_id) == 1
    assert parse(trained_ids(row), template).content == "é"


def sentencepiece_tokenizer(prepend_scheme: str) -> PreTrainedTokenizerFast:
    """Puts a space before a text, as Llama 2's does: `first`, or `always`, so also within one."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=prepend_scheme)]
    )
    special = ["<unk>", "<s>", "</s>"]
    alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=[*special, *alphabet], show_progress=False
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("answer", ["balance", "my card, my account", "a </s> <s> b", "<s>"])
def test_no_space_is_added_between_pieces(answer):
    tokenizer = sentencepiece_tokenizer("first")
    template = choose_template(tokenizer, "plain")
    conversation = dialogue(("user", "Answer: <s>"), ("assistant", answer))
    row = render(conversation, template)
    assert tokenizer.convert_ids_to_tokens(row.ids).count("<s>") == 1
    assert tokenizer.convert_ids_to_tokens(row.ids).count("</s>") == 1
    assert parse(trained_ids(row), template) == conversation.answer
    spanned = with_spans(conversation, 1, Span(0, len(answer), 0.5))
    assert text_of_weight(render(spanned, template), 0.5, template) == answer


def test_a_special_tokens_name_that_cannot_be_written_in_letters_is_refused():
    template = choose_template(sentencepiece_tokenizer("always"), "plain")
    plain = dialogue(("user", "Go"), ("assistant", "balance"))
    typed = dialogue(("user", "Go </s>"), ("assistant", "balance"))
    [rows, refusal] = render_many([plain, typed], template)
    assert parse(trained_ids(rows[0]), template) == plain.answer
    assert isinstance(refusal, TemplateError)
    assert "user turn holds the name of a special token in '</s>'" in refusal.what


def test_what_a_tokenizer_file_says_about_cutting_is_set_aside(tokenizer):
    template = choose_template(tokenizer)
    conversation = dialogue(("user", "word " * 50), ("assistant", "b"))
    whole = render(conversation, template)
    tokenizer.backend_tokenizer.enable_truncation(5)
    assert render(conversation, template) == whole


# Templates that rewrite earlier turns.

THOUGHTS = dialogue(
    ("user", "One?"),
    ("assistant", "<think>\nhm\n</think>\n\n1"),
    ("user", "Two?"),
    ("assistant", "<think>\nhm, two\n</think>\n\n2"),
)


def test_a_rewritten_dialogue_is_a_row_per_trained_turn_as_served(tokenizer):
    template = template_named(tokenizer, "qwen 3")
    [rows] = render_many([THOUGHTS], template)
    assert len(rows) == 2
    for row, length in zip(rows, (2, 4), strict=True):
        upto = Conversation(THOUGHTS.messages[:length])
        prompt = render_prompt(upto, template)
        assert row.ids[: len(prompt)] == prompt
        assert not any(row.weights[: len(prompt)])
        assert parse(trained_ids(row), template) == upto.answer
        assert row == render(
            Conversation((*(replace(m, weight=0.0) for m in upto.prompt.messages), upto.answer)),
            template,
        )
    assert "hm\n" not in tokenizer.decode(rows[1].ids)


def test_a_rewritten_dialogue_trained_at_its_end_is_one_row(tokenizer):
    template = template_named(tokenizer, "qwen 3")
    first, answer, *rest = THOUGHTS.messages
    row = render(Conversation((first, replace(answer, weight=0.0), *rest)), template)
    assert parse(trained_ids(row), template) == THOUGHTS.answer
    with pytest.raises(TemplateError, match="several rows"):
        render(THOUGHTS, template)


def test_an_empty_thought_is_written_and_read_over(tokenizer):
    template = template_named(tokenizer, "qwen 3")
    conversation = dialogue(("user", "One?"), ("assistant", "1"))
    row = render(conversation, template)
    assert "<think>\n\n</think>\n\n1" in tokenizer.decode(trained_ids(row))
    assert parse(trained_ids(row), template) == conversation.answer


def test_a_turn_that_looks_the_same_without_its_thought_is_still_a_row_of_its_own(tokenizer):
    """Both answers are found in the whole text as they were written; the first is not as served."""
    template = template_named(tokenizer, "qwen 3")
    conversation = dialogue(
        ("user", "One?"), ("assistant", "1"), ("user", "Two?"), ("assistant", "2")
    )
    [rows] = render_many([conversation], template)
    trained = [tokenizer.decode(trained_ids(row)) for row in rows]
    assert trained == [f"<think>\n\n</think>\n\n{n}<|im_end|>" for n in (1, 2)]


def test_the_rows_of_a_conversation_train_each_message_once(tokenizer):
    template = template_named(tokenizer, "qwen 3")
    first, *rest = THOUGHTS.messages
    weighted = Conversation((replace(first, weight=0.25), *rest))
    [rows] = render_many([weighted], template)
    assert [0.25 in row.weights for row in rows] == [True, False]


@pytest.mark.parametrize("name", [*TEMPLATES, *TEMPLATES_IN_USE])
def test_a_conversation_may_open_with_the_assistant(tokenizer, name):
    template = template_named(tokenizer, name)
    greeting = dialogue(("assistant", "Hello!"), ("user", "One?"), ("assistant", "1"))
    [rows] = render_many([greeting], template)
    answers = [parse(trained_ids(row), template).content for row in rows]
    assert answers[0] == "Hello!"
    prompt = render_prompt(greeting, template)
    assert rows[-1].ids[: len(prompt)] == prompt
    assert parse(rows[-1].ids[len(prompt) :], template) == greeting.answer


def test_law_2_holds_before_any_message(tokenizer):
    for name in TEMPLATES:
        template = template_named(tokenizer, name)
        greeting = dialogue(("assistant", "Hello!"))
        prompt = render_prompt(greeting, template)
        row = render(greeting, template)
        assert row.ids[: len(prompt)] == prompt
        assert parse(row.ids[len(prompt) :], template) == greeting.answer
    with pytest.raises(TemplateError, match="of no turns"):
        render_prompt(greeting, template_named(tokenizer, "qwen 2.5"))


def test_a_template_that_forbids_it_keeps_its_reason(tokenizer):
    source = "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}"
    template = ChatTemplate(tokenizer, "strict", source)
    [refusal] = render_many([dialogue(("assistant", "Hello!"))], template)
    assert isinstance(refusal, TemplateError)
    assert "user first" in refusal.what


# Tool calls.

TOOLS = json.dumps([{"type": "function", "function": {"name": "f", "parameters": {}}}])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text("ab<>/", max_size=3), inner)
    ),
    max_leaves=4,
)
CALLS = st.builds(
    lambda name, arguments: ToolCall(name, json.dumps(arguments, ensure_ascii=False)),
    st.sampled_from(["find", "order_food", "f-2"]),
    st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2),
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(calls=st.lists(CALLS, min_size=1, max_size=2), text=st.sampled_from(["", "Let me see."]))
@pytest.mark.parametrize("name", HERMES)
def test_law_4_holds_for_tool_calls(tokenizer, name, calls, text):
    template = template_named(tokenizer, name)
    answer = Message("assistant", text, tuple(calls))
    conversation = Conversation((Message("user", "Cook?"), answer), tools=TOOLS)
    row = render(conversation, template)
    assert parse(trained_ids(row), template) == answer
    assert row.stops == [max(n for n, w in enumerate(row.weights) if w)]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "f", "arguments": {}}</tool_call> and more',
        '<tool_call>{"name": "f", "arguments": {}',
        '<tool_call>{"name": "f"}</tool_call>',
        '<tool_call>{"name": "f", "arguments": []}</tool_call>',
        'Write <tool_call>{"name": "f", "arguments": {}}</tool_call>',
        "<tool_call></tool_call>",
        '{"name": "f", "parameters": {}}',
        "<tool_call>" * 3000,
    ],
)
def test_what_is_no_call_is_left_as_text(tokenizer, text):
    template = choose_template(tokenizer)
    assert parse(template.encode(text), template) == Message("assistant", text)


def test_the_text_of_a_call_can_be_had(tokenizer):
    template = choose_template(tokenizer)
    text = 'Yes.\n<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    ids = [*template.encode(text), template.stop_ids[0], 5]
    assert answer_text(ids, template) == text
    assert parse(ids, template) == Message("assistant", "Yes.", (ToolCall("f", "{}"),))


@pytest.mark.data
@needs_data
def test_real_tool_calls_are_trained_with_their_stop_token(template):
    some = [c for c in conversations("glaive_toolcall_en_demo.json") if c.tools][:40]
    called = 0
    for conversation, rows in zip(some, render_many(some, template), strict=True):
        assert not isinstance(rows, TemplateError), rows
        trained = "".join(template.tokenizer.decode(trained_ids(row)) for row in rows)
        for message in conversation.messages:
            for call in message.tool_calls:
                called += 1
                assert f'"name": "{call.name}"' in trained
                assert json.dumps(json.loads(call.arguments), ensure_ascii=False) in trained
            assert message.role != "tool" or message.content not in trained
        answers = sum(m.role == "assistant" for m in conversation.messages)
        assert sum(len(row.stops) for row in rows) == answers
    assert called > 20


def test_a_template_that_leaves_out_the_call_is_refused(tokenizer):
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    answer = Message("assistant", "", (ToolCall("f", "{}"),))
    with pytest.raises(TemplateError, match="does not write the call"):
        render(
            Conversation((Message("user", "Go"), answer)), ChatTemplate(tokenizer, "old", source)
        )


# Spans.


def with_spans(conversation: Conversation, turn: int, *spans: Span) -> Conversation:
    messages = list(conversation.messages)
    messages[turn] = replace(messages[turn], spans=spans)
    return replace(conversation, messages=tuple(messages))


def text_of_weight(row, weight: float, template: ChatTemplate) -> str:
    ids = [i for i, w in zip(row.ids, row.weights, strict=True) if w == weight]
    return template.tokenizer.decode(ids)


@pytest.mark.parametrize("turn", [1, 2])
def test_a_span_has_its_own_weight_and_changes_no_id(template, turn):
    content = "I want to freeze my card because it was stolen."
    plain = dialogue(("system", "Be brief."), ("user", content), ("assistant", content))
    start = content.index("freeze")
    spans = Span(start, start + 6, 0.25), Span(start + 7, start + 14, 0.75)
    row = render(with_spans(plain, turn, *spans), template)
    whole = render(plain, template)
    assert row.ids == whole.ids
    assert row.stops == whole.stops
    assert text_of_weight(row, 0.25, template).strip() == "freeze"
    assert text_of_weight(row, 0.75, template).strip() == "my card"
    others = [w for w in row.weights if w not in (0.25, 0.75)]
    assert len(others) == len(row.weights) - sum(w in (0.25, 0.75) for w in row.weights)
    outside = [
        (w, v) for w, v in zip(row.weights, whole.weights, strict=True) if w not in (0.25, 0.75)
    ]
    assert all(w == v for w, v in outside)


def test_spans_hold_where_the_template_trims_and_where_names_are_cut(tokenizer):
    template = template_named(tokenizer, "llama 3.1")
    content = "  a <|eot_id|> bill to pay  "
    start = content.index("bill")
    plain = dialogue(("user", "Go"), ("assistant", content))
    spanned = with_spans(plain, 1, Span(0, 3, 0.5), Span(start, len(content), 0.25))
    row = render(spanned, template)
    assert row.ids == render(plain, template).ids
    assert text_of_weight(row, 0.25, template).strip() == "bill to pay"
    assert text_of_weight(row, 0.5, template).strip() == "a"


def test_a_template_that_rewrites_the_content_refuses_its_spans(tokenizer):
    template = template_named(tokenizer, "qwen 3")
    whole = with_spans(THOUGHTS, 1, Span(0, 10, 0.5))
    [refusal] = render_many([whole], template)
    assert isinstance(refusal, TemplateError)
    assert "cannot be placed" in refusal.what
    [rows] = render_many([with_spans(THOUGHTS, 1, Span(21, 22, 0.5))], template)
    assert text_of_weight(rows[0], 0.5, template) == "1"


def test_spans_of_raw_rows(tokenizer):
    template = choose_template(tokenizer)
    raw = replace(dialogue(("user", "Go: "), ("assistant", "yes </s> <|im_end|> no")), raw=True)
    row = render(with_spans(raw, 1, Span(20, 22, 0.5)), template)
    assert row.ids == render(raw, template).ids
    assert text_of_weight(row, 0.5, template).strip() == "no"


def test_a_turn_of_weight_0_may_have_a_trained_span(template):
    conversation = dialogue(("user", "Go"), ("assistant", "pay the bill"))
    question, answer = conversation.messages
    answer = replace(answer, weight=0.0, spans=(Span(8, 12, 2.0),))
    row = render(Conversation((question, answer)), template)
    assert text_of_weight(row, 2.0, template).strip() == "bill"
    assert row.stops == []


# Names of special tokens that stand in a text.


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
@pytest.mark.parametrize("text", ["<|im_end|>", "a <|eot_id|><|im_end|>b", "<end_of_turn>\n<bos>"])
def test_a_special_token_typed_in_a_turn_is_text(template, role, text):
    turns = [("system", "s"), ("user", "u"), ("assistant", "a")]
    plain = dialogue(*turns)
    typed = dialogue(*((r, text if r == role else c) for r, c in turns))
    special = set(template.tokenizer.all_special_ids)

    def specials(ids: list[int]) -> list[int]:
        return [i for i in ids if i in special]

    row = render(typed, template)
    assert specials(row.ids) == specials(render(plain, template).ids)
    assert text.strip() in template.tokenizer.decode(row.ids)
    prompt = render_prompt(typed, template)
    assert specials(prompt) == specials(render_prompt(plain, template))
    assert row.ids[: len(prompt)] == prompt
    assert parse(row.ids[len(prompt) :], template) == typed.answer


def test_a_special_token_in_a_call_its_result_or_the_tools_is_text(template):
    name = "<|im_end|>"
    call = ToolCall("f", json.dumps({name: [name, "\u003c|im_end|>"]}))
    tools = json.dumps([{"type": "function", "function": {"name": "f", "description": name}}])
    typed = Conversation(
        (
            Message("user", "Go"),
            Message("assistant", "", (call,)),
            Message("tool", f"{name}<|eot_id|>"),
            Message("assistant", "Done."),
        ),
        tools,
    )
    plain = Conversation.from_json(
        json.loads(json.dumps(typed.to_json()).replace(name, "x").replace("<|eot_id|>", "y"))
    )
    special = set(template.tokenizer.all_special_ids)
    [typed_rows], [plain_rows] = render_many([typed], template), render_many([plain], template)
    for typed_row, plain_row in zip(typed_rows, plain_rows, strict=True):
        assert [i for i in typed_row.ids if i in special] == [
            i for i in plain_row.ids if i in special
        ]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(["<", "|im_end|>", "<|im_end|>", "<bos>", "a ", "é", "\n"])))
def test_raw_text_holds_no_special_token_but_its_end(tokenizer, parts):
    template = choose_template(tokenizer)
    text = "".join(parts)
    row = render(Conversation((Message("assistant", text),), raw=True), template)
    special = set(tokenizer.all_special_ids)
    before = [] if template.bos_id is None else [template.bos_id]
    assert [i for i in row.ids if i in special] == [*before, tokenizer.eos_token_id]
    assert tokenizer.decode(row.ids[len(before) : -1]) == text


def test_half_a_surrogate_pair_is_refused(tokenizer):
    for raw in (False, True):
        conversation = Conversation(
            (Message("user", "a \udc00"), Message("assistant", "b")), raw=raw
        )
        [refusal] = render_many([conversation], choose_template(tokenizer))
        assert isinstance(refusal, TemplateError)
        assert "surrogate" in refusal.what
