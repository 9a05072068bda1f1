"""An answer that repeats the turn before it: a column read twice, or a draft nobody edited."""

from __future__ import annotations

from burnish.records.fingerprint import normalised
from burnish.store.answers import Answered
from burnish.types import Finding


def answer_equals_prompt(answered: Answered) -> Finding | None:
    """A finding where the answer is the last turn before it, but for case and white space."""
    answer, prompt = answered.conversation.answer, answered.conversation.prompt.messages
    if answered.status != "answered" or answer is None or not prompt:
        return None
    if not answer.content.strip() or normalised(answer.content) != normalised(prompt[-1].content):
        return None
    message = "the answer repeats the prompt"
    return Finding("answer_equals_prompt", (answered.example.id,), message)
