"""The studio command: one port on this machine, until Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from burnish.errors import ConfigError, ResourceError
from burnish.project import Project
from burnish.store import open_store
from burnish.web.access import is_loopback
from burnish.web.app import create_app


def studio(
    project: Project,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a project's studio until Ctrl-C; `ready` gets its URL, which is printed without it.

    Raises:
        ConfigError: `host` can be reached from other machines, there is no such port, or the
            [label] table is wrong.
        ResourceError: the port is taken.
    """
    if not is_loopback(host):
        raise ConfigError(
            f"host = {host!r} lets other machines in, and the studio asks nobody to sign in",
            do="use 127.0.0.1; to reach it from elsewhere, tunnel: ssh -L 8000:127.0.0.1:8000 HOST",
        )
    if not 0 <= port <= 65535:
        raise ConfigError(f"port = {port}: must be from 0 to 65535")
    with _bind(host, port) as listener:
        store = open_store(project.store_url)
        try:
            app = create_app(project, store)
            config = uvicorn.Config(
                app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=2
            )
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{listener.getsockname()[1]}/"
            ready(url) if ready else print(f"Studio: {url}  (Ctrl-C stops it)", flush=True)
            uvicorn.Server(config).run([listener])
        finally:
            store.close()


def _bind(host: str, port: int) -> socket.socket:
    """A socket that listens already, so that the first request waits instead of failing."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ResourceError(
            f"cannot listen on port {port} of {host} ({error.strerror})",
            do="choose another with --port N (0 takes a free one), or stop what listens there",
        ) from error
