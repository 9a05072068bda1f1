"""/tasks/NAME/exchange : labels in and out of a task, in the formats of `label.interchange`."""

from __future__ import annotations

import shutil
import tempfile
from itertools import chain
from pathlib import Path
from typing import Annotated, get_args

from fastapi import APIRouter, Depends, Form, Request, UploadFile
from fastapi.responses import Response, StreamingResponse

from burnish.files import full_disk_is_the_users
from burnish.label.interchange import LabelFormat, LabelImport, import_labels, stream_labels
from burnish.label.interchange.formats import ENDINGS
from burnish.web.identity import require
from burnish.web.site import Site


def exchange_pages(site: Site) -> APIRouter:
    """The page, the file to keep, and the file to bring in."""
    router = APIRouter()

    @router.get("/tasks/{name}/exchange")
    def exchange(request: Request, name: str) -> Response:
        return page(request, name)

    @router.get("/tasks/{name}/export")
    def export(name: str, format: LabelFormat = "jsonl") -> Response:
        return exported_file(site, name, format)

    @router.post("/tasks/{name}/import", dependencies=[Depends(require("admin"))])
    def import_(
        request: Request,
        name: str,
        file: UploadFile,
        format: Annotated[LabelFormat | None, Form()] = None,
        annotator: Annotated[str, Form()] = "",
    ) -> Response:
        """`annotator` is who answered where the rows do not say."""
        with tempfile.TemporaryDirectory(prefix="burnish-import-") as folder:
            # The ending tells how to read it; nothing else of the name is a path.
            file_name = Path(file.filename or "labels").name
            path = Path(folder) / f"labels{Path(file_name).suffix}"
            with full_disk_is_the_users(path), path.open("wb") as copy:
                shutil.copyfileobj(file.file, copy)
            came_of_it = import_labels(
                site.store,
                path,
                site.task(name),
                annotator=annotator.strip() or None,
                format=format,
                rejects=site.project.root / "rejects",
                name=file_name,
            )
        return page(request, name, came_of_it, file_name)

    def page(
        request: Request, name: str, came_of_it: LabelImport | None = None, file: str = ""
    ) -> Response:
        data = {
            "task": site.task(name),
            "formats": get_args(LabelFormat),
            "came_of_it": came_of_it,
            "file": file,
        }
        return site.page(request, "exchange.html", data)

    return router


def exported_file(site: Site, task_name: str, format: LabelFormat) -> Response:
    """A task's labels as a download, read while it is sent.

    A fault on the way breaks the connection, so that no client takes what it has for the whole.
    """
    task = site.task(task_name)
    pieces = stream_labels(site.store, task, format=format)
    # Before the answer begins: what fails at once can still be answered as an error.
    first = next(pieces, "")
    name = f"{task.name}-{format}{ENDINGS[format][0]}"
    return StreamingResponse(
        chain([first], pieces),
        media_type="application/octet-stream",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )
