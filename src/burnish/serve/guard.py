"""Restrictions: what may be asked and what may be answered, as data beside the model.

They are checked before and after the model. A whole answer is needed to check one, so with
`allowed_answers` or `denied_in_answers` a stream holds its text back until the answer is complete.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from burnish.config import build_config, read_toml
from burnish.errors import ConfigError
from burnish.types import Conversation

RESTRICTIONS_FILE = "restrictions.toml"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guard:
    """The content of restrictions.toml; without any restriction it lets everything pass."""

    refusal: str = "I cannot help with that."
    """What is answered in place of anything that is not allowed."""
    allowed_answers: tuple[str, ...] = ()
    """If any: the only answers allowed, white space around them aside."""
    denied_in_requests: tuple[str, ...] = ()
    """Regular expressions; a turn of the user, the system or a tool that holds one is refused."""
    denied_in_answers: tuple[str, ...] = ()
    """Regular expressions; an answer that holds one is replaced."""

    def __post_init__(self) -> None:
        """Compile every pattern; all faults at once."""
        faults = []
        for name in ("denied_in_requests", "denied_in_answers"):
            for pattern in getattr(self, name):
                try:
                    re.compile(pattern)
                except re.error as error:
                    faults.append(f"{name}: {pattern!r} is no regular expression: {error}")
        if faults:
            raise ConfigError("\n    ".join(faults))

    @cached_property
    def checks_answers(self) -> bool:
        """Whether an answer must be complete before any of it is shown."""
        return bool(self.allowed_answers or self.denied_in_answers)

    def refuses_request(self, conversation: Conversation, completion_id: str) -> bool:
        """Whether the model must not even be asked; a refusal is logged with its reason."""
        for message in conversation.messages:
            if message.role == "assistant":
                continue
            for pattern in self.denied_in_requests:
                if re.search(pattern, message.content):
                    _log.warning("%s: request refused: it holds %r", completion_id, pattern)
                    return True
        if self.denied_in_requests:
            _log.info("%s: request allowed", completion_id)
        return False

    def refuses_answer(self, answer: str, completion_id: str) -> bool:
        """Whether the refusal must stand in the answer's place; logged either way."""
        if not self.checks_answers:
            return False
        if self.allowed_answers and answer.strip() not in self.allowed_answers:
            _log.warning("%s: answer replaced: not among those allowed", completion_id)
            return True
        for pattern in self.denied_in_answers:
            if re.search(pattern, answer):
                _log.warning("%s: answer replaced: it holds %r", completion_id, pattern)
                return True
        _log.info("%s: answer allowed", completion_id)
        return False


def load_guard(path: Path | None, beside: Path) -> Guard:
    """Read restrictions from `path`, by default from restrictions.toml in the model's folder.

    Raises:
        InputError: the file named cannot be read.
        ConfigError: unknown keys, wrong types, patterns that are no regular expressions.
    """
    if path is None:
        path = beside / RESTRICTIONS_FILE
        if not path.is_file():
            return Guard()
    return build_config(Guard, read_toml(path), where=str(path))
