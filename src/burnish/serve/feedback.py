"""Ratings and corrections, kept as rows that `burnish collect` reads."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from burnish.files import full_disk_is_the_users
from burnish.types import Conversation

# Answers that can still be rated, the newest first to stay; kept in memory only.
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as it was served, with the conversation it answers."""

    conversation: Conversation
    answer: str


class Feedback:
    """Remembers what was served and appends what people say about it to a JSON-lines file."""

    def __init__(self, path: Path, model: str) -> None:
        """`model` is the identity that each row names."""
        self._path, self._model = path, model
        self._served: OrderedDict[str, Sequence[Answered]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, completion_id: str, answers: Sequence[Answered]) -> None:
        """Keep the answers of one request for a while."""
        with self._lock:
            self._served[completion_id] = answers
            if len(self._served) > _REMEMBERED:
                self._served.popitem(last=False)

    def find(self, completion_id: str, index: int) -> Answered | None:
        """The answer with this index, or None if it was never served or is forgotten."""
        with self._lock:
            answers = self._served.get(completion_id, ())
        return answers[index] if index < len(answers) else None

    def record(
        self,
        completion_id: str,
        answered: Answered,
        rating: Literal["up", "down"],
        correction: str | None,
        comment: str | None,
    ) -> None:
        """Append one row and return when it is on the disk.

        A correction becomes the answer; so does an answer rated up. An answer rated down leaves the
        prompt without one, for the labelling queue. The row holds no time of day: feedback that a
        client sends twice is the same example twice, and `collect` keeps one.

        Raises:
            ResourceError: the disk is full; nothing half-written is left.
        """
        conversation = answered.conversation
        answer = correction if correction is not None else answered.answer
        if correction is not None or rating == "up":
            conversation = conversation.answered(answer)
        metadata = {"completion_id": completion_id, "model": self._model, "rating": rating}
        if conversation.answer is None or answer != answered.answer:
            metadata["draft"] = answered.answer
        if comment:
            metadata["comment"] = comment
        row = {"conversation": conversation.to_json(), "source": "feedback", "metadata": metadata}
        with self._lock:
            _append(self._path, row)


def _append(path: Path, row: dict[str, Any]) -> None:
    data = (json.dumps(row, ensure_ascii=False) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unbuffered: a buffer that could not be written would be tried once more on closing.
    with full_disk_is_the_users(path), path.open("ab+", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        if before:
            file.seek(before - 1)
            if file.read(1) != b"\n":
                data = b"\n" + data  # a kill in mid-write left half a line: let it not spoil ours
        try:
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)
            raise
