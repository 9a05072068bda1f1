"""What rows say, fitted to the store: examples found, answers checked, contradictions refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from burnish.errors import InputError
from burnish.hashing import canonical_json
from burnish.label.interchange.rows import Said, identified, identity, prompt_hash
from burnish.records.answers import candidates_of, checked_answer
from burnish.records.messages import UnfitError
from burnish.records.rows import Row
from burnish.store import Connection
from burnish.store.drafts import Draft, read_drafts
from burnish.store.labelled import Gold, examples_by_id, read_gold
from burnish.store.labelling import annotations_by_client_id, ids_by_prompt, known_ids
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example

Item = tuple[Row, Said]
Found = tuple[Row, Said, str]
"""A row, what it says, and the id of the example it says it of."""

# For the answers of these kinds no example is read: it took a fifth of an import's time.
_CHECKED_BY_TASK_ALONE = ("write", "edit", "choose", "choose_many", "rate")
_ANY_EXAMPLE = Example(Conversation(()), "")

Refuse = Callable[[Row, UnfitError | InputError], None]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A page of what was said, ready to be added."""

    annotations: list[Annotation]
    """New ones, each once."""
    accepted: int
    """How many there were with the known ones and those that stand twice."""
    gold: list[Gold]
    """Where they are not the gold answer already."""


def with_examples(connection: Connection, page: list[Item], refuse: Refuse) -> list[Found]:
    """Each with its example, found by the prompt where it does not say the id of one."""
    ids = known_ids(connection, {said.annotation.example_id for _, said in page})
    hashes = [
        None if said.annotation.example_id in ids else _prompt_hash(row, said, refuse)
        for row, said in page
    ]
    wanted = {prompt for prompt in hashes if prompt is not None}
    by_prompt = ids_by_prompt(connection, wanted) if wanted else {}
    found: list[Found] = []
    for (row, said), prompt in zip(page, hashes, strict=True):
        if said.annotation.example_id in ids:
            found.append((row, said, said.annotation.example_id))
        elif prompt is not None and len(fitting := by_prompt.get(prompt, [])) != 1:
            refuse(row, _not_one(fitting))
        elif prompt is not None:
            found.append((row, said, fitting[0]))
    return found


def drafts_in(page: list[Found]) -> list[Draft]:
    """The page's drafts."""
    said = ((id_, said.annotation) for _, said, id_ in page if said.record == "draft")
    return [Draft.of(id_, a.task, a.answer, a.annotator, a.created_at) for id_, a in said]


def fitted(connection: Connection, task: Task, page: list[Found], refuse: Refuse) -> Fitted:
    """Annotations and gold answers in canonical form; the page's drafts have been added."""
    page = [found for found in page if found[1].record != "draft"]
    answers = _Answers(connection, task, {id_ for _, _, id_ in page})
    given: list[tuple[Row, Annotation]] = []
    gold: dict[str, Gold] = {}
    for row, said, id_ in page:
        try:
            answer = answers.checked(said, id_)
        except (UnfitError, InputError) as error:
            refuse(row, error)
            continue
        if said.record == "annotation":
            annotation = replace(said.annotation, example_id=id_, answer=answer)
            given.append((row, identified(annotation)))
        else:
            gold[id_] = Gold(id_, task.name, answer, said.annotation.annotator)
    for known in read_gold(connection, task.name, gold) if gold else ():
        if gold[known.example_id].answer == known.answer:
            del gold[known.example_id]
    annotations, accepted = _without_conflicts(connection, given, refuse)
    return Fitted(annotations, accepted, list(gold.values()))


class _Answers:
    """What answers of a page are checked against."""

    def __init__(self, connection: Connection, task: Task, ids: set[str]) -> None:
        self.task = task
        by_task_alone = task.kind in _CHECKED_BY_TASK_ALONE
        self.examples = {} if by_task_alone else examples_by_id(connection, ids)
        drafts = read_drafts(connection, task.name, ids) if task.kind == "rank" else {}
        self.candidates = {
            id_: candidates_of(example, drafts.get(id_, ()))
            for id_, example in (self.examples.items() if task.kind == "rank" else ())
        }

    def checked(self, said: Said, example_id: str) -> str:
        """Its answer in canonical form; a skip or a flag may carry a note, or nothing."""
        answer = said.annotation.answer
        if said.record == "annotation" and said.annotation.status != "submitted":
            return answer
        candidates = self.candidates.get(example_id, ())
        if said.candidates:
            answer = _renumbered(answer, said.candidates, candidates)
        elif self.task.kind == "rank":
            candidates = candidates[: _places_in(answer)]
        example = self.examples.get(example_id, _ANY_EXAMPLE)
        return checked_answer(answer, self.task, example, candidates)


def _places_in(answer: str) -> int | None:
    """How many candidates a ranking ranks: drafts that came later are none of its business."""
    try:
        return sum(map(len, json.loads(answer))) or None
    except (TypeError, ValueError):
        return None


def _renumbered(answer: str, texts: tuple[str, ...], candidates: tuple[str, ...]) -> str:
    """A ranking of these texts as one of the example's candidates."""
    places = json.loads(answer)
    unknown = next((text for text in texts if text not in candidates), None)
    if unknown is not None:
        raise UnfitError(f"a ranking of what is no candidate: {unknown[:80]!r}")
    return canonical_json([[candidates.index(texts[n]) for n in place] for place in places])


def _without_conflicts(
    connection: Connection, given: list[tuple[Row, Annotation]], refuse: Refuse
) -> tuple[list[Annotation], int]:
    """Those that are new, each once, and how many with the known ones.

    A client id names one annotation; a row that says otherwise is refused.
    """
    known = annotations_by_client_id(connection, {a.client_id for _, a in given})
    new: dict[str, Annotation] = {}
    accepted = 0
    for row, annotation in given:
        id_ = annotation.client_id
        same = known.get(id_) or new.setdefault(id_, annotation)
        if identity(same) != identity(annotation):
            reason = f"the client id came with another annotation: {id_}"
            refuse(row, UnfitError(reason))
        else:
            accepted += 1
    return list(new.values()), accepted


def _prompt_hash(row: Row, said: Said, refuse: Refuse) -> str | None:
    """None, refused, where the row has no prompt either."""
    try:
        if said.prompt is None:
            id_ = said.annotation.example_id or "example_id is empty"
            raise UnfitError(f"no such example: {id_}; collect it first, or give its prompt")
        return prompt_hash(said.prompt)
    except UnfitError as error:
        refuse(row, error)
        return None


def _not_one(fitting: list[str]) -> UnfitError:
    if fitting:
        ids = ", ".join(fitting[:5])
        return UnfitError(f"several examples have this prompt: give one of {ids}")
    return UnfitError("no example has this prompt: collect the texts first")
