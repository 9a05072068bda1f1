"""What pages work with: the project, its store, its tasks, and one way to answer in HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from burnish.errors import ProjectError
from burnish.hashing import content_hash
from burnish.label.guidelines import Guidelines, current_guidelines
from burnish.project import Project
from burnish.store import Store
from burnish.tasks import Task
from burnish.units import duration, size
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

    def guidelines(self, task: Task) -> Guidelines | None:
        """None where the file cannot be read: people go on labelling without."""
        try:
            return current_guidelines(self.store, self.project, task)
        except ProjectError:
            return None

    def page(
        self, request: Request, template: str, data: Mapping[str, Any], status: int = 200
    ) -> Response:
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
        html = _templates.get_template(template).render(shared | dict(data))
        return HTMLResponse(html, status)


# The labelling page has the same guidelines with every example: 1 ms of work for a page of them.
@lru_cache(maxsize=32)
def markdown(text: str) -> Markup:
    """Markdown as HTML that is safe to show."""
    return Markup(_markdown.render(text))


def breakable(name: str) -> Markup:
    """A name that may be broken after an underscore where the column is narrow."""
    return escape(name).replace("_", Markup("_<wbr>"))


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
