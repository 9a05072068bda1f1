"""Commands of the world of words: init, collect, label, audit, snapshot, trace, studio."""

from __future__ import annotations

from pathlib import Path

import click

from burnish.project import init_project


@click.command()
@click.argument("folder", default=".", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a project in FOLDER (default: here)."""
    project = init_project(folder)
    click.echo(f"project {project.name} in {project.root}")
    click.echo("→ burnish collect FILE...")


COMMANDS: tuple[click.Command, ...] = (init,)
