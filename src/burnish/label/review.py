"""The reviewer's queue: disputes, each before one reviewer at a time.

`label.resolve` keeps what a reviewer decides.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

from burnish.label.guidelines import checked_annotator
from burnish.label.resolve import Dispute, read_dispute
from burnish.project import timestamp
from burnish.store import Store, disputes
from burnish.tasks import Task


def next_dispute(
    store: Store, task: Task, reviewer: str, *, now: datetime, after: str | None = None
) -> Dispute | None:
    """The next example a reviewer must look at, theirs for `task.lease_seconds`.

    Asked again before it is settled, it is the same. With `after`, an example's id, that one is
    left to others and the next behind it is given. None where there is none that nobody else is
    looking at.

    Raises:
        InputError: the reviewer's name cannot be used.
    """
    example_id = store.write(
        partial(
            disputes.lease_dispute,
            task=task.name,
            reviewer=checked_annotator(reviewer),
            now=timestamp(now),
            expires_at=timestamp(now + timedelta(seconds=task.lease_seconds)),
            after=after,
        )
    )
    return None if example_id is None else read_dispute(store, task, example_id)


def count_disputes(store: Store, task: Task) -> int:
    """How many examples a reviewer must look at."""
    with store.reading() as connection:
        return disputes.count_disputes(connection, task.name)
