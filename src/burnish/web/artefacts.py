"""/artefacts : snapshots, checkpoints and reports, what they were made from and what came of them.

An artefact's files may come from anywhere, so a browser gets them without rights: a report's HTML
in a sandbox without scripts, other text as plain text, the rest as a download.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse, Response

from burnish.errors import ProjectError
from burnish.project import ArtefactRecord, lineage, read_manifest
from burnish.web.site import Site

_SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_TEXT = {".json", ".jsonl", ".txt", ".md", ".toml", ".csv", ".log", ".jinja"}


def artefact_pages(site: Site) -> APIRouter:
    """The list, one artefact, and its files."""
    router = APIRouter()

    @router.get("/artefacts")
    def artefacts(request: Request) -> Response:
        records = {record.id: record for record in site.project.artefacts()}
        newest_first = [_record_data(site, record) for record in reversed(records.values())]
        return site.page(request, "artefacts.html", {"artefacts": newest_first})

    @router.get("/artefacts/{artefact_id}")
    def artefact(request: Request, artefact_id: str) -> Response:
        record = _find(site, artefact_id)
        ancestors, descendants = lineage(site.project, record.id)
        known = {a.id for a in ancestors}
        data = {
            "artefact": _record_data(site, record),
            "made_from": [_record_data(site, a) for a in ancestors],
            "elsewhere": [parent for parent in record.parents if parent not in known],
            "led_to": [_record_data(site, d) for d in descendants],
            **_contents(record),
        }
        return site.page(request, "artefact.html", data)

    @router.get("/artefacts/{artefact_id}/files/{path:path}")
    def file(artefact_id: str, path: str) -> Response:
        record = _find(site, artefact_id)
        file = record.path / path
        # Only what the manifest lists, and only where it says: no .. and no link leads out.
        listed = path in _contents(record)["files"]
        if not listed or not file.resolve().is_relative_to(record.path.resolve()):
            raise HTTPException(404, f"{record.id} has no file {path!r}")
        headers = {"Content-Security-Policy": _SANDBOX}
        if file.suffix == ".html":
            return FileResponse(file, media_type="text/html; charset=utf-8", headers=headers)
        if file.suffix in _TEXT:
            return FileResponse(file, media_type="text/plain; charset=utf-8", headers=headers)
        return FileResponse(
            file, media_type="application/octet-stream", filename=file.name, headers=headers
        )

    return router


def _find(site: Site, artefact_id: str) -> ArtefactRecord:
    for record in reversed(site.project.artefacts()):
        if record.id == artefact_id:
            return record
    raise HTTPException(404, f"there is no artefact {artefact_id!r}")


def _record_data(site: Site, record: ArtefactRecord) -> dict[str, Any]:
    root = site.project.root.resolve()
    inside = record.path.is_relative_to(root)
    return {
        "id": record.id,
        "kind": record.kind,
        "name": record.name,
        "path": record.path.relative_to(root) if inside else record.path,
        "parents": record.parents,
        "created_at": record.created_at,
        "page": _page(record.path),
    }


def _page(folder: Path) -> str | None:
    """The HTML page of a report."""
    return "report.html" if (folder / "report.html").is_file() else None


def _contents(record: ArtefactRecord) -> dict[str, Any]:
    """Facts and files of the manifest; `missing` says why where it cannot be read."""
    try:
        manifest = read_manifest(record.path)
    except ProjectError as error:
        return {"facts": {}, "files": {}, "missing": str(error)}
    files = {
        name: {"sha256": sha256, "bytes": _bytes(record.path / name)}
        for name, sha256 in manifest["files"].items()
    }
    return {"facts": manifest["facts"], "files": files, "missing": None}


def _bytes(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
