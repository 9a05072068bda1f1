"""One tree of errors. Each says what is wrong, where, and what to do.

    BurnishError
    └── UserError (ValueError)      the user can mend it: one message, no traceback, exit code 2
        ├── InputError              a file, a row, a label that cannot be read or does not fit
        ├── ConfigError             an option or a key in burnish.toml; all faults in one error
        ├── ProjectError            the project folder, its store, an artefact
        ├── ModelError              a base or checkpoint that is no model, or lacks what is needed
        ├── TemplateError           a chat template that breaks a law of `chat`
        └── ResourceError           disk or memory that is full, an extra that is not installed

Our own mistakes are `assert`s and whatever Python raises: traceback kept, exit code 1.
"""

from __future__ import annotations


class BurnishError(Exception):
    """Base of everything Burnish raises on purpose."""


class UserError(BurnishError, ValueError):
    """Something the user can mend."""

    def __init__(self, what: str, *, where: str | None = None, do: str | None = None) -> None:
        """Say `what` is wrong, `where` (file, line, key) and what to `do` about it."""
        self.what, self.where, self.do = what, where, do
        lines = [f"{where}: {what}" if where else what]
        if do:
            lines.append(f"  → {do}")
        super().__init__("\n".join(lines))


class InputError(UserError):
    """A file, row or label that cannot be read or does not fit."""


class ConfigError(UserError):
    """A wrong option or key. Lists every fault found, not the first."""


class ProjectError(UserError):
    """The project folder, its store, or an artefact in it."""


class ModelError(UserError):
    """A base or checkpoint that is no model, or lacks what the run needs."""


class TemplateError(UserError):
    """A chat template that breaks a law of `burnish.chat`."""


class ResourceError(UserError):
    """A full disk, too little memory, an extra that is not installed."""
