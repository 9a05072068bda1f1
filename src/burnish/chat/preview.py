"""What training will see of a conversation, shown while its answer is being written.

An annotator sees the tokens as they are made, where `max_length` cuts them off, and which are
trained; no tool we know shows this before training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from burnish.chat.render import Rendered, render_many
from burnish.chat.template import ChatTemplate
from burnish.errors import TemplateError
from burnish.types import Conversation

# What a decoder writes for bytes that are no whole character.
_REPLACEMENT = "\ufffd"
# A character is four bytes at most. A text may hold the replacement itself, thousands of them where
# an encoding went wrong, and waiting for their end would take quadratic time.
_LONGEST_PENDING = 16


@dataclass(frozen=True, slots=True)
class PreviewToken:
    """One token as a page shows it."""

    id: int
    text: str
    """Put together they are the rendered text. A character of several tokens stands with the last
    of them, and the others are empty."""
    weight: float
    """Loss weight as a target; a token is trained where it is not 0 and the token is kept."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A row of training: usually a whole conversation."""

    tokens: tuple[PreviewToken, ...]
    kept: int
    """How many of them training keeps; what comes after is cut off."""

    @property
    def count(self) -> int:
        """How many tokens there are, those that are cut off included."""
        return len(self.tokens)

    @property
    def trained(self) -> int:
        """How many tokens are supervised in training; with 0 the row would be refused."""
        return sum(token.weight != 0 for token in self.tokens[: self.kept])

    @property
    def is_truncated(self) -> bool:
        """Whether training would cut off the end, and the stop token with it."""
        return self.kept < self.count


def preview(conversation: Conversation, template: ChatTemplate, max_length: int) -> list[Preview]:
    """The conversation as `tune` trains on it with this template and `max_length` tokens.

    One row, or one for each trained turn where the template rewrites earlier turns (see
    `render_many`).

    Raises:
        TemplateError: it cannot be rendered; the message says why, and training would refuse it.
    """
    [rows] = render_many([conversation], template)
    if isinstance(rows, TemplateError):
        raise rows
    return [_shown(row, template, max_length) for row in rows]


def _shown(row: Rendered, template: ChatTemplate, max_length: int) -> Preview:
    texts = token_texts(row.ids, template)
    tokens = tuple(map(PreviewToken, row.ids, texts, row.weights))
    return Preview(tokens, min(len(tokens), max_length))


def token_texts(ids: Sequence[int], template: ChatTemplate) -> list[str]:
    """The text each token adds; put together, what the tokenizer decodes the ids to."""
    texts = []
    # Decoded behind the token before: SentencePiece drops the space before the first of a text.
    context = settled = 0
    for end in range(1, len(ids) + 1):
        text = template.decode(ids[context:end])
        pending = end - settled
        if text.endswith(_REPLACEMENT) and end < len(ids) and pending < _LONGEST_PENDING:
            texts.append("")
            continue
        texts.append(text[len(template.decode(ids[context:settled])) :])
        context, settled = settled, end
    return texts
