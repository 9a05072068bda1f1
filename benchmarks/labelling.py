"""How quick labelling is at a project's real size, and whether its counts stay exact under faults.

    python benchmarks/labelling.py --out labelling                      SQLite, 1,000,000 examples
    python benchmarks/labelling.py --database postgres --processes 4 --out labelling-postgres
    python benchmarks/labelling.py --faults --examples 20000 --out faults

Everything goes through what people use: commands as processes of their own, the studio over real
HTTP with a token for each annotator. Annotators, studio and database share the machine's cores.
See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from burnish.label.people import add_person, make_token
from burnish.store import open_store
from labelling_faults import counts, events, fake_clock, small_disk
from labelling_project import (
    PASSWORD,
    TOPICS,
    Project,
    Studio,
    disk_bytes,
    postgres,
    read_words,
    write_records,
)

CROWD = Path(__file__).parent / "labelling_crowd.py"
SEARCHES = 200


class Results:
    """What was measured, written after each step so that a kill keeps it."""

    def __init__(self, out: Path, options: argparse.Namespace) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._path = out / "labelling.json"
        shown = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
        self.values: dict[str, Any] = {"options": shown}

    def add(self, what: str, **figures: float | int | str) -> None:
        self.values[what] = figures
        self._path.write_text(json.dumps(self.values, indent=1) + "\n")
        line = ", ".join(
            f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in figures.items()
        )
        print(f"{what}: {line}", flush=True)


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=options.folder, prefix="labelling"))
        )
        disk, full = folder / "disk", False
        if options.faults and options.database == "sqlite":
            full = stack.enter_context(small_disk(disk))
        url = "sqlite:///burnish.db"
        if options.database == "postgres":
            url = stack.enter_context(postgres(folder / "postgres"))
        project = Project(disk / "project", url, options.overlap)
        project.create()
        options.disk = disk if full else None
        results = Results(options.out, options)
        measure(project, folder, options, results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--processes", type=int, default=1, help="of the studio")
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--overlap", type=int, default=2)
    parser.add_argument("--annotators", type=int, default=50)
    # Label Studio's own load test waits 3 to 9 s between requests.
    parser.add_argument("--think", type=float, default=3.0, help="mean seconds before an answer")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they work")
    parser.add_argument("--words", type=Path, help="a text to take the records' words from")
    parser.add_argument("--folder", type=Path, help="where the project is made")
    parser.add_argument("--faults", action="store_true", help="kill, double, delay, fill the disk")
    return parser.parse_args()


def measure(project: Project, folder: Path, options: argparse.Namespace, results: Results) -> None:
    """Every step in turn."""
    records = folder / "records.jsonl"
    write_records(records, options.examples, read_words(options.words))
    collect(project, records, options.examples, results)
    tokens = people(project, options.annotators)
    if options.faults:
        faults(project, tokens, options, results)
        return
    with project.studio(options.processes) as studio:
        start(studio, results)
        first_requests(studio, tokens, results)
        for think in (options.think, options.think / 3, 0.0):
            crowd(studio, tokens, think, options, results)
        search(studio, tokens, results)
    labels(project, records, options, results)
    with project.studio(options.processes) as studio:
        first_requests(studio, tokens, results, "after the labels")


def collect(project: Project, records: Path, count: int, results: Results) -> None:
    figures = _run(project, count, "collect", str(records))
    results.add("collect", rows=count, **figures, database_mb=disk_bytes(project.root) / 1e6)
    results.add("collect again", **_run(project, count, "collect", str(records)))


def _run(project: Project, rows: int, *command: str) -> dict[str, float]:
    """What a command takes that works through so many rows."""
    seconds, memory, _ = project.run(*command)
    return {"seconds": seconds, "rows_per_second": rows / seconds, "peak_mb": memory}


def people(project: Project, count: int) -> dict[str, str]:
    """Annotators and a token of each; an admin comes first."""
    from burnish.project import open_project

    store = open_store(open_project(project.root).store_url)
    now = datetime.now(UTC)
    add_person(store, "admin", PASSWORD, "admin", actor="benchmark")
    tokens = {"admin": make_token(store, "admin", "benchmark", actor="benchmark", now=now)}
    for n in range(count):
        name = f"annotator-{n}"
        add_person(store, name, PASSWORD, "annotator", actor="benchmark")
        tokens[name] = make_token(store, name, "benchmark", actor="benchmark", now=now)
    store.close()
    return tokens


def start(studio: Studio, results: Results) -> None:
    """Seconds until the first page, the median of five starts."""
    seconds = []
    for _ in range(5):
        studio.stop()
        seconds.append(studio.start())
    results.add("studio starts", median_s=float(np.median(seconds)), slowest_s=max(seconds))


def first_requests(
    studio: Studio, tokens: dict[str, str], results: Results, when: str = "alone"
) -> None:
    """The first `next` of a fresh studio, and those that follow, with nobody else at work."""
    name = "annotator-0"
    with _client(studio, tokens[name]) as client:
        times = []
        for _ in range(100):
            begin = time.perf_counter()
            client.post("/api/v1/tasks/answer/next", json={}).raise_for_status()
            times.append(time.perf_counter() - begin)
    results.add(f"next {when}", first_ms=times[0] * 1000, **_quantiles(times[1:]))
    with _client(studio, tokens["admin"]) as client:
        pages = {}
        for page in ("/", "/tasks/answer/overview", "/browse"):
            begin = time.perf_counter()
            response = client.get(page, follow_redirects=True)
            if response.is_success:
                pages[f"{page} s"] = time.perf_counter() - begin
    results.add(f"pages {when}", **pages)


def crowd(
    studio: Studio,
    tokens: dict[str, str],
    think: float,
    options: argparse.Namespace,
    results: Results,
) -> None:
    """Annotators at work, `think` seconds an answer on average."""
    journals = studio.project.root / f"journals-{think}"
    journals.mkdir()
    working = {name: token for name, token in tokens.items() if name != "admin"}
    process = start_crowd(studio, working, journals, think, options.seconds, faults=False)
    if process.wait():
        raise RuntimeError("the crowd failed; see above")
    times = read_times(journals)
    name = f"{len(working)} at work, {think:g} s each" if think else f"{len(working)} without pause"
    pairs = len(times["submit"]) / options.seconds
    results.add(f"next, {name}", pairs_per_second=pairs, **_quantiles(times["next"]))
    results.add(f"submit, {name}", **_quantiles(times["submit"]))
    results.add(f"counts, {name}", **counts(studio.project, journals))


def start_crowd(
    studio: Studio,
    tokens: dict[str, str],
    journals: Path,
    think: float,
    seconds: float,
    *,
    faults: bool,
) -> subprocess.Popen[bytes]:
    told = {
        "url": studio.url,
        "tokens": tokens,
        "seconds": seconds,
        "think_seconds": think,
        "faults": faults,
        "folder": str(journals),
    }
    return subprocess.Popen([sys.executable, str(CROWD), json.dumps(told)])


def read_times(journals: Path) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"next": [], "submit": []}
    for path in journals.glob("times-*.txt"):
        for line in path.read_text().splitlines():
            what, seconds = line.split()
            times[what].append(float(seconds))
    return times


def search(studio: Studio, tokens: dict[str, str], results: Results) -> None:
    """Words, pairs of words, a phrase's beginning, a topic: what people type."""
    draw = random.Random(2)
    with _client(studio, tokens["admin"]) as client:
        some = client.get("/api/v1/examples", params={"limit": 50}).raise_for_status().json()
        texts = [row["messages"][0]["content"] for row in some["rows"]]
        times = []
        for _ in range(SEARCHES):
            words = draw.choice(texts).split()[1:]
            first = draw.randrange(len(words) - 1)
            asked = draw.choice(
                (
                    {"text": words[first]},
                    {"text": " ".join(draw.sample(words, 2))},
                    {"text": f'"{words[first]} {words[first + 1]}"'},
                    {"text": words[first][:4] + "*"},
                    {"text": words[first], "where": f"topic={draw.choice(TOPICS)}"},
                )
            )
            begin = time.perf_counter()
            client.get("/api/v1/examples", params=asked).raise_for_status()
            times.append(time.perf_counter() - begin)
    results.add("search", searches=SEARCHES, **_quantiles(times))


def labels(project: Project, records: Path, options: argparse.Namespace, results: Results) -> None:
    """An answer of two people to half the examples in; everything out."""
    path = project.root / "labels.jsonl"
    rows = 0
    with records.open(encoding="utf-8") as file, path.open("w", encoding="utf-8") as out:
        for line in file:
            if rows >= options.examples:
                break
            prompt = json.loads(line)["prompt"]
            for annotator in ("ada", "ben"):
                answer = {"prompt": prompt, "answer": "yes", "annotator": annotator, "seconds": 4}
                out.write(json.dumps(answer) + "\n")
                rows += 1
    figures = _run(project, rows, "label", "import", str(path))
    results.add("import of labels", rows=rows, **figures)
    for form, ending in (("jsonl", "jsonl"), ("label_studio", "json")):
        exported = project.root / f"export.{ending}"
        command = ("label", "export", "--format", form, "--out", str(exported))
        figures = _run(project, rows, *command)
        results.add(f"export, {form}", **figures, file_mb=exported.stat().st_size / 1e6)
    seconds, memory, _ = project.run("label", "status")
    results.add("label status", seconds=seconds, peak_mb=memory)


def faults(
    project: Project, tokens: dict[str, str], options: argparse.Namespace, results: Results
) -> None:
    """Annotators in five processes that are killed, a studio that is killed, and the rest."""
    outside = project.root.parents[1]  # the project's disk will be full
    journals = outside / "journals"
    journals.mkdir()
    project.environment = fake_clock(outside)
    names = [name for name in tokens if name != "admin"]
    parts = [{n: tokens[n] for n in names[i::5]} for i in range(min(5, len(names)))]
    with project.studio(options.processes) as studio:
        deadline = time.monotonic() + options.seconds

        def begin(part: dict[str, str]) -> subprocess.Popen[bytes]:
            left = max(1.0, deadline - time.monotonic())
            return start_crowd(studio, part, journals, options.think, left, faults=True)

        processes = [begin(part) for part in parts]
        done = Counter[str]()
        clock = outside / "clock" if project.environment else None
        for event in events(studio, clock, options.disk, deadline):
            done[event] += 1
            if event == "clients killed":
                n = random.randrange(len(processes))
                processes[n].kill()
                processes[n].wait()
                processes[n] = begin(parts[n])
        failed = sum(process.wait() != 0 for process in processes)
        results.add("faults", **done, crowds_failed=failed)
    times = read_times(journals)
    results.add("next under faults", **_quantiles(times["next"]))
    results.add("submit under faults", **_quantiles(times["submit"]))
    results.add("counts under faults", **counts(project, journals))


def _client(studio: Studio, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=studio.url, headers=headers, timeout=60)


def _quantiles(times: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.quantile(np.array(times) * 1000, (0.5, 0.95, 0.99))
    return {"requests": len(times), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


if __name__ == "__main__":
    main()
