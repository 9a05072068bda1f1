"""Where the turns lie in a rendered conversation, found by rendering its beginnings.

Nothing is searched for as a string and no template is edited: the text before an answer is what the
template renders when that answer is still to come, and the text up to its end is what it renders
when that answer is the last (unslothai/unsloth#1128, huggingface/trl#4879). A whole that does not
begin with these has a turn the template rewrites: that turn is never guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from burnish.chat.marks import EDGE, take_edges
from burnish.chat.template import ChatTemplate, Request
from burnish.errors import TemplateError
from burnish.types import Conversation, Message

Beginning = tuple[int, bool]
"""The first n messages, and whether the assistant's next turn is opened after them."""


@dataclass(frozen=True, slots=True)
class Turn:
    """An assistant turn inside a rendered text."""

    number: int
    """Which message of the conversation it is."""
    start: int
    """Where the answer begins in the text: after the opened turn."""
    end: int
    """After the answer's stop token; white space after that is left out."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a rendered text with a loss weight of its own."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True, slots=True)
class Row:
    """A rendered text and what is trained in it."""

    text: str
    turns: list[Turn]
    """The assistant turns that stand in the text as they were generated, in order."""
    weights: Mapping[int, float]
    """Loss weight of each turn, by its number; a turn left out has none."""
    regions: list[Region]
    """Loss weights inside and outside the turns; a later region stands over an earlier one."""


@dataclass(frozen=True)
class Dialogue:
    """A conversation on its way through the template: what it asks for, then the rows it gives."""

    conversation: Conversation
    template: ChatTemplate
    generation: bool
    """Whether the assistant's next turn is opened at the end."""

    @cached_property
    def beginnings(self) -> list[Beginning]:
        """What must be rendered to know where the turns lie: the whole first."""
        messages = self.conversation.messages
        needed = [(len(messages), self.generation)]
        for n, message in enumerate(messages):
            if message.role == "assistant":
                needed += [(n, True), (n + 1, False)]
            elif message.loss_weight and not self.generation:
                needed += [(n, False), (n + 1, False)] if n else [(1, False)]
        return list(dict.fromkeys(needed))

    @cached_property
    def requests(self) -> list[Request]:
        """The beginnings as the template is asked for them.

        Raises:
            TemplateError: a text holds what cannot be tokenised as text.
        """
        records = [self.template.record(message) for message in self.conversation.messages]
        tools = self.conversation.tools
        return [Request(records[:n], tools, generation) for n, generation in self.beginnings]

    def rows(self, answers: Sequence[str | TemplateError]) -> list[Row]:
        """The conversation as texts to be tokenised; `answers` are the template's to `requests`.

        One row, or one for each trained turn where the template rewrites a trained turn once others
        follow it, as Qwen3's does with thoughts: the row ends with that turn, as it was served.

        Raises:
            TemplateError: the template cannot render it, or breaks law 2 on it.
        """
        texts = self._texts(answers)
        whole = texts[self.beginnings[0]]
        turns = self._turns(whole, texts)
        messages = self.conversation.messages
        assistants = [n for n, m in enumerate(messages) if m.role == "assistant"]
        trained = [n for n in assistants if messages[n].is_trained]
        if self.generation or {turn.number for turn in turns}.issuperset(trained):
            return [self._row(whole, turns, range(len(messages)), texts)]
        rows = []
        # Each row trains what no earlier row has trained, so that nothing counts twice.
        for previous, n in pairwise([-1, *trained]):
            text = texts[n + 1, False]
            turns = self._turns(text, texts)
            if not turns or turns[-1].number != n:
                raise TemplateError(
                    f"turn {n + 1} does not begin with the turn the template opens (law 2)",
                    where=f"chat template {self.template.name}",
                    do="mend the template's generation prompt, or choose another template with "
                    "--set template=NAME",
                )
            rows.append(self._row(text, turns, range(previous + 1, n + 1), texts))
        return rows

    def _texts(self, answers: Sequence[str | TemplateError]) -> dict[Beginning, str]:
        texts: dict[Beginning, str] = {}
        for beginning, answer in zip(self.beginnings, answers, strict=True):
            if isinstance(answer, str):
                texts[beginning] = answer
            elif beginning != (0, True) or not self.conversation.messages:
                raise answer
        if self.conversation.messages and (0, True) in self.beginnings:
            closed = texts[1, False]
            if not closed.startswith(texts.get((0, True), EDGE)):
                texts[0, True] = self._opening(closed)
        return texts

    def _opening(self, closed: str) -> str:
        """What stands before the answer that opens a conversation, found by a mark.

        Many templates cannot open a turn before there is any message.
        """
        places = self._places(closed, 0, [0])
        if places is None:
            raise TemplateError(
                "cannot tell where the answer begins that opens the conversation",
                where=f"chat template {self.template.name}",
                do="put a user's turn before it",
            )
        return closed[: places[0]]

    def _turns(self, text: str, texts: Mapping[Beginning, str]) -> list[Turn]:
        turns = []
        for n, message in enumerate(self.conversation.messages):
            if message.role != "assistant":
                continue
            opened, closed = texts[n, True], texts[n + 1, False].rstrip()
            if not (text.startswith(closed) and closed.startswith(opened)):
                continue
            answer = closed[len(opened) :]
            if message.tool_calls and not all(c.name in answer for c in message.tool_calls):
                raise TemplateError(
                    f"turn {n + 1} calls a tool and the template does not write the call",
                    where=f"chat template {self.template.name}",
                    do="choose a template that writes tool calls with --set template=NAME",
                )
            turns.append(Turn(n, len(opened), len(closed)))
        return turns

    def _row(
        self, text: str, turns: list[Turn], counted: range, texts: Mapping[Beginning, str]
    ) -> Row:
        """A row in which only the `counted` messages have loss weights."""
        messages = self.conversation.messages
        weights = {n: messages[n].loss_weight for n in counted}
        if self.generation:
            return Row(text, turns, weights, [])
        regions = []
        for n in counted:
            if messages[n].role != "assistant" and messages[n].loss_weight:
                regions.append(self._message_region(text, n, texts))
            if messages[n].spans:
                regions += self._span_regions(text, n, counted.stop)
        return Row(text, turns, weights, regions)

    def _message_region(self, text: str, n: int, texts: Mapping[Beginning, str]) -> Region:
        """Where a turn of another than the assistant lies.

        Rare: language modelling of the requests beside the task, as in GPT (Radford et al., 2018).
        """
        before, upto = texts[n, False] if n else "", texts[n + 1, False]
        if not (text.startswith(upto) and upto.startswith(before)):
            raise TemplateError(
                f"turn {n + 1} is weighted, and is rendered differently once others follow it",
                where=f"chat template {self.template.name}",
                do="leave out its weight, or choose another template with --set template=NAME",
            )
        return Region(len(before), len(upto), self.conversation.messages[n].loss_weight)

    def _span_regions(self, text: str, n: int, length: int) -> list[Region]:
        """Where the spans of message `n` lie, in the text of the first `length` messages."""
        message = self.conversation.messages[n]
        first = len(message.content) - len(message.content.lstrip())
        last = len(message.content.rstrip())
        kept = span_edges(message)
        # Many templates trim a content; white space at its ends then belongs to no span.
        trimmed = [min(max(edge, first), last) for edge in kept]
        for edges in (kept, trimmed):
            places = self._places(text, n, edges, length)
            if places is not None:
                return span_regions(message, places)
        raise TemplateError(
            f"the spans of turn {n + 1} cannot be placed: the template rewrites its content",
            where=f"chat template {self.template.name}",
            do="leave out the spans, or choose another template with --set template=NAME",
        )

    def _places(self, text: str, n: int, edges: Sequence[int], length: int = 1) -> list[int] | None:
        """Where places in the content of message `n` come to lie in `text`.

        Found by rendering it once more with a mark at each; None where the marks change the text.
        """
        messages: Sequence[Message] = self.conversation.messages[:length]
        records = [self.template.record(m, edges if i == n else ()) for i, m in enumerate(messages)]
        [marked] = self.template.apply([Request(records, self.conversation.tools, False)])
        if not isinstance(marked, str):
            return None
        unmarked, places = take_edges(marked)
        return places if unmarked == text and len(places) == len(edges) else None


def span_edges(message: Message) -> list[int]:
    """Both ends of each span of a message, in characters of its content."""
    return [edge for span in message.spans for edge in (span.start, span.end)]


def span_regions(message: Message, places: Sequence[int]) -> list[Region]:
    """The spans of a message where their edges have come to lie."""
    pairs = zip(places[::2], places[1::2], message.spans, strict=True)
    return [Region(start, end, span.weight) for start, end, span in pairs]
