"""A service that stops answers those who wait for something to happen, at once and wholly."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from service.app import create_app
from service.common.notifications import QUEUE, sweep_topic
from service.settings import Settings
from tests.conftest import serving
from tests.service.rows import Rows


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Nothing here is the database's."""
    return sqlite_url


def test_a_service_that_stops_ends_streams_and_answers_those_who_wait(
    settings: Settings, make_rows: type[Rows]
) -> None:
    app = create_app(settings, start_scheduler=False)
    notifications = app.state.services.notifications
    with ThreadPoolExecutor() as callers, serving(app) as url:
        rows = make_rows(app.state.services.database)
        sweep, worker = rows.sweep(state="paused"), rows.worker()
        stream = callers.submit(httpx2.get, f"{url}/v1/sweeps/{sweep}/events", timeout=60)
        until(lambda: sweep_topic(sweep) in notifications.waited())
        other = rows.sweep(state="paused")
        held = {"Prefer": "wait=60", "If-None-Match": httpx2.get(f"{url}/v1/sweeps/{other}").headers["etag"]}
        read = callers.submit(httpx2.get, f"{url}/v1/sweeps/{other}", headers=held, timeout=60)
        claim = callers.submit(
            httpx2.post, f"{url}/v1/leases", json={"worker": worker}, headers={"Prefer": "wait=60"}, timeout=60
        )
        until(lambda: {sweep_topic(other), QUEUE} <= notifications.waited())
    # Broken off, they would raise.
    assert stream.result().status_code == 200
    assert "event: sweep.created" in stream.result().text
    assert read.result().status_code == 304
    assert claim.result().status_code == 204


def until(condition: Callable[[], bool]) -> None:
    never = threading.Event()
    for _ in range(3000):
        if condition():
            return
        never.wait(0.01)
    pytest.fail("they did not come to wait")
