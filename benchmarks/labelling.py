"""How quick the labelling queue is, and whether its overlap is exact, at a project's real size.

Run: python benchmarks/labelling.py [--examples 100000] [--overlap 2] [--people 10] [--pairs 200]

Fills a store, imports answers to the first half of it, then lets `people` processes ask and answer
`pairs` times each as fast as they can, which is some hundred times quicker than people do.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np

from burnish.label.interchange import export_labels, import_labels
from burnish.label.queue import next_example, submit
from burnish.label.status import label_status
from burnish.store import Store, open_store
from burnish.store.annotations import read_annotations
from burnish.store.examples import add_examples
from burnish.store.labelling import pages
from burnish.tasks import Task
from burnish.types import Annotation, Conversation, Example, Message

T = TypeVar("T")


def work(url: str, name: str, overlap: int, pairs: int, path: Path) -> None:
    """One annotator; writes the seconds each next and submit took."""
    store, task = open_store(url), Task(overlap=overlap)
    times = []
    for _ in range(pairs):
        begin = time.perf_counter()
        example = next_example(store, task, name, now=datetime.now(UTC))
        assert example is not None
        asked = time.perf_counter()
        sent = Annotation(example.id, "answer", "yes", name, uuid.uuid4().hex)
        submit(store, task, sent, now=datetime.now(UTC))
        times.append((asked - begin, time.perf_counter() - asked))
    path.write_text(json.dumps(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("examples", 100_000), ("overlap", 2), ("people", 10), ("pairs", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options)


def run(folder: Path, options: argparse.Namespace) -> None:
    url = f"sqlite:///{folder / 'burnish.db'}"
    store, task = open_store(url), Task(overlap=options.overlap)
    ids = timed("collect", options.examples, lambda: fill(store, options.examples))
    labels = folder / "labels.jsonl"
    half = ids[: len(ids) // 2]
    with labels.open("w") as file:
        for id_ in half:
            for n in range(options.overlap):
                row = {"example_id": id_, "answer": "yes", "annotator": f"before {n}", "seconds": 4}
                file.write(json.dumps(row) + "\n")
    rows = len(half) * options.overlap
    timed("import", rows, lambda: import_labels(store, labels, task, rejects=folder))
    first = lambda: next_example(store, task, "first", now=datetime.now(UTC))  # noqa: E731
    timed("first next after the import", 1, first)

    context = multiprocessing.get_context("spawn")
    arguments = [
        (url, f"person {n}", options.overlap, options.pairs, folder / f"{n}.json")
        for n in range(options.people)
    ]
    crowd = [context.Process(target=work, args=a) for a in arguments]
    begin = time.perf_counter()
    for process in crowd:
        process.start()
    for process in crowd:
        process.join()
    seconds = time.perf_counter() - begin
    times = np.array([json.loads(a[-1].read_text()) for a in arguments]).reshape(-1, 2) * 1000
    print(
        f"{options.people} at once: {len(times) / seconds:.0f} pairs/s, start of processes included"
    )
    for column, name in enumerate(("next", "submit")):
        p50, p95, p99 = np.quantile(times[:, column], (0.5, 0.95, 0.99))
        print(f"  {name}: p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms")

    with store.reading() as connection:
        answers = Counter(a.example_id for a in read_annotations(connection))
    lost = options.people * options.pairs + rows - sum(answers.values())
    over = sum(n > options.overlap for n in answers.values())
    print(f"lost or doubled: {lost}, over-served: {over}")
    timed("status", sum(answers.values()), lambda: label_status(store, task))
    timed("export", sum(answers.values()), lambda: export_labels(store, labels, task))
    store.close()


def fill(store: Store, count: int) -> list[str]:
    examples = [
        Example(Conversation((Message("user", f"question {n}"),)), source="benchmark")
        for n in range(count)
    ]
    for page in pages(examples):
        with store.writing() as connection:
            add_examples(connection, page, actor="benchmark")
    return [example.id for example in examples]


def timed(what: str, rows: int, do: Callable[[], T]) -> T:
    begin = time.perf_counter()
    result = do()
    seconds = time.perf_counter() - begin
    print(f"{what}: {seconds:.2f} s, {rows / seconds:,.0f} rows/s")
    return result


if __name__ == "__main__":
    main()
