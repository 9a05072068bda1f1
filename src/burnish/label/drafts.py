"""Drafts: a model proposes, people edit; and how far what they send is from what was proposed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from burnish.errors import ConfigError, InputError, UserError
from burnish.label.agreement.text import edit_distance
from burnish.progress import progress_bar
from burnish.project import timestamp
from burnish.records.answers import checked_answer
from burnish.store import Connection, Store
from burnish.store.drafts import Draft, Wanting, add_drafts, read_draft, undrafted
from burnish.store.examples import read_example
from burnish.store.labelling import check_known
from burnish.tasks import Kind, Task
from burnish.types import Annotation, Conversation, Example

PAGE = 64
"""Examples drafted between two writes: what a kill loses at most, and what a model decodes at
once."""

Writer = Callable[[Sequence[Conversation]], Sequence[str | UserError]]
"""Answers to prompts, in order; for one that cannot be answered the error, given and not raised."""

PARTS: tuple[Kind, ...] = ("rank", "dialogue")
"""Kinds of which a draft is a part, a candidate or the next turn, and no answer to be edited."""


@dataclass(frozen=True, slots=True)
class Drafted:
    """What `make_drafts` did."""

    added: int
    refused: Mapping[str, int]
    """How many examples the model could not answer, by reason; asked again, it tries again."""


def make_drafts(
    store: Store,
    task: Task,
    write: Writer,
    model: str,
    *,
    now: datetime,
    limit: int | None = None,
) -> Drafted:
    """Have a model answer the examples that want an answer and lack a draft of that model.

    In the order people will get them. Written a page at a time: after Ctrl-C or a kill the same
    call adds what is missing, and a page's work is lost at most.

    Args:
        store: where the examples are.
        task: whose drafts they are.
        write: asks the model; see `Writer`.
        model: the name kept with every draft.
        now: when the run began; kept with every draft.
        limit: ask for so many examples at most.

    Raises:
        ConfigError: the task's kind has no use for drafts.
        UserError: of the writer; or a whole page could not be answered, which is no matter of
            single examples.
    """
    if task.kind == "accept":
        raise ConfigError(
            "kind = 'accept' is about the answers that examples have; it has no use for drafts",
            where=f"task {task.name}",
            do="draft for a task that asks for answers, such as kind = 'edit'",
        )
    created_at = timestamp(now)
    added = 0
    refused: Counter[str] = Counter()
    with progress_bar(f"drafting with {model}", unit=" examples", total=limit) as bar:
        for page in _undrafted_pages(store, task, model, limit):
            answers = write([example.conversation.prompt for example in page])
            texts = [_checked(*pair, task) for pair in zip(page, answers, strict=True)]
            faults = [text for text in texts if isinstance(text, UserError)]
            if len(faults) == PAGE:
                raise faults[0]
            # What follows a colon differs from example to example.
            refused.update(fault.what.partition(":")[0] for fault in faults)
            drafts = [
                Draft.of(example.id, task.name, text, model, created_at)
                for example, text in zip(page, texts, strict=True)
                if isinstance(text, str)
            ]
            added += store.write(partial(add_drafts, batch=drafts))
            bar.update(len(page))
    return Drafted(added, dict(refused.most_common()))


def propose_drafts(store: Store, drafts: Collection[Draft], *, actor: str) -> int:
    """Add drafts that were made elsewhere; returns how many are new.

    Raises:
        InputError: no such example; nothing is kept then.
    """

    def keep(connection: Connection) -> int:
        check_known(connection, {draft.example_id for draft in drafts})
        return add_drafts(connection, drafts, actor=actor)

    return store.write(keep)


def with_edit_distance(connection: Connection, task: Task, annotation: Annotation) -> Annotation:
    """The annotation with the edit distance from its draft, where it has one.

    None for skips and flags, and for kinds of which a draft is a part alone.

    Raises:
        InputError: there is no such draft of this example and task.
    """
    if annotation.draft_id is None:
        return replace(annotation, edit_distance=None)
    draft = read_draft(connection, annotation.draft_id)
    if draft is None or (draft.example_id, draft.task) != (annotation.example_id, task.name):
        raise InputError("there is no such draft of this example", where=annotation.draft_id)
    if annotation.status != "submitted" or task.kind in PARTS:
        return replace(annotation, edit_distance=None)
    return replace(annotation, edit_distance=edit_distance(draft.text, annotation.answer))


def _undrafted_pages(
    store: Store, task: Task, model: str, limit: int | None
) -> Iterator[list[Example]]:
    """The examples to draft for, in the order people will get them, `limit` at most."""
    after: Wanting | None = None
    left = limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        with store.reading() as connection:
            places = undrafted(
                connection,
                task=task.name,
                overlap=task.overlap,
                model=model,
                after=after,
                limit=size,
            )
            found = [read_example(connection, place.example_id) for place in places]
        if not places:
            return
        yield [example for example in found if example is not None]
        after = places[-1]
        left = None if left is None else left - len(places)


def _checked(example: Example, answer: str | UserError, task: Task) -> str | UserError:
    """A draft as an answer of the task is kept, or why it is none."""
    if isinstance(answer, UserError):
        return answer
    # A model may write what no store takes: half a surrogate pair, or NUL.
    text = answer.encode("utf-8", "replace").decode().replace("\0", "")
    if not text.strip():
        return InputError("the model wrote nothing")
    try:
        # A candidate to be ranked and the next turn of a dialogue are plain text.
        return text if task.kind in PARTS else checked_answer(text, task, example)
    except InputError as error:
        return error
