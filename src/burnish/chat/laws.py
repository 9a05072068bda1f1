"""The laws of the bridge, checked on the base at hand before a run."""

from __future__ import annotations

from burnish.chat.parse import parse
from burnish.chat.render import render, render_prompt
from burnish.chat.template import ChatTemplate
from burnish.errors import TemplateError
from burnish.types import Conversation, Message

_PROBES = (
    Conversation((Message("user", "Hello"), Message("assistant", "Good morning."))),
    Conversation(
        (
            Message("user", "One?"),
            Message("assistant", "1", weight=0.0),
            Message("user", "Two?"),
            Message("assistant", "2\n\nand more"),
        )
    ),
)


def check_laws(template: ChatTemplate) -> None:
    """Check the laws on probe conversations with the base at hand.

    Raises:
        TemplateError: naming the law broken and what to do.
    """
    where = f"chat template {template.name}"
    for probe in _PROBES:
        rendered = render(probe, template)
        prompt = render_prompt(probe, template)
        if rendered.ids[: len(prompt)] != prompt:
            raise TemplateError(
                "the prompt is not a prefix of prompt plus answer (law 2)",
                where=where,
                do="mend the template's generation prompt, or choose another template",
            )
        bos = template.tokenizer.bos_token_id
        if bos is not None and bos not in template.stop_ids and rendered.ids.count(bos) > 1:
            raise TemplateError(
                f"{rendered.ids.count(bos)} BOS tokens in one conversation (law 3)",
                where=where,
                do="drop {{ bos_token }} from all but the template's start",
            )
        assert probe.answer is not None
        answer = parse(rendered.ids[len(prompt) :], template).content
        if answer != probe.answer.content:
            raise TemplateError(
                f"the answer {probe.answer.content!r} reads back as {answer!r} (law 4)",
                where=where,
                do="the template must not add text between the opened turn and the answer",
            )
