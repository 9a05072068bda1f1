"""The bridge: where words become tokens and tokens become words again.

Training, evaluation and serving all render through this module. Its laws, tested for every template
shipped (tests/test_chat.py) and checked on the base at hand by `check_laws` before a run:

1. Our rendering equals the tokenizer's own chat template, id for id. A base without a template gets
   a named default, stored in the checkpoint.
2. The rendered prompt is an id-prefix of the rendered prompt plus answer. Text is tokenised apart
   at the border of each assistant turn, at training and at serving alike, so no token can merge
   across it. (Where a tokenizer would merge, law 2 wins over law 1.)
3. Each trained turn ends with a trained stop token, and there is exactly one BOS where the base
   expects one.
4. parse(render(answer)) == answer.
5. What is served is rendered by the same function, so served ids equal trained ids.

The mask is derived by rendering turn prefixes, never by searching for strings and never by editing
the template (unslothai/unsloth#1128, huggingface/trl#4879).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from burnish.config import did_you_mean
from burnish.errors import TemplateError
from burnish.types import Conversation, Message

TEMPLATES = ("chatml", "gemma", "plain")

# A base without a template gets the first default whose turn token its vocabulary holds.
_TURN_TOKENS = {"chatml": "<|im_start|>", "gemma": "<start_of_turn>"}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as tokens."""

    ids: list[int]
    """Token ids, (T,)."""
    weights: list[float]
    """Loss weight of each id as a target, (T,); the first is always 0."""
    stops: list[int]
    """Indices into `ids` of the stop tokens that end trained turns."""


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer with the chat template in force and the tokens that end a turn."""

    tokenizer: Any
    """A `transformers` tokenizer; nothing here needs torch."""
    name: str
    """`tokenizer` for the base's own, the name of a default, or the path of a file."""
    source: str
    """The Jinja text; saved with the checkpoint, so that what is trained is what is served."""

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a turn: the template's own stop token first, then EOS.

        Raises:
            TemplateError: assistant turns end without any special token (law 3).
        """
        probe = Conversation((Message("user", "a"), Message("assistant", "b")))
        _, turns = _turns(probe, self)
        stop = self._stop_at_end(turns[0].answer)
        if stop is None:
            raise TemplateError(
                "assistant turns end without a stop token, so a tuned model would never stop",
                where=f"chat template {self.name}",
                do="end the turn with the tokenizer's end-of-turn token in the template, or use "
                f"--set template=NAME with one of {', '.join(TEMPLATES)}",
            )
        eos = self.tokenizer.eos_token_id
        return (stop,) if eos is None or eos == stop else (stop, eos)

    @cached_property
    def bos_id(self) -> int | None:
        """The id the tokenizer itself puts before a text, or None if it puts none."""
        ids = self.tokenizer("a").input_ids
        bos: int | None = self.tokenizer.bos_token_id
        return bos if bos is not None and ids[0] == bos else None

    @cached_property
    def _anchor(self) -> tuple[str, int]:
        """A special token to put before a piece so that no dummy space is added, and its length.

        SentencePiece tokenizers prefix a text with a space; a piece from the middle of a rendering
        must not get one.
        """
        token = self.tokenizer.bos_token or self.tokenizer.eos_token
        if token is None:
            return "", 0
        anchored = self.tokenizer.encode(token + "a", add_special_tokens=False)
        alone = self.tokenizer.encode("a", add_special_tokens=False)
        return ("", 0) if anchored[1:] == alone else (token, 1)

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of rendered text; special tokens in it count as such."""
        anchor, length = self._anchor
        ids: list[int] = self.tokenizer.encode(anchor + text, add_special_tokens=False)
        return ids[length:]

    def encode_with_begins(self, text: str) -> tuple[list[int], list[int]]:
        """Like `encode`, with the character at which each token begins."""
        anchor, length = self._anchor
        encoded = self.tokenizer(
            anchor + text, add_special_tokens=False, return_offsets_mapping=True
        )
        begins = [begin - len(anchor) for begin, _ in encoded["offset_mapping"][length:]]
        return encoded["input_ids"][length:], begins

    def apply(self, messages: Sequence[Message], tools: str | None, *, generation: bool) -> str:
        """The template's text for these turns; `generation` opens the assistant's next turn."""
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [_to_template(m) for m in messages],
                    tools=json.loads(tools) if tools else None,
                    chat_template=self.source,
                    tokenize=False,
                    add_generation_prompt=generation,
                )
            )
        except Exception as error:
            # Templates raise whatever they like: Jinja errors, TypeErrors on a missing field.
            roles = ", ".join(m.role for m in messages)
            raise TemplateError(
                f"cannot render a conversation of {roles}: {error}",
                where=f"chat template {self.name}",
                do="change those rows, or choose another template with --set template=NAME",
            ) from error

    def _stop_at_end(self, text: str) -> int | None:
        """The special token that closes `text`, white space after it aside."""
        ids = self.encode(text.rstrip())
        return ids[-1] if ids and ids[-1] in self._special_ids else None

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        special = set(self.tokenizer.all_special_ids)
        special.update(i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special)
        return frozenset(special)


def choose_template(tokenizer: Any, name: str = "auto") -> ChatTemplate:
    """The template to use with a tokenizer.

    `name` is `auto` (the tokenizer's own, else the default its vocabulary fits), one of
    `TEMPLATES`, or the path of a Jinja file.

    Raises:
        TemplateError: no such template.
    """
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if name == "auto" and own:
        return ChatTemplate(tokenizer, "tokenizer", own)
    if name == "auto":
        vocabulary = tokenizer.get_vocab()
        fitting = (n for n, token in _TURN_TOKENS.items() if token in vocabulary)
        name = next(fitting, "plain")
    if name in TEMPLATES:
        return ChatTemplate(tokenizer, name, _shipped(name))
    path = Path(name)
    if path.is_file():
        return ChatTemplate(tokenizer, str(path), path.read_text(encoding="utf-8"))
    raise TemplateError(
        f"there is no chat template {name!r}{did_you_mean(name, ('auto', *TEMPLATES))}",
        do="give one of those names or the path of a Jinja file",
    )


def render(conversation: Conversation, template: ChatTemplate) -> Rendered:
    """Render a conversation for training or scoring: ids and the loss weight of each as a target.

    A conversation that ends with another role than the assistant is rendered as it stands, without
    an opened turn; `render_prompt` opens one.

    Raises:
        TemplateError: the template breaks law 2 or 3 on this conversation.
    """
    ids: list[int] = []
    weights: list[float] = []
    stops: list[int] = []
    for piece in _pieces(conversation, template):
        ids += piece.ids
        weights += piece.weights
        if piece.ends_turn and piece.weights[-1]:
            stops.append(len(ids) - 1)
    if weights:
        weights[0] = 0.0  # nothing comes before the first token, so nothing predicts it
    return Rendered(ids, weights, stops)


def render_prompt(conversation: Conversation, template: ChatTemplate) -> list[int]:
    """Ids of the conversation with the assistant's next turn opened: what a model is asked.

    A final assistant turn is left out, so the same call serves requests and held-out examples.
    """
    prompt = conversation.prompt
    return [i for piece in _pieces(prompt, template, generation=True) for i in piece.ids]


def parse(ids: Sequence[int], template: ChatTemplate) -> Message:
    """The assistant's message in generated ids, read up to the first stop token."""
    end = next((n for n, i in enumerate(ids) if i in template.stop_ids), len(ids))
    text = template.tokenizer.decode(
        list(ids[:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return Message("assistant", text)


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


@dataclass(frozen=True, slots=True)
class _Turn:
    """An assistant turn inside a rendered text."""

    start: int
    """Where the answer begins in the text: after the opened turn."""
    answer: str
    """The answer with its stop token, white space after it left out."""
    weight: float


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a rendering that is tokenised by itself."""

    ids: list[int]
    weights: list[float]
    ends_turn: bool = False


def _pieces(
    conversation: Conversation, template: ChatTemplate, *, generation: bool = False
) -> list[_Piece]:
    """The rendering cut at the borders of assistant turns."""
    if conversation.raw:
        return _raw_pieces(conversation, template)
    text, turns = _turns(conversation, template, generation=generation)
    spans = _weighted_spans(conversation, template)
    pieces: list[_Piece] = []
    position = 0
    for turn in turns:
        pieces.append(_between(text, position, turn.start, spans, template))
        ids = template.encode(turn.answer)
        if turn.weight and (not ids or ids[-1] not in template.stop_ids):
            raise TemplateError(
                f"the trained turn {turn.answer[-40:]!r} does not end with a stop token (law 3)",
                where=f"chat template {template.name}",
                do="end assistant turns with the end-of-turn token in the template",
            )
        pieces.append(_Piece(ids, [turn.weight] * len(ids), ends_turn=True))
        position = turn.start + len(turn.answer)
    if position < len(text):
        pieces.append(_between(text, position, len(text), spans, template))
    return pieces


def _weighted_spans(
    conversation: Conversation, template: ChatTemplate
) -> list[tuple[int, int, float]]:
    """Where turns of others than the assistant that have a loss weight lie: (start, end, weight).

    Rare: language modelling of the requests beside the task, as in GPT (Radford et al., 2018).
    """
    spans = []
    messages, tools = conversation.messages, conversation.tools
    for n, message in enumerate(messages):
        if message.role != "assistant" and message.loss_weight:
            before = template.apply(messages[:n], tools, generation=False) if n else ""
            upto = template.apply(messages[: n + 1], tools, generation=False)
            spans.append((len(before), len(upto), message.loss_weight))
    return spans


def _between(
    text: str,
    start: int,
    end: int,
    spans: list[tuple[int, int, float]],
    template: ChatTemplate,
) -> _Piece:
    """The text between assistant turns: weight 0 but where a span gives another.

    A token's weight is that of the place it begins at, so that weights never change the ids.
    """
    if not spans:
        ids = template.encode(text[start:end])
        return _Piece(ids, [0.0] * len(ids))
    ids, begins = template.encode_with_begins(text[start:end])
    weights = [
        next((weight for first, last, weight in spans if first <= start + begin < last), 0.0)
        for begin in begins
    ]
    return _Piece(ids, weights)


def _raw_pieces(conversation: Conversation, template: ChatTemplate) -> list[_Piece]:
    """Prompt ids, answer ids, stop token, each tokenised apart; BOS if the tokenizer puts one."""
    pieces = []
    if template.bos_id is not None:
        pieces.append(_Piece([template.bos_id], [0.0]))
    for message in conversation.messages:
        ids = template.encode(message.content)
        if message.role == "assistant":
            ids.append(_raw_stop(template))
        weights = [message.loss_weight] * len(ids)
        pieces.append(_Piece(ids, weights, ends_turn=message.role == "assistant"))
    return pieces


def _raw_stop(template: ChatTemplate) -> int:
    eos: int | None = template.tokenizer.eos_token_id
    return eos if eos is not None else template.stop_ids[0]


def _turns(
    conversation: Conversation, template: ChatTemplate, *, generation: bool = False
) -> tuple[str, list[_Turn]]:
    """The whole text and where each assistant turn lies in it, found by rendering prefixes."""
    messages, tools = conversation.messages, conversation.tools
    text = template.apply(messages, tools, generation=generation)
    turns = []
    for n, message in enumerate(messages):
        if message.role != "assistant":
            continue
        opened = template.apply(messages[:n], tools, generation=True)
        closed = template.apply(messages[: n + 1], tools, generation=False).rstrip()
        if not (text.startswith(closed) and closed.startswith(opened)):
            raise TemplateError(
                f"turn {n + 1} is rendered differently once other turns follow it (law 2)",
                where=f"chat template {template.name}",
                do="train the last turn alone (weight 0 on the earlier ones does not help here: "
                "split the dialogue), or choose another template with --set template=NAME",
            )
        turns.append(_Turn(len(opened), closed[len(opened) :], message.loss_weight))
    return text, turns


def _to_template(message: Message) -> dict[str, Any]:
    """A message in the form chat templates read: tool arguments as an object."""
    record: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        record["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.name, "arguments": _object_or_text(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        record["tool_call_id"] = message.tool_call_id
    return record


def _object_or_text(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _shipped(name: str) -> str:
    file = resources.files("burnish") / "templates" / f"{name}.jinja"
    return file.read_text(encoding="utf-8")
