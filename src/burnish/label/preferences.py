"""Preference pairs from labelling: which of two answers people hold for better.

    {"prompt": [turns], "chosen": [turn], "rejected": [turn], "example_id": ...,
     "annotation_ids": [...], "draft_ids": [...]}

The form that TRL's DPOTrainer reads; of rows that are rendered raw, prompt, chosen and rejected are
plain strings, TRL's other form. Two sources:

- A draft that somebody edited: the edited answer is chosen, the draft rejected. What differs by
  white space alone says nothing.
- A ranking: every ordered pair of it, ties left out, as InstructGPT was trained on all K(K-1)/2
  comparisons of a ranking (Ouyang et al., 2022, section 3.5). Adjacent pairs alone would never set
  the best against the worst, the clearest comparison there is. Who wants each ranking to weigh the
  same finds its pairs by their `annotation_ids`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

from burnish.errors import InputError
from burnish.files import replaced_file
from burnish.label.destination import is_device
from burnish.label.drafts import PARTS
from burnish.progress import progress
from burnish.records.answers import applied, candidates_of
from burnish.records.messages import openai_messages
from burnish.store import Connection, Store
from burnish.store.answers import Given, annotated_after, read_given
from burnish.store.drafts import Draft, read_drafts
from burnish.store.labelled import examples_by_id
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example

_ENDINGS = (".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one prompt, and what the choice between them rests on."""

    prompt: Conversation
    chosen: str
    rejected: str
    example_id: str
    annotation_ids: tuple[str, ...]
    """Client ids of the annotations."""
    draft_ids: tuple[str, ...]
    """The drafts among the two answers."""


@dataclass(frozen=True, slots=True)
class _Judgement:
    """An answer in force, and the annotations it rests on."""

    answer: str
    annotations: tuple[Annotation, ...]


def export_preferences(store: Store, task: Task, path: Path) -> int:
    """Write the task's preference pairs as JSON lines and return how many there are.

    Streaming; the file appears whole or not at all. All rows have one form, as readers of JSON
    lines expect: raw ones become chats where there are chats among them.

    Raises:
        InputError: `path` is no pipe or device and ends in neither .jsonl nor .ndjson.
    """
    if not is_device(path) and path.suffix.lower() not in _ENDINGS:
        raise InputError(
            f"pairs are JSON lines, and the ending is {path.suffix!r}",
            where=str(path),
            do=f"end it in {' or '.join(_ENDINGS)}",
        )
    with replaced_file(path) as temporary, store.reading() as connection:
        # Ends at the first chat.
        as_chat = any(not pair.prompt.raw for pair in read_preferences(connection, task))
        return _write(connection, task, temporary, path.name, as_chat=as_chat)


def read_preferences(connection: Connection, task: Task) -> Iterator[Preference]:
    """Every pair, in the examples' order of arrival, streaming.

    Of each annotator the newest answer counts. Gold, and a resolution, outweigh the answers they
    settle; where nothing has settled it, each answer counts by itself. An excluded example gives
    none, nor does one that a flag is up on.

    Raises:
        InputError: an answer is of another kind than the task's.
    """
    last = 0
    while page := annotated_after(connection, task.name, last):
        last = max(page.values())
        given = read_given(connection, task.name, page)
        drafts = read_drafts(connection, task.name, page)
        examples = examples_by_id(connection, page)
        for example_id in page:
            for judgement in _judgements(given[example_id]):
                own = drafts.get(example_id, [])
                yield from _pairs(examples[example_id], judgement, task, own)


def _judgements(given: Given) -> list[_Judgement]:
    if (answer := given.settled_answer) is not None:
        return [_Judgement(answer, given.submitted)]
    if given.is_flagged:
        return []
    return [_Judgement(a.answer, (a,)) for a in given.submitted]


def _pairs(
    example: Example, judgement: _Judgement, task: Task, drafts: Sequence[Draft]
) -> Iterator[Preference]:
    if task.kind == "rank":
        return _ranked(example, judgement, task, drafts)
    if task.kind in PARTS:
        return iter(())
    return _edited(example, judgement, drafts)


def _edited(
    example: Example, judgement: _Judgement, drafts: Sequence[Draft]
) -> Iterator[Preference]:
    """The answer over each draft that somebody made it from."""
    for draft in drafts:
        begun = tuple(a.client_id for a in judgement.annotations if a.draft_id == draft.id)
        if begun and _differ(judgement.answer, draft.text):
            yield Preference(
                example.conversation.prompt,
                judgement.answer,
                draft.text,
                example.id,
                begun,
                (draft.id,),
            )


def _ranked(
    example: Example, judgement: _Judgement, task: Task, drafts: Sequence[Draft]
) -> Iterator[Preference]:
    """Each candidate over every one that stands below it."""
    candidates = candidates_of(example, drafts)
    applied(example, judgement.answer, task, candidates)  # refuses what is no ranking
    ids = {draft.text: draft.id for draft in drafts}
    basis = tuple(a.client_id for a in judgement.annotations)
    for better, worse in combinations(json.loads(judgement.answer), 2):
        for chosen, rejected in product(better, worse):
            pair = candidates[chosen], candidates[rejected]
            if _differ(*pair):
                drafted = tuple(ids[text] for text in pair if text in ids)
                yield Preference(example.conversation.prompt, *pair, example.id, basis, drafted)


def _differ(answer: str, other: str) -> bool:
    """Whether two texts differ by more than white space."""
    return answer.split() != other.split()


def _write(connection: Connection, task: Task, path: Path, name: str, *, as_chat: bool) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        pairs = read_preferences(connection, task)
        for pair in progress(pairs, f"exporting {name}", unit=" pairs"):
            count += 1
            file.write(json.dumps(_row(pair, as_chat=as_chat), ensure_ascii=False) + "\n")
    return count


def _row(pair: Preference, *, as_chat: bool) -> dict[str, Any]:
    row: dict[str, Any]
    if not as_chat:
        text = "".join(message.content for message in pair.prompt.messages)
        row = {"prompt": text, "chosen": pair.chosen, "rejected": pair.rejected}
    else:
        row = {
            "prompt": openai_messages(pair.prompt.messages),
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
        }
    if pair.prompt.tools is not None:
        row["tools"] = pair.prompt.tools
    lineage = {"annotation_ids": list(pair.annotation_ids), "draft_ids": list(pair.draft_ids)}
    return row | {"example_id": pair.example_id} | lineage
