"""Refused rows, kept beside the project with line and reason; nothing is dropped in silence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import IO

from burnish.files import replaced_file
from burnish.hashing import content_hash
from burnish.records.rows import Reject


def reject_line(reject: Reject) -> str:
    """A refused row as one JSON line."""
    # Parquet rows may hold dates or bytes, which are shown and not kept.
    row = {"line": reject.line, "reason": reject.reason, "row": reject.row}
    return json.dumps(row, default=str) + "\n"


def keep_rejects(lines: IO[str], name: str, place: str, folder: Path) -> Path | None:
    """Replace what an earlier reading of the same source refused; None where nothing was now.

    `place` is where the source is, the same on every run: two sources may share a name.
    """
    plain = re.sub(r"[^\w.-]+", "_", name)[-80:]
    path = folder / f"{plain}-{content_hash(place)[:8]}.jsonl"
    if not lines.tell():
        path.unlink(missing_ok=True)
        return None
    lines.seek(0)
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        shutil.copyfileobj(lines, file)
    return path
