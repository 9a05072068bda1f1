"""A studio of a project on a real socket, and people who work in it; for tests and screenshots."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from argon2 import PasswordHasher
from argon2.profiles import RFC_9106_LOW_MEMORY

from burnish.label.queue import submit
from burnish.project import init_project, open_project
from burnish.store import Store, open_store
from burnish.store.annotations import read_annotations
from burnish.store.examples import add_examples
from burnish.store.users import Role, add_user
from burnish.tasks import read_tasks
from burnish.types import Annotation, Conversation, Example, Message
from burnish.web import create_app

PASSWORD = "correct horse battery"
NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


def example(number: int, text: str | None = None, **fields: Any) -> Example:
    """A question that waits for its answer."""
    conversation = Conversation((Message("user", text or f"question {number}"),))
    return Example(conversation, source="test", **fields)


def add_people(store: Store, people: Mapping[str, Role]) -> None:
    """Users with the password `PASSWORD`, hashed once: each takes 0.2 s of two cores."""
    with store.writing() as connection:
        for name, role in people.items():
            add_user(connection, name, password_hash=_hash(), role=role, actor="test")


@cache
def _hash() -> str:
    return PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY).hash(PASSWORD)


class Studio:
    """A studio in a thread that can be stopped and started again on the same port.

    Without `people` whoever asks is the local user, an admin.
    """

    def __init__(
        self,
        root: Path,
        toml: str = "",
        *,
        examples: Iterable[Example] = (),
        people: dict[str, Role] | None = None,
    ) -> None:
        init_project(root)
        (root / "burnish.toml").write_text(f'[project]\nname = "Tickets"\n\n{toml}\n')
        self.project = open_project(root)
        self.tasks = read_tasks(self.project)
        self.store = open_store(self.project.store_url)
        self.examples = list(examples)
        self.add(*self.examples)
        add_people(self.store, people or {})
        self.port = 0
        self.start()

    def add(self, *examples: Example) -> None:
        with self.store.writing() as connection:
            add_examples(connection, examples, actor="test")

    def answer(self, annotator: str, example: Example, answer: str, **fields: Any) -> None:
        """Keep an answer as if the page had sent it."""
        task = self.tasks[fields.pop("task", "answer")]
        client_id = f"{annotator} {example.id} {len(self.annotations())}"
        sent = Annotation(example.id, task.name, answer, annotator, client_id, **fields)
        submit(self.store, task, sent, now=NOW + timedelta(seconds=len(self.annotations())))

    def start(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        # asyncio does so only for sockets that name their protocol; without, 40 ms a request.
        self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self.listener.getsockname()[1]
        app = create_app(self.project, self.store)
        config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()
        self.listener.close()

    def close(self) -> None:
        self.stop()
        self.store.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def client(self, name: str | None = None) -> Iterator[httpx.Client]:
        """An HTTP client, signed in as `name`."""
        headers = {"accept": "text/html"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60) as client:
            if name is not None:
                form = {"name": name, "password": PASSWORD}
                assert client.post("/sign-in", data=form).status_code == 303
            yield client

    def annotations(self) -> list[Annotation]:
        with self.store.reading() as connection:
            return list(read_annotations(connection))


@contextlib.contextmanager
def starting(root: Path, *, examples: int) -> Iterator[Callable[..., Studio]]:
    """Starts studios, of so many questions unless told otherwise, and stops them at the end."""
    with contextlib.ExitStack() as stack:
        count = examples

        def start(
            toml: str = "", *, examples: int | Iterable[Example] = count, **settings: Any
        ) -> Studio:
            if isinstance(examples, int):
                examples = [example(n) for n in range(examples)]
            one = Studio(root, toml, examples=examples, **settings)
            stack.callback(one.close)
            return one

        yield start


def csrf_of(client: httpx.Client) -> str:
    """The token that this client's forms carry."""
    found = re.search(r'name="csrf" value="([^"]*)"', client.get("/account").text)
    return found[1] if found else ""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield opened
        opened.close()


@contextlib.contextmanager
def browser_page(browser: Any, **settings: Any) -> Iterator[Any]:
    """A page of its own context; whatever its scripts throw fails the test."""
    context = browser.new_context(**settings)
    page = context.new_page()
    page.set_default_timeout(30_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    context.close()
    assert faults == []


def sign_in(page: Any, one: Studio, name: str, path: str = "/") -> None:
    """Sign in by keyboard and go to a page."""
    page.goto(one.url + path)
    # A page has loaded a moment before its field has the focus: letters would be lost.
    page.wait_for_selector("#name:focus")
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(one.url + path)


def open_label(page: Any, one: Studio, task: str = "answer") -> None:
    """The labelling page, ready for keys."""
    page.goto(f"{one.url}/tasks/{task}/label")
    ready(page)


def ready(page: Any) -> None:
    page.wait_for_selector("#answer[data-ready]")


def shown(page: Any) -> str:
    """The id of the example on the page."""
    found = page.get_attribute("#work", "data-example")
    return found or ""


def wait_for_next(page: Any, before: str) -> None:
    """Until another example, or none, is shown."""
    page.wait_for_function(
        "before => (document.getElementById('work')?.dataset.example ?? '') !== before", arg=before
    )
    page.wait_for_load_state()
    if shown(page):
        ready(page)


def press(page: Any, *keys: str) -> None:
    page.wait_for_load_state()  # The page's script listens from then on.
    for key in keys:
        page.keyboard.press(key)
