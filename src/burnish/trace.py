"""Trace: from an id to everything it was made from and everything that was made of it.

    annotation -> example -> snapshots that hold it -> checkpoints tuned on them -> reports

The other way round, a checkpoint names its base, its snapshot and the people whose labels it saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow.parquet as pq

from burnish.errors import ProjectError
from burnish.project import ArtefactRecord, Project, lineage
from burnish.store import Store
from burnish.store.annotations import read_annotation, read_annotations
from burnish.store.answers import Resolution, read_resolutions
from burnish.store.examples import read_example
from burnish.store.findings import read_exclusions
from burnish.types import Annotation, Example


@dataclass(frozen=True, slots=True)
class Trace:
    """Where something comes from and where it went."""

    id: str
    kind: str
    """`example`, `annotation`, or the artefact's kind."""
    example: Example | None = None
    annotations: tuple[Annotation, ...] = ()
    """Of every task."""
    resolutions: tuple[Resolution, ...] = ()
    """The newest of each task."""
    exclusion: str | None = None
    """Why the example is kept out of snapshots, if it is."""
    made_from: tuple[ArtefactRecord, ...] = ()
    """Artefacts it descends from, nearest first."""
    other_parents: tuple[str, ...] = ()
    """Parents that are no artefact of this project: a base or a file from elsewhere."""
    led_to: tuple[ArtefactRecord, ...] = ()
    """Artefacts that descend from it, nearest first."""
    annotators: tuple[tuple[str, int], ...] = ()
    """For an artefact: whose labels stand in its snapshots, and on how many examples."""


def trace(reference: str, store: Store, project: Project) -> Trace:
    """Find an example, an annotation or an artefact by its id, or an artefact by its name.

    Raises:
        ProjectError: nothing of that id here.
    """
    artefact = project.find(reference)
    if artefact is not None:
        return _trace_artefact(artefact, project)
    with store.reading() as connection:
        annotation = read_annotation(connection, reference)
        example = read_example(connection, annotation.example_id if annotation else reference)
        if example is None:
            raise ProjectError(
                "there is no example, annotation or artefact of that id in this project",
                where=reference,
                do="`burnish studio` lists them; an artefact's id stands in its manifest.json",
            )
        given = tuple(read_annotations(connection, example_id=example.id))
        decided = {r.task: r for r in read_resolutions(connection, example_id=example.id)}
        exclusion = read_exclusions(connection).get(example.id)
    return Trace(
        id=reference,
        kind="annotation" if annotation else "example",
        example=example,
        annotations=given,
        resolutions=tuple(decided.values()),
        exclusion=exclusion,
        led_to=_descendants(_snapshots_with(example.id, project), project),
    )


def _trace_artefact(artefact: ArtefactRecord, project: Project) -> Trace:
    made_from, led_to = lineage(project, artefact.id)
    known = {record.id for record in project.artefacts()}
    snapshots = [r for r in (artefact, *made_from) if r.kind == "snapshot"]
    return Trace(
        id=artefact.id,
        kind=artefact.kind,
        made_from=tuple(made_from),
        other_parents=tuple(
            parent
            for record in (artefact, *made_from)
            for parent in record.parents
            if parent not in known
        ),
        led_to=tuple(led_to),
        annotators=_annotators(snapshots),
    )


def _snapshots_with(example_id: str, project: Project) -> list[ArtefactRecord]:
    """The snapshots that hold an example."""
    return [
        record
        for record in project.artefacts()
        if record.kind == "snapshot" and _holds(record, example_id)
    ]


def _holds(snapshot: ArtefactRecord, example_id: str) -> bool:
    wanted = [("example_id", "=", example_id)]
    parts = snapshot.path.glob("*.parquet")
    return any(pq.read_table(p, columns=["example_id"], filters=wanted).num_rows for p in parts)


def _descendants(records: Iterable[ArtefactRecord], project: Project) -> tuple[ArtefactRecord, ...]:
    """The records and all that was made of them, each once."""
    found: dict[str, ArtefactRecord] = {}
    for record in records:
        for one in (record, *lineage(project, record.id)[1]):
            found.setdefault(one.id, one)
    return tuple(found.values())


def _annotators(snapshots: Iterable[ArtefactRecord]) -> tuple[tuple[str, int], ...]:
    counts: Counter[str] = Counter()
    for record in snapshots:
        for part in sorted(record.path.glob("*.parquet")):
            for batch in pq.ParquetFile(part).iter_batches(columns=["annotators"]):
                counts.update(name for names in batch[0].to_pylist() for name in names)
    return tuple(counts.most_common())
