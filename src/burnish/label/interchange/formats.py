"""Which format a file of labels is in or will be, and which one can hold a task's answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from burnish.errors import InputError
from burnish.label.destination import is_device
from burnish.label.interchange.argilla import ARGILLA
from burnish.label.interchange.doccano import DOCCANO
from burnish.label.interchange.kept import Tool
from burnish.label.interchange.label_studio import LABEL_STUDIO
from burnish.label.interchange.prodigy import PRODIGY
from burnish.label.interchange.rows import Values
from burnish.tasks import Task

LabelFormat = Literal["jsonl", "csv", "label_studio", "argilla", "prodigy", "doccano"]

TOOLS: dict[str, Tool] = {
    "label_studio": LABEL_STUDIO,
    "argilla": ARGILLA,
    "prodigy": PRODIGY,
    "doccano": DOCCANO,
}
ENDINGS: dict[LabelFormat, tuple[str, ...]] = {
    "jsonl": (".jsonl", ".ndjson"),
    "csv": (".csv",),
    "label_studio": (".json",),
    "argilla": (".json",),
    "prodigy": (".jsonl", ".ndjson"),
    "doccano": (".jsonl", ".ndjson"),
}
"""What the name of a file of each format ends in, the usual ending first."""
_PLAIN: tuple[LabelFormat, ...] = ("jsonl", "csv")


def tool_named(format: LabelFormat) -> Tool | None:
    """The tool of that name; None for the plain formats."""
    return TOOLS.get(format)


def format_to_write(path: Path, format: LabelFormat | None) -> LabelFormat:
    """The format that is named, which the ending must go with; else the plain one of the ending.

    A name that says something else than the file is would not be read again, and may be that of a
    file which is no export. A device or a pipe may have any name.

    Raises:
        InputError: the ending is another, or says too little.
    """
    ending = path.suffix.lower()
    if format is None:
        plain = next((name for name in _PLAIN if ending in ENDINGS[name]), None)
        if plain is None or is_device(path):
            raise InputError(
                f"the ending {path.suffix!r} does not say which format to write",
                where=str(path),
                do=f"end it in .jsonl or .csv, or name the format: {', '.join(ENDINGS)}",
            )
        return plain
    # Argilla's settings make a folder of it.
    if not (is_device(path) or ending in ENDINGS[format] or (format == "argilla" and not ending)):
        raise InputError(
            f"files of {format} end in {' or '.join(ENDINGS[format])}, not in {path.suffix!r}",
            where=str(path),
            do="change its ending, or name another format",
        )
    return format


def recognised_tool(rows: Sequence[Values]) -> Tool | None:
    """The tool whose records more than half of a file's first rows are; None for plain rows."""
    for tool in TOOLS.values():
        if 2 * sum(map(tool.is_record, rows)) > len(rows):
            return tool
    return None


def check_kind(task: Task, format: LabelFormat) -> None:
    """Refuse a format that has no place for a task's answers.

    Raises:
        InputError: names the formats that have.
    """
    tool = tool_named(format)
    high = task.scale[1]
    if tool is ARGILLA and task.kind == "rate" and not 0 <= task.scale[0] < high <= 10:
        reason = f"argilla rates from 0 to 10, not from {task.scale[0]} to {high}"
        able = [name for name in (*_PLAIN, *TOOLS) if name != "argilla"]
    elif tool is not None and task.kind not in tool.kinds:
        reason = f"{format} has no place for answers of kind {task.kind!r}"
        able = [*_PLAIN, *(name for name, other in TOOLS.items() if task.kind in other.kinds)]
    else:
        return
    raise InputError(reason, where=f"task {task.name}", do=f"choose one of {', '.join(able)}")
