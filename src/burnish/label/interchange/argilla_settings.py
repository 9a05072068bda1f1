"""The rest of an Argilla dataset's folder: what its page shows and asks beside the records.

    FOLDER/records.json              the records, as `argilla` writes them
    FOLDER/.argilla/settings.json    fields, questions, overlap: `Settings.serialize`
    FOLDER/.argilla/dataset.json     the dataset's name and state

`rg.Dataset.from_disk(FOLDER)` makes a dataset of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from burnish.errors import InputError
from burnish.tasks import Task

RECORDS = "records.json"
_SETTINGS = ".argilla"


def check_folder(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but such a dataset.

    Raises:
        InputError: it does.
    """
    if folder.is_dir() and {path.name for path in folder.iterdir()} - {RECORDS, _SETTINGS}:
        raise InputError(
            "is a folder with other things in it, which would be replaced",
            where=str(folder),
            do="name a new folder, or a file that ends in .json",
        )


def write_settings(folder: Path, task: Task, fields: Iterable[str]) -> None:
    """Write both files for records that have these fields between them, in this order."""
    fields = list(fields)
    settings = {
        "guidelines": None,
        "questions": _questions(task, fields),
        "fields": [_field(name, required=name in ("messages", "text")) for name in fields],
        "vectors": [],
        "metadata": [],
        # Our own field among the metadata is declared nowhere.
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": task.overlap},
        "mapping": None,
    }
    dataset = {"name": task.name, "status": "draft", "allow_extra_metadata": True}
    (folder / _SETTINGS).mkdir()
    for name, content in (("settings", settings), ("dataset", dataset)):
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (folder / _SETTINGS / f"{name}.json").write_text(text, encoding="utf-8")


def _questions(task: Task, fields: list[str]) -> list[dict[str, Any]]:
    options = [{"value": choice, "text": choice} for choice in task.choices]
    match task.kind:
        case "choose":
            return [_question("answer", {"type": "label_selection", "options": options})]
        case "choose_many":
            return [_question("answer", {"type": "multi_label_selection", "options": options})]
        case "rate":
            low, high = task.scale
            scale = [{"value": n} for n in range(low, high + 1)]
            return [_question("answer", {"type": "rating", "options": scale})]
        case "rank":
            ranked = [{"value": f, "text": f} for f in fields if f.startswith("candidate_")]
            return [_question("answer", {"type": "ranking", "options": ranked})]
        case "spans":
            spans = {"type": "span", "field": "text", "options": options, "allow_overlapping": True}
            return [_question("answer", spans)]
        case "accept":
            verdicts = [{"value": verdict, "text": verdict} for verdict in ("accept", "reject")]
            return [
                _question("answer", {"type": "label_selection", "options": verdicts}),
                _question("reason", {"type": "text", "use_markdown": False}, required=False),
            ]
        case _:
            return [_question("answer", {"type": "text", "use_markdown": False})]


def _question(name: str, settings: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"name": name, "title": name, "required": required, "settings": settings}


def _field(name: str, *, required: bool) -> dict[str, Any]:
    settings = {"type": "chat" if name == "messages" else "text", "use_markdown": False}
    return {"name": name, "title": name, "required": required, "settings": settings}
