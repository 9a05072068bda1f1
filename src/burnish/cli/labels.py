"""Commands around the people's part: labels in and out, progress, resolving, errors, a quote."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import get_args

import click

from burnish.cli import drafts
from burnish.cli.settings import opened_project, print_json
from burnish.console import agreement_facts, duration, print_facts, print_rows, share
from burnish.label.interchange import LabelFormat, export_labels, import_labels
from burnish.label.label_errors import label_errors
from burnish.label.quote import Amount, Quote
from burnish.label.quote import quote as run_quote
from burnish.label.resolve import resolve as run_resolve
from burnish.label.status import LabelAgreement, LabelStatus, label_agreement, label_status
from burnish.tasks import find_task

_FILE = click.Path(path_type=Path)
_FORMATS = click.Choice(get_args(LabelFormat))
_TASK = click.option("--task", "task_name", help="The task's name, where there are several.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object as last line.")
# Of a long answer so much is shown in a table.
_SHOWN = 60


@click.group()
def label() -> None:
    """Labels in and out, agreement, progress; people label in `burnish studio`."""


for command in drafts.COMMANDS:
    label.add_command(command)


@label.command("import")
@click.argument("file", type=_FILE)
@click.option("--annotator", help="Who answered, where the rows do not say.")
@click.option("--format", "format_", type=_FORMATS, help="Form of the file; told from its rows.")
@_TASK
def import_(
    file: Path, annotator: str | None, format_: LabelFormat | None, task_name: str | None
) -> None:
    """Add annotations, drafts and gold answers from FILE; adding them again adds nothing."""
    with opened_project() as (project, store):
        result = import_labels(
            store,
            file,
            find_task(project, task_name),
            annotator=annotator,
            format=format_,
            rejects=project.root / "rejects",
        )
    facts = {"annotations": f"{result.added:,} added, {result.known:,} known already"}
    if result.drafts or result.gold:
        facts["beside them"] = f"{result.drafts:,} drafts, {result.gold:,} gold answers"
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
    type=_FORMATS,
    default="jsonl",
    show_default=True,
    help="Form of the file.",
)
@_TASK
def export(out_: Path, format_: LabelFormat, task_name: str | None) -> None:
    """Write every annotation to a file that `label import` reads back."""
    with opened_project() as (project, store):
        count = export_labels(store, out_, find_task(project, task_name), format=format_)
    click.echo(f"{count:,} annotations in {out_}")


@label.command()
@_TASK
@_JSON
def status(task_name: str | None, as_json: bool) -> None:
    """Show how far the labelling is, who did what, and how far people agree."""
    with opened_project() as (project, store):
        task = find_task(project, task_name)
        state, measured = label_status(store, task), label_agreement(store, task)
    _print_status(state, measured)
    if as_json:
        print_json(asdict(state) | {"agreement": asdict(measured)})


@label.command()
@_TASK
def resolve(task_name: str | None) -> None:
    """Settle by the task's rule what annotators agree on; the rest waits for a person."""
    with opened_project() as (project, store):
        result = run_resolve(store, find_task(project, task_name))
    click.echo(f"{result.added:,} examples settled, {result.open:,} wait for a person")
    if result.open:
        click.echo("→ burnish studio, page review")


@label.command()
@click.option(
    "--limit", type=click.IntRange(1), default=20, show_default=True, help="How many to show."
)
@_TASK
@_JSON
def errors(limit: int, task_name: str | None, as_json: bool) -> None:
    """Show the answers that are probably wrong, the likeliest first."""
    with opened_project() as (project, store):
        found = label_errors(store, find_task(project, task_name), limit=limit)
    rows = [(e.example_id, f"{e.score:.2f}", _cut(e.answer), _cut(e.suggestion)) for e in found]
    print_rows("answers to look at", ("example", "score", "answer", "likelier"), rows)
    if as_json:
        print_json({"label_errors": [asdict(error) for error in found]})


@label.command()
@click.option("--price-per-hour", type=float, help="What an hour of a person's time costs.")
@_TASK
@_JSON
def quote(price_per_hour: float | None, task_name: str | None, as_json: bool) -> None:
    """Say how many hours, and how much money, the rest of the labelling will take."""
    with opened_project() as (project, store):
        found = run_quote(store, find_task(project, task_name), price_per_hour)
    _print_quote(found)
    if as_json:
        print_json(asdict(found))


def _print_status(state: LabelStatus, measured: LabelAgreement) -> None:
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
    columns = ("annotator", "submitted", "skipped", "flagged", "gold items", "median seconds")
    rows = [
        (
            p.annotator,
            p.submitted,
            p.skipped,
            p.flagged,
            p.gold,
            None if p.median_seconds is None else f"{p.median_seconds:.1f}",
        )
        for p in state.annotators
    ]
    print_rows("annotators", columns, rows)
    print_facts("agreement", agreement_facts(measured.agreement))
    print_rows(
        "annotators' answers beside the right ones",
        ("annotator", "gold", "as resolved"),
        [(p.annotator, share(p.gold), share(p.resolved)) for p in measured.annotators],
    )


def _print_quote(found: Quote) -> None:
    facts = {
        "to go": f"{found.answers_left:,} answers, about {found.disputes_left:,.0f} disputes",
        "seconds per answer": _amount(found.seconds_per_answer),
        "seconds per dispute": _amount(found.seconds_per_dispute),
        "hours": _amount(found.hours),
        "money": _amount(found.cost),
    }
    print_facts(
        f"task {found.task}, from {found.timed_answers:,} timed answers",
        {name: value for name, value in facts.items() if value is not None},
    )
    print_rows(
        "annotators",
        ("annotator", "timed answers", "seconds per answer"),
        [(p.annotator, p.answers, f"{p.seconds_per_answer:.1f}") for p in found.annotators],
    )
    for note in found.notes:
        click.echo(f"note: {note}")


def _amount(amount: Amount | None) -> str | None:
    if amount is None:
        return None
    return f"{amount.value:,.1f} (95 %: {amount.low:,.1f} to {amount.high:,.1f})"


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= _SHOWN:
        return text
    return text[:_SHOWN] + "…"


COMMANDS: tuple[click.Command, ...] = (label,)
