"""Pollers are told that nothing changed, or wait until it has."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.events import events
from service.http.conditional_reads import wait_seconds
from tests.service.rows import Rows


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("wait=5", 5),
        ("respond-async, wait=5", 5),
        ("wait = 7; x=1", 7),
        ('wait="3"', 3),
        ("Wait=2", 2),
        ("wait=100000", 60),
        ("wait=-1", 0),
        ("wait=soon", 0),
        ("await=5", 0),
    ],
)
def test_a_wait_is_read_and_bounded(prefer: str | None, seconds: float) -> None:
    assert wait_seconds(prefer, 60) == seconds


def _append(rows: Rows, sweep: str) -> None:
    rows.database.write(lambda session: events.append(session, sweep, "trial.report", data={"number": 0}))


def test_an_unchanged_list_is_304_and_a_changed_one_is_sent(client: TestClient, served_rows: Rows) -> None:
    sweep = served_rows.sweep(1)
    path = f"/v1/sweeps/{sweep}/trials"
    first = client.get(path)
    etag = first.headers["etag"]
    assert etag == '"2"'
    unchanged = client.get(path, headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    _append(served_rows, sweep)
    changed = client.get(path, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"3"')


@pytest.mark.parametrize("header", ['W/"2"', '"1", "2"', "*", ' "2" '])
def test_every_form_of_the_condition_is_understood(client: TestClient, served_rows: Rows, header: str) -> None:
    sweep = served_rows.sweep(1)
    assert client.get(f"/v1/sweeps/{sweep}/trials", headers={"If-None-Match": header}).status_code == 304


@pytest.mark.parametrize("header", ['"1"', "2", "", '"'])
def test_what_is_not_the_version_gets_the_answer(client: TestClient, served_rows: Rows, header: str) -> None:
    sweep = served_rows.sweep(1)
    assert client.get(f"/v1/sweeps/{sweep}/trials", headers={"If-None-Match": header}).status_code == 200


def test_a_poller_waits_for_the_change(client: TestClient, served_rows: Rows) -> None:
    sweep = served_rows.sweep(1)
    headers = {"If-None-Match": '"2"', "Prefer": "wait=30"}
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.get, f"/v1/sweeps/{sweep}/trials", headers=headers)
        _until_somebody_waits(served_rows, f"sweep:{sweep}")
        _append(served_rows, sweep)
        answer = waiting.result(30)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"3"')


def test_a_change_by_another_process_is_noticed_too(client: TestClient, served_rows: Rows, settings: Any) -> None:
    from service.database.sessions import Database

    sweep = served_rows.sweep(1)
    other = Database(settings.database_url)
    headers = {"If-None-Match": '"2"', "Prefer": "wait=30"}
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(client.get, f"/v1/sweeps/{sweep}/trials", headers=headers)
        _until_somebody_waits(served_rows, f"sweep:{sweep}")
        other.write(lambda session: events.append(session, sweep, "trial.report", data={"number": 0}))
        assert waiting.result(30).headers["etag"] == '"3"'
    other.close()


def test_a_wait_in_vain_is_304(client: TestClient, served_rows: Rows) -> None:
    sweep = served_rows.sweep(1)
    headers = {"If-None-Match": '"2"', "Prefer": "wait=1"}
    assert client.get(f"/v1/sweeps/{sweep}/trials", headers=headers).status_code == 304


def test_without_a_known_version_nothing_is_waited_for(client: TestClient, served_rows: Rows) -> None:
    sweep = served_rows.sweep(1)
    assert client.get(f"/v1/sweeps/{sweep}/trials", headers={"Prefer": "wait=60"}).status_code == 200


def test_a_trial_has_the_version_of_its_sweep(client: TestClient, served_rows: Rows) -> None:
    sweep = served_rows.sweep(0)
    (trial,) = served_rows.queue(sweep, 1)
    etag = client.get(f"/v1/trials/{trial}").headers["etag"]
    assert client.get(f"/v1/trials/{trial}", headers={"If-None-Match": etag}).status_code == 304
    _append(served_rows, sweep)
    assert client.get(f"/v1/trials/{trial}", headers={"If-None-Match": etag}).status_code == 200


def _until_somebody_waits(rows: Rows, topic: str) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if rows.database.notifications._wakers.get(topic):
            return
        pause.wait(0.01)
    raise AssertionError("nobody waits")
