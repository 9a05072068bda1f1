"""burnish.toml, --config, --set and flags into one config; a flag wins over --set, and so on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from burnish.config import build_config, parse_overrides, read_toml, settings_of
from burnish.project import PROJECT_FILE, Project, find_project, require_project
from burnish.store import Store, open_store

C = TypeVar("C")


def stage_config(
    cls: type[C],
    stage: str,
    *,
    config_file: Path | None = None,
    overrides: tuple[str, ...] = (),
    flags: Mapping[str, Any],
) -> C:
    """Build a stage's config: burnish.toml < --config < --set < flags. A flag of None is not given.

    Raises:
        ConfigError: every unknown key and ill-typed value, in one message.
    """
    values: dict[str, Any] = {}
    project = find_project()
    places = []
    if project is not None and project.table(stage):
        values |= project.table(stage)
        places.append(f"{project.root / PROJECT_FILE} [{stage}]")
    if config_file is not None:
        values |= read_toml(config_file).get(stage, {})
        places.append(f"{config_file} [{stage}]")
    if overrides:
        values |= parse_overrides(overrides)
        places.append("--set")
    values |= {name: value for name, value in flags.items() if value is not None}
    return build_config(cls, values, where=", ".join(places) or f"burnish {stage}")


def with_settings(module: str, class_name: str) -> Callable[[click.Command], click.Command]:
    """Add --set and --config to a command, and list its settings at the end of its help."""
    title = "Settings, for --set NAME=VALUE or under the command's name in a TOML file:"

    def decorate(command: click.Command) -> click.Command:
        command.epilog = settings_help(module, class_name, title)
        command.params += [
            click.Option(
                ["--set", "overrides"],
                multiple=True,
                metavar="NAME=VALUE",
                help="Change a setting; may be given again.",
            ),
            click.Option(
                ["--config", "config_file"],
                type=click.Path(path_type=Path),
                help="A TOML file with settings, such as the run.toml beside a checkpoint.",
            ),
        ]
        return command

    return decorate


def settings_help(module: str, class_name: str, title: str, *, but: tuple[str, ...] = ()) -> str:
    """The settings of a config, `but` some, under a title: the end of a command's help."""
    lines = [
        f"{s.name}{f' [{s.default}]' if s.default else ''}: {s.doc}"
        for s in settings_of(module, class_name)
        if s.name not in but
    ]
    return "\n\n".join([title, *lines])


class Number(click.FloatRange):
    """A number that is finite: to click, nan lies in every range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Refuse nan and the infinities, and what is out of range."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


@contextmanager
def opened_project() -> Iterator[tuple[Project, Store]]:
    """The project that holds the working folder, and its store."""
    project = require_project()
    store = open_store(project.store_url)
    try:
        yield project, store
    finally:
        store.close()


def resolve_reference(reference: str) -> str:
    """A path as given; else the folder of the project's artefact of that id or name."""
    if Path(reference).exists():
        return reference
    project = find_project()
    record = project.find(reference) if project is not None else None
    return str(record.path) if record is not None else reference


def register(project: Project | None, folder: Path) -> None:
    """Note a new artefact in the project, when the command runs in one."""
    if project is not None:
        project.register(folder)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object as the last line of standard output."""
    click.echo(json.dumps(value, ensure_ascii=False))
