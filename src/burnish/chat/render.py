"""Conversations as token ids with loss weights: one renderer for training, scoring and serving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from burnish.chat.marks import CUT, take_edges
from burnish.chat.template import ChatTemplate
from burnish.chat.turns import Dialogue, Region, Row, span_edges, span_regions
from burnish.errors import TemplateError
from burnish.types import Conversation

# Conversations rendered and tokenised at once: large enough for the tokenizer's threads, small
# enough that memory stays that of the chunk.
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as tokens."""

    ids: list[int]
    """Token ids, (T,)."""
    weights: list[float]
    """Loss weight of each id as a target, (T,); the first is always 0."""
    stops: list[int]
    """Indices into `ids` of the stop tokens that end trained turns."""


def render_many(
    conversations: Iterable[Conversation], template: ChatTemplate
) -> Iterator[list[Rendered] | TemplateError]:
    """Render conversations for training or scoring, in order, one item for each.

    An item is a list of rows, usually one. Where the template rewrites a trained turn once others
    follow it (Qwen3 takes the thoughts out of earlier answers), it is one row per trained turn,
    each as that turn is served; the rows begin alike, which a forest computes once. A conversation
    that cannot be rendered is an error, given and not raised.

    A conversation that ends with another role than the assistant is rendered as it stands, without
    an opened turn; `render_prompt` opens one.
    """
    stream = iter(conversations)
    before: tuple[_Chunk, Future[list[list[int]]]] | None = None
    # While the tokenizer's threads work on one chunk, Python renders the next: a fifth of the time.
    with ThreadPoolExecutor(1) as pool:
        while some := list(islice(stream, _CHUNK)):
            chunk = _pieces_of(some, template, generation=False)
            encoding = pool.submit(_encode, chunk, template)
            if before is not None:
                yield from _assemble_chunk(before[0], before[1].result(), template)
            before = chunk, encoding
        if before is not None:
            yield from _assemble_chunk(before[0], before[1].result(), template)


def render(conversation: Conversation, template: ChatTemplate) -> Rendered:
    """`render_many` for one conversation that is one row.

    Raises:
        TemplateError: it cannot be rendered, or is several rows.
    """
    rows = _render_one(conversation, template, generation=False)
    if len(rows) > 1:
        raise TemplateError(
            "the template rewrites earlier answers, so this conversation is several rows",
            where=f"chat template {template.name}",
            do="render it with render_many, or give the earlier answers weight 0",
        )
    return rows[0]


def render_prompt(conversation: Conversation, template: ChatTemplate) -> list[int]:
    """Ids of the conversation with the assistant's next turn opened: what a model is asked.

    A final assistant turn is left out, so the same call serves requests and held-out examples.

    Raises:
        TemplateError: it cannot be rendered.
    """
    [row] = _render_one(conversation.prompt, template, generation=True)
    return row.ids


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a rendering that is tokenised by itself."""

    text: str
    weight: float
    regions: Sequence[Region] = ()
    """In characters of `text`."""
    ends_turn: bool = False
    before: Sequence[int] = ()
    """Ids put before those of the text, with weight 0."""
    after: Sequence[int] = ()
    """Ids put behind those of the text, with the piece's weight."""


_Chunk = list[list[list[_Piece]] | TemplateError]
"""For each conversation its rows, each as pieces."""


def _render_one(
    conversation: Conversation, template: ChatTemplate, *, generation: bool
) -> list[Rendered]:
    chunk = _pieces_of([conversation], template, generation=generation)
    [rows] = _assemble_chunk(chunk, _encode(chunk, template), template)
    if isinstance(rows, TemplateError):
        raise rows
    return rows


def _encode(chunk: _Chunk, template: ChatTemplate) -> list[list[int]]:
    """The ids of every part of every piece of which only the ids are needed, in order."""
    parts = [
        part
        for rows in chunk
        if not isinstance(rows, TemplateError)
        for pieces in rows
        for piece in pieces
        if not piece.regions
        for part in piece.text.split(CUT)
    ]
    return template.encode_many(parts) if parts else []


def _assemble_chunk(
    chunk: _Chunk, encoded: Iterable[list[int]], template: ChatTemplate
) -> Iterator[list[Rendered] | TemplateError]:
    encoded = iter(encoded)
    for rows in chunk:
        if isinstance(rows, TemplateError):
            yield rows
            continue
        # Every piece is taken from `encoded`, also behind one that is refused.
        rendered = [_assemble(pieces, encoded, template) for pieces in rows]
        refusals = [row for row in rendered if isinstance(row, TemplateError)]
        yield refusals[0] if refusals else [row for row in rendered if isinstance(row, Rendered)]


def _pieces_of(
    conversations: Sequence[Conversation], template: ChatTemplate, *, generation: bool
) -> _Chunk:
    """Each conversation as rows of pieces, all rendered in few calls of the template."""
    dialogues: list[Dialogue | TemplateError | None] = []
    requests = []
    for conversation in conversations:
        dialogue: Dialogue | TemplateError | None = None
        if not conversation.raw:
            dialogue = Dialogue(conversation, template, generation)
            try:
                requests += dialogue.requests
            except TemplateError as error:
                dialogue = error
        dialogues.append(dialogue)
    texts = iter(template.apply(requests))
    chunk: _Chunk = []
    for conversation, dialogue in zip(conversations, dialogues, strict=True):
        try:
            if dialogue is None:
                chunk.append([_raw_pieces(conversation, template)])
            elif isinstance(dialogue, TemplateError):
                chunk.append(dialogue)
            else:
                answers = list(islice(texts, len(dialogue.requests)))
                chunk.append([_row_pieces(row) for row in dialogue.rows(answers)])
        except TemplateError as error:
            chunk.append(error)
    return chunk


def _row_pieces(row: Row) -> list[_Piece]:
    """The text cut at the borders of assistant turns (law 2)."""
    pieces = []
    position = 0
    for turn in row.turns:
        weight = row.weights.get(turn.number, 0.0)
        pieces.append(_piece(row, position, turn.start, 0.0))
        pieces.append(_piece(row, turn.start, turn.end, weight, ends_turn=True))
        position = turn.end
    pieces.append(_piece(row, position, len(row.text), 0.0))
    return [piece for piece in pieces if piece.text or piece.ends_turn]


def _piece(row: Row, start: int, end: int, weight: float, *, ends_turn: bool = False) -> _Piece:
    if not row.regions:
        return _Piece(row.text[start:end], weight, (), ends_turn)
    regions = [
        Region(max(r.start, start) - start, min(r.end, end) - start, r.weight)
        for r in row.regions
        if r.start < end and r.end > start
    ]
    return _Piece(row.text[start:end], weight, regions, ends_turn)


def _raw_pieces(conversation: Conversation, template: ChatTemplate) -> list[_Piece]:
    """Prompt ids, answer ids, stop token, each tokenised apart; BOS if the tokenizer puts one."""
    pieces = []
    before = [] if template.bos_id is None else [template.bos_id]
    for message in conversation.messages:
        marked: str = template.record(message, span_edges(message))["content"]
        text, places = take_edges(marked)
        regions = span_regions(message, places)
        is_answer = message.role == "assistant"
        after = [_raw_stop(template)] if is_answer else []
        pieces.append(_Piece(text, message.loss_weight, regions, is_answer, before, after))
        before = []
    return pieces or [_Piece("", 0.0, before=before)]


def _raw_stop(template: ChatTemplate) -> int:
    eos: int | None = template.tokenizer.eos_token_id
    return eos if eos is not None else template.stop_ids[0]


def _assemble(
    pieces: Sequence[_Piece], encoded: Iterator[list[int]], template: ChatTemplate
) -> Rendered | TemplateError:
    """The pieces of a row as one, with the weights of their tokens."""
    ids: list[int] = []
    weights: list[float] = []
    stops: list[int] = []
    refusal = None
    for piece in pieces:
        ids += piece.before
        weights += [0.0] * len(piece.before)
        first = len(ids)
        if piece.regions:
            begins = []
            for offset, part in _parts(piece.text):
                part_ids, part_begins = template.encode_with_begins(part)
                ids += part_ids
                begins += [offset + begin for begin in part_begins]
            weights += [_weight_at(begin, piece) for begin in begins]
        else:
            for _ in range(piece.text.count(CUT) + 1):
                ids += next(encoded)
            weights += [piece.weight] * (len(ids) - first)
        ids += piece.after
        weights += [piece.weight] * len(piece.after)
        if piece.ends_turn and piece.weight:
            if len(ids) == first or ids[-1] not in template.stop_ids:
                refusal = _no_stop(piece, template)
            stops.append(len(ids) - 1)
    if weights:
        weights[0] = 0.0  # nothing comes before the first token, so nothing predicts it
    return refusal or Rendered(ids, weights, stops)


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """The parts of a text between cuts, each with the character it begins at."""
    offset = 0
    for part in text.split(CUT):
        yield offset, part
        offset += len(part) + len(CUT)


def _weight_at(begin: int, piece: _Piece) -> float:
    """A token's weight is that of the place it begins at, so that weights never change the ids."""
    inside = (r.weight for r in reversed(piece.regions) if r.start <= begin < r.end)
    return next(inside, piece.weight)


def _no_stop(piece: _Piece, template: ChatTemplate) -> TemplateError:
    return TemplateError(
        f"the trained turn {piece.text[-40:]!r} does not end with a stop token (law 3)",
        where=f"chat template {template.name}",
        do="end assistant turns with the end-of-turn token in the template",
    )
