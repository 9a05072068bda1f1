"""Examples in; labels in and out, in the formats of `label.interchange`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from burnish.errors import InputError
from burnish.files import full_disk_is_the_users
from burnish.label.interchange import LabelFormat, LabelImport, import_labels
from burnish.records.messages import UnfitError, openai_conversation
from burnish.store.examples import add_examples
from burnish.types import Example
from burnish.web.api.models import Added, InPath, NewExample, NewExamples, Who
from burnish.web.exchange import exported_file
from burnish.web.identity import person_of, require
from burnish.web.site import Site

# The ending of a file says how its rows are read.
_ENDINGS = {
    "application/x-ndjson": "jsonl",
    "application/json": "json",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "application/vnd.apache.parquet": "parquet",
}
_FILE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _ENDINGS},
    }
}
_EXPORT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The file."}
}
_admin = [Depends(require("admin"))]


def exchange_routes(site: Site) -> APIRouter:
    """The routes through which data comes and goes."""
    router = APIRouter(tags=["exchange"])

    @router.get("/tasks/{task}/export", response_class=StreamingResponse, responses=_EXPORT)
    def export(task: InPath, format: LabelFormat = "jsonl") -> Response:
        """Every annotation, draft and gold answer of the task, as a file."""
        return exported_file(site, task, format)

    @router.post("/tasks/{task}/import", dependencies=_admin, openapi_extra=_FILE)
    async def import_(
        request: Request, task: InPath, format: LabelFormat | None = None, annotator: Who = None
    ) -> LabelImport:
        """Add the labels of a file, sent as the body; again they add nothing.

        `annotator` is who answered where the rows do not say; the format is recognised where none
        is named.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _ENDINGS:
            raise InputError(
                f"no kind of file: {kind!r}", do=f"send content-type {', '.join(_ENDINGS)}"
            )
        asked = site.task(task)
        with tempfile.TemporaryDirectory(prefix="burnish-import-") as folder:
            path = Path(folder) / f"labels.{_ENDINGS[kind]}"
            with full_disk_is_the_users(path), path.open("wb") as file:
                async for chunk in request.stream():
                    file.write(chunk)
            return await run_in_threadpool(
                import_labels,
                site.store,
                path,
                asked,
                annotator=annotator,
                format=format,
                rejects=site.project.root / "rejects",
                name=path.name,
            )

    @router.post("/examples", dependencies=_admin)
    def add(request: Request, sent: NewExamples) -> Added:
        """Add examples; those that are there already add nothing."""
        batch = [_example(number, new, sent.source) for number, new in enumerate(sent.examples)]
        with site.store.writing() as connection:
            return Added(added=add_examples(connection, batch, actor=person_of(request).name))

    return router


def _example(number: int, new: NewExample, source: str) -> Example:
    try:
        conversation = openai_conversation(new.messages)
    except UnfitError as error:
        raise InputError(str(error), where=f"examples[{number}]") from error
    return Example(conversation, source=source, metadata=new.metadata, licence=new.licence)
