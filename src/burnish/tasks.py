"""The tasks of a project: what annotators are asked, as burnish.toml describes it.

    [label]                 # settings of every task; without [tasks.*] there is one task, `answer`
    overlap = 2

    [tasks.intent]          # any number of these; what stands here outweighs [label]
    kind = "choose"
    choices = ["billing", "delivery", "other"]
    guidelines = "intent.md"

What each kind's answers are, and what they do to an example, is told in `records.answers`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from burnish.config import build_config, did_you_mean
from burnish.errors import ConfigError, ProjectError
from burnish.project import PROJECT_FILE, Project

Kind = Literal[
    "write", "edit", "choose", "choose_many", "rate", "rank", "spans", "dialogue", "accept"
]
ResolutionRule = Literal["unanimous", "majority"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_CHOOSING: tuple[Kind, ...] = ("choose", "choose_many", "spans")


@dataclass(frozen=True, slots=True)
class Task:
    """What annotators are asked of each example, and of how many of them."""

    name: str = "answer"
    """The key of its table; kept with every annotation."""
    kind: Kind = "write"
    """`write` the ideal answer, `edit` a draft, `choose` one, `choose_many`, `rate`, `rank` several
    answers, mark `spans`, write a `dialogue` turn by turn, or `accept` or reject; by default
    `choose` where there are `choices`, else `write`."""
    guidelines: Path = Path("guidelines.md")
    """Markdown, relative to the project folder; every annotation keeps the version it was made
    under."""
    overlap: int = 1
    """How many annotators answer each example. May be raised or lowered while work goes on."""
    choices: tuple[str, ...] = ()
    """The answers of `choose` and `choose_many`, the labels of `spans`; empty for the others."""
    scale: tuple[int, int] = (1, 5)
    """The lowest and highest rating of `rate`, whole numbers."""
    lease_seconds: float = 1800.0
    """How long an example is kept for the annotator it was shown to. Answers that come later are
    kept all the same."""
    rule: ResolutionRule = "unanimous"
    """How answers settle an example without a person: all equal, or more than half of them; what
    that is for each kind is told in `label.rules`."""
    gold_every: int = 0
    """About one example in so many that an annotator gets is a gold item; 0 for none."""
    blind_review: bool = False
    """Whether a reviewer decides before the annotators' answers are shown."""
    base: str | None = None
    """The base whose chat template and tokens are shown while labelling; None shows none."""
    max_length: int = 2048
    """Tokens an example may have in training; what is cut off is shown while labelling."""

    def __post_init__(self) -> None:
        """Report every value out of range."""
        faults = []
        if not _NAME.fullmatch(self.name):
            faults.append(f"a task's name is 1 to 64 letters, digits, _ and -, not {self.name!r}")
        path = self.guidelines
        if not path.parts or path.is_absolute() or ".." in path.parts:
            faults.append(f"guidelines = {str(path)!r}: must be a file in the project folder")
        if self.overlap < 1:
            faults.append(f"overlap = {self.overlap}: must be 1 or more")
        if self.lease_seconds <= 0:
            faults.append(f"lease_seconds = {self.lease_seconds}: must be above 0")
        if self.gold_every < 0 or self.gold_every == 1:
            faults.append(f"gold_every = {self.gold_every}: must be 0, or 2 or more")
        if self.max_length < 1:
            faults.append(f"max_length = {self.max_length}: must be 1 or more")
        if len(self.scale) != 2 or self.scale[0] >= self.scale[1]:
            faults.append(f"scale = {list(self.scale)}: must be a lowest and a higher number")
        trimmed = {choice.strip() for choice in self.choices} - {""}
        if trimmed != set(self.choices) or len(trimmed) < len(self.choices):
            faults.append(
                f"choices = {list(self.choices)}: must be different, not empty, and without white "
                "space around them"
            )
        if self.kind in _CHOOSING and not self.choices:
            faults.append(f"kind = {self.kind!r} needs choices")
        if self.kind not in _CHOOSING and self.choices:
            faults.append(f"choices are for {', '.join(_CHOOSING)}, not for kind = {self.kind!r}")
        if faults:
            raise ConfigError("\n    ".join(faults))


def read_tasks(project: Project) -> dict[str, Task]:
    """The project's tasks by name, in the order of burnish.toml; at least one.

    Raises:
        ConfigError: unknown keys and values out of range, all of a table in one message.
    """
    shared = project.table("label")
    tables = project.table("tasks")
    if not tables:
        return {"answer": _task(project, "answer", shared, "[label]")}
    tasks = {}
    for name, own in tables.items():
        if not isinstance(own, Mapping):
            raise ProjectError(
                f"{name!r} must be a table",
                where=f"{project.root / PROJECT_FILE} [tasks]",
                do=f"write [tasks.{name}]",
            )
        tasks[name] = _task(project, name, {**shared, **own}, f"[tasks.{name}]")
    return tasks


def find_task(project: Project, name: str | None = None) -> Task:
    """The task of that name; without one, the project's only task.

    Raises:
        ConfigError: there is no such task, or none was named and there are several.
    """
    tasks = read_tasks(project)
    if name is None and len(tasks) == 1:
        return next(iter(tasks.values()))
    if name is None:
        raise ConfigError(
            f"the project has several tasks: {', '.join(tasks)}",
            do="say which: --task NAME, or `task` in the command's table of burnish.toml",
        )
    if name not in tasks:
        raise ConfigError(f"there is no task {name!r}{did_you_mean(name, tasks)}")
    return tasks[name]


def _task(project: Project, name: str, values: Mapping[str, object], table: str) -> Task:
    values = dict(values)
    if "kind" not in values and values.get("choices"):
        values["kind"] = "choose"
    where = f"{project.root / PROJECT_FILE} {table}"
    if "name" in values:
        raise ConfigError("there is no setting 'name'", where=where, do=f"write [tasks.{name}]")
    try:
        return replace(build_config(Task, values, where=where), name=name)
    except ConfigError as error:
        if error.where is None:
            raise ConfigError(error.what, where=where) from None
        raise
