"""`burnish demo`: every stage once, on real requests, as a team would run them.

Each stage picks up what is there, so a demo that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import tomli_w

from burnish.audit import AuditConfig, audit
from burnish.collect import CollectConfig, collect
from burnish.console import (
    agreement_facts,
    out,
    print_facts,
    print_preflight,
    print_rows,
    share,
)
from burnish.demo.labels import REFUSAL, answer_of, write_labels
from burnish.evaluate.answerer import model_answerer
from burnish.evaluate.evaluate import EvaluateConfig, evaluate
from burnish.files import replaced_file
from burnish.label.interchange import import_labels
from burnish.label.resolve import adjudicate, open_disputes, resolve
from burnish.label.status import label_agreement
from burnish.nn.bases import STARTER
from burnish.nn.models import load_model
from burnish.project import PROJECT_FILE, Project, init_project, open_project
from burnish.records import read_examples, training_prompts
from burnish.serve.serve import ServeConfig, serving
from burnish.snapshot import SnapshotConfig, SnapshotResult, snapshot
from burnish.store import Store, open_store
from burnish.store.examples import read_examples as read_stored
from burnish.tasks import find_task
from burnish.tune.config import TuneConfig
from burnish.tune.tune import tune
from burnish.types import Checkpoint, Example, Report
from burnish.units import duration

SYSTEM = "You sort a bank's requests. Answer with the intent, or refuse what is not about banking."
LICENCE = "CC-BY-3.0"
REVIEWER = "carol"

# Chosen on the validation part; docs/LOG.md has the runs.
EPOCHS = 8.0
LEARNING_RATE = 1e-3
BATCH_EXAMPLES = 16
# The requests are learned too, lightly: language modelling beside the task, which GPT (Radford et
# al., 2018) found to help where labels are few.
REQUEST_WEIGHT = 0.2


def demo(folder: Path) -> None:
    """Take the road in `folder`, which becomes a project.

    Raises:
        UserError: `folder` holds something else; the disk is full.
    """
    started = time.monotonic()
    project = _open(folder)
    store = open_store(project.store_url)
    try:
        with _stage("1 collect: 3,450 requests that people wrote (CLINC150, CC BY 3.0)"):
            intents = _collect(project, store)
        with _stage("2 label: two annotators; Ben errs on 8 % of the requests, on purpose"):
            _label(project, store, intents)
        with _stage("3 audit"):
            _audit(project, store)
        with _stage("4 snapshot"):
            frozen = _snapshot(project, store)
    finally:
        store.close()
    with _stage("5 tune the starter base, every weight"):
        tuned = _tune(project, frozen)
    with _stage("6 evaluate base and tuned on the same held-out requests"):
        report = _evaluate(project, frozen, tuned)
    with _stage("7 serve, and ask over HTTP"):
        _ask(project, tuned, sorted(set(intents.values()) - {"oos"}))
    _print_end(project, tuned, report, time.monotonic() - started)


@contextmanager
def _stage(title: str) -> Iterator[None]:
    out.rule(f"[bold]{title}", align="left")
    started = time.monotonic()
    yield
    out.print(f"[dim]{duration(time.monotonic() - started)}[/dim]\n")


def _open(folder: Path) -> Project:
    if (folder / PROJECT_FILE).exists():
        return open_project(folder)
    init_project(folder)
    settings = (folder / PROJECT_FILE).read_text(encoding="utf-8")
    two_annotators = settings.replace("overlap = 1 ", "overlap = 2 ")
    assert two_annotators != settings
    choices = sorted({answer_of(row["intent"]) for row in _published()})
    # [label] is the last table of the file.
    chosen = tomli_w.dumps({"choices": choices})
    (folder / PROJECT_FILE).write_text(two_annotators + chosen, encoding="utf-8")
    (folder / "guidelines.md").write_text(
        "# Guidelines\n\nName the intent of the request. If the bank cannot help with it, write:\n"
        f"{REFUSAL}\n",
        encoding="utf-8",
    )
    return open_project(folder)


def _bundled(name: str) -> list[str]:
    return (resources.files("burnish") / "demo" / name).read_text(encoding="utf-8").splitlines()


def _published() -> list[dict[str, Any]]:
    return [json.loads(line) for line in _bundled("clinc150_banking.jsonl")]


def _collect(project: Project, store: Store) -> dict[str, str]:
    """Collect the bundled requests; returns the published intent by example id.

    Also some that nobody has answered: they wait in the studio for whoever tries it.
    """
    published = _published()
    # What a team would have: requests as they came in, without their intents.
    _collect_requests(project, store, "requests.jsonl", published, LICENCE)
    new = [{"text": text, "split": "train"} for text in _bundled("new_requests.txt")]
    _collect_requests(project, store, "new_requests.jsonl", new, "Apache-2.0")
    intents = {row["id"]: row["intent"] for row in published}
    with store.reading() as connection:
        examples = read_stored(connection)
        return {e.id: intents[e.metadata["id"]] for e in examples if "id" in e.metadata}


def _collect_requests(
    project: Project, store: Store, name: str, rows: list[dict[str, Any]], licence: str
) -> None:
    path = project.root / name
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            turns = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": row["text"], "weight": REQUEST_WEIGHT},
            ]
            kept = {key: row[key] for key in ("id", "split") if key in row}
            file.write(json.dumps({"messages": turns, **kept}) + "\n")
    config = CollectConfig((str(path),), licence=licence, rejects=project.root / "rejects")
    result = collect(config, store)
    known = sum(source.known for source in result.sources)
    out.print(f"{name}: {result.added:,} examples added, {known:,} known already")


def _label(project: Project, store: Store, intents: dict[str, str]) -> None:
    task = find_task(project)
    for path in write_labels(project.root, intents):
        result = import_labels(store, path, task, rejects=project.root / "rejects")
        out.print(f"{path.name}: {result.added:,} labels added, {result.known:,} known already")
    before = label_agreement(store, task)
    print_facts("agreement", agreement_facts(before.agreement))
    resolve(store, task)
    disputes = open_disputes(store, task)
    decisions = {example: answer_of(intents[example]) for example in disputes}
    adjudicate(store, task, decisions, person=REVIEWER)
    out.print(f"{len(disputes):,} disputes, each decided by {REVIEWER}")
    people = label_agreement(store, task).annotators
    print_rows(
        "annotators",
        ("annotator", "labels resolved", "equal to the resolved answer"),
        [(p.annotator, p.resolved.examples, share(p.resolved)) for p in people],
    )


def _audit(project: Project, store: Store) -> None:
    result = audit(AuditConfig(fix=True), store, project)
    counts = Counter(finding.check for finding in result.findings)
    out.print(", ".join(f"{n} {check}" for check, n in counts.items()) or "no findings")
    out.print(f"{result.excluded:,} examples excluded, each with its reason")


def _snapshot(project: Project, store: Store) -> SnapshotResult:
    frozen = snapshot(SnapshotConfig(split_field="split", name="banking"), store, project)
    parts = ", ".join(f"{count:,} {split}" for split, count in frozen.examples.items())
    out.print(f"{frozen.id}: {parts}")
    return frozen


def _tune(project: Project, frozen: SnapshotResult) -> Checkpoint:
    config = TuneConfig(
        data=str(frozen.path),
        base=STARTER,
        out=project.root / "tuned",
        technique="full",
        epochs=EPOCHS,
        learning_rate=LEARNING_RATE,
        batch_examples=BATCH_EXAMPLES,
    )
    tuned = tune(config, on_preflight=lambda t: print_preflight(t, price_per_hour=None, watts=None))
    project.register(tuned.path, "tuned")
    metrics = tuned.metrics
    out.print(
        f"loss {metrics['first_loss']:.3f} → {metrics['last_loss']:.3f} in {metrics['steps']} "
        f"steps, {metrics['tokens_per_second']:,.0f} tokens/s"
    )
    return tuned


def _evaluate(project: Project, frozen: SnapshotResult, tuned: Checkpoint) -> Report:
    items = [_with_scope(e) for e in read_examples(frozen.path, split="test").examples]
    config = EvaluateConfig(
        out=project.root / "report", score="exact", slice_by=("scope",), max_tokens=16
    )
    report = evaluate(
        config,
        items,
        model_answerer("tuned", load_model(str(tuned.path)), config.max_tokens),
        model_answerer(STARTER, load_model(STARTER), config.max_tokens),
        training_prompts=training_prompts(tuned.path),
        data_id=frozen.id,
    )
    project.register(report.path, "report")
    rows = []
    for part in (report.results["overall"], *report.results["slices"]):
        base, candidate = (part[side]["mean"] for side in ("base", "candidate"))
        rows.append((part["name"], part["n"], f"{base:.1%}", f"{candidate:.1%}", part["verdict"]))
    print_rows("accuracy", ("requests", "n", STARTER, "tuned", "verdict"), rows)
    out.print(report.results["headline"])
    return report


def _with_scope(example: Example) -> Example:
    answer = example.conversation.answer
    assert answer is not None
    scope = "out of scope" if answer.content == REFUSAL else "in scope"
    return replace(example, metadata={**example.metadata, "scope": scope})


def _ask(project: Project, tuned: Checkpoint, intents: list[str]) -> None:
    restrictions = project.root / "restrictions.toml"
    rules = {"refusal": REFUSAL, "allowed_answers": [*intents, REFUSAL]}
    restrictions.write_text(tomli_w.dumps(rules), encoding="utf-8")
    config = ServeConfig(
        str(tuned.path),
        port=0,
        restrictions=restrictions,
        feedback=project.root / "feedback.jsonl",
    )
    with serving(config) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        for request in ("my card was stolen, please block my account", "how tall is mount everest"):
            turns = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": request},
            ]
            answer = client.post("/v1/chat/completions", json={"model": "tuned", "messages": turns})
            said = answer.raise_for_status().json()["choices"][0]["message"]["content"]
            print_facts(f"POST {url}/v1/chat/completions", {"user": request, "assistant": said})


def _print_end(project: Project, tuned: Checkpoint, report: Report, seconds: float) -> None:
    root = project.root
    out.rule(f"[bold]done in {duration(seconds)}", align="left")
    facts: dict[str, Any] = {}
    activate = Path(sys.prefix, "bin", "activate")
    if shutil.which("burnish") is None and activate.is_file():
        facts["first, in your shell"] = f"source {os.path.relpath(activate)}"
    facts |= {
        "the report": report.path / "report.html",
        "serve it": f"burnish serve {tuned.path} --set restrictions={root}/restrictions.toml",
        "label in the browser": f"(cd {root} && burnish studio)",
        "where it comes from": f"(cd {root} && burnish trace tuned)",
        "your own data": f"burnish tune YOUR.jsonl --base {STARTER} --out mine --dry-run",
    }
    print_facts("next", facts)
