"""What the user named, as files that can be read: paths, folders, globs and URLs."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx

from burnish.errors import InputError
from burnish.files import full_disk_is_the_users
from burnish.progress import progress_bar
from burnish.project import MANIFEST
from burnish.records.rows import SUFFIXES

# For a URL whose path does not end in one of SUFFIXES.
_CONTENT_TYPES = {
    "application/json": ".json",
    "application/jsonl": ".jsonl",
    "application/x-ndjson": ".jsonl",
    "application/vnd.apache.parquet": ".parquet",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "text/plain": ".txt",
}
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read."""

    name: str
    """What its examples name as their source."""
    path: Path


def find_sources(named: tuple[str, ...], downloads: Path) -> tuple[list[Source], list[InputError]]:
    """Expand what the user named; URLs are downloaded into `downloads` first.

    Returns also an error for each name where nothing is, or that a server does not give: all
    faults are to be reported together.
    """
    found: dict[Path, Source] = {}
    faults = []
    for name in named:
        try:
            sources = _find(name, downloads)
        except InputError as error:
            faults.append(error)
        else:
            found |= {s.path.absolute(): s for s in sources if s.path.absolute() not in found}
    return list(found.values()), faults


def _find(name: str, downloads: Path) -> list[Source]:
    if name.startswith(("http://", "https://")):
        return [_download(name, downloads)]
    path = Path(name)
    if path.is_dir() and not (path / MANIFEST).is_file():
        return _in_folder(path)
    if path.exists() or glob.escape(name) == name:
        return [Source(path.absolute().name, path)]
    # Path.glob takes no absolute pattern.
    matches = sorted(map(Path, glob.glob(name, recursive=True)))  # noqa: PTH207
    files = [path for path in matches if path.is_file()]
    if not files:
        raise InputError("no file matches", where=name, do="check the path and the quotes")
    return [Source(path.name, path) for path in files]


def _in_folder(folder: Path) -> list[Source]:
    """Every readable file below a folder, hidden ones left out, named from the folder on."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise InputError(
            f"no file here ends in {', '.join(SUFFIXES)}",
            where=str(folder),
            do="name the files, or another folder",
        )
    top = folder.absolute()
    return [Source(str(path.absolute().relative_to(top.parent)), path) for path in files]


def _download(url: str, downloads: Path) -> Source:
    """Stream a URL into a file; the source's name is the URL without credentials and query."""
    name = url
    try:
        parsed = httpx.URL(url)
        name = str(parsed.copy_with(username=None, password=None, query=None, fragment=None))
        with httpx.stream(
            "GET", parsed, follow_redirects=True, timeout=_TIMEOUT_SECONDS
        ) as response:
            response.raise_for_status()
            file_name = _file_name(parsed.path, response.headers.get("content-type", ""))
            folder = downloads / str(len(list(downloads.iterdir())))
            folder.mkdir()
            _write(response, folder / file_name)
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        reason = f"the server answers {status} {error.response.reason_phrase}"
        raise InputError(reason, where=name, do="check the URL and your access") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise InputError(
            f"cannot be downloaded ({error or type(error).__name__})",
            where=name,
            do="check the URL and the network, then run the same command again",
        ) from error
    return Source(name, folder / file_name)


def _write(response: httpx.Response, path: Path) -> None:
    length = response.headers.get("content-length")
    total = int(length) if length else None
    with (
        full_disk_is_the_users(path),
        path.open("wb") as file,
        progress_bar(f"downloading {path.name}", unit="B", total=total) as bar,
    ):
        before = 0
        for chunk in response.iter_bytes():
            file.write(chunk)
            bar.update(response.num_bytes_downloaded - before)
            before = response.num_bytes_downloaded


def _file_name(url_path: str, content_type: str) -> str:
    name = PurePosixPath(url_path).name or "download"
    if PurePosixPath(name).suffix.lower() in SUFFIXES:
        return name
    return name + _CONTENT_TYPES.get(content_type.partition(";")[0].strip().lower(), "")
