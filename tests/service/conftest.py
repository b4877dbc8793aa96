"""Clients of the service, and rows to start from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.app import create_app
from service.database.sessions import Database
from service.http.dependencies import Services
from service.settings import Settings
from tests.service.rows import Rows
from tests.service.sweep_driver import Driver


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application without a running scheduler: tests step it."""
    return create_app(settings, start_scheduler=False)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of the started application. What goes wrong inside is answered, not raised."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def services(app: FastAPI) -> Services:
    """The services behind `client`."""
    return app.state.services


@pytest.fixture
def rows(database: Database) -> Rows:
    """Rows in `database`."""
    return Rows(database)


@pytest.fixture
def served_rows(client: TestClient, services: Services) -> Rows:
    """Rows in the database behind `client`."""
    return Rows(services.database)


@pytest.fixture
def make_rows() -> type[Rows]:
    """Makes `Rows` for a database."""
    return Rows


@pytest.fixture
def driver(database: Database, settings: Settings) -> Driver:
    """Sweeps as a scheduler and one worker advance them, with a data set."""
    driver = Driver(database, settings)
    driver.add_dataset()
    driver.worker = driver.add_worker()
    return driver
