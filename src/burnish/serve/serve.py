"""Serve: a base or checkpoint behind OpenAI's HTTP interface."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from burnish.chat import check_laws
from burnish.errors import ConfigError, ResourceError
from burnish.nn.models import load_model
from burnish.serve.access import is_loopback
from burnish.serve.app import Service, create_app
from burnish.serve.engine import Engine
from burnish.serve.feedback import Feedback
from burnish.serve.guard import load_guard


@dataclass(frozen=True)
class ServeConfig:
    """What is served, where, and to whom."""

    model: str
    """Hub id, local folder, .gguf file, checkpoint, or `starter`."""
    name: str | None = None
    """The model's name in the API; by default the last part of `model`."""
    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs an API key."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    api_key: str | None = None
    """If set, clients must send it (`Authorization: Bearer KEY`)."""
    template: str = "auto"
    """Chat template: auto, chatml, gemma, plain, or the path of a Jinja file."""
    precision: str = "auto"
    """`bf16`, `fp32`, or `auto`: bf16 where the hardware multiplies it."""
    temperature: float = 0.0
    """Where a request sets none; 0 is greedy, which is how `burnish evaluate` asks."""
    max_tokens: int = 1024
    """Length of a chat answer where a request sets none."""
    max_active: int = 8
    """Answers written at the same time."""
    max_waiting: int = 64
    """Answers that may wait for a place; a request beyond them gets status 503."""
    restrictions: Path | None = None
    """Restrictions in TOML; by default restrictions.toml in the model's folder, if it is there."""
    feedback: Path = Path("feedback.jsonl")
    """Where ratings and corrections go, for `burnish collect`."""

    def __post_init__(self) -> None:
        """Check ranges and that nobody is let in by mistake; all faults at once."""
        faults = []
        if not is_loopback(self.host) and not self.api_key:
            faults.append(
                f"host = {self.host!r} lets other machines in: that needs an API key "
                "(--api-key-env NAME)"
            )
        if not 0 <= self.port <= 65535:
            faults.append(f"port = {self.port}: must be from 0 to 65535")
        for name in ("max_tokens", "max_active"):
            if getattr(self, name) < 1:
                faults.append(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.max_waiting < 0:
            faults.append(f"max_waiting = {self.max_waiting}: must be at least 0")
        if not 0 <= self.temperature <= 2:
            faults.append(f"temperature = {self.temperature}: must be from 0 to 2")
        if self.precision not in ("auto", "bf16", "fp32"):
            faults.append(f"precision = {self.precision!r}: must be auto, bf16 or fp32")
        if faults:
            raise ConfigError("\n    ".join(faults))


def serve(config: ServeConfig, *, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `ready` gets the server's URL once it answers.

    Sets signal handlers, so it runs in the main thread; `serving` runs in any.

    Raises:
        ModelError: no such model, or one that cannot be decoded in batches.
        TemplateError: its chat template breaks a law.
        ConfigError: restrictions that are wrong.
        ResourceError: the port is taken.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("burnish").setLevel(logging.INFO)
    # Ctrl-C is how a server usually ends, and in a container or under systemd it is SIGTERM.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), serving(config) as (url, server):
        ready(url)
        while server.is_alive():
            time.sleep(0.5)  # not `join`: Ctrl-C in it marks the thread as ended when it is not


@contextmanager
def serving(config: ServeConfig) -> Iterator[tuple[str, threading.Thread]]:
    """Serve while the block runs; yields the URL and the server's thread. Raises like `serve`."""
    listener = _bind(config.host, config.port)  # first: loading takes long, a taken port shows now
    try:
        service = _service(config)
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(service, api_key=config.api_key),
                log_level="critical",  # errors are logged, with what is needed, by `serve.app`
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )
        service.engine.start()
        thread = threading.Thread(target=server.run, args=([listener],), name="burnish-http")
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            assert thread.is_alive(), "the HTTP server ended while it started"
            host, port = listener.getsockname()[:2]
            yield f"http://{f'[{host}]' if ':' in host else host}:{port}", thread
        finally:
            service.engine.close()  # before the HTTP side, so that open streams end by themselves
            server.should_exit = True
            thread.join()
    finally:
        listener.close()


def _service(config: ServeConfig) -> Service:
    loaded = load_model(config.model, precision=config.precision, template=config.template)
    check_laws(loaded.template)
    guard = load_guard(config.restrictions, loaded.folder)
    engine = Engine(loaded, max_active=config.max_active, max_waiting=config.max_waiting)
    return Service(
        engine,
        config.name or Path(config.model).resolve().name,
        guard,
        Feedback(config.feedback, loaded.identity),
        config.max_tokens,
        config.temperature,
    )


def _bind(host: str, port: int) -> socket.socket:
    """A socket on the address, not listening yet."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        family, kind, protocol, _, address = found
        # With the protocol named asyncio sets TCP_NODELAY, or answers would wait 40 ms for the
        # client's delayed acknowledgement.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ResourceError(
            f"cannot listen on port {port} of {host} ({error.strerror})",
            do="choose another with --port N (0 takes a free one), or stop what listens there",
        ) from error
    return listener
