"""Commands of the world of words: init, collect, audit, snapshot, trace, studio."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from burnish.audit import AuditConfig
from burnish.audit import audit as run_audit
from burnish.cli.settings import opened_project, print_json, settings_help, stage_config
from burnish.collect import CollectConfig, SourceResult
from burnish.collect import collect as run_collect
from burnish.console import print_facts, print_rows, reasons
from burnish.project import init_project, require_project
from burnish.snapshot import SnapshotConfig
from burnish.snapshot import snapshot as run_snapshot
from burnish.store import open_store
from burnish.trace import Trace
from burnish.trace import trace as run_trace


@click.command()
@click.argument("folder", default=".", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a project in FOLDER (default: here)."""
    project = init_project(folder)
    open_store(project.store_url).close()
    click.echo(f"project {project.name} in {project.root}")
    click.echo("→ burnish collect FILE...")


_OF_COLLECT = settings_help(
    "burnish.collect.collect",
    "CollectConfig",
    "Settings, under [collect] in burnish.toml:",
    but=("sources", "rejects"),
)
_OF_AUDIT = settings_help(
    "burnish.audit.audit", "AuditConfig", "Settings, under [audit] in burnish.toml:"
)
_OF_SNAPSHOT = settings_help(
    "burnish.snapshot", "SnapshotConfig", "Settings, under [snapshot] in burnish.toml:"
)
_OF_WEBHOOKS = settings_help(
    "burnish.label.webhooks", "WebhookConfig", "Settings, under [webhooks] in burnish.toml:"
)


@click.command(epilog=_OF_COLLECT)
@click.argument("sources", nargs=-1, required=True)
@click.option("--as", "as_format", help="Name of the format, when it should not be recognised.")
@click.option("--licence", help="Licence of the records, kept with each.")
@click.option("--consent", help="What the people behind the records agreed to.")
@click.option("--subject", help="The field that says whose personal data a record is.")
def collect(
    sources: tuple[str, ...],
    as_format: str | None,
    licence: str | None,
    consent: str | None,
    subject: str | None,
) -> None:
    """Take records from files, folders, globs and URLs into the project, each one once."""
    with opened_project() as (project, store):
        config = stage_config(
            CollectConfig,
            "collect",
            flags={
                "sources": list(sources),
                "as_format": as_format,
                "licence": licence,
                "consent": consent,
                "subject": subject,
                "rejects": project.root / "rejects",
            },
        )
        result = run_collect(config, store)
        for source in result.sources:
            _print_source(source)
        click.echo(f"{result.added:,} examples added")
        click.echo("→ burnish label import FILE, burnish studio, or burnish audit")


def _print_source(source: SourceResult) -> None:
    conversation = source.sample.conversation
    sample = " | ".join(f"{m.role}: {m.content}" for m in conversation.messages)
    facts = {
        "format": source.format,
        "first row": sample if len(sample) < 300 else sample[:300] + "…",
        "examples": f"{source.added:,} added, {source.known:,} known already",
    }
    if source.without_subject:
        facts["no subject"] = f"{source.without_subject:,} examples name nobody"
    if source.rejected:
        facts["refused"] = reasons(source.rejected)
    if source.rejects is not None:
        facts["kept in"] = str(source.rejects)
    print_facts(source.name, facts)


@click.command(epilog=_OF_AUDIT)
@click.option("--fix", is_flag=True, default=None, help="Exclude what is safe to exclude.")
@click.option("--task", help="Whose answers; by default those of the project's only task.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def audit(fix: bool | None, task: str | None, as_json: bool) -> None:
    """Look for duplicates, empty and conflicting answers; nothing is ever deleted."""
    with opened_project() as (project, store):
        config = stage_config(AuditConfig, "audit", flags={"fix": fix, "task": task})
        result = run_audit(config, store, project)
    counts = Counter(finding.check for finding in result.findings)
    print_rows("findings", ("check", "count"), sorted(counts.items()))
    for finding in result.findings[:10]:
        click.echo(f"  {finding.check}: {finding.message}")
    if len(result.findings) > 10:
        click.echo(f"  … and {len(result.findings) - 10:,} more")
    kept = [(source, after, before) for source, (before, after) in result.survival.items()]
    print_rows("survival", ("source", "kept", "of"), kept)
    fixable = sum(f.fix is not None for f in result.findings)
    if result.excluded:
        click.echo(f"{result.excluded:,} examples excluded from snapshots, each with its reason")
    elif fixable:
        click.echo(f"→ burnish audit --fix mends {fixable:,} of the findings")
    if as_json:
        survival = {s: {"before": b, "after": a} for s, (b, a) in result.survival.items()}
        findings = [asdict(finding) for finding in result.findings]
        print_json({"findings": findings, "excluded": result.excluded, "survival": survival})


@click.command(epilog=_OF_SNAPSHOT)
@click.option("--name", help="A name to call it by, beside its id.")
@click.option("--split-field", help="The metadata field that says each example's split.")
@click.option("--task", help="Whose answers; by default those of the project's only task.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def snapshot(name: str | None, split_field: str | None, task: str | None, as_json: bool) -> None:
    """Freeze the labelled, audited examples for training: immutable, named by content."""
    with opened_project() as (project, store):
        flags = {"name": name, "split_field": split_field, "task": task}
        config = stage_config(SnapshotConfig, "snapshot", flags=flags)
        result = run_snapshot(config, store, project)
    facts = {split: f"{count:,} examples" for split, count in result.examples.items()}
    facts |= {f"left out: {why}": f"{count:,}" for why, count in result.left_out.items()}
    if result.straddling:
        facts["straddling"] = f"{result.straddling:,} prompts stand in more than one split"
    print_facts(f"{result.id}{'' if result.is_new else ' (frozen before)'}", facts)
    click.echo(f"→ burnish tune {result.path} --base BASE --out DIR")
    if as_json:
        print_json(
            {
                "snapshot": str(result.path),
                "id": result.id,
                "examples": dict(result.examples),
                "left_out": dict(result.left_out),
                "is_new": result.is_new,
            }
        )


@click.command()
@click.argument("reference", metavar="ID")
def trace(reference: str) -> None:
    """Walk from an example, annotation or artefact to what made it and what it led to."""
    with opened_project() as (project, store):
        found = run_trace(reference, store, project)
    if found.example is not None:
        _print_example(found)
    if found.annotators:
        print_rows("labels by", ("annotator", "examples"), list(found.annotators))
    rows: list[tuple[Any, ...]] = [
        ("made from", r.kind, r.id, r.name, r.path) for r in found.made_from
    ]
    rows += [("made from", "elsewhere", parent, None, None) for parent in found.other_parents]
    rows += [("led to", r.kind, r.id, r.name, r.path) for r in found.led_to]
    print_rows(f"{found.kind} {found.id}", ("", "kind", "id", "name", "folder"), rows)


def _print_example(found: Trace) -> None:
    example = found.example
    assert example is not None
    facts: dict[str, str] = {m.role: m.content for m in example.conversation.messages}
    facts |= {"source": example.source, "received": example.received_at or "-"}
    facts |= {"licence": example.licence or "-", "consent": example.consent or "-"}
    for decided in found.resolutions:
        facts[f"{decided.task} resolved"] = f"{decided.answer} (by {decided.resolved_by})"
    if found.exclusion is not None:
        facts["excluded"] = found.exclusion
    print_facts(f"example {example.id}", facts)
    columns = ("task", "annotator", "answer", "status", "guidelines", "at")
    rows = [
        (a.task, a.annotator, a.answer, a.status, a.guideline_version[:8] or None, a.created_at)
        for a in found.annotations
    ]
    print_rows("annotations", columns, rows)


@click.command(epilog=_OF_WEBHOOKS)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; others than this machine's own need `burnish users add` first.",
)
@click.option("--port", type=int, default=8000, show_default=True, help="Port; 0 takes a free one.")
@click.option(
    "--processes", type=int, default=1, show_default=True, help="How many share the port."
)
def studio(host: str, port: int, processes: int) -> None:
    """Open the web app: label, review, progress, artefacts; and the API under /api/v1."""
    from burnish.web.studio import studio as run

    run(require_project(), host=host, port=port, processes=processes)


COMMANDS: tuple[click.Command, ...] = (init, collect, audit, snapshot, trace, studio)
