"""The laws of the bridge, for every template shipped. Run: pytest tests/test_chat.py"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

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
from tiny import tiny_base


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tiny_base(tmp_path_factory.mktemp("base"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # Every shipped template is tried on this one, so it must know Gemma's tokens too.
    tokenizer.add_special_tokens(
        {
            "bos_token": "<bos>",
            "extra_special_tokens": [
                "<|im_start|>",
                "<|im_end|>",
                "<start_of_turn>",
                "<end_of_turn>",
            ],
        }
    )
    return tokenizer


@pytest.fixture(params=TEMPLATES)
def template(request, tokenizer) -> ChatTemplate:
    return choose_template(tokenizer, request.param)


def dialogue(*turns: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Message(role, content) for role, content in turns))


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


# Each of these templates has a fault that trainers in use let through.
FAULTS = {
    "no stop token": (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}",
        "stop token",
    ),
    "the generation prompt differs from the trained turn": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}",
        "law 2",
    ),
    "two BOS tokens": (
        "{% for m in messages %}{{ bos_token }}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}{{ bos_token }}<|im_start|>assistant\n{% endif %}",
        "law 3",
    ),
    "earlier turns rendered differently": (
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


def test_the_shipped_templates_keep_the_laws(template):
    check_laws(template)


def test_an_unknown_template_names_the_nearest(tokenizer):
    with pytest.raises(TemplateError, match="did you mean 'chatml'"):
        choose_template(tokenizer, "chatlm")


def test_a_template_that_cannot_render_a_role_says_so(tokenizer):
    source = "{{ raise_exception('no system role') }}"
    with pytest.raises(TemplateError, match="no system role"):
        render(DIALOGUES[1], ChatTemplate(tokenizer, "strict", source))
