"""The [label] table of burnish.toml, and the guidelines annotators work by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from burnish.config import build_config
from burnish.errors import ConfigError, InputError, ProjectError
from burnish.hashing import content_hash
from burnish.project import PROJECT_FILE, Project
from burnish.store import Store
from burnish.store.annotations import add_guidelines, read_guidelines

ResolutionRule = Literal["unanimous", "majority"]

RULE_PREFIX = "rule:"
"""What `resolved_by` begins with where no person decided; no name may begin so."""


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """What annotators are asked and how often."""

    task: str = "answer"
    """The task's name, kept with every annotation; `answer` asks for the ideal answer."""
    guidelines: Path = Path("guidelines.md")
    """Markdown, relative to the project folder; every annotation keeps the version it was made
    under."""
    overlap: int = 1
    """How many annotators answer each example. May be raised or lowered while work goes on."""
    choices: tuple[str, ...] = ()
    """The answers allowed; empty for free text."""
    lease_seconds: float = 1800.0
    """How long an example is kept for the annotator it was shown to. Answers that come later are
    kept all the same."""
    rule: ResolutionRule = "unanimous"
    """How answers settle an example without a person: all equal, or more than half of them."""

    def __post_init__(self) -> None:
        """Report every value out of range."""
        faults = []
        if not 0 < len(self.task) <= 64:
            faults.append(f"task = {self.task!r}: must have 1 to 64 characters")
        if self.overlap < 1:
            faults.append(f"overlap = {self.overlap}: must be 1 or more")
        if self.lease_seconds <= 0:
            faults.append(f"lease_seconds = {self.lease_seconds}: must be above 0")
        stripped = [choice.strip() for choice in self.choices]
        if len(set(stripped)) < len(stripped) or "" in stripped:
            faults.append(f"choices = {list(self.choices)}: must be different and not empty")
        if faults:
            raise ConfigError("\n    ".join(faults))


@dataclass(frozen=True, slots=True)
class Guidelines:
    """One version of the guidelines."""

    version: str
    """Content hash of the text."""
    text: str
    """Markdown."""


def label_config(project: Project) -> LabelConfig:
    """The project's [label] table.

    Raises:
        ConfigError: unknown keys and values out of range, all in one message.
    """
    where = f"{project.root / PROJECT_FILE} [label]"
    return build_config(LabelConfig, project.table("label"), where=where)


def current_guidelines(store: Store, project: Project, config: LabelConfig) -> Guidelines:
    """Read the guidelines file; a text not seen before is kept as a new version.

    Raises:
        ProjectError: the file is missing or no UTF-8 text.
    """
    path = project.root / config.guidelines
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ProjectError(
            f"the guidelines cannot be read ({reason})",
            where=str(path),
            do="write them there, or set `guidelines` under [label] in burnish.toml",
        ) from error
    version = content_hash(text)
    with store.reading() as connection:
        known = read_guidelines(connection, version) is not None
    if not known:
        with store.writing() as connection:
            add_guidelines(connection, text, actor="label")
    return Guidelines(version, text)


def checked_annotator(name: str) -> str:
    """The annotator's name without surrounding white space.

    Raises:
        InputError: the name is empty, over 64 characters, begins like a rule's, or holds control
            characters.
    """
    name = name.strip()
    if not 0 < len(name) <= 64 or not name.isprintable() or name.startswith(RULE_PREFIX):
        raise InputError(
            f"no annotator's name: {name[:80]!r}",
            do="write 1 to 64 printable characters, such as your first name",
        )
    return name


def checked_answer(answer: str, config: LabelConfig) -> str:
    """The answer, without surrounding white space where it is one of `config.choices`.

    Raises:
        InputError: the answer is empty, no Unicode text, or not among the choices.
    """
    if not answer.strip():
        raise InputError("the answer is empty", do="write one, or skip the example")
    checked_text(answer)
    if not config.choices:
        return answer
    if answer.strip() not in config.choices:
        raise InputError(
            f"not among the choices: {answer[:80]!r}",
            do="choose one of `choices` under [label] in burnish.toml",
        )
    return answer.strip()


def checked_text(text: str) -> None:
    """Refuse half a surrogate pair: JSON may spell it, but no UTF-8 text can hold it.

    Raises:
        InputError: the text holds one.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("half a Unicode surrogate pair", do="take that character out") from None
