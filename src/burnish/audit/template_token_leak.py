"""A chat template's own tokens inside a text: data that was rendered once already.

A model tuned on it writes the marks into its answers, and a tokenizer that reads them as special
tokens cuts the turn short.
"""

from __future__ import annotations

import re

from burnish.store.answers import Answered
from burnish.types import Finding

# ChatML, Llama 2 and 3, Gemma, Mistral, Phi, GPT-2's end of text. `<s>` is left out: it is HTML.
_MARKS = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|begin_of_text|end_of_text|start_header_id"
    r"|end_header_id|system|user|assistant|end)\|>"
    r"|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|</s>"
)


def template_token_leak(answered: Answered) -> Finding | None:
    """A finding where any turn holds such a mark; names the first."""
    for message in answered.conversation.messages:
        found = _MARKS.search(message.content)
        if found:
            what = f"the {message.role} turn holds {found[0]!r}, a mark of a chat template"
            return Finding("template_token_leak", (answered.example.id,), what)
    return None
