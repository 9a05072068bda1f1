"""Commands around the people's part: labels in and out, progress, resolving, errors, a quote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import click

from burnish.cli import drafts
from burnish.cli.settings import opened_project, print_json, settings_help
from burnish.console import agreement_facts, print_facts, print_rows, reasons, share
from burnish.label.agreement import Estimate
from burnish.label.destination import check_destination, is_device
from burnish.label.interchange import LabelFormat, export_labels, import_labels
from burnish.label.label_errors import label_errors
from burnish.label.quote import Amount, Quote, status_and_quote
from burnish.label.quote import quote as run_quote
from burnish.label.resolve import resolve as run_resolve
from burnish.label.status import (
    LabelAgreement,
    LabelStatus,
    VersionAgreement,
    label_agreement,
)
from burnish.tasks import find_task
from burnish.units import duration

_FILE = click.Path(path_type=Path)
_FORMATS = click.Choice(get_args(LabelFormat))
_TASK = click.option("--task", "task_name", help="The task's name, where there are several.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object as last line.")
# Of a long answer so much is shown in a table.
_SHOWN = 60


_SETTINGS = settings_help(
    "burnish.tasks",
    "Task",
    "Settings, under [label] in burnish.toml for every task, under [tasks.NAME] for one:",
    but=("name",),
)


@click.group(epilog=_SETTINGS)
def label() -> None:
    """Labels in and out, agreement, progress; people label in `burnish studio`."""


for command in drafts.COMMANDS:
    label.add_command(command)


@label.command("import")
@click.argument("file", type=_FILE)
@click.option("--annotator", help="Who answered, where the rows do not say.")
@click.option(
    "--format", "format_", type=_FORMATS, help="Form of the file; by default told from its rows."
)
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
    if result.rejected:
        facts["refused"] = reasons(result.rejected)
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
    help="Form of the file; by default its ending tells JSON lines from CSV.",
)
@_TASK
def export(out_: Path, format_: LabelFormat | None, task_name: str | None) -> None:
    """Write every annotation to a file that `label import` reads back."""
    with opened_project() as (project, store):
        check_destination(project, store, out_)
        count = export_labels(store, out_, find_task(project, task_name), format=format_)
    click.echo(f"{count:,} annotations in {out_}", err=is_device(out_))


@label.command()
@_TASK
@_JSON
def status(task_name: str | None, as_json: bool) -> None:
    """Show how far the labelling is, who did what, and how far people agree."""
    with opened_project() as (project, store):
        task = find_task(project, task_name)
        (state, rest), measured = status_and_quote(store, task), label_agreement(store, task)
    _print_status(state, rest)
    _print_agreement(measured)
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
        task = find_task(project, task_name)
        found = label_errors(store, task, limit=limit)
    rows = [
        (
            e.example_id,
            f"{e.score:.2f}",
            _cut(" ".join(e.text.split())),
            _cut(e.answer),
            _cut(e.suggestion),
        )
        for e in found
    ]
    if rows:
        print_rows("answers to look at", ("example", "score", "text", "answer", "likelier"), rows)
        page = f"/tasks/{task.name}/review?example=EXAMPLE"
        click.echo(f"→ burnish studio, page {page}, shows what each person said and decides")
    else:
        click.echo("none found: no answer is in force yet that could be wrong")
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


def _print_status(state: LabelStatus, rest: Quote) -> None:
    left = f"unknown: {rest.notes[0]}" if rest.hours is None else _people_time(rest.hours)
    print_facts(
        f"task {state.task}, {state.overlap} {_form('answer', state.overlap)} per example",
        {
            "examples": f"{state.complete:,} of {state.examples:,} complete, {state.begun:,} begun",
            "answers": f"{state.answers:,} given, {state.answers_left:,} to go",
            "disputed": f"{state.disputed:,} wait for a person",
            "resolved": f"{state.resolved:,}",
            "excluded": f"{state.excluded:,}",
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
    if rows:
        print_rows("annotators", columns, rows)
    else:
        click.echo("nobody has labelled yet: burnish studio")


def _print_agreement(measured: LabelAgreement) -> None:
    if measured.agreement.examples:
        print_facts("agreement", agreement_facts(measured.agreement))
    else:
        click.echo("agreement: no example has two answers yet")
    _print_versions(measured.by_version)
    if measured.annotators:
        print_rows(
            "annotators' answers beside the right ones",
            ("annotator", "gold", "as resolved"),
            [(p.annotator, share(p.gold), share(p.resolved)) for p in measured.annotators],
        )


def _print_versions(versions: Sequence[VersionAgreement]) -> None:
    """Nothing where no version has examples to compare."""
    if not versions:
        return
    measure = versions[0].measure.name
    print_rows(
        "agreement by guideline version, each within the version",
        ("version", "in force since", "examples", "annotators", measure, "percent", "change"),
        [
            (
                v.version[:8] or "none",
                v.since,
                v.examples,
                v.annotators,
                _with_interval(v.measure.estimate),
                _with_interval(v.percent),
                _with_interval(v.change, "+.3f"),
            )
            for v in versions
        ],
    )


def _with_interval(estimate: Estimate | None, form: str = ".3f") -> str | None:
    if estimate is None or estimate.value is None:
        return None
    text = format(estimate.value, form)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ({estimate.low:{form}} to {estimate.high:{form}})"


def _print_quote(found: Quote) -> None:
    disputes = round(found.disputes_left)
    facts = {
        "to go": f"{found.answers_left:,} {_form('answer', found.answers_left)}"
        # Before there is a quote their share is a guess from next to nothing.
        + (f", about {disputes:,} {_form('dispute', disputes)}" if found.hours else ""),
        "seconds per answer": _amount(found.seconds_per_answer),
        "seconds per dispute": _amount(found.seconds_per_dispute),
        "hours": _amount(found.hours),
        "money": _amount(found.cost),
    }
    print_facts(
        f"task {found.task}, from {found.timed_answers:,} timed "
        f"{_form('answer', found.timed_answers)}",
        {name: value for name, value in facts.items() if value is not None},
    )
    if found.annotators:
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


def _people_time(hours: Amount) -> str:
    value, low, high = (duration(3600 * h) for h in (hours.value, hours.low, hours.high))
    return f"{value} of people's time (95 %: {low} to {high})"


def _form(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _cut(text: str | None) -> str | None:
    if text is None or len(text) <= _SHOWN:
        return text
    return text[:_SHOWN] + "…"


COMMANDS: tuple[click.Command, ...] = (label,)
