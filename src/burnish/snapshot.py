"""The stage: freeze the labelled, audited examples into Parquet, split, named by content.

    SNAPSHOT/
      train.parquet validation.parquet test.parquet    a split without examples has no file
      manifest.json                                    counts, settings, what was left out

`records.read_records` reads a snapshot back; it is the only door from words to tensors.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from burnish.errors import ConfigError, InputError, ProjectError
from burnish.files import replaced_folder
from burnish.progress import progress
from burnish.project import Project, seal_artefact
from burnish.records.fingerprint import prompt_fingerprint
from burnish.records.splits import Splitter
from burnish.store import Connection, Store
from burnish.store.answers import Answered, read_answered
from burnish.store.examples import count_examples, read_subject_prompts
from burnish.store.findings import count_exclusions
from burnish.store.log import append_log, verify_log
from burnish.tasks import Task, find_task
from burnish.types import SPLITS, Snapshot, Split

_SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_ROW_GROUP = 5000
# How many ids of what was left out the result names; the counts are always whole.
_NAMED = 20
_TEXTS = pa.list_(pa.string())
_SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),
        ("conversation", pa.string()),
        ("weight", pa.float64()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("consent", pa.string()),
        ("metadata", pa.string()),
        ("subject_ids", _TEXTS),
        ("annotation_ids", _TEXTS),
        ("annotators", _TEXTS),
        ("guideline_versions", _TEXTS),
    ]
)


@dataclass(frozen=True, slots=True)
class SnapshotConfig:
    """How examples are split, and what the snapshot is called."""

    validation: float = 0.1
    """Fraction of the prompts that go to validation; what is left of 1 goes to train."""
    test: float = 0.1
    """Fraction of the prompts that go to test."""
    seed: int = 0
    """Another seed gives another split."""
    split_field: str | None = None
    """Name of the metadata field that says each example's split, instead of the fractions: train,
    validation (val, valid, dev) or test."""
    task: str | None = None
    """Name of the labelling task whose answers are frozen; None is the project's only task."""
    name: str | None = None
    """A name to find the snapshot by, beside its id."""

    def __post_init__(self) -> None:
        """Report every value out of range."""
        faults = [
            f"{key} = {value}: must be at least 0 and below 1"
            for key, value in (("validation", self.validation), ("test", self.test))
            if not 0 <= value < 1
        ]
        if not faults and self.validation + self.test >= 1:
            faults = [
                f"validation + test = {self.validation + self.test}: nothing is left to train"
            ]
        if faults:
            raise ConfigError("\n    ".join(faults))


@dataclass(frozen=True, slots=True)
class SnapshotResult(Snapshot):
    """A snapshot, with what is to be told about its making."""

    is_new: bool
    """False where the same content had been frozen before; that snapshot is this one."""
    left_out: Mapping[str, int]
    """How many examples were left out: unlabelled, disagreement, flagged, rejected, excluded."""
    left_out_ids: Mapping[str, tuple[str, ...]]
    """The first 20 ids of each kind but excluded."""
    straddling: int
    """Prompts that `split_field` puts into more than one split; 0 for splits by fraction."""


@dataclass(slots=True)
class _Tally:
    """What was written and what was not, as it goes."""

    examples: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    left_out_ids: dict[str, tuple[str, ...]] = field(default_factory=dict)
    prompt_splits: dict[str, Split] = field(default_factory=dict)
    straddling: set[str] = field(default_factory=set)

    def leave_out(self, answered: Answered) -> None:
        status = answered.status
        self.left_out[status] = self.left_out.get(status, 0) + 1
        named = self.left_out_ids.get(status, ())
        if len(named) < _NAMED:
            self.left_out_ids[status] = (*named, answered.example.id)


def snapshot(config: SnapshotConfig, store: Store, project: Project) -> SnapshotResult:
    """Freeze every example that has an answer in force (`store.answers`) and is not excluded.

    The same content gives the same id: a second snapshot of it is the first one, not a copy.

    Raises:
        ProjectError: there is nothing to freeze, or the fractions leave nothing to train on.
        ConfigError: there is no such task, or none was named and there are several.
        InputError: an example's `split_field` is missing or names no split, or an answer is of
            another kind than the task now is.
    """
    task = find_task(project, config.task)
    folder = project.folder("snapshot")
    building = folder / f".new-{os.getpid()}"
    with replaced_folder(building) as temporary:
        with store.reading() as connection:
            tally = _write(config, task, connection, temporary)
            log_head = verify_log(connection)
        facts = {
            "examples": tally.examples,
            "left_out": tally.left_out,
            "settings": {**asdict(config), "task": task.name},
            "store_log": asdict(log_head),
        }
        snapshot_id = seal_artefact(temporary, "snapshot", (), facts)
    path = folder / snapshot_id
    is_new = not path.exists()
    if is_new:
        building.rename(path)
    else:
        shutil.rmtree(building)
    project.register(path, config.name)
    with store.writing() as connection:
        append_log(connection, "snapshot", "snapshot", {"id": snapshot_id, **facts})
    return SnapshotResult(
        snapshot_id,
        path,
        (),
        tally.examples,
        is_new,
        tally.left_out,
        tally.left_out_ids,
        len(tally.straddling),
    )


def _write(config: SnapshotConfig, task: Task, connection: Connection, folder: Path) -> _Tally:
    """One Parquet file per split that has examples."""
    tally = _Tally()
    with ExitStack() as files:
        writers: dict[Split, _SplitFile] = {}
        for answered, split in _choose(config, task, connection, tally):
            if split not in writers:
                writers[split] = files.enter_context(_SplitFile(folder / f"{split}.parquet"))
            writers[split].add(_row(answered))
    tally.examples = {s: writers[s].rows for s in SPLITS if s in writers}
    excluded = count_exclusions(connection)
    if excluded:
        tally.left_out["excluded"] = excluded
    if not tally.examples or (config.split_field is None and "train" not in tally.examples):
        raise _nothing_to_train(tally)
    return tally


def _choose(
    config: SnapshotConfig, task: Task, connection: Connection, tally: _Tally
) -> Iterator[tuple[Answered, Split]]:
    splitter = Splitter(
        read_subject_prompts(connection),
        validation=config.validation,
        test=config.test,
        seed=config.seed,
    )
    stream = read_answered(connection, task)
    total = count_examples(connection)
    for answered in progress(stream, "freezing", unit=" examples", total=total):
        if answered.status != "answered":
            tally.leave_out(answered)
            continue
        # Of the conversation as received: a plain text that is its own prompt has one group.
        prompt = prompt_fingerprint(answered.example.conversation)
        if config.split_field is None:
            yield answered, splitter.split(prompt)
        else:
            split = _given_split(answered, config.split_field)
            if tally.prompt_splits.setdefault(prompt, split) != split:
                tally.straddling.add(prompt)
            yield answered, split


def _given_split(answered: Answered, split_field: str) -> Split:
    value = answered.example.metadata.get(split_field)
    split = _SPLIT_NAMES.get(str(value).lower())
    if split is None:
        raise InputError(
            f"its field {split_field!r} is {value!r}, which names no split",
            where=f"example {answered.example.id} from {answered.example.source}",
            do=f"give every example one of {', '.join(_SPLIT_NAMES)}, or leave out --split-field",
        )
    return split


def _nothing_to_train(tally: _Tally) -> ProjectError:
    counts = [f"{count} {split}" for split, count in tally.examples.items()]
    counts += [f"{count} left out ({why})" for why, count in tally.left_out.items()]
    return ProjectError(
        f"no examples to train on: {', '.join(counts) or 'the store is empty'}",
        do="label examples or settle disagreements (`burnish studio`); for very few examples set "
        "`validation = 0` and `test = 0` under [snapshot] in burnish.toml",
    )


def _row(answered: Answered) -> dict[str, Any]:
    example, annotations = answered.example, answered.annotations
    return {
        "example_id": example.id,
        "conversation": answered.conversation.canonical,
        "weight": example.weight,
        "source": example.source,
        "licence": example.licence,
        "consent": example.consent,
        "metadata": example.canonical_metadata,
        "subject_ids": list(example.subject_ids),
        "annotation_ids": [a.client_id for a in annotations],
        "annotators": [a.annotator for a in annotations],
        "guideline_versions": [a.guideline_version for a in annotations],
    }


class _SplitFile:
    """A Parquet file that grows row by row; the same rows give the same bytes."""

    def __init__(self, path: Path) -> None:
        self._writer = parquet.ParquetWriter(path, _SCHEMA, compression="zstd")
        self._waiting: list[dict[str, Any]] = []
        self.rows = 0

    def add(self, row: dict[str, Any]) -> None:
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) == _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, _SCHEMA))
            self._waiting = []

    def __enter__(self) -> _SplitFile:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._flush()
        self._writer.close()
