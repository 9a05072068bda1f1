"""Commands around the people's part: label import, export, status, resolve."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from burnish.cli.settings import opened_project, print_json
from burnish.console import agreement_facts, duration, print_facts, print_rows
from burnish.label.interchange import LabelFormat, export_labels, import_labels
from burnish.label.resolve import resolve as run_resolve
from burnish.label.status import LabelStatus, label_status
from burnish.tasks import find_task

_FILE = click.Path(path_type=Path)


@click.group()
def label() -> None:
    """Labels in and out, agreement, progress; people label in `burnish studio`."""


@label.command("import")
@click.argument("file", type=_FILE)
@click.option("--annotator", help="Who answered, where the rows do not say.")
def import_(file: Path, annotator: str | None) -> None:
    """Add annotations from FILE; adding them again adds nothing."""
    with opened_project() as (project, store):
        result = import_labels(
            store,
            file,
            find_task(project),
            annotator=annotator,
            rejects=project.root / "rejects",
        )
    facts = {"annotations": f"{result.added:,} added, {result.known:,} known already"}
    facts |= {f"refused {count:,}": reason for reason, count in result.rejected.items()}
    if result.rejects is not None:
        facts["kept in"] = str(result.rejects)
    print_facts(file.name, facts)
    click.echo("→ burnish label status")


@label.command()
@click.option("--out", "out_", required=True, type=_FILE, help="The file to write.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(("jsonl", "csv")),
    default="jsonl",
    show_default=True,
    help="Form of the file.",
)
def export(out_: Path, format_: LabelFormat) -> None:
    """Write every annotation to a file that `label import` reads back."""
    with opened_project() as (project, store):
        count = export_labels(store, out_, find_task(project), format=format_)
    click.echo(f"{count:,} annotations in {out_}")


@label.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def status(as_json: bool) -> None:
    """Show how far the labelling is, who did what, and how far people agree."""
    with opened_project() as (project, store):
        state = label_status(store, find_task(project))
    _print_status(state)
    if as_json:
        plain = asdict(state)
        pairs = plain["agreement"]["cohen_kappa"]
        plain["agreement"]["cohen_kappa"] = {" and ".join(k): v for k, v in pairs.items()}
        print_json(plain)


@label.command()
def resolve() -> None:
    """Settle by the project's rule what annotators agree on; the rest waits for a person."""
    with opened_project() as (project, store):
        result = run_resolve(store, find_task(project))
    click.echo(f"{result.added:,} examples settled, {result.open:,} wait for a person")
    if result.open:
        click.echo("→ burnish studio, page review")


def _print_status(state: LabelStatus) -> None:
    left = "unknown until somebody labels in the studio"
    if state.seconds_left is not None:
        left = f"{duration(state.seconds_left)} of a person's time"
    print_facts(
        f"task {state.task}, {state.overlap} answers per example",
        {
            "examples": f"{state.complete:,} of {state.examples:,} complete, {state.begun:,} begun",
            "answers": f"{state.answers:,} given, {state.answers_left:,} to go",
            "disputed": f"{state.disputed:,} wait for a person",
            "resolved": f"{state.resolved:,}",
            "time left": left,
        },
    )
    columns = ("annotator", "submitted", "skipped", "flagged", "as resolved", "median seconds")
    rows = [
        (
            p.annotator,
            p.submitted,
            p.skipped,
            p.flagged,
            None if p.agreement is None else f"{p.agreement:.1%} of {p.resolved:,}",
            None if p.median_seconds is None else f"{p.median_seconds:.1f}",
        )
        for p in state.annotators
    ]
    print_rows("annotators", columns, rows)
    print_facts("agreement", agreement_facts(state.agreement))


COMMANDS: tuple[click.Command, ...] = (label,)
