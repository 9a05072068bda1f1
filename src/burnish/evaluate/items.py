"""The items of an evaluation: checked, cut into slices, and compared with the training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass

from burnish.config import did_you_mean
from burnish.errors import ConfigError, InputError
from burnish.records.fingerprint import prompt_fingerprint
from burnish.types import Conversation, Example

# A field with more values than this groups nothing, and the page would be one long table.
_MOST_SLICES = 50


@dataclass(frozen=True, slots=True)
class Item:
    """One question put to both models."""

    id: str
    """The example's id; the models' answers are paired by it."""
    prompt: Conversation
    expected: str | None
    """The reference: the final assistant turn; None where there is none."""
    slices: tuple[str, ...]
    """Names of the slices it belongs to, such as `scope = in_scope`."""
    leaked: bool | None
    """Whether its prompt is in the training data; None where that was not checked."""
    repeats: bool
    """Whether an item before it has the same prompt."""


def read_items(
    examples: Sequence[Example], slice_by: Sequence[str], training_prompts: Set[str] | None
) -> list[Item]:
    """Items from examples whose final assistant turn is the reference.

    Where leakage is checked and found, the items fall into two more slices, so that the result
    without the leaked ones stands beside the others.

    Raises:
        InputError: no items, one of them twice, or no reference at all.
        ConfigError: `slice_by` names a field that no item has or that groups nothing.
    """
    _check_examples(examples)
    _check_fields(examples, slice_by)
    fingerprints = [prompt_fingerprint(e.conversation) for e in examples]
    leaks = training_prompts is not None and not training_prompts.isdisjoint(fingerprints)
    seen: set[str] = set()
    items = []
    for example, fingerprint in zip(examples, fingerprints, strict=True):
        slices = [f"{f} = {example.metadata[f]}" for f in slice_by if f in example.metadata]
        leaked = None if training_prompts is None else fingerprint in training_prompts
        if leaks:
            slices.append(LEAKED if leaked else UNSEEN)
        prompt, expected = example.conversation.prompt, _reference(example)
        repeats = fingerprint in seen
        items.append(Item(example.id, prompt, expected, tuple(slices), leaked, repeats))
        seen.add(fingerprint)
    return items


LEAKED = "in the training data"
UNSEEN = "not in the training data"


def positions_by_slice(items: Sequence[Item]) -> dict[str, list[int]]:
    """Positions of the items of each slice, by name."""
    positions: dict[str, list[int]] = {}
    for position, item in enumerate(items):
        for name in item.slices:
            positions.setdefault(name, []).append(position)
    return dict(sorted(positions.items()))


def _reference(example: Example) -> str | None:
    answer = example.conversation.answer
    return answer.content if answer is not None and answer.content.strip() else None


def _check_examples(examples: Sequence[Example]) -> None:
    if not examples:
        raise InputError(
            "there are no items to evaluate on",
            do="give a file or a snapshot with held-out examples, each ending with its answer",
        )
    twice = [id for id, count in Counter(e.id for e in examples).items() if count > 1]
    if twice:
        raise InputError(
            f"{len(twice)} of the items are there more than once, such as {twice[0]}",
            where=next(e.source for e in examples if e.id == twice[0]),
            do="leave one of each: a copy counts an answer twice and makes intervals too narrow",
        )
    if all(_reference(e) is None for e in examples):
        raise InputError(
            f"none of the {len(examples)} items has a reference answer",
            where=examples[0].source,
            do="end each item with an assistant turn that holds the right answer",
        )


def _check_fields(examples: Sequence[Example], slice_by: Sequence[str]) -> None:
    known = {field for example in examples for field in example.metadata}
    faults = []
    for field in slice_by:
        values = {str(e.metadata[field]) for e in examples if field in e.metadata}
        if not values:
            hint = did_you_mean(field, known) if known else "; the items have no metadata"
            faults.append(f"no item has the field {field!r}{hint}")
        elif len(values) > _MOST_SLICES:
            faults.append(f"{field!r} has {len(values)} values, too many to slice by")
    if faults:
        raise ConfigError(
            "\n    ".join(faults), where="slice_by", do="name fields of the items' metadata"
        )
