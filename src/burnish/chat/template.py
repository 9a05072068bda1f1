"""A tokenizer with the chat template in force: texts of turns, token ids of texts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from burnish.chat.marks import SpecialNames
from burnish.config import did_you_mean
from burnish.errors import TemplateError
from burnish.types import Message

TEMPLATES = ("chatml", "gemma", "plain")

# A base without a template gets the first default whose turn token its vocabulary holds.
_TURN_TOKENS = {"chatml": "<|im_start|>", "gemma": "<start_of_turn>"}
_EMPTY_THOUGHT = re.compile(r"<think>\s*</think>\s*")
_PROBE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})


class Request(NamedTuple):
    """Turns to be rendered as one text."""

    messages: Sequence[dict[str, Any]]
    """As `ChatTemplate.record` makes them."""
    tools: str | None
    """The tools on offer as a JSON list in text."""
    generation: bool
    """Whether the assistant's next turn is opened at the end."""


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
        ids = self.encode(self._apply_one(Request(_PROBE, None, False)).rstrip())
        if not ids or ids[-1] not in self._special_tokens:
            raise TemplateError(
                "assistant turns end without a stop token, so a tuned model would never stop",
                where=f"chat template {self.name}",
                do="end the turn with the tokenizer's end-of-turn token in the template, or use "
                f"--set template=NAME with one of {', '.join(TEMPLATES)}",
            )
        return tuple(
            dict.fromkeys(i for i in (ids[-1], self.tokenizer.eos_token_id) if i is not None)
        )

    @cached_property
    def bos_id(self) -> int | None:
        """The id the tokenizer itself puts before a text, or None if it puts none."""
        ids = self.tokenizer("a").input_ids
        bos: int | None = self.tokenizer.bos_token_id
        return bos if bos is not None and ids[0] == bos else None

    @cached_property
    def special_names(self) -> SpecialNames:
        """The special tokens as they would be spelt in a text."""
        # Llama 2's older tokenizers put a space before every text, whatever stands before it.
        apart = self.tokenizer.decode(self.encode("a") + self.encode("a"))
        return SpecialNames(self._special_tokens.values(), can_cut=apart.strip() == "aa")

    @cached_property
    def empty_thought(self) -> re.Pattern[str] | None:
        """What the template writes before an answer without thoughts, where it does (Qwen3)."""
        opened = self._apply_one(Request(_PROBE[:1], None, True))
        closed = self._apply_one(Request(_PROBE, None, False))
        return _EMPTY_THOUGHT if _EMPTY_THOUGHT.match(closed, len(opened)) else None

    @cached_property
    def _special_tokens(self) -> dict[int, str]:
        added = self.tokenizer.added_tokens_decoder.items()
        special = {i: str(token) for i, token in added if token.special}
        tokens = self.tokenizer.all_special_tokens
        named = self.tokenizer.convert_tokens_to_ids(tokens)
        return special | dict(zip(named, map(str, tokens), strict=True))

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
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for each text, in one call of a fast tokenizer."""
        anchor, length = self._anchor
        if anchor:
            texts = [anchor + text for text in texts]
        if not self.tokenizer.is_fast:
            encode = self.tokenizer.encode
            return [encode(text, add_special_tokens=False)[length:] for text in texts]
        # Without offsets and transformers' own lists, which cost a fifth of the tokenising.
        backend = self.tokenizer.backend_tokenizer
        if backend.truncation or backend.padding or backend.encode_special_tokens:
            self.tokenizer("a")  # sets aside what a tokenizer.json or an earlier call has set
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
        return [e.ids[length:] if length else e.ids for e in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens by their names."""
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def encode_with_begins(self, text: str) -> tuple[list[int], list[int]]:
        """Like `encode`, with the character at which each token begins, white space aside.

        Whether a word's token includes the space before it, and says so, differs by tokenizer.

        Raises:
            TemplateError: a slow tokenizer cannot tell.
        """
        if not self.tokenizer.is_fast:
            raise TemplateError(
                f"{type(self.tokenizer).__name__} cannot tell where a token begins",
                where=f"chat template {self.name}",
                do="leave out spans and weights on others' turns, or save the base with a fast "
                "tokenizer",
            )
        anchor, length = self._anchor
        encoded = self.tokenizer(
            anchor + text, add_special_tokens=False, return_offsets_mapping=True
        )
        begins = []
        for begin, end in encoded["offset_mapping"][length:]:
            begin, end = begin - len(anchor), end - len(anchor)
            blank = len(text[begin:end]) - len(text[begin:end].lstrip())
            begins.append(begin + blank if begin + blank < end else begin)
        return encoded["input_ids"][length:], begins

    def record(self, message: Message, edges: Sequence[int] = ()) -> dict[str, Any]:
        """A message in the form chat templates read, its texts marked (`marks`).

        Tool arguments are an object. `edges` are places in the content to be found again.

        Raises:
            TemplateError: a text holds what cannot be tokenised as text.
        """
        names = self.special_names
        try:
            record: dict[str, Any] = {
                "role": message.role,
                "content": names.mark(message.content, edges),
            }
            if message.tool_calls:
                record["tool_calls"] = [
                    {
                        "type": "function",
                        "id": call.id,
                        "function": {
                            "name": names.mark(call.name),
                            "arguments": names.mark_all(_object_or_text(call.arguments)),
                        },
                    }
                    for call in message.tool_calls
                ]
        except ValueError as error:
            raise TemplateError(
                f"a {message.role} turn holds {error}", do="take it out of the text"
            ) from None
        if message.tool_call_id is not None:
            record["tool_call_id"] = message.tool_call_id
        return record

    def apply(self, requests: Sequence[Request]) -> list[str | TemplateError]:
        """The template's text for each request, or the error why it cannot be rendered."""
        results: list[str | TemplateError] = [""] * len(requests)
        # One call renders many conversations, but only with the same tools.
        groups: dict[tuple[str | None, bool], list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault((request.tools, request.generation), []).append(number)
        for (tools, generation), numbers in groups.items():
            try:
                texts = self._apply([requests[n].messages for n in numbers], tools, generation)
                results_of: list[str | TemplateError] = [*texts]
            except Exception:  # one of them; which one shows when each is rendered alone
                results_of = [self._text_or_error(requests[n]) for n in numbers]
            for number, result in zip(numbers, results_of, strict=True):
                results[number] = result
        return results

    def _text_or_error(self, request: Request) -> str | TemplateError:
        try:
            return self._apply_one(request)
        except TemplateError as error:
            return error

    def _apply_one(self, request: Request) -> str:
        try:
            return self._apply([request.messages], request.tools, request.generation)[0]
        except Exception as error:
            # Templates raise whatever they like: Jinja errors, TypeErrors on a missing field.
            roles = ", ".join(message["role"] for message in request.messages)
            raise TemplateError(
                f"cannot render a conversation of {roles or 'no turns'}: {error}",
                where=f"chat template {self.name}",
                do="change those rows, or choose another template with --set template=NAME",
            ) from error

    def _apply(
        self, conversations: list[Sequence[dict[str, Any]]], tools: str | None, generation: bool
    ) -> list[str]:
        texts: list[str] = self.tokenizer.apply_chat_template(
            conversations,
            tools=self.special_names.mark_all(json.loads(tools)) if tools else None,
            chat_template=self.source,
            tokenize=False,
            add_generation_prompt=generation,
        )
        return texts


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


def _object_or_text(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def _shipped(name: str) -> str:
    file = resources.files("burnish") / "templates" / f"{name}.jinja"
    return file.read_text(encoding="utf-8")
