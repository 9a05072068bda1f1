"""The studio command: one port, one process or several, until Ctrl-C."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import wait

import uvicorn
from fastapi import FastAPI

from burnish.errors import ConfigError, ProjectError, ResourceError
from burnish.label.guidelines import read_guidelines
from burnish.label.webhooks import WebhookConfig, read_webhook_config, sending_webhooks
from burnish.project import Project
from burnish.store import Store, open_store
from burnish.store.users import has_users
from burnish.tasks import read_tasks
from burnish.web.app import create_app
from burnish.web.identity import is_loopback


def studio(
    project: Project,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    processes: int = 1,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a project's studio until Ctrl-C; `ready` gets its URL, which is printed without it.

    Raises:
        ConfigError: other machines can reach `host` and the project has no users; no such port or
            number of processes; a task in burnish.toml is wrong.
        ResourceError: the port is taken.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"port = {port}: must be from 0 to 65535")
    if processes < 1:
        raise ConfigError(f"processes = {processes}: must be 1 or more")
    _warn_of_guidelines(project)
    store = _closed_store(project, host)
    serve = partial(_serve, create_app(project, store), store, read_webhook_config(project))
    with _bind(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}/"
        ready(url) if ready else print(f"Studio: {url}  (Ctrl-C stops it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):  # the way to stop it
            if processes == 1:
                serve(listener)
            else:
                _serve_in_processes(serve, listener, processes)
    if not ready:
        print("Studio stopped.")


def _warn_of_guidelines(project: Project) -> None:
    for task in read_tasks(project).values():
        try:
            read_guidelines(project, task)
        except ProjectError as error:
            print(f"warning: task {task.name}: {error}", file=sys.stderr)


def _closed_store(project: Project, host: str) -> Store:
    """The project's store, without a connection: it makes them anew when somebody asks.

    So a process may be forked with it.
    """
    store = open_store(project.store_url)
    try:
        with store.reading() as connection:
            guarded = has_users(connection)
    finally:
        store.close()
    if not guarded and not is_loopback(host):
        raise ConfigError(
            f"host = {host!r} lets other machines in, and nobody could sign in",
            do="add an admin first: burnish users add NAME --role admin",
        )
    return store


def _serve(app: FastAPI, store: Store, webhooks: WebhookConfig, listener: socket.socket) -> None:
    config = uvicorn.Config(
        app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=2
    )
    # What is here now stays. Looked through with the rest, it makes everybody wait for 80 ms.
    gc.collect()
    gc.freeze()
    try:
        with sending_webhooks(store, webhooks):
            uvicorn.Server(config).run([listener])
    finally:
        store.close()


def _serve_in_processes(
    serve: Callable[[socket.socket], None], listener: socket.socket, count: int
) -> None:
    """Keep `count` processes at the same socket; one that dies is replaced.

    They are forked, so the whole app is there and they start at once. The store has no connection
    by then and no thread runs: both would not survive a fork.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise ConfigError(f"processes = {count}: this system cannot fork", do="leave it at 1")
    context = multiprocessing.get_context("fork")
    parent = os.getpid()

    def start() -> multiprocessing.process.BaseProcess:
        process = context.Process(target=_work, args=(serve, listener, parent))
        process.start()
        return process

    workers = [start() for _ in range(count)]
    try:
        while True:
            wait([worker.sentinel for worker in workers])
            time.sleep(1)  # one that cannot start must not keep the machine busy
            workers = [worker if worker.is_alive() else start() for worker in workers]
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


def _work(serve: Callable[[socket.socket], None], listener: socket.socket, parent: int) -> None:
    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_parent, daemon=True).start()
    # Ctrl-C reaches every process of the terminal; the parent says that it stopped.
    with contextlib.suppress(KeyboardInterrupt):
        serve(listener)


def _bind(host: str, port: int) -> socket.socket:
    """A socket that listens already, so that the first request waits instead of failing."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ResourceError(
            f"cannot listen on port {port} of {host} ({error.strerror})",
            do="choose another with --port N (0 takes a free one), or stop what listens there",
        ) from error
    # asyncio sets it only on sockets that name their protocol; without, an answer waits 40 ms for
    # the client's delayed acknowledgement of its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
