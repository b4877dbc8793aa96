"""A service without a running scheduler, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.golden import world
from tests.golden.key_order import keep_key_order
from tests.golden.world import World


@pytest.fixture
def filled(settings: Settings) -> Iterator[World]:
    """The recorded service, full."""
    app = create_app(settings, start_scheduler=False)
    keep_key_order(app.state.services.database.engine)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield world.fill(client, app.state.services)
