"""The recorded service, filled once a session on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.results import importance
from service.scheduling import sweep_scheduler
from service.settings import Settings
from tests.golden import world
from tests.golden.key_order import keep_key_order
from tests.golden.world import World


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service with something of everything in it. Nobody changes it but the last comparison."""
    folder = tmp_path_factory.mktemp("golden")
    with ExitStack() as stack:
        url = f"sqlite:///{folder / 'layersweep.db'}"
        if request.param == "postgresql":
            url = stack.enter_context(request.getfixturevalue("new_postgres_url")())
        # A step that is cut off for its time is stored as two: answers would say how busy the machine was.
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        patched.setattr(sweep_scheduler, "MAX_SECONDS", 3600.0)
        # So would importances with fewer resamples.
        patched.setattr(importance, "SECONDS", 3600.0)
        # Its worker sends no heartbeats, and lives and holds its lease also where a busy machine takes minutes.
        patient = Settings(database_url=url, data_dir=folder / "data", lease_seconds=3600, worker_alive_seconds=3600)
        app = create_app(patient, start_scheduler=False)
        keep_key_order(app.state.services.database.engine)
        client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
        yield world.fill(client, app.state.services)
