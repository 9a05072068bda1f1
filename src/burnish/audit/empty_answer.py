"""An answer that says nothing: nobody can learn from it, and a model would learn to say nothing."""

from __future__ import annotations

from burnish.store.answers import Answered
from burnish.types import Finding


def empty_answer(answered: Answered) -> Finding | None:
    """A finding where the answer in force is empty or white space and calls no tool."""
    answer = answered.conversation.answer
    if answered.status != "answered" or answer is None:
        return None
    if answer.content.strip() or answer.tool_calls:
        return None
    return Finding("empty_answer", (answered.example.id,), "the answer is empty", "exclude it")
