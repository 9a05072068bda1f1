"""A uniform sample of a stream."""

from __future__ import annotations

import random
from typing import Generic, TypeVar

T = TypeVar("T")


class Sample(Generic[T]):
    """At most `size` items of a stream, each as likely as any other.

    J. S. Vitter, "Random sampling with a reservoir", ACM Transactions on Mathematical Software
    11(1), 1985, algorithm R.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.seen = 0
        """How many items there were."""
        self._size = size
        self._drawn: list[T] = []
        self._random = random.Random(seed)

    def add(self, item: T) -> None:
        """Take in the stream's next item."""
        self.seen += 1
        if len(self._drawn) < self._size:
            self._drawn.append(item)
        elif (place := self._random.randrange(self.seen)) < self._size:
            self._drawn[place] = item

    def shuffled(self) -> list[T]:
        """What was drawn, in an order that has nothing to do with that of the stream."""
        return self._random.sample(self._drawn, len(self._drawn))
