"""Which format a file is in, told from its first rows, and how a row becomes an example."""

from __future__ import annotations

import datetime
import decimal
import difflib
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from burnish.config import did_you_mean
from burnish.errors import InputError
from burnish.records import exports
from burnish.records.messages import (
    UnfitError,
    from_json_text,
    loss_weight,
    openai_conversation,
    sharegpt_conversation,
    text_of,
)
from burnish.records.pairs import (
    PAIRS,
    alpaca_conversation,
    pair_columns,
    pair_conversation,
    text_conversation,
    waiting_conversation,
)
from burnish.types import Conversation, Example

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """A way of writing conversations as rows."""

    name: str
    columns: tuple[tuple[str, ...], ...]
    """Sets of columns, one of which a row has whole."""
    convert: Callable[[Values], Conversation]
    """Raises UnfitError where the row does not fit after all."""
    used: Callable[[Values], Iterable[str]]
    """The columns `convert` has taken in; the others become metadata."""
    is_shape: Callable[[Values], bool] = lambda _: True
    """What else tells the format, where columns alone would not."""
    own: Callable[[Values], Values] = lambda values: values
    """The row without what people and models answered, of which nothing becomes metadata."""
    guessed: bool = True

    def fits(self, values: Values) -> bool:
        """Whether a row is in this format."""
        if not self.has_columns(values) or not self.is_shape(values):
            return False
        try:
            self.convert(values)
        except UnfitError:
            return False
        return True

    def has_columns(self, values: Values) -> bool:
        """Whether a row has one of the sets of columns."""
        return any(all(map(values.__contains__, columns)) for columns in self.columns)


def example_of(format_: Format, values: Values, source: str) -> Example:
    """The row as an example.

    Raises:
        UnfitError: with the reason.
    """
    if format_.name == "burnish":
        example = _burnish_example(values, source)
    else:
        used = {*format_.used(values), "loss_weight"}
        weight = values.get("loss_weight")
        example = Example(
            format_.convert(values),
            source,
            {
                k: _plain(k, v)
                for k, v in format_.own(values).items()
                if k and k not in used and _is_there(v)
            },
            1.0 if weight is None else loss_weight(weight),
        )
    _check_unicode(example)
    return example


def recognise(rows: Sequence[Values], where: str) -> Format:
    """The first format that fits more than half of a file's first rows.

    Raises:
        InputError: none does; names the columns, the nearest format and what it lacks.
    """
    for format_ in FORMATS:
        if format_.guessed and 2 * sum(map(format_.fits, rows)) > len(rows):
            return format_
    raise InputError(
        f"unknown format: the columns are {', '.join(map(repr, rows[0]))}{_nearest(rows[0])}",
        where=where,
        do="rename the columns, or name the format with --as; docs/collect.md has an example "
        f"of each: {', '.join(f.name for f in FORMATS)}",
    )


def format_named(name: str) -> Format:
    """The format of this name.

    Raises:
        InputError: there is none.
    """
    known = {format_.name: format_ for format_ in FORMATS}
    if name not in known:
        raise InputError(f"there is no format {name!r}{did_you_mean(name, known)}", where="--as")
    return known[name]


def _nearest(values: Values) -> str:
    """The format that most of is there, or nearly there, and what keeps the row from fitting."""

    def nearness(choice: tuple[Format, tuple[str, ...]]) -> float:
        here = (1.0 if c in values else 0.8 * bool(_similar(c, values)) for c in choice[1])
        return sum(here) / len(choice[1])

    choices = [(f, columns) for f in FORMATS if f.guessed for columns in f.columns]
    format_, columns = max(choices, key=nearness)
    if not nearness((format_, columns)):
        return "; none of them is a format's; the plainest format is 'text', with a column 'text'"
    lacking = [
        f"{c!r}" + "".join(f" (there is {near!r})" for near in _similar(c, values))
        for c in columns
        if c not in values
    ]
    why = f"it lacks {', '.join(lacking)}"
    if not lacking:
        try:
            format_.convert(values)
            why = "fewer than half of the first rows fit"
        except UnfitError as error:
            why = str(error)
    return f"; the nearest format is {format_.name!r}, but {why}"


def _similar(column: str, values: Values) -> list[str]:
    """The column that is spelt almost so, or else one that has the word in it: `full_text`."""
    having = [name for name in values if column in name.lower().split("_")]
    return difflib.get_close_matches(column, list(values), 1, 0.8) or having[:1]


def _is_there(value: Any) -> bool:
    # pandas writes a missing value as NaN.
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _plain(name: str, value: Any) -> Any:
    """A value of the metadata as JSON can hold it."""
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(name, v) for k, v in value.items() if _is_there(v)}
    if isinstance(value, (list, tuple)):
        return [_plain(name, v) if _is_there(v) else None for v in value]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, datetime.timedelta, uuid.UUID)):
        return str(value)
    raise UnfitError(f"only text can be kept: column {name!r} holds {type(value).__name__}")


def _check_unicode(example: Example) -> None:
    """Refuse half a surrogate pair: JSON may spell it, but no UTF-8 text can hold it."""
    texts = [example.canonical_metadata, example.conversation.tools or ""]
    for message in example.conversation.messages:
        texts.append(message.content)
        texts += [text for call in message.tool_calls for text in (call.name, call.arguments)]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise UnfitError("half a Unicode surrogate pair") from None


def _burnish_conversation(values: Values) -> Conversation:
    record = from_json_text(values["conversation"])
    if not isinstance(record, Mapping):
        raise UnfitError("'conversation' is not an object with messages")
    conversation = openai_conversation(record.get("messages"), record.get("tools"))
    # Tools we wrote ourselves stay as they are, to the byte.
    tools = record["tools"] if isinstance(record.get("tools"), str) else conversation.tools
    return replace(conversation, tools=tools, raw=bool(record.get("raw", False)))


def _burnish_example(values: Values, source: str) -> Example:
    """A row of a snapshot, with what it says about itself."""
    metadata = from_json_text(values.get("metadata")) or {}
    subjects = values.get("subject_ids") or []
    if not isinstance(metadata, Mapping) or not isinstance(subjects, list):
        raise UnfitError("'metadata' is not an object, or 'subject_ids' not a list")
    weight, licence, consent = (values.get(key) for key in ("weight", "licence", "consent"))
    return Example(
        _burnish_conversation(values),
        text_of(values.get("source") or source, "source"),
        {key: _plain(key, v) for key, v in metadata.items() if _is_there(v)},
        1.0 if weight is None else loss_weight(weight),
        licence=None if licence is None else text_of(licence, "licence"),
        consent=None if consent is None else text_of(consent, "consent"),
        subject_ids=tuple(text_of(subject, "subject_ids") for subject in subjects),
    )


def _used_by_alpaca(values: Values) -> Iterable[str]:
    detail = "input" if "input" in values else "context"
    answer = "output" if "output" in values else "response"
    return ("instruction", detail, answer, "system", "history")


# The order decides where a row would fit several: from the most particular to the most general.
FORMATS: tuple[Format, ...] = (
    Format("burnish", (("conversation",),), _burnish_conversation, lambda _: ("conversation",)),
    Format(
        "label_studio",
        (("data", "annotations"), ("data", "predictions")),
        exports.label_studio_conversation,
        lambda _: (),
        exports.is_label_studio,
        exports.label_studio_own,
    ),
    Format(
        "argilla",
        (("fields", "responses"),),
        exports.argilla_conversation,
        lambda _: (),
        exports.is_argilla,
        exports.argilla_own,
    ),
    Format(
        "prodigy",
        (("text", "_input_hash"), ("text", "_task_hash")),
        exports.line_conversation,
        lambda _: (),
        exports.is_prodigy,
        exports.prodigy_own,
    ),
    Format(
        "doccano",
        (("text", "label"), ("text", "entities", "relations"), ("text", "entities", "cats")),
        exports.line_conversation,
        lambda _: ("text", "messages"),
        exports.is_doccano,
        exports.doccano_own,
    ),
    Format(
        "labels",
        (("prompt", "answer", "annotator"),),
        exports.label_row_conversation,
        lambda _: (),
        own=exports.label_row_own,
    ),
    Format(
        "messages",
        (("messages",),),
        lambda values: openai_conversation(values["messages"], values.get("tools")),
        lambda _: ("messages", "tools"),
    ),
    Format(
        "sharegpt",
        (("conversations",),),
        lambda values: sharegpt_conversation(
            values["conversations"], values.get("system"), values.get("tools")
        ),
        lambda _: ("conversations", "system", "tools"),
    ),
    Format(
        "alpaca",
        (("instruction", "output"), ("instruction", "response"), ("instruction",)),
        alpaca_conversation,
        _used_by_alpaca,
    ),
    Format(
        "prompt_completion",
        (*PAIRS, ("prompt",)),
        pair_conversation,
        lambda values: filter(None, pair_columns(values)),
    ),
    Format("text", (("text",),), text_conversation, lambda _: ("text",)),
    Format(
        "prompt",
        (("prompt",), ("text",)),
        waiting_conversation,
        lambda values: ("prompt",) if "prompt" in values else ("text",),
        guessed=False,
    ),
)
