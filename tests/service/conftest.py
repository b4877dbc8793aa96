"""Clients of the service, and rows to start from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.app import create_app
from service.services import Services
from service.settings import Settings


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application without a running scheduler: tests step it."""
    return create_app(settings, start_scheduler=False)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of the started application."""
    with TestClient(app) as client:
        yield client


@pytest.fixture
def services(app: FastAPI) -> Services:
    """The services behind `client`."""
    return app.state.services
