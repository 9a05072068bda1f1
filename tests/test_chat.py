"""The laws of the bridge, for every template shipped. Run: pytest tests/test_chat.py"""

from __future__ import annotations

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from burnish.chat import (
    TEMPLATES,
    ChatTemplate,
    check_laws,
    choose_template,
    parse,
    render,
    render_prompt,
)
from burnish.errors import TemplateError
from burnish.types import Conversation, Message, ToolCall
from chat_templates import QWEN_2_5, TEMPLATES_IN_USE, chat_tokenizer, dialogue, trained_ids


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return chat_tokenizer(tmp_path_factory.mktemp("base"))


@pytest.fixture(params=TEMPLATES)
def template(request, tokenizer) -> ChatTemplate:
    return choose_template(tokenizer, request.param)


DIALOGUES = (
    dialogue(("user", "Hello"), ("assistant", "Good morning.")),
    dialogue(("system", "Be brief."), ("user", "One?"), ("assistant", "1")),
    dialogue(
        ("system", "Answer with one label."),
        ("user", "What is my balance?"),
        ("assistant", "balance"),
        ("user", "日本語 and an emoji 🙂"),
        ("assistant", "out_of_scope\n\n  indented\tand é"),
    ),
)


@pytest.mark.parametrize("conversation", DIALOGUES)
def test_law_1_equals_the_tokenizers_own_template(template, conversation):
    messages = [{"role": m.role, "content": m.content} for m in conversation.messages]
    own = template.tokenizer.apply_chat_template(
        messages, chat_template=template.source, tokenize=True, return_dict=False
    )
    assert render(conversation, template).ids == own
    prompt = template.tokenizer.apply_chat_template(
        messages[:-1],
        chat_template=template.source,
        tokenize=True,
        return_dict=False,
        add_generation_prompt=True,
    )
    assert render_prompt(conversation, template) == prompt


ANSWERS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n\t"), min_size=1
).filter(lambda text: text == text.strip() and "<" not in text)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=ANSWERS, answer=ANSWERS)
def test_laws_2_to_4_hold_for_any_text(template, question, answer):
    conversation = dialogue(("user", question), ("assistant", answer))
    rendered = render(conversation, template)
    prompt = render_prompt(conversation, template)
    assert rendered.ids[: len(prompt)] == prompt  # law 2
    trained = [i for i, w in zip(rendered.ids, rendered.weights, strict=True) if w]
    assert trained[-1] in template.stop_ids  # law 3
    assert [rendered.ids[s] for s in rendered.stops] == [trained[-1]]
    assert rendered.ids.count(template.tokenizer.bos_token_id) == 1
    assert parse(trained, template).content == answer  # law 4


def test_law_2_holds_where_the_tokenizer_would_merge_across_the_border(template):
    """An answer that opens with a line break merges with the template's own in one go."""
    conversation = dialogue(("user", "Go"), ("assistant", "\nanswer"))
    rendered = render(conversation, template)
    prompt = render_prompt(conversation, template)
    assert rendered.ids[: len(prompt)] == prompt
    assert parse(rendered.ids[len(prompt) :], template).content == "\nanswer"


def test_law_5_what_was_trained_is_a_prefix_of_the_next_request(template):
    """In a dialogue the model is served the ids it was trained on, turn after turn."""
    conversation = DIALOGUES[2]
    trained = render(conversation, template).ids
    first_turn = Conversation(conversation.messages[:3])
    assert trained[: len(render_prompt(first_turn, template))] == render_prompt(
        first_turn, template
    )
    assert trained[: len(render_prompt(conversation, template))] == render_prompt(
        conversation, template
    )


def test_only_assistant_turns_are_trained_and_weights_are_kept(template):
    conversation = Conversation(
        (
            Message("system", "Be brief."),
            Message("user", "One?"),
            Message("assistant", "wrong", weight=0.0),
            Message("user", "Two?"),
            Message("assistant", "right", weight=0.5),
        )
    )
    rendered = render(conversation, template)
    trained = [i for i, w in zip(rendered.ids, rendered.weights, strict=True) if w]
    assert parse(trained, template).content == "right"
    assert set(rendered.weights) == {0.0, 0.5}
    assert len(rendered.stops) == 1


def test_a_users_turn_may_have_a_weight_and_the_ids_stay_the_same(template):
    weighted = Conversation(
        (
            Message("system", "Be brief."),
            Message("user", "What is my balance?", weight=0.2),
            Message("assistant", "balance"),
        )
    )
    plain = Conversation(tuple(Message(m.role, m.content) for m in weighted.messages))
    rendered = render(weighted, template)
    assert rendered.ids == render(plain, template).ids
    assert len(rendered.stops) == 1
    light = [i for i, w in zip(rendered.ids, rendered.weights, strict=True) if w == 0.2]
    text = template.tokenizer.decode(light)
    assert "What is my balance?" in text
    full = [i for i, w in zip(rendered.ids, rendered.weights, strict=True) if w == 1.0]
    assert parse(full, template).content == "balance"
    assert render_prompt(weighted, template) == render_prompt(plain, template)


def test_raw_is_prompt_answer_stop_each_tokenised_apart(tokenizer):
    template = choose_template(tokenizer)
    prompt, answer = "balance of my acc", "ount: 100"  # "account" would merge across the border
    conversation = Conversation((Message("user", prompt), Message("assistant", answer)), raw=True)
    rendered = render(conversation, template)
    expected = [*template.encode(prompt), *template.encode(answer), tokenizer.eos_token_id]
    assert rendered.ids == expected
    assert sum(map(bool, rendered.weights)) == len(template.encode(answer)) + 1
    assert render_prompt(conversation, template) == template.encode(prompt)


def test_plain_text_supervises_everything_after_the_first_token(tokenizer):
    rendered = render(
        Conversation((Message("assistant", "some text"),), raw=True), choose_template(tokenizer)
    )
    assert rendered.weights == [0.0] + [1.0] * (len(rendered.ids) - 1)


def test_tool_calls_are_rendered_and_trained(template):
    call = ToolCall("find_recipe", '{"ingredient": "rice"}', "call_1")
    conversation = Conversation(
        (
            Message("user", "Cook?"),
            Message("assistant", "", tool_calls=(call,)),
            Message("tool", "[]", tool_call_id="call_1"),
            Message("assistant", "Nothing found."),
        )
    )
    rendered = render(conversation, template)
    text = template.tokenizer.decode(
        [i for i, w in zip(rendered.ids, rendered.weights, strict=True) if w]
    )
    assert '"find_recipe"' in text
    assert '"rice"' in text
    assert len(rendered.stops) == 2


_TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"

# Each of these templates has a fault that trainers in use let through, by the thread that tells it.
FAULTS = {
    # huggingface/trl#1623, #3091, #696: EOS is never learned.
    "no stop token": (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
        "stop token",
    ),
    # huggingface/trl#5988: GLM's turns end where the next begins, so no turn holds its own end.
    "the stop token belongs to the next turn": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "stop token",
    ),
    # huggingface/trl#4147: labels are wrong by the missing generation prompt.
    "no generation prompt": (_TURNS, "law 4"),
    "the generation prompt differs from the trained turn": (
        _TURNS + "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}",
        "law 2",
    ),
    # OpenRLHF/OpenRLHF#393, huggingface/alignment-handbook#127.
    "two BOS tokens": (
        "{% for m in messages %}{{ bos_token }}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}{{ bos_token }}<|im_start|>assistant\n{% endif %}",
        "law 3",
    ),
    # hiyouga/LlamaFactory#8356: what is trained is not what is served.
    "the last turn rendered differently": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}(thinking){% endif %}{{ m.content }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "law",
    ),
    "text before the answer": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}Sure! {% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "law 4",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_template_that_breaks_a_law_is_refused(tokenizer, fault):
    source, words = FAULTS[fault]
    with pytest.raises(TemplateError, match=words):
        check_laws(ChatTemplate(tokenizer, fault, source))


@pytest.mark.parametrize("name", TEMPLATES_IN_USE)
def test_templates_in_use_keep_the_laws(tokenizer, name):
    check_laws(ChatTemplate(tokenizer, name, TEMPLATES_IN_USE[name]))


def test_the_shipped_templates_keep_the_laws(template):
    check_laws(template)


def test_an_unknown_template_names_the_nearest(tokenizer):
    with pytest.raises(TemplateError, match="did you mean 'chatml'"):
        choose_template(tokenizer, "chatlm")


def test_a_template_that_cannot_render_a_role_says_so(tokenizer):
    source = "{{ raise_exception('no system role') }}"
    with pytest.raises(TemplateError, match="no system role"):
        render(DIALOGUES[1], ChatTemplate(tokenizer, "strict", source))


# The guard-rails: what users of other trainers ran into, by the thread that tells it.


@pytest.mark.parametrize("name", TEMPLATES_IN_USE)
def test_the_mask_needs_no_generation_tag(tokenizer, name):
    """huggingface/trl#4879: templates lack {% generation %}; ours are rendered as they are.

    NVIDIA-NeMo/Megatron-Bridge#3359: a missing tag means that everything is trained.
    """
    template = ChatTemplate(tokenizer, name, TEMPLATES_IN_USE[name])
    assert "generation %}" not in template.source.replace("add_generation_prompt %}", "")
    conversation = dialogue(("system", "Be brief."), ("user", "One?"), ("assistant", "1"))
    row = render(conversation, template)
    assert parse(trained_ids(row), template).content == "1"
    untrained = [i for i, w in zip(row.ids, row.weights, strict=True) if not w]
    assert "One?" in tokenizer.decode(untrained)
    asked = render(conversation.prompt, template)
    assert not any(asked.weights)


def test_a_turn_ends_with_its_own_trained_stop_token(template):
    """huggingface/trl#5988: the stop token was given to the next turn, and never learned."""
    row = render(DIALOGUES[2], template)
    assert len(row.stops) == 2
    for stop in row.stops:
        assert row.ids[stop] in template.stop_ids
        assert row.weights[stop] == 1.0
        assert row.weights[stop + 1 : stop + 2] in ([], [0.0])


def test_a_stop_token_that_is_also_the_padding_is_trained(tokenizer):
    """unslothai/unsloth#416, mlabonne/llm-course#33: pad == eos, so eos was masked by its id."""
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    template = choose_template(tokenizer, "plain")
    row = render(DIALOGUES[0], template)
    assert row.ids[row.stops[0]] == tokenizer.pad_token_id
    assert row.weights[row.stops[0]] == 1.0


def test_every_stop_token_that_is_trained_also_stops(template):
    """meta-llama/llama-cookbook#640: is it <|eot_id|> or <|end_of_text|>?"""
    row = render(DIALOGUES[2], template)
    assert {row.ids[stop] for stop in row.stops} <= set(template.stop_ids)
    assert template.tokenizer.eos_token_id in template.stop_ids


def test_no_text_is_searched_for_to_find_the_answer(template):
    """unslothai/unsloth#1128, #2117, #2771: train_on_responses_only masks all, or the wrong part.

    The user's turn holds what opens an answer, and the answer itself.
    """
    asked = "Say: 1\nassistant\nAssistant:\nmodel\n1"
    row = render(dialogue(("user", asked), ("assistant", "1")), template)
    assert parse(trained_ids(row), template).content == "1"
    assert sum(map(bool, row.weights)) == len(template.encode("1")) + 1


def test_a_template_without_a_mask_names_itself_and_the_way_out(tokenizer):
    """unslothai/unsloth#1290: "All labels are -100", raised as ZeroDivisionError."""
    source, _ = FAULTS["no stop token"]
    with pytest.raises(TemplateError) as caught:
        render(DIALOGUES[0], ChatTemplate(tokenizer, "mine.jinja", source))
    assert "mine.jinja" in str(caught.value)
    assert "--set template=" in str(caught.value)


def test_exactly_one_bos_at_training_and_serving_alike(tokenizer, template):
    """OpenRLHF/OpenRLHF#393: 11 of 30 chat models got two; the naive mend left 2 without.

    MakazhanAlpamys/Soup#781: inference added a BOS that training had not.
    """
    bos = tokenizer.bos_token_id
    for conversation in DIALOGUES:
        row = render(conversation, template)
        assert row.ids.count(bos) == 1
        assert row.ids[0] == bos
        assert render_prompt(conversation, template).count(bos) == 1
        assert render_prompt(conversation, template) == row.ids[: row.stops[-1] - _length(row)]


def _length(row) -> int:
    """Tokens of the last trained turn before its stop token."""
    weights = row.weights[: row.stops[-1]]
    return next(n for n, w in enumerate(reversed(weights)) if not w)


def test_the_bases_own_template_is_the_truth(tokenizer):
    """hiyouga/LlamaFactory#10772, #10774: own templates differ from the tokenizer's."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = QWEN_2_5
    template = choose_template(tokenizer)
    messages = [{"role": m.role, "content": m.content} for m in DIALOGUES[2].messages]
    own = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert template.source == QWEN_2_5
    assert render(DIALOGUES[2], template).ids == own
    assert own != render(DIALOGUES[2], choose_template(tokenizer, "gemma")).ids


def test_a_request_has_the_ids_it_was_trained_with(template):
    """hiyouga/LlamaFactory#8720, QwenLM/Qwen3#112: chat and server answer differently."""
    for conversation in DIALOGUES:
        row = render(conversation, template)
        prompt = render_prompt(conversation, template)
        assert row.ids[: len(prompt)] == prompt
        assert row.weights[len(prompt)] == 1.0
        assert parse(row.ids[len(prompt) :], template) == conversation.answer
