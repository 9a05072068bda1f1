"""What pages work with: the project, its store, its tasks, and one way to answer in HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from burnish.hashing import content_hash
from burnish.project import Project
from burnish.store import Store
from burnish.tasks import Task
from burnish.web.identity import visitor_of

STATIC = Path(__file__).parent / "static"

# Raw HTML in guidelines is shown as text, and links may not run scripts (markdown-it's default).
_markdown = MarkdownIt("commonmark", {"html": False}).enable("table")


@dataclass(frozen=True, slots=True)
class Site:
    """One project's studio."""

    project: Project
    store: Store
    tasks: Mapping[str, Task]

    def task(self, name: str) -> Task:
        """The task that a page's address names; 404 where there is none."""
        if name not in self.tasks:
            raise HTTPException(404, f"the project has no task {name!r}")
        return self.tasks[name]

    def page(self, request: Request, template: str, data: Mapping[str, Any]) -> Response:
        """`data` in the template. With a `task` in it, the page stands among the task's pages."""
        person = visitor_of(request)
        shared = {
            "project": self.project.name,
            # Browsers keep work by origin, and another project may later have the same port.
            "project_key": content_hash(str(self.project.root.absolute()))[:8],
            "path": request.url.path,
            "task": None,
            "person": person,
            "csrf": person.csrf if person else "",
        }
        return HTMLResponse(_templates.get_template(template).render(shared | dict(data)))


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
