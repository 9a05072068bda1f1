"""Order the queue by what a model makes of the examples: its loss, or how unsure it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from burnish.errors import UserError
from burnish.label.order import order_by_arrival, set_priorities
from burnish.progress import progress_bar
from burnish.store import Store
from burnish.store.drafts import wanting
from burnish.store.examples import read_example
from burnish.tasks import Task
from burnish.types import Conversation

_PAGE = 256

Score = Callable[[Sequence[Conversation]], Sequence[float | UserError | None]]
"""For each conversation a number, the highest to be labelled first; None where there is none, or
the error why it cannot be scored."""


@dataclass(frozen=True, slots=True)
class ModelOrder:
    """What `order_by_model` did."""

    ordered: int
    unscored: Mapping[str, int]
    """How many examples keep their order of arrival, behind the others, by reason."""


def order_by_model(store: Store, task: Task, score: Score, actor: str) -> ModelOrder:
    """Put first, of the examples that want an answer, those with the highest score.

    Earlier priorities are taken away first, for their numbers meant something else. Written a page
    at a time: while it runs, what is scored already comes first.

    Raises:
        UserError: of `score`; or a whole page could not be scored, which is no matter of single
            examples.
    """
    order_by_arrival(store, task, actor)
    ordered, after = 0, 0
    unscored: Counter[str] = Counter()
    with progress_bar("scoring", unit=" examples", total=None) as bar:
        while True:
            with store.reading() as connection:
                page = wanting(
                    connection, task=task.name, overlap=task.overlap, after=after, limit=_PAGE
                )
                found = [read_example(connection, place.example_id) for place in page]
            if not page:
                return ModelOrder(ordered, dict(unscored.most_common()))
            after = page[-1].seq
            examples = [example for example in found if example is not None]
            scores = score([example.conversation for example in examples])
            faults = [one for one in scores if isinstance(one, UserError)]
            if len(faults) == _PAGE:
                raise faults[0]
            unscored.update(fault.what.partition(":")[0] for fault in faults)
            unscored.update("there is no answer yet" for one in scores if one is None)
            pairs = zip(examples, scores, strict=True)
            ranked = {e.id: one for e, one in pairs if isinstance(one, float)}
            if ranked:
                set_priorities(store, task, ranked, actor)
            ordered += len(ranked)
            bar.update(len(examples))
