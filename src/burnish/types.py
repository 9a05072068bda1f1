"""Every noun that crosses a stage. Frozen values, standard library only.

A value knows nothing of where it is kept: rows belong to `store`, files to `project`. Identity is
the hash of canonical JSON (`hashing`), so the same record has the same id on every machine.

    Source --collect--> Example --label--> Annotation --audit--> Finding
    Example + Annotation --snapshot--> Snapshot --tune--> Checkpoint --evaluate--> Score, Report
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

from burnish.hashing import canonical_json, content_hash, text_hash

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")

AnnotationStatus = Literal["submitted", "skipped", "flagged", "withdrawn"]
ArtefactKind = Literal["snapshot", "checkpoint", "report"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call an assistant turn makes."""

    name: str
    arguments: str
    """The arguments as a JSON object in text, kept as written."""
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a message's content with a loss weight of its own."""

    start: int
    """First character of the content, counted from 0."""
    end: int
    """The character after the last."""
    weight: float


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    weight: float | None = None
    """Loss weight of the turn; None means 1 for the assistant and 0 for everyone else."""
    tool_call_id: str | None = None
    """For the role `tool`: the id of the call it answers."""
    spans: tuple[Span, ...] = ()
    """Parts with a loss weight other than the turn's; in order, not overlapping."""

    def rewrite(self, change: Callable[[str], str]) -> Message:
        """The message with its content changed, part by part so that spans stay on their words."""
        edges = [edge for span in self.spans for edge in (span.start, span.end)]
        borders = [0, *edges, len(self.content)]
        parts = [change(self.content[left:right]) for left, right in pairwise(borders)]
        ends = list(accumulate(map(len, parts)))
        spans = (
            Span(start, end, span.weight)
            for start, end, span in zip(ends[::2], ends[1::2], self.spans, strict=False)
            if start < end
        )
        return replace(self, content="".join(parts), spans=tuple(spans))

    @property
    def is_trained(self) -> bool:
        """Whether any of its tokens has a loss weight."""
        return bool(self.loss_weight) or any(span.weight for span in self.spans)

    @property
    def loss_weight(self) -> float:
        """The weight in force, with the default applied."""
        if self.weight is not None:
            return self.weight
        return 1.0 if self.role == "assistant" else 0.0


@dataclass(frozen=True)
class Conversation:
    """What is trained on, evaluated and served: the one input type of the tensor world."""

    messages: tuple[Message, ...]
    tools: str | None = None
    """The tools on offer as a JSON list in text, in the form chat templates take."""
    raw: bool = False
    """Rendered without a chat template: prompt ids, answer ids, stop token."""

    @property
    def prompt(self) -> Conversation:
        """The conversation up to, without, a final assistant turn."""
        if self.messages and self.messages[-1].role == "assistant":
            return Conversation(self.messages[:-1], self.tools, self.raw)
        return self

    @property
    def answer(self) -> Message | None:
        """The final assistant turn, or None while the conversation waits for one."""
        if self.messages and self.messages[-1].role == "assistant":
            return self.messages[-1]
        return None

    def answered(self, content: str) -> Conversation:
        """The same prompt with `content` as the assistant's answer."""
        messages = (*self.prompt.messages, Message("assistant", content))
        return Conversation(messages, self.tools, self.raw)

    def as_chat(self) -> Conversation:
        """A raw prompt and answer as turns of a chat; a plain text has no turns and stays raw."""
        if not self.raw or len(self.messages) < 2:
            return self
        return Conversation(self.messages, self.tools)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON in OpenAI's message form; fields at their default are left out."""
        record: dict[str, Any] = {"messages": [_message_to_json(m) for m in self.messages]}
        if self.tools is not None:
            record["tools"] = self.tools
        if self.raw:
            record["raw"] = True
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Conversation:
        """Inverse of `to_json`; input of other people's making goes through `records`."""
        messages = tuple(_message_from_json(m) for m in record["messages"])
        return cls(messages, record.get("tools"), record.get("raw", False))

    @cached_property
    def canonical(self) -> str:
        """Canonical JSON of the conversation, kept: it is hashed, stored and written out."""
        return canonical_json(self.to_json())

    @cached_property
    def hash(self) -> str:
        """Content hash of the conversation alone: equal texts are equal, whoever sent them."""
        return text_hash(self.canonical)


def _message_to_json(message: Message) -> dict[str, Any]:
    record: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        record["tool_calls"] = [
            {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.weight is not None:
        record["weight"] = message.weight
    if message.tool_call_id is not None:
        record["tool_call_id"] = message.tool_call_id
    if message.spans:
        record["spans"] = [
            {"start": span.start, "end": span.end, "weight": span.weight} for span in message.spans
        ]
    return record


def _message_from_json(record: Mapping[str, Any]) -> Message:
    calls = tuple(
        ToolCall(call["function"]["name"], call["function"]["arguments"], call.get("id"))
        for call in record.get("tool_calls", ())
    )
    return Message(
        record["role"],
        record["content"],
        calls,
        record.get("weight"),
        record.get("tool_call_id"),
        tuple(Span(**span) for span in record.get("spans", ())),
    )


@dataclass(frozen=True)
class Example:
    """One record, as received: a conversation and what is known about it."""

    conversation: Conversation
    source: str
    """Where it came from: a file's name, a URL, `feedback`."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    """Loss weight of the whole example, multiplied with each turn's."""
    licence: str | None = None
    consent: str | None = None
    subject_ids: tuple[str, ...] = ()
    """Whose personal data it holds; `burnish forget` finds the record by these."""
    received_at: str | None = None
    """ISO 8601 in UTC."""
    parent: str | None = None
    """The example this one is an edit of; an edit is a new example."""

    @cached_property
    def canonical_metadata(self) -> str:
        """Canonical JSON of the metadata, kept: it is checked, stored and written out."""
        return canonical_json(dict(self.metadata))

    @cached_property
    def id(self) -> str:
        """Content hash (32 hex digits) of what was received and from where.

        Not of `received_at`, `licence` and `consent`: a file collected again, later or with other
        words about it, adds nothing. The people it is about stay in: one text of two people is two
        records, or `burnish forget` would miss one of them.
        """
        return content_hash(
            {
                "conversation": self.conversation.hash,
                "source": self.source,
                "metadata": dict(self.metadata),
                "weight": self.weight,
                "subject_ids": list(self.subject_ids),
                "parent": self.parent,
            }
        )


@dataclass(frozen=True, slots=True)
class Annotation:
    """One person's answer to one task on one example."""

    example_id: str
    task: str
    """The task's name in `burnish.toml`; `answer` for the ideal answer."""
    answer: str
    annotator: str
    client_id: str
    """Made by the client before it sends: a submit tried twice is one row."""
    guideline_version: str = ""
    """Hash of the guidelines the annotator had before them; empty for imported labels."""
    seconds: float | None = None
    status: AnnotationStatus = "submitted"
    created_at: str | None = None
    """ISO 8601 in UTC."""
    draft_id: str | None = None
    """The draft the annotator began from."""
    edit_distance: float | None = None
    """How far the answer is from that draft: 0 as it was, 1 nothing of it left."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit check has to say about some examples."""

    check: str
    """The check's name, such as `exact_duplicate`."""
    example_ids: tuple[str, ...]
    message: str
    fix: str | None = None
    """What `burnish audit --fix` does about it; None when a person must decide."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """Something immutable on disk, named by its content, that lists what it was made from."""

    id: str
    """`<kind>-` and 16 hex digits of the content hash."""
    path: Path
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot(Artefact):
    """Examples frozen for training: one Parquet file per split and a manifest."""

    examples: Mapping[str, int]
    """How many examples each split holds."""


@dataclass(frozen=True, slots=True)
class Checkpoint(Artefact):
    """A model folder that `transformers` (and `peft`, for adapters) opens by itself."""

    metrics: Mapping[str, Any]
    """What the run measured: the JSON object that `--json` prints."""


@dataclass(frozen=True, slots=True)
class Score:
    """One model's result on one item."""

    item_id: str
    value: float | None
    """None means unscored (the reference is missing, the check failed); never counted as zero."""
    answer: str
    expected: str


@dataclass(frozen=True, slots=True)
class Report(Artefact):
    """A comparison of a candidate with its base on the same items: one HTML file and JSON."""

    results: Mapping[str, Any]
