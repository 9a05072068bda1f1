"""Annotators at work through real HTTP: a process of some of them, which may be killed at any time.

Each annotator asks, thinks, answers. An answer gets its id and goes to a journal on disk before it
is sent, as the studio's page keeps it in the browser; what was not confirmed is sent again, also by
the next process of the same annotators. With faults, requests are doubled, broken off, and old ones
sent once more long after.

Run by labelling.py: python labelling_crowd.py '{"url": ..., "tokens": {...}, ...}'
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx

_RETRY_SECONDS = 0.3
_PATIENCE_SECONDS = 120


@dataclass
class Crowd:
    """What the process is told."""

    url: str
    tokens: dict[str, str]
    """Annotator -> API token."""
    seconds: float
    """How long they work."""
    think_seconds: float
    """Mean of the exponential pause before an answer; 0: none."""
    faults: bool
    folder: str
    """Journals and times."""
    task: str = "answer"


@dataclass
class Annotator:
    """One person and their journal."""

    crowd: Crowd
    name: str
    client: httpx.AsyncClient
    journal: TextIO
    times: TextIO
    draw: random.Random
    sent: list[dict[str, Any]] = field(default_factory=list)

    async def work(self, unconfirmed: list[dict[str, Any]]) -> None:
        """Send what an earlier process could not, then ask and answer until the time is over."""
        for item in unconfirmed:
            await self._submit(item)
        end = time.monotonic() + self.crowd.seconds
        await asyncio.sleep(self.draw.random() * self.crowd.think_seconds)
        while time.monotonic() < end:
            example = await self._next()
            if example is None:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if self.crowd.think_seconds:
                await asyncio.sleep(self.draw.expovariate(1 / self.crowd.think_seconds))
            item = {
                "client_id": uuid.uuid4().hex,
                "example_id": example["id"],
                "answer": f"{self.name} says {self.draw.random():.6f}",
                "status": "submitted",
                "seconds": 4.0,
            }
            self._note("sending", item)
            await self._submit(item)

    async def _next(self) -> dict[str, Any] | None:
        begin = time.perf_counter()
        answer = await self._request("POST", f"/api/v1/tasks/{self.crowd.task}/next", {})
        self._time("next", begin)
        example: dict[str, Any] | None = answer.get("example") if answer else None
        return example

    async def _submit(self, item: dict[str, Any]) -> None:
        """Send until it is confirmed; with faults also twice, broken off, or an old one again."""
        path = f"/api/v1/tasks/{self.crowd.task}/annotations"
        fault = self.draw.random() if self.crowd.faults else 1.0
        begin = time.perf_counter()
        if fault < 0.1:  # two at once
            await asyncio.gather(
                self._request("POST", path, item), self._request("POST", path, item)
            )
        elif fault < 0.2:  # the connection breaks somewhere on the way
            async with httpx.AsyncClient(
                base_url=self.crowd.url, headers=self.client.headers
            ) as one:
                sending = asyncio.create_task(one.post(path, json=item, timeout=30))
                await asyncio.sleep(self.draw.random() * 0.02)
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            await self._request("POST", path, item)
        elif fault < 0.25:  # late
            await asyncio.sleep(self.draw.random() * 3)
            await self._request("POST", path, item)
        else:
            await self._request("POST", path, item)
        self._time("submit", begin)
        self._note("confirmed", item)
        self.sent.append(item)
        if (
            self.crowd.faults and self.draw.random() < 0.1
        ):  # an old request arrives after newer ones
            await self._request("POST", path, self.draw.choice(self.sent))

    async def _request(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Ask until there is an answer; None for "nothing there"."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                response = await self.client.request(method, path, json=body, timeout=30)
            except httpx.TransportError as error:
                fault = repr(error)
            else:
                if response.status_code == 204:
                    return None
                if response.is_success:
                    answer: dict[str, Any] = response.json()
                    return answer
                fault = f"{response.status_code}: {response.text[:300]}"
                if response.status_code < 500 and response.status_code != 429:
                    raise RuntimeError(f"{path}: {fault}")
            if time.monotonic() > end:
                raise RuntimeError(f"{path}: no answer for {_PATIENCE_SECONDS} s, last {fault}")
            await asyncio.sleep(_RETRY_SECONDS)

    def _note(self, what: str, item: dict[str, Any]) -> None:
        self.journal.write(json.dumps({"what": what, **item}) + "\n")
        self.journal.flush()

    def _time(self, what: str, begin: float) -> None:
        self.times.write(f"{what} {time.perf_counter() - begin:.6f}\n")


def read_journal(path: Path) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Everything an annotator began to send, by client id, and which of it was confirmed."""
    begun: dict[str, dict[str, Any]] = {}
    confirmed = set()
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                item = json.loads(line)
            except ValueError:  # killed while it wrote: not sent yet
                continue
            if item.pop("what") == "confirmed":
                confirmed.add(item["client_id"])
            begun[item["client_id"]] = item
    return begun, confirmed


async def main(crowd: Crowd) -> None:
    folder = Path(crowd.folder)
    limits = httpx.Limits(max_connections=2 * len(crowd.tokens))
    with (folder / f"times-{uuid.uuid4().hex}.txt").open("w", buffering=1) as times:
        async with asyncio.TaskGroup() as group:
            for name, token in crowd.tokens.items():
                path = folder / f"{name}.jsonl"
                begun, confirmed = read_journal(path)
                journal = path.open("a", encoding="utf-8")
                client = httpx.AsyncClient(
                    base_url=crowd.url,
                    headers={"Authorization": f"Bearer {token}"},
                    limits=limits,
                )
                person = Annotator(crowd, name, client, journal, times, random.Random())
                person.sent = [begun[id_] for id_ in confirmed]
                group.create_task(person.work([i for k, i in begun.items() if k not in confirmed]))


if __name__ == "__main__":
    asyncio.run(main(Crowd(**json.loads(sys.argv[1]))))
