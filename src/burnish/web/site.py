"""What pages work with: the project, its store, and one way to answer in HTML or JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fastapi import Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from burnish.errors import InputError
from burnish.hashing import content_hash
from burnish.label.guidelines import checked_annotator
from burnish.project import Project
from burnish.store import Store
from burnish.tasks import Task
from burnish.types import Example

STATIC = Path(__file__).parent / "static"

_COOKIE = "burnish_annotator"
_YEAR = 365 * 24 * 3600

# Raw HTML in guidelines is shown as text, and links may not run scripts (markdown-it's default).
_markdown = MarkdownIt("commonmark", {"html": False}).enable("table")


@dataclass(frozen=True, slots=True)
class Site:
    """One project's studio."""

    project: Project
    store: Store
    task: Task

    def page(self, request: Request, template: str, data: dict[str, Any]) -> Response:
        """`data` in the template, or as JSON where the URL ends in `.json`."""
        if request.url.path.endswith(".json"):
            return JSONResponse(to_json(data))
        shared = {
            "project": self.project.name,
            # Browsers keep work by origin, and another project may later have the same port.
            "project_key": content_hash(str(self.project.root.absolute()))[:8],
            "path": request.url.path,
            "task": self.task.name,
            "annotator": annotator_of(request),
        }
        return HTMLResponse(_templates.get_template(template).render(shared | data))


def annotator_of(request: Request) -> str | None:
    """The name the browser's cookie gives, or None where there is none that can be used."""
    try:
        return checked_annotator(unquote(request.cookies.get(_COOKIE, "")))
    except InputError:
        return None


def remember_annotator(response: Response, name: str) -> None:
    """Keep the name in a cookie that other sites cannot make the browser send."""
    name = quote(checked_annotator(name))
    response.set_cookie(_COOKIE, name, max_age=_YEAR, httponly=True, samesite="strict")


def example_data(example: Example) -> dict[str, Any]:
    """An example as pages and JSON show it."""
    conversation = example.conversation
    return {
        "id": example.id,
        "messages": conversation.prompt.to_json()["messages"],
        "draft": conversation.answer.content if conversation.answer else "",
        "metadata": dict(example.metadata),
        "source": example.source,
        "licence": example.licence,
        "received_at": example.received_at,
    }


def to_json(value: Any) -> Any:
    """Plain JSON of dataclasses, paths and dicts; a pair as a key becomes `a and b`."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, dict):
        return {
            " and ".join(key) if isinstance(key, tuple) else key: to_json(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def markdown(text: str) -> Markup:
    """Markdown as HTML that is safe to show."""
    return Markup(_markdown.render(text))


def breakable(name: str) -> Markup:
    """A name that may be broken after an underscore where the column is narrow."""
    return escape(name).replace("_", Markup("_<wbr>"))


def duration(seconds: float) -> str:
    """A length of time in the unit a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(bytes_: int) -> str:
    """A file's size."""
    value = float(bytes_)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def moment(iso: str) -> str:
    """An ISO 8601 time to the minute."""
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


_templates = Environment(
    loader=PackageLoader("burnish.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "markdown": markdown,
    "breakable": breakable,
    "duration": duration,
    "size": size,
    "moment": moment,
    "count": "{:,}".format,
    "share": "{:.0%}".format,
}
